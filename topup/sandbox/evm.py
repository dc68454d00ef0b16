"""How does a chain fit into one process? Blocks, a mempool and JSON-RPC over py-evm's state, with Prague's rules.

Not a consensus client: blocks are trusted, hashes stand for nothing but identity. What a payer can observe is real:
execution, gas, nonces, balances at past blocks, fees by EIP-1559, the L1 data fee of an OP chain (charged to the
sender, told in the receipt), and the error texts of geth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import rlp
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.transaction_context import CancunTransactionContext
from eth.vm.forks.prague.state import PragueState
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.message import Message
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from topup.sandbox.rpc import RpcError

GAS_LIMIT = 60_000_000
BASE_FEE_WEI = 5_000_000
TIP_WEI = 1_000_000
COINBASE = bytes.fromhex("4200000000000000000000000000000000000011")
L1_FEE_VAULT = bytes.fromhex("420000000000000000000000000000000000001a")
INTRINSIC_GAS = 21_000
# geth stops its search for a gas limit when the bounds are this close (1.5 %).
ESTIMATE_SLACK = 66
REPLACEMENT_PERCENT = 110


class Allotted(Protocol):
    """An account of the genesis."""

    @property
    def balance(self) -> int:
        """Wei."""

    @property
    def nonce(self) -> int:
        """Transactions sent."""

    @property
    def code(self) -> bytes:
        """Runtime code."""

    @property
    def storage(self) -> Mapping[int, int]:
        """Values by slot."""


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction."""

    tx_hash: bytes
    index: int
    sender: bytes
    to: bytes
    success: bool
    gas_used: int
    cumulative: int
    price: int
    l1_fee: int
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]


@dataclass(frozen=True)
class Block:
    """A block and the state after it."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    root: bytes
    base_fee: int
    raws: tuple[bytes, ...] = ()
    receipts: tuple[Receipt, ...] = ()


@dataclass
class Pending:
    """A transaction that waits for a block."""

    raw: bytes
    hash: bytes
    tx: Any
    fee: int
    tip: int = field(default=0)


class Evm:
    """A chain in this process."""

    def __init__(
        self,
        genesis: Mapping[str, Allotted],
        *,
        now: Callable[[], int],
        l1_fee_per_byte: int,
        chain_id: int = 8453,
        safe_depth: int = 2,
        finalized_depth: int = 4,
    ) -> None:
        """Begin with these accounts; `l1_fee_per_byte` is in wei per byte of a signed transaction."""
        self._db = AtomicDB()
        self.chain_id = chain_id
        self.l1_fee_per_byte = l1_fee_per_byte
        self._depths = {"safe": safe_depth, "finalized": finalized_depth}
        self.before_mine: list[Callable[[], None]] = []
        self.tags_known = True
        self._pool: list[Pending] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        empty = PragueState(self._db, self._context(0, now(), ()), _EMPTY_ROOT)
        for address, account in genesis.items():
            canonical = bytes.fromhex(address[2:])
            empty.set_balance(canonical, account.balance)
            empty.set_nonce(canonical, account.nonce)
            empty.set_code(canonical, account.code)
            for slot, value in account.storage.items():
                empty.set_storage(canonical, slot, value)
        empty.persist()
        self._blocks = [self._sealed(0, bytes(32), now(), empty.state_root, (), ())]

    # -- what disturbs it ---------------------------------------------------------------------------------------

    def mine(self, timestamp: int) -> int:
        """Mine what is pending into a block at `timestamp` or just after its parent; return its number."""
        for hook in list(self.before_mine):
            hook()
        parent = self._blocks[-1]
        number, at = parent.number + 1, max(parent.timestamp + 1, timestamp)
        state = self._state(parent, number, at)
        raws: list[bytes] = []
        receipts: list[Receipt] = []
        left: list[Pending] = []
        for waiting in sorted(self._pool, key=lambda p: int(p.tx.nonce)):
            nonce = state.get_nonce(waiting.tx.sender)
            if waiting.tx.nonce < nonce:
                continue  # replaced or mined
            if waiting.tx.nonce > nonce or waiting.fee < BASE_FEE_WEI:
                left.append(waiting)
                continue
            try:
                done = self._apply(state, waiting, len(receipts), receipts[-1].cumulative if receipts else 0)
            except (ValidationError, VMError):
                continue  # no longer affordable
            raws.append(waiting.raw)
            receipts.append(done)
        state.persist()
        block = self._sealed(number, parent.hash, at, state.state_root, tuple(raws), tuple(receipts))
        self._blocks.append(block)
        self._places |= {r.tx_hash: (number, r.index) for r in receipts}
        self._pool = left
        return number

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """Change a slot in the newest state."""
        self._change(lambda state: state.set_storage(bytes.fromhex(address[2:]), slot, value))

    def set_balance(self, address: str, wei: int) -> None:
        """Change a balance in the newest state."""
        self._change(lambda state: state.set_balance(bytes.fromhex(address[2:]), wei))

    def set_code(self, address: str, code: bytes) -> None:
        """Change an account's code in the newest state."""
        self._change(lambda state: state.set_code(bytes.fromhex(address[2:]), code))

    def pending(self) -> int:
        """Return how many transactions wait for a block."""
        return len(self._pool)

    def drop_pending(self) -> int:
        """Forget what is waiting for a block; return how many transactions that were."""
        count, self._pool = len(self._pool), []
        return count

    def reorg(self, depth: int) -> None:
        """Take back the newest `depth` blocks; their transactions wait again."""
        gone, self._blocks = self._blocks[-depth:], self._blocks[:-depth]
        for block in gone:
            for raw in block.raws:
                self._places.pop(keccak(raw), None)
                self._pool.append(self._decoded(raw))

    def stop(self) -> None:
        """Nothing to end."""

    # -- what it is asked ---------------------------------------------------------------------------------------

    def rpc(self, method: str, params: list[Any]) -> Any:
        """Answer one JSON-RPC question, or raise RpcError."""
        answer = getattr(self, "_" + method.replace("eth_", "eth_"), None) if method.startswith(_SPACES) else None
        if answer is None:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        try:
            return answer(*params)
        except (TypeError, ValueError, LookupError) as error:
            raise RpcError(-32602, f"invalid params: {type(error).__name__}: {error}") from None

    def _web3_clientVersion(self) -> str:
        return "topup-sandbox/py-evm"

    def _net_version(self) -> str:
        return str(self.chain_id)

    def _eth_chainId(self) -> str:
        return hex(self.chain_id)

    def _eth_syncing(self) -> bool:
        return False

    def _eth_blockNumber(self) -> str:
        return hex(self._blocks[-1].number)

    def _eth_gasPrice(self) -> str:
        return hex(BASE_FEE_WEI + TIP_WEI)

    def _eth_maxPriorityFeePerGas(self) -> str:
        return hex(TIP_WEI)

    def _eth_getBlockByNumber(self, tag: str, full: bool = False) -> dict[str, Any] | None:
        if not self.tags_known and tag in self._depths:
            return None
        block = self._found(tag)
        return self._shown(block) if block is not None and not full else None

    def _eth_getBlockByHash(self, digest: str, full: bool = False) -> dict[str, Any] | None:
        block = next((b for b in self._blocks if "0x" + b.hash.hex() == digest.lower()), None)
        return self._shown(block) if block is not None and not full else None

    def _eth_getBalance(self, address: str, tag: Any = "latest") -> str:
        return hex(self._at(tag).get_balance(bytes.fromhex(address[2:])))

    def _eth_getCode(self, address: str, tag: Any = "latest") -> str:
        return "0x" + self._at(tag).get_code(bytes.fromhex(address[2:])).hex()

    def _eth_getStorageAt(self, address: str, slot: str, tag: Any = "latest") -> str:
        return f"0x{self._at(tag).get_storage(bytes.fromhex(address[2:]), int(slot, 16)):064x}"

    def _eth_getTransactionCount(self, address: str, tag: Any = "latest") -> str:
        sender = bytes.fromhex(address[2:])
        nonce = self._at("latest" if tag == "pending" else tag).get_nonce(sender)
        if tag == "pending":
            waiting = {int(p.tx.nonce) for p in self._pool if p.tx.sender == sender}
            while nonce in waiting:
                nonce += 1
        return hex(nonce)

    def _eth_call(self, call: dict[str, str], tag: Any = "latest") -> str:
        computation = self._run(call, tag, _gas_of(call))
        if computation.is_error:
            raise _reverted(computation)
        return "0x" + computation.output.hex()

    def _eth_estimateGas(self, call: dict[str, str], tag: Any = "latest") -> str:
        """Search like geth: run once at the ceiling, then halve the interval until it is narrow."""
        data = bytes.fromhex(call.get("data", call.get("input", "0x"))[2:])
        intrinsic = INTRINSIC_GAS + sum(16 if byte else 4 for byte in data)
        first = self._run(call, tag, _gas_of(call))
        if first.is_error:
            raise _reverted(first)
        low = intrinsic + int(first.get_gas_used()) - 1
        high = (low + 1 + int(first.get_gas_refund()) + 2300) * 64 // 63
        while self._run(call, tag, high - intrinsic).is_error:
            low, high = high, high * 2
        while high - low > max(1, high // ESTIMATE_SLACK):
            middle = (low + high) // 2
            if middle < intrinsic or self._run(call, tag, middle - intrinsic).is_error:
                low = middle
            else:
                high = middle
        return hex(high)

    def _eth_sendRawTransaction(self, text: str) -> str:
        raw = bytes.fromhex(text[2:])
        new = self._decoded(raw)
        if new.hash in self._places or any(p.hash == new.hash for p in self._pool):
            raise RpcError(-32000, "already known")
        head = self._at("latest")
        nonce = head.get_nonce(new.tx.sender)
        if new.tx.nonce < nonce:
            raise RpcError(-32000, f"nonce too low: next nonce {nonce}, tx nonce {new.tx.nonce}")
        if new.fee < BASE_FEE_WEI:
            raise RpcError(
                -32000, f"max fee per gas less than block base fee: maxFeePerGas: {new.fee}, baseFee: {BASE_FEE_WEI}"
            )
        cost = new.tx.value + new.tx.gas * new.fee + self._l1_fee(raw)
        have = head.get_balance(new.tx.sender)
        if have < cost:
            raise RpcError(
                -32000,
                f"insufficient funds for gas * price + value: balance {have}, tx cost {cost}, overshot {cost - have}",
            )
        if new.tx.gas < new.tx.intrinsic_gas:
            raise RpcError(-32000, f"intrinsic gas too low: gas {new.tx.gas}, minimum needed {new.tx.intrinsic_gas}")
        rival = next((p for p in self._pool if p.tx.sender == new.tx.sender and p.tx.nonce == new.tx.nonce), None)
        if rival is not None:
            if new.fee * 100 < rival.fee * REPLACEMENT_PERCENT or new.tip * 100 < rival.tip * REPLACEMENT_PERCENT:
                raise RpcError(-32000, "replacement transaction underpriced")
            self._pool.remove(rival)
        self._pool.append(new)
        return "0x" + new.hash.hex()

    def _eth_getTransactionByHash(self, digest: str) -> dict[str, Any] | None:
        place = self._places.get(bytes.fromhex(digest[2:]))
        waiting = next((p for p in self._pool if "0x" + p.hash.hex() == digest.lower()), None)
        if place is None and waiting is None:
            return None
        found = waiting or self._decoded(self._blocks[place[0]].raws[place[1]]) if place else waiting
        assert found is not None
        block = self._blocks[place[0]] if place else None
        return {
            "hash": "0x" + found.hash.hex(),
            "nonce": hex(found.tx.nonce),
            "from": "0x" + found.tx.sender.hex(),
            "to": "0x" + found.tx.to.hex(),
            "value": hex(found.tx.value),
            "gas": hex(found.tx.gas),
            "input": "0x" + found.tx.data.hex(),
            "blockNumber": hex(block.number) if block else None,
            "blockHash": "0x" + block.hash.hex() if block else None,
        }

    def _eth_getTransactionReceipt(self, digest: str) -> dict[str, Any] | None:
        place = self._places.get(bytes.fromhex(digest[2:]))
        if place is None:
            return None
        block = self._blocks[place[0]]
        told = block.receipts[place[1]]
        first = sum(len(r.logs) for r in block.receipts[: place[1]])
        return {
            "transactionHash": "0x" + told.tx_hash.hex(),
            "transactionIndex": hex(told.index),
            "blockHash": "0x" + block.hash.hex(),
            "blockNumber": hex(block.number),
            "from": "0x" + told.sender.hex(),
            "to": "0x" + told.to.hex(),
            "status": hex(told.success),
            "type": "0x2",
            "gasUsed": hex(told.gas_used),
            "cumulativeGasUsed": hex(told.cumulative),
            "effectiveGasPrice": hex(told.price),
            "contractAddress": None,
            "l1Fee": hex(told.l1_fee),
            "logsBloom": "0x" + "00" * 256,
            "logs": [self._log(block, told, first + n, log) for n, log in enumerate(told.logs)],
        }

    def _eth_getLogs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in wanted:
            blocks = [b for b in self._blocks if "0x" + b.hash.hex() == wanted["blockHash"].lower()]
        else:
            start = self._found(wanted.get("fromBlock", "latest"))
            end = self._found(wanted.get("toBlock", "latest")) or self._blocks[-1]
            blocks = self._blocks[start.number : end.number + 1] if start is not None else []
        return [
            log
            for block in blocks
            for told in block.receipts
            for log in (self._eth_getTransactionReceipt("0x" + told.tx_hash.hex()) or {})["logs"]
            if _wanted(log, wanted)
        ]

    # -- inside -------------------------------------------------------------------------------------------------

    def _context(self, number: int, timestamp: int, parents: tuple[bytes, ...]) -> ExecutionContext:
        return ExecutionContext(
            COINBASE, timestamp, number, 0, bytes(32), GAS_LIMIT, parents, self.chain_id, BASE_FEE_WEI, 0
        )

    def _state(self, after: Block, number: int, timestamp: int) -> Any:
        parents = tuple(b.hash for b in reversed(self._blocks[max(0, number - 256) : number]))
        return PragueState(self._db, self._context(number, timestamp, parents), after.root)

    def _at(self, tag: Any) -> Any:
        if isinstance(tag, dict):  # EIP-1898
            block = next((b for b in self._blocks if "0x" + b.hash.hex() == str(tag.get("blockHash")).lower()), None)
        else:
            block = self._found(tag)
        if block is None:
            raise RpcError(-32000, "header not found")
        return self._state(block, block.number, block.timestamp)

    def _found(self, tag: str) -> Block | None:
        head = self._blocks[-1].number
        if tag in ("latest", "pending"):
            return self._blocks[-1]
        if tag == "earliest":
            return self._blocks[0]
        if tag in self._depths:
            return self._blocks[max(0, head - self._depths[tag])]
        number = int(tag, 16)
        return self._blocks[number] if number <= head else None

    def _shown(self, block: Block) -> dict[str, Any]:
        used = block.receipts[-1].cumulative if block.receipts else 0
        return {
            "number": hex(block.number),
            "hash": "0x" + block.hash.hex(),
            "parentHash": "0x" + block.parent.hex(),
            "timestamp": hex(block.timestamp),
            "stateRoot": "0x" + block.root.hex(),
            "baseFeePerGas": hex(block.base_fee),
            "gasLimit": hex(GAS_LIMIT),
            "gasUsed": hex(used),
            "miner": "0x" + COINBASE.hex(),
            "transactions": ["0x" + r.tx_hash.hex() for r in block.receipts],
        }

    def _log(
        self, block: Block, told: Receipt, index: int, log: tuple[bytes, tuple[bytes, ...], bytes]
    ) -> dict[str, Any]:
        address, topics, data = log
        return {
            "address": "0x" + address.hex(),
            "topics": ["0x" + t.hex() for t in topics],
            "data": "0x" + data.hex(),
            "blockNumber": hex(block.number),
            "blockHash": "0x" + block.hash.hex(),
            "transactionHash": "0x" + told.tx_hash.hex(),
            "transactionIndex": hex(told.index),
            "logIndex": hex(index),
            "removed": False,
        }

    def _sealed(
        self, number: int, parent: bytes, at: int, root: bytes, raws: tuple[bytes, ...], receipts: tuple[Receipt, ...]
    ) -> Block:
        digest = keccak(rlp.encode([number, parent, at, root, list(raws)]))
        return Block(number, digest, parent, at, root, BASE_FEE_WEI, raws, receipts)

    def _change(self, act: Callable[[Any], None]) -> None:
        """Change the newest state in place: the newest block simply ends otherwise than its transactions say."""
        head = self._blocks[-1]
        state = self._state(head, head.number, head.timestamp)
        act(state)
        state.persist()
        self._blocks[-1] = Block(
            head.number,
            head.hash,
            head.parent,
            head.timestamp,
            state.state_root,
            head.base_fee,
            head.raws,
            head.receipts,
        )

    def _l1_fee(self, raw: bytes) -> int:
        return self.l1_fee_per_byte * len(raw)

    def _decoded(self, raw: bytes) -> Pending:
        try:
            tx = PragueTransactionBuilder.decode(raw)
            tx.validate()
            tx.check_signature_validity()
        except Exception as error:  # noqa: BLE001 - whatever py-evm and rlp raise on bytes that are no transaction
            raise RpcError(-32000, f"rlp: invalid transaction ({type(error).__name__})") from None
        if tx.chain_id is not None and tx.chain_id != self.chain_id:
            raise RpcError(-32000, f"invalid chain id for signer: have {tx.chain_id} want {self.chain_id}")
        return Pending(raw, keccak(raw), tx, int(tx.max_fee_per_gas), int(tx.max_priority_fee_per_gas))

    def _apply(self, state: Any, waiting: Pending, index: int, before: int) -> Receipt:
        tx = waiting.tx
        l1_fee = self._l1_fee(waiting.raw)
        if state.get_balance(tx.sender) < l1_fee + tx.value + tx.gas * waiting.fee:
            raise ValidationError("the L1 fee is not covered")
        state.delta_balance(tx.sender, -l1_fee)
        state.delta_balance(L1_FEE_VAULT, l1_fee)
        computation = state.apply_transaction(tx)
        remaining = computation.get_gas_remaining()
        spent = tx.gas - remaining
        used = spent - min(computation.get_gas_refund(), spent // 5) + computation.data_floor_gas
        state.lock_changes()
        logs = () if computation.is_error else computation.get_log_entries()
        return Receipt(
            tx_hash=waiting.hash,
            index=index,
            sender=tx.sender,
            to=tx.to,
            success=not computation.is_error,
            gas_used=used,
            cumulative=before + used,
            price=BASE_FEE_WEI + min(waiting.tip, waiting.fee - BASE_FEE_WEI),
            l1_fee=l1_fee,
            logs=tuple((a, tuple(t.to_bytes(32, "big") for t in topics), d) for a, topics, d in logs),
        )

    def _run(self, call: dict[str, str], tag: Any, gas: int) -> Any:
        """Execute a call on the state after a block, leaving no trace."""
        state = self._at(tag)
        sender = bytes.fromhex(call.get("from", "0x" + "00" * 20)[2:])
        to = bytes.fromhex(call["to"][2:]) if call.get("to") else CREATE_CONTRACT_ADDRESS
        value = int(call.get("value", "0x0"), 16)
        if state.get_balance(sender) < value:
            raise RpcError(-32000, "insufficient funds for gas * price + value")
        data = bytes.fromhex(call.get("data", call.get("input", "0x"))[2:])
        message = Message(gas=gas, to=to, sender=sender, value=value, data=data, code=state.get_code(to))
        for warm in (sender, to, COINBASE):
            state.mark_address_warm(warm)
        context = CancunTransactionContext(gas_price=0, origin=sender, blob_versioned_hashes=())
        return state.computation_class.apply_message(state, message, context)


_SPACES = ("eth_", "net_", "web3_")
_EMPTY_ROOT = keccak(rlp.encode(b""))


def _gas_of(call: dict[str, str]) -> int:
    return min(int(call["gas"], 16), GAS_LIMIT) - INTRINSIC_GAS if "gas" in call else GAS_LIMIT


def _reverted(computation: Any) -> RpcError:
    if not isinstance(computation.error, Revert):
        return RpcError(-32000, "out of gas" if "gas" in str(computation.error).lower() else f"{computation.error}")
    data = bytes(computation.output)
    reason = ""
    if data[:4] == bytes.fromhex("08c379a0"):
        try:
            reason = ": " + decode(["string"], data[4:])[0]
        except DecodingError:
            reason = ""
    return RpcError(3, f"execution reverted{reason}", "0x" + data.hex())


def _wanted(log: dict[str, Any], wanted: dict[str, Any]) -> bool:
    addresses = wanted.get("address")
    if addresses is not None:
        listed = [addresses] if isinstance(addresses, str) else addresses
        if log["address"] not in [a.lower() for a in listed]:
            return False
    for n, asked in enumerate(wanted.get("topics") or []):
        if asked is None:
            continue
        options = [asked] if isinstance(asked, str) else asked
        if n >= len(log["topics"]) or log["topics"][n] not in [o.lower() for o in options]:
            return False
    return True
