"""How do things stand? From the ledger alone, without web3 and the network, unless they are asked for."""

import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from threading import Event
from typing import Any, Final

from topup.accounting.journal import Commodity
from topup.accounting.standing import FUNDED, WAITS, Standing, listed
from topup.app.standing import standing
from topup.app.troubles import STUCK
from topup.commands.answer import Answer, labelled, shown
from topup.commands.colour import printed
from topup.commands.start import load, wait_for
from topup.domain.errors import Exit
from topup.domain.lifecycle import TERMINAL, TopUp
from topup.domain.moments import moment, span
from topup.domain.money import Usd, Usdc, Wei, plain
from topup.ledger.store import SqliteStore
from topup.wire.clock import SystemClock

WINDOWS: Final = {"24h": "24 hours", "30d": "30 days"}


def answer(*, live: bool) -> Answer:
    """Say how things stand; with `live` the API and the chain are asked as well."""
    settings = load()
    with closing(SqliteStore.open_reader(settings.state_dir)) as store:
        document = status(standing(store, settings, SystemClock().now_ms()))
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
        with Live(Text.from_ansi(printed(seen.lines)), auto_refresh=False) as screen:
            while not stopped.wait(every_s):
                seen = answer(live=False)
                screen.update(Text.from_ansi(printed(seen.lines)), refresh=True)
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


def status(standing: Standing) -> dict[str, Any]:
    """Return how an account stands as a JSON-ready document; amounts as strings."""
    last, unfinished, day, month = standing.last, standing.unfinished, standing.day, standing.month
    return {
        "schema": 1,
        "account": standing.account,
        "mode": standing.mode,
        "funded": standing.funded,
        "daemon": vars(standing.daemon) if standing.daemon is not None else None,
        "rails": list(standing.rails),
        "paused": standing.paused,
        "rails_gone": list(standing.gone),
        "total_credits_usd": str(last.total_credits) if last is not None else None,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "read_s_ago": (standing.now_ms - last.at_ms) // 1000 if last is not None else None,
        "floor_usd": str(standing.floor),
        "burn_usd_per_hour": shown(standing.burn),
        "hours_to_floor": shown(standing.runway.to_floor_h),
        "hours_to_empty": shown(standing.runway.to_empty_h),
        "empty_ms": standing.empty_ms,
        "spent_24h_usd": str(day.counted),
        "cap_24h_usd": str(day.cap),
        "spent_30d_usd": str(month.counted),
        "cap_30d_usd": str(month.cap),
        "left_wallet_24h": _amounts(day.left_wallet),
        "left_wallet_30d": _amounts(month.left_wallet),
        "open": topup_document(unfinished) if unfinished is not None else None,
        "last": [topup_document(topup) for topup in standing.latest],
        "troubles": [trouble.document() for trouble in standing.troubles],
    }


def _amounts(sums: Mapping[Commodity, int]) -> dict[str, str]:
    """Return amounts by commodity, as decimal text."""
    return {
        name.value: plain(Wei(units).eth if name is Commodity.ETH else Usdc(units).usdc) for name, units in sums.items()
    }


def status_lines(document: dict[str, Any]) -> list[str]:
    """Return the status for a terminal."""
    unfinished, now_ms = document["open"], SystemClock().now_ms()
    counted = [f"{document[f'spent_{s}_usd']} of {document[f'cap_{s}_usd']} dollars in {t}" for s, t in WINDOWS.items()]
    left = [f"{listed(document[f'left_wallet_{s}'])} in {t}" for s, t in WINDOWS.items()]
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


def brief(document: dict[str, Any]) -> str:
    """Return one top-up in a line."""
    end = " ".join(document["tx_hashes"]) or document["reason"]
    return f"{document['id']}  {document['state']:<10} {document['amount_usd']:>8} dollars  {end}".rstrip()
