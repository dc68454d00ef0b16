"""What is the next step of a payment that may be out? Send, look, send again, outbid, prove dead.

Nothing here ends a payment but evidence: an event in a canonical block, proof at a final block, or a person's word.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from topup.domain import events
from topup.domain.errors import ChainUnknown, ChargeRefused, PaymentForbidden, Reverted, SignerError
from topup.domain.lifecycle import Attempt, Fact, Kind, Plan, State, TopUp
from topup.domain.nonpayment import WITNESSES, ChargeStatus, More, NonPaymentProof, Paid, Undecided, non_payment_proof
from topup.domain.notes import Note
from topup.domain.reasons import Reason
from topup.domain.ways_out import ATTEST, CANCEL, CREDITED
from topup.payment.config import PassResult
from topup.payment.foreign_nonce import Contest, contest, foreign, nonces
from topup.payment.step import BLOCK_S, Step, Steps, flag_name
from topup.ports.chain import Delivery, Observation, Sent

# Answers after which a node holds the bytes.
TAKEN = (Delivery.ACCEPTED.value, Delivery.KNOWN.value)
# A seller that holds an authorization is asked to carry it no less often than this.
SELLER_RESEND_MS = 600_000
# Base calls a block final after some twenty minutes; what takes three times as long is worth saying.
FINALITY_LATE_S = 3600
# An index of receipts lags behind its chain by seconds, rarely by minutes; only after this somebody should be woken.
RECEIPT_LATE_S = 300
# Receipts have lagged behind the nonce for three quarters of an hour; after this a person should look.
NONCE_LATE_S = 3600
# Where a pass has used its budget up, the next one goes on so soon.
MORE_S = 1
FOREIGN = "was used, in a final block, by a transaction that is none of ours"
ELSEWHERE = "somebody else uses the key, and may have paid as well: `topup reconcile`, then `topup resume`"


class Tracking(Steps):
    """The steps from the intent to send to the payment in a block, or to the proof that there will be none."""

    # Which nonces of what is followed now were used by nothing that is known.
    _contest = Contest()
    # When outbidding may be tried again.
    _bump_ms = 0
    # When this process first pursued anything, in ledger time.
    _began_ms: int | None = None

    async def step(self, topup: TopUp) -> Step:
        """Send what has not been sent, look for all that may be out, and go on from what the chain shows."""
        if self._began_ms is None:
            self._began_ms = self._clock.now()
        if topup.state is State.SENT:
            topup = await self._sent_first(topup)
            if topup.state is State.HALTED:
                return topup
        if topup.state is State.HALTED and not topup.out:
            return await self._halted(topup, None)
        looked = await self._look(topup)
        if isinstance(looked, PassResult):
            return looked
        seen, observation = looked
        if seen.state is not topup.state:
            return seen
        if seen.state is State.REVERTED:
            return self._reverted(seen, observation)
        await self._contested(seen, observation)
        match seen.state:
            case State.HALTED:
                return await self._halted(seen, observation)
            case State.DEATHWATCH:
                return await self._deathwatch(seen, observation)
            case _:
                return await self._unseen(seen, observation)

    async def _sent_first(self, topup: TopUp) -> TopUp:
        """Send what was just stored with the intent to send it; what is older is looked for first."""
        attempt = topup.attempt
        assert attempt is not None
        assert attempt.intended_ms is not None
        fresh = self._clock.now() - attempt.intended_ms < self._pace.resend_s * 1000
        if attempt.last_sent_ms is None and fresh and not self._paused():
            return await self._send(topup, attempt)
        return topup

    async def _send(self, topup: TopUp, attempt: Attempt) -> TopUp:
        sent = await self._rail(topup).send(topup, attempt)
        topup = self._store.delivered(topup, attempt, sent, self._clock.now())
        self._say(
            events.PaymentSent(
                topup_id=topup.id,
                tx_hash=attempt.signed_hash,
                answer=sent.delivery.value,
                detail=sent.detail,
                times=attempt.sends + 1,
            )
        )
        return self._alarmed(topup, attempt, sent) if attempt.ours else topup

    def _alarmed(self, topup: TopUp, attempt: Attempt, sent: Sent) -> TopUp:
        """Say what no node should answer to the bytes of this ledger; stop where they are alone and were never taken.

        That bytes are invalid does not change by sending them again: it is a defect, and a person's to look at. What
        may be out is followed all the same: whatever was answered before this may have been true.
        """
        tx_hash = attempt.signed_hash
        if sent.delivery is Delivery.REPLACEMENT:
            beside = [*topup.out, *self._store.at_same_nonce(topup)]
            ours = any(a.nonce_slot == attempt.nonce_slot and a.id != attempt.id for a in beside)
            if not ours:
                contested = events.NonceContested(topup_id=topup.id, tx_hash=tx_hash, nonce=attempt.plan.nonce)
                self._say(contested, hourly=f"contested {attempt.nonce_slot}")
        elif sent.delivery is Delivery.REFUSED:
            refused = events.PaymentRefused(topup_id=topup.id, tx_hash=tx_hash, detail=sent.detail)
            self._say(refused, hourly=f"refused {attempt.id}")
            # The second time is for a process that died after it had stored the first answer.
            first = attempt.sends == 0 or (attempt.sends == 1 and attempt.answer.startswith(Delivery.REFUSED.value))
            if topup.state is State.SENT and first and len(self._of_charge(topup)) == 1:
                return self._halt(topup, f"every provider calls what was signed invalid: {sent.detail}")
        return topup

    async def _unseen(self, topup: TopUp, observation: Observation) -> Step:
        """Follow a payment that is in no block yet: outbid it when it is late, and send it again."""
        if observation.head.timestamp_s > self._deadline_s(topup):
            return self._move(topup, Fact.EXPIRED, "the deadline passed before the payment was seen")
        pending = self._pending(topup)
        if not pending and (not self._contest.used or await self._dead_by_others(topup, observation)):
            return self._move(topup, Fact.GIVEN_UP, f"{nonces(self._contest.gone)} {FOREIGN}")
        if not pending or any(a.nonce_slot not in self._contest.gone for a in self._contest.used):
            return self._nonce_moved(topup)
        newest = pending[-1]
        cancel = self._store.word(topup) == CANCEL and newest.plan.kind is not Kind.CANCEL
        if cancel and self._clock.now() >= self._bump_ms:
            topup = await self._outbid(topup, observation, cancel=True)
        elif self._bump_due(newest, pending):
            topup = await self._outbid(topup, observation, cancel=newest.plan.kind is Kind.CANCEL)
        topup = await self._resend(topup)
        if topup.state is State.HALTED:
            return topup
        return self._wait(topup, Reason.SENT, "waiting for a block", BLOCK_S)

    async def _contested(self, topup: TopUp, observation: Observation) -> None:
        """Find out whether something unknown has used a nonce of what is out; say so, and louder when it lasts."""
        pending, self._contest = super()._pending(topup), Contest()
        now = self._clock.now()
        self._contest = await contest(self._rail(topup), self._store, topup, observation, pending, now)
        for attempt in self._contest.new:
            tx_hash, nonce = attempt.signed_hash, attempt.plan.nonce
            self._say(events.ReceiptAwaited(topup_id=topup.id, tx_hash=tx_hash, nonce=nonce))
        self._alarm(topup, RECEIPT_LATE_S)

    def _alarm(self, topup: TopUp, after_s: int) -> None:
        """Say of each nonce, once, that something unknown has used it, when that has been so for long enough."""
        now = self._clock.now()
        for attempt, since_ms in zip(self._contest.used, self._contest.since, strict=True):
            name = Note.NONCE_MOVED.of(attempt.id)
            if now - since_ms < after_s * 1000 or self._store.told(topup.account, name) == str(since_ms):
                continue
            # Said before it is stored: a death between the two repeats it, and hides nothing.
            self._say(events.NonceMoved(topup_id=topup.id, nonce=attempt.plan.nonce))
            self._store.say(topup.account, name, str(since_ms), now)

    async def _dead_by_others(self, topup: TopUp, observation: Observation) -> bool:
        """Tell whether the charge is proven unpaid and dead; where it was paid, its receipt may only be late."""
        judged = await self._judged(topup, observation)
        return isinstance(judged, tuple) and isinstance(judged[0], NonPaymentProof)

    def _pending(self, topup: TopUp) -> tuple[Attempt, ...]:
        """Leave out what is dead for ever because a final block holds something else at its nonce."""
        return tuple(a for a in super()._pending(topup) if a.nonce_slot not in self._contest.gone)

    def _nonce_moved(self, topup: TopUp) -> Step:
        """Wait for a receipt that lags behind its nonce, or for the proof that it cannot come; an hour in all."""
        if self._clock.now() - min(self._contest.since) > NONCE_LATE_S * 1000:
            named = nonces({a.nonce_slot for a in self._contest.used})
            return self._halt(
                topup, f"{named} was used by a transaction that is not in the ledger: see `topup reconcile`"
            )
        return self._wait(topup, Reason.NONCE_MOVED, "the nonce is used, the receipt is missing", self._pace.resend_s)

    async def _resend(self, topup: TopUp) -> TopUp:
        """Send what may still be included again, byte for byte, in the order of the nonces.

        Of several at one nonce the newest goes first; those it outbids follow only where it was not taken.
        """
        now = self._clock.now()
        pending = self._of_charge(topup)
        newest = {a.nonce_slot: a for a in pending}
        for attempt in sorted(pending, key=lambda a: (a.plan.nonce, -a.id)):
            assert attempt.intended_ms is not None
            if attempt.last_sent_ms is None and self._paused() and attempt.plan.kind is not Kind.CANCEL:
                continue  # a pause stops first sends, never repeated ones
            if attempt is not newest[attempt.nonce_slot] and newest[attempt.nonce_slot].answer.startswith(TAKEN):
                continue
            sent_ms = attempt.last_sent_ms or attempt.intended_ms
            # Of what another process sent nobody knows whether it left: it goes out at once, being the same bytes.
            another = attempt.ours and self._began_ms is not None and sent_ms < self._began_ms
            if now - sent_ms < self._resend_ms(attempt) and not another:
                continue
            waited_s = (now - attempt.intended_ms) // 1000
            self._say(events.PaymentUnseen(topup_id=topup.id, tx_hash=attempt.signed_hash, waited_s=waited_s))
            topup = await self._send(topup, attempt)
            if topup.state is State.HALTED:
                break
        return topup

    def _of_charge(self, topup: TopUp) -> list[Attempt]:
        """Return what may still be included of the newest charge; that of an earlier one could only burn gas."""
        return [a for a in self._pending(topup) if a.charge_seq == len(topup.charges)]

    def _resend_ms(self, attempt: Attempt) -> int:
        """Return how long to wait before it is sent again; a seller is asked less and less often, a chain is not."""
        first_ms = self._pace.resend_s * 1000
        return first_ms if attempt.ours else min(first_ms << min(attempt.sends, 10), max(first_ms, SELLER_RESEND_MS))

    # -- outbidding ---------------------------------------------------------------------------------------------

    def _bump_due(self, newest: Attempt, pending: Sequence[Attempt]) -> bool:
        """Tell whether what is out is late enough, and has not been outbid too often."""
        assert newest.intended_ms is not None
        now = self._clock.now()
        late = now - newest.intended_ms >= self._pace.bump_after_s * 1000
        bumps = sum(1 for a in pending if a.nonce_slot == newest.nonce_slot) - 1
        paused = self._paused() and newest.plan.kind is not Kind.CANCEL
        return newest.ours and late and bumps < self._pace.bump_max and now >= self._bump_ms and not paused

    async def _outbid(self, topup: TopUp, observation: Observation, *, cancel: bool) -> TopUp:
        """Put a dearer payment of the same charge, or a cancel, at the same nonce; one of them at most is mined.

        It is stored with the intent to send it before it is sent. Where it may not be, what is out stays as it is.
        """
        try:
            plan, signed = self._plan_cancel(topup, observation) if cancel else await self._plan_bump(topup)
        except (ChargeRefused, PaymentForbidden, SignerError, ChainUnknown, Reverted) as error:
            self._bump_ms = self._clock.now() + self._pace.bump_after_s * 1000
            why = error.reason if isinstance(error, PaymentForbidden) else type(error).__name__
            self._say(events.BumpHeld(topup_id=topup.id, why=why, detail=str(error)), hourly=f"bump {why}")
            return topup
        same_nonce = [a for a in self._pending(topup) if a.plan.nonce == plan.nonce]
        assert same_nonce, "what outbids a payment takes its nonce"
        topup = self._store.replace(topup, Fact.CANCEL if cancel else Fact.BUMP, plan, signed, self._clock.now())
        if cancel:
            self._say(events.CancelSigned(topup_id=topup.id, tx_hash=signed[1], nonce=plan.nonce))
        else:
            self._say(
                events.PaymentBumped(
                    topup_id=topup.id,
                    tx_hash=signed[1],
                    outbids=same_nonce[-1].signed_hash,
                    nonce=plan.nonce,
                    value_wei=plan.value,
                    max_fee_per_gas_wei=plan.max_fee_per_gas,
                    tip_wei=plan.max_priority_fee_per_gas,
                )
            )
        attempt = topup.attempt
        assert attempt is not None
        return await self._send(topup, attempt)

    async def _plan_bump(self, topup: TopUp) -> tuple[Plan, tuple[bytes, bytes]]:
        """Prove, quote and simulate again, as for a first payment; only the fees have to outbid."""
        self._rule_r(topup)
        rail = self._rail(topup)
        verified, preflight = await self._prove(topup)
        over = self._over(topup, preflight.nonce_latest)
        plan = await rail.plan(verified, preflight, over, bump=True)
        self._permit(plan, verified, preflight)
        return plan, rail.sign(plan, verified)

    def _plan_cancel(self, topup: TopUp, observation: Observation) -> tuple[Plan, tuple[bytes, bytes]]:
        rail, nonce = self._wallet_rail(topup), observation.nonce_latest
        plan = rail.cancel(topup, [a for a in self._over(topup, nonce) if a.plan.nonce == nonce])
        return plan, rail.sign_cancel(plan)

    def _over(self, topup: TopUp, nonce: int) -> list[Attempt]:
        """Return what is out from the wallet's next nonce on; there has to be something at that nonce itself."""
        over = [a for a in self._pending(topup) if a.plan.nonce >= nonce]
        if not any(a.plan.nonce == nonce for a in over):
            raise ChainUnknown(f"nonce {nonce} is next, and nothing of ours is out there")
        return over

    # -- the end of a charge ------------------------------------------------------------------------------------

    async def _deathwatch(self, topup: TopUp, observation: Observation) -> Step:
        """Wait for proof, at a final block, that the charge can never be paid; then, and only then, it is replaced."""
        deadline_s = self._deadline_s(topup)
        if observation.head.timestamp_s <= deadline_s:
            topup = await self._resend(topup)
        if not self._settled_for_ever(topup, observation, deadline_s):
            late_s = min(observation.head.timestamp_s - deadline_s, (self._clock.now() - topup.moved_ms) // 1000)
            if late_s > FINALITY_LATE_S:
                return self._undecided(topup, f"no block past the deadline is final after {late_s} s")
            detail = "waiting for a final block past the deadline, or past everything that was sent"
            return self._wait(topup, Reason.DEATHWATCH, detail, self._pace.poll_fastest_s)
        return await self._end(topup, observation)

    async def _end(self, topup: TopUp, observation: Observation) -> Step:
        """Act on what is proven of the newest charge, or on a person's word where the chain does not object."""
        judged = await self._judged(topup, observation)
        match judged:
            case (NonPaymentProof() as proof, payment_status):
                if topup.state is State.HALTED:
                    self._store.obeyed(topup, self._clock.now())
                return self._dead(topup, proof, payment_status)
            case (Paid(by=by), _):
                return self._paid_elsewhere(topup, by)
            case (Undecided(), _) if self._new_word(topup) == ATTEST:
                self._store.obeyed(topup, self._clock.now())
                return self._failed(topup, "attested by hand: never paid")
            case (Undecided(why=why, if_confirmed=proof), _):
                alone = self._rail(topup).owners < WITNESSES
                if topup.state is State.DEATHWATCH and proof is not None and alone:
                    return self._halt(topup, f"the charge can never be paid as far as one provider shows; {why}")
                return self._undecided(topup, why)  # a word stands until there is an answer
            case More(detail=why):
                return self._undecided(topup, why, MORE_S)
            case str() as why:
                return self._undecided(topup, why)
            case _:
                assert_never(judged)

    def _undecided(self, topup: TopUp, why: str, next_s: int | None = None) -> PassResult:
        """Wait for proof that should be there by now, and say every hour what keeps it away."""
        self._say(events.DeathUndecided(topup_id=topup.id, why=why), hourly=f"undecided {topup.id}")
        return self._wait(topup, Reason.DEATHWATCH, f"undecided: {why}", next_s or self._pace.poll_fastest_s)

    def _settled_for_ever(self, topup: TopUp, observation: Observation, deadline_s: int) -> bool:
        """Tell whether asking for proof makes sense: by a final block, all is over in one way or the other."""
        if observation.finalized is None or observation.finalized_s is None:
            return False
        blocks = [a.inclusion.block_number for a in topup.out if a.inclusion is not None]
        spent = not self._pending(topup) and all(block <= observation.finalized for block in blocks)
        return observation.finalized_s > deadline_s or spent

    async def _judged(
        self, topup: TopUp, observation: Observation
    ) -> tuple[NonPaymentProof | Paid | Undecided, ChargeStatus] | More | str:
        """Judge the newest charge by what independent providers show; a sentence when they could not be asked."""
        try:
            payment_status = await self._rail(topup).payment_status(topup, len(topup.charges))
            if isinstance(payment_status, More):
                return payment_status
            # Inclusions were looked at with an earlier final block than the one that was just asked for: a block
            # between the two may have been replaced since.
            payment_status = replace(
                payment_status, final_number=min(payment_status.final_number, observation.finalized or 0)
            )
            judged = non_payment_proof(
                topup,
                len(topup.charges),
                deadline_s=self._deadline_s(topup),
                payment_status=payment_status,
                flag_tested=self._store.told("", flag_name(topup, self._demand(topup))) == "1",
                gone=self._contest.gone if payment_status.final_number >= self._contest.gone_by else (),
            )
            if judged in (NonPaymentProof.NONCE, NonPaymentProof.FOREIGN) and not await self._shown_by_enough(topup):
                judged = Undecided("too few independent providers show what took the nonce")
        except ChainUnknown as error:
            return str(error)
        return judged, payment_status

    async def _shown_by_enough(self, topup: TopUp) -> bool:
        """Tell whether independent providers show every inclusion the proof by nonce rests on, in the same block."""
        placed = [(a, a.inclusion) for a in topup.out if a.inclusion is not None]
        shown = await self._rail(topup).look(topup.wallet, [(topup, a) for a, _ in placed], every=True)
        pairs = [(shown.seen.get(attempt.signed_hash), stored) for attempt, stored in placed]
        return all(seen is not None and seen.inclusion.block_hash == stored.block_hash for seen, stored in pairs)

    def _dead(self, topup: TopUp, proof: NonPaymentProof, payment_status: ChargeStatus) -> TopUp:
        seq = len(topup.charges)
        self._say(
            events.ChargeDead(topup_id=topup.id, seq=seq, proof=proof.value, final_block=payment_status.final_number)
        )
        final, by = payment_status.final_number, payment_status.witnesses
        said = f"{proof.value}: proven at final block {final} by {by} providers"
        if topup.state is State.HALTED or self._store.word(topup) == CANCEL or foreign(topup, seq, self._contest.gone):
            return self._failed(topup, said)
        return self._move(topup, Fact.PROVEN_DEAD, said)

    def _failed(self, topup: TopUp, said: str) -> TopUp:
        """End without a payment; where somebody else uses the key, nothing more is bought until a person has looked."""
        if self._contest.used or self._contest.gone:
            self._alarm(topup, 0)
            # The pause comes first: a death between the two must not let the next decision pass.
            self._store.pause(self._account.name, self._clock.now())
            said += f"; {ELSEWHERE}"
        return self._move(topup, Fact.FAIL, said)

    def _paid_elsewhere(self, topup: TopUp, by: frozenset[bytes]) -> Step:
        hashes = ", ".join("0x" + tx_hash.hex() for tx_hash in by)
        if topup.state is State.HALTED:
            self._store.obeyed(topup, self._clock.now())
            paid = "the chain shows it paid: " + (hashes or "by the contract's own mark")
            self._say(events.TopUpHalted(topup_id=topup.id, reason=paid))
            return self._wait(topup, Reason.HALTED, topup.reason, self._pace.poll_fastest_s)
        # By its memo it can be nothing but what was signed for this charge, whoever has carried it.
        sponsored = any(a.plan.sponsored for a in topup.out if a.charge_seq == len(topup.charges))
        if by & {a.hash for a in topup.out} or (by and sponsored):
            return self._undecided(topup, "paid, as the log shows; its receipt is missing")
        hashes = hashes or "a transaction without an event"
        return self._halt(topup, f"the charge was paid by {hashes}, which is not in the ledger: see `topup reconcile`")

    def _reverted(self, topup: TopUp, observation: Observation) -> Step:
        """Try the same charge again where that can help: the contract pays an id once, so this cannot pay twice."""
        if observation.head.timestamp_s > self._deadline_s(topup):
            return self._move(topup, Fact.EXPIRED, "the deadline passed after a revert")
        if self._store.word(topup) == CANCEL:
            return self._move(topup, Fact.GIVEN_UP, "cancelled by hand")
        newest = [a.inclusion for a in topup.out if a.inclusion is not None and a.charge_seq == len(topup.charges)]
        failed = [inclusion for inclusion in newest if not inclusion.success]
        for inclusion in failed:
            if not inclusion.transient:
                return self._move(topup, Fact.GIVEN_UP, f"reverted for good: {inclusion.reason}")
        if len(failed) > self._pace.retries_max:
            return self._move(topup, Fact.GIVEN_UP, f"{len(failed)} attempts reverted: {topup.reason}")
        return self._move(topup, Fact.RETRY, "")

    async def _halted(self, topup: TopUp, observation: Observation | None) -> Step:
        """Keep looking and booking; only a person's word leads out, and only where the chain does not object."""
        word = self._new_word(topup)
        if word is None:
            return self._wait(topup, Reason.HALTED, topup.reason, self._pace.poll_fastest_s)
        if topup.payment is not None:
            self._store.obeyed(topup, self._clock.now())
            topup = self._move(topup, Fact.PAID, "resolved by hand: the chain shows the payment")
            return self._credited(topup) if word == CREDITED else topup
        if word == CREDITED:
            self._store.obeyed(topup, self._clock.now())
            detail = f"{topup.reason}; the chain shows no payment whose credits could be there"
            return self._wait(topup, Reason.HALTED, detail, self._pace.poll_fastest_s)
        if observation is None or not topup.may_still_pay:
            self._store.obeyed(topup, self._clock.now())
            return self._move(topup, Fact.FAIL, "resolved by hand: nothing that could still be paid was ever sent")
        if not self._settled_for_ever(topup, observation, self._deadline_s(topup)):
            detail = f"{topup.reason}; waiting for a final block past the deadline before the word can count"
            return self._wait(topup, Reason.HALTED, detail, self._pace.poll_fastest_s)
        return await self._end(topup, observation)
