"""How are credits bought by machine payment? The rail of `POST /credits/purchases`: method `tempo`, intent `charge`.

The seller answers an unpaid purchase with a challenge; we sign a whole Tempo transaction that pays it and hand it over
with the same request (pull mode), so that nothing is spent before the seller broadcasts. It stands on a nonce lane that
belongs to the purchase: whatever is signed for it later, one at most can run. After a credential has left, no answer
means "not paid": only the chain decides, and only the credits end it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from eth_utils.crypto import keccak

from topup import tempo
from topup.charge import Finding, Request, Verified
from topup.errors import ApiError, ChargeRefused
from topup.exchange import Answered
from topup.lifecycle import NO_TOKENS, Attempt, Plan, TopUp
from topup.money import Asset, Usd, Usdc, Wei, plain
from topup.ports import Claim, Clock, Delivery, Sent, Signer, Survey, TokenChain, Trace
from topup.rails.authorized import Authorized, Seller
from topup.rails.mpp_wire import (
    Challenge,
    TempoCharge,
    challenges,
    credential,
    memo,
    payer,
    receipt,
    tempo_charge,
)

# What a payment takes at most, whatever the seller's own dry run wants to see; what is not used costs nothing.
GAS_LIMIT: Final = 2_000_000
OWN_HEADER: Final = "Payment-Authorization"
# Gas is priced in 10^-18 dollars, the token's unit is 10^-6.
PRICES_PER_UNIT: Final = 10**12


@dataclass(frozen=True)
class Wire:
    """What the seller's pages do not tell, all of it here: paths, names of fields, words for a purchase's state."""

    path: str = "/credits/purchases"
    texts: tuple[str, ...] = ("/credits/purchases/setup", "/credits/purchases/SKILL.md")
    amount: str = "amount"
    envelopes: tuple[str, ...] = ("data",)
    id: str = "id"
    status: str = "status"
    states: tuple[tuple[str, Claim], ...] = (("credited", Claim.CREDITED), ("failed", Claim.FAILED))


WIRE: Final = Wire()


@dataclass(frozen=True)
class Due:
    """A challenge with what was chosen for it: the `Demand` of this rail."""

    sender: bytes
    challenge: Challenge
    terms: TempoCharge
    lane: int
    key: str
    seller: str

    @property
    def charge_id(self) -> str:
        """Return the challenge's id."""
        return ascii(self.challenge.get("id"))[1:-1][:120]

    @property
    def chain_id(self) -> int:
        """Return the chain, 0 where the challenge names none."""
        return self.terms.chain_id or 0

    @property
    def contract(self) -> bytes:
        """Return the token."""
        return self.terms.currency

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Return whose challenge it is, and which."""
        return keccak(text=self.challenge.get("realm")), keccak(text=self.challenge.get("id"))

    @property
    def total(self) -> Usdc:
        """Return what has to arrive."""
        return Usdc(self.terms.amount)

    @property
    def fee(self) -> Usdc:
        """Return nothing: nobody stands in between."""
        return NO_TOKENS

    @property
    def recipient(self) -> bytes:
        """Return who is paid."""
        return self.terms.recipient

    @property
    def deadline(self) -> int:
        """Return until when the challenge is taken, 0 where it does not say."""
        return self.terms.expires or 0

    @property
    def memo(self) -> bytes:
        """Return what binds the transfer to this challenge."""
        return memo(self.challenge.get("realm"), self.challenge.get("id"))


class Mpp(Authorized[Due]):
    """The `Rail` port for machine payments on Tempo."""

    name = "mpp"

    def __init__(self, seller: Seller, chain: TokenChain, signer: Signer | None, clock: Clock, *, realm: str) -> None:
        """Join the ports; challenges have to be of this realm. The seller's key is a management key."""
        super().__init__(seller, chain, signer, clock)
        self._realm = realm

    async def ask(self, request: Request) -> bytes:
        """Ask what a purchase costs, unpaid; return the challenges with the key and the lane that belong to it.

        Raises:
            ApiError: anything but a 402 was answered.
        """
        key = secrets.token_hex(16)
        answered = await self._post(request.amount, key, {})
        self._unpaid(answered)
        lane = tempo.lane_of(request.purchase.encode() if request.purchase else bytes.fromhex(key))
        kept = {
            "seller": self._seller.exchange.base,
            "key": key,
            "lane": hex(lane),
            "sender": request.sender.hex(),
            "challenges": [line for line in answered.all("www-authenticate") if line.isascii()],
        }
        return json.dumps(kept).encode()

    def read(self, raw: bytes) -> Due:
        """Decode what was stored, and take the one challenge that can be paid.

        Raises:
            ChargeRefused: a challenge is malformed, or there is not exactly one for `tempo` and `charge`.
        """
        try:
            kept: dict[str, Any] = json.loads(raw)
            lines, key, seller = list(kept["challenges"]), str(kept["key"]), str(kept["seller"])
            sender, lane = bytes.fromhex(kept["sender"]), int(kept["lane"], 16)
        except (ValueError, LookupError, TypeError):
            raise ChargeRefused("answer", "not what was stored", "as it was stored") from None
        found = challenges(lines)
        fitting = [one for one in found if (one.get("method"), one.get("intent")) == ("tempo", "charge")]
        if len(fitting) != 1:
            methods = ", ".join(f"{one.get('method')} {one.get('intent')}" for one in found)
            was = f"{len(fitting)} of {ascii(methods)[1:-1][:120] or 'none'}"
            raise ChargeRefused("WWW-Authenticate", was, "exactly one challenge of method tempo, intent charge")
        return Due(sender, fitting[0], tempo_charge(fitting[0]), lane, key, seller)

    def _findings(self, demand: Due, request: Request) -> list[Finding]:
        """Judge what only this rail knows."""
        told, challenge = demand.terms, demand.challenge
        realm, header, digest = challenge.get("realm"), challenge.get("header"), challenge.get("digest")
        body = base64.b64encode(hashlib.sha256(_body(request.amount)).digest()).decode()
        named = challenge.get("id")
        modes = ascii(", ".join(told.modes or ()))[1:-1]
        return [
            Finding("realm", ascii(realm)[:80], self._realm, realm == self._realm),
            Finding("id", ascii(named)[:80], "a text of up to 4096 characters", 0 < len(named) <= 4096),
            Finding("header", ascii(header)[:80], OWN_HEADER, header.lower() in ("", OWN_HEADER.lower())),
            Finding("digest", ascii(digest)[:80], f"sha-256=:{body}:", digest in ("", f"sha-256=:{body}:")),
            Finding("request.methodDetails.chainId", "missing", "named", told.chain_id is not None),
            Finding("request.methodDetails.feePayer", "true", "false", not told.fee_payer),
            Finding("request.methodDetails.splits", f"{len(told.splits)} of them", "none", not told.splits),
            Finding("request.methodDetails.memo", "theirs", "none", told.memo is None),
            Finding(
                "request.methodDetails.supportedModes", modes[:80], "pull", told.modes is None or "pull" in told.modes
            ),
            Finding("expires", "missing", "named", told.expires is not None),
        ]

    async def plan(
        self, verified: Verified, survey: Survey, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Plan the transaction on the survey's block, its transfer run dry; nothing is signed.

        Raises:
            PaymentForbidden: it would not move exactly this, or it cannot be outbid.
            ChainError: the chain could not be asked.
        """
        self._alone(over, bump=bump)
        due = verified.demand
        assert isinstance(due, Due)
        price = Wei(survey.base_fee.units * 3 // 2 + survey.tip.units)
        return replace(
            await self._planned(due, survey, due.lane, Asset.USDC_E),
            data=tempo.transfer_with_memo(due.recipient, due.total.units, due.memo),
            gas_limit=GAS_LIMIT,
            max_fee_per_gas=price,
            token_fee=Usdc(-(-price.units * GAS_LIMIT // PRICES_PER_UNIT)),
        )

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the transaction; return the credential that carries it, and the transaction's hash.

        Raises:
            SignerError: there is no key, or it refuses.
        """
        due = verified.demand
        assert isinstance(due, Due)
        raw, tx_hash = self._key().sign_tempo(plan, verified)
        payload = {"type": "transaction", "signature": "0x" + raw.hex()}
        return credential(due.challenge, payload, payer(due.chain_id, due.sender)).encode(), tx_hash

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        """Hand the stored credential over with the same request; what is answered is a hint, never a verdict."""
        assert attempt.raw is not None
        assert attempt.intended_ms is not None, "the intent to send is stored first"
        due = self.read(topup.raw_of(attempt))
        if (held := self._held(due.seller)) is not None:
            return held
        paying = {due.challenge.header.lower(): attempt.raw.decode()}
        try:
            answered = await self._post(topup.amount, due.key, paying, timeout_s=self._seller.pay_timeout_s)
        except ApiError as error:
            return Sent(Delivery.UNCLEAR, str(error))
        told = receipt(answered.first("payment-receipt"))
        settled = told.transaction if told is not None else None
        detail = f"{answered.status}" + (f", receipt for 0x{settled.hex()}" if settled else "")
        reference = _reference(answered, self._seller.key)
        if 200 <= answered.status < 300:
            return Sent(Delivery.ACCEPTED, detail, reference)
        return Sent(Delivery.REFUSED if 400 <= answered.status < 500 else Delivery.UNCLEAR, detail, reference)

    async def claim(self, topup: TopUp) -> Claim:
        """Ask the seller what it says of the purchase, where it has named one."""
        paid = topup.paying
        if paid is None or not paid.reference or self._held(self.read(topup.raw_of(paid)).seller) is not None:
            return Claim.SILENT
        try:
            answered = await self._seller.exchange.ask("GET", f"{WIRE.path}/{paid.reference}", headers=self._bearer())
        except ApiError:
            return Claim.SILENT
        status = _told(answered.body).get(WIRE.status) if answered.status == 200 else None
        return dict(WIRE.states).get(str(status), Claim.PENDING if isinstance(status, str) else Claim.SILENT)

    async def texts(self) -> dict[str, str]:
        """Return what the seller has written for machines, by path; "" for one that it does not give.

        Raises:
            ApiUnknown: no usable answer.
        """
        answers = [await self._seller.exchange.ask("GET", path, headers={}) for path in WIRE.texts]
        return {a.path: a.body.decode("utf-8", "replace") if a.status == 200 else "" for a in answers}

    def _access_key(self, sender: bytes) -> bytes | None:
        own = self._signer.address if self._signer is not None else sender
        return None if own == sender else own

    def _trace(self, demand: Due, key: bytes, first: int) -> Trace:
        return Trace(
            key=key,
            hash=key or None,
            mark=(tempo.NONCES, tempo.lane_call(demand.sender, demand.lane)),
            log=(demand.contract, tempo.memo_topics(demand.sender, demand.recipient, demand.memo)),
            token=demand.contract,
            sender=demand.sender,
            recipient=demand.recipient,
            tokens=demand.total,
            since=first,
            pays_fee=True,
        )

    async def _post(self, amount: Usd, key: str, paying: dict[str, str], *, timeout_s: float | None = None) -> Answered:
        # Where the credential has to stand in Authorization, the key has a header of its own.
        own = {"x-api-key": self._seller.key} if "authorization" in paying else self._bearer()
        headers = {**own, "idempotency-key": key, **paying}
        return await self._seller.exchange.ask(
            "POST", WIRE.path, headers=headers, body=_body(amount), timeout_s=timeout_s
        )

    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._seller.key}"}


def _body(amount: Usd) -> bytes:
    """Write the request: the amount as a JSON number from the Decimal's own text."""
    return f'{{"{WIRE.amount}": {plain(amount.amount)}}}'.encode()


def _reference(answered: Answered, secret: str) -> str:
    """Return what the seller calls the purchase: by the place it names, by the body, or by an error's metadata.

    It is kept and shown, so that nothing which repeats the API key is taken for it.
    """
    document = _told(answered.body)
    error = document.get("error")
    metadata = error.get("metadata") if isinstance(error, dict) else None
    said = metadata.get("purchase_id") if isinstance(metadata, dict) else document.get(WIRE.id)
    place = answered.first("location").rpartition("/")[2] if 200 <= answered.status < 300 else ""
    named = place or said
    plain_id = isinstance(named, str) and 0 < len(named) <= 100 and all(c.isalnum() or c in "_-" for c in named)
    leaks = bool(secret) and secret in str(named)
    return str(named) if plain_id and str(named).isascii() and not leaks else ""


def _told(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    for name in WIRE.envelopes:
        inner = document.get(name) if isinstance(document, dict) else None
        document = inner if isinstance(inner, dict) else document
    return document if isinstance(document, dict) else {}
