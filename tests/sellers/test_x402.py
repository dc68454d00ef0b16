"""Does the x402 rail pay other people's seller once, whatever that answers?"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from eth_keys.datatypes import PrivateKey

from tests.oracles import x402_seller
from tests.world.stage import Stage
from topup.accounting.journal import CREDITS, IN_TRANSIT, WALLET, Commodity
from topup.domain.lifecycle import State
from topup.domain.money import Asset, Usd, Usdc
from topup.payment.config import PurchaseOrder
from topup.sandbox import contracts
from topup.sandbox.world import STEPPED, World, embedded
from topup.sandbox.x402 import selling
from topup.sandbox.x402_seller import RECIPIENT as SELLS_FOR

HELD = 20_000_000
SELLER = PrivateKey(b"\x07" * 32)
RECIPIENT = "0x00000000000000000000000000000000000000AA"


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose wallet holds twenty dollars, and in which the seller's facilitator can pay for gas."""
    with World(embedded, scale=10) as made:
        made.do(lambda: made.write(contracts.usdc_balance(made.wallet, HELD)))
        made.do(lambda: made.chain.set_balance(SELLER.public_key.to_checksum_address(), 10**18))
        yield made


def settings(url: str) -> dict[str, str]:
    """What a user of a plain x402 gateway sets."""
    return {
        "TOPUP_RAILS__USE": "x402",
        "TOPUP_RAILS__X402__PROFILE": "plain",
        "TOPUP_RAILS__X402__RECIPIENTS": RECIPIENT.lower(),
        "TOPUP_API__KIND": "x402",
        "TOPUP_API__URL": url,
        "TOPUP_API__KEY": "a-key",
    }


@pytest.mark.machine_time  # the seller has no other
async def test_the_packages_own_seller_is_paid(world: World, tmp_path: Path) -> None:
    """Its facilitator carries our authorization to the chain: one transfer, credits posted, books to the unit."""
    with x402_seller(world.rpc.url, RECIPIENT, SELLER.to_hex()) as url:
        stage = Stage(world, tmp_path, world.clock, settings(url + "/v1"))
        topup = await stage.until(State.DONE, asked=PurchaseOrder(Usd.of(10)))
        (payment,) = topup.out
        assert payment.plan.asset is Asset.USDC
        assert payment.inclusion is not None
        assert payment.inclusion.tokens == Usdc(10_000_000)
        assert payment.tx_hash != payment.hash
        assert stage.inside(lambda: world.usdc(RECIPIENT)) == 10_000_000
        assert stage.inside(lambda: world.usdc(world.wallet)) == HELD - 10_000_000
        assert stage.in_books(WALLET, Commodity.USDC) == -10_000_000
        assert stage.in_books(CREDITS, Commodity.CREDIT) == 10_000_000
        assert stage.in_books(IN_TRANSIT, Commodity.USDC) == 0
        assert stage.left() == 0
        await stage.close()


async def test_a_posting_hidden_by_usage_ends_by_a_persons_word(tmp_path: Path) -> None:
    """The credits arrive with usage of 40 % at once, and show as no posting; a person says that they are there."""
    with World(embedded, scale=STEPPED, make_gateway=selling("venice")) as world:
        account = world.gateway.account
        stage = Stage(world, tmp_path, world.clock, world.gateway.environment())  # type: ignore[attr-defined]
        stage.inside(lambda: world.gateway.switch_on("posting", "never-posts"))
        topup = await stage.until(State.PAID)
        stage.say("credited", topup)
        stage.inside(lambda: account.buy_elsewhere(Decimal(10)))
        stage.inside(lambda: account.set_usage(account.total_usage + 4))
        await stage.until(State.UNCREDITED)
        await stage.steps(3)
        assert stage.topup.state is State.UNCREDITED, "what was said before is about something else"
        stage.say("credited", topup)
        ended = await stage.until(State.DONE)
        assert ended.id == topup.id
        (said,) = stage.named("credits_attested")
        assert (said.topup_id, said.amount_usd) == (topup.id, Usd.of(10))
        assert not stage.named("credits_posted")
        assert [m["detail"] for m in stage.store.moves(topup.id) if m["fact"] == "posted"] == [
            "attested by hand: the credits are in the account"
        ]
        assert stage.store.told("default", f"resolve:{topup.id}") == ""
        assert stage.in_books(CREDITS, Commodity.CREDIT) == 10_000_000
        assert stage.in_books(IN_TRANSIT, Commodity.USDC) == 0
        assert stage.inside(lambda: world.usdc(SELLS_FOR)) == 10_000_000
        await stage.close()
