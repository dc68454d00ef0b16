"""What happened to an account since it was last told, which days are that, and up to when is it known? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from topup.accounting.closing import USAGE, Closed
from topup.accounting.forecast import Forecast
from topup.accounting.journal import Commodity
from topup.accounting.statement import Period, Refill, Statement
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.moments import utc_day
from topup.domain.money import Usd

EPOCH: Final = date(1970, 1, 1)


class Every(StrEnum):
    """How often a digest is told."""

    DAILY = "daily"
    WEEKLY = "weekly"


@dataclass(frozen=True)
class Cap:
    """What may be spent within some hours, and what of that is left."""

    whole: Usd
    left: Usd

    @classmethod
    def of(cls, whole: Usd, counted: Usd) -> Cap:
        """Return a cap of which so much counts as spent; never less than nothing is left."""
        return cls(whole, whole - counted if counted < whole else Usd.of(0))


@dataclass(frozen=True)
class Digest:
    """What there is to tell of a period that is over.

    Attributes:
        closed: up to where the books are closed; None where they never were.
        last: the newest believed reading, and `forecast` what may be expected from it on.
        left_wallet: what top-ups took out of the wallet within the period, in units of each commodity.
        cap_24h, cap_30d: as they stand when it is told.
    """

    every: Every
    statement: Statement
    closed: Closed | None
    last: Reading | None
    forecast: Forecast
    left_wallet: Mapping[Commodity, int]
    cap_24h: Cap
    cap_30d: Cap

    @property
    def refills(self) -> list[Refill]:
        """Return the refills whose credits came within the period."""
        return self.statement.posted

    @property
    def used_until_ms(self) -> int | None:
        """Return up to when it is known what was used within the period; None where nothing of it is.

        Books that were closed only later hold the period's usage where an entry says so. Without one it cannot be told
        from usage that was booked with that of a later day.
        """
        period = self.statement.period
        if self.closed is None or self.closed.at_ms < period.first_ms:
            return None
        if self.closed.at_ms in period:
            return self.closed.at_ms
        booked = [entry.at_ms for entry in self.statement.entries if any(x.account == USAGE for x in entry.lines)]
        return booked[-1] if booked else None


def end_of(every: Every, hour: int, now_ms: int) -> date:
    """Return the first day that the newest digest which is due does not tell of: digests come at an hour in UTC.

    The weekly one comes on Monday.
    """
    day = utc_day(now_ms - hour * HOUR_MS)
    return day - timedelta(days=day.weekday()) if every is Every.WEEKLY else day


def due_ms(end: date, hour: int) -> int:
    """Return when the digest of the days before `end` was due."""
    return (end - EPOCH).days * DAY_MS + hour * HOUR_MS


def period_of(first: date, end: date) -> Period | None:
    """Return the days from `first` on, up to the one before `end`; None where there is none."""
    return Period(first, end - timedelta(days=1)) if first < end else None
