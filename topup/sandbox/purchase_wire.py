"""What does OpenRouter's endpoint for purchases take, and what does it answer?

Source: OpenRouter's API reference, which tells paths and codes. The fields of the JSON, and what stands in `status`, it
does not tell.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from topup.sandbox.gateway import Conduct
from topup.sandbox.http import Response, answer_of
from topup.sandbox.mpp_wire import OWN_HEADER, receipt

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
TEXTS: Final[Mapping[str, str]] = MappingProxyType({f"{PURCHASES}/setup": SETUP, f"{PURCHASES}/SKILL.md": SKILL})


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


def accepted(purchase: Purchase, tx_hash: str, settled_ms: int) -> Response:
    """Answer 202 with where to ask about the purchase, and a receipt for the transaction."""
    headers = {"location": f"{PURCHASES}/{purchase.id}", "payment-receipt": receipt(tx_hash, settled_ms)}
    return document_of(202, purchase, purchase.status, headers)


def unconfirmed(purchase: Purchase) -> Response:
    """Answer 503: the payment may have settled, or may yet."""
    message = "The payment transfer could not be confirmed; poll the purchase before retrying"
    return answer_of(503, {"error": {"code": 503, "message": message, "metadata": {"purchase_id": purchase.id}}})
