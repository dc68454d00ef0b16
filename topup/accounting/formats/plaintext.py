"""How does a statement become a file for Beancount or hledger?

Each closing balance is asserted at the end, so that a changed line does not pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from topup.accounting.formats.text import printable
from topup.accounting.journal import Commodity, Entry, Line
from topup.accounting.statement import Statement, amount, shown
from topup.domain.moments import utc_day
from topup.domain.money import plain

# Beancount wants capital letters in a commodity's name.
BEANS: Final[Mapping[Commodity, str]] = {c: c.value.upper() for c in Commodity}
# hledger wants quotes around a name that is more than letters.
NAMES: Final[Mapping[Commodity, str]] = {c: c.value if c.value.isalpha() else f'"{c.value}"' for c in Commodity}


def beancount(statement: Statement) -> str:
    """Return the statement for Beancount: `bean-check` accepts it, and each closing balance is asserted."""
    first, after = statement.period.first, statement.period.last + timedelta(days=1)
    closing = _closing(statement)
    out = [
        f'option "title" "topup: {_quoted(statement.account)}, {statement.period}"',
        f"; ledger head {statement.head or 'none'}",
        "",
    ]
    out += [f"{first} commodity {name}" for name in BEANS.values()]
    out += [f"{first} open {_bean(account)}" for account in sorted({account for account, _, _ in closing})]
    for day, text, about, lines in _transactions(statement):
        out += ["", f'{day} * "{_quoted(text)}"']
        out += [f'  {key}: "{_quoted(value)}"' for key, value in about.items()]
        out += [f"    {_bean(x.account)}  {shown(x.units, x.commodity)} {BEANS[x.commodity]}" for x in lines]
    out += [""]
    out += [f"{after} balance {_bean(account)}  {held} {BEANS[commodity]}" for account, commodity, held in closing]
    return "\n".join(out) + "\n"


def hledger(statement: Statement) -> str:
    """Return the statement for hledger: `hledger check --strict` accepts it, each closing balance is asserted."""
    closing = _closing(statement)
    head = f"; topup: {printable(statement.account)}, {statement.period}; ledger head {statement.head or 'none'}"
    out = [head, ""]
    out += [f"commodity {plain(amount(1, commodity)).replace('1', '0')} {name}" for commodity, name in NAMES.items()]
    out += [f"account {account}" for account in sorted({account for account, _, _ in closing})]
    for day, text, about, lines in _transactions(statement):
        tags = ", ".join(f"{key}:{printable(value).replace(',', ' ')}" for key, value in about.items())
        # A semicolon would begin a comment, a parenthesis at the start a transaction's code.
        title = printable(text).translate(str.maketrans(";()", ",[]"))
        out += ["", f"{day} * {title}" + (f"  ; {tags}" if tags else "")]
        out += [f"    {x.account}  {shown(x.units, x.commodity)} {NAMES[x.commodity]}" for x in lines]
    if closing:
        out += ["", f"{statement.period.last} * closing balances"]
    for account, commodity, held in closing:
        out.append(f"    {account}  0 {NAMES[commodity]} = {held} {NAMES[commodity]}")
    return "\n".join(out) + "\n"


def _transactions(statement: Statement) -> Iterator[tuple[date, str, Mapping[str, str], Sequence[Line]]]:
    """Yield day, text, what is known besides and lines of the opening balances and of each entry."""
    if statement.opening:
        opening = [Line(*key, units) for key, units in sorted(statement.opening.items())]
        yield statement.period.first, "opening balances", {}, opening
    for entry in statement.entries:
        yield utc_day(entry.at_ms), entry.text, _about(entry, statement.wallet(entry)), entry.lines


def _closing(statement: Statement) -> list[tuple[str, Commodity, str]]:
    """Return the closing balance of everything that was there or has moved, zeros too."""
    lines = {(x.account, x.commodity) for entry in statement.entries for x in entry.lines}
    keys = sorted({*statement.opening, *statement.closing, *lines})
    return [(*key, shown(statement.closing.get(key, 0), key[1])) for key in keys]


def _about(entry: Entry, wallet: str) -> dict[str, str]:
    facts = {
        "topup": entry.topup_id,
        "tx": entry.tx,
        "block": str(entry.block_number) if entry.block_number is not None else "",
        "charge": entry.charge_id,
        "usd": str(entry.usd_value) if entry.usd_value is not None else "",
        "price": entry.price_source,
        "wallet": wallet,
    }
    return {key: value for key, value in facts.items() if value}


def _bean(account: str) -> str:
    return ":".join(part[:1].upper() + part[1:] for part in account.split(":"))


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
