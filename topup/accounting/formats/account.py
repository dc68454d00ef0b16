"""How does an account look at this moment? As a page: whether it is funded, until when, and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from typing import Any, Final

from topup.accounting.formats import html, sheet
from topup.accounting.formats.drawing import cents
from topup.accounting.formats.markup import Html, element, joined
from topup.accounting.formats.sheet import Tile, soft, table
from topup.accounting.journal import Commodity
from topup.accounting.standing import FUNDED, WAITS, Spent, Standing
from topup.accounting.statement import Statement
from topup.domain.lifecycle import TopUp
from topup.domain.moments import moment, span
from topup.domain.money import Usd, Usdc, Wei, plain
from topup.domain.policy import Buy, Decision, Hold, Refuse

STATEMENT: Final = "/statement"
# Dollars and coins are looked at here to a millionth; the other forms are exact.
LOOKED_AT: Final = Decimal("0.000001")


def page(
    seen: Standing,
    decision: Decision | None,
    moves: Sequence[Mapping[str, Any]],
    lately: Statement,
    drawn: html.Pictures,
) -> str:
    """Return the whole page as HTML.

    Args:
        seen: how the account stands.
        decision: what the rules say of the newest reading; None where there is none.
        moves: the steps of the open top-up: when, to which state, and what was said of it.
        lately: the statement of the days that are shown.
        drawn: what is drawn of them.
    """
    parts = [
        element("h1", seen.account),
        element("p", FUNDED[seen.funded], class_=f"state {seen.funded}"),
        element("p", _lasts(seen)),
        soft(_read(seen), _served(seen)),
        *_wrong(seen),
        element("p", _decided(decision)),
        _tiles(seen),
        element("h2", "Credits"),
        html.balances_over_time(lately, drawn),
        *html.spend(lately, drawn),
        element("h2", "Wallet and caps"),
        _spent(seen),
        element("h2", "The open top-up"),
        *_open(seen, moves),
        element("h2", "The last top-ups"),
        _latest(seen),
        element("p", element("a", "The statement of this month", href=STATEMENT)),
        soft(f"As the ledger stood {moment(seen.now_ms // 1000)}. Nothing here can be changed."),
    ]
    return sheet.page(f"{seen.account}: {FUNDED[seen.funded]}", parts)


def _lasts(seen: Standing) -> str:
    if seen.burn is None:
        return "How long it lasts is not known yet."
    if seen.empty_ms is None:
        return "Nothing is used, so it lasts."
    return f"It lasts until {moment(seen.empty_ms // 1000)} at {cents(seen.burn)} an hour, if nothing is bought."


def _read(seen: Standing) -> str:
    if seen.last is None:
        return "The credits were never read. "
    return f"Read {span((seen.now_ms - seen.last.at_ms) // 1000)} ago. "


def _served(seen: Standing) -> str:
    daemon = seen.daemon
    if daemon is None or daemon.since_ms is None:
        return "" if daemon is not None else "No daemon watches it."
    return f"Watched by a daemon for {span((seen.now_ms - daemon.since_ms) // 1000)}."


def _wrong(seen: Standing) -> Iterator[Html]:
    yield element("h2", "What is wrong")
    yield sheet.said(f"{one.detail}; to do: {one.remedy}" for one in seen.troubles) or element("p", "Nothing.")


def _decided(decision: Decision | None) -> str:
    match decision:
        case None:
            return "Nothing is decided before the credits were read."
        case Buy():
            return f"By the rules {decision.amount} dollars are bought next: {decision.detail}."
        case Refuse():
            return f"By the rules nothing may be bought: {decision.detail}. To do: {decision.remedy}."
        case Hold():
            return f"By the rules nothing is bought now: {decision.detail}."


def _tiles(seen: Standing) -> Html:
    last = seen.last
    mode = "pays" if seen.mode == "live" else "only watches"
    return sheet.tiles(
        [
            Tile(cents(last.balance) if last is not None else "not known", "credits left"),
            Tile(cents(seen.floor), "floor", "refilled below this"),
            Tile(cents(seen.burn) if seen.burn is not None else "not known", "used an hour"),
            Tile("paused" if seen.paused else mode, "topup", f"by {', '.join(seen.rails)}"),
        ]
    )


def _spent(seen: Standing) -> Html:
    head = ("in", "left the wallet", "counted", "cap", "left of it")
    rows = [_window("24 hours", seen.day), _window("30 days", seen.month)]
    return table("What top-ups have taken, and what may still be spent.", head, rows, numbers=4)


def _window(name: str, spent: Spent) -> Sequence[str]:
    left = Usd(max(spent.cap.amount - spent.counted.amount, Decimal(0)))
    gone = joined([_amount(commodity, units) for commodity, units in spent.left_wallet.items()], Html("<br>"))
    return name, gone or "nothing", cents(spent.counted), cents(spent.cap), cents(left)


def _amount(commodity: Commodity, units: int) -> str:
    whole = Wei(units).eth if commodity is Commodity.ETH else Usdc(units).usdc
    return f"{plain(whole.quantize(LOOKED_AT, ROUND_UP))} {commodity.value}"


def _open(seen: Standing, moves: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    topup = seen.unfinished
    if topup is None:
        yield soft("None.")
        return
    waits = WAITS.get(topup.state)
    yield element("p", f"{topup.id}: {topup.amount} dollars; it is {topup.state.value}, and waits {waits}.")
    steps = [(moment(move["at_ms"] // 1000), str(move["state"]), str(move["detail"] or "–")) for move in moves]
    yield table("Its steps, the newest last.", ("at", "state", "what was said"), steps, numbers=0)


def _latest(seen: Standing) -> Html:
    head = ("decided", "top-up", "state", "why", "credits")
    return table("Newest first.", head, map(_topup, seen.latest), numbers=1) if seen.latest else soft("None yet.")


def _topup(topup: TopUp) -> Sequence[str]:
    why = topup.reason or topup.why
    return moment(topup.decided_ms // 1000), element("code", topup.id), topup.state.value, why, cents(topup.amount)
