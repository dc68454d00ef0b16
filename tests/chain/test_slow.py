"""Who is waited for? Nobody, once enough have agreed; everybody, where they disagree, forbid, or end something.

Real servers on one chain. A provider that is slow waits for a word of the test; the moment that it is granted is over
at once or never, so that no verdict depends on speed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from tests.world.client import client_of
from tests.world.stand import LAG_MAX_S, TOTAL, Stand, always, changed, failing, lie
from topup.chain.contract_chain import EvmChain
from topup.chain.profiles import BASE
from topup.chain.providers import FAILURES_MAX, GRACE_S, PAUSE_S
from topup.domain.errors import ChainUnknown, PaymentForbidden, Reverted
from topup.domain.events import ProviderBack, ProvidersDisagree, ProviderSetAside
from topup.sandbox.http import Request, Response
from topup.sandbox.rpc import Intercept, Next, RpcError

T = TypeVar("T")
Asked = Callable[[EvmChain], Awaitable[Any]]


class Moment:
    """What the others are given: over at once, or, for one that is patient, never; every one is counted."""

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.given: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Let no time pass; a patient one never comes to the end."""
        self.given.append(seconds)
        if self.patient:
            await asyncio.Event().wait()


class Gate:
    """An interceptor that answers honestly, or as another does, once the test lets it."""

    def __init__(self, then: Intercept | None = None, after_s: float | None = None) -> None:
        """Stay shut for ever, or open after a while of real time, which the answers of all others do not take."""
        self._then = then
        self._after_s = after_s

    async def __call__(self, method: str, params: list[Any], honest: Next) -> Any:
        if self._after_s is None:
            await asyncio.Event().wait()
        await asyncio.sleep(self._after_s or 0)
        return await self._then(method, params, honest) if self._then is not None else honest()


def preflight_of(stand: Stand) -> Asked:
    return lambda chain: chain.preflight(stand.wallet, TOTAL, BASE.contract)


def dry_run(stand: Stand) -> Asked:
    demand = stand.demand()
    return lambda chain: chain.simulate(stand.call(demand), demand, stand.head())


def look(stand: Stand) -> Asked:
    demand, attempt = stand.paid()
    return lambda chain: chain.look(stand.wallet, [(attempt, demand)])


FOR: dict[str, Callable[[Stand], Asked]] = {"a survey": preflight_of, "a dry run": dry_run, "a look": look}


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("what", FOR)
def test_the_third_is_not_waited_for_when_two_agree(what: str, late: int, trio: Stand) -> None:
    """What two say is what all three would have said, whichever is late; the third has had its moment."""
    act, moment = FOR[what](trio), Moment()
    honest = trio.ask(act, sleep=Moment())
    trio.bend(late, Gate())
    assert trio.ask(act, sleep=moment) == honest
    assert moment.given == [GRACE_S]


def test_within_its_moment_the_third_is_heard(trio: Stand) -> None:
    """It contradicts, is outvoted and named: the others have waited for it."""
    trio.paid()
    trio.bend(0, Gate(lie("eth_getTransactionCount", to=always("0x9")), after_s=0.02))
    assert trio.preflight(sleep=Moment(patient=True)).nonce_latest == 1
    (event,) = trio.told(ProvidersDisagree)
    assert f"{trio.name(0)} shows nonce 9" in event.detail


def test_where_two_disagree_the_third_decides_however_late(trio: Stand) -> None:
    """No moment is counted while the answers at hand do not join."""
    trio.paid()
    trio.bend(0, Gate(after_s=0.02))
    trio.bend(1, "eth_getTransactionCount", to=lambda _: "0x9")
    moment = Moment()
    assert trio.preflight(sleep=moment).nonce_latest == 1
    assert moment.given == []


def test_where_one_would_forbid_the_third_decides_however_late(trio: Stand) -> None:
    """Two against one: what forbids is outvoted only by those who have answered."""
    fails, moment = failing("eth_call", RpcError(3, "execution reverted", "0x")), Moment()
    trio.bend(0, Gate(after_s=0.02))
    trio.bend(1, fails)
    assert trio.ask(dry_run(trio), sleep=moment).gas > 0
    assert moment.given == []
    trio.bend(0, Gate(fails, after_s=0.02))
    with pytest.raises((Reverted, PaymentForbidden)):
        trio.ask(dry_run(trio), sleep=Moment())


def test_where_a_block_was_replaced_the_third_is_heard_however_late(trio: Stand) -> None:
    """Taking an inclusion back is never done on fewer than all who answer."""
    demand, attempt = trio.paid()
    inclusion = trio.look(demand, attempt, sleep=Moment()).seen[attempt.hash or b""].inclusion
    recorded, at = replace(attempt, inclusion=inclusion), hex(inclusion.block_number)
    other = lie("eth_getBlockByNumber", to=changed(hash="0x" + "07" * 32), when=lambda p: p[0] == at)
    trio.bend(0, Gate(after_s=0.02))
    for number in (1, 2):
        trio.bend(number, other)
    moment = Moment()
    trio.look(demand, recorded, sleep=moment)
    assert moment.given == []
    assert trio.servers[0].asked["eth_getTransactionReceipt"] == 2


@pytest.mark.parametrize("what", ["a fate", "holdings", "a mark", "every look"])
def test_what_ends_something_asks_everybody_however_late(what: str, trio: Stand) -> None:
    """A proof counts whoever is there: the slow one is one of its witnesses."""
    demand, attempt = trio.paid()
    trio.mine(40)
    acts: dict[str, Asked] = {
        "a fate": lambda chain: chain.payment_status(demand, 0),
        "holdings": lambda chain: chain.holdings(trio.wallet),
        "a mark": lambda chain: chain.flag(demand),
        "every look": lambda chain: chain.look(trio.wallet, [(attempt, demand)], every=True),
    }
    trio.bend(0, Gate(after_s=0.01))
    moment = Moment()
    told = trio.ask(acts[what], sleep=moment)
    assert moment.given == []
    if what == "a fate":
        assert told.witnesses == 3
    assert trio.servers[0].asked["eth_chainId"] > 0


def test_who_is_slow_again_and_again_is_set_aside_by_that_name_and_asked_again_later(trio: Stand) -> None:
    """Slow counts as failing; it is said once, and a provider that has recovered is back after its pause."""
    trio.bend(0, Gate())
    moment = Moment()

    async def recover(_: EvmChain) -> None:
        trio.later(PAUSE_S)
        trio.bend(0, None)
        moment.patient = True

    looks = [lambda chain: chain.look(trio.wallet, [])] * FAILURES_MAX
    trio.run(*looks, looks[0], recover, looks[0], sleep=moment)
    (out,), (back,) = trio.told(ProviderSetAside), trio.told(ProviderBack)
    assert (out.provider, out.why, back.provider) == (trio.name(0), "slow", trio.name(0))
    assert f"had not answered {GRACE_S} s after the others" in out.detail
    # In its pause it is not asked, and not waited for.
    assert len(moment.given) in (FAILURES_MAX, FAILURES_MAX + 1)


def test_with_one_provider_slowness_is_a_sentence(sole: Stand) -> None:
    """There is nobody to go on with: the question ends at its deadline, and the next pass asks again."""
    sole.bend(0, Gate())
    for _ in range(2):
        with pytest.raises(ChainUnknown, match=r"did not answer within 0\.2 s"):
            sole.look(timeout_s=0.2)
    sole.bend(0, None)
    assert sole.look().nonce_latest == 0


async def test_an_answer_that_was_given_up_is_never_taken_for_another() -> None:
    """The provider answers the first question when the second is asked: its connection is closed, nobody hears it."""
    held = asyncio.Event()

    async def handler(request: Request) -> Response:
        items = json.loads(request.body)
        told = json.dumps([{"jsonrpc": "2.0", "id": i["id"], "result": i["method"]} for i in items]).encode()
        if items[0]["method"] == "slow":
            held.set()
            await asyncio.sleep(0.1)
        return Response(200, told)

    async with client_of(handler) as rpc:
        first = asyncio.ensure_future(rpc.batch([("slow", [])]))
        await held.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert [await rpc.batch([("fast", [])]) for _ in range(3)] == [["fast"]] * 3


# -- heads --------------------------------------------------------------------------------------------------------


def latest(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Intercept:
    return lie("eth_getBlockByNumber", to=change, when=lambda p: p[0] == "latest")


@pytest.mark.parametrize("liar", [0, 2])
def test_a_liar_at_the_lower_height_does_not_choose_the_block(liar: int, trio: Stand) -> None:
    """The two honest differ by a block; the liar names one that nobody has, at the height of the one behind."""
    trio.mine(3)
    behind, ahead = (n for n in range(3) if n != liar)
    newest = trio.head().number
    parent = trio.rpc("eth_getBlockByNumber", hex(newest - 1), False)
    trio.bend(behind, latest(always(parent)))
    trio.bend(liar, latest(always(changed(hash="0x" + "07" * 32)(parent))))
    demand = trio.demand()

    async def planned(chain: EvmChain) -> Any:
        told = await chain.preflight(trio.wallet, TOTAL, BASE.contract)
        assert "0x" + told.head.hash.hex() == parent["hash"]
        return await chain.simulate(trio.call(demand), demand, told.head)

    # What the two have there is planned on, run on, and nobody honest is blamed.
    runs = trio.run(*[planned] * (FAILURES_MAX + 1), sleep=Moment(patient=True))
    assert all(run.gas > 0 for run in runs)
    assert trio.told(ProviderSetAside) == []
    assert trio.servers[ahead].requests >= len(runs)


@pytest.mark.parametrize("liar", [0, 1, 2])
@pytest.mark.parametrize(("number", "years"), [(2**52, 0), (10**6, 500)])
def test_a_head_far_ahead_sets_nobody_honest_aside(liar: int, number: int, years: int, trio: Stand) -> None:
    """It claims a block of this very second, or of the future, at an absurd height; the two are a minute old."""
    trio.ahead_s = LAG_MAX_S + 30
    at = trio.now_s() + years * 31_536_000
    trio.bend(liar, latest(changed(timestamp=hex(at), number=hex(number))))
    honest = trio.head()
    looks = [*[preflight_of(trio)] * (FAILURES_MAX + 1), lambda chain: chain.look(trio.wallet, [])]
    told = trio.run(*looks, sleep=Moment(patient=True))
    assert [one.head for one in told[:-1]] == [honest] * (FAILURES_MAX + 1)
    assert told[-1].head.number == honest.number
    assert [e.provider for e in trio.told(ProviderSetAside)] in ([], [trio.name(liar)])


def test_with_two_nobody_knows_which_is_behind(pair: Stand) -> None:
    """The older head is planned on, as far as its age allows; neither is set aside on the word of the other."""
    pair.ahead_s = LAG_MAX_S + 30
    now = hex(pair.now_s())
    pair.bend(0, latest(lambda b: {**b, "timestamp": now, "number": hex(int(b["number"], 16) + 30)}))
    assert pair.look(sleep=Moment()).head.number == pair.head().number
    assert pair.said == []
