"""What do all rails share? The chain that they pay on, and the key that signs."""

from __future__ import annotations

from typing import Generic, TypeVar

from topup.domain.errors import SignerError
from topup.domain.lifecycle import Plan
from topup.ports.account import Clock
from topup.ports.chain import Chain, Holdings, TokenChain
from topup.ports.signer import Signer

C = TypeVar("C", bound=Chain | TokenChain)


class OnChain(Generic[C]):
    """The part of the `Rail` port that is the same whoever sells."""

    def __init__(self, chain: C, signer: Signer | None, clock: Clock) -> None:
        """Join the ports; without a signer nothing can be signed."""
        self._chain = chain
        self._signer = signer
        self._clock = clock

    @property
    def chain_id(self) -> int:
        """Return the chain it pays on."""
        return self._chain.chain_id

    @property
    def owners(self) -> int:
        """Return how many independent providers of it are configured."""
        return self._chain.owners

    async def holdings(self, wallet: bytes) -> Holdings:
        """Read at a final block what a wallet holds of what is paid with."""
        return await self._chain.holdings(wallet)

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a planned cancel.

        Raises:
            SignerError: there is no key, or it refuses.
        """
        return self._key().sign_cancel(plan)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a planned revocation.

        Raises:
            SignerError: there is no key, or it refuses.
        """
        return self._key().sign_revocation(plan)

    def _key(self) -> Signer:
        if self._signer is None:
            raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
        return self._signer
