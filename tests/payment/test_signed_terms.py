"""Does what was signed rule, whatever the settings or a proof said later? Authorizations that somebody else carries."""

import asyncio
import copy
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.world.stage import Shifted, Silence, Stage, Start, low, spent_in_books, two
from topup.accounting.journal import Commodity
from topup.app.connections import Connections
from topup.app.settings import load
from topup.commands.wish import Once
from topup.domain.lifecycle import Fact, State
from topup.domain.money import Usd
from topup.ledger.location import FILE
from topup.payment.config import PurchaseOrder
from topup.payment.cycle import Cycle
from topup.ports.account import Clock
from topup.ports.ledger import Wish
from topup.sandbox import contracts
from topup.sandbox.world import BLOCK_S, World
from topup.sandbox.x402 import selling
from topup.sandbox.x402_seller import RECIPIENT, X402Conduct
from topup.sellers.x402 import X402

TEN: Final = 10_000_000
# How long what a lost ledger may have signed is waited for, and how long it may live.
WAITING: Final = {"TOPUP_RAILS__YOUNG_S": "1200", "TOPUP_RAILS__X402__LIFE_MAX_S": "900"}
# Looks so often that the clock leaps over no end of an authorization.
OFTEN: Final = {"TOPUP_WATCH__POLL_SLOWEST_S": "60", "TOPUP_WATCH__POLL_FASTEST_S": "60"}


def seller(world: World) -> Any:
    """Return who sells in this world."""
    return world.gateway


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose seller speaks x402 as Venice does, and whose account is below its floor."""
    conduct = X402Conduct(posting_delay_ms=10_000, late_ms=600_000)
    terms = {"burn_usd_per_hour": Decimal(0), "settings": lambda world: seller(world).environment()}
    with low(make_gateway=selling("venice", conduct=conduct), **terms) as world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 10 * TEN)))
        yield world


def spoils(world: World, how: str, times: int | None = None, *, late_ms: int = 60_000) -> None:
    """Let the seller deal so with payments; what it settles late it keeps back for so long."""

    def act() -> None:
        seller(world).conduct.settles_late_ms = late_ms
        seller(world).switch_on("payment", how, times)

    world.do(act)


async def lives(stage: Stage, seconds: int) -> None:
    """Make passes for so long, while the seller looks at the chain."""
    end_ms = stage.world.clock.now_ms() + seconds * 1000
    while stage.world.clock.now_ms() < end_ms:
        await stage.step()
        stage.inside(seller(stage.world).poll)


def copied(state: Path, copy: str) -> None:
    """Copy a ledger that is in use, as a backup does, to a folder of this name beside it."""
    place = state.with_name(copy)
    place.mkdir()
    with closing(sqlite3.connect(state / FILE)) as source, closing(sqlite3.connect(place / FILE)) as to:
        source.backup(to)


async def copied_after(stage: Stage, seconds: int, copy: str) -> None:
    """Watch for so long and copy the ledger; then buying goes on.

    It is paused meanwhile, so that the copy has readings without a gap and no top-up past its decision.
    """
    stage.pause()
    await stage.step()
    await lives(stage, seconds)
    copied(stage.directory, copy)
    stage.pause("0")


def left_the_wallet(world: World) -> int:
    """Return what the chain says has left the wallet, in units of USDC."""
    return 10 * TEN - int(world.do(lambda: world.usdc(world.wallet)))


def left(stage: Stage) -> int:
    """Return what the books say has left the wallet, in units of USDC."""
    return spent_in_books(stage.store)[Commodity.USDC]


async def test_a_shorter_life_in_the_settings_shortens_nothing_that_is_signed(world: World, start: Start) -> None:
    """Restarted with another `life_max_s`, the charge has the deadline that its signature has."""
    stage = start({"TOPUP_RAILS__X402__LIFE_MAX_S": "900"})
    spoils(world, "settles-late", late_ms=600_000)
    attempt = (await stage.until(State.SENT)).out[0]
    await stage.close()
    stage = start({"TOPUP_RAILS__X402__LIFE_MAX_S": "120", "TOPUP_RAILS__X402__PROFILE": "plain"})
    demand = stage.works.rail("x402").read(stage.topup.raw_of(attempt))
    assert demand.deadline == attempt.plan.ends_s
    assert demand.total.units == TEN


async def test_another_seller_in_the_settings_is_sent_nothing(world: World, start: Start) -> None:
    """What was signed for one seller does not go to the next one that `api.url` names."""
    stage = start()
    spoils(world, "never-settles")
    attempt = (await stage.until(State.SENT)).out[0]
    await stage.close()
    stage = start({"TOPUP_API__URL": world.rpc.url})
    sent = await stage.works.rail("x402").send(stage.topup, attempt)
    assert (sent.delivery.value, sent.detail[:8]) == ("unclear", "not sent")


async def test_what_is_used_after_it_was_proven_dead_is_booked_and_pauses(world: World, start: Start) -> None:
    """Should a proof of death ever be false, both payments are in the books, and nothing more is bought."""
    stage = start()
    spoils(world, "settles-late", 1)
    topup = await stage.until(State.SENT)
    topup = stage.store.move(topup, Fact.EXPIRED, world.clock.now_ms(), "as a liar would have it")
    stage.store.move(topup, Fact.PROVEN_DEAD, world.clock.now_ms(), "as two liars would have it")
    for _ in range(40):
        await stage.step()
        stage.inside(seller(world).poll)
        if stage.named("paid_after_all") and left(stage) == 2 * TEN:
            break
    assert stage.inside(lambda: world.usdc(RECIPIENT)) == 2 * TEN
    assert left(stage) == 2 * TEN
    (event,) = stage.named("paid_after_all")
    assert (event.asset, event.spent_units.units) == ("USDC", TEN)
    assert stage.store.control("default").paused


async def test_an_unused_authorization_is_looked_for_a_day_past_its_end(world: World, start: Start) -> None:
    """A day after it ended, by a final block, it is looked for no more; before that it is."""
    stage = start(two(world) | {"TOPUP_RAILS__X402__LIFE_MAX_S": "120"})
    spoils(world, "never-settles")
    for _ in range(200):
        await stage.step()
        if stage.named("charge_dead"):
            break
    stage.inside(seller(world).switch_off)
    topup = await stage.until(State.DONE)
    assert [a.inclusion is not None for a in topup.out] == [False, True]
    unused = topup.out[0].id
    assert unused in [a.id for _, a in stage.store.afterwards("default", topup.wallet)]
    world.clock.leap(90_000_000)
    for _ in range(40):
        world.clock.leap(60_000)
        stage.mine()
    await stage.step()
    assert unused not in [a.id for _, a in stage.store.afterwards("default", topup.wallet)]


class Looked(Shifted):
    """The world's clock for one to whom every look at it takes a moment."""

    def monotonic_ms(self) -> int:
        """Return time, which has gone on."""
        self._world.clock.leap(1)
        return super().monotonic_ms()


async def test_a_new_ledger_waits_until_what_a_lost_one_signed_has_ended(world: World, start: Start) -> None:
    """An authorization leaves no trace before it is used: a ledger that has just begun to watch buys nothing yet."""
    stage = start({"TOPUP_RAILS__YOUNG_S": "600"}, clock=Looked(world, 0))
    rest = await stage.rests("young_ledger")
    assert 0 < rest.next_s <= 600
    assert not stage.topup.charges
    await stage.until(State.SENT, State.PAID, State.DONE, passes=200)
    assert stage.topup.charges[0].requested_ms >= stage.topup.decided_ms + 500_000


@pytest.mark.parametrize("age_s", [0, 600, 1500])
async def test_a_copy_that_was_put_back_waits_as_well(world: World, start: Start, age_s: int) -> None:
    """However young the copy: what the lost ledger signed is used and posted before anything else is signed."""
    lost = start(WAITING, ledger="lost")
    await copied_after(lost, 4000, "copy")
    await world.clock.sleep(age_s)
    spoils(world, "settles-late", 1, late_ms=120_000)
    await lost.until(State.SENT, passes=200)
    await lost.close()
    back = start(OFTEN | WAITING, ledger="copy")
    back.pause("0")
    before = left_the_wallet(world)
    await back.rests("young_ledger")
    assert before == left_the_wallet(world) == 0
    await lives(back, 3000)
    assert left_the_wallet(world) == TEN
    assert back.topup.state is State.DROPPED


async def test_a_charge_in_a_copy_that_was_put_back_is_not_signed_for(world: World, start: Start) -> None:
    """The copy holds a charge and no signature: the lost ledger may have signed, so this one lets it grow too old."""
    world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 0)))
    lost = start(WAITING, ledger="lost")
    await lost.until(State.CHARGED, asked=PurchaseOrder(forced=True))
    await lost.rests("simulation")
    await lost.close()
    world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 10 * TEN)))
    copied(lost.directory, "copy")
    back = start(WAITING, ledger="copy")
    await back.rests("young_ledger", passes=1)
    assert back.topup.state is State.CHARGED
    assert not back.topup.attempts


class PutBack(Shifted):
    """The world's clock on a machine that was put back by `lost_ms`; its own clock is `by_ms` off."""

    lost_ms = 0

    def monotonic_ms(self) -> int:
        """Return how long this machine has run, as far as it knows."""
        return super().monotonic_ms() - self.lost_ms


class Unhurried(PutBack):
    """The same for a command, whose own time limit is a sleep beside its work: it comes as that work takes time."""

    async def sleep(self, seconds: float) -> None:
        """Sleep as the world does, but through a time limit only as long as others do."""
        if seconds <= BLOCK_S:
            await super().sleep(seconds)
        until = self.monotonic_ms() + seconds * 1000
        while seconds > BLOCK_S and self.monotonic_ms() < until:  # noqa: ASYNC110 - the world's clock sets no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("set_again", [True, False], ids=["its clock is set again", "its clock is put back as well"])
async def test_a_machine_that_is_put_back_with_its_memory_pays_once(
    world: World, start: Start, *, set_again: bool
) -> None:
    """Disk and memory return to a moment before the signature: what the lost time may have signed is waited out."""
    clock = PutBack(world, 0)
    first = start(OFTEN | WAITING, clock=clock, ledger="first")
    await copied_after(first, 4000, "second")
    memory, taken_ms = copy.deepcopy(state_of(first.works.cycle)), world.clock.now_ms()
    spoils(world, "settles-late", 1, late_ms=120_000)
    await first.until(State.SENT, passes=200)
    assert first.topup.charges[0].requested_ms - taken_ms < 300_000  # it was not young
    await first.close()

    clock.lost_ms = world.clock.now_ms() + 200_000 - taken_ms
    clock.by_ms = 0 if set_again else -clock.lost_ms
    world.clock.leap(200_000)
    first.mine()  # the chain has gone on without this machine
    second = start(OFTEN | WAITING, clock=clock, ledger="second")
    vars(second.works.cycle._clock).update(memory)
    second.pause("0")
    await lives(second, 1000)
    # The token would take the same authorization once only; but nothing is signed before the time is over.
    assert not any(topup.out for topup in second.store.latest("default", 1))
    await lives(second, 2000)
    assert left_the_wallet(world) == TEN
    (said,) = second.named("time_not_lived")
    assert said.clock == ("machine" if set_again else "chain")
    assert said.leapt_s >= 200


async def test_a_machine_that_is_put_back_with_no_time_lost_pays_once(world: World, start: Start) -> None:
    """No clock tells of it: the copy signs again, for the same purchase, of which the token takes one authorization."""
    first = start(ledger="first")
    await copied_after(first, 0, "second")
    spoils(world, "settles-late", 1, late_ms=400_000)
    await first.until(State.SENT, passes=200)
    name, signed = first.topup.id, first.topup.out[0].hash
    await first.close()
    second = start(ledger="second")
    second.pause("0")
    await second.until(State.DONE, passes=200)
    assert (second.topup.id, second.topup.out[0].hash) == (name, signed)
    world.clock.leap(400_000)  # by now the seller has tried to carry what the first life signed
    for _ in range(10):
        await second.step()
        second.inside(seller(world).poll)
    assert left_the_wallet(world) == TEN


async def test_a_copy_that_lacks_many_purchases_waits_and_goes_on_buying(world: World, start: Start) -> None:
    """The lost ledger has used the names of six top-ups: the copy waits, takes another for each, and stops at none."""
    usage = Decimal("10.5")

    async def buy(stage: Stage) -> None:
        nonlocal usage
        paid, end_ms = left_the_wallet(world) + TEN, world.clock.now_ms() + 4 * 3_600_000
        while world.clock.now_ms() < end_ms and (left_the_wallet(world) < paid or stage.topup.state != State.DONE):
            await stage.step()
            stage.inside(seller(world).poll)
        assert left_the_wallet(world) == paid
        usage += 10
        world.do(lambda: world.gateway.account.set_usage(usage))
        world.clock.leap(3_600_000)
        stage.mine()

    lost = start(ledger="lost")
    await copied_after(lost, 0, "copy")
    for _ in range(6):
        await buy(lost)
    await lost.close()
    back = start(WAITING, ledger="copy")
    back.pause("0")
    for _ in range(4):
        await buy(back)
    assert [said.clock for said in back.named("time_not_lived")] == ["ledger"] * 4
    assert back.named("top_up_dropped") == []


def state_of(cycle: Cycle) -> dict[str, Any]:
    """Return what a process remembers of its own time."""
    kept = vars(cycle._clock)
    return {name: kept[name] for name in ("_anchor", "_began", "_lived", "_behind")}


def commanded(world: World, directory: Path, clock: Clock, timeout_s: int) -> Once:
    """Return the command that wishes for ten dollars, as it begins."""
    place = {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"}
    settings = load(world.environment() | place | WAITING)
    wish = Wish(Usd.of(10), forced=False, name=None, uid=0)
    return Once(settings, wish, timeout_s=timeout_s, clock=clock, sink=Silence(), warn=lambda _: None, agreed=True)


async def test_a_command_that_is_put_back_with_its_memory_buys_its_wish_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns to the moment before it signed: the wish is older than the time that was lost, so nobody vouches.

    Nor does whoever repeats the command, a process that lost no time itself.
    """
    cycles: list[Cycle] = []
    memory: list[dict[str, Any]] = []
    taken_ms: list[int] = []
    built, sign = Connections.cycle_within, X402.sign

    def assembled(*given: Any) -> Any:
        cycles.append(built(*given))
        if len(cycles) == 2:  # the process that goes on from the copy
            vars(cycles[-1]._clock).update(memory[0])
        return cycles[-1]

    def signed(*given: Any) -> Any:
        if not taken_ms:
            copied(tmp_path / "first", "second")
            memory.append(copy.deepcopy(state_of(cycles[0])))
            taken_ms.append(world.clock.now_ms())
        return sign(*given)

    monkeypatch.setattr(Connections, "cycle_within", assembled)
    monkeypatch.setattr(X402, "sign", signed)
    spoils(world, "settles-late", 1, late_ms=120_000)
    clock = Unhurried(world, 0)
    first = await commanded(world, tmp_path / "first", clock, 30).run()
    assert (first.code, first.topup and first.topup.state) == (5, State.SENT)

    clock.lost_ms = world.clock.now_ms() + 130_000 - taken_ms[0]
    world.clock.leap(130_000)
    for _ in range(2):
        again = await commanded(world, tmp_path / "second", clock, 600).run()
        assert (again.code, again.why) == (3, "young_ledger")
        assert "time has gone by that no process lived through" in again.detail
    for _ in range(30):
        world.clock.leap(60_000)
        world.do(seller(world).poll)
        world.do(lambda: world.chain.mine(world.clock.now_s()))
    assert left_the_wallet(world) == TEN


async def test_a_person_who_asks_need_not_wait(start: Start) -> None:
    """`topup now` buys with a new ledger: whoever says it answers for what was before."""
    stage = start({"TOPUP_RAILS__YOUNG_S": "600"})
    topup = await stage.until(State.SENT, State.PAID, State.DONE, asked=PurchaseOrder(forced=True), passes=20)
    assert len(topup.charges) == 1


async def test_a_seller_that_carries_nothing_is_asked_less_and_less_often(world: World, start: Start) -> None:
    """The same header goes out again after ten, twenty, forty seconds and so on: no seller is pressed."""
    stage = start()
    spoils(world, "never-settles")
    await stage.until(State.SENT)
    begun_ms = world.clock.now_ms()
    while world.clock.now_ms() < begun_ms + 200_000 and stage.topup.state is State.SENT:
        await stage.step()
    assert 4 <= stage.topup.out[0].sends <= 6
