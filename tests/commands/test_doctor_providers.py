"""Does `topup doctor` ask what a payment asks, and say what a provider cannot do and what follows from it?"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools import environ
from tests.world.examined import failed, looked
from tests.world.proxy import Proxy, crowded, ranged, refuse, status, wrong
from topup.app.settings import load
from topup.commands.doctor import Check
from topup.commands.doctor.contract import _chain
from topup.commands.doctor.providers import LOG_QUESTIONS, _reach, longest
from topup.ports.chain import Piece
from topup.sandbox.world import World, embedded

pytestmark = [pytest.mark.machine_time, pytest.mark.usefixtures("impatient")]
# So many blocks are there before anybody looks, more than any range below; a second apart they are not too far ahead.
BLOCKS = 22
LOGS = "eth_getLogs"
BLOCK = "eth_getBlockByNumber"
# Two days of blocks, and two hours below them.
LONGEST = 90_000


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A sound world that nobody changes, with some blocks."""
    with World(embedded) as world:
        world.do(lambda: [world.chain.mine() for _ in range(BLOCKS)])
        yield world


@pytest.fixture
def wire(world: World) -> Iterator[Proxy]:
    """What stands before its only provider."""
    with Proxy(world.rpc.url) as wire:
        yield wire


def seen(world: World, wire: Proxy, directory: Path) -> tuple[dict[str, Check], set[str]]:
    """What doctor finds behind the wire: of the provider, by what it is about; and everything that failed."""
    found = looked(world, directory, chain__rpc_urls=wire.url)
    mine = {name.removeprefix("provider 127.0.0.1").strip(): one for name, one in found.items() if "provider " in name}
    return mine, failed(found)


def tagged(*tags: str) -> Callable[[Any], bool]:
    return lambda asked: any(tag in asked for tag in tags)


Bend = Callable[[Proxy], object]
NO_METHOD = (-32601, "the method does not exist/is not available")
# What a provider cannot do; which check says it, and in which words; "!" where it is a warning.
COPED: dict[str, tuple[Bend, str, str]] = {
    "ten calls": (lambda w: w.on("*", crowded(10)), "batches", "takes 10 calls in a batch: kept to"),
    "three calls": (lambda w: w.on("*", crowded(3)), "batches", "takes 3 calls in a batch: kept to"),
    "no batches": (lambda w: w.on("*", crowded(0)), "batches", "takes no batches: kept to"),
    "safe unknown": (
        lambda w: w.on(BLOCK, refuse(-39001, "Unknown block"), when=tagged("safe")),
        "finality",
        "!no tag safe: a payment is done only at the final block",
    ),
    "safe not found": (
        lambda w: w.on(BLOCK, refuse(-32000, "safe block not found"), when=tagged("safe")),
        "finality",
        "!no tag safe: a payment is done only at the final block",
    ),
    "safe is null": (
        lambda w: w.on(BLOCK, wrong(lambda _: None), when=tagged("safe")),
        "finality",
        "!no tag safe: a payment is done only at the final block",
    ),
    "nothing final": (
        lambda w: w.on(BLOCK, refuse(-32602, "invalid block tag"), when=tagged("finalized")),
        "finality",
        "!no tag finalized: payments are done at the safe block; it cannot bear out that an expired charge",
    ),
    "pending": (
        lambda w: w.on(
            "eth_getTransactionCount", refuse(-32602, "pending block is not supported"), when=tagged("pending")
        ),
        "pending",
        "!the provider does not count what is pending",
    ),
    "no tip": (
        lambda w: w.on("eth_maxPriorityFeePerGas", refuse(*NO_METHOD)),
        "tip",
        "no eth_maxPriorityFeePerGas: the tip is what recent blocks have paid",
    ),
    "a rate, in its place": (
        lambda w: w.on(LOGS, refuse(-32016, "over rate limit"), times=2),
        "rate",
        "!limits the rate of questions: topup waits and asks the same again",
    ),
    "a rate, of everything": (
        lambda w: w.on("*", status(429, b'{"jsonrpc":"2.0","id":null,"error":{"code":429,"message":"slow"}}'), times=1),
        "rate",
        "!limits the rate of questions: topup waits and asks the same again",
    ),
    "a pool, a block apart": (
        lambda w: w.on("eth_estimateGas", refuse(-32000, "header not found"), times=1),
        "nodes",
        "is a pool whose nodes are a block or more apart: what one lacks is asked once more",
    ),
    "ten blocks": (
        lambda w: w.on(LOGS, ranged(10)),
        "logs",
        f"10 blocks of logs a question: a proof of non-payment over {LONGEST} blocks takes about ",
    ),
    "one block": (
        lambda w: w.on(LOGS, ranged(1)),
        "logs",
        f"!1 block of logs a question: a proof over {LONGEST} blocks would take {LONGEST} questions, more than",
    ),
    "no logs": (
        lambda w: w.on(LOGS, refuse(-32601, "logs are for those who pay")),
        "logs",
        "!no logs of as many blocks as a proof needs: 127.0.0.1",
    ),
}


@pytest.mark.parametrize("what", COPED)
def test_a_limit_that_topup_copes_with_is_said_and_fails_nothing(
    what: str, world: World, wire: Proxy, tmp_path: Path
) -> None:
    """It is said of this provider, with what follows from it."""
    bend, about, words = COPED[what]
    bend(wire)
    mine, bad = seen(world, wire, tmp_path)
    assert bad == set()
    says = words.replace("!", "warning: ")
    assert mine[about].says.startswith(says), mine[about].line()
    assert mine[about].line().startswith("warn " if "!" in words else "ok ")


def test_a_provider_without_limits_is_called_that(world: World, wire: Proxy, tmp_path: Path) -> None:
    """No line speaks of a limit that it does not have."""
    mine, bad = seen(world, wire, tmp_path)
    assert bad == set()
    assert mine["batches"].says == "takes in one batch what a payment asks"
    assert mine["logs"].says == "serves the contract's logs"
    assert mine["planning"].says == "answers all that a payment is planned on"
    assert mine["finality"].says == "serves safe and finalized blocks"
    assert not {"pending", "tip", "rate", "nodes"} & set(mine)


def test_it_is_asked_as_many_calls_at_once_as_a_payment_asks(world: World, wire: Proxy, tmp_path: Path) -> None:
    """A provider that takes ten calls refuses one batch: that of eleven, which is what a payment is planned on."""
    ten = wire.on("*", crowded(10))
    seen(world, wire, tmp_path)
    assert ten.hits == 1


IMPOSSIBLE: dict[str, tuple[Bend, str]] = {
    "neither tag": (
        lambda w: w.on(BLOCK, refuse(-32602, "invalid tag"), when=tagged("safe", "finalized")),
        "finality",
    ),
    "no gas": (lambda w: w.on("eth_estimateGas", refuse(*NO_METHOD)), "dry run"),
    "no code": (lambda w: w.on("eth_getCode", refuse(-32603, "internal error")), "planning"),
    "no count": (
        lambda w: w.on("eth_getTransactionCount", refuse(-32603, "internal error"), when=tagged("pending")),
        "planning",
    ),
    "no base fee": (
        lambda w: w.on(BLOCK, wrong(lambda told: told and {k: v for k, v in told.items() if k != "baseFeePerGas"})),
        "planning",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_no_payment_can_do_without_fails(what: str, world: World, wire: Proxy, tmp_path: Path) -> None:
    """The same answers would keep a payment from being planned, so the line fails and names provider and remedy."""
    bend, about = IMPOSSIBLE[what]
    bend(wire)
    mine, bad = seen(world, wire, tmp_path)
    assert f"provider 127.0.0.1 {about}" in bad
    assert "another provider" in mine[about].remedy


def test_logs_are_asked_for_a_bounded_number_of_times(world: World, wire: Proxy, tmp_path: Path) -> None:
    """However short the ranges are that it grants: what a whole proof takes is reckoned, not tried."""
    wire.on(LOGS, ranged(1))
    seen(world, wire, tmp_path)
    assert wire.asked(LOGS) == LOG_QUESTIONS


@pytest.mark.parametrize(
    ("most", "asked", "spent_ms", "whole", "says"),
    [
        (None, 18, 900, True, ""),
        (None, 18, 60_000, True, ""),
        (None, 4, 8_000, False, "{proof} takes about 2 passes, with 18 questions: kept to"),
        (5_000, 18, 900, True, "5000 {range}{proof} takes one pass, with 18 questions: kept to"),
        (2_000, 20, 3_000, False, "2000 {range}{proof} takes one pass, with 45 questions: kept to"),
        (10, 20, 3_000, False, "10 {range}{proof} takes about 68 passes, with 9000 questions: kept to"),
        (10, 20, 20, False, "10 {range}{proof} takes about 36 passes, with 9000 questions: kept to"),
        (10, 1, 8_000, False, "10 {range}{proof} takes about 3000 passes, with 9000 questions: kept to"),
        (4, 20, 20, False, "warning: 4 {range}a proof over 90000 blocks would take 22500 questions, {never}"),
        (2, 20, 20, False, "warning: 2 {range}a proof over 90000 blocks would take 45000 questions, {never}"),
    ],
)
def test_how_many_passes_a_proof_takes_follows_from_range_and_pace(
    most: int | None, asked: int, spent_ms: int, says: str, *, whole: bool, world: World
) -> None:
    """A pass has 250 questions and 20 seconds, and three questions at the least."""
    piece = Piece(0, 0, (0, b""), (), asked, spent_ms)
    chain = _chain(load(world.environment() | environ()), None)
    words = {
        "range": "blocks of logs a question: ",
        "proof": "a proof of non-payment over 90000 blocks",
        "never": f"more than the 20000 that are ever asked; {chain.lost}",
    }
    assert _reach(piece, most, chain, whole=whole) == (says.format(**words) or "serves the contract's logs")


def test_the_longest_proof_is_that_of_the_longest_charge(world: World) -> None:
    """Two days, or less where the settings allow for less; and two hours below the block it was planned on."""
    assert longest(172_800, 2) == LONGEST
    for own, blocks in ((environ(), LONGEST), (environ(rails__coinbase__life_max_s="7200"), 7_200)):
        assert _chain(load(world.environment() | own), None).blocks == blocks
