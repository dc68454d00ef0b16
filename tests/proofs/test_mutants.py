"""Do the sabotages still fit the code? Whether each is noticed is what `python -m tests.proofs.mutants` shows."""

import pytest

from tests.proofs.mutants import MUTANTS, SABOTAGE, SABOTAGES, Mutant, sabotaged
from tests.tools import ROOT


def test_there_are_enough_of_them_and_none_twice() -> None:
    """A list that shrinks unseen would prove less each year."""
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 40
    assert SABOTAGE.sub("", SABOTAGES) == "\n", "a sabotage that cannot be read"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_sabotage_has_its_line_and_its_test(mutant: Mutant) -> None:
    """The line to sabotage stands in the code exactly once, and the tests that must notice exist."""
    assert sabotaged(mutant) != (ROOT / mutant.file).read_text(encoding="utf-8")
    for test in mutant.test.split():
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in (ROOT / path).read_text(encoding="utf-8")
