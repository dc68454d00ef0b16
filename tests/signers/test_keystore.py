"""Does a keystore open as other programs write it, and say what it is where it does not?"""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.tools import environ
from topup.app import keys
from topup.app.settings import load
from topup.domain.errors import FileAway, MemoryShort, SettingsError
from topup.signers import keystore
from topup.signers.keystore import opened
from topup.wire import files

KEY = bytes.fromhex("22" * 32)
ADDRESS = Account.from_key(KEY).address
OTHER = "0x" + "33" * 20
PASSWORD = "correct horse"


def written(password: str = PASSWORD, kdf: Literal["pbkdf2", "scrypt"] = "pbkdf2") -> dict[str, Any]:
    """A keystore of version 3, quick to open."""
    made = create_keyfile_json(KEY, password.encode(), version=3, kdf=kdf, iterations=2)
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


LIGHT = written()
SCRYPT = written(kdf="scrypt")


def stored(folder: Path, document: object, password: bytes = PASSWORD.encode() + b"\n") -> tuple[Path, Path]:
    """Files of a keystore and its password."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "key.json").write_bytes(raw)
    (folder / "password").write_bytes(password)
    return folder / "key.json", folder / "password"


def address(paths: tuple[Path, Path]) -> str:
    """Open them as a command does; return the wallet."""
    return opened(paths[0], files.password(paths[1], "the password"), "wallet.keystore").address


LINE = b"correct horse\n"
# What is in the file of the keystore, and in that of its password.
OPENS: list[tuple[object, bytes]] = [
    *((LIGHT, text) for text in (LINE, b"correct horse", b"correct horse\r\n", b"correct horse \n\n")),
    *((LIGHT, text) for text in (b"\xef\xbb\xbfcorrect horse\n", PASSWORD.encode("utf-16"))),
    *((raw, LINE) for raw in (b"\xef\xbb\xbf" + json.dumps(LIGHT).encode(), json.dumps(LIGHT).encode("utf-16"))),
    *((LIGHT | {"address": address}, LINE) for address in (ADDRESS, ADDRESS[2:].upper())),
    ({k: v for k, v in LIGHT.items() if k != "address"}, LINE),
    ({("Crypto" if k == "crypto" else k): v for k, v in LIGHT.items()}, LINE),
    (LIGHT | {"version": "3"}, LINE),
    (LIGHT | {"crypto": LIGHT["crypto"] | {"mac": "0x" + LIGHT["crypto"]["mac"]}}, LINE),
    (written(password=" blanks around "), b" blanks around \n"),
    (written(password="p\u00e4ssw\u00f6rt"), "pa\u0308sswo\u0308rt\n".encode()),
    (written(password="pa\u0308sswo\u0308rt"), "p\u00e4ssw\u00f6rt\n".encode()),
    (written(password=""), b"\n"),
    (SCRYPT, LINE),
]


@pytest.mark.parametrize(("document", "password"), OPENS)
def test_it_opens_as_it_is_meant(document: object, password: bytes, tmp_path: Path) -> None:
    """Marks of an encoding, foreign ends of lines, capitals, other spellings of one letter: none is another key."""
    assert address(stored(tmp_path, document, password)) == ADDRESS


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), st.sampled_from(["", "\n", "\r\n"]))
def test_every_password_opens_what_it_was_made_for(text: str, end: str) -> None:
    """Whatever characters it has, blanks at its ends included, a line end behind it or not."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        raw = (text + end).encode()
        assert address(stored(Path(folder), written(password=text), raw)) == ADDRESS


def deriving(document: dict[str, Any], **other: object) -> dict[str, Any]:
    """A keystore that says something else of how its key is found."""
    return document | {"crypto": document["crypto"] | other}


def counting(document: dict[str, Any], **other: object) -> dict[str, Any]:
    """A keystore whose key is derived in other counts."""
    return deriving(document, kdfparams=document["crypto"]["kdfparams"] | other)


VALIDATOR = json.loads(json.dumps(create_keyfile_json(KEY, b"x" * 8, version=4, kdf="pbkdf2", iterations=262144)))
NO_JSON, RAW_KEY = "is no keystore: it is no JSON object", "is no keystore: it looks like a raw private key"
WRONG = "what it says of its key is wrong"
RIGHT = PASSWORD.encode()
SPOILT: list[tuple[str, object, bytes, str]] = [
    ("wrong password", LIGHT, b"wrong\n", "does not open: wrong password"),
    ("empty password", LIGHT, b"\n", "does not open: its password file is empty"),
    ("a list", [], b"x", NO_JSON),
    ("cut off", json.dumps(LIGHT).encode()[:99], b"x", NO_JSON),
    ("nested", b"[" * 100_000, b"x", NO_JSON),
    ("typographic quotes", json.dumps(LIGHT).replace('"', "\u201c").encode(), b"x", NO_JSON),
    ("empty", {}, b"x", "is no keystore of version 3: its version is 'None', and `crypto` is missing"),
    ("version 9", LIGHT | {"version": 9}, b"x", "is no keystore of version 3: its version is '9'"),
    ("a raw key", KEY.hex().encode(), b"x", RAW_KEY),
    ("a raw key in capitals", b"0X" + KEY.hex().upper().encode(), b"x", RAW_KEY),
    ("a validator's", VALIDATOR, b"xxxxxxxx", "is a validator's keystore (EIP-2335)"),
    ("another's", LIGHT | {"address": OTHER}, RIGHT, f"says that it holds the key of {OTHER}"),
    ("the name of a name", LIGHT | {"address": "somebody.eth"}, RIGHT, "'somebody.eth', which is no address"),
    ("an escape", LIGHT | {"address": "\x1b[2J"}, RIGHT, "'\\x1b[2j', which is no address"),
    ("two addresses", json.dumps(LIGHT)[:-1].encode() + b',"address":"33"}', b"x", "gives 'address' twice"),
    ("two cryptos", json.dumps(LIGHT)[:-1].encode() + b',"Crypto":{}}', b"x", "gives 'Crypto' twice"),
    ("no kdf", LIGHT | {"crypto": {}}, b"x", "derives its key by 'None'"),
    ("another kdf", deriving(LIGHT, kdf="argon2id"), b"x", "derives its key by 'argon2id': only scrypt and pbkdf2"),
    ("another prf", counting(LIGHT, prf="hmac-sha512"), b"x", "by pbkdf2 with 'hmac-sha512': only hmac-sha256"),
    ("no mac", deriving(LIGHT, mac=None), RIGHT, WRONG),
    ("no hex", deriving(LIGHT, mac="zz"), b"x", WRONG),
    ("hours of scrypt", counting(SCRYPT, n=2**20, r=8, p=32), b"x", "its n × r × p is beyond 67108864"),
    ("hours of blocks", counting(SCRYPT, p=10**6), b"x", "its r × p is beyond 4096"),
    ("all memory there is", counting(SCRYPT, n=2**30), b"x", "its n × r × p is beyond 67108864"),
    ("hours of pbkdf2", counting(LIGHT, c=2**40), b"x", "its c is beyond 33554432"),
    ("a long key", counting(SCRYPT, dklen=2**40), b"x", "its key, `dklen`, has more than 1024 bytes"),
    ("a negative count", counting(SCRYPT, n=-4), RIGHT, f"{WRONG} (ValueError)"),
    ("a count in words", counting(SCRYPT, n="4096"), RIGHT, WRONG),
]


@pytest.mark.parametrize(("document", "password", "says"), [one[1:] for one in SPOILT], ids=[one[0] for one in SPOILT])
def test_what_does_not_open_says_why(document: object, password: bytes, says: str, tmp_path: Path) -> None:
    """A sentence of its own for each way, naming setting and file, and nothing of key or password; exit 2."""
    with pytest.raises(SettingsError) as refused:
        address(stored(tmp_path, document, password))
    told = str(refused.value)
    assert told.startswith(f"wallet.keystore: {tmp_path / 'key.json'} ")
    assert says in told
    assert refused.value.remedy
    assert refused.value.exit_code == 2
    for hidden in (KEY.hex(), PASSWORD, str(int.from_bytes(KEY, "big"))):
        assert hidden not in told + refused.value.remedy
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_too_little_memory_is_a_matter_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where scrypt cannot have its memory the sentence says how much that is, and the exit code is tried again."""
    heavy = counting(SCRYPT, n=2**18)

    def starving(failure: Exception) -> Callable[..., bytes]:
        def starved(*_: object) -> bytes:
            raise failure

        return starved

    monkeypatch.setattr(keystore, "_affords", lambda size: size < 2**28)
    for failure in (MemoryError(), ValueError("a library's own words")):
        monkeypatch.setattr(Account, "decrypt", starving(failure))
        with pytest.raises(MemoryShort, match="takes 256 MiB of memory") as short:
            address(stored(tmp_path, heavy))
        assert (short.value.exit_code, short.value.again) == (4, True)


def test_a_file_that_is_not_there_says_both_causes(tmp_path: Path) -> None:
    """Mistyped or not mounted yet: nobody can tell, so that it is tried again."""
    with pytest.raises(FileAway, match="its name is mistyped, or it is not mounted yet") as away:
        opened(tmp_path / "none.json", "x", "wallet.keystore")
    assert away.value.exit_code == 4
    with pytest.raises(FileAway):
        opened(stored(tmp_path, LIGHT)[0] / "below" / "none.json", "x", "wallet.keystore")


# -- whose key it is ------------------------------------------------------------------------------------------


def settings(paths: tuple[Path, Path], **more: str) -> Any:
    """Live settings with this keystore."""
    named = {"wallet__keystore": str(paths[0]), "wallet__keystore_password_file": str(paths[1])}
    return load(environ(mode="live", api__key="sk-1", **named, **more))


USES: list[Callable[[Any], object]] = [keys.wallet, keys.signer, keys.payer]


@pytest.mark.parametrize("use", USES, ids=["wallet", "signer", "payer"])
@pytest.mark.parametrize("told", [True, False], ids=["the keystore tells it", "only opening tells it"])
def test_an_address_beside_another_key_is_refused(use: Callable[[Any], object], told: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """`wallet.address` of another key would have one command pay from one wallet and another look at the other."""
    document = LIGHT if told else {k: v for k, v in LIGHT.items() if k != "address"}
    paths = stored(tmp_path, document)
    with pytest.raises(SettingsError, match=r"wallet\.address is .*, and the key is that of") as refused:
        use(settings(paths, wallet__address=OTHER))
    assert refused.value.exit_code == 2
    use(settings(paths, wallet__address=ADDRESS))
    # The key of the file signs as the raw key does.
    signs = keys.signer(settings(paths))
    assert signs is not None
    assert signs._key() == PrivateKey(KEY)


def test_with_a_root_the_address_is_the_roots(tmp_path: Path) -> None:
    """The account that pays is the root; an address beside it is the same account, whatever the access key's is."""
    paths = stored(tmp_path, LIGHT)
    mine = {"rails__use": "mpp", "rails__mpp__root": OTHER}
    with pytest.raises(SettingsError, match=r"wallet\.address .* is not rails\.mpp\.root"):
        settings(paths, **mine, wallet__address=ADDRESS)
    both = settings(paths, **mine, wallet__address=OTHER)
    assert keys.payer(both) == bytes.fromhex(OTHER[2:])
    assert keys.access_key(both) == bytes.fromhex(ADDRESS[2:])
    assert Decimal(both.policy.floor) == 10
