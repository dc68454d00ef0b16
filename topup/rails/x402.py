"""How are credits bought for a signed transfer of dollars? The rail of x402, scheme `exact` (EIP-3009).

The seller answers an unpaid request with offers; we sign an authorization that moves exactly so many dollars to exactly
one recipient, once or never, and hand it over with the same request. Whoever carries it to the chain pays the gas. The
signature is the payment: it is stored before it leaves, and what became of it only the chain tells.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from topup import typed
from topup.charge import Finding, Request, Verified
from topup.errors import ApiError, ChargeRefused
from topup.exchange import Answered
from topup.lifecycle import NO_TOKENS, Attempt, Plan, TopUp
from topup.money import Asset, Usd, Usdc
from topup.ports import Claim, Clock, Delivery, Sent, Signer, Survey, TokenChain, Trace
from topup.rails.authorized import Authorized, Seller
from topup.rails.x402_wire import Authorization, Offer, demanded, offers, payment_header, settled

NONCE_BYTES: Final = 32
# What we ask for ends so much before the longest life that is proven: the chain's clock may be behind ours.
CLOCKS_APART_S: Final = 60


@dataclass(frozen=True)
class Profile:
    """How one seller is asked.

    Attributes:
        path: where it sells, below the base URL.
        body: the request's body for so many dollars.
        minimum: whether the amount of its offer is the least it takes, and the payer chooses.
        bearer: whether it wants the API key.
        recipients: whom it is known to be paid by, 20 bytes each; None where nobody has published that.
    """

    path: str
    body: Callable[[Usd], bytes]
    minimum: bool
    bearer: bool
    recipients: frozenset[bytes] | None


PROFILES: Final[dict[str, Profile]] = {
    # veniceai/api-docs, swagger of 2026-08-21; the receiver stands in its guide.
    "venice": Profile(
        "/x402/top-up",
        lambda _: b"{}",
        minimum=True,
        bearer=False,
        recipients=frozenset({bytes.fromhex("2670B922ef37C7Df47158725C0CC407b5382293F")}),
    ),
    # docs.dria.co/docs/api/credits
    "plain": Profile(
        "/credits/topup",
        lambda amount: json.dumps({"amount": str(amount)}).encode(),
        minimum=False,
        bearer=True,
        recipients=None,
    ),
}


@dataclass(frozen=True)
class Token:
    """The dollar that is paid with: chain, address, and what it calls itself in signatures."""

    chain_id: int
    asset: Asset
    address: bytes
    name: str
    version: str


@dataclass(frozen=True)
class Ask:
    """An offer as it was answered, with what we chose for it: the `Demand` of this rail."""

    chain_id: int
    sender: bytes
    offer: Offer
    nonce: bytes
    total: Usdc
    deadline: int
    seller: str

    @property
    def charge_id(self) -> str:
        """Return the authorization's nonce, which nobody but us has named."""
        return "0x" + self.nonce.hex()

    @property
    def contract(self) -> bytes:
        """Return the token."""
        return self.offer.asset

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Return token and nonce: the token takes such a pair once."""
        return self.offer.asset, self.nonce

    @property
    def fee(self) -> Usdc:
        """Return nothing: nobody stands in between."""
        return NO_TOKENS

    @property
    def recipient(self) -> bytes:
        """Return who is paid."""
        return self.offer.pay_to

    @property
    def authorization(self) -> Authorization:
        """Return what is signed."""
        return Authorization(self.sender, self.recipient, self.total.units, 0, self.deadline, self.nonce)


class X402(Authorized[Ask]):
    """The `Rail` port for sellers that speak x402."""

    name = "x402"

    def __init__(
        self,
        seller: Seller,
        chain: TokenChain,
        signer: Signer | None,
        clock: Clock,
        *,
        profile: Profile,
        token: Token,
    ) -> None:
        """Join the ports; `profile` says how this seller is asked, `token` what it is paid with."""
        super().__init__(seller, chain, signer, clock)
        self._profile = profile
        self._token = token

    async def ask(self, request: Request) -> bytes:
        """Ask what is demanded, unpaid; return the answer with the nonce that was drawn for it.

        Raises:
            ApiError: anything but a 402 was answered.
        """
        answered = await self._post(request.amount, {})
        self._unpaid(answered)
        # Whatever is chosen for the offer is chosen now: settings may be others by the time it is read again.
        kept = {
            "seller": self._seller.exchange.base,
            "asked_s": self._clock.now_ms() // 1000,
            "life_max_s": self._seller.bounds.life_max_s - CLOCKS_APART_S,
            "chosen": self._profile.minimum,
            "nonce": secrets.token_bytes(NONCE_BYTES).hex(),
            "sender": request.sender.hex(),
            "chain_id": request.chain_id,
            "units": request.amount.usdc_up().units,
            "headers": answered.all("payment-required"),
            "body": base64.b64encode(answered.body).decode(),
        }
        return json.dumps(kept).encode()

    def read(self, raw: bytes) -> Ask:
        """Decode what was stored, and choose the offer that can be paid.

        Raises:
            ChargeRefused: the seller's answer is malformed, or offers nothing on this chain in this token.
        """
        try:
            kept: dict[str, Any] = json.loads(raw)
            headers, body = list(kept["headers"]), base64.b64decode(kept["body"], validate=True)
            nonce, sender = bytes.fromhex(kept["nonce"]), bytes.fromhex(kept["sender"])
            chain_id, units, chosen = int(kept["chain_id"]), int(kept["units"]), bool(kept["chosen"])
            asked_s, life_max_s, seller = int(kept["asked_s"]), int(kept["life_max_s"]), str(kept["seller"])
        except (ValueError, LookupError, TypeError, binascii.Error):
            raise ChargeRefused("answer", "not what was stored", "as it was stored") from None
        if len(headers) > 1:
            raise ChargeRefused("PAYMENT-REQUIRED", "given twice", "given once")
        document = demanded({"payment-required": headers[0]} if headers else {}, body)
        fitting = [
            offer
            for offer in offers(document)
            if (offer.chain_id, offer.asset, offer.scheme) == (chain_id, self._token.address, "exact")
        ]
        if not fitting:
            should_be = f"an offer `exact` of {self._token.asset} on chain {chain_id}"
            raise ChargeRefused("accepts", f"{len(offers(document))} offers, none of them so", should_be)
        offer = fitting[0]
        total = Usdc(units if chosen else offer.amount)
        return Ask(chain_id, sender, offer, nonce, total, asked_s + min(offer.max_timeout_s, life_max_s), seller)

    def _findings(self, demand: Ask, request: Request) -> list[Finding]:
        """Judge what only this rail knows."""
        offer, token = demand.offer, self._token
        extra = offer.raw.get("extra") or {}
        how, flow = extra.get("assetTransferMethod", "eip3009"), extra.get("paymentFlow", "authorization")
        named, wanted = (offer.name, offer.token_version), (token.name, token.version)
        least = request.amount.usdc_up()
        return [
            Finding("extra.name", str(named), str(wanted), named in (wanted, (None, None))),
            Finding("extra.assetTransferMethod", str(how)[:80], "eip3009", how == "eip3009"),
            Finding("extra.paymentFlow", str(flow)[:80], "authorization", flow == "authorization"),
            Finding(
                "amount",
                f"at least {Usdc(offer.amount)}",
                f"at most {least}",
                not self._profile.minimum or Usdc(offer.amount) <= least,
                remedy="raise policy.amount to what this seller sells at least",
            ),
        ]

    async def plan(
        self, verified: Verified, survey: Survey, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Plan the authorization on the survey's block, its transfer run dry; nothing is signed.

        Raises:
            PaymentForbidden: it would not move exactly this, or it cannot be outbid.
            ChainError: the chain could not be asked.
        """
        self._alone(over, bump=bump)
        nonce = verified.demand.identity[1]
        return await self._planned(verified.demand, survey, int.from_bytes(nonce, "big"), self._token.asset)

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the authorization; return the header that pays, as one line, and the authorization's nonce.

        Raises:
            SignerError: there is no key, or it refuses.
        """
        ask = verified.demand
        assert isinstance(ask, Ask)
        signature = self._key().sign_authorization(plan, verified)
        header, value = payment_header(ask.offer, ask.authorization, signature)
        return f"{header}: {value}".encode(), ask.nonce

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        """Hand the stored header over with the same request; what is answered is a hint, never a verdict."""
        assert attempt.raw is not None
        assert attempt.intended_ms is not None, "the intent to send is stored first"
        if (held := self._held(self.read(topup.raw_of(attempt)).seller)) is not None:
            return held
        name, _, value = attempt.raw.decode().partition(": ")
        try:
            answered = await self._post(topup.amount, {name: value}, timeout_s=self._seller.pay_timeout_s)
        except ApiError as error:
            return Sent(Delivery.UNCLEAR, str(error))
        said = settled(dict(answered.headers))
        detail = f"{answered.status}" + (f", settled {said.success}" if said is not None else "")
        if answered.status == 200:
            reference = "0x" + said.transaction.hex() if said is not None and said.transaction else ""
            return Sent(Delivery.ACCEPTED, detail, reference)
        return Sent(Delivery.REFUSED if 400 <= answered.status < 500 else Delivery.UNCLEAR, detail)

    async def claim(self, topup: TopUp) -> Claim:  # noqa: ARG002
        """Say nothing: the credits themselves tell."""
        return Claim.SILENT

    def _trace(self, demand: Ask, key: bytes, first: int) -> Trace:
        return Trace(
            key=key,
            hash=None,
            mark=(demand.contract, typed.mark_call(demand.sender, demand.nonce)),
            log=(demand.contract, typed.used_topics(demand.sender, demand.nonce)),
            token=demand.contract,
            sender=demand.sender,
            recipient=demand.recipient,
            tokens=demand.total,
            since=first,
            pays_fee=False,
        )

    async def _post(self, amount: Usd, paying: dict[str, str], *, timeout_s: float | None = None) -> Answered:
        headers = dict(paying)
        if self._profile.bearer:
            headers["authorization"] = f"Bearer {self._seller.key}"
        body = self._profile.body(amount)
        return await self._seller.exchange.ask(
            "POST", self._profile.path, headers=headers, body=body, timeout_s=timeout_s
        )
