"""Is everything in order? Lint, types, layers and all tests: `python -m tests [--beside N] [arguments for pytest]`.

    python -m tests long         what takes too long for every time: the other rows of all sweeps, the whole kill matrix
    python -m tests --beside 4   the same beside four busy processes: no verdict may depend on how fast a machine is

Says first what this machine lacks and how long it will take; what was missing is in the last line as well. What the
tests take from npm is installed before that (tests/npm/package-lock.json); a machine without node 18 gets it from PyPI.
Everything runs even when something before it failed; the exit status is 0 only when all of it passed.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests import tools

CHECKS = {
    # The README's install for a machine with a key; the tests find it in place and need no registry for it.
    "install": ["python", "requirements/install.py", "run"],
    "lint": ["ruff", "check", "--output-format=concise", "."],
    "format": ["ruff", "format", "--check", "--output-format=concise", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}


def _from_npm() -> None:
    """Bring tests/npm/node_modules to what its lock says; the tests that need it skip, or fail, when this cannot."""
    lock = tools.NPM / "package-lock.json"
    stamp = tools.MODULES / ".installed"
    if not lock.exists() or (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
        return
    if tools.node() is None:
        subprocess.run([sys.executable, tools.ROOT / "requirements" / "install.py", "node"], check=False)
    node = tools.node()
    npm = node and shutil.which("npm", path=os.pathsep.join([str(node.parent), os.environ.get("PATH", os.defpath)]))
    if node is None or npm is None:
        print("npm: no node 18 with npm to be had", flush=True)
        return
    # No package's own scripts: what is needed lies in the packages as files. Not `npm ci`: it refuses where a registry
    # lacks the anvil of some other platform. What the lock names is checked against the lock's hashes either way.
    options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    env = {**os.environ, "PATH": os.pathsep.join([str(node.parent), os.environ.get("PATH", os.defpath)])}
    if subprocess.run([npm, "install", *options], cwd=tools.NPM, env=env, check=False).returncode == 0:
        stamp.write_bytes(lock.read_bytes())


def _passes(name: str, command: list[str]) -> bool:
    """Run one check with the programs beside this Python; its output matters only when it fails."""
    start = time.monotonic()
    done = subprocess.run(
        [tools.BIN / command[0], *command[1:]],
        cwd=tools.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout)
    print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - start:.1f} s)", flush=True)
    return done.returncode == 0


# Where it is kept how long it took the last time, beside what pytest remembers of this clone.
LASTED: Final = tools.ROOT / ".pytest_cache"


def _lasted(name: str) -> Path:
    return LASTED / f"topup-lasted-{name}"


def _foretold(name: str, lacking: list[str]) -> str:
    """Return what to expect: what will be skipped, and how long it takes."""
    lacks = f"missing here, so that their tests skip: {', '.join(lacking)}" if lacking else "nothing is missing here"
    try:
        minutes = f"it took {int(_lasted(name).read_text(encoding='utf-8')) / 60:.0f} minutes the last time"
    except (OSError, ValueError):
        minutes = {
            "tests": "some 5 minutes on two processors with nothing else to do",
            "long": "some 50 minutes on two processors",
        }[name]
    return f"{lacks}; {minutes}"


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep so many processes busy beside what is done meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _compiled() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq"]
    subprocess.run(command, cwd=tools.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _tests(arguments: list[str]) -> int:
    workers = 1 + 2 * (os.cpu_count() or 1)  # most of them wait for blocks and processes most of the time
    # Whoever is done takes over from the others: the longest tests stand in rows.
    pytest = [sys.executable, "-m", "pytest", f"--numprocesses={workers}", "--dist=worksteal", *arguments]
    return subprocess.run(pytest, cwd=tools.ROOT, check=False).returncode


def _matrix() -> int:
    # A cell mostly waits for blocks: more of them than there are processors.
    jobs = str(8 * (os.cpu_count() or 1))
    matrix = [sys.executable, "-m", "tests.proofs.kill_matrix", "--jobs", jobs]
    return subprocess.run(matrix, cwd=tools.ROOT, check=False).returncode


def main(arguments: list[str]) -> int:
    """Run everything; return 0 only when all of it passed."""
    reader = argparse.ArgumentParser(prog="python -m tests", allow_abbrev=False, add_help=False)
    reader.add_argument("--beside", type=int, default=0)
    asked, rest = reader.parse_known_args(arguments)
    name = "long" if rest[:1] == ["long"] else "tests"
    _from_npm()
    lacking = tools.lacking()
    print(_foretold(name, lacking), flush=True)
    began = time.monotonic()
    with _busy(asked.beside):
        if name == "long":
            codes = {"the long rows": _tests(["-m", "long", *rest[1:]]), "the kill matrix": _matrix()}
        else:
            # The checks take one processor; meanwhile the tests are compiled, which each worker would do by itself.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(_compiled)
                codes = {check: 0 if _passes(check, command) else 1 for check, command in CHECKS.items()}
            codes["the tests"] = _tests(rest)
    if not rest[name == "long" :]:
        LASTED.mkdir(exist_ok=True)
        _lasted(name).write_text(f"{time.monotonic() - began:.0f}", encoding="utf-8")
    failed = [check for check, code in codes.items() if code]
    said = f"FAILED: {', '.join(failed)}" if failed else "all passed"
    print(f"{said}; missing here: {', '.join(lacking) or 'nothing'}", flush=True)
    return next(filter(None, codes.values()), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
