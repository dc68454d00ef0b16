"""Which foreign program does a test need, and where is it?

`require(name)` returns its path, or skips the test with a reason that names what is missing; with
TOPUP_TEST_REQUIRE=all (CI) what is missing fails the test instead. `python -m tests` installs what comes from npm.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
BIN: Final = Path(sys.executable).parent
NPM: Final = ROOT / "tests" / "npm"
MODULES: Final = NPM / "node_modules"
NODE_MAJOR_MIN: Final = 18
MISSING: Final = "missing "
# A test that never ended would take longer, in seconds of the machine; however slow it is, no other does.
HANGS_S: Final = 900


def environ(**values: str) -> dict[str, str]:
    """An environment of these settings alone; `policy__floor` stands for TOPUP_POLICY__FLOOR."""
    return {"TOPUP_CONFIG": "/dev/null"} | {"TOPUP_" + name.upper(): value for name, value in values.items()}


def outside() -> dict[str, str]:
    """Return this process's environment without any setting of topup's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOPUP_")}


def kept(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that others may not read, unless it is to be otherwise."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def memory() -> str | None:
    """Return where files cost no disk, if there is such a place: for what is not to outlive its process."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - only as a place


def shell(
    script: str, environment: dict[str, str] | None = None, options: str = "-c"
) -> subprocess.CompletedProcess[str]:
    """Run a script in bash at the root of the repository."""
    command = ["bash", options, script]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_S, check=False
    )


def program(name: str) -> Path | None:
    """Find a program beside this Python or on the PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)]))
    return Path(found) if found else None


def node() -> Path | None:
    """Find a node of version 18 or newer: the machine's own, or the one a PyPI wheel put beside this Python."""
    for folder in (os.environ.get("PATH", os.defpath), str(BIN)):
        found = shutil.which("node", path=folder)
        if not found:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        major = said.strip().removeprefix("v").partition(".")[0]
        if major.isdigit() and int(major) >= NODE_MAJOR_MIN:
            return Path(found)
    return None


def _anvil() -> Path | None:
    # The binary itself: under npx, ending npx would leave anvil alive.
    system = platform.system().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return _present(MODULES / "@foundry-rs" / f"anvil-{system}-{machine}" / "bin" / "anvil")


def _present(path: Path) -> Path | None:
    return path if path.exists() else None


_FINDERS: Final[dict[str, Callable[[], Path | None]]] = {
    "anvil": _anvil,
    "axe": lambda: _present(MODULES / "axe-core"),  # the folder of what judges whether a page keeps people out
    "node": node,
    "solc": lambda: _present(MODULES / "solc" / "solc.js"),  # run by node: `node solc.js --standard-json`
    "uniswap": lambda: _present(MODULES / "@uniswap"),  # the folder of Uniswap's npm packages
}

# Everything that some test requires.
REQUIRED: Final = (
    "anvil",
    "axe",
    "bean-check",
    "buildah",
    "chromium",
    "fish",
    "groff",
    "hadolint",
    "hledger",
    "mmdebstrap",
    "node",
    "prometheus",
    "promtool",
    "shellcheck",
    "solc",
    "systemd-analyze",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "uniswap",
    "uv",
    "zsh",
)


def lacking() -> list[str]:
    """Return what this machine lacks, so that the tests which require it are skipped."""
    return [name for name in REQUIRED if find(name) is None]


def find(name: str) -> Path | None:
    """Find what tests know by this name: one of npm's things above, else a program."""
    finder = _FINDERS.get(name)
    return finder() if finder else program(name)


def require(name: str) -> Path:
    """Return the path of a program or package, or skip (TOPUP_TEST_REQUIRE=all: fail) the test that asks."""
    found = find(name)
    if found:
        return found
    if os.environ.get("TOPUP_TEST_REQUIRE") == "all":
        pytest.fail(f"{MISSING}{name}, and TOPUP_TEST_REQUIRE=all asks for everything", pytrace=False)
    pytest.skip(f"{MISSING}{name}")
