"""Is every answer of the API read exactly, or turned into the error that says what it means?

Over real sockets: the sandbox's gateway for what it can do, a server of ten lines for the rest.
"""

import gzip
import json
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import formatdate
from typing import Any

import pytest

from tests.world.builders import NOW_MS, NOW_S, PAYER, WALLET, operator
from topup.domain.coinbase_charge import parse
from topup.domain.credits import Reading
from topup.domain.demand import Request
from topup.domain.errors import (
    ApiError,
    ApiGone,
    ApiLimited,
    ApiRejected,
    ApiUnauthorized,
    ApiUnknown,
)
from topup.domain.money import Usd
from topup.ports.account import Api
from topup.sandbox import http
from topup.sandbox.gateway import Account, Gateway
from topup.sandbox.wire import WIRE_FAULTS
from topup.sellers.openrouter import OpenRouter, charge_body
from topup.wire.exchange import BODY_BYTES_MAX, Exchange

# Only what hangs runs into a time-out; a busy machine must not.
PATIENT_S = 20.0
SHORT_S = 0.3
HANGS = ("time-out", "trickle")


@asynccontextmanager
async def client(url: str, key: str, timeout_s: float = PATIENT_S) -> AsyncIterator[OpenRouter]:
    exchange = Exchange(url, timeout_s=timeout_s)
    try:
        yield OpenRouter(exchange, key, now_ms=lambda: NOW_MS)
    finally:
        await exchange.close()


@asynccontextmanager
async def scene(
    total: str = "100.5", usage: str = "25.75", timeout_s: float = PATIENT_S
) -> AsyncIterator[tuple[Gateway, OpenRouter]]:
    """A gateway with an account, and a client with its management key."""
    gateway = Gateway(Account(lambda: NOW_MS, Decimal(total), Decimal(usage)), operator=operator(1))
    gateway.wire.trickle_seconds = 0.02
    await gateway.start()
    try:
        async with client(gateway.url, gateway.management_key, timeout_s) as api:
            yield gateway, api
    finally:
        await gateway.stop()


@asynccontextmanager
async def says(*answers: http.Response) -> AsyncIterator[OpenRouter]:
    """A client of a server that gives these answers in turn, the last one for ever."""
    left = list(answers)

    async def answer(_: http.Request) -> http.Response:
        return left.pop(0) if len(left) > 1 else left[0]

    server = http.Server(answer)
    await server.start()
    try:
        async with client(server.url, KEY) as api:
            yield api
    finally:
        await server.stop()


KEY = "sk-or-v1-" + "5ec7e7" * 10
REQUEST = Request(Usd.of("12.50"), WALLET, 8453)


def credits_of(total: str, used: str = "1") -> http.Response:
    return http.Response(200, f'{{"data":{{"total_credits":{total},"total_usage":{used}}}}}'.encode())


def refusal(status: int, message: Any = "no", headers: dict[str, str] | None = None) -> http.Response:
    body = json.dumps({"error": {"code": status, "message": message}}).encode()
    return http.Response(status, body, {"content-type": "application/json", **(headers or {})})


async def failed(call: Coroutine[Any, Any, Any]) -> ApiError:
    with pytest.raises(ApiError) as error:
        await call
    return error.value


# -- numbers ----------------------------------------------------------------------------------------------------


DIGITS = {
    **{text: text for text in ("0.1", "100.1000000000000000055511151231", "123456789012345.123456789", "0", "-3.5")},
    "999999999999999": "999999999999999",
    "1E+2": "100",
    "1e-9": "0.000000001",
    "-0.0": "0",
}


async def test_a_number_means_its_digits() -> None:
    """No float on the way: 0.1 is a tenth, and digits a double cannot hold are kept."""
    async with says(*map(credits_of, DIGITS)) as api:
        for exact in DIGITS.values():
            assert (await api.credits()).total_credits == Usd.of(exact)
    # They arrive with the moment the question was asked.
    async with scene("100.500000001", "25.75") as (_, api):
        port: Api = api
        assert await port.credits() == Reading(Usd.of("100.500000001"), Usd.of("25.75"), NOW_MS)


@pytest.mark.parametrize(
    "text",
    [
        *('"100"', "NaN", "-NaN", "Infinity", "-Infinity", "null", "true", "[]", "{}", "01", "1_0", "0x10", ".5", "+1"),
        *("1e15", "1e400", "1e-31", "1e999999999999999999999", "1e-999999999999999999999", "9" * 16, "9" * 5000),
    ],
)
async def test_what_is_no_amount_is_unknown(text: str) -> None:
    """Strings, NaN, null and numbers no account can have: nothing is concluded from them, whichever total it is."""
    async with says(credits_of(text), credits_of("1", text)) as api:
        for _ in range(2):
            assert type(await failed(api.credits())) is ApiUnknown


# -- failures ---------------------------------------------------------------------------------------------------

MEANING: dict[str, type[ApiError]] = {
    **dict.fromkeys(WIRE_FAULTS, ApiUnknown),
    "gone-410": ApiGone,
    "unauthorized-401": ApiUnauthorized,
    "forbidden-403": ApiUnauthorized,
    "rate-limited-429": ApiLimited,
    "unavailable-503": ApiLimited,
}
CALLS: dict[str, Callable[[OpenRouter], Coroutine[Any, Any, Any]]] = {
    "credits": lambda api: api.credits(),
    "key": lambda api: api.key(),
    "coinbase": lambda api: api.charge(REQUEST),
    "activity": lambda api: api.activity(),
    "keys": lambda api: api.keys(),
}
LISTS = ("activity", "keys")


@pytest.mark.parametrize("place", CALLS)
@pytest.mark.parametrize("name", sorted(WIRE_FAULTS))
async def test_each_fault_of_the_wire_has_its_meaning(name: str, place: str) -> None:
    """At each endpoint each fault becomes one class of error, without the key, and then it works again.

    One call is one request, whatever goes wrong: when to ask again is decided above. A redirect is not followed: the
    server it points at is never asked.
    """
    async with scene(timeout_s=SHORT_S if name in HANGS else PATIENT_S) as (gateway, api):
        gateway.wire.oversized_bytes = (20 if place in LISTS else 4) * 1024 * 1024
        gateway.switch_on(place, name, times=1)
        error = await failed(CALLS[place](api))
        assert type(error) is MEANING[name], error
        assert (gateway.count(place), api.requests) == (1, 1)
        assert gateway.elsewhere.requests == []
        assert gateway.management_key not in "".join(traceback.format_exception(error))
        assert len(str(error)) < 500
        api._exchange._timeout_s = PATIENT_S
        await CALLS[place](api)


# Every documented status, and some that are not: its class, and whether waiting can help.
STATUSES = {
    (ApiRejected, False): (400, 402, 404, 405, 413, 415, 422),
    (ApiUnauthorized, False): (401, 403),
    (ApiGone, False): (410,),
    (ApiLimited, True): (429,),
    (ApiUnknown, True): (408, 409, 425, 418, 500, 502, 503, 524, 529, 201, 204, 301, 307, 308),
}


@pytest.mark.parametrize(
    ("status", "meant"), [(status, meant) for meant, statuses in STATUSES.items() for status in statuses]
)
async def test_each_status_has_its_meaning(status: int, meant: tuple[type[ApiError], bool]) -> None:
    """What an answer means is told by its status; a redirect leads nowhere."""
    async with says(refusal(status, headers={"location": "http://127.0.0.1:9/"})) as api:
        error = await failed(api.credits())
    assert (type(error), error.again) == meant


async def test_the_kind_of_key_is_told() -> None:
    """The management key is one, the ordinary key is none, and a wrong one is turned away."""
    async with scene() as (gateway, api):
        assert (await api.key()).management
        async with client(gateway.url, gateway.ordinary_key) as ordinary:
            assert not (await ordinary.key()).management
        async with client(gateway.url, "sk-or-v1-wrong") as wrong:
            assert isinstance(await failed(wrong.key()), ApiUnauthorized)
        # A refused connection says nothing about the account, and the message names no key.
        await gateway.stop()
        error = await failed(api.credits())
    assert type(error) is ApiUnknown
    assert str(error) == "/credits: the connection was refused: nothing listens there"


def at(seconds: int) -> str:
    """Return the moment so many seconds from now, as a header tells it."""
    return formatdate(NOW_S + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("after", "date", "wait_s"),
    [
        *((text, None, wait_s) for text, wait_s in (("7", 7), ("0", 0), ("999999", 3600), ("9" * 5000, 3600))),
        *((text, None, 60) for text in ("-5", "soon", "1.5", at(90), None)),
        *((at(seconds), at(0), wait_s) for seconds, wait_s in ((90, 90), (-90, 0), (10**6, 3600))),
        (at(90), "yesterday", 60),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", at(0), 60),
        (at(0), "Mon, 1 Jan 2026 " + "9" * 30 + ":00:00 GMT", 60),
    ],
    ids=str,
)
async def test_the_time_to_wait_is_read_in_both_forms(after: str | None, date: str | None, wait_s: int) -> None:
    """Seconds, or a date against the server's own clock; bounded by an hour, a minute when it cannot be read.

    A 503 that names a time asks for patience as well; one that names none is one more failure.
    """
    headers = {name: text for name, text in (("retry-after", after), ("date", date)) if text is not None}
    async with says(refusal(429, headers=headers), refusal(503, headers=headers)) as api:
        error, unavailable = await failed(api.credits()), await failed(api.credits())
    assert isinstance(error, ApiLimited)
    assert error.retry_after_s == wait_s
    assert type(unavailable) is (ApiUnknown if after is None else ApiLimited)
    assert getattr(unavailable, "retry_after_s", 60) == wait_s


MESSAGES: list[Any] = [
    *(f"Invalid API key {KEY}", "line\nbreak \x1b[31mred", "\ud800", ["a", KEY], {"k": KEY}, None, "x" * 9000),
]


async def test_what_the_api_says_of_a_refusal_is_fit_for_the_log() -> None:
    """A key it echoes is taken out, and nothing unprintable, unstorable or endless gets through."""
    async with says(*(refusal(401, message) for message in MESSAGES)) as api:
        for _ in MESSAGES:
            said = str(await failed(api.credits()))
            assert KEY not in said
            assert said.isprintable() and said.encode()
            assert len(said) < 400


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"data":null}', b'{"data":[]}', b'{"error":{}}', b"[" * 60_000, b"\xff\xfe\x00"],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("place", CALLS)
async def test_200_without_an_answer_is_unknown(place: str, body: bytes) -> None:
    """The status alone is no answer, at no endpoint; an empty list is one where a list is asked for."""
    if place in LISTS and body == b'{"data":[]}':
        body = b'{"data":{}}'
    async with says(http.Response(200, body)) as api:
        assert type(await failed(CALLS[place](api))) is ApiUnknown


@pytest.mark.parametrize("place", ["credits", "key"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"data":{"total_credits":9,"total_usage":1,"total_credits":5,"is_management_key":true}}',
        b'{"data":{"total_credits":9,"total_usage":1,"is_management_key":true,"is_management_key":true}}',
        b'{"data":{},"data":{"total_credits":9,"total_usage":1,"is_management_key":true}}',
        b'{"data":{"total_credits":9,"total_usage":1,"is_management_key":true,"a":{"b":1,"b":2}}}',
        '{"data":{"total_credits":9,"total_usage":1,"is_management_key":true}}'.encode("utf-16"),
    ],
    ids=["total", "flag", "data", "deep", "utf-16"],
)
async def test_an_answer_that_two_readers_could_read_differently_is_unknown(place: str, body: bytes) -> None:
    """A name given twice, or text in another encoding: what another reader would make of it is not known."""
    async with says(http.Response(200, body)) as api:
        assert type(await failed(CALLS[place](api))) is ApiUnknown


FIVE = credits_of("5").body
PACKED = {"content-type": "application/json", "content-encoding": "gzip"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http.Response(200, gzip.compress(FIVE), PACKED), id="what is packed unasked is unpacked"),
        pytest.param(http.Response(200, b"\xef\xbb\xbf" + FIVE), id="a byte order mark is passed over"),
        pytest.param(http.Response(200, FIVE + b" " * (BODY_BYTES_MAX - len(FIVE))), id="as large as an answer may be"),
    ],
)
async def test_an_answer_in_another_dress_is_read(answer: http.Response) -> None:
    """Nothing is lost of what it says; one byte beyond the limit is not read."""
    async with says(answer, http.Response(200, FIVE + b" " * (BODY_BYTES_MAX + 1 - len(FIVE)))) as api:
        assert (await api.credits()).total_credits == Usd.of(5)
        assert type(await failed(api.credits())) is ApiUnknown


BOMB = gzip.compress(b" " * 48 * 1024 * 1024)


@pytest.mark.parametrize(
    ("place", "answer", "peak_mb"),
    [
        pytest.param("credits", http.Response(200, BOMB, PACKED), 8, id="48 MB packed into less than 64 kB"),
        pytest.param("activity", http.Response(200, b'{"data":[' + b"{}," * 1_300_000 + b"{}]}"), 48, id="bytes"),
        pytest.param("activity", http.Response(200, b'{"data":[' + b'"a",' * 250_001 + b"{}]}"), 48, id="parts"),
    ],
)
async def test_an_answer_that_would_fill_the_memory_is_not_read(
    place: str, answer: http.Response, peak_mb: int
) -> None:
    """Of a bomb no more is unpacked than an answer may have, and a list is bounded before anything is decoded."""
    assert len(BOMB) < BODY_BYTES_MAX
    async with says(answer) as api:
        tracemalloc.start()
        try:
            error = await failed(CALLS[place](api))
            assert tracemalloc.get_traced_memory()[1] < peak_mb * 1024 * 1024
        finally:
            tracemalloc.stop()
    assert type(error) is ApiUnknown
    assert (f"more than {BODY_BYTES_MAX} bytes" if place == "credits" else "more than") in str(error)


PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>"


@pytest.mark.parametrize("place", CALLS)
@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 410, 422, 429, 500, 503])
async def test_a_page_is_not_the_apis_word(status: int, place: str) -> None:
    """What an edge writes in front of an API refuses no key, ends no endpoint and rejects no request."""
    if place in LISTS and status in (404, 410):
        return  # that there is no such list costs a statement its table, and no money
    head = {"content-type": "text/html; charset=UTF-8", "retry-after": "600"}
    for answer in (http.Response(status, PAGE, head), http.Response(status, b"\xef\xbb\xbf  " + PAGE)):
        async with says(answer) as api:
            error = await failed(CALLS[place](api))
        assert type(error) is ApiUnknown
        assert f"answered {status} with a page, not the API's answer" in str(error)
        assert "key" not in str(error).replace("/key", "")


# An answer that is none, where it is given, and how the error says so.
NO_WORD: list[tuple[int, bytes, tuple[str, ...], str]] = [
    # A status with something else behind it than the API's errors is anybody's.
    *(
        (403, body, ("credits",), "without a JSON error, not the API's answer")
        for body in (b"", b"forbidden", b"null", b'"no"', b'{"message":"no"}', b'{"error":{}}', b"[403]")
    ),
    # Some answer 200 and put an error where the answer belongs: its sentence is passed on, without our key.
    (
        200,
        b'{"error":{"code":502,"message":"billing is being migrated, %s may retry"}}' % KEY.encode(),
        tuple(CALLS),
        "billing is being migrated, … may retry",
    ),
    # What is missing and what is null are told apart, in the words of JSON.
    (200, b'{"data":{"total_credits":5}}', ("credits",), "total_usage is missing, not an amount"),
    (200, b'{"data":{"total_credits":5,"total_usage":null}}', ("credits",), "total_usage is null, not an amount"),
]


@pytest.mark.parametrize(("status", "body", "places", "words"), NO_WORD)
async def test_an_answer_that_is_none_is_told_in_words(
    status: int, body: bytes, places: tuple[str, ...], words: str
) -> None:
    """It is unknown what it means, and the error says what stood there."""
    async with says(http.Response(status, body, {"content-type": "application/json"})) as api:
        for place in places:
            error = await failed(CALLS[place](api))
            assert type(error) is ApiUnknown
            assert words in str(error)


# -- the key ----------------------------------------------------------------------------------------------------


NO_WORD_OF_KIND: list[dict[str, Any]] = [
    *({"is_management_key": value} for value in ("true", 1, None)),
    *({}, {"is_provisioning_key": True, "label": "old"}, {"is_management_key": None, "is_provisioning_key": True}),
]


async def test_a_key_is_proven_only_by_a_plain_yes_or_no() -> None:
    """Anything but true or false is no proof, nor is the deprecated flag alone; what is missing is named."""

    def told(data: dict[str, Any]) -> http.Response:
        return http.Response(200, json.dumps({"data": data}).encode())

    for kind in (True, False):
        async with says(told({"is_management_key": kind, "is_provisioning_key": True})) as api:
            assert (await api.key()).management is kind
    for data in NO_WORD_OF_KIND:
        async with says(told(data)) as api:
            error = await failed(api.key())
        assert type(error) is ApiUnknown
        assert str(error).endswith("is_management_key is missing"), data


# -- asking for a charge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "text"),
    [("12.5", b"12.5"), ("12.50", b"12.5"), ("1.1", b"1.1"), ("1E+2", b"100"), ("25", b"25")],
)
async def test_the_amount_is_written_from_its_digits(amount: str, text: bytes) -> None:
    """What the gateway received, byte for byte: a JSON number without exponent or float, the wallet and the chain.

    What it answered can be decoded as a charge for that amount.
    """
    async with scene() as (gateway, api):
        demand = parse(await api.charge(Request(Usd.of(amount), WALLET, 8453)))
        (seen,) = gateway.requests
        assert (seen.method, seen.path, seen.key) == ("POST", "/api/v1/credits/coinbase", "management")
        assert seen.body == b'{"amount": ' + text + b', "sender": "' + PAYER.lower().encode() + b'", "chain_id": 8453}'
        assert demand.intent.total == Usd.of(amount).times(Decimal("1.05")).usdc_up()


@pytest.mark.parametrize(("amount", "text"), [("0.1", b"0.1"), ("1E-7", b"0.0000001")])
def test_an_amount_too_small_to_be_sold_is_written_as_well(amount: str, text: bytes) -> None:
    """A tenth is a tenth, and nothing small is written with an exponent."""
    assert charge_body(Request(Usd.of(amount), WALLET, 8453)).startswith(b'{"amount": ' + text + b", ")


# -- usage ------------------------------------------------------------------------------------------------------

DAY_MS = 86_400_000


async def test_the_days_of_the_gateway_sum_to_what_its_totals_moved_by() -> None:
    """By model and by key each day comes to the usage of that day, to the billionth; today only by key, so far."""
    clock = [NOW_MS]
    account = Account(lambda: clock[0], burn_usd_per_hour=Decimal("0.4321"))
    gateway = Gateway(account)
    gateway.conduct.idle_keys, gateway.conduct.disabled_keys = 250, frozenset({"batch"})
    await gateway.start()
    try:
        async with client(gateway.url, gateway.management_key) as api:
            totals: dict[str, Decimal] = {}
            for _ in range(40):
                midnight = (clock[0] // DAY_MS + 1) * DAY_MS
                day = formatted(clock[0])
                begun = account.used_at(clock[0])
                clock[0] = midnight
                totals[day] = account.used_at(midnight) - begun
            midnight, clock[0] = clock[0], clock[0] + 5 * 3_600_000 + 1
            told = await api.activity()
            pages = [await api.keys(offset) for offset in (0, 100, 200)]
            assert [more for _, more in pages] == [True, True, False]
            keys = [key for page, _ in pages for key in page]
            assert len(keys) == len({key.hash for key in keys}) == 253, "three pages"
            by_key = [await api.activity(key_hash=key.hash) for key in keys if key.nano]
    finally:
        await gateway.stop()
    days = sorted({a.day.isoformat() for a in told})
    assert (len(days), days[-1]) == (30, formatted(midnight - 1))
    for day in days:
        nano = int(totals[day].scaleb(9))
        assert sum(a.used.nano for a in told if a.day.isoformat() == day) == nano
        assert sum(a.used.nano for its in by_key for a in its if a.day.isoformat() == day) == nano
    assert sum(key.nano for key in keys) == int(account.total_usage.scaleb(9))
    assert sum(key.until_today_nano for key in keys) == int(account.used_at(midnight).scaleb(9))
    assert [key.name for key in keys if key.disabled] == ["batch"], "a key that is switched off has used what it has"


def formatted(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()


def item(**changes: Any) -> dict[str, Any]:
    """One honest line of GET /activity."""
    return {
        "date": "2026-11-22",
        "model": "m",
        "usage": 1.5,
        "requests": 2,
        "prompt_tokens": 3,
        "completion_tokens": 4,
    } | changes


def listed(*items: Any) -> http.Response:
    return http.Response(200, json.dumps({"data": items}).encode())


async def test_endpoints_of_one_model_are_added_up() -> None:
    """What ran here and there on the same day is one line; a time of day says nothing."""
    async with says(listed(item(), item(date="2026-11-22 00:00:00", usage=0.25), item(model="n"))) as api:
        one, other = await api.activity()
    assert (one.used.name, one.used.nano, one.used.requests, one.used.prompt_tokens) == ("m", 1_750_000_000, 4, 6)
    assert (other.used.name, other.used.nano) == ("n", 1_500_000_000)
    # What an owner calls a key is only shown: no megabyte of it is stored, and nothing that steers a terminal.
    async with says(listed(api_key(name="web\x1b[2J" + "n" * 100_000)), refusal(404)) as api:
        ((key,), _) = await api.keys()
        assert key.name == "web?[2J" + "n" * 93
        # A gateway without these endpoints is told apart: 404 is no failure of the question, there is nothing to tell.
        for call in LISTS:
            assert type(await failed(CALLS[call](api))) is ApiGone


def api_key(**changes: Any) -> dict[str, Any]:
    """One honest line of GET /keys."""
    return {"hash": "ab", "name": "web", "usage": 1.5, "usage_daily": 0.5, "disabled": False} | changes


# What one line of a list has wrong, by the field that is named for it: holes, wrong types, half a character, and
# amounts that no ledger holds.
USAGE: dict[str, tuple[Any, ...]] = {
    "date": ("22.11.2026", "2026-11-31", "2026-11-22T13:00:00Z", None, "20261122", "2026-W47-7", "\ud800"),
    "usage": (10**10, "1.5", None, True),
    "requests": (-1, None),
    "prompt_tokens": (1.5,),
    "completion_tokens": ("4",),
    "model": (7, False, "\ud800"),
}
KEYS: dict[str, tuple[Any, ...]] = {
    "hash": (None, 1, "\ud800"),
    "name": ("\ud800", False),
    "usage": (None, 10**10),
    "usage_daily": (-1,),
    "disabled": (0,),
}
# The lines of a list, where it is asked for, and how the error names what cannot be.
LINES: list[tuple[str, list[Any], str]] = [
    *(("activity", [item(), item(**{name: it})], f"item 1: {name} ") for name, all_ in USAGE.items() for it in all_),
    ("activity", [item(), item(usage=-0.01)], "item 1: usage is -0.01, less than nothing"),
    ("activity", [item(), item(requests=2**53 - 1)], "sums"),
    ("activity", [item(), {name: value for name, value in item().items() if name != "prompt_tokens"}], "prompt_tokens"),
    ("activity", [item(), item(model=None, model_permaslug=[])], "item 1: model_permaslug "),
    ("activity", [item(), 7], "list"),
    # A model is a row of every day, a key is a question and a row, and its hash is stored for every day: none is cut.
    ("activity", [item(model="m" * 257)], "/activity item 0: model is 257 characters long"),
    ("activity", [item(model=str(n)) for n in range(1001)], "/activity: 1001 models on 2026-11-22"),
    *(("keys", [api_key(), api_key(**{name: it})], f"item 1: {name} ") for name, all_ in KEYS.items() for it in all_),
    ("keys", [api_key(), api_key(hash="h" * 257)], "/keys item 1: hash is 257 characters long"),
    ("keys", [api_key(hash=str(n)) for n in range(10_001)], "/keys has more than 10000 keys"),
]


@pytest.mark.parametrize(("place", "lines", "named"), LINES)
async def test_a_line_of_usage_that_cannot_be_is_unknown_and_named(place: str, lines: list[Any], named: str) -> None:
    """The whole answer is none, and field and item are named."""
    async with says(listed(*lines)) as api:
        error = await failed(CALLS[place](api))
    assert type(error) is ApiUnknown
    assert named in str(error)
    assert str(error).isascii(), "it is written into the ledger"


# -- the connection ---------------------------------------------------------------------------------------------


async def test_each_question_has_a_connection_of_its_own() -> None:
    """Five readings, five connections: what is left over on one cannot be taken for the answer on another."""
    async with scene() as (gateway, api):
        peers: list[Any] = []

        async def noticed(request: http.Request) -> http.Response | http.Raw:
            peers.extend(writer.get_extra_info("peername") for writer in gateway._server._open.values())
            return await gateway._answer(request)

        gateway._server._handler = noticed
        for _ in range(5):
            await api.credits()
        assert len(set(peers)) == 5
        assert api.requests == gateway.count("credits") == 5


async def test_what_stands_at_the_end_of_the_address() -> None:
    """A slash means nothing. The host alone answers with a page or a 404: it is said what api.url lacks."""
    async with scene() as (gateway, _):
        async with client(gateway.url + "/", gateway.management_key) as api:
            await api.credits()
            assert gateway.requests[-1].path == "/api/v1/credits"
        async with client(gateway.url.removesuffix("/api/v1"), gateway.management_key) as api:
            error = await failed(api.credits())
    assert "api.url names no path" in str(error)
    assert "https://openrouter.ai/api/v1" in error.remedy
