"""How does a result reach whoever asked, and what if nobody takes it? Telling is not doing: it never fails a command.

A reader that has gone, a full disk, a closed output and a terminal that knows few letters all lose text, and nothing
else: no traceback, and no exit code of Python's own. Whether anything was lost can be asked afterwards.
"""

import errno
import json
import os
import select
import sys
from typing import Any, TextIO

from topup.wire.clean import escaped

# How long a message on standard error waits for a reader that has stopped.
STUCK_MS = 2_000
PIPE_BUF = 4096
# Why the first text was lost that could not be written; None while all of it was.
_lost: list[OSError | None] = []


def prepare() -> None:
    """Make the outputs of this process such that no text breaks them; once, before anything is written."""
    # What is closed is taken by the next file that is opened, and what is meant for the output would land in that.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - kept for good
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write(text: str) -> None:
    """Write to standard output, or lose it."""
    if lost():
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as error:  # the last two: it was closed, and before this began
        _lost.append(error if isinstance(error, OSError) else None)
        _silence(1, sys.stdout)


def say(text: str) -> None:
    """Print a line of the result; what it holds may come from a path, an argument or a variable, whoever has set it."""
    write(escaped(text, "\n\t") + "\n")


def document(value: dict[str, Any]) -> None:
    """Print a result as one JSON document."""
    say(json.dumps(value, indent=2))


def lost() -> bool:
    """Tell whether any of the result has not reached its reader."""
    return bool(_lost)


def why_lost() -> str | None:
    """Return why the result was lost where that is a fault; None where nothing was, or its reader had left."""
    error = _lost[0] if _lost else None
    return None if error is None or error.errno in (errno.EPIPE, errno.EBADF) else (error.strerror or str(error))


def warn(text: str) -> None:
    """Print a line to a person on standard error, or lose it; a reader that has stopped holds nobody up for long."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
        line = escaped(text, "\n\t") + "\n"
        for start in range(0, len(line), PIPE_BUF // 4):  # a letter takes four bytes at most
            if not _takes(sys.stderr):
                return
            sys.stderr.write(line[start : start + PIPE_BUF // 4])
            sys.stderr.flush()
    except (OSError, ValueError):
        _silence(2, sys.stderr)


def leave() -> None:
    """Before the end: see that nothing is left that Python itself would fail to write."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _silence(number, stream)


def _takes(stream: TextIO) -> bool:
    """Wait until a stream takes a small text without blocking; False where it does not."""
    try:
        looked = select.poll()
        looked.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # in memory
        return True
    return bool(looked.poll(STUCK_MS))


def _silence(number: int, stream: TextIO | None) -> None:
    """Let what a stream still holds go nowhere, so that it is not tried once more at the end."""
    try:
        if stream is None or stream.fileno() != number:
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        return
