"""How does a supervisor elsewhere hear of a command that makes one run, such as one of a timer?

Of its start, beside what it does, and of its exit code, for a few seconds once all is done and stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from topup.domain.errors import Exit, TopupError
from topup.ledger.store import SqliteStore
from topup.ports.account import Clock
from topup.wire.heartbeat import Heartbeat

# How long a command that has done its work tries to say so.
LAST_S: Final = 10


class RunBeat:
    """One run; silent until it has begun, and without a URL."""

    def __init__(self, url: str | None, clock: Clock) -> None:
        self._heartbeat = Heartbeat(url, clock) if url is not None else None
        self._telling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say that it begins, beside what follows; a second time changes nothing."""
        if self._heartbeat is not None and self._telling is None:
            self._heartbeat.began()
            self._telling = asyncio.create_task(self._heartbeat.run())

    async def end(self, code: int) -> None:
        """Say with which exit code it ends, if its beginning was said."""
        if self._heartbeat is None or self._telling is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._heartbeat.left(code)
        self._telling.cancel()

    async def fail(self, error: Exception, state_dir: Path) -> None:
        """Say the same of one that ends in an error: also where it came to nothing, if no other process has the ledger.

        A ledger that cannot even be looked at is had by nobody.
        """
        try:
            beside = SqliteStore.held(state_dir)
        except TopupError:
            beside = False
        if not beside:
            self.begin()
        await self.end(int(getattr(error, "exit_code", Exit.INTERNAL)))
