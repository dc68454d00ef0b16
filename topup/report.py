"""What does the ledger say? Status and history as documents, from the store alone: no web3, no network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from topup.credits import DAY_MS, burn_usd_per_hour, runway
from topup.events import show
from topup.lifecycle import TERMINAL, TopUp
from topup.money import Usd
from topup.policy import Limits, worst_spend
from topup.store.sqlite import SqliteStore


def topup_document(topup: TopUp) -> dict[str, Any]:
    """Return one top-up as a JSON-ready document; amounts as strings."""
    paid = topup.payment
    hashes = [show(a.hash) for a in topup.out if a.hash is not None]
    return {
        "id": topup.id,
        "state": topup.state.value,
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
        "endpoint_gone": control.gone,
        "total_credits_usd": str(last.total_credits) if last is not None else None,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "read_s_ago": (now_ms - last.at_ms) // 1000 if last is not None else None,
        "floor_usd": str(limits.floor),
        "burn_usd_per_hour": show(burn),
        "hours_to_floor": show(left.to_floor_h) if left is not None else None,
        "hours_to_empty": show(left.to_empty_h) if left is not None else None,
        "spent_24h_usd": str(day),
        "cap_24h_usd": str(limits.cap_24h),
        "spent_30d_usd": str(month),
        "cap_30d_usd": str(limits.cap_30d),
        "open": topup_document(unfinished) if unfinished is not None else None,
        "last": [topup_document(t) for t in store.latest(account, 5)],
    }


def next_cost(limits: Limits, amount: Usd) -> Usd:
    """Return the most the next top-up may cost before network fees."""
    return worst_spend(amount, limits)


def status_lines(told: dict[str, Any]) -> list[str]:
    """Return the status for a terminal."""
    lines = [f"account   {told['account']} ({told['mode']}{', paused' if told['paused'] else ''})"]
    if told["balance_usd"] is None:
        lines.append("credits   never read")
    else:
        lines.append(
            f"credits   {told['balance_usd']} dollars, read {told['read_s_ago']} s ago; floor {told['floor_usd']}"
        )
    if told["burn_usd_per_hour"] is not None:
        lines.append(
            f"burn      {told['burn_usd_per_hour']} dollars an hour; {told['hours_to_floor'] or '?'} h to the floor, {told['hours_to_empty'] or '?'} h to empty"
        )
    lines.append(
        f"spent     {told['spent_24h_usd']} of {told['cap_24h_usd']} in 24 h, {told['spent_30d_usd']} of {told['cap_30d_usd']} in 30 d"
    )
    if told["endpoint_gone"]:
        lines.append("gone      the charge endpoint answered 410 Gone; `topup resume` asks it again")
    unfinished = told["open"]
    lines.append(
        "open      nothing"
        if unfinished is None
        else f"open      {unfinished['id']} {unfinished['state']}: {unfinished['amount_usd']} dollars {unfinished['reason']}"
    )
    if "live" in told:
        lines += [f"{name:<9} {value}" for name, value in told["live"].items()]
    return lines


def history_lines(told: list[dict[str, Any]]) -> list[str]:
    """Return the history for a terminal."""
    if not told:
        return ["no top-ups yet"]
    return [
        f"{_moment(t['decided_ms'])}  {t['id']}  {t['state']:<10} {t['amount_usd']:>8} dollars  {' '.join(t['tx_hashes']) or t['reason']}"
        for t in told
    ]


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
