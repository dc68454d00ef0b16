"""How is one row of a seller's faults run and judged, whichever rail it is for?

A row goes through the real flow: the switches on, passes until the row's result, the switches off, passes until
the account is full again. After each half the chain is held against the row and the journal against the chain.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.world.proxy import Proxy
from tests.world.stage import Stage, moves
from topup.accounting.journal import CREDITS, IN_TRANSIT, WALLET, Commodity
from topup.domain.lifecycle import TERMINAL, Kind, State
from topup.payment.config import PassResult
from topup.sandbox import contracts
from topup.sandbox.fault import Fault
from topup.sandbox.world import World

TEN: Final = 10_000_000
FLOOR_USD: Final = 10
HOUR_MS: Final = 3_600_000
# Passes in which a row that waits has to show that it goes on waiting.
PATIENCE: Final = 8
# Rows are judged pass by pass: what holds back the next purchase is leapt over, and no death of old age interferes.
PACE: Final = {
    "TOPUP_POLICY__COOLDOWN_S": "60",
    "TOPUP_POLICY__BACKOFF_S": "60",
    "TOPUP_POLICY__CHARGES_PER_HOUR": "1000",
    "TOPUP_POLICY__BURN_FACTOR_MAX": "0",
}
# Deeper than the final block of the embedded chain, and of anvil.
FINAL_BLOCKS: Final = 8
# Seconds of the machine: who hangs is given up soon, and who answers is waited for, however slow the machine is.
HANGS: Final = frozenset({"time-out", "trickle"})
SOON_S: Final = 1
PATIENCE_S: Final = 30


def buried(world: World) -> None:
    """Make every block of the embedded chain final that there is; called inside the world."""
    for _ in range(FINAL_BLOCKS):
        world.clock.leap(2_000)
        world.chain.mine(world.clock.now_s())


@dataclass(frozen=True)
class Ground:
    """What differs between rails.

    Attributes:
        rail: its name in the settings.
        settings: what its user sets; `two` adds a second provider.
        token, commodity: what is paid with, on the chain and in the books.
        fees_to: where the network takes its fee in the token, in lower case; "" where it takes none.
        recipient: the only one who may be paid, and by default what one payment moves: ten dollars to him.
        through, parts: the contract that takes a payment and passes it on, and what moves in all: to whom, how much.
        bury: mine so many blocks that all before them are final; called inside the world.
        asked, paid: how many purchase requests the seller has had, and how many of them with a credential.
        credit: let what was paid for be credited, by whatever way is left; called inside the world.
        expiry_ms: past the deadline of whatever was signed.
        mend: undo what a row did to the chain's contracts; called inside the world.
        wire: the one provider's wire, where there is one.
    """

    world: World
    rail: str
    settings: Callable[[bool], dict[str, str]]
    recipient: str
    asked: Callable[[], int]
    paid: Callable[[], int]
    credit: Callable[[], object]
    token: str = contracts.USDC
    commodity: Commodity = Commodity.USDC
    fees_to: str = ""
    bury: Callable[[World], object] = buried
    expiry_ms: int = 400_000
    through: str = ""
    parts: tuple[tuple[str, int], ...] = ()
    mend: Callable[[], object] = lambda: None
    wire: Proxy | None = None

    @property
    def payment(self) -> list[tuple[str, int]]:
        """Return what one payment moves, in the order of the chain; the first part is what the wallet gives."""
        return [(to.lower(), units) for to, units in self.parts or ((self.recipient, TEN),)]

    def moves(self) -> list[tuple[str, int]]:
        """Return every transfer of the token by the wallet and `through`, on the whole chain; the network's fees apart.

        To whom in lower case, and how many units.
        """
        senders = [sender for sender in (self.world.wallet, self.through) if sender]
        moved = self.world.do(lambda: moves(self.world, self.token, *senders))
        return [(to, units) for _, to, units in moved if to != self.fees_to]


@dataclass
class Play:
    """One ledger in a seller's world; `stage` is the program that runs now, `needs` how often the account ran low."""

    ground: Ground
    directory: Path
    fault: Fault | None = None
    two: bool = False
    stage: Stage = field(init=False)
    needs: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        """Start the program, and remember what the wallet holds."""
        self.world = self.ground.world
        self.seller: Any = self.world.gateway
        hangs = self.fault is not None and any(one.name in HANGS for one in self.fault.switches)
        seconds = str(SOON_S if hangs else PATIENCE_S)
        patience = {"TOPUP_API__TIMEOUT_S": seconds, "TOPUP_POSTING__PAY_TIMEOUT_S": seconds}
        self.own = PACE | patience | self.ground.settings(self.two)
        self.begin()
        self.tokens, self.wei = self.held(), self.world.do(lambda: self.world.balance(self.world.wallet))

    def begin(self) -> None:
        self.stage = Stage(self.world, self.directory, self.world.clock, self.own)

    async def step(self) -> PassResult:
        """Make one pass; let the time it asks for pass at once, and a block be made."""
        rest = await self.stage.works.cycle.run()
        self.pass_time(rest.next_s * 1000)
        return rest

    def pass_time(self, ms: int) -> None:
        """Let time pass, and the world take one step in it."""
        self.world.clock.leap(ms)

        def tick() -> None:
            if self.world.mining:
                self.world.chain.mine(self.world.clock.now_s())
                self.world.gateway.poll()

        self.world.do(tick)

    def bury(self) -> None:
        self.world.do(lambda: self.ground.bury(self.world))

    async def until(self, *states: State, after: str = "", passes: int = 60) -> None:
        """Make passes until a top-up other than `after` is in one of these states; blocks are buried as they come."""
        rest: PassResult | None = None
        for _ in range(passes):
            rest = await self.step()
            known = self.stage.store.latest("default", 1)
            if not known or known[0].id == after:
                continue
            if known[0].state in states:
                return
            unbooked = any(a.inclusion is not None and not a.booked for a in known[0].out)
            if unbooked or known[0].state is State.DEATHWATCH:
                self.bury()
        told = [f"{e.name()}: {e.shown()}" for e in self.stage.told if e.level not in ("debug", "info")][-4:]
        found = [f"{t.state} {t.reason}" for t in self.stage.store.latest("default", 2)]
        shown = (rest.outcome, rest.why, rest.detail) if rest is not None else ()
        raise AssertionError(f"never {states}: {found}, {shown}, {told}")

    async def waits(self, passes: int = PATIENCE) -> None:
        """Make passes that must end nothing."""
        for _ in range(passes):
            await self.step()
        assert self.stage.topup.state not in TERMINAL, self.stage.topup

    async def dies(self, doing: Coroutine[Any, Any, object], when: Callable[[], bool]) -> None:
        """Let the process do this until the world is so, let it die there, and start another."""
        running = asyncio.create_task(doing)
        while not self.world.do(when):
            assert not running.done(), running
            await asyncio.sleep(0.005)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await self.close()
        self.begin()

    def drain(self) -> None:
        """Let the account be used down to a dollar above nothing, and time pass until buying is allowed again."""
        account = self.seller.account
        self.needs += self.world.do(lambda: account.total_credits - account.total_usage >= FLOOR_USD)
        self.world.do(lambda: account.set_usage(account.total_credits - 1))
        self.pass_time(HOUR_MS)

    # -- what is judged -----------------------------------------------------------------------------------------

    def held(self) -> int:
        return self.world.do(lambda: self.world.tokens(self.ground.token, self.world.wallet))

    def booked(self, account: str, commodity: Commodity) -> int:
        return self.stage.in_books(account, commodity)

    def judge(self, payments: int) -> None:
        """So many payments have moved, each to the right one; the books say what the chain says, to the unit."""
        assert self.ground.moves() == self.ground.payment * payments
        assert self.seller.elsewhere.requests == []
        topups = self.stage.store.latest("default", 100)
        shown = [a for t in topups for a in t.out if a.inclusion is not None]
        assert sum(a.paid for a in shown) == payments
        spent = sum(a.inclusion.tokens.units + a.inclusion.token_fee.units for a in shown if a.inclusion is not None)
        assert self.tokens - self.held() == spent == -self.booked(WALLET, self.ground.commodity)
        wei = self.world.do(lambda: self.world.balance(self.world.wallet))
        assert self.wei - wei == -self.booked(WALLET, Commodity.ETH)
        done = sum(t.state is State.DONE for t in topups)
        assert self.booked(CREDITS, Commodity.CREDIT) == done * TEN
        assert self.booked(IN_TRANSIT, self.ground.commodity) == (payments - done) * self.ground.payment[0][1]

    async def close(self) -> None:
        await self.stage.close()


@asynccontextmanager
async def playing(
    ground: AbstractContextManager[Ground], directory: Path, fault: Fault | None = None, *, two: bool = False
) -> AsyncIterator[Play]:
    """Start the program on this ground, to live through this fault, and end it with it."""
    with ground as on:
        play = Play(on, directory, fault, two)
        try:
            yield play
        finally:
            await play.close()


def rows(faults: Iterable[Fault], few: Collection[str]) -> list[Any]:
    """Name each row, and leave all but a few to the long run."""
    return [pytest.param(f, id=f.name, marks=[] if f.name in few else [pytest.mark.long]) for f in faults]


@contextmanager
def spoilt(play: Play, fault: Fault) -> Iterator[None]:
    """The row's switches are on, and the chain is as it says."""
    for one in fault.switches:
        play.world.do(lambda one=one: play.seller.switch_on(one.place, one.name, one.times))  # type: ignore[misc]
    act = fault.on_world
    if act is not None:
        play.world.do(lambda: act(play.world))
    yield
    play.world.do(play.seller.switch_off)
    play.world.do(play.ground.mend)


async def run_row(play: Play, fault: Fault) -> None:
    """Run a row to its result and judge it; then, with the fault gone, until the account is full again."""
    spent = 1 if fault.expected_spent == "one" else 0
    with spoilt(play, fault):
        if fault.refills > 1:
            await play.until(State.DONE)
            play.drain()
        first = play.stage.topup.id if play.stage.store.latest("default", 1) else ""
        await RESULTS[fault.expected_result](play, first)
        play.judge(spent)
    await AFTERWARDS[fault.expected_result](play, spent)


async def _refilled(play: Play, after: str) -> None:
    await play.until(State.DONE, after=after)


async def _waiting(play: Play, after: str) -> None:
    await play.waits()
    assert play.stage.topup.state in (State.DECIDED, State.CHARGED, State.SENT), play.stage.topup.state
    assert all(a.inclusion is None or a.plan.kind is Kind.APPROVE for a in play.stage.topup.out)


async def _refused(play: Play, after: str) -> None:
    paid = play.ground.paid()
    await play.until(State.DROPPED, after=after)
    topup = play.stage.topup
    assert topup.reason in ("charge_refused", "charge_rejected")
    assert all(a.raw is None for a in topup.attempts)
    assert play.ground.paid() == paid


async def _gone(play: Play, after: str) -> None:
    await play.until(State.DROPPED, after=after)
    topup = play.stage.topup
    assert topup.reason == "endpoint_gone"
    assert topup.attempts == ()
    assert play.stage.store.control("default").gone == {play.ground.rail}
    assert len(play.stage.named("endpoint_gone")) == 1
    asked = play.ground.asked()
    play.drain()
    for _ in range(2):
        assert (await play.step()).why == "endpoint_gone"
    assert play.ground.asked() == asked


async def _uncredited(play: Play, after: str) -> None:
    await play.until(State.UNCREDITED, after=after)
    assert len(play.stage.named("paid_not_credited")) == 1
    play.bury()
    play.drain()
    asked = play.ground.paid()
    await play.waits()
    assert play.ground.paid() == asked
    assert play.stage.topup.state is State.UNCREDITED
    assert len(play.stage.named("paid_not_credited")) == 1


async def _unknown(play: Play, after: str) -> None:
    """An account that cannot be read buys nothing."""
    for _ in range(PATIENCE):
        assert (await play.step()).outcome == "unknown"
    assert not play.stage.store.latest("default", 1)
    assert play.ground.asked() == 0


async def _idle(play: Play, after: str) -> None:
    """A balance that never falls needs nothing."""
    for _ in range(PATIENCE):
        await play.step()
    assert not play.stage.store.latest("default", 1)
    assert play.ground.asked() == 0


RESULTS: Final = {
    "idle": _idle,
    "unknown": _unknown,
    "refilled": _refilled,
    "waiting": _waiting,
    "refused": _refused,
    "gone": _gone,
    "uncredited": _uncredited,
}


async def _bought(play: Play, spent: int) -> None:
    """What was due all the time is bought."""
    await play.until(State.DONE)
    play.judge(spent + 1)
    await _full(play)


async def _goes_on(play: Play, spent: int) -> None:
    """What waited is bought, and nothing beside it."""
    waiting = play.stage.topup.id
    await play.until(State.DONE)
    assert play.stage.topup.id == waiting
    play.judge(spent + 1)
    await _full(play)


async def _again(play: Play, spent: int) -> None:
    """The next purchase is an ordinary one."""
    before = play.stage.topup.id
    play.drain()
    await play.until(State.DONE, after=before)
    play.judge(spent + 1)
    await _full(play)


async def _resumed(play: Play, spent: int) -> None:
    """A person has to say that it sells again."""
    now = play.world.clock.now_ms()
    play.stage.store.set_gone("default", play.ground.rail, gone=False, at_ms=now)
    await _again(play, spent)


async def _credited(play: Play, spent: int) -> None:
    """Whatever brings the credits ends it."""
    play.world.do(play.ground.credit)
    await play.until(State.DONE)
    play.judge(spent)
    await _full(play)


async def _full(play: Play) -> None:
    """A full account buys nothing."""
    count = len(play.stage.store.latest("default", 100))
    for _ in range(2):
        await play.step()
    assert len(play.stage.store.latest("default", 100)) == count


AFTERWARDS: Final = {
    "idle": _bought,
    "unknown": _bought,
    "refilled": _again,
    "waiting": _goes_on,
    "refused": _again,
    "gone": _resumed,
    "uncredited": _credited,
}


async def crashed(play: Play, fault: Fault, *, settled: Callable[[], bool]) -> None:
    """The process dies once the seller has settled and before it hears of it; the next one pays nothing more."""
    with spoilt(play, fault):
        await play.dies(play.stage.works.cycle.run(), settled)
        await play.until(State.UNCREDITED if fault.expected_result == "uncredited" else State.DONE)
        if fault.expected_result == "uncredited":
            play.bury()
            await play.waits(2)
        play.judge(1)


async def outlived(play: Play, fault: Fault) -> None:
    """The fault lasts past the deadline: one provider halts it, two prove it dead and another is bought, once."""
    with spoilt(play, fault):
        await play.waits(3)
        old = play.stage.topup
        assert old.state is State.SENT
        play.pass_time(play.ground.expiry_ms)
        play.bury()
        if not play.two:
            await play.until(State.HALTED)
            play.pass_time(HOUR_MS)
            await play.waits(3)
            play.judge(0)
            return
        for _ in range(20):
            await play.step()
            if play.stage.named("charge_dead"):
                break
        assert len(play.stage.named("charge_dead")) == 1
        assert (play.stage.topup.charges[0].dead or "").startswith("deadline")
        play.pass_time(HOUR_MS)
        play.judge(0)
    await play.until(State.DONE)
    assert play.stage.topup.id == old.id
    play.judge(1)
    await _again(play, 1)
