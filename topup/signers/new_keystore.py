"""How is a key written into a new keystore, so that a crash leaves the whole file under its name, or nothing?

The file is written beside its name as `wire/new_files.py` says, opened with its password, and only then linked to its
name. Of what a crash leaves there the address has been told to nobody.
"""

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path
from typing import Final

from eth_account import Account

from topup.domain.errors import FileAway, SettingsError, SignerError
from topup.signers import keystore
from topup.signers.local import private_key
from topup.wire import files, new_files

# geth's standard cost, with which eth_keyfile writes 8 for `r` and 1 for `p`; nothing weaker is offered.
SCRYPT_N: Final = 2**18
SCRYPT_R: Final = 8
# How a file system says that it has no links.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def fresh() -> bytes:
    """Return a new key, from the system's own randomness."""
    while True:
        key = secrets.token_bytes(32)
        # One in 2¹²⁸ is no number of the curve.
        with contextlib.suppress(SettingsError):
            return private_key(key.hex(), "a new key").to_bytes()


def must_be_free(path: Path, named: str) -> None:
    """Refuse a name that is taken, were it by a link to nowhere; `named` is the setting or option that gave it."""
    if os.path.lexists(path):
        raise SettingsError(
            f"{named}: {path} exists, and a keystore is never written over another file",
            remedy="name another file with --keystore, or move that one away: there may be money in its wallet",
        )


def write(path: Path, key: bytes, password: str, named: str) -> str:
    """Seal a key into a new file of mode 0600; return the address that the file was found to open to.

    Raises:
        SettingsError: something is there already, or this user cannot write there.
        FileAway: it cannot be written now.
        MemoryShort: there is too little memory to derive what it is sealed with.
    """
    must_be_free(path, named)
    keystore.must_afford(SCRYPT_N * SCRYPT_R, f"{named}: sealing {path}")
    sealed = json.dumps(Account.encrypt(key, password, kdf="scrypt", iterations=SCRYPT_N)) + "\n"
    there = False
    try:
        new_files.make_directory(path.parent)
        with new_files.beside(path, sealed.encode()) as unfinished:
            opened = keystore.opened(unfinished, password, named)
            if bytes(opened.key) != key:
                raise SignerError(f"{unfinished} holds another key than was written", remedy="see what the disk says")
            os.link(unfinished, path)
            there = True
            new_files.sync(path.parent)
    except OSError as error:
        number = error.errno or 0
    else:
        return str(opened.address)
    if number == errno.EEXIST:
        must_be_free(path, named)
    why = errno.errorcode.get(number, "unknown")
    if there:
        raise FileAway(
            f"{named}: {path} is written, and its directory may not keep it through a power failure ({why})",
            remedy="see what its file system says, make a copy, and only then send money there: `topup wallet address`",
        )
    if number in NO_LINKS:
        raise SettingsError(
            f"{named}: {path} cannot be written ({why}): its file system has no hard links, or does not permit this",
            remedy="name a file on another file system with --keystore, and copy it from there",
        )
    kind = SettingsError if number in files.WRONG | {errno.EROFS, errno.ENOTDIR, errno.EEXIST} else FileAway
    raise kind(
        f"{named}: {path} cannot be written by user {os.getuid()} ({why})",
        remedy="name another file with --keystore, or see what its file system says",
    )
