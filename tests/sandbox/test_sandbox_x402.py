"""Do the sandbox's sellers for x402 take money exactly when the chain says so, whatever they answer?

The client here signs and encodes by itself, and needs of a seller only its URL and its key: neither the seller's
decoding nor the product's signing is used.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from eth_account import Account as Key
from eth_account.messages import encode_defunct

from tests.sandbox import paying
from tests.sandbox.paying import Clock, client_of, genesis
from tests.world.stage import authorized
from topup.sandbox import contracts
from topup.sandbox.charges import STRANGER
from topup.sandbox.evm import Evm
from topup.sandbox.fault import NOT_SERVED, SETTLED
from topup.sandbox.gateway import Account
from topup.sandbox.postings import tokens
from topup.sandbox.wire import WIRE_FAULTS
from topup.sandbox.x402 import SELLERS, Venice
from topup.sandbox.x402_faults import ANSWERS_INSTEAD, FAULTS_AT, HOSTILE_OFFERS
from topup.sandbox.x402_seller import RECIPIENT, X402Conduct, X402Seller

TEN: Final = 10_000_000
START: Final = 10 * TEN
L1_FEE_PER_BYTE: Final = 15_000_000
ENDLESS: Final = {"time-out", "trickle"}
IMPATIENCE_S: Final = 0.3
BOTH: Final = ("venice", "plain")
CHAINS: Final = {"base": 8453, "eip155:8453": 8453, "base-sepolia": 84532, "eip155:84532": 84532}


class Prompt(Evm):
    """A chain that makes a block as soon as `patience` transactions wait for one."""

    patience = 1

    def rpc(self, method: str, params: list[Any]) -> Any:
        answer = super().rpc(method, params)
        if method == "eth_sendRawTransaction" and self.pending() >= self.patience:
            self.mine()
        return answer


def pack(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def unpack(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(text, validate=True))
    return document


def offers(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the offers of a 402 on chains with an EVM, from the header of version 2 or the body of version 1."""
    assert answer.status_code == 402
    header = answer.headers.get("payment-required")
    document = unpack(header) if header else answer.json()
    return [one | {"x402Version": document["x402Version"]} for one in document["accepts"] if one["network"] in CHAINS]


@dataclass
class Wallet:
    """A key that pays an offer; `changes` make it sign something else, `lies` make it tell something else."""

    key: Any = field(default_factory=Key.create)

    @property
    def address(self) -> str:
        return str(self.key.address)

    def pay(
        self,
        offer: Mapping[str, Any],
        now_s: int,
        lies: Mapping[str, Any] | None = None,
        domain: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, str]:
        stated = {name: one for name, one in offer.items() if name != "x402Version"}
        signed: dict[str, Any] = {
            "from": self.address,
            "to": offer["payTo"],
            "value": int(offer.get("amount", offer.get("maxAmountRequired", 0))),
            "validAfter": 0,
            "validBefore": now_s + max(200, offer["maxTimeoutSeconds"]),
            "nonce": secrets.token_bytes(32),
            **changes,
        }
        named = {"chainId": CHAINS[offer["network"]], "verifyingContract": offer["asset"], **(domain or {})}
        signature = self.key.sign_message(authorized(signed.values(), **named)).signature
        told = {name: str(one) for name, one in signed.items()} | {"nonce": "0x" + signed["nonce"].hex()}
        payload = {"signature": "0x" + signature.hex(), "authorization": told | dict(lies or {})}
        if offer["x402Version"] == 1:
            v1 = {"x402Version": 1, "scheme": offer["scheme"], "network": offer["network"], "payload": payload}
            return {"x-payment": pack(v1)}
        accepted = stated | {"amount": str(signed["value"])}
        return {"payment-signature": pack({"x402Version": 2, "payload": payload, "accepted": accepted})}


def login(wallet: Wallet, url: str, now_ms: int, **changes: Any) -> dict[str, str]:
    """Return the header that logs a wallet in at this URL; `changes` make the login a bad one."""
    server = urlsplit(url)
    told: dict[str, Any] = {
        "domain": server.netloc,
        "address": wallet.address,
        "uri": f"{server.scheme}://{server.netloc}",
        "chain": 8453,
        "nonce": secrets.token_hex(8),
        "issued": now_ms,
        "expires": now_ms + 300_000,
        "signer": wallet,
        **changes,
    }

    def moment(ms: int) -> str:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    message = (
        f"{told['domain']} wants you to sign in with your Ethereum account:\n{told['address']}\n\n"
        f"Sign in to Venice API\n\nURI: {told['uri']}\nVersion: 1\nChain ID: {told['chain']}\nNonce: {told['nonce']}\n"
        f"Issued At: {moment(told['issued'])}\nExpiration Time: {moment(told['expires'])}"
    )
    signature = told["signer"].key.sign_message(encode_defunct(text=message)).signature.hex()
    proof = {"address": told["address"], "message": message, "signature": "0x" + signature}
    return {"sign-in-with-x": pack(proof | {"timestamp": now_ms, "chainId": told["chain"]})}


@dataclass
class Scene(paying.Scene[X402Seller]):
    """A seller, a wallet with 100 dollars, and the chain."""

    wallet: Wallet
    chain: Prompt

    @property
    def path(self) -> str:
        return "/x402/top-up" if isinstance(self.seller, Venice) else "/credits/topup"

    def key(self, key: str | None = None) -> dict[str, str]:
        return {} if isinstance(self.seller, Venice) else super().key(key)

    async def post(self, payment: Mapping[str, str] | None = None, body: str = '{"amount":"10"}') -> httpx.Response:
        return await self.posted(self.path, {**self.key(), **(payment or {})}, body)

    async def offer(self) -> dict[str, Any]:
        return offers(await self.post())[0]

    def pay(self, offer: Mapping[str, Any], **changes: Any) -> dict[str, str]:
        return self.wallet.pay(offer, self.clock.now_s(), **({"value": TEN} | changes))

    async def bought(self) -> httpx.Response:
        return await self.post(self.pay(await self.offer()))

    async def ask_balance(self, wallet: Wallet | None = None) -> httpx.Response:
        """Read the balance at Venice, logged in."""
        headers = login(wallet or self.wallet, self.seller.url, self.clock.ms)
        return await self.client.get(f"/x402/balance/{self.wallet.address}", headers=headers)

    async def balance(self) -> Decimal:
        if isinstance(self.seller, Venice):
            return Decimal(str((await self.ask_balance()).json()["data"]["balanceUsd"]))
        return Decimal((await self.client.get("/credits/balance", headers=self.key())).json()["balance_usdc"])

    def units(self, address: str) -> int:
        return tokens(self.chain, contracts.USDC, address)

    def moved(self) -> tuple[int, int]:
        """What left the wallet and what the recipient got, in units."""
        return START - self.units(self.wallet.address), self.units(RECIPIENT)


@asynccontextmanager
async def scene(profile: str, **conduct: Any) -> AsyncIterator[Scene]:
    clock, wallet = Clock(), Wallet()
    accounts = genesis(clock.now_s(), funded={}, l1_fee_per_byte=L1_FEE_PER_BYTE, usdc={wallet.address: START})
    chain = Prompt(accounts, now=clock.now_s, l1_fee_per_byte=L1_FEE_PER_BYTE)
    account = Account(clock.now_ms, total_usage=Decimal(15))
    seller = SELLERS[profile](account, chain, wallet.address, conduct=X402Conduct(**{"wait_s": 0, **conduct}))
    seller.wire.oversized_bytes = 1024 * 1024
    async with client_of(seller) as client:
        yield Scene(seller, client, clock, wallet, chain)


@pytest.fixture
def profile() -> str:
    return "venice"


@pytest.fixture
async def one(profile: str) -> AsyncIterator[Scene]:
    async with scene(profile) as made:
        yield made


# Asking.


async def test_venice_asks_for_at_least_five_dollars_on_base_or_solana(one: Scene) -> None:
    """402; header and body are the same document of version 2, without a key."""
    answer = await one.post(body="")
    document = unpack(answer.headers["payment-required"])
    assert answer.json() == document
    base, solana = document["accepts"]
    assert base == {
        "scheme": "exact",
        "network": "eip155:8453",
        "amount": "5000000",
        "asset": contracts.USDC,
        "payTo": RECIPIENT,
        "maxTimeoutSeconds": 300,
        "extra": {"name": "USD Coin", "version": "2"},
    }
    assert solana["network"].startswith("solana:")
    assert document["resource"]["url"].endswith("/api/v1/x402/top-up")


async def test_the_plain_seller_asks_for_what_was_ordered() -> None:
    """402 of version 1: the amount stands in the body, and nothing in a header."""
    async with scene("plain") as one:
        answer = await one.post(body='{"amount":"12.34"}')
        assert "payment-required" not in answer.headers
        (offer,) = answer.json()["accepts"]
        assert answer.json()["x402Version"] == 1
        assert (offer["network"], offer["maxAmountRequired"], offer["payTo"]) == ("base", "12340000", RECIPIENT)
        assert offer["resource"].endswith("/v1/credits/topup")
        # Neither nonsense, nor a number, nor less than the least is priced.
        for body in ("", "{}", "[]", '{"amount":10}', '{"amount":"1"}', '{"amount":"1e1"}'):
            assert (await one.post(body=body)).status_code == 400, body
        # A unit less or more than the price: 402 once more, with the reason.
        offer = await one.offer()
        for value in (TEN - 1, TEN + 1):
            answer = await one.post(one.pay(offer, value=value))
            assert answer.status_code == 402
            assert answer.json()["error"] == "invalid_exact_evm_payload_authorization_value"
        # Without its key, and with a wrong one: 401 everywhere, and nothing is settled.
        payment = one.pay(offer)
        for headers in ({}, {"authorization": "Bearer sk-wrong"}):
            answer = await one.client.post("/credits/topup", headers={**payment, **headers}, json={"amount": "10"})
            assert answer.status_code == 401
            assert (await one.client.get("/credits/balance", headers=headers)).status_code == 401
        assert one.moved() == (0, 0)


# Paying.


@pytest.mark.parametrize("profile", BOTH)
async def test_a_payment_moves_the_dollars_and_is_credited(one: Scene, profile: str) -> None:
    """200, a receipt with the transaction; the recipient has ten dollars, the account ten credits more."""
    before = await one.balance()
    answer = await one.bought()
    assert answer.status_code == 200, answer.text
    receipt = unpack(answer.headers["payment-response" if profile == "venice" else "x-payment-response"])
    mined = one.chain.rpc("eth_getTransactionReceipt", [receipt["transaction"]])
    assert (receipt["success"], receipt["payer"], mined["status"]) == (True, one.wallet.address.lower(), "0x1")
    assert receipt["network"] == ("eip155:8453" if profile == "venice" else "base")
    assert mined["from"] == one.seller.facilitator.address.lower()
    assert one.moved() == (TEN, TEN)
    assert await one.balance() == before + 10


async def test_venice_says_what_was_credited(one: Scene) -> None:
    """The payer chooses how much above the minimum."""
    answer = await one.post(one.pay(await one.offer(), value=7_250_000))
    assert answer.json()["success"] is True
    data = answer.json()["data"]
    assert (data["walletAddress"], data["amountCredited"]) == (one.wallet.address.lower(), 7.25)
    assert (data["newBalance"], data["paymentId"][:5]) == (12.25, "x402-")
    # It takes the older names of the header, and the older form of the payload, with the chain's short name.
    for name in ("x-402-payment", "x-payment"):
        (payment,) = one.pay(await one.offer() | {"x402Version": 1, "network": "base"}).values()
        assert (await one.post({name: payment})).status_code == 200
    assert one.moved() == (7_250_000 + 2 * TEN, 7_250_000 + 2 * TEN)


UNVERIFIED: Final = "PAYMENT_VERIFICATION_FAILED"
# What is signed, told or echoed instead of what was offered, and with which code it is refused.
BAD: Final[dict[str, tuple[dict[str, Any], dict[str, Any], str]]] = {
    "another recipient": ({"to": STRANGER}, {}, "INVALID_PAYMENT_RECIPIENT"),
    "too little": ({"value": 4_999_999}, {}, "AMOUNT_TOO_LOW"),
    "too much": ({"value": 10_000_000_001}, {}, "AMOUNT_TOO_HIGH"),
    "more than it has": ({"value": START + 1}, {}, UNVERIFIED),
    "not valid yet": ({"validAfter": 2**40}, {}, UNVERIFIED),
    "expired": ({"validBefore": 1_700_000_000}, {}, UNVERIFIED),
    "another signed nonce": ({"lies": {"nonce": "0x" + "ab" * 32}}, {}, UNVERIFIED),
    "another signed value": ({"lies": {"value": "6000000"}}, {}, "INVALID_AMOUNT"),
    "another payer": ({"lies": {"from": STRANGER}}, {}, UNVERIFIED),
    "a number for a text": ({"lies": {"value": TEN}}, {}, "INVALID_PAYMENT_FORMAT"),
    "another name of the token": ({"domain": {"name": "USDC"}}, {}, UNVERIFIED),
    "another chain signed": ({"domain": {"chainId": 1}}, {}, UNVERIFIED),
    "another token signed": ({"domain": {"verifyingContract": STRANGER}}, {}, UNVERIFIED),
    # An offer that was never given out cannot be accepted, however well it is signed.
    "another chain echoed": ({}, {"network": "eip155:84532"}, "UNSUPPORTED_NETWORK"),
    "another scheme echoed": ({}, {"scheme": "upto"}, "UNSUPPORTED_SCHEME"),
    "another token echoed": ({}, {"asset": STRANGER}, "INVALID_PAYMENT"),
    "a longer life echoed": ({}, {"maxTimeoutSeconds": 301}, "INVALID_PAYMENT"),
    "no domain echoed": ({}, {"extra": {}}, "INVALID_PAYMENT"),
    "more than was offered": ({}, {"more": "than was offered"}, "INVALID_PAYMENT"),
}


async def test_venice_refuses_what_its_token_would_not_take(one: Scene) -> None:
    """400 with a code and a reason, and nothing moves."""
    offer = await one.offer()
    for what, (changes, echoed, code) in BAD.items():
        answer = await one.post(one.pay(offer | echoed, **changes))
        assert (answer.status_code, answer.json()["error"]) == (400, code), what
        assert echoed or answer.json()["details"]["reason"]
    # Neither garbage nor half a payment is taken for one.
    for header in ("", "%%", "bm90IGpzb24=", pack([]), pack({"x402Version": 2}), pack({})):
        answer = await one.post({"payment-signature": header})
        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_PAYMENT_FORMAT"), header
    assert one.moved() == (0, 0)


# Paying again.


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize("again", ["answers", "refuses"])
async def test_a_payment_is_taken_once(profile: str, again: str) -> None:
    """The same header once more: the same answer or a refusal, and one payment and one credit in either case."""
    async with scene(profile, again=again) as one:
        payment = one.pay(await one.offer())
        first, second = await one.post(payment), await one.post(payment)
        refusal = 400 if profile == "venice" else 402
        assert (first.status_code, second.status_code) == (200, 200 if again == "answers" else refusal)
        assert one.moved() == (TEN, TEN)
        assert await one.balance() == 15


async def test_a_second_seller_sees_that_a_payment_was_used(one: Scene) -> None:
    """What this seller never settled is told by the token: the nonce is used."""
    payment = one.pay(await one.offer())
    await one.post(payment)
    one.seller.settlements.clear()
    answer = await one.post(payment)
    assert answer.json()["details"]["reason"] == "invalid_exact_evm_nonce_already_used"
    assert one.moved() == (TEN, TEN)


async def test_a_payment_that_is_being_settled_is_not_settled_beside() -> None:
    """409 for the second of two at once; both were one payment."""
    async with scene("venice", wait_s=5) as one:
        one.chain.patience = 99
        payment = one.pay(await one.offer())
        first = asyncio.create_task(one.post(payment))
        while not one.chain.pending():  # noqa: ASYNC110 - a chain does not call back
            await asyncio.sleep(0.01)
        second = await one.post(payment)
        one.chain.mine()
        assert (second.status_code, second.json()["error"]) == (409, "PAYMENT_IN_PROGRESS")
        assert (await first).status_code == 200
        assert one.moved() == (TEN, TEN)


async def test_a_slow_chain_is_not_waited_for_without_end(one: Scene) -> None:
    """504 while it is in no block; credited by the poll after it is; the same payment again is answered then."""
    one.chain.patience = 99
    payment = one.pay(await one.offer())
    for _ in range(2):
        answer = await one.post(payment)
        assert (answer.status_code, answer.json()["error"]) == (504, "SETTLEMENT_TIMEOUT")
        # A transfer that fell out of the pool is sent again: the authorization is still good.
        assert one.chain.drop_pending() == 1
    await one.post(payment)
    one.chain.mine()
    one.poll()
    assert await one.balance() == 15
    assert (await one.post(payment)).status_code == 200
    assert one.moved() == (TEN, TEN)


async def test_a_transfer_that_reverts_buys_nothing(one: Scene) -> None:
    """The payer emptied the wallet between the check and the block: 402, no credit."""
    payment = one.pay(await one.offer())
    (emptied,) = contracts.usdc_balance(one.wallet.address, 0)
    one.chain.before_mine.append(lambda: one.chain.set_storage(emptied.address, emptied.slot, emptied.value))
    answer = await one.post(payment)
    assert (answer.status_code, answer.json()["error"]) == (402, "SETTLEMENT_FAILED")
    one.poll()
    assert one.units(RECIPIENT) == 0
    assert await one.balance() == 5


# Accounts.


# Another site, another chain, too old, too long, or signed by somebody else.
BAD_LOGINS: Final[list[dict[str, Any]]] = [
    {"domain": "api.venice.example"},
    {"uri": "https://api.venice.example"},
    {"chain": 1},
    {"nonce": "short"},
    *({"expires": expires} for expires in (1_700_000_000_000, 2**41)),
    {"issued": 2**41, "expires": 2**41 + 1000},
    {"address": STRANGER},
    {"signer": Wallet()},
]


async def test_a_wallet_logs_in_to_read_its_balance_and_nobody_elses(one: Scene) -> None:
    """200 for its own, 403 for another's, 402 without a login, 400 for no address, 401 for a bad login."""
    data = (await one.ask_balance()).json()["data"]
    assert data["balanceUsd"] == 5 and data["canConsume"] is True
    assert (data["walletAddress"], data["minimumTopUpUsd"]) == (one.wallet.address.lower(), 5)
    assert (await one.ask_balance(Wallet())).status_code == 403
    path = f"/x402/balance/{one.wallet.address}"
    assert (await one.client.get(path)).status_code == 402
    assert (await one.client.get("/x402/balance/0x1234")).status_code == 400
    for change in BAD_LOGINS:
        headers = login(one.wallet, one.seller.url, one.clock.ms, **change)
        assert (await one.client.get(path, headers=headers)).status_code == 401, change
    # A login is good once: whoever overhears it cannot use it again.
    headers = login(one.wallet, one.seller.url, one.clock.ms)
    assert [(await one.client.get(path, headers=headers)).status_code for _ in range(2)] == [200, 401]


async def test_another_wallets_payment_fills_its_own_account(one: Scene) -> None:
    """Credits belong to the wallet that paid."""
    other = Wallet()
    (write,) = contracts.usdc_balance(other.address, TEN)
    one.chain.set_storage(write.address, write.slot, write.value)
    answer = await one.post(other.pay(await one.offer(), one.clock.now_s(), value=TEN))
    assert answer.json()["data"]["newBalance"] == 10
    assert await one.balance() == 5


# Faults.


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize("fault", sorted(ANSWERS_INSTEAD))
async def test_a_spoilt_answer_says_nothing_of_the_money(profile: str, fault: str) -> None:
    """The same bad answer before settling and after it: only the chain tells them apart."""
    for name, moved in ((fault, 0), (SETTLED + fault, TEN)):
        async with scene(profile) as one:
            one.seller.switch_on("payment", name)
            payment = one.pay(await one.offer())
            one.patience_s = IMPATIENCE_S if fault in ENDLESS else 10
            with suppress(httpx.HTTPError, TimeoutError):
                answer = await one.post(payment)
                assert answer.status_code != 200 or fault in WIRE_FAULTS
            assert one.moved() == (moved, moved)
            assert one.seller.count("payment") == 1


ONE_THING: Final[dict[str, tuple[str, Any]]] = {
    "other-recipient": ("payTo", STRANGER),
    "other-chain": ("network", "eip155:84532"),
    **{name: ("amount", amount) for name, amount in (("double-amount", "10000000"), ("smaller-amount", "2500000"))},
    "zero-amount": ("amount", "0"),
    **{name: ("maxTimeoutSeconds", seconds) for name, seconds in (("no-time", 0), ("tiny-timeout", 1))},
    "no-extra": ("extra", None),
    "other-name": ("extra", {"name": "USDC", "version": "2"}),
    "other-scheme": ("scheme", "upto"),
}


async def test_a_hostile_offer_has_one_thing_wrong(one: Scene) -> None:
    """All else is as in the honest offer."""
    honest = await one.offer()
    for fault, (name, value) in ONE_THING.items():
        one.seller.switch_on("offer", fault, 1)
        hostile = await one.offer()
        assert hostile.get(name) == value != honest[name], fault
        assert {**hostile, name: 0} == {**honest, name: 0}
        assert await one.offer() == honest
    # Garbage is no base64, a huge one breaks the client's parser, Solana alone is no offer of ours.
    one.seller.switch_on("offer", "garbage", 1)
    assert (await one.post()).headers["payment-required"] == "%%"
    one.seller.switch_on("offer", "huge-header", 1)
    with pytest.raises(httpx.RemoteProtocolError):
        await one.post()
    one.seller.switch_on("offer", "solana-only", 1)
    assert offers(await one.post()) == []
    for fault in ("not-found-404", "not-implemented-501", "gone-410"):
        one.seller.switch_on("offer", fault, 1)
    assert [(await one.post()).status_code for _ in range(4)] == [404, 501, 410, 402]


@pytest.mark.parametrize("profile", BOTH)
async def test_whoever_pays_a_strangers_offer_has_paid_the_stranger(one: Scene, profile: str) -> None:
    """The trap is real: a client that falls for it loses the money."""
    one.seller.switch_on("offer", "stranger-too")
    stranger, honest = offers(await one.post())
    assert (stranger["payTo"], honest["payTo"]) == (STRANGER, RECIPIENT)
    assert (await one.post(one.pay(stranger))).status_code == 200
    assert (one.units(STRANGER), one.units(RECIPIENT)) == (TEN, 0)


async def test_a_receipt_may_be_missing_or_name_another_transaction() -> None:
    """Both times the money has moved."""
    async with scene("plain") as one:
        one.seller.switch_on("payment", "no-receipt", 1)
        one.seller.switch_on("payment", "lying-receipt", 1)
        silent, lying = await one.bought(), await one.bought()
        assert "x-payment-response" not in silent.headers
        named = unpack(lying.headers["x-payment-response"])["transaction"]
        assert one.chain.rpc("eth_getTransactionReceipt", [named]) is None
        assert one.moved() == (2 * TEN, 2 * TEN)
        # Twenty dollars for ten credits: a client that pays such an offer is cheated, and can see it.
        before = await one.balance()
        one.seller.switch_on("offer", "double-amount")
        assert (await one.post(one.pay(await one.offer(), value=2 * TEN))).status_code == 200
        assert one.moved() == (4 * TEN, 4 * TEN)
        assert await one.balance() == before + 10


@pytest.mark.parametrize("profile", BOTH)
async def test_two_readers_may_read_a_doubled_name_differently(one: Scene, profile: str) -> None:
    """The recipient stands there twice, the stranger first."""
    one.seller.switch_on("offer", "duplicate-keys")
    answer = await one.post()
    header = answer.headers.get("payment-required")
    text = base64.b64decode(header).decode() if header else answer.text
    first = json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert first["accepts"][0]["payTo"] == STRANGER
    assert json.loads(text)["accepts"][0]["payTo"] == RECIPIENT


@pytest.mark.parametrize("profile", BOTH)
async def test_a_redirect_would_carry_the_payment_elsewhere(one: Scene, profile: str) -> None:
    """307 keeps method, body and headers: a client that follows it hands the signature over."""
    payment = one.pay(await one.offer())
    one.seller.switch_on("payment", "redirect-307")
    assert (await one.post(payment)).status_code == 307
    assert one.seller.elsewhere.requests == []
    await one.client.post(one.path, headers={**one.key(), **payment}, json={"amount": "10"}, follow_redirects=True)
    (seen,) = one.seller.elsewhere.requests
    assert set(payment) < set(seen.headers)
    assert one.moved() == (0, 0)


@pytest.mark.parametrize(
    ("fault", "status", "later"),
    [
        ("settles-late", 504, True),
        ("refuses-settles-late", 402, True),
        ("never-settles", 504, False),
        ("accepts-never-settles", 200, False),
    ],
)
async def test_what_was_not_settled_may_be_settled_later(one: Scene, fault: str, status: int, *, later: bool) -> None:
    """Ten seconds after the answer the dollars move, and are credited, even if the answer denied it.

    What is never settled is never credited, not even if it was thanked for, with a transaction that does not exist.
    """
    one.seller.switch_on("payment", fault)
    answer = await one.bought()
    assert answer.status_code == status
    one.poll()
    assert one.moved() == (0, 0)
    one.poll(10_000 if later else 3_600_000)
    one.poll()
    assert one.moved() == ((TEN, TEN) if later else (0, 0))
    assert await one.balance() == (15 if later else 5)
    if status == 200:
        named = unpack(answer.headers["payment-response"])["transaction"]
        assert one.chain.rpc("eth_getTransactionByHash", [named]) is None


async def test_a_facilitator_that_sends_twice_moves_the_dollars_once(one: Scene) -> None:
    """Both transactions are in the block; the token refuses the second."""
    one.chain.patience = 2
    one.seller.switch_on("payment", "settles-twice")
    assert (await one.bought()).status_code == 200
    block = one.chain.rpc("eth_getBlockByNumber", ["latest", False])["transactions"]
    assert [one.chain.rpc("eth_getTransactionReceipt", [sent])["status"] for sent in block] == ["0x1", "0x0"]
    assert one.moved() == (TEN, TEN)
    assert await one.balance() == 15


@pytest.mark.parametrize("profile", BOTH)
async def test_credits_may_come_late_or_never(one: Scene, profile: str) -> None:
    """Settled at once; credited after an hour, and not as long as the seller will not."""
    one.seller.switch_on("posting", "posts-late")
    await one.bought()
    assert one.moved() == (TEN, TEN)
    assert await one.balance() == 5
    one.poll(3_600_000)
    assert await one.balance() == 15
    one.seller.switch_off()
    one.seller.switch_on("posting", "never-posts")
    await one.bought()
    one.poll(24 * 3_600_000)
    assert one.moved() == (2 * TEN, 2 * TEN)
    assert await one.balance() == 15


async def test_the_balance_may_lie(one: Scene) -> None:
    """Zero of a funded account, no number, or the same for ever."""
    one.seller.switch_on("balance", "zero-balance", 1)
    one.seller.switch_on("balance", "nan", 1)
    one.seller.switch_on("balance", "frozen")
    assert await one.balance() == 0
    assert (await one.balance()).is_nan()
    assert await one.balance() == 5
    await one.bought()
    assert await one.balance() == 5
    one.seller.switch_off("balance")
    assert await one.balance() == 15


def test_every_fault_is_in_the_table() -> None:
    """Whatever the seller can do wrong has a row that says what must come of it."""
    wire = set(WIRE_FAULTS)
    assert {*HOSTILE_OFFERS, *NOT_SERVED, *wire} <= FAULTS_AT["offer"] and wire <= FAULTS_AT["balance"]
    assert wire | ANSWERS_INSTEAD | {SETTLED + name for name in ANSWERS_INSTEAD} <= FAULTS_AT["payment"]
