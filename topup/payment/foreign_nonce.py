"""Has somebody else used a nonce of ours, and can what we sent there never be mined?

A nonce is mined once. When the chain shows one of ours used and shows no transaction of ours that used it, a receipt
may lag, or the key is used elsewhere. Since when that is so is stored, so that a restart begins nothing anew. With it
stands the block by whose end the nonce was used. Once that very block is final, as two owners show it, whatever used
the nonce stands for ever, and what we sent there is dead; whether its charge was paid is another question. A person who
takes the transaction over by `topup reconcile --adopt` says the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from topup.domain.errors import ChainUnknown
from topup.domain.lifecycle import Attempt, TopUp
from topup.payment.confirmation import spent
from topup.ports.chain import Observation, Taken
from topup.ports.ledger import ForeignNonces
from topup.ports.rail import Rail, WalletRail, sends

NonceSlot = tuple[int, int]


@dataclass(frozen=True)
class Contest:
    """Nonces of a top-up that something unknown has used.

    Attributes:
        used: the oldest attempt at each, whose receipt nobody shows.
        since: since when each of them is, in ms.
        gone: slots that a final block shows used, or that a person took over: nothing of ours is mined there any more.
        new: attempts of which this was not known before.
        gone_by: the last block by whose end slots in `gone` were used; who looked no further than before it has not
            seen what used them.
    """

    used: tuple[Attempt, ...] = ()
    since: tuple[int, ...] = ()
    gone: frozenset[NonceSlot] = frozenset()
    new: tuple[Attempt, ...] = ()
    gone_by: int = 0


async def contest(
    rail: Rail, store: ForeignNonces, topup: TopUp, observation: Observation, pending: Sequence[Attempt], now_ms: int
) -> Contest:
    """Find out which nonces of what is out were used by none of ours, and store what is new.

    Nothing is asked while no nonce is; a chain that does not answer leaves it as it was.
    """
    adopted = store.adopted_nonces(topup)
    left = [a for a in pending if a.nonce_slot not in adopted]
    oldest = {a.nonce_slot: a for a in reversed(left) if spent(a, observation)}
    known = store.taken(topup.id)
    used = {a.id for a in oldest.values()}
    # Of a provider that is behind the block in which it was noticed, a free nonce says nothing.
    free = [n for n, taken in known.items() if n not in used and observation.head.number >= (taken.block_number or 0)]
    if free:
        store.forget_taken(topup, free, now_ms)
    gone = {a.nonce_slot for a in pending if a.nonce_slot in adopted}
    since, new, gone_by = [], [], 0
    for attempt in oldest.values():
        before = known.get(attempt.id)
        after = before or Taken(now_ms, None, b"")
        if attempt.ours and sends(rail):
            after, settled = await _placed(rail, topup, attempt, after, observation)
            if settled:
                gone, gone_by = gone | {attempt.nonce_slot}, max(gone_by, after.block_number or 0)
        if after != before:
            store.keep_taken(topup, attempt, after, now_ms)
        since.append(after.since_ms)
        new += [attempt] if before is None else []
    return Contest(tuple(oldest.values()), tuple(since), frozenset(gone), tuple(new), gone_by)


async def _placed(
    rail: WalletRail, topup: TopUp, attempt: Attempt, taken: Taken, observation: Observation
) -> tuple[Taken, bool]:
    """Return in which block the nonce is known used, and whether that is for ever."""
    try:
        if taken.block_number is not None:
            if observation.finalized is None or observation.finalized < taken.block_number:
                return taken, False
            shown = await rail.spent(topup.wallet, taken.block_number)
            if shown.block.hash == taken.block_hash:
                return taken, shown.final and shown.block.number == taken.block_number
        # Never placed, or in a block that was replaced since.
        shown = await rail.spent(topup.wallet, observation.head.number)
    except ChainUnknown:
        return taken, False
    if shown.nonce is None or shown.nonce <= attempt.plan.nonce:  # this very block does not show it used
        return Taken(taken.since_ms, None, b""), False
    return Taken(taken.since_ms, shown.block.number, shown.block.hash), False


def foreign(topup: TopUp, seq: int, gone: frozenset[NonceSlot]) -> bool:
    """Tell whether something that is none of ours used a nonce at which a payment of this charge was sent."""
    ours = {a.nonce_slot for a in topup.out if a.inclusion is not None}
    return any(a.nonce_slot in gone - ours for a in topup.out if a.charge_seq == seq)


def nonces(slots: Collection[NonceSlot]) -> str:
    """Name these nonces, in words."""
    numbers = sorted({nonce for _, nonce in slots})
    return f"nonce{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
