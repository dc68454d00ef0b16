"""Does the README's picture show what the sandbox prints?"""

import re
from xml.etree import ElementTree as ET

import pytest

from tests.picture import PICTURE, PROMPT, drawn, run

TEXT = "{http://www.w3.org/2000/svg}text"


def lines(picture: str) -> list[str]:
    """Return the lines that stand in a picture."""
    return [element.text or "" for element in ET.fromstring(picture).iter(TEXT)]  # noqa: S314 - our own file


def without_figures(line: str) -> str:
    """Return a line with its numbers and hashes taken out, and with single spaces."""
    return " ".join(re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", line).split())


def test_every_line_stands_in_the_picture_as_it_is() -> None:
    """Signs that mean something in XML do not change, and an empty line takes its place."""
    shown = ['  1 s  <sent> & "accepted"', "", "books match → the wei"]
    assert lines(drawn(shown)) == ["$ topup sandbox", shown[0], shown[2]]


@pytest.mark.slow
def test_the_picture_is_a_run_of_today() -> None:
    """Figures differ from run to run; what is said of a refill, and how it ends, does not."""
    shown = lines(PICTURE.read_text(encoding="utf-8"))
    printed = {without_figures(line) for line in run()}
    assert shown[0] == PROMPT + "topup sandbox"
    assert [line for line in shown[1:] if without_figures(line) not in printed] == [], "run `python -m tests.picture`"
    assert shown[-1] == "books      match the chain to the wei"
