"""Does the process get on, and how did its passes end? Kept by the daemon's loop, read by threads beside it."""

from typing import Final

from topup.accounting.standing import Passes
from topup.ports.account import Clock
from topup.wire.clock import SystemClock

# A pass that has asked nothing for so long is stuck: the settings let no single answer take longer.
STUCK_MS: Final = 300_000
# Nor does a pass take as long as this, whatever it asks: each of its parts is bounded.
PASS_MS_MAX: Final = 1_800_000
# The next pass has ended by so long after it was due, or it is late.
LATE_MS: Final = STUCK_MS


class Pulse:
    """Whether a pass gets on: it has asked something lately, and has not taken too long altogether."""

    def __init__(self, asked: int, now_ms: int) -> None:
        self._asked = asked
        self._begun_ms = self._moved_ms = now_ms

    def beats(self, asked: int, now_ms: int) -> bool:
        """Tell it; `asked` counts the questions so far."""
        if asked != self._asked:
            self._asked, self._moved_ms = asked, now_ms
        return self.lives(now_ms)

    def lives(self, now_ms: int) -> bool:
        """Tell it by the questions that were counted last."""
        return now_ms - self._moved_ms < STUCK_MS and now_ms - self._begun_ms < PASS_MS_MAX


class Vitals:
    """The life of the passes, by the machine's own time.

    The daemon's loop writes, and each thing that it writes is one value: a thread that reads meanwhile sees it as it
    was, or as it is.
    """

    def __init__(self, time: Clock | None = None) -> None:
        """Begin with the process, whose first pass is due at once."""
        self.time = time or SystemClock()
        self.passes = Passes()
        self._due_ms = self._seen_ms = self.time.monotonic_ms()
        self._pulse: Pulse | None = None

    def begins(self, asked: int) -> None:
        """A pass begins; `asked` counts the questions so far."""
        self._pulse = Pulse(asked, self.time.monotonic_ms())

    def beats(self, asked: int) -> bool:
        """Tell whether the pass gets on."""
        return self._pulse is None or self._pulse.beats(asked, self.time.monotonic_ms())

    def ends(self, wait_s: int, *, well: bool) -> None:
        """A pass has ended, and the next one comes after so long."""
        now, before = self.time.now_ms(), self.passes
        self.seen()
        self._due_ms, self._pulse = self._seen_ms + wait_s * 1000, None
        self.passes = Passes(
            ended=before.ended + 1,
            failed=before.failed + (not well),
            failing=not well,
            well_ms=now if well else before.well_ms,
            due_ms=now + wait_s * 1000,
        )

    def seen(self) -> None:
        """The loop goes round."""
        self._seen_ms = self.time.monotonic_ms()

    def stuck(self) -> str:
        """Say in a word what hangs; "" where nothing does. Any thread may ask."""
        pulse, now = self._pulse, self.time.monotonic_ms()
        if pulse is not None:
            return "" if pulse.lives(now) else "pass_stuck"
        return "" if now - self._seen_ms < STUCK_MS else "loop_stuck"

    def unfit(self) -> str:
        """Say in a word why the last pass tells nothing of the account now; "" where it does. Any thread may ask."""
        passes = self.passes
        if not passes.ended:
            return "no_pass_yet"
        if passes.failing:
            return "pass_failed"
        return "pass_late" if self.time.monotonic_ms() - self._due_ms > LATE_MS else ""
