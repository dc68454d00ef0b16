"""Is an authorization that somebody else carries seen where it paid, and nowhere else?

The dollar of the embedded world takes transfers authorised by signature (EIP-3009). A stranger carries them, providers
lie about it; at the end a whole transaction is carried on a Tempo chain.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest
from eth_utils.crypto import keccak

from tests import tools
from tests.world import builders
from tests.world import tempo_payments as payments
from tests.world.builders import settled
from tests.world.stand import always, changed, failing, lie, limited
from tests.world.tempo_payments import Chain, text
from tests.world.till import DOLLAR, HELD, SELLER, TEN, Authorization, Till, till_with
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc
from topup.chain.token_chain import AuthorizedChain
from topup.domain.errors import ChainUnknown, PaymentForbidden, WrongChain
from topup.domain.events import ProvidersDisagree
from topup.domain.lifecycle import Attempt, Broadcaster
from topup.domain.money import Usdc, Wei
from topup.domain.nonpayment import NonPaymentProof, Undecided, non_payment_proof
from topup.domain.tempo import transfer_with_memo
from topup.ports.chain import UNMEASURED, AuthorizationUse, Observation, Preflight
from topup.sandbox import contracts
from topup.sandbox.rpc import Intercept, Next, RpcError
from topup.sandbox.tempo import CHAIN_ID as TEMPO_ID
from topup.sandbox.tempo import Tempo

T = TypeVar("T")


RECEIPT = "eth_getTransactionReceipt"
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


def test_what_is_not_this_payment_is_not_seen(till: Till) -> None:
    """Neither another of the same parties and amount, nor a mark alone: cancelled is told, and is no payment."""
    one = till.authorization()
    till.carry(till.authorization())
    told = till.look(one.use)
    assert (told.seen, told.used) == ({}, frozenset())
    slot = contracts.mapping_slot(4, till.world.wallet, one.nonce)  # of authorizationState
    till.world.do(lambda: till.world.chain.set_storage(contracts.USDC, slot, 1))
    told = till.look(one.use)
    assert (told.seen, told.used) == ({}, frozenset({one.use.key}))


def test_two_payments_in_one_block_are_told_apart(till: Till) -> None:
    """Each is seen as its own; that the balance fell by both is a remark and no doubt."""
    one, two = till.authorization(), till.authorization(Usdc(3))
    hashes = till.carry(one, two)
    told = till.look(one.use, two.use)
    assert [told.seen[a.use.key].inclusion.tx_hash for a in (one, two)] == hashes
    assert told.seen[one.use.key].wallet_check == "differs by 3 units of the token"
    assert all(seen.trusted for seen in told.seen.values())


def test_a_use_without_the_transfer_we_authorized_is_for_a_person(till: Till) -> None:
    """The log stands there, and something else moved: it is seen, and not believed."""
    use, _ = till.paid()
    someone = b"\x0e" * 20
    others: list[dict[str, Any]] = [
        {"tokens": Usdc(7)},
        *({name: someone} for name in ("recipient", "sender", "token")),
    ]
    for wanted in others:
        seen = till.seen(replace(use, **wanted))
        assert (seen.trusted, seen.inclusion.success, seen.inclusion.transient) == (False, True, False)
        assert "status 1 with 1 logs of its use and 0 transfers" in seen.reason
    # What it took is measured by the balance alone, or all that was authorized where nobody has the state.
    other = replace(use, tokens=Usdc(7))
    assert till.seen(other).inclusion.tokens == TEN
    till.bend(0, "eth_call", to=only_marks)
    seen = till.seen(other)
    assert (seen.inclusion.tokens, seen.wallet_check) == (Usdc(7), UNMEASURED)
    # Of a use that is believed the receipt alone says what was paid then, and the look says so.
    seen = till.seen(use)
    assert (seen.trusted, seen.wallet_check, seen.inclusion.tokens) == (True, UNMEASURED, TEN)


def again(number: int) -> Intercept:
    """Show one of the logs of a receipt twice."""
    return lie(RECEIPT, to=lambda told: {**told, "logs": [*told["logs"], told["logs"][number]]})


TWICE: dict[str, Intercept] = {
    "2 logs of its use and 1 transfers": again(0),
    "1 logs of its use and 2 transfers": again(1),
    "2 transactions carry it": lie(
        "eth_getLogs", to=lambda told: [*told, {**told[0], "transactionHash": "0x" + "07" * 32}]
    ),
}


def test_what_is_said_twice_is_for_a_person(till: Till) -> None:
    """An authorization works once: what was paid is not clear, and whoever shows it twice is not believed."""
    use, _ = till.paid()
    for words, bent in TWICE.items():
        till.bend(0, bent)
        seen = till.seen(use)
        assert not seen.trusted
        assert words in seen.reason


# A transaction whose hash was known before


def test_a_known_transaction_is_found_without_logs(till: Till) -> None:
    """Its receipt is asked for by hash; the rest is the same."""
    use, tx_hash = till.paid()
    till.bend(0, failing("eth_getLogs", RATE))
    seen = till.seen(replace(use, hash=tx_hash))
    assert (seen.trusted, seen.inclusion.tokens, seen.inclusion.tx_hash) == (True, TEN, tx_hash)
    # No use is older than the signature: what stands in an earlier block cannot be it.
    assert till.look(replace(use, hash=tx_hash, since=use.since + 2)).seen == {}
    # A node that shows no receipt at all is no witness: it fails for all of them, so that another may be asked.
    till.bend(0, failing("eth_getTransactionReceipt", RATE))
    with pytest.raises(ChainUnknown, match="a receipt: rate limit exceeded"):
        till.look(replace(use, hash=tx_hash))


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
    till.mine(12)
    payment_status = till.payment_status(replace(one.use, hash=tx_hash))
    assert (payment_status.flag, payment_status.payers) == (False, frozenset())


# What is not believed


TAGLESS = failing("eth_getBlockByNumber", RpcError(-32602, "unknown tag"), lambda p: p[0] in ("safe", "finalized"))
# How a provider is bent, whether the payment is seen then, and whether its authorization is used.
SHOWN: dict[str, tuple[Intercept, bool, bool]] = {
    "a preconfirmation names a block that may never be": (
        lie(RECEIPT, to=changed(blockHash="0x" + "07" * 32)), False, True,
    ),
    "an answer has to be of the transaction asked for": (
        lie(RECEIPT, to=changed(transactionHash="0x" + "07" * 32)), False, True,
    ),
    "what was found by its log cannot have failed": (
        lie(RECEIPT, to=changed(status="0x0")), False, True,
    ),
    "without logs nobody may take it for unpaid": (failing("eth_getLogs", RATE), False, True),
    "a mark that cannot be read hides no log": (failing("eth_call", RATE), True, False),
    "a node without tags still shows the payment": (TAGLESS, True, True),
}  # fmt: skip


def test_what_is_not_shown_is_neither_believed_nor_denied(till: Till) -> None:
    """Only a mark that is zero says that there is nothing to look for."""
    use, tx_hash = till.paid()
    for how, (bent, seen, used) in SHOWN.items():
        till.bend(0, bent)
        told = till.look(use)
        assert [one.trusted for one in told.seen.values()] == [True] * seen, how
        assert told.used == ({use.key} if used else frozenset()), how
        if "preconfirmation" in how:
            assert till.look(replace(use, hash=tx_hash)).seen == {}
        if bent is TAGLESS:
            assert (told.safe, told.finalized, told.finalized_s) == (None, None, None), "unknown, and not at once"


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


FOREIGN: list[dict[str, Any]] = [
    *({"removed": True}, {"blockNumber": "0x0"}, {"topics": ["0x" + "07" * 32] * 3}, {"address": "0x" + "07" * 20}),
]


def test_logs_that_a_node_does_not_have_or_that_nobody_asked_for(till: Till) -> None:
    """A provider that allows two blocks at once still shows the payment: a range that is too long is halved."""
    one = till.authorization()
    till.mine(6)
    till.carry(one)
    till.mine(2)
    till.bend(0, limited(2, "block range too large"))
    assert till.seen(one.use).trusted
    # A node that answers with other logs is not read any further, and decides nothing.
    till.mine(12)
    for change in FOREIGN:
        till.bend(0, "eth_getLogs", to=changed(**change))
        assert till.look(one.use).seen == {}
        with pytest.raises(ChainUnknown, match="a log was not asked for"):
            till.payment_status(one.use)
    # One that is behind the logs it is asked for says nothing: its answer would look complete.
    last = till.rpc("eth_blockNumber")
    till.bend(0, "eth_getBlockByNumber", to=lambda _: None, when=lambda p: p[0] == last)
    assert till.look(one.use).seen == {}
    with pytest.raises(ChainUnknown, match=f"has no block {int(last, 16)}"):
        till.payment_status(one.use)


# Several providers


UNPAID = always("0x" + "00" * 32)


def test_one_of_two_that_hides_the_payment_delays_it(both: Till) -> None:
    """Neither seen nor used, until both show it."""
    use, tx_hash = both.paid()
    assert both.seen(use).trusted

    def looked(*, every: bool) -> Observation:
        return both.ask(lambda chain: chain.look([(use, None)], every=every), needs=1)

    assert looked(every=True).used == {use.key}
    both.bend(1, "eth_call", to=UNPAID)
    told = both.look(use)
    assert (told.seen, told.used) == ({}, frozenset())
    # Where one would do, a look at every provider needs two of them: what both show counts, and one alone nothing.
    assert (looked(every=False).used, looked(every=True).used) == (frozenset({use.key}), frozenset())
    both.bend(1, failing("eth_getBlockByNumber", RATE))
    with pytest.raises(ChainUnknown, match="2 independent providers are needed, 1 answered"):
        looked(every=True)
    # Of three the liar is outvoted: two show the payment, and it is seen with what they show.
    both.bend(1, "eth_call", to=UNPAID)
    both.providers(3)
    told = both.look(use)
    assert (told.seen[use.key].inclusion.tx_hash, told.used) == (tx_hash, frozenset({use.key}))


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


def test_two_that_differ_in_what_it_took_show_nothing(both: Till) -> None:
    """Fee, amount and success are facts: both have to show the same, and they are named."""
    use, tx_hash = both.paid()
    paying = replace(use, hash=tx_hash, pays_fee=True)
    assert both.seen(paying).inclusion.token_fee > Usdc(0)
    others: list[dict[str, Any]] = [{"gasUsed": "0xffffff"}, {"logs": []}, {"status": "0x0"}]
    for other in others:
        both.said.clear()
        both.bend(1, RECEIPT, to=changed(**other))
        assert both.look(paying).seen == {}
        said = [event.about for event in both.said if isinstance(event, ProvidersDisagree)]
        assert said == ["the use of an authorization"]


# What a payment is planned on


def test_a_survey_is_one_request_and_says_what_the_wallet_holds(both: Till) -> None:
    """The wallet's own coin is never asked for: a chain may have none."""
    use = both.authorization().use

    def survey(*uses: AuthorizationUse, token: bytes = DOLLAR) -> Preflight:
        return both.ask(lambda chain: chain.preflight(both.wallet, token, uses))

    told = survey(use)
    assert (told.tokens, told.balance, told.quotes, told.price_e8) == (Usdc(HELD), Wei(0), {}, None)
    assert (told.head.number, told.nonce_latest, told.nonce_pending) == (int(both.rpc("eth_blockNumber"), 16), 0, 0)
    assert told.base_fee > Wei(0)
    assert told.code_hash == keccak(contracts.runtime("Usdc"))
    assert both.servers[0].requests == 1
    assert both.servers[0].asked["eth_getBalance"] == 0
    # The least tokens of two providers are planned with: too many would plan what cannot be paid.
    both.bend(0, "eth_call", to=lambda told: f"0x{2 * int(told, 16):064x}")
    assert survey().tokens == Usdc(HELD)
    # A mark that cannot be read is not unused: an empty answer is no zero.
    for number in (0, 1):
        both.bend(number, "eth_call", to=lambda told: told if int(told, 16) else "0x")
    with pytest.raises(ChainUnknown, match="an authorization's mark is '0x', not a word"):
        survey(use)
    for server in both.servers:
        server.intercept = None
    # Nothing at an address without code could ever take the authorization.
    with pytest.raises(PaymentForbidden, match="there is no token at 0x5e11e5") as refusal:
        survey(token=SELLER)
    assert refusal.value.reason == "no_code"
    # An authorization that is used is not planned with: whatever it did, it will not pay again.
    spent, _ = both.paid()
    with pytest.raises(PaymentForbidden, match="was used already") as refusal:
        survey(use, spent)
    assert refusal.value.reason == "authorization_used"
    # Preflight, look and fate each ask which chain it is.
    for act in (
        lambda chain: chain.preflight(both.wallet, DOLLAR),
        lambda chain: chain.look([(use, None)]),
        lambda chain: chain.payment_status(use),
    ):
        with pytest.raises(WrongChain, match="speaks for chain 8453, not 4217"):
            both.ask(act, edge=partial(AuthorizedChain, TEMPO_ID))


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


def test_a_fate_with_a_gap_is_undecided(till: Till) -> None:
    """A part of the logs, the mark or the receipt that cannot be had is never a "no"."""
    one = till.authorization()
    # A block that may be replaced is no start of a search.
    with pytest.raises(ChainUnknown, match="beyond the final block"):
        till.payment_status(replace(one.use, since=one.use.since + 1))
    till.mine(12)
    for method in ("eth_getLogs", "eth_call", "eth_getTransactionReceipt"):
        till.bend(0, failing(method, RpcError(-32000, "missing trie node")))
        with pytest.raises(ChainUnknown, match="missing trie node"):
            till.payment_status(replace(one.use, hash=b"\x07" * 32))
    # The mark is read at the block that the fate speaks of, not at whatever is newest by then.
    tags: list[Any] = []

    async def noted(asked: str, params: list[Any], honest: Next) -> Any:
        tags.extend(params[1:] if asked == "eth_call" else [])
        return honest()

    till.bend(0, noted)
    till.payment_status(one.use)
    assert tags == [till.rpc("eth_blockNumber")]


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


# Tempo: the whole transaction is signed, the network's fee is paid in the token

LANE = 77
NONCES = bytes.fromhex("4e4f4e4345" + "00" * 15)
WITH_MEMO = bytes(keccak(text="TransferWithMemo(address,address,uint256,bytes32)"))
GET_NONCE = bytes(keccak(text="getNonce(address,uint256)")[:4])


@pytest.fixture
def tempo() -> Iterator[Chain]:
    """A Tempo chain that makes blocks when told to, and a wallet with dollars on it."""
    chain = Tempo(tools.require("anvil"), funded={text(payments.WALLET): HELD}, block_s=None)
    chain.mine()
    yield Chain(chain)
    chain.stop()


def ask(tempo: Chain, act: Callable[[AuthorizedChain], Awaitable[T]]) -> T:
    """Do one thing with the edge in front of this chain."""

    async def asked() -> T:
        rpc, now_s = Rpc(tempo.tempo.url, timeout_s=20), tempo.now()
        watched = Providers([rpc], quorum=1, now_s=lambda: now_s, head_age_max_s=60, lag_max_s=30, say=lambda _: None)
        try:
            return await act(AuthorizedChain(TEMPO_ID, watched))
        finally:
            await rpc.close()

    return asyncio.run(asked())


def sign(tempo: Chain, units: int) -> tuple[bytes, AuthorizationUse]:
    """Sign a transfer with a memo on a lane of its own; return it with the use it would be."""
    data = transfer_with_memo(payments.RECIPIENT, units, payments.MEMO)
    price, ends_s = 2 * tempo.tempo.base_fee, tempo.now() + 600
    raw = payments.raw_of(payments.paying(data=data, gas_price=price, lane=LANE, valid_before=ends_s))
    parties = (payments.WALLET.rjust(32, b"\0"), payments.RECIPIENT.rjust(32, b"\0"))
    return raw, AuthorizationUse(
        key=bytes(keccak(raw)),
        hash=bytes(keccak(raw)),
        mark=(NONCES, GET_NONCE + parties[0] + LANE.to_bytes(32, "big")),
        log=(payments.TOKEN, (WITH_MEMO, *parties, payments.MEMO)),
        token=payments.TOKEN,
        sender=payments.WALLET,
        recipient=payments.RECIPIENT,
        tokens=Usdc(units),
        since=0,
        pays_fee=True,
    )


def left(tempo: Chain) -> int:
    return tempo.tempo.balance(text(payments.WALLET))


def test_a_payment_on_tempo_is_seen_with_its_fee_in_the_token(tempo: Chain) -> None:
    """By its hash and by its memo alike: amount and fee are what the wallet's tokens fell by, to the unit."""
    raw, use = sign(tempo, TEN.units)
    assert ask(tempo, lambda chain: chain.look([(use, None)])).seen == {}
    # A survey needs no coin: tokens, base fee, and the mark of a lane, which is refused once it was used.
    told = ask(tempo, lambda chain: chain.preflight(payments.WALLET, payments.TOKEN, [use]))
    assert (told.tokens, told.base_fee) == (Usdc(HELD), Wei(tempo.tempo.base_fee))
    tempo.run(raw)
    with pytest.raises(PaymentForbidden, match="was used already"):
        ask(tempo, lambda chain: chain.preflight(payments.WALLET, payments.TOKEN, [use]))
    looked = ask(tempo, lambda chain: chain.look([(use, None)]))
    seen = looked.seen[use.key]
    assert (seen.trusted, seen.wallet_check, looked.used) == (True, "exact", frozenset({use.key}))
    assert (seen.inclusion.tokens, seen.inclusion.token_fee.units) == (TEN, HELD - TEN.units - left(tempo))
    assert seen.inclusion.token_fee > Usdc(0)
    by_memo = ask(tempo, lambda chain: chain.look([(replace(use, hash=None), None)]))
    assert by_memo.seen == looked.seen
    payment_status = ask(tempo, lambda chain: settled(chain.payment_status(use)))
    assert (payment_status.flag, payment_status.payers, payment_status.witnesses) == (True, frozenset({use.key}), 1)


def test_a_payment_that_fails_on_tempo_costs_its_fee_and_its_lane(tempo: Chain) -> None:
    """More than the wallet holds: it stands in a block, moved nothing, and nothing else can run on that lane."""
    raw, use = sign(tempo, HELD + 1)
    tempo.run(raw)
    looked = ask(tempo, lambda chain: chain.look([(use, None)]))
    seen = looked.seen[use.key]
    assert (seen.inclusion.success, seen.inclusion.transient, seen.trusted) == (False, False, True)
    assert (seen.wallet_check, looked.used) == ("exact", frozenset({use.key}))
    assert (seen.inclusion.tokens, seen.inclusion.token_fee) == (Usdc(0), Usdc(HELD - left(tempo)))
    payment_status = ask(tempo, lambda chain: settled(chain.payment_status(use)))
    assert (payment_status.flag, payment_status.payers) == (True, frozenset())
