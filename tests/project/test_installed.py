"""Does the wheel work where the repository is not: installed by pip, pipx and uv, beside nothing but what it names?"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.tools import BIN, HANGS_S, ROOT, outside, require

GUARD: Final = ROOT / "tests" / "guard"
VERSION: Final = re.compile(r"\d+\.\d+\.\d+\n")
UV: Final = BIN / "uv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made by way of the source distribution, as a release is."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", sdist, "-C", folder], check=True)
    (source,) = [path for path in folder.iterdir() if path.is_dir()]
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run what installs, which may ask the registry that it is set to, and nobody guards."""
    environment = {name: value for name, value in outside().items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def types(program: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed topup elsewhere, as somebody without any setting, where nothing may leave this machine."""
    environment: Mapping[str, str] = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(GUARD)}
    return subprocess.run(
        [program, *arguments], cwd=home, env=environment, capture_output=True, text=True, timeout=HANGS_S, check=False
    )


def must_work(program: Path, home: Path) -> None:
    """The version, the help, and a command that needs the sandbox's extra, which is not there."""
    version, explained = types(program, home, "--version"), types(program, home, "--help")
    assert (version.returncode, bool(VERSION.fullmatch(version.stdout)), version.stderr) == (0, True, "")
    assert (explained.returncode, "Getting started:" in explained.stdout, explained.stderr) == (0, True, "")
    assert types(program, home, "completion", "bash").returncode == 0
    refused = types(program, home, "sandbox")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("topup: the sandbox's chain is not installed")
    assert "pipx install --force 'topup[sandbox]'" in refused.stderr


def test_the_wheel_works_beside_the_run_lock(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, with what requirements/run.txt lists, from what uv has fetched before."""
    python = tmp_path / "venv" / "bin" / "python"
    run(require("uv"), "venv", "--quiet", tmp_path / "venv", "--python", sys.executable)
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python]
    try:
        run(*install, "--require-hashes", "-r", ROOT / "requirements" / "run.txt")
    except AssertionError as error:
        if "offline" not in str(error) and "network was disabled" not in str(error):
            raise
        pytest.skip("missing what uv has fetched before: this environment was filled by pip")
    run(*install, wheel)
    must_work(python.parent / "topup", tmp_path)
    assert (tmp_path / "venv" / "share" / "man" / "man1" / "topup.1").is_file()


@pytest.mark.long
def test_pip_installs_it_and_the_extra_brings_the_sandbox(wheel: Path, tmp_path: Path) -> None:
    """What the wheel names is all that it needs, and `topup[sandbox]` is what its refusal says that it is."""
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", wheel)
    must_work(python.parent / "topup", tmp_path)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[sandbox]")
    shown = types(python.parent / "topup", tmp_path, "sandbox")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.long
def test_uv_installs_it_as_a_tool(wheel: Path, tmp_path: Path) -> None:
    """`uv tool install` puts one command in place."""
    place = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    run(require("uv"), "tool", "install", "--quiet", wheel, **place)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["topup"]
    must_work(tmp_path / "bin" / "topup", tmp_path)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of requirements/release.txt, in an environment of their own."""
    place = tmp_path_factory.mktemp("release")
    run(require("uv"), "venv", "--quiet", place, "--clear", "--python", sys.executable)
    lock = ["--no-deps", "--require-hashes", "-r", str(ROOT / "requirements" / "release.txt")]
    run(UV, "pip", "install", "--quiet", "--python", place / "bin" / "python", *lock)
    return place / "bin"


@pytest.mark.long
def test_pipx_installs_it_with_its_manual_page(wheel: Path, release: Path, tmp_path: Path) -> None:
    """`pipx install` puts the command, the page and the completions where programs look for them."""
    share = tmp_path / "share"
    place = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    place |= {"PIPX_MAN_DIR": str(share / "man"), "XDG_DATA_HOME": str(share)}
    run(release / "pipx", "install", "--quiet", wheel, **place)
    must_work(tmp_path / "bin" / "topup", tmp_path)
    assert (share / "man" / "man1" / "topup.1").is_file()


@pytest.mark.long
def test_what_is_uploaded_has_nothing_to_object_to(wheel: Path, release: Path) -> None:
    """Wheel and source distribution as PyPI's own check has them, the rendered description included."""
    (sdist,) = wheel.parent.glob("*.tar.gz")
    said = run(release / "twine", "check", "--strict", "--", wheel, sdist).stdout
    assert said.count("PASSED") == 2
