"""What does the ledger hold of a period?"""

from __future__ import annotations

from datetime import UTC, datetime

from topup.accounting.statement import Period, Statement, draw
from topup.domain.errors import SettingsError
from topup.ledger.store import SqliteStore


def period_of(month: str | None, first: str | None, last: str | None, now_ms: int) -> Period:
    """Return the period that options name: a month, a first and a last day, or else the month of `now_ms`.

    Raises:
        SettingsError: they are no period, or two of them.
    """
    if month is not None and (first or last):
        raise SettingsError("--month is given beside --from or --to", remedy="give a month, or two days")
    if first is None and last is None:
        return Period.month(month or datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m"))
    if first is None or last is None:
        raise SettingsError(
            "--from and --to belong together", remedy="give both, such as --from 2026-11-01 --to 2026-11-15"
        )
    return Period.days(first, last)


def statement_of(store: SqliteStore, account: str, period: Period, now_ms: int) -> Statement:
    """Draw up the statement of a period, from the ledger alone."""
    readings = [r for r in store.readings(account, period.first_ms) if r.at_ms < period.end_ms]
    last = readings[-1] if readings else None
    carried, entries = store.within(account, period.first_ms, period.end_ms)
    wallet = [
        (at, store.wallet_booked(account, at.commodity, at.block))
        for at in store.balance_assertions(account, period.end_ms)
    ]
    return draw(
        account,
        period,
        entries,
        carried=carried,
        wallet=wallet,
        wallets=store.wallets(account, period.first_ms, period.end_ms),
        reading=last,
        head=store.head(),
        now_ms=now_ms,
    )
