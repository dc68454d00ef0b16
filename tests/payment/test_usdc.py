"""Is a charge paid in USDC as safely as one paid in ETH? Two transactions, each written before it is sent."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from tests.world.grounds import allowed
from tests.world.stage import Stage, Start, two
from tests.world.stand import Stand, lie, stand_on
from topup.accounting.journal import IN_TRANSIT, WALLET, Commodity
from topup.chain.contract_chain import EvmChain
from topup.chain.contracts import token_payment_data
from topup.chain.profiles import BASE, Profile
from topup.chain.reverts import decoded, whose_pause
from topup.domain.coinbase_charge import Charge
from topup.domain.credits import HOUR_MS
from topup.domain.errors import Reverted
from topup.domain.lifecycle import Kind, State, TopUp
from topup.domain.money import Asset, Usdc, Wei
from topup.ports.chain import UNTRIED, Call, Simulation
from topup.sandbox import contracts
from topup.sandbox.anvil import Anvil
from topup.sandbox.rpc import Next, RpcError
from topup.sandbox.world import STEPPED, World, embedded

USDC = {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"}
HELD = 20_000_000
TOTAL = 10_500_000


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose wallet holds twenty dollars beside its ETH."""
    with World(embedded, scale=STEPPED) as world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, HELD)))
        yield world


def held(stage: Stage) -> int:
    """Return the wallet's USDC on the chain."""
    return int(stage.inside(lambda: stage.world.usdc(stage.world.wallet)))


def gas_is_booked(stage: Stage) -> bool:
    """Tell whether the books know the ETH that has left the wallet."""
    return stage.left() == -stage.in_books(WALLET, Commodity.ETH)


async def test_a_charge_is_paid_in_usdc_by_two_transactions(start: Start) -> None:
    """The contract is allowed exactly the total, takes it, and may take nothing afterwards; the books match."""
    stage = start(USDC)
    topup = await stage.until(State.DONE)
    approval, payment = topup.out
    assert (approval.plan.kind, payment.plan.kind) == (Kind.APPROVE, Kind.PAY)
    assert approval.plan.asset is payment.plan.asset is Asset.USDC
    assert payment.inclusion is not None
    assert payment.inclusion.tokens == Usdc(TOTAL)
    assert held(stage) == HELD - TOTAL
    assert allowed(stage.world) == 0
    assert stage.in_books(WALLET, Commodity.USDC) == -TOTAL
    assert stage.in_books(IN_TRANSIT, Commodity.USDC) == 0
    assert gas_is_booked(stage)
    assert stage.payments() == 1


async def test_nothing_is_approved_that_the_wallet_does_not_hold(world: World, start: Start) -> None:
    """A wallet that is short of dollars rests, says how many are missing, and has sent nothing."""
    world.do(lambda: world.write(contracts.usdc_balance(world.wallet, TOTAL - 1)))
    stage = start(USDC)
    rest = await stage.rests("wallet_low")
    assert "0.000001" in stage.named("payment_forbidden")[-1].remedy
    assert "10.499999" in rest.detail
    assert stage.topup.out == ()


async def test_an_approval_that_is_late_is_outbid_by_itself(start: Start) -> None:
    """No block takes the approval: the same is sent dearer at its nonce, and the payment follows once."""
    stage = start(USDC)
    await stage.held()
    await stage.until(State.DONE)
    kinds = [(a.plan.kind, a.plan.nonce) for a in stage.topup.out]
    assert kinds == [(Kind.APPROVE, 0), (Kind.APPROVE, 0), (Kind.PAY, 1)]
    assert held(stage) == HELD - TOTAL
    assert gas_is_booked(stage)


async def approved_and_paused(stage: Stage) -> TopUp:
    """Let the approval stand in a block, and have somebody pause buying before the payment and cancel it."""
    topup = await stage.out()
    stage.pause()
    stage.world.mining = True
    await stage.until(State.CHARGED)
    await stage.rests("paused")
    assert allowed(stage.world) == TOTAL
    stage.say("cancel", topup)
    await stage.steps(2)
    assert stage.topup.state is State.DROPPED
    return topup


async def test_an_approval_that_outlives_its_charge_is_taken_back(start: Start) -> None:
    """A person cancels between approval and payment: the permission is set to none, and booked as gas."""
    stage = start(USDC | {"TOPUP_POLICY__COOLDOWN_S": "86400"})
    await approved_and_paused(stage)
    stage.pause("0")
    for _ in range(80):
        await stage.step()
        if stage.named("approval_revoked") and gas_is_booked(stage):
            break
    assert allowed(stage.world) == 0
    assert len(stage.named("approval_revoked")) == 1
    assert gas_is_booked(stage)
    assert stage.in_books(WALLET, Commodity.USDC) == 0


async def test_a_provider_that_denies_the_approval_burns_no_gas(world: World, start: Start) -> None:
    """One of two says that nothing is allowed: one approval is paid for, and why it goes no further is said."""
    second = world.provider()
    asked = "0xdd62ed3e"  # allowance(address,address)
    second.intercept = lie("eth_call", to=lambda _: "0x" + "0" * 64, when=lambda p: p[0].get("data", "")[:10] == asked)
    stage = start(USDC | two(world, second))
    await stage.rests("approval_unseen")
    await stage.steps(10)
    assert [a.plan.kind for a in stage.topup.out] == [Kind.APPROVE]
    (told,) = stage.store.past("default", 0, 0)
    assert told.revert_gas.units == stage.left() > 0
    assert [e.why for e in stage.named("payment_forbidden")] == ["approval_unseen"]
    second.intercept = None
    await stage.until(State.DONE)
    assert stage.payments() == 1
    (told,) = stage.store.past("default", 0, 0)
    assert told.revert_gas.units == 0


async def test_a_permission_of_another_wallet_is_not_taken_back_with_this_key(world: World, start: Start) -> None:
    """The key was changed while an approval stood: nothing is signed for the old wallet, and that is said."""
    settings = USDC | {"TOPUP_POLICY__COOLDOWN_S": "600"}
    stage = start(settings)
    topup = await approved_and_paused(stage)
    await stage.close()
    key = "0x" + "11" * 32
    stage = start(settings | {"TOPUP_WALLET__PRIVATE_KEY": key})
    stage.inside(lambda: world.chain.set_balance(Account.from_key(key).address, 10**18))
    stage.pause("0")
    await stage.steps(20)
    assert len(stage.named("approval_stands")) == 1
    assert "whose key this is not" in stage.named("approval_stands")[0].detail
    kept = next(t for t in stage.store.latest("default", 9) if t.id == topup.id)
    assert [a.plan.kind for a in kept.out] == [Kind.APPROVE]
    assert allowed(world) == TOTAL


@pytest.mark.parametrize(
    ("contract", "token", "says"),
    [
        (True, False, "the payment contract is paused"),
        (False, True, "USDC itself is paused"),
        (True, None, "the payment contract is paused"),
        (None, False, "the payment contract is paused"),
        (None, True, "USDC itself is paused"),
        (False, None, "USDC itself is paused"),
        (True, True, "the payment contract or USDC is paused"),
        (None, None, "the payment contract or USDC is paused"),
    ],
)
def test_a_pause_is_said_of_whoever_is_paused(contract: bool | None, token: bool | None, says: str) -> None:  # noqa: FBT001
    """Both say it in the same words; which of the two it is they tell when they are asked, if they do."""
    error = decoded(keccak(text="Error(string)")[:4] + encode(["string"], ["Pausable: paused"]))
    assert says in str(whose_pause(error, contract=contract, token=token))
    other = decoded(keccak(text="Error(string)")[:4] + encode(["string"], ["TF"]))
    assert whose_pause(other, contract=True, token=False) is other


Writes = Callable[[World], list[contracts.StorageWrite]]
STOPS: Final[dict[str, tuple[Writes, str]]] = {
    "paused": (lambda _: contracts.payments_paused(paused=True), "the payment contract is paused (Pausable: paused)"),
    "token paused": (lambda _: contracts.usdc_paused(paused=True), "USDC itself is paused (Pausable: paused)"),
    "no such operator": (lambda w: contracts.fee_destination(w.operator.address, None), "OperatorNotRegistered"),
    "recipient blacklisted": (lambda w: contracts.usdc_blacklisted(w.operator.terms.recipient), "Blacklistable"),
}


@pytest.mark.parametrize("why", STOPS)
async def test_nothing_is_approved_for_a_payment_that_cannot_go_through(world: World, start: Start, why: str) -> None:
    """The contract's own reason is told before anything is signed: no gas is spent, and no allowance is left behind."""
    writes, words = STOPS[why]
    stage = start(USDC)
    stage.inside(lambda: world.write(writes(world)))
    rest = await stage.rests("simulation")
    assert words in rest.detail
    assert stage.topup.attempts == ()
    assert (held(stage), allowed(world), stage.left()) == (HELD, 0, 0)


async def test_a_contract_that_is_paused_after_the_approval_is_waited_for(world: World, start: Start) -> None:
    """The payment contract stops between the two: the dry run refuses, nothing more is sent, and it goes on later."""
    stage = start(USDC)
    await stage.out()
    world.do(lambda: world.write(contracts.payments_paused(paused=True)))
    world.mining = True
    await stage.rests("simulation")
    assert [a.plan.kind for a in stage.topup.out] == [Kind.APPROVE]
    world.do(lambda: world.write(contracts.payments_paused(paused=False)))
    await stage.until(State.DONE)
    assert stage.payments() == 1


@pytest.mark.parametrize("pay_with", ["usdc", "eth"])
async def test_an_approval_is_taken_back_although_the_next_charge_was_refused(
    world: World, start: Start, pay_with: str
) -> None:
    """The seller is gone when the second charge is asked for: each pass goes on, and the permission is set to none.

    It is the first charge's, whatever came after it; and it can be taken back when ETH is paid with again.
    """
    settings = {**USDC, "TOPUP_POLICY__COOLDOWN_S": "86400"}
    stage = start(settings)
    await stage.out()
    stage.inside(lambda: world.write(contracts.payments_paused(paused=True)))
    world.mining = True
    await stage.rests("simulation")
    stage.inside(lambda: world.gateway.switch_on("coinbase", "gone-410", None))
    for _ in range(6):
        world.clock.leap(25 * HOUR_MS)
        stage.mine()
        await stage.step()
        if stage.topup.state is State.DROPPED:
            break
    assert [c.raw is None for c in stage.topup.charges] == [False, True]
    await stage.close()
    again = start({**settings, "TOPUP_RAILS__COINBASE__PAY_WITH": pay_with})
    for _ in range(40):
        assert (await again.step()).why == "endpoint_gone"
        if again.named("approval_revoked"):
            break
    assert allowed(world) == 0
    assert [a.charge_seq for a in again.topup.out] == [1, 1]


# -- the dry run of an approval ---------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "anvil"])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A chain without eth_simulateV1 and one with it, on which the wallet holds twenty dollars."""
    for stand in stand_on(request.param):
        stand.write(*contracts.usdc_balance(stand.world.wallet, HELD))
        stand.mine()
        yield stand


def dry_run(stand: Stand, demand: Charge, profile: Profile = BASE) -> Simulation:
    """Run the approval dry, and the payment that it is for."""
    payment = Call(stand.wallet, demand.contract, token_payment_data(demand.intent), Wei(0), tokens=demand.total)
    at = stand.head()
    return stand.ask(
        lambda chain: chain.simulate(
            replace(chain.approval(stand.wallet, demand.contract, demand.total), then=payment), demand, at
        ),
        edge=partial(EvmChain, profile),
    )


def test_both_are_run_dry_in_one_request(stand: Stand) -> None:
    """An honest charge: the estimate is the approval's alone, and the proof has no doubt in it."""
    demand, before = stand.demand(), stand.world.rpc.requests
    dry = dry_run(stand, demand)
    assert stand.world.rpc.requests == before + 1
    assert not dry.proof.endswith(UNTRIED)
    assert dry.gas < 80_000
    assert allowed(stand.world) == 0


def test_a_slot_that_the_token_does_not_use_proves_nothing(stand: Stand) -> None:
    """The token does not answer with what was written: it is said where nothing else shows the payment."""
    stand.write(*contracts.payments_paused(paused=True))
    stand.mine()
    elsewhere = replace(BASE, allowance_slot=2)
    if isinstance(stand.world.chain, Anvil):
        with pytest.raises(Reverted):
            dry_run(stand, stand.demand(), elsewhere)
    else:
        assert dry_run(stand, stand.demand(), elsewhere).proof == "eth_call" + UNTRIED


@pytest.mark.parametrize("how", ["ignored", "refused"])
def test_a_node_that_changes_no_state_for_a_call(stand: Stand, how: str) -> None:
    """It ignores the third parameter or refuses it, and knows no eth_simulateV1: the payment counts as not tried."""

    async def older(asked: str, params: list[Any], honest: Next) -> Any:
        if asked == "eth_simulateV1" or (how == "refused" and len(params) > 2):
            raise RpcError(-32602, "too many arguments, want at most 2")
        return stand.world.chain.rpc(asked, params[:2]) if asked == "eth_call" else honest()

    stand.bend(0, older)
    assert dry_run(stand, stand.demand()).proof == "eth_call" + UNTRIED


def test_a_revert_of_the_payment_is_told_by_its_name(stand: Stand) -> None:
    """A charge that was altered is refused by the contract itself, although nothing is allowed to it yet."""
    honest = stand.demand()
    altered = replace(honest, intent=replace(honest.intent, recipient_amount=honest.intent.recipient_amount + 1))
    with pytest.raises(Reverted) as refused:
        dry_run(stand, altered)
    assert refused.value.name == "InvalidSignature"
