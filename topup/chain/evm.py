"""How does an EVM chain answer the `Chain` port? By its profile, through its providers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from topup.chain import broadcast, evidence, simulation, survey
from topup.chain.contracts import payment_data
from topup.chain.profiles import Profile
from topup.chain.rpc import Rpc
from topup.charge import Demand, Verified
from topup.errors import ChainUnknown
from topup.lifecycle import Attempt
from topup.money import Usdc, Wei
from topup.ports import Call, Head, Sent, Sighting, Simulation, Survey

T = TypeVar("T")


class EvmChain:
    """One chain. Reads go to the first provider that answers, signed bytes to all of them."""

    def __init__(self, profile: Profile, rpcs: Sequence[Rpc]) -> None:
        """Keep the profile and the providers, of which there is at least one."""
        self._profile = profile
        self._rpcs = rpcs

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""
        return sum(rpc.requests for rpc in self._rpcs)

    async def survey(self, wallet: bytes, total: Usdc, contract: bytes) -> Survey:
        """Read all a payment is planned on, in one batch."""
        return await self._first(lambda rpc: survey.survey(rpc, self._profile, wallet, total, contract))

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
        return await self._first(lambda rpc: evidence.look(rpc, wallet, attempts, demand))

    async def _first(self, ask: Callable[[Rpc], Awaitable[T]]) -> T:
        failures = []
        for rpc in self._rpcs:
            try:
                return await ask(rpc)
            except ChainUnknown as error:
                failures.append(str(error))
        raise ChainUnknown("no provider gave a usable answer: " + "; ".join(failures))
