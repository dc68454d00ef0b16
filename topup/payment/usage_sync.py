"""Which days of usage does the provider tell that the ledger does not hold?

The account's days are asked for at once, those of each key one by one, because that is what the provider offers. A
thousand keys are a thousand questions: they are asked a few with each pass, so that the watch never waits for them,
and each answer is stored at once. A day is whole when no key is left to be asked for.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from topup.accounting.usage import REMEMBERED_DAYS, ApiKey, Contradiction, due, per_day, total, whole
from topup.domain import events
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.errors import ApiError, ApiGone, ApiUnauthorized
from topup.domain.moments import utc_day
from topup.domain.notes import Note
from topup.ports.account import Sink, Usage
from topup.ports.ledger import UsageDays

KEYS_A_PASS = 20
# The list itself comes in pages.
PAGES_A_PASS = 10
# A provider that is slow is asked for fewer.
PASS_MS = 10_000


class UsageSync:
    """Takes the usage of days that are over into the ledger of one account."""

    def __init__(self, account: str, *, api: Usage, now: Callable[[], int], store: UsageDays, sink: Sink) -> None:
        """Join the ports; nothing is asked yet. `now` returns ledger time."""
        self._account = account
        self._api = api
        self._now = now
        self._store = store
        self._sink = sink
        # The keys that are still to be asked for; None while nothing is under way.
        self._waiting: list[ApiKey] | None = None
        # The keys that were listed so far, and where the list goes on.
        self._listed: dict[str, ApiKey] = {}
        self._offset = 0

    async def keep_up(self) -> None:
        """Ask for what is missing: once an hour while something is, and for a few keys with each pass."""
        now = self._now()
        rests = self._store.usage_rests(self._account)
        if rests is None:
            # On first sight of an account there are other questions; these begin an hour later.
            seen = self._store.readings(self._account, 0)
            if not seen or seen[0].at_ms > now - HOUR_MS:
                return
        elif self._waiting is None and not self._offset and now < rests[1]:
            return
        today = utc_day(now)
        days = due(self._store.usage_known(self._account, today - timedelta(days=REMEMBERED_DAYS), today), now)
        if not days:
            self._waiting = None
            return
        try:
            if await self._keys(days, now):
                await self._days(days, now)
        except (ApiGone, ApiUnauthorized) as error:
            # This key is told nothing, or this provider tells nothing: that will not change within the hour.
            self._rest(str(error), now + DAY_MS)
        except ApiError as error:
            self._rest(str(error), now + HOUR_MS)
        except Contradiction as error:
            self._store.forget_keys_used(self._account, now)  # so that all of them are asked for again
            self._rest(str(error), now + DAY_MS)

    async def _keys(self, days: Sequence[date], now: int) -> bool:
        """Ask for the keys that have used something since they were asked for last; tell whether that was all."""
        if self._waiting is None and not await self._list(now):
            return False
        assert self._waiting is not None
        for key in self._waiting[:KEYS_A_PASS]:
            used = per_day(await self._api.activity(key_hash=key.hash), days)
            self._store.keep_key_used(self._account, key, {day: total(its) for day, its in used.items()}, now)
            self._waiting.remove(key)
            if self._now() - now >= PASS_MS:
                break
        return not self._waiting

    async def _list(self, now: int) -> bool:
        """Ask for the list of the keys, a few pages with each pass; tell whether that was all of it."""
        for _ in range(PAGES_A_PASS):
            page, more = await self._api.keys(self._offset)
            # Pages shift while keys are made: one may come twice, and counts as it was told last.
            before = len(self._listed)
            self._listed |= {key.hash: key for key in page}
            self._offset += len(page)
            if not more or len(self._listed) == before:  # an offset that is ignored does not keep us for ever
                break
            if self._now() - now >= PASS_MS:
                return False
        else:
            return False
        used = self._store.keys_used(self._account)
        if used.keys() - self._listed.keys():
            self._store.forget_keys_gone(self._account, self._listed.keys(), now)
        listed, self._listed, self._offset = self._listed, {}, 0
        self._waiting = [key for key in listed.values() if used.get(key.hash, ("", 0))[1] != key.until_today_nano]
        return True

    async def _days(self, days: Sequence[date], now: int) -> None:
        models = per_day(await self._api.activity(), days)
        for day in days:
            keys = self._store.used_by(self._account, "key", day, day, whole=False)
            self._store.keep_usage(self._account, whole(day, models[day], keys), now)
        self._rest("", now + HOUR_MS)

    def _rest(self, why: str, until_ms: int) -> None:
        self._waiting, self._listed, self._offset = None, {}, 0
        if why and why != self._store.told(self._account, Note.USAGE):
            self._sink.emit(events.UsageUnknown(detail=why))
        self._store.rest_usage(self._account, why, until_ms)
