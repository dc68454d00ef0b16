"""What has the chain shown of what we sent, and what follows for the ledger?

Each look asks for every attempt that may be out: those of the open top-up, and those of ended ones until a final
block has settled them. Inclusions are stored and told, blocks that were replaced are taken back, what is safe is
booked. Nothing is ever concluded from absence.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from topup.accounting import journal
from topup.domain import events
from topup.domain.errors import ChainError, ChainUnknown
from topup.domain.lifecycle import TERMINAL, Attempt, Fact, Inclusion, Kind, State, TopUp
from topup.domain.nonpayment import WITNESSES
from topup.domain.ways_out import ATTEST, LOOK
from topup.payment.part import Part
from topup.payment.reorg import confirmed, gone
from topup.ports.chain import Observation, Seen
from topup.ports.rail import Rail

# States in which a payment of ours stands in a block.
PAYING = frozenset({State.PAID, State.UNCREDITED, State.CREDITED})
# How often what ended top-ups have left to the chain is looked for: until its block is final, and while it is in none.
BACK_MS = 60_000
BACK_LOOSE_MS = 600_000
# An authorization that nobody has used is looked for so long past its end, by final blocks.
OVER_S = 86_400


class Confirmation(Part):
    """Looks at the chain, and keeps the ledger to what it shows."""

    _back_ms = 0

    async def look(self, topup: TopUp, *, behind: int | None = None) -> tuple[TopUp, Observation]:
        """Look for every attempt of an open top-up that may be out, and store what the chain shows.

        `behind` is the wallet's next nonce where the ledger has used more than that: then what ended top-ups have at
        those nonces is looked for as well, however final it was.

        Raises:
            ChainError: it could not be asked.
        """
        beside = self.beside(topup)
        if behind is not None:
            beside += self._store.settled_from(topup, behind)
        sought = [*((topup, a) for a in topup.out), *beside]
        observation = await self._observed(self._rails(topup.rail), topup.wallet, sought)
        for owner, attempt in beside:
            self._after(owner, attempt, observation)
        others = self._store.at_same_nonce(topup)
        worded = topup.state in PAYING and self._worded(topup)
        topup = self._lost(topup, observation)
        if worded and topup.state is State.SENT:  # the word has done what it was said for
            self._store.obeyed(topup, self._clock.now())
        topup = self._found(topup, observation, others)
        topup = self._concluded(topup, others)
        return self._settled(topup, observation), observation

    def beside(self, topup: TopUp) -> list[tuple[TopUp, Attempt]]:
        """Return what ended top-ups have left to the chain on the same way as this one."""
        left = self._store.afterwards(topup.account, topup.wallet)
        return [(owner, a) for owner, a in left if (owner.rail, owner.chain_id) == (topup.rail, topup.chain_id)]

    async def look_back(self) -> None:
        """Once in a while, look for what ended top-ups have left to the chain; a silent chain is asked again later."""
        now, wallet = self._clock.now(), self._account.wallet
        if now < self._back_ms or wallet is None:
            return
        beside = self._store.afterwards(self._account.name, wallet)
        # What was given up and is in no block may stay so for ever: it costs gas at most when it is mined after all.
        included = any(a.inclusion is not None for _, a in beside)
        self._back_ms = now + (BACK_MS if included or not beside else BACK_LOOSE_MS)
        for way in {(owner.rail, owner.chain_id) for owner, _ in beside}:
            rail, left = self._rails(way[0]), [(o, a) for o, a in beside if (o.rail, o.chain_id) == way]
            if rail.chain_id != way[1]:
                continue  # the settings name another chain now, which knows nothing of these
            with contextlib.suppress(ChainError):  # the passes themselves say what is wrong with the chain
                observation = await self._observed(rail, wallet, left)
                for owner, attempt in left:
                    self._after(owner, attempt, observation)

    # -- looking ------------------------------------------------------------------------------------------------

    async def _observed(self, rail: Rail, wallet: bytes, sought: Sequence[tuple[TopUp, Attempt]]) -> Observation:
        """Look, and once more through every provider where an inclusion is to be taken back.

        Where only one is configured, nonces and marks count for that by a person's word.
        """
        observation = await rail.look(wallet, sought)
        self._clock.heard_chain(observation.head.timestamp_s)
        if not gone(observation):
            return observation
        disputed = [(t, a) for t, a in sought if a.inclusion is not None and a.hash in gone(observation)]
        second: Observation | None = observation
        if rail.owners >= WITNESSES:
            try:
                second = await rail.look(wallet, disputed, every=True)
            except ChainUnknown:
                second = None
        alone = rail.owners < WITNESSES and not all(
            self._worded(t) for t, a in disputed if a.hash in observation.unspent
        )
        recorded = {a.hash: a.inclusion.block_number for _, a in disputed if a.hash and a.inclusion is not None}
        judged = confirmed(observation, second, recorded, believe_unspent=not alone)
        for owner, attempt in disputed:
            if attempt.hash in observation.unspent - judged.unspent:
                self._denied(owner, attempt, alone=alone)
        return judged

    def _worded(self, topup: TopUp) -> bool:
        """Tell whether a person has said, since this top-up came to its state, that the chain may take it back."""
        return self._store.new_word(topup) in (LOOK, ATTEST)

    def _denied(self, topup: TopUp, attempt: Attempt, *, alone: bool) -> None:
        """Say, once an hour, that an inclusion is denied and not taken back."""
        why = "one provider is no proof" if alone else "too few independent providers show it"
        assert attempt.inclusion is not None
        block, tx_hash = attempt.inclusion.block_number, attempt.signed_hash
        denied = events.InclusionDenied(topup_id=topup.id, tx_hash=tx_hash, block=block, detail=why)
        self._say(denied, hourly=str(attempt.id))

    # -- the open top-up ----------------------------------------------------------------------------------------

    def _lost(self, topup: TopUp, observation: Observation) -> TopUp:
        """Store that known inclusions do not stand any more, or never did."""
        for attempt in topup.out:
            stood = attempt.inclusion
            if stood is None or attempt.signed_hash not in gone(observation):
                continue
            proof = "replaced" if attempt.hash in observation.replaced else "unspent"
            block, tx_hash = stood.block_number, attempt.signed_hash
            self._say(events.PaymentVanished(topup_id=topup.id, tx_hash=tx_hash, block=block, proof=proof))
            still = any(a.paid for a in topup.out if a.id != attempt.id)
            lost = attempt.paid and topup.state in PAYING and not still
            # What vanishes of an earlier charge, which is dead, changes nothing for the one that is being paid.
            newest = attempt.charge_seq == len(topup.charges)
            again = newest and topup.state in (State.REVERTED, State.CHARGED)
            fact = Fact.VANISHED if lost or again else None
            if attempt.booked:
                topup = self._taken_back(topup, attempt, fact, by_one=attempt.hash not in observation.unspent)
            else:
                topup = self._store.vanished(topup, attempt, fact, self._clock.now())
        return topup

    def _taken_back(self, topup: TopUp, attempt: Attempt, fact: Fact | None, *, by_one: bool) -> TopUp:
        """Take a booked attempt out of the books again, with the arrow that this takes.

        Where one provider alone says that a safe block was replaced, a person has to look: `by_one` is False where a
        person has looked.
        """
        now = self._clock.now()
        assert attempt.inclusion is not None
        reason = f"block {attempt.inclusion.block_number} was safe, is in the books, and has been replaced"
        reversed_ = journal.reversal(self._store.booked(topup.id, attempt), now)  # as it was written then
        alone = by_one and self._rails(topup.rail).owners < WITNESSES
        if not alone or topup.state in {*TERMINAL, State.HALTED}:
            return self._store.undone(topup, attempt, reversed_, fact, now)
        topup = self._store.undone(topup, attempt, reversed_, Fact.HALT, now, reason)
        self._say(events.TopUpHalted(topup_id=topup.id, reason=reason))
        return topup

    def _found(self, topup: TopUp, observation: Observation, beside: Sequence[Attempt]) -> TopUp:
        """Store inclusions that were not known before."""
        for attempt in topup.out:
            seen = observation.seen.get(attempt.signed_hash)
            if attempt.inclusion is not None or seen is None:
                continue
            fact = self._fact_of(topup, attempt, seen, beside)
            if _again(topup, attempt, seen):
                self._paid_after_all(topup, attempt, seen)
            topup = self._store.included(topup, attempt, _judged(seen), fact, self._clock.now())
            if fact is Fact.HALT:
                self._say(events.TopUpHalted(topup_id=topup.id, reason=topup.reason))
            else:
                self._tell(topup, attempt, seen)
        return topup

    @staticmethod
    def _fact_of(topup: TopUp, attempt: Attempt, seen: Seen, beside: Sequence[Attempt]) -> Fact | None:
        """Return the arrow an inclusion takes: paid at once; the end of this nonce once none is left out; else none."""
        if topup.state is State.HALTED:
            return None
        if not seen.trusted:
            return Fact.HALT
        if topup.state in PAYING:
            return None
        if seen.inclusion.success and attempt.plan.kind is Kind.PAY:
            return Fact.PAID
        left = [a for a in topup.pending(beside) if a.nonce_slot != attempt.nonce_slot]
        if left or topup.state is not State.SENT:
            return None
        return _end_of(attempt.plan.kind, success=seen.inclusion.success)

    def _concluded(self, topup: TopUp, beside: Sequence[Attempt]) -> TopUp:
        """Move on when every nonce of ours has been taken by something known that paid nothing."""
        if topup.state is State.SENT and topup.payment is not None:
            return self._store.move(topup, Fact.PAID, self._clock.now(), "")
        if topup.state is not State.SENT or topup.pending(beside):
            return topup
        ends = {_end_of(a.plan.kind, success=a.inclusion.success) for a in topup.out if a.inclusion is not None}
        fact = next((f for f in (Fact.GIVEN_UP, Fact.APPROVED) if f in ends), Fact.REVERTED)
        return self._store.move(topup, fact, self._clock.now(), "another transaction of ours took the nonce")

    def _tell(self, topup: TopUp, attempt: Attempt, seen: Seen) -> None:
        """Say what an inclusion is: a payment, an approval, what takes one back, a cancel, or a failure of any."""
        stored, kind = seen.inclusion, attempt.plan.kind
        said: dict[str, Any] = {
            "topup_id": topup.id,
            "tx_hash": stored.tx_hash or attempt.signed_hash,
            "block": stored.block_number,
            "gas_wei": stored.gas,
            "l1_fee_wei": stored.l1_fee,
        }
        if kind is Kind.CANCEL:
            self._say(events.PaymentCancelled(**said))
        elif kind is Kind.APPROVE and stored.success:
            units = attempt.plan.tokens
            approved = events.TokenApproved(units=units, **said) if units.units else events.ApprovalRevoked(**said)
            self._say(approved)
        elif stored.success and seen.trusted:
            self._say(
                events.PaymentIncluded(
                    spent_wei=stored.spent,
                    wallet_check=seen.wallet_check,
                    asset=attempt.plan.asset.value,
                    spent_units=stored.tokens,
                    fee_units=stored.token_fee,
                    **said,
                )
            )
        else:
            self._say(events.PaymentReverted(reason=seen.reason, **said))

    def _settled(self, topup: TopUp, observation: Observation) -> TopUp:
        """Book every included attempt whose block is safe."""
        for attempt in topup.out:
            stands = attempt.inclusion
            if stands is not None and not attempt.booked and _reaches(observation.safe, stands):
                topup = self._book(topup, attempt)
        return topup

    def _book(self, topup: TopUp, attempt: Attempt) -> TopUp:
        entry = journal.attempt_entry(topup.id, attempt, self._rails(topup.rail).read(topup.raw_of(attempt)))
        return self._store.settle(topup, attempt, entry, self._clock.now())

    # -- ended top-ups ------------------------------------------------------------------------------------------

    def _after(self, owner: TopUp, attempt: Attempt, observation: Observation) -> None:
        """Follow one attempt of an ended top-up until a final block has settled it."""
        stands, tx_hash = attempt.inclusion, attempt.signed_hash
        if stands is None:
            if tx_hash in observation.seen:
                self._late(owner, attempt, observation.seen[tx_hash])
            elif self._over(attempt, observation):
                self._store.over(attempt, self._clock.now())
        elif tx_hash in gone(observation):
            self._undone(owner, attempt, stands)
        elif not attempt.booked:
            if _reaches(observation.safe, stands):
                self._book(owner, attempt)
        # Final by those who are asked today, who need not be those that showed it.
        elif _reaches(observation.finalized, stands) and (tx_hash in observation.seen or spent(attempt, observation)):
            self._store.final(attempt, self._clock.now())

    @staticmethod
    def _over(attempt: Attempt, observation: Observation) -> bool:
        """Tell whether an authorization need not be looked for any more: a day past its end, and unused."""
        if attempt.ours or attempt.hash in observation.used or observation.finalized_s is None:
            return False
        return observation.finalized_s > attempt.plan.ends_s + OVER_S

    def _undone(self, owner: TopUp, attempt: Attempt, stood: Inclusion) -> None:
        now = self._clock.now()
        if not attempt.booked:
            self._store.vanished(owner, attempt, None, now)
            return
        # The pause comes first: a death between the two must not let the next decision pass.
        self._store.pause(owner.account, now)
        block, tx_hash = stood.block_number, attempt.signed_hash
        self._say(events.PaymentUndone(topup_id=owner.id, tx_hash=tx_hash, block=block))
        self._taken_back(owner, attempt, None, by_one=True)

    def _late(self, owner: TopUp, attempt: Attempt, seen: Seen) -> None:
        now = self._clock.now()
        paid = seen.inclusion.success and attempt.plan.kind is Kind.PAY
        after_all = (paid and owner.state is not State.DONE) or _again(owner, attempt, seen)
        if after_all:
            self._paid_after_all(owner, attempt, seen)
        self._store.included(owner, attempt, _judged(seen), None, now)
        if not after_all:
            self._tell(owner, attempt, seen)

    def _paid_after_all(self, owner: TopUp, attempt: Attempt, seen: Seen) -> None:
        """Pause and say it before it is stored: a death in between repeats both, and hides neither."""
        self._store.pause(owner.account, self._clock.now())
        self._say(
            events.PaidAfterAll(
                topup_id=owner.id,
                tx_hash=seen.inclusion.tx_hash or attempt.signed_hash,
                block=seen.inclusion.block_number,
                spent_wei=seen.inclusion.spent,
                asset=attempt.plan.asset.value,
                spent_units=seen.inclusion.tokens,
            )
        )


def spent(attempt: Attempt, observation: Observation) -> bool:
    """Tell whether the chain shows its place taken: the nonce used, or the authorization spent."""
    if attempt.ours:
        return observation.nonce_latest > attempt.plan.nonce
    return attempt.hash in observation.used


def _reaches(height: int | None, inclusion: Inclusion) -> bool:
    """Tell whether the block of an inclusion is among those up to this height; None reaches nothing."""
    return height is not None and height >= inclusion.block_number


def _again(topup: TopUp, attempt: Attempt, seen: Seen) -> bool:
    """Tell whether this pays what was given up for dead, or what another charge of the top-up has paid already."""
    if not seen.inclusion.success or attempt.plan.kind is not Kind.PAY:
        return False
    others = any(a.paid and a.charge_seq != attempt.charge_seq for a in topup.out)
    return others or topup.charges[attempt.charge_seq - 1].dead is not None


def _end_of(kind: Kind, *, success: bool) -> Fact:
    """Return the arrow that is taken when this was included and nothing else is left out."""
    if kind is Kind.CANCEL:
        return Fact.GIVEN_UP
    return Fact.APPROVED if kind is Kind.APPROVE and success else Fact.REVERTED


def _judged(seen: Seen) -> Seen:
    """Return what is stored: money that left without our event paid nothing, whatever the status says."""
    if seen.trusted:
        return seen
    return replace(seen, inclusion=replace(seen.inclusion, success=False, reason=seen.reason, transient=False))
