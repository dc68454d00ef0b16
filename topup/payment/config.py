"""What is a pass given, and what does it give back? The terms it works on, a person's wish, and how it rests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from topup.domain.lifecycle import TopUp
from topup.domain.money import Usd
from topup.domain.policy import Ceilings, Limits


@dataclass(frozen=True)
class Pace:
    """How often things are looked at, and how long they may take; seconds."""

    poll_fastest_s: int
    poll_slowest_s: int
    # How long, unbroken, this ledger has watched before it lets others carry a payment; 0 = it need not have.
    young_s: int
    staleness_s: int
    unknown_alert_s: int
    key_recheck_s: int
    resend_s: int
    posting_poll_s: int
    posting_late_s: int
    posting_late_large_s: int
    large: Usd
    plan_fresh_s: int
    retries_max: int
    bump_after_s: int
    bump_max: int


# Every rail there is, as settings and ledger call it.
COINBASE: Final = "coinbase"
MPP: Final = "mpp"
X402: Final = "x402"
RAILS: Final = (COINBASE, MPP, X402)


@dataclass(frozen=True)
class Route:
    """A way to pay: which rail, on which chain.

    `load` brings in the code that such a payment runs through, which an idle process does without.
    """

    rail: str
    chain_id: int
    load: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


@dataclass(frozen=True)
class Account:
    """Whose credits, which wallet, and the ways to pay in the order of preference.

    `chosen` tells that the owner has named these ways; otherwise they are the default, which another version of this
    program may have set otherwise.
    """

    name: str
    wallet: bytes | None
    routes: tuple[Route, ...]
    chosen: bool = True

    @property
    def rails(self) -> str:
        """The names of the ways, as the ledger keeps them."""
        return ",".join(route.rail for route in self.routes)

    def other_rails(self, agreed: str | None) -> str | None:
        """Return by which rails was bought so far, where these are others that nobody has chosen.

        `agreed` is what the ledger keeps; one that has never heard of it is of a time when coinbase was the default.
        """
        before = COINBASE if agreed is None else agreed
        return None if self.chosen or before == self.rails else before


@dataclass(frozen=True)
class Terms:
    """What a cycle works on: whose account, within which limits, how fast."""

    account: Account
    limits: Limits
    ceilings: Ceilings
    pace: Pace


@dataclass(frozen=True)
class PassResult:
    """How a pass ended, and when to look again."""

    outcome: str
    why: str
    detail: str
    next_s: int
    topup: TopUp | None = None
    # What would change it, where that was decided with figures in hand; see `policy.remedy`.
    remedy: str = ""


@dataclass(frozen=True)
class PurchaseOrder:
    """A person's wish: an amount regardless of the floor, or past cool-down and back-off."""

    amount: Usd | None = None
    forced: bool = False
    # Its number in the ledger, which the top-up carries that is decided for it.
    wish: int | None = None
