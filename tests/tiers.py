"""Which tests wait for `python -m tests long`? Those that cost most, by what a run has measured: tests/long.txt.

    python -m tests.tiers     run every test, measure what each costs, and write the list anew

Of a table the cheapest row stays among the tests of every day, unless it alone costs too much. What docs/guarantees.md
names stays up to a higher bound. What is marked `long` where it stands is long whatever it costs.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.tools import ROOT

LISTED: Final = ROOT / "tests" / "long.txt"
COSTS: Final = "TOPUP_TEST_COSTS"
# Seconds that a further row of a table, the first one, and one that stands for a guarantee may cost.
ROW_S, TEST_S, PROMISED_S = 0.3, 1.5, 3.0
# A test mostly waits: so much of its time counts where its own processes have used less.
WAITING: Final = 0.25


def listed() -> frozenset[str]:
    """Return the ids of the tests that wait."""
    return frozenset(LISTED.read_text(encoding="utf-8").splitlines())


def mark(items: Sequence[pytest.Item]) -> None:
    """Mark as long what the list names."""
    waiting = listed()
    for item in items:
        if item.nodeid in waiting:
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Write down what a test has cost: the processor's time of this process and its children, or part of all time."""
    before, began = os.times(), time.monotonic()
    try:
        return (yield)
    finally:
        after, lasted = os.times(), time.monotonic() - began
        used = sum(after[:4]) - sum(before[:4])
        line = json.dumps([item.nodeid, max(used, lasted * WAITING)])
        with (Path(os.environ[COSTS]) / str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def chosen(costs: Mapping[str, float], promised: frozenset[str]) -> list[str]:
    """Return which of these tests wait; `promised` are the names of those that stand for a guarantee."""
    rows: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for test, cost in costs.items():
        rows[test.partition("[")[0]].append((cost, test))
    waiting = []
    for function, each in rows.items():
        most = PROMISED_S if function.rpartition("::")[2] in promised else TEST_S
        for place, (cost, test) in enumerate(sorted(each)):
            if cost > (ROW_S if place else most):
                waiting.append(test)
    return sorted(waiting)


def main() -> int:
    """Measure, and write the list; the exit code is pytest's."""
    promises = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="topup-costs-") as folder:
        LISTED.write_text("", encoding="utf-8")  # else what waits already would not be measured
        workers = str(1 + 2 * (os.cpu_count() or 1))
        pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "tests.tiers", "-n", workers, "--dist=worksteal"]
        code = subprocess.run(pytest_, cwd=ROOT, env=os.environ | {COSTS: folder}, check=False).returncode
        lines = [line for file in Path(folder).iterdir() for line in file.read_text(encoding="utf-8").splitlines()]
    waiting = chosen(dict(map(json.loads, lines)), frozenset(re.findall(r"\btest_\w+", promises)))
    LISTED.write_text("".join(f"{test}\n" for test in waiting), encoding="utf-8")
    print(f"{len(waiting)} of {len(lines)} tests wait")
    return code


if __name__ == "__main__":
    sys.exit(main())
