"""Who lives in a world in which things go wrong on the wire? A house: world, proxies, and topup, driven pass by pass.

Time stands still but for what is waited: blocks come, and a trouble goes on, while somebody sleeps. A trouble is a
script, taken one step a beat; it knows nothing of whom it befalls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from eth_utils.crypto import keccak

from tests.tools import outside
from tests.world.proxy import Proxy
from tests.world.served import TOPUP, ran
from tests.world.stage import Stage, low, payments, sent_beside, transferred
from topup.domain.events import Event
from topup.domain.lifecycle import State, TopUp
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.evm import Evm
from topup.sandbox.fault import WALLET_WEI
from topup.sandbox.world import BLOCK_S, L1_FEE_PER_BYTE, World

SEND: Final = "eth_sendRawTransaction"
NONCE: Final = "eth_getTransactionCount"
MINUTE_S: Final = 60
# However long a sleep is, the world takes no more steps in it.
BEATS_MAX: Final = 30
COMMAND_S_MAX: Final = 120

Script = Callable[["House"], Iterator[None]]


class Killed(BaseException):
    """The process dies here: nothing of ours may catch it."""


@dataclass(frozen=True)
class Result:
    """How a story ended.

    Attributes:
        story: its name.
        survived: whether everything was as it has to be; `wrong` says what was not.
        payments: Transferred events on the chain for the one need.
        lost: whether a payment stands on the chain that the ledger does not know.
        halted: whether a person was asked; `reason` is what they were told.
        events: the names of all events, in order.
        recovered_in_s: seconds of the world from the need to its end, credits posted and booked; None: not by itself.
        detail: what happened, in a sentence.
    """

    story: str
    survived: bool
    payments: int
    lost: bool
    halted: bool
    reason: str
    events: tuple[str, ...]
    recovered_in_s: int | None
    detail: str
    wrong: tuple[str, ...]


class Paced:
    """The world's clock for one who lives in it: while it sleeps, blocks come and the trouble goes on."""

    def __init__(self, house: House) -> None:
        self._house = house

    def now_ms(self) -> int:
        return self._house.world.clock.now_ms()

    def monotonic_ms(self) -> int:
        return self._house.world.clock.now_ms()

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self._house.wait(int(seconds))


class House:
    """A world, the wires to it, and whoever has to pay in it: an account half a dollar below its floor."""

    def __init__(self, directory: Path, *, providers: int = 1, wallet_wei: int = WALLET_WEI) -> None:
        self.directory = directory
        self.l1_fee_per_byte = L1_FEE_PER_BYTE
        self.mining = True
        self.clock = Paced(self)
        self.told: list[Event] = []
        self.wrong: list[str] = []
        self.notes: list[str] = []
        self.ended_ms: int | None = None
        self.asked = ""
        self.strange = False
        self._script: Iterator[None] | None = None
        self._providers = providers
        self._stage: Stage | None = None
        self._open = ExitStack()
        self.world = low(self._chain, scale=1, wallet_wei=wallet_wei, burn_usd_per_hour=Decimal(0))
        self.world.mining = False  # blocks come with `wait` alone

    def _chain(self, world: World) -> Evm:
        return Evm(world.genesis(), now=world.clock.now_s, l1_fee_per_byte=lambda: self.l1_fee_per_byte)

    def __enter__(self) -> Self:
        self._open.enter_context(self.world)
        self.wires = [self._open.enter_context(Proxy(self.world.rpc.url)) for _ in range(self._providers)]
        self.api = self._open.enter_context(Proxy(self.world.gateway.url))
        self.began_ms, self.before = self.clock.now_ms(), 0
        self.wait(BLOCK_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def chain(self) -> Evm:
        """Return the chain with its own controls; touch it from `inside` and from scripts alone."""
        assert isinstance(self.world.chain, Evm)
        return self.world.chain

    def environment(self, **settings: str) -> dict[str, str]:
        urls = ",".join(wire.url for wire in self.wires)
        own = {"TOPUP_CHAIN__RPC_URLS": urls, "TOPUP_API__URL": self.api.url}
        return self.world.environment() | own | {f"TOPUP_{name.upper()}": value for name, value in settings.items()}

    # -- time -------------------------------------------------------------------------------------------------------

    def wait(self, seconds: int) -> None:
        """Let so many seconds of the world pass, a block every two; in a long wait the blocks lie further apart."""
        until = self.clock.now_ms() + seconds * 1000
        for left in range(max(1, min(BEATS_MAX, seconds // BLOCK_S)), 0, -1):
            ms = max(0, until - self.clock.now_ms()) // left
            self.inside(partial(self._beat, ms))

    def _beat(self, ms: int) -> None:
        self.world.clock.leap(ms)
        if self._script is not None and next(self._script, self) is self:
            self._script = None
        if self.mining:
            self.mine()

    def mine(self, at: int | None = None) -> None:
        """Mine a block, by default now, and let the provider of credits look at it; for scripts."""
        self.chain.mine(self.world.clock.now_s() if at is None else at)
        self.world.gateway.poll()

    def inside(self, act: Callable[[], Any]) -> Any:
        return self.world.do(act)

    def need(self) -> None:
        """The need of this story arises now; what was before is not its matter."""
        self.began_ms, self.before, self.ended_ms = self.clock.now_ms(), self.payments(), None

    def trouble(self, script: Script) -> None:
        """Let a trouble begin: its first step is taken now, the others as time passes."""
        self._script = script(self)
        self.inside(lambda: next(self._script or iter(()), None))

    def spell(self, seconds: int) -> Iterator[None]:
        """Go on for so many seconds; for scripts."""
        until = self.clock.now_ms() + seconds * 1000
        while self.clock.now_ms() < until:
            yield

    def low(self) -> None:
        """Let the account have used so much that it stands below its floor again, past any cool-down."""
        self.wait(20 * MINUTE_S)
        account = self.world.gateway.account
        self.inside(lambda: account.set_usage(account.total_credits - Decimal("9.5")))

    # -- what can be seen -------------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[str]:
        """Return every raw transaction that left towards a provider, each once, in the order of leaving."""
        return list(dict.fromkeys(p.params[0] for wire in self.wires for p in wire.log if p.method == SEND))

    @property
    def hashes(self) -> list[str]:
        return ["0x" + keccak(hexstr=raw).hex() for raw in self.sent]

    def payments(self) -> int:
        return payments(self.world)

    def mined(self) -> dict[int, str]:
        """Return the hashes of the wallet's transactions in the whole chain, by their nonces, which have no gap."""

        def found() -> dict[int, str]:
            blocks = range(int(self.chain.rpc("eth_blockNumber", []), 16) + 1)
            sent = [tx for n in blocks for tx in self.chain.rpc("eth_getBlockByNumber", [hex(n), True])["transactions"]]
            return {int(tx["nonce"], 16): tx["hash"] for tx in sent if tx["from"].lower() == self.world.wallet.lower()}

        told: dict[int, str] = self.inside(found)
        return told

    def foreign(self) -> str:
        """Use the wallet's key beside its owner, at the wallet's next nonce; return the hash. For scripts."""
        self.strange = True
        return sent_beside(self.world, maxFeePerGas=10**10, maxPriorityFeePerGas=10**10)

    # -- topup, who lives here --------------------------------------------------------------------------------------

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def stage(self) -> Stage:
        assert self._stage is not None, "it is down"
        return self._stage

    @property
    def topup(self) -> TopUp:
        return self.stage.topup

    def start(self, **settings: str) -> None:
        self._stage = Stage(self.world, self.state, self.clock, self.environment(**settings), told=self.told)

    async def stop(self) -> None:
        if self._stage is not None:
            await self._stage.close()
        self._stage = None

    async def restart(self, **settings: str) -> None:
        await self.stop()
        self.start(**settings)

    async def dies(self, passes: int = 60) -> None:
        try:
            await self.stage.steps(passes)
        except Killed:
            await self.stop()
            return
        raise AssertionError("it never died")

    async def out(self, attempts: int, passes: int = 60) -> TopUp:
        """Make passes until so many transactions of the top-up may be out."""
        return await self.stage.outbid(attempts, passes)

    async def ends(self, *states: State, passes: int = 200) -> TopUp:
        """Make passes until the top-up is done, or in one of these states; then some more, past the cool-down."""
        topup = await self.stage.until(*(states or (State.DONE,)), passes=passes)
        self.ended_ms = topup.moved_ms
        for _ in range(3):
            self.wait(10 * MINUTE_S)
            await self.stage.step()
        return topup

    def command(self, *arguments: str) -> str:
        """Run a command of topup's to its end; return what it printed."""
        own = {"TOPUP_STATE_DIR": str(self.state), "TOPUP_CONFIG": os.devnull}
        done = ran([*TOPUP, *arguments], outside() | self.environment() | own, COMMAND_S_MAX)
        return done.stdout + done.stderr

    def named(self, name: str) -> list[Any]:
        return [event for event in self.told if event.name() == name]

    def hold(self, true: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition
        """Note what is wrong unless this is true."""
        if not true:
            self.wrong.append(otherwise)

    def note(self, detail: str) -> None:
        self.notes.append(detail)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _known(self, store: SqliteStore) -> set[str]:
        """Return the hashes that the ledger knows to have left this machine, or has taken over from the chain."""
        ours = [a for t in store.latest("default", 1000) for a in t.attempts if a.intended_ms is not None]
        known = {"0x" + a.hash.hex() for a in ours if a.hash is not None}
        taken = store.known(contracts.CHAIN_ID, bytes.fromhex(self.world.wallet[2:])).adopted
        return known | {"0x" + one.tx_hash.hex() for one in taken if one.tx_hash is not None}

    def result(self, name: str, payments: int) -> Result:
        """Hold chain, wire and ledger against each other, and say how it ended."""
        paid = self.payments() - self.before
        self.hold(paid == payments, f"{paid} payments on the chain, not {payments}")
        store = self.stage.store
        known, topup = self._known(store), store.latest("default", 1)[0]
        lost = not {log["transactionHash"] for log in transferred(self.world)} <= known
        self.hold(not lost, "a payment stands on the chain that the ledger does not know")
        strange = set(self.hashes) - known
        self.hold(not strange, f"{len(strange)} transactions have left that the ledger does not hold")
        nonces = {a.plan.nonce for t in store.latest("default", 1000) for a in t.out}
        mined = self.mined()
        self.hold(nonces <= set(mined), f"a nonce is still open: of {sorted(nonces)} the chain has {sorted(mined)}")
        unknown = [] if self.strange else set(mined.values()) - known
        self.hold(not unknown, f"{len(unknown)} transactions of the wallet stand on the chain without a row")
        if topup.state is State.HALTED:
            self.asked = topup.reason
        elif not self.strange:
            self.hold(self.stage.booked() == self.stage.left(), "the books and the wallet differ")
        over = None if self.asked else self.ended_ms
        return Result(
            story=name,
            survived=not self.wrong,
            payments=paid,
            lost=lost,
            halted=bool(self.asked),
            reason=self.asked,
            events=tuple(event.name() for event in self.told),
            recovered_in_s=None if over is None else (over - self.began_ms) // 1000,
            detail="; ".join(self.notes),
            wrong=tuple(self.wrong),
        )
