"""How is an event written? One line each on standard error: JSON off a terminal, readable on one, logfmt by choice.

The keys are `timestamp`, `level`, `event`, then the event's own fields, then `money` and `todo` where they say
something. An event holds no secret by construction; what could carry one (a URL, a key, signed bytes) has no
field to stand in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from topup.errors import Money
from topup.events import Event, Shown

Format = Literal["auto", "json", "console", "logfmt"]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class LogSink:
    """Events as log lines."""

    def __init__(
        self, *, level: str = "info", form: Format = "auto", stream: TextIO | None = None, now_ms: Callable[[], int]
    ) -> None:
        """Choose the renderer once; `now_ms` stamps the lines, so that a log tells the ledger's time."""
        # A process started with standard error closed has none: its lines are lost, and nothing else.
        out = stream or sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - kept for good
        self._now_ms = now_ms
        self._logger: Any = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=[self._stamp, _renderer(form, out)],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        )

    def emit(self, event: Event) -> None:
        """Write one event; an output that is gone loses the line, never the payment."""
        shown = {k: _printable(v) for k, v in event.shown().items() if v is not None}
        if event.money is not Money.NO:
            shown["money_moved"] = event.money.value
        if event.todo:
            shown["todo"] = event.todo
        try:
            getattr(self._logger, event.level)(event.name(), **shown)
        except (OSError, ValueError):
            return

    def _stamp(self, _: Any, level: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = datetime.fromtimestamp(self._now_ms() // 1000, UTC).replace(microsecond=self._now_ms() % 1000 * 1000)
        name = fields.pop("event")
        return {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": name,
            **fields,
        }


def _printable(value: Shown) -> Shown:
    """Spell out what would end a line, command a terminal or fit no encoding: others' words come through here."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _renderer(form: Format, out: TextIO) -> Any:
    if form == "auto":
        form = "console" if out.isatty() else "json"
    if form == "json":
        return structlog.processors.JSONRenderer()
    if form == "logfmt":
        return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    colours = out.isatty() and not os.environ.get("NO_COLOR")  # empty is as good as absent: no-color.org
    return structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False)
