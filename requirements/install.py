"""How does a machine with only python3 get exactly the packages of one lock? `python3 requirements/install.py LOCK`.

Makes `.venv` beside `requirements/`, fills it from `requirements/LOCK.txt`, every file checked against its hash, and
puts the `topup` of this checkout beside it.
pip brings uv, which brings the rest in a third of pip's time; where uv cannot (no wheel for the platform, an index
that only pip is told of), pip does it. A lock that is in place already costs nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

LOCKS = Path(__file__).resolve().parent
VENV = LOCKS.parent / ".venv"
BIN = VENV / "bin"
WITH_TOPUP = ("run", "sandbox", "test")
# A lock is complete and consists of wheels: nothing is left to resolve, nothing to build.
EXACTLY = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r"]


def _pip(lock: Path) -> None:
    options = ["-qq", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([BIN / "python", "-m", "pip", "install", *options, *EXACTLY, lock], check=True)


def _uv(lock: Path) -> None:
    _pip(LOCKS / "install.txt")
    options = ["--quiet", "--compile-bytecode", "--python"]
    subprocess.run([BIN / "uv", "pip", "install", *options, BIN / "python", *EXACTLY, lock], check=True)


def _checkout() -> None:
    """Install this checkout, editable, with the pinned build back end."""
    ours: list[str | Path] = ["--no-deps", "--editable", LOCKS.parent]
    try:
        pinned: list[str | Path] = ["--build-constraint", LOCKS / "build.txt"]
        subprocess.run(
            [BIN / "uv", "pip", "install", "--quiet", "--python", BIN / "python", *pinned, *ours], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        _pip(LOCKS / "build.txt")
        subprocess.run([BIN / "python", "-m", "pip", "install", "-qq", "--no-build-isolation", *ours], check=True)
    # As installing a wheel does. Without it, where PYTHONDONTWRITEBYTECODE is set, each command compiles it all again.
    subprocess.run([BIN / "python", "-m", "compileall", "-q", LOCKS.parent / "topup"], check=False)


def install(lock: Path) -> None:
    """Bring `.venv` to hold what `lock` lists; raises CalledProcessError when neither uv nor pip can."""
    stamp = VENV / f".installed-{lock.name}"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    if not (BIN / "pip").exists():
        venv.create(VENV, with_pip=True, symlinks=True)
    try:
        _uv(lock)
    except (OSError, subprocess.CalledProcessError):
        print("install: uv could not do it, trying pip alone", file=sys.stderr)
        _pip(lock)
    if lock.stem in WITH_TOPUP:
        _checkout()
    stamp.write_bytes(lock.read_bytes())


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have any python3, and deserves a sentence
        sys.exit(f"topup needs Python 3.11 or newer; this python3 is {sys.version.split()[0]}")
    names = sorted(path.stem for path in LOCKS.glob("*.txt"))
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python3 {os.path.relpath(__file__)} {'|'.join(names)}")
    install(LOCKS / f"{sys.argv[1]}.txt")
