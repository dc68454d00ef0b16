"""Which pages show an account to people, as they look now? From its ledger alone."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Final

from topup.accounting.formats import account, html
from topup.accounting.statement import Period, Statement
from topup.app.assembly import ceilings, limits
from topup.app.reckoning import forecast_of, statement_of
from topup.app.settings import Settings
from topup.app.standing import standing
from topup.app.usage import spend_of, untold_of
from topup.app.verdict import verdict
from topup.domain.moments import utc_day
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore

# How many days the page of an account looks back.
SHOWN_DAYS: Final = 30


def account_page(settings: Settings, now_ms: int) -> str:
    """Return how the account stands now; a TopupError where the ledger cannot be read."""
    with closing(SqliteStore.open_reader(settings.state_dir)) as store:
        now_ms = store.now_ms(now_ms)
        today, seen = utc_day(now_ms), standing(store, settings, now_ms)
        lately = statement_of(store, settings.account, Period(today - timedelta(days=SHOWN_DAYS - 1), today), now_ms)
        return account.page(
            seen,
            verdict(store, settings, now_ms),
            store.moves(seen.unfinished.id) if seen.unfinished is not None else [],
            lately,
            pictures(settings, store, lately, now_ms),
        )


def statement_page(settings: Settings, now_ms: int) -> str:
    """Return the statement of the month that runs; errors as `account_page`."""
    with closing(SqliteStore.open_reader(settings.state_dir)) as store:
        now_ms = store.now_ms(now_ms)
        month = Period.month(datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m"))
        statement = statement_of(store, settings.account, month, now_ms)
        return html.page(statement, pictures(settings, store, statement, now_ms))


def pictures(settings: Settings, store: SqliteStore, statement: Statement, now_ms: int) -> html.Pictures:
    """Return what is drawn beside the figures of a statement."""
    ahead = []
    if now_ms in statement.period:
        ahead = forecast_of(store, settings.account, limits(settings), ceilings(settings).reserve, now_ms).bands
    return html.Pictures(
        store.readings(settings.account, statement.period.first_ms),
        Usd(settings.policy.floor),
        spend_of(store, settings.account, statement.period, settings.labels),
        untold_of(store, statement),
        ahead,
    )
