"""How is the life of a top-up told on a terminal, and to the provider's support? Without control characters."""

from typing import Any, Final

from topup.accounting.journal import CONVERSION, Commodity
from topup.accounting.statement import amount
from topup.domain.lifecycle import Broadcaster
from topup.domain.money import Wei, plain
from topup.payment.config import COINBASE
from topup.wire.clean import escaped

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
# What names a payment, by its label: that of a charge, or as far as it is known that of an authorization.
CHARGE: Final = {"charge id": "charge_id", "intent id": "intent_id", "operator": "operator", "contract": "contract"}
AUTHORIZATION: Final = {
    "seller": "seller",
    "reference": "reference",
    "idempotency": "idempotency_key",
    "challenge": "challenge_id",
    "nonce": "authorization_nonce",
    "memo": "memo",
    "token": "token",
    "valid until": "valid_until_at",
}


def life_lines(life: dict[str, Any]) -> list[str]:
    """Return a life for a terminal: what was decided, what was done, what was seen, what was booked."""
    t = life["topup"]
    lines = [
        f"{t['id']}  {t['state']}  {t['amount_usd']} dollars  {t['reason']}".rstrip(),
        f"account   {t['account']}, {t['rail']} on chain {t['chain_id']}, wallet {t['wallet']}",
        (
            f"decided   {t['decided_at']}: {t['why']}{', by hand' if t['forced'] else ''};"
            f" balance {_or_unknown(t['balance_before_usd'])} dollars,"
            f" total_credits {_or_unknown(t['total_credits_before_usd'])} before, wallet {_eth(t['wallet_before_wei'])}"
        ),
        f"credited  {t['credited_at'] or 'no'}",
        "arrows",
    ]
    lines += [
        f"  {m['at']}  {m['fact']:<12} {m['state']:<10} {_span(m['stayed_ms']):>9}  {m['detail']}".rstrip()
        for m in life["moves"]
    ]
    for charge in life["charges"]:
        lines += _charge_lines(charge)
    for attempt in life["attempts"]:
        lines += _attempt_lines(attempt)
    lines += _seen_lines(life)
    return [escaped(line) for line in lines]


def support_lines(purchase: dict[str, Any]) -> list[str]:
    """Return what support needs as plain text, to be pasted into a ticket."""
    is_charge = purchase["rail"] == COINBASE
    named = CHARGE if is_charge else AUTHORIZATION
    credited = f"credited at {purchase['credited_at']}" if purchase["credited"] else "paid on the chain, not credited"
    rows = {
        **{label: purchase[name] for label, name in named.items() if is_charge or purchase[name] is not None},
        "chain id": purchase["chain_id"],
        "transaction": purchase["tx_hash"],
        "block": f"{purchase['block_number']} {purchase['block_hash']}",
        "block time": purchase["block_at"],
        "payer": purchase["payer"],
        "recipient": purchase["recipient"],
        "paid": f"{_or_unknown(purchase['paid_usdc'])} {purchase.get('asset', Commodity.USDC)}"
        f" ({_or_unknown(purchase['paid_units'])} units)",
        "expected": f"{purchase['credits_expected_usd']} dollars of credit",
        "before": f"total_credits {_or_unknown(purchase['total_credits_before_usd'])}"
        f" at {_or_unknown(purchase['total_credits_before_at'])}",
        "last read": f"total_credits {_or_unknown(purchase['total_credits_last_usd'])}"
        f" at {_or_unknown(purchase['total_credits_last_at'])}",
        "our id": purchase["topup_id"],
    }
    lines = [f"Purchase of {purchase['credits_expected_usd']} dollars of credit: {credited}", ""]
    lines += [f"{name:<12} {_or_unknown(value)}" for name, value in rows.items()]
    lines += ["", "timeline (UTC)", *(f"  {event['at']}  {event['what']}" for event in purchase["timeline"])]
    return [escaped(line) for line in lines]


def _charge_lines(c: dict[str, Any]) -> list[str]:
    answered = "no answer stored"
    if c["answered_ms"] is not None:
        answered = f"answered after {_span(c['answered_ms'] - c['requested_ms'])}"
    marks = ["proven" if c["proven"] else "not proven"]
    marks += [f"{word}: {c[word]}" for word in ("unreadable", "abandoned", "dead") if c[word] is not None]
    lines = [f"charge {c['seq']}  asked {c['requested_at']}, {answered}; {'; '.join(marks)}"]
    if c["intent_id"] is not None:
        lines.append(f"  {c['charge_id'] or 'unknown charge'}; intent {c['intent_id']} of operator {c['operator']}")
    elif c["charge_id"] is not None:
        lines.append(f"  {c['charge_id']}")
    if c["recipient"] is not None:
        kept = f", of which the operator keeps {c['operator_fee_usdc']}" if c["operator_fee_usdc"] is not None else ""
        lines.append(f"  {c['total_usdc']} USDC to {c['recipient']}; fees {c['fees_usdc']}{kept}")
        lines.append(f"  payable until {c['deadline_at']}")
    return lines


def _attempt_lines(a: dict[str, Any]) -> list[str]:
    sent = f"sent {a['sends']}×, last {_clock(a['last_sent_at'])}: {a['answer']}" if a["sends"] else "no answer yet"
    if a["intended_ms"] is None:
        sent = "withdrawn, never sent" if a["withdrawn"] else "never sent"
    times = [f"{word} {_clock(a[f'{word}_at'])}" for word in ("planned", "signed", "intended")]
    fees = f"{_gwei(a['max_fee_per_gas_wei'])} gwei a gas, tip {_gwei(a['max_priority_fee_per_gas_wei'])}"
    terms = (
        f"{_eth(a['value_wei'])}, gas limit {a['gas_limit']} at most {fees}; costs {_eth(a['cost_max_wei'])} at most"
    )
    carried = a["broadcaster"] == Broadcaster.SERVER
    if carried:
        terms = (
            f"{_units(a, 'token_units')}, and {_units(a, 'token_fee_max_units')} of fees at most;"
            f" the seller carries it to the chain; good until {a['valid_until_at']}"
        )
    lines = [
        f"attempt {a['id']}  {a['kind']} for charge {a['charge_seq']}, nonce {a['nonce']}, {a['tx_hash'] or 'no hash'}",
        f"  {terms}",
        f"  {'; '.join([', '.join(times), sent])}",
    ]
    i = a["inclusion"]
    if i is not None:
        end = "paid" if i["success"] and a["kind"] == "pay" else "took its nonce" if i["success"] else "reverted"
        marks = [end, *([i["reason"]] if i["reason"] else []), *[m for m in ("booked", "final") if a[m]]]
        lines.append(f"  in block {i['block_number']} {i['block_hash']} at {_clock(i['block_at'])}: {', '.join(marks)}")
        cost = f"{_eth(i['spent_wei'])} for the payment, {_eth(i['gas_wei'])} gas, {_eth(i['l1_fee_wei'])} L1 fee"
        if carried:
            cost = f"{_amount(a['asset'], int(i['token_units']))} for the payment"
            cost += f", {_amount(a['asset'], int(i['token_fee_units']))} fees"
        lines.append(f"  cost {cost}")
    return lines


def _units(a: dict[str, Any], name: str) -> str:
    return _amount(a["asset"], int(a[name]))


def _seen_lines(life: dict[str, Any]) -> list[str]:
    lines = ["evidence"] if life["evidence"] else []
    lines += [
        f"  {e['seen_at']}  attempt {e['attempt']} {e['kind']}"
        + (f" in block {e['block_number']}" if e["block_number"] is not None else "")
        for e in life["evidence"]
    ]
    lines += [f"adopted   {a['adopted_at']} by {a['by']}: {a['tx_hash'] or 'unknown'}" for a in life["adopted"]]
    lines += ["journal"] if life["entries"] else []
    for entry in life["entries"]:
        value = f", {entry['usd_value']} dollars by {entry['price_source']}" if entry["usd_value"] is not None else ""
        lines.append(f"  {entry['booked_at']}  {entry['text']}{value}")
        # What turns one commodity into another says nothing to a person; --json has every line.
        moved = [x for x in entry["lines"] if x["account"] != CONVERSION]
        lines += [f"    {x['account']:<24} {_amount(x['commodity'], int(x['units'])):>32}" for x in moved]
    return lines


def _clock(moment: str | None) -> str:
    return "never" if moment is None else moment.split(" ")[1]


def _span(ms: int | None) -> str:
    if ms is None:
        return ""
    for unit, name in ((24 * HOUR_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min")):
        if ms >= unit:
            return f"{ms // unit}.{ms % unit * 10 // unit} {name}"
    return f"{ms // SECOND_MS}.{ms % SECOND_MS:03d} s"


def _amount(commodity: str, units: int) -> str:
    counted = Commodity(commodity)
    return f"{plain(amount(units, counted))} {'dollars' if counted is Commodity.CREDIT else commodity}"


def _eth(wei: str | None) -> str:
    return "unknown" if wei is None else str(Wei(int(wei)))


def _gwei(wei: str) -> str:
    whole, part = divmod(int(wei), 10**9)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)
