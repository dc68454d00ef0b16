"""Do the rules of buying hold at their boundaries, in their order, and over any length of time?"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world.builders import NOW_MS, plan
from topup.domain.credits import DAY_MS, HOUR_MS, Doubt, Reading, Spending, Unknown
from topup.domain.errors import PaymentForbidden
from topup.domain.money import Bps, EthPrice, Usd, Usdc, Wei
from topup.domain.policy import (
    Buy,
    Ceilings,
    Decision,
    Hold,
    Limits,
    Past,
    Refuse,
    Snapshot,
    Wallet,
    Why,
    decide,
    permit,
    worst_spend,
)

MIN_MS = 60_000
LIMITS = Limits(
    live=True,
    floor=Usd.of(10),
    floor_hours=None,
    amount=Usd.of(25),
    target=None,
    topup_min=Usd.of(5),
    topup_max=Usd.of(100),
    fee_ceiling=Bps(600),
    cap_24h=Usd.of(106),
    cap_30d=Usd.of(530),
    count_24h=6,
    revert_gas_24h=Wei(10**15),
    cooldown_ms=10 * MIN_MS,
    backoff_ms=5 * MIN_MS,
    failures_max=5,
    charges_per_hour=10,
    fresh_ms=MIN_MS,
    burn_factor_max=10,
    burn_floor=Usd.of(1),
)


def reading(balance: str, age_ms: int = 0) -> Reading:
    """An account that once bought 100 dollars."""
    return Reading(Usd.of(100), Usd.of(100) - Usd.of(balance), NOW_MS - age_ms)


LOW = Snapshot(
    now_ms=NOW_MS,
    reading=reading("9.99"),
    burn=Usd.of(1),
    past=(),
    charge_requests_ms=(),
    paused=False,
    gone=False,
    open_topup=None,
    ever_non_zero=True,
)
UNKNOWN = Unknown(Doubt.NO_ANSWER, "reset", NOW_MS)


def past(ago_ms: int, spent: str = "26.5", *, failed: bool = False, gas: int = 0) -> Past:
    return Past(NOW_MS - ago_ms, Usd.of("0" if failed else spent), failed, Wei(gas))


# The network took a tenth of a dollar of a payment that failed.
FAILED_FEE = Past(NOW_MS - 2 * HOUR_MS, Usd.of("0.1"), failed=True, revert_gas=Wei(0))


def failures(count: int, newest_ago_ms: int) -> list[Past]:
    return [past(newest_ago_ms + n * HOUR_MS, failed=True) for n in reversed(range(count))]


def seen(ago_ms: list[int]) -> list[int]:
    return sorted(NOW_MS - ago for ago in ago_ms)


def fast(fastest: str | None, usual: str | None) -> Spending:
    """What the fastest hour of the last day used, and that of a usual day."""
    return Spending(Usd.of(fastest) if fastest is not None else None, Usd.of(usual) if usual is not None else None)


Row = tuple[str, dict[str, Any], dict[str, Any], type[Hold] | type[Buy] | type[Refuse], Why]
# Each rule at the last value that passes and the first that does not.
ROWS: list[Row] = [
    # What is known.
    ("nothing believable is read", {"reading": UNKNOWN}, {}, Hold, Why.UNKNOWN),
    ("the reading is a minute old", {"reading": reading("9.99", MIN_MS)}, {}, Buy, Why.BELOW_FLOOR),
    ("the reading is a moment older", {"reading": reading("9.99", MIN_MS + 1)}, {}, Hold, Why.STALE),
    # What is due.
    ("the balance is at the floor", {"reading": reading("10")}, {}, Hold, Why.ABOVE_FLOOR),
    ("a trace below the floor", {"reading": reading("9.999999999")}, {}, Buy, Why.BELOW_FLOOR),
    ("overdrawn", {"reading": reading("-3")}, {}, Buy, Why.BELOW_FLOOR),
    ("as many hours left as wanted", {"reading": reading("24")}, {"floor_hours": Decimal(24)}, Hold, Why.ABOVE_FLOOR),
    ("fewer hours left", {"reading": reading("23.9")}, {"floor_hours": Decimal(24)}, Buy, Why.BELOW_RUNWAY),
    (
        "below what requests may cost",
        {"reading": reading("9")},
        {"requests_floor": Usd.of(10)},
        Buy,
        Why.BELOW_REQUESTS,
    ),
    ("below both floors", {"reading": reading("3")}, {"requests_floor": Usd.of(4)}, Buy, Why.BELOW_FLOOR),
    ("another way by default", {"rails_before": "coinbase"}, {}, Refuse, Why.RAIL_CHANGED),
    ("another way, above the floor", {"rails_before": "x402", "reading": reading("10")}, {}, Hold, Why.ABOVE_FLOOR),
    ("another way, asked", {"rails_before": "x402", "asked_amount": Usd.of(5)}, {}, Refuse, Why.RAIL_CHANGED),
    (
        "nobody knows how many hours",
        {"reading": reading("11"), "burn": None},
        {"floor_hours": Decimal(24)},
        Hold,
        Why.ABOVE_FLOOR,
    ),
    ("asked for while rich", {"reading": reading("90"), "asked_amount": Usd.of(5)}, {}, Buy, Why.ASKED),
    ("asked for while unknown", {"reading": UNKNOWN, "asked_amount": Usd.of(5)}, {}, Hold, Why.UNKNOWN),
    # The switches.
    ("one is still open", {"open_topup": "t1"}, {}, Hold, Why.OPEN_TOPUP),
    ("paused", {"paused": True}, {}, Refuse, Why.PAUSED),
    ("paused, asked and forced", {"paused": True, "asked_amount": Usd.of(5), "forced": True}, {}, Refuse, Why.PAUSED),
    ("the endpoint is gone", {"gone": True}, {}, Refuse, Why.ENDPOINT_GONE),
    ("observing", {}, {"live": False}, Refuse, Why.OBSERVE_ONLY),
    # The size.
    ("the least", {"asked_amount": Usd.of(5)}, {}, Buy, Why.ASKED),
    ("less than the least", {"asked_amount": Usd.of("4.99")}, {}, Refuse, Why.AMOUNT_OUT_OF_BOUNDS),
    ("half a cent more", {"asked_amount": Usd.of("5.005")}, {}, Refuse, Why.AMOUNT_OUT_OF_BOUNDS),
    ("less than nothing", {"asked_amount": Usd.of(-5)}, {}, Refuse, Why.AMOUNT_OUT_OF_BOUNDS),
    ("the most", {"asked_amount": Usd.of(100)}, {}, Buy, Why.ASKED),
    ("more than the most", {"asked_amount": Usd.of("100.01")}, {}, Refuse, Why.AMOUNT_OUT_OF_BOUNDS),
    ("a new account on its own", {"ever_non_zero": False}, {}, Refuse, Why.FIRST_PURCHASE),
    ("a new account by hand", {"ever_non_zero": False, "asked_amount": Usd.of(5)}, {}, Buy, Why.ASKED),
    # The pace: ten times the usual, and a dollar an hour is never too much.
    ("ten times as fast as usual", {"spending": fast("20", "2")}, {}, Buy, Why.BELOW_FLOOR),
    ("a trace faster", {"spending": fast("20.000001", "2")}, {}, Refuse, Why.RUNAWAY),
    ("a dollar an hour where a cent is usual", {"spending": fast("1", "0.01")}, {}, Buy, Why.BELOW_FLOOR),
    ("a trace more where a cent is usual", {"spending": fast("1.000001", "0.01")}, {}, Refuse, Why.RUNAWAY),
    ("more than a dollar where nothing is usual", {"spending": fast("1.01", "0")}, {}, Refuse, Why.RUNAWAY),
    ("nobody knows what is usual", {"spending": fast("500", None)}, {}, Buy, Why.BELOW_FLOOR),
    ("nobody knows how fast it is", {"spending": fast(None, "2")}, {}, Buy, Why.BELOW_FLOOR),
    ("the breaker is off", {"spending": fast("500", "2")}, {"burn_factor_max": 0}, Buy, Why.BELOW_FLOOR),
    ("a higher floor", {"spending": fast("50", "2")}, {"burn_floor": Usd.of(50)}, Buy, Why.BELOW_FLOOR),
    ("fast and asked for", {"spending": fast("500", "2"), "asked_amount": Usd.of(5)}, {}, Buy, Why.ASKED),
    ("fast and forced", {"spending": fast("500", "2"), "forced": True}, {}, Refuse, Why.RUNAWAY),
    ("fast and above the floor", {"spending": fast("500", "2"), "reading": reading("10")}, {}, Hold, Why.ABOVE_FLOOR),
    ("fast and unknown", {"spending": fast("500", "2"), "reading": UNKNOWN}, {}, Hold, Why.UNKNOWN),
    # The budgets: 25 dollars count 26.50.
    ("fills the day's cap", {"past": [past(HOUR_MS, "79.5")]}, {}, Buy, Why.BELOW_FLOOR),
    ("a millionth beyond it", {"past": [past(HOUR_MS, "79.500001")]}, {}, Refuse, Why.CAP_24H),
    ("spent a day ago to the moment", {"past": [past(DAY_MS, "106")]}, {}, Buy, Why.BELOW_FLOOR),
    ("spent a moment less than a day ago", {"past": [past(DAY_MS - 1, "106")]}, {}, Refuse, Why.CAP_24H),
    ("fills the month's cap", {"past": [past(5 * DAY_MS, "503.5")]}, {}, Buy, Why.BELOW_FLOOR),
    ("a millionth beyond the month's", {"past": [past(5 * DAY_MS, "503.500001")]}, {}, Refuse, Why.CAP_30D),
    ("spent 30 days ago", {"past": [past(30 * DAY_MS, "530")]}, {}, Buy, Why.BELOW_FLOOR),
    ("spent a moment less than 30 days ago", {"past": [past(30 * DAY_MS - 1, "530")]}, {}, Refuse, Why.CAP_30D),
    ("five today", {"past": [past(n * HOUR_MS, "1") for n in range(5, 0, -1)]}, {}, Buy, Why.BELOW_FLOOR),
    ("six today", {"past": [past(n * HOUR_MS, "1") for n in range(6, 0, -1)]}, {}, Refuse, Why.COUNT_24H),
    ("a fee of one that failed is no top-up", {"past": [FAILED_FEE]}, {"count_24h": 1}, Buy, Why.BELOW_FLOOR),
    ("but it is spent", {"past": [FAILED_FEE, past(HOUR_MS, "79.5")]}, {}, Refuse, Why.CAP_24H),
    ("gas within its budget", {"past": [past(HOUR_MS, failed=True, gas=10**15)]}, {}, Buy, Why.BELOW_FLOOR),
    ("a wei of gas beyond it", {"past": [past(HOUR_MS, failed=True, gas=10**15 + 1)]}, {}, Refuse, Why.REVERT_GAS),
    ("gas of yesterday", {"past": [past(DAY_MS, failed=True, gas=10**18)]}, {}, Buy, Why.BELOW_FLOOR),
    ("nine charges in an hour", {"charge_requests_ms": seen([1] * 9)}, {}, Buy, Why.BELOW_FLOOR),
    ("ten charges in an hour", {"charge_requests_ms": seen([1] * 10)}, {}, Refuse, Why.CHARGE_RATE),
    ("the tenth an hour ago", {"charge_requests_ms": seen([1] * 9 + [HOUR_MS])}, {}, Buy, Why.BELOW_FLOOR),
    # Patience: cool-down 10 min, back-off 5 min doubling.
    ("the cool-down is over", {"past": [past(10 * MIN_MS)]}, {}, Buy, Why.BELOW_FLOOR),
    ("the cool-down is not over", {"past": [past(10 * MIN_MS - 1)]}, {}, Hold, Why.COOLDOWN),
    ("a failure within the cool-down", {"past": failures(1, 10 * MIN_MS - 1)}, {}, Hold, Why.BACKOFF),
    ("one failure waits as long as the cool-down", {"past": failures(1, 10 * MIN_MS)}, {}, Buy, Why.BELOW_FLOOR),
    ("three failures wait four times as long", {"past": failures(3, 20 * MIN_MS)}, {}, Buy, Why.BELOW_FLOOR),
    ("three failures, a moment early", {"past": failures(3, 20 * MIN_MS - 1)}, {}, Hold, Why.BACKOFF),
    ("four failures", {"past": failures(4, DAY_MS)}, {}, Buy, Why.BELOW_FLOOR),
    ("five failures", {"past": failures(5, DAY_MS)}, {}, Refuse, Why.TOO_MANY_FAILURES),
    (
        "five failures, then a success",
        {"past": [*failures(5, DAY_MS), past(HOUR_MS)]},
        {},
        Buy,
        Why.BELOW_FLOOR,
    ),
]


@pytest.mark.parametrize(("story", "snapshot", "limits", "kind", "why"), ROWS, ids=[row[0] for row in ROWS])
def test_each_rule_at_its_boundary(
    story: str, snapshot: dict[str, Any], limits: dict[str, Any], kind: type[Decision], why: Why
) -> None:
    """An account just below its floor, with one thing changed: what is decided, and the word for it."""
    decision = decide(replace(LOW, **snapshot), replace(LIMITS, **limits))
    assert (type(decision), decision.why) == (kind, why)


WRONG = replace(
    LOW,
    reading=UNKNOWN,
    open_topup="t1",
    paused=True,
    gone=True,
    ever_non_zero=False,
    past=[past(2 * DAY_MS, "500"), *[past(n * HOUR_MS, "20") for n in range(16, 10, -1)], *failures(5, 1)],
    charge_requests_ms=seen([1] * 10),
    spending=Spending(fastest=Usd.of(50), usual=Usd.of("0.5")),
)
WRONG_LIMITS = replace(LIMITS, live=False, amount=Usd.of(200), revert_gas_24h=Wei(-1))
# Each cure takes away what was said before it.
CURES: list[tuple[Why, dict[str, Any], dict[str, Any]]] = [
    (Why.UNKNOWN, {"reading": reading("20", 2 * MIN_MS)}, {}),
    (Why.STALE, {"reading": reading("20")}, {}),
    (Why.ABOVE_FLOOR, {"reading": reading("9")}, {}),
    (Why.OPEN_TOPUP, {"open_topup": None}, {}),
    (Why.PAUSED, {"paused": False}, {}),
    (Why.ENDPOINT_GONE, {"gone": False}, {}),
    (Why.OBSERVE_ONLY, {}, {"live": True}),
    (Why.AMOUNT_OUT_OF_BOUNDS, {}, {"amount": Usd.of(25)}),
    (Why.FIRST_PURCHASE, {"ever_non_zero": True}, {}),
    (Why.RUNAWAY, {"spending": None}, {}),
    (Why.CAP_24H, {}, {"cap_24h": Usd.of(1000), "cap_30d": Usd.of(600)}),
    (Why.CAP_30D, {}, {"cap_30d": Usd.of(1000)}),
    (Why.COUNT_24H, {}, {"count_24h": 7}),
    (Why.REVERT_GAS, {}, {"revert_gas_24h": Wei(0)}),
    (Why.CHARGE_RATE, {"charge_requests_ms": ()}, {}),
    (Why.TOO_MANY_FAILURES, {}, {"failures_max": 6}),
    (Why.BACKOFF, {"past": [past(1)]}, {}),
    (Why.COOLDOWN, {"past": []}, {}),
    (Why.BELOW_FLOOR, {}, {}),
]


def test_what_is_said_first() -> None:
    """With everything wrong at once the rules speak in their order, and the last cure lets the purchase through."""
    now, limits, said = WRONG, WRONG_LIMITS, []
    for _, cure, cure_limits in CURES:
        said.append(decide(now, limits).why)
        now, limits = replace(now, **cure), replace(limits, **cure_limits)
    assert said == [why for why, _, _ in CURES]
    assert isinstance(decide(now, limits), Buy)


def test_a_refusal_says_what_to_do_and_when_it_ends() -> None:
    """Every refusal has a remedy; a full cap also says when room returns.

    At the time a cool-down names, the purchase is due; a moment before it is not.
    """
    full = decide(replace(LOW, past=[past(3 * HOUR_MS, "53"), past(HOUR_MS, "53")]), LIMITS)
    assert isinstance(full, Refuse) and full.until_ms == NOW_MS + 21 * HOUR_MS
    for row in ROWS:
        decision = decide(replace(LOW, **row[1]), replace(LIMITS, **row[2]))
        assert not isinstance(decision, Refuse) or decision.remedy
    now, fresh = replace(LOW, past=[past(MIN_MS)]), replace(LIMITS, fresh_ms=DAY_MS)
    held = decide(now, LIMITS)
    assert isinstance(held, Hold) and held.until_ms is not None
    assert isinstance(decide(replace(now, now_ms=held.until_ms - 1), fresh), Hold)
    assert isinstance(decide(replace(now, now_ms=held.until_ms), fresh), Buy)


@pytest.mark.parametrize(
    ("snapshot", "still"),
    [
        ({"past": [past(1)]}, Buy),
        ({"past": failures(4, 1)}, Buy),
        ({"past": failures(5, 1)}, Refuse),
        ({"past": failures(5, 1), "resumed_ms": LOW.now_ms}, Buy),
        ({"past": [past(HOUR_MS, "106")]}, Refuse),
        ({"past": [past(n * HOUR_MS, "1") for n in range(6, 0, -1)]}, Refuse),
        ({"past": [past(HOUR_MS, failed=True, gas=10**16)]}, Refuse),
        ({"charge_requests_ms": seen([1] * 10)}, Refuse),
        ({"open_topup": "t1"}, Hold),
        ({"reading": UNKNOWN}, Hold),
        ({"reading": reading("50")}, Hold),
        ({"gone": True}, Refuse),
        ({"spending": fast("500", "2")}, Refuse),
    ],
)
def test_force_skips_patience_and_nothing_else(snapshot: dict[str, Any], still: type[Decision]) -> None:
    """Forced, cool-down and back-off do not count; the stop after failures does until `resume`, and all else."""
    assert isinstance(decide(replace(LOW, forced=True, **snapshot), LIMITS), still)


# -- for any account and any past -------------------------------------------------------------------------------

cents = st.integers(-20_000, 20_000).map(lambda n: Usd(Decimal(n) / 100))
pasts = st.lists(
    st.builds(
        past,
        st.integers(0, 40 * DAY_MS),
        st.integers(0, 6000).map(lambda n: str(Decimal(n) / 100)),
        failed=st.booleans(),
        gas=st.integers(0, 2 * 10**15),
    ),
    max_size=8,
)
paces = st.integers(0, 10**8).map(lambda n: Usd(Decimal(n) / 10**6))
snapshots = st.builds(
    Snapshot,
    now_ms=st.just(NOW_MS),
    reading=st.builds(lambda balance, age: Reading(Usd.of(500), Usd.of(500) - balance, NOW_MS - age), cents, st.just(0))
    | st.sampled_from(list(Doubt)).map(lambda doubt: Unknown(doubt, "", NOW_MS)),
    burn=st.none() | cents,
    past=pasts,
    charge_requests_ms=st.just(()),
    paused=st.booleans(),
    gone=st.just(False),
    open_topup=st.sampled_from([None, None, "t1"]),
    ever_non_zero=st.just(True),
    asked_amount=st.none() | cents,
    forced=st.booleans(),
    spending=st.none() | st.builds(Spending, st.none() | paces, st.none() | paces),
)


@given(snapshots, st.booleans())
def test_a_purchase_has_every_reason_and_no_obstacle(now: Snapshot, live: bool) -> None:  # noqa: FBT001
    """Whatever is bought was read, was due, and nothing forbade it: unknown never buys, observing never buys."""
    decision = decide(now, replace(LIMITS, live=live))
    if not isinstance(decision, Buy):
        return
    assert isinstance(now.reading, Reading)
    assert live
    assert not now.paused
    assert now.open_topup is None
    assert now.asked_amount is not None or now.reading.balance < LIMITS.floor
    assert LIMITS.topup_min <= decision.amount <= LIMITS.topup_max


@given(snapshots, st.integers(1, 10), st.integers(0, 20_000))
def test_no_purchase_may_pass_a_cap_at_its_worst(now: Snapshot, count: int, cap_cents: int) -> None:
    """What is bought fits, with the highest fee on it, under both caps beside all that was spent; count and gas too."""
    limits = replace(
        LIMITS, count_24h=count, cap_24h=Usd(Decimal(cap_cents) / 100), cap_30d=Usd(Decimal(cap_cents) / 50)
    )
    decision = decide(now, limits)
    if not isinstance(decision, Buy):
        return
    worst = decision.amount.amount * Decimal("1.06")
    day = [p for p in now.past if NOW_MS - p.decided_ms < DAY_MS]
    month = [p for p in now.past if NOW_MS - p.decided_ms < 30 * DAY_MS]
    assert sum(p.spent.amount for p in day) + worst <= limits.cap_24h.amount
    assert sum(p.spent.amount for p in month) + worst <= limits.cap_30d.amount
    assert sum(1 for p in day if p.spent.amount) < count
    assert sum(p.revert_gas.units for p in day) <= limits.revert_gas_24h.units


@given(snapshots, paces, paces)
def test_using_more_never_lets_a_purchase_through(now: Snapshot, usual: Usd, more: Usd) -> None:
    """Whatever is refused at one pace is not bought at a higher one, and what a higher pace may buy a lower one may."""
    slow = replace(now, spending=Spending(more, usual))
    quick = replace(now, spending=Spending(more + usual, usual))
    if isinstance(decide(quick, LIMITS), Buy):
        assert decide(slow, LIMITS) == decide(quick, LIMITS)
    if isinstance(decide(slow, LIMITS), Refuse):
        assert isinstance(decide(quick, LIMITS), Refuse)


@given(snapshots)
def test_force_never_forbids(now: Snapshot) -> None:
    """What is bought unforced is bought forced, for the same amount."""
    calm = decide(replace(now, forced=False), LIMITS)
    if isinstance(calm, Buy):
        assert decide(replace(now, forced=True), LIMITS) == calm


@given(st.integers(-10_000_000, 9_999_999).map(lambda n: Usd(Decimal(n) / 10**6)), st.integers(1001, 30_000))
def test_a_target_closes_the_gap(balance: Usd, target_cents: int) -> None:
    """Bought up to a target, the balance ends there to the cent above, within the bounds for one top-up."""
    target = Usd(Decimal(target_cents) / 100)
    limits = replace(LIMITS, amount=None, target=target, cap_24h=Usd.of(1000), cap_30d=Usd.of(1000))
    decision = decide(replace(LOW, reading=Reading(Usd.of(100), Usd.of(100) - balance, NOW_MS)), limits)
    assert isinstance(decision, Buy)
    short = target - (balance + decision.amount)
    assert decision.amount == limits.topup_max or short <= Usd.of(0)
    assert decision.amount == limits.topup_min or short > Usd.of("-0.01")
    assert decision.amount.cents_down() == decision.amount


outcomes = st.sampled_from(["pending", "paid", "failed"])


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 8 * HOUR_MS), outcomes, st.booleans(), st.integers(5, 60)), min_size=10, max_size=60
    ),
    st.integers(0, 2),
)
def test_no_sequence_of_purchases_passes_a_cap(
    steps: list[tuple[int, str, bool, int]],
    patience: int,
) -> None:
    """Over any times, outcomes, forces and amounts: no 24 hours and no 30 days ever hold more than their cap or count.

    What is pending counts at its most; only a proven failure gives its room back.
    """
    limits = replace(
        LIMITS,
        cap_30d=Usd.of(300),
        count_24h=4,
        cooldown_ms=patience * HOUR_MS,
        backoff_ms=patience * MIN_MS,
        failures_max=100,
    )
    at, done = NOW_MS, list[Past]()
    for wait, outcome, forced, dollars in steps:
        at += wait
        low = Reading(Usd.of(100), Usd.of(99), at)
        now = replace(LOW, now_ms=at, reading=low, past=done, forced=forced, asked_amount=Usd.of(dollars))
        decision = decide(now, limits)
        if not isinstance(decision, Buy):
            continue
        if not forced and done:
            assert at - done[-1].decided_ms >= limits.cooldown_ms
        failed = outcome == "failed"
        done.append(Past(at, Usd.of(0) if failed else worst_spend(decision.amount, limits), failed, Wei(0)))
        for span, cap in ((DAY_MS, limits.cap_24h), (30 * DAY_MS, limits.cap_30d)):
            inside = [p for p in done if p.decided_ms > at - span]
            assert sum((p.spent for p in inside), Usd.of(0)) <= cap
        assert len([p for p in done if p.decided_ms > at - DAY_MS and not p.failed]) <= limits.count_24h


@given(st.integers(1, 6), st.integers(0, 3 * HOUR_MS), st.integers(0, 2 * HOUR_MS), st.integers(1, HOUR_MS))
def test_back_off_doubles_and_never_releases_the_cool_down(
    count: int, ago: int, cooldown_ms: int, backoff_ms: int
) -> None:
    """After n failures the wait is the longer of the cool-down and the first back-off doubled n - 1 times."""
    limits = replace(LIMITS, cooldown_ms=cooldown_ms, backoff_ms=backoff_ms, failures_max=7)
    wait = max(cooldown_ms, backoff_ms * 2 ** (count - 1))
    decision = decide(replace(LOW, past=failures(count, ago)), limits)
    if ago >= wait:
        assert isinstance(decision, Buy)
    else:
        assert decision == Hold(Why.BACKOFF, decision.detail, NOW_MS - ago + wait)
        left_s = -(-(wait - ago) // 1000)
        setting = "policy.cooldown_s" if wait == cooldown_ms else "policy.backoff_s"
        assert f"{left_s} s are left of the wait that {setting} asks for" in decision.detail
        assert decision.remedy == f"wait {left_s} s, lower {setting}, or skip the wait: `topup once --force`"


# -- one payment ------------------------------------------------------------------------------------------------

PLAN = plan()
CEILINGS = Ceilings(
    price_deviation=Bps(100),
    gas_price=PLAN.max_fee_per_gas,
    network_fee=PLAN.max_fee_per_gas.times(PLAN.gas_limit) + PLAN.l1_fee,
    reserve=Wei(10**15),
    payment=PLAN.value,
    # The lowest price at which 10.50 USDC cost no more than the plan does.
    price_min=EthPrice(297_029_702_970),
)
TOTAL = Usdc(10_500_000)
FAIR = Wei(3_500_000_000_000_000)
WALLET = PLAN.cost_max + CEILINGS.reserve
HIGH = {"payment": Wei(10**18), "price_min": EthPrice(1)}


def test_a_payment_at_every_ceiling_is_permitted() -> None:
    """Price, gas price, network fee and wallet exactly at their limits: it may be paid.

    Where the wallet falls short the remedy says by how much, reserve included.
    """
    for fair in (FAIR, None):
        permit(PLAN, total=TOTAL, fair=fair, wallet=Wallet(WALLET), ceilings=CEILINGS)
    with pytest.raises(PaymentForbidden) as forbidden:
        permit(PLAN, total=TOTAL, fair=FAIR, wallet=Wallet(WALLET - Wei(10**14)), ceilings=CEILINGS)
    assert "0.0001 ETH" in forbidden.value.remedy


@pytest.mark.parametrize(
    ("reason", "changed", "ceilings", "wallet"),
    [
        ("payment_max", {"value": PLAN.value + Wei(1)}, {}, WALLET + Wei(1)),
        ("payment_max", {}, {"payment": PLAN.value - Wei(1)}, WALLET),
        ("payment_max", {}, {"price_min": EthPrice(297_029_702_971)}, WALLET),
        ("price_deviation", {"value": PLAN.value + Wei(1)}, HIGH, WALLET + Wei(1)),
        ("gas_price", {"max_fee_per_gas": PLAN.max_fee_per_gas + Wei(1), "gas_limit": 1}, {}, WALLET),
        ("network_fee", {"l1_fee": PLAN.l1_fee + Wei(1)}, {}, WALLET + Wei(1)),
        ("network_fee", {"gas_limit": PLAN.gas_limit + 1}, {}, WALLET.times(2)),
        ("wallet_low", {}, {}, WALLET - Wei(1)),
    ],
)
def test_a_payment_one_unit_beyond_a_ceiling_is_forbidden(
    reason: str, changed: dict[str, Any], ceilings: dict[str, Any], wallet: Wei
) -> None:
    """One wei beyond any ceiling: forbidden with that reason and a remedy, to be tried again."""
    plan, bounds = replace(PLAN, **changed), replace(CEILINGS, **ceilings)
    with pytest.raises(PaymentForbidden) as forbidden:
        permit(plan, total=TOTAL, fair=FAIR, wallet=Wallet(wallet), ceilings=bounds)
    assert (forbidden.value.reason, forbidden.value.again) == (reason, True)
    assert forbidden.value.remedy
