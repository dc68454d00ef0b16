"""Which answers of providers and APIs have stopped honest software, or made it pay again, without a lie in them?

They are late, large, misspelt, of another's hand, or absent where they were expected; the stories are told as those of
tests/stories.py are, and stand in the same table.

    result = STORIES["edge_page_instead_of_an_answer"](directory)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.house import MINUTE_S, NONCE, SEND, House, Result
from tests.proxy import crowded, packed, refuse, rewrite, silent, status, wrong
from tests.stories import STORIES, _answers, _both, story, told_in

__all__ = ["STORIES"]

BLOCK: Final = "eth_getBlockByNumber"
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


# -- providers --------------------------------------------------------------------------------------------------------


@story(23, trouble=ten_in_a_batch)
async def _ten_in_a_batch(house: House) -> None:
    """A sole provider takes ten calls in a batch."""
    topup = await house.ends()
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("ten: learnt")


@story(23, trouble=no_batches)
async def _no_batches(house: House) -> None:
    """A sole provider takes no batch at all."""
    topup = await house.ends()
    house.hold(len(topup.charges) == len(topup.out) == 1, "something else was bought or signed")
    house.note("none: asked one by one")


@told_in(23, no_batches)
def batches_refused(directory: Path) -> Result:
    """A sole provider takes ten calls in a batch, or none: what it grants is learnt, and the payment made."""
    return _both("batches_refused", directory, _ten_in_a_batch, _no_batches)


def _patient(house: House) -> None:
    """Let everybody be heard: the moment for whoever is slower never ends, so that no verdict depends on speed."""

    async def never(_: float) -> None:
        await asyncio.Event().wait()

    rail: Any = house.stage.works.rail()
    rail._chain._providers._sleep = never


def _aside(house: House) -> list[tuple[str, str]]:
    return [(event.provider, event.why) for event in house.named("provider_set_aside")]


def _named(house: House) -> None:
    """Hold the first provider, and nobody else, to be set aside, in words of bounded length."""
    odd = house.wires[0].url.partition("://")[2].partition("/")[0]
    aside = _aside(house)
    house.hold(bool(aside) and all(who.startswith(odd) or odd in who for who, _ in aside), f"set aside: {aside}")
    told = [event.detail for event in house.named("provider_set_aside")]
    house.hold(all(len(one) <= 500 and one.isprintable() for one in told), f"said: {told!r:.300}")


@story(24, providers=3, settings={"chain__timeout_s": "1"})
async def slow_provider(house: House) -> None:
    """One of three never answers within its time: two that agree are enough, and the slow one is named."""
    house.wires[0].on("*", silent())
    topup = await house.ends()
    house.hold(len(topup.out) == 1, "a second transaction was signed")
    odd = house.wires[0].url.partition("://")[2].partition("/")[0]
    house.hold(any(odd in who for who, _ in _aside(house)), f"set aside: {_aside(house)}")
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
    """One of three answers each dry run with a revert whose text is a megabyte that is no UTF-8."""
    _patient(house)
    text = b"\xff" * LONG
    data = "0x08c379a0" + f"{32:064x}{len(text):064x}" + (text + bytes(-len(text) % 32)).hex()
    refused = refuse(3, "execution reverted", data=data)
    house.wires[0].on("eth_call", refused, when=lambda asked: "from" in asked[0])
    await house.ends()
    said = [str(vars(event)) for event in house.told]
    house.hold(max(map(len, said)) < 5_000, f"an event of {max(map(len, said))} characters")
    odd = house.wires[0].url.partition("://")[2].partition("/")[0]
    dissent = [event.detail for event in house.named("providers_disagree")]
    house.hold(bool(dissent) and all(one.startswith(f"{odd} says") for one in dissent), f"said: {dissent}")
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


@story(29, trouble=api_behind_an_edge)
async def _api_page(house: House) -> None:
    """The edge before the API answers with its own page, 403, for five minutes."""
    topup = await house.ends()
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.hold(not house.named("key_unfit"), "a page was taken for a refused key")
    house.note("a page is no refusal")


@story(29, trouble=byte_order_mark)
async def _api_byte_order_mark(house: House) -> None:
    """Each of the API's documents begins with a byte order mark."""
    topup = await house.ends()
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.note("a byte order mark is none of the document")


@story(29)
async def _api_gzip(house: House) -> None:
    """The API packs its answers with gzip, which nobody asked for."""
    house.api.on("*", packed())
    topup = await house.ends()
    house.hold(len(topup.charges) == 1, "another charge was asked for")
    house.note("packed unasked: unpacked")


@told_in(29, api_behind_an_edge)
def api_answers_oddly(directory: Path) -> Result:
    """The API answers a page of its edge, a byte order mark, or gzip unasked: unknown or read as meant, paid once."""
    return _both("api_answers_oddly", directory, _api_page, _api_byte_order_mark, _api_gzip)
