"""Which answers of providers and APIs have stopped honest software, or made it pay again, without a lie in them?

They are late, large, misspelt, of another's hand, or absent where they were expected; the stories are told as those of
tests/world/stories.py are, and stand in the same table.

    result = STORIES["edge_page_instead_of_an_answer"](directory)
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.world.house import COMMAND_S_MAX, MINUTE_S, NONCE, SEND, House, Result
from tests.world.near import Near, Told, Voice, hears
from tests.world.proxy import crowded, lose, packed, ranged, refuse, rewrite, silent, status, wrong
from tests.world.served import served
from tests.world.stage import Stage
from tests.world.stories import (
    PAST_DEADLINE_S,
    RECEIPT,
    STORIES,
    _answers,
    _both,
    _first_sent,
    _once,
    _whole,
    answer_lost,
    first_bytes_held,
    story,
    told_in,
)
from topup.app.log import FIELD_MAX
from topup.domain.lifecycle import State
from topup.sandbox.evm import Evm
from topup.sandbox.gateway import Conduct
from topup.sandbox.http import Request
from topup.sandbox.rpc import Next, RpcServer
from topup.sandbox.world import World, embedded

__all__ = ["STORIES"]

BLOCK: Final = "eth_getBlockByNumber"
LOGS: Final = "eth_getLogs"
# How many blocks of logs are granted a question, and by how many blocks the chain grows meanwhile.
GRANTED: Final = 10
GROWN: Final = 3_000
TRIES_MAX: Final = 10
SLOW: Final = "one.example"
LATE_S: Final = 11
HTML: Final = {"content-type": "text/html"}
PAGE: Final = b"<html><head><title>Attention Required!</title></head><body>error code: 1020</body></html>"
DIGITS: Final = 4_000
NESTED: Final = 10_000
LONG: Final = 1_000_000


# -- troubles that can befall any payer -------------------------------------------------------------------------------


def no_batches(house: House) -> Iterator[None]:
    """The first provider takes no batch at all."""
    house.wires[0].on("*", crowded(0))
    yield


def ten_in_a_batch(house: House) -> Iterator[None]:
    """The first provider takes ten calls in a batch."""
    house.wires[0].on("*", crowded(10))
    yield


def many_digits(house: House) -> Iterator[None]:
    """The first provider says a nonce of 4,000 digits."""
    house.wires[0].on(NONCE, wrong(lambda _: "0x" + "f" * DIGITS))
    yield


def no_safe_block(house: House) -> Iterator[None]:
    """The first provider does not know the tag `safe`."""
    house.wires[0].on(BLOCK, refuse(-32602, "invalid block tag: safe"), when=lambda asked: asked[0] == "safe")
    yield


def edge_page_for_the_send(house: House) -> Iterator[None]:
    """The node takes the first payment, and the edge before it answers with a page of its own, 403 and then 503."""
    house.wires[0].on(SEND, status(403, PAGE, HTML, forwarded=True), times=1)
    house.wires[0].on(SEND, status(503, PAGE, HTML, forwarded=True), times=1, skip=1)
    house.mining = False
    yield from house.spell(30)
    house.mining = True


def gateway_speaks_of_the_nonce(house: House) -> Iterator[None]:
    """The node takes the first payment, and a gateway answers with a sentence in which "nonce too low" stands."""
    text = "upstream failed, last error was: nonce too low; please retry"
    house.wires[0].on(SEND, refuse(-32603, text, forwarded=True), times=1)
    house.mining = False
    yield from house.spell(30)
    house.mining = True


def api_behind_an_edge(house: House) -> Iterator[None]:
    """For five minutes the edge before the API answers everything with its own page, 403."""
    barred = house.api.on("*", status(403, PAGE, HTML))
    yield from house.spell(5 * MINUTE_S)
    barred.end()


def byte_order_mark(house: House) -> Iterator[None]:
    """The API's documents begin with a byte order mark."""
    house.api.on("*", rewrite(lambda honest: b"\xef\xbb\xbf" + honest))
    yield


def packed_unasked(house: House) -> Iterator[None]:
    """The API packs its answers with gzip, which nobody asked for."""
    house.api.on("*", packed())
    yield


# -- providers --------------------------------------------------------------------------------------------------------


@told_in(23, no_batches)
def batches_refused(directory: Path) -> Result:
    """A sole provider takes ten calls in a batch, or none: what it grants is learnt, and the payment made."""
    return _both("batches_refused", directory, _once(ten_in_a_batch, "ten: learnt"), _once(no_batches, "none: singly"))


def _patient(house: House) -> None:
    """Let everybody be heard: the moment for whoever is slower never ends, so that no verdict depends on speed."""

    async def never(_: float) -> None:
        await asyncio.Event().wait()

    rail: Any = house.stage.works.rail()
    rail._chain._providers._sleep = never


def _aside(house: House) -> list[tuple[str, str]]:
    return [(event.provider, event.why) for event in house.named("provider_set_aside")]


def _odd(house: House) -> str:
    """Return how the first provider is named."""
    return house.wires[0].url.partition("://")[2].partition("/")[0]


def _named(house: House) -> None:
    """Hold the first provider, and nobody else, to be set aside, in words of bounded length."""
    odd, aside = _odd(house), _aside(house)
    house.hold(bool(aside) and all(odd in who for who, _ in aside), f"set aside: {aside}")
    told = [event.detail for event in house.named("provider_set_aside")]
    house.hold(all(len(one) <= 500 and one.isprintable() for one in told), f"said: {told!r:.300}")


@story(24, providers=3, settings={"chain__timeout_s": "1"})
async def slow_provider(house: House) -> None:
    """One of three never answers within its time: two that agree are enough, and the slow one is named."""
    house.wires[0].on("*", silent())
    topup = await house.ends()
    house.hold(len(topup.out) == 1, "a second transaction was signed")
    house.hold(any(_odd(house) in who for who, _ in _aside(house)), f"set aside: {_aside(house)}")
    house.note("nobody waited for it")


@story(25, trouble=many_digits, providers=3)
async def _many_digits(house: House) -> None:
    """One of three says a nonce of 4,000 digits."""
    _patient(house)
    topup = await house.ends()
    house.hold([a.plan.nonce for a in topup.out] == [0], "signed by what it said")
    _named(house)
    house.note("4,000 digits")


@story(25, providers=3)
async def _nested(house: House) -> None:
    """One of three answers with lists within lists, 10,000 deep."""
    _patient(house)
    house.wires[0].on("*", status(200, b"[" * NESTED + b"]" * NESTED))
    await house.ends()
    _named(house)
    house.note("10,000 deep")


@story(25, providers=3)
async def _revert_text(house: House) -> None:
    """One of three answers each dry run with a revert whose text is a megabyte, no UTF-8, and orders to a terminal."""
    _patient(house)
    text = b"\xff\x1b]0;owned\x07\x1b[2J".ljust(LONG, b"\xff")
    data = "0x08c379a0" + f"{32:064x}{len(text):064x}" + (text + bytes(-len(text) % 32)).hex()
    refused = refuse(3, "execution reverted", data=data)
    house.wires[0].on("eth_call", refused, when=lambda asked: "from" in asked[0])
    await house.ends()
    said = [value for event in house.told for value in event.shown().values() if isinstance(value, str)]
    house.hold(max(map(len, said)) <= FIELD_MAX, f"a field of {max(map(len, said))} characters")
    house.hold(all(one.isprintable() for one in said), "a terminal is given orders")
    dissent = [event.detail for event in house.named("providers_disagree")]
    house.hold(bool(dissent) and all(one.startswith(f"{_odd(house)} says") for one in dissent), f"said: {dissent}")
    house.note("a megabyte of revert text")


@told_in(25, many_digits)
def nonsense_of_one(directory: Path) -> Result:
    """One of three answers 4,000 digits, lists 10,000 deep, or a megabyte of revert text: named, and paid."""
    return _both("nonsense_of_one", directory, _many_digits, _nested, _revert_text)


@story(26, trouble=no_safe_block)
async def safe_tag_missing(house: House) -> None:
    """A sole provider does not know the tag `safe`: the final block is waited for, and the payment booked by it."""
    topup = await house.ends(passes=600)
    house.hold(len(topup.out) == 1, "a second transaction was signed")
    house.note("booked by the final block")


@story(27, trouble=edge_page_for_the_send, settings={"fees__bump_max": "0"})
async def edge_page_instead_of_an_answer(house: House) -> None:
    """The answer to a payment is an edge's page, 403 and 503: nobody refused it, so it is sent again and found."""
    topup = await house.ends()
    house.hold(set(_answers(house)[:2]) == {"unclear"}, f"answers: {_answers(house)}")
    house.hold(not house.named("payment_refused"), "taken for a refusal")
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("no word of the node: looked for, and found")


@story(28, trouble=gateway_speaks_of_the_nonce, settings={"fees__bump_max": "0"})
async def gateway_sentence_around_an_error(house: House) -> None:
    """A gateway's sentence with "nonce too low" within it is no word of the node: unclear, sent again, found."""
    topup = await house.ends()
    house.hold(_answers(house)[0] == "unclear", f"answers: {_answers(house)}")
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("unclear: looked for, and found")


# -- the API ----------------------------------------------------------------------------------------------------------


@told_in(29, api_behind_an_edge)
def api_answers_oddly(directory: Path) -> Result:
    """The API answers a page of its edge, a byte order mark, or gzip unasked: unknown or read as meant, paid once."""
    page = _once(api_behind_an_edge, "a page is no refusal")
    mark = _once(byte_order_mark, "a byte order mark is none of the document")
    return _both("api_answers_oddly", directory, page, mark, _once(packed_unasked, "packed unasked: unpacked"))


# -- what takes long, was made up, or is not heard --------------------------------------------------------------------


def forgotten_for_two_days(house: House) -> Iterator[None]:
    """The nodes keep the first payment to themselves until its charge has died, and then forget it.

    Meanwhile the chain grows by some thousand blocks, of whose logs nobody grants more than ten a question.
    """
    for wire in house.wires:
        wire.on(LOGS, ranged(GRANTED))
    yield from _first_sent(house)
    house.chain.held.add(house.hashes[0])
    for _ in range(GROWN):
        house.world.clock.leap(PAST_DEADLINE_S * 1000 // GROWN)
        house.chain.mine(house.world.clock.now_s())
    house.chain.held.clear()
    house.chain.drop_pending()
    house.mining = True


def _span(wanted: dict[str, str]) -> int:
    return int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1


# A payer that proves no death pays another charge long before: what befalls it is that the first one lives on.
@story(30, trouble=forgotten_for_two_days, alike=first_bytes_held, providers=2, settings={"fees__bump_max": "0"})
async def ten_blocks_of_logs(house: House) -> None:
    """A payment is lost and both providers grant ten blocks of logs a question: its death is proven, pass by pass."""
    topup = await house.ends(passes=600)
    house.hold(len(house.named("charge_dead")) == 1, "its charge was not proven dead")
    house.hold([one.dead is not None for one in topup.charges] == [True, False], f"charges: {topup.charges}")
    asked = [one.params[0] for wire in house.wires for one in wire.log if one.method == LOGS]
    short = [one for one in asked if _span(one) <= GRANTED]
    house.hold(len(short) >= 2 * GROWN // GRANTED, f"{len(short)} questions prove nothing over {GROWN} blocks")
    house.note(f"proven over {GROWN} blocks, ten at a time")


def invents(world: World, rpc: RpcServer) -> None:
    """Let a provider keep what it is given to itself, and show it paid in a block that really is there."""
    shown: dict[str, dict[str, Any]] = {}
    chain = world.chain
    assert isinstance(chain, Evm)

    async def lie(method: str, params: list[Any], ask: Next) -> Any:
        if method == SEND and not shown:
            sent = ask()
            chain.mine(world.clock.now_s())  # for its receipt alone
            receipt = chain.rpc(RECEIPT, [sent])
            chain.reorg(1, drop=True)
            there = chain.rpc(BLOCK, ["latest", False])
            place = {"blockHash": there["hash"], "blockNumber": there["number"]}
            shown[sent] = {**receipt, **place, "logs": [{**log, **place} for log in receipt["logs"]]}
            return sent
        if method == SEND:
            return next(iter(shown))
        if method == RECEIPT and params[0] in shown:
            return shown[params[0]]
        if method == NONCE and shown:
            return hex(1)
        return ask()

    rpc.intercept = lie


def receipt_made_up(house: House) -> Iterator[None]:
    """The one provider swallows the payment and shows it paid in a real block."""
    invents(house.world, house.world.rpc)
    yield


@story(31, trouble=receipt_made_up)
async def invented_receipt(house: House) -> None:
    """A sole provider invents the receipt; three honest ones that follow it take the payment back, and it is made."""
    await house.stage.until(State.UNCREDITED)
    house.hold(house.payments() == 0, "something was paid")
    honest = [house.world.provider().url for _ in range(3)]
    await house.restart(chain__rpc_urls=",".join(honest))
    topup = await house.ends()
    proofs = [event.proof for event in house.named("payment_vanished")]
    house.hold(proofs == ["unspent"], f"taken back by {proofs}")
    house.hold(len(topup.charges) == len({a.nonce_slot for a in topup.out}) == 1, "something else was bought or signed")
    # These providers stand behind no wire of the house, so that it has not seen the payment leave.
    house.note("taken back by proof, and sent again as it was")


@told_in(32, answer_lost)
def wish_and_killed_daemon(directory: Path) -> Result:
    """A daemon hangs, is killed and comes back while `until topup once` repeats one wish: one purchase."""
    wrong = list[str]()
    wish = ("once", "--amount", "10", "--yes")
    with served(directory) as place:
        daemon = place.start("run")
        daemon.await_event("cycle_done")
        daemon.process.send_signal(signal.SIGSTOP)
        codes = [place.run(*wish, "--timeout", "2").returncode]
        wrong += [] if codes == [4] else [f"beside a daemon that hangs it ended with {codes}, not 4"]
        daemon.process.kill()
        daemon.process.wait()
        place.start("run").await_event("cycle_done")
        while codes[-1] != 0 and len(codes) < TRIES_MAX:
            codes.append(place.run(*wish).returncode)
        wrong += [] if codes[-1] == 0 else [f"it ended with {codes}"]
        return _whole("wish_and_killed_daemon", wrong, place, f"exit codes {codes}")


@told_in(33)
def output_lost(directory: Path) -> Result:
    """What a purchase says cannot be printed, for the disk is full: the exit code tells of the money, not of that."""
    wrong = list[str]()
    wish = ("once", "--amount", "10", "--yes", "--force")
    with served(directory) as place, Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "topup", *wish],
            env=place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        wrong += [] if done.returncode == 0 else [f"it was bought, and ended with {done.returncode}"]
        wrong += ["a traceback"] if b"Traceback" in done.stderr else []
        again = place.document(*wish)
        told = (again["exit_code"], again["repeated"])
        wrong += [] if told == (0, True) else [f"who asks again is told {told}"]
        return _whole("output_lost", wrong, place, "0, and who asks again is told of it")


# -- late each time ---------------------------------------------------------------------------------------------------


def answers_nobody_waits_for(house: House) -> Iterator[None]:
    """The node takes each payment; its answer comes when a client of ten seconds' patience has left."""
    house.wires[0].on(SEND, lose())
    yield


@told_in(34, answers_nobody_waits_for)
def right_but_late(directory: Path) -> Result:
    """One of three answers rightly, and 11 s late each time: the two others are enough, and it is named as slow."""
    conduct, burn = Conduct(posting_delay_ms=10_000), Decimal(0)
    world = Near(embedded, conduct=conduct, usage_usd=Decimal("10.5"), burn_usd_per_hour=burn)

    async def late(_: Request, answer: Callable[[], Awaitable[Told]]) -> Told:
        await asyncio.sleep(LATE_S)
        return await answer()

    async def tell() -> Result:
        urls = ",".join(f"https://{name}" for name in (SLOW, "two.example", "three.net"))
        own = {"TOPUP_CHAIN__RPC_URLS": urls, "TOPUP_API__URL": world.gateway.url}
        stage = Stage(world, directory, world.clock, own)
        stage.works.rail()
        for rpc in stage.works.rpcs:
            hears(rpc, Voice(world.provider_says, late if rpc.host == SLOW else None))
        hears(stage.works.api._exchange, Voice(world.seller_says))
        living, began_ms = asyncio.create_task(world.live()), world.clock.now_ms()
        try:
            done = await stage.until(State.DONE)
            for _ in range(3):
                await world.clock.sleep(10 * MINUTE_S)
                await stage.step()
            aside = {(event.provider, event.why) for event in stage.named("provider_set_aside")}
            wrong = [] if aside == {(SLOW, "slow")} else [f"set aside: {aside}"]
            wrong += [] if (paid := stage.payments()) == 1 else [f"{paid} payments"]
            wrong += [] if stage.booked() == stage.left() else ["the books and the wallet differ"]
            names = tuple(event.name() for event in stage.told)
            seconds, detail = (done.moved_ms - began_ms) // 1000, "nobody waited eleven seconds"
            return Result("right_but_late", not wrong, paid, False, False, "", names, seconds, detail, tuple(wrong))
        finally:
            living.cancel()
            await stage.close()

    with world, asyncio.Runner(loop_factory=world.loop) as runner:
        return runner.run(tell())
