"""Does `topup fund` lead the money to where a payment is made from?"""

import json
import subprocess
from typing import Any

import pytest
import zxingcpp
from eth_utils.address import to_checksum_address

from tests.tools import environ
from tests.world.served import TOPUP
from topup.domain.dollars import BASE_DOLLAR, PATH_DOLLAR, TEMPO_DOLLAR

WALLET = "0x00000000000000000000000000000000000000A1"
ROOT_ACCOUNT = "0x00000000000000000000000000000000000000A2"


def funded(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = environ(**{"wallet__address": WALLET, **settings})
    command = [*TOPUP, "fund", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def told(*arguments: str, **settings: str) -> dict[str, Any]:
    done = funded(*arguments, "--json", **settings)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("settings", "to", "chain", "token", "amount"),
    [
        # 25 dollars, 6 % at most for the seller, and 0.10 for the network, four times.
        pytest.param({}, WALLET, 4217, TEMPO_DOLLAR.token, "106.4", id="mpp"),
        pytest.param({"rails__mpp__pay_with": "pathusd"}, WALLET, 4217, PATH_DOLLAR.token, "106.4", id="mpp pathusd"),
        pytest.param(
            {"rails__mpp__root": ROOT_ACCOUNT, "wallet__address": ROOT_ACCOUNT}, ROOT_ACCOUNT, 4217,
            TEMPO_DOLLAR.token, "106.4", id="root",
        ),
        pytest.param({"rails__use": "x402", "api__kind": "x402"}, WALLET, 8453, BASE_DOLLAR.token, "100", id="x402"),
        pytest.param(
            {"rails__use": "coinbase", "rails__coinbase__pay_with": "usdc"}, WALLET, 8453, BASE_DOLLAR.token, "105.5",
            id="coinbase usdc",
        ),
        pytest.param({"rails__use": "coinbase"}, WALLET, 8453, None, None, id="coinbase eth"),
    ],
)  # fmt: skip
def test_each_way_to_pay_names_its_own(
    settings: dict[str, str], to: str, chain: int, token: bytes | None, amount: str | None
) -> None:
    """Address, chain, token and amount are those that a payment is made from; what ETH is worth is not guessed."""
    document = told(**settings)
    assert (document["address"], document["chain_id"], document["amount"]) == (to, chain, amount)
    assert document["token"] == (str(to_checksum_address(token)) if token is not None else None)
    assert document["mistakes"]


def test_a_camera_reads_the_code() -> None:
    """The letters on the terminal, as black and white, are a code for the address and its chain."""
    lines = funded("--qr").stdout.split("\n\n")[1].splitlines()
    halves = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
    rows = [bytes(halves[letter][half] for letter in line) for line in lines for half in (0, 1)]
    wide = b"".join(bytes(cell for cell in row for _ in range(8)) for row in rows for _ in range(8))
    size = (8 * len(rows), 8 * len(rows[0]))
    found = zxingcpp.read_barcodes(memoryview(wide).cast("B", size))
    assert [code.text for code in found] == [f"ethereum:{WALLET}@4217"]


def test_what_is_missing_is_said_with_what_to_do() -> None:
    """No wallet, and a way that is none."""
    nobody = subprocess.run([*TOPUP, "fund"], env=environ(), capture_output=True, text=True, check=False)
    assert (nobody.returncode, "topup wallet new" in nobody.stderr) == (2, True)
    strange = funded("--rail", "cheque")
    assert (strange.returncode, "mpp" in strange.stderr) == (2, True)
