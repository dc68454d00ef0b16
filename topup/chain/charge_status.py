"""Was this charge ever paid? The contract's own mark, and every event of its operator, up to the newest block.

Both are read at a block that is not older than a final one past the charge's deadline: from there on nothing can
change them, so no provider has to remember old state. Whether the answer is a proof is decided elsewhere.
"""

from dataclasses import dataclass
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.chain.blocks import (
    CHAIN_ID,
    FINAL,
    LATEST,
    at_height,
    head,
    nonce_query,
    numbered,
    right_chain,
    same_block,
    shown,
)
from topup.chain.logs import of_operator, transfer
from topup.chain.rpc import Answer, Query, Rpc, RpcError, known, quantity, unhex
from topup.chain.search import Search, Sought, TooNarrow
from topup.domain.coinbase_charge import Charge
from topup.domain.errors import ChainUnknown
from topup.ports.chain import Head, Piece, Spent

# The payment contract keeps processedTransferIntents[operator][id] in this mapping (its published source's layout).
PROCESSED_SLOT: Final = 4


@dataclass(frozen=True)
class Unread:
    """What one provider says whose logs were read up to block `last` only.

    `late` when others need not wait for it; `over` says why they are not read any further, or prove nothing, "" where
    they are read on.
    """

    newest: Head
    last: int
    late: bool = False
    over: str = ""


@dataclass(frozen=True)
class Account:
    """What one provider says of a charge: `final` is the block that was agreed on, the rest was read at `newest`.

    `control` names the log by which it has shown that it keeps logs, where its word rests on them alone.
    """

    newest: Head
    final: Head
    flag: bool
    payers: frozenset[bytes]
    control: bytes = b""


def processed_slot(demand: Charge) -> bytes:
    """Return the storage slot of the contract's mark that this charge was paid."""
    intent = demand.intent
    inner = keccak(intent.operator.rjust(32, b"\0") + PROCESSED_SLOT.to_bytes(32, "big"))
    return keccak(intent.id.ljust(32, b"\0") + inner)


async def ends(rpc: Rpc, chain_id: int) -> tuple[Head, Head]:
    """Read a provider's newest block, and its newest final one."""
    spoken, newest, final = await rpc.batch([CHAIN_ID, LATEST, FINAL])
    right_chain(rpc, spoken, chain_id)
    return shown(rpc, newest, "newest block"), shown(rpc, final, "final block")


async def past(rpc: Rpc, chain_id: int, final: int, *more: Query) -> tuple[Head, Head, list[Answer]]:
    """Read the newest block, block `final` and what is asked beside, through a provider for which that one is final."""
    spoken, latest, own_final, agreed, *answers = await rpc.batch([CHAIN_ID, LATEST, FINAL, numbered(final), *more])
    right_chain(rpc, spoken, chain_id)
    newest, at = shown(rpc, latest, "newest block"), shown(rpc, agreed, f"block {final}")
    if at.number != final or shown(rpc, own_final, "final block").number < final or newest.number < final:
        raise ChainUnknown(f"{rpc.host} is not past the final block {final}")
    return newest, at, answers


async def account(rpc: Rpc, chain_id: int, demand: Charge, since: int, final: int, search: Search) -> Account | Unread:
    """Read what became of a charge from block `since` on, through a provider that is past the final block `final`."""
    newest, at, _ = await past(rpc, chain_id, final)
    piece = await looked(search, rpc, _sought(demand, since), at, newest)
    if isinstance(piece, Unread):
        return piece
    # The mark is read last, however long the logs took; and the final block once more.
    marked, again = await rpc.batch([_mark(demand, hex(newest.number)), numbered(at.number)])
    same_block(rpc, again, at)
    return Account(newest, at, _flag(marked), frozenset(tx_hash for tx_hash, _ in piece.carriers))


async def looked(search: Search, rpc: Rpc, sought: Sought, final: Head, newest: Head) -> Piece | Unread:
    """Look for a payment through one provider; return all there is, or how far it is."""
    try:
        piece = await search.through(rpc, sought, final, newest)
    except TooNarrow as error:
        return Unread(newest, error.last, over=str(error))
    return piece if piece.last >= newest.number else Unread(newest, piece.last, search.late(piece))


def _sought(demand: Charge, since: int) -> Sought:
    contract, operator, one = demand.contract, demand.intent.operator, demand.intent.id

    def carrier(log: Any, first: int, last: int) -> tuple[bytes, int] | None:
        _, said = transfer(log, contract, operator, first, last)
        return (said.tx_hash, said.block_number) if said.intent_id == one else None

    return Sought(contract + operator + one, of_operator(contract, operator), since, carrier)


async def spent(rpc: Rpc, chain_id: int, wallet: bytes, number: int) -> Spent:
    """Read what stands at a height, whether it is final, and how many transactions the wallet had sent by its end.

    A node that no longer has that state still tells the block: its nonce is None.
    """
    spoken, final, at, nonce = await rpc.batch([CHAIN_ID, FINAL, numbered(number), nonce_query(wallet, number)])
    right_chain(rpc, spoken, chain_id)
    block = at_height(rpc, at, number)
    past = isinstance(final, dict) and head(final).number >= number
    return Spent(block, past, None if isinstance(nonce, RpcError) else quantity(nonce, "the nonce"))


async def mark(rpc: Rpc, chain_id: int, demand: Charge) -> tuple[Head, bool]:
    """Read the contract's mark at the newest block."""
    spoken, latest, marked = await rpc.batch([CHAIN_ID, LATEST, _mark(demand, "latest")])
    right_chain(rpc, spoken, chain_id)
    return shown(rpc, latest, "newest block"), _flag(marked)


def _mark(demand: Charge, at: str) -> Query:
    return ("eth_getStorageAt", ["0x" + demand.contract.hex(), "0x" + processed_slot(demand).hex(), at])


def _flag(answer: Answer) -> bool:
    word = unhex(known(answer, "the mark of a paid charge"), "the mark of a paid charge")
    if len(word) != 32 or int.from_bytes(word, "big") > 1:
        raise ChainUnknown(f"the mark of a paid charge is 0x{word[:33].hex()}, neither 0 nor 1")
    return any(word)
