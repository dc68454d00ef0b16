"""Can money be mixed up, rounded the wrong way, or pass through a float?"""

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


def test_an_amount_is_made_of_exact_numbers_only() -> None:
    """No float, bool or text becomes money, nor a factor of it: 0.1 is no tenth. Units are whole: no Decimal."""
    kinds: tuple[Any, ...] = (Wei, Usdc, Bps, EthPrice, Usd)
    wrong: Any = 0.1
    for make, values in (
        *((kind, (1.0, True, "1", None)) for kind in kinds),
        *((kind, (Decimal(1),)) for kind in kinds[:-1]),
        *((act, (wrong,)) for act in (Usd(Decimal(1)).times, Wei(1).times, Usdc(1).times, Usd.of)),
    ):
        for value in values:
            with pytest.raises(TypeError):
                make(value)


@pytest.mark.parametrize("text", ["", "ten", "NaN", "sNaN", "Infinity", "-Infinity", "1,5", "0x10", "1.2.3", "$5"])
def test_what_is_no_amount_of_dollars_is_refused(text: str) -> None:
    """Only a finite decimal number is an amount of dollars; NaN compares false with everything."""
    with pytest.raises(ValueError, match="amount"):
        Usd.of(text)
    if text.strip("-s") in ("NaN", "Infinity"):
        with pytest.raises(ValueError, match="not an amount of money"):
            Usd(Decimal(text))


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


def test_rounding_loses_nothing_and_does_not_depend_on_the_surroundings() -> None:
    """A trace 30 digits behind the point of a large amount counts; a caller's context of four digits does not."""
    assert Usd.of("100000000000000.000000000000000000000000000001").usdc_up() == Usdc(100_000_000_000_000_000_001)
    with localcontext() as context:
        context.prec = 4
        assert Usd.of("123456.789").plus_bps(Bps(500)) == Usd.of("129629.62845")
        assert Usd.of("123456.7890001").usdc_down() == Usdc(123_456_789_000)
        assert Usd.of("123456.7890001").cents_up() == Usd.of("123456.79")


@given(st.integers(0, 2**256), margins, st.integers(0, 10**18), st.integers(0, 10**24), st.integers(1, 10**14))
def test_what_may_have_to_be_paid_is_rounded_up(wei: int, margin: Bps, usdc: int, gas: int, e8: int) -> None:
    """`plus_bps_up`, `wei_for_up` and `usd_of_up` are the least wei, or millionth of a dollar, that covers it."""
    exact = Fraction(wei * (10_000 + margin.bps), 10_000)
    assert exact <= Wei(wei).plus_bps_up(margin).units < exact + 1
    price = Fraction(e8, 10**8)
    exact = Fraction(usdc, 10**6) / price * WEI_PER_ETH
    assert exact <= EthPrice(e8).wei_for_up(Usdc(usdc)).units < exact + 1
    exact = Fraction(gas, WEI_PER_ETH) * price
    assert exact <= Fraction(EthPrice(e8).usd_of_up(Wei(gas)).amount) < exact + Fraction(1, 10**6)


def test_ten_and_a_half_dollars_at_three_thousand_are_35_ten_thousandths_of_an_eth() -> None:
    """A worked example, so that a scale of ten cannot hide in a formula written twice."""
    assert EthPrice(3000 * 10**8).wei_for_up(Usdc(10_500_000)) == Wei(3_500_000_000_000_000)
    assert EthPrice(3000 * 10**8).usd_of_up(Wei(3_500_000_000_000_000)) == Usd.of("10.5")


@given(st.integers(0, 10**24), st.integers(1, 10**24))
def test_deviation_is_rounded_against_us(paid: int, fair: int) -> None:
    """`deviation_bps_up` is the least whole basis point not below what is paid too much; a wei too much is one."""
    exact = Fraction((paid - fair) * 10_000, fair)
    assert exact <= deviation_bps_up(Wei(paid), Wei(fair)).bps < exact + 1
    examples = [(10_000, 10_000), (10_001, 10_000), (100_001, 100_000), (9_900, 10_000), (99_999, 100_000)]
    assert [deviation_bps_up(Wei(one), Wei(other)).bps for one, other in examples] == [0, 1, 1, -100, 0]


NUMBERS = "1E+2 1.500 100 0E-9 0E+3 -0.00 -0 1E-18 -2.50"
PRINTED = "100 1.5 100 0 0 0 0 0.000000000000000001 -2.5"


def test_numbers_are_printed_plainly() -> None:
    """No exponent, no idle zeros, no negative zero: what is printed can be read anywhere.

    ETH and USDC carry their name, dollars stand bare, basis points are a percentage.
    """
    assert [plain(Decimal(number)) for number in NUMBERS.split()] == PRINTED.split()
    amounts = (Wei(1), Usdc(1_050_000), Usd.of("12.50"), Bps(125))
    assert [str(x) for x in amounts] == ["0.000000000000000001 ETH", "1.05 USDC", "12.5", "1.25 %"]


@given(dollars)
def test_printed_dollars_read_back_equal(one: Usd) -> None:
    """The ledger stores dollars as their printed text, so printing loses nothing."""
    assert Usd.of(str(one)) == one
