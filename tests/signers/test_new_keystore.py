"""Does a key come whole into its file, whatever stops the program, and does it replace nothing there?"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from eth_account import Account

from tests import oracles
from topup.domain.errors import FileAway, MemoryShort, SettingsError, SignerError, TopupError
from topup.signers import keystore, new_keystore
from topup.signers.new_keystore import fresh, write
from topup.wire import new_files

KEY = bytes.fromhex("22" * 32)
ADDRESS = Account.from_key(KEY).address
PASSWORD = "correct horse"
NAMED = "--keystore"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive in no time what takes a second on purpose."""
    monkeypatch.setattr(new_keystore, "SCRYPT_N", 2)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_it_writes_opens_in_two_other_programs_at_geths_cost(tmp_path: Path) -> None:
    """eth_account and ox (TypeScript) both read the key back, from a file that is 0600 and costs what geth's costs."""
    path = tmp_path / "wallet.json"
    assert write(path, KEY, PASSWORD, NAMED) == ADDRESS
    document = json.loads(path.read_text(encoding="utf-8"))
    costs = {name: document["crypto"]["kdfparams"][name] for name in ("n", "r", "p", "dklen")}
    assert (document["version"], document["crypto"]["kdf"]) == (3, "scrypt")
    assert costs == {"n": 262144, "r": 8, "p": 1, "dklen": 32}
    assert mode(path) == 0o600
    assert bytes(Account.decrypt(document, PASSWORD)) == KEY
    assert oracles.opened_by_ox(path, PASSWORD) == KEY
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_key_is_one_that_nobody_has_had(cheap: None) -> None:
    """Thirty-two bytes of the system's randomness, within the curve, and never the same twice."""
    keys = {fresh() for _ in range(50)}
    assert len(keys) == 50
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_whatever_the_umask_only_the_owner_reads_it(umask: int, cheap: None, tmp_path: Path) -> None:
    """A shell that opens everything to all and one that closes everything to all: 0600, in a new directory of 0700."""
    before = os.umask(umask & 0o077)
    try:
        path = tmp_path / "deep" / "wallet.json"
        path.parent.mkdir(mode=0o700)
        os.umask(umask)
        assert write(path, KEY, PASSWORD, NAMED) == ADDRESS
    finally:
        os.umask(before)
    assert mode(path) == 0o600


@pytest.mark.parametrize(
    "taken",
    [lambda path: path.write_text("mine"), Path.mkdir, lambda path: path.symlink_to("nowhere")],
    ids=["file", "folder", "link"],
)
def test_what_is_there_is_never_replaced(taken: Any, tmp_path: Path) -> None:
    """A file, a directory, a link that leads nowhere: refused before a second is spent, and nothing is beside it."""
    path = tmp_path / "wallet.json"
    taken(path)
    with pytest.raises(SettingsError, match="exists, and a keystore is never written over") as refused:
        write(path, KEY, PASSWORD, NAMED)
    assert "name another file" in refused.value.remedy
    assert [one.name for one in tmp_path.iterdir()] == ["wallet.json"]


def test_of_two_that_write_at_once_the_second_is_refused(
    cheap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes the name between the look and the link: its file stays as it is."""
    path = tmp_path / "wallet.json"
    honest = new_files.store

    def overtaken(unfinished: Path, content: bytes) -> None:
        honest(unfinished, content)
        path.write_text("the other's", encoding="utf-8")

    monkeypatch.setattr(new_files, "store", overtaken)
    with pytest.raises(SettingsError, match="exists"):
        write(path, KEY, PASSWORD, NAMED)
    assert path.read_text(encoding="utf-8") == "the other's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_keeps_something_else_gets_no_name(
    cheap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back is another keystore, or cut off: no address is told, and no file stands under the name."""
    path = tmp_path / "wallet.json"
    honest = new_files.store
    other = json.dumps(Account.encrypt(b"\x33" * 32, PASSWORD, kdf="scrypt", iterations=2)).encode()
    for spoil in (lambda _: other, lambda content: content[:99]):
        monkeypatch.setattr(new_files, "store", lambda at, content, spoil=spoil: honest(at, spoil(content)))
        with pytest.raises((SignerError, SettingsError)):
            write(path, KEY, PASSWORD, NAMED)
        assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of 128 MiB cannot derive a key of geth's cost: it says how much that takes; trying again may help."""
    monkeypatch.setattr(keystore, "_affords", lambda size: size < 128 << 20)
    with pytest.raises(MemoryShort, match="takes 256 MiB of memory"):
        write(tmp_path / "wallet.json", KEY, PASSWORD, NAMED)
    assert list(tmp_path.iterdir()) == []


# -- stopped at each call of the system in turn -----------------------------------------------------------------------

CALLS = ("mkdir", "open", "fchmod", "write", "fsync", "close", "read", "link", "unlink", "rename", "replace")


class Killed(BaseException):
    """The process ends here: nothing that it would still have done is done."""


class Try(NamedTuple):
    """At which call it was stopped, "" for none; what was said, what the file opens to, and what else is left."""

    at: str
    said: str
    opens: str | None
    left: list[Path]


def stopped(folder: Path, by: type[BaseException]) -> list[Try]:
    """Write the key again and again, each time stopped one call later, until it is stopped at none."""
    tries: list[Try] = []
    while not tries or tries[-1].at:
        # The first command of all finds no directory for settings yet.
        path, calls = folder / str(len(tries)) / "topup" / "wallet.json", list[str]()
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, stopping(getattr(os, name), calls, len(tries), by))
            try:
                said = write(path, KEY, PASSWORD, NAMED)
            except (Killed, TopupError) as ended:
                said = f"{type(ended).__name__}: {ended}"
        left, inside = new_files.leftovers(path), set(path.parent.iterdir() if path.parent.is_dir() else ())
        assert inside <= {path, *left}
        # A file is open to others at no moment; what a mask of the shell has taken away may not have come back yet.
        assert {mode(one) for one in inside} <= {0o600}
        opens = keystore.opened(path, PASSWORD, "it").address if path.exists() else None
        tries.append(Try("".join(calls[len(tries) : len(tries) + 1]), said, opens, left))
    assert len(tries) > 15, "fewer points than calls"
    assert tries[-1].said == tries[-1].opens == ADDRESS
    assert mode(path.parent) == 0o700
    return tries


def stopping(honest: Any, calls: list[str], at: int, by: type[BaseException]) -> Any:
    """A call of the system that fails if it is the one; of who is killed there, all later ones fail as well."""

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(honest.__name__)
        if len(calls) - 1 == at or (by is Killed and len(calls) > at):
            raise by(errno.EIO, honest.__name__)
        if honest.__name__ == "write":  # a write may be short
            arguments = arguments[0], arguments[1][:100]
        return honest(*arguments, **named)

    return call


def test_killed_at_any_call_it_leaves_the_whole_key_or_none(cheap: None, tmp_path: Path) -> None:
    """Before each call of the system: under its name stands nothing, or what opens; the rest is named so."""
    told = stopped(tmp_path, Killed)
    assert all(one.said.startswith("Killed") for one in told[:-1])
    assert {one.opens for one in told} == {None, ADDRESS}
    assert any(one.left and not one.opens for one in told)
    # Once it is there it stays there.
    first = next(number for number, one in enumerate(told) if one.opens)
    assert all(one.opens for one in told[first:])


def test_whatever_call_fails_the_key_is_whole_or_not_there_and_that_is_said(cheap: None, tmp_path: Path) -> None:
    """A disk that gives up at each call in turn: an error names the file, no address is told of what may not last."""
    for one in stopped(tmp_path, OSError)[:-1]:
        if one.said == ADDRESS:
            assert one.at in ("unlink", "close"), "nothing but what is over by then may fail unnoticed"
            assert one.opens == ADDRESS
            continue
        assert one.said.startswith(("FileAway: --keystore", "SettingsError: --keystore")), one
        assert "wallet.json" in one.said
        assert not one.opens or "is written, and its directory may not keep it" in one.said, one
        assert one.left == [], "what failed has cleaned up"


def test_why_it_cannot_be_written_says_what_to_do(cheap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may pass; a read-only one, a file for a directory and one without links are for a person."""
    path, file = tmp_path / "wallet.json", tmp_path / "file"
    file.write_text("")
    with pytest.raises(SettingsError, match=r"ENOTDIR|EEXIST"):
        write(file / "wallet.json", KEY, PASSWORD, NAMED)
    for number, kind, says in (
        (errno.ENOSPC, FileAway, "cannot be written by user .* \\(ENOSPC\\)"),
        (errno.EROFS, SettingsError, "\\(EROFS\\)"),
        (errno.EACCES, SettingsError, "\\(EACCES\\)"),
        (errno.EPERM, SettingsError, "its file system has no hard links"),
    ):
        monkeypatch.setattr(os, "link", lambda *_, number=number: (_ for _ in ()).throw(OSError(number, "no")))
        with pytest.raises(TopupError, match=says) as refused:
            write(path, KEY, PASSWORD, NAMED)
        assert type(refused.value) is kind
        assert refused.value.remedy
        assert list(tmp_path.iterdir()) == [file]
