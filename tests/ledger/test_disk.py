"""Is anything spent in doubt when the disk is full, read-only, torn or old? Real files, and the real program on them.

Whatever is wrong with the file, the error names its directory and a remedy, nothing is asked for and nothing is sent;
once the cause is removed the same command goes on. SQLite drops the torn end of its log silently, so an old or torn
ledger looks whole: what gives it away is the chain, whose count of the wallet's transactions is ahead, or which shows
the payment by its hash.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pytest

import tests.world.served
from tests.tools import MISSING, ROOT
from tests.world.duel import RAIL, UNDER_TEST
from tests.world.served import PATIENCE_S, TOPUP, Running, Served, until
from tests.world.stage import Stage
from topup.domain.errors import StoreUnusable
from topup.domain.lifecycle import State
from topup.domain.notes import Note
from topup.ledger.location import FILE
from topup.ledger.schema import MIGRATIONS
from topup.ledger.store import SqliteStore
from topup.sandbox.evm import Evm
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

BUY = ("once", "--amount", "10", "--yes")


def refused(place: Served, done: subprocess.CompletedProcess[str], exit_code: int = 3) -> None:
    """It left, for a person unless said otherwise: the directory, a remedy; no charge was asked for, nothing sent."""
    assert done.returncode == exit_code, done.stderr
    assert str(place.state) in done.stderr
    assert "topup: to do: " in done.stderr
    assert "Traceback" not in done.stderr
    assert place.world.gateway.count("coinbase") == 0
    assert place.payments() == 0


def buys_once(box: Box, daemon: Running) -> None:
    """With room again the same process goes on, and in the end has paid once and booked it."""
    box.free()
    until(lambda: daemon.told("top_up_done"), daemon.log)
    assert daemon.stop() == 0
    box.keep()
    assert box.place.payments() == 1
    assert box.place.books_match()
    assert [t.state for t in box.place.topups()] == [State.DONE]


# -- a full disk -------------------------------------------------------------------------------------------------------


class Box:
    """A file system of its own size at the state directory, in a user and mount namespace: no root is needed."""

    def __init__(self, place: Served, size: str = "6m") -> None:
        """Mount it, and keep it by a process that sleeps in there."""
        self.place = place
        place.state.mkdir()
        script = f"mount -t tmpfs -o size={size},mode=700 tmpfs {place.state} && echo mounted && exec sleep 1000"
        self.keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.keeper.stdout is not None
        mounted = self.keeper.stdout.readline() == "mounted\n"
        self.keeper.stdout.close()
        if not mounted:
            self.close()
            pytest.skip(f"{MISSING}user namespaces")
        self.prefix = ("nsenter", "--user", "--mount", "--preserve-credentials", f"--target={self.keeper.pid}")
        # A process that enters stands in the root directory.
        place.settings["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])

    @property
    def inside(self) -> Path:
        """The state directory as it is seen from outside; not for SQLite, which resolves links by itself."""
        return Path(f"/proc/{self.keeper.pid}/root{self.place.state}")

    def fill(self) -> None:
        """Fill what is left with another file; SQLite is told ENOSPC."""
        with (self.inside / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 4096)
            except OSError:
                return

    def free(self) -> None:
        (self.inside / "filler").unlink()

    def remount(self, how: str) -> None:
        """Mount it again, `ro` or `rw`."""
        subprocess.run([*self.prefix, "mount", "-o", f"remount,{how}", str(self.place.state)], check=True)

    def keep(self) -> None:
        """Bring the ledger out, to be read."""
        for file in self.inside.iterdir():
            shutil.copy(file, self.place.state)

    def close(self) -> None:
        """Let the file system go with the last process in it."""
        self.keeper.kill()
        self.keeper.wait()


@pytest.fixture
def box(place: Served) -> Iterator[Box]:
    """A file system of its own size, and `place` whose commands run on it and wait a second after an error."""
    made = Box(place)
    with mock.patch.object(tests.world.served, "TOPUP", [*made.prefix, *UNDER_TEST, "none"]):
        yield made
    for one in place.started:
        one.process.kill()
    made.close()


def says_full(box: Box, daemon: Running) -> None:
    """The log names the directory and the remedy, and that nothing is spent until then."""
    (told,) = {json.dumps([e["kind"], e["error"], e["remedy"]]): e for e in daemon.told("cycle_failed")}.values()
    assert told["kind"] == "StoreUnusable"
    assert str(box.place.state) in told["error"]
    assert "free disk space" in told["remedy"]
    assert "nothing is spent until then" in told["remedy"]


def test_a_disk_that_fills_up_stops_buying_until_there_is_room(box: Box) -> None:
    """Full before anything is due: no charge is asked for, and with room again the same process buys once."""
    place = box.place
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    box.fill()
    place.low()
    until(lambda: len(daemon.told("cycle_failed")) > 1, daemon.log)
    says_full(box, daemon)
    assert place.world.gateway.count("coinbase") == 0
    assert place.payments() == 0
    buys_once(box, daemon)


def test_a_disk_that_fills_up_while_a_payment_is_out_loses_nothing(box: Box) -> None:
    """Full between send and block: nothing can be stored, nothing more is paid; with room again it is booked."""
    place = box.place
    place.low()
    place.world.mining = False
    daemon = place.start("run")
    daemon.await_event("payment_sent")
    box.fill()
    place.world.mining = True
    until(lambda: daemon.told("cycle_failed", state="sent"), daemon.log)
    says_full(box, daemon)
    until(lambda: place.payments() == 1, daemon.log)
    buys_once(box, daemon)


def test_no_ledger_is_begun_on_a_full_disk(box: Box) -> None:
    """Full from the start: refused, and no half of a ledger is left to be taken for a whole one."""
    place = box.place
    box.fill()
    refused(place, place.run(*BUY), exit_code=4)
    assert place.run("run").returncode == 4, "a disk may be emptied by others: systemd tries again"
    assert not (box.inside / FILE).exists()
    box.free()
    assert place.run("once").returncode == 0
    assert (box.inside / FILE).exists()


def test_a_read_only_file_system_is_said_so(box: Box) -> None:
    """As after an error of the disk: refused with the directory's name; mounted again, the same command buys."""
    place = box.place
    assert place.run("once").returncode == 0
    box.remount("ro")
    refused(place, place.run(*BUY))
    box.remount("rw")
    done = place.run(*BUY)
    assert done.returncode == 0, done.stderr
    assert place.payments() == 1


# -- what may not be written -------------------------------------------------------------------------------------------


def powerless() -> tuple[str, ...]:
    """Run a command without root's right to pass over permissions: in a user namespace that maps nobody."""
    if os.geteuid() != 0:
        return ()
    if subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True).returncode:
        pytest.skip(f"{MISSING}user namespaces")
    return ("unshare", "--user")


# The file or directory, its mode while a right is missing, and its usual one.
MODES = {
    "the directory is read-only": ("", 0o500, 0o700),
    "the directory is empty and read-only": ("", 0o500, 0o700),
    "the database is read-only": (FILE, 0o400, 0o600),
    "the lock is read-only": ("lock", 0o400, 0o600),
}


@pytest.mark.parametrize("what", [*MODES, "the directory is another's"])
def test_a_ledger_that_may_not_be_written_is_refused(what: str, place: Served) -> None:
    """Exit 3 with the directory's name; nothing is asked for or sent; with the right back, the command goes on."""
    if what not in MODES and os.geteuid() != 0:
        pytest.skip("only root gives a directory away")
    assert place.run("once").returncode == 0
    name, without, usual = MODES.get(what, ("", 0o700, 0o700))
    if "empty" in what:
        shutil.rmtree(place.state)
        place.state.mkdir()
    try:
        (place.state / name).chmod(without)
        if what not in MODES:
            os.chown(place.state, 12345, 12345)
        with mock.patch.object(tests.world.served, "TOPUP", [*powerless(), *TOPUP]):
            refused(place, place.run(*BUY))
    finally:
        if what not in MODES:
            os.chown(place.state, 0, 0)
        (place.state / name).chmod(usual)
    assert place.run("once").returncode == 0


def _foreign(state: Path) -> None:
    for file in state.glob(f"{FILE}*"):
        file.unlink()
    with closing(sqlite3.connect(state / FILE)) as hand:
        hand.execute("CREATE TABLE recipe (name TEXT)")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda s: os.truncate(s / FILE, 0), "empty"),
    "gone, its log left": (lambda s: (s / FILE).unlink(), "is gone"),
    "no database": (lambda s: (s / FILE).write_bytes(b"Dear diary,\n" * 1000), "not a database"),
    "another program's database": (_foreign, "without a ledger"),
}


@pytest.mark.long
def test_a_spoilt_ledger_is_refused_however_often_it_is_tried(place: Served) -> None:
    """A payment is out, its ledger is spoilt in four ways: exit 3, twice; the whole ledger then ends it, paid once."""
    place.low()
    place.world.mining = False
    with mock.patch.object(tests.world.served, "TOPUP", [*UNDER_TEST, "kill", "after", f"{RAIL}.send"]):
        first = place.start("run")
    assert first.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    asked = place.world.gateway.count("coinbase")
    for name, (spoil, says) in SPOILT.items():
        state = place.directory / name
        shutil.copytree(place.state, state)
        spoil(state)
        before = stored(state)
        for _ in range(2):
            done = place.run("run", TOPUP_STATE_DIR=str(state))
            assert done.returncode == 3, (name, done.stderr)
            assert says in done.stderr, (name, done.stderr)
            assert str(state) in done.stderr, (name, done.stderr)
            assert json.loads(done.stderr)["remedy"], (name, done.stderr)
        # SQLite would delete the log beside an empty file, and with it all that is left.
        assert says not in ("empty", "is gone") or stored(state) == before, name
    assert place.world.gateway.count("coinbase") == asked
    place.world.mining = True
    again = place.start("run")
    again.await_event("top_up_done")
    assert place.payments() == 1
    assert place.books_match()


def stored(state: Path) -> dict[str, bytes]:
    """What the ledger's files hold, but for the index, which is made anew from the log."""
    return {file.name: file.read_bytes() for file in state.glob(f"{FILE}*") if not file.name.endswith("-shm")}


KILLED = """
import json, os, signal, sqlite3, sys
from pathlib import Path
from topup.ledger import database, schema
from topup.ledger.store import SqliteStore

folder, version = Path(sys.argv[1]), int(sys.argv[2])
connect, told = database.connect, []

def begin(place):
    # A ledger of that version, as the program that knew no more of them left it; none at all for version 0.
    if version:
        known, database.MIGRATIONS = database.MIGRATIONS, schema.MIGRATIONS[:version]
        SqliteStore.open_writer(place).close()
        with sqlite3.connect(place / database.FILE) as hand:
            hand.execute("INSERT INTO control VALUES ('default', 'paused', '1', 1, 'somebody')")
            hand.execute("INSERT INTO reading VALUES (1, 'default', 1, '100', '1', NULL, '')")
        hand.close()
        database.MIGRATIONS = known

def die_at(number):
    passed = [0]
    def traced(sql):
        passed[0] += 1
        if passed[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
    def connecting(path):
        connection = connect(path)
        connection.set_trace_callback(traced)
        return connection
    return connecting

for number in range(1, 1000):
    place = folder / str(number)
    place.mkdir()
    begin(place)
    child = os.fork()
    if child == 0:
        database.connect = die_at(number)
        SqliteStore.open_writer(place).close()
        os._exit(0)
    _, how = os.waitpid(child, 0)
    store = SqliteStore.open_writer(place)
    kept = version == 0 or (store.control("default").paused and len(store.readings("default", 0)) == 1)
    told.append([how, store.damage(), store._one("PRAGMA user_version")[0], kept])
    store.close()
    if how == 0:
        break
print(json.dumps(told))
"""


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_a_migration_killed_between_any_two_statements_is_done_by_the_next_start(version: int, tmp_path: Path) -> None:
    """SIGKILL before each statement of the opening in turn: the next one finds a whole ledger and what was in it."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, str(version)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) > len(MIGRATIONS[version].split(";")), "fewer points than statements"
    assert [how for how, *_ in told] == [signal.SIGKILL] * (len(told) - 1) + [0]
    assert all(rest == [None, len(MIGRATIONS), True] for _, *rest in told), told


# -- torn and old ------------------------------------------------------------------------------------------------------

# The file format of a write-ahead log: a header, and frames of a header and a page (sqlite.org/fileformat2.html).
WAL_HEADER, FRAME = 32, 24 + 4096


@dataclass
class Ledger:
    """The bytes of a ledger whose process was killed: the database and its log."""

    main: bytes
    log: bytes

    def put(self, directory: Path) -> Path:
        """Lay them down in a directory of their own, without the index (-shm): SQLite makes it anew from the log."""
        directory.mkdir()
        (directory / FILE).write_bytes(self.main)
        if self.log:
            (directory / f"{FILE}-wal").write_bytes(self.log)
        return directory


@pytest.fixture
def world() -> Iterator[World]:
    """An account below its floor whose payments are never posted: whoever forgets a payment wants to buy again."""
    with World(embedded, scale=10, conduct=Conduct(), usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(1)) as made:
        made.do(lambda: made.gateway.switch_on("posting", "never-posts"))
        yield made


def pending(world: World) -> int:
    assert isinstance(world.chain, Evm)
    return world.do(world.chain.pending)


async def out_there(world: World, directory: Path) -> Ledger:
    """Buy until a payment is sent, in no block yet; return the ledger as a kill at this moment leaves it."""
    stage = Stage(world, directory, world.clock)
    world.mining = False
    while not (stage.store.latest("default", 1) and stage.topup.state is State.SENT):
        await stage.works.cycle.run()
    assert pending(world) == 1
    ledger = Ledger((directory / FILE).read_bytes(), (directory / f"{FILE}-wal").read_bytes())
    await stage.close()
    return ledger


def _of_the_opening(line: str) -> bool:
    return line.startswith(('INSERT INTO "ledger"', f"INSERT INTO \"control\" VALUES('','{Note.SEED}'"))


def said_by(directory: Path) -> str:
    """All that a ledger holds, but for the epoch which every opening raises and the seed that one without it draws."""
    with closing(sqlite3.connect(directory / FILE)) as hand:
        return "\n".join(line for line in hand.iterdump() if not _of_the_opening(line))


async def resume(world: World, directory: Path) -> tuple[str, str]:
    """Start on that ledger and make passes until it has found the payment or refuses to pay; return both states."""
    stage = Stage(world, directory, world.clock)
    begun = stage.store.open_topup("default")
    why = ""
    for _ in range(40):
        why = (await stage.step()).why
        if why in ("nonce_ahead", "nonce_busy", "paid", "uncredited", "sent"):
            break
    if why == "nonce_ahead":
        (told,) = stage.named("payment_forbidden")
        assert "topup reconcile" in told.remedy
    if begun is None or begun.state is not State.SENT:
        assert not stage.named("payment_signed")
    await stage.close()
    return begun.state.value if begun is not None else "", why


def histories(ledger: Ledger, folder: Path) -> Iterator[Path]:
    """Cut the log at each frame's end and in each frame's middle; yield a ledger for each history that comes of it."""
    known: set[str] = set()
    frames = (len(ledger.log) - WAL_HEADER) // FRAME
    folder.mkdir()
    for half in range(2 * frames + 1):
        cut = WAL_HEADER + half * FRAME // 2
        torn = Ledger(ledger.main, ledger.log[:cut])
        opened = torn.put(folder / f"{half}")
        with closing(SqliteStore.open_writer(opened)) as store:
            assert store.damage() is None
        said = said_by(opened)
        if said not in known:
            known.add(said)
            yield torn.put(folder / f"{half}-again")


async def outcomes(world: World, ledger: Ledger, folder: Path, waiting: int) -> dict[str, set[str]]:
    """Resume each history; return by its last state what came of it. So many transactions wait all the while."""
    found: dict[str, set[str]] = {}
    for torn in histories(ledger, folder):
        begun, why = await resume(world, torn)
        found.setdefault(begun, set()).add(why)
        assert pending(world) == waiting
    return found


async def test_a_ledger_that_lost_its_last_commits_never_pays_again(world: World, tmp_path: Path) -> None:
    """Stories 16 and 21: power is lost after a send and the log is torn anywhere; whatever is left, one payment.

    A ledger without the intent to send, in any state from nothing to signed, sees the wallet's count ahead of its own
    and refuses. One that has it finds the payment.
    """
    ledger = await out_there(world, tmp_path / "live")
    world.mining = True
    until(lambda: pending(world) == 0)
    found = await outcomes(world, ledger, tmp_path / "torn", 0)
    assert found.pop("sent") <= {"paid", "uncredited"}
    assert found == {one: {"nonce_ahead"} for one in ("", "decided", "asking", "charged", "reserved", "signed")}


async def test_a_torn_ledger_sends_nothing_beside_a_payment_in_no_block_yet(world: World, tmp_path: Path) -> None:
    """The same while the payment still waits: the wallet has something pending that this ledger did not send."""
    found = await outcomes(world, await out_there(world, tmp_path / "live"), tmp_path / "torn", 1)
    assert found.pop("sent") == {"sent"}
    assert set.union(*found.values()) == {"nonce_busy"}


def chance() -> random.Random:
    """Return luck whose seed is told where a test fails."""
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    return random.Random(seed)


async def test_flipped_bytes_in_the_log_only_ever_shorten_history(world: World, tmp_path: Path) -> None:
    """Every frame has a checksum: a ledger with a spoilt log holds one of its own pasts, never a mixture."""
    ledger = await out_there(world, tmp_path / "live")
    pasts = {said_by(torn) for torn in histories(ledger, tmp_path / "torn")}
    luck = chance()
    for n in range(60):
        spoilt = bytearray(ledger.log)
        spoilt[luck.randrange(len(spoilt))] ^= 1 << luck.randrange(8)
        opened = Ledger(ledger.main, bytes(spoilt)).put(tmp_path / f"flip-{n}")
        SqliteStore.open_writer(opened).close()
        assert said_by(opened) in pasts


@pytest.mark.long
async def test_flipped_bytes_in_the_database_never_pay_again(world: World, tmp_path: Path) -> None:
    """Its values have no checksum: the start is refused, or a pass ends in a defect, or it goes on; one payment."""
    await out_there(world, tmp_path / "live")
    world.mining = True
    until(lambda: pending(world) == 0)
    whole = (tmp_path / "live" / FILE).read_bytes()  # closed since, so that all of it is in there
    luck = chance()
    used = [n for n, byte in enumerate(whole) if byte]
    refusals = 0
    for n in range(40):
        spoilt = bytearray(whole)
        spoilt[luck.choice(used)] ^= 1 << luck.randrange(8)
        opened = Ledger(bytes(spoilt), b"").put(tmp_path / f"flip-{n}")
        refusals += await _stepped(world, opened)
        assert pending(world) == 0
        assert world.do(lambda: world.chain.rpc("eth_getTransactionCount", [world.wallet, "latest"])) == "0x1"
    assert refusals < 40


async def _stepped(world: World, directory: Path) -> bool:
    """Make three passes as the daemon does, which ends only the pass for an error; tell whether it did not start."""
    try:
        stage = Stage(world, directory, world.clock)
    except StoreUnusable:
        return True
    for _ in range(3):
        try:
            await stage.step()
        except Exception:  # noqa: BLE001, S112 - what the daemon calls a defect: it ends the pass, not the test
            continue
    await stage.close()
    return False


def test_yesterdays_copy_is_noticed_before_anything_is_signed(place: Served) -> None:
    """Story 16, with the program: a copy without and with its log; refused with a remedy, done after the word."""
    assert place.run("once").returncode == 0
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    without, beside = place.directory / "without", place.directory / "with"
    for copy in (without, beside):
        shutil.copytree(place.state, copy)
    (without / f"{FILE}-wal").unlink()
    place.low()
    daemon.await_event("top_up_done")
    assert daemon.stop() == 0
    place.low()
    for copy in (without, beside):
        done = place.run("once", "--yes", TOPUP_STATE_DIR=str(copy))
        assert done.returncode == 3, done.stderr
        (told,) = [e for e in tests.world.served.events_of(done.stderr) if e["event"] == "payment_forbidden"]
        assert told["why"] == "nonce_ahead"
        assert "topup reconcile" in told["remedy"]
        assert place.payments() == 1
    assert place.run("resolve", "--adopt-nonce", TOPUP_STATE_DIR=str(beside)).returncode == 0
    assert place.run("once", "--yes", TOPUP_STATE_DIR=str(beside)).returncode == 0
    assert place.payments() == 2
