"""Does what becomes of an output, a log or a terminal ever change what is done, or the exit code that tells of it?"""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.world.served import PATIENCE_S, TOPUP, Running, Served, until
from topup.domain.lifecycle import State

# -- output that nobody takes -----------------------------------------------------------------------------------------


def shell(place: Served, redirect: str, *command: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that does this with its outputs."""
    script = f'"$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", "bash", *TOPUP, *command],
        env=place.environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PURCHASE = ("once", "--amount", "5", "--yes", "--force")
LOST = [">/dev/full", ">&-", "| true", ">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("way", LOST)
@pytest.mark.parametrize("json_too", [False, True])
def test_a_purchase_whose_output_is_lost_ends_by_the_money(way: str, json_too: bool, place: Served) -> None:  # noqa: FBT001
    """0, for it was bought; the same command is told of it once more and buys nothing; the one after that is new."""
    command = (*PURCHASE, "--json") if json_too else PURCHASE
    done = shell(place, way, *command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert place.payments() == 1
    again = place.document(*PURCHASE)
    assert (again["exit_code"], again["repeated"]) == (0, True)
    assert again["topup"]["id"] == place.topups()[0].id
    assert place.payments() == 1
    assert place.document(*PURCHASE)["repeated"] is False
    assert place.payments() == 2


def test_a_job_that_only_looks_is_not_told_of_its_first_look_for_ever(place: Served) -> None:
    """`once` without an amount and without an output looks anew each time, or the account would run dry."""
    assert shell(place, ">&-", "once", "--yes").returncode == 0
    place.low()
    assert shell(place, ">/dev/full", "once", "--yes").returncode == 0
    assert place.payments() == 1


COMMANDS = [
    ("--help",),
    ("--version",),
    ("status",),
    ("history",),
    ("forecast",),
    ("check",),
    ("config", "show"),
    ("statement",),
    ("statement", "--format", "csv"),
    ("usage",),
    ("ledger", "verify"),
    ("show", "t"),
    ("reconcile",),
    ("doctor",),
    ("pause",),
    ("no-such",),
    ("sandbox", "--list-faults"),
]


@pytest.mark.parametrize("all_ways", [False, pytest.param(True, marks=pytest.mark.long)])
def test_no_command_answers_a_lost_reader_with_a_traceback(all_ways: bool, place: Served) -> None:  # noqa: FBT001
    """Whatever is done with either output: no traceback, no complaint of Python's own, no exit code of its own.

    Each is a process of its own, for Python complains where it ends. Every command meets three of the eight ways, and
    every way six commands; the whole table is for the long run.
    """
    ways = (*LOST, "2>/dev/full", "2>&-")
    assert place.run(*PURCHASE).returncode == 0
    for number, command in enumerate(COMMANDS):
        honest = place.run(*command).returncode
        for way in ways if all_ways else [ways[(number + step) % len(ways)] for step in (0, 3, 6)]:
            done = shell(place, way, *command)
            assert "Traceback" not in done.stderr, (command, way)
            assert "Exception ignored" not in done.stderr, (command, way)
            assert done.returncode in (honest, 4), (command, way, done.stderr)


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_terminal_of_few_letters_gets_them_spelt_out(variables: dict[str, str], place: Served) -> None:
    """An ellipsis that ASCII has no letter for ends no command."""
    done = shell(place, "", "config", "show", **variables)
    assert done.returncode == 0, done.stderr
    assert "\\u2026" in done.stdout
    assert shell(place, "", *PURCHASE, **variables).returncode == 0
    assert place.payments() == 1


HOSTILE = "\x1b]0;not yours\x07\x1b[2J\u202e"


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (("once", "--amount", HOSTILE, "--yes"), {}),
        (("doctor", "--rail", HOSTILE), {}),
        (("doctor",), {"SSL_CERT_FILE": "{place}/ca.pem"}),
        (("status",), {"TOPUP_CONFIG": "{home}/settings.toml"}),
    ],
)
def test_no_argument_path_or_setting_commands_a_terminal(
    command: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    """Whoever has set them: what a command says of them is spelt out."""
    place = tmp_path / HOSTILE
    place.mkdir()
    (place / "ca.pem").write_text("no certificate")
    (tmp_path / "settings.toml").write_text('[api]\n"u\\u001b]0;x" = "1"\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOPUP_STATE_DIR": str(tmp_path / "state")}
    env |= {name: value.format(place=place, home=tmp_path) for name, value in variables.items()}
    done = subprocess.run(
        [*TOPUP, *command], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode in (2, 3)
    assert b"\\x1b" in said
    assert all(c.isprintable() or c == "\n" for c in said.decode())


def test_a_disk_that_is_full_is_said_by_what_only_tells(place: Served) -> None:
    """An export into a file that could not be written is no success; a pause that nobody heard of is one."""
    assert place.run(*PURCHASE).returncode == 0
    done = shell(place, ">/dev/full", "statement", "--format", "csv")
    assert done.returncode == 4
    assert "No space left on device" in done.stderr
    assert shell(place, ">/dev/full", "pause").returncode == 0


# -- signals to the daemon ------------------------------------------------------------------------------------------


def test_a_hang_up_never_ends_the_daemon(place: Served) -> None:
    """Said once for each, from the first moment of its own on; a TERM still ends it."""
    place.cold = True
    daemon = place.start("run")
    until(lambda: _ignored(daemon))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.await_event("cycle_done")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.await_event("hang_up_ignored")
    daemon.await_event("cycle_done", cycle=2)
    assert daemon.stop() == 0


def _ignored(running: Running) -> bool:
    """Tell whether the process ignores SIGHUP, as the system tells it."""
    lines = Path(f"/proc/{running.process.pid}/status").read_text(encoding="utf-8").splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)


def test_a_stop_that_comes_before_the_first_pass_ends_the_daemon_at_once(place: Served) -> None:
    """A provider that does not answer holds up neither the stop nor anything else, however long it might."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        daemon = place.start("run", chain__rpc_urls=url, chain__timeout_s="300")
        silent.settimeout(PATIENCE_S)
        asked, _ = silent.accept()
        assert daemon.stop() == 0
        asked.close()


# -- a log that nobody reads ------------------------------------------------------------------------------------------


def test_a_daemon_whose_log_is_stuck_buys_and_stops(place: Served) -> None:
    """Its reader has stopped and the pipe is full: it pays, and SIGTERM ends it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    daemon = subprocess.Popen([*TOPUP, "run"], env=place.environment(), stdin=subprocess.DEVNULL, stderr=writing)
    place.low()
    kept = place.state / "ledger.sqlite3"
    until(lambda: kept.exists() and any(t.state is State.DONE for t in place.topups()))
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=PATIENCE_S) == 0
    os.close(reading)
    os.close(writing)
    assert place.payments() == 1
