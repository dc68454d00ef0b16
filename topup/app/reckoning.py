"""What does the ledger say of an account's past and of what is ahead of it? Asks nobody, and changes nothing."""

from dataclasses import replace
from typing import Final

from topup.accounting import forecast as ahead
from topup.accounting.statement import Period, Statement, draw, unclosed
from topup.domain.credits import DAY_MS
from topup.domain.money import Wei
from topup.domain.policy import Limits
from topup.ledger.store import SqliteStore

# A forecast looks for the newest payments, and for the newest look at the wallet, among so many top-ups.
LOOKED_BACK: Final = 50


def statement_of(store: SqliteStore, account: str, period: Period, now_ms: int) -> Statement:
    """Draw up the statement of a period."""
    readings = [r for r in store.readings(account, period.first_ms) if r.at_ms < period.end_ms]
    last = readings[-1] if readings else None
    carried, entries = store.within(account, period.first_ms, period.end_ms)
    wallet = [
        (at, store.wallet_booked(account, at.commodity, at.block))
        for at in store.balance_assertions(account, period.end_ms)
    ]
    drawn = draw(
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
    return replace(drawn, unclosed=unclosed(readings, store.closed(account)))


def forecast_of(store: SqliteStore, account: str, limits: Limits, reserve: Wei, now_ms: int) -> ahead.Forecast:
    """Look ahead from the newest reading; `reserve` is what the wallet keeps."""
    last = store.last_reading(account)
    return ahead.draw(
        store.readings(account, ahead.since(last.at_ms)) if last is not None else [],
        limits,
        past=store.past(account, now_ms - 30 * DAY_MS, limits.fee_ceiling.bps),
        entries=store.newest(account, LOOKED_BACK),
        wallet=ahead.wallet_forecast(store.latest(account, LOOKED_BACK), ahead.refill_amount(limits), reserve),
        now_ms=now_ms,
    )
