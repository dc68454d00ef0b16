"""What was bought, used and paid in a period? From the ledger alone, in the forms that other programs read."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from topup.accounting.formats import csv_journal, html, plaintext, tax, text
from topup.accounting.statement import Period, Statement
from topup.app.reckoning import statement_of
from topup.commands.answer import Answer
from topup.commands.start import read_ledger
from topup.domain.errors import Exit, SettingsError

# The forms that other programs read.
FILES: Final[dict[str, Callable[[Statement], str]]] = {
    "csv": lambda statement: csv_journal.write(statement.entries, statement.wallets),
    "beancount": plaintext.beancount,
    "hledger": plaintext.hledger,
    "koinly": tax.koinly,
    "rotki": tax.rotki,
}


def answer(days: tuple[str | None, str | None, str | None], form: str, page: Path | None) -> Answer:
    """Say what was bought, used and paid in the period that these options name; `page` is a file for a page of it."""
    settings, store, now_ms = read_ledger()
    statement = statement_of(store, settings.account, period_of(*days, now_ms), now_ms)
    if page is not None:
        from topup.app.pages import pictures

        _write(page, html.page(statement, pictures(settings, store, statement, now_ms)))
        return Answer({}, (), Exit.OK)
    if form in FILES:
        return Answer({}, (), Exit.OK, file=FILES[form](statement))
    return Answer(text.document(statement), text.lines(statement), Exit.OK)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", remedy="give a file that can") from None


def period_of(month: str | None, first: str | None, last: str | None, now_ms: int) -> Period:
    """Return the period that options name, or the month of `now_ms`; a SettingsError where they name none, or two."""
    if month is not None and (first or last):
        raise SettingsError("--month is given beside --from or --to", remedy="give a month, or two days")
    if first is None and last is None:
        return Period.month(month or datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m"))
    if first is None or last is None:
        raise SettingsError(
            "--from and --to belong together", remedy="give both, such as --from 2026-11-01 --to 2026-11-15"
        )
    return Period.days(first, last)
