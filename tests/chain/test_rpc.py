"""What does the JSON-RPC client make of providers that answer out of order, too much, too slowly, or not at all?"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.client import client_of
from tests.world.stand import always
from topup.chain import rpc as transport
from topup.chain.rpc import BYTES_MAX, Nonsense, Query, Rpc, RpcError, count, quantity, revert_data, unhex, unhexed
from topup.domain.errors import ChainUnknown
from topup.sandbox.http import Handler, Raw, Request, Response

T = TypeVar("T")
KEY = "s3cr3t-key"
QUERIES: list[Query] = [("eth_chainId", []), ("eth_blockNumber", []), ("eth_getBalance", ["0x00", "latest"])]
Items = list[dict[str, Any]]


def against(handler: Handler, act: Callable[[Rpc], Awaitable[T]], *, timeout_s: float = 5) -> T:
    """Do something with a client of a provider that answers by this handler; its URL holds a key."""

    async def done() -> T:
        async with client_of(handler, f"/v2/{KEY}?token={KEY}", timeout_s) as rpc:
            return await act(rpc)

    return asyncio.run(done())


def saying(body: bytes, status: int = 200) -> Handler:
    async def handler(_: Request) -> Response:
        return Response(status, body)

    return handler


def answering(change: Callable[[Items], Any]) -> Handler:
    """A provider that echoes each question's method, with its answers changed; it knows no single questions."""

    async def handler(request: Request) -> Response:
        asked = json.loads(request.body)
        if isinstance(asked, dict):
            none = {"code": -32601, "message": "what a batch was refused with: your plan has ended"}
            return Response(200, json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": none}).encode())
        items = [{"jsonrpc": "2.0", "id": item["id"], "result": item["method"]} for item in asked]
        return Response(200, json.dumps(change(items)).encode())

    return handler


def batch(rpc: Rpc) -> Awaitable[list[Any]]:
    return rpc.batch(QUERIES)


def single(rpc: Rpc) -> Awaitable[Any]:
    return rpc.ask("eth_chainId")


def unknown(handler: Handler, act: Callable[[Rpc], Awaitable[Any]], *, timeout_s: float = 5) -> str:
    """Return what is said when no usable answer came; the key is in no part of it."""
    with pytest.raises(ChainUnknown) as error:
        against(handler, act, timeout_s=timeout_s)
    told = f"{error.value} {error.value!r} {error.value.remedy}"
    assert KEY not in told
    assert "/v2/" not in told
    assert error.value.__cause__ is None
    return str(error.value)


METHODS = [method for method, _ in QUERIES]
FAILED = {"code": 3, "message": "execution reverted", "data": "0xabcd"}


def test_answers_belong_to_questions_by_id() -> None:
    """Never by place; some providers write each id as text, and nothing can be misread in it."""
    assert against(answering(lambda items: items[::-1]), batch) == METHODS
    assert against(answering(lambda items: [{**item, "id": str(item["id"])} for item in items]), batch) == METHODS
    for id_ in (b'"0"', b"0.0"):
        assert against(saying(b'{"id":%s,"result":"0x1"}' % id_), single) == "0x1"
    assert "another question" in unknown(saying(b'{"id":0.5,"result":"0x1"}'), single)
    # A receipt that does not exist is null, which is not the same as no answer.
    assert against(answering(lambda items: [{**item, "result": None} for item in items]), batch) == [None] * 3
    # One question that failed leaves the answers of the others alone.
    change = lambda items: [items[0], {"id": items[1]["id"], "error": FAILED}, items[2]]  # noqa: E731
    first, error, last = against(answering(change), batch)
    assert (first, last) == ("eth_chainId", "eth_getBalance")
    assert isinstance(error, RpcError)
    assert (error.code, error.message, error.data) == (3, "execution reverted", b"\xab\xcd")


FOREIGN: tuple[Any, ...] = (999_999, True, None, [1], {})
NO_ITEM: tuple[Any, ...] = (5, None)
NO_LIST: tuple[Any, ...] = ([], {}, None, "text")


def instead(last: Callable[[Items], Any]) -> Callable[[Items], Any]:
    """Put something else in the last answer's place."""
    return lambda items: [*items[:-1], last(items)]


def named(id_: Any, items: Items) -> Any:
    """Name the last answer by another id."""
    return {**items[-1], "id": id_}


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [*items, items[0]],
        instead(lambda items: items[0]),
        instead(lambda items: {**items[-2], "id": str(items[-2]["id"])}),
        instead(lambda items: {**items[-1], "id": f"0{items[-1]['id']}"}),
        *(instead(partial(named, id_)) for id_ in FOREIGN),
        instead(lambda items: {"id": items[-1]["id"]}),
        *(instead(always(none)) for none in NO_ITEM),
        *(always(none) for none in NO_LIST),
    ],
)
def test_an_incomplete_batch_is_no_answer(change: Callable[[Items], Any]) -> None:
    """Missing, doubled, foreign or nameless answers: nothing of the batch is used."""
    assert unknown(answering(change), batch).startswith("127.0.0.1 ")


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items[:-1],
        lambda items: items[0],
        lambda _: {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": "internal error"}},
    ],
)
def test_a_batch_that_is_refused_without_a_reason_is_asked_singly(change: Callable[[Items], Any]) -> None:
    """What is refused alone as well is an error in its place, with the provider's words."""
    told = against(answering(change), batch)
    assert all(isinstance(one, RpcError) and "your plan has ended" in one.message for one in told)


GARBAGE: dict[str, tuple[bytes, ...]] = {
    "HTTP 200 without JSON": (b"", b"{", b"\xff\xfe"),
    "nested more than 64 deep": (b"[" * 100_000, b'{"id":0,"result":' + b"[" * 100 + b"]" * 100 + b"}"),
    "a number of 5000 characters": (b'{"id":1,"result":' + b"9" * 5000 + b"}",),
    "another question": (b"5", b"null", b"[]", b'{"id":77,"result":1}', b'{"id":"77","result":1}'),
    "a name given twice": (b'{"id":0,"result":"0x1","result":"0x2"}',),
    "neither result nor error": (b'{"id":null}',),
}


@pytest.mark.parametrize(("words", "bodies"), GARBAGE.items(), ids=GARBAGE)
def test_garbage_is_no_answer(words: str, bodies: tuple[bytes, ...]) -> None:
    """Whatever is not an answer to the question asked is told in one sentence, without the URL."""
    for body in bodies:
        assert words in unknown(saying(body), single), body[:99]


def test_a_deeply_nested_answer_does_not_end_the_process() -> None:
    """The libraries that sign raise Python's recursion limit so far that the C stack would overflow; it is put back."""
    daemon = "import topup.chain.contract_chain, topup.signers.local, json; json.loads('[' * 1_000_000)"
    done = subprocess.run([sys.executable, "-c", daemon], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RecursionError" in done.stderr


def test_what_is_told_of_an_error() -> None:
    """Providers send errors with any HTTP status: the object is what is read, and what it says has a bound."""
    assert refused("rate limited", 429) == "rate limited"
    assert len(refused("x" * 10_000)) == 300, "it goes into log and ledger"
    # Some providers quote the address they were asked at.
    told = refused(f"limit reached for https://127.0.0.1/v2/{KEY}?token={KEY}")
    assert KEY not in told
    assert "limit reached" in told
    # Nothing that stands where errors stand is taken for a result.
    malformed: list[Any] = ["text", 5, [], {}, {"code": "x"}, {"message": None}, {"message": ["a"]}, True]
    for error in malformed:
        with pytest.raises((RpcError, ChainUnknown)):
            against(saying(json.dumps({"id": None, "error": error}).encode()), single)


def refused(message: str, status: int = 200) -> str:
    """Return what is told of an error object with this message."""
    body = json.dumps({"id": None, "error": {"code": -32005, "message": message}}).encode()
    with pytest.raises(RpcError) as error:
        against(saying(body, status), single)
    return str(error.value)


def test_an_oversized_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than any honest answer has are not kept."""
    monkeypatch.setattr(transport, "BODY_BYTES_MAX", 1000)
    assert "more than 1000 bytes" in unknown(saying(b" " * 1001 + b'{"id":null,"result":1}'), single)


def test_a_trickle_ends_at_the_deadline() -> None:
    """A byte now and then would outlast any time-out between bytes; the whole answer has a deadline."""

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            for _byte in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            return

    async def handler(_: Request) -> Raw:
        return Raw(trickle)

    assert unknown(handler, single, timeout_s=0.2) == "127.0.0.1 did not answer within 0.2 s"


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize("said", [b"", OK[:24], OK + b"{", b"SSH-2.0\r\n\r\n"])
def test_a_broken_connection_is_no_answer(said: bytes) -> None:
    """Cut before, within and after the head, or no HTTP at all."""

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    async def handler(_: Request) -> Raw:
        return Raw(cut)

    assert "127.0.0.1: " in unknown(handler, single)


def test_a_redirect_is_not_followed() -> None:
    """The key would travel to wherever the provider points; and nothing packed is asked for."""
    followed = []

    async def handler(request: Request) -> Response:
        followed.append((request.path, request.headers["accept-encoding"]))
        return Response(302, b"", {"location": "/elsewhere"})

    assert "HTTP 302" in unknown(handler, single)
    assert followed == [(f"/v2/{KEY}", "identity")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "ftp://127.0.0.1/"])
async def test_an_unreachable_provider_is_named_by_its_host(url: str) -> None:
    """Neither a refused connection nor a bad address shows the key."""
    rpc = Rpc(url + KEY, timeout_s=5)
    with pytest.raises(ChainUnknown) as error:
        await rpc.ask("eth_chainId")
    await rpc.close()
    assert KEY not in f"{error.value} {error.value!r}"


def test_questions_may_overlap() -> None:
    """Two questions at once each get their own answer, whichever comes first."""

    async def handler(request: Request) -> Response:
        asked = json.loads(request.body)
        await asyncio.sleep(0.05 if asked["method"] == "slow" else 0)
        return Response(200, json.dumps({"id": asked["id"], "result": asked["method"]}).encode())

    async def both(rpc: Rpc) -> list[Any]:
        return list(await asyncio.gather(rpc.ask("slow"), rpc.ask("fast"), rpc.ask("slow")))

    assert against(handler, both) == ["slow", "fast", "slow"]


DATA: dict[bytes | None, tuple[object, ...]] = {
    b"": ("0x",),
    b"\xab\xcd": (
        *("0xabcd", "Reverted 0xabcd", {"data": "0xabcd"}, {"result": "0xabcd"}),
        *({"originalError": {"data": "0xabcd", "code": 3}}, {"data": {"originalError": {"data": "0xabcd"}}}),
    ),
    b"\x08\xc3\x79\xa0": ("0x" + "08c379a0" * 10_000,),
    None: (None, "no data", "0xabc", 5, [], {}),
}


def test_revert_data_is_found_where_providers_put_it() -> None:
    """Hex, words around it, and objects around that; anything else is no data."""
    for expected, told in DATA.items():
        for data in told:
            assert revert_data(data) == expected, data
    # However deep objects are nested, looking into them ends.
    nested: object = "0xabcd"
    for _ in range(100_000):
        nested = {"data": nested}
    assert revert_data(nested) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("0x19afAF", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "result", "x"]), inner),
    max_leaves=5,
)


@given(JSON)
def test_values_are_read_or_unknown(value: object) -> None:
    """Reading a quantity, bytes or revert data ends in a value of the right type or in ChainUnknown."""
    found = revert_data(value)
    assert found is None or isinstance(found, bytes)
    for read, kind in ((quantity, int), (unhex, bytes)):
        with contextlib.suppress(ChainUnknown):
            assert isinstance(read(value, "it"), kind)


@given(st.integers(0, 2**256 - 1))
def test_a_quantity_is_read_exactly(number: int) -> None:
    """Every unsigned word comes back as it was, in either case."""
    assert quantity(hex(number), "it") == quantity(hex(number).upper(), "it") == number


@given(st.binary(max_size=80))
def test_bytes_are_read_exactly(raw: bytes) -> None:
    """Bytes are what they are, in either case; no byte may be missing or be too many where a number of them is due."""
    for text in ("0x" + raw.hex(), "0X" + raw.hex().upper()):
        assert unhex(text, "it") == unhexed(text) == unhex(text, "it", len(raw)) == raw
        with pytest.raises(Nonsense):
            unhex(text, "it", len(raw) + 1)


def test_no_more_than_256_bits_and_a_million_bytes_are_read() -> None:
    """What is longer was sent to be long: the provider is told apart from one that lacks something."""
    for read, long in ((quantity, "0x" + "f" * 4000), (unhex, "0x" + "00" * (BYTES_MAX + 1)), (count, hex(2**53))):
        with pytest.raises(Nonsense) as error:
            read(long, "the thing")
        assert str(error.value).startswith("the thing ")
        assert len(str(error.value)) < 150
    for read in (quantity, count, unhex):
        with pytest.raises(ChainUnknown) as missing:
            read(None, "the thing")
        assert not isinstance(missing.value, Nonsense)


def test_what_is_no_quantity() -> None:
    """A sign, white space and underscores are no hexadecimal digits, though int() takes some of them."""
    for text in ("0x", "0x-1", "0x 1", "0x_1", "0x1_0", "-0x1", "10", "0x1\n", "0x" + "f" * 65):
        with pytest.raises(ChainUnknown):
            pytest.fail(f"{text!r} is {quantity(text, 'it')}")
    # Some nodes write zero as 0x; that is read where a balance, a nonce or a fee is due, and nowhere else.
    assert (quantity("0x", "it", bare=True), count("0x", "it", bare=True)) == (0, 0)
    for read in (quantity, count):
        with pytest.raises(ChainUnknown) as error:
            read("0x", "it")
        assert not isinstance(error.value, Nonsense), "a habit of honest nodes"
