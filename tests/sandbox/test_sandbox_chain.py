"""Do both chains of the sandbox, the one in this process and anvil, behave as a payer's node would?

Every story above the ruled lines is told twice, once on each. Where anvil is known to differ, the story says so.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_bloom.bloom import BloomFilter
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from tests import tools
from tests.sandbox import paying
from tests.sandbox.paying import NOW
from tests.sandbox.paying import PAYER_KEY as KEY
from topup.chain.broadcast import classify
from topup.ports.chain import Delivery
from topup.sandbox import contracts as world
from topup.sandbox.anvil import Anvil
from topup.sandbox.evm import L1_FEE_VAULT, Evm
from topup.sandbox.rpc import Chain, Drop, RpcError, RpcServer

PAYER: str = KEY.public_key.to_checksum_address()
FRIEND = str(to_checksum_address("0x" + "f7" * 20))
CONTRACT = str(to_checksum_address("0x" + "c0" * 20))
VAULT = "0x" + L1_FEE_VAULT.hex()
ETHER = 10**18
GWEI = 10**9
L1_WEI_PER_BYTE = 15_000_000

# Small programs. Each is the whole code of a contract.
REVERT_WITH_INPUT = bytes.fromhex("365f5f37365ffd")
LOG_INPUT_UNDER_TOPIC_7 = bytes.fromhex("365f5f376007365fa1")
COUNT_CALLS = bytes.fromhex("5f5460010180805f555f5260205ff3")  # returns the new count
BLOCK_TIME = bytes.fromhex("425f5260205ff3")
CLEAR_SLOT_0 = bytes.fromhex("5f5f5500")
LOOP_FOR_EVER = bytes.fromhex("5b5f56")
CALLER_FUNDS = bytes.fromhex("33315f5260205ff3")  # the caller's balance
OWN_FUNDS = bytes.fromhex("30315000")  # reads its own balance: cheap, for its address was touched by being called
STOP = bytes.fromhex("00")
INSUFFICIENT = keccak(text="InsufficientBalance(uint256)")[:4] + (5).to_bytes(32, "big")
TOPIC_7 = f"0x{7:064x}"


def genesis() -> dict[str, world.Account]:
    return paying.genesis(l1_fee_per_byte=L1_WEI_PER_BYTE)


def embedded(**more: Any) -> Evm:
    price: Any = more.pop("l1_fee_per_byte", L1_WEI_PER_BYTE)
    depths = {"safe_depth": 1, "finalized_depth": 2}
    return Evm(genesis(), now=lambda: NOW, l1_fee_per_byte=price, **(depths | more))


def on_anvil() -> Anvil:
    return Anvil(tools.require("anvil"), genesis(), timestamp=NOW, now=lambda: NOW, optimism=True)


@pytest.fixture
def evm() -> Evm:
    return embedded()


def test_anvil_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of its older blocks go into a folder that ends with it, none into the home: a day of them fills it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chain = on_anvil()
    for _ in range(600):  # it keeps the newest five hundred in memory
        chain.rpc("evm_mine", [])
    assert list(tmp_path.rglob("*/*.json")), "it keeps none on the disk: this proves nothing"
    chain.stop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture(params=["evm", "anvil"])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """A young chain with an L1 fee; the payer holds one ether, and "safe" is one block behind, "finalized" two."""
    one: Chain = embedded() if request.param == "evm" else on_anvil()
    yield one
    one.stop()


def signed(nonce: int = 0, **more: Any) -> str:
    fields = {"to": FRIEND, "value": 10**15, "gas": 100_000, "maxFeePerGas": GWEI, "maxPriorityFeePerGas": 10**6}
    if "gasPrice" in more:
        fields = {"to": FRIEND, "value": 10**15, "gas": 100_000}
    fields |= {"nonce": nonce, "chainId": world.CHAIN_ID} | more
    raw: bytes = Account.sign_transaction(fields, KEY.to_bytes()).raw_transaction
    return "0x" + raw.hex()


def send(chain: Chain, nonce: int = 0, **more: Any) -> str:
    return str(chain.rpc("eth_sendRawTransaction", [signed(nonce, **more)]))


def mined(chain: Chain, nonce: int = 0, **more: Any) -> Any:
    """Send and mine; return the receipt."""
    sent = send(chain, nonce, **more)
    chain.mine()
    return receipt(chain, sent)


def receipt(chain: Chain, sent: str) -> Any:
    return chain.rpc("eth_getTransactionReceipt", [sent])


def number(chain: Chain, method: str, *params: Any) -> int:
    return int(chain.rpc(method, list(params)), 16)


def balance(chain: Chain, address: str, tag: Any = "latest") -> int:
    return number(chain, "eth_getBalance", address, tag)


def block(chain: Chain, tag: str = "latest", *, full: bool = False) -> Any:
    return chain.rpc("eth_getBlockByNumber", [tag, full])


def call(chain: Chain, data: bytes = b"", tag: Any = "latest", **more: Any) -> bytes:
    asked = {"from": PAYER, "to": CONTRACT, "data": "0x" + data.hex(), **more}
    return bytes.fromhex(chain.rpc("eth_call", [asked, tag])[2:])


def refused(chain: Chain, method: str, *params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        chain.rpc(method, list(params))
    return caught.value


# -- money --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "tells"),
    [
        pytest.param({}, {"status": "0x1", "type": "0x2", "gasUsed": hex(21_000)}, id="a transfer"),
        pytest.param({"to": CONTRACT}, {"status": "0x0", "logs": []}, id="one that reverts keeps its value"),
        pytest.param(
            {"gasPrice": 2 * GWEI},
            {"type": "0x0", "gasUsed": hex(21_000), "effectiveGasPrice": hex(2 * GWEI)},
            id="one with a plain gas price pays that price, whatever the base fee",
        ),
    ],
)
def test_what_a_transaction_costs(chain: Chain, more: dict[str, Any], tells: dict[str, Any]) -> None:
    """Its value, its gas and an L1 fee that the vault receives: to the wei, and not a wei more."""
    chain.set_code(CONTRACT, REVERT_WITH_INPUT)
    told = mined(chain, **more)
    assert tells.items() <= told.items()
    value, l1_fee = 10**15 * int(told["status"], 16), balance(chain, VAULT)
    gas = int(told["gasUsed"], 16) * int(told["effectiveGasPrice"], 16)
    assert l1_fee > 0
    assert balance(chain, FRIEND) == value
    assert balance(chain, PAYER) == ETHER - value - gas - l1_fee
    assert told["type"] == "0x0" or int(told["effectiveGasPrice"], 16) == chain.base_fee + 10**6


# -- dry runs -----------------------------------------------------------------------------------------------------


SENTENCE = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (6).to_bytes(32, "big") + b"paused".ljust(32, b"\0")


def test_revert(chain: Chain) -> None:
    """What a contract reverts with comes back whole, as code 3 and hexadecimal data; a sentence is told as well.

    A bare revert has empty data, which is not the same as none.
    """
    chain.set_code(CONTRACT, REVERT_WITH_INPUT)
    for method in ("eth_call", "eth_estimateGas"):
        for data in (INSUFFICIENT, SENTENCE, b""):
            error = refused(chain, method, {"from": PAYER, "to": CONTRACT, "data": "0x" + data.hex()}, "latest")
            assert (error.code, error.data) == (3, "0x" + data.hex())
            assert error.message.startswith("execution reverted")
            assert data != SENTENCE or error.message == "execution reverted: paused"


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas"])
def test_refused_dry_run(chain: Chain, method: str) -> None:
    """With more value than the sender holds, or without enough gas, it is refused as an error and not as a revert."""
    chain.set_code(CONTRACT, STOP)
    error = refused(chain, method, {"from": FRIEND, "to": CONTRACT, "value": hex(ETHER)}, "latest")
    assert error.code != 3 and "insufficient funds" in error.message.lower()
    chain.set_code(CONTRACT, LOOP_FOR_EVER)
    error = refused(chain, method, {"from": PAYER, "to": CONTRACT, "gas": hex(50_000)}, "latest")
    assert (error.code, error.data) != (3, "0x") and "gas" in error.message.lower()


def test_history(chain: Chain) -> None:
    """A past state can be asked for by its number, long after it changed."""
    chain.set_code(CONTRACT, COUNT_CALLS)
    # A call that writes returns what it wrote, and nobody else sees it.
    assert [int.from_bytes(call(chain)) for _ in range(2)] == [1, 1]
    first = mined(chain, 0, to=CONTRACT, value=0)
    for nonce in (1, 2):
        mined(chain, nonce, to=CONTRACT, value=0)
    assert int.from_bytes(call(chain)) == 4
    then = first["blockNumber"]
    assert int.from_bytes(call(chain, tag=then)) == 2
    assert number(chain, "eth_getStorageAt", CONTRACT, "0x0", then) == 1
    assert number(chain, "eth_getTransactionCount", PAYER, then) == 1
    assert balance(chain, PAYER, "earliest") == ETHER
    # A block that is not there is null, and its state is an error rather than a guess.
    assert block(chain, "0x99") is None
    assert isinstance(refused(chain, "eth_getBalance", PAYER, "0x99"), RpcError)


def test_call_sees_block_time(chain: Chain) -> None:
    """A call runs at the time of the block it is made on."""
    chain.set_code(CONTRACT, BLOCK_TIME)
    chain.mine(NOW + 100)
    chain.mine(NOW + 200)
    assert int.from_bytes(call(chain)) == NOW + 200
    chain.mine(NOW + 300)
    assert int.from_bytes(call(chain, tag="0x2")) == NOW + 200


@pytest.mark.parametrize("code", [STOP, COUNT_CALLS, CLEAR_SLOT_0], ids=["nothing", "counter", "refund"])
def test_estimate_suffices(chain: Chain, code: bytes) -> None:
    """With the estimate as its limit a transaction succeeds, also when calldata costs more than what it runs."""
    chain.set_code(CONTRACT, code)
    for nonce, data in enumerate((b"", b"\1" * 600, b"\0" * 600)):
        chain.set_storage(CONTRACT, 0, 1)
        asked = {"from": PAYER, "to": CONTRACT, "data": "0x" + data.hex()}
        gas = number(chain, "eth_estimateGas", asked, "latest")
        assert mined(chain, nonce, to=CONTRACT, value=0, data="0x" + data.hex(), gas=gas)["status"] == "0x1"


# -- the mempool --------------------------------------------------------------------------------------------------


# What cannot be mined, with which nonce, and what our own broadcast makes of how it is refused.
REFUSED: list[tuple[int, dict[str, Any], Delivery]] = [
    (0, {"value": 3}, Delivery.NONCE_USED),
    (1, {"value": 100 * ETHER}, Delivery.FUNDS),
    (1, {"maxFeePerGas": 10, "maxPriorityFeePerGas": 1}, Delivery.UNDERPRICED),
    *((1, fields, Delivery.REFUSED) for fields in ({"gas": 20_999}, {"chainId": 1})),
]


def test_refusals(chain: Chain) -> None:
    """It is refused in words that our own broadcast understands, and does not wait."""
    mined(chain, 0)
    for nonce, fields, verdict in REFUSED:
        error = refused(chain, "eth_sendRawTransaction", signed(nonce, **fields))
        assert classify(error.message) == verdict, fields
        assert chain.pending() == 0


def test_sent_twice(chain: Chain) -> None:
    """The same bytes again are known while they wait, and their nonce is used once they are mined."""
    # Bytes that are no transaction are an error, and the node lives on.
    for text in ("0x", "0x1234", "0x02", "0x" + "c0" * 40, signed()[:-2]):
        assert isinstance(refused(chain, "eth_sendRawTransaction", text), RpcError)
    sent = send(chain)
    assert classify(refused(chain, "eth_sendRawTransaction", signed()).message) == Delivery.KNOWN
    # What was dropped is neither waiting nor mined, and can be sent again.
    assert chain.drop_pending() == 1
    chain.mine()
    assert (receipt(chain, sent), chain.rpc("eth_getTransactionByHash", [sent])) == (None, None)
    assert mined(chain)["transactionHash"] == sent
    again = classify(refused(chain, "eth_sendRawTransaction", signed()).message)
    assert again in (Delivery.KNOWN, Delivery.NONCE_USED)


def test_pending_nonce(chain: Chain) -> None:
    """The pending nonce counts what waits in an unbroken row; the latest one only what is mined."""

    def nonces() -> tuple[int, int]:
        latest, pending = (number(chain, "eth_getTransactionCount", PAYER, tag) for tag in ("latest", "pending"))
        return latest, pending

    send(chain, 0)
    send(chain, 2)
    assert nonces() == (0, 1)
    chain.mine()
    assert nonces() == (1, 1)
    assert chain.pending() == 1
    send(chain, 1)
    assert nonces() == (1, 3)
    chain.mine()
    assert nonces() == (3, 3)


def test_replacement(chain: Chain) -> None:
    """Of two transactions with one nonce the dearer one is mined, and the other is as if never sent."""
    first = send(chain, value=1)
    # One that offers no more is underpriced.
    message = refused(chain, "eth_sendRawTransaction", signed(value=2)).message
    assert (classify(message), message) == (Delivery.REPLACEMENT, "replacement transaction underpriced")
    second = send(chain, value=2, maxFeePerGas=2 * GWEI, maxPriorityFeePerGas=2 * 10**6)
    assert chain.pending() == 1
    assert chain.rpc("eth_getTransactionByHash", [first]) is None
    chain.mine()
    assert receipt(chain, first) is None
    assert receipt(chain, second)["status"] == "0x1"
    assert balance(chain, FRIEND) == 2


def test_transaction_by_hash(chain: Chain) -> None:
    """A waiting transaction is known without a block; a mined one names the block of its receipt."""
    sent = send(chain)
    waiting = chain.rpc("eth_getTransactionByHash", [sent])
    assert (waiting["blockHash"], waiting["nonce"], waiting["from"]) == (None, "0x0", PAYER.lower())
    chain.mine()
    told = receipt(chain, sent)
    found = chain.rpc("eth_getTransactionByHash", [sent])
    assert (found["blockHash"], found["blockNumber"]) == (told["blockHash"], told["blockNumber"])
    (listed,) = block(chain, told["blockNumber"], full=True)["transactions"]
    for name in ("hash", "to", "value", "input", "gas", "type", "maxFeePerGas", "maxPriorityFeePerGas", "r", "s"):
        assert found[name] == listed[name] == waiting[name]
    assert block(chain, told["blockNumber"])["transactions"] == [sent]


def test_time_and_finality(chain: Chain) -> None:
    """A block has the time it is given, and when that is not later than its parent's, the next second.

    Safe and finalized follow at their distance, and never ask for a block before the first.
    """

    def tags() -> list[int]:
        return [int(block(chain, tag)["number"], 16) for tag in ("latest", "safe", "finalized", "earliest")]

    times, seen = [], [tags()]
    for given in (NOW + 60, NOW + 10, None, NOW + 62):
        height = chain.mine(given)
        assert number(chain, "eth_blockNumber") == height
        times.append(int(block(chain)["timestamp"], 16) - NOW)
        seen.append(tags())
    assert times == [60, 61, 62, 63]
    assert seen == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0], [3, 2, 1, 0], [4, 3, 2, 0]]
    # Each block names its parent.
    assert block(chain, "0x2")["parentHash"] == block(chain, "0x1")["hash"]


def test_identity(chain: Chain) -> None:
    """It says it is Base, and what it does not serve."""
    assert chain.rpc("eth_chainId", []) == hex(8453)
    assert refused(chain, "eth_noSuchMethod").code == -32601
    # Nothing is said of what never was.
    assert receipt(chain, "0x" + "11" * 32) is None
    assert chain.rpc("eth_getTransactionByHash", ["0x" + "11" * 32]) is None


# -- blocks -------------------------------------------------------------------------------------------------------


def test_fee_history(chain: Chain) -> None:
    """The fee history has a base fee more than it has blocks, and the tips that were paid."""
    mined(chain)
    told = chain.rpc("eth_feeHistory", ["0x2", "latest", [50]])
    assert [int(fee, 16) for fee in told["baseFeePerGas"][:2]] == [chain.base_fee] * 2
    assert (told["oldestBlock"], len(told["baseFeePerGas"]), len(told["gasUsedRatio"])) == ("0x0", 3, 2)
    assert told["reward"] == [["0x0"], [hex(10**6)]]
    # The base fee of the next block is the one that was set.
    chain.base_fee = 7 * 10**6
    receipt = mined(chain, 1)
    assert block(chain)["baseFeePerGas"] == hex(7 * 10**6)
    assert int(receipt["effectiveGasPrice"], 16) == 8 * 10**6


def test_reorg(chain: Chain) -> None:
    """After a reorganisation a payment is unpaid, waits again, and is paid again, in another block."""
    chain.mine()
    told = mined(chain)
    sent = told["transactionHash"]
    chain.mine()
    chain.reorg(2)
    assert number(chain, "eth_blockNumber") == 1
    assert receipt(chain, sent) is None
    assert (balance(chain, PAYER), balance(chain, FRIEND)) == (ETHER, 0)
    assert block(chain, told["blockNumber"]) is None
    assert (chain.pending(), number(chain, "eth_getTransactionCount", PAYER, "pending")) == (1, 1)
    # The genesis cannot be taken back, nor less than a block.
    for depth in (0, 2, -1):
        with pytest.raises(ValueError, match="cannot take back"):
            chain.reorg(depth)
    assert number(chain, "eth_blockNumber") == 1
    chain.mine(NOW + 50)
    again = receipt(chain, sent)
    assert again["blockNumber"] == told["blockNumber"]
    assert again["blockHash"] != told["blockHash"]
    # A reorganisation may also forget a payment, and its nonce is free again.
    chain.reorg(1, drop=True)
    assert chain.pending() == 0
    other = mined(chain, value=5)["transactionHash"]
    assert receipt(chain, sent) is None
    assert receipt(chain, other)["status"] == "0x1"


# -- logs ---------------------------------------------------------------------------------------------------------


def test_logs(chain: Chain) -> None:
    """A receipt and a search show the same logs, and a search finds them by place, address and topic alone."""
    chain.set_code(CONTRACT, LOG_INPUT_UNDER_TOPIC_7)
    told = mined(chain, to=CONTRACT, value=0, data="0xbeef")
    chain.mine()
    (log,) = told["logs"]
    assert (log["address"], log["topics"], log["data"]) == (CONTRACT.lower(), [TOPIC_7], "0xbeef")
    assert (log["transactionHash"], log["blockHash"]) == (told["transactionHash"], told["blockHash"])
    bloom = BloomFilter(int(told["logsBloom"], 16))
    assert bytes.fromhex(CONTRACT[2:]) in bloom and bytes.fromhex(FRIEND[2:]) not in bloom

    def found(**wanted: Any) -> bool:
        logs = chain.rpc("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "latest"} | wanted])
        assert [(one["transactionHash"], one["logIndex"]) for one in logs] in ([], [(told["transactionHash"], "0x0")])
        return bool(logs)

    assert found() and found(address=CONTRACT) and found(address=[FRIEND, CONTRACT])
    assert found(topics=[TOPIC_7]) and found(topics=[None]) and found(topics=[[TOPIC_7, "0x" + "11" * 32]])
    assert found(fromBlock="0x1", toBlock="0x1")
    assert not found(address=FRIEND)
    assert not found(topics=["0x" + "11" * 32])
    assert not found(fromBlock="0x2")


# -- what disturbs it ---------------------------------------------------------------------------------------------


def test_changes(chain: Chain) -> None:
    """What is changed by hand holds from the next question on, and the past stays as it was."""
    chain.mine()
    chain.mine()
    chain.set_balance(FRIEND, 7)
    chain.set_code(CONTRACT, COUNT_CALLS)
    chain.set_storage(CONTRACT, 0, 41)
    assert (balance(chain, FRIEND), balance(chain, FRIEND, "0x1")) == (7, 0)
    assert chain.rpc("eth_getCode", [CONTRACT, "latest"]) == "0x" + COUNT_CALLS.hex()
    assert chain.rpc("eth_getCode", [CONTRACT, "0x1"]) == "0x"
    assert int.from_bytes(call(chain)) == 42
    chain.mine()
    assert (balance(chain, FRIEND), int.from_bytes(call(chain))) == (7, 42)
    # A world may move between a simulation and its block: what is changed there, the block is mined on.
    chain.before_mine.append(lambda: chain.set_code(CONTRACT, REVERT_WITH_INPUT))
    assert mined(chain, to=CONTRACT, value=0)["status"] == "0x0"


# =================================================================================================================
# The chain in this process.


def test_l1_fee_in_receipt() -> None:
    """The receipt tells the L1 fee: the price per byte, as it is when the block is mined, times the signed bytes."""
    price = 10
    evm = embedded(l1_fee_per_byte=lambda: price)
    sent = send(evm)
    price = 1_000
    evm.mine()
    size = len(bytes.fromhex(signed()[2:]))
    assert receipt(evm, sent)["l1Fee"] == hex(1_000 * size) == hex(balance(evm, VAULT))


def test_l1_fee_beyond_balance(evm: Evm) -> None:
    """A wallet that could pay everything but the L1 fee is refused; if the fee rises later, nothing is taken."""
    exact = 10**15 + 100_000 * GWEI
    evm.set_balance(PAYER, exact)
    assert classify(refused(evm, "eth_sendRawTransaction", signed()).message) == Delivery.FUNDS
    evm.set_balance(PAYER, exact + L1_WEI_PER_BYTE * 200)
    sent = send(evm)
    evm.set_balance(PAYER, exact)
    evm.mine()
    assert (receipt(evm, sent), balance(evm, PAYER), balance(evm, VAULT)) == (None, exact, 0)


@pytest.mark.parametrize(("fee", "tip"), [(109, 110), (110, 109), (200, 100), (100, 200)])
def test_replacement_below_a_tenth(evm: Evm, fee: int, tip: int) -> None:
    """As on geth, and not on anvil, a replacement is refused unless both fees rise by a tenth."""
    send(evm, maxFeePerGas=100 * GWEI, maxPriorityFeePerGas=10**6)
    replacement = signed(value=2, maxFeePerGas=fee * GWEI, maxPriorityFeePerGas=10**4 * tip)
    assert refused(evm, "eth_sendRawTransaction", replacement).message == "replacement transaction underpriced"
    evm.rpc("eth_sendRawTransaction", [signed(value=3, maxFeePerGas=110 * GWEI, maxPriorityFeePerGas=110 * 10**4)])
    evm.mine()
    assert balance(evm, FRIEND) == 3


def test_gas_of_calldata(evm: Evm) -> None:
    """Much data for little work costs its floor, and a gas below that is refused at once; anvil lets it wait."""
    told = mined(evm, value=0, data="0x" + "01" * 600)
    assert int(told["gasUsed"], 16) == 21_000 + 600 * 40
    error = refused(evm, "eth_sendRawTransaction", signed(1, data="0x" + "01" * 600, gas=44_999))
    assert error.message == "intrinsic gas too low: gas 44999, minimum needed 45000"


LOW_FEE = {"maxFeePerGas": 10**6, "maxPriorityFeePerGas": 1}
TEXTS: list[tuple[str, str]] = [
    (signed(0, value=3), "nonce too low: next nonce 1, tx nonce 0"),
    (signed(1), "already known"),
    (signed(2, gas=20_000), "intrinsic gas too low: gas 20000, minimum needed 21000"),
    (signed(2, gas=60_000_001), "exceeds block gas limit"),
    (
        signed(2, maxFeePerGas=1),
        "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: 1000000, maxFeePerGas: 1",
    ),
    (signed(2, **LOW_FEE), "max fee per gas less than block base fee: maxFeePerGas: 1000000, baseFee: 5000000"),
    (signed(2, chainId=5), "invalid chain id for signer: have 5 want 8453"),
]


def test_texts_of_geth(evm: Evm) -> None:
    """The sentences carry geth's numbers."""
    mined(evm, 0)
    send(evm, 1)
    for raw, says in TEXTS:
        assert refused(evm, "eth_sendRawTransaction", raw).message == says
    poor = refused(evm, "eth_sendRawTransaction", signed(2, value=ETHER)).message
    assert poor.startswith(f"insufficient funds for gas * price + value: balance {balance(evm, PAYER)}, queued cost ")
    # Nobody here makes a contract: a transaction without a receiver is refused as what it is.
    error = refused(evm, "eth_sendRawTransaction", signed(to=b"", data="0x00"))
    assert error.message == "contract creation not supported"


def test_what_waits(evm: Evm) -> None:
    """A transaction below the base fee waits, as on geth, until the base fee falls; anvil would drop it."""
    sent = send(evm, maxFeePerGas=6 * 10**6)
    evm.base_fee = 10**8
    evm.mine()
    assert (receipt(evm, sent), evm.pending()) == (None, 1)
    evm.base_fee = 10**6
    evm.mine()
    assert receipt(evm, sent)["status"] == "0x1"
    # A transaction that is held waits, with what follows it, while blocks go by.
    first, second = send(evm, 1), send(evm, 2)
    evm.held.add(first)
    evm.mine()
    assert (receipt(evm, first), receipt(evm, second), evm.pending()) == (None, None, 2)
    evm.held.clear()
    evm.mine()
    assert [receipt(evm, sent)["transactionIndex"] for sent in (first, second)] == ["0x0", "0x1"]


def test_same_block_again(evm: Evm) -> None:
    """A block mined again after a reorganisation, equal in all, still has another hash."""
    first = mined(evm)
    evm.reorg(1)
    evm.mine()
    again = receipt(evm, first["transactionHash"])
    assert (again["blockHash"] != first["blockHash"], again["blockNumber"]) == (True, first["blockNumber"])


WRONG: list[tuple[str, list[Any]]] = [
    *(("eth_getBalance", params) for params in ([], ["0x12"], [PAYER, "sometime"], [PAYER, "latest", 1])),
    ("eth_getTransactionReceipt", ["0x1234"]),
    ("eth_call", ["0x"]),
    ("eth_getBlockByNumber", [None]),
]


def test_invalid_params(evm: Evm) -> None:
    """A question that makes no sense is refused as such."""
    for method, params in WRONG:
        assert refused(evm, method, *params).code == -32602, (method, params)
    # A node may know no safe block yet: null, and no state.
    evm.tags_known = False
    assert [block(evm, tag) for tag in ("safe", "finalized")] == [None, None]
    assert refused(evm, "eth_getBalance", PAYER, "safe").message == "header not found"


@pytest.mark.parametrize("code", [COUNT_CALLS, CALLER_FUNDS, OWN_FUNDS, LOG_INPUT_UNDER_TOPIC_7])
def test_estimate_is_exact(evm: Evm, code: bytes) -> None:
    """For a contract that calls no other the estimate is what the transaction uses."""
    evm.set_code(CONTRACT, code)
    gas = number(evm, "eth_estimateGas", {"from": PAYER, "to": CONTRACT, "data": "0xbeef"})
    assert mined(evm, to=CONTRACT, value=0, data="0xbeef")["gasUsed"] == hex(gas)


def test_replacement_counts_once(evm: Evm) -> None:
    """A wallet may replace a transaction that takes more than half of what it has."""
    send(evm, value=6 * 10**17)
    send(evm, value=6 * 10**17, maxFeePerGas=2 * GWEI, maxPriorityFeePerGas=2 * 10**6)
    poor = refused(evm, "eth_sendRawTransaction", signed(1, value=6 * 10**17))
    assert classify(poor.message) == Delivery.FUNDS


def test_log_with_fewer_topics(evm: Evm) -> None:
    """As on geth, a filter with more places than a log has topics does not match it; anvil would."""
    evm.set_code(CONTRACT, LOG_INPUT_UNDER_TOPIC_7)
    mined(evm, to=CONTRACT, value=0)
    assert len(evm.rpc("eth_getLogs", [{"topics": [None]}])) == 1
    assert evm.rpc("eth_getLogs", [{"topics": [TOPIC_7, None]}]) == []


def test_estimate_within_means(evm: Evm) -> None:
    """With a fee named, an estimate never exceeds what the sender can pay for."""
    evm.set_balance(PAYER, 21_000 * GWEI)
    asked = {"from": PAYER, "to": FRIEND, "maxFeePerGas": hex(GWEI)}
    assert number(evm, "eth_estimateGas", asked) == 21_000
    error = refused(evm, "eth_estimateGas", asked | {"value": "0x1"})
    assert error.message == "gas required exceeds allowance (20999)"


# =================================================================================================================
# The server in front of a chain.


class Asker:
    """A client of one RpcServer."""

    def __init__(self, server: RpcServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self._client = client

    async def post(self, body: Any) -> Any:
        """Post a document or bytes; return the document answered, always under status 200."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self._client.post(self.server.url, content=content)
        assert answer.status_code == 200
        return answer.json()


@pytest.fixture
async def ask() -> AsyncIterator[Asker]:
    """Serve a young chain to a client."""
    server = RpcServer(embedded())
    await server.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Asker(server, client)
    await server.stop()
    await asyncio.sleep(0)  # Cut connections end on the loop's next turn.


def asking(method: str, *params: Any, name: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": name, "method": method, "params": list(params)}


MALFORMED = {
    -32700: (b"{", b"", b"[" * 100_000),
    -32600: (b"[]", b"1", b'{"id": 1}'),
    -32602: (b'{"id": 1, "method": "eth_chainId", "params": {"a": 1}}',),
}


async def test_server_single(ask: Asker) -> None:
    """One question has one answer under its own id, whatever that is."""
    for name in (7, "seven", None):
        assert await ask.post(asking("eth_chainId", name=name)) == {"jsonrpc": "2.0", "id": name, "result": "0x2105"}
    # What is no question is answered with the error of the specification.
    for code, bodies in MALFORMED.items():
        for body in bodies:
            assert (await ask.post(body))["error"]["code"] == code, body[:99]
    # Revert data travels through the server.
    answer = await ask.post(asking("eth_call", {"to": world.QUOTER_V2, "data": "0x12345678"}, "latest"))
    assert answer["error"] == {"code": 3, "message": "execution reverted", "data": "0x"}


async def test_server_batch(ask: Asker) -> None:
    """A batch is answered in one request, each part by itself: one failure spoils no other; all are counted."""
    answers = await ask.post(
        [asking("eth_chainId", name=1), asking("eth_nope", name=2), 3, asking("eth_chainId", name=4)]
    )
    assert [answer["id"] for answer in answers] == [1, 2, None, 4]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32601, -32600, None]
    assert (ask.server.requests, ask.server.asked) == (1, {"eth_chainId": 2, "eth_nope": 1})


async def test_server_intercept(ask: Asker) -> None:
    """An interceptor may change an answer, refuse, or fail, and let the rest through."""

    async def spoil(method: str, params: list[Any], honest: Callable[[], Any]) -> Any:
        if method == "eth_blockNumber":
            return hex(int(honest(), 16) + 1)
        if method == "eth_gasPrice":
            raise RpcError(-32005, "limit exceeded")
        if method == "eth_maxPriorityFeePerGas":
            raise KeyError(params)
        return honest()

    ask.server.intercept = spoil
    names = ("eth_blockNumber", "eth_gasPrice", "eth_maxPriorityFeePerGas", "eth_chainId")
    answers = await ask.post([asking(name) for name in names])
    assert [answer.get("result", answer.get("error", {}).get("code")) for answer in answers] == [
        "0x1",
        -32005,
        -32603,
        "0x2105",
    ]


async def test_server_drop(ask: Asker) -> None:
    """An interceptor may take a transaction and cut the connection: the sender does not know, the chain does."""

    async def cut(method: str, _: list[Any], honest: Callable[[], Any]) -> Any:
        told = honest()
        if method == "eth_sendRawTransaction":
            raise Drop
        return told

    ask.server.intercept = cut
    with pytest.raises(httpx.TransportError):
        await ask.post(asking("eth_sendRawTransaction", signed()))
    answer = await ask.post(asking("eth_getTransactionCount", PAYER, "pending"))
    assert answer["result"] == "0x1"


# =================================================================================================================
# Anvil as a process.


def test_anvil_that_does_not_start() -> None:
    """A program that is no anvil is said to have ended, and with what."""
    false = tools.require("false")
    with pytest.raises(RuntimeError, match="anvil ended with 1"):
        Anvil(false, genesis(), timestamp=NOW)


def test_anvil_differs() -> None:
    """Known of anvil: it takes a replacement that is dearer by a wei, and tells no L1 fee although it took one."""
    anvil = on_anvil()
    send(anvil, value=1)
    replacement = send(anvil, value=2, maxFeePerGas=GWEI + 1)
    anvil.mine()
    assert receipt(anvil, replacement)["status"] == "0x1"
    assert balance(anvil, VAULT) > 0
    assert "l1Fee" not in receipt(anvil, replacement)
    # Known of it too: a waiting transaction below the next block's base fee is forgotten.
    send(anvil, 1, maxFeePerGas=6 * 10**6)
    anvil.base_fee = 10**8
    anvil.mine()
    assert anvil.pending() == 0
    # Whoever knows its address can ask anvil itself.
    answer = httpx.post(anvil.url, json=asking("eth_chainId"), trust_env=False).json()
    assert answer == {"jsonrpc": "2.0", "id": 1, "result": "0x2105"}
    # After `stop` nothing listens any more, and stopping twice does no harm.
    anvil.stop()
    anvil.stop()
    with pytest.raises(OSError, match="anvil did not answer eth_chainId"):
        anvil.rpc("eth_chainId", [])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_anvil_dies_with_its_parent(tmp_path: Path) -> None:
    """When the program that started it is killed, anvil is gone too."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from topup.sandbox.anvil import Anvil\n"
        "anvil = Anvil(Path(sys.argv[1]), {}, timestamp=1)\n"
        "print(anvil._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tools.require("anvil"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tools.ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < end, "anvil outlived its parent by ten seconds"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Killed, but not yet collected by whoever inherits it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
