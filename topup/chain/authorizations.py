"""What became of an authorization that somebody else carries to the chain?

Whoever holds it may carry it there once, in a transaction of their own. Three things tell: the token's mark that it was
used, the log that its use emits, and the transfer in the same receipt, which alone says who got how much. A mark
without a transfer is no payment, and absence proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from topup.chain.blocks import FINAL, HEADS, head, heads, numbered, receipt_query, same_block
from topup.chain.charge_status import Account, Unread, looked, past
from topup.chain.contracts import TRANSFER, known_word, word
from topup.chain.control import Uncontrolled, control
from topup.chain.preflight import balance, call
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Answer, Query, Rpc, RpcError, count, known, quantity, unhex, unhexed
from topup.chain.search import Search, Sought
from topup.domain.errors import ChainUnknown
from topup.domain.lifecycle import NO_TOKENS, Inclusion
from topup.domain.money import Usdc, Wei, gas_dollars
from topup.ports.chain import UNMEASURED, AuthorizationUse, Head, Observation, Seen

# What only a log shows is looked for in the last minute's blocks again.
AGAIN: Final = 120
RecordedUse = tuple[AuthorizationUse, Inclusion | None]


async def look(rpc: Rpc, chain_id: int, uses: Sequence[RecordedUse], search: Search) -> ProviderObservation:
    """Look for the use of these authorizations: one request, and more where one of them shows that it was used."""
    recorded = {use.key: inclusion for use, inclusion in uses if inclusion is not None}
    named = [use for use, _ in uses if use.hash is not None]
    marked = [use for use, _ in uses if use.mark is not None]
    queries: list[Query] = [
        *HEADS,
        *(mark(use, "latest") for use in marked),
        *(receipt_query(use.hash or b"") for use in named),
        *(numbered(inclusion.block_number) for inclusion in recorded.values()),
    ]
    said = await rpc.batch(queries)
    reach, rest = heads(rpc, chain_id, said)
    now, end, answers = reach.newest, _final(said[HEADS.index(FINAL)], reach.newest), iter(rest)
    marks = {use.key: word(next(answers)) for use in marked}
    receipts = {use.key: next(answers) for use in named}
    blocks: dict[bytes, Answer] = {key: next(answers) for key in recorded}
    if receipts and all(isinstance(answer, RpcError) for answer in receipts.values()):
        known(next(iter(receipts.values())), "a receipt")
    carriers: list[_Carrier] = []
    for use, _ in uses:
        if use.hash is not None:
            carriers += _named(use, receipts[use.key])
        elif marks.get(use.key) != 0:  # while its mark is zero there is no log to look for
            carriers += await _carried(rpc, use, end, now, search)
    there = {key: unhexed(block.get("hash")) for key, block in blocks.items() if isinstance(block, dict)}
    standing = frozenset(key for key, shown in there.items() if shown == recorded[key].block_hash)
    seen = await _weighed(rpc, carriers)
    doubted = [
        use
        for use, inclusion in uses
        if inclusion is not None
        and use.key not in seen
        and inclusion.block_number < now.number
        and marks.get(use.key) == 0
    ]
    unheld = {
        use.key
        for use, inclusion in uses
        if inclusion is not None and use.mark is None and use.key in standing - seen.keys()
        if inclusion.block_number < now.number and _lacks(blocks[use.key], inclusion.tx_hash)
    }
    observation = Observation(
        head=now,
        safe=reach.safe,
        finalized=reach.final,
        finalized_s=reach.final_s,
        nonce_latest=0,
        seen=seen,
        replaced=frozenset(key for key, shown in there.items() if shown is not None) - standing,
        used=frozenset(key for key, marked_word in marks.items() if marked_word),
        unspent=await _unspent(rpc, doubted, now) | unheld,
    )
    return ProviderObservation(
        observation, {key: inclusion.block_number for key, inclusion in recorded.items()}, standing
    )


async def account(rpc: Rpc, chain_id: int, use: AuthorizationUse, final: int, search: Search) -> Account | Unread:
    """Read what became of an authorization, through a provider that is past the final block `final`."""
    newest, at, _ = await past(rpc, chain_id, final)
    # Where only a log shows it, it has to be known before that logs are there; what was read earlier does not count.
    try:
        shown = await control(rpc, at, use.ends_s, search.may) if use.mark is None else b""
    except Uncontrolled as error:
        return Unread(newest, at.number, over=str(error))
    piece = await looked(search, rpc, _sought(use, over=use.mark is None), at, newest)
    if isinstance(piece, Unread):
        return piece
    payers = {tx_hash for tx_hash, _ in piece.carriers}
    last: Query = numbered(at.number)
    if use.mark is None:
        same_block(rpc, (await rpc.batch([last]))[0], at)
        return Account(newest, at, flag=False, payers=frozenset(payers), control=shown)
    # The mark is read last, however long the logs took; and the final block once more.
    asked = [receipt_query(use.hash)] if use.hash is not None else []
    marked, again, *receipts = await rpc.batch([mark(use, hex(newest.number)), last, *asked])
    same_block(rpc, again, at)
    if use.hash is not None and known(receipts[0], "the receipt") is not None and _succeeded(receipts[0]):
        payers.add(use.hash)
    return Account(newest, at, known_word(marked, "an authorization's mark") != 0, frozenset(payers))


async def _unspent(rpc: Rpc, doubted: Sequence[AuthorizationUse], at: Head) -> frozenset[bytes]:
    """Return which of these authorizations bear no mark at the end of block `at`; both are asked of one block."""
    if not doubted:
        return frozenset()
    asked = (mark(use, hex(at.number)) for use in doubted)
    block, *marks = await rpc.batch([numbered(at.number), *asked])
    if not isinstance(block, dict) or head(block) != at:
        return frozenset()
    return frozenset(use.key for use, answer in zip(doubted, marks, strict=True) if word(answer) == 0)


# -- where it was used ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Carrier:
    """A transaction that carries a use, and how many do."""

    use: AuthorizationUse
    tx_hash: bytes
    number: int
    in_all: int = 1


def _named(use: AuthorizationUse, receipt: Answer) -> list[_Carrier]:
    """Return where the transaction stands whose hash was known before it was sent; one that fails is not seen."""
    if use.hash is None or not isinstance(receipt, dict) or not receipt.get("blockHash"):
        return []
    return [_Carrier(use, use.hash, count(receipt.get("blockNumber"), "the receipt's block"))]


async def _carried(rpc: Rpc, use: AuthorizationUse, final: Head | None, newest: Head, search: Search) -> list[_Carrier]:
    """Return the first transaction that carries the log; a part of the chain that cannot be read hides all of it.

    So does one that has not been read yet: the next look goes on there. What no mark shows used is looked for anew once
    its time is over and logs of it are known to be there: before that, they may have been behind.
    """
    over = use.mark is None and final is not None and final.timestamp_s > use.ends_s
    try:
        if over and final is not None:
            try:
                await control(rpc, final, use.ends_s, search.may)
            except ChainUnknown:
                over = False
        piece = await search.through(rpc, _sought(use, over=over), final, newest)
    except ChainUnknown:
        return []
    if piece.last < newest.number:
        return []
    return [_Carrier(use, tx_hash, number, len(piece.carriers)) for tx_hash, number in piece.carriers[:1]]


def over_subject(use: AuthorizationUse) -> bytes:
    """Return under which name is looked for what no mark shows used, once its time is over."""
    return b"over" + use.log[0] + use.key


def _sought(use: AuthorizationUse, *, over: bool = False) -> Sought:
    """Return what is looked for; apart from it where its time is over, so that what was read before is read again."""
    address, topics = use.log
    wanted = {"address": "0x" + address.hex(), "topics": [None if t is None else "0x" + t.hex() for t in topics]}

    def carrier(log: Any, first: int, last: int) -> tuple[bytes, int]:
        (seen,) = _listed([log])
        number = count(seen.get("blockNumber"), "a log's block")
        if seen.get("removed") or not _is(seen, *use.log) or not first <= number <= last:
            raise ChainUnknown("a log was not asked for")
        return unhex(seen.get("transactionHash"), "a log's transaction", 32), number

    again = AGAIN if use.mark is None and not over else 0
    return Sought(over_subject(use) if over else address + use.key, wanted, use.since, carrier, again)


# -- what it did there ------------------------------------------------------------------------------------------


async def _weighed(rpc: Rpc, carriers: Sequence[_Carrier]) -> dict[bytes, Seen]:
    if not carriers:
        return {}
    queries: list[Query] = []
    for carrier in carriers:
        token, sender = carrier.use.token, carrier.use.sender
        queries += [
            receipt_query(carrier.tx_hash),
            numbered(carrier.number),
            balance(token, sender, hex(carrier.number - 1)),
            balance(token, sender, hex(carrier.number)),
        ]
    answers = await rpc.batch(queries)
    weighed = ((p.use.key, _weigh(p, *answers[4 * n : 4 * n + 4])) for n, p in enumerate(carriers))
    return {key: seen for key, seen in weighed if seen is not None}


def _weigh(carrier: _Carrier, receipt: Answer, block: Answer, before: Answer, after: Answer) -> Seen | None:
    use = carrier.use
    if not isinstance(receipt, dict) or unhexed(receipt.get("transactionHash")) != carrier.tx_hash:
        return None
    if not isinstance(block, dict) or unhexed(block.get("hash")) != unhexed(receipt.get("blockHash")):
        return None  # not canonical at this height, or this provider does not know it yet
    at, success = head(block), _succeeded(receipt)
    if at.number < use.since or (use.hash is None and not success):
        return None  # no use can be that old, and what failed has emitted nothing
    logs = _listed(receipt.get("logs"))
    uses = sum(_is(log, *use.log) for log in logs)
    transfers = sum(_moves(log, use) for log in logs)
    trusted = not success or (uses, transfers, carrier.in_all) == (1, 1, 1)
    moved = _moved(before, after)
    sent = use.tokens if success else NO_TOKENS
    fee = _fee(receipt, use, moved - sent if trusted and moved is not None else None)
    if trusted:
        tokens, why = (sent, "") if success else (sent, "reverted: it moved nothing, and was used up")
        check = _checked(moved, tokens + fee)
    else:
        # No transfer says what it took: whatever left beyond the fee, or else all that was authorized.
        tokens, check = (use.tokens, UNMEASURED) if moved is None else (moved - fee, "by the balance alone")
        why = f"status 1 with {uses} logs of its use and {transfers} transfers of {use.tokens.units} to the recipient"
        why += f", and {carrier.in_all} transactions carry it" if carrier.in_all > 1 else ""
    inclusion = Inclusion(
        block_number=at.number,
        block_hash=at.hash,
        block_ms=at.timestamp_s * 1000,
        success=success,
        gas=Wei(0),
        l1_fee=Wei(0),
        spent=Wei(0),
        reason=why,
        transient=success and trusted,
        tokens=tokens,
        token_fee=fee,
        tx_hash=carrier.tx_hash,
    )
    return Seen(inclusion, why, check, trusted)


def _moves(log: dict[str, Any], use: AuthorizationUse) -> bool:
    parties = (TRANSFER, use.sender.rjust(32, b"\0"), use.recipient.rjust(32, b"\0"))
    return _is(log, use.token, parties) and unhexed(log.get("data")) == use.tokens.units.to_bytes(32, "big")


def _fee(receipt: dict[str, Any], use: AuthorizationUse, left: Usdc | None) -> Usdc:
    """Return what the network took of the wallet's tokens, rounded up to the token's unit as the chain does.

    Where the receipt does not say its price it is `left`: what the wallet fell by beyond the transfer.

    Raises:
        ChainUnknown: neither tells it.
    """
    if not use.pays_fee:
        return NO_TOKENS
    if receipt.get("effectiveGasPrice") is None and left is not None and left >= NO_TOKENS:
        return left
    price = Wei(quantity(receipt.get("effectiveGasPrice"), "effectiveGasPrice"))
    return gas_dollars(price, count(receipt.get("gasUsed"), "gasUsed"))


def _moved(before: Answer, after: Answer) -> Usdc | None:
    held, left = word(before), word(after)
    return None if held is None or left is None else Usdc(held - left)


def _checked(moved: Usdc | None, due: Usdc) -> str:
    """Return what the wallet's tokens say of the whole cost; another payment in the same block makes it differ."""
    if moved is None:
        return UNMEASURED
    return "exact" if moved == due else f"differs by {(moved - due).units} units of the token"


def _lacks(block: Answer, tx_hash: bytes) -> bool:
    """Tell whether a block's own list of transactions lacks this one: whoever shows it there has made it up."""
    listed = block.get("transactions") if isinstance(block, dict) else None
    return isinstance(listed, list) and all(
        isinstance(listed_hash, str) and unhexed(listed_hash) != tx_hash for listed_hash in listed
    )


# -- questions and answers --------------------------------------------------------------------------------------


def mark(use: AuthorizationUse, at: str) -> Query:
    """Ask for the word that is not zero once this authorization is used."""
    assert use.mark is not None
    return call(*use.mark, at)


def _final(block: Answer, newest: Head) -> Head | None:
    """Return the final block where one is told that is not above the newest."""
    at = head(block) if isinstance(block, dict) else None
    return at if at is not None and at.number <= newest.number else None


def _succeeded(receipt: Any) -> bool:
    if not isinstance(receipt, dict):
        raise ChainUnknown(f"a receipt is of type {type(receipt).__name__}")
    return quantity(receipt.get("status"), "the receipt's status") == 1


def _listed(logs: Any) -> Sequence[dict[str, Any]]:
    """Return logs that can be read; of others the absence of one would mean nothing."""
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise ChainUnknown("the logs cannot be read")
    return logs


def _is(log: dict[str, Any], address: bytes, topics: Sequence[bytes | None]) -> bool:
    """Tell whether a log is of this address and these topics; None may be anything."""
    shown = log.get("topics")
    if not isinstance(shown, list) or unhexed(log.get("address")) != address:
        return False
    return len(shown) >= len(topics) and all(
        topic is None or topic == unhexed(shown_topic) for shown_topic, topic in zip(shown, topics, strict=False)
    )
