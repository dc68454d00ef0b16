"""How does a row become a record, and a record a row? Money as decimal text, bytes as they are, plans as JSON."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, ParamSpec, TypeVar

from topup.domain.credits import Doubt, Reading, Unknown
from topup.domain.errors import StoreUnusable
from topup.domain.lifecycle import Attempt, Broadcaster, Inclusion, Kind, Plan
from topup.domain.money import Asset, Usd, Usdc, Wei
from topup.ports.ledger import Requested

# How long a wish was good for that was stored before wishes said so themselves.
UNNAMED_LIFE_MS = 120_000
RESTORE: Final = "restore it from a backup, see docs/runbook.md"

P = ParamSpec("P")
T = TypeVar("T")


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
    return Requested(
        number=row["id"],
        at_ms=row["at_ms"],
        amount=usd(row["amount"]),
        forced=bool(row["forced"]),
        name=row["name"],
        until_ms=until_ms,
        taken=row["taken_ms"] is not None,
        withdrawn=row["withdrawn_ms"] is not None,
        topup_id=row["topup"],
        outcome=row["outcome"],
        why=row["why"] or "",
        code=row["code"],
        told=row["told"],
    )


def _wei(text: str) -> Wei:
    return Wei(int(text))


def _usdc(text: str) -> Usdc:
    return Usdc(int(text))


# How the parts of a stored plan or inclusion are read that JSON cannot hold; the rest is read as it stands.
_READ: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("value", "max_fee_per_gas", "max_priority_fee_per_gas", "l1_fee", "quote", "gas", "spent"), _wei),
    **dict.fromkeys(("tokens", "token_fee"), _usdc),
    **dict.fromkeys(("to", "data", "block_hash", "tx_hash"), bytes.fromhex),
    "kind": Kind,
    "asset": Asset,
    "broadcaster": Broadcaster,
}


def _flat(record: Plan | Inclusion) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        match value:
            case Wei(units=units) | Usdc(units=units):
                flat[field.name] = str(units)
            case bytes():
                flat[field.name] = value.hex()
            case Kind() | Asset() | Broadcaster():
                flat[field.name] = value.value
            case _:
                flat[field.name] = value
    return flat


def _unflat(flat: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, value in flat.items():
        read[name] = _READ[name](value) if name in _READ else value
    return read


def plan_json(plan: Plan) -> str:
    """Write a plan."""
    return json.dumps(_flat(plan))


def inclusion_json(inclusion: Inclusion) -> str:
    """Write where a transaction stands and what it cost."""
    return json.dumps(_flat(inclusion))


@legible("inclusion")
def inclusion(row: sqlite3.Row) -> Inclusion | None:
    """Read where a transaction stands; None where it was not seen."""
    return Inclusion(**_unflat(json.loads(row["inclusion"]))) if row["inclusion"] else None


@legible("payment")
def attempt(row: sqlite3.Row) -> Attempt:
    """Read an attempt."""
    plan = Plan(**_unflat(json.loads(row["plan"])))
    return Attempt(
        id=row["id"],
        charge_seq=row["charge_seq"],
        plan=plan,
        raw=row["raw"],
        hash=row["hash"],
        intended_ms=row["intended_ms"],
        last_sent_ms=row["last_sent_ms"],
        sends=row["sends"],
        withdrawn=bool(row["withdrawn"]),
        inclusion=inclusion(row),
        booked=bool(row["booked"]),
        answer=row["answer"],
        reference=row["reference"],
    )
