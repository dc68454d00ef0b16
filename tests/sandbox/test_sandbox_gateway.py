"""Does the embedded gateway answer as OpenRouter's API is documented, and misbehave exactly as each fault says?"""

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import hypothesis
import pytest
from hypothesis import strategies as st

from tests.sandbox import paying
from tests.sandbox.paying import Clock, client_of
from topup.sandbox import faults
from topup.sandbox.charges import HOSTILE, STRANGER, intent_of
from topup.sandbox.faults import FAULTS
from topup.sandbox.gateway import FAULTS_AT, Account, BadAsk, Conduct, Gateway
from topup.sandbox.http import json_text
from topup.sandbox.postings import ERC20_TRANSFER, TRANSFERRED
from topup.sandbox.wire import WIRE_FAULTS

START_MS = 1_790_000_000_000
PAYER = "0xac8CeB5131449e5850030737D10d1E25C6b8D80B"
ASK = {"amount": 10, "sender": PAYER, "chain_id": 8453}


def word(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


@dataclass
class Ledger:
    """A chain just real enough to find payments on: blocks of transactions with logs, which can be taken back."""

    blocks: list[dict[str, dict[str, Any]]] = field(default_factory=lambda: [{}])
    heeds_filters: bool = True
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take_back(self) -> None:
        """Let the last block be empty after all."""
        self.taken, self.blocks[-1] = self.blocks[-1], {}

    def mine_again(self, *, reverted: bool) -> None:
        """Mine what was taken back, as it was or, in the place it had, with another outcome."""
        if reverted:
            self.blocks[-1] = {tx_hash: {"status": "0x0", "logs": []} for tx_hash in self.taken}
        else:
            self.blocks.append(self.taken)

    def sink(self) -> None:
        """Put the last block's payments three blocks deeper."""
        self.blocks[-3] = self.blocks.pop()

    def rpc(self, method: str, params: list[Any]) -> Any:
        if method == "eth_blockNumber":
            return hex(len(self.blocks) - 1)
        if method == "eth_getTransactionReceipt":
            return next((block[params[0]] for block in self.blocks if params[0] in block), None)
        assert method == "eth_getLogs"
        wanted = params[0]
        chosen = self.blocks[int(wanted["fromBlock"], 16) : int(wanted["toBlock"], 16) + 1]
        logs = [log for block in chosen for receipt in block.values() for log in receipt["logs"]]
        if not self.heeds_filters:
            return logs
        return [
            log
            for log in logs
            if log["address"].lower() == wanted["address"].lower() and log["topics"][:2] == wanted["topics"]
        ]

    def pay(self, charge: dict[str, Any], status: int = 1, **says: Any) -> str:
        """Mine what the real contract would emit for this charge; `says` replaces parts of it."""
        intent = intent_of(charge)
        call, contract = intent["call_data"], intent["metadata"]["contract_address"]
        told = {
            "contract": contract,
            "operator": call["operator"],
            "id": call["id"],
            "recipient": call["recipient"],
            "currency": call["recipient_currency"],
            "paid_to": call["recipient"],
            "paid": int(call["recipient_amount"]),
            **says,
        }
        tx_hash = "0x" + secrets.token_hex(32)
        data = "0x" + told["id"][2:].ljust(64, "0") + word(told["recipient"])[2:] + word(PAYER)[2:]
        transfer = {
            "address": told["currency"],
            "topics": [ERC20_TRANSFER, word(STRANGER), word(told["paid_to"])],
            "data": hex(told["paid"]),
            "logIndex": "0x0",
        }
        event = {
            "address": told["contract"].lower(),
            "topics": [TRANSFERRED, word(told["operator"])],
            "data": data + f"{10**15:064x}" + "0" * 64,
            "logIndex": "0x1",
        }
        logs = [transfer, event] if status else []
        for log in logs:
            log["transactionHash"] = tx_hash
        self.blocks.append({tx_hash: {"status": hex(status), "logs": logs}})
        return tx_hash


@dataclass
class Scene(paying.Scene[Gateway]):
    """A gateway with a chain of its own."""

    chain: Ledger
    asked: dict[str, Any] = field(default_factory=dict)  # the charge that was asked for last

    async def credits(self, key: str | None = None) -> httpx.Response:
        return await self.client.get("/credits", headers=self.key(key))

    async def totals(self) -> tuple[Decimal | int, Decimal | int]:
        data = json.loads((await self.credits()).content, parse_float=Decimal, parse_int=Decimal)["data"]
        return data["total_credits"], data["total_usage"]

    async def order(self, body: bytes) -> httpx.Response:
        return await self.posted("/credits/coinbase", self.key(), body)

    async def ask(self, **changes: Any) -> httpx.Response:
        return await self.order(json.dumps({**ASK, **changes}).encode())

    async def charge(self, **changes: Any) -> dict[str, Any]:
        answer = await self.ask(**changes)
        assert answer.status_code == 200
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def at(self, place: str) -> httpx.Response:
        """One honest request to an endpoint."""
        if place == "coinbase":
            return await self.ask()
        return await self.client.get(f"/{place}", headers=self.key())


@asynccontextmanager
async def scene(conduct: Conduct | None = None, bought: str = "20", usage: str = "0") -> AsyncIterator[Scene]:
    clock, chain = Clock(START_MS), Ledger()
    gateway = Gateway(Account(clock.now_ms, Decimal(bought), Decimal(usage)), chain=chain, conduct=conduct)
    async with client_of(gateway) as client:
        yield Scene(gateway, client, clock, chain)


@pytest.fixture
async def s() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


# Keys.


async def test_without_the_accounts_key_every_endpoint_answers_401(s: Scene) -> None:
    """The error body is the documented one and its code is the status; a wrong key of the right form is no better."""
    wrong = s.key("sk-or-v1-" + "0" * 64)
    for headers in ({}, {"authorization": "Basic abc"}, wrong):
        for method, path in (("GET", "/credits"), ("GET", "/key"), ("POST", "/credits/coinbase")):
            answer = await s.client.request(method, path, headers=headers, json=ASK)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == 401
            assert headers is wrong or answer.json()["error"]["message"] == "Missing Authentication header"
    assert not s.seller.issued and [seen.key for seen in s.seller.requests][-3:] == ["wrong"] * 3


FORBIDDEN = b'{"error":{"code":403,"message":"Only management keys can perform this operation"}}'


@pytest.mark.parametrize(
    ("conduct", "status", "body"),
    [
        pytest.param(Conduct(), 200, b'{"data":{"total_credits":0,"total_usage":0}}', id="the documented trap"),
        pytest.param(Conduct(ordinary_key_sees="forbidden"), 403, FORBIDDEN, id="as the API reference says"),
    ],
)
async def test_an_ordinary_key_reads_nothing_of_a_funded_account(conduct: Conduct, status: int, body: bytes) -> None:
    """Numbers that would make a naive buyer buy for ever, or a refusal."""
    async with scene(conduct) as s:
        answer = await s.credits(s.seller.ordinary_key)
        assert (answer.status_code, json.loads(answer.content)) == (status, json.loads(body))


async def test_a_key_says_of_what_kind_it_is(s: Scene) -> None:
    """Both paths tell a management key from an ordinary one, with every documented field."""
    for path in ("/key", "/auth/key"):
        for key, management in [(s.seller.management_key, True), (s.seller.ordinary_key, False)]:
            data = (await s.client.get(path, headers=s.key(key))).json()["data"]
            assert data["is_management_key"] is management
            assert {"label", "limit", "limit_remaining", "limit_reset", "usage", "usage_daily"} <= set(data)
            assert {"is_free_tier", "creator_user_id", "expires_at", "rate_limit"} <= set(data)
            assert s.seller.management_key not in str(data) and s.seller.ordinary_key not in str(data)


async def test_requests_are_counted_by_endpoint(s: Scene) -> None:
    """What a test must know about round trips is here."""
    for place in ("credits", "credits", "key", "coinbase"):
        await s.at(place)
    assert [s.seller.count(place) for place in ("credits", "key", "coinbase")] == [2, 1, 1]
    # What does not exist is 404 and a wrong method 405: neither touches the account, and both are recorded.
    assert (await s.client.get("/nothing")).status_code == 404
    assert (await s.client.get("/credits/coinbase")).status_code == 405
    assert [seen.status for seen in s.seller.requests[-2:]] == [404, 405]


# The account.


# What the account shows, by what happened: how the gateway conducts itself, and what is done in turn. "pay" asks for a
# charge and pays it, "pay last" pays the one that was asked for last; a bare number is what is bought, and used, then.
SHOWN: dict[str, tuple[dict[str, Any], str]] = {
    "twelve dollars an hour are twenty cents a minute":
        ({}, "use 25.75; burn 12; 20 25.75; pass 60000; 20 25.95"),
    "a new burn rate leaves what was burnt: an hour at two dollars, then one at three":
        ({}, "burn 2; pass 3600000; burn 3; pass 3600000; 20 5; use 19.99; 20 19.99"),
    "readings are as stale as told: within the span the old state, afterwards the new one":
        ({"staleness_ms": 60_000}, "20; buy 5; pass 59999; 20; pass 1; 25"),
    "a purchase elsewhere raises the total and a refund lowers it, at once when nothing is stale":
        ({}, "buy 7.25; 27.25; refund 20; 7.25"),
    "a frozen balance shows its first reading for ever, neither usage nor purchases":
        ({}, "burn 1; fault credits frozen; 20; pass 36000000; buy 5; 20"),
    "a payment is posted once: ten dollars of credits for ten and a half of USDC":
        ({}, "pay 10; poll; 30; poll; 30; poll; 30"),
    "an unpaid charge posts nothing: asking is free and worth nothing":
        ({}, "ask 10; poll; 20"),
    "posting waits its delay after the payment was seen, by the injected clock, to the millisecond":
        ({"posting_delay_ms": 3_000}, "pay 10; poll 500; poll 2999; 20; poll 1; 30"),
    "more than five hundred dollars take a quarter of an hour; five hundred itself does not":
        ({}, "pay 501; pay 500; poll; 520; poll 900000; 1021"),
    "a payment that is taken back before posting and later mined anew is posted once":
        ({"posting_delay_ms": 1_000}, "pay 10; poll; take back; poll 1000; 20; pay last; poll; poll 1000; 30"),
    "the very same transaction in a later block is posted once":
        ({"posting_delay_ms": 1_000}, "pay 10; poll; take back; poll 1000; mine again; poll; poll 1000; poll; 30"),
    "a payment that reverts when mined again is not posted: the receipt is read again before posting":
        ({"posting_delay_ms": 1_000}, "pay 10; poll; take back; mine reverted; poll 1000; poll 1000; 20"),
    "a payment that a reorganisation puts below the head that was last looked at is found":
        ({}, "ask 10; blocks 3; poll; pay last; sink; poll; 30"),
    "a payment is found however many blocks came between: a charge lives for two days, so does the search":
        ({}, "ask 10; blocks 200; poll; blocks 200; poll; blocks 200; poll; pay last; blocks 200; poll; 30"),
    "never-posts means never, however long one waits, until the fault ends":
        ({}, "fault posting never-posts; pay 10; poll 86400000; 20; poll 86400000; 20; heal posting; poll; 30"),
    "posts-late adds an hour to the ordinary delay":
        ({"posting_delay_ms": 5}, "fault posting posts-late; pay 10; poll; poll 3600004; 20; poll 1; 30"),
    **{
        f"whoever pays a charge with {trick} gets no credits: the owner did not get what they cost":
            ({}, f"fault coinbase {trick}; pay 10; poll; 20")
        for trick in ("other-recipient", "underpaid-total", "fee-part-too-high", "other-currency")
    },
}  # fmt: skip


async def step(s: Scene, word: str, *given: str) -> None:
    """Let one thing of such a story happen."""
    if word in ("ask", "pay") and given != ("last",):
        s.asked = await s.charge(amount=int(given[0]))
    acts: dict[str, Callable[[], object]] = {
        "ask": lambda: None,
        "pay": lambda: s.chain.pay(s.asked),
        "poll": lambda: s.poll(*map(int, given)),
        "pass": lambda: s.clock.go_on(int(given[0])),
        "burn": lambda: s.seller.account.set_burn_rate(Decimal(given[0])),
        "buy": lambda: s.seller.account.buy_elsewhere(Decimal(given[0])),
        "refund": lambda: s.seller.account.buy_elsewhere(-Decimal(given[0])),
        "use": lambda: s.seller.account.set_usage(Decimal(given[0])),
        "fault": lambda: s.seller.switch_on(given[0], given[1]),
        "heal": lambda: s.seller.switch_off(*given),
        "take": s.chain.take_back,
        "mine": lambda: s.chain.mine_again(reverted=given == ("reverted",)),
        "blocks": lambda: s.chain.blocks.extend({} for _ in range(int(given[0]))),
        "sink": s.chain.sink,
    }
    if word in acts:
        acts[word]()
    else:
        assert await s.totals() == (Decimal(word), Decimal(given[0]) if given else 0)


@pytest.mark.parametrize("what", SHOWN)
async def test_what_the_account_shows(what: str) -> None:
    """Credits and usage after each step of a story."""
    conduct, story = SHOWN[what]
    async with scene(Conduct(**conduct)) as s:
        for one in story.split("; "):
            await step(s, *one.split())


async def test_money_is_written_from_its_own_digits() -> None:
    """No float stands between the account and the wire, and no exponent appears."""
    digits = {"0.1": "0.1", "1E+3": "1000", "25.750": "25.75", "100": "100", "1E-9": "0.000000001", "-0.5": "-0.5"}
    for value, text in digits.items():
        assert json_text({"n": Decimal(value)}) == f'{{"n":{text}}}'
    async with scene(bought="100.5", usage="25.75") as s:
        assert (await s.credits()).content == b'{"data":{"total_credits":100.5,"total_usage":25.75}}'


# Charges.


async def test_a_charge_is_what_was_asked_for(s: Scene) -> None:
    """Amount, payer and chain of the request are those of the answer, signed by the gateway's operator."""
    charge = await s.charge(amount=1)
    intent = intent_of(charge)
    assert intent["metadata"]["sender"] == PAYER == intent["call_data"]["refund_destination"]
    assert intent["call_data"]["recipient_amount"] == "1039500" and intent["call_data"]["fee_amount"] == "10500"
    assert intent["call_data"]["operator"] == s.seller.operator.address.lower()
    assert charge["created_at"] == "2026-09-21T14:13:20Z" and charge["expires_at"] == "2026-09-23T14:13:20Z"
    # There is no idempotency: asking again never returns the same charge.
    first, second = await s.charge(), await s.charge()
    assert first["id"] != second["id"] and len(s.seller.issued) == 3
    # Both ends of the range are served, whole or broken.
    for amount in ("1", "2000", "1.5", "10.00"):
        body = f'{{"amount":{amount},"sender":"{PAYER}","chain_id":8453}}'.encode()
        answer = await s.order(body)
        assert answer.status_code == 200
        assert s.seller.requests[-1].body == body and s.seller.requests[-1].status == 200


# What is wrong, by the sentence that says so; None leaves a field out, and text is sent as it stands.
WRONG: dict[str, tuple[Any, ...]] = {
    "amount must be a number": ({"amount": "10"}, {"amount": True}, {"amount": None}),
    "amount must be from 1 to 2000": (
        *({"amount": amount} for amount in (0.99, 2000.01, -5)),
        f'{{"amount":1e999999999999999999,"sender":"{PAYER}","chain_id":8453}}'.encode(),
    ),
    "sender must be an address": ({"sender": f"{PAYER}00"}, {"sender": 7}),
    "chain_id must be a number": ({"chain_id": "8453"},),
    "chain_id 10 is not supported": ({"chain_id": 10},),
    "not an object": (b'["x"]',),
    "not JSON": ({"amount": float("nan")}, b'{"amount":10', b"\xffx"),
}


@pytest.mark.parametrize(("because", "bodies"), WRONG.items(), ids=WRONG)
async def test_a_wrong_request_is_400_and_creates_no_charge(s: Scene, because: str, bodies: tuple[Any, ...]) -> None:
    """The message says what is wrong; a text is not a number."""
    for body in bodies:
        told = (
            {name: value for name, value in (ASK | body).items() if value is not None} if isinstance(body, dict) else {}
        )
        content = json.dumps(told).encode() if told else body
        answer = await s.order(content)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == 400
        assert answer.json()["error"]["message"] == f"Invalid credit amount or request body: {because}", body
    assert not s.seller.issued


_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(PAYER)
_JSON = st.recursive(_LEAF, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
_ASKS = st.fixed_dictionaries({}, optional={"amount": _JSON, "sender": _JSON, "chain_id": _JSON | st.just(8453)})


@hypothesis.given(st.binary() | st.builds(lambda ask: json.dumps(ask).encode(), _ASKS))
@hypothesis.example(b"[" * 100_000)
@hypothesis.example(b'{"amount":1e%s}' % (b"9" * 40))
@hypothesis.example(b'{"amount":%s}' % (b"9" * 5000))
def test_no_request_body_breaks_the_server(body: bytes) -> None:
    """Whatever is sent is understood or called wrong."""
    gateway = Gateway(Account(lambda: START_MS))
    with suppress(BadAsk):
        assert 1 <= gateway._ask(body).amount <= 2000


# Posting.


NOT_QUITE: list[dict[str, Any]] = [
    *({name: STRANGER} for name in ("contract", "operator", "recipient", "paid_to", "currency")),
    *({"id": "0x" + "11" * 16}, {"paid": 10_394_999}, {"status": 0}),
]


@pytest.mark.parametrize("says", NOT_QUITE, ids=lambda says: next(iter(says)))
async def test_what_is_not_quite_our_payment_is_not_posted(s: Scene, says: dict[str, Any]) -> None:
    """One part of it is another's, or a unit is missing, or it reverted; even when the node ignores filters."""
    for s.chain.heeds_filters in (True, False):
        s.chain.pay(await s.charge(), **says)
        s.poll()
        assert await s.totals() == (20, 0)


async def test_an_announcement_without_money_is_not_posted(s: Scene) -> None:
    """The event alone proves nothing: one transfer cannot pay two charges of the same transaction."""
    first, second = await s.charge(), await s.charge()
    tx_hash = s.chain.pay(first)
    logs = s.chain.blocks[-1][tx_hash]["logs"]
    other = intent_of(second)["call_data"]["id"][2:]
    logs.append({**logs[1], "data": "0x" + other + logs[1]["data"][34:], "logIndex": "0x2"})
    s.poll()
    issued = s.seller.issued[intent_of(first)["call_data"]["id"]]
    assert (issued.tx_hash, issued.posted_ms) == (tx_hash, START_MS)
    assert await s.totals() == (30, 0)


# Faults on the wire.

DOCUMENT, PAGE = "application/json", "text/html; charset=utf-8"
ANSWERED: dict[str, tuple[int, str | None]] = {
    "gone-410": (410, DOCUMENT),
    "unauthorized-401": (401, DOCUMENT),
    "forbidden-403": (403, DOCUMENT),
    "rate-limited-429": (429, DOCUMENT),
    "server-error-500": (500, DOCUMENT),
    "unavailable-503": (503, DOCUMENT),
    "bad-gateway-502": (502, PAGE),
    "html-200": (200, PAGE),
    "redirect-302": (302, None),
    **dict.fromkeys(("truncated-json", "null-body", "oversized", "gzip-bomb"), (200, DOCUMENT)),
}
CUT = {"time-out", "reset", "trickle", "short-body"}
ENDPOINTS: list[str] = ["credits", "key", "coinbase"]


@pytest.mark.parametrize("place", ENDPOINTS)
@pytest.mark.parametrize("name", sorted(ANSWERED))
async def test_a_fault_with_an_answer_gives_it_everywhere(s: Scene, place: str, name: str) -> None:
    """Status, content type, and for errors the body of the API: code equal to status."""
    s.seller.wire.oversized_bytes = 1 << 20
    s.seller.switch_on(place, name)
    answer = await s.at(place)
    status, kind = ANSWERED[name]
    assert (answer.status_code, answer.headers.get("content-type")) == (status, kind)
    assert s.seller.requests[-1].fault == name
    if status >= 400 and kind == "application/json":
        assert set(answer.json()) == {"error"} and answer.json()["error"]["code"] == status


@pytest.mark.parametrize("place", ENDPOINTS)
@pytest.mark.parametrize(
    ("name", "felt"),
    [
        ("time-out", httpx.ReadTimeout),
        ("reset", httpx.ReadError),
        ("short-body", httpx.RemoteProtocolError),
    ],
)
async def test_a_fault_without_an_answer_is_felt_as_such(
    s: Scene, place: str, name: str, felt: type[Exception]
) -> None:
    """A silence, a reset, a body that ends too early: three different errors of the client."""
    s.client.timeout = httpx.Timeout(10, read=0.1)
    s.seller.switch_on(place, name)
    with pytest.raises(felt):
        await s.at(place)
    assert s.seller.requests[-1].status is None


def test_every_wire_fault_is_shown_here() -> None:
    """A new one without a story fails; and a misspelt fault must not run an honest world."""
    assert set(ANSWERED) | CUT == set(WIRE_FAULTS)
    for place, name in (("credits", "answer-lost"), ("key", "nan"), ("posting", "time-out")):
        with pytest.raises(KeyError, match=f"{place} has no fault called '{name}'"):
            Gateway(Account(lambda: START_MS)).switch_on(place, name)


async def test_a_followed_redirect_would_be_noticed(s: Scene) -> None:
    """It points to another origin, which remembers who came; nobody comes unless told to follow."""
    s.seller.switch_on("coinbase", "redirect-302", times=1)
    answer = await s.ask()
    assert not s.seller.elsewhere.requests
    assert httpx.URL(answer.headers["location"]).port != httpx.URL(s.seller.url).port
    await s.client.get("/key")  # The connection is still good.
    followed = await s.client.get(answer.headers["location"])
    assert followed.json()["data"]["total_credits"] == 1_000_000 and len(s.seller.elsewhere.requests) == 1
    # The endpoint that is gone says so in the documented words, as the real one does today: whatever the key.
    s.seller.switch_on("coinbase", "gone-410")
    error = (await s.client.post("/credits/coinbase", json=ASK)).json()["error"]
    assert error == {"code": 410, "message": GONE} and not s.seller.issued


GONE = (
    "The Coinbase APIs used by this endpoint have been deprecated, so the Coinbase Commerce credits API has been "
    "removed. Use the web credits purchase flow instead."
)


async def test_what_a_fault_of_the_wire_leaves_of_the_true_answer(s: Scene) -> None:
    """Only a limit on size refuses one that is too long, and early: 64 MB of blanks inside a true answer."""
    assert s.seller.wire.oversized_bytes == 64 * 1024 * 1024
    s.seller.wire.oversized_bytes, s.seller.wire.retry_after_seconds = 3 * 65536, 17
    whole = (await s.credits()).content
    said: dict[str, httpx.Response] = {}
    for name in ("truncated-json", "oversized", "gzip-bomb", "rate-limited-429", "unavailable-503"):
        s.seller.switch_on("credits", name, times=1)
        said[name] = await s.credits()
    cut = said["truncated-json"].content  # The HTTP is whole, the document is not.
    assert cut and whole.startswith(cut) and len(cut) < len(whole)
    with pytest.raises(ValueError, match=r"."):
        json.loads(cut)
    assert len(said["oversized"].content) > 3 * 65536 and said["oversized"].json() == json.loads(whole)
    # What is counted must be what comes out of the decoder.
    assert int(said["gzip-bomb"].headers["content-length"]) < 10_000 and len(said["gzip-bomb"].content) == 3 * 65536
    assert [said[name].headers["retry-after"] for name in ("rate-limited-429", "unavailable-503")] == ["17", "17"]


async def test_a_trickle_beats_a_time_out_between_bytes_but_never_ends(s: Scene) -> None:
    """Bytes keep coming well within the client's read time-out; only a total limit ends it."""
    s.seller.wire.trickle_seconds = 0.002
    s.seller.switch_on("credits", "trickle")
    received = b""
    async with s.client.stream("GET", "/credits", headers=s.key()) as answer:
        async for piece in answer.aiter_raw():
            received += piece
            if len(received) > 60:
                break
    # The whole honest document but its last brace, then blanks: never complete.
    assert received.startswith(b'{"data":{"total_credits":20,"total_usage":0}') and received.rstrip(b" ")[-2:] != b"}}"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await s.credits()


@pytest.mark.parametrize(("name", "created"), [("answer-lost", 1), ("reset", 0)])
async def test_a_lost_answer_has_created_its_charge(s: Scene, name: str, created: int) -> None:
    """The client sees a reset; the charge exists and would even be posted if paid. After a reset there is none."""
    s.seller.switch_on("coinbase", name)
    with pytest.raises(httpx.ReadError):
        await s.ask()
    assert len(s.seller.issued) == created
    s.seller.switch_off()
    assert (await s.charge()) and len(s.seller.issued) == created + 1


# Faults of the numbers.


ZEROS = b'{"data":{"total_credits":0,"total_usage":0}}'


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("zero-credits", ZEROS),
        ("ordinary-key", ZEROS),
        ("string-numbers", b'{"data":{"total_credits":"20","total_usage":"1.5"}}'),
        ("nan", b'{"data":{"total_credits":NaN,"total_usage":1.5}}'),
    ],
)
async def test_a_wrong_balance_is_wrong_to_the_byte(name: str, body: bytes) -> None:
    """Each is a 200 with a body that must not be believed; where the key is called an ordinary one, it says so too."""
    async with scene(usage="1.5") as s:
        for place in ("credits", "key") if name == "ordinary-key" else ("credits",):
            s.seller.switch_on(place, name)
        answer = await s.credits()
        assert (answer.status_code, answer.content) == (200, body)
        assert (await s.at("key")).json()["data"]["is_management_key"] is (name != "ordinary-key")


async def test_a_falling_total_falls_from_reading_to_reading(s: Scene) -> None:
    """The first is true, each later one is lower."""
    s.seller.switch_on("credits", "falling-total")
    totals = [(await s.totals())[0] for _ in range(5)]
    assert totals[0] == 20 and all(later < earlier for earlier, later in itertools.pairwise(totals))


# Switching.


async def test_a_fault_lasts_as_it_was_switched_on(s: Scene) -> None:
    """For the first requests only, several in turn, or until it is switched off; and only at its own endpoint."""
    s.seller.switch_on("credits", "server-error-500", times=2)
    s.seller.switch_on("credits", "rate-limited-429", times=1)
    assert [(await s.credits()).status_code for _ in range(5)] == [500, 500, 429, 200, 200]
    s.seller.switch_on("credits", "server-error-500")
    assert [(await s.credits()).status_code for _ in range(3)] == [500] * 3
    assert (await s.at("key")).status_code == 200
    s.seller.switch_off("credits")
    assert (await s.credits()).status_code == 200


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_a_hostile_charge_is_served_by_its_name(s: Scene, name: str) -> None:
    """With 200 and the documented shape: only what it says is wrong."""
    honest = intent_of(await s.charge())["call_data"]
    s.seller.switch_on("coinbase", name)
    hostile = intent_of(await s.charge())["call_data"]
    assert set(hostile) == set(honest) and s.seller.requests[-1].fault == name
    assert (hostile["id"] == honest["id"]) is (name == "duplicate-id")


# The catalogue.


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_of_the_catalogue_can_be_switched_on(name: str) -> None:
    """It names switches the gateway has and says in one sentence what happens."""
    fault = FAULTS[name]
    gateway = Gateway(Account(lambda: START_MS))
    for switch in fault.switches:
        gateway.switch_on(switch.place, switch.name, switch.times)
    assert all(switch.name in FAULTS_AT[switch.place] for switch in fault.switches)
    assert fault.name == name and fault.says[0].isupper() and fault.says.endswith(".") and len(fault.says) < 100


def test_the_catalogue_forgets_no_fault_of_the_gateway_and_lists_each_once() -> None:
    """Every hostile charge, every own fault, and every wire fault of the balance and the charge endpoint."""
    listed = {(switch.place, switch.name) for fault in FAULTS.values() for switch in fault.switches}
    switchable = {(place, name) for place, names in FAULTS_AT.items() for name in names}
    assert {(p, name) for p, name in switchable if p in ("credits", "coinbase") or name not in WIRE_FAULTS} <= listed
    assert len(faults._ALL) == len(FAULTS), "two lines of one name would hide one of them"
