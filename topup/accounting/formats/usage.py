"""How does usage by day, model, key or label read, and what does each one's share cost?"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from topup.accounting.formats.csv_journal import safe
from topup.accounting.statement import Period
from topup.accounting.usage import NOBODY, Share, Used, dollars
from topup.domain.money import Usd, plain

SCHEMA = 1
HEAD = (
    "by",
    "name",
    "key",
    "from",
    "to",
    "used_usd",
    "usd_per_credit",
    "cost_usd",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "state",
)


class By(StrEnum):
    """By what usage is split."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    LABEL = "label"


# As what a row is shown whose name is empty.
UNNAMED: Mapping[By, str] = {
    By.DAY: "?",
    By.MODEL: "(no model)",
    By.KEY: "(no key that is still there)",
    By.LABEL: "(no label)",
}


class Source(StrEnum):
    """Who says it, and how sure it is."""

    FINAL = "final"  # the provider's own account of days that are over
    TOTALS = "totals"  # what its totals moved by on days it does not tell more of, or has not yet
    PROVISIONAL = "provisional"  # the current day, so far


@dataclass(frozen=True)
class Row:
    """One line: a day, a model, a key or a label. `cost` is None where no refill tells what a credit costs."""

    name: str
    key: str
    used: Used
    cost: Usd | None
    source: Source


@dataclass(frozen=True)
class Usage:
    """What was used in a period.

    Attributes:
        rows: the table.
        rate: what one dollar of credit has cost in all; None where no refill tells.
        missing: spans of days that are over and of which the provider has not told models and keys.
        notes: what a reader has to know besides.
    """

    account: str
    by: By
    period: Period
    rows: tuple[Row, ...]
    rate: Decimal | None
    missing: tuple[tuple[date, date], ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> Usd:
        """Return the sum of all rows."""
        return dollars(sum(row.used.nano for row in self.rows))


def rows(by: By, told: Sequence[Used], shares: Sequence[Share] | None, names: Mapping[str, str]) -> list[Row]:
    """Return lines for what is final, named for a person; `shares` are of the same order as `told`."""
    costs = [one.cost for one in shares] if shares is not None else [None] * len(told)
    return [
        Row(
            names.get(one.name, one.name) or UNNAMED[by],
            one.name if by is By.KEY and one.name != NOBODY else "",
            one,
            cost,
            Source.FINAL,
        )
        for one, cost in zip(told, costs, strict=True)
    ]


def document(told: Usage) -> dict[str, Any]:
    """Return it as a JSON-ready document; amounts are exact decimal text in dollars."""
    return {
        "schema": SCHEMA,
        "account": told.account,
        "by": told.by.value,
        "from": told.period.first.isoformat(),
        "to": told.period.last.isoformat(),
        "zone": "UTC",
        "total_usd": str(told.total),
        "usd_per_credit": plain(told.rate) if told.rate is not None else None,
        "rows": [
            {
                "name": row.name,
                "key": row.key or None,
                "used_usd": str(row.used.usd),
                "cost_usd": str(row.cost) if row.cost is not None else None,
                "requests": row.used.requests if row.source is Source.FINAL else None,
                "prompt_tokens": row.used.prompt_tokens if row.source is Source.FINAL else None,
                "completion_tokens": row.used.completion_tokens if row.source is Source.FINAL else None,
                "state": row.source.value,
            }
            for row in told.rows
        ],
        "missing": [{"from": first.isoformat(), "to": last.isoformat()} for first, last in told.missing],
        "notes": list(told.notes),
    }


def lines(told: Usage) -> list[str]:
    """Return it for a terminal."""
    width = max([len(row.name) for row in told.rows] + [12])
    out = [f"Usage of {told.account} by {told.by}, {told.period}", ""]
    if told.rows:
        out.append(f"{told.by:<{width}}{'used $':>14}{'cost $':>14}{'requests':>12}{'tokens in':>14}{'out':>14}")
    for row in told.rows:
        known = row.source is Source.FINAL
        counts = (row.used.requests, row.used.prompt_tokens, row.used.completion_tokens) if known else ("", "", "")
        cost = f"{row.cost.amount:.4f}" if row.cost is not None else "?"
        mark = "" if known else f"  {row.source}"
        cells = f"{row.used.usd.amount:>14.4f}{cost:>14}{counts[0]:>12}{counts[1]:>14}{counts[2]:>14}{mark}"
        out.append(f"{_printable(row.name):<{width}}{cells}")
    out += ["", f"total {told.total} dollars of credit"]
    if told.rate is not None:
        out.append(f"cost: {plain(told.rate)} dollars paid for each, fees, network and swap included")
    out += [f"note: {_printable(one)}" for one in told.notes]
    return out


def write(told: Usage) -> str:
    """Return it as CSV, safe to open in a spreadsheet."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(HEAD)
    rate = plain(told.rate) if told.rate is not None else ""
    for row in told.rows:
        final = row.source is Source.FINAL
        counts = (row.used.requests, row.used.prompt_tokens, row.used.completion_tokens) if final else ("", "", "")
        cost = plain(row.cost.amount) if row.cost is not None else ""
        used = plain(row.used.usd.amount)
        first, last = told.period.first, told.period.last
        table.writerow(
            (told.by.value, safe(row.name), safe(row.key), first, last, used, rate, cost, *counts, row.source)
        )
    return out.getvalue()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
