"""Does `topup init` lead from nothing to settings that work, by flags as well as by a conversation?"""

import json
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from tests.tools import kept, outside
from tests.world.served import TOPUP, Done, Served, ran, served
from tests.world.terminal import Terminal
from topup.app.settings_text import flat, rendered
from topup.domain.credits import DAY_MS


@dataclass
class Newcomer:
    """Somebody with an empty home, beside a world that sells credits."""

    place: Served
    home: Path

    @property
    def config(self) -> Path:
        return self.home / ".config" / "topup"

    @property
    def settings(self) -> dict[str, Any]:
        return tomllib.loads((self.config / "topup.toml").read_text(encoding="utf-8"), parse_float=Decimal)

    def environment(self) -> dict[str, str]:
        return outside() | {"HOME": str(self.home), "TERM": "dumb"}

    def key_file(self, key: str = "") -> Path:
        return kept(self.home / "key", key or self.place.world.gateway.management_key)

    def types(self, *arguments: str) -> Done:
        return ran([*TOPUP, *arguments], self.environment(), timeout_s=300)

    def scripts(self, *more: str) -> Done:
        url, key = self.place.world.gateway.url, self.key_file()
        return self.types("init", "--api-url", url, "--api-key-file", str(key), *more)

    def talks(self, *arguments: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
        """Answer each question on a terminal; return the exit code and all that was shown."""
        screen = Terminal([*TOPUP, "init", *arguments], self.environment())
        return screen.ends(*answers), screen.shown


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    home = tmp_path / "home"
    home.mkdir()
    with served(tmp_path) as place:
        yield Newcomer(place, home)


def test_watching_takes_a_key_and_nothing_else(newcomer: Newcomer) -> None:
    """No wallet, no chain: the settings are its owner's alone, each says what it means, and `check` reads by them."""
    done = newcomer.scripts("--watch", "--set", "policy.floor=5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["mode"], told["settings"]) == ("watches", str(newcomer.config / "topup.toml"))
    assert stat.S_IMODE((newcomer.config / "topup.toml").stat().st_mode) == 0o600
    text = (newcomer.config / "topup.toml").read_text(encoding="utf-8")
    assert "# buy when the balance falls below this\nfloor = " in text
    assert "wallet" not in newcomer.settings
    checked = newcomer.types("check", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["floor_usd"] == "5"


def test_a_conversation_tries_each_answer_and_shows_no_key(newcomer: Newcomer) -> None:
    """An ordinary key is told from a management key, and asked for again; what is typed is seen by nobody."""
    account = newcomer.place.world.gateway.account
    account._curve.insert(0, (account.now_ms() - 3 * DAY_MS, Decimal(0), Decimal("0.05")))
    key = newcomer.place.world.gateway.management_key
    answers = [
        ("API", newcomer.place.world.gateway.url),
        ("management key:", "sk-or-v1-no-such-key"),
        ("management key:", key),
        ("one request may cost, in dollars (such as 2; -: unknown) [0.2", "2"),
        ("run at once", "20"),
        ("below which to refill", "10"),
        ("buy each time [40", "25"),
        ("buy each time", "45"),
        ("buy credits by itself", "n"),
    ]
    code, shown = newcomer.talks(answers=answers)
    assert code == 0, shown
    assert "FAIL" in shown
    assert "took 0.03 dollars a request" in shown
    assert "policy.amount 25 is below the 40 of policy.request_max_usd times policy.requests_at_once" in shown
    assert key not in shown
    kept = newcomer.config / "api-key"
    assert (kept.read_text(encoding="utf-8"), stat.S_IMODE(kept.stat().st_mode)) == (key + "\n", 0o600)
    assert newcomer.settings["policy"]["requests_at_once"] == "20"
    assert newcomer.types("check").returncode == 6, "below what twenty requests may cost"


def test_paying_is_added_later(newcomer: Newcomer) -> None:
    """A wallet is made that opens with the password beside it; what was set before stays, and a copy is kept."""
    assert newcomer.scripts("--watch", "--set", "policy.floor=5").returncode == 0
    before = (newcomer.config / "topup.toml").read_text(encoding="utf-8")
    assert newcomer.types("init").returncode == 2, "what is there is not written over"
    done = newcomer.types("init", "--pay", "--rpc-url", newcomer.place.world.rpc.url)
    assert done.returncode == 0, done.stderr
    settings = newcomer.settings
    assert (settings["mode"], settings["policy"]["floor"], settings["rails"]["use"]) == ("live", "5", ["coinbase"])
    assert (newcomer.config / "topup.toml.1").read_text(encoding="utf-8") == before
    keystore, password = Path(settings["wallet"]["keystore"]), Path(settings["wallet"]["keystore_password_file"])
    key = Account.decrypt(json.loads(keystore.read_text()), password.read_text().removesuffix("\n"))
    assert Account.from_key(key).address in done.stderr
    assert {stat.S_IMODE(path.stat().st_mode) for path in (keystore, password)} == {0o600}
    assert "one owner of providers" in done.stderr
    assert "topup pin" in done.stdout


def test_a_wallet_is_opened_before_it_is_written_down(newcomer: Newcomer) -> None:
    """With another's password it does not open: nothing is written. With its own it is taken as it is."""
    sealed = Account.encrypt(newcomer.place.world.key.to_bytes(), "correct", kdf="scrypt", iterations=2)
    keystore = kept(newcomer.home / "old.json", json.dumps(sealed))
    password = kept(newcomer.home / "old.password", "wrong")
    own = ("--pay", "--keystore", str(keystore), "--password-file", str(password))
    refused = newcomer.scripts(*own, "--rpc-url", newcomer.place.world.rpc.url)
    assert refused.returncode == 2, refused.stderr
    assert "does not open" in refused.stderr
    assert not newcomer.config.exists()
    password.write_text("correct", encoding="utf-8")
    assert newcomer.scripts(*own, "--rpc-url", newcomer.place.world.rpc.url).returncode == 0
    assert newcomer.settings["wallet"]["keystore"] == str(keystore)


def test_what_does_not_fit_together_writes_no_key(newcomer: Newcomer) -> None:
    """A setting given beside the questions is tried before the key that was typed is kept."""
    url, key = newcomer.place.world.gateway.url, newcomer.place.world.gateway.management_key
    answers = [("management key:", key), ("one request may cost", ""), ("below which", ""), ("buy each time", "")]
    flags = ("--api-url", url, "--watch", "--set", "policy.cap_24h=5")
    code, shown = newcomer.talks(*flags, answers=answers)
    assert code == 2, shown
    assert "policy.cap_24h 5 is below" in shown
    assert not newcomer.config.exists()


def test_two_providers_of_different_owners_need_no_warning(newcomer: Newcomer) -> None:
    """Both are asked which chain they serve, and both are written down."""
    urls = [newcomer.place.world.rpc.url, newcomer.place.world.provider().url]
    done = newcomer.scripts("--pay", *(part for url in urls for part in ("--rpc-url", url)))
    assert done.returncode == 0, done.stderr
    assert newcomer.settings["chain"]["rpc_urls"] == urls
    assert "one owner" not in done.stderr


def test_a_provider_of_another_chain_is_refused(newcomer: Newcomer) -> None:
    """It says which chain that is; no settings are written."""
    other = newcomer.place.world.provider()

    async def elsewhere(method: str, _: list[Any], honest: Any) -> Any:
        return "0x1" if method == "eth_chainId" else honest()

    other.intercept = elsewhere
    done = newcomer.scripts("--pay", "--rpc-url", other.url)
    assert done.returncode == 2
    assert "serves chain 1, and not 8453 (Base)" in done.stderr
    assert not (newcomer.config / "topup.toml").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--set", "policy.floor=50"], "policy.amount 25 is below policy.floor 50"),
        (["--set", "policy.floor=ten"], "policy.floor (TOPUP_POLICY__FLOOR): expected a plain number"),
        (["--set", "policy.flor=5"], "--set 'policy.flor=5' is no setting and its value"),
        (["--api-key-file", "/no/such/key"], "api.key_file names /no/such/key, which does not exist"),
        (["--api-url", "https://x.example/?a=1"], "without user or query"),
    ],
)
def test_a_wrong_answer_is_refused_by_name(newcomer: Newcomer, flags: list[str], says: str) -> None:
    """By flags as in a file, and nothing is written; nobody is there who could give another."""
    done = newcomer.scripts("--watch", *flags)
    assert done.returncode in (2, 4)
    assert says in done.stderr
    assert "topup: to do: " in done.stderr
    assert not newcomer.config.exists()


def test_an_api_that_does_not_answer_writes_nothing(newcomer: Newcomer) -> None:
    """Settings that nobody has tried are worth nothing."""
    newcomer.place.spoil("key", "server-error-500")
    done = newcomer.scripts("--watch")
    assert done.returncode != 0
    assert not newcomer.config.exists()


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    policy=st.fixed_dictionaries({"policy.floor": st.decimals(0, 10**6, places=2), "policy.count_24h": st.integers(1)}),
    urls=st.lists(TEXTS, max_size=3),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
    url=TEXTS,
)
def test_what_is_written_is_what_is_read(
    policy: dict[str, Any], urls: list[str], labels: dict[str, str], url: str
) -> None:
    """Whatever stands in a text, a list or a table; numbers to the last digit."""
    rows = {"labels": labels, "api.url": url, **policy, "chain.rpc_urls": urls}
    text = rendered(rows, head="a test")
    assert flat(tomllib.loads(text, parse_float=Decimal)) == rows
