"""What does the credits API say? HTTP in and out, every failure mapped to `errors`; nothing is judged here.

Serves OpenRouter and gateways compatible with it. Numbers are read from the raw text into Decimal and written
from the Decimal's text, so no float ever holds money. Redirects are not followed: they would carry the key away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final, Never
from urllib.parse import urlsplit

import httpx

from topup.charge import RAW_BYTES_MAX, Request
from topup.credits import Reading
from topup.errors import ApiGone, ApiLimited, ApiRejected, ApiUnauthorized, ApiUnknown
from topup.money import Usd, plain
from topup.ports import Key

BODY_BYTES_MAX: Final = RAW_BYTES_MAX
RETRY_AFTER_DEFAULT_S: Final = 60
RETRY_AFTER_MAX_S: Final = 3600


class OpenRouter:
    """The API of one account. `requests` counts HTTP requests."""

    def __init__(self, base_url: str, key: str, *, timeout_s: float, now_ms: Callable[[], int]) -> None:
        """Keep one client for all requests; nothing is sent yet."""
        self._base = base_url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._client: httpx.AsyncClient | None = None
        self.requests = 0
        # The Date header of the newest answer, so that `doctor` can hold this machine's clock against it.
        self.date = ""

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

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
        raw = await self._ask("POST", "/credits/coinbase", body=charge_body(request))
        # A page of HTML is no charge, honest or hostile: it is no answer. What an answer says is judged elsewhere,
        # names given twice included: there they are a refusal, which is louder than no answer.
        _data(raw, "/credits/coinbase", twice=True)
        return raw

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        if self._client is None:
            self._client = httpx.AsyncClient(follow_redirects=False, timeout=None, trust_env=not loopback(self._base))  # noqa: S113 - asyncio.timeout bounds the whole call
        headers = {"authorization": f"Bearer {self._key}", "accept": "application/json", "accept-encoding": "identity"}
        # One question a connection: an answer written twice would wait on it and be taken for the next question's.
        headers["connection"] = "close"
        if body is not None:
            headers["content-type"] = "application/json"
        self.requests += 1
        raw = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, self._base + path, content=body, headers=headers) as response,
            ):
                if response.headers.get("content-encoding", "identity") != "identity":
                    # We asked for plain bytes; unpacking others could fill the memory from one small packet.
                    raise ApiUnknown(f"{path} answered in an encoding nobody asked for")
                async for chunk in response.aiter_raw():
                    raw += chunk
                    if len(raw) > BODY_BYTES_MAX:
                        raise ApiUnknown(f"{path} answered with more than {BODY_BYTES_MAX} bytes")
        except TimeoutError:
            raise ApiUnknown(f"{path} did not answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ApiUnknown(f"{path}: {type(error).__name__}") from None
        self.date = response.headers.get("date", "")
        if response.status_code != 200:
            _fail(f"{path} answered {response.status_code}{_message(bytes(raw), self._key)}", response)
        return bytes(raw)


def loopback(url: str) -> bool:
    """Tell whether a URL stays on this machine: a proxy from the environment has no business there."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def charge_body(request: Request) -> bytes:
    """Write the request for a charge: the amount as a JSON number from the Decimal's own text."""
    sender = "0x" + request.sender.hex()
    return (
        f'{{"amount": {plain(request.amount.amount)}, "sender": "{sender}", "chain_id": {request.chain_id}}}'.encode()
    )


def _fail(said: str, response: httpx.Response) -> Never:
    match response.status_code:
        case 401 | 403:
            raise ApiUnauthorized(said, remedy="put a valid management key into api.key")
        case 410:
            raise ApiGone(said, remedy="this endpoint no longer exists; use another way to buy credits")
        case 429:
            raise ApiLimited(said, retry_after_s=_retry_after(response))
        case 503 if "retry-after" in response.headers:
            raise ApiLimited(said, retry_after_s=_retry_after(response))
        case 400 | 402 | 404 | 405 | 413 | 415 | 422:  # asking the same again cannot help
            raise ApiRejected(said, remedy="see what the API says of the request")
        case 301 | 302 | 303 | 307 | 308:
            raise ApiUnknown(f"{said} (a redirect, not followed)")
        case _:
            raise ApiUnknown(said)


def _message(raw: bytes, key: str) -> str:
    """Return what the API says of its refusal, fit for ledger and log: no key that it echoes, nothing unprintable."""
    try:
        said = str(json.loads(raw)["error"]["message"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return " without a JSON error"
    shown = said.replace(key, "(the key)") if key else said
    return ": " + "".join(c if c.isprintable() else "?" for c in shown[:300])


def _retry_after(response: httpx.Response) -> int:
    told = response.headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return min(int(told[:9]), RETRY_AFTER_MAX_S)
    try:
        wait = parsedate_to_datetime(told) - parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, ArithmeticError, LookupError):  # ArithmeticError: a year beyond datetime's
        return RETRY_AFTER_DEFAULT_S
    return min(max(wait.days * 86_400 + wait.seconds, 0), RETRY_AFTER_MAX_S)


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
