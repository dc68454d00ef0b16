"""How does a statement read for a person, and for a program as JSON?"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from topup.accounting.journal import Commodity, Entry
from topup.accounting.statement import Balances, Refill, Statement, amount
from topup.domain.moments import moment
from topup.domain.money import Wei, plain

SCHEMA = 1


def lines(told: Statement) -> list[str]:
    """Return the statement for a terminal."""
    out = [
        f"Statement of {told.account}, {told.period}",
        f"drawn up {moment(told.drawn_ms // 1000)}; ledger head {told.head or 'none: the journal is empty'}",
        "",
        f"{'account':<28}{'':<12}{'opening':>26}{'closing':>26}",
    ]
    keys = sorted({*told.opening, *told.closing}, key=lambda key: (key[0], key[1].value))
    for account, commodity in keys:
        first, last = (plain(amount(b.get((account, commodity), 0), commodity)) for b in (told.opening, told.closing))
        out.append(f"{account:<28}{commodity.value:<12}{first:>26}{last:>26}")
    out += ["", f"credits   bought {told.bought}, bought elsewhere {told.elsewhere}, used {told.used}"]
    out += ["", *(_refill(one) for one in told.refills)] if told.refills else ["", "no top-ups"]
    out += ["", *(f"note: {one}" for one in told.differences)] if told.differences else ["", "no differences"]
    return out


def document(told: Statement) -> dict[str, Any]:
    """Return the statement as a JSON-ready document; amounts are exact decimal text in whole units."""
    return {
        "schema": SCHEMA,
        "account": told.account,
        "from": told.period.first.isoformat(),
        "to": told.period.last.isoformat(),
        "zone": "UTC",
        "drawn_ms": told.drawn_ms,
        "ledger_head": told.head,
        "opening": _balances(told.opening),
        "closing": _balances(told.closing),
        "credits": {"bought": str(told.bought), "elsewhere": str(told.elsewhere), "used": str(told.used)},
        "topups": [
            {
                "id": one.topup_id,
                "posted_ms": one.posted_ms,
                "credits_usd": str(one.credits),
                "fees": plain(one.fees.usdc),
                "network_eth": plain(Wei(one.network_wei).eth),
                "network_tokens": plain(one.network_tokens.usdc),
                "swap_cost_eth": plain(Wei(one.swap_wei).eth),
                "usd": str(one.usd) if one.usd is not None else None,
                "usd_per_credit": plain(one.usd_per_credit) if one.usd_per_credit is not None else None,
                "tx_hashes": ["0x" + tx.hex() for tx in one.tx_hashes],
            }
            for one in told.refills
        ],
        "entries": [_entry(one, told.wallet(one)) for one in told.entries],
        "differences": list(told.differences),
    }


def _balances(balances: Balances) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for (account, commodity), units in sorted(balances.items(), key=lambda one: (one[0][0], one[0][1].value)):
        out.setdefault(account, {})[commodity.value] = plain(amount(units, commodity))
    return out


def _entry(entry: Entry, wallet: str) -> dict[str, Any]:
    return {
        "at_ms": entry.at_ms,
        "topup": entry.topup_id or None,
        "text": entry.text,
        "tx_hash": "0x" + entry.tx_hash.hex() if entry.tx_hash is not None else None,
        "charge_id": entry.charge_id,
        "block": entry.block_number,
        "usd_value": str(entry.usd_value) if entry.usd_value is not None else None,
        "price_source": entry.price_source,
        "wallet": wallet or None,
        "lines": [
            {"account": x.account, "commodity": x.commodity.value, "amount": plain(amount(x.units, x.commodity))}
            for x in entry.lines
        ],
    }


def _refill(one: Refill) -> str:
    when = moment(one.posted_ms // 1000) if one.posted_ms is not None else "not posted"
    usd = f"{one.usd.cents_up()} dollars left the wallet" if one.usd is not None else "its price is not known"
    each = f", {plain(one.usd_per_credit)} a credit" if one.usd_per_credit is not None else ""
    eth = Decimal(amount(one.network_wei, Commodity.ETH))
    network = [plain(eth) + " ETH"] if one.network_wei else []
    network += [str(one.network_tokens)] if one.network_tokens.units else []
    fees = f"fees {one.fees}, network {' and '.join(network) or 'nothing'}"
    fees += f", swap cost {plain(Wei(one.swap_wei).eth)} ETH" if one.swap_wei else ""
    return f"{when:<21} {one.topup_id}  {one.credits} credits; {usd}{each}; {fees}"
