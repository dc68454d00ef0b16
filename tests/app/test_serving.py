"""Is what is served beside the passes true, whatever a pass does, and does nothing there keep a pass from paying?"""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.tools import HANGS_S, environ
from tests.world.builders import ACCOUNT, NOW_MS, operator
from tests.world.ledger import paid
from tests.world.served import Served
from tests.world.stage import Kept, Machine
from topup.app.connections import opened
from topup.app.daemon import ERROR_WAIT_S, Daemon, SdNotify
from topup.app.pulse import LATE_MS, PASS_MS_MAX, STUCK_MS, Vitals
from topup.app.serving import serving
from topup.app.settings import Settings, load
from topup.domain import events
from topup.domain.errors import Exit, SettingsError
from topup.domain.lifecycle import Fact
from topup.ledger.store import SqliteStore
from topup.payment.config import PassResult, PurchaseOrder


def got(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=HANGS_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def why(address: str, path: str) -> list[str]:
    """Return what is wrong as a path tells it, which its status has to bear out."""
    status, text = got(address, path)
    said: list[str] = json.loads(text)["why"]
    assert status == (503 if said else 200)
    return said


class Still(Machine):
    """A clock that goes on when it is told to, and whose sleeps last."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Stuck:
    """A daemon in a thread of its own, whose first pass blocks the event loop until it is let go."""

    settings: Settings
    locks: bool
    clock: Still = field(default_factory=Still)
    kept: Kept = field(default_factory=Kept)
    reached: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)
    code: Exit | None = None

    async def live(self) -> None:
        store = SqliteStore.open_writer(self.settings.state_dir)
        async with opened(self.settings, store, self.kept, self.clock) as connections:
            vitals, cycle = Vitals(self.clock), connections.cycle
            daemon = Daemon(cycle, store, self.clock, self.kept, ACCOUNT, SdNotify(None), vitals=vitals)

            async def blocks(asked: PurchaseOrder | None = None) -> PassResult:
                if self.locks:
                    store._db.execute("BEGIN IMMEDIATE")
                self.reached.set()
                self.free.wait(HANGS_S)
                daemon.stop("test")
                raise RuntimeError("it was let go")

            cycle.run = blocks  # type: ignore[method-assign]
            with serving(self.settings, vitals, (), self.kept):
                self.code = await daemon.run()

    @property
    def address(self) -> str:
        (served,) = [event for event in self.kept.told if isinstance(event, events.WebServed)]
        return served.address


@pytest.fixture(params=[False, True], ids=["the loop is blocked", "and the ledger's write lock is held"])
def stuck(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stuck]:
    settings = load(environ(state_dir=str(tmp_path), api__key="k", web__metrics="0"))
    made = Stuck(settings, request.param)
    living = threading.Thread(target=lambda: asyncio.run(made.live()))
    living.start()
    assert made.reached.wait(HANGS_S)
    yield made
    made.free.set()
    living.join(HANGS_S)
    assert made.code is Exit.OK


def test_a_stuck_pass_keeps_no_answer_back(stuck: Stuck) -> None:
    """Each of the three is answered while it hangs, and tells that it does once it has hung for too long."""
    assert why(stuck.address, "/healthz") == []
    assert why(stuck.address, "/readyz") == ["no_pass_yet"]
    status, text = got(stuck.address, "/metrics")
    assert (status, "topup_ledger_readable 1.0" in text, "topup_stuck 0.0" in text) == (200, True, True)
    stuck.clock.go_on(STUCK_MS)
    assert why(stuck.address, "/healthz") == ["pass_stuck"]
    assert why(stuck.address, "/readyz") == ["pass_stuck", "no_pass_yet"]
    assert "topup_stuck 1.0" in got(stuck.address, "/metrics")[1]


def test_a_port_that_is_taken_is_said_and_the_passes_go_on(place: Served) -> None:
    """With what has it and what to do; the account is watched all the same."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = place.start("run", web__metrics=address)
        daemon.await_event("cycle_done")
        (said,) = daemon.told("web_not_served", address=address)
        assert said["detail"] == "Address already in use"
        assert daemon.stop() == 0


def test_what_others_can_reach_is_said(tmp_path: Path) -> None:
    """Where an address is written that is none of loopback; nothing is said of one that is."""
    for written, open_ in (("0.0.0.0:0", 1), ("127.0.0.1:0", 0)):
        kept = Kept()
        with serving(load(environ(state_dir=str(tmp_path), web__metrics=written)), Vitals(), (), kept):
            assert [event.name() for event in kept.told] == ["web_served", *["web_open"] * open_]


def test_nothing_is_served_unasked(tmp_path: Path) -> None:
    """Nor is what serves it loaded."""
    kept = Kept()
    with serving(load(environ(state_dir=str(tmp_path))), Vitals(), (), kept):
        assert kept.told == []
    look = "import sys, topup.commands.run; print(sorted(n for n in sys.modules if n.startswith('prometheus')))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("end", [Fact.POSTING_LATE, Fact.HALT])
def test_what_needs_a_person_is_not_ready(tmp_path: Path, end: Fact) -> None:
    """And alive all the same: no restart would mend it."""
    settings, vitals, kept = load(environ(state_dir=str(tmp_path), web__metrics="0")), Vitals(), Kept()
    vitals.ends(60, well=True)
    with closing(SqliteStore.open_writer(tmp_path)) as store, serving(settings, vitals, (), kept):
        moved = store.move(paid(store, operator()), end, NOW_MS, "because")
        assert isinstance(kept.told[0], events.WebServed)
        address = kept.told[0].address
        assert why(address, "/readyz") == [moved.state.value]
        assert why(address, "/healthz") == []


def test_a_ledger_that_cannot_be_read_is_not_ready(tmp_path: Path) -> None:
    """With a word for it."""
    vitals, kept = Vitals(), Kept()
    vitals.ends(60, well=True)
    with serving(load(environ(state_dir=str(tmp_path), web__metrics="0")), vitals, (), kept):
        assert isinstance(kept.told[0], events.WebServed)
        assert why(kept.told[0].address, "/readyz") == ["ledger_unreadable"]


def test_the_life_of_the_passes() -> None:
    """Unfit before the first has ended, after one that failed, and when the next is late; stuck as a watchdog says."""
    clock = Machine()
    vitals = Vitals(clock)
    assert (vitals.unfit(), vitals.stuck()) == ("no_pass_yet", "")
    vitals.begins(0)
    for asked in range(1, PASS_MS_MAX // 60_000):
        clock.go_on(60_000)
        assert vitals.beats(asked)
        assert vitals.stuck() == ""
    clock.go_on(60_000)
    assert vitals.stuck() == "pass_stuck"
    vitals.ends(ERROR_WAIT_S, well=False)
    assert (vitals.unfit(), vitals.stuck()) == ("pass_failed", "")
    vitals.begins(0)
    vitals.ends(600, well=True)
    assert (vitals.unfit(), vitals.stuck()) == ("", "")
    clock.go_on(STUCK_MS)
    assert vitals.stuck() == "loop_stuck"
    vitals.seen()
    assert vitals.stuck() == ""
    clock.go_on(600_000 + LATE_MS - STUCK_MS)
    assert vitals.unfit() == ""
    clock.go_on(1)
    assert vitals.unfit() == "pass_late"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("9464", "127.0.0.1:9464"),
        ("localhost:9464", "127.0.0.1:9464"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:9464", "[::1]:9464"),
        *[(wrong, None) for wrong in ("", "::1:9464", ":9464", "[10.0.0.1]:1", "[::1]", "65536", "-1", "host:80")],
        *[(wrong, None) for wrong in ("127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "1.2.3.4:5:6", "²")],
    ],
)
def test_where_to_serve_is_an_address_and_a_port(written: str, address: str | None) -> None:
    """Or a port alone, which is one of loopback; a name is none that could be served under."""
    if address is not None:
        assert load(environ(web__metrics=written)).web.metrics == address
    else:
        with pytest.raises(SettingsError, match=r"web\.metrics .* or a port alone"):
            load(environ(web__metrics=written))
