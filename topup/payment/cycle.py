"""What happens in one pass? Unfinished business first, then look, decide, act; one thing at a time.

Nothing in the flow knows HTTP, JSON-RPC, SQLite or a key.
"""

from collections.abc import Callable
from typing import Final, assert_never

from topup.domain import events
from topup.domain.credits import DAY_MS, Reading, Runway, Unknown, burn_usd_per_hour, next_poll_s, runway
from topup.domain.errors import TopupError
from topup.domain.lifecycle import State, TopUp
from topup.domain.policy import Buy, Decision, Hold, Refuse, Snapshot, Why, decide
from topup.payment.approvals import Revoke
from topup.payment.closing_run import Bookkeeping
from topup.payment.config import PassResult, PurchaseOrder, Terms
from topup.payment.confirmation import Confirmation
from topup.payment.lasting import Lasting
from topup.payment.ledger_clock import LedgerClock
from topup.payment.monitor import Monitor
from topup.payment.part import Part, Ports
from topup.payment.step import Watch
from topup.payment.topup import TopUpDriver
from topup.payment.usage_sync import UsageSync
from topup.ports.account import Api, Clock, Sink, Usage
from topup.ports.budget import Budget
from topup.ports.ledger import Store
from topup.ports.rail import Rail

# Within so many hours of the floor, the time between two passes is used to load what a payment takes.
SOON_H: Final = 1


class Cycle(Part):
    """The passes over one account."""

    def __init__(
        self,
        terms: Terms,
        *,
        api: Api,
        usage: Usage | None = None,
        rails: Callable[[str], Rail],
        store: Store,
        clock: Clock,
        sink: Sink,
        rpc_requests: Callable[[], int],
        budget: Budget | None = None,
    ) -> None:
        """Join the ports; a rail is built when something has to be paid, not before.

        `budget` is what the rails' long work takes its questions from, if they have any.
        """
        ports = Ports(api, rails, store, LedgerClock(terms, store=store, clock=clock, sink=sink), sink)
        super().__init__(terms, ports)
        self._rpc_requests = rpc_requests
        self._budget = budget
        self._monitor = Monitor(terms, ports)
        self._confirmation = Confirmation(terms, ports)
        lasting = Lasting(
            terms.account.name, alert_s=terms.pace.unknown_alert_s, now=self._clock.now, store=store, sink=sink
        )
        watch = Watch(self._monitor, self._confirmation, lasting)
        self._driver = TopUpDriver(terms, ports, watch)
        self._revoke = Revoke(terms, ports, watch)
        self._bookkeeping = Bookkeeping(terms, ports)
        self._usage_sync: UsageSync | None = None
        if usage is not None:
            self._usage_sync = UsageSync(terms.account.name, api=usage, now=self._clock.now, store=store, sink=sink)
        self.cycles = 0  # how many passes were begun
        self._paused: bool | None = None

    async def run(self, asked: PurchaseOrder | None = None) -> PassResult:
        """Make one pass, and say in one line how it ended."""
        self.cycles += 1
        self._clock.begin_pass()
        if self._budget is not None:
            self._budget.renew()
        api, rpc = self._api.requests, self._rpc_requests()
        result = await self._pass(asked)
        last = self._store.last_reading(self._account.name)
        burn = burn_usd_per_hour(self._store.readings(self._account.name, self._clock.now() - DAY_MS))
        left = runway(last.balance, self._limits.floor, burn) if last is not None else Runway(None, None)
        self._say(
            events.CycleDone(
                cycle=self.cycles,
                outcome=result.outcome,
                why=result.why,
                detail=result.detail,
                total_credits_usd=last.total_credits if last is not None else None,
                balance_usd=last.balance if last is not None else None,
                burn_usd_per_hour=burn,
                hours_to_floor=left.to_floor_h,
                hours_to_empty=left.to_empty_h,
                topup_id=result.topup.id if result.topup is not None else None,
                state=result.topup.state.value if result.topup is not None else None,
                ledger_head=self._store.head(),
                next_s=result.next_s,
                api_requests=self._api.requests - api,
                rpc_requests=self._rpc_requests() - rpc,
            )
        )
        return result

    async def stand(self) -> None:
        """Before the first pass: say when the wallet has sent more than the ledger knows."""
        await self._driver.stand()

    async def judge(self, asked: PurchaseOrder) -> tuple[Snapshot, Decision]:
        """Look and decide, without acting on it."""
        reading = await self._monitor.read()
        snapshot = self._monitor.snapshot(reading, asked)
        return snapshot, decide(snapshot, self._limits)

    @property
    def asked(self) -> int:
        """Return how many questions were asked so far: while it grows, a pass gets on."""
        return self._api.requests + self._rpc_requests()

    async def _pass(self, asked: PurchaseOrder | None) -> PassResult:
        self._notice_pause()
        unfinished = self._store.open_topup(self._account.name)
        if unfinished is not None:
            try:
                result = await self._driver.follow(unfinished)
            except TopupError:
                await self._monitor.keep()  # whatever is wrong with a payment must not blind the watch
                raise
            await self._monitor.keep()
            return result
        await self._confirmation.look_back()
        snapshot, decision = await self.judge(asked or PurchaseOrder())
        self._bookkeeping.close()
        if not isinstance(decision, Buy):
            # Never before a purchase: it may take many questions.
            await self._revoke.tidy()
            await self._bookkeeping.hold_wallet()
            if self._usage_sync is not None:
                await self._usage_sync.keep_up()
        self._hourly.forget(but=decision.why.value if isinstance(decision, Refuse) else "")
        match decision:
            case Hold():
                return self._hold(decision, snapshot)
            case Refuse():
                return self._refuse(decision)
            case Buy():
                return await self._driver.follow(
                    self._begin(decision, snapshot, asked.wish if asked is not None else None)
                )
            case _:
                assert_never(decision)

    def _notice_pause(self) -> None:
        """Say once that a person has paused or resumed buying since the last pass."""
        control = self._store.control(self._account.name)
        if self._paused is not None and self._paused != control.paused:
            self._say(events.PauseChanged(paused=control.paused, by=control.paused_by))
        self._paused = control.paused

    def _begin(self, decision: Buy, snapshot: Snapshot, wish: int | None) -> TopUp:
        assert self._account.wallet is not None, "a live policy has a wallet"
        assert isinstance(snapshot.reading, Reading)
        gone = self._store.control(self._account.name).gone
        # The first that lives; from here to the end of this top-up there is no other.
        route = next(r for r in self._account.routes if r.rail not in gone)
        route.load()  # before anything is asked for: what is quoted then grows no older while code is read
        topup = TopUp(
            id=self._store.next_id(),
            account=self._account.name,
            rail=route.rail,
            chain_id=route.chain_id,
            wallet=self._account.wallet,
            state=State.DECIDED,
            amount=decision.amount,
            why=decision.why.value,
            forced=snapshot.forced or snapshot.asked_amount is not None,
            decided_ms=snapshot.now_ms,
            moved_ms=snapshot.now_ms,
            balance_before=snapshot.reading.balance,
            wish=wish,
        )
        stored = self._store.begin(topup)
        self._say(
            events.TopUpDecided(
                topup_id=stored.id, amount_usd=stored.amount, why=decision.why.value, detail=decision.detail
            )
        )
        return stored

    def _hold(self, decision: Hold, snapshot: Snapshot) -> PassResult:
        left, reading = Runway(None, None), snapshot.reading
        if isinstance(reading, Reading):
            left = runway(reading.balance, self._limits.floor, snapshot.burn)
        if self._limits.live and left.to_floor_h is not None and left.to_floor_h < SOON_H:
            self._account.routes[0].load()
        next_s = next_poll_s(
            left, snapshot.burn, fastest_s=self._pace.poll_fastest_s, slowest_s=self._pace.poll_slowest_s
        )
        if decision.why in (Why.UNKNOWN, Why.STALE):
            next_s = max(self._pace.poll_fastest_s, (self._monitor.not_before_ms - snapshot.now_ms) // 1000 + 1)
        elif decision.until_ms is not None:
            next_s = max(1, min(self._pace.poll_fastest_s, (decision.until_ms - snapshot.now_ms) // 1000 + 1))
        if isinstance(reading, Unknown):
            return PassResult("unknown", reading.doubt.value, reading.detail, next_s)
        outcome = "unknown" if decision.why is Why.STALE else "held"
        return PassResult(outcome, decision.why.value, decision.detail, next_s, remedy=decision.remedy)

    def _refuse(self, decision: Refuse) -> PassResult:
        """Say it at once for each new reason, then hourly: a log that repeats itself hides what changed."""
        forbidden = events.TopUpForbidden(why=decision.why.value, detail=decision.detail, remedy=decision.remedy)
        self._say(forbidden, hourly=decision.why.value)
        next_s = self._pace.poll_fastest_s
        return PassResult("forbidden", decision.why.value, decision.detail, next_s, remedy=decision.remedy)
