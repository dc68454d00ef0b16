"""Long work on logs: in ranges that are granted, at the rate that is granted, on from where it stopped, never a gap."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import builders
from tests.world.long_logs import BEGAN_S, Blocks, Died, Leaping, Ledger, Provider
from topup.app.pulse import PASS_MS_MAX, STUCK_MS, Pulse
from topup.chain.authorizations import account as account_of_trace
from topup.chain.charge_status import Account
from topup.chain.contract_chain import EvmChain
from topup.chain.logs import TRANSFERRED
from topup.chain.paging import AGAIN_MS, PATIENCE_MAX_S, PATIENCE_OVER_S, SPAN, Pager
from topup.chain.profiles import BASE
from topup.chain.providers import Providers
from topup.chain.refusals import Refusal, granted, refusal, speaks_of_rate
from topup.chain.rpc import Answer
from topup.chain.search import LATE_MS, PAGES_UNKEPT, Search, Sought
from topup.chain.token_chain import AuthorizedChain
from topup.domain.coinbase_charge import Charge, charge_of
from topup.domain.errors import ChainUnknown
from topup.domain.events import ProvidersDisagree
from topup.domain.money import Usdc
from topup.domain.nonpayment import ChargeStatus, More
from topup.ledger.store import SqliteStore
from topup.ports.budget import FIRST, QUESTIONS, SECONDS, Budget
from topup.ports.chain import AuthorizationUse, Head, Piece, Pieces

WANTED = {"address": "0x" + "01" * 20, "topics": []}
# The life of the longest charge, two days of Base, and the two hours below it.
LONG = 86_400 + 3_600


def carried(log: Any, first: int, last: int) -> tuple[bytes, int]:
    number = int(log["blockNumber"], 16)
    assert first <= number <= last
    return bytes.fromhex(log["transactionHash"][2:]), number


def log_at(number: int, salt: int = 0) -> dict[str, Any]:
    return {"blockNumber": hex(number), "transactionHash": "0x" + (number * 7 + salt).to_bytes(32, "big").hex()}


def sought(since: int) -> Sought:
    return Sought(b"charge", WANTED, since, carried)


def search(clock: Leaping, pieces: Pieces, budget: Budget | None = None) -> Search:
    return Search(8453, Pager(budget or Budget(clock)), pieces, clock)


def one_pass(one: Search, provider: Provider, since: int = 0, final: Head | None = None) -> Piece:
    """Search on through this provider until a pass ends."""
    blocks = provider.blocks
    ends = (final or blocks.head(blocks.final), blocks.head(blocks.newest))
    return asyncio.run(one.through(provider.rpc, sought(since), *ends))


# What an error says, and with which code: words count before codes, and a code only where the words say nothing.
SAID: dict[Refusal, list[tuple[str, int]]] = {
    Refusal.RATE: [
        *(("over rate limit", -32016), ("rate limit exceeded", -32005), ("limit exceeded", -32005)),
        *(("Too Many Requests", 429), ("requests limited to 15/second", -32007), ("daily limit reached", -32005)),
        ("Your app has exceeded its compute units per second capacity", -32000),
        ("daily request count exceeded, request rate limited", -32005),
        ("node.example answered HTTP 429 without JSON", 0),
        *(("", -32029), ("", -32005), ("", -32016), ("slow down", -32029), ("15/second request limit reached", -32007)),
        ("batch of 11 calls is over your rate limit of 10 requests per second", -32000),
        ("server busy, try again later", -32000),
    ],
    # It shortens this reading alone: too much in an answer says nothing of other blocks.
    Refusal.SIZE: [
        ("query returned more than 10000 results. Try with this block range [0x1, 0x2].", 0),
        ("node.example answered with more than 8388608 bytes", 0),
        *(("Log response size exceeded", 0), ("query timeout exceeded", 0)),
        ("query timeout exceeded, try again later", -32000),
    ],
    # From what does not speak of a limit none is learnt.
    Refusal.OTHER: [
        *(("missing trie node", -32000), ("internal error", -32000), ("unauthorized", -32000)),
        *(("batch of 3 is too large", -32000), ("logs are for those who pay", -32005)),
        *(("the batch was too large", -32000), ("header not found, as this node was pruned", -32000)),
    ],
}
# A number of blocks that is named is used; otherwise half as many are asked for. Hex, results and what is no less than
# was asked for are no such number.
RANGES = {
    "eth_getLogs is limited to a 10 range": 10,
    "eth_getLogs is limited to a 1,000 range": 1000,
    "You can make eth_getLogs requests with up to a 10 block range. Based on your parameters, this block range should "
    "work: [0x2faf07e, 0x2faf087]": 10,
    "exceed maximum block range: 2000": 2000,
    "block range limit exceeded: 500": 500,
    "requested too many blocks from 50000001 to 50005000, maximum is set to 2048": 2048,
    **dict.fromkeys(("block range is too wide", "the block range was too wide"), SPAN // 2),
    "query exceeds max block range 100000": SPAN // 2,
}


def test_what_an_error_says() -> None:
    """Whether to wait, to ask for fewer blocks, to ask for less, or nothing at all."""
    # What is waited for in a page of logs is waited for in a batch, and what shortens a page is not waited for.
    for why, told in SAID.items():
        for words, code in told:
            assert refusal(words, code) is why, words
            assert speaks_of_rate(code, words) is (why is Refusal.RATE), words
    for words, blocks in RANGES.items():
        assert refusal(words, -32005) is Refusal.RANGE, words
        assert granted(words, SPAN) == blocks, words


# -- pages ---------------------------------------------------------------------------------------------------------


async def read(pager: Pager, provider: Provider, first: int, last: int) -> list[tuple[int, int]]:
    return [(page.first, page.last) async for page in pager.pages(provider.rpc, [WANTED], (first, last))]


def unbounded(clock: Leaping) -> Pager:
    """A command's: no pass ends it."""
    return Pager(Budget(clock, questions=None, seconds=None))


async def test_a_rate_is_waited_for_and_never_shortens_a_range() -> None:
    """Ten questions a second, ranges of 2,000: every page but the last is as long as is granted."""
    clock = Leaping()
    provider = Provider("a", Blocks(90_000, 80_000), clock, most=2000, rate=10)
    pages = await read(unbounded(clock), provider, 1, 86_400)
    assert pages[-1][1] == 86_400
    assert {last - first + 1 for first, last in pages[:-1]} == {2000}
    assert clock.slept


async def test_a_rate_is_waited_for_within_the_pass_alone() -> None:
    """Then the reading stops without an error, and the next pass goes on."""
    clock = Leaping()
    provider = Provider("a", Blocks(90_000, 80_000), clock, rate=0)
    assert await read(Pager(Budget(clock)), provider, 1, 86_400) == []
    assert sum(clock.slept) <= SECONDS
    assert max(clock.slept) <= PATIENCE_MAX_S
    # A command waits for nobody who asks for patience for ever: a minute without a page ends it with a sentence.
    clock.slept.clear()
    with pytest.raises(ChainUnknown, match="has asked for patience"):
        await read(unbounded(clock), provider, 1, 86_400)
    assert sum(clock.slept) <= PATIENCE_OVER_S + PATIENCE_MAX_S


async def test_a_range_is_learnt_once_and_tried_again_after_an_hour() -> None:
    """One refusal teaches it; an hour later twice as much is asked for, and more where that is granted."""
    clock = Leaping()
    provider = Provider("a", Blocks(9_000_000, 8_000_000), clock, most=10)
    pager = unbounded(clock)
    await read(pager, provider, 1, 100)
    await read(pager, provider, 101, 200)
    assert [n for n in provider.ranges if n > 10] == [100]
    clock.ms += AGAIN_MS
    await read(pager, provider, 201, 300)
    assert [n for n in provider.ranges if n > 10] == [100, 20]
    provider.most = 5000
    clock.ms += AGAIN_MS
    await read(pager, provider, 1, 100_000)
    assert max(provider.ranges[-3:]) == SPAN


def test_a_pass_asks_each_provider_so_often_and_for_so_long() -> None:
    """Questions of one take none from another; once the seconds are used up a few are left."""
    clock = Leaping()
    budget = Budget(clock)
    assert sum(budget.take("a") for _ in range(10 * QUESTIONS)) == QUESTIONS
    assert budget.take("b")
    clock.ms += SECONDS * 1000
    assert sum(budget.take("c") for _ in range(10)) == FIRST
    budget.renew()
    assert budget.take("a")


# -- a search over passes ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_granted_and_wherever_it_dies_a_search_ends_with_exactly_the_logs(data: st.DataObject) -> None:
    """Ranges, rates, deaths, new blocks and replaced ones: what it ends with is what an unlimited reading shows."""
    clock, ledger = Leaping(), Ledger()
    since = data.draw(st.integers(0, 50), "since")
    blocks = Blocks(newest=data.draw(st.integers(since + 200, since + 900), "newest"), final=since + 150)
    for number in data.draw(st.sets(st.integers(0, blocks.newest), max_size=8), "logs"):
        blocks.logs[number] = log_at(number)
    how: dict[str, Any] = {
        "most": data.draw(st.sampled_from([None, 3, 7, 10, 100]), "most"),
        "rate": data.draw(st.sampled_from([None, 1, 5]), "rate"),
        "wait_ms": data.draw(st.sampled_from([0, 150, 900]), "wait"),
    }
    if data.draw(st.booleans(), "vague"):
        how["says"] = lambda _: "block range too large"
    provider = Provider("a", blocks, clock, **how)
    budget = Budget(clock, questions=data.draw(st.integers(FIRST, 60), "questions"))
    one = search(clock, ledger, budget)
    events = data.draw(st.lists(st.sampled_from(["", "", "dies", "mines", "replaced"]), max_size=25), "events")
    for number in range(2000):
        budget.renew()
        event = events[number] if number < len(events) else ""  # in the end it is left in peace
        if event == "dies":
            provider.dies_at = provider.requests + data.draw(st.integers(1, 40))
        elif event == "mines":
            blocks.newest, blocks.final = blocks.newest + 20, blocks.final + data.draw(st.integers(0, 15))
        elif event == "replaced":
            blocks.salt, blocks.forked = blocks.salt + 1, blocks.final + 1
            blocks.logs = {n: log for n, log in blocks.logs.items() if n <= blocks.final}
            at = data.draw(st.integers(blocks.final + 1, blocks.newest))
            if len(blocks.logs) < 12:
                blocks.logs[at] = log_at(at, blocks.salt)
        try:
            piece = one_pass(one, provider, since)
        except Died:
            one = search(clock, ledger, budget)
            continue
        if piece.last >= blocks.newest:
            break
    else:
        raise AssertionError("it never ends")
    there = {carried(log, 0, blocks.newest) for number, log in blocks.logs.items() if number >= since}
    assert set(piece.carriers) == there
    assert (piece.first, piece.last) == (since, blocks.newest)


def test_what_was_read_is_kept_every_few_pages_and_where_a_pass_ends() -> None:
    """A death costs so few questions at most; what ends within a pass is kept nowhere."""
    clock, ledger = Leaping(), Ledger()
    blocks = Blocks(10_000, 9_000)
    provider = Provider("a", blocks, clock, most=10)
    provider.dies_at = 2 * PAGES_UNKEPT + 5
    with pytest.raises(Died):
        one_pass(search(clock, ledger), provider)
    (kept,) = ledger.kept.values()
    assert kept.last >= 10 * PAGES_UNKEPT * 2 - 1
    assert kept.anchor == (9_000, blocks.hash(9_000))
    quick, none = Provider("b", blocks, clock), Ledger()
    one_pass(search(clock, none), quick)
    assert none.kept == {}


@pytest.fixture
def begun() -> tuple[Leaping, Ledger, Provider]:
    """One pass of a search that takes several."""
    clock, ledger = Leaping(), Ledger()
    provider = Provider("a", Blocks(10_000, 9_000), clock, most=10)
    one_pass(search(clock, ledger), provider)
    assert 0 < next(iter(ledger.kept.values())).last < 9_000
    return clock, ledger, provider


def went_on(begun: tuple[Leaping, Ledger, Provider], provider: Provider) -> int:
    """Search on in another process; return the first block that it reads."""
    clock, ledger, _ = begun
    before = len(provider.ranges)
    seen: list[int] = []
    honest = provider._logs

    def noted(first: int, last: int) -> Any:
        seen.append(first)
        return honest(first, last)

    provider._logs = noted  # type: ignore[method-assign]
    one_pass(search(clock, ledger), provider)
    assert len(provider.ranges) > before
    return seen[0]


def test_another_process_goes_on_where_the_last_one_stopped(begun: tuple[Leaping, Ledger, Provider]) -> None:
    """Also when another block is final by then."""
    _, ledger, provider = begun
    last = next(iter(ledger.kept.values())).last
    provider.blocks.newest, provider.blocks.final = 10_500, 9_400
    assert went_on(begun, provider) == last + 1
    assert next(iter(ledger.kept.values())).anchor == (9_400, provider.blocks.hash(9_400))


def test_what_was_read_of_another_chain_does_not_count(begun: tuple[Leaping, Ledger, Provider]) -> None:
    """Where the block that a piece rests on was replaced all is read again."""
    *_, provider = begun
    provider.blocks.salt, provider.blocks.forked = 1, 8_000
    assert went_on(begun, provider) == 0


def test_one_owner_goes_on_with_nothing_that_another_has_shown(begun: tuple[Leaping, Ledger, Provider]) -> None:
    """Each piece is the word of one."""
    clock, ledger, provider = begun
    assert went_on(begun, Provider("b", provider.blocks, clock, most=10)) == 0
    assert len(ledger.kept) == 2


def test_a_node_that_is_behind_loses_nothing_that_was_read(begun: tuple[Leaping, Ledger, Provider]) -> None:
    """It cannot show the block that the piece rests on: that is unknown, and the piece stays."""
    clock, ledger, _ = begun
    before = dict(ledger.kept)
    behind = Provider("a", Blocks(8_500, 8_000), clock, most=10)
    with pytest.raises(ChainUnknown, match="has no block 9000"):
        one_pass(search(clock, ledger), behind)
    assert ledger.kept == before


def test_a_node_of_another_chain_in_between_ends_the_page(begun: tuple[Leaping, Ledger, Provider]) -> None:
    """Each page comes with the final block it is read below; another one at its place is no page."""
    clock, ledger, provider = begun
    last = next(iter(ledger.kept.values())).last
    other = replace(provider.blocks.head(9_000), hash=b"\x09" * 32)
    with pytest.raises(ChainUnknown, match="shows another block at 9000"):
        one_pass(search(clock, ledger), provider, final=other)
    assert next(iter(ledger.kept.values())).last == last


def test_a_ledger_keeps_a_piece_as_it_was(tmp_path: Path) -> None:
    """Per chain, charge and owner; the last one stands."""
    piece = Piece(5, 90, (100, b"\x01" * 32), ((b"\x02" * 32, 7),), 12, 3400)
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        assert store.piece(8453, b"one", "a") is None
        store.keep_piece(8453, b"one", "a", piece, builders.NOW_MS)
        store.keep_piece(8453, b"one", "b", replace(piece, last=50), builders.NOW_MS)
        store.keep_piece(8453, b"one", "a", replace(piece, last=95), builders.NOW_MS)
    with closing(SqliteStore.open_reader(tmp_path)) as store:
        assert store.piece(8453, b"one", "a") == replace(piece, last=95)
        assert store.piece(8453, b"one", "b") == replace(piece, last=50)
        assert store.piece(1, b"one", "a") is None
        assert store.piece(8453, b"two", "a") is None


# -- a proof over two days of blocks -------------------------------------------------------------------------------


def demand() -> Charge:
    return charge_of(builders.verified(builders.operator()))


def watched(said: list[Any], *providers: Provider) -> Providers:
    asked, quorum = [one.rpc for one in providers], min(2, len(providers))
    return Providers(asked, quorum=quorum, now_s=lambda: BEGAN_S, head_age_max_s=120, lag_max_s=30, say=said.append)


class Proof:
    """A non-payment proof through some providers, pass by pass; the process dies after every tenth."""

    def __init__(self, pieces: Pieces, clock: Leaping, *providers: Provider, dies: bool = True) -> None:
        self.pieces, self.clock, self.providers, self.dies = pieces, clock, providers, dies
        self.said: list[Any] = []
        self.passes = 0
        self.longest_ms = self.most = 0

    def run(self, passes: int) -> ChargeStatus | More | str:
        """Make so many passes at most; return how it ended."""
        told: ChargeStatus | More | str = ""
        for number in range(passes):
            if number % 10 == 0 and (self.dies or number == 0):
                budget, chain = self._process()
            told = self._pass(budget, chain)
            if isinstance(told, ChargeStatus):
                return told
        return told

    def _process(self) -> tuple[Budget, EvmChain]:
        budget = Budget(self.clock)
        return budget, EvmChain(BASE, watched(self.said, *self.providers), search(self.clock, self.pieces, budget))

    def _pass(self, budget: Budget, chain: EvmChain) -> ChargeStatus | More | str:
        self.passes += 1
        budget.renew()
        before, began_ms = [p.requests for p in self.providers], self.clock.ms
        try:
            return asyncio.run(chain.payment_status(demand(), self.providers[0].blocks.final - LONG))
        except ChainUnknown as error:
            return str(error)
        finally:
            asked = [p.requests - b for p, b in zip(self.providers, before, strict=True)]
            self.most, self.longest_ms = max(self.most, *asked), max(self.longest_ms, self.clock.ms - began_ms)
            self.clock.ms += 1000


def proven(ended: ChargeStatus | More | str) -> ChargeStatus:
    """Return what a proof that came to its end says."""
    assert isinstance(ended, ChargeStatus), ended
    return ended


N = 50_000_000


def chain_of_two_days() -> Blocks:
    return Blocks(N, N - 600)


def test_a_provider_of_ten_blocks_a_question_finishes_a_proof_over_two_days(tmp_path: Path) -> None:
    """At 150 ms an answer, over passes that stay short, with a process that dies after every tenth of them."""
    clock, blocks = Leaping(), chain_of_two_days()
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        slow = Provider("slow", blocks, clock, most=10, wait_ms=150)
        proof = Proof(store, clock, slow, Provider("quick", blocks, clock))
        told = proof.run(200)
    assert isinstance(told, ChargeStatus)
    assert (told.flag, told.payers, told.witnesses, told.final_number) == (False, frozenset(), 2, N - 600)
    assert slow.requests < LONG // 10 * 12 // 10
    assert proof.most <= QUESTIONS + 10
    assert proof.longest_ms < (SECONDS + 5) * 1000


def test_nothing_is_concluded_while_one_has_not_read_to_the_end() -> None:
    """The quick one is done at once; that is one witness, and the pass says how far the other is."""
    clock, blocks = Leaping(), chain_of_two_days()
    slow = Provider("slow", blocks, clock, most=10, wait_ms=150)
    told = Proof(Ledger(), clock, slow, Provider("quick", blocks, clock)).run(3)
    assert isinstance(told, More)
    assert told.detail.startswith("the logs are being read: slow is at block ")


def test_a_payment_in_what_was_read_passes_ago_keeps_a_charge_from_being_dead() -> None:
    """What a piece holds is not only how far it reaches."""
    clock, blocks = Leaping(), chain_of_two_days()
    one = demand()
    blocks.logs[N - LONG] = paid(one, N - LONG, blocks)
    providers = [Provider(name, blocks, clock, most=200) for name in ("a", "b")]
    assert proven(Proof(Ledger(), clock, *providers).run(20)).payers == {b"\x77" * 32}


def test_one_that_hides_what_the_other_shows_keeps_it_undecided() -> None:
    """An empty answer of a liar is what the second witness is for, in however many pieces it was given."""
    clock, blocks = Leaping(), chain_of_two_days()
    blocks.logs[N - LONG] = paid(demand(), N - LONG, blocks)
    honest, liar = Provider("a", blocks, clock, most=200), Provider("b", blocks, clock, most=200)
    liar.blind = True
    told = Proof(Ledger(), clock, honest, liar).run(20)
    assert isinstance(told, str)
    assert "disagree" in told


def paid(one: Charge, number: int, blocks: Blocks) -> dict[str, Any]:
    intent = one.intent
    words = [intent.id.ljust(32, b"\0"), b"\x05".rjust(32, b"\0"), b"\x06".rjust(32, b"\0"), bytes(32), bytes(32)]
    return {
        "address": "0x" + one.contract.hex(),
        "topics": ["0x" + TRANSFERRED.hex(), "0x" + intent.operator.rjust(32, b"\0").hex()],
        "data": "0x" + b"".join(words).hex(),
        "blockNumber": hex(number),
        "blockHash": "0x" + blocks.hash(number).hex(),
        "transactionHash": "0x" + "77" * 32,
        "logIndex": "0x0",
    }


def test_one_who_grants_a_block_a_question_is_asked_a_few_times_and_named() -> None:
    """Beside two others it counts as one that does not answer; alone it leaves the charge undecided, and is said."""
    clock, blocks = Leaping(), chain_of_two_days()
    liar = Provider("liar", blocks, clock, most=1)
    proof = Proof(Ledger(), clock, Provider("a", blocks, clock), Provider("b", blocks, clock), liar)
    assert proven(proof.run(1)).witnesses == 2
    assert liar.requests < 10
    (said,) = proof.said
    assert isinstance(said, ProvidersDisagree)
    assert "liar grants so few blocks of logs at once" in said.detail
    liar = Provider("liar", blocks, clock, most=1)
    proof = Proof(Ledger(), clock, Provider("a", blocks, clock), liar, dies=False)
    ended = proof.run(100)
    assert isinstance(ended, str)
    assert "liar grants so few blocks of logs at once" in ended
    assert len(liar.ranges) < 150


def test_others_wait_two_hours_for_a_slow_one_and_no_longer() -> None:
    """At 14 s an answer and ten blocks a question it would take a day and a half."""
    clock, blocks = Leaping(), chain_of_two_days()
    slow = Provider("slow", blocks, clock, most=10, wait_ms=14_000)
    proof = Proof(Ledger(), clock, Provider("a", blocks, clock), Provider("b", blocks, clock), slow)
    began_ms = clock.ms
    assert proven(proof.run(1000)).witnesses == 2
    assert LATE_MS < clock.ms - began_ms < 3 * LATE_MS
    assert proof.longest_ms < (SECONDS + 15 * (FIRST + 4)) * 1000


def test_others_wait_no_longer_for_one_that_only_asks_for_patience() -> None:
    """Its quota is used up, so that no page ever comes: the time counts all the same."""
    clock, blocks = Leaping(), chain_of_two_days()
    spent = Provider("spent", blocks, clock, rate=0)
    proof = Proof(Ledger(), clock, Provider("a", blocks, clock), Provider("b", blocks, clock), spent, dies=False)
    began_ms = clock.ms
    assert proven(proof.run(2000)).witnesses == 2
    assert LATE_MS < clock.ms - began_ms < 3 * LATE_MS
    assert not spent.ranges


class Forgetful(Provider):
    """Answers what is not final slowly, and shows another newest block with each pass."""

    def _logs(self, first: int, last: int) -> Answer:
        self.clock.ms += 25_000 if last > self.blocks.final else 0
        return super()._logs(first, last)

    def _one(self, method: str, params: list[Any]) -> Answer:
        if params[:1] == ["latest"]:
            self.blocks.salt, self.blocks.forked = self.blocks.salt + 1, self.blocks.final + 1
        return super()._one(method, params)


def test_one_whose_chain_is_another_with_each_pass_does_not_begin_to_be_waited_for_anew() -> None:
    """What the search has taken is counted beyond the piece that does not stand any more."""
    clock = Leaping()
    honest = [Provider(name, chain_of_two_days(), clock) for name in ("a", "b")]
    forgetful = Forgetful("forgetful", chain_of_two_days(), clock, most=100)
    proof = Proof(Ledger(), clock, *honest, forgetful, dies=False)
    began_ms = clock.ms
    assert proven(proof.run(2000)).witnesses == 2
    assert clock.ms - began_ms < 3 * LATE_MS


def test_the_mark_is_read_after_the_last_log() -> None:
    """However long the logs have taken: what the proof rests on is of today."""
    clock, blocks = Leaping(), chain_of_two_days()
    providers = [Provider(name, blocks, clock, most=1000) for name in ("a", "b")]
    told = Proof(Ledger(), clock, *providers).run(5)
    assert isinstance(told, ChargeStatus)
    for one in providers:
        assert one.asked.count("eth_getStorageAt") == 1
        after = one.asked[one.asked.index("eth_getStorageAt") :]
        assert "eth_getLogs" not in after
    blocks.flag = True
    assert proven(Proof(Ledger(), clock, *providers).run(5)).flag


def test_an_owner_who_is_not_configured_any_more_says_nothing() -> None:
    """What was read through him is in the ledger, and no witness; configured again he has to show his chain first."""
    clock, blocks, ledger = Leaping(), chain_of_two_days(), Ledger()
    a, b = Provider("a", blocks, clock, most=300), Provider("b", blocks, clock, most=300)
    assert isinstance(Proof(ledger, clock, a, b).run(1), More)
    assert {owner for _, _, owner in ledger.kept} == {"a", "b"}
    assert proven(Proof(ledger, clock, a).run(5)).witnesses == 1
    before = b.requests
    assert proven(Proof(ledger, clock, a, b).run(5)).witnesses == 2
    assert b.requests - before < LONG // 300


# -- an authorization that was used --------------------------------------------------------------------------------


def use(since: int) -> AuthorizationUse:
    return AuthorizationUse(
        key=b"\1" * 32,
        hash=None,
        mark=(b"\2" * 20, b"\3" * 4),
        log=(b"\2" * 20, (b"\4" * 32,)),
        token=b"\2" * 20,
        sender=b"\5" * 20,
        recipient=b"\6" * 20,
        tokens=Usdc(1),
        since=since,
        pays_fee=False,
    )


async def test_one_look_asks_a_bounded_number_of_questions() -> None:
    """One of three says "used", and grants one block a question."""
    clock, blocks = Leaping(), chain_of_two_days()
    used = Blocks(N, N - 600, flag=True)
    liar = Provider("liar", used, clock, most=1, wait_ms=14_000)
    budget = Budget(clock)
    three = watched([], Provider("a", blocks, clock), Provider("b", blocks, clock), liar)
    chain = AuthorizedChain(8453, three, search=search(clock, Ledger(), budget))
    observation = await chain.look([(use(N - 3630), None)])
    assert (observation.used, observation.seen) == (frozenset(), {})
    assert liar.requests < 10
    liar.wait_ms = 0
    budget.renew()
    await chain.look([(use(N - 3630), None)])
    assert liar.requests < QUESTIONS + 20


async def test_the_use_of_an_authorization_is_found_over_several_passes() -> None:
    """Ten blocks a question: each pass goes on, and what it finds is what one reading would."""
    clock, blocks = Leaping(), Blocks(N, N - 600, flag=True)
    at = N - 5
    log = {**log_at(at), "address": "0x" + "02" * 20, "topics": ["0x" + "04" * 32]}
    blocks.logs[at] = log
    provider, budget = Provider("a", blocks, clock, most=10), Budget(clock)
    one = search(clock, Ledger(), budget)
    told: Any = None
    passes = 0
    while not isinstance(told, Account):
        passes += 1
        budget.renew()
        told = await account_of_trace(provider.rpc, 8453, use(N - 5_000), N - 600, one)
    assert passes == 3
    assert told.flag
    assert told.payers == {bytes.fromhex(log["transactionHash"][2:])}


# -- the watchdog --------------------------------------------------------------------------------------------------


def test_a_pass_that_asks_is_alive_and_one_that_asks_nothing_is_not() -> None:
    """The heart follows the questions: no silence while they go on, none of it once they have stopped for too long."""
    pulse, now, asked = Pulse(0, 0), 0, 0
    for _ in range(100):
        now, asked = now + 14_000, asked + 1
        assert pulse.beats(asked, now)
    assert pulse.beats(asked, now + STUCK_MS - 1)
    assert not pulse.beats(asked, now + STUCK_MS)
    assert pulse.beats(asked + 1, now + STUCK_MS)
    # Each part of a pass is bounded, so one of half an hour is a defect that a restart may mend, whatever it asks.
    pulse = Pulse(0, 0)
    beats = [pulse.beats(n, n * 5000) for n in range(1, PASS_MS_MAX // 5000 + 5)]
    assert beats[: PASS_MS_MAX // 5000 - 1] == [True] * (PASS_MS_MAX // 5000 - 1)
    assert not any(beats[PASS_MS_MAX // 5000 :])
