"""Does `topup sandbox` show every way to pay as truly as the first one, and say so when it cannot?"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from tests import tools
from tests.sandbox.terminal import command, served
from topup.accounting.journal import CREDITS, GAS, WALLET, Commodity
from topup.commands.cli import app
from topup.domain.errors import Exit
from topup.ledger.store import SqliteStore
from topup.sandbox.fault import Fault
from topup.sandbox.faults import FAULTS, of_rail
from topup.sandbox.mpp_faults import MPP_FAULTS
from topup.sandbox.x402_faults import X402_FAULTS

# Asset, what a purchase of ten dollars costs in it, and how it is asked for.
WAYS: Final = {
    "usdc": ("USDC", Decimal("10.5"), ["--rail", "coinbase", "--pay-with", "usdc"]),
    "x402": ("USDC", Decimal(10), ["--rail", "x402"]),
    "mpp": ("USDC.e", Decimal(10), ["--rail", "mpp"]),
}
KEYS: Final = {
    *("schema", "rail", "result", "credits_before", "credits_after", "asset", "asset_spent", "asset_fee"),
    *("eth_spent_wei", "gas_wei", "usdc_paid_units", "usd_per_eth", "usd_per_credit", "tx_hash"),
    *("books_match_chain", "seconds_dip_to_posted"),
}
# What no line of a story may say where no charge is signed by an operator and no ETH is swapped.
OF_ETH: Final = ("0 ETH", "% pool", "ETH spent", "dollars per ETH", "None")
OF_CHARGES: Final = ("requesting a charge", "pinned operator", "with nonce")


def arguments(way: str) -> list[str]:
    """Return the options that ask for this way to pay; anvil is the chain where there is no other."""
    more = ["--anvil", str(tools.require("anvil"))] if way == "mpp" else []
    return [*WAYS[way][2], *more]


def table(way: str) -> Mapping[str, Fault]:
    """Return what can go wrong on this way to pay."""
    return of_rail("coinbase", "usdc") if way == "usdc" else of_rail(way)


def sandbox(*options: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["sandbox", *options])


def rows() -> Iterator[Any]:
    """Name each row of each rail's table, and leave all but the quickest to the long run."""
    for way in WAYS:
        for name, fault in table(way).items():
            marks = [] if name == "wallet-low" else [pytest.mark.long]
            yield pytest.param(way, fault, id=f"{way}-{name}", marks=marks)


def booked(ledger: Path, account: str, commodity: Commodity) -> int:
    """Return what the journal says of one account."""
    lines = [x for e in SqliteStore.open_reader(ledger).entries("default") if e.topup_id for x in e.lines]
    return sum(x.units for x in lines if (x.account, x.commodity) == (account, commodity))


@pytest.mark.parametrize("way", WAYS)
def test_a_refill_ends_in_the_same_document_on_every_rail(way: str, tmp_path: Path) -> None:
    """One document of one form; it says what the kept ledger says, and x402 alone costs the wallet no fee."""
    done = sandbox(*arguments(way), "--json", "--keep", str(tmp_path))
    assert done.exit_code == Exit.OK, done.output
    told = json.loads(done.stdout)
    asset, cost, _ = WAYS[way]
    assert set(told) == KEYS
    assert (told["schema"], told["result"], told["books_match_chain"]) == (1, "refilled", True)
    assert told["rail"] == ("coinbase" if way == "usdc" else way)
    assert (told["asset"], Decimal(told["asset_spent"]), told["eth_spent_wei"]) == (asset, cost, "0")
    assert told["usd_per_eth"] is None
    commodity = Commodity(asset)
    units = (cost + Decimal(told["asset_fee"])) * 10**6
    assert units == -booked(tmp_path, WALLET, commodity)
    assert Decimal(told["asset_fee"]) * 10**6 == booked(tmp_path, GAS, commodity)
    assert (told["gas_wei"] != "0", told["asset_fee"] != "0") == (way == "usdc", way == "mpp")
    assert int(told["gas_wei"]) == -booked(tmp_path, WALLET, Commodity.ETH)
    assert booked(tmp_path, CREDITS, Commodity.CREDIT) == 10_000_000
    (topup,) = SqliteStore.open_reader(tmp_path).latest("default", 10)
    assert topup.paying is not None
    assert topup.paying.tx_hash is not None
    assert told["tx_hash"] == "0x" + topup.paying.tx_hash.hex()


@pytest.mark.parametrize(("way", "fault"), [*rows()])
def test_every_fault_of_a_rail_ends_as_its_line_says(way: str, fault: Fault) -> None:
    """Result, exit code and dollars spent are what `--list-faults` promises, told in the rail's words."""
    done = sandbox(*arguments(way), "--fault", fault.name)
    asset, cost, _ = WAYS[way]
    assert done.exit_code == fault.expected_exit, done.output
    if fault.expected_result == "refilled":
        assert "books      match the chain to the unit" in done.output
        assert f"{asset} spent" in done.output
    else:
        assert f"result     {fault.expected_result}\n" in done.output
        spent = cost if fault.expected_spent == "one" else 0
        assert done.output.endswith(f"{spent} {asset}\nbooks      match the chain to the unit\n"), done.output
    for foreign in OF_ETH if way == "usdc" else OF_ETH + OF_CHARGES:
        assert foreign not in done.output, done.output


def test_each_rail_lists_its_own_faults() -> None:
    """Every row of the rail's table and no other; a charge paid in dollars is not spoilt by the price of ETH."""
    listed = {
        way: {line.split()[0] for line in sandbox(*w[2], "--list-faults").output.splitlines()}
        for way, w in WAYS.items()
    }
    assert listed["mpp"] == set(MPP_FAULTS)
    assert listed["x402"] == {name for name, row in X402_FAULTS.items() if "venice" in row.sellers}
    assert set(FAULTS) - listed["usdc"] == {"chain-price-jumps", "chain-dear-pool"}


def test_a_tempo_chain_is_asked_for_by_package_and_option() -> None:
    """Without an anvil, without a file, and with one that is no anvil: each says which to install and where it goes."""
    true = str(tools.program("true"))
    for wrong in ([], ["--anvil", "/no/such/anvil"], ["--anvil", true]):
        done = sandbox("--rail", "mpp", *wrong)
        assert done.exit_code == Exit.USAGE, done.output
        assert "npm install @foundry-rs/anvil" in done.stderr
        assert "--anvil" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rail", "carrier-pigeon"], "--rail"),
        (["--rail", "x402", "--pay-with", "usdc"], "only coinbase leaves the choice"),
        (["--rail", "x402", "--fault", "other-operator"], "topup sandbox --rail x402 --list-faults"),
        (["--pay-with", "usdc", "--fault", "chain-dear-pool"], "--list-faults"),
        (["--fault", "no-such"], "--list-faults"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(options: list[str], said: str) -> None:
    """Exit 2, on standard error, with what to do."""
    done = sandbox(*options)
    assert done.exit_code == Exit.USAGE
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("way", ["eth", "x402", *(pytest.param(w, marks=pytest.mark.long) for w in ("usdc", "mpp"))])
def test_a_served_world_sells_by_its_rail(way: str) -> None:
    """The printed environment is all that check, purchase and status need; the ledger in it is one of its own."""
    with served([] if way == "eth" else arguments(way)) as env:
        assert env["TOPUP_STATE_DIR"] != str(Path.home() / ".local" / "state" / "topup")
        due = command("check", "--json", env=env)
        assert due.returncode in (Exit.OK, Exit.LOW), due.stderr
        bought = command("once", "--amount", "12.5", "--yes", "--json", env=env)
        assert bought.returncode == Exit.OK, bought.stderr
        told = json.loads(bought.stdout)
        assert (told["outcome"], told["topup"]["amount_usd"]) == ("done", "12.5")
        status = command("status", "--json", env=env)
        assert json.loads(status.stdout)["last"][0]["state"] == "done"
