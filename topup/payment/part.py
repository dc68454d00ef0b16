"""What is every part of a pass built on? The terms of one account, the ports, and what was said within the hour."""

from collections.abc import Callable
from dataclasses import dataclass

from topup.domain import events
from topup.domain.credits import HOUR_MS
from topup.domain.lifecycle import Fact, State, TopUp
from topup.payment.config import Terms
from topup.payment.ledger_clock import LedgerClock
from topup.ports.account import Api, Sink
from topup.ports.ledger import Store
from topup.ports.rail import Rail


@dataclass(frozen=True)
class Ports:
    """What a pass can reach; a rail is built when something has to be paid or looked for, not before."""

    api: Api
    rails: Callable[[str], Rail]
    store: Store
    clock: LedgerClock
    sink: Sink


class Part:
    """A part of the passes over one account."""

    def __init__(self, terms: Terms, ports: Ports) -> None:
        self._account = terms.account
        self._limits = terms.limits
        self._ceilings = terms.ceilings
        self._pace = terms.pace
        self._api = ports.api
        self._rails = ports.rails
        self._store = ports.store
        self._clock = ports.clock
        self._sink = ports.sink
        self._hourly = Hourly()

    def _say(self, event: events.Event, *, hourly: str = "") -> None:
        """Say it; what is said `hourly` under a name only where that was not said within the hour."""
        if not hourly or self._hourly.due(hourly, self._clock.now()):
            self._sink.emit(event)

    def _halt(self, topup: TopUp, reason: str) -> TopUp:
        """Stop a top-up for a person, and say why; one that is halted stays as it is."""
        if topup.state is State.HALTED:
            return topup
        self._say(events.TopUpHalted(topup_id=topup.id, reason=reason))
        return self._store.move(topup, Fact.HALT, self._clock.now(), reason)


class Hourly:
    """When each thing was said last, by this process: what lasts is said again every hour, not with every pass."""

    def __init__(self) -> None:
        self._said_ms: dict[str, int] = {}

    def due(self, what: str, now_ms: int) -> bool:
        """Tell whether this is worth saying at this ledger time, and take it for said if it is."""
        said_ms = self._said_ms.get(what)
        if said_ms is not None and now_ms - said_ms < HOUR_MS:
            return False
        self._said_ms[what] = now_ms
        return True

    def forget(self, *, but: str = "") -> None:
        """Let everything else be said again as soon as it comes back."""
        self._said_ms = {what: at_ms for what, at_ms in self._said_ms.items() if what == but}
