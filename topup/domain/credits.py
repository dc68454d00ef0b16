"""Can this reading of the account be believed, how fast is it burning, and has our payment been posted?

Pure: readings come in with their times, judgements go out. Times are milliseconds since the epoch.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import ceil

from topup.domain.money import WIDE, Usd
from topup.domain.reasons import KEY, LOOK, TOTALS, Worded

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOTHING = Usd(Decimal(0))
# A provider's numbers are JSON doubles: below half a cent two of them are the same.
HALF_A_CENT = Usd(Decimal("0.005"))
# Where only a balance is told, a purchase may look smaller by what was used between two readings, and larger by what
# small rises were left out before; see prepaid.RISE_MIN.
SHORT_OF_A_BALANCE = Decimal("0.25")
OVER_OF_A_BALANCE = Usd(Decimal("0.50"))
# The API adds up doubles, in one order today and in another tomorrow: a difference of so small a part of a total is
# none. A dollar in a thousand million, while the cents of a purchase stay far above it.
NOISE = Decimal("1e-9")
# For so long a total_usage that is a little lower has to have been shown: a refund stays, a slip passes.
REFUND_SEEN_MS = HOUR_MS
# Below this span a difference in usage says more about the API's cache than about the consumer.
BURN_SPAN_MIN_MS = 120_000
# Below this span a rate may be shown but buys nothing: a burst of minutes would pass for the rate of a day.
RUNWAY_SPAN_MIN_MS = HOUR_MS
# What is usual is learnt from so much of the past; a week of it at least, or weekends would be news.
USUAL_SPAN_MS = 14 * DAY_MS
USUAL_DAYS_MIN = 7


class Doubt(Worded):
    """Why a reading is unknown. Unknown is never low."""

    NO_ANSWER = "no_answer", LOOK
    MALFORMED = "malformed", LOOK
    LIMITED = "limited", "wait: the API asks for patience; watch.poll_fastest_s says how often it is asked"
    UNAUTHORIZED = "unauthorized", KEY
    GONE = "gone", "correct api.url, and see `topup doctor`"
    KEY_UNPROVEN = "key_unproven", "wait for the next reading: whether the key may tell the credits is not known yet"
    ORDINARY_KEY = "ordinary_key", KEY
    ZERO_ZERO = "zero_zero", "see that api.key_file holds a key of this account"
    CREDITS_FELL = "credits_fell", TOTALS
    USAGE_FELL = "usage_fell", f"watch.usage_fall_max says what is believed after an hour; else {TOTALS}"


# Waiting does not help against these: a person has to correct the key or the address.
LASTING = frozenset({Doubt.UNAUTHORIZED, Doubt.GONE, Doubt.ORDINARY_KEY})


@dataclass(frozen=True)
class Reading:
    """A believed answer of GET /credits: both totals are cumulative dollars.

    `exact` is False where only a balance is told and the totals are reckoned from its movements.
    """

    total_credits: Usd
    total_usage: Usd
    at_ms: int
    exact: bool = True

    @property
    def balance(self) -> Usd:
        """Return what is left to spend; negative when the account is overdrawn."""
        return self.total_credits - self.total_usage


@dataclass(frozen=True)
class Unknown:
    """No reading that can be believed, and why."""

    doubt: Doubt
    detail: str
    at_ms: int
    # What the API said, kept so that a person can accept it later; None when it said nothing usable.
    said: Reading | None = None


def same(total: Usd, other: Usd) -> bool:
    """Tell whether two totals are one, but for what a sum of doubles may differ by."""
    larger = max(abs(total.amount), abs(other.amount))
    return total == other or abs((total - other).amount) < WIDE.multiply(NOISE, larger)


def believe(
    said: Reading,
    *,
    management_key: bool | None,
    last: Reading | None,
    ever_non_zero: bool,
    doubted: Sequence[Unknown] = (),
    usage_fall_max: Usd = NOTHING,
) -> Reading | Unknown:
    """Judge what the API said against what is already known.

    `management_key` says whether GET /key proved a management key, None when it could not be asked; `ever_non_zero`
    whether any reading of this account ever showed something other than 0/0. `last` is the last believed reading,
    `doubted` are those since that were not believed, oldest first. Usage that is lower by no more than `usage_fall_max`
    is believed after an hour of it.

    An ordinary key is answered 200 with zeros on a funded account, and both totals only ever grow, so zeros and
    falling totals are unknown, not low. What differs by no more than a sum of doubles may is the higher of the two.
    Usage that is a little lower, and stays so, is a refund: it makes the balance look higher, and so can only make
    topup buy less. Credits never fall but by a person's word: a lower total could hide a purchase.
    """

    def doubt(why: Doubt, detail: str) -> Unknown:
        return Unknown(why, detail, said.at_ms, said)

    if management_key is None:
        return doubt(Doubt.KEY_UNPROVEN, "GET /key has not yet shown that this is a management key")
    if not management_key:
        return doubt(Doubt.ORDINARY_KEY, "the API key is no management key, so /credits cannot be believed")
    if said.total_credits.amount == 0 and said.total_usage.amount == 0 and ever_non_zero:
        return doubt(Doubt.ZERO_ZERO, "0 bought and 0 used: an ordinary key sees this on a funded account")
    if said.total_credits.amount < 0 or said.total_usage.amount < 0:
        return doubt(Doubt.MALFORMED, "a total is negative")
    if last is None:
        return said
    bought, used = _marked(said.total_credits, last.total_credits), _marked(said.total_usage, last.total_usage)
    if bought < last.total_credits:
        return doubt(Doubt.CREDITS_FELL, f"total_credits fell from {last.total_credits} to {said.total_credits}")
    if used < last.total_usage and not _refunded(said, last, doubted, usage_fall_max):
        return doubt(Doubt.USAGE_FELL, f"total_usage fell from {last.total_usage} to {said.total_usage}")
    return replace(said, total_credits=bought, total_usage=used)


def _marked(now: Usd, mark: Usd) -> Usd:
    """Return a total, or the mark it has reached before when it is that but for the noise of doubles."""
    return max(now, mark) if same(now, mark) else now


def _refunded(said: Reading, last: Reading, doubted: Sequence[Unknown], most: Usd) -> bool:
    """Tell whether usage is lower by no more than `most`, and has been for an hour without falling further."""
    if last.total_usage - said.total_usage > most:
        return False
    since, later = said.at_ms, said.total_usage
    for unknown in reversed(doubted):
        if unknown.said is None:
            continue  # no answer says nothing, neither that it stayed nor that it did not
        usage = unknown.said.total_usage
        fell = unknown.doubt is Doubt.USAGE_FELL and last.total_usage - usage <= most
        if not fell or not (usage <= later or same(usage, later)):
            break
        since, later = unknown.at_ms, usage
    return said.at_ms - since >= REFUND_SEEN_MS


def fallen_for_a_day(doubted: Sequence[Unknown], said: Reading) -> bool:
    """Tell whether a lower total has been seen for a day, so that a person may accept what the API says now.

    `doubted` are the readings that were not believed since the last believed one, oldest first.
    """
    lower = [u for u in doubted if u.doubt in (Doubt.CREDITS_FELL, Doubt.USAGE_FELL)]
    return bool(lower) and said.at_ms - lower[0].at_ms >= DAY_MS


def burn_usd_per_hour(readings: Sequence[Reading], *, span_min_ms: int = BURN_SPAN_MIN_MS) -> Usd | None:
    """Return dollars used per hour over the newest day of readings (oldest first).

    None when unknown: the readings within that day span less than `span_min_ms`.
    """
    if not readings:
        return None
    newest = readings[-1]
    inside = [r for r in readings if r.at_ms >= newest.at_ms - DAY_MS]
    span = newest.at_ms - inside[0].at_ms
    if span < span_min_ms:
        return None
    if newest.total_usage < inside[0].total_usage:
        return None  # more was given back than was used: how much was used cannot be told
    return _per_hour(newest.total_usage - inside[0].total_usage, span)


def _per_hour(used: Usd, span_ms: int) -> Usd:
    return Usd(WIDE.divide(used.amount * HOUR_MS, Decimal(span_ms)).quantize(Decimal("0.000001"), context=WIDE))


@dataclass(frozen=True)
class Spending:
    """The fastest hour of the last day, and that of a usual day; dollars an hour, None while unknown."""

    fastest: Usd | None
    usual: Usd | None


def spending(readings: Sequence[Reading], now_ms: int, *, resumed_ms: int = 0) -> Spending:
    """Compare how fast the account was used in the last 24 hours of ledger time with what it is used to.

    Believed readings come oldest first; see `spending_since` for how far back. When a person last said `resume`, the
    fastest hour of the day before counts as usual after it.

    Both sides are the fastest hour of a day, so that a job that runs an hour a day is usual and not 24 times the mean.
    An hour is the shortest span looked at: a burst is spread over it, and what came to light after a gap in the
    readings is spread over the whole gap. Readings thinned to one an hour may show an hour as two, at half its pace.
    The last day as a whole is judged, not the last hour, because a runaway that has used everything up is quiet.
    Days are counted back from now, so that no time zone matters.

    A usual day is the median (the lower of two) of those of the last 14 in which something was used, the last one
    left out: a runaway must not make itself usual. An account that used nothing is used to nothing; one of which less
    than seven days were read has no usual pace at all. A person's acceptance holds for 14 days; from then on there is
    no other past to learn from.
    """
    days: dict[int, Usd] = {}
    accepted: Usd | None = None
    for at_ms, pace in _paces(readings):
        day = (now_ms - at_ms) // DAY_MS
        if 0 <= day < USUAL_SPAN_MS // DAY_MS:
            days[day] = max(days.get(day, pace), pace)
        if resumed_ms - DAY_MS < at_ms <= resumed_ms:
            accepted = pace if accepted is None else max(accepted, pace)
    fastest = days.pop(0, None)
    if len(days) < USUAL_DAYS_MIN:
        return Spending(fastest, None)
    usual = statistics.median_low([pace for pace in days.values() if pace.amount > 0] or [Usd.of(0)])
    if accepted is not None and now_ms - resumed_ms < USUAL_SPAN_MS:
        usual = max(usual, accepted)
    return Spending(fastest, usual)


def spending_since(now_ms: int, resumed_ms: int) -> int:
    """Return the time from which readings matter to `spending`: its past, an acceptance still in force, and a day."""
    resumed = resumed_ms - DAY_MS if now_ms - resumed_ms < USUAL_SPAN_MS else now_ms
    return min(now_ms - USUAL_SPAN_MS, resumed) - DAY_MS


def _paces(readings: Sequence[Reading]) -> Iterator[tuple[int, Usd]]:
    """For each reading yield its time and the pace since the newest one that is at least an hour older."""
    first = 0
    for n, last in enumerate(readings):
        while first + 1 < n and readings[first + 1].at_ms <= last.at_ms - HOUR_MS:
            first += 1
        span = last.at_ms - readings[first].at_ms
        if span >= HOUR_MS:
            # A total that a person accepted as lower is no spending.
            yield last.at_ms, max(_per_hour(last.total_usage - readings[first].total_usage, span), Usd.of(0))


@dataclass(frozen=True)
class Runway:
    """Hours until the floor and until nothing is left, at the current burn rate; None when that is unknown."""

    to_floor_h: Decimal | None
    to_empty_h: Decimal | None


def runway(balance: Usd, floor: Usd, burn: Usd | None) -> Runway:
    """Return the time left at `burn` dollars per hour; a burn of zero lasts for ever and is reported as None."""
    if burn is None:
        return Runway(None, None)
    day = (Fraction(burn.amount) * 24,)
    return Runway(lasts_h(balance - floor, day), lasts_h(balance, day))


def lasts_h(room: Usd, days: Sequence[Fraction]) -> Decimal | None:
    """Return for how many hours `room` is enough, to two decimals; None when it is for ever.

    On each of the next days so many dollars are used, evenly over the day; after the last one they begin again.
    """
    around = sum(days, Fraction(0))
    if around <= 0:
        return None
    left = max(Fraction(room.amount), Fraction(0))
    # All but the last round whole, so that the last one ends with what is used and not with days of rest after it.
    rounds = max(0, ceil(left / around) - 1)
    left -= rounds * around
    hours = Fraction(rounds * len(days) * 24)
    for day in days:
        if left <= day:
            hours += left / day * 24 if left else 0
            break
        left -= day
        hours += 24
    return WIDE.scaleb(Decimal(round(hours * 100)), -2)


def next_poll_s(left: Runway, burn: Usd | None, *, fastest_s: int, slowest_s: int) -> int:
    """Return how long to wait before looking again: a tenth of the time to the floor, within bounds.

    An unknown burn is looked at closely until it is known; an account that burns nothing can wait.
    """
    if burn is None:
        return fastest_s
    if left.to_floor_h is None:
        return slowest_s
    tenth = int(left.to_floor_h * 360)
    return min(max(tenth, fastest_s), slowest_s)


class Posting(StrEnum):
    """Whether a payment's credits have arrived."""

    WAITING = "waiting"
    POSTED = "posted"
    AMBIGUOUS = "ambiguous"  # posted, and something else arrived at the same time


@dataclass(frozen=True)
class Posted:
    """What the newest reading says about one payment, and the baseline it was held against."""

    verdict: Posting
    baseline: Usd


def posting(baseline: Usd, amount: Usd, reading: Reading, sent_ms: int) -> Posted:
    """Hold a believed reading against the baseline, the total_credits before the payment was signed.

    `sent_ms` is when the payment was about to be sent, by the same clock that stamps readings.

    A rise in a reading taken before that moment cannot be ours and moves the baseline. One of that very moment does
    neither: after a restart with the clock set back, ledger time stands where it was when the payment was sent, and the
    rise may be ours. The baseline holds what was shown before it, as it was read last. Half a cent is forgiven
    because the API's numbers are JSON doubles; where only a balance is told, a quarter, for what is used meanwhile: a
    rise by three quarters of the amount, after the payment left, is no smaller purchase of somebody else's by chance.
    """
    if reading.at_ms <= sent_ms:
        before = reading.at_ms < sent_ms
        return Posted(Posting.WAITING, max(baseline, reading.total_credits) if before else baseline)
    risen = reading.total_credits - baseline
    short = HALF_A_CENT if reading.exact else max(HALF_A_CENT, amount.times(SHORT_OF_A_BALANCE))
    over = HALF_A_CENT if reading.exact else OVER_OF_A_BALANCE
    if risen < amount - short:
        return Posted(Posting.WAITING, baseline)
    return Posted(Posting.AMBIGUOUS if risen > amount + over else Posting.POSTED, baseline)


def rose(before: Reading, after: Reading) -> bool:
    """Tell whether credits were bought between two readings: by more than a sum of doubles may differ."""
    return after.total_credits > before.total_credits and not same(after.total_credits, before.total_credits)


def baseline_settled(readings: Sequence[Reading], *, staleness_ms: int) -> bool:
    """Tell whether the newest reading is a sound baseline: the last known rise is older than the API's staleness."""
    if not readings:
        return False
    newest = readings[-1]
    rises = [b.at_ms for a, b in pairwise(readings) if rose(a, b)]
    return not rises or newest.at_ms - rises[-1] >= staleness_ms
