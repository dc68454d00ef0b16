"""What does each thing that happened mean in debits and credits?

Pure double entry. An entry is a list of lines, each an integer amount of one commodity's smallest unit on one
account; the lines of an entry sum to zero in every commodity. What turns one commodity into another passes
through `equity:conversion`, so that nothing is ever added across commodities.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from topup.domain.lifecycle import NO_WEI, Attempt, Inclusion, Kind, TopUp
from topup.domain.money import WIDE, Asset, EthPrice, Usd, Usdc, Wei

if TYPE_CHECKING:
    from topup.domain.demand import Demand


class Commodity(StrEnum):
    """What is counted, in its smallest unit: wei, 10^-6 USDC, USDC.e or pathUSD, 10^-6 dollars of provider credit."""

    ETH = "ETH"
    USDC = "USDC"
    USDC_E = "USDC.e"
    PATH_USD = "pathUSD"
    CREDIT = "USD.credit"


# Account names, in the order a balance sheet prints them.
WALLET = "assets:wallet"
IN_TRANSIT = "assets:in-transit"
CREDITS = "assets:prepaid-credits"
CONVERSION = "equity:conversion"
FEE_PROVIDER = "expenses:fee:provider"
FEE_OPERATOR = "expenses:fee:operator"
GAS = "expenses:gas"
GAS_REVERTED = "expenses:gas:reverted"
L1_FEE = "expenses:l1-data-fee"
SWAP_COST = "expenses:swap-cost"
LOST = "expenses:lost"
# What the network takes, and the dollars that it or a payment may be paid in.
NETWORK = (GAS, GAS_REVERTED, L1_FEE)
TOKENS = (Commodity.USDC, Commodity.USDC_E, Commodity.PATH_USD)
# How the text of an entry begins that takes another one back.
TAKEN_BACK = "taken back: "


@dataclass(frozen=True)
class Line:
    """So much of a commodity into an account; negative out of it."""

    account: str
    commodity: Commodity
    units: int


@dataclass(frozen=True)
class Entry:
    """One balanced journal entry."""

    at_ms: int
    topup_id: str
    text: str
    tx_hash: bytes | None
    charge_id: str
    block_number: int | None
    usd_value: Usd | None
    price_source: str
    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        sums: dict[Commodity, int] = {}
        for line in self.lines:
            sums[line.commodity] = sums.get(line.commodity, 0) + line.units
        wrong = {c: s for c, s in sums.items() if s}
        if wrong:
            raise ValueError(f"the entry {self.text!r} does not balance: {wrong}")

    @property
    def tx(self) -> str:
        """Return the hash of the transaction that it books, "" where there is none."""
        return "0x" + self.tx_hash.hex() if self.tx_hash is not None else ""


def units(lines: Iterable[Line], accounts: Collection[str], commodities: Collection[Commodity]) -> int:
    """Return what lines sum to on these accounts, in these commodities, which have to have the same smallest unit."""
    return sum(x.units for x in lines if x.account in accounts and x.commodity in commodities)


def by_topup(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each top-up in their order; those of none are left out."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.topup_id:
            groups.setdefault(entry.topup_id, []).append(entry)
    return groups


def chained(previous: bytes, account: str, entry: Entry) -> bytes:
    """Return the hash of an entry that follows the one with hash `previous` (b"" for the first), 32 bytes.

    SHA-256 over `previous` and the entry as JSON without spaces, non-ASCII characters escaped: a list of the account
    whose journal it is, at_ms, topup, text, tx_hash (hex), charge_id, block_number, usd_value, price_source, and a list
    of [account, commodity, units] for each line; units are text, and what is missing is null.
    """
    facts = [
        account,
        entry.at_ms,
        entry.topup_id or None,
        entry.text,
        entry.tx_hash.hex() if entry.tx_hash is not None else None,
        entry.charge_id,
        entry.block_number,
        str(entry.usd_value) if entry.usd_value is not None else None,
        entry.price_source,
        [[line.account, line.commodity.value, str(line.units)] for line in entry.lines],
    ]
    return hashlib.sha256(previous + json.dumps(facts, separators=(",", ":")).encode()).digest()


def payment_lines(spent: Wei, gas: Wei, l1_fee: Wei, total: Usdc, price_e8: int = 0) -> tuple[Line, ...]:
    """Book a successful payment: ETH left the wallet, its USDC is in transit, the network took its part.

    What the swap took beyond the worth of `total` at the feed's price (dollars per ETH, 8 decimals) is its cost,
    rounded up; negative where the pool gave more than the feed says. Without a price (0) all of it was converted.
    """
    eth = Commodity.ETH
    worth = EthPrice(price_e8).wei_for_down(total) if price_e8 else spent
    return _kept(
        Line(WALLET, eth, -(spent + gas + l1_fee).units),
        Line(GAS, eth, gas.units),
        Line(L1_FEE, eth, l1_fee.units),
        Line(SWAP_COST, eth, (spent - worth).units),
        Line(CONVERSION, eth, worth.units),
        Line(CONVERSION, Commodity.USDC, -total.units),
        Line(IN_TRANSIT, Commodity.USDC, total.units),
    )


def token_lines(inclusion: Inclusion, token: Commodity) -> tuple[Line, ...]:
    """Book a payment by token: it left the wallet and is in transit; the network took ETH, or more of the token."""
    eth = Commodity.ETH
    return _kept(
        Line(WALLET, token, -(inclusion.tokens + inclusion.token_fee).units),
        Line(GAS, token, inclusion.token_fee.units),
        Line(IN_TRANSIT, token, inclusion.tokens.units),
        Line(WALLET, eth, -(inclusion.gas + inclusion.l1_fee).units),
        Line(GAS, eth, inclusion.gas.units),
        Line(L1_FEE, eth, inclusion.l1_fee.units),
    )


def revert_lines(gas: Wei, l1_fee: Wei, lost: Wei = NO_WEI) -> tuple[Line, ...]:
    """Book what was included and paid nothing: the network's part is gone, and whatever else left the wallet."""
    eth = Commodity.ETH
    return _kept(
        Line(WALLET, eth, -(lost + gas + l1_fee).units),
        Line(LOST, eth, lost.units),
        Line(GAS_REVERTED, eth, gas.units),
        Line(L1_FEE, eth, l1_fee.units),
    )


def credit_lines(amount: Usd, total: Usdc, operator_fee: Usdc, usdc: Commodity = Commodity.USDC) -> tuple[Line, ...]:
    """Book the posting: what was in transit became credit, and the rest was fees.

    The provider's fee is what is left of the total once the credits and the operator's part are taken off, so
    that the fees always sum to total − credits and nothing is counted twice.
    """
    credit = Commodity.CREDIT
    bought = amount.usdc_down()
    return _kept(
        Line(IN_TRANSIT, usdc, -total.units),
        Line(FEE_OPERATOR, usdc, operator_fee.units),
        Line(FEE_PROVIDER, usdc, (total - bought - operator_fee).units),
        Line(CONVERSION, usdc, bought.units),
        Line(CONVERSION, credit, -bought.units),
        Line(CREDITS, credit, bought.units),
    )


def attempt_entry(topup_id: str, attempt: Attempt, demand: Demand) -> Entry:
    """Book an included attempt, paid or reverted, at the feed's price of the moment it was planned."""
    inclusion = attempt.inclusion
    assert inclusion is not None, "only what stands in a block is booked"
    plan, price = attempt.plan, attempt.plan.eth_price_e8
    if attempt.paid and plan.asset is Asset.ETH:
        text, lines = "payment", payment_lines(inclusion.spent, inclusion.gas, inclusion.l1_fee, demand.total, price)
    elif attempt.paid:
        text, lines = "payment", token_lines(inclusion, Commodity(plan.asset))
    elif plan.kind is Kind.APPROVE and inclusion.success:
        text = "token approved" if plan.tokens.units else "approval revoked"
        lines = token_lines(inclusion, Commodity.USDC)
    elif attempt.plan.kind is Kind.CANCEL:
        text, lines = "payment cancelled", revert_lines(inclusion.gas, inclusion.l1_fee)
    else:
        lost = inclusion.spent != NO_WEI or inclusion.tokens.units
        text = "left the wallet without paying" if lost else "payment reverted"
        lines = revert_lines(inclusion.gas, inclusion.l1_fee, inclusion.spent)
        if plan.asset is not Asset.ETH:
            token, tokens, fee = Commodity(plan.asset), inclusion.tokens.units, inclusion.token_fee.units
            left = (Line(WALLET, token, -(tokens + fee)), Line(LOST, token, tokens), Line(GAS_REVERTED, token, fee))
            lines += _kept(*left)
    return Entry(
        at_ms=inclusion.block_ms,
        topup_id=topup_id,
        text=text,
        tx_hash=attempt.tx_hash,
        charge_id=demand.charge_id,
        block_number=inclusion.block_number,
        usd_value=_worth(inclusion, price),
        price_source=("feed" if price else "none") if attempt.ours else "par",
        lines=lines,
    )


def reversal(entry: Entry, at_ms: int) -> Entry:
    """Take an entry back whose block was replaced: the same lines with the opposite sign."""
    lines = tuple(Line(x.account, x.commodity, -x.units) for x in entry.lines)
    value = Usd.of(0) - entry.usd_value if entry.usd_value is not None else None
    return replace(entry, at_ms=at_ms, text=f"{TAKEN_BACK}{entry.text}", usd_value=value, lines=lines)


def posting_entry(topup: TopUp, attempt: Attempt, demand: Demand, at_ms: int) -> Entry:
    """Book the posting of a top-up that `attempt` paid, in the dollar that its payment arrives in."""
    asset = attempt.plan.asset
    dollar = Commodity.USDC if asset is Asset.ETH else Commodity(asset)
    return Entry(
        at_ms=at_ms,
        topup_id=topup.id,
        text="credits posted",
        tx_hash=attempt.tx_hash,
        charge_id=demand.charge_id,
        block_number=attempt.inclusion.block_number if attempt.inclusion is not None else None,
        usd_value=topup.amount,
        price_source="provider",
        lines=credit_lines(topup.amount, demand.total, demand.fee, dollar),
    )


def _worth(inclusion: Inclusion, price_e8: int) -> Usd | None:
    """Return what left the wallet in dollars, tokens at par; None where ETH left and no feed has priced it."""
    eth, tokens = inclusion.spent + inclusion.gas + inclusion.l1_fee, inclusion.tokens + inclusion.token_fee
    if eth != NO_WEI and not price_e8:
        return None
    return (EthPrice(price_e8).usd_of_up(eth) if eth != NO_WEI else Usd.of(0)) + tokens.usd


def network_cost(topup: TopUp) -> tuple[Wei, Wei]:
    """Return gas and L1 data fee over all attempts of a top-up, reverted ones included."""
    inclusions = [a.inclusion for a in topup.attempts if a.inclusion is not None]
    return sum((i.gas for i in inclusions), Wei(0)), sum((i.l1_fee for i in inclusions), Wei(0))


def usd_per_credit(total: Usdc, amount: Usd) -> Decimal:
    """Return the dollars paid for one dollar of credit, before network fees, to four decimals."""
    return (total.usdc / amount.amount).quantize(Decimal("0.0001"), context=WIDE) if amount.amount else Decimal(0)


def _kept(*lines: Line) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.units)
