"""Can the ledger be copied while it is written to, and does a copy that is put back lose or repeat nothing?"""

import json
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.world.served import Served, served
from topup.domain.credits import Reading
from topup.domain.errors import StoreUnusable
from topup.domain.money import Usd
from topup.ledger import backup, database, schema
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger with a log beside it, as a daemon leaves it that was killed."""
    directory = tmp_path / "state"
    store = SqliteStore.open_writer(directory)
    store.record_reading("default", Reading(Usd.of(9), Usd.of(1), 5))
    store.say("default", "rails", "mpp", 6)
    killed = tmp_path / "killed"
    shutil.copytree(directory, killed)
    store.close()
    return killed


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_copy_beside_a_daemon_is_put_back_and_goes_on(place: Served, tmp_path: Path) -> None:
    """The copy holds what was paid by then. Put back it is paused, and what was paid since is found on the chain."""
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    place.low()
    daemon.await_event("top_up_done")
    copy = tmp_path / "copies" / "one.sqlite3"
    wrote = place.document("backup", str(copy))
    assert (stat.S_IMODE(copy.stat().st_mode), list(copy.parent.iterdir())) == (0o600, [copy])
    assert wrote["ledger_head"] == place.document("ledger", "verify")["ledger_head"]
    assert place.run("backup", str(copy)).returncode == 2, "nothing is written over"
    refused = place.document("restore", str(copy), "--yes")
    assert (refused["error"]["code"], refused["exit_code"]) == ("store_busy", 4)
    assert daemon.stop() == 0
    place.low()
    assert place.run("once", "--yes", policy__cooldown_s="0").returncode == 0
    place.mine()
    assert place.run("restore", str(copy)).returncode == 3, "nobody has agreed"
    assert len(place.document("history")["topups"]) == 2
    restored = place.document("restore", str(copy), "--yes")
    assert restored["ledger_head"] == wrote["ledger_head"]
    with closing(SqliteStore.open_reader(Path(restored["kept"]))) as old:
        assert len(old.latest("default", 9)) == 2
    assert place.document("status")["paused"]
    assert place.run("reconcile").returncode == 3
    assert place.run("reconcile", "--adopt", "--yes").returncode == 0
    assert place.payments() == 2
    assert place.run("resume").returncode == 0
    assert place.run("once", "--yes").returncode == 0
    assert place.payments() == 2, "what was paid is credited, so nothing is due"


FORGED = ("default", "forged", "", "", b"0")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute(
            "INSERT INTO entry (account, at_ms, text, charge_id, price_source, hash) VALUES (?,1,?,?,?,?)", FORGED
        )


def _another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute("CREATE TABLE t (x)")


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": _cut,
    "no database": lambda path: path.write_bytes(b"no database " * 999),
    "a database without a ledger": _another,
    "written by hand": _changed,
    "of a newer program": lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 99"),
    "missing": lambda path: path.rename(path.with_name("elsewhere")),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_copy_is_refused_and_nothing_is_changed(name: str, ledger: Path, tmp_path: Path) -> None:
    """Whatever is wrong with it is found before anything of the ledger is touched."""
    copy = tmp_path / "copy"
    backup.write(ledger, copy)
    SPOILT[name](copy)
    before = {path.name: path.read_bytes() for path in ledger.iterdir()}
    with pytest.raises(StoreUnusable) as refused:
        backup.put_back(ledger, copy, "default", "somebody", 1)
    assert refused.value.remedy
    assert {path.name: path.read_bytes() for path in ledger.iterdir()} == before


def test_a_copy_is_put_back_where_nothing_is_left(ledger: Path, tmp_path: Path) -> None:
    """Of an older program as well: on another machine, or after the disk was lost."""
    copy = tmp_path / "copy"
    backup.write(ledger, copy)
    found, kept = backup.put_back(tmp_path / "new", copy, "default", "somebody", 1)
    assert kept is None
    with closing(SqliteStore.open_writer(tmp_path / "new")) as store:
        assert store.control("default").paused_by == "somebody"
        assert not store.control("new").paused
        assert store.control("default").rails == "mpp"
        assert store.audit().head == found.head


def test_an_account_that_was_never_read_is_paused_as_well(tmp_path: Path) -> None:
    """A copy from before the first reading holds nothing of the account, and buying waits all the same."""
    SqliteStore.open_writer(tmp_path / "state").close()
    backup.write(tmp_path / "state", tmp_path / "copy")
    backup.put_back(tmp_path / "state", tmp_path / "copy", "new", "somebody", 1)
    with closing(SqliteStore.open_reader(tmp_path / "state")) as store:
        assert store.control("new").paused


def test_an_upgrade_keeps_what_the_older_program_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can go back: the copy has its name after the older schema, and opens by the older program."""
    older = len(schema.MIGRATIONS) - 1
    with monkeypatch.context() as old:
        old.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:older])
        SqliteStore.open_writer(tmp_path).close()
    SqliteStore.open_writer(tmp_path).close()
    copy = tmp_path / f"{FILE}.v{older}"
    assert (stat.S_IMODE(copy.stat().st_mode), backup.look(copy).version) == (0o600, older)
    assert backup.look(tmp_path / FILE).version == older + 1


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from topup.domain.credits import Reading
from topup.domain.errors import StoreUnusable
from topup.domain.money import Usd
from topup.ledger import backup
from topup.ledger.store import SqliteStore

ledger, copy, folder = map(Path, sys.argv[1:])
STEPS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate", "open", "shutil.copyfile", "sqlite3.connect"}

def dying(number):
    passed = 0
    def hook(event, arguments):
        nonlocal passed
        if event in STEPS:
            passed += 1
            if passed == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def stands(place):
    try:
        store = SqliteStore.open_reader(place)
    except StoreUnusable as error:
        return "refused" if "empty" in str(error) else str(error)
    rails = store.control("default").rails
    store.close()
    return rails

told = []
for number in range(1, 1000):
    place = folder / str(number)
    shutil.copytree(ledger, place)
    child = os.fork()
    if child == 0:
        dying(number)
        backup.put_back(place, copy, "default", "somebody", 1)
        os._exit(0)
    _, how = os.waitpid(child, 0)
    after = stands(place)
    backup.put_back(place, copy, "default", "somebody", 1)
    told.append([how, after, stands(place)])
    if how == 0:
        break
print(json.dumps(told))
"""


def test_killed_at_any_step_it_leaves_one_ledger_or_none_that_is_taken_for_one(ledger: Path, tmp_path: Path) -> None:
    """SIGKILL before each file is opened, moved or removed: the old one, the new one, or one that is refused."""
    copy = tmp_path / "copy"
    backup.write(ledger, copy)
    with closing(SqliteStore.open_writer(ledger)) as store:
        store.say("default", "rails", "x402", 2)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, ledger, copy, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [how for how, _, _ in told] == [signal.SIGKILL] * (len(told) - 1) + [0]
    assert {after for _, after, _ in told} == {"x402", "refused", "mpp"}
    assert {again for _, _, again in told} == {"mpp"}, "done again it is done"
