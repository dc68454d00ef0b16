"""Is the page of a statement worth looking at? Drawn by a real browser, light, dark and on paper."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.world.browser import DESK, PHONE, Browser, browser
from tests.world.november import NOVEMBER, START_MS, month, payment, posted, reading
from topup.accounting.forecast import Band
from topup.accounting.formats.drawing import POINTS_MAX, Course, Scale, credits_over_time
from topup.accounting.formats.html import Pictures, page
from topup.accounting.formats.markup import Html, element, html
from topup.accounting.journal import WALLET, Commodity, Entry, Line
from topup.accounting.untold import Cause
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.money import Usd

ETH, MOVED, UNITS = Commodity.ETH, "equity:wallet-moved-elsewhere", 123_456_123_456_789_012_345_678
# A sheet of A4 between its margins, in CSS pixels.
PAPER = 718
GROUND = {"light": (0xFB, 0xFA, 0xF7), "dark": (0x14, 0x17, 0x1C)}
BLUE = {"light": (0x2B, 0x62, 0xC9), "dark": (0x7A, 0xA7, 0xFF)}
GREEN = {"light": (0x1D, 0x8A, 0x5B), "dark": (0x57, 0xC7, 0x92)}


def pictures() -> Pictures:
    """Readings that fall and are refilled, spend by model and key, and a band into December."""
    readings, used, bought = [], Decimal(5), Decimal(25)
    for hour in range(720):
        used += Decimal("0.05")
        bought += 10 if bought - used < 10 else 0
        readings.append(Reading(Usd(bought), Usd(used), START_MS + hour * HOUR_MS))
    left = readings[-1].balance.amount
    ahead = [
        Band(NOVEMBER.end_ms + n * HOUR_MS, Usd(left - n), Usd(left - n / Decimal(2)), Usd(left - n / Decimal(4)))
        for n in range(8)
    ]
    spend = {
        "model": [("maker/large", Usd.of(20)), ("maker/small", Usd.of("1.5"))],
        "key": [("<i>team</i>", Usd.of(3))],
    }
    return Pictures(readings, Usd.of(10), spend, forecast=ahead)


def drawn() -> str:
    """The page of a month with two refills more."""
    extra = [
        e
        for n in (7, 12)
        for e in (payment(START_MS + n * 24 * HOUR_MS, f"t{n}"), posted(START_MS + n * 24 * HOUR_MS, f"t{n}"))
    ]
    return page(month(*extra), pictures())


class Asked(HTMLParser):
    """Collects what a page would load, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}" for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        self.loaded += [tag] if tag in ("script", "link", "iframe", "object", "img") else []
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that needs no end."""

    def handle_endtag(self, tag: str) -> None:
        """Close the newest tag, which has to be this one."""
        assert self.open.pop() == tag


def test_the_page_holds_all_it_needs() -> None:
    """Nothing is loaded, nothing runs, every tag is closed, and names that others chose are text.

    Three refills have three marks. Without readings and spend there are sentences instead of empty pictures, and a
    single reading is no picture, but told.
    """
    told = drawn()
    asked = Asked()
    asked.feed(told)
    assert (asked.loaded, asked.open) == ([], [])
    assert "url(" not in told and "@import" not in told
    assert "&lt;i&gt;team&lt;/i&gt;" in told
    assert told.count('cy="0" r="4"') == 3
    assert not re.search(r"<(table|tr|th|td)\b(?![^>]* role=)", told), "not every browser keeps roles beside `display`"
    told = page(month(), Pictures())
    assert "No balance was read" in told
    assert "Of the 14.00 $ that were used no model and no key is told" in told
    assert "20.00 $, 2026-11-01 00:00:00Z" in page(month(), Pictures([reading(START_MS, "25", "5")]))


def test_only_markup_is_markup() -> None:
    """Text is escaped wherever it is put in, and once; what text and markup are joined to is text again."""
    assert element("p", "<b>", Html("<i>&amp;</i>"), class_='"><script>') == (
        '<p class="&quot;&gt;&lt;script&gt;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert element("p", Html("<i>") + "x") == "<p>&lt;i&gt;x</p>"
    assert html("one\ntwo\u202e") == "one?two?", "no line and no direction that others chose"


def test_what_is_drawn_keeps_its_place() -> None:
    """Nothing is cut off at the edges: an overdrawn account is drawn below nothing, the floor above all readings.

    Some of the days are named, none so late that its name would leave the picture; of a few days the hours are.
    """
    at = Scale.of(START_MS, START_MS + 30 * DAY_MS, [Decimal("-3.5"), Decimal(17)])
    assert [at.bottom, at.top, at.step] == [Decimal(-5), Decimal(20), Decimal(5)]
    assert [at.y(level) for level in at.levels()] == [100, 80, 60, 40, 20, 0]
    assert [at.x(START_MS), at.x(START_MS + 15 * DAY_MS)] == [Decimal(0), Decimal(50)]
    assert [name for _, name in at.ticks()] == [
        "Nov 01",
        "Nov 05",
        "Nov 09",
        "Nov 13",
        "Nov 17",
        "Nov 21",
        "Nov 25",
        "Nov 29",
    ]
    hours = Scale.of(START_MS + HOUR_MS, START_MS + DAY_MS + HOUR_MS, [Decimal(0)])
    assert [name for _, name in hours.ticks()] == ["03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"]
    high = credits_over_time(
        Course([reading(START_MS, "8", "1"), reading(START_MS + 1, "8", "2")], START_MS, START_MS + DAY_MS, Usd.of(50))
    )
    assert '<line class="floor" x1="0" x2="100%" y1="0.00%" y2="0.00%"/>' in high


def test_the_lowest_balance_is_named_though_not_every_reading_is_drawn() -> None:
    """The third of five thousand readings is the lowest: no point of the line, but told; a refill of before is not."""
    readings = [reading(START_MS + n, "20", "19.5" if n == 2 else "1") for n in range(5000)]
    told = credits_over_time(Course(readings, START_MS, START_MS + DAY_MS, refills=[(START_MS - 1, "of October")]))
    assert "lowest 0.50 $" in told and "of October" not in told
    (points,) = re.findall(r'class="credit" points="([^"]*)"', told)
    assert points.count(",") <= POINTS_MAX + 1


def test_a_sum_that_differs_is_never_left_without_a_word() -> None:
    """By how much and why, a row for what is not told; and where all is told, that it is. The second sum is short."""
    spend = {"model": [("large", Usd.of(9)), ("small", Usd.of(2))], "key": [("web", Usd.of(11))]}
    told = page(month(), Pictures(spend=spend, untold=[Cause(Usd.of(4), "one day"), Cause(Usd.of(-1), "another")]))
    for said in (
        "sum by model is 11.00 $, 3.00 $ less than the 14.00 $",
        "4.00 $ less: one day",
        "1.00 $ more: another",
        "(not told by model)",
        "21.4 %",
        "The sum by key is the same 11.00 $",
    ):
        assert said in told, said
    told = page(month(), Pictures(spend={"model": [("large", Usd.of(20))]}))
    assert "6.00 $ more than the 14.00 $ that were used; why is not known" in told
    assert "not told by" not in told
    assert "14.00 $, which is all that was used" in page(month(), Pictures(spend={"key": [("web", Usd.of(14))]}))


def test_beyond_a_dozen_the_others_are_one_row() -> None:
    """And what is less than a cent does not look like nothing."""
    rows = [(f"m{n:02}", Usd.of(1)) for n in range(13)] + [("tiny", Usd.of("0.001"))]
    told = page(month(), Pictures(spend={"model": rows}))
    assert "m11" in told and "m12" not in told
    assert "2 others" in told
    assert "&lt; 0.01 $" in page(month(), Pictures(spend={"model": rows[-1:]}))


def pixels(file: Path) -> tuple[int, Counter[tuple[int, int, int]]]:
    """Return a PNG's width and how often each colour stands in it (8 bits a channel, as browsers write)."""
    raw = file.read_bytes()
    width, height, depth, kind = (int.from_bytes(raw[a:b], "big") for a, b in ((16, 20), (20, 24), (24, 25), (25, 26)))
    size = {2: 3, 6: 4}[kind]
    assert depth == 8
    packed, at = b"", 8
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        packed += raw[at + 8 : at + 8 + length] if raw[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    told, rows = zlib.decompress(packed), width * size
    above, found = bytearray(rows), Counter[tuple[int, int, int]]()
    for y in range(height):
        start = y * (rows + 1)
        method, line = told[start], bytearray(told[start + 1 : start + 1 + rows])
        for n in range(rows) if method else ():
            left, up, corner = (line[n - size] if n >= size else 0), above[n], (above[n - size] if n >= size else 0)
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda one: abs(guess - one))
            line[n] = (line[n] + (0, left, up, (left + up) // 2, nearest)[method]) & 255
        found.update(zip(line[0::size], line[1::size], line[2::size], strict=True))
        above = line
    return width, found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the longest names, numbers and ids that there may be."""
    at_ms = START_MS + 20 * DAY_MS
    wide = [
        Entry(
            then_ms,
            "t20",
            "gas",
            b"\x02" * 32,
            "",
            1,
            None,
            "none",
            (Line(MOVED, ETH, -UNITS), Line(WALLET, ETH, UNITS)),
        )
        for then_ms in (START_MS - 1, at_ms)
    ]
    names = [("a-maker-of-models/" + "x" * 90, Usd.of(3)), ("maker/small", Usd.of("1.5"))]
    more = replace(
        pictures(), spend={"model": names, "key": [("<i>team</i>", Usd.of(3))]}, untold=[Cause(Usd.of(9), "w" * 90)]
    )
    made = tmp_path_factory.mktemp("page") / "statement.html"
    made.write_text(page(month(*wide, payment(at_ms, "t" * 64)), more), encoding="utf-8")
    return made


# What stands partly outside of the page or of what holds it, but for what only a screen reader is to find.
CUT = """[...document.body.querySelectorAll('*')].filter(one => !one.closest('thead') || getComputedStyle(
  one.closest('thead')).position != 'absolute').filter(one => one.getBoundingClientRect().right > innerWidth + 0.5
  || one.getBoundingClientRect().left < -0.5 || (!one.ownerSVGElement && one.scrollWidth > one.clientWidth + 1
  && getComputedStyle(one).display != 'inline')).map(one => one.outerHTML.slice(0, 99))"""
# The height of letters as they are seen, in CSS pixels.
SMALLEST = """Math.min(...[...document.body.querySelectorAll(':not(title)')].filter(one => [...one.childNodes].some(
  node => node.nodeType == 3 && node.data.trim())).map(one => parseFloat(getComputedStyle(one).fontSize)
  * (one.ownerSVGElement ? one.getScreenCTM().d : 1)))"""


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (PHONE, "light"), (DESK, "dark"), (DESK, "light")])
def test_it_keeps_nobody_out(chromium: Browser, file: Path, width: int, scheme: str) -> None:
    """axe-core finds nothing grave, no text is smaller than 11 pixels, nothing is cut off."""
    shown = chromium.shown(file, width=width, scheme=scheme)
    assert shown.run(CUT) == []
    assert shown.run(SMALLEST) >= 11
    assert shown.faults() == []


@pytest.mark.parametrize("width", [320, 800, 801])
def test_nothing_is_cut_off_at_any_width(chromium: Browser, file: Path, width: int) -> None:
    """Nor on a small phone, nor where the tables are tables again."""
    assert chromium.shown(file, width=width).run(CUT) == []


def test_a_screen_reader_finds_the_same_on_a_phone(chromium: Browser, file: Path) -> None:
    """Rows and columns of each table, its caption, and the picture by its name, though the rows look like cards."""
    phone, desk = (Counter(chromium.shown(file, width=width).tree()) for width in (PHONE, DESK))
    for role in ("table", "row", "rowheader", "columnheader", "cell", "image", "heading"):
        mine, other = ({key: n for key, n in tree.items() if key[0] == role} for tree in (phone, desk))
        assert mine.keys() == other.keys() and mine, role
    assert ("image", "Credits over time, in dollars; what it shows is said below") in phone
    assert ("columnheader", "left the wallet") in phone
    assert not any(role == "table" and not name for role, name in phone)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it(chromium: Browser, file: Path, tmp_path: Path, scheme: str) -> None:
    """The ground, the line of the credits and the marks of the refills have the colours of the scheme."""
    width, found = pixels(chromium.shown(file, width=500, scheme=scheme).shot(tmp_path / "shot.png", whole=False))
    assert width == 500
    assert found[GROUND[scheme]] > 10_000
    assert found[BLUE[scheme]] > 100
    assert found[GREEN[scheme]] > 20


def test_it_prints(chromium: Browser, file: Path, tmp_path: Path) -> None:
    """On paper it is a few pages, as dark as the screen never, and no table leaves them."""
    paper = chromium.shown(file, scheme="dark").printed(tmp_path / "statement.pdf")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) <= 4
    shown = chromium.shown(file, width=PAPER, scheme="dark", media="print")
    assert shown.run(CUT) == []
    assert shown.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
