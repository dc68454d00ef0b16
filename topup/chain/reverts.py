"""What does this revert mean? Revert data of the payment contract, as a sentence with a remedy.

Selectors are computed from `abi/payment_protocol.json`; the meanings follow the contract's order of checks.
"""

from functools import cache
from typing import Any, Final

from eth_abi.abi import decode
from eth_utils.crypto import keccak

from topup.chain.contracts import interface
from topup.domain.errors import Reverted
from topup.wire.clean import clean

# Of the contract's own words; none of those that are known has half as many.
TOLD_MAX: Final = 120
MEANING: dict[str, tuple[str, str]] = {
    "InvalidSignature": (
        "the operator did not sign exactly this",
        "do not pay it; the charge was altered on the way or is not for this wallet",
    ),
    "ExpiredIntent": ("the charge's deadline has passed", "a new charge is requested once this one is proven dead"),
    "NullRecipient": ("the recipient is the zero address", "do not pay it"),
    "AlreadyProcessed": (
        "this charge has been paid before",
        "never pay it again; the payment is looked for on the chain",
    ),
    "OperatorNotRegistered": (
        "the operator is not registered with the payment contract",
        "wait, or check the pinned operator",
    ),
    "IncorrectCurrency": ("the charge's currency cannot be swapped to", "do not pay it"),
    "InexactTransfer": (
        "recipient or fee destination did not receive exactly their amounts",
        "wait; see whether USDC or the pool is disturbed",
    ),
    "InvalidNativeAmount": (
        "the value is not the exact amount",
        "this path takes any value; the wrong function was called",
    ),
    "SwapFailedString": ("the swap failed", ""),
    "SwapFailedBytes": (
        "the swap failed without a reason: no pool for the tier, or the gas limit was too low",
        "another tier is tried; raise fees.gas_margin_pct when it repeats",
    ),
    "Error": ("the contract said", ""),
    "Panic": ("the contract panicked", ""),
}
PAUSED = "Pausable: paused"
SWAP: dict[str, tuple[str, str]] = {
    "V3TooMuchRequested": (
        "the price moved above what was sent",
        "a new quote is taken; raise price.slippage_bps when it repeats",
    ),
    "V3InvalidAmountOut": ("the pool does not hold enough", "buy less at a time"),
    "TF": ("USDC could not be moved: paused, or the gas limit was too low", "wait"),
    "TRANSFER_FAILED": (
        "USDC could not be moved to the recipient: blacklisted, or the gas limit was too low",
        "do not insist; ask the provider",
    ),
    "ETH_TRANSFER_FAILED": (
        "the refund could not be delivered: the wallet is a contract that refuses ETH",
        "pay from an ordinary account",
    ),
    # Both are built on the same library, and say it in the same words.
    PAUSED: ("the payment contract or USDC is paused", "wait until its owner resumes it"),
}
# Why the same charge can never be paid after these, whichever transaction tries it. Everything else may pass: a price
# moves back, USDC or the contract is resumed, an operator registers again; and no retry is signed unless it simulates.
LASTING: dict[str, str] = {
    "AlreadyProcessed": "an id is paid once",
    "ExpiredIntent": "the chain's time does not go back past a deadline",
    "InvalidSignature": "the signed bytes stay what they are",
    "NullRecipient": "it is in the signed bytes",
    "IncorrectCurrency": "it is in the signed bytes",
    "InvalidNativeAmount": "another function was called than the one this path pays with",
    "InexactTransfer": "the token takes a fee, or recipient and fee destination are one: no swap changes that",
    "TRANSFER_FAILED": "the recipient is on USDC's blacklist; too little gas is told apart by the gas that was used",
    "ETH_TRANSFER_FAILED": "the wallet has code that refuses the refund",
}


@cache
def _selectors() -> dict[bytes, dict[str, Any]]:
    known: list[dict[str, Any]] = [item for item in interface("payment_protocol") if item["type"] == "error"]
    known += [
        {"type": "error", "name": "Error", "inputs": [{"name": "reason", "type": "string"}]},
        {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
    ]
    return {keccak(text=f"{e['name']}({','.join(i['type'] for i in e['inputs'])})")[:4]: e for e in known}


def decoded(data: bytes | None) -> Reverted:
    """Return the revert as an error that says what it means; unknown data is kept, never guessed at."""
    if not data:
        return Reverted("", "no reason given: the currency has no code, or gas ran out", b"")
    item = _selectors().get(data[:4])
    if item is None:
        return Reverted("", f"unknown error 0x{data[:4].hex()}", data)
    try:
        arguments = decode([i["type"] for i in item["inputs"]], data[4:])
    except Exception:  # noqa: BLE001 - a decoder raises what it likes, a text that is no UTF-8 another error
        return Reverted(item["name"], "its arguments cannot be read", data)
    meaning, remedy = MEANING.get(item["name"], ("", ""))
    told = ", ".join(a.hex() if isinstance(a, bytes) else str(a) for a in arguments)
    if told in SWAP:
        inner, remedy = SWAP[told]
        meaning = f"{meaning}: {inner}" if meaning else inner
    shown = f" ({clean(told, TOLD_MAX)})" if told else ""
    return Reverted(item["name"], meaning + shown, data, remedy=remedy)


def whose_pause(error: Reverted, *, contract: bool | None, token: bool | None) -> Reverted:
    """Return a revert that says which of the two is paused, as far as each has told of itself; None: it has not."""
    if not said_paused(error) or contract == token:
        return error
    who = "the payment contract" if contract or token is False else "USDC itself"
    return Reverted(error.name, f"{who} is paused ({PAUSED})", error.data, remedy=error.remedy)


def said_paused(error: Reverted) -> bool:
    """Tell whether something in the way of this call is paused."""
    return error.detail.endswith(f"({PAUSED})")


def lasting(error: Reverted) -> bool:
    """Tell whether a charge that failed like this can never be paid; what is unknown may pass."""
    return error.name in LASTING or any(error.detail.endswith(f"({word})") for word in LASTING)
