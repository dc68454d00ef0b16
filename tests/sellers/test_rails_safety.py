"""Does each rule that keeps a rail from paying twice or the wrong party have a test of its own, small and fast?

The sabotages of `tests.proofs.mutants` in the rails are noticed here where no larger test is quick enough.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from eth_keys.datatypes import Signature

from tests.proofs.simulation import Simulation
from tests.world import builders
from tests.world.builders import settled
from tests.world.memory_sellers import KEY, PAYER, SOLD_TO, TEN, Json, asked, mpp_rail, proven, x402_before, x402_rail
from tests.world.stage import Start
from topup.domain import typed_data
from topup.domain.coinbase_charge import parse as parsed
from topup.domain.coinbase_charge import verify
from topup.domain.demand import Request
from topup.domain.dollars import BASE_DOLLAR
from topup.domain.errors import ApiRejected, ChargeRefused, PaymentForbidden, SignerError
from topup.domain.lifecycle import Attempt, Broadcaster, ChargeRow, Kind, State, TopUp
from topup.domain.money import Asset, Usdc, Wei
from topup.payment.config import COINBASE, X402, Route
from topup.ports.rail import Rail
from topup.sandbox.charges import STRANGER, Ask
from topup.sandbox.world import STEPPED, World, embedded
from topup.sandbox.x402 import selling
from topup.sandbox.x402_seller import RECIPIENT, X402Conduct
from topup.sellers import x402
from topup.signers.local import APPROVE, Ceilings, from_private_key
from topup.wire.http import Answered
from topup.wire.secrets import Masker

# -- what an x402 seller offers -----------------------------------------------------------------------------------


def test_what_was_chosen_stays_chosen_whatever_is_pinned_later() -> None:
    """Of two offers the pins decide when they come; what is looked for later is what was signed, no other."""
    offers: list[Json] = [{"payTo": STRANGER}, {}]
    before, _ = x402_before(offers)
    raw = asyncio.run(before.ask(asked(8453)))
    after, _ = x402_before(offers, pinned=frozenset({bytes.fromhex(STRANGER[2:])}))
    assert before.read(raw).recipient == after.read(raw).recipient == SOLD_TO
    asyncio.run(before.prove(raw, asked(8453), seen=()))
    with pytest.raises(ChargeRefused, match="recipient"):
        asyncio.run(after.prove(raw, asked(8453), seen=()))


def test_an_answer_of_which_nothing_was_chosen_is_never_paid() -> None:
    """Two that differ, refused when they came, are refused for ever: later pins decide of later answers alone."""
    offers: list[Json] = [{"payTo": STRANGER}, {}]
    both = frozenset({SOLD_TO, bytes.fromhex(STRANGER[2:])})
    before, _ = x402_before(offers, pinned=both)
    raw = asyncio.run(before.ask(asked(8453)))
    for rail in (before, x402_before(offers)[0]):
        with pytest.raises(ChargeRefused, match="accepts") as refused:
            rail.read(raw)
        assert refused.value.remedy


def test_an_answer_stored_before_choices_were_reads_as_it_did() -> None:
    """A ledger of an older program may hold a payment under way: the first offer in our token is what it signed."""
    rail, _ = x402_before([{"network": "base-sepolia"}, {}, {"payTo": STRANGER}])
    kept = json.loads(asyncio.run(rail.ask(asked(8453))))
    for name in ("choice", "usd", "request", "carrier", "assumed"):
        del kept[name]
    demand = rail.read(json.dumps(kept).encode())
    assert (demand.recipient, demand.offer.index, demand.request) == (SOLD_TO, 1, None)


def test_an_honest_offer_is_proven() -> None:
    """What the next test refuses differs in one thing from what is taken."""
    rail, _ = x402_rail()
    verified, _ = asyncio.run(proven(rail, asked(8453)))
    assert (verified.demand.recipient, verified.total) == (SOLD_TO, Usdc(TEN))
    # What we choose ends a minute before the longest life, so that no lag between two clocks refuses it.
    rail, _ = x402_rail(maxTimeoutSeconds=900)
    verified, _ = asyncio.run(proven(rail, asked(8453)))
    assert verified.demand.deadline == builders.NOW_S + 840


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"extra": {"name": "USDC", "version": "2"}}, "extra.name"),
        ({"payTo": STRANGER}, "recipient"),
        ({"maxAmountRequired": str(2 * TEN)}, "amount"),
        ({"asset": STRANGER}, "accepts"),
        ({"network": "base-sepolia"}, "accepts"),
        ({"maxTimeoutSeconds": 1}, "expires"),
    ],
    ids=str,
)
def test_an_offer_with_one_thing_wrong_is_refused(change: Json, field: str) -> None:
    """One thing wrong is enough, and it is the thing that is named."""
    rail, _ = x402_rail(**change)
    with pytest.raises(ChargeRefused) as refused:
        asyncio.run(proven(rail, asked(8453)))
    assert refused.value.field == field


def test_an_answer_that_repeats_the_key_is_not_kept() -> None:
    """What is answered to an unpaid request is stored byte for byte: a key that it echoes must not be in it."""
    rail = mpp_rail({}, {}, {"description": "you said Bearer sk-secret"}, key="sk-secret")
    with pytest.raises(ApiRejected, match="repeats the API key"):
        asyncio.run(rail.ask(asked(4217)))


KEY_TOLD = "sk-secret-0123"
ECHOES = [
    # Whoever told it to him: a seller to whom we log in has no key of ours, and none may stand in what is kept.
    Answered("/credits", 402, (), json.dumps({"note": KEY_TOLD}).encode()),
    # Headers of both protocols are base64 of JSON: a key inside is seen wherever it stands, padded or not.
    *(
        Answered("/credits", 402, (("www-authenticate", f'Payment id="a", request="{encoded}"'),), b"")
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode)
        for padding in ("", " ", "  ")
        for plain in (f'{{"error":"{padding}Bearer {KEY_TOLD}\xff is unpaid"}}'.encode("latin-1"),)
        for encoded in (alphabet(plain).decode().rstrip("="),)
    ),
]


@pytest.mark.parametrize("answered", ECHOES)
def test_a_secret_that_this_seller_was_never_told_is_not_kept_either(answered: Answered) -> None:
    """As it is, or in base64."""
    rail, _ = x402_rail()
    rail._seller = replace(rail._seller, ours=Masker([KEY_TOLD]))
    with pytest.raises(ApiRejected, match="repeats the API key"):
        rail._unpaid(answered)
    rail._seller = replace(rail._seller, ours=Masker(["sk-another-0123"]))
    rail._unpaid(answered)


LONG_KEY = "sk-or-v1-" + "5ec7e79a" * 8
NAMES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "base64": lambda key: base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode(),
    "a part": lambda key: key[9:40],
    "behind something": lambda key: f"x-{key}",
}


@pytest.mark.parametrize("write", NAMES.values(), ids=NAMES)
def test_a_purchase_is_never_called_by_the_key(write: Callable[[str], str]) -> None:
    """What the seller calls a purchase is kept, shown to support and asked for by name: the key is not taken for it.

    Wherever he names it, and however the key is written.
    """
    name = write(LONG_KEY)
    place = "/credits/purchases"
    for answered in (
        Answered(place, 200, (), json.dumps({"id": name}).encode()),
        Answered(place, 200, (), json.dumps({"data": {"id": name}}).encode()),
        Answered(place, 201, (("location", f"https://seller.example{place}/{name}"),), b"{}"),
        Answered(place, 403, (), json.dumps({"error": {"metadata": {"purchase_id": name}}}).encode()),
    ):
        assert mpp_rail({}, {}, {}, key=LONG_KEY)._receipt(answered)[1] == ""
        assert mpp_rail({}, {}, {}, key="another-key-altogether")._receipt(answered)[1] == name


async def test_what_is_signed_ends_when_it_was_judged_to_end() -> None:
    """The signature is over the very deadline that was proven, and over nothing later."""
    one = BASE_DOLLAR
    domain = typed_data.Domain(one.name, one.version, one.chain_id, one.token)
    ceilings = Ceilings(8453, b"\x03" * 20, Wei(0), Wei(0), tokens=Usdc(TEN), domains=frozenset({domain}))
    rail, _ = x402_rail(from_private_key("0x" + KEY.hex(), ceilings))
    verified, preflight = await proven(rail, asked(8453))
    raw, nonce = rail.sign(await rail.plan(verified, preflight), verified)
    ask = verified.demand
    assert isinstance(ask, x402.Ask)
    assert nonce == ask.nonce
    payload = json.loads(base64.b64decode(raw.split(b": ")[1]))["payload"]
    rsv = bytes.fromhex(payload["signature"][2:])
    digest = typed_data.authorization_digest(domain, ask.authorization)
    signature = Signature(rsv[:64] + bytes([rsv[64] - 27]))
    assert signature.recover_public_key_from_msg_hash(digest).to_canonical_address() == PAYER
    assert ask.deadline == builders.NOW_S + 300 == int(payload["authorization"]["validBefore"])


# -- what a seller on Tempo demands -------------------------------------------------------------------------------


def test_an_honest_challenge_is_proven() -> None:
    """What the next test refuses differs in one thing from what is taken."""
    verified, _ = asyncio.run(proven(mpp_rail({}, {}, {}), asked(4217)))
    assert (verified.demand.recipient, verified.total) == (SOLD_TO, Usdc(TEN))


@pytest.mark.parametrize(
    ("details", "told", "shown", "field"),
    [
        ({}, {}, {"realm": "other.example"}, "realm"),
        ({}, {"recipient": STRANGER}, {}, "recipient"),
        ({}, {"currency": STRANGER}, {}, "token"),
        ({"chainId": 42431}, {}, {}, "chain id"),
        ({"splits": [{"recipient": STRANGER, "amount": "1"}]}, {}, {}, "request.methodDetails.splits"),
        ({"memo": "0x" + "ab" * 32}, {}, {}, "request.methodDetails.memo"),
        ({"feePayer": True}, {}, {}, "request.methodDetails.feePayer"),
        ({}, {"amount": str(2 * TEN)}, {}, "amount"),
    ],
    ids=["realm", "recipient", "token", "chain", "splits", "memo", "sponsored", "amount"],
)
def test_a_challenge_with_one_thing_wrong_is_refused(details: Json, told: Json, shown: Json, field: str) -> None:
    """One thing wrong is enough, and it is the thing that is named."""
    with pytest.raises(ChargeRefused) as refused:
        asyncio.run(proven(mpp_rail(details, told, shown), asked(4217)))
    assert refused.value.field == field


async def test_every_attempt_of_a_purchase_is_on_its_one_lane() -> None:
    """However often it is asked, one purchase has one lane, on which the chain runs one transaction."""
    rail, lanes = mpp_rail({}, {}, {}), []
    for purchase in ("t1", "t1", "t2"):
        verified, preflight = await proven(rail, asked(4217, purchase))
        lanes.append((await rail.plan(verified, preflight)).lane)
    first, again, other = lanes
    assert first == again != other


# -- after it has left --------------------------------------------------------------------------------------------


def out(rail: x402.X402, *, success: bool | None) -> TopUp:
    """A top-up whose authorization has left and, unless None, was used with this success."""
    raw = asyncio.run(rail.ask(asked(8453)))
    plan = builders.plan(broadcaster=Broadcaster.SERVER, lane=1, nonce=0)
    told = None if success is None else builders.inclusion(success=success)
    one = Attempt(1, 1, plan, b"", b"\x05" * 32, 1, 1, 1, withdrawn=False, inclusion=told, booked=False)
    return builders.topup(charges=(ChargeRow(1, 1, raw, None, proven=True),), attempts=(one,))


def test_the_mark_of_what_ran_and_failed_is_no_payment() -> None:
    """It was used up and moved nothing; where the chain has not shown that, the mark stays what it is."""
    rail, _ = x402_rail()
    assert not asyncio.run(settled(rail.payment_status(out(rail, success=False), 1))).flag
    assert asyncio.run(settled(rail.payment_status(out(rail, success=None), 1))).flag


def test_the_key_approves_exactly_the_total() -> None:
    """An approval of more than is due is refused by the key itself, whoever plans it."""
    one = builders.operator()
    contract, token = builders.address(one.terms.contract), BASE_DOLLAR.token
    ceilings = Ceilings(8453, contract, Wei(10**16), Wei(10**16), token=token, tokens=Usdc(20_000_000))
    key = from_private_key("0x" + KEY.hex(), ceilings)
    raw = builders.raw_of(one.charge(Ask(Decimal(10), key._account.address, 8453, builders.NOW_S)))
    request = replace(builders.request(), sender=key.address)
    charge = verify(parsed(raw), request, builders.pins_for(one), builders.CLOCKS, seen=builders.unseen)

    def approval(units: int) -> Any:
        data = APPROVE + contract.rjust(32, b"\0") + units.to_bytes(32, "big")
        plan = builders.plan(kind=Kind.APPROVE, to=token, data=data, value=Wei(0))
        return replace(plan, asset=Asset.USDC, tokens=charge.total)

    assert key.sign_payment(approval(charge.total.units), charge)
    for units in (2**256 - 1, charge.total.units + 1):
        with pytest.raises(SignerError, match="call data"):
            key.sign_payment(approval(units), charge)


@pytest.fixture
def world() -> Iterator[World]:
    """A world with a seller for x402 that posts after ten seconds."""
    sold_by = selling("plain", conduct=X402Conduct(posting_delay_ms=10_000))
    with World(embedded, scale=STEPPED, make_gateway=sold_by) as made:
        yield made


async def test_a_402_after_settling_is_not_called_unpaid(world: World, start: Start) -> None:
    """The seller settles and asks for money once more: the chain's word counts, and nothing else is signed."""
    seller: Any = world.gateway
    stage = start(seller.environment())
    world.do(lambda: seller.switch_on("payment", "settled-payment-required-402"))
    topup = await stage.until(State.DONE)
    assert [a.answer.partition(":")[0] for a in topup.out] == ["refused"]
    assert world.do(lambda: world.usdc(RECIPIENT)) == TEN


async def test_what_was_used_is_found_by_its_log_and_planned_with_no_more(world: Any, start: Start) -> None:
    """The chain names who carried it; and what was used is refused before anything is signed again."""
    stage = start(world.gateway.environment())
    topup = await stage.until(State.DONE)
    (one,), rail = topup.out, stage.works.rail()
    stage.works.cycle._budget.renew()  # type: ignore[union-attr]  # as a pass does
    assert (await settled(rail.payment_status(topup, 1))).payers == {one.tx_hash}
    assert one.tx_hash != one.hash
    request = Request(topup.amount, topup.wallet, topup.chain_id, topup.id)
    with pytest.raises(PaymentForbidden, match="was used already"):
        await rail.prove(topup.raw_of(one), request, seen=())


# -- several rails ------------------------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Simulation]:
    """A calm world that sells for authorizations, whose owner prefers Coinbase charges; nobody may touch those."""
    world = Simulation(2, tmp_path)
    world.calm, world.api.trouble, world.seller.honest = True, 0.0, True

    def rail(name: str) -> Rail:
        assert name == X402, f"{name} has no part in what began by {X402}"
        return world.payer

    world.cycle = world.cycle_of([Route(name, builders.CHAIN_ID) for name in (COINBASE, X402)], rail)
    yield world
    world.store.close()


async def until(world: Simulation, *states: State) -> TopUp:
    for _ in range(200):
        await world.step()
        (found, *_) = [*world.store.latest("default", 1), None]
        if found is not None and found.state in states:
            return found
    raise AssertionError(found)


async def test_a_rail_that_is_gone_leaves_the_others_alone(both: Simulation) -> None:
    """A tombstone stands for one rail: the next purchase goes to the other."""
    both.store.set_gone("default", COINBASE, gone=True, at_ms=both.store.now_ms(both.clock.now_ms()))
    topup = await until(both, State.DONE)
    assert topup.rail == X402


async def test_a_top_up_ends_on_the_rail_it_began_on(both: Simulation) -> None:
    """Its rail is gone, another one sells again: what is out is pursued where it is, and bought nowhere else."""
    now = both.store.now_ms(both.clock.now_ms())
    both.store.set_gone("default", COINBASE, gone=True, at_ms=now)
    both.net.mining = False
    begun = await until(both, State.SENT)
    both.store.set_gone("default", X402, gone=True, at_ms=now)
    both.store.set_gone("default", COINBASE, gone=False, at_ms=now)
    both.net.mining = True
    both.store.say("default", "paused", "1", now, "a test")
    ended = await until(both, State.DONE)
    assert (ended.id, ended.rail, len(ended.out)) == (begun.id, X402, 1)
