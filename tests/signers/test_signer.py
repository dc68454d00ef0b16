"""Can the key be brought to sign anything but the one payment of a proven charge?"""

import random
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from tests.world import builders
from topup.chain.contracts import payment_data
from topup.domain.coinbase_charge import charge_of, parse, verify
from topup.domain.demand import Verified
from topup.domain.errors import SettingsError, SignerError
from topup.domain.lifecycle import Kind, Plan
from topup.domain.money import EthPrice, Wei
from topup.sandbox.charges import Ask, Operator
from topup.signers.local import Ceilings, LocalSigner, from_private_key

KEY = random.Random(7).randbytes(32)
WALLET = str(PrivateKey(KEY).public_key.to_checksum_address())
OPERATOR = builders.operator()
CONTRACT = builders.address(OPERATOR.terms.contract)
CEILINGS = Ceilings(builders.CHAIN_ID, CONTRACT, Wei(4 * 10**15), Wei(4 * 10**14))


def proven(one: Operator = OPERATOR, sender: str = WALLET) -> Verified:
    demand = parse(builders.raw_of(one.charge(Ask(builders.ask().amount, sender, builders.CHAIN_ID, builders.NOW_S))))
    request = replace(builders.request(), sender=builders.address(sender))
    return verify(demand, request, builders.pins_for(one), builders.CLOCKS, seen=builders.unseen)


CHARGE = proven()
RIGHT = builders.plan(to=CONTRACT, data=payment_data(charge_of(CHARGE).intent, 500))


def signer(ceilings: Ceilings = CEILINGS) -> LocalSigner:
    return from_private_key("0x" + KEY.hex(), ceilings)


def refusal(plan: Plan, charge: Verified = CHARGE, ceilings: Ceilings = CEILINGS) -> str:
    with pytest.raises(SignerError) as refused:
        signer(ceilings).sign_payment(plan, charge)
    return str(refused.value)


def test_the_right_plan_is_signed_exactly() -> None:
    """Hash and sender follow from the bytes, and each field of the transaction is the plan's."""
    raw, tx_hash = signer().sign_payment(RIGHT, CHARGE)
    assert tx_hash == keccak(raw)
    assert Account.recover_transaction(HexBytes(raw)) == WALLET
    signed = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    fields = {name: value for name, value in signed.items() if name not in ("v", "r", "s")}
    assert fields == {
        "type": 2,
        "chainId": RIGHT.chain_id,
        "nonce": RIGHT.nonce,
        "accessList": (),
        "to": RIGHT.to,
        "value": RIGHT.value.units,
        "data": RIGHT.data,
        "gas": RIGHT.gas_limit,
        "maxFeePerGas": RIGHT.max_fee_per_gas.units,
        "maxPriorityFeePerGas": RIGHT.max_priority_fee_per_gas.units,
    }
    # The signature is deterministic (RFC 6979): signing again after a crash cannot make a second transaction.
    assert signer().sign_payment(RIGHT, CHARGE) == (raw, tx_hash)
    # A key file usually ends with a newline: white space around the key is no part of it.
    assert from_private_key(f" {KEY.hex()}\n", CEILINGS).sign_payment(RIGHT, CHARGE) == (raw, tx_hash)


def test_a_charge_for_another_wallet_is_refused() -> None:
    """The key does not pay what was proven for somebody else, although the call data are right."""
    other = proven(builders.operator(2), builders.PAYER)
    plan = replace(RIGHT, data=payment_data(charge_of(other).intent, 500))
    assert refusal(plan, other) == "the key refuses to sign: sender"
    # A plan pays the charge it is presented with, not one proven earlier.
    assert refusal(RIGHT, proven(builders.operator(3))) == "the key refuses to sign: call data"


RULES: dict[str, tuple[dict[str, Any], ...]] = {
    "kind": ({"kind": Kind.CANCEL}, {"kind": Kind.APPROVE}),
    "chain": ({"chain_id": 1},),
    "destination": tuple({"to": to} for to in (CONTRACT[::-1], builders.address(OPERATOR.terms.currency), b"")),
    "call data": (
        *({"data": data} for data in (b"", RIGHT.data + b"\0", b"\xa9\x05\x9c\xbb" + RIGHT.data[4:])),
        *({"tier": tier} for tier in (3000, -1, 2**24)),
    ),
    "value": tuple({"value": value} for value in (Wei(0), Wei(-1), CEILINGS.value + Wei(1))),
    "network fee": ({"gas_limit": 400_000}, {"max_fee_per_gas": Wei(2 * 10**9)}, {"l1_fee": Wei(10**15)}),
    "fees": (
        {"l1_fee": Wei(-(10**18)), "max_fee_per_gas": Wei(10**12)},
        *({"gas_limit": gas} for gas in (0, -1)),
        {"max_fee_per_gas": Wei(0), "max_priority_fee_per_gas": Wei(0)},
    ),
    "tip": tuple({"max_priority_fee_per_gas": tip} for tip in (Wei(10**9 + 1), Wei(-1))),
    "nonce": ({"nonce": -1}, {"nonce": 2**64 - 1}),
    "lane": ({"lane": 1},),
}


@pytest.mark.parametrize(
    ("change", "rule"), [(change, rule) for rule, changes in RULES.items() for change in changes], ids=str
)
def test_each_rule_alone_refuses(change: dict[str, Any], rule: str) -> None:
    """One thing wrong is enough, and it is the thing that is named."""
    assert refusal(replace(RIGHT, **change)) == f"the key refuses to sign: {rule}"


@pytest.mark.parametrize(
    ("ceilings", "rule"),
    [
        ({"chain_id": 10}, "chain"),
        ({"contract": b"\x05" * 20}, "destination"),
        ({"value": RIGHT.value - Wei(1)}, "value"),
        ({"network_fee": Wei(1)}, "network fee"),
        ({"price_min": EthPrice(2971 * 10**8)}, "price"),
        ({"prefixes": frozenset({b""})}, "prefix"),  # behind which an operator signed, whatever was proven before
    ],
    ids=["chain", "contract", "value", "network fee", "price", "prefix"],
)
def test_the_ceilings_are_the_keys_own(ceilings: dict[str, Any], rule: str) -> None:
    """The same plan and charge are refused by a key that was given other limits."""
    assert refusal(RIGHT, CHARGE, replace(CEILINGS, **ceilings)) == f"the key refuses to sign: {rule}"
    # 10.5 USDC for 0.003535 ETH is 2970.3 dollars an ETH: the lowest plausible price leaves honest payments alone.
    floor = replace(CEILINGS, price_min=EthPrice(2970 * 10**8))
    assert signer(floor).sign_payment(RIGHT, CHARGE) == signer().sign_payment(RIGHT, CHARGE)


ANY_WEI = st.integers(-(10**20), 10**20).map(Wei)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(Kind),
    "to": st.one_of(st.just(CONTRACT), st.binary(max_size=32)),
    "data": st.one_of(st.just(RIGHT.data), st.binary(max_size=700)),
    "value": ANY_WEI,
    "gas_limit": st.integers(-(10**9), 10**9),
    "max_fee_per_gas": ANY_WEI,
    "max_priority_fee_per_gas": ANY_WEI,
    "l1_fee": ANY_WEI,
    "lane": st.integers(-1, 3),
    "nonce": st.integers(-(2**65), 2**65),
    "chain_id": st.integers(0, 2**64),
    "tier": st.one_of(st.sampled_from((100, 500, 3000)), st.integers(-(2**25), 2**25)),
}


@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_whatever_the_plan_only_the_right_payment_is_signed(change: dict[str, Any]) -> None:
    """Either it is refused with SignerError, or it pays exactly this charge within the ceilings."""
    plan = replace(RIGHT, **change)
    try:
        raw, _ = signer().sign_payment(plan, CHARGE)
    except SignerError:
        return
    signed = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    assert (signed["to"], signed["data"], signed["chainId"]) == (CONTRACT, RIGHT.data, builders.CHAIN_ID)
    assert 0 < signed["value"] <= CEILINGS.value.units
    assert signed["gas"] * signed["maxFeePerGas"] <= CEILINGS.network_fee.units
    assert plan.kind is Kind.PAY


@given(st.integers(0, len(RIGHT.data) * 8 - 1))
def test_no_bit_of_the_call_data_may_differ(bit: int) -> None:
    """One flipped bit anywhere, even in the padding, is refused."""
    data = bytearray(RIGHT.data)
    data[bit // 8] ^= 1 << bit % 8
    assert refusal(replace(RIGHT, data=bytes(data))) == "the key refuses to sign: call data"


# Where the key comes from


def shows_no_key(text: str) -> bool:
    return KEY.hex() not in text.lower() and str(int.from_bytes(KEY, "big")) not in text


NO_KEYS = [
    *("", "0x", KEY.hex()[:-1], KEY.hex()[:-2], KEY.hex() + "00", "zz" + KEY.hex()[2:]),
    *("0x" + "00" * 32, "0x" + "ff" * 32, str(int.from_bytes(KEY, "big"))),
]


@pytest.mark.parametrize("text", NO_KEYS)
def test_a_malformed_key_is_never_repeated(text: str) -> None:
    """What looks almost like a key might be one: neither the message nor its cause shows any of it."""
    with pytest.raises(SettingsError) as refused:
        from_private_key(text, CEILINGS)
    told = str(refused.value) + repr(refused.value) + refused.value.remedy
    assert len(text) < 5 or text not in told
    assert shows_no_key(told)
    assert refused.value.__cause__ is refused.value.__context__ is None


def test_the_key_shows_nowhere() -> None:
    """Neither text of the signer, nor of a refusal, nor of what it holds, has the key in it."""
    one = signer()
    refused = refusal(replace(RIGHT, lane=1))
    assert shows_no_key(f"{one} {one!r} {[one]} {refused} {vars(one)}")
    assert WALLET in repr(one)
