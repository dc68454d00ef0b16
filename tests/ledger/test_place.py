"""Are the ledger's files still its own? Removed, exchanged or opened to others under a running writer."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.world.builders import ACCOUNT, NOW_MS
from tests.world.ledger import reading
from tests.world.served import PATIENCE_S, TOPUP, ran, served
from topup.app import exposure
from topup.app.settings import load
from topup.domain.errors import SettingsError, StoreBusy, StoreFenced
from topup.ledger import database, location
from topup.ledger.location import FILE, INDEX, KEPT, LOG
from topup.ledger.store import SqliteStore
from topup.wire import files


def rows(folder: Path) -> int:
    """How many readings a reader finds there now."""
    with closing(SqliteStore.open_reader(folder)) as store:
        return len(store.readings(ACCOUNT, 0))


def writing(folder: Path, count: int = 3) -> SqliteStore:
    store = SqliteStore.open_writer(folder)
    for n in range(count):
        store.record_reading(ACCOUNT, reading(NOW_MS + n))
    return store


def removed(*names: str, emptied: bool = False) -> Callable[[Path], None]:
    """Remove these files, or put another of the same name in their place."""

    def act(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()
            if emptied:
                (folder / name).write_bytes(b"")

    return act


def refuses(store: SqliteStore, says: str = "") -> None:
    """What the writer says of the next thing it is to store; then it is closed."""
    with pytest.raises(StoreFenced, match=says or None):
        store.record_reading(ACCOUNT, reading(NOW_MS + 9))
    store.close()


WAYS = {
    "log and index removed": removed(LOG, INDEX),
    "log removed": removed(LOG),
    "index removed": removed(INDEX),
    "log replaced": removed(LOG, emptied=True),
    "index replaced": removed(INDEX, emptied=True),
    "ledger removed": removed(FILE),
    "all removed": removed(FILE, LOG, INDEX),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_removed_is_noticed_before_the_next_write_and_put_back(way: str, tmp_path: Path) -> None:
    """The writer stores nothing more, says so again and again, and what it had committed is found by whoever comes."""
    store = writing(tmp_path)
    WAYS[way](tmp_path)
    for _ in range(2):
        with pytest.raises(StoreFenced, match=r"removed|replaced") as fenced:
            store.record_reading(ACCOUNT, reading(NOW_MS + 9))
        assert "what it held was put back" in str(fenced.value)
        assert fenced.value.remedy
    with pytest.raises(StoreFenced):
        store.open_topup(ACCOUNT)
    store.close()
    assert rows(tmp_path) == 3
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    with closing(SqliteStore.open_writer(tmp_path)) as again:
        again.record_reading(ACCOUNT, reading(NOW_MS + 10))
    assert rows(tmp_path) == 4


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_else_could_find_is_saved(way: str, tmp_path: Path, *, stopped: bool) -> None:
    """Removed between a write and its commit: whoever wanted it is told no, and what was known before is kept."""
    store = writing(tmp_path)
    if stopped:  # the process ends before it writes again
        WAYS[way](tmp_path)
    else:
        with pytest.raises(StoreFenced), store._write(NOW_MS + 9):
            WAYS[way](tmp_path)
    store.close()
    assert rows(tmp_path) == 3


def test_another_ledger_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """Yesterday's copy has the name now: it stays, and what the writer knew is kept beside it."""
    writing(tmp_path / "yesterday", 1).close()
    store = writing(tmp_path / "state")
    WAYS["all removed"](tmp_path / "state")
    shutil.copy(tmp_path / "yesterday" / FILE, tmp_path / "state" / FILE)
    refuses(store, f"is kept in .*{KEPT}")
    assert rows(tmp_path / "state") == 1
    shutil.move(tmp_path / "state" / KEPT, tmp_path / "yesterday" / FILE)
    assert rows(tmp_path / "yesterday") == 3


def test_a_directory_that_was_moved_away_is_left_as_it_is(tmp_path: Path) -> None:
    """Another directory has its name: the writer ends, puts nothing there, and all it knew is in the one moved away."""
    store = writing(tmp_path / "state")
    (tmp_path / "state").rename(tmp_path / "away")
    (tmp_path / "state").mkdir()
    refuses(store)
    assert list((tmp_path / "state").iterdir()) == []
    assert rows(tmp_path / "away") == 3


def test_a_copy_written_over_the_ledger_is_noticed(tmp_path: Path) -> None:
    """`cp` keeps the file and changes what is in it: the writer ends, whatever the copy holds."""
    store = writing(tmp_path)
    store.record_reading(ACCOUNT, reading(NOW_MS + 5))
    copy = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(copy)
    refuses(store, "was written to by something else")
    assert rows(tmp_path) == 4


def restored(folder: Path, store: SqliteStore, names: tuple[str, ...], *, twice: bool) -> int:
    """Copy these files, store something more, and write the copies back into the same files with their old times.

    With `twice` the log has been begun anew before, so that it is as long as it ever was and the copies no shorter.
    Returns how many readings the writer had stored in all.
    """
    if twice:
        for n in range(60):
            store.record_reading(ACCOUNT, reading(NOW_MS + 1000 + n))
        store._db.execute("PRAGMA wal_checkpoint(RESTART)")
        assert store._files is not None
        store._files.settled()
        store.record_reading(ACCOUNT, reading(NOW_MS + 2000))
    kept = {name: ((folder / name).read_bytes(), (folder / name).stat()) for name in (FILE, LOG, INDEX)}
    for n in range(5):
        store.record_reading(ACCOUNT, reading(NOW_MS + 3000 + n))
    known = len(store.readings(ACCOUNT, 0))
    for name in names:
        raw, found = kept[name]
        with (folder / name).open("r+b") as file:
            file.write(raw)
            file.truncate(len(raw))
        os.utime(folder / name, ns=(found.st_atime_ns, found.st_mtime_ns))
    return known


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("names", [(LOG,), (INDEX,), (LOG, INDEX), (FILE, LOG, INDEX)])
def test_a_backup_written_into_the_same_files_is_noticed(names: tuple[str, ...], twice: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """`cp -p` keeps names, times and sizes: the next commit would go over those that the older index does not know."""
    store = writing(tmp_path)
    known = restored(tmp_path, store, names, twice=twice)
    found = {name: (tmp_path / name).read_bytes() for name in (FILE, LOG)}
    with pytest.raises(StoreFenced, match=r"replaced|cut short"):
        store.record_reading(ACCOUNT, reading(NOW_MS + 9000))
    with pytest.raises(StoreFenced):
        store.readings(ACCOUNT, 0)
    store.close()
    assert {name: (tmp_path / name).read_bytes() for name in (FILE, LOG)} == found, "left as somebody has made it"
    if LOG not in names or FILE in names:  # a log alone that belongs to another index leaves no ledger
        assert rows(tmp_path) <= known


@pytest.mark.parametrize(("name", "cut"), [(LOG, False), (INDEX, False), (LOG, True)])
def test_what_was_spoilt_where_it_is_is_noticed(name: str, tmp_path: Path, *, cut: bool) -> None:
    """Zeros, whoever wrote them, or a clean-up job that empties the log: the next write is refused."""
    store = writing(tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.write(bytes(128))
        if cut:
            file.truncate(0)
    refuses(store, "was cut short" if cut else "was replaced")


def test_a_log_that_begins_anew_by_anybodys_commit_is_no_change(tmp_path: Path) -> None:
    """Once the ledger's file holds all of it, whoever writes next begins the log again, here another process's wish."""
    with closing(writing(tmp_path, 60)) as store:
        store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert store._files is not None
        store._files.settled()
        before = location.marked(store._files._handle)
        with closing(SqliteStore.open_reader(tmp_path)) as other:
            other.say(ACCOUNT, "paused", "1", NOW_MS, "somebody")
        after = location.marked(store._files._handle)
        assert before is not None
        assert after is not None
        assert before.copied
        assert after.salt != before.salt
        for n in range(600):
            store.record_reading(ACCOUNT, reading(NOW_MS + 4000 + n))
        assert len(store.readings(ACCOUNT, 0)) == 660


def test_readers_requests_and_the_writers_own_work_are_no_change(tmp_path: Path) -> None:
    """Thousands of commits, copies from the log and readers that leave a word: the writer goes on."""
    store = writing(tmp_path)
    for n in range(1500):
        store.record_reading(ACCOUNT, reading(NOW_MS + 10 + n))
        if n % 100 == 0:
            with closing(SqliteStore.open_reader(tmp_path)) as reader:
                reader.say(ACCOUNT, "paused", str(n % 2), NOW_MS, "somebody")
            with closing(SqliteStore.open_copy(tmp_path)) as copy:
                assert copy.readings(ACCOUNT, 0)
    store.close()
    assert rows(tmp_path) == 1503


def test_nobody_begins_another_log_under_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the writer has not noticed, a reader is told so and tries again later; it makes no files."""
    monkeypatch.setattr(location, "SETTLE_S", 0.0)
    store = writing(tmp_path)
    removed(LOG, INDEX)(tmp_path)
    with pytest.raises(StoreBusy, match="lost its files") as busy:
        SqliteStore.open_reader(tmp_path)
    assert busy.value.exit_code == 4
    assert sorted(one.name for one in tmp_path.iterdir()) == [FILE, "lock"]
    store.close()
    assert rows(tmp_path) == 3


@pytest.mark.machine_time
@pytest.mark.parametrize("way", ["log and index removed", "all removed", "copy", "moved"])
def test_a_daemon_asleep_notices_and_ends(way: str, tmp_path: Path) -> None:
    """It has paid, and sleeps until the next poll: it ends at once, says why, and its payment is in the books."""
    with served(tmp_path) as world:
        world.low()
        daemon = world.start("run", watch__poll_fastest_s="600", watch__poll_slowest_s="900")
        daemon.await_event("top_up_done")
        state = world.state
        if way == "copy":
            (state / FILE).write_bytes((state / FILE).read_bytes())
        elif way == "moved":
            state.rename(tmp_path / "away")
            state.mkdir()
        else:
            WAYS[way](state)
        assert daemon.process.wait(timeout=PATIENCE_S) == 1
        (told,) = daemon.told("cycle_failed")
        assert told["kind"] == "StoreFenced"
        assert str(state) in told["error"]
        if way == "moved":
            state.rmdir()
            (tmp_path / "away").rename(state)
        assert [t.state.value for t in world.topups()] == ["done"]
        assert world.books_match()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_where_there_are_no_links_a_ledger_is_begun_all_the_same(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMB shares and exFAT know no links: the ledger gets its name another way, and replaces none."""

    def refused(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "hardlink_to", refused)
    writing(tmp_path).close()
    assert rows(tmp_path) == 3
    assert sorted(one.name for one in tmp_path.iterdir()) == [FILE, "lock"]
    new, theirs = tmp_path / "new", tmp_path / "theirs"
    new.write_bytes(b"ours")
    theirs.write_bytes(b"theirs")
    database._link(new, theirs)
    assert theirs.read_bytes() == b"theirs"


# -- who else -------------------------------------------------------------------------------------------------


def test_files_that_were_made_open_are_closed(tmp_path: Path) -> None:
    """A lock made under another umask, or a ledger copied by hand: nobody else can hold or read them afterwards."""
    writing(tmp_path).close()
    for name in (FILE, "lock"):
        (tmp_path / name).chmod(0o644)
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        assert len(store.mended) == 2
        for one in tmp_path.iterdir():
            assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    with closing(SqliteStore.open_writer(tmp_path)) as again:
        assert again.mended == []


@pytest.mark.parametrize("what", ["sticky", "shared"])
def test_a_directory_that_is_not_topups_alone_is_not_closed(what: str, tmp_path: Path) -> None:
    """The directory of all programs, named by mistake: refused with what to name instead, and left as it was."""
    if what == "shared" and os.geteuid() != 0:
        pytest.skip("only root could close what others need")
    mode = 0o1777 if what == "sticky" else 0o755
    (tmp_path / "somebody-elses").mkdir()
    tmp_path.chmod(mode)
    with pytest.raises(SettingsError, match="open to every user") as refused:
        SqliteStore.open_writer(tmp_path)
    assert "a directory below it" in refused.value.remedy
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


def settings_file(folder: Path, mode: int, text: str = '[api]\nkey = "sk-or-v1-canary"\n') -> dict[str, str]:
    file = folder / "topup.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return {"TOPUP_CONFIG": str(file), "TOPUP_STATE_DIR": str(folder / "s"), "PATH": os.environ["PATH"]}


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o604, 0o646])
def test_a_settings_file_with_a_key_is_closed_to_others_and_that_is_said(mode: int, tmp_path: Path) -> None:
    """Once, by whichever command reads it first; its own group keeps what it could read."""
    environ = settings_file(tmp_path, mode)
    for said in (True, False):
        done = ran([*TOPUP, "config", "show", "--json"], environ)
        assert done.returncode == 0, done.stderr
        assert ("it was closed to others" in done.stderr) is said
        assert "canary" not in done.stderr
        assert json.loads(done.stdout)["schema"] == 1
    assert stat.S_IMODE((tmp_path / "topup.toml").stat().st_mode) == mode & ~0o027


def test_a_settings_file_without_a_secret_is_left_alone(tmp_path: Path) -> None:
    """Limits are no secret: a file that everybody may read stays as it is."""
    environ = settings_file(tmp_path, 0o644, "[policy]\nfloor = 12\n")
    assert exposure.close(environ) == ""
    assert exposure.settings_file(environ) is not None
    assert stat.S_IMODE((tmp_path / "topup.toml").stat().st_mode) == 0o644
    assert load(environ).policy.floor == 12


def test_a_settings_file_that_is_anothers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open, with a key in it, and not ours to close: refused, unless nobody else can get there or it is read-only."""
    environ = settings_file(tmp_path, 0o644)

    def denied(self: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", denied)
    monkeypatch.setattr(files, "enclosed", lambda path: False)
    with pytest.raises(SettingsError, match="every user can read it, and this user may not close it") as refused:
        exposure.close(environ)
    assert refused.value.exit_code == 2
    monkeypatch.setattr(files, "read_only", lambda path: True)
    assert exposure.close(environ) == ""
    monkeypatch.setattr(files, "read_only", lambda path: False)
    monkeypatch.setattr(files, "enclosed", lambda path: True)
    assert exposure.close(environ) == ""


def test_looking_at_the_index_drops_no_lock(tmp_path: Path) -> None:
    """To close a file of SQLite's in the same process would: the writer's look keeps the one it has opened."""
    with closing(writing(tmp_path)) as store:
        held = (tmp_path / INDEX).stat()
        with store._write(NOW_MS + 5):
            assert store._files is not None
            for _ in range(3):
                assert store._files.lost() == ""
            place_of = f"{os.major(held.st_dev):02x}:{os.minor(held.st_dev):02x}:{held.st_ino} "
            locks = [line for line in Path("/proc/locks").read_text(encoding="ascii").splitlines() if place_of in line]
            assert any("WRITE" in line for line in locks)
