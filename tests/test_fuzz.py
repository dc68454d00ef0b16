"""Do the rules of the wall hold for whatever is answered? Two thousand rounds for each side; see `tests.fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz import SIDES, Broken, run
from topup import openrouter

ROUNDS = 2000


@pytest.mark.parametrize("side", SIDES)
def test_no_bent_answer_breaks_a_rule_of_the_wall(side: str) -> None:
    """Of bent answers some are read and most refused: nothing else crosses, and nobody honest is blamed."""
    assert 0 < run(side, ROUNDS, seed=15) < ROUNDS


def test_the_rules_notice_a_wall_with_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were others' words passed on as they are, the rounds would say so."""
    monkeypatch.setattr(openrouter, "clean", lambda text, *_, **__: str(text))
    with pytest.raises(Broken, match="our key was said"):
        run("api", ROUNDS, seed=15)
