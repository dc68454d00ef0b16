"""Who is waited for? Nobody, once enough have agreed; everybody, where they disagree, forbid, or end something.

Real servers on one chain. A provider that is slow waits for a word of the test; the moment that it is granted is over
at once or never, so that no verdict depends on speed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.chain.test_chain import HEAD_AGE_MAX_S, LAG_MAX_S, TOTAL, Stand, stand_on
from tests.chain.test_quorum import House, housed, lie
from tests.world.stage import Shifted, Stage
from topup.chain import providers
from topup.chain.contract_chain import EvmChain
from topup.chain.contracts import payment_data
from topup.chain.profiles import BASE
from topup.chain.providers import FAILURES_MAX, GRACE_S, PAUSE_S, Providers
from topup.chain.rpc import Rpc
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted
from topup.domain.events import Event, ProviderBack, ProviderSetAside
from topup.domain.lifecycle import State
from topup.domain.money import Wei
from topup.ports.chain import Call
from topup.sandbox.gateway import Conduct
from topup.sandbox.http import Request, Response, Server
from topup.sandbox.rpc import Intercept, Next, RpcError
from topup.sandbox.world import STEPPED, World, embedded

T = TypeVar("T")
Asked = Callable[[EvmChain], Awaitable[Any]]


@pytest.fixture
def stand() -> Iterator[Stand]:
    yield from stand_on("embedded")


@pytest.fixture
def sole(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 1)


@pytest.fixture
def pair(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 2)


@pytest.fixture
def trio(stand: Stand) -> Iterator[House]:
    yield from housed(stand, 3)


@dataclass
class Watch:
    """The edge of a chain whose providers are given a moment that is over at once, or never."""

    house: House
    patient: bool = False
    quorum: int = 2
    said: list[Event] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    ahead_s: int = 0

    async def sleep(self, seconds: float) -> None:
        """Let no time pass; a patient one never comes to the end."""
        self.moments.append(seconds)
        if self.patient:
            await asyncio.Event().wait()

    def run(self, *acts: Asked) -> list[Any]:
        """Do these one after the other; return what came of each."""

        async def done() -> list[Any]:
            rpcs = [Rpc(server.url, timeout_s=20) for server in self.house.servers]
            watched = Providers(
                rpcs,
                quorum=self.quorum,
                now_s=lambda: self.house.now_s() + self.ahead_s,
                head_age_max_s=HEAD_AGE_MAX_S,
                lag_max_s=LAG_MAX_S,
                say=self.said.append,
                sleep=self.sleep,
            )
            try:
                return [await act(EvmChain(BASE, watched)) for act in acts]
            finally:
                for rpc in rpcs:
                    await rpc.close()

        return asyncio.run(done())

    def told(self, kind: type[Event]) -> list[Any]:
        """Return what was said of one kind."""
        return [event for event in self.said if isinstance(event, kind)]


class Gate:
    """An interceptor that answers honestly, or as another does, once the test lets it."""

    def __init__(self, then: Intercept | None = None, after_s: float | None = None) -> None:
        """Stay shut for ever, or open after a while of real time, which the answers of all others do not take."""
        self._then = then
        self._after_s = after_s

    async def __call__(self, method: str, params: list[Any], honest: Next) -> Any:
        """Wait, then answer."""
        if self._after_s is None:
            await asyncio.Event().wait()
        await asyncio.sleep(self._after_s or 0)
        return await self._then(method, params, honest) if self._then is not None else honest()


def preflight_of(house: House) -> Asked:
    return lambda chain: chain.preflight(house.stand.wallet, TOTAL, BASE.contract)


def dry_run(house: House) -> Asked:
    demand = house.stand.demand()
    call = Call(house.stand.wallet, demand.contract, payment_data(demand.intent, 500), Wei(4 * 10**15))
    return lambda chain: chain.simulate(call, demand, house.stand.head())


def look(house: House) -> Asked:
    demand, attempt = house.stand.paid()
    return lambda chain: chain.look(house.stand.wallet, [(attempt, demand)])


FOR: dict[str, Callable[[House], Asked]] = {"a survey": preflight_of, "a dry run": dry_run, "a look": look}


@pytest.mark.parametrize("what", FOR)
def test_the_third_is_not_waited_for_when_two_agree(what: str, trio: House) -> None:
    """What two say is what all three would have said; the third has had its moment."""
    act = FOR[what](trio)
    honest = Watch(trio).run(act)
    trio.bend(0, Gate())
    watch = Watch(trio)
    assert watch.run(act) == honest
    assert watch.moments == [GRACE_S]


def test_within_its_moment_the_third_is_heard(trio: House) -> None:
    """It contradicts, and is named: the others have waited for it."""
    trio.stand.paid()
    trio.bend(0, Gate(lie("eth_getTransactionCount", lambda _: "0x9"), after_s=0.2))
    watch = Watch(trio, patient=True)
    (got,) = watch.run(preflight_of(trio))
    assert got.nonce_latest == 1
    assert [e.name() for e in watch.said] == ["providers_disagree"]


def test_where_two_disagree_the_third_decides_however_late(trio: House) -> None:
    """No moment is counted while the answers at hand do not join."""
    trio.stand.paid()
    trio.bend(0, Gate(after_s=0.2))
    trio.bend(1, lie("eth_getTransactionCount", lambda _: "0x9"))
    watch = Watch(trio)
    (got,) = watch.run(preflight_of(trio))
    assert got.nonce_latest == 1
    assert watch.moments == []


def test_where_one_would_forbid_the_third_decides_however_late(trio: House) -> None:
    """Two against one: what forbids is outvoted only by those who have answered."""

    async def fails(method: str, _: list[Any], honest: Next) -> Any:
        if method == "eth_call":
            raise RpcError(3, "execution reverted", "0x")
        return honest()

    trio.bend(0, Gate(after_s=0.2))
    trio.bend(1, fails)
    watch = Watch(trio)
    (got,) = watch.run(dry_run(trio))
    assert got.gas > 0
    assert watch.moments == []
    trio.bend(0, Gate(fails, after_s=0.2))
    with pytest.raises((Reverted, PaymentForbidden)):
        Watch(trio).run(dry_run(trio))


def test_where_a_block_was_replaced_the_third_is_heard_however_late(trio: House) -> None:
    """Taking an inclusion back is never done on fewer than all who answer."""
    demand, attempt = trio.stand.paid()
    (seen,) = Watch(trio).run(lambda chain: chain.look(trio.stand.wallet, [(attempt, demand)]))
    inclusion = seen.seen[attempt.hash or b""].inclusion
    recorded, at = replace(attempt, inclusion=inclusion), hex(inclusion.block_number)
    other = lie("eth_getBlockByNumber", lambda b: {**b, "hash": "0x" + "07" * 32}, lambda p: p[0] == at)
    trio.bend(0, Gate(after_s=0.2))
    for number in (1, 2):
        trio.bend(number, other)
    watch = Watch(trio)
    watch.run(lambda chain: chain.look(trio.stand.wallet, [(recorded, demand)]))
    assert watch.moments == []
    assert trio.servers[0].asked["eth_getTransactionReceipt"] == 2


@pytest.mark.parametrize("what", ["a fate", "holdings", "a mark", "every look"])
def test_what_ends_something_asks_everybody_however_late(what: str, trio: House) -> None:
    """A proof counts whoever is there: the slow one is one of its witnesses."""
    demand, attempt = trio.stand.paid()
    trio.stand.mine(40)
    acts: dict[str, Asked] = {
        "a fate": lambda chain: chain.payment_status(demand, 0),
        "holdings": lambda chain: chain.holdings(trio.stand.wallet),
        "a mark": lambda chain: chain.flag(demand),
        "every look": lambda chain: chain.look(trio.stand.wallet, [(attempt, demand)], every=True),
    }
    trio.bend(0, Gate(after_s=0.01))
    watch = Watch(trio)
    (told,) = watch.run(acts[what])
    assert watch.moments == []
    if what == "a fate":
        assert told.witnesses == 3
    assert trio.servers[0].asked["eth_chainId"] > 0


def test_who_is_slow_again_and_again_is_set_aside_by_that_name_and_asked_again_later(trio: House) -> None:
    """Slow counts as failing; it is said once, and a provider that has recovered is back after its pause."""
    trio.bend(0, Gate())
    watch = Watch(trio)

    async def recover(_: EvmChain) -> None:
        watch.ahead_s += PAUSE_S
        trio.stand.mine_at(trio.now_s() + watch.ahead_s)
        trio.bend(0, None)
        watch.patient = True

    looks = [lambda chain: chain.look(trio.stand.wallet, [])] * FAILURES_MAX
    watch.run(*looks, looks[0], recover, looks[0])
    (out,), (back,) = watch.told(ProviderSetAside), watch.told(ProviderBack)
    assert (out.provider, out.why, back.provider) == (trio.name(0), "slow", trio.name(0))
    assert f"had not answered {GRACE_S} s after the others" in out.detail
    # In its pause it is not asked, and not waited for.
    assert len(watch.moments) in (FAILURES_MAX, FAILURES_MAX + 1)


def test_with_one_provider_slowness_is_a_sentence(sole: House) -> None:
    """There is nobody to go on with: the question ends at its deadline, and the next pass asks again."""
    sole.bend(0, Gate())

    async def done() -> None:
        rpc = Rpc(sole.servers[0].url, timeout_s=0.2)
        watched = Providers([rpc], quorum=1, now_s=sole.now_s, head_age_max_s=300, lag_max_s=60, say=lambda _: None)
        try:
            for _ in range(2):
                with pytest.raises(ChainUnknown, match=r"did not answer within 0\.2 s"):
                    await EvmChain(BASE, watched).look(sole.stand.wallet, [])
        finally:
            await rpc.close()

    asyncio.run(done())
    sole.bend(0, None)
    assert sole.look(needs=1).nonce_latest == 0


def test_an_answer_that_was_given_up_is_never_taken_for_another() -> None:
    """The provider answers the first question when the second is asked: its connection is closed, nobody hears it."""

    async def asked() -> list[Any]:
        held = asyncio.Event()

        async def handler(request: Request) -> Response:
            items = json.loads(request.body)
            told = json.dumps([{"jsonrpc": "2.0", "id": i["id"], "result": i["method"]} for i in items]).encode()
            if items[0]["method"] == "slow":
                held.set()
                await asyncio.sleep(0.1)
            return Response(200, told)

        server = Server(handler)
        await server.start()
        rpc = Rpc(server.url, timeout_s=5)
        try:
            first = asyncio.ensure_future(rpc.batch([("slow", [])]))
            await held.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return [await rpc.batch([("fast", [])]) for _ in range(3)]
        finally:
            await rpc.close()
            await server.stop()

    assert asyncio.run(asked()) == [["fast"]] * 3


# -- heads --------------------------------------------------------------------------------------------------------


def latest(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Intercept:
    return lie("eth_getBlockByNumber", change, lambda p: p[0] == "latest")


@pytest.mark.parametrize("liar", [0, 2])
def test_a_liar_at_the_lower_height_does_not_choose_the_block(liar: int, trio: House) -> None:
    """The two honest differ by a block; the liar names one that nobody has, at the height of the one behind.

    What the two have there is planned on, run on, and nobody honest is blamed.
    """
    trio.stand.mine(3)
    behind, ahead = (n for n in range(3) if n != liar)
    newest = trio.stand.head().number
    parent = trio.stand.rpc("eth_getBlockByNumber", hex(newest - 1), False)
    trio.bend(behind, latest(lambda _: parent))
    trio.bend(liar, latest(lambda _: {**parent, "hash": "0x" + "07" * 32}))
    watch = Watch(trio, patient=True)
    demand = trio.stand.demand()
    call = Call(trio.stand.wallet, demand.contract, payment_data(demand.intent, 500), Wei(4 * 10**15))

    async def planned(chain: EvmChain) -> Any:
        told = await chain.preflight(trio.stand.wallet, TOTAL, BASE.contract)
        assert "0x" + told.head.hash.hex() == parent["hash"]
        return await chain.simulate(call, demand, told.head)

    runs = watch.run(*[planned] * (FAILURES_MAX + 1))
    assert all(run.gas > 0 for run in runs)
    assert watch.told(ProviderSetAside) == []
    assert trio.servers[ahead].requests >= len(runs)


@pytest.mark.parametrize("liar", [0, 1, 2])
@pytest.mark.parametrize("number", [2**52, 10**6])
def test_a_head_far_ahead_sets_nobody_honest_aside(liar: int, number: int, trio: House) -> None:
    """It claims a block of this very second at an absurd height; the honest two are a minute and more old."""
    watch = Watch(trio, patient=True)
    watch.ahead_s = LAG_MAX_S + 30
    now = trio.now_s() + watch.ahead_s
    trio.bend(liar, latest(lambda b: {**b, "timestamp": hex(now), "number": hex(number)}))
    honest = trio.stand.head()
    told = watch.run(*[preflight_of(trio)] * (FAILURES_MAX + 1), lambda chain: chain.look(trio.stand.wallet, []))
    assert [one.head for one in told[:-1]] == [honest] * (FAILURES_MAX + 1)
    assert told[-1].head.number == honest.number
    assert [e.provider for e in watch.told(ProviderSetAside)] in ([], [trio.name(liar)])


def test_with_two_nobody_knows_which_is_behind(pair: House) -> None:
    """The older head is planned on, as far as its age allows; neither is set aside on the word of the other."""
    watch = Watch(pair)
    watch.ahead_s = LAG_MAX_S + 30
    now = hex(pair.now_s() + watch.ahead_s)
    pair.bend(0, latest(lambda b: {**b, "timestamp": now, "number": hex(int(b["number"], 16) + 30)}))
    (told,) = watch.run(lambda chain: chain.look(pair.stand.wallet, []))
    assert told.head.number == pair.stand.head().number
    assert watch.said == []


# -- a whole refill -----------------------------------------------------------------------------------------------


class Hasty(Shifted):
    """The world's clock, for which the moment that the others are given is over at once."""

    async def sleep(self, seconds: float) -> None:
        """Sleep as the world does, but for that moment."""
        if seconds != providers.GRACE_S:
            await super().sleep(seconds)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_refill_is_paid_though_one_of_three_is_always_eleven_seconds_late(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right but late each time: paid once, within five passes, and the slow one is named."""
    monkeypatch.setattr(providers, "GRACE_S", 2.5)
    conduct = Conduct(posting_delay_ms=10_000)
    with World(
        embedded, scale=STEPPED, conduct=conduct, usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(1)
    ) as world:
        servers = [world.rpc, world.provider(), world.provider()]
        urls = {"TOPUP_CHAIN__RPC_URLS": ",".join(server.url for server in servers), "TOPUP_CHAIN__LAG_MAX_S": "3600"}
        # Two cores that do other things as well take longer to simulate than any provider does.
        stage = Stage(world, tmp_path, Hasty(world, 0), urls | {"TOPUP_POSTING__PLAN_FRESH_S": "120"})

        async def slow(method: str, _: list[Any], honest: Next) -> Any:
            if method == "eth_chainId":
                await world.clock.sleep(11)
            return honest()

        servers[which].intercept = slow

        async def tell() -> None:
            for _ in range(5):
                await stage.step()
                if stage.topup.payment is not None:
                    break
            assert stage.topup.payment is not None
            await stage.until(State.DONE)
            out = stage.named("provider_set_aside")[0]
            assert (out.why, out.provider) == ("slow", servers[which].url.removeprefix("http://"))
            assert stage.payments() == 1
            assert stage.booked() == stage.left()
            await stage.close()

        asyncio.run(tell())
