"""What can a seller for machine payments do wrong, in a sentence each, and what must come of it?

Fields and results are those of `fault.Fault`. A challenge is spoilt by one change each; a paid request is spoilt
instead of settling it, or after: every fault of the wire has both forms, as `reset` has `settled-reset`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from topup.sandbox import fault
from topup.sandbox.charges import STRANGER
from topup.sandbox.fault import Fault, Switch, rows
from topup.sandbox.tempo import MACH, OUSD, PATH_USD
from topup.sandbox.wire import WIRE_ANSWERS

Json = Any

OTHER_CHAIN_ID: Final = 42431  # The public test chain.
LONG_TEXT: Final = 8 * 1024  # A header that every client has to cope with may be half as long.


@dataclass(frozen=True)
class Offer:
    """What a challenge says before it is sealed; `request` is the JSON inside it."""

    realm: str
    method: str
    intent: str
    expires_ms: int
    description: str
    request: Mapping[str, Json]


def _asking(**changes: Json) -> Callable[[Offer], Offer]:
    return lambda offer: replace(offer, request={**offer.request, **changes})


def _detailed(**changes: Json) -> Callable[[Offer], Offer]:
    return lambda offer: _asking(methodDetails={**offer.request["methodDetails"], **changes})(offer)


def _without_chain(offer: Offer) -> Offer:
    details = {name: detail for name, detail in offer.request["methodDetails"].items() if name != "chainId"}
    return _asking(methodDetails=details)(offer)


def _times(percent: int) -> Callable[[Offer], Offer]:
    return lambda offer: _asking(amount=str(int(offer.request["amount"]) * percent // 100))(offer)


def _split(offer: Offer) -> Offer:
    return _detailed(splits=[{"recipient": STRANGER, "amount": str(int(offer.request["amount"]) // 2)}])(offer)


HOSTILE_OFFERS: Final[Mapping[str, Callable[[Offer], Offer]]] = {
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
    "huge-header": lambda offer: replace(offer, description="credits, and " * (fault.HUGE_TEXT // 13)),
}
# Several ways to pay at once: each is made of the honest challenge.
SEVERAL: Final[Mapping[str, tuple[Callable[[Offer], Offer], ...]]] = {
    "two-tempo-challenges": (_asking(), HOSTILE_OFFERS["other-recipient"]),
    "ousd-first": (_asking(currency=OUSD), _asking(currency=MACH), HOSTILE_OFFERS["other-intent"], _asking()),
    "ousd-only": (_asking(currency=OUSD),),
    "unreadable-beside": (_asking(amount=1), _detailed(feePayer="no"), _asking()),
    "the-same-twice": (_asking(), lambda offer: replace(offer, expires_ms=offer.expires_ms + 1000)),
    "two-that-differ": (_asking(), _times(101)),
    "sponsored-beside": (HOSTILE_OFFERS["fee-payer"], _asking()),
}
OFFER_LIVES_S: Final[Mapping[str, int]] = {"expired": -1, "about-to-expire": 4}

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
    "one-id-for-two": "There are two challenges of one id, for one dollar and for all of them.",
    "ousd-only": "The one challenge asks for OUSD, which pays no fee.",
    "two-that-differ": "There are two challenges on Tempo that could be paid, one of them dearer.",
    "card-only": "Only a card is taken.",
}
_PAID_BESIDE: Final = {
    "two-tempo-challenges": "Beside the challenge is one that pays a stranger; the recipient was pinned.",
    "ousd-first": "OUSD, MACH and a session are offered before USDC.e, as current sellers do it.",
    "unreadable-beside": "Two challenges cannot be read, and the third is right.",
    "the-same-twice": "The same offer is made twice, under two ids.",
    "sponsored-beside": "Beside the challenge is the same one with its fee paid by the seller.",
    "joined-header": "All challenges stand in one header.",
}
_ANSWERS: Final = {
    **WIRE_ANSWERS,
    "payment-required-402": "asks for payment once more, with a fresh challenge",
    "redirect-307": "points to another server, and would have the credential sent there",
}

_SETTLED: Final = {
    "settled-unconfirmed-503": "The seller settles, and says that it could not be confirmed.",
    "settles-late": "The seller says 503 and settles seconds later.",
    "no-purchase-id": "The seller settles and does not say which purchase.",
    "no-receipt": "The seller settles and gives no receipt.",
    "lying-receipt": "The receipt names another transaction.",
}
_UNSETTLED: Final = {
    "never-settles": "The seller says 503 and never settles.",
    "accepts-never-settles": "The seller says 202 and never settles.",
}
_PURCHASES: Final = {
    "stays-pending": "The purchase is pending for ever, though credited.",
    "unknown-status": "The purchase has a status never heard of.",
    "says-failed": "The purchase is called failed, though credited.",
}

_ALL: Final = (
    # Challenges that are sealed rightly and are not what was asked for.
    *rows("challenge", fault.REFUSED, _CHALLENGES),
    *rows("challenge", fault.REFILLED, _PAID_BESIDE),
    *rows(
        "challenge",
        fault.REFUSED_SECOND,
        {"replayed-challenge": "After the first, each purchase is given the first one's challenge again."},
        refills=2,
    ),
    *rows("challenge", fault.REFILLED, {"lying-description": "The description promises another price."}),
    *rows("challenge", fault.REFILLED, {"long-header": "The challenge is 8 KB long."}),
    *rows("challenge", fault.WAITING, {"huge-header": "The challenge is 256 KB long."}),
    *fault.answered_prices("challenge", _ANSWERS),
    # Given a credential.
    *fault.answered_payments("Given a credential", _ANSWERS),
    *rows("payment", fault.REFILLED, _SETTLED),
    *rows("payment", fault.WAITING, _UNSETTLED),
    *rows("payment", fault.UNCREDITED, {"fails-after-settling": "What was settled is called failed, for good."}),
    # Asked about the purchase.
    *rows("purchase", fault.REFILLED, name="purchase-{}", says="Asked about the purchase, the seller {}."),
    *rows("purchase", fault.REFILLED, _PURCHASES),
    Fault(
        "says-credited",
        "The purchase is called credited, though it never is.",
        (Switch("purchase", "says-credited"), Switch("posting", "never-posts")),
        *fault.UNCREDITED,
    ),
    *fault.CREDITING,
)
MPP_FAULTS: Final[Mapping[str, Fault]] = {row.name: row for row in _ALL}
# By place, what can be switched on; and of that what is said after settling, not instead.
FAULTS_AT: Final[Mapping[str, frozenset[str]]] = {**fault.switches_of(_ALL), "texts": frozenset(WIRE_ANSWERS)}
AFTER_SETTLING: Final = frozenset(
    {fault.SETTLED + name for name in _ANSWERS}
    | {"settled-unconfirmed-503", "no-purchase-id", "no-receipt", "lying-receipt", "fails-after-settling"}
)
