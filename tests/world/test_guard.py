"""Do the tests' own safeguards hold: no way out of this machine, no missing tool unnoticed?"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools
from tests.guard import sitecustomize as guard

OUTSIDE = "192.0.2.1"  # reserved for documentation: nobody is there even if the guard were gone


def _python(log: Path, code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, guard.LOG: str(log)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "attempt",
    [
        f"import socket; socket.create_connection(('{OUTSIDE}', 80), 1)",
        f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('{OUTSIDE}', 53))",
        "import socket; socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 80))",
        "import socket; socket.getaddrinfo('openrouter.invalid', 443)",
        f"import asyncio; asyncio.run(asyncio.open_connection('{OUTSIDE}', 80))",
        f"import httpx; httpx.get('http://{OUTSIDE}/')",
    ],
)
def test_no_process_of_a_test_leaves_this_machine(tmp_path: Path, attempt: str) -> None:
    """A Python process started by a test is refused every address and name outside loopback, and the refusal noted."""
    log = tmp_path / "refused"
    done = _python(log, attempt)
    assert "OutsideLoopback" in done.stderr
    assert done.returncode == 1
    assert log.read_text()


def test_loopback_and_unix_sockets_stay_open(tmp_path: Path) -> None:
    """The guard refuses nothing that stays on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1"):
            socket.create_connection((host, server.getsockname()[1]), 5).close()
    with socket.socket(socket.AF_UNIX) as unix, socket.socket(socket.AF_UNIX) as client:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        client.connect(str(tmp_path / "s"))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "fe80::1%lo", "example.com", b"example.com"])  # noqa: S104
def test_what_is_not_loopback(host: object) -> None:
    """Private addresses, the wildcard and every name but localhost count as outside."""
    assert not guard.is_loopback(host)


STORIES = f"""
import os, socket, sys
import pytest
from tests import tools

def leave():
    try:
        socket.create_connection(("{OUTSIDE}", 80), 1)
    except Exception:
        pass

@pytest.fixture(scope="session")
def leaving():
    leave()

def test_a_attempt_swallowed(): leave()
def test_b_stays(): pass
def test_c_attempt_of_a_fixture(leaving): pass
def test_d_settings_gone(): assert not [n for n in os.environ if n.startswith("TOPUP_") and "_TEST_" not in n]
def test_e_missing(): tools.require("no-such-program")
"""


def _stories(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_stories.py").write_text(STORIES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_stories.py"],
        cwd=folder,
        env={
            **os.environ,
            **env,
            "PYTHONPATH": f"{tools.ROOT}{os.pathsep}{os.environ['PYTHONPATH']}",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Run the stories above under this suite's conftest, as a developer who has settings and lacks a tool would."""
    return _stories(tmp_path_factory.mktemp("stories"), TOPUP_MODE="live", TOPUP_TEST_REQUIRE="")


def test_a_test_that_leaves_the_machine_fails(stories: subprocess.CompletedProcess[str]) -> None:
    """A swallowed attempt fails the test that made it, or that first used the fixture that made it, and no other."""
    assert stories.returncode == 1
    assert "ERROR test_stories.py::test_a_attempt_swallowed" in stories.stdout
    assert "ERROR test_stories.py::test_c_attempt_of_a_fixture" in stories.stdout
    assert f"outside loopback:\nsocket.getaddrinfo '{OUTSIDE}'" in stories.stdout
    assert "4 passed, 1 skipped, 2 errors" in stories.stdout


def test_the_developers_settings_do_not_reach_a_test(stories: subprocess.CompletedProcess[str]) -> None:
    """TOPUP_* variables of whoever runs the tests are gone before the first test."""
    assert "PASSED test_stories.py::test_d_settings_gone" in stories.stdout


def test_the_seed_is_printed(stories: subprocess.CompletedProcess[str]) -> None:
    """The header gives the seed of the generated examples, and says how to repeat it."""
    assert re.search(r"--hypothesis-seed=\d+$", stories.stdout, re.MULTILINE)


def test_a_missing_tool_skips_and_is_counted_last(stories: subprocess.CompletedProcess[str]) -> None:
    """Without TOPUP_TEST_REQUIRE a missing tool skips its test, and the last line names and counts it."""
    *_, summary, last = stories.stdout.splitlines()
    assert last == "skipped: 1 missing no-such-program"
    assert "1 skipped" in summary


def test_a_missing_tool_fails_where_everything_is_asked_for(tmp_path: Path) -> None:
    """With TOPUP_TEST_REQUIRE=all a missing tool fails its test by name."""
    said = _stories(tmp_path, TOPUP_TEST_REQUIRE="all").stdout
    assert "FAILED test_stories.py::test_e_missing - Failed: missing no-such-program" in said
    assert said.splitlines()[-1] == "skipped: none"
