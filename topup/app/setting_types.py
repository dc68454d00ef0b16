"""What may a setting hold? Each type reads what was written, and says in a sentence why it cannot be that."""

import re
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from topup.domain.demand import written
from topup.domain.errors import SettingsError
from topup.domain.json_document import read
from topup.domain.money import plain
from topup.wire import files

T = TypeVar("T")
# No plain number of a setting is longer than this.
DIGITS_MAX = 40
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """Declare a setting by its default, what it means, and the bounds that its type does not have."""
    return Field(default=default, description=meaning, **bounds)


def _exact(places: int) -> Any:
    """Return a reader of plain decimal numbers with at most `places` digits behind the point; nothing is rounded."""

    def read(value: object) -> Decimal:
        # A float has already lost what it was, and `true` is an int to Python.
        if isinstance(value, bool | float) or not isinstance(value, str | int | Decimal):
            raise ValueError("expected a plain number, such as 10 or 12.5")  # noqa: TRY004 - pydantic wants ValueError
        text = str(value).strip()
        if isinstance(value, str) and not (0 < len(text) <= DIGITS_MAX and set(text) <= set("0123456789.-")):
            raise ValueError("expected a plain number, such as 10 or 12.5")
        try:
            number = Decimal(text)
        except ArithmeticError:
            raise ValueError("expected a plain number, such as 10 or 12.5") from None
        tiny = number.is_finite() and int(number.as_tuple().exponent) < -DIGITS_MAX
        if not number.is_finite() or number.adjusted() > DIGITS_MAX or tiny:
            raise ValueError("expected a finite number of ordinary size")
        if len(plain(number).partition(".")[2]) > places:
            raise ValueError(f"has more than {places} digits behind the point")
        return number

    return read


def listed(value: object) -> object:
    """A list may stand as a text, in the environment: separated by commas, or as JSON; one number may stand alone."""
    if isinstance(value, str) and not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return read(value.encode()) if isinstance(value, str) else [value] if isinstance(value, int) else value


def table(value: object) -> object:
    """A table stands in the environment as JSON."""
    try:
        return read(value.encode()) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('expected texts by their names, as JSON: {"name": "text"}') from None


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse what is named twice."""
    if len(set(values)) != len(values):
        raise ValueError("names the same thing twice")
    return values


def _mailbox(value: str) -> str:
    name, sign, host = value.rpartition("@")
    if not (sign and name and host and value.isascii() and value.isprintable() and set(value).isdisjoint(' ,;<>"')):
        raise ValueError("expected one e-mail address, such as ops@example.com")
    return value


def _quiet_hours(value: object) -> object:
    """Read hours of a day, from and until."""
    parts = str(value).split("-") if isinstance(value, str) else value
    try:
        first, last = (int(part) for part in parts)  # type: ignore[attr-defined]
    except (ValueError, TypeError):
        first = last = -1
    if not (0 <= first < 24 and 0 <= last < 24 and first != last):
        raise ValueError("expected two hours of the day, from and until, such as 22-7")
    return first, last


def _listen(value: object) -> object:
    """Read where to listen: an address and a port, or a port alone, which is one of loopback."""
    text = str(value) if isinstance(value, int) else value
    if not isinstance(text, str):
        return value
    host, colon, port = text.strip().rpartition(":")
    try:
        address = ip_address("127.0.0.1" if not colon or host == "localhost" else host.removeprefix("[").rstrip("]"))
    except ValueError:
        address = None
    # In brackets where it has colons of its own, as in a URL.
    right = address is not None and (not colon or host == "localhost" or host == _bracketed(address))
    if not right or not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError("expected an address and a port, such as 127.0.0.1:9464 or [::1]:9464, or a port alone")
    assert address is not None
    return f"{_bracketed(address)}:{int(port)}"


def _bracketed(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _host_name(value: str) -> str:
    if not re.fullmatch(r"(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*", value):
        raise ValueError("expected the name of a host, in small letters and without a port")
    return value


def _hex(digits: int) -> Any:
    def check(value: str) -> str:
        body = value[2:]
        if value[:2] not in ("0x", "0X") or len(body) != digits or set(body) - set("0123456789abcdefABCDEF"):
            raise ValueError(f"expected 0x and {digits} hex digits")
        return "0x" + body.lower()

    return check


def _prefix(value: str) -> str:
    """Read how an operator signs: by EIP-191, which the contract takes an empty prefix for, or behind these bytes."""
    if value.lower() == "eip191":
        return "eip191"
    body = value[2:].lower()
    if value[:2] != "0x" or not 2 <= len(body) <= 128 or len(body) % 2 or set(body) - set("0123456789abcdef"):
        raise ValueError("expected eip191, or 0x and the bytes of a prefix in hex, 64 at most")
    return "0x" + body


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    strange = any(c.isspace() or not c.isprintable() or c == "\\" for c in value)
    if parts is None or parts.scheme not in ("http", "https") or not host or strange or parts.fragment:
        raise ValueError("expected a URL that begins with https:// (or http:// for loopback)")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError("plain http is allowed for loopback only: keys and payments would travel in the clear")
    netloc = parts.netloc.rpartition("@")
    # A key at a query's end may end in a slash that belongs to it.
    path = parts.path.rstrip("/") if not parts.query else parts.path
    return urlunsplit(parts._replace(netloc=netloc[0] + netloc[1] + netloc[2].lower(), path=path))


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.query or parts.username is not None:
        raise ValueError("expected a base URL without user or query: paths are appended to it")
    return value


def _realm(value: str) -> str:
    # As a challenge's header can hold it; mppx calls itself "MPP Payment".
    if not (0 < len(value) <= 253 and value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError("expected up to 253 printable characters of ASCII, without a blank at either end")
    return value


def _path(value: object) -> object:
    if value in ("", Path()):
        raise ValueError("is empty: name a file, or leave it out")
    if isinstance(value, str | Path) and (wrong := files.stray(str(value))):
        raise ValueError(wrong)
    return value


def _private_key(value: SecretStr) -> SecretStr:
    body = value.get_secret_value().strip().removeprefix("0x")
    if len(body) != 64 or set(body) - set("0123456789abcdefABCDEF"):
        raise ValueError("expected 0x and 64 hex digits")
    return value


def token(text: str, what: str) -> str:
    """Return `text` when it can stand in an HTTP header; else a SettingsError says what `what` is instead."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(
            f"{what} is {'empty' if not text else 'no key: it holds blanks or letters that no key has'}",
            remedy="copy the key again, alone and on one line",
        )
    if text[0] in "\"'`" or re.match(r"(export\s+)?[A-Z][A-Z0-9_]*=", text):
        raise SettingsError(
            f"{what} is no key: quotes or a variable's name stand before it", remedy="copy the key alone, on one line"
        )
    return text


def _token(value: SecretStr) -> SecretStr:
    try:
        token(value.get_secret_value().strip(), "it")
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return value


Dollars = Annotated[Decimal, BeforeValidator(_exact(6)), Field(ge=0, le=1_000_000)]
Eth = Annotated[Decimal, BeforeValidator(_exact(18)), Field(ge=0, le=1000)]
Gwei = Annotated[Decimal, BeforeValidator(_exact(9)), Field(le=1_000_000)]
Hours = Annotated[Decimal, BeforeValidator(_exact(6)), Field(gt=0, le=8760)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Timeout = Annotated[int, Field(ge=1, le=300)]
Margin = Annotated[int, Field(ge=0, le=2000)]
Quorum = Annotated[int, Field(ge=1, le=2)]
Address = Annotated[str, AfterValidator(written)]
Hash = Annotated[str, AfterValidator(_hex(64))]
Prefix = Annotated[str, AfterValidator(_prefix)]
TierName = Literal["info", "warning", "critical"]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
QuietHours = Annotated[tuple[int, int], BeforeValidator(_quiet_hours)]
Listen = Annotated[str, BeforeValidator(_listen)]
HostName = Annotated[str, AfterValidator(_host_name)]
Url = Annotated[str, AfterValidator(_url)]
BaseUrl = Annotated[Url, AfterValidator(_base_url)]
File = Annotated[Path, BeforeValidator(_path)]
PrivateKey = Annotated[SecretStr, AfterValidator(_private_key)]
ApiKey = Annotated[SecretStr, AfterValidator(_token)]
Realm = Annotated[str, AfterValidator(_realm)]
AccountName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Tier = Annotated[int, Field(ge=1, le=999_999)]
Texts = Annotated[dict[str, str], BeforeValidator(table)]
Many = Annotated[tuple[T, ...], BeforeValidator(listed), AfterValidator(distinct)]
