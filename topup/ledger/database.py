"""What keeps the ledger's file whole? Making it, opening it, reading every page of it, bringing it to this version.

WAL lets readers look while the daemon writes; whatever is wrong with the file is told with what a person can do.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from topup.accounting.journal import chained
from topup.domain.errors import StoreBusy, StoreUnusable
from topup.ledger.location import BACK, FILE, copied, sync
from topup.ledger.rows import RESTORE, entries
from topup.ledger.schema import CHAINED_FROM, MIGRATIONS

BUSY_TIMEOUT_MS = 5_000
# How file systems say that they know no links: SMB shares, exFAT, folders shared with a virtual machine.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
# What may pass without anybody's doing: a disk that others fill and empty, memory, too many open files.
PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
ROOM_MIN = 256 * 1024


def connect(path: Path, *, writer: bool = True) -> sqlite3.Connection:
    """Open a database so that a commit survives the loss of power.

    Only a ledger's `writer` copies from the log into the database, so that it knows every change of that file.
    """
    existed = path.exists()
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.row_factory = sqlite3.Row
    if not existed and path.exists():
        path.chmod(0o600)
    # WAL lets readers look while the daemon writes; FULL makes a commit survive the loss of power (with WAL and
    # NORMAL the newest commits may be rolled back, and with them the record of a payment).
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        if not writer:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def version(connection: sqlite3.Connection) -> int:
    """Return which version of the schema the file has; 0 for none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def settle_file(directory: Path) -> None:
    """See that there is a ledger's file, making a new one only where there never was any."""
    path, new = directory / FILE, directory / f"{FILE}.new"
    for left in (*directory.glob(f"{new.name}*"), *directory.glob(f"{BACK}*")):
        left.unlink()
    if path.exists():
        not_empty(path)
        return
    log = directory / f"{FILE}-wal"
    if log.exists() and log.stat().st_size:
        raise StoreUnusable(
            f"the ledger in {directory} is gone, its log {log.name} is left",
            remedy=f"{RESTORE}; to begin a new one, move the log away",
        )
    # Made under another name and linked when it is whole: a file of that name that is empty or has no tables was cut
    # short by something else, and is never taken for a new ledger. A link replaces nothing, should two be here.
    with contextlib.closing(connect(new)) as connection:
        migrate(connection, directory)
    _link(new, path)
    for made in (directory, directory.parent):
        sync(made)


def _link(new: Path, path: Path) -> None:
    """Give a whole ledger its name, replacing none; where there are no links, behind a file that nobody else made."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            new.replace(path)
    new.unlink(missing_ok=True)


def not_empty(path: Path) -> None:
    """Look before SQLite does: it takes an empty file for a new database and deletes the log beside it."""
    if path.stat().st_size == 0:
        raise StoreUnusable(
            f"the ledger in {path.parent} is empty: something cut it short",
            remedy=f"{RESTORE}; if there never was a payment, remove {path}",
        )


def migrate(connection: sqlite3.Connection, directory: Path) -> None:
    """Bring the schema to this program's version, each step a transaction; StoreUnusable where a newer one wrote it.

    A ledger in a file is copied before, so that the topup that wrote it can have it back.
    """
    written = version(connection)
    if written > len(MIGRATIONS):
        raise _strange(written, directory, "use the newer topup that wrote it")
    file = connection.execute("PRAGMA database_list").fetchone()["file"]
    if file and 0 < written < len(MIGRATIONS):
        copied(connection, Path(f"{file}.v{written}"))
    for number in range(written, len(MIGRATIONS)):
        with transaction(connection):
            for statement in _statements(MIGRATIONS[number]):
                connection.execute(statement)
            if number + 1 == CHAINED_FROM:
                chain_all(connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")


def chain_all(connection: sqlite3.Connection) -> None:
    """Chain the entries of a ledger that was written before there were hashes; within the caller's transaction."""
    last = b""
    for number, account, entry, _ in list(entries(connection, "true", (), "entry.id")):
        last = chained(last, account, entry)
        connection.execute("UPDATE entry SET hash = ? WHERE id = ?", (last, number))


def must_be_known(connection: sqlite3.Connection, directory: Path) -> None:
    """See that the file has this program's version, for those who may not change it; else StoreUnusable."""
    written = version(connection)
    if written != len(MIGRATIONS):
        raise _strange(written, directory, "use the topup that wrote it, or let this one's daemon migrate it")


def _strange(written: int, directory: Path, to_do: str) -> StoreUnusable:
    says = f"the ledger in {directory} has version {written}, this program knows {len(MIGRATIONS)}"
    return StoreUnusable(says, remedy=to_do)


def examine(connection: sqlite3.Connection, directory: Path) -> None:
    """Read every page once before anything is spent: damage shows only where it is read."""
    says = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if says != ["ok"]:
        raise StoreUnusable(f"the ledger in {directory} is damaged: {says[0]}", remedy=RESTORE)
    if version(connection) == 0:
        raise StoreUnusable(f"{directory / FILE} is a database without a ledger in it", remedy=RESTORE)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; executescript would commit between them."""
    statement = ""
    for line in script.splitlines():
        statement += line.split("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done within, or none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        # Inside the try: with WAL a full disk shows here, and a transaction left open would block every later one.
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


@contextlib.contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of a ledger into an error with a remedy."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError) as error:  # the last: SQLite quotes a damaged name in its error
        says, to_do = f"the ledger in {directory} cannot be used: {error}", remedy(error, directory)
        if _code(error) == sqlite3.SQLITE_BUSY:
            raise StoreBusy(says, remedy=to_do) from error
        raise StoreUnusable(says, remedy=to_do, passing=passing(error, directory)) from error


def passing(error: Exception, directory: Path) -> bool:
    """Tell whether it is the disk or the machine that failed, and not the ledger: then it is tried again."""
    match _code(error):
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_NOMEM | sqlite3.SQLITE_IOERR:
            return True
        case sqlite3.SQLITE_CANTOPEN:  # a full disk holds no new file either
            return _no_room(directory)
        case _:
            return isinstance(error, OSError) and error.errno in PASSING


def _no_room(directory: Path) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < ROOM_MIN or (disk.f_files > 0 and disk.f_favail == 0)


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 for what is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def remedy(error: Exception, directory: Path) -> str:
    """Say what a person can do about an error of the file or of the disk below it."""
    match _code(error):
        case sqlite3.SQLITE_BUSY:
            return f"a process keeps {directory / FILE} locked: end it (`fuser {directory / FILE}` names it)"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return RESTORE
        case 0 if not isinstance(error, OSError):  # text that is none
            return RESTORE
        case sqlite3.SQLITE_FULL:
            return f"free disk space below {directory}"
        case _:
            return f"make {directory} a directory that user {os.getuid()} can write, with free disk space"
