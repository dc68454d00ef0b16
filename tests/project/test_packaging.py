"""Is what people install what the repository holds, pinned to the byte and free of addresses?"""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.generate_docs import RULES
from tests.tools import NPM, ROOT, require
from topup import __version__

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class Pin(NamedTuple):
    version: str
    marker: Marker | None


def _pins(lock: str) -> dict[str, Pin]:
    """Read requirements/`lock`.txt; every line has to be a pinned entry or one of its hashes."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    pins: dict[str, Pin] = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        head, *hashes = [line.strip() for line in entry.replace("\\\n", "\n").splitlines()]
        found = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)(?: ; (.+))?", head)
        assert found, f"{lock}: {head!r} is not an exact pin"
        assert hashes, f"{lock}: {head} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), f"{lock}: {hashes}"
        assert found[1] not in pins, f"{lock}: {found[1]} is pinned twice"
        pins[found[1]] = Pin(found[2], Marker(found[3]) if found[3] else None)
    return pins


def _needs(requirements: list[str], python: str) -> dict[str, list[Requirement]]:
    """Follow requirements through the metadata of what is installed here, as Python `python` on Linux would."""
    env = {"python_version": python, "python_full_version": f"{python}.0"}
    waiting = [(Requirement(text), "") for text in requirements]
    needs: dict[str, list[Requirement]] = {}
    done: set[tuple[str, str]] = set()
    while waiting:
        need, extra = waiting.pop()
        if need.marker and not need.marker.evaluate({**env, "extra": extra}):
            continue
        name = canonicalize_name(need.name)
        needs.setdefault(name, []).append(need)
        for asked in {"", *need.extras} - {extra for seen, extra in done if seen == name}:
            done.add((name, asked))
            waiting += [(Requirement(text), asked) for text in metadata.requires(name) or []]
    return needs


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_locks_hold_exact_hashed_pins_and_no_address(lock: Path) -> None:
    """Each entry of a lock is one version with its hashes; where it comes from is the installer's setting."""
    assert _pins(lock.stem)
    assert "://" not in lock.read_text(encoding="utf-8")


def test_what_comes_from_npm_is_pinned_and_hashed_too() -> None:
    """The lock of npm is in step with package.json, holds a hash for every package and no address."""
    asked = json.loads((NPM / "package.json").read_text(encoding="utf-8"))["dependencies"]
    text = (NPM / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert packages.pop("")["dependencies"] == asked
    for name, version in asked.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert '"resolved"' not in text


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", ["run", "sandbox"])
def test_a_lock_is_complete_for_every_python(lock: str, python: str) -> None:
    """Whatever the dependencies need on Python 3.11 to 3.14 is in the lock, at a version that satisfies them all."""
    project = PROJECT["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"]["sandbox"] if lock == "sandbox" else [])
    env = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = {name: pin for name, pin in _pins(lock).items() if not pin.marker or pin.marker.evaluate(env)}
    needs = _needs(wanted, python)
    assert pins.keys() == needs.keys()
    for name, requirements in needs.items():
        for need in requirements:
            assert need.specifier.contains(pins[name].version, prereleases=True), f"{need} but {pins[name].version}"


# In which room an extra is used that does not bear its name.
EXTRA_OF: Final = {"apprise": "wire", "mcp": "commands"}


def _imported(folder: str) -> set[str]:
    """Return which modules from outside the files of a folder under topup/ import, at whatever depth of the code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "topup" / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"topup"}


def test_what_is_imported_is_declared() -> None:
    """No module leans on a package that only another package has brought; an extra's is for one room alone."""
    brought = metadata.packages_distributions()
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    extras = {
        EXTRA_OF.get(name, name): {canonicalize_name(Requirement(text).name) for text in texts}
        for name, texts in PROJECT["project"]["optional-dependencies"].items()
    }
    rooms = [path.name for path in (ROOT / "topup").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for room in rooms:
        allowed = declared | extras.get(room, set())
        for module in _imported(room):
            assert {canonicalize_name(name) for name in brought[module]} & allowed, f"{room} imports {module}"


def test_the_curve_in_c_is_there_where_it_has_wheels() -> None:
    """A platform without a wheel of coincurve installs without it, and signs with the curve that eth-keys brings."""
    (curve,) = [need for text in PROJECT["project"]["dependencies"] if (need := Requirement(text)).name == "coincurve"]
    marker, pinned = curve.marker, _pins("run")["coincurve"].marker
    assert marker is not None
    assert pinned is not None
    places = [("linux", "x86_64"), ("linux", "aarch64"), ("linux", "armv7l"), ("linux", "riscv64")]
    places += [("darwin", "x86_64"), ("darwin", "arm64"), ("freebsd14", "amd64")]
    for implementation, python, (system, machine) in product(("CPython", "PyPy"), PYTHONS, places):
        env = {"platform_python_implementation": implementation, "sys_platform": system, "platform_machine": machine}
        env |= {"python_version": python, "python_full_version": f"{python}.0"}
        wheel = implementation == "CPython" and python != "3.14" and machine in ("x86_64", "aarch64", "arm64")
        assert marker.evaluate(env) == pinned.evaluate(env) == wheel, env


def test_what_is_tested_is_what_runs() -> None:
    """The locks agree on every version; production has no EVM, and the wheel's builder is one version with a hash."""
    run, test = _pins("run"), _pins("test")
    for lock in ("run", "sandbox", "build"):
        assert _pins(lock).items() <= test.items()
    assert run.items() <= _pins("sandbox").items()
    assert ("py-evm" in run, "py-evm" in _pins("sandbox")) == (False, True)
    (builder,) = PROJECT["build-system"]["requires"]
    name, version = builder.split("==")
    assert _pins("build")[name].version == version


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel as a release would, with the builder that is installed and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def _files(folder: Path, inside: str) -> set[str]:
    return {
        f"{inside}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_the_interfaces(wheel: zipfile.ZipFile) -> None:
    """Every file of topup/, every interface of abi/, what man and shells read, and nothing else."""
    interfaces = _files(ROOT / "abi", "topup/abi")
    shared = _files(ROOT / "deploy" / "share", f"topup-{__version__}.data/data/share")
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert interfaces
    assert held == _files(ROOT / "topup", "topup") | interfaces | shared
    assert "topup/py.typed" in held
    assert any(name.endswith("/share/man/man1/topup.1") for name in shared)


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    """Its metadata name the licence, the Pythons and the `topup` command."""
    texts = {Path(name).name: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "License-Expression: MIT\n" in texts["METADATA"]
    assert "Requires-Python: >=3.11\n" in texts["METADATA"]
    assert texts["LICENSE"].startswith("MIT License\n\nCopyright (c) 2026 The topup authors\n")
    assert "topup = topup.commands.cli:main" in texts["entry_points.txt"]
    assert {f"Programming Language :: Python :: {python}" for python in PYTHONS} <= {
        line.removeprefix("Classifier: ") for line in texts["METADATA"].splitlines()
    }


def test_the_long_description_leads_to_the_repository(wheel: zipfile.ZipFile) -> None:
    """Each link of the README is absolute in it, leads to a file that exists, and an image to the file itself."""
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    text = wheel.read(name).decode().partition("\n\n")[2]
    home = PROJECT["project"]["urls"]["Repository"]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text(encoding="utf-8"))) > 10
    for image, link in links:
        kind = "raw" if image else "blob"
        assert link.startswith(f"{home}/{kind}/main/")
        assert (ROOT / link.removeprefix(f"{home}/{kind}/main/").partition("#")[0]).exists(), link


def test_the_repository_is_named_in_one_place() -> None:
    """Its address stands in pyproject.toml, and every address of the project begins with it.

    Elsewhere it stands only in what is written from there: an alert's link is followed where the repository is not.
    """
    urls = PROJECT["project"]["urls"]
    assert all(url.startswith(urls["Repository"]) for url in urls.values())
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in tracked.split("\0") if name and name != "pyproject.toml"]
    files = [path for path in files if path not in RULES and path.is_file()]
    naming = [path for path in files if urls["Repository"].encode() in path.read_bytes()]
    assert naming == []


def test_install_names_the_locks_there_are() -> None:
    """A wrong lock is answered with the right ones, before anything is touched."""
    command = [sys.executable, "requirements/install.py", "everything"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run|sandbox|test" in done.stderr


def test_shell_scripts_are_clean() -> None:
    """A linter of shell scripts has nothing to say about the scripts of this repository."""
    scripts = [ROOT / ".ci" / "run", ROOT / "requirements" / "lock.sh"]
    done = subprocess.run([require("shellcheck"), *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
