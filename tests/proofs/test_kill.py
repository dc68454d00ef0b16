"""Does the real program survive being killed at any step? A sample of the matrix, and a proof that the matrix can fail.

The whole matrix is `python -m tests.proofs.kill_matrix`; continuous integration tries all of it.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import tools
from tests.proofs import kill_matrix, kill_worlds
from tests.proofs.kill_lives import LIVES
from tests.proofs.kill_matrix import MISSED, cells, dangerous, record, run, survive
from tests.proofs.killed import COMMIT, FOREIGN, Cell

# So many cells of each life, beside those on which money hangs.
SAMPLE = 3
# The ledger of a program that sends first and stores its intent to send with the answer.
BROKEN = """
from dataclasses import replace
from topup.domain.lifecycle import State
from topup.ledger.store import SqliteStore
intend, delivered = SqliteStore.intend, SqliteStore.delivered

def forgetful(self, topup, at_ms):
    out = replace(topup.attempts[-1], intended_ms=at_ms)
    return replace(topup, state=State.SENT, attempts=(*topup.attempts[:-1], out))

def late(self, topup, attempt, sent, at_ms):
    stored = self.topup(topup.id)
    if stored.state is State.SIGNED:
        stored = intend(self, stored, at_ms)
    return delivered(self, stored, attempt, sent, at_ms)

SqliteStore.intend, SqliteStore.delivered = forgetful, late
from tests.proofs import killed
killed.main()
"""


@pytest.fixture(autouse=True)
def _anvil() -> None:
    """All of this needs a real chain."""
    tools.require("anvil")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.long] if one != "refill" else []) for one in LIVES]
)
def test_whoever_is_killed_pays_once_and_knows_it(name: str, request: pytest.FixtureRequest) -> None:
    """Killed at the dangerous steps of this life and at some others, then restarted: one payment, books that match."""
    seed = int(request.config.option.hypothesis_seed)
    with ThreadPoolExecutor(4) as pool:
        result = run(SAMPLE, seed, pool, lives=[name])
    print(f"{name}: {result.survived} of {result.cells} cells survived, of {result.whole}; seed {seed}")
    assert result.cells >= SAMPLE
    assert not result.failures, "\n".join(f"{one.replay}: {one.wrong}" for one in result.failures)


@pytest.mark.long
def test_a_ledger_that_hears_of_a_payment_too_late_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that sends before it stores its intent lives well undisturbed; killed in between, it is lost."""
    program = [sys.executable, "-c", BROKEN]
    use = record(LIVES["refill"], program)
    assert "store.intend" not in {one["call"] for one in use}
    window = Cell("signed1", "chain.send", 1, "after")
    assert window in cells(use)
    monkeypatch.setattr(kill_worlds, "LIFE_S", 15)
    lost = survive(LIVES["refill"], window, program)
    assert lost.wrong not in ("", MISSED)
    beside = survive(LIVES["refill"], Cell("signed1", "chain.send", 1, "before"), program)
    assert not beside.wrong


def test_a_step_that_is_never_reached_is_not_called_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that no longer exists is a failure, with the command that tries it again."""
    monkeypatch.setattr(kill_matrix, "TRIES", 1)
    missed = survive(LIVES["refill"], Cell("never1", "store.begin", 1, "before"))
    assert missed.wrong == MISSED
    assert missed.replay == "python -m tests.proofs.kill_matrix --cell 'refill:never1/store.begin/1/before/kept'"


@pytest.mark.slow
def test_what_a_rail_asks_its_seller_and_its_chain_is_seen() -> None:
    """Of a payment that a seller carries, every question to seller and chain is in the trace."""
    use = [(one["phase"], one["call"]) for one in record(LIVES["x402"]) if one["kind"] == FOREIGN]
    assert use.count(("ask1", "seller.post")) == use.count(("intend1", "seller.post")) == 1
    assert {"tokens.preflight", "tokens.simulate", "tokens.look", "api.credits"} < {call for _, call in use}
    assert not any(
        dangerous(cell) for cell in cells([{"phase": "ask1", "call": "seller.post", "nth": 1, "kind": FOREIGN}])
    )
    assert dangerous(Cell("intend1", "seller.post", 1, "after"))


def test_every_commit_and_every_foreign_call_becomes_cells() -> None:
    """Each is died at before and after; what changes something on the other side also with every bad answer."""

    def of(call: str, kind: str, nth: int = 1) -> list[str]:
        return [str(cell) for cell in cells([{"phase": "p1", "call": call, "nth": nth, "kind": kind}])]

    assert of("store.new_method", COMMIT) == ["p1/store.new_method/1/before/kept", "p1/store.new_method/1/after/kept"]
    assert len(of("chain.look", FOREIGN)) == 2
    assert len(of("tokens.look", FOREIGN)) == len(of("seller.get", FOREIGN)) == 2
    assert len(of("chain.send", FOREIGN)) == len(of("api.charge", FOREIGN)) == len(of("seller.post", FOREIGN)) == 8
    assert of("chain.look", FOREIGN, nth=3) == []
    assert len(of("store.settle", COMMIT, nth=9)) == 2
    with pytest.raises(KeyError, match=r"api\.new_call"):
        of("api.new_call", FOREIGN)
    for text in of("chain.send", FOREIGN):
        assert str(Cell.of(text)) == text
