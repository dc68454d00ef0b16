"""Can a second writer ever make the first pay again? Real processes: one stopped, its lock broken, another beside it.

Three things keep them apart, each tested here with the ones above it taken away: the lock file; the epoch, which every
write of the ledger checks in its own transaction; and the order of writes, by which nothing leaves that is not in the
ledger with its intent to send. The window that is left, between that commit and the send, is harmless: the bytes are
those that the other writer finds in the ledger, looks for and sends itself; their nonce can be mined once, their charge
can be paid once, and it is given up only on a proof that they can never be mined with success.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.duel import RAIL, STORE, Duel
from tests.world.served import PATIENCE_S, served, until
from topup.ledger.location import FILE
from topup.sandbox import contracts


@pytest.fixture
def duel(tmp_path: Path) -> Iterator[Duel]:
    """A world in which a refill is due."""
    with served(tmp_path) as place:
        place.low()
        yield Duel(place)


# -- before the intent to send is stored -----------------------------------------------------------------------------

BEFORE = {
    "before the nonce is taken": ("before", f"{STORE}.reserve"),
    "before the signature is stored": ("before", f"{STORE}.signed"),
    "while the charge is asked for": ("before", f"{STORE}.answered"),
}


@pytest.mark.parametrize("point", BEFORE)
def test_a_writer_stopped_before_its_intent_to_send_never_sends(point: str, duel: Duel) -> None:
    """Story 11: another takes over and pays; the first wakes, cannot store the step, ends, and its bytes never left."""
    first = duel.stopped(*BEFORE[point])
    (topup,) = duel.place.topups()
    assert all(a.intended_ms is None for a in topup.attempts)
    duel.break_lock()
    second = duel.second()
    second.await_event("top_up_done")
    sent = list(duel.raw)
    duel.fenced(first)
    assert duel.raw == sent
    assert not first.told("payment_sent")
    duel.paid_once()


def test_a_writer_stopped_with_signed_bytes_leaves_them_behind(duel: Duel) -> None:
    """What it had signed is withdrawn by the other before anything else is signed: two signatures, one was sent."""
    first = duel.stopped("before", f"{STORE}.intend")
    (signed,) = duel.place.topups()[0].attempts
    assert signed.raw is not None
    # At another price it is another transaction; at the same it would be the same bytes.
    world = duel.place.world
    dearer = world.eth_usd_e8 * 999 // 1000
    world.write(contracts.pool_price(500, dearer) + contracts.pool_price(3000, dearer))
    duel.break_lock()
    duel.second().await_event("top_up_done")
    duel.fenced(first)
    withdrawn, paid = duel.place.topups()[0].attempts
    assert withdrawn.withdrawn
    assert withdrawn.raw is None
    assert withdrawn.plan.nonce == paid.plan.nonce
    assert "0x" + signed.raw.hex() not in duel.raw
    duel.paid_once()


# -- after it ------------------------------------------------------------------------------------------------------


def test_a_writer_stopped_between_intent_and_send_can_only_send_the_ledgers_bytes(duel: Duel) -> None:
    """Story 11: the other finds, sends and books them; the first then sends the same ones, to no effect."""
    first = duel.stopped("before", f"{RAIL}.send")
    (intended,) = duel.place.topups()[0].attempts
    assert intended.intended_ms is not None
    assert duel.raw == []
    duel.break_lock()
    second = duel.second()
    second.await_event("top_up_done")
    told = duel.fenced(first)
    assert intended.raw is not None
    assert set(duel.raw) == {"0x" + intended.raw.hex()}
    assert len(duel.raw) == 2
    assert "taken" in told["error"]
    duel.paid_once()


def test_the_same_bytes_from_two_writers_are_one_transaction(duel: Duel) -> None:
    """The first wakes while what the second sent is in no block yet: the provider knows these bytes already."""
    duel.place.world.mining = False
    first = duel.stopped("before", f"{RAIL}.send")
    duel.break_lock()
    second = duel.second()
    second.await_event("payment_sent", answer="accepted")
    duel.fenced(first)
    assert len(set(duel.raw)) == 1
    duel.place.world.mining = True
    second.await_event("top_up_done")
    duel.paid_once()


def test_a_writer_stopped_between_send_and_answer_loses_the_answer_only(duel: Duel) -> None:
    """Sent, and fenced before `delivered` is stored: the other finds the payment by its hash."""
    first = duel.stopped("after", f"{RAIL}.send")
    assert len(duel.raw) == 1
    duel.break_lock()
    duel.second().await_event("top_up_done")
    duel.fenced(first)
    duel.paid_once()


def test_a_once_that_was_taken_over_says_so(duel: Duel) -> None:
    """The same for a command: it ends with a sentence and an exit code that promises nothing."""
    first = duel.stopped("before", f"{STORE}.intend", command=("once", "--yes"))
    duel.break_lock()
    duel.second().await_event("top_up_done")
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(timeout=PATIENCE_S) == 3
    assert "another topup has taken this ledger over" in first.log()
    assert "to do: " in first.log()
    duel.paid_once()


# -- what the lock, the file and SQLite itself do --------------------------------------------------------------------


def test_a_writer_stopped_inside_a_transaction_cannot_be_taken_over(duel: Duel) -> None:
    """SQLite's own lock stands behind ours: the second leaves with the file's name, the first goes on and pays once."""
    first = duel.stopped("before", "sql:SET intended_ms")
    duel.break_lock()
    second = duel.place.run("run")
    assert second.returncode == 4, second.stderr
    assert f"{duel.place.state / FILE} locked" in second.stderr
    assert duel.raw == []
    first.process.send_signal(signal.SIGCONT)
    first.await_event("top_up_done")
    assert first.stop() == 0
    duel.paid_once()


def test_of_many_started_at_once_one_gets_the_ledger(duel: Duel) -> None:
    """Six at the same instant, where no ledger was: one runs, five leave with exit 4, one payment."""
    started = [duel.place.start("run") for _ in range(6)]
    until(lambda: sum(one.process.poll() is not None for one in started) == 5)
    (left,) = [one for one in started if one.process.poll() is None]
    assert [one.process.returncode for one in started if one is not left] == [4] * 5
    left.await_event("top_up_done")
    duel.paid_once()
    assert sorted(p.name for p in duel.place.state.iterdir()) == [FILE, f"{FILE}-shm", f"{FILE}-wal", "lock"]
