"""Does any secret reach a sink? Canaries in every place that holds one, and a whole life with what goes wrong in it."""

import base64
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from eth_account import Account

import tests.world.served
from tests.tools import kept
from tests.world import worlds
from tests.world.served import Served, served
from tests.world.stage import Silence
from topup.app import keys
from topup.app.connections import Connections
from topup.app.settings import load
from topup.commands import cli
from topup.domain.errors import TopupError
from topup.ledger.store import SqliteStore
from topup.sandbox.rpc import RpcError
from topup.sandbox.world import World

USER, PASSWORD, PATH, QUERY = "canaryuser7341", "canarypass9925", "canarypath5187", "canaryquery6630"
KEYSTORE_PASSWORD = "canary keystore password 4402"
WRONG_PASSWORD = "canary wrong password 8810"
STRANGE_KEY = "sk-or-v1-" + "ca9a27" * 10
RAW_KEY = "0x" + "ca" * 32


@dataclass
class Spill:
    """Everything that was written anywhere, by where; and what must not stand in it."""

    place: Served
    written: dict[str, bytes] = field(default_factory=dict)

    def run(self, *arguments: str, **changes: str | None) -> str:
        """Run a command and keep both outputs; return them together."""
        done = self.place.run(*arguments, **changes)
        self.keep(" ".join(arguments), (done.stdout + done.stderr).encode())
        return done.stdout + done.stderr

    def keep(self, name: str, text: bytes) -> None:
        """Keep what was written under a name of its own."""
        self.written[f"{len(self.written)}: {name}"] = text

    def secrets(self) -> dict[str, list[bytes]]:
        """Each secret in the forms in which it could be written."""
        key, api = self.place.world.key, self.place.world.gateway.management_key
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        return {
            "private key": [
                key.to_hex()[2:].encode(),
                key.to_hex()[2:].upper().encode(),
                key.to_bytes(),
                str(int(key.to_hex(), 16)).encode(),
                base64.b64encode(key.to_bytes()),
            ],
            "API key": [api.encode(), api[-32:].encode(), base64.b64encode(api.encode())],
            "keystore password": [KEYSTORE_PASSWORD.encode()],
            "wrong password": [WRONG_PASSWORD.encode()],
            "RPC user": [USER.encode(), basic],
            "RPC password": [PASSWORD.encode()],
            "RPC path": [PATH.encode()],
            "RPC query": [QUERY.encode()],
            "a malformed or misplaced key": [STRANGE_KEY[-20:].encode(), RAW_KEY[-20:].encode()],
        }

    def leaks(self) -> list[str]:
        return [
            f"{name} in {where}"
            for name, forms in self.secrets().items()
            for where, text in self.written.items()
            if any(form in text for form in forms)
        ]


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    """A world whose key lies in a keystore and whose provider wants a user, a password and a path."""
    with served(tmp_path) as place:
        password = kept(tmp_path / "password", KEYSTORE_PASSWORD + "\n")
        sealed = Account.encrypt(place.world.key.to_bytes(), KEYSTORE_PASSWORD, kdf="pbkdf2", iterations=2)
        keystore = kept(tmp_path / "keystore.json", json.dumps(sealed))
        file = kept(tmp_path / "topup.toml", f'[api]\nkey = "{place.world.gateway.management_key}"\n')
        place.settings = {
            "TOPUP_CONFIG": str(file),
            "TOPUP_WALLET__KEYSTORE": str(keystore),
            "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(password),
            "TOPUP_CHAIN__RPC_URLS": provider(place.world.rpc.url),
            "TOPUP_LOG__LEVEL": "debug",
        }
        made = place.world.environment()
        place.world.environment = lambda: {  # type: ignore[method-assign]
            name: value for name, value in made.items() if name not in ("TOPUP_WALLET__PRIVATE_KEY", "TOPUP_API__KEY")
        }
        place.cold = True  # what /proc says of a daemon has to be its own
        yield Spill(place)


def provider(url: str) -> str:
    """The same address with a user, a password and a path."""
    return url.replace("http://", f"http://{USER}:{PASSWORD}@") + f"/v2/{PATH}?key={QUERY}"


def rude(spill: Spill) -> Callable[[str, Any, Any], Any]:
    """A provider that once answers the payment with an error that repeats all it was given."""
    said: list[str] = []

    async def answer(method: str, params: Any, honest: Callable[[], Any]) -> Any:
        told = honest()
        if method == "eth_sendRawTransaction" and not said:
            said.append(f"rejected {params[0]} posted to {provider(spill.place.world.rpc.url)}")
            raise RpcError(-32000, said[0])
        return told

    return answer


def refill(spill: Spill) -> None:
    """A daemon buys beside a provider that repeats what it was given."""
    place = spill.place
    place.low()
    place.world.rpc.intercept = rude(spill)
    daemon = place.start("run")
    daemon.await_event("payment_sent")
    spill.keep("ledger, mid-life", ledger(place))
    daemon.await_event("top_up_done")
    assert daemon.stop(signal.SIGTERM) == 0
    spill.keep("run", daemon.err.read_bytes() + daemon.out.read_bytes())
    place.world.rpc.intercept = None


def ledger(place: Served) -> bytes:
    """Every byte below the state directory: the database, its write-ahead log, its index, the lock."""
    files = sorted(path for path in place.state.rglob("*") if path.is_file())
    assert any(path.name.endswith("-wal") or path.stat().st_size for path in files)
    return b"".join(path.read_bytes() for path in files)


# Commands that are given more than --json, and those that show nothing of this owner's settings.
GIVEN: dict[str, tuple[str, ...]] = {"once": ("--amount", "5", "--yes"), "resolve": ("--accept-reading",)}
NOTHING_OF_OURS = {"run", "sandbox"}  # the one has its own test, the other its own world, keys and settings


def test_no_secret_reaches_any_sink(spill: Spill) -> None:
    """A refill, every command, every format, every document: outputs, command line, and every byte of the ledger."""
    place = spill.place
    refill(spill)
    (topup,) = place.topups()
    for form in ("json", "console", "logfmt"):
        assert "cycle_done" in spill.run("once", "--yes", log__format=form)
    place.world.rpc.intercept = rude(spill)
    assert "top_up_done" in spill.run("once", "--amount", "10", "--yes", "--force", log__format="console")
    for words in ("check", "status", "history", "doctor", "config show", "pin", "once --dry-run"):
        assert spill.run(*words.split())
    for words in ("status --live", "config show", "wallet address", "wallet check"):
        assert spill.run(*words.split(), "--json")
    commands = {c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback is not None}
    for name in sorted(commands - NOTHING_OF_OURS):
        given = (topup.id,) if name == "show" else GIVEN.get(name, ())
        done = place.run(name, *given, "--json")
        assert json.loads(done.stdout), name
        spill.keep(name, (done.stdout + done.stderr).encode())
    spill.keep("ledger", ledger(place))
    assert spill.leaks() == []


@pytest.mark.parametrize("command", [("run",), ("once", "--amount", "10", "--yes")], ids=lambda c: c[0])
@pytest.mark.parametrize("where", ["topup.sellers.coinbase:Coinbase.prove", "topup.payment.monitor:Monitor.read"])
def test_a_defect_tells_its_kind_and_not_its_text(where: str, command: tuple[str, ...], spill: Spill) -> None:
    """An error nobody foresaw may quote anything: a URL, a header, a key. Exit 1, and none of it in the output."""
    place = spill.place
    place.low()
    secret = " ".join(form.decode() for form in spill.secrets()["private key"][:2])
    says = f"{provider(place.world.rpc.url)} {place.world.gateway.management_key} {KEYSTORE_PASSWORD} {secret}"
    place.settings["TEST_DEFECT_SAYS"] = says
    broken = [sys.executable, "-m", "tests.world.writer_under_test", "fail", "before", where]
    with mock.patch.object(tests.world.served, "TOPUP", broken):
        done = place.run(*command)
    assert done.returncode == 1, done.stderr
    assert "RuntimeError" in done.stderr
    spill.keep(" ".join(command), (done.stdout + done.stderr).encode())
    spill.keep("ledger", ledger(place))
    assert spill.leaks() == []


def test_signed_bytes_are_in_the_ledger_and_in_no_log(spill: Spill) -> None:
    """Not even where a provider refuses them and repeats them in its answer."""
    place = spill.place
    refill(spill)
    (attempt,) = place.topups()[0].attempts
    assert attempt.raw is not None
    # A piece of any length that could be put together again gives the bytes away; the signature is at their end.
    pieces = [attempt.raw.hex()[:40].encode(), attempt.raw.hex()[-40:].encode(), base64.b64encode(attempt.raw)[:40]]
    told = {where: text for where, text in spill.written.items() if "ledger" not in where}
    assert [where for where, text in told.items() if any(piece in text for piece in pieces)] == []
    # What the search would have found: the bytes in the ledger, the wallet's address in what was told.
    assert any(attempt.raw in text for where, text in spill.written.items() if "ledger" in where)
    assert any(place.world.wallet.lower().encode() in text.lower() for text in told.values())


def test_no_secret_is_told_when_the_other_side_misbehaves(spill: Spill) -> None:
    """A dead provider, another path's refusal, 401, a redirect, a web page: each is named by host and reason alone."""
    place = spill.place
    place.low()
    dead = provider("http://127.0.0.1:9")
    spill.run("resume")
    for words in ("check", "doctor", "status --live", "wallet check"):
        assert "127.0.0.1" in spill.run(*words.split(), chain__rpc_urls=dead)
    daemon = place.start("run", chain__rpc_urls=dead)
    daemon.await_event("cycle_done", state="charged")
    daemon.stop()
    spill.keep("run with a dead provider", daemon.err.read_bytes() + daemon.out.read_bytes())
    for fault in ("unauthorized-401", "forbidden-403", "redirect-302", "html-200", "reset"):
        place.spoil("credits", fault)
        place.spoil("key", fault)
        spill.run("check")
        place.mend()
    assert place.world.gateway.elsewhere.requests == []
    spill.run("check", TOPUP_CONFIG="/dev/null", api__key=STRANGE_KEY)
    spill.keep("ledger", ledger(place))
    assert spill.leaks() == []


MALFORMED: dict[str, dict[str, str | None]] = {
    "raw key with a letter too many": {"wallet__keystore": None, "wallet__private_key": RAW_KEY + "c"},
    "raw key that is no number of the curve": {"wallet__keystore": None, "wallet__private_key": "0x" + "f" * 64},
    "two keys": {"wallet__private_key": RAW_KEY},
    "API key with a blank": {"TOPUP_CONFIG": "/dev/null", "api__key": f"Bearer {STRANGE_KEY}"},
    "API key as a table": {"TOPUP_CONFIG": "/dev/null", "api__key": f'{{"key": "{STRANGE_KEY}"}}'},
    "API as a value": {"TOPUP_API": STRANGE_KEY},
    "misspelt name": {"TOPUP_WALLET_PRIVATE_KEY": RAW_KEY},
    "key in place of the address": {"wallet__address": RAW_KEY},
    "provider without a scheme": {"chain__rpc_urls": f"{USER}:{PASSWORD}@127.0.0.1/{PATH}"},
    "provider over plain http": {"chain__rpc_urls": f"http://{USER}:{PASSWORD}@provider.example/{PATH}"},
    "provider twice": {"chain__rpc_urls": f"https://a.example/{PATH},https://a.example/{PATH}"},
    "API address with a user": {"api__url": f"https://{USER}:{PASSWORD}@api.example/{PATH}"},
}


# The same in a file: what stands in it, and which setting names it.
NO_PASSWORD: dict[str, str | None] = {"wallet__keystore": None, "wallet__keystore_password_file": None}
IN_FILES: dict[str, tuple[str, str, dict[str, str | None]]] = {
    "wrong password": (WRONG_PASSWORD, "wallet__keystore_password_file", {}),
    "no keystore": (RAW_KEY, "wallet__keystore", {}),
    "key file that holds something else": (RAW_KEY + "c", "wallet__private_key_file", NO_PASSWORD),
    "file that is no TOML": (f'[api]\nkey = "{STRANGE_KEY}\nurl = ', "TOPUP_CONFIG", {}),
    "file with an unknown name": (f'[api]\nkye = "{STRANGE_KEY}"\n', "TOPUP_CONFIG", {}),
    "file with a value for a table": (f'api = "{STRANGE_KEY}"\n', "TOPUP_CONFIG", {}),
}


@pytest.mark.parametrize("name", [*MALFORMED, *IN_FILES])
def test_a_malformed_secret_is_refused_without_being_repeated(name: str, spill: Spill, tmp_path: Path) -> None:
    """The error names the setting or the file; neither its text, nor its traceback, nor its causes hold the value."""
    changes = dict(MALFORMED.get(name, {}))
    if changes.get("wallet__keystore", "") is None:
        changes |= NO_PASSWORD
    if name in IN_FILES:
        text, setting, others = IN_FILES[name]
        (tmp_path / "strange.toml").write_text(text, encoding="utf-8")
        changes = {**others, setting: str(tmp_path / "strange.toml")}
    settings = spill.place.environment(**changes)
    with pytest.raises(TopupError) as caught:
        start(settings)
    error = caught.value
    spill.keep("text", f"{error} {error!r} {error.remedy}".encode())
    spill.keep("traceback", "".join(traceback.format_exception(error)).encode())
    assert spill.leaks() == []
    assert error.remedy


def start(environment: dict[str, str]) -> None:
    """Open what a start opens, and spill nothing if it does not fail."""
    settings = load(environment)
    keys.signer(settings)
    _ = Connections(settings).api
    raise AssertionError("it started")


def test_a_refused_start_tells_no_secret(spill: Spill, tmp_path: Path) -> None:
    """The same through the program: `run`, `doctor` and `config show` with a wrong password and with a bad file."""
    wrong, bad = tmp_path / "wrong", tmp_path / "bad.toml"
    wrong.write_text(WRONG_PASSWORD, encoding="utf-8")
    bad.write_text(f'[api]\nkye = "{STRANGE_KEY}"\n', encoding="utf-8")
    for words in ("run", "once", "doctor", "config show"):
        spill.run(*words.split(), wallet__keystore_password_file=str(wrong))
        assert "did you mean" in spill.run(*words.split(), TOPUP_CONFIG=str(bad))
    spill.keep("ledger", ledger(spill.place))
    assert spill.leaks() == []


def test_objects_that_hold_a_secret_do_not_show_it(spill: Spill, tmp_path: Path) -> None:
    """Settings, signer, client and the assembled whole can stand in a debugger's or a crash reporter's output."""
    settings = load(spill.place.environment())
    signer = keys.signer(settings)
    store = SqliteStore.open_writer(tmp_path / "ledger")
    works = Connections(settings, store, Silence())
    try:
        for one in (signer, works, works.api, works.cycle, works.rpcs):
            spill.keep(type(one).__name__, f"{one} {one!r}".encode())
        spill.keep("settings' keys", f"{settings.api!r} {settings.wallet!r}".encode())
    finally:
        store.close()
    assert spill.leaks() == []


def family(process: int) -> dict[int, bytes]:
    """The command lines of a process and of all it started, by number."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    lines = {}
    for one in found:
        with contextlib.suppress(OSError):
            lines[one] = Path(f"/proc/{one}/cmdline").read_bytes()
    return lines


def test_the_sandboxs_anvil_is_started_without_the_sandboxs_key(tmp_path: Path) -> None:
    """Its accounts are written into the chain, so that a key worth nothing does not stand in `ps` either."""
    with World(worlds.maker("anvil")) as world:
        lines = b" ".join(family(os.getpid()).values())
    assert b"anvil" in lines
    assert world.key.to_hex()[2:].encode() not in lines


def test_no_secret_is_in_a_command_line_and_an_environment_without_them_is_enough(spill: Spill) -> None:
    """With every secret in a file, none is in /proc/PID/environ either; so files come first in the documentation."""
    place = spill.place
    config = Path(place.settings["TOPUP_CONFIG"])
    urls = provider(place.world.rpc.url)
    config.write_text(config.read_text(encoding="utf-8") + f'[chain]\nrpc_urls = ["{urls}"]\n', encoding="utf-8")
    made = place.environment(chain__rpc_urls=None)
    del place.settings["TOPUP_CHAIN__RPC_URLS"]
    with mock.patch.object(place, "environment", return_value=made):
        daemon = place.start("run")
    daemon.await_event("cycle_done", outcome="held")
    spill.keep("/proc/environ", Path(f"/proc/{daemon.process.pid}/environ").read_bytes())
    # `ps` shows the arguments of every process to everybody: daemon, commands, and whatever they start.
    for number, line in family(os.getpid()).items():
        spill.keep(f"/proc/{number}/cmdline", line)
    assert any(b"topup" in line for line in spill.written.values())
    assert any(b"TOPUP_WALLET__KEYSTORE=" in text for text in spill.written.values())
    assert spill.leaks() == []
