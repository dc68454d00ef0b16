"""Does a charge paid in USDC cost once, and only whom it should, whatever goes wrong and wherever the process dies?"""

from pathlib import Path

import pytest

from tests.world.grounds import USDC_FAULTS, answered, died, in_usdc, paused
from tests.world.rails_faults import playing, rows
from topup.sandbox.fault import Fault


# The quickest row is in the default run. All others take part under `-m long`.
@pytest.mark.parametrize("fault", rows(USDC_FAULTS, {"bad-signature"}))
async def test_a_row(fault: Fault, tmp_path: Path) -> None:
    """Charge, balance, chain and posting, each spoilt in one way: the result, and the money to the unit."""
    async with playing(in_usdc(), tmp_path, fault) as play:
        await answered(play, fault)


@pytest.mark.parametrize("nth", [0, 1], ids=["approval", "payment"])
async def test_a_death_between_sending_and_the_answer(nth: int, tmp_path: Path) -> None:
    """The provider has taken a transaction when the process dies: the next finds it and sends it no second time."""
    async with playing(in_usdc(), tmp_path) as play:
        await died(play, nth)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
async def test_a_contract_that_is_paused_past_the_deadline(two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Nothing is approved that could not be taken: the charge is replaced, paid once, and nothing stays approved."""
    async with playing(in_usdc(), tmp_path, two=two) as play:
        await paused(play)
