"""Is a 402 of x402 read as its seller meant it, refused when it can be read in two ways, and answered to the byte?"""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import Oracle, x402
from topup.domain.demand import Finding
from topup.domain.errors import ChargeRefused
from topup.domain.json_document import RAW_BYTES_MAX, document
from topup.domain.typed_data import Authorization, Domain, authorization_digest, personal_digest
from topup.sandbox import contracts
from topup.sellers.x402_wire import (
    NOTHING,
    Assumed,
    Login,
    Offer,
    Settlement,
    demanded,
    listed,
    login_header,
    login_message,
    payment_header,
    settled,
)
from topup.wire.verbatim import Numeral, integer, write

Json = dict[str, Any]
PAYER = PrivateKey(b"\x11" * 32)
WALLET = PAYER.public_key.to_canonical_address()
VENICE = "0x2670B922ef37C7Df47158725C0CC407b5382293F"
SELLER = bytes.fromhex(VENICE[2:])
USDC = bytes.fromhex(contracts.USDC[2:])
NONCE = b"\x22" * 32
NOW = 1_763_880_000

EXACT_V2: Json = {
    "scheme": "exact",
    "network": "eip155:8453",
    "asset": contracts.USDC,
    "amount": "5000000",
    "payTo": VENICE,
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2"},
}
SOLANA: Json = {
    "scheme": "exact",
    "network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
    "asset": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "amount": "5000000",
    "payTo": "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin",
    "maxTimeoutSeconds": 300,
}
# Below what Venice sells nothing; the payer names more in its answer.
VENICE_402: Json = {"x402Version": 2, "accepts": [EXACT_V2, SOLANA]}
RICH_402: Json = {
    "x402Version": 2,
    "error": "payment required",
    "resource": {
        "url": "https://seller.example/topup",
        "description": "Crédits – 10 $",
        "mimeType": "application/json",
    },
    "accepts": [SOLANA, EXACT_V2],
    "extensions": {"bazaar": {"info": {"input": {"type": "http"}}, "schema": {"required": ["input"], "minimum": 3}}},
}
EXACT_V1: Json = {
    "scheme": "exact",
    "network": "base",
    "maxAmountRequired": "10000000",
    "resource": "https://inference.example/v1/credits/topup",
    "description": "10 dollars of credit",
    "mimeType": "application/json",
    "payTo": VENICE,
    "maxTimeoutSeconds": 60,
    "asset": contracts.USDC,
    "extra": {"name": "USD Coin", "version": "2"},
}
DRIA_402: Json = {"x402Version": 1, "error": "X-PAYMENT header is required", "accepts": [EXACT_V1]}


def raw_of(document: Any) -> bytes:
    return json.dumps(document).encode()


def header_of(document: Any) -> dict[str, str]:
    return {"PAYMENT-REQUIRED": base64.b64encode(raw_of(document)).decode()}


def opened(value: str) -> Json:
    document: Json = json.loads(base64.b64decode(value))
    return document


def offers(raw: bytes, assumed: Assumed = NOTHING) -> tuple[Offer, ...]:
    """Those that can be read."""
    return tuple(one for one in listed(raw, assumed) if isinstance(one, Offer))


def signed(digest: bytes) -> bytes:
    signature = PAYER.sign_msg_hash(digest).to_bytes()
    return bytes(signature[:64]) + bytes([signature[64] + 27])


def paying(
    offer: Offer, *, value: int | None = None, after: int = 0, until: int, nonce: bytes = NONCE
) -> Authorization:
    return Authorization(WALLET, offer.pay_to, offer.amount if value is None else value, after, until, nonce)


def answer(offer: Offer, authorization: Authorization) -> tuple[str, str]:
    """Sign for the token that the offer names, and write the header."""
    assert offer.name is not None
    assert offer.token_version is not None
    domain = Domain(offer.name, offer.token_version, offer.chain_id, offer.asset)
    return payment_header(offer, authorization, signed(authorization_digest(domain, authorization)))


# What a 402 says


def test_what_two_sellers_demand() -> None:
    """Venice's 402 is one offer on Base, whose amount is the least it takes; Solana is passed over.

    Dria's is a body of version 1, with the chain's old name and the amount's old field.
    """
    [offer] = offers(demanded(header_of(VENICE_402), b""))
    assert (offer.version, offer.scheme, offer.network, offer.chain_id) == (2, "exact", "eip155:8453", 8453)
    assert (offer.asset, offer.pay_to, offer.amount, offer.max_timeout_s) == (USDC, SELLER, 5_000_000, 300)
    assert (offer.name, offer.token_version, offer.raw) == ("USD Coin", "2", EXACT_V2)
    [offer] = offers(demanded({}, raw_of(DRIA_402)))
    assert (offer.version, offer.network, offer.chain_id, offer.amount) == (1, "base", 8453, 10_000_000)
    assert (offer.asset, offer.pay_to, offer.max_timeout_s) == (USDC, SELLER, 60)


def test_header_first() -> None:
    """Where header and body carry one, the header counts, in whatever case its name is written; else the body does."""
    name, value = next(iter(header_of(VENICE_402).items()))
    assert demanded({name.lower(): value}, raw_of(DRIA_402)) == raw_of(VENICE_402)
    assert offers(demanded({}, raw_of(RICH_402))) == offers(demanded(header_of(RICH_402), b"<html>"))


@pytest.mark.parametrize(
    ("version", "network", "chain_id"),
    [
        (1, "base-sepolia", 84532),
        *((1, network, None) for network in ("eip155:8453", "solana")),
        (2, "eip155:84532", 84532),
        *((2, network, None) for network in ("base", "eip155:08453", "eip155:8453 ", "EIP155:8453")),
        *((2, f"eip155:{digits}", None) for digits in ("\u0668\u0664\u0665\u0663", "8\u0664\u0665\u0663", "9" * 19)),
    ],
)
def test_networks(version: int, network: str, chain_id: int | None) -> None:
    """Each version has its own names for chains; an offer on another chain is passed over."""
    stated = (EXACT_V1 if version == 1 else EXACT_V2) | {"network": network}
    found = [offer.chain_id for offer in offers(raw_of({"x402Version": version, "accepts": [stated]}))]
    assert found == ([] if chain_id is None else [chain_id])


def test_nothing_is_judged() -> None:
    """Another scheme, a zero amount and a token without a name are well-formed; whether to pay is decided elsewhere."""
    stated = EXACT_V2 | {"scheme": "upto", "amount": "0", "extra": None}
    [offer] = offers(raw_of({"x402Version": 2, "accepts": [stated]}))
    assert (offer.scheme, offer.amount, offer.name, offer.token_version) == ("upto", 0, None, None)
    assert offers(raw_of({"x402Version": 2, "accepts": []})) == ()


DEEP = json.loads("[" * 50 + "]" * 50)
REFUSED: list[tuple[str, Any]] = [
    *(("x402Version", VENICE_402 | {"x402Version": version}) for version in (3, True, "2", 2.0)),
    ("x402Version", {"accepts": [EXACT_V2]}),
    ("accepts", {"x402Version": 2}),
    ("accepts", {"x402Version": 2, "accepts": {"0": EXACT_V2}}),
    ("accepts", {"x402Version": 2, "accepts": [{}] * 101}),
    ("answer", [VENICE_402]),
    ("resource", VENICE_402 | {"resource": "https://seller.example"}),
    *(("extensions", VENICE_402 | {"extensions": extensions}) for extensions in ([1], {"x": "\ud800"}, {"deep": DEEP})),
]
# What a field of an offer cannot be; the last ones are no field of the protocol, and spoil the offer as a whole.
FIELDS: dict[str, tuple[Any, ...]] = {
    "network": ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",),
    "scheme": (None, "", 1.5, "x" * 201, "exact\n"),
    "amount": (5_000_000, 5.5, "5e6", "-1", "5.0", "\u0665", "", str(2**256), "9" * 4000),
    "maxAmountRequired": ("5000001",),
    "asset": ("USDC", contracts.USDC[2:]),
    "payTo": ("facilitator", VENICE + "00", VENICE[:-1], VENICE + "\n", [VENICE]),
    "maxTimeoutSeconds": (0, "300", True, 300.0),
    "extra": ('{"name":"USD Coin"}',),
}
MALFORMED: list[tuple[str, Any]] = [
    ("", [EXACT_V2]),
    (".network", {"scheme": "exact"}),
    *((f".{field}", EXACT_V2 | {field: value}) for field, values in FIELDS.items() for value in values),
    *((f".{left}", {k: v for k, v in EXACT_V2.items() if k != left}) for left in ("amount", "maxTimeoutSeconds")),
    (".extra.name", EXACT_V2 | {"extra": {"name": 1}}),
    (".extra.version", EXACT_V2 | {"extra": {"name": "USD Coin", "version": 2}}),
    *(("", EXACT_V2 | more) for more in ({"note": "\ud800"}, {"\udfff": 1}, {"deep": DEEP}, {"long": 10**400})),
]


@pytest.mark.parametrize(("field", "document"), REFUSED)
def test_refused_as_a_whole(field: str, document: Any) -> None:
    """A document that is none of the protocol's, or of which nobody knows what would be echoed, is refused."""
    with pytest.raises(ChargeRefused) as caught:
        offers(raw_of(document))
    assert caught.value.field == field


@pytest.mark.parametrize(("field", "stated"), MALFORMED)
def test_malformed(field: str, stated: Any) -> None:
    """An offer that is not as the protocol has it is not read, its field is named, and those beside it are read."""
    document = {"x402Version": 2, "accepts": [EXACT_V2, stated, EXACT_V2]}
    first, unread, last = listed(raw_of(document))
    assert isinstance(unread, Finding)
    assert (unread.field, unread.right) == (f"accepts[1]{field}", False)
    assert len(unread.was) < 200 and unread.was.isascii()
    assert isinstance(first, Offer) and isinstance(last, Offer)
    assert (first.raw, last.raw) == (EXACT_V2, EXACT_V2)
    assert (first.index, last.index) == (0, 2)


def test_what_a_seller_leaves_out() -> None:
    """Version and life of an offer that does not say are taken from the seller's record, and from nowhere else."""
    stated = {name: one for name, one in EXACT_V2.items() if name not in ("maxTimeoutSeconds", "amount")}
    raw = raw_of({"accepts": [stated | {"maxAmountRequired": "5000000"}]})
    [offer] = offers(raw, Assumed(2, 60))
    assert (offer.version, offer.max_timeout_s, offer.amount) == (2, 60, 5_000_000)
    [said] = offers(raw_of({"x402Version": 2, "accepts": [EXACT_V2]}), Assumed(1, 60))
    assert (said.version, said.max_timeout_s) == (2, 300)
    with pytest.raises(ChargeRefused, match="x402Version"):
        offers(raw)


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("payTo", raw_of(VENICE_402).replace(b'"payTo"', b'"payTo": "0x00", "payTo"')),
        ("x402Version", b'{"x402Version": 1, "x402Version": 2, "accepts": []}'),
        ("answer", b'{"x402Version": 2, "accepts": [], "balance": NaN}'),
        ("answer", b'{"x402Version": 2, "accepts": [], "balance": -Infinity}'),
        ("answer", b'{"x402Version": 2, "accepts": []} {}'),
        ("answer", b"[" * 60_000),
        ("answer", b"\xff\xfe"),
        ("answer", b""),
        ("answer", b" " * (RAW_BYTES_MAX + 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_readings(field: str, raw: bytes) -> None:
    """A document that two readers may read differently, or that is none, is refused as a whole."""
    with pytest.raises(ChargeRefused) as caught:
        offers(raw)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "headers", "body"),
    [
        ("PAYMENT-REQUIRED", {"PAYMENT-REQUIRED": "!"}, b""),
        ("PAYMENT-REQUIRED", {"PAYMENT-REQUIRED": header_of(VENICE_402)["PAYMENT-REQUIRED"] + " "}, b""),
        ("PAYMENT-REQUIRED", {"PAYMENT-REQUIRED": "é"}, b""),
        ("PAYMENT-REQUIRED", {"PAYMENT-REQUIRED": "e30=", "payment-required": "e30="}, b""),
        ("PAYMENT-REQUIRED", httpx.Headers([("payment-required", "e30="), ("payment-required", "e30=")]), b""),
        ("answer", {"PAYMENT-REQUIRED": "A" * (2 * RAW_BYTES_MAX)}, b""),
        ("answer", {}, b" " * (RAW_BYTES_MAX + 1)),
    ],
)
def test_carrier(field: str, headers: dict[str, str], body: bytes) -> None:
    """A header that is no base64 or stands twice is refused, never replaced by the body; so is what is too long."""
    with pytest.raises(ChargeRefused) as caught:
        offers(demanded(headers, body))
    assert caught.value.field == field


def test_other_fractions() -> None:
    """A number outside of what is echoed, such as a balance, is read by nobody and harms nothing."""
    assert offers(raw_of(VENICE_402 | {"balanceUsd": 0.5})) == offers(raw_of(VENICE_402))
    for text in (b"1e999999999999999999999", b"9" * 5000, b"-0", b"1E-7"):
        told = b'{"x402Version": 2, "accepts": [], "balance": ' + text + b"}"
        assert offers(told) == ()


def jsons(*leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Documents of these leaves, and of those that JSON always has."""
    return st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), *leaves),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )


json_values = jsons(st.floats(), st.text(st.characters(), max_size=50))


@given(raw=st.binary(max_size=200) | json_values.map(raw_of))
def test_garbage(raw: bytes) -> None:
    """Whatever comes is refused or read, and never anything else."""
    for headers, body in (({}, raw), ({"Payment-Required": base64.b64encode(raw).decode()}, b"")):
        try:
            read = offers(demanded(headers, body))
        except ChargeRefused as refused:
            said = str(refused)
        else:
            said = ""
            assert all(isinstance(offer, Offer) for offer in read)
        assert len(said) < 500 and said.isascii()


# What a seller may write into a field; NaN and Infinity are no JSON, and refuse the document as a whole.
anything = jsons(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=50))


@given(field=st.sampled_from(sorted(EXACT_V2)), value=anything, first=st.booleans())
def test_one_field(field: str, value: Any, first: bool) -> None:  # noqa: FBT001
    """With anything in one field an offer is not read, or read with exactly that; the one beside it as if alone."""
    bent = EXACT_V2 | {field: value}
    read = listed(raw_of({"x402Version": 2, "accepts": [bent, EXACT_V2] if first else [EXACT_V2, bent]}))
    alone = listed(raw_of({"x402Version": 2, "accepts": [EXACT_V2]}))
    other, beside = read if first else read[::-1]
    assert isinstance(beside, Offer)
    assert replace(beside, index=0) == alone[0]
    if isinstance(other, Offer):
        assert write(other.raw) == write(document(raw_of(bent), integer=integer, fraction=Numeral))


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,6})?", fullmatch=True)


@given(texts=st.lists(numbers, max_size=5))
def test_numbers_are_echoed_to_the_digit(texts: list[str]) -> None:
    """A fraction in an example, a schema or a description is echoed as it stood: 22.50 stays 22.50."""
    example = "[" + ",".join(texts) + "]"
    extensions = '{"bazaar":{"info":{"output":{"example":{"price":' + example + "}}}}}"
    offer = json.dumps(EXACT_V2, separators=(",", ":"))[:-1] + ',"outputSchema":{"minimum":' + example + "}}"
    raw = '{"x402Version":2,"accepts":[' + offer + '],"extensions":' + extensions + "}"
    [read] = offers(raw.encode())
    _, value = payment_header(read, paying(read, until=NOW), b"\x01" * 65)
    echoed = base64.b64decode(value).decode()
    assert f'"accepted":{offer}' in echoed
    assert f'"extensions":{extensions}' in echoed


# What is answered


def test_more_than_the_least() -> None:
    """Where the amount is a minimum, the payer's own stands in the authorization and in what it accepts."""
    [offer] = offers(raw_of(VENICE_402))
    name, value = answer(offer, paying(offer, value=25_000_000, until=NOW))
    told = opened(value)
    assert name == "PAYMENT-SIGNATURE"
    assert told["accepted"] == EXACT_V2 | {"amount": "25000000"}
    assert told["payload"]["authorization"]["value"] == "25000000"


def test_never_another_recipient() -> None:
    """What was signed for somebody else is not sent to this seller."""
    [offer] = offers(raw_of(VENICE_402))
    with pytest.raises(AssertionError):
        answer(offer, paying(offer, until=NOW)._replace(recipient=b"\x77" * 20))


echoes = jsons(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))


@given(unknown=echoes, resource=st.dictionaries(st.text(max_size=8), echoes, max_size=3))
def test_echo(unknown: Any, resource: Json) -> None:
    """What we do not know in an offer or its resource goes back as it came."""
    stated = EXACT_V2 | {"unknown": unknown}
    [offer] = offers(raw_of({"x402Version": 2, "resource": resource, "accepts": [stated]}))
    _, value = answer(offer, paying(offer, until=NOW))
    assert value.isascii()
    assert opened(value)["accepted"] == stated
    assert opened(value)["resource"] == resource


# What became of it


TOLD = {"success": True, "payer": "0x" + "11" * 20, "transaction": "0x" + "22" * 32, "network": "eip155:8453"}
FAILED = {"success": False, "errorReason": "insufficient_funds\n", "transaction": "", "network": "base"}


@pytest.mark.parametrize(
    ("raw", "receipt"),
    [
        pytest.param(raw_of(TOLD), Settlement(True, b"\x22" * 32), id="it names the transaction"),
        pytest.param(raw_of(FAILED), Settlement(False, None), id="one of failure names none"),
        pytest.param(b'{"success": "true"}', Settlement(False, None), id="only the flag itself says success, no word"),
        *(pytest.param(raw, None, id=f"no object: {raw[:5]!r}") for raw in (b"[" * 60_000, b"[]", b"null", b"\xff")),
    ],
)
def test_settled(raw: bytes, receipt: Settlement | None) -> None:
    """What the seller's receipt says; what is no object is no receipt, and harms nobody."""
    value = base64.b64encode(raw).decode()
    for name in ("Payment-Response", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"):
        assert settled({name: value}) == receipt


@given(value=json_values.map(raw_of).map(lambda raw: base64.b64encode(raw).decode()) | st.text(max_size=50))
def test_any_receipt(value: str) -> None:
    """A receipt that says nothing readable is no receipt; whatever it holds, it is only a hash and one flag."""
    read = settled({"PAYMENT-RESPONSE": value})
    assert read is None or (
        isinstance(read.success, bool) and (read.transaction is None or len(read.transaction) == 32)
    )


# Logging in

SIGNER: Any = SimpleNamespace(address=WALLET, sign_login=lambda text: signed(personal_digest(text)))
LOGIN = Login(SIGNER, 8453)


def test_login() -> None:
    """The text is what the `siwe` package writes for the same login.

    The header holds wallet, text, signature, time and chain, and the signature is the wallet's over the text.
    """
    address, issued_ms = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", 1_795_417_200_000
    text = login_message(
        LOGIN,
        domain="api.venice.ai",
        uri="https://api.venice.ai",
        statement="Sign in to Venice API",
        nonce="0123456789abcdef",
        times_ms=(issued_ms, issued_ms + 600_000),
    )
    assert text == (
        f"api.venice.ai wants you to sign in with your Ethereum account:\n{address}\n\nSign in to Venice API\n\n"
        "URI: https://api.venice.ai\nVersion: 1\nChain ID: 8453\nNonce: 0123456789abcdef\n"
        "Issued At: 2026-11-23T07:00:00.000Z\nExpiration Time: 2026-11-23T07:10:00.000Z"
    )
    shown = {"address": address, "message": text, "signature": "0x" + signed(personal_digest(text)).hex()}
    assert opened(login_header(LOGIN, text, issued_ms)) == shown | {"timestamp": issued_ms, "chainId": 8453}


# The x402 package; tests/sellers/test_x402.py has a payment taken and settled by it.


@pytest.fixture(scope="module")
def package() -> Iterator[Oracle]:
    with x402() as oracle:
        yield oracle


@pytest.mark.parametrize("document", [VENICE_402 | {"accepts": [EXACT_V2]}, RICH_402, DRIA_402])
def test_same_bytes(package: Oracle, document: Json) -> None:
    """With nonce and time given, the package's client answers a 402 with the same header to the byte."""
    v1 = document["x402Version"] == 1
    headers, body = ({}, raw_of(document)) if v1 else (header_of(document), b"")
    told = package.ask(
        "pay", key=PAYER.to_hex(), headers=headers, body=body.decode(), nonce="0x" + NONCE.hex(), now=NOW
    )
    [offer] = offers(demanded(headers, body))
    authorization = paying(offer, after=NOW - 600 if v1 else 0, until=NOW + offer.max_timeout_s)
    assert told["headers"] == dict([answer(offer, authorization)])
    # A receipt as the package writes it is read.
    assert settled({"PAYMENT-RESPONSE": package.ask("response", **TOLD)["header"]}) == Settlement(True, b"\x22" * 32)
