"""Who used what, and what is each one's share of what it has cost?

From the ledger alone: what the provider has told of days that are over (`usage_sync.py`), what its totals moved by on
the others, and what the refills have cost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from topup.accounting.formats.usage import By, Row, Source, Usage, rows
from topup.accounting.journal import CREDITS
from topup.accounting.provider_check import Books
from topup.accounting.statement import Period, Refill, Statement, refill
from topup.accounting.untold import Cause, causes, moved, span
from topup.accounting.usage import REMEMBERED_DAYS, Used, days, holes, labelled, ranked, shares
from topup.app.reckoning import statement_of
from topup.domain.credits import DAY_MS
from topup.domain.moments import utc_day
from topup.domain.money import WIDE, Usd
from topup.ledger.store import SqliteStore

# 10^-9 dollars in one of the journal's units of credit.
NANO = 1000


def usage_of(store: SqliteStore, account: str, by: By, period: Period, labels: Mapping[str, str], now_ms: int) -> Usage:
    """Tell what was used in a period, split by something; `labels` has that of a key by its hash or by its name.

    Days of which the provider has not told models and keys count with what its totals moved by, and so does the
    current day; they stand in lines of their own.
    """
    today = utc_day(now_ms)
    last = min(period.last, today - timedelta(days=1))
    known = store.usage_known(account, period.first, last)
    names = {key: name for key, (name, _) in store.keys_used(account).items()}
    used = _told(store, account, by, (period.first, last), names, labels)
    statement = statement_of(store, account, period, now_ms)
    rate = _rate(statement.refills)
    if rate is None:
        # Credits that were bought before are used now.
        end_ms = Period(last, last).end_ms
        rate = _rate(refill(its[0].topup_id, its) for its in store.by_topup(account, end_ms))
    lines = rows(by, used, _costs(used, rate), names if by is By.KEY else {})
    missing, booked, notes = holes(period.first, last, known), moved(statement.entries), []
    for first, end in missing:
        here = [(day.isoformat(), booked[day]) for day in days(first, end) if day in booked]
        if by is not By.DAY and here:
            here = [(span(first, end), sum(units for _, units in here))]
        lines += _by_totals(here, rate, Source.TOTALS)
    if missing:
        notes.append("models and keys were not told of " + ", ".join(span(*one) for one in missing))
    if why := store.told(account, "usage"):
        notes.append(f"when it was asked last: {why}")
    if period.first <= today <= period.last:
        lines += _by_totals(_so_far(store, account, today), rate, Source.PROVISIONAL)
        notes.append(f"{today} is not over: its models and keys are told when it is")
    if by is By.DAY:
        lines.sort(key=lambda row: row.name)
    return Usage(account, by, period, tuple(lines), rate, tuple(missing), tuple(notes))


def spend_of(
    store: SqliteStore, account: str, period: Period, labels: Mapping[str, str]
) -> dict[str, list[tuple[str, Usd]]]:
    """Return what models and keys have used on the days that are told of, under the name a person knows, largest first.

    Labels are there only where some are given.
    """
    names = {key: name for key, (name, _) in store.keys_used(account).items()}
    found = {}
    for by in (By.MODEL, By.KEY, *([By.LABEL] if labels else [])):
        used = _told(store, account, by, (period.first, period.last), names, labels)
        shown = rows(by, used, _costs(used, None), names if by is By.KEY else {})
        found[by.value] = [(row.name, row.used.usd) for row in shown]
    return {name: used for name, used in found.items() if used}


def untold_of(store: SqliteStore, statement: Statement) -> tuple[Cause, ...]:
    """Return why what models and keys are told to have used is not all that was used in a statement's period."""
    period = statement.period
    told = store.used_by_day(statement.account, period.first, period.last)
    return causes(statement, {day: used.usd for day, used in told})


def books_of(store: SqliteStore, account: str) -> Books:
    """Return what the ledger says of an account, to be held against its provider."""
    entries, closed = store.entries(account), store.closed(account)
    until_ms = closed.at_ms if closed is not None else 0
    credit = sum(x.units for e in entries if e.at_ms <= until_ms for x in e.lines if x.account == CREDITS)
    if closed is not None:
        # What was adopted since with an earlier time is booked, and the next closing will allow for it.
        credit -= store.posted(account, until_ms) - closed.posted
    last = utc_day(until_ms)
    first = last - timedelta(days=REMEMBERED_DAYS)
    told = {day: store.used_by(account, "model", day, day) for day in store.usage_known(account, first, last)}
    return Books(closed, credit, moved(entries), told)


def _told(
    store: SqliteStore,
    account: str,
    by: By,
    span: tuple[date, date],
    names: Mapping[str, str],
    labels: Mapping[str, str],
) -> Sequence[Used]:
    match by:
        case By.DAY:
            return [replace(used, name=day.isoformat()) for day, used in store.used_by_day(account, *span)]
        case By.MODEL:
            return ranked(store.used_by(account, "model", *span))
        case By.KEY:
            return ranked(store.used_by(account, "key", *span))
        case By.LABEL:
            return labelled(store.used_by(account, "key", *span), names, labels)


def _rate(refills: Iterable[Refill]) -> Decimal | None:
    """Return what a dollar of credit has cost, over those refills of which both are known; to six decimals."""
    usd = credit = Decimal(0)
    for one in refills:
        if one.usd is not None and one.credits.amount:
            usd, credit = WIDE.add(usd, one.usd.amount), WIDE.add(credit, one.credits.amount)
    return WIDE.divide(usd, credit).quantize(Decimal("0.000001"), context=WIDE) if credit else None


def _so_far(store: SqliteStore, account: str, today: date) -> list[tuple[str, int]]:
    """Return what was used today, since the last reading of yesterday or else the first of today."""
    midnight = Period(today, today).first_ms
    readings = store.readings(account, midnight - DAY_MS)
    if not readings or readings[-1].at_ms < midnight:
        return []
    first = ([r for r in readings if r.at_ms < midnight] or readings)[-1 if readings[0].at_ms < midnight else 0]
    used = readings[-1].total_usage - first.total_usage
    return [(today.isoformat(), max(used.usdc_down().units, 0))]


def _by_totals(booked: Sequence[tuple[str, int]], rate: Decimal | None, source: Source) -> list[Row]:
    used = [Used(name, NANO * units) for name, units in booked]
    return [Row(one.name, "", one, cost, source) for one, cost in zip(used, _costs(used, rate), strict=True)]


def _costs(used: Sequence[Used], rate: Decimal | None) -> Sequence[Usd | None]:
    """Return what each has cost, None where no refill tells what a credit costs."""
    return shares(used, rate) if rate is not None else [None] * len(used)
