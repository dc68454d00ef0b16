"""What is the next step of a top-up? Ask, prove, plan, sign, send, find, confirm, book.

One step a call, from what is stored. Before a side effect the row that describes it is committed; after a crash the
same step runs on the same row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from topup import books, events
from topup.charge import Demand, Request, Verified
from topup.credits import HOUR_MS, Posting, Reading, Unknown, baseline_settled, posting
from topup.errors import (
    ApiError,
    ApiGone,
    ApiLimited,
    ApiUnknown,
    ChainError,
    ChargeRefused,
    PaymentForbidden,
    SignerError,
)
from topup.lifecycle import TERMINAL, Attempt, Fact, State, TopUp
from topup.money import EthPrice, deviation_bps_up
from topup.policy import Buy, Hold, Refuse, Why, decide, permit
from topup.ports import Rail, Seen, Sighting, Sink, Store, Survey
from topup.terms import Asked, Rest, Terms
from topup.watch import Watch

Step = TopUp | Rest
# States in which a payment of ours stands in a block.
PAYING = frozenset({State.PAID, State.UNCREDITED, State.CREDITED})
# Names under which `topup resolve` leaves a person's word; an adoption counts for an hour.
RESOLVE = "resolve:"
ADOPT_NONCE = "adopt_nonce"
ADOPTION_MS = HOUR_MS


class Purchase:
    """The steps of the one open top-up."""

    def __init__(self, terms: Terms, *, watch: Watch, rail: Callable[[], Rail], store: Store, sink: Sink) -> None:
        """Join the ports; `rail` is called when something has to be paid, not before."""
        self._account = terms.account
        self._limits = terms.limits
        self._ceilings = terms.ceilings
        self._pace = terms.pace
        self._watch = watch
        self._rail = rail
        self._store = store
        self._sink = sink
        # Proofs live only as long as this process: after a restart a charge is proven again before it is signed.
        self._verified: dict[str, tuple[Verified, int]] = {}
        self._said: dict[str, int] = {}

    async def follow(self, topup: TopUp) -> Rest:
        """Take steps until the top-up ends or has to wait for the world."""
        while topup.state not in TERMINAL:
            step = await self._step(topup)
            if isinstance(step, Rest):
                return step
            topup = step
        self._verified.pop(topup.id, None)
        return Rest(
            topup.state.value, topup.reason or topup.why, f"{topup.amount} dollars", self._pace.poll_fastest_s, topup
        )

    async def _step(self, topup: TopUp) -> Step:
        match topup.state:
            case State.DECIDED:
                return await self._ask(topup)
            case State.ASKING:
                # Only a restart finds this state: the answer went with the process that asked.
                return self._move(topup, Fact.ANSWER_LOST, "restarted while asking")
            case State.CHARGED:
                return await self._charged(topup)
            case State.RESERVED:
                return self._sign(topup)
            case State.SIGNED:
                return self._intend(topup)
            case State.SENT | State.DEATHWATCH:
                return await self._find(topup)
            case State.REVERTED:
                return await self._reverted(topup)
            case State.PAID | State.UNCREDITED | State.CREDITED:
                return await self._confirm(topup)
            case State.HALTED:
                return await self._halted(topup)
            case State.DONE | State.DROPPED | State.FAILED:
                raise AssertionError(f"{topup.id} has ended")
            case _:
                assert_never(topup.state)

    # -- the charge ---------------------------------------------------------------------------------------------

    async def _ask(self, topup: TopUp) -> Step:
        if self._paused():
            return self._wait(topup, "paused", "buying is paused", self._pace.poll_fastest_s)
        if topup.charges:
            again = await self._wanted(topup)
            if again is not None:
                return again
        waited = self._between_charges(topup)
        if waited is not None:
            return waited
        topup = self._store.ask(topup, self._watch.now())
        seq = len(topup.charges)
        self._sink.emit(events.ChargeRequested(topup_id=topup.id, seq=seq, amount_usd=topup.amount))
        try:
            raw = await self._rail().ask(self._request(topup))
        except ApiGone as error:
            self._store.set_gone(self._account.name, gone=True, at_ms=self._watch.now())
            self._sink.emit(events.EndpointGone(topup_id=topup.id, error=str(error)))
            return self._drop(topup, "endpoint_gone", str(error))
        except (ApiUnknown, ApiLimited) as error:
            self._sink.emit(events.ChargeUnanswered(topup_id=topup.id, seq=seq, error=str(error)))
            if isinstance(error, ApiLimited):
                self._watch.not_before_ms = self._watch.now() + error.retry_after_s * 1000
            return self._move(topup, Fact.ANSWER_LOST, str(error))
        except ApiError as error:
            return self._drop(topup, "charge_rejected", str(error))
        return self._store.answered(topup, raw, self._watch.now())

    def _between_charges(self, topup: TopUp) -> Rest | None:
        """Space out requests after lost answers, and keep to the hourly bound."""
        now = self._watch.now()
        hour = self._store.charge_requests(self._account.name, now - HOUR_MS)
        if len(hour) >= self._limits.charges_per_hour:
            wait_s = max(1, (hour[0] + HOUR_MS - now) // 1000)
            return self._wait(topup, "charge_rate", f"{len(hour)} charges requested within an hour", wait_s)
        if topup.charge is None:
            return None
        earliest = topup.charge.requested_ms + min(5 * 2 ** len(topup.charges), 300) * 1000
        earliest = max(earliest, self._watch.not_before_ms)
        if now >= earliest:
            return None
        return self._wait(topup, "charge_unanswered", topup.reason, max(1, (earliest - now) // 1000))

    def _request(self, topup: TopUp) -> Request:
        return Request(topup.amount, topup.wallet, topup.chain_id)

    # -- proof, quote, simulation, reservation ------------------------------------------------------------------

    async def _charged(self, topup: TopUp) -> Step:
        """Look for what is already out, and only then prepare a payment of the same charge."""
        if topup.out:
            looked = await self._look(topup)
            if isinstance(looked, Rest):
                return looked
            seen, sighting = looked
            if seen.state is not State.CHARGED:
                return seen
            if sighting.head.timestamp_s > self._demand(seen).intent.deadline:
                return self._move(seen, Fact.EXPIRED, "the deadline passed after a revert")
            topup = seen
        return await self._prepare(topup)

    async def _prepare(self, topup: TopUp) -> Step:
        """Prove the stored charge, decide again, plan the payment, and take the nonce for it."""
        charge = topup.charge
        assert charge is not None
        assert charge.raw is not None
        if self._paused():
            return self._wait(topup, "paused", "buying is paused", self._pace.poll_fastest_s)
        unwanted = await self._wanted(topup)
        if unwanted is not None:
            return unwanted
        rail, began_ms = self._rail(), self._watch.now()
        try:
            verified, survey = await rail.prove(
                charge.raw, self._request(topup), seen=self._store.seen_intents(topup.id)
            )
            if not charge.proven:
                topup = self._store.proven(topup, verified)
                self._proven(topup, verified)
            lagging = self._nonce_rule(topup, survey)
            if lagging is not None:
                return lagging
            plan = await rail.plan(verified, survey)
            fair = EthPrice(survey.price_e8).wei_for_up(verified.total) if survey.price_e8 is not None else None
            deviation = deviation_bps_up(plan.value, fair) if fair is not None else None
            self._sink.emit(
                events.PaymentPlanned(
                    topup_id=topup.id,
                    tier=plan.tier,
                    quote_wei=plan.quote,
                    value_wei=plan.value,
                    deviation_bps=deviation,
                    gas_limit=plan.gas_limit,
                    max_fee_per_gas_wei=plan.max_fee_per_gas,
                    l1_fee_wei=plan.l1_fee,
                    block=plan.block_number,
                    proof=plan.proof,
                )
            )
            permit(plan, total=verified.total, fair=fair, wallet=survey.balance, ceilings=self._ceilings)
        except ChargeRefused as error:
            return self._refused(topup, error)
        except PaymentForbidden as error:
            return self._forbid(topup, error)
        except ChainError as error:
            if not error.again:
                raise
            return self._wait(topup, "chain_unknown", str(error), self._pace.resend_s)
        baseline = self._store.last_reading(self._account.name)
        assert baseline is not None, "nothing is bought without a reading"
        self._verified[topup.id] = (verified, began_ms)
        self._said.clear()
        return self._store.reserve(topup, plan, baseline, survey.balance, self._watch.now())

    def _nonce_rule(self, topup: TopUp, survey: Survey) -> Rest | None:
        """Hold the wallet's nonce against the ledger's: ahead means a lost ledger or a second user of the key."""
        expected = self._store.next_nonce(topup.chain_id, topup.wallet)
        if survey.nonce_latest < expected:
            detail = f"the provider shows nonce {survey.nonce_latest}, the ledger has used {expected - 1}"
            return self._wait(topup, "chain_unknown", detail, self._pace.resend_s)
        if survey.nonce_latest == expected:
            return None
        account = self._account.name
        if not self._store.said_within(account, ADOPT_NONCE, self._watch.now(), ADOPTION_MS):
            raise PaymentForbidden(
                "nonce_ahead",
                f"the wallet has sent {survey.nonce_latest} transactions, the ledger knows of {expected}",
                remedy="see that no payment of a lost ledger is on its way, then `topup resolve --adopt-nonce`",
            )
        self._store.adopt_nonce(topup.chain_id, topup.wallet, survey.nonce_latest, self._watch.now())
        return None

    def _forbid(self, topup: TopUp, error: PaymentForbidden) -> Rest:
        """Say why a payment is not permitted now: at once for each new reason, and again every hour."""
        now = self._watch.now()
        said = self._said.get(error.reason)
        if said is None or now - said >= HOUR_MS:
            self._said[error.reason] = now
            self._sink.emit(
                events.PaymentForbidden(topup_id=topup.id, why=error.reason, detail=str(error), remedy=error.remedy)
            )
        return self._wait(topup, error.reason, str(error), self._pace.poll_fastest_s)

    async def _wanted(self, topup: TopUp) -> Step | None:
        """Decide again on a fresh reading: a charge lives for days and the world moves. None means: go on."""
        now = self._watch.now()
        last = self._store.last_reading(self._account.name)
        reading: Reading | Unknown
        if last is None or now - last.at_ms > self._limits.fresh_ms:
            reading = await self._watch.read()
        else:
            reading = last
        asked = Asked(topup.amount if topup.why == Why.ASKED.value else None, forced=True)
        decision = decide(self._watch.snapshot(reading, asked, beside=topup), self._limits)
        match decision:
            case Buy():
                return self._settled_baseline(topup)
            case Hold(why=Why.ABOVE_FLOOR) if not topup.out:
                return self._drop(topup, "no_longer_needed", decision.detail)
            case Hold() | Refuse():
                return self._wait(topup, decision.why.value, decision.detail, self._pace.poll_fastest_s)
            case _:
                assert_never(decision)

    def _settled_baseline(self, topup: TopUp) -> Rest | None:
        """Wait until a recent rise can no longer hide behind the API's cache: the baseline has to be sound."""
        staleness_ms = self._pace.staleness_s * 1000
        recent = self._store.readings(self._account.name, self._watch.now() - 2 * HOUR_MS)
        if baseline_settled(recent, staleness_ms=staleness_ms):
            return None
        return self._wait(topup, "baseline_unsettled", "credits rose moments ago", self._pace.posting_poll_s)

    def _proven(self, topup: TopUp, verified: Verified) -> None:
        demand: Demand = verified.demand
        self._sink.emit(
            events.ChargeProven(
                topup_id=topup.id,
                seq=len(topup.charges),
                charge_id=demand.charge_id,
                intent_id=demand.intent.id,
                total_units=verified.total,
                fee_units=demand.intent.operator_fee,
                recipient=demand.intent.recipient,
                deadline_s=demand.intent.deadline,
            )
        )

    def _refused(self, topup: TopUp, error: ChargeRefused) -> Step:
        charge = topup.charge
        assert charge is not None
        if charge.proven and error.field == "call_data.deadline":
            # It was right when it came and has grown too old; whether it may be replaced depends on what was sent.
            if topup.out:
                # Too old to pay again by some clock; dead only by the chain's, which is looked at before each step.
                return self._wait(topup, "charge_old", str(error), self._pace.poll_fastest_s)
            return self._move(topup, Fact.CHARGE_DEAD, str(error))
        self._sink.emit(
            events.ChargeRefused(
                topup_id=topup.id,
                seq=charge.seq,
                field=error.field,
                was=error.was,
                should_be=error.should_be,
                remedy=error.remedy,
            )
        )
        if topup.out:
            return self._halt(topup, f"a charge that was being paid is now refused: {error}")
        return self._drop(topup, "charge_refused", str(error))

    # -- signing and sending ------------------------------------------------------------------------------------

    def _sign(self, topup: TopUp) -> Step:
        """Sign what was planned moments ago by this very process; anything older is planned again."""
        known, attempt = self._verified.get(topup.id), topup.attempt
        assert attempt is not None
        if (stale := self._unsendable(topup)) is not None or known is None:
            return self._store.withdraw(topup, stale or "restarted before signing", self._watch.now())
        try:
            raw, tx_hash = self._rail().sign(attempt.plan, known[0])
        except SignerError as error:
            topup = self._store.withdraw(topup, str(error), self._watch.now())
            return self._forbid(topup, PaymentForbidden("signer", str(error), remedy=error.remedy))
        topup = self._store.signed(topup, raw, tx_hash, self._watch.now())
        self._sink.emit(
            events.PaymentSigned(
                topup_id=topup.id, tx_hash=tx_hash, nonce=attempt.plan.nonce, value_wei=attempt.plan.value
            )
        )
        return topup

    def _intend(self, topup: TopUp) -> Step:
        if (stale := self._unsendable(topup)) is not None:
            return self._store.withdraw(topup, stale, self._watch.now())
        return self._store.intend(topup, self._watch.now())

    def _unsendable(self, topup: TopUp) -> str | None:
        """Say why a planned payment may no longer leave: paused, or the survey it rests on is too old."""
        if self._paused():
            return "paused"
        known = self._verified.get(topup.id)
        if known is None:
            return "restarted before sending"
        if self._watch.now() - known[1] > self._pace.plan_fresh_s * 1000:
            return "the plan grew stale"
        return None

    def _paused(self) -> bool:
        return self._store.control(self._account.name).paused

    async def _send(self, topup: TopUp, attempt: Attempt) -> TopUp:
        sent = await self._rail().send(attempt)
        topup = self._store.delivered(topup, attempt, sent, self._watch.now())
        assert attempt.hash is not None
        self._sink.emit(
            events.PaymentSent(
                topup_id=topup.id,
                tx_hash=attempt.hash,
                answer=sent.delivery.value,
                detail=sent.detail,
                times=attempt.sends + 1,
            )
        )
        return topup

    # -- evidence -----------------------------------------------------------------------------------------------

    async def _look(self, topup: TopUp) -> tuple[TopUp, Sighting] | Rest:
        """Look for every attempt that may be out, and store what the chain shows; nothing is concluded from absence."""
        try:
            sighting = await self._rail().look(topup)
        except ChainError as error:
            if not error.again:
                raise
            return self._wait(topup, "chain_unknown", str(error), self._pace.resend_s)
        topup = self._lost(topup, sighting)
        topup = self._found(topup, sighting)
        return self._settle(topup, sighting), sighting

    def _lost(self, topup: TopUp, sighting: Sighting) -> TopUp:
        """Store that blocks of known inclusions are no longer canonical."""
        for attempt in topup.out:
            told = attempt.inclusion
            if told is None or attempt.hash is None or attempt.hash not in sighting.replaced:
                continue
            self._sink.emit(events.PaymentVanished(topup_id=topup.id, tx_hash=attempt.hash, block=told.block_number))
            if attempt.booked:
                return self._halt(topup, f"block {told.block_number} was safe, is in the books, and has been replaced")
            paying = told.success and topup.state in PAYING
            fact = Fact.VANISHED if paying or topup.state in (State.REVERTED, State.CHARGED) else None
            topup = self._store.vanished(topup, attempt, fact, self._watch.now())
        return topup

    def _found(self, topup: TopUp, sighting: Sighting) -> TopUp:
        """Store inclusions that were not known before; where they lead follows from all attempts together."""
        for attempt in topup.out:
            seen = sighting.seen.get(attempt.hash) if attempt.hash is not None else None
            if attempt.inclusion is not None or seen is None:
                continue
            if not seen.trusted:
                return self._halt(topup, f"{seen.reason} in block {seen.inclusion.block_number}")
            fact = self._fact_of(topup, attempt, seen)
            topup = self._store.included(topup, attempt, seen, fact, self._watch.now())
            self._tell(topup, attempt, seen)
        return topup

    @staticmethod
    def _fact_of(topup: TopUp, attempt: Attempt, seen: Seen) -> Fact | None:
        """Return the arrow an inclusion takes: paid at once, reverted once no attempt is left out; else none."""
        if topup.state is State.HALTED or topup.state in PAYING:
            return None
        if seen.inclusion.success:
            return Fact.PAID
        others = [a for a in topup.out if a.id != attempt.id]
        decided = topup.state is State.SENT and all(a.inclusion is not None for a in others)
        return Fact.REVERTED if decided else None

    def _tell(self, topup: TopUp, attempt: Attempt, seen: Seen) -> None:
        told = seen.inclusion
        assert attempt.hash is not None
        if told.success:
            self._sink.emit(
                events.PaymentIncluded(
                    topup_id=topup.id,
                    tx_hash=attempt.hash,
                    block=told.block_number,
                    spent_wei=told.spent,
                    gas_wei=told.gas,
                    l1_fee_wei=told.l1_fee,
                    wallet_check=seen.wallet_check,
                )
            )
        else:
            self._sink.emit(
                events.PaymentReverted(
                    topup_id=topup.id,
                    tx_hash=attempt.hash,
                    block=told.block_number,
                    gas_wei=told.gas,
                    l1_fee_wei=told.l1_fee,
                    reason=seen.reason,
                )
            )

    async def _find(self, topup: TopUp) -> Step:
        """Send what has not been sent, then look for it; send the same bytes again while it is nowhere."""
        attempt, now = topup.attempt, self._watch.now()
        assert attempt is not None
        assert attempt.intended_ms is not None
        fresh = now - attempt.intended_ms < self._pace.resend_s * 1000
        if topup.state is State.SENT and attempt.last_sent_ms is None and fresh and not self._paused():
            topup = await self._send(topup, attempt)
        looked = await self._look(topup)
        if isinstance(looked, Rest):
            return looked
        seen, sighting = looked
        return seen if seen.state is not topup.state else await self._unseen(seen, sighting)

    async def _unseen(self, topup: TopUp, sighting: Sighting) -> Step:
        deadline_s = self._demand(topup).intent.deadline
        if topup.state is State.DEATHWATCH:
            if sighting.finalized_s is not None and sighting.finalized_s > deadline_s:
                return self._halt(topup, "the charge expired unpaid as far as one provider shows, which is no proof")
            detail = "waiting for a final block past the deadline"
            return self._wait(topup, "deathwatch", detail, self._pace.poll_fastest_s)
        if sighting.head.timestamp_s > deadline_s:
            return self._move(topup, Fact.EXPIRED, "the deadline passed before the payment was seen")
        waiting = [a for a in topup.out if a.inclusion is None]
        used = [a for a in waiting if sighting.nonce_latest > a.plan.nonce]
        if used:
            # The receipt may lag behind the nonce; neither the one nor the other proves anything yet.
            if "nonce_moved" not in self._said:
                self._said["nonce_moved"] = self._watch.now()
                self._sink.emit(events.NonceMoved(topup_id=topup.id, nonce=used[0].plan.nonce))
            return self._wait(topup, "nonce_moved", "the nonce is used, the receipt is missing", self._pace.resend_s)
        topup = await self._resend(topup, waiting)
        return self._wait(topup, "sent", "waiting for a block", self._pace.block_s)

    async def _resend(self, topup: TopUp, waiting: list[Attempt]) -> TopUp:
        """Send every attempt that is nowhere again, byte for byte, in the order of their nonces."""
        now = self._watch.now()
        for attempt in sorted(waiting, key=lambda a: a.plan.nonce):
            assert attempt.hash is not None
            assert attempt.intended_ms is not None
            if attempt.last_sent_ms is None and self._paused():
                continue  # a pause stops first sends, never repeated ones
            if now - (attempt.last_sent_ms or attempt.intended_ms) < self._pace.resend_s * 1000:
                continue
            waited_s = (now - attempt.intended_ms) // 1000
            self._sink.emit(events.PaymentUnseen(topup_id=topup.id, tx_hash=attempt.hash, waited_s=waited_s))
            topup = await self._send(topup, attempt)
        return topup

    async def _reverted(self, topup: TopUp) -> Step:
        """Try the same charge again: the contract pays an id once, so this cannot pay twice."""
        looked = await self._look(topup)
        if isinstance(looked, Rest):
            return looked
        topup, sighting = looked
        if topup.state is not State.REVERTED:
            return topup
        if sighting.head.timestamp_s > self._demand(topup).intent.deadline:
            return self._move(topup, Fact.EXPIRED, "the deadline passed after a revert")
        if len(topup.out) > self._pace.retries_max:
            detail = f"{len(topup.out)} attempts reverted: {topup.reason}"
            remedy = "see `topup history`; the charge is left to expire, and nothing is bought until then"
            return self._forbid(topup, PaymentForbidden("reverted", detail, remedy=remedy))
        return self._move(topup, Fact.RETRY, "")

    async def _halted(self, topup: TopUp) -> Step:
        """Keep looking and booking; only a person's word leads out, and only where the chain does not object."""
        word = self._store.told(self._account.name, RESOLVE + topup.id)
        sighting: Sighting | None = None
        if topup.out:
            looked = await self._look(topup)
            if isinstance(looked, Rest):
                return looked
            topup, sighting = looked
        if word in ("look", "attest-unpaid") and topup.payment is not None:
            return self._move(topup, Fact.PAID, "resolved by hand: the chain shows the payment")
        if word == "attest-unpaid":
            deadline_s = self._demand(topup).intent.deadline if topup.charge is not None and topup.charge.raw else 0
            final = sighting is None or (sighting.finalized_s is not None and sighting.finalized_s > deadline_s)
            if final:
                return self._move(topup, Fact.FAIL, "attested by hand: never paid")
        return self._wait(topup, "halted", topup.reason, self._pace.poll_fastest_s)

    # -- posting ------------------------------------------------------------------------------------------------

    async def _confirm(self, topup: TopUp) -> Step:
        """Keep checking that the payment stands, and wait for credits and safety; both are needed."""
        looked = await self._look(topup)
        if isinstance(looked, Rest):
            return looked
        topup, _ = looked
        if topup.state not in PAYING:
            return topup
        if topup.state is State.CREDITED:
            return self._safe(topup)
        return await self._posting(topup)

    def _safe(self, topup: TopUp) -> Step:
        if all(a.booked for a in topup.out if a.inclusion is not None):
            return self._finish(topup)
        waited_s = (self._watch.now() - (topup.credited_ms or topup.moved_ms)) // 1000
        if waited_s >= self._pace.safe_late_s and "unsafe" not in self._said:
            self._said["unsafe"] = self._watch.now()
            self._sink.emit(events.NotYetSafe(topup_id=topup.id, waited_s=waited_s))
        next_s = self._pace.block_s if waited_s < 60 else self._pace.posting_poll_s
        return self._wait(topup, "unsafe", "credited; waiting for a safe block", next_s)

    async def _posting(self, topup: TopUp) -> Step:
        paid = topup.paying
        assert paid is not None
        assert paid.intended_ms is not None
        assert topup.baseline is not None
        reading = await self._watch.read()
        now = self._watch.now()
        large = topup.amount >= self._pace.large
        late_ms = (self._pace.posting_late_large_s if large else self._pace.posting_late_s) * 1000
        late = now - paid.intended_ms > late_ms
        if isinstance(reading, Reading):
            # Both times are the ledger's own: the chain's clock may differ from it by more than a posting takes.
            posted = posting(topup.baseline, topup.amount, reading, paid.intended_ms)
            if posted.verdict is Posting.POSTED or (posted.verdict is Posting.AMBIGUOUS and late):
                return self._posted(topup, reading, now - paid.intended_ms, posted.verdict)
            if posted.baseline != topup.baseline:
                topup = self._store.rebase(topup, posted.baseline)
            if posted.verdict is Posting.AMBIGUOUS:
                detail = "more has arrived than was bought: waiting until it cannot be somebody else's alone"
                return self._wait(topup, "ambiguous", detail, self._pace.posting_poll_s)
        if topup.state is State.PAID and late:
            self._late(topup, reading, now)
            return self._move(topup, Fact.POSTING_LATE, "not posted in time")
        return self._wait(topup, topup.state.value, "waiting for the credits to be posted", self._pace.posting_poll_s)

    def _posted(self, topup: TopUp, reading: Reading, waited_ms: int, verdict: Posting) -> TopUp:
        ambiguous = verdict is Posting.AMBIGUOUS
        self._sink.emit(
            events.CreditsPosted(
                topup_id=topup.id,
                amount_usd=topup.amount,
                total_credits_usd=reading.total_credits,
                waited_s=waited_ms // 1000,
                ambiguous=ambiguous,
            )
        )
        return self._move(topup, Fact.POSTED, "ambiguous" if ambiguous else "")

    def _late(self, topup: TopUp, reading: Reading | Unknown, now: int) -> None:
        attempt, demand = topup.paying, self._demand(topup)
        assert attempt is not None
        assert attempt.inclusion is not None
        assert attempt.intended_ms is not None
        last = reading if isinstance(reading, Reading) else self._store.last_reading(self._account.name)
        assert last is not None
        assert attempt.hash is not None
        self._sink.emit(
            events.PaidNotCredited(
                topup_id=topup.id,
                charge_id=demand.charge_id,
                intent_id=demand.intent.id,
                tx_hash=attempt.hash,
                block=attempt.inclusion.block_number,
                paid_units=demand.intent.total,
                expected_usd=topup.amount,
                total_credits_usd=last.total_credits,
                waited_s=(now - attempt.intended_ms) // 1000,
            )
        )

    # -- books --------------------------------------------------------------------------------------------------

    def _settle(self, topup: TopUp, sighting: Sighting) -> TopUp:
        """Book every included attempt whose block is safe."""
        for attempt in topup.out:
            told = attempt.inclusion
            if told is None or attempt.booked or sighting.safe is None or sighting.safe < told.block_number:
                continue
            entry = books.attempt_entry(topup.id, attempt, self._demand(topup))
            topup = self._store.settle(topup, attempt, entry, self._watch.now())
        return topup

    def _finish(self, topup: TopUp) -> TopUp:
        attempt, demand = topup.paying, self._demand(topup)
        assert attempt is not None
        assert attempt.inclusion is not None
        reading = self._store.last_reading(self._account.name)
        assert reading is not None
        assert attempt.hash is not None
        now = self._watch.now()
        entry = books.posting_entry(topup, attempt, demand, topup.credited_ms or now)
        done = self._store.finish(topup, entry, now)
        gas, l1_fee = books.network_cost(done)
        self._sink.emit(
            events.TopUpDone(
                topup_id=done.id,
                amount_usd=done.amount,
                balance_before_usd=done.balance_before,
                balance_after_usd=reading.balance,
                spent_wei=attempt.inclusion.spent,
                gas_wei=gas,
                l1_fee_wei=l1_fee,
                usd_per_credit=books.usd_per_credit(demand.intent.total, done.amount),
                tx_hash=attempt.hash,
                seconds=(now - done.decided_ms) // 1000,
            )
        )
        return done

    # -- small words --------------------------------------------------------------------------------------------

    def _demand(self, topup: TopUp) -> Demand:
        charge = topup.charge
        assert charge is not None
        assert charge.raw is not None
        return self._rail().read(charge.raw)

    def _move(self, topup: TopUp, fact: Fact, reason: str) -> TopUp:
        return self._store.move(topup, fact, self._watch.now(), reason)

    def _drop(self, topup: TopUp, reason: str, detail: str) -> TopUp:
        self._sink.emit(events.TopUpDropped(topup_id=topup.id, reason=reason, detail=detail))
        return self._move(topup, Fact.DROP, reason)

    def _halt(self, topup: TopUp, reason: str) -> TopUp:
        if topup.state is State.HALTED:
            return topup
        self._sink.emit(events.TopUpHalted(topup_id=topup.id, reason=reason))
        return self._move(topup, Fact.HALT, reason)

    def _wait(self, topup: TopUp, why: str, detail: str, next_s: int) -> Rest:
        return Rest("following", why, detail, next_s, topup)
