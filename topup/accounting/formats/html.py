"""How does a statement look? One page that holds all it needs: no script, no address, light, dark and on paper.

Pictures are SVG. Positions are computed in `Decimal`, like everything that comes from money.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from html import escape
from typing import Final

from topup.accounting.forecast import Band
from topup.accounting.formats.text import printable
from topup.accounting.statement import Refill, Statement, shown
from topup.domain.credits import DAY_MS, Reading
from topup.domain.moments import moment
from topup.domain.money import WIDE, Usd, plain

WIDTH: Final = 760
HEIGHT: Final = 240
LEFT: Final = 56
RIGHT: Final = 12
TOP: Final = 14
BOTTOM: Final = 28
POINTS_MAX: Final = 1500
BARS_MAX: Final = 12

STYLE: Final = """
:root{--ground:#fbfaf7;--paper:#fff;--ink:#20242b;--soft:#667080;--line:#dcdfe4;--blue:#2b62c9;--fill:#2b62c922;
--green:#1d8a5b;--amber:#b26a00}
@media (prefers-color-scheme:dark){:root{--ground:#14171c;--paper:#1b1f26;--ink:#e6e8ec;--soft:#98a2b3;--line:#333a45;
--blue:#7aa7ff;--fill:#7aa7ff26;--green:#57c792;--amber:#f0b35a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:840px;margin:0 auto;padding:32px 24px 48px}
h1{font-size:24px;margin:0}h2{font-size:16px;margin:32px 0 8px}
p{margin:4px 0}.soft{color:var(--soft)}code{font:12px ui-monospace,monospace;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;margin:24px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
figure{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}.credit{fill:none;stroke:var(--blue);stroke-width:2;stroke-linejoin:round}
.under{fill:var(--fill)}.floor{stroke:var(--amber);stroke-dasharray:5 4}.refill{stroke:var(--green);stroke-width:1.5}
.mark{fill:var(--green)}.band{fill:var(--amber);opacity:.22}.guess{stroke:var(--amber);stroke-width:1.5;fill:none}
.bar{fill:var(--blue)}svg .ink{fill:var(--ink)}
table{width:100%;border-collapse:collapse;background:var(--paper);border:1px solid var(--line);font-size:12.5px}
th,td{padding:6px 7px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td code,td:first-child{overflow-wrap:normal;white-space:nowrap}
.wide{overflow-x:auto;margin-top:12px}ul{margin:8px 0;padding-left:20px}
@media print{:root{--ground:#fff;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--blue:#1d4fb0;--fill:#1d4fb018;
--green:#136b45;--amber:#8a5200}main{padding:0;max-width:none}figure,tr,.tile{break-inside:avoid}.wide{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


@dataclass(frozen=True)
class Pictures:
    """What is drawn beside the figures of a statement; each part may be missing.

    Attributes:
        readings: believed readings of the period, oldest first.
        floor: below which the account is refilled.
        spend: dollars used, by what it is split by (such as "model") and then by name, largest first.
        forecast: what may be left from the last reading on, in the order of time.
    """

    readings: Sequence[Reading] = ()
    floor: Usd | None = None
    spend: Mapping[str, Sequence[tuple[str, Usd]]] = field(default_factory=dict)
    forecast: Sequence[Band] = ()


def page(statement: Statement, drawn: Pictures) -> str:
    """Return the whole page as HTML."""
    title = f"Statement of {statement.account}, {statement.period}"
    body = [
        f"<h1>Statement of {escape(statement.account)}</h1>",
        f'<p class="soft">{escape(str(statement.period))}; drawn up {moment(statement.drawn_ms // 1000)}</p>',
        _tiles(statement),
        "<h2>Credits</h2>",
        _figure(_credits(statement, drawn), "no balance was read in this period"),
        *(part for name, rows in drawn.spend.items() for part in _spend(name, rows)),
        "<h2>Refills</h2>",
        _figure(_costs(statement.refills), "no top-up was posted in this period"),
        _refills(statement.refills),
        "<h2>Balances</h2>",
        _balances(statement),
        "<h2>Differences</h2>",
        _differences(statement.differences),
        f'<p class="soft">Ledger head <code>{statement.head or "none"}</code></p>',
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _tiles(statement: Statement) -> str:
    spent = [r.usd for r in statement.refills if r.posted_ms is not None]
    known = [usd.amount for usd in spent if usd is not None]
    all_known = len(known) == len(spent)
    paid = Usd(sum(known, Decimal(0)))
    priced = all_known and statement.bought.amount
    tiles = [
        ("bought", _dollars(statement.bought)),
        ("used", _dollars(statement.used)),
        ("bought elsewhere", _dollars(statement.elsewhere)),
        ("left the wallet", _dollars(paid) if all_known else "not known"),
        ("for one dollar of credit", _dollars(Usd(paid.amount / statement.bought.amount), "0.0001") if priced else "–"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles)
        + "</div>"
    )


def _figure(picture: str, nothing: str) -> str:
    return f"<figure>{picture}</figure>" if picture else f'<p class="soft">{nothing}</p>'


@dataclass(frozen=True)
class _Scale:
    """Where a moment and an amount stand in the picture."""

    first_ms: int
    end_ms: int
    top: Decimal

    def x(self, at_ms: int) -> str:
        room = Decimal(WIDTH - LEFT - RIGHT) * (at_ms - self.first_ms) / max(1, self.end_ms - self.first_ms)
        return _px(LEFT + room)

    def y(self, dollars: Decimal) -> str:
        room = Decimal(HEIGHT - TOP - BOTTOM) * max(Decimal(0), dollars) / self.top
        return _px(HEIGHT - BOTTOM - room)

    def points(self, line: Iterable[tuple[int, Usd]]) -> str:
        return " ".join(f"{self.x(at_ms)},{self.y(usd.amount)}" for at_ms, usd in line)


def _credits(statement: Statement, drawn: Pictures) -> str:
    shown = _thinned([r for r in drawn.readings if r.at_ms in statement.period])
    if len(shown) < 2:
        return ""
    ahead = drawn.forecast
    highest = max([r.balance.amount for r in shown] + [b.high.amount for b in ahead] + [Decimal(1)])
    step = _step(highest)
    end_ms = max([statement.period.end_ms if not ahead else 0, shown[-1].at_ms, *(b.at_ms for b in ahead)])
    at = _Scale(statement.period.first_ms, end_ms, step * (highest / step).to_integral_value(rounding=ROUND_CEILING))
    line = at.points((r.at_ms, r.balance) for r in shown)
    base = HEIGHT - BOTTOM
    parts = [*_grid(at, step), *_days(at)]
    parts.append(
        f'<polygon class="under" points="{at.x(shown[0].at_ms)},{base} {line} {at.x(shown[-1].at_ms)},{base}"/>'
    )
    if drawn.floor is not None:
        y = at.y(drawn.floor.amount)
        parts.append(f'<line class="floor" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT + 6}" y="{Decimal(y) + 13}">floor {drawn.floor}</text>')
    if ahead:
        edge = [(b.at_ms, b.high) for b in ahead] + [(b.at_ms, b.low) for b in reversed(ahead)]
        parts.append(f'<polygon class="band" points="{at.points(edge)}"/>')
        parts.append(f'<polyline class="guess" points="{at.points((b.at_ms, b.likely) for b in ahead)}"/>')
        where = f'x="{at.x(ahead[-1].at_ms)}" y="{HEIGHT - BOTTOM - 6}"'
        parts.append(f'<text {where} text-anchor="end">if nothing is bought</text>')
    for refill in statement.refills:
        if refill.posted_ms is not None and refill.posted_ms in statement.period:
            x = at.x(refill.posted_ms)
            parts.append(f'<line class="refill" x1="{x}" x2="{x}" y1="{TOP}" y2="{base}"/>')
            about = f"{refill.posted}: {refill.credits} dollars of credit"
            parts.append(f'<circle class="mark" cx="{x}" cy="{TOP}" r="4"><title>{escape(about)}</title></circle>')
    parts.append(f'<polyline class="credit" points="{line}"/>')
    return _svg("Credits over time, refills marked", parts)


def _costs(refills: Sequence[Refill]) -> str:
    known = [(r.posted[:16], r.usd_per_credit) for r in refills if r.posted_ms is not None]
    rows = [(name, cost, plain(cost)) for name, cost in known if cost is not None]
    return _bars("Dollars for one dollar of credit", rows[-BARS_MAX:])


def _spend(name: str, rows: Sequence[tuple[str, Usd]]) -> Iterator[str]:
    shown = [(who, used.amount, _dollars(used)) for who, used in rows[:BARS_MAX]]
    rest = sum((used.amount for _, used in rows[BARS_MAX:]), Decimal(0))
    if rest:
        shown.append((f"{len(rows) - BARS_MAX} others", rest, _dollars(Usd(rest))))
    yield f"<h2>Spend by {escape(name)}</h2>"
    yield _figure(_bars(f"Spend by {name}", shown), "nothing was used")


def _bars(title: str, rows: Sequence[tuple[str, Decimal, str]]) -> str:
    if not rows:
        return ""
    most = max(value for _, value, _ in rows) or Decimal(1)
    parts, name_width, room = [], 220, WIDTH - 220 - 90
    for number, (name, value, label) in enumerate(rows):
        y, width = 8 + 24 * number, _px(Decimal(room) * max(Decimal(0), value) / most)
        parts.append(
            f'<text class="ink" x="{name_width - 8}" y="{y + 12}" text-anchor="end">{escape(_short(name))}</text>'
        )
        parts.append(f'<rect class="bar" x="{name_width}" y="{y}" width="{width}" height="16" rx="3"/>')
        parts.append(f'<text class="ink" x="{_px(name_width + Decimal(width) + 6)}" y="{y + 12}">{label}</text>')
    return _svg(title, parts, height=12 + 24 * len(rows))


def _refills(refills: Sequence[Refill]) -> str:
    if not refills:
        return ""
    rows = []
    for refill in refills:
        network = [_gwei(refill.network_wei)] if refill.network_wei else []
        network += [str(refill.network_tokens)] if refill.network_tokens.units else []
        rows.append(
            _row(
                refill.posted,
                f"<code>{escape(refill.topup_id)}</code>",
                _dollars(refill.credits),
                _dollars(refill.usd) if refill.usd is not None else "not known",
                plain(refill.fees.usdc),
                "<br>".join(network) or "–",
                _gwei(refill.swap_wei) if refill.swap_wei else "–",
            )
        )
    return _table(("posted", "top-up", "credits", "left the wallet", "fees", "network", "swap cost"), rows)


def _balances(statement: Statement) -> str:
    rows = []
    for account, commodity, first, last in statement.balances:
        amounts = (shown(units, commodity) for units in (first, last - first, last))
        rows.append(_row(escape(account), commodity.value, *amounts))
    return _table(("account", "commodity", "opening", "moved", "closing"), rows)


def _differences(said: Sequence[str]) -> str:
    if not said:
        return "<p>None: the journal balances, and ends where the provider's balance is.</p>"
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in said) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th{' class=n' if n >= 2 else ''}>{title}</th>" for n, title in enumerate(head))
    return f'<div class="wide"><table><tr>{cells}</tr>{"".join(rows)}</table></div>'


def _row(first: str, second: str, *numbers: str) -> str:
    return f"<tr><td>{first}</td><td>{second}</td>" + "".join(f'<td class="n">{n}</td>' for n in numbers) + "</tr>"


def _svg(title: str, parts: Sequence[str], *, height: int = HEIGHT) -> str:
    name = escape(title)
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>{inside}</svg>'


def _grid(at: _Scale, step: Decimal) -> Iterator[str]:
    level = Decimal(0)
    while level <= at.top:
        y = at.y(level)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 6}" y="{Decimal(y) + 4}" text-anchor="end">{plain(level)}</text>'
        level += step


def _days(at: _Scale) -> Iterator[str]:
    every = max(1, -(-(at.end_ms - at.first_ms) // DAY_MS // 8)) * DAY_MS
    for at_ms in range(at.first_ms, at.end_ms, every):
        day = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%b %d")
        yield f'<text x="{at.x(at_ms)}" y="{HEIGHT - 8}">{day}</text>'


def _step(highest: Decimal) -> Decimal:
    """Return a round distance between lines, so that there are three to six of them."""
    power = Decimal(1).scaleb(highest.adjusted() - 1)
    return next(power * n for n in (1, 2, 5, 10, 20, 50) if highest / (power * n) <= 6)


def _thinned(readings: Sequence[Reading]) -> list[Reading]:
    """Return few enough readings to draw, the last one among them."""
    every = -(-len(readings) // POINTS_MAX) or 1
    return [r for n, r in enumerate(readings) if n % every == 0 or n == len(readings) - 1]


def _dollars(usd: Usd, to: str = "0.01") -> str:
    return f"{usd.amount.quantize(Decimal(to)):f} $"


def _gwei(units: int) -> str:
    """Write wei as ETH to nine digits: a page is looked at, the other forms are exact."""
    return f"{WIDE.scaleb(Decimal(units), -18).quantize(Decimal('0.000000001'), context=WIDE):f} ETH"


def _short(name: str) -> str:
    clean = printable(name)
    return clean if len(clean) <= 32 else clean[:31] + "…"


def _px(value: Decimal) -> str:
    return f"{value.quantize(Decimal('0.1')):f}"
