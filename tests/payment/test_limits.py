"""Do the limits hold in the real ledger, over restarts, clocks that leap, and any zone a machine may think it is in?"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.world.builders import ACCOUNT, CHAIN_ID, WALLET, inclusion, plan, signed_bytes, topup
from tests.world.ledger import MEMORY
from tests.world.stage import Machine, Silence, Stage, Start, low
from topup.app import assembly
from topup.app.settings import load
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.demand import Request
from topup.domain.lifecycle import Fact, State, TopUp
from topup.domain.money import Usd, Wei
from topup.domain.notes import Note
from topup.domain.policy import Buy, Why, decide, worst_spend
from topup.ledger.store import SqliteStore
from topup.payment.config import Account, PurchaseOrder, Route, Terms
from topup.payment.ledger_clock import LedgerClock
from topup.payment.monitor import Monitor
from topup.payment.part import Ports
from topup.ports.account import Key
from topup.ports.chain import Delivery, Seen, Sent
from topup.ports.rail import Rail
from topup.sandbox.world import World

SECOND_MS = 1000
YEAR_MS = 365 * DAY_MS
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu")
# An hour of local time that does not exist, one that exists twice, the ends of a month, a year and a February.
MOMENTS = ("2026-03-29T00:59", "2026-10-25T00:59", "2026-08-31T23:59", "2026-12-31T23:59", "2028-02-29T23:59")
SETTINGS = load(
    {
        "TOPUP_CONFIG": "/dev/null",
        "TOPUP_POLICY__CAP_24H": "90",
        "TOPUP_POLICY__CAP_30D": "200",
        "TOPUP_POLICY__COUNT_24H": "4",
        "TOPUP_POLICY__REVERT_GAS_24H_ETH": "0.0005",
        "TOPUP_POLICY__FAILURES_MAX": "100",
    }
)
LIMITS = replace(assembly.limits(SETTINGS), live=True)
TERMS = Terms(
    Account(ACCOUNT, WALLET, (Route("coinbase", CHAIN_ID),)),
    LIMITS,
    assembly.ceilings(SETTINGS),
    assembly.pace(SETTINGS),
)


@dataclass
class Poor:
    """An account that is always below its floor, whatever is paid into it: as good as a consumer without end."""

    used: Decimal = Decimal(99)
    requests: int = 0

    async def credits(self) -> Reading:
        return Reading(Usd(self.used + 1), Usd(self.used), 0)

    async def key(self) -> Key:
        return Key(management=True)

    async def charge(self, request: Request) -> bytes:
        raise AssertionError("the tests write down themselves what came of a purchase")


def no_rail(name: str) -> Rail:
    raise AssertionError("nothing is paid here")


@dataclass(frozen=True)
class Left:
    """Something that left the wallet, in ledger time: a payment at its worst, or a reverted attempt's gas."""

    at_ms: int
    spent: Usd
    gas: Wei


class Limited(RuleBasedStateMachine):
    """Anything may happen between two purchases; what left the wallet is written down beside the ledger and counted."""

    def __init__(self) -> None:
        super().__init__()
        self.zone = os.environ.get("TZ")
        self.folder = tempfile.TemporaryDirectory(prefix="topup-limits-", dir=MEMORY)
        self.machine, self.api = Machine(), Poor()
        self.left: list[Left] = []
        self.ended_ms: int | None = None
        self.number = 0
        self.open()
        self.newest = self.clock.now()

    def open(self) -> None:
        self.store = SqliteStore.open_writer(Path(self.folder.name))
        self.clock = LedgerClock(TERMS, store=self.store, clock=self.machine, sink=Silence())
        self.watch = Monitor(TERMS, Ports(self.api, no_rail, self.store, self.clock, Silence()))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()
        self.enter(self.zone)

    @staticmethod
    def enter(zone: str | None) -> None:
        """Move the process to a time zone."""
        if zone is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = zone
        time.tzset()

    # -- what the world does ------------------------------------------------------------------------------------

    @rule(ms=st.integers(0, 15 * 60 * SECOND_MS) | st.integers(0, 3 * DAY_MS))
    def go_on(self, ms: int) -> None:
        """Time passes, and ledger time with it, however wrong the clock is."""
        before = self.clock.now()
        self.machine.go_on(ms)
        assert self.clock.now() - before >= ms

    @rule(ms=st.integers(-3 * YEAR_MS, 3 * YEAR_MS) | st.integers(-2 * DAY_MS, 2 * DAY_MS))
    def set_the_clock(self, ms: int) -> None:
        """The wall's clock is put forward or back."""
        self.machine.wall = max(0, self.machine.wall + ms)

    @rule(moment=st.sampled_from(MOMENTS), zone=st.sampled_from(ZONES))
    def travel(self, moment: str, zone: str) -> None:
        """The machine wakes in another zone, at a moment when calendars are odd."""
        self.enter(zone)
        self.machine.wall = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * SECOND_MS

    @rule(off_ms=st.integers(0, DAY_MS), start=st.integers(0, 10**9))
    def restart(self, off_ms: int, start: int) -> None:
        """The program ends and starts again; what it knew beside the ledger is gone."""
        self.store.close()
        self.machine.wall += off_ms
        self.machine.mono = start
        self.open()

    # -- what the program does ----------------------------------------------------------------------------------

    def decided(self, asked: PurchaseOrder, beside: TopUp | None = None) -> Buy | None:
        """Look and decide as the flow does."""
        reading = asyncio.run(self.watch.read())
        decision = decide(self.watch.snapshot(reading, asked, beside=beside), LIMITS)
        return decision if isinstance(decision, Buy) else None

    @precondition(lambda self: self.store.open_topup(ACCOUNT) is None)
    @rule(asked=st.none() | st.integers(5, 80), forced=st.booleans())
    def begin(self, asked: int | None, forced: bool) -> None:  # noqa: FBT001
        """A pass finds no open top-up; unforced, a purchase comes a cool-down after whatever left or failed last."""
        decision = self.decided(PurchaseOrder(None if asked is None else Usd.of(asked), forced=forced))
        if decision is None:
            return
        now = self.clock.now()
        if not forced and self.ended_ms is not None:
            assert now - self.ended_ms >= LIMITS.cooldown_ms
        self.number += 1
        kept = topup(id=f"t{self.number}", amount=decision.amount, why=decision.why.value, decided_ms=now, moved_ms=now)
        kept = self.store.ask(self.store.begin(kept), now)
        self.store.answered(kept, b"{}", now)

    @precondition(lambda self: self.at(State.CHARGED))
    @rule()
    def send(self) -> None:
        """Decided again beside the open top-up, a payment is signed and may leave."""
        kept = self.topup
        asked = PurchaseOrder(kept.amount if kept.why == Why.ASKED.value else None, forced=True)
        if self.decided(asked, beside=kept) is None:
            return
        now, nonce = self.clock.now(), self.store.next_nonce(CHAIN_ID, WALLET)
        kept = self.store.reserve(kept, plan(nonce=nonce), Reading(Usd.of(1), Usd.of(0), now), Wei(10**18), now)
        kept = self.store.signed(kept, *signed_bytes(f"{kept.id}/{nonce}"), now)
        kept = self.store.intend(kept, now)
        self.store.delivered(kept, kept.attempts[-1], Sent(Delivery.ACCEPTED, ""), now)
        self.ended_ms = now
        self.leaves(Left(now, worst_spend(kept.amount, LIMITS), Wei(0)))

    @precondition(lambda self: self.at(State.SENT))
    @rule()
    def pay(self) -> None:
        """It is included, posted and settled."""
        kept, now = self.topup, self.clock.now()
        told = Seen(inclusion(), "", "matches", trusted=True)
        kept = self.store.included(kept, kept.attempts[-1], told, Fact.PAID, now)
        self.store.move(self.store.move(kept, Fact.POSTED, now), Fact.SETTLED, now)

    @precondition(lambda self: self.at(State.SENT))
    @rule()
    def revert(self) -> None:
        """It is included and fails: what was to be spent stays, its gas is gone, and the charge may be tried again."""
        kept, now = self.topup, self.clock.now()
        told = inclusion(success=False)
        kept = self.store.included(
            kept, kept.attempts[-1], Seen(told, "V3TooMuchRequested", "", trusted=True), Fact.REVERTED, now
        )
        self.store.move(kept, Fact.RETRY, now)
        self.left[-1] = Left(self.left[-1].at_ms, Usd.of(0), told.gas + told.l1_fee)

    @precondition(lambda self: self.at(State.CHARGED))
    @rule()
    def fail(self) -> None:
        """The open top-up ends without a payment: a failure."""
        kept, now = self.topup, self.clock.now()
        assume(not kept.out)
        self.store.move(kept, Fact.DROP, now, "charge_refused")
        self.ended_ms = max(self.ended_ms or 0, kept.decided_ms)

    # Most of what is drawn is one of these, so that the limits are reached and not only the empty windows after a leap.

    def whole(self, asked: int | None, *, forced: bool, wait_s: int, last: str = "pay") -> None:
        """A while later make a whole top-up, if one may be: begun, sent, and paid or reverted."""
        self.go_on(wait_s * SECOND_MS)
        if self.store.open_topup(ACCOUNT) is None:
            self.begin(asked, forced)
        if self.at(State.CHARGED):
            self.send()
        if self.at(State.SENT):
            (self.pay if last == "pay" else self.revert)()

    @rule(asked=st.just(5) | st.integers(5, 80), wait_s=st.integers(0, 4000))
    def buy_what_is_asked(self, asked: int, wait_s: int) -> None:
        """A person asks for an amount, without patience; often for the least, so that the count comes before caps."""
        self.whole(asked, forced=True, wait_s=wait_s)

    @rule(wait_s=st.integers(500, 40_000))
    def buy_patiently(self, wait_s: int) -> None:
        """What the floor asks for, after a cool-down."""
        self.whole(None, forced=False, wait_s=wait_s)

    @rule(days=st.integers(1, 8))
    def buy_after_days(self, days: int) -> None:
        """Much, and seldom enough for the day's cap."""
        self.whole(80, forced=True, wait_s=days * 86_400)

    @rule(hours=st.integers(1, 72))
    def buy_slowly(self, hours: int) -> None:
        """Decided now, paid much later, as behind a pause: what is spent counts from when it left."""
        if self.store.open_topup(ACCOUNT) is None:
            self.begin(80, True)
        self.whole(80, forced=True, wait_s=hours * 3600)

    @rule(wait_s=st.integers(0, 4000))
    def pay_in_vain(self, wait_s: int) -> None:
        """A payment that reverts; its top-up stays open."""
        self.whole(5, forced=True, wait_s=wait_s, last="revert")

    # -- what holds ---------------------------------------------------------------------------------------------

    @property
    def topup(self) -> TopUp:
        kept = self.store.open_topup(ACCOUNT)
        assert kept is not None
        return kept

    def at(self, state: State) -> bool:
        kept = self.store.open_topup(ACCOUNT)
        return kept is not None and kept.state is state

    def leaves(self, one: Left) -> None:
        """Write down what leaves, and count every window that it ends."""
        assert not self.left or one.at_ms >= self.left[-1].at_ms
        day = [x for x in self.left if x.at_ms > one.at_ms - DAY_MS]
        month = [x for x in self.left if x.at_ms > one.at_ms - 30 * DAY_MS]
        assert sum((x.spent for x in [*day, one]), Usd.of(0)) <= LIMITS.cap_24h
        assert sum((x.spent for x in [*month, one]), Usd.of(0)) <= LIMITS.cap_30d
        assert sum(1 for x in [*day, one] if x.spent > Usd.of(0)) <= LIMITS.count_24h
        assert sum((x.gas for x in day), Wei(0)) <= LIMITS.revert_gas_24h
        self.left.append(one)

    @invariant()
    def ledger_time_never_goes_back(self) -> None:
        """Whatever the clock did: what was written last is not younger than what is written next."""
        asyncio.run(self.watch.read())
        now = self.clock.now()
        assert now >= self.newest
        self.newest = now


Limited.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)


class TestLimits(Limited.TestCase):  # type: ignore[misc, valid-type]
    """No rolling window holds more than its cap, its count and its gas, whatever happens between two purchases."""


# -- stories of the clock ---------------------------------------------------------------------------------------


@pytest.fixture
def limited() -> Iterator[Limited]:
    """A ledger and a machine, led by hand."""
    made = Limited()
    yield made
    made.teardown()


def fill(limited: Limited) -> int:
    """Buy as often as the caps allow in one night; return how often."""
    before = len(limited.left)
    for _ in range(6):
        limited.whole(25, forced=True, wait_s=60)
    return len(limited.left) - before


def test_a_clock_put_forward_releases_the_caps_once(limited: Limited) -> None:
    """To this rule a leap of a year is a year, once; before paying, the caps are held again by the chain's clock."""
    assert fill(limited) == 3
    limited.set_the_clock(YEAR_MS)
    assert fill(limited) == 3
    for leap in (-YEAR_MS, YEAR_MS, -3 * YEAR_MS, 3 * YEAR_MS):
        limited.set_the_clock(leap)
        assert fill(limited) == 0
        limited.restart(off_ms=0, start=5)
        assert fill(limited) == 0


def test_a_leap_ahead_and_back_in_one_run_does_not_stop_the_ledgers_time(limited: Limited) -> None:
    """Ten years ahead for a moment: a cool-down that begins after it is over when it should be, not ten years later."""
    limited.set_the_clock(10 * YEAR_MS)
    limited.clock.now()
    limited.set_the_clock(-10 * YEAR_MS)
    limited.whole(25, forced=True, wait_s=0)
    limited.whole(None, forced=False, wait_s=599)
    assert len(limited.left) == 1
    limited.whole(None, forced=False, wait_s=1)
    assert len(limited.left) == 2


# -- stories of a runaway, through the whole flow ---------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    """An account that is idle and half a dollar below its floor of ten."""
    with low(burn_usd_per_hour=Decimal(0)) as made:
        yield made


def remember(stage: Stage, *, days: int, per_day: str, until_ms: int) -> None:
    """Put readings into the ledger: so many days until then, each using so much in one of its hours."""
    for hour in range(days * 24 + 1):
        used = Usd.of(per_day).times(hour // 24 + 1)
        at_ms = until_ms - (days * 24 - hour) * HOUR_MS
        stage.store.record_reading("default", Reading(Usd.of(20), used, at_ms))


async def test_a_runaway_is_refused_and_said_until_a_person_resumes(world: World, start: Start) -> None:
    """Ten cents a day for nine days, then nine dollars within an hour: nothing is bought, a person is told why."""
    stage = start()
    remember(stage, days=9, per_day="0.1", until_ms=world.clock.now_ms() - HOUR_MS)
    rest = await stage.step()
    assert (rest.outcome, rest.why) == ("forbidden", "runaway")
    (said,) = stage.named("top_up_forbidden")
    assert said.why == "runaway"
    assert "topup resume" in said.remedy
    await stage.close()
    # A restart forgets nothing of it.
    stage = start()
    assert (await stage.step()).why == "runaway"
    stage.pause("0")
    assert (await stage.until(State.DONE)).why == "below_floor"


@pytest.mark.parametrize(
    ("before", "settings", "waits"),
    [
        ("mpp", {}, True),
        ("mpp", {"TOPUP_RAILS__USE": "coinbase"}, False),
        ("coinbase", {}, False),
        (None, {}, False),
    ],
)
async def test_a_default_that_changes_buys_nothing(
    world: World,
    start: Start,
    before: str | None,
    settings: dict[str, str],
    waits: bool,  # noqa: FBT001
) -> None:
    """An upgrade that would pay by another rail waits for a person's word; a ledger without the note is of coinbase."""
    stage = start(settings)
    remember(stage, days=1, per_day="0.1", until_ms=world.clock.now_ms() - HOUR_MS)
    if before is not None:
        stage.store.say("default", Note.RAILS, before, 1)
    if waits:
        assert (await stage.step()).why == Why.RAIL_CHANGED
        assert stage.payments() == 0
        stage.store.say("default", Note.RAILS, "coinbase", 2)  # as `topup resume` does
    assert (await stage.until(State.DONE)).why == Why.BELOW_FLOOR
    assert stage.store.control("default").rails == (None if before is None else "coinbase")


async def test_an_amount_asked_for_passes_the_breaker_to_its_end(world: World, stage: Stage) -> None:
    """A person who asks for an amount gets it, although the account runs away, and nothing after it."""
    remember(stage, days=9, per_day="0.1", until_ms=world.clock.now_ms() - HOUR_MS)
    done = await stage.until(State.DONE, asked=PurchaseOrder(Usd.of(10)))
    assert done.why == "asked"
    world.do(lambda: world.gateway.account.set_usage(Decimal(25)))
    world.clock.leap(HOUR_MS)
    assert (await stage.step()).why == "runaway"
    assert stage.payments() == 1


async def test_a_runaway_holds_a_top_up_that_is_not_signed_yet(world: World, stage: Stage) -> None:
    """Decided while all was usual, its charge still unanswered when the consumer runs away: nothing is signed."""
    now = world.clock.now_ms()
    remember(stage, days=9, per_day="1.05", until_ms=now)
    world.do(lambda: world.gateway.switch_on("coinbase", "answer-lost"))
    await stage.step()
    assert stage.topup.state is State.DECIDED
    world.do(lambda: world.gateway.account.set_usage(Decimal(60)))
    world.do(lambda: world.gateway.switch_off("coinbase"))
    world.clock.leap(600_000)
    rest = await stage.rests("runaway", passes=5)
    assert rest.topup is not None
    assert not rest.topup.attempts
    stage.pause("0")
    await stage.until(State.DONE)


# -- a story of lost answers ------------------------------------------------------------------------------------


async def test_lost_answers_are_asked_again_ever_more_slowly(world: World, start: Start) -> None:
    """Each answer is lost, over two hours and a restart: requests come 10 s apart, then 20 up to 300, ten in an hour.

    An unanswered request is no failure of the top-up, so that neither back-off nor the stop after failures counts it;
    this spacing and the hourly bound are what keeps a broken gateway from being asked without end.
    """
    stage = start()
    world.do(lambda: world.gateway.switch_on("coinbase", "answer-lost"))
    began = world.clock.now_ms()
    restarted = False
    while world.clock.now_ms() < began + 2 * HOUR_MS:
        rest = await stage.works.cycle.run()
        world.clock.leap(rest.next_s * SECOND_MS)
        if not restarted and world.clock.now_ms() > began + HOUR_MS // 4:
            restarted = True
            await stage.close()
            stage = start()
    times = stage.store.charge_requests("default", 0)
    waits = [(b - a) // SECOND_MS for a, b in pairwise(times)]
    assert all(wait >= min(10 * 2**n, 300) for n, wait in enumerate(waits))
    assert max(sum(1 for t in times if at <= t < at + HOUR_MS) for at in times) == 10
    assert len(times) >= 15, "it never gives up either"
    assert len(stage.store.latest("default", 5)) == 1
    assert stage.payments() == 0
