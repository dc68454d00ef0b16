"""Does a wrong setting stop at the door, saying which one it is and what to do? Sources, limits and contradictions."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.generate_docs import constraints_of, kind_of
from tests.tools import environ
from tests.world.stage import Kept
from topup.app import assembly
from topup.app.connections import Connections
from topup.app.hosts import closed
from topup.app.settings import env_name, load, names, secret
from topup.commands.doctor.machine import ways
from topup.commands.run import _say_how_it_starts
from topup.domain.coinbase_charge import K2_PREFIX
from topup.domain.credits import Reading
from topup.domain.errors import SettingsError
from topup.domain.money import Usd, Wei
from topup.domain.policy import Buy, Hold, Past, Snapshot, decide, worst_spend

A = "0x" + "11" * 20
KEY = "0x" + "5a" * 32
NUMBER = "expected a plain number, such as 10 or 12.5"
SHORT_URL = "expected a URL that begins with https:// (or http:// for loopback)"
CLEAR = "plain http is allowed for loopback only"


def refusal(environment: dict[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load(environment)
    assert refused.value.remedy, "every refusal says what to do"
    return refused.value


def beyond(name: str, field: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what a number is not by its declaration, which the documents show: beyond a bound, or a part of one."""
    word, some = kind_of(field.annotation)
    every, whole = [*some, *constraints_of(field.metadata)], word == "integer"
    above, least, most = ([getattr(one, sign) for one in every if hasattr(one, sign)] for sign in ("gt", "ge", "le"))
    if whole:
        yield name, "1.5", "valid integer"
    if above:
        yield name, "0", "greater than 0"
    elif least:
        low = max(least)
        yield name, str(low - 1 if whole or not low else 0), f"greater than or equal to {low}"
    for high in most:
        yield name, str(high + 1), f"less than or equal to {high}"


BAD: list[tuple[str, str, str]] = [
    *[row for name, field in names().items() for row in beyond(name, field)],
    # Money that is none.
    *[("policy.floor", text, NUMBER) for text in ("NaN", "Infinity", "1e400", "", "ten", "0x10", "1_000", "10,5")],
    ("policy.floor", "10 USD", NUMBER),
    ("policy.floor", "0.0000001", "more than 6 digits behind the point"),
    ("policy.floor_hours", "NaN", NUMBER),
    ("wallet.reserve_eth", "0.0000000000000000001", "more than 18 digits behind the point"),
    ("fees.gas_price_max_gwei", "0.0000000001", "more than 9 digits behind the point"),
    ("fees.network_fee_max_eth", "nan", NUMBER),
    # Words.
    ("mode", "LIVE", "'observe' or 'live'"),
    ("mode", "", "'observe' or 'live'"),
    ("account", "a/b", "should match pattern"),
    ("account", "../x", "should match pattern"),
    ("account", "", "at least 1 character"),
    ("account", "x" * 65, "at most 64 characters"),
    ("log.level", "loud", "'debug', 'info', 'warning' or 'error'"),
    ("log.format", "xml", "'auto', 'json', 'console' or 'logfmt'"),
    ("state_dir", "", "is empty"),
    ("api.key_file", "", "is empty"),
    # URLs.
    *[
        ("api.url", text, SHORT_URL)
        for text in ("", "openrouter.ai", "ftp://x.example", "https://", "https://a b.example", "https://x:99999999")
    ],
    *[
        ("api.url", text, CLEAR)
        for text in ("http://x.example", "http://127.0.0.1@x.example", "http://x.example?@127.0.0.1")
    ],
    ("api.url", "http://x.example#@127.0.0.1", SHORT_URL),
    ("api.url", "https://u:p@x.example", "without user or query"),
    ("api.url", "https://x.example/v1?a=1", "without user or query"),
    ("chain.rpc_urls", "", "at least 1 item"),
    ("chain.rpc_urls", "wss://x.example", SHORT_URL),
    ("chain.rpc_urls", "https://x.example/k,http://y.example", CLEAR),
    ("chain.rpc_urls", "https://x.example/k,https://X.example/k/", "names the same thing twice"),
    # Addresses, hashes, tiers.
    ("wallet.address", "0xac8CeB5131449e5850030737D10d1E25C6b8D80b", "has a wrong checksum"),
    ("wallet.address", "vitalik.eth", "expected 0x and 40 hex digits"),
    ("wallet.address", "11" * 20, "expected 0x and 40 hex digits"),
    ("wallet.address", "0x" + "00" * 20, "is the null address"),
    ("rails.coinbase.recipients", f"{A},0x12", "expected 0x and 40 hex digits"),
    ("rails.coinbase.operators", f"{A},{A}", "names the same thing twice"),
    ("rails.coinbase.contract", "0x" + "zz" * 20, "expected 0x and 40 hex digits"),
    *[("rails.coinbase.prefixes", text, "expected eip191") for text in ("0x", "0x1", "zz", "0x" + "00" * 65)],
    ("chain.quoter", "0x123", "expected 0x and 40 hex digits"),
    ("chain.price_feed", "on", "expected 0x and 40 hex digits"),
    ("chain.contract_code_hash", "0x12", "expected 0x and 64 hex digits"),
    ("chain.tiers", "500,x", "valid integer"),
    ("chain.tiers", "0", "greater than or equal to 1"),
    ("chain.tiers", "", "at least 1 item"),
    ("chain.tiers", "500,500", "names the same thing twice"),
    ("chain.id", "base", "valid integer"),
    # Keys.
    ("api.key", "", "is empty"),
    ("api.key", "two words", "holds blanks"),
    ("api.key", "clé", "holds blanks or letters"),
    *[
        ("api.key", text, "no key: quotes or a variable's name stand before it")
        for text in ('"sk-canary"', "'sk-canary'", "OPENROUTER_API_KEY=sk-canary", "`k`")
    ],
    ("wallet.private_key", "hunter2", "expected 0x and 64 hex digits"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD)
def test_a_bad_value_is_refused_by_name(name: str, text: str, says: str) -> None:
    """The message names the setting, its environment variable and what would be right."""
    said = str(refusal({"TOPUP_CONFIG": "/dev/null", env_name(name): text}))
    assert f"{name} ({env_name(name)}): " in said
    assert says in said
    assert "canary" not in said


CONTRADICTIONS: list[tuple[dict[str, str], str]] = [
    ({"mode": "live"}, "mode = live needs a key"),
    ({"policy__amount": "25", "policy__target": "50"}, "policy.amount and policy.target exclude each other"),
    ({"policy__target": "10", "policy__topup_max": "50"}, "policy.target 10 must be above policy.floor 10"),
    ({"policy__floor": "30"}, "policy.amount 25 is below policy.floor 30: one refill would not pass it"),
    (
        {"policy__request_max_usd": "4", "policy__requests_at_once": "10"},
        "policy.amount 25 is below the 40 of policy.request_max_usd times policy.requests_at_once",
    ),
    (
        {"policy__request_max_usd": "2", "policy__requests_at_once": "30", "policy__target": "50"},
        "policy.target 50 must be above the 60 of policy.request_max_usd times policy.requests_at_once",
    ),
    ({"policy__target": "200", "policy__floor": "95"}, "policy.topup_max 90 is below policy.floor 95"),
    ({"policy__requests_at_once": "3"}, "policy.requests_at_once needs policy.request_max_usd"),
    ({"policy__topup_min": "50", "policy__topup_max": "20"}, "policy.topup_min 50 is above policy.topup_max 20"),
    ({"policy__amount": "1000"}, "policy.amount 1000 is outside policy.topup_min 5 to policy.topup_max 90"),
    ({"policy__cap_24h": "26"}, "policy.cap_24h 26 is below the 26.5 that a top-up of 25 may cost"),
    ({"policy__burn_factor_max": "1"}, "policy.burn_factor_max 1 would stop at every hour faster than usual"),
    ({"policy__cap_30d": "50"}, "policy.cap_30d 50 is below policy.cap_24h 100"),
    ({"watch__poll_fastest_s": "1000"}, "watch.poll_fastest_s 1000 is above watch.poll_slowest_s 900"),
    ({"watch__poll_fastest_s": "30"}, "watch.poll_fastest_s 30 is below watch.staleness_s 60"),
    ({"posting__late_s": "60"}, "posting.late_s 60 is not above watch.staleness_s 60"),
    ({"posting__late_large_s": "900"}, "posting.late_large_s 900 is below posting.late_s 1800"),
    ({"price__deviation_bps": "100"}, "price.deviation_bps 100 is not above price.slippage_bps 100"),
    ({"rails__coinbase__life_max_s": "900"}, "rails.coinbase.life_min_s must be below rails.coinbase.life_max_s"),
    ({"rails__mpp__life_max_s": "30"}, "rails.mpp.life_min_s must be below rails.mpp.life_max_s"),
    ({"rails__use": "x402"}, "api.kind openrouter does not watch what x402 buys"),
    ({"api__kind": "x402", "rails__use": "coinbase"}, "api.kind x402 does not watch what coinbase buys"),
    ({"rails__use": "mpp,x402", "api__kind": "x402"}, "api.kind x402 does not watch what mpp, x402 buys"),
    (
        {"rails__mpp__root": "0x" + "11" * 20, "rails__use": "coinbase"},
        "rails.mpp.root is another account than the key's own",
    ),
    (
        {"rails__use": "x402", "api__kind": "x402", "rails__x402__profile": "plain"},
        "rails.x402.recipients is empty",
    ),
    ({"wallet__keystore": "/k"}, "wallet.keystore needs wallet.keystore_password_file"),
    ({"wallet__keystore_password_file": "/p"}, "wallet.keystore_password_file is set without wallet.keystore"),
    (
        {"wallet__private_key": KEY, "wallet__private_key_file": "/k"},
        "wallet.private_key and wallet.private_key_file",
    ),
    ({"wallet__keystore": "/k", "wallet__private_key_file": "/k"}, "wallet.keystore and wallet.private_key_file"),
    ({"api__key": "k", "api__key_file": "/k"}, "api.key and api.key_file exclude each other"),
    ({"chain__id": "1"}, "chain.id 1 has no profile in this program: use 8453"),
    ({"state_dir": "here"}, "state_dir here is not absolute"),
]


@pytest.mark.parametrize(("values", "says"), CONTRADICTIONS)
def test_a_contradiction_names_both_sides(values: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are fine alone and wrong together are refused together."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert says in str(refusal(environ(**values)))


RAILS = [
    ({}, ("mpp",)),
    ({"api__url": "https://openrouter.ai/api/v1/"}, ("mpp",)),
    ({"api__url": "https://WWW.OpenRouter.ai/api/v1"}, ("mpp",)),
    ({"api__url": "https://gateway.example/v1"}, ("coinbase",)),
    ({"api__url": "https://openrouter.ai.example/v1"}, ("coinbase",)),
    ({"api__url": "https://gateway.example/v1", "rails__use": "mpp,coinbase"}, ("mpp", "coinbase")),
    ({"api__kind": "x402"}, ("x402",)),
]


@pytest.mark.parametrize(("values", "rails"), RAILS)
def test_the_rail_follows_the_host(values: dict[str, str], rails: tuple[str, ...]) -> None:
    """Where nobody names a way to pay it is the one that the host's documentation describes."""
    assert load(environ(**values)).rails_in_use == rails


def test_a_rail_that_a_host_has_closed_is_known() -> None:
    """Charges are gone at OpenRouter; of a gateway nothing is known, and mpp is what OpenRouter sells by."""
    named = load(environ(rails__use="coinbase,mpp"))
    assert "410" in str(closed(named.api, "coinbase"))
    assert closed(named.api, "mpp") is None
    assert closed(load(environ(api__url="https://gateway.example/v1")).api, "coinbase") is None
    assert not ways(named).ok
    sink = Kept()
    _say_how_it_starts(named, None, sink)
    assert [one.shown()["rail"] for one in sink.told if one.name() == "rail_closed"] == ["coinbase"]
    assert ways(load(environ())).line() == "ok    way to pay             mpp, by api.url"


@pytest.mark.parametrize(
    ("most", "at_once", "floor"), [(None, None, 10), ("3", None, 10), ("3", "4", 12), ("11", None, 11)]
)
def test_the_highest_floor_holds(most: str | None, at_once: str | None, floor: int) -> None:
    """What the requests that run at once may cost is a floor beside the dollars; one runs where no number is set."""
    said = {"policy__request_max_usd": most, "policy__requests_at_once": at_once}
    allowed = assembly.limits(load(environ(**{name: text for name, text in said.items() if text is not None})))
    assert allowed.floor == Usd.of(floor)


def test_a_target_alone_is_enough() -> None:
    """The documented defaults do not contradict each other: a target needs no other setting beside it."""
    assert assembly.limits(load(environ(policy__target="50"))).target == Usd.of(50)


UNKNOWN = {
    "TOPUP_POLICY__FLOR": "TOPUP_POLICY__FLOR is no setting, did you mean TOPUP_POLICY__FLOOR?",
    "TOPUP_POLICY__FLOOR__X": "is no setting, did you mean TOPUP_POLICY__FLOOR?",
    "topup_policy__floor": "topup_policy__floor is no setting, did you mean TOPUP_POLICY__FLOOR?",
    "TOPUP_NOSUCH__X": "TOPUP_NOSUCH__X is no setting",
    "TOPUP_POLICY": "TOPUP_POLICY is no setting",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_misspelt_variable_is_an_error(name: str) -> None:
    """A limit that was misspelt is a limit that does not hold, so topup does not start with one."""
    assert UNKNOWN[name] in str(refusal({"TOPUP_CONFIG": "/dev/null", name: "1"}))


FILES: list[tuple[str, str]] = [
    ("[policy\n", "cannot be read: Expected ']'"),
    ("[policy]\nfloor = 1\nfloor = 2", "cannot be read: Cannot overwrite a value"),
    ("[policy]\nfloor = 1e999999999999999999999", "cannot be read: a number or a nesting beyond all bounds"),
    ("[policy]\nfloor = 1e-999999999", "policy.floor (TOPUP_POLICY__FLOOR): expected a finite number"),
    ("[policy]\nfloor = 1e400", "policy.floor (TOPUP_POLICY__FLOOR): expected a finite number"),
    ("[policy]\nfloor = nan", "policy.floor (TOPUP_POLICY__FLOOR): expected a finite number"),
    ("[policy]\nfloor = true", "policy.floor (TOPUP_POLICY__FLOOR): expected something else than true or false"),
    ("[policy]\ncount_24h = true", "policy.count_24h (TOPUP_POLICY__COUNT_24H): expected something else than true"),
    ("[policy]\nfloor = [1]", "policy.floor (TOPUP_POLICY__FLOOR): " + NUMBER),
    ("policy = 3", "policy is a table of settings, not a value: write [policy]"),
    ("floor = 1", "floor is no setting"),
    ("[polcy]\nfloor = 1", "polcy is no setting"),
    ("[policy]\nflor = 1", "policy.flor is no setting, did you mean policy.floor?"),
    ("[rails.stripe]\nx = 1", "rails.stripe is no setting"),
    ("[chain]\nrpc_urls = [1]", "chain.rpc_urls (TOPUP_CHAIN__RPC_URLS): Input should be a valid string"),
    ("mode = 1", "mode (TOPUP_MODE): Input should be 'observe' or 'live'"),
    ("[api]\nkey = 5", "api.key (TOPUP_API__KEY): Input should be a valid string"),
]


@pytest.mark.parametrize(("text", "says"), FILES)
def test_a_bad_file_is_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    """A settings file is judged like the environment, and its syntax errors name the file."""
    file = tmp_path / "topup.toml"
    file.write_text(text, encoding="utf-8")
    assert says in str(refusal({"TOPUP_CONFIG": str(file)}))


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A settings file that is named and missing may be mounted later; one that is merely absent is no error."""
    absent = refusal({"TOPUP_CONFIG": str(tmp_path / "none.toml")})
    assert "its name is mistyped, or it is not mounted yet" in str(absent)
    assert absent.exit_code == 4
    assert "is a directory" in str(refusal({"TOPUP_CONFIG": str(tmp_path)}))
    assert load({"XDG_CONFIG_HOME": str(tmp_path)}).mode == "observe"


def test_a_place_that_cannot_be_looked_into_is_not_taken_for_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings file may be, and the system does not let us look, the settings are refused, and no default."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/" + "x" * 300)  # a name too long to be asked about
    assert "the settings file" in str(refusal({}))


def test_no_number_passes_through_a_float(tmp_path: Path) -> None:
    """0.1 in the file is Decimal('0.1') to the last digit, and so is every default."""
    file = tmp_path / "topup.toml"
    file.write_text("[policy]\nfloor = 0.1\n[wallet]\nreserve_eth = 0.000000000000000003\n", encoding="utf-8")
    settings = load({"TOPUP_CONFIG": str(file)})
    assert settings.policy.floor == Decimal("0.1")
    assert assembly.wei(settings.wallet.reserve_eth).units == 3
    for name in names():
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        assert not isinstance(value, float), name


def test_the_prefixes_of_operators_are_a_setting() -> None:
    """The profile's alone unless said otherwise; `eip191` is the contract's empty prefix."""
    known = assembly.profile(load(environ())).prefixes
    assert known == {K2_PREFIX}
    both = load(environ(rails__coinbase__prefixes="EIP191,0x4B32"))
    assert assembly.profile(both).prefixes == {b"", b"K2"}
    assert assembly.pins(both, None).prefixes == {b"", b"K2"}


def test_lists_are_separated_by_commas() -> None:
    """Several providers and one tier are written as one variable each, or as JSON; hosts are compared in lower case."""
    settings = load(environ(chain__rpc_urls="https://A.example/k, https://b.example", chain__tiers="500"))
    assert settings.chain.rpc_urls == ("https://a.example/k", "https://b.example")
    assert settings.chain.tiers == (500,)
    assert load(environ(chain__tiers="[500, 3000]")).chain.tiers == (500, 3000)


def test_secrets_come_from_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripped; a missing or empty one is refused by the setting's name. One that is named goes before a credential."""

    def read(file: Path | None) -> str | None:
        named = {} if file is None else {"api__key_file": str(file)}
        return secret(load(environ(**named)), "api.key_file")

    file = tmp_path / "key"
    with pytest.raises(SettingsError, match=r"api\.key_file names .* does not exist"):
        read(file)
    file.write_text("  \n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"api\.key_file: .* is empty"):
        read(file)
    file.write_text("sk-1\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert (read(file), read(None)) == ("sk-1", None)
    (tmp_path / "topup-api-key").write_text("sk-2\n", encoding="utf-8")
    assert (read(file), read(None)) == ("sk-1", "sk-2")


def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    """A key that cannot stand in a header is refused before anything is asked with it."""
    file = tmp_path / "key"
    file.write_text("sk-1\nsk-2\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"api\.key is no key"):
        _ = Connections(load(environ(api__key_file=str(file)))).api
    with pytest.raises(SettingsError, match=r"api\.key is missing"):
        _ = Connections(load(environ())).api


def dollars(most: int) -> st.SearchStrategy[str]:
    return st.decimals(min_value=0, max_value=most, places=2).map(str)


@given(
    st.fixed_dictionaries(
        {"policy__floor": dollars(200), "policy__cap_24h": dollars(400), "policy__cap_30d": dollars(2000)},
        optional={
            "policy__amount": dollars(200),
            "policy__target": dollars(300),
            "policy__topup_min": dollars(50),
            "policy__topup_max": dollars(300),
            "rails__coinbase__fee_ceiling_bps": st.integers(0, 2000).map(str),
        },
    ),
    dollars(300),
)
def test_whatever_is_accepted_can_buy_and_does_not_loop(values: dict[str, str], balance: str) -> None:
    """Below the floor it may buy, again and again up to its own caps; a refill to the target is the last one."""
    try:
        settings = load(environ(**values))
    except SettingsError:
        return
    limits = replace(assembly.limits(settings), live=True)

    def at(credits_usd: Usd, past: list[Past]) -> Snapshot:
        reading = Reading(credits_usd, Usd.of(0), 10**12)
        return Snapshot(10**12, reading, None, past, (), False, False, None, True)

    held = Usd.of(balance)
    first = decide(at(held, []), limits)
    if held >= limits.floor:
        assert isinstance(first, Hold)
        return
    assert isinstance(first, Buy)
    past: list[Past] = []
    spent = Usd.of(0)
    old = 10**12 - limits.cooldown_ms
    while isinstance(again := decide(at(held, past), limits), Buy):
        held, spent = held + again.amount, spent + worst_spend(again.amount, limits)
        past.append(Past(old, worst_spend(again.amount, limits), failed=False, revert_gas=Wei(0)))
        assert len(past) <= limits.count_24h
    assert spent <= limits.cap_24h
    if limits.target is not None and held >= limits.target:
        assert isinstance(again, Hold)
