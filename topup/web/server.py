"""How is something given over HTTP to whoever asks, so that nobody who asks exhausts anything?

In a thread and a loop of its own, which no pass keeps waiting. There are few connections, each with little room and
little time; where all are taken, the one goes that has waited longest for its own request. What reads the ledger is
done aside, one at a time, and waited for no longer than is said.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from topup.web.hosts import own
from topup.wire.aside import Aside

CONNECTIONS_MAX: Final = 32
HEAD_BYTES_MAX: Final = 8 * 1024
# How long a client may take for its request, and again to take what it asked for.
PATIENCE_S: Final = 5
# How long an answer may take that is made aside, the one before it included.
ANSWER_S: Final = 10
STOP_S: Final = 2
PLAIN: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What is given: how it went, what kind of text it is, and the text."""

    status: HTTPStatus
    kind: str
    body: bytes


@dataclass(frozen=True)
class Route:
    """How a path is answered; `answer` takes what the client accepts. One that `reads` may block, and is made aside."""

    answer: Callable[[str], Answer]
    reads: bool = True


def listen(host: str, port: int) -> socket.socket:
    """Take a port; an OSError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)


class Server:
    """Answers at these paths on a port that is taken; `names` are names of this machine beside localhost."""

    def __init__(self, port: socket.socket, routes: Mapping[str, Route], names: Collection[str] = ()) -> None:
        self._port, self._routes, self._names = port, routes, names
        # Each connection, the oldest first, and whether its request is still waited for.
        self._open: dict[asyncio.StreamWriter, bool] = {}
        self._aside, self._turn = Aside(), asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="topup-web", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; who is being answered is cut off."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._port, limit=HEAD_BYTES_MAX)
        await self._stopping.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._room():
            writer.transport.abort()
            return
        self._open[writer] = True
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE_S):
                head = await _head(reader)
            self._open[writer] = False
            method, answer = await self._answered(head)
            lines = (
                f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
                f"Content-Type: {answer.kind}",
                f"Content-Length: {len(answer.body)}",
                "Cache-Control: no-store",
                "X-Content-Type-Options: nosniff",
                *(["Allow: GET, HEAD"] if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else []),
                "Connection: close",
            )
            writer.write("\r\n".join((*lines, "", "")).encode() + (b"" if method == "HEAD" else answer.body))
            async with asyncio.timeout(PATIENCE_S):
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()
        self._open.pop(writer, None)

    def _room(self) -> bool:
        """Make room for one more connection."""
        if len(self._open) < CONNECTIONS_MAX:
            return True
        oldest = next((writer for writer, waits in self._open.items() if waits), None)
        if oldest is None:
            return False
        oldest.transport.abort()
        del self._open[oldest]
        return True

    async def _answered(self, head: bytes | None) -> tuple[str, Answer]:
        """Return the method, and what is answered."""
        if head is None:
            return "", _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        try:
            method, target, version, headers = _request(head)
        except ValueError:
            return "", _refusal(HTTPStatus.BAD_REQUEST)
        host = headers.get("host")
        if host is None and version != "HTTP/1.0":
            return method, _refusal(HTTPStatus.BAD_REQUEST)
        if host is not None and not own(host, self._names):
            return method, _refusal(HTTPStatus.MISDIRECTED_REQUEST)
        if method not in ("GET", "HEAD"):
            return method, _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        route = self._routes.get(urlsplit(target).path)
        if route is None:
            return method, _refusal(HTTPStatus.NOT_FOUND)
        return method, await self._by(route, headers.get("accept", ""))

    async def _by(self, route: Route, accepts: str) -> Answer:
        try:
            if not route.reads:
                return route.answer(accepts)
            async with asyncio.timeout(ANSWER_S), self._turn:
                return await self._aside.run(lambda: route.answer(accepts), ANSWER_S)
        except TimeoutError:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 - a defect: whoever asks is told its kind, and the next is answered
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"a defect: {type(error).__name__}")


def _refusal(status: HTTPStatus, says: str = "") -> Answer:
    return Answer(status, PLAIN, f"{says or status.phrase}\n".encode())


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """Return a request up to the end of its headers; None where that is too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None


def _request(head: bytes) -> tuple[str, str, str, dict[str, str]]:
    """Return method, target, version and headers; a ValueError where it is none, or names its host twice."""
    first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not target.startswith("/"):
        raise ValueError("no request")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.strip() != name or (name.lower() == "host" and "host" in headers):
            raise ValueError("no header")
        headers[name.lower()] = value.strip()
    return method, target, version, headers
