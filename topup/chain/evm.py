"""How does an EVM chain answer the `Chain` port? By its profile, through its providers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from topup.chain import broadcast, evidence, simulation, survey
from topup.chain.contracts import payment_data
from topup.chain.profiles import Profile
from topup.chain.rpc import Rpc
from topup.charge import Demand, Verified
from topup.errors import ChainError, ChainUnknown, WrongChain
from topup.lifecycle import Attempt
from topup.money import Usdc, Wei
from topup.ports import Call, Head, Sent, Sighting, Simulation, Survey

T = TypeVar("T")


class EvmChain:
    """One chain. Reads go to the first provider that answers, signed bytes to all of them."""

    def __init__(self, profile: Profile, rpcs: Sequence[Rpc], *, now_s: Callable[[], int], head_age_max_s: int) -> None:
        """Keep the profile and the providers, of which there is at least one; `now_s` is this machine's unix time."""
        self._profile = profile
        self._rpcs = rpcs
        self._now_s = now_s
        self._head_age_max_s = head_age_max_s

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""
        return sum(rpc.requests for rpc in self._rpcs)

    async def survey(self, wallet: bytes, total: Usdc, contract: bytes) -> Survey:
        """Read all a payment is planned on, in one batch."""

        async def fresh(rpc: Rpc) -> Survey:
            found = await survey.survey(rpc, self._profile, wallet, total, contract)
            self._believable(rpc, found.head)
            return found

        return await self._first(fresh)

    def payment(self, verified: Verified, tier: int, value: Wei, wallet: bytes) -> Call:
        """Encode the payment of a verified charge."""
        demand = verified.demand
        return Call(wallet, demand.contract, payment_data(demand.intent, tier), value)

    async def simulate(self, call: Call, demand: Demand, at: Head) -> Simulation:
        """Run the call dry on the block `at`."""
        return await self._first(lambda rpc: simulation.simulate(rpc, self._profile, call, demand, at))

    async def send(self, raw: bytes, tx_hash: bytes) -> Sent:
        """Hand signed bytes to every provider once."""
        return await broadcast.broadcast(self._rpcs, raw, tx_hash)

    async def look(self, wallet: bytes, attempts: Sequence[Attempt], demand: Demand) -> Sighting:
        """Look for these attempts in canonical blocks."""

        async def fresh(rpc: Rpc) -> Sighting:
            found = await evidence.look(rpc, self._profile.chain_id, wallet, attempts, demand)
            self._believable(rpc, found.head)
            return found

        return await self._first(fresh)

    def _believable(self, rpc: Rpc, head: Head) -> None:
        """Refuse a provider that lags: it shows neither the nonce nor the payment that others already see."""
        age = self._now_s() - head.timestamp_s
        if age > self._head_age_max_s:
            raise ChainUnknown(f"{rpc.host}: its newest block is {age} s old")

    async def _first(self, ask: Callable[[Rpc], Awaitable[T]]) -> T:
        failures: list[ChainError] = []
        for rpc in self._rpcs:
            try:
                return await ask(rpc)
            except (ChainUnknown, WrongChain) as error:
                failures.append(error)
        if all(isinstance(error, WrongChain) for error in failures):
            raise failures[0]
        raise ChainUnknown("no provider gave a usable answer: " + "; ".join(map(str, failures)))
