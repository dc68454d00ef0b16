"""Is a gateway paid whose operator signs without the prefix, once the owner allows it, and never otherwise?"""

import pytest

from tests.world.stage import Start
from topup.domain.coinbase_charge import K2_PREFIX
from topup.domain.lifecycle import State
from topup.sandbox.world import World

K2 = "0x" + K2_PREFIX.hex()
SETTING = "TOPUP_RAILS__COINBASE__PREFIXES"


@pytest.fixture
def world(world: World) -> World:
    """An account that is low, at a gateway whose operator signs as plain messages are signed."""
    world.do(lambda: world.gateway.switch_on("coinbase", "no-prefix"))
    return world


@pytest.mark.parametrize("prefixes", ["eip191", f"{K2},eip191"])
async def test_with_the_setting_it_is_paid_once(prefixes: str, start: Start) -> None:
    """The contract takes a plain signed message, and the account is credited."""
    await start({SETTING: prefixes}).paid_once()


@pytest.mark.parametrize("prefixes", ["", K2])
async def test_without_it_nothing_is_signed_and_the_remedy_names_the_setting(prefixes: str, start: Start) -> None:
    """Whoever reads the refusal learns what was found, what was wanted, and which setting decides it."""
    there = start({SETTING: prefixes} if prefixes else {})
    rest = await there.step()
    while not there.named("charge_refused"):
        rest = await there.step()
    refused = there.named("charge_refused")[0]
    assert refused.field == "call_data.prefix"
    assert "rails.coinbase.prefixes" in refused.remedy
    assert there.topup.state is State.DROPPED
    assert rest.remedy == refused.remedy
    assert there.payments() == 0
