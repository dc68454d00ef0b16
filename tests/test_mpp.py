"""Does the mpp rail pay a machine payment once on a real Tempo chain, whatever the seller answers?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.stage import Stage
from tests.test_adversary import story
from tests.tools import require
from topup.books import CREDITS, IN_TRANSIT, WALLET, Commodity
from topup.lifecycle import State, TopUp
from topup.money import Asset, Usdc
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
from topup.sandbox.tempo import Tempo
from topup.sandbox.world import World

HELD = 25_000_000


@contextmanager
def selling(conduct: MppConduct | None = None) -> Iterator[World]:
    """A world whose chain is Tempo and whose provider sells for machine payments; the wallet holds 25 dollars."""
    anvil = require("anvil")

    def chain(world: World) -> Any:
        return Tempo(anvil, funded={world.wallet: HELD}, block_s=None, now=world.clock.now_s)

    def seller(world: World, account: Any) -> Seller:
        return Seller(account, world.chain, conduct=conduct or MppConduct(posting_delay_ms=10_000))

    with World(chain, scale=10, make_gateway=seller) as world:
        yield world


def stage_of(world: World, directory: Path, **more: str) -> Stage:
    """The program in this world, with one provider of Tempo."""
    own = {
        "TOPUP_RAILS__USE": "mpp",
        "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url,
        "TOPUP_POSTING__PAY_TIMEOUT_S": "5",
        "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
    }
    return Stage(world, directory, world.clock, own | more)


def held(stage: Stage, address: str) -> int:
    """Return an account's USDC.e on the chain."""
    chain: Any = stage.world.chain
    return int(stage.inside(lambda: chain.balance(address)))


def booked(stage: Stage, account: str, commodity: Commodity) -> int:
    """Return what the journal says of one account."""
    lines = [x for e in stage.store.entries("default") for x in e.lines]
    return sum(x.units for x in lines if (x.account, x.commodity) == (account, commodity))


def paid_once(stage: Stage, topup: TopUp, dollars: int = 10) -> None:
    """The recipient has exactly one payment, the wallet lost that and the fee, and the books say the same."""
    assert held(stage, RECIPIENT) == dollars * 10**6
    payment = topup.paying
    assert payment is not None
    assert payment.inclusion is not None
    assert payment.inclusion.tokens == Usdc(dollars * 10**6)
    left = HELD - held(stage, stage.world.wallet)
    fees = sum(a.inclusion.token_fee.units for a in topup.out if a.inclusion is not None)
    assert left == dollars * 10**6 + fees
    assert booked(stage, WALLET, Commodity.USDC_E) == -left
    assert booked(stage, CREDITS, Commodity.CREDIT) == dollars * 10**6
    assert booked(stage, IN_TRANSIT, Commodity.USDC_E) == 0


def test_a_machine_payment_buys_credits(tmp_path: Path) -> None:
    """Challenge, credential, settlement on Tempo, credits: one transfer, fee and all in the books to the unit."""

    async def tell(world: World) -> None:
        stage = stage_of(world, tmp_path)
        topup = await stage.until(State.DONE)
        (payment,) = topup.out
        assert payment.plan.asset is Asset.USDC_E
        assert payment.reference.startswith("pi_")
        paid_once(stage, topup)
        await stage.close()

    with selling() as world:
        story(tell(world))
