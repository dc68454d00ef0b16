"""How is one wish bought once? By this process or by the daemon it is handed to, whoever is stopped, killed or repeats.

A wish is a row of the ledger before anything else happens. Whoever has the ledger's lock acts on it: this process, or
the daemon beside it, which takes it. What this command says in the end, by its exit code, is what is known of the money
then. 4, and 130 after a Ctrl-C, are said only where one transaction has made sure that nothing of the wish is out and
that nobody will act on it any more; else it is 5, and the same command again goes on with the same wish.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from topup.app import assembly, signals
from topup.app.alarms import Alarms
from topup.app.connections import opened
from topup.app.daemon import PASSING, outcome_exit
from topup.app.run_beat import RunBeat
from topup.app.settings import Settings
from topup.app.telling import telling
from topup.commands.status import topup_document
from topup.domain import events
from topup.domain.errors import Exit, SettingsError, StoreBusy, StoreError, TopupError
from topup.domain.lifecycle import MONEY_OUT, TERMINAL, State, TopUp
from topup.domain.notes import DAEMON, Note
from topup.domain.policy import Why, remedy
from topup.domain.reasons import Reason
from topup.ledger.store import SqliteStore
from topup.payment.config import PassResult, PurchaseOrder
from topup.payment.cycle import Cycle
from topup.ports.account import Clock, Sink
from topup.ports.ledger import Requested, Told, Wish

T = TypeVar("T")
ONCE = "once"
# A daemon that ends is given a moment to be restarted; it then answers, or goes on with what is open.
DAEMON_GONE_S = 3
# How often the ledger is looked at while another process has it.
LOOK_S = 0.5
# How long a pass that was cancelled may take to end.
CANCEL_S = 5
FINAL = (Exit.OK, Exit.PERSON)
NOTHING_OUT = "nothing of this wish is out, and nobody acts on it any more"
# What a shell calls the end by a Ctrl-C.
INTERRUPTED = 130


@dataclass(frozen=True)
class Ending:
    """What became of a wish, as far as this command knows it in the end."""

    code: int
    outcome: str
    why: str
    detail: str
    asked: Requested | None = None
    topup: TopUp | None = None
    balance: str | None = None
    # It was over before this command came, which has only told of it.
    repeated: bool = False
    remedy: str = ""
    # What a person reads, where that is not outcome and detail.
    text: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a JSON-ready document."""
        asked = self.asked
        return {
            "schema": 1,
            "outcome": self.outcome,
            "why": self.why,
            "detail": self.detail,
            "remedy": self.remedy,
            "balance_usd": self.balance,
            "topup": topup_document(self.topup) if self.topup is not None else None,
            "exit_code": self.code,
            "request_id": asked.name if asked is not None else None,
            "wish": asked.number if asked is not None else None,
            "wished_ms": asked.at_ms if asked is not None else None,
            "repeated": self.repeated,
        }

    def line(self) -> str:
        """Return it for a terminal."""
        return self.text or f"{self.outcome}: {self.detail}"


class Stopped(Exception):
    """The time is over, or somebody has asked this command to stop."""


class Young(Exception):
    """What the wish needs has to wait for longer than this command does."""


class Once:
    """One command, from its wish to its ending."""

    def __init__(
        self,
        settings: Settings,
        wish: Wish,
        *,
        timeout_s: int,
        clock: Clock,
        sink: Sink,
        warn: Callable[[str], None],
        agreed: bool,
    ) -> None:
        """Begin to count the time; `warn` tells a person what is waited for. Nothing is bought that is not `agreed`."""
        self._settings, self._wish, self._timeout_s, self._agreed = settings, wish, timeout_s, agreed
        self._clock, self._sink, self._warn = clock, sink, warn
        self._account = settings.account
        self._young_s = assembly.pace(settings).young_s
        self._began_ms = clock.monotonic_ms()
        self._stop = asyncio.Event()
        self._beat = RunBeat(settings.notify.heartbeat_url, clock)
        # The wish's number, once it is in the ledger.
        self._number: int | None = None
        self._warned: set[str] = set()

    async def run(self) -> Ending:
        """Have the wish fulfilled by whoever holds the ledger; an error's code says whether money may have moved.

        The heartbeat hears of it where no other process holds the ledger: beside a daemon it is the daemon's.
        """
        try:
            ending = await self._fulfilled()
        except Exception as error:
            await self._beat.fail(error, self._settings.state_dir)
            raise
        await self._beat.end(ending.code)
        return ending

    async def _fulfilled(self) -> Ending:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(self._stop.set)

        with signals.Heard(stop):
            while True:
                try:
                    store = SqliteStore.open_writer(self._settings.state_dir, ONCE)
                except StoreBusy:
                    if not SqliteStore.held(self._settings.state_dir):
                        raise  # what keeps it is no topup, and will not end by itself
                    ending = await self._beside()
                else:
                    for said in store.mended:
                        self._warn(f"topup: {said}")
                    ending = await self._holding(store)
                if ending is not None:
                    return ending

    # -- time and signals ---------------------------------------------------------------------------------------

    def _left_s(self) -> float:
        return max(0.0, self._timeout_s - (self._clock.monotonic_ms() - self._began_ms) / 1000)

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait as long as there is time and nobody says stop; what is cancelled then is as safe as after a crash."""
        working = asyncio.create_task(work)
        others: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._clock.sleep(self._left_s())),
        }
        try:
            await asyncio.wait({working, *others}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait({working}, timeout=CANCEL_S)
            raise Stopped
        finally:
            for other in others:
                other.cancel()

    def _why_stopped(self) -> tuple[int, str]:
        """Return exit code and words for an end before the end, where nothing of the wish is out."""
        came = signals.first() if self._stop.is_set() else None
        if came is None:
            return Exit.LATER, f"nothing came of it within {self._timeout_s} s (--timeout)"
        return (INTERRUPTED if came is signal.SIGINT else Exit.LATER), f"stopped by {came.name}"

    # -- the wish -----------------------------------------------------------------------------------------------

    def _now(self, store: SqliteStore) -> int:
        return store.now_ms(self._clock.now_ms())

    def _row(self, store: SqliteStore) -> Requested:
        """Return the wish as it stands; the first time it is stored, or found to repeat an earlier one."""
        if self._number is None:
            now = self._now(store)
            until_ms = now + int(self._left_s() * 1000)
            self._number = store.wish(self._account, self._wish, now, until_ms).number
        return store.requested(self._number)

    def _topup(self, store: SqliteStore, asked: Requested) -> TopUp | None:
        """Return the top-up that decides what becomes of a wish; for one without amount it may be another's."""
        own = store.bought(asked.number)
        if own is None and asked.code is None and asked.topup_id is not None:
            other = store.topup(asked.topup_id)
            own = other if other.wish != asked.number else None
        return own

    def _ending(self, store: SqliteStore, code: int, rest: PassResult, **more: Any) -> Ending:
        last = store.last_reading(self._account)
        balance = str(last.balance) if last is not None else None
        asked = self._row(store)
        bought = code == Exit.MONEY_MAY_HAVE_MOVED or (rest.topup is not None and code == Exit.OK)
        more["remedy"] = more.get("remedy") or rest.remedy or ("" if bought else remedy(rest.why))
        return Ending(int(code), rest.outcome, rest.why, rest.detail, asked, rest.topup, balance, **more)

    def _withdrawn(self, store: SqliteStore, code: int, detail: str) -> Ending:
        return self._ending(store, code, PassResult("unknown", Reason.WITHDRAWN, detail, 0))

    def _settled(self, store: SqliteStore, asked: Requested, code: Exit, *, repeated: bool) -> Ending:
        topup = self._topup(store, asked)
        word, _, detail = (asked.outcome or "").partition(": ")
        why = asked.why
        if repeated and topup is not None:
            word, why = topup.state.value, topup.reason or topup.why
            detail = f"{topup.amount} dollars, {topup.id}: this wish was carried out before; nothing new was bought"
        elif repeated:
            detail = f"{detail}; this is what became of it the first time"
        else:
            detail = asked.outcome or detail
        text = f"{word}: {detail}" if repeated else asked.outcome or ""
        if topup is not None and not repeated:
            told = asked.outcome or ""  # what a daemon said of it says why it was dropped, too
            text = told if told.startswith(f"{topup.state}: ") else f"{topup.state}: {topup.amount} dollars"
        to_do = "a new wish needs a --request-id of its own" if repeated and asked.name is not None else ""
        return self._ending(
            store, code, PassResult(word, why, detail, 0, topup), repeated=repeated, text=text, remedy=to_do
        )

    # -- beside another process ---------------------------------------------------------------------------------

    async def _beside(self) -> Ending | None:
        """Follow the wish while another process holds the ledger; None when this one should try to hold it."""
        if not SqliteStore.exists(self._settings.state_dir):
            return await self._while_it_is_made()
        alone_s, arrived = 0.0, self._number is None
        try:
            reader = SqliteStore.open_reader(self._settings.state_dir)
        except StoreBusy as error:
            # Its files were removed: this wish, or an earlier command's, may stand in what only the other one knows.
            error.exit_code = Exit.MONEY_MAY_HAVE_MOVED
            raise
        with contextlib.closing(reader) as store:
            if self._number is None and SqliteStore.writer(self._settings.state_dir) == DAEMON:
                self._served_there(store)
                if not self._agreed:
                    detail = "the running daemon buys what is due; --yes, or a yes at a terminal, asks it for more"
                    return Ending(int(Exit.OK), "held", Why.NOT_AGREED, detail)
            try:
                while True:
                    asked = self._row(store)
                    code = payment_status(asked, self._topup(store, asked))
                    if code is not None:
                        return self._settled(store, asked, code, repeated=arrived and code in FINAL)
                    if asked.withdrawn:
                        return self._withdrawn(store, Exit.LATER, "withdrawn by its twin")
                    arrived, daemon = False, SqliteStore.writer(self._settings.state_dir) == DAEMON
                    if SqliteStore.held(self._settings.state_dir):
                        alone_s = 0.0
                        self._say_for_whom(daemon=daemon)
                    elif not daemon or alone_s > DAEMON_GONE_S:
                        return self._abandoned() if daemon else None
                    else:
                        alone_s += LOOK_S
                    await self._within(self._clock.sleep(LOOK_S))
            except Stopped:
                return self._left_beside(store)

    def _served_there(self, store: SqliteStore) -> None:
        """Refuse a wish for an account that the daemon does not serve: it would wait for ever."""
        served = store.told("", Note.SERVES)
        if served not in (None, self._account) and SqliteStore.held(self._settings.state_dir):
            raise SettingsError(
                f"the running daemon serves the account {served}, and not {self._account}",
                remedy="give each account a state_dir of its own, or correct account",
            )

    async def _while_it_is_made(self) -> Ending | None:
        """Wait a moment while another process makes the ledger; nothing can have been asked of it yet."""
        try:
            await self._within(self._clock.sleep(LOOK_S))
        except Stopped:
            code, words = self._why_stopped()
            return Ending(int(code), "unknown", Reason.WITHDRAWN, f"{words}; nothing was asked for yet")
        return None

    def _say_for_whom(self, *, daemon: bool) -> None:
        told = (
            "the running daemon does it; following"
            if daemon
            else "another topup command holds the ledger; waiting for its end, then this one acts itself"
        )
        if told not in self._warned:
            self._warned.add(told)
            self._warn(f"topup: {told}")

    def _left_beside(self, store: SqliteStore) -> Ending:
        """Leave before the wish is over, with the other process still there: one of the two has it from now on."""
        code, words = self._why_stopped()
        asked = self._row(store)
        if store.withdraw_request(asked.number, self._now(store)):
            return self._withdrawn(store, code, f"{words}; {NOTHING_OUT}")
        settled = payment_status(self._row(store), self._topup(store, asked))
        if settled in FINAL:
            return self._settled(store, self._row(store), settled, repeated=False)
        detail = f"{words}; the daemon has taken the wish and goes on with it: see `topup status`"
        rest = PassResult("following", Reason.TAKEN, detail, 0, self._topup(store, asked))
        return self._ending(store, Exit.MONEY_MAY_HAVE_MOVED, rest)

    def _abandoned(self) -> Ending | None:
        """Leave when the daemon is gone that was to do it; None when another has come instead."""
        try:
            store = SqliteStore.open_writer(self._settings.state_dir, ONCE)
        except StoreBusy:
            return None
        with contextlib.closing(store):
            return self._left(store, Exit.LATER, "the daemon is gone")

    # -- with the ledger in hand --------------------------------------------------------------------------------

    async def _holding(self, store: SqliteStore) -> Ending:
        """Act on the wish: nobody else can, as long as this process holds the ledger."""
        self._beat.begin()
        sink = Alarms(self._sink, store, self._account, self._clock)
        async with (
            opened(self._settings, store, sink, self._clock) as connections,
            telling(self._settings, store, self._clock, self._sink),
        ):
            connections.agreed = self._agreed
            cycle, asked = connections.cycle, self._row(store)
            settled = payment_status(asked, self._topup(store, asked))
            if settled in FINAL:
                return self._settled(store, asked, settled, repeated=True)
            if not store.take_request(asked.number, self._now(store)) and self._topup(store, asked) is None:
                return self._withdrawn(store, Exit.LATER, "withdrawn by its twin")
            return await self._act(cycle, store)

    async def _act(self, cycle: Cycle, store: SqliteStore) -> Ending:
        asked, earlier = self._row(store), store.open_topup(self._account)
        other = earlier if earlier is not None and earlier.wish != asked.number else None
        try:
            try:
                rest, code = await self._passes(cycle, asked)
            except Young:
                rest, code = await self._when_young(cycle, store, other)
        except Stopped:
            return self._left(store, *self._why_stopped())
        except Exception as error:
            # Whatever went wrong, it is the money that says whether trying again is safe.
            if self._left(store, Exit.LATER, "the pass failed").code == Exit.MONEY_MAY_HAVE_MOVED:
                error.exit_code = Exit.MONEY_MAY_HAVE_MOVED  # type: ignore[attr-defined]
            raise
        if other is not None and asked.amount is not None and code in (Exit.OK, Exit.LATER):
            detail = f"{other.id}, begun earlier, is {rest.outcome}; nothing new was bought"
            rest, code = replace(rest, outcome="resumed", detail=detail), Exit.LATER
        return self._over(store, rest, code)

    async def _passes(self, cycle: Cycle, asked: Requested) -> tuple[PassResult, Exit]:
        rest = await self._within(cycle.run(PurchaseOrder(asked.amount, asked.forced, asked.number)))
        while (topup := rest.topup) is not None and topup.state not in TERMINAL:
            if topup.state in (State.HALTED, State.UNCREDITED):
                return rest, Exit.MONEY_MAY_HAVE_MOVED
            if topup.state not in MONEY_OUT:
                if rest.why == Reason.YOUNG_LEDGER and self._young_left_s() > self._left_s():
                    raise Young
                if rest.why not in PASSING:
                    return rest, Exit.PERSON
            await self._within(self._clock.sleep(rest.next_s))
            rest = await self._within(cycle.run())
        return rest, outcome_exit(rest, wanted=asked.amount is not None)

    def _young_left_s(self) -> float:
        return self._young_s - (self._clock.monotonic_ms() - self._began_ms) / 1000

    async def _when_young(self, cycle: Cycle, store: SqliteStore, other: TopUp | None) -> tuple[PassResult, Exit]:
        """Decide anew what a person asks this very process for; whatever else has to watch a while is left to others.

        What was decided by an earlier process, and never sent, has to wait as long as anything: a purchase that is
        asked for now has not.
        """
        asked = self._row(store)
        if other is None and (asked.amount is not None or asked.forced):
            self._let_go(store, Told("unknown: decided anew", Reason.YOUNG_LEDGER, int(Exit.LATER)))
            now = self._now(store)
            # With the amount and the name that are stored, so that the ledger finds this very row again.
            same = replace(self._wish, amount=asked.amount, name=asked.name)
            store.wish(self._account, same, now, asked.until_ms)
            if store.take_request(asked.number, now):
                try:
                    return await self._passes(cycle, asked)
                except Young:
                    # What is decided anew waits as well where time was lost since the wish was made.
                    detail = (
                        "time has gone by that no process lived through, as on a machine that was put back, and this"
                        f" wish may have been bought in it: wait for {self._young_s} s (rails.young_s), and look at"
                        " the account's credits before you wish for it again"
                    )
                    return PassResult("held", Reason.YOUNG_LEDGER, detail, 0), Exit.PERSON
        left = int(self._young_left_s())
        detail = (
            f"a process that buys by mpp or x402 on its own first watches for {self._young_s} s (rails.young_s), and"
            f" {left} s of that are more than --timeout leaves: let `topup run` do it, say what to buy with --amount,"
            " or use --force when you know that nothing is out"
        )
        return PassResult("held", Reason.YOUNG_LEDGER, detail, 0), Exit.PERSON

    # -- the end ------------------------------------------------------------------------------------------------

    def _over(self, store: SqliteStore, rest: PassResult, code: Exit) -> Ending:
        asked = self._row(store)
        told = Told(f"{rest.outcome}: {rest.detail}", rest.why, int(code), rest.topup.id if rest.topup else None)
        if code is Exit.OK:
            store.answer_request(asked.number, told, self._now(store))
        elif code is not Exit.MONEY_MAY_HAVE_MOVED:
            stuck = self._let_go(store, told)
            if stuck is not None:
                rest, code = replace(rest, topup=stuck), Exit.MONEY_MAY_HAVE_MOVED
            elif rest.topup is not None:
                rest = replace(rest, topup=store.topup(rest.topup.id))
        return self._ending(store, code, rest)

    def _let_go(self, store: SqliteStore, told: Told) -> TopUp | None:
        """End the wish unless something of it is out; return what is."""
        asked = self._row(store)
        before = store.bought(asked.number)
        stuck = store.let_go(asked.number, told, self._now(store))
        if before is not None and stuck is None and before.state not in TERMINAL:
            self._sink.emit(events.TopUpDropped(topup_id=before.id, reason=Reason.WITHDRAWN, detail=told.outcome))
        return stuck

    def _left(self, store: SqliteStore, code: int, words: str) -> Ending:
        """Leave before the wish is over, with the ledger in hand: drop what was never sent, or say that it is out."""
        try:
            asked = self._row(store)
            settled = payment_status(asked, self._topup(store, asked))
            if settled in FINAL:
                return self._settled(store, asked, settled, repeated=False)
            stuck = self._let_go(store, Told(f"unknown: {words}", Reason.WITHDRAWN, int(Exit.LATER)))
            unfinished = stuck or store.open_topup(self._account)
            if unfinished is not None and (stuck is not None or unfinished.out):
                detail = f"{words}; {unfinished.id} is {unfinished.state} and is followed up: see `topup status`"
                rest = PassResult("following", unfinished.state.value, detail, 0, unfinished)
                return self._ending(store, Exit.MONEY_MAY_HAVE_MOVED, rest)
            return self._withdrawn(store, code, f"{words}; {NOTHING_OUT}")
        except StoreError as error:
            detail = f"{words}, and the ledger does not take that: {error}; see `topup status`"
            return Ending(int(Exit.MONEY_MAY_HAVE_MOVED), "unknown", "store", detail)


def payment_status(asked: Requested, topup: TopUp | None) -> Exit | None:
    """Return the exit code of a wish by what is stored of it; None while that is open."""
    if topup is None:
        return Exit(asked.code) if asked.code is not None else None
    if topup.state in (State.HALTED, State.UNCREDITED):
        return Exit.MONEY_MAY_HAVE_MOVED
    if topup.state not in TERMINAL:
        return None
    return outcome_exit(PassResult(topup.state.value, topup.reason, "", 0))


def remember(settings: Settings, ending: Ending, *, reached: bool) -> None:
    """Store that whoever asked has been told, so that the same command again is a new wish.

    A purchase whose result has not reached its reader is told of once more; anything else would be asked for ever.
    """
    if ending.asked is None:
        return
    bought = ending.code == Exit.OK and ending.topup is not None and ending.asked.amount is not None
    if bought and not reached and not ending.repeated:
        return
    with contextlib.suppress(TopupError), contextlib.closing(SqliteStore.open_reader(settings.state_dir)) as store:
        store.tell_request(ending.asked.number, ending.code)


def unbegun(settings: Settings, wish: Wish, clock: Clock) -> int:
    """Return the exit code for a command that is stopped before it has begun: an earlier one may have."""
    came = signals.first()
    code = INTERRUPTED if came in (None, signal.SIGINT) else Exit.LATER
    if not SqliteStore.exists(settings.state_dir):
        return code
    with contextlib.closing(SqliteStore.open_reader(settings.state_dir)) as store:
        now = store.now_ms(clock.now_ms())
        earlier = store.earlier(settings.account, wish, now)
        if earlier is None or store.withdraw_request(earlier.number, now):
            return code
    return Exit.MONEY_MAY_HAVE_MOVED
