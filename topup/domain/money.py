"""How much? Amounts that cannot be mixed up: dollars, wei, USDC and basis points, each with its rounding.

Every amount is an exact integer or `Decimal` in a type of its own; adding `Usd` to `Wei` is a type error when
checked and a `TypeError` when run. No float enters or leaves. What we may pay is rounded down, what we must
hold in reserve is rounded up, and every division names its direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from typing import Self

# Wide enough for a 256-bit integer times a price; a result that would not fit raises instead of rounding.
EXACT = Context(prec=160, traps=[Inexact, InvalidOperation])
WIDE = Context(prec=160)

BPS_ONE = 10_000
WEI_PER_ETH = 10**18
UNITS_PER_USDC = 10**6


@dataclass(frozen=True, order=True, slots=True)
class _Units:
    """An integer number of a commodity's smallest unit."""

    units: int

    def __post_init__(self) -> None:
        if type(self.units) is not int:
            raise TypeError(f"{type(self).__name__} takes an int, not {type(self.units).__name__}")

    def __add__(self, other: Self) -> Self:
        _same(self, other)
        return type(self)(self.units + other.units)

    def __sub__(self, other: Self) -> Self:
        _same(self, other)
        return type(self)(self.units - other.units)

    def times(self, count: int) -> Self:
        """Return this amount `count` times."""
        return type(self)(self.units * count)


@dataclass(frozen=True, order=True, slots=True)
class Wei(_Units):
    """ETH in wei (10^-18 ETH)."""

    @property
    def eth(self) -> Decimal:
        """The same amount in ETH, exact."""
        return EXACT.divide(Decimal(self.units), Decimal(WEI_PER_ETH))

    def plus_bps_up(self, margin: Bps) -> Wei:
        """Return this amount plus `margin`, rounded up to a whole wei."""
        return Wei(-(-self.units * (BPS_ONE + margin.bps) // BPS_ONE))

    def __str__(self) -> str:
        return f"{plain(self.eth)} ETH"


@dataclass(frozen=True, order=True, slots=True)
class Usdc(_Units):
    """USDC in its smallest unit (10^-6 USDC; the token has 6 decimals)."""

    @property
    def usdc(self) -> Decimal:
        """The same amount in whole USDC, exact."""
        return EXACT.divide(Decimal(self.units), Decimal(UNITS_PER_USDC))

    @property
    def usd(self) -> Usd:
        """The same amount in dollars, at par."""
        return Usd(self.usdc)

    def __str__(self) -> str:
        return f"{plain(self.usdc)} USDC"


@dataclass(frozen=True, order=True, slots=True)
class Usd:
    """US dollars, exact: provider credits have more decimals than cents."""

    amount: Decimal

    def __post_init__(self) -> None:
        if type(self.amount) is not Decimal:
            raise TypeError(f"Usd takes a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise ValueError(f"{self.amount} is not an amount of money")

    @classmethod
    def of(cls, text: str | int) -> Usd:
        """Read a plain decimal number of dollars; a ValueError where the text is no finite one."""
        if type(text) not in (str, int):
            raise TypeError(f"dollars are read from text or an int, not {type(text).__name__}")
        try:
            return cls(Decimal(text))
        except InvalidOperation:
            raise ValueError(f"{text!r} is not an amount of dollars, such as 25 or 12.50") from None

    def __add__(self, other: Usd) -> Usd:
        _same(self, other)
        return Usd(EXACT.add(self.amount, other.amount))

    def __sub__(self, other: Usd) -> Usd:
        _same(self, other)
        return Usd(EXACT.subtract(self.amount, other.amount))

    def times(self, factor: Decimal | int) -> Usd:
        """Return this amount times an exact factor."""
        if type(factor) not in (Decimal, int):
            raise TypeError(f"dollars are multiplied by a Decimal or an int, not {type(factor).__name__}")
        return Usd(EXACT.multiply(self.amount, Decimal(factor)))

    def plus_bps(self, margin: Bps) -> Usd:
        """Return this amount plus `margin`, exact."""
        return Usd(EXACT.divide(EXACT.multiply(self.amount, Decimal(BPS_ONE + margin.bps)), Decimal(BPS_ONE)))

    def cents_up(self) -> Usd:
        """Round up to a whole cent."""
        return Usd(self.amount.quantize(Decimal("0.01"), rounding=ROUND_CEILING, context=WIDE))

    def cents_down(self) -> Usd:
        """Round down to a whole cent."""
        return Usd(self.amount.quantize(Decimal("0.01"), rounding=ROUND_FLOOR, context=WIDE))

    def usdc_up(self) -> Usdc:
        """Return what this amount is in USDC at one to one, rounded up to the token's unit."""
        return Usdc(int(self._micros().to_integral_value(rounding=ROUND_CEILING)))

    def usdc_down(self) -> Usdc:
        """Return what this amount is in USDC at one to one, rounded down to the token's unit."""
        return Usdc(int(self._micros().to_integral_value(rounding=ROUND_FLOOR)))

    def _micros(self) -> Decimal:
        # Not with `*`: the default context rounds to 28 digits, and a total of the API may have more.
        return EXACT.multiply(self.amount, Decimal(UNITS_PER_USDC))

    def __str__(self) -> str:
        return plain(self.amount)


@dataclass(frozen=True, order=True, slots=True)
class Bps:
    """Basis points, 1/10000."""

    bps: int

    def __post_init__(self) -> None:
        if type(self.bps) is not int:
            raise TypeError(f"Bps takes an int, not {type(self.bps).__name__}")

    def __str__(self) -> str:
        return f"{plain(Decimal(self.bps) / 100)} %"


class Asset(StrEnum):
    """What a wallet pays with. All dollars are counted in `Usdc`, and are not the same money."""

    ETH = "ETH"
    USDC = "USDC"
    USDC_E = "USDC.e"  # USDC that a bridge holds, on Tempo
    PATH_USD = "pathUSD"  # Tempo's own dollar


@dataclass(frozen=True, order=True, slots=True)
class EthPrice:
    """What one ETH costs in dollars, as a price feed states it: an integer with 8 decimals."""

    e8: int

    def __post_init__(self) -> None:
        if type(self.e8) is not int:
            raise TypeError(f"EthPrice takes an int, not {type(self.e8).__name__}")

    @property
    def usd(self) -> Decimal:
        """Dollars for one ETH."""
        return EXACT.divide(Decimal(self.e8), Decimal(10**8))

    def wei_for_up(self, amount: Usdc) -> Wei:
        """Return the ETH that `amount` is worth at this price with USDC at one dollar, rounded up.

        wei = units / 10^6 dollars / (e8 / 10^8 dollars per ETH) * 10^18
        """
        return Wei(-(-amount.units * WEI_PER_ETH * 10**8 // (UNITS_PER_USDC * self.e8)))

    def wei_for_down(self, amount: Usdc) -> Wei:
        """Return the ETH that `amount` is worth at this price, rounded down."""
        return Wei(amount.units * WEI_PER_ETH * 10**8 // (UNITS_PER_USDC * self.e8))

    def usd_of_up(self, amount: Wei) -> Usd:
        """Return what `amount` is worth in dollars at this price, rounded up to a ten-thousandth of a cent."""
        micros = -(-amount.units * self.e8 * UNITS_PER_USDC // (WEI_PER_ETH * 10**8))
        return Usd(EXACT.divide(Decimal(micros), Decimal(UNITS_PER_USDC)))


def gas_dollars(price: Wei, gas: int) -> Usdc:
    """Return what so much gas costs where it is priced in 10^-18 dollars (Tempo), rounded up to a unit of 10^-6."""
    return Usdc(-(-price.units * gas // 10**12))


def deviation_bps_up(paid: Wei, fair: Wei) -> Bps:
    """Return by how many basis points `paid` exceeds `fair`, rounded up; negative when it is cheaper."""
    return Bps(-(-(paid.units - fair.units) * BPS_ONE // fair.units))


def plain(number: Decimal) -> str:
    """Write a Decimal without exponent, without trailing zeros behind the point, and zero without a sign."""
    if not number:
        return "0"
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _same(amount: object, other: object) -> None:
    if type(amount) is not type(other):
        raise TypeError(f"{type(amount).__name__} and {type(other).__name__} are different money")
