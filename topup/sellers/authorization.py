"""What do rails share whose sellers carry the payment to the chain? Looking for it, and all that cannot be done.

What is signed for them is told at `Rail.broadcaster`; nothing was approved that could be taken back.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from topup.domain.demand import Bounds, Clocks, Demand, Finding, Request, Verified, prove
from topup.domain.errors import ApiError, ApiGone, ApiRejected, ApiUnknown, ChainUnknown, PaymentForbidden, Reverted
from topup.domain.lifecycle import NO_WEI, REPLACED_BLOCKS, Attempt, Broadcaster, Kind, Plan, TopUp
from topup.domain.money import Asset
from topup.domain.nonpayment import ChargeStatus, More
from topup.domain.reasons import Reason
from topup.ports.account import Clock
from topup.ports.chain import AuthorizationUse, Delivery, Observation, Preflight, Sent, TokenChain
from topup.ports.signer import Signer
from topup.sellers.on_chain import REPEATED, OnChain
from topup.wire.exchange import Exchange, fail
from topup.wire.http import Answered
from topup.wire.reading import reading
from topup.wire.secrets import Masker


class Owed(Demand, Protocol):
    """A demand that says whose it is, by the base of the seller's URLs."""

    @property
    def seller(self) -> str: ...


O = TypeVar("O", bound=Owed)  # noqa: E741 - it is no zero here


@dataclass(frozen=True)
class Seller:
    """Who sells, and within which bounds; `pay_timeout_s` is how long it may take to carry a payment to the chain.

    `ours` finds our secrets, also those that he was never told: no demand is kept that holds one.
    """

    exchange: Exchange
    key: str
    bounds: Bounds
    pay_timeout_s: float
    ours: Masker


class Authorized(OnChain[TokenChain, O]):
    """The half of the `Rail` port that is the same for all of them."""

    broadcaster = Broadcaster.SERVER
    # The statuses by which the seller says that it has taken the payment.
    taken = range(200, 300)

    def __init__(self, seller: Seller, chain: TokenChain, signer: Signer | None, clock: Clock) -> None:
        """Join the ports; the seller's key is "" where it knows the wallet instead."""
        self._seller = seller
        super().__init__(chain, signer, clock)

    @abstractmethod
    def _findings(self, demand: O, request: Request) -> list[Finding]:
        """Judge what only this rail knows."""

    @abstractmethod
    def _use(self, demand: O, key: bytes, first: int) -> AuthorizationUse:
        """Return what its use leaves on the chain, from block `first` on; `key` is the attempt's hash."""

    @abstractmethod
    async def _present(self, topup: TopUp, demand: O, paying: str) -> Answered:
        """Send the request of a demand again with what pays it."""

    @abstractmethod
    def _receipt(self, answered: Answered) -> tuple[str, str]:
        """Return what the seller says of the payment, in a few words, and what it calls it: hints, never proofs."""

    def _access_key(self, sender: bytes) -> bytes | None:
        """Return which of the sender's access keys signs; None where the sender's own does."""
        return None

    def _unpaid(self, answered: Answered) -> None:
        """Let pass what an unpaid request should be answered, a 402; anything else is an `ApiError`."""
        said = [value.encode("utf-8", "replace") for _, value in answered.headers] + [answered.body]
        if any(map(self._seller.ours.holds, said)):
            raise ApiRejected(f"{answered.who} repeats the API key, or another secret", remedy=REPEATED)
        if answered.status in (404, 501) and not answered.page:
            raise ApiGone(f"{answered.who} answered {answered.status}", remedy="nothing is sold this way here")
        if 200 <= answered.status < 300:
            raise ApiUnknown(f"{answered.who} answered {answered.status} to an unpaid request")
        if answered.status != 402:
            fail(answered, self._seller.key)

    def _verified(self, demand: O, request: Request, clocks: Clocks, seen: Collection[tuple[bytes, bytes]]) -> Verified:
        return prove(demand, request, self._seller.bounds, clocks, self._findings(demand, request), seen=seen)

    async def _preflight(self, demand: O, request: Request) -> Preflight:
        use = self._use(demand, b"", 0)
        return await self._chain.preflight(request.sender, demand.contract, [use], key=self._access_key(request.sender))

    def findings(self, raw: bytes, request: Request) -> list[Finding]:
        """Return the lines of the proof that only this rail knows, or refuse what was stored and cannot be read."""
        return self._findings(self.read(raw), request)

    async def _planned(
        self, demand: O, preflight: Preflight, over: Sequence[Attempt], *, bump: bool, lane: int, asset: Asset
    ) -> Plan:
        """Run the transfer dry on the preflight's block, and plan the authorization of exactly that."""
        if over or bump:
            remedy = "nothing: it is sent again"
            raise PaymentForbidden(Reason.NO_BUMP, "an authorization cannot be outbid", remedy=remedy)
        try:
            await self._chain.simulate(demand.sender, demand.contract, (demand.recipient, demand.total), preflight.head)
        except Reverted as error:
            raise PaymentForbidden(
                Reason.SIMULATION, f"the transfer would revert: {error}", remedy=error.remedy
            ) from error
        return Plan(
            kind=Kind.PAY,
            to=demand.contract,
            data=b"",
            value=NO_WEI,
            gas_limit=0,
            max_fee_per_gas=NO_WEI,
            max_priority_fee_per_gas=NO_WEI,
            l1_fee=NO_WEI,
            lane=lane,
            nonce=0,
            chain_id=demand.chain_id,
            block_number=preflight.head.number,
            proof="eth_call",
            asset=asset,
            tokens=demand.total,
            broadcaster=Broadcaster.SERVER,
            ends_s=demand.deadline,
        )

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        """Hand what was signed over with the same request; what is answered is a hint, never a verdict."""
        assert attempt.raw is not None
        assert attempt.intended_ms is not None, "the intent to send is stored first"
        demand = self.read(topup.raw_of(attempt))
        if demand.seller != self._seller.exchange.base:
            # What was signed for one seller, with a key, is no business of another.
            other = f"not sent: it was signed for {demand.seller}, and api.url names another seller now"
            return Sent(Delivery.UNCLEAR, other)
        try:
            with reading("the seller", ApiUnknown):
                answered = await self._present(topup, demand, attempt.raw.decode())
                said, reference = self._receipt(answered)
        except ApiError as error:  # the payment may be on its way, whatever came back for it
            return Sent(Delivery.UNCLEAR, str(error))
        refused = Delivery.REFUSED if 400 <= answered.status < 500 else Delivery.UNCLEAR
        delivery = Delivery.ACCEPTED if answered.status in self.taken else refused
        return Sent(delivery, f"{answered.status}{said}", reference)

    def _traced(self, topup: TopUp, attempt: Attempt) -> AuthorizationUse:
        assert attempt.hash is not None
        first = max(0, attempt.plan.block_number - REPLACED_BLOCKS)
        return replace(self._use(self.read(topup.raw_of(attempt)), attempt.hash, first), ends_s=attempt.plan.ends_s)

    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[TopUp, Attempt]], *, every: bool = False
    ) -> Observation:
        return await self._chain.look([(self._traced(t, a), a.inclusion) for t, a in attempts], every=every)

    async def payment_status(self, topup: TopUp, charge_seq: int) -> ChargeStatus | More:
        """Ask whether a charge's authorization was ever used.

        The mark says "used", which is not "paid": where the chain has shown that it ran and failed, the mark is that.
        """
        attempt = self._of(topup, charge_seq)
        status = await self._chain.payment_status(self._traced(topup, attempt))
        failed = attempt.inclusion is not None and not attempt.inclusion.success
        if isinstance(status, ChargeStatus) and failed and not status.payers:
            return replace(status, flag=False)
        return status

    async def flag(self, topup: TopUp, charge_seq: int) -> bool:
        attempt = self._of(topup, charge_seq)
        use = self._traced(topup, attempt)
        return use.key in (await self._chain.look([(use, attempt.inclusion)])).used

    @staticmethod
    def _of(topup: TopUp, charge_seq: int) -> Attempt:
        signed = next((attempt for attempt in topup.out if attempt.charge_seq == charge_seq), None)
        if signed is None:
            raise ChainUnknown(f"{topup.id} has signed nothing for charge {charge_seq}")
        return signed
