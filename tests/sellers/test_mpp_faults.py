"""Does the mpp rail pay once, and only whom it should, whatever the seller answers and wherever the process dies?"""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

import pytest

from tests.world.grounds import of_mpp
from tests.world.rails_faults import crashed, outlived, playing, rows, run_row
from topup.sandbox.fault import SETTLED, Fault
from topup.sandbox.mpp_faults import MPP_FAULTS
from topup.sandbox.purchases import Seller, Style

STYLES: Final[tuple[Style, ...]] = get_args(Style)
# Rows of the default run: one of each kind. All others take part under `-m long`.
FEW: Final = frozenset(
    {
        "other-recipient",
        "splits",
        "replayed-challenge",
        "huge-header",
        "ousd-first",
        "two-that-differ",
        "challenge-gone-410",
        "challenge-unauthorized-401",
        "challenge-redirect-307",
        "payment-redirect-307",
        "payment-payment-required-402",
        "settled-reset",
        "settled-payment-required-402",
        "settles-late",
        "lying-receipt",
        "fails-after-settling",
        "says-credited",
    }
)
FEW_SETTLED: Final = frozenset({"settled-payment-required-402", "settled-redirect-307", "fails-after-settling"})
FEW_LOST: Final = frozenset({"never-settles"})


ALL: Final = list(MPP_FAULTS.values())
AFTER_SETTLING: Final = [
    f for f in ALL if f.name.startswith(SETTLED) or f.name in ("no-purchase-id", "no-receipt", "lying-receipt")
] + [MPP_FAULTS["fails-after-settling"]]
LOST: Final = [f for f in ALL if f.expected_result == "waiting" and f.switches[0].place == "payment"]


@pytest.mark.parametrize("fault", rows(ALL, FEW))
async def test_a_row(fault: Fault, tmp_path: Path) -> None:
    """Challenge, credential, purchase and posting, each spoilt in one way: the result, and the money to the unit."""
    async with playing(of_mpp(STYLES[ALL.index(fault) % len(STYLES)]), tmp_path, fault) as play:
        await run_row(play, fault)


@pytest.mark.parametrize("fault", rows(AFTER_SETTLING, FEW_SETTLED))
async def test_a_death_while_the_seller_settles(fault: Fault, tmp_path: Path) -> None:
    """The credential is with the seller and the chain has it, when the process dies: the next one finds it."""
    async with playing(of_mpp(STYLES[AFTER_SETTLING.index(fault) % len(STYLES)]), tmp_path, fault) as play:
        seller: Seller = play.seller
        await crashed(play, fault, settled=lambda: any(p.settled_ms is not None for p in seller.payments.values()))
        assert len(seller.payments) == 1


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize("fault", rows(LOST, FEW_LOST))
async def test_a_credential_that_is_never_settled(fault: Fault, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Past its deadline one provider is no proof, a person has to look; two prove it dead, and one more is bought."""
    async with playing(of_mpp(), tmp_path, fault, two=two) as play:
        await outlived(play, fault)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
async def test_a_credential_that_is_kept_back_past_its_deadline(two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The seller broadcasts it when the ledger has given it up: the chain no longer takes it, beside another or not."""
    async with playing(of_mpp(settles_late_ms=700_000), tmp_path, two=two) as play:
        await outlived(play, MPP_FAULTS["settles-late"])
