"""What do signals do that come while a command is still being loaded, or while it makes up its mind?

Of `run` a hang-up never makes an end: a terminal was closed, or a log was rotated. Whatever asks `once` to stop is
noted, and obeyed as soon as it is known what of its wish may be out, for the exit code has to say that. All others end
as the system has it. Nothing slow is imported here: this comes before what is.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence

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


@contextlib.contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Note signals, and call this for each, also for what has come before."""
    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may
        before = {number: signal.signal(number, _note) for number in STOPPING}
    _listening.append(listener)
    if _came:
        listener()
    try:
        yield
    finally:
        _listening.remove(listener)
        for number, earlier in before.items():
            if earlier is not _note:
                signal.signal(number, earlier)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Let signals interrupt what waits for a person.

    Raises:
        KeyboardInterrupt: one came.
    """

    def interrupt(number: int, frame: object) -> None:
        _note(number, frame)
        # Should this be raised where Python swallows it, the question still finds that nobody answers.
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in STOPPING}
    try:
        if _came:
            raise KeyboardInterrupt
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _note(number: int, _: object) -> None:
    _came.append(signal.Signals(number))
    for listener in _listening:
        listener()
