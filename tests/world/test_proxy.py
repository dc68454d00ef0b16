"""Does each fault of the proxy do what it says? Through the real clients, in front of the sandbox and of anvil."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.world import worlds
from tests.world.proxy import (
    Fault,
    Passed,
    Proxy,
    answer_twice,
    drop,
    duplicate,
    hold,
    lose,
    refuse,
    wrong,
)
from tests.world.stage import signed_beside
from topup.chain.rpc import Answer, Query, Rpc, RpcError
from topup.domain.credits import Reading
from topup.domain.errors import ApiUnknown, ChainUnknown
from topup.domain.money import Usd
from topup.sandbox import contracts
from topup.sandbox.anvil import Anvil
from topup.sandbox.http import Request, Response, Server
from topup.sandbox.world import World
from topup.sellers.openrouter import OpenRouter
from topup.wire.exchange import Exchange

SEND, NONCE, BLOCK, CHAIN_ID = "eth_sendRawTransaction", "eth_getTransactionCount", "eth_blockNumber", "eth_chainId"
BATCH: list[Query] = [(CHAIN_ID, []), (BLOCK, []), (CHAIN_ID, [])]
ID = hex(contracts.CHAIN_ID)


@dataclass
class Bench:
    """A proxy in front of a chain, and one in front of the gateway; blocks are mined on demand."""

    world: World
    chain: Proxy
    api: Proxy

    @property
    def nonce(self) -> Query:
        return (NONCE, [self.world.wallet, "latest"])

    def ask(self, method: str, *params: Any) -> Any:
        return asyncio.run(self._asked(lambda rpc: rpc.ask(method, *params)))

    def batch(self, queries: list[Query]) -> list[Answer]:
        answers: list[Answer] = asyncio.run(self._asked(lambda rpc: rpc.batch(queries)))
        return answers

    async def _asked(self, act: Callable[[Rpc], Any]) -> Any:
        rpc = Rpc(self.chain.url, timeout_s=10)
        try:
            return await act(rpc)
        finally:
            await rpc.close()

    def credits(self) -> Reading:
        async def asked() -> Reading:
            exchange = Exchange(self.api.url, timeout_s=10)
            api = OpenRouter(exchange, self.world.gateway.management_key, now_ms=lambda: 1)
            try:
                return await api.credits()
            finally:
                await exchange.close()

        return asyncio.run(asked())

    def signed(self) -> str:
        return str(self.world.do(lambda: signed_beside(self.world, nonce=0)))

    def sent(self) -> int:
        """Mine a block; return how many of the wallet's transactions the chain has seen, asked behind the proxy."""
        self.world.do(lambda: self.world.chain.mine(self.world.clock.now_s()))
        return int(self.world.do(lambda: self.world.chain.rpc(*self.nonce)), 16)


@pytest.fixture(scope="module", params=["embedded", "anvil"])
def started(request: pytest.FixtureRequest) -> Iterator[World]:
    """A chain of each kind that lasts for all tests; anvil is asked at its own port."""
    with World(worlds.maker(request.param)) as world:
        world.mining = False
        yield world


@pytest.fixture
def bench(started: World) -> Iterator[Bench]:
    """Fresh proxies; the chain is as it was at its beginning."""
    before = int(started.do(lambda: started.chain.rpc(BLOCK, [])), 16)
    upstream = started.chain.url if isinstance(started.chain, Anvil) else started.rpc.url
    with Proxy(upstream) as chain, Proxy(started.gateway.url) as api:
        yield Bench(started, chain, api)
    started.do(started.chain.drop_pending)
    depth = int(started.do(lambda: started.chain.rpc(BLOCK, [])), 16) - before
    if depth:
        started.do(lambda: started.chain.reorg(depth, drop=True))


# -- what no rule speaks of -----------------------------------------------------------------------------------------


def test_without_a_rule_everything_passes(bench: Bench) -> None:
    """Single questions, batches, errors and readings come through as they are, and are on record."""
    assert bench.ask(CHAIN_ID) == ID
    assert bench.batch([(CHAIN_ID, []), bench.nonce]) == [ID, "0x0"]
    with pytest.raises(RpcError, match=r"."):
        bench.ask("eth_noSuchThing")
    assert bench.credits().total_credits == Usd.of(20)
    assert bench.chain.log[:2] == [Passed(CHAIN_ID, [], ()), Passed(CHAIN_ID, [], ())]
    assert (bench.chain.asked(NONCE), bench.api.asked("/credits"), bench.api.asked("/key")) == (1, 1, 0)


async def test_a_request_arrives_unchanged_and_so_does_its_answer() -> None:
    """Method, path, query, headers, body, status and what is packed: the upstream sees what it would see without."""
    seen: list[Request] = []

    async def answer(request: Request) -> Response:
        seen.append(request)
        return Response(418, b"\x1f\x8b not really", {"content-encoding": "gzip", "x-odd": "1"})

    server = Server(answer)
    await server.start()
    proxy = await asyncio.to_thread(Proxy(f"{server.url}/base").__enter__)
    try:
        assert proxy.url.endswith("/base")
        async with httpx.AsyncClient(trust_env=False) as client:
            for url in (f"{server.url}/base", proxy.url):
                headers = {"authorization": "Bearer x", "x-own": "Y", "host": "one"}
                sent = client.build_request("POST", f"{url}/way?q=1&r=", content=b"{}", headers=headers)
                told = await client.send(sent, stream=True)
                raw_body = b"".join([chunk async for chunk in told.aiter_raw()])
                assert (told.status_code, raw_body, told.headers["x-odd"]) == (418, b"\x1f\x8b not really", "1")
        assert len({id(writer) for writer in proxy._server._open.values()}) <= 1
    finally:
        await asyncio.to_thread(proxy.__exit__)
        await server.stop()
    assert seen[0] == seen[1]


# -- before, after, twice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "arrived"), [(drop(), 0), (lose(), 1)], ids=["drop", "lose"])
def test_a_cut_connection_with_and_without_its_effect(fault: Fault, arrived: int, bench: Bench) -> None:
    """To the sender both look alike; on the chain they do not."""
    rule = bench.chain.on(SEND, fault, times=1)
    with pytest.raises(ChainUnknown, match=r"127\.0\.0\.1: "):
        bench.ask(SEND, bench.signed())
    assert bench.sent() == arrived
    assert rule.hits == 1
    assert bench.chain.log[-1].done == (fault.name,)


def test_doubled_bytes_are_known_the_second_time(bench: Bench) -> None:
    """Forwarded twice, answered once, with the second answer; one transaction all the same."""
    bench.chain.on(SEND, duplicate("second"), times=1)
    with pytest.raises(RpcError, match=r"already known|already imported"):
        bench.ask(SEND, bench.signed())
    assert bench.sent() == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_is_held_waits_for_its_release(after: bool, bench: Bench) -> None:  # noqa: FBT001
    """Held before it arrives, or with its effect done: the test decides when it goes on."""
    rule = bench.chain.on(SEND, hold(after=after))
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(bench.ask(SEND, bench.signed())))
    asking.start()
    rule.wait()
    if after:
        while bench.sent() == 0:
            time.sleep(0.01)
    else:
        assert bench.sent() == 0
    assert not answers
    rule.release()
    asking.join(10)
    assert len(answers) == 1
    assert bench.sent() == 1


# -- answers --------------------------------------------------------------------------------------------------------


def test_one_item_of_a_batch_lies_alone(bench: Bench) -> None:
    """A wrong answer is a function of the honest one, and takes its place in the batch."""
    honest = int(bench.ask(BLOCK), 16)
    bench.chain.on(BLOCK, wrong(lambda block: hex(int(block, 16) + 7)))
    assert bench.batch(BATCH) == [ID, hex(honest + 7), ID]
    assert bench.ask(BLOCK) == hex(honest + 7)
    assert [one.done for one in bench.chain.log[1:4]] == [(), ("wrong",), ()]


@pytest.mark.parametrize(("forwarded", "arrived"), [(False, 0), (True, 1)])
def test_an_error_with_code_and_text(forwarded: bool, arrived: int, bench: Bench) -> None:  # noqa: FBT001
    """The node's own words, alone or within a batch; behind them the bytes were taken, or never came."""
    bench.chain.on(SEND, refuse(-32010, "AlreadyKnown", forwarded=forwarded, data="0x01"))
    first, error, last = bench.batch([(CHAIN_ID, []), (SEND, [bench.signed()]), (CHAIN_ID, [])])
    assert (first, last) == (ID, ID)
    assert isinstance(error, RpcError)
    assert (error.code, error.message, error.data) == (-32010, "AlreadyKnown", b"\x01")
    assert bench.sent() == arrived
    with pytest.raises(RpcError, match="AlreadyKnown"):
        bench.ask(SEND, bench.signed())


# -- the wire -------------------------------------------------------------------------------------------------------


async def test_an_answer_written_twice_is_left_on_the_connection(bench: Bench) -> None:
    """A client that asks again on the same connection gets the old answer; its id gives it away."""
    bench.chain.on(CHAIN_ID, answer_twice(), times=1)
    rpc = Rpc(bench.chain.url, timeout_s=5)
    try:
        assert await rpc.ask(CHAIN_ID) == ID
        with pytest.raises(ChainUnknown, match="another question"):
            await rpc.ask(BLOCK)
    finally:
        await rpc.close()


# -- the account ----------------------------------------------------------------------------------------------------


def test_a_path_is_matched_by_its_end(bench: Bench) -> None:
    """A rule for /credits leaves /credits/coinbase and /key alone."""
    rule = bench.api.on("/credits", drop())
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{bench.api.url}/credits/coinbase", content=b"{}").status_code == 401
        assert client.get(f"{bench.api.url}/key").status_code == 401
    with pytest.raises(ApiUnknown):
        bench.credits()
    assert rule.hits == 1


# -- rules ----------------------------------------------------------------------------------------------------------


def test_a_rule_acts_as_often_as_told_and_where_told(bench: Bench) -> None:
    """After so many, so many times, on such parameters; then it is over, and it counted what it did."""
    rule = bench.chain.on(NONCE, refuse(1, "no"), times=2, skip=1, when=lambda params: params[1] == "latest")

    def says() -> list[bool]:
        return [isinstance(one, RpcError) for one in bench.batch([bench.nonce, (NONCE, [bench.world.wallet, "0x0"])])]

    assert [says() for _ in range(4)] == [[False, False], [True, False], [True, False], [False, False]]
    assert rule.hits == 2


def test_a_rule_lasts_until_it_is_ended(bench: Bench) -> None:
    """One by one, or all at once."""
    rule = bench.chain.on(CHAIN_ID, refuse(1, "no"))
    bench.chain.on("*", wrong(lambda _: "0x99"))
    with pytest.raises(RpcError):
        bench.ask(CHAIN_ID)
    rule.end()
    assert bench.ask(CHAIN_ID) == "0x99"
    bench.chain.mend()
    assert bench.ask(CHAIN_ID) == ID
    assert rule.hits == 1


def test_an_upstream_that_is_gone_is_a_cut_connection() -> None:
    """Nothing is invented for an upstream that does not answer."""
    with Proxy("http://127.0.0.1:9") as proxy, pytest.raises(httpx.HTTPError):
        httpx.post(proxy.url, content=b"{}", trust_env=False)
