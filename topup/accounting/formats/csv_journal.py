"""How does the journal become CSV that a spreadsheet reads, and comes back from it unchanged?

One row for each line of each entry; where several wallets were used, a wallet's line names it. Text that came from
somebody else may begin like a formula, which spreadsheets would run: it gets an apostrophe in front, and loses it again
when it is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from topup.accounting.journal import WALLET, Commodity, Entry, Line
from topup.accounting.statement import DECIMALS, amount
from topup.domain.errors import SettingsError
from topup.domain.moments import moment
from topup.domain.money import WIDE, Usd, plain

HEAD: Final = (
    "entry",
    "time",
    "at_ms",
    "topup",
    "text",
    "account",
    "commodity",
    "amount",
    "usd_value",
    "price_source",
    "tx_hash",
    "block",
    "charge_id",
)
# A further column where the account has used more than one.
OWNED: Final = (*HEAD, "wallet")
# What makes a spreadsheet take text for a formula (OWASP, "CSV injection"), and the mark itself.
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def write(entries: Iterable[Entry], wallets: Mapping[Entry, bytes] | None = None) -> str:
    """Return the entries as CSV with a head; `wallets` says whose wallet each has moved, where that has to be said."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(OWNED if wallets else HEAD)
    for number, entry in enumerate(entries, start=1):
        told = (number, moment(entry.at_ms // 1000), entry.at_ms, safe(entry.topup_id), safe(entry.text))
        known = (
            str(entry.usd_value) if entry.usd_value is not None else "",
            safe(entry.price_source),
            "0x" + entry.tx_hash.hex() if entry.tx_hash is not None else "",
            entry.block_number if entry.block_number is not None else "",
            safe(entry.charge_id),
        )
        address = "0x" + wallets[entry].hex() if wallets and entry in wallets else ""
        for line in entry.lines:
            of = [address if line.account == WALLET else ""] if wallets else []
            rows.writerow(
                (*told, line.account, line.commodity.value, plain(amount(line.units, line.commodity)), *known, *of)
            )
    return out.getvalue()


def read(text: str) -> list[Entry]:
    """Return the entries that `write` has written; whose wallet they moved is not a part of them.

    Raises:
        SettingsError: this is not such a file; the row is named.
    """
    rows = list(csv.reader(io.StringIO(text, newline="")))
    head = tuple(rows[0]) if rows else ()
    if head not in (HEAD, OWNED):
        raise SettingsError("the file has not the head of a statement", remedy="export it with `topup statement`")
    grouped: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(head):
            raise SettingsError(f"row {number} has {len(row)} fields, not {len(head)}", remedy="export it again")
        named = dict(zip(head, row, strict=True))
        grouped.setdefault(named["entry"], []).append(named)
    try:
        return [_entry(its) for its in grouped.values()]
    except (ValueError, ArithmeticError) as error:
        raise SettingsError(f"the file cannot be read: {error}", remedy="export it again") from None


def safe(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(FORMULA) else text


def _plainly(text: str) -> str:
    return text.removeprefix("'")


def _entry(its: list[dict[str, str]]) -> Entry:
    one = its[0]
    return Entry(
        at_ms=int(one["at_ms"]),
        topup_id=_plainly(one["topup"]),
        text=_plainly(one["text"]),
        tx_hash=bytes.fromhex(one["tx_hash"][2:]) if one["tx_hash"] else None,
        charge_id=_plainly(one["charge_id"]),
        block_number=int(one["block"]) if one["block"] else None,
        usd_value=Usd.of(one["usd_value"]) if one["usd_value"] else None,
        price_source=_plainly(one["price_source"]),
        lines=tuple(_line(x) for x in its),
    )


def _line(row: dict[str, str]) -> Line:
    commodity = Commodity(row["commodity"])
    units = WIDE.scaleb(Decimal(row["amount"]), DECIMALS[commodity])
    if units != int(units):
        raise ValueError(f"{row['amount']} {commodity} is no whole number of its smallest unit")
    return Line(row["account"], commodity, int(units))
