"""Who may write to the ledger? One process at a time, and every write of it is checked.

A writer holds an exclusive lock on a file beside the database and raises the ledger's epoch; every write checks
that epoch in its own transaction, so a process that lost the lock without noticing cannot write. Readers
(`status`, `history`) open the file without the lock.
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, Self

from topup.domain.errors import Exit, StoreBusy, StoreFenced, StoreUnusable
from topup.domain.notes import PROGRAM, Note
from topup.ledger import database, location

# How often the lock is tried for beside those who only look, and how long between two tries.
LOOKS: Final = 10
LOOK_S: Final = 0.02


class Ledger:
    """An open ledger: for its one writer, or for a reader beside it. Every room of the store is built on it."""

    def __init__(self, connection: sqlite3.Connection, lock: IO[bytes] | None, epoch: int | None) -> None:
        """Keep an open connection; `epoch` is None for a reader."""
        self._db = connection
        self._lock = lock
        self._epoch = epoch
        path = connection.execute("PRAGMA database_list").fetchone()["file"]
        self._file = Path(path) if path else None  # None: in memory
        self._files = location.Files(self._file, lock) if self._file is not None and lock is not None else None
        self._fenced: StoreFenced | None = None
        # Masks our secrets in what is told in words: a second line, should whoever tells it have forgotten.
        self.hide: Callable[[str], str] = str
        # What was open to others when it was opened for writing, and is no more: a sentence each.
        self.mended: list[str] = []
        self._newest = int(self._one("SELECT newest_ms FROM ledger")[0])

    @classmethod
    def open_writer(cls, directory: Path, command: str = "") -> Self:
        """Take the ledger in `directory` over as its one writer, creating it when it is new; `command` is who does.

        Raises:
            StoreBusy: another process holds it.
            StoreUnusable: it cannot be written, is damaged, or was made by a newer program.
        """
        with database.explained(directory):
            lock, mended = _taken(directory, command)
            with contextlib.ExitStack() as undo:
                undo.callback(lock.close)
                database.settle_file(directory)
                connection = database.connect(directory / location.FILE)
                undo.callback(connection.close)
                database.examine(connection, directory)
                database.migrate(connection, directory)
                with database.transaction(connection):
                    connection.execute("UPDATE ledger SET epoch = epoch + 1")
                    seed = ("", Note.SEED, secrets.token_hex(16), 0, PROGRAM)
                    connection.execute("INSERT OR IGNORE INTO control VALUES (?,?,?,?,?)", seed)
                    (epoch,) = connection.execute("SELECT epoch FROM ledger").fetchone()
                store = cls(connection, lock, epoch)
                store.mended = mended
                undo.pop_all()
                return store

    @classmethod
    def open_reader(cls, directory: Path) -> Self:
        """Open the ledger in `directory` beside its writer.

        Raises:
            StoreUnusable: there is none, it is damaged, or it was made by a newer program.
            StoreBusy: its files were removed under the process that holds it.
        """
        path = directory / location.FILE
        location.must_be_whole(directory, lambda: cls.held(directory))
        if not path.exists():
            raise StoreUnusable(f"no ledger in {directory}", remedy="set state_dir, or start `topup run` once")
        with database.explained(directory), contextlib.ExitStack() as undo:
            database.not_empty(path)
            connection = database.connect(path, writer=False)
            undo.callback(connection.close)
            database.must_be_known(connection, directory)
            store = cls(connection, None, None)
            undo.pop_all()
            return store

    @classmethod
    def open_copy(cls, directory: Path) -> Self:
        """Open a copy in memory of the ledger in `directory`, empty when there is none; what is written to it is lost.

        Raises:
            StoreUnusable: the ledger cannot be read, or another version wrote it.
        """
        with database.explained(directory), contextlib.ExitStack() as undo:
            connection = database.connect(Path(":memory:"))
            undo.callback(connection.close)
            if cls.exists(directory):
                with contextlib.closing(cls.open_reader(directory)) as own:
                    own._db.backup(connection)  # noqa: SLF001 - one of this class
            else:
                database.migrate(connection, directory)
            (epoch,) = connection.execute("SELECT epoch FROM ledger").fetchone()
            store = cls(connection, None, epoch)
            undo.pop_all()
            return store

    @staticmethod
    def exists(directory: Path) -> bool:
        """Tell whether there is a ledger in `directory`."""
        return (directory / location.FILE).exists()

    @staticmethod
    def holder(directory: Path) -> int | None:
        """Return the process that holds the ledger, as Linux tells it; None when it is free or cannot be told."""
        try:
            inode = str((directory / "lock").stat().st_ino)
            held = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        except OSError:
            return None
        return next((int(h[4]) for h in held if "FLOCK" in h and h[5].split(":")[-1] == inode), None)

    @staticmethod
    def held(directory: Path) -> bool:
        """Tell whether any process is the ledger's writer; StoreUnusable where the lock cannot be looked at."""
        lock = directory / "lock"
        with database.explained(directory):
            if not lock.exists():
                return False
            with lock.open("rb") as looked:
                try:
                    fcntl.flock(looked, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False

    @staticmethod
    def writer(directory: Path) -> str:
        """Return which command took the ledger over last, as it called itself; "" where it did not."""
        try:
            return (directory / "lock").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def copy_to(self, path: Path) -> None:
        """Write all that this process sees into a file of its own, whole and on the disk; sqlite3.Error or OSError."""
        location.copied(self._db, path)

    def damage(self) -> str | None:
        """Read and check every page and index; return what is wrong first, or None."""
        (says,) = self._one("PRAGMA integrity_check(1)")
        return None if says == "ok" else str(says)

    def close(self) -> None:
        """Close the file and release the lock."""
        with contextlib.suppress(StoreFenced):
            self._stands()  # the last chance to save what is in files without a name
        self._db.close()
        if self._files is not None:
            self._files.close()
        if self._lock is not None:
            self._lock.close()

    def now_ms(self, clock_ms: int) -> int:
        """Return ledger time, which never runs backwards."""
        self._newest = max(self._newest, clock_ms)
        return self._newest

    @property
    def _directory(self) -> Path:
        return self._file.parent if self._file is not None else Path(":memory:")

    @contextlib.contextmanager
    def _write(self, at_ms: int) -> Iterator[sqlite3.Connection]:
        """One committed transaction of the writer, checked against the epoch."""
        if self._epoch is None:
            raise StoreFenced("this process opened the ledger for reading")
        with self._db_errors(), database.transaction(self._db):
            newest = self._db.execute(
                "UPDATE ledger SET newest_ms = max(newest_ms, ?) WHERE epoch = ?", (at_ms, self._epoch)
            ).rowcount
            if newest != 1:
                raise StoreFenced("another topup has taken this ledger over", remedy="stop this process")
            yield self._db

    def _stands(self) -> None:
        """See that the ledger's files are those that were opened: what is written to others is lost.

        Where they are not, what this process knew is saved where that is safe, and it is fenced.
        """
        if self._files is None:
            return
        if self._fenced is None and (lost := self._files.lost()):
            try:
                saved = self._files.rescue(self._db)
            except (sqlite3.Error, OSError):
                saved = ""
            self._fenced = StoreFenced(
                f"{lost} while this process held it{f'; {saved}' if saved else ''}",
                remedy="find out what did that; start this process again",
            )
            # Whether its last commit is in what others find is not known to whoever made it.
            self._fenced.exit_code = Exit.MONEY_MAY_HAVE_MOVED
        if self._fenced is not None:
            raise self._fenced

    @contextlib.contextmanager
    def _db_errors(self) -> Iterator[None]:
        with self._explained("written", "; nothing is spent until then"):
            yield
            if self._files is not None:
                self._files.settled()
                self._stands()  # a commit that went into a file without a name is none

    @contextlib.contextmanager
    def _explained(self, done: str, besides: str = "") -> Iterator[None]:
        """Turn what SQLite says of this ledger into an error with a remedy."""
        self._stands()
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StoreUnusable(
                f"the ledger {self._file} refuses this: {error}", remedy="run `topup status`; nothing was changed"
            ) from error
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the ledger {self._file} cannot be {done}: {error}",
                remedy=database.remedy(error, self._directory) + besides,
                passing=database.passing(error, self._directory),
            ) from error

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._explained("read"):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: object) -> sqlite3.Row:
        (row,) = self._all(sql, *values)
        return row

    def _insert(self, table: str, **values: object) -> int:
        """Add a row within the caller's transaction; return its number."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        return self._db.execute(sql, tuple(values.values())).lastrowid or 0

    def _set(self, table: str, where: dict[str, object], **values: object) -> None:
        """Change the rows of which all of this is true, within the caller's transaction."""
        sql = f"UPDATE {table} SET {' = ?, '.join(values)} = ? WHERE {' = ? AND '.join(where)} = ?"
        self._db.execute(sql, (*values.values(), *where.values()))


def _taken(directory: Path, command: str) -> tuple[IO[bytes], list[str]]:
    """Lock a ledger's directory, which is made where there is none, and say what of it was open to others."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    mended = location.narrow(directory)
    # flock ends with its process, so a lock file that is left behind holds nobody up. NFS before Linux 2.6.12
    # and some network file systems lock on one machine only: there the epoch alone keeps two writers apart.
    lock = os.fdopen(os.open(directory / "lock", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab")
    if not _locked(lock):
        lock.close()
        raise StoreBusy(
            f"another topup holds the ledger in {directory}",
            remedy="ask the running daemon (`topup status`), or stop it first",
        )
    with contextlib.suppress(OSError):  # only so that others can say whom they wait for
        lock.truncate(0)
        lock.write(command.encode())
        lock.flush()
    return lock, mended


@contextlib.contextmanager
def taken(directory: Path, command: str) -> Iterator[None]:
    """Keep every writer away from a ledger whose files are exchanged; a StoreBusy where one is there."""
    with database.explained(directory):
        lock, _ = _taken(directory, command)
    with contextlib.closing(lock):
        yield


def _locked(lock: IO[bytes]) -> bool:
    """Take the lock, unless a writer holds it; one who only looks, as `held` does, has it for a moment, and shares it.

    A writer is told from a look at once: whoever waited for it would take the ledger from a daemon that is restarted.
    """
    for _ in range(LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(LOOK_S)
    return False
