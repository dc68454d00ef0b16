"""Is an authorization that somebody else carries seen where it paid, and nowhere else?

The dollar of the embedded world takes transfers authorised by signature (EIP-3009). A stranger carries them, providers
lie about it; at the end a whole transaction is carried on a Tempo chain.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest
import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from tests import tools
from tests.world import builders
from tests.world.builders import settled
from tests.world.stand import failing, lie, limited
from tests.world.till import DOLLAR, HELD, SELLER, TEN, Authorization, Till, till_with
from topup.chain import agreement
from topup.chain.agreement import Answers, Vote
from topup.chain.providers import Providers
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Rpc
from topup.chain.token_chain import AuthorizedChain
from topup.domain.errors import ChainUnknown, PaymentForbidden, WrongChain
from topup.domain.events import ProvidersDisagree
from topup.domain.lifecycle import Attempt, Broadcaster
from topup.domain.money import Usdc, Wei
from topup.domain.nonpayment import NonPaymentProof, Undecided, non_payment_proof
from topup.ports.chain import UNMEASURED, AuthorizationUse, Head, Observation, Seen
from topup.sandbox import contracts
from topup.sandbox.rpc import Intercept, Next, RpcError
from topup.sandbox.tempo import CHAIN_ID as TEMPO_ID
from topup.sandbox.tempo import USDC_E, Tempo

T = TypeVar("T")
STATES = 4  # the slot of authorizationState


RATE = RpcError(-32005, "rate limit exceeded")


@pytest.fixture
def till() -> Iterator[Till]:
    yield from till_with(1)


@pytest.fixture
def both() -> Iterator[Till]:
    yield from till_with(2)


def only_marks(told: str) -> str:
    """Whether an authorization was used is told, and no balance."""
    if int(told, 16) > 1:
        raise RATE
    return told


# What is seen


def test_a_carried_authorization_is_seen_with_what_it_took(till: Till) -> None:
    """Whose transaction it was, where it stands, exactly how much left, and that the wallet paid no fee."""
    use, tx_hash = till.paid()
    told = till.look(use)
    block = till.rpc("eth_getBlockByNumber", "latest", False)
    seen = told.seen[use.key]
    place = seen.inclusion
    assert (seen.trusted, seen.reason, seen.wallet_check) == (True, "", "exact")
    assert (place.success, place.tokens, place.token_fee, place.tx_hash) == (True, TEN, Usdc(0), tx_hash)
    assert (place.gas, place.l1_fee, place.spent) == (Wei(0), Wei(0), Wei(0))
    assert (hex(place.block_number), "0x" + place.block_hash.hex()) == (block["number"], block["hash"])
    assert place.block_ms == int(block["timestamp"], 16) * 1000
    assert told.used == {use.key}


def test_what_nobody_carried_is_not_seen_and_costs_one_request(till: Till) -> None:
    """While the mark is zero no log is asked for; heights are told all the same."""
    told = till.look(till.authorization().use)
    assert (told.seen, told.used, told.replaced, told.nonce_latest) == ({}, frozenset(), frozenset(), 0)
    assert (told.head.number, told.finalized is None) == (int(till.rpc("eth_blockNumber"), 16), False)
    assert till.servers[0].requests == 1
    assert till.servers[0].asked["eth_getLogs"] == 0


def cancelled(till: Till, one: Authorization) -> None:
    slot = contracts.mapping_slot(STATES, till.world.wallet, one.nonce)
    till.world.do(lambda: till.world.chain.set_storage(contracts.USDC, slot, 1))


@pytest.mark.parametrize(
    ("act", "used"),
    [
        pytest.param(lambda till, _: till.carry(till.authorization()), False, id="another of same parties and amount"),
        pytest.param(cancelled, True, id="cancelled: the mark alone is no payment, and is told"),
    ],
)
def test_what_is_not_this_payment_is_not_seen(
    till: Till, act: Callable[[Till, Authorization], Any], *, used: bool
) -> None:
    """Only its own log shows a payment."""
    one = till.authorization()
    act(till, one)
    told = till.look(one.use)
    assert (told.seen, told.used) == ({}, frozenset({one.use.key} if used else ()))


def test_two_payments_in_one_block_are_told_apart(till: Till) -> None:
    """Each is seen as its own; that the balance fell by both is a remark and no doubt."""
    one, two = till.authorization(), till.authorization(Usdc(3))
    hashes = till.carry(one, two)
    told = till.look(one.use, two.use)
    assert [told.seen[a.use.key].inclusion.tx_hash for a in (one, two)] == hashes
    assert told.seen[one.use.key].wallet_check == "differs by 3 units of the token"
    assert all(seen.trusted for seen in told.seen.values())


@pytest.mark.parametrize(
    "wanted",
    [{"tokens": Usdc(10_000_001)}, {"recipient": b"\x0e" * 20}, {"sender": b"\x0e" * 20}, {"token": b"\x0e" * 20}],
    ids=["amount", "recipient", "sender", "token"],
)
def test_a_use_without_the_transfer_we_authorized_is_for_a_person(till: Till, wanted: dict[str, Any]) -> None:
    """The log stands there, and something else moved: it is seen, and not believed."""
    use, _ = till.paid()
    seen = till.seen(replace(use, **wanted))
    assert (seen.trusted, seen.inclusion.success, seen.inclusion.transient) == (False, True, False)
    assert "status 1 with 1 logs of its use and 0 transfers" in seen.reason


def test_what_an_unbelieved_use_took_is_measured(till: Till) -> None:
    """By the balance alone, or all that was authorized where nobody has the state."""
    use, _ = till.paid()
    other = replace(use, tokens=Usdc(7))
    assert till.seen(other).inclusion.tokens == TEN
    till.bend(0, "eth_call", to=only_marks)
    seen = till.seen(other)
    assert (seen.inclusion.tokens, seen.wallet_check) == (Usdc(7), UNMEASURED)


TWICE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "a second log of its use": (
        "eth_getTransactionReceipt",
        lambda told: {**told, "logs": [*told["logs"], told["logs"][0]]},
        "2 logs of its use and 1 transfers",
    ),
    "a second transfer": (
        "eth_getTransactionReceipt",
        lambda told: {**told, "logs": [*told["logs"], told["logs"][1]]},
        "1 logs of its use and 2 transfers",
    ),
    "a log in two transactions": (
        "eth_getLogs",
        lambda told: [*told, {**told[0], "transactionHash": "0x" + "07" * 32}],
        "2 transactions carry it",
    ),
}


@pytest.mark.parametrize("how", TWICE)
def test_what_is_said_twice_is_for_a_person(till: Till, how: str) -> None:
    """An authorization works once: what was paid is not clear, and whoever shows it twice is not believed."""
    method, to, words = TWICE[how]
    use, _ = till.paid()
    till.bend(0, method, to=to)
    seen = till.seen(use)
    assert not seen.trusted
    assert words in seen.reason


def test_without_old_state_the_cost_is_not_verified(till: Till) -> None:
    """The receipt alone says what was paid, and the look says so."""
    use, _ = till.paid()
    till.bend(0, "eth_call", to=only_marks)
    seen = till.seen(use)
    assert (seen.trusted, seen.wallet_check, seen.inclusion.tokens) == (True, UNMEASURED, TEN)


# A transaction whose hash was known before


def test_a_known_transaction_is_found_without_logs(till: Till) -> None:
    """Its receipt is asked for by hash; the rest is the same."""
    use, tx_hash = till.paid()
    till.bend(0, failing("eth_getLogs", RATE))
    seen = till.seen(replace(use, hash=tx_hash))
    assert (seen.trusted, seen.inclusion.tokens, seen.inclusion.tx_hash) == (True, TEN, tx_hash)


def test_a_known_transaction_that_failed_moved_nothing_and_is_over(till: Till) -> None:
    """An expired authorization reverts; what a wallet that pays its fees lost is told."""
    one = till.authorization()
    till.ahead_s += 601
    (tx_hash,) = till.carry(one)
    seen = till.seen(replace(one.use, hash=tx_hash))
    assert (seen.inclusion.success, seen.inclusion.transient, seen.trusted) == (False, False, True)
    assert (seen.inclusion.tokens, seen.inclusion.token_fee, seen.wallet_check) == (Usdc(0), Usdc(0), "exact")
    assert seen.reason == "reverted: it moved nothing, and was used up"
    receipt = till.rpc("eth_getTransactionReceipt", "0x" + tx_hash.hex())
    price = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    paying = till.seen(replace(one.use, hash=tx_hash, pays_fee=True))
    assert (paying.inclusion.token_fee.units - 1) * 10**12 < price <= paying.inclusion.token_fee.units * 10**12


def test_a_node_that_shows_no_receipt_at_all_is_no_witness(till: Till) -> None:
    """It fails for all of them, so that another may be asked."""
    use, tx_hash = till.paid()
    till.bend(0, failing("eth_getTransactionReceipt", RATE))
    with pytest.raises(ChainUnknown, match="a receipt: rate limit exceeded"):
        till.look(replace(use, hash=tx_hash))


# What is not believed


RECEIPT = "eth_getTransactionReceipt"
TAGLESS = failing("eth_getBlockByNumber", RpcError(-32602, "unknown tag"), lambda p: p[0] in ("safe", "finalized"))
# How a provider is bent, whether the payment is seen then, and whether its authorization is used.
SHOWN: dict[str, tuple[Intercept, bool, bool]] = {
    "a preconfirmation names a block that may never be": (
        lie(RECEIPT, to=lambda told: {**told, "blockHash": "0x" + "07" * 32}), False, True,
    ),
    "an answer has to be of the transaction asked for": (
        lie(RECEIPT, to=lambda told: {**told, "transactionHash": "0x" + "07" * 32}), False, True,
    ),
    "what was found by its log cannot have failed": (
        lie(RECEIPT, to=lambda told: {**told, "status": "0x0"}), False, True,
    ),
    "without logs nobody may take it for unpaid": (failing("eth_getLogs", RATE), False, True),
    "a mark that cannot be read hides no log": (failing("eth_call", RATE), True, False),
    "a node without tags still shows the payment": (TAGLESS, True, True),
}  # fmt: skip


@pytest.mark.parametrize("how", SHOWN)
def test_what_is_not_shown_is_neither_believed_nor_denied(till: Till, how: str) -> None:
    """Only a mark that is zero says that there is nothing to look for."""
    bent, seen, used = SHOWN[how]
    use, tx_hash = till.paid()
    till.bend(0, bent)
    told = till.look(use)
    assert [one.trusted for one in told.seen.values()] == [True] * seen
    assert told.used == ({use.key} if used else frozenset())
    if "preconfirmation" in how:
        assert till.look(replace(use, hash=tx_hash)).seen == {}
    if bent is TAGLESS:
        assert (told.safe, told.finalized, told.finalized_s) == (None, None, None), "unknown, and not at once"


def test_no_use_is_older_than_the_signature(till: Till) -> None:
    """What stands in an earlier block cannot be it."""
    use, tx_hash = till.paid()
    assert till.look(replace(use, hash=tx_hash, since=use.since + 2)).seen == {}


def test_a_replaced_block_shows(till: Till) -> None:
    """The recorded block stands; is gone, which proves nothing; is another one, in which it stands again."""
    use, _ = till.paid()
    recorded = till.seen(use).inclusion

    def looked() -> Observation:
        return till.ask(lambda chain: chain.look([(use, recorded)]))

    assert looked().replaced == frozenset()
    till.world.do(lambda: till.world.chain.reorg(1))
    gone = looked()
    assert (gone.seen, gone.used, gone.replaced) == ({}, frozenset(), frozenset())
    assert gone.finalized is None or gone.finalized < recorded.block_number
    till.later(7)
    again = looked()
    assert again.replaced == {use.key}
    assert again.seen[use.key].inclusion.block_hash != recorded.block_hash


def test_a_node_that_is_behind_the_logs_it_is_asked_for_says_nothing(till: Till) -> None:
    """Its answer to a range it does not have would look complete."""
    use, _ = till.paid()
    till.mine(12)
    last = till.rpc("eth_blockNumber")
    till.bend(0, "eth_getBlockByNumber", to=lambda _: None, when=lambda p: p[0] == last)
    assert till.look(use).seen == {}
    with pytest.raises(ChainUnknown, match=f"has no block {int(last, 16)}"):
        till.payment_status(use)


def test_a_range_that_is_too_long_is_read_in_halves(till: Till) -> None:
    """A provider that allows two blocks at once still shows it."""
    one = till.authorization()
    till.mine(6)
    till.carry(one)
    till.mine(2)
    till.bend(0, limited(2, "block range too large"))
    assert till.seen(one.use).trusted


@pytest.mark.parametrize(
    "change",
    [{"removed": True}, {"blockNumber": "0x0"}, {"topics": ["0x" + "07" * 32] * 3}, {"address": "0x" + "07" * 20}],
    ids=["removed", "too old", "other topics", "other contract"],
)
def test_a_log_that_was_not_asked_for_is_no_sight(till: Till, change: dict[str, Any]) -> None:
    """A node that answers with other logs is not read any further, and decides nothing."""
    use, _ = till.paid()
    till.mine(12)
    till.bend(0, "eth_getLogs", to=lambda told: [{**log, **change} for log in told])
    assert till.look(use).seen == {}
    with pytest.raises(ChainUnknown, match="a log was not asked for"):
        till.payment_status(use)


# Several providers


def unpaid(_: Any) -> str:
    return "0x" + "00" * 32


def test_one_of_two_that_hides_the_payment_delays_it(both: Till) -> None:
    """Neither seen nor used, until both show it."""
    use, _ = both.paid()
    assert both.seen(use).trusted
    both.bend(1, "eth_call", to=unpaid)
    told = both.look(use)
    assert (told.seen, told.used) == ({}, frozenset())


def test_one_of_two_cannot_invent_a_payment(both: Till) -> None:
    """A mark that is set, a log and a receipt, by one alone: nothing is seen."""
    _, tx_hash = both.paid()
    mine = both.authorization().use
    ours = ["0x" + (topic or b"").hex() for topic in mine.log[1]]
    receipt = both.rpc("eth_getTransactionReceipt", "0x" + tx_hash.hex())
    log = {**receipt["logs"][0], "topics": ours}

    async def invents(asked: str, params: list[Any], honest: Next) -> Any:
        lies: dict[str, Any] = {"eth_call": "0x" + "01".rjust(64, "0"), "eth_getLogs": [log]}
        lies |= {"eth_getTransactionReceipt": {**receipt, "logs": [log, *receipt["logs"][1:]]}}
        return lies.get(asked) or honest()

    both.bend(1, invents)
    mine = replace(mine, since=mine.since - 1)
    told = both.look(mine)
    assert (told.seen, told.used) == ({}, frozenset())
    both.servers = both.servers[1:]  # alone it would have been believed
    assert (both.look(mine).seen[mine.key].trusted, both.look(mine).used) == (True, frozenset({mine.key}))


def test_the_liar_among_three_is_outvoted(till: Till) -> None:
    """Two show the payment, and it is seen with what they show."""
    till.providers(3)
    use, tx_hash = till.paid()
    till.bend(1, "eth_call", to=unpaid)
    told = till.look(use)
    assert told.seen[use.key].inclusion.tx_hash == tx_hash
    assert told.used == {use.key}


@pytest.mark.parametrize("lie", [{"gasUsed": "0xffffff"}, {"logs": []}, {"status": "0x0"}])
def test_two_that_differ_in_what_it_took_show_nothing(both: Till, lie: dict[str, Any]) -> None:
    """Fee, amount and success are facts: both have to show the same, and they are named."""
    use, tx_hash = both.paid()
    paying = replace(use, hash=tx_hash, pays_fee=True)
    assert both.seen(paying).inclusion.token_fee > Usdc(0)
    both.bend(1, "eth_getTransactionReceipt", to=lambda told: {**told, **lie})
    assert both.look(paying).seen == {}
    assert [event.about for event in both.said if isinstance(event, ProvidersDisagree)] == [
        "the use of an authorization"
    ]


@pytest.mark.parametrize("change", [{"tx_hash": b"\x02" * 32}, {"tokens": Usdc(1)}, {"token_fee": Usdc(1)}])
def test_carrier_amount_and_fee_are_facts_to_agree_on(change: dict[str, Any]) -> None:
    """Two that show another transaction, or another cost, have not seen the same."""
    one = Seen(builders.inclusion(tx_hash=b"\x01" * 32), "", "exact", trusted=True)
    two = replace(one, inclusion=replace(one.inclusion, **change))
    assert joined(observation(seen={b"k": one}), observation(seen={b"k": two})).seen == {}
    assert joined(observation(seen={b"k": one}), observation(seen={b"k": one})).seen == {b"k": one}


keys = st.frozensets(st.sampled_from([b"a", b"b", b"c"]))


@given(honest=keys, liar=keys)
def test_one_liar_neither_of_two_nor_of_three_marks_what_is_not_used(
    *, honest: frozenset[bytes], liar: frozenset[bytes]
) -> None:
    """Of two, what both show; of three, what the honest two show."""
    told, lied = observation(used=honest), observation(used=liar)
    assert joined(told, lied).used == honest & liar
    assert joined(told, lied, told).used == honest


def observation(**changes: Any) -> Observation:
    return replace(Observation(Head(1, b"", 1), 1, 1, 1, 0, {}, frozenset()), **changes)


def joined(*told: Observation) -> Observation:
    votes = [Vote(f"o{n}", f"p{n}", ProviderObservation(one, {}, frozenset())) for n, one in enumerate(told)]
    return agreement.observation(Answers(votes), 2).value


def test_a_look_at_every_provider_needs_two_of_them(both: Till) -> None:
    """Where one would do and two are configured: what both show counts, and one alone concludes nothing."""
    use, _ = both.paid()

    def looked(*, every: bool) -> Observation:
        return both.ask(lambda chain: chain.look([(use, None)], every=every), needs=1)

    assert looked(every=True).used == {use.key}
    both.bend(1, "eth_call", to=unpaid)
    assert (looked(every=False).used, looked(every=True).used) == (frozenset({use.key}), frozenset())
    both.bend(1, failing("eth_getBlockByNumber", RATE))
    with pytest.raises(ChainUnknown, match="2 independent providers are needed, 1 answered"):
        looked(every=True)


# What a payment is planned on


def test_a_survey_is_one_request_and_says_what_the_wallet_holds(till: Till) -> None:
    """The wallet's own coin is never asked for: a chain may have none."""
    use = till.authorization().use
    told = till.ask(lambda chain: chain.preflight(till.wallet, DOLLAR, [use]))
    assert (told.tokens, told.balance, told.quotes, told.price_e8) == (Usdc(HELD), Wei(0), {}, None)
    assert (told.head.number, told.nonce_latest, told.nonce_pending) == (int(till.rpc("eth_blockNumber"), 16), 0, 0)
    assert told.base_fee > Wei(0)
    assert told.code_hash == keccak(contracts.runtime("Usdc"))
    assert till.servers[0].requests == 1
    assert till.servers[0].asked["eth_getBalance"] == 0


def test_the_least_tokens_of_two_providers_are_planned_with(both: Till) -> None:
    """Too many would plan what cannot be paid."""
    both.bend(0, "eth_call", to=lambda told: f"0x{2 * int(told, 16):064x}")
    assert both.ask(lambda chain: chain.preflight(both.wallet, DOLLAR)).tokens == Usdc(HELD)


def test_a_used_authorization_is_not_planned_with(till: Till) -> None:
    """Its mark is set: whatever it did, it will not pay again."""
    use, _ = till.paid()
    with pytest.raises(PaymentForbidden, match="was used already") as refusal:
        till.ask(lambda chain: chain.preflight(till.wallet, DOLLAR, [till.authorization().use, use]))
    assert refusal.value.reason == "authorization_used"


def test_an_address_without_code_is_no_token(till: Till) -> None:
    """Nothing there could ever take the authorization."""
    with pytest.raises(PaymentForbidden, match="there is no token at 0x5e11e5") as refusal:
        till.ask(lambda chain: chain.preflight(till.wallet, SELLER))
    assert refusal.value.reason == "no_code"


def test_a_mark_that_cannot_be_read_is_not_unused(till: Till) -> None:
    """An empty answer is no zero."""
    use = till.authorization().use
    till.bend(0, "eth_call", to=lambda told: told if int(told, 16) else "0x")
    with pytest.raises(ChainUnknown, match="an authorization's mark is '0x', not a word"):
        till.ask(lambda chain: chain.preflight(till.wallet, DOLLAR, [use]))


def test_another_chain_is_refused_everywhere(till: Till) -> None:
    """Preflight, look and fate each ask which chain it is."""
    use = till.authorization().use
    for act in (
        lambda chain: chain.preflight(till.wallet, DOLLAR),
        lambda chain: chain.look([(use, None)]),
        lambda chain: chain.payment_status(use),
    ):
        with pytest.raises(WrongChain, match="speaks for chain 8453, not 4217"):
            till.ask(act, edge=partial(AuthorizedChain, TEMPO_ID))


# What became of it


def judged(till: Till, one: Authorization) -> object:
    """Ask for the fate and judge it as an attempt that may have left."""
    told = till.payment_status(one.use)
    plan = builders.plan(broadcaster=Broadcaster.SERVER, nonce=0, lane=1)
    attempt = Attempt(1, 1, plan, b"", one.use.key, 1, 1, 1, withdrawn=False, inclusion=None, booked=False)
    kept = builders.topup(attempts=(attempt,))
    return non_payment_proof(kept, 1, deadline_s=one.valid_before, payment_status=told, flag_tested=True)


def test_unused_past_its_deadline_it_is_dead_by_two_witnesses(both: Till) -> None:
    """Not before a final block is past it, and never by one provider alone."""
    one = both.authorization()
    both.mine(12)
    assert isinstance(judged(both, one), Undecided)
    both.later(700)
    both.mine(12)
    assert judged(both, one) is NonPaymentProof.DEADLINE
    payment_status = both.payment_status(one.use)
    assert (payment_status.flag, payment_status.payers, payment_status.witnesses) == (False, frozenset(), 2)
    both.servers = both.servers[:1]
    by_one = Undecided("one provider is no proof: two independent ones have to agree", NonPaymentProof.DEADLINE)
    assert judged(both, one) == by_one


def test_a_used_one_names_who_carried_it(both: Till) -> None:
    """By its log, before any final block holds it; and by its hash where that is known and succeeded."""
    one = both.authorization()
    both.mine(12)
    (tx_hash,) = both.carry(one)
    payment_status = both.payment_status(one.use)
    assert (payment_status.flag, payment_status.payers, payment_status.witnesses) == (True, frozenset({tx_hash}), 2)
    silent = replace(one.use, hash=tx_hash, log=(SELLER, one.use.log[1]))
    assert both.payment_status(silent).payers == {tx_hash}
    unsent = replace(silent, hash=b"\x07" * 32)
    assert both.payment_status(unsent).payers == frozenset()


def test_a_known_transaction_that_failed_is_no_payer(till: Till) -> None:
    """Its receipt says 0: it stands in a block, and paid nobody."""
    one = till.authorization()
    till.later(700)
    (tx_hash,) = till.carry(one)
    till.mine(12)
    payment_status = till.ask(lambda chain: settled(chain.payment_status(replace(one.use, hash=tx_hash))))
    assert (payment_status.flag, payment_status.payers) == (False, frozenset())


@pytest.mark.parametrize("method", ["eth_getLogs", "eth_call", "eth_getTransactionReceipt"])
def test_a_fate_with_a_gap_is_undecided(till: Till, method: str) -> None:
    """A part of the logs, the mark or the receipt that cannot be had is never a "no"."""
    one = till.authorization()
    till.mine(12)
    till.bend(0, failing(method, RpcError(-32000, "missing trie node")))
    with pytest.raises(ChainUnknown, match="missing trie node"):
        till.ask(lambda chain: chain.payment_status(replace(one.use, hash=b"\x07" * 32)))


@pytest.mark.parametrize("falls_back", ["latest", "finalized", "number"])
def test_a_node_that_falls_back_behind_the_final_block_decides_nothing(till: Till, falls_back: str) -> None:
    """Between the two questions it was exchanged for one that is behind."""
    one = till.authorization()
    till.mine(12)
    asked_before: set[str] = set()
    old = till.rpc("eth_getBlockByNumber", "0x1", False)

    async def exchanged(asked: str, params: list[Any], honest: Next) -> Any:
        if asked != "eth_getBlockByNumber":
            return honest()
        tag = "number" if params[0].startswith("0x") else params[0]
        late = tag == "number" or tag in asked_before
        asked_before.add(tag)
        return old if late and tag == falls_back else honest()

    till.bend(0, exchanged)
    with pytest.raises(ChainUnknown, match="is not past the final block"):
        till.payment_status(one.use)


def test_the_mark_of_a_fate_is_read_at_the_block_it_speaks_of(till: Till) -> None:
    """Not at whatever is newest by then: mark and logs end at the same block."""
    one = till.authorization()
    till.mine(12)
    tags: list[Any] = []

    async def noted(asked: str, params: list[Any], honest: Next) -> Any:
        tags.extend(params[1:] if asked == "eth_call" else [])
        return honest()

    till.bend(0, noted)
    till.payment_status(one.use)
    assert tags == [till.rpc("eth_blockNumber")]


def test_two_that_differ_in_a_fate_decide_nothing(both: Till) -> None:
    """One hides the log, the other shows it."""
    one = both.authorization()
    both.mine(12)
    both.carry(one)
    both.bend(1, "eth_getLogs", to=lambda _: [])
    with pytest.raises(ChainUnknown, match="the providers disagree"):
        both.payment_status(one.use)


def test_a_fate_is_not_asked_before_the_signature_is_final(till: Till) -> None:
    """A block that may be replaced is no start of a search."""
    one = till.authorization()
    with pytest.raises(ChainUnknown, match="beyond the final block"):
        till.ask(lambda chain: chain.payment_status(replace(one.use, since=one.use.since + 1)))


# Tempo: the whole transaction is signed, the network's fee is paid in the token

MEMO = secrets.token_bytes(32)
LANE = 77
BRIDGED = builders.address(USDC_E)
NONCES = bytes.fromhex("4e4f4e4345" + "00" * 15)
WITH_MEMO = bytes(keccak(text="TransferWithMemo(address,address,uint256,bytes32)"))


def selector(signature: str) -> bytes:
    return bytes(keccak(text=signature)[:4])


class TempoTill:
    """A Tempo chain that makes blocks when told to, a wallet with dollars on it, and the edge in front."""

    def __init__(self) -> None:
        self.key = PrivateKey(secrets.token_bytes(32))
        self.wallet = self.key.public_key.to_canonical_address()
        self.chain = Tempo(
            tools.require("anvil"), funded={self.key.public_key.to_checksum_address(): HELD}, block_s=None
        )
        self.chain.mine()

    def now_s(self) -> int:
        return int(self.chain.rpc("eth_getBlockByNumber", ["latest", False])["timestamp"], 16)

    def left(self) -> int:
        return self.chain.balance(self.key.public_key.to_checksum_address())

    def ask(self, act: Callable[[AuthorizedChain], Awaitable[T]]) -> T:
        async def asked() -> T:
            rpc, now_s = Rpc(self.chain.url, timeout_s=20), self.now_s()
            watched = Providers(
                [rpc], quorum=1, now_s=lambda: now_s, head_age_max_s=60, lag_max_s=30, say=lambda _: None
            )
            try:
                return await act(AuthorizedChain(TEMPO_ID, watched))
            finally:
                await rpc.close()

        return asyncio.run(asked())

    def sign(self, units: int) -> tuple[bytes, bytes]:
        """Sign a transfer with a memo on a lane of its own (transaction type 0x76); return it and its hash."""
        data = selector("transferWithMemo(address,uint256,bytes32)") + SELLER.rjust(32, b"\0")
        data += units.to_bytes(32, "big") + MEMO
        price, valid_before = 2 * self.chain.base_fee, self.now_s() + 600
        fields: list[Any] = [TEMPO_ID, 0, price, 2_000_000, [[BRIDGED, 0, data]], [], LANE, 0, valid_before, b""]
        fields += [BRIDGED, b"", []]
        signature = self.key.sign_msg_hash(keccak(b"\x76" + rlp.encode(fields))).to_bytes()
        raw = b"\x76" + rlp.encode([*fields, signature[:64] + bytes([27 + signature[64]])])
        return raw, bytes(keccak(raw))

    def carry(self, raw: bytes) -> None:
        self.chain.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])
        self.chain.mine()

    def use(self, tx_hash: bytes, units: Usdc) -> AuthorizationUse:
        parties = (self.wallet.rjust(32, b"\0"), SELLER.rjust(32, b"\0"))
        return AuthorizationUse(
            key=tx_hash,
            hash=tx_hash,
            mark=(NONCES, selector("getNonce(address,uint256)") + parties[0] + LANE.to_bytes(32, "big")),
            log=(BRIDGED, (WITH_MEMO, *parties, MEMO)),
            token=BRIDGED,
            sender=self.wallet,
            recipient=SELLER,
            tokens=units,
            since=0,
            pays_fee=True,
        )


@pytest.fixture
def tempo() -> Iterator[TempoTill]:
    till = TempoTill()
    yield till
    till.chain.stop()


def test_a_payment_on_tempo_is_seen_with_its_fee_in_the_token(tempo: TempoTill) -> None:
    """By its hash and by its memo alike: amount and fee are what the wallet's tokens fell by, to the unit."""
    raw, tx_hash = tempo.sign(TEN.units)
    use = tempo.use(tx_hash, TEN)
    assert tempo.ask(lambda chain: chain.look([(use, None)])).seen == {}
    tempo.carry(raw)
    looked = tempo.ask(lambda chain: chain.look([(use, None)]))
    seen = looked.seen[tx_hash]
    assert (seen.trusted, seen.wallet_check, looked.used) == (True, "exact", frozenset({tx_hash}))
    assert (seen.inclusion.tokens, seen.inclusion.token_fee.units) == (TEN, HELD - TEN.units - tempo.left())
    assert seen.inclusion.token_fee > Usdc(0)
    by_memo = tempo.ask(lambda chain: chain.look([(replace(use, hash=None), None)]))
    assert by_memo.seen == looked.seen
    payment_status = tempo.ask(lambda chain: settled(chain.payment_status(use)))
    assert (payment_status.flag, payment_status.payers, payment_status.witnesses) == (True, frozenset({tx_hash}), 1)


def test_a_survey_on_tempo_needs_no_coin(tempo: TempoTill) -> None:
    """Tokens, base fee and the mark of a lane that was used."""
    raw, tx_hash = tempo.sign(1)
    use = tempo.use(tx_hash, Usdc(1))
    told = tempo.ask(lambda chain: chain.preflight(tempo.wallet, BRIDGED, [use]))
    assert (told.tokens, told.base_fee) == (Usdc(HELD), Wei(tempo.chain.base_fee))
    tempo.carry(raw)
    with pytest.raises(PaymentForbidden, match="was used already"):
        tempo.ask(lambda chain: chain.preflight(tempo.wallet, BRIDGED, [use]))


def test_a_payment_that_fails_on_tempo_costs_its_fee_and_its_lane(tempo: TempoTill) -> None:
    """More than the wallet holds: it stands in a block, moved nothing, and nothing else can run on that lane."""
    raw, tx_hash = tempo.sign(HELD + 1)
    tempo.carry(raw)
    use = tempo.use(tx_hash, Usdc(HELD + 1))
    looked = tempo.ask(lambda chain: chain.look([(use, None)]))
    seen = looked.seen[tx_hash]
    assert (seen.inclusion.success, seen.inclusion.transient, seen.trusted) == (False, False, True)
    assert (seen.wallet_check, looked.used) == ("exact", frozenset({tx_hash}))
    assert (seen.inclusion.tokens, seen.inclusion.token_fee) == (Usdc(0), Usdc(HELD - tempo.left()))
    payment_status = tempo.ask(lambda chain: settled(chain.payment_status(use)))
    assert (payment_status.flag, payment_status.payers) == (True, frozenset())
