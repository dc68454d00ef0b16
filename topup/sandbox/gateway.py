"""How would OpenRouter answer, if it still sold credits for crypto? A compatible server on loopback.

It keeps one account that burns credits, signs charges, and posts credits only for payments it finds on the chain.
Every fault has a name and can be switched while the server runs, at the places of `FAULTS_AT`. Shapes
and codes: OpenRouter's API reference and its crypto guide.
"""

import json
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import ClassVar, Final, Literal, NoReturn
from urllib.parse import parse_qs

from topup.sandbox.charges import HOSTILE, Ask, Operator, intent_of
from topup.sandbox.http import Raw, Request, Response, Server, answer_of, json_text
from topup.sandbox.postings import Issued, Json, Watch
from topup.sandbox.rpc import Asked
from topup.sandbox.usage import DAYS, Parts
from topup.sandbox.wire import FORBIDDEN, SELLER_FAULTS, WIRE_FAULTS, Wire, error, reset

PATHS: Final[dict[str, tuple[str, str]]] = {
    "/api/v1/credits": ("GET", "credits"),
    "/api/v1/key": ("GET", "key"),
    "/api/v1/auth/key": ("GET", "key"),
    "/api/v1/keys": ("GET", "keys"),
    "/api/v1/activity": ("GET", "activity"),
    "/api/v1/credits/coinbase": ("POST", "coinbase"),
}
_WIRE: Final = frozenset(WIRE_FAULTS)
# By place, the faults that can be switched on there.
FAULTS_AT: Final[Mapping[str, frozenset[str]]] = {
    "credits": _WIRE | {"zero-credits", "falling-total", "frozen", "string-numbers", "nan", "ordinary-key"},
    "key": _WIRE | {"ordinary-key"},
    "keys": _WIRE,
    "activity": _WIRE,
    "coinbase": _WIRE | HOSTILE | {"answer-lost"},
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

    @property
    def balance(self) -> Decimal:
        """USD left: credit is never lent."""
        return max(Decimal(0), self.total_credits - self.total_usage)

    def used_at(self, at_ms: int) -> Decimal:
        """USD used up to a moment; before the account was looked at first, what it had used then."""
        since_ms, usage, burn = next((point for point in reversed(self._curve) if point[0] <= at_ms), self._curve[0])
        return (usage + burn * max(0, at_ms - since_ms) / MS_PER_HOUR).quantize(USD_STEP, ROUND_DOWN)

    def set_usage(self, usd: Decimal) -> None:
        """From now on the account has used this much."""
        self._curve.append((self.now_ms(), usd, self._curve[-1][2]))

    def set_burn_rate(self, usd_per_hour: Decimal) -> None:
        """From now on the account burns this fast."""
        if usd_per_hour != self._curve[-1][2]:
            self._curve.append((self.now_ms(), self.total_usage, usd_per_hour))

    def buy_elsewhere(self, usd: Decimal) -> None:
        """Credits bought by somebody else, by card or on the web page; below zero a refund, or what has expired."""
        self.total_credits += usd


class Gateway:
    """The server, its account and its switches. `start` it, give the chain, and call `poll` on a timer.

    Attributes:
        faults_at: by place, the faults that can be switched on there.
    """

    faults_at: ClassVar[Mapping[str, frozenset[str]]] = FAULTS_AT

    def __init__(
        self,
        account: Account,
        *,
        operator: Operator | None = None,
        chain: Asked | None = None,
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
        self._asked: Counter[str] = Counter()
        self._switched: dict[str, list[Switched]] = {place: [] for place in self.faults_at}
        self._reading: tuple[int, Decimal, Decimal] | None = None
        self._frozen: tuple[Decimal, Decimal] | None = None
        self._falls = 0

    # The server.

    @property
    def url(self) -> str:
        """The base as a client is configured with: http://127.0.0.1:PORT/api/v1."""
        return f"{self._server.url}/api/v1"

    async def start(self) -> None:
        """Listen on loopback, and on a second port that only a followed redirect would reach."""
        await self._server.start()
        await self._elsewhere_server.start()
        self.wire.elsewhere = self._elsewhere_server.url

    async def stop(self) -> None:
        """Stop listening; connections held open by a fault are cut."""
        await self._server.stop()
        await self._elsewhere_server.stop()

    def count(self, place: str) -> int:
        """How many requests one place has had, answered or not."""
        return self._asked[place]

    # Faults.

    def switch_on(self, place: str, name: str, times: int | None = None) -> None:
        """Spoil the next `times` requests at `place` (None: all). Several faults act in the order of switching.

        Raises KeyError for a fault that this place does not have.
        """
        if name not in self.faults_at[place]:
            raise KeyError(f"{place} has no fault called {name!r}")
        self._switched[place].append(Switched(name, times))

    def switch_off(self, place: str | None = None) -> None:
        """End all faults, or those of one place."""
        for each in [place] if place else list(self._switched):
            self._switched[each].clear()

    def _current(self, place: str) -> Switched | None:
        return next((switched for switched in self._switched[place] if switched.left != 0), None)

    def _spoil(self, place: str, seen: Seen) -> str:
        """Return the fault that spoils this request, noted in it; "" for none."""
        self._asked[place] += 1
        switched = self._current(place)
        if switched is None:
            return ""
        if switched.left is not None:
            switched.left -= 1
        seen.fault = switched.name
        return switched.name

    def _instead(self, fault: str, honest: bytes = b"{}") -> Response | Raw | None:
        """Return what a fault says in place of an honest answer, or makes of its body; None for another kind."""
        return SELLER_FAULTS[fault](self.wire, lambda: honest) if fault in SELLER_FAULTS else None

    # Requests.

    async def _answer(self, request: Request) -> Response | Raw:
        seen = Seen(self.now_ms(), request.method, request.path, request.body, self._key_of(request))
        self.requests.append(seen)
        answer = await self._answer_own(request, seen)
        if isinstance(answer, Response):
            seen.status = answer.status
        return answer

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        method, place = PATHS.get(request.path, (None, None))
        if place is None:
            return error(404, "Not Found")
        if request.method != method:
            return error(405, "Method Not Allowed")

        def honest() -> Response | Raw:
            refusal = self._stranger(seen, ordinary=place in ("keys", "activity"))
            if refusal is not None:
                return refusal
            if place == "credits":
                return self._credits(seen)
            if place == "key":
                return self._describe_key(seen)
            if place == "coinbase":
                return self._coinbase(request.body, seen.fault or "")
            return self._usage(place, request)

        def honest_body() -> bytes:
            answer = honest()
            return answer.body if isinstance(answer, Response) else b"{}"

        fault = self._spoil(place, seen)
        return WIRE_FAULTS[fault](self.wire, honest_body) if fault in WIRE_FAULTS else honest()

    def _key_of(self, request: Request) -> Literal["management", "ordinary", "none", "wrong"]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return "none"
        if secrets.compare_digest(token.encode(), self.management_key.encode()):
            return "management"
        return "ordinary" if secrets.compare_digest(token.encode(), self.ordinary_key.encode()) else "wrong"

    def _stranger(self, seen: Seen, *, ordinary: bool) -> Response | None:
        """Return what is told whoever has no key or, if that is `ordinary`, an ordinary one; else None."""
        if seen.key == "none":
            return error(401, "Missing Authentication header")
        if seen.key == "wrong":
            return error(401, "Invalid API key")
        return error(403, FORBIDDEN) if ordinary and seen.key == "ordinary" else None

    def _read_account(self) -> tuple[Decimal, Decimal]:
        now = self.now_ms()
        if self._reading is None or now - self._reading[0] >= self.conduct.staleness_ms:
            self._reading = (now, self.account.total_credits, self.account.total_usage)
        return self._reading[1:]

    def _credits(self, seen: Seen) -> Response:
        ordinary = seen.key == "ordinary" or seen.fault == "ordinary-key"
        if ordinary and self.conduct.ordinary_key_sees == "forbidden":
            return error(403, FORBIDDEN)
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

    def _usage(self, place: str, request: Request) -> Response:
        parts = Parts(self.account.used_at, self.now_ms)
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        if place == "activity":
            day = asked.get("date")
            if day is not None and not parts.tells(day):
                return error(400, f"Date must be within the last {DAYS} (completed) UTC days")
            return _data(list(parts.activity(day, asked.get("api_key_hash"))))
        offset = asked.get("offset", "0")
        if re.fullmatch(r"[0-9]{1,9}", offset) is None:
            return error(400, "Invalid offset")
        keys = parts.keys(self.conduct.idle_keys, self.conduct.disabled_keys)
        shown = [key for key in keys if asked.get("include_disabled") == "true" or not key["disabled"]]
        return _data(shown[int(offset) : int(offset) + KEYS_A_PAGE])

    def _coinbase(self, body: bytes, fault: str) -> Response | Raw:
        try:
            ask = self._ask(body)
        except BadAsk as wrong:
            return error(400, f"Invalid credit amount or request body: {wrong}")
        draft = self.operator.draft(ask)
        charge = self.operator.charge(ask, fault if fault in HOSTILE else "", draft=draft)
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
        for issued in self.issued.values():
            due = issued.posted_ms is None and self._must_credit(issued.seen_ms, issued.amount_usd)
            if due and self.watch.still_paid(issued):
                self.account.total_credits += issued.amount_usd
                issued.posted_ms = self.now_ms()

    def _must_credit(self, settled_ms: int | None, usd: Decimal) -> bool:
        """Tell whether credits for so many dollars are due, which the chain settled then (None: has not settled)."""
        switched = self._current("posting")
        fault = switched.name if switched is not None else ""
        if settled_ms is None or fault == "never-posts":
            return False
        delay_ms = self.conduct.large_posting_delay_ms if usd > LARGE_USD else self.conduct.posting_delay_ms
        return self.now_ms() >= settled_ms + delay_ms + (self.conduct.late_ms if fault == "posts-late" else 0)


def _data(value: Json) -> Response:
    return answer_of(200, {"data": value})


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
