"""What can be seen of an x402 seller and the wallet that pays it, before anything is signed?

Every offer, decoded as far as it can be read, with what was found, what was wanted and what decides it; and whether the
wallet holds code, which changes who judges its signatures. What was not seen is null.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from topup.chain.providers import first
from topup.chain.rpc import Rpc, unhex
from topup.domain.demand import Finding, Request
from topup.domain.errors import ChainError, ChargeRefused
from topup.domain.json_document import read
from topup.sellers.x402 import X402

# How the code of an account begins that has handed itself to a contract (EIP-7702); the contract's address follows.
DELEGATED: Final = bytes.fromhex("ef0100")
BODY_SHOWN_MAX: Final = 4_000


def came(raw: bytes) -> dict[str, Any]:
    """Return an answer as it came: the header that carries the offers, or else the body."""
    kept = read(raw)
    if kept["headers"]:
        return {"headers": kept["headers"]}
    return {"bodies": [base64.b64decode(kept["body"]).decode("utf-8", "replace")[:BODY_SHOWN_MAX]]}


def ways(rail: X402, raw: bytes, asked: Request) -> list[dict[str, Any]] | None:
    """Decode every offer, with every line of the judgement on it; None where the answer cannot be read as a whole."""
    try:
        each, chosen = rail.offered(raw, asked)
    except ChargeRefused:
        return None
    found = []
    for one in each:
        wrong = next((line for line in one.lines if not line.right), None)
        told: dict[str, Any] = {
            "place": f"accepts[{one.index}]",
            "method": None,
            "intent": None,
            # The one that is near is chosen, too, so that the proof can say what is wrong with it: it is not paid.
            "paid": one.payable and one.index == chosen,
            "refused": None if wrong is None else f"{wrong.field} is {wrong.was}, it should be {wrong.should_be}",
            "remedy": "" if wrong is None else wrong.remedy,
            "lines": [line_of(line) for line in one.lines],
        }
        if one.payable and chosen is None:
            told["refused"] = "another offer can be paid as well, and means another payment"
        elif one.payable and not told["paid"]:
            told["refused"] = f"it means the same payment as accepts[{chosen}], which comes first"
        if (offer := one.offer) is not None:
            told |= {
                "method": offer.scheme[:80],
                "intent": offer.network[:80],
                "chain_id": offer.chain_id,
                "token": "0x" + offer.asset.hex(),
                "recipient": "0x" + offer.pay_to.hex(),
                "amount": rail.would_pay(offer, raw, asked),
            }
        found.append(told)
    return found


def line_of(finding: Finding) -> dict[str, Any]:
    """Return one line of a judgement, with a remedy where it fails."""
    return {
        "field": finding.field,
        "was": finding.was,
        "should_be": finding.should_be,
        "right": finding.right,
        "remedy": "" if finding.right else finding.remedy,
    }


async def code(rpcs: Sequence[Rpc], wallet: bytes) -> str | None:
    """Return what the wallet's code means for its signatures: "" without any, None where no provider told."""

    async def read_code(rpc: Rpc) -> bytes:
        return unhex(await rpc.read("eth_getCode", "0x" + wallet.hex(), "latest"), "the wallet's code")

    try:
        held = await first(rpcs, read_code)
    except ChainError:
        return None
    if not held:
        return ""
    delegated = held.startswith(DELEGATED) and len(held) == 23
    whose = f"hands itself to 0x{held[3:].hex()} (EIP-7702)" if delegated else "is a contract"
    return (
        f"the wallet {whose}: sellers and the token ask its code alone whether a signature is good (ERC-1271), and"
        " one that the key made is refused where the code does not know it"
    )


CODE_REMEDY: Final = "pay from a wallet without code, or make sure that its code takes the key's signatures"
