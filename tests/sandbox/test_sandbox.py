"""Does `topup sandbox` tell the truth? The real daemon in the embedded world, with and without every fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.terminal import command
from topup.commands import demo
from topup.commands.demo_ground import ground
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.faults import FAULTS

TOTAL_UNITS = 10_500_000


def expected_spend() -> int:
    """Return what 10.5 USDC cost in the 0.05 % pool of a fresh world, from the pool's own reserves.

    Constant product with the fee taken off the input, as Uniswap V3 does within one range: both divisions round up.
    """
    pool = [w for w in contracts.pool_price(500, 3000 * 10**8) if w.address == contracts.POOLS[500]]
    weth, usdc = (w.value for w in sorted(pool, key=lambda w: w.slot))  # token0 is WETH: the lower address
    net = -(-weth * TOTAL_UNITS // (usdc - TOTAL_UNITS))
    return -(-net * 1_000_000 // (1_000_000 - 500))


def perform(directory: Path, fault: str) -> tuple[dict[str, Any], int, list[str]]:
    """Run a rehearsal in this process; return its document, its exit code and its story."""
    lines: list[str] = []
    told, code = demo.perform(ground(), directory, fault=FAULTS[fault], say=lines.append)
    return told, int(code), lines


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_as_its_line_says(name: str, tmp_path: Path) -> None:
    """Result, exit code and ETH spent are exactly what `--list-faults` promises, and the books match."""
    fault = FAULTS[name]
    told, code, lines = perform(tmp_path, name)
    story = "\n".join(lines)
    assert told["result"] == fault.expected_result, story
    assert code == fault.expected_exit, story
    spent = int(told["eth_spent_wei"])
    assert spent == 0 if fault.expected_spent == "zero" else abs(spent - expected_spend()) <= 1, story
    assert told["books_match_chain"] is True, story
    store = SqliteStore.open_reader(tmp_path)
    paid = [
        a for t in store.latest("default", 10) for a in t.attempts if a.inclusion is not None and a.inclusion.success
    ]
    assert len(paid) == (0 if fault.expected_spent == "zero" else 1)


def test_a_revert_is_booked_and_the_same_charge_is_paid(tmp_path: Path) -> None:
    """After a price jump there are two attempts of one charge, and the first one's gas is in the books."""
    perform(tmp_path, "chain-price-jumps")
    store = SqliteStore.open_reader(tmp_path)
    (topup,) = store.latest("default", 10)
    assert [a.inclusion.success for a in topup.attempts if a.inclusion is not None] == [False, True]
    assert {a.charge_seq for a in topup.attempts} == {1}
    assert [a.plan.nonce for a in topup.attempts] == [0, 1]
    assert [e.text for e in store.entries("default") if e.topup_id] == ["payment reverted", "payment", "credits posted"]


def test_the_sandbox_ignores_every_setting_of_its_surroundings(tmp_path: Path) -> None:
    """Hostile variables and a hostile settings file change nothing: the run refills and spends nobody's money."""
    hostile = tmp_path / "topup.toml"
    hostile.write_text('mode = "observe"\n[api]\nurl = "https://thief.example"\n', encoding="utf-8")
    (tmp_path / "config" / "topup").mkdir(parents=True)
    (tmp_path / "config" / "topup" / "topup.toml").write_text(hostile.read_text(encoding="utf-8"), encoding="utf-8")
    ledger = tmp_path / "must-not-appear"
    done = command(
        "sandbox",
        "--json",
        env={
            "TOPUP_CONFIG": str(hostile),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "TOPUP_STATE_DIR": str(ledger),
            "TOPUP_API__URL": "https://thief.example",
            "TOPUP_CHAIN__RPC_URLS": "https://thief.example",
            "TOPUP_WALLET__PRIVATE_KEY": "0x" + "11" * 32,
            "TOPUP_NO_SUCH_THING": "1",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "ALL_PROXY": "http://127.0.0.1:9",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
            "NOTIFY_SOCKET": str(tmp_path / "nobody"),
        },
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["result"] == "refilled"
    assert not ledger.exists()


def test_the_json_document_has_its_promised_form(tmp_path: Path) -> None:
    """One document, schema 1, amounts as strings, and nothing else on standard output."""
    done = command("sandbox", "--json", "--keep", str(tmp_path / "kept"))
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    for name in ("credits_before", "credits_after", "eth_spent_wei", "gas_wei", "tx_hash", "seconds_dip_to_posted"):
        assert isinstance(told[name], str), name
    assert (tmp_path / "kept" / "ledger.sqlite3").exists()
    kept = command("history", "--json", env={"TOPUP_STATE_DIR": str(tmp_path / "kept")})
    assert json.loads(kept.stdout)["topups"][0]["tx_hashes"] == [told["tx_hash"]]
