"""How is a challenge of the Payment scheme written, a credential read, and a purchase spoken of?

Written a second time, independently of the code that pays, so that one mistake cannot hide in both. Times are unix
milliseconds. Sources: the draft `httpauth-payment`; OpenRouter's API reference, which tells paths and codes. The fields
of the JSON, and what stands in `status`, it does not tell.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.sandbox.gateway import Conduct
from topup.sandbox.http import Request, Response, answer_of
from topup.sandbox.mpp_faults import Offer
from topup.sandbox.seller import Refused, moment

Json = Any

OWN_HEADER: Final = "Payment-Authorization"
PROBLEMS: Final = "https://paymentauth.org/problems/"
MEMO_TAG: Final = bytes(keccak(text="mpp"))[:4] + b"\x01"
PURCHASES: Final = "/api/v1/credits/purchases"
SCOPE: Final = f"POST {PURCHASES}"

SETUP: Final = f"""# Buying credits with a machine payment

1. Create a management key.
2. `{SCOPE}` with the key in `X-Api-Key` or as a Bearer token, an `Idempotency-Key` of your own, and a JSON body:
   `{{"amount": 10}}`, in US dollars.
3. The answer is 402 with one `WWW-Authenticate: Payment` header for each way to pay: USDC on Tempo, or a card.
4. Send the same request again with the credential in `{OWN_HEADER}`.
5. The answer is 202 with a `Location`. Poll it until `status` is `credited` or `failed`.
"""
SKILL: Final = f"""---
name: buy-credits
description: Buy credits for this account with USDC on Tempo.
---

{SETUP}"""
TEXTS: Final[Mapping[str, str]] = {f"{PURCHASES}/setup": SETUP, f"{PURCHASES}/SKILL.md": SKILL}


# What is written.


def sealed(offer: Offer, opaque: str, secret: bytes) -> dict[str, str]:
    """Return the parameters of a challenge, the id that proves it ours among them."""
    parameters = {
        "realm": offer.realm,
        "method": offer.method,
        "intent": offer.intent,
        "request": packed(offer.request),
        "expires": moment(offer.expires_ms),
        "description": offer.description,
        "header": OWN_HEADER,
        "opaque": opaque,
    }
    return {"id": seal(parameters, secret), **parameters}


def seal(parameters: Mapping[str, Json], secret: bytes) -> str:
    """Return the id that proves a challenge ours: nothing has to be remembered of it."""
    names = ("realm", "method", "intent", "request", "expires", "digest", "header", "opaque")
    covered = "|".join(str(parameters.get(name, "")) for name in names)
    return _base64(hmac.digest(secret, covered.encode(), hashlib.sha256))


def memo_of(realm: str, challenge_id: str) -> bytes:
    """Return the 32 bytes that tie a transfer to a challenge."""
    return MEMO_TAG + bytes(keccak(text=realm))[:10] + bytes(10) + bytes(keccak(text=challenge_id))[:7]


def packed(value: Mapping[str, Json]) -> str:
    """Return base64url of JSON, as parameters and headers carry it."""
    return _base64(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def receipt(tx_hash: str, at_ms: int) -> str:
    """Return the value of `Payment-Receipt`."""
    return packed({"method": "tempo", "reference": tx_hash, "status": "success", "timestamp": moment(at_ms)})


def header(parameters: Mapping[str, str]) -> str:
    """Return a challenge as the value of `WWW-Authenticate`."""
    return "Payment " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def problem(why: Refused, challenges: list[str]) -> Response:
    """Return a problem document, and a header for each challenge."""
    title = why.reason.replace("-", " ").capitalize()
    document = {"type": PROBLEMS + why.reason, "title": title, "status": why.status, "detail": str(why)}
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    return answer_of(why.status, document, {**headers, "www-authenticate": challenges})


# What is read.


def credential_of(request: Request) -> str | None:
    """Return what is paid with: in its own header or, when the key is in X-Api-Key, in `Authorization`."""
    for name in (OWN_HEADER.lower(), "authorization"):
        scheme, _, token = request.headers.get(name, "").partition(" ")
        if scheme.lower() == "payment":
            return token
    return None


def unpacked(text: str) -> dict[str, Json]:
    """Decode base64url without padding into a JSON object. Raises Refused."""
    try:
        document = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as wrong:
        raise Refused(402, "malformed-credential", "The credential is not base64url of JSON.") from wrong
    if "=" in text or not isinstance(document, dict):
        raise Refused(402, "malformed-credential", "The credential is not a JSON object.")
    return document


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# What is bought.


@dataclass
class Purchase:
    """What one Idempotency-Key buys. `refused` marks one that will be called failed, though it was paid."""

    id: str
    body: bytes
    amount_usd: Decimal
    settled_ms: int | None = None
    credited_ms: int | None = None
    refused: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def status(self) -> str:
        """What `GET /credits/purchases/{id}` says."""
        if self.refused and self.settled_ms is not None:
            return "failed"
        return "pending" if self.credited_ms is None else "credited"


def amount_of(body: bytes, conduct: Conduct) -> Decimal:
    """Return the US dollars asked for. Raises ValueError."""
    asked = json.loads(body, parse_float=Decimal)
    amount = asked.get("amount") if isinstance(asked, dict) else None
    if isinstance(amount, bool) or not re.fullmatch(r"\d{1,9}(\.\d{1,2})?", str(amount)):
        raise ValueError("amount must be US dollars in whole cents")
    usd = Decimal(str(amount))
    if not conduct.amount_min_usd <= usd <= conduct.amount_max_usd:
        raise ValueError(f"amount must be from {conduct.amount_min_usd} to {conduct.amount_max_usd}")
    return usd


def purchase_id_of(path: str) -> str | None:
    """Return which purchase a path asks about; None for another path."""
    asked = re.fullmatch(rf"{PURCHASES}/(pi_\w+)", path)
    return asked[1] if asked else None


def document_of(status: int, purchase: Purchase, said: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a purchase; `said` is its status as it is told."""
    body = {"data": {"id": purchase.id, "status": said, "amount": purchase.amount_usd}}
    return answer_of(status, body, headers)


def unconfirmed(purchase: Purchase) -> Response:
    """Answer 503: the payment may have settled, or may yet."""
    message = "The payment transfer could not be confirmed; poll the purchase before retrying"
    return answer_of(503, {"error": {"code": 503, "message": message, "metadata": {"purchase_id": purchase.id}}})
