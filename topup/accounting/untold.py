"""By how much does what models and keys have used differ from what was used, and why?

Pure. What was used is the difference of two readings; what models and keys have used the provider tells of whole UTC
days, hours after their end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from topup.accounting.closing import OPENING, USAGE
from topup.accounting.journal import Commodity, Entry, units
from topup.accounting.statement import Statement
from topup.accounting.usage import days, holes
from topup.domain.credits import HALF_A_CENT, NOTHING
from topup.domain.moments import moment, utc_day
from topup.domain.money import Usd, Usdc

APART = "the books end a day at its last reading, the provider at midnight"


@dataclass(frozen=True)
class Cause:
    """A part of the difference: dollars that were used and are not told, or, below nothing, the other way round."""

    usd: Usd
    why: str


def causes(statement: Statement, told: Mapping[date, Usd]) -> tuple[Cause, ...]:
    """Return why the parts of a statement's usage do not sum to the whole, nothing where they do to half a cent.

    `told` is what was used on each day of the period of which the provider has told models and keys.
    """
    period, booked = statement.period, moved(statement.entries)
    found = []
    if (since := statement.unclosed) is not None:
        why = f"used since the books were closed last, at {moment(since.since_ms // 1000)}: told when the day is over"
        found.append(Cause(since.used, why))
    over = min(period.last, utc_day(statement.drawn_ms) - timedelta(days=1))
    for first, last in holes(period.first, over, told):
        used = sum((booked[day] for day in days(first, last) if day in booked), 0)
        found.append(Cause(Usdc(used).usd, f"used on {span(first, last)}, of which models and keys were not told"))
    began = _began(statement.entries)
    if began is not None and began > period.first:
        before = [told[day] for day in told if day < began]
        why = f"told of the days before {began}, on which this ledger began"
        found.append(Cause(NOTHING - sum(before, NOTHING), why))
    rest = statement.used_so_far - sum(told.values(), NOTHING) - sum((cause.usd for cause in found), NOTHING)
    why = APART if began is None else f"{APART}, and this ledger began within {began}"
    return tuple(cause for cause in (*found, Cause(rest, why)) if abs(cause.usd.amount) >= HALF_A_CENT.amount)


def moved(entries: Sequence[Entry]) -> dict[date, int]:
    """Return what the provider's totals moved by on each day, in 10^-6 dollars, as far as the books are closed."""
    sums: dict[date, int] = {}
    for entry in entries:
        used = units(entry.lines, (USAGE,), (Commodity.CREDIT,))
        if used:
            day = utc_day(entry.at_ms)
            sums[day] = sums.get(day, 0) + used
    return sums


def span(first: date, last: date) -> str:
    """Write the days from the first to the last."""
    return str(first) if first == last else f"{first} to {last}"


def _began(entries: Sequence[Entry]) -> date | None:
    """Return the day of the opening balance, where it is among the entries."""
    opened = [e.at_ms for e in entries if units(e.lines, (OPENING,), (Commodity.CREDIT,))]
    return utc_day(opened[0]) if opened else None
