"""Do the files in deploy/ do what they say: the unit, the example of the settings, the image, the notifications?"""

import re
import signal
import socket
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.tools import HANGS_S, ROOT, require
from tests.world.served import Served
from topup.app.settings import load

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "topup.service"
TEMPLATE = DEPLOY / "topup@.service"
DOCKERFILE = DEPLOY / "Dockerfile"


def _example(*, wallet: bool = False) -> dict[str, str]:
    """Return what the example says; with the `wallet` also the lines that are marked out until there is one."""
    text = (DEPLOY / "topup.env.example").read_text(encoding="utf-8")
    lines = (re.sub(r"^#(?=TOPUP_)", "", text, flags=re.MULTILINE) if wallet else text).splitlines()
    told = [line for line in lines if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in told)


def test_the_example_is_a_valid_set_of_settings(tmp_path: Path) -> None:
    """The example loads as it stands and names no wallet; and again, to pay, with the wallet and mode = live."""
    here = {"XDG_CONFIG_HOME": str(tmp_path)}
    watching = load(_example() | here)
    assert (watching.mode, watching.wallet.keystore) == ("observe", None)
    paying = load(_example(wallet=True) | here | {"TOPUP_MODE": "live"})
    assert paying.wallet.keystore is not None
    assert paying.policy.cap_24h == Decimal(100)


def test_the_example_is_read_alike_by_systemd_docker_and_a_shell() -> None:
    """No value has a quote, a blank, a dollar or a backslash, which each of the three would read in its own way."""
    assert all(re.fullmatch(r"[A-Za-z0-9_.:/,-]+", value) for value in _example(wallet=True).values())


def test_the_example_and_the_unit_name_the_same_credentials_and_state() -> None:
    """Where systemd puts the secrets and the ledger is where the settings look for them."""
    unit, said = UNIT.read_text(encoding="utf-8"), _example(wallet=True)
    loaded = set(re.findall(r"^LoadCredential=(\S+)$", unit, re.MULTILINE))
    paths = [Path(value) for value in said.values() if value.startswith("/run/credentials/")]
    assert {path.name for path in paths} == loaded
    assert {path.parent for path in paths} == {Path("/run/credentials") / UNIT.name}
    assert "StateDirectory=topup\n" in unit
    assert said["TOPUP_STATE_DIR"] == "/var/lib/topup"


@pytest.mark.parametrize("unit", [UNIT, TEMPLATE], ids=lambda unit: unit.name)
@pytest.mark.parametrize("asked", [("verify", "--man=no"), ("security", "--offline=true", "--threshold=15")])
def test_systemd_understands_every_line_of_a_unit(tmp_path: Path, asked: tuple[str, ...], unit: Path) -> None:
    """systemd-analyze has nothing to say, and rates the exposure of the unit at no more than 1.5 of 10."""
    # With a program that exists here, since nothing is installed under /opt; of a template one instance is asked for.
    copy = tmp_path / unit.name.replace("@.", "@research.")
    text = unit.read_text(encoding="utf-8").replace("/opt/topup/.venv/bin/topup", sys.executable)
    copy.write_text(text, encoding="utf-8")
    command = [str(require("systemd-analyze")), *asked, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_template_differs_from_the_unit_in_what_is_of_one_account() -> None:
    """Hardening, restarts and limits are the same; settings, secrets and ledger bear the name of the instance."""
    one, each = (path.read_text(encoding="utf-8").partition("[Unit]")[2].splitlines() for path in (UNIT, TEMPLATE))
    of_one = ("Description=", "EnvironmentFile=", "Environment=", "LoadCredential=", "StateDirectory=")
    own = [line for line in each if line.startswith(of_one)]
    assert [line for line in one if not line.startswith(of_one)] == [line for line in each if line not in own]
    assert all("%i" in line for line in own)


def test_the_user_and_the_folders_are_what_the_units_ask_for(tmp_path: Path) -> None:
    """The system's own programs take both files, in an empty root: topup reads the settings, root alone the secrets."""
    for folder in ("etc", "usr"):
        (tmp_path / folder).mkdir()
    for program, file in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        options = ["--create"] if program == "systemd-tmpfiles" else []
        command = [str(require(program)), f"--root={tmp_path}", *options, str(DEPLOY / file / "topup.conf")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("topup:"))
    assert user.endswith(":/var/lib/topup:/usr/sbin/nologin")
    modes = {name: stat.S_IMODE((tmp_path / "etc" / name).stat().st_mode) for name in ("topup", "credstore")}
    assert modes == {"topup": 0o750, "credstore": 0o700}


def test_a_hang_up_that_comes_before_python_has_started_is_no_clean_end() -> None:
    """What kills the program before it can ignore it is started again, though systemd calls such a death clean."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    assert "Restart=on-failure" in lines
    forced = [line.partition("=")[2].split() for line in lines if line.startswith("RestartForceExitStatus=")]
    assert forced == [[signal.SIGHUP.name]]


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    """Hadolint is silent."""
    done = subprocess.run([require("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_the_image_copies_is_there_and_nothing_else_enters_the_build() -> None:
    """Every COPY names what exists, and the ignore file lets exactly these through."""
    assert all((ROOT / source).exists() for source in _copied())
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == set(_copied())


def test_the_image_holds_hashed_packages_no_embedded_chain_and_no_root() -> None:
    """Every package comes from a lock with its hash, the sandbox's lock is not among them, and a user is set."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    for install in re.findall(r"pip install [^&\n]+", text):
        assert "--require-hashes" in install or "--no-index" in install
    assert "sandbox.txt" not in text
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    assert 'ENTRYPOINT ["topup"]' in text


@pytest.mark.machine_time
@pytest.mark.slow
def test_the_daemon_tells_systemd_when_it_is_up_alive_and_stopping(place: Served) -> None:
    """READY=1 comes first, WATCHDOG=1 while it works, how a pass ended, STOPPING=1 on SIGTERM, and it leaves with 0."""
    # Bound in a short place: the address of a socket may have about a hundred characters.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(HANGS_S)
        heard.bind("")  # an abstract address of the kernel's choice
        address = "@" + heard.getsockname()[1:].decode()

        def until(word: str) -> list[str]:
            said = heard.recv(4096).decode().splitlines()
            return said if word in said else said + until(word)

        # The watchdog hears of it all along, though the next pass is far away.
        daemon = place.start("run", NOTIFY_SOCKET=address, watch__poll_fastest_s="900")
        said = until("READY=1")
        daemon.await_event("cycle_done")
        for _ in range(3):
            said += until("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGTERM)
        said += until("STOPPING=1")
    assert (said[0], said[-1], daemon.process.wait(timeout=HANGS_S)) == ("READY=1", "STOPPING=1", 0)
    assert "STATUS=held: 15 is not below the floor of 10" in said
    assert daemon.told("stopping")
