"""How is one seller for x402 asked, and where does it tell the balance? A record for each; a user's own is a file.

What differs between sellers of the same protocol is data: paths, fields, headers, who is asked for a key and who for a
login. The built-in records were written from the sellers' own pages; `tried` says whether one was ever tried against
the live seller. A file is TOML with the same names; `like` begins it from a built-in record.
"""

import difflib
import re
import secrets
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from topup.domain.demand import written
from topup.domain.errors import SettingsError
from topup.domain.money import Usd, plain
from topup.sellers.x402_wire import Login, login_header, login_message
from topup.wire import files
from topup.wire.verbatim import Numeral, write

FILE_BYTES_MAX: Final = 64 * 1024
# What a path or a body may name of a purchase.
PLACEHOLDERS: Final = ("usd", "usd_number", "cents", "units", "wallet")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
UNITS: Final = {"usd": Decimal(1), "cents": Decimal("0.01"), "micro": Decimal("0.000001")}


def _path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,500}", value):
        raise ValueError("expected a path that begins with / and holds neither blanks nor letters beyond ASCII")
    return _with_placeholders(value)


def _with_placeholders(value: str) -> str:
    strange = [name for name in _PLACEHOLDER.findall(value) if name not in PLACEHOLDERS]
    if strange or value.count("{") != len(_PLACEHOLDER.findall(value)):
        raise ValueError(f"{{{(strange or [''])[0]}}} is no place: {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)} are")
    return value


def _body(value: dict[str, Any] | None) -> dict[str, Any] | None:
    def look(part: Any, depth: int) -> None:
        if depth > 8 or not isinstance(part, str | int | Decimal | dict | list):
            raise ValueError("expected texts, numbers, true or false, and tables and lists of these")
        if isinstance(part, str):
            _with_placeholders(part)
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            look(inner, depth + 1)

    if value is not None:
        look(value, 0)
    return value


def _dollars(value: object) -> Decimal:
    text = str(value).strip() if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        raise ValueError("expected dollars, such as 5 or 0.50")
    return Decimal(text)


def _line(value: str) -> str:
    if not value.isprintable():  # which a lone surrogate is not
        raise ValueError("expected one printable line")
    return value


PathText = Annotated[str, AfterValidator(_path)]
Address = Annotated[str, AfterValidator(written)]
Dollars = Annotated[Decimal, BeforeValidator(_dollars)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Line = Annotated[str, Field(max_length=300), AfterValidator(_line)]
Auth = Literal["none", "key", "login"]
Method = Literal["GET", "POST", "PUT"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sale(_Table):
    """How a purchase is asked for, and paid.

    Attributes:
        path: below `api.url`; it may name {usd}, {cents}, {units} and {wallet}.
        body: the fields of the request, which may name the same places; {usd_number} is a number, not a text.
        minimum: whether the amount of an offer is the least that is taken, and the payer chooses.
        least_usd: less is not sold.
        most_usd: nor is more.
        recipients: whom the seller is known to be paid by; none where nobody has published that.
        version: which version of the protocol an answer is that does not say.
        timeout_s: for how many seconds an authorization may be good where an offer does not say.
        offer_header: where version 2 puts its offers.
        payment_header: where the payment goes, when not where the protocol's version has it.
    """

    method: Method = "POST"
    path: PathText
    body: Annotated[dict[str, Any] | None, AfterValidator(_body)] = None
    auth: Auth = "none"
    minimum: bool = False
    least_usd: Dollars | None = None
    most_usd: Dollars | None = None
    recipients: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    version: Literal[1, 2] | None = None
    timeout_s: Annotated[int, Field(gt=0, le=86_400)] | None = None
    offer_header: HeaderName = "payment-required"
    payment_header: HeaderName | None = None


class Balance(_Table):
    """Where the seller tells what is left: `field` is the way to it, names joined by dots; `unit` what it counts in."""

    method: Method = "GET"
    path: PathText
    auth: Auth = "none"
    field: Annotated[str, Field(pattern=r"^[^.\s]{1,100}(\.[^.\s]{1,100}){0,7}$")]
    unit: Literal["usd", "cents", "micro"] = "usd"


class KeyHeader(_Table):
    """How the API key is presented."""

    header: HeaderName = "authorization"
    prefix: Line = "Bearer "


class LoginText(_Table):
    """How a wallet logs in: the header, the sentence that is signed, and what the login is for.

    `uri` is the seller's origin, or the address of the very request.
    """

    header: HeaderName = "SIGN-IN-WITH-X"
    statement: Line = ""
    uri: Literal["origin", "request"] = "origin"
    life_s: Annotated[int, Field(ge=30, le=3600)] = 300


class Profile(_Table):
    """One seller. `source` is where all this was read; `tried` whether it was ever tried against the live seller."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    source: Line = ""
    tried: bool = False
    sell: Sale
    balance: Balance
    key: KeyHeader = KeyHeader()
    login: LoginText = LoginText()

    @property
    def recipients(self) -> frozenset[bytes] | None:
        """Return whom the seller is known to be paid by, 20 bytes each; None where nobody has published that."""
        return frozenset(bytes.fromhex(text[2:]) for text in self.sell.recipients) or None

    def says(self) -> str:
        """Say how far this record can be relied on."""
        read_in = f", read in {self.source}" if self.source else ""
        return f"{self.name}{read_in}: {'tried' if self.tried else 'documented, not tried against the live seller'}"

    def request(self, amount: Usd, wallet: bytes) -> tuple[str, str, bytes | None]:
        """Return method, path and body of the request that buys so many dollars of credit."""
        path = str(_with(self.sell.path, amount, wallet))
        body = None if self.sell.body is None else write(_with(self.sell.body, amount, wallet)).encode()
        return self.sell.method, path, body

    def account(self, wallet: bytes) -> str:
        return _PLACEHOLDER.sub(lambda _: "0x" + wallet.hex(), self.balance.path)

    def usd(self, amount: Decimal) -> Decimal:
        return amount * UNITS[self.balance.unit]


def identity(profile: Profile, auth: Auth, url: str, now_ms: int, *, key: str, login: Login | None) -> dict[str, str]:
    """Return the header that says who asks at an address: the key, a login signed now, or none."""
    if auth == "key":
        return {profile.key.header: f"{profile.key.prefix}{key}"}
    if auth == "none":
        return {}
    assert login is not None, "where a login is wanted, somebody signs it"
    text, parts = profile.login, urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    uri = url if text.uri == "request" else f"{parts.scheme}://{host}"
    ends_ms = now_ms + text.life_s * 1000
    message = login_message(
        login, domain=host, uri=uri, statement=text.statement, nonce=secrets.token_hex(8), times_ms=(now_ms, ends_ms)
    )
    return {text.header: login_header(login, message, now_ms)}


def _values(amount: Usd, wallet: bytes) -> dict[str, Any]:
    return {
        "usd": plain(amount.amount),
        "usd_number": Numeral(plain(amount.amount)),
        "cents": int(amount.cents_up().amount * 100),
        "units": amount.usdc_up().units,
        "wallet": "0x" + wallet.hex(),
    }


def _with(part: Any, amount: Usd, wallet: bytes) -> Any:
    """Fill the places of a path or a body. A text that is one place alone becomes its value: {cents} is a number."""
    if isinstance(part, dict):
        return {name: _with(inner, amount, wallet) for name, inner in part.items()}
    if isinstance(part, list):
        return [_with(inner, amount, wallet) for inner in part]
    if isinstance(part, Decimal):
        return Numeral(plain(part))
    if not isinstance(part, str):
        return part
    alone, values = _PLACEHOLDER.fullmatch(part), _values(amount, wallet)
    return values[alone[1]] if alone else _PLACEHOLDER.sub(lambda name: str(values[name[1]]), part)


_VENICE: Final[dict[str, Any]] = {
    "name": "venice",
    "source": "veniceai/api-docs, OpenAPI description of 2026-08-21; the receiver stands in its guide",
    "sell": {
        "path": "/x402/top-up",
        "body": {},
        "minimum": True,
        "least_usd": "5",
        "most_usd": "10000",
        "recipients": ["0x2670B922ef37C7Df47158725C0CC407b5382293F"],
    },
    "balance": {"path": "/x402/balance/{wallet}", "auth": "login", "field": "data.balanceUsd"},
    "login": {"statement": "Sign in to Venice API"},
}
_PLAIN: Final[dict[str, Any]] = {
    "name": "plain",
    "source": "docs.dria.co/docs/api/credits",
    "sell": {"path": "/credits/topup", "body": {"amount": "{usd}"}, "auth": "key"},
    "balance": {"path": "/credits/balance", "auth": "key", "field": "balance_usdc"},
}
_RECORDS: Final[dict[str, dict[str, Any]]] = {
    "venice": _VENICE,
    # The same seller by the other text that its pages have: the example of the description, guide and learning page.
    "venice-ai": {
        **_VENICE,
        "name": "venice-ai",
        "source": "veniceai/api-docs, the guide's text of the login",
        "login": {"statement": "Sign in to Venice AI"},
    },
    "plain": _PLAIN,
    "dria": {**_PLAIN, "name": "dria", "sell": {**_PLAIN["sell"], "version": 1, "timeout_s": 300}},
    # Its sample offer has neither x402Version nor maxTimeoutSeconds, and names chains as version 2 does.
    "gaib": {
        "name": "gaib",
        "source": "token-kiosk.gaib.ai/docs and docs-agent.gaib.cloud/llms.txt",
        "sell": {
            "path": "/topup",
            "body": {"amount": "{usd_number}"},
            "least_usd": "1",
            "version": 2,
            "timeout_s": 300,
            "payment_header": "X-Payment",
        },
        "balance": {"path": "/usage/{wallet}", "auth": "key", "field": "balance_usdc", "unit": "micro"},
    },
}
PROFILES: Final[dict[str, Profile]] = {name: Profile.model_validate(record) for name, record in _RECORDS.items()}


def keyed(path: str, field: str) -> Profile:
    """Return a record for a balance alone, told to whoever has the API key."""
    balance = {"path": path, "auth": "key", "field": field}
    return Profile.model_validate({"name": "balance", "sell": {"path": "/"}, "balance": balance})


def profile(named: str) -> Profile:
    """Return the record that a setting names: a built-in one, or a file's.

    Raises:
        FileAway: the file is not there, or cannot be read now.
        SettingsError: there is no such record, or the file cannot be read or says something else than a record.
    """
    if named in PROFILES:
        return PROFILES[named]
    if "/" not in named and not named.endswith(".toml"):
        near = difflib.get_close_matches(named, PROFILES, n=1, cutoff=0.6)
        meant = f", did you mean {near[0]}?" if near else ""
        raise SettingsError(
            f"rails.x402.profile {named!r} is no seller that is known here{meant}",
            remedy=f"name one of {', '.join(PROFILES)}, or a file such as ./seller.toml (docs/rails.md)",
        )
    return _from_file(Path(named))


def _from_file(path: Path) -> Profile:
    text = files.text(path, "rails.x402.profile")
    try:
        if len(text) > FILE_BYTES_MAX:
            raise ValueError(f"is longer than {FILE_BYTES_MAX} characters")  # noqa: TRY301 - said like all else
        document = tomllib.loads(text, parse_float=Decimal)
        return Profile.model_validate(_begun(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        wrong = "is no field of a seller" if first["type"] == "extra_forbidden" else said
        raise SettingsError(
            f"rails.x402.profile: {path}: {where} {wrong}", remedy="see docs/rails.md for what a record holds"
        ) from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise SettingsError(f"rails.x402.profile: {path} {error}", remedy="correct the file") from None


def _begun(document: dict[str, Any]) -> dict[str, Any]:
    """Lay a file over the record that it is like. A body is taken as a whole: its fields belong together."""
    like = document.pop("like", None)
    if like is None:
        return document
    if like not in _RECORDS:
        raise ValueError(f"is like {str(like)[:60]!r}, which is none of {', '.join(_RECORDS)}")
    base = _RECORDS[like]
    # What the file says differs from what was read elsewhere, so the source is not the base's.
    laid = {**base, "source": "", "name": f"{like}-own", **document}
    for name, table in base.items():
        if isinstance(table, dict) and isinstance(document.get(name, {}), dict):
            laid[name] = {**table, **document.get(name, {})}
    return laid
