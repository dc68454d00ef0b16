"""How does a row become a record, and a record a row? Money as decimal text, bytes as they are, plans as JSON."""

import functools
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, ParamSpec, TypeVar, cast

from topup.accounting.journal import Commodity, Entry, Line
from topup.domain.credits import Doubt, Reading, Unknown
from topup.domain.errors import StoreUnusable
from topup.domain.lifecycle import Attempt, Broadcaster, Inclusion, Kind, Plan, State
from topup.domain.money import Asset, Usd, Usdc, Wei
from topup.ports.ledger import Requested

# How long a wish was good for that was stored before wishes said so themselves.
UNNAMED_LIFE_MS = 120_000
RESTORE: Final = "restore it from a backup, see docs/runbook.md"

P = ParamSpec("P")
T = TypeVar("T")
Record = TypeVar("Record")
EntryRow = tuple[int, str, Entry, bytes | None]


class Broken(ValueError):
    """An entry that no program of this house has written; `number` is its id."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


def legible(what: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a row that cannot be read, because the disk or somebody has changed it, an error with a remedy."""

    def wrap(read: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(read)
        def whole(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return read(*args, **kwargs)
            except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
                said = f"the ledger is damaged: a row of it is no {what} ({type(error).__name__})"
                raise StoreUnusable(said, remedy=RESTORE) from error

        return whole

    return wrap


def word(number: int) -> bytes:
    """Return a number as 32 bytes, which SQLite orders as numbers."""
    return number.to_bytes(32, "big")


def usd(text: str | None) -> Usd | None:
    """Read dollars; None where there are none."""
    return None if text is None else Usd.of(text)


@legible("reading")
def reading(row: sqlite3.Row) -> Reading:
    """Read a believed reading."""
    return Reading(Usd.of(row["total_credits"]), Usd.of(row["total_usage"]), row["at_ms"])


@legible("reading")
def unknown(row: sqlite3.Row) -> Unknown:
    """Read a reading that was not believed."""
    said = reading(row) if row["total_credits"] is not None else None
    return Unknown(Doubt(row["doubt"]), row["detail"], row["at_ms"], said)


@legible("wish")
def request(row: sqlite3.Row) -> Requested:
    """Read a wish."""
    until_ms = row["until_ms"] if row["until_ms"] is not None else row["at_ms"] + UNNAMED_LIFE_MS
    ends = {"taken": row["taken_ms"] is not None, "withdrawn": row["withdrawn_ms"] is not None}
    asked = {"number": row["id"], "amount": usd(row["amount"]), "until_ms": until_ms}
    return record(Requested, row, **asked, **ends, topup_id=row["topup"], why=row["why"] or "")


def _wei(text: str) -> Wei:
    return Wei(int(text))


# How the fields of records are read that neither a row nor JSON holds as they are; the rest is read as it stands.
_READ: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(("value", "max_fee_per_gas", "max_priority_fee_per_gas", "l1_fee", "quote", "gas", "spent"), _wei),
    **dict.fromkeys(("tokens", "token_fee"), lambda text: Usdc(int(text))),
    **dict.fromkeys(("to", "data", "block_hash", "tx_hash"), bytes.fromhex),
    **dict.fromkeys(("forced", "withdrawn", "booked"), bool),
    **dict.fromkeys(("baseline", "balance_before"), usd),
    "amount": Usd.of,
    "wallet_before": lambda text: None if text is None else _wei(text),
    "state": State,
    "kind": Kind,
    "asset": Asset,
    "broadcaster": Broadcaster,
}


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _READ[name](value) if name in _READ else value for name, value in stored.items()}


def record(kind: type[Record], row: sqlite3.Row, **beside: object) -> Record:
    """Make a record of a row whose columns are called as its fields are; `beside` are the fields that are none."""
    names = [field.name for field in fields(cast("Any", kind)) if field.name not in beside]
    stored = {name: row[name] for name in names}
    return kind(**_read(stored), **beside)


def columns(record: Any) -> dict[str, Any]:
    """Return the fields of a record by their names, each as a column holds it; what is a tuple is left out."""
    stored: dict[str, Any] = {}
    for field in fields(record):
        match getattr(record, field.name):
            case Wei(units=units) | Usdc(units=units):
                stored[field.name] = str(units)
            case Usd() | StrEnum() as value:
                stored[field.name] = str(value)
            case tuple():
                pass  # rows of their own
            case value:
                stored[field.name] = value
    return stored


def as_json(record: Plan | Inclusion) -> str:
    """Write a plan, or where a transaction stands and what it cost."""
    return json.dumps(columns(record), default=bytes.hex)


@legible("inclusion")
def inclusion(row: sqlite3.Row) -> Inclusion | None:
    """Read where a transaction stands; None where it was not seen."""
    return Inclusion(**_read(json.loads(row["inclusion"]))) if row["inclusion"] else None


@legible("payment")
def attempt(row: sqlite3.Row) -> Attempt:
    """Read an attempt."""
    return record(Attempt, row, plan=Plan(**_read(json.loads(row["plan"]))), inclusion=inclusion(row))


def entries(db: sqlite3.Connection, where: str, values: tuple[object, ...], order: str) -> Iterator[EntryRow]:
    """Yield number, account, entry and stored hash of each of these entries of the journal.

    One statement, so that what is written meanwhile is seen whole or not at all; one entry is held at a time.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    sql = (
        "SELECT entry.*, line.account AS place, line.commodity, line.units FROM entry"
        f" LEFT JOIN line ON line.entry = entry.id WHERE {where} ORDER BY {order}, line.n"
    )
    for number, lines in groupby(db.execute(sql, values), key=itemgetter("id")):
        held = list(lines)
        try:
            entry = _entry(held)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Broken(number, str(error)) from error
        yield number, held[0]["account"], entry, held[0]["hash"]


def _entry(rows: list[sqlite3.Row]) -> Entry:
    """Return the entry that stands in these rows, one for each line; a single row without a place has no line."""
    row = rows[0]
    lines = tuple(Line(x["place"], Commodity(x["commodity"]), int(x["units"])) for x in rows if x["place"] is not None)
    names = {"topup_id": row["topup"] or "", "tx_hash": row["tx_hash"]}
    entry = record(Entry, row, **names, usd_value=usd(row["usd_value"]), lines=lines)
    # What reads alike and is written otherwise (01 for 1) has the same hash, and nobody here has written it.
    written = [row["topup"], row["usd_value"], *(x["units"] for x in rows if x["place"] is not None)]
    value = str(entry.usd_value) if entry.usd_value is not None else None
    if written != [entry.topup_id or None, value, *(str(x.units) for x in entry.lines)]:
        raise ValueError("a number or name in it is not written as this program writes it")
    return entry
