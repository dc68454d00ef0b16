"""How would OpenRouter sell credits for a machine payment? A compatible seller on loopback that settles on Tempo.

It answers an unpaid purchase with challenges of the Payment scheme, checks the credential that comes back, broadcasts
the transaction inside it and waits for the chain. What a chain refuses is never taken; what it settles is taken,
whatever the answer says. Sources: OpenRouter's API reference; the drafts `httpauth-payment` and `tempo-charge`.
"""

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar, Final, Literal

from eth_utils.crypto import keccak

from topup.sandbox import gateway, mpp_wire
from topup.sandbox.charges import named_address
from topup.sandbox.fault import SETTLED
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response, answer_of
from topup.sandbox.mpp_faults import AFTER_SETTLING, FAULTS_AT, HOSTILE_OFFERS, OFFER_LIVES_S, SEVERAL, Offer
from topup.sandbox.mpp_wire import PURCHASES, Purchase
from topup.sandbox.rpc import Asked, RpcError
from topup.sandbox.seller import Carried, CarryingConduct, ChainSeller, Refused, unix_ms_of
from topup.sandbox.tempo import CHAIN_ID, USDC_E
from topup.sandbox.tempo_transfer import SPONSORS, Transfer, completed, decode, must_match, shows
from topup.sandbox.wire import GONE, error

Style = Literal["mppx", "pympp", "idempotent"]

COINBASE: Final = "/api/v1/credits/coinbase"

RECIPIENT: Final = named_address("topup sandbox: deposit")
CENT: Final = Decimal("0.01")
UNITS: Final = 10**6
BPS: Final = 10_000
ENOUGH_TIME_S: Final = 3  # What the chain's pool wants a transaction to have left.


@dataclass
class MppConduct(CarryingConduct):
    """How the seller behaves when nothing is wrong; may be changed while it runs.

    Attributes:
        style: what becomes of a credential that was settled before: a fresh challenge (mppx), a 403 (pympp), or the
            first answer once more (idempotent).
        realm: of the challenges; None: the host that the seller listens on, without its port.
        lifetime_s: of a challenge, in seconds.
        fee_bps: what the challenge asks for beyond the credits, rounded up to a cent.
        recipient_per_purchase: a deposit address for each purchase instead of one for all.
        currency: the token that is asked for.
        sponsored: whether the seller pays the network's fee, and completes the transaction itself.
    """

    style: Style = "mppx"
    realm: str | None = None
    lifetime_s: int = 300
    fee_bps: int = 0
    recipient_per_purchase: bool = False
    settles_late_ms: int = 2_000
    currency: str = USDC_E
    sponsored: bool = False


@dataclass
class Payment(Carried):
    """A transaction taken from a credential, and what became of it."""

    purchase: Purchase
    raw: bytes
    transfer: Transfer
    reverted: bool = False

    def accepted(self) -> Response:
        """Answer that it was taken: where to ask about the purchase, and a receipt for the transaction."""
        receipt = mpp_wire.receipt(self.transfer.hash, self.settled_ms or 0)
        headers = {"location": f"{PURCHASES}/{self.purchase.id}", "payment-receipt": receipt}
        return mpp_wire.document_of(202, self.purchase, self.purchase.status, headers)


@dataclass(frozen=True)
class Post:
    """One POST as it arrived: what a client must repeat exactly, and what it paid with."""

    key: str
    body: bytes
    credential: str | None


class Seller(ChainSeller):
    """The gateway's account and keys, with purchases over the Payment scheme in place of Coinbase charges.

    Besides the gateway's places, faults can be switched at `challenge` (an unpaid POST), `payment` (a paid one),
    `purchase` (the GET of one) and `texts`.

    Attributes:
        posts: every purchase POST that came with a good key, in order.
        payments: what was taken from credentials, by transaction hash.
        purchases: by Idempotency-Key.
        handed: the hash of everything that was handed over to be paid with, in hex, as the payer has signed it.
    """

    faults_at: ClassVar = {**gateway.FAULTS_AT, **FAULTS_AT}

    conduct: MppConduct

    def __init__(self, account: Account, chain: Asked, *, conduct: MppConduct | None = None) -> None:
        """Sell on this chain; the account's clock is the seller's."""
        super().__init__(account, conduct=conduct or MppConduct())
        self.chain = chain
        self.posts: list[Post] = []
        self.payments: dict[str, Payment] = {}
        self.purchases: dict[str, Purchase] = {}
        self.handed: set[str] = set()
        self._secret = secrets.token_bytes(32)
        self._first_options: list[dict[str, str]] = []
        self._replayed: set[str] = set()  # Ids of challenges that buy another purchase too.

    @property
    def realm(self) -> str:
        """What challenges of this seller are protected as."""
        return self.conduct.realm or "127.0.0.1"

    # Requests.

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        if request.path == COINBASE:
            return error(410, GONE)
        if request.path in gateway.PATHS:
            return await super()._answer_own(request, seen)
        text, purchase_id = mpp_wire.TEXTS.get(request.path), mpp_wire.purchase_id_of(request.path)
        if text is None and purchase_id is None and request.path != PURCHASES:
            return error(404, "Not Found")
        if request.method != ("POST" if request.path == PURCHASES else "GET"):
            return error(405, "Method Not Allowed")
        if text is not None:
            page = Response(200, text.encode(), {"content-type": "text/markdown; charset=utf-8"})
            return self._instead(self._spoil("texts", seen), page.body) or page
        refusal = self._stranger(seen, ordinary=True)
        if refusal is not None:
            return refusal
        return self._show(purchase_id, seen) if purchase_id else await self._sell(request, seen)

    def _key_of(self, request: Request) -> Literal["management", "ordinary", "none", "wrong"]:
        """Take the key from X-Api-Key too: then `Authorization` is free for a credential."""
        given = request.headers.get("x-api-key")
        return super()._key_of(
            request if given is None else replace(request, headers={"authorization": f"Bearer {given}"})
        )

    def _show(self, purchase_id: str, seen: Seen) -> Response | Raw:
        fault = self._spoil("purchase", seen)
        purchase = next((made for made in self.purchases.values() if made.id == purchase_id), None)
        if purchase is None:
            return error(404, "Purchase not found")
        said = {
            "stays-pending": "pending",
            "unknown-status": "requires_review",
            "says-failed": "failed",
            "says-credited": "credited",
        }
        document = mpp_wire.document_of(200, purchase, said.get(fault, purchase.status))
        return self._instead(fault, document.body) or document

    async def _sell(self, request: Request, seen: Seen) -> Response | Raw:
        key, credential = request.headers.get("idempotency-key", ""), mpp_wire.credential_of(request)
        self.posts.append(Post(key, request.body, credential))
        if not key:
            return error(400, "Idempotency-Key is required")
        try:
            amount = mpp_wire.amount_of(request.body, self.conduct)
        except ValueError as wrong:
            return error(400, f"Invalid request body: {wrong}")
        purchase = self.purchases.setdefault(key, Purchase("pi_" + secrets.token_hex(12), request.body, amount))
        if purchase.body != request.body:
            return error(422, "This Idempotency-Key was used with another body")
        fault = self._spoil("challenge" if credential is None else "payment", seen)
        instead = self._instead(fault)
        if instead is not None:
            return instead
        if credential is None or fault == "payment-required-402":
            return self._ask_for_money(purchase, fault)
        return await self._paid(purchase, credential, fault)

    # Challenges.

    def _ask_for_money(self, purchase: Purchase, fault: str = "", *, refused: Refused | None = None) -> Response:
        """Write the 402 or, after a credential that was refused, that refusal with challenges beside it."""
        why = refused or Refused(402, "payment-required", "Payment is required.")
        options = [mpp_wire.header(option) for option in self._options(purchase, fault)]
        if fault == "duplicate-parameter":
            options = [f'{option}, realm="{self.realm}"' for option in options]
        if fault == "joined-header":
            options = [", ".join(['Bearer realm="accounts"', *options])]
        return mpp_wire.problem(why, options)

    def _options(self, purchase: Purchase, fault: str) -> list[dict[str, str]]:
        opaque = mpp_wire.packed({"purchase": purchase.id})
        tempo = self._tempo(purchase, fault)
        card = replace(
            self._tempo(purchase, ""),
            method="stripe",
            request={
                "amount": str(int(_dear(purchase.amount_usd, self.conduct.fee_bps) * 100)),
                "currency": "usd",
                "methodDetails": {"networkId": "profile_sandbox", "paymentMethodTypes": ["card"]},
            },
        )
        ours = [made(tempo) for made in SEVERAL.get(fault, (lambda honest: honest,))]
        offers = [card] if fault == "card-only" else [*ours, card]
        options = [mpp_wire.sealed(offer, opaque, self._secret) for offer in offers]
        if fault == "one-id-for-two":
            dear = mpp_wire.sealed(HOSTILE_OFFERS["double-amount"](tempo), opaque, self._secret)
            options.insert(1, dear | {"id": options[0]["id"]})
        self._first_options = self._first_options or options
        if fault != "replayed-challenge":
            return options
        self._replayed |= {option["id"] for option in self._first_options}
        return self._first_options

    def _tempo(self, purchase: Purchase, fault: str) -> Offer:
        lifetime_s = OFFER_LIVES_S.get(fault, self.conduct.lifetime_s)
        offer = Offer(
            realm=self.realm,
            method="tempo",
            intent="charge",
            expires_ms=self.now_ms() + lifetime_s * 1000,
            description=f"{purchase.amount_usd} USD of credits",
            request={
                "amount": str(int(_dear(purchase.amount_usd, self.conduct.fee_bps) * UNITS)),
                "currency": self.conduct.currency,
                "recipient": self.recipient(purchase),
                "methodDetails": {"chainId": CHAIN_ID, "supportedModes": ["pull"]}
                | ({"feePayer": True} if self.conduct.sponsored else {}),
                "_mppx_scope": mpp_wire.SCOPE,
            },
        )
        return HOSTILE_OFFERS[fault](offer) if fault in HOSTILE_OFFERS else offer

    def recipient(self, purchase: Purchase) -> str:
        """Return who an honest challenge for this purchase pays."""
        return named_address(purchase.id) if self.conduct.recipient_per_purchase else RECIPIENT

    # Payments.

    async def _paid(self, purchase: Purchase, credential: str, fault: str) -> Response | Raw:
        try:
            async with purchase.turn:
                payment, again = self._take(purchase, credential)
                if not again:
                    await self._settle(payment, fault)
            if payment.settled_ms is None and fault != "accepts-never-settles":
                return mpp_wire.unconfirmed(purchase)
            if fault in AFTER_SETTLING:
                return self._spoilt_answer(payment, fault)
            if again and self.conduct.style != "idempotent":
                status = 403 if self.conduct.style == "pympp" else 402
                raise Refused(status, "verification-failed", "This transaction was used before.")  # noqa: TRY301
        except Refused as refused:
            return self._refusal(purchase, refused)
        return payment.accepted()

    def _refusal(self, purchase: Purchase, refused: Refused) -> Response:
        """As the servers differ: mppx invites to pay after anything, pympp only with its 402."""
        if refused.status == 402 or self.conduct.style == "mppx":
            return self._ask_for_money(purchase, refused=refused)
        if refused.status >= 500:
            return mpp_wire.unconfirmed(purchase)
        return mpp_wire.problem(refused, [])

    def _take(self, purchase: Purchase, credential: str) -> tuple[Payment, bool]:
        """Return what this credential pays with, and whether it settled something before. Raises Refused."""
        challenge, raw = self._verified(purchase, credential)
        if self.conduct.style == "idempotent":
            for earlier in self.payments.values():
                if earlier.purchase is purchase and earlier.settled_ms is not None:
                    return earlier, True
        transfer = decode(raw)
        known = self.payments.get(transfer.hash)
        if known is not None:
            self._look(known)
            return known, known.settled_ms is not None
        self._must_pay(challenge, transfer)
        payment = self.payments[transfer.hash] = Payment(purchase, raw, transfer)
        return payment, False

    def _verified(self, purchase: Purchase, credential: str) -> tuple[Mapping[str, str], bytes]:
        """Return the challenge that was echoed, proven ours, and the transaction. Raises Refused."""
        document = mpp_wire.unpacked(credential)
        challenge, payload = document.get("challenge"), document.get("payload")
        if not isinstance(challenge, dict) or not isinstance(payload, dict):
            raise Refused(402, "malformed-credential", "A credential has a challenge and a payload.")
        if not hmac.compare_digest(str(challenge.get("id")).encode(), mpp_wire.seal(challenge, self._secret).encode()):
            raise Refused(402, "invalid-challenge", "This challenge was not issued by this server.")
        if challenge["method"] != "tempo" or payload.get("type") != "transaction":
            raise Refused(400, "method-unsupported", "Only transactions on Tempo are taken.")
        if mpp_wire.packed({"purchase": purchase.id}) != challenge["opaque"] and challenge["id"] not in self._replayed:
            raise Refused(402, "invalid-challenge", "This challenge belongs to another purchase.")
        if unix_ms_of(challenge["expires"]) <= self.now_ms():
            raise Refused(402, "payment-expired", "This challenge has expired.")
        raw = payload.get("signature")
        if not isinstance(raw, str) or not re.fullmatch(r"0x7[68](?:[0-9a-f]{2})+", raw):
            raise Refused(402, "malformed-credential", "The signature is not a Tempo transaction.")
        source = document.get("source")
        whole = bytes.fromhex(raw[2:])
        self.handed.add(bytes(keccak(whole)).hex())
        if whole[:1] == b"\x78":
            whole = completed(whole, SPONSORS[0], self.conduct.currency, self.now_ms() // 1000)
        sender = decode(whole).sender
        if source is not None and str(source).lower() != f"did:pkh:eip155:{CHAIN_ID}:{sender}":
            raise Refused(402, "verification-failed", "The source is not the sender.")
        return challenge, whole

    def _must_pay(self, challenge: Mapping[str, str], transfer: Transfer) -> None:
        """Raise Refused unless the transfer is exactly what the challenge asks for."""
        must_match(transfer, mpp_wire.unpacked(challenge["request"]))
        if transfer.memo != mpp_wire.memo_of(challenge["realm"], challenge["id"]):
            raise Refused(403 if self.conduct.style == "pympp" else 402, "verification-failed", "The memo is not ours.")
        if transfer.valid_before is not None and transfer.valid_before * 1000 <= self.now_ms() + ENOUGH_TIME_S * 1000:
            raise Refused(500, "internal-payment-error", "The transaction is no longer valid.")

    async def _settle(self, payment: Payment, fault: str) -> None:
        await super()._settle(payment, fault)
        if payment.reverted:
            raise Refused(500, "internal-payment-error", "The transaction reverted.")
        if fault == "fails-after-settling":
            payment.purchase.refused = True

    def _submit(self, payment: Payment, _: str = "") -> None:
        payment.due_ms, payment.sent = None, True
        try:
            self.chain.rpc("eth_sendRawTransaction", ["0x" + payment.raw.hex()])
        except RpcError as refused:
            if not self._look(payment):
                raise Refused(500, "internal-payment-error", f"The chain refuses it: {refused}") from refused

    def _look(self, payment: Payment) -> bool:
        if payment.settled_ms is not None or payment.reverted:
            return True
        receipt = self.chain.rpc("eth_getTransactionReceipt", [payment.transfer.hash])
        if receipt is None:
            return False
        if shows(receipt, payment.transfer):
            payment.settled_ms = self.now_ms()
            payment.purchase.settled_ms = payment.purchase.settled_ms or payment.settled_ms
        else:
            payment.reverted = True
        return True

    def _spoilt_answer(self, payment: Payment, fault: str) -> Response | Raw:
        answer, purchase = payment.accepted(), payment.purchase
        instead = self._instead(fault.removeprefix(SETTLED), answer.body)
        if instead is not None:
            return instead
        if fault == "settled-payment-required-402":
            return self._ask_for_money(purchase)
        if fault == "settled-unconfirmed-503":
            return mpp_wire.unconfirmed(purchase)
        if fault == "no-purchase-id":
            headers = {name: text for name, text in answer.headers.items() if name != "location"}
            return answer_of(202, {"data": {}}, headers)
        headers = {name: text for name, text in answer.headers.items() if name != "payment-receipt"}
        if fault == "lying-receipt":
            headers["payment-receipt"] = mpp_wire.receipt("0x" + secrets.token_hex(32), self.now_ms())
        return answer if fault == "fails-after-settling" else Response(202, answer.body, headers)

    # The chain.

    def _carried(self) -> Iterable[Payment]:
        return self.payments.values()

    def _credit_due(self) -> None:
        for purchase in self.purchases.values():
            is_open = purchase.credited_ms is None and not purchase.refused
            if is_open and self._must_credit(purchase.settled_ms, purchase.amount_usd):
                self.account.total_credits += purchase.amount_usd
                purchase.credited_ms = self.now_ms()


def _dear(amount_usd: Decimal, fee_bps: int) -> Decimal:
    """Return the dollars that a challenge asks for: the credits and the fee, in whole cents, rounded up."""
    cents = int(amount_usd * 100)
    return Decimal(-(-cents * (BPS + fee_bps) // BPS)) * CENT
