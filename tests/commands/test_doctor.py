"""Does `topup doctor` find what is wrong, name what to do, and spend nothing?"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from tests.tools import kept
from tests.world.examined import failed, looked
from tests.world.stand import dead, failing, lie
from tests.world.tempo import selling
from topup.commands.doctor import Check
from topup.commands.doctor.account import _date_s
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.rpc import RpcError
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling as selling_as
from topup.wire import files

pytestmark = pytest.mark.machine_time
NOBODY = "http://127.0.0.1:9"
STRANGER = "0x" + "11" * 20


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which everything is in place."""
    with World(embedded) as world:
        yield world


def test_in_a_sound_world_what_is_allowed_but_unwise_is_a_warning(world: World, tmp_path: Path) -> None:
    """No check fails, nothing is asked for or sent; one provider, a raw key and an unpinned contract are said."""
    found = looked(world, tmp_path)
    assert failed(found) == set()
    assert found["wallet balance"].says.startswith("1 ETH covers 284 refills")
    assert found["operators"].says == "1 registered"
    assert found["providers"].says == "warning: one provider: payments run, but an expired charge needs a person"
    assert found["provider 127.0.0.1 final state"].line().startswith("ok ")
    assert world.gateway.count("coinbase") == 0
    assert world.rpc.asked["eth_sendRawTransaction"] == 0
    warned = {name for name, check in found.items() if check.line().startswith("warn")}
    assert {"raw private key", "providers", "contract"} <= warned
    code = world.do(lambda: world.chain.rpc("eth_getCode", [contracts.PAYMENT_PROTOCOL, "latest"]))
    digest = "0x" + keccak(bytes.fromhex(code[2:])).hex()
    assert digest in found["contract"].says
    assert looked(world, tmp_path, chain__contract_code_hash=digest)["contract"].says == f"code as pinned, {digest}"
    assert not looked(world, tmp_path, chain__contract_code_hash="0x" + "11" * 32)["contract"].ok


def test_what_the_settings_get_wrong_is_found(world: World, tmp_path: Path) -> None:
    """Settings that cannot be read, a key that is not the right one, an address that is not the key's."""
    found = looked(world, tmp_path, policy__floor="ten")
    assert "policy.floor" in found["settings"].says
    others = [check.says.startswith("skipped:") for name, check in found.items() if name != "settings"]
    assert all(others), "without settings nothing can be looked at, and each says why it was skipped"
    found = looked(world, tmp_path, api__key=world.gateway.ordinary_key)
    assert failed(found) == {"api key", "credits"}, "an ordinary key reads zeros on a funded account"
    found = looked(world, tmp_path, api__key="sk-wrong")
    assert failed(found) == {"api", "api key", "credits", "clock and API"}, "a key that is refused is one failure"
    assert found["credits"].line().startswith("skip ")
    assert found["wallet nonce"].ok, "the chain is looked at all the same"
    found = looked(world, tmp_path, wallet__address=STRANGER)
    assert "wallet" in failed(found), "found before somebody sends ETH to it"


def test_two_urls_of_one_owner_are_said_to_count_as_one(world: World, tmp_path: Path) -> None:
    """The same server under two names of this machine is one witness."""
    urls = f"{world.rpc.url},{world.rpc.url.replace('127.0.0.1', 'localhost')}"
    found = looked(world, tmp_path, chain__rpc_urls=urls)
    assert "2 URLs of 1 owner: two names of one port of this machine count as one" in found["providers"].says
    assert found["providers"].line().startswith("warn ")


def test_two_owners_have_to_agree_and_one_that_is_away_fails(world: World, tmp_path: Path) -> None:
    """Both there is fine; one of them dead means that topup waits; a quorum of one is a warning."""
    second = world.provider()
    urls = f"{world.rpc.url},{second.url}"
    found = looked(world, tmp_path, chain__rpc_urls=urls)
    assert failed(found) == set()
    assert found["providers"].says == "2 owners, of which 2 have to agree"
    assert f"provider {second.url.removeprefix('http://')} finality" in found
    assert looked(world, tmp_path, chain__rpc_urls=urls, chain__quorum="1")["providers"].line().startswith("warn ")
    second.intercept = dead
    found = looked(world, tmp_path, chain__rpc_urls=urls)
    assert found["providers"].says.startswith("2 of different owners have to agree, and 1 can be believed now")
    assert not found["providers"].ok


def test_a_provider_that_is_of_no_use_is_found(world: World, tmp_path: Path) -> None:
    """Dead, of another chain, standing still, forgetting early, or talking nonsense."""
    found = looked(world, tmp_path, chain__rpc_urls=NOBODY)
    assert not found["provider 127.0.0.1"].ok
    assert found["quotes"].says.startswith("skipped:"), "all that needs the chain"
    assert found["credits"].ok, "the API is looked at all the same"
    world.rpc.intercept = lie("eth_chainId", to=lambda _: "0x1")
    found = looked(world, tmp_path)
    assert found["provider 127.0.0.1"].says == "speaks for chain 1, not 8453"
    assert found["quotes"].says.startswith("skipped:"), "it is not asked anything else"
    world.rpc.intercept = lie(
        "eth_getBlockByNumber", to=lambda told: {**told, "timestamp": hex(int(told["timestamp"], 16) - 3600)}
    )
    found = looked(world, tmp_path)
    assert "provider 127.0.0.1 clock" in failed(found), "older than chain.head_age_max_s"
    assert "s old" in found["provider 127.0.0.1 clock"].says
    gone = RpcError(-32000, "missing trie node 00ff")
    world.rpc.intercept = failing("eth_getBalance", gone, lambda params: params[1] != "latest")
    found = looked(world, tmp_path)
    assert failed(found) == set(), "only the wallet's books need the balance at the final block"
    assert found["provider 127.0.0.1 final state"].line().startswith("warn ")
    assert "books cannot be held against the chain" in found["provider 127.0.0.1 final state"].says
    assert "missing trie node" in found["provider 127.0.0.1 final state"].says

    async def nonsense(_method: str, _params: list[object], _honest: object) -> object:
        return {"x": [None]}

    world.rpc.intercept = nonsense
    assert "provider 127.0.0.1" in failed(looked(world, tmp_path)), "a failed check, not a crash"


def test_the_contracts_troubles_are_named(world: World, tmp_path: Path) -> None:
    """A paused contract, an unregistered operator, and a contract without code are each found."""
    world.do(lambda: world.write(contracts.payments_paused(paused=True)))
    assert failed(looked(world, tmp_path)) == {"contract paused"}
    world.do(lambda: world.write(contracts.payments_paused(paused=False)))
    assert failed(looked(world, tmp_path, rails__coinbase__operators=STRANGER)) == {"operators"}
    absent = looked(world, tmp_path, rails__coinbase__contract=STRANGER)
    assert failed(absent) == {"contract", "operators"}


def test_prices_are_judged(world: World, tmp_path: Path) -> None:
    """A stale feed, a sequencer that is down, and a pool far from the feed are each found."""
    now = world.clock.now_s()
    world.do(lambda: world.write(contracts.feed_updated_at(contracts.ETH_USD_FEED, now - 7200)))
    assert failed(looked(world, tmp_path)) == {"price feed"}
    world.do(lambda: world.write(contracts.feed_updated_at(contracts.ETH_USD_FEED, now)))
    low = world.eth_usd_e8 * 90 // 100
    world.do(lambda: world.write([w for fee in (500, 3000) for w in contracts.pool_price(fee, low)]))
    assert failed(looked(world, tmp_path)) == {"quotes"}
    off = looked(world, tmp_path, chain__price_feed="off", chain__sequencer_feed="off")
    assert failed(off) == set()
    assert off["sequencer feed"].line().startswith("warn ")


def test_an_empty_wallet_and_no_recipient_fail_in_live_mode(tmp_path: Path) -> None:
    """What would stop the first purchase is a failure when live, and only said when observing."""
    with World(embedded, wallet_wei=10**15) as world:
        live = looked(world, tmp_path, rails__coinbase__recipients=None)
        assert failed(live) == {"wallet balance", "recipients"}
        assert live["recipients"].remedy == "`topup pin`"
        assert failed(looked(world, tmp_path, rails__coinbase__recipients=None, mode="observe")) == set()


@pytest.mark.parametrize(
    ("mode", "says"),
    [(0o640, "its group can read it"), (0o604, "every user can read it"), (0o602, "every user can write it")],
)
def test_key_files_open_to_others_fail(world: World, public: Path, tmp_path: Path, mode: int, says: str) -> None:
    """A key file that its group or the world can read is a failure with the chmod to run."""
    file = kept(public / "key", world.key.to_hex(), mode)
    changes = {"wallet__private_key": None, "wallet__private_key_file": str(file)}
    found = looked(world, tmp_path / "s", **changes)
    assert failed(found) == {"wallet.private_key_file"}
    assert found["wallet.private_key_file"].says.endswith(says)
    assert found["wallet.private_key_file"].remedy == f"chmod 600 {file}"
    file.chmod(0o600)
    assert failed(looked(world, tmp_path / "s", **changes)) == set()


def test_a_credential_of_systemd_is_fine(world: World, public: Path, tmp_path: Path) -> None:
    """Mode 0440 in a directory that nobody else can enter, or another's file that only its group may read."""
    file = public / "credentials" / "key"
    file.parent.mkdir(mode=0o700)
    kept(file, world.key.to_hex(), 0o440)
    file.parent.chmod(0o500)
    changes = {"wallet__private_key": None, "wallet__private_key_file": str(file)}
    assert looked(world, tmp_path / "s", **changes)["wallet.private_key_file"].ok
    if os.geteuid() == 0:
        file.parent.chmod(0o755)
        assert not looked(world, tmp_path / "s", **changes)["wallet.private_key_file"].ok
        os.chown(file, 12345, 12345)
        assert looked(world, tmp_path / "s", **changes)["wallet.private_key_file"].ok


def test_what_a_container_mounts_read_only_is_a_warning(
    world: World, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ConfigMap and a secret lie on mounts that nobody can change here: said, and no failure."""
    file = kept(public / "key", world.key.to_hex(), 0o644)
    settings = kept(public / "topup.toml", '[api]\nkey = "sk-1"\n', 0o644)
    changes = {"wallet__private_key": None, "wallet__private_key_file": str(file), "config": str(settings)}
    assert {"wallet.private_key_file", "settings file"} <= failed(looked(world, tmp_path / "s", **changes))
    monkeypatch.setattr(files, "read_only", lambda path: str(path).startswith(str(public)))
    found = looked(world, tmp_path / "s", **changes)
    for name in ("wallet.private_key_file", "settings file"):
        assert found[name].line().startswith("warn ")
        assert found[name].remedy


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o777, 0o701])
def test_a_state_directory_open_to_others_fails_until_a_start_has_closed_it(
    mode: int, world: World, tmp_path: Path
) -> None:
    """What doctor calls ok is ok: open to every user is a failure; the first start closes it and says so."""
    state = tmp_path / "s"
    state.mkdir()
    state.chmod(mode)
    bad = bool(mode & 0o007)
    assert ("state directory" in failed(looked(world, state))) is bad
    store = SqliteStore.open_writer(state)
    store.close()
    assert [str(state) in said for said in store.mended] == [True] * bad
    assert state.stat().st_mode & 0o777 == mode & ~0o027
    assert looked(world, state)["state directory"].ok


def test_the_ledger_is_examined(world: World, tmp_path: Path) -> None:
    """A tombstone, a file others may write, and damage are each found; a holder is named."""
    writer = SqliteStore.open_writer(tmp_path)
    writer.set_gone("default", "coinbase", gone=True, at_ms=1)
    found = looked(world, tmp_path)
    assert failed(found) == {"rails"}
    assert "gone (410, 404 or 501)" in found["rails"].says
    assert "held by process" in found["ledger"].says
    writer.close()
    (tmp_path / FILE).chmod(0o666)
    assert "state directory" in failed(looked(world, tmp_path))
    (tmp_path / FILE).chmod(0o600)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert "ledger" in failed(looked(world, tmp_path))


@given(
    said=st.text(max_size=60)
    | st.builds(
        lambda day, hour, zone: f"Mon, {day} Jan 2026 {hour}:00:00 {zone}",
        st.integers(-(10**20), 10**20),
        st.integers(0, 10**20),
        st.integers(-(10**20), 10**20).map("{:+}".format),
    )
)
def test_any_date_of_an_api_is_a_time_or_unknown(said: str) -> None:
    """Days, hours and zones of any size: none of them ends the look."""
    assert _date_s(said) is None or type(_date_s(said)) is int


# -- rails whose sellers carry the payment ---------------------------------------------------------------------

COINBASES_OWN = {"contract", "operators", "price feed", "gas oracle", "quotes", "wallet balance", "wallet nonce"}


def by_mpp(world: World, folder: Path, **more: str) -> dict[str, Check]:
    return looked(world, folder, **{"rails__use": "mpp", "rails__mpp__rpc_urls": world.rpc.url} | more)


def test_who_pays_by_mpp_alone_needs_nothing_of_base(tmp_path: Path) -> None:
    """Base cannot be reached and nobody minds: Tempo is asked, and the dollars that lie there are counted."""
    with selling() as world:
        found = by_mpp(world, tmp_path, chain__rpc_urls=NOBODY)
    assert failed(found) == set()
    assert not COINBASES_OWN & set(found)
    assert found["mpp provider 127.0.0.1"].says.startswith("chain 4217, ")
    assert found["mpp provider 127.0.0.1 finality"].says == "serves safe and finalized blocks"
    # 10 dollars, 6 % that the seller may add, 10 cents for the network: 10.70 each.
    says = "25 USDC.e on Tempo covers 2 refills of at most 10.7 USDC.e, fees included"
    assert found["mpp balance"].says == says
    assert found["mpp network fee"].says.endswith("the ceiling is 0.1 USDC.e")


def test_one_owner_is_warned_of_a_halt_and_two_are_not(tmp_path: Path) -> None:
    """One witness proves no death: said before the first payment, with the setting that helps."""
    with selling() as world:
        alone = by_mpp(world, tmp_path)["mpp providers"]
        both = f"{world.rpc.url},{world.provider().url}"
        two = by_mpp(world, tmp_path, rails__mpp__rpc_urls=both)["mpp providers"]
        one = by_mpp(world, tmp_path, rails__mpp__rpc_urls=both, rails__mpp__quorum="1")
    assert alone.line().startswith("warn ") and "HALT" in alone.says and "rails.mpp.rpc_urls" in alone.remedy
    assert two.line().startswith("ok ") and two.says == "2 owners, of which 2 have to agree"
    assert one["mpp providers"].remedy == "remove rails.mpp.quorum, so that two have to agree"


def test_the_root_is_counted_where_the_key_is_only_its_access_key(tmp_path: Path) -> None:
    """A root without dollars fails, naming where to send them; so does one that has authorized no such key."""
    with selling() as world:
        found = by_mpp(world, tmp_path, rails__mpp__root=STRANGER)
    assert failed(found) == {"mpp balance", "mpp access key"}
    assert found["mpp balance"].remedy.startswith("send USDC.e on Tempo to " + STRANGER)


def test_each_rail_in_use_is_looked_at(world: World, tmp_path: Path) -> None:
    """A second rail whose chain is dead, or is another one, fails by its own name; the first is as it was."""
    found = looked(world, tmp_path, rails__use="coinbase,mpp", rails__mpp__rpc_urls=NOBODY)
    bad = {"mpp provider 127.0.0.1", "mpp providers", "mpp balance"}
    assert failed(found) == bad
    assert found["contract"].ok and found["wallet balance"].ok
    assert found["mpp recipients"].line().startswith("warn ")
    found = by_mpp(world, tmp_path)
    assert failed(found) == bad, "Base's URL is found by its chain id, and what depends on it is skipped"
    assert found["mpp provider 127.0.0.1"].says == "speaks for chain 8453, not 4217"
    assert found["mpp provider 127.0.0.1"].remedy == "correct rails.mpp.rpc_urls"
    assert found["mpp balance"].line().startswith("skip ")


def test_who_pays_by_x402_needs_dollars_and_no_ether(tmp_path: Path) -> None:
    """The seller pays the gas: no ETH, contract, pool or feed is asked for, and USDC that lacks is named."""
    with World(embedded, make_gateway=selling_as("venice"), wallet_wei=0) as world:
        gateway: Any = world.gateway
        mine = {name.removeprefix("TOPUP_").lower(): value for name, value in gateway.environment().items()}
        rich = looked(world, tmp_path, **mine)
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 0)))
        poor = looked(world, tmp_path, **mine)
        world.do(lambda: world.chain.set_code(world.wallet, bytes.fromhex("ef0100" + "cd" * 20)))
        handed = looked(world, tmp_path, **mine)
    assert "documented, not tried against the live seller" in rich["x402 seller"].says
    assert rich["x402 signatures"].line().startswith("ok ")
    assert handed["x402 signatures"].line().startswith("warn ")
    assert "ERC-1271" in handed["x402 signatures"].says and handed["x402 signatures"].remedy
    assert failed(rich) == set()
    assert not COINBASES_OWN & set(rich)
    assert "x402 network fee" not in rich
    assert failed(poor) == {"x402 balance"}
    assert poor["x402 balance"].remedy.startswith("send USDC on Base to 0x")
