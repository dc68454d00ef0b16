"""How long will the credits last, how long the wallet, and what would cost less?

Pure. Days are counted back from the newest reading, 24 hours each, so that no time zone matters; the day seven of them
ago is the same day of the week. Fractions stay exact until a figure is given out.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil
from statistics import mean
from typing import Final

from topup.accounting.journal import CREDITS, NETWORK, TOKENS, WALLET, Commodity, Entry, by_topup, units
from topup.domain.credits import (
    DAY_MS,
    HOUR_MS,
    RUNWAY_SPAN_MIN_MS,
    USUAL_DAYS_MIN,
    Reading,
    Runway,
    burn_usd_per_hour,
    lasts_h,
)
from topup.domain.lifecycle import TopUp
from topup.domain.money import WIDE, Asset, Usd, Usdc, Wei
from topup.domain.policy import Limits, Past, Why, amount_due, over_budget, worst_spend

WEEK: Final = 7
MONTH: Final = 30
# What is usual is learnt from so many days.
HISTORY_DAYS: Final = 42
# The days of the week are told apart where each was read so often.
EACH_WEEKDAY_MIN: Final = 4
# An account that is read once a day has days; what was used within a longer gap belongs to none.
GAP_MAX_MS: Final = 36 * HOUR_MS
# What the network takes is the mean over so many of the newest top-ups.
PAYMENTS_MAX: Final = 30
CAPS_AHEAD_MS: Final = MONTH * DAY_MS


@dataclass(frozen=True)
class Band:
    """What may be left at a moment: the likely balance, and the lower and upper end of what is usual."""

    at_ms: int
    low: Usd
    likely: Usd
    high: Usd


@dataclass(frozen=True)
class Pace:
    """Dollars used on each of the days after the newest reading; after the last of them they begin again.

    One day where the days of the week are not told apart, else seven. `low` and `high` are the tenth and the ninetieth
    percentile of what such a day used, `likely` its mean, which lies between them or takes the place of one of them.
    """

    low: tuple[Fraction, ...]
    likely: tuple[Fraction, ...]
    high: tuple[Fraction, ...]

    @property
    def by_weekday(self) -> bool:
        """Tell whether the days of the week are told apart."""
        return len(self.likely) == WEEK

    def bands(self, reading: Reading, days: int) -> list[Band]:
        """Return what a reading shows, and what may be left after each of so many days if nothing is bought."""
        bands = [Band(reading.at_ms, reading.balance, reading.balance, reading.balance)]
        low = likely = high = Fraction(reading.balance.amount)
        for n in range(days):
            low -= self.high[n % len(self.high)]
            likely -= self.likely[n % len(self.likely)]
            high -= self.low[n % len(self.low)]
            left = (rounded(max(dollars, Fraction(0))) for dollars in (low, likely, high))
            bands.append(Band(reading.at_ms + (n + 1) * DAY_MS, *left))
        return bands


@dataclass(frozen=True)
class WalletForecast:
    """What the wallet held after the newest top-up, above its reserve, and what one refill takes of it, network too."""

    spare: Wei
    refill: Wei
    at_ms: int

    @property
    def refills(self) -> int:
        """Return how many refills that covers."""
        return max(0, self.spare.units) // self.refill.units


@dataclass(frozen=True)
class Network:
    """What the network has taken of one top-up, failed attempts included: the mean over so many; dollars."""

    mean: Usd
    topups: int


@dataclass(frozen=True)
class Larger:
    """A larger amount to buy each time, and what that would save within 30 days; None where that is unknown."""

    amount: Usd
    refills: Decimal
    saves: Usd | None


@dataclass(frozen=True)
class Held:
    """The first refill that a cap would hold: since when, until when (None: for good), and what is left by then."""

    why: Why
    at_ms: int
    until_ms: int | None
    left: Usd | None


@dataclass(frozen=True)
class Forecast:
    """What may be expected of an account from its newest reading on; None is unknown, or for ever in a `Runway`.

    Attributes:
        burn: dollars an hour within the last 24 hours of readings, as the rule for `floor_hours` sees it.
        now: the time left at `burn`.
        days: of how many of the last `HISTORY_DAYS` it is known what they used.
        usual: the time left at the likely pace.
        busy: the time left if every day uses what only one in ten exceeds.
        floor_h: how long the floor itself would last on busy days.
        amount: dollars of credit that one refill buys.
        refills: how many of them 30 days take at `day`.
        covered: the time left if the wallet buys all it can, at the likely pace.
        covered_busy: the same on busy days.
        day: the pace that months and caps are judged by, in dollars a day: the mean of the likely week, or else `burn`.
        capped_at: the pace the caps are judged by: `day`, or `burn` where that is faster.
        held: the first refill within 30 days that a cap would hold at `capped_at`; None when none does.
    """

    reading: Reading | None
    burn: Usd | None
    now: Runway
    days: int
    pace: Pace | None
    usual: Runway
    busy: Runway
    floor_h: Decimal | None
    amount: Usd
    refills: Decimal | None
    network: Network | None
    larger: tuple[Larger, ...]
    wallet: WalletForecast | None
    covered: Runway
    covered_busy: Runway
    day: Fraction | None
    capped_at: Fraction | None
    held: Held | None

    @property
    def usual_day(self) -> Fraction | None:
        """Return what a usual day uses, in dollars; None while no usual pace is known."""
        return mean(self.pace.likely) if self.pace is not None else None

    def moment_ms(self, hours: Decimal | None) -> int | None:
        """Return when so many hours after the newest reading will be over; None for None."""
        return self.reading.at_ms + int(hours * HOUR_MS) if self.reading is not None and hours is not None else None

    @property
    def bands(self) -> list[Band]:
        """Return what may be left in the week after the newest reading; none while no usual pace is known."""
        if self.reading is None or self.pace is None:
            return []
        bands = self.pace.bands(self.reading, WEEK)
        # Once nothing can be left even at the calmest, there is nothing more to foresee.
        return bands[: next((n + 1 for n, band in enumerate(bands) if n and band.high.amount == 0), len(bands))]


def draw(
    readings: Sequence[Reading],
    limits: Limits,
    *,
    past: Sequence[Past],
    entries: Sequence[Entry],
    wallet: WalletForecast | None,
    now_ms: int,
) -> Forecast:
    """Look ahead from the newest believed reading; `since` says how far back they are wanted, oldest first.

    `past` are the top-ups of the last 30 days as the caps see them; `entries` are those of the newest posted top-ups,
    or the whole journal, oldest first. `now_ms` is ledger time.
    """
    last = readings[-1] if readings else None
    balance = last.balance if last is not None else None
    burn = burn_usd_per_hour(readings, span_min_ms=RUNWAY_SPAN_MIN_MS)
    days = days_used(readings)
    pace = usual(days)
    likely, high = (pace.likely, pace.high) if pace is not None else ((), ())
    lately = Fraction(burn.amount) * 24 if burn is not None else None
    day = mean(likely) if pace is not None else lately
    capped_at = max((pace for pace in (day, lately) if pace is not None), default=None)
    amount, network = refill_amount(limits), network_cost(entries)
    stock = balance + amount.times(wallet.refills) if balance is not None and wallet is not None else None
    held = None
    if last is not None and capped_at:
        held = _held(last.balance, capped_at, amount, past, now_ms, limits)
    return Forecast(
        reading=last,
        burn=burn,
        now=_left(balance, limits.floor, () if lately is None else (lately,)),
        days=sum(used is not None for used in days),
        pace=pace,
        usual=_left(balance, limits.floor, likely),
        busy=_left(balance, limits.floor, high),
        floor_h=lasts_h(limits.floor, high),
        amount=amount,
        refills=_decimal(day * MONTH / Fraction(amount.amount), 2) if day is not None else None,
        network=network,
        larger=_larger(amount, limits, day, network),
        wallet=wallet,
        covered=_left(stock, limits.floor, likely),
        covered_busy=_left(stock, limits.floor, high),
        day=day,
        capped_at=capped_at,
        held=held,
    )


def since(newest_ms: int) -> int:
    """Return the time from which readings matter: the days looked at, and the reading before the first of them."""
    return newest_ms - HISTORY_DAYS * DAY_MS - GAP_MAX_MS


def refill_amount(limits: Limits) -> Usd:
    """Return what a refill buys whose time has just come."""
    return amount_due(Reading(limits.floor, Usd.of(0), 0), limits)


def wallet_forecast(topups: Sequence[TopUp], amount: Usd, reserve: Wei) -> WalletForecast | None:
    """Return what the wallet held after the newest top-up that looked at it, None when the ledger cannot tell.

    Top-ups come newest first; `amount` is what a refill buys, `reserve` is never spent. Only ETH is written down with a
    top-up, so that it is unknown what a wallet holds that pays with a token. What has come into the wallet since, or
    left it otherwise, is unknown as well. The price is that of the newest payment.
    """
    looked = next((t for t in topups if t.wallet_before is not None and t.attempts), None)
    bought = next((t for t in topups if t.paying is not None), None)
    if looked is None or looked.wallet_before is None or bought is None:
        return None
    paying, paid = bought.paying, bought.payment
    if paying is None or paid is None or {paying.plan.asset, looked.attempts[-1].plan.asset} != {Asset.ETH}:
        return None
    # It was looked at before the first payment for the newest charge.
    after = [a.inclusion for a in looked.attempts if a.charge_seq == len(looked.charges) and a.inclusion is not None]
    held = looked.wallet_before - sum((p.spent + p.gas + p.l1_fee for p in after), Wei(0))
    price = ceil(Fraction(paid.spent.units) * Fraction(amount.amount) / Fraction(bought.amount.amount))
    refill = Wei(price) + paid.gas + paid.l1_fee
    at_ms = max((p.block_ms for p in after), default=looked.decided_ms)
    return WalletForecast(held - reserve, refill, at_ms) if refill.units else None


def days_used(readings: Sequence[Reading]) -> list[Fraction | None]:
    """Return the dollars used on each of the days before the newest reading, newest first; None where unknown.

    Between two believed readings, oldest first, usage is taken as even. A total that a person accepted as lower is no
    usage.
    """
    if not readings:
        return []
    newest = readings[-1].at_ms
    times, totals = [readings[0].at_ms], [Fraction(0)]
    unknown: set[int] = set()
    for earlier, later in pairwise(readings):
        risen = Fraction(later.total_usage.amount) - Fraction(earlier.total_usage.amount)
        times.append(later.at_ms)
        totals.append(totals[-1] + max(Fraction(0), risen))
        if later.at_ms - earlier.at_ms > GAP_MAX_MS:
            first, last = (newest - later.at_ms) // DAY_MS, (newest - earlier.at_ms - 1) // DAY_MS
            unknown |= set(range(first, min(last + 1, HISTORY_DAYS)))

    def total(at_ms: int) -> Fraction:
        n = bisect_right(times, at_ms) - 1
        if times[n] == at_ms:
            return totals[n]
        return totals[n] + (totals[n + 1] - totals[n]) * (at_ms - times[n]) / (times[n + 1] - times[n])

    count = min(HISTORY_DAYS, (newest - times[0]) // DAY_MS)
    ends = [total(newest - n * DAY_MS) for n in range(count + 1)]
    return [None if n in unknown else end - start for n, (end, start) in enumerate(pairwise(ends))]


def usual(days: Sequence[Fraction | None]) -> Pace | None:
    """Return what a day uses, from what the days before did, newest first; None while fewer than a week are known.

    The days of the week are told apart once each of them is known at least `EACH_WEEKDAY_MIN` times.
    """
    known = [used for used in days if used is not None]
    if len(known) < USUAL_DAYS_MIN:
        return None
    # The next day is the one that was seven days ago, the last in a week counted backwards.
    weekdays = [[used for used in days[n::WEEK] if used is not None] for n in reversed(range(WEEK))]
    kinds = weekdays if all(len(its) >= EACH_WEEKDAY_MIN for its in weekdays) else [known]
    likely = [mean(kind) for kind in kinds]
    low, high = zip(*map(_tenths, kinds), strict=True)
    return Pace(tuple(map(min, low, likely)), tuple(likely), tuple(map(max, high, likely)))


def network_cost(entries: Sequence[Entry]) -> Network | None:
    """Return what the network took of the newest top-ups whose credits were posted; None without one it is known of.

    In dollars at the price each payment was planned at. A top-up is left out where one of its payments has none. The
    entries are those of the newest posted top-ups, or the whole journal; oldest first.
    """
    posted = [entry for entry in entries if any(x.account == CREDITS for x in entry.lines)]
    mine, posted_names = by_topup(entries), by_topup(posted)
    costs: list[Fraction] = []
    for name in reversed(posted_names):
        network = [_network_usd(e) for e in mine[name] if e.price_source != "provider"]
        known = [usd for usd in network if usd is not None]
        if len(known) == len(network) and len(costs) < PAYMENTS_MAX:
            costs.append(sum(known, Fraction(0)))
    return Network(rounded(mean(costs)), len(costs)) if costs else None


def rounded(dollars: Fraction) -> Usd:
    """Return dollars to 10^-6."""
    return Usd(_decimal(dollars, 6))


def _network_usd(entry: Entry) -> Fraction | None:
    """Return what the network took of one transaction, None where it was never priced.

    The dollars of an entry are the ETH that left the wallet at a feed's price, and tokens at par.
    """
    if entry.usd_value is None or entry.price_source not in ("feed", "par"):
        return None

    tokens = Fraction(Usdc(units(entry.lines, NETWORK, TOKENS)).usdc)
    eth_out = -units(entry.lines, (WALLET,), (Commodity.ETH,))
    if not eth_out:
        return tokens
    eth_usd = Fraction(entry.usd_value.amount) + Fraction(Usdc(units(entry.lines, (WALLET,), TOKENS)).usdc)
    return tokens + eth_usd * units(entry.lines, NETWORK, (Commodity.ETH,)) / eth_out


def _larger(amount: Usd, limits: Limits, day: Fraction | None, network: Network | None) -> tuple[Larger, ...]:
    """Name twice the amount and the largest that is allowed, as far as they are larger."""
    if not day:
        return ()
    within_cap = Usd(WIDE.divide(limits.cap_24h.amount, worst_spend(Usd.of(1), limits).amount)).cents_down()
    most = min(limits.topup_max, within_cap)
    larger = []
    for other in sorted({min(amount.times(2), most), most}):
        if other <= amount:
            continue
        month = day * MONTH
        fewer = month / Fraction(amount.amount) - month / Fraction(other.amount)
        saves = rounded(fewer * Fraction(network.mean.amount)) if network is not None else None
        larger.append(Larger(other, _decimal(month / Fraction(other.amount), 2), saves))
    return tuple(larger)


def _held(stock: Usd, day: Fraction, amount: Usd, past: Sequence[Past], now_ms: int, limits: Limits) -> Held | None:
    """Refill whenever the floor is reached at an even pace, and return the first time that a cap forbids it.

    The balance counts as that of now: what an old reading does not show is not guessed.
    """
    counted = sorted(past, key=lambda p: p.decided_ms)
    while True:
        room = Fraction((stock - limits.floor).amount)
        at_ms = now_ms + max(0, ceil(room / day * DAY_MS))
        if at_ms >= now_ms + CAPS_AHEAD_MS:
            return None
        refused = over_budget(amount, counted, at_ms, limits)
        if refused is not None:
            break
        counted.append(Past(at_ms, worst_spend(amount, limits)))
        stock += amount
    until = refused.until_ms
    # One that is out of its window may not make room enough.
    while until is not None and (again := over_budget(amount, counted, until, limits)) is not None:
        until = again.until_ms
    left = rounded(Fraction(stock.amount) - day * (until - now_ms) / DAY_MS) if until is not None else None
    return Held(refused.why, at_ms, until, left)


def _left(balance: Usd | None, floor: Usd, days: Sequence[Fraction]) -> Runway:
    if balance is None:
        return Runway(None, None)
    return Runway(lasts_h(balance - floor, days), lasts_h(balance, days))


def _tenths(days: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    """Return the tenth and the ninetieth percentile, both of them days that were."""
    ordered = sorted(days)
    edge = (len(ordered) - 1) // 10
    return ordered[edge], ordered[-1 - edge]


def _decimal(value: Fraction, places: int) -> Decimal:
    return WIDE.scaleb(Decimal(round(value * 10**places)), -places)
