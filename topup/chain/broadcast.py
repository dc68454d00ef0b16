"""How do signed bytes leave? Once per call to every provider, and nothing below sends again.

What a provider answers is classified by how its message begins: the codes of different nodes contradict each other. No
answer of this module says "it was not sent".
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from topup.chain.rpc import Rpc, RpcError, unhex
from topup.domain.errors import ChainUnknown
from topup.ports.chain import Delivery, Sent
from topup.wire.clean import joined
from topup.wire.reading import nonsense

# Hands bytes to one provider and returns the hash that it answers; raises RpcError or ChainUnknown.
Hand = Callable[[Rpc, bytes], Awaitable[bytes]]
# Of what one provider says to the bytes.
DETAIL_MAX: Final = 200
# How each error begins, in lower case; gathered from geth, op-geth, reth, erigon, nethermind, openethereum, hardhat and
# anvil. A node says such a thing as the whole message or at its beginning, with numbers behind it. Anywhere else, in
# a page or within a sentence of whatever stands in front of the node, the same words are about something else.
BEGINNINGS: Final[tuple[tuple[Delivery, tuple[str, ...]], ...]] = (
    (
        Delivery.KNOWN,
        (
            "already known",
            "alreadyknown",
            "already imported",
            "known transaction",
            "transaction already imported",
            "transaction already in pool",
            "transaction with the same hash was already imported",
        ),
    ),
    (Delivery.NONCE_USED, ("nonce too low", "nonce is too low", "oldnonce", "transaction nonce is too low")),
    (
        Delivery.NONCE_HIGH,
        (
            "nonce too high",
            "nonce is too high",
            "gapnonce",
            "nonce gap",
            "noncegap",
            "transaction nonce is too high",
            "transaction nonce is too far in the future",
        ),
    ),
    (
        Delivery.REPLACEMENT,
        ("replacement transaction underpriced", "replacementnotallowed", "replacement transaction not allowed"),
    ),
    (
        Delivery.UNDERPRICED,
        (
            "underpriced",
            "transaction underpriced",
            "max fee per gas less than block base fee",
            "fee cap less than block base fee",
            "fee too low",
            "feetoolow",
            "gas price too low",
            "transaction gas price too low",
            "gas price below minimum",
            "gas price below the minimum",
            "transaction gas price below minimum",
            "transaction gas price below the minimum",
        ),
    ),
    (
        Delivery.FUNDS,
        (
            "insufficient funds",
            "insufficientfunds",
            "insufficient balance",
            "sender doesn't have enough funds",
        ),
    ),
    (Delivery.FEECAP, ("tx fee",)),
    (
        Delivery.FULL,
        (
            "txpool is full",
            "pool is full",
            "transaction pool is full",
            "in-flight transaction limit reached",
            "limit exceeded",
            "request limit exceeded",
            "daily request limit exceeded",
            "rate limit",
            "over rate limit",
            "too many requests",
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
            "max priority fee per gas higher than max fee per gas",
            "gas uint64 overflow",
            "oversized data",
            "invalid chain id",
            "failed to decode signed transaction",
            "failed to decode transaction",
            "invalid rlp",
            "rlp",
        ),
    ),
)
# What some nodes put before the same words.
_LABEL: Final = re.compile(
    r"(?:internal_error|already_exists|invalid|fee_too_low|insufficient_funds|err|out of gas): (?=[a-z])"
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
    return Sent(best.delivery, joined([f"{rpc.host}: {sent.detail}" for rpc, sent in zip(rpcs, answers, strict=True)]))


async def _send(rpc: Rpc, raw: bytes, tx_hash: bytes, hand: Hand) -> Sent:
    try:
        answered = await hand(rpc, raw)
    except RpcError as error:
        return Sent(classify(error.message), rpc.shown(error.message, DETAIL_MAX))
    except ChainUnknown as error:
        return Sent(Delivery.UNCLEAR, rpc.shown(error, DETAIL_MAX))
    except Exception as error:  # noqa: BLE001 - the bytes may have arrived, whatever came back for them
        return Sent(Delivery.UNCLEAR, nonsense(error))
    if answered != tx_hash:
        return Sent(Delivery.UNCLEAR, "answered another hash than ours")
    return Sent(Delivery.ACCEPTED, "accepted")


def classify(text: str) -> Delivery:
    """Return what the message of a JSON-RPC error says of the bytes that were sent, by how it begins."""
    said = text.strip().lower()
    said = said[label.end() :] if (label := _LABEL.match(said)) else said
    for delivery, beginnings in BEGINNINGS:
        if any(said.startswith(known) and not said[len(known) :][:1].isalnum() for known in beginnings):
            # Of a fee many things can be said; this one is the node's own ceiling.
            if delivery is Delivery.FEECAP and "exceeds the configured cap" not in said[:80]:
                continue
            return delivery
    return Delivery.UNCLEAR
