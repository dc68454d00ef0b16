"""What is a person asked before one refill, and told after it? The wish itself is carried out in `wish.py`."""

import os
import sys
from contextlib import closing
from dataclasses import replace
from urllib.parse import urlsplit

import typer

from topup.app import assembly, keys, signals
from topup.app.daemon import outcome_exit
from topup.app.funding import funding, named
from topup.app.hosts import CLOSED_REMEDY, closed
from topup.app.log import LogSink
from topup.app.output import lost, warn
from topup.app.settings import Settings
from topup.commands import check
from topup.commands.answer import Answer, labelled, to_do
from topup.commands.start import dollars_of, load, wait_for
from topup.commands.story import Story
from topup.commands.wish import Ending, Once, remember, unbegun
from topup.domain.errors import Exit, SettingsError
from topup.domain.notes import Note
from topup.domain.policy import Why
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, PassResult, PurchaseOrder
from topup.ports.account import Sink
from topup.ports.ledger import Wish
from topup.wire.clock import SystemClock


def answer(
    amount: str | None, request_id: str | None, timeout_s: int, *, dry_run: bool, yes: bool, force: bool
) -> Answer:
    """Make one cycle, and buy if that is wished for or due; with `dry_run` only decide.

    A person at a terminal is shown what it costs at most, to whom and by which way, and asked; elsewhere nothing is
    bought without `yes`.

    Raises:
        SettingsError: the amount or the wish's name cannot be taken.
        typer.Abort: a person was asked, and said no.
        TopupError: with the exit code that says whether money may have moved.
    """
    wish = Wish(dollars_of(amount), force, _name(request_id), os.getuid())
    settings = load()
    if dry_run:
        return _rehearsed(wait_for(_decided(settings, wish)), wish)
    for rail in settings.rails_in_use:
        if why := closed(settings.api, rail):
            warn(f"topup: {why}; to do: {CLOSED_REMEDY}")
    agreed = yes or settings.mode != "live"
    if not agreed and sys.stdin.isatty():
        asked = _asked(settings, wish)
        if isinstance(asked, Answer):
            return asked
        agreed = asked
    elif not agreed and (wish.amount is not None or wish.forced):
        why, detail = Why.NOT_AGREED, "off a terminal nothing is bought without --yes"
        refused = Ending(int(Exit.PERSON), "forbidden", why, detail, remedy=why.remedy)
        return Answer(refused.document(), [refused.line() + to_do(why.remedy)], refused.code)
    clock = SystemClock()
    with closing(LogSink.of(settings, clock)) as log:
        once = Once(
            settings, wish, timeout_s=timeout_s, clock=clock, sink=_sink(settings, log, clock), warn=warn, agreed=agreed
        )
        ending = wait_for(once.run())
    # Where all is well a log that somebody reads holds no advice; a person at a terminal may want to know.
    last = ending.line() + (to_do(ending.remedy) if _seen() else "")
    return Answer(ending.document(), [last], ending.code, then=lambda: _delivered(settings, ending))


def _sink(settings: Settings, log: LogSink, clock: SystemClock) -> Sink:
    """Return who takes the events: a story for a person at a terminal, where no form of the log is asked for."""
    if not _seen() or settings.log.format != "auto" or settings.log.level == "debug":
        return log
    return Story(warn, keys.masker(settings), clock.now_ms, settings.rails_in_use[0])


async def _decided(settings: Settings, wish: Wish) -> Answer:
    return await check.ask_and_decide(settings, PurchaseOrder(wish.amount, wish.forced))


def _rehearsed(seen: Answer, wish: Wish) -> Answer:
    """Return what was decided with the exit code that the same purchase would have, had it been made."""
    if seen.exit == Exit.MONEY_MAY_HAVE_MOVED:
        return seen
    made = {"buy": "done", "hold": "held", "refuse": "forbidden", "unknown": "unknown"}[seen.document["decision"]]
    rest = PassResult(made, seen.document["why"], "", 0)
    code = outcome_exit(rest, wanted=wish.amount is not None)
    return replace(seen, document=seen.document | {"exit_code": int(code)}, exit=code)


def _name(text: str | None) -> str | None:
    if text is not None and not (text.isprintable() and 0 < len(text.strip()) == len(text) <= 200):
        remedy = "give up to 200 printable characters, such as an invoice's number"
        raise SettingsError(f"--request-id {text[:40]!a} is no name for a wish", remedy=remedy)
    return text


def _asked(settings: Settings, wish: Wish) -> bool | Answer:
    """Show a person what would be bought, and ask; return whether anything may be, or what there is to say instead.

    Where nothing is due there is nothing to ask, and nothing may be bought. A no is an Abort.
    """
    try:
        with signals.Raised():
            seen = wait_for(_decided(settings, wish))
            if seen.document["decision"] == "refuse":
                return _rehearsed(seen, wish)
            if seen.document["decision"] != "buy":
                return False
            warn("\n".join(_price_and_payee(settings, seen)))
            typer.confirm(f"buy {seen.document['amount_usd']} dollars of credit from the wallet?", abort=True, err=True)
    except (KeyboardInterrupt, typer.Abort):
        if signals.first() is None:
            raise
        return Answer({}, (), unbegun(settings, wish, SystemClock()))
    return True


def _price_and_payee(settings: Settings, seen: Answer) -> list[str]:
    """Return what a purchase costs at most, to whom it goes and by which way, in lines."""
    rail, told = settings.rails_in_use[0], seen.document
    if rail == COINBASE:
        with closing(SqliteStore.open_copy(settings.state_dir)) as store:
            pinned = assembly.pins(settings, store.told(settings.account, Note.PINNED)).recipients
        who = ", ".join("0x" + one.hex() for one in sorted(pinned)) or "nobody yet: `topup pin` shows whom"
    else:
        (named_by,) = (one for one in named(settings) if one.rail == rail)
        who = f"{', '.join(named_by.recipients) or 'whomever the offer names'}, {named_by.whose}"
    funds = funding(settings, rail)
    dollar = assembly.pay_with(settings) if rail == COINBASE else funds.dollar.asset
    rows = {
        "buys": f"{told['amount_usd']} dollars of credit at {urlsplit(settings.api.url).hostname}: {told['detail']}",
        "costs": f"at most {told['most_it_may_cost_usd']} dollars and network fees; {'; '.join(told['notes'])}",
        "pays": who,
        "by": f"{rail}, with {dollar} on {funds.chain}",
    }
    return labelled(6, rows)


def _delivered(settings: Settings, ending: Ending) -> int:
    """Add the remedy to a printed ending, store whether it has reached its reader, and return its exit code."""
    if ending.remedy and (ending.code or ending.repeated) and not _seen():
        warn(f"topup: to do: {ending.remedy}")
    remember(settings, ending, reached=not lost())
    return ending.code


def _seen() -> bool:
    """Tell whether a person reads standard error, which may be closed."""
    return sys.stderr is not None and sys.stderr.isatty()
