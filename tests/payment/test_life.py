"""What if the world interferes between two passes? Stories of one payment, each on the embedded chain."""

from decimal import Decimal
from typing import Any

import pytest

from tests.world.stage import EXPIRY_MS, Shifted, Stage, Start, evm, price, sent_beside
from topup.domain import events
from topup.domain.credits import HOUR_MS
from topup.domain.events import Event
from topup.domain.lifecycle import State
from topup.sandbox import contracts
from topup.sandbox.rpc import Drop, Next
from topup.sandbox.world import World


@pytest.mark.parametrize("skew_s", [-600, -120, 120, 600])
async def test_a_machine_whose_clock_is_off_still_sees_its_credits(skew_s: int, world: World, start: Start) -> None:
    """Posting is judged by one clock alone: a skew larger than the posting delay does not hide our own credits."""
    stage = start(clock=Shifted(world, skew_s * 1000))
    await stage.paid_once()
    assert not stage.named("paid_not_credited")


async def test_a_payment_mined_after_its_deadline_halts_and_a_person_ends_it(world: World, stage: Stage) -> None:
    """It reverts as expired, its gas is booked, no new charge is asked for, and only an attestation leads out."""
    await stage.out()
    world.clock.leap(EXPIRY_MS)
    world.mining = True
    halted = await stage.until(State.HALTED)
    assert len(halted.charges) == 1
    assert stage.payments() == 0
    await stage.steps(8)
    assert stage.topup.state is State.HALTED
    assert stage.booked() == stage.left() > 0
    stage.say("attest-unpaid")
    failed = await stage.until(State.FAILED)
    assert failed.id == halted.id


async def test_an_attestation_does_not_overrule_the_chain(stage: Stage) -> None:
    """Attested unpaid, and the chain shows the payment after all: it goes on as paid."""
    await stage.until(State.PAID)
    stage.halt()
    stage.say("attest-unpaid")
    topup = await stage.until(State.DONE, State.FAILED)
    assert topup.state is State.DONE
    assert stage.booked() == stage.left()


async def test_a_wallet_that_sent_more_than_the_ledger_knows_signs_nothing(world: World, stage: Stage) -> None:
    """A lost ledger or a second user of the key: refused until a person adopts the nonce."""
    stage.inside(lambda: sent_beside(world))
    stage.mine()
    await stage.works.cycle.stand()
    assert [e.why for e in stage.named("top_up_forbidden")] == ["nonce_ahead"]
    await stage.rests("nonce_ahead")
    assert stage.topup.attempts == ()
    stage.store.say("default", "adopt_nonce", "1", world.clock.now_ms(), "a test")
    topup = await stage.until(State.DONE)
    assert topup.attempts[0].plan.nonce == 1


async def test_a_provider_that_lies_about_quote_and_feed_cannot_overpay_beyond_the_owners_price(
    world: World, stage: Stage
) -> None:
    """Quote and feed agree on ETH at 120 dollars: refused by price.eth_usd_min, and nothing is signed."""
    stage.inside(lambda: price(world, 4))
    stage.inside(lambda: world.write(contracts.feed_answer(contracts.ETH_USD_FEED, world.eth_usd_e8 * 4 // 100)))
    await stage.rests("payment_max")
    assert stage.topup.attempts == ()


async def test_a_pause_stops_a_first_send_even_after_the_intent(world: World, start: Start) -> None:
    """Killed between intent and send, paused, restarted: nothing leaves until it is resumed, then it is paid once."""
    stage = start()
    world.mining = False
    real = stage.store.intend

    def die(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    stage.store.intend = die  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        await stage.until(State.SENT)
    await stage.close()
    again = start()
    again.pause()
    await again.steps(10)
    assert stage.inside(lambda: evm(world).pending()) == 0
    again.pause("0")
    await again.paid_once()


async def test_a_clock_put_forward_releases_no_cap(world: World, start: Start) -> None:
    """A clock leapt a day ahead and was set right, ledger time stays ahead: the cap holds by the chain's clock."""
    clock = Shifted(world, 0)
    caps = {"TOPUP_POLICY__CAP_24H": "15", "TOPUP_POLICY__COOLDOWN_S": "60"}
    stage = start(caps, clock=clock)
    await stage.until(State.DONE)
    stage.inside(lambda: world.gateway.account.set_usage(Decimal("20.5")))
    clock.by_ms = 25 * HOUR_MS
    await stage.step()
    clock.by_ms = 0
    rest = await stage.rests("cap_24h")
    assert rest.detail.endswith("by the chain's clock")
    assert stage.payments() == 1


async def test_a_pause_between_plan_and_signature_signs_nothing(world: World, stage: Stage) -> None:
    """Paused in the very moment in which the nonce was taken: it is given back, and nothing is signed."""
    reserve = stage.store.reserve

    def paused_meanwhile(*given: Any) -> Any:
        stage.pause()
        return reserve(*given)

    stage.store.reserve = paused_meanwhile  # type: ignore[method-assign, assignment]
    await stage.rests("paused")
    assert [a.withdrawn for a in stage.topup.attempts] == [True]
    assert not stage.named("payment_signed")


async def test_a_pause_by_hand_is_said_once_with_who_did_it(world: World, stage: Stage) -> None:
    """Paused between two passes: one event names who, and the next pass repeats nothing."""
    world.do(lambda: world.gateway.account.set_usage(Decimal(1)))
    await stage.step()
    stage.pause(by="uid 7")
    await stage.step()
    await stage.step()
    (said,) = stage.named("pause_changed")
    assert (said.paused, said.by) == (True, "uid 7")


async def test_the_account_is_watched_while_a_payment_is_stuck(world: World, stage: Stage) -> None:
    """Nothing is mined for an hour: the balance is still read, and an unreadable one still alarms."""
    await stage.out()
    before = len(stage.named("reading_taken"))
    world.clock.leap(120_000)
    await stage.slowly(5)
    assert len(stage.named("reading_taken")) > before
    world.do(lambda: world.gateway.switch_on("credits", "server-error-500"))
    world.clock.leap(HOUR_MS)
    await stage.slowly(4, HOUR_MS)
    assert stage.named("unknown_too_long")


async def test_ledger_time_goes_on_when_the_clock_was_years_ahead(world: World, start: Start) -> None:
    """A clock ten years ahead is set right again: said once, and the next purchase still comes."""
    ahead = Shifted(world, 10 * 365 * 24 * HOUR_MS)
    stage = start(clock=ahead)
    await stage.step()
    ahead.by_ms = 0
    await stage.until(State.DONE)
    assert len(stage.named("clock_behind")) == 1


async def test_a_lost_answer_of_the_send_is_not_paid_twice(world: World, stage: Stage) -> None:
    """The provider takes the transaction and cuts the line; the same bytes are sent again and known; one payment."""
    lost = [True]

    async def cut(method: str, params: list[Any], answer: Next) -> Any:
        told = answer()
        if method == "eth_sendRawTransaction" and lost:
            lost.clear()
            raise Drop
        return told

    world.rpc.intercept = cut
    await stage.paid_once()
    assert not lost
    assert {a.charge_seq for a in stage.topup.attempts} == {1}


async def test_credits_bought_elsewhere_do_not_pass_for_ours(world: World, stage: Stage) -> None:
    """A larger rise while our payment is unposted is ambiguous: waited out, never taken at once."""
    world.do(lambda: world.gateway.switch_on("posting", "never-posts"))
    await stage.until(State.PAID)
    world.do(lambda: world.gateway.account.buy_elsewhere(Decimal(25)))
    rest = await stage.rests("ambiguous", passes=5)
    assert rest.topup is not None
    assert rest.topup.state is State.PAID
    await stage.until(State.DONE)
    (posted,) = stage.named("credits_posted")
    assert posted.ambiguous is True


async def test_every_event_of_a_life_carries_the_same_id(stage: Stage) -> None:
    """From decision to done, each event that is about the top-up names it."""
    topup = await stage.until(State.DONE)
    about = [e for e in stage.told if hasattr(e, "topup_id") and not isinstance(e, events.CycleDone)]
    assert {e.topup_id for e in about if isinstance(e, Event)} == {topup.id}
    assert about[0].name() == "top_up_decided"
    assert about[-1].name() == "top_up_done"
