"""What is wrong with an account as far as its ledger shows, and what is to be done about it? The worst first."""

from collections.abc import Iterator
from typing import Final

from topup.accounting.standing import Trouble
from topup.app.assembly import rails_before
from topup.app.hosts import CLOSED_REMEDY, closed
from topup.app.settings import Settings, secret_file
from topup.domain.credits import Reading
from topup.domain.lifecycle import State, TopUp
from topup.domain.moments import span
from topup.domain.money import Usd
from topup.domain.notes import Note
from topup.domain.policy import Why
from topup.ledger.store import SqliteStore

APPRISE: Final = "notify.apprise_file"
# A reading that is older than so many of the longest waits between two has been missed.
MISSED: Final = 3
STUCK: Final = {
    State.HALTED: "nothing more is done about it, and money may have moved",
    State.UNCREDITED: "it is paid, and its credits have not come",
}


def troubles(
    store: SqliteStore,
    settings: Settings,
    last: Reading | None,
    unfinished: TopUp | None,
    *,
    running: bool,
    now_ms: int,
) -> Iterator[Trouble]:
    """Yield what is wrong; `running` tells whether a daemon serves this account."""
    if unfinished is not None and unfinished.state in STUCK:
        word = unfinished.reason.partition(":")[0] or unfinished.state
        look = f"`topup show {unfinished.id}`, and docs/runbook.md under {word}"
        yield Trouble(unfinished.state.value, f"{unfinished.id}: {STUCK[unfinished.state]}", look)
    if not running:
        yield Trouble("not_running", "no daemon watches this account, so nothing is bought", "start `topup run`")
    yield from _reading(settings, last, now_ms)
    yield from _rules(store, settings, last)
    for note, what in ((Note.UNPLANNED, "no payment could be planned"), (Note.UNSEEN, "what is out cannot be seen")):
        if store.told(settings.account, note) == "1":
            since = span((now_ms - store.told_at(settings.account, note)) // 1000)
            yield Trouble(note.value, f"for {since} {what}", "`topup doctor` says which provider, price or wallet")
    yield from _deaf(store, settings, now_ms)


def _deaf(store: SqliteStore, settings: Settings, now_ms: int) -> Iterator[Trouble]:
    """Yield the targets that take no messages, of those that are still set."""
    told = settings.notify
    heard = {"webhook": told.webhook_url, "email": told.email_to, "apprise": secret_file(settings, APPRISE)}
    for target, at_ms in store.dead(settings.account).items():
        if heard.get(target):
            since = span((now_ms - at_ms) // 1000)
            detail = f"{target} takes no messages, said {since} ago"
            yield Trouble("target_dead", detail, "`topup notify test` says why")


def _reading(settings: Settings, last: Reading | None, now_ms: int) -> Iterator[Trouble]:
    if last is None:
        yield Trouble("never_read", "the credits were never read", "`topup doctor` says whether the API answers")
    elif now_ms - last.at_ms > MISSED * settings.watch.poll_slowest_s * 1000:
        age = span((now_ms - last.at_ms) // 1000)
        yield Trouble(
            "reading_old", f"the last believed reading is {age} old", "see the daemon's log, and `topup doctor`"
        )


def _rules(store: SqliteStore, settings: Settings, last: Reading | None) -> Iterator[Trouble]:
    control, low = (
        store.control(settings.account),
        last is not None and last.balance < Usd(settings.policy.highest_floor),
    )
    if control.paused:
        by = f" by {control.paused_by}" if control.paused_by else ""
        yield Trouble(Why.PAUSED, f"buying is paused{by}", Why.PAUSED.remedy)
    for rail in settings.rails_in_use:
        if why := closed(settings.api, rail):
            yield Trouble("rail_closed", why, CLOSED_REMEDY)
    if gone := ", ".join(sorted(control.gone)):
        yield Trouble(
            Why.ENDPOINT_GONE, f"{gone} answered that it is gone (410, 404 or 501)", "`topup resume` asks again"
        )
    if (before := rails_before(settings, store)) is not None:
        says = f"this ledger bought by {before}, and by default it is {', '.join(settings.rails_in_use)}"
        yield Trouble(Why.RAIL_CHANGED, says, Why.RAIL_CHANGED.remedy)
    if low and settings.mode != "live":
        yield Trouble(Why.OBSERVE_ONLY, "the balance is below the floor, and mode is observe", Why.OBSERVE_ONLY.remedy)
