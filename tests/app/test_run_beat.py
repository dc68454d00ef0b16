"""Does a supervisor hear of a refill that a timer makes, and only of the daemon where there is one?"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.receiver import Receiver, receiving
from tests.world.served import PATIENCE_S, Served, until
from tests.world.stage import Machine
from topup.app.run_beat import RunBeat
from topup.domain.errors import Exit, StoreUnusable
from topup.ledger.store import SqliteStore

pytestmark = pytest.mark.machine_time


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def timed(place: Served, receiver: Receiver) -> Served:
    """Commands whose heartbeat is set."""
    place.settings["TOPUP_NOTIFY__HEARTBEAT_URL"] = f"{receiver.url}/ping/me"
    return place


def runs(receiver: Receiver) -> list[str]:
    return [request.query for request in receiver.taken]


@pytest.mark.slow
def test_a_run_says_its_start_and_its_exit_code_under_one_id(timed: Served, receiver: Receiver) -> None:
    """One that bought, one that came to nothing, and one that found no ledger it could use; a dry run says nothing."""
    assert timed.run("once", "--dry-run").returncode == 0
    assert receiver.pings() == []
    assert timed.run("once", "--amount", "12.5", "--yes").returncode == 0
    timed.spoil("coinbase", "other-recipient")
    assert timed.run("once", "--amount", "12.5", "--yes", "--force").returncode == 3
    (timed.state / "ledger.sqlite").write_bytes(b"")
    broken = timed.run("once", "--yes").returncode
    assert receiver.pings() == ["start", "0", "start", "3", "start", str(broken)]
    first, bought, second, refused, third, lost = runs(receiver)
    assert first == bought != second == refused != third == lost


@pytest.mark.slow
def test_beside_a_daemon_only_the_daemon_beats(timed: Served, receiver: Receiver) -> None:
    """A run that the daemon carries out neither starts its check nor ends it; nor does one that is refused there."""
    daemon = timed.start("run")
    daemon.await_event("cycle_done")
    until(lambda: receiver.pings()[:2] == ["start", "me"], receiver.pings)
    assert timed.run("once", "--amount", "12.5", "--yes").returncode == 0
    assert timed.run("once", "--amount", "12.5", "--yes", account="other").returncode == 2
    assert set(receiver.pings()) <= {"start", "me"}
    assert daemon.stop() == 0
    assert receiver.pings()[-1] == "0"


async def test_a_supervisor_that_never_answers_is_waited_for_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the beginning nor what follows waits for it."""
    monkeypatch.setattr("topup.app.run_beat.LAST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        beat = RunBeat(f"http://127.0.0.1:{silent.getsockname()[1]}/ping", Machine())
        beat.begin()
        await beat.end(0)


async def test_an_error_is_said_unless_another_process_has_the_ledger(receiver: Receiver, tmp_path: Path) -> None:
    """By its exit code; a defect by that of a defect."""
    for error in (StoreUnusable("the disk is full"), ValueError()):
        await RunBeat(f"{receiver.url}/ping", Machine()).fail(error, tmp_path)
    assert receiver.pings() == ["start", str(int(StoreUnusable.exit_code)), "start", str(int(Exit.INTERNAL))]
    writer = SqliteStore.open_writer(tmp_path)
    await RunBeat(f"{receiver.url}/ping", Machine()).fail(StoreUnusable("the disk is full"), tmp_path)
    writer.close()
    assert len(receiver.pings()) == 4


async def test_without_a_url_nothing_is_said(tmp_path: Path) -> None:
    """And nothing is asked of anybody."""
    beat = RunBeat(None, Machine())
    beat.begin()
    await beat.fail(ValueError(), tmp_path)
