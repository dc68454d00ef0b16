"""Does every reason for which nothing is bought say what would change it, and is that there?"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from tests.tools import ROOT
from tests.world.served import served
from topup.app.settings import Settings
from topup.commands.cli import app
from topup.domain.credits import Doubt
from topup.domain.policy import REMEDIES, Why, remedy
from topup.domain.reasons import Reason

# Something was bought for these, or something is out.
BOUGHT = {Why.BELOW_FLOOR, Why.BELOW_RUNWAY, Why.BELOW_REQUESTS, Why.ASKED}
FOLLOWED = {"sent", "unsafe", "ambiguous", "nonce_moved", "deathwatch", "halted", "taken", "resumed"}
# Refused where nobody asks for a purchase: an outbid, a cancellation, `topup wallet limit`.
ELSEWHERE = {"no_cancel", "no_bump", "bump_ceiling"}
# Which argument of which call is a reason's word.
SAID = {"PaymentForbidden": 0, "_wait": 1, "_drop": 1, "PassResult": 1, "Told": 1}


def words() -> set[str]:
    """Every reason's word that stands in the program's text."""
    found = {one.value for one in set(Why) - BOUGHT} | {one.value for one in Doubt} | {one.value for one in Reason}
    for path in (ROOT / "topup").rglob("*.py"):
        if "sandbox" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = SAID.get(name)
            if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                found.add(str(node.args[at].value))  # type: ignore[attr-defined]
    return found - FOLLOWED - ELSEWHERE


def test_the_search_finds_the_words_of_every_kind() -> None:
    """Else a reason could be forgotten because nobody looked where it is said."""
    assert {"cooldown", "no_answer", "payment_max", "young_ledger", "charge_refused", "chain_unknown"} <= words()


def test_every_reason_has_a_remedy() -> None:
    """Nobody is left with a reason and without what would change it."""
    assert words() - REMEDIES.keys() == set()


def settings(model: type[BaseModel] = Settings, above: str = "") -> Iterator[str]:
    """Every setting's name, with the names of its tables."""
    for name, field in model.model_fields.items():
        yield above + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from settings(kind, f"{above}{name}.")


SETTINGS = set(settings())
TABLES = {name.partition(".")[0] for name in SETTINGS if "." in name}
NAMED = re.compile(rf"\b(?:{'|'.join(sorted(TABLES))})\.[a-z0-9_]+(?:\.[a-z0-9_]+)*")


def commands() -> dict[str, Any]:
    """Every command by its words, such as `wallet limit`."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


COMMANDS = commands()


def options(command: str) -> set[str]:
    return {option for one in COMMANDS[command].params for option in one.opts}


@pytest.mark.parametrize("why", sorted(REMEDIES))
def test_what_a_remedy_names_exists(why: str) -> None:
    """Settings, commands and options, each held against the program itself."""
    said = remedy(why)
    named = NAMED.findall(said)
    assert {one for one in named if one not in SETTINGS} == set()
    quoted = re.findall(r"`topup ([^`]*)`", said)
    for one in quoted:
        parts = re.findall(r"^[a-z][a-z-]*(?: [a-z][a-z-]*)*", one)[0].split()
        command = next((" ".join(parts[:n]) for n in range(len(parts), 0, -1) if " ".join(parts[:n]) in COMMANDS), None)
        assert command is not None, one
        assert set(re.findall(r"--[a-z-]+", one)) <= options(command), one
    pending = set(re.findall(r"--[a-z-]+", re.sub(r"`[^`]*`", "", said)))
    assert all(any(option in options(one) for one in ("once", "reconcile")) for option in pending)
    assert named or quoted or pending or "mode = live" in said or "wait" in said or "report it" in said or "log" in said


def test_a_word_that_nobody_foresaw_leads_to_where_the_whole_is_told() -> None:
    """Reasons of a top-up that failed are sentences of their own."""
    assert "`topup status`" in remedy("reverted for good: ExpiredIntent")


def test_a_purchase_that_is_held_ends_with_what_would_change_it(tmp_path: Path) -> None:
    """On a terminal and in the document; so does one that a running daemon was asked for, by the word alone."""
    with served(tmp_path) as place:
        place.high()
        held = place.run("once")
        assert held.stdout.startswith("held: ")
        # Where all is well a log holds no advice; the document has it, and so has a terminal.
        assert "to do" not in held.stderr
        assert place.document("once", "--json")["remedy"] == REMEDIES["above_floor"]
        place.low()
        observed = place.document("once", "--json", TOPUP_MODE="observe")
        assert observed["remedy"] == REMEDIES["observe_only"]
        assert place.run("pause").returncode == 0
        daemon = place.start("run")
        daemon.await_event("cycle_done", why="paused")
        paused = place.run("once", "--amount", "5", "--yes")
        assert (paused.returncode, paused.stdout) == (3, "forbidden: buying is paused\n"), paused.stderr
        assert f"topup: to do: {REMEDIES['paused']}" in paused.stderr
        assert place.payments() == 0
