"""In which ways can an HTTP answer go wrong before its content matters? One function per fault, by name."""

import asyncio
import gzip
import io
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from topup.sandbox.http import Raw, Response, answer_of

JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNK = b" " * 65536
GONE = (
    "The Coinbase APIs used by this endpoint have been deprecated, so the Coinbase Commerce credits API has been "
    "removed. Use the web credits purchase flow instead."
)
FORBIDDEN = "Only management keys can perform this operation"
PAGE = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>"


@dataclass
class Wire:
    """What the wire faults need to know; may be changed while the server runs. Seconds are real seconds here."""

    retry_after_seconds: int = 2
    trickle_seconds: float = 0.2  # Between two bytes.
    oversized_bytes: int = 64 * 1024 * 1024
    elsewhere: str = ""  # Where a redirect points.


Honest = Callable[[], bytes]  # The body a fault spoils; asking for it has the effects of the request.
WireFault = Callable[[Wire, Honest], Response | Raw]


def error(code: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the API's own shape."""
    return answer_of(code, {"error": {"code": code, "message": message}}, headers)


def page(status: int, title: str) -> Response:
    """An HTML page, as proxies in front of an API write."""
    return Response(status, PAGE % (title.encode(), title.encode()), {"content-type": "text/html; charset=utf-8"})


def _rate_limited(wire: Wire, _: Honest) -> Response:
    wait = str(wire.retry_after_seconds)
    headers = {"retry-after": wait, "x-ratelimit-limit": "1", "x-ratelimit-remaining": "0", "x-ratelimit-reset": wait}
    return error(429, "Rate limit exceeded", headers)


def _unavailable(wire: Wire, _: Honest) -> Response:
    return error(503, "Service temporarily unavailable", {"retry-after": str(wire.retry_after_seconds)})


def _redirect(wire: Wire, _: Honest) -> Response:
    return Response(302, b"", {"location": f"{wire.elsewhere}/api/v1/credits"})


def _truncated(_: Wire, honest: Honest) -> Response:
    body = honest()
    return Response(200, body[: len(body) // 2])


def time_out() -> Raw:
    """Says nothing until the other side leaves."""

    async def write(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    return Raw(write)


def reset() -> Raw:
    """Cuts the connection with a TCP RST: with linger 0 the kernel drops what is queued and tells the peer so."""

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire: socket.socket = writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return Raw(write)


def _trickle(wire: Wire, honest: Honest) -> Raw:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(JSON_HEAD + b"connection: close\r\n\r\n")
        await writer.drain()
        # The honest body minus its end, then blanks for ever: at no time is this a complete document.
        for byte in honest()[:-1]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(wire.trickle_seconds)
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(wire.trickle_seconds)

    return Raw(write)


def _oversized(wire: Wire, honest: Honest) -> Raw:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = honest()
        writer.write(JSON_HEAD + b"connection: close\r\n\r\n" + body[:-1])
        for _chunk in range(wire.oversized_bytes // len(CHUNK)):
            writer.write(CHUNK)
            await writer.drain()
        # Blanks before the closing brace: whoever reads it all finds a valid document.
        writer.write(body[-1:])
        await writer.drain()

    return Raw(write)


def _short_body(_: Wire, honest: Honest) -> Raw:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = honest()
        writer.write(JSON_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
        await writer.drain()

    return Raw(write)


@cache
def _bomb(size: int) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        for _chunk in range(size // len(CHUNK)):
            packed.write(CHUNK)
    return out.getvalue()


def _gzip_bomb(wire: Wire, _: Honest) -> Response:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return Response(200, _bomb(wire.oversized_bytes), headers)


# What a server does, in words, and how.
_ANSWERS: Final[Mapping[str, tuple[str, WireFault]]] = {
    "gone-410": ("says that it is gone for good", lambda *_: error(410, GONE)),
    "unauthorized-401": ("does not know the key", lambda *_: error(401, "Missing Authentication header")),
    "forbidden-403": ("wants another kind of key", lambda *_: error(403, FORBIDDEN)),
    "rate-limited-429": ("asks for patience", _rate_limited),
    "server-error-500": ("fails", lambda *_: error(500, "Internal Server Error")),
    "bad-gateway-502": ("lets a proxy answer, in HTML", lambda *_: page(502, "502 Bad Gateway")),
    "unavailable-503": ("is unavailable and says when to return", _unavailable),
    "time-out": ("never answers", lambda *_: time_out()),
    "reset": ("cuts the connection", lambda *_: reset()),
    "trickle": ("answers one byte at a time, without end", _trickle),
    "html-200": ("answers 200 with a web page", lambda *_: page(200, "Just a moment...")),
    "truncated-json": ("stops in the middle of the document", _truncated),
    "short-body": ("sends less than it announced", _short_body),
    "null-body": ("answers null", lambda *_: Response(200, b"null")),
    "redirect-302": ("points to another server", _redirect),
    "oversized": ("answers with 64 MB", _oversized),
    "gzip-bomb": ("answers with what unpacks to 64 MB", _gzip_bomb),
}
WIRE_ANSWERS: Final = {name: words for name, (words, _) in _ANSWERS.items()}
WIRE_FAULTS: Final = {name: spoil for name, (_, spoil) in _ANSWERS.items()}
# What a seller may do beside these that carries payments to the chain. A payment would follow the redirect.
SELLER_FAULTS: Final[Mapping[str, WireFault]] = {
    **WIRE_FAULTS,
    "not-found-404": lambda *_: error(404, "Not Found"),
    "not-implemented-501": lambda *_: error(501, "Not Implemented"),
    "redirect-307": lambda wire, _: Response(307, b"", {"location": f"{wire.elsewhere}/"}),
}
