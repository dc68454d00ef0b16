"""How do things stand? From the ledger alone, without web3 and the network, unless they are asked for."""

from typing import Any

from topup.commands.answer import Answer, labelled, shown
from topup.commands.start import load, wait_for
from topup.domain.credits import DAY_MS, burn_usd_per_hour, runway
from topup.domain.errors import Exit
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.domain.money import Usd
from topup.domain.policy import Limits
from topup.ledger.store import SqliteStore

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
    from topup.app.assembly import limits
    from topup.wire.clock import SystemClock

    settings = load()
    store = SqliteStore.open_reader(settings.state_dir)
    document = status(store, settings.account, limits(settings), SystemClock().now_ms())
    if live:
        from topup.commands.check import ask_live

        document["live"] = wait_for(ask_live(settings))
    unfinished = document["open"]
    stuck = unfinished is not None and unfinished["state"] in (State.HALTED, State.UNCREDITED)
    return Answer(document, status_lines(document), Exit.MONEY_MAY_HAVE_MOVED if stuck else Exit.OK)


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


def status(store: SqliteStore, account: str, limits: Limits, now_ms: int) -> dict[str, Any]:
    """Return what is known without asking anybody: the last believed reading, its runway, what is open, what was."""
    last = store.last_reading(account)
    burn = burn_usd_per_hour(store.readings(account, now_ms - DAY_MS))
    left = runway(last.balance, limits.floor, burn) if last is not None else None
    unfinished = store.open_topup(account)
    control = store.control(account)
    past = store.past(account, now_ms - 30 * DAY_MS, limits.fee_ceiling.bps)
    day = sum((p.spent for p in past if p.decided_ms > now_ms - DAY_MS), Usd.of(0))
    month = sum((p.spent for p in past), Usd.of(0))
    return {
        "schema": 1,
        "account": account,
        "mode": "live" if limits.live else "observe",
        "paused": control.paused,
        "rails_gone": sorted(control.gone),
        "total_credits_usd": str(last.total_credits) if last is not None else None,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "read_s_ago": (now_ms - last.at_ms) // 1000 if last is not None else None,
        "floor_usd": str(limits.floor),
        "burn_usd_per_hour": shown(burn),
        "hours_to_floor": shown(left.to_floor_h) if left is not None else None,
        "hours_to_empty": shown(left.to_empty_h) if left is not None else None,
        "spent_24h_usd": str(day),
        "cap_24h_usd": str(limits.cap_24h),
        "spent_30d_usd": str(month),
        "cap_30d_usd": str(limits.cap_30d),
        "open": topup_document(unfinished) if unfinished is not None else None,
        "last": [topup_document(t) for t in store.latest(account, 5)],
    }


def status_lines(document: dict[str, Any]) -> list[str]:
    """Return the status for a terminal."""
    unfinished, gone, burn = document["open"], ", ".join(document["rails_gone"]), document["burn_usd_per_hour"]
    left = f"{document['hours_to_floor'] or '?'} h to the floor, {document['hours_to_empty'] or '?'} h to empty"
    read = f"{document['balance_usd']} dollars, read {document['read_s_ago']} s ago; floor {document['floor_usd']}"
    day, month = (f"{document[f'spent_{s}_usd']} of {document[f'cap_{s}_usd']}" for s in ("24h", "30d"))
    rows = {
        "account": f"{document['account']} ({document['mode']}{', paused' if document['paused'] else ''})",
        "credits": read if document["balance_usd"] is not None else "never read",
        "burn": f"{burn} dollars an hour; {left}" if burn is not None else None,
        "spent": f"{day} in 24 h, {month} in 30 d",
        "gone": f"{gone}: answered that it is gone (410, 404 or 501); `topup resume` asks again" if gone else None,
        "open": brief(unfinished) if unfinished is not None else "nothing",
        "waits": unfinished["waits_for"] if unfinished is not None else None,
    }
    return labelled(9, rows | document.get("live", {}))


def brief(document: dict[str, Any]) -> str:
    """Return one top-up in a line."""
    end = " ".join(document["tx_hashes"]) or document["reason"]
    return f"{document['id']}  {document['state']:<10} {document['amount_usd']:>8} dollars  {end}".rstrip()
