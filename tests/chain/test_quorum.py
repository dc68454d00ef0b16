"""What can one provider that lies make of several? At worst a stop, and with two honest ones beside it not even that.

First the merge as a rule over made-up answers, then real servers on one chain of which one is bent.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world import builders
from tests.world.builders import settled
from tests.world.stand import LAG_MAX_S, TOTAL, Stand, Town, always, changed, dead, lie, limited, stand_on
from topup.app.settings import load
from topup.chain import agreement
from topup.chain.agreement import Answers, Disagreement, Vote
from topup.chain.charge_status import Account
from topup.chain.contract_chain import EvmChain
from topup.chain.logs import Chunk, patient, transfers
from topup.chain.owners import owner, quorum
from topup.chain.profiles import BASE
from topup.chain.providers import FAILURES_MAX, PAUSE_S
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import Charge
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted, SettingsError, WrongChain
from topup.domain.events import ProviderBack, ProvidersDisagree, ProviderSetAside
from topup.domain.lifecycle import Kind, State
from topup.domain.money import Usdc, Wei
from topup.domain.nonpayment import ChargeStatus
from topup.domain.reasons import Reason
from topup.ports.chain import Delivery, Head, Observation, Preflight, Seen, Simulation
from topup.sandbox.rpc import Intercept, Next, RpcError

T = TypeVar("T")

# -- whose a provider is ----------------------------------------------------------------------------------------


# Path, port, spelling and sub-domain make no second provider: each row is of one owner.
SAME = [
    ("https://mainnet.base.org", "https://other.base.org", "https://mainnet.base.org/key1"),
    ("https://a.quiknode.pro/x", "https://b.c.quiknode.pro/y"),
    ("https://rpc.one.co.uk", "https://two.one.co.uk"),
    ("https://Example.com.", "https://rpc.example.com:8443"),
    ("http://localhost:8545", "http://127.0.0.1:8545", "http://[::1]:8545", "http://127.0.0.1:8545/path"),
    ("http://127.1:8545", "http://127.0.0.1:8545", "http://[::ffff:127.0.0.1]:8545"),
    ("http://0.0.0.0:8545", "http://node.localhost:8545"),
    ("http://127.0.0.1:80", "http://localhost"),
    ("https://192.0.2.7:1", "https://192.0.2.7:2", "https://192.0.2.7/a", "https://[::ffff:192.0.2.7]/b"),
    ("https://192.0.2.7/a", "https://[::ffff:c000:207]/b", "https://[64:ff9b::c000:207]/b"),
    ("https://192.0.2.7", "https://3221225991", "https://0xc0.0.0x2.7"),
    ("https://[2001:db8::1]/a", "https://[2001:DB8:0:0::1]/b"),
    ("https://[fe80::1%25eth0]", "https://[fe80::1]"),
    ("https://one.unknown.example", "https://unknown.example"),
    ("https://ex\u00e4mple.com", "https://xn--exmple-cua.com", "https://rpc.exa\u0308mple.com"),
    ("https://EX\u00c4MPLE.com", "https://ex\u00e4mple.com."),
    ("https://fa\u00df.example", "https://xn--fa-hia.example"),
    ("https://\uff45xample.com", "https://example\u3002com"),
]
# Another registrable domain, another address, or another port of this machine: each row is of as many owners.
APART = [
    ("https://mainnet.base.org", "https://base.drpc.org"),
    ("https://one.co.uk", "https://two.co.uk"),
    ("https://base.com", "https://base.org"),
    ("http://127.0.0.1:8545", "http://127.0.0.1:8546", "http://127.0.0.1", "https://127.0.0.1"),
    ("http://localhost:8545", "http://[::1]:8546"),
    ("https://192.0.2.7", "https://192.0.2.8", "https://[::ffff:192.0.2.9]"),
    ("https://[2001:db8::1]", "https://[2001:db8::2]"),
    ("https://[::ffff:192.0.2.7]", "https://[::ffff:192.0.2.8]"),
    ("https://ex\u00e4mple.com", "https://xn--exmple-dua.com"),
    ("https://xn--99999999999.com", "https://xn--99999999998.com"),
]


def test_two_urls_of_one_owner_are_one_witness() -> None:
    """And those of two owners are two, of which one may be enough where the setting says so."""
    for urls in SAME:
        for one, other in combinations(urls, 2):
            assert owner(one) == owner(other), (one, other)
            assert quorum([one, other], None) == 1
    for urls in APART:
        for one, other in combinations(urls, 2):
            assert owner(one) != owner(other), (one, other)
            assert (quorum([one, other], None), quorum([one, other], 1)) == (2, 1)


def test_a_quorum_that_cannot_be_had_is_a_contradiction() -> None:
    """Two asked for, and both URLs are of one owner: said at start, not at the first payment."""
    urls = {"TOPUP_CONFIG": "/dev/null", "TOPUP_CHAIN__RPC_URLS": "https://a.example.org,https://b.example.org"}
    assert load(urls).chain.quorum is None
    with pytest.raises(SettingsError, match=r"chain\.quorum is 2 and chain\.rpc_urls are all of one owner"):
        load(urls | {"TOPUP_CHAIN__QUORUM": "2"})


# -- the merge, over made-up answers ----------------------------------------------------------------------------

amounts = st.integers(0, 40)
weis = amounts.map(Wei)
hashes = st.sampled_from([b"\x01" * 32, b"\x02" * 32])
heads = st.builds(Head, amounts, hashes, amounts)
preflights = st.builds(
    Preflight,
    head=heads,
    balance=weis,
    nonce_latest=st.integers(0, 2),
    nonce_pending=st.integers(0, 4),
    base_fee=weis,
    tip=weis,
    code_hash=hashes,
    quotes=st.dictionaries(st.sampled_from([100, 500, 3000]), weis),
    price_e8=st.integers(2990, 3020),
)
simulations = st.builds(Simulation, amounts, weis, st.sampled_from(["eth_call", "eth_simulateV1"]))
refusals = st.sampled_from([PaymentForbidden(Reason.SIMULATION, "it does harm"), Reverted("", "no", b"")])
TXS = [b"\x0a" * 32, b"\x0b" * 32]
RECORDED = {TXS[0]: 7}
inclusions = st.builds(
    builders.inclusion,
    block_number=st.integers(6, 8),
    success=st.booleans(),
    gas=st.integers(0, 1).map(Wei),
    l1_fee=weis,
    spent=st.integers(0, 1).map(Wei),
    transient=st.booleans(),
    tokens=st.integers(0, 1).map(Usdc),
    token_fee=st.integers(0, 1).map(Usdc),
    tx_hash=hashes,
)
seens = st.builds(Seen, inclusions, st.just(""), st.just("exact"), st.booleans())
sightings = st.builds(
    Observation,
    head=heads,
    safe=st.none() | amounts,
    finalized=st.none() | amounts,
    finalized_s=st.none() | amounts,
    nonce_latest=st.integers(0, 2),
    seen=st.dictionaries(st.sampled_from(TXS), seens),
    replaced=st.frozensets(st.sampled_from(list(RECORDED))),
    used=st.frozensets(st.sampled_from(TXS)),
)


@st.composite
def views(draw: st.DrawFn) -> ProviderObservation:
    told = draw(sightings)
    standing = draw(st.frozensets(st.sampled_from(list(RECORDED)))) - told.replaced
    return ProviderObservation(told, RECORDED, standing)


accounts = st.builds(
    Account,
    newest=heads,
    final=st.builds(Head, st.just(3), hashes, st.integers(8, 9)),
    flag=st.booleans(),
    payers=st.frozensets(st.sampled_from(TXS)),
    control=hashes,
)


def said(*values: T, turned: bool = False, per_owner: int = 1) -> Answers[T]:
    """Each value from an owner of its own, in this order or the other; an owner may speak through several URLs."""
    votes = [Vote(f"o{n}", f"p{n}.{k}", value) for n, value in enumerate(values) for k in range(per_owner)]
    return Answers(votes[::-1] if turned else votes)


@given(honest=preflights, liar=preflights, turned=st.booleans(), per_owner=st.integers(1, 2))
def test_one_liar_of_two_gains_nothing_from_a_survey(
    *, honest: Preflight, liar: Preflight, turned: bool, per_owner: int
) -> None:
    """It is either stopped, or every part is what the honest one says or less in the liar's favour."""
    try:
        got = agreement.preflight_of(said(honest, liar, turned=turned, per_owner=per_owner), 2).value
    except (Disagreement, PaymentForbidden):
        return
    assert (got.nonce_latest, got.code_hash) == (honest.nonce_latest, honest.code_hash)
    assert got.balance <= honest.balance
    assert got.tip <= honest.tip
    assert got.base_fee >= honest.base_fee
    assert got.nonce_pending >= honest.nonce_pending
    assert (got.price_e8 or 0) >= (honest.price_e8 or 0)
    assert got.head.number <= honest.head.number
    assert got.quotes.keys() <= honest.quotes.keys()
    assert all(wei <= honest.quotes[tier] for tier, wei in got.quotes.items())


@given(honest=preflights, liar=preflights | refusals, turned=st.booleans())
def test_one_liar_of_three_changes_nothing_in_a_survey(
    *, honest: Preflight, liar: Preflight | PaymentForbidden | Reverted, turned: bool
) -> None:
    """Two honest ones beside it: the outcome is theirs, and a liar who says otherwise of a fact is named."""
    if isinstance(liar, Preflight):
        agreed = agreement.preflight_of(said(honest, liar, honest, turned=turned), 2)
        facts = (liar.nonce_latest, liar.code_hash) == (honest.nonce_latest, honest.code_hash)
    else:
        votes = said(honest, honest).votes
        agreed, facts = agreement.preflight_of(Answers(votes, [Vote("liar", "liar", liar)]), 2), False
    assert agreed.value == honest
    assert bool(agreed.dissent) == (not facts)


@given(honest=simulations, liar=simulations, turned=st.booleans())
def test_one_liar_of_two_cannot_make_a_payment_look_cheaper(
    *, honest: Simulation, liar: Simulation, turned: bool
) -> None:
    """Gas and L1 fee are never below, and the proof never stronger than what the honest one has."""
    got = agreement.simulation(said(honest, liar, turned=turned), 2).value
    assert got.gas >= honest.gas
    assert got.l1_fee >= honest.l1_fee
    assert got.proof in (honest.proof, "eth_call")


@given(simulations, refusals)
def test_a_payment_that_one_of_two_sees_fail_is_not_made(passed: Simulation, refusal: Any) -> None:
    """Whichever of them lies, nothing is signed, and the reason is told; with two that pass the third is outvoted."""
    told = [Vote("b", "b", refusal)]
    with pytest.raises(type(refusal)):
        agreement.simulation(Answers(said(passed).votes, told), 2)
    assert agreement.simulation(Answers(said(passed, passed).votes, told), 2).dissent


@pytest.mark.parametrize("other", [{"spent": Wei(2)}, {"tokens": Usdc(2)}], ids=["coin", "dollars"])
def test_what_two_measure_differently_is_not_verified(other: dict[str, Any]) -> None:
    """What left the wallet without an event, in coin as in dollars."""
    looks = [
        ProviderObservation(
            Observation(
                Head(9, b"", 9),
                None,
                None,
                None,
                0,
                {TXS[0]: Seen(builders.inclusion(**changes), "", "exact", False)},
                frozenset(),
            ),
            {},
            frozenset(),
        )
        for changes in ({}, other)
    ]
    seen = agreement.observation(said(*looks), 2).value.seen[TXS[0]]
    assert seen.wallet_check == "not verified: the providers differ in what left"


@given(honest=views(), liar=views(), turned=st.booleans(), per_owner=st.integers(1, 2))
def test_one_liar_of_two_cannot_show_what_is_not_there(
    *, honest: ProviderObservation, liar: ProviderObservation, turned: bool, per_owner: int
) -> None:
    """No inclusion, no height, no nonce, no replacement beyond what the honest one shows; nothing settled in doubt."""
    got = agreement.observation(said(honest, liar, turned=turned, per_owner=per_owner), 2).value
    mine = honest.observation
    for tx_hash, seen in got.seen.items():
        real = mine.seen[tx_hash].inclusion
        # What left without an event is measured, not shown: a difference is said.
        said_to_differ = not seen.trusted and seen.wallet_check.startswith("not verified")
        for field in ("block_number", "block_hash", "success", "gas", "token_fee", "tx_hash"):
            assert getattr(seen.inclusion, field) == getattr(real, field)
        assert said_to_differ or (seen.inclusion.spent, seen.inclusion.tokens) == (real.spent, real.tokens)
        assert seen.inclusion.l1_fee <= real.l1_fee
        assert seen.inclusion.transient <= real.transient
        assert seen.trusted <= mine.seen[tx_hash].trusted
    assert got.replaced <= mine.replaced
    assert got.used == mine.used & liar.observation.used
    assert got.nonce_latest <= mine.nonce_latest
    assert got.head.number <= mine.head.number
    assert got.head.timestamp_s <= mine.head.timestamp_s
    for height in ("safe", "finalized", "finalized_s"):
        shown, known = getattr(got, height), getattr(mine, height)
        assert shown is None or (known is not None and shown <= known)
    for tx_hash, block in RECORDED.items():
        if tx_hash not in honest.standing and tx_hash not in got.replaced:
            assert got.safe is None or got.safe < block
            assert got.finalized is None or got.finalized < block


@given(views(), views(), st.permutations([0, 1, 2]))
def test_one_liar_of_three_changes_nothing_of_what_is_seen(
    honest: ProviderObservation, liar: ProviderObservation, order: list[int]
) -> None:
    """What the two honest ones show is what holds."""
    three = [honest, honest, liar]
    got = agreement.observation(said(*(three[n] for n in order)), 2).value
    alone = agreement.observation(said(honest), 1).value
    assert {h: (s.inclusion.block_number, s.inclusion.success) for h, s in got.seen.items()} == {
        h: (s.inclusion.block_number, s.inclusion.success) for h, s in alone.seen.items()
    }
    assert (got.nonce_latest, got.finalized_s, got.used) == (alone.nonce_latest, alone.finalized_s, alone.used)
    if RECORDED.keys() == honest.standing | honest.observation.replaced:
        assert (got.safe, got.finalized, got.replaced) == (alone.safe, alone.finalized, alone.replaced)


@given(accounts, accounts)
def test_a_fate_is_word_for_word_or_undecided(honest: Account, other: Account) -> None:
    """Any difference in final block, mark, payers or control decides nothing; two URLs of one owner are one witness."""
    if replace(honest, newest=other.newest) == other:
        got = agreement.payment_status(said(honest, other))
        assert (got.flag, got.payers, got.witnesses) == (honest.flag, honest.payers, 2)
    else:
        with pytest.raises(Disagreement):
            agreement.payment_status(said(honest, other))
        with pytest.raises(Disagreement):
            agreement.payment_status(said(honest, honest, other))
    assert agreement.payment_status(said(honest, per_owner=2)).witnesses == 1


def test_two_pairs_that_contradict_each_other_agree_on_nothing() -> None:
    """Four providers, two and two: neither pair is believed."""
    one, two = replace(PREFLIGHT, nonce_latest=1), replace(PREFLIGHT, nonce_latest=2)
    with pytest.raises(Disagreement, match=r"p0\.0 shows nonce 1 .*p3\.0 shows nonce 2"):
        agreement.preflight_of(said(one, one, two, two), 2)


PREFLIGHT = Preflight(Head(1, b"", 1), Wei(1), 0, 0, Wei(1), Wei(1), b"", {500: Wei(1)}, 3000 * 10**8)


def test_prices_further_apart_than_an_update_forbid_paying() -> None:
    """One per cent is more than the feed moves at once: somebody is wrong, and nobody knows who."""
    near, far = replace(PREFLIGHT, price_e8=3030 * 10**8), replace(PREFLIGHT, price_e8=3031 * 10**8)
    assert agreement.preflight_of(said(PREFLIGHT, near), 2).value.price_e8 == 3030 * 10**8
    with pytest.raises(PaymentForbidden, match="the ETH/USD feed at 300000000000 and 303100000000"):
        agreement.preflight_of(said(PREFLIGHT, far), 2)


# -- real providers on one chain --------------------------------------------------------------------------------


def test_two_providers_are_asked_at_once_and_agree(pair: Stand) -> None:
    """One request to each, and the answer is the chain's."""
    got = pair.preflight()
    assert [server.requests for server in pair.servers] == [1, 1]
    assert got == pair.preflight(needs=1)
    assert pair.said == []
    # A quorum of one asks nobody beside the first, so that a liar that stands behind it is never heard.
    assert [server.requests for server in pair.servers] == [2, 1]
    pair.bend(1, "eth_getBalance", to=lambda _: hex(10**30))
    assert pair.preflight(needs=1) == got
    assert pair.servers[1].requests == 1
    # When every provider is of another chain a person has to look: that is a setting, not the weather.
    for number in (0, 1):
        pair.bend(number, "eth_chainId", to=lambda _: hex(84532))
    with pytest.raises(WrongChain):
        pair.preflight()


def test_one_nonce_that_lags_for_ever_is_never_signed_with(pair: Stand) -> None:
    """The cow's story: one shows an older nonce than the other; nothing is planned, and both are named."""
    pair.paid()
    bent = lie("eth_getTransactionCount", to=lambda _: "0x0")

    async def tried(chain: EvmChain) -> None:
        pair.bend(1, bent)
        with pytest.raises(ChainUnknown, match="the providers disagree") as error:
            await chain.preflight(pair.wallet, TOTAL, BASE.contract)
        assert f"{pair.name(0)} shows nonce 1" in str(error.value)
        assert f"{pair.name(1)} shows nonce 0" in str(error.value)

    async def agreed(chain: EvmChain) -> None:
        pair.bend(1, None)
        await chain.preflight(pair.wallet, TOTAL, BASE.contract)

    # It is said once: the same one twice is one event, and agreement in between makes the next one new.
    pair.run(tried, tried, agreed, tried, tried)
    assert [event.about for event in pair.told(ProvidersDisagree)] == ["wallet or contract"] * 2


def test_a_provider_of_another_chain_is_set_aside_and_nothing_is_taken_from_it(trio: Stand) -> None:
    """It is said once, the two others go on, and signed bytes are handed to it all the same."""
    trio.bend(1, "eth_chainId", to=lambda _: hex(84532))
    attempt = trio.attempt(trio.demand())
    preflight = partial(EvmChain.preflight, wallet=trio.wallet, total=TOTAL, contract=BASE.contract)
    *_, sent = trio.run(preflight, preflight, lambda chain: chain.send(attempt.raw or b"", attempt.hash or b""))
    assert sent.delivery is Delivery.ACCEPTED
    (event,) = trio.told(ProviderSetAside)
    assert (event.provider, event.why, event.pause_s) == (trio.name(1), "wrong_chain", PAUSE_S)
    assert trio.servers[1].asked["eth_chainId"] == 1  # not asked in its pause
    assert trio.servers[1].asked["eth_sendRawTransaction"] == 1


def test_a_provider_that_changes_its_chain_before_the_dry_run_is_not_believed(pair: Stand) -> None:
    """The chain id stands in that batch too: after a failover the survey's answer says nothing."""
    demand = pair.demand()

    async def preflight(chain: EvmChain) -> Any:
        got = await chain.preflight(pair.wallet, TOTAL, BASE.contract)
        pair.bend(1, "eth_chainId", to=lambda _: hex(84532))
        return got

    async def simulate(chain: EvmChain) -> Any:
        return await chain.simulate(pair.call(demand), demand, pair.head())

    with pytest.raises(ChainUnknown, match=r"2 independent providers have to agree and 1 can be believed: .*84532"):
        pair.run(preflight, simulate)


def test_a_dry_run_counts_on_the_block_that_was_surveyed_alone(pair: Stand) -> None:
    """A provider that has another block at that height, or none yet, says nothing of this payment."""
    demand = pair.demand()
    assert pair.simulate(demand).gas > 0
    for other in (always(None), changed(hash="0x" + "07" * 32)):
        pair.bend(1, "eth_getBlockByNumber", to=other)
        with pytest.raises(ChainUnknown, match="does not have block"):
            pair.simulate(demand)


NONSENSE: list[Any] = [None, 5, "0x", "zz", [], [None], {"x": [None]}, "0x" + "ff" * 33, "0x" + "f" * 4000]
ASKED = [
    *("eth_chainId", "eth_getBlockByNumber", "eth_getBalance", "eth_getTransactionCount", "eth_maxPriorityFeePerGas"),
    *("eth_getCode", "eth_call", "eth_estimateGas", "eth_simulateV1", "eth_getTransactionReceipt", "eth_getStorageAt"),
    "eth_getLogs",
]


@pytest.mark.parametrize("method", ASKED)
def test_nonsense_from_one_of_three_stops_nothing(method: str, trio: Stand) -> None:
    """Whatever one answers to one method, the two others plan, look and prove as if it were not there."""
    demand, attempt = trio.paid()
    trio.mine(40)
    unpaid = trio.demand()
    call = trio.call(unpaid)

    async def all_of_it(chain: EvmChain) -> tuple[Any, ...]:
        preflight = await chain.preflight(trio.wallet, TOTAL, BASE.contract)
        run = await chain.simulate(call, unpaid, preflight.head)
        look = await chain.look(trio.wallet, [(attempt, demand)])
        return preflight, run, look.seen.keys(), look.nonce_latest, look.finalized

    async def proof(chain: EvmChain) -> Any:
        return replace(await settled(chain.payment_status(demand, 0)), witnesses=0), await chain.flag(demand)

    known: dict[str, Any] = {}

    async def remembered(asked: str, params: list[Any], answer: Next) -> Any:
        # The chain stands still; running the same payment again takes seconds.
        question = f"{asked} {params}"
        if question not in known:
            known[question] = answer()
        return known[question]

    def bent(said: Any) -> Intercept:
        async def one(asked: str, params: list[Any], answer: Next) -> Any:
            return said if asked == method else await remembered(asked, params, answer)

        return one

    for number in range(3):
        trio.bend(number, remembered)
    honest, proven = trio.ask(all_of_it), trio.ask(proof)
    for said in NONSENSE:
        trio.bend(1, bent(said))
        assert trio.ask(all_of_it) == honest, said
        try:
            assert trio.ask(proof) == proven, said
        except Disagreement:
            # A list without a log is an answer like any other: it contradicts.
            assert (method, said) == ("eth_getLogs", [])


def test_a_provider_behind_the_others_is_set_aside_and_comes_back(trio: Stand) -> None:
    """Its newest block is older than the others' by more than the limit: out at once, back after its pause."""
    behind = lie(
        "eth_getBlockByNumber",
        to=lambda b: {**b, "timestamp": hex(int(b["timestamp"], 16) - LAG_MAX_S - 10)},
        when=lambda p: p[0] == "latest",
    )
    trio.bend(2, behind)
    looked: list[int] = []

    async def look(chain: EvmChain) -> None:
        await chain.look(trio.wallet, [])
        looked.append(trio.servers[2].asked["eth_chainId"])

    async def later(_: EvmChain) -> None:
        trio.later(PAUSE_S)
        trio.bend(2, None)

    trio.run(look, look, later, look)
    assert looked == [1, 1, 2]
    (out,), (back,) = trio.told(ProviderSetAside), trio.told(ProviderBack)
    assert (out.provider, out.why) == (trio.name(2), "lagging")
    assert "s behind the others" in out.detail
    assert (back.provider, back.out_s >= PAUSE_S) == (trio.name(2), True)


def test_a_provider_that_fails_again_and_again_waits_longer_each_time(trio: Stand) -> None:
    """Three failures in a row set it aside; each pause is twice the last; it is said once."""
    trio.bend(1, dead)
    tries: list[int] = []

    async def look(chain: EvmChain) -> None:
        await chain.look(trio.wallet, [])
        tries.append(trio.servers[1].requests)

    async def pause(_: EvmChain) -> None:
        trio.later(PAUSE_S)

    trio.run(look, look, look, look, pause, look, pause, look, pause, look, pause, look)
    assert tries == [1, 2, 3, 3, 4, 4, 5, 5]
    assert [e.why for e in trio.told(ProviderSetAside)] == ["failing"]


def test_while_too_few_are_left_the_pause_is_not_waited_for(pair: Stand) -> None:
    """Nothing is gained by asking nobody: a provider that is back helps at once."""
    pair.bend(1, dead)

    async def tried(chain: EvmChain) -> bool:
        try:
            await chain.look(pair.wallet, [])
        except ChainUnknown:
            return False
        return True

    async def mended(_: EvmChain) -> bool:
        pair.bend(1, None)
        return True

    assert pair.run(*[tried] * (FAILURES_MAX + 1), mended, tried)[-1]
    assert len(pair.told(ProviderSetAside)) == len(pair.told(ProviderBack)) == 1


def test_a_lone_provider_is_never_set_aside(sole: Stand) -> None:
    """There is nobody else to ask: it is asked each time, as ever."""
    sole.bend(0, dead)

    async def tried(chain: EvmChain) -> None:
        with pytest.raises(ChainUnknown, match="no provider gave a usable answer"):
            await chain.look(sole.wallet, [])

    sole.run(*[tried] * 5)
    assert sole.servers[0].requests == 5
    assert sole.said == []


def test_what_one_shows_alone_of_a_receipt_is_not_seen(pair: Stand) -> None:
    """A preconfirmation, or a lie: what one shows alone has not happened yet."""
    demand, attempt = pair.paid()
    assert pair.seen(demand, attempt).inclusion.success
    pair.bend(0, "eth_getTransactionReceipt", to=always(None))
    got = pair.look(demand, attempt)
    assert (got.seen, got.nonce_latest) == ({}, 1)
    # One says failed where the other says paid: neither is believed, and both are named.
    pair.said.clear()
    pair.bend(0, None)
    pair.bend(1, "eth_getTransactionReceipt", to=changed(status="0x0"))
    assert pair.look(demand, attempt).seen == {}
    (event,) = pair.told(ProvidersDisagree)
    assert pair.name(0) in event.detail
    assert pair.name(1) in event.detail


def test_what_one_calls_replaced_is_neither_replaced_nor_settled(pair: Stand) -> None:
    """The recorded block stands for one and not for the other: it is kept, and not final until they agree."""
    demand, attempt = pair.paid()
    inclusion = pair.seen(demand, attempt).inclusion
    recorded = replace(attempt, inclusion=inclusion)
    pair.mine(40)
    settled = pair.look(demand, recorded)
    assert settled.finalized is not None
    assert settled.finalized >= inclusion.block_number
    at = hex(inclusion.block_number)
    pair.bend(1, "eth_getBlockByNumber", to=lambda b: {**b, "hash": "0x" + "07" * 32}, when=lambda p: p[0] == at)
    doubted = pair.look(demand, recorded)
    assert doubted.replaced == frozenset()
    assert (doubted.safe, doubted.finalized) == (inclusion.block_number - 1, inclusion.block_number - 1)
    assert pair.told(ProvidersDisagree)


def test_a_cancel_in_a_block_is_success_that_paid_nothing(pair: Stand) -> None:
    """To the wallet itself, without value: no event is looked for, nothing was spent, only gas."""
    demand = pair.demand()
    plan = {"kind": Kind.CANCEL, "to": pair.wallet, "data": b"", "value": Wei(0), "gas_limit": 21_000}
    seen = pair.seen(demand, pair.mined(pair.attempt(demand, **plan)))
    assert (seen.inclusion.success, seen.trusted, seen.inclusion.spent) == (True, True, Wei(0))
    assert seen.inclusion.gas > Wei(0)
    assert seen.wallet_check == "exact"


# -- what became of a charge ------------------------------------------------------------------------------------


def fate_of(demand: Charge) -> Callable[[EvmChain], Awaitable[ChargeStatus]]:
    return lambda chain: settled(chain.payment_status(demand, 0))


# On anvil stands the contract as it was compiled: mark and event are where they are looked for.
@pytest.mark.parametrize(("chain", "providers"), [("embedded", 2), ("anvil", 1)])
def test_the_fate_of_a_paid_charge_names_its_payment(chain: str, providers: int) -> None:
    """Mark and event, at a final block that all have; of another charge of the same operator neither."""
    for stand in stand_on(chain, providers):
        demand, attempt = stand.paid()
        other = stand.demand()
        stand.mine(80)
        told = stand.ask(fate_of(demand))
        assert (told.flag, told.payers, told.witnesses) == (True, frozenset({attempt.hash}), providers)
        final = stand.rpc("eth_getBlockByNumber", "finalized", False)
        assert (told.final_number, told.final_s) == (int(final["number"], 16), int(final["timestamp"], 16))
        unpaid = stand.ask(fate_of(other))
        assert (unpaid.flag, unpaid.payers) == (False, frozenset())
        assert stand.ask(partial(EvmChain.flag, demand=demand))
        assert not stand.ask(partial(EvmChain.flag, demand=other))


def by_number(params: list[Any]) -> bool:
    return bool(params[0].startswith("0x"))


LIES: dict[str, Intercept] = {
    "hides the event": lie("eth_getLogs", to=always([])),
    "hides the mark": lie("eth_getStorageAt", to=always("0x" + "00" * 32)),
    "has another final block": lie("eth_getBlockByNumber", to=changed(hash="0x" + "07" * 32), when=by_number),
    "has another time": lie("eth_getBlockByNumber", to=changed(timestamp=hex(2**33)), when=by_number),
    "has no final block": lie("eth_getBlockByNumber", to=always(None), when=lambda p: p[0] == "finalized"),
    "cannot read logs": lie("eth_getLogs", to=always(None)),
    "cannot read the mark": lie("eth_getStorageAt", to=always(None)),
    "answers the mark with nothing": lie("eth_getStorageAt", to=always("0x")),
    "answers the mark with more": lie("eth_getStorageAt", to=always("0x" + "00" * 31 + "02")),
    "is of another chain": lie("eth_chainId", to=always("0x1")),
    "is gone": dead,
    "tells foreign logs": lie("eth_getLogs", to=lambda logs: [{**log, "topics": log["topics"][:1]} for log in logs]),
    "tells withdrawn logs": lie("eth_getLogs", to=changed(removed=True)),
    "tells logs of another block": lie("eth_getLogs", to=changed(blockNumber="0xfffff")),
}


@pytest.mark.parametrize("number", [0, 1])
def test_a_fate_that_one_bends_is_undecided(number: int, pair: Stand) -> None:
    """Any error, null or difference among two is never a "no"."""
    demand, _ = pair.paid()
    pair.mine(40)
    honest = pair.ask(fate_of(demand))
    for how, bent in LIES.items():
        pair.bend(number, bent)
        with pytest.raises(ChainUnknown):
            pytest.fail(f"{how}: {pair.ask(fate_of(demand))}")
    # The self-test on our own payment is never passed by one alone.
    pair.bend(number, LIES["hides the mark"])
    with pytest.raises(ChainUnknown, match="disagree"):
        pair.ask(lambda c: c.flag(demand))
    # The final block is the last that both have: one that runs ahead alone proves nothing.
    newest = pair.rpc("eth_getBlockByNumber", "latest", False)
    pair.bend(number, "eth_getBlockByNumber", to=lambda _: newest, when=lambda p: p[0] == "finalized")
    assert pair.ask(fate_of(demand)) == honest


def test_with_three_a_silent_one_does_not_hold_up_a_proof(trio: Stand) -> None:
    """Two witnesses agree; the third says nothing and contradicts nothing. One that contradicts does hold it up."""
    demand, _ = trio.paid()
    trio.mine(40)
    # A quorum of one is a word about reading: all are asked, and it is told how many have said it.
    assert trio.ask(fate_of(demand), needs=1).witnesses == 3
    assert trio.ask(fate_of(demand), needs=1, urls=[trio.servers[0].url]).witnesses == 1
    trio.bend(1, dead)
    assert trio.ask(fate_of(demand)).witnesses == 2
    trio.bend(1, LIES["hides the event"])
    with pytest.raises(Disagreement):
        trio.ask(fate_of(demand))


# -- the scan ---------------------------------------------------------------------------------------------------


def scanned(stand: Stand, first: int, last: int, into: list[Chunk] | None = None) -> list[Chunk]:
    """Scan these blocks; what was handed out is in `into` as well, also when the scan breaks off."""
    chunks: list[Chunk] = [] if into is None else into

    async def scan(rpc: Rpc) -> list[Chunk]:
        operator = builders.address(stand.world.operator.address)
        async for chunk in transfers(rpc, BASE.contract, operator, first, last, patient()):
            chunks.append(chunk)  # noqa: PERF401 - what was handed out before the end has to be seen
        return chunks

    return stand.through(scan)


def test_chunks_lie_side_by_side_and_hold_every_payment_once(sole: Stand) -> None:
    """Whatever range is granted, it is found by asking, and the chunks cover all without gap or overlap."""
    paid = [sole.paid()[1].hash for _ in range(3)]
    sole.mine(10)
    last = sole.head().number
    for span in (1, 2, 3, 100):
        sole.bend(0, limited(span))
        chunks = scanned(sole, 0, last)
        assert (chunks[0].first, chunks[-1].last) == (0, last)
        assert all(one.last + 1 == other.first for one, other in pairwise(chunks))
        assert max(c.last - c.first for c in chunks) < span
        assert [t.tx_hash for chunk in chunks for t in chunk.transfers] == paid
    # A node that is behind the range says nothing: it would answer with the logs it has, which looks complete.
    sole.bend(0, None)
    with pytest.raises(ChainUnknown, match=f"has no block {last + 1}"):
        scanned(sole, 0, last + 1)


def test_a_chunk_that_cannot_be_had_ends_the_scan_at_its_place(sole: Stand) -> None:
    """What was handed out before stands, and nothing after the gap is; going on begins at the gap."""
    sole.mine(10)
    short = limited(4)

    async def broken(method: str, params: list[Any], honest: Next) -> Any:
        answer = await short(method, params, honest)
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) >= 6:
            raise RpcError(-32000, "missing")
        return answer

    done: list[Chunk] = []
    sole.bend(0, broken)
    with pytest.raises(ChainUnknown, match="the logs of blocks 6 to 7: missing"):
        scanned(sole, 0, 10, done)
    assert done[-1].last == 5


# -- whole refills ----------------------------------------------------------------------------------------------


async def test_a_refill_through_two_takes_no_more_round_trips_than_through_one(town: Callable[..., Town]) -> None:
    """Preflight, dry run, send: three requests to each, side by side."""
    there = town(2)
    before: list[list[int]] = []

    async def counted(method: str, _: list[Any], honest: Next) -> Any:
        if method == "eth_sendRawTransaction":
            before.append([server.requests for server in there.servers])
        return honest()

    for server in there.servers:
        server.intercept = counted
    await there.filled()
    assert max(max(counts) for counts in before[:2]) == 3
    assert there.stage.named("providers_disagree") == []


BENT: dict[str, Intercept] = {
    "is dead": dead,
    "is of another chain": lie("eth_chainId", to=always(hex(84532))),
    "shows no receipt": lie("eth_getTransactionReceipt", to=always(None)),
    "shows every receipt failed": lie("eth_getTransactionReceipt", to=changed(status="0x0")),
    "shows an old nonce": lie("eth_getTransactionCount", to=always("0x0")),
    "shows a foreign nonce": lie("eth_getTransactionCount", to=always("0x7")),
    "shows a rich wallet": lie("eth_getBalance", to=always(hex(10**24))),
    "shows a stale block": lie("eth_getBlockByNumber", to=changed(number="0x1")),
    "has other code": lie("eth_getCode", to=always("0x6001")),
    "asks a high tip": lie("eth_maxPriorityFeePerGas", to=always(hex(10**12))),
    "asks much gas": lie("eth_estimateGas", to=always(hex(10**9))),
}


@pytest.mark.parametrize("how", BENT)
async def test_with_three_of_which_one_is_bent_the_refill_is_paid_once(how: str, town: Callable[..., Town]) -> None:
    """Nothing that one of three does keeps the account from being filled, or makes it cost more."""
    there = town(3)
    there.servers[0].intercept = BENT[how]
    paid = (await there.filled()).paying
    assert paid is not None
    assert paid.plan.gas_limit < 10**6
    assert paid.plan.max_priority_fee_per_gas < Wei(10**9)


async def test_what_one_of_two_hides_is_waited_for_and_not_paid_again(town: Callable[..., Town]) -> None:
    """Receipts are hidden after the payment: it stays sent, however long, until both show it."""
    there = town(2)
    there.servers[1].intercept = BENT["shows no receipt"]
    await there.stage.until(State.SENT)
    for _ in range(20):
        await there.stage.step()
    assert there.stage.topup.state is State.SENT
    assert len(there.stage.topup.charges) == 1
    there.servers[1].intercept = None
    await there.filled()


async def test_nothing_is_signed_while_one_of_two_is_of_another_chain(town: Callable[..., Town]) -> None:
    """The quorum cannot be had: topup waits and names it; when the provider is right again, it pays."""
    there = town(2)
    there.servers[1].intercept = BENT["is of another chain"]
    rest = await there.stage.rests("chain_unknown")
    assert "speaks for chain 84532" in rest.detail
    for _ in range(5):
        await there.stage.step()
    assert there.stage.topup.attempts == ()
    (aside,) = there.stage.named("provider_set_aside")
    assert aside.why == "wrong_chain"
    there.servers[1].intercept = None
    await there.filled()
    assert there.stage.named("provider_back")
