"""Does `topup wallet check` say what a wallet holds, in every dollar, and is what it was not told unknown to it?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from typer.testing import Result

from tests.world.owner import ROOT, Owner, account, shown
from tests.world.served import asked
from tests.world.stand import dead, failing, lie
from tests.world.tempo import buying, selling
from topup.domain.errors import Exit
from topup.sandbox import contracts
from topup.sandbox.rpc import RpcError
from topup.sandbox.tempo import PATH_USD, USDC_E
from topup.sandbox.world import World, embedded

pytestmark = pytest.mark.machine_time
USDBC = "0xd9aAEc86B65D86f6A7B5B1b0c42FFA531710b6CA"
ELSEWHERE = "cd" * 20
PASSWORD = "correct horse"
PREPAID = {"TOPUP_RAILS__USE": "x402", "TOPUP_API__KIND": "x402"}


@pytest.fixture
def world() -> Iterator[World]:
    """A wallet with one ETH on Base, and two providers that have to agree on it."""
    with World(embedded) as world:
        world.second = world.provider()  # type: ignore[attr-defined]
        yield world


def both(world: World) -> str:
    return f"{world.rpc.url},{world.second.url}"  # type: ignore[attr-defined]


def checked(world: World, folder: Path, *arguments: str, **settings: str) -> Result:
    own = world.environment() | {"TOPUP_CHAIN__RPC_URLS": both(world)} | settings
    return asked(folder, "wallet", "check", *arguments, **own)


def told(world: World, folder: Path, **settings: str) -> dict[str, Any]:
    """The document of a check, which tells its exit code truly; its checks by name."""
    done = checked(world, folder, "--json", **settings)
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["schema"], document["exit_code"]) == (1, done.exit_code), done.stderr
    for check in document["checks"]:
        assert check["ok"] or check["remedy"], check
    return document | {"checks": {check["name"]: check for check in document["checks"]}}


def sent(world: World, units: int, token: str = contracts.USDC) -> None:
    """Let the wallet hold so much of a dollar of Base, which is made where it is not there."""

    def give() -> None:
        world.chain.set_code(token, contracts.runtime("Usdc"))
        (write,) = contracts.usdc_balance(world.wallet, units)
        world.chain.set_storage(token, write.slot, write.value)

    world.do(give)


def test_everything_that_it_holds_is_said(world: World, tmp_path: Path) -> None:
    """ETH, USDC, and the bridged dollar that it may have been sent by mistake, with what can be done about that."""
    sent(world, 12_500_000)
    sent(world, 3_000_001, USDBC)
    found = told(world, tmp_path, **PREPAID)
    (base,) = found["chains"]
    assert found["address"] == world.wallet
    assert base["holds"] == {"ETH": "1", "USDC": "12.5", "USDbC": "3.000001"}
    assert (base["chain"], base["chain_id"], base["nonce"], base["pending"]) == ("Base", 8453, 0, 0)
    assert (base["code"], base["delegate"], found["ok"]) == ("none", None, True)
    stray = found["checks"]["Base USDbC"]
    assert stray["says"] == "warning: 3.000001 USDbC, and no rail in use pays with it"
    assert stray["remedy"].startswith("swap it for USDC on an exchange on Base")
    assert found["checks"]["Base USDC"]["says"] == "12.5 USDC"
    lines = checked(world, tmp_path, **PREPAID).stdout.splitlines()
    assert any(line.startswith("warn  Base USDbC") and "; to do: swap it" in line for line in lines)


def test_a_dollar_is_no_stray_where_a_rail_pays_with_it(world: World, tmp_path: Path) -> None:
    """USDC on Base: the coinbase rail pays with ETH unless told otherwise, which is what can be done."""
    sent(world, 5_000_000)
    assert "rails.coinbase.pay_with = usdc" in told(world, tmp_path)["checks"]["Base USDC"]["remedy"]
    paying = told(world, tmp_path, TOPUP_RAILS__COINBASE__PAY_WITH="usdc")["checks"]["Base USDC"]
    assert (paying["says"], paying["remedy"]) == ("5 USDC", "")


def test_a_dollar_that_is_not_there_is_not_unknown(world: World, tmp_path: Path) -> None:
    """No contract answers at USDbC's address on this chain: that is said, and nothing is held of it."""
    found = told(world, tmp_path)
    assert found["checks"]["Base USDbC"]["says"] == "no such token answers there"
    assert found["chains"][0]["holds"]["USDbC"] is None
    assert found["exit_code"] == Exit.OK


def test_the_dollar_that_is_paid_with_is_unknown_where_it_is_not_there(world: World, tmp_path: Path) -> None:
    """Whatever a provider hides behind an empty answer or a revert: the wallet is not said to hold none of it."""
    for answer in (lambda _: "0x", revert):
        for server in (world.rpc, world.second):  # type: ignore[attr-defined]
            server.intercept = lie("eth_call", to=answer)
        found = told(world, tmp_path, **PREPAID)
        assert found["exit_code"] == Exit.LATER
        assert found["checks"]["Base USDC"]["says"].startswith("unknown: ")
        assert found["chains"][0]["holds"]["USDC"] is None


def revert(_: object) -> object:
    raise RpcError(3, "execution reverted", "0x1c72fad4")


def test_a_delegation_breaks_x402_and_is_taken_back(world: World, tmp_path: Path) -> None:
    """EIP-7702: the token asks the code alone (ERC-1271). A failure where x402 is used, a warning elsewhere."""
    world.do(lambda: world.chain.set_code(world.wallet, bytes.fromhex("ef0100" + ELSEWHERE)))
    found = told(world, tmp_path, **PREPAID)
    code = found["checks"]["Base code"]
    assert (found["exit_code"], code["ok"]) == (Exit.PERSON, False)
    assert f"hands itself to 0x{ELSEWHERE} (EIP-7702)" in code["says"] and "ERC-1271" in code["says"]
    assert "EIP-7702 authorization of the zero address" in code["remedy"]
    assert "somebody else has the key" in code["remedy"]
    assert (found["chains"][0]["code"], found["chains"][0]["delegate"]) == ("delegation", f"0x{ELSEWHERE}")
    elsewhere = told(world, tmp_path)
    assert elsewhere["exit_code"] == Exit.OK
    assert elsewhere["checks"]["Base code"]["says"].startswith(f"warning: hands itself to 0x{ELSEWHERE}")


@pytest.mark.parametrize("code", ["6000", "ef0100" + ELSEWHERE + "00", "ef0100" + ELSEWHERE[2:]])
def test_a_contract_is_no_wallet_of_a_key(code: str, world: World, tmp_path: Path) -> None:
    """Neither is what only resembles a delegation, a byte too long or too short."""
    world.do(lambda: world.chain.set_code(world.wallet, bytes.fromhex(code)))
    found = told(world, tmp_path)
    assert (found["exit_code"], found["chains"][0]["code"]) == (Exit.PERSON, "contract")
    assert "is a contract" in found["checks"]["Base code"]["says"]


def test_what_waits_for_a_block_is_counted_apart(world: World, tmp_path: Path) -> None:
    """The nonce of the newest block, and the one with what is pending; a node that does not count that is a warning."""
    for server in (world.rpc, world.second):  # type: ignore[attr-defined]
        server.intercept = lie(
            "eth_getTransactionCount", to=lambda _: "0x7", when=lambda params: params[1] == "pending"
        )
    base = told(world, tmp_path)["chains"][0]
    assert (base["nonce"], base["pending"]) == (0, 7)
    for server in (world.rpc, world.second):  # type: ignore[attr-defined]
        server.intercept = failing(
            "eth_getTransactionCount", RpcError(-32601, "the method does not exist"), lambda p: p[1] == "pending"
        )
    found = told(world, tmp_path)
    assert (found["chains"][0]["nonce"], found["chains"][0]["pending"]) == (0, None)
    assert found["checks"]["Base pending"]["says"].startswith("warning: what waits for a block is unknown")
    assert found["exit_code"] == Exit.OK


# -- providers that lie or are silent -----------------------------------------------------------------------------


def test_one_provider_alone_makes_nothing_true(world: World, tmp_path: Path) -> None:
    """Twice the ETH, no dollars, code where none is: what two do not show alike is unknown, with both answers."""
    sent(world, 12_500_000)
    world.rpc.intercept = lie("eth_getBalance", "eth_getCode", to=lambda _: "0x1bc16d674ec80000")
    found = told(world, tmp_path)
    assert found["exit_code"] == Exit.LATER
    assert found["chains"][0]["holds"] == {"ETH": None, "USDC": "12.5", "USDbC": None}
    assert found["chains"][0]["code"] is None
    says = found["checks"]["Base ETH"]["says"]
    assert says.startswith("unknown: ") and "shows 2 ETH" in says and "shows 1 ETH" in says
    world.rpc.intercept = lie("eth_call", to=lambda _: "0x" + "00" * 32)
    found = told(world, tmp_path)
    assert found["chains"][0]["holds"]["USDC"] is None, "never zero because one says so"
    assert found["checks"]["Base USDC"]["says"].startswith("unknown: ")


HOSTILE: dict[str, Any] = {
    "more dollars than there are": lie("eth_call", to=lambda _: "0x" + "ff" * 32),
    "more ether than there is": lie("eth_getBalance", to=lambda _: "0x" + "f" * 64),
    "a number of a thousand digits": lie("eth_getBalance", to=lambda _: "0x" + "9" * 1000),
    "more transactions than a chain runs": lie("eth_getTransactionCount", to=lambda _: "0x" + "f" * 20),
    "code that is none": lie("eth_getCode", to=lambda _: "ef0100"),
    "three megabytes of code": lie("eth_getCode", to=lambda _: "0x" + "00" * (3 << 20)),
    "silence": dead,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_provider_is_unknown_and_nothing_is_zero(name: str, world: World, tmp_path: Path) -> None:
    """Alone or beside an honest one: exit 4, nothing of it stands in the document, and the sentence names it."""
    world.rpc.intercept = HOSTILE[name]
    for urls in (world.rpc.url, both(world)):
        found = told(world, tmp_path, TOPUP_CHAIN__RPC_URLS=urls)
        base = found["chains"][0]
        assert found["exit_code"] == Exit.LATER
        assert (base["holds"], base["nonce"], base["code"]) == ({}, None, None)
        says = found["checks"]["Base"]["says"]
        assert says.startswith("unknown: ") and "127.0.0.1" in says and len(says) < 1000


def test_of_three_one_that_is_wrong_does_not_matter(world: World, tmp_path: Path) -> None:
    """Two honest ones agree."""
    third = world.provider()
    third.intercept = HOSTILE["more dollars than there are"]
    found = told(world, tmp_path, TOPUP_CHAIN__RPC_URLS=f"{third.url},{both(world)}")
    assert found["exit_code"] == Exit.OK
    assert found["chains"][0]["holds"]["ETH"] == "1"


def test_a_provider_of_another_chain_is_for_a_person(world: World, tmp_path: Path) -> None:
    """Trying again does not help; the setting is named."""
    found = told(world, tmp_path, TOPUP_RAILS__MPP__RPC_URLS=world.rpc.url)
    assert found["exit_code"] == Exit.PERSON
    assert "speaks for chain 8453, not 4217" in found["checks"]["Tempo"]["says"]
    assert found["checks"]["Tempo"]["remedy"] == "correct rails.mpp.rpc_urls"


# -- the key ------------------------------------------------------------------------------------------------------


def keystore(world: World, folder: Path, **other: str) -> dict[str, str]:
    """The wallet's key in a keystore whose words may be others, and the settings that name it; no password yet."""
    made = Account.encrypt(world.key.to_bytes(), PASSWORD, kdf="pbkdf2", iterations=2) | other
    (folder / "w.json").write_text(json.dumps(made), encoding="utf-8")
    named = {"TOPUP_WALLET__KEYSTORE": str(folder / "w.json")}
    return named | {"TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(folder / "password")}


def unlocked(world: World, folder: Path, **settings: str) -> Result:
    """Check with a keystore in the place of the raw key."""
    own = world.environment() | settings
    del own["TOPUP_WALLET__PRIVATE_KEY"]
    return asked(folder / "state", "wallet", "check", **own)


def test_without_the_password_the_address_is_enough(world: World, tmp_path: Path) -> None:
    """The chain is asked by what the keystore states, and that it was not opened is a warning."""
    done = unlocked(world, tmp_path, **keystore(world, tmp_path))
    assert done.exit_code == Exit.OK, done.stderr
    assert world.wallet in done.stdout
    assert "warn  key" in done.stdout and "not opened" in done.stdout
    assert "1 ETH" in done.stdout


def test_an_address_alone_is_enough(world: World, tmp_path: Path) -> None:
    """Whoever only watches has no key here, and nothing is said of one."""
    watching = {"TOPUP_MODE": "observe", "TOPUP_WALLET__ADDRESS": world.wallet}
    done = unlocked(world, tmp_path, **watching)
    assert done.exit_code == Exit.OK, done.stderr
    assert f"ok    wallet                 {world.wallet}" in done.stdout
    assert "Base ETH               1 ETH" in done.stdout and " key " not in done.stdout
    none = unlocked(world, tmp_path, TOPUP_MODE="observe")
    assert (none.exit_code, none.stdout) == (Exit.USAGE, "")
    assert "no wallet is set" in none.stderr


def test_a_wrong_password_is_for_a_person(world: World, tmp_path: Path) -> None:
    """The settings are wrong, which is said first; the chain can wait."""
    named = keystore(world, tmp_path)
    (tmp_path / "password").write_text("another horse", encoding="utf-8")
    done = unlocked(world, tmp_path, **named)
    assert (done.exit_code, done.stdout) == (Exit.USAGE, "")
    assert "does not open: wrong password" in done.stderr


def test_a_keystore_that_lies_about_its_address_is_found(world: World, tmp_path: Path) -> None:
    """Opened with its password, it holds another key: nothing is asked for an address that would be paid in vain."""
    stranger = "0x" + "11" * 20
    named = keystore(world, tmp_path, address=stranger)
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    done = unlocked(world, tmp_path, **named)
    assert done.exit_code == Exit.USAGE
    assert f"says that it holds the key of {stranger}" in done.stderr
    assert world.wallet.lower() in done.stderr
    assert done.stdout == ""


# -- Tempo --------------------------------------------------------------------------------------------------------


def test_every_dollar_of_tempo_is_looked_for(tmp_path: Path) -> None:
    """USDC.e pays and pathUSD is a stray; those it has not are none; Base is not asked, and says so."""
    with selling() as world:
        chain: Any = world.chain
        world.do(lambda: chain.fund(world.wallet, 2_000_000, PATH_USD))
        own = world.environment() | buying(world.rpc.url)
        del own["TOPUP_CHAIN__RPC_URLS"]
        done = asked(tmp_path, "wallet", "check", "--json", **own)
        swapped = asked(tmp_path, "wallet", "check", **own, TOPUP_RAILS__MPP__PAY_WITH="pathusd")
        world.do(lambda: chain.set_code(world.wallet, bytes.fromhex("ef0100" + USDC_E[2:])))
        delegated = asked(tmp_path, "wallet", "check", **own)
    assert done.exit_code == Exit.OK, done.stderr
    (tempo,) = json.loads(done.stdout)["chains"]
    assert tempo["holds"] == {"USDC.e": "25", "pathUSD": "2", "OUSD": None, "MACH": None}
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "set rails.mpp.pay_with = pathusd" in checks["Tempo pathUSD"]["remedy"]
    assert checks["Base"]["says"].startswith("skipped: no rail in use pays there")
    assert "warn  Tempo USDC.e" in swapped.stdout and "ok    Tempo pathUSD" in swapped.stdout
    assert delegated.exit_code == Exit.OK
    assert "warn  Tempo code" in delegated.stdout and "the key signs as before" in delegated.stdout


def test_an_access_key_that_was_sent_money_is_found(tmp_path: Path) -> None:
    """The account pays, and the key's own address should hold nothing: what lies there has to go to the account."""
    with account() as world:
        chain: Any = world.chain
        world.do(lambda: chain.fund(world.wallet, 7_000_000, USDC_E))
        done = Owner(world, tmp_path).types("wallet", "check", "--json", TOPUP_CHAIN__RPC_URLS=None)
    document = json.loads(done.stdout)
    assert done.returncode == Exit.OK, done.stderr
    root, key = document["chains"]
    assert (document["address"].lower(), root["address"]) == (shown(ROOT), document["address"])
    assert (root["holds"]["USDC.e"], key["holds"]["USDC.e"], key["address"]) == ("100", "7", world.wallet)
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["Tempo USDC.e"]["says"] == "100 USDC.e"
    assert checks["Tempo access key USDC.e"]["says"].startswith("warning: 7 USDC.e")
    assert checks["Tempo access key USDC.e"]["remedy"] == f"send it to the account that pays, {document['address']}"
    assert "for which the key is an access key" in checks["wallet"]["says"]
