"""How does a key that exists already get into a keystore of topup's?"""

from pathlib import Path

from topup.app import exposure
from topup.app.output import warn
from topup.commands.answer import Answer
from topup.commands.wallet_new import kept, typed
from topup.domain.errors import SettingsError
from topup.signers import keystore as keystores
from topup.signers.local import private_key
from topup.wire import files


def answer(
    key_file: Path | None,
    from_keystore: tuple[Path | None, Path | None],
    keystore: Path | None,
    password_file: Path | None,
) -> Answer:
    """Put a raw key, of a file or typed, or the key of another keystore into one of its own, and say its address."""
    other, other_password = from_keystore
    if key_file is not None and other is not None:
        raise SettingsError("--key-file and --from-keystore are two keys", remedy="give one of them")
    if other_password is not None and other is None:
        raise SettingsError("--from-password-file is given without --from-keystore", remedy="name both")
    if other is not None:
        return kept(lambda: _of_keystore(other, other_password), keystore, password_file)
    if key_file is not None and key_file.is_file():
        also = f"delete {key_file} once the keystore is backed up: whoever reads it has the key"
        return kept(lambda: _of_file(key_file), keystore, password_file, also)
    return kept(lambda: _of_file(key_file), keystore, password_file)


def _of_keystore(path: Path, password_file: Path | None) -> bytes:
    if password_file is None:
        password = typed(f"password of {path}", "--from-password-file")
    else:
        password = files.password(password_file, "--from-password-file")
    return bytes(keystores.opened(path, password, "--from-keystore").key)


def _of_file(path: Path | None) -> bytes:
    """Read a raw key from a file, or have it typed."""
    if path is None:
        return private_key(typed("private key", "--key-file"), "what was typed").to_bytes()
    key = private_key(files.secret(path, "--key-file"), f"--key-file: what {path} holds").to_bytes()
    if path.is_file() and (wrong := exposure.key_file("--key-file", path).wrong):
        warn(f"topup: {path}: {wrong}; whoever has, owns the wallet: `topup wallet new` makes another")
    return key
