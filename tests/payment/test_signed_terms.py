"""Does what was signed rule, whatever the settings or a proof said later? Authorizations that somebody else carries."""

from __future__ import annotations

import asyncio
import copy
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.world.stage import Shifted, Silence, Stage, low
from topup.accounting.journal import WALLET, Commodity
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

TEN = 10_000_000


def seller(world: World) -> Any:
    """Return who sells in this world."""
    return world.gateway


@contextmanager
def selling_late(settles_late_ms: int = 60_000) -> Iterator[World]:
    """A world whose seller speaks x402 as Venice does, and whose account is below its floor."""
    conduct = X402Conduct(posting_delay_ms=10_000, late_ms=600_000, settles_late_ms=settles_late_ms)
    with low(make_gateway=selling("venice", conduct=conduct), burn_usd_per_hour=Decimal(0)) as world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 10 * TEN)))
        yield world


def staged(world: World, directory: Path, clock: Clock | None = None, /, **settings: str) -> Stage:
    """The account with its ledger, under these settings."""
    own = {f"TOPUP_{name.upper()}": value for name, value in settings.items()}
    return Stage(world, directory, clock or world.clock, seller(world).environment() | own)


def copied(state: Path, place: Path) -> None:
    """Copy a ledger that is in use, as a backup does."""
    place.mkdir()
    with closing(sqlite3.connect(state / FILE)) as source, closing(sqlite3.connect(place / FILE)) as to:
        source.backup(to)


def left_the_wallet(world: World) -> int:
    """Return what the chain says has left the wallet, in units of USDC."""
    return 10 * TEN - int(world.do(lambda: world.usdc(world.wallet)))


def left(stage: Stage) -> int:
    """Return what the books say has left the wallet, in units of USDC."""
    lines = [x for e in stage.store.entries("default") for x in e.lines]
    return -sum(x.units for x in lines if (x.account, x.commodity) == (WALLET, Commodity.USDC))


async def test_a_shorter_life_in_the_settings_shortens_nothing_that_is_signed(tmp_path: Path) -> None:
    """Restarted with another `life_max_s`, the charge has the deadline that its signature has."""
    with selling_late(settles_late_ms=600_000) as world:
        stage = staged(world, tmp_path, rails__x402__life_max_s="900")
        stage.inside(lambda: seller(world).switch_on("payment", "settles-late", None))
        attempt = (await stage.until(State.SENT)).out[0]
        await stage.close()
        stage = staged(world, tmp_path, rails__x402__life_max_s="120", rails__x402__profile="plain")
        demand = stage.works.rail("x402").read(stage.topup.raw_of(attempt))
        assert demand.deadline == attempt.plan.ends_s
        assert demand.total.units == TEN
        await stage.close()


async def test_another_seller_in_the_settings_is_sent_nothing(tmp_path: Path) -> None:
    """What was signed for one seller does not go to the next one that `api.url` names."""
    with selling_late() as world:
        stage = staged(world, tmp_path)
        stage.inside(lambda: seller(world).switch_on("payment", "never-settles", None))
        attempt = (await stage.until(State.SENT)).out[0]
        await stage.close()
        stage = staged(world, tmp_path, api__url=world.rpc.url)
        rail = stage.works.rail("x402")
        sent = await rail.send(stage.topup, attempt)
        assert (sent.delivery.value, sent.detail[:8]) == ("unclear", "not sent")
        await stage.close()


async def test_what_is_used_after_it_was_proven_dead_is_booked_and_pauses(tmp_path: Path) -> None:
    """Should a proof of death ever be false, both payments are in the books, and nothing more is bought."""
    with selling_late(settles_late_ms=60_000) as world:
        stage = staged(world, tmp_path)
        stage.inside(lambda: seller(world).switch_on("payment", "settles-late", 1))
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
        await stage.close()


async def test_an_unused_authorization_is_looked_for_a_day_past_its_end(tmp_path: Path) -> None:
    """A day after it ended, by a final block, it is looked for no more; before that it is."""
    with selling_late() as world:
        second = world.provider().url
        stage = staged(world, tmp_path, chain__rpc_urls=f"{world.rpc.url},{second}", rails__x402__life_max_s="120")
        stage.inside(lambda: seller(world).switch_on("payment", "never-settles", None))
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
            stage.inside(lambda: world.chain.mine(world.clock.now_s()))
        await stage.step()
        assert unused not in [a.id for _, a in stage.store.afterwards("default", topup.wallet)]
        await stage.close()


class Looked(Shifted):
    """The world's clock for one to whom every look at it takes a moment."""

    def __init__(self, world: World) -> None:
        """Begin as the world's clock."""
        super().__init__(world, 0)

    def monotonic_ms(self) -> int:
        """Return time, which has gone on."""
        self._world.clock.leap(1)
        return super().monotonic_ms()


async def test_a_new_ledger_waits_until_what_a_lost_one_signed_has_ended(tmp_path: Path) -> None:
    """An authorization leaves no trace before it is used: a ledger that has just begun to watch buys nothing yet."""
    with selling_late() as world:
        stage = staged(world, tmp_path, Looked(world), rails__young_s="600")
        rest = await stage.rests("young_ledger")
        assert 0 < rest.next_s <= 600
        assert not stage.topup.charges
        await stage.until(State.SENT, State.PAID, State.DONE, passes=200)
        assert stage.topup.charges[0].requested_ms >= stage.topup.decided_ms + 500_000
        await stage.close()


@pytest.mark.parametrize("age_s", [0, 600, 1500])
async def test_a_copy_that_was_put_back_waits_as_well(tmp_path: Path, age_s: int) -> None:
    """However young the copy: what the lost ledger signed is used and posted before anything else is signed."""
    with selling_late(settles_late_ms=120_000) as world:
        terms = {"rails__young_s": "1200", "rails__x402__life_max_s": "900"}
        lost = staged(world, tmp_path / "lost", **terms)
        lost.store.say("default", "paused", "1", world.clock.now_ms(), "a test")
        end_ms = world.clock.now_ms() + 4_000_000
        while world.clock.now_ms() < end_ms:
            await lost.step()
        # Paused while it watched, so that the copy has readings without a gap and no top-up past its decision.
        copied(tmp_path / "lost", tmp_path / "copy")
        lost.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        await world.clock.sleep(age_s)
        lost.inside(lambda: seller(world).switch_on("payment", "settles-late", 1))
        await lost.until(State.SENT, passes=200)
        await lost.close()

        # It looks often, so that the clock leaps over no end of an authorization.
        back = staged(world, tmp_path / "copy", watch__poll_slowest_s="60", watch__poll_fastest_s="60", **terms)
        back.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        before = left_the_wallet(world)
        await back.rests("young_ledger")
        assert before == left_the_wallet(world) == 0
        end_ms = world.clock.now_ms() + 3_000_000
        while world.clock.now_ms() < end_ms:
            await back.step()
            back.inside(seller(world).poll)
        assert left_the_wallet(world) == TEN
        assert back.topup.state is State.DROPPED
        await back.close()


async def test_a_charge_in_a_copy_that_was_put_back_is_not_signed_for(tmp_path: Path) -> None:
    """The copy holds a charge and no signature: the lost ledger may have signed, so this one lets it grow too old."""
    with selling_late() as world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 0)))
        lost = staged(world, tmp_path / "lost", rails__young_s="1200")
        await lost.until(State.CHARGED, asked=PurchaseOrder(forced=True))
        await lost.rests("simulation")
        await lost.close()
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 10 * TEN)))
        copied(tmp_path / "lost", tmp_path / "copy")
        back = staged(world, tmp_path / "copy", rails__young_s="1200")
        await back.rests("young_ledger", passes=1)
        assert back.topup.state is State.CHARGED
        assert not back.topup.attempts
        await back.close()


class PutBack:
    """The world's clock on a machine that was put back by `lost_ms`, and its own clock by `wall_lost_ms`."""

    def __init__(self, world: World) -> None:
        """Begin as the world's clock."""
        self._world, self.lost_ms, self.wall_lost_ms = world, 0, 0

    def now_ms(self) -> int:
        """Return this machine's time."""
        return self._world.clock.now_ms() - self.wall_lost_ms

    def monotonic_ms(self) -> int:
        """Return how long this machine has run, as far as it knows."""
        return self._world.clock.now_ms() - self.lost_ms

    async def sleep(self, seconds: float) -> None:
        """Sleep as the world does."""
        await self._world.clock.sleep(seconds)


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
async def test_a_machine_that_is_put_back_with_its_memory_pays_once(tmp_path: Path, *, set_again: bool) -> None:
    """Disk and memory return to a moment before the signature: what the lost time may have signed is waited out."""
    with selling_late(settles_late_ms=120_000) as world:
        often = {"watch__poll_slowest_s": "60", "watch__poll_fastest_s": "60"}
        terms = {"rails__young_s": "1200", "rails__x402__life_max_s": "900", **often}
        clock = PutBack(world)
        first = staged(world, tmp_path / "first", clock, **terms)
        first.store.say("default", "paused", "1", world.clock.now_ms(), "a test")
        end_ms = world.clock.now_ms() + 4_000_000
        while world.clock.now_ms() < end_ms:
            await first.step()
        copied(tmp_path / "first", tmp_path / "second")
        memory, taken_ms = copy.deepcopy(state_of(first.works.cycle)), world.clock.now_ms()
        first.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        first.inside(lambda: seller(world).switch_on("payment", "settles-late", 1))
        await first.until(State.SENT, passes=200)
        assert first.topup.charges[0].requested_ms - taken_ms < 300_000  # it was not young
        await first.close()

        clock.lost_ms = world.clock.now_ms() + 200_000 - taken_ms
        clock.wall_lost_ms = 0 if set_again else clock.lost_ms
        world.clock.leap(200_000)
        world.do(lambda: world.chain.mine(world.clock.now_s()))  # the chain has gone on without this machine
        second = staged(world, tmp_path / "second", clock, **terms)
        vars(second.works.cycle._clock).update(memory)
        second.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        end_ms, woken_ms = world.clock.now_ms() + 3_000_000, clock.monotonic_ms()
        signed_ms: list[int] = []
        while world.clock.now_ms() < end_ms:
            await second.step()
            second.inside(seller(world).poll)
            if not signed_ms and any(topup.out for topup in second.store.latest("default", 1)):
                signed_ms.append(clock.monotonic_ms())
        assert left_the_wallet(world) == TEN
        # The token would take the same authorization once only; but nothing is signed before the time is over.
        assert all(at_ms - woken_ms > 1_000_000 for at_ms in signed_ms)
        (said,) = second.named("time_not_lived")
        assert said.clock == ("machine" if set_again else "chain")
        assert said.leapt_s >= 200
        await second.close()


async def test_a_machine_that_is_put_back_with_no_time_lost_pays_once(tmp_path: Path) -> None:
    """No clock tells of it: the copy signs again, for the same purchase, of which the token takes one authorization."""
    with selling_late(settles_late_ms=400_000) as world:
        first = staged(world, tmp_path / "first", rails__young_s="0")
        first.store.say("default", "paused", "1", world.clock.now_ms(), "a test")
        await first.step()
        copied(tmp_path / "first", tmp_path / "second")
        first.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        first.inside(lambda: seller(world).switch_on("payment", "settles-late", 1))
        await first.until(State.SENT, passes=200)
        name, signed = first.topup.id, first.topup.out[0].hash
        await first.close()
        second = staged(world, tmp_path / "second", rails__young_s="0")
        second.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        await second.until(State.DONE, passes=200)
        assert (second.topup.id, second.topup.out[0].hash) == (name, signed)
        world.clock.leap(400_000)  # by now the seller has tried to carry what the first life signed
        for _ in range(10):
            await second.step()
            second.inside(seller(world).poll)
        assert left_the_wallet(world) == TEN
        await second.close()


async def test_a_copy_that_lacks_many_purchases_waits_and_goes_on_buying(tmp_path: Path) -> None:
    """The lost ledger has used the names of six top-ups: the copy waits, takes another for each, and stops at none."""
    with selling_late() as world:
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
            world.do(lambda: world.chain.mine(world.clock.now_s()))

        lost = staged(world, tmp_path / "lost", rails__young_s="0")
        lost.store.pause("default", world.clock.now_ms())
        await lost.step()
        copied(tmp_path / "lost", tmp_path / "copy")
        lost.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        for _ in range(6):
            await buy(lost)
        await lost.close()
        copy = staged(world, tmp_path / "copy", rails__young_s="1200", rails__x402__life_max_s="900")
        copy.store.say("default", "paused", "0", world.clock.now_ms(), "a test")
        for _ in range(4):
            await buy(copy)
        assert [said.clock for said in copy.named("time_not_lived")] == ["ledger"] * 4
        assert copy.named("top_up_dropped") == []
        await copy.close()


def state_of(cycle: Cycle) -> dict[str, Any]:
    """Return what a process remembers of its own time."""
    kept = vars(cycle._clock)
    return {name: kept[name] for name in ("_anchor", "_began", "_lived", "_behind")}


def commanded(world: World, directory: Path, clock: Clock, timeout_s: int) -> Once:
    """Return the command that wishes for ten dollars, as it begins."""
    own = {"TOPUP_RAILS__YOUNG_S": "1200", "TOPUP_RAILS__X402__LIFE_MAX_S": "900"}
    place = {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"}
    settings = load(world.environment() | seller(world).environment() | place | own)
    wish = Wish(Usd.of(10), forced=False, name=None, uid=0)
    return Once(settings, wish, timeout_s=timeout_s, clock=clock, sink=Silence(), warn=lambda _: None, agreed=True)


async def test_a_command_that_is_put_back_with_its_memory_buys_its_wish_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    with selling_late(settles_late_ms=120_000) as world:
        clock = Unhurried(world)

        def signed(*given: Any) -> Any:
            if not taken_ms:
                copied(tmp_path / "first", tmp_path / "second")
                memory.append(copy.deepcopy(state_of(cycles[0])))
                taken_ms.append(world.clock.now_ms())
            return sign(*given)

        monkeypatch.setattr(Connections, "cycle_within", assembled)
        monkeypatch.setattr(X402, "sign", signed)
        world.do(lambda: seller(world).switch_on("payment", "settles-late", 1))
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


async def test_a_person_who_asks_need_not_wait(tmp_path: Path) -> None:
    """`topup now` buys with a new ledger: whoever says it answers for what was before."""
    with selling_late() as world:
        stage = staged(world, tmp_path, rails__young_s="600")
        topup = await stage.until(State.SENT, State.PAID, State.DONE, asked=PurchaseOrder(forced=True), passes=20)
        assert len(topup.charges) == 1
        await stage.close()


async def test_a_seller_that_carries_nothing_is_asked_less_and_less_often(tmp_path: Path) -> None:
    """The same header goes out again after ten, twenty, forty seconds and so on: no seller is pressed."""
    with selling_late() as world:
        stage = staged(world, tmp_path)
        stage.inside(lambda: seller(world).switch_on("payment", "never-settles", None))
        await stage.until(State.SENT)
        begun_ms = world.clock.now_ms()
        while world.clock.now_ms() < begun_ms + 200_000 and stage.topup.state is State.SENT:
            await stage.step()
        assert 4 <= stage.topup.out[0].sends <= 6
        await stage.close()
