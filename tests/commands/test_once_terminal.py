"""What does a person see of `topup once`, before anything is bought, while it is, and in the end?"""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world.served import PATIENCE_S, TOPUP, Served, served
from topup.domain.lifecycle import State

pytestmark = [pytest.mark.machine_time, pytest.mark.slow]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def spoken(place: Served, *arguments: str, says: bytes = b"y\n", **changes: str | None) -> tuple[int, str]:
    """Run `once` on a terminal, answer its question, and return its exit code and everything that was shown."""
    here, there = pty.openpty()
    running = subprocess.Popen(
        [*TOPUP, "once", *arguments],
        env=place.environment(TERM="dumb", **changes),
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    os.write(here, says)
    heard = b""
    while True:
        try:
            part = os.read(here, 4096)
        except OSError:  # the last process has left the terminal
            break
        if not part:
            break
        heard += part
    os.close(here)
    return running.wait(timeout=PATIENCE_S), heard.decode().replace("\r\n", "\n")


def test_a_person_is_shown_price_payee_and_way_and_then_the_story(place: Served) -> None:
    """Before the question: what it costs at most, to whom and how. After it: what happened, and what came of it."""
    code, shown = spoken(place, "--amount", "12.5")
    assert code == 0, shown
    asked, _, told = shown.partition("from the wallet?")
    assert "costs  at most 13.1875 dollars and network fees; it would take at most" in asked
    assert place.world.operator.terms.recipient.lower() in asked
    assert "by     coinbase, with ETH on Base" in asked
    for line in ("requesting a charge over 12.5 dollars", "signed and stored 0x", "credits posted"):
        assert line in told
    assert told.rstrip().splitlines()[-1].startswith("done: ")
    assert "{" not in shown, "the log's form is for those who ask for it"
    assert place.payments() == 1


def test_a_no_buys_nothing(place: Served) -> None:
    """It ends there, and no wish is left that a daemon could carry out."""
    code, shown = spoken(place, "--amount", "12.5", says=b"n\n")
    assert code == 1, shown
    assert place.payments() == 0
    assert not place.state.exists(), "the wish is stored when it is agreed to"


def test_where_nothing_is_due_nobody_is_asked(place: Served) -> None:
    """It says why nothing is bought."""
    code, shown = spoken(place, policy__floor="5")
    assert code == 0, shown
    assert "from the wallet?" not in shown
    assert shown.rstrip().splitlines()[-1].startswith("held: ")
    assert place.payments() == 0


def test_what_is_not_allowed_is_said_before_anybody_is_asked(place: Served) -> None:
    """With the rule that forbids it, and what to do; the same as off a terminal."""
    code, shown = spoken(place, "--amount", "1000")
    assert code == 3, shown
    assert "from the wallet?" not in shown
    assert "1000 is outside 5 to 90 in whole cents" in shown.rstrip().splitlines()[-1]
    assert place.document("once", "--amount", "1000", "--yes")["why"] == "amount_out_of_bounds"


@pytest.mark.parametrize("arguments", [["--amount", "12.5"], ["--force"], []])
def test_off_a_terminal_nothing_is_bought_without_a_yes(place: Served, arguments: list[str]) -> None:
    """Neither what is asked for nor what is due; the remedy names the flag. With it, it is bought."""
    place.low()
    refused = place.document("once", *arguments)
    assert (refused["exit_code"], refused["why"]) == (3, "not_agreed")
    assert "--yes" in refused["remedy"]
    assert place.payments() == 0
    assert place.document("once", *arguments, "--yes")["exit_code"] == 0
    assert [t.state for t in place.topups()] == [State.DONE]


def test_an_account_that_the_daemon_does_not_serve_is_refused_at_once(place: Served) -> None:
    """Its wish would wait for a daemon that never looks at it; none is stored."""
    place.start("run").await_event("started")
    refused = place.run("once", "--amount", "12.5", "--yes", account="other")
    assert refused.returncode == 2
    assert "serves the account default, and not other" in refused.stderr
    assert place.payments() == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"policy__topup_max": "12", "policy__amount": "10"}, 3), ({"api__url": "http://127.0.0.1:9/"}, 4)],
)
def test_a_rehearsal_has_the_exit_code_of_the_purchase(place: Served, changes: dict[str, str], code: int) -> None:
    """Bought, forbidden and unknown: a script that tries first branches on the same number."""
    rehearsed = place.document("once", "--amount", "12.5", "--dry-run", **changes)
    assert rehearsed["exit_code"] == code
    assert place.payments() == 0
    assert place.document("once", "--amount", "12.5", "--yes", "--timeout", "30", **changes)["exit_code"] == code
