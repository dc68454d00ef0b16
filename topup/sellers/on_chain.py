"""What do all rails share? How a demand is proven, the chain that they pay on, the key that signs, and their wall.

An answer that cannot be read is a refusal before anything is signed. What stands in it is judged, echoed and stored as
it came, so that it is read whole or refused whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Final, Generic, TypeVar

from topup.domain.demand import Clocks, Demand, Request, Verified
from topup.domain.errors import ChargeRefused, SignerError
from topup.domain.lifecycle import TopUp
from topup.ports.account import Clock
from topup.ports.chain import Chain, Holdings, Preflight, TokenChain
from topup.ports.rail import Claim
from topup.ports.signer import Signer
from topup.wire.reading import walled

C = TypeVar("C", bound=Chain | TokenChain)
D = TypeVar("D", bound=Demand)
# What to do about a seller whose answer holds a secret of ours.
REPEATED: Final = "trust this seller with no key: change it"


def unreadable(said: str) -> ChargeRefused:
    """Return the refusal of an answer that ends in an error nobody foresaw; `said` tells which."""
    return ChargeRefused("answer", said, "one that can be read")


class OnChain(ABC, Generic[C, D]):
    """The part of the `Rail` port that is the same whoever sells."""

    def __init__(self, chain: C, signer: Signer | None, clock: Clock) -> None:
        """Join the ports; without a signer nothing can be signed."""
        self._chain = chain
        self._signer = signer
        self._clock = clock

    @property
    def chain_id(self) -> int:
        return self._chain.chain_id

    @property
    def owners(self) -> int:
        return self._chain.owners

    async def holdings(self, wallet: bytes) -> Holdings:
        return await self._chain.holdings(wallet)

    @abstractmethod
    def read(self, raw: bytes) -> D:
        pass

    @walled("the answer", unreadable)
    async def prove(
        self, raw: bytes, request: Request, *, seen: Collection[tuple[bytes, bytes]]
    ) -> tuple[Verified, Preflight]:
        """Prove what is demanded by our clock, then by the chain's, which is asked nothing if ours refuses it."""
        demand = self.read(raw)

        def verified(chain_s: int) -> Verified:
            return self._verified(demand, request, Clocks(chain_s, self._clock.now_ms() // 1000), seen)

        verified(self._clock.now_ms() // 1000)
        preflight = await self._preflight(demand, request)
        return verified(preflight.head.timestamp_s), preflight

    @abstractmethod
    def _verified(self, demand: D, request: Request, clocks: Clocks, seen: Collection[tuple[bytes, bytes]]) -> Verified:
        """Hold a demand against everything but the chain's state."""

    @abstractmethod
    async def _preflight(self, demand: D, request: Request) -> Preflight:
        """Learn what the chain says beside it."""

    async def claim(self, topup: TopUp) -> Claim:
        """Say nothing, where the seller cannot be asked: the credits themselves tell."""
        return Claim.SILENT

    def _key(self) -> Signer:
        if self._signer is None:
            raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
        return self._signer
