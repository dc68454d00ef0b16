"""Other people's implementations of what we speak: each in an environment of its own, beside ours.

`python(name)` returns the Python of the environment that `requirements/oracles/NAME.txt` locks; it is built once for
each lock, in `.oracles/` at the root of the checkout. Where no package index can be had the test is skipped, or fails
with TOPUP_TEST_REQUIRE=all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.tools import MISSING, ROOT, program

BUILT: Final = ROOT / ".oracles"


@cache
def python(name: str) -> Path:
    """Return the Python of one oracle, with everything installed that its lock names."""
    lock = ROOT / "requirements" / "oracles" / f"{name}.txt"
    folder = BUILT / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    found, whole = folder / "bin" / "python", folder / ".whole"
    if not whole.exists():
        said = _build(folder, lock)
        if said:
            _lacking(f"the oracle {name}: {said}")
        whole.touch()
    return found


def _build(folder: Path, lock: Path) -> str:
    """Make the environment; return why it could not be made, "" when it could. Several workers may try at once."""
    own = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(own, ignore_errors=True)
    uv = program("uv")
    installed = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)]
    steps = [[sys.executable, "-m", "venv", str(own)], installed]
    if uv is not None:
        into = ["--python", str(own / "bin" / "python"), "--require-hashes", "-r", str(lock)]
        steps = [[str(uv), "venv", "--quiet", "--python", sys.executable, str(own)], [str(uv), "pip", "install", *into]]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(own, ignore_errors=True)
            return done.stderr.strip()[-300:]
    if not folder.exists():
        own.rename(folder)  # scripts would name the old place; only its Python is run
    return ""


def _lacking(what: str) -> None:
    reason = f"{MISSING}{what}"
    if os.environ.get("TOPUP_TEST_REQUIRE") == "all":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
