"""How is a message given to a webhook? Signed as Standard Webhooks 1.0 says, once a call; the answer's status counts.

What is signed is `id.timestamp.body` by HMAC-SHA256 (https://github.com/standard-webhooks/standard-webhooks, spec).
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from topup.domain.errors import SettingsError
from topup.ports.outbox import Undelivered
from topup.wire.http import Client, NoAnswer

PREFIX: Final = "whsec_"
# The spec asks for 24 to 64 bytes.
SECRET_MIN: Final = 24
TIMEOUT_S: Final = 15
ANSWER_BYTES_MAX: Final = 64 * 1024


def secret_of(text: str) -> bytes:
    """Return the key that signs; a SettingsError where it is none, or too short."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < SECRET_MIN:
        raise SettingsError(
            f"notify.webhook_secret_file holds no secret of {SECRET_MIN} bytes or more in base64",
            remedy=f"write {PREFIX} and `openssl rand -base64 32` into it, and give the same to the receiver",
        )
    return key


def signature(key: bytes, name: str, at_s: int, body: bytes) -> str:
    """Return what stands in the header `webhook-signature`."""
    signed = hmac.digest(key, f"{name}.{at_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


class Webhook:
    """One receiver."""

    def __init__(self, url: str, key: bytes | None) -> None:
        """Without a key nothing is signed, as for receivers that cannot verify."""
        self._url, self._key = url, key
        self._client = Client(url, lasting=False)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
        """Give it one message under its id; raise `Undelivered` where it is not taken."""
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = {"webhook-id": name, "webhook-timestamp": str(at_s)}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, name, at_s, body)
        try:
            answered = await self._client.ask(
                "POST",
                self._url,
                who="the webhook",
                headers=headers,
                body=body,
                timeout_s=TIMEOUT_S,
                bytes_max=ANSWER_BYTES_MAX,
            )
        except NoAnswer as error:
            raise Undelivered(str(error)) from None
        if 200 <= answered.status < 300:
            return
        final = 400 <= answered.status < 500 and answered.status not in (408, 429)
        raise Undelivered(f"the webhook answered {answered.status}", final=final)
