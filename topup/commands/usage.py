"""Who used what, and what is each one's share of what it has cost?"""

from topup.accounting.formats import usage as written
from topup.accounting.formats.usage import By
from topup.app.usage import usage_of
from topup.commands.answer import Answer
from topup.commands.start import read_ledger
from topup.commands.statement import period_of
from topup.domain.errors import Exit


def answer(by: str, days: tuple[str | None, str | None, str | None], form: str) -> Answer:
    """Say who used what in the period that these options name, and what it has cost."""
    settings, store, now_ms = read_ledger()
    usage = usage_of(store, settings.account, By(by), period_of(*days, now_ms), settings.labels, now_ms)
    if form == "csv":
        return Answer({}, (), Exit.OK, file=written.write(usage))
    return Answer(written.document(usage), written.lines(usage), Exit.OK)
