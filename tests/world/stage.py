"""One account in one world, driven pass by pass: for tests that need to interfere between two passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_keys.datatypes import PrivateKey

from tests.tools import HANGS_S
from tests.world.builders import NOW_MS
from topup.accounting.closing import OPENING
from topup.accounting.journal import WALLET, Commodity
from topup.app.connections import Connections
from topup.app.settings import load
from topup.domain.credits import HOUR_MS
from topup.domain.events import Event
from topup.domain.lifecycle import Attempt, Fact, State, TopUp
from topup.ledger.store import SqliteStore
from topup.payment.config import PassResult, PurchaseOrder
from topup.ports.account import Clock
from topup.sandbox import contracts
from topup.sandbox.evm import Evm
from topup.sandbox.gateway import Conduct
from topup.sandbox.postings import ERC20_TRANSFER, TRANSFERRED
from topup.sandbox.rpc import Chain, RpcServer
from topup.sandbox.world import STEPPED, World, embedded

# Past the deadline of a charge, which is two days after it was made.
EXPIRY_MS: Final = 49 * HOUR_MS


def story(tell: Coroutine[Any, Any, None]) -> None:
    """Run a story, and let it fail where it hangs."""
    asyncio.run(asyncio.wait_for(tell, HANGS_S))


def low(chain: Callable[[World], Chain] = embedded, /, **changes: Any) -> World:
    """Return a stepped world whose account is below its floor and burns slowly; payments are posted after ten seconds.

    `changes` as for `World`.
    """
    terms: dict[str, Any] = {
        "scale": STEPPED,
        "conduct": Conduct(posting_delay_ms=10_000),
        "usage_usd": Decimal("10.5"),
        "burn_usd_per_hour": Decimal(1),
    }
    return World(chain, **(terms | changes))


def transferred(world: World) -> list[dict[str, Any]]:
    """Return the payment contract's Transferred events on the whole chain."""
    wanted = {"fromBlock": "0x0", "toBlock": "latest", "address": contracts.PAYMENT_PROTOCOL, "topics": [TRANSFERRED]}
    return list(world.do(lambda: world.chain.rpc("eth_getLogs", [wanted])))


def payments(world: World) -> int:
    return len(transferred(world))


def spent_in_books(store: SqliteStore) -> Counter[Commodity]:
    """Return how much of each asset has left the wallet as the journal says; what it held to begin with has not."""
    spent = Counter[Commodity]()
    moved = [entry for entry in store.entries("default") if all(line.account != OPENING for line in entry.lines)]
    for line in (line for entry in moved for line in entry.lines if line.account == WALLET):
        spent[line.commodity] -= line.units
    return spent


def moves(world: World, token: str, *senders: str, first: int = 0) -> list[tuple[str, str, int]]:
    """Return each transfer of a token by these senders since block `first`, in order; called inside the world.

    Which transaction, to whom in lower case, and how many units.
    """
    topics = [ERC20_TRANSFER, ["0x" + sender[2:].lower().rjust(64, "0") for sender in senders]]
    wanted = {"fromBlock": hex(first), "toBlock": "latest", "address": token, "topics": topics}
    logs = world.chain.rpc("eth_getLogs", [wanted])
    return [(log["transactionHash"], "0x" + log["topics"][2][-40:].lower(), int(log["data"], 16)) for log in logs]


def signed_beside(world: World, key: PrivateKey | None = None, **fields: Any) -> str:
    """Sign with a key, by default the wallet's, at its next nonce: by default a wei to the contract's owner.

    Called inside the world.
    """
    own = key or world.key
    whole = {
        "type": 2,
        "chainId": contracts.CHAIN_ID,
        "nonce": int(world.chain.rpc("eth_getTransactionCount", [own.public_key.to_checksum_address(), "latest"]), 16),
        "to": contracts.OWNER,
        "value": 1,
        "gas": 21_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 10**6,
    }
    return "0x" + bytes(Account.sign_transaction(whole | fields, own.to_hex()).raw_transaction).hex()


def sent_beside(world: World, key: PrivateKey | None = None, **fields: Any) -> str:
    """Hand such a transaction to the chain; return its hash."""
    return str(world.chain.rpc("eth_sendRawTransaction", [signed_beside(world, key, **fields)]))


# What is told of a transfer of dollars by authorization (EIP-3009).
AUTHORIZATION: Final = {
    "from": "address",
    "to": "address",
    "value": "uint256",
    "validAfter": "uint256",
    "validBefore": "uint256",
    "nonce": "bytes32",
}


def authorized(told: Iterable[Any], **domain: Any) -> SignableMessage:
    """Return what is signed to authorize a transfer of USDC on Base; `domain` is what another token differs in."""
    usual = {"name": "USD Coin", "version": "2", "chainId": contracts.CHAIN_ID, "verifyingContract": contracts.USDC}
    kinds = [{"name": name, "type": kind} for name, kind in AUTHORIZATION.items()]
    message = dict(zip(AUTHORIZATION, told, strict=True))
    return encode_typed_data(usual | domain, {"TransferWithAuthorization": kinds}, message)


def evm(world: World) -> Evm:
    """Return the embedded chain with its own controls."""
    assert isinstance(world.chain, Evm)
    return world.chain


def price(world: World, percent: int) -> None:
    """Let the pools sell ether at so much, in percent, of what the feed says; called inside the world."""
    fair = world.eth_usd_e8 * percent // 100
    world.write(contracts.pool_price(500, fair) + contracts.pool_price(3000, fair))


def two(world: World, second: RpcServer | None = None) -> dict[str, str]:
    """Return settings with two providers that do not depend on each other."""
    return {"TOPUP_CHAIN__RPC_URLS": f"{world.rpc.url},{(second or world.provider()).url}"}


def honest(world: World, count: int) -> dict[str, str]:
    """Return settings with so many providers of different owners, none of them the one that was there first."""
    return {"TOPUP_CHAIN__RPC_URLS": ",".join(world.provider().url for _ in range(count))}


class Start(Protocol):
    """Starts topup with these settings over the world's own, by the world's clock or another.

    Ledgers of different names are different ones.
    """

    def __call__(
        self, settings: dict[str, str] | None = None, *, clock: Clock | None = None, ledger: str = ""
    ) -> Stage: ...


@dataclass
class Machine:
    """A machine's two clocks: the wall's may be set to anything, the other only goes on, anew after each start."""

    wall: int = NOW_MS
    mono: int = 0

    def now_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.mono

    async def sleep(self, seconds: float) -> None:
        self.go_on(int(seconds * 1000))

    def go_on(self, ms: int) -> None:
        self.wall += ms
        self.mono += ms


@dataclass
class Kept:
    """A sink that keeps what it is told."""

    told: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.told.append(event)


class Silence:
    """A sink for events that nobody reads."""

    def emit(self, event: Event) -> None:
        pass


class Shifted:
    """The world's clock as a machine sees it that is `by_ms` ahead of it, or behind when negative."""

    def __init__(self, world: World, by_ms: int) -> None:
        self._world, self.by_ms = world, by_ms

    def now_ms(self) -> int:
        return self._world.clock.now_ms() + self.by_ms

    def monotonic_ms(self) -> int:
        """Return time that no shift touches."""
        return self._world.clock.now_ms()

    async def sleep(self, seconds: float) -> None:
        await self._world.clock.sleep(seconds)


@dataclass
class Stage:
    """A running cycle with its ledger, its events, and ways to wait for a state."""

    world: World
    directory: Path
    clock: Clock
    settings: dict[str, str] = field(default_factory=dict)
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the ledger and assemble the cycle, as a start of the program does."""
        self._closed = False
        environment = self.world.environment() | {
            "TOPUP_STATE_DIR": str(self.directory),
            "TOPUP_CONFIG": "/dev/null",
            "TOPUP_POSTING__LATE_S": "300",
        }
        self.store = SqliteStore.open_writer(self.directory)
        try:
            self.works = Connections(load(environment | self.settings), self.store, self, self.clock)
        except BaseException:
            self.store.close()
            raise

    def emit(self, event: Event) -> None:
        self.told.append(event)

    def named(self, name: str) -> list[Any]:
        return [e for e in self.told if e.name() == name]

    @property
    def topup(self) -> TopUp:
        return self.store.latest("default", 1)[0]

    async def step(self, asked: PurchaseOrder | None = None) -> PassResult:
        rest = await self.works.cycle.run(asked)
        await self.clock.sleep(rest.next_s)
        return rest

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.step()

    async def until(self, *states: State, asked: PurchaseOrder | None = None, passes: int = 120) -> TopUp:
        """Make passes until the newest top-up is in one of these states."""
        for _ in range(passes):
            begun = bool(self.store.latest("default", 1))
            rest = await self.step(None if begun else asked)
            if self.store.latest("default", 1) and self.topup.state in states:
                return self.topup
        bad = [f"{e.name()}: {e.shown()}" for e in self.told if e.level not in ("debug", "info")][:4]
        raise AssertionError(f"never {states}: {rest}, {[e.name() for e in self.told][-12:]}, {bad}")

    async def out(self) -> TopUp:
        """Make passes until a payment is out, while no block comes."""
        self.world.mining = False
        return await self.until(State.SENT)

    async def held(self) -> TopUp:
        """Make passes until a payment is out; blocks go on, and none has it."""
        topup = await self.out()
        self.hold(topup)
        self.world.mining = True
        return topup

    async def expired(self) -> TopUp:
        """Make passes until a payment is out that no block has, and let its deadline go by."""
        topup = await self.held()
        self.world.clock.leap(EXPIRY_MS)
        return topup

    async def outbid(self, attempts: int = 2, passes: int = 60) -> TopUp:
        """Make passes until so many transactions of the newest top-up may be out."""
        for _ in range(passes):
            await self.step()
            if self.store.latest("default", 1) and len(self.topup.out) >= attempts:
                return self.topup
        raise AssertionError(f"never {attempts} out: {[e.name() for e in self.told][-12:]}")

    async def paid_once(self, passes: int = 120) -> TopUp:
        """Let blocks come and make passes until the top-up is done: one payment, and the books are the chain's."""
        self.world.mining = True
        done = await self.until(State.DONE, passes=passes)
        self.sound()
        return done

    def sound(self) -> None:
        """One payment stands on the chain, and the ledger is the chain to the wei."""
        assert self.payments() == 1
        assert self.booked() == self.left() > 0

    async def slowly(self, count: int, between_ms: int = 120_000) -> None:
        """Make so many passes, with so much time after each."""
        for _ in range(count):
            await self.step()
            self.world.clock.leap(between_ms)

    async def rests(self, why: str, passes: int = 60) -> PassResult:
        """Make passes until one rests for this reason."""
        for _ in range(passes):
            rest = await self.step()
            if rest.why == why:
                return rest
        raise AssertionError(f"never {why}: {rest}")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.works.close()

    def payments(self) -> int:
        return payments(self.world)

    def say(self, word: str, topup: TopUp | None = None) -> None:
        """Leave a person's word about a top-up, by default the newest."""
        topup = topup or self.topup
        self.store.say("default", f"resolve:{topup.id}", word, self.world.clock.now_ms(), "a test")

    def pause(self, said: str = "1", by: str = "a test") -> None:
        """Pause buying by hand, or resume it with "0"."""
        self.store.say("default", "paused", said, self.world.clock.now_ms(), by)

    def halt(self, topup: TopUp | None = None) -> None:
        """Halt a top-up, by default the newest, as if something had gone wrong with it."""
        self.store.move(topup or self.topup, Fact.HALT, self.world.clock.now_ms(), "for the test")

    def mine(self, blocks: int = 1) -> None:
        """Let blocks come, also where mining is off."""
        for _ in range(blocks):
            self.inside(lambda: self.world.chain.mine(self.world.clock.now_s()))

    def mine_only(self, attempt: Attempt) -> None:
        """Let a block come that holds this attempt, whatever else was pending."""

        def mined() -> None:
            self.world.chain.drop_pending()
            self.world.chain.rpc("eth_sendRawTransaction", ["0x" + (attempt.raw or b"").hex()])
            self.world.chain.mine(self.world.clock.now_s())

        self.inside(mined)

    def hold(self, topup: TopUp) -> None:
        """Keep what this top-up has sent out of every block."""
        held = evm(self.world).held
        self.inside(lambda: held.update("0x" + (a.hash or b"").hex() for a in topup.out))

    def in_books(self, account: str, commodity: Commodity) -> int:
        """Return what the journal says of one account, by all top-ups."""
        lines = [x for e in self.store.entries("default") if e.topup_id for x in e.lines]
        return sum(x.units for x in lines if (x.account, x.commodity) == (account, commodity))

    def booked(self) -> int:
        """Return what the journal says has left the wallet, in wei."""
        return sum(spent_in_books(self.store).values())

    def left(self) -> int:
        return self.world.wallet_wei - self.world.do(lambda: self.world.balance(self.world.wallet))

    def inside(self, act: Callable[[], Any]) -> Any:
        return self.world.do(act)


def refilled(world: World, directory: Path, settings: dict[str, str], *states: State) -> TopUp:
    """Let the cycle run on the ledger there until a top-up is in one of these states, else done; return it."""

    async def tell() -> TopUp:
        stage = Stage(world, directory, world.clock, settings)
        topup = await stage.until(*states or (State.DONE,))
        await stage.close()
        return topup

    return asyncio.run(asyncio.wait_for(tell(), HANGS_S))
