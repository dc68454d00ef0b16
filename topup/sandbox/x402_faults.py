"""What can a seller for x402 do wrong, in a sentence each, and what must come of it?

Fields and results are those of `fault.Fault`. An offer is spoilt by one change each; a paid request is spoilt instead
of settling it, or after: every name of the one kind has a twin of the other, as `reset` has `settled-reset`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from topup.sandbox import fault
from topup.sandbox.charges import STRANGER, named_address
from topup.sandbox.fault import Fault, rows
from topup.sandbox.wire import WIRE_ANSWERS

OTHER_CHAIN_ID: Final = 84532  # The public test chain.
OTHER_TOKEN: Final = named_address("topup sandbox: other dollar")


@dataclass(frozen=True)
class Offer:
    """One way to pay, before it is written in either version; `amount` in units of the token."""

    chain_id: int
    asset: str
    pay_to: str
    amount: int
    timeout_s: int
    description: str
    extra: Mapping[str, Any] | None
    scheme: str = "exact"


def _times(percent: int) -> Callable[[Offer], Offer]:
    return lambda offer: replace(offer, amount=offer.amount * percent // 100)


def _with(**changes: Any) -> Callable[[Offer], Offer]:
    return lambda offer: replace(offer, **changes)


def _extra(**changes: str) -> Callable[[Offer], Offer]:
    return lambda offer: replace(offer, extra={**(offer.extra or {}), **changes})


HOSTILE_OFFERS: Final[Mapping[str, Callable[[Offer], Offer]]] = {
    "other-recipient": _with(pay_to=STRANGER),
    "other-chain": _with(chain_id=OTHER_CHAIN_ID),
    "other-token": _with(asset=OTHER_TOKEN),
    "other-scheme": _with(scheme="upto"),
    "tenfold-amount": _times(1000),
    "double-amount": _times(200),
    "dearer-amount": _times(109),
    "smaller-amount": _times(50),
    "zero-amount": _with(amount=0),
    "no-time": _with(timeout_s=0),
    "tiny-timeout": _with(timeout_s=1),
    "no-extra": _with(extra=None),
    "other-name": _extra(name="USDC"),
    "by-permit": _extra(assetTransferMethod="permit2"),
    "lying-description": _with(description="0.01 USD, paid to nobody, refundable"),
    "huge-header": _with(description="credits, and " * (fault.HUGE_TEXT // 13)),
}
# Offers that cannot be read or paid, as they stand at real sellers: a role's name for a recipient elsewhere, an
# allowance, another scheme, fields that are not there, and no offer at all.
_DOLLAR: Final = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
_PERMIT: Final = {
    "scheme": "exact",
    "asset": _DOLLAR,
    "payTo": STRANGER,
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2", "assetTransferMethod": "permit2"},
}
CROWD: Final[list[Any]] = [
    {**_PERMIT, "network": "eip155:8453", "amount": "10000000"},
    {"scheme": "exact", "network": "hedera:mainnet", "amount": 22.5, "asset": "0.0.456858", "payTo": "merchant"},
    {**_PERMIT, "network": "eip155:84532", "amount": "10000000", "payTo": "facilitator"},
    {"scheme": "upto", "network": "eip155:8453", "amount": "10000000"},
    None,
]
# What the payer must not take, and why.
_OFFERS: Final = {
    "other-recipient": "The offer pays a stranger.",
    "other-chain": "The offer is for Base's test chain.",
    "other-token": "The offer is to be paid in another dollar.",
    "other-scheme": "The offer would take up to an amount, not exactly it.",
    "tenfold-amount": "The offer asks for ten times the amount.",
    "no-time": "The offer leaves no time to pay.",
    "tiny-timeout": "The offer leaves one second to pay.",
    "other-name": "The offer names the token otherwise than it names itself: what is signed for it is worth nothing.",
    "by-permit": "The offer wants an allowance, not a transfer.",
    "solana-only": "Only Solana is taken.",
    "duplicate-keys": "The offer names its recipient twice.",
    "garbage": "The offer is no document.",
}
_PRICES: Final = {
    "double-amount": "The offer asks for twice the amount.",
    "dearer-amount": "The offer asks for 9 % more.",
    "smaller-amount": "The offer asks for half of what it sells.",
    "zero-amount": "The offer asks for nothing.",
}
_ANSWERS: Final = {
    **WIRE_ANSWERS,
    "redirect-307": "points to another server, and would have all of it sent there",
    "payment-required-402": "asks for payment once more",
    "failed-402": "says that settling failed and nothing was moved",
}
# What cannot be read or paid spoils nothing beside it, and the pins decide between recipients.
_PAID: Final = {
    "stranger-too": "Of two offers the first pays a stranger.",
    "crowd": "The offer stands among five that nobody can read or pay.",
    "no-extra": "The offer does not say what the token calls itself.",
    "lying-description": "The description promises another price.",
}
_SETTLED: Final = {
    "settles-late": "The seller stops waiting, and settles later.",
    "refuses-settles-late": "The seller says that nothing was moved, and settles later.",
    "settles-twice": "The seller sends it to the chain twice.",
    "no-receipt": "The seller settles and does not say by what.",
    "lying-receipt": "The seller names another transaction.",
}
_UNSETTLED: Final = {
    "never-settles": "The seller stops waiting, and never settles.",
    "accepts-never-settles": "The seller thanks for a payment that it never settles.",
}

_ALL: Final = (
    *rows("offer", fault.REFUSED, _OFFERS),
    # To Venice an amount is the least that it sells: below what is ordered, another one spoils nothing.
    *rows("offer", fault.REFUSED, _PRICES, sellers=("plain",)),
    *rows("offer", fault.REFILLED, _PAID),
    *rows("offer", fault.WAITING, {"huge-header": "The offer is 256 KB long."}),
    *fault.answered_prices("offer", _ANSWERS),
    # Given an authorization.
    *fault.answered_payments("Given a payment", _ANSWERS),
    *rows("payment", fault.REFILLED, _SETTLED),
    *rows("payment", fault.WAITING, _UNSETTLED),
    # Asked for the balance.
    *rows(
        "balance",
        fault.UNKNOWN,
        name="balance-{}",
        says="Asked for the balance, the seller {}.",
        but=fault.BALANCE_OUTCOMES,
    ),
    *rows("balance", fault.UNKNOWN, {"nan": "The balance is NaN."}, name="balance-{}"),
    *fault.CREDITING,
)
X402_FAULTS: Final[Mapping[str, Fault]] = {row.name: row for row in _ALL}
ANSWERS_INSTEAD: Final = frozenset(_ANSWERS)
# By place, what can be switched on: also a balance that is believed and wrong, which no row judges.
_SWITCHES: Final = fault.switches_of(_ALL)
FAULTS_AT: Final[Mapping[str, frozenset[str]]] = {
    **_SWITCHES,
    "balance": _SWITCHES["balance"] | {"zero-balance", "frozen", "not-found-404"},
}
