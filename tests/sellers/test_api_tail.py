"""What comes of each way in which the credits API can fail? Which event, which end of the pass, and never a payment.

The real cycle asks the sandbox's gateway through the fault proxy. The tables are the documentation: a row is a fault
and what topup makes of it at each of the three endpoints. When the fault is gone the account is topped up, once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Final

import pytest

from tests.world.proxy import (
    Fault,
    Proxy,
    answer_twice,
    body,
    bomb,
    drop,
    duplicate,
    lose,
    oversized,
    raw,
    rewrite,
    silent,
    slow,
    status,
    truncate,
)
from tests.world.stage import Stage, low
from topup.app.daemon import outcome_exit
from topup.domain.credits import LASTING
from topup.domain.errors import Exit
from topup.domain.lifecycle import State

CREDITS, KEY, CHARGE = "/credits", "/key", "/credits/coinbase"
PASSES = 2
BOUGHT_BEFORE = Decimal(20)
NOW_S = 1_790_000_000


# -- what a fault means ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """What comes of it: at GET /credits and GET /key the doubt, at POST /credits/coinbase the end of the top-up."""

    credits: str
    key: str
    charge: str


# Nothing was learnt. The account is looked at again; another charge is asked for, an unpaid one is harmless.
UNKNOWN = Meaning("no_answer", "key_unproven", "charge_unanswered")
# The same, and nothing at all is asked before the time the API named (a minute when it named none).
LIMITED = Meaning("limited", "limited", "charge_unanswered")
# Asking the same again cannot help: the top-up is dropped, the next one waits longer, and the fifth is not begun.
REJECTED = Meaning("no_answer", "key_unproven", "charge_rejected")
# The key is wrong: a person has to put it right.
UNAUTHORIZED = Meaning("unauthorized", "unauthorized", "charge_rejected")
# The endpoint is no more: no charge is asked for until a person says `topup resume`.
GONE = Meaning("gone", "key_unproven", "endpoint_gone")

# Nothing is sold there, which a reading does not mean for good.
ABSENT = Meaning("no_answer", "key_unproven", "endpoint_gone")

SAID: Final = b'{"error":{"code":0,"message":"said by the test"}}'
HTML: Final = b"<!DOCTYPE html><html><body><h1>Web server is down</h1></body></html>"
PAGE: Final = {"content-type": "text/html"}
DATE: Final = formatdate(NOW_S, usegmt=True)
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"


def _retry(code: int, after: str) -> Fault:
    return status(code, SAID, {"content-type": "application/json", "retry-after": after, "date": DATE})


# What each status, number and form of JSON means to the client is told by test_openrouter.py; here one of each meaning
# lives to its end, and whatever no client foresees on the wire.
FAULTS: Final[dict[str, tuple[Fault, Meaning]]] = {
    # -- the documented statuses, and those of the proxies in front of the API
    "400 bad request": (status(400, SAID), REJECTED),
    "401 no valid key": (status(401, SAID), UNAUTHORIZED),
    "404 not found": (status(404, SAID), ABSENT),
    "408 request time-out": (status(408, SAID), UNKNOWN),
    "410 gone": (status(410, SAID), GONE),
    "429": (status(429, SAID), LIMITED),
    "429, in 7 seconds": (_retry(429, "7"), LIMITED),
    "500 with a page": (status(500, HTML, PAGE), UNKNOWN),
    "501 not implemented": (status(501, SAID), ABSENT),
    "503, in 7 seconds": (_retry(503, "7"), LIMITED),
    # -- other answers that are none
    "204 no content": (status(204), UNKNOWN),
    "307 elsewhere": (status(307, headers={"location": "http://127.0.0.1:9/"}), UNKNOWN),
    "200 with a page": (body(HTML), UNKNOWN),
    "200 with an error in it": (body(SAID), UNKNOWN),
    "two documents in one body": (rewrite(lambda honest: honest + honest), UNKNOWN),
    "the answer of another": (body(b'{"data":"pong"}'), UNKNOWN),
    "NaN": (rewrite(lambda honest: honest.replace(b'{"data":{', b'{"data":{"spent":NaN,')), UNKNOWN),
    "Infinity": (rewrite(lambda honest: honest.replace(b'{"data":{', b'{"data":{"spent":-Infinity,')), UNKNOWN),
    "UTF-16": (rewrite(lambda honest: honest.decode().encode("utf-16")), UNKNOWN),
    # -- the wire
    "no connection": (drop(), UNKNOWN),
    "answer lost": (lose(), UNKNOWN),
    "cut in the middle": (truncate(), UNKNOWN),
    "half a document": (truncate(told="short"), UNKNOWN),
    "silence": (silent(), UNKNOWN),
    "silence after the effect": (silent(forwarded=True), UNKNOWN),
    "slow headers": (slow("head", 0.1), UNKNOWN),
    "slow body": (slow("body", 0.1), UNKNOWN),
    "gzip bomb": (bomb(4 * 1024 * 1024), UNKNOWN),
    "too long": (oversized(4 * 1024 * 1024), UNKNOWN),
    "chunked garbage": (raw(CHUNKED + b"zz\r\nwhat?\r\n0\r\n\r\n"), UNKNOWN),
    "chunks without an end": (raw(CHUNKED + b'5\r\n{"dat\r\n'), UNKNOWN),
    "a length that is no number": (raw(OK + b"content-length: many\r\n\r\n{}"), UNKNOWN),
    "two lengths": (raw(OK + b"content-length: 2\r\ncontent-length: 9\r\n\r\n{}"), UNKNOWN),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), UNKNOWN),
}


def _total(text: str) -> Fault:
    return body(b'{"data":{"total_credits":%s,"total_usage":10.5}}' % text.encode())


def _twice(name: bytes, other: bytes) -> Fault:
    """Let a name be given twice, the second time as it is."""
    return rewrite(lambda honest: honest.replace(b'"%s":' % name, b'"%s":%s,"%s":' % (name, other, name), 1))


def _swap(old: bytes, new: bytes) -> Fault:
    return rewrite(lambda honest: honest.replace(old, new, 1))


# GET /credits: an answer of the right shape, and the doubt about it.
TOTALS: Final[dict[str, tuple[Fault, str]]] = {
    "a total that is a text": (_total('"20"'), "no_answer"),
    "a total that is missing": (body(b'{"data":{"total_usage":10.5}}'), "no_answer"),
    "a negative total": (_total("-20"), "malformed"),
    "a negative usage": (body(b'{"data":{"total_credits":20,"total_usage":-1}}'), "malformed"),
    "a total given twice": (_twice(b"total_credits", b"1"), "no_answer"),
    "a usage given twice": (_twice(b"total_usage", b"19.5"), "no_answer"),
    "data given twice": (_twice(b"data", b'{"total_credits":20,"total_usage":19.5}'), "no_answer"),
    "a total that fell": (_total("19.99"), "credits_fell"),
    "a usage that fell": (body(b'{"data":{"total_credits":20,"total_usage":9.4}}'), "usage_fell"),
    "zeros": (body(b'{"data":{"total_credits":0,"total_usage":0}}'), "zero_zero"),
}

# GET /key: an answer of the right shape, and the doubt about what /credits says then.
KINDS: Final[dict[str, tuple[Fault, str]]] = {
    "no word on the kind of key": (body(b'{"data":{"label":"x"}}'), "key_unproven"),
    "the kind given twice": (_twice(b"is_management_key", b"false"), "key_unproven"),
    "an ordinary key": (body(b'{"data":{"is_management_key":false}}'), "ordinary_key"),
}

# POST /credits/coinbase: an answer of the right shape, and the field that is not as it should be.
CHARGES: Final[dict[str, tuple[Fault, str]]] = {
    "no charge in it": (body(b'{"data":{}}'), "data.web3_data"),
    "an id that is a number": (body(b'{"data":{"id":7,"web3_data":{"transfer_intent":{}}}}'), "metadata"),
    "a recipient given twice": (_twice(b"recipient", b'"0x00"'), "recipient"),
    "an amount given twice": (_twice(b"recipient_amount", b'"1"'), "recipient_amount"),
    "call_data given twice": (_twice(b"call_data", b"{}"), "call_data"),
    "a negative amount": (_swap(b'"recipient_amount":"', b'"recipient_amount":"-'), "recipient_amount"),
    "a chain id that is a text": (_swap(b'"chain_id":8453', b'"chain_id":"8453"'), "chain_id"),
}


# -- the scene ------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A stage behind the proxy, whose account stands below its floor."""

    stage: Stage
    proxy: Proxy

    def unpaid(self) -> bool:
        """Tell whether nothing was paid, and nothing stands in the books."""
        return self.stage.payments() == self.stage.booked() == self.stage.left() == 0

    async def paid_once(self) -> None:
        """Go on without faults: exactly one payment, its credits have arrived, every wei is booked."""
        # Enough passes for the hour that the API may ask for while credits are awaited.
        await self.stage.paid_once(passes=400)
        assert self.stage.world.gateway.account.total_credits == BOUGHT_BEFORE + 10
        assert not self.stage.named("top_up_halted")


@asynccontextmanager
async def scene(directory: Path, **settings: str) -> AsyncIterator[Scene]:
    """Serve a world in which time passes only when the cycle sleeps; an answer may take a second."""
    with low(burn_usd_per_hour=Decimal(0)) as world, Proxy(world.gateway.url) as proxy:
        given = {"TOPUP_API__URL": proxy.url, "TOPUP_API__TIMEOUT_S": "1"} | settings
        stage = Stage(world, directory, world.clock, given)
        try:
            yield Scene(stage, proxy)
        finally:
            await stage.close()


async def doubted(one: Scene, where: str, fault: Fault, doubt: str) -> None:
    """A fault at a reading: each pass ends unknown for this reason, nothing is decided, nothing is paid."""
    rule = one.proxy.on(where, fault)
    for _ in range(PASSES):
        rest = await one.stage.step()
        assert (rest.outcome, rest.why) == ("unknown", doubt), rest
        assert outcome_exit(rest) is (Exit.PERSON if doubt in LASTING else Exit.LATER)
        assert rest.detail
    while not rule.hits:  # the API has asked for patience, and nothing was asked yet
        assert (await one.stage.step()).why == "limited"
    assert not one.stage.named("top_up_decided")
    assert one.unpaid()
    rule.end()


async def unanswered(one: Scene, fault: Fault, charge: str) -> None:
    """A fault at the request for a charge: it is asked again or the top-up ends, and nothing is signed."""
    again = charge == "charge_unanswered"
    rule = one.proxy.on(CHARGE, fault)
    while not rule.hits:
        rest = await one.stage.step()
    assert (rest.outcome, rest.why) == ("following" if again else "dropped", charge), rest
    assert again or outcome_exit(rest) is Exit.PERSON
    assert len(one.stage.named("top_up_dropped" if charge == "charge_rejected" else charge)) == 1
    for _ in range(PASSES):
        rest = await one.stage.step()
    assert not one.stage.named("payment_signed")
    assert one.unpaid()
    rule.end()
    if charge == "endpoint_gone":
        assert (rule.hits, rest.why) == (1, charge)
        one.stage.store.say("default", "gone:coinbase", "0", one.stage.world.clock.now_ms(), "a test")


async def awaited(one: Scene, fault: Fault, doubt: str) -> None:
    """A fault at the readings that wait for the credits of a payment: it stays paid, and nothing else is bought."""
    await one.stage.until(State.PAID)
    one.stage.told.clear()
    rule = one.proxy.on(CREDITS, fault)
    for _ in range(PASSES):
        rest = await one.stage.step()
        assert rest.outcome == "following", rest
        assert one.stage.topup.state in (State.PAID, State.UNCREDITED)
    assert rule.hits >= 1
    assert [e.doubt for e in one.stage.named("reading_unknown")] == [doubt]
    assert one.stage.payments() == 1
    rule.end()


# -- the stories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "meaning"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_that_visits_each_endpoint_delays_one_payment(
    fault: Fault, meaning: Meaning, tmp_path: Path
) -> None:
    """At the key, the balance, the charge and the credits in turn: each time its own event, in the end one payment."""
    async with scene(tmp_path) as one:
        await doubted(one, KEY, fault, meaning.key)
        await doubted(one, CREDITS, fault, meaning.credits)
        # Said once for each new reason, not in each pass.
        doubts = [e.doubt for e in one.stage.named("reading_unknown")]
        assert doubts == list(dict.fromkeys([meaning.key, meaning.credits]))
        await unanswered(one, fault, meaning.charge)
        await awaited(one, fault, meaning.credits)
        await one.paid_once()


@pytest.mark.parametrize(("fault", "doubt"), TOTALS.values(), ids=TOTALS)
async def test_a_total_that_is_none(fault: Fault, doubt: str, tmp_path: Path) -> None:
    """The shape is right and a number is not: nothing is bought on it, in whichever direction it errs."""
    async with scene(tmp_path) as one:
        # A first reading that can be believed, so that there is something to fall from; nothing is due yet.
        one.stage.world.gateway.account.set_usage(Decimal("9.5"))
        await one.stage.step()
        one.stage.told.clear()
        one.stage.world.gateway.account.set_usage(Decimal("10.5"))
        await doubted(one, CREDITS, fault, doubt)
        await one.paid_once()


@pytest.mark.parametrize(("fault", "doubt"), KINDS.values(), ids=KINDS)
async def test_a_kind_of_key_that_is_none(fault: Fault, doubt: str, tmp_path: Path) -> None:
    """Only a plain yes, given once, proves a management key."""
    async with scene(tmp_path, TOPUP_WATCH__KEY_RECHECK_S="60") as one:
        await doubted(one, KEY, fault, doubt)
        await one.paid_once()


@pytest.mark.parametrize(("fault", "field"), CHARGES.values(), ids=CHARGES)
async def test_a_charge_that_is_none(fault: Fault, field: str, tmp_path: Path) -> None:
    """The shape is right and a field is not: refused by name, said loudly, dropped; a later honest one is paid."""
    async with scene(tmp_path) as one:
        rule = one.proxy.on(CHARGE, fault, times=1)
        rest = await one.stage.step()
        assert (rest.outcome, rest.why) == ("dropped", "charge_refused"), rest
        assert outcome_exit(rest) is Exit.PERSON
        (refused,) = one.stage.named("charge_refused")
        assert field in refused.field
        assert refused.level == "critical"
        assert rule.hits == 1
        assert one.unpaid()
        await one.paid_once()


@pytest.mark.parametrize("where", [CREDITS, KEY, CHARGE])
@pytest.mark.parametrize("fault", [answer_twice(), duplicate(), duplicate("second")], ids=lambda fault: fault.name)
async def test_what_is_doubled_changes_nothing(fault: Fault, where: str, tmp_path: Path) -> None:
    """Two answers on the wire, or one question that arrived twice: one payment, and no doubt on the way."""
    async with scene(tmp_path) as one:
        rule = one.proxy.on(where, fault)
        await one.paid_once()
        assert rule.hits >= 1
        assert not one.stage.named("reading_unknown")
        assert not one.stage.named("charge_unanswered")


@pytest.mark.parametrize("where", [CREDITS, KEY, CHARGE])
@pytest.mark.parametrize(("after", "wait_s"), [("7", 7), ("1800", 1800), ("soon", 60)])
async def test_the_api_is_left_alone_for_as_long_as_it_asked(
    where: str, after: str, wait_s: int, tmp_path: Path
) -> None:
    """No question before, and then one soon; test_openrouter.py reads every form in which the time is told."""
    async with scene(tmp_path) as one:
        one.proxy.on(where, _retry(429, after), times=1)
        await one.stage.works.cycle.run()
        refused_ms, asked = one.stage.world.clock.now_ms(), len(one.proxy.log)
        while len(one.proxy.log) == asked:
            waited_ms = one.stage.world.clock.now_ms() - refused_ms
            await one.stage.step()
            assert waited_ms < (wait_s + 120) * 1000
        assert waited_ms >= (wait_s - 1) * 1000
        await one.paid_once()
