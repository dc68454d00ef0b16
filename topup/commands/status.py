"""How do things stand? From the ledger alone, without web3 and the network, unless they are asked for."""

import signal
import sys
from contextlib import closing
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from threading import Event
from typing import Any, Final

from topup.accounting.journal import Commodity
from topup.app.assembly import limits
from topup.app.settings import Settings
from topup.commands.answer import Answer, labelled, shown
from topup.commands.start import load, wait_for
from topup.commands.troubles import STUCK, troubles
from topup.domain.credits import DAY_MS, HOUR_MS, NOTHING, Reading, Runway, burn_usd_per_hour, runway
from topup.domain.errors import Exit
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.domain.moments import moment, span
from topup.domain.money import Usd, Usdc, Wei, plain
from topup.domain.notes import DAEMON, Note
from topup.ledger.store import SqliteStore
from topup.wire.clock import SystemClock

WINDOWS: Final = {"24h": "24 hours", "30d": "30 days"}
FUNDED: Final = {
    "yes": "FUNDED",
    "low": "LOW, below its floor",
    "no": "EMPTY, and requests are refused",
    "unknown": "nothing is known of its credits",
}
# What has to happen next, for as long as a top-up stays in a state; those that are over wait for nothing.
WAITS: dict[State, str] = {
    State.DECIDED: "for a pass that asks the seller",
    State.ASKING: "for the seller's answer; an unpaid charge is harmless",
    State.CHARGED: "until it can be planned and paid: see `reason`, and the daemon's log",
    State.RESERVED: "to be signed; nothing has left",
    State.SIGNED: "to be sent; nothing has left",
    State.SENT: "for a block that holds the payment, or for proof that none ever will",
    State.REVERTED: "for another try of the same charge, or for its end",
    State.DEATHWATCH: "for proof that its charge can never be paid",
    State.PAID: "for the provider to post the credits",
    State.CREDITED: "for the payment's block to be final",
    State.UNCREDITED: "for the credits, late as they are, or for a person: `topup show` has what support needs",
    State.HALTED: "for a person: see `topup show` and docs/runbook.md",
}


def answer(*, live: bool) -> Answer:
    """Say how things stand; with `live` the API and the chain are asked as well."""
    settings = load()
    with closing(SqliteStore.open_reader(settings.state_dir)) as store:
        document = status(store, settings, SystemClock().now_ms())
    if live:
        from topup.commands.check import ask_live

        document["live"] = wait_for(ask_live(settings))
    unfinished = document["open"]
    stuck = unfinished is not None and unfinished["state"] in STUCK
    return Answer(document, status_lines(document), Exit.MONEY_MAY_HAVE_MOVED if stuck else Exit.OK)


def watch(*, every_s: float = 2) -> Answer:
    """Show how things stand on a terminal, again and again, until a Ctrl-C; its exit code is that of the last look."""
    sys.modules.pop("rich", None)  # kept out of what is loaded for nothing; see `cli.main`
    from rich.live import Live
    from rich.text import Text

    stopped = Event()
    # A KeyboardInterrupt would be lost where it is raised in a place that swallows it, such as a destructor.
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        seen = answer(live=False)
        with Live(Text("\n".join(seen.lines)), auto_refresh=False) as screen:
            while not stopped.wait(every_s):
                seen = answer(live=False)
                screen.update(Text("\n".join(seen.lines)), refresh=True)
    finally:
        signal.signal(signal.SIGINT, before)
    return replace(seen, lines=())


def topup_document(topup: TopUp) -> dict[str, Any]:
    """Return one top-up as a JSON-ready document; amounts as strings."""
    paid = topup.payment
    hashes = ["0x" + a.tx_hash.hex() for a in topup.out if a.tx_hash is not None]
    return {
        "id": topup.id,
        "state": topup.state.value,
        "waits_for": WAITS.get(topup.state),
        "amount_usd": str(topup.amount),
        "why": topup.why,
        "reason": topup.reason,
        "decided_ms": topup.decided_ms,
        "moved_ms": topup.moved_ms,
        "charges_requested": len(topup.charges),
        "tx_hashes": hashes,
        "block": paid.block_number if paid is not None else None,
        "spent_wei": str(paid.spent.units) if paid is not None else None,
        "gas_wei": str(paid.gas.units) if paid is not None else None,
        "l1_fee_wei": str(paid.l1_fee.units) if paid is not None else None,
        "finished": topup.state in TERMINAL,
    }


def status(store: SqliteStore, settings: Settings, now_ms: int) -> dict[str, Any]:
    """Return what is known without asking anybody: the last believed reading, its runway, what is open, what was."""
    account, allowed = settings.account, limits(settings)
    last = store.last_reading(account)
    burn = burn_usd_per_hour(store.readings(account, now_ms - DAY_MS))
    left = runway(last.balance, allowed.floor, burn) if last is not None else Runway(None, None)
    unfinished = store.open_topup(account)
    control = store.control(account)
    day, month = store.counted(account, now_ms, allowed.fee_ceiling.bps)
    daemon = _daemon(store, settings)
    wrong = troubles(store, settings, last, unfinished, running=daemon is not None, now_ms=now_ms)
    return {
        "schema": 1,
        "account": account,
        "mode": "live" if allowed.live else "observe",
        "funded": _funded(last, allowed.floor),
        "daemon": daemon,
        "rails": list(settings.rails_in_use),
        "paused": control.paused,
        "rails_gone": sorted(control.gone),
        "total_credits_usd": str(last.total_credits) if last is not None else None,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "read_s_ago": (now_ms - last.at_ms) // 1000 if last is not None else None,
        "floor_usd": str(allowed.floor),
        "burn_usd_per_hour": shown(burn),
        "hours_to_floor": shown(left.to_floor_h),
        "hours_to_empty": shown(left.to_empty_h),
        "empty_ms": _after(last, left.to_empty_h),
        "spent_24h_usd": str(day),
        "cap_24h_usd": str(allowed.cap_24h),
        "spent_30d_usd": str(month),
        "cap_30d_usd": str(allowed.cap_30d),
        "left_wallet_24h": _amounts(store.left_wallet(account, now_ms - DAY_MS)),
        "left_wallet_30d": _amounts(store.left_wallet(account, now_ms - 30 * DAY_MS)),
        "open": topup_document(unfinished) if unfinished is not None else None,
        "last": [topup_document(t) for t in store.latest(account, 5)],
        "troubles": [trouble.document() for trouble in wrong],
    }


def _daemon(store: SqliteStore, settings: Settings) -> dict[str, Any] | None:
    """Return the process that serves this account, and since when, in ledger time; None where none does."""
    directory, served = settings.state_dir, store.told("", Note.SERVES)
    if SqliteStore.writer(directory) != DAEMON or served not in (None, settings.account):
        return None
    if not SqliteStore.held(directory):
        return None
    since_ms = store.told_at("", Note.SERVES) if served is not None else None
    return {"pid": SqliteStore.holder(directory), "since_ms": since_ms}


def _funded(last: Reading | None, floor: Usd) -> str:
    if last is None:
        return "unknown"
    return "yes" if last.balance >= floor else "low" if last.balance > NOTHING else "no"


def _after(last: Reading | None, hours: Decimal | None) -> int | None:
    return None if last is None or hours is None else last.at_ms + int(hours * HOUR_MS)


def _amounts(sums: dict[Commodity, int]) -> dict[str, str]:
    """Return amounts by commodity, as decimal text."""
    return {
        name.value: plain(Wei(units).eth if name is Commodity.ETH else Usdc(units).usdc) for name, units in sums.items()
    }


def status_lines(document: dict[str, Any]) -> list[str]:
    """Return the status for a terminal."""
    unfinished, now_ms = document["open"], SystemClock().now_ms()
    counted = [f"{document[f'spent_{s}_usd']} of {document[f'cap_{s}_usd']} dollars in {t}" for s, t in WINDOWS.items()]
    left = [f"{_listed(document[f'left_wallet_{s}'])} in {t}" for s, t in WINDOWS.items()]
    rows = {
        "account": f"{document['account']}: {FUNDED[document['funded']]}",
        "credits": _credits_line(document),
        "lasts": _lasts_line(document),
        "daemon": _daemon_line(document["daemon"], now_ms),
        "mode": f"{document['mode']}{', paused' if document['paused'] else ''}; by {', '.join(document['rails'])}",
        "spent": "left the wallet: " + "; ".join(left),
        "caps": "counted: " + "; ".join(counted),
        "open": brief(unfinished) if unfinished is not None else "nothing",
        "waits": unfinished["waits_for"] if unfinished is not None else None,
    }
    wrong = [f"{'wrong':<9} {trouble['detail']}; to do: {trouble['remedy']}" for trouble in document["troubles"]]
    return labelled(9, rows | document.get("live", {})) + wrong


def _credits_line(document: dict[str, Any]) -> str:
    if document["balance_usd"] is None:
        return "never read"
    balance, floor = Usd.of(document["balance_usd"]).cents_down(), document["floor_usd"]
    return f"{balance} dollars, read {span(document['read_s_ago'])} ago; refilled below {floor}"


def _lasts_line(document: dict[str, Any]) -> str | None:
    burn, floor_h = document["burn_usd_per_hour"], document["hours_to_floor"]
    if burn is None:
        return None
    if document["empty_ms"] is None:
        return "for ever: nothing is used"
    floor = f"; {span(int(Decimal(floor_h) * 3600))} to the floor" if floor_h is not None else ""
    return f"until {moment(document['empty_ms'] // 1000)} at {Usd.of(burn).cents_up()} dollars an hour{floor}"


def _daemon_line(daemon: dict[str, Any] | None, now_ms: int) -> str:
    if daemon is None:
        return "not running"
    process = f"process {daemon['pid']}" if daemon["pid"] is not None else "a process that cannot be seen from here"
    since = f" for {span((now_ms - daemon['since_ms']) // 1000)}" if daemon["since_ms"] is not None else ""
    return f"running{since}: {process}"


def _listed(amounts: dict[str, str]) -> str:
    """Write what left, as people read it: rounded up to a millionth."""
    read = {name: Decimal(amount).quantize(Decimal("0.000001"), ROUND_UP) for name, amount in amounts.items()}
    return " and ".join(f"{plain(amount)} {name}" for name, amount in read.items()) or "nothing"


def brief(document: dict[str, Any]) -> str:
    """Return one top-up in a line."""
    end = " ".join(document["tx_hashes"]) or document["reason"]
    return f"{document['id']}  {document['state']:<10} {document['amount_usd']:>8} dollars  {end}".rstrip()
