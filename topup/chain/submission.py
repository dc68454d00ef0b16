"""How does a new payment leave? By web3.py, over our own transport.

Slow to load, so only what plans a payment loads it: a payment that an earlier process stored does not wait for it.
"""

import sys
from functools import lru_cache
from typing import Any

from web3 import AsyncWeb3
from web3.exceptions import Web3Exception
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from topup.chain.rpc import Rpc, unhex
from topup.domain.errors import ChainUnknown

# See topup.signers.local: web3 loads py_ecc too, whose recursion limit lets a nested JSON answer end the process.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 10_240))


class Transport(AsyncJSONBaseProvider):
    """web3.py's provider over our own client: no retries, no CCIP-Read, no lock of its own."""

    global_ccip_read_enabled = False

    def __init__(self, rpc: Rpc) -> None:
        super().__init__()
        self._rpc = rpc

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask once; what the provider refuses is raised as it is."""
        # The one thing that is asked here is a hash; web3.py would make something of anything else.
        answered = unhex(await self._rpc.ask(method, *params), "the hash of what was sent")
        return {"jsonrpc": "2.0", "id": 1, "result": "0x" + answered.hex()}


@lru_cache(maxsize=8)
def _over(rpc: Rpc) -> AsyncWeb3[Transport]:
    """Return web3.py over a provider: to make it anew takes longer than to send by it."""
    return AsyncWeb3(Transport(rpc))


async def submit(rpc: Rpc, raw: bytes) -> bytes:
    """Hand bytes to one provider; return the hash that it answers.

    Raises:
        RpcError: the provider refused them, or says so.
        ChainUnknown: no usable answer.
    """
    try:
        return bytes(await _over(rpc).eth.send_raw_transaction(raw))
    except (Web3Exception, ValueError, TypeError) as error:
        raise ChainUnknown(str(error)) from None
