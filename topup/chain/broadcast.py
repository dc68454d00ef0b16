"""How do signed bytes leave? Once per call to every provider, and nothing below sends again.

What a provider answers is classified by its text: the codes of different nodes contradict each other. No answer of
this module says "it was not sent".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from topup.chain.rpc import Rpc, RpcError, unhex
from topup.errors import ChainUnknown
from topup.ports import Delivery, Sent

# Hands bytes to one provider and returns the hash that it answers; raises RpcError or ChainUnknown.
Hand = Callable[[Rpc, bytes], Awaitable[bytes]]
# Lower-cased fragments, in the order they are tried; gathered from geth, op-geth, reth, erigon, nethermind and anvil.
TEXTS: Final[tuple[tuple[Delivery, tuple[str, ...]], ...]] = (
    (Delivery.KNOWN, ("already known", "alreadyknown", "already imported", "transaction already in pool")),
    (Delivery.NONCE_USED, ("nonce too low", "nonce is too low", "oldnonce")),
    (Delivery.NONCE_HIGH, ("nonce too high", "nonce is too high", "gapnonce", "nonce gap", "too far in the future")),
    (Delivery.REPLACEMENT, ("replacement transaction underpriced", "replacementnotallowed")),
    (
        Delivery.UNDERPRICED,
        (
            "underpriced",
            "less than block base fee",
            "fee too low",
            "feetoolow",
            "price too low",
            "below the minimum",
            "below minimum",
        ),
    ),
    (Delivery.FUNDS, ("insufficient funds", "insufficientfunds", "insufficient balance")),
    (Delivery.FEECAP, ("exceeds the configured cap",)),
    (
        Delivery.FULL,
        (
            "txpool is full",
            "pool is full",
            "limit reached",
            "limit exceeded",
            "rate limit",
            "too many requests",
            "capacity",
            "try again later",
        ),
    ),
    (
        Delivery.REFUSED,
        (
            "invalid sender",
            "sender not an eoa",
            "intrinsic gas too low",
            "intrinsic gas too high",
            "required gas exceeds allowance",
            "exceeds block gas limit",
            "higher than max fee per gas",
            "gas uint64 overflow",
            "oversized",
            "invalid chain id",
            "failed to decode",
            "rlp",
        ),
    ),
)


async def plainly(rpc: Rpc, raw: bytes) -> bytes:
    """Hand bytes over by a question like any other; nothing has to be loaded for it.

    Raises:
        RpcError: the provider refused them, or says so.
        ChainUnknown: no usable answer.
    """
    return unhex(await rpc.ask("eth_sendRawTransaction", "0x" + raw.hex()), "the hash of what was sent")


async def broadcast(rpcs: Sequence[Rpc], raw: bytes, tx_hash: bytes, hand: Hand) -> Sent:
    """Hand `raw` to every provider once; the best answer counts, because one that holds it is enough."""
    answers = await asyncio.gather(*(_send(rpc, raw, tx_hash, hand) for rpc in rpcs))
    order = list(Delivery)
    best = min(answers, key=lambda sent: order.index(sent.delivery))
    return Sent(best.delivery, "; ".join(f"{rpc.host}: {sent.detail}" for rpc, sent in zip(rpcs, answers, strict=True)))


async def _send(rpc: Rpc, raw: bytes, tx_hash: bytes, hand: Hand) -> Sent:
    try:
        answered = await hand(rpc, raw)
    except RpcError as error:
        return Sent(classify(error.message), error.message[:200])
    except ChainUnknown as error:
        return Sent(Delivery.UNCLEAR, str(error)[:200])
    if answered != tx_hash:
        return Sent(Delivery.UNCLEAR, "answered another hash than ours")
    return Sent(Delivery.ACCEPTED, "accepted")


def classify(text: str) -> Delivery:
    """Return what an error text says of the bytes that were sent."""
    lowered = text.lower()
    for delivery, fragments in TEXTS:
        if any(fragment in lowered for fragment in fragments):
            return delivery
    if "known transaction" in lowered and "unknown" not in lowered:
        return Delivery.KNOWN
    return Delivery.UNCLEAR
