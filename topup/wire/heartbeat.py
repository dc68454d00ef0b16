"""How does a supervisor elsewhere learn that this process lives? By pings as healthchecks.io takes them.

`URL/start`, `URL`, `URL/fail` and `URL/CODE`, each with `rid`, the id of the run (https://healthchecks.io/docs/http_api).
A ping that fails is no matter of ours: its silence is the alarm. Nothing waits for one.
"""

import asyncio
import contextlib
import uuid
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from topup.ports.account import Clock
from topup.wire.http import Client, NoAnswer

TIMEOUT_S: Final = 10
# What is well is said once a minute; a change is said at once.
EVERY_MS: Final = 60_000
KEPT: Final = 16
ANSWER_BYTES_MAX: Final = 64 * 1024


class Heartbeat:
    """Pings about the passes of one process; `run` sends them."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Keep where to."""
        self._url, self._clock = urlsplit(url), clock
        self._client = Client(url, lasting=False)
        self._queue: asyncio.Queue[str] = asyncio.Queue(KEPT)
        self._run = str(uuid.uuid4())
        self._well_ms: int | None = None
        self._skips = False
        # One after the other, so that none is heard before what was said first.
        self._turn = asyncio.Lock()

    def began(self) -> None:
        """Say that a pass begins, unless it was well a moment ago."""
        self._skips = self._well_ms is not None and self._clock.monotonic_ms() - self._well_ms < EVERY_MS
        if not self._skips:
            self._run = str(uuid.uuid4())
            self._put("start")

    def ended(self, *, well: bool) -> None:
        """Say how it ended."""
        if not well or not self._skips:
            self._put("" if well else "fail")
        self._well_ms = (self._well_ms if self._skips else self._clock.monotonic_ms()) if well else None

    async def left(self, code: int) -> None:
        """Say with which exit code the process leaves, and wait until all is said or cannot be."""
        self._put(str(code))
        while not self._queue.empty():
            await self._ping(self._queue.get_nowait())
        async with self._turn:  # what `run` has in hand comes first
            await self._client.close()

    async def run(self) -> None:
        """Send what there is to send, until cancelled."""
        while True:
            await self._ping(await self._queue.get())

    def _put(self, what: str) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(f"{what}?{self._run}")

    async def _ping(self, said: str) -> None:
        what, _, run = said.partition("?")
        path = f"{self._url.path.rstrip('/')}/{what}" if what else self._url.path
        query = f"{self._url.query}&rid={run}" if self._url.query else f"rid={run}"
        async with self._turn:
            with contextlib.suppress(NoAnswer):
                await self._client.ask(
                    "GET",
                    urlunsplit(self._url._replace(path=path, query=query)),
                    who="the heartbeat",
                    headers={},
                    body=None,
                    timeout_s=TIMEOUT_S,
                    bytes_max=ANSWER_BYTES_MAX,
                )
