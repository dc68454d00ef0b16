"""How are credits bought for a signed transfer of dollars? The rail of x402, scheme `exact` (EIP-3009).

The seller answers an unpaid request with offers; we sign an authorization that moves exactly so many dollars to exactly
one recipient, once or never, and hand it over with the same request. Whoever carries it to the chain pays the gas. The
signature is the payment: it is stored before it leaves, and what became of it only the chain tells.
"""

import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from eth_utils.crypto import keccak

from topup.domain import typed_data
from topup.domain.demand import Finding, Request, Verified
from topup.domain.dollars import Dollar
from topup.domain.errors import ApiUnknown, ChargeRefused
from topup.domain.json_document import read
from topup.domain.lifecycle import NO_TOKENS, Attempt, Plan, TopUp
from topup.domain.money import Usd, Usdc
from topup.domain.typed_data import Authorization
from topup.ports.account import Clock
from topup.ports.chain import AuthorizationUse, Preflight, TokenChain
from topup.ports.signer import Signer
from topup.sellers.authorization import Authorized, Seller
from topup.sellers.on_chain import unreadable
from topup.sellers.x402_choice import Judged, Wanted, chosen, judge, judged, refusal
from topup.sellers.x402_profile import Profile, identity
from topup.sellers.x402_wire import TELL, Assumed, Login, Offer, demanded, listed, payment_header, settled
from topup.wire.http import Answered
from topup.wire.reading import walled

# What we ask for ends so much before the longest life that is proven: the chain's clock may be behind ours.
CLOCKS_APART_S: Final = 60
# What stands for the choice in an answer that was stored before choices were: the first offer in our token.
FIRST: Final = -1


class _Kept(NamedTuple):
    """An answer as it is stored, with all that was chosen for it when it came."""

    seller: str
    asked_s: int
    life_max_s: int
    minimum: bool
    nonce: bytes
    sender: bytes
    chain_id: int
    units: int
    usd: str
    choice: int | None
    request: tuple[str, str, bytes | None] | None
    document: bytes
    assumed: Assumed


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
    minimum: bool
    request: tuple[str, str, bytes | None] | None

    @property
    def charge_id(self) -> str:
        """Return the authorization's nonce, which nobody but us has named."""
        return "0x" + self.nonce.hex()

    @property
    def contract(self) -> bytes:
        return self.offer.asset

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Return token and nonce: the token takes such a pair once."""
        return self.offer.asset, self.nonce

    @property
    def fee(self) -> Usdc:
        return NO_TOKENS

    @property
    def recipient(self) -> bytes:
        return self.offer.pay_to

    @property
    def authorization(self) -> Authorization:
        return Authorization(self.sender, self.recipient, self.total.units, 0, self.deadline, self.nonce)


class X402(Authorized[Ask]):
    """The `Rail` port for sellers that speak x402."""

    taken = range(200, 201)

    def __init__(
        self,
        seller: Seller,
        chain: TokenChain,
        signer: Signer | None,
        clock: Clock,
        *,
        profile: Profile,
        token: Dollar,
        login: Login | None = None,
    ) -> None:
        """Join the ports; `profile` says how the seller is asked, `token` what is paid with, `login` who logs in."""
        super().__init__(seller, chain, signer, clock)
        self._profile = profile
        self._token = token
        self._login = login

    @walled("the seller", ApiUnknown)
    async def ask(self, request: Request) -> bytes:
        """Ask what is demanded, unpaid; return the answer with the nonce that belongs to it."""
        sale, asked = self._profile.sell, self._profile.request(request.amount, request.sender)
        answered = await self._exchanged(asked, {})
        self._unpaid(answered)
        # Whatever is chosen for the offer is chosen now: settings may be others by the time it is read again.
        kept = {
            "seller": self._seller.exchange.base,
            "asked_s": self._clock.now_ms() // 1000,
            "life_max_s": self._seller.bounds.life_max_s - CLOCKS_APART_S,
            "chosen": sale.minimum,
            "nonce": _nonce(request).hex(),
            "sender": request.sender.hex(),
            "chain_id": request.chain_id,
            "units": request.amount.usdc_up().units,
            "usd": str(request.amount.amount),
            "request": [*asked[:2], None if asked[2] is None else _base64(asked[2])],
            "carrier": sale.offer_header,
            "assumed": [sale.version, sale.timeout_s],
            "headers": answered.all(sale.offer_header.lower()),
            "choice": None,
            "body": _base64(answered.body),
        }
        with contextlib.suppress(ChargeRefused):  # `read` says why
            kept["choice"] = self.offered(json.dumps(kept).encode(), request)[1]
        return json.dumps(kept).encode()

    def offered(self, raw: bytes, request: Request) -> tuple[tuple[Judged, ...], int | None]:
        """Return every offer of an answer, judged, and which would be paid; a ChargeRefused where it is unreadable."""
        kept = _kept(raw)
        wanted = self._wanted(request, minimum=kept.minimum)
        each = judged(listed(kept.document, kept.assumed), wanted)
        return each, chosen(each, wanted)

    def would_pay(self, offer: Offer, raw: bytes, request: Request) -> str:
        """Return what an offer of this answer would cost, in whole dollars of the token."""
        return str(self._wanted(request, minimum=_kept(raw).minimum).total(offer).usdc)

    @walled("the answer", unreadable)
    def read(self, raw: bytes) -> Ask:
        """Decode what was stored, and take the offer that was chosen when it came."""
        kept = _kept(raw)
        every = listed(kept.document, kept.assumed)
        offer = self._taken(kept, every)
        if offer is None:
            wanted = self._wanted(Request(Usd.of(kept.usd), kept.sender, kept.chain_id, ""), minimum=kept.minimum)
            raise refusal(judged(every, wanted), wanted)
        return Ask(
            kept.chain_id,
            kept.sender,
            offer,
            kept.nonce,
            Usdc(kept.units if kept.minimum else offer.amount),
            kept.asked_s + min(offer.max_timeout_s, kept.life_max_s),
            kept.seller,
            kept.minimum,
            kept.request,
        )

    def _taken(self, kept: _Kept, every: Sequence[Offer | Finding]) -> Offer | None:
        """Return the offer that is paid: nothing but what was stored decides it, so that it stays the same."""
        read = [offer for offer in every if isinstance(offer, Offer)]
        if kept.choice == FIRST:
            ours = (kept.chain_id, self._token.token, "exact")
            return next((offer for offer in read if (offer.chain_id, offer.asset, offer.scheme) == ours), None)
        return next((offer for offer in read if offer.index == kept.choice), None)

    def _wanted(self, request: Request, *, minimum: bool) -> Wanted:
        bounds, sale = self._seller.bounds, self._profile.sell
        seller = f"the seller {self._profile.name}"
        return Wanted(self._token, request, minimum, bounds, sale.least_usd, sale.most_usd, seller)

    @walled("the answer", unreadable)
    def _findings(self, demand: Ask, request: Request) -> list[Finding]:
        """Judge the offer that was chosen once more, by the present settings; how long it lasts the clocks judge."""
        lines = judge(demand.offer, self._wanted(request, minimum=demand.minimum))
        named = {"payTo": "recipient"}
        return [replace(x, field=named.get(x.field, x.field)) for x in lines if x.field != "maxTimeoutSeconds"]

    async def plan(
        self, verified: Verified, preflight: Preflight, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        ask = verified.demand
        assert isinstance(ask, Ask)
        lane = int.from_bytes(ask.nonce, "big")
        return await self._planned(ask, preflight, over, bump=bump, lane=lane, asset=self._token.asset)

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the authorization; return the header that pays, as one line, and the authorization's nonce."""
        ask = verified.demand
        assert isinstance(ask, Ask)
        signature = self._key().sign_authorization(plan, verified)
        name = self._profile.sell.payment_header
        header, value = payment_header(ask.offer, ask.authorization, signature, name)
        return f"{header}: {value}".encode(), ask.nonce

    async def _present(self, topup: TopUp, demand: Ask, paying: str) -> Answered:
        name, _, value = paying.partition(": ")
        same = demand.request or self._profile.request(topup.amount, demand.sender)
        return await self._exchanged(same, {name: value}, timeout_s=self._seller.pay_timeout_s)

    def _receipt(self, answered: Answered) -> tuple[str, str]:
        receipt = settled(dict(answered.headers))
        if receipt is None:
            return "", ""
        paid = receipt.transaction if answered.status in self.taken else None
        return f", settled {receipt.success}", "0x" + paid.hex() if paid else ""

    def _use(self, demand: Ask, key: bytes, first: int) -> AuthorizationUse:
        return AuthorizationUse(
            key=key,
            hash=None,
            mark=(demand.contract, typed_data.mark_call(demand.sender, demand.nonce)),
            log=(demand.contract, typed_data.used_topics(demand.sender, demand.nonce)),
            token=demand.contract,
            sender=demand.sender,
            recipient=demand.recipient,
            tokens=demand.total,
            since=first,
            pays_fee=False,
        )

    async def _exchanged(
        self, request: tuple[str, str, bytes | None], paying: dict[str, str], *, timeout_s: float | None = None
    ) -> Answered:
        (method, path, body), exchange = request, self._seller.exchange
        at, auth, key = exchange.base + path, self._profile.sell.auth, self._seller.key
        who = identity(self._profile, auth, at, self._clock.now_ms(), key=key, login=self._login)
        return await exchange.ask(method, path, headers={**who, **paying}, body=body, timeout_s=timeout_s)


def _nonce(request: Request) -> bytes:
    # It belongs to a purchase and to how often it was demanded and proven. A ledger that was put back names the same
    # purchase again, so that of both authorizations the token takes one.
    if not request.purchase:
        return secrets.token_bytes(32)
    return keccak(f"topup authorization {request.purchase}/{request.proven}".encode())


def _kept(raw: bytes) -> _Kept:
    """Decode what was stored, or refuse what is not, or a header with the offers that is given twice or no base64."""
    try:
        kept: dict[str, Any] = read(raw)
        headers, body = list(kept["headers"]), base64.b64decode(kept["body"], validate=True)
        request, assumed = kept.get("request"), kept.get("assumed") or (None, None)
        choice, units = kept.get("choice", FIRST), int(kept["units"])
        carrier = str(kept.get("carrier", "payment-required")).lower()
        if len(headers) > 1:
            raise ChargeRefused(carrier.upper(), "given twice", "given once", remedy=TELL)
        return _Kept(
            seller=str(kept["seller"]),
            asked_s=int(kept["asked_s"]),
            life_max_s=int(kept["life_max_s"]),
            minimum=bool(kept["chosen"]),
            nonce=bytes.fromhex(kept["nonce"]),
            sender=bytes.fromhex(kept["sender"]),
            chain_id=int(kept["chain_id"]),
            units=units,
            usd=str(kept.get("usd", Usdc(units).usdc)),
            choice=None if choice is None else int(choice),
            request=None if request is None else (str(request[0]), str(request[1]), _unbase64(request[2])),
            document=demanded({carrier: headers[0]} if headers else {}, body, carrier),
            assumed=Assumed(*assumed),
        )
    except (ValueError, LookupError, TypeError, binascii.Error):
        raise ChargeRefused("answer", "not what was stored", "as it was stored") from None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
