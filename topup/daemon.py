"""When does the next pass run, and how does the program stop? Wake, cycle, sleep; signals and the watchdog.

Every pass is a resume: what a stop, a crash or an error interrupts is stored and goes on with the next pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from topup import events
from topup.clock import SystemClock
from topup.credits import LASTING
from topup.cycle import Cycle
from topup.errors import Exit, StoreFenced, TopupError
from topup.lifecycle import MONEY_OUT, TERMINAL, State, TopUp
from topup.ports import Clock, Requested, Sink, Store
from topup.terms import Asked, Rest

# How long a pass may go on after a request to stop: the longest wait for one answer, and then some.
PARK_S = 30
# The daemon looks this often for requests of other commands while it sleeps.
GLANCE_S = 1
ERROR_WAIT_S = 30
DEFECTS_MAX = 3
# While a pass gets on, the watchdog hears of it so often.
BEAT_S = 5
# One that has asked nothing for so long is stuck: the settings let no single answer take longer.
STUCK_MS = 300_000
# Nor does a pass take as long as this, whatever it asks: each of its parts is bounded.
PASS_MS_MAX = 1_800_000
# A request nobody took within this time is not carried out any more: whoever made it has long gone.
REQUEST_LIFE_MS = 120_000


@dataclass(frozen=True)
class Heart:
    """systemd's notification socket; silent when there is none."""

    address: str | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Heart:
        """Read NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET"))

    def say(self, *lines: str) -> None:
        """Send READY=1, WATCHDOG=1 and the like (sd_notify(3)); a supervisor that is gone is no error."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(address)
            out.sendall("\n".join(lines).encode())


class Pulse:
    """Whether a pass gets on: it has asked something lately, and has not taken too long altogether."""

    def __init__(self, asked: int, now_ms: int) -> None:
        """Begin with the pass."""
        self._asked = asked
        self._begun_ms = self._moved_ms = now_ms

    def beats(self, asked: int, now_ms: int) -> bool:
        """Tell it; `asked` counts the questions so far."""
        if asked != self._asked:
            self._asked, self._moved_ms = asked, now_ms
        return now_ms - self._moved_ms < STUCK_MS and now_ms - self._begun_ms < PASS_MS_MAX


class Daemon:
    """Passes over one account until somebody says stop."""

    def __init__(
        self,
        cycle: Cycle,
        store: Store,
        clock: Clock,
        sink: Sink,
        account: str,
        heart: Heart,
        *,
        glance_s: int = GLANCE_S,
    ) -> None:
        """Join what runs; nothing runs yet. While it sleeps it looks for requests every `glance_s` seconds."""
        self._cycle = cycle
        self._store = store
        self._clock = clock
        self._sink = sink
        self._account = account
        self._heart = heart
        self._glance_s = glance_s
        self._stop = asyncio.Event()
        self._defects = 0

    def stop(self, by: str) -> None:
        """Ask for a stop; the running pass is given time to park."""
        if not self._stop.is_set():
            self._stop.set()
            unfinished = self._unfinished()
            self._sink.emit(events.Stopping(signal=by, open_topup=unfinished.id if unfinished is not None else None))
            self._heart.say("STOPPING=1")

    def listen(self) -> None:
        """Stop on SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number.name)

    async def run(self) -> Exit:
        """Make passes until stopped; return the exit code."""
        self._heart.say("READY=1")
        with contextlib.suppress(TopupError):  # whatever is wrong there shows in the passes as well
            await self._cycle.stand()
        while not self._stop.is_set():
            passing = asyncio.create_task(self._pass())
            beating = asyncio.create_task(self._beat())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({passing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                # Cancelling is as safe as a crash, and a crash is safe; parking is only tidier.
                await asyncio.wait({passing}, timeout=PARK_S)
                passing.cancel()
            stopping.cancel()
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                wait_s = await passing
                if wait_s is None:
                    return Exit.INTERNAL
                await self._sleep(wait_s)
        return Exit.OK

    async def _pass(self) -> int | None:
        """Make one pass; return how long to wait, or None when this process should end."""
        self._heart.say("WATCHDOG=1")
        asked: Requested | None = None
        try:
            asked = self._take()
            rest = await self._cycle.run(Asked(asked.amount, asked.forced) if asked is not None else None)
            self._defects = 0
            if asked is not None:
                self._answer(asked, f"{rest.outcome}: {rest.detail}", rest.topup)
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
        return rest.next_s

    async def _beat(self) -> None:
        """Tell the watchdog, in the machine's own time, that the pass gets on; and nothing once it does not."""
        if self._heart.address is None:
            return
        time = SystemClock()
        pulse = Pulse(self._cycle.asked, time.monotonic_ms())
        while True:
            await time.sleep(BEAT_S)
            if pulse.beats(self._cycle.asked, time.monotonic_ms()):
                self._heart.say("WATCHDOG=1")

    def _take(self) -> Requested | None:
        """Take the oldest request, at most once: what was taken and never answered died with its process."""
        asked = self._store.next_request(self._account)
        if asked is None:
            return None
        now = self._store.now_ms(self._clock.now_ms())
        unfinished = self._store.open_topup(self._account)
        if asked.taken:
            self._answer(asked, "unknown: the daemon was restarted while it worked on this; see `topup status`", None)
        elif now - asked.at_ms > REQUEST_LIFE_MS:
            self._answer(asked, "unknown: nobody was there to do it in time; nothing was bought", None)
        elif unfinished is not None and asked.amount is not None:
            self._answer(asked, f"held: {unfinished.id} is not finished; nothing new was bought", None)
        else:
            self._store.take_request(asked.number, now)
            return asked
        return None

    def _answer(self, asked: Requested, outcome: str, topup: TopUp | None) -> None:
        now = self._store.now_ms(self._clock.now_ms())
        self._store.answer_request(
            asked.number, outcome=outcome, topup=topup.id if topup is not None else None, at_ms=now
        )

    def _give_up(self, asked: Requested | None) -> None:
        """Answer a request whose pass failed; a ledger that cannot even store that will find it taken later."""
        if asked is not None:
            with contextlib.suppress(TopupError):
                self._answer(
                    asked, "unknown: the pass failed; see the daemon's log", self._store.open_topup(self._account)
                )

    def _failed(self, error: Exception, remedy: str) -> None:
        unfinished = self._unfinished()
        kind = type(error).__name__
        self._sink.emit(
            events.CycleFailed(
                cycle=self._cycle.cycles,
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
            return self._store.open_topup(self._account)
        except TopupError:
            return None

    async def _sleep(self, seconds: int) -> None:
        """Sleep in short naps, so that a stop, a request or a watchdog never waits for the next poll."""
        until = self._clock.monotonic_ms() + seconds * 1000
        while not self._stop.is_set() and (left := until - self._clock.monotonic_ms()) > 0:
            await self._clock.sleep(min(self._glance_s, left / 1000))
            self._heart.say("WATCHDOG=1")
            with contextlib.suppress(TopupError):
                if self._store.next_request(self._account) is not None:
                    return


async def once(cycle: Cycle, store: Store, account: str, clock: Clock, asked: Asked) -> tuple[Rest, Exit]:
    """Make passes until this account needs nothing more now; return how it ended and the exit code.

    A top-up that was already open is finished first, and then nothing new is bought: whoever repeats a command that
    was interrupted wants one purchase, not two.

    Raises:
        TopupError: with the exit code that says whether money may have moved.
    """
    earlier = store.open_topup(account)
    try:
        rest = await cycle.run(asked)
        while (topup := rest.topup) is not None and topup.state not in TERMINAL:
            if topup.state in (State.HALTED, State.UNCREDITED):
                return rest, Exit.MONEY_MAY_HAVE_MOVED
            if topup.state not in MONEY_OUT and rest.why not in PASSING:
                return rest, Exit.PERSON
            await clock.sleep(rest.next_s)
            rest = await cycle.run()
    except TopupError as error:
        unfinished = store.open_topup(account)
        if unfinished is not None and unfinished.state in MONEY_OUT:
            error.exit_code = Exit.MONEY_MAY_HAVE_MOVED
        raise
    code = outcome_exit(rest, wanted=asked.amount is not None)
    if earlier is not None and asked.amount is not None:
        detail = f"{earlier.id}, begun earlier, is {rest.outcome}; nothing new was bought"
        return replace(rest, outcome="resumed", detail=detail), max(code, Exit.LATER)
    return rest, code


# Reasons to wait that pass by themselves within minutes.
PASSING = frozenset(
    {
        "chain_unknown",
        "charge_unanswered",
        "baseline_unsettled",
        "unknown",
        "stale",
        "nonce_busy",
        "plan_stale",
        "unsteady",
        "young_ledger",
    }
)


def outcome_exit(rest: Rest, *, wanted: bool = False) -> Exit:
    """Return the exit code for a pass that leaves nothing open; `wanted` when a person asked for a purchase."""
    match rest.outcome:
        case "done":
            return Exit.OK
        case "held":
            return Exit.LATER if wanted else Exit.OK
        case "dropped" if rest.why == "no_longer_needed":
            return Exit.OK
        case "unknown":
            return Exit.PERSON if rest.why in LASTING else Exit.LATER
        case _:
            return Exit.PERSON


def request_exit(asked: Requested, topup: TopUp | None) -> Exit | None:
    """Return the exit code of a request handed to the daemon; None while it is not decided."""
    if asked.outcome is None:
        return None
    word, _, detail = asked.outcome.partition(": ")
    if topup is None:
        return outcome_exit(Rest(word, "", detail, 0), wanted=asked.amount is not None)
    if topup.state in (State.HALTED, State.UNCREDITED):
        return Exit.MONEY_MAY_HAVE_MOVED
    if topup.state not in TERMINAL:
        return None
    return outcome_exit(Rest(topup.state.value, topup.reason, detail, 0))


def abandoned(unfinished: TopUp | None) -> Exit:
    """Return the exit code of a request whose daemon is gone: what it left open says whether money may be out."""
    out = unfinished is not None and unfinished.state in MONEY_OUT
    return Exit.MONEY_MAY_HAVE_MOVED if out else Exit.LATER
