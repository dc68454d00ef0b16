"""What do several providers say together? Nothing that one of them alone could have made up.

Providers of one owner are one voice. With a quorum of two, a fact (a nonce, a code hash, an inclusion) holds when two
owners show the same one. Of an amount that is counted in our favour the most is believed that two owners reach, of one
that counts against us the least that two owners keep below: with two owners that is the less favourable of both, with
three the middle one. So one liar among two can at worst keep us from paying, and among three not even that. With a
quorum of one, one provider was asked and what it says is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from topup.chain.charge_status import Account, Unread
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted
from topup.domain.money import Bps, Usdc, Wei
from topup.domain.nonpayment import WITNESSES, ChargeStatus, More
from topup.domain.policy import Permission
from topup.domain.reasons import Reason
from topup.ports.chain import UNMEASURED, UNTRIED, Head, Holdings, Observation, Preflight, Seen, Simulation, Spent
from topup.wire.clean import SENTENCE_MAX, joined

if TYPE_CHECKING:
    from topup.chain.receipts import ProviderObservation

T = TypeVar("T")
N = TypeVar("N", int, Wei, Usdc)
# What is said behind "the providers disagree".
SAID_MAX: Final = SENTENCE_MAX - 50
# Two looks at one feed a block apart differ by one of its updates, which Base's takes at 0.15 %.
PRICE_SPREAD_MAX: Final = Bps(100)


class Disagreement(ChainUnknown):
    """Too few independent providers say the same."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the providers disagree: {message}")


@dataclass(frozen=True)
class Vote(Generic[T]):
    """What one provider says: whose it is, what it is called, and the answer."""

    owner: str
    name: str
    value: T


@dataclass(frozen=True)
class Answers(Generic[T]):
    """What was said to one question: answers, and refusals (this payment would fail, or may not be made)."""

    votes: Sequence[Vote[T]]
    refusals: Sequence[Vote[PaymentForbidden | Reverted]] = ()


@dataclass(frozen=True)
class Agreed(Generic[T]):
    """What holds; `dissent` says who was outvoted and with what, "" when nobody was."""

    value: T
    dissent: str = ""


def owners(votes: Sequence[Vote[T]]) -> int:
    """Count who says this."""
    return len({vote.owner for vote in votes})


def agreeing(votes: Sequence[Vote[T]], fact: Callable[[T], Hashable], quorum: int) -> list[Vote[T]]:
    """Return the votes for the one fact that enough owners show; none when there is no such fact, or more than one."""
    camps: dict[Hashable, list[Vote[T]]] = {}
    for vote in votes:
        camps.setdefault(fact(vote.value), []).append(vote)
    enough = [camp for camp in camps.values() if owners(camp) >= quorum]
    return enough[0] if len(enough) == 1 else []


def reached(votes: Sequence[Vote[T]], amount: Callable[[T], N], quorum: int) -> N:
    """Return the most that `quorum` owners reach, each by the least it says."""
    least: dict[str, N] = {}
    for vote in votes:
        said = amount(vote.value)
        least[vote.owner] = min(said, least.get(vote.owner, said))
    return sorted(least.values(), reverse=True)[quorum - 1]


def kept(votes: Sequence[Vote[T]], amount: Callable[[T], N], quorum: int) -> N:
    """Return the least that `quorum` owners do not exceed, each by the most it says."""
    most: dict[str, N] = {}
    for vote in votes:
        said = amount(vote.value)
        most[vote.owner] = max(said, most.get(vote.owner, said))
    return sorted(most.values())[quorum - 1]


def preflight_of(answers: Answers[Preflight], quorum: int) -> Agreed[Preflight]:
    """Join what a payment is planned on.

    Nonce and code are facts. Why each amount is taken in its direction:
        head: the last that enough have; an earlier one is simulated on by all, a later one perhaps by none.
        balance: too high would plan what cannot be paid.
        pending nonce: too low would hide a transaction that is not ours.
        base fee: too low would not be mined; too high is a ceiling that the chain does not charge.
        tip: is charged as it is said, so no more of it than enough providers ask.
        quote: bounds what a sandwich can take; too low fails in the simulation.
        price: the higher it is, the less ETH is fair for the same dollars.
        permission: whether and until when the access key is authorized is a fact, too; what is left as the balance.

    Raises:
        PaymentForbidden: enough see no way to pay, or the prices lie further apart than one update of the feed.
        Disagreement: too few show the same nonce and code.
    """
    camp = agreeing(answers.votes, lambda s: (s.nonce_latest, s.code_hash, s.price_e8 is None, _standing(s)), quorum)
    shown = [f"{v.name} shows nonce {v.value.nonce_latest} and code 0x{v.value.code_hash.hex()}" for v in answers.votes]
    shown += [f"{v.name} says: {v.value}" for v in answers.refusals]
    if not camp:
        if answers.refusals:
            raise answers.refusals[0].value
        raise Disagreement(joined(shown, SAID_MAX))
    offers = {
        tier: [Vote(v.owner, v.name, v.value.quotes[tier]) for v in camp if tier in v.value.quotes]
        for tier in sorted({tier for vote in camp for tier in vote.value.quotes})
    }
    quotes = {tier: reached(quoted, lambda q: q, quorum) for tier, quoted in offers.items() if owners(quoted) >= quorum}
    first = camp[0].value
    agreed = Preflight(
        head=_head(camp, lambda s: s.head, quorum),
        balance=reached(camp, lambda s: s.balance, quorum),
        nonce_latest=first.nonce_latest,
        nonce_pending=kept(camp, lambda s: s.nonce_pending, quorum),
        base_fee=kept(camp, lambda s: s.base_fee, quorum),
        tip=reached(camp, lambda s: s.tip, quorum),
        code_hash=first.code_hash,
        quotes=quotes,
        price_e8=_price(camp, quorum),
        tokens=None if first.tokens is None else reached(camp, lambda s: s.tokens or Usdc(0), quorum),
        allowance=None if first.allowance is None else reached(camp, lambda s: s.allowance or Usdc(0), quorum),
        permission=None if first.permission is None else _permission(camp, first.permission, quorum),
        # Who can tell is believed like everybody; a doubt of all those that count is ours.
        doubt="" if owners([v for v in camp if not v.value.doubt]) >= quorum else max(v.value.doubt for v in camp),
    )
    return Agreed(agreed, joined(shown) if len(camp) < len(shown) else "")


def _standing(preflight: Preflight) -> tuple[int, bool, bool] | None:
    permission = preflight.permission
    return None if permission is None else (permission.expires_s, permission.revoked, permission.left is None)


def _permission(camp: Sequence[Vote[Preflight]], first: Permission, quorum: int) -> Permission:
    votes = [Vote(v.owner, v.name, v.value.permission) for v in camp if v.value.permission is not None]
    left = None if first.left is None else reached(votes, lambda p: p.left or Usdc(0), quorum)
    return replace(first, left=left, ends_s=kept(votes, lambda p: p.ends_s, quorum))


def _head(votes: Sequence[Vote[T]], head: Callable[[T], Head], quorum: int) -> Head:
    """Return the last block that enough reach; where they differ in what stands there, what most of them show."""
    number = reached(votes, lambda value: head(value).number, quorum)
    there = [Vote(v.owner, v.name, block) for v in votes if (block := head(v.value)).number == number]
    return max((vote.value for vote in there), key=lambda h: owners([v for v in there if v.value == h]))


def _price(camp: Sequence[Vote[Preflight]], quorum: int) -> int | None:
    if camp[0].value.price_e8 is None:
        return None
    low, high = (pick(vote.value.price_e8 or 0 for vote in camp) for pick in (min, max))
    price = kept(camp, lambda s: s.price_e8 or 0, quorum)
    near = reached(camp, lambda s: s.price_e8 or 0, quorum)
    if abs(price - near) * 10_000 > min(price, near) * PRICE_SPREAD_MAX.bps:
        says = f"the providers show the ETH/USD feed at {low} and {high}, which is more than {PRICE_SPREAD_MAX} apart"
        raise PaymentForbidden(
            Reason.PRICE_UNKNOWN, says, remedy="nothing when it passes; else find out which one is wrong"
        )
    return price


def block(answers: Answers[Head], quorum: int) -> Agreed[Head]:
    """Join what stands at one height; a Disagreement where too few show the same block."""
    camp = agreeing(answers.votes, lambda h: h, quorum)
    shown = "; ".join(f"{v.name} has 0x{v.value.hash.hex()} at {v.value.number}" for v in answers.votes)
    if not camp:
        raise Disagreement(shown)
    return Agreed(camp[0].value, shown if len(camp) < len(answers.votes) else "")


def simulation(answers: Answers[Simulation], quorum: int) -> Agreed[Simulation]:
    """Join dry runs on one block: enough have to pass; gas and L1 fee are what enough keep below, the weakest proof.

    Raises:
        PaymentForbidden, Reverted: too few passed, because of this.
        Disagreement: too few passed.
    """
    passed = answers.votes
    said = joined([f"{v.name} says: {v.value}" for v in answers.refusals])
    if owners(passed) < quorum:
        for kind in (PaymentForbidden, Reverted):
            for refusal in answers.refusals:
                if isinstance(refusal.value, kind):
                    raise refusal.value
        raise Disagreement("too few could run it")
    weakest = min((vote.value.proof for vote in passed), key=lambda p: (not p.endswith(UNTRIED), len(p)))
    gas, l1_fee = kept(passed, lambda s: s.gas, quorum), kept(passed, lambda s: s.l1_fee, quorum)
    return Agreed(Simulation(gas, l1_fee, weakest), said)


def observation(answers: Answers[ProviderObservation], quorum: int) -> Agreed[Observation]:
    """Join looks: what enough show in the same place at the same cost is seen, and what they show as used is used.

    Heights are what enough reach.

    An inclusion that was recorded and of which enough say neither that it stands nor that it cannot be is not settled:
    safe and final end below its block until they do.
    """
    votes, recorded = answers.votes, answers.votes[0].value.recorded

    def enough(named: bytes, hashes: Callable[[ProviderObservation], Collection[bytes]]) -> bool:
        return owners([vote for vote in votes if named in hashes(vote.value)]) >= quorum

    showing = {
        h: [Vote(v.owner, v.name, v.value.observation.seen[h]) for v in votes if h in v.value.observation.seen]
        for h in {h for vote in votes for h in vote.value.observation.seen}
    }
    seen = {h: _careful(camp) for h, shown in showing.items() if (camp := agreeing(shown, _shown_fact, quorum))}
    marked = {h for vote in votes for h in vote.value.observation.used}
    replaced = {h for h in recorded if enough(h, lambda s: s.observation.replaced)}
    unspent = {h for h in recorded.keys() - seen.keys() if enough(h, lambda s: s.observation.unspent)}
    # Whoever shows its block, and its nonce free behind it, does not say that it stands.
    standing = {h for h in recorded if enough(h, lambda s: s.standing - s.observation.unspent)}
    doubted = recorded.keys() - replaced - unspent - standing
    ends = [recorded[h] - 1 for h in doubted]
    dissent = [
        f"{v.name} shows another block than was recorded for 0x{h.hex()}"
        for v in votes
        for h in v.value.observation.replaced & doubted
    ]
    dissent += [
        f"{v.name} shows that 0x{h.hex()} cannot be where it was recorded"
        for v in votes
        for h in v.value.observation.unspent & doubted
    ]
    for shown in (shown for h, shown in showing.items() if h not in seen and owners(shown) > 1):
        dissent += [
            f"{v.name} shows it in block {v.value.inclusion.block_number}: {v.value.reason or 'paid'}" for v in shown
        ]
    # Its time tells that a deadline has passed, so it is no later than what enough of them say.
    time_s = reached(votes, lambda v: v.observation.head.timestamp_s, quorum)
    agreed = Observation(
        head=replace(_head(votes, lambda v: v.observation.head, quorum), timestamp_s=time_s),
        safe=_height(votes, lambda s: s.safe, quorum, ends),
        finalized=_height(votes, lambda s: s.finalized, quorum, ends),
        finalized_s=_height(votes, lambda s: s.finalized_s, quorum, []),
        nonce_latest=reached(votes, lambda v: v.observation.nonce_latest, quorum),
        seen=seen,
        replaced=frozenset(replaced),
        used=frozenset(h for h in marked if enough(h, lambda s: s.observation.used)),
        unspent=frozenset(unspent),
    )
    return Agreed(agreed, joined(dissent))


def settled(answers: Answers[ProviderObservation], quorum: int) -> bool:
    """Tell whether a look may go on without those who have not answered: it takes nothing back, and nobody objects."""
    agreed = observation(answers, quorum)
    shown = {h for vote in answers.votes for h in vote.value.observation.seen}
    taken_back = agreed.value.replaced | agreed.value.unspent
    return not agreed.dissent and not taken_back and shown == agreed.value.seen.keys()


def _height(
    votes: Sequence[Vote[ProviderObservation]],
    height: Callable[[Observation], int | None],
    quorum: int,
    ends: Sequence[int],
) -> int | None:
    """Return a height that enough reach, None when too few know one; never above any of `ends`."""
    agreed = reached(votes, lambda v: -1 if (h := height(v.observation)) is None else h, quorum)
    agreed = min(agreed, *ends) if ends else agreed
    return None if agreed < 0 else agreed


def _careful(camp: Sequence[Vote[Seen]]) -> Seen:
    """Return one of these, which are of one place and cost; where they differ in the rest, the more careful reading."""
    readings = [vote.value for vote in camp]
    careful = min(readings, key=lambda s: (s.trusted, s.inclusion.transient, s.wallet_check == UNMEASURED))
    left = {(s.inclusion.spent, s.inclusion.tokens) for s in readings if s.wallet_check != UNMEASURED}
    if not careful.trusted and len(left) > 1:
        careful = replace(careful, wallet_check="not verified: the providers differ in what left")
    if len({s.inclusion.l1_fee for s in readings}) == 1:
        return careful
    # Too low by no more than the fee itself, where too high would have no bound.
    lowest = min(s.inclusion.l1_fee for s in readings)
    check = "not verified: the providers differ in the L1 fee"
    return replace(careful, inclusion=replace(careful.inclusion, l1_fee=lowest), wallet_check=check)


def _shown_fact(seen: Seen) -> Hashable:
    inclusion = seen.inclusion
    # Without an event what it took is measured, by whoever still has the state: not a fact to agree on.
    left = seen.trusted and (inclusion.spent, inclusion.tokens)
    where = (inclusion.block_number, inclusion.block_hash, inclusion.block_ms, inclusion.tx_hash)
    return where, inclusion.success, inclusion.gas, inclusion.token_fee, left


def final(answers: Answers[tuple[Head, Head]], quorum: int) -> int:
    """Return the highest final block that enough independent providers have, two where two answered."""
    voices = owners(answers.votes)
    return reached(answers.votes, lambda ends: ends[1].number, max(quorum, min(2, voices)))


def read(answers: Answers[Account | Unread]) -> Agreed[Answers[Account]] | More:
    """Return what was said once every provider's logs were read to the end, else how far they are.

    One whose logs are not read any further counts as one that did not answer; so does one that is late where enough
    others did.

    Raises:
        ChainUnknown: too few can be read to the end.
    """
    whole = [Vote(v.owner, v.name, v.value) for v in answers.votes if isinstance(v.value, Account)]
    unread = [(v.name, v.value) for v in answers.votes if isinstance(v.value, Unread)]
    enough = owners(whole) >= WITNESSES
    far = "; ".join(f"{name} is at block {u.last} of {u.newest.number}" for name, u in unread if not u.over)
    if any(not u.over and not (u.late and enough) for _, u in unread):
        return More(f"the logs are being read: {far}")
    dissent = "; ".join([*(u.over for _, u in unread if u.over), *([f"not waited for: {far}"] if far else [])])
    if dissent and not enough:
        raise ChainUnknown(dissent)
    return Agreed(Answers(whole), dissent)


def payment_status(answers: Answers[Account]) -> ChargeStatus:
    """Join what providers say of a charge, word for word; any two that differ in it are a Disagreement."""
    votes = answers.votes
    first = votes[0].value
    if any(replace(v.value, newest=first.newest) != first for v in votes):
        shown = (
            f"{v.name} has 0x{v.value.final.hash.hex()} at {v.value.final.number}, "
            f"{'the' if v.value.flag else 'no'} mark and {len(v.value.payers)} payments"
            for v in votes
        )
        raise Disagreement(joined(list(shown), SAID_MAX))
    at = first.final
    return ChargeStatus(at.number, at.timestamp_s, first.flag, first.payers, owners(votes))


def spent(answers: Answers[Spent], quorum: int) -> Spent:
    """Join what providers show of one block: what stands there, whether it is final, and the wallet's nonce after it.

    Raises:
        Disagreement: too few show the same block there.
    """
    camp = agreeing(answers.votes, lambda s: s.block, quorum)
    if not camp:
        shown = "; ".join(f"{v.name} has 0x{v.value.block.hash.hex()} at {v.value.block.number}" for v in answers.votes)
        raise Disagreement(shown)
    said = agreeing([v for v in camp if v.value.nonce is not None], lambda s: s.nonce, quorum)
    final = owners([v for v in camp if v.value.final]) >= quorum
    return Spent(camp[0].value.block, final, said[0].value.nonce if said else None)


def holdings(answers: Answers[tuple[Head, Holdings]]) -> Holdings:
    """Join what providers say a wallet holds at a final block, to the unit; a price they do not share is none.

    Raises:
        Disagreement: any two differ in the block or in what is held.
    """
    said = [(vote.name, vote.value[1]) for vote in answers.votes]
    _, first = said[0]
    if any((held.at, held.units) != (first.at, first.units) for _, held in said):
        shown = [
            f"{name}: {', '.join(f'{n} units of {asset}' for asset, n in held.units.items())}"
            f" at block 0x{held.at.hash.hex()}"
            for name, held in said
        ]
        raise Disagreement(joined(shown, SAID_MAX))
    return first if all(held.price_e8 == first.price_e8 for _, held in said) else replace(first, price_e8=None)


def mark(answers: Answers[tuple[Head, bool]]) -> bool:
    """Join what providers say of the contract's mark; any two that differ are a Disagreement."""
    said = {vote.value[1] for vote in answers.votes}
    if len(said) != 1:
        shown = [f"{v.name} shows {'the' if v.value[1] else 'no'} mark" for v in answers.votes]
        raise Disagreement(joined(shown, SAID_MAX))
    return said.pop()
