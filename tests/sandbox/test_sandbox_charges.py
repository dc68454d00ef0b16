"""Do the embedded world's charges carry real signatures, and does each hostile one lie about exactly one thing?"""

import random
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from tests.sandbox.paying import REAL, REAL_SIGNATURE
from topup.sandbox.charges import (
    AFTER_SIGNING,
    BEFORE_SIGNING,
    HOSTILE,
    K2_PREFIX,
    STRANGER,
    Ask,
    Charge,
    Draft,
    Operator,
    Terms,
    digest,
    intent_of,
    packed_hash,
)
from topup.sandbox.contracts import OLD_PAYMENT_PROTOCOL, WETH

PAYER = "0xac8CeB5131449e5850030737D10d1E25C6b8D80B"
NOW = 1_740_637_199
ASK = Ask(Decimal(10), PAYER, 8453, NOW)


def read_back(charge: Charge) -> tuple[Draft, bytes]:
    """A charge as its text says, with the signature apart."""
    intent = intent_of(charge)
    meta, call = intent["metadata"], intent["call_data"]
    at = call["deadline"]
    draft = Draft(
        recipient_amount=int(call["recipient_amount"]),
        fee_amount=int(call["fee_amount"]),
        deadline=int(at) if at.isdigit() else int(datetime.fromisoformat(at).timestamp()),
        recipient=call["recipient"],
        currency=call["recipient_currency"],
        refund=call["refund_destination"],
        id=bytes.fromhex(call["id"][2:]),
        operator=call["operator"],
        chain_id=meta["chain_id"],
        sender=meta["sender"],
        contract=meta["contract_address"],
        prefix=bytes.fromhex(call["prefix"][2:]),
    )
    return draft, bytes.fromhex(call["signature"][2:])


def recovered(charge: Charge) -> str:
    """Who signed what the charge says, asked of eth_account and not of the code under test."""
    draft, signature = read_back(charge)
    return str(Account._recover_hash(digest(draft), signature=signature)).lower()


def _flat(charge: Charge) -> dict[str, Any]:
    intent = intent_of(charge)
    return {**intent["metadata"], **intent["call_data"], "expires_at": charge["expires_at"]}


def twins(name: str) -> tuple[Operator, Charge, Charge]:
    """The hostile charge and the honest one an operator with the same key and luck would have issued."""
    one, other = (Operator(random=random.Random(7).randbytes) for _ in range(2))
    assert one.charge(ASK) == other.charge(ASK)
    return one, one.charge(ASK, name), other.charge(ASK)


def test_a_real_charge_recovers_its_operator() -> None:
    """With the prefix honoured, the signature of March 2025 is Coinbase Commerce's; the hash is the published one."""
    assert packed_hash(REAL).hex() == "06958cb53f6718ac036e53afdffae19b61c88ee8777c5982ad93d14984707725"
    assert str(Account._recover_hash(digest(REAL), signature=REAL_SIGNATURE)).lower() == REAL.operator.lower()


def test_an_honest_charge_is_signed_by_its_operator() -> None:
    """eth_account recovers the operator that the charge names, and that name is in lower case."""
    operator = Operator()
    charge = operator.charge(ASK)
    assert recovered(charge) == operator.address.lower() == intent_of(charge)["call_data"]["operator"]
    # Without a prefix the signature is what eth_account makes of a 32-byte personal message.
    draft, signature = read_back(operator.charge(ASK, "no-prefix"))
    assert Account.recover_message(encode_defunct(packed_hash(draft)), signature=signature) == operator.address
    # Some gateways write the deadline as digits; the signature covers the same number.
    other = Operator(Terms(deadline_as="unix"))
    charge = other.charge(ASK)
    assert intent_of(charge)["call_data"]["deadline"] == "1740809999"
    assert recovered(charge) == other.address.lower()
    # Ids and keys are fresh each time.
    ids = {intent_of(operator.charge(ASK))["call_data"]["id"] for _ in range(50)}
    assert len(ids) == 50 and operator.address != other.address


@pytest.mark.parametrize(
    ("amount", "recipient", "fee"),
    [
        ("1", "1039500", "10500"),
        ("10", "10395000", "105000"),
        ("25.5", "26507250", "267750"),
        ("1.01", "1049895", "10605"),
        ("1.0000005", "1039501", "10500"),
    ],
)
def test_an_honest_charge_costs_five_percent_more_with_one_percent_inside(
    amount: str, recipient: str, fee: str
) -> None:
    """One dollar of credits is 1 039 500 + 10 500 units of USDC, as in real payments."""
    call = intent_of(Operator().charge(Ask(Decimal(amount), PAYER, 8453, NOW)))["call_data"]
    assert (call["recipient_amount"], call["fee_amount"]) == (recipient, fee)


def test_an_honest_charge_has_the_documented_shape() -> None:
    """Every field of the documented answer is there, text but for the chain id, and lives 48 hours."""
    operator = Operator()
    charge = operator.charge(ASK)
    assert list(charge) == ["id", "created_at", "expires_at", "web3_data"]
    assert charge["created_at"] == "2025-02-27T06:19:59Z" and charge["expires_at"] == "2025-03-01T06:19:59Z"
    intent = intent_of(charge)
    assert intent["metadata"] == {
        "chain_id": 8453, "contract_address": operator.terms.contract, "sender": PAYER,
    }  # fmt: skip
    call = intent["call_data"]
    assert all(isinstance(value, str) for value in call.values())
    assert call["deadline"] == "2025-03-01T06:19:59Z"
    assert call["refund_destination"] == PAYER and call["recipient"] == operator.terms.recipient
    assert call["prefix"] == "0x" + K2_PREFIX.hex() and len(call["id"]) == 34 and len(call["signature"]) == 132


# What each hostile charge changes besides its signature, against the honest charge of the same request: the honest ten
# dollars cost 10 395 000 + 105 000. What is drawn anew each time, or follows from another line, is only named.
LIES: dict[str, dict[str, Any]] = {
    "other-recipient": {"recipient": STRANGER},
    "inflated-total": {"recipient_amount": "103950000", "fee_amount": "1050000"},
    "zero-total": {"recipient_amount": "0", "fee_amount": "0"},
    "underpaid-total": {"recipient_amount": "5197500", "fee_amount": "52500"},
    "fee-part-too-high": {"recipient_amount": "5250000", "fee_amount": "5250000"},
    "other-currency": {"recipient_currency": ...},
    "other-contract": {"contract_address": WETH},
    "old-contract": {"contract_address": OLD_PAYMENT_PROTOCOL},
    "contract-without-code": {"contract_address": ...},
    "other-sender": {"sender": STRANGER},
    "refund-elsewhere": {"refund_destination": STRANGER},
    "expired": {"deadline": "2025-02-27T06:19:58Z"},
    "short-lived": {"deadline": "2025-02-27T06:20:59Z"},
    "absurd-deadline": {"deadline": "2035-02-25T06:19:59Z"},
    "unregistered-operator": {"operator": ...},
    "duplicate-id": {"id": ...},
    "no-prefix": {"prefix": "0x"},
    "unknown-prefix": {"prefix": "0x" + b"K3 Informational Message: 32 ".hex()},
    "other-chain": {"chain_id": 1},
    "bad-signature": {},
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_charge_lies_about_one_thing_only(name: str) -> None:
    """It says what its name says, and nothing else differs from the honest charge: nothing else can have refused it.

    What is spoilt before it is signed is validly signed by the operator it names: a payer that only checks the
    signature would pay it.
    """
    _, hostile, honest = twins(name)
    ours, theirs = _flat(hostile), _flat(honest)
    assert ours.keys() == theirs.keys()
    assert {field for field in ours if ours[field] != theirs[field]} - {"signature"} == set(LIES[name])
    assert all(ours[field] == said for field, said in LIES[name].items() if said is not ...)
    assert name not in BEFORE_SIGNING or recovered(hostile) == intent_of(hostile)["call_data"]["operator"]


def test_what_some_hostile_charges_are() -> None:
    """The claim of another chain leaves the charge payable on ours: only reading the metadata gives the lie away."""
    operator, hostile, honest = twins("other-chain")
    assert intent_of(hostile)["metadata"]["chain_id"] == 1
    intent_of(hostile)["metadata"]["chain_id"] = 8453
    assert hostile == {**honest, "id": hostile["id"]} and recovered(hostile) == operator.address.lower()
    # An unregistered operator is another key: the charge names the stranger, who really signed it.
    operator, hostile, _ = twins("unregistered-operator")
    assert recovered(hostile) == operator.stranger_address.lower() != operator.address.lower()
    # A duplicate id is that of the first charge, however many came between.
    operator = Operator()
    first = intent_of(operator.charge(ASK))["call_data"]["id"]
    operator.charge(ASK)
    assert intent_of(operator.charge(ASK, "duplicate-id"))["call_data"]["id"] == first


def test_every_hostile_charge_is_told_of_here() -> None:
    """A new trick without a story in this file fails, and a misspelt fault never serves an honest charge."""
    assert set(LIES) == HOSTILE == set(BEFORE_SIGNING) | set(AFTER_SIGNING)
    with pytest.raises(KeyError, match="other-recipent"):
        Operator().charge(ASK, "other-recipent")


def test_a_bad_signature_is_well_formed_but_recovers_somebody_else() -> None:
    """65 bytes, a low s and a good v: the answer of the recovery is what is wrong, not its form."""
    operator, hostile, _ = twins("bad-signature")
    signature = read_back(hostile)[1]
    half_order = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
    assert len(signature) == 65 and signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= half_order
    assert recovered(hostile) != operator.address.lower()
