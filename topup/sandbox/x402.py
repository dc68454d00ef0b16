"""How would Venice sell credits for a signed transfer of dollars? And which seller plays which record?

Sources: Venice's API reference and its page for agents; EIP-4361.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final

from topup.sandbox import contracts
from topup.sandbox.facilitator import Paid
from topup.sandbox.gateway import Account
from topup.sandbox.http import Response, answer_of
from topup.sandbox.seller import Refused
from topup.sandbox.x402_faults import Offer
from topup.sandbox.x402_seller import Settlement, X402Conduct, X402Seller
from topup.sandbox.x402_wire import SOLANA, UNITS
from topup.sellers.x402_profile import PROFILES, Profile

Json = Any
World = Any

HELD_UNITS: Final = 100 * 10**6  # What the wallet begins with.
LEAST_USD: Final = Decimal("0.10")  # With less, Venice serves nothing.
SUGGESTED_USD: Final = 10


class Venice(X402Seller):
    """Wallets are the accounts: they log in by signature, and pay what they like from a minimum up."""

    base = "/api/v1"
    default_record = "venice"

    def __init__(self, *of_seller: Any, **more: Any) -> None:
        """Take a payment in the header of either version, and offer in version 2."""
        super().__init__(*of_seller, **more)
        self.version = 2
        self.headers = ("payment-signature", "x-402-payment", "x-payment")

    def _ordered(self, *_: object) -> int:
        return int(self.conduct.amount_min_usd * UNITS)

    def _must_pay(self, paid: Paid, offer: Offer) -> None:
        value, most = paid.authorization.value, int(self.conduct.amount_max_usd * UNITS)
        if paid.accepted is not None and paid.accepted.get("amount") != str(value):
            detail = "Another amount was accepted than signed."
            raise Refused(400, "invalid_payment_requirements", detail, "INVALID_AMOUNT")
        if not offer.amount <= value <= most:
            reason = "invalid_exact_evm_payload_authorization_value"
            code = "AMOUNT_TOO_HIGH" if value > most else "AMOUNT_TOO_LOW"
            raise Refused(400, reason, f"Pay {offer.amount} to {most} units.", code)

    def _worth(self, usd: Decimal, _: int) -> Decimal:
        return usd

    def _asking(self, ordered: int, fault: str, error: str) -> dict[str, Json]:
        # Where the offer itself has no place for a description, the resource has.
        described = self._offer(ordered, fault).description
        return {
            "x402Version": 2,
            "error": error,
            "accepts": [*self._offers(ordered, fault), SOLANA],
            "resource": {"url": f"{self.url}/x402/top-up", "description": described, "mimeType": ""},
        }

    def _refusal(self, refused: Refused, _: int) -> Response:
        body = {"error": refused.code, "message": str(refused), "details": {"reason": refused.reason}}
        return answer_of(refused.status, body)

    def _credited(self, settlement: Settlement) -> dict[str, Json]:
        data = {
            "walletAddress": settlement.authorization.sender,
            "amountCredited": settlement.usd,
            "newBalance": settlement.account.balance,
            "paymentId": settlement.id,
        }
        return {"success": True, "data": data}

    def _told(self, wallet: str, fault: str) -> dict[str, Json]:
        balance = self._account_of(wallet).balance
        data = {
            "walletAddress": wallet,
            "balanceUsd": self._shown(balance, fault),
            "canConsume": balance >= LEAST_USD,
            "minimumTopUpUsd": self.conduct.amount_min_usd,
            "suggestedTopUpUsd": SUGGESTED_USD,
        }
        return {"success": True, "data": data}


# Whatever is no Venice is played by its record.
SELLERS: Final[dict[str, Callable[..., X402Seller]]] = {
    name: partial(Venice if record.sell.minimum else X402Seller, record=record) for name, record in PROFILES.items()
}


def selling(
    profile: str | Profile, *, conduct: X402Conduct | None = None, held_units: int = HELD_UNITS
) -> Callable[[World, Account], X402Seller]:
    """Return what makes the gateway of a world that sells for x402; the wallet is given so many units of USDC.

    `World(embedded, make_gateway=selling("venice"))`; its settings are the world's with `gateway.environment()` on top.
    Instead of a name it takes a record: a seller that a user has written down in a file.
    """

    def make(world: World, account: Account) -> X402Seller:
        world.write(contracts.usdc_balance(world.wallet, held_units))
        made = SELLERS[profile] if isinstance(profile, str) else partial(X402Seller, record=profile)
        return made(account, world.chain, world.wallet, conduct=conduct)

    return make
