"""Does the command line explain itself: in groups, within 80 columns, in colour only where a terminal has it?"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.generate_docs import SHARE, commands
from tests.tools import BIN, outside, require
from tests.world.terminal import Terminal
from topup.commands.cli import app
from topup.commands.help import GROUPS

NAMES = [name.removeprefix("topup ") for name, _ in commands()]
TOPUP = str(BIN / "topup")


def shown(*arguments: str, **variables: str) -> str:
    """Return what a command of ours shows on a terminal of 200 columns."""
    return shown_by([TOPUP, *arguments], **variables)


def shown_by(command: list[str], **variables: str) -> str:
    """Return what a command shows on a terminal of 200 columns."""
    screen = Terminal(command, outside() | {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": ""} | variables)
    assert screen.ends() == 0
    return screen.shown


def test_the_help_lists_every_command_once_in_its_group_and_every_exit_code() -> None:
    """The groups are in order, none is empty, and each command stands in one, with its whole first sentence."""
    text = CliRunner().invoke(app, ["--help"]).output
    assert re.findall(rf"^({'|'.join(GROUPS)}):$", text, re.MULTILINE) == list(GROUPS)
    listed = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  +[A-Z]", text.partition(f"{GROUPS[0]}:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(NAMES)
    assert "..." not in text.partition(f"{GROUPS[0]}:")[2]
    assert [code for code in (0, 2, 3, 4, 5, 6) if f"{code} " not in text.partition("Exit codes:")[2]] == []


@pytest.mark.parametrize("name", ["", *NAMES, "config", "wallet", "ledger"])
def test_help_keeps_to_80_columns(name: str) -> None:
    """However wide the terminal is."""
    text = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", ["", "wallet", "once"])
def test_colour_changes_nothing_but_the_colour(name: str) -> None:
    """On a terminal headings and names stand out; without the colour it is the text that a file gets."""
    plain = subprocess.run([TOPUP, *name.split(), "--help"], env=outside(), capture_output=True, text=True, check=True)
    told = shown(*name.split(), "--help")
    assert "\x1b[1mOptions\x1b[0m:" in told
    assert "\x1b[36m  -h, --help\x1b[0m" in told
    assert re.sub(r"\x1b\[\d+m", "", told) == plain.stdout


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_whoever_wants_no_colour_gets_none(variables: dict[str, str]) -> None:
    """NO_COLOR and a dumb terminal are heeded."""
    assert "\x1b" not in shown("--help", **variables)


# -- completion ---------------------------------------------------------------------------------------------------


def script(shell: str) -> str:
    return subprocess.run([TOPUP, "completion", shell], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("sta", {"status", "statement"}), ("wallet im", {"import"}), ("once --dr", {"--dry-run"}), ("nosuch", set())],
)
def test_bash_completes(typed: str, offered: set[str], tmp_path: Path) -> None:
    """A real bash, told the script, offers what begins so."""
    (tmp_path / "topup.bash").write_text(script("bash"), encoding="utf-8")
    words = ["topup", *typed.split()]
    asked = f"""
        source {tmp_path}/topup.bash
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        "$(complete -p topup | sed 's/.*-F \\([^ ]*\\).*/\\1/')" topup
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = outside() | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", asked], env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(shell: str, tmp_path: Path) -> None:
    """The shell itself finds nothing wrong with the script."""
    (tmp_path / "script").write_text(script(shell), encoding="utf-8")
    subprocess.run([str(require(shell)), "-n", str(tmp_path / "script")], check=True)


def test_fish_completes(tmp_path: Path) -> None:
    """A real fish, told the script, offers what begins so, with what each command does."""
    (tmp_path / "topup.fish").write_text(script("fish"), encoding="utf-8")
    asked = f"source {tmp_path}/topup.fish; complete --do-complete 'topup sta'"
    environment = outside() | {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [str(require("fish")), "--no-config", "-c", asked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["statement", "status"]
    assert "Say how things stand" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_commands(shell: str) -> None:
    """What their scripts ask is answered with the commands and what each does."""
    asked = {"_TOPUP_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "topup sta"}
    assert all(name in script(shell) for name in asked)
    environment = outside() | asked | {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([TOPUP], env=environment, capture_output=True, text=True, check=True)
    assert "status" in done.stdout
    assert "Say how things stand, from the ledger" in done.stdout
    assert "once" not in done.stdout


def test_the_manual_page_is_clean() -> None:
    """A formatter of manual pages has nothing to say about it, and it shows every command and every option."""
    flags = ["-ww", "-man", "-Tutf8", "-P-c", "-rLL=200n"]
    command = [str(require("groff")), *flags, str(SHARE / "man" / "man1" / "topup.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    text = re.sub(r".\x08", "", done.stdout)
    every: list[tuple[str, Any]] = [*commands()]
    assert [name for name, _ in every if not re.search(rf"^ +{name}$", text, re.MULTILINE)] == []
    options = {one for _, command in every for option in command.params for one in option.opts if one[0] == "-"}
    assert [option for option in options if option not in text] == []


def test_what_counts_stands_out_on_a_terminal() -> None:
    """How the account stands, and what is wrong; without the colour it is the text that a file gets."""
    lines = ["account   default: EMPTY, and requests are refused", "wrong     it is \x1b[32mwell", "mode      live"]
    script = f"from topup.commands.colour import printed; print(printed({lines!r}))"
    told = shown_by([sys.executable, "-c", script])
    assert told.splitlines() == [
        "\x1b[31m\x1b[1maccount   default: EMPTY, and requests are refused\x1b[0m",
        "\x1b[31m\x1b[1mwrong\x1b[0m     it is \\x1b[32mwell",
        "mode      live",
    ]
    assert "\x1b" not in shown_by([sys.executable, "-c", script], NO_COLOR="1")
