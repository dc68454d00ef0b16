"""What becomes of a payment that is late, outbid, cancelled, expired or given up? Stories on the embedded chain."""

import sqlite3
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.world.house import Killed
from tests.world.stage import EXPIRY_MS, Shifted, Stage, Start, evm, price, two
from tests.world.stand import failing
from topup.domain.coinbase_charge import parse
from topup.domain.credits import HOUR_MS
from topup.domain.lifecycle import Attempt, State, TopUp
from topup.domain.money import Bps
from topup.payment import tracking
from topup.ports.chain import Sent
from topup.sandbox import contracts
from topup.sandbox.rpc import Intercept, Next, RpcError
from topup.sandbox.world import World


def underpriced(sent: list[Any]) -> bool:
    """Tell whether a payment outbids an eighth of what it replaces, on both fees."""
    fees = [(a.plan.max_fee_per_gas.units, a.plan.max_priority_fee_per_gas.units) for a in sent]
    return any(8 * new < 9 * old for pair in pairwise(fees) for old, new in zip(*pair, strict=True))


async def test_a_late_payment_is_outbid_at_its_own_nonce_and_paid_once(world: World, stage: Stage) -> None:
    """Nothing is mined for a while: a dearer payment of the same charge, at least an eighth more on both fees."""
    world.mining = False
    topup = await stage.outbid(3)
    assert {(a.nonce_slot, a.charge_seq) for a in topup.out} == {(topup.out[0].nonce_slot, 1)}
    assert not underpriced(list(topup.out))
    done = await stage.paid_once()
    assert done.paying is not None
    assert done.paying.id == topup.out[2].id


async def test_what_was_outbid_and_is_mined_after_all_is_the_payment(stage: Stage) -> None:
    """A dearer payment is held back and the first is mined: paid once, and the other can never be."""
    first = (await stage.out()).out[0]
    await stage.outbid()
    stage.mine_only(first)
    done = await stage.paid_once()
    assert done.paying is not None
    assert done.paying.id == first.id


async def test_a_refused_bump_leaves_what_is_out_on_its_way(world: World, stage: Stage) -> None:
    """The node calls every replacement underpriced: the first bytes are sent again and again, and are mined."""
    first = (await stage.out()).out[0]
    world.rpc.intercept = says("replacement transaction underpriced", but=first.raw)
    await stage.outbid()
    stage.inside(world.chain.drop_pending)
    await stage.steps(20)
    done = await stage.paid_once()
    assert done.paying is not None
    assert done.paying.id == first.id


async def test_no_bump_goes_beyond_the_ceiling_on_the_gas_price(start: Start) -> None:
    """A replacement is a payment: the owner's ceilings hold for it, and it is said why nothing is outbid."""
    stage = start()
    first = (await stage.out()).out[0]
    await stage.close()
    stage = start({"TOPUP_FEES__GAS_PRICE_MAX_GWEI": str(Decimal(first.plan.max_fee_per_gas.units + 1) / 10**9)})
    await stage.steps(40)
    assert [a.id for a in stage.topup.out] == [first.id]
    assert [e.why for e in stage.named("bump_held")] == ["gas_price"]
    await stage.paid_once()


async def test_no_bump_goes_beyond_the_multiple_of_what_is_asked_now(start: Start) -> None:
    """Fees have not risen, so outbidding costs more than once what the chain asks: what is out goes on as it is."""
    stage = start({"TOPUP_FEES__BUMP_TIMES_MAX": "1"})
    await stage.out()
    await stage.steps(40)
    assert [e.why for e in stage.named("bump_held")] == ["bump_ceiling"]
    assert len(stage.topup.out) == 1
    assert stage.topup.out[0].sends > 1
    await stage.paid_once()


async def test_a_bump_sends_what_the_charge_costs_by_then(world: World, stage: Stage) -> None:
    """Ether has become cheaper: the bump is quoted anew, and each attempt keeps the value it was signed with."""
    before = (await stage.out()).out[0].plan
    world.do(lambda: price(world, 99))
    first, second = (a.plan for a in (await stage.outbid()).out)
    assert first.value == before.value
    assert second.quote > first.quote
    assert second.value == second.quote.plus_bps_up(Bps(100))
    await stage.paid_once()


async def test_a_charge_is_not_retried_for_ever(world: World, start: Start) -> None:
    """Each try meets a price that rose after it was planned: what may pass is tried again so often, and no more."""
    stage = start({"TOPUP_POSTING__RETRIES_MAX": "1"})
    await stage.out()
    for tries in (2, 3):
        world.do(lambda: price(world, 90))
        stage.mine()
        world.do(lambda: price(world, 100))
        await stage.steps(6)
        if tries == 2:
            assert stage.topup.state is State.SENT
    assert stage.topup.state is State.DEATHWATCH
    assert [a.inclusion is not None and a.inclusion.transient for a in stage.topup.out] == [True, True]
    assert len(stage.named("charge_given_up")) == 1


async def test_bumps_end_after_so_many(start: Start) -> None:
    """`fees.bump_max` bounds them; the last one is sent again as it is."""
    stage = start({"TOPUP_FEES__BUMP_MAX": "2"})
    await stage.out()
    await stage.steps(90)
    assert len(stage.topup.out) == 3
    await stage.paid_once()


async def test_a_restart_between_a_bump_s_commit_and_its_sending_sends_it(world: World, start: Start) -> None:
    """What was stored with the intent to send is found and sent by the next start, byte for byte."""
    stage = start()
    await stage.out()
    rail = stage.works.rail()
    ordinary = rail.send

    async def die(topup: TopUp, attempt: Attempt) -> Sent:
        if attempt.sends == 0:
            raise KeyboardInterrupt
        return await ordinary(topup, attempt)

    rail.send = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await stage.outbid()
    stored = stage.topup
    assert len(stored.out) == 2
    assert stored.out[1].last_sent_ms is None
    await stage.close()
    stage = start()
    done = await stage.paid_once()
    assert [a.hash for a in done.out] == [a.hash for a in stored.out]


async def test_an_expired_charge_proven_dead_by_two_is_replaced_by_a_new_one(world: World, start: Start) -> None:
    """Never mined, its deadline final at two providers: a second charge is bought, and outbids the stale bytes."""
    stage = start(two(world))
    await stage.expired()
    done = await stage.paid_once(240)
    assert [e.proof for e in stage.named("charge_dead")] == ["deadline"]
    assert [c.dead is not None for c in done.charges] == [True, False]
    first, last = done.out[0], done.out[-1]
    assert (last.charge_seq, last.nonce_slot) == (2, first.nonce_slot)
    assert not underpriced([first, last])


async def test_an_expired_charge_seen_by_one_provider_alone_needs_a_person(world: World, stage: Stage) -> None:
    """One provider is no proof: halted once the deadline is final, and no other charge is ever asked for.

    Only a word from after the halt is about it.
    """
    await stage.expired()
    stage.say("attest-unpaid")
    world.clock.leap(1_000)
    halted = await stage.until(State.HALTED, passes=240)
    assert "one provider" in halted.reason
    await stage.steps(10)
    assert stage.topup.state is State.HALTED
    assert len(stage.topup.charges) == 1
    stage.say("attest-unpaid")
    await stage.until(State.FAILED)
    assert stage.payments() == 0


async def test_a_block_replaced_after_the_end_is_taken_back_and_pauses_buying(world: World, stage: Stage) -> None:
    """Done at a safe block, and that block is replaced before it is final: the entry is reversed, buying is paused."""
    done = await stage.until(State.DONE)
    paid = done.payment
    assert paid is not None
    head = int(stage.inside(lambda: world.chain.rpc("eth_blockNumber", [])), 16)
    world.mining = False
    stage.inside(lambda: world.chain.reorg(head - paid.block_number + 1, drop=True))
    stage.mine(head - paid.block_number + 3)
    world.clock.leap(120_000)
    stage.mine()
    await stage.step()
    assert len(stage.named("payment_undone")) == 1
    assert stage.store.control("default").paused
    assert stage.booked() == stage.left() == 0


async def test_what_is_final_is_not_looked_at_any_more(world: World, stage: Stage) -> None:
    """Once the payment's block is final, an idle pass asks the chain nothing."""
    await stage.until(State.DONE)
    stage.mine(60)
    await stage.slowly(4)
    wallet = bytes.fromhex(world.wallet[2:])
    assert stage.store.afterwards("default", wallet) == []
    asked = world.rpc.requests
    world.clock.leap(120_000)
    await stage.step()
    assert world.rpc.requests == asked


async def test_a_charge_that_reverts_for_good_is_given_up_and_replaced(world: World, start: Start) -> None:
    """Mined after its deadline: paying it again cannot help; proven dead, another is bought at the next nonce."""
    stage = start(two(world))
    await stage.out()
    world.clock.leap(EXPIRY_MS)
    done = await stage.paid_once(240)
    first, last = done.out[0], done.out[-1]
    assert first.inclusion is not None
    assert not first.inclusion.transient
    assert len(stage.named("charge_dead")) == 1
    assert (first.charge_seq, last.charge_seq) == (1, 2)
    assert last.plan.nonce == first.plan.nonce + 1


async def test_a_mark_that_was_never_tested_ends_nothing(world: World, start: Start) -> None:
    """The contract says processed, no event is found, the mark was never tested: undecided, and no other charge."""
    stage = start(two(world))
    topup = await stage.out()
    intent = parse(topup.raw_of(topup.out[0])).intent
    marked = contracts.processed(world.operator.address, intent.id)
    stage.inside(lambda: world.write(marked))
    world.mining = True
    await stage.steps(30)
    assert stage.topup.state is State.DEATHWATCH
    assert stage.topup.reason.startswith("reverted for good: AlreadyProcessed")
    assert stage.payments() == 0
    assert len(stage.topup.charges) == 1


async def test_the_contract_s_mark_is_tested_on_our_own_first_payment(stage: Stage) -> None:
    """Trusted only once it was seen to be right: said with the first payment, remembered for the next."""
    await stage.until(State.DONE)
    assert [e.trusted for e in stage.named("flag_tested")] == [True]
    name = f"flag_tested:8453:{contracts.PAYMENT_PROTOCOL[2:].lower()}"
    assert stage.store.told("", name) == "1"


async def test_no_bytes_leave_that_are_not_stored_with_their_intent(world: World, stage: Stage, tmp_path: Path) -> None:
    """Whatever reaches a provider stands in the ledger already, intended: payment, bump and cancel."""
    reader = sqlite3.connect(tmp_path / "ledger.sqlite3", check_same_thread=False)
    unknown: list[str] = []

    async def look_it_up(method: str, params: list[Any], honest: Next) -> Any:
        if method == "eth_sendRawTransaction":
            raw = bytes.fromhex(params[0][2:])
            row = reader.execute("SELECT intended_ms FROM attempt WHERE raw = ?", (raw,)).fetchone()
            if row is None or row[0] is None:
                unknown.append(params[0])
        return honest()

    world.rpc.intercept = look_it_up
    world.mining = False
    await stage.outbid()
    stage.say("cancel")
    await stage.outbid(3)
    assert unknown == []


async def test_nothing_is_dead_before_a_final_block_says_so(world: World, start: Start) -> None:
    """The newest block is past the deadline and no final one is: no proof is asked for, which is said each hour."""
    stage = start(two(world))
    await stage.expired()
    world.mining = False
    stage.mine()
    await stage.until(State.DEATHWATCH)
    asked = world.rpc.asked["eth_getLogs"] + world.rpc.asked["eth_getStorageAt"]
    await stage.steps(6)
    assert stage.named("death_undecided") == []
    for hours in (1, 2):
        world.clock.leap(HOUR_MS + 60_000)
        await stage.step()
        await stage.step()
        assert len(stage.named("death_undecided")) == hours
    assert "is final" in stage.named("death_undecided")[0].why
    assert stage.topup.state is State.DEATHWATCH
    assert world.rpc.asked["eth_getLogs"] + world.rpc.asked["eth_getStorageAt"] == asked


def says(text: str, *, but: bytes | None = None) -> Intercept:
    """Make an interceptor: the provider answers each raw transaction with this error, and keeps none `but` one."""
    return failing("eth_sendRawTransaction", RpcError(-32000, text), lambda p: but is None or p != ["0x" + but.hex()])


async def test_bytes_that_every_provider_calls_invalid_halt(world: World, start: Start) -> None:
    """Sending them again changes nothing: they are sent once, said, and left to a person; the charge stays alone."""
    second = world.provider()
    world.rpc.intercept = second.intercept = says("intrinsic gas too low: gas 1, minimum needed 21000")
    stage = start(two(world, second))
    halted = await stage.until(State.HALTED)
    assert "invalid" in halted.reason
    assert "intrinsic gas too low" in halted.reason
    await stage.slowly(6, 60_000)
    assert len(stage.named("payment_sent")) == len(stage.named("payment_refused")) == 1
    assert len(stage.topup.charges) == 1
    stage.say("look")
    await stage.step()
    assert stage.topup.state is State.HALTED
    world.clock.leap(EXPIRY_MS)
    failed = await stage.until(State.FAILED)
    assert failed.charges[0].dead is not None
    assert stage.payments() == 0


def killed(*_: Any) -> Any:
    """Die here."""
    raise Killed


async def test_invalid_bytes_halt_where_the_process_died_with_the_answer(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is stored and the halt is not: sent once more after the restart, and halted then."""
    world.rpc.intercept = says("invalid sender")
    stage = start()
    with monkeypatch.context() as dying:
        dying.setattr(tracking.Tracking, "_alarmed", killed)
        with pytest.raises(Killed):
            await stage.until(State.HALTED)
    await stage.close()
    again = start()
    assert (again.topup.state, again.topup.out[0].sends) == (State.SENT, 1)
    await again.until(State.HALTED)
    assert again.topup.out[0].sends == 2
    assert len(again.topup.charges) == 1


async def test_bytes_that_were_taken_before_are_followed_on(world: World, start: Start) -> None:
    """Taken, then called invalid time and again: said, and still waited for, because it may be mined."""
    stage = start({"TOPUP_FEES__BUMP_MAX": "0"})
    topup = await stage.held()
    world.rpc.intercept = says("exceeds block gas limit")
    while stage.topup.out[0].sends < 4:
        await stage.step()
        assert stage.topup.state is State.SENT
    assert len(stage.named("payment_refused")) == 1
    world.do(evm(world).held.clear)
    world.rpc.intercept = None
    assert (await stage.paid_once()).id == topup.id


async def test_one_provider_that_calls_the_bytes_invalid_stops_nothing(world: World, start: Start) -> None:
    """Another one takes them: paid, and nobody is called."""
    second = world.provider()
    second.intercept = says("invalid sender")
    stage = start(two(world, second))
    await stage.until(State.DONE)
    assert stage.named("payment_refused") == []
    assert stage.payments() == 1


async def test_another_transaction_at_our_nonce_is_an_alarm(world: World, stage: Stage) -> None:
    """A node wants more to drop what it holds there, and none of it is ours: said once, and the payment goes on."""
    world.rpc.intercept = says("replacement transaction underpriced")
    await stage.until(State.SENT)
    await stage.steps(4)
    assert [e.nonce for e in stage.named("nonce_contested")] == [stage.topup.out[0].plan.nonce]
    world.rpc.intercept = None
    await stage.paid_once()


async def test_a_bump_that_is_too_cheap_beside_our_own_is_no_alarm(world: World, stage: Stage) -> None:
    """The other transaction at this nonce is the one it outbids: nothing is wrong."""
    sent = await stage.held()
    world.rpc.intercept = says("replacement transaction underpriced", but=sent.out[0].raw)
    await stage.outbid()
    # What it outbids may have gone out once more after it, where this machine was slow.
    assert "replacement_underpriced" in {e.answer for e in stage.named("payment_sent")}
    assert stage.named("nonce_contested") == []


async def test_the_bytes_of_an_earlier_top_up_at_our_nonce_are_no_alarm(world: World, stage: Stage) -> None:
    """The other transaction at this nonce is one of ours whose charge is dead: nothing is wrong."""
    earlier = await stage.expired()
    await stage.until(State.HALTED, passes=240)
    stage.say("attest-unpaid")
    await stage.until(State.FAILED)
    world.rpc.intercept = says("replacement transaction underpriced")
    world.clock.leap(EXPIRY_MS)
    while stage.topup.id == earlier.id or not stage.topup.out:
        await stage.step()
    await stage.step()
    assert stage.topup.out[0].nonce_slot == earlier.out[0].nonce_slot
    assert stage.named("payment_sent")[-1].answer == "replacement_underpriced"
    assert stage.named("nonce_contested") == []


async def test_a_payment_that_is_out_is_outbid_when_its_rail_is_no_longer_used(world: World, start: Start) -> None:
    """Restarted with mpp alone: what was begun by a Coinbase charge is still outbid, and paid once."""
    stage = start()
    topup = await stage.held()
    await stage.close()
    again = start({"TOPUP_RAILS__USE": "mpp", "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url})
    assert (await again.outbid()).id == topup.id
    again.inside(evm(world).held.clear)
    await again.paid_once()


async def test_this_machines_clock_ends_no_charge(world: World, start: Start) -> None:
    """Its clock is past the deadline, the chain's is not: the payment is still waited for, and nothing else bought."""
    operator = world.operator
    operator.terms = replace(operator.terms, economics=replace(operator.terms.economics, lifetime_seconds=7200))
    clock = Shifted(world, 0)
    stage = start(two(world) | {"TOPUP_FEES__BUMP_MAX": "0"}, clock=clock)
    await stage.held()
    clock.by_ms = 3 * HOUR_MS
    for _ in range(12):
        rest = await stage.step()
    assert (stage.topup.state, rest.why) == (State.SENT, "sent")
    assert len(stage.topup.charges) == 1


async def test_a_word_that_nothing_was_paid_counts_only_once_nothing_can_be(world: World, stage: Stage) -> None:
    """Attested while the payment may still be mined: halted until a final block is past the charge's deadline."""
    await stage.held()
    stage.halt()
    stage.say("attest-unpaid")
    for _ in range(8):
        assert (await stage.step()).why == "halted"
    assert stage.topup.state is State.HALTED
    world.clock.leap(EXPIRY_MS)
    await stage.until(State.FAILED, passes=240)
    assert stage.payments() == 0


async def test_what_is_halted_is_looked_for_and_not_sent(world: World, stage: Stage) -> None:
    """Long after bytes would have gone out again, and been outbid, no provider has been handed any."""
    topup = await stage.held()
    stage.halt()
    asked = world.rpc.asked
    sent, looked = asked["eth_sendRawTransaction"], asked["eth_getTransactionReceipt"]
    assert sent
    await stage.steps(20)
    assert asked["eth_sendRawTransaction"] == sent
    assert asked["eth_getTransactionReceipt"] > looked
    assert len(stage.topup.attempts) == len(topup.attempts)


@pytest.mark.parametrize("word", ["look", "credited"])
async def test_only_a_word_leads_out_of_a_halt(word: str, world: World, stage: Stage) -> None:
    """The payment turns up while it is halted: seen and booked, and still halted until a person says so."""
    await stage.out()
    stage.halt()
    world.mining = True
    await stage.steps(8)
    assert stage.topup.payment is not None
    assert stage.topup.state is State.HALTED
    stage.say(word)
    await stage.paid_once()
    assert len(stage.named("credits_attested")) == (word == "credited")
