"""How is a challenge of the Payment scheme sealed and written, and a credential read?

Written a second time, independently of the code that pays, so that one mistake cannot hide in both. Times are unix
milliseconds. Source: the draft `httpauth-payment`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.sandbox.http import Request, Response, answer_of
from topup.sandbox.mpp_faults import Offer
from topup.sandbox.seller import Refused, moment

Json = Any

OWN_HEADER: Final = "Payment-Authorization"
PROBLEMS: Final = "https://paymentauth.org/problems/"
MEMO_TAG: Final = bytes(keccak(text="mpp"))[:4] + b"\x01"


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
