"""Is there a way out of every state: of an inclusion that was invented, of a stranger at our nonce, of each word?"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.stage import EXPIRY_MS, Stage, Start, honest, price, sent_beside
from tests.world.stand import lie
from tests.world.stories_foreign import invents
from topup.accounting.reconciliation import Adopted
from topup.domain.coinbase_charge import parse
from topup.domain.credits import HOUR_MS
from topup.domain.lifecycle import State
from topup.domain.money import Wei
from topup.domain.nonpayment import ChargeStatus
from topup.ledger.store import SqliteStore
from topup.payment import foreign_nonce
from topup.payment.preparation import Preparation
from topup.payment.reorg import confirmed
from topup.ports.chain import Head, Observation, Spent
from topup.ports.rail import sends
from topup.sandbox import contracts
from topup.sandbox.rpc import Intercept, Next
from topup.sandbox.world import World
from topup.sellers.coinbase import Coinbase

NO_RECEIPT = lie("eth_getTransactionReceipt", to=lambda _: None)


# -- an inclusion that was invented -----------------------------------------------------------------------------


async def hides_it(method: str, params: list[Any], ask: Next) -> Any:
    """Answer as one who has not seen the payment: its nonce is unused, and it has no receipt."""
    return hex(0) if method == "eth_getTransactionCount" else await NO_RECEIPT(method, params, ask)


async def lags_in_its_pool(method: str, params: list[Any], ask: Next) -> Any:
    """Answer so of the newest block alone."""
    newest = method != "eth_getTransactionCount" or params[1] == "latest"
    return await hides_it(method, params, ask) if newest else ask()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param([hides_it, None, None], id="one liar of three"),
        pytest.param([NO_RECEIPT, NO_RECEIPT], id="no receipt anywhere, and the nonce is used"),
        # Asked of one block the nonce is used, as it was.
        pytest.param([lags_in_its_pool, lags_in_its_pool], id="a node that is a block behind in its pool"),
    ],
)
async def test_a_payment_that_stands_is_not_taken_back(how: list[Intercept | None], world: World, start: Start) -> None:
    """It stood in a block, and from then on its providers answer like this: it stays paid, and ends by its credits."""
    others = [world.provider() for _ in how]
    stage = start({"TOPUP_CHAIN__RPC_URLS": ",".join(o.url for o in others)})
    await stage.until(State.PAID)
    for one, bent in zip(others, how, strict=True):
        one.intercept = bent
    await stage.paid_once()
    assert stage.named("payment_vanished") == []


async def test_what_was_final_by_a_liar_does_not_jam_the_wallet(world: World, start: Start) -> None:
    """Done and final by an invention, credited by somebody else: the next payment finds its nonce unused."""
    invents(world, world.rpc)
    stage = start({"TOPUP_POSTING__LATE_S": "5000"})
    await stage.until(State.PAID)
    first = stage.topup.id
    stage.inside(lambda: setattr(world.gateway.account, "total_credits", world.gateway.account.total_credits + 10))
    await stage.until(State.DONE)
    stage.mine(70)
    await stage.slowly(4)
    wallet = bytes.fromhex(world.wallet[2:])
    assert stage.store.afterwards("default", wallet) == []
    await stage.close()
    stage = start(honest(world, 2) | {"TOPUP_POLICY__FLOOR": "15", "TOPUP_POLICY__AMOUNT": "15"})
    world.clock.leap(24 * HOUR_MS)
    for _ in range(20):
        await stage.step()
        if stage.named("payment_undone"):
            break
    assert stage.store.control("default").paused
    assert stage.store.topup(first).payment is None
    stage.pause("0")
    await stage.paid_once()
    assert stage.topup.id != first


heights = st.none() | st.integers(0, 20)
KEYS = [b"\x0a" * 32, b"\x0b" * 32]
keys = st.frozensets(st.sampled_from(KEYS))
looks = st.builds(
    lambda safe, final, replaced, unspent: Observation(
        Head(20, b"\x01" * 32, 40), safe, final, 40, 1, {}, replaced, unspent=unspent
    ),
    heights,
    heights,
    keys,
    keys,
)


@given(
    first=looks, second=st.none() | looks, blocks=st.tuples(st.integers(0, 20), st.integers(0, 20)), word=st.booleans()
)
def test_nothing_is_taken_back_or_settled_that_the_second_look_does_not_confirm(
    first: Observation,
    second: Observation | None,
    blocks: tuple[int, int],
    word: bool,  # noqa: FBT001
) -> None:
    """What both looks show is taken back; what only the first does is neither taken back nor settled."""
    recorded = dict(zip(KEYS, blocks, strict=True))
    got = confirmed(first, second, recorded, believe_unspent=word)
    sure = second or replace(first, replaced=frozenset(), unspent=frozenset())
    assert got.replaced == first.replaced & sure.replaced
    assert got.unspent == (first.unspent & sure.unspent if word else frozenset())
    doubted = (first.replaced | first.unspent) - got.replaced - got.unspent
    heights = [height for height in (got.safe, got.finalized) if height is not None]
    assert not [(key, height) for key in doubted for height in heights if height >= recorded[key]]


# -- a stranger at our nonce ------------------------------------------------------------------------------------


def stranger(world: World) -> None:
    """Use the wallet's key beside topup, at its next nonce; what topup has out there is dropped."""

    def act() -> None:
        world.chain.drop_pending()
        sent_beside(world, maxFeePerGas=10**12, maxPriorityFeePerGas=10**10)
        world.chain.mine(world.clock.now_s())

    world.do(act)


Contested = Callable[[int], Awaitable[Stage]]


@pytest.fixture
def contested(world: World, start: Start) -> Contested:
    """Make passes until a payment is out, and let a stranger take its nonce; so many owners show it."""

    async def made(owners: int) -> Stage:
        stage = start(honest(world, owners))
        await stage.out()
        stranger(world)
        world.mining = True
        await stage.rests("nonce_moved")
        return stage

    return made


def adopted(stage: Stage) -> tuple[int, bytes]:
    """Take the stranger's transaction over, as `reconcile --adopt` does; return the wallet it is of."""
    wallet = (contracts.CHAIN_ID, bytes.fromhex(stage.world.wallet[2:]))
    taken = Adopted(0, b"\x07" * 32, 1, None, Wei(1))
    stage.store.adopt_foreign(*wallet, taken, stage.world.clock.now_ms(), "a test")
    return wallet


def replaced(stage: Stage) -> None:
    """Replace the last blocks, with the stranger's among them."""
    newest = int(stage.inside(lambda: stage.world.chain.rpc("eth_blockNumber", [])), 16)
    stage.inside(lambda: stage.world.chain.reorg(min(newest - 1, 40), drop=True))


async def test_a_stranger_at_our_nonce_ends_the_top_up_and_pauses(world: World, contested: Contested) -> None:
    """Two owners show a final block by which the nonce was used, and nothing paid: failed, and paused."""
    stage = await contested(2)
    assert not stage.store.control("default").paused
    stage.mine(70)
    failed = await stage.until(State.FAILED, passes=20)
    assert [e.proof for e in stage.named("charge_dead")] == ["foreign"]
    assert "topup reconcile" in failed.reason
    assert stage.store.control("default").paused
    assert len(stage.named("nonce_moved")) == 1
    assert stage.payments() == 0
    # A resume alone signs nothing: the ledger does not know who used the nonce.
    world.clock.leap(24 * HOUR_MS)
    stage.pause("0")
    await stage.rests("nonce_ahead")
    stage.store.adopt_nonce(*adopted(stage), 1, world.clock.now_ms(), "a test")
    await stage.until(State.DONE)
    assert stage.payments() == 1


async def test_nothing_ends_before_the_block_that_used_the_nonce_is_final(world: World, contested: Contested) -> None:
    """The stranger's block is replaced before it is final, and the nonce is free again: our payment pays."""
    stage = await contested(2)
    assert stage.topup.state is State.SENT
    world.mining = False
    replaced(stage)
    done = await stage.paid_once()
    assert len(done.charges) == 1
    assert stage.store.taken(done.id) == {}


async def test_the_hour_of_a_used_nonce_is_not_begun_anew_by_a_restart(
    world: World, start: Start, contested: Contested
) -> None:
    """Restarted every half hour: halted an hour after it was noticed, and not an hour after the last start."""
    stage = await contested(1)
    world.mining = False  # no block becomes final: only the hour ends it
    began = world.clock.now_ms()
    for _ in range(2):
        await stage.close()
        world.clock.leap(HOUR_MS // 2 + 60_000)
        stage.mine()
        stage = start(honest(world, 1))
        await stage.step()
    assert stage.topup.state is State.HALTED
    assert world.clock.now_ms() - began < 2 * HOUR_MS
    assert "topup reconcile" in stage.topup.reason


async def test_the_alarm_of_a_used_nonce_is_given_once_whoever_restarts(
    world: World, start: Start, contested: Contested
) -> None:
    """Restarted each two minutes: told of at first sight, an alarm after five minutes in all, and no second one."""
    stage = await contested(1)
    world.mining = False  # no block becomes final
    alarms = []
    for _ in range(6):
        told = stage.told
        await stage.close()
        world.clock.leap(120_000)
        stage.mine()
        stage = start(honest(world, 1))
        stage.told = told
        await stage.step()
        alarms.append(len(stage.named("nonce_moved")))
    assert stage.topup.state is State.SENT
    assert alarms == [0, 0, 1, 1, 1, 1]
    assert len(stage.named("receipt_awaited")) == 1


async def test_a_nonce_that_is_used_again_after_it_was_free_gives_an_alarm_of_its_own(
    world: World, contested: Contested
) -> None:
    """The stranger's block is replaced after the alarm; the next stranger is told of like the first."""
    stage = await contested(1)
    world.mining = False
    for wanted in (1, 2):
        world.clock.leap(301_000)
        stage.mine()
        await stage.step()
        assert len(stage.named("nonce_moved")) == wanted
        if wanted == 1:
            replaced(stage)
            stage.mine(60)
            await stage.rests("sent")
            stranger(world)
            await stage.rests("nonce_moved")
    assert len(stage.named("receipt_awaited")) == 2


@pytest.mark.parametrize("owners", [1, 2])
async def test_a_person_who_takes_the_strangers_transaction_over_ends_it(owners: int, contested: Contested) -> None:
    """`reconcile --adopt` says what used the nonce: failed by two; with one provider halted, and failed by a word."""
    stage = await contested(owners)
    stage.mine(70)
    adopted(stage)
    if owners == 1:
        halted = await stage.until(State.HALTED, passes=10)
        assert "one provider" in halted.reason
        stage.say("attest-unpaid")
    await stage.until(State.FAILED, passes=10)
    assert stage.store.control("default").paused
    assert stage.payments() == 0


async def test_a_mark_that_was_never_tested_is_ended_by_a_persons_word(world: World, contested: Contested) -> None:
    """Undecided for ever by two providers: a person who attests it unpaid ends it at last."""
    stage = await contested(2)
    intent = parse(stage.topup.raw_of(stage.topup.out[0])).intent
    stage.inside(lambda: world.write(contracts.processed(world.operator.address, intent.id)))
    stage.mine(70)
    world.clock.leap(EXPIRY_MS)
    stage.mine(70)
    await stage.steps(4)
    assert stage.topup.state is State.DEATHWATCH
    stage.say("attest-unpaid")
    await stage.until(State.FAILED, passes=5)
    assert stage.store.control("default").paused


@pytest.mark.parametrize("short", [0, 1])
async def test_whoever_looked_no_further_than_before_a_nonce_was_used_proves_nothing_by_it(
    contested: Contested, short: int
) -> None:
    """Our own payment may be what used it, in a block that those who show no mark and no event had not seen."""
    stage = await contested(2)
    stage.mine(70)
    (attempt,), rail = stage.topup.out, stage.works.rail()
    by = stage.store.taken(stage.topup.id)[attempt.id].block_number
    assert by is not None

    async def payment_status(*_: object) -> ChargeStatus:
        return ChargeStatus(by - short, 1, flag=False, payers=frozenset(), witnesses=2)

    rail.payment_status = payment_status  # type: ignore[method-assign, assignment]
    await stage.steps(6)
    assert (stage.topup.state is State.FAILED) == (short == 0)


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("same", [True, False])
async def test_a_block_that_was_replaced_shows_no_nonce_used_for_ever(
    world: World, contested: Contested, *, final: bool, same: bool
) -> None:
    """Only the very block by whose end the nonce was used counts, and only once it is final; else it is placed anew."""
    stage = await contested(2)
    await stage.step()
    topup, rail = stage.topup, stage.works.rail()
    (attempt,), before = topup.out, stage.store.taken(topup.id)[topup.out[0].id]
    assert before.block_number is not None
    there = Head(before.block_number, before.block_hash if same else b"\x66" * 32, 1)

    async def spent(_: bytes, number: int) -> Spent:
        return Spent(there if number == there.number else Head(number, b"\x77" * 32, 2), final, 1)

    assert sends(rail)
    rail.spent = spent  # type: ignore[method-assign, assignment]
    at = Observation(Head(90, b"\x77" * 32, 2), 80, 80, 2, 1, {}, frozenset())
    got = await foreign_nonce.contest(rail, stage.store, topup, at, [attempt], world.clock.now_ms())
    assert got.gone == ({attempt.nonce_slot} if final and same else frozenset())
    after = stage.store.taken(topup.id)[attempt.id]
    assert (after.block_number == before.block_number) == same
    assert after.since_ms == before.since_ms


# -- each word that is taken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DECIDED, State.ASKING, State.RESERVED, State.SIGNED])
async def test_a_cancel_ends_what_was_never_sent(
    state: State, world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies before the first byte, and a person cancels: dropped with the next pass, and nothing is sent."""

    def dies(*_: object) -> Any:
        raise KeyboardInterrupt

    place: dict[State, tuple[type, str]] = {
        State.DECIDED: (SqliteStore, "ask"),
        State.ASKING: (Coinbase, "ask"),
        State.RESERVED: (Coinbase, "sign"),
        State.SIGNED: (Preparation, "_intend"),
    }
    stage = start()
    with monkeypatch.context() as dying:
        dying.setattr(*place[state], dies)
        with pytest.raises(KeyboardInterrupt):
            await stage.until(State.SENT)
    assert stage.topup.state is state
    stage.say("cancel")
    await stage.close()
    stage = start()
    await stage.step()
    assert (stage.topup.state, stage.topup.reason) == (State.DROPPED, "cancelled")
    assert world.rpc.asked["eth_sendRawTransaction"] == 0


async def test_a_cancel_after_a_revert_gives_the_charge_up(world: World, start: Start) -> None:
    """It could be tried again, and a person no longer wants it: failed once the charge is proven dead."""
    stage = start(honest(world, 2))
    await stage.out()
    world.do(lambda: price(world, 90))
    stage.mine()
    stage.say("cancel")
    await stage.until(State.DEATHWATCH, passes=5)
    assert stage.topup.reason == "cancelled by hand"
    world.mining = True
    await stage.until(State.FAILED, passes=200)
    assert (len(stage.topup.out), len(stage.topup.charges), stage.payments()) == (1, 1, 0)


async def test_a_cancel_after_the_deadline_buys_no_other_charge(world: World, start: Start) -> None:
    """The charge waits for its proof of death, and a person no longer wants it: failed, and nothing asked for again."""
    stage = start(honest(world, 2))
    await stage.expired()
    world.mining = False
    stage.mine()
    await stage.until(State.DEATHWATCH, passes=5)
    stage.say("cancel")
    world.mining = True
    await stage.until(State.FAILED, passes=200)
    assert len(stage.topup.charges) == 1


@pytest.mark.parametrize("word", ["look", "attest-unpaid"])
@pytest.mark.parametrize("state", [State.PAID, State.UNCREDITED, State.CREDITED])
async def test_a_word_takes_back_what_one_provider_denies(state: State, word: str, world: World, start: Start) -> None:
    """One honest provider shows the nonce of an invented payment unused: by a person's word it is sent again."""
    invents(world, world.rpc)
    stage = start()
    world.mining = state is not State.CREDITED  # or it would be safe, and done
    await stage.until(State.PAID)
    if state is State.UNCREDITED:
        await stage.until(state, passes=200)
    elif state is State.CREDITED:
        world.gateway.account.total_credits += 10
        await stage.until(state)
    await stage.close()
    world.mining = True
    stage.mine()
    stage = start(honest(world, 1))
    await stage.steps(3)
    assert stage.topup.state is state
    assert len(stage.named("inclusion_denied")) == 1
    stage.say(word)
    await stage.until(State.SENT, passes=2)
    assert stage.booked() == 0
    assert stage.store.told("default", f"resolve:{stage.topup.id}") == ""  # used up
    await stage.paid_once()


@pytest.mark.parametrize("word", ["look", "attest-unpaid"])
@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.DROPPED])
async def test_a_word_takes_back_what_had_ended(end: State, word: str, world: World, start: Start) -> None:
    """An invented payment of a top-up that has ended is denied by one provider: by a word it is undone, and paused."""
    invents(world, world.rpc)
    stage = start()
    await stage.until(State.PAID)
    world.gateway.account.total_credits += 10
    done = await stage.until(State.DONE)
    stage.store._db.execute("UPDATE topup SET state = ? WHERE id = ?", (end.value, done.id))
    await stage.close()
    world.clock.leap(120_000)
    stage.mine()
    stage = start(honest(world, 1) | {"TOPUP_POLICY__FLOOR": "1"})
    await stage.step()
    assert stage.topup.payment is not None
    assert not stage.store.control("default").paused
    stage.say(word)
    world.clock.leap(120_000)
    await stage.step()
    assert stage.topup.payment is None
    assert stage.store.control("default").paused
    assert len(stage.named("payment_undone")) == 1
