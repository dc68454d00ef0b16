"""Is a seller data: does `topup once` buy at each record, and at one that a user wrote down, without touching code?"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.tools import ROOT
from tests.world.served import TOPUP, Served
from topup.domain.errors import SettingsError
from topup.domain.money import Usd
from topup.sandbox import contracts
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import HELD_UNITS, selling
from topup.sandbox.x402_seller import RECIPIENT, X402Conduct
from topup.sellers.x402_profile import PROFILES, Profile, profile

WALLET = b"\xab" * 20
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


@contextmanager
def sold(directory: Path, record: str | Profile, **settings: str) -> Iterator[Served]:
    """A world in which this seller sells, and the commands beside it."""
    conduct = X402Conduct(posting_delay_ms=0, large_posting_delay_ms=0)
    world = World(embedded, make_gateway=selling(record, conduct=conduct), burn_usd_per_hour=Decimal(0))
    with world:
        world.tick_s = 0.5
        gateway: Any = world.gateway
        place = Served(world, directory, {**gateway.environment(), **settings})
        place.settings.setdefault("TOPUP_POLICY__AMOUNT", "10")
        yield place
        place.end()


def bought(place: Served) -> None:
    """Buy ten dollars by the real command, and hold chain, seller and ledger against each other."""
    world: World = place.world
    gateway: Any = world.gateway
    done = place.run("once", "--amount", "10", "--yes", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    [topup] = place.topups()
    assert topup.state.value == "done"
    assert world.do(lambda: world.usdc(RECIPIENT)) == 10_000_000
    assert world.do(lambda: world.usdc(world.wallet)) == HELD_UNITS - 10_000_000
    wanted = {"fromBlock": "0x0", "toBlock": "latest", "address": contracts.USDC, "topics": [TRANSFER]}
    assert len(world.do(lambda: world.chain.rpc("eth_getLogs", [wanted]))) == 1
    [settled] = gateway.settlements.values()
    assert settled.usd == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_each_record_buys(name: str, tmp_path: Path) -> None:
    """The sandbox plays the record as strictly as its pages have it; one transfer, one credit, exit 0."""
    with sold(tmp_path, name) as place:
        bought(place)


def example() -> str:
    """Return the record of the documentation's example."""
    text = (ROOT / "docs" / "rails.md").read_text(encoding="utf-8")
    [found] = re.findall(r"```toml\n(# seller\.toml.*?)```", text, re.DOTALL)
    return str(found)


# A login for both, the sum and the wallet in the path, no body at all.
BY_LOGIN = """
name = "own"
[sell]
method = "GET"
path = "/pay/{cents}/{wallet}"
auth = "login"
[balance]
path = "/accounts/{wallet}?unit=micro"
auth = "login"
field = "a.b.c"
unit = "micro"
[login]
statement = "Sign in to anything"
header = "X-Login"
uri = "request"
"""
# The sum in path and body, other names for both headers, version 2 where the answer does not say.
LIKE_GAIB = """
like = "gaib"
name = "other"
[sell]
path = "/buy?amount={usd}"
body = { units = "{units}" }
payment_header = "X-Paid"
[key]
header = "x-key"
prefix = "token="
"""


# The documentation's example has a header of its own, a constant in the body, and cents two names deep.
@pytest.mark.slow
@pytest.mark.parametrize("text", [BY_LOGIN, LIKE_GAIB, example()], ids=["login", "like", "documented"])
def test_a_seller_of_a_known_protocol_is_a_file(text: str, tmp_path: Path) -> None:
    """Whatever of it the record changes, the same program buys once."""
    path = tmp_path / "seller.toml"
    path.write_text(text, encoding="utf-8")
    with sold(tmp_path, profile(str(path)), TOPUP_RAILS__X402__PROFILE=str(path)) as place:
        bought(place)


@pytest.mark.slow
def test_the_other_login_text_is_a_setting(tmp_path: Path) -> None:
    """At a seller that wants Venice's other sentence nothing is bought by the first, and the remedy names the other."""
    with sold(tmp_path, "venice-ai", TOPUP_RAILS__X402__PROFILE="venice") as place:
        refused = place.run("once", "--amount", "10", "--yes", "--force")
        assert refused.returncode in (3, 4)
        assert "venice-ai" in refused.stdout + refused.stderr
        assert not place.topups()
        place.settings["TOPUP_RAILS__X402__PROFILE"] = "venice-ai"
        bought(place)


def test_a_request_is_the_record_s() -> None:
    """Dria orders dollars as a text, GAIB as a number, Venice not at all; each where its pages have it."""
    shown = {name: one.request(Usd.of("12.50"), WALLET) for name, one in PROFILES.items()}
    assert shown["dria"] == ("POST", "/credits/topup", b'{"amount":"12.5"}')
    assert shown["gaib"] == ("POST", "/topup", b'{"amount":12.5}')
    assert shown["venice"] == shown["venice-ai"] == ("POST", "/x402/top-up", b"{}")
    assert PROFILES["gaib"].account(WALLET) == "/usage/0x" + WALLET.hex()
    assert PROFILES["gaib"].usd(Decimal(4_950_000)) == Decimal("4.95")
    assert {PROFILES[name].login.statement for name in ("venice", "venice-ai")} == {
        "Sign in to Venice API",
        "Sign in to Venice AI",
    }
    assert not any(one.tried for one in PROFILES.values())


LEAST = '[sell]\npath = "/buy"\n[balance]\npath = "/left"\nfield = "usd"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "name"),
        ('name = "Own"\n' + LEAST, "name"),
        ('name = "own"\npaths = 1\n' + LEAST, "paths is no field of a seller"),
        ('name = "own"\n' + LEAST.replace('"/buy"', '"buy"'), "sell.path expected a path that begins with /"),
        ('name = "own"\n' + LEAST.replace('"/buy"', '"/buy/{sum}"'), "{sum} is no place"),
        ('name = "own"\n' + LEAST.replace('"/buy"', '"/buy/{usd"'), "is no place"),
        ('name = "own"\n' + LEAST.replace('"/buy"', '"/b uy"'), "sell.path"),
        ('name = "own"\n' + LEAST + 'unit = "euros"\n', "balance.unit"),
        ('name = "own"\n' + LEAST + 'auth = "password"\n', "balance.auth"),
        ('name = "own"\n' + LEAST.replace('"usd"', '"a..b"'), "balance.field"),
        ('name = "own"\n' + LEAST + '[key]\nheader = "a b"\n', "key.header"),
        ('name = "own"\n' + LEAST + '[key]\nprefix = "a\\nb"\n', "key.prefix"),
        ('name = "own"\n' + LEAST.replace("[balance]", 'recipients = ["0x12"]\n[balance]'), "sell.recipients.0"),
        ('name = "own"\n' + LEAST.replace("[balance]", "least_usd = true\n[balance]"), "sell.least_usd"),
        ('name = "own"\n' + LEAST.replace("[balance]", "minimum = 1\n[balance]"), "sell.minimum"),
        ('name = "own"\n' + LEAST.replace("[balance]", "version = 3\n[balance]"), "sell.version"),
        ('name = "own"\n' + LEAST.replace("[balance]", 'body = { a = "{sum}" }\n[balance]'), "{sum} is no place"),
        ('name = "own"\n' + LEAST.replace("[balance]", "body = { a = 2026-01-01 }\n[balance]"), "sell.body"),
        ('like = "venise"\n', "which is none of venice"),
        ('like = "venice"\nsell = 1\n', "sell"),
        ("name = ", "Invalid value"),
        ("# " + "x" * 70_000, "longer than"),
    ],
)
def test_a_bad_record_is_named_by_file_field_and_remedy(text: str, named: str, tmp_path: Path) -> None:
    """What is wrong in a file is said with its path and its field, as any other setting's mistake is."""
    path = tmp_path / "seller.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        profile(str(path))
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("venise", "did you mean venice?"),
        ("", "no seller"),
        ("./absent.toml", "which does not exist: its name is mistyped, or it is not mounted yet"),
        ("/", "is a directory"),
        ("/dev/zero", "is neither a file nor a pipe"),
    ],
)
def test_a_record_that_is_not_there_is_named(given: str, named: str) -> None:
    """A mistyped name shows the near one, a missing file both reasons that it can have."""
    with pytest.raises(SettingsError, match=re.escape(named)):
        profile(given)


@pytest.mark.parametrize("command", ["status", "check", "run"])
def test_a_record_that_may_be_mounted_yet_is_tried_again(command: str, tmp_path: Path) -> None:
    """4 in every command, as for every named file: what runs the daemon starts it again."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOPUP_STATE_DIR": str(tmp_path / "state")}
    env |= {"TOPUP_API__KIND": "x402", "TOPUP_RAILS__USE": "x402"}
    env |= {"TOPUP_RAILS__X402__PROFILE": str(tmp_path / "absent.toml")}
    done = subprocess.run(
        [*TOPUP, command], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "mistyped, or it is not mounted yet" in done.stderr) == (4, True), done.stderr


def test_a_file_with_a_byte_order_mark_is_read_as_meant(tmp_path: Path) -> None:
    """What some editors put in front of a text says nothing about the seller."""
    path = tmp_path / "seller.toml"
    path.write_text('\ufefflike = "dria"\n[sell]\npath = "/v2/buy"\n', encoding="utf-8")
    record = profile(str(path))
    assert (record.name, record.sell.path, record.sell.auth) == ("dria-own", "/v2/buy", "key")
    assert record.source == ""
