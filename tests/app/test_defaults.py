"""Do the default settings buy, with only key and gateway set, at a provider like the public one that they name?"""

import json
import os

import pytest
from eth_account import Account

from tests.tools import kept
from tests.world.proxy import Proxy, crowded, hurried, ranged
from tests.world.served import TOPUP, Done, Served, ran


@pytest.mark.machine_time
@pytest.mark.slow
def test_the_default_settings_buy_at_a_gateway_that_sells_charges(place: Served) -> None:
    """`pin`, `doctor` without a failure, `once`: exit 0 each, one payment, and the ledger knows of it."""
    encrypted = Account.encrypt(place.world.key.to_bytes(), "open", kdf="scrypt", iterations=2)
    # Who has read the beginning of the README sets nothing that can be left out.
    settings = {
        "TOPUP_MODE": "live",
        "TOPUP_API__URL": place.world.gateway.url,
        "TOPUP_API__KEY": place.world.gateway.management_key,
        "TOPUP_WALLET__KEYSTORE": str(kept(place.directory / "keystore.json", json.dumps(encrypted))),
        "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(kept(place.directory / "password", "open")),
        # What stands in for the world outside, beside the provider: who signs charges there, and this person's home.
        "TOPUP_RAILS__COINBASE__OPERATORS": place.world.operator.address,
        "TOPUP_STATE_DIR": str(place.state),
        "HOME": str(place.directory),
        "PATH": os.environ["PATH"],
    }
    with Proxy(place.world.rpc.url) as wire:
        # As the public endpoint of Base: ten calls in a batch, 2,000 blocks of logs, and a rate.
        wire.on("*", crowded(10))
        wire.on("*", hurried(every=5))
        wire.on("eth_getLogs", ranged(2_000))

        def types(*arguments: str) -> Done:
            done = ran([*TOPUP, *arguments], settings | {"TOPUP_CHAIN__RPC_URLS": wire.url}, timeout_s=300)
            assert done.returncode == 0, done.stdout + done.stderr
            return done

        types("pin", "--yes")
        checks = {one["name"]: one["says"] for one in json.loads(types("doctor", "--json").stdout)["checks"]}
        assert checks["provider 127.0.0.1 batches"].startswith("takes 10 calls in a batch: kept to")
        assert checks["provider 127.0.0.1 rate"].startswith("warning: limits the rate of questions")
        assert not wire.asked("eth_sendRawTransaction")
        types("once", "--amount", "5", "--yes")
        assert wire.asked("eth_sendRawTransaction") == 1
    assert place.payments() == 1
    assert [topup.state.value for topup in place.topups()] == ["done"]
