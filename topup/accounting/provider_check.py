"""Where do the provider's account and the books differ?

Pure. The books follow the provider's totals by construction (`closing.py`), so what is held against them here is what
they could not follow: totals that fell, days the provider tells otherwise than it did, and usage by model that does
not add up to what the totals moved by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from topup.accounting.closing import Closed
from topup.accounting.usage import NOISE_NANO, Used, dollars, total
from topup.domain.credits import Reading
from topup.domain.moments import moment
from topup.domain.money import Usdc

# A day of the totals begins and ends with a reading, not at midnight: what is used between the two is on another day.
# Over several days only the outer ends are left; so much of the sum, and a cent, is forgiven for them.
EDGES: Final = 50  # a fiftieth
CENT_NANO: Final = 10_000_000


@dataclass(frozen=True)
class Books:
    """What the ledger says.

    Attributes:
        closed: up to where the books are closed; None when they never were.
        credits: what the journal holds as prepaid credits at that moment, 10^-6 dollars.
        moved: what the totals moved by on each UTC day, 10^-6 dollars.
        by_model: what the provider has told that each model has used on a day.
    """

    closed: Closed | None
    credits: int
    moved: Mapping[date, int]
    by_model: Mapping[date, Sequence[Used]]


def totals(books: Books, now: Reading) -> list[str]:
    """Hold the journal's credits, and the totals the books are closed at, against a reading of now."""
    closed = books.closed
    if closed is None:
        return []
    differences = []
    when = moment(closed.at_ms // 1000)
    if books.credits != closed.credits - closed.usage:
        held, shown = Usdc(books.credits).usd, Usdc(closed.credits - closed.usage).usd
        differences.append(f"the journal holds {held} dollars of credit at {when}, where the provider showed {shown}")
    for name, is_now, then in (
        ("total_credits", now.total_credits, Usdc(closed.credits).usd),
        ("total_usage", now.total_usage, Usdc(closed.usage).usd),
    ):
        if is_now < then:
            differences.append(f"{name} is {is_now} now, and was {then} at {when}, up to which the books are closed")
    return differences


def retold(books: Books, now: Mapping[date, Sequence[Used]]) -> list[str]:
    """Hold what the provider says of stored days now against what it said when they were stored."""
    differences = []
    for day in sorted(set(books.by_model) & set(now)):
        was, is_now = total(books.by_model[day]).nano, total(now[day]).nano
        if abs(was - is_now) > NOISE_NANO:
            differences.append(
                f"{day}: the provider says {dollars(is_now)} dollars were used, and said {dollars(was)} before"
            )
    return differences


def explained(books: Books) -> list[str]:
    """Hold the sum of what models have used against what the totals moved by, on the days known to both."""
    both = sorted(set(books.by_model) & set(books.moved))
    by_model = sum(total(books.by_model[day]).nano for day in both)
    by_totals = sum(1000 * books.moved[day] for day in both)
    if abs(by_model - by_totals) <= CENT_NANO + max(by_model, by_totals) // EDGES:
        return []
    said = f"models used {dollars(by_model)} dollars, and total_usage moved by {dollars(by_totals)}"
    return [f"from {both[0]} to {both[-1]} {said}"]
