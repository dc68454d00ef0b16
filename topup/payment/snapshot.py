"""What do the rules look at? Gathered from the ledger, beside a reading and what a person asks for."""

from dataclasses import replace

from topup.domain.credits import (
    DAY_MS,
    HOUR_MS,
    RUNWAY_SPAN_MIN_MS,
    Reading,
    Unknown,
    burn_usd_per_hour,
    spending,
    spending_since,
)
from topup.domain.lifecycle import TopUp
from topup.domain.money import Usd
from topup.domain.policy import Limits, Snapshot
from topup.payment.config import Account, PurchaseOrder
from topup.ports.ledger import Store


def snapshot(
    store: Store,
    account: Account,
    limits: Limits,
    reading: Reading | Unknown,
    asked: PurchaseOrder,
    now_ms: int,
    *,
    beside: TopUp | None = None,
) -> Snapshot:
    """Gather what the rules look at; `beside` is the top-up being decided again, left out of its own past."""
    name = account.name
    past = store.past(name, now_ms - 30 * DAY_MS, limits.fee_ceiling.bps)
    if beside is not None:
        # Its own gas counts, its own amount is what is being decided.
        past = [
            replace(p, spent=Usd.of(0), failed=False) if p.topup_id == beside.id and not p.written_off else p
            for p in past
        ]
    unfinished, control = store.open_topup(name), store.control(name)
    readings = store.readings(name, spending_since(now_ms, control.resumed_ms))
    return Snapshot(
        now_ms=now_ms,
        reading=reading,
        burn=burn_usd_per_hour(readings, span_min_ms=RUNWAY_SPAN_MIN_MS),
        past=past,
        charge_requests_ms=() if beside is not None else store.charge_requests(name, now_ms - HOUR_MS),
        paused=control.paused,
        gone=control.gone >= {route.rail for route in account.routes},
        open_topup=unfinished.id if unfinished is not None and beside is None else None,
        ever_non_zero=store.ever_non_zero(name),
        asked_amount=asked.amount,
        forced=asked.forced,
        resumed_ms=control.resumed_ms,
        spending=spending(readings, now_ms, resumed_ms=control.resumed_ms),
        rails_before=account.other_rails(control.rails),
    )
