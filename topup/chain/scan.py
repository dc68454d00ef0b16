"""Who was paid between two blocks? Transferred events of one operator, chunk by chunk, each ending where it says.

Providers limit the range of a log query, each to its own length: a chunk that is refused is asked for again in
halves. A chunk that fails otherwise ends the scan with an error, because a gap would look like silence. Whoever
stops can go on at the block after the last chunk that was handed out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from topup.chain.contracts import transferred
from topup.chain.rpc import Rpc, RpcError, known, quantity, unhex
from topup.errors import ChainUnknown

# keccak256 of Transferred(address,bytes16,address,address,uint256,address); operator is the only indexed argument.
TRANSFERRED: Final = "0xb7ee4fafa10d16ee883a136a3dcc9179d8e6041ba71cc29c2b0bce4f7bdd6e86"
# Blocks asked for at once before a provider says that it is too many.
SPAN: Final = 5_000


@dataclass(frozen=True)
class Transfer:
    """One Transferred event where it stands; `spent` in units of the currency that was spent, wei for ETH."""

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
    """All events from block `first` to block `last`, both included."""

    first: int
    last: int
    transfers: tuple[Transfer, ...]


async def transfers(
    rpc: Rpc, contract: bytes, operator: bytes, first: int, last: int, *, span: int = SPAN
) -> AsyncIterator[Chunk]:
    """Read the events from block `first` to block `last`, in order; each chunk is complete when it is handed out.

    Raises:
        ChainUnknown: a chunk could not be had in any length, or holds what was not asked for.
    """
    while first <= last:
        until = min(last, first + span - 1)
        answer, end = await rpc.batch(
            [
                (
                    "eth_getLogs",
                    [
                        {
                            "address": "0x" + contract.hex(),
                            "topics": [TRANSFERRED, "0x" + operator.rjust(32, b"\0").hex()],
                            "fromBlock": hex(first),
                            "toBlock": hex(until),
                        }
                    ],
                ),
                # A node behind that block would answer the range with what it has, which looks complete.
                ("eth_getBlockByNumber", [hex(until), False]),
            ]
        )
        if not isinstance(known(end, f"block {until}"), dict):
            raise ChainUnknown(f"{rpc.host} has no block {until}")
        if isinstance(answer, RpcError):
            if until == first:
                raise ChainUnknown(f"{rpc.host}, the logs of block {first}: {answer.message}")
            span = (until - first + 1) // 2
            continue
        if not isinstance(answer, list):
            raise ChainUnknown(f"{rpc.host} answered a question for logs with {type(answer).__name__}")
        yield Chunk(first, until, tuple(_transfer(log, contract, operator, first, until) for log in answer))
        first = until + 1


def _transfer(log: Any, contract: bytes, operator: bytes, first: int, last: int) -> Transfer:
    found = transferred({"logs": [log]}, contract)
    if len(found) != 1 or log.get("removed"):
        raise ChainUnknown("a log is none of the contract's Transferred events")
    said, number = found[0], quantity(log.get("blockNumber"), "a log's block")
    if bytes.fromhex(said["operator"][2:]) != operator or not first <= number <= last:
        raise ChainUnknown("a log was not asked for")
    return Transfer(
        block_number=number,
        block_hash=unhex(log.get("blockHash"), "a log's block hash"),
        tx_hash=unhex(log.get("transactionHash"), "a log's transaction"),
        operator=operator,
        id=bytes(said["id"]),
        recipient=bytes.fromhex(said["recipient"][2:]),
        sender=bytes.fromhex(said["sender"][2:]),
        spent=int(said["spentAmount"]),
    )
