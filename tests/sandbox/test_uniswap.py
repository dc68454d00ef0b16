"""Does our payment contract do through Uniswap's real router what it does through ours?"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_abi import decode
from eth_utils.crypto import keccak

from tests import tools
from tests.sandbox.test_contracts import (
    ENOUGH,
    ETH_USD,
    FEE_DESTINATION,
    HONEST,
    NOW,
    OPERATOR,
    PAYER,
    RECIPIENT,
    TOTAL,
    Outcome,
    calldata,
    quote_data,
    reason,
    swap_data,
)
from tests.world import uniswap
from topup.sandbox import contracts as world


class Reverted(Exception):
    """The node refused; `data` is what a call reverted with, None when it was something else."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.data = bytes.fromhex(error["data"][2:]) if str(error.get("data")).startswith("0x") else None


class Anvil:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self._ids = itertools.count(1)

    def rpc(self, method: str, params: list[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        answer = self._client.post("/", json=body).json()
        if "error" in answer:
            raise Reverted(answer["error"])
        return answer["result"]

    def call(self, to: str, data: bytes, value: int = 0) -> Outcome:
        transaction = {"from": PAYER, "to": to, "data": "0x" + data.hex(), "value": hex(value)}
        try:
            output = self.rpc("eth_call", [transaction, "latest"])
        except Reverted as error:
            if error.data is None:
                raise
            return Outcome(ok=False, output=error.data, gas_used=0, logs=())
        return Outcome(ok=True, output=bytes.fromhex(output[2:]), gas_used=0, logs=())

    def quote(self, amount: int, fee: int) -> int:
        outcome = self.call(world.QUOTER_V2, quote_data(amount, fee))
        assert outcome.ok, reason(outcome)
        return int(decode(["uint256"], outcome.output)[0])

    def dollars(self, address: str) -> int:
        data = calldata("balanceOf(address)", ["address"], [address])
        return int.from_bytes(self.call(world.USDC, data).output, "big")

    def close(self) -> None:
        self._client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """An anvil with our genesis, on which `uniswap.deploy` has put the real contracts."""
    binary = tools.require("anvil")
    tools.require("uniswap")
    accounts = world.genesis(
        operator=OPERATOR,
        fee_destination=FEE_DESTINATION,
        eth_usd=ETH_USD,
        l1_fee_per_byte=0,
        timestamp=NOW - 60,
        funded={PAYER: 10**18},
    )
    genesis: Path = tmp_path_factory.mktemp("anvil") / "genesis.json"
    genesis.write_text(json.dumps(world.genesis_json(accounts, timestamp=NOW - 60)))
    port = free_port()
    options = [
        "--init",
        str(genesis),
        "--chain-id",
        str(world.CHAIN_ID),
        "--port",
        str(port),
        "--silent",
        "--hardfork",
        "prague",
    ]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    client = Anvil(f"http://127.0.0.1:{port}")
    try:
        for attempt in itertools.count():
            try:
                client.rpc("eth_chainId", [])
                break
            except httpx.TransportError:
                if attempt > 200 or process.poll() is not None:
                    raise
                time.sleep(0.02)
        uniswap.deploy(client.rpc)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


@pytest.fixture
def chain(anvil: Anvil) -> Iterator[Anvil]:
    """The same world for every test."""
    snapshot = anvil.rpc("evm_snapshot", [])
    anvil.rpc("evm_setNextBlockTimestamp", [hex(NOW + 60)])
    anvil.rpc("evm_mine", [])
    yield anvil
    anvil.rpc("evm_revert", [snapshot])


@pytest.mark.parametrize("fee", [500, 3000])
def test_quote_is_exact(chain: Anvil, fee: int) -> None:
    """Through the real pools and router too, the quote is spent to the wei and one wei less reverts."""
    quoted = chain.quote(TOTAL, fee)
    short = chain.call(world.PAYMENT_PROTOCOL, swap_data(HONEST, fee), value=quoted - 1)
    assert reason(short) == "SwapFailedString(V3TooMuchRequested)"
    chain.rpc("anvil_impersonateAccount", [PAYER])
    transaction = {"from": PAYER, "to": world.PAYMENT_PROTOCOL, "data": "0x" + swap_data(HONEST, fee).hex()}
    before = int(chain.rpc("eth_getBalance", [PAYER, "latest"]), 16)
    sent = chain.rpc("eth_sendTransaction", [{**transaction, "value": hex(ENOUGH)}])
    receipt = uniswap.receipt_of(chain.rpc, sent)
    assert receipt["status"] == "0x1" and len(receipt["logs"]) == 8
    gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert before - int(chain.rpc("eth_getBalance", [PAYER, "latest"]), 16) == quoted + gas
    last = receipt["logs"][-1]
    assert last["topics"][0] == "0x" + keccak(text="Transferred(address,bytes16,address,address,uint256,address)").hex()
    assert decode(["bytes16", "address", "address", "uint256"], bytes.fromhex(last["data"][2:]))[3] == quoted
    assert chain.dollars(RECIPIENT) == HONEST.recipient_amount
    assert chain.dollars(FEE_DESTINATION) == HONEST.fee_amount


def test_price(chain: Anvil) -> None:
    """Ours and Uniswap's pools of the same depth ask the same for ten dollars, but for a billionth."""
    real = chain.quote(TOTAL, 500)
    snapshot = chain.rpc("evm_snapshot", [])
    genesis = world.genesis(
        operator=OPERATOR, fee_destination=FEE_DESTINATION, eth_usd=ETH_USD, l1_fee_per_byte=0, timestamp=NOW, funded={}
    )
    for address in (world.POOLS[500], world.QUOTER_V2):
        chain.rpc("anvil_setCode", [address, "0x" + genesis[address].code.hex()])
        for slot in range(8):
            value = genesis[address].storage.get(slot, 0)
            chain.rpc("anvil_setStorageAt", [address, f"0x{slot:064x}", f"0x{value:064x}"])
    ours = chain.quote(TOTAL, 500)
    chain.rpc("evm_revert", [snapshot])
    assert abs(ours - real) <= real // 10**9


@pytest.mark.parametrize(
    ("value", "fee", "words"),
    [
        (0, 500, "SwapFailedString(V3TooMuchRequested)"),
        (3 * 10**15, 3000, "SwapFailedString(V3TooMuchRequested)"),
        (ENOUGH, 10_000, "SwapFailedBytes(b'')"),
        (ENOUGH, 1, "SwapFailedBytes(b'')"),
    ],
)
def test_swap_failures(chain: Anvil, value: int, fee: int, words: str) -> None:
    """Too little value and a missing tier fail in the words of the published contract."""
    assert reason(chain.call(world.PAYMENT_PROTOCOL, swap_data(HONEST, fee), value=value)) == words


def test_broken_dollar(chain: Anvil) -> None:
    """A paused dollar fails in the pool, a blacklisted recipient in the router."""
    writes = [*world.usdc_paused(paused=True), *world.usdc_paused(paused=False), *world.usdc_blacklisted(RECIPIENT)]
    words = ["SwapFailedString(TF)", "ok", "SwapFailedString(TRANSFER_FAILED)"]
    for (address, slot, value), expected in zip(writes, words, strict=True):
        chain.rpc("anvil_setStorageAt", [address, f"0x{slot:064x}", f"0x{value:064x}"])
        assert reason(chain.call(world.PAYMENT_PROTOCOL, swap_data(HONEST), value=ENOUGH)) == expected


def test_missing_tier(chain: Anvil) -> None:
    """The real quoter too reverts without data for a tier that has no pool."""
    outcome = chain.call(world.QUOTER_V2, quote_data(TOTAL, 10_000))
    assert (outcome.ok, outcome.output) == (False, b"")


def test_permit2(chain: Anvil) -> None:
    """Permit2 knows this chain: its domain separator is the one of chain 8453 at its own address."""
    separator = chain.call(world.PERMIT2, calldata("DOMAIN_SEPARATOR()", [], [])).output
    kind = keccak(text="EIP712Domain(string name,uint256 chainId,address verifyingContract)")
    chain_id = world.CHAIN_ID.to_bytes(32, "big")
    address = bytes.fromhex(world.PERMIT2[2:]).rjust(32, b"\0")
    assert separator == keccak(kind + keccak(text="Permit2") + chain_id + address)
