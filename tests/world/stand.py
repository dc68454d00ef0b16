"""A chain that mines only when told to, as many providers of it as a test wants, and the chain's edge before them.

Each provider answers honestly until it is bent: `lie`, `failing`, `dead` and `limited` say how, `always` and `changed`
what it answers then.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from eth_account import Account

from tests.world import builders, worlds
from tests.world.stage import Stage
from topup.chain.contract_chain import EvmChain
from topup.chain.contracts import payment_data
from topup.chain.profiles import BASE, Profile
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import Charge, parse
from topup.domain.events import Event
from topup.domain.lifecycle import Attempt, Plan, State, TopUp
from topup.domain.money import Usdc, Wei
from topup.ports.account import Clock
from topup.ports.chain import Call, Delivery, Head, Observation, Preflight, Seen, Sent, Simulation
from topup.sandbox import contracts
from topup.sandbox.charges import Ask, Draft
from topup.sandbox.rpc import Drop, Intercept, Next, RpcError, RpcServer
from topup.sandbox.world import World

T = TypeVar("T")
Edge = TypeVar("Edge")
TOTAL = Usdc(10_500_000)
HEAD_AGE_MAX_S = 60
LAG_MAX_S = 30
ENOUGH = Wei(4 * 10**15)
When = Callable[[list[Any]], bool]

# -- how a provider is bent -------------------------------------------------------------------------------------------


def lie(*methods: str, to: Callable[[Any], Any], when: When = lambda _: True) -> Intercept:
    """Answer these methods otherwise, where their parameters fit; `to` is given the honest answer and may raise."""

    async def bent(asked: str, params: list[Any], honest: Next) -> Any:
        answer = honest()
        return to(copy.deepcopy(answer)) if asked in methods and when(params) else answer

    return bent


def always(answer: Any) -> Callable[[Any], Any]:
    return lambda _: answer


def changed(**fields: Any) -> Callable[[Any], Any]:
    """The honest answer with other fields, or each document of a list with them; what is not there stays so."""

    def change(told: Any) -> Any:
        return [{**one, **fields} for one in told] if isinstance(told, list) else told and {**told, **fields}

    return change


def failing(method: str, error: Exception, when: When = lambda _: True) -> Intercept:
    """Refuse a method, where its parameters fit; the chain is not asked."""

    async def bent(asked: str, params: list[Any], honest: Next) -> Any:
        if asked == method and when(params):
            raise error
        return honest()

    return bent


def limited(blocks: int, refusal: str = "the block range is too large") -> Intercept:

    def beyond(params: list[Any]) -> bool:
        return int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= blocks

    return failing("eth_getLogs", RpcError(-32005, refusal), beyond)


async def dead(_: str, __: list[Any], ___: Next) -> Any:
    raise Drop


async def at_once(_: float) -> None:
    """Be as patient with a provider as the program is, in no time."""


# -- what stands before the edge --------------------------------------------------------------------------------------


class Provided(Generic[Edge]):
    """A chain behind some providers, and an edge of this kind before them; what it says is kept in `said`."""

    def __init__(self, world: World, providers: int, edge: Callable[[Providers], Edge]) -> None:
        self.world = world
        self.wallet = builders.address(world.wallet)
        self.servers: list[RpcServer] = [world.rpc]
        self.providers(providers)
        self.edge = edge
        self.said: list[Event] = []
        self.ahead_s = 0

    def providers(self, count: int) -> None:
        self.servers += [self.world.provider() for _ in range(count - len(self.servers))]

    def run(
        self,
        *acts: Callable[[Edge], Awaitable[Any]],
        needs: int | None = None,
        edge: Callable[[Providers], Edge] | None = None,
        urls: list[str] | None = None,
        timeout_s: float = 20,
        **watched: Any,
    ) -> list[Any]:
        """Do things one after the other with one edge; return what came of each.

        Two providers have to agree where there are two, or as many as it `needs`.
        """

        async def asked() -> list[Any]:
            rpcs = [
                Rpc(url, timeout_s=timeout_s, sleep=at_once) for url in urls or [server.url for server in self.servers]
            ]
            every = Providers(
                rpcs,
                quorum=needs or min(2, len(rpcs)),
                now_s=self.now_s,
                head_age_max_s=HEAD_AGE_MAX_S,
                lag_max_s=LAG_MAX_S,
                say=self.said.append,
                **watched,
            )
            chain = (edge or self.edge)(every)
            try:
                return [await act(chain) for act in acts]
            finally:
                for rpc in rpcs:
                    await rpc.close()

        return asyncio.run(asked())

    def ask(self, act: Callable[[Edge], Awaitable[T]], **how: Any) -> T:
        """Do one thing with an edge of its own; `how` is as `run` takes it."""
        (answer,) = self.run(act, **how)
        return answer  # type: ignore[no-any-return]

    def through(self, act: Callable[[Rpc], Awaitable[T]], **how: Any) -> T:
        """Do something with a client of the first provider."""

        async def asked() -> T:
            rpc = Rpc(self.servers[0].url, timeout_s=20, **how)
            try:
                return await act(rpc)
            finally:
                await rpc.close()

        return asyncio.run(asked())

    def bend(
        self, number: int, how: Intercept | str | None, *, to: Callable[[Any], Any] = bool, when: When = lambda _: True
    ) -> None:
        """Bend a provider, or let it answer a method otherwise; None: it is honest again."""
        self.servers[number].intercept = lie(how, to=to, when=when) if isinstance(how, str) else how

    def name(self, number: int) -> str:
        """Return how a provider is named in what is said."""
        return self.servers[number].url.removeprefix("http://")

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    def now_s(self) -> int:
        return self.world.clock.now_s() + self.ahead_s

    def later(self, seconds: int) -> None:
        """Let time pass, and a block with it."""
        self.ahead_s += seconds
        self.mine()

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.mine_at(self.now_s())

    def mine_at(self, timestamp: int) -> None:
        self.world.do(lambda: self.world.chain.mine(timestamp))

    def write(self, *writes: contracts.StorageWrite) -> None:
        self.world.do(lambda: self.world.write(list(writes)))

    def rpc(self, method: str, *params: Any) -> Any:
        return self.world.do(lambda: self.world.chain.rpc(method, list(params)))

    def head(self) -> Head:
        block = self.rpc("eth_getBlockByNumber", "latest", False)
        return Head(int(block["number"], 16), bytes.fromhex(block["hash"][2:]), int(block["timestamp"], 16))


class Stand(Provided[EvmChain]):
    """The payment contract's chain, with a wallet that pays charges there."""

    def __init__(self, world: World, providers: int = 1) -> None:
        super().__init__(world, providers, partial(EvmChain, BASE))
        self.planning = False  # whether what is sent was planned just before

    def preflight(self, profile: Profile = BASE, contract: bytes = BASE.contract, **how: Any) -> Preflight:
        return self.ask(
            lambda chain: chain.preflight(self.wallet, TOTAL, contract), edge=partial(EvmChain, profile), **how
        )

    def demand(self, change: Callable[[Draft], Draft] = lambda draft: draft) -> Charge:
        operator = self.world.operator
        asked = Ask(Decimal(10), self.world.wallet, contracts.CHAIN_ID, self.world.clock.now_s())
        return parse(builders.raw_of(operator.charge(asked, draft=change(operator.draft(asked)))))

    def call(self, demand: Charge, value: Wei = ENOUGH, tier: int = 500) -> Call:
        return Call(self.wallet, demand.contract, payment_data(demand.intent, tier), value)

    def simulate(self, demand: Charge, value: Wei = ENOUGH, tier: int = 500) -> Simulation:
        call, at = self.call(demand, value, tier), self.head()
        return self.ask(lambda chain: chain.simulate(call, demand, at))

    def attempt(self, demand: Charge, **changes: Any) -> Attempt:
        """A signed payment of this demand, on its way only once `send` is called."""
        plan = replace(
            builders.plan(
                to=demand.contract,
                data=payment_data(demand.intent, 500),
                value=ENOUGH,
                nonce=int(self.rpc("eth_getTransactionCount", self.world.wallet, "latest"), 16),
                l1_fee=Wei(10**13),
            ),
            **changes,
        )
        raw, tx_hash = self.signed(plan)
        return Attempt(1, 1, plan, raw, tx_hash, 1, None, 0, withdrawn=False, inclusion=None, booked=False)

    def signed(self, plan: Plan) -> tuple[bytes, bytes]:
        fields = {"chainId": plan.chain_id, "nonce": plan.nonce, "to": plan.to, "value": plan.value.units}
        fields |= {"type": 2, "data": plan.data, "gas": plan.gas_limit}
        fields |= {"maxFeePerGas": plan.max_fee_per_gas.units}
        fields |= {"maxPriorityFeePerGas": plan.max_priority_fee_per_gas.units}
        done = Account.from_key(self.world.key.to_hex()).sign_transaction(fields)
        return bytes(done.raw_transaction), bytes(done.hash)

    def send(self, attempt: Attempt, **how: Any) -> Sent:
        raw, tx_hash = attempt.raw, attempt.hash
        assert raw is not None
        assert tx_hash is not None

        async def handed(chain: EvmChain) -> Sent:
            if self.planning:
                await chain.preflight(self.wallet, TOTAL, BASE.contract)
            return await chain.send(raw, tx_hash)

        return self.ask(handed, **how)

    def look(self, demand: Charge | None = None, *attempts: Attempt, **how: Any) -> Observation:
        pairs = [(attempt, demand) for attempt in attempts if demand is not None]
        return self.ask(lambda chain: chain.look(self.wallet, pairs), **how)

    def seen(self, demand: Charge, attempt: Attempt) -> Seen:
        return self.look(demand, attempt).seen[attempt.hash or b""]

    def paid(self) -> tuple[Charge, Attempt]:
        """A payment that stands in the newest block."""
        demand = self.demand()
        return demand, self.mined(self.attempt(demand))

    def mined(self, attempt: Attempt) -> Attempt:
        """Send it and let it stand in the newest block."""
        assert self.send(attempt, urls=[self.world.rpc.url]).delivery is Delivery.ACCEPTED
        self.mine()
        return attempt


def stand_on(chain: str, providers: int = 1) -> Iterator[Stand]:
    """A stand with three blocks behind it; ends with the generator."""
    world = World(worlds.maker(chain))
    world.mining = False
    with world:
        stand = Stand(world, providers)
        stand.mine(3)
        yield stand


class Town:
    """A world whose account is below its floor, with several providers and a cycle that uses them all."""

    def __init__(
        self,
        world: World,
        directory: Path,
        count: int,
        clock: Callable[[World], Clock] = lambda world: world.clock,
        **settings: str,
    ) -> None:
        self.world = world
        self.servers = [world.rpc, *(world.provider() for _ in range(count - 1))]
        urls = {"TOPUP_CHAIN__RPC_URLS": ",".join(server.url for server in self.servers)}
        self.stage = Stage(world, directory, clock(world), urls | settings)

    async def filled(self) -> TopUp:
        """Let the refill come to its end: one payment, and the ledger is the chain to the wei."""
        done = await self.stage.until(State.DONE)
        self.stage.sound()
        await self.stage.close()
        return done
