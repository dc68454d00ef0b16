"""Do the documents say what the code does, wherever that can be compared?"""

import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from tests.generate_docs import AGAIN, BLOCK, BLOCKS, DOCS, GOLDEN, commands, golden_events, written
from tests.tools import ROOT
from topup import events
from topup.cli import app
from topup.credits import Doubt
from topup.policy import Why
from topup.settings import names

DOCUMENTS = sorted(DOCS.glob("*.md"))
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    """What stands between the marks is what the code says today."""
    text = path.read_text(encoding="utf-8")
    assert written(text) == text, AGAIN


def test_every_generated_part_stands_in_one_document() -> None:
    """No block is forgotten, and none is shown twice."""
    found = [name for path in DOCUMENTS for _, name, _ in BLOCK.findall(path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(BLOCKS)


def test_events_keep_their_names_levels_and_fields() -> None:
    """An alert written today fires next year; to change one on purpose: generate_docs --accept-events."""
    assert golden_events() == GOLDEN.read_text(encoding="utf-8"), f"{AGAIN} with --accept-events"


def _section(title: str) -> str:
    return RUNBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _words(title: str) -> list[str]:
    return re.findall(r"^\| `([a-z0-9_]+)` \|", _section(title), re.MULTILINE)


def test_the_runbook_has_an_entry_for_every_event_from_warning_up() -> None:
    """Whoever is woken by an event finds it there; the order is the catalogue's, and nothing is invented."""
    loud = [e.name() for e in events.catalogue() if e.level in ("warning", "error", "critical")]
    assert re.findall(r"^### `(.+)`$", _section("Events"), re.MULTILINE) == loud


def test_every_entry_of_the_runbook_says_whether_money_moved() -> None:
    """Each speaks of money, or of what was paid or signed."""
    entries = re.split(r"^### ", _section("Events"), flags=re.MULTILINE)[1:]
    silent = [e.partition("\n")[0] for e in entries if not re.search("oney|paid|signed|network fee", e)]
    assert silent == []


def test_the_runbook_explains_every_doubt_and_every_decision() -> None:
    """Each word that can stand in `doubt` or `why` has its row, in the order of the code."""
    assert _words("Doubts") == [doubt.value for doubt in Doubt]
    assert _words("Decisions") == [why.value for why in Why]


def test_the_runbook_explains_why_a_payment_is_forbidden() -> None:
    """Every reason word that the source gives to PaymentForbidden has its row, and no row is invented."""
    package = ROOT / "topup"
    rooms = [
        package / "policy.py",
        package / "purchase.py",
        *(package / "rails").glob("*.py"),
        *(package / "chain").glob("*.py"),
    ]
    sources = [path.read_text(encoding="utf-8") for path in rooms]
    raised = {word for text in sources for word in re.findall(r'PaymentForbidden\(\s*"([a-z_]+)"', text)}
    assert set(_words("Payments")) == raised


def test_every_setting_named_in_a_document_exists() -> None:
    """A dotted name in code marks is a setting, or a name in a module of the package."""
    known = set(names())
    sections = {name.partition(".")[0] for name in known if "." in name}
    strange = []
    for path in DOCUMENTS:
        for said in re.findall(r"`([a-z]+\.[A-Za-z0-9_.]+)`", path.read_text(encoding="utf-8")):
            first, _, rest = said.partition(".")
            own = (ROOT / "topup" / f"{first}.py").exists() and hasattr(import_module(f"topup.{first}"), rest)
            if first in sections and said not in known and not own and not said.endswith(".py"):
                strange.append(f"{path.name}: {said}")
    assert strange == []


def test_every_command_named_in_a_document_exists() -> None:
    """`topup …` in code marks begins with a command."""
    known = {name for name, _ in commands(get_command(app), "topup")}
    for path in DOCUMENTS:
        for said in re.findall(r"`topup ([a-z][a-z ]*)", path.read_text(encoding="utf-8")):
            assert any(f"topup {said}".startswith(name) for name in known), f"{path.name}: topup {said}"


def test_links_and_paths_lead_somewhere() -> None:
    """Each relative link, and each path of the repository in code marks, exists."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        links = [path.parent / link for link in re.findall(r"\]\(([^):#]+)\)", text)]
        links += [ROOT / p for p in re.findall(r"`((?:topup|tests|deploy|docs|requirements)/[\w./-]+)`", text)]
        assert [link for link in links if not link.exists()] == []
