"""How does the account of these settings stand? Gathered from its ledger, without asking anybody."""

from collections.abc import Iterable

from topup.accounting.journal import CREDITS, WALLET, Commodity
from topup.accounting.standing import Daemon, Spent, Standing, Totals, Turnover
from topup.app.assembly import limits
from topup.app.settings import Settings
from topup.app.troubles import troubles
from topup.domain.credits import DAY_MS, Runway, burn_usd_per_hour, runway
from topup.domain.messages import ALARMS, MessageKind
from topup.domain.notes import DAEMON, Note
from topup.ledger.store import SqliteStore

LATEST = 5


def standing(store: SqliteStore, settings: Settings, now_ms: int) -> Standing:
    """Return how the account stands; a TopupError where the ledger cannot be read."""
    account, allowed = settings.account, limits(settings)
    last = store.last_reading(account)
    burn = burn_usd_per_hour(store.readings(account, now_ms - DAY_MS))
    unfinished, control, daemon = store.open_topup(account), store.control(account), _daemon(store, settings)
    day, month = store.counted(account, now_ms, allowed.fee_ceiling.bps)

    return Standing(
        account=account,
        now_ms=now_ms,
        mode="live" if allowed.live else "observe",
        rails=settings.rails_in_use,
        gone=tuple(sorted(control.gone)),
        paused=control.paused,
        last=last,
        floor=allowed.floor,
        burn=burn,
        runway=runway(last.balance, allowed.floor, burn) if last is not None else Runway(None, None),
        day=Spent(day, allowed.cap_24h, store.left_wallet(account, now_ms - DAY_MS)),
        month=Spent(month, allowed.cap_30d, store.left_wallet(account, now_ms - 30 * DAY_MS)),
        unfinished=unfinished,
        latest=tuple(store.latest(account, LATEST)),
        daemon=daemon,
        troubles=tuple(troubles(store, settings, last, unfinished, running=daemon is not None, now_ms=now_ms)),
    )


def totals(store: SqliteStore, account: str, targets: Iterable[str], turnover: Turnover) -> Totals:
    """Return what the ledger has counted, `targets` being those that are told; a TopupError where it cannot be read.

    `turnover` is what was summed up before, and goes on.
    """
    turnover.add(store.movements(account, turnover.entry))
    alarms = {kind for kind in ALARMS if store.told(account, Note.ALARM.of(kind.value)) == "1"}
    if store.dead(account):  # it holds for each target on its own
        alarms.add(MessageKind.TARGET_DEAD)
    return Totals(
        ended=store.ended(account),
        credited=turnover.came(CREDITS).get(Commodity.CREDIT, 0),
        left=turnover.went(WALLET),
        returned=turnover.came(WALLET),
        alarms=frozenset(alarms),
        messages={name: store.outstanding(account, name) for name in targets},
    )


def _daemon(store: SqliteStore, settings: Settings) -> Daemon | None:
    directory, served = settings.state_dir, store.told("", Note.SERVES)
    if SqliteStore.writer(directory) != DAEMON or served not in (None, settings.account):
        return None
    if not SqliteStore.held(directory):
        return None
    return Daemon(SqliteStore.holder(directory), store.told_at("", Note.SERVES) if served is not None else None)
