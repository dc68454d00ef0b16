"""What is a refill paid with: which dollars on which chain, to whom, and how many refills does the wallet cover?"""

from dataclasses import dataclass
from typing import Any

from topup.app import assembly
from topup.app.settings import Settings
from topup.chain.owners import quorum
from topup.domain.credits import Reading
from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLARS, Dollar
from topup.domain.lifecycle import NO_TOKENS
from topup.domain.money import EthPrice, Usd, Usdc, Wei, gas_dollars, plain
from topup.domain.policy import amount_due, worst_spend
from topup.payment.config import MPP, X402
from topup.ports.chain import Preflight


@dataclass(frozen=True)
class Funding:
    """Where the dollars lie that a rail pays with, and who tells of that chain.

    `said` is the setting that names the providers `urls`; `wanted` is how many of them have to agree, None for the
    usual. `fee_max` is the most that the network may take of one payment.
    """

    rail: str
    chain: str
    dollar: Dollar
    said: str
    urls: tuple[str, ...]
    wanted: int | None
    fee_max: Usdc

    @property
    def agreeing(self) -> int:
        """Return how many providers of different owners have to agree."""
        return quorum(self.urls, self.wanted)

    def amount(self, units: Usdc) -> str:
        """Return an amount by its own name: what a bridge holds is not what it stands for."""
        return f"{plain(units.usdc)} {self.dollar.asset}"


def funding(settings: Settings, rail: str) -> Funding:
    """Return what a rail pays with whose seller carries the payment to the chain."""
    c, r = settings.chain, settings.rails.mpp
    if rail == MPP:
        fee_max = Usd(r.network_fee_max_usd).usdc_down()
        dollar = TEMPO_DOLLARS[r.pay_with]
        return Funding(rail, "Tempo", dollar, "rails.mpp.rpc_urls", r.rpc_urls, r.quorum, fee_max)
    return Funding(rail, "Base", BASE_DOLLAR, "chain.rpc_urls", c.rpc_urls, c.quorum, NO_TOKENS)


@dataclass(frozen=True)
class Named:
    """Who may be paid by a rail whose recipients stand in `setting`; `whose` says who named them, none = anybody."""

    rail: str
    setting: str
    recipients: tuple[str, ...]
    whose: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a JSON-ready document."""
        return {**vars(self), "recipients": list(self.recipients)}

    def line(self) -> str:
        """Return it as a line for a terminal."""
        who = ", ".join(self.recipients) or "anybody whom an offer names"
        to_do = f"; to do: {self.remedy}" if self.remedy else ""
        return f"{self.rail:<10} pays {who}, {self.whose}{to_do}"


def named(settings: Settings) -> list[Named]:
    """Return who may be paid by each rail in use whose recipients stand in the settings; nobody is asked."""
    rails = []
    if MPP in settings.rails_in_use:
        setting, given = "rails.mpp.recipients", settings.rails.mpp.recipients
        remedy = f"`topup doctor --rail mpp` shows the offer: when its recipient stays the same, put it into {setting}"
        whose = f"by {setting}" if given else f"because {setting} is empty: its amount is bounded, not who gets it"
        rails.append(Named(MPP, setting, given, whose, "" if given else remedy))
    if X402 in settings.rails_in_use:
        setting, given, seller = "rails.x402.recipients", settings.rails.x402.recipients, assembly.seller(settings)
        own = tuple(sorted(seller.sell.recipients))
        whose = f"by {setting}" if given else f"by the profile {seller.name}; {setting} replaces it"
        rails.append(Named(X402, setting, given or own, whose))
    return rails


def network_fee(funds: Funding, preflight: Preflight) -> Usdc:
    """Return the most that the network would take of a payment now, as the rail plans it; nothing where others pay."""
    from topup.sellers.mpp import GAS_LIMIT

    if not funds.dollar.pays_fee:
        return NO_TOKENS
    return gas_dollars(Wei(preflight.base_fee.units * 3 // 2 + preflight.tip.units), GAS_LIMIT)


def refills(balance: Wei, reserve: Wei, price: EthPrice, total: Usdc) -> int:
    """Return how many payments of `total` the balance above the reserve covers at `price`, network fees left out."""
    spare = max(0, balance.units - reserve.units)
    return spare // price.wei_for_up(total).units


def refill_total(settings: Settings, reading: Reading | None) -> Usdc:
    """Return the most that the next refill may cost; without a reading, that a fixed or least amount may cost."""
    allowed = assembly.limits(settings)
    if reading is not None:
        amount = amount_due(reading, allowed)
    else:
        amount = allowed.amount if allowed.amount is not None else allowed.topup_max
    return worst_spend(amount, allowed).usdc_up()
