"""How would a gateway sell credits for a signed transfer of dollars? Venice's way, or as another record says.

All are compatible servers with accounts of their own: an unpaid request is answered with offers, and a payment that
comes back is carried to the chain, once. Sources: x402 specification; Venice's API reference and its page for agents;
EIP-4361.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

from topup.sandbox import contracts
from topup.sandbox.facilitator import Paid, Refused
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.rpc import Chain
from topup.sandbox.seller import answer_of, moment
from topup.sandbox.x402_faults import Offer, OwnPlace
from topup.sandbox.x402_login import logged_in, presented
from topup.sandbox.x402_plain import EXTENSIONS, SOLANA, Plain, crowded, garbled
from topup.sandbox.x402_seller import UNITS, Settlement, Statement, X402Conduct, X402Seller, written
from topup.sellers.x402_profile import PROFILES, Profile

Json = Any
World = Any

HELD_UNITS: Final = 100 * 10**6  # What the wallet begins with.
LEAST_USD: Final = Decimal("0.10")  # With less, Venice serves nothing.
SUGGESTED_USD: Final = 10


class Venice(X402Seller):
    """Wallets are the accounts: they log in by signature, pay what they like from a minimum up, read their lines."""

    base = "/api/v1"
    headers = ("payment-signature", "x-402-payment", "x-payment")

    def __init__(
        self,
        account: Account,
        chain: Chain,
        wallet: str,
        *,
        conduct: X402Conduct | None = None,
        record: Profile | None = None,
    ) -> None:
        """Begin with one wallet's account; others open theirs by paying. `record` says which login is taken."""
        super().__init__(account, chain, wallet, conduct=conduct)
        self.record = record or PROFILES["venice"]
        self.profile = self.record.name
        self._logins: set[str] = set()

    def _ordered(self, request: Request) -> int:
        if request.path != f"{self.base}/x402/top-up":
            raise Refused("PAYMENT_HEADER_NOT_ACCEPTED", "invalid_payload", "Payments are taken at /x402/top-up only.")
        return int(self.conduct.amount_min_usd * UNITS)

    def _enough(self, paid: Paid, offer: Offer) -> None:
        value, most = paid.authorization.value, int(self.conduct.amount_max_usd * UNITS)
        if paid.accepted is not None and paid.accepted.get("amount") != str(value):
            raise Refused("INVALID_AMOUNT", "invalid_payment_requirements", "Another amount was accepted than signed.")
        if not offer.amount <= value <= most:
            code = "AMOUNT_TOO_HIGH" if value > most else "AMOUNT_TOO_LOW"
            raise Refused(code, "invalid_exact_evm_payload_authorization_value", f"Pay {offer.amount} to {most} units.")

    def _statement(self, payer: str) -> Statement:
        return self.statements.setdefault(payer, Statement(Account(self.now_ms, Decimal(0))))

    def _unpaid(self, ordered: int, fault: str = "", error: str = "Payment required") -> Response:
        offers = [written(offer) for offer in self._offers(ordered, fault)]
        accepts = [*(crowded(offers, first=False) if fault == "crowd" else offers), SOLANA]
        document: dict[str, Json] = {"x402Version": 2, "error": error, "accepts": accepts}
        if fault == "crowd":
            document["extensions"] = EXTENSIONS
        self.extended.append(document.get("extensions"))
        # Where the offer itself has no place for a description, the resource has.
        described = self._offer(ordered, fault).description
        document["resource"] = {"url": f"{self.url}/x402/top-up", "description": described, "mimeType": ""}
        text = garbled(json.dumps(document), fault)
        header = "%%" if fault == "garbage" else base64.b64encode(text.encode()).decode()
        return Response(402, text.encode(), {"content-type": "application/json", "PAYMENT-REQUIRED": header})

    def _refusal(self, status: int, refused: Refused, ordered: int) -> Response:  # noqa: ARG002
        body = {"error": refused.code, "message": str(refused), "details": {"reason": refused.reason}}
        return answer_of(status, body)

    def _thanks(self, settlement: Settlement) -> Response:
        data = {
            "walletAddress": settlement.authorization.sender,
            "amountCredited": settlement.usd,
            "newBalance": settlement.statement.balance,
            "paymentId": settlement.id,
        }
        receipt = self._receipt(settlement, f"eip155:{self.facilitator.chain_id}")
        return answer_of(200, {"success": True, "data": data}, {"PAYMENT-RESPONSE": receipt})

    async def _read(self, request: Request, seen: Seen) -> Response | Raw:
        found = re.fullmatch(rf"{self.base}/x402/(balance|transactions)/([^/]+)", request.path)
        if found is None:
            return answer_of(404, {"error": "Not Found"})
        place: OwnPlace = "balance" if found[1] == "balance" else "transactions"
        fault = self._spoil(place, seen)
        honest = self._read_own(request, place, found[2].lower(), fault)
        return self._instead(fault, 0, honest.body) or honest

    def _read_own(self, request: Request, place: OwnPlace, wallet: str, fault: str) -> Response:
        if not re.fullmatch(r"0x[0-9a-f]{40}", wallet):
            return answer_of(400, {"error": "Invalid wallet address"})
        proof, login = presented(request.headers, self.record.login), self.record.login
        if proof is None:
            return answer_of(402, {"x402Version": 2, "error": "Sign in", "accepts": []})
        try:
            chain_id = self.facilitator.chain_id
            if (
                logged_in(proof, login, url=self.url, chain_id=chain_id, now_ms=self.now_ms(), used=self._logins)
                != wallet
            ):
                return answer_of(403, {"error": "Wallet address does not match the signed-in wallet"})
        except (ValueError, LookupError, TypeError, RecursionError):
            return answer_of(401, {"error": "Invalid Sign-in-with-x signature"})
        statement = self._statement(wallet)
        return self._balance(statement, wallet, fault) if place == "balance" else _listed(statement, wallet, request)

    def _balance(self, statement: Statement, wallet: str, fault: str) -> Response:
        balance = self._told(statement, fault)
        data = {
            "walletAddress": wallet,
            "balanceUsd": balance,
            "canConsume": statement.balance >= LEAST_USD,
            "minimumTopUpUsd": self.conduct.amount_min_usd,
            "suggestedTopUpUsd": SUGGESTED_USD,
        }
        return answer_of(200, {"success": True, "data": data})


# Whatever is no Venice is played by its record.
SELLERS: Final[dict[str, Callable[..., X402Seller]]] = {
    name: partial(Venice if record.sell.minimum else Plain, record=record) for name, record in PROFILES.items()
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
        made = SELLERS[profile] if isinstance(profile, str) else partial(Plain, record=profile)
        return made(account, world.chain, world.wallet, conduct=conduct)

    return make


def _listed(statement: Statement, wallet: str, request: Request) -> Response:
    """Return one page of the statement, the newest line first."""
    asked = {name: values[-1] for name, values in parse_qs(request.query).items()}
    limit, offset = asked.get("limit", "50"), asked.get("offset", "0")
    if not (re.fullmatch(r"\d{1,9}", limit) and re.fullmatch(r"\d{1,9}", offset) and 1 <= int(limit) <= 100):
        return answer_of(400, {"error": "Invalid query"})
    statement.charge()
    start, end = int(offset), int(offset) + int(limit)
    shown = [
        {
            "id": line.name,
            "amount": line.amount,
            "balanceAfter": line.balance_after,
            "type": line.kind,
            "createdAt": moment(line.at_ms),
            "requestId": None if line.kind == "TOP_UP" else f"chatcmpl-{line.name[:8]}",
            "modelId": None if line.kind == "TOP_UP" else "sandbox-model",
        }
        for line in statement.lines[::-1][start:end]
    ]
    data = {
        "walletAddress": wallet,
        "currentBalance": statement.balance,
        "transactions": shown,
        "pagination": {"limit": int(limit), "offset": start, "hasMore": end < len(statement.lines)},
    }
    return answer_of(200, {"success": True, "data": data})
