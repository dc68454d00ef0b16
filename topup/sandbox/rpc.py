"""How does a chain of the sandbox speak JSON-RPC? Any object with `rpc(method, params)`, served on loopback.

`intercept` stands between question and answer: it may answer otherwise, fail, wait, or drop the connection.
"""

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
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        return document if self.data is None else {**document, "data": self.data}


class Asked(Protocol):
    """Whatever can be asked by JSON-RPC."""

    def rpc(self, method: str, params: list[Any]) -> Any:
        """Answer one question, or raise RpcError."""


class Chain(Asked, Protocol):
    """A chain that can be asked, mined and disturbed, as `evm.Evm` describes it. Times in unix seconds, amounts in wei.

    Attributes:
        base_fee: of the blocks to come, in wei per gas.
        before_mine: called just before each block, between what was simulated and what will be.
    """

    base_fee: int
    before_mine: list[Callable[[], None]]

    def mine(self, timestamp: int | None = None) -> int: ...
    def set_storage(self, address: str, slot: int, value: int) -> None: ...
    def set_balance(self, address: str, wei: int) -> None: ...
    def set_code(self, address: str, code: bytes) -> None: ...
    def pending(self) -> int: ...
    def drop_pending(self) -> int: ...
    def reorg(self, depth: int, *, drop: bool = False) -> None: ...
    def stop(self) -> None: ...


Next = Callable[[], Any]
Intercept = Callable[[str, list[Any], Next], Awaitable[Any]]


class Drop(Exception):
    """Raised by an interceptor: cut the connection instead of answering."""


class RpcServer(Server):
    """A chain behind HTTP.

    Attributes:
        asked: questions by method, also those of batches.
        requests: HTTP requests, of which a batch is one.
        intercept: awaited for each question with its method, its parameters and a function that gives the honest
            answer; what it returns is the answer. It may wait, raise RpcError, or raise Drop.
    """

    def __init__(self, chain: Asked) -> None:
        """Keep the chain; nothing listens until `start`."""
        super().__init__(self._answer)
        self._chain = chain
        self.intercept: Intercept | None = None
        self.asked: Counter[str] = Counter()
        self.requests = 0

    async def _answer(self, request: Request) -> Response | Raw:
        self.requests += 1
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            return _document(_refused(None, RpcError(-32700, "parse error")))
        try:
            if isinstance(asked, list) and asked:
                return _document([await self._one(item) for item in asked])
            return _document(await self._one(asked))
        except Drop:
            return Raw(_cut)

    async def _one(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, dict) or not isinstance(item.get("method"), str):
            return _refused(None, RpcError(-32600, "invalid request"))
        name, method, params = item.get("id"), item["method"], item.get("params") or []
        if not isinstance(params, list):
            return _refused(name, RpcError(-32602, "non-array args"))
        self.asked[method] += 1

        def honest() -> Any:
            return self._chain.rpc(method, params)

        try:
            result = await self.intercept(method, params, honest) if self.intercept is not None else honest()
        except RpcError as error:
            return _refused(name, error)
        except Drop:
            raise
        except Exception as error:  # noqa: BLE001 - a node that fails inside says so and lives on
            return _refused(name, RpcError(-32603, f"internal error: {type(error).__name__}: {error}"))
        return {"jsonrpc": "2.0", "id": name, "result": result}


def _refused(name: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": name, "error": error.document()}


async def _cut(_: Any, writer: Any) -> None:
    writer.transport.abort()


def _document(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())
