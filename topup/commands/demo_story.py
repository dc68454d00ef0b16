"""When is the story of a daemon in the sandbox over, and how did it end?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from topup.commands.story import sentence
from topup.domain import events
from topup.domain.credits import LASTING
from topup.domain.events import Event

# What repeats so often is the result.
REPEATS: Final = 3
PATIENCE_AFTER_LATE_S: Final = 300


@dataclass
class Follower:
    """A sink that follows the run, tells it, and knows when it is over."""

    now_s: Callable[[], int]
    say: Callable[[str], None]
    first_reading: Callable[[], None]
    spend: Callable[[], None]
    rail: str = "coinbase"
    seen: list[Event] = field(default_factory=list)
    result: str | None = None
    dipped_s: int | None = None
    posted_s: int | None = None
    late_s: int | None = None
    lasting: bool = False
    refills: int = 1
    _in_a_row: dict[str, int] = field(default_factory=dict)

    def emit(self, event: Event) -> None:  # noqa: C901, PLR0912 - a table of events, read top to bottom
        """Take one event of the daemon."""
        self.seen.append(event)
        line = sentence(event, self.rail)
        if line:
            self.say(line)
        match event:
            case events.ReadingTaken():
                self._in_a_row.pop("unknown", None)
                self.first_reading()
            case events.ReadingUnknown():
                self.lasting = event.doubt in LASTING
            case events.CycleDone(outcome="unknown"):
                self._again("unknown")
            case events.CycleDone(state="charged") | events.ChargeUnanswered() | events.PaymentUnseen():
                self._again("waiting")
            case events.CycleFailed():
                self._again("failed")
            case events.TopUpForbidden():
                self._end("forbidden")
            case events.TopUpHalted():
                self._end("halted")
            case events.TopUpDropped():
                self._end("gone" if event.reason == "endpoint_gone" else "refused")
            case events.TopUpDecided():
                self.dipped_s = self.dipped_s or self.now_s()
            case events.PaidNotCredited():
                self.late_s = self.now_s()
            case events.CreditsPosted():
                self.posted_s = self.now_s()
            case events.TopUpDone() if self.refills > 1:
                self.refills -= 1
                self.spend()
            case events.TopUpDone():
                self._end("refilled")
        if self.late_s is not None and self.posted_s is None and self.now_s() - self.late_s > PATIENCE_AFTER_LATE_S:
            self._end("uncredited")

    @property
    def took_s(self) -> int | None:
        """Return how long it took from the decision to the credits; None where either did not come."""
        return None if self.posted_s is None or self.dipped_s is None else self.posted_s - self.dipped_s

    def _again(self, result: str) -> None:
        self._in_a_row[result] = self._in_a_row.get(result, 0) + 1
        if self._in_a_row[result] >= REPEATS:
            self._end(result)

    def _end(self, result: str) -> None:
        self.result = self.result or result
