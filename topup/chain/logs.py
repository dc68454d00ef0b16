"""Who was paid between two blocks? Logs of one payer or operator, chunk by chunk, each ending where it says.

Providers limit the range of a log query, each to its own length: `paging.py` finds out how many blocks to ask for. A
chunk that fails ends the scan with an error, because a gap would look like silence. Whoever stops can go on at the
block after the last chunk that was handed out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.chain.contracts import TRANSFER, transferred
from topup.chain.paging import SPAN, SPAN_MAX, Pager, Wanted
from topup.chain.rpc import Rpc, count, unhex, unhexed
from topup.domain.errors import ChainUnknown
from topup.domain.tempo import TRANSFERRED_WITH_MEMO
from topup.domain.typed_data import AUTHORIZATION_USED
from topup.ports.budget import Budget
from topup.wire.clock import SystemClock

# The payment contract's own event; the operator is its only indexed argument.
TRANSFERRED: Final = keccak(text="Transferred(address,bytes16,address,address,uint256,address)")


@dataclass(frozen=True)
class Transfer:
    """One payment where it stands; `spent` in units of the currency that was spent, wei for ETH.

    `operator` and `id` tell it from any other. Where somebody else carried it to the chain they are who signed, and
    the authorization's nonce (EIP-3009), or the transaction and the log's place in its block (Tempo).
    """

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    operator: bytes
    id: bytes
    recipient: bytes
    sender: bytes
    spent: int


@dataclass(frozen=True)
class Chunk:
    """All payments from block `first` to block `last`, both included."""

    first: int
    last: int
    transfers: tuple[Transfer, ...]


async def transfers(
    rpc: Rpc, contract: bytes, operator: bytes, first: int, last: int, pager: Pager
) -> AsyncIterator[Chunk]:
    """Read the contract's Transferred events of one operator from block `first` to block `last`, in order.

    Each chunk is complete when it is handed out. What the pager's budget does not allow any more is not read.

    Raises:
        ChainUnknown: a chunk could not be had, or holds what was not asked for.
    """
    wanted = [of_operator(contract, operator)]
    async for page in pager.pages(rpc, wanted, (first, last)):
        told = tuple(transfer(log, contract, operator, page.first, page.last) for log in page.logs[0])
        yield Chunk(page.first, page.last, told)


def of_operator(contract: bytes, operator: bytes) -> Wanted:
    """Return which logs are those of the contract's payments to one operator."""
    return {
        "address": "0x" + contract.hex(),
        "topics": ["0x" + TRANSFERRED.hex(), "0x" + operator.rjust(32, b"\0").hex()],
    }


def patient() -> Pager:
    """Return what reads as long as it takes, for a command that somebody waits for."""
    return Pager(Budget(SystemClock(), questions=None, seconds=None))


async def authorizations(
    rpc: Rpc, token: bytes, payer: bytes, first: int, last: int, pager: Pager
) -> AsyncIterator[Chunk]:
    """Read which authorizations (EIP-3009) of `payer` the token has used, each with the transfer it made.

    Raises:
        ChainUnknown: as above, or a use stands there without its transfer.
    """
    wanted = [of_payer(token, AUTHORIZATION_USED, payer), of_payer(token, TRANSFER, payer)]
    async for page in pager.pages(rpc, wanted, (first, last), spans=(SPAN, SPAN_MAX)):
        (begin, end), (uses, moves) = (page.first, page.last), page.logs
        used = sorted((_stands(log, wanted[0], begin, end) for log in uses), key=lambda at: at.place)
        moved = sorted((_stands(log, wanted[1], begin, end) for log in moves), key=lambda at: at.place)
        # The token says of each use first that, then what it moved.
        pairs = [(use, next((m for m in moved if m.place > use.place), None)) for use in used]
        made = [move for use, move in pairs if move is not None and move.tx_hash == use.tx_hash]
        if len({move.place for move in made}) != len(used):
            raise ChainUnknown(f"{rpc.host} shows the use of an authorization without the transfer it made")
        yield Chunk(
            begin, end, tuple(_carried(move, payer, use.topic(2)) for use, move in zip(used, made, strict=True))
        )


async def memos(rpc: Rpc, token: bytes, payer: bytes, first: int, last: int, pager: Pager) -> AsyncIterator[Chunk]:
    """Read what `payer` has sent of a token under a memo (TIP-20), as machine payments are.

    Raises:
        ChainUnknown: as above.
    """
    wanted = of_payer(token, TRANSFERRED_WITH_MEMO, payer)
    async for page in pager.pages(rpc, [wanted], (first, last), spans=(SPAN, SPAN_MAX)):
        begin, end = page.first, page.last
        found = [_stands(log, wanted, begin, end) for log in page.logs[0]]
        yield Chunk(begin, end, tuple(_carried(at, payer, at.tx_hash + at.place[1].to_bytes(8, "big")) for at in found))


def transfer(log: Any, contract: bytes, operator: bytes, first: int, last: int) -> Transfer:
    """Read a Transferred event of one operator that lies between two blocks.

    Raises:
        ChainUnknown: it is anything else.
    """
    found = transferred({"logs": [log]}, contract)
    if len(found) != 1 or log.get("removed"):
        raise ChainUnknown("a log is none of the contract's Transferred events")
    said, number = found[0], count(log.get("blockNumber"), "a log's block")
    if bytes.fromhex(said["operator"][2:]) != operator or not first <= number <= last:
        raise ChainUnknown("a log was not asked for")
    return Transfer(
        block_number=number,
        block_hash=unhex(log.get("blockHash"), "a log's block hash", 32),
        tx_hash=unhex(log.get("transactionHash"), "a log's transaction", 32),
        operator=operator,
        id=bytes(said["id"]),
        recipient=bytes.fromhex(said["recipient"][2:]),
        sender=bytes.fromhex(said["sender"][2:]),
        spent=int(said["spentAmount"]),
    )


# -- logs of a token --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stands:
    """A log that was asked for; `place` is its block and its index there."""

    place: tuple[int, int]
    block_hash: bytes
    tx_hash: bytes
    topics: tuple[bytes, ...]
    data: bytes

    def topic(self, number: int) -> bytes:
        """Return a topic of 32 bytes."""
        if len(self.topics) <= number or len(self.topics[number]) != 32:
            raise ChainUnknown("a log has too few topics")
        return self.topics[number]


def of_payer(token: bytes, event: bytes, payer: bytes) -> Wanted:
    """Return which logs are those of one event of a token whose first indexed argument is the payer."""
    return {"address": "0x" + token.hex(), "topics": ["0x" + event.hex(), "0x" + payer.rjust(32, b"\0").hex()]}


def _stands(log: Any, wanted: Wanted, first: int, last: int) -> _Stands:
    if not isinstance(log, dict) or not isinstance(log.get("topics"), list) or log.get("removed"):
        raise ChainUnknown("a log cannot be read")
    number, named = count(log.get("blockNumber"), "a log's block"), [unhex(t, "a topic") for t in log["topics"]]
    of_token = unhexed(log.get("address")) == unhexed(wanted["address"])
    if not of_token or named[:2] != [unhexed(t) for t in wanted["topics"]] or not first <= number <= last:
        raise ChainUnknown("a log was not asked for")
    return _Stands(
        (number, count(log.get("logIndex"), "a log's index")),
        unhex(log.get("blockHash"), "a log's block hash", 32),
        unhex(log.get("transactionHash"), "a log's transaction", 32),
        tuple(named),
        unhex(log.get("data"), "a log's data"),
    )


def _carried(at: _Stands, payer: bytes, key: bytes) -> Transfer:
    """Return what a log of a token says was sent: to its third topic, as much as its data."""
    if len(at.data) != 32:
        raise ChainUnknown(f"an amount has {len(at.data)} bytes")
    to, units = at.topic(2)[12:], int.from_bytes(at.data, "big")
    return Transfer(at.place[0], at.block_hash, at.tx_hash, payer, key, to, payer, units)
