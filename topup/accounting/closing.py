"""What did account and wallet do that no top-up explains?

Usage, credits bought elsewhere, coins that somebody else moved, and the balances both began with.

Pure. The books are closed against a believed reading: what the provider counts as used since the last closing is
booked as usage, and whatever rise of its credits no top-up of ours explains as bought elsewhere. Totals are cut to
10^-6 dollars before they are subtracted, so that no fraction is ever lost or counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topup.accounting.journal import CREDITS, WALLET, Commodity, Entry, Line
from topup.domain.credits import DAY_MS, Reading
from topup.domain.moments import utc_day
from topup.domain.money import EthPrice, Usd, Usdc, Wei

USAGE = "expenses:usage"
ELSEWHERE = "equity:bought-elsewhere"
OPENING = "equity:opening-balance"
PAD = "equity:wallet-moved-elsewhere"


@dataclass(frozen=True)
class Closed:
    """Up to where the books are closed: the reading's time, its totals, and what top-ups had posted by then.

    The last three count from the beginning, in 10^-6 dollars of credit.
    """

    at_ms: int
    credits: int
    usage: int
    posted: int

    @classmethod
    def at(cls, reading: Reading, posted: int) -> Closed:
        """Close at a reading; `posted` is what the journal says of all top-ups up to its time."""
        return cls(reading.at_ms, _micros(reading.total_credits), _micros(reading.total_usage), posted)


@dataclass(frozen=True)
class BalanceAssertion:
    """What a wallet held of a commodity, in its smallest unit, after a final block; `at_ms` is the block's time."""

    chain_id: int
    wallet: bytes
    commodity: Commodity
    block: int
    at_ms: int
    units: int


def wallet_due(last_ms: int, now_ms: int) -> bool:
    """Tell whether the wallet has to be looked at: on another UTC day than that of the last balance assertion.

    `last_ms` is the time of the last assertion, before the first that of the last closing of the account: where the
    books were only opened, the wallet's follow with the first whole day.
    """
    return now_ms // DAY_MS > last_ms // DAY_MS


def wallet_entries(at: BalanceAssertion, booked: int, price_e8: int | None, *, first: bool) -> list[Entry]:
    """Return what brings the wallet in the books to what it held, nothing where it is there.

    `booked` is what all lines of the wallet sum to whose block is at or before the assertion's, whenever they were
    entered: what is booked late, or taken back, evens out at the next assertion. `price_e8` is dollars per ETH at that
    block, 8 decimals, None when unknown; `first` says that it is the commodity's first assertion.
    """
    units = at.units - booked
    if not units:
        return []
    text, other = ("opening balance of the wallet", OPENING) if first else ("wallet moved by others", PAD)
    worth: tuple[Usd | None, str] = (Usdc(abs(units)).usd, "par")
    if at.commodity is Commodity.ETH:
        worth = (EthPrice(price_e8).usd_of_up(Wei(abs(units))), "feed") if price_e8 else (None, "none")
    return [_moved(at.at_ms, at.block, text, worth, (WALLET, other), at.commodity, units)]


def due(readings: Sequence[Reading], last: Closed | None, busy: Sequence[tuple[int, int]]) -> Reading | None:
    """Return which of the believed readings since the last closing to close the books at, None when it is not time.

    The books are closed once a UTC day, at the last reading of a day that is over, so that a day's usage is that day's.
    Without a last closing the newest reading is the opening balance. `busy` says from when to when, inclusive, a top-up
    was on its way: its credits may show before they are booked.
    """
    calm = [r for r in readings if not any(first <= r.at_ms <= end for first, end in busy)]
    if last is None:
        return calm[-1] if calm else None
    over = [r for r in calm if r.at_ms // DAY_MS < readings[-1].at_ms // DAY_MS and r.at_ms > last.at_ms]
    return over[-1] if over else None


def closing_entries(at: Closed, last: Closed | None) -> list[Entry]:
    """Return what brings the books from the last closing, None before the first, to this one."""
    if last is None:
        moved = [("opening balance", (CREDITS, OPENING), at.credits - at.usage - at.posted)]
    else:
        elsewhere = (at.credits - last.credits) - (at.posted - last.posted)
        moved = [
            (f"usage, {utc_day(at.at_ms)}", (USAGE, CREDITS), at.usage - last.usage),
            ("credits bought elsewhere", (CREDITS, ELSEWHERE), elsewhere),
        ]
    return [
        _moved(at.at_ms, None, text, (Usdc(units).usd, "provider"), accounts, Commodity.CREDIT, units)
        for text, accounts, units in moved
        if units
    ]


def _moved(
    at_ms: int,
    block: int | None,
    text: str,
    worth: tuple[Usd | None, str],
    accounts: tuple[str, str],
    commodity: Commodity,
    units: int,
) -> Entry:
    """Return the entry of what came to the first account from the second."""
    lines = (Line(accounts[0], commodity, units), Line(accounts[1], commodity, -units))
    return Entry(at_ms, "", text, None, "", block, *worth, lines)


def _micros(total: Usd) -> int:
    return total.usdc_down().units
