"""When is a digest stored? Once for its days, whoever is stopped meanwhile and wherever a clock jumps.

The ledger keeps the first day that no digest has told of, and moves it on in the transaction that stores the message.
So days that nobody was there for are in the next one, and none is in two.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final

from topup.domain.credits import HOUR_MS
from topup.domain.notes import Note
from topup.ports.account import Clock

if TYPE_CHECKING:  # what draws a digest is loaded for the first one
    from topup.accounting.statement import Period
    from topup.app.settings import Settings
    from topup.ledger.store import SqliteStore

# For a reading, with which the days before are closed, a digest waits no longer than this.
WAIT_MS: Final = HOUR_MS
# After one that could not be drawn it is tried again.
AGAIN_MS: Final = HOUR_MS


class Digests:
    """The digests of one account, as its settings want them; for the ledger's writer."""

    def __init__(self, settings: Settings, store: SqliteStore, clock: Clock) -> None:
        """Begin to watch."""
        self._settings, self._store, self._clock = settings, store, clock
        self._account = settings.account
        self._began_ms = self._now()
        self._next_ms = 0

    def forget(self) -> None:
        """Let the next one, whenever it is wanted again, tell nothing of the time in between."""
        if self._store.told(self._account, Note.DIGEST):
            self._store.say(self._account, Note.DIGEST, "", self._now())

    def write(self, *, last: bool) -> None:
        """Store the one that is due, if one is; with `last` this process looks no more, and waits for no reading."""
        from topup.accounting.digest import Every, due_ms, end_of, period_of

        every, hour, now_ms = Every(self._settings.notify.digest), self._settings.notify.digest_hour, self._now()
        end, noted = end_of(every, hour, now_ms), self._store.told(self._account, Note.DIGEST)
        if not noted:
            self._store.say(self._account, Note.DIGEST, end.isoformat(), now_ms)
            return
        period = period_of(date.fromisoformat(noted), end)
        if period is not None and now_ms >= self._next_ms and (last or self._waited(due_ms(end, hour), now_ms)):
            self._next_ms = now_ms + AGAIN_MS  # where it cannot be drawn
            told = self._drawn(every, period, now_ms)
            self._store.digest(self._account, noted, end.isoformat(), now_ms, told)

    def _waited(self, due_ms: int, now_ms: int) -> bool:
        """Tell whether a pass has read the account since then, and so closed the books of the days before, or will not.

        A process that begins after that has to read it itself first.
        """
        since_ms = max(due_ms, self._began_ms)
        last = self._store.last_reading(self._account)
        return now_ms >= since_ms + WAIT_MS or (last is not None and last.at_ms >= since_ms)

    def _drawn(self, every: Any, period: Period, now_ms: int) -> dict[str, Any]:
        from topup.accounting.digest import Cap, Digest
        from topup.accounting.formats.digest import document
        from topup.app.assembly import ceilings, limits
        from topup.app.reckoning import forecast_of, statement_of

        store, account, allowed = self._store, self._account, limits(self._settings)
        day, month = store.counted(account, now_ms, allowed.fee_ceiling.bps)
        digest = Digest(
            every=every,
            statement=statement_of(store, account, period, now_ms),
            closed=store.closed(account),
            last=store.last_reading(account),
            forecast=forecast_of(store, account, allowed, ceilings(self._settings).reserve, now_ms),
            left_wallet=store.left_wallet(account, period.first_ms, period.end_ms),
            cap_24h=Cap.of(allowed.cap_24h, day),
            cap_30d=Cap.of(allowed.cap_30d, month),
        )
        return document(digest)

    def _now(self) -> int:
        return self._store.now_ms(self._clock.now_ms())
