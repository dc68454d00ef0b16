"""What happens in one pass? Unfinished business first, then look, decide, act; one thing at a time.

Every step reads what is stored, does one thing, and stores what came of it. Before a side effect the row that
describes it is committed; after a crash the same step runs on the same row. Nothing here knows HTTP, JSON-RPC,
SQLite or a key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from topup import books, events
from topup.charge import Demand, Request, Verified
from topup.credits import (
    DAY_MS,
    HOUR_MS,
    Doubt,
    Posting,
    Reading,
    Runway,
    Unknown,
    baseline_settled,
    believe,
    burn_usd_per_hour,
    fallen_for_a_day,
    next_poll_s,
    posting,
    runway,
)
from topup.errors import (
    ApiError,
    ApiGone,
    ApiLimited,
    ApiUnauthorized,
    ApiUnknown,
    ChainError,
    ChargeRefused,
    PaymentForbidden,
)
from topup.lifecycle import TERMINAL, Attempt, Fact, State, TopUp
from topup.money import EthPrice, Usd, deviation_bps_up
from topup.policy import Buy, Ceilings, Decision, Hold, Limits, Refuse, Snapshot, Why, decide, permit
from topup.ports import Api, Clock, Delivery, Rail, Sighting, Sink, Store


@dataclass(frozen=True)
class Pace:
    """How often things are looked at, and how long they may take; seconds."""

    poll_fastest_s: int
    poll_slowest_s: int
    staleness_s: int
    unknown_alert_s: int
    key_recheck_s: int
    block_s: int
    resend_s: int
    posting_poll_s: int
    posting_late_s: int
    posting_late_large_s: int
    large: Usd
    plan_fresh_s: int
    retries_max: int


@dataclass(frozen=True)
class Account:
    """Whose credits, which wallet, on which chain."""

    name: str
    wallet: bytes | None
    chain_id: int


@dataclass(frozen=True)
class Terms:
    """What a cycle works on: whose account, within which limits, how fast."""

    account: Account
    limits: Limits
    ceilings: Ceilings
    pace: Pace


@dataclass(frozen=True)
class Rest:
    """How a pass ended, and when to look again."""

    outcome: str
    why: str
    detail: str
    next_s: int
    topup: TopUp | None = None


@dataclass(frozen=True)
class Asked:
    """A person's wish: an amount regardless of the floor, or past cool-down and back-off."""

    amount: Usd | None = None
    forced: bool = False


Step = TopUp | Rest
CLOCK_BEHIND_MS = 60_000
# The name under which `topup resolve --accept-reading` leaves its word.
ACCEPT_READING = "accept_reading"


class Cycle:
    """The passes over one account."""

    def __init__(
        self,
        terms: Terms,
        *,
        api: Api,
        rail: Callable[[], Rail],
        store: Store,
        clock: Clock,
        sink: Sink,
        rpc_requests: Callable[[], int],
    ) -> None:
        """Join the ports; `rail` is called when something has to be paid, not before."""
        self._account = terms.account
        self._limits = terms.limits
        self._ceilings = terms.ceilings
        self._pace = terms.pace
        self._api = api
        self._rail = rail
        self._store = store
        self._clock = clock
        self._sink = sink
        self._rpc_requests = rpc_requests
        self._cycles = 0
        self._management: bool | None = None
        self._key_checked_ms: int | None = None
        self._unknown_since_ms: int | None = None
        self._alerted_ms: int | None = None
        self._not_before_ms = 0
        self._behind = False
        self._forbidden: str | None = None
        # Proofs live only as long as this process: after a restart a charge is proven again before it is signed.
        self._verified: dict[str, Verified] = {}

    # -- one pass -----------------------------------------------------------------------------------------------

    async def run(self, asked: Asked | None = None) -> Rest:
        """Make one pass, and say in one line how it ended."""
        self._cycles += 1
        api, rpc = self._api.requests, self._rpc_requests()
        rest = await self._pass(asked)
        last = self._store.last_reading(self._account.name)
        burn = burn_usd_per_hour(self._store.readings(self._account.name, self._now() - DAY_MS))
        left = runway(last.balance, self._limits.floor, burn) if last is not None else Runway(None, None)
        self._sink.emit(
            events.CycleDone(
                cycle=self._cycles,
                outcome=rest.outcome,
                why=rest.why,
                detail=rest.detail,
                total_credits_usd=last.total_credits if last is not None else None,
                balance_usd=last.balance if last is not None else None,
                burn_usd_per_hour=burn,
                hours_to_floor=left.to_floor_h,
                hours_to_empty=left.to_empty_h,
                topup_id=rest.topup.id if rest.topup is not None else None,
                state=rest.topup.state.value if rest.topup is not None else None,
                next_s=rest.next_s,
                api_requests=self._api.requests - api,
                rpc_requests=self._rpc_requests() - rpc,
            )
        )
        return rest

    async def judge(self, asked: Asked) -> tuple[Snapshot, Decision]:
        """Look and decide, without acting on it."""
        reading = await self._read()
        snapshot = self._snapshot(reading, asked)
        return snapshot, decide(snapshot, self._limits)

    @property
    def cycles(self) -> int:
        """Return how many passes were begun."""
        return self._cycles

    async def _pass(self, asked: Asked | None) -> Rest:
        unfinished = self._store.open_topup(self._account.name)
        if unfinished is not None:
            return await self._follow(unfinished)
        snapshot, decision = await self.judge(asked or Asked())
        if not isinstance(decision, Refuse):
            self._forbidden = None
        match decision:
            case Hold():
                return self._hold(decision, snapshot)
            case Refuse():
                return self._refuse(decision)
            case Buy():
                return await self._follow(self._begin(decision, snapshot))
            case _:
                assert_never(decision)

    async def _follow(self, topup: TopUp) -> Rest:
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
                return await self._prepare(topup)
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
                return self._wait(topup, "halted", topup.reason, self._pace.poll_slowest_s)
            case State.DONE | State.DROPPED | State.FAILED:
                raise AssertionError(f"{topup.id} has ended")
            case _:
                assert_never(topup.state)

    # -- watching -----------------------------------------------------------------------------------------------

    async def _read(self) -> Reading | Unknown:
        """Read the account, judge the reading, keep it, and say what is worth saying."""
        account, now = self._account.name, self._now()
        last = self._store.last_reading(account)
        reading = await self._asked_api(last, now)
        self._store.record_reading(account, reading)
        if isinstance(reading, Unknown):
            self._unknown(reading)
            return reading
        self._unknown_since_ms = self._alerted_ms = None
        self._sink.emit(
            events.ReadingTaken(
                total_credits_usd=reading.total_credits,
                total_usage_usd=reading.total_usage,
                balance_usd=reading.balance,
            )
        )
        if last is not None and reading.total_credits > last.total_credits and self._store.open_topup(account) is None:
            by = reading.total_credits - last.total_credits
            self._sink.emit(events.CreditsRose(by_usd=by, total_credits_usd=reading.total_credits))
        return reading

    async def _asked_api(self, last: Reading | None, now: int) -> Reading | Unknown:
        if now < self._not_before_ms:
            return Unknown(Doubt.LIMITED, f"the API asked to wait {(self._not_before_ms - now) // 1000} s more", now)
        try:
            await self._check_key(now)
            said = await self._api.credits()
        except ApiLimited as error:
            self._not_before_ms = now + error.retry_after_s * 1000
            return Unknown(Doubt.LIMITED, str(error), now)
        except ApiUnauthorized as error:
            return Unknown(Doubt.UNAUTHORIZED, str(error), now)
        except ApiGone as error:
            return Unknown(Doubt.GONE, str(error), now)
        except ApiError as error:
            return Unknown(Doubt.NO_ANSWER, str(error), now)
        said = replace(said, at_ms=self._store.now_ms(said.at_ms))
        account = self._account.name
        ever = self._store.ever_non_zero(account)
        judged = believe(said, management_key=self._management, last=last, ever_non_zero=ever)
        return said if isinstance(judged, Unknown) and self._accepted(judged, said, last) else judged

    def _accepted(self, judged: Unknown, said: Reading, last: Reading | None) -> bool:
        """Tell whether a person has accepted a lower total that was seen for a day; the acceptance is used up."""
        account = self._account.name
        if (
            judged.doubt not in (Doubt.CREDITS_FELL, Doubt.USAGE_FELL)
            or self._store.told(account, ACCEPT_READING) != "1"
        ):
            return False
        if not fallen_for_a_day(self._store.doubted(account, last.at_ms if last is not None else 0), said):
            return False
        self._store.say(account, ACCEPT_READING, "0", self._now(), "topup")
        return True

    async def _check_key(self, now: int) -> None:
        """Ask once in a while what kind of key this is; an unanswered question stays unanswered."""
        if self._key_checked_ms is not None and now - self._key_checked_ms < self._pace.key_recheck_s * 1000:
            return
        try:
            key = await self._api.key()
        except (ApiUnauthorized, ApiLimited):
            raise
        except ApiError:
            return
        self._management, self._key_checked_ms = key.management, now
        if not key.management:
            self._sink.emit(events.KeyUnfit(detail="GET /key: is_management_key is false"))

    def _unknown(self, reading: Unknown) -> None:
        self._sink.emit(events.ReadingUnknown(doubt=reading.doubt.value, detail=reading.detail))
        if self._unknown_since_ms is None:
            last = self._store.last_reading(self._account.name)
            self._unknown_since_ms = last.at_ms if last is not None else reading.at_ms
        lasting = reading.at_ms - self._unknown_since_ms
        again = self._alerted_ms is None or reading.at_ms - self._alerted_ms >= HOUR_MS
        if lasting >= self._pace.unknown_alert_s * 1000 and again:
            self._alerted_ms = reading.at_ms
            self._sink.emit(events.UnknownTooLong(unknown_s=lasting // 1000, doubt=reading.doubt.value))

    # -- deciding -----------------------------------------------------------------------------------------------

    def _snapshot(self, reading: Reading | Unknown, asked: Asked, *, beside: TopUp | None = None) -> Snapshot:
        """Gather what the rules look at; `beside` is the top-up being decided again, left out of its own past."""
        account, now = self._account.name, self._now()
        past = self._store.past(account, now - 30 * DAY_MS, self._limits.fee_ceiling.bps)
        if beside is not None:
            past = [p for p in past if p.decided_ms != beside.decided_ms]
        unfinished = self._store.open_topup(account)
        control = self._store.control(account)
        return Snapshot(
            now_ms=now,
            reading=reading,
            burn=burn_usd_per_hour(self._store.readings(account, now - DAY_MS)),
            past=past,
            charge_requests_ms=() if beside is not None else self._store.charge_requests(account, now - HOUR_MS),
            paused=control.paused,
            gone=control.gone,
            open_topup=unfinished.id if unfinished is not None and beside is None else None,
            ever_non_zero=self._store.ever_non_zero(account),
            asked_amount=asked.amount,
            forced=asked.forced,
        )

    def _begin(self, decision: Buy, snapshot: Snapshot) -> TopUp:
        assert self._account.wallet is not None, "a live policy has a wallet"
        assert isinstance(snapshot.reading, Reading)
        topup = TopUp(
            id="t" + secrets.token_hex(6),
            account=self._account.name,
            rail=self._rail().name,
            chain_id=self._account.chain_id,
            wallet=self._account.wallet,
            state=State.DECIDED,
            amount=decision.amount,
            why=decision.why.value,
            forced=snapshot.forced or snapshot.asked_amount is not None,
            decided_ms=snapshot.now_ms,
            moved_ms=snapshot.now_ms,
            baseline=None,
            balance_before=snapshot.reading.balance,
            wallet_before=None,
            reason="",
            credited_ms=None,
            charges=(),
            attempts=(),
        )
        stored = self._store.begin(topup)
        self._sink.emit(
            events.TopUpDecided(
                topup_id=stored.id, amount_usd=stored.amount, why=decision.why.value, detail=decision.detail
            )
        )
        return stored

    def _hold(self, decision: Hold, snapshot: Snapshot) -> Rest:
        left = self._runway(snapshot)
        next_s = next_poll_s(
            left, snapshot.burn, fastest_s=self._pace.poll_fastest_s, slowest_s=self._pace.poll_slowest_s
        )
        if decision.why in (Why.UNKNOWN, Why.STALE):
            next_s = max(self._pace.poll_fastest_s, (self._not_before_ms - snapshot.now_ms) // 1000 + 1)
        elif decision.until_ms is not None:
            next_s = max(1, min(self._pace.poll_fastest_s, (decision.until_ms - snapshot.now_ms) // 1000 + 1))
        if isinstance(snapshot.reading, Unknown):
            return Rest("unknown", snapshot.reading.doubt.value, snapshot.reading.detail, next_s)
        outcome = "unknown" if decision.why is Why.STALE else "held"
        return Rest(outcome, decision.why.value, decision.detail, next_s)

    def _refuse(self, decision: Refuse) -> Rest:
        """Say it once for each new reason: a log that repeats itself every minute hides what changed."""
        if self._forbidden != decision.why.value:
            self._forbidden = decision.why.value
            self._sink.emit(
                events.TopUpForbidden(why=decision.why.value, detail=decision.detail, remedy=decision.remedy)
            )
        return Rest("forbidden", decision.why.value, decision.detail, self._pace.poll_fastest_s)

    def _runway(self, snapshot: Snapshot) -> Runway:
        if not isinstance(snapshot.reading, Reading):
            return Runway(None, None)
        return runway(snapshot.reading.balance, self._limits.floor, snapshot.burn)

    # -- the charge ---------------------------------------------------------------------------------------------

    async def _ask(self, topup: TopUp) -> Step:
        if self._store.control(self._account.name).paused:
            return self._wait(topup, "paused", "buying is paused", self._pace.poll_fastest_s)
        if topup.charges:
            again = await self._wanted(topup)
            if again is not None:
                return again
        waited = self._between_charges(topup)
        if waited is not None:
            return waited
        topup = self._store.ask(topup, self._now())
        seq = len(topup.charges)
        self._sink.emit(events.ChargeRequested(topup_id=topup.id, seq=seq, amount_usd=topup.amount))
        try:
            raw = await self._rail().ask(self._request(topup))
        except ApiGone as error:
            self._store.set_gone(self._account.name, gone=True, at_ms=self._now())
            self._sink.emit(events.EndpointGone(topup_id=topup.id, error=str(error)))
            return self._drop(topup, "endpoint_gone", str(error))
        except (ApiUnknown, ApiLimited) as error:
            self._sink.emit(events.ChargeUnanswered(topup_id=topup.id, seq=seq, error=str(error)))
            if isinstance(error, ApiLimited):
                self._not_before_ms = self._now() + error.retry_after_s * 1000
            return self._move(topup, Fact.ANSWER_LOST, str(error))
        except ApiError as error:
            return self._drop(topup, "charge_rejected", str(error))
        return self._store.answered(topup, raw, self._now())

    def _between_charges(self, topup: TopUp) -> Rest | None:
        """Space out requests after lost answers, and keep to the hourly bound."""
        now = self._now()
        hour = self._store.charge_requests(self._account.name, now - HOUR_MS)
        if len(hour) >= self._limits.charges_per_hour:
            wait_s = max(1, (hour[0] + HOUR_MS - now) // 1000)
            return self._wait(topup, "charge_rate", f"{len(hour)} charges requested within an hour", wait_s)
        if topup.charge is None:
            return None
        earliest = topup.charge.requested_ms + min(5 * 2 ** len(topup.charges), 300) * 1000
        earliest = max(earliest, self._not_before_ms)
        if now >= earliest:
            return None
        return self._wait(topup, "charge_unanswered", topup.reason, max(1, (earliest - now) // 1000))

    def _request(self, topup: TopUp) -> Request:
        return Request(topup.amount, topup.wallet, topup.chain_id)

    # -- proof, quote, simulation, reservation ------------------------------------------------------------------

    async def _prepare(self, topup: TopUp) -> Step:
        """Prove the stored charge, decide again, plan the payment, and take the nonce for it."""
        charge = topup.charge
        assert charge is not None
        assert charge.raw is not None
        if self._store.control(self._account.name).paused:
            return self._wait(topup, "paused", "buying is paused", self._pace.poll_fastest_s)
        unwanted = await self._wanted(topup)
        if unwanted is not None:
            return unwanted
        rail = self._rail()
        try:
            verified, survey = await rail.prove(
                charge.raw, self._request(topup), seen=self._store.seen_intents(topup.id)
            )
            if not charge.proven:
                topup = self._store.proven(topup, verified)
                self._proven(topup, verified)
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
            permit(plan, fair=fair, wallet=survey.balance, ceilings=self._ceilings)
        except ChargeRefused as error:
            return self._refused(topup, error)
        except PaymentForbidden as error:
            self._sink.emit(
                events.PaymentForbidden(topup_id=topup.id, why=error.reason, detail=str(error), remedy=error.remedy)
            )
            return self._wait(topup, error.reason, str(error), self._pace.poll_fastest_s)
        except ChainError as error:
            if not error.again:
                raise
            return self._wait(topup, "chain_unknown", str(error), self._pace.resend_s)
        baseline = self._store.last_reading(self._account.name)
        assert baseline is not None, "nothing is bought without a reading"
        self._verified[topup.id] = verified
        return self._store.reserve(topup, plan, baseline, survey.balance, self._now())

    async def _wanted(self, topup: TopUp) -> Step | None:
        """Decide again on a fresh reading: a charge lives for days and the world moves. None means: go on."""
        now = self._now()
        last = self._store.last_reading(self._account.name)
        reading: Reading | Unknown
        if last is None or now - last.at_ms > self._limits.fresh_ms:
            reading = await self._read()
        else:
            reading = last
        asked = Asked(topup.amount if topup.why == Why.ASKED.value else None, forced=True)
        decision = decide(self._snapshot(reading, asked, beside=topup), self._limits)
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
        recent = self._store.readings(self._account.name, self._now() - 2 * HOUR_MS)
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
                fee_units=demand.intent.fee_amount,
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
                return self._move(topup, Fact.EXPIRED, str(error))
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
        verified, attempt = self._verified.get(topup.id), topup.attempt
        assert attempt is not None
        if (stale := self._unsendable(topup)) is not None or verified is None:
            return self._store.withdraw(topup, stale or "restarted before signing", self._now())
        raw, tx_hash = self._rail().sign(attempt.plan, verified)
        topup = self._store.signed(topup, raw, tx_hash, self._now())
        self._sink.emit(
            events.PaymentSigned(
                topup_id=topup.id, tx_hash=tx_hash, nonce=attempt.plan.nonce, value_wei=attempt.plan.value
            )
        )
        return topup

    def _intend(self, topup: TopUp) -> Step:
        if (stale := self._unsendable(topup)) is not None or topup.id not in self._verified:
            return self._store.withdraw(topup, stale or "restarted before sending", self._now())
        return self._store.intend(topup, self._now())

    def _unsendable(self, topup: TopUp) -> str | None:
        """Say why a planned payment may no longer leave: paused, or planned too many blocks ago."""
        if self._store.control(self._account.name).paused:
            return "paused"
        if self._now() - topup.moved_ms > self._pace.plan_fresh_s * 1000:
            return "the plan grew stale"
        return None

    async def _send(self, topup: TopUp, attempt: Attempt) -> TopUp:
        sent = await self._rail().send(attempt)
        topup = self._store.delivered(topup, attempt, sent, self._now())
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
        if sent.delivery is Delivery.NONCE_USED:
            self._verified.pop(topup.id, None)
        return topup

    # -- evidence -----------------------------------------------------------------------------------------------

    async def _find(self, topup: TopUp) -> Step:
        """Send what has not been sent, then look for it; send the same bytes again while it is nowhere."""
        attempt = topup.attempt
        assert attempt is not None
        if attempt.last_sent_ms is None:
            topup = await self._send(topup, attempt)
        sighting = await self._looked(topup)
        if isinstance(sighting, Rest):
            return sighting
        found = self._found(topup, sighting)
        if found is not None:
            return found
        return await self._unseen(topup, sighting)

    async def _looked(self, topup: TopUp) -> Sighting | Rest:
        try:
            return await self._rail().look(topup)
        except ChainError as error:
            if not error.again:
                raise
            return self._wait(topup, "chain_unknown", str(error), self._pace.resend_s)

    def _found(self, topup: TopUp, sighting: Sighting) -> Step | None:
        """Store an inclusion that was not known before, or the loss of one that was."""
        for attempt in topup.out:
            assert attempt.hash is not None
            seen = sighting.seen.get(attempt.hash)
            if attempt.inclusion is not None or seen is None:
                continue
            if not seen.trusted:
                return self._halt(topup, f"{seen.reason} in block {seen.inclusion.block_number}")
            topup = self._store.included(topup, attempt, seen, self._now())
            told = seen.inclusion
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
            return topup
        return None

    async def _unseen(self, topup: TopUp, sighting: Sighting) -> Step:
        attempt, now = topup.attempt, self._now()
        assert attempt is not None
        assert attempt.hash is not None
        deadline_s = self._demand(topup).intent.deadline
        if topup.state is State.DEATHWATCH:
            if sighting.finalized_s is not None and sighting.finalized_s > deadline_s:
                return self._halt(
                    topup, "the charge expired unseen; one provider alone cannot prove that it was never paid"
                )
            return self._wait(
                topup, "deathwatch", "waiting for a final block past the deadline", self._pace.poll_fastest_s
            )
        if sighting.head.timestamp_s > deadline_s:
            return self._move(topup, Fact.EXPIRED, "the deadline passed before the payment was seen")
        if sighting.nonce_latest > attempt.plan.nonce:
            # The receipt may lag behind the nonce; neither the one nor the other proves anything yet.
            self._sink.emit(events.NonceMoved(topup_id=topup.id, nonce=attempt.plan.nonce))
            return self._wait(topup, "nonce_moved", "the nonce is used, the receipt is missing", self._pace.resend_s)
        assert attempt.intended_ms is not None
        if attempt.last_sent_ms is not None and now - attempt.last_sent_ms >= self._pace.resend_s * 1000:
            waited_s = (now - attempt.intended_ms) // 1000
            self._sink.emit(events.PaymentUnseen(topup_id=topup.id, tx_hash=attempt.hash, waited_s=waited_s))
            topup = await self._send(topup, attempt)
        return self._wait(topup, "sent", "waiting for a block", self._pace.block_s)

    async def _reverted(self, topup: TopUp) -> Step:
        """Try the same charge again: the contract pays an id once, so this cannot pay twice."""
        sighting = await self._looked(topup)
        if isinstance(sighting, Rest):
            return sighting
        lost = self._lost(topup, sighting)
        if lost is not None:
            return lost
        self._settle(topup, sighting)
        if sighting.head.timestamp_s > self._demand(topup).intent.deadline:
            return self._move(topup, Fact.EXPIRED, "the deadline passed after a revert")
        if len(topup.out) > self._pace.retries_max:
            return self._wait(
                topup, "reverted", f"{len(topup.out)} attempts reverted: {topup.reason}", self._pace.poll_fastest_s
            )
        return self._move(topup, Fact.RETRY, "")

    def _lost(self, topup: TopUp, sighting: Sighting) -> TopUp | None:
        for attempt in topup.out:
            if attempt.hash in sighting.replaced and attempt.inclusion is not None:
                assert attempt.hash is not None
                self._sink.emit(
                    events.PaymentVanished(
                        topup_id=topup.id, tx_hash=attempt.hash, block=attempt.inclusion.block_number
                    )
                )
                return self._store.vanished(topup, attempt, self._now())
        return None

    # -- posting ------------------------------------------------------------------------------------------------

    async def _confirm(self, topup: TopUp) -> Step:
        """Keep checking that the payment stands, and wait for credits and safety; both are needed."""
        sighting = await self._looked(topup)
        if isinstance(sighting, Rest):
            return sighting
        lost = self._lost(topup, sighting)
        if lost is not None:
            return lost
        topup = self._settle(topup, sighting)
        if topup.state is State.CREDITED:
            if all(a.booked for a in topup.out if a.inclusion is not None):
                return self._finish(topup)
            return self._wait(topup, "unsafe", "waiting for a safe block", self._pace.block_s)
        return await self._posting(topup)

    async def _posting(self, topup: TopUp) -> Step:
        paid = topup.payment
        assert paid is not None
        assert topup.baseline is not None
        reading = await self._read()
        now = self._now()
        if isinstance(reading, Reading):
            posted = posting(topup.baseline, topup.amount, reading, paid.block_ms)
            if posted.verdict is not Posting.WAITING:
                ambiguous = posted.verdict is Posting.AMBIGUOUS
                self._sink.emit(
                    events.CreditsPosted(
                        topup_id=topup.id,
                        amount_usd=topup.amount,
                        total_credits_usd=reading.total_credits,
                        waited_s=max(0, (now - paid.block_ms) // 1000),
                        ambiguous=ambiguous,
                    )
                )
                return self._move(topup, Fact.POSTED, "ambiguous" if ambiguous else "")
            if posted.baseline != topup.baseline:
                topup = self._store.rebase(topup, posted.baseline)
        large = topup.amount >= self._pace.large
        late_s = self._pace.posting_late_large_s if large else self._pace.posting_late_s
        if topup.state is State.PAID and now - paid.block_ms > late_s * 1000:
            self._late(topup, reading, now)
            return self._move(topup, Fact.POSTING_LATE, "not posted in time")
        return self._wait(topup, topup.state.value, "waiting for the credits to be posted", self._pace.posting_poll_s)

    def _late(self, topup: TopUp, reading: Reading | Unknown, now: int) -> None:
        paid, demand = topup.payment, self._demand(topup)
        assert paid is not None
        last = reading if isinstance(reading, Reading) else self._store.last_reading(self._account.name)
        assert last is not None
        attempt = next(a for a in topup.attempts if a.inclusion == paid)
        assert attempt.hash is not None
        self._sink.emit(
            events.PaidNotCredited(
                topup_id=topup.id,
                charge_id=demand.charge_id,
                intent_id=demand.intent.id,
                tx_hash=attempt.hash,
                block=paid.block_number,
                paid_units=demand.intent.total,
                expected_usd=topup.amount,
                total_credits_usd=last.total_credits,
                waited_s=(now - paid.block_ms) // 1000,
            )
        )

    # -- books --------------------------------------------------------------------------------------------------

    def _settle(self, topup: TopUp, sighting: Sighting) -> TopUp:
        """Book every included attempt whose block is safe."""
        for attempt in topup.out:
            told = attempt.inclusion
            if told is None or attempt.booked or sighting.safe is None or sighting.safe < told.block_number:
                continue
            demand = self._demand(topup)
            price = attempt.plan.eth_price_e8
            cost = told.spent + told.gas + told.l1_fee
            entry = books.Entry(
                at_ms=told.block_ms,
                topup_id=topup.id,
                text="payment" if told.success else "payment reverted",
                tx_hash=attempt.hash,
                charge_id=demand.charge_id,
                block_number=told.block_number,
                usd_value=EthPrice(price).usd_of_up(cost) if price else None,
                price_source="feed" if price else "none",
                lines=books.payment_lines(told.spent, told.gas, told.l1_fee, demand.intent.total)
                if told.success
                else books.revert_lines(told.gas, told.l1_fee),
            )
            topup = self._store.settle(topup, attempt, entry)
        return topup

    def _finish(self, topup: TopUp) -> TopUp:
        paid, demand = topup.payment, self._demand(topup)
        assert paid is not None
        reading = self._store.last_reading(self._account.name)
        assert reading is not None
        attempt = next(a for a in topup.attempts if a.inclusion == paid)
        assert attempt.hash is not None
        now = self._now()
        entry = books.Entry(
            at_ms=topup.credited_ms or now,
            topup_id=topup.id,
            text="credits posted",
            tx_hash=attempt.hash,
            charge_id=demand.charge_id,
            block_number=paid.block_number,
            usd_value=topup.amount,
            price_source="provider",
            lines=books.credit_lines(topup.amount, demand.intent.total, demand.intent.operator_fee),
        )
        done = self._store.finish(topup, entry, now)
        gas, l1_fee = books.network_cost(done)
        self._sink.emit(
            events.TopUpDone(
                topup_id=done.id,
                amount_usd=done.amount,
                balance_before_usd=done.balance_before,
                balance_after_usd=reading.balance,
                spent_wei=paid.spent,
                gas_wei=gas,
                l1_fee_wei=l1_fee,
                usd_per_credit=books.usd_per_credit(demand.intent.total, done.amount),
                tx_hash=attempt.hash,
                seconds=(now - done.decided_ms) // 1000,
            )
        )
        return done

    # -- small words --------------------------------------------------------------------------------------------

    def _now(self) -> int:
        clock = self._clock.now_ms()
        now = self._store.now_ms(clock)
        if now - clock >= CLOCK_BEHIND_MS and not self._behind:
            self._sink.emit(events.ClockBehind(behind_s=(now - clock) // 1000))
        self._behind = now - clock >= CLOCK_BEHIND_MS
        return now

    def _demand(self, topup: TopUp) -> Demand:
        charge = topup.charge
        assert charge is not None
        assert charge.raw is not None
        return self._rail().read(charge.raw)

    def _move(self, topup: TopUp, fact: Fact, reason: str) -> TopUp:
        return self._store.move(topup, fact, self._now(), reason)

    def _drop(self, topup: TopUp, reason: str, detail: str) -> TopUp:
        self._sink.emit(events.TopUpDropped(topup_id=topup.id, reason=reason, detail=detail))
        return self._move(topup, Fact.DROP, reason)

    def _halt(self, topup: TopUp, reason: str) -> TopUp:
        self._sink.emit(events.TopUpHalted(topup_id=topup.id, reason=reason))
        return self._move(topup, Fact.HALT, reason)

    def _wait(self, topup: TopUp, why: str, detail: str, next_s: int) -> Rest:
        return Rest("following", why, detail, next_s, topup)
