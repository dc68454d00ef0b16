"""How do chain, provider and clock make one world? Started in a thread of its own, mined and polled on a timer.

The world's clock may run faster than the machine's, and leaps over the sleeps of whoever lives in it, so that an
hour of waiting takes a second and every timestamp still agrees. In a stepped world time passes in those sleeps alone:
what happens there does not depend on how fast the machine is. Keys are fresh in each run. The daemon reaches
the world through sockets on loopback, with production settings but for the addresses printed by `environment`.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Final, Self, TypeVar

from eth_keys.datatypes import PrivateKey

from topup.sandbox import contracts
from topup.sandbox.charges import Operator, named_address
from topup.sandbox.fault import WALLET_WEI
from topup.sandbox.gateway import Account, Conduct, Gateway
from topup.sandbox.postings import tokens
from topup.sandbox.rpc import Chain, RpcServer

T = TypeVar("T")
ETH_USD_E8 = 3000 * 10**8
BLOCK_S = 2
# The scale of a world whose time stands still while nobody sleeps.
STEPPED: Final = 0
# In a stepped world, at most so many blocks come in one sleep; in a long one they lie further apart.
BLOCKS_A_SLEEP_MAX = 6
LEAPING = {"TOPUP_CHAIN__HEAD_AGE_MAX_S": "86400", "TOPUP_CHAIN__LAG_MAX_S": "3600"}
L1_FEE_PER_BYTE = 15_000_000
FEE_DESTINATION = named_address("topup sandbox: fee destination")


def begins_ms() -> int:
    """Return where a world begins that will leave the machine's time, in milliseconds since the epoch: now."""
    return time.time_ns() // 1_000_000


class WorldClock:
    """The `Clock` port of the world: `scale` world seconds pass in a real one, and sleeps are cut short."""

    def __init__(self, scale: int) -> None:
        """Start at the machine's time."""
        self.scale = scale
        self._zero_ms = time.time_ns() // 1_000_000 if scale == 1 else begins_ms()
        self._began_ns = time.monotonic_ns()
        self._leapt_ms = 0

    def now_ms(self) -> int:
        """Return the world's time in milliseconds since the epoch."""
        real_ms = (time.monotonic_ns() - self._began_ns) // 1_000_000
        return self._zero_ms + real_ms * self.scale + self._leapt_ms

    def monotonic_ms(self) -> int:
        """Return the same: the world's time never goes backwards."""
        return self.now_ms()

    def now_s(self) -> int:
        """Return the world's time in seconds."""
        return self.now_ms() // 1000

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of the world."""
        until = self.now_ms() + int(seconds * 1000)
        await asyncio.sleep(min(seconds / self.scale, BLOCK_S / self.scale if self.scale > 1 else seconds))
        self.leap(until - self.now_ms())

    def leap(self, ms: int) -> None:
        """Let time pass at once; never backwards."""
        self._leapt_ms += max(0, ms)


class SteppedClock(WorldClock):
    """The `Clock` port of a stepped world: time stands still until somebody sleeps, and no sleep takes any."""

    def __init__(self, beat: Callable[[], Awaitable[None]]) -> None:
        """Start where a world begins; `beat` lets the world do what it does every two seconds."""
        super().__init__(STEPPED)
        self._beat = beat

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of the world pass at once, with the blocks that come in them."""
        until = self.now_ms() + int(seconds * 1000)
        for left in range(max(1, min(BLOCKS_A_SLEEP_MAX, int(seconds // BLOCK_S))), 0, -1):
            self.leap((until - self.now_ms()) // left)
            await self._beat()


class World:
    """Chain, provider, wallet and clock; a context manager that starts and stops them."""

    def __init__(
        self,
        make_chain: Callable[[World], Chain],
        *,
        scale: int = 1,
        make_gateway: Callable[[World, Account], Gateway] | None = None,
        settings: Callable[[World], dict[str, str]] | None = None,
        conduct: Conduct | None = None,
        wallet_wei: int = WALLET_WEI,
        credits_usd: Decimal = Decimal(20),
        usage_usd: Decimal = Decimal("9.85"),
        burn_usd_per_hour: Decimal = Decimal(6),
    ) -> None:
        """Create keys and state; nothing listens until the context is entered.

        With the scale `STEPPED` time passes only while somebody sleeps by the world's clock.
        `settings` returns what is set otherwise where another rail is paid by: variables over the world's own.
        """
        self.stepped = scale == STEPPED
        self.clock = SteppedClock(self._stepping) if self.stepped else WorldClock(scale)
        self.key = PrivateKey(secrets.token_bytes(32))
        self.wallet: str = self.key.public_key.to_checksum_address()
        self.operator = Operator()
        self.eth_usd_e8 = ETH_USD_E8
        self.wallet_wei = wallet_wei
        self._make_chain = make_chain
        self._make_gateway = make_gateway
        self._settings = settings
        self._account = (credits_usd, usage_usd, burn_usd_per_hour)
        self._conduct = conduct or Conduct()
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._more: list[RpcServer] = []
        self._end: asyncio.Event | None = None
        self.mining = True
        self.tick_s = BLOCK_S / (scale or 1)

    # What stands once the context is entered.
    chain: Chain
    gateway: Gateway
    rpc: RpcServer

    def genesis(self) -> dict[str, contracts.Account]:
        """Return the accounts the chain begins with."""
        return contracts.genesis(
            operator=self.operator.address,
            fee_destination=FEE_DESTINATION,
            eth_usd=ETH_USD_E8,
            l1_fee_per_byte=L1_FEE_PER_BYTE,
            timestamp=self.clock.now_s(),
            funded={self.wallet: self.wallet_wei},
        )

    def environment(self) -> dict[str, str]:
        """Return the settings under which any topup command works against this world."""
        return {
            "TOPUP_MODE": "live",
            "TOPUP_API__URL": self.gateway.url,
            "TOPUP_API__KEY": self.gateway.management_key,
            "TOPUP_CHAIN__RPC_URLS": self.rpc.url,
            "TOPUP_WALLET__PRIVATE_KEY": self.key.to_hex(),
            "TOPUP_RAILS__COINBASE__OPERATORS": self.operator.address,
            "TOPUP_RAILS__COINBASE__RECIPIENTS": self.operator.terms.recipient,
            "TOPUP_POLICY__FLOOR": "10",
            "TOPUP_POLICY__AMOUNT": "10",
            # A world begins with an empty ledger, and nothing was signed before it.
            "TOPUP_RAILS__YOUNG_S": "0",
            # The clock leaps; until the next tick of the world its newest block looks that much older.
            **({} if self.clock.scale == 1 else LEAPING),
            **(self._settings(self) if self._settings is not None else {}),
        }

    def __enter__(self) -> Self:
        """Start everything; return once it answers."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout=20)

    def do(self, act: Callable[[], T]) -> T:
        """Run `act` between two of the world's own steps, from any other thread."""
        return self._within(act).result(timeout=30)

    def provider(self) -> RpcServer:
        """Start one more provider of the same chain, from any other thread; it ends with the world."""
        assert self._loop is not None
        server = RpcServer(self.chain)
        asyncio.run_coroutine_threadsafe(server.start(), self._loop).result(timeout=30)
        self._more.append(server)
        return server

    def write(self, writes: list[contracts.StorageWrite]) -> None:
        """Change slots of the chain's contracts; call it inside the world."""
        for change in writes:
            self.chain.set_storage(change.address, change.slot, change.value)

    def balance(self, address: str) -> int:
        """Return a balance in wei; call it inside the world."""
        return int(self.chain.rpc("eth_getBalance", [address, "latest"]), 16)

    def usdc(self, address: str) -> int:
        """Return a balance in USDC units; call it inside the world."""
        return self.tokens(contracts.USDC, address)

    def tokens(self, token: str, address: str) -> int:
        """Return a balance in units of any token; call it inside the world."""
        return tokens(self.chain, token, address)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001 - handed to whoever enters the context
            self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self.chain = self._make_chain(self)
        total, usage, burn = self._account
        account = Account(self.clock.now_ms, total, usage, burn)
        self.gateway = (
            self._make_gateway(self, account)
            if self._make_gateway is not None
            else Gateway(account, operator=self.operator, chain=self.chain, conduct=self._conduct)
        )
        self.rpc = RpcServer(self.chain)
        try:
            await self.gateway.start()
            await self.rpc.start()
            if self.stepped:
                self.gateway.sleep = self.clock.sleep
                self._beat()
            self._ready.set()
            while not self._end.is_set():
                await (self._end.wait() if self.stepped else self._tick())
        finally:
            await self.gateway.stop()
            for server in (self.rpc, *self._more):
                await server.stop()
            self.chain.stop()

    def _beat(self) -> None:
        """Mine a block and let the provider look at it."""
        if self.mining:
            self.chain.mine(self.clock.now_s())
            self.gateway.poll()

    async def _stepping(self) -> None:
        """Do what comes every two seconds, in the world's own thread, whoever sleeps in whichever."""
        await asyncio.wrap_future(self._within(self._beat))

    def _within(self, act: Callable[[], T]) -> Future[T]:
        assert self._loop is not None

        async def inside() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop)

    async def _tick(self) -> None:
        """Do it, and wait until it is to be done again."""
        began = time.monotonic()
        self._beat()
        assert self._end is not None
        rest = max(0.005, self.tick_s - (time.monotonic() - began))
        try:
            await asyncio.wait_for(self._end.wait(), rest)
        except TimeoutError:
            return


def embedded(world: World) -> Chain:
    """Return the chain inside this process."""
    from topup.sandbox.evm import Evm

    return Evm(world.genesis(), now=world.clock.now_s, l1_fee_per_byte=L1_FEE_PER_BYTE)
