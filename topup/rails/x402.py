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
from topup.charge import Bounds, Clocks, Finding, Request, Verified, prove
from topup.errors import ApiError, ApiGone, ApiUnknown, ChargeRefused, PaymentForbidden, Reverted
from topup.exchange import Answered, Exchange, fail
from topup.lifecycle import NO_TOKENS, Attempt, Broadcaster, Kind, Plan, TopUp
from topup.money import Asset, Usd, Usdc, Wei
from topup.ports import Claim, Clock, Delivery, Sent, Signer, Survey, TokenChain, Trace
from topup.rails.authorized import Authorized, since
from topup.rails.x402_wire import Authorization, Offer, demanded, offers, payment_header, settled

NONCE_BYTES: Final = 32


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
class Limits:
    """What an offer has to keep to; see `charge.Bounds`. `pay_timeout_s` is how long the paid request may take."""

    bounds: Bounds
    pay_timeout_s: float


@dataclass(frozen=True)
class Ask:
    """An offer as it was answered, with what we chose for it: the `Demand` of this rail."""

    chain_id: int
    sender: bytes
    offer: Offer
    nonce: bytes
    total: Usdc
    deadline: int

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


class X402(Authorized):
    """The `Rail` port for sellers that speak x402."""

    name = "x402"

    def __init__(
        self,
        exchange: Exchange,
        key: str,
        chain: TokenChain,
        signer: Signer | None,
        clock: Clock,
        profile: Profile,
        token: Token,
        limits: Limits,
    ) -> None:
        """Join the ports; `key` is the seller's API key, "" where it knows the wallet instead."""
        super().__init__(chain, signer)
        self._exchange = exchange
        self._api_key = key
        self._clock = clock
        self._profile = profile
        self._token = token
        self._limits = limits

    async def ask(self, request: Request) -> bytes:
        """Ask what is demanded, unpaid; return the answer with the nonce that was drawn for it.

        Raises:
            ApiError: anything but a 402 was answered.
        """
        answered = await self._post(request.amount, {})
        if answered.status in (404, 501):
            raise ApiGone(f"{answered.path} answered {answered.status}", remedy="this seller does not sell by x402")
        if answered.status == 200:
            raise ApiUnknown(f"{answered.path} answered 200 to an unpaid request")
        if answered.status != 402:
            fail(answered, self._api_key)
        kept = {
            "asked_s": self._clock.now_ms() // 1000,
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
        except (ValueError, LookupError, TypeError, binascii.Error):
            raise ChargeRefused("answer", "not what was stored", "as it was stored") from None
        if len(headers) > 1:
            raise ChargeRefused("PAYMENT-REQUIRED", "given twice", "given once")
        document = demanded({"payment-required": headers[0]} if headers else {}, body)
        chain_id, units = int(kept["chain_id"]), int(kept["units"])
        fitting = [
            offer
            for offer in offers(document)
            if (offer.chain_id, offer.asset, offer.scheme) == (chain_id, self._token.address, "exact")
        ]
        if not fitting:
            should_be = f"an offer `exact` of {self._token.asset} on chain {chain_id}"
            raise ChargeRefused("accepts", f"{len(offers(document))} offers, none of them so", should_be)
        offer = fitting[0]
        total = Usdc(units if self._profile.minimum else offer.amount)
        life_s = min(offer.max_timeout_s, self._limits.bounds.life_max_s)
        return Ask(chain_id, sender, offer, nonce, total, int(kept["asked_s"]) + life_s)

    async def prove(
        self, raw: bytes, request: Request, *, seen: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Verified, Survey]:
        """Prove an offer by our clock, then by the chain's; its nonce must not have been used.

        Raises:
            ChargeRefused: it is not what was asked for.
            ChainError: the chain's time could not be learnt.
            PaymentForbidden: the authorization was used, or there is no such token.
        """
        ask, used = self.read(raw), frozenset(seen)
        now_s = self._clock.now_ms() // 1000

        def judged(chain_s: int) -> Verified:
            clocks, findings = Clocks(chain_s, now_s), self._findings(ask, request)
            return prove(
                ask, request, self._limits.bounds, clocks, findings, seen=lambda token, one: (token, one) in used
            )

        judged(now_s)
        survey = await self._surveyed(request, ask.contract, _trace(ask, ask.nonce, 0))
        return judged(survey.head.timestamp_s), survey

    def _findings(self, ask: Ask, request: Request) -> list[Finding]:
        """Judge what only this rail knows."""
        offer, token = ask.offer, self._token
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

    def findings(self, raw: bytes, request: Request) -> list[Finding]:
        """Return the lines of the proof that only this rail knows, for a person to read.

        Raises:
            ChargeRefused: what was stored cannot be read.
        """
        return self._findings(self.read(raw), request)

    async def plan(
        self, verified: Verified, survey: Survey, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Plan the authorization on the survey's block, its transfer run dry; nothing is signed.

        Raises:
            PaymentForbidden: it would not move exactly this, or it cannot be outbid.
            ChainError: the chain could not be asked.
        """
        self._alone(over, bump=bump)
        ask = verified.demand
        try:
            await self._chain.rehearse(ask.sender, ask.contract, (ask.recipient, ask.total), survey.head)
        except Reverted as error:
            raise PaymentForbidden("simulation", f"the transfer would revert: {error}", remedy=error.remedy) from error
        nonce = ask.identity[1]
        return Plan(
            kind=Kind.PAY,
            to=ask.contract,
            data=b"",
            value=Wei(0),
            gas_limit=0,
            max_fee_per_gas=Wei(0),
            max_priority_fee_per_gas=Wei(0),
            l1_fee=Wei(0),
            lane=int.from_bytes(nonce, "big"),
            nonce=0,
            chain_id=ask.chain_id,
            quote=Wei(0),
            tier=0,
            eth_price_e8=0,
            block_number=survey.head.number,
            proof="eth_call",
            asset=self._token.asset,
            tokens=ask.total,
            broadcaster=Broadcaster.SERVER,
        )

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
        name, _, value = attempt.raw.decode().partition(": ")
        try:
            answered = await self._post(topup.amount, {name: value}, timeout_s=self._limits.pay_timeout_s)
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

    def _traced(self, topup: TopUp, attempt: Attempt) -> Trace:
        assert attempt.hash is not None
        return _trace(self.read(topup.raw_of(attempt)), attempt.hash, since(attempt))

    async def _post(self, amount: Usd, paying: dict[str, str], *, timeout_s: float | None = None) -> Answered:
        headers = dict(paying)
        if self._profile.bearer:
            headers["authorization"] = f"Bearer {self._api_key}"
        body = self._profile.body(amount)
        return await self._exchange.ask("POST", self._profile.path, headers=headers, body=body, timeout_s=timeout_s)


def _trace(ask: Ask, key: bytes, first: int) -> Trace:
    return Trace(
        key=key,
        hash=None,
        mark=(ask.contract, typed.mark_call(ask.sender, ask.nonce)),
        log=(ask.contract, typed.used_topics(ask.sender, ask.nonce)),
        token=ask.contract,
        sender=ask.sender,
        recipient=ask.recipient,
        tokens=ask.total,
        since=first,
        pays_fee=False,
    )
