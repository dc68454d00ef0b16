"""What does the account show, and can it be believed? Each reading, its judgement, its alarm."""

from dataclasses import replace

from topup.domain import events
from topup.domain.credits import (
    DAY_MS,
    HOUR_MS,
    Doubt,
    Reading,
    Unknown,
    believe,
    fallen_for_a_day,
    rose,
)
from topup.domain.errors import ApiError, ApiGone, ApiLimited, ApiUnauthorized
from topup.domain.lifecycle import TopUp
from topup.domain.notes import Note
from topup.domain.policy import Snapshot
from topup.payment.config import PurchaseOrder
from topup.payment.part import Part
from topup.payment.snapshot import snapshot

DOUBTS = {ApiLimited: Doubt.LIMITED, ApiUnauthorized: Doubt.UNAUTHORIZED, ApiGone: Doubt.GONE}


class Monitor(Part):
    """The readings of one account. `not_before_ms` is when the API allows the next question."""

    not_before_ms = 0
    _management: bool | None = None
    _key_checked_ms: int | None = None
    # Why the newest question for it told nothing, "" where it did.
    _key_said = ""
    _unknown_since_ms: int | None = None
    _doubt: Doubt | None = None
    _read_ms: int | None = None
    _thinned_ms: int | None = None

    async def read(self) -> Reading | Unknown:
        """Read the account, judge the reading, keep it, and say what is worth saying."""
        account, now = self._account.name, self._clock.now()
        self._read_ms = now
        last = self._store.last_reading(account)
        reading = await self._asked_api(last, now)
        self._store.record_reading(account, reading)
        # The ledger is kept bounded by an hourly step, or by one with each reading while old ones are waiting.
        if self._thinned_ms is None or now - self._thinned_ms >= HOUR_MS:
            self._thinned_ms = None if self._store.thin_readings(account, now) else now
        if isinstance(reading, Unknown):
            self._unknown(reading)
            return reading
        self._unknown_since_ms = self._doubt = None
        self._hourly.forget()
        self._say(
            events.ReadingTaken(
                total_credits_usd=reading.total_credits,
                total_usage_usd=reading.total_usage,
                balance_usd=reading.balance,
            )
        )
        if last is not None and rose(last, reading) and self._store.open_topup(account) is None:
            by = reading.total_credits - last.total_credits
            self._say(events.CreditsRose(by_usd=by, total_credits_usd=reading.total_credits))
        return reading

    async def _asked_api(self, last: Reading | None, now: int) -> Reading | Unknown:
        if now < self.not_before_ms:
            return Unknown(Doubt.LIMITED, f"the API asked to wait {(self.not_before_ms - now) // 1000} s more", now)
        try:
            await self._check_key(now)
            said = await self._api.credits()
        except ApiError as error:
            if isinstance(error, ApiLimited):
                self.not_before_ms = now + error.retry_after_s * 1000
            return Unknown(DOUBTS.get(type(error), Doubt.NO_ANSWER), str(error), now)
        # Stamped with the time of asking: what the answer shows is at least that new.
        said = replace(said, at_ms=now)
        account = self._account.name
        fell = last is not None and said.total_usage < last.total_usage
        judged = believe(
            said,
            management_key=self._management,
            last=last,
            ever_non_zero=self._store.ever_non_zero(account),
            doubted=self._store.doubted(account, last.at_ms) if last is not None and fell else (),
            usage_fall_max=self._limits.usage_fall_max,
        )
        if isinstance(judged, Unknown) and judged.doubt is Doubt.KEY_UNPROVEN and self._key_said:
            judged = replace(judged, detail=f"{judged.detail}: {self._key_said}")
        return said if isinstance(judged, Unknown) and self._accepted(judged, said, last) else judged

    def _accepted(self, judged: Unknown, said: Reading, last: Reading | None) -> bool:
        """Tell whether a person has accepted a lower total that was seen for a day; the acceptance is used up."""
        account, fell = self._account.name, judged.doubt in (Doubt.CREDITS_FELL, Doubt.USAGE_FELL)
        if not fell or not self._store.said_within(account, Note.ACCEPT_READING, self._clock.now(), DAY_MS):
            return False
        if not fallen_for_a_day(self._store.doubted(account, last.at_ms if last is not None else 0), said):
            return False
        self._store.say(account, Note.ACCEPT_READING, "0", self._clock.now())
        return True

    async def _check_key(self, now: int) -> None:
        """Ask once in a while what kind of key this is; an unanswered question stays unanswered."""
        if self._key_checked_ms is not None and now - self._key_checked_ms < self._pace.key_recheck_s * 1000:
            return
        try:
            key = await self._api.key()
        except (ApiUnauthorized, ApiLimited):
            raise
        except ApiError as error:
            self._key_said = str(error)
            return
        self._management, self._key_checked_ms, self._key_said = key.management, now, ""
        if not key.management:
            self._say(events.KeyUnfit(detail="GET /key: is_management_key is false"))

    def _unknown(self, reading: Unknown) -> None:
        if reading.doubt is not self._doubt:
            # Said once for each new reason; the cycle's own line repeats it.
            self._doubt = reading.doubt
            self._say(events.ReadingUnknown(doubt=reading.doubt.value, detail=reading.detail))
        if self._unknown_since_ms is None:
            last = self._store.last_reading(self._account.name)
            self._unknown_since_ms = last.at_ms if last is not None else reading.at_ms
        lasting = reading.at_ms - self._unknown_since_ms
        if lasting >= self._pace.unknown_alert_s * 1000 and self._hourly.due("unknown", reading.at_ms):
            self._say(events.UnknownTooLong(unknown_s=lasting // 1000, doubt=reading.doubt.value))

    def snapshot(self, reading: Reading | Unknown, asked: PurchaseOrder, *, beside: TopUp | None = None) -> Snapshot:
        """Gather what the rules look at; see `snapshot.snapshot`."""
        return snapshot(self._store, self._account, self._limits, reading, asked, self._clock.now(), beside=beside)

    async def keep(self) -> None:
        """Read the account when that is due anyway, whatever else goes on: an open top-up must not blind the watch."""
        if self._read_ms is None or self._clock.now() - self._read_ms >= self._pace.poll_fastest_s * 1000:
            await self.read()
