"""Does a provider show the logs of a time, or only its blocks?

Where nothing but a log shows a payment, its absence says something only of a provider whose index of logs reaches past
the time in which it could be made. A control is somebody else's log: it is found through block and receipt, which need
no index, in the last block behind that time that holds one, and then asked for as the payment's log is. An index holds
what lies before what it holds, so whoever returns it has looked at all of that time. Two providers that are right find
the same one.
"""

from collections.abc import Callable
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.chain.blocks import head, numbered, receipt_query
from topup.chain.logs import Log, read_log
from topup.chain.rpc import Query, Rpc, known, unhex
from topup.domain.errors import ChainUnknown
from topup.ports.chain import Head

# So far it is looked back from a final block: as many blocks as the chain makes in the minute behind a payment's end.
BLOCKS: Final = 120
AT_ONCE: Final = 20
# Of how many transactions of a block the receipts are read, and how many logs of one are worth reading.
RECEIPTS: Final = 4


class Uncontrolled(ChainUnknown):
    """Nothing shows that logs of that time are there: no fault of a provider, and no proof of anything."""


async def control(rpc: Rpc, final: Head, since_s: int, may: Callable[[Rpc], bool]) -> bytes:
    """Return the name of the control that this provider returns for the time from `since_s` to the final block.

    `may` takes one more question from what this pass may ask it.

    Raises:
        Uncontrolled: there is none, it does not return it, or this pass may not ask for it any more.
    """
    shown = await _found(rpc, final, since_s, may)
    within = {"fromBlock": hex(shown.block_number), "toBlock": hex(final.number)}
    wanted = {"address": "0x" + shown.address.hex(), "topics": ["0x" + topic.hex() for topic in shown.topics]}
    (answer,) = await _asked(rpc, [("eth_getLogs", [{**wanted, **within}])], may)
    logs = known(answer, "the logs of a control")
    if not isinstance(logs, list) or shown not in [read_log(log) for log in logs]:
        raise Uncontrolled(
            f"{rpc.host} does not return a log of block {shown.block_number} that its receipts show: that it returns"
            " none of a payment says nothing"
        )
    return keccak(shown.block_hash + shown.tx_hash + shown.index.to_bytes(8, "big"))


async def _asked(rpc: Rpc, queries: list[Query], may: Callable[[Rpc], bool]) -> list[Any]:
    if not may(rpc):
        raise Uncontrolled(f"{rpc.host} was asked as much as a pass may: its logs are tried in the next")
    return await rpc.batch(queries)


async def _found(rpc: Rpc, final: Head, since_s: int, may: Callable[[Rpc], bool]) -> Log:
    for top in range(final.number, max(0, final.number - BLOCKS), -AT_ONCE):
        numbers = range(top, max(-1, top - AT_ONCE, final.number - BLOCKS), -1)
        queries: list[Query] = [numbered(number) for number in numbers]
        sent: list[tuple[Head, bytes]] = []
        ended = False
        for number, answer in zip(numbers, await _asked(rpc, queries, may), strict=True):
            block = known(answer, f"block {number}")
            at = head(block)
            if at.number != number or (number == final.number and at != final):
                raise ChainUnknown(f"{rpc.host} shows another block at {number} than it did before")
            ended = at.timestamp_s < since_s
            if ended:
                break
            hashes = block.get("transactions")
            some = hashes[:RECEIPTS] if isinstance(hashes, list) else []
            sent += [(at, unhex(tx_hash, "a block's transaction", 32)) for tx_hash in some]
        log = await _first(rpc, sent, may) if sent else None
        if log is not None:
            return log
        if ended:
            break
    raise Uncontrolled(
        f"no log stands between the payment's end and block {final.number}: nothing shows that logs are kept"
    )


async def _first(rpc: Rpc, sent: list[tuple[Head, bytes]], may: Callable[[Rpc], bool]) -> Log | None:
    receipts: list[Query] = [receipt_query(tx_hash) for _, tx_hash in sent]
    for (at, tx_hash), answer in zip(sent, await _asked(rpc, receipts, may), strict=True):
        receipt = known(answer, "a receipt")
        logs = receipt.get("logs") if isinstance(receipt, dict) else None
        for log in logs[:1] if isinstance(logs, list) else ():
            shown = read_log(log)
            stands = (shown.block_number, shown.block_hash, shown.tx_hash) == (at.number, at.hash, tx_hash)
            if stands and not shown.removed:
                return shown
    return None
