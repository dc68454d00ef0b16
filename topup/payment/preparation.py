"""How is a payment prepared? Ask, prove, plan, reserve, sign, intend.

One step a call, from what is stored. Before a side effect the row that describes it is committed; after a crash the
same step runs on the same row.
"""

from typing import assert_never

from topup.domain import events
from topup.domain.credits import DAY_MS, HOUR_MS, baseline_settled
from topup.domain.demand import DEADLINES, Verified
from topup.domain.errors import (
    ApiError,
    ApiGone,
    ApiLimited,
    ApiUnknown,
    ChainError,
    ChargeRefused,
    PaymentForbidden,
    SignerError,
)
from topup.domain.lifecycle import Attempt, Broadcaster, Fact, Kind, Plan, State, TopUp
from topup.domain.money import deviation_bps_up
from topup.domain.notes import Note
from topup.domain.policy import Buy, Hold, Refuse, Why, decide, over_budget
from topup.domain.reasons import Reason
from topup.domain.ways_out import CANCEL
from topup.payment.config import PassResult, PurchaseOrder, Terms
from topup.payment.part import Ports
from topup.payment.step import Step, Steps, Watch, fair
from topup.ports.chain import Preflight

# Why an attempt that was never sent is withdrawn.
RESTARTED = "restarted before sending"
STALE = "the plan grew stale"
SELLS = "see whether this provider still sells credits; the account runs dry when nobody does"


class Preparation(Steps):
    """The steps of the one open top-up, from the decision to the intent to send."""

    # Which top-up waits for a sound baseline, and since when.
    _unsettled: tuple[str, int] | None = None
    # What the last top-up was dropped for, and what would change that; the log has it from its event.
    _dropped = ("", "", "")

    def __init__(self, terms: Terms, ports: Ports, watch: Watch) -> None:
        super().__init__(terms, ports, watch)
        # Proofs live only as long as this process: after a restart a charge is proven again before it is signed.
        self._verified: dict[str, tuple[Verified, int]] = {}

    async def step(self, topup: TopUp) -> Step:
        """Take the next step towards the intent to send."""
        match topup.state:
            case State.DECIDED:
                return await self._ask(topup)
            case State.ASKING:
                # Only a restart finds this state: the answer went with the process that asked.
                return self._move(topup, Fact.ANSWER_LOST, "restarted while asking")
            case State.CHARGED:
                return await self._charged(topup)
            case State.RESERVED | State.SIGNED if (stale := self._unsendable(topup)) is not None:
                return self._withdrawn(topup, stale)
            case State.RESERVED:
                return self._sign(topup)
            case State.SIGNED:
                return self._intend(topup)
            case _:
                raise AssertionError(f"{topup.id} is {topup.state}")

    def ended(self, topup: TopUp) -> tuple[str, str]:
        """Forget what was proven for it; return why it was dropped, and what would change that."""
        self._verified.pop(topup.id, None)
        dropped, why, remedy = self._dropped
        return (why, remedy) if dropped == topup.id else ("", "")

    # -- the charge ---------------------------------------------------------------------------------------------

    async def _ask(self, topup: TopUp) -> Step:
        if self._store.word(topup) == CANCEL:
            return self._cancelled(topup)
        if self._paused():
            return self._wait(topup, Why.PAUSED, "buying is paused", self._pace.poll_fastest_s)
        if topup.charges:
            again = await self._wanted(topup)
            if again is not None:
                return again
        waited = self._young(topup) or self._between_charges(topup)
        if waited is not None:
            return waited
        topup = self._store.ask(topup, self._clock.now())
        seq = len(topup.charges)
        self._say(events.ChargeRequested(topup_id=topup.id, seq=seq, amount_usd=topup.amount))
        try:
            raw = await self._rail(topup).ask(self._request(topup))
        except ApiGone as error:
            topup = self._store.endpoint_gone(topup, Why.ENDPOINT_GONE.value, self._clock.now())
            self._say(events.EndpointGone(topup_id=topup.id, rail=topup.rail, error=str(error)))
            self._say(events.TopUpDropped(topup_id=topup.id, reason=Why.ENDPOINT_GONE.value, detail=str(error)))
            return topup
        except (ApiUnknown, ApiLimited) as error:
            self._say(events.ChargeUnanswered(topup_id=topup.id, seq=seq, error=str(error)))
            self._lasting.failed(topup, Reason.CHARGE_UNANSWERED, str(error), remedy=SELLS, said=True)
            if isinstance(error, ApiLimited):
                self._monitor.not_before_ms = self._clock.now() + error.retry_after_s * 1000
            return self._move(topup, Fact.ANSWER_LOST, str(error))
        except ChargeRefused as error:
            # Refused before it is stored: it must not be kept. Nothing was signed for it.
            return self._refusal(topup, seq, error)
        except ApiError as error:
            return self._drop(topup, Reason.CHARGE_REJECTED, str(error), error.remedy)
        return self._store.answered(topup, raw, self._clock.now())

    def _young(self, topup: TopUp) -> PassResult | None:
        """Wait out what a ledger that was lost may have signed: an authorization leaves no trace until it is used.

        A wallet's nonce would tell of a payment of ours. Of these only time does: by then it is used and its credits
        are posted, or it can never be used. What this process signed is in its ledger; whether that is the newest
        copy, no reading in it can tell, so the time counts from the start. A person who asks this process for a
        purchase answers for what was before; but not for time that was lost after the asking, in which this very wish
        may have been carried out.
        """
        if self._rail(topup).broadcaster is Broadcaster.US:
            return None
        if topup.forced and topup.decided_ms >= self._clock.began_ms():
            asked = self._store.requested(topup.wish).at_ms if topup.wish is not None else topup.decided_ms
            if self._clock.vouched(asked):
                return None
        left_ms = self._pace.young_s * 1000 - self._clock.watched_ms()
        if left_ms <= 0:
            return None
        detail = "what a lost ledger may have signed has to end first"
        return self._wait(topup, Reason.YOUNG_LEDGER, detail, min(left_ms // 1000 + 1, self._pace.poll_slowest_s))

    def _between_charges(self, topup: TopUp) -> PassResult | None:
        """Space out requests after lost answers, and keep to the hourly bound."""
        now = self._clock.now()
        hour = self._store.charge_requests(self._account.name, now - HOUR_MS)
        if len(hour) >= self._limits.charges_per_hour:
            wait_s = max(1, (hour[0] + HOUR_MS - now) // 1000)
            return self._wait(topup, Why.CHARGE_RATE, f"{len(hour)} charges requested within an hour", wait_s)
        if topup.charge is None:
            return None
        earliest = topup.charge.requested_ms + min(5 * 2 ** len(topup.charges), 300) * 1000
        earliest = max(earliest, self._monitor.not_before_ms)
        if now >= earliest:
            return None
        lasts = now - topup.decided_ms > self._pace.unknown_alert_s * 1000
        if topup.state is State.DECIDED and not topup.may_still_pay and lasts:
            return self._hindered(topup, PaymentForbidden(Reason.CHARGE_UNANSWERED, topup.reason, remedy=SELLS))
        return self._wait(topup, Reason.CHARGE_UNANSWERED, topup.reason, max(1, (earliest - now) // 1000))

    # -- proof, quote, simulation, reservation ------------------------------------------------------------------

    async def _charged(self, topup: TopUp) -> Step:
        """Look for what is already out, and only then prepare a payment of the same charge."""
        if topup.out or any(a.inclusion is None for _, a in self._confirmation.beside(topup)):
            looked = await self._look(topup)
            if isinstance(looked, PassResult):
                return looked
            seen, observation = looked
            if seen.state is not State.CHARGED:
                return seen
            if seen.may_still_pay and observation.head.timestamp_s > self._deadline_s(seen):
                return self._move(seen, Fact.EXPIRED, "the deadline passed after a revert")
            topup = seen
        if self._store.word(topup) == CANCEL:
            return self._cancelled(topup)
        return await self._prepare(topup)

    def _cancelled(self, topup: TopUp) -> TopUp:
        """Obey a cancel before anything else is signed; what may be out still needs its proof of death."""
        if topup.may_still_pay:
            return self._move(topup, Fact.GIVEN_UP, "cancelled by hand")
        return self._drop(topup, Reason.CANCELLED, "by hand, before anything was signed")

    async def _prepare(self, topup: TopUp) -> Step:
        """Prove the stored charge, decide again, plan the payment, and take the nonce for it."""
        if self._paused():
            return self._wait(topup, Why.PAUSED, "buying is paused", self._pace.poll_fastest_s)
        # A copy of the ledger that was put back may hold this very charge, and the lost one have signed for it.
        young = self._young(topup)
        if young is not None:
            return young
        unwanted = await self._wanted(topup)
        if unwanted is not None:
            return unwanted
        rail, began_ms = self._rail(topup), self._clock.now()
        try:
            verified, preflight = await self._prove(topup)
            self._clock.heard_chain(preflight.head.timestamp_s)
            if (young := self._young(topup)) is not None:
                return young
            topup = self._proven(topup, verified)
            self._caps_by_chain(topup, preflight)
            lagging = self._nonce_rule(topup, preflight) if rail.broadcaster is Broadcaster.US else None
            if lagging is not None:
                # Either a provider lags, or what an ended top-up had in a block does not stand, which this look stores.
                await self._look(topup, behind=preflight.nonce_latest)
                return self._unknown(topup, lagging, began_ms)
            self._rule_r(topup)
            plan = await rail.plan(verified, preflight, self._outbid(topup, preflight))
            _approved_once(topup, plan)
            self._planned(topup, plan, verified, preflight)
            self._permit(plan, verified, preflight)
        except ChargeRefused as error:
            return self._refused(topup, error)
        except PaymentForbidden as error:
            unsigned = all(attempt.charge_seq != len(topup.charges) for attempt in topup.attempts)
            if error.reason == Reason.AUTHORIZATION_USED and unsigned and self._pace.young_s:
                return self._used_by_a_copy(topup, error)
            return self._hindered(topup, error)
        except ChainError as error:
            if not error.again:
                raise
            return self._unknown(topup, str(error), began_ms)
        self._verified[topup.id] = (verified, began_ms)
        return self._store.reserve(topup, plan, self._last_reading(), preflight.balance, self._clock.now())

    def _used_by_a_copy(self, topup: TopUp, error: PaymentForbidden) -> TopUp:
        """Take another name for this purchase, once what a lost copy of this ledger may have signed has ended.

        The name follows from this ledger, so only a copy that went on from the same state can have used it. Its payment
        is posted by then, or was for nothing; whether the purchase is still wanted is decided again after the wait.
        """
        self._hindered(topup, error)
        self._clock.contradicted()
        return self._move(topup, Fact.CHARGE_DEAD, Reason.AUTHORIZATION_USED.value)

    def _hindered(self, topup: TopUp, error: PaymentForbidden) -> PassResult:
        """Say why no payment can leave now, and louder when that lasts: credits are needed."""
        result = self._forbid(topup, error)
        self._lasting.failed(topup, error.reason, str(error), remedy=error.remedy, said=True)
        return result

    def _caps_by_chain(self, topup: TopUp, preflight: Preflight) -> None:
        """Hold the caps a second time, by the chain's clock: a machine's clock put forward must release nothing."""
        now = preflight.head.timestamp_s * 1000
        past = self._store.paid(self._account.name, now - 30 * DAY_MS, self._limits.fee_ceiling.bps)
        refused = over_budget(topup.amount, [p for p in past if p.topup_id != topup.id], now, self._limits)
        if refused is not None:
            raise PaymentForbidden(refused.why, f"{refused.detail}, by the chain's clock")

    def _outbid(self, topup: TopUp, preflight: Preflight) -> list[Attempt]:
        """Return bytes of ours that may still be out from the wallet's next nonce on."""
        stale = [a for _, a in self._confirmation.beside(topup) if a.inclusion is None]
        known = [*self._pending(topup), *stale]
        return [a for a in known if a.ours and a.plan.nonce >= preflight.nonce_latest]

    def _nonce_rule(self, topup: TopUp, preflight: Preflight) -> str | None:
        """Hold the wallet's nonce against the ledger's: ahead means a lost ledger or a second user of the key.

        Return what is waited for where it is behind.
        """
        expected = self._store.next_nonce(topup.chain_id, topup.wallet)
        if preflight.nonce_latest < expected:
            return f"what is believed shows nonce {preflight.nonce_latest}, the ledger has used {expected - 1}"
        if preflight.nonce_latest == expected:
            return None
        account = self._account.name
        if not self._store.said_within(account, Note.ADOPT_NONCE, self._clock.now(), HOUR_MS):
            raise nonce_ahead(preflight.nonce_latest, expected)
        self._store.adopt_nonce(topup.chain_id, topup.wallet, preflight.nonce_latest, self._clock.now())
        return None

    async def _wanted(self, topup: TopUp) -> Step | None:
        """Decide again on a fresh reading: a charge lives for days and the world moves. None means: go on."""
        now = self._clock.now()
        last = self._store.last_reading(self._account.name)
        fresh = last is not None and now - last.at_ms <= self._limits.fresh_ms
        reading = last if last is not None and fresh else await self._monitor.read()
        asked = PurchaseOrder(topup.amount if topup.why == Why.ASKED.value else None, forced=True)
        decision = decide(self._monitor.snapshot(reading, asked, beside=topup), self._limits)
        match decision:
            case Buy():
                return self._settled_baseline(topup)
            case Hold(why=Why.ABOVE_FLOOR) if not topup.may_still_pay:
                return self._drop(topup, Reason.NO_LONGER_NEEDED, decision.detail)
            case Hold():
                return self._wait(topup, decision.why.value, decision.detail, self._pace.poll_fastest_s)
            case Refuse():
                return self._forbid(topup, PaymentForbidden(decision.why, decision.detail))
            case _:
                assert_never(decision)

    def _settled_baseline(self, topup: TopUp) -> PassResult | None:
        """Wait until a recent rise can no longer hide behind the API's cache: the baseline has to be sound."""
        staleness_ms = self._pace.staleness_s * 1000
        recent = self._store.readings(self._account.name, self._clock.now() - 2 * HOUR_MS)
        if baseline_settled(recent, staleness_ms=staleness_ms):
            self._unsettled = None
            return None
        now = self._clock.now()
        if self._unsettled is None or self._unsettled[0] != topup.id:
            self._unsettled = topup.id, now
        waited_s = (now - self._unsettled[1]) // 1000
        if waited_s >= self._pace.unknown_alert_s:
            unsettled = events.BaselineUnsettled(topup_id=topup.id, waited_s=waited_s)
            self._say(unsettled, hourly=Reason.BASELINE_UNSETTLED)
        return self._wait(topup, Reason.BASELINE_UNSETTLED, "credits rose moments ago", self._pace.posting_poll_s)

    def _proven(self, topup: TopUp, verified: Verified) -> TopUp:
        """Store and say, once, what the newest charge is."""
        demand = verified.demand
        if topup.charge is not None and topup.charge.proven:
            return topup
        topup = self._store.proven(topup, verified)
        self._say(
            events.ChargeProven(
                topup_id=topup.id,
                seq=len(topup.charges),
                charge_id=demand.charge_id,
                intent_id=demand.identity[1],
                total_units=verified.total,
                fee_units=demand.fee,
                recipient=demand.recipient,
                deadline_s=demand.deadline,
            )
        )
        return topup

    def _planned(self, topup: TopUp, plan: Plan, verified: Verified, preflight: Preflight) -> None:
        worth = fair(plan, verified, preflight)
        self._say(
            events.PaymentPlanned(
                topup_id=topup.id,
                tier=plan.tier,
                quote_wei=plan.quote,
                value_wei=plan.value,
                asset=plan.asset.value,
                units=plan.tokens,
                deviation_bps=deviation_bps_up(plan.value, worth) if worth is not None else None,
                gas_limit=plan.gas_limit,
                max_fee_per_gas_wei=plan.max_fee_per_gas,
                l1_fee_wei=plan.l1_fee,
                block=plan.block_number,
                proof=plan.proof,
                doubt=preflight.doubt,
            )
        )

    def _refused(self, topup: TopUp, error: ChargeRefused) -> Step:
        charge = topup.charge
        assert charge is not None
        if charge.proven and error.field in DEADLINES:
            # It was right when it came and has grown too old; whether it may be replaced depends on what was sent.
            if topup.may_still_pay:
                # Too old to pay again by some clock; dead only by the chain's, which is looked at before each step.
                return self._wait(topup, Reason.CHARGE_OLD, str(error), self._pace.poll_fastest_s)
            return self._move(topup, Fact.CHARGE_DEAD, str(error))
        return self._refusal(topup, charge.seq, error)

    def _refusal(self, topup: TopUp, seq: int, error: ChargeRefused) -> TopUp:
        said = {"field": error.field, "was": error.was, "should_be": error.should_be, "remedy": error.remedy}
        self._say(events.ChargeRefused(topup_id=topup.id, seq=seq, **said))
        if topup.may_still_pay:
            return self._halt(topup, f"a charge that was being paid is now refused: {error}")
        return self._drop(topup, Reason.CHARGE_REFUSED, str(error), error.remedy)

    def _drop(self, topup: TopUp, reason: str, detail: str, remedy: str = "") -> TopUp:
        self._dropped = (topup.id, detail, remedy)
        self._say(events.TopUpDropped(topup_id=topup.id, reason=reason, detail=detail))
        return self._move(topup, Fact.DROP, str(reason))

    # -- signing and sending ------------------------------------------------------------------------------------

    def _sign(self, topup: TopUp) -> Step:
        """Sign what was planned moments ago by this very process; anything older is planned again."""
        (verified, _), attempt = self._verified[topup.id], topup.attempt
        assert attempt is not None
        try:
            raw, tx_hash = self._rail(topup).sign(attempt.plan, verified)
        except SignerError as error:
            topup = self._store.withdraw(topup, str(error), self._clock.now())
            return self._hindered(topup, PaymentForbidden(Reason.SIGNER, str(error), remedy=error.remedy))
        topup = self._store.signed(topup, raw, tx_hash, self._clock.now())
        self._say(
            events.PaymentSigned(
                topup_id=topup.id, tx_hash=tx_hash, nonce=attempt.plan.nonce, value_wei=attempt.plan.value
            )
        )
        return topup

    def _intend(self, topup: TopUp) -> Step:
        self._hourly.forget()
        self._lasting.ended(topup)
        return self._store.intend(topup, self._clock.now())

    def _withdrawn(self, topup: TopUp, stale: str) -> Step:
        """Give the nonce back; what grew stale or is paused is not planned again in the same breath."""
        topup = self._store.withdraw(topup, stale, self._clock.now())
        if stale == STALE:
            return self._hindered(topup, PaymentForbidden(Reason.PLAN_STALE, stale))
        return topup if stale == RESTARTED else self._wait(topup, stale, stale, self._pace.poll_fastest_s)

    def _unsendable(self, topup: TopUp) -> str | None:
        """Say why a planned payment may no longer leave: paused, or the preflight it rests on is too old."""
        if self._paused():
            return Why.PAUSED.value
        if (young := self._young(topup)) is not None:
            return young.why
        known = self._verified.get(topup.id)
        if known is None:
            return RESTARTED
        if self._clock.now() - known[1] > self._pace.plan_fresh_s * 1000:
            return STALE
        return None


def nonce_ahead(sent: int, known: int) -> PaymentForbidden:
    """Return the refusal to sign while the wallet has sent more than the ledger knows."""
    says = f"the wallet has sent {sent} transactions, the ledger knows of {known}"
    return PaymentForbidden(Reason.NONCE_AHEAD, says)


def _approved_once(topup: TopUp, plan: Plan) -> None:
    """Refuse to approve anew what a block shows as approved: one provider that denies it would burn gas for ever."""
    if plan.kind is not Kind.APPROVE:
        return
    stands = [a.inclusion for a in topup.out if a.plan.kind is Kind.APPROVE and a.charge_seq == len(topup.charges)]
    for block in (inclusion.block_number for inclusion in stands if inclusion is not None and inclusion.success):
        raise PaymentForbidden(
            Reason.APPROVAL_UNSEEN,
            f"an approval of this charge stands in block {block}, and what it allows is not shown",
        )
