"""When does the next pass run, and how does the program stop? Wake, cycle, sleep; signals and the watchdog.

Every pass is a resume: what a stop, a crash or an error interrupts is stored and goes on with the next pass.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from topup.app.pulse import Vitals
from topup.domain import events
from topup.domain.credits import LASTING
from topup.domain.errors import Exit, StoreFenced, TopupError
from topup.domain.lifecycle import State, TopUp
from topup.domain.policy import Why
from topup.domain.reasons import Reason
from topup.payment.config import PassResult, PurchaseOrder
from topup.payment.cycle import Cycle
from topup.ports.account import Clock, Sink
from topup.ports.ledger import Requested, Told, Wishes
from topup.wire.clean import clean
from topup.wire.heartbeat import Heartbeat

T = TypeVar("T")
# How long a pass may go on after a request to stop: the longest wait for one answer, and then some.
PARK_S = 30
# The daemon looks this often for requests of other commands while it sleeps.
GLANCE_S = 1
ERROR_WAIT_S = 30
DEFECTS_MAX = 3
# While a pass gets on, the watchdog hears of it so often.
BEAT_S = 5
# So much of a sentence does `systemctl status` show on one line.
STATUS_MAX = 160


@dataclass(frozen=True)
class SdNotify:
    """systemd's notification socket, as NOTIFY_SOCKET names it; silent when there is none."""

    address: str | None

    def say(self, *lines: str) -> None:
        """Send READY=1, WATCHDOG=1 and the like (sd_notify(3)); one that is gone or reads no more is no error."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # no pass waits for a supervisor that has stopped reading
            out.connect(address)
            out.sendall("\n".join(lines).encode())


@dataclass(eq=False)
class Daemon:
    """Passes over one account until somebody says stop; asleep it looks for requests every `glance_s` seconds."""

    cycle: Cycle
    store: Wishes
    clock: Clock
    sink: Sink
    account: str
    supervisor: SdNotify
    glance_s: int = field(default=GLANCE_S, kw_only=True)
    heartbeat: Heartbeat | None = field(default=None, kw_only=True)
    vitals: Vitals = field(default_factory=Vitals, kw_only=True)
    _stop: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _defects: int = field(default=0, init=False)

    def stop(self, by: str) -> None:
        """Ask for a stop; the running pass is given time to park."""
        if not self._stop.is_set():
            self._stop.set()
            unfinished = self._unfinished()
            self.sink.emit(events.Stopping(signal=by, open_topup=unfinished.id if unfinished is not None else None))
            self.supervisor.say("STOPPING=1")

    def listen(self) -> None:
        """Stop on SIGTERM and SIGINT; on SIGHUP go on, and say so."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.sink.emit(events.HangUpIgnored()))

    async def run(self) -> Exit:
        """Make passes until stopped; return the exit code."""
        self.supervisor.say("READY=1")
        standing = await self._unless_stopped(self.cycle.stand(), 0)
        # Whatever is wrong there shows in the passes as well.
        with contextlib.suppress(TopupError, asyncio.CancelledError):
            await standing
        while not self._stop.is_set():
            beating = asyncio.create_task(self._beat())
            passing = await self._unless_stopped(self._pass(), PARK_S)
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                wait_s = await passing
                if wait_s is None:
                    return Exit.INTERNAL
                await self._sleep(wait_s)
        return Exit.OK

    async def _unless_stopped(self, work: Coroutine[Any, Any, T], park_s: int) -> asyncio.Task[T]:
        """Return the work when it is done, or cancelled `park_s` seconds after a request to stop."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            # Cancelling is as safe as a crash, and a crash is safe; parking is only tidier.
            await asyncio.wait({working}, timeout=park_s)
            working.cancel()
        stopping.cancel()
        return working

    async def _pass(self) -> int | None:
        """Make one pass; return how long to wait, or None when this process should end."""
        self.supervisor.say("WATCHDOG=1")
        self.vitals.begins(self.cycle.asked)
        asked: Requested | None = None
        if self.heartbeat is not None:
            self.heartbeat.began()
        try:
            asked = self._take()
            wish = PurchaseOrder(asked.amount, asked.forced, asked.number) if asked is not None else None
            rest = await self.cycle.run(wish)
            self._defects = 0
            if asked is not None:
                code = outcome_exit(rest, wanted=asked.amount is not None)
                self._answer(asked, f"{rest.outcome}: {rest.detail}", rest.why, rest.topup, code)
        except StoreFenced as error:
            self._failed(error, error.remedy)
            return None
        except TopupError as error:
            self._failed(error, error.remedy)
            self._give_up(asked)
            return ERROR_WAIT_S
        except Exception as error:  # noqa: BLE001 - a defect: say it, try again, and give up rather than spin
            self._defects += 1
            self._failed(error, "report it; what is open is stored")
            self._give_up(asked)
            return ERROR_WAIT_S if self._defects < DEFECTS_MAX else None
        self.supervisor.say(f"STATUS={clean(f'{rest.outcome}: {rest.detail or rest.why}', STATUS_MAX)}")
        if self.heartbeat is not None:
            self.heartbeat.ended(well=rest.topup is None or rest.topup.state not in (State.HALTED, State.UNCREDITED))
        self.vitals.ends(rest.next_s, well=True)
        return rest.next_s

    async def _beat(self) -> None:
        """Tell the watchdog, in the machine's own time, that the pass gets on; and nothing once it does not."""
        while True:
            await self.vitals.time.sleep(BEAT_S)
            if self.vitals.beats(self.cycle.asked):
                self.supervisor.say("WATCHDOG=1")

    def _take(self) -> Requested | None:
        """Take the oldest wish that may still be begun with.

        One that was taken before is that of a process which ended over it. What was decided for it is followed;
        where nothing was, and whoever asked may still be waiting, it is carried out now. Nobody has been told that it
        is safe to ask again: that follows only a withdrawal, and what is withdrawn is not found here.
        """
        asked = self.store.next_request(self.account)
        if asked is None:
            return None
        now = self.store.now_ms(self.clock.now_ms())
        begun, unfinished = self.store.bought(asked.number), self.store.open_topup(self.account)
        if begun is not None:
            self._answer(asked, f"following: {begun.id} was decided for it before a restart", Reason.RESUMED, begun)
        elif now > asked.until_ms:
            late = "unknown: nobody was there to do it in time; nothing was bought"
            self._answer(asked, late, Reason.LATE, None)
        elif unfinished is not None and asked.amount is not None:
            held = f"held: {unfinished.id} is not finished; nothing new was bought"
            self._answer(asked, held, Why.OPEN_TOPUP.value, None)
        elif self.store.take_request(asked.number, now):
            return asked
        return None

    def _answer(self, asked: Requested, outcome: str, why: str, topup: TopUp | None, code: Exit = Exit.LATER) -> None:
        """Store what became of a wish; where there is a top-up, that decides the exit code.

        For a wish with an amount only its own counts: another's, such as one that was adopted meanwhile, would say
        "done" of what was never bought.
        """
        now = self.store.now_ms(self.clock.now_ms())
        if topup is not None and asked.amount is not None and topup.wish != asked.number:
            topup, code = None, Exit.LATER
        told = Told(outcome, str(why), int(code)) if topup is None else Told(outcome, str(why), None, topup.id)
        self.store.answer_request(asked.number, told, now)

    def _give_up(self, asked: Requested | None) -> None:
        """Answer a wish whose pass failed; where the ledger cannot even store that, it is taken once more later."""
        if asked is not None:
            with contextlib.suppress(TopupError):
                begun = self.store.bought(asked.number) or self.store.open_topup(self.account)
                self._answer(asked, "unknown: the pass failed; see the daemon's log", Reason.FAILED, begun)

    def _failed(self, error: Exception, remedy: str) -> None:
        self.vitals.ends(ERROR_WAIT_S, well=False)
        if self.heartbeat is not None:
            self.heartbeat.ended(well=False)
        unfinished = self._unfinished()
        kind = type(error).__name__
        self.sink.emit(
            events.CycleFailed(
                cycle=self.cycle.cycles,
                kind=kind,
                error=str(error)[:500] if isinstance(error, TopupError) else kind,
                remedy=remedy,
                topup_id=unfinished.id if unfinished is not None else None,
                state=unfinished.state.value if unfinished is not None else None,
            )
        )

    def _unfinished(self) -> TopUp | None:
        """Return the open top-up; a ledger that cannot be read must not hide the error that is being told."""
        try:
            return self.store.open_topup(self.account)
        except TopupError:
            return None

    async def _sleep(self, seconds: int) -> None:
        """Sleep in short naps, so that a stop, a request or a watchdog never waits for the next poll."""
        until = self.clock.monotonic_ms() + seconds * 1000
        while not self._stop.is_set() and (left := until - self.clock.monotonic_ms()) > 0:
            await self.clock.sleep(min(self.glance_s, left / 1000))
            self.supervisor.say("WATCHDOG=1")
            self.vitals.seen()
            try:
                if self.store.next_request(self.account) is not None:
                    return
            except StoreFenced:
                return  # the next pass says so, and ends this process
            except TopupError:
                pass


# Reasons to wait that pass by themselves within minutes.
PASSING = frozenset(
    {
        Reason.CHAIN_UNKNOWN,
        Reason.CHARGE_UNANSWERED,
        Reason.BASELINE_UNSETTLED,
        Why.UNKNOWN,
        Why.STALE,
        Reason.NONCE_BUSY,
        Reason.PLAN_STALE,
        Reason.UNSTEADY,
        Reason.YOUNG_LEDGER,
    }
)


def outcome_exit(rest: PassResult, *, wanted: bool = False) -> Exit:
    """Return the exit code for a pass that leaves nothing open; `wanted` when a person asked for a purchase."""
    match rest.outcome:
        case "done":
            return Exit.OK
        case "held":
            return Exit.LATER if wanted else Exit.OK
        case "dropped" if rest.why == Reason.NO_LONGER_NEEDED:
            return Exit.OK
        case "unknown":
            return Exit.PERSON if rest.why in LASTING else Exit.LATER
        case _:
            return Exit.PERSON
