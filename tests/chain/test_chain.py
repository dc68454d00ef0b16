"""What does the chain's edge make of real nodes, of honest answers and of doctored ones?

Two chains stand behind the same JSON-RPC server: the one in this process and anvil. The server's interceptor stands
for a provider that fails, lies, forgets or loses an answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.crypto import keccak

from tests.world import builders
from tests.world.stand import ENOUGH, HEAD_AGE_MAX_S, Stand, When, always, changed, failing, lie, stand_on
from topup.chain.broadcast import classify
from topup.chain.contracts import payment_data
from topup.chain.profiles import BASE, Profile
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted, WrongChain
from topup.domain.lifecycle import Inclusion
from topup.domain.money import Wei
from topup.ports.chain import Delivery
from topup.sandbox import contracts
from topup.sandbox.anvil import Anvil
from topup.sandbox.charges import Draft
from topup.sandbox.rpc import Drop, Next, RpcError
from topup.sandbox.world import FEE_DESTINATION

NOBODY = "0x" + "00" * 20
ANYONE = "0x" + "0e" * 20


@pytest.fixture(params=["embedded", "anvil"])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    yield from stand_on(request.param)


@pytest.fixture(scope="module")
def anvil() -> Iterator[Stand]:
    """One for all who only ask it."""
    yield from stand_on("anvil")


# What a payment is planned on


def test_a_survey_is_one_request_and_says_what_the_chain_says(stand: Stand) -> None:
    """Block, balance, nonces, code, two quotes and the price come from one HTTP request."""
    told = stand.preflight()
    assert stand.world.rpc.requests == 1
    assert told.head == stand.head()
    assert told.balance.units == int(stand.rpc("eth_getBalance", stand.world.wallet, "latest"), 16)
    assert (told.nonce_latest, told.nonce_pending) == (0, 0)
    assert told.code_hash == keccak(contracts.runtime("PaymentProtocol"))
    assert told.price_e8 == 3000 * 10**8
    assert told.base_fee == Wei(5_000_000)
    assert sorted(told.quotes) == [500, 3000]
    assert told.quotes[500] < told.quotes[3000]
    # A chain without a feed is surveyed all the same; None is not zero.
    assert stand.preflight(replace(BASE, price_feed=None, sequencer_feed=None)).price_e8 is None
    # A tier without a pool is absent: the quoter really reverts there, and the other tiers still quote.
    assert sorted(stand.preflight(replace(BASE, tiers=(100, 500, 3000))).quotes) == [500, 3000]
    assert stand.preflight(replace(BASE, tiers=(100,))).quotes == {}
    # What waits in the pool is told apart from what is mined, and is not seen.
    demand = stand.demand()
    attempt = stand.attempt(demand)
    stand.send(attempt)
    told = stand.preflight()
    assert (told.nonce_latest, told.nonce_pending) == (0, 1)
    observation = stand.look(demand, attempt)
    assert (observation.seen, observation.nonce_latest) == ({}, 0)


Prepare = Callable[[Stand], object]


def nothing(_: Stand) -> None:
    pass


def feed(writes: Callable[[int], list[contracts.StorageWrite]]) -> Prepare:
    """Let a feed say something, by the time of the newest block."""
    return lambda stand: stand.write(*writes(stand.head().timestamp_s))


FEED = contracts.ETH_USD_FEED
CODE = keccak(contracts.runtime("PaymentProtocol"))
AT_QUOTER = failing(
    "eth_call", RpcError(-32005, "rate limit exceeded"), lambda p: p[0]["to"] == contracts.QUOTER_V2.lower()
)
NO_PRICE = ("ETH/USD feed says", "price_unknown")
# What is there, how it is asked, and what is said: in which words, for which reason where paying is forbidden.
REFUSED: dict[str, tuple[Prepare, dict[str, Any], str, str]] = {
    "a provider that speaks for another chain": (
        lambda s: s.bend(0, "eth_chainId", to=always(hex(84532))), {}, "speaks for chain 84532, not 8453", "",
    ),
    "a rate limit is no word about the pool": (
        lambda s: s.bend(0, AT_QUOTER), {}, "the quote of tier 500: rate limit exceeded", "",
    ),
    "an address without code answers with nothing, which is no price of zero": (
        nothing, {"profile": replace(BASE, quoter=builders.address(ANYONE))}, "tier 500 returned 0 bytes", "",
    ),
    "a price that is stale by a second": (feed(lambda now: contracts.feed_updated_at(FEED, now - 3601)), {}, *NO_PRICE),
    "a price that was never updated": (feed(lambda _: contracts.feed_updated_at(FEED, 0)), {}, *NO_PRICE),
    "a price of zero": (feed(lambda _: contracts.feed_answer(FEED, 0)), {}, *NO_PRICE),
    "a negative price": (feed(lambda _: contracts.feed_answer(FEED, -1)), {}, *NO_PRICE),
    "a price carried over from an earlier round": (feed(lambda _: contracts.feed_round(FEED, 7, 6)), {}, *NO_PRICE),
    "a sequencer that is down": (
        feed(lambda now: contracts.sequencer(up=False, since=now - 9999)), {}, "is down", "sequencer",
    ),
    "a sequencer that is up for a second less than its grace period": (
        feed(lambda now: contracts.sequencer(up=True, since=now - 3599)), {}, "is up for only 3599 s", "sequencer",
    ),
    "ETH sent to an address without code would succeed and be lost": (
        nothing, {"contract": builders.address(ANYONE)}, "there is no contract at 0x0e0e", "no_code",
    ),
    "another code than the pinned one, and both are shown": (
        nothing, {"profile": replace(BASE, contract_code_hash=b"\x01" * 32)}, CODE.hex(), "code_changed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_nothing_is_planned_on_is_refused(what: str, stand: Stand) -> None:
    """Unknown, or forbidden with a reason and a remedy."""
    prepare, how, words, reason = REFUSED[what]
    prepare(stand)
    with pytest.raises(PaymentForbidden if reason else (ChainUnknown, WrongChain), match=words) as refused:
        stand.preflight(**how)
    if isinstance(refused.value, PaymentForbidden):
        assert (refused.value.reason, bool(refused.value.remedy)) == (reason, True)
    assert isinstance(refused.value, WrongChain) == ("another chain" in what)


@pytest.mark.parametrize(
    ("prepare", "profile"),
    [
        pytest.param(feed(lambda now: contracts.feed_updated_at(FEED, now - 3600)), BASE, id="a price of that age"),
        pytest.param(
            feed(lambda now: contracts.sequencer(up=True, since=now - 3600)), BASE, id="a sequencer up so long"
        ),
        pytest.param(nothing, replace(BASE, contract_code_hash=CODE), id="the code that is pinned"),
    ],
)
def test_the_limit_itself_is_within_the_limit(prepare: Prepare, profile: Profile, stand: Stand) -> None:
    """An hour is the age that a price may have, and the grace period of a sequencer."""
    prepare(stand)
    assert (stand.preflight(profile).price_e8, stand.preflight(profile).code_hash) == (3000 * 10**8, CODE)


ASKED = [
    *("eth_chainId", "eth_getBlockByNumber", "eth_getBalance", "eth_getTransactionCount", "eth_maxPriorityFeePerGas"),
    *("eth_getCode", "eth_call"),
]
GARBAGE: list[Any] = [None, True, 5, "", "0xzz", "nonsense", [], {}, {"number": "0x1"}, [None]]


@pytest.mark.parametrize("method", ASKED)
def test_an_answer_that_is_missing_or_nonsense_is_unknown(method: str, sole: Stand) -> None:
    """Whatever a provider answers in place of the truth, the survey ends as "unknown", and never in a defect."""
    for nonsense in GARBAGE:
        sole.bend(0, method, to=always(nonsense))
        with pytest.raises(ChainUnknown):
            sole.preflight()
    sole.bend(0, failing(method, RpcError(-32603, "header not found")))
    with pytest.raises(ChainUnknown, match="header not found"):
        sole.preflight()


# What a payment would do


def later(stand: Stand) -> None:
    stand.mine_at(stand.head().timestamp_s + 49 * 3600)


def same(draft: Draft) -> Draft:
    return draft


POOL = contracts.POOLS[500]
# What is there, the charge, how it is paid, how the refusal is called and told, and whether it may pass.
CAUSES: dict[str, tuple[Prepare, Callable[[Draft], Draft], Wei, int, str, str, str, bool]] = {
    "paused": (
        lambda s: s.write(*contracts.payments_paused(paused=True)), same, ENOUGH, 500,
        "Error", "the payment contract is paused", "until its owner", True,
    ),
    "expired": (later, same, ENOUGH, 500, "ExpiredIntent", "deadline has passed", "proven dead", False),
    "null recipient": (
        nothing, lambda d: replace(d, recipient=NOBODY), ENOUGH, 500,
        "NullRecipient", "zero address", "do not pay", False,
    ),
    "not registered": (
        lambda s: s.write(*contracts.fee_destination(s.world.operator.address, None)), same, ENOUGH, 500,
        "OperatorNotRegistered", "not registered", "pinned operator", True,
    ),
    "wrong currency": (
        nothing, lambda d: replace(d, currency=contracts.WETH), ENOUGH, 500,
        "IncorrectCurrency", "cannot be swapped", "do not pay", False,
    ),
    "fee and recipient are one": (
        nothing, lambda d: replace(d, recipient=FEE_DESTINATION), ENOUGH, 500,
        "InexactTransfer", "exactly their amounts", "wait", False,
    ),
    "too little": (
        nothing, same, Wei(10**15), 500,
        "SwapFailedString", "price moved above", "new quote", True,
    ),
    "pool empty": (
        lambda s: s.write(*contracts.usdc_balance(POOL, 1)), same, ENOUGH, 500,
        "SwapFailedString", "does not hold enough", "buy less", True,
    ),
    "no pool": (nothing, same, ENOUGH, 100, "SwapFailedBytes", "no pool for the tier", "another tier", True),
    "dollar paused": (
        lambda s: s.write(*contracts.usdc_paused(paused=True)), same, ENOUGH, 500,
        "SwapFailedString", "USDC could not be moved: paused", "wait", True,
    ),
    "blacklisted": (
        lambda s: s.write(*contracts.usdc_blacklisted(s.world.operator.terms.recipient)), same, ENOUGH, 500,
        "SwapFailedString", "blacklisted", "ask the provider", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_each_revert_is_a_sentence_with_a_remedy(cause: str, stand: Stand) -> None:
    """The contract really refuses, dry and in a block; what it says is told by name, in words, with what to do."""
    prepare, change, value, tier, name, words, remedy, transient = CAUSES[cause]
    demand = stand.demand(change)
    attempt = stand.attempt(demand, value=value, data=payment_data(demand.intent, tier))
    prepare(stand)
    with pytest.raises(Reverted) as refused:
        stand.simulate(demand, value, tier)
    assert refused.value.name == name
    assert words in str(refused.value)
    assert remedy in refused.value.remedy
    stand.send(attempt)
    stand.mine_at(stand.head().timestamp_s + 2)
    seen = stand.seen(demand, attempt).inclusion
    assert (seen.success, seen.transient, bool(seen.reason)) == (False, transient, True)


def test_an_honest_payment_has_a_gas_estimate_and_a_bound_on_the_l1_fee(stand: Stand) -> None:
    """The estimate suffices for the real thing, and the bound for the L1 fee; one request."""
    demand = stand.demand()
    before = stand.world.rpc.requests
    dry = stand.simulate(demand)
    assert stand.world.rpc.requests == before + 1
    # Where eth_simulateV1 is unknown a call alone is tried; where it is known the effects are proven as well.
    assert dry.proof == ("eth_simulateV1" if isinstance(stand.world.chain, Anvil) else "eth_call")
    # One unit more than the operator signed for, and the contract refuses.
    altered = replace(demand, intent=replace(demand.intent, recipient_amount=demand.intent.recipient_amount + 1))
    with pytest.raises(Reverted, match="did not sign exactly this") as refused:
        stand.simulate(altered)
    assert refused.value.name == "InvalidSignature"
    attempt = stand.mined(stand.attempt(demand, gas_limit=dry.gas))
    seen = stand.seen(demand, attempt)
    assert seen.inclusion.success
    assert seen.inclusion.l1_fee <= dry.l1_fee
    # After the payment the same charge cannot be paid again, and the reason says that it was paid.
    with pytest.raises(Reverted, match="has been paid before") as refused:
        stand.simulate(demand)
    assert refused.value.name == "AlreadyProcessed"
    assert "never pay it again" in refused.value.remedy
    again = stand.seen(demand, stand.mined(stand.attempt(demand))).inclusion
    assert (again.success, again.transient, "AlreadyProcessed" in again.reason) == (False, False, True)


def _topic(address: str | bytes) -> str:
    text = address.hex() if isinstance(address, bytes) else address.removeprefix("0x")
    return "0x" + text.lower().rjust(64, "0")


TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
APPROVAL = "0x" + keccak(text="Approval(address,address,uint256)").hex()
TRANSFERRED = "0x" + keccak(text="Transferred(address,bytes16,address,address,uint256,address)").hex()
ETHER = "0x" + "ee" * 20
Logs = list[dict[str, Any]]


def _movement(token: str, topic: str, source: str | bytes, target: str | bytes, units: int) -> dict[str, Any]:
    return {"address": token, "topics": [topic, _topic(source), _topic(target)], "data": f"0x{units:064x}"}


def _ours(logs: Logs) -> dict[str, Any]:
    (found,) = [log for log in logs if log["topics"][0] == TRANSFERRED]
    return found


def _arrival(logs: Logs, target: str) -> dict[str, Any]:
    usdc = contracts.USDC.lower()
    (found,) = [log for log in logs if log["address"].lower() == usdc and log["topics"][2] == _topic(target)]
    return found


def _more(log: dict[str, Any], by: int) -> None:
    log["data"] = f"0x{int(log['data'], 16) + by:064x}"


Doctor = Callable[[Logs, Stand], None]


def _leaves(token: str, units: int, topic: str = TRANSFER) -> Doctor:
    """Let this go from the wallet to somebody."""
    return lambda logs, s: logs.append(_movement(token, topic, s.wallet, ANYONE, units))


def _collectible_leaves(logs: Logs, s: Stand) -> None:
    topics = [TRANSFER, _topic(s.wallet), _topic(ANYONE), _topic("0x1")]
    logs.append({"address": ANYONE, "topics": topics, "data": "0x"})


def _word(place: int, value: str) -> Doctor:
    """Put another 32-byte word into the event's data: 0 is the id, 1 the recipient, 2 the sender."""

    def doctored(logs: Logs, _: Stand) -> None:
        log, start = _ours(logs), 2 + 64 * place
        log["data"] = log["data"][:start] + value[2:] + log["data"][start + 64 :]

    return doctored


def _recipient(logs: Logs, s: Stand) -> dict[str, Any]:
    return _arrival(logs, s.world.operator.terms.recipient)


def _fee_to_the_recipient(logs: Logs, stand: Stand) -> None:
    """The recipient's part comes in two pieces, one as large as the fee, which nobody else receives."""
    fee, part = _arrival(logs, FEE_DESTINATION), _recipient(logs, stand)
    _more(part, -int(fee["data"], 16))
    fee["topics"][2] = part["topics"][2]


MOVES, RECEIVES = "would move or approve a token of the wallet", "the recipient would receive"
FEE, EVENT = "nobody would receive the fee part", "exactly one Transferred event"
DOCTORED: dict[str, tuple[Doctor, str]] = {
    "ETH leaves": (_leaves(ETHER, ENOUGH.units), "would leave the wallet, more than the value"),
    "a token leaves": (_leaves(contracts.USDC, 1), MOVES),
    "another token leaves": (_leaves(ANYONE, 1), MOVES),
    "an approval": (_leaves(contracts.USDC, 2**256 - 1, APPROVAL), MOVES),
    "a collectible leaves": (_collectible_leaves, MOVES),
    "one unit too few": (lambda logs, s: _more(_recipient(logs, s), -1), RECEIVES),
    "one unit too many": (lambda logs, s: _more(_recipient(logs, s), 1), RECEIVES),
    "nothing arrives": (lambda logs, s: logs.remove(_recipient(logs, s)), f"{RECEIVES} 0 units"),
    "no fee": (lambda logs, _: logs.remove(_arrival(logs, FEE_DESTINATION)), FEE),
    "wrong fee": (lambda logs, _: _more(_arrival(logs, FEE_DESTINATION), 1), FEE),
    "fee to the recipient": (_fee_to_the_recipient, FEE),
    "another sender": (_word(2, _topic(ANYONE)), EVENT),
    "another recipient": (_word(1, _topic(ANYONE)), EVENT),
    "another id": (_word(0, "0x" + "ab" * 16 + "00" * 16), EVENT),
    "no event": (lambda logs, _: logs.remove(_ours(logs)), EVENT),
    "two events": (lambda logs, _: logs.append(_ours(logs)), EVENT),
    "another operator": (lambda logs, _: _ours(logs)["topics"].__setitem__(1, _topic(ANYONE)), EVENT),
    "another contract": (lambda logs, _: _ours(logs).__setitem__("address", ANYONE), EVENT),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_a_simulation_with_other_effects_forbids_paying(how: str, anvil: Stand) -> None:
    """It does not revert, and still is not paid: each effect is held against the charge."""
    doctor, words = DOCTORED[how]

    def doctored(told: Any) -> Any:
        doctor(told[0]["calls"][0]["logs"], anvil)
        return told

    anvil.bend(0, "eth_simulateV1", to=doctored)
    with pytest.raises(PaymentForbidden, match=words) as refused:
        anvil.simulate(anvil.demand())
    assert refused.value.reason == "simulation"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: None,
        lambda _: {},
        lambda _: [],
        lambda _: [{"calls": []}],
        lambda _: [{"calls": [{"status": "0x1"}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "status": "0x0"}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "status": None}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "logs": None}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "logs": [5]}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "logs": [{"topics": [TRANSFER, "0x1", "zz"]}]}]}],
        lambda told: [{"calls": [{**told[0]["calls"][0], "logs": [{"topics": 7}]}]}],
    ],
)
def test_a_simulation_in_an_unknown_form_is_unknown(spoil: Callable[[Any], Any], anvil: Stand) -> None:
    """What cannot be read proves nothing in either direction, and is no defect of ours."""
    anvil.bend(0, "eth_simulateV1", to=spoil)
    with pytest.raises(ChainUnknown):
        anvil.simulate(anvil.demand())


def test_a_dry_run_that_fails_without_a_revert_is_unknown(stand: Stand) -> None:
    """A node that has no state for the block says nothing about the payment."""
    stand.bend(0, failing("eth_call", RpcError(-32000, "missing trie node")))
    with pytest.raises(ChainUnknown, match="missing trie node"):
        stand.simulate(stand.demand())


# What sending is answered


@pytest.fixture(params=["web3.py", "plainly"])
def hand(request: pytest.FixtureRequest) -> str:
    """By whom the bytes are handed over: what this process planned, and what it found stored."""
    return str(request.param)


# Which code comes with it, and what a node says, by what became of the bytes.
WORDS: dict[Delivery, list[tuple[int, str]]] = {
    Delivery.KNOWN: [
        *((code, "already known") for code in (-32000, -32603, -32010)),
        *((-32000, words) for words in ("AlreadyKnown", "ALREADY_EXISTS: already known", "Known transaction")),
        *((-32000, words) for words in ("known transaction: 0xabc", "Transaction already in pool")),
        (-32003, "transaction already imported"),
    ],
    Delivery.NONCE_USED: [
        *((-32000, words) for words in ("nonce too low", "INTERNAL_ERROR: nonce too low", "nonce is too low")),
        (-32603, "nonce too low: next nonce 185, tx nonce 184"),
        (-32010, "OldNonce, Current nonce: 5, nonce of rejected tx: 4"),
    ],
    Delivery.NONCE_HIGH: [
        *((-32000, words) for words in ("nonce too high", "transaction nonce is too far in the future")),
        (-32000, "nonce too high: next nonce 4, tx nonce 9"),
        (-32010, "GapNonce, Future nonce. Expected nonce: 4"),
    ],
    Delivery.REPLACEMENT: [
        (-32000, "replacement transaction underpriced"),
        (-32603, "INTERNAL_ERROR: replacement transaction underpriced: new tx gas fee cap 1 <= 2"),
    ],
    Delivery.UNDERPRICED: [
        (-32000, "transaction underpriced: tip needed 1, tip permitted 0"),
        (-32000, "max fee per gas less than block base fee: address 0x, maxFeePerGas: 1, baseFee: 2"),
        (-32010, "FeeTooLow, EffectivePriorityFeePerGas too low: fee too low"),
        (-32000, "transaction gas price below minimum: gas tip cap 0, minimum needed 1"),
    ],
    Delivery.FUNDS: [
        (-32000, "insufficient funds for gas * price + value: balance 0, tx cost 1, overshot 1"),
        (-32003, "Insufficient funds for gas * price + value"),
        (-32000, "INSUFFICIENT_FUNDS: insufficient funds for transfer"),
    ],
    Delivery.FEECAP: [(-32000, "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)")],
    Delivery.FULL: [
        *((-32000, "txpool is full"), (-32005, "rate limit exceeded"), (429, "Too Many Requests")),
        (-32000, "in-flight transaction limit reached for delegated accounts"),
        (-32005, "daily request limit exceeded"),
    ],
    Delivery.REFUSED: [
        *((-32000, words) for words in ("invalid sender", "exceeds block gas limit")),
        (-32000, "Failed to decode signed transaction"),
        (-32000, "intrinsic gas too low: gas 1, minimum needed 21000"),
        (-32000, "oversized data: transaction size 1, limit 0"),
        (-32000, "invalid chain id for signer: have 1 want 8453"),
        (-32000, "rlp: expected input list for types.LegacyTx"),
        (-32003, "max priority fee per gas higher than max fee per gas"),
        (-32003, "Out of gas: required gas exceeds allowance: 21000"),
        (-32003, "intrinsic gas too high -- CallerGasLimitMoreThanBlock"),
    ],
    Delivery.UNCLEAR: [(-32000, "unknown transaction"), (-32601, "the method does not exist"), (0, "")],
}
ANSWERS = [(code, text, delivery) for delivery, said in WORDS.items() for code, text in said]


def test_every_nodes_words_are_understood(sole: Stand, hand: str) -> None:
    """The text decides and the code never does; each is asked exactly once."""
    sole.planning = hand == "web3.py"
    attempt = sole.attempt(sole.demand())
    for number, (code, text, expected) in enumerate(ANSWERS, 1):
        sole.bend(0, failing("eth_sendRawTransaction", RpcError(code, text)))
        sent = sole.send(attempt)
        assert sent.delivery is expected, (code, text)
        assert text[:60] in sent.detail
        assert sole.world.rpc.asked["eth_sendRawTransaction"] == number
    assert sole.world.do(sole.world.chain.pending) == 0


# What only sounds like a node's error leaves everything open: the bytes are sent again and looked for.
SOUNDS_ALIKE = [
    *("failed to decode the upstream response", "nonce too lowered", "rlpx session ended", "tx fee service is down"),
    *("the backend is rate limited: nonce too low", "unknown transaction: already known to be invalid"),
    "known transactions could not be listed",
]


def test_case_does_not_matter_and_surroundings_do() -> None:
    """The same words in capitals mean the same; within the sentence of a gateway, or a page, they say nothing."""
    for text in SOUNDS_ALIKE:
        assert classify(text) is Delivery.UNCLEAR, text
    for _, text, expected in ANSWERS:
        assert classify(text.upper()) is expected, text
        for around in (
            f"upstream answered: {text}",
            f"<html><title>502</title><body>{text}</body></html>",
            f"failed to forward the transaction ({text})",
            f'{{"message": "{text}"}}',
            f"un{text}",
        ):
            assert classify(around) is Delivery.UNCLEAR, around


def test_real_nodes_use_the_words_of_the_table(stand: Stand, hand: str) -> None:
    """Nonce, funds, fee and chain id are refused by both nodes in words that are understood; bytes are taken once."""
    stand.planning = hand == "web3.py"
    demand, attempt = stand.paid()
    assert stand.send(attempt).delivery in (Delivery.NONCE_USED, Delivery.KNOWN)
    nonce_low = stand.attempt(demand, nonce=0, gas_limit=299_999)
    assert stand.send(nonce_low).delivery is Delivery.NONCE_USED
    assert stand.send(stand.attempt(demand, value=Wei(10**24))).delivery is Delivery.FUNDS
    cheap = {"max_fee_per_gas": Wei(1), "max_priority_fee_per_gas": Wei(1)}
    assert stand.send(stand.attempt(demand, **cheap)).delivery is Delivery.UNDERPRICED
    assert stand.send(stand.attempt(demand, chain_id=1)).delivery is Delivery.REFUSED
    waiting, before = stand.attempt(demand), stand.world.rpc.asked["eth_sendRawTransaction"]
    assert [stand.send(waiting).delivery for _ in range(2)] == [Delivery.ACCEPTED, Delivery.KNOWN]
    assert stand.world.rpc.asked["eth_sendRawTransaction"] == before + 2
    rival = stand.attempt(demand, max_fee_per_gas=Wei(5 * 10**8))
    assert stand.send(rival).delivery is Delivery.REPLACEMENT


def test_a_lost_answer_is_unclear_and_never_sent_again(stand: Stand, hand: str) -> None:
    """The node holds the bytes, the connection breaks: nothing is concluded, nothing is repeated, and it is mined."""
    stand.planning = hand == "web3.py"

    async def lost(method: str, _: list[Any], honest: Next) -> Any:
        told = honest()
        if method == "eth_sendRawTransaction":
            raise Drop
        return told

    demand = stand.demand()
    attempt = stand.attempt(demand)
    stand.bend(0, lost)
    assert stand.send(attempt).delivery is Delivery.UNCLEAR
    assert stand.world.rpc.asked["eth_sendRawTransaction"] == 1
    stand.bend(0, None)
    stand.mine()
    assert stand.seen(demand, attempt).inclusion.success


NO_HASH: list[Any] = [None, 5, "", "0x", "0x12", "zz", {}, [], True, "0x" + "00" * 32]


def test_an_answer_that_is_not_our_hash_is_unclear(sole: Stand, hand: str) -> None:
    """Accepted is only what is answered with our own hash."""
    sole.planning = hand == "web3.py"
    for number, said in enumerate(NO_HASH):
        sole.bend(0, "eth_sendRawTransaction", to=always(said))
        fresh = sole.attempt(sole.demand(), nonce=number)
        assert sole.send(fresh).delivery is Delivery.UNCLEAR, said


NOWHERE = "http://127.0.0.1:9/key"


def test_every_provider_is_handed_the_bytes_and_the_best_answer_counts(sole: Stand) -> None:
    """One that is unreachable does not hide that another has them, and each is told apart."""
    sent = sole.send(sole.attempt(sole.demand()), urls=[NOWHERE, sole.world.rpc.url], needs=1)
    assert sent.delivery is Delivery.ACCEPTED
    assert sent.detail == "127.0.0.1: 127.0.0.1: the connection was refused: nothing listens there; 127.0.0.1: accepted"


def test_a_provider_that_is_no_use_is_passed_over(pair: Stand) -> None:
    """One lags, or is of another chain: the next is asked, in a survey and in a look; alone it is none at all."""
    old = hex(pair.now_s() - HEAD_AGE_MAX_S - 2)
    lagging = lie("eth_getBlockByNumber", to=changed(timestamp=old)), ChainUnknown, "its newest block is 6[0-9] s old"
    foreign = lie("eth_chainId", to=always(hex(84532))), WrongChain, "84532"
    for bent, error, says in (lagging, foreign):
        pair.bend(0, bent)
        for act in (pair.preflight, pair.look):
            assert act(needs=1).head == pair.head()
            with pytest.raises(error, match=says):
                act(urls=[pair.servers[0].url])
    # One that cannot be reached costs a try, not the survey; where none answers, all are named.
    assert pair.preflight(urls=[NOWHERE, pair.servers[1].url], needs=1).nonce_latest == 0
    with pytest.raises(ChainUnknown, match=r"no provider gave a usable answer: .+; .+"):
        pair.preflight(urls=[NOWHERE, NOWHERE], needs=1)


# What became of it


def test_a_mined_payment_is_seen_with_its_cost(stand: Stand) -> None:
    """Block, gas and the swap's cost as the chain tells them; the wallet fell by exactly that."""
    before = int(stand.rpc("eth_getBalance", stand.world.wallet, "latest"), 16)
    demand, attempt = stand.paid()
    seen = stand.seen(demand, attempt)
    after = int(stand.rpc("eth_getBalance", stand.world.wallet, "latest"), 16)
    head = stand.head()
    found: Inclusion = seen.inclusion
    assert (found.block_number, found.block_hash, found.block_ms) == (head.number, head.hash, head.timestamp_s * 1000)
    assert (found.success, seen.trusted, seen.wallet_check) == (True, True, "exact")
    assert before - after == found.spent.units + found.gas.units + found.l1_fee.units
    assert stand.look(demand, attempt).nonce_latest == 1
    assert not stand.seen(stand.demand(), attempt).trusted, "the event carries another id than that charge's"


def test_the_safe_and_the_final_block_follow(stand: Stand) -> None:
    """Both heights come from the node's own tags, behind the head and in order."""
    stand.mine(8)
    observation = stand.look()
    assert observation.safe is not None
    assert observation.finalized is not None
    assert 0 < observation.finalized < observation.safe < observation.head.number
    final = stand.rpc("eth_getBlockByNumber", hex(observation.finalized), False)
    assert observation.finalized_s == int(final["timestamp"], 16)


def test_a_tag_the_node_does_not_know_means_not_yet(stand: Stand) -> None:
    """Null or an error for "safe" and "finalized" is neither height 0 nor a failure."""

    def tag(params: list[Any]) -> bool:
        return params[0] in ("safe", "finalized")

    error = failing("eth_getBlockByNumber", RpcError(-39001, "unknown block"), tag)
    for bent in (lie("eth_getBlockByNumber", to=always(None), when=tag), error):
        stand.bend(0, bent)
        observation = stand.look()
        assert (observation.safe, observation.finalized, observation.finalized_s) == (None, None, None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"blockHash": "0x" + "0f" * 32}, id="an-orphan-names-another-block"),
        pytest.param({"blockNumber": hex(10_000)}, id="a-block-that-nobody-else-knows-yet"),
        pytest.param({"blockHash": None, "blockNumber": None}, id="pending-receipts-of-some-nodes-have-none"),
    ],
)
def test_a_receipt_of_no_block_is_not_counted(change: dict[str, Any], stand: Stand) -> None:
    """It is no evidence, and no failure either."""
    demand, attempt = stand.paid()
    stand.bend(0, "eth_getTransactionReceipt", to=changed(**change))
    assert stand.look(demand, attempt).seen == {}


async def passing(method: str, _: list[Any], honest: Next) -> Any:
    """Let every call succeed."""
    return "0x" if method == "eth_call" else honest()


TOO_DEAR, PAUSED = contracts.eth_price(1000 * 10**8), contracts.payments_paused(paused=True)


@pytest.mark.parametrize(
    ("writes", "changes", "recovered", "reason"),
    [
        pytest.param(TOO_DEAR, {}, False, "the price moved above what was sent", id="the contract's own reason"),
        pytest.param([], {"gas_limit": 60_000}, False, "out of gas", id="the limit, not the contract"),
        pytest.param(PAUSED, {}, True, "reverted; it would succeed now", id="the replay succeeds: nothing is told"),
    ],
)
def test_a_revert_is_told_with_its_reason(
    writes: list[contracts.StorageWrite], changes: dict[str, Any], *, recovered: bool, reason: str, stand: Stand
) -> None:
    """Something changes before the block, so that the payment fails there: gas is gone, the swap is not."""
    demand = stand.demand()
    attempt = stand.attempt(demand, **changes)
    stand.send(attempt)
    stand.write(*writes)
    stand.mine()
    if recovered:
        stand.bend(0, passing)
    seen = stand.seen(demand, attempt)
    assert (seen.inclusion.success, seen.inclusion.spent) == (False, Wei(0))
    assert seen.inclusion.gas > Wei(0)
    assert (seen.trusted, seen.wallet_check) == (True, "exact")
    assert reason in seen.reason


def at(number: int) -> When:
    return lambda params: bool(params[1] == hex(number))


def less(wei: int) -> Callable[[str], str]:
    return lambda told: hex(int(told, 16) - wei)


def test_what_the_balance_says_of_a_payment(stand: Stand) -> None:
    """Beside it the payment counts all the same."""
    demand, attempt = stand.paid()
    newest = stand.head().number
    # A wei that came or went in the same block is told to the wei, beyond the L1 fee's bound as below zero.
    for foreign in (10**15, -(10**15)):
        stand.bend(0, "eth_getBalance", to=less(foreign), when=at(newest))
        seen = stand.seen(demand, attempt)
        assert (seen.wallet_check, seen.inclusion.success) == (f"differs by {foreign} wei", True)
    # A node that pruned either balance cannot confirm the cost.
    for number in (newest, newest - 1):
        stand.bend(0, failing("eth_getBalance", RpcError(-32000, "missing trie node"), at(number)))
        seen = stand.seen(demand, attempt)
        assert seen.wallet_check.startswith("not verified")
        assert (seen.inclusion.success, seen.trusted) == (True, True)


def test_a_reorganisation_shows(stand: Stand) -> None:
    """The recorded block is replaced by another at its height; a height that is empty for now proves nothing."""
    demand, attempt = stand.paid()
    recorded = replace(attempt, inclusion=stand.seen(demand, attempt).inclusion)
    assert stand.look(demand, recorded).replaced == frozenset()
    stand.world.do(lambda: stand.world.chain.reorg(1))
    short = stand.look(demand, recorded)
    assert (short.replaced, short.seen, short.nonce_latest) == (frozenset(), {}, 0)
    stand.mine_at(stand.head().timestamp_s + 7)
    again = stand.look(demand, recorded)
    assert again.replaced == {attempt.hash}
    assert again.seen[attempt.hash or b""].inclusion.success
    assert (
        again.seen[attempt.hash or b""].inclusion.block_hash != (recorded.inclusion or builders.inclusion()).block_hash
    )


def test_success_without_our_event_is_for_a_person(stand: Stand) -> None:
    """A transaction that succeeds at an address without code pays nobody, and is not taken for a payment."""
    demand = stand.demand()
    attempt = stand.mined(stand.attempt(demand, to=builders.address(ANYONE)))
    seen = stand.seen(demand, attempt)
    assert (seen.inclusion.success, seen.trusted) == (True, False)
    assert seen.reason == "status 1 with 0 Transferred events of ours"
    assert seen.inclusion.spent == attempt.plan.value


def test_a_failing_node_is_unknown_and_not_absence(stand: Stand) -> None:
    """An error for receipt, nonce or head is never read as "not paid"."""
    demand, attempt = stand.paid()
    for method in ("eth_getTransactionReceipt", "eth_getTransactionCount", "eth_getBlockByNumber"):
        stand.bend(0, failing(method, RpcError(-32603, "internal error"), lambda p: p[0] not in ("safe", "finalized")))
        with pytest.raises(ChainUnknown, match="internal error"):
            stand.look(demand, attempt)


UNREADABLE: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("status", "gasUsed", "blockNumber"), (None, 1, "0xzz")),
    "effectiveGasPrice": (1, "0xzz"),  # one that is missing is derived: see test_lacking.py
    "logs": (None, 5, [5], "x"),
    "l1Fee": ("zz",),
}


def test_a_receipt_that_cannot_be_read_is_unknown(stand: Stand) -> None:
    """A field that is missing or nonsense is neither success nor failure."""
    demand, attempt = stand.paid()
    for field, values in UNREADABLE.items():
        for said in values:
            stand.bend(0, "eth_getTransactionReceipt", to=changed(**{field: said}))
            with pytest.raises(ChainUnknown):
                pytest.fail(f"{field} {said}: {stand.look(demand, attempt)}")


def test_an_l1_fee_no_receipt_tells_is_the_rest_of_the_balance() -> None:
    """On an OP chain under anvil the fee is charged in silence: it is what is left, within its bound."""
    for stand in stand_on("optimism"):
        demand, attempt = stand.paid()
        seen = stand.seen(demand, attempt)
        assert seen.wallet_check == "exact, L1 fee read from the balance"
        assert Wei(0) < seen.inclusion.l1_fee <= stand.simulate(stand.demand()).l1_fee


def test_the_operator_fee_of_an_op_chain_is_counted(sole: Stand) -> None:
    """Isthmus takes gasUsed x scalar / 10^6 + constant beside the L1 fee, and names both in the receipt."""
    demand, attempt = sole.paid()
    honest = sole.seen(demand, attempt).inclusion
    more = changed(operatorFeeScalar=hex(2_000_000), operatorFeeConstant=hex(11))
    sole.bend(0, "eth_getTransactionReceipt", to=more)
    seen = sole.seen(demand, attempt)
    gas_used = int(sole.rpc("eth_getTransactionReceipt", "0x" + (attempt.hash or b"").hex())["gasUsed"], 16)
    fee = 2 * gas_used + 11
    assert seen.inclusion.l1_fee == honest.l1_fee + Wei(fee)
    assert seen.wallet_check == f"differs by {-fee} wei"
