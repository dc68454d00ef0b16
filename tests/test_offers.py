"""What does `topup doctor --rail` show of a seller's offer, and does it cost nothing?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.test_mpp import held, selling, stage_of
from topup import offers
from topup.errors import SettingsError
from topup.money import Usd
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling as selling_as
from topup.sandbox.x402_seller import RECIPIENT as SELLS_FOR
from topup.settings import Settings, load
from topup.store.sqlite import SqliteStore

pytestmark = pytest.mark.machine_time


def shown(settings: Settings, rail: str) -> dict[str, Any]:
    """Look once, on a ledger that exists."""
    SqliteStore.open_writer(settings.state_dir).close()
    return asyncio.run(offers.look(settings, rail, Usd.of(10)))


def test_a_machine_payment_is_shown_and_not_made(tmp_path: Path) -> None:
    """Every parameter, every line of the proof, the seller's own texts; the wallet is as it was."""
    with selling() as world:
        own = {"TOPUP_RAILS__USE": "mpp", "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url}
        environment = world.environment() | own | {"TOPUP_STATE_DIR": str(tmp_path), "TOPUP_CONFIG": "/dev/null"}
        told = shown(load(environment), "mpp")
        stage = stage_of(world, tmp_path)
        assert held(stage, world.wallet) == 25_000_000
        asyncio.run(stage.close())
    assert told["fits"], told["proof"]
    assert told["same_recipient"]
    assert told["offer"]["chain_id"] == 4217
    assert all(line["right"] for line in told["offer"]["lines"])
    assert any(told["texts"].values())
    text = "\n".join(offers.lines(told))
    assert "realm" in text
    assert "every line fits" in text


def test_a_challenge_that_does_not_fit_says_where(tmp_path: Path) -> None:
    """The seller wants to split the payment: the line that is wrong is named."""
    with selling() as world:
        gateway: Any = world.gateway
        world.do(lambda: gateway.switch_on("challenge", "splits"))
        own = {"TOPUP_RAILS__USE": "mpp", "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url}
        environment = world.environment() | own | {"TOPUP_STATE_DIR": str(tmp_path), "TOPUP_CONFIG": "/dev/null"}
        told = shown(load(environment), "mpp")
    assert not told["fits"]
    assert "splits" in told["proof"]
    assert "NOT SO  request.methodDetails.splits" in "\n".join(offers.lines(told))


def test_an_x402_offer_is_shown_and_not_taken(tmp_path: Path) -> None:
    """Venice's minimum, token and recipient, judged; nothing moves."""
    with World(embedded, scale=10, make_gateway=selling_as("venice")) as world:
        gateway: Any = world.gateway
        own = gateway.environment() | {"TOPUP_STATE_DIR": str(tmp_path), "TOPUP_CONFIG": "/dev/null"}
        told = shown(load(world.environment() | own), "x402")
        assert world.do(lambda: world.usdc(SELLS_FOR)) == 0
    assert told["fits"], told["proof"]
    assert told["offer"]["amount"] == "10"


def test_a_charge_is_not_asked_for_here(tmp_path: Path) -> None:
    """Each request for a Coinbase charge is one: `topup pin` is the place for that."""
    with World(embedded) as world:
        settings = load(world.environment() | {"TOPUP_STATE_DIR": str(tmp_path), "TOPUP_CONFIG": "/dev/null"})
        with pytest.raises(SettingsError, match="no free offer"):
            shown(settings, "coinbase")
