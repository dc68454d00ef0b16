"""Do the documents say what the code does, wherever that can be compared?"""

import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from tests.generate_docs import AGAIN, BLOCK, BLOCKS, DOCS, FILES, GOLDEN, commands, golden_events, written
from tests.tools import ROOT
from topup.app.settings import Settings, names
from topup.commands.cli import app
from topup.domain import events
from topup.domain.credits import Doubt
from topup.domain.messages import MessageKind
from topup.domain.policy import Why

DOCUMENTS = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix())
def test_generated_parts_are_up_to_date(path: Path) -> None:
    """What stands between the marks is what the code says today."""
    text = path.read_text(encoding="utf-8")
    assert written(text) == text, AGAIN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    """The manual page and the completions are what the commands' declarations say today."""
    assert path.read_text(encoding="utf-8") == FILES[path](), AGAIN


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
    """In the catalogue's order, nothing invented; each speaks of money, or of what was paid or signed."""
    loud = [e.name() for e in events.catalogue() if e.level in ("warning", "error", "critical")]
    assert re.findall(r"^### `(.+)`$", _section("Events"), re.MULTILINE) == loud
    entries = re.split(r"^### ", _section("Events"), flags=re.MULTILINE)[1:]
    silent = [e.partition("\n")[0] for e in entries if not re.search("oney|paid|signed|network fee", e)]
    assert silent == []


def _sources() -> str:
    """Return the program's text, without the sandbox that plays the others."""
    every = sorted((ROOT / "topup").rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in every if "sandbox" not in path.parts)


def test_the_runbook_explains_every_word_that_somebody_is_told() -> None:
    """In the order of the code; so has every reason of PaymentForbidden, and every word that the flow waits with."""
    assert _words("Doubts") == [doubt.value for doubt in Doubt]
    assert _words("Decisions") == [why.value for why in Why]
    given = re.findall(r'PaymentForbidden\(\s*(?:(?:Reason|Why)\.([A-Z_]+)|"([a-z_]+)")', _sources())
    assert set(_words("Payments")) == {name.lower() or word for name, word in given}
    waits = {name.lower() for name in re.findall(r"_wait\(\s*topup, (?:Reason|Why)\.([A-Z_]+)", _sources())}
    assert set(_words("Waits")) == waits | {"paid", "uncredited"}


def _quoted(text: str) -> list[str]:
    """Return what stands in code marks in the first column of the tables."""
    cells = [line.removeprefix("| ").partition(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return [said for cell in cells for said in re.findall("`([^`]+)`", cell)]


def test_the_ledger_says_what_the_runbook_quotes() -> None:
    """A sentence that is looked up there is one that the program says, word by word."""
    source, quoted = _sources(), _quoted(_section("The ledger refuses"))
    assert len(quoted) >= 10
    assert [said for said in quoted if said not in source] == []


def test_each_reason_to_halt_says_how_it_is_left() -> None:
    """Every reason that the flow halts with is in the table, and each that is there is given somewhere."""
    text = (DOCS / "lifecycle.md").read_text(encoding="utf-8").partition("The reasons:\n")[2].partition("\n## ")[0]
    source, quoted = _sources(), _quoted(text)
    assert [said for said in quoted if said not in source] == []
    given = re.findall(r'(?:_halt\(\s*topup,\s*|reason = )f?"([^"]+)"', source)
    assert len(given) >= 5
    assert [reason for reason in given if not any(said in reason for said in quoted)] == []


def test_the_model_is_as_large_as_the_page_says() -> None:
    """The number of states on the page is the one that the model's own test counts."""
    model = (ROOT / "tests" / "proofs" / "test_rule_r.py").read_text(encoding="utf-8")
    (counted,) = re.findall(r"reached\) == ([\d_]+)", model)
    text = (DOCS / "lifecycle.md").read_text(encoding="utf-8")
    assert f"{int(counted):,} states" in " ".join(text.split())


def test_the_worst_case_is_derived_from_the_defaults() -> None:
    """The one number, what it is in ETH with one provider, and what it is with a second, honest one."""
    s = Settings.model_construct()
    cap, month = s.policy.cap_24h, s.policy.cap_30d
    eth, dear = cap / s.price.eth_usd_min, cap * (10_000 + s.price.deviation_bps) / 10_000
    security = " ".join((DOCS / "security.md").read_text(encoding="utf-8").split())
    assert f"**{cap} dollars within any 24 hours**, and {month} within any 30 days" in security
    assert f"{cap} / {s.price.eth_usd_min} = **{eth} ETH**" in security
    assert f"{cap} dollars cost at most {dear:.0f} dollars' worth of ETH" in security
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for said in (f"at most {cap} dollars in any 24 hours", f"at most {eth} ETH", f"{month} in any 30 days"):
        assert said in readme


def _called(name: str) -> list[str]:
    """Return every module of the package that is called so."""
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "topup").rglob(f"{name}.py")]


def test_every_setting_named_in_a_document_exists() -> None:
    """A dotted name in code marks is a setting, a kind of message, or a name in a module of the package."""
    known = set(names()) | set(MessageKind)
    sections = {name.partition(".")[0] for name in names() if "." in name}
    strange = []
    for path in DOCUMENTS:
        for said in re.findall(r"`([a-z]+\.[A-Za-z0-9_.]+)`", path.read_text(encoding="utf-8")):
            first, _, rest = said.partition(".")
            own = any(hasattr(import_module(module), rest) for module in _called(first))
            if first in sections and said not in known and not own and not said.endswith(".py"):
                strange.append(f"{path.name}: {said}")
    assert strange == []


def test_every_command_named_in_a_document_exists() -> None:
    """`topup …` in code marks begins with a command."""
    known = {name for name, _ in commands()}
    for path in DOCUMENTS:
        for said in re.findall(r"`topup ([a-z][a-z ]*)", path.read_text(encoding="utf-8")):
            assert any(f"topup {said}".startswith(name) for name in known), f"{path.name}: topup {said}"


def test_every_option_named_in_a_document_exists() -> None:
    """`topup resolve ID --cancel` names an option of `resolve`; an option alone is one of some command."""
    options = {
        name.removeprefix("topup "): {"--help", *(one for option in command.params for one in option.opts)}
        for name, command in commands()
    }
    top = {one for option in get_command(app).params for one in option.opts}
    strange = []
    for path in DOCUMENTS:
        for said in re.findall(r"`((?:topup )?[^`\n]*--[^`\n]*)`", BLOCK.sub("", path.read_text(encoding="utf-8"))):
            named = [own for name, own in options.items() if said.removeprefix("topup ").startswith(name)]
            known = top.union(*(named or options.values()))
            if not said.startswith(("python", ".venv/bin/python", "--accept")):
                strange += [f"{path.name}: {said}" for one in re.findall(r"--[a-z-]+", said) if one not in known]
    assert strange == []


def test_every_module_that_a_document_runs_exists() -> None:
    """`python -m tests.proofs.rule_r` is a file of that name."""
    for path in DOCUMENTS:
        for said in re.findall(r"python -m ([\w.]+)", path.read_text(encoding="utf-8")):
            module = ROOT / said.replace(".", "/")
            runs = [module.with_suffix(".py"), module / "__main__.py"]
            assert said == "pytest" or any(file.exists() for file in runs), f"{path.name}: {said}"


def test_links_and_paths_lead_somewhere() -> None:
    """Each relative link, and each path of the repository in code marks, exists."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        links = [path.parent / link for link in re.findall(r"\]\(([^):#]+)\)", text)]
        links += [path.parent / link for link in re.findall(r"\]\(([\w./-]+)#", text)]
        links += [ROOT / p for p in re.findall(r"`((?:topup|tests|deploy|docs|requirements)/[\w./-]+)`", text)]
        assert [link for link in links if not link.exists()] == []


def test_an_anchor_is_a_heading() -> None:
    """A link into a page leads to one of its headings."""
    for path in DOCUMENTS:
        for page, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", path.read_text(encoding="utf-8")):
            there = (path.parent / page if page else path).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
            headings = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in headings, f"{path.name}: {page}#{anchor}"
