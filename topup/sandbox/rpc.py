"""How does a chain of the sandbox speak JSON-RPC? Any object with `rpc(method, params)`, served on loopback.

`intercept` stands between question and answer: it may answer otherwise, fail, wait, or drop the connection.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from topup.sandbox.http import Raw, Request, Response, Server


class RpcError(Exception):
    """A JSON-RPC error object: code, message and, for a revert, its data."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        """Keep the three parts."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def document(self) -> dict[str, Any]:
        """Return the error object."""
        told: dict[str, Any] = {"code": self.code, "message": self.message}
        return told if self.data is None else {**told, "data": self.data}


class Chain(Protocol):
    """A chain that can be asked, mined and disturbed. Times in unix seconds, amounts in wei."""

    # Run just before each block, between what was simulated and what will be.
    before_mine: list[Callable[[], None]]

    def rpc(self, method: str, params: list[Any]) -> Any:
        """Answer one question, or raise RpcError."""

    def mine(self, timestamp: int) -> int:
        """Mine what is pending into a block; return its number."""

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """Change a slot of a contract from now on."""

    def set_balance(self, address: str, wei: int) -> None:
        """Change a balance from now on."""

    def pending(self) -> int:
        """Return how many transactions wait for a block."""

    def drop_pending(self) -> int:
        """Forget what is waiting for a block; return how many transactions that were."""

    def reorg(self, depth: int) -> None:
        """Take back the newest blocks; their transactions wait again."""

    def stop(self) -> None:
        """End it."""


Next = Callable[[], Any]
Intercept = Callable[[str, list[Any], Next], Awaitable[Any]]


class Drop(Exception):
    """Raised by an interceptor: cut the connection instead of answering."""


class RpcServer:
    """A chain behind HTTP. `asked` counts questions by method, `requests` counts HTTP requests."""

    def __init__(self, chain: Chain) -> None:
        """Keep the chain; nothing listens until `start`."""
        self._chain = chain
        self._server = Server(self._answer)
        self.intercept: Intercept | None = None
        self.asked: Counter[str] = Counter()
        self.requests = 0

    @property
    def url(self) -> str:
        """The address to ask at."""
        return self._server.url

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        await self._server.start(port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    async def _answer(self, request: Request) -> Response | Raw:
        self.requests += 1
        try:
            asked = json.loads(request.body)
        except ValueError:
            return _document({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "parse error"}})
        try:
            if isinstance(asked, list):
                return _document([await self._one(item) for item in asked])
            return _document(await self._one(asked))
        except Drop:
            return Raw(_cut)

    async def _one(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, dict) or not isinstance(item.get("method"), str):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "invalid request"}}
        method, params = item["method"], list(item.get("params") or [])
        self.asked[method] += 1
        head = {"jsonrpc": "2.0", "id": item.get("id")}

        def honest() -> Any:
            return self._chain.rpc(method, params)

        try:
            told = await self.intercept(method, params, honest) if self.intercept is not None else honest()
        except RpcError as error:
            return {**head, "error": error.document()}
        return {**head, "result": told}


async def _cut(_: Any, writer: Any) -> None:
    writer.transport.abort()


def _document(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())
