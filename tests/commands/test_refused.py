"""What does a program get that asked for a document, and was refused? A document all the same, and only one."""

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.tools import environ, outside
from topup import commands
from topup.commands.answer import code_of, refused
from topup.commands.cli import app
from topup.domain import errors

CANARY = "sk-canary"
KEYS = {"code", "message", "field", "remedy", "exit_code"}
# What programs compare with; a name that is changed breaks them.
CODES = {
    *("settings_error", "file_away", "api_error", "api_unknown", "api_limited", "api_unauthorized", "api_rejected"),
    *("api_gone", "chain_error", "chain_unknown", "wrong_chain", "reverted", "charge_refused", "payment_forbidden"),
    *("signer_error", "memory_short", "store_error", "store_busy", "store_fenced", "store_unusable", "topup_error"),
}


def told(*arguments: str, **settings: str) -> tuple[dict[str, Any], str]:
    """Return the document and the lines of a command that is refused."""
    command = [sys.executable, "-m", "topup", *arguments]
    done = subprocess.run(command, env=outside() | environ(**settings), capture_output=True, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["schema"], document["exit_code"]) == (1, done.returncode)
    assert document["error"].keys() == KEYS
    assert document["error"]["exit_code"] == done.returncode
    return document["error"], done.stderr


def test_every_error_has_its_code_for_good() -> None:
    """One in another module has the code of its nearest ancestor in topup/domain/errors.py."""

    class Elsewhere(errors.ChainUnknown):
        pass

    every = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.TopupError)]
    assert {code_of(one) for one in every} == CODES
    assert code_of(Elsewhere) == "chain_unknown"


@pytest.mark.parametrize(
    ("arguments", "settings", "field"),
    [
        ("once --yes", {}, "api.key"),
        ("status", {"policy__floor": "ten"}, "policy.floor"),
        ("status", {"policy__flor": "5"}, "TOPUP_POLICY__FLOR"),
        ("once --amount ten", {}, "--amount"),
        ("ledger verify --head zz", {}, "--head"),
    ],
)
def test_the_field_is_named(arguments: str, settings: dict[str, str], field: str) -> None:
    """The setting, the variable or the option that it is about; the lines say the same as before."""
    error, lines = told(*arguments.split(), "--json", **settings)
    assert (error["code"], error["field"], error["exit_code"]) == ("settings_error", field, 2)
    assert lines.startswith(f"topup: {error['message']}\n")
    assert f"topup: to do: {error['remedy']}\n" in lines


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        *(("nosuch", None), ("history --count 0", "--count"), ("status --nosuch", "--nosuch"), ("show", "topup_id")),
        ("wallet --nosuch", "--nosuch"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_document_too(arguments: str, field: str | None) -> None:
    """In whatever part of the command line it is; what it is about is named, and the lines are there as well."""
    error, lines = told(*arguments.split(), "--json")
    assert (error["code"], error["field"], error["exit_code"]) == ("usage", field, 2)
    assert f"Error: {error['message']}" in lines


def test_the_field_of_a_charge_is_the_one_that_gave_it_away() -> None:
    """What an error knows of itself counts, not how its sentence begins."""
    error = refused(errors.ChargeRefused("call_data.recipient", "0x1", "0x2"))["error"]
    assert (error["code"], error["field"], error["remedy"]) == ("charge_refused", "call_data.recipient", None)


def test_a_defect_says_nothing_of_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text may hold a key: the document names its class alone."""

    def broken() -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(commands.forecast, "answer", broken)
    done = CliRunner().invoke(app, ["forecast", "--json"])
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["exit_code"], done.exit_code) == ("internal", 1, 1)
    assert CANARY not in done.output


def test_without_json_nothing_is_printed_on_standard_output() -> None:
    """Whoever reads lines gets lines, on standard error."""
    done = CliRunner().invoke(app, ["history", "--count", "0"])
    assert (done.exit_code, done.stdout, "Usage:" in done.stderr) == (2, "", True)
