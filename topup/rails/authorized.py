"""What do rails share whose sellers carry the payment to the chain? Looking for it, and all that cannot be done.

We sign an authorization that moves the money once or never. It has no place among the wallet's own transactions:
nothing can outbid or cancel it, and nothing was approved that could be taken back. It dies at its deadline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from topup.charge import Request
from topup.death import Fate
from topup.errors import PaymentForbidden, SignerError
from topup.lifecycle import Attempt, Broadcaster, Plan, TopUp
from topup.ports import Sighting, Signer, Survey, TokenChain, Trace

# An authorization may be used below the block it was signed at, once that block was replaced: two hours of Base's.
REPLACED_BLOCKS: Final = 3_600


class Authorized(ABC):
    """The half of the `Rail` port that is the same for all of them."""

    broadcaster = Broadcaster.SERVER

    def __init__(self, chain: TokenChain, signer: Signer | None) -> None:
        """Join the ports."""
        self._chain = chain
        self._signer = signer

    @property
    def chain_id(self) -> int:
        """Return the chain it pays on."""
        return self._chain.chain_id

    @property
    def owners(self) -> int:
        """Return how many independent providers of it are configured."""
        return self._chain.owners

    @property
    def requests(self) -> int:
        """Return how many requests went to the chain's providers."""
        return self._chain.requests

    @abstractmethod
    def _traced(self, topup: TopUp, attempt: Attempt) -> Trace:
        """Return what the use of this attempt leaves on the chain."""

    async def _surveyed(self, request: Request, token: bytes, trace: Trace) -> Survey:
        """Read what is planned on, and refuse what was used already."""
        return await self._chain.survey(request.sender, token, [trace])

    async def look(self, wallet: bytes, attempts: Sequence[tuple[TopUp, Attempt]], *, every: bool = False) -> Sighting:  # noqa: ARG002
        """Look for the use of these authorizations."""
        return await self._chain.look([(self._traced(t, a), a.inclusion) for t, a in attempts], every=every)

    async def fate(self, topup: TopUp, charge_seq: int) -> Fate:
        """Ask whether a charge's authorization was ever used.

        The mark says "used", which is not "paid": where the chain has shown that it ran and failed, the mark is that.
        """
        attempt = self._of(topup, charge_seq)
        fate = await self._chain.fate(self._traced(topup, attempt))
        failed = attempt.inclusion is not None and not attempt.inclusion.success
        return replace(fate, flag=False) if failed and not fate.payers else fate

    async def flag(self, topup: TopUp, charge_seq: int) -> bool:
        """Read the chain's mark that a charge's authorization was used."""
        attempt = self._of(topup, charge_seq)
        trace = self._traced(topup, attempt)
        return trace.key in (await self._chain.look([(trace, attempt.inclusion)])).used

    @staticmethod
    def _of(topup: TopUp, charge_seq: int) -> Attempt:
        return next(a for a in topup.out if a.charge_seq == charge_seq)

    def cancel(self, topup: TopUp, over: Sequence[Attempt]) -> Plan:  # noqa: ARG002
        """Refuse.

        Raises:
            PaymentForbidden: always.
        """
        raise PaymentForbidden("no_cancel", "what a seller holds cannot be taken back", remedy="wait for its deadline")

    async def revocation(self, topup: TopUp) -> Plan:
        """Refuse.

        Raises:
            PaymentForbidden: always.
        """
        raise PaymentForbidden("no_approval", f"{topup.id} has approved nothing", remedy="nothing")

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Refuse, see `cancel`."""
        return self._key().sign_cancel(plan)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Refuse, see `revocation`."""
        return self._key().sign_revocation(plan)

    def _key(self) -> Signer:
        if self._signer is None:
            raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
        return self._signer

    @staticmethod
    def _alone(over: Sequence[Attempt], *, bump: bool) -> None:
        if over or bump:
            raise PaymentForbidden("no_bump", "an authorization cannot be outbid", remedy="nothing: it is sent again")


def since(attempt: Attempt) -> int:
    """Return the first block in which this attempt may stand."""
    return max(0, attempt.plan.block_number - REPLACED_BLOCKS)
