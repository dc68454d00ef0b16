"""Is what a provider can do learnt from its own words, kept to, and tried again? Real servers on loopback."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.client import client_of
from topup.chain.batches import BEHIND_S, PATIENCE_S
from topup.chain.capabilities import LEARNT_S, Capabilities
from topup.chain.refusals import speaks_of_absence, speaks_of_batches, speaks_of_rate
from topup.chain.rpc import Query, Rpc, RpcError
from topup.domain.errors import ChainUnknown
from topup.sandbox.http import Request, Response

T = TypeVar("T")
Item = dict[str, Any]
# As many as a survey asks.
ELEVEN: list[Query] = [("eth_call", [{"n": n}, "latest"]) for n in range(11)]


def honest(queries: list[Query]) -> list[str]:
    """An honest answer names its question."""
    return [f"{method} {params}" for method, params in queries]


ANSWERS = honest(ELEVEN)


def error(code: int, message: str, item: Item | None = None, **more: Any) -> Item:
    """An error object in the place of one question, or of none."""
    told = {"code": code, "message": message, **more}
    return {"jsonrpc": "2.0", "id": None if item is None else item["id"], "error": told}


def result(item: Item) -> Item:
    return {"jsonrpc": "2.0", "id": item["id"], "result": f"{item['method']} {item['params']}"}


def served(items: list[Item]) -> list[Item]:
    return [result(item) for item in items]


@dataclass
class Provider:
    """A provider that takes batches of `limit` calls and refuses others in one of several forms."""

    limit: int
    refuse: Callable[[list[Item]], Any] = list
    status: int = 200
    serve: Callable[[list[Item]], list[Item]] = served
    sizes: list[int] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)
    now_s: float = 0
    # Until so many requests that it takes are there, none is answered.
    together: asyncio.Barrier | None = None

    async def __call__(self, request: Request) -> Response:
        asked = json.loads(request.body)
        items = asked if isinstance(asked, list) else [asked]
        self.sizes.append(len(items) if isinstance(asked, list) else 0)
        if self.sizes[-1] > self.limit:
            told = self.refuse(items)
            return told if isinstance(told, Response) else Response(self.status, json.dumps(told).encode())
        if self.together is not None:
            await self.together.wait()
        told = self.serve(items)
        return Response(200, json.dumps(told if isinstance(asked, list) else told[0]).encode())

    async def sleep(self, seconds: float) -> None:
        """Let no time pass, and keep what was waited for."""
        self.paused.append(seconds)

    def run(self, act: Callable[[Rpc], Awaitable[T]]) -> T:
        """Do something with a client of this provider."""

        async def done() -> T:
            async with client_of(self, now_s=lambda: self.now_s, sleep=self.sleep) as rpc:
                return await act(rpc)

        return asyncio.run(done())


def ask(rpc: Rpc) -> Awaitable[list[Any]]:
    return rpc.batch(ELEVEN)


def says(code: int, message: str, **more: Any) -> Callable[[list[Item]], Any]:
    return lambda _: error(code, message, **more)


SINGLY = [11, *[0] * 11]
# How limits are told, and in which sizes the first batch goes out; 0 is a single question.
TOLD: dict[str, tuple[int, Callable[[list[Item]], Any], int, list[int]]] = {
    "one object": (10, says(-32600, "batch too large: at most 10 calls"), 200, [11, 10, 1]),
    "one object, another status": (10, says(-32600, "batch size exceeds the limit of 10"), 413, [11, 10, 1]),
    "the size is named too": (10, says(-32000, "batch limit 10 exceeded: 11 requests given"), 400, [11, 10, 1]),
    "another number is named too": (10, says(-32014, "maximum 10 calls in 1 batch"), 200, [11, 10, 1]),
    "in the data": (10, says(-32010, "The batch request was too large", data="max limit of 10"), 200, [11, 10, 1]),
    "in every place": (
        3,
        lambda items: [error(31, "Batch of more than 3 requests are not allowed on free tier", i) for i in items],
        200,
        [11, 3, 3, 3, 2],
    ),
    "in the first place alone": (5, lambda items: [error(-32600, "batch too large", items[0])], 200, [11, 5, 5, 1]),
    "without a number": (3, says(-32600, "batch too large"), 200, [11, 5, 5, 1, 2, 2, 2, 2, 2]),
    "by an option's name": (7, says(-32602, "Number of requests exceeds --rpc-max-batch-size."), 200, [11, 5, 5, 1]),
    "no batches": (0, says(-32005, "Batched requests are not supported by this server"), 200, SINGLY),
    "no arrays": (0, says(-32700, "json: cannot unmarshal array into Go value of type rpc.request"), 400, SINGLY),
    "no valid request": (0, says(-32600, "Invalid Request"), 400, SINGLY),
}


@pytest.mark.parametrize("how", TOLD)
def test_a_limit_on_batches_is_learnt_from_the_refusal(how: str) -> None:
    """All is answered, in pieces of the size that was named or in halves; the next batch begins with them."""
    limit, refuse, status, sizes = TOLD[how]
    provider = Provider(limit, refuse, status)

    async def twice(rpc: Rpc) -> int:
        assert await ask(rpc) == ANSWERS
        first = len(provider.sizes)
        assert await ask(rpc) == ANSWERS
        return first

    first = provider.run(twice)
    assert Counter(provider.sizes[:first]) == Counter(sizes)
    # None of the second batch's pieces is refused.
    assert sum(size or 1 for size in provider.sizes[first:]) == 11
    assert max(provider.sizes[first:]) <= limit
    assert provider.paused == []


def test_the_pieces_of_a_batch_leave_side_by_side() -> None:
    """Four pieces take as long as one."""
    provider = Provider(3, says(-32600, "batch too large: at most 3 calls"), together=asyncio.Barrier(4))
    assert provider.run(ask) == ANSWERS


def test_what_was_answered_is_not_asked_again() -> None:
    """The first ten were served, the eleventh was refused in its place: it alone goes out once more."""
    asked: list[list[int]] = []

    def serve(items: list[Item]) -> list[Item]:
        asked.append([item["params"][0]["n"] for item in items])
        return [*map(result, items[:10]), *(error(-32600, "batch limit of 10 exceeded", i) for i in items[10:])]

    assert Provider(11, serve=serve).run(ask) == ANSWERS
    assert asked == [list(range(11)), [10]]


def test_one_question_is_no_batch_and_is_asked_again_for_its_rate() -> None:
    """A provider that takes no batches and limits the rate answers whoever reads one thing."""

    def serve(items: list[Item]) -> list[Item]:
        return [result(i) if provider.paused else error(-32016, "over rate limit", i) for i in items]

    provider = Provider(0, serve=serve)
    assert provider.run(lambda rpc: rpc.read("eth_call", {"n": 1}, "latest")) == ANSWERS[1]
    assert provider.sizes == [0, 0]


def test_a_limit_is_tried_again_after_an_hour() -> None:
    """A provider may have raised it: the whole batch is asked once more, and no sooner."""
    provider = Provider(10, lambda _: error(-32600, f"batch too large: at most {provider.limit} calls"))

    async def hours(rpc: Rpc) -> None:
        await ask(rpc)
        provider.now_s += LEARNT_S - 1
        await ask(rpc)
        provider.limit = 100
        provider.now_s += 1
        await ask(rpc)
        await ask(rpc)
        # What was learnt is no promise: a limit that was lowered within the hour is learnt anew.
        for limit in (10, 4):
            provider.limit = limit
            assert await ask(rpc) == ANSWERS

    provider.run(hours)
    assert provider.sizes == [11, 10, 1, 10, 1, 11, 11, 11, 10, 1, 10, 1, 4, 4, 2]
    # What one cannot do says nothing of another.
    large = Provider(100)
    large.run(ask)
    assert large.sizes == [11]


@pytest.mark.parametrize("whole", [True, False])
def test_a_rate_limit_is_waited_for_and_is_no_limit_on_batches(*, whole: bool) -> None:
    """The same batch is asked again after a pause, of the same size, a few times and no more."""
    refusals = [1, 1]
    # In which words more are told than these, test_long_logs.py knows.
    told = -32000, "batch of 11 calls is over your rate limit of 10 requests per second"

    def refuse(items: list[Item]) -> Any:
        refusals.pop()
        provider.limit = 0 if refusals else 100
        return error(*told) if whole else [error(*told, item) for item in items]

    provider = Provider(0, refuse, 429)
    assert provider.run(ask) == ANSWERS
    assert provider.sizes == [11, 11, 11]
    assert provider.paused == list(PATIENCE_S[:2])


def test_a_rate_limit_that_stays_is_told_in_its_words() -> None:
    """Patience has an end: the provider gave no answer, and why is said."""
    whole = Provider(0, lambda _: error(-32016, "over rate limit"))
    with pytest.raises(ChainUnknown, match="refused a batch: over rate limit"):
        whole.run(ask)
    assert len(whole.sizes) == 1 + len(PATIENCE_S)
    each = Provider(0, lambda items: [error(-32016, "over rate limit", item) for item in items])
    told = each.run(ask)
    assert [(type(one), str(one)) for one in told] == [(RpcError, "over rate limit")] * 11


def page(status: int) -> Response:
    return Response(status, b"<html>no</html>", {"content-type": "text/html"})


def paged(status: int) -> Callable[[list[Item]], Any]:
    return lambda _: page(status)


# What is not liked as a batch, and whether it teaches that there are none.
ASKED_SINGLY: list[tuple[Callable[[list[Item]], Any], bool]] = [
    # A page with such a status may be about the batch as such, whatever it says.
    *((paged(status), False) for status in (400, 404, 405, 413, 414, 415, 422, 501)),
    # Some servers know no batches and answer the first question of one.
    (lambda items: [result(items[0])], False),
    # What is said of the whole of it, names batches and no number, means that there are none.
    *((says(-32000, words), True) for words in ("batches are not served", "we do not serve batches")),
    *((says(-32000, words), True) for words in ("no batch requests please", "Batch calls: go away")),
    # Words about nothing in particular are no limit: the next one goes out whole again.
    *((says(-32000, words), False) for words in ("something went wrong", "your plan has ended", "")),
    (says(-32603, "internal error"), False),
]


@pytest.mark.parametrize(("refuse", "teaches"), ASKED_SINGLY)
def test_what_is_not_liked_as_a_batch_is_sent_in_single_questions(
    refuse: Callable[[list[Item]], Any], *, teaches: bool
) -> None:
    """All is answered, and the next batch is asked as the first one has taught."""
    provider = Provider(0, refuse)

    async def twice(rpc: Rpc) -> None:
        assert await ask(rpc) == ANSWERS
        assert await ask(rpc) == ANSWERS

    provider.run(twice)
    assert provider.sizes == [*SINGLY, *([0] * 11 if teaches else SINGLY)]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504])
def test_a_page_that_is_not_about_the_body_ends_the_question(status: int) -> None:
    """Who is turned away, or asked to wait, does not ask eleven times instead of once."""
    provider = Provider(0, paged(status))
    with pytest.raises(ChainUnknown, match=f"HTTP {status} without JSON, with a page"):
        provider.run(ask)
    assert provider.sizes == [11]


def test_what_a_contract_says_is_no_refusal_of_the_provider() -> None:
    """A revert may speak of batches, rates and blocks; it is an answer."""
    provider = Provider(
        0, lambda items: [error(3, "execution reverted: batch limit 1 exceeded, over rate limit", i) for i in items]
    )
    told = provider.run(ask)
    assert {str(one) for one in told} == {"execution reverted: batch limit 1 exceeded, over rate limit"}
    assert provider.sizes == [11]


@given(size=st.integers(2, 40), words=st.text(max_size=60), whole=st.booleans())
def test_whatever_is_said_the_pieces_grow_smaller_and_end(*, size: int, words: str, whole: bool) -> None:
    """A provider that refuses every size in any words is asked a bounded number of times."""
    can = Capabilities(lambda: 0)
    rounds = 0
    while can.refused_batch(size, -32600, f"batch limit {words}", whole=whole):
        assert can.batch_max is not None
        assert 1 <= can.batch_max < size
        size, rounds = can.batch_max, rounds + 1
    assert rounds <= 40


ABSENT = [
    (-32601, "the method eth_maxPriorityFeePerGas does not exist/is not available"),
    (-32601, "whatever"),
    (-32004, "Method eth_maxPriorityFeePerGas not supported"),
    (-32602, "pending block is not supported"),
    (-32000, "unknown method"),
]
PRESENT = [(-32603, "internal error"), (-32601, "too many requests"), (-32000, "header not found")]


def test_absence_is_only_what_says_so() -> None:
    """A method is lacking where the error says it; an error inside, or a rate, says nothing of it."""
    for code, words in (*ABSENT, *PRESENT, (-32005, "rate limit exceeded")):
        assert speaks_of_absence(code, words) is ((code, words) in ABSENT), words
        assert not speaks_of_batches(code, words, whole=False), words
        assert speaks_of_rate(code, words) is ("rate" in words or "too many" in words), words


# -- a pool whose nodes are a block apart -------------------------------------------------------------------------

PINNED: list[Query] = [
    ("eth_getBlockByNumber", ["0x10", False]),
    ("eth_call", [{"n": 1}, "0x10"]),
    ("eth_getBalance", [{"n": 2}, "0x10"]),
    ("eth_chainId", []),
]


def pool(lack: Callable[[Item], Item], behind: int, block: str = "0x10") -> Provider:
    """Two nodes behind one address, asked in turn; so many answer questions about one block with `lack`."""

    def serve(items: list[Item]) -> list[Item]:
        lagging = (len(nodes.sizes) - 1) % 2 < behind
        return [lack(item) if lagging and block in item["params"] else result(item) for item in items]

    nodes = Provider(9, serve=serve)
    return nodes


def nothing(item: Item) -> Item:
    """A node without the block: nothing for the block itself, an error for what stands on it."""
    null = {"jsonrpc": "2.0", "id": item["id"], "result": None}
    return null if item["method"] == "eth_getBlockByNumber" else error(-32000, "header not found", item)


LACKS: dict[str, Callable[[Item], Item]] = {
    "header not found": lambda item: error(-32000, "header not found", item),
    "unknown block": lambda item: error(-39001, "Unknown block", item),
    "block not found": lambda item: error(-32000, "block not found: 0x10", item),
    "nothing": nothing,
}


def test_what_one_node_of_a_pool_lacks_is_asked_once_more() -> None:
    """Another node has the block: only what was lacking goes out again, almost at once."""
    for how, lack in LACKS.items():
        nodes = pool(lack, behind=1)
        assert nodes.run(lambda rpc: rpc.batch(PINNED)) == honest(PINNED), how
        assert nodes.sizes == [4, 3]
        assert nodes.paused == [BEHIND_S[0]]
    # A node that lacks the newest block knows of one that it does not have yet; the next one may have it.
    newest: list[Query] = [("eth_getBalance", [{"n": 2}, "latest"]), ("eth_chainId", [])]
    nodes = pool(LACKS["block not found"], behind=1, block="latest")
    assert nodes.run(lambda rpc: rpc.batch(newest)) == honest(newest)
    assert nodes.paused == [BEHIND_S[0]]


def test_a_block_that_no_node_has_is_told_as_it_is() -> None:
    """Asked a few times and no more; nothing is made of it."""
    nodes = pool(nothing, behind=2)
    block, call, balance, chain = nodes.run(lambda rpc: rpc.batch(PINNED))
    assert [block, chain] == [None, *honest(PINNED[3:])]
    assert [str(one) for one in (call, balance)] == ["header not found"] * 2
    assert len(nodes.sizes) == 1 + len(BEHIND_S)


def test_a_tag_that_is_missing_is_not_asked_for_again() -> None:
    """A node without a safe block is not behind: only a block that is named by its number can be lacking."""
    provider = Provider(1, serve=lambda items: [error(-32000, "safe block not found", i) for i in items])
    (told,) = provider.run(lambda rpc: rpc.batch([("eth_getBlockByNumber", ["safe", False])]))
    assert str(told) == "safe block not found"
    assert provider.sizes == [1]
