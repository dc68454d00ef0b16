"""Does a person get a wallet by `topup wallet new | import | address`, and does no key or password go astray?"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from typer.testing import Result

from tests.tools import kept, outside
from tests.world.served import TOPUP, asked
from tests.world.terminal import Terminal
from topup.app.settings import load
from topup.domain.errors import Exit
from topup.signers import new_keystore
from topup.wire import files

KEY = "0x" + "22" * 32
ADDRESS = Account.from_key(KEY).address
PASSWORD = "correct horse"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive in no time what takes a second on purpose."""
    monkeypatch.setattr(new_keystore, "SCRYPT_N", 2)


@pytest.fixture
def password(tmp_path: Path) -> Path:
    return kept(tmp_path / "password", PASSWORD + "\n")


def types(folder: Path, *arguments: object, **settings: str) -> Result:
    """Type a wallet command off a terminal, with a configuration below this folder."""
    own = {"TOPUP_CONFIG": "", "XDG_CONFIG_HOME": str(folder / "config")} | settings
    return asked(folder / "state", "wallet", *map(str, arguments), **own)


def refused(folder: Path, *arguments: object, says: list[str], **settings: str) -> Result:
    """Type what is a usage error that says this, and leaves no keystore where one was named."""
    done = types(folder, *arguments, **settings)
    assert done.exit_code == Exit.USAGE
    assert [words for words in says if words not in done.stderr] == []
    assert not (folder / "w.json").exists()
    return done


def document(done: Result) -> Any:
    assert done.exit_code == Exit.OK, done.stderr
    return json.loads(done.stdout)


# -- new ----------------------------------------------------------------------------------------------------------


def test_a_new_wallet_lies_beside_the_settings_and_they_take_it_as_it_says(
    cheap: None, password: Path, tmp_path: Path
) -> None:
    """The lines that it prints, put into the settings' file, are a wallet whose address is the one it told."""
    done = types(tmp_path, "new", "--password-file", password)
    assert done.exit_code == Exit.OK, done.stderr
    file = tmp_path / "config" / "topup" / "wallet.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    address = re.search("address +(0x[0-9a-fA-F]{40})", done.stdout)
    assert address is not None
    lines = done.stdout.splitlines()
    start = lines.index("[wallet]")
    settings = kept(file.with_name("topup.toml"), "\n".join(lines[start : lines.index("", start)]))
    read = load({"TOPUP_CONFIG": str(settings), "TOPUP_STATE_DIR": str(tmp_path / "state")})
    assert (read.wallet.keystore, read.wallet.keystore_password_file) == (file, password)
    assert types(tmp_path, "address").stdout == address[1] + "\n"
    for told in ("back up", "TOPUP_WALLET__KEYSTORE and TOPUP_WALLET__KEYSTORE_PASSWORD_FILE", "fund it"):
        assert told in done.stdout
    key = bytes(Account.decrypt(json.loads(file.read_text(encoding="utf-8")), PASSWORD))
    assert key.hex() not in done.output + done.stderr


def test_where_it_lies_is_what_the_settings_say(cheap: None, password: Path, tmp_path: Path) -> None:
    """`wallet.keystore`, with its password's file; where no file of settings can be, the ledger's directory."""
    named = {"TOPUP_WALLET__KEYSTORE": str(tmp_path / "here.json")}
    named |= {"TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(password)}
    told = document(types(tmp_path, "new", "--json", **named))
    assert told["keystore"] == named["TOPUP_WALLET__KEYSTORE"]
    assert told["settings"]["wallet.keystore_password_file"] == str(password)
    assert document(types(tmp_path, "address", "--json", **named)) == {"schema": 1, "address": told["address"]}
    told = document(types(tmp_path, "new", "--json", "--password-file", password, TOPUP_CONFIG=os.devnull))
    assert told["keystore"] == str(tmp_path / "state" / "wallet.json")


def test_with_both_files_named_no_settings_are_needed(cheap: None, password: Path, tmp_path: Path) -> None:
    """Whoever writes `mode = live` first, and the wallet's lines last, is not turned away for want of a key."""
    wanting = {"TOPUP_MODE": "live"}
    refused(tmp_path, "new", "--password-file", password, says=["needs a key"], **wanting)
    given = ("--keystore", tmp_path / "w.json", "--password-file", password)
    told = document(types(tmp_path, "new", *given, "--json", **wanting))
    assert told["keystore"] == str(tmp_path / "w.json")


def test_a_keystore_that_exists_is_left_alone(cheap: None, password: Path, tmp_path: Path) -> None:
    """Typed twice, the second one is refused with what to do, and the first wallet is still there."""
    given = ("new", "--keystore", tmp_path / "w.json", "--password-file", password)
    first = document(types(tmp_path, *given, "--json"))
    before = (tmp_path / "w.json").read_bytes()
    again = types(tmp_path, *given)
    assert again.exit_code == Exit.USAGE
    assert "--keystore:" in again.stderr and "exists" in again.stderr
    assert "to do: name another file" in again.stderr
    assert (tmp_path / "w.json").read_bytes() == before
    assert types(tmp_path, "address", "--keystore", tmp_path / "w.json").stdout.strip() == first["address"]


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "is too short"),
    "seven": ("1234567\n", "is too short"),
    "blanks": ("         \n", "is too short"),
    "two lines": ("correct horse\nbattery staple\n", "has more than one line"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_password_that_would_not_hold_is_refused(name: str, tmp_path: Path) -> None:
    """Empty, short, blank, or of two lines, of which geth would read one; eight characters are the least, it says."""
    text, says = BAD[name]
    given = ("new", "--keystore", tmp_path / "w.json", "--password-file", kept(tmp_path / "p", text))
    done = refused(tmp_path, *given, says=[says])
    assert ("take 8 characters or more" in done.stderr) == ("short" in says)


def test_a_password_that_others_may_read_seals_nothing(
    cheap: None, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with the chmod; on a mount that nobody can change here it is a warning, as doctor has it."""
    open_to_all = kept(public / "p", PASSWORD, 0o644)
    given = ("new", "--keystore", public / "w.json", "--password-file", open_to_all)
    refused(public, *given, says=[f"{open_to_all} has mode 644: every user can read it", "chmod 600"])
    monkeypatch.setattr(files, "read_only", lambda path: path == open_to_all)
    done = types(public, *given)
    assert done.exit_code == Exit.OK
    assert "warning: " in done.stderr


def test_off_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    """A script that forgot the password's file is told so, at once."""
    for command, option in (("new", "--password-file"), ("import", "--key-file")):
        says = ["standard input is no terminal", f"give {option} FILE"]
        refused(tmp_path, command, "--keystore", tmp_path / "w.json", says=says)


def test_what_a_crash_has_left_is_named(cheap: None, password: Path, tmp_path: Path) -> None:
    """It is in nobody's way: the wallet is made beside it, and whoever reads the line can delete it."""
    left = kept(tmp_path / ".w.json.0123456789abcdef.unfinished", "{")
    done = types(tmp_path, "new", "--keystore", tmp_path / "w.json", "--password-file", password)
    assert done.exit_code == Exit.OK
    assert f"{left} was left by a command that did not end" in done.stderr
    assert left.exists()


# -- on a terminal --------------------------------------------------------------------------------------------------


def on_a_terminal(folder: Path, *arguments: object, types: list[tuple[str, str]]) -> tuple[int, str, str]:
    """Type a command on a terminal, and each answer when it is asked; return code, screen and output."""
    own = {"TOPUP_CONFIG": os.devnull, "TOPUP_STATE_DIR": str(folder / "state")}
    with (folder / "out").open("w") as out:
        screen = Terminal([*TOPUP, "wallet", *arguments], outside() | own, stdout=out)
    return screen.ends(*types), screen.shown, (folder / "out").read_text(encoding="utf-8")


def test_a_key_and_its_password_are_typed_unseen(tmp_path: Path) -> None:
    """The password twice, the document to the output alone; what comes of it costs what geth's costs, and opens."""
    asks = [("private key: ", KEY), ("of the new keystore: ", PASSWORD), ("of the new keystore, again: ", PASSWORD)]
    code, screen, out = on_a_terminal(tmp_path, "import", "--keystore", tmp_path / "w.json", "--json", types=asks)
    assert code == Exit.OK, screen
    assert PASSWORD not in screen + out
    assert KEY[2:] not in screen + out
    told = json.loads(out)
    assert told["address"] == ADDRESS
    assert told["settings"]["wallet.keystore_password_file"] == str(tmp_path / "w.password")
    assert any("write the password into a file of mode 0600" in step for step in told["to_do"])
    made = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    assert made["crypto"]["kdfparams"].items() >= {"n": 262144, "r": 8, "p": 1}.items()
    assert Account.decrypt(made, PASSWORD).hex() == KEY[2:]


def test_two_passwords_that_differ_seal_nothing(tmp_path: Path) -> None:
    """A slip of the finger would lock the wallet for ever."""
    asks = [("password of the new keystore: ", PASSWORD), ("password of the new keystore, again: ", PASSWORD + "!")]
    code, screen, _ = on_a_terminal(tmp_path, "new", "--keystore", tmp_path / "w.json", types=asks)
    assert code == Exit.USAGE
    assert "the two are not the same" in screen and PASSWORD not in screen
    assert not (tmp_path / "w.json").exists()


# -- import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [KEY, KEY + "\n", KEY[2:], KEY[2:].upper() + "\r\n", f"{1:064x}", f"{ORDER - 1:064x}"],
    ids=["0x", "a line", "bare", "capitals", "the smallest", "the largest"],
)
def test_a_raw_key_is_taken_from_a_file(text: str, cheap: None, password: Path, tmp_path: Path) -> None:
    """However it is written, up to one below the order of the curve; what remains to be done names the file."""
    raw, key = kept(tmp_path / "raw", text), int(text, 16).to_bytes(32, "big")
    given = ("import", "--key-file", raw, "--keystore", tmp_path / "w.json", "--password-file", password)
    told = document(types(tmp_path, *given, "--json"))
    assert told["address"] == Account.from_key(key).address
    assert any(f"delete {raw}" in step for step in told["to_do"])
    assert bytes(Account.decrypt(json.loads((tmp_path / "w.json").read_text(encoding="utf-8")), PASSWORD)) == key


NO_KEYS = {
    "nothing": "0x" + "0" * 64,
    "the order of the curve": hex(ORDER),
    "above it": "0x" + "f" * 64,
    "a digit short": KEY[:-1],
    "a digit long": KEY + "2",
    "words": "abandon " * 11 + "about",
    "a number": str(int(KEY, 16)),
    "an address": ADDRESS,
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_is_no_key_is_refused_unrepeated(name: str, password: Path, tmp_path: Path) -> None:
    """Zero, the curve's order, a digit more or less, words: the sentence names the file, and not what it holds."""
    raw = kept(tmp_path / "raw", NO_KEYS[name])
    given = ("import", "--key-file", raw, "--keystore", tmp_path / "w.json", "--password-file", password)
    done = refused(tmp_path, *given, says=["--key-file", "is no private key"])
    assert NO_KEYS[name][2:] not in done.output + done.stderr


def test_a_key_file_that_others_may_read_is_said(cheap: None, public: Path) -> None:
    """The key is taken, since it may be the only one there is, and whoever could read it is told of."""
    raw, own = kept(public / "raw", KEY, 0o644), kept(public / "p", PASSWORD)
    done = types(public, "import", "--key-file", raw, "--keystore", public / "w.json", "--password-file", own)
    assert done.exit_code == Exit.OK
    assert f"{raw}: every user can read it" in done.stderr


def test_another_keystores_key_is_taken_by_its_password(cheap: None, password: Path, tmp_path: Path) -> None:
    """geth's, or one of weaker cost: the new one has the same key, another password, and the cost of all new ones."""
    old = kept(
        tmp_path / "old", json.dumps(Account.encrypt(bytes.fromhex(KEY[2:]), "old one", kdf="pbkdf2", iterations=2))
    )
    own = kept(tmp_path / "old.password", "old one\n")
    given = ("--keystore", tmp_path / "w.json", "--password-file", password, "--json")
    told = document(types(tmp_path, "import", "--from-keystore", old, "--from-password-file", own, *given))
    assert told["address"] == ADDRESS
    made = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    assert made["crypto"]["kdf"] == "scrypt" and Account.decrypt(made, PASSWORD).hex() == KEY[2:]
    wrong = kept(tmp_path / "wrong", "another one\n")
    done = types(
        tmp_path, "import", "--from-keystore", old, "--from-password-file", wrong, "--keystore", tmp_path / "x"
    )
    assert done.exit_code == Exit.USAGE
    assert "--from-keystore" in done.stderr and "wrong password" in done.stderr


def test_nobody_types_a_key_for_a_file_that_is_taken(tmp_path: Path) -> None:
    """The name is looked at first."""
    taken = kept(tmp_path / "w.json", "mine")
    code, screen, _ = on_a_terminal(tmp_path, "import", "--keystore", taken, types=[])
    assert code == Exit.USAGE
    assert "exists" in screen and "private key: " not in screen


def test_two_keys_at_once_are_none(tmp_path: Path) -> None:
    """Options that contradict each other, or hang in the air, are usage errors."""
    for given in (("--key-file", "a", "--from-keystore", "b"), ("--from-password-file", "c")):
        refused(tmp_path, "import", *given, says=["to do: "])


# -- address --------------------------------------------------------------------------------------------------------


def test_an_address_is_told_without_a_password(tmp_path: Path) -> None:
    """From the keystore's own field, whatever its spelling; alone on the line, so that a script can use it."""
    for spelt in (ADDRESS, ADDRESS[2:].lower(), ADDRESS[2:].upper()):
        file = kept(tmp_path / "w.json", json.dumps({"address": spelt}))
        assert types(tmp_path, "address", "--keystore", file).stdout == ADDRESS + "\n"


def test_an_address_that_a_keystore_keeps_to_itself_takes_its_password(password: Path, tmp_path: Path) -> None:
    """Without the field it says what is needed; with a password in the settings it is opened."""
    silent = Account.encrypt(bytes.fromhex(KEY[2:]), PASSWORD, kdf="pbkdf2", iterations=2)
    del silent["address"]
    file = kept(tmp_path / "w.json", json.dumps(silent))
    done = types(tmp_path, "address", "--keystore", file)
    assert done.exit_code == Exit.USAGE
    assert "states no address" in done.stderr and "wallet.keystore_password_file" in done.stderr
    named = {"TOPUP_WALLET__KEYSTORE": str(file), "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(password)}
    assert types(tmp_path, "address", **named).stdout == ADDRESS + "\n"


def test_without_a_wallet_it_says_how_to_make_one(tmp_path: Path) -> None:
    """Nothing is on standard output, which a script would take for an address."""
    assert refused(tmp_path, "address", says=["`topup wallet new` makes one"]).stdout == ""
    assert types(tmp_path, "address", TOPUP_WALLET__ADDRESS=ADDRESS).stdout == ADDRESS + "\n"
