"""Is a gateway paid whose operator signs without the prefix, once the owner allows it, and never otherwise?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.world.stage import Stage
from topup.domain.coinbase_charge import K2_PREFIX
from topup.domain.lifecycle import State
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import STEPPED, World, embedded

K2 = "0x" + K2_PREFIX.hex()
SETTING = "TOPUP_RAILS__COINBASE__PREFIXES"


@pytest.fixture
def world() -> Iterator[World]:
    """An account that is low, at a gateway whose operator signs as plain messages are signed."""
    with World(
        embedded, scale=STEPPED, conduct=Conduct(), usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(1)
    ) as world:
        world.do(lambda: world.gateway.switch_on("coinbase", "no-prefix"))
        yield world


def stage(world: World, directory: Path, prefixes: str) -> Stage:
    """One account there, with the prefixes that its owner allows."""
    return Stage(world, directory, world.clock, {SETTING: prefixes} if prefixes else {})


@pytest.mark.parametrize("prefixes", ["eip191", f"{K2},eip191"])
async def test_with_the_setting_it_is_paid_once(prefixes: str, world: World, tmp_path: Path) -> None:
    """The contract takes a plain signed message, and the account is credited."""
    there = stage(world, tmp_path, prefixes)

    done = await there.until(State.DONE)
    assert done.state is State.DONE
    await there.close()
    assert there.payments() == 1


@pytest.mark.parametrize("prefixes", ["", K2])
async def test_without_it_nothing_is_signed_and_the_remedy_names_the_setting(
    prefixes: str, world: World, tmp_path: Path
) -> None:
    """Whoever reads the refusal learns what was found, what was wanted, and which setting decides it."""
    there = stage(world, tmp_path, prefixes)

    rest = await there.step()
    while not there.named("charge_refused"):
        rest = await there.step()
    refused = there.named("charge_refused")[0]
    assert refused.field == "call_data.prefix"
    assert "rails.coinbase.prefixes" in refused.remedy
    assert there.topup.state is State.DROPPED
    assert rest.remedy == refused.remedy
    await there.close()
    assert there.payments() == 0


@pytest.mark.parametrize("told", ["0x", K2, "0x4b32"])
async def test_with_both_allowed_a_signature_that_fits_neither_is_refused(
    told: str, world: World, tmp_path: Path
) -> None:
    """What is allowed is a way to sign; whose signature it is stays to be proven."""
    there = stage(world, tmp_path, f"{K2},eip191")
    if told == "0x":
        world.do(lambda: world.gateway.switch_off("coinbase"))
    ask = there.works.api.charge

    async def bent(request: Any) -> bytes:
        document = json.loads(await ask(request))
        document["data"]["web3_data"]["transfer_intent"]["call_data"]["prefix"] = told
        return json.dumps(document).encode()

    there.works.api.charge = bent  # type: ignore[method-assign]

    while not there.named("charge_refused"):
        await there.step()
    field = there.named("charge_refused")[0].field
    assert field == ("call_data.prefix" if told == "0x4b32" else "call_data.signature")
    await there.close()
    assert there.payments() == 0
