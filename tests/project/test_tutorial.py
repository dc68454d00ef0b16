"""Can the tutorial be followed? Its commands are typed into a shell, as it has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import tools

TUTORIAL = (tools.ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- (test: tutorial(?:, exit (\d))?) -->\n)?```sh\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.mark.slow
def test_every_command_of_the_tutorial_ends_as_it_says(tmp_path: Path) -> None:
    """In one shell, one after the other; each exits 0, or as its block says."""
    script = ""
    for mark, code, block in BLOCKS:
        for line in block.splitlines() if mark else []:
            wanted = code or "0"
            script += f"{line}\nended=$?; [ $ended = {wanted} ] || {{ echo '{line}' ended as $ended >&2; exit 1; }}\n"
    done = tools.shell(script, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TOPUP_CONFIG": "/dev/null"})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "books      match the chain to the wei" in done.stdout
    assert "result     refused" in done.stdout


def test_only_the_install_is_not_run_here() -> None:
    """It is the first block, and what these tests run in was made by the same command."""
    assert [block for mark, _, block in BLOCKS if not mark] == ["python3 requirements/install.py sandbox\n"]
    assert len(BLOCKS) >= 5
