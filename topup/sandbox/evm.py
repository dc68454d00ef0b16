"""How does a chain fit into one process? Blocks, a mempool and JSON-RPC over py-evm's state, with Prague's rules.

Not a consensus client: blocks are trusted, hashes stand for nothing but identity, and the pending block is the newest
one. What a payer can observe is real: execution, gas, nonces, balances at past blocks, fees by EIP-1559, the L1 data
fee of an OP chain (charged to the sender, told in the receipt), and the error texts of geth.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from eth.constants import BLANK_ROOT_HASH
from eth.db.atomic import AtomicDB
from eth.exceptions import VMError
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.transaction_context import CancunTransactionContext
from eth.vm.forks.prague.state import PragueState
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.message import Message
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from eth_utils.hexadecimal import encode_hex

from topup.sandbox import evm_json
from topup.sandbox.contracts import CHAIN_ID, Account
from topup.sandbox.evm_json import COINBASE, GAS_LIMIT, LEGACY, Block, Receipt, Signed
from topup.sandbox.rpc import RpcError

# py-evm, when imported, lets the whole process recurse so deep that nested JSON overflows the stack of C and kills it.
# Python's own limit is ample for contracts that call each other five deep.
sys.setrecursionlimit(1000)

BASE_FEE_WEI = 5_000_000
TIP_WEI = 1_000_000
L1_FEE_VAULT = Address(bytes.fromhex("420000000000000000000000000000000000001a"))
CALL_STIPEND = 2300
# The search for a gas limit ends when its bounds are a 40th apart, 2.5 %; geth goes on to 1.5 %, but runs a payment
# in less than a millisecond, not in twenty.
ESTIMATE_SLACK = 40
# What geth's pool asks of a replacement, in percent of what it replaces, of both fees.
REPLACEMENT_PERCENT = 110

Json = Any


def _refused(message: str) -> RpcError:
    return RpcError(-32000, message)


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
        genesis: Mapping[str, Account],
        *,
        now: Callable[[], int],
        l1_fee_per_byte: Callable[[], int] | int,
        safe_depth: int = 2,
        finalized_depth: int = 4,
    ) -> None:
        """Begin with these accounts, by hexadecimal address.

        `now` in unix seconds; `l1_fee_per_byte` in wei per byte of a signed transaction, asked anew each time;
        `safe_depth` and `finalized_depth` in blocks behind the newest.
        """
        self.base_fee = BASE_FEE_WEI
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
        self._facts: dict[str, Callable[[], Json]] = {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_blockNumber": lambda: hex(self._blocks[-1].number),
            "eth_gasPrice": lambda: hex(self.base_fee + TIP_WEI),
            "eth_maxPriorityFeePerGas": lambda: hex(TIP_WEI),
        }
        state = PragueState(self._db, self._context(0, now(), BASE_FEE_WEI), BLANK_ROOT_HASH)
        for text, account in genesis.items():
            address = to_canonical_address(text)
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
        state = PragueState(self._db, self._context(number, at, self.base_fee), parent.root)
        receipts: list[Receipt] = []
        left: list[Signed] = []
        for sent in sorted(self._pool, key=lambda waiting: waiting.nonce):
            nonce = state.get_nonce(sent.sender)
            waits = sent.nonce > nonce or sent.fee < self.base_fee or encode_hex(sent.hash) in self.held
            if waits:
                left.append(sent)
            elif sent.nonce == nonce and (receipt := self._applied(state, sent, receipts)) is not None:
                receipts.append(receipt)
        state.persist()
        self._ran.clear()
        self._blocks.append(self._sealed(number, parent.hash, at, state.state_root, tuple(receipts)))
        self._places |= {receipt.sent.hash: (number, receipt.index) for receipt in receipts}
        self._pool = left
        return number

    def set_storage(self, address: str, slot: int, value: int) -> None:
        """Change a slot in the newest state."""
        self._change(lambda state: state.set_storage(to_canonical_address(address), slot, value))

    def set_balance(self, address: str, wei: int) -> None:
        """Change a balance in the newest state."""
        self._change(lambda state: state.set_balance(to_canonical_address(address), wei))

    def set_code(self, address: str, code: bytes) -> None:
        """Change an account's code in the newest state."""
        self._change(lambda state: state.set_code(to_canonical_address(address), code))

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
        returned = [receipt.sent for block in gone for receipt in block.receipts]
        for sent in returned:
            del self._places[sent.hash]
        self._pool += [] if drop else returned

    def stop(self) -> None:
        """Nothing to end."""

    # -- what it is asked ---------------------------------------------------------------------------------------

    def rpc(self, method: str, params: list[Json]) -> Json:
        """Answer one JSON-RPC question, or raise RpcError."""
        answer = self._facts.get(method) or (getattr(self, f"_{method}", None) if method.startswith("eth_") else None)
        if answer is None:
            raise RpcError(-32601, f"the method {method} does not exist/is not available")
        try:
            return answer(*params)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RpcError(-32602, f"invalid params: {type(error).__name__}: {error}") from error

    def _eth_feeHistory(self, count: str | int, newest: str, percentiles: list[float] | None = None) -> Json:
        end = self._known(newest).number
        size = min(int(count, 16) if isinstance(count, str) else count, end + 1)
        blocks = self._blocks[end + 1 - size : end + 1]
        after = self._blocks[end + 1].base_fee if end + 1 < len(self._blocks) else self.base_fee
        history: dict[str, Json] = {
            "oldestBlock": hex(end + 1 - size),
            "baseFeePerGas": [hex(fee) for fee in [*(block.base_fee for block in blocks), after]],
            "gasUsedRatio": [evm_json.gas_used_in(block) / GAS_LIMIT for block in blocks],
        }
        if percentiles:
            history["reward"] = [[hex(evm_json.tip_at(block, share)) for share in percentiles] for block in blocks]
        return history

    def _eth_getBlockByNumber(self, tag: str, full: bool = False) -> Json:
        return evm_json.shown_block(self._at_tag(tag), full=full)

    def _eth_getBalance(self, address: str, tag: str = "latest") -> str:
        return hex(self._at(tag).get_balance(to_canonical_address(address)))

    def _eth_getCode(self, address: str, tag: str = "latest") -> str:
        return encode_hex(self._at(tag).get_code(to_canonical_address(address)))

    def _eth_getStorageAt(self, address: str, slot: str, tag: str = "latest") -> str:
        return f"0x{self._at(tag).get_storage(to_canonical_address(address), int(slot, 16)):064x}"

    def _eth_getTransactionCount(self, address: str, tag: str = "latest") -> str:
        sender = to_canonical_address(address)
        nonce: int = self._at(tag).get_nonce(sender)
        if tag == "pending":
            waiting = {sent.nonce for sent in self._pool if sent.sender == sender}
            while nonce in waiting:
                nonce += 1
        return hex(nonce)

    def _eth_call(self, call: dict[str, str], tag: str = "latest", changed: Json = None) -> str:
        gas = min(evm_json.quantity(call, "gas", GAS_LIMIT), GAS_LIMIT)
        computation = self._run(call, tag, gas, changed)
        if computation is None:
            raise _refused(f"intrinsic gas too low: have {gas}, want {evm_json.least_gas(evm_json.input_of(call))}")
        if computation.is_error:
            raise evm_json.failed(computation, f"out of gas: supplied {gas}")
        return encode_hex(computation.output)

    def _eth_estimateGas(self, call: dict[str, str], tag: str = "latest") -> str:
        """Search like geth: run once at the ceiling, guess from what that took, then halve the interval."""
        ceiling = self._allowance(call, tag)
        first = self._run(call, tag, ceiling)
        if first is None or first.is_error:
            exceeded = f"gas required exceeds allowance ({ceiling})"
            raise evm_json.failed(first, exceeded) if first is not None else _refused(exceeded)
        low = max(evm_json.least_gas(evm_json.input_of(call)), ceiling - int(first.get_gas_remaining())) - 1
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
            raise _refused("already known")
        self._refuse_malformed(sent)
        state = self._at("latest")
        nonce = state.get_nonce(sent.sender)
        if sent.nonce < nonce:
            raise _refused(f"nonce too low: next nonce {nonce}, tx nonce {sent.nonce}")
        rival = next(
            (waiting for waiting in self._pool if (waiting.sender, waiting.nonce) == (sent.sender, sent.nonce)), None
        )
        self._refuse_unaffordable(sent, state.get_balance(sent.sender), rival)
        if rival is not None:
            if 100 * sent.fee < REPLACEMENT_PERCENT * rival.fee or 100 * sent.tip < REPLACEMENT_PERCENT * rival.tip:
                raise _refused("replacement transaction underpriced")
            self._pool.remove(rival)
        self._pool.append(sent)
        return encode_hex(sent.hash)

    def _eth_getTransactionByHash(self, digest: str) -> Json:
        place = self._places.get(evm_json.digest_of(digest))
        if place is not None:
            block = self._blocks[place[0]]
            return evm_json.shown_transaction(block.receipts[place[1]].sent, block, place[1])
        waiting = next((sent for sent in self._pool if sent.hash == evm_json.digest_of(digest)), None)
        return evm_json.shown_transaction(waiting) if waiting is not None else None

    def _eth_getTransactionReceipt(self, digest: str) -> Json:
        place = self._places.get(evm_json.digest_of(digest))
        if place is None:
            return None
        block = self._blocks[place[0]]
        return evm_json.shown_receipt(block, block.receipts[place[1]])

    def _eth_getLogs(self, wanted: dict[str, Json]) -> list[Json]:
        start = self._at_tag(wanted.get("fromBlock") or "latest")
        end = self._at_tag(wanted.get("toBlock") or "latest") or self._blocks[-1]
        blocks = self._blocks[start.number : end.number + 1] if start is not None else []
        return [log for block in blocks for log in evm_json.shown_logs(block) if evm_json.is_wanted(log, wanted)]

    # -- blocks and states --------------------------------------------------------------------------------------

    def _context(self, number: int, timestamp: int, base_fee: int) -> ExecutionContext:
        parents = [Hash32(block.hash) for block in reversed(self._blocks[max(0, number - 256) : number])]
        unused = Hash32(bytes(32))
        return ExecutionContext(
            COINBASE, timestamp, BlockNumber(number), 0, unused, GAS_LIMIT, parents, CHAIN_ID, base_fee, 0
        )

    def _after(self, block: Block) -> Any:
        return PragueState(self._db, self._context(block.number, block.timestamp, block.base_fee), block.root)

    def _sealed(self, number: int, parent: bytes, at: int, root: Hash32, receipts: tuple[Receipt, ...]) -> Block:
        # The branch keeps a block that was taken back apart from an equal one mined again.
        parts = (self._branch, number, parent, at, root, self.base_fee, *(receipt.sent.hash for receipt in receipts))
        return Block(number, keccak(repr(parts).encode()), parent, at, root, self.base_fee, receipts)

    def _change(self, act: Callable[[Any], None]) -> None:
        """Change the newest state in place: the newest block simply ends otherwise than its transactions say."""
        head = self._blocks[-1]
        state = self._after(head)
        act(state)
        state.persist()
        self._blocks[-1] = replace(head, root=state.state_root)

    def _at_tag(self, tag: str) -> Block | None:
        head = self._blocks[-1].number
        if tag in ("latest", "pending"):
            return self._blocks[-1]
        if tag == "earliest":
            return self._blocks[0]
        if tag in self._depths:
            return self._blocks[max(0, head - self._depths[tag])] if self.tags_known else None
        number = int(tag, 16)
        return self._blocks[number] if 0 <= number <= head else None

    def _known(self, tag: str) -> Block:
        block = self._at_tag(tag)
        if block is None:
            raise _refused("header not found")
        return block

    def _at(self, tag: str) -> Any:
        return self._after(self._known(tag))

    # -- transactions -------------------------------------------------------------------------------------------

    def _decoded(self, raw: bytes) -> Signed:
        kind = raw[0] if raw and raw[0] < 0x80 else LEGACY
        if kind not in evm_json.TAKEN:
            raise _refused("transaction type not supported")
        try:
            tx: Any = PragueTransactionBuilder.decode(raw)
            tx.validate()
            tx.check_signature_validity()
            sender = Address(tx.sender)
        except Exception as error:  # py-evm and rlp raise all kinds on bytes that are no transaction
            raise _refused(f"rlp: invalid transaction ({type(error).__name__})") from error
        if not tx.to:
            raise _refused("contract creation not supported")
        if tx.chain_id != CHAIN_ID:
            raise _refused(f"invalid chain id for signer: have {tx.chain_id} want {CHAIN_ID}")
        return Signed(raw, keccak(raw), kind, tx, sender, int(tx.max_fee_per_gas), int(tx.max_priority_fee_per_gas))

    def _refuse_malformed(self, sent: Signed) -> None:
        if sent.tx.gas > GAS_LIMIT:
            raise _refused("exceeds block gas limit")
        if sent.tip > sent.fee:
            raise _refused(
                "max priority fee per gas higher than max fee per gas: "
                f"maxPriorityFeePerGas: {sent.tip}, maxFeePerGas: {sent.fee}",
            )
        least = evm_json.least_gas(sent.tx.data)
        if sent.tx.gas < least:
            raise _refused(f"intrinsic gas too low: gas {sent.tx.gas}, minimum needed {least}")
        if sent.fee < self.base_fee:
            raise _refused(
                f"max fee per gas less than block base fee: maxFeePerGas: {sent.fee}, baseFee: {self.base_fee}",
            )

    def _refuse_unaffordable(self, sent: Signed, balance: int, rival: Signed | None) -> None:
        """Count everything of the sender that waits, except what this one replaces."""
        cost = sent.cost + self._l1_fee(sent)
        others = [other for other in self._pool if other.sender == sent.sender and other is not rival]
        queued = sum(other.cost + self._l1_fee(other) for other in others)
        if balance < cost + queued:
            waiting = f"queued cost {queued}, " if queued else ""
            raise _refused(
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
            logs=() if computation.is_error else tuple(computation.get_log_entries()),
        )

    # -- dry runs -----------------------------------------------------------------------------------------------

    def _allowance(self, call: dict[str, str], tag: str) -> int:
        """Return the most gas an estimate may come to: what was asked for, and what the sender can pay."""
        most = min(evm_json.quantity(call, "gas", GAS_LIMIT), GAS_LIMIT)
        price = evm_json.price_of(call)
        if not price:
            return most
        left = self._at(tag).get_balance(evm_json.sender_of(call)) - evm_json.quantity(call, "value", 0)
        return min(most, max(0, int(left)) // price)

    def _suffices(self, call: dict[str, str], tag: str, gas: int) -> bool:
        computation = self._run(call, tag, gas)
        return computation is not None and not computation.is_error

    def _run(self, call: dict[str, str], tag: str, gas: int, changed: Json = None) -> Any:
        """Return what a call comes to on the state after a block; None when `gas` does not cover its data.

        `changed` holds slots that have other values for this call, by address, under `stateDiff`. The same call on the
        same state comes to the same, and is not executed again.
        """
        if gas < evm_json.least_gas(evm_json.input_of(call)):
            return None
        block = self._known(tag)
        key = (block.hash, block.root, gas, json.dumps([call, changed], sort_keys=True))
        if key not in self._ran:
            self._ran[key] = self._executed(call, block, gas, changed)
        return self._ran[key]

    def _executed(self, call: dict[str, str], block: Block, gas: int, changed: Json) -> Any:
        state = self._after(block)
        for address, change in (changed or {}).items():
            for slot, value in change["stateDiff"].items():
                state.set_storage(to_canonical_address(address), int(slot, 16), int(value, 16))
        sender, value, data = evm_json.sender_of(call), evm_json.quantity(call, "value", 0), evm_json.input_of(call)
        have, want = state.get_balance(sender), value + gas * evm_json.price_of(call)
        if have < want:
            raise _refused(
                f"insufficient funds for gas * price + value: address {encode_hex(sender)} have {have} want {want}",
            )
        to = to_canonical_address(call["to"])
        gas_left = gas - evm_json.intrinsic_gas(data)
        message = Message(gas=gas_left, to=to, sender=sender, value=value, data=data, code=state.get_code(to))
        for warm in (sender, message.storage_address):
            state.mark_address_warm(warm)
        context = CancunTransactionContext(gas_price=evm_json.price_of(call), origin=sender, blob_versioned_hashes=())
        return state.computation_class.apply_message(state, message, context)
