"""What was used, on which day, by which model and key, and what is each label's share?

Pure. A day is a UTC day, because that is what providers tell. Amounts are integers of 10^-9 dollars of credit (nano):
a provider's numbers are JSON doubles, and rounding each half to even leaves less than their own noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from topup.domain.credits import HOUR_MS
from topup.domain.moments import utc_day
from topup.domain.money import WIDE, Usd

# A day that is over is asked for once, this long after its end: what was used in its last minutes is posted late.
SETTLES_MS = 6 * HOUR_MS
# So many days that are over does a provider remember (OpenRouter's `GET /activity`).
REMEMBERED_DAYS = 30
# What a provider rounds each number to leaves so much between a day and the sum of its parts.
NOISE_NANO = 1_000_000
# As what usage is shown that no key, model or label of ours answers for.
NOBODY: Final = ""


@dataclass(frozen=True)
class Used:
    """What one model, key or label has used in 10^-9 dollars of credit; `name` is "" where nobody answers for it."""

    name: str
    nano: int
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Used) -> Used:
        """Add what another has used, under this one's name."""
        return Used(
            self.name,
            self.nano + other.nano,
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @property
    def usd(self) -> Usd:
        """Return it in dollars of credit."""
        return dollars(self.nano)


@dataclass(frozen=True)
class Activity:
    """What one model, "" where the provider names none, has used on one UTC day, of the whole account or of one key."""

    day: date
    used: Used


@dataclass(frozen=True)
class ApiKey:
    """One API key of the account; `hash` is what the provider calls it, no secret, `name` what its owner does, or "".

    It has used so much in all, and on the current UTC day; 10^-9 dollars of credit.
    """

    hash: str
    name: str
    disabled: bool
    nano: int
    today_nano: int

    @property
    def until_today_nano(self) -> int:
        """Return what it had used when the current UTC day began."""
        return self.nano - self.today_nano


@dataclass(frozen=True)
class DayUsed:
    """One UTC day that is over. Models and keys each sum to the whole day."""

    day: date
    models: tuple[Used, ...]
    keys: tuple[Used, ...]


class Contradiction(ValueError):
    """What the provider says of a day cannot be true; the text says why."""


def due(known: Iterable[date], now_ms: int) -> list[date]:
    """Return the days that are over and settled, still told by the provider, and not stored yet; oldest first.

    Nothing is due in the hours in which yesterday is not settled: what a key had used when today began then says
    exactly up to where its days are stored.
    """
    if now_ms % (24 * HOUR_MS) < SETTLES_MS:
        return []
    today, stored = utc_day(now_ms), set(known)
    days = (today - timedelta(days=n) for n in range(REMEMBERED_DAYS, 0, -1))
    return [day for day in days if day not in stored]


def per_day(activities: Iterable[Activity], days: Iterable[date]) -> dict[date, tuple[Used, ...]]:
    """Return what each model has used on each of these days alone; a Contradiction where it is less than nothing."""
    models: dict[date, list[Used]] = {day: [] for day in days}
    for activity in activities:
        day, used = activity.day, activity.used
        if used.nano < 0:
            raise Contradiction(f"on {day} {used.name or 'a model'} used {used.usd} dollars, less than nothing")
        if day in models:
            models[day].append(used)
    return {day: _merged(rows) for day, rows in models.items()}


def whole(day: date, models: Sequence[Used], keys: Sequence[Used]) -> DayUsed:
    """Join what the models of one day have used with what the keys have.

    What no key answers for (a key that was deleted, the provider's own chat) stands under the name "".

    Raises:
        Contradiction: the keys have used more than the whole account.
    """
    account, named = total(models), total(keys)
    rest = account.nano - named.nano
    if rest < -NOISE_NANO:
        raise Contradiction(f"on {day} the keys used {dollars(-rest)} dollars more than the whole account")
    by_key = ranked(keys)
    if rest > NOISE_NANO or (rest and not by_key):
        by_key = ranked((*by_key, _rest(account, named)))
    elif rest:
        # What rounding has left belongs to somebody: to the largest, where it is least seen.
        by_key = (by_key[0] + Used(NOBODY, rest), *by_key[1:])
    return DayUsed(day, tuple(models), by_key)


def _rest(account: Used, named: Used) -> Used:
    return Used(
        NOBODY,
        account.nano - named.nano,
        max(0, account.requests - named.requests),
        max(0, account.prompt_tokens - named.prompt_tokens),
        max(0, account.completion_tokens - named.completion_tokens),
    )


def total(rows: Iterable[Used]) -> Used:
    """Return the sum of all."""
    return sum(rows, Used(NOBODY, 0))


def ranked(rows: Iterable[Used]) -> tuple[Used, ...]:
    """Return the rows, the largest first; equal ones by name."""
    return tuple(sorted(rows, key=lambda used: (-used.nano, used.name)))


def labelled(keys: Iterable[Used], names: Mapping[str, str], labels: Mapping[str, str]) -> tuple[Used, ...]:
    """Return what each label has used, of what each key has used by its hash.

    `names` is what its owner calls each key; `labels` holds the label of a key by its hash, which counts first, or by
    its name.
    """
    return _merged(
        replace(key, name=labels.get(key.name) or labels.get(names.get(key.name, "")) or NOBODY) for key in keys
    )


def _merged(rows: Iterable[Used]) -> tuple[Used, ...]:
    """Add up the rows of each name, and return the sums as `ranked` does."""
    sums: dict[str, Used] = {}
    for used in rows:
        sums[used.name] = sums[used.name] + used if used.name in sums else used
    return ranked(sums.values())


def shares(rows: Sequence[Used], rate: Decimal) -> tuple[Usd, ...]:
    """Return what each row has cost in all, credits, fees, network and swap: `rate` dollars for one of credit.

    The costs are whole 10^-6 dollars and sum to the whole's, which is rounded half to even: what rounding leaves goes,
    a millionth each, to those of whom most was cut off.
    """
    exact = [WIDE.multiply(used.usd.amount, rate) for used in rows]
    micros = [int(WIDE.scaleb(x, 6)) for x in exact]
    due_in_all = int(WIDE.scaleb(sum(exact, Decimal(0)), 6).to_integral_value(ROUND_HALF_EVEN, context=WIDE))
    cut = sorted(range(len(rows)), key=lambda n: (micros[n] - WIDE.scaleb(exact[n], 6), n))
    for n in cut[: due_in_all - sum(micros)]:
        micros[n] += 1
    return tuple(Usd(WIDE.scaleb(Decimal(m), -6)) for m in micros)


def holes(first: date, last: date, known: Iterable[date]) -> list[tuple[date, date]]:
    """Return the spans of days within first and last, both included, that are not known."""
    stored = set(known)
    spans: list[tuple[date, date]] = []
    for day in days(first, last):
        if day in stored:
            continue
        if spans and spans[-1][1] == day - timedelta(days=1):
            spans[-1] = spans[-1][0], day
        else:
            spans.append((day, day))
    return spans


def days(first: date, last: date) -> Iterator[date]:
    """Return each day from the first to the last, both included."""
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def dearest_request(told: Iterable[Activity]) -> Usd | None:
    """Return the highest average that a request of one model has cost on one day; None where none was told."""
    each = [
        WIDE.divide(activity.used.usd.amount, activity.used.requests) for activity in told if activity.used.requests
    ]
    return Usd(max(each)) if each else None


def dollars(nano: int) -> Usd:
    """Return 10^-9 dollars in dollars."""
    return Usd(WIDE.scaleb(Decimal(nano), -9))
