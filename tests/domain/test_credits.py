"""Are readings believed only when they may be, and is a posting recognised as ours?"""

import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.credits import (
    BURN_SPAN_MIN_MS,
    DAY_MS,
    HOUR_MS,
    LASTING,
    RUNWAY_SPAN_MIN_MS,
    Doubt,
    Posted,
    Posting,
    Reading,
    Runway,
    Spending,
    Unknown,
    baseline_settled,
    believe,
    burn_usd_per_hour,
    fallen_for_a_day,
    next_poll_s,
    posting,
    rose,
    runway,
    same,
    spending,
    spending_since,
)
from topup.domain.money import Usd

T = 1_790_000_000_000


def read(bought: str, usage: str = "0", at_ms: int = T) -> Reading:
    return Reading(Usd.of(bought), Usd.of(usage), at_ms)


# -- believing --------------------------------------------------------------------------------------------------

LAST = read("100", "60", T - HOUR_MS)
BELIEF: list[tuple[str, Reading, dict[str, Any], Doubt | None]] = [
    ("a management key, nothing fell", read("100", "61"), {}, None),
    ("nothing moved at all", read("100", "60"), {}, None),
    ("overdrawn", read("100", "130"), {}, None),
    ("the key's kind could not be asked", read("100", "61"), {"management_key": None}, Doubt.KEY_UNPROVEN),
    ("an ordinary key with plausible numbers", read("100", "61"), {"management_key": False}, Doubt.ORDINARY_KEY),
    ("an ordinary key with its zeros", read("0", "0"), {"management_key": False}, Doubt.ORDINARY_KEY),
    ("zeros on a funded account", read("0", "0"), {}, Doubt.ZERO_ZERO),
    ("zeros after unbelieved numbers", read("0", "0"), {"last": None}, Doubt.ZERO_ZERO),
    ("zeros written with a sign", read("-0", "0.00"), {}, Doubt.ZERO_ZERO),
    ("zeros of a new account", read("0", "0"), {"last": None, "ever_non_zero": False}, None),
    ("zero bought, something used", read("0", "1"), {"last": None, "ever_non_zero": False}, None),
    ("credits fell", read("99.999999", "61"), {}, Doubt.CREDITS_FELL),
    ("usage fell", read("100", "59.999999"), {}, Doubt.USAGE_FELL),
    ("both fell", read("1", "1"), {}, Doubt.CREDITS_FELL),
    ("negative credits", read("-1", "61"), {"last": None}, Doubt.MALFORMED),
    ("negative usage", read("100", "-1"), {"last": None}, Doubt.MALFORMED),
    ("a first reading", read("3", "2"), {"last": None, "ever_non_zero": False}, None),
]


@pytest.mark.parametrize(("story", "said", "known", "doubt"), BELIEF, ids=[row[0] for row in BELIEF])
def test_what_is_believed(story: str, said: Reading, known: dict[str, Any], doubt: Doubt | None) -> None:
    """Believed readings pass unchanged; the others are unknown, with the reason and what was said kept."""
    judged = believe(said, **(PROVEN | {"last": LAST} | known))
    if doubt is None:
        assert judged == said
    else:
        assert isinstance(judged, Unknown)
        assert (judged.doubt, judged.said, judged.at_ms) == (doubt, said, said.at_ms)
        assert judged.detail


dollars = st.integers(0, 10**9).map(lambda n: Usd(Decimal(n) / 10**6))
readings = st.builds(Reading, dollars, dollars, st.just(T))


@given(readings, st.none() | readings, st.sampled_from([True, False, None]), st.booleans())
def test_no_fall_and_no_unproven_key_is_ever_believed(
    said: Reading,
    last: Reading | None,
    key: bool | None,  # noqa: FBT001
    ever: bool,  # noqa: FBT001
) -> None:
    """Over any numbers: what is believed was read with a proven key and is at least what was believed before."""
    judged = believe(said, management_key=key, last=last, ever_non_zero=ever)
    if isinstance(judged, Reading):
        assert key is True
        assert last is None or (judged.total_credits >= last.total_credits and judged.total_usage >= last.total_usage)
        assert same(judged.total_credits, said.total_credits)
        assert same(judged.total_usage, said.total_usage)


# -- the noise of doubles, and refunds ----------------------------------------------------------------------------

PROVEN: dict[str, Any] = {"management_key": True, "ever_non_zero": True}


@given(st.lists(st.floats(0.0001, 1000), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_a_sum_added_up_in_another_order_is_no_fall(parts: list[float], order: random.Random) -> None:
    """An idle account whose doubles are summed anew at each answer: believed, and the highest stays the mark."""
    last, totals = None, []
    for n in range(5):
        order.shuffle(parts)
        totals.append(Usd(Decimal(repr(sum(parts)))))
        judged = believe(Reading(Usd.of(10**6), totals[-1], T + n), last=last, **PROVEN)
        assert isinstance(judged, Reading)
        assert judged.total_usage == max(totals)
        last = judged


@given(st.integers(1, 10**15), st.integers(1, 10**6))
def test_what_is_more_than_noise_is_a_fall(micros: int, by: int) -> None:
    """From a thousand-millionth of a total on, a lower one is lower; credits are never let fall by more."""
    total, fall = Usd(Decimal(micros) / 10**6), Usd(Decimal(micros * by) / 10**16)
    last = Reading(total, Usd.of(0), T)
    judged = believe(Reading(total - fall, Usd.of(0), T + 1), last=last, **PROVEN)
    if by < 10:  # below 10^-9 of the total
        assert isinstance(judged, Reading)
        assert judged.total_credits == total
    else:
        assert isinstance(judged, Unknown)
        assert judged.doubt is (Doubt.CREDITS_FELL if total != fall else Doubt.ZERO_ZERO)


def test_the_noise_of_doubles_is_no_purchase() -> None:
    """A total of credits that is higher by less than a thousand-millionth was not bought, and unsettles no baseline."""
    before, after = read("100", at_ms=T), read("100.00000000001", at_ms=T + 1)
    assert not rose(before, after)
    assert rose(before, read("100.01"))
    assert baseline_settled([before, after], staleness_ms=60_000)
    assert not baseline_settled([before, read("100.01", at_ms=T + 1)], staleness_ms=60_000)


MOST = Usd.of(1)


def story(*told: tuple[int, str | None], bought: str = "50", last: str = "45.120") -> list[Reading | Unknown]:
    """What is made of answers at these minutes after the mark (None: no answer), each beside those before it."""
    mark, found, doubted = read(bought, last), list[Reading | Unknown](), list[Unknown]()
    for minute, usage in told:
        at_ms = T + minute * 60_000
        judged: Reading | Unknown = Unknown(Doubt.NO_ANSWER, "", at_ms)
        if usage is not None:
            said = read("50", usage, at_ms)
            judged = believe(said, last=mark, doubted=doubted, usage_fall_max=MOST, **PROVEN)
        if isinstance(judged, Unknown):
            doubted.append(judged)
        else:
            mark, doubted = judged, []
        found.append(judged)
    return found


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        # The same, for an hour: believed at its end, and at once after that.
        (((1, "45.116"), (30, "45.116"), (61, "45.116"), (62, "45.116")), [False, False, True, True]),
        # What goes on being used meanwhile is no other total.
        (((1, "45.116"), (30, "45.117"), (61, "45.118")), [False, False, True]),
        (((1, "45.116"), (2, "45.121")), [False, True]),
        # A second refund begins the hour anew; a dollar at most in all.
        (((1, "45.116"), (30, "45.110"), (61, "45.110"), (90, "45.110")), [False, False, False, True]),
        (((1, "44.120"), (61, "44.120")), [False, True]),
        (((1, "44.119"), (61, "44.119"), (3000, "44.119")), [False, False, False]),
        (((1, "45.116"), (61, "44.1")), [False, False]),
        # No answer says nothing of it; a slip that went by is none.
        (((1, "45.116"), (30, None), (61, "45.116")), [False, False, True]),
        (((1, "45.116"), (2, "45.120"), (61, "45.116"), (121, "45.116")), [False, True, False, True]),
        # Something far lower in between is not the same.
        (((1, "45.116"), (30, "12"), (61, "45.116"), (121, "45.116")), [False, False, False, True]),
    ],
)
def test_a_refund_is_believed_after_an_hour(told: tuple[tuple[int, str | None], ...], wanted: list[bool]) -> None:
    """Usage lower by at most a dollar, shown for an hour without falling further, is the account's."""
    assert [isinstance(one, Reading) for one in story(*told)] == wanted


def test_without_an_allowance_no_refund_is_believed() -> None:
    """`watch.usage_fall_max` 0 leaves it to a person."""
    doubted = [Unknown(Doubt.USAGE_FELL, "", T - DAY_MS, read("100", "59.9", T - DAY_MS))]
    judged = believe(read("100", "59.9"), last=LAST, doubted=doubted, **PROVEN)
    assert isinstance(judged, Unknown)


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 20_000_000)), max_size=12))
def test_whatever_is_told_credits_never_fall_and_usage_only_as_a_refund(told: list[tuple[int, int]]) -> None:
    """Over any answers at any times: a believed total is at least the mark, or lower by at most the allowance."""
    mark = read("50", "15", T)
    doubted: list[Unknown] = []
    for minute, micros in sorted(told):
        at_ms = T + minute * 60_000
        said = Reading(Usd.of(50), Usd(Decimal(micros) / 10**6), at_ms)
        judged = believe(said, last=mark, doubted=doubted, usage_fall_max=MOST, **PROVEN)
        if isinstance(judged, Unknown):
            doubted.append(judged)
            assert judged.doubt is Doubt.USAGE_FELL
            continue
        assert judged.total_credits == mark.total_credits
        assert mark.total_usage - judged.total_usage <= MOST
        if judged.total_usage < mark.total_usage:
            first = next(one for one in doubted if one.said is not None and one.said.total_usage <= judged.total_usage)
            assert at_ms - first.at_ms >= HOUR_MS
        mark, doubted = judged, []


@pytest.mark.parametrize(
    ("doubts", "acceptable"),
    [
        ([], False),
        ([(Doubt.CREDITS_FELL, DAY_MS - 1)], False),
        ([(Doubt.CREDITS_FELL, DAY_MS)], True),
        ([(Doubt.USAGE_FELL, DAY_MS), (Doubt.NO_ANSWER, 1)], True),
        ([(Doubt.NO_ANSWER, 2 * DAY_MS), (Doubt.CREDITS_FELL, 1)], False),
        ([(Doubt.ZERO_ZERO, 2 * DAY_MS)], False),
    ],
)
def test_a_lower_total_may_be_accepted_after_a_day(doubts: list[tuple[Doubt, int]], acceptable: bool) -> None:  # noqa: FBT001
    """Only a total that fell, and was first seen a day ago, is offered to a person; other doubts do not count.

    A wrong key, a wrong kind of key and a removed endpoint do not pass by waiting; every other doubt may.
    """
    unknowns = [Unknown(doubt, "", T - ago_ms) for doubt, ago_ms in doubts]
    assert fallen_for_a_day(unknowns, read("90")) == acceptable
    assert {Doubt.UNAUTHORIZED, Doubt.GONE, Doubt.ORDINARY_KEY} == LASTING


# -- burning ----------------------------------------------------------------------------------------------------


def used(*told: tuple[int, str]) -> list[Reading]:
    """Readings of what had been used at these times, in milliseconds before now."""
    return [read("100", usage, T - ago_ms) for ago_ms, usage in told]


BURNS: list[tuple[str, list[Reading], str | None]] = [
    ("two dollars in half an hour are four an hour", used((HOUR_MS // 2, "10"), (0, "12")), "4"),
    ("only the newest day counts, from its edge on", used((DAY_MS + 1, "0"), (DAY_MS, "50"), (0, "74")), "1"),
    ("readings of one moment say nothing", used((0, "10"), (0, "11")), None),
    ("below two minutes it is the API's cache", used((BURN_SPAN_MIN_MS - 1, "10"), (0, "11")), None),
    ("two minutes are enough", used((BURN_SPAN_MIN_MS, "10"), (0, "11")), "30"),
    ("without readings there is no rate", [], None),
    ("zero of an idle account is not unknown", used((HOUR_MS, "10"), (0, "10")), "0"),
    ("a refund tells no rate", used((HOUR_MS, "45.12"), (0, "45.11")), None),
]


@pytest.mark.parametrize(("story", "readings", "burn"), BURNS, ids=[row[0] for row in BURNS])
def test_burn_is_dollars_used_per_hour(story: str, readings: list[Reading], burn: str | None) -> None:
    """Where too little is known, or usage is lower in the end, the rate is unknown, which is not zero."""
    assert burn_usd_per_hour(readings) == (None if burn is None else Usd.of(burn))


RUNWAYS = [
    *(("22", "2", "6", "11"), ("10", "2", "0", "5"), ("4", "2", "0", "2"), ("-1", "2", "0", "0")),
    *(("11", "3", "0.33", "3.67"), ("1000000", "0.000001", "999990000000", "1000000000000")),
]


def test_runway_is_hours_to_the_floor_and_to_nothing() -> None:
    """Above a floor of ten dollars, to two decimals, and never below zero.

    Without a rate, for an idle account, or with usage that was corrected downwards no time is named.
    """
    for balance, burn, to_floor, to_empty in RUNWAYS:
        left = runway(Usd.of(balance), Usd.of(10), Usd.of(burn))
        assert left == Runway(Decimal(to_floor), Decimal(to_empty))
    for rate in (None, Usd.of(0), Usd.of(-1)):
        assert runway(Usd.of(50), Usd.of(10), rate) == Runway(None, None)


def test_looking_again_after_a_tenth_of_the_time() -> None:
    """Far from the floor slowly, near it fast, never beyond the bounds; where nothing burns, as seldom as may be.

    Not knowing the rate it looks as often as it may.
    """
    for hours, wait_s in (("0", 60), ("0.16", 60), ("0.25", 90), ("1", 360), ("2.5", 900), ("1000", 900)):
        left = Runway(Decimal(hours), Decimal(hours))
        assert next_poll_s(left, Usd.of(1), fastest_s=60, slowest_s=900) == wait_s
    assert next_poll_s(Runway(None, None), None, fastest_s=60, slowest_s=900) == 60
    assert next_poll_s(Runway(None, None), Usd.of(0), fastest_s=60, slowest_s=900) == 900


@given(
    st.none() | st.decimals(0, 10**6, places=2),
    st.sampled_from([None, Usd.of(0), Usd.of(1)]),
    st.integers(1, 1000),
    st.integers(0, 10_000),
)
def test_the_interval_keeps_its_bounds(hours: Decimal | None, burn: Usd | None, fastest: int, more: int) -> None:
    """Whatever is known of the burn, the wait lies between the fastest and the slowest."""
    wait = next_poll_s(Runway(hours, hours), burn, fastest_s=fastest, slowest_s=fastest + more)
    assert fastest <= wait <= fastest + more


# -- the pace ---------------------------------------------------------------------------------------------------


def life(*days: str, step_ms: int = HOUR_MS // 4, busy_h: int = 3) -> list[Reading]:
    """Readings of whole days that end now, oldest first; each uses so many dollars in each of its first three hours."""
    used, told = Decimal(0), []
    start = T - len(days) * DAY_MS
    for at in range(start, T + 1, step_ms):
        told.append(read("1000000", str(used), at))
        day, into = divmod(at - start, DAY_MS)
        if into < busy_h * HOUR_MS and day < len(days):
            used += Decimal(days[day]) * step_ms / HOUR_MS
    return told


WEEK = ["5"] * 5 + ["0", "0"]
# What happened, the fastest hour of the last day, and what is usual.
PACES: list[tuple[str, list[Reading], str | None, str | None]] = [
    ("three busy hours a day are no runaway, though eight times the mean", life(*["2"] * 14), "2", "2"),
    ("today's runaway shows in the last day alone", life(*["2"] * 13, "500"), "500", "2"),
    ("the usual day is one of work, not of rest", life(*WEEK, *WEEK, "5"), "5", "5"),
    ("one job a week is usual", life("50", *["0"] * 6, "50", *["0"] * 6), "0", "50"),
    ("of a slow and a fast day the slow one is usual", life(*["0"] * 6, "0.1", *["0"] * 4, "60", "0"), "0", "0.1"),
    ("who used nothing is used to nothing", life(*["0"] * 13, "60"), "60", "0"),
    ("today and six days before it say nothing of what is usual", life(*["2"] * 7), "2", None),
    ("a seventh day before it does", life(*["2"] * 8), "2", "2"),
    ("nothing was read", [], None, None),
    ("one reading", [read("100")], None, None),
    ("two within an hour", used((HOUR_MS - 1, "0"), (0, "99")), None, None),
    (
        "a gap is spread over its length",
        used((11 * HOUR_MS, "0"), (HOUR_MS, "30"), (HOUR_MS - 60_000, "30")),
        "3",
        None,
    ),
    ("a burst is spread over an hour", used((2 * HOUR_MS, "0"), (HOUR_MS, "0"), (120_000, "0"), (0, "6")), "6", None),
]


@pytest.mark.parametrize(("story", "readings", "fastest", "usual"), PACES, ids=[row[0] for row in PACES])
def test_the_pace_of_a_day(story: str, readings: list[Reading], fastest: str | None, usual: str | None) -> None:
    """What a person may be asked about is an hour faster than the days before have shown."""
    assert spending(readings, T) == fast(fastest, usual)


def fast(fastest: str | None, usual: str | None) -> Spending:
    return Spending(*(None if dollars is None else Usd.of(dollars) for dollars in (fastest, usual)))


def test_a_runaway_is_held_against_the_account_for_a_day() -> None:
    """Twenty-four hours after its last fast hour, when nothing is left to use, it is still seen; an hour later not."""
    readings = life(*["2"] * 13, "500")
    quiet = [replace(readings[-1], at_ms=T + n * HOUR_MS) for n in range(1, 5)]
    ended = T - 21 * HOUR_MS
    assert spending([*readings, *quiet], ended + DAY_MS - 1).fastest == Usd.of(500)
    assert spending([*readings, *quiet], ended + DAY_MS + HOUR_MS).fastest == Usd.of(0)


def test_what_a_person_accepts_is_usual_for_two_weeks() -> None:
    """After `resume` the fastest hour of the day before it is usual, and from then on what the days have shown."""
    readings = life(*["2"] * 13, "500")
    assert spending(readings, T, resumed_ms=T) == Spending(Usd.of(500), Usd.of(500))
    assert spending(readings, T, resumed_ms=T - 2 * DAY_MS) == Spending(Usd.of(500), Usd.of(2))
    later = T + 14 * DAY_MS
    went = [*readings, *(replace(readings[-1], at_ms=T + n * HOUR_MS) for n in range(1, 14 * 24))]
    assert spending(went, later - 1, resumed_ms=T).usual == Usd.of(500)
    assert spending(went, later, resumed_ms=T).usual == Usd.of(0)


def test_what_is_read_from_the_ledger_is_all_that_matters() -> None:
    """Readings older than `spending_since` change nothing, with a recent acceptance, an old one and none."""
    readings = life(*["7"] * 20, *["2"] * 13, "500", step_ms=HOUR_MS)
    for resumed in (0, T - 20 * DAY_MS, T - 13 * DAY_MS, T - HOUR_MS, T):
        since = spending_since(T, resumed)
        assert since >= T - 16 * DAY_MS
        some = [r for r in readings if r.at_ms >= since]
        assert spending(some, T, resumed_ms=resumed) == spending(readings, T, resumed_ms=resumed)


@given(
    st.lists(st.tuples(st.integers(1, DAY_MS), st.integers(0, 10**7)), min_size=2, max_size=40),
    st.integers(0, 10**9),
)
def test_more_use_today_is_never_a_slower_day(steps: list[tuple[int, int]], more: int) -> None:
    """Over any readings: adding to today's use never lowers today's pace and never changes what is usual."""
    at, used, readings = T, 0, []
    for wait, micros in steps:
        at, used = at + wait, used + micros
        readings.append(Reading(Usd.of(0), Usd(Decimal(used) / 10**6), at))
    last = readings[-1]
    worse = [*readings[:-1], replace(last, total_usage=last.total_usage + Usd(Decimal(more) / 10**6))]
    calm, fast = spending(readings, at), spending(worse, at)
    assert fast.usual == calm.usual
    assert (calm.fastest is None) == (fast.fastest is None)
    if calm.fastest is not None and fast.fastest is not None:
        assert fast.fastest >= calm.fastest >= Usd.of(0)


def test_a_rate_of_minutes_buys_nothing() -> None:
    """What may be shown after two minutes is unknown to the rules until an hour is known."""
    minutes = [read("100", "0", T - 120_000), read("100", "5", T)]
    hour = [read("100", "0", T - HOUR_MS), read("100", "5", T)]
    assert burn_usd_per_hour(minutes) == Usd.of(150)
    assert burn_usd_per_hour(minutes, span_min_ms=RUNWAY_SPAN_MIN_MS) is None
    assert burn_usd_per_hour(hour, span_min_ms=RUNWAY_SPAN_MIN_MS) == Usd.of(5)


# -- posting ----------------------------------------------------------------------------------------------------

PAID = T
POSTINGS = [
    ("nothing yet", "100", T + 1, Posting.WAITING, "100"),
    ("all of it", "110", T + 1, Posting.POSTED, "100"),
    ("half a cent short is forgiven", "109.995", T + 1, Posting.POSTED, "100"),
    ("a trace more than half a cent short", "109.994999", T + 1, Posting.WAITING, "100"),
    ("half a cent too much is still ours alone", "110.005", T + 1, Posting.POSTED, "100"),
    ("something else arrived beside it", "110.005001", T + 1, Posting.AMBIGUOUS, "100"),
    ("two equal purchases overlap", "120", T + 1, Posting.AMBIGUOUS, "100"),
    ("somebody else's small purchase after our block", "105", T + 1, Posting.WAITING, "100"),
    ("seen at the very moment of sending: not yet anybody's", "110", T, Posting.WAITING, "100"),
    ("seen before our block: not ours", "110", T - 1, Posting.WAITING, "110"),
    ("before our block nothing moved", "100", T - 1, Posting.WAITING, "100"),
]


@pytest.mark.parametrize(("story", "total", "at_ms", "verdict", "baseline"), POSTINGS, ids=[p[0] for p in POSTINGS])
def test_whose_rise_it_is(story: str, total: str, at_ms: int, verdict: Posting, baseline: str) -> None:
    """Ten dollars were bought on a baseline of a hundred: what a reading says of them, and the baseline after it.

    Where ten were bought elsewhere before our block, ours are posted only with ten more.
    """
    told = posting(Usd.of(100), Usd.of(10), read(total, at_ms=at_ms), PAID)
    assert told == Posted(verdict, Usd.of(baseline))
    if told.baseline == Usd.of(110):
        later = [posting(told.baseline, Usd.of(10), read(seen, at_ms=T + 1), PAID) for seen in ("110", "120")]
        assert [one.verdict for one in later] == [Posting.WAITING, Posting.POSTED]


@given(dollars, dollars, dollars, st.integers(-5, 5))
def test_a_baseline_never_falls_and_moves_only_before_the_block(
    baseline: Usd, amount: Usd, total: Usd, after_ms: int
) -> None:
    """Over any numbers: the baseline stands once the block is there, and before it nothing is called posted."""
    told = posting(baseline, amount, Reading(total, Usd.of(0), PAID + after_ms), PAID)
    assert told.baseline >= baseline
    if after_ms > 0:
        assert told.baseline == baseline
    else:
        assert told.verdict is Posting.WAITING


@pytest.mark.parametrize(
    ("totals", "settled"),
    [
        ([], False),
        ([("100", 0)], True),
        ([("100", 60), ("100", 0)], True),
        ([("90", 120), ("100", 60), ("100", 0)], True),
        ([("90", 120), ("100", 59), ("100", 0)], False),
        ([("90", 60), ("100", 0)], False),
        ([("80", 300), ("90", 200), ("100", 10), ("100", 0)], False),
    ],
)
def test_a_baseline_is_sound_when_the_last_rise_is_old(totals: list[tuple[str, int]], settled: bool) -> None:  # noqa: FBT001
    """A rise within the API's staleness of the newest reading may not have shown itself in full yet."""
    seen = [read(total, at_ms=T - ago_s * 1000) for total, ago_s in totals]
    assert baseline_settled(seen, staleness_ms=60_000) == settled
