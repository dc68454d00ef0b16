"""Is a 402 of the Payment scheme read as its seller meant it, refused when it can be read in two ways, and answered?"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import pytest
from eth_keys.datatypes import PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.oracles import Oracle, mppx, pympp
from topup.domain.errors import ChargeRefused
from topup.sellers.mpp_wire import (
    CHARACTERS_MAX,
    Challenge,
    TempoCharge,
    challenges,
    credential,
    demanded,
    memo,
    payer,
    settled,
    tempo_charge,
)

Json = dict[str, Any]
KEY: Final = PrivateKey(b"\x11" * 32)
WALLET: Final = KEY.public_key.to_canonical_address()
ROOT: Final = b"\x13" * 20
USDC_E: Final = "0x20C000000000000000000000b9537d11c60E8b50"
TOKEN: Final = bytes.fromhex(USDC_E[2:])
SELLER: Final = "0x2670B922ef37C7Df47158725C0CC407b5382293F"
RECIPIENT: Final = bytes.fromhex(SELLER[2:])
CHAIN_ID: Final = 4217
NOW: Final = 1_795_417_200  # 2026-11-23 07:00:00 UTC
PRICE: Final = 12 * 10**9
ASKED: Final[Json] = {
    "amount": "10000000",
    "currency": USDC_E,
    "recipient": SELLER,
    "methodDetails": {"chainId": CHAIN_ID, "supportedModes": ["pull"]},
}
# In the order in which both reference implementations know them.
NAMES: Final = ("id", "realm", "method", "intent", "request", "description", "digest", "expires", "header", "opaque")


def packed(document: Any) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def opened(value: str) -> Json:
    scheme, _, text = value.partition(" ")
    assert scheme == "Payment"
    document: Json = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return document


def stated(request: Any = ASKED, **more: str) -> dict[str, str]:
    named = {"id": "a-seal", "realm": "openrouter.ai", "method": "tempo", "intent": "charge"}
    return named | {"request": packed(request)} | more


def line_of(parameters: Mapping[str, str]) -> str:
    return "Payment " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def asking(request: Any = ASKED, **more: str) -> TempoCharge:
    [challenge] = challenges([line_of(stated(request, **more))])
    return tempo_charge(challenge)


def detailed(**details: Any) -> Json:
    return ASKED | {"methodDetails": ASKED["methodDetails"] | details}


@pytest.fixture(scope="module")
def python_package() -> Iterator[Oracle]:
    with pympp() as oracle:
        yield oracle


@pytest.fixture(scope="module")
def node_package() -> Iterator[Oracle]:
    with mppx() as oracle:
        yield oracle


# What a header says


def test_several_lines() -> None:
    """Each line and each challenge in a line is a way to pay, in the seller's order; other schemes are passed over."""
    card = stated({"amount": "1000"}) | {"id": "card", "method": "stripe"}
    lines = [
        'Bearer realm="openrouter.ai", error="invalid, Payment id=x"',
        f"{line_of(stated())}, Negotiate YWJj==, {line_of(card)}, Basic",
        f"Digest , ,,{line_of(stated(id='last'))},",
    ]
    assert [challenge.id for challenge in challenges(lines)] == ["a-seal", "card", "last"]
    assert challenges([]) == challenges(lines[:1]) == ()


def test_every_parameter() -> None:
    """Every parameter stays, in its order: quoted or not, with commas and quotes inside, whether known or not."""
    spaced = 'pAyMeNt  ID = a-seal ,realm="a, \\"b\\" = c\\\\",,  METHOD=tempo, intent="charge",request="e30",X-New="" '
    [challenge] = challenges([spaced])
    assert challenge.parameters == (
        *(("id", "a-seal"), ("realm", 'a, "b" = c\\'), ("method", "tempo"), ("intent", "charge")),
        *(("request", "e30"), ("x-new", "")),
    )
    assert (challenge.realm, challenge.get("x-old"), challenge.header) == ('a, "b" = c\\', "", "Authorization")
    # What both reference implementations write as an escape of UTF-16 is the character it stands for.
    [challenge] = challenges([line_of(stated(description=r"10 \u2013 \uD83d\ude00 \u00zz"))])
    assert challenge.get("description") == "10 – 😀 u00zz"


# What breaks the grammar, says something twice or holds what no header should, behind a whole challenge.
BROKEN = [
    *(', realm="openrouter.ai"', ', Realm="other"', ' x="y"', ', x="y', ', x="y"z', ", x=", ", x=a/b", ', x="é"'),
    *(', x="a\tb"', ', x="a\r\nb"', ', x="\0"', r', x="\u000a"', r', x="\uD800"', r', x="\uDC00\uD800"'),
    *(", YWJj==", ', Bearer, x="y"', "\t, Bearer"),
]


@pytest.mark.parametrize(
    "line",
    [
        *(line_of(stated()) + more for more in BROKEN),
        line_of(stated()).replace('", ', '" '),
        line_of(stated()).replace("Payment ", "Payment, "),
        line_of(stated()).replace("Payment ", 'x="y", Payment '),
        "\n" + line_of(stated()),
        '"Payment"',
    ],
)
def test_two_readings(line: str) -> None:
    """A header that breaks the grammar, says something twice or holds what no header should is refused as a whole."""
    with pytest.raises(ChargeRefused) as refused:
        challenges([line_of(stated()), line])
    assert str(refused.value).isascii()


def test_lacking() -> None:
    """A challenge without one of the five parameters that make it has one reading, and is refused by name alone."""
    for name in ("id", "realm", "method", "intent", "request"):
        without = {key: value for key, value in stated().items() if key != name}
        for parameters in (without, without | {name: ""}):
            lacking, beside = challenges([line_of(parameters), line_of(stated())])
            with pytest.raises(ChargeRefused) as refused:
                tempo_charge(lacking)
            assert refused.value.field == f"WWW-Authenticate.{name}"
            assert isinstance(tempo_charge(beside), TempoCharge)
    # A scheme that says nothing is a challenge that cannot be paid, and spoils none beside it.
    for line in ("Payment", 'Payment, Bearer realm="x"', "Payment e30"):
        assert [bool(one.parameters) for one in challenges([line, line_of(stated())])] == [False, True]


HOSTILE = {
    "spaces": "Payment" + " " * (CHARACTERS_MAX - 8) + "\\",
    "token": "Payment a=" + "b" * (CHARACTERS_MAX - 12) + "\\",
    "backslashes": 'Payment a="' + "\\\\" * (CHARACTERS_MAX // 2 - 8),
    "schemes": "a," * (CHARACTERS_MAX // 2 - 2) + '"',
    "parameters": "Payment " + ",".join(f"a{n}=b" for n in range(8_000)) + ",\\",
    "equals": "Payment a" + " =" * (CHARACTERS_MAX // 2 - 8),
    "padding": "Payment YQ" + "=" * (CHARACTERS_MAX - 16) + "\\",
    "deep": line_of(stated(b"[" * 48_000)),
    "large": line_of(stated(b"9" * 5_000)),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_no_slow_input(hostile: str) -> None:
    """No header takes longer than its length deserves."""
    start = time.process_time()
    with pytest.raises(ChargeRefused):
        [*map(demanded, challenges([hostile]))]
    assert time.process_time() - start < 1


def test_long() -> None:
    """Sixty thousand characters are read; what is longer in all is refused."""
    long = line_of(stated(description="x" * 60_000))
    assert len(challenges([long])) == 1
    with pytest.raises(ChargeRefused):
        challenges([long] * 2)


# What a challenge asks for


def test_asked_for() -> None:
    """Amount, token, recipient, chain and modes are read from `request`, the end from beside it, rounded down."""
    honest = TempoCharge(10_000_000, TOKEN, RECIPIENT, CHAIN_ID, False, (), None, ("pull",), NOW)
    assert asking(expires="2026-11-23T08:00:00.999+01:00") == honest
    # What a challenge does not say is nothing here, and never a default.
    told = asking({"amount": "0", "currency": USDC_E, "recipient": SELLER})
    assert told == TempoCharge(0, TOKEN, RECIPIENT, None, False, (), None, None, None)
    # A sponsor, other recipients, a memo, another chain and other modes are seen.
    splits = [{"amount": "1", "recipient": SELLER}]
    told = asking(detailed(feePayer=True, splits=splits, memo="0xab", supportedModes=["push"], chainId=42431))
    assert (told.fee_payer, told.splits, told.memo, told.modes) == (True, tuple(splits), "0xab", ("push",))
    assert told.chain_id == 42431


# What a field of the request, or of its methodDetails, cannot be.
FIELDS: dict[str, tuple[Any, ...]] = {
    "amount": (10_000_000, "1e7", "-1", "1.0", "\u0661", " 1", str(2**256), "9" * 10_000),
    "x": (0.5, float("nan")),
    "currency": (USDC_E[:-1], "usd"),
    "recipient": (None, SELLER + "00"),
    "methodDetails": ([],),
}
DETAILS: dict[str, tuple[Any, ...]] = {
    "chainId": ("4217", True, None),
    "feePayer": ("false", 0),
    "splits": ({},),
    "memo": (7,),
    "supportedModes": ("pull", [["pull"]]),
}
MALFORMED: list[Any] = [
    *([], {}, b"\xff", b"{", b'{"amount": "1", "amount": "2"}'),
    json.dumps(ASKED).encode().replace(b'"chainId"', b'"chainId": 1, "chainId"'),
    *(ASKED | {name: value} for name, values in FIELDS.items() for value in values),
    {name: value for name, value in ASKED.items() if name != "recipient"},
    *(detailed(**{name: value}) for name, values in DETAILS.items() for value in values),
]


@pytest.mark.parametrize("request_", MALFORMED)
def test_malformed_request(request_: Any) -> None:
    """A request that is no JSON object of the right types, or says something twice, is refused in a short sentence."""
    with pytest.raises(ChargeRefused) as refused:
        asking(request_)
    assert str(refused.value).isascii() and len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["e31", "e30=", "e3 0", "e30\\n", "e+0", "e", "é"])
def test_no_base64url(text: str) -> None:
    """What is not the one way to write its bytes in base64url is refused; `e30` is the empty object."""
    assert demanded(Challenge((("request", "e30"),))) == {}
    with pytest.raises(ChargeRefused):
        demanded(Challenge((("request", text),)))


NO_MOMENTS = [
    *("2026-11-23", "2026-11-23T07:00:00", "2026-11-23 07:00:00Z", "20261123T070000Z", "2026-13-23T07:00:00Z"),
    *("2026-11-23T07:00:60Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "1795417200", "soon"),
    *("2026-11-23T07:00:00.Z", "2026-11-23T07:00:00+01:0²"),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "stripe"), ("intent", "session"), *(("expires", moment) for moment in NO_MOMENTS)],
)
def test_no_charge_of_ours(name: str, value: str) -> None:
    """One of another method or intent is not read as a Tempo charge.

    An end that is no moment of RFC 3339 after 1970 is refused, not taken for none.
    """
    with pytest.raises(ChargeRefused, match=f"^{name}"):
        tempo_charge(Challenge(tuple((stated() | {name: value}).items())))


@given(
    moment=st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29)),  # noqa: DTZ001 - the zone comes next
    east=st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_any_moment(moment: datetime, east: timezone) -> None:
    """Every moment in every zone is read, rounded down to the second."""
    there = moment.replace(tzinfo=east)
    assert asking(expires=there.isoformat()).expires == int(there.replace(microsecond=0).timestamp())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
header_text = st.text(st.sampled_from('Payment id="\\=, u00e9Bear\té/+'), max_size=60)


@example(raw="", line="Payment")
@given(raw=st.binary(max_size=100).map(packed) | json_values.map(packed) | st.text(max_size=20), line=header_text)
def test_garbage(raw: str, line: str) -> None:
    """Whatever comes is refused or read, and never anything else."""
    for lines in ([line], [line_of(stated()), line], [line_of(stated(request=raw) | {"request": raw})]):
        try:
            read = challenges(lines)
            told = [tempo_charge(challenge) for challenge in read]
        except ChargeRefused as refused:
            said = str(refused)
        else:
            said = ""
            assert all(isinstance(charge, TempoCharge) for charge in told)
            assert all(dict(challenge.parameters).keys() >= stated().keys() for challenge in read)
        assert said.isascii() and len(said) < 500


# How it is answered


characters = st.characters(exclude_categories=["Cs", "Cc"])
values = st.text(characters, max_size=30)
tokens = st.text(st.sampled_from("abcXYZ019-_.!~"), min_size=1, max_size=12)


def quoted(value: str) -> str:
    """Write a value as both reference implementations do, all beyond ASCII as they do it beyond Latin-1."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)


@given(more=st.dictionaries(tokens.map(str.lower), values, max_size=5), realm=values.filter(bool), upper=st.booleans())
def test_echo(more: dict[str, str], realm: str, upper: bool) -> None:  # noqa: FBT001
    """Every parameter goes back with the value that it came with, whatever it is called and whatever it holds."""
    parameters = {**more, **stated(), "realm": realm}
    line = ", ".join(f'{name.upper() if upper else name}="{quoted(value)}"' for name, value in parameters.items())
    [challenge] = challenges([f"Payment {line}"])
    assert challenge.parameters == tuple(parameters.items())
    value = credential(challenge, {"type": "transaction"}, "did:x")
    assert value.isascii() and value.isprintable() and "=" not in value
    assert opened(value) == {"challenge": parameters, "payload": {"type": "transaction"}, "source": "did:x"}


def test_receipts_that_say_nothing() -> None:
    """What is no object is no receipt; one that names no transaction, or success otherwise, is weak."""
    for nothing in ("", "é", "e3", packed([]), packed(b"[" * 40_000), packed(b"\xff"), packed(b"9" * 5_000)):
        assert settled(nothing) is None
    assert settled(packed({"status": True, "method": 7, "reference": "0xab"})) is None
    told = {"status": "success", "method": "té\n", "reference": "0x" + "AB" * 32}
    assert settled(packed(told) + "==") == b"\xab" * 32


# The reference implementations; tests/sellers/test_mpp.py pays sellers on both


requests = st.fixed_dictionaries(
    {"amount": st.integers(0, 2**256 - 1).map(str), "currency": st.just(USDC_E), "recipient": st.just(SELLER)},
    optional={"description": values, "externalId": values, "methodDetails": st.just({"chainId": CHAIN_ID})},
)
beside = st.fixed_dictionaries(
    {},
    optional={
        "expires": st.just("2026-11-23T07:00:00.500Z"),
        "digest": st.just("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        # What lies between ASCII and the end of Latin-1 they write as a byte that no header should hold.
        "description": st.text(characters.filter(lambda one: not 0x7F < ord(one) < 0x100), min_size=1, max_size=30),
        "header": st.just("Payment-Authorization"),
    },
)


@settings(deadline=None)
@given(realm=tokens, request_=requests, more=beside, opaque=st.none() | st.dictionaries(tokens, values, max_size=2))
def test_issued_by_pympp(
    python_package: Oracle, realm: str, request_: Json, more: dict[str, str], opaque: dict[str, str] | None
) -> None:
    """What pympp issues is read as it reads it itself, and it knows its own challenge again in our answer."""
    line = python_package.ask("issue", realm=realm, request=request_, meta=opaque, **more)["line"]
    [challenge] = challenges([line])
    told = python_package.ask("read", line=line)
    assert demanded(challenge) == told.pop("demanded") == request_
    assert dict(challenge.parameters) == {name: value for name, value in told.items() if value is not None}
    answered = python_package.ask("verify", value=credential(challenge, {"type": "transaction"}, "did:x"))
    assert answered == {"own": True, "payload": {"type": "transaction"}, "source": "did:x"}


@pytest.mark.parametrize("details", [{"chainId": CHAIN_ID}, {"chainId": 1, "supportedModes": ["push"]}, {}])
@pytest.mark.parametrize(
    "more", [{}, {"expires": "2026-11-23T07:00:00.500Z", "header": "Payment-Authorization", "description": 'a, "b" –'}]
)
def test_issued_by_mppx(node_package: Oracle, details: Json, more: dict[str, str]) -> None:
    """What mppx issues is read as it reads it itself, and it knows its own challenge again in our answer."""
    request = {"amount": "12.5", "decimals": 6, "currency": USDC_E, "recipient": SELLER, **details}
    line = node_package.ask("issue", realm="openrouter.ai", request=request, meta={"a": "b"}, **more)["line"]
    [challenge, other] = challenges([f'Bearer realm="x", {line}, {line_of(stated())}'])
    charge = tempo_charge(challenge)
    assert (charge.amount, charge.currency, charge.recipient) == (12_500_000, TOKEN, RECIPIENT)
    assert charge.chain_id == details.get("chainId")
    assert charge.expires == (NOW if more else None)
    [told, same] = node_package.ask("read", line=f'Bearer realm="x", {line}, {line_of(stated())}')["challenges"]
    assert (demanded(challenge), demanded(other)) == (told.pop("request"), same["request"])
    assert {name: value for name, value in challenge.parameters if name != "request"} == told
    for signature in ("0x76", "0x78"):
        payload = {"type": "transaction", "signature": signature}
        answered = node_package.ask("verify", value=credential(challenge, payload, "did:x"))
        assert answered == {"own": True, "payload": payload, "source": "did:x"}


@settings(deadline=None)
@given(realm=values.filter(bool), description=values.filter(bool))
def test_read_alike(node_package: Oracle, realm: str, description: str) -> None:
    """Whatever stands in a quoted value, mppx reads it as we do."""
    line = line_of(stated(realm=quoted(realm), description=quoted(description)))
    [told] = node_package.ask("read", line=line)["challenges"]
    [challenge] = challenges([line])
    assert (told["realm"], told["description"]) == (realm, description)
    assert (challenge.realm, challenge.get("description")) == (realm, description)


@pytest.mark.parametrize("root", [None, ROOT])
@pytest.mark.parametrize("header", [{}, {"header": "Payment-Authorization"}])
def test_same_credential(python_package: Oracle, root: bytes | None, header: dict[str, str]) -> None:
    """For the same challenge, key, price and time pympp's own client answers the same header to the byte."""
    more = {"expires": "2026-11-23T07:00:30Z", "description": "10 – dollars", "meta": {"purchase": "pi_1"}, **header}
    line = python_package.ask("issue", realm="openrouter.ai", request=ASKED, **more)["line"]
    theirs = python_package.ask(
        "pay", line=line, key=KEY.to_hex(), root=root and "0x" + root.hex(), gas_price=PRICE, now=NOW
    )
    [challenge] = challenges([line])
    payload = opened(theirs["value"])["payload"]
    assert theirs == {"value": credential(challenge, payload, payer(CHAIN_ID, root or WALLET))}


@given(realm=values, name=values)
@settings(deadline=None)
def test_same_memo(python_package: Oracle, realm: str, name: str) -> None:
    """The memo of any challenge is the one that pympp looks for."""
    assert python_package.ask("memo", realm=realm, id=name) == {"memo": "0x" + memo(realm, name).hex()}


def test_receipts(python_package: Oracle, node_package: Oracle) -> None:
    """A receipt as either package writes it names its transaction."""
    for package in (python_package, node_package):
        value = package.ask("receipt", reference="0x" + "22" * 32)["value"]
        assert settled(value) == b"\x22" * 32
