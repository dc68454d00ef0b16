"""Is what only a log shows dead only where logs of its time are known to be there?

The dollar of the embedded world stands for any token: what its use leaves is looked for by its log alone, as a payment
is whose fee somebody else pays.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.proofs import sponsored_model
from tests.world import builders
from tests.world.builders import settled
from tests.world.stand import always, changed, failing
from tests.world.till import Authorization, Till, till_with
from topup.chain import agreement, control
from topup.chain.agreement import Answers, Disagreement, Vote
from topup.chain.blocks import head
from topup.chain.charge_status import Account
from topup.chain.paging import Pager
from topup.chain.rpc import Rpc
from topup.chain.search import Search, Unkept
from topup.chain.token_chain import AuthorizedChain
from topup.domain.errors import ChainUnknown
from topup.domain.events import ProvidersDisagree
from topup.domain.lifecycle import SPONSORED_MARGIN_S, Attempt, Broadcaster, ChargeRow, Inclusion
from topup.domain.money import Usdc, Wei
from topup.domain.nonpayment import ChargeStatus, NonPaymentProof, Paid, Undecided, may_sign, non_payment_proof
from topup.ports.budget import Budget
from topup.ports.chain import AuthorizationUse, Head
from topup.sandbox.rpc import RpcError
from topup.wire.clock import SystemClock


@pytest.fixture
def till() -> Iterator[Till]:
    yield from till_with(2)


def unmarked(one: Authorization) -> AuthorizationUse:
    """Return what is looked for when the chain keeps no mark of it."""
    return replace(one.use, mark=None, ends_s=one.valid_before)


def dead(till: Till, one: Authorization) -> object:
    """Ask for the fate and judge it as a sponsored attempt that may have left."""
    told = till.payment_status(unmarked(one))
    return judged(told, one.valid_before)


def undecided(till: Till, one: Authorization) -> bool:
    """Tell whether nothing is concluded, for want of an answer or of a second one."""
    try:
        return isinstance(dead(till, one), Undecided)
    except ChainUnknown:
        return True


def judged(told: ChargeStatus, ends_s: int) -> object:
    """Judge what is known of a sponsored attempt that ends then."""
    attempt = sponsored(ends_s)
    assert attempt.plan.sponsored
    return non_payment_proof(
        builders.topup(attempts=(attempt,)), 1, deadline_s=attempt.plan.over_s, payment_status=told, flag_tested=False
    )


def sponsored(ends_s: int) -> Attempt:
    """A sponsored attempt that may have left and ends then."""
    plan = replace(builders.plan(broadcaster=Broadcaster.SERVER, nonce=0, lane=1), ends_s=ends_s)
    return Attempt(1, 1, plan, b"", b"\1" * 32, 1, 1, 1, withdrawn=False, inclusion=None, booked=False)


def over(till: Till, *, paid: bool = False, control_first: bool = False) -> Authorization:
    """Sign one, and let its time and a minute more go by, with somebody else's payment before or after its end."""
    one = till.authorization()
    if paid:
        till.carry(one)
    if control_first:
        till.carry(till.authorization(Usdc(3)))
    till.later(600 + 5)
    if not control_first:
        till.carry(till.authorization(Usdc(3)))
    till.later(SPONSORED_MARGIN_S)
    till.mine(12)
    return one


def emptied(till: Till, number: int) -> None:
    """Let a provider's index of logs be empty."""
    till.bend(number, "eth_getLogs", to=always([]))


def test_its_log_alone_shows_a_payment_without_a_mark(till: Till) -> None:
    """Where it stands and what it took; no mark is asked for, and none is told."""
    one = till.authorization()
    (tx_hash,) = till.carry(one)
    use = unmarked(one)
    told = till.look(use)
    seen = told.seen[use.key]
    assert (seen.trusted, seen.wallet_check, seen.inclusion.tx_hash) == (True, "exact", tx_hash)
    assert told.used == frozenset()
    assert till.ask(lambda chain: chain.preflight(till.wallet, use.token, [use])).tokens is not None


def test_it_is_dead_a_minute_past_its_end_by_two_who_show_a_log_of_then(till: Till) -> None:
    """Not at its end, not by one provider, and not without the control."""
    one = till.authorization()
    till.later(605)
    till.carry(till.authorization(Usdc(3)))
    till.mine(12)
    assert isinstance(dead(till, one), Undecided)
    till.later(SPONSORED_MARGIN_S)
    till.mine(12)
    assert dead(till, one) is NonPaymentProof.DEADLINE
    till.servers = till.servers[:1]
    by_one = Undecided("one provider is no proof: two independent ones have to agree", NonPaymentProof.DEADLINE)
    assert dead(till, one) == by_one


def test_where_nobody_has_sent_anything_since_nothing_is_dead(till: Till) -> None:
    """A log from before its end says nothing of an index that may stop there."""
    one = over(till, control_first=True)
    with pytest.raises(ChainUnknown, match="nothing shows that logs are kept"):
        till.payment_status(unmarked(one))


@pytest.mark.parametrize("number", [0, 1])
def test_a_provider_without_logs_is_no_witness(till: Till, number: int) -> None:
    """It shows blocks and receipts and returns no log: its silence counts for nothing, whoever it is."""
    one = over(till)
    emptied(till, number)
    with pytest.raises(ChainUnknown, match="does not return a log"):
        dead(till, one)
    till.providers(3)  # beside it two others are enough
    assert dead(till, one) is NonPaymentProof.DEADLINE
    assert {type(event) for event in till.said} == {ProvidersDisagree}, "it is named, and not set aside"


def test_two_without_logs_prove_nothing(till: Till) -> None:
    """That both return none of the payment is no proof: it was made."""
    one = over(till, paid=True)
    for number in (0, 1):
        emptied(till, number)
    with pytest.raises(ChainUnknown, match="does not return a log"):
        till.payment_status(unmarked(one))
    for server in till.servers:
        server.intercept = None
    assert isinstance(dead(till, one), Paid)


def behind(till: Till, number: int, block: int) -> None:
    """Let a provider's index of logs reach up to a block only."""
    till.bend(number, "eth_getLogs", to=lambda told: [log for log in told if int(log["blockNumber"], 16) <= block])


def test_an_index_that_stops_before_the_payment_proves_nothing(till: Till) -> None:
    """It returns a log of the range from before the payment, and hides the payment: that log is no control."""
    one = till.authorization()
    till.carry(till.authorization(Usdc(3)))
    last = int(till.rpc("eth_blockNumber"), 16)
    till.carry(one)
    till.later(605)
    till.carry(till.authorization(Usdc(4)))
    till.later(SPONSORED_MARGIN_S)
    till.mine(12)
    for number in (0, 1):
        behind(till, number, last)
    with pytest.raises(ChainUnknown, match="does not return a log"):
        till.payment_status(unmarked(one))


def remembering(till: Till) -> Callable[[Callable[[AuthorizedChain], Any]], Any]:
    """Return how to ask with a search that remembers what it has read."""
    clock = SystemClock()
    search = Search(1, Pager(Budget(clock)), Unkept(), clock)

    def ask(act: Callable[[AuthorizedChain], Any]) -> Any:
        async def on(chain: AuthorizedChain) -> Any:
            chain._search = search
            return await act(chain)

        return till.ask(on)

    return ask


def test_what_was_read_while_logs_were_behind_is_read_again(till: Till) -> None:
    """Every look found nothing, and remembers to have read those blocks; the proof does not rest on it."""
    one = till.authorization()
    use = unmarked(one)
    ask = remembering(till)
    last = int(till.rpc("eth_blockNumber"), 16)
    for number in (0, 1):
        behind(till, number, last)
    (tx_hash,) = till.carry(one)
    till.mine(200)
    assert ask(lambda chain: chain.look([(use, None)])).seen == {}
    for server in till.servers:
        server.intercept = None
    assert ask(lambda chain: chain.look([(use, None)])).seen == {}, "two hundred blocks back is not looked again"
    till.later(605)
    till.carry(till.authorization(Usdc(4)))
    till.later(SPONSORED_MARGIN_S)
    till.mine(12)
    assert ask(lambda chain: settled(chain.payment_status(use))).payers == {tx_hash}
    assert ask(lambda chain: chain.look([(use, None)])).seen[use.key].inclusion.tx_hash == tx_hash


def test_logs_that_are_a_few_blocks_behind_are_found_by_the_next_look(till: Till) -> None:
    """The last minute's blocks are read again each time."""
    one = till.authorization()
    use = unmarked(one)
    till.servers = till.servers[:1]
    ask = remembering(till)
    last = int(till.rpc("eth_blockNumber"), 16)
    behind(till, 0, last)
    till.carry(one)
    till.mine(20)
    assert ask(lambda chain: chain.look([(use, None)])).seen == {}
    till.servers[0].intercept = None
    assert use.key in ask(lambda chain: chain.look([(use, None)])).seen


def test_one_that_hides_the_payment_and_shows_the_control_decides_nothing(till: Till) -> None:
    """A liar may return any log but ours: it is held against the other one, word for word."""
    one = over(till, paid=True)
    ours = "0x" + one.nonce.hex()
    till.bend(1, "eth_getLogs", to=lambda told: [log for log in told if ours not in log["topics"]])
    with pytest.raises(ChainUnknown, match="the providers disagree"):
        till.payment_status(unmarked(one))


def test_an_invented_inclusion_is_taken_back_by_its_own_block(till: Till) -> None:
    """The block stands and its list of transactions lacks this one: no mark is needed to say that it never was."""
    one = till.authorization()
    use = unmarked(one)
    till.mine(3)
    block = till.rpc("eth_getBlockByNumber", "latest", False)
    number, there = int(block["number"], 16), bytes.fromhex(block["hash"][2:])
    none = Wei(0)
    invented = Inclusion(number, there, 0, True, none, none, none, tokens=use.tokens, tx_hash=b"\7" * 32)
    till.mine(2)
    told = till.ask(lambda chain: chain.look([(use, invented)], every=True))
    assert told.unspent == {use.key}
    assert told.replaced == frozenset()
    (tx_hash,) = till.carry(one)
    seen = till.look(use).seen[use.key].inclusion
    till.mine(2)
    again = till.ask(lambda chain: chain.look([(use, seen)], every=True))
    assert (again.unspent, seen.tx_hash) == (frozenset(), tx_hash)
    for number in (0, 1):  # and who only hides the log takes nothing back
        emptied(till, number)
    hidden = till.ask(lambda chain: chain.look([(use, seen)], every=True))
    assert (hidden.unspent, hidden.seen) == (frozenset(), {})


def test_a_control_that_is_no_log_of_its_block_is_refused(till: Till) -> None:
    """A provider that cannot be read, or shows another block's log, is no witness."""
    one = over(till)
    changes: list[dict[str, Any]] = [{"topics": None}, {"address": "0x"}, {"logIndex": "x"}]
    for change in (*changes, {"blockHash": "0x" + "07" * 32}):
        till.bend(1, "eth_getLogs", to=changed(**change))
        assert undecided(till, one)
    till.bend(1, failing("eth_getTransactionReceipt", RpcError(-32005, "rate limit exceeded")))
    assert undecided(till, one)


# -- the program, held against the model of sponsored payloads -------------------------------------------------------

ENDS_S = builders.NOW_S
TIMES_S = (ENDS_S - 1, ENDS_S + 1, ENDS_S + SPONSORED_MARGIN_S + 1)


def account(view: sponsored_model.View) -> Account | None:
    """Return what the program hears of an owner with this view; None where it refuses to be a witness."""
    at = Head(200, b"\x0f" * 32, TIMES_S[view.time])
    if not view.control:
        return None
    return Account(at, at, flag=False, payers=frozenset({b"\7" * 32} if view.memo else set()), control=b"c")


def program(one: sponsored_model.View, other: sponsored_model.View) -> bool:
    """Tell whether the program takes A for dead by what two owners show."""
    told = [a for a in (account(one), account(other)) if a is not None]
    votes = [Vote(f"o{n}", f"p{n}", a) for n, a in enumerate(told)]
    if not votes:
        return False
    try:
        payment_status = agreement.payment_status(Answers(votes))
    except Disagreement:
        return False
    return isinstance(judged(payment_status, ENDS_S), NonPaymentProof)


def test_a_sender_that_asks_the_program_never_pays_a_sponsored_one_twice() -> None:
    """In every state of the model, whatever its owners may say: the program calls dead what the rule does, no more."""
    states = sponsored_model.explore(sponsored_model.RULE).reached
    pairs = {pair for state in states if "A" in state.out for pair in sponsored_model.views(state, final=True)}
    said = {pair: program(*pair) for pair in pairs}
    assert any(said.values())
    for (one, other), concluded in said.items():
        proven = sponsored_model.shown_dead(one) and sponsored_model.shown_dead(other)
        assert concluded == proven, (one, other)


def test_a_charge_whose_sponsored_payment_left_is_never_signed_again() -> None:
    """The chain would run the second payload beside the first, for nothing but its bytes binds it."""
    out = sponsored(ENDS_S)
    row = (ChargeRow(1, 1, b"{}", None, proven=True),)
    forbidden = may_sign(builders.topup(charges=row, attempts=(out,)), 1)
    assert forbidden is not None
    assert "sponsored" in forbidden
    assert may_sign(builders.topup(charges=row, attempts=(replace(out, intended_ms=None),)), 1) is None
    paid_by_us = replace(out, plan=replace(out.plan, token_fee=Usdc(1)))
    assert may_sign(builders.topup(charges=row, attempts=(paid_by_us,)), 1) is None


def test_looking_for_a_control_takes_from_what_a_pass_may_ask(till: Till) -> None:
    """However many blocks hold transactions without logs: a dozen questions, and none where no more may be asked."""
    one = over(till)
    till.mine(3 * control.BLOCKS)
    till.bend(0, "eth_getTransactionReceipt", to=changed(logs=[]))
    till.bend(0, "eth_getBlockByNumber", to=changed(transactions=["0x" + "11" * 32] * 9))
    taken: list[Rpc] = []

    def may(rpc: Rpc, most: int) -> bool:
        taken.append(rpc)
        return len(taken) <= most

    async def found(rpc: Rpc, most: int) -> None:
        final = head(await rpc.ask("eth_getBlockByNumber", "latest", False))
        await control.control(rpc, final, one.valid_before, partial(may, most=most))

    with pytest.raises(ChainUnknown, match="nothing shows that logs are kept"):
        till.through(partial(found, most=250))
    assert len(taken) == 2 * control.BLOCKS // control.AT_ONCE
    taken.clear()
    with pytest.raises(ChainUnknown, match="asked as much as a pass may"):
        till.through(partial(found, most=0))
