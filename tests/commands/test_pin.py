"""Does `topup pin` show the truth, pin only what was proven around it, and spend nothing? And what does `check` say?"""

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.tools import environ
from tests.world.served import asked
from tests.world.tempo import selling
from topup.app import assembly
from topup.app.funding import named
from topup.app.settings import Settings, load
from topup.commands.answer import Answer
from topup.commands.check import ask_and_decide, ask_live
from topup.commands.pin import propose, remember
from topup.domain.errors import ApiGone, ApiUnknown, ChargeRefused, Exit, PaymentForbidden, SettingsError
from topup.domain.money import Usd
from topup.domain.notes import Note
from topup.ledger.store import SqliteStore
from topup.payment.config import PurchaseOrder
from topup.sandbox.world import World, embedded

NOBODY = "http://127.0.0.1:9"
STRANGER = "0x" + "11" * 20


@pytest.fixture
def world() -> Iterator[World]:
    """A world below the floor."""
    with World(embedded, usage_usd=Decimal(15)) as world:
        yield world


def settings(world: World, directory: Path, **changes: str) -> Settings:
    """The world's settings without a pinned recipient, and with these changes."""
    return load(
        world.environment() | environ(state_dir=str(directory), rails__coinbase__recipients="") | environ(**changes)
    )


def recipient(world: World) -> str:
    return world.operator.terms.recipient.lower()


async def checked(own: Settings, amount: int | None = None) -> Answer:
    return await ask_and_decide(own, PurchaseOrder(None if amount is None else Usd.of(amount)))


async def test_a_recipient_is_shown_proven_around_and_pinned(world: World, tmp_path: Path) -> None:
    """The first proposal is new; once remembered the next one is known, and the rail's pins hold it."""
    own = settings(world, tmp_path)
    first, lines = await propose(own)
    assert (first["recipient"], first["known"]) == (recipient(world), False)
    assert first["total_usdc"] == "5.25"
    assert any(line.startswith("recipient") and "NOT PROVEN" in line for line in lines)
    remember(own, first["recipient"])
    assert (await propose(own))[0]["known"]
    store = SqliteStore.open_reader(tmp_path)
    pinned = assembly.pins(own, store.told(own.account, Note.PINNED)).recipients
    assert pinned == {bytes.fromhex(recipient(world)[2:])}
    assert world.do(lambda: world.balance(world.wallet)) == world.wallet_wei
    remember(own, (await propose(own))[0]["recipient"])
    assert store.told(own.account, Note.PINNED) == recipient(world), "twice is once"
    store.say(own.account, Note.PINNED, STRANGER, 1, "test")
    writer = SqliteStore.open_writer(tmp_path)
    remember(own, first["recipient"])  # while another process holds the ledger
    assert writer.told(own.account, Note.PINNED) == f"{STRANGER},{recipient(world)}", "one stands beside another"
    writer.close()


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ("inflated-total", "call_data.recipient_amount"),
        ("other-contract", "metadata.contract_address"),
        ("refund-elsewhere", "call_data.refund_destination"),
        ("other-currency", "call_data.recipient_currency"),
        ("expired", "call_data.deadline"),
    ],
)
async def test_nothing_is_proposed_from_a_hostile_charge(world: World, tmp_path: Path, fault: str, field: str) -> None:
    """A charge that is wrong anywhere but in its recipient is refused by its field."""
    world.do(lambda: world.gateway.switch_on("coinbase", fault))
    with pytest.raises(ChargeRefused) as refused:
        await propose(settings(world, tmp_path))
    assert refused.value.field == field


async def test_a_recipient_nobody_could_want_is_refused(world: World, tmp_path: Path) -> None:
    """A charge that pays the payment contract itself is not shown for pinning."""
    nobody = replace(world.operator.terms, recipient=world.operator.terms.contract)
    world.do(lambda: setattr(world.operator, "terms", nobody))
    with pytest.raises(ChargeRefused, match="the payment contract"):
        await propose(settings(world, tmp_path))


async def test_a_410_is_remembered_and_not_asked_again(world: World, tmp_path: Path) -> None:
    """After a 410 the endpoint is gone for daemon and pin alike; the second time nothing is requested."""
    own = settings(world, tmp_path)
    world.do(lambda: world.gateway.switch_on("coinbase", "gone-410"))
    for _ in range(2):
        with pytest.raises(ApiGone):
            await propose(own)
    assert world.gateway.count("coinbase") == 1
    assert SqliteStore.open_reader(tmp_path).control(own.account).gone
    assert "it is gone (410, 404 or 501)" in (await checked(own)).lines[0]


async def test_requests_by_hand_count_towards_the_hourly_bound(world: World, tmp_path: Path) -> None:
    """A charge requested by hand uses up the bound, answered or not, and the ledger's count shows it."""
    own = settings(world, tmp_path, policy__charges_per_hour="2")
    await propose(own)
    world.do(lambda: world.gateway.switch_on("coinbase", "answer-lost"))
    with pytest.raises(ApiUnknown):
        await propose(own)
    with pytest.raises(PaymentForbidden, match="2 charges requested within an hour"):
        await propose(own)
    assert len(SqliteStore.open_reader(tmp_path).charge_requests(own.account, 0)) == 2


async def test_pinning_needs_to_know_who_would_pay(world: World, tmp_path: Path) -> None:
    """Nobody could be paid for without key and address: that is said before anything is made, or asked for."""
    own = settings(world, tmp_path / "none", mode="observe")
    bare = own.model_copy(update={"wallet": own.wallet.model_copy(update={"private_key": None})})
    with pytest.raises(SettingsError, match="pinning needs the wallet's address"):
        await propose(bare)
    assert not (tmp_path / "none").exists()
    assert world.gateway.count("coinbase") == 0


async def test_check_says_whether_a_top_up_is_due(world: World, tmp_path: Path) -> None:
    """Below the floor the exit code is 6, in observe mode too, above it 0; no ledger appears, nothing is asked for."""
    due = await checked(settings(world, tmp_path / "none"))
    assert (due.exit, due.document["decision"]) == (Exit.LOW, "buy")
    assert due.lines[0].startswith("would buy 10 dollars of credit: 4.99")
    assert "not simulated" in due.lines[0]
    watching = await checked(settings(world, tmp_path / "none", mode="observe"))
    assert watching.exit == Exit.LOW
    assert "mode is observe" in watching.lines[0]
    rich = settings(world, tmp_path / "none", policy__floor="1")
    assert (await checked(rich)).exit == Exit.OK
    assert (await checked(rich, 20)).exit == Exit.LOW, "an amount asked for is due all the same"
    assert not (tmp_path / "none").exists()
    assert world.gateway.count("coinbase") == 0


async def test_check_changes_nothing_in_the_ledger(world: World, tmp_path: Path) -> None:
    """A look beside a ledger leaves no reading in it, and a pause it holds counts."""
    SqliteStore.open_writer(tmp_path).close()
    store = SqliteStore.open_reader(tmp_path)
    own = settings(world, tmp_path)
    store.say(own.account, "paused", "1", 1, "test")
    held = await checked(own)
    assert (held.exit, held.document["why"]) == (Exit.PERSON, "paused")
    assert store.last_reading(own.account) is None


async def test_check_tells_unknown_and_poor_from_low(world: World, tmp_path: Path) -> None:
    """Exit 4 for what cannot be believed, 3 for an ordinary key and for a wallet that cannot pay what is due."""
    own = settings(world, tmp_path)
    world.do(lambda: world.gateway.switch_on("credits", "nan"))
    assert (await checked(own)).exit == Exit.LATER
    world.do(world.gateway.switch_off)
    world.do(lambda: world.gateway.switch_on("key", "ordinary-key"))
    assert (await checked(own)).exit == Exit.PERSON
    world.do(world.gateway.switch_off)
    world.do(lambda: world.chain.set_balance(world.wallet, 10**15))
    told = await checked(own)
    assert (told.exit, told.document["why"]) == (Exit.PERSON, "wallet_low")
    assert "send at least" in told.lines[0]


async def test_live_status_says_unknown_part_by_part(world: World, tmp_path: Path) -> None:
    """A chain that cannot be asked hides the wallet only, and a missing API key hides the credits only."""
    whole = await ask_live(settings(world, tmp_path))
    assert whole["wallet"] == "1 ETH"
    assert whole["credits"].endswith("dollars")
    assert whole["refills"].startswith("284 of at most 10.55 USDC")
    dark = await ask_live(settings(world, tmp_path, chain__rpc_urls=NOBODY))
    assert dark["credits"].endswith("dollars")
    assert dark["wallet"].startswith("unknown: 127.0.0.1")
    mute = await ask_live(settings(world, tmp_path, api__url=NOBODY))
    assert mute["credits"].startswith("unknown: no_answer")
    assert mute["wallet"] == "1 ETH"


# -- rails whose recipients stand in the settings --------------------------------------------------------------


def pinned(world: World, directory: Path, **changes: str) -> tuple[int, dict[str, Any]]:
    """Run `topup pin --yes --json` on the world's settings with these changes; return exit code and document."""
    done = asked(directory, "pin", "--yes", "--json", **world.environment() | environ(**changes))
    assert done.stdout, done.stderr
    return done.exit_code, json.loads(done.stdout)


def test_pin_says_where_a_machine_payments_recipient_is_named(world: World, tmp_path: Path) -> None:
    """No charge is asked for. Nobody named: exit 3, the setting, and how to see an offer; somebody named: exit 0."""
    code, told = pinned(world, tmp_path, rails__use="mpp", rails__mpp__rpc_urls=NOBODY)
    (mpp,) = told["settings"]
    assert (code, mpp["setting"], mpp["recipients"]) == (Exit.PERSON, "rails.mpp.recipients", [])
    assert "`topup doctor --rail mpp`" in mpp["remedy"]
    one = "0x" + "22" * 20
    code, told = pinned(world, tmp_path, rails__use="mpp", rails__mpp__rpc_urls=NOBODY, rails__mpp__recipients=one)
    assert (code, told["settings"][0]["recipients"], told["settings"][0]["remedy"]) == (Exit.OK, [one], "")
    assert world.gateway.count("coinbase") == 0
    assert not SqliteStore.exists(tmp_path)


def test_pin_says_whom_an_x402_profile_pays(world: World, tmp_path: Path) -> None:
    """Venice's receiver stands in its profile, and the settings replace it."""
    base = {"rails__use": "x402", "api__kind": "x402"}
    (venice,) = named(settings(world, tmp_path, **base))
    assert venice.recipients == ("0x2670b922ef37c7df47158725c0cc407b5382293f",)
    assert "by the profile venice; rails.x402.recipients replaces it" in venice.line()
    (own,) = named(settings(world, tmp_path, **base, rails__x402__recipients="0x" + "33" * 20))
    assert own.line() == f"x402       pays 0x{'33' * 20}, by rails.x402.recipients"


def test_pin_shows_every_rail_beside_the_charge(world: World, tmp_path: Path) -> None:
    """With both in use the charge is shown and pinned as ever, and the other rail's setting beside it."""
    code, told = pinned(world, tmp_path, rails__use="coinbase,mpp", rails__mpp__rpc_urls=NOBODY)
    assert (code, told["recipient"]) == (Exit.OK, recipient(world))
    assert [one["rail"] for one in told["settings"]] == ["mpp"]


async def test_check_asks_tempo_for_what_tempo_pays(world: World, tmp_path: Path) -> None:
    """Base cannot be reached and is not asked: the cost, the fee and the wallet are Tempo's."""
    with selling() as tempo:
        mpp = {"rails__use": "mpp", "rails__mpp__rpc_urls": tempo.rpc.url, "chain__rpc_urls": NOBODY}
        own = settings(tempo, tmp_path, **mpp)
        told, live, dear = await checked(own, 10), await ask_live(own), await checked(own, 24)
        # With an access key the account that pays is the root, which is empty here.
        empty = await checked(settings(tempo, tmp_path, **mpp, rails__mpp__root=STRANGER), 10)
    assert told.exit == Exit.LOW
    assert "at most 10.6 USDC.e and 0." in told.lines[0]
    assert "from a wallet of 25 USDC.e on Tempo" in told.lines[0]
    assert live["wallet"] == "25 USDC.e on Tempo"
    assert live["refills"] == "2 of at most 10.7 USDC.e each, fees included"
    assert "nonce" not in live
    for poor in (dear, empty):
        assert (poor.exit, poor.document["why"]) == (Exit.PERSON, "wallet_low")
    told = await checked(settings(world, tmp_path, rails__use="mpp", rails__mpp__rpc_urls=NOBODY))
    assert told.exit == Exit.LOW, "Tempo is away: a top-up is due all the same"
    assert "whether it can be paid is unknown" in told.lines[0]
