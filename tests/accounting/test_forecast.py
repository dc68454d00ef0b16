"""Does a forecast say what the past allows, and no more?"""

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from tests.tools import environ
from tests.world import ledger
from tests.world.builders import ACCOUNT, NOW_MS, inclusion, operator, plan, topup
from tests.world.served import asked
from topup.accounting.forecast import (
    EACH_WEEKDAY_MIN,
    GAP_MAX_MS,
    HISTORY_DAYS,
    PAYMENTS_MAX,
    Forecast,
    Held,
    Network,
    Pace,
    WalletForecast,
    days_used,
    draw,
    network_cost,
    since,
    usual,
    wallet_forecast,
)
from topup.accounting.journal import Commodity, Entry, credit_lines, payment_lines, reversal, token_lines
from topup.app import assembly, settings
from topup.domain.credits import DAY_MS, HOUR_MS, Reading, Runway, lasts_h, runway
from topup.domain.lifecycle import Attempt, ChargeRow, TopUp
from topup.domain.money import Asset, Usd, Usdc, Wei
from topup.domain.policy import Limits, Past, Why, worst_spend
from topup.ledger.store import SqliteStore


def owned(policy: dict[str, str]) -> dict[str, str]:
    return environ(**{f"policy__{name}": value for name, value in policy.items()})


def limits(**policy: str) -> Limits:
    return assembly.limits(settings.load(owned(policy)))


def life(
    days: Sequence[int | str], *, left: str = "100", every_ms: int = 6 * HOUR_MS, end_ms: int = NOW_MS
) -> list[Reading]:
    """Readings over whole days that end now, oldest first; each day uses so much, evenly, and so much is left."""
    start, told = end_ms - len(days) * DAY_MS, []
    before = [Fraction(0)]
    for one in days:
        before.append(before[-1] + Fraction(one))
    bought = Fraction(left) + before[-1]
    for at in range(start, end_ms + 1, every_ms):
        day, into = divmod(at - start, DAY_MS)
        used = before[day] + (Fraction(days[day]) * into / DAY_MS if into else 0)
        told.append(Reading(dollars(bought), dollars(used), at))
    return told


def dollars(value: Fraction) -> Usd:
    """Exact dollars of a fraction that a decimal can hold."""
    made = Decimal(value.numerator) / Decimal(value.denominator)
    assert Fraction(made) == value
    return Usd(made)


def look(readings: Sequence[Reading], **changes: Any) -> Forecast:
    told: dict[str, Any] = {"past": [], "entries": [], "wallet": None, "now_ms": NOW_MS}
    allowed = changes.pop("allowed", limits())
    return draw(readings, allowed, **(told | changes))


# -- what a day used ----------------------------------------------------------------------------------------------


TEN_DAYS = life([24] * 10)


def test_a_day_is_what_was_used_in_24_hours_before_the_newest_reading() -> None:
    """Newest first, whatever the hour of the newest reading; a day of which too little was read is unknown."""
    assert days_used(life([3, 0, 24])) == [24, 0, 3]
    three, half = life([24] * 3), NOW_MS - 5 * DAY_MS
    assert days_used([*three, three[-1]]) == [24, 24, 24], "of two readings at one time the later total holds"
    fell = [r if r.at_ms <= half else replace(r, total_usage=r.total_usage - Usd.of(40)) for r in TEN_DAYS]
    # A fall that a person accepted is no usage, and of its two readings nothing is known to have been used.
    assert days_used(fell) == [24] * 4 + [18] + [24] * 5
    gap = [r for r in TEN_DAYS if not half < r.at_ms < NOW_MS - 2 * DAY_MS]
    assert days_used(gap) == [24, 24, None, None, None, 24, 24, 24, 24, 24], "what was used in a gap is of no day"


def test_without_two_readings_no_day_is_known() -> None:
    """Nothing read, or once: no day, no pace, no time, and no cap that would hold."""
    for readings in ([], life([])):
        assert days_used(readings) == []
        told = look(readings)
        assert (told.burn, told.pace, told.day, told.refills, told.held) == (None, None, None, None, None)
        assert {told.now, told.usual, told.busy, told.covered} == {Runway(None, None)}
        assert told.larger == ()


@pytest.mark.parametrize(("gap_ms", "known"), [(GAP_MAX_MS, True), (GAP_MAX_MS + 1, False)])
def test_an_account_that_is_read_once_a_day_has_days(gap_ms: int, known: bool) -> None:  # noqa: FBT001
    """A gap of up to a day and a half is taken as evenly used."""
    at = [NOW_MS - gap_ms - 2 * DAY_MS, NOW_MS - gap_ms, NOW_MS]
    ends = [Reading(Usd.of(100), Usd.of(n), one) for n, one in enumerate([at[0], at[2] - gap_ms, at[2]])]
    middle = replace(ends[1], at_ms=ends[1].at_ms - DAY_MS, total_usage=Usd.of("0.5"))
    assert (days_used([ends[0], middle, *ends[1:]])[0] is not None) == known


def test_a_burn_of_a_day_whose_total_fell_is_unknown() -> None:
    """More was taken back than used: no rate, rather than one below zero; the usual pace remains."""
    told = look([*TEN_DAYS, Reading(Usd.of(10_000), Usd.of(1), NOW_MS + HOUR_MS)])
    assert (told.burn, told.now) == (None, Runway(None, None))
    assert told.pace is not None and told.pace.low[0] >= 0


steps = st.lists(st.tuples(st.integers(1, GAP_MAX_MS), st.integers(0, 10**9)), min_size=1, max_size=60)


def walked(steps_: list[tuple[int, int]], *, scale: int = 1, shift_ms: int = 0) -> list[Reading]:
    """Readings with these waits and rises in 10^-6 dollars, the newest now."""
    at, used, told = NOW_MS + shift_ms - sum(wait for wait, _ in steps_), 0, []
    total = Usd(Decimal(scale) * (sum(rise for _, rise in steps_) + 10**8) / 10**6)
    for wait, rise in [(0, 0), *steps_]:
        at, used = at + wait, used + rise
        told.append(Reading(total, Usd(Decimal(used * scale) / 10**6), at))
    return told


@given(steps, st.integers(1, 10**6))
def test_days_scale_with_what_was_used(steps_: list[tuple[int, int]], scale: int) -> None:
    """So many times the usage, so many times each day, exactly; and no day is negative."""
    one, many = days_used(walked(steps_)), days_used(walked(steps_, scale=scale))
    assert many == [day * scale if day is not None else None for day in one]
    assert all(day is None or day >= 0 for day in one)


@given(steps, st.integers(1, 10**4))
def test_hours_do_not_depend_on_the_currency(steps_: list[tuple[int, int]], scale: int) -> None:
    """Balance, floor and usage so many times larger: the usual hours are the same."""
    one = look(walked(steps_), allowed=limits(floor="5"))
    many = look(walked(steps_, scale=scale), allowed=replace(limits(floor="5"), floor=Usd.of(5 * scale)))
    assert (one.usual, one.busy, one.floor_h) == (many.usual, many.busy, many.floor_h)


@given(steps, st.integers(-(10**10), 10**10))
def test_a_shift_in_time_changes_nothing(steps_: list[tuple[int, int]], shift_ms: int) -> None:
    """The same life at any other time has the same days and lasts as long."""
    here, there = look(walked(steps_)), look(walked(steps_, shift_ms=shift_ms), now_ms=NOW_MS + shift_ms)
    assert (here.pace, here.usual, here.busy, here.now) == (there.pace, there.usual, there.busy, there.now)
    if here.held is not None and there.held is not None:
        assert here.held.at_ms + shift_ms == there.held.at_ms
    assert (here.held is None) == (there.held is None)


@given(st.integers(7, 60), st.integers(0, 10**9), st.lists(st.integers(1, GAP_MAX_MS), min_size=1, max_size=8))
def test_an_even_burn_has_no_spread(days: int, per_ms: int, waits: list[int]) -> None:
    """However it is read: low, likely and high are one, and the three runways are one."""
    span, at = days * DAY_MS, [0]
    while at[-1] < span:
        at.append(min(span, at[-1] + waits[len(at) % len(waits)] + DAY_MS // 4))
        if at[-1] - at[-2] > GAP_MAX_MS:
            at[-1] = at[-2] + GAP_MAX_MS
    total = Usd(Decimal(per_ms * span + 10**9) / 10**9)
    told = look([Reading(total, Usd(Decimal(one * per_ms) / 10**9), NOW_MS - span + one) for one in at])
    assert told.pace is not None
    assert set(told.pace.low) | set(told.pace.high) == set(told.pace.likely)
    assert len(set(told.pace.likely)) == 1
    assert told.usual == told.busy


@given(steps, st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), max_size=20))
def test_more_readings_of_the_same_line_change_nothing(
    steps_: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    """What lies on the line between two readings adds no knowledge, and takes none."""
    readings = walked([(wait * 10, rise * 10) for wait, rise in steps_ if wait * 10 <= GAP_MAX_MS] or [(10, 10)])
    between = []
    for place, tenths in more:
        one, other = readings[place % (len(readings) - 1)], readings[place % (len(readings) - 1) + 1]
        used = one.total_usage + (other.total_usage - one.total_usage).times(Decimal(tenths) / 10)
        between.append(replace(one, total_usage=used, at_ms=one.at_ms + (other.at_ms - one.at_ms) * tenths // 10))
    assert days_used(sorted([*readings, *between], key=lambda r: r.at_ms)) == days_used(readings)


def test_what_is_read_from_the_ledger_is_all_that_matters() -> None:
    """Readings older than `since` change nothing."""
    readings = life([n % 11 for n in range(HISTORY_DAYS + 20)])
    assert days_used([r for r in readings if r.at_ms >= since(NOW_MS)]) == days_used(readings)
    assert len(days_used(readings)) == HISTORY_DAYS


# -- what is usual ------------------------------------------------------------------------------------------------


def test_a_week_has_to_be_known() -> None:
    """Below seven days the spread is unknown, and so is everything that rests on it."""
    for days, known in ((6, False), (7, True)):
        told = look(life([24] * days))
        assert told.days == days
        assert [one is not None for one in (told.pace, told.usual.to_empty_h, told.floor_h)] == [known] * 3
        assert told.now.to_empty_h == Decimal(100)
        assert told.refills == Decimal("28.8")


def test_the_spread_is_that_of_days_that_were() -> None:
    """Of 21 days the two lowest and the two highest are left out; where the mean is above, so is the busy pace."""
    for days, paces in (([*range(1, 21), 210], [3, 20, 20]), ([0] * 19 + [100], [0, 5, 5])):
        pace = usual([Fraction(n) for n in days])
        assert pace is not None
        assert [*pace.low, *pace.likely, *pace.high] == paces


WORK, REST = 20, 2
WEEKDAYS = [
    # story, days oldest first, told apart, likely day from the next one on
    ("four weeks, a week begins", [WORK] * 5 + [REST] * 2, 4, True, [WORK] * 5 + [REST] * 2),
    ("four weeks, the weekend begins", [REST] * 2 + [WORK] * 5, 4, True, [REST] * 2 + [WORK] * 5),
    ("four weeks, a Thursday begins", [WORK, WORK, REST, REST, WORK, WORK, WORK], 4, True, None),
    ("six weeks", [WORK] * 5 + [REST] * 2, 6, True, [WORK] * 5 + [REST] * 2),
    ("three weeks are too few", [WORK] * 5 + [REST] * 2, 3, False, [Fraction(104, 7)]),
    ("a job once a week", [50] + [0] * 6, 4, True, [50] + [0] * 6),
]


@pytest.mark.parametrize(("story", "week", "weeks", "apart", "likely"), WEEKDAYS, ids=[w[0] for w in WEEKDAYS])
def test_days_of_the_week_are_told_apart(
    story: str,
    week: list[int],
    weeks: int,
    apart: bool,  # noqa: FBT001
    likely: list[Any] | None,
) -> None:
    """Once each was known four times, the next days are those of seven days before."""
    pace = look(life(week * weeks)).pace
    assert pace is not None
    assert pace.by_weekday == apart
    assert list(pace.likely) == (likely if likely is not None else week)


@pytest.mark.parametrize("missing", range(7))
def test_each_day_of_the_week_has_to_be_known_often_enough(missing: int) -> None:
    """Four weeks without one Tuesday are not told apart; five weeks without one are."""
    for weeks, apart in ((EACH_WEEKDAY_MIN, False), (EACH_WEEKDAY_MIN + 1, True)):
        days: list[Fraction | None] = [Fraction(5)] * (7 * weeks)
        days[missing] = None
        pace = usual(days)
        assert pace is not None
        assert pace.by_weekday == apart


def test_a_weekend_stretches_the_time_and_a_week_of_work_shortens_it() -> None:
    """Forty dollars are two working days; from Friday evening on they last over the weekend, until Tuesday."""
    monday, friday = [WORK] * 5 + [REST] * 2, [REST] * 2 + [WORK] * 5
    allowed = limits(floor="4")
    assert look(life(monday * 4, left="44"), allowed=allowed).usual.to_floor_h == 48
    assert look(life(friday * 4, left="44"), allowed=allowed).usual.to_floor_h == Decimal("91.2")


@pytest.mark.parametrize(
    ("room", "days", "hours"),
    [
        ("10", ["10"], "24"),
        ("15", ["10", "20"], "30"),
        ("30", ["10", "20"], "48"),
        ("31", ["10", "20"], "50.4"),
        ("10", ["10", "0"], "24"),
        ("20", ["10", "0"], "72"),
        ("0", ["0", "10"], "0"),
        ("-5", ["10"], "0"),
        ("5", ["0", "10"], "36"),
        ("5", ["0", "0"], None),
        ("5", [], None),
    ],
)
def test_room_lasts_day_by_day(room: str, days: list[str], hours: str | None) -> None:
    """Each day takes its part, evenly over the day; after the last the first comes again; rest days add nothing."""
    told = lasts_h(Usd.of(room), [Fraction(one) for one in days])
    assert told == (Decimal(hours) if hours is not None else None)


@given(st.integers(-100, 10**6), st.integers(1, 10**6), st.integers(1, 7))
def test_a_week_of_equal_days_is_one_pace(room: int, burn: int, days: int) -> None:
    """The walk over days and the rule's single rate come to the same hours."""
    rate = Usd(Decimal(burn) / 10**4)
    week = [Fraction(rate.amount) * 24] * days
    assert lasts_h(Usd.of(room), week) == runway(Usd.of(room), Usd.of(0), rate).to_empty_h


def test_the_last_day_is_shown_beside_the_usual() -> None:
    """A day at ten times the pace: its own time is what the runway rule sees, the usual one is that of all days."""
    told = look(life([24] * 20 + [240], left="250"))
    assert told.burn == Usd.of(10)
    assert told.now == runway(Usd.of(250), Usd.of(10), Usd.of(10))
    assert told.usual.to_empty_h is not None and told.now.to_empty_h is not None
    assert told.usual.to_empty_h > 5 * told.now.to_empty_h


def test_an_idle_account_lasts_for_ever() -> None:
    """Known to use nothing: a pace of zero, no end, no refill, no larger amount, no cap."""
    told = look(life([0] * 10))
    assert [told.burn, told.day, told.refills] == [Usd.of(0), 0, 0]
    assert (told.usual, told.larger, told.held) == (Runway(None, None), (), None)


# -- the wallet ---------------------------------------------------------------------------------------------------

PAYMENT_WEI = inclusion().spent + inclusion().gas + inclusion().l1_fee


def bought(**changes: Any) -> TopUp:
    """A top-up of ten dollars from a wallet of one ETH, paid, as the ledger gives it back."""
    attempt = Attempt(1, 1, plan(), b"raw", b"\x01" * 32, NOW_MS, NOW_MS, 1, False, inclusion(), False)
    charge = ChargeRow(1, NOW_MS, b"{}", None, True)
    return replace(topup(wallet_before=Wei(10**18), attempts=(attempt,), charges=(charge,)), **changes)


def test_a_wallet_holds_what_the_newest_payment_left() -> None:
    """One ETH less payment, gas, L1 fee and reserve; a refill of 25 dollars takes two and a half times the ETH."""
    told = wallet_forecast([bought()], Usd.of(25), Wei(10**15))
    price = Wei(8_750_000_000_000_000) + inclusion().gas + inclusion().l1_fee
    assert told == WalletForecast(Wei(10**18) - PAYMENT_WEI - Wei(10**15), price, NOW_MS)
    assert told is not None and told.refills == (10**18 - PAYMENT_WEI.units - 10**15) // price.units
    told = wallet_forecast([bought()], Usd.of(10), Wei(2 * 10**18))
    assert told is not None and told.refills == 0, "below the reserve it is no refill, not fewer than none"
    looked = bought(
        attempts=(replace(bought().attempts[0], inclusion=None),), wallet_before=Wei(10**17), decided_ms=NOW_MS + 5
    )
    told = wallet_forecast([looked, bought()], Usd.of(10), Wei(0))
    assert told == WalletForecast(Wei(10**17), PAYMENT_WEI, NOW_MS + 5), "a later look counts, at the price last paid"


def test_a_wallet_the_ledger_does_not_know_is_unknown() -> None:
    """Nothing bought yet, never looked, never paid, or dollars paid, whose balance is not written down."""
    (one,) = bought().attempts
    unpaid, in_dollars = replace(one, inclusion=None), replace(one, plan=plan(asset=Asset.USDC))
    unknown = [bought(wallet_before=None), bought(attempts=(unpaid,)), bought(attempts=(in_dollars,))]
    assert [wallet_forecast(past, Usd.of(10), Wei(0)) for past in ([], *([t] for t in unknown))] == [None] * 4


def test_what_the_wallet_covers_is_added_to_the_balance() -> None:
    """Two refills of 25 dollars at a dollar an hour: fifty hours more, to the floor and to nothing."""
    told = look(life([24] * 10, left="20"), wallet=WalletForecast(Wei(25), Wei(10), NOW_MS))
    assert told.usual == Runway(Decimal(10), Decimal(20))
    assert told.covered == told.covered_busy == Runway(Decimal(60), Decimal(70))


# -- fees ---------------------------------------------------------------------------------------------------------


def paid_entry(name: str, at_ms: int = NOW_MS, usd: str | None = "10.51", source: str = "feed") -> Entry:
    """A payment of 10.51 dollars in ETH, of which a hundredth went to the network."""
    lines = payment_lines(Wei(990), Wei(8), Wei(2), Usdc(10_500_000))
    return Entry(at_ms, name, "payment", b"\1" * 32, "c", 7, Usd.of(usd) if usd else None, source, lines)


def posted_entry(name: str) -> Entry:
    lines = credit_lines(Usd.of(10), Usdc(10_500_000), Usdc(105_000))
    return Entry(NOW_MS, name, "credits posted", b"\1" * 32, "c", 7, Usd.of(10), "provider", lines)


def test_the_network_takes_its_share_of_the_eth_at_its_price() -> None:
    """Ten parts of a thousand of 10.51 dollars; what has no price or no credits is not counted."""
    share, whole = Network(Usd.of("0.1051"), 1), [paid_entry("t1"), posted_entry("t1")]
    assert network_cost(whole) == share
    first = paid_entry("t1")
    taken_back = [first, reversal(first, NOW_MS), *whole]
    assert network_cost(taken_back) == share, "its reversal takes its network fee back; what stood counts once"
    unpriced = [paid_entry("t1", usd=None, source="none"), posted_entry("t1")]
    adopted = [paid_entry("t2", source="paid"), posted_entry("t2")]
    assert network_cost([*unpriced, *adopted, paid_entry("t3")]) is None, "without a feed, adopted, not posted yet"
    assert network_cost([*unpriced, paid_entry("t4"), posted_entry("t4")]) == share
    entries: list[Entry] = []
    for n in range(PAYMENTS_MAX + 5):
        entries += [paid_entry(f"t{n}", usd="1000" if n < 5 else "10"), posted_entry(f"t{n}")]
    assert network_cost(entries) == Network(Usd.of("0.1"), PAYMENTS_MAX), "dear ones of long ago are forgotten"


def test_of_a_token_the_network_takes_eth_or_more_of_the_token() -> None:
    """A cent of ETH as gas, or two cents of the token: neither is what was paid."""
    told = inclusion(spent=Wei(0), gas=Wei(9), l1_fee=Wei(1), tokens=Usdc(10_500_000))
    by_eth = replace(paid_entry("t1", usd="10.51"), lines=token_lines(told, Commodity.USDC))
    fee = inclusion(spent=Wei(0), gas=Wei(0), l1_fee=Wei(0), tokens=Usdc(10_500_000), token_fee=Usdc(20_000))
    by_token = replace(paid_entry("t2", usd="10.52", source="par"), lines=token_lines(fee, Commodity.USDC))
    assert network_cost([by_eth, posted_entry("t1")]) == Network(Usd.of("0.01"), 1)
    assert network_cost([by_token, posted_entry("t2")]) == Network(Usd.of("0.02"), 1)


def test_larger_refills_save_what_the_network_takes_of_each() -> None:
    """At a dollar an hour 28.8 refills of 25 dollars; twice the amount saves half of them, at a tenth of a dollar."""
    entries = [paid_entry("t1", usd="10"), posted_entry("t1")]
    told = look(life([24] * 10), entries=entries, allowed=limits(cap_24h="1000", cap_30d="2000", topup_max="200"))
    assert told.refills == Decimal("28.8")
    assert [(one.amount, one.refills, one.saves) for one in told.larger] == [
        (Usd.of(50), Decimal("14.4"), Usd.of("1.44")),
        (Usd.of(200), Decimal("3.6"), Usd.of("2.52")),
    ]


def test_no_amount_beyond_what_is_allowed_is_named() -> None:
    """The largest top-up and the cap of a day bound it; at the bound there is nothing larger."""
    readings = life([24] * 10)
    assert look(readings, allowed=limits(topup_max="25")).larger == ()
    (one,) = look(readings, allowed=limits(cap_24h="40")).larger
    assert worst_spend(one.amount, limits()) <= Usd.of(40) < worst_spend(one.amount + Usd.of("0.01"), limits())
    assert one.saves is None, "no payment has shown what the network takes"


# -- caps ---------------------------------------------------------------------------------------------------------


def test_a_calm_account_is_held_by_no_cap() -> None:
    """Half a dollar an hour is below 500 a month, with fees; of a month that nobody looked at nothing is guessed."""
    for later_days in (0, 30):
        assert look(life([12] * 10), now_ms=NOW_MS + later_days * DAY_MS).held is None


# What happens, dollars a day for ten days, what is left, what was spent how many hours ago; by which cap the first
# refill is held, after how many hours, until when, and what is left by then.
CAPPED: list[tuple[str, int, str, list[tuple[int, int]], Why, str, int, int]] = [
    ("18 refills fit into a month, and by its end it would have run dry", 48, "10", [], Why.CAP_30D, "225", 720, -980),
    ("three refills fit into a day, the fourth waits", 240, "10", [], Why.CAP_24H, "7.5", 24, -155),
    ("what was spent before counts until it is a day old", 24, "16", [(12, 90)], Why.CAP_24H, "6", 12, 4),
    ("what makes no room for a refill frees nothing", 24, "10", [(20, 5), (14, 90)], Why.CAP_24H, "0", 10, 0),
]


@pytest.mark.parametrize(
    ("story", "daily", "left", "spent", "why", "from_h", "until_h", "by_then"), CAPPED, ids=[row[0] for row in CAPPED]
)
def test_the_first_refill_that_a_cap_holds_is_foreseen(
    story: str, daily: int, left: str, spent: list[tuple[int, int]], why: Why, from_h: str, until_h: int, by_then: int
) -> None:
    """Refills of 25 dollars, counted with their fees; the cap of a day is 100 dollars, that of a month 500."""
    before = [Past(NOW_MS - hours * HOUR_MS, Usd.of(usd), failed=False, revert_gas=Wei(0)) for hours, usd in spent]
    held = look(life([daily] * 10, left=left), past=before).held
    at_ms = NOW_MS + int(Decimal(from_h) * HOUR_MS)
    assert held == Held(why, at_ms, NOW_MS + until_h * HOUR_MS, Usd.of(by_then))


def test_a_cap_below_one_refill_holds_for_good() -> None:
    """It is no matter of waiting; no balance is named for a time that never comes."""
    told = look(life([24] * 10), allowed=replace(limits(), cap_24h=Usd.of(20)))
    assert told.held is not None
    assert (told.held.why, told.held.until_ms, told.held.left) == (Why.CAP_24H, None, None)


def test_the_faster_of_the_last_day_and_the_usual_meets_the_caps() -> None:
    """A runaway of today is judged by today, a quiet Sunday by the week."""
    assert look(life([24] * 20 + [240])).capped_at == 240
    assert look(life([42] * 20 + [0])).capped_at == 40


# -- from the ledger ----------------------------------------------------------------------------------------------


def fill(tmp_path: Path, readings: Sequence[Reading], *, bought_once: bool = False) -> None:
    """Write a ledger with these readings, thinned as the daemon thins them, and perhaps one paid top-up."""
    store = SqliteStore.open_writer(tmp_path)
    rows = [(ACCOUNT, r.at_ms, str(r.total_credits), str(r.total_usage), "") for r in readings]
    sql = "INSERT INTO reading (account, at_ms, total_credits, total_usage, detail) VALUES (?,?,?,?,?)"
    store._db.execute("BEGIN")
    store._db.executemany(sql, rows)
    store._db.execute("COMMIT")
    while store.thin_readings(ACCOUNT, NOW_MS):
        pass
    if bought_once:
        ledger.paid(store, operator())
    store.close()


def told_by(tmp_path: Path, *options: str, **policy: str) -> Result:
    return asked(tmp_path, "forecast", *options, **owned(policy))


def test_neither_an_empty_ledger_nor_one_reading_foresees_anything(tmp_path: Path) -> None:
    """Every figure null, each thing unknown said; without a file how to get one; of one reading the balance alone."""
    done = told_by(tmp_path)
    assert (done.exit_code, done.stdout, "to do:" in done.stderr) == (3, "", True)
    fill(tmp_path, [])
    told = json.loads(told_by(tmp_path, "--json").stdout)
    known = {"schema", "account", "floor_usd", "days_known", "days_needed", "refill_usd"}
    nothing = {name: value for name, value in told.items() if name not in known}
    assert all(value in (None, []) or set(value.values()) == {None} for value in nothing.values()), nothing
    shown = told_by(tmp_path)
    assert shown.exit_code == 0
    assert shown.stdout.count("unknown") == 5
    assert "never read" in shown.stdout
    fill(tmp_path, life([], left="12.5"))
    told = json.loads(told_by(tmp_path, "--json").stdout)
    assert (told["balance_usd"], told["usual"]["hours_to_empty"], told["caps"]) == ("12.5", None, None)
    assert "0 of the 7 days needed are known" in told_by(tmp_path).stdout


def test_ten_years_of_hours_are_told_apart_by_the_day_of_the_week(tmp_path: Path) -> None:
    """Thinned to a row a day but for the last months: the week is as it was, whatever was usual years ago."""
    week = [WORK] * 5 + [REST] * 2
    fill(tmp_path, life([200] * 7 * 510 + week * 12))
    told = json.loads(told_by(tmp_path, "--json").stdout)
    assert (told["by_weekday"], told["days_known"]) == (True, HISTORY_DAYS)
    assert [one["usual_usd"] for one in told["next_days"]] == [str(one) for one in week]
    assert [one["busy_usd"] for one in told["next_days"]] == [str(one) for one in week]
    assert [one["from_ms"] for one in told["next_days"]] == [NOW_MS + n * DAY_MS for n in range(7)]


def test_a_refill_in_the_ledger_prices_the_next_ones(tmp_path: Path) -> None:
    """One ETH less a payment, at the price of that payment; no network is asked, and the age is said."""
    fill(tmp_path, life([24] * 20), bought_once=True)
    told = json.loads(told_by(tmp_path, "--json", amount="10").stdout)
    wallet = told["wallet"]
    assert Decimal(wallet["refill_eth"]) == PAYMENT_WEI.eth
    assert wallet["refills"] == Decimal(wallet["spare_eth"]) // PAYMENT_WEI.eth
    assert wallet["at_ms"] == NOW_MS
    hours = (100 - 10 + 10 * wallet["refills"]) / Decimal(1)
    assert wallet["usual_floor_ms"] == NOW_MS + hours * HOUR_MS
    shown = told_by(tmp_path, amount="10").stdout
    assert f"{wallet['refills']} refills of 10 dollars at its price, the floor is then reached usually" in shown


def test_a_terminal_reads_what_a_program_reads(tmp_path: Path) -> None:
    """Each line once, with the figures of the document."""
    fill(tmp_path, life([12] * 20, left="40"))
    told, shown = json.loads(told_by(tmp_path, "--json").stdout), told_by(tmp_path).stdout
    names = [line[:10].strip() for line in shown.splitlines()]
    assert " ".join(names) == "account credits last 24h usual busy floor wallet refills larger larger  caps"
    assert told["last_24h"] == {"burn_usd_per_hour": "0.5", "hours_to_floor": "60", "hours_to_empty": "80"}
    assert "12 dollars a day (12 to 12, from 20 days); 60 h to the floor, 80 h to empty" in shown
    assert "caps      hold no refill within 30 days, at 12 dollars a day" in shown


def test_a_cap_that_will_hold_is_said_with_its_name_and_end(tmp_path: Path) -> None:
    """The word is that of the log, the days are in UTC."""
    fill(tmp_path, life([240] * 10, left="10"))
    told, shown = json.loads(told_by(tmp_path, "--json").stdout), told_by(tmp_path).stdout
    assert told["caps"]["holds"] == "cap_24h"
    assert "cap_24h holds a refill from " in shown
    assert told["caps"]["balance_then_usd"] in shown


def test_far_ends_have_no_day(tmp_path: Path) -> None:
    """A cent a century: hours are counted, no calendar is asked, and nothing breaks."""
    fill(tmp_path, life([0] * 19 + ["0.000024"]), bought_once=True)
    shown = told_by(tmp_path)
    assert shown.exit_code == 0
    assert "the floor is then reached" not in shown.stdout


@given(
    st.decimals(0, 500, places=4),
    st.lists(st.tuples(*[st.integers(0, 60)] * 3).map(sorted), min_size=7, max_size=7),
)
def test_what_is_left_lies_between_a_busy_week_and_a_calm_one(balance: Decimal, week: list[list[int]]) -> None:
    """At least, likely and at most, day after day: in that order, never rising, never below nothing."""
    low, likely, high = (tuple(Fraction(day[n]) for day in week) for n in range(3))
    bands = Pace(low, likely, high).bands(Reading(Usd(balance), Usd.of(0), NOW_MS), 14)
    assert [band.at_ms for band in bands] == [NOW_MS + n * DAY_MS for n in range(15)]
    for band in bands:
        assert Usd.of(0) <= band.low <= band.likely <= band.high <= Usd(balance)
    for column in zip(*[(band.low, band.likely, band.high) for band in bands], strict=True):
        assert list(column) == sorted(column, reverse=True)
    assert bands[7].likely.amount == max(Decimal(0), balance - sum(int(x) for x in likely))
