"""How does a statement become a file for Beancount or hledger?

Each closing balance is asserted at the end, so that a changed line does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from topup.accounting.journal import Commodity, Entry
from topup.accounting.statement import Balances, Statement, amount
from topup.domain.money import plain

# Beancount wants capital letters in a commodity's name.
BEANS: Final[Mapping[Commodity, str]] = {
    Commodity.ETH: "ETH",
    Commodity.USDC: "USDC",
    Commodity.USDC_E: "USDC.E",
    Commodity.PATH_USD: "PATHUSD",
    Commodity.CREDIT: "USD.CREDIT",
}
OPENING_TEXT: Final = "opening balances"


def beancount(told: Statement) -> str:
    """Return the statement for Beancount: `bean-check` accepts it, and each closing balance is asserted."""
    first, after = told.period.first, told.period.last + timedelta(days=1)
    used = _used(told)
    out = [
        f'option "title" "topup: {_quoted(told.account)}, {told.period}"',
        f"; ledger head {told.head or 'none'}",
        "",
    ]
    out += [f"{first} commodity {BEANS[one]}" for one in Commodity]
    out += [f"{first} open {_bean(account)}" for account in sorted({account for account, _ in used})]
    if told.opening:
        out += ["", f'{first} * "{OPENING_TEXT}"', *(_posting(*one, _bean, BEANS) for one in _rows(told.opening))]
    for entry in told.entries:
        out += ["", f'{_date(entry)} * "{_quoted(entry.text)}"']
        out += [f'  {key}: "{_quoted(value)}"' for key, value in _about(entry, told.wallet(entry)).items()]
        out += [_posting(x.account, x.commodity, x.units, _bean, BEANS) for x in entry.lines]
    out += [""]
    for account, commodity in used:
        units = told.closing.get((account, commodity), 0)
        out.append(f"{after} balance {_bean(account)}  {plain(amount(units, commodity))} {BEANS[commodity]}")
    return "\n".join(out) + "\n"


def hledger(told: Statement) -> str:
    """Return the statement for hledger: `hledger check --strict` accepts it, each closing balance is asserted."""
    used = _used(told)
    names = {one: f'"{one.value}"' if not one.value.isalpha() else one.value for one in Commodity}
    out = [f"; topup: {_one_line(told.account)}, {told.period}; ledger head {told.head or 'none'}", ""]
    out += [f"commodity {plain(amount(1, one)).replace('1', '0')} {names[one]}" for one in Commodity]
    out += [f"account {account}" for account in sorted({account for account, _ in used})]
    if told.opening:
        out += ["", f"{told.period.first} * {OPENING_TEXT}"]
        out += [_posting(*one, str, names) for one in _rows(told.opening)]
    for entry in told.entries:
        about = ", ".join(
            f"{key}:{_one_line(value).replace(',', ' ')}" for key, value in _about(entry, told.wallet(entry)).items()
        )
        # A semicolon would begin a comment, a parenthesis at the start a transaction's code.
        text = _one_line(entry.text).translate(str.maketrans(";()", ",[]"))
        out += ["", f"{_date(entry)} * {text}" + (f"  ; {about}" if about else "")]
        out += [_posting(x.account, x.commodity, x.units, str, names) for x in entry.lines]
    if used:
        out += ["", f"{told.period.last} * closing balances"]
        for account, commodity in used:
            units = told.closing.get((account, commodity), 0)
            name = names[commodity]
            out.append(f"    {account}  0 {name} = {plain(amount(units, commodity))} {name}")
    return "\n".join(out) + "\n"


def _used(told: Statement) -> Sequence[tuple[str, Commodity]]:
    lines = {(x.account, x.commodity) for entry in told.entries for x in entry.lines}
    return sorted({*told.opening, *told.closing, *lines}, key=lambda one: (one[0], one[1].value))


def _rows(balances: Balances) -> list[tuple[str, Commodity, int]]:
    return [(account, commodity, units) for (account, commodity), units in sorted(balances.items())]


def _posting(
    account: str, commodity: Commodity, units: int, named: Callable[[str], str], names: Mapping[Commodity, str]
) -> str:
    return f"    {named(account)}  {plain(amount(units, commodity))} {names[commodity]}"


def _about(entry: Entry, wallet: str) -> dict[str, str]:
    told = {
        "topup": entry.topup_id,
        "tx": "0x" + entry.tx_hash.hex() if entry.tx_hash is not None else "",
        "block": str(entry.block_number) if entry.block_number is not None else "",
        "charge": entry.charge_id,
        "usd": str(entry.usd_value) if entry.usd_value is not None else "",
        "price": entry.price_source,
        "wallet": wallet,
    }
    return {key: value for key, value in told.items() if value}


def _bean(account: str) -> str:
    return ":".join(part[:1].upper() + part[1:] for part in account.split(":"))


def _quoted(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _date(entry: Entry) -> date:
    return datetime.fromtimestamp(entry.at_ms // 1000, UTC).date()
