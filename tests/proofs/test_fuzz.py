"""Do the rules of the wall hold for whatever is answered? Two thousand rounds for each side, and whole payments.

See `tests.proofs.fuzz` and `tests.proofs.fuzz_payments`.
"""

import pytest

from tests.proofs.fuzz import SIDES, api
from tests.proofs.fuzz_payments import KINDS, play
from tests.tools import require
from tests.world.bending import Broken
from topup.chain import rpc
from topup.sellers import openrouter

ROUNDS = 2000


@pytest.mark.parametrize("side", SIDES)
def test_no_bent_answer_breaks_a_rule_of_the_wall(side: str) -> None:
    """Of bent answers some are read and most refused: nothing else crosses, and nobody honest is blamed."""
    assert 0 < SIDES[side](ROUNDS, seed=15) < ROUNDS


def test_the_rules_notice_a_wall_with_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were others' words passed on as they are, the rounds would say so."""
    monkeypatch.setattr(openrouter, "clean", lambda text, *_, **__: str(text))
    with pytest.raises(Broken, match="our key was said"):
        api(ROUNDS, seed=15)


# -- whole payments ---------------------------------------------------------------------------------------------------

TEN = 10


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, TEN, 2 * TEN])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_payments_with_a_bent_voice_are_made_once(kind: str, first: int) -> None:
    """One payment each, to whom it is owed; nobody honest is blamed, and nothing that is said or kept is unfit."""
    if kind == "mpp":
        require("anvil")
    found = play(kind, range(first, first + TEN), seed=15)
    assert found.broken == []
    assert found.bent >= TEN // 4


@pytest.mark.slow
def test_the_rules_notice_a_provider_whose_words_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a provider's words said as they are, rounds would find what commands a terminal in what is said."""
    monkeypatch.setattr(rpc, "clean", lambda text, *_, **__: str(text))
    broken = play("provider", range(TEN), seed=15).broken
    assert any("was said" in one for one in broken)


@pytest.mark.slow
def test_a_round_is_repeated_by_its_seed() -> None:
    """Whoever plays a round again sees the same: as many answers are bent, and nothing is drawn beside its seed."""
    first, second = (play("provider", [3, 4], seed=15) for _ in range(2))
    assert first == second
