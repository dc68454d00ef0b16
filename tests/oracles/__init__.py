"""Other people's implementations of what we speak: each in an environment of its own, beside ours.

`python(name)` returns the Python of the environment that `requirements/oracles/NAME.txt` locks, `node_modules()` what
`npm/package-lock.json` beside this file locks; both are built once for each lock, in `.oracles/` at the root of the
checkout. Where no package index can be had the test is skipped, or fails with TOPUP_TEST_REQUIRE=all. `pympp()`,
`mppx()` and `x402()` start what answers for these packages; with `_seller` behind the name, what sells through them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from tests.tools import MISSING, ROOT, node, program
from topup.sandbox.tempo import USDC_E

BUILT: Final = ROOT / ".oracles"
HERE: Final = Path(__file__).parent
NPM: Final = HERE / "npm"
# pympp's version that `requirements/oracles/mpp.txt` locks; each older one has a lock of its own.
NEWEST: Final = "0.16.0"
# What current sellers offer first, and what can be paid; as pympp 0.16 names them for Tempo's main net.
OUSD: Final = "0x20c0000000000000000000006a37DA5C996874BE"


class Oracle:
    """A package in a process of its own, which answers one line of JSON with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: str, **more: Any) -> Any:
        """Ask one question; see the script for what there is to ask."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ask": what, **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def pympp() -> Iterator[Oracle]:
    """Start the reference implementation of machine payments in Python."""
    with started([str(python("mpp")), "mpp_oracle.py"], HERE) as process:
        yield Oracle(process)


@contextmanager
def mppx() -> Iterator[Oracle]:
    with started(*_on_node("mppx_oracle.mjs")) as process:
        yield Oracle(process)


def opened_by_ox(keystore: Path, password: str) -> bytes:
    """Return the key of a keystore as the library `ox` opens it."""
    command, folder = _on_node("ox_keystore.mjs")
    done = subprocess.run(
        [*command, str(keystore), password], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return bytes.fromhex(done.stdout.strip().removeprefix("0x"))


def pympp_seller(
    rpc_url: str,
    recipient: str,
    *,
    version: str = NEWEST,
    realm: str | None = None,
    own_header: bool = False,
    sponsor: str | None = None,
) -> AbstractContextManager[str]:
    """Start a seller on pympp, beside this Tempo chain; return its URL. Any POST buys for ten dollars.

    What it asks for is what the package asks for by itself. `realm` and a header of its own for the credential are the
    package's options; without a realm it calls itself as it does. With the private key of a `sponsor` it pays the fees.
    """
    more = [] if realm is None else ["--realm", realm]
    more += ["--own-header"] if own_header else []
    more += [] if sponsor is None else ["--sponsor", sponsor]
    name = "mpp" if version == NEWEST else f"mpp-{version}"
    return _selling([str(python(name)), "mpp_server.py", rpc_url, recipient, *more], HERE)


def mppx_seller(
    rpc_url: str,
    recipient: str,
    *,
    version: str = "",
    realm: str | None = None,
    own_header: bool = False,
    currencies: Sequence[str] = (OUSD, USDC_E),
) -> AbstractContextManager[str]:
    """Start a seller on mppx, likewise; these versions have no default of several currencies, so two are named."""
    command, folder = _on_node("mppx_server.mjs")
    options = json.dumps(({} if realm is None else {"realm": realm}) | ({"requiresAuth": True} if own_header else {}))
    name = f"mppx-{version}" if version else "mppx"
    return _selling([*command, name, rpc_url, recipient, options, *currencies], folder)


@contextmanager
def x402() -> Iterator[Oracle]:
    """Start the x402 package's client."""
    with started([str(python("x402")), "x402_oracle.py"], HERE) as process:
        yield Oracle(process)


def x402_seller(rpc_url: str, recipient: str, key: str) -> AbstractContextManager[str]:
    """Start the x402 package's own seller and facilitator; return its URL."""
    return _selling([str(python("x402")), "x402_server.py", rpc_url, key, recipient], HERE)


@contextmanager
def _selling(command: list[str], folder: Path) -> Iterator[str]:
    """Start a seller, and return the URL that it says first."""
    with started(command, folder) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def _on_node(script: str) -> tuple[list[str], Path]:
    """Return how a script is run. It is given as a text, for it finds packages from where it runs."""
    folder, runs = node_modules().parent, node()
    assert runs is not None
    return [str(runs), "--input-type=module", "--eval", (NPM / script).read_text(encoding="utf-8")], folder


@contextmanager
def started(command: list[str], folder: Path, stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a process that is spoken to over its standard input and output; it ends with the context."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@cache
def python(name: str) -> Path:
    """Return the Python of one oracle, with everything installed that its lock names."""
    lock = ROOT / "requirements" / "oracles" / f"{name}.txt"

    def steps(own: Path) -> list[list[str]]:
        made, locked, uv = str(own / "bin" / "python"), ["--require-hashes", "-r", str(lock)], program("uv")
        if uv is None:
            return [[sys.executable, "-m", "venv", str(own)], [made, "-m", "pip", "install", "--quiet", *locked]]
        venv = [str(uv), "venv", "--quiet", "--python", sys.executable, str(own)]
        return [venv, [str(uv), "pip", "install", "--python", made, *locked]]

    return _built(name, lock, steps) / "bin" / "python"  # its scripts name the place where it was made


@cache
def node_modules() -> Path:
    """Return the folder `node_modules` of the oracles that run on node; a script finds them from the folder above."""
    runs = node()
    paths = os.pathsep.join([str(runs.parent) if runs else "", os.environ.get("PATH", os.defpath)])
    npm = shutil.which("npm", path=paths)
    if runs is None or npm is None:
        _lacking("the oracles on node: no node 18 with npm")

    def steps(own: Path) -> list[list[str]]:
        own.mkdir(parents=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(NPM / name, own)
        # The two packages name each other's versions in a way that no pair of them fulfils: the lock decides.
        options = ["--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        return [["env", "-C", str(own), f"PATH={paths}", str(npm), "ci", *options]]

    return _built("npm", NPM / "package-lock.json", steps) / "node_modules"


def _built(name: str, lock: Path, steps: Callable[[Path], list[list[str]]]) -> Path:
    """Return the folder that these steps make of a lock, which are taken once. Several workers may try at once."""
    folder = BUILT / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    own = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(own, ignore_errors=True)
    for step in steps(own):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(own, ignore_errors=True)
            _lacking(f"the oracle {name}: {done.stderr.strip()[-300:]}")
    try:
        own.rename(folder)
    except OSError:  # another worker was faster
        shutil.rmtree(own)
    return folder


def _lacking(what: str) -> NoReturn:
    reason = f"{MISSING}{what}"
    if os.environ.get("TOPUP_TEST_REQUIRE") == "all":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
