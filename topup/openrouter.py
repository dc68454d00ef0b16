"""What does the credits API say? HTTP in and out, every failure mapped to `errors`; nothing is judged here.

Serves OpenRouter and gateways compatible with it. Numbers are read from the raw text into Decimal and written
from the Decimal's text, so no float ever holds money.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Never

from topup.charge import Request
from topup.credits import Reading
from topup.errors import ApiGone, ApiUnknown
from topup.exchange import Exchange, fail
from topup.money import Usd, plain
from topup.ports import Key


class OpenRouter:
    """The API of one account."""

    def __init__(self, exchange: Exchange, key: str, *, now_ms: Callable[[], int]) -> None:
        """Keep the way to the API; nothing is sent yet."""
        self._exchange = exchange
        self._key = key
        self._now_ms = now_ms

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""
        return self._exchange.requests

    @property
    def date(self) -> str:
        """Return the Date header of the newest answer, "" without one."""
        return self._exchange.date

    async def close(self) -> None:
        """Close the connection."""
        await self._exchange.close()

    async def credits(self) -> Reading:
        """Read the account's two totals, stamped with the time the request was sent.

        Raises:
            ApiError: no usable answer, of the class that says why.
        """
        at_ms = self._now_ms()
        data = _data(await self._ask("GET", "/credits"), "/credits")
        return Reading(_number(data, "total_credits"), _number(data, "total_usage"), at_ms)

    async def key(self) -> Key:
        """Ask what kind of key this is.

        Raises:
            ApiError: no usable answer, of the class that says why.
        """
        data = _data(await self._ask("GET", "/key"), "/key")
        management = data.get("is_management_key", data.get("is_provisioning_key"))
        if not isinstance(management, bool):
            raise ApiUnknown("/key does not say whether this is a management key")
        label = data.get("label")
        return Key(management, label if isinstance(label, str) else "")

    async def charge(self, request: Request) -> bytes:
        """Request a charge; return the answer's raw bytes. Two calls are two charges.

        Raises:
            ApiError: no usable answer; a charge may exist all the same and is harmless unpaid.
        """
        answered = await self._exchange.ask(
            "POST", "/credits/coinbase", headers={"authorization": f"Bearer {self._key}"}, body=charge_body(request)
        )
        if answered.status in (404, 501):
            raise ApiGone(f"{answered.path} answered {answered.status}", remedy="this API sells no charges")
        if answered.status != 200:
            fail(answered, self._key)
        raw = answered.body
        # A page of HTML is no charge, honest or hostile: it is no answer. What an answer says is judged elsewhere,
        # names given twice included: there they are a refusal, which is louder than no answer.
        _data(raw, "/credits/coinbase", twice=True)
        return raw

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        answered = await self._exchange.ask(method, path, headers={"authorization": f"Bearer {self._key}"}, body=body)
        if answered.status != 200:
            fail(answered, self._key)
        return answered.body


def charge_body(request: Request) -> bytes:
    """Write the request for a charge: the amount as a JSON number from the Decimal's own text."""
    sender = "0x" + request.sender.hex()
    return (
        f'{{"amount": {plain(request.amount.amount)}, "sender": "{sender}", "chain_id": {request.chain_id}}}'.encode()
    )


def _data(raw: bytes, path: str, *, twice: bool = False) -> dict[str, Any]:
    """Return the object `data`; with `twice` a name may be given twice, and the last value counts."""

    def refuse(name: str) -> Never:
        raise ApiUnknown(f"{path} answered with {name}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs) and not twice:
            # One reader takes the first value, another the last: neither is an answer.
            raise ApiUnknown(f"{path} answered with a name given twice")
        return document

    try:
        text = raw.decode("utf-8")  # the only encoding of JSON between systems (RFC 8259, 8.1)
        document = json.loads(text, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, ArithmeticError, RecursionError):  # ArithmeticError: an exponent beyond Decimal
        raise ApiUnknown(f"{path} answered 200 without JSON") from None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        raise ApiUnknown(f"{path} answered without an object `data`")
    return data


def _number(data: dict[str, Any], name: str) -> Usd:
    value = data.get(name)
    if type(value) is int and abs(value) < 10**15:
        return Usd(Decimal(value))
    if (
        isinstance(value, Decimal)
        and value.is_finite()
        and value.adjusted() < 15
        and int(value.as_tuple().exponent) > -30
    ):
        return Usd(value)
    shown = str(value)[:40] if isinstance(value, int | Decimal) else f"of type {type(value).__name__}"
    raise ApiUnknown(f"{name} is {shown}, not an amount")
