"""Can money be mixed up, rounded the wrong way, or pass through a float?"""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.money import WEI_PER_ETH, Bps, EthPrice, Usd, Usdc, Wei, deviation_bps_up, plain

MONEY: tuple[Any, ...] = (Wei(5), Usdc(5), Usd(Decimal(5)))
OTHERS: tuple[Any, ...] = (*MONEY, Bps(5), EthPrice(5), 5, 5.0, Decimal(5), True)
PAIRS = [(one, other) for one in MONEY for other in OTHERS if type(one) is not type(other)]

# As the API may send them: up to 15 digits before the point and 30 behind it.
dollars = st.builds(
    lambda digits, places: Usd(Decimal(digits).scaleb(-places)),
    st.integers(-(10**28) + 1, 10**28 - 1),
    st.integers(0, 28),
)
long_dollars = st.integers(-(10**44), 10**44).map(lambda digits: Usd(Decimal(f"{digits}e-29")))
words = st.integers(-(2**256), 2**256)
margins = st.integers(0, 20_000).map(Bps)


@pytest.mark.parametrize("act", [operator.add, operator.sub, operator.lt, operator.ge])
@pytest.mark.parametrize(("one", "other"), PAIRS, ids=str)
def test_different_money_does_not_mix(act: Callable[[Any, Any], Any], one: Any, other: Any) -> None:
    """Adding, subtracting or comparing money of two kinds, or money and a bare number, is a TypeError."""
    with pytest.raises(TypeError):
        act(one, other)


def test_equal_numbers_of_different_money_are_not_equal() -> None:
    """Five wei are not five USDC units, nor five."""
    assert not any(one == other for one, other in PAIRS)


@pytest.mark.parametrize("kind", [Wei, Usdc, Usd, Bps, EthPrice])
@pytest.mark.parametrize("wrong", [1.0, True, "1", None])
def test_an_amount_is_made_of_exact_numbers_only(kind: Callable[[Any], Any], wrong: Any) -> None:
    """No float, bool or text becomes money by construction."""
    with pytest.raises(TypeError):
        kind(wrong)


@pytest.mark.parametrize("kind", [Wei, Usdc, Bps, EthPrice])
def test_a_decimal_is_no_count_of_units(kind: Callable[[Any], Any]) -> None:
    """Units are whole: a Decimal is refused even where its value is whole."""
    with pytest.raises(TypeError):
        kind(Decimal(1))


def test_no_float_enters_through_a_factor_or_a_reading() -> None:
    """0.1 is not a tenth, so neither `times` nor `of` takes it."""
    wrong: Any = 0.1
    for act in (Usd(Decimal(1)).times, Wei(1).times, Usdc(1).times, Usd.of):
        with pytest.raises(TypeError):
            act(wrong)


@pytest.mark.parametrize("text", ["", "ten", "NaN", "sNaN", "Infinity", "-Infinity", "1,5", "0x10", "1.2.3", "$5"])
def test_what_is_no_amount_of_dollars_is_refused(text: str) -> None:
    """Only a finite decimal number is an amount of dollars."""
    with pytest.raises(ValueError, match="amount"):
        Usd.of(text)


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_not_a_number_is_not_money(amount: str) -> None:
    """NaN compares false with everything, so it may never become an amount."""
    with pytest.raises(ValueError, match="not an amount of money"):
        Usd(Decimal(amount))


@given(words, words)
def test_units_add_exactly(one: int, other: int) -> None:
    """Wei and USDC of 256 bits add, subtract and multiply as integers do."""
    kinds: tuple[Any, ...] = (Wei, Usdc)
    for kind in kinds:
        assert (kind(one) + kind(other)).units == one + other
        assert (kind(one) - kind(other)).units == one - other
        assert kind(one).times(3).units == 3 * one


@given(long_dollars, dollars, margins)
def test_dollars_are_exact(one: Usd, other: Usd, margin: Bps) -> None:
    """Sums, differences and margins of dollars equal the same in fractions, also beyond 28 digits."""
    a, b = Fraction(one.amount), Fraction(other.amount)
    assert Fraction((one + other).amount) == a + b
    assert Fraction((one - other).amount) == a - b
    assert Fraction(one.plus_bps(margin).amount) == a * (10_000 + margin.bps) / 10_000
    assert Fraction(one.times(7).amount) == 7 * a


@given(long_dollars)
def test_cents_and_usdc_are_rounded_as_they_are_named(one: Usd) -> None:
    """`up` is the least step not below the amount, `down` the greatest not above it, for negative amounts too."""
    exact = Fraction(one.amount)
    for up, down, step in (
        (Fraction(one.cents_up().amount), Fraction(one.cents_down().amount), Fraction(1, 100)),
        (Fraction(one.usdc_up().units, 10**6), Fraction(one.usdc_down().units, 10**6), Fraction(1, 10**6)),
    ):
        assert up - step < exact <= up
        assert down <= exact < down + step


def test_the_smallest_excess_is_still_rounded_up() -> None:
    """A trace 30 digits behind the point of a large amount is not lost before rounding."""
    assert Usd.of("100000000000000.000000000000000000000000000001").usdc_up() == Usdc(100_000_000_000_000_000_001)


def test_rounding_does_not_depend_on_the_surroundings() -> None:
    """A caller's decimal context of four digits changes no amount."""
    with localcontext() as context:
        context.prec = 4
        assert Usd.of("123456.789").plus_bps(Bps(500)) == Usd.of("129629.62845")
        assert Usd.of("123456.7890001").usdc_down() == Usdc(123_456_789_000)
        assert Usd.of("123456.7890001").cents_up() == Usd.of("123456.79")


@given(st.integers(0, 2**256), margins)
def test_a_margin_on_wei_is_rounded_up(units: int, margin: Bps) -> None:
    """`plus_bps_up` is the least whole wei that covers the margin."""
    exact = Fraction(units * (10_000 + margin.bps), 10_000)
    assert exact <= Wei(units).plus_bps_up(margin).units < exact + 1


@given(st.integers(0, 10**18), st.integers(1, 10**14))
def test_eth_for_usdc_is_rounded_up_from_the_exact_price(units: int, e8: int) -> None:
    """`wei_for_up` is the least whole wei worth the amount at the feed's price."""
    exact = Fraction(units, 10**6) / Fraction(e8, 10**8) * WEI_PER_ETH
    assert exact <= EthPrice(e8).wei_for_up(Usdc(units)).units < exact + 1


@given(st.integers(0, 10**24), st.integers(1, 10**14))
def test_dollars_of_wei_are_rounded_up_to_a_millionth(units: int, e8: int) -> None:
    """`usd_of_up` is the least millionth of a dollar that covers the wei at the feed's price."""
    exact = Fraction(units, WEI_PER_ETH) * Fraction(e8, 10**8)
    told = Fraction(EthPrice(e8).usd_of_up(Wei(units)).amount)
    assert exact <= told < exact + Fraction(1, 10**6)


def test_ten_and_a_half_dollars_at_three_thousand_are_35_ten_thousandths_of_an_eth() -> None:
    """A worked example, so that a scale of ten cannot hide in a formula written twice."""
    assert EthPrice(3000 * 10**8).wei_for_up(Usdc(10_500_000)) == Wei(3_500_000_000_000_000)
    assert EthPrice(3000 * 10**8).usd_of_up(Wei(3_500_000_000_000_000)) == Usd.of("10.5")


@given(st.integers(0, 10**24), st.integers(1, 10**24))
def test_deviation_is_rounded_against_us(paid: int, fair: int) -> None:
    """`deviation_bps_up` is the least whole basis point not below what is paid too much."""
    exact = Fraction((paid - fair) * 10_000, fair)
    assert exact <= deviation_bps_up(Wei(paid), Wei(fair)).bps < exact + 1


@pytest.mark.parametrize(
    ("paid", "fair", "bps"),
    [(10_000, 10_000, 0), (10_001, 10_000, 1), (100_001, 100_000, 1), (9_900, 10_000, -100), (99_999, 100_000, 0)],
)
def test_deviation_by_example(paid: int, fair: int, bps: int) -> None:
    """One wei too much is already one basis point; cheaper is negative."""
    assert deviation_bps_up(Wei(paid), Wei(fair)) == Bps(bps)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1E+2", "100"),
        ("1.500", "1.5"),
        ("100", "100"),
        ("0E-9", "0"),
        ("0E+3", "0"),
        ("-0.00", "0"),
        ("-0", "0"),
        ("1E-18", "0.000000000000000001"),
        ("-2.50", "-2.5"),
    ],
)
def test_numbers_are_printed_plainly(number: str, text: str) -> None:
    """No exponent, no idle zeros, no negative zero: what is printed can be read anywhere."""
    assert plain(Decimal(number)) == text


def test_each_money_prints_in_its_own_unit() -> None:
    """ETH and USDC carry their name, dollars stand bare, basis points are a percentage."""
    assert [str(x) for x in (Wei(1), Usdc(1_050_000), Usd.of("12.50"), Bps(125))] == [
        "0.000000000000000001 ETH",
        "1.05 USDC",
        "12.5",
        "1.25 %",
    ]


@given(dollars)
def test_printed_dollars_read_back_equal(one: Usd) -> None:
    """The ledger stores dollars as their printed text, so printing loses nothing."""
    assert Usd.of(str(one)) == one
