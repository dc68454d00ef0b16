"""Is each difference between the provider's account and the books named, and nothing else?"""

from dataclasses import replace
from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from topup.accounting.closing import Closed
from topup.accounting.provider_check import Books, explained, retold, totals
from topup.accounting.usage import Used
from topup.domain.credits import Reading
from topup.domain.money import Usd

DAYS = [date(2026, 11, n) for n in (1, 2, 3)]
AT_MS = 1_793_836_800_000
# Closed at 100 dollars bought and 20 used; three days of one dollar each, as models and totals tell them.
BOOKS = Books(
    Closed(AT_MS, 100_000_000, 20_000_000, 30_000_000),
    80_000_000,
    dict.fromkeys(DAYS, 1_000_000),
    {day: [Used("big", 750_000_000), Used("small", 250_000_000)] for day in DAYS},
)


def reading(bought: str, used: str) -> Reading:
    return Reading(Usd.of(bought), Usd.of(used), AT_MS + 1)


@given(st.decimals(100, 200, places=4), st.decimals(20, 200, places=4))
def test_what_was_bought_and_used_since_is_no_difference(bought: Decimal, used: Decimal) -> None:
    """Totals only grow, and the next closing books it."""
    assert totals(BOOKS, Reading(Usd(bought), Usd(used), AT_MS + 1)) == []


def test_totals_that_fell_are_named() -> None:
    """Neither total is less than at the closing, where the journal ends; books never closed differ in nothing."""
    since = "at 2026-11-05 00:00:00Z, up to which the books are closed"
    assert totals(BOOKS, reading("99.99", "20")) == [f"total_credits is 99.99 now, and was 100 {since}"]
    assert totals(BOOKS, reading("100", "19.99")) == [f"total_usage is 19.99 now, and was 20 {since}"]
    assert totals(replace(BOOKS, credits=79_000_000), reading("100", "20")) == [
        "the journal holds 79 dollars of credit at 2026-11-05 00:00:00Z, where the provider showed 80"
    ]
    assert totals(Books(None, 0, {}, {}), reading("5", "1")) == explained(Books(None, 0, {}, {})) == []


def test_a_day_that_is_told_otherwise_now_is_named() -> None:
    """What was stored stands, and the provider's new word is shown beside it; other days are let be."""
    now = {DAYS[1]: [Used("big", 1_100_000_000)], date(2026, 11, 9): [Used("big", 5)]}
    assert retold(BOOKS, now) == ["2026-11-02: the provider says 1.1 dollars were used, and said 1 before"]
    assert retold(BOOKS, BOOKS.by_model) == []


def test_models_that_do_not_add_up_to_the_totals_are_named() -> None:
    """The edges of days are forgiven: a fiftieth of the sum and a cent; not more."""
    assert explained(BOOKS) == []
    assert explained(replace(BOOKS, moved=dict.fromkeys(DAYS, 1_022_000))) == []
    assert explained(replace(BOOKS, moved=dict.fromkeys(DAYS, 1_100_000))) == [
        "from 2026-11-01 to 2026-11-03 models used 3 dollars, and total_usage moved by 3.3"
    ]
