"""What is a world that needs no socket and no time? It lives in this thread, and a wait in it is over at once.

The loop's time is the world's: where nothing is left to be done before some moment, that moment comes. What is late by
eleven seconds is so to the deadlines of the real clients, and no verdict depends on how fast a machine is.

    with Near(embedded) as world, asyncio.Runner(loop_factory=world.loop) as runner: ...

Whoever asks, asks by the real clients; below them stands a `Voice` instead of a connection.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeVar

import httpx

from topup.sandbox import gateway
from topup.sandbox.evm import Evm
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.rpc import RpcError, RpcServer
from topup.sandbox.world import BLOCK_S, World, WorldClock
from topup.wire.egress import why

T = TypeVar("T")
BEGINS_S: Final = 1_800_000_000
API: Final = "https://api.example"
# However long a sleep is, so many blocks come in it.
BEATS_MAX: Final = 6
# A shorter one is waited for second by second, with a block every two.
LONG_S: Final = 12


class _Jump(selectors.SelectSelector):
    """Waits for nothing: what was to be waited for has gone by."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise AssertionError("something waits for what will never come")
            self.loop.now_s += max(0.0, timeout)
        return found


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time goes by when nothing else is left to be done."""

    def __init__(self) -> None:
        self.now_s = 0.0
        jump = _Jump()
        jump.loop = self
        super().__init__(jump)

    def time(self) -> float:
        return self.now_s


class _Clock(WorldClock):
    """The world's clock, which is the loop's."""

    def __init__(self, world: Near, begins_s: int) -> None:
        super().__init__(1)
        self._world = world
        self._begins_ms = begins_s * 1000

    def now_ms(self) -> int:
        return self._begins_ms + int(self._world.running.now_s * 1000)

    def leap(self, ms: int) -> None:
        self._world.running.now_s += max(0, ms) / 1000

    async def sleep(self, seconds: float) -> None:
        """Let a long time pass in few steps, a block in each; a short one as everybody else's does."""
        if seconds < LONG_S:
            await asyncio.sleep(seconds)
            return
        for _ in range(BEATS_MAX):
            self.leap(int(seconds * 1000 / BEATS_MAX))
            self._world.beat()


class Near(World):
    """Chain, provider, wallet and clock in the thread that uses them; nothing listens."""

    def __init__(self, *arguments: Any, begins_s: int = BEGINS_S, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.running = Loop()
        self.clock = _Clock(self, begins_s)
        self._heard: dict[str, Any] = {}
        self._ran: dict[str, Any] = {}

    def loop(self) -> Loop:
        return self.running

    def __enter__(self) -> Self:
        self.chain = self._make_chain(self)
        account = gateway.Account(self.clock.now_ms, *self._account)
        make = self._make_gateway
        self.gateway = (
            make(self, account)
            if make is not None
            else gateway.Gateway(account, operator=self.operator, chain=self.chain, conduct=self._conduct)
        )
        self.gateway._server.url = self.gateway.wire.elsewhere = API
        self.rpc = RpcServer(_Asked(self))
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stands in a thread of its own; the chain is whose it was."""

    def do(self, act: Callable[[], T]) -> T:
        self._heard.clear()
        return act()

    def beat(self) -> None:
        self._heard.clear()
        self.chain.mine(self.clock.now_s())
        self.gateway.poll()

    async def live(self) -> None:
        """Mine while somebody waits."""
        while True:
            await asyncio.sleep(BLOCK_S)
            self.beat()

    # Asked by the world's own provider: what was answered since the chain moved last is answered again.

    def ask_chain(self, method: str, params: list[Any]) -> Any:
        if method.startswith("eth_send"):
            self._heard.clear()
            return self.chain.rpc(method, params)
        ran, key = self._state_of(method, params), f"{method} {params}"
        if ran is None:
            if key not in self._heard:
                self._heard[key] = self.chain.rpc(method, params)
            return self._heard[key]
        if ran not in self._ran:
            try:
                self._ran[ran] = self.chain.rpc(method, params)
            except RpcError as error:
                self._ran[ran] = error
        told = self._ran[ran]
        if isinstance(told, RpcError):
            raise told
        return told

    def _state_of(self, method: str, params: list[Any]) -> str | None:
        """Return what tells a dry run from every other: what is run on which state, within which ten minutes.

        Nothing here is judged more finely by a block's time than that, and it is what takes longest.
        """
        if method not in ("eth_call", "eth_estimateGas") or not isinstance(self.chain, Evm) or len(params) > 2:
            return None
        block = self.chain._at_tag(params[1] if len(params) > 1 else "latest")
        return None if block is None else f"{method} {params[0]} {block.root.hex()} {block.timestamp // 600}"

    async def provider_says(self, request: Request) -> Response | Raw:
        return await self.rpc._answer(request)

    async def seller_says(self, request: Request) -> Response | Raw:
        self._heard.clear()
        return await self.gateway._answer(request)


@dataclass(frozen=True)
class _Asked:
    world: Near

    def rpc(self, method: str, params: list[Any]) -> Any:
        return self.world.ask_chain(method, params)


# -- what stands below the real clients -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """An answer on its way: what is sent in which pieces, and how many seconds lie before each."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    pieces: Sequence[tuple[float, bytes]] = ()

    def saying(self, body: bytes, *headers: tuple[str, str]) -> Told:
        """Return it with another body, and these headers beside its own."""
        return replace(self, body=body, headers=(*self.headers, *headers))


Speaks = Callable[[Request], Awaitable[Response | Raw]]
Between = Callable[[Request, Callable[[], Awaitable[Told]]], Awaitable[Told]]


class Voice(httpx.AsyncBaseTransport):
    """One server as a client reaches it; `between` stands before the true one."""

    def __init__(self, speaks: Speaks, between: Between | None = None) -> None:
        self._speaks = speaks
        self._between = between

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = request.url.query.decode()
        asked = Request(request.method, request.url.path, query, headers, await request.aread())

        async def honest() -> Told:
            return await _told(await self._speaks(asked))

        told = await self._between(asked, honest) if self._between is not None else await honest()
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in told.headers]
        return httpx.Response(told.status, headers=pairs, stream=_Stream(told.pieces or [(0, told.body)]))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[tuple[float, bytes]]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for wait_s, piece in self._pieces:
            if wait_s:
                await asyncio.sleep(wait_s)
            yield piece


class _Written:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.raw = b""
        self.transport = self

    def write(self, data: bytes) -> None:
        self.raw += data

    async def drain(self) -> None:
        return

    def abort(self) -> None:
        raise httpx.ReadError("the connection was cut")


async def _told(answer: Response | Raw) -> Told:
    if isinstance(answer, Response):
        return Told(answer.status, tuple(answer.fields()), answer.body)
    wire: Any = _Written()
    await answer.write(wire, wire)
    head, _, body = wire.raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    kept = tuple((name.strip(), value.strip()) for name, _, value in pairs if name.lower() != "content-length")
    return Told(int(first.split(" ")[1]), kept, body)


@dataclass(frozen=True)
class NearWay:
    """How a voice is reached: without leaving this thread."""

    voice: Voice

    def client(self, **_: Any) -> httpx.AsyncClient:
        """Return a client that reaches this voice and no other."""
        return httpx.AsyncClient(transport=self.voice, timeout=None, trust_env=False)  # noqa: S113 - as the real one

    @staticmethod
    def failure(error: BaseException) -> str:
        return why(error)


def hears(asker: Any, voice: Voice) -> None:
    """Let an `Rpc` or an `Exchange` ask this voice."""
    asker._client._way = NearWay(voice)
