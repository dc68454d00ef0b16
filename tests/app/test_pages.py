"""Does the page say in the largest letters whether the account is funded, and never more than is known?"""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.tools import environ
from tests.world.browser import DESK, PHONE, browser
from tests.world.builders import ACCOUNT, NOW_MS, operator
from tests.world.ledger import paid, reading
from tests.world.served import Served, served
from topup.app.pages import account_page, statement_page
from topup.app.settings import load
from topup.domain.lifecycle import Fact
from topup.ledger.store import SqliteStore

# How large the letters of each element are, in CSS pixels.
SIZES = "[...document.body.querySelectorAll('*')].map(one => parseFloat(getComputedStyle(one).fontSize))"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open_writer(tmp_path)) as made:
        yield made


def told(tmp_path: Path, **settings: str) -> str:
    """Return the page's text, one line for each element."""
    page = account_page(load(environ(state_dir=str(tmp_path), **settings)), NOW_MS)
    body = re.sub(r"<[^>]+>", "\n", page.partition("<body>")[2])
    return "\n".join(line for line in body.splitlines() if line.strip())


@pytest.mark.parametrize(
    ("left", "word"),
    [(None, "nothing is known of its credits"), ("0", "EMPTY"), ("9.99", "LOW"), ("10", "FUNDED")],
)
def test_the_largest_letters_say_whether_it_is_funded(
    left: str | None, word: str, store: SqliteStore, tmp_path: Path
) -> None:
    """What is not known is said to be so, and no figure stands in its place."""
    if left is not None:
        store.record_reading(ACCOUNT, reading(credits=left, usage="0"))
    page = told(tmp_path)
    assert page.splitlines()[1].startswith(word)
    assert ("not known\ncredits left" in page) is (left is None)


def test_what_is_wrong_and_what_others_said_stand_as_text(store: SqliteStore, tmp_path: Path) -> None:
    """A top-up that needs a person comes first, with the steps it took; markup in what a seller said is none."""
    topup = paid(store, operator())
    store.move(topup, Fact.HALT, NOW_MS, "conflict: <script>alert(1)</script>")
    page = account_page(load(environ(state_dir=str(tmp_path))), NOW_MS)
    assert "<script" not in page
    text = told(tmp_path)
    assert text.index("nothing more is done about it") < text.index("credits left")
    assert "to do: `topup show" in text
    assert "conflict: &lt;script&gt;" in text
    steps = text.partition("Its steps")[2]
    assert steps.index("sent") < steps.index("paid") < steps.index("halted")
    assert statement_page(load(environ(state_dir=str(tmp_path))), NOW_MS).startswith("<!doctype html>")


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_daemon_serves_it_to_everybody_who_looks(tmp_path: Path) -> None:
    """On a phone and a desk, light and dark: axe-core finds nothing grave, nothing is cut off, nothing is loaded."""
    with served(tmp_path) as place:
        address = _served(place)
        with browser(tmp_path / "profile") as chromium:
            for path in ("/", "/statement"):
                for scheme in ("light", "dark"):
                    for width in (PHONE, DESK):
                        shown = chromium.shown(f"http://{address}{path}", width=width, scheme=scheme)
                        assert shown.faults() == [], (path, scheme, width)
                        assert shown.run("document.documentElement.scrollWidth") <= width
                        assert shown.run("document.querySelectorAll('script,link,img').length") == 0
            shown = chromium.shown(f"http://{address}/", width=PHONE)
            assert shown.run("document.querySelector('.state').textContent") == "FUNDED"
            largest = (
                "Math.max(...[...document.querySelectorAll('*')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
            )
            assert shown.run(f"parseFloat(getComputedStyle(document.querySelector('.state')).fontSize) == {largest}")


def _served(place: Served) -> str:
    place.low()
    daemon = place.start("run", web__page="0")
    daemon.await_event("top_up_done")
    (said,) = daemon.told("web_served", setting="web.page")
    return str(said["address"])
