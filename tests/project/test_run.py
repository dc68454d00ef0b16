"""Does `python -m tests` say beforehand what this machine lacks, and afterwards what failed?"""

import re
import subprocess
from typing import Any

import pytest

from tests import __main__ as run
from tests import tiers, tools

# The words of each command that was run, and how many processes were busy beside it.
Calls = list[tuple[list[str], int]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Calls:
    """Every program that the command runs, none of which is run: all of them succeed but mypy."""
    calls: Calls = []
    loops: list[subprocess.Popen[bytes]] = []

    class Counted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            loops.append(self)

    def instead(words: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(([str(word) for word in words], sum(loop.poll() is None for loop in loops)))
        return subprocess.CompletedProcess(words, int("mypy" in str(words[0])), "an error")

    monkeypatch.setattr(run, "_from_npm", lambda: None)
    monkeypatch.setattr(run, "LASTED", tmp_path)
    monkeypatch.setattr(tools, "lacking", lambda: ["hledger"])
    monkeypatch.setattr(subprocess, "Popen", Counted)
    monkeypatch.setattr(subprocess, "run", instead)
    return calls


def test_what_is_missing_stands_at_both_ends(called: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line says what will skip and how long it takes, the last one what failed and what was missing."""
    assert run.main([]) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("missing here, so that their tests skip: hledger; some 5 minutes")
    assert last == "FAILED: types; missing here: hledger"
    run.main([])
    assert "; it took 0 minutes the last time" in capsys.readouterr().out.splitlines()[0]
    assert any("pytest" in words for words, _ in called)


def test_every_test_that_waits_is_there() -> None:
    """A test that was renamed would be run every day again, and one that is gone would be thought to be run."""
    for test in tiers.listed():
        file, name, *_ = test.partition("[")[0].split("::")
        assert re.search(rf"\b{name}\b", (tools.ROOT / file).read_text(encoding="utf-8")), test


def test_of_a_table_the_cheapest_row_stays() -> None:
    """Unless it costs too much by itself; what stands for a guarantee may cost more."""
    costs = {"a.py::test_a[x]": 0.2, "a.py::test_a[y]": 0.9, "a.py::test_b": 1.6, "a.py::test_c": 1.6}
    assert tiers.chosen(costs, frozenset({"test_c"})) == ["a.py::test_a[y]", "a.py::test_b"]


def test_busy_processes_run_beside_it_and_end_with_it(called: Calls) -> None:
    """Two loops are busy for as long as the tests run, and none is when they are over."""
    run.main(["--beside", "2", "tests/domain"])
    assert {busy for _, busy in called} == {2}
    assert called[-1][0][-1] == "tests/domain"
    called.clear()
    run.main([])
    assert {busy for _, busy in called} == {0}


def test_the_long_run_has_the_other_rows_and_the_whole_matrix(called: Calls) -> None:
    """`long` runs what is marked so, and every cell."""
    assert run.main(["long"]) == 0
    (rows, _), (matrix, _) = called
    assert rows[-2:] == ["-m", "long"]
    assert "tests.proofs.kill_matrix" in matrix
    assert "--sample" not in matrix


def test_whatever_a_test_requires_is_looked_for_at_the_start() -> None:
    """Every program that stands in a `require` is one of those which are told to be missing."""
    texts = (path.read_text(encoding="utf-8") for path in (tools.ROOT / "tests").rglob("*.py"))
    required = {name for text in texts for name in re.findall(r'require\("([a-z-]+)"\)', text)}
    assert required - {"false", "no-such-program"} <= set(tools.REQUIRED)
