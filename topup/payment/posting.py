"""Has what was paid for arrived? Credits posted, block safe, books closed."""

import contextlib

from topup.accounting import journal
from topup.domain import events
from topup.domain.credits import Posting, Reading, Unknown, posting
from topup.domain.demand import Demand
from topup.domain.errors import ChainUnknown
from topup.domain.lifecycle import Attempt, Fact, Inclusion, State, TopUp
from topup.domain.reasons import Reason
from topup.domain.ways_out import CREDITED
from topup.payment.config import PassResult
from topup.payment.confirmation import PAYING
from topup.payment.step import BLOCK_S, Step, Steps, flag_name
from topup.ports.rail import Claim

# A block of Base is safe within minutes; after this the provider or the chain deserves a look.
SAFE_LATE_S = 900


class CreditPosting(Steps):
    """The steps from the payment in a block to the end."""

    async def step(self, topup: TopUp) -> Step:
        """Keep checking that the payment stands, and wait for credits and safety; both are needed."""
        looked = await self._look(topup)
        if isinstance(looked, PassResult):
            return looked
        topup, _ = looked
        if topup.state not in PAYING:
            return topup
        if topup.state is State.CREDITED:
            return await self._safe(topup)
        if topup.state is State.UNCREDITED and self._new_word(topup) == CREDITED:
            self._store.obeyed(topup, self._clock.now())
            return self._credited(topup)
        return await self._posting(topup)

    async def _safe(self, topup: TopUp) -> Step:
        if all(a.booked for a in topup.out if a.inclusion is not None):
            await self._test_flag(topup)
            return self._finish(topup)
        waited_s = (self._clock.now() - (topup.credited_ms or topup.moved_ms)) // 1000
        if waited_s >= SAFE_LATE_S:
            self._say(events.NotYetSafe(topup_id=topup.id, waited_s=waited_s), hourly=f"unsafe {topup.id}")
        next_s = BLOCK_S if waited_s < 60 else self._pace.posting_poll_s
        return self._wait(topup, Reason.UNSAFE, "credited; waiting for a safe block", next_s)

    async def _test_flag(self, topup: TopUp) -> None:
        """Hold the contract's own mark of a paid charge against a payment of ours, once for each contract."""
        paid, _ = _paying(topup)
        name = flag_name(topup, self._paid(topup))
        if paid.plan.sponsored or self._store.told("", name) is not None:
            return  # the chain keeps no mark of it, or it was tested
        with contextlib.suppress(ChainUnknown):  # else the next payment will tell
            trusted = await self._rail(topup).flag(topup, paid.charge_seq)
            if trusted:  # one answer makes it trusted; nothing makes it distrusted for ever
                self._store.say("", name, "1", self._clock.now())
            self._say(events.FlagTested(topup_id=topup.id, trusted=trusted))

    async def _posting(self, topup: TopUp) -> Step:
        paid, _ = _paying(topup)
        if topup.baseline is None:
            return self._halt(topup, "paid, and the ledger has no reading from before it to hold the credits against")
        reading = await self._monitor.read()
        now = self._clock.now()
        first_ms = min(a.intended_ms or now for a in topup.out if a.charge_seq == paid.charge_seq)
        waited_ms = now - (paid.intended_ms or now)
        large = topup.amount >= self._pace.large
        late = waited_ms > (self._pace.posting_late_large_s if large else self._pace.posting_late_s) * 1000
        if isinstance(reading, Reading):
            # Both times are the ledger's own: the chain's clock may differ from it by more than a posting takes.
            posted = posting(topup.baseline, topup.amount, reading, first_ms)
            if posted.verdict is Posting.POSTED or (posted.verdict is Posting.AMBIGUOUS and late):
                return self._posted(topup, reading, waited_ms // 1000, ambiguous=posted.verdict is Posting.AMBIGUOUS)
            if posted.baseline != topup.baseline:
                topup = self._store.rebase(topup, posted.baseline)
            if posted.verdict is Posting.AMBIGUOUS:
                detail = "more has arrived than was bought: waiting until it cannot be somebody else's alone"
                return self._wait(topup, Reason.AMBIGUOUS, detail, self._pace.posting_poll_s)
        claim = await self._rail(topup).claim(topup) if topup.state is State.PAID else Claim.SILENT
        if topup.state is State.PAID and (late or claim is Claim.FAILED):
            self._late(topup, reading, waited_ms // 1000)
            said = "the seller calls the purchase failed" if claim is Claim.FAILED else "not posted in time"
            return self._move(topup, Fact.POSTING_LATE, said)
        return self._wait(topup, topup.state.value, "waiting for the credits to be posted", self._pace.posting_poll_s)

    def _posted(self, topup: TopUp, reading: Reading, waited_s: int, *, ambiguous: bool) -> TopUp:
        self._say(
            events.CreditsPosted(
                topup_id=topup.id,
                amount_usd=topup.amount,
                total_credits_usd=reading.total_credits,
                waited_s=waited_s,
                ambiguous=ambiguous,
            )
        )
        return self._move(topup, Fact.POSTED, Reason.AMBIGUOUS if ambiguous else "")

    def _late(self, topup: TopUp, reading: Reading | Unknown, waited_s: int) -> None:
        paid, inclusion = _paying(topup)
        demand = self._paid(topup)
        last = reading if isinstance(reading, Reading) else self._last_reading()
        self._say(
            events.PaidNotCredited(
                topup_id=topup.id,
                charge_id=demand.charge_id,
                intent_id=demand.identity[1],
                tx_hash=inclusion.tx_hash or paid.signed_hash,
                block=inclusion.block_number,
                paid_units=demand.total,
                expected_usd=topup.amount,
                total_credits_usd=last.total_credits,
                waited_s=waited_s,
            )
        )

    def _paid(self, topup: TopUp) -> Demand:
        """Return the charge that was paid, which need not be the newest."""
        paid, _ = _paying(topup)
        return self._rail(topup).read(topup.raw_of(paid))

    def _finish(self, topup: TopUp) -> TopUp:
        paid, inclusion = _paying(topup)
        demand, reading, now = self._paid(topup), self._last_reading(), self._clock.now()
        entry = journal.posting_entry(topup, paid, demand, topup.credited_ms or now)
        done = self._store.finish(topup, entry, now)
        gas, l1_fee = journal.network_cost(done)
        self._say(
            events.TopUpDone(
                topup_id=done.id,
                amount_usd=done.amount,
                balance_before_usd=done.balance_before,
                balance_after_usd=reading.balance,
                spent_wei=inclusion.spent,
                gas_wei=gas,
                l1_fee_wei=l1_fee,
                asset=paid.plan.asset.value,
                asset_spent=inclusion.tokens,
                asset_fee=inclusion.token_fee,
                usd_per_credit=journal.usd_per_credit(demand.total, done.amount),
                tx_hash=inclusion.tx_hash or paid.signed_hash,
                seconds=(now - done.decided_ms) // 1000,
            )
        )
        return done


def _paying(topup: TopUp) -> tuple[Attempt, Inclusion]:
    paid = topup.paying
    assert paid is not None
    assert paid.inclusion is not None
    return paid, paid.inclusion
