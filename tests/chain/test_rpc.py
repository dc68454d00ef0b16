"""What does the JSON-RPC client make of providers that answer out of order, too much, too slowly, or not at all?"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.client import client_of
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


def test_a_batch_may_be_answered_in_any_order() -> None:
    """Answers belong to questions by id, never by place."""
    assert against(answering(lambda items: items[::-1]), batch) == [method for method, _ in QUERIES]


def test_ids_may_be_written_as_text() -> None:
    """Some providers write each id as text; nothing can be misread in it."""
    change = lambda items: [{**item, "id": str(item["id"])} for item in items]  # noqa: E731
    assert against(answering(change), batch) == [method for method, _ in QUERIES]
    assert against(saying(b'{"id":"0","result":"0x1"}'), single) == "0x1"
    assert against(saying(b'{"id":0.0,"result":"0x1"}'), single) == "0x1"
    assert "another question" in unknown(saying(b'{"id":0.5,"result":"0x1"}'), single)


def test_an_error_takes_its_place_in_a_batch() -> None:
    """One question that failed leaves the answers of the others alone."""
    failed = {"code": 3, "message": "execution reverted", "data": "0xabcd"}
    change = lambda items: [items[0], {"id": items[1]["id"], "error": failed}, items[2]]  # noqa: E731
    first, error, last = against(answering(change), batch)
    assert (first, last) == ("eth_chainId", "eth_getBalance")
    assert isinstance(error, RpcError)
    assert (error.code, error.message, error.data) == (3, "execution reverted", b"\xab\xcd")


def test_an_answer_of_null_is_an_answer() -> None:
    """A receipt that does not exist is null, which is not the same as no answer."""
    told = against(answering(lambda items: [{**item, "result": None} for item in items]), batch)
    assert told == [None, None, None]


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [*items[:-1], items[0]],
        lambda items: [*items, items[0]],
        lambda items: [*items[:-1], {**items[-1], "id": 999_999}],
        lambda items: [*items[:-1], {**items[-2], "id": str(items[-2]["id"])}],
        lambda items: [*items[:-1], {**items[-1], "id": f"0{items[-1]['id']}"}],
        lambda items: [*items[:-1], {**items[-1], "id": True}],
        lambda items: [*items[:-1], {**items[-1], "id": None}],
        lambda items: [*items[:-1], {**items[-1], "id": [1]}],
        lambda items: [*items[:-1], {**items[-1], "id": {}}],
        lambda items: [*items[:-1], {"id": items[-1]["id"]}],
        lambda items: [*items[:-1], 5],
        lambda items: [*items[:-1], None],
        lambda _: [],
        lambda _: {},
        lambda _: None,
        lambda _: "text",
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


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 200, "HTTP 200 without JSON"),
        (b"<html>502 Bad Gateway</html>", 502, "HTTP 502 without JSON"),
        (b"{", 200, "without JSON"),
        (b"\xff\xfe", 200, "without JSON"),
        (b"[" * 100_000, 200, "nested more than 64 deep"),
        (b'{"id":1,"result":' + b"9" * 5000 + b"}", 200, "a number of 5000 characters"),
        (b"5", 200, "another question"),
        (b"null", 200, "another question"),
        (b"[]", 200, "another question"),
        (b'{"id":77,"result":1}', 200, "another question"),
        (b'{"id":"77","result":1}', 200, "another question"),
        (b'{"id":0,"result":"0x1","result":"0x2"}', 200, "a name given twice"),
        (b'{"id":0,"result":' + b"[" * 100 + b"]" * 100 + b"}", 200, "nested more than 64 deep"),
        (b'{"id":null}', 200, "neither result nor error"),
        (b"", 302, "HTTP 302 without JSON"),
    ],
)
def test_garbage_is_no_answer(body: bytes, status: int, words: str) -> None:
    """Whatever is not an answer to the question asked is told in one sentence, without the URL."""
    assert words in unknown(saying(body, status), single)


def test_a_deeply_nested_answer_does_not_end_the_process() -> None:
    """The libraries that sign raise Python's recursion limit so far that the C stack would overflow; it is put back."""
    daemon = "import topup.chain.contract_chain, topup.signers.local, json; json.loads('[' * 1_000_000)"
    done = subprocess.run([sys.executable, "-c", daemon], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RecursionError" in done.stderr


@pytest.mark.parametrize("error", ["text", 5, [], {}, {"code": "x"}, {"message": None}, {"message": ["a"]}, True])
def test_a_malformed_error_is_still_an_error(error: Any) -> None:
    """Nothing that stands where errors stand is taken for a result."""
    with pytest.raises((RpcError, ChainUnknown)):
        against(saying(json.dumps({"id": None, "error": error}).encode()), single)


def refused(message: str, status: int = 200) -> str:
    """Return what is told of an error object with this message."""
    body = json.dumps({"id": None, "error": {"code": -32005, "message": message}}).encode()
    with pytest.raises(RpcError) as error:
        against(saying(body, status), single)
    return str(error.value)


def test_an_error_object_counts_whatever_the_status() -> None:
    """Providers send errors with any HTTP status; the object is what is read."""
    assert refused("rate limited", 429) == "rate limited"


def test_a_long_error_is_cut() -> None:
    """A provider's text goes into log and ledger: it has a bound."""
    assert len(refused("x" * 10_000)) == 300


def test_an_error_that_repeats_our_url_does_not_show_its_key() -> None:
    """Some providers quote the address they were asked at."""
    told = refused(f"limit reached for https://127.0.0.1/v2/{KEY}?token={KEY}")
    assert KEY not in told
    assert "limit reached" in told


def test_an_oversized_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than any honest answer has are not kept."""
    monkeypatch.setattr(transport, "BODY_BYTES_MAX", 1000)
    assert "more than 1000 bytes" in unknown(saying(b" " * 1001 + b'{"id":null,"result":1}'), single)


def test_a_packed_answer_is_unpacked() -> None:
    """Some providers pack what nobody asked them to pack; what it holds is an answer like any other."""

    async def handler(request: Request) -> Response:
        asked = json.loads(request.body)
        assert request.headers["accept-encoding"] == "identity"
        packed = gzip.compress(json.dumps([{"id": q["id"], "result": q["method"]} for q in asked]).encode())
        return Response(200, packed, {"content-encoding": "gzip"})

    assert against(handler, batch) == [method for method, _ in QUERIES]


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


def test_silence_ends_at_the_deadline() -> None:
    """A provider that takes the question and says nothing."""

    async def silent(_: Request) -> Response:
        await asyncio.sleep(5)
        return Response()

    assert unknown(silent, single, timeout_s=0.2) == "127.0.0.1 did not answer within 0.2 s"


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
    """The key would travel to wherever the provider points."""
    followed = []

    async def handler(request: Request) -> Response:
        followed.append(request.path)
        return Response(302, b"", {"location": "/elsewhere"})

    assert "HTTP 302" in unknown(handler, single)
    assert followed == [f"/v2/{KEY}"]


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


def test_a_batch_counts_as_one_request() -> None:
    """What is paid for by request is counted by request."""

    async def counted(rpc: Rpc) -> int:
        await rpc.batch(QUERIES)
        return rpc.requests

    assert against(answering(lambda items: items), counted) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0x", b""),
        ("0xabcd", b"\xab\xcd"),
        ("Reverted 0xabcd", b"\xab\xcd"),
        ({"data": "0xabcd"}, b"\xab\xcd"),
        ({"originalError": {"data": "0xabcd", "code": 3}}, b"\xab\xcd"),
        ({"result": "0xabcd"}, b"\xab\xcd"),
        ("0x" + "08c379a0" * 10_000, b"\x08\xc3\x79\xa0"),
        (None, None),
        ("no data", None),
        ("0xabc", None),
        (5, None),
        ([], None),
        ({}, None),
    ],
)
def test_revert_data_is_found_where_providers_put_it(data: object, expected: bytes | None) -> None:
    """Hex, words around it, and objects around that; anything else is no data."""
    assert revert_data(data) == expected


def test_revert_data_within_endless_objects_is_none() -> None:
    """However deep objects are nested, looking into them ends."""
    nested: object = "0xabcd"
    for _ in range(100_000):
        nested = {"data": nested}
    assert revert_data(nested) is None
    assert revert_data({"data": {"originalError": {"data": "0xabcd"}}}) == b"\xab\xcd"


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


def test_a_bare_prefix_is_zero_only_where_it_is_read_so() -> None:
    """Some nodes write zero as 0x; that is read where a balance, a nonce or a fee is due, and nowhere else."""
    assert (quantity("0x", "it", bare=True), count("0x", "it", bare=True)) == (0, 0)
    for read in (quantity, count):
        with pytest.raises(ChainUnknown) as error:
            read("0x", "it")
        assert not isinstance(error.value, Nonsense), "a habit of honest nodes"


@pytest.mark.parametrize("text", ["0x", "0x-1", "0x 1", "0x_1", "0x1_0", "-0x1", "10", "0x1\n", "0x" + "f" * 65])
def test_what_python_would_forgive_is_no_quantity(text: str) -> None:
    """A sign, white space and underscores are no hexadecimal digits, though int() takes some of them."""
    with pytest.raises(ChainUnknown):
        quantity(text, "it")
