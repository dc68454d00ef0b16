"""How does a statement read for a person, and for a program as JSON?"""

from typing import Any

from topup.accounting.journal import Entry
from topup.accounting.statement import Balances, Refill, Statement, shown
from topup.domain.moments import moment
from topup.domain.money import Wei, plain

SCHEMA = 1


def lines(statement: Statement) -> list[str]:
    """Return the statement for a terminal."""
    out = [
        f"Statement of {statement.account}, {statement.period}",
        f"drawn up {moment(statement.drawn_ms // 1000)}; ledger head {statement.head or 'none: the journal is empty'}",
        "",
        f"{'account':<28}{'':<12}{'opening':>26}{'closing':>26}",
    ]
    for account, commodity, first, last in statement.balances:
        amounts = f"{shown(first, commodity):>26}{shown(last, commodity):>26}"
        out.append(f"{account:<28}{commodity.value:<12}{amounts}")
    used = f"used {statement.used_so_far}"
    if statement.unclosed is not None:
        closed = moment(statement.unclosed.since_ms // 1000)
        used += f", {statement.unclosed.used} of it since the books were closed at {closed}"
    out += ["", f"credits   bought {statement.bought}, bought elsewhere {statement.elsewhere}, {used}"]
    out += ["", *(_refill(refill) for refill in statement.refills)] if statement.refills else ["", "no top-ups"]
    out += (
        ["", *(f"note: {note}" for note in statement.differences)] if statement.differences else ["", "no differences"]
    )
    return out


def document(statement: Statement) -> dict[str, Any]:
    """Return the statement as a JSON-ready document; amounts are exact decimal text in whole units."""
    return {
        "schema": SCHEMA,
        "account": statement.account,
        "from": statement.period.first.isoformat(),
        "to": statement.period.last.isoformat(),
        "zone": "UTC",
        "drawn_ms": statement.drawn_ms,
        "ledger_head": statement.head,
        "opening": _balances(statement.opening),
        "closing": _balances(statement.closing),
        "credits": {
            "bought": str(statement.bought),
            "elsewhere": str(statement.elsewhere),
            "used": str(statement.used),
            "used_not_closed": str(statement.unclosed.used) if statement.unclosed is not None else None,
        },
        "topups": [
            {
                "id": refill.topup_id,
                "posted_ms": refill.posted_ms,
                "credits_usd": str(refill.credits),
                "fees": plain(refill.fees.usdc),
                "network_eth": plain(Wei(refill.network_wei).eth),
                "network_tokens": plain(refill.network_tokens.usdc),
                "swap_cost_eth": plain(Wei(refill.swap_wei).eth),
                "usd": str(refill.usd) if refill.usd is not None else None,
                "usd_per_credit": plain(refill.usd_per_credit) if refill.usd_per_credit is not None else None,
                "tx_hashes": ["0x" + tx.hex() for tx in refill.tx_hashes],
            }
            for refill in statement.refills
        ],
        "entries": [_entry(entry, statement.wallet(entry)) for entry in statement.entries],
        "differences": list(statement.differences),
    }


def _balances(balances: Balances) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for (account, commodity), units in sorted(balances.items()):
        out.setdefault(account, {})[commodity.value] = shown(units, commodity)
    return out


def _entry(entry: Entry, wallet: str) -> dict[str, Any]:
    return {
        "at_ms": entry.at_ms,
        "topup": entry.topup_id or None,
        "text": entry.text,
        "tx_hash": entry.tx or None,
        "charge_id": entry.charge_id,
        "block": entry.block_number,
        "usd_value": str(entry.usd_value) if entry.usd_value is not None else None,
        "price_source": entry.price_source,
        "wallet": wallet or None,
        "lines": [
            {"account": x.account, "commodity": x.commodity.value, "amount": shown(x.units, x.commodity)}
            for x in entry.lines
        ],
    }


def printable(text: str) -> str:
    """Return text on one line, with question marks for what cannot be seen."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _refill(refill: Refill) -> str:
    usd = f"{refill.usd.cents_up()} dollars left the wallet" if refill.usd is not None else "its price is not known"
    each = f", {plain(refill.usd_per_credit)} a credit" if refill.usd_per_credit is not None else ""
    network = [str(taken) for taken in (Wei(refill.network_wei), refill.network_tokens) if taken.units]
    fees = f"fees {refill.fees}, network {' and '.join(network) or 'nothing'}"
    fees += f", swap cost {Wei(refill.swap_wei)}" if refill.swap_wei else ""
    return f"{refill.posted:<21} {refill.topup_id}  {refill.credits} credits; {usd}{each}; {fees}"
