"""How is a file written that its owner alone may read, so that a crash leaves all of it under its name, or nothing?

The text goes into another file beside it, which is made durable and only then linked to the name: a link replaces
nothing, whoever else is about to write there. What a crash leaves under the other name ends in `LEFTOVER`, and nothing
reads it.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from topup.domain.errors import FileAway, SettingsError
from topup.wire.files import WRONG

LEFTOVER: Final = ".unfinished"


def create(path: Path, text: str, what: str) -> None:
    """Write a new file of mode 0600; `what` is said of it in a sentence.

    Raises:
        SettingsError: something is there already, or this user cannot write there.
        FileAway: it cannot be written now.
    """
    with refused(path, what):
        make_directory(path.parent)
        with beside(path, text.encode()) as unfinished:
            os.link(unfinished, path)
            sync(path.parent)


def replace(path: Path, text: str, what: str) -> Path:
    """Write a file anew, and return where what stood there before is kept; errors as `create`."""
    kept = next(path.with_name(f"{path.name}.{n}") for n in range(1, 10_000) if not os.path.lexists(f"{path}.{n}"))
    with refused(path, what), beside(path, text.encode()) as unfinished:
        os.link(path, kept)
        unfinished.replace(path)
        sync(path.parent)
    return kept


@contextmanager
def refused(path: Path, what: str) -> Iterator[None]:
    """Say of a file that cannot be written why, and what to do."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
    else:
        return
    if number == errno.EEXIST:
        raise SettingsError(f"{what}: {path} exists, and is not written over", remedy="move it away, or name another")
    why = errno.errorcode.get(number, "unknown")
    kind = SettingsError if number in WRONG | {errno.EROFS, errno.ENOTDIR} else FileAway
    says = f"{what}: {path} cannot be written by user {os.getuid()} ({why})"
    raise kind(says, remedy="name another place, or see what its file system says")


@contextmanager
def beside(path: Path, content: bytes) -> Iterator[Path]:
    """Give a durable file of this content beside `path`, for as long as it is not moved."""
    unfinished = path.with_name(f"{_stem(path)}{secrets.token_hex(8)}{LEFTOVER}")
    try:
        store(unfinished, content)
        yield unfinished
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def leftovers(path: Path) -> list[Path]:
    """Return what a crash has left of earlier tries to write this file."""
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [other for other in beside if other.name.startswith(_stem(path)) and other.name.endswith(LEFTOVER)]


def store(path: Path, content: bytes) -> None:
    """Write a file that was not there, which its owner alone can read whatever the umask, down to the disk."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory for its owner alone, with those above that are missing."""
    missing = [above for above in (directory, *directory.parents) if not above.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


def sync(directory: Path) -> None:
    """Make what was linked and moved in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stem(path: Path) -> str:
    return f".{path.name}."
