"""Can a charge that is not exactly what was asked for ever become a Verified?"""

import copy
import dataclasses
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world.builders import (
    CLOCKS,
    NOW_S,
    WALLET,
    address,
    ask,
    operator,
    pins_for,
    raw_of,
    request,
    unseen,
    verified,
)
from topup.domain.coinbase_charge import (
    K2_PREFIX,
    SECP256K1_N,
    Charge,
    Pins,
    charge_of,
    intent_hash,
    parse,
    recover,
    verify,
)
from topup.domain.demand import Clocks, Request, Verified
from topup.domain.errors import ChargeRefused
from topup.domain.json_document import RAW_BYTES_MAX
from topup.domain.money import Bps, Usd
from topup.sandbox.charges import HOSTILE, Operator, intent_of

Json = dict[str, Any]
DAY_S = 24 * 3600
OPERATOR = operator(1)
HONEST = OPERATOR.charge(ask())
HONEST_RAW = raw_of(HONEST)
PINS = pins_for(OPERATOR)
# Pins under which only the signature is left to tell a changed value from a signed one.
LOOSE = pins_for(OPERATOR, fee_ceiling=Bps(10**9), fee_part_ceiling=Bps(10_000), life_min_s=0, life_max_s=10**10)

# A real charge, paid on Base in March 2025.
REAL_CALL = {
    "recipient_amount": "9900",
    "deadline": "2025-03-01T06:19:59Z",
    "recipient": "0x5eA054aEea285Ebc3A92eCB1f722f44304F72581",
    "recipient_currency": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    "refund_destination": "0xac8CeB5131449e5850030737D10d1E25C6b8D80B",
    "fee_amount": "100",
    "id": "0xc8f9e661fe654bca8554192fe0d22ca4",
    "operator": "0x8fccc78dae0a8f93b0fe6799de888d4c57e273db",
    "signature": (
        "0xb443cf656f962b42888621d23fdb90f4dea6801df07da4722ab381d1aacefd0c"
        "1fbbc473762409427b899aaeb69e7afa00444e9221e297cdc9a2c7d99a86ae521c"
    ),
    "prefix": "0x4b3220496e666f726d6174696f6e616c204d6573736167653a20333220",
}
REAL_NOW = 1_740_809_999 - 2 * DAY_S
REAL_CLOCKS = Clocks(REAL_NOW, REAL_NOW)
REAL_REQUEST = Request(Usd.of("0.0096"), WALLET, 8453)
REAL_PINS = pins_for(
    OPERATOR,
    operators=frozenset({address(REAL_CALL["operator"])}),
    recipients=frozenset({address(REAL_CALL["recipient"])}),
)


def real(**call: str) -> Charge:
    """The real charge, with fields of its call data replaced; its metadata are those of the honest one."""
    charge = copy.deepcopy(HONEST)
    intent_of(charge)["call_data"] = REAL_CALL | call
    return parse(raw_of(charge))


def altered(**call: Any) -> Charge:
    """The honest charge with fields of its call data replaced after signing."""
    demand = parse(HONEST_RAW)
    return dataclasses.replace(demand, intent=dataclasses.replace(demand.intent, **call))


def refusal(demand: Charge, pins: Pins = PINS, clocks: Clocks = CLOCKS, asked: Request | None = None) -> ChargeRefused:
    with pytest.raises(ChargeRefused) as refused:
        verify(demand, asked or request(), pins, clocks, seen=unseen)
    return refused.value


def unreadable(raw: bytes) -> ChargeRefused:
    with pytest.raises(ChargeRefused) as refused:
        parse(raw)
    return refused.value


# -- a real charge ----------------------------------------------------------------------------------------------


def test_the_real_charge_is_verified_under_its_own_pins() -> None:
    """What was really signed by the operator, over a cent for our sender, is believed, its deadline in either writing.

    Its packed hash is the one that the contract computed.
    """
    assert intent_hash(real()).hex() == "06958cb53f6718ac036e53afdffae19b61c88ee8777c5982ad93d14984707725"
    unix = real(deadline="1740809999")
    assert unix == real()
    one, other = (verify(d, REAL_REQUEST, REAL_PINS, REAL_CLOCKS, seen=unseen) for d in (unix, real()))
    assert one == other
    assert one.total.units == 10_000


def test_without_its_prefix_the_real_signature_is_somebody_elses() -> None:
    """Read as a plain signed message the real signature recovers garbage: the prefix rule has to be honoured."""
    bare = real(prefix="0x")
    assert recover(real()) == address(REAL_CALL["operator"])
    assert recover(bare) != address(REAL_CALL["operator"])
    pending = dataclasses.replace(REAL_PINS, prefixes=frozenset({K2_PREFIX, b""}))
    assert refusal(bare, pending, REAL_CLOCKS, REAL_REQUEST).field == "call_data.signature"


# -- any change is refused --------------------------------------------------------------------------------------


def flipped(draw: st.DrawFn, value: bytes) -> bytes:
    bit = draw(st.integers(0, 8 * len(value) - 1))
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Charge]:
    """The honest demand with one decoded value changed, and the name of that value."""
    demand = parse(HONEST_RAW)
    intent = demand.intent
    name = draw(st.sampled_from(CHANGEABLE))
    if name in ("chain_id", "contract", "sender"):
        was = getattr(demand, name)
        now: Any = draw(st.integers(0, 2**64).filter(lambda n: n != was)) if name == "chain_id" else flipped(draw, was)
        return name, dataclasses.replace(demand, **{name: now})
    was = getattr(intent, name)
    if isinstance(was, int):
        now = draw(st.integers(0, 2**256 - 1) | st.integers(max(0, was - 10**6), was + 10**6))
        now = now if now != was else was + 1
    elif name == "prefix" and draw(st.booleans()):
        now = draw(st.binary(max_size=64).filter(lambda b: b != was))
    else:
        now = flipped(draw, was)
    return name, dataclasses.replace(demand, intent=dataclasses.replace(intent, **{name: now}))


CHANGEABLE = [
    *("chain_id", "contract", "sender"),
    *(field.name for field in dataclasses.fields(parse(HONEST_RAW).intent)),
]


@settings(max_examples=200)
@given(changes())
def test_any_change_to_a_decoded_value_is_refused(change: tuple[str, Charge]) -> None:
    """Whatever single value differs from what was signed for us, there is no Verified."""
    refusal(change[1])


@settings(max_examples=150)
@given(changes())
def test_the_signature_alone_refuses_any_change(change: tuple[str, Charge]) -> None:
    """With everything pinned to the changed value and no bounds on money or time, the signature still refuses it."""
    name, demand = change
    intent = demand.intent
    if name == "sender":
        demand = dataclasses.replace(demand, intent=dataclasses.replace(intent, refund_destination=demand.sender))
    if name == "refund_destination":
        demand = dataclasses.replace(demand, sender=intent.refund_destination)
    intent = demand.intent
    if not 0 < intent.total.units < 2**255 or intent.recipient_amount == 0:
        return
    least = min(request().amount.usdc_up(), intent.total).usdc
    asked = Request(Usd(least), demand.sender, demand.chain_id)
    pins = dataclasses.replace(
        LOOSE,
        contract=demand.contract,
        currency=intent.recipient_currency,
        operators=frozenset({intent.operator}),
        recipients=frozenset({intent.recipient}),
        prefixes=frozenset({intent.prefix}),
        fee_ceiling=Bps(10**90),
        life_max_s=2**256,
        life_min_s=-(2**256),
    )
    assert refusal(demand, pins, asked=asked).field == "call_data.signature"


@pytest.mark.parametrize("form", ["high s", "v of 0 and 1", "v of 37", "zero s", "zero r", "r beyond the curve"])
def test_a_signature_the_contract_would_not_accept_is_refused(form: str) -> None:
    """Only r, low s and v 27 or 28 pass the contract; the mirrored form of a good signature does not."""
    good = parse(HONEST_RAW).intent.signature
    r, s, v = good[:32], good[32:64], good[64]
    mirrored = (SECP256K1_N - int.from_bytes(s, "big")).to_bytes(32, "big")
    signature = {
        "high s": r + mirrored + bytes([55 - v]),
        "v of 0 and 1": r + s + bytes([v - 27]),
        "v of 37": r + s + bytes([v + 10]),
        "zero s": r + bytes(32) + bytes([v]),
        "zero r": bytes(32) + s + bytes([v]),
        "r beyond the curve": b"\xff" * 32 + s + bytes([v]),
    }[form]
    refused = refusal(altered(signature=signature))
    assert refused.field == "call_data.signature"
    assert refused.should_be.endswith(OPERATOR.address)


# -- what decodes equal is the same -----------------------------------------------------------------------------


def recased(luck: random.Random, text: str) -> str:
    return "0x" + "".join(luck.choice((c.upper(), c.lower())) for c in text[2:])


def other_zone(luck: random.Random, text: str) -> str:
    moment = datetime.fromisoformat(text)
    zone = timezone(timedelta(minutes=luck.randrange(-14 * 60, 14 * 60)))
    return luck.choice(
        [
            text,
            text.replace("Z", "+00:00"),
            text.replace("Z", ".000Z"),
            text.replace("T", " "),
            moment.astimezone(zone).isoformat(),
            str(round(moment.timestamp())),
        ]
    )


def disguised(luck: random.Random, value: Any, name: str = "") -> Any:
    """The same decoded values in other clothes."""
    if isinstance(value, dict):
        items = [(key, disguised(luck, inner, key)) for key, inner in value.items()]
        if luck.random() < 0.5:
            items.append((f"extra_{luck.randrange(1000)}", luck.choice([None, [1, {"id": "0x"}], 1.5, "text", True])))
        luck.shuffle(items)
        return dict(items)
    if name == "deadline":
        return other_zone(luck, value)
    if name in ("recipient_amount", "fee_amount"):
        return "0" * luck.randrange(4) + value
    return recased(luck, value) if isinstance(value, str) and value.startswith("0x") else value


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.sampled_from([None, 1, 4]), st.booleans())
def test_a_change_that_decodes_equal_gives_the_same_verified(luck: Any, indent: int | None, escape: bool) -> None:  # noqa: FBT001
    """Case of hex, order of keys, white space, escapes, unknown fields and the zone of the deadline mean nothing."""
    text = json.dumps(disguised(luck, {"data": HONEST}), indent=indent)
    if escape:
        text = text.replace('"0x', '"\\u0030x')
    assert verify(parse(text.encode()), request(), PINS, CLOCKS, seen=unseen) == verify(
        parse(HONEST_RAW), request(), PINS, CLOCKS, seen=unseen
    )


# -- every field, every way of being wrong ----------------------------------------------------------------------

PLACES: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "data.id": ("data", "id"),
    "data.web3_data": ("data", "web3_data"),
    "data.web3_data.transfer_intent": ("data", "web3_data", "transfer_intent"),
    "transfer_intent.metadata": ("data", "web3_data", "transfer_intent", "metadata"),
    "transfer_intent.call_data": ("data", "web3_data", "transfer_intent", "call_data"),
    **{
        f"{part}.{name}": ("data", "web3_data", "transfer_intent", part, name)
        for part in ("metadata", "call_data")
        for name in intent_of(HONEST)[part]
    },
}
MISSING = object()
WRONG: list[Any] = [MISSING, None, 1, 1.5, True, [], "", "0", "-1", "1e3", " 1", "1_0", "\u0661", "0x", "0xzz", "\x00"]
MALFORMED: dict[str, list[Any]] = {
    "data.id": ["x" * 201, "new\nline", "\ud800", "bell\x07", "caf\u00e9"],
    "metadata.chain_id": ["8453", 8453.0, "0x2105", {}],
    "call_data.recipient_amount": ["1.0", "+1", "0x10", "9" * 79, str(2**256), "1 ", "\uff11"],
    "call_data.fee_amount": ["1.0", "+1", "0x10", "9" * 79, str(2**256)],
    "call_data.deadline": [
        "2025-03-01",
        "2025-03-01T06:19:59",
        "2025-03-01T06:19:59.5Z",
        "2025-02-30T06:19:59Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "9" * 13,
        "1740809999.0",
        "tomorrow",
        "2025-03-01T06:19:59Z" + " " * 30,
    ],
}
HEXES = [name for name in PLACES if name.split(".")[-1] in {
    *("contract_address", "sender", "recipient", "recipient_currency", "refund_destination", "operator"),
    *("id", "signature", "prefix"),
} and name != "data.id"]  # fmt: skip


def decodes(name: str, value: Any) -> bool:
    """Some of the wrong values are fine in some places: what they say is judged later."""
    if name == "data.id":
        return isinstance(value, str) and 0 < len(value) <= 200 and value.isascii() and value.isprintable()
    if name == "metadata.chain_id":
        return type(value) is int
    if name == "call_data.prefix":
        return bool(value == "0x")
    return name.endswith(("amount", "deadline")) and value == "0"


def with_value(name: str, value: Any) -> bytes:
    document: dict[str, Any] = {"data": copy.deepcopy(HONEST)}
    *above, last = PLACES[name]
    parent = document
    for step in above:
        parent = parent[step]
    if value is MISSING:
        del parent[last]
    else:
        parent[last] = value
    return json.dumps(document).encode()


def bad_values(name: str) -> list[tuple[str, Any]]:
    """The wrong values of one place."""
    values = [*WRONG, *MALFORMED.get(name, [])]
    if name in HEXES:
        part, field = name.split(".")
        was = intent_of(HONEST)[part][field]
        values += [was[2:], "0X" + was[2:], was[:-1], was + "g", was[:-1] + "\u0660"]
        values += [was[:-2], was + "00"] if field != "prefix" else ["0x" + "00" * 1025]
    return [(name, value) for value in values if not decodes(name, value)]


@pytest.mark.parametrize("place", PLACES)
def test_a_field_that_is_missing_or_malformed_is_refused_by_name(place: str) -> None:
    """Missing, null, of another type or misspelt: the refusal names the field, and fits on a line."""
    for name, value in bad_values(place):
        refused = unreadable(with_value(name, value))
        assert refused.field == name, ascii(value)
        if value is MISSING or value is None:
            assert refused.was == ("missing" if value is MISSING else "null")
        assert str(refused).isprintable()
        assert len(str(refused)) < 400


# -- answers that are no charge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.id", "metadata.chain_id", "call_data.recipient", "call_data.signature"])
def test_a_field_given_twice_is_refused(name: str) -> None:
    """Which of two values counts is a matter of taste, so neither does."""
    field = PLACES[name][-1]
    part = json.dumps({"data": HONEST} if name == "data.id" else intent_of(HONEST)[name.split(".", maxsplit=1)[0]])
    twice = part.replace(f'"{field}": ', f'"{field}": "0x00", "{field}": ', 1)
    refused = unreadable(HONEST_RAW.replace(part.encode(), twice.encode()))
    assert (refused.field, refused.was) == (field, "given twice")


def test_an_answer_longer_than_any_charge_is_refused() -> None:
    """Whatever it says; test_document.py has what else is no document."""
    assert unreadable(b" " * RAW_BYTES_MAX + HONEST_RAW).field == "answer"


@settings(max_examples=150)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_no_answer_of_any_kind_raises_anything_but_a_refusal(raw: bytes) -> None:
    """Bytes from the other side lead to a refusal and nothing else."""
    unreadable(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(PLACES)), json_values)
def test_no_value_of_any_field_raises_anything_but_a_refusal(name: str, value: Any) -> None:
    """Any JSON value in any place is decoded or refused, and what is decoded never proves but equals the honest one."""
    try:
        demand = parse(with_value(name, value))
        proven = verify(demand, request(), PINS, CLOCKS, seen=unseen)
    except ChargeRefused:
        return
    assert name == "data.id" or proven.demand == parse(HONEST_RAW)


# -- hostile charges --------------------------------------------------------------------------------------------

INTENDED = {
    "other-recipient": "call_data.recipient",
    "inflated-total": "call_data.recipient_amount",
    "zero-total": "call_data.recipient_amount",
    "underpaid-total": "call_data.recipient_amount",
    "fee-part-too-high": "call_data.fee_amount",
    "other-currency": "call_data.recipient_currency",
    "other-contract": "metadata.contract_address",
    "old-contract": "metadata.contract_address",
    "contract-without-code": "metadata.contract_address",
    "other-sender": "metadata.sender",
    "refund-elsewhere": "call_data.refund_destination",
    "expired": "call_data.deadline",
    "short-lived": "call_data.deadline",
    "absurd-deadline": "call_data.deadline",
    "unregistered-operator": "call_data.operator",
    "duplicate-id": "call_data.id",
    "no-prefix": "call_data.prefix",
    "unknown-prefix": "call_data.prefix",
    "other-chain": "metadata.chain_id",
    "bad-signature": "call_data.signature",
}


@pytest.mark.parametrize("name", sorted(HOSTILE | INTENDED.keys()))
def test_a_hostile_charge_is_refused_on_the_field_it_lies_about(name: str) -> None:
    """The first charge of the operator is believed; the hostile second one is refused for the right reason."""
    one = operator(2)
    first = charge_of(verified(one)).intent
    demand = parse(raw_of(one.charge(ask(), name)))
    with pytest.raises(ChargeRefused) as refused:
        verify(demand, request(), pins_for(one), CLOCKS, seen=[(first.operator, first.id)])
    assert refused.value.field == INTENDED[name]
    assert refused.value.was != refused.value.should_be


def test_nothing_is_believed_while_no_recipient_is_pinned() -> None:
    """An empty pin matches nobody, and the refusal says how to pin."""
    refused = refusal(parse(HONEST_RAW), dataclasses.replace(PINS, recipients=frozenset()))
    assert refused.field == "call_data.recipient"
    assert "topup pin" in refused.remedy


# -- bounds -----------------------------------------------------------------------------------------------------


def signed(one: Operator, **changed: Any) -> Charge:
    """A charge whose draft was changed before signing: its signature is good."""
    draft = dataclasses.replace(one.draft(ask()), **changed)
    return parse(raw_of(one.charge(ask(), draft=draft)))


@pytest.mark.parametrize(
    ("recipient", "fee", "field"),
    [
        (9_999_999, 0, "call_data.recipient_amount"),
        (10_000_000, 0, None),
        (10_600_000, 0, None),
        (10_600_001, 0, "call_data.recipient_amount"),
        (9_800_000, 200_000, None),
        (9_799_999, 200_001, "call_data.fee_amount"),
        (9_800_001, 199_999, None),
        (0, 0, "call_data.recipient_amount"),
        (2**256 - 1, 2**256 - 1, "call_data.recipient_amount"),
    ],
)
def test_amounts_hold_to_the_unit(recipient: int, fee: int, field: str | None) -> None:
    """Ten dollars cost from 10 to 10.60 USDC, the fee part at most 2 %: the edge passes, a unit beyond it does not."""
    demand = signed(operator(4), recipient_amount=recipient, fee_amount=fee)
    if field is None:
        assert verify(demand, request(), PINS_4, CLOCKS, seen=unseen).total.units == recipient + fee
    else:
        assert refusal(demand, PINS_4).field == field


PINS_4 = pins_for(operator(4))


def test_what_is_asked_for_reaches_the_recipient_in_full() -> None:
    """Where the whole may be fee, a payment that gives the recipient nothing is none; 10 USDC cover no 10.0000001."""
    demand = signed(operator(4), recipient_amount=0, fee_amount=10_000_000)
    pins = dataclasses.replace(PINS_4, fee_part_ceiling=Bps(10_000))
    assert refusal(demand, pins).field == "call_data.recipient_amount"
    demand = signed(operator(4), recipient_amount=10_000_000, fee_amount=0)
    assert refusal(demand, PINS_4, asked=request("10.0000001")).field == "call_data.recipient_amount"


@pytest.mark.parametrize(
    ("chain_s", "local_s", "believed"),
    [
        (0, 0, True),
        (600, 600, True),
        (601, 600, False),
        (600, 601, False),
        (1200 - 7 * DAY_S, 0, True),
        (1199 - 7 * DAY_S, 0, False),
        (0, 1200 - 7 * DAY_S, True),
        (0, 1199 - 7 * DAY_S, False),
    ],
)
def test_the_deadline_is_held_against_both_clocks(chain_s: int, local_s: int, believed: bool) -> None:  # noqa: FBT001
    """From 600 s to 7 days away by the chain's clock and by ours; one clock that disagrees is enough to refuse."""
    demand = signed(operator(4), deadline=NOW_S + 1200)
    clocks = Clocks(NOW_S + chain_s, NOW_S + local_s)
    if believed:
        assert verify(demand, request(), PINS_4, clocks, seen=unseen).demand == demand
    else:
        refused = refusal(demand, PINS_4, clocks)
        assert refused.field == "call_data.deadline"
        assert ("the chain's" in refused.was) == (chain_s not in (0, 600))


@pytest.mark.parametrize("chain_id", [-1, 2**256], ids=["negative", "too large"])
def test_a_chain_that_no_signature_could_name_is_refused_by_name(chain_id: int) -> None:
    """What is signed over is computed only for the chain that was asked for: nothing overflows on the way."""
    refused = refusal(replace(signed(operator(4)), chain_id=chain_id), PINS_4)
    assert refused.field == "metadata.chain_id"


def test_the_deadline_that_is_signed_is_the_one_that_is_written() -> None:
    """ISO and unix seconds agree for every second, without a float in between."""
    for second in (0, 1, 951_782_400, 1_740_809_999, 4_107_542_399, 253_402_300_799):
        call = {"deadline": datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")}
        assert real(**call).intent.deadline == real(deadline=str(second)).intent.deadline == second


# -- the door ---------------------------------------------------------------------------------------------------


FORGE: Any = Verified  # the type checker would refuse what follows, see test_types.py


@pytest.mark.parametrize(
    "forge",
    [
        lambda v: FORGE(v.demand, v.request, None),
        lambda v: FORGE(v.demand, v.request, object()),
        lambda v: dataclasses.replace(v, request=request("11")),
        lambda v: dataclasses.replace(v, demand=altered(recipient=b"\x66" * 20), seal=None),
        lambda v: FORGE(v.demand, v.request, v.seal),
        lambda v: setattr(v, "request", request("11")),
    ],
)
def test_only_verify_can_build_a_verified(forge: Callable[[Any], Verified]) -> None:
    """Neither the constructor nor a copy with changes makes one; a real one gives nothing away, and does not change."""
    with pytest.raises((TypeError, ValueError, AttributeError)):
        forge(verified(operator(1)))


def test_a_deadline_as_a_number_is_named_as_what_it_is() -> None:
    """A JSON number in place of the text: refused, saying what was found and which text is wanted."""
    refused = unreadable(with_value("call_data.deadline", 1740809999))
    assert (refused.field, refused.was) == ("call_data.deadline", "1740809999")
    assert "a text" in refused.should_be and "ISO 8601" in refused.should_be
