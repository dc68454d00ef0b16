"""Is the ledger's place still its own? Files that were removed or exchanged under it, and who else can look in.

A writer whose files lost their names would go on into files that nobody finds again. It notices before and after each
of its transactions, puts what it knows back where it is sure that nobody else has put anything, and ends.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from topup.domain.errors import SettingsError, StoreBusy

FILE: Final = "ledger.sqlite3"
LOG, INDEX = f"{FILE}-wal", f"{FILE}-shm"
# What a writer that lost its files leaves beside them, where another ledger stands in their place by then.
KEPT: Final = f"{FILE}.kept"
BACK: Final = f"{FILE}.back"
# How long a reader waits for the files of a writer that is just starting or ending.
SETTLE_S: Final = 1.0
GLANCE_S: Final = 0.02
# An index is written in microseconds: so many looks in a row never meet the middle of it.
GLANCES_MAX: Final = 100

Inode = tuple[int, int]


def inode(path: Path | None) -> Inode | None:
    """Return which file stands at `path` now; None for none."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status is not None else None


class Files:
    """The files of a ledger as its writer opened them."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        """Keep which files they are; the log stands beside the ledger from the writer's first transaction on."""
        self._path = path
        self._log, self._index = path.with_name(LOG), path.with_name(INDEX)
        self._inodes = {file: inode(file) for file in (path, self._log, self._index)}
        held = os.fstat(lock.fileno())
        self._lock = (held.st_dev, held.st_ino)
        self._log_size = 0
        self._written: tuple[int, int] | None = None
        self._mark: Mark | None = None
        # Opened once and closed last: to close a file of SQLite's drops all locks that this process has on it.
        self._handle = os.open(self._index, os.O_RDONLY | os.O_CLOEXEC) if self._index.exists() else None
        self.settled()

    def close(self) -> None:
        """Close what was opened; SQLite's connection has to be closed before."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def settled(self) -> None:
        """Keep what the writer's own commit has made of them: it alone copies from the log into the ledger."""
        with contextlib.suppress(OSError):
            self._log_size, self._written = self._log.stat().st_size, _written(self._path)
            now = marked(self._handle)
            # What does not follow from the last one stays to be found: somebody has exchanged what is in the files.
            if now is not None and (self._mark is None or now.follows(self._mark)):
                self._mark = now

    def lost(self) -> str:
        """Say what became of them behind the writer's back; "" where nothing did."""
        for path, was in self._inodes.items():
            now = inode(path)
            if now != was:
                return f"the ledger's file {path} was {'removed' if now is None else 'replaced'}"
        try:
            if self._log.stat().st_size < self._log_size:
                return f"the ledger's file {self._log} was cut short"
            if _written(self._path) != self._written:
                return f"the ledger {self._path} was written to by something else"
            if self._mark is not None and not self._mark.stands(self._log, marked(self._handle)):
                return f"what stood in the ledger's files {self._log} and {self._index} was replaced"
        except OSError as error:
            return f"the ledger {self._path} cannot be looked at ({type(error).__name__})"
        return ""

    def rescue(self, connection: sqlite3.Connection) -> str:
        """Save what the writer knows, close its connection, and say what was saved.

        Put back under its name only where no other ledger stands there and the directory is still the locked one:
        then no other writer can have begun. Else it is kept beside, for a person to compare.
        """
        there = inode(self._path)
        ours = there is None or there == self._inodes[self._path]
        unread = inode(self._log) == self._inodes[self._log] and inode(self._index) == self._inodes[self._index]
        if inode(self._path.with_name("lock")) != self._lock or (there is not None and ours and unread):
            # Moved away as a whole, or written to by something else: there is nothing that only this process knows.
            self._leave(connection)
            return ""
        target = self._path if ours else self._path.with_name(KEPT)
        copy = self._path.with_name(BACK)
        try:
            copied(connection, copy)
        except (sqlite3.Error, OSError):
            copy.unlink(missing_ok=True)
            connection.close()
            return ""
        # SQLite may remove log and index by their names when it closes: before the copy gets its own name, not after.
        connection.close()
        if ours:
            self._log.unlink(missing_ok=True)
            self._index.unlink(missing_ok=True)
        copy.replace(target)
        sync(target.parent)
        return "what it held was put back" if ours else f"what this process knew of it is kept in {target}"

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Close the connection, and leave the files as somebody else has made them.

        SQLite would copy what it takes for the log into the ledger when the last connection closes. Beside another it
        does not, and one that may only read never does.
        """
        with contextlib.suppress(sqlite3.Error):
            other = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
            with contextlib.closing(other):
                other.execute("PRAGMA schema_version")
                connection.close()
        connection.close()


@dataclass(frozen=True)
class Mark:
    """How far the log reached by its index, as SQLite keeps them (its file format, section 4, and wal.c).

    A copy of older files written into the same ones changes neither their names nor, mostly, their sizes; SQLite would
    believe the older index, and write the next commit over those that it no longer knows.

    Attributes:
        salt: which run of the log this is; another begins only when the ledger's file holds all of the last one.
        frames: how many pages it holds.
        check: the checksum of the last one, and of everything before it.
        copied: whether the ledger's file holds all of them.
    """

    salt: bytes
    frames: int
    check: bytes
    copied: bool

    def follows(self, before: Mark) -> bool:
        """Tell whether commits alone can have made this of what was there before."""
        return self.frames >= before.frames if self.salt == before.salt else before.copied

    def stands(self, log: Path, now: Mark | None) -> bool:
        """Tell whether a log, and the mark its index shows now, still hold all of it; raises OSError."""
        if now is not None and not now.follows(self):
            return False
        if not self.frames or (now is not None and now.salt != self.salt):
            return True
        with log.open("rb") as file:
            size = int.from_bytes(file.read(32)[8:12], "big")
            file.seek(32 + (self.frames - 1) * (24 + size))
            return file.read(24)[8:] == self.salt + self.check


def marked(index: int | None) -> Mark | None:
    """Read the mark from a log's index; None where it holds none, or somebody was just writing it each time."""
    if index is None:
        return None
    for _ in range(GLANCES_MAX):
        raw = os.pread(index, 100, 0)
        if len(raw) == 100 and raw[:48] == raw[48:96]:
            frames, first, second = (int.from_bytes(raw[at : at + 4], sys.byteorder) for at in (16, 24, 28))
            copied = int.from_bytes(raw[96:100], sys.byteorder)
            return Mark(raw[32:40], frames, first.to_bytes(4, "big") + second.to_bytes(4, "big"), copied >= frames)
    return None


def _written(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def copied(connection: sqlite3.Connection, copy: Path) -> None:
    """Write all that a connection sees into a file of its own, whole and on the disk, or raise."""
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with contextlib.closing(sqlite3.connect(copy)) as made:
        connection.backup(made)
        if [row[0] for row in made.execute("PRAGMA integrity_check(1)")] != ["ok"]:
            raise sqlite3.DatabaseError("what the writer sees is not whole")
        # Else a log of its own would belong to it, under a name that it is about to lose.
        made.execute("PRAGMA journal_mode = DELETE")
    sync(copy)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, survive the loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def must_be_whole(directory: Path, held: Callable[[], bool]) -> None:
    """See that a ledger that has a writer has its log beside it, before anybody makes another log.

    Raises:
        StoreBusy: it lost its files; the writer notices that, and puts them back or ends.
    """
    deadline = time.monotonic() + SETTLE_S
    # Looked at first: to ask for the lock, however shortly, could keep a writer from getting it.
    while not all((directory / name).exists() for name in (FILE, LOG, INDEX)) and held():
        if time.monotonic() > deadline:
            raise StoreBusy(
                f"the ledger in {directory} lost its files under the process that holds it",
                remedy="try again when that process has noticed; see its log, and docs/runbook.md",
            )
        time.sleep(GLANCE_S)


# -- who else can look in -------------------------------------------------------------------------------------


def exposed(directory: Path) -> str:
    """Say who else can look into the ledger's directory, or change it; "" for nobody. It has to be there."""
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007:
        return f"{directory} is open to every user (mode {mode:03o})"
    if mode & 0o020 and status.st_uid == os.geteuid():
        return f"{directory} can be written by its group (mode {mode:03o})"
    wide = _open_to_others(directory)
    return f"{wide[0]} is open to others than its owner" if wide else ""


def _open_to_others(directory: Path) -> list[Path]:
    paths = (directory / name for name in (FILE, LOG, INDEX, "lock"))
    return [path for path in paths if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]


def narrow(directory: Path) -> list[str]:
    """Close the ledger's directory and files to others; return a sentence for each thing that was open.

    Raises:
        SettingsError: it is not ours to close: another's, or shared with what is not the ledger's.
    """
    said: list[str] = []
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        return said  # whoever writes next says so
    if (wrong := exposed(directory)) and str(directory) + " " in wrong:
        mode = stat.S_IMODE(directory.stat().st_mode)
        foreign = [path.name for path in directory.iterdir() if not path.name.startswith(FILE) and path.name != "lock"]
        remedy = f"name a directory below it in state_dir, which topup makes for itself, or `chmod 700 {directory}`"
        if mode & stat.S_ISVTX or (foreign and os.geteuid() == 0):
            raise SettingsError(f"state_dir {wrong}, and holds what is not topup's", remedy=remedy)
        try:
            directory.chmod(mode & ~0o027)
        except OSError:
            raise SettingsError(f"state_dir {wrong}, and user {os.geteuid()} may not close it", remedy=remedy) from None
        said.append(f"{wrong}; it was closed to others")
    for path in _open_to_others(directory):
        path.chmod(0o600)
        said.append(f"{path} was open to others than its owner; it was closed to them")
    return said
