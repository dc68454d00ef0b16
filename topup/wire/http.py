"""What comes back when somebody is asked over HTTP? One question, one bounded answer, or a sentence why there is none.

Nothing is asked twice and no redirect is followed: it would carry keys and credentials away. A call has a total
deadline and a size cap, because httpx has neither and a slow trickle would hold it for ever. URLs hold keys and never
appear in a message: whoever asks says what the other side is called.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import httpx

from topup.wire.egress import way
from topup.wire.unpack import Packed, Unpacker

# httpcore looks for sniffio a dozen times a request. Where it is not installed, each search walks through all of
# sys.path and is not remembered: a tenth of the time that a purchase takes. None makes the search fail at once.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]


class NoAnswer(Exception):
    """No answer that can be used; the question may have arrived all the same. The text names who was asked."""


@dataclass(frozen=True)
class Answered:
    """An answer: whose, its status, its headers in their order with names in lower case, its body as plain bytes."""

    who: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for given, value in self.headers if given == name]

    def first(self, name: str) -> str:
        """Return a header's first value, "" without one."""
        return next(iter(self.all(name)), "")

    @property
    def page(self) -> bool:
        """Tell whether this is a page for people, as whatever stands in front of a server writes them."""
        begins = self.body.removeprefix(b"\xef\xbb\xbf")[:64].lstrip()
        return any("html" in kind.lower() for kind in self.all("content-type")) or begins.startswith(b"<")


class Client:
    """Asks one server. With `lasting` a connection is kept for the next question, else each has its own."""

    def __init__(self, url: str, *, lasting: bool) -> None:
        """Keep who is asked, and by which way, see `egress.way`; nothing is sent yet."""
        self._way = way(url, os.environ)
        self._lasting = lasting
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close what is open."""
        # Let go before it is waited for: whoever asks meanwhile opens another, which a second close must not lose.
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        who: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        bytes_max: int,
    ) -> Answered:
        """Ask once; more than `bytes_max` is no answer, however it was packed. `who` begins the text of `NoAnswer`."""
        # Packed answers are not asked for: they save little, and unpacking them takes time that others wait for.
        sent = {"accept": "application/json", "accept-encoding": "identity", **headers}
        if not self._lasting:
            sent["connection"] = "close"
        if body is not None:
            sent["content-type"] = "application/json"
        raw, client = bytearray(), self._opened()
        try:
            async with (
                asyncio.timeout(timeout_s),
                client.stream(method, url, content=body, headers=sent) as response,
            ):
                given = tuple((name.lower(), value) for name, value in response.headers.multi_items())
                unpacker = Unpacker(",".join(value for name, value in given if name == "content-encoding"), bytes_max)
                async for piece in response.aiter_raw():
                    raw += unpacker.feed(piece)
                unpacker.end()
        except TimeoutError:
            raise NoAnswer(f"{who} did not answer within {timeout_s:g} s") from None
        except Packed as error:
            raise NoAnswer(f"{who} {error}") from None
        except Exception as error:  # noqa: BLE001 - a length of thousands of digits ends in ValueError, a port in a group
            # Where another answer on the connection gave it up, the error is of that, in words of the library's own.
            why = self._way.failure(error) if self._client is client else "the connection was given up"
            raise NoAnswer(f"{who}: {why}") from None
        return Answered(who, response.status_code, given, bytes(raw))

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = self._way.client(limits=httpx.Limits(max_connections=8, max_keepalive_connections=4))
        return self._client
