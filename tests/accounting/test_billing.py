"""Do the books balance after anything that can happen to an account, month by month?"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from topup.accounting.closing import Closed, closing_entries
from topup.accounting.journal import (
    CREDITS,
    IN_TRANSIT,
    Commodity,
    Entry,
    Line,
    credit_lines,
    payment_lines,
    reversal,
    revert_lines,
)
from topup.accounting.statement import Period, Statement, draw
from topup.domain.credits import HOUR_MS, Reading
from topup.domain.money import Usd, Usdc, Wei

FIRST = Period.month("2026-11")
MONTHS = [FIRST, Period.month("2026-12"), Period.month("2027-01")]


@dataclass
class Life:
    """An account, its provider and its journal, day after day; nothing but what top-ups post is known to the books."""

    at_ms: int = FIRST.first_ms
    credits: int = 20_000_000
    usage: int = 0
    posted: int = 0
    number: int = 0
    last: Closed | None = None
    entries: list[Entry] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def book(self, text: str, lines: tuple[Line, ...], topup: str = "") -> Entry:
        topup = topup or f"t{self.number}"
        source = "provider" if text == "credits posted" else "feed"
        tx, charge = self.number.to_bytes(32, "big"), f"c{self.number}"
        entry = Entry(self.at_ms, topup, text, tx, charge, self.number, Usd.of(11), source, lines)
        self.entries.append(entry)
        return entry

    def pay(self, dollars: int, how: str) -> None:
        """Pay for credits, perhaps in a block that is replaced first, and perhaps never get them."""
        self.number += 1
        total, fee = Usdc(dollars * 1_050_000), Usdc(dollars * 10_500)
        lines = payment_lines(Wei(dollars * 10**15), Wei(10**12), Wei(7), total)
        if how == "replaced":
            gone = self.book("payment", lines)
            self.entries.append(reversal(gone, self.at_ms))
        if how == "reverted":
            self.book("payment reverted", revert_lines(Wei(10**12), Wei(7)))
            return
        self.book("payment", lines)
        if how != "lost":
            self.book("credits posted", credit_lines(Usd.of(dollars), total, fee))
            self.credits += dollars * 1_000_000
            self.posted += dollars * 1_000_000

    def rest(self) -> None:
        """End the day: the provider is read, and the books are closed there."""
        self.at_ms += 23 * HOUR_MS
        closed = Closed(self.at_ms, self.credits, self.usage, self.posted)
        self.entries += closing_entries(closed, self.last)
        self.last = closed
        self.readings.append(Reading(_usd(self.credits), _usd(self.usage), self.at_ms))
        self.at_ms += HOUR_MS

    def statement(self, period: Period) -> Statement:
        shown = next((r for r in reversed(self.readings) if r.at_ms < period.end_ms), None)
        return draw("default", period, self.entries, reading=shown, head=None, now_ms=MONTHS[-1].end_ms)


def _usd(units: int) -> Usd:
    return Usd(Usdc(units).usdc)


micros = st.integers(1, 30_000_000)
happening = st.one_of(
    st.tuples(st.just("pay"), st.integers(1, 50), st.sampled_from(["paid", "paid", "replaced", "reverted", "lost"])),
    st.tuples(st.just("use"), micros),
    st.tuples(st.just("buy elsewhere"), micros),
    st.tuples(st.just("refund"), micros),
)


@given(st.lists(st.lists(happening, max_size=4), min_size=1, max_size=92))
def test_whatever_happens_the_months_join_and_balance(days: list[list[tuple[Any, ...]]]) -> None:
    """Top-ups, reverts, replaced blocks, lost credits, refunds, purchases by others, usage: for up to three months."""
    life, lost = Life(), 0
    life.rest()
    for day in days[:91]:
        for what, *how in day:
            match what:
                case "pay":
                    life.pay(int(how[0]), how[1])
                    lost += int(how[0]) * 1_050_000 if how[1] == "lost" else 0
                case "use":
                    life.usage += int(how[0])
                case "buy elsewhere":
                    life.credits += int(how[0])
                case _:
                    life.credits -= int(how[0])
        life.rest()
    told = [life.statement(period) for period in MONTHS]
    assert told[0].opening == {}
    for one, following in pairwise(told):
        assert following.opening == one.closing
    end = told[-1].closing
    for commodity in Commodity:
        assert sum(units for (_, of), units in end.items() if of is commodity) == 0
    assert end.get((CREDITS, Commodity.CREDIT), 0) == life.credits - life.usage
    assert end.get((IN_TRANSIT, Commodity.USDC), 0) == lost
    assert sum(one.used.usdc_down().units for one in told) == life.usage
    assert not [said for one in told for said in one.differences if "the books hold" in said]
