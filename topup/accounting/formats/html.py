"""How does a statement look? As a page for people: what was bought and used, by whom, and what the books hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from topup.accounting.forecast import Band
from topup.accounting.formats import sheet
from topup.accounting.formats.drawing import Course, cents, credits_over_time
from topup.accounting.formats.markup import Html, element, joined
from topup.accounting.formats.sheet import Bar, Tile, soft, table
from topup.accounting.statement import Refill, Statement, Unclosed, shown
from topup.accounting.untold import Cause
from topup.domain.credits import HALF_A_CENT, NOTHING, Reading
from topup.domain.moments import moment
from topup.domain.money import WIDE, Usd

BARS_MAX: Final = 12
NAME_MAX: Final = 48


@dataclass(frozen=True)
class Pictures:
    """What is drawn beside the figures of a statement; each part may be missing.

    Attributes:
        readings: believed readings of the period, oldest first.
        floor: below which the account is refilled.
        spend: dollars used, by what it is split by (such as "model") and then by name, largest first.
        untold: why what is split is not all that was used.
        forecast: what may be left from the last reading on, in the order of time.
    """

    readings: Sequence[Reading] = ()
    floor: Usd | None = None
    spend: Mapping[str, Sequence[tuple[str, Usd]]] = field(default_factory=dict)
    untold: Sequence[Cause] = ()
    forecast: Sequence[Band] = ()


def page(statement: Statement, drawn: Pictures) -> str:
    """Return the whole page as HTML."""
    title = f"Statement of {statement.account}"
    over = statement.drawn_ms >= statement.period.end_ms
    parts = [
        element("h1", title),
        soft(f"{statement.period}; drawn up {moment(statement.drawn_ms // 1000)}"),
        *([] if over else [element("p", "The period is not over: what stands here is provisional.")]),
        _tiles(statement),
        *([_not_closed(statement.unclosed)] if statement.unclosed is not None else []),
        element("h2", "Credits"),
        balances_over_time(statement, drawn),
        *spend(statement, drawn),
        element("h2", "Refills"),
        *_refills(statement.refills),
        element("h2", "Balances"),
        _balances(statement),
        element("h2", "Differences"),
        sheet.said(statement.differences)
        or element("p", "None: the journal balances, and ends where the provider's balance is."),
        soft("Ledger head ", element("code", statement.head or "none")),
    ]
    return sheet.page(f"{title}, {statement.period}", parts)


def _tiles(statement: Statement) -> Html:
    spent = [refill.usd for refill in statement.posted]
    known = [usd.amount for usd in spent if usd is not None]
    all_known = len(known) == len(spent)
    paid = Usd(sum(known, Decimal(0)))
    priced = all_known and statement.bought.amount
    each = _fine(WIDE.divide(paid.amount, statement.bought.amount)) if priced else "–"
    used, elsewhere = Tile(cents(statement.used), "used"), Tile(cents(statement.elsewhere), "bought elsewhere")
    if (since := statement.unclosed) is not None:
        used = Tile(cents(statement.used_so_far), "used so far", f"{cents(since.used)} of it not closed yet")
        elsewhere = replace(elsewhere, note="as far as closed")
    return sheet.tiles(
        [
            Tile(cents(statement.bought), "bought"),
            used,
            elsewhere,
            Tile(cents(paid) if all_known else "not known", "left the wallet for it"),
            Tile(each, "paid for one dollar of credit"),
        ]
    )


def _not_closed(since: Unclosed) -> Html:
    """Say what the figures rest on while the newest readings are not booked."""
    closed, read = moment(since.since_ms // 1000), moment(since.until_ms // 1000)
    return element(
        "p",
        f"What was used is told by the reading of {read}. The books are closed once a UTC day, last at {closed}:"
        f" the {cents(since.used)} used since then, and what was bought elsewhere since, are not booked yet.",
    )


def balances_over_time(statement: Statement, drawn: Pictures) -> Html:
    """Return the credits over the period as a picture, or a sentence why there is none."""
    period = statement.period
    read = [r for r in drawn.readings if r.at_ms in period]
    marks = [(r.posted_ms or 0, f"{r.posted}: {r.credits} dollars of credit") for r in statement.posted]
    # With a forecast the time that is drawn ends with it.
    end_ms = period.first_ms if drawn.forecast else period.end_ms
    figure = credits_over_time(Course(read, period.first_ms, end_ms, drawn.floor, marks, drawn.forecast))
    if figure:
        return figure
    if read:
        return soft(
            f"One balance alone was read in this period: {cents(read[0].balance)}, {moment(read[0].at_ms // 1000)}."
        )
    return soft("No balance was read in this period.")


def spend(statement: Statement, drawn: Pictures) -> Iterator[Html]:
    """Yield who has used what, and by how much that differs from all that was used."""
    used, said_of = statement.used_so_far, None
    if not drawn.spend:
        yield element("h2", "Spend by model and key")
        yield soft(f"Of the {cents(used)} that were used no model and no key is told.")
        yield _causes(drawn.untold)
    for split, rows in drawn.spend.items():
        told = sum((usd for _, usd in rows), NOTHING)
        whole = used if (used - told).amount > 0 else told
        yield element("h2", f"Spend by {split}")
        yield _shares(split, rows, whole, whole - told)
        if said_of is not None and abs((told - said_of).amount) < HALF_A_CENT.amount:
            yield soft(f"The sum by {split} is the same {cents(told)}.")
        else:
            yield from _difference(split, told, used, drawn.untold)
            said_of = told


def _shares(split: str, rows: Sequence[tuple[str, Usd]], whole: Usd, untold: Usd) -> Html:
    def row(name: str, usd: Usd, kind: str = "part") -> Bar:
        share = f"{usd.amount * 100 / whole.amount:.1f} %" if whole.amount > 0 else "–"
        return Bar(_short(name), usd.amount, (cents(usd), share), kind)

    shown = [row(name, usd) for name, usd in rows[:BARS_MAX]]
    if others := rows[BARS_MAX:]:
        shown.append(row(f"{len(others)} others", sum((usd for _, usd in others), NOTHING)))
    if untold.amount >= HALF_A_CENT.amount:
        shown.append(row(f"(not told by {split})", untold, "rest"))
    caption = f"Dollars of credit that each {split} has used; the whole width of a bar is {cents(whole)}."
    return sheet.bars(caption, (split, "used", "share"), shown, whole.amount)


def _difference(split: str, told: Usd, used: Usd, untold: Sequence[Cause]) -> Iterator[Html]:
    """Say by how much a sum differs from what was used, and why; nothing more than the sum where it does not."""
    off = used - told
    if abs(off.amount) < HALF_A_CENT.amount:
        yield soft(f"The sum by {split} is {cents(told)}, which is all that was used.")
        return
    more = "less" if off.amount > 0 else "more"
    size = cents(Usd(abs(off.amount)))
    why = ":" if untold else "; why is not known."
    yield element("p", f"The sum by {split} is {cents(told)}, {size} {more} than the {cents(used)} that were used{why}")
    yield _causes(untold)


def _causes(untold: Sequence[Cause]) -> Html:
    return sheet.said(
        f"{cents(Usd(abs(cause.usd.amount)))} {'less' if cause.usd.amount > 0 else 'more'}: {cause.why}"
        for cause in untold
    )


def _refills(refills: Sequence[Refill]) -> Iterator[Html]:
    if not refills:
        yield soft("No top-up was posted in this period.")
        return
    head = ("posted", "top-up", "credits", "left the wallet", "for one dollar", "fees", "network", "swap cost")
    caption = "What was bought, and what it has cost, in dollars of the time of the payment; for one dollar of credit"
    yield table(f"{caption}, fees and network included.", head, map(_refill, refills), numbers=6)


def _refill(refill: Refill) -> Sequence[str]:
    network = [_gwei(refill.network_wei)] if refill.network_wei else []
    network += [str(refill.network_tokens)] if refill.network_tokens.units else []
    return (
        refill.posted,
        element("code", refill.topup_id),
        cents(refill.credits),
        cents(refill.usd) if refill.usd is not None else "not known",
        _fine(refill.usd_per_credit) if refill.usd_per_credit is not None else "–",
        str(refill.fees),
        joined(network, Html("<br>")) or "–",
        _gwei(refill.swap_wei) if refill.swap_wei else "–",
    )


def _balances(statement: Statement) -> Html:
    rows = []
    for account, commodity, first, last in statement.balances:
        amounts = (sheet.number(shown(units, commodity)) for units in (first, last - first, last))
        rows.append((sheet.name(account), commodity.value, *amounts))
    caption = "What the journal holds on each account, exact, in whole units of the commodity."
    return table(caption, ("account", "commodity", "opening", "moved", "closing"), rows, numbers=3)


def _fine(dollars: Decimal) -> str:
    return f"{dollars.quantize(Decimal('0.0001')):f} $"


def _gwei(units: int) -> str:
    """Write wei as ETH to nine digits: a page is looked at, the other forms are exact."""
    return f"{WIDE.scaleb(Decimal(units), -18).quantize(Decimal('0.000000001'), context=WIDE):f} ETH"


def _short(name: str) -> str:
    return name if len(name) <= NAME_MAX else name[: NAME_MAX - 1] + "…"
