"""How is an event written? One line each on standard error: JSON off a terminal, readable on one, logfmt by choice.

The keys are `timestamp`, `level`, `event`, then the event's own fields, then `money` and `todo` where they say
something. An event holds no secret by construction; what could carry one (a URL, a key, signed bytes) has no
field to stand in.

Whoever reads the log may stop, or be gone. Lines are then kept, as far as there is room, and after that they are lost
and counted; nothing ever waits for the reader. As long as it reads, a line is out when `emit` returns.
"""

import contextlib
import errno
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self, TextIO

import structlog

from topup.app.keys import masker
from topup.app.settings import Settings
from topup.domain.errors import Money
from topup.domain.events import Event, LogLinesLost, Shown
from topup.ports.account import Clock
from topup.wire.clean import escaped

Format = Literal["auto", "json", "console", "logfmt"]
# The longest field of a line; none of ours is as long.
FIELD_MAX = 500
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# What is kept for a reader that has stopped, and how long the end of a command waits for it.
KEPT_BYTES = 1 << 20
END_S = 2
# A pipe, a socket or a terminal that says it is ready takes this much without making anybody wait.
ATOMIC = 4096


class Outlet:
    """Where lines leave, in order, without ever waiting: each at once, or as soon as the reader reads again."""

    def __init__(self, stream: TextIO, gap: Callable[[int], str]) -> None:
        """Write to this stream, past its own buffer where it is a file; `gap` is the line that tells of lost ones."""
        self._stream = stream
        self._gap = gap
        self._descriptor: int | None = None
        self._poll = select.poll()
        try:
            stream.flush()
            self._descriptor = stream.fileno()
            self._poll.register(self._descriptor, select.POLLOUT)
        except (OSError, ValueError):  # in memory, or closed
            self._descriptor = None
        # Lines that wait, each with the number of lines that it stands for.
        self._kept: deque[tuple[bytes, int]] = deque()
        self._size = self._lost = 0
        # Whether the first one has been sent in part, and whether a part was left without its end.
        self._begun = self._torn = False

    def write(self, text: str) -> None:
        """Send a line, keep it, or lose it."""
        if self._descriptor is None:
            self._stream.write(text)
            return
        self.drain()
        if self._size >= KEPT_BYTES:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._keep(self._gap(lost), lost)
        self._keep(text, 1)
        self.drain()

    def drain(self, wait_s: float = 0) -> None:
        """Send what is kept, as far as it is taken; `wait_s` is the longest that this waits for the reader."""
        end = time.monotonic() + wait_s
        while self._kept and self._descriptor is not None:
            try:
                if not self._poll.poll(max(0.0, end - time.monotonic()) * 1000):
                    return
                line = b"\n" * self._torn + self._kept[0][0]
                left = line[os.write(self._descriptor, line[:ATOMIC]) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:  # which is the word of an output that somebody made non-blocking
                    self._lose()
                return
            self._size -= len(line) - len(left) - self._torn
            self._torn, self._begun = False, bool(left)
            _, count = self._kept.popleft()
            if left:
                self._kept.appendleft((left, count))

    def _keep(self, text: str, count: int) -> None:
        line = text.encode(self._stream.encoding or "utf-8", "backslashreplace")
        self._kept.append((line, count))
        self._size += len(line)

    def _lose(self) -> None:
        """Give up what is kept: the disk is full, or the reader has gone."""
        self._lost += sum(count for _, count in self._kept)
        self._torn, self._begun = self._torn or self._begun, False
        self._kept.clear()
        self._size = 0


class LogSink:
    """Events as log lines."""

    def __init__(
        self,
        *,
        level: str = "info",
        form: Format = "auto",
        stream: TextIO | None = None,
        now_ms: Callable[[], int],
        hide: Callable[[str], str] = str,
    ) -> None:
        """Choose the renderer once; `now_ms` stamps the lines, so that a log tells the ledger's time.

        `hide` masks our secrets: a second line, where a field holds what should have been masked before.
        """
        self._hide = hide
        # A process started with standard error closed has none: its lines are lost, and nothing else.
        out = stream or sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - kept for good
        self._now_ms = now_ms
        self._least, self._render = LEVELS[level], _renderer(form, out)
        self._outlet = Outlet(out, self._gap)

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        """Return the log that the settings ask for, which says none of our secrets."""
        log = settings.log
        return cls(level=log.level, form=log.format, now_ms=clock.now_ms, hide=masker(settings))

    def close(self) -> None:
        """Give a reader that has stopped a moment to take the last lines."""
        self._outlet.drain(END_S)

    def emit(self, event: Event) -> None:
        """Write one event; an output that is gone loses the line, never the payment."""
        if LEVELS[event.loud()] < self._least and not event.always:
            return
        shown = {k: _printable(v, self._hide) for k, v in event.shown().items() if v is not None}
        if event.moved() is not Money.NO:
            shown["money_moved"] = event.moved().value
        if event.todo:
            shown["todo"] = event.todo
        with contextlib.suppress(OSError, ValueError):
            self._outlet.write(self._line(event, shown))

    def _gap(self, lines: int) -> str:
        event = LogLinesLost(lines=lines)
        return self._line(event, event.shown())

    def _line(self, event: Event, fields: Mapping[str, Shown]) -> str:
        now_ms = self._now_ms()
        moment = datetime.fromtimestamp(now_ms // 1000, UTC).replace(microsecond=now_ms % 1000 * 1000)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"timestamp": stamp, "level": event.loud(), "event": event.name()}
        return f"{self._render(None, event.loud(), head | dict(fields))}\n"


def _printable(value: Shown, hide: Callable[[str], str]) -> Shown:
    """Others' words come through here, cleaned where they were heard; this is the second line."""
    if not isinstance(value, str):
        return value
    value = hide(value)
    return escaped(value if len(value) <= FIELD_MAX else value[: FIELD_MAX - 1] + "…")


def _renderer(form: Format, out: TextIO) -> Any:
    if form == "auto":
        form = "console" if out.isatty() else "json"
    if form == "json":
        return structlog.processors.JSONRenderer()
    if form == "logfmt":
        return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    colours = out.isatty() and not os.environ.get("NO_COLOR")  # empty is as good as absent: no-color.org
    return structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False)
