"""What does the flow need of a way to pay: how to ask, prove, plan, send and find a payment?"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeGuard

from topup.domain.lifecycle import Broadcaster
from topup.ports.chain import Holdings, Observation, Preflight, Sent, Spent

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.domain.demand import Demand, Request, Verified
    from topup.domain.lifecycle import Attempt, Plan, TopUp
    from topup.domain.nonpayment import ChargeStatus, More


class Claim(StrEnum):
    """What the seller says of a purchase that the chain shows paid."""

    SILENT = "silent"  # it says nothing: it was not asked, cannot be asked, or gave no usable answer
    PENDING = "pending"
    CREDITED = "credited"
    FAILED = "failed"


class Rail(Protocol):
    """One way from dollars to credits: how to ask, how to prove, how to plan, send and find a payment.

    Attributes:
        chain_id: the chain it pays on.
        owners: how many independent providers of that chain are configured, whether or not they answer now.
        broadcaster: who puts its payments on the chain. Where it is the seller, we sign an authorization that moves
            the money once or never and hand it over: it has no place among the wallet's own transactions, can be
            neither outbid nor cancelled, and dies at its deadline.

    To ask fails with an `ApiError`; what is read or proven is refused with `ChargeRefused`; a proof or a plan may also
    end in `ChainError` or `PaymentForbidden`, a signature in `SignerError`.
    """

    broadcaster: Broadcaster

    @property
    def chain_id(self) -> int: ...
    @property
    def owners(self) -> int: ...
    async def ask(self, request: Request) -> bytes:
        """Request something payable; return it raw."""

    def read(self, raw: bytes) -> Demand:
        """Decode what was stored, without judging it."""

    async def prove(
        self, raw: bytes, request: Request, *, seen: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Verified, Preflight]:
        """Prove that it is what was asked for, by the chain's clock and ours; return what was surveyed beside it."""

    async def plan(
        self, verified: Verified, preflight: Preflight, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Price and simulate a payment of a verified charge; nothing is signed.

        `over` are attempts of ours from the wallet's next nonce on; this payment has to outbid those at its own.
        `bump` says that they are of the same charge, and that leaving them as they are is the alternative.
        """

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the plan; return raw bytes and hash."""

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        """Put a stored attempt on its way, byte for byte."""

    # As the chain answers, see `EvmChain` and `AuthorizedChain`; attempts come with their top-ups, charges by number.
    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[TopUp, Attempt]], *, every: bool = False
    ) -> Observation: ...
    async def payment_status(self, topup: TopUp, charge_seq: int) -> ChargeStatus | More: ...
    async def flag(self, topup: TopUp, charge_seq: int) -> bool: ...
    async def holdings(self, wallet: bytes) -> Holdings: ...
    async def claim(self, topup: TopUp) -> Claim:
        """Ask the seller what became of a paid top-up; evidence beside the credits, never instead of them."""


class WalletRail(Rail, Protocol):
    """A rail whose payments are transactions of our own wallet: they have a nonce, and so has what takes them back.

    See `topup/sellers/coinbase.py`. What cannot be cancelled or taken back now is a `PaymentForbidden`.
    """

    def cancel(self, topup: TopUp, over: Sequence[Attempt]) -> Plan: ...
    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]: ...
    async def revocation(self, topup: TopUp) -> Plan: ...
    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]: ...
    async def spent(self, wallet: bytes, number: int) -> Spent: ...


def sends(rail: Rail) -> TypeGuard[WalletRail]:
    """Tell whether its payments are transactions of our own wallet."""
    return rail.broadcaster is Broadcaster.US
