"""Does the daemon stop, come back, tell its watchdog, and survive what breaks inside a pass, and pay exactly once?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from tests.world import builders
from tests.world.idle import Account20, Heard, Leap
from tests.world.served import Served
from topup.app import assembly
from topup.app.daemon import BEAT_S, DEFECTS_MAX, ERROR_WAIT_S, Daemon, SdNotify
from topup.app.pulse import STUCK_MS, Vitals
from topup.app.settings import load
from topup.domain import events
from topup.domain.errors import Exit, StoreUnusable
from topup.domain.events import Event
from topup.domain.lifecycle import State
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.payment.config import Account, Route, Terms
from topup.payment.cycle import Cycle
from topup.ports.ledger import Requested, Wish
from topup.ports.rail import Rail
from topup.sandbox.rpc import RpcError

# -- stopping and coming back -----------------------------------------------------------------------------------


def finish(place: Served) -> None:
    """Start the daemon again, let it end what is open, and hold the outcome against the chain."""
    place.mend()
    place.world.mining = True
    again = place.start("run")
    again.await_event("top_up_done")
    again.await_event("cycle_done", outcome="held")
    assert again.stop() == 0, again.log()
    assert place.payments() == 1
    assert [t.state for t in place.topups()] == [State.DONE]
    assert place.books_match()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_stop_while_idle_is_prompt_and_clean(number: signal.Signals, place: Served) -> None:
    """Between two polls that are a quarter of an hour apart: exit 0, said with the signal's name, no traceback."""
    daemon = place.start("run", watch__poll_fastest_s="900")
    daemon.await_event("cycle_done", next_s=900)
    assert daemon.stop(number) == 0
    (said,) = daemon.told("stopping")
    assert said["signal"] == number.name
    assert "open_topup" not in said
    assert len(daemon.told("cycle_done")) == 1
    assert "Traceback" not in daemon.log()


def test_a_stop_while_a_charge_is_asked_for_leads_to_one_payment(place: Served) -> None:
    """The endpoint does not answer: the pass is given its time-out to park, and the next start asks and pays once."""
    place.low()
    place.spoil("coinbase", "time-out")
    daemon = place.start("run", api__timeout_s="2")
    daemon.await_event("charge_requested")
    assert daemon.stop() == 0
    (topup,) = place.topups()
    assert topup.state in (State.ASKING, State.DECIDED)
    assert daemon.told("stopping", open_topup=topup.id)
    finish(place)
    assert len(place.topups()[0].charges) == 2


@pytest.mark.parametrize(
    ("event", "number", "state"),
    [
        pytest.param("payment_sent", signal.SIGTERM, State.SENT, id="out"),
        pytest.param("payment_sent", signal.SIGKILL, State.SENT, id="out, killed"),
        pytest.param("payment_included", signal.SIGTERM, State.PAID, id="paid"),
    ],
)
def test_a_stop_while_the_money_is_out_leads_to_one_payment(
    event: str, number: signal.Signals, state: State, place: Served
) -> None:
    """In no block yet, or paid and not posted: the next process finds the payment, goes on, and buys nothing more."""
    place.low()
    place.spoil("posting", "never-posts")
    place.world.mining = state is State.PAID
    daemon = place.start("run")
    daemon.await_event(event)
    assert daemon.stop(number) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    (topup,) = place.topups()
    assert topup.state is state
    finish(place)
    (ended,) = place.topups()
    assert [attempt.hash for attempt in ended.attempts] == [attempt.hash for attempt in topup.attempts]


def test_a_second_daemon_leaves_with_a_sentence(place: Served) -> None:
    """The ledger has one writer: the second exits 4, names the directory and says what to do; the first goes on."""
    first = place.start("run")
    first.await_event("cycle_done")
    second = place.run("run")
    assert second.returncode == 4
    (told,) = map(json.loads, second.stderr.splitlines())
    assert (told["event"], told["kind"], told["exit_code"]) == ("cannot_run", "store_busy", 4)
    assert f"another topup holds the ledger in {place.state}" in told["error"]
    assert told["remedy"].startswith("ask the running daemon")
    first.await_event("cycle_done", cycle=len(first.told("cycle_done")) + 1)


WORDS = [
    pytest.param("\ud800 is no letter", id="half a letter"),
    pytest.param("\x00", id="a null"),
    pytest.param("\x1b[2J", id="an escape"),
    pytest.param("9" * 100_000, id="too much"),
]


@pytest.mark.parametrize("said", WORDS)
def test_what_a_provider_says_of_a_payment_cannot_break_the_daemon(said: str, place: Served) -> None:
    """The payment was refused in words that no ledger and no terminal takes: they are kept as text, and it is paid."""
    place.low()
    refused: list[Any] = []

    async def rude(method: str, _: Any, honest: Callable[[], Any]) -> Any:
        told = honest()
        if method == "eth_sendRawTransaction" and not refused:
            refused.append(told)
            raise RpcError(-32000, said)
        return told

    place.world.rpc.intercept = rude
    daemon = place.start("run")
    daemon.await_event("top_up_done")
    assert refused
    assert daemon.told("cycle_failed") == []
    assert daemon.told("payment_sent")[0]["answer"] == "unclear"
    assert place.payments() == 1


# -- systemd ----------------------------------------------------------------------------------------------------


def test_a_supervisor_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """It is told of what happens as long as it is there; tests/app/test_deploy.py hears what it is told."""
    SdNotify(f"@topup-test-{tmp_path}").say("READY=1")


def test_a_pass_that_hangs_stops_the_heart_and_one_that_asks_does_not(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a pass asks, the watchdog hears of it every five seconds; a pass that waits for nothing is silent."""

    class Ticking(Leap):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            await asyncio.sleep(0)

    name = f"topup-heart-{tmp_path}"
    monkeypatch.setattr(fake.daemon, "vitals", Vitals(Ticking()))

    async def tell(ear: socket.socket) -> tuple[int, int]:
        asking, never = True, asyncio.Event()

        async def hang(asked: object) -> None:
            while asking:
                fake.api.requests += 1
                await asyncio.sleep(0)
            await never.wait()

        monkeypatch.setattr(fake.daemon.cycle, "run", hang)
        running = asyncio.create_task(fake.daemon.run())
        counts = []
        for phase in (True, False):
            asking, heard = phase, 0
            for _ in range(200):
                await asyncio.sleep(0)
                with contextlib.suppress(BlockingIOError):
                    heard += ear.recv(100) == b"WATCHDOG=1"
            counts.append(heard)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return counts[0], counts[1]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("\0" + name)
        ear.setblocking(False)
        monkeypatch.setattr(fake.daemon, "supervisor", SdNotify("@" + name))
        may_still_pay, hung = asyncio.run(tell(ear))
    assert may_still_pay > 50
    assert 0 < hung <= STUCK_MS // 1000 // BEAT_S + 1


def test_a_supervisor_that_reads_no_more_holds_nobody_up() -> None:
    """Its queue is full after a few words: the others are lost, and nobody waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("")
        for _ in range(2_000):
            SdNotify("@" + ear.getsockname()[1:].decode()).say("WATCHDOG=1")


# -- passes, with a clock that leaps ------------------------------------------------------------------------------


def no_rail(_: str) -> Rail:
    raise AssertionError("nothing is bought here")


@dataclass
class Fake:
    """A daemon over a real ledger and a stand-in account."""

    daemon: Daemon
    store: SqliteStore
    api: Account20
    clock: Leap
    sink: Heard

    def run(self, *, passes: int = 100) -> Exit:
        """Let it run until it ends by itself, or until so many passes are over."""

        def stop(event: Event) -> None:
            if isinstance(event, events.CycleDone | events.CycleFailed) and event.cycle >= passes:
                self.daemon.stop("test")

        self.sink.on_event = stop
        return asyncio.run(self.daemon.run())


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    """A daemon in this process, well above its floor."""
    settings = load({"TOPUP_CONFIG": "/dev/null", "TOPUP_STATE_DIR": str(tmp_path), "TOPUP_API__KEY": "k"})
    clock, sink = Leap(), Heard()
    api, store = Account20(clock), SqliteStore.open_writer(tmp_path)
    terms = Terms(
        Account("default", None, (Route("coinbase", 8453),)),
        assembly.limits(settings),
        assembly.ceilings(settings),
        assembly.pace(settings),
    )
    cycle = Cycle(terms, api=api, rails=no_rail, store=store, clock=clock, sink=sink, rpc_requests=lambda: 0)
    yield Fake(Daemon(cycle, store, clock, sink, "default", SdNotify(None)), store, api, clock, sink)
    store.close()


def broken() -> None:
    """A defect whose text holds what must not be told."""
    raise RuntimeError("CANARY https://user:secret@provider.example/v2/key")


def test_each_pass_says_how_it_ended_in_one_line_with_every_field(fake: Fake) -> None:
    """Nine passes, nine `cycle_done`, counted from one, each with what was read, what it cost and when the next is."""
    assert fake.run(passes=9) is Exit.OK
    lines = fake.sink.of(events.CycleDone)
    assert [line.cycle for line in lines] == list(range(1, 10))
    for line in lines:
        assert {f.name for f in fields(line)} == set(line.shown())
        assert (line.outcome, line.why, line.state) == ("held", "above_floor", None)
        assert line.total_credits_usd == Usd.of(20)
        assert line.balance_usd == Usd.of(15)
        assert line.next_s >= 60
        assert line.rpc_requests == 0
    assert lines[0].api_requests == 2
    assert {line.api_requests for line in lines[1:4]} == {1}
    assert lines[0].burn_usd_per_hour is None
    assert lines[-1].burn_usd_per_hour == Usd.of(0)


def test_a_defect_is_told_without_its_words_and_tried_again(fake: Fake) -> None:
    """The kind of the defect is in the log, its text is not; the next pass comes half a minute later and is whole."""
    fake.api.instead = [broken]
    assert fake.run(passes=2) is Exit.OK
    (failed,) = fake.sink.of(events.CycleFailed)
    assert (failed.kind, failed.error, failed.cycle) == ("RuntimeError", "RuntimeError", 1)
    assert "CANARY" not in repr(fake.sink.events)
    assert sum(fake.clock.slept[:ERROR_WAIT_S]) == ERROR_WAIT_S
    assert [line.cycle for line in fake.sink.of(events.CycleDone)] == [2]


def test_three_defects_in_a_row_end_the_process(fake: Fake) -> None:
    """It gives up with exit 1 rather than spin; a whole pass in between starts the count anew."""
    fine = lambda: None  # noqa: E731 - a word for the list below
    fake.api.instead = [broken, broken, fine, broken, broken, fine, broken, broken, broken]
    assert fake.run() is Exit.INTERNAL
    assert len(fake.sink.of(events.CycleFailed)) == 4 + DEFECTS_MAX
    assert len(fake.sink.of(events.CycleDone)) == 2


def test_a_ledger_that_cannot_be_written_is_waited_for(fake: Fake) -> None:
    """A full disk is no defect: it is told with its remedy as often as it lasts, and watching goes on after it."""

    def full() -> None:
        raise StoreUnusable("the ledger cannot be written: database or disk is full", remedy="free disk space")

    fake.api.instead = [full] * (DEFECTS_MAX + 2)
    assert fake.run(passes=DEFECTS_MAX + 3) is Exit.OK
    failed = fake.sink.of(events.CycleFailed)
    assert len(failed) == DEFECTS_MAX + 2
    assert {(f.kind, f.error, f.remedy) for f in failed} == {
        ("StoreUnusable", "the ledger cannot be written: database or disk is full", "free disk space")
    }
    assert len(fake.sink.of(events.CycleDone)) == 1


def test_ledger_time_never_runs_backwards(fake: Fake) -> None:
    """The clock jumps back a day between two passes: said once, readings stay in order, watching goes on."""
    back = lambda: fake.clock.set_back(86_400_000)  # noqa: E731 - an act for the list below
    fake.api.instead = [lambda: None, back]
    assert fake.run(passes=6) is Exit.OK
    (behind,) = fake.sink.of(events.ClockBehind)
    assert behind.behind_s == pytest.approx(86_400, abs=100)
    times = [r.at_ms for r in fake.store.readings("default", 0)]
    assert len(times) == 6
    assert times == sorted(set(times))
    assert fake.store.now_ms(fake.clock.now_ms()) >= times[-1]
    assert len(fake.sink.of(events.CycleDone)) == 6


# -- wishes of other commands -------------------------------------------------------------------------------------

LIFE_MS = 120_000


def wished(fake: Fake, amount: int | None, *, forced: bool = False, ago_ms: int = 0) -> Requested:
    """A wish that another process has left, so long ago."""
    asked_ms = fake.clock.now_ms() - ago_ms
    amount_usd = Usd.of(amount) if amount is not None else None
    return fake.store.wish("default", Wish(amount_usd, forced, None, 1), asked_ms, asked_ms + LIFE_MS)


def test_a_wish_wakes_the_daemon_from_a_long_sleep_and_is_answered(fake: Fake) -> None:
    """It is looked for every second of a sleep, carried out by the next pass, and answered with how that ended."""
    fake.run(passes=1)
    before = len(fake.clock.slept)
    number = wished(fake, None).number
    fake.daemon._stop.clear()
    fake.run(passes=2)
    told = fake.store.requested(number)
    assert (told.outcome, told.why, told.code) == ("held: 15 is not below the floor of 10", "above_floor", Exit.OK)
    assert len(fake.clock.slept) - before <= 1


def test_a_wish_that_nobody_took_in_time_is_never_carried_out(fake: Fake) -> None:
    """Its asker has gone: "later", and nothing is decided. One that was withdrawn is not even looked at."""
    number = wished(fake, 25, forced=True, ago_ms=LIFE_MS + 1).number
    withdrawn = wished(fake, 30, forced=True).number
    assert fake.store.withdraw_request(withdrawn, fake.clock.now_ms())
    fake.run(passes=1)
    told = fake.store.requested(number)
    assert str(told.outcome).startswith("unknown: nobody was there")
    assert (told.taken, told.code) == (False, Exit.LATER)
    assert not fake.store.requested(withdrawn).taken
    assert fake.sink.of(events.TopUpDecided) == fake.sink.of(events.TopUpForbidden) == []


@pytest.mark.parametrize("ago_ms", [0, LIFE_MS + 1])
def test_what_a_dead_daemon_had_taken_is_carried_out_by_the_next_in_time(fake: Fake, ago_ms: int) -> None:
    """Nobody was told that it is safe to ask again, so it is judged; when its time is over it is not bought."""
    asked = wished(fake, 25, ago_ms=ago_ms)
    assert fake.store.take_request(asked.number, asked.at_ms)
    assert not fake.store.withdraw_request(asked.number, asked.at_ms)
    fake.run(passes=1)
    told, late = fake.store.requested(asked.number), ago_ms > LIFE_MS
    assert told.code == (Exit.LATER if late else Exit.PERSON)
    assert (told.why == "observe_only") is not late
    assert not late or fake.sink.of(events.TopUpForbidden) == []


def test_a_wish_whose_pass_breaks_is_answered(fake: Fake) -> None:
    """Whoever waits for it is told that it failed, and it is not tried again behind his back."""
    number = wished(fake, 25).number
    fake.api.instead = [broken]
    fake.run(passes=2)
    assert fake.store.requested(number).outcome == "unknown: the pass failed; see the daemon's log"
    assert fake.sink.of(events.CycleDone)[0].why == "above_floor"


def test_another_top_up_says_nothing_of_a_wish(fake: Fake) -> None:
    """One that is adopted while the pass of a wish breaks is not its purchase: nothing was bought, and 4 is said."""
    number = wished(fake, 25).number

    def adopted() -> None:
        now = fake.store.now_ms(fake.clock.now_ms())
        fake.store.begin(builders.topup(decided_ms=now, moved_ms=now))
        raise RuntimeError

    fake.api.instead = [adopted]
    fake.run(passes=1)
    asked = fake.store.requested(number)
    assert fake.store.open_topup("default") is not None
    assert (asked.code, asked.topup_id) == (Exit.LATER, None)
