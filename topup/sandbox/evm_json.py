"""What does a question of JSON-RPC say to the chain in this process, and how is an answer written?

A transaction's gas before anything runs, geth's texts for runs that failed, and the JSON of blocks, transactions,
receipts and logs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eth.constants import EMPTY_UNCLE_HASH
from eth.exceptions import OutOfGas, Revert
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_bloom.bloom import BloomFilter
from eth_typing import Address, Hash32
from eth_utils.address import to_canonical_address
from eth_utils.hexadecimal import encode_hex

from topup.sandbox.rpc import RpcError

GAS_LIMIT = 60_000_000
COINBASE = Address(bytes.fromhex("4200000000000000000000000000000000000011"))
# What the signed transaction costs before anything runs: EIP-2028 by byte, EIP-7623's floor by token.
TX_GAS = 21_000
ZERO_BYTE_GAS, BYTE_GAS = 4, 16
FLOOR_GAS_PER_TOKEN = 10
TAKEN = LEGACY, _ACCESS_LIST, DYNAMIC_FEE = 0, 1, 2  # Types of transactions.
# Header fields that this chain has no use for, as an OP chain shows them.
_UNUSED_FIELDS = {
    "difficulty": "0x0",
    "totalDifficulty": "0x0",
    "nonce": "0x0000000000000000",
    "extraData": "0x",
    "mixHash": "0x" + "00" * 32,
    "sha3Uncles": "0x" + EMPTY_UNCLE_HASH.hex(),
    "uncles": [],
}

Json = Any
Log = tuple[bytes, tuple[int, ...], bytes]


@dataclass(frozen=True)
class Signed:
    """A transaction as it was sent; fees in wei per gas."""

    raw: bytes
    hash: bytes
    type: int
    tx: Any
    sender: Address
    fee: int
    tip: int

    @property
    def nonce(self) -> int:
        """Which of the sender's transactions it is."""
        return int(self.tx.nonce)

    @property
    def cost(self) -> int:
        """The most it can take from the sender without the L1 fee, in wei."""
        return int(self.tx.value) + int(self.tx.gas) * self.fee


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction; `price` in wei per gas, `l1_fee` in wei."""

    sent: Signed
    index: int
    success: bool
    gas_used: int
    cumulative: int
    price: int
    l1_fee: int
    logs: tuple[Log, ...]


@dataclass(frozen=True)
class Block:
    """A block and the state after it."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    root: Hash32
    base_fee: int
    receipts: tuple[Receipt, ...] = ()


# -- what calls say -----------------------------------------------------------------------------------------------


def digest_of(text: str) -> bytes:
    """Return 32 bytes of hexadecimal. Raises ValueError for any other number."""
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError(f"{text!r} is not a hash")
    return raw


def quantity(call: Mapping[str, str], name: str, default: int) -> int:
    """Return a number of a call, or what it is when the call does not say."""
    return int(call[name], 16) if call.get(name) else default


def price_of(call: Mapping[str, str]) -> int:
    """Return the most that a call pays, in wei per gas; 0 where it does not say."""
    return quantity(call, "maxFeePerGas", quantity(call, "gasPrice", 0))


def sender_of(call: Mapping[str, str]) -> Address:
    """Return who calls; the zero address where the call does not say."""
    return to_canonical_address(call["from"]) if call.get("from") else Address(bytes(20))


def input_of(call: Mapping[str, str]) -> bytes:
    """Return a call's data, by either name."""
    return bytes.fromhex((call.get("input") or call.get("data") or "0x")[2:])


def intrinsic_gas(data: bytes) -> int:
    """Return what a call with this data costs before anything runs."""
    return TX_GAS + ZERO_BYTE_GAS * data.count(0) + BYTE_GAS * (len(data) - data.count(0))


def least_gas(data: bytes) -> int:
    """Return the least gas that a transaction with this data must offer."""
    tokens = len(data) * 4 - data.count(0) * 3  # one for a zero byte, four for any other
    return max(intrinsic_gas(data), TX_GAS + FLOOR_GAS_PER_TOKEN * tokens)


def failed(computation: Any, out_of_gas: str) -> RpcError:
    """Return the error of a dry run in geth's words; `out_of_gas` is said for that case."""
    if isinstance(computation.error, OutOfGas):
        return RpcError(-32000, out_of_gas)
    if not isinstance(computation.error, Revert):
        return RpcError(-32000, str(computation.error))
    data = bytes(computation.output)
    reason = ""
    if data[:4] == bytes.fromhex("08c379a0"):  # Error(string)
        try:
            reason = ": " + decode(["string"], data[4:])[0]
        except (DecodingError, UnicodeDecodeError):
            reason = ""
    return RpcError(3, f"execution reverted{reason}", encode_hex(data))


# -- what answers say ---------------------------------------------------------------------------------------------


def gas_used_in(block: Block) -> int:
    """Return how much gas a block used."""
    return block.receipts[-1].cumulative if block.receipts else 0


def tip_at(block: Block, percentile: float) -> int:
    """Return the tip, in wei per gas, below which `percentile` of the block's gas was paid for; 0 in an empty block."""
    reached = 0
    for receipt in sorted(block.receipts, key=lambda receipt: receipt.price):
        reached += receipt.gas_used
        if reached * 100 >= percentile * gas_used_in(block):
            return receipt.price - block.base_fee
    return 0


def _bloom(receipts: Iterable[Receipt]) -> str:
    bloom = BloomFilter()
    for receipt in receipts:
        for address, topics, _ in receipt.logs:
            bloom.extend([address, *(topic.to_bytes(32, "big") for topic in topics)])
    return encode_hex(int(bloom).to_bytes(256, "big"))


def shown_block(block: Block | None, *, full: bool) -> Json:
    """Return a block with its transactions, in full or by their hashes; None for no block."""
    if block is None:
        return None
    return _UNUSED_FIELDS | {
        "number": hex(block.number),
        "hash": encode_hex(block.hash),
        "parentHash": encode_hex(block.parent),
        "timestamp": hex(block.timestamp),
        "stateRoot": encode_hex(block.root),
        "baseFeePerGas": hex(block.base_fee),
        "gasLimit": hex(GAS_LIMIT),
        "gasUsed": hex(gas_used_in(block)),
        "logsBloom": _bloom(block.receipts),
        "miner": encode_hex(COINBASE),
        "size": hex(sum(len(receipt.sent.raw) for receipt in block.receipts)),
        "transactions": [
            shown_transaction(receipt.sent, block, receipt.index) if full else encode_hex(receipt.sent.hash)
            for receipt in block.receipts
        ],
    }


def shown_transaction(sent: Signed, block: Block | None = None, index: int | None = None) -> Json:
    """Return a transaction, with its place in a block when it has one."""
    tx = sent.tx
    document: dict[str, Json] = {
        "hash": encode_hex(sent.hash),
        "type": hex(sent.type),
        "chainId": hex(tx.chain_id),
        "nonce": hex(tx.nonce),
        "from": encode_hex(sent.sender),
        "to": encode_hex(tx.to),
        "value": hex(tx.value),
        "gas": hex(tx.gas),
        "gasPrice": hex(sent.fee if block is None else min(sent.fee, block.base_fee + sent.tip)),
        "input": encode_hex(tx.data),
        "v": hex(tx.y_parity if sent.type else tx.v),
        "r": hex(tx.r),
        "s": hex(tx.s),
        "blockNumber": hex(block.number) if block is not None else None,
        "blockHash": encode_hex(block.hash) if block is not None else None,
        "transactionIndex": hex(index) if index is not None else None,
    }
    if sent.type == DYNAMIC_FEE:
        document |= {"maxFeePerGas": hex(sent.fee), "maxPriorityFeePerGas": hex(sent.tip)}
    if sent.type:
        accesses = [(encode_hex(a), [f"0x{slot:064x}" for slot in slots]) for a, slots in tx.access_list]
        document["accessList"] = [{"address": address, "storageKeys": keys} for address, keys in accesses]
        document["yParity"] = document["v"]
    return document


def shown_receipt(block: Block, receipt: Receipt) -> Json:
    """Return what became of a transaction, as an OP chain tells it."""
    return _place_of(block, receipt) | {
        "from": encode_hex(receipt.sent.sender),
        "to": encode_hex(receipt.sent.tx.to),
        "status": hex(receipt.success),
        "type": hex(receipt.sent.type),
        "gasUsed": hex(receipt.gas_used),
        "cumulativeGasUsed": hex(receipt.cumulative),
        "effectiveGasPrice": hex(receipt.price),
        "contractAddress": None,
        "l1Fee": hex(receipt.l1_fee),
        "logsBloom": _bloom([receipt]),
        "logs": [log for log in shown_logs(block) if log["transactionHash"] == encode_hex(receipt.sent.hash)],
    }


def shown_logs(block: Block) -> list[Json]:
    """Return the logs of a block in their order."""
    logs = [(receipt, log) for receipt in block.receipts for log in receipt.logs]
    return [
        _place_of(block, receipt)
        | {
            "address": encode_hex(address),
            "topics": [f"0x{topic:064x}" for topic in topics],
            "data": encode_hex(data),
            "logIndex": hex(index),
            "removed": False,
        }
        for index, (receipt, (address, topics, data)) in enumerate(logs)
    ]


def _place_of(block: Block, receipt: Receipt) -> dict[str, Json]:
    return {
        "transactionHash": encode_hex(receipt.sent.hash),
        "transactionIndex": hex(receipt.index),
        "blockHash": encode_hex(block.hash),
        "blockNumber": hex(block.number),
    }


def is_wanted(log: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    """Tell whether a filter wants this log: any of the addresses, and at each place any of the topics."""
    addresses = wanted.get("address")
    if addresses is not None and log["address"] not in _choices(addresses):
        return False
    topics = wanted.get("topics") or []
    if len(topics) > len(log["topics"]):
        return False
    return all(asked is None or topic in _choices(asked) for asked, topic in zip(topics, log["topics"], strict=False))


def _choices(asked: str | list[str]) -> list[str]:
    return [choice.lower() for choice in ([asked] if isinstance(asked, str) else asked)]
