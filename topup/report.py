"""What does the ledger say? Status and history as documents, from the store alone: no web3, no network."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from topup.credits import DAY_MS, burn_usd_per_hour, runway
from topup.errors import SettingsError
from topup.lifecycle import TERMINAL, TopUp
from topup.money import Usd, plain
from topup.policy import Limits
from topup.statement import Period, Statement, draw
from topup.store.journal import Audit
from topup.store.sqlite import SqliteStore


def topup_document(topup: TopUp) -> dict[str, Any]:
    """Return one top-up as a JSON-ready document; amounts as strings."""
    paid = topup.payment
    hashes = ["0x" + a.tx_hash.hex() for a in topup.out if a.tx_hash is not None]
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
        "rails_gone": sorted(control.gone),
        "total_credits_usd": str(last.total_credits) if last is not None else None,
        "balance_usd": str(last.balance) if last is not None else None,
        "read_ms": last.at_ms if last is not None else None,
        "read_s_ago": (now_ms - last.at_ms) // 1000 if last is not None else None,
        "floor_usd": str(limits.floor),
        "burn_usd_per_hour": str(burn) if burn is not None else None,
        "hours_to_floor": _hours(left.to_floor_h) if left is not None else None,
        "hours_to_empty": _hours(left.to_empty_h) if left is not None else None,
        "spent_24h_usd": str(day),
        "cap_24h_usd": str(limits.cap_24h),
        "spent_30d_usd": str(month),
        "cap_30d_usd": str(limits.cap_30d),
        "open": topup_document(unfinished) if unfinished is not None else None,
        "last": [topup_document(t) for t in store.latest(account, 5)],
    }


def period_of(month: str | None, first: str | None, last: str | None, now_ms: int) -> Period:
    """Return the period that options name: a month, a first and a last day, or else the month of `now_ms`.

    Raises:
        SettingsError: they are no period, or two of them.
    """
    if month is not None and (first or last):
        raise SettingsError("--month is given beside --from or --to", remedy="give a month, or two days")
    if first is None and last is None:
        return Period.month(month or datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m"))
    if first is None or last is None:
        raise SettingsError(
            "--from and --to belong together", remedy="give both, such as --from 2026-11-01 --to 2026-11-15"
        )
    return Period.days(first, last)


def statement_of(store: SqliteStore, account: str, period: Period, now_ms: int) -> Statement:
    """Draw up the statement of a period, from the ledger alone."""
    readings = [r for r in store.readings(account, period.first_ms) if r.at_ms < period.end_ms]
    last = readings[-1] if readings else None
    return draw(account, period, store.entries(account), reading=last, head=store.head(), now_ms=now_ms)


def audit_lines(audit: Audit, sought: str | None) -> list[str]:
    """Return for a terminal what reading the whole journal has shown."""
    if audit.wrong is not None:
        number, why = audit.wrong
        return [
            f"CHANGED   entry {number}: {why}",
            f"          the {audit.count} before it are what was written",
            "to do     compare with a backup, and find out who can write to this file; do not let it buy meanwhile",
        ]
    lines = [f"verified  {audit.count} entries, each balanced and chained", f"head      {audit.head.hex() or 'none'}"]
    if sought is not None and audit.since is None:
        lines[0] = f"CHANGED   {audit.count} entries follow one another, and none has the hash {sought}"
        lines.append("to do     the ledger was replaced, or cut and written anew, since that hash was printed")
    elif sought is not None:
        lines.append(f"since     {audit.since} entries after {sought}")
    return lines


def status_lines(told: dict[str, Any]) -> list[str]:
    """Return the status for a terminal."""
    lines = [f"account   {told['account']} ({told['mode']}{', paused' if told['paused'] else ''})"]
    if told["balance_usd"] is None:
        lines.append("credits   never read")
    else:
        read = f"read {told['read_s_ago']} s ago; floor {told['floor_usd']}"
        lines.append(f"credits   {told['balance_usd']} dollars, {read}")
    if told["burn_usd_per_hour"] is not None:
        left = f"{told['hours_to_floor'] or '?'} h to the floor, {told['hours_to_empty'] or '?'} h to empty"
        lines.append(f"burn      {told['burn_usd_per_hour']} dollars an hour; {left}")
    day, month = (f"{told[f'spent_{s}_usd']} of {told[f'cap_{s}_usd']}" for s in ("24h", "30d"))
    lines.append(f"spent     {day} in 24 h, {month} in 30 d")
    if told["rails_gone"]:
        gone = ", ".join(told["rails_gone"])
        lines.append(f"gone      {gone}: answered that it is gone (410, 404 or 501); `topup resume` asks again")
    lines.append(f"open      {_brief(told['open']) if told['open'] is not None else 'nothing'}")
    lines += [f"{name:<9} {value}" for name, value in told.get("live", {}).items()]
    return lines


def history_lines(told: list[dict[str, Any]]) -> list[str]:
    """Return the history for a terminal."""
    return [f"{_moment(t['decided_ms'])}  {_brief(t)}" for t in told] or ["no top-ups yet"]


def _hours(hours: Decimal | None) -> str | None:
    return plain(hours) if hours is not None else None


def _brief(told: dict[str, Any]) -> str:
    end = " ".join(told["tx_hashes"]) or told["reason"]
    return f"{told['id']}  {told['state']:<10} {told['amount_usd']:>8} dollars  {end}".rstrip()


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
