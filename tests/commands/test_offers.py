"""What does `topup doctor --rail` show of a seller's offer, and does it cost nothing?"""

from pathlib import Path
from typing import Any

import pytest

from tests.tools import environ
from tests.world.tempo import held, selling, stage_of
from topup.app.settings import Settings, load
from topup.commands import offers
from topup.domain.errors import SettingsError
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling as selling_as
from topup.sandbox.x402_seller import RECIPIENT as SELLS_FOR

pytestmark = pytest.mark.machine_time


async def shown(settings: Settings, rail: str) -> dict[str, Any]:
    """The document of a look at what a seller offers; `lines` is what a terminal shows of it."""
    SqliteStore.open_writer(settings.state_dir).close()
    told = await offers.look(settings, rail, Usd.of(10))
    return told | {"lines": "\n".join(offers.lines(told))}


async def challenged(tmp_path: Path, fault: str = "", **more: str) -> dict[str, Any]:
    """Look at a seller whose challenge is spoilt in this way; the wallet is as it was."""
    with selling() as world:
        gateway: Any = world.gateway
        if fault:
            world.do(lambda: gateway.switch_on("challenge", fault))
        own = environ(state_dir=str(tmp_path), rails__use="mpp", rails__mpp__rpc_urls=world.rpc.url)
        told = await shown(load(world.environment() | own | more), "mpp")
        stage = stage_of(world, tmp_path)
        assert held(stage, world.wallet) == 25_000_000
        await stage.close()
    return told


async def test_a_machine_payment_is_shown_and_not_made(tmp_path: Path) -> None:
    """Every parameter, every line of the proof, the seller's own texts."""
    told = await challenged(tmp_path)
    assert told["fits"], told["proof"]
    assert told["same_recipient"]
    assert told["offer"]["chain_id"] == 4217
    assert all(line["right"] for line in told["offer"]["lines"])
    assert any(told["texts"].values())
    text = told["lines"]
    assert "realm" in text
    assert "every line fits" in text


async def test_a_challenge_that_does_not_fit_says_where(tmp_path: Path) -> None:
    """The seller wants to split the payment: the line that is wrong is named.

    A seller's own name for itself is no sign of a dishonest one, nor is a fee that it pays: each names the setting with
    which it fits.
    """
    told = await challenged(tmp_path, "splits")
    assert not told["fits"]
    assert "splits" in told["proof"]
    assert "NOT SO  request.methodDetails.splits" in told["lines"]
    told = await challenged(tmp_path, "other-realm")
    assert not told["fits"]
    assert "rails.mpp.realm" in told["remedy"]
    assert "NOT SO  realm: pay.example, it should be 127.0.0.1; to do: set rails.mpp.realm" in told["lines"]
    assert (await challenged(tmp_path, "other-realm", TOPUP_RAILS__MPP__REALM="pay.example"))["fits"]
    told = await challenged(tmp_path, "fee-payer")
    assert "rails.mpp.sponsored = true pays an offer whose fee the seller pays" in told["remedy"]
    assert (await challenged(tmp_path, "fee-payer", TOPUP_RAILS__MPP__SPONSORED="true"))["fits"]


async def test_every_way_to_pay_is_shown(tmp_path: Path) -> None:
    """OUSD, MACH, a session, USDC.e and a card: each decoded, one said to be paid, the others with the reason."""
    told = await challenged(tmp_path, "ousd-first")
    assert told["fits"], told["proof"]
    ways = told["offer"]["ways"]
    assert [(w["method"], w["intent"], w["paid"]) for w in ways] == [
        ("tempo", "charge", False),
        ("tempo", "charge", False),
        ("tempo", "session", False),
        ("tempo", "charge", True),
        ("stripe", "charge", False),
    ]
    text = told["lines"]
    assert "NOT SO  token: OUSD (0x20c0" in text
    assert "to do: rails.mpp.pay_with" in text
    assert "token: MACH (0x20c0" in text
    assert "tempo charge, 10 of 0x20c000000000000000000000b9537d11c60e8b50" in text
    assert text.count("would be paid") == 1
    assert "missing" not in text


async def test_what_was_not_seen_is_not_said(tmp_path: Path) -> None:
    """Where no recipient was read nothing is said of it, and a header of two readings is not taken apart."""
    told = await challenged(tmp_path, "duplicate-parameter")
    assert told["same_recipient"] is None
    assert told["offer"]["ways"] is None
    text = told["lines"]
    assert "no recipient was read when asked again" in text
    assert "another recipient" not in text
    assert "given twice" in text and "to do      tell the seller" in text


async def offered(
    tmp_path: Path, fault: str = "", seller: str = "venice", code: bytes = b"", **more: str
) -> dict[str, Any]:
    """Look at an x402 seller whose answer is spoilt in this way, by a wallet with this code; nothing moves."""
    with World(embedded, scale=10, make_gateway=selling_as(seller)) as world:
        gateway: Any = world.gateway
        world.do(lambda: world.chain.set_code(world.wallet, code))
        if fault:
            world.do(lambda: gateway.switch_on("offer", fault))
        own = gateway.environment() | environ(state_dir=str(tmp_path)) | more
        told = await shown(load(world.environment() | own), "x402")
        assert world.do(lambda: world.usdc(SELLS_FOR)) == 0
    return told


async def test_every_x402_offer_is_shown(tmp_path: Path) -> None:
    """What is judged right is said to be paid; of each other what, what instead, and why; and nothing is taken."""
    told = await offered(tmp_path)
    assert told["fits"], told["proof"]
    assert told["offer"]["amount"] == "10"
    told = await offered(tmp_path, "crowd")
    assert told["fits"], told["proof"]
    ways = told["offer"]["ways"]
    assert [way["paid"] for way in ways] == [False, False, False, True, False, False, False]
    assert all(way["refused"] and way["remedy"] for way in ways if not way["paid"])
    assert all(line["remedy"] for way in ways for line in way["lines"] if not line["right"])
    text = told["lines"]
    assert text.count("would be paid") == 1
    permit2 = "extra.assetTransferMethod: permit2, it should be eip3009; to do: nothing decides it: Permit2"
    assert f"NOT SO  {permit2}" in text
    assert "NOT SO  accepts[2].payTo: 'facilitator', it should be 0x and 40 hex digits" in text
    assert "venice, read in veniceai/api-docs" in text and "documented, not tried" in text
    assert "missing" not in "\n".join(line for line in text.splitlines() if line.startswith("ok"))


async def test_an_x402_recipient_that_is_not_pinned_names_its_setting(tmp_path: Path) -> None:
    """Nobody is called dishonest: the found one, the wanted one, and the setting that decides."""
    told = await offered(tmp_path, TOPUP_RAILS__X402__RECIPIENTS="0x" + "ab" * 20)
    assert not told["fits"]
    assert not any(way["paid"] for way in told["offer"]["ways"])
    assert "rails.x402.recipients" in told["remedy"]
    assert "NOT SO  payTo: " in told["lines"]


async def test_of_an_unreadable_x402_answer_nothing_is_said_but_what_came(tmp_path: Path) -> None:
    """A name that is given twice refuses the whole: no recipient is spoken of, and the remedy is there."""
    told = await offered(tmp_path, "duplicate-keys", seller="plain")
    assert told["offer"]["ways"] is None
    assert told["same_recipient"] is None
    text = told["lines"]
    assert "another recipient" not in text
    assert "given twice" in text and "to do      tell the seller" in text
    assert '"payTo":' in text, "the body is shown as it came"


async def test_a_wallet_with_code_is_told_who_judges_its_signatures(tmp_path: Path) -> None:
    """Who asks the code of an account that handed itself to a contract may refuse its key; without code, nothing."""
    told = await offered(tmp_path, code=bytes.fromhex("ef0100" + "cd" * 20))
    text = told["lines"]
    assert "hands itself to 0x" + "cd" * 20 + " (EIP-7702)" in text
    assert "ERC-1271" in text
    assert told["fits"], "a warning: the code may well know the key"
    assert (await offered(tmp_path / "plain"))["wallet"] == ""


async def test_a_charge_is_not_asked_for_here(tmp_path: Path) -> None:
    """Each request for a Coinbase charge is one: `topup pin` is the place for that."""
    with World(embedded) as world:
        settings = load(world.environment() | environ(state_dir=str(tmp_path)))
        with pytest.raises(SettingsError, match="no free offer"):
            await shown(settings, "coinbase")
