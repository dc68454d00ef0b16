"""What do signals do that come while a command is still being loaded, or while it makes up its mind?

Of `run` a hang-up never makes an end: a terminal was closed, or a log was rotated. Whatever asks `once` to stop is
noted, and obeyed as soon as it is known what of its wish may be out, for the exit code has to say that. All others end
as the system has it. Nothing slow is imported here: this comes before what is.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # of `typing` and `collections.abc` no more is needed, and they take their time
    from collections.abc import Callable, Sequence

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What has come, the first one first, and who wants to know at once.
_came: list[signal.Signals] = []
_listening: list[Callable[[], None]] = []


def hold(arguments: Sequence[str]) -> None:
    """Prepare for signals as the command wants it that these arguments name."""
    match arguments[1:2]:
        case ["run"]:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        case ["once"]:
            for number in STOPPING:
                signal.signal(number, _note)


def first() -> signal.Signals | None:
    """Return the first signal that asked to stop, None while none has."""
    return _came[0] if _came else None


class Heard:
    """While this holds signals are noted, and a listener is called for each, also for what has come before."""

    def __init__(self, listener: Callable[[], None]) -> None:
        self._listener = listener
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> None:
        try:  # noqa: SIM105 - contextlib takes its time to load
            self._before = {number: signal.signal(number, _note) for number in STOPPING}
        except ValueError:
            pass
        _listening.append(self._listener)
        if _came:
            self._listener()

    def __exit__(self, *_: object) -> None:
        """Leave signals to whoever had them before; what notes them itself goes on."""
        _listening.remove(self._listener)
        for number, earlier in self._before.items():
            if earlier is not _note:
                signal.signal(number, earlier)  # type: ignore[arg-type]


class Raised:
    """While this holds signals interrupt what waits for a person, by a KeyboardInterrupt."""

    def __enter__(self) -> None:
        """Begin; raises KeyboardInterrupt where one has come before."""
        self._before = {number: signal.signal(number, self._interrupt) for number in STOPPING}
        if _came:
            self.__exit__()
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, earlier in self._before.items():
            signal.signal(number, earlier)

    @staticmethod
    def _interrupt(number: int, frame: object) -> None:
        _note(number, frame)
        # Should this be raised where Python swallows it, the question still finds that nobody answers.
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)
        raise KeyboardInterrupt


def _note(number: int, _: object) -> None:
    _came.append(signal.Signals(number))
    for listener in _listening:
        listener()
