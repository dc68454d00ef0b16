"""What does the credits API say? HTTP in and out, every failure mapped to `errors`; nothing is judged here.

Serves OpenRouter and gateways compatible with it. Numbers are read from the raw text into Decimal and written
from the Decimal's text, so no float ever holds money.
"""

import contextlib
import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from topup.accounting.usage import Activity, ApiKey, Used
from topup.domain.credits import Reading
from topup.domain.demand import Request
from topup.domain.errors import ApiError, ApiGone, ApiRejected, ApiUnknown
from topup.domain.json_document import PARTS_MAX, NoJson, Repeated, Unreadable, read
from topup.domain.money import WIDE, Usd, plain
from topup.ports.account import Key
from topup.wire.clean import SENTENCE_MAX, clean
from topup.wire.exchange import Asked, Exchange, fail, instead
from topup.wire.reading import reading
from topup.wire.secrets import Masker

KEYS_A_PAGE: Final = 100
# More keys than these are no account's; each of them is a question and a row.
KEYS_MAX: Final = 10_000
# A month of four hundred models each day. What is read takes several times as much memory, see PARTS_MAX.
LIST_BYTES_MAX: Final = 4 * 1024 * 1024
# What names a key or a model is stored for every day; the longest honest ones have some 70 characters.
NAME_MAX: Final = 256
# What an owner calls a key is only shown.
LABEL_SHOWN: Final = 100
MODELS_A_DAY_MAX: Final = 1000
# Some answers carry a time of day, which says nothing: the days are whole.
DAY: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?: 00:00:00|T00:00:00Z)?")
# No sum of one answer reaches this (nine million dollars in nano), so that the ledger can hold it and add many up.
TOLD_MAX: Final = 2**53
COUNTS: Final = ("requests", "prompt_tokens", "completion_tokens")


class OpenRouter(Asked):
    """The API of one account."""

    def __init__(self, exchange: Exchange, key: str, *, now_ms: Callable[[], int]) -> None:
        super().__init__(exchange)
        self._key = key
        self._bearer = {"authorization": f"Bearer {key}"}
        self._hide = Masker([key])
        self._now_ms = now_ms

    async def credits(self) -> Reading:
        """Read the account's two totals, stamped with the time the request was sent."""
        with self._heard("/credits"):
            at_ms = self._now_ms()
            data = await self._told("/credits")
            total, used = (_number(data, name, "/credits: ") for name in ("total_credits", "total_usage"))
            return Reading(total, used, at_ms)

    async def key(self) -> Key:
        with self._heard("/key"):
            data = await self._told("/key")
            management = data.get("is_management_key")
            if not isinstance(management, bool):
                # The older is_provisioning_key is deprecated: alone it proves nothing.
                raise ApiUnknown("/key does not say whether this is a management key: is_management_key is missing")
            return Key(management)

    async def activity(self, *, key_hash: str | None = None) -> list[Activity]:
        """Ask what was used on the UTC days that are over, by model; of one key where that is named.

        What differs in nothing but the endpoint it ran on is added up.

        Raises:
            ApiError: no usable answer, of the class that says why; `ApiGone` where there is no such endpoint.
        """
        with self._heard("/activity"):
            sums: dict[tuple[dt.date, str], Used] = {}
            items = await self._list("/activity", {"api_key_hash": key_hash} if key_hash is not None else {})
            for number, item in enumerate(items):
                where = f"/activity item {number}"
                on, model = _day(item, where), _name(item, ("model", "model_permaslug"), where)
                used = Used(model, _nano(item, "usage", where), *(_count(item, name, where) for name in COUNTS))
                known = sums.get((on, used.name))
                sums[on, used.name] = known + used if known is not None else used
            for on, models in Counter(on for on, _ in sums).items():
                if models > MODELS_A_DAY_MAX:
                    raise ApiUnknown(f"/activity: {models} models on {on}, more than can be")
            for name in ("nano", *COUNTS):
                if sum(getattr(used, name) for used in sums.values()) >= TOLD_MAX:
                    raise ApiUnknown(f"/activity: {'usage' if name == 'nano' else name} sums to more than can be")
            return [Activity(on, used) for (on, _), used in sums.items()]

    async def keys(self, offset: int = 0) -> tuple[list[ApiKey], bool]:
        """Ask for a page of the account's keys, disabled ones included; tell whether there may be more behind it."""
        with self._heard("/keys"):
            items = await self._list("/keys", {"offset": str(offset), "include_disabled": "true"})
            if offset + len(items) > KEYS_MAX:
                raise ApiUnknown(f"/keys has more than {KEYS_MAX} keys")
            return [_api_key(x, f"/keys item {offset + n}") for n, x in enumerate(items)], len(items) >= KEYS_A_PAGE

    async def _list(self, path: str, asked: Mapping[str, str]) -> list[dict[str, Any]]:
        target = path + ("?" + urlencode(asked) if asked else "")
        answered = await self._exchange.ask("GET", target, headers=self._bearer, bytes_max=LIST_BYTES_MAX)
        if answered.status in (404, 405, 410, 501):
            raise ApiGone(f"{path} answered {answered.status}", remedy="this API tells no usage by model and key")
        if answered.status != 200:
            fail(answered, self._key)
        if sum(answered.body.count(part) for part in (b",", b"{", b"[")) > PARTS_MAX:
            raise ApiUnknown(f"{path} answered with more than {PARTS_MAX} parts")
        items = _document(answered.body, path).get("data")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ApiUnknown(f"{path} answered without a list `data` of objects{instead(answered.body, self._key)}")
        return items

    async def charge(self, request: Request) -> bytes:
        """Request a charge; return the answer's raw bytes. Two calls are two charges.

        Where no usable answer came, a charge may exist all the same, and is harmless unpaid.
        """
        with self._heard(path := "/credits/coinbase"):
            answered = await self._exchange.ask("POST", path, headers=self._bearer, body=charge_body(request))
            if answered.status in (404, 501) and not answered.page:
                raise ApiGone(f"{answered.who} answered {answered.status}", remedy="this API sells no charges")
            if answered.status != 200:
                fail(answered, self._key)
            # A page of HTML is no charge, honest or hostile: it is no answer. What an answer says is judged elsewhere,
            # names given twice included: there they are a refusal, which is louder than no answer.
            _data(answered.body, path, self._key, twice="last")
            return answered.body

    async def _told(self, path: str) -> dict[str, Any]:
        answered = await self._exchange.ask("GET", path, headers=self._bearer)
        try:
            if answered.status != 200:
                fail(answered, self._key)
            return _data(answered.body, path, self._key)
        except (ApiUnknown, ApiRejected) as error:
            # What is no answer of the API may be one of an address that has no path.
            if urlsplit(self._exchange.base).path in ("", "/"):
                error.args = (f"{error}; api.url names no path, and this API's ends in /api/v1",)
                error.remedy = "add the path of the API to api.url, such as https://openrouter.ai/api/v1"
            raise

    @contextlib.contextmanager
    def _heard(self, who: str) -> Iterator[None]:
        """Read behind the wall: what is said of an answer is a sentence of ours, without the key."""
        try:
            with reading(who, ApiUnknown):
                yield
        except ApiError as error:
            error.args = (clean(error, SENTENCE_MAX, hide=self._hide),)
            raise


def charge_body(request: Request) -> bytes:
    """Write the request for a charge: the amount as a JSON number from the Decimal's own text."""
    sender = "0x" + request.sender.hex()
    return (
        f'{{"amount": {plain(request.amount.amount)}, "sender": "{sender}", "chain_id": {request.chain_id}}}'.encode()
    )


def _day(item: dict[str, Any], where: str) -> dt.date:
    value = item.get("date")
    day = DAY.fullmatch(value) if isinstance(value, str) else None
    with contextlib.suppress(ValueError):  # a 31st of November
        if day is not None:
            return dt.date.fromisoformat(day[1])
    raise ApiUnknown(f"{where}: date is {ascii(value)[:40]}, not a day")


def _text(item: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """Return the first of these that is not empty, "" where none is."""
    for name in names:
        value = item.get(name)
        # Half of a surrogate pair is valid JSON and no text: no ledger could hold it.
        if value is not None and (not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value)):
            raise ApiUnknown(f"{where}: {name} is {ascii(value)[:40]}, not text")
        if value:
            return value
    return ""


def _name(item: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """Return the first of these that is not empty, which tells one thing from another: it is never cut."""
    value = _text(item, names, where)
    if len(value) > NAME_MAX:
        raise ApiUnknown(f"{where}: {names[0]} is {len(value)} characters long, more than {NAME_MAX}")
    return value


def _api_key(item: dict[str, Any], where: str) -> ApiKey:
    name, disabled = _name(item, ("hash",), where), item.get("disabled", False)
    if not name:
        raise ApiUnknown(f"{where}: hash is missing")
    if not isinstance(disabled, bool):
        raise ApiUnknown(f"{where}: disabled is {ascii(disabled)[:40]}, neither true nor false")
    nano, today = _nano(item, "usage", where), _nano(item, "usage_daily", where)
    label = "".join(c if c.isprintable() else "?" for c in _text(item, ("name", "label"), where)[:LABEL_SHOWN])
    return ApiKey(name, label, disabled, nano, today)


def _nano(item: dict[str, Any], name: str, where: str) -> int:
    """Return an amount in 10^-9 dollars, rounded half to even; none is less than nothing."""
    usd = _number(item, name, f"{where}: ").amount
    if usd < 0:
        raise ApiUnknown(f"{where}: {name} is {usd}, less than nothing")
    nano = int(WIDE.scaleb(usd, 9).to_integral_value(ROUND_HALF_EVEN, context=WIDE))
    if nano >= TOLD_MAX:
        raise ApiUnknown(f"{where}: {name} is {usd}, more than can be")
    return nano


def _count(item: dict[str, Any], name: str, where: str) -> int:
    value = item.get(name)
    if type(value) is not int or not 0 <= value < TOLD_MAX:
        raise ApiUnknown(f"{where}: {name} is {ascii(value)[:40]}, not a count")
    return value


def _data(raw: bytes, path: str, secret: str, *, twice: Repeated = "refused") -> dict[str, Any]:
    """Return the object `data`; an error that stands in its place is told in the API's own sentence."""
    data = _document(raw, path, twice=twice).get("data")
    if not isinstance(data, dict):
        raise ApiUnknown(f"{path} answered 200 without an object `data`{instead(raw, secret)}")
    return data


def _document(raw: bytes, path: str, *, twice: Repeated = "refused") -> dict[str, Any]:
    try:
        # Of a name given twice one reader takes the first value, another the last: neither is an answer.
        document = read(raw, twice=twice)
    except NoJson:
        page = raw.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
        what = "with a page, not the API's answer" if page else "without JSON"
        raise ApiUnknown(f"{path} answered 200 {what}") from None
    except Unreadable as error:
        raise ApiUnknown(f"{path} answered 200 with {error}") from None
    if not isinstance(document, dict):
        raise ApiUnknown(f"{path} answered without an object")
    return document


def _number(data: dict[str, Any], name: str, where: str = "") -> Usd:
    value = data.get(name)
    if value is None:
        raise ApiUnknown(f"{where}{name} is {'null' if name in data else 'missing'}, not an amount")
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
    raise ApiUnknown(f"{where}{name} is {shown}, not an amount")
