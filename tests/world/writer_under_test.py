"""How does a test stop or kill the real program at a chosen point? topup's own command line with one hook in it.

    python -m tests.world.writer_under_test stop before topup.ledger.store:SqliteStore.intend run

sends SIGSTOP to itself when that function is called for the first time (`after`: when it has returned), then goes on
as `topup run`. `kill` sends SIGKILL. Instead of a function, `before sql:WORDS` names the first SQL statement the writer
runs that holds these words. `fail` is a defect there: an error of no kind of ours, which repeats the text of
TEST_DEFECT_SAYS. `none` hooks nothing. The shipped program knows nothing of this.
"""

import importlib
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.world.around import around

SIGNALS = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}


class Point:
    """A place where something happens: a signal the first time, a defect every time."""

    def __init__(self, number: signal.Signals | None) -> None:
        """Keep the signal to send; None for a defect."""
        self._number, self._passed = number, False

    def reach(self) -> None:
        if self._number is None:
            raise RuntimeError(os.environ["TEST_DEFECT_SAYS"])
        if not self._passed:
            self._passed = True
            os.kill(os.getpid(), self._number)


def hook(target: str, when: str, point: Point) -> None:
    """Replace `module:Class.method` by one that reaches the point before or after it."""
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    place = getattr(importlib.import_module(module), owner)

    @contextmanager
    def each() -> Iterator[None]:
        if when == "before":
            point.reach()
        yield
        if when == "after":
            point.reach()

    setattr(place, name, around(getattr(place, name), each))


def hook_sql(words: str, point: Point) -> None:
    """Reach the point just before a statement that holds these words runs."""
    from topup.ledger import database

    honest = database.connect

    def traced(*given: Any) -> sqlite3.Connection:
        connection = honest(*given)
        connection.set_trace_callback(lambda sql: point.reach() if words in sql else None)
        return connection

    setattr(database, "connect", traced)  # noqa: B010 - the type checker knows it as a function


def main() -> None:
    """Read the hook, put it in, and be topup."""
    from topup.app import daemon
    from topup.commands import cli

    name, *words = sys.argv[1:]
    if name != "none":
        when, target, *words = words
        point = Point(SIGNALS.get(name))
        if target.startswith("sql:"):
            hook_sql(target.removeprefix("sql:"), point)
        else:
            hook(target, when, point)
    daemon.ERROR_WAIT_S = 1  # what is to come right by itself is awaited in real time here
    sys.argv = ["topup", *words]
    cli.main()


if __name__ == "__main__":
    main()
