"""What is a person asked before one refill, and told after it? The wish itself is carried out in `wish.py`."""

import os
import sys
from contextlib import closing

import typer

from topup.app import signals
from topup.app.hosts import CLOSED_REMEDY, closed
from topup.app.log import LogSink
from topup.app.output import lost, warn
from topup.app.settings import Settings
from topup.commands import check
from topup.commands.answer import Answer
from topup.commands.start import dollars_of, load, wait_for
from topup.commands.wish import Ending, Once, remember, unbegun
from topup.domain.errors import SettingsError
from topup.payment.config import PurchaseOrder
from topup.ports.ledger import Wish
from topup.wire.clock import SystemClock


def answer(
    amount: str | None, request_id: str | None, timeout_s: int, *, dry_run: bool, yes: bool, force: bool
) -> Answer:
    """Make one cycle, and buy if that is wished for or due; with `dry_run` only decide.

    Raises:
        SettingsError: the amount or the wish's name cannot be taken.
        typer.Abort: a person was asked, and said no.
        TopupError: with the exit code that says whether money may have moved.
    """
    wish = Wish(dollars_of(amount), force, _name(request_id), os.getuid())
    settings = load()
    if dry_run:
        return wait_for(check.ask_and_decide(settings, PurchaseOrder(wish.amount, wish.forced)))
    for rail in settings.rails_in_use:
        if why := closed(settings.api, rail):
            warn(f"topup: {why}; to do: {CLOSED_REMEDY}")
    if settings.mode == "live" and sys.stdin.isatty() and not yes:
        interrupted = _asked(settings, wish)
        if interrupted is not None:
            return Answer({}, (), interrupted)
    clock = SystemClock()
    with closing(LogSink.of(settings, clock)) as sink:
        ending = wait_for(Once(settings, wish, timeout_s=timeout_s, clock=clock, sink=sink, warn=warn).run())
    return Answer(ending.document(), [ending.line()], ending.code, then=lambda: _delivered(settings, ending))


def _name(text: str | None) -> str | None:
    if text is not None and not (text.isprintable() and 0 < len(text.strip()) == len(text) <= 200):
        remedy = "give up to 200 printable characters, such as an invoice's number"
        raise SettingsError(f"--request-id {text[:40]!a} is no name for a wish", remedy=remedy)
    return text


def _asked(settings: Settings, wish: Wish) -> int | None:
    """Ask a person before buying; return the exit code where the question was interrupted. A no is an Abort."""
    what = f"buy {wish.amount} dollars of credit" if wish.amount is not None else "refill if it is due"
    try:
        with signals.Raised():
            typer.confirm(f"{what} from the wallet?", abort=True, err=True)
    except (KeyboardInterrupt, typer.Abort):
        if signals.first() is None:
            raise
        return unbegun(settings, wish, SystemClock())
    return None


def _delivered(settings: Settings, ending: Ending) -> int:
    """Add the remedy to a printed ending, store whether it has reached its reader, and return its exit code."""
    # Where all is well a log that somebody reads holds no advice; a person at a terminal may want to know.
    if ending.remedy and (ending.code or ending.repeated or sys.stderr.isatty()):
        warn(f"topup: to do: {ending.remedy}")
    remember(settings, ending, reached=not lost())
    return ending.code
