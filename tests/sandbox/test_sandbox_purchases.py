"""Does the sandbox's seller of machine payments take money exactly when the chain says so, whatever it answers?

The client here signs and encodes by itself: neither the seller's decoding nor the product's signing is used.
"""

import asyncio
import base64
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import httpx
import pytest
import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from tests.sandbox import paying
from tests.sandbox.paying import Clock, client_of
from tests.tools import require
from topup.sandbox.charges import STRANGER
from topup.sandbox.fault import NOT_SERVED
from topup.sandbox.gateway import Account
from topup.sandbox.mpp_faults import (
    AFTER_SETTLING,
    FAULTS_AT,
    HOSTILE_OFFERS,
    MPP_FAULTS,
    OFFER_LIVES_S,
    SEVERAL,
)
from topup.sandbox.mpp_wire import PURCHASES
from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller, Style
from topup.sandbox.tempo import CHAIN_ID, PATH_USD, USDC_E, Tempo
from topup.sandbox.wire import WIRE_FAULTS

TEN: Final = 10_000_000
GAS_PRICE: Final = 30 * 10**9
GAS: Final = 2_000_000
ENDLESS: Final = {"time-out", "trickle"}
IMPATIENCE_S: Final = 0.5
STYLES: Final[tuple[Style, ...]] = ("mppx", "pympp", "idempotent")


class Prompt:
    """A Tempo chain that makes a block as soon as there is something to put into it."""

    def __init__(self, tempo: Tempo, clock: Clock) -> None:
        self.tempo = tempo
        self.clock = clock

    def rpc(self, method: str, params: list[Any]) -> Any:
        answer = self.tempo.rpc(method, params)
        if method == "eth_sendRawTransaction":
            self.tempo.mine()
        return answer

    def catch_up(self) -> None:
        """A chain that makes blocks faster than one a second is ahead of our clock."""
        head = self.tempo.rpc("eth_getBlockByNumber", ["latest", False])
        self.clock.ms = max(self.clock.ms, int(head["timestamp"], 16) * 1000)


@pytest.fixture(scope="module")
def chain() -> Iterator[Prompt]:
    clock = Clock()
    tempo = Tempo(require("anvil"), block_s=None, now=clock.now_s)
    yield Prompt(tempo, clock)
    tempo.stop()


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def word(value: str | int) -> bytes:
    return bytes.fromhex(value[2:]).rjust(32, b"\0") if isinstance(value, str) else value.to_bytes(32, "big")


def unpack(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return document


def pack(document: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def challenges(answer: httpx.Response) -> list[dict[str, str]]:
    return [
        dict(re.findall(r'(\w+)="([^"]*)"', header.removeprefix("Payment ")))
        for header in answer.headers.get_list("www-authenticate")
    ]


@dataclass
class Wallet:
    """A key that signs a transfer for a challenge; `changes` to `sign` make it sign something else."""

    key: PrivateKey = field(default_factory=lambda: PrivateKey(secrets.token_bytes(32)))

    @property
    def address(self) -> str:
        return self.key.public_key.to_address()

    def sign(self, challenge: Mapping[str, str], before_s: int, **changes: Any) -> bytes:
        request = unpack(challenge["request"])
        realm, name = keccak(text=challenge["realm"])[:10], keccak(text=challenge["id"])[:7]
        told: dict[str, Any] = {
            "chain": CHAIN_ID,
            "token": request["currency"],
            "recipient": request["recipient"],
            "amount": int(request["amount"]),
            "memo": keccak(text="mpp")[:4] + b"\x01" + realm + bytes(10) + name,
            "lane": secrets.randbits(200),
            "before": before_s,
            "calls": 1,
            **changes,
        }
        data = bytes.fromhex("95777d59") + word(told["recipient"]) + word(told["amount"]) + told["memo"]
        calls = [[bytes.fromhex(told["token"][2:]), b"", data]] * told["calls"]
        fee, lane = [b"", number(GAS_PRICE), number(GAS)], [number(told["lane"]), b""]
        rest = [number(told["before"]), b"", bytes.fromhex(USDC_E[2:]), b"", []]
        fields = [number(told["chain"]), *fee, calls, [], *lane, *rest]
        signed = self.key.sign_msg_hash(keccak(b"\x76" + rlp.encode(fields))).to_bytes()
        return bytes(b"\x76" + rlp.encode([*fields, signed[:64] + bytes([signed[64] + 27])]))

    def credential(self, challenge: Mapping[str, str], raw: bytes) -> str:
        payload = {"type": "transaction", "signature": "0x" + raw.hex()}
        source = f"did:pkh:eip155:{CHAIN_ID}:{self.address}"
        return "Payment " + pack({"challenge": challenge, "payload": payload, "source": source})


@dataclass
class Scene(paying.Scene[Seller]):
    """A seller, a wallet with 100 dollars, and the chain."""

    wallet: Wallet
    chain: Tempo
    start_units: int

    async def post(self, order: str, credential: str | None = None, body: str = '{"amount":10}') -> httpx.Response:
        headers = {**self.key(), "idempotency-key": order, "content-type": "application/json"}
        if credential is not None:
            headers["payment-authorization"] = credential
        return await self.posted("/credits/purchases", headers, body)

    async def challenge(self, order: str = "one") -> dict[str, str]:
        answer = await self.post(order)
        assert answer.status_code == 402
        return challenges(answer)[0]

    def pay(self, challenge: Mapping[str, str], **changes: Any) -> str:
        raw = self.wallet.sign(challenge, self.clock.now_s() + 200, **changes)
        return self.wallet.credential(challenge, raw)

    async def bought(self, order: str = "one") -> httpx.Response:
        return await self.post(order, self.pay(await self.challenge(order)))

    def spent(self) -> int:
        """Units that have left the wallet, without the fees."""
        return (self.start_units - self.chain.balance(self.wallet.address)) // 1_000_000 * 1_000_000

    def paid_to(self, address: str) -> int:
        return self.chain.balance(address)

    async def status(self, location: str) -> str:
        answer = await self.client.get(location.removeprefix("/api/v1"), headers=self.key())
        assert answer.status_code == 200
        return str(answer.json()["data"]["status"])


@asynccontextmanager
async def scene(chain: Prompt, **conduct: Any) -> AsyncIterator[Scene]:
    chain.catch_up()
    wallet = Wallet()
    chain.tempo.fund(wallet.address, 10 * TEN)
    account = Account(chain.clock.now_ms)
    seller = Seller(account, chain, conduct=MppConduct(**{"wait_s": 0, **conduct}))
    seller.wire.oversized_bytes = 1024 * 1024
    async with client_of(seller) as client:
        yield Scene(seller, client, chain.clock, wallet, chain.tempo, chain.tempo.balance(wallet.address))


@pytest.fixture
async def one(chain: Prompt) -> AsyncIterator[Scene]:
    async with scene(chain) as made:
        yield made


# Asking.


async def test_an_unpaid_purchase_is_answered_with_one_challenge_for_each_way_to_pay(one: Scene, chain: Prompt) -> None:
    """402, a problem document, and two headers: a charge on Tempo and a card."""
    answer = await one.post("one")
    tempo, card = challenges(answer)
    assert answer.status_code == 402 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "https://paymentauth.org/problems/payment-required"
    assert (tempo["method"], tempo["intent"], tempo["header"]) == ("tempo", "charge", "Payment-Authorization")
    assert (card["method"], card["intent"], tempo["realm"]) == ("stripe", "charge", "127.0.0.1")
    assert unpack(tempo["request"]) == {
        "amount": "10000000",
        "currency": USDC_E,
        "recipient": RECIPIENT,
        "methodDetails": {"chainId": 4217, "supportedModes": ["pull"]},
        "_mppx_scope": "POST /api/v1/credits/purchases",
    }
    assert datetime.fromisoformat(tempo["expires"]).timestamp() == pytest.approx(chain.clock.ms / 1000 + 300)


async def test_a_deposit_address_is_everybodys_or_a_purchases_own(chain: Prompt) -> None:
    """Both styles exist; asking again for the same purchase gives the same address and another challenge."""
    async with scene(chain) as one:
        recipients = [unpack((await one.challenge(order))["request"])["recipient"] for order in ("a", "b")]
        assert recipients == [RECIPIENT, RECIPIENT]
    async with scene(chain, recipient_per_purchase=True, fee_bps=500) as one:
        first, other = await one.challenge("a"), await one.challenge("b")
        one.clock.ms += 1
        again = await one.challenge("a")
        # The fee is on top in whole cents rounded up, whether a number or a text was asked for.
        for order, units in (
            ('{"amount":10}', 10_500_000),
            ('{"amount":"10"}', 10_500_000),
            ('{"amount":1.01}', 1_070_000),
        ):
            asked = challenges(await one.post(order, body=order))[0]
            assert int(unpack(asked["request"])["amount"]) == units
    assert unpack(first["request"]) == unpack(again["request"]) != unpack(other["request"])
    assert first["id"] != again["id"]


async def test_what_cannot_be_bought_is_not_priced(one: Scene) -> None:
    """Neither nonsense, nor too little, nor too much, nor something else under a key that was used."""
    await one.post("one")
    for amount in ("true", "10.001", "0", "2001", "1e1", '"ten"', "null"):
        assert (await one.post("one", body=f'{{"amount":{amount}}}')).status_code == 400, amount
    for order, body, status in (
        ("one", "", 400),
        ("one", "[]", 400),
        ("one", '{"amount":11}', 422),
        ("", '{"amount":10}', 400),
    ):
        assert (await one.post(order, body=body)).status_code == status, body


async def test_only_a_management_key_buys_and_everybody_may_read_how(one: Scene) -> None:
    """No key, a wrong one, an ordinary one: 401, 401, 403. The texts for agents ask for none."""
    keys = [{}, {"x-api-key": "sk-wrong"}, {"x-api-key": one.seller.ordinary_key}]
    answers = [await one.client.post("/credits/purchases", headers=key, json={"amount": 10}) for key in keys]
    assert [answer.status_code for answer in answers] == [401, 401, 403]
    assert one.seller.posts == []
    for text in ("setup", "SKILL.md"):
        answer = await one.client.get(f"/credits/purchases/{text}")
        assert answer.status_code == 200 and "Idempotency-Key" in answer.text
    assert (await one.client.post("/credits/coinbase", headers=one.key(), json={})).status_code == 410
    assert (await one.client.get("/credits", headers=one.key())).json()["data"]["total_credits"] == 20
    assert (await one.client.get("/credits/purchases", headers=one.key())).status_code == 405
    assert (await one.client.get("/credits/purchases/pi_none", headers=one.key())).status_code == 404


# Paying.


async def test_a_paid_purchase_settles_and_is_credited_later(chain: Prompt) -> None:
    """202, where to look, a receipt with the hash; the wallet is lighter by the amount; credits come with the poll."""
    async with scene(chain, posting_delay_ms=5_000) as one:
        challenge = await one.challenge()
        before = one.paid_to(RECIPIENT)
        raw = one.wallet.sign(challenge, one.clock.now_s() + 200)
        answer = await one.post("one", one.wallet.credential(challenge, raw))
        receipt = unpack(answer.headers["payment-receipt"])
        assert answer.status_code == 202
        assert receipt["reference"] == "0x" + keccak(raw).hex() and receipt["status"] == "success"
        assert one.paid_to(RECIPIENT) - before == TEN == one.spent()
        location = answer.headers["location"]
        assert answer.json()["data"]["id"] == location.rpartition("/")[2]
        one.poll()
        assert (await one.status(location), one.seller.account.total_credits) == ("pending", Decimal(20))
        one.poll(5_000)
        one.poll()
        assert (await one.status(location), one.seller.account.total_credits) == ("credited", Decimal(30))


async def test_the_credential_may_take_the_place_of_the_key(one: Scene) -> None:
    """With the key in X-Api-Key, `Authorization` holds the payment."""
    headers = {"x-api-key": one.seller.management_key, "idempotency-key": "one"}
    asked = await one.client.post("/credits/purchases", headers=headers, json={"amount": 10})
    headers["authorization"] = one.pay(challenges(asked)[0])
    answer = await one.client.post("/credits/purchases", headers=headers, json={"amount": 10})
    assert (answer.status_code, one.spent()) == (202, TEN)
    assert [post.credential is not None for post in one.seller.posts] == [False, True]


@pytest.mark.parametrize(("style", "status", "fresh"), [("mppx", 402, 2), ("pympp", 403, 0), ("idempotent", 202, 0)])
async def test_what_was_settled_is_answered_as_each_server_does_and_never_taken_twice(
    chain: Prompt, style: Style, status: int, fresh: int
) -> None:
    """A fresh challenge, a plain refusal, or the same answer again: by HTTP alone nobody can tell."""
    async with scene(chain, style=style) as one:
        credential = one.pay(await one.challenge())
        first = await one.post("one", credential)
        again = await one.post("one", credential)
        assert (first.status_code, again.status_code, len(challenges(again))) == (202, status, fresh)
        assert one.spent() == TEN
        assert (first.content == again.content) == (style == "idempotent")


async def test_one_credential_sent_twice_at_once_settles_once() -> None:
    """On a chain that makes its own blocks, the second waits for the first and is then a resend."""
    clock = Clock()
    tempo = Tempo(require("anvil"), block_s="0.2")
    try:
        async with scene(Prompt(tempo, clock), wait_s=10) as one:
            one.seller.chain = tempo
            credential = one.pay(await one.challenge())
            answers = await asyncio.gather(*(one.post("one", credential) for _ in range(2)))
            assert sorted(answer.status_code for answer in answers) == [202, 402]
            assert one.spent() == TEN
    finally:
        tempo.stop()


@pytest.mark.parametrize("style", ["mppx", "pympp"])
async def test_two_credentials_on_one_lane_settle_once(chain: Prompt, style: Style) -> None:
    """What protects is the chain: the lane's nonce is used up, and the second transaction is never seen."""
    async with scene(chain, style=style) as one:
        first, second = await one.challenge(), await one.challenge()
        credentials = [one.pay(first, lane=7), one.pay(second, lane=7, before=one.clock.now_s() + 199)]
        answers = [await one.post("one", credential) for credential in credentials]
        assert [answer.status_code for answer in answers] == [202, 503]
        one.chain.mine()
        assert one.spent() == TEN


@pytest.mark.parametrize(("style", "spent"), [("mppx", 2 * TEN), ("pympp", 2 * TEN), ("idempotent", TEN)])
async def test_two_credentials_on_two_lanes_are_two_payments(chain: Prompt, style: Style, spent: int) -> None:
    """The Idempotency-Key protects nobody, unless the server says so; credits are posted once."""
    async with scene(chain, style=style) as one:
        for lane in (1, 2):
            assert (await one.post("one", one.pay(await one.challenge(), lane=lane))).status_code == 202
        one.poll()
        assert (one.spent(), one.seller.account.total_credits) == (spent, Decimal(30))


# What is refused is not taken.
# What is signed instead of what was asked for: another recipient, amount, memo, chain or token, more than one call,
# none, or too late an end; and with which status each kind of server refuses it, where that is not 402.
CHANGED: list[tuple[dict[str, Any], dict[str, int]]] = [
    *(({name: value}, {}) for name, value in (("recipient", STRANGER), ("chain", 42431), ("token", PATH_USD))),
    *(({"amount": amount}, {}) for amount in (TEN - 1, TEN + 1)),
    *(({"calls": calls}, {}) for calls in (2, 0)),
    ({"memo": b"\x11" * 32}, {"pympp": 403}),
    ({"before": 1}, {"mppx": 500, "pympp": 503, "idempotent": 503}),
]


@pytest.mark.parametrize("style", STYLES)
async def test_a_transaction_that_is_not_what_was_asked_for_is_refused_before_it_leaves(
    chain: Prompt, style: Style
) -> None:
    """Nothing is broadcast."""
    async with scene(chain, style=style) as one:
        for change, statuses in CHANGED:
            answer = await one.post("one", one.pay(await one.challenge(), **change))
            assert answer.status_code == statuses.get(style, 402), change
            assert (one.spent(), one.seller.payments) == (0, {})


@pytest.mark.parametrize("name", ["id", "realm", "method", "intent", "request", "expires", "header", "opaque"])
async def test_a_challenge_has_to_be_echoed_whole(one: Scene, name: str) -> None:
    """What was changed or left out was not issued by this server."""
    challenge = await one.challenge()
    raw = one.wallet.sign(challenge, one.clock.now_s() + 200)
    left = {key: told for key, told in challenge.items() if key != name}
    for echo in (left, left | {name: challenge[name] + "x"}):
        answer = await one.post("one", one.wallet.credential(echo, raw))
        assert (answer.status_code, one.spent()) == (402, 0)
        assert answer.json()["type"].endswith("/invalid-challenge")


async def test_what_is_no_credential_for_this_purchase(one: Scene) -> None:
    """Not base64, not an object, an empty one, and 9 KB of brackets; nothing of it takes any money."""
    for nonsense in ("!", "W10", "e30", "W" * 9_000):
        answer = await one.post("one", f"Payment {nonsense}")
        assert answer.status_code == 402 and answer.json()["type"].endswith("malformed-credential")
    # The source that is named has to be the sender that is recovered, and what was signed cannot be altered.
    challenge = await one.challenge("one")
    raw = one.wallet.sign(challenge, one.clock.now_s() + 200)
    altered = raw.replace(number(GAS_PRICE), number(GAS_PRICE + 1))
    for credential in (
        Wallet().credential(challenge, raw),
        one.wallet.credential(challenge, altered),
        one.wallet.credential(challenge, raw[:-1] + b"\x05"),
    ):
        assert (await one.post("one", credential)).status_code == 402
    # A challenge is good for its purchase and its time: not for another Idempotency-Key, and not once it has expired.
    await one.challenge("two")
    other = await one.post("two", one.wallet.credential(challenge, raw))
    one.clock.ms += 300_000
    late = await one.post("one", one.wallet.credential(challenge, raw))
    assert (other.status_code, late.status_code, one.spent()) == (402, 402, 0)
    assert late.json()["type"].endswith("/payment-expired")


@pytest.mark.parametrize("style", ["mppx", "pympp"])
async def test_an_empty_wallet_is_never_said_to_have_paid(chain: Prompt, style: Style) -> None:
    """The server cannot confirm it, and names the purchase to poll; the recipient has nothing more."""
    async with scene(chain, style=style) as one:
        before = one.paid_to(RECIPIENT)
        one.chain.fund(one.wallet.address, TEN // 2)
        assert (await one.bought()).status_code in (503, 500)
        one.poll()
        assert (one.paid_to(RECIPIENT), one.seller.account.total_credits) == (before, Decimal(20))


# Faults.


def requested(challenge: Mapping[str, str]) -> dict[str, Any]:
    return {**challenge, **unpack(challenge["request"]), **unpack(challenge["request"])["methodDetails"]}


SHOWS: Final[Mapping[str, Callable[[dict[str, Any]], bool]]] = {
    "other-recipient": lambda told: told["recipient"] == STRANGER,
    "other-chain": lambda told: told["chainId"] == 42431,
    "no-chain-id": lambda told: "chainId" not in told,
    "other-token": lambda told: told["currency"] == PATH_USD,
    "double-amount": lambda told: told["amount"] == "20000000",
    "dearer-amount": lambda told: told["amount"] == "10900000",
    "smaller-amount": lambda told: told["amount"] == "9900000",
    "zero-amount": lambda told: told["amount"] == "0",
    "splits": lambda told: told.get("splits") == [{"recipient": STRANGER, "amount": "5000000"}],
    "their-memo": lambda told: len(told.get("memo", "")) == 66,
    "fee-payer": lambda told: told.get("feePayer") is True,
    "push-only": lambda told: told["supportedModes"] == ["push"],
    "other-realm": lambda told: told["realm"] == "pay.example",
    "other-intent": lambda told: told["intent"] == "session",
    "lying-description": lambda told: "0.01" in told["description"],
    "long-header": lambda told: 4_096 < len(told["description"]) < 16_384,
}


async def test_a_hostile_challenge_differs_in_what_its_name_says(one: Scene) -> None:
    """It is sealed rightly, and next to an honest one no other thing in its request has changed."""
    honest = requested(await one.challenge())
    for name, shows in SHOWS.items():
        one.seller.switch_on("challenge", name, times=1)
        hostile = requested(await one.challenge())
        assert shows(hostile) and not shows(honest), name
        differing = {key for key in honest.keys() | hostile.keys() if honest.get(key) != hostile.get(key)}
        assert len(differing - {"id", "request", "methodDetails"}) == 1, name
        assert requested(await one.challenge()) == honest
    # It expired a second ago, or will in four.
    for name, left_s in (("expired", -1), ("about-to-expire", 4)):
        one.seller.switch_on("challenge", name, times=1)
        expires = datetime.fromisoformat((await one.challenge())["expires"]).timestamp()
        assert expires - one.clock.ms / 1000 == pytest.approx(left_s)
    # The seller does not save a client that does not look: whoever pays has paid, and the stranger has the money.
    before = one.paid_to(STRANGER)
    one.seller.switch_on("challenge", "other-recipient")
    assert (await one.bought()).status_code == 202
    assert one.paid_to(STRANGER) - before == TEN


async def test_a_replayed_challenge_buys_the_next_purchase_too(one: Scene) -> None:
    """From the second purchase on its id is one that was paid before."""
    one.seller.switch_on("challenge", "replayed-challenge")
    first = await one.challenge("one")
    assert (await one.post("one", one.pay(first))).status_code == 202
    second = await one.challenge("two")
    assert second == first
    assert (await one.post("two", one.pay(second))).status_code == 202
    assert one.spent() == 2 * TEN


async def test_the_options_themselves_can_be_wrong(one: Scene) -> None:
    """Only a card; two charges on Tempo; a parameter twice; a head that HTTP libraries refuse to read."""
    one.seller.switch_on("challenge", "card-only", times=1)
    assert [option["method"] for option in challenges(await one.post("one"))] == ["stripe"]
    one.seller.switch_on("challenge", "two-tempo-challenges", times=1)
    options = challenges(await one.post("one"))
    assert [option["method"] for option in options] == ["tempo", "tempo", "stripe"]
    assert [requested(option)["recipient"] for option in options[:2]] == [RECIPIENT, STRANGER]
    one.seller.switch_on("challenge", "duplicate-parameter", times=1)
    assert (await one.post("one")).headers.get_list("www-authenticate")[0].count("realm=") == 2
    one.seller.switch_on("challenge", "huge-header", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await one.post("one")


@pytest.mark.parametrize(
    "name", sorted(FAULTS_AT["payment"] - AFTER_SETTLING - {"settles-late", "never-settles", "accepts-never-settles"})
)
async def test_what_fails_before_settling_takes_nothing_and_can_be_sent_again(one: Scene, name: str) -> None:
    """Whatever is said, the wallet is whole; the same bytes settle once the fault is gone."""
    credential = one.pay(await one.challenge())
    one.seller.switch_on("payment", name, times=1)
    one.patience_s = IMPATIENCE_S if name in ENDLESS else 10
    with suppress(httpx.TransportError, TimeoutError):
        assert (await one.post("one", credential)).status_code != 202
    assert (one.spent(), one.seller.payments) == (0, {})
    one.patience_s = 10
    assert (await one.post("one", credential)).status_code == 202
    assert one.spent() == TEN


@pytest.mark.parametrize("name", sorted(AFTER_SETTLING))
async def test_what_fails_after_settling_has_taken_the_money_once(one: Scene, name: str) -> None:
    """Whatever is said, and however often it is sent: one payment, and credits unless it is called failed."""
    credential = one.pay(await one.challenge())
    one.seller.switch_on("payment", name)
    one.patience_s = IMPATIENCE_S if name.removeprefix("settled-") in ENDLESS else 10
    said = []
    for _ in range(2):
        with suppress(httpx.TransportError, TimeoutError):
            said.append((await one.post("one", credential)).status_code)
    one.poll()
    assert one.spent() == TEN
    credited = 20 if name == "fails-after-settling" else 30
    assert one.seller.account.total_credits == credited
    honest = {"no-purchase-id", "no-receipt", "lying-receipt", "fails-after-settling"}
    assert (202 in said) == (name in honest)
    assert not any("payment-authorization" in seen.headers for seen in one.seller.elsewhere.requests)


async def test_a_payment_can_be_settled_late_or_not_at_all(chain: Prompt) -> None:
    """503 with the purchase id each time, or 202: only the chain knows."""
    async with scene(chain, settles_late_ms=2_000) as one:
        one.seller.switch_on("payment", "never-settles", times=1)
        one.seller.switch_on("payment", "accepts-never-settles", times=1)
        one.seller.switch_on("payment", "settles-late", times=2)
        credential = one.pay(await one.challenge())
        answers = [await one.post("one", credential) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [503, 202, 503, 503]
        purchase_id = answers[0].json()["error"]["metadata"]["purchase_id"]
        assert answers[1].headers["location"] == f"{PURCHASES}/{purchase_id}"
        one.poll(1_999)
        assert one.spent() == 0
        one.poll(1)
        assert one.spent() == TEN
        assert await one.status(f"/credits/purchases/{purchase_id}") == "credited"


async def test_the_answer_after_settling_can_keep_things_back(one: Scene) -> None:
    """No purchase id, no receipt, or a receipt for another transaction."""
    heads = {}
    for name in ("no-purchase-id", "no-receipt", "lying-receipt"):
        one.seller.switch_on("payment", name, times=1)
        answer = await one.bought(name)
        heads[name] = (answer.headers.get("location"), answer.headers.get("payment-receipt"))
        assert answer.status_code == 202 and ("pi_" in answer.text) == (name != "no-purchase-id")
    assert heads["no-purchase-id"][0] is None and heads["no-receipt"][1] is None
    lie = unpack(heads["lying-receipt"][1] or "")["reference"]
    assert re.fullmatch("0x[0-9a-f]{64}", lie) and lie not in one.seller.payments
    # Then it can be spoken of wrongly: pending for ever, failed, credited, or in a word never heard of.
    location = heads["no-receipt"][0] or ""
    one.poll()
    for name, said in (("stays-pending", "pending"), ("says-failed", "failed"), ("says-credited", "credited")):
        one.seller.switch_on("purchase", name, times=1)
        assert await one.status(location) == said
    one.seller.switch_on("purchase", "unknown-status", times=1)
    assert await one.status(location) not in ("pending", "failed", "credited")
    assert await one.status(location) == "credited"
    # It is failed for good when it was settled so.
    one.seller.switch_on("payment", "fails-after-settling", times=1)
    assert await one.status((await one.bought("two")).headers["location"]) == "failed"


async def test_credits_can_come_late_or_never(one: Scene) -> None:
    """Late by an hour, or never while the fault is on."""
    await one.bought()
    one.seller.switch_on("posting", "posts-late")
    one.poll(3_599_000)
    assert one.seller.account.total_credits == 20
    one.seller.switch_off("posting")
    one.seller.switch_on("posting", "never-posts")
    one.poll(10_000_000)
    assert one.seller.account.total_credits == 20
    one.seller.switch_off()
    one.poll()
    assert one.seller.account.total_credits == 30


async def test_a_followed_redirect_would_be_seen(one: Scene) -> None:
    """307 keeps method, body and headers: whoever follows it has given the credential away, and the seller knows."""
    credential = one.pay(await one.challenge())
    one.seller.switch_on("payment", "redirect-307")
    one.client.follow_redirects = True
    await one.post("one", credential)
    assert [seen.headers["payment-authorization"] for seen in one.seller.elsewhere.requests] == [credential]
    assert one.spent() == 0


def test_the_table_names_every_fault_of_a_purchase() -> None:
    """Whatever the seller can do wrong at its own places has a row, and each row can be switched."""
    seller = Seller(Account(Clock().now_ms), None)  # type: ignore[arg-type] # no chain is asked
    for fault in MPP_FAULTS.values():
        for switch in fault.switches:
            seller.switch_on(switch.place, switch.name, switch.times)
    wire = set(WIRE_FAULTS)
    assert {*HOSTILE_OFFERS, *SEVERAL, *OFFER_LIVES_S, *NOT_SERVED, *wire} <= FAULTS_AT["challenge"]
    assert AFTER_SETTLING | wire <= FAULTS_AT["payment"] and wire <= FAULTS_AT["purchase"] & FAULTS_AT["texts"]
    assert FAULTS_AT["posting"] == {"never-posts", "posts-late"}
    assert len(MPP_FAULTS) == len({fault.says for fault in MPP_FAULTS.values()})


@pytest.mark.parametrize("fault", MPP_FAULTS.values(), ids=lambda fault: fault.name)
def test_a_row_that_spends_nothing_never_claims_a_refill(fault: Any) -> None:
    """Credits come only for money that left, and money that may have left is said so."""
    if fault.expected_spent == "zero":
        assert fault.expected_result in {"refused", "waiting", "gone"}
    if fault.expected_result == "uncredited":
        assert (fault.expected_exit, fault.expected_spent) == (5, "one")
