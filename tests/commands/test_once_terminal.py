"""What does a person see of `topup once`, before anything is bought, while it is, and in the end?"""

import pytest

from tests.world.served import TOPUP, Served
from tests.world.terminal import Terminal
from topup.domain.lifecycle import State

pytestmark = [pytest.mark.machine_time, pytest.mark.slow]


def spoken(place: Served, *arguments: str, says: str | None = None, **changes: str | None) -> tuple[int, str]:
    """Run `once` on a terminal, answer its question, and return its exit code and everything that was shown."""
    screen = Terminal([*TOPUP, "once", *arguments], place.environment(TERM="dumb", **changes))
    answers = [("from the wallet?", says)] if says is not None else []
    return screen.ends(*answers), screen.shown


def test_a_person_is_shown_price_payee_and_way_and_then_the_story(place: Served) -> None:
    """Before the question: what it costs at most, to whom and how. After it: what happened, and what came of it."""
    code, shown = spoken(place, "--amount", "12.5", says="y")
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
    code, shown = spoken(place, "--amount", "12.5", says="n")
    assert code == 1, shown
    assert place.payments() == 0
    assert not place.state.exists(), "the wish is stored when it is agreed to"


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "says"),
    [
        pytest.param((), {"policy__floor": "5"}, 0, "held: ", id="nothing is due"),
        pytest.param(("--amount", "1000"), {}, 3, "1000 is outside 5 to 90 in whole cents", id="not allowed"),
    ],
)
def test_where_nothing_will_be_bought_nobody_is_asked(
    place: Served, arguments: tuple[str, ...], changes: dict[str, str], code: int, says: str
) -> None:
    """It says why, and in the end alone: what forbids it, the same as off a terminal."""
    left, shown = spoken(place, *arguments, **changes)
    assert left == code, shown
    assert "from the wallet?" not in shown
    assert says in shown.rstrip().splitlines()[-1]
    told = place.document("once", *arguments, "--yes", **changes)
    assert (told["exit_code"], told["why"]) == (code, "amount_out_of_bounds" if code else "above_floor")


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
