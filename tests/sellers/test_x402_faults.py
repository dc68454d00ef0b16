"""Does the x402 rail pay once, and only whom it should, whatever the seller answers and wherever the process dies?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.world.rails_faults import ROW_S, Ground, Play, crashed, outlived, run_row
from topup.accounting.journal import Commodity
from topup.sandbox import contracts
from topup.sandbox.fault import SETTLED, Fault
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling
from topup.sandbox.x402_faults import X402_FAULTS
from topup.sandbox.x402_seller import RECIPIENT, X402Conduct, X402Seller

# Deeper than the embedded chain's final block.
FINAL_BLOCKS: Final = 8
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


@contextmanager
def ground(profile: str, settles_late_ms: int) -> Iterator[Ground]:
    """An empty account, a wallet of a hundred dollars on Base, and a seller that posts after ten seconds."""
    conduct = X402Conduct(posting_delay_ms=10_000, late_ms=600_000, settles_late_ms=settles_late_ms)
    world = World(
        embedded,
        scale=10,
        make_gateway=selling(profile, conduct=conduct),
        usage_usd=Decimal("10.5"),
        burn_usd_per_hour=Decimal(0),
    )
    world.tick_s = 0.05
    with world:
        sold: Any = world.gateway
        sold.wire.oversized_bytes = 1024 * 1024

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            urls = [world.rpc.url, *([world.provider().url] if two else [])]
            return {**sold.environment(), "TOPUP_CHAIN__RPC_URLS": ",".join(urls)}

        def bury() -> None:
            for _ in range(FINAL_BLOCKS):
                world.clock.leap(2_000)
                world.chain.mine(world.clock.now_s())

        yield Ground(
            world=world,
            rail="x402",
            settings=settings,
            token=contracts.USDC,
            commodity=Commodity.USDC,
            fees_to="",
            recipient=RECIPIENT,
            bury=bury,
            asked=lambda: sold.count("offer") + sold.count("payment"),
            paid=lambda: sold.count("payment"),
            credit=sold.poll,
            expiry_ms=400_000,
        )


def told(
    directory: Path,
    tell: Callable[[Play], Coroutine[Any, Any, None]],
    profile: str,
    *,
    two: bool = False,
    settles_late_ms: int = 10_000,
) -> None:
    """Play one row in a world of its own."""

    async def play() -> None:
        with ground(profile, settles_late_ms) as on:
            one = Play(on, directory, two)
            try:
                await asyncio.wait_for(tell(one), ROW_S)
            finally:
                await one.close()

    asyncio.run(play())


@pytest.mark.parametrize(("fault", "profile"), rows(ALL, FEW))
def test_a_row(fault: Fault, profile: str, tmp_path: Path) -> None:
    """Offer, payment, balance and posting, each spoilt in one way: the result, and the money to the unit."""
    told(tmp_path, lambda play: run_row(play, fault), profile)


@pytest.mark.parametrize(("fault", "profile"), rows(AFTER_SETTLING, FEW_SETTLED))
def test_a_death_while_the_seller_settles(fault: Fault, profile: str, tmp_path: Path) -> None:
    """The payment is with the seller and the chain has it, when the process dies: the next one finds it."""

    async def tell(play: Play) -> None:
        seller: X402Seller = play.seller
        await crashed(play, fault, settled=lambda: any(s.settled_ms is not None for s in seller.settlements.values()))
        assert len(seller.settlements) == 1

    told(tmp_path, tell, profile)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize(("fault", "profile"), rows(LOST, FEW_LOST))
def test_a_payment_that_is_never_settled(fault: Fault, profile: str, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Past its deadline one provider is no proof, a person has to look; two prove it dead, and one more is bought."""
    told(tmp_path, lambda play: outlived(play, fault), profile, two=two)


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
@pytest.mark.parametrize("name", ["settles-late", "refuses-settles-late"])
def test_a_payment_that_is_kept_back_past_its_deadline(name: str, two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The seller carries it to the chain when the ledger has given it up: the token refuses it."""
    told(tmp_path, lambda play: outlived(play, X402_FAULTS[name]), "venice", two=two, settles_late_ms=700_000)
