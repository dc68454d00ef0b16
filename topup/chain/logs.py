"""Who was paid between two blocks? Logs of one payer or operator, chunk by chunk, each ending where it says.

Providers limit the range of a log query, each to its own length: `paging.py` finds out how many blocks to ask for. A
chunk that fails ends the scan with an error, because a gap would look like silence. Whoever stops can go on at the
block after the last chunk that was handed out.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.accounting.reconciliation import Transfer
from topup.chain.contracts import TRANSFER, transferred
from topup.chain.paging import SPAN, SPAN_MAX, Page, Pager, Wanted
from topup.chain.rpc import Rpc, count, unhex, unhexed
from topup.domain.errors import ChainUnknown
from topup.domain.tempo import TRANSFERRED_WITH_MEMO
from topup.domain.typed_data import AUTHORIZATION_USED
from topup.ports.budget import Budget
from topup.wire.clock import SystemClock

# The payment contract's own event; the operator is its only indexed argument.
TRANSFERRED: Final = keccak(text="Transferred(address,bytes16,address,address,uint256,address)")


@dataclass(frozen=True)
class Chunk:
    """All payments from block `first` to block `last`, both included."""

    first: int
    last: int
    transfers: tuple[Transfer, ...]


async def transfers(
    rpc: Rpc, contract: bytes, operator: bytes, first: int, last: int, pager: Pager, payer: bytes | None = None
) -> AsyncIterator[Chunk]:
    """Read the contract's Transferred events of one operator from block `first` to block `last`, in order.

    Each chunk is complete when it is handed out; with `payer`, it holds what that wallet has paid. What the pager's
    budget does not allow any more is not read.
    """
    async for page in pager.pages(rpc, [of_operator(contract, operator)], (first, last)):
        paid = [transfer(log, contract, operator, page.first, page.last) for log in page.logs[0]]
        yield Chunk(page.first, page.last, tuple(shown for sender, shown in paid if payer in (None, sender)))


def of_operator(contract: bytes, operator: bytes) -> Wanted:
    """Return which logs are those of the contract's payments to one operator."""
    return of_payer(contract, TRANSFERRED, operator)


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
        used, moved = (_wanted(logs, of, page) for logs, of in zip(page.logs, wanted, strict=True))
        # The token says of each use first that, then what it moved.
        pairs = [(use, next((m for m in moved if m.position > use.position), None)) for use in used]
        made = [move for use, move in pairs if move is not None and move.tx_hash == use.tx_hash]
        if len({move.position for move in made}) != len(used):
            raise ChainUnknown(f"{rpc.host} shows the use of an authorization without the transfer it made")
        transfers = (_carried(token, payer, move, use.topics[2]) for use, move in zip(used, made, strict=True))
        yield Chunk(page.first, page.last, tuple(transfers))


async def memos(rpc: Rpc, token: bytes, payer: bytes, first: int, last: int, pager: Pager) -> AsyncIterator[Chunk]:
    """Read what `payer` has sent of a token under a memo (TIP-20), as machine payments are."""
    wanted = of_payer(token, TRANSFERRED_WITH_MEMO, payer)
    async for page in pager.pages(rpc, [wanted], (first, last), spans=(SPAN, SPAN_MAX)):
        sent = _wanted(page.logs[0], wanted, page)
        transfers = (_carried(token, payer, at, at.tx_hash + at.index.to_bytes(8, "big")) for at in sent)
        yield Chunk(page.first, page.last, tuple(transfers))


def transfer(log: Any, contract: bytes, operator: bytes, first: int, last: int) -> tuple[bytes, Transfer]:
    """Read a Transferred event of one operator that lies between two blocks: who has paid, and what."""
    found = transferred({"logs": [log]}, contract)
    if len(found) != 1 or log.get("removed"):
        raise ChainUnknown("a log is none of the contract's Transferred events")
    said, number = found[0], count(log.get("blockNumber"), "a log's block")
    if bytes.fromhex(said["operator"][2:]) != operator or not first <= number <= last:
        raise ChainUnknown("a log was not asked for")
    tx_hash = unhex(log.get("transactionHash"), "a log's transaction", 32)
    sender, recipient = (bytes.fromhex(said[name][2:]) for name in ("sender", "recipient"))
    return sender, Transfer(contract, operator, bytes(said["id"]), recipient, int(said["spentAmount"]), tx_hash, number)


# -- logs of a token --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """A log where it stands, by its block and its index there; `data` as the provider has written it."""

    block_number: int
    index: int
    block_hash: bytes
    tx_hash: bytes
    address: bytes
    topics: tuple[bytes, ...]
    removed: bool
    data: object = field(compare=False)

    @property
    def position(self) -> tuple[int, int]:
        """Return what tells it from the others of its chain, in their order."""
        return self.block_number, self.index


def read_log(log: Any) -> Log:
    """Read a log, whatever it says."""
    topics = log.get("topics") if isinstance(log, dict) else None
    if not isinstance(topics, list) or len(topics) > 4:
        raise ChainUnknown("a log cannot be read")
    return Log(
        count(log.get("blockNumber"), "a log's block"),
        count(log.get("logIndex"), "a log's index"),
        unhex(log.get("blockHash"), "a log's block hash", 32),
        unhex(log.get("transactionHash"), "a log's transaction", 32),
        unhex(log.get("address"), "a log's address", 20),
        tuple(unhex(topic, "a topic", 32) for topic in topics),
        bool(log.get("removed")),
        log.get("data"),
    )


def of_payer(token: bytes, event: bytes, payer: bytes) -> Wanted:
    """Return which logs are those of one event of a contract whose first indexed argument is this address."""
    return {"address": "0x" + token.hex(), "topics": ["0x" + event.hex(), "0x" + payer.rjust(32, b"\0").hex()]}


def _wanted(logs: list[Any], wanted: Wanted, page: Page) -> list[Log]:
    """Read logs of three topics that were asked for, in the order in which they were emitted."""
    read = [read_log(log) for log in logs]
    topics, address = [unhexed(topic) for topic in wanted["topics"]], unhexed(wanted["address"])
    for log in read:
        asked_for = (log.address, list(log.topics[:2])) == (address, topics)
        if log.removed or not asked_for or len(log.topics) < 3 or not page.first <= log.block_number <= page.last:
            raise ChainUnknown("a log was not asked for")
    return sorted(read, key=lambda log: log.position)


def _carried(token: bytes, payer: bytes, at: Log, key: bytes) -> Transfer:
    """Return what a log of a token says was sent: to its third topic, as much as its data."""
    units = int.from_bytes(unhex(at.data, "a log's data", 32), "big")
    return Transfer(token, payer, key, at.topics[2][12:], units, at.tx_hash, at.block_number)
