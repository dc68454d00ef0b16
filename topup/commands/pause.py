"""How does a person stop the buying, and let it go on? By a word in the ledger, which the daemon heeds."""

import os
from contextlib import closing

from topup.app.settings import Settings
from topup.commands.answer import Answer
from topup.commands.start import beside, load
from topup.domain.errors import Exit
from topup.domain.notes import Note
from topup.wire.clock import SystemClock


def answer(*, on: bool) -> Answer:
    """Pause, or resume: that ends a pause, a stop after failures in a row, a rail's absence, and doubt about a rail."""
    settings = load()
    if on:
        return noted(settings, Note.PAUSED, "1", "paused: nothing new is bought; what is out is still followed")
    from topup.payment.config import RAILS

    for rail in RAILS:
        note(settings, Note.GONE.of(rail), "0")
    note(settings, Note.RAILS, ",".join(settings.rails_in_use))
    return noted(settings, Note.PAUSED, "0", "resumed")


def noted(settings: Settings, name: str, value: str, effect: str) -> Answer:
    """Write a person's word into the ledger, and answer with its effect."""
    note(settings, name, value)
    document = {"schema": 1, "account": settings.account, "said": name, "value": value, "detail": effect}
    return Answer(document, [effect], Exit.OK)


def note(settings: Settings, name: str, value: str) -> None:
    """Write a person's word into the ledger, which is created where there is none; a StoreError where it cannot be."""
    with closing(beside(settings)) as store:
        # Ledger time, which may be ahead of the machine's: what a person says now must not look long past.
        store.say(settings.account, name, value, store.now_ms(SystemClock().now_ms()), f"uid {os.getuid()}")
