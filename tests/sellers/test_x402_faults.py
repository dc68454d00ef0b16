"""Does the x402 rail pay once, and only whom it should, whatever the seller answers and wherever the process dies?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.world.grounds import of_x402
from tests.world.rails_faults import crashed, outlived, playing, run_row
from topup.sandbox.fault import SETTLED, Fault
from topup.sandbox.x402_faults import X402_FAULTS
from topup.sandbox.x402_seller import X402Seller

# Rows of the default run: one of each kind, at one seller. All others take part under `-m long`.
FEW: Final = {
    "other-recipient": "venice",
    "stranger-too": "plain",
    "crowd": "venice",
    "double-amount": "plain",
    "duplicate-keys": "venice",
    "offer-gone-410": "venice",
    "offer-unauthorized-401": "plain",
    "offer-redirect-307": "venice",
    "payment-redirect-307": "plain",
    "payment-failed-402": "venice",
    "settled-reset": "venice",
    "settled-failed-402": "plain",
    "refuses-settles-late": "venice",
    "settles-twice": "plain",
    "lying-receipt": "venice",
    "balance-nan": "plain",
    "never-credits": "venice",
}
FEW_SETTLED: Final = {"settled-failed-402": "venice", "settled-redirect-307": "plain", "settles-twice": "venice"}
FEW_LOST: Final = {"never-settles": "plain", "accepts-never-settles": "venice"}

ALL: Final = list(X402_FAULTS.values())
AFTER_SETTLING: Final = [
    f for f in ALL if f.name.startswith(SETTLED) or f.name in ("no-receipt", "lying-receipt", "settles-twice")
]
LOST: Final = [f for f in ALL if f.expected_result == "waiting" and f.switches[0].place == "payment"]


def rows(faults: list[Fault], few: dict[str, str]) -> list[Any]:
    """Name each row at each seller, and leave most of them to the long run."""
    return [
        pytest.param(f, one, id=f"{f.name}-{one}", marks=[] if few.get(f.name) == one else [pytest.mark.long])
        for f in faults
        for one in f.sellers
    ]


@pytest.mark.parametrize(("fault", "profile"), rows(ALL, FEW))
async def test_a_row(fault: Fault, profile: str, tmp_path: Path) -> None:
    """Offer, payment, balance and posting, each spoilt in one way: the result, and the money to the unit."""
    async with playing(of_x402(profile), tmp_path, fault) as play:
        await run_row(play, fault)


@pytest.mark.parametrize(("fault", "profile"), rows(AFTER_SETTLING, FEW_SETTLED))
async def test_a_death_while_the_seller_settles(fault: Fault, profile: str, tmp_path: Path) -> None:
    """The payment is with the seller and the chain has it, when the process dies: the next one finds it."""
    async with playing(of_x402(profile), tmp_path, fault) as play:
        seller: X402Seller = play.seller
        await crashed(play, fault, settled=lambda: any(s.settled_ms is not None for s in seller.settlements.values()))
        assert len(seller.settlements) == 1


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize(("fault", "profile"), rows(LOST, FEW_LOST))
async def test_a_payment_that_is_never_settled(fault: Fault, profile: str, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Past its deadline one provider is no proof, a person has to look; two prove it dead, and one more is bought."""
    async with playing(of_x402(profile), tmp_path, fault, two=two) as play:
        await outlived(play, fault)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize("name", ["settles-late", "refuses-settles-late"])
async def test_a_payment_that_is_kept_back_past_its_deadline(name: str, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The seller carries it to the chain when the ledger has given it up: the token refuses it."""
    async with playing(of_x402("venice", 700_000), tmp_path, two=two) as play:
        await outlived(play, X402_FAULTS[name])
