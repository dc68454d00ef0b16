"""Is everything in order? Lint, types, layers and all tests: `python -m tests [arguments for pytest]`.

Installs what the tests take from npm first (tests/npm/package-lock.json); a machine without node 18 gets one from
PyPI. Everything runs even when something before it failed; the exit status is 0 only when all of it passed.
"""

import os
import shutil
import subprocess
import sys
import time

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


def main(arguments: list[str]) -> int:
    """Run everything; pytest comes last, so that its summary and the count of skips close the output."""
    _from_npm()
    failed = [name for name, command in CHECKS.items() if not _passes(name, command)]
    workers = 1 + 2 * (os.cpu_count() or 1)  # most of them wait for blocks and processes most of the time
    # Whoever is done takes over from the others: the longest tests stand in rows.
    pytest = [sys.executable, "-m", "pytest", f"--numprocesses={workers}", "--dist=worksteal", *arguments]
    code = subprocess.run(pytest, cwd=tools.ROOT, check=False).returncode
    if failed:
        print(f"FAILED before the tests: {', '.join(failed)}", flush=True)
    return code or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
