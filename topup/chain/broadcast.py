"""How do signed bytes leave? Once per call to every provider, by web3.py over our own transport.

Nothing below us sends again. What a provider answers is classified by its text: the codes of different nodes
contradict each other. No answer of this module says "it was not sent".
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final

from web3 import AsyncWeb3
from web3.exceptions import Web3Exception, Web3RPCError
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from topup.chain.rpc import Rpc, RpcError
from topup.errors import ChainUnknown
from topup.ports import Delivery, Sent

# See topup.signers.local: web3 loads py_ecc too, whose recursion limit lets a nested JSON answer end the process.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 10_240))
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


class Transport(AsyncJSONBaseProvider):
    """web3.py's provider over our own client: no retries, no CCIP-Read, no lock of its own."""

    global_ccip_read_enabled = False

    def __init__(self, rpc: Rpc) -> None:
        """Use the client of `rpc`."""
        super().__init__()
        self._rpc = rpc

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask once."""
        try:
            return {"jsonrpc": "2.0", "id": 1, "result": await self._rpc.ask(method, *params)}
        except RpcError as error:
            return {"jsonrpc": "2.0", "id": 1, "error": {"code": error.code, "message": error.message}}


async def broadcast(rpcs: Sequence[Rpc], raw: bytes, tx_hash: bytes) -> Sent:
    """Hand `raw` to every provider once; the best answer counts, because one that holds it is enough."""
    answers = await asyncio.gather(*(_send(rpc, raw, tx_hash) for rpc in rpcs))
    order = list(Delivery)
    best = min(answers, key=lambda sent: order.index(sent.delivery))
    return Sent(best.delivery, "; ".join(f"{rpc.host}: {sent.detail}" for rpc, sent in zip(rpcs, answers, strict=True)))


async def _send(rpc: Rpc, raw: bytes, tx_hash: bytes) -> Sent:
    try:
        answered = await AsyncWeb3(Transport(rpc)).eth.send_raw_transaction(raw)
    except Web3RPCError as error:
        response = error.rpc_response or {}
        failure = response.get("error")
        text = str(failure.get("message")) if isinstance(failure, dict) else str(error)
        return Sent(classify(text), text[:200])
    except (ChainUnknown, Web3Exception, ValueError, TypeError) as error:
        return Sent(Delivery.UNCLEAR, str(error)[:200])
    if bytes(answered) != tx_hash:
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
