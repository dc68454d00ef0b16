"""What does a file say that the settings name, and who else can read it?

A file that is not there may be mistyped or not mounted yet, and nobody here can tell which: that ends with a code that
is tried again. One that is there and wrong is a matter for a person. What editors leave around a text, such as a mark
of its encoding or an end of a line, is no part of it.

Nothing that a setting names can hold the program up. A pipe and a terminal are read, because a shell gives a secret as
`<(command)` or `/dev/stdin`, but they are not waited for without end; any other device is refused unopened.
"""

import codecs
import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

from topup.domain.errors import FileAway, SettingsError

BYTES_MAX: Final = 1024 * 1024
# How long whoever writes into a pipe may take, which may be a person who types; systemd gives a start 90 s.
WRITER_S: Final = 30
UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What a person has to correct; whatever else goes wrong while a file is read may pass.
WRONG: Final = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
OTHERS: Final = 0o007
GROUP: Final = 0o070
# What pipes have said: each says it once, and whoever masks a secret reads it as well as whoever uses it.
_HEARD: Final[dict[tuple[int, int], bytes]] = {}


def text(path: Path, what: str) -> str:
    """Return what a file says; `what` is the setting, the variable or the option that names it.

    Raises:
        FileAway: it is not there, or cannot be read now.
        SettingsError: it is no file of text, or this user may not read it.
    """
    raw = _bytes(path, what)
    if len(raw) > BYTES_MAX:
        raise SettingsError(f"{what}: {path} is longer than {BYTES_MAX} bytes", remedy=f"correct {what}")
    # Windows editors, and redirections of its shell, begin a file with a mark of its encoding.
    encoding = "utf-16" if raw.startswith(UTF16) else "utf-8-sig"
    try:
        decoded = raw.decode(encoding)
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise SettingsError(f"{what}: {path} is no text in UTF-8", remedy="save it as UTF-8")
    return decoded


def _bytes(path: Path, what: str) -> bytes:
    try:
        kind = path.stat()
        if stat.S_ISCHR(kind.st_mode) and kind.st_rdev == Path(os.devnull).stat().st_rdev:
            return b""
        if not (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode) or _spoken(path, kind.st_mode)):
            says = f"{what}: {path} is neither a file nor a pipe"
            raise SettingsError(says, remedy=f"name a file in {what}")
        pipe = None if stat.S_ISREG(kind.st_mode) else (kind.st_dev, kind.st_ino)
        if pipe in _HEARD:
            return _HEARD[pipe]
        # Not blocking: opening a pipe that nobody writes into would wait for ever, and so might what took its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            raw = _poured(descriptor, path, what)
            if pipe is not None:
                _HEARD[pipe] = raw
            return raw
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        number = error.errno if isinstance(error, OSError) else errno.EINVAL
    if number in ABSENT:
        raise FileAway(
            f"{what} names {path}, which does not exist: its name is mistyped, or it is not mounted yet",
            remedy=f"create or mount it, or correct {what}",
        )
    if number == errno.EISDIR:
        raise SettingsError(
            f"{what}: {path} is a directory: Docker makes one where a file that it should mount is missing",
            remedy=f"name a file in {what}",
        )
    why = errno.errorcode.get(number or 0, "unknown")
    if number in WRONG:
        says = f"{what}: {path} cannot be read by user {os.getuid()} ({why})"
        raise SettingsError(says, remedy=f"correct {what}, or the permissions of the file")
    raise FileAway(f"{what}: {path} cannot be read now ({why})", remedy="see what its file system says")


def _spoken(path: Path, mode: int) -> bool:
    """Tell whether this is a pipe, or the terminal that the program was started from."""
    if stat.S_ISFIFO(mode):
        return True
    try:
        return stat.S_ISCHR(mode) and path.samefile(os.ttyname(0))
    except OSError:
        return False


def _poured(descriptor: int, path: Path, what: str) -> bytes:
    """Return all that can be read, and a little more than is ever accepted at most."""
    raw, end = b"", time.monotonic() + WRITER_S
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    while len(raw) <= BYTES_MAX:
        # A pipe that nobody has opened for writing yet reads as if it were at its end.
        if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
            raise FileAway(
                f"{what}: {path} is no file but a pipe or a terminal, and what was written into it did not come to an"
                f" end within {WRITER_S} s; what stands in a pipe can be read once",
                remedy=f"name a file in {what}, or see what should write into it",
            )
        try:
            part = os.read(descriptor, BYTES_MAX + 1 - len(raw))
        except BlockingIOError:  # somebody else has read it
            continue
        if not part:
            break
        raw += part
    return raw


def secret(path: Path, what: str) -> str:
    """Return the secret that a file holds, without the white space around it; as `text`, and it may not be empty."""
    secret_text = text(path, what).strip()
    if not secret_text:
        raise SettingsError(f"{what}: {path} is empty", remedy="write the secret into it")
    return secret_text


def password(path: Path, what: str) -> str:
    """Return a password: all of a file, see `text`, but the end of its line, because blanks may belong to it."""
    return text(path, what).removesuffix("\n").removesuffix("\r")


def credential(name: str) -> Path | None:
    """Return one of systemd's credentials, None where there is no such."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    if wrong := stray(directory):
        raise SettingsError(f"CREDENTIALS_DIRECTORY {wrong}", remedy="correct the variable")
    path = Path(directory) / name
    return path if path.exists() else None


def stray(path: str) -> str:
    """Say what is wrong with a path that a person did not mean like this; "" where nothing is."""
    if path != path.strip() or path.startswith("\ufeff"):
        return f"begins or ends with a blank, an end of a line or a mark: {path[:200]!a}"
    if not path.isprintable():
        return f"holds a character that nobody can see: {path[:200]!a}"
    return ""


# -- who else -------------------------------------------------------------------------------------------------


def read_only(path: Path) -> bool:
    """Tell whether a file lies on a mount that nobody here can change: a container's secret, a ConfigMap."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def enclosed(path: Path) -> bool:
    """Tell whether a directory above keeps out everybody but its owner."""
    for above in path.resolve().parents:
        try:
            if not stat.S_IMODE(above.stat().st_mode) & 0o011:
                return True
        except OSError:
            return False
    return False


def shared(path: Path) -> str:
    """Say who else can read or write a secret's file, "" for nobody; raises OSError where it cannot be looked at.

    systemd gives credentials to a unit's user by an access list, and a cluster by the file's group: such a file is
    another's, its group may read it, and nobody else. Where a directory above lets nobody else in, nothing is open.
    """
    kept = path.stat()
    mode = stat.S_IMODE(kept.st_mode)
    if not mode & (OTHERS | GROUP) or enclosed(path):
        return ""
    if mode & OTHERS:
        return "every user can write it" if mode & 0o002 else "every user can read it"
    if kept.st_uid != os.geteuid() and not mode & 0o020:
        return ""  # read through its group, or through an access list whose mask is shown in the group's place
    return "its group can write it" if mode & 0o020 else "its group can read it"
