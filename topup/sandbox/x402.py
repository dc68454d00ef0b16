"""How would a gateway sell credits for a signed transfer of dollars? Venice's way, or plainly, on loopback.

Both are compatible servers with accounts of their own: an unpaid request is answered with offers, and a payment that
comes back is carried to the chain, once. Sources: x402 specification; Venice's API reference and its page for agents;
Dria's API reference; EIP-4361.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from eth_account.messages import encode_defunct
from eth_utils.address import is_checksum_address

from topup.sandbox import contracts
from topup.sandbox.charges import STRANGER
from topup.sandbox.facilitator import NETWORKS, Paid, Refused, recovered
from topup.sandbox.gateway import Account, Seen
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.rpc import Chain
from topup.sandbox.seller import answer_of, moment, unix_ms_of
from topup.sandbox.x402_faults import Offer, OwnPlace
from topup.sandbox.x402_seller import UNITS, Settlement, Statement, X402Conduct, X402Seller, written

Json = Any
World = Any

HELD_UNITS: Final = 100 * 10**6  # What the wallet begins with.
LOGIN_MS_MAX: Final = 600_000
SKEW_MS: Final = 60_000
LEAST_USD: Final = Decimal("0.10")  # With less, Venice serves nothing.
SUGGESTED_USD: Final = 10
SOLANA: Final = {
    "scheme": "exact",
    "network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
    "amount": "5000000",
    "asset": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "payTo": "So11111111111111111111111111111111111111112",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2", "feePayer": "11111111111111111111111111111111"},
}
LOGIN: Final = re.compile(
    r"(?P<domain>\S+) wants you to sign in with your Ethereum account:\n(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"[^\n]+\n\nURI: (?P<uri>\S+)\nVersion: 1\nChain ID: (?P<chain>\d+)\nNonce: (?P<nonce>[0-9a-zA-Z]{8,})\n"
    r"Issued At: (?P<issued>\S+)\nExpiration Time: (?P<expires>\S+)"
)


class Venice(X402Seller):
    """Wallets are the accounts: they log in by signature, pay what they like from a minimum up, read their lines."""

    profile = "venice"
    base = "/api/v1"
    headers = ("payment-signature", "x-402-payment", "x-payment")

    def __init__(self, account: Account, chain: Chain, wallet: str, *, conduct: X402Conduct | None = None) -> None:
        """Begin with one wallet's account; others open theirs by paying."""
        super().__init__(account, chain, wallet, conduct=conduct)
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
        document = {"x402Version": 2, "error": error, "accepts": [*offers, SOLANA]}
        # Where the offer itself has no place for a description, the resource has.
        described = self._offer(ordered, fault).description
        document["resource"] = {"url": f"{self.url}/x402/top-up", "description": described, "mimeType": ""}
        text = _garbled(json.dumps(document), fault)
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
        proof = request.headers.get("sign-in-with-x", request.headers.get("x-sign-in-with-x"))
        if proof is None:
            return answer_of(402, {"x402Version": 2, "error": "Sign in", "accepts": []})
        try:
            if self._logged_in(proof) != wallet:
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

    def _logged_in(self, proof: str) -> str:
        """Return the wallet that signed this login, in lower case. Raises ValueError and its like for a bad one."""
        document = json.loads(base64.b64decode(proof, validate=True))
        message = str(document["message"])
        said = LOGIN.fullmatch(message)
        if said is None:
            raise ValueError("no message of EIP-4361")
        signature = bytes.fromhex(str(document["signature"]).removeprefix("0x"))
        issued, expires = unix_ms_of(said["issued"]), unix_ms_of(said["expires"])
        now, server = self.now_ms(), urlsplit(self.url)
        facts = (
            is_checksum_address(said["address"]),
            said["address"].lower() == str(document["address"]).lower(),
            said["domain"] == server.netloc,
            urlsplit(said["uri"])[:2] == server[:2],
            int(said["chain"]) == document["chainId"] == self.facilitator.chain_id,
            issued <= now + SKEW_MS and now < expires <= issued + LOGIN_MS_MAX,
            abs(document["timestamp"] - now) <= LOGIN_MS_MAX,
            said["nonce"] not in self._logins,
            recovered(encode_defunct(text=message), signature) == said["address"].lower(),
        )
        if not all(facts):
            raise ValueError(f"a login that is not good: {facts}")
        self._logins.add(said["nonce"])
        return said["address"].lower()


class Plain(X402Seller):
    """Keys are the accounts: a request orders dollars, its offer asks for exactly these. Version 1, as Dria."""

    profile = "plain"
    base = "/v1"
    headers = ("x-payment",)

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        if request.path not in (f"{self.base}/credits/topup", f"{self.base}/credits/balance"):
            return answer_of(404, {"error": "Not Found"})
        if request.method != ("GET" if request.path.endswith("balance") else "POST"):
            return answer_of(405, {"error": "Method Not Allowed"})
        if seen.key != "management":
            return answer_of(401, {"error": "Invalid API key"})
        return await super()._answer_own(request, seen)

    def _ordered(self, request: Request) -> int:
        try:
            told = json.loads(request.body)["amount"]
        except (ValueError, LookupError, TypeError, RecursionError):
            told = None
        usd = Decimal(told) if isinstance(told, str) and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", told) else Decimal(0)
        if not self.conduct.amount_min_usd <= usd <= self.conduct.amount_max_usd:
            raise Refused("INVALID_AMOUNT", "invalid_payload", "amount: US dollars, as a text")
        return int(usd * UNITS)

    def _enough(self, paid: Paid, offer: Offer) -> None:
        if paid.authorization.value != offer.amount:
            reason = "invalid_exact_evm_payload_authorization_value"
            raise Refused("INVALID_AMOUNT", reason, f"Pay {offer.amount} units.")

    def _worth(self, usd: Decimal, ordered: int) -> Decimal:
        """An offer that asks for more than was ordered buys no more."""
        return min(usd, Decimal(ordered) / UNITS)

    def _statement(self, payer: str) -> Statement:  # noqa: ARG002 - whoever pays, the key's account is filled
        return self.statements[self.wallet]

    def _unpaid(self, ordered: int, fault: str = "", error: str = "X-PAYMENT header is required") -> Response:
        offers = [_first(offer, f"{self.url}/credits/topup") for offer in self._offers(ordered, fault)]
        accepts = offers or [{**SOLANA, "network": "solana", "maxAmountRequired": str(ordered)}]
        text = _garbled(json.dumps({"x402Version": 1, "error": error, "accepts": accepts}), fault)
        return Response(402, text.encode())

    def _refusal(self, status: int, refused: Refused, ordered: int) -> Response:
        """Ask for payment once more where that may help, as the specification's version 1 does."""
        if status in (400, 402) and ordered:
            return self._unpaid(ordered, error=refused.reason)
        return answer_of(status, {"error": refused.reason})

    def _thanks(self, settlement: Settlement) -> Response:
        body = {"credited_usdc": f"{settlement.usd:.2f}", **_cents(settlement.statement.balance)}
        network = next(name for name, one in NETWORKS.items() if one == self.facilitator.chain_id)
        return answer_of(200, body, {"X-PAYMENT-RESPONSE": self._receipt(settlement, network)})

    async def _read(self, request: Request, seen: Seen) -> Response | Raw:  # noqa: ARG002 - there is one path
        fault = self._spoil("balance", seen)
        honest = answer_of(200, _cents(self._told(self.statements[self.wallet], fault)))
        return self._instead(fault, 0, honest.body) or honest


SELLERS: Final[Mapping[str, type[X402Seller]]] = MappingProxyType({one.profile: one for one in (Venice, Plain)})


def selling(
    profile: str, *, conduct: X402Conduct | None = None, held_units: int = HELD_UNITS
) -> Callable[[World, Account], X402Seller]:
    """Return what makes the gateway of a world that sells for x402; the wallet is given so many units of USDC.

    `World(embedded, make_gateway=selling("venice"))`; its settings are the world's with `gateway.environment()` on top.
    """

    def make(world: World, account: Account) -> X402Seller:
        world.write(contracts.usdc_balance(world.wallet, held_units))
        return SELLERS[profile](account, world.chain, world.wallet, conduct=conduct)

    return make


def _first(offer: Offer, resource: str) -> dict[str, Json]:
    """Write an offer as version 1 does."""
    first = written(offer)
    first["maxAmountRequired"] = first.pop("amount")
    first["network"] = next(name for name, one in NETWORKS.items() if one == offer.chain_id)
    return {**first, "resource": resource, "description": offer.description, "mimeType": "application/json"}


def _garbled(text: str, fault: str) -> str:
    if fault == "duplicate-keys":
        return text.replace('"payTo":', f'"payTo": "{STRANGER}", "payTo":', 1)
    return text[:-1] if fault == "garbage" else text


def _cents(balance: Decimal) -> dict[str, Json]:
    if balance.is_nan():
        return {"balance": balance, "balance_usdc": "NaN"}
    return {"balance": int(balance * 100), "balance_usdc": f"{balance:.2f}"}


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
