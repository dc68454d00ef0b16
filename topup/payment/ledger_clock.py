"""What time is it for the ledger, and has this process lived through it?"""

from topup.domain import events
from topup.domain.lost_time import Lived
from topup.domain.notes import Note
from topup.payment.config import MPP, X402, Terms
from topup.ports.account import Clock, Sink
from topup.ports.ledger import Store

CLOCK_BEHIND_MS = 60_000


class LedgerClock:
    """Ledger time, by the machine's clock, the monotonic one and the chain's."""

    def __init__(self, terms: Terms, *, store: Store, clock: Clock, sink: Sink) -> None:
        self._account = terms.account.name
        self._store = store
        self._clock = clock
        self._sink = sink
        self._behind = False
        self._anchor: tuple[int, int] | None = None
        self._began: tuple[int, int] | None = None
        # Where sellers carry payments, what this process did not live through may have signed something.
        waits = any(route.rail in (MPP, X402) for route in terms.account.routes)
        self._lived = Lived(terms.pace.young_s) if waits and terms.pace.young_s else None

    def now(self) -> int:
        """Return ledger time: never backwards, and never standing still.

        It follows the machine's clock. While that is behind the ledger's newest time, because it was set back or had
        run ahead, ledger time goes on by the monotonic clock instead, so that nothing waits for years.
        """
        clock, mono = self._clock.now_ms(), self._clock.monotonic_ms()
        if self._anchor is None:
            self._anchor = self._began = (self._store.now_ms(clock), mono)
        ledger, then = self._anchor
        now = self._store.now_ms(max(clock, ledger + mono - then))
        # From here on, or a clock that leaps ahead and back within one run would leave ledger time standing.
        self._anchor = (now, mono)
        if self._lived is not None:
            self._leapt("machine", self._lived.wall(mono, clock))
        behind = now - clock >= CLOCK_BEHIND_MS
        if behind and not self._behind:
            self._sink.emit(events.ClockBehind(behind_s=(now - clock) // 1000))
        self._behind = behind
        return now

    def begin_pass(self) -> None:
        """Let the machine's clock be held against the monotonic one from here on."""
        if self._lived is not None:
            self.now()
            self._lived.begin(self._clock.monotonic_ms(), self._clock.now_ms())

    def heard_chain(self, time_s: int) -> None:
        """Hold the chain's clock, as enough providers show it, against the monotonic one."""
        if self._lived is not None:
            self.now()
            self._leapt("chain", self._lived.chain(self._clock.monotonic_ms(), time_s * 1000))

    def contradicted(self) -> None:
        """Count this process as young again: the chain holds what only a lost copy of this ledger can have signed."""
        self.now()
        self._leapt("ledger", 0)

    def _leapt(self, clock: str, by_ms: int | None) -> None:
        """Count this process as young again: it did not live through so much of the time."""
        if by_ms is None or self._anchor is None:
            return
        self._began = self._anchor
        # The next process has to know of it as well: it would take an old wish for one that is made now.
        self._store.say(self._account, Note.LEAPT, str(by_ms), self._anchor[0])
        self._sink.emit(events.TimeNotLived(clock=clock, leapt_s=by_ms // 1000))

    def began_ms(self) -> int:
        """Return the ledger time at which this process began, or from which on it has lived through all time."""
        self.now()
        assert self._began is not None
        return self._began[0]

    def vouched(self, asked_ms: int) -> bool:
        """Tell whether who asked then can have known what was before: no time has been lost since."""
        self.now()
        return asked_ms > self._store.told_at(self._account, Note.LEAPT)

    def watched_ms(self) -> int:
        """Return for how long this process has been watching, in ms; setting a clock adds nothing to it."""
        self.now()
        assert self._began is not None
        return self._clock.monotonic_ms() - self._began[1]
