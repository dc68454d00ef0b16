"""Does a provider show the logs of a time, or only its blocks?

Where nothing but a log shows a payment, its absence says something only of a provider whose index of logs reaches past
the time in which it could be made. A control is somebody else's log: it is found through block and receipt, which need
no index, in the last block behind that time that holds one, and then asked for as the payment's log is. An index holds
what lies before what it holds, so whoever returns it has looked at all of that time. Two providers that are right find
the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.chain.rpc import Query, Rpc, count, known, unhex
from topup.chain.survey import head
from topup.errors import ChainUnknown
from topup.ports import Head

# So far it is looked back from a final block: as many blocks as the chain makes in the minute behind a payment's end.
BLOCKS: Final = 120
AT_ONCE: Final = 20
# Of how many transactions of a block the receipts are read, and how many logs of one are worth reading.
RECEIPTS: Final = 4


class Uncontrolled(ChainUnknown):
    """Nothing shows that logs of that time are there: no fault of a provider, and no proof of anything."""


@dataclass(frozen=True)
class Control:
    """One log: its block, transaction and index, whose it is, and its topics."""

    block: Head
    tx_hash: bytes
    index: int
    address: bytes
    topics: tuple[bytes, ...]

    @property
    def name(self) -> bytes:
        """Return what tells it from every other log."""
        return keccak(self.block.hash + self.tx_hash + self.index.to_bytes(8, "big"))


async def control(rpc: Rpc, final: Head, since_s: int) -> bytes:
    """Return the name of the control that this provider returns for the time from `since_s` to the final block.

    Raises:
        Uncontrolled: there is none, or it does not return it.
        ChainUnknown: it could not be asked, or answers what cannot be read.
    """
    found = await _found(rpc, final, since_s)
    within = {"fromBlock": hex(found.block.number), "toBlock": hex(final.number)}
    wanted = {"address": "0x" + found.address.hex(), "topics": ["0x" + topic.hex() for topic in found.topics]}
    (answer,) = await rpc.batch([("eth_getLogs", [{**wanted, **within}])])
    logs = known(answer, "the logs of a control")
    if not isinstance(logs, list) or found not in [one for log in logs if (one := _control(log, found.block))]:
        raise Uncontrolled(
            f"{rpc.host} does not return a log of block {found.block.number} that its receipts show: that it returns"
            " none of a payment says nothing"
        )
    return found.name


async def _found(rpc: Rpc, final: Head, since_s: int) -> Control:
    """Return the log of the last block that holds one, down from the final block."""
    top = final.number
    while top > max(0, final.number - BLOCKS):
        numbers = range(top, max(-1, top - AT_ONCE, final.number - BLOCKS), -1)
        queries: list[Query] = [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
        for number, answer in zip(numbers, await rpc.batch(queries), strict=True):
            block = known(answer, f"block {number}")
            at = head(block)
            if at.number != number or (number == final.number and at != final):
                raise ChainUnknown(f"{rpc.host} shows another block at {number} than it did before")
            if at.timestamp_s < since_s:
                raise _none(final)
            hashes = block.get("transactions")
            log = await _first(rpc, at, hashes) if isinstance(hashes, list) and hashes else None
            if log is not None:
                return log
        top = numbers[-1] - 1
    raise _none(final)


async def _first(rpc: Rpc, at: Head, hashes: list[Any]) -> Control | None:
    """Return the first log that the first receipts of a block hold."""
    named = [unhex(one, "a block's transaction", 32) for one in hashes[:RECEIPTS]]
    answers = await rpc.batch([("eth_getTransactionReceipt", ["0x" + one.hex()]) for one in named])
    for tx_hash, answer in zip(named, answers, strict=True):
        receipt = known(answer, "a receipt")
        logs = receipt.get("logs") if isinstance(receipt, dict) else None
        for log in logs[:1] if isinstance(logs, list) else ():
            found = _control(log, at)
            if found is not None and found.tx_hash == tx_hash:
                return found
    return None


def _control(log: Any, at: Head) -> Control | None:
    """Read a log of this block; None for one of another.

    Raises:
        ChainUnknown: it cannot be read.
    """
    if not isinstance(log, dict) or not isinstance(topics := log.get("topics"), list) or len(topics) > 4:
        raise ChainUnknown("a log cannot be read")
    if unhex(log.get("blockHash"), "a log's block hash", 32) != at.hash or log.get("removed"):
        return None
    return Control(
        at,
        unhex(log.get("transactionHash"), "a log's transaction", 32),
        count(log.get("logIndex"), "a log's index"),
        unhex(log.get("address"), "a log's address", 20),
        tuple(unhex(topic, "a topic", 32) for topic in topics),
    )


def _none(final: Head) -> Uncontrolled:
    return Uncontrolled(
        f"no log stands between the payment's end and block {final.number}: nothing shows that logs are kept"
    )
