"""How does a chain fit into one process? Blocks, a mempool and JSON-RPC over py-evm's state, with Prague's rules.

Not a consensus client: blocks are trusted, hashes stand for nothing but identity, and the pending block is the newest
one. What a payer can observe is real: execution, gas, nonces, balances at past blocks, fees by EIP-1559, the L1 data
fee of an OP chain (charged to the sender, told in the receipt), and the error texts of geth.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from eth._utils.address import generate_contract_address
from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS, EMPTY_UNCLE_HASH
from eth.db.atomic import AtomicDB
from eth.exceptions import OutOfGas, Revert, VMError
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.transaction_context import CancunTransactionContext
from eth.vm.forks.prague.state import PragueState
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.message import Message
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_bloom.bloom import BloomFilter
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from topup.sandbox.rpc import RpcError

# py-evm, when imported, lets the whole process recurse so deep that nested JSON overflows the stack of C and kills it.
# Python's own limit is ample for contracts that call each other five deep.
sys.setrecursionlimit(1000)

GAS_LIMIT = 60_000_000
BASE_FEE_WEI = 5_000_000
TIP_WEI = 1_000_000
COINBASE = Address(bytes.fromhex("4200000000000000000000000000000000000011"))
L1_FEE_VAULT = Address(bytes.fromhex("420000000000000000000000000000000000001a"))
# What the signed transaction costs before anything runs: EIP-2028 by byte, EIP-7623's floor by token, EIP-3860 by word.
TX_GAS = 21_000
CREATE_GAS = 32_000
ZERO_BYTE_GAS, BYTE_GAS = 4, 16
FLOOR_GAS_PER_TOKEN = 10
INIT_WORD_GAS = 2
CALL_STIPEND = 2300
# The search for a gas limit ends when its bounds are a 40th apart, 2.5 %; geth goes on to 1.5 %, but runs a payment
# in less than a millisecond, not in twenty.
ESTIMATE_SLACK = 40
# What geth's pool asks of a replacement, in percent of what it replaces, of both fees.
REPLACEMENT_PERCENT = 110

_SPACES = ("eth_", "net_", "web3_")
_LEGACY, _ACCESS_LIST, _DYNAMIC_FEE = 0, 1, 2
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
    created: bytes | None
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


class Evm:
    """A chain in this process; one thread at a time.

    Attributes:
        base_fee: of the blocks to come, in wei per gas; it never moves by itself.
        before_mine: called before each block, after what was simulated and before what will be.
        held: hashes of transactions that wait, for as long as they are here.
        tags_known: whether blocks can be asked for as "safe" and "finalized"; null when not.
    """

    def __init__(
        self,
        genesis: Mapping[str, Allotted],
        *,
        now: Callable[[], int],
        l1_fee_per_byte: Callable[[], int] | int,
        chain_id: int = 8453,
        safe_depth: int = 2,
        finalized_depth: int = 4,
        base_fee: int = BASE_FEE_WEI,
    ) -> None:
        """Begin with these accounts, by hexadecimal address.

        `now` in unix seconds; `l1_fee_per_byte` in wei per byte of a signed transaction, asked anew each time;
        `safe_depth` and `finalized_depth` in blocks behind the newest.
        """
        self.chain_id = chain_id
        self.base_fee = base_fee
        self.before_mine: list[Callable[[], None]] = []
        self.held: set[str] = set()
        self.tags_known = True
        self._db = AtomicDB()
        self._now = now
        self._l1_price = l1_fee_per_byte if callable(l1_fee_per_byte) else lambda: l1_fee_per_byte
        self._depths = {"safe": safe_depth, "finalized": finalized_depth}
        self._pool: list[Signed] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._branch = 0
        # What was run dry since the newest block, by all that decides what it comes to.
        self._ran: dict[tuple[bytes, bytes, int, str], Any] = {}
        self._blocks: list[Block] = []
        state = PragueState(self._db, self._context(0, now(), base_fee), BLANK_ROOT_HASH)
        for text, account in genesis.items():
            address = _address(text)
            state.set_balance(address, account.balance)
            state.set_nonce(address, account.nonce)
            state.set_code(address, account.code)
            for slot, value in account.storage.items():
                state.set_storage(address, slot, value)
        state.persist()
        self._blocks.append(self._sealed(0, bytes(32), now(), state.state_root, ()))

    # -- what disturbs it ---------------------------------------------------------------------------------------

    def mine(self, timestamp: int | None = None) -> int:
        """Mine what can be mined; return the block's number.

        The block is at `timestamp` (None: now), or just after its parent when that is later. Transactions whose fee
        is below the base fee wait; those that can no longer be paid are forgotten.
        """
        for hook in list(self.before_mine):
            hook()
        parent = self._blocks[-1]
        number, at = parent.number + 1, max(parent.timestamp + 1, self._now() if timestamp is None else timestamp)
        state = self._state(parent.root, self._context(number, at, self.base_fee))
        receipts: list[Receipt] = []
        left: list[Signed] = []
        for sent in sorted(self._pool, key=lambda waiting: waiting.nonce):
            nonce = state.get_nonce(sent.sender)
            waits = sent.nonce > nonce or sent.fee < self.base_fee or _hex(sent.hash) in self.held
            if waits:
                left.append(sent)
            elif sent.nonce == nonce and (done := self._applied(state, sent, receipts)) is not None:
                receipts.append(done)
        state.persist()
        self._ran.clear()
        self._blocks.append(self._sealed(number, parent.hash, at, state.state_root, tuple(receipts)))
        self._places |= {done.sent.hash: (number, done.index) for done in receipts}
        self._pool = left
        return number

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """Change a slot in the newest state."""
        self._change(lambda state: state.set_storage(_address(address), slot, value))

    def set_balance(self, address: str, wei: int) -> None:
        """Change a balance in the newest state."""
        self._change(lambda state: state.set_balance(_address(address), wei))

    def set_code(self, address: str, code: bytes) -> None:
        """Change an account's code in the newest state."""
        self._change(lambda state: state.set_code(_address(address), code))

    def pending(self) -> int:
        """Return how many transactions wait for a block."""
        return len(self._pool)

    def drop_pending(self) -> int:
        """Forget what is waiting for a block; return how many transactions that were."""
        count, self._pool = len(self._pool), []
        return count

    def reorg(self, depth: int, *, drop: bool = False) -> None:
        """Take back the newest `depth` blocks, with every change made after them.

        Their transactions wait again, or are forgotten with `drop`. Raises ValueError when it would take the genesis.
        """
        if not 0 < depth < len(self._blocks):
            raise ValueError(f"cannot take back {depth} of {len(self._blocks) - 1} blocks")
        gone, self._blocks = self._blocks[-depth:], self._blocks[:-depth]
        self._branch += 1
        returned = [done.sent for block in gone for done in block.receipts]
        for sent in returned:
            del self._places[sent.hash]
        self._pool += [] if drop else returned

    def stop(self) -> None:
        """Nothing to end."""

    # -- what it is asked ---------------------------------------------------------------------------------------

    def rpc(self, method: str, params: list[Json]) -> Json:
        """Answer one JSON-RPC question, or raise RpcError."""
        answer = getattr(self, f"_{method}", None) if method.startswith(_SPACES) else None
        if answer is None:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        try:
            return answer(*params)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RpcError(-32602, f"invalid params: {type(error).__name__}: {error}") from error

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
        return hex(self.base_fee + TIP_WEI)

    def _eth_maxPriorityFeePerGas(self) -> str:
        return hex(TIP_WEI)

    def _eth_feeHistory(self, count: str | int, newest: str, percentiles: list[float] | None = None) -> Json:
        end = self._known(newest).number
        size = min(int(count, 16) if isinstance(count, str) else count, end + 1)
        blocks = self._blocks[end + 1 - size : end + 1]
        after = self._blocks[end + 1].base_fee if end + 1 < len(self._blocks) else self.base_fee
        told: dict[str, Json] = {
            "oldestBlock": hex(end + 1 - size),
            "baseFeePerGas": [hex(fee) for fee in [*(block.base_fee for block in blocks), after]],
            "gasUsedRatio": [_gas_used(block) / GAS_LIMIT for block in blocks],
        }
        if percentiles:
            told["reward"] = [[hex(_tip_at(block, share)) for share in percentiles] for block in blocks]
        return told

    def _eth_getBlockByNumber(self, tag: str, full: bool = False) -> Json:
        block = self._found(tag)
        return _shown_block(block, full=full) if block is not None else None

    def _eth_getBlockByHash(self, digest: str, full: bool = False) -> Json:
        block = self._by_hash(digest)
        return _shown_block(block, full=full) if block is not None else None

    def _eth_getBalance(self, address: str, tag: Json = "latest") -> str:
        return hex(self._at(tag).get_balance(_address(address)))

    def _eth_getCode(self, address: str, tag: Json = "latest") -> str:
        return _hex(self._at(tag).get_code(_address(address)))

    def _eth_getStorageAt(self, address: str, slot: str, tag: Json = "latest") -> str:
        return f"0x{self._at(tag).get_storage(_address(address), int(slot, 16)):064x}"

    def _eth_getTransactionCount(self, address: str, tag: Json = "latest") -> str:
        sender = _address(address)
        nonce: int = self._at(tag).get_nonce(sender)
        if tag == "pending":
            waiting = {sent.nonce for sent in self._pool if sent.sender == sender}
            while nonce in waiting:
                nonce += 1
        return hex(nonce)

    def _eth_call(self, call: dict[str, str], tag: Json = "latest", changed: Json = None) -> str:
        gas = min(_quantity(call, "gas", GAS_LIMIT), GAS_LIMIT)
        computation = self._run(call, tag, gas, changed)
        if computation is None:
            raise RpcError(-32000, f"intrinsic gas too low: have {gas}, want {_least_gas(call)}")
        if computation.is_error:
            raise _failed(computation, f"out of gas: supplied {gas}")
        return _hex(computation.output)

    def _eth_estimateGas(self, call: dict[str, str], tag: Json = "latest") -> str:
        """Search like geth: run once at the ceiling, guess from what that took, then halve the interval."""
        ceiling = self._allowance(call, tag)
        first = self._run(call, tag, ceiling)
        if first is None or first.is_error:
            exceeded = f"gas required exceeds allowance ({ceiling})"
            raise _failed(first, exceeded) if first is not None else RpcError(-32000, exceeded)
        low = max(_least_gas(call), ceiling - int(first.get_gas_remaining())) - 1
        if not first.children and self._suffices(call, tag, low + 1):
            return hex(low + 1)
        # A call hands on no more than all but a 64th of what is left, so that the limit must exceed what is used.
        high = min((low + 1 + CALL_STIPEND) * 64 // 63, ceiling)
        while not self._suffices(call, tag, high):
            low, high = high, min(high * 2, ceiling)
        while high - low > high // ESTIMATE_SLACK:
            middle = (low + high) // 2
            if self._suffices(call, tag, middle):
                high = middle
            else:
                low = middle
        return hex(high)

    def _eth_sendRawTransaction(self, text: str) -> str:
        sent = self._decoded(bytes.fromhex(text[2:]))
        if sent.hash in self._places or any(waiting.hash == sent.hash for waiting in self._pool):
            raise RpcError(-32000, "already known")
        self._refuse_malformed(sent)
        state = self._at("latest")
        nonce = state.get_nonce(sent.sender)
        if sent.nonce < nonce:
            raise RpcError(-32000, f"nonce too low: next nonce {nonce}, tx nonce {sent.nonce}")
        rival = next((one for one in self._pool if (one.sender, one.nonce) == (sent.sender, sent.nonce)), None)
        self._refuse_unaffordable(sent, state.get_balance(sent.sender), rival)
        if rival is not None:
            if 100 * sent.fee < REPLACEMENT_PERCENT * rival.fee or 100 * sent.tip < REPLACEMENT_PERCENT * rival.tip:
                raise RpcError(-32000, "replacement transaction underpriced")
            self._pool.remove(rival)
        self._pool.append(sent)
        return _hex(sent.hash)

    def _eth_getTransactionByHash(self, digest: str) -> Json:
        place = self._places.get(_digest(digest))
        if place is not None:
            block = self._blocks[place[0]]
            return _shown_transaction(block.receipts[place[1]].sent, block, place[1])
        waiting = next((sent for sent in self._pool if sent.hash == _digest(digest)), None)
        return _shown_transaction(waiting) if waiting is not None else None

    def _eth_getTransactionReceipt(self, digest: str) -> Json:
        place = self._places.get(_digest(digest))
        if place is None:
            return None
        block = self._blocks[place[0]]
        done = block.receipts[place[1]]
        return {
            "transactionHash": _hex(done.sent.hash),
            "transactionIndex": hex(done.index),
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "from": _hex(done.sent.sender),
            "to": _hex(done.sent.tx.to) if done.sent.tx.to else None,
            "status": hex(done.success),
            "type": hex(done.sent.type),
            "gasUsed": hex(done.gas_used),
            "cumulativeGasUsed": hex(done.cumulative),
            "effectiveGasPrice": hex(done.price),
            "contractAddress": _hex(done.created) if done.created is not None else None,
            "l1Fee": hex(done.l1_fee),
            "logsBloom": _bloom([done]),
            "logs": [log for log in _shown_logs(block) if log["transactionHash"] == _hex(done.sent.hash)],
        }

    def _eth_getLogs(self, wanted: dict[str, Json]) -> list[Json]:
        if "blockHash" in wanted:
            block = self._by_hash(wanted["blockHash"])
            if block is None:
                raise RpcError(-32000, "unknown block")
            blocks = [block]
        else:
            start = self._found(wanted.get("fromBlock") or "latest")
            end = self._found(wanted.get("toBlock") or "latest") or self._blocks[-1]
            blocks = self._blocks[start.number : end.number + 1] if start is not None else []
        return [log for block in blocks for log in _shown_logs(block) if _wanted(log, wanted)]

    # -- blocks and states --------------------------------------------------------------------------------------

    def _context(self, number: int, timestamp: int, base_fee: int) -> ExecutionContext:
        parents = [Hash32(block.hash) for block in reversed(self._blocks[max(0, number - 256) : number])]
        return ExecutionContext(
            COINBASE,
            timestamp,
            BlockNumber(number),
            0,
            Hash32(bytes(32)),
            GAS_LIMIT,
            parents,
            self.chain_id,
            base_fee,
            0,
        )

    def _state(self, root: Hash32, context: ExecutionContext) -> Any:
        return PragueState(self._db, context, root)

    def _sealed(self, number: int, parent: bytes, at: int, root: Hash32, receipts: tuple[Receipt, ...]) -> Block:
        # The branch keeps a block that was taken back apart from an equal one mined again.
        parts = (self._branch, number, parent, at, root, self.base_fee, *(done.sent.hash for done in receipts))
        return Block(number, keccak(repr(parts).encode()), parent, at, root, self.base_fee, receipts)

    def _change(self, act: Callable[[Any], None]) -> None:
        """Change the newest state in place: the newest block simply ends otherwise than its transactions say."""
        head = self._blocks[-1]
        state = self._state(head.root, self._context(head.number, head.timestamp, head.base_fee))
        act(state)
        state.persist()
        self._blocks[-1] = replace(head, root=state.state_root)

    def _found(self, tag: str) -> Block | None:
        head = self._blocks[-1].number
        if tag in ("latest", "pending"):
            return self._blocks[-1]
        if tag == "earliest":
            return self._blocks[0]
        if tag in self._depths:
            return self._blocks[max(0, head - self._depths[tag])] if self.tags_known else None
        number = int(tag, 16)
        return self._blocks[number] if 0 <= number <= head else None

    def _by_hash(self, digest: str) -> Block | None:
        wanted = _digest(digest)
        return next((block for block in reversed(self._blocks) if block.hash == wanted), None)

    def _known(self, tag: Json) -> Block:
        """Return the block of a tag, a number, or an object with a hash or a number (EIP-1898)."""
        if isinstance(tag, dict):
            block = self._by_hash(tag["blockHash"]) if "blockHash" in tag else self._found(tag["blockNumber"])
        else:
            block = self._found(tag)
        if block is None:
            raise RpcError(-32000, "header not found")
        return block

    def _at(self, tag: Json) -> Any:
        block = self._known(tag)
        return self._state(block.root, self._context(block.number, block.timestamp, block.base_fee))

    # -- transactions -------------------------------------------------------------------------------------------

    def _decoded(self, raw: bytes) -> Signed:
        kind = raw[0] if raw and raw[0] < 0x80 else _LEGACY
        if kind not in (_LEGACY, _ACCESS_LIST, _DYNAMIC_FEE):
            raise RpcError(-32000, "transaction type not supported")
        try:
            tx: Any = PragueTransactionBuilder.decode(raw)
            tx.validate()
            tx.check_signature_validity()
            sender = Address(tx.sender)
        except Exception as error:  # py-evm and rlp raise all kinds on bytes that are no transaction
            raise RpcError(-32000, f"rlp: invalid transaction ({type(error).__name__})") from error
        if tx.chain_id != self.chain_id:
            raise RpcError(-32000, f"invalid chain id for signer: have {tx.chain_id} want {self.chain_id}")
        return Signed(raw, keccak(raw), kind, tx, sender, int(tx.max_fee_per_gas), int(tx.max_priority_fee_per_gas))

    def _refuse_malformed(self, sent: Signed) -> None:
        if sent.tx.gas > GAS_LIMIT:
            raise RpcError(-32000, "exceeds block gas limit")
        if sent.tip > sent.fee:
            raise RpcError(
                -32000,
                "max priority fee per gas higher than max fee per gas: "
                f"maxPriorityFeePerGas: {sent.tip}, maxFeePerGas: {sent.fee}",
            )
        least = _least_gas({"data": _hex(sent.tx.data), "to": _hex(sent.tx.to)})
        if sent.tx.gas < least:
            raise RpcError(-32000, f"intrinsic gas too low: gas {sent.tx.gas}, minimum needed {least}")
        if sent.fee < self.base_fee:
            raise RpcError(
                -32000,
                f"max fee per gas less than block base fee: maxFeePerGas: {sent.fee}, baseFee: {self.base_fee}",
            )

    def _refuse_unaffordable(self, sent: Signed, balance: int, rival: Signed | None) -> None:
        """Count everything of the sender that waits, except what this one replaces."""
        cost = sent.cost + self._l1_fee(sent)
        others = [one for one in self._pool if one.sender == sent.sender and one is not rival]
        queued = sum(one.cost + self._l1_fee(one) for one in others)
        if balance < cost + queued:
            waiting = f"queued cost {queued}, " if queued else ""
            raise RpcError(
                -32000,
                f"insufficient funds for gas * price + value: balance {balance}, {waiting}tx cost {cost}, "
                f"overshot {cost + queued - balance}",
            )

    def _l1_fee(self, sent: Signed) -> int:
        return self._l1_price() * len(sent.raw)

    def _applied(self, state: Any, sent: Signed, before: list[Receipt]) -> Receipt | None:
        """Run a transaction in the block that is being mined; None when it cannot be paid or run at all."""
        tx, l1_fee = sent.tx, self._l1_fee(sent)
        if state.get_balance(sent.sender) < sent.cost + l1_fee:
            return None
        start = state.snapshot()
        state.delta_balance(sent.sender, -l1_fee)
        state.delta_balance(L1_FEE_VAULT, l1_fee)
        try:
            computation = state.apply_transaction(tx)
        except (ValidationError, VMError):
            state.revert(start)
            return None
        spent = tx.gas - computation.get_gas_remaining()
        used = int(spent - min(computation.get_gas_refund(), spent // 5) + computation.data_floor_gas)
        state.lock_changes()
        return Receipt(
            sent=sent,
            index=len(before),
            success=not computation.is_error,
            gas_used=used,
            cumulative=used + (before[-1].cumulative if before else 0),
            price=min(sent.fee, self.base_fee + sent.tip),
            l1_fee=l1_fee,
            created=None if tx.to else generate_contract_address(sent.sender, tx.nonce),
            logs=() if computation.is_error else tuple(computation.get_log_entries()),
        )

    # -- dry runs -----------------------------------------------------------------------------------------------

    def _allowance(self, call: dict[str, str], tag: Json) -> int:
        """Return the most gas an estimate may come to: what was asked for, and what the sender can pay."""
        most = min(_quantity(call, "gas", GAS_LIMIT), GAS_LIMIT)
        price = _price(call)
        if not price:
            return most
        left = self._at(tag).get_balance(_sender(call)) - _quantity(call, "value", 0)
        return min(most, max(0, int(left)) // price)

    def _suffices(self, call: dict[str, str], tag: Json, gas: int) -> bool:
        computation = self._run(call, tag, gas)
        return computation is not None and not computation.is_error

    def _run(self, call: dict[str, str], tag: Json, gas: int, changed: Json = None) -> Any:
        """Return what a call comes to on the state after a block; None when `gas` does not cover its data.

        `changed` holds slots that have other values for this call, by address, under `stateDiff`. The same call on the
        same state comes to the same, and is not executed again.
        """
        if gas < _least_gas(call):
            return None
        block = self._known(tag)
        key = (block.hash, block.root, gas, json.dumps([call, changed], sort_keys=True))
        if key not in self._ran:
            self._ran[key] = self._executed(call, block, gas, changed)
        return self._ran[key]

    def _executed(self, call: dict[str, str], block: Block, gas: int, changed: Json) -> Any:
        """Execute it, leaving no trace."""
        state = self._state(block.root, self._context(block.number, block.timestamp, block.base_fee))
        for address, change in (changed or {}).items():
            for slot, value in change["stateDiff"].items():
                state.set_storage(_address(address), int(slot, 16), int(value, 16))
        sender, value, data = _sender(call), _quantity(call, "value", 0), _input(call)
        have, want = state.get_balance(sender), value + gas * _price(call)
        if have < want:
            raise RpcError(
                -32000, f"insufficient funds for gas * price + value: address {_hex(sender)} have {have} want {want}"
            )
        to = _address(call["to"]) if call.get("to") else CREATE_CONTRACT_ADDRESS
        created: Any = None if to else generate_contract_address(sender, state.get_nonce(sender))
        message = Message(
            gas=gas - _intrinsic_gas(call),
            to=to,
            sender=sender,
            value=value,
            data=data if to else b"",
            code=state.get_code(to) if to else data,
            create_address=created,
        )
        for warm in (sender, message.storage_address):
            state.mark_address_warm(warm)
        context = CancunTransactionContext(gas_price=_price(call), origin=sender, blob_versioned_hashes=())
        run = state.computation_class.apply_message if to else state.computation_class.apply_create_message
        return run(state, message, context)


# -- what calls say -----------------------------------------------------------------------------------------------


def _hex(raw: bytes) -> str:
    return "0x" + bytes(raw).hex()


def _address(text: str) -> Address:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError(f"{text!r} is not an address")
    return Address(raw)


def _digest(text: str) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError(f"{text!r} is not a hash")
    return raw


def _quantity(call: Mapping[str, str], name: str, default: int) -> int:
    return int(call[name], 16) if call.get(name) else default


def _price(call: Mapping[str, str]) -> int:
    return _quantity(call, "maxFeePerGas", _quantity(call, "gasPrice", 0))


def _sender(call: Mapping[str, str]) -> Address:
    return _address(call["from"]) if call.get("from") else Address(bytes(20))


def _input(call: Mapping[str, str]) -> bytes:
    return bytes.fromhex((call.get("input") or call.get("data") or "0x")[2:])


def _tokens(data: bytes) -> int:
    """Return the size of calldata in tokens of EIP-7623: one for a zero byte, four for any other."""
    return len(data) * 4 - data.count(0) * 3


def _intrinsic_gas(call: Mapping[str, str]) -> int:
    data = _input(call)
    creation = 0 if len(call.get("to") or "0x") > 2 else CREATE_GAS + INIT_WORD_GAS * ((len(data) + 31) // 32)
    return TX_GAS + creation + ZERO_BYTE_GAS * data.count(0) + BYTE_GAS * (len(data) - data.count(0))


def _least_gas(call: Mapping[str, str]) -> int:
    return max(_intrinsic_gas(call), TX_GAS + FLOOR_GAS_PER_TOKEN * _tokens(_input(call)))


def _failed(computation: Any, out_of_gas: str) -> RpcError:
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
    return RpcError(3, f"execution reverted{reason}", _hex(data))


# -- what answers say ---------------------------------------------------------------------------------------------


def _gas_used(block: Block) -> int:
    return block.receipts[-1].cumulative if block.receipts else 0


def _tip_at(block: Block, percentile: float) -> int:
    """Return the tip, in wei per gas, below which `percentile` of the block's gas was paid for; 0 in an empty block."""
    reached = 0
    for done in sorted(block.receipts, key=lambda one: one.price):
        reached += done.gas_used
        if reached * 100 >= percentile * _gas_used(block):
            return done.price - block.base_fee
    return 0


def _bloom(receipts: Iterable[Receipt]) -> str:
    bloom = BloomFilter()
    for done in receipts:
        for address, topics, _ in done.logs:
            bloom.extend([address, *(topic.to_bytes(32, "big") for topic in topics)])
    return _hex(int(bloom).to_bytes(256, "big"))


def _shown_block(block: Block, *, full: bool) -> Json:
    return _UNUSED_FIELDS | {
        "number": hex(block.number),
        "hash": _hex(block.hash),
        "parentHash": _hex(block.parent),
        "timestamp": hex(block.timestamp),
        "stateRoot": _hex(block.root),
        "baseFeePerGas": hex(block.base_fee),
        "gasLimit": hex(GAS_LIMIT),
        "gasUsed": hex(_gas_used(block)),
        "logsBloom": _bloom(block.receipts),
        "miner": _hex(COINBASE),
        "size": hex(sum(len(done.sent.raw) for done in block.receipts)),
        "transactions": [
            _shown_transaction(done.sent, block, done.index) if full else _hex(done.sent.hash)
            for done in block.receipts
        ],
    }


def _shown_transaction(sent: Signed, block: Block | None = None, index: int | None = None) -> Json:
    tx = sent.tx
    told: dict[str, Json] = {
        "hash": _hex(sent.hash),
        "type": hex(sent.type),
        "chainId": hex(tx.chain_id),
        "nonce": hex(tx.nonce),
        "from": _hex(sent.sender),
        "to": _hex(tx.to) if tx.to else None,
        "value": hex(tx.value),
        "gas": hex(tx.gas),
        "gasPrice": hex(sent.fee if block is None else min(sent.fee, block.base_fee + sent.tip)),
        "input": _hex(tx.data),
        "v": hex(tx.y_parity if sent.type else tx.v),
        "r": hex(tx.r),
        "s": hex(tx.s),
        "blockNumber": hex(block.number) if block is not None else None,
        "blockHash": _hex(block.hash) if block is not None else None,
        "transactionIndex": hex(index) if index is not None else None,
    }
    if sent.type == _DYNAMIC_FEE:
        told |= {"maxFeePerGas": hex(sent.fee), "maxPriorityFeePerGas": hex(sent.tip)}
    if sent.type:
        accesses = [(_hex(a), [f"0x{slot:064x}" for slot in slots]) for a, slots in tx.access_list]
        told["accessList"] = [{"address": address, "storageKeys": keys} for address, keys in accesses]
        told["yParity"] = told["v"]
    return told


def _shown_logs(block: Block) -> list[Json]:
    logs = [(done, log) for done in block.receipts for log in done.logs]
    return [
        {
            "address": _hex(address),
            "topics": [f"0x{topic:064x}" for topic in topics],
            "data": _hex(data),
            "blockNumber": hex(block.number),
            "blockHash": _hex(block.hash),
            "transactionHash": _hex(done.sent.hash),
            "transactionIndex": hex(done.index),
            "logIndex": hex(index),
            "removed": False,
        }
        for index, (done, (address, topics, data)) in enumerate(logs)
    ]


def _wanted(log: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    """Tell whether a filter wants this log: any of the addresses, and at each place any of the topics."""
    addresses = wanted.get("address")
    if addresses is not None and log["address"] not in _choices(addresses):
        return False
    topics = wanted.get("topics") or []
    if len(topics) > len(log["topics"]):
        return False
    return all(asked is None or told in _choices(asked) for asked, told in zip(topics, log["topics"], strict=False))


def _choices(asked: str | list[str]) -> list[str]:
    return [one.lower() for one in ([asked] if isinstance(asked, str) else asked)]
