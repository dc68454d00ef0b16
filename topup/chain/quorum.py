"""How many providers have to say it? One half of a chain's edge; what they are asked is the other."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from topup.chain import agreement
from topup.chain.agreement import Agreed, Answers, Disagreement, Vote
from topup.chain.balances import held
from topup.chain.blocks import block_at
from topup.chain.charge_status import Account, Unread, ends
from topup.chain.profiles import Profile
from topup.chain.providers import Providers
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Rpc
from topup.chain.search import Search, alone
from topup.domain.errors import ChainUnknown
from topup.domain.money import Asset
from topup.domain.nonpayment import ChargeStatus, More
from topup.ports.chain import Head, Holdings, Observation, Preflight, Simulation

T = TypeVar("T")


class Quorum:
    """One chain, through its providers: what is read is what enough of them agree on."""

    def __init__(self, chain_id: int, providers: Providers, search: Search | None = None) -> None:
        """Keep which chain it is, the providers, and by what is looked for payments; None for one pass alone."""
        self.chain_id = chain_id
        self._providers = providers
        self._search = search

    @property
    def owners(self) -> int:
        """Return how many independent providers are configured, whether or not they answer now."""
        return len({rpc.owner for rpc in self._providers.rpcs})

    @property
    def _searching(self) -> Search:
        return self._search or alone(self.chain_id)

    async def _planned(self, about: str, ask: Callable[[Rpc], Awaitable[Preflight]]) -> Preflight:
        needed = self._providers.quorum
        answers = await self._providers.ask(
            ask, lambda shown: shown.head, enough=lambda said: agreement.preflight_of(said, needed)
        )
        agreed = self._joined(about, lambda: agreement.preflight_of(answers, needed))
        return replace(agreed, head=await self._standing(agreed.head, answers.votes))

    async def _dry(self, ask: Callable[[Rpc], Awaitable[Simulation]]) -> Simulation:
        needed = self._providers.quorum
        answers = await self._providers.ask(ask, enough=lambda said: agreement.simulation(said, needed))
        return self._joined("dry run", lambda: agreement.simulation(answers, needed))

    async def _became(
        self, what: str, since: int, ask: Callable[[Rpc, int], Awaitable[Account | Unread]]
    ) -> ChargeStatus | More:
        """Ask every provider what became of a payment: first how far the chain is final, then on that block."""
        final = await self._final()
        if since > final:
            raise ChainUnknown(f"{what} of block {since} is beyond the final block {final}")
        answers = await self._providers.ask(lambda rpc: ask(rpc, final), lambda said: said.newest, every=True)
        read = agreement.read(answers)
        if isinstance(read, More):
            return read
        return self._joined(
            f"what became of {what}", lambda: Agreed(agreement.payment_status(read.value), read.dissent)
        )

    async def _held(self, wallet: bytes, tokens: Mapping[Asset, bytes], native: Profile | None) -> Holdings:
        """Ask every provider what a wallet holds at a final block: of these tokens, and of the coin of `native`."""
        final = await self._final()
        answers = await self._providers.ask(
            lambda rpc: held(rpc, self.chain_id, wallet, tokens, final, native), lambda said: said[0], every=True
        )
        return self._joined("what the wallet holds", lambda: Agreed(agreement.holdings(answers)))

    async def _seen(
        self, about: str, ask: Callable[[Rpc], Awaitable[ProviderObservation]], *, every: bool
    ) -> Observation:
        """Look in canonical blocks; with `every`, through all, and two where two are configured."""
        needed = self._providers.quorum
        early = None if every else lambda said: agreement.settled(said, needed)
        answers = await self._providers.ask(ask, lambda view: view.observation.head, every=every, enough=early)
        if every:
            needed = self._enough(answers)
        return self._joined(about, lambda: agreement.observation(answers, needed))

    def _enough(self, answers: Answers[T]) -> int:
        """Return how many have to say the same where something ends by it: two where two are configured."""
        needed = max(self._providers.quorum, min(2, self.owners))
        if (answered := agreement.owners(answers.votes)) < needed:
            raise ChainUnknown(f"{needed} independent providers are needed, {answered} answered")
        return needed

    async def _standing(self, head: Head, votes: Sequence[Vote[Preflight]]) -> Head:
        """Return the block that enough providers have at this height: what is planned on it has to be run on it.

        Their newest blocks may be a few apart, and who is alone at a height may name a block that nobody has.
        """
        needed = self._providers.quorum
        if agreement.owners([vote for vote in votes if vote.value.head == head]) >= needed:
            return head
        answers = await self._providers.ask(
            lambda rpc: block_at(rpc, self.chain_id, head.number), enough=lambda said: agreement.block(said, needed)
        )
        return self._joined("newest block", lambda: agreement.block(answers, needed))

    async def _final(self) -> int:
        answers = await self._providers.ask(lambda rpc: ends(rpc, self.chain_id), lambda said: said[0], every=True)
        return agreement.final(answers, self._providers.quorum)

    def _joined(self, about: str, join: Callable[[], Agreed[T]]) -> T:
        """Join what was answered, and say it when providers disagree."""
        try:
            agreed = join()
        except Disagreement as error:
            self._providers.heard(about, str(error))
            raise
        self._providers.heard(about, agreed.dissent)
        return agreed.value
