"""What does a keystore hold? Its key, or which of the ways it is that it does not open."""

import re
import sys
import unicodedata
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from topup.domain.errors import MemoryShort, SettingsError
from topup.domain.json_document import Twice, Unreadable, read
from topup.wire import files

# py_ecc, which eth_account loads, lets Python recurse 100,000 deep; on CPython 3.11 a JSON answer nested as deep as
# that overflows the C stack and ends the process. 60,000 levels still fit into 8 MiB; this leaves room.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 10_240))

# A keystore has one or two thousand characters.
LENGTH_MAX: Final = 16_384
# geth's standard is 262,144 × 8 × 1, and as many rounds of pbkdf2; a hundred times that is still seconds.
SCRYPT_MAX: Final = 2**26
PBKDF2_MAX: Final = 2**25
BLOCKS_MAX: Final = 2**12
KEY_BYTES_MAX: Final = 1024
MISMATCH: Final = "MAC mismatch"
NO_KEYSTORE: Final = "name the keystore v3 that geth, MetaMask's export or `eth_account` has written"


def account(key: bytes) -> LocalAccount:
    """Return what signs by a key of 32 bytes."""
    made: LocalAccount = Account.from_key(key)
    return made


def opened(path: Path, password: str, named: str) -> LocalAccount:
    """Open a keystore v3 file, which the setting or option `named` names.

    Raises:
        FileAway: there is no such file.
        SettingsError: it is no keystore, or another password's, or says that its key is another than it holds.
        MemoryShort: its key cannot be derived in the memory there is.
    """
    document = _document(path, named)
    opened_account = account(_key(document, password, path, named))
    stated = str(document.get("address") or "").strip().lower().removeprefix("0x")
    own = opened_account.address[2:].lower()
    if stated and stated != own:
        whose = f"0x{stated}" if re.fullmatch("[0-9a-f]{40}", stated) else f"{stated[:60]!a}, which is no address"
        raise SettingsError(
            f"{named}: {path} says that it holds the key of {whose}, and holds that of 0x{own}",
            remedy=f"name the right file in {named}; somebody has changed this one",
        )
    return opened_account


def _document(path: Path, named: str) -> dict[str, Any]:
    text = files.text(path, named)
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{64}", text.strip()):
        raise SettingsError(
            f"{named}: {path} is no keystore: it looks like a raw private key",
            remedy="make a keystore of it by `topup wallet import`, or name it in wallet.private_key_file",
        )
    document, wrong = None, ""
    try:
        document = _lowered(read(text.encode("utf-8", "surrogatepass"))) if len(text) <= LENGTH_MAX else None
    except Twice as error:
        wrong = f"gives {error.name[:40]!a} twice: two programs may read two keystores in it"
    except Unreadable:
        pass
    wrong = wrong or _strange(document)
    if not isinstance(document, dict) or wrong:
        raise SettingsError(f"{named}: {path} {wrong}", remedy=NO_KEYSTORE)
    return document | {"version": 3}


def _strange(document: Any) -> str:
    """Say why a document is no keystore of version 3 that can be opened; "" where it is one."""
    if not isinstance(document, dict):
        return "is no keystore: it is no JSON object"
    version, crypto = str(document.get("version")), document.get("crypto")
    if version == "4" or (isinstance(crypto, dict) and "checksum" in crypto):
        return "is a validator's keystore (EIP-2335): its key signs blocks and owns no wallet"
    if not isinstance(crypto, dict):
        return f"is no keystore of version 3: its version is {version[:20]!a}, and `crypto` is missing"
    return _too_much(crypto) if version == "3" else f"is no keystore of version 3: its version is {version[:20]!a}"


def _too_much(crypto: dict[str, Any]) -> str:
    """Say what keeps a key from being derived at all, or within minutes; "" where nothing does."""
    kdf, params = crypto.get("kdf"), crypto.get("kdfparams")
    if kdf not in ("scrypt", "pbkdf2"):
        return f"derives its key by {str(kdf)[:20]!a}: only scrypt and pbkdf2 are known"
    names, most = (("n", "r", "p"), SCRYPT_MAX) if kdf == "scrypt" else (("c",), PBKDF2_MAX)
    params = params if isinstance(params, dict) else {}
    if kdf == "pbkdf2" and (prf := params.get("prf", "hmac-sha256")) != "hmac-sha256":
        return f"derives its key by pbkdf2 with {str(prf)[:20]!a}: only hmac-sha256 is known"
    counts = {name: params[name] for name in (*names, "dklen") if type(params.get(name)) is int and params[name] > 0}
    if counts.pop("dklen", 0) > KEY_BYTES_MAX:
        return f"is no keystore that anybody uses: its key, `dklen`, has more than {KEY_BYTES_MAX} bytes"
    # However small `n` is, each of r × p blocks is made and mixed.
    for some, bound in ((names, most), (tuple(name for name in names if name in "rp"), BLOCKS_MAX)):
        if prod(counts.get(name, 1) for name in some) > bound:
            what = " × ".join(some)
            return f"is no keystore that anybody uses: its {what} is beyond {bound}, which would take hours"
    return ""  # a count that is wrong or missing is left to whoever derives the key


def _lowered(value: Any) -> Any:
    """Return JSON with all its names in small letters, as some programs write `Crypto`; none may have two spellings."""
    if not isinstance(value, dict):
        return value
    lowered: dict[str, Any] = {}
    for name, inner in value.items():
        if name.lower() in lowered:
            raise Twice(name)
        lowered[name.lower()] = _lowered(inner)
    return lowered


def _key(document: dict[str, Any], password: str, path: Path, named: str) -> bytes:
    # Only the kind of a failure is told: the message of a decryption library is not ours to vouch for.
    kind = ""
    for spelling in _spellings(password):
        try:
            return bytes(Account.decrypt(document, spelling))
        except MemoryError:
            kind = "MemoryError"
        except Exception as error:  # noqa: BLE001 - whatever a library raises about a file that is wrong inside
            kind = "" if str(error) == MISMATCH else type(error).__name__
        if kind:
            break
    need = _need(document)
    if kind and (kind == "MemoryError" or not _affords(need)):
        smaller = "give the process more memory, or make a keystore with a smaller `n` of scrypt"
        raise _short(need, f"{named}: opening {path}", smaller)
    if kind:
        raise SettingsError(
            f"{named}: {path} is no keystore that can be opened: what it says of its key is wrong ({kind})",
            remedy=NO_KEYSTORE,
        )
    empty = "its password file is empty" if not password else "wrong password"
    raise SettingsError(f"{named}: {path} does not open: {empty}", remedy=f"correct the password beside {named}")


def must_afford(cost: int, what: str) -> None:
    """Refuse by MemoryShort what scrypt would do at this cost, its `n` × `r`, where there is too little memory."""
    if not _affords(128 * cost):
        raise _short(128 * cost, what, "give the process more memory")


def _short(need: int, what: str, remedy: str) -> MemoryShort:
    return MemoryShort(f"{what} takes {max(1, need >> 20)} MiB of memory, and there is less", remedy=remedy)


def _spellings(password: str) -> Iterator[str]:
    """Yield a password as it is written, then as it may be meant: without blanks, its accents otherwise."""
    written = [password, password.strip()]
    forms = [unicodedata.normalize(form, text) for text in written for form in ("NFC", "NFD")]
    yield from dict.fromkeys([*written, *forms])


def _need(document: dict[str, Any]) -> int:
    """Return how many bytes scrypt takes for this keystore, 0 where that cannot be told or nothing to speak of."""
    crypto = document["crypto"]
    params = crypto.get("kdfparams")
    n, r = (params.get("n"), params.get("r")) if isinstance(params, dict) and crypto.get("kdf") == "scrypt" else (0, 0)
    return 128 * n * r if type(n) is int and type(r) is int and n > 0 and r > 0 else 0


def _affords(size: int) -> bool:
    try:
        bytearray(size)
    except MemoryError:
        return False
    return True
