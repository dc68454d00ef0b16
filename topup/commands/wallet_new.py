"""How does a person get a key that pays: where is it kept, what opens it, and what is to be done next?

No key and no password is ever an argument: arguments stand in `ps` and in a shell's history.
"""

import getpass
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from topup.app import exposure, keys
from topup.app.output import warn
from topup.app.settings import Settings, env_name, file_of
from topup.commands.answer import Answer
from topup.commands.start import load
from topup.domain.errors import Exit, SettingsError
from topup.signers import new_keystore
from topup.wire import files, new_files

PASSWORD_MIN: Final = 8
NAME: Final = "wallet.json"


def answer(keystore: Path | None, password_file: Path | None) -> Answer:
    """Make a new key, put it into a keystore, and say its address once it was read back from there."""
    return kept(
        new_keystore.fresh,
        keystore,
        password_file,
        "fund it, unless an account is to grant it a limit: docs/rails.md says with what, and where",
    )


def kept(source: Callable[[], bytes], keystore: Path | None, password_file: Path | None, also: str = "") -> Answer:
    """Put a key into a keystore of its own; its `source` may ask a person. `also` is what else is to be done then."""
    path, named, password_file = _place(keystore, password_file)
    new_keystore.must_be_free(path, named)  # before anybody is asked for a password
    for old in new_files.leftovers(path):
        warn(f"topup: {old} was left by a command that did not end, or is being written: nothing reads it; delete it")
    key = source()
    password = _password(password_file)
    address = new_keystore.write(path, key, password, named)
    lasts = password_file is not None and password_file.is_file()  # and is no pipe
    opens = password_file.absolute() if password_file is not None and lasts else path.with_suffix(".password")
    settings = {"wallet.keystore": str(path), "wallet.keystore_password_file": str(opens)}
    todo = [
        f"back up {path} and its password, each in a place of its own: without both, whatever the wallet holds is lost",
        *([] if lasts else [f"write the password into a file of mode 0600, such as {opens}"]),
        f"write these two settings into the settings' file, or set {' and '.join(map(env_name, settings))}",
        *([also] if also else []),
        "`topup wallet check` says what it holds",
    ]
    document = {"schema": 1, "address": address, "keystore": str(path), "settings": settings, "to_do": todo}
    return Answer(document, _lines(document), Exit.OK)


def typed(what: str, option: str, *, twice: bool = False) -> str:
    """Ask for a secret on the terminal, without echo; a SettingsError where there is none to ask on."""
    if not sys.stdin.isatty():
        raise SettingsError(
            f"{what} cannot be asked for: standard input is no terminal",
            remedy=f"give {option} FILE, or use a terminal",
        )
    try:
        with warnings.catch_warnings():
            # It would go on, and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            said = getpass.getpass(f"{what}: ")
            again = getpass.getpass(f"{what}, again: ") if twice else said
    except (EOFError, getpass.GetPassWarning, UnicodeError):
        said = again = ""
    if not said:
        raise SettingsError(f"{what}: nothing was typed that could be read unseen", remedy=f"try again, or {option}")
    if said != again:
        raise SettingsError(f"{what}: the two are not the same", remedy="try again: nothing was written")
    return said


def _place(keystore: Path | None, password_file: Path | None) -> tuple[Path, str, Path | None]:
    """Return where the keystore goes, what names it, and the file of its password where one is named."""
    if keystore is not None:
        if wrong := files.stray(str(keystore)):
            raise SettingsError(f"--keystore {wrong}", remedy="correct --keystore")
        return keystore.absolute(), "--keystore", password_file
    settings = load()
    if settings.wallet.keystore is not None:
        return settings.wallet.keystore.absolute(), "wallet.keystore", password_file or keys.password_file(settings)
    return _default(settings), "the default of --keystore", password_file


def _default(settings: Settings) -> Path:
    """Return a place beside the settings' file, or where that would be; in the ledger's directory where it is none."""
    file = file_of(os.environ)
    beside = file is not None and (file.is_file() or not file.exists())
    return (file.parent if file is not None and beside else settings.state_dir).absolute() / NAME


def _password(path: Path | None) -> str:
    """Return the new keystore's password; a SettingsError where it is too short, or others may read it."""
    if path is None:
        password, what = typed("password of the new keystore", "--password-file", twice=True), "the password"
    else:
        what = "the password's file"
        password = files.password(path, what)
        found = exposure.key_file(what, path)
        if found.wrong and path.is_file() and not found.passable:
            raise SettingsError(found.says, remedy=f"chmod 600 {path}, and take a password that nobody has read")
        if found.wrong and path.is_file():
            warn(f"topup: {found.says}")
    if len(password.strip()) < PASSWORD_MIN:
        raise SettingsError(
            f"{what} is too short", remedy=f"take {PASSWORD_MIN} characters or more, better 20 at random"
        )
    if any(end in password for end in "\r\n"):
        remedy = "write it on one line: geth and others read the first line of a file alone"
        raise SettingsError(f"{what} has more than one line", remedy=remedy)
    try:
        password.encode()
    except UnicodeError:
        password = ""
    if not password:
        raise SettingsError(f"{what} holds a character that is none of UTF-8", remedy="take another one")
    return password


def _lines(document: dict[str, Any]) -> list[str]:
    settings = [f"{name.partition('.')[2]} = {json.dumps(path)}" for name, path in document["settings"].items()]
    return [
        f"address    {document['address']}",
        f"keystore   {document['keystore']}",
        "",
        "[wallet]",
        *settings,
        "",
        *(f"to do: {step}" for step in document["to_do"]),
    ]
