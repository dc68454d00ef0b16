"""Does the page lead from a bare Debian to a running service? Its commands are typed in one.

A real systemd is the machine's first process, and needs cgroups of its own, which a root inside a test has not. So the
test plays its part: it reads the unit for whom to run as, with which settings and secrets, and listens at a socket of
notifications as systemd does. Inside the root `systemctl start` and `restart` say that they do nothing. What remains
unseen is what systemd itself makes of a line of the unit; `systemd-analyze verify` has read each, inside.
"""

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import Debian, bare
from tests.tools import HANGS_S, ROOT
from topup.sandbox.world import World, embedded

BLOCK = re.compile(r"<!-- test: ([a-z]+) -->\n```sh\n(.*?)```", re.DOTALL)
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
BLOCKS = dict(BLOCK.findall(PAGE))
# What is done afterwards, on another page: a second account, and an upgrade.
ACCOUNT, UPGRADE = (
    block for mark, block in BLOCK.findall((ROOT / "docs/move.md").read_text(encoding="utf-8")) if mark == "root"
)
UNIT = "topup.service"
SHIPPED = (ROOT / "deploy" / UNIT).read_text(encoding="utf-8")


def _said(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.+)$", unit, re.MULTILINE)


def test_every_block_of_the_page_is_typed() -> None:
    """None is only claimed."""
    assert list(BLOCKS) == ["install", "settings", "start", "look", "wallet", "pay"]
    assert PAGE.count("```sh") == len(BLOCKS)


def test_the_page_puts_things_where_the_unit_looks_for_them() -> None:
    """The program, the settings and each secret; what is copied from deploy/ exists."""
    typed = "".join(BLOCKS.values())
    (program,), (settings,) = _said(SHIPPED, "ExecStart"), _said(SHIPPED, "EnvironmentFile")
    assert 'git clone "$REPOSITORY" /opt/topup' in typed
    assert program.startswith("/opt/topup/.venv/bin/topup ")
    assert f"deploy/topup.env.example {settings}\n" in typed
    assert all(f"/etc/credstore/{name}" in typed for name in _said(SHIPPED, "LoadCredential"))
    named = re.findall(r"\bdeploy/[\w./@-]+", typed)
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).exists()] == []


class Systemd:
    """Starts and stops the unit inside a root, as far as a test can play that."""

    def __init__(self, debian: Debian) -> None:
        self._debian = debian
        self._unit = (debian.root / "etc/systemd/system" / UNIT).read_text(encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        (path,) = _said(self._unit, "EnvironmentFile")
        lines = (self._debian.root / path.lstrip("/")).read_text(encoding="utf-8").splitlines()
        said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        return said | {"HOME": "/var/lib/topup"}

    def _hand_over(self, user: str) -> None:
        """Put the credentials where systemd puts them, and make the directory of the ledger."""
        place = self._debian.root / "run/credentials" / UNIT
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in _said(self._unit, "LoadCredential"):
            if (secret := self._debian.root / "etc/credstore" / name).exists():
                shutil.copy(secret, place)
        (state,) = _said(self._unit, "StateDirectory")
        script = f"install --directory --owner {user} --mode 0700 /var/lib/{state}\n"
        script += (
            f"chown --recursive {user} /run/credentials/{UNIT}\nchmod --recursive u=rX,go= /run/credentials/{UNIT}"
        )
        done = self._debian.shell(script, guarded=True)
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def started(self) -> Iterator[list[str]]:
        """Start it and wait until it says READY=1 and how a pass ended; stop it in the end. Yields what it has said."""
        (user,), (program,) = _said(self._unit, "User"), _said(self._unit, "ExecStart")
        self._hand_over(user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.settimeout(1)
            heard.bind("")  # an abstract address of the kernel's choice, which is the same inside the root
            address = "@" + heard.getsockname()[1:].decode()
            process = subprocess.Popen(
                self._debian.command(*program.split(), user=user),
                env=self._debian.environment(guarded=True) | self._environment() | {"NOTIFY_SOCKET": address},
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                said: list[str] = []
                while not any(word.startswith("STATUS=") for word in said):
                    with contextlib.suppress(TimeoutError):
                        said += heard.recv(4096).decode().splitlines()
                    assert process.poll() is None, process.communicate()[1]
                yield said
                process.terminate()
                _, log = process.communicate(timeout=HANGS_S)
                assert process.returncode == 0, log
            finally:
                process.kill()
                process.communicate()


def _types(debian: Debian, block: str, **more: str) -> str:
    """Type one block, which has to succeed, in a shell that is where the blocks before it have led."""
    earlier = "".join(BLOCKS.values()).partition(block)[0].splitlines(keepends=True)
    left = "".join(line for line in earlier if line.startswith(("cd ", "ask()")))
    done = debian.shell(left + block, guarded="requirements/install.py" not in block, more=more)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _edit(debian: Debian, values: dict[str, str]) -> None:
    """Do with the settings what a person does in an editor."""
    file = debian.root / "etc/topup/topup.env"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.split("=")[0] not in values]
    file.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in values.items()), ""]), encoding="utf-8")


@pytest.mark.long
@pytest.mark.machine_time
def test_a_bare_debian_becomes_a_running_service(tmp_path: Path) -> None:
    """Every command of the page succeeds; the unit runs, is up, watches, is asked, and comes back allowed to pay."""
    debian = bare(tmp_path / "root", "systemd", "ca-certificates")
    debian.trust()
    debian.clone("/src")
    _types(debian, BLOCKS["install"], REPOSITORY="/src")
    with World(embedded) as world:
        said = world.environment()
        debian.put("~/management.key", said["TOPUP_API__KEY"], 0o600)
        _types(debian, BLOCKS["settings"])
        settings = ("API__URL", "CHAIN__RPC_URLS", "RAILS__COINBASE__OPERATORS", "RAILS__COINBASE__RECIPIENTS")
        _edit(
            debian, {name: said[name] for name in (f"TOPUP_{each}" for each in settings)} | {"TOPUP_POLICY__FLOOR": "1"}
        )
        _types(debian, BLOCKS["start"])
        assert (debian.root / "etc/systemd/system/multi-user.target.wants" / UNIT).is_symlink()
        systemd = Systemd(debian)
        with systemd.started() as heard:
            assert heard[0] == "READY=1"
            assert any(word.startswith("STATUS=held: ") for word in heard), heard
            assert "below the floor" in _types(debian, BLOCKS["look"])
        with systemd.started():
            assert re.search("0x[0-9a-fA-F]{40}", _types(debian, BLOCKS["wallet"]))
        _types(debian, BLOCKS["pay"])
        with systemd.started() as heard:
            assert heard[0] == "READY=1"
        debian.put("~/research.key", said["TOPUP_API__KEY"], 0o600)
        _types(debian, ACCOUNT)
        assert "topup.service" in _types(debian, "systemctl list-unit-files 'topup*'\n")
        _types(debian, UPGRADE)
        with systemd.started() as heard:
            assert heard[0] == "READY=1"
