"""Is the page of a statement worth looking at? Drawn by a real browser, light, dark and on paper."""

import re
import subprocess
import zlib
from collections import Counter
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests import tools
from tests.world.november import NOVEMBER, START_MS, month, payment, posted
from topup.accounting.forecast import Band
from topup.accounting.formats.html import Pictures, page
from topup.domain.credits import Reading
from topup.domain.money import Usd

HOUR_MS = 3_600_000
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
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
    return Pictures(readings, Usd.of(10), spend, ahead)


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
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that needs no end."""

    def handle_endtag(self, tag: str) -> None:
        """Close the newest tag, which has to be this one."""
        assert self.open.pop() == tag


def test_the_page_holds_all_it_needs() -> None:
    """Nothing is loaded, nothing runs, every tag is closed, and names that others chose are text."""
    html = drawn()
    asked = Asked()
    asked.feed(html)
    assert (asked.loaded, asked.open) == ([], [])
    assert "url(" not in html and "@import" not in html
    assert "&lt;i&gt;team&lt;/i&gt;" in html
    assert html.count('class="mark"') == 3
    html = page(month(), Pictures())
    assert "no balance was read" in html
    assert "Spend by" not in html


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


def browsed(folder: Path, *options: str) -> None:
    """Let a browser look at the page, and do this with it."""
    browser = tools.require("chromium")
    file = folder / "statement.html"
    file.write_text(drawn(), encoding="utf-8")
    command = [str(browser), *QUIET, f"--user-data-dir={folder}/profile", *options, file.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it(tmp_path: Path, scheme: str) -> None:
    """The ground, the line of the credits and the marks of the refills have the colours of the scheme."""
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browsed(tmp_path, *dark, "--window-size=500,700", f"--screenshot={tmp_path}/shot.png")
    width, found = pixels(tmp_path / "shot.png")
    assert width == 500
    assert found[GROUND[scheme]] > 10_000
    assert found[BLUE[scheme]] > 100
    assert found[GREEN[scheme]] > 20


def test_it_prints(tmp_path: Path) -> None:
    """On paper it is a few pages, not one cut off."""
    browsed(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/statement.pdf")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "statement.pdf").read_bytes())) <= 4
