"""Does a rail pay once, and only whom it should, whatever the seller answers and wherever the process dies?"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from tests.world.grounds import of_mpp, of_x402
from tests.world.rails_faults import Ground, crashed, outlived, playing, run_row
from topup.sandbox.fault import SETTLED, Fault
from topup.sandbox.mpp_faults import MPP_FAULTS
from topup.sandbox.purchases import Style
from topup.sandbox.x402_faults import X402_FAULTS

Where = Callable[[], AbstractContextManager[Ground]]
# Rows of the default run: one of each kind, at one seller. All others take part under `-m long`.
FEW: Final[dict[str, Collection[str]]] = {
    "mpp": (
        *("other-recipient", "splits", "replayed-challenge", "huge-header", "ousd-first", "two-that-differ"),
        *("challenge-gone-410", "challenge-unauthorized-401", "challenge-redirect-307", "payment-redirect-307"),
        *("payment-payment-required-402", "settled-reset", "settled-payment-required-402", "settles-late"),
        *("lying-receipt", "fails-after-settling", "says-credited"),
    ),
    "venice": (
        *("other-recipient", "crowd", "duplicate-keys", "offer-gone-410", "offer-redirect-307", "payment-failed-402"),
        *("settled-reset", "refuses-settles-late", "lying-receipt", "never-credits"),
    ),
    "plain": (
        *("stranger-too", "double-amount", "offer-unauthorized-401", "payment-redirect-307", "settled-failed-402"),
        *("settles-twice", "balance-nan"),
    ),
}
FEW_SETTLED: Final[dict[str, Collection[str]]] = {
    "mpp": ("settled-payment-required-402", "settled-redirect-307", "fails-after-settling"),
    "venice": ("settled-failed-402", "settles-twice"),
    "plain": ("settled-redirect-307",),
}
FEW_LOST: Final[dict[str, Collection[str]]] = {
    "mpp": ("never-settles",),
    "venice": ("accepts-never-settles",),
    "plain": ("never-settles",),
}
ALL: Final = {"mpp": list(MPP_FAULTS.values()), "x402": list(X402_FAULTS.values())}
ANSWERED: Final = {"no-purchase-id", "no-receipt", "lying-receipt", "fails-after-settling", "settles-twice"}
TWO: Final = pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])


def settled(fault: Fault) -> bool:
    """Tell whether the money moves before the answer."""
    return fault.name.startswith(SETTLED) or fault.name in ANSWERED


def lost(fault: Fault) -> bool:
    """Tell whether a payment leaves and is settled by nobody while the fault lasts."""
    return fault.expected_result == "waiting" and fault.switches[0].place == "payment"


def rows(
    few: dict[str, Collection[str]],
    wanted: Callable[[Fault], bool] = lambda _: True,
    styles: Sequence[Style] = get_args(Style),
) -> list[Any]:
    """Name each row of each rail at each seller, and leave most of them to the long run."""
    mpp = [(on_mpp(styles[n % len(styles)]), "mpp", fault) for n, fault in enumerate(filter(wanted, ALL["mpp"]))]
    x402 = [(on_x402(seller), seller, fault) for fault in filter(wanted, ALL["x402"]) for seller in fault.sellers]
    return [
        pytest.param(
            fault, on, id=f"{seller}-{fault.name}", marks=[] if fault.name in few[seller] else [pytest.mark.long]
        )
        for on, seller, fault in mpp + x402
    ]


def on_mpp(style: Style) -> Where:
    return lambda: of_mpp(style)


def on_x402(profile: str) -> Where:
    return lambda: of_x402(profile)


@pytest.mark.parametrize(("fault", "where"), rows(FEW))
async def test_a_row(fault: Fault, where: Where, tmp_path: Path) -> None:
    """Offer, payment, purchase, balance and posting, each spoilt in one way: the result, and the money to the unit."""
    async with playing(where(), tmp_path, fault) as play:
        await run_row(play, fault)


@pytest.mark.parametrize(("fault", "where"), rows(FEW_SETTLED, settled))
async def test_a_death_while_the_seller_settles(fault: Fault, where: Where, tmp_path: Path) -> None:
    """The payment is with the seller and the chain has it, when the process dies: the next one finds it."""
    async with playing(where(), tmp_path, fault) as play:
        payments = play.seller.payments if play.ground.rail == "mpp" else play.seller.settlements
        await crashed(play, fault, settled=lambda: any(one.settled_ms is not None for one in payments.values()))
        assert len(payments) == 1


@TWO
@pytest.mark.parametrize(("fault", "where"), rows(FEW_LOST, lost, ("mppx",)))
async def test_a_payment_that_is_never_settled(fault: Fault, where: Where, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Past its deadline one provider is no proof, a person has to look; two prove it dead, and one more is bought."""
    async with playing(where(), tmp_path, fault, two=two) as play:
        await outlived(play, fault)


@TWO
@pytest.mark.parametrize(
    ("where", "fault"),
    [
        (lambda: of_mpp(settles_late_ms=700_000), MPP_FAULTS["settles-late"]),
        (lambda: of_x402("venice", 700_000), X402_FAULTS["settles-late"]),
        (lambda: of_x402("venice", 700_000), X402_FAULTS["refuses-settles-late"]),
    ],
    ids=["mpp-settles-late", "x402-settles-late", "x402-refuses-settles-late"],
)
async def test_a_payment_that_is_kept_back_past_its_deadline(
    where: Where,
    fault: Fault,
    two: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """The seller carries it to the chain when the ledger has given it up: the chain no longer takes it."""
    async with playing(where(), tmp_path, two=two) as play:
        await outlived(play, fault)
