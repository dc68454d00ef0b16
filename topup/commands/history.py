"""Which top-ups were there? From the ledger alone, newest first."""

from topup.commands.answer import Answer
from topup.commands.start import load
from topup.commands.status import brief, topup_document
from topup.domain.errors import Exit
from topup.domain.moments import moment
from topup.ledger.store import SqliteStore


def answer(count: int) -> Answer:
    """List the newest `count` top-ups."""
    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    topups = [topup_document(topup) for topup in store.latest(settings.account, count)]
    lines = [f"{moment(topup['decided_ms'] // 1000)}  {brief(topup)}" for topup in topups] or ["no top-ups yet"]
    return Answer({"schema": 1, "account": settings.account, "topups": topups}, lines, Exit.OK)
