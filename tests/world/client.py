"""A provider that a test makes up, on loopback, and a client of ours that asks it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from topup.chain.rpc import Rpc
from topup.sandbox.http import Handler, Server


@asynccontextmanager
async def client_of(handler: Handler, path: str = "", timeout_s: float = 5, **how: Any) -> AsyncIterator[Rpc]:
    """Serve what answers by this handler, and yield a client of it."""
    server = Server(handler)
    await server.start()
    rpc = Rpc(f"{server.url}{path}", timeout_s=timeout_s, **how)
    try:
        yield rpc
    finally:
        await rpc.close()
        await server.stop()
