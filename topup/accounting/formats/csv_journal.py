"""How does the journal become CSV that a spreadsheet reads?

One row for each line of each entry; where several wallets were used, a wallet's line names it. Text that came from
somebody else may begin like a formula, which spreadsheets would run: it gets an apostrophe in front.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from topup.accounting.journal import WALLET, Entry
from topup.accounting.statement import shown
from topup.domain.moments import moment

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
    return sheet(OWNED if wallets else HEAD, _rows(entries, wallets))


def sheet(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV under their head; what is missing is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def safe(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(FORMULA) else text


def _rows(entries: Iterable[Entry], wallets: Mapping[Entry, bytes] | None) -> Iterator[Sequence[object]]:
    for number, entry in enumerate(entries, start=1):
        what = (number, moment(entry.at_ms // 1000), entry.at_ms, safe(entry.topup_id), safe(entry.text))
        about = (entry.usd_value, safe(entry.price_source), entry.tx, entry.block_number, safe(entry.charge_id))
        address = "0x" + wallets[entry].hex() if wallets and entry in wallets else ""
        for line in entry.lines:
            owner = [address if line.account == WALLET else ""] if wallets else []
            yield (*what, line.account, line.commodity.value, shown(line.units, line.commodity), *about, *owner)
