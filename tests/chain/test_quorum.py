"""What can one provider that lies make of several? At worst a stop, and with two honest ones beside it not even that.

First the merge as a rule over made-up answers, then real servers on one chain of which one is bent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chain.test_chain import HEAD_AGE_MAX_S, LAG_MAX_S, TOTAL, Stand, stand_on
from tests.world import builders
from tests.world.builders import settled
from tests.world.stage import Stage
from topup.app.settings import load
from topup.chain import agreement
from topup.chain.agreement import Answers, Disagreement, Vote
from topup.chain.charge_status import Account
from topup.chain.contract_chain import EvmChain
from topup.chain.contracts import payment_data
from topup.chain.logs import Chunk, patient, transfers
from topup.chain.owners import owner, quorum
from topup.chain.profiles import BASE
from topup.chain.providers import FAILURES_MAX, PAUSE_S, Providers
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import Charge
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted, SettingsError, WrongChain
from topup.domain.events import Event, ProviderBack, ProvidersDisagree, ProviderSetAside
from topup.domain.lifecycle import Attempt, Kind, State
from topup.domain.money import Wei
from topup.domain.nonpayment import ChargeStatus
from topup.ports.chain import Call, Delivery, Head, Observation, Preflight, Seen, Simulation
from topup.sandbox import contracts
from topup.sandbox.gateway import Conduct
from topup.sandbox.rpc import Drop, Intercept, Next, RpcError, RpcServer
from topup.sandbox.world import World, embedded

T = TypeVar("T")

# -- whose a provider is ----------------------------------------------------------------------------------------

SAME = [
    ("https://mainnet.base.org", "https://other.base.org"),
    ("https://mainnet.base.org/key1", "https://mainnet.base.org/key2"),
    ("https://a.quiknode.pro/x", "https://b.c.quiknode.pro/y"),
    ("https://rpc.one.co.uk", "https://two.one.co.uk"),
    ("https://Example.com.", "https://rpc.example.com:8443"),
    ("http://localhost:8545", "http://127.0.0.1:8545"),
    ("http://[::1]:8545", "http://127.0.0.1:8545/path"),
    ("https://192.0.2.7:1", "https://192.0.2.7:2"),
    ("https://one.unknown.example", "https://unknown.example"),
    ("https://[2001:db8::1]/a", "https://[2001:DB8:0:0::1]/b"),
    ("https://192.0.2.7/a", "https://[::ffff:192.0.2.7]/b"),
    ("https://192.0.2.7/a", "https://[::ffff:c000:207]/b"),
    ("https://192.0.2.7/a", "https://[64:ff9b::c000:207]/b"),
    ("https://192.0.2.7", "https://3221225991"),
    ("https://192.0.2.7", "https://0xc0.0.0x2.7"),
    ("https://[fe80::1%25eth0]", "https://[fe80::1]"),
    ("https://ex\u00e4mple.com", "https://xn--exmple-cua.com"),
    ("https://ex\u00e4mple.com", "https://rpc.exa\u0308mple.com"),
    ("https://EX\u00c4MPLE.com", "https://ex\u00e4mple.com."),
    ("https://fa\u00df.example", "https://xn--fa-hia.example"),
    ("https://\uff45xample.com", "https://example\u3002com"),
    ("http://127.1:8545", "http://127.0.0.1:8545"),
    ("http://[::ffff:127.0.0.1]:8545", "http://localhost:8545"),
    ("http://0.0.0.0:8545", "http://node.localhost:8545"),
    ("http://127.0.0.1:80", "http://localhost"),
]
APART = [
    ("https://mainnet.base.org", "https://base.drpc.org"),
    ("https://one.co.uk", "https://two.co.uk"),
    ("https://base.com", "https://base.org"),
    ("http://127.0.0.1:8545", "http://127.0.0.1:8546"),
    ("http://localhost:8545", "http://[::1]:8546"),
    ("https://192.0.2.7", "https://192.0.2.8"),
    ("https://[2001:db8::1]", "https://[2001:db8::2]"),
    ("https://[::ffff:192.0.2.7]", "https://[::ffff:192.0.2.8]"),
    ("https://ex\u00e4mple.com", "https://xn--exmple-dua.com"),
    ("https://xn--99999999999.com", "https://xn--99999999998.com"),
    ("https://127.0.0.1", "http://127.0.0.1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_urls_of_one_owner_are_one_witness(one: str, other: str) -> None:
    """Path, port, spelling and sub-domain make no second provider."""
    assert owner(one) == owner(other)
    assert quorum([one, other], None) == 1


@pytest.mark.parametrize(("one", "other"), APART)
def test_two_owners_are_two_witnesses(one: str, other: str) -> None:
    """Another registrable domain, another address, or another port of this machine."""
    assert owner(one) != owner(other)
    assert quorum([one, other], None) == 2
    assert quorum([one, other], 1) == 1


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
refusals = st.sampled_from([PaymentForbidden("simulation", "it does harm"), Reverted("", "no", b"")])
TXS = [b"\x0a" * 32, b"\x0b" * 32]
RECORDED = {TXS[0]: 7}
inclusions = st.builds(
    lambda block, success, gas, l1_fee, spent, transient: builders.inclusion(
        block_number=block, success=success, gas=gas, l1_fee=l1_fee, spent=spent, transient=transient
    ),
    st.integers(6, 8),
    st.booleans(),
    st.integers(0, 1).map(Wei),
    weis,
    st.integers(0, 1).map(Wei),
    st.booleans(),
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
)


@st.composite
def views(draw: st.DrawFn) -> ProviderObservation:
    told = draw(sightings)
    standing = draw(st.frozensets(st.sampled_from(list(RECORDED)))) - told.replaced
    return ProviderObservation(told, RECORDED, standing)


accounts = st.builds(
    Account,
    newest=heads,
    final=st.builds(Head, st.just(3), hashes, st.just(9)),
    flag=st.booleans(),
    payers=st.frozensets(st.sampled_from(TXS)),
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
        for field in ("block_number", "block_hash", "success", "gas", *(() if said_to_differ else ("spent",))):
            assert getattr(seen.inclusion, field) == getattr(real, field)
        assert seen.inclusion.l1_fee <= real.l1_fee
        assert seen.inclusion.transient <= real.transient
        assert seen.trusted <= mine.seen[tx_hash].trusted
    assert got.replaced <= mine.replaced
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
    assert (got.nonce_latest, got.finalized_s) == (alone.nonce_latest, alone.finalized_s)
    if RECORDED.keys() == honest.standing | honest.observation.replaced:
        assert (got.safe, got.finalized, got.replaced) == (alone.safe, alone.finalized, alone.replaced)


@given(accounts, accounts)
def test_a_fate_is_word_for_word_or_undecided(honest: Account, other: Account) -> None:
    """Any difference in final block, mark or payers decides nothing; two URLs of one owner are one witness."""
    same = (honest.final, honest.flag, honest.payers) == (other.final, other.flag, other.payers)
    if same:
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
    one = builders_survey(nonce_latest=1)
    two = builders_survey(nonce_latest=2)
    with pytest.raises(Disagreement, match=r"p0\.0 shows nonce 1 .*p3\.0 shows nonce 2"):
        agreement.preflight_of(said(one, one, two, two), 2)


def builders_survey(**changes: Any) -> Preflight:
    one = Preflight(Head(1, b"", 1), Wei(1), 0, 0, Wei(1), Wei(1), b"", {500: Wei(1)}, 3000 * 10**8)
    return replace(one, **changes)


def test_prices_further_apart_than_an_update_forbid_paying() -> None:
    """One per cent is more than the feed moves at once: somebody is wrong, and nobody knows who."""
    one = builders_survey()
    near, far = replace(one, price_e8=3030 * 10**8), replace(one, price_e8=3031 * 10**8)
    assert agreement.preflight_of(said(one, near), 2).value.price_e8 == 3030 * 10**8
    with pytest.raises(PaymentForbidden, match="the ETH/USD feed at 300000000000 and 303100000000"):
        agreement.preflight_of(said(one, far), 2)


# -- real providers on one chain --------------------------------------------------------------------------------


class House:
    """One chain behind several servers, each of which can be bent; the chain's edge in front of them."""

    def __init__(self, stand: Stand, count: int) -> None:
        self.stand = stand
        self.servers: list[RpcServer] = [stand.world.rpc, *(stand.world.provider() for _ in range(count - 1))]
        self.said: list[Event] = []
        self.ahead_s = 0

    def close(self) -> None:
        loop = self.stand.world._loop
        assert loop is not None
        for server in self.servers[1:]:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(timeout=10)

    def now_s(self) -> int:
        return self.stand.world.clock.now_s() + self.ahead_s

    def later(self, seconds: int) -> None:
        """Let time pass, and a block with it."""
        self.ahead_s += seconds
        self.stand.mine_at(self.now_s())

    def run(
        self, act: Callable[[EvmChain], Awaitable[T]], *more: Callable[[EvmChain], Awaitable[T]], needs: int = 2
    ) -> T:
        """Do things one after the other with one edge; return what came of the last."""

        async def asked() -> T:
            rpcs = [Rpc(server.url, timeout_s=20) for server in self.servers]
            watched = Providers(
                rpcs,
                quorum=needs,
                now_s=self.now_s,
                head_age_max_s=HEAD_AGE_MAX_S,
                lag_max_s=LAG_MAX_S,
                say=self.said.append,
            )
            chain = EvmChain(BASE, watched)
            try:
                got = await act(chain)
                for one in more:
                    got = await one(chain)
                return got
            finally:
                for rpc in rpcs:
                    await rpc.close()

        return asyncio.run(asked())

    def preflight(self, needs: int = 2) -> Preflight:
        return self.run(lambda c: c.preflight(self.stand.wallet, TOTAL, BASE.contract), needs=needs)

    def look(self, *attempts: tuple[Attempt, Charge], needs: int = 2) -> Observation:
        return self.run(lambda c: c.look(self.stand.wallet, attempts), needs=needs)

    def bend(self, number: int, intercept: Intercept | None) -> None:
        self.servers[number].intercept = intercept

    def name(self, number: int) -> str:
        return self.servers[number].url.removeprefix("http://")

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]


@pytest.fixture
def stand() -> Iterator[Stand]:
    yield from stand_on("embedded")


def housed(stand: Stand, count: int) -> Iterator[House]:
    house = House(stand, count)
    yield house
    house.close()


@pytest.fixture
def sole(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 1)


@pytest.fixture
def pair(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 2)


@pytest.fixture
def trio(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 3)


def lie(method: str, answer: Callable[[Any], Any], when: Callable[[list[Any]], bool] = lambda _: True) -> Intercept:
    async def bent(asked: str, params: list[Any], honest: Next) -> Any:
        return answer(honest()) if asked == method and when(params) else honest()

    return bent


def constant(answer: Any) -> Callable[[Any], Any]:
    return lambda _: answer


async def dead(_: str, __: list[Any], ___: Next) -> Any:
    raise Drop


def test_two_providers_are_asked_at_once_and_agree(pair: House) -> None:
    """One request to each, and the answer is the chain's."""
    got = pair.preflight()
    assert [server.requests for server in pair.servers] == [1, 1]
    assert got == pair.preflight(needs=1)
    assert pair.said == []


def test_one_nonce_that_lags_for_ever_is_never_signed_with(pair: House) -> None:
    """The cow's story: one shows an older nonce than the other; nothing is planned, and both are named, once."""
    pair.stand.paid()
    pair.bend(1, lie("eth_getTransactionCount", lambda _: "0x0"))
    with pytest.raises(ChainUnknown, match="the providers disagree") as error:
        pair.preflight()
    assert f"{pair.name(0)} shows nonce 1" in str(error.value)
    assert f"{pair.name(1)} shows nonce 0" in str(error.value)
    (event,) = pair.told(ProvidersDisagree)
    assert event.about == "wallet or contract"


def test_a_disagreement_is_said_once_for_each_change(pair: House) -> None:
    """The same one twice is one event; agreement in between makes the next one new."""
    pair.stand.paid()
    bent = lie("eth_getTransactionCount", lambda _: "0x0")

    async def tried(chain: EvmChain) -> None:
        try:
            await chain.preflight(pair.stand.wallet, TOTAL, BASE.contract)
        except ChainUnknown:
            return

    async def honest(_: EvmChain) -> None:
        pair.bend(1, None)

    async def again(_: EvmChain) -> None:
        pair.bend(1, bent)

    pair.bend(1, bent)
    pair.run(tried, tried, honest, tried, again, tried)
    assert len(pair.told(ProvidersDisagree)) == 2


def test_with_three_the_one_that_lies_is_outvoted(trio: House) -> None:
    """The nonce of two holds; the third is named."""
    trio.stand.paid()
    trio.bend(1, lie("eth_getTransactionCount", lambda _: "0x9"))
    assert trio.preflight().nonce_latest == 1
    (event,) = trio.told(ProvidersDisagree)
    assert f"{trio.name(1)} shows nonce 9" in event.detail


@pytest.mark.parametrize("factor", [3, 20])
def test_a_quote_that_one_makes_dearer_buys_nothing_dearer(factor: int, pair: House) -> None:
    """The lower quote of both counts: value is what a sandwich can take."""
    honest = pair.preflight().quotes
    quoter = contracts.QUOTER_V2.lower()

    def dearer(told: str) -> str:
        return "0x" + (int(told[2:66], 16) * factor).to_bytes(32, "big").hex() + told[66:]

    pair.bend(0, lie("eth_call", dearer, lambda p: p[0]["to"].lower() == quoter))
    assert pair.preflight().quotes == honest


def test_with_one_owner_the_first_that_answers_is_asked_alone(pair: House) -> None:
    """A quorum of one asks nobody beside the first, so that a liar that stands behind it is never heard."""
    pair.bend(1, lie("eth_getBalance", lambda _: hex(10**30)))
    assert pair.preflight(needs=1).balance < Wei(10**30)
    assert pair.servers[1].requests == 0


# story 18


def test_a_provider_of_another_chain_is_set_aside_and_nothing_is_taken_from_it(trio: House) -> None:
    """It is said once, the two others go on, and signed bytes are handed to it all the same."""
    trio.bend(1, lie("eth_chainId", lambda _: hex(84532)))
    demand = trio.stand.demand()
    attempt = trio.stand.attempt(demand)

    async def preflight(chain: EvmChain) -> Any:
        return await chain.preflight(trio.stand.wallet, TOTAL, BASE.contract)

    async def send(chain: EvmChain) -> Any:
        return await chain.send(attempt.raw or b"", attempt.hash or b"")

    sent = trio.run(preflight, preflight, send)
    assert sent.delivery is Delivery.ACCEPTED
    (event,) = trio.told(ProviderSetAside)
    assert (event.provider, event.why, event.pause_s) == (trio.name(1), "wrong_chain", PAUSE_S)
    assert trio.servers[1].asked["eth_chainId"] == 1  # not asked in its pause
    assert trio.servers[1].asked["eth_sendRawTransaction"] == 1


def test_a_provider_that_changes_its_chain_before_the_dry_run_is_not_believed(pair: House) -> None:
    """The chain id stands in that batch too: after a failover the survey's answer says nothing."""
    demand = pair.stand.demand()
    value = Wei(4 * 10**15)

    async def preflight(chain: EvmChain) -> Any:
        got = await chain.preflight(pair.stand.wallet, TOTAL, BASE.contract)
        pair.bend(1, lie("eth_chainId", lambda _: hex(84532)))
        return got

    async def simulate(chain: EvmChain) -> Any:
        call = Call(pair.stand.wallet, demand.contract, payment_data(demand.intent, 500), value)
        return await chain.simulate(call, demand, pair.stand.head())

    with pytest.raises(ChainUnknown, match=r"2 independent providers have to agree and 1 can be believed: .*84532"):
        pair.run(preflight, simulate)


def test_when_every_provider_is_of_another_chain_a_person_has_to_look(pair: House) -> None:
    """That is a setting, not the weather."""
    for number in (0, 1):
        pair.bend(number, lie("eth_chainId", lambda _: hex(84532)))
    with pytest.raises(WrongChain):
        pair.preflight()


def test_a_dry_run_counts_on_the_block_that_was_surveyed_alone(pair: House) -> None:
    """A provider that has another block at that height, or none yet, says nothing of this payment."""
    demand, head = pair.stand.demand(), pair.stand.head()
    call = Call(pair.stand.wallet, demand.contract, payment_data(demand.intent, 500), Wei(4 * 10**15))
    assert pair.run(lambda c: c.simulate(call, demand, head)).gas > 0
    for other in (None, {"number": hex(head.number), "hash": "0x" + "07" * 32, "timestamp": "0x1"}):
        pair.bend(1, lie("eth_getBlockByNumber", constant(other)))
        with pytest.raises(ChainUnknown, match="does not have block"):
            pair.run(lambda c: c.simulate(call, demand, head))


# nonsense


NONSENSE: list[Any] = [None, 5, "0x", "zz", [], [None], {"x": [None]}, "0x" + "ff" * 33]
ASKED = [
    "eth_chainId",
    "eth_getBlockByNumber",
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_maxPriorityFeePerGas",
    "eth_getCode",
    "eth_call",
    "eth_estimateGas",
    "eth_simulateV1",
    "eth_getTransactionReceipt",
    "eth_getStorageAt",
    "eth_getLogs",
]


@pytest.mark.parametrize("method", ASKED)
def test_nonsense_from_one_of_three_stops_nothing(method: str, trio: House) -> None:
    """Whatever one answers to one method, the two others plan, look and prove as if it were not there."""
    demand, attempt = trio.stand.paid()
    trio.stand.mine(40)
    unpaid = trio.stand.demand()
    call = Call(trio.stand.wallet, unpaid.contract, payment_data(unpaid.intent, 500), Wei(4 * 10**15))

    async def all_of_it(chain: EvmChain) -> tuple[Any, ...]:
        preflight = await chain.preflight(trio.stand.wallet, TOTAL, BASE.contract)
        run = await chain.simulate(call, unpaid, preflight.head)
        look = await chain.look(trio.stand.wallet, [(attempt, demand)])
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
    honest, proven = trio.run(all_of_it), trio.run(proof)
    for said in NONSENSE:
        trio.bend(1, bent(said))
        assert trio.run(all_of_it) == honest, said
        try:
            assert trio.run(proof) == proven, said
        except Disagreement:
            # A list without a log is an answer like any other: it contradicts.
            assert (method, said) == ("eth_getLogs", [])


# watched


def test_a_provider_behind_the_others_is_set_aside_and_comes_back(trio: House) -> None:
    """Its newest block is older than the others' by more than the limit: out at once, back after its pause."""
    behind = lie(
        "eth_getBlockByNumber",
        lambda b: {**b, "timestamp": hex(int(b["timestamp"], 16) - LAG_MAX_S - 10)},
        lambda p: p[0] == "latest",
    )
    trio.bend(2, behind)
    looked: list[int] = []

    async def look(chain: EvmChain) -> None:
        await chain.look(trio.stand.wallet, [])
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


def test_a_provider_that_claims_the_future_sets_nobody_aside(trio: House) -> None:
    """Ahead of this machine's clock counts for no more than now: the honest ones are not behind it."""
    trio.bend(0, lie("eth_getBlockByNumber", lambda b: {**b, "timestamp": hex(2**39)}, lambda p: p[0] == "latest"))
    trio.look()
    assert trio.told(ProviderSetAside) == []


def test_a_provider_that_fails_again_and_again_waits_longer_each_time(trio: House) -> None:
    """Three failures in a row set it aside; each pause is twice the last; it is said once."""
    trio.bend(1, dead)
    tries: list[int] = []

    async def look(chain: EvmChain) -> None:
        await chain.look(trio.stand.wallet, [])
        tries.append(trio.servers[1].requests)

    async def pause(_: EvmChain) -> None:
        trio.later(PAUSE_S)

    trio.run(look, look, look, look, pause, look, pause, look, pause, look, pause, look)
    assert tries == [1, 2, 3, 3, 4, 4, 5, 5]
    assert [e.why for e in trio.told(ProviderSetAside)] == ["failing"]


def test_too_few_names_who_is_missing_and_why(pair: House) -> None:
    """One of two is away: nothing is concluded, and the message says which one and what it did."""
    pair.bend(1, dead)
    with pytest.raises(
        ChainUnknown, match=r"2 independent providers have to agree and 1 can be believed: 127.0.0.1: \w+"
    ):
        pair.look()


def test_while_too_few_are_left_the_pause_is_not_waited_for(pair: House) -> None:
    """Nothing is gained by asking nobody: a provider that is back helps at once."""
    pair.bend(1, dead)

    async def tried(chain: EvmChain) -> bool:
        try:
            await chain.look(pair.stand.wallet, [])
        except ChainUnknown:
            return False
        return True

    async def mended(_: EvmChain) -> bool:
        pair.bend(1, None)
        return True

    assert pair.run(*[tried] * (FAILURES_MAX + 1), mended, tried)
    assert len(pair.told(ProviderSetAside)) == len(pair.told(ProviderBack)) == 1


def test_a_lone_provider_is_never_set_aside(sole: House) -> None:
    """There is nobody else to ask: it is asked each time, as ever."""
    sole.bend(0, dead)

    async def tried(chain: EvmChain) -> None:
        with pytest.raises(ChainUnknown, match="no provider gave a usable answer"):
            await chain.look(sole.stand.wallet, [])

    sole.run(*[tried] * 5, needs=1)
    assert sole.servers[0].requests == 5
    assert sole.said == []


# evidence


def test_a_receipt_that_one_shows_and_the_other_does_not_is_not_seen(pair: House) -> None:
    """A preconfirmation, or a lie: what one shows alone has not happened yet."""
    demand, attempt = pair.stand.paid()
    assert pair.look((attempt, demand)).seen[attempt.hash or b""].inclusion.success
    pair.bend(0, lie("eth_getTransactionReceipt", lambda _: None))
    got = pair.look((attempt, demand))
    assert (got.seen, got.nonce_latest) == ({}, 1)


def test_a_failure_that_one_invents_is_not_seen(pair: House) -> None:
    """One says failed where the other says paid: neither is believed, and both are named."""
    demand, attempt = pair.stand.paid()
    pair.bend(1, lie("eth_getTransactionReceipt", lambda told: {**told, "status": "0x0"}))
    assert pair.look((attempt, demand)).seen == {}
    (event,) = pair.told(ProvidersDisagree)
    assert pair.name(0) in event.detail
    assert pair.name(1) in event.detail


def test_what_one_calls_replaced_is_neither_replaced_nor_settled(pair: House) -> None:
    """The recorded block stands for one and not for the other: it is kept, and not final until they agree."""
    demand, attempt = pair.stand.paid()
    inclusion = pair.look((attempt, demand)).seen[attempt.hash or b""].inclusion
    recorded = replace(attempt, inclusion=inclusion)
    pair.stand.mine(40)
    settled = pair.look((recorded, demand))
    assert settled.finalized is not None
    assert settled.finalized >= inclusion.block_number
    at = hex(inclusion.block_number)
    pair.bend(1, lie("eth_getBlockByNumber", lambda b: {**b, "hash": "0x" + "07" * 32}, lambda p: p[0] == at))
    doubted = pair.look((recorded, demand))
    assert doubted.replaced == frozenset()
    assert (doubted.safe, doubted.finalized) == (inclusion.block_number - 1, inclusion.block_number - 1)
    assert pair.told(ProvidersDisagree)


@pytest.mark.parametrize("tag", ["safe", "finalized"])
def test_a_height_counts_when_both_have_it(tag: str, pair: House) -> None:
    """One that calls its newest block safe or final alone makes nothing so."""
    pair.stand.mine(40)
    honest = pair.look()
    newest = pair.stand.rpc("eth_getBlockByNumber", "latest", False)
    pair.bend(0, lie("eth_getBlockByNumber", lambda _: newest, lambda p: p[0] == tag))
    assert getattr(pair.look(), tag) == getattr(honest, tag)


def test_a_cancel_in_a_block_is_success_that_paid_nothing(pair: House) -> None:
    """To the wallet itself, without value: no event is looked for, nothing was spent, only gas."""
    demand = pair.stand.demand()
    plan = {"kind": Kind.CANCEL, "to": pair.stand.wallet, "data": b"", "value": Wei(0), "gas_limit": 21_000}
    attempt = pair.stand.attempt(demand, **plan)
    assert pair.stand.send(attempt).delivery is Delivery.ACCEPTED
    pair.stand.mine()
    seen = pair.look((attempt, demand)).seen[attempt.hash or b""]
    assert (seen.inclusion.success, seen.trusted, seen.inclusion.spent) == (True, True, Wei(0))
    assert seen.inclusion.gas > Wei(0)
    assert seen.wallet_check == "exact"


PASSING: dict[str, tuple[Callable[[Stand], None], bool]] = {
    "the price moved": (lambda s: s.write(*contracts.eth_price(1000 * 10**8)), True),
    "the contract is paused": (lambda s: s.write(*contracts.payments_paused(paused=True)), True),
    "USDC is paused": (lambda s: s.write(*contracts.usdc_paused(paused=True)), True),
    "nobody registered": (lambda s: s.write(*contracts.fee_destination(s.world.operator.address, None)), True),
    "blacklisted": (lambda s: s.write(*contracts.usdc_blacklisted(s.world.operator.terms.recipient)), False),
    "fee and recipient are one": (
        lambda s: s.write(*contracts.fee_destination(s.world.operator.address, s.world.operator.terms.recipient)),
        False,
    ),
    "expired": (lambda s: s.mine_at(s.head().timestamp_s + 49 * 3600), False),
}


@pytest.mark.parametrize("cause", PASSING)
def test_a_revert_says_whether_another_try_may_succeed(cause: str, stand: Stand) -> None:
    """The contract really refuses in a block; what cannot pass is told apart from what may."""
    prepare, passing = PASSING[cause]
    demand = stand.demand()
    attempt = stand.attempt(demand)
    prepare(stand)
    stand.send(attempt)
    stand.mine_at(stand.head().timestamp_s + 2)
    got = stand.look(demand, attempt) if cause != "expired" else aged(stand, demand, attempt)
    told = got.seen[attempt.hash or b""].inclusion
    assert not told.success
    assert told.transient is passing, told.reason
    assert told.reason


def aged(stand: Stand, demand: Charge, attempt: Attempt) -> Observation:
    """Look at a chain whose time has run ahead of this machine's."""
    return House(stand, 1).look((attempt, demand), needs=1)


def test_a_charge_that_was_paid_by_another_transaction_is_not_tried_again(stand: Stand) -> None:
    """AlreadyProcessed in a block: the contract pays an id once."""
    demand, _ = stand.paid()
    second = stand.attempt(demand)
    stand.send(second)
    stand.mine()
    told = stand.look(demand, second).seen[second.hash or b""].inclusion
    assert (told.success, told.transient) == (False, False)
    assert "AlreadyProcessed" in told.reason


# -- what became of a charge ------------------------------------------------------------------------------------


def test_the_fate_of_a_paid_charge_names_its_payment(pair: House) -> None:
    """Mark and event, at a final block that both have; of another charge of the same operator neither."""
    demand, attempt = pair.stand.paid()
    other = pair.stand.demand()
    pair.stand.mine(40)
    told = pair.run(lambda c: settled(c.payment_status(demand, 0)))
    assert (told.flag, told.payers, told.witnesses) == (True, frozenset({attempt.hash}), 2)
    final = pair.stand.rpc("eth_getBlockByNumber", "finalized", False)
    assert (told.final_number, told.final_s) == (int(final["number"], 16), int(final["timestamp"], 16))
    unpaid = pair.run(lambda c: settled(c.payment_status(other, 0)))
    assert (unpaid.flag, unpaid.payers) == (False, frozenset())
    assert pair.run(lambda c: c.flag(demand))
    assert not pair.run(lambda c: c.flag(other))


def test_one_provider_is_one_witness(sole: House) -> None:
    """What it says is handed on, and how little that is."""
    demand, _ = sole.stand.paid()
    sole.stand.mine(40)
    assert sole.run(lambda c: settled(c.payment_status(demand, 0)), needs=1).witnesses == 1


def test_a_fate_is_asked_of_all_even_where_one_would_do(trio: House) -> None:
    """A quorum of one is a word about reading; proof counts whoever is there."""
    demand, _ = trio.stand.paid()
    trio.stand.mine(40)
    assert trio.run(lambda c: settled(c.payment_status(demand, 0)), needs=1).witnesses == 3


LIES: dict[str, Intercept] = {
    "hides the event": lie("eth_getLogs", lambda _: []),
    "hides the mark": lie("eth_getStorageAt", lambda _: "0x" + "00" * 32),
    "has another final block": lie(
        "eth_getBlockByNumber", lambda b: {**b, "hash": "0x" + "07" * 32}, lambda p: p[0].startswith("0x")
    ),
    "has another time": lie(
        "eth_getBlockByNumber", lambda b: {**b, "timestamp": hex(2**33)}, lambda p: p[0].startswith("0x")
    ),
    "has no final block": lie("eth_getBlockByNumber", lambda _: None, lambda p: p[0] == "finalized"),
    "cannot read logs": lie("eth_getLogs", lambda _: None),
    "cannot read the mark": lie("eth_getStorageAt", lambda _: None),
    "answers the mark with nothing": lie("eth_getStorageAt", lambda _: "0x"),
    "answers the mark with more": lie("eth_getStorageAt", lambda _: "0x" + "00" * 31 + "02"),
    "is of another chain": lie("eth_chainId", lambda _: "0x1"),
    "is gone": dead,
    "tells foreign logs": lie("eth_getLogs", lambda logs: [{**log, "topics": log["topics"][:1]} for log in logs]),
    "tells withdrawn logs": lie("eth_getLogs", lambda logs: [{**log, "removed": True} for log in logs]),
    "tells logs of another block": lie("eth_getLogs", lambda logs: [{**log, "blockNumber": "0xfffff"} for log in logs]),
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("how", LIES)
def test_a_fate_that_one_bends_is_undecided(how: str, number: int, pair: House) -> None:
    """Any error, null or difference among two is never a "no"."""
    demand, _ = pair.stand.paid()
    pair.stand.mine(40)
    pair.bend(number, LIES[how])
    with pytest.raises(ChainUnknown):
        pair.run(lambda c: settled(c.payment_status(demand, 0)))


def test_a_provider_that_is_not_final_yet_holds_the_others_back(pair: House) -> None:
    """The final block is the last that both have: one that runs ahead alone proves nothing."""
    demand, _ = pair.stand.paid()
    pair.stand.mine(40)
    honest = pair.run(lambda c: settled(c.payment_status(demand, 0)))
    newest = pair.stand.rpc("eth_getBlockByNumber", "latest", False)
    pair.bend(0, lie("eth_getBlockByNumber", lambda _: newest, lambda p: p[0] == "finalized"))
    assert pair.run(lambda c: settled(c.payment_status(demand, 0))) == honest


def test_with_three_a_silent_one_does_not_hold_up_a_proof(trio: House) -> None:
    """Two witnesses agree; the third says nothing and contradicts nothing. One that contradicts does hold it up."""
    demand, _ = trio.stand.paid()
    trio.stand.mine(40)
    trio.bend(1, dead)
    assert trio.run(lambda c: settled(c.payment_status(demand, 0))).witnesses == 2
    trio.bend(1, LIES["hides the event"])
    with pytest.raises(Disagreement):
        trio.run(lambda c: settled(c.payment_status(demand, 0)))


def test_a_mark_that_two_see_differently_is_unknown(pair: House) -> None:
    """The self-test on our own payment is never passed by one alone."""
    demand, _ = pair.stand.paid()
    pair.bend(1, LIES["hides the mark"])
    with pytest.raises(ChainUnknown, match="disagree"):
        pair.run(lambda c: c.flag(demand))


def test_a_real_node_keeps_mark_and_event_where_they_are_looked_for() -> None:
    """The slot of the mark and the topics of the event, on anvil with the contract as it was compiled."""
    for stand in stand_on("anvil"):
        for house in housed(stand, 1):
            demand, attempt = stand.paid()
            stand.mine(80)
            told = house.run(fate_of(demand), needs=1)
            assert (told.flag, told.payers) == (True, frozenset({attempt.hash}))
            unpaid = house.run(fate_of(stand.demand()), needs=1)
            assert (unpaid.flag, unpaid.payers) == (False, frozenset())


def fate_of(demand: Charge) -> Callable[[EvmChain], Awaitable[ChargeStatus]]:
    return lambda chain: settled(chain.payment_status(demand, 0))


# -- the scan ---------------------------------------------------------------------------------------------------


def limited(blocks: int) -> Intercept:
    """A provider that grants so many blocks of logs a question."""

    async def answered(method: str, params: list[Any], honest: Next) -> Any:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= blocks:
            raise RpcError(-32600, "the block range is too large")
        return honest()

    return answered


def scanned(house: House, first: int, last: int) -> list[Chunk]:
    async def asked() -> list[Chunk]:
        rpc = Rpc(house.servers[0].url, timeout_s=5)
        operator = builders.address(house.stand.world.operator.address)
        try:
            return [c async for c in transfers(rpc, BASE.contract, operator, first, last, patient())]
        finally:
            await rpc.close()

    return asyncio.run(asked())


def test_chunks_lie_side_by_side_and_hold_every_payment_once(sole: House) -> None:
    """Whatever range is granted, the chunks cover all without gap or overlap."""
    paid = [sole.stand.paid()[1].hash for _ in range(3)]
    last = sole.stand.head().number
    for span in (1, 2, 3, 100):
        sole.bend(0, limited(span))
        chunks = scanned(sole, 0, last)
        assert chunks[0].first == 0
        assert chunks[-1].last == last
        assert all(one.last + 1 == other.first for one, other in pairwise(chunks))
        assert [t.tx_hash for chunk in chunks for t in chunk.transfers] == paid


def test_a_range_that_is_refused_is_asked_for_as_far_as_is_granted(sole: House) -> None:
    """A provider's limit is found by asking, in halves or as it names it, and nothing is missed."""
    paid = [sole.stand.paid()[1].hash for _ in range(2)]
    sole.stand.mine(20)
    last = sole.stand.head().number
    sole.bend(0, limited(3))
    chunks = scanned(sole, 0, last)
    assert max(c.last - c.first for c in chunks) < 3
    assert [t.tx_hash for chunk in chunks for t in chunk.transfers] == paid


def test_a_chunk_that_cannot_be_had_ends_the_scan_at_its_place(sole: House) -> None:
    """What was handed out before stands, and nothing after the gap is; going on begins at the gap."""
    sole.stand.mine(10)

    async def broken(method: str, params: list[Any], honest: Next) -> Any:
        answer = await limited(4)(method, params, honest)
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) >= 6:
            raise RpcError(-32000, "missing")
        return answer

    done: list[int] = []

    async def asked() -> None:
        rpc = Rpc(sole.servers[0].url, timeout_s=5)
        operator = builders.address(sole.stand.world.operator.address)
        try:
            async for chunk in transfers(rpc, BASE.contract, operator, 0, 10, patient()):
                done.append(chunk.last)  # noqa: PERF401 - what was handed out before the end has to be seen
        finally:
            await rpc.close()

    sole.bend(0, broken)
    with pytest.raises(ChainUnknown, match="the logs of blocks 6 to 7: missing"):
        asyncio.run(asked())
    assert done[-1] == 5


def test_a_node_that_is_behind_the_range_says_nothing(sole: House) -> None:
    """It would answer with the logs it has, which looks complete."""
    last = sole.stand.head().number
    with pytest.raises(ChainUnknown, match=f"has no block {last + 1}"):
        scanned(sole, 0, last + 1)


# -- whole refills ----------------------------------------------------------------------------------------------


class Town:
    """A leaping world whose account is below its floor, with several providers and a cycle that uses them all."""

    def __init__(self, world: World, directory: Path, count: int, **settings: str) -> None:
        self.world = world
        self.servers = [world.rpc, *(world.provider() for _ in range(count - 1))]
        urls = ",".join(server.url for server in self.servers)
        # The clock leaps by more than any honest lag between two answers.
        self.stage = Stage(
            world,
            directory,
            world.clock,
            {"TOPUP_CHAIN__RPC_URLS": urls, "TOPUP_CHAIN__LAG_MAX_S": "3600"} | settings,
        )

    def close(self) -> None:
        loop = self.world._loop
        assert loop is not None
        for server in self.servers[1:]:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(timeout=10)

    def sound(self) -> None:
        """One payment, and the ledger is the chain to the wei."""
        assert self.stage.payments() == 1
        assert self.stage.booked() == self.stage.left()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    conduct = Conduct(posting_delay_ms=10_000)
    with World(embedded, scale=10, conduct=conduct, usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(1)) as world:
        made: list[Town] = []

        def make(count: int, **settings: str) -> Town:
            made.append(Town(world, tmp_path, count, **settings))
            return made[-1]

        yield make
        for one in made:
            one.close()


def test_a_refill_through_two_takes_no_more_round_trips_than_through_one(town: Callable[..., Town]) -> None:
    """Preflight, dry run, send: three requests to each, side by side."""
    there = town(2, TOPUP_POSTING__PLAN_FRESH_S="120")
    before: list[list[int]] = []

    async def counted(method: str, _: list[Any], honest: Next) -> Any:
        if method == "eth_sendRawTransaction":
            before.append([server.requests for server in there.servers])
        return honest()

    async def tell() -> None:
        for server in there.servers:
            server.intercept = counted
        await there.stage.until(State.DONE)
        there.sound()
        await there.stage.close()

    asyncio.run(tell())
    assert max(max(counts) for counts in before[:2]) == 3
    assert there.stage.named("providers_disagree") == []


BENT: dict[str, Intercept] = {
    "is dead": dead,
    "is of another chain": lie("eth_chainId", lambda _: hex(84532)),
    "shows no receipt": lie("eth_getTransactionReceipt", lambda _: None),
    "shows every receipt failed": lie(
        "eth_getTransactionReceipt", lambda told: None if told is None else {**told, "status": "0x0"}
    ),
    "shows an old nonce": lie("eth_getTransactionCount", lambda _: "0x0"),
    "shows a foreign nonce": lie("eth_getTransactionCount", lambda _: "0x7"),
    "shows a rich wallet": lie("eth_getBalance", lambda _: hex(10**24)),
    "shows a stale block": lie("eth_getBlockByNumber", lambda b: None if b is None else {**b, "number": "0x1"}),
    "has other code": lie("eth_getCode", lambda _: "0x6001"),
    "asks a high tip": lie("eth_maxPriorityFeePerGas", lambda _: hex(10**12)),
    "asks much gas": lie("eth_estimateGas", lambda _: hex(10**9)),
}


@pytest.mark.parametrize("how", BENT)
def test_with_three_of_which_one_is_bent_the_refill_is_paid_once(how: str, town: Callable[..., Town]) -> None:
    """Nothing that one of three does keeps the account from being filled, or makes it cost more."""
    there = town(3)
    there.servers[0].intercept = BENT[how]

    async def tell() -> None:
        done = await there.stage.until(State.DONE)
        paid = done.paying
        assert paid is not None
        assert paid.plan.gas_limit < 10**6
        assert paid.plan.max_priority_fee_per_gas < Wei(10**9)
        there.sound()
        await there.stage.close()

    asyncio.run(tell())


def test_what_one_of_two_hides_is_waited_for_and_not_paid_again(town: Callable[..., Town]) -> None:
    """Receipts are hidden after the payment: it stays sent, however long, until both show it."""
    there = town(2)

    async def tell() -> None:
        there.servers[1].intercept = BENT["shows no receipt"]
        await there.stage.until(State.SENT)
        for _ in range(20):
            await there.stage.step()
        assert there.stage.topup.state is State.SENT
        assert len(there.stage.topup.charges) == 1
        there.servers[1].intercept = None
        await there.stage.until(State.DONE)
        there.sound()
        await there.stage.close()

    asyncio.run(tell())


def test_nothing_is_signed_while_one_of_two_is_of_another_chain(town: Callable[..., Town]) -> None:
    """The quorum cannot be had: topup waits and names it; when the provider is right again, it pays."""
    there = town(2)

    async def tell() -> None:
        there.servers[1].intercept = BENT["is of another chain"]
        rest = await there.stage.rests("chain_unknown")
        assert "speaks for chain 84532" in rest.detail
        for _ in range(5):
            await there.stage.step()
        assert there.stage.topup.attempts == ()
        (aside,) = there.stage.named("provider_set_aside")
        assert aside.why == "wrong_chain"
        there.servers[1].intercept = None
        await there.stage.until(State.DONE)
        assert there.stage.named("provider_back")
        there.sound()
        await there.stage.close()

    asyncio.run(tell())
