"""How is a ledger copied while it is written to, and how is a copy put back? Whole, proven, for its owner alone.

A copy that is put back knows nothing of what was paid since it was made. So buying is paused in it, what stood in its
place is kept, and a crash on the way leaves a place that no process takes for a ledger.
"""

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topup.domain.errors import StoreUnusable
from topup.domain.notes import Note
from topup.ledger import database, location
from topup.ledger.lock import taken
from topup.ledger.store import SqliteStore
from topup.wire import new_files

KEPT: Final = "before-restore"
FILES: Final = (location.FILE, location.LOG, location.INDEX)
ANOTHER: Final = "use another copy"


@dataclass(frozen=True)
class Copy:
    """What a copy of a ledger holds.

    Attributes:
        version: of its schema, as it lies there.
        newest_ms: its newest time; what happened later is not in it.
        entries: how many entries its journal has.
        head: the hash of the newest, which stands for all of them; empty where there is none.
        unfinished: the top-ups that are open in it, by their ids.
    """

    version: int
    newest_ms: int
    entries: int
    head: bytes
    unfinished: tuple[str, ...]


def write(directory: Path, target: Path) -> Copy:
    """Copy the ledger in `directory` into a new file `target` of mode 0600, beside whoever writes it.

    Raises:
        StoreError: the ledger cannot be read, or its copy is not whole.
        SettingsError: something is at `target` already, or this user cannot write there.
        FileAway: it cannot be written now.
    """
    with contextlib.closing(SqliteStore.open_reader(directory)) as store, new_files.refused(target, "the backup"):
        new_files.make_directory(target.parent)
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}{new_files.LEFTOVER}")
        try:
            with database.explained(directory):
                store.copy_to(unfinished)
            found = look(unfinished)
            os.link(unfinished, target)
            location.sync(target.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    return found


def look(path: Path) -> Copy:
    """Read all of a copy and hold its journal against its hashes; a StoreUnusable where it is not whole."""
    with _read(path) as (_, found):
        return found


def put_back(directory: Path, source: Path, account: str, by: str, clock_ms: int) -> tuple[Copy, Path | None]:
    """Make a copy the ledger in `directory`, with buying paused; return what it holds, and where the old one is kept.

    Paused are `account`, of which the copy may hold nothing yet, and every other that it knows.

    Raises:
        StoreBusy: a process holds the ledger there.
        StoreUnusable: the copy is not whole, or a newer program wrote it; nothing was changed.
    """
    # Read once: what is put in place is what was proven, whatever becomes of the file meanwhile.
    with _read(source) as (store, found), taken(directory, "restore"), database.explained(directory):
        made = directory / location.BACK
        made.unlink(missing_ok=True)
        for name in {account, *store.accounts()}:
            store.say(name, Note.PAUSED, "1", store.now_ms(clock_ms), by)
        store.copy_to(made)
        kept = _kept(directory)
        # Whoever starts between here and the end finds a ledger that is empty, and refuses it.
        empty = directory / f"{location.FILE}.new"
        empty.unlink(missing_ok=True)
        new_files.store(empty, b"")
        empty.replace(directory / location.FILE)
        location.sync(directory)
        for name in (location.LOG, location.INDEX):
            (directory / name).unlink(missing_ok=True)
        location.sync(directory)
        made.replace(directory / location.FILE)
        location.sync(directory)
    return found, kept


def _kept(directory: Path) -> Path | None:
    """Copy the files of the ledger that is replaced into a folder of their own; they belong together."""
    there = [directory / name for name in FILES if (directory / name).exists()]
    if not any(path.stat().st_size for path in there):
        return None
    kept = next(path for n in range(1, 10_000) if not (path := directory / f"{KEPT}.{n}").exists())
    kept.mkdir(mode=0o700)
    for path in there:
        copy = kept / path.name
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        shutil.copyfile(path, copy)
        location.sync(copy)
    location.sync(kept)
    location.sync(directory)
    return kept


@contextlib.contextmanager
def _read(path: Path) -> Iterator[tuple[SqliteStore, Copy]]:
    """Open a copy of the copy in memory, brought to this program's schema and proven, and tell what it holds."""
    if not path.is_file():
        raise StoreUnusable(f"{path} is no file", remedy="name a file that `topup backup` wrote")
    try:
        database.not_empty(path)
        with contextlib.ExitStack() as undo:
            # Immutable: a copy has no log, and none is made beside it.
            source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            undo.callback(source.close)
            memory = database.connect(Path(":memory:"))
            undo.callback(memory.close)
            source.backup(memory)
            database.examine(memory, path)
            version = database.version(memory)
            database.migrate(memory, path.parent)
            store = SqliteStore(memory, None, None)
            found = _proven(store, path, version)
            opened = undo.pop_all()
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path} is no ledger: {error}", remedy=ANOTHER) from None
    with opened:
        yield store, found


def _proven(store: SqliteStore, path: Path, version: int) -> Copy:
    audit = store.audit()
    if audit.wrong is not None:
        number, why = audit.wrong
        raise StoreUnusable(f"{path}: entry {number}: {why}", remedy=ANOTHER)
    opened = [topup.id for account in store.accounts() if (topup := store.open_topup(account)) is not None]
    return Copy(version, store.now_ms(0), audit.count, audit.head, tuple(opened))
