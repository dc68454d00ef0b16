"""Do the default settings buy, with only key and gateway set, at a provider like the public one that they name?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from eth_account import Account

from tests.world.proxy import Proxy, crowded, hurried, ranged
from tests.world.served import TOPUP, Done, Served, ran, served
from topup.app.settings import Settings, load

pytestmark = [pytest.mark.machine_time, pytest.mark.slow]
PUBLIC: Final = "https://mainnet.base.org"
SPENDING: Final = ("eth_sendRawTransaction",)


def as_public(wire: Proxy) -> None:
    """Behave as the public endpoint of Base does: ten calls in a batch, 2,000 blocks of logs, and a rate."""
    wire.on("*", crowded(10))
    wire.on("*", hurried(every=5))
    wire.on("eth_getLogs", ranged(2_000))


class Newcomer:
    """Who has read the beginning of the README, and sets nothing that can be left out."""

    def __init__(self, place: Served, wire: Proxy) -> None:
        self.place, self.wire = place, wire
        keystore, password = place.directory / "keystore.json", place.directory / "password"
        encrypted = Account.encrypt(place.world.key.to_bytes(), "open", kdf="scrypt", iterations=2)
        for file, text in ((keystore, json.dumps(encrypted)), (password, "open")):
            file.write_text(text, encoding="utf-8")
            file.chmod(0o600)
        self.settings = {
            "TOPUP_MODE": "live",
            "TOPUP_API__URL": place.world.gateway.url,
            "TOPUP_API__KEY": place.world.gateway.management_key,
            "TOPUP_WALLET__KEYSTORE": str(keystore),
            "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(password),
        }
        # What stands in for the world outside: the provider, who signs charges there, and this person's home.
        self.world = {
            "TOPUP_CHAIN__RPC_URLS": wire.url,
            "TOPUP_RAILS__COINBASE__OPERATORS": place.world.operator.address,
            "TOPUP_STATE_DIR": str(place.state),
            "HOME": str(place.directory),
            "PATH": os.environ["PATH"],
        }

    def types(self, *arguments: str) -> Done:
        return ran([*TOPUP, *arguments], self.settings | self.world, timeout_s=300)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    with served(tmp_path) as place, Proxy(place.world.rpc.url) as wire:
        as_public(wire)
        yield Newcomer(place, wire)


def test_the_defaults_are_the_public_provider_and_the_rail_of_the_host(newcomer: Newcomer) -> None:
    """What is replaced here is one URL of that name; nothing else of chain and rail is set but who signs charges.

    The gateway here is no host that sells by another rail.
    """
    own = newcomer.settings | {"HOME": newcomer.world["HOME"], "TOPUP_CONFIG": os.devnull}
    settings = load(own)
    assert settings.chain == Settings.model_fields["chain"].default
    assert settings.chain.rpc_urls == (PUBLIC,)
    assert settings.rails == Settings.model_fields["rails"].default
    assert settings.rails_in_use == ("coinbase",)


def test_the_default_settings_buy_at_a_gateway_that_sells_charges(newcomer: Newcomer) -> None:
    """`pin`, `doctor` without a failure, `once`: exit 0 each, one payment, and the ledger knows of it."""
    pinned = newcomer.types("pin", "--yes")
    assert pinned.returncode == 0, pinned.stdout + pinned.stderr
    looked = newcomer.types("doctor", "--json")
    checks = {one["name"]: one for one in json.loads(looked.stdout)["checks"]}
    assert looked.returncode == 0, [one for one in checks.values() if not one["ok"]]
    assert checks["provider 127.0.0.1 batches"]["says"].startswith("takes 10 calls in a batch: kept to")
    assert checks["provider 127.0.0.1 rate"]["says"].startswith("warning: limits the rate of questions")
    assert not any(newcomer.wire.asked(method) for method in SPENDING)
    bought = newcomer.types("once", "--amount", "5", "--yes")
    assert bought.returncode == 0, bought.stdout + bought.stderr
    assert newcomer.place.payments() == 1
    assert [topup.state.value for topup in newcomer.place.topups()] == ["done"]
    assert newcomer.wire.asked("eth_sendRawTransaction") == 1
