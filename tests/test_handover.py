"""Does a kill at any commit of a wish, on either side of its hand-over, ever make two purchases of it, or none?

The process under test is `once`, or the daemon it hands over to, watched as the kill matrix watches it: it dies of
SIGKILL just before or just after a commit. Whoever wants the purchase then follows the exit codes.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.killed import COMMIT, TRACE, Cell
from tests.served import PATIENCE_S, TOPUP, Running, Served, began, ran, served
from topup.daemon import DAEMON
from topup.lifecycle import State
from topup.store.sqlite import SqliteStore

KILLED: Final = (sys.executable, "-m", "tests.killed")
WISH: Final = ("once", "--amount", "10", "--yes", "--request-id", "june")
# Until here a wish is stored, taken, decided, signed and meant to leave; what follows is every refill's life.
LAST: Final = "store.intend"


def start(place: Served, cell: Cell | None, *words: str) -> Running:
    """Start topup watched, to die at this cell."""
    stem = place.directory / f"watched-{len(place.started)}"
    command = [*KILLED, str(place.directory), str(cell) if cell is not None else "-", *words]
    running = Running(
        began(command, place.environment(), stem.with_suffix(".out"), stem.with_suffix(".err")),
        stem.with_suffix(".out"),
        stem.with_suffix(".err"),
    )
    place.started.append(running)
    return running


def commits(folder: Path) -> list[Cell]:
    """The cells of every commit of a trace up to the intent to send."""
    found: list[Cell] = []
    for line in (folder / TRACE).read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        if one["kind"] == COMMIT and one["call"] != "store.record_reading" and one["nth"] == 1:
            found += [Cell(one["phase"], one["call"], one["nth"], when) for when in ("before", "after")]
        if one["call"] == LAST:
            break
    return found


def follow(place: Served) -> list[int]:
    """Give the command as often as its exit code allows; a hand that reads 5 looks once more, which buys nothing."""
    codes: list[int] = []
    while not codes or (codes[-1] != 0 and len(codes) < 10):
        codes.append(ran([*TOPUP, *WISH], place.environment()).returncode)
    return codes


def once_purchase(place: Served, told: object) -> None:
    """Hold the outcome against the chain."""
    assert place.payments() == 1, told
    assert [t.state for t in place.topups() if t.state is not State.DROPPED] == [State.DONE], told
    assert place.books_match(), told


@pytest.mark.long
@pytest.mark.parametrize("side", ["once", "daemon"])
def test_a_kill_at_any_commit_of_a_wish_leaves_one_purchase(side: str, tmp_path: Path) -> None:
    """Each commit is tried, before and after, and the wish ends with 0 and one payment."""
    with served(tmp_path / "recorded") as place:
        lived(place, side, None)
        every = commits(place.directory)
        once_purchase(place, "undisturbed")
    assert {"store.take_request", "store.begin", LAST} <= {cell.call for cell in every}
    assert side == "daemon" or "store.wish" in {cell.call for cell in every}
    for number, cell in enumerate(every):
        with served(tmp_path / str(number)) as place:
            lived(place, side, cell)
            once_purchase(place, (side, str(cell)))


def lived(place: Served, side: str, cell: Cell | None) -> None:
    """Let one side live to its death, or to the end; then whoever wants the purchase follows the exit codes."""
    if side == "once":
        watched = start(place, cell, *WISH)
        code = watched.process.wait(timeout=60)
        assert code == (0 if cell is None else -signal.SIGKILL), watched.log()
    else:
        watched = start(place, cell, "run")
        holds(place, watched)
        first = place.start(*WISH)
        assert first.process.wait(timeout=90) in (0, 4, 5), first.log()
        if cell is not None:
            assert watched.process.wait(timeout=60) == -signal.SIGKILL, watched.log()
        else:
            assert watched.stop() == 0
    assert follow(place)[-1] == 0


def holds(place: Served, daemon: Running) -> None:
    """Wait until the daemon has the ledger, so that `once` hands its wish over, or is dead."""
    end = time.monotonic() + PATIENCE_S
    while daemon.process.poll() is None and SqliteStore.writer(place.state) != DAEMON:
        assert time.monotonic() < end, daemon.log()
        time.sleep(0.05)
