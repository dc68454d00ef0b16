"""Is a payment that is out there looked for before the key is opened?"""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from eth_account import Account

from tests.world.stage import Start
from topup.app import keys
from topup.app.keys import LateSigner
from topup.domain.errors import SignerError
from topup.domain.lifecycle import State
from topup.sandbox.world import World


def keystore(world: World, folder: Path) -> dict[str, str]:
    """Settings with the world's key in a keystore file instead of the environment."""
    path, password = folder / "key.json", folder / "password"
    path.write_text(json.dumps(Account.encrypt(world.key.to_bytes(), "a password", iterations=2)))
    password.write_text("a password")
    return {"TOPUP_WALLET__KEYSTORE": str(path), "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE": str(password)}


async def test_a_restart_finds_a_payment_with_the_key_still_closed(
    world: World, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are stored, so that nothing has to be signed: the payment is found, posted and booked."""
    plain, own = world.environment(), keystore(world, tmp_path)
    del plain["TOPUP_WALLET__PRIVATE_KEY"]
    monkeypatch.setattr(world, "environment", lambda: plain)
    world.mining = False
    stage = start(own)
    await stage.until(State.SENT)
    await stage.close()
    world.mining = True

    def closed(*_: object) -> None:
        raise AssertionError("the key was opened")

    monkeypatch.setattr(keys, "signer", closed)
    stage = start(own)
    await stage.until(State.DONE)


def test_a_key_of_another_wallet_signs_nothing() -> None:
    """Whose wallet it is was read from a file that is not secret: the key itself has the last word."""

    class Other:
        address = b"\x01" * 20

    with pytest.raises(SignerError, match="belongs to"):
        LateSigner(b"\x02" * 20, Other).sign_login("")  # type: ignore[arg-type]


def test_a_key_is_opened_to_sign_and_for_nothing_else() -> None:
    """Whoever looks for something else in it, as a copy or a debugger does, opens nothing and sees nothing."""

    def opening() -> None:
        raise AssertionError("the key was opened")

    late = LateSigner(b"\x02" * 20, opening)
    assert not any(hasattr(late, name) for name in ("_account", "_key", "__deepcopy__", "key"))
    assert copy.copy(late).address == late.address


def test_neither_web3_nor_a_keystore_is_needed_to_look() -> None:
    """What looks at the chain and sends stored bytes again loads without them, which is most of a restart."""
    looks = "import sys, topup.chain.contract_chain, topup.chain.broadcast, topup.sellers.coinbase, topup.payment.cycle"
    code = f"{looks}; print('web3' in sys.modules, 'eth_account' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False"]
