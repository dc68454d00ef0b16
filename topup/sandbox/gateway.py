"""How would OpenRouter answer, if it still sold credits for crypto? A compatible server on loopback.

It keeps one account that burns credits, signs charges, and posts credits only for payments it finds on the chain.
Every fault has a name and can be switched while the server runs: `WIRE_FAULTS` (any endpoint), `OWN_FAULTS`, and on
`coinbase` every name of `charges.HOSTILE`. Shapes and codes: OpenRouter's API reference and its crypto guide.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Final, Literal, NoReturn, get_args
from urllib.parse import parse_qs

from topup.sandbox.charges import HOSTILE, Ask, Operator, intent_of
from topup.sandbox.http import Raw, Request, Response, Server
from topup.sandbox.postings import Chain, Issued, Json, Watch
from topup.sandbox.usage import DAYS, Parts
from topup.sandbox.wire import WIRE_FAULTS, Wire, error, reset

Place = Literal["credits", "key", "keys", "activity", "coinbase", "posting"]
PATHS: Final[dict[str, tuple[str, Place]]] = {
    "/api/v1/credits": ("GET", "credits"),
    "/api/v1/key": ("GET", "key"),
    "/api/v1/auth/key": ("GET", "key"),
    "/api/v1/keys": ("GET", "keys"),
    "/api/v1/activity": ("GET", "activity"),
    "/api/v1/credits/coinbase": ("POST", "coinbase"),
}
OWN_FAULTS: Final[dict[Place, frozenset[str]]] = {
    "credits": frozenset({"zero-credits", "falling-total", "frozen", "string-numbers", "nan", "ordinary-key"}),
    "key": frozenset({"ordinary-key"}),
    "keys": frozenset(),
    "activity": frozenset(),
    "coinbase": frozenset({"answer-lost"}),
    "posting": frozenset({"never-posts", "posts-late"}),
}
MS_PER_HOUR = 3_600_000
USD_STEP = Decimal("0.000000001")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
LARGE_USD = Decimal(500)
KEYS_A_PAGE = 100


@dataclass
class Conduct:
    """How the gateway behaves when nothing is wrong; may be changed while it runs."""

    staleness_ms: int = 0  # GET /credits shows a state up to this old; the documented worst case is 60 000.
    posting_delay_ms: int = 0  # From the moment the payment was seen on the chain.
    large_posting_delay_ms: int = 15 * 60_000  # For more than 500 USD.
    late_ms: int = 3_600_000  # What `posts-late` adds.
    idle_keys: int = 0  # So many keys of the account have never been used.
    disabled_keys: frozenset[str] = frozenset()  # Names of keys that are switched off; what they used stays.
    ordinary_key_sees: Literal["zero", "forbidden"] = "zero"
    amount_min_usd: Decimal = Decimal(1)
    amount_max_usd: Decimal = Decimal(2000)


@dataclass
class Seen:
    """One request as it arrived and how it was answered; `status` is None when no ordinary answer went out."""

    at_ms: int
    method: str
    path: str
    body: bytes
    key: Literal["management", "ordinary", "none", "wrong"]
    fault: str | None = None
    status: int | None = None


@dataclass
class Switched:
    """A fault that is on, with the number of requests it still spoils (None: all)."""

    name: str
    left: int | None


@dataclass
class Elsewhere:
    """What the server behind a redirect was asked; it should stay empty."""

    requests: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        """Record, and tempt with a fortune."""
        self.requests.append(request)
        return Response(200, b'{"data":{"total_credits":1000000,"total_usage":0}}')


class BadAsk(Exception):
    """A request for a charge that a server must refuse with 400; the text says why."""


class Account:
    """Credits bought and used, in USD; usage grows with the clock."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        total_credits: Decimal = Decimal(20),
        total_usage: Decimal = Decimal(0),
        burn_usd_per_hour: Decimal = Decimal(0),
    ) -> None:
        """Start burning now; `now_ms` is unix time in milliseconds."""
        self.now_ms = now_ms
        self.total_credits = total_credits
        # From when on how much was used, and how fast it has been used since; the newest last.
        self._curve = [(now_ms(), total_usage, burn_usd_per_hour)]

    @property
    def total_usage(self) -> Decimal:
        """USD used so far, to a billionth, rounded down."""
        return self.used_at(self.now_ms())

    def used_at(self, at_ms: int) -> Decimal:
        """USD used up to a moment; before the account was looked at first, what it had used then."""
        since_ms, usage, burn = next((one for one in reversed(self._curve) if one[0] <= at_ms), self._curve[0])
        return (usage + burn * max(0, at_ms - since_ms) / MS_PER_HOUR).quantize(USD_STEP, ROUND_DOWN)

    def set_usage(self, usd: Decimal) -> None:
        """From now on the account has used this much."""
        self._curve.append((self.now_ms(), usd, self._curve[-1][2]))

    def set_burn_rate(self, usd_per_hour: Decimal) -> None:
        """From now on the account burns this fast."""
        if usd_per_hour != self._curve[-1][2]:
            self._curve.append((self.now_ms(), self.total_usage, usd_per_hour))

    def buy_elsewhere(self, usd: Decimal) -> None:
        """Credits bought by somebody else, by card or on the web page."""
        self.total_credits += usd

    def refund(self, usd: Decimal) -> None:
        """Lowers the total: a refund, or credits that expired."""
        self.total_credits -= usd


class Gateway:
    """The server, its account and its switches. `start` it, give the chain, and call `poll` on a timer."""

    def __init__(
        self,
        account: Account,
        *,
        operator: Operator | None = None,
        chain: Chain | None = None,
        conduct: Conduct | None = None,
    ) -> None:
        """The account's clock is the server's clock; without a chain nothing is ever posted."""
        self.account = account
        self.now_ms = account.now_ms
        self.operator = operator or Operator()
        self.watch = Watch(self.operator, chain) if chain else None
        self.conduct = conduct or Conduct()
        self.wire = Wire()
        # How whoever waits here for the chain lets time pass; None: by the machine's time.
        self.sleep: Callable[[float], Awaitable[None]] | None = None
        self.management_key = "sk-or-v1-" + secrets.token_hex(32)
        self.ordinary_key = "sk-or-v1-" + secrets.token_hex(32)
        self.requests: list[Seen] = []
        self.issued: dict[str, Issued] = {}
        self.elsewhere = Elsewhere()
        self._server = Server(self._answer)
        self._elsewhere_server = Server(self.elsewhere.answer)
        self._switched: dict[Place, list[Switched]] = {place: [] for place in get_args(Place)}
        self._reading: tuple[int, Decimal, Decimal] | None = None
        self._frozen: tuple[Decimal, Decimal] | None = None
        self._falls = 0

    # The server.

    @property
    def url(self) -> str:
        """The base as a client is configured with: http://127.0.0.1:PORT/api/v1."""
        return f"{self._server.url}/api/v1"

    async def start(self, port: int = 0) -> None:
        """Listen on loopback, and on a second port that only a followed redirect would reach."""
        await self._server.start(port)
        await self._elsewhere_server.start()
        self.wire.elsewhere = self._elsewhere_server.url

    async def stop(self) -> None:
        """Stop listening; connections held open by a fault are cut."""
        await self._server.stop()
        await self._elsewhere_server.stop()

    def count(self, place: Place) -> int:
        """How many requests one endpoint has had, answered or not."""
        return Counter(PATHS[seen.path][1] for seen in self.requests if seen.path in PATHS)[place]

    # Faults.

    def switch_on(self, place: Place, name: str, times: int | None = None) -> None:
        """Spoil the next `times` requests at `place` (None: all). Several faults act in the order of switching.

        Raises KeyError for a fault that this place does not have.
        """
        if name not in faults_of(place):
            raise KeyError(f"{place} has no fault called {name!r}")
        self._switched[place].append(Switched(name, times))

    def switch_off(self, place: Place | None = None) -> None:
        """End all faults, or those of one place."""
        for one in [place] if place else list(self._switched):
            self._switched[one].clear()

    def _current(self, place: Place) -> str | None:
        return next((fault.name for fault in self._switched[place] if fault.left != 0), None)

    def _spend(self, place: Place) -> str | None:
        for fault in self._switched[place]:
            if fault.left is None:
                return fault.name
            if fault.left > 0:
                fault.left -= 1
                return fault.name
        return None

    # Requests.

    async def _answer(self, request: Request) -> Response | Raw:
        key = self._key_of(request)
        seen = Seen(self.now_ms(), request.method, request.path, request.body, key)
        self.requests.append(seen)
        method, place = PATHS.get(request.path, (None, None))
        if place is None:
            answer: Response | Raw = error(404, "Not Found")
        elif request.method != method:
            answer = error(405, "Method Not Allowed")
        else:
            seen.fault = self._spend(place)
            answer = self._answer_at(place, request, seen)
        if isinstance(answer, Response):
            seen.status = answer.status
        return answer

    def _answer_at(self, place: Place, request: Request, seen: Seen) -> Response | Raw:
        def honest() -> Response | Raw:
            if seen.key == "none":
                return error(401, "Missing Authentication header")
            if seen.key == "wrong":
                return error(401, "Invalid API key")
            if place == "credits":
                return self._credits(seen)
            if place == "key":
                return self._describe_key(seen)
            if place in ("keys", "activity"):
                return self._usage(place, request, seen)
            return self._coinbase(request.body, seen.fault)

        def honest_body() -> bytes:
            answer = honest()
            return answer.body if isinstance(answer, Response) else b"{}"

        if seen.fault and seen.fault in WIRE_FAULTS:
            return WIRE_FAULTS[seen.fault](self.wire, honest_body)
        return honest()

    def _key_of(self, request: Request) -> Literal["management", "ordinary", "none", "wrong"]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return "none"
        if secrets.compare_digest(token.encode(), self.management_key.encode()):
            return "management"
        return "ordinary" if secrets.compare_digest(token.encode(), self.ordinary_key.encode()) else "wrong"

    def _read_account(self) -> tuple[Decimal, Decimal]:
        now = self.now_ms()
        if self._reading is None or now - self._reading[0] >= self.conduct.staleness_ms:
            self._reading = (now, self.account.total_credits, self.account.total_usage)
        return self._reading[1:]

    def _credits(self, seen: Seen) -> Response:
        ordinary = seen.key == "ordinary" or seen.fault == "ordinary-key"
        if ordinary and self.conduct.ordinary_key_sees == "forbidden":
            return error(403, "Only management keys can perform this operation")
        bought, used = self._read_account()
        if ordinary or seen.fault == "zero-credits":
            bought, used = Decimal(0), Decimal(0)
        elif seen.fault == "frozen":
            self._frozen = self._frozen or (bought, used)
            bought, used = self._frozen
        elif seen.fault == "falling-total":
            bought, self._falls = max(bought - self._falls, Decimal(0)), self._falls + 1
        if seen.fault == "string-numbers":
            return _data({"total_credits": json_text(bought), "total_usage": json_text(used)})
        if seen.fault == "nan":
            return _data({"total_credits": Decimal("NaN"), "total_usage": used})
        return _data({"total_credits": bought, "total_usage": used})

    def _describe_key(self, seen: Seen) -> Response:
        management = seen.key == "management" and seen.fault != "ordinary-key"
        used = Decimal(0) if management else self.account.total_usage
        periods = ("usage", "usage_daily", "usage_weekly", "usage_monthly")
        return _data(
            {
                "label": "sk-or-v1-sand...box",
                "limit": None,
                "limit_remaining": None,
                "limit_reset": None,
                **dict.fromkeys(periods, used),
                **{f"byok_{name}": Decimal(0) for name in periods},
                "is_free_tier": False,
                "is_management_key": management,
                "is_provisioning_key": management,
                "creator_user_id": None,
                "expires_at": None,
                "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
            }
        )

    def _usage(self, place: Place, request: Request, seen: Seen) -> Response:
        if seen.key == "ordinary":
            return error(403, "Only management keys can perform this operation")
        parts = Parts(self.account.used_at, self.now_ms)
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        if place == "activity":
            day = asked.get("date")
            if day is not None and not parts.tells(day):
                return error(400, f"Date must be within the last {DAYS} (completed) UTC days")
            return _list(list(parts.activity(day, asked.get("api_key_hash"))))
        offset = asked.get("offset", "0")
        if re.fullmatch(r"[0-9]{1,9}", offset) is None:
            return error(400, "Invalid offset")
        keys = parts.keys(self.conduct.idle_keys, self.conduct.disabled_keys)
        shown = [key for key in keys if asked.get("include_disabled") == "true" or not key["disabled"]]
        return _list(shown[int(offset) : int(offset) + KEYS_A_PAGE])

    def _coinbase(self, body: bytes, fault: str | None) -> Response | Raw:
        try:
            ask = self._ask(body)
        except BadAsk as wrong:
            return error(400, f"Invalid credit amount or request body: {wrong}")
        draft = self.operator.draft(ask)
        charge = self.operator.charge(draft, ask, fault if fault in HOSTILE else None)
        # What is owed is the honest amount whatever the charge says: a trick never buys cheaper credits.
        charge_id = intent_of(charge)["call_data"]["id"]
        from_block = self.watch.head if self.watch else 0
        self.issued.setdefault(charge_id, Issued(charge_id, ask.amount, draft.recipient_amount, from_block))
        return reset() if fault == "answer-lost" else _data(charge)

    def _ask(self, body: bytes) -> Ask:
        try:
            asked = json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, ArithmeticError, RecursionError) as wrong:  # ArithmeticError: an exponent beyond Decimal.
            raise BadAsk("not JSON") from wrong
        if not isinstance(asked, dict):
            raise BadAsk("not an object")
        amount, sender, chain_id = (asked.get(name) for name in ("amount", "sender", "chain_id"))
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
            raise BadAsk("amount must be a number")
        if not self.conduct.amount_min_usd <= amount <= self.conduct.amount_max_usd:
            raise BadAsk(f"amount must be from {self.conduct.amount_min_usd} to {self.conduct.amount_max_usd}")
        if not isinstance(sender, str) or not ADDRESS.fullmatch(sender):
            raise BadAsk("sender must be an address")
        if isinstance(chain_id, bool) or not isinstance(chain_id, int):
            raise BadAsk("chain_id must be a number")
        if chain_id != self.operator.terms.chain_id:
            raise BadAsk(f"chain_id {chain_id} is not supported")
        return Ask(Decimal(amount), sender, chain_id, self.now_ms() // 1000)

    # The chain.

    def poll(self) -> None:
        """Look for payments on the chain and post what is due. Raises what the chain raises; call it again later."""
        if self.watch is None:
            return
        self.watch.look(self.issued.values(), self.now_ms())
        for one in self.issued.values():
            if self._is_due(one) and self.watch.still_paid(one):
                self.account.total_credits += one.amount_usd
                one.posted_ms = self.now_ms()

    def _is_due(self, one: Issued) -> bool:
        fault = self._current("posting")
        if one.seen_ms is None or one.posted_ms is not None or fault == "never-posts":
            return False
        large = one.amount_usd > LARGE_USD
        delay_ms = self.conduct.large_posting_delay_ms if large else self.conduct.posting_delay_ms
        return self.now_ms() >= one.seen_ms + delay_ms + (self.conduct.late_ms if fault == "posts-late" else 0)


def faults_of(place: Place) -> frozenset[str]:
    """The names `switch_on` accepts for a place."""
    names = OWN_FAULTS[place]
    if place != "posting":
        names |= frozenset(WIRE_FAULTS)
    return names | HOSTILE if place == "coinbase" else names


def json_text(value: Json) -> str:
    """JSON in which a Decimal is a number with its own digits: no float on the way, no exponent."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            return "NaN"  # What a careless server writes; not JSON.
        plain = f"{value:f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


def _data(value: dict[str, Json]) -> Response:
    return Response(200, json_text({"data": value}).encode())


def _list(items: list[Json]) -> Response:
    return Response(200, json_text({"data": items}).encode())


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
