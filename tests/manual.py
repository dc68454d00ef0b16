"""What does `man topup` say? Written from the declarations of the commands, as docs/commands.md is."""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from typer.main import get_command

import topup
from topup.commands.cli import app
from topup.commands.help import summary
from topup.domain import errors

LETTER = re.compile(r"[^\x00-\x7f]")
ENVIRONMENT = {
    "TOPUP_CONFIG": "the settings file, in place of the one below",
    "TOPUP_NAME": "a setting; TOPUP_POLICY__FLOOR is policy.floor. `topup config show --defaults` lists them all",
    "CREDENTIALS_DIRECTORY": "where systemd puts the secrets topup-api-key, topup-keystore-password, topup-private-key",
    "NO_COLOR": "anything: no colour on a terminal either",
}
FILES = {
    "~/.config/topup/topup.toml": "the settings; below $XDG_CONFIG_HOME where that is set",
    "~/.local/state/topup": "the ledger; below $STATE_DIRECTORY or $XDG_STATE_HOME where one is set",
}


def roff(text: str) -> str:
    """Return text such that troff prints it as it stands."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = LETTER.sub(lambda found: f"\\[u{ord(found[0]):04X}]", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def listed(term: str, text: str) -> list[str]:
    return [".TP", f".B {roff(term)}", roff(text)]


def described(parameter: Any) -> tuple[str, str]:
    """Return how one argument or option of a command is typed, and what it means."""
    argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if argument else [*parameter.opts, *parameter.secondary_opts]
    takes = "" if argument or parameter.is_flag else f" {parameter.name.upper()}"
    default = f" (default {parameter.default})" if parameter.default not in (None, False) else ""
    return ", ".join(names) + takes, f"{parameter.help}{default}"


def command_lines(top: Any) -> Iterator[str]:
    """Yield the commands in the groups in which `topup --help` has them."""
    for group, commands in groupby(top.listed(), key=lambda one: one[1].rich_help_panel):
        yield f".SS {roff(group)}"
        for name, command in commands:
            _, _, example = command.help.partition(" Example: ")
            yield from listed(f"topup {name}", f"{summary(command.help)}.")
            yield ".RS"
            for parameter in command.params:
                yield from listed(*described(parameter))
            yield from (".PP", "Example:", f".B {roff(example.removesuffix('.'))}", ".RE")


def page(codes: dict[str, str]) -> str:
    """Return the page; `codes` has what each exit code means, by its name."""
    top: Any = get_command(app)
    lines = [
        f'.TH TOPUP 1 "" "topup {roff(topup.__version__)}" "User Commands"',
        *(".SH NAME", roff("topup - keeps a prepaid AI-API account funded from a crypto wallet, unattended")),
        *(".SH SYNOPSIS", ".B topup", r"\fICOMMAND\fR [\fIOPTION\fR]..."),
        *(".SH DESCRIPTION", roff(top.help)),
        roff("Results go to standard output, logs and questions to standard error."),
        roff('With --json a command prints one document, which begins with "schema": 1; a refusal is one, too.'),
        roff("Every command has --help."),
        *(".SH COMMANDS", *command_lines(top)),
        ".SH EXIT STATUS",
    ]
    for code in errors.Exit:
        lines += listed(str(int(code)), codes[code.name])
    for title, entries in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        lines.append(f".SH {title}")
        for name, meaning in entries.items():
            lines += listed(name, meaning)
    return "\n".join(lines) + "\n"
