"""Does the mpp rail pay once, and only whom it should, whatever the seller answers and wherever the process dies?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from tests.tools import require
from tests.world.rails_faults import ROW_S, Ground, Play, crashed, outlived, run_row
from topup.accounting.journal import Commodity
from topup.sandbox.fault import SETTLED, Fault
from topup.sandbox.mpp_faults import MPP_FAULTS
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller, Style
from topup.sandbox.tempo import FEE_AMM, USDC_E, Tempo
from topup.sandbox.world import World

HELD: Final = 45_000_000
FINAL_BLOCKS: Final = 70
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


def rows(faults: Iterable[Fault], few: frozenset[str]) -> list[Any]:
    """Name each row, and leave most of them to the long run."""
    return [pytest.param(f, id=f.name, marks=[] if f.name in few else [pytest.mark.long]) for f in faults]


ALL: Final = list(MPP_FAULTS.values())
AFTER_SETTLING: Final = [
    f for f in ALL if f.name.startswith(SETTLED) or f.name in ("no-purchase-id", "no-receipt", "lying-receipt")
] + [MPP_FAULTS["fails-after-settling"]]
LOST: Final = [f for f in ALL if f.expected_result == "waiting" and f.switches[0].place == "payment"]


@contextmanager
def ground(style: Style, settles_late_ms: int) -> Iterator[Ground]:
    """An empty account, a wallet of 45 dollars on Tempo, and a seller that posts after ten seconds."""
    anvil = require("anvil")

    def chain(world: World) -> Any:
        return Tempo(anvil, funded={world.wallet: HELD}, block_s=None, now=world.clock.now_s)

    def seller(world: World, account: Any) -> Seller:
        made = Seller(
            account,
            world.chain,
            conduct=MppConduct(posting_delay_ms=10_000, late_ms=600_000, style=style, settles_late_ms=settles_late_ms),
        )
        made.wire.oversized_bytes = 1024 * 1024
        return made

    world = World(chain, scale=10, make_gateway=seller, usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(0))
    world.tick_s = 0.05
    with world:
        sold: Any = world.gateway

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            urls = [world.rpc.url, *([world.provider().url] if two else [])]
            return {
                "TOPUP_RAILS__USE": "mpp",
                "TOPUP_RAILS__MPP__RPC_URLS": ",".join(urls),
                "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
                "TOPUP_RAILS__MPP__RECIPIENTS": RECIPIENT,
            }

        def bury() -> None:
            world.clock.leap(FINAL_BLOCKS * 1000)
            world.chain.rpc("anvil_mine", [hex(FINAL_BLOCKS), "0x1"])
            world.chain.mine(world.clock.now_s())  # with the base fee that blocks in a row have let fall

        yield Ground(
            world=world,
            rail="mpp",
            settings=settings,
            token=USDC_E,
            commodity=Commodity.USDC_E,
            fees_to=FEE_AMM,
            recipient=RECIPIENT,
            bury=bury,
            asked=lambda: len(sold.posts),
            paid=lambda: sold.count("payment"),
            credit=lambda: credited(sold),
            expiry_ms=400_000,
        )


def credited(seller: Seller) -> None:
    """Post what is due; what is called failed for good is made good by hand."""
    seller.poll()
    if any(one.refused for one in seller.purchases.values()):
        seller.account.buy_elsewhere(Decimal(10))


def told(
    directory: Path,
    tell: Callable[[Play], Coroutine[Any, Any, None]],
    style: Style = "mppx",
    *,
    two: bool = False,
    settles_late_ms: int = 2_000,
) -> None:
    """Play one row in a world of its own."""

    async def play() -> None:
        with ground(style, settles_late_ms) as on:
            one = Play(on, directory, two)
            try:
                await asyncio.wait_for(tell(one), ROW_S)
            finally:
                await one.close()

    asyncio.run(play())


@pytest.mark.parametrize("fault", rows(ALL, FEW))
def test_a_row(fault: Fault, tmp_path: Path) -> None:
    """Challenge, credential, purchase and posting, each spoilt in one way: the result, and the money to the unit."""
    told(tmp_path, lambda play: run_row(play, fault), STYLES[ALL.index(fault) % len(STYLES)])


@pytest.mark.parametrize("fault", rows(AFTER_SETTLING, FEW_SETTLED))
def test_a_death_while_the_seller_settles(fault: Fault, tmp_path: Path) -> None:
    """The credential is with the seller and the chain has it, when the process dies: the next one finds it."""

    async def tell(play: Play) -> None:
        seller: Seller = play.seller
        await crashed(play, fault, settled=lambda: any(p.settled_ms is not None for p in seller.payments.values()))
        assert len(seller.payments) == 1

    told(tmp_path, tell, STYLES[AFTER_SETTLING.index(fault) % len(STYLES)])


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize("fault", rows(LOST, FEW_LOST))
def test_a_credential_that_is_never_settled(fault: Fault, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Past its deadline one provider is no proof, a person has to look; two prove it dead, and one more is bought."""
    told(tmp_path, lambda play: outlived(play, fault), two=two)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
def test_a_credential_that_is_kept_back_past_its_deadline(two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The seller broadcasts it when the ledger has given it up: the chain no longer takes it, beside another or not."""
    told(tmp_path, lambda play: outlived(play, MPP_FAULTS["settles-late"]), two=two, settles_late_ms=700_000)
