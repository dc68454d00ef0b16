"""What was the whole life of one top-up, and what does the provider's support have to know of it?

From the ledger alone: no web3, no network. Signed bytes are never printed, nor what was answered byte for byte, nor
anything that may hold a key; foreign text is printed without control characters. Of an authorization it is printed what
it says, never its signature.
"""

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from topup.commands.answer import Answer
from topup.commands.show import text
from topup.commands.start import read_ledger
from topup.domain.coinbase_charge import Charge, parse
from topup.domain.errors import ChargeRefused, Exit, SettingsError
from topup.domain.events import show
from topup.domain.json_document import read
from topup.domain.lifecycle import TERMINAL, Attempt, Inclusion, TopUp
from topup.domain.money import Usdc, plain
from topup.domain.tempo import TRANSFER_WITH_MEMO
from topup.ledger.store import Life, SqliteStore
from topup.payment.config import COINBASE, MPP, X402
from topup.sellers.mpp_wire import challenges
from topup.wire.clean import escaped


def answer(beginning: str, *, for_support: bool) -> Answer:
    """Tell the whole life of a top-up, or only what the provider's support has to know of it."""
    settings, store, now_ms = read_ledger()
    life = find(store, settings.account, beginning)
    if for_support:
        document = support_document(store, life)
        return Answer(document, text.support_lines(document), Exit.OK)
    document = life_document(life, now_ms)
    return Answer(document, text.life_lines(document), Exit.OK)


def find(store: SqliteStore, account: str, beginning: str) -> Life:
    """Return the life of the top-up of which this is the id, or a beginning; a SettingsError for none or several."""
    ids = store.named(account, beginning) if beginning else []
    if len(ids) != 1 and beginning not in ids:
        said = escaped(beginning)
        raise SettingsError(
            f"several top-ups begin with {said}: {', '.join(ids)}" if ids else f"no top-up {said} in account {account}",
            remedy="`topup history` lists them; the beginning of an id is enough where it is the only one",
        )
    return store.life(beginning if beginning in ids else ids[0])


def life_document(life: Life, now_ms: int) -> dict[str, Any]:
    """Return everything that is stored as one JSON-ready document: amounts as strings, times in ms and in UTC."""
    t = life.topup
    return {
        "schema": 1,
        "topup": {
            "id": t.id,
            "account": t.account,
            "state": t.state.value,
            "reason": t.reason,
            "finished": t.state in TERMINAL,
            "amount_usd": show(t.amount),
            "why": t.why,
            "forced": t.forced,
            "rail": t.rail,
            "chain_id": t.chain_id,
            "wallet": show(t.wallet),
            "balance_before_usd": show(t.balance_before),
            "total_credits_before_usd": show(t.baseline),
            "wallet_before_wei": show(t.wallet_before),
            **_times(decided=t.decided_ms, moved=t.moved_ms, credited=t.credited_ms),
        },
        "moves": _moves(life, now_ms),
        "charges": [_charge(t, row) for row in life.charges],
        "attempts": [_attempt(t.rail, a, row) for a, row in zip(t.attempts, life.attempts, strict=True)],
        "evidence": [_evidence(row) for row in life.evidence],
        "entries": [_entry(row) for row in life.entries],
        "adopted": [
            {
                **_times(adopted=row["at_ms"]),
                "by": row["by"],
                "nonce": str(int.from_bytes(row["nonce"], "big")),
                "tx_hash": show(row["tx_hash"]),
                "block_number": row["block_number"],
                "cost_wei": row["cost"],
            }
            for row in life.adopted
        ],
    }


def support_document(store: SqliteStore, life: Life) -> dict[str, Any]:
    """Return what the provider's support needs, of which nothing is secret; a SettingsError where nothing was paid."""
    t, paying, payment = life.topup, life.topup.paying, life.topup.payment
    if paying is None or payment is None:
        raise SettingsError(
            f"{t.id} is {t.state.value} and no payment of it is known", remedy=f"`topup show {t.id}` tells its life"
        )
    row = life.charges[paying.charge_seq - 1]
    last = store.last_reading(t.account)
    baseline_ms = next((m["at_ms"] for m in reversed(life.moves) if m["fact"] == "reserve"), None)
    return {
        "schema": 1,
        "topup_id": t.id,
        "rail": t.rail,
        "state": t.state.value,
        "credited": t.credited_ms is not None,
        **(_bought(t, row) if t.rail == COINBASE else _handed_over(t.rail, paying, row)),
        "chain_id": t.chain_id,
        "tx_hash": show(paying.tx_hash),
        "block_number": payment.block_number,
        "block_hash": show(payment.block_hash),
        **_times(block=payment.block_ms),
        "payer": show(t.wallet),
        "credits_expected_usd": show(t.amount),
        "total_credits_before_usd": show(t.baseline),
        **_times(total_credits_before=baseline_ms),
        "total_credits_last_usd": show(last.total_credits) if last is not None else None,
        **_times(total_credits_last=last.at_ms if last is not None else None, credited=t.credited_ms),
        "timeline": [{"at": m["at"], "at_ms": m["at_ms"], "what": w} for m, w in _timeline(life)],
    }


def _bought(t: TopUp, row: dict[str, Any]) -> dict[str, Any]:
    charge = _charge(t, row)
    named = {name: charge[name] for name in ("charge_id", "intent_id", "operator", "recipient", "contract")}
    return {**named, "paid_units": charge["total_units"], "paid_usdc": charge["total_usdc"]}


def _handed_over(rail: str, paying: Attempt, row: dict[str, Any]) -> dict[str, Any]:
    plan, (recipient, memo) = paying.plan, _signed(rail, paying)
    return {
        **_kept(rail, row["raw"]),
        "reference": paying.reference or None,
        "authorization_nonce": show(paying.hash) if rail == X402 else None,
        "memo": show(memo),
        "recipient": show(recipient),
        "token": show(plan.to),
        "asset": plan.asset.value,
        "paid_units": show(plan.tokens),
        "paid_usdc": _usdc(plan.tokens),
        **_times(valid_until=plan.ends_s * 1000 or None),
    }


# -- documents --------------------------------------------------------------------------------------------------


def _timeline(life: Life) -> list[tuple[dict[str, Any], str]]:
    """Return the arrows as an outsider understands them; what a provider or node has answered is left out."""
    words = {
        "decide": "decided to buy",
        "ask": "charge requested",
        "answered": "charge received",
        "intend": "transaction sent",
        "bump": "transaction sent again with a higher fee",
        "reverted": "transaction failed in its block",
        "paid": "payment seen in a block",
        "vanished": "its block was replaced",
        "posting_late": "credits overdue",
        "posted": "credits seen",
        "settled": "block safe, purchase closed",
    }
    if life.topup.rail != COINBASE:
        words |= {
            "ask": "offer requested",
            "answered": "offer received",
            "intend": "authorization handed to the seller",
        }
    return [({**m, "at": _moment(m["at_ms"])}, words[m["fact"]]) for m in life.moves if m["fact"] in words]


def _times(**at_ms: int | None) -> dict[str, Any]:
    """Return each time twice: `x_ms`, and `x_at` as text in UTC."""
    times: dict[str, Any] = {}
    for name, ms in at_ms.items():
        times[f"{name}_ms"] = ms
        times[f"{name}_at"] = _moment(ms) if ms is not None else None
    return times


def _moment(ms: int) -> str:
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}Z"


def _moves(life: Life, now_ms: int) -> list[dict[str, Any]]:
    """Return the arrows with how long each state lasted; the last of an open top-up until now, of an ended one None."""
    ends: Iterable[int | None] = [*(m["at_ms"] for m in life.moves[1:]), None]
    moves = []
    for move, end in zip(life.moves, ends, strict=True):
        until = now_ms if end is None and life.topup.state not in TERMINAL else end
        stayed = until - move["at_ms"] if until is not None else None
        moves.append({**move, "at": _moment(move["at_ms"]), "stayed_ms": stayed})
    return moves


def _kept(rail: str, raw: bytes | None) -> dict[str, str | None]:
    """Return what was kept of an answer by a seller that carries the payment; None where it cannot be read."""
    nothing: dict[str, str | None] = dict.fromkeys(("seller", "idempotency_key", "challenge_id"))
    try:
        kept = read(raw or b"")
        seller = str(kept["seller"])
        if rail != MPP:
            return nothing | {"seller": seller}
        ours = [c for c in challenges(list(kept["challenges"])) if c.get("method") == "tempo"]
        chosen = kept.get("chosen", ours[0].get("id") if ours else None)
        challenge = None if chosen is None else str(chosen)
        return {"seller": seller, "idempotency_key": str(kept["key"]), "challenge_id": challenge}
    except (ValueError, LookupError, TypeError, ChargeRefused):
        return nothing


def _signed(rail: str, attempt: Attempt) -> tuple[bytes | None, bytes | None]:
    """Return whom an authorization pays, and under which memo, by what was signed; None where that does not say."""
    if rail == MPP:
        data = attempt.plan.data
        # The call's three words: recipient, amount, memo.
        right = data[:4] == TRANSFER_WITH_MEMO and len(data) == 100
        return (data[16:36], data[68:100]) if right else (None, None)
    try:
        document = read(base64.b64decode((attempt.raw or b"").partition(b": ")[2]))
        return bytes.fromhex(document["payload"]["authorization"]["to"].removeprefix("0x")), None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None, None


def _demanded(topup: TopUp, row: dict[str, Any]) -> dict[str, Any]:
    """Return a demand of a seller that carries the payment, in the words of a charge, as far as it was signed."""
    attempt = next((a for a in topup.attempts if a.charge_seq == row["seq"] and not a.withdrawn), None)
    plan, recipient = (attempt.plan, _signed(topup.rail, attempt)[0]) if attempt is not None else (None, None)
    nonce = attempt.hash if attempt is not None and topup.rail == X402 else None
    return {
        "charge_id": _kept(topup.rail, row["raw"])["challenge_id"] or show(nonce),
        "operator": None,
        "intent_id": None,
        "chain_id": topup.chain_id,
        "contract": show(plan.to) if plan is not None else None,
        "recipient": show(recipient),
        **_cost(topup, plan.tokens if plan is not None else None),
        "operator_fee_usdc": None,
        **_times(deadline=(plan.ends_s * 1000 or None) if plan is not None else None),
    }


def _cost(topup: TopUp, total: Usdc | None) -> dict[str, Any]:
    return {
        "total_units": show(total),
        "total_usdc": _usdc(total),
        "fees_usdc": _usdc(total - topup.amount.usdc_down()) if total is not None else None,
    }


def _usdc(amount: Usdc | None) -> str | None:
    return plain(amount.usdc) if amount is not None else None


def _charge(topup: TopUp, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "seq": row["seq"],
        **_times(requested=row["requested_ms"], answered=row["answered_ms"]),
        "proven": row["intent_id"] is not None,
        "abandoned": row["abandoned"],
        "dead": row["dead"],
        "unreadable": None,
        **(_demanded(topup, row) if topup.rail != COINBASE else _coinbase_charge(topup, row)),
    }


def _coinbase_charge(topup: TopUp, row: dict[str, Any]) -> dict[str, Any]:
    demand: Charge | None = None
    unreadable = None
    if row["raw"] is not None:
        try:
            demand = parse(row["raw"])
        except ChargeRefused as error:
            unreadable = str(error)
    intent = demand.intent if demand is not None else None
    return {
        "unreadable": unreadable,
        "charge_id": demand.charge_id if demand is not None else None,
        "operator": show(intent.operator if intent is not None else row["operator"]),
        "intent_id": show(intent.id if intent is not None else row["intent_id"]),
        "chain_id": demand.chain_id if demand is not None else None,
        "contract": show(demand.contract) if demand is not None else None,
        "recipient": show(intent.recipient) if intent is not None else None,
        **_cost(topup, intent.total if intent is not None else None),
        "operator_fee_usdc": _usdc(intent.operator_fee) if intent is not None else None,
        **_times(deadline=intent.deadline * 1000 if intent is not None else None),
    }


def _attempt(rail: str, attempt: Attempt, row: dict[str, Any]) -> dict[str, Any]:
    plan = attempt.plan
    # The hash of an x402 attempt is its authorization's nonce, and of a sponsored one that of what was signed; the
    # transaction is whoever's that carries it.
    by_nonce = (rail == X402 or plan.sponsored) and attempt.inclusion is None
    return {
        "id": attempt.id,
        "charge_seq": attempt.charge_seq,
        "kind": plan.kind.value,
        "lane": str(plan.lane),
        "nonce": str(plan.nonce),
        "tx_hash": None if by_nonce else show(attempt.tx_hash),
        "broadcaster": plan.broadcaster.value,
        "asset": plan.asset.value,
        "token_units": show(plan.tokens),
        "token_fee_max_units": show(plan.token_fee),
        **_times(valid_until=plan.ends_s * 1000 or None),
        "to": show(plan.to),
        "value_wei": show(plan.value),
        "quote_wei": show(plan.quote),
        "gas_limit": plan.gas_limit,
        "max_fee_per_gas_wei": show(plan.max_fee_per_gas),
        "max_priority_fee_per_gas_wei": show(plan.max_priority_fee_per_gas),
        "l1_fee_planned_wei": show(plan.l1_fee),
        "cost_max_wei": show(plan.cost_max),
        "planned_on_block": plan.block_number,
        "proof": plan.proof,
        **_times(
            planned=row["planned_ms"],
            signed=row["signed_ms"],
            intended=row["intended_ms"],
            last_sent=row["last_sent_ms"],
        ),
        "sends": attempt.sends,
        "answer": attempt.answer,
        "withdrawn": attempt.withdrawn,
        "inclusion": _included(attempt.inclusion) if attempt.inclusion is not None else None,
        "booked": attempt.booked,
        "final": bool(row["final"]),
    }


def _included(inclusion: Inclusion) -> dict[str, Any]:
    return {
        "success": inclusion.success,
        "block_number": inclusion.block_number,
        "block_hash": show(inclusion.block_hash),
        **_times(block=inclusion.block_ms),
        "spent_wei": show(inclusion.spent),
        "gas_wei": show(inclusion.gas),
        "l1_fee_wei": show(inclusion.l1_fee),
        "token_units": show(inclusion.tokens),
        "token_fee_units": show(inclusion.token_fee),
        "reason": inclusion.reason,
        "transient": inclusion.transient,
    }


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    seen = read(str(row["detail"]).encode()) if row["detail"] else {}
    block = {"block_number": seen.get("block_number"), "block_hash": seen.get("block_hash")}
    return {**_times(seen=row["at_ms"]), "attempt": row["attempt"], "kind": row["kind"], **block}


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("text", "charge_id", "block_number", "usd_value", "price_source", "lines")}
    return {**_times(booked=row["at_ms"]), **shown, "tx_hash": show(row["tx_hash"])}
