"""What does an adversary, or an unlucky order of honest events, get? Stories on the embedded chain."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from tests.world.stage import EXPIRY_MS, Stage, Start, evm, two
from tests.world.stand import failing, lie
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.lifecycle import State, TopUp
from topup.sandbox import contracts
from topup.sandbox.rpc import Next, RpcError
from topup.sandbox.world import World, embedded


def in_block(tx_hash: str, number: int, block_hash: str) -> dict[str, Any]:
    """A receipt of a payment that failed."""
    place = {"transactionHash": tx_hash, "blockHash": block_hash, "blockNumber": hex(number)}
    cost = {"gasUsed": "0x5208", "effectiveGasPrice": "0x1", "l1Fee": "0x0"}
    return {**place, **cost, "status": "0x0", "logs": []}


async def another(stage: Stage, old: TopUp, *states: State, count: int = 120) -> TopUp:
    """Make passes until a later top-up is in one of these states."""
    for _ in range(count):
        rest = await stage.step()
        if stage.topup.id != old.id and stage.topup.state in states:
            return stage.topup
    raise AssertionError(f"never {states}: {stage.topup.state}, {rest.why}, {rest.detail}")


async def test_an_invented_revert_in_an_old_block_buys_no_second_payment(world: World, start: Start) -> None:
    """One of two owners lies, and a quorum of one believes it: the charge is not given up for that, paid once."""
    stage = start(two(world) | {"TOPUP_CHAIN__QUORUM": "1"})
    world.mining = False
    stage.mine(80)
    sent: list[str] = []

    async def lie(method: str, params: list[Any], honest: Next) -> Any:
        if method == "eth_sendRawTransaction":
            sent.append(honest())
            return sent[-1]
        if sent and method == "eth_getTransactionCount":
            return hex(1)
        if sent and method == "eth_getTransactionReceipt" and params[0] == sent[0]:
            return in_block(params[0], 3, world.chain.rpc("eth_getBlockByNumber", [hex(3), False])["hash"])
        if sent and method == "eth_call" and params[1] == hex(3):
            raise RpcError(3, "execution reverted", "0x" + keccak(text="NullRecipient()")[:4].hex())
        return honest()

    world.rpc.intercept = lie
    await stage.steps(30)
    world.mining = True
    await stage.steps(20)
    assert sent
    assert stage.payments() == 1
    assert len(stage.topup.charges) == 1


async def test_stale_bytes_mined_under_a_resting_top_up_do_not_stop_it(world: World, stage: Stage) -> None:
    """What an ended top-up left behind takes the nonce while the next waits for ETH: booked, and the next one pays."""
    old = await stage.expired()
    await stage.until(State.HALTED, passes=240)
    stage.say("attest-unpaid", old)
    await stage.until(State.FAILED)
    wei = stage.inside(lambda: world.balance(world.wallet))
    stage.inside(lambda: world.chain.set_balance(world.wallet, 10**15))
    world.clock.leap(26 * HOUR_MS)
    await another(stage, old, State.CHARGED)
    await stage.rests("wallet_low")

    def mined() -> None:
        world.chain.set_balance(world.wallet, wei)
        evm(world).held.clear()
        world.chain.mine(world.clock.now_s())

    stage.inside(mined)  # at once: between two of these a block would drop what the wallet cannot pay
    await another(stage, old, State.DONE)
    ended = stage.store.topup(old.id)
    assert ended.state is State.FAILED
    assert any(a.inclusion is not None and a.booked for a in ended.attempts)
    stage.sound()


async def test_a_reorganisation_that_swaps_payment_and_bump_is_one_payment(world: World, stage: Stage) -> None:
    """First the payment stands in a block, then its bump instead: no pass fails, and it is done once."""
    await stage.out()
    first, bump = (await stage.outbid()).out
    stage.inside(world.chain.drop_pending)
    stage.mine(2)
    stage.mine_only(first)
    await stage.works.cycle.run()
    assert stage.topup.state is State.PAID
    # The new branch is the shorter one so far: the first block is merely not there.
    stage.inside(lambda: world.chain.reorg(2, drop=True))
    stage.mine_only(bump)
    await stage.works.cycle.run()
    stage.mine()
    for _ in range(3):
        await stage.works.cycle.run()
    done = await stage.paid_once()
    assert done.paying is not None
    assert done.paying.id == bump.id


async def test_dear_dead_bytes_do_not_forbid_the_next_payment(world: World, start: Start) -> None:
    """Signed when gas was a hundred times dearer, and forgotten by all nodes: its replacement is paid all the same."""
    stage = start(two(world) | {"TOPUP_FEES__GAS_PRICE_MAX_GWEI": "50"})
    usual = evm(world).base_fee
    stage.inside(lambda: setattr(world.chain, "base_fee", 100 * usual))
    world.mining = False
    stage.mine()
    topup = await stage.out()
    stage.inside(lambda: setattr(world.chain, "base_fee", usual))
    stage.hold(topup)
    world.clock.leap(EXPIRY_MS)
    await stage.paid_once(240)
    assert [e.proof for e in stage.named("charge_dead")] == ["deadline"]


async def test_no_word_passes_over_a_payment_that_the_chain_shows(world: World, start: Start) -> None:
    """The ledger lost the bytes that paid: an attestation that nothing was paid is refused, and nothing is bought."""
    stage = start(two(world))
    topup = await stage.out()
    lost = (b"\x01" * 32, b"\x02" * 10, topup.out[0].id)
    stage.store._db.execute("UPDATE attempt SET hash = ?, raw = ? WHERE id = ?", lost)
    stage.mine()
    assert stage.payments() == 1
    world.mining = True
    world.clock.leap(EXPIRY_MS)
    halted = await stage.until(State.HALTED, passes=240)
    assert "the charge was paid by" in halted.reason
    world.clock.leap(1_000)
    stage.say("attest-unpaid", topup)
    await stage.steps(10)
    assert stage.topup.id == topup.id
    assert stage.topup.state is State.HALTED
    assert stage.store.told("default", f"resolve:{topup.id}") == ""
    assert stage.payments() == 1


async def test_a_lagging_receipt_is_timed_for_each_payment_anew(world: World, stage: Stage) -> None:
    """A receipt lagged in yesterday's top-up; that of today's lags as well: it waits its hour, and is paid."""

    async def lag(method: str, params: list[Any], honest: Next) -> Any:
        if method == "eth_getTransactionReceipt":
            return None
        answer = honest()
        if method == "eth_sendRawTransaction":
            world.chain.mine(world.clock.now_s())  # taken while the answer is on its way
        return answer

    world.rpc.intercept = lag
    old = await stage.until(State.SENT)
    await stage.rests("nonce_moved")
    world.rpc.intercept = None
    await stage.until(State.DONE)
    world.clock.leap(26 * HOUR_MS)
    world.rpc.intercept = lag
    await another(stage, old, State.SENT, State.HALTED)
    await stage.rests("nonce_moved")
    assert stage.topup.state is State.SENT
    world.rpc.intercept = None
    await another(stage, old, State.DONE)
    assert len(stage.named("receipt_awaited")) == 2
    assert stage.named("nonce_moved") == []  # neither has lagged for five minutes
    assert stage.named("top_up_halted") == []
    assert stage.payments() == 2


async def test_a_pass_ends_though_the_chain_flickers(world: World, stage: Stage) -> None:
    """A provider shows a revert at one look and another block at the next, for ever: the pass rests all the same."""
    stage.mine(5)
    world.mining = False
    evm(world).tags_known = False
    sent: list[str] = []
    looks = [0]

    async def flicker(method: str, params: list[Any], honest: Next) -> Any:
        if method == "eth_sendRawTransaction":
            sent.append(honest())
            return sent[-1]
        looks[0] += method == "eth_chainId"
        odd = looks[0] % 2
        if sent and method == "eth_getTransactionCount":
            return hex(1)
        if sent and method == "eth_getTransactionReceipt":
            return None if odd else in_block(params[0], 3, "0x" + "aa" * 32)
        if sent and method == "eth_getBlockByNumber" and params[0] == hex(3):
            return {**honest(), "hash": "0x" + ("bb" if odd else "aa") * 32}
        return honest()

    world.rpc.intercept = flicker
    rest = await stage.rests("unsteady")
    assert rest.next_s > 0


async def test_a_dead_charge_holds_its_replacement_back_for_a_day_at_most(world: World, start: Start) -> None:
    """The cap of a day has room for one: a dead charge counts from its sending, and not again with each new try."""
    caps = {"TOPUP_POLICY__CAP_24H": "12", "TOPUP_POLICY__CAP_30D": "200"}
    stage = start(two(world) | caps)
    topup = await stage.expired()
    expiry_ms = world.clock.now_ms()
    await stage.paid_once(240)
    assert stage.store.topup(topup.id).charges[0].dead is not None
    assert world.clock.now_ms() - expiry_ms < DAY_MS


async def test_a_wrong_chain_does_not_blind_the_watch(world: World, stage: Stage) -> None:
    """The provider turns out to serve another chain: no pass fails for it, and the account is read in each."""
    await stage.until(State.DONE)
    world.rpc.intercept = lie("eth_chainId", to=lambda _: hex(84532))
    before = len(stage.named("reading_taken"))
    world.clock.leap(61_000)
    await stage.slowly(4, 61_000)
    assert len(stage.named("reading_taken")) == before + 4


@pytest.mark.parametrize("stored", [True, False])
async def test_a_death_while_a_late_payment_is_stored_hides_it_from_nobody(
    world: World, start: Start, *, stored: bool
) -> None:
    """Killed just before or just after the row is written: buying is paused, and it has been said."""
    stage = start()
    topup = await stage.out()
    # The end that a person's wrong word would bring, without the proofs that stand in its way.
    stage.store._db.execute("UPDATE topup SET state = 'failed' WHERE id = ?", (topup.id,))
    world.mining = True
    ordinary = stage.store.included

    def die(*said: Any) -> TopUp:
        if stored:
            ordinary(*said)
        raise KeyboardInterrupt

    stage.store.included = die  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        await stage.slowly(10)
    told = len(stage.named("paid_after_all"))
    await stage.close()
    stage = start()
    await stage.slowly(10)
    assert told + len(stage.named("paid_after_all")) == (1 if stored else 2)
    assert stage.store.control("default").paused
    stage.sound()


async def test_what_was_paid_on_another_chain_is_not_undone_by_this_one(world: World, stage: Stage) -> None:
    """The settings name another chain now, where that height has another hash: nothing is paused or reversed."""
    done = await stage.until(State.DONE)
    assert done.payment is not None
    height = done.payment.block_number
    booked = stage.booked()
    stage.store._db.execute("UPDATE topup SET chain_id = 84532")

    elsewhere = lie(
        "eth_getBlockByNumber",
        to=lambda block: {**block, "hash": "0x" + "ab" * 32} if block and int(block["number"], 16) == height else block,
    )
    world.rpc.intercept = elsewhere
    world.clock.leap(120_000)
    await stage.slowly(3)
    assert not stage.store.control("default").paused
    assert stage.named("payment_undone") == []
    assert stage.booked() == booked


async def test_each_payment_that_stays_unsafe_is_said_for_itself(world: World, stage: Stage) -> None:
    """No provider names a safe block: said once for the first payment, and once more for the second."""
    evm(world).tags_known = False
    old = await stage.until(State.CREDITED)
    world.clock.leap(HOUR_MS)
    await stage.steps(5)
    assert [e.topup_id for e in stage.named("not_yet_safe")] == [old.id]
    evm(world).tags_known = True
    await stage.until(State.DONE)
    evm(world).tags_known = False
    world.clock.leap(26 * HOUR_MS)
    new = await another(stage, old, State.CREDITED)
    world.clock.leap(HOUR_MS)
    await stage.steps(5)
    assert [e.topup_id for e in stage.named("not_yet_safe")] == [old.id, new.id]


async def test_money_that_leaves_without_our_event_is_in_the_books(world: World, stage: Stage) -> None:
    """The contract's code was swapped for one that keeps the ETH: a person is asked, and the books match to the wei."""
    await stage.out()
    stage.inside(lambda: world.chain.set_code(contracts.PAYMENT_PROTOCOL, b"\x00"))
    world.mining = True
    await stage.until(State.HALTED)
    await stage.steps(20)
    assert stage.topup.state is State.HALTED
    assert not stage.named("payment_reverted")
    assert stage.left() > stage.topup.out[0].plan.value.units
    assert stage.booked() == stage.left()


async def test_a_look_that_finds_no_proof_yet_is_not_used_up(world: World, start: Start) -> None:
    """The second provider cannot show its logs when a person says to look: the word holds until it can."""
    stage = start()
    await stage.expired()
    halted = await stage.until(State.HALTED)
    await stage.close()
    second = world.provider()
    second.intercept = failing("eth_getLogs", RpcError(-32000, "limit reached"))
    stage = start(two(world, second))
    stage.say("look", halted)
    await stage.steps(4)
    assert stage.topup.state is State.HALTED
    second.intercept = None
    failed = await stage.until(State.FAILED)
    assert failed.charges[0].dead is not None


async def test_bytes_of_a_dead_charge_are_not_sent_again(world: World, start: Start) -> None:
    """The payment in its place is refused as underpriced for a while: the dead bytes would only burn gas."""
    second = world.provider()
    stage = start(two(world, second))
    topup = await stage.out()
    dead = ["0x" + (a.raw or b"").hex() for a in topup.out]
    stage.hold(topup)
    again: list[str] = []

    async def refuse(method: str, params: list[Any], honest: Next) -> Any:
        if method != "eth_sendRawTransaction":
            return honest()
        if params[0] in dead:
            again.append(params[0])
        raise RpcError(-32000, "replacement transaction underpriced")

    world.clock.leap(EXPIRY_MS)
    world.mining = True
    await stage.until(State.DECIDED, State.ASKING, State.CHARGED, State.SENT, passes=1)
    world.rpc.intercept = second.intercept = refuse
    assert (await stage.outbid(passes=120)).out[-1].charge_seq == 2
    again.clear()
    await stage.steps(12)
    assert stage.topup.state is State.SENT
    assert again == []
    world.rpc.intercept = second.intercept = None
    await stage.paid_once()


async def test_a_baseline_that_never_settles_is_said_every_hour(tmp_path: Path) -> None:
    """Somebody feeds the account as fast as it is used: nothing is signed, which is said, and said an hour later."""
    with World(embedded) as world:
        account = world.gateway.account
        stage = Stage(world, tmp_path, world.clock)

        async def for_minutes(count: int) -> str:
            for _ in range(count):
                stage.inside(lambda: account.buy_elsewhere(Decimal(1)))
                stage.inside(lambda: account.set_usage(account.total_usage + 1))
                rest = await stage.works.cycle.run(None)
                world.clock.leap(60_500)
            return rest.why

        assert await for_minutes(25) == "baseline_unsettled"
        assert not stage.named("baseline_unsettled")
        await for_minutes(15)
        (said,) = stage.named("baseline_unsettled")
        assert said.waited_s >= 1800
        await for_minutes(60)
        assert len(stage.named("baseline_unsettled")) == 2
        assert stage.topup.out == ()
        await stage.close()
