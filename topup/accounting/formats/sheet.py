"""What is a page that holds all it needs? No script, no address; light, dark, on a phone and on paper.

Its tables become a card for each row where the screen is narrow, and keep their roles, so that nothing is cut off and a
screen reader still finds rows and columns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from topup.accounting.formats import drawing
from topup.accounting.formats.markup import Html, element, html, joined

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
STYLE: Final = """
:root{color-scheme:light dark;--ground:#fbfaf7;--paper:#fff;--ink:#20242b;--soft:#5c6675;--line:#dcdfe4;
--blue:#2b62c9;--fill:#2b62c922;--green:#1d8a5b;--amber:#b26a00;--red:#b3261e}
@media (prefers-color-scheme:dark){:root{--ground:#14171c;--paper:#1b1f26;--ink:#e6e8ec;--soft:#98a2b3;--line:#333a45;
--blue:#7aa7ff;--fill:#7aa7ff26;--green:#57c792;--amber:#f0b35a;--red:#f2938c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:940px;margin:0 auto;padding:32px 24px 48px}
h1{font-size:24px;margin:0}h2{font-size:17px;margin:32px 0 8px}h1,h2,p,li{overflow-wrap:anywhere}
p{margin:4px 0}a{color:var(--blue)}
.state{font-size:clamp(30px,9vw,56px);line-height:1.15;font-weight:700;margin:8px 0}
.yes{color:var(--green)}.low{color:var(--amber)}.no,.unknown{color:var(--red)}.soft{color:var(--soft)}
code{font:12px ui-monospace,monospace;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;margin:24px 0;padding:0;
list-style:none}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px}
.tile b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.tile span,.tile small{display:block;color:var(--soft);font-size:13px}
table{width:100%;border-collapse:collapse;background:var(--paper);border:1px solid var(--line);font-size:13px;
margin-top:12px}
caption{text-align:left;color:var(--soft);font-size:13px;padding:0 0 6px}
th,td{padding:6px 7px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:400;overflow-wrap:anywhere}thead th{color:var(--soft);font-weight:600;overflow-wrap:normal}
.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}.long{white-space:normal}
td code{display:inline-block;min-width:13ch}.cards tbody th{min-width:12ch}
.bars th:first-child{width:99%}
ul{margin:8px 0;padding-left:20px}table+p{margin-top:8px}
@media screen and (max-width:800px){main{padding:24px 16px 40px}
.cards,.cards caption,.cards tbody,.cards tr,.cards tbody th{display:block}.cards{background:none;border:0}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards tr{background:var(--paper);border:1px solid var(--line);border-radius:8px;margin-bottom:8px;padding:6px 0}
.cards tbody th{font-weight:600}.cards th,.cards td{border:0;padding:1px 12px}
.cards td{display:flex;justify-content:space-between;gap:16px}
.cards td::before{content:attr(data-label);content:attr(data-label)/"";color:var(--soft)}
.cards code{min-width:0;text-align:right}}
"""
PAPER: Final = """
@media print{:root{color-scheme:light;--ground:#fff;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--blue:#1d4fb0;
--fill:#1d4fb018;--green:#136b45;--amber:#8a5200;--red:#8c1d18}main{padding:0;max-width:none}figure,tr,.tile{break-inside:avoid}
h2,caption{break-after:avoid}table{font-size:11px}code{font-size:10.5px}th,td{padding:4px 5px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


@dataclass(frozen=True)
class Tile:
    """One figure that is looked at first: its value, what it is, and what else has to be known of it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One row of bars: what it is of, how long it is, and the cells beside it. `kind` is "part", or "rest"."""

    name: str
    value: Decimal
    cells: Sequence[str]
    kind: str = "part"


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole document with this title, and these parts one below the other."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html(title)}</title><style>{STYLE}{drawing.STYLE}{PAPER}</style></head><body><main>\n"
        + "\n".join(html(part) for part in parts)
        + "\n</main></body></html>\n"
    )


def tiles(shown: Iterable[Tile]) -> Html:
    """Return figures side by side, as many as there is room for."""
    return element("ul", *map(_tile, shown), class_="tiles")


def said(sentences: Iterable[str]) -> Html:
    """Return sentences as a list; nothing where there are none."""
    items = [element("li", sentence) for sentence in sentences]
    return element("ul", *items) if items else Html()


def soft(*parts: str) -> Html:
    """Return a sentence that stands back."""
    return element("p", *parts, class_="soft")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> Html:
    """Return a table whose last so many columns are numbers; the first cell of a row names it."""
    first = len(head) - numbers
    kinds = ["n" if place >= first else "" for place in range(len(head))]
    body = [_row(row[0], (_cell(*each) for each in zip(row[1:], head[1:], kinds[1:], strict=True))) for row in rows]
    return _table("cards", caption, list(zip(head, kinds, strict=True)), body)


def bars(caption: str, head: Sequence[str], rows: Iterable[Bar], whole: Decimal) -> Html:
    """Return a table with a bar below each name, which is its part of `whole`; the caption has to say what that is."""
    body = []
    for row in rows:
        named = joined([row.name, drawing.bar(row.value, whole, row.kind)])
        body.append(_row(named, (_cell(cell, title, "n") for cell, title in zip(row.cells, head[1:], strict=True))))
    return _table("bars", caption, [(head[0], ""), *((title, "n") for title in head[1:])], body)


def number(text: str) -> Html:
    """Return an exact number that may be broken after its point and then after each ninth digit, and nowhere else."""
    whole, point, places = text.partition(".")
    nines = [places[n : n + 9] for n in range(0, len(places), 9)]
    return element("span", joined([whole + point, *nines], Html("<wbr>")), class_="long")


def name(text: str) -> Html:
    """Return the name of an account of the books, which may be broken after its colons."""
    return Html(html(text).replace(":", ":<wbr>"))


def _tile(tile: Tile) -> Html:
    note = [element("small", tile.note)] if tile.note else []
    return element("li", element("b", tile.value), element("span", tile.name), *note, class_="tile")


def _row(first: str, cells: Iterable[Html]) -> Html:
    return element("tr", element("th", first, scope="row", role="rowheader"), *cells, role="row")


def _cell(cell: str, title: str, kind: str) -> Html:
    return element("td", element("span", cell), role="cell", data_label=title, class_=kind)


def _table(kind: str, caption: str, head: Sequence[tuple[str, str]], body: Iterable[Html]) -> Html:
    # Where a table is laid out as cards some browsers forget what it is, unless its roles are named.
    cells = [element("th", title, scope="col", role="columnheader", class_=its) for title, its in head]
    top = element("thead", element("tr", *cells, role="row"), role="rowgroup")
    rows = element("tbody", joined(body), role="rowgroup")
    return element("table", element("caption", caption), top, rows, class_=kind, role="table")
