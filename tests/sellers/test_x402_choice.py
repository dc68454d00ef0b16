"""Which of a seller's offers is paid? Each is judged alone, the pins decide, and what nobody can know is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sellers.test_x402_wire import EXACT_V2, raw_of
from topup.domain.demand import Bounds, Request
from topup.domain.dollars import BASE_DOLLAR
from topup.domain.money import Bps, Usd
from topup.sellers.x402_choice import Wanted, chosen, judged, refusal
from topup.sellers.x402_wire import listed

Json = dict[str, Any]
OURS, OTHER, WALLET = b"\xaa" * 20, b"\xbb" * 20, b"\xcc" * 20
USDC = "0x" + BASE_DOLLAR.token.hex()
ONE = BASE_DOLLAR
BOUNDS = Bounds(ONE.token, frozenset({OURS}), Bps(0), 30, 900)
WANTED = Wanted(ONE, Request(Usd.of(10), WALLET, ONE.chain_id), minimum=False, bounds=BOUNDS)
GOOD = EXACT_V2 | {"amount": "10000000", "payTo": "0x" + OURS.hex()}
# What cannot be read or paid, by name: the offer, and the end of the field that says so.
BAD: dict[str, tuple[Any, str]] = {
    "permit2": (GOOD | {"extra": {"assetTransferMethod": "permit2"}}, "assetTransferMethod"),
    "transaction flow": (GOOD | {"extra": {"paymentFlow": "transaction"}}, "paymentFlow"),
    "role as payTo": (GOOD | {"payTo": "facilitator"}, "payTo"),
    "role elsewhere": (GOOD | {"network": "hedera:mainnet", "payTo": "0.0.98"}, "network"),
    "other chain": (GOOD | {"network": "eip155:84532"}, "network"),
    "chain without EVM": (GOOD | {"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}, "network"),
    "unknown scheme": (GOOD | {"scheme": "upto"}, "scheme"),
    "other token": (GOOD | {"asset": "0xdAC17F958D2ee523a2206206994597C13D831ec7"}, "asset"),
    "stranger": (GOOD | {"payTo": "0x" + OTHER.hex()}, "payTo"),
    "ourselves": (GOOD | {"payTo": "0x" + WALLET.hex()}, "payTo"),
    "the token": (GOOD | {"payTo": USDC}, "payTo"),
    "nobody": (GOOD | {"payTo": "0x" + "0" * 40}, "payTo"),
    "too dear": (GOOD | {"amount": "10000001"}, "amount"),
    "too little": (GOOD | {"amount": "9999999"}, "amount"),
    "no amount": ({name: one for name, one in GOOD.items() if name != "amount"}, "amount"),
    "no time": (GOOD | {"maxTimeoutSeconds": 29}, "maxTimeoutSeconds"),
    "no life said": ({name: one for name, one in GOOD.items() if name != "maxTimeoutSeconds"}, "maxTimeoutSeconds"),
    "other name": (GOOD | {"extra": {"name": "USDC", "version": "2"}}, "name"),
    "other version": (GOOD | {"extra": {"name": "USD Coin", "version": "1"}}, "version"),
    "no object": (["exact"], "accepts[0]"),
    "null": (None, "accepts[0]"),
    "a number without end": (GOOD | {"x": 10**500}, "accepts[0]"),
}


def choice(accepts: Sequence[Any], wanted: Wanted = WANTED) -> int | None:
    """Return which of these offers is meant."""
    return chosen(judged(listed(said(accepts)), wanted), wanted)


def said(accepts: Sequence[Any]) -> bytes:
    return raw_of({"x402Version": 2, "accepts": list(accepts)})


@pytest.mark.parametrize("name", BAD)
def test_each_line_is_named_with_what_decides_it(name: str) -> None:
    """An offer that cannot be paid fails by exactly one line, with what was found, what was wanted, and a remedy."""
    bad, field = BAD[name]
    [one] = judged(listed(said([bad])), WANTED)
    assert not one.payable
    [wrong] = [line for line in one.lines if not line.right]
    assert wrong.field.endswith(field)
    assert wrong.was and wrong.should_be and wrong.remedy
    assert len(wrong.was) < 250


@given(st.lists(st.sampled_from(sorted(BAD)), max_size=6), st.integers(0, 6))
def test_a_bad_offer_spoils_none_beside_it(names: list[str], place: int) -> None:
    """Whatever stands around the one that can be paid, that one is chosen, and judged as if it stood alone."""
    accepts = [BAD[name][0] for name in names]
    accepts.insert(place, GOOD)
    found = accepts.index(GOOD)
    assert choice(accepts) == found
    [alone] = judged(listed(said([GOOD])), WANTED)
    beside = judged(listed(said(accepts)), WANTED)[found]
    assert [(line.was, line.should_be, line.right) for line in beside.lines] == [
        (line.was, line.should_be, line.right) for line in alone.lines
    ]


@given(st.lists(st.sampled_from(sorted(BAD)), min_size=2, max_size=6))
def test_of_bad_offers_none_is_paid_and_each_is_named(names: list[str]) -> None:
    """Where nothing passes, nothing that was judged unfit passes for chosen, and the refusal has a remedy."""
    each = judged(listed(said([BAD[name][0] for name in names])), WANTED)
    index = chosen(each, WANTED)
    assert index is None or not each[index].payable
    refused = refusal(each, WANTED)
    assert refused.field == "accepts"
    assert refused.remedy
    assert all(f"accepts[{one.index}]" in refused.was for one in each[:4])
    assert len(str(refused)) < 700


def test_equal_offers_are_one() -> None:
    """Offers that would pay the same party the same sum mean the same, whatever else they say; the first is taken."""
    assert choice([GOOD, GOOD | {"maxTimeoutSeconds": 60}, GOOD | {"extra": None}]) == 0
    assert choice([BAD["stranger"][0], GOOD | {"maxTimeoutSeconds": 60}, GOOD]) == 1


@pytest.mark.parametrize(
    ("other", "bounds", "setting"),
    [
        (GOOD | {"payTo": "0x" + OTHER.hex()}, replace(BOUNDS, recipients=None), "rails.x402.recipients"),
        (GOOD | {"payTo": "0x" + OTHER.hex()}, replace(BOUNDS, recipients=frozenset({OURS, OTHER})), "recipients"),
        (GOOD | {"amount": "10050000"}, replace(BOUNDS, fee_ceiling=Bps(100)), "rails.x402.fee_ceiling_bps"),
    ],
)
def test_offers_that_differ_are_refused_until_a_setting_decides(other: Json, bounds: Bounds, setting: str) -> None:
    """Nobody knows which was meant: none is paid, the refusal names both and the setting; with it, one remains."""
    wanted = replace(WANTED, bounds=bounds)
    for accepts in ([GOOD, other], [other, GOOD]):
        each = judged(listed(said(accepts)), wanted)
        assert all(one.payable for one in each)
        assert chosen(each, wanted) is None
        refused = refusal(each, wanted)
        assert "2 offers that can be paid and differ" in refused.was
        assert setting in refused.remedy
        assert choice(accepts, WANTED) == accepts.index(GOOD)


def test_where_the_payer_chooses_the_sum_the_minimum_is_no_difference() -> None:
    """Two minima below what is bought mean the same payment; one above it cannot be paid."""
    wanted = replace(WANTED, minimum=True)
    low, lower, high = (GOOD | {"amount": units} for units in ("5000000", "1000000", "10000001"))
    assert choice([low, lower], wanted) == 0
    assert choice([high, low], wanted) == 1


def test_the_record_s_limits_are_a_line() -> None:
    """A purchase that the seller's record says is not sold is refused before anything is signed, with its setting."""
    wanted = replace(WANTED, least=Usd.of(11).amount, seller="the seller gaib")
    [one] = judged(listed(said([GOOD])), wanted)
    assert not one.payable
    assert [line.field for line in one.lines if not line.right] == ["purchase"]
    assert "policy.amount" in one.lines[0].remedy
