"""How does usage by day, model, key or label read, and what does each one's share cost?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from topup.accounting.formats.csv_journal import safe, sheet
from topup.accounting.formats.text import printable
from topup.accounting.statement import Period
from topup.accounting.usage import NOBODY, Used, dollars
from topup.domain.money import Usd, plain

SCHEMA = 1
COUNTS = ("requests", "prompt_tokens", "completion_tokens")
HEAD = ("by", "name", "key", "from", "to", "used_usd", "usd_per_credit", "cost_usd", *COUNTS, "state")


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

    @property
    def counts(self) -> tuple[int | None, int | None, int | None]:
        """Return requests and tokens in and out, which only the provider's own account of a day tells."""
        if self.source is not Source.FINAL:
            return None, None, None
        return self.used.requests, self.used.prompt_tokens, self.used.completion_tokens


@dataclass(frozen=True)
class Usage:
    """What was used in a period.

    Attributes:
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


def rows(by: By, all_used: Sequence[Used], costs: Sequence[Usd | None], names: Mapping[str, str]) -> list[Row]:
    """Return lines for what is final, named for a person; `costs` are in the order of `all_used`."""
    return [
        Row(
            names.get(used.name, used.name) or UNNAMED[by],
            used.name if by is By.KEY and used.name != NOBODY else "",
            used,
            cost,
            Source.FINAL,
        )
        for used, cost in zip(all_used, costs, strict=True)
    ]


def document(usage: Usage) -> dict[str, Any]:
    """Return it as a JSON-ready document; amounts are exact decimal text in dollars."""
    return {
        "schema": SCHEMA,
        "account": usage.account,
        "by": usage.by.value,
        "from": usage.period.first.isoformat(),
        "to": usage.period.last.isoformat(),
        "zone": "UTC",
        "total_usd": str(usage.total),
        "usd_per_credit": plain(usage.rate) if usage.rate is not None else None,
        "rows": [
            {
                "name": row.name,
                "key": row.key or None,
                "used_usd": str(row.used.usd),
                "cost_usd": str(row.cost) if row.cost is not None else None,
                **dict(zip(COUNTS, row.counts, strict=True)),
                "state": row.source.value,
            }
            for row in usage.rows
        ],
        "missing": [{"from": first.isoformat(), "to": last.isoformat()} for first, last in usage.missing],
        "notes": list(usage.notes),
    }


def lines(usage: Usage) -> list[str]:
    """Return it for a terminal."""
    width = max([len(row.name) for row in usage.rows] + [12])
    out = [f"Usage of {usage.account} by {usage.by}, {usage.period}", ""]
    if usage.rows:
        out.append(f"{usage.by:<{width}}{'used $':>14}{'cost $':>14}{'requests':>12}{'tokens in':>14}{'out':>14}")
    for row in usage.rows:
        counts = ["" if count is None else count for count in row.counts]
        cost = f"{row.cost.amount:.4f}" if row.cost is not None else "?"
        mark = "" if row.source is Source.FINAL else f"  {row.source}"
        cells = f"{row.used.usd.amount:>14.4f}{cost:>14}{counts[0]:>12}{counts[1]:>14}{counts[2]:>14}{mark}"
        out.append(f"{printable(row.name):<{width}}{cells}")
    out += ["", f"total {usage.total} dollars of credit"]
    if usage.rate is not None:
        out.append(f"cost: {plain(usage.rate)} dollars paid for each, fees, network and swap included")
    out += [f"note: {printable(note)}" for note in usage.notes]
    return out


def write(usage: Usage) -> str:
    """Return it as CSV, safe to open in a spreadsheet."""
    period = (usage.period.first, usage.period.last)
    rate = plain(usage.rate) if usage.rate is not None else None
    return sheet(
        HEAD,
        (
            (usage.by, safe(row.name), safe(row.key), *period, row.used.usd, rate, row.cost, *row.counts, row.source)
            for row in usage.rows
        ),
    )
