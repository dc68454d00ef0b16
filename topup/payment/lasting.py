"""Since when can an open top-up not get on, and has it been said?

Two things may fail for long, pass after pass, while each single pass only waits: no payment can be planned, or what is
out cannot be looked at. Each is a series. It begins with the asking that failed first and ends with what succeeded, not
with a pass in which nothing was asked. Its beginning is stored, so that a restart begins nothing anew, and belongs to
the need it was stored for: the top-up that was decided, or the wish that it was decided for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from topup.domain import events
from topup.domain.lifecycle import MONEY_OUT, TopUp
from topup.domain.notes import Note
from topup.payment.part import Hourly
from topup.ports.account import Sink
from topup.ports.ledger import Store

# What lasts so long does not pass with the next block. Passes follow each other faster: it is said within a minute.
SOON_S = 20
ASK = "`topup doctor` asks each provider; replace those that fail, or add one of another owner"


@dataclass
class _Series:
    """What fails, since when, and what was said of it by this process; times are the ledger's."""

    since_ms: int | None
    warned: bool = False
    hourly: Hourly = field(default_factory=Hourly)


class Lasting:
    """The two series of one account."""

    def __init__(self, account: str, *, alert_s: int, now: Callable[[], int], store: Store, sink: Sink) -> None:
        """Join the ports; what lasts for `alert_s` seconds wakes somebody."""
        self._account = account
        self._alert_s = alert_s
        self._now = now
        self._store = store
        self._sink = sink
        self._known: dict[str, _Series] = {}

    def failed(
        self, topup: TopUp, why: str, detail: str, *, remedy: str = ASK, began_ms: int | None = None, said: bool = False
    ) -> None:
        """Count a failure that was begun at `began_ms`, and say what lasts; `said` where another event warns of it."""
        now, name = self._now(), _name(topup)
        series = self._series(name, topup)
        if series.since_ms is None:
            series.since_ms = now if began_ms is None else began_ms
            self._store.say(self._account, name, "1", series.since_ms)
        lasting_s = (now - series.since_ms) // 1000
        kind: type[events.TopUpStalled] | None = None
        if lasting_s >= self._alert_s:
            if series.hourly.due(name, now):
                kind, series.warned = events.TopUpStuck, True
        elif lasting_s >= SOON_S and not series.warned and not said:
            kind, series.warned = events.TopUpStalled, True
        if kind is not None:
            self._sink.emit(
                kind(
                    topup_id=topup.id,
                    state=topup.state.value,
                    out=bool(topup.out),
                    why=why,
                    detail=detail,
                    remedy=remedy,
                    lasting_s=lasting_s,
                )
            )

    def ended(self, topup: TopUp) -> None:
        """End the series of a state: what was planned may leave, or what is out was looked at."""
        name = _name(topup)
        series = self._series(name, topup)
        if series.since_ms is None:
            return
        now = self._now()
        lasted_s = (now - series.since_ms) // 1000
        self._known[name] = _Series(None)
        self._store.say(self._account, name, "0", now)
        if lasted_s >= SOON_S:
            self._sink.emit(events.TopUpGoesOn(topup_id=topup.id, state=topup.state.value, lasted_s=lasted_s))

    def _series(self, name: str, topup: TopUp) -> _Series:
        """Return a series as this process knows it, or as an earlier one has left it; that of another need is over."""
        if name not in self._known:
            stored = self._store.told(self._account, name) == "1"
            self._known[name] = _Series(self._store.told_at(self._account, name) if stored else None)
        since_ms = self._known[name].since_ms
        if since_ms is not None and since_ms < self._needed_ms(topup):
            self._known[name] = _Series(None)
        return self._known[name]

    def _needed_ms(self, topup: TopUp) -> int:
        """Return since when this is needed: a wish that is repeated outlives the top-ups that are dropped for it."""
        if topup.wish is None:
            return topup.decided_ms
        return min(topup.decided_ms, self._store.requested(topup.wish).at_ms)


def _name(topup: TopUp) -> str:
    return Note.UNSEEN if topup.state in MONEY_OUT else Note.UNPLANNED
