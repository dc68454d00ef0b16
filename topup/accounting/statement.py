"""What happened to the money within a period? Opening and closing balances, refills and what they cost, what is open.

Pure: the journal and two readings go in, a statement comes out. A period is whole UTC days, because that is what
providers bill by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from topup.accounting.closing import ELSEWHERE, USAGE, BalanceAssertion, Closed
from topup.accounting.journal import (
    CREDITS,
    FEE_OPERATOR,
    FEE_PROVIDER,
    IN_TRANSIT,
    NETWORK,
    SWAP_COST,
    TOKENS,
    Commodity,
    Entry,
    by_topup,
    units,
)
from topup.domain.credits import DAY_MS, HALF_A_CENT, Reading
from topup.domain.errors import SettingsError
from topup.domain.moments import moment
from topup.domain.money import WIDE, Usd, Usdc, plain

DECIMALS: Final[Mapping[Commodity, int]] = {c: 18 if c is Commodity.ETH else 6 for c in Commodity}
Balances = dict[tuple[str, Commodity], int]


@dataclass(frozen=True)
class Period:
    """Whole UTC days, the last one included."""

    first: date
    last: date

    @classmethod
    def month(cls, text: str) -> Period:
        """Read a month such as 2026-11; anything else is a SettingsError."""
        first = _date(f"{text}-01")
        if first is None:
            raise SettingsError(f"--month {text!r} is no month", remedy="a month is written 2026-11")
        return cls(first, (first + timedelta(days=32)).replace(day=1) - timedelta(days=1))

    @classmethod
    def days(cls, first: str, last: str) -> Period:
        """Read a first and a last day.

        Raises:
            SettingsError: one of them is no day, or they are the wrong way round.
        """
        period = cls(_day("--from", first), _day("--to", last))
        if period.first > period.last:
            raise SettingsError(f"--from {first} is after --to {last}", remedy="give the earlier day to --from")
        return period

    @property
    def first_ms(self) -> int:
        """Return its beginning, in milliseconds since the epoch."""
        return _ms(self.first)

    @property
    def end_ms(self) -> int:
        """Return the first moment after it."""
        return _ms(self.last + timedelta(days=1))

    def __contains__(self, at_ms: int) -> bool:
        return self.first_ms <= at_ms < self.end_ms

    def __str__(self) -> str:
        return f"{self.first} to {self.last} (UTC)"


@dataclass(frozen=True)
class Refill:
    """One top-up with what it has cost, as far as it is booked.

    Attributes:
        posted_ms: when its credits were booked; None while they are in transit, or when it never paid.
        fees: what provider and operator kept of the dollars.
        network_wei: gas and L1 data fee, of failed attempts too.
        network_tokens: what the network took in the token that was paid with.
        swap_wei: what swaps took beyond the feed's price, negative where they gave more; 0 where it was not known.
        usd: what left the wallet, in dollars at payment time; None where a part of it was never priced.
    """

    topup_id: str
    posted_ms: int | None
    credits: Usd
    fees: Usdc
    network_wei: int
    network_tokens: Usdc
    swap_wei: int
    usd: Usd | None
    tx_hashes: tuple[bytes, ...]

    @property
    def posted(self) -> str:
        """Return when its credits were booked, for a person to read."""
        return moment(self.posted_ms // 1000) if self.posted_ms is not None else "not posted"

    @property
    def usd_per_credit(self) -> Decimal | None:
        """Return the dollars that one dollar of credit has cost in all, to four decimals."""
        if self.usd is None or not self.credits.amount:
            return None
        return (WIDE.divide(self.usd.amount, self.credits.amount)).quantize(Decimal("0.0001"), context=WIDE)


@dataclass(frozen=True)
class Unclosed:
    """What readings show as used that no closing has booked yet: since the last one, until the newest reading."""

    used: Usd
    since_ms: int
    until_ms: int


@dataclass(frozen=True)
class Statement:
    """One account within one period. Balances are in the smallest unit of each commodity; zeros are left out.

    `wallets` is empty where the account has only ever used one; `unclosed` is None where the books are closed.
    """

    account: str
    period: Period
    drawn_ms: int
    head: str | None
    opening: Balances
    closing: Balances
    entries: tuple[Entry, ...]
    refills: tuple[Refill, ...]
    differences: tuple[str, ...]
    wallets: Mapping[Entry, bytes]
    unclosed: Unclosed | None = None

    @property
    def balances(self) -> list[tuple[str, Commodity, int, int]]:
        """Return account and commodity of each balance in order, with its units at the opening and at the closing."""
        keys = sorted({*self.opening, *self.closing})
        return [(*key, self.opening.get(key, 0), self.closing.get(key, 0)) for key in keys]

    def wallet(self, entry: Entry) -> str:
        """Return the address of the wallet that an entry has moved, "" where that goes without saying or is unknown."""
        return "0x" + self.wallets[entry].hex() if entry in self.wallets else ""

    def moved(self, account: str, commodity: Commodity) -> int:
        """Return by how much a balance changed within the period."""
        key = (account, commodity)
        return self.closing.get(key, 0) - self.opening.get(key, 0)

    @property
    def used(self) -> Usd:
        """Return the credits that were used, as far as the books are closed."""
        return Usdc(self.moved(USAGE, Commodity.CREDIT)).usd

    @property
    def used_so_far(self) -> Usd:
        """Return the credits that were used, by the readings since where the books are not closed yet."""
        return self.used + self.unclosed.used if self.unclosed is not None else self.used

    @property
    def posted(self) -> list[Refill]:
        """Return the refills that were posted in the period; the others have only been paid or corrected in it."""
        return [refill for refill in self.refills if refill.posted_ms is not None and refill.posted_ms in self.period]

    @property
    def bought(self) -> Usd:
        """Return the credits that top-ups have bought."""
        return Usd(sum((refill.credits.amount for refill in self.posted), Decimal(0)))

    @property
    def elsewhere(self) -> Usd:
        """Return the credits that were bought elsewhere."""
        return Usdc(-self.moved(ELSEWHERE, Commodity.CREDIT)).usd


def draw(
    account: str,
    period: Period,
    entries: Sequence[Entry],
    *,
    carried: Balances | None = None,
    wallet: Sequence[tuple[BalanceAssertion, int]] = (),
    wallets: Mapping[Entry, bytes] | None = None,
    reading: Reading | None,
    head: str | None,
    now_ms: int,
) -> Statement:
    """Draw up the statement of a period from the account's journal, oldest entry first.

    Without `carried` the entries are the whole journal. With it they are those that `Journal.within` returns, and it
    holds what the others sum to. `wallet` is the newest balance assertion of each commodity before the end of the
    period, each with what the books say that the wallet held then; `wallets` is whose wallet each entry has moved,
    nothing where only one was ever used; `reading` is the last believed one before the end of the period; `head` is the
    journal's newest hash in hex.
    """
    before = [e for e in entries if e.at_ms < period.first_ms]
    within = tuple(sorted((e for e in entries if e.at_ms in period), key=lambda e: e.at_ms))
    opening = _summed(carried or {}, before)
    closing = _summed(opening, within)
    return Statement(
        account=account,
        period=period,
        drawn_ms=now_ms,
        head=head,
        opening=opening,
        closing=closing,
        entries=within,
        refills=_refills(entries, period),
        differences=(*_differences(closing, within, reading, period, now_ms), *_moved(wallet)),
        wallets=wallets or {},
    )


def unclosed(readings: Sequence[Reading], closed: Closed | None) -> Unclosed | None:
    """Return what the readings of a period, oldest first, show as used since the newest closing.

    Before the first closing it is what was used since the first of them.
    """
    if not readings:
        return None
    first, last = readings[0], readings[-1]
    if closed is None:
        return Unclosed(last.total_usage - first.total_usage, first.at_ms, last.at_ms)
    if last.at_ms <= closed.at_ms:
        return None
    return Unclosed(last.total_usage - Usdc(closed.usage).usd, closed.at_ms, last.at_ms)


def amount(count: int, commodity: Commodity) -> Decimal:
    """Return so many of a commodity's smallest unit in whole ones, exact."""
    return WIDE.scaleb(Decimal(count), -DECIMALS[commodity])


def shown(count: int, commodity: Commodity) -> str:
    """Return so many of a commodity's smallest unit as exact text in whole ones."""
    return plain(amount(count, commodity))


def _differences(
    closing: Balances, within: Sequence[Entry], reading: Reading | None, period: Period, now_ms: int
) -> list[str]:
    said = []
    if now_ms < period.end_ms:
        said.append("the period is not over: what follows is provisional")
    held = Usdc(closing.get((CREDITS, Commodity.CREDIT), 0)).usd
    if reading is None:
        said.append("the provider's balance was never read in this period, and cannot be held against the books")
    else:
        off = reading.balance - held
        when = moment(reading.at_ms // 1000)
        if abs(off.amount) >= HALF_A_CENT.amount:
            why = "used or bought since the books were closed last" if now_ms < period.end_ms else "not explained"
            said.append(
                f"the books hold {held} dollars of credit, the provider showed {reading.balance} at {when}: {why}"
            )
    for commodity in Commodity:
        left = closing.get((IN_TRANSIT, commodity), 0)
        if left:
            said.append(f"{amount(left, commodity):f} {commodity} left the wallet and are not posted as credit yet")
    said += [f"{e.text}: no price was known at payment time" for e in within if e.usd_value is None and e.tx_hash]
    return said


def _moved(wallet: Sequence[tuple[BalanceAssertion, int]]) -> list[str]:
    return [
        f"the wallet holds {amount(at.units, at.commodity):f} {at.commodity} on chain at block {at.block},"
        f" the books say {amount(booked, at.commodity):f}"
        for at, booked in wallet
        if at.units != booked
    ]


def _refills(entries: Sequence[Entry], period: Period) -> tuple[Refill, ...]:
    mine = by_topup([e for e in entries if e.at_ms < period.end_ms])
    refills = [refill(name, its) for name, its in mine.items() if any(e.at_ms in period for e in its)]
    return tuple(sorted(refills, key=lambda r: (r.posted_ms is None, r.posted_ms or 0)))


def refill(topup_id: str, entries: Sequence[Entry]) -> Refill:
    """Return what one top-up was, from its entries, oldest first."""
    lines = [x for e in entries for x in e.lines]
    paid = [e for e in entries if e.tx_hash is not None and e.price_source != "provider"]
    posted = [e.at_ms for e in entries if any(x.account == CREDITS for x in e.lines)]

    values = [e.usd_value for e in paid]
    known = [v.amount for v in values if v is not None]
    return Refill(
        topup_id=topup_id,
        posted_ms=posted[-1] if posted else None,
        credits=Usdc(units(lines, (CREDITS,), (Commodity.CREDIT,))).usd,
        fees=Usdc(units(lines, (FEE_PROVIDER, FEE_OPERATOR), TOKENS)),
        network_wei=units(lines, NETWORK, (Commodity.ETH,)),
        network_tokens=Usdc(units(lines, NETWORK, TOKENS)),
        swap_wei=units(lines, (SWAP_COST,), (Commodity.ETH,)),
        usd=Usd(sum(known, Decimal(0))) if len(known) == len(values) else None,
        tx_hashes=tuple(dict.fromkeys(e.tx_hash for e in paid if e.tx_hash is not None)),
    )


def _summed(start: Balances, entries: Sequence[Entry]) -> Balances:
    sums = dict(start)
    for entry in entries:
        for line in entry.lines:
            key = (line.account, line.commodity)
            sums[key] = sums.get(key, 0) + line.units
    return {key: held for key, held in sums.items() if held}


def _day(option: str, text: str) -> date:
    day = _date(text)
    if day is None:
        raise SettingsError(f"{option} {text!r} is no day", remedy="a day is written 2026-11-23, and is meant in UTC")
    return day


def _date(text: str) -> date | None:
    try:
        day = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        return None
    return day if day is not None and 1970 <= day.year <= 9998 else None


def _ms(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_MS
