"""What does a statement's CSV say? The entries that it was written from, apostrophes before formulas taken off."""

import csv
import io
from decimal import Decimal
from itertools import groupby

from topup.accounting.journal import Commodity, Entry, Line
from topup.accounting.statement import DECIMALS
from topup.domain.money import WIDE, Usd


def read(text: str) -> list[Entry]:
    """Return the entries; whose wallet they moved is no part of them."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [_entry(list(its)) for _, its in groupby(rows, key=lambda row: row["entry"])]


def _entry(rows: list[dict[str, str]]) -> Entry:
    row = {name: cell.removeprefix("'") for name, cell in rows[0].items()}
    return Entry(
        at_ms=int(row["at_ms"]),
        topup_id=row["topup"],
        text=row["text"],
        tx_hash=bytes.fromhex(row["tx_hash"][2:]) if row["tx_hash"] else None,
        charge_id=row["charge_id"],
        block_number=int(row["block"]) if row["block"] else None,
        usd_value=Usd.of(row["usd_value"]) if row["usd_value"] else None,
        price_source=row["price_source"],
        lines=tuple(_line(one) for one in rows),
    )


def _line(row: dict[str, str]) -> Line:
    commodity = Commodity(row["commodity"])
    units = WIDE.scaleb(Decimal(row["amount"]), DECIMALS[commodity])
    assert units == int(units)
    return Line(row["account"], commodity, int(units))
