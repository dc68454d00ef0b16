"""Who else can read what must stay secret? The settings' file where a key stands in it, and the files they name."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topup.app.settings import CREDENTIALS, Settings, file_of, read_file, value_of
from topup.domain.errors import SettingsError
from topup.wire import files

# What opens the account or the wallet by itself.
SECRETS = (("api", "key"), ("wallet", "private_key"))


@dataclass(frozen=True)
class Found:
    """What was found of one file; `wrong` "" where nobody else has access, `passable` where nothing can be done."""

    name: str
    path: Path
    mode: int
    wrong: str = ""
    passable: bool = False

    @property
    def says(self) -> str:
        """Return it as a sentence."""
        mode = f"{self.path} has mode {self.mode:03o}{f': {self.wrong}' if self.wrong else ''}"
        return f"warning: {mode}" if self.wrong and self.passable else mode


def key_file(name: str, path: Path) -> Found:
    """Look at a file that holds a secret and nothing else; raises OSError where it cannot be looked at."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return Found(name, path, mode, files.shared(path), files.read_only(path))


def key_files(settings: Settings) -> dict[str, Path]:
    """Return the files of secrets that the settings name, by setting."""
    named = {name: value_of(settings, name) for name in ("wallet.keystore", *CREDENTIALS)}
    return {name: path for name, path in named.items() if path is not None}


def settings_file(environ: Mapping[str, str]) -> Found | None:
    """Look at the settings' file; None where there is none, or nothing in it that others must not read or change."""
    path = file_of(environ)
    if path is None or not path.is_file():
        return None
    mode, document = stat.S_IMODE(path.stat().st_mode), read_file(environ)
    wrong = ""
    if mode & files.OTHERS and _holds_key(document):
        wrong = "a key stands in it, and every user can read it"
    elif mode & 0o002:
        wrong = "every user can write it, and so say who is paid"
    elif mode & files.OTHERS and _holds_url(document):
        return Found("settings file", path, mode, "a provider's key may stand in it, and every user can read it", True)
    return Found("settings file", path, mode, wrong, files.read_only(path))


def _holds_key(document: Mapping[str, Any]) -> bool:
    return any(isinstance(part := document.get(table), dict) and part.get(name) for table, name in SECRETS)


def _holds_url(document: Any) -> bool:
    """Tell whether a URL with a path, a query or a user stands anywhere in it, as those of providers with a key do."""
    if isinstance(document, dict):
        return any(_holds_url(value) for name, value in document.items() if name != "api")
    if isinstance(document, list):
        return any(_holds_url(value) for value in document)
    if not isinstance(document, str) or "://" not in document:
        return False
    try:
        parts = urlsplit(document)
    except ValueError:
        return False
    return bool(parts.path.strip("/") or parts.query or parts.username)


def close(environ: Mapping[str, str]) -> str:
    """Close the settings' file to others where a key stands in it, and say so; a SettingsError where it is not ours."""
    file = settings_file(environ)
    if file is None or not file.wrong or file.passable or not _holds_key(read_file(environ)):
        return ""
    try:
        file.path.chmod(file.mode & ~0o027)
    except OSError:
        if files.enclosed(file.path):
            return ""
        raise SettingsError(
            f"{file.says}, and this user may not close it",
            remedy=f"chmod o= {file.path}, as its owner; or keep the key in a file of its own",
        ) from None
    return f"{file.says}; it was closed to others"
