"""How does the embedded world listen? A small HTTP/1.1 server for loopback that can also misbehave on purpose.

It serves both the chain's JSON-RPC and the OpenRouter-compatible API. A handler returns a `Response`, or a
`Raw` that is handed the open connection: resets, trickles and truncated bodies need the wire itself.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import responses
from typing import Any

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
ACCEPTING_TURNS = 5


@dataclass(frozen=True)
class Request:
    """One request as it stood on the wire; header names are lower-case, `path` holds no query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """An ordinary answer; Content-Length is added here. A header with a list of values stands there once for each."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str | list[str]] = field(default_factory=lambda: {"content-type": "application/json"})

    def fields(self) -> list[tuple[str, str]]:
        """Return each header as it stands on the wire."""
        named = [(name, [text] if isinstance(text, str) else text) for name, text in self.headers.items()]
        return [(name, text) for name, texts in named for text in texts]


@dataclass(frozen=True)
class Raw:
    """An answer written by hand; the connection is closed when `write` returns."""

    write: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


Handler = Callable[[Request], Awaitable[Response | Raw]]


class Server:
    """A listening loopback server. `url` is known once `start` has returned."""

    def __init__(self, handler: Handler) -> None:
        """Keep the handler; nothing listens until `start`."""
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._stopping = False
        self.url = ""

    async def start(self) -> None:
        """Listen on 127.0.0.1, at a port that the system chooses."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        if self._server is None:
            return
        self._server.close()
        self._stopping = True
        # A connection that was accepted just now takes a few turns of the loop until it is served, and then ends.
        for _ in range(ACCEPTING_TURNS):
            await asyncio.sleep(0)
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._stopping:
            writer.transport.abort()
            return
        self._open[task] = writer
        try:
            while (request := await _read(reader)) is not None:
                answer = await self._handler(request)
                if isinstance(answer, Raw):
                    await answer.write(reader, writer)
                    break
                # Head and body leave in one write: two writes cost a delayed-ACK stall of 40 ms.
                writer.write(_head(answer) + answer.body)
                await writer.drain()
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # The peer went away or spoke nonsense; the next connection starts afresh.
        except asyncio.CancelledError:
            pass  # The server stops; there is nobody left to tell.
        finally:
            self._open.pop(task, None)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    path, _, query = target.partition("?")
    headers = {}
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError(f"content-length {length} is out of bounds")
    return Request(method, path, query, headers, await reader.readexactly(length))


def _head(answer: Response) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in answer.fields()]
    lines.append(f"content-length: {len(answer.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def json_text(value: Any) -> str:
    """JSON in which a Decimal is a number with its own digits: no float on the way, no exponent."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            return "NaN"  # What a careless server writes; not JSON.
        plain = f"{value:f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


def answer_of(status: int, body: Mapping[str, Any], headers: Mapping[str, str | list[str]] | None = None) -> Response:
    """Return JSON in which a Decimal is a number with its own digits."""
    return Response(status, json_text(body).encode(), {"content-type": "application/json", **(headers or {})})
