"""How would OpenRouter sell credits for a machine payment? A compatible seller on loopback that settles on Tempo.

It answers an unpaid purchase with challenges of the Payment scheme, checks the credential that comes back, broadcasts
the transaction inside it and waits for the chain. Transactions are decoded here a second time, independently of the
code that signs them, so that one mistake cannot hide in both. What a chain refuses is never taken; what it settles is
taken, whatever the answer says. Sources: OpenRouter's API reference; the drafts `httpauth-payment` and `tempo-charge`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils.crypto import keccak

from topup.errors import Exit
from topup.sandbox import gateway
from topup.sandbox.charges import STRANGER, named_address
from topup.sandbox.gateway import LARGE_USD, Account, Conduct, Gateway, Seen, Switched, json_text
from topup.sandbox.http import REASONS, Raw, Request, Response
from topup.sandbox.rpc import Asked, RpcError
from topup.sandbox.tempo import CHAIN_ID, PATH_USD, USDC_E
from topup.sandbox.wire import GONE, WIRE_FAULTS, error

Json = Any
Style = Literal["mppx", "pympp", "idempotent"]
OwnPlace = Literal["challenge", "payment", "purchase", "texts"]
Place = gateway.Place | OwnPlace
Spent = Literal["zero", "one"]
_Outcome = tuple[str, Exit, Spent]


@dataclass(frozen=True)
class Names:
    """What OpenRouter's pages do not tell: the names and words of the JSON that goes in and out.

    Attributes:
        amount: of the request: US dollars, as a number or a text.
        envelope: around every answer.
        pending, credited, failed: values of `status`.
    """

    amount: str = "amount"
    envelope: str = "data"
    id: str = "id"
    status: str = "status"
    pending: str = "pending"
    credited: str = "credited"
    failed: str = "failed"


WIRE: Final = Names()

PURCHASES: Final = "/api/v1/credits/purchases"
COINBASE: Final = "/api/v1/credits/coinbase"
SCOPE: Final = f"POST {PURCHASES}"
OWN_HEADER: Final = "Payment-Authorization"
PROBLEMS: Final = "https://paymentauth.org/problems/"
MEMO_TAG: Final = bytes(keccak(text="mpp"))[:4] + b"\x01"

RECIPIENT: Final = named_address("topup sandbox: deposit")
OTHER_CHAIN_ID: Final = 42431  # The public test chain.
TRANSFER_WITH_MEMO: Final = bytes(keccak(text="transferWithMemo(address,uint256,bytes32)"))[:4]
TRANSFERRED_WITH_MEMO: Final = "0x" + bytes(keccak(text="TransferWithMemo(address,address,uint256,bytes32)")).hex()
CENT: Final = Decimal("0.01")
UNITS: Final = 10**6
BPS: Final = 10_000
LOOK_S: Final = 0.05
LONG_TEXT: Final = 8 * 1024  # A header that every client has to cope with may be half as long.
HUGE_TEXT: Final = 256 * 1024  # More than HTTP libraries read of a head.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ENOUGH_TIME_S: Final = 3  # What the chain's pool wants a transaction to have left.


@dataclass
class MppConduct(Conduct):
    """How the seller behaves when nothing is wrong; may be changed while it runs.

    Attributes:
        style: what becomes of a credential that was settled before: a fresh challenge (mppx), a 403 (pympp), or the
            first answer once more (idempotent).
        realm: of the challenges; None: the host that the seller listens on, without its port.
        lifetime_s: of a challenge, in seconds.
        fee_bps: what the challenge asks for beyond the credits, rounded up to a cent.
        recipient_per_purchase: a deposit address for each purchase instead of one for all.
        wait_s: how long a payment is waited for before the answer is 503, in seconds of the machine.
        settles_late_ms: how long `settles-late` keeps a transaction back.
    """

    style: Style = "mppx"
    realm: str | None = None
    lifetime_s: int = 300
    fee_bps: int = 0
    recipient_per_purchase: bool = False
    wait_s: int = 10
    settles_late_ms: int = 2_000


@dataclass(frozen=True)
class Offer:
    """What a challenge says before it is sealed; `request` is the JSON inside it."""

    realm: str
    method: str
    intent: str
    expires_ms: int
    description: str
    request: Mapping[str, Json]


@dataclass(frozen=True)
class Transfer:
    """A decoded transaction that makes one call; amounts in units of the token, addresses in lower case."""

    hash: str
    chain_id: int
    sender: str
    token: str
    recipient: str
    amount: int
    memo: bytes
    valid_before: int | None


@dataclass
class Payment:
    """A transaction taken from a credential, and what became of it; `due_ms` when it is still to be broadcast."""

    purchase: Purchase
    raw: bytes
    transfer: Transfer
    due_ms: int | None = None
    sent: bool = False
    settled_ms: int | None = None
    reverted: bool = False


@dataclass
class Purchase:
    """What one Idempotency-Key buys. `refused` marks one that will be called failed, though it was paid."""

    id: str
    key: str
    body: bytes
    amount_usd: Decimal
    settled_ms: int | None = None
    credited_ms: int | None = None
    refused: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def status(self) -> str:
        """What `GET /credits/purchases/{id}` says."""
        if self.refused and self.settled_ms is not None:
            return WIRE.failed
        return WIRE.pending if self.credited_ms is None else WIRE.credited


@dataclass(frozen=True)
class Post:
    """One POST as it arrived: what a client must repeat exactly, and what it paid with."""

    key: str
    body: bytes
    credential: str | None


class Refused(Exception):
    """A credential that buys nothing: status, problem type and what was wrong."""

    def __init__(self, status: int, problem: str, detail: str) -> None:
        """Keep the three parts."""
        super().__init__(detail)
        self.status = status
        self.problem = problem
        self.detail = detail


# What is wrong with a challenge, one change each.


def _asking(**changes: Json) -> Callable[[Offer], Offer]:
    return lambda offer: replace(offer, request={**offer.request, **changes})


def _detailed(**changes: Json) -> Callable[[Offer], Offer]:
    return lambda offer: _asking(methodDetails={**offer.request["methodDetails"], **changes})(offer)


def _without_chain(offer: Offer) -> Offer:
    details = {name: one for name, one in offer.request["methodDetails"].items() if name != "chainId"}
    return _asking(methodDetails=details)(offer)


def _times(percent: int) -> Callable[[Offer], Offer]:
    return lambda offer: _asking(amount=str(int(offer.request["amount"]) * percent // 100))(offer)


def _split(offer: Offer) -> Offer:
    return _detailed(splits=[{"recipient": STRANGER, "amount": str(int(offer.request["amount"]) // 2)}])(offer)


HOSTILE_OFFERS: Final[Mapping[str, Callable[[Offer], Offer]]] = MappingProxyType(
    {
        "other-recipient": _asking(recipient=STRANGER),
        "other-chain": _detailed(chainId=OTHER_CHAIN_ID),
        "no-chain-id": _without_chain,
        "other-token": _asking(currency=PATH_USD),
        "double-amount": _times(200),
        "dearer-amount": _times(109),
        "smaller-amount": _times(99),
        "zero-amount": _asking(amount="0"),
        "splits": _split,
        "their-memo": _detailed(memo="0x" + "ab" * 32),
        "fee-payer": _detailed(feePayer=True),
        "push-only": _detailed(supportedModes=["push"]),
        "other-realm": lambda offer: replace(offer, realm="pay.example"),
        "other-intent": lambda offer: replace(offer, intent="session"),
        "lying-description": lambda offer: replace(offer, description="0.01 USD, paid to nobody, refundable"),
        "long-header": lambda offer: replace(offer, description="credits, and " * (LONG_TEXT // 13)),
        "huge-header": lambda offer: replace(offer, description="credits, and " * (HUGE_TEXT // 13)),
    }
)
OFFER_LIVES_S: Final[Mapping[str, int]] = MappingProxyType({"expired": -1, "about-to-expire": 4})
CHALLENGE_FAULTS: Final = frozenset(
    {"replayed-challenge", "duplicate-parameter", "two-tempo-challenges", "card-only", "not-found-404"}
    | {"not-implemented-501", "redirect-307"}
    | set(HOSTILE_OFFERS)
    | set(OFFER_LIVES_S)
)
# Instead of settling, and after it. Every wire fault has both forms too: `reset` and `settled-reset`.
UNSETTLED: Final = frozenset(
    {"settles-late", "never-settles", "accepts-never-settles", "payment-required-402", "redirect-307"}
)
SETTLED: Final = "settled-"
AFTER_SETTLING: Final = frozenset(
    {"settled-payment-required-402", "settled-unconfirmed-503", "settled-redirect-307"}
    | {SETTLED + name for name in WIRE_FAULTS}
    | {"no-purchase-id", "no-receipt", "lying-receipt", "fails-after-settling"}
)
FAULTS_AT: Final[Mapping[OwnPlace, frozenset[str]]] = MappingProxyType(
    {
        "challenge": CHALLENGE_FAULTS | frozenset(WIRE_FAULTS),
        "payment": UNSETTLED | AFTER_SETTLING | frozenset(WIRE_FAULTS),
        "purchase": frozenset({"stays-pending", "unknown-status", "says-failed", "says-credited", *WIRE_FAULTS}),
        "texts": frozenset(WIRE_FAULTS),
    }
)


@dataclass(frozen=True)
class MppSwitch:
    """One switch of the seller: where, which fault, for how many requests (None: all)."""

    place: Place
    name: str
    times: int | None = None


@dataclass(frozen=True)
class MppFault:
    """One thing that goes wrong. Fields and results are those of `faults.Fault`."""

    name: str
    says: str
    switches: tuple[MppSwitch, ...]
    expected_result: str
    expected_exit: int
    expected_spent: Spent
    refills: int = 1  # How many refills the run goes on for.


def _row(name: str, says: str, place: Place, fault: str, outcome: _Outcome, times: int | None = None) -> MppFault:
    return MppFault(name, says, (MppSwitch(place, fault, times),), *outcome)


_REFILLED: Final[_Outcome] = ("refilled", Exit.OK, "one")
_WAITING: Final[_Outcome] = ("waiting", Exit.LATER, "zero")
_REFUSED: Final[_Outcome] = ("refused", Exit.PERSON, "zero")
_GONE: Final[_Outcome] = ("gone", Exit.PERSON, "zero")
_UNCREDITED: Final[_Outcome] = ("uncredited", Exit.MONEY_MAY_HAVE_MOVED, "one")

_CHALLENGES: Final = {
    "other-recipient": "The challenge pays a stranger; the recipient was pinned.",
    "other-chain": "The challenge is for Tempo's test chain.",
    "no-chain-id": "The challenge names no chain: the draft and the SDKs disagree on which is meant.",
    "other-token": "The challenge asks for another dollar, pathUSD.",
    "double-amount": "The challenge asks for twice the amount.",
    "dearer-amount": "The challenge asks for 9 % more than the credits cost.",
    "smaller-amount": "The challenge asks for 1 % less than the credits it promises.",
    "zero-amount": "The challenge asks for nothing: what is signed for it is a proof, not a payment.",
    "splits": "The challenge sends half of the amount to a stranger.",
    "their-memo": "The challenge prescribes the memo, which would then not be ours to find.",
    "fee-payer": "The challenge offers to pay the fee: the transaction's hash would not be known to us.",
    "push-only": "The challenge wants us to broadcast, and to be told the hash.",
    "other-realm": "The challenge is another host's.",
    "other-intent": "The challenge opens a session instead of charging once.",
    "expired": "The challenge expired a second ago.",
    "about-to-expire": "The challenge lives for four seconds.",
    "duplicate-parameter": "The challenge names its realm twice.",
    "two-tempo-challenges": "There are two challenges on Tempo, one of which pays a stranger.",
    "card-only": "Only a card is taken.",
}
_ANSWERS: Final = {
    "gone-410": "says that it is gone for good",
    "unauthorized-401": "does not know the key",
    "forbidden-403": "wants another kind of key",
    "rate-limited-429": "asks for patience",
    "server-error-500": "fails",
    "bad-gateway-502": "lets a proxy answer, in HTML",
    "unavailable-503": "is unavailable and says when to return",
    "time-out": "never answers",
    "reset": "cuts the connection",
    "trickle": "answers one byte at a time, without end",
    "html-200": "answers 200 with a web page",
    "truncated-json": "ends in the middle of the document",
    "short-body": "sends less than it announced",
    "null-body": "answers null",
    "redirect-302": "points to another server",
    "oversized": "answers with 64 MB",
    "gzip-bomb": "answers with what unpacks to 64 MB",
    "payment-required-402": "asks for payment once more, with a fresh challenge",
    "redirect-307": "points to another server, and would have the credential sent there",
}
_OF_PRICE: Final = {
    "gone-410": _GONE,
    "unauthorized-401": _REFUSED,
    "forbidden-403": _REFUSED,
}

_ALL: Final = (
    # Challenges that are sealed rightly and are not what was asked for.
    *(_row(name, says, "challenge", name, _REFUSED) for name, says in _CHALLENGES.items()),
    MppFault(
        "replayed-challenge",
        "After the first, each purchase is given the first one's challenge again.",
        (MppSwitch("challenge", "replayed-challenge"),),
        "refused",
        Exit.PERSON,
        "one",
        refills=2,
    ),
    _row("lying-description", "The description promises another price.", "challenge", "lying-description", _REFILLED),
    _row("long-header", "The challenge is 8 KB long.", "challenge", "long-header", _REFILLED),
    _row("huge-header", "The challenge is 256 KB long.", "challenge", "huge-header", _WAITING),
    # Asked for a price.
    _row("challenge-not-found-404", "There is no such endpoint.", "challenge", "not-found-404", _GONE),
    _row("challenge-not-implemented-501", "The endpoint is not served.", "challenge", "not-implemented-501", _GONE),
    *(
        _row(
            f"challenge-{name}",
            f"Asked for a price, the seller {says}.",
            "challenge",
            name,
            _OF_PRICE.get(name, _WAITING),
        )
        for name, says in _ANSWERS.items()
        if name != "payment-required-402"
    ),
    # Given a credential.
    *(
        _row(
            f"payment-{name}", f"Given a credential, the seller {says}; it settles nothing.", "payment", name, _WAITING
        )
        for name, says in _ANSWERS.items()
    ),
    *(
        _row(f"payment-{name}-once", f"Given a credential, the seller {says}, once.", "payment", name, _REFILLED, 1)
        for name, says in _ANSWERS.items()
    ),
    *(
        _row(f"settled-{name}", f"The seller settles, then {says}.", "payment", f"settled-{name}", _REFILLED)
        for name, says in _ANSWERS.items()
    ),
    _row(
        "settled-unconfirmed-503",
        "The seller settles, and says that it could not be confirmed.",
        "payment",
        "settled-unconfirmed-503",
        _REFILLED,
    ),
    _row("settles-late", "The seller says 503 and settles seconds later.", "payment", "settles-late", _REFILLED),
    _row("never-settles", "The seller says 503 and never settles.", "payment", "never-settles", _WAITING),
    _row(
        "accepts-never-settles", "The seller says 202 and never settles.", "payment", "accepts-never-settles", _WAITING
    ),
    _row(
        "no-purchase-id", "The seller settles and does not say which purchase.", "payment", "no-purchase-id", _REFILLED
    ),
    _row("no-receipt", "The seller settles and gives no receipt.", "payment", "no-receipt", _REFILLED),
    _row("lying-receipt", "The receipt names another transaction.", "payment", "lying-receipt", _REFILLED),
    _row(
        "fails-after-settling",
        "What was settled is called failed, for good.",
        "payment",
        "fails-after-settling",
        _UNCREDITED,
    ),
    # Asked about the purchase.
    *(
        _row(f"purchase-{name}", f"Asked about the purchase, the seller {says}.", "purchase", name, _REFILLED)
        for name, says in _ANSWERS.items()
        if name in WIRE_FAULTS
    ),
    _row("stays-pending", "The purchase is pending for ever, though credited.", "purchase", "stays-pending", _REFILLED),
    _row("unknown-status", "The purchase has a status never heard of.", "purchase", "unknown-status", _REFILLED),
    _row("says-failed", "The purchase is called failed, though credited.", "purchase", "says-failed", _REFILLED),
    MppFault(
        "says-credited",
        "The purchase is called credited, though it never is.",
        (MppSwitch("purchase", "says-credited"), MppSwitch("posting", "never-posts")),
        *_UNCREDITED,
    ),
    # Posting.
    _row("never-credits", "Payments settle and are never credited.", "posting", "never-posts", _UNCREDITED),
    _row("credits-late", "Payments are credited an hour late.", "posting", "posts-late", _REFILLED),
)
MPP_FAULTS: Final[Mapping[str, MppFault]] = MappingProxyType({fault.name: fault for fault in _ALL})

SETUP: Final = f"""# Buying credits with a machine payment

1. Create a management key.
2. `{SCOPE}` with the key in `X-Api-Key` or as a Bearer token, an `Idempotency-Key` of your own, and a JSON body:
   `{{"{WIRE.amount}": 10}}`, in US dollars.
3. The answer is 402 with one `WWW-Authenticate: Payment` header for each way to pay: USDC on Tempo, or a card.
4. Send the same request again with the credential in `{OWN_HEADER}`.
5. The answer is 202 with a `Location`. Poll it until `{WIRE.status}` is `{WIRE.credited}` or `{WIRE.failed}`.
"""
SKILL: Final = f"""---
name: buy-credits
description: Buy credits for this account with USDC on Tempo.
---

{SETUP}"""


class Seller(Gateway):
    """The gateway's account and keys, with purchases over the Payment scheme in place of Coinbase charges.

    `start` it, and call `poll` on a timer. Besides the gateway's places, faults can be switched at `challenge` (an
    unpaid POST), `payment` (a paid one), `purchase` (the GET of one) and `texts`.

    Attributes:
        posts: every purchase POST that came with a good key, in order.
        payments: what was taken from credentials, by transaction hash.
        purchases: by Idempotency-Key.
    """

    conduct: MppConduct

    def __init__(self, account: Account, chain: Asked, *, conduct: MppConduct | None = None) -> None:
        """Sell on this chain; the account's clock is the seller's."""
        super().__init__(account, conduct=conduct or MppConduct())
        self.chain = chain
        self.posts: list[Post] = []
        self.payments: dict[str, Payment] = {}
        self.purchases: dict[str, Purchase] = {}
        self._secret = secrets.token_bytes(32)
        self._spoilt: dict[OwnPlace, list[Switched]] = {place: [] for place in get_args(OwnPlace)}
        self._first_options: list[dict[str, str]] = []
        self._replayed: set[str] = set()  # Ids of challenges that buy another purchase too.

    @property
    def realm(self) -> str:
        """What challenges of this seller are protected as."""
        return self.conduct.realm or "127.0.0.1"

    def count(self, place: Place) -> int:
        """How many requests one endpoint has had, answered or not."""
        if place == "challenge":
            return sum(post.credential is None for post in self.posts)
        if place == "payment":
            return sum(post.credential is not None for post in self.posts)
        if place == "purchase":
            return sum(seen.method == "GET" and _purchase_id(seen.path) is not None for seen in self.requests)
        if place == "texts":
            return sum(seen.path in TEXTS for seen in self.requests)
        return super().count(place)

    # Faults.

    def switch_on(self, place: Place, name: str, times: int | None = None) -> None:
        """Spoil the next `times` requests at `place` (None: all), as the gateway does.

        Raises KeyError for a fault that this place does not have.
        """
        match place:
            case "challenge" | "payment" | "purchase" | "texts":
                if name not in FAULTS_AT[place]:
                    raise KeyError(f"{place} has no fault called {name!r}")
                self._spoilt[place].append(Switched(name, times))
            case _:
                super().switch_on(place, name, times)

    def switch_off(self, place: Place | None = None) -> None:
        """End all faults, or those of one place."""
        match place:
            case "challenge" | "payment" | "purchase" | "texts":
                self._spoilt[place].clear()
            case _:
                super().switch_off(place)
        if place is None:
            for switched in self._spoilt.values():
                switched.clear()

    def _spoil(self, place: OwnPlace) -> str | None:
        for fault in self._spoilt[place]:
            if fault.left is None:
                return fault.name
            if fault.left > 0:
                fault.left -= 1
                return fault.name
        return None

    # Requests.

    async def _answer(self, request: Request) -> Response | Raw:
        if request.path in gateway.PATHS and request.path != COINBASE:
            return await super()._answer(request)
        seen = Seen(self.now_ms(), request.method, request.path, request.body, self._key_of(request))
        self.requests.append(seen)
        answer = await self._answer_own(request, seen)
        if isinstance(answer, Response):
            seen.status = answer.status
        return answer

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        if request.path == COINBASE:
            return error(410, GONE)
        text, purchase_id = TEXTS.get(request.path), _purchase_id(request.path)
        if text is None and purchase_id is None and request.path != PURCHASES:
            return error(404, "Not Found")
        if request.method != ("POST" if request.path == PURCHASES else "GET"):
            return error(405, "Method Not Allowed")
        if text is not None:
            seen.fault = self._spoil("texts")
            page = Response(200, text.encode(), {"content-type": "text/markdown; charset=utf-8"})
            return self._wired(seen.fault, page.body) or page
        if seen.key == "none":
            return error(401, "Missing Authentication header")
        if seen.key == "wrong":
            return error(401, "Invalid API key")
        if seen.key == "ordinary":
            return error(403, "Only management keys can perform this operation")
        return self._show(purchase_id, seen) if purchase_id else await self._sell(request, seen)

    def _key_of(self, request: Request) -> Literal["management", "ordinary", "none", "wrong"]:
        """Take the key from X-Api-Key too: then `Authorization` is free for a credential."""
        given = request.headers.get("x-api-key")
        return super()._key_of(
            request if given is None else replace(request, headers={"authorization": f"Bearer {given}"})
        )

    def _wired(self, fault: str | None, honest: bytes) -> Response | Raw | None:
        return WIRE_FAULTS[fault](self.wire, lambda: honest) if fault and fault in WIRE_FAULTS else None

    def _show(self, purchase_id: str, seen: Seen) -> Response | Raw:
        seen.fault = self._spoil("purchase")
        purchase = next((one for one in self.purchases.values() if one.id == purchase_id), None)
        if purchase is None:
            return error(404, "Purchase not found")
        said = {
            "stays-pending": WIRE.pending,
            "unknown-status": "requires_review",
            "says-failed": WIRE.failed,
            "says-credited": WIRE.credited,
        }
        document = _document(200, purchase, said.get(seen.fault or "", purchase.status))
        return self._wired(seen.fault, document.body) or document

    async def _sell(self, request: Request, seen: Seen) -> Response | Raw:
        key, credential = request.headers.get("idempotency-key", ""), _credential(request)
        self.posts.append(Post(key, request.body, credential))
        if not key:
            return error(400, "Idempotency-Key is required")
        try:
            amount = _amount(request.body, self.conduct)
        except ValueError as wrong:
            return error(400, f"Invalid request body: {wrong}")
        purchase = self.purchases.setdefault(key, Purchase(_new_id(), key, request.body, amount))
        if purchase.body != request.body:
            return error(422, "This Idempotency-Key was used with another body")
        if credential is None:
            seen.fault = self._spoil("challenge")
            return self._challenge(purchase, seen)
        seen.fault = self._spoil("payment")
        return await self._paid(purchase, credential, seen)

    # Challenges.

    def _challenge(self, purchase: Purchase, seen: Seen) -> Response | Raw:
        fault = seen.fault
        gone = {"not-found-404": (404, "Not Found"), "not-implemented-501": (501, "Not Implemented")}
        if fault in gone:
            return error(*gone[fault])
        if fault == "redirect-307":
            return self._redirect()
        return self._wired(fault, b"{}") or self._ask_for_money(purchase, seen, fault)

    def _ask_for_money(
        self,
        purchase: Purchase,
        seen: Seen,
        fault: str | None = None,
        *,
        refused: Refused | None = None,
    ) -> Raw:
        """Write the 402 or, after a credential that was refused, that refusal with challenges beside it."""
        why = refused or Refused(402, "payment-required", "Payment is required.")
        seen.status = why.status
        options = [_header(one) for one in self._options(purchase, fault)]
        if fault == "duplicate-parameter":
            options = [f'{one}, realm="{self.realm}"' for one in options]
        return _problem(why, options)

    def _options(self, purchase: Purchase, fault: str | None) -> list[dict[str, str]]:
        opaque = _packed({"purchase": purchase.id})
        tempo = self._tempo(purchase, fault)
        card = replace(
            self._tempo(purchase, None),
            method="stripe",
            request={
                "amount": str(int(_dear(purchase.amount_usd, self.conduct.fee_bps) * 100)),
                "currency": "usd",
                "methodDetails": {"networkId": "profile_sandbox", "paymentMethodTypes": ["card"]},
            },
        )
        offers = [card] if fault == "card-only" else [tempo, card]
        if fault == "two-tempo-challenges":
            offers.insert(1, HOSTILE_OFFERS["other-recipient"](tempo))
        options = [self._sealed(offer, opaque) for offer in offers]
        self._first_options = self._first_options or options
        if fault != "replayed-challenge":
            return options
        self._replayed |= {one["id"] for one in self._first_options}
        return self._first_options

    def _tempo(self, purchase: Purchase, fault: str | None) -> Offer:
        lifetime_s = OFFER_LIVES_S.get(fault or "", self.conduct.lifetime_s)
        offer = Offer(
            realm=self.realm,
            method="tempo",
            intent="charge",
            expires_ms=self.now_ms() + lifetime_s * 1000,
            description=f"{purchase.amount_usd} USD of credits",
            request={
                "amount": str(int(_dear(purchase.amount_usd, self.conduct.fee_bps) * UNITS)),
                "currency": USDC_E,
                "recipient": self.recipient(purchase),
                "methodDetails": {"chainId": CHAIN_ID, "supportedModes": ["pull"]},
                "_mppx_scope": SCOPE,
            },
        )
        return HOSTILE_OFFERS[fault](offer) if fault and fault in HOSTILE_OFFERS else offer

    def recipient(self, purchase: Purchase) -> str:
        """Return who an honest challenge for this purchase pays."""
        return named_address(purchase.id) if self.conduct.recipient_per_purchase else RECIPIENT

    def _sealed(self, offer: Offer, opaque: str) -> dict[str, str]:
        parameters = {
            "realm": offer.realm,
            "method": offer.method,
            "intent": offer.intent,
            "request": _packed(offer.request),
            "expires": _written(offer.expires_ms),
            "description": offer.description,
            "header": OWN_HEADER,
            "opaque": opaque,
        }
        return {"id": self._seal(parameters), **parameters}

    def _seal(self, parameters: Mapping[str, Json]) -> str:
        """Return the id that proves a challenge ours: nothing has to be remembered of it."""
        names = ("realm", "method", "intent", "request", "expires", "digest", "header", "opaque")
        covered = "|".join(str(parameters.get(name, "")) for name in names)
        return _base64(hmac.digest(self._secret, covered.encode(), hashlib.sha256))

    # Payments.

    async def _paid(self, purchase: Purchase, credential: str, seen: Seen) -> Response | Raw:
        fault = seen.fault
        wired = self._wired(fault, b"{}")
        if wired is not None:
            return wired
        if fault == "redirect-307":
            return self._redirect()
        if fault == "payment-required-402":
            return self._ask_for_money(purchase, seen)
        try:
            async with purchase.turn:
                payment, again = self._take(purchase, credential)
                if not again:
                    await self._settle(payment, fault)
            if payment.settled_ms is None and fault != "accepts-never-settles":
                return self._unconfirmed(purchase)
            if fault and fault in AFTER_SETTLING:
                return self._spoilt_answer(payment, fault, seen)
            if again and self.conduct.style != "idempotent":
                status = 403 if self.conduct.style == "pympp" else 402
                raise Refused(status, "verification-failed", "This transaction was used before.")  # noqa: TRY301
        except Refused as refused:
            return self._refusal(purchase, refused, seen)
        return _accepted(payment)

    def _refusal(self, purchase: Purchase, refused: Refused, seen: Seen) -> Response | Raw:
        """As the servers differ: mppx invites to pay after anything, pympp only with its 402."""
        if refused.status == 402 or self.conduct.style == "mppx":
            return self._ask_for_money(purchase, seen, refused=refused)
        if refused.status >= 500:
            return self._unconfirmed(purchase)
        seen.status = refused.status
        return _problem(refused, [])

    def _take(self, purchase: Purchase, credential: str) -> tuple[Payment, bool]:
        """Return what this credential pays with, and whether it settled something before. Raises Refused."""
        challenge, raw = self._verified(purchase, credential)
        if self.conduct.style == "idempotent":
            for earlier in self.payments.values():
                if earlier.purchase is purchase and earlier.settled_ms is not None:
                    return earlier, True
        transfer = _decode(raw)
        known = self.payments.get(transfer.hash)
        if known is not None:
            self._look(known)
            return known, known.settled_ms is not None
        self._must_pay(challenge, transfer)
        payment = self.payments[transfer.hash] = Payment(purchase, raw, transfer)
        return payment, False

    def _verified(self, purchase: Purchase, credential: str) -> tuple[Mapping[str, str], bytes]:
        """Return the challenge that was echoed, proven ours, and the transaction. Raises Refused."""
        document = _unpacked(credential)
        challenge, payload = document.get("challenge"), document.get("payload")
        if not isinstance(challenge, dict) or not isinstance(payload, dict):
            raise Refused(402, "malformed-credential", "A credential has a challenge and a payload.")
        if not hmac.compare_digest(str(challenge.get("id")).encode(), self._seal(challenge).encode()):
            raise Refused(402, "invalid-challenge", "This challenge was not issued by this server.")
        if challenge["method"] != "tempo" or payload.get("type") != "transaction":
            raise Refused(400, "method-unsupported", "Only transactions on Tempo are taken.")
        if _packed({"purchase": purchase.id}) != challenge["opaque"] and challenge["id"] not in self._replayed:
            raise Refused(402, "invalid-challenge", "This challenge belongs to another purchase.")
        if _read(challenge["expires"]) <= self.now_ms():
            raise Refused(402, "payment-expired", "This challenge has expired.")
        raw = payload.get("signature")
        if not isinstance(raw, str) or not re.fullmatch(r"0x76(?:[0-9a-f]{2})+", raw):
            raise Refused(402, "malformed-credential", "The signature is not a Tempo transaction.")
        source = document.get("source")
        sender = _decode(bytes.fromhex(raw[2:])).sender
        if source is not None and str(source).lower() != f"did:pkh:eip155:{CHAIN_ID}:{sender}":
            raise Refused(402, "verification-failed", "The source is not the sender.")
        return challenge, bytes.fromhex(raw[2:])

    def _must_pay(self, challenge: Mapping[str, str], transfer: Transfer) -> None:
        """Raise Refused unless the transfer is exactly what the challenge asks for."""
        request = _unpacked(challenge["request"])
        asked = {
            "chain": request["methodDetails"].get("chainId", CHAIN_ID),
            "token": request["currency"].lower(),
            "recipient": request["recipient"].lower(),
            "amount": int(request["amount"]),
        }
        given = {
            "chain": transfer.chain_id,
            "token": transfer.token,
            "recipient": transfer.recipient,
            "amount": transfer.amount,
        }
        for name, wanted in asked.items():
            if given[name] != wanted:
                raise Refused(402, "verification-failed", f"The {name} is {given[name]}, not {wanted}.")
        if transfer.memo != memo_of(challenge["realm"], challenge["id"]):
            raise Refused(403 if self.conduct.style == "pympp" else 402, "verification-failed", "The memo is not ours.")
        if transfer.valid_before is not None and transfer.valid_before * 1000 <= self.now_ms() + ENOUGH_TIME_S * 1000:
            raise Refused(500, "internal-payment-error", "The transaction is no longer valid.")

    async def _settle(self, payment: Payment, fault: str | None) -> None:
        """Broadcast it and wait until the chain has it, or not. Raises Refused for what the chain will not have."""
        if fault in ("never-settles", "accepts-never-settles"):
            return
        if fault == "settles-late" and not payment.sent:
            payment.due_ms = payment.due_ms or self.now_ms() + self.conduct.settles_late_ms
            return
        self._broadcast(payment)
        loop = asyncio.get_running_loop()
        end = loop.time() + self.conduct.wait_s
        while not self._look(payment) and loop.time() < end:  # noqa: ASYNC110 - a chain does not call back
            await asyncio.sleep(LOOK_S)
        if payment.reverted:
            raise Refused(500, "internal-payment-error", "The transaction reverted.")
        if fault == "fails-after-settling":
            payment.purchase.refused = True

    def _broadcast(self, payment: Payment) -> None:
        payment.due_ms, payment.sent = None, True
        try:
            self.chain.rpc("eth_sendRawTransaction", ["0x" + payment.raw.hex()])
        except RpcError as refused:
            if not self._look(payment):
                raise Refused(500, "internal-payment-error", f"The chain refuses it: {refused}") from refused

    def _look(self, payment: Payment) -> bool:
        """Tell whether the chain has decided about a payment; mark it."""
        if payment.settled_ms is not None or payment.reverted:
            return True
        receipt = self.chain.rpc("eth_getTransactionReceipt", [payment.transfer.hash])
        if receipt is None:
            return False
        if _shows(receipt, payment.transfer):
            payment.settled_ms = self.now_ms()
            payment.purchase.settled_ms = payment.purchase.settled_ms or payment.settled_ms
        else:
            payment.reverted = True
        return True

    def _spoilt_answer(self, payment: Payment, fault: str, seen: Seen) -> Response | Raw:
        """Return what is said though the chain has settled it."""
        answer, purchase = _accepted(payment), payment.purchase
        wired = self._wired(fault.removeprefix(SETTLED), answer.body)
        if wired is not None:
            return wired
        if fault == "settled-payment-required-402":
            return self._ask_for_money(purchase, seen)
        if fault == "settled-unconfirmed-503":
            return self._unconfirmed(purchase)
        if fault == "settled-redirect-307":
            return self._redirect()
        if fault == "no-purchase-id":
            headers = {name: one for name, one in answer.headers.items() if name != "location"}
            return Response(202, json.dumps({WIRE.envelope: {}}).encode(), headers)
        headers = {name: one for name, one in answer.headers.items() if name != "payment-receipt"}
        if fault == "lying-receipt":
            headers["payment-receipt"] = _receipt("0x" + secrets.token_hex(32), self.now_ms())
        return answer if fault == "fails-after-settling" else Response(202, answer.body, headers)

    def _unconfirmed(self, purchase: Purchase) -> Response:
        message = "The payment transfer could not be confirmed; poll the purchase before retrying"
        body = {"error": {"code": 503, "message": message, "metadata": {"purchase_id": purchase.id}}}
        return Response(503, json.dumps(body).encode())

    def _redirect(self) -> Response:
        """Answer with a redirect that keeps method, body and headers: a credential would follow it."""
        return Response(307, b"", {"location": f"{self.wire.elsewhere}{PURCHASES}"})

    # The chain.

    def poll(self) -> None:
        """Broadcast what was kept back, look for what was not confirmed, and post the credits that are due."""
        for payment in self.payments.values():
            if payment.due_ms is not None and payment.due_ms <= self.now_ms():
                with suppress(Refused):  # Nobody is left to be told; it will not settle.
                    self._broadcast(payment)
            if payment.sent:
                self._look(payment)
        for purchase in self.purchases.values():
            if self._must_credit(purchase):
                self.account.total_credits += purchase.amount_usd
                purchase.credited_ms = self.now_ms()

    def _must_credit(self, purchase: Purchase) -> bool:
        fault = self._current("posting")
        if purchase.settled_ms is None or purchase.credited_ms is not None or purchase.refused:
            return False
        large = purchase.amount_usd > LARGE_USD
        delay_ms = self.conduct.large_posting_delay_ms if large else self.conduct.posting_delay_ms
        delay_ms += self.conduct.late_ms if fault == "posts-late" else 0
        return fault != "never-posts" and self.now_ms() >= purchase.settled_ms + delay_ms


TEXTS: Final[Mapping[str, str]] = MappingProxyType({f"{PURCHASES}/setup": SETUP, f"{PURCHASES}/SKILL.md": SKILL})


def memo_of(realm: str, challenge_id: str) -> bytes:
    """Return the 32 bytes that tie a transfer to a challenge."""
    return MEMO_TAG + bytes(keccak(text=realm))[:10] + bytes(10) + bytes(keccak(text=challenge_id))[:7]


# What is written.


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _packed(value: Mapping[str, Json]) -> str:
    return _base64(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _written(unix_ms: int) -> str:
    at = EPOCH + timedelta(milliseconds=unix_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def _header(parameters: Mapping[str, str]) -> str:
    return "Payment " + ", ".join(f'{name}="{one}"' for name, one in parameters.items())


def _new_id() -> str:
    return "pi_" + secrets.token_hex(12)


def _document(status: int, purchase: Purchase, said: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {WIRE.envelope: {WIRE.id: purchase.id, WIRE.status: said, WIRE.amount: purchase.amount_usd}}
    return Response(status, json_text(body).encode(), {"content-type": "application/json", **(headers or {})})


def _accepted(payment: Payment) -> Response:
    headers = {
        "location": f"{PURCHASES}/{payment.purchase.id}",
        "payment-receipt": _receipt(payment.transfer.hash, payment.settled_ms or 0),
    }
    return _document(202, payment.purchase, payment.purchase.status, headers)


def _receipt(tx_hash: str, at_ms: int) -> str:
    return _packed({"method": "tempo", "reference": tx_hash, "status": "success", "timestamp": _written(at_ms)})


def _problem(why: Refused, challenges: list[str]) -> Raw:
    """Write a problem document by hand: a `Response` cannot repeat a header."""
    title = why.problem.replace("-", " ").capitalize()
    document = {"type": PROBLEMS + why.problem, "title": title, "status": why.status, "detail": str(why)}
    body = json.dumps(document).encode()
    lines = [f"HTTP/1.1 {why.status} {REASONS.get(why.status, title)}", "content-type: application/problem+json"]
    lines += [f"www-authenticate: {one}" for one in challenges]
    lines += ["cache-control: no-store", f"content-length: {len(body)}", "connection: close"]

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        await writer.drain()

    return Raw(write)


# What is read.


def _purchase_id(path: str) -> str | None:
    found = re.fullmatch(rf"{PURCHASES}/(pi_\w+)", path)
    return found[1] if found else None


def _credential(request: Request) -> str | None:
    """Return what is paid with: in its own header or, when the key is in X-Api-Key, in `Authorization`."""
    for name in (OWN_HEADER.lower(), "authorization"):
        scheme, _, token = request.headers.get(name, "").partition(" ")
        if scheme.lower() == "payment":
            return token
    return None


def _unpacked(text: str) -> dict[str, Json]:
    """Decode base64url without padding into a JSON object. Raises Refused."""
    try:
        document = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as wrong:
        raise Refused(402, "malformed-credential", "The credential is not base64url of JSON.") from wrong
    if "=" in text or not isinstance(document, dict):
        raise Refused(402, "malformed-credential", "The credential is not a JSON object.")
    return document


def _amount(body: bytes, conduct: Conduct) -> Decimal:
    """Return the US dollars asked for. Raises ValueError."""
    asked = json.loads(body, parse_float=Decimal)
    told = asked.get(WIRE.amount) if isinstance(asked, dict) else None
    if isinstance(told, bool) or not re.fullmatch(r"\d{1,9}(\.\d{1,2})?", str(told)):
        raise ValueError(f"{WIRE.amount} must be US dollars in whole cents")
    usd = Decimal(str(told))
    if not conduct.amount_min_usd <= usd <= conduct.amount_max_usd:
        raise ValueError(f"{WIRE.amount} must be from {conduct.amount_min_usd} to {conduct.amount_max_usd}")
    return usd


def _dear(amount_usd: Decimal, fee_bps: int) -> Decimal:
    """Return the dollars that a challenge asks for: the credits and the fee, in whole cents, rounded up."""
    cents = int(amount_usd * 100)
    return Decimal(-(-cents * (BPS + fee_bps) // BPS)) * CENT


def _decode(raw: bytes) -> Transfer:
    """Decode a Tempo transaction that makes one `transferWithMemo`. Raises Refused.

    `0x76 ‖ rlp([chain, tip, fee, gas, calls, access list, lane, nonce, valid before, valid after, fee token, fee
    payer's signature, authorizations, (key authorization,) signature])`.
    """
    try:
        fields = rlp.decode(raw[1:])
        *unsigned, signature = fields
        chain, _, _, _, calls, _, _, _, before, _, _, sponsor, *_ = unsigned
        [[to, value, data]] = calls
        sender = _signer(bytes(keccak(b"\x76" + rlp.encode(unsigned))), signature)
    except (rlp.DecodingError, ValueError, TypeError, BadSignature, ValidationError) as wrong:
        raise Refused(402, "malformed-credential", f"The transaction cannot be read: {wrong}") from wrong
    if sponsor:
        raise Refused(402, "verification-failed", "Fees are not sponsored here.")
    if len(to) != 20 or value or data[:4] != TRANSFER_WITH_MEMO or len(data) != 100 or any(data[4:16]):
        raise Refused(402, "verification-failed", "The call is not a transfer with a memo.")
    return Transfer(
        hash="0x" + bytes(keccak(raw)).hex(),
        chain_id=int.from_bytes(chain, "big"),
        sender=sender,
        token="0x" + to.hex(),
        recipient="0x" + data[16:36].hex(),
        amount=int.from_bytes(data[36:68], "big"),
        memo=data[68:],
        valid_before=int.from_bytes(before, "big") if before else None,
    )


def _signer(digest: bytes, signature: bytes) -> str:
    """Return who pays: the signer, or the account that an access key signs for (`0x04 ‖ account ‖ signature`)."""
    account = None
    if len(signature) == 86 and signature[0] == 4:
        account, signature = signature[1:21], signature[21:]
        digest = bytes(keccak(b"\x04" + digest + account))
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise ValueError("no signature of secp256k1")
    rsv = signature[:64] + bytes([signature[64] - 27])
    found = Signature(rsv).recover_public_key_from_msg_hash(digest).to_canonical_address()
    return "0x" + (account or found).hex()


def _shows(receipt: Json, transfer: Transfer) -> bool:
    """Tell whether a receipt shows this transfer: a transaction can succeed and have paid somebody else."""
    topics = [TRANSFERRED_WITH_MEMO, _word(transfer.sender), _word(transfer.recipient), "0x" + transfer.memo.hex()]
    return int(receipt["status"], 16) == 1 and any(
        log["address"].lower() == transfer.token and log["topics"] == topics and int(log["data"], 16) == transfer.amount
        for log in receipt["logs"]
    )


def _word(address: str) -> str:
    return "0x" + "0" * 24 + address.removeprefix("0x").lower()
