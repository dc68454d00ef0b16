"""What does this JSON say, if it is small, flat and plain enough to be read?

Numbers are never floats, and none has more digits than anything honest. Depth and number of parts are counted before
the decoder sees them: how deep it may go, and what happens beyond that, differs between versions of Python. What a
seller states is read member by member: each is what it should be, or the document is refused by the member's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Never, TypeVar

from topup.domain.errors import ChargeRefused

# The largest answer of a seller that can be a demand; the real ones have about 1.5 kB.
RAW_BYTES_MAX: Final = 64 * 1024
# The deepest honest answers, a dry run's logs and the schemas in a seller's offer, have about ten.
DEPTH_MAX: Final = 64
# Commas and brackets: some 15,000 logs, or 20,000 rows of usage.
PARTS_MAX: Final = 250_000
# A word of 256 bits has 78, its price in the smallest unit no more.
DIGITS_MAX: Final = 100
EXPONENT_MAX: Final = 400

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b"[]{},"))
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_MARK: Final = b"\xef\xbb\xbf"


class Unreadable(ValueError):
    """It is no JSON document that can be read in one way; the text says what it has or lacks, without quoting it."""


class NoJson(Unreadable):
    """It is no JSON at all, as a page is none."""


class Twice(Unreadable):
    """An object names something twice, so that two readers may read it differently; `name` is what it names."""

    def __init__(self, name: str) -> None:
        super().__init__("a name given twice")
        self.name = name


# What becomes of a name that is given twice: it is refused, it counts where both say the same, or the last one counts.
Repeated = Literal["refused", "same", "last"]


def read(
    raw: bytes,
    *,
    twice: Repeated = "refused",
    integer: Callable[[str], Any] | None = None,
    fraction: Callable[[str], Any] | None = None,
) -> Any:
    """Read a document in UTF-8, with or without a byte order mark: fractions come as Decimal, integers as int.

    `integer` and `fraction` make something else of a number's text.

    Raises:
        Unreadable: it is too deep, has too many parts or too long a number, or is none.
    """
    plain = raw.removeprefix(_MARK)
    _bounded(plain)
    try:
        text = plain.decode("utf-8")  # the only encoding of JSON between systems (RFC 8259, 8.1)
        return json.loads(
            text,
            parse_int=integer or _integer,
            parse_float=fraction or _fraction,
            parse_constant=_no_constant,
            object_pairs_hook=PAIRS[twice],
        )
    except Unreadable:
        raise
    except (ValueError, ArithmeticError, RecursionError, MemoryError):
        raise NoJson("no JSON") from None


def _bounded(raw: bytes) -> None:
    """Refuse what would take the decoder too deep or too long."""
    bare = _TEXT.sub(b"", raw)
    if len(bare.translate(None, _NOT_STRUCTURE)) > PARTS_MAX:
        raise Unreadable(f"more than {PARTS_MAX} parts")
    depth = 0
    for bracket in bare.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH_MAX:
            raise Unreadable(f"parts nested more than {DEPTH_MAX} deep")


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise Unreadable(f"a number of {len(text)} characters")
    return int(text)


def _fraction(text: str) -> Decimal:
    if len(text) > DIGITS_MAX:
        raise Unreadable(f"a number of {len(text)} characters")
    number = Decimal(text)
    if abs(number.adjusted()) > EXPONENT_MAX:
        raise Unreadable("a number beyond all amounts")
    return number


def _no_constant(name: str) -> Never:
    raise Unreadable(name)  # NaN, Infinity or -Infinity, which are no JSON


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise Twice(name)
        members[name] = value
    return members


def _same(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        for name, value in pairs:
            if members[name] != value or type(members[name]) is not type(value):
                raise Twice(name)
    return members


PAIRS: Final[dict[Repeated, Callable[[list[tuple[str, Any]]], dict[str, Any]]]] = {
    "refused": _once,
    "same": _same,
    "last": dict,
}


V = TypeVar("V")
KINDS: Final = {dict: "an object", list: "a list", str: "a text", int: "an integer", bool: "true or false"}


@dataclass(frozen=True)
class Members:
    """An object in what a seller states, and its path there; `remedy` goes with whatever is refused in it.

    Whatever is read from it is what is asked for, or `ChargeRefused` names the member that is missing or another thing.
    """

    values: Mapping[str, Any]
    where: str = ""
    remedy: str = ""

    def refuse(self, name: str, should_be: str) -> Never:
        """Refuse the document for what stands under a name, or does not stand there."""
        was = shown(self.values[name]) if name in self.values else "missing"
        raise ChargeRefused(path(self.where, name), was, should_be, remedy=self.remedy)

    def get(self, name: str, kind: type[V]) -> V | None:
        """Return a member of exactly this type; None only where there is none."""
        value = self.values.get(name)
        if name in self.values and type(value) is not kind:
            self.refuse(name, KINDS[kind])
        return value

    def need(self, name: str, kind: type[V]) -> V:
        """Return a member of exactly this type."""
        value = self.get(name, kind)
        if value is None:
            self.refuse(name, KINDS[kind])
        return value

    def inner(self, name: str, *, where: str = "") -> Members:
        """Return the object under a name; `where` is what it is called when not by all the names before it."""
        return Members(self.need(name, dict), where or path(self.where, name), self.remedy)

    def word(self, name: str) -> str:
        """Return a short text; it is printable, because it goes into the ledger and the log."""
        value = self.need(name, str)
        if not (0 < len(value) <= 200 and value.isprintable()):
            self.refuse(name, "a short text")
        return value

    def units(self, name: str) -> int:
        """Return an amount in token units, below 2^256, which stands there as a text."""
        text = self.need(name, str)
        if not (text.isascii() and text.isdigit() and len(text) <= 78):
            self.refuse(name, "a decimal integer in token units")
        if int(text) >= 2**256:
            self.refuse(name, "below 2^256")
        return int(text)

    def hexed(self, name: str, length: int | None) -> bytes:
        """Return the bytes that stand there in hex; None: of any length up to 1024."""
        raw = unhexed(self.need(name, str), length)
        if raw is None:
            self.refuse(name, f"0x and {length * 2} hex digits" if length is not None else "0x and hex digits")
        return raw


def document(
    raw: bytes,
    where: str = "",
    remedy: str = "",
    *,
    integer: Callable[[str], Any] | None = None,
    fraction: Callable[[str], Any] | None = None,
) -> Any:
    """Read the document of a seller, whose path is `where`, in which no name is given twice; otherwise as `read` does.

    Raises:
        ChargeRefused: it is longer than `RAW_BYTES_MAX`, or none.
    """
    field, was, should_be = where or "answer", f"{len(raw)} bytes", f"at most {RAW_BYTES_MAX} bytes"
    if len(raw) <= RAW_BYTES_MAX:
        try:
            return read(raw, integer=integer, fraction=fraction)
        except Twice as error:
            field, was, should_be = path(where, shown(error.name)[1:-1]), "given twice", "given once"
        except Unreadable as error:
            was, should_be = str(error), "a JSON document of ordinary size"
    raise ChargeRefused(field, was, should_be, remedy=remedy)


def path(where: str, name: str) -> str:
    """Return the whole name of a member."""
    return f"{where}.{name}" if where else name


def shown(value: Any) -> str:
    """Return what stood somewhere as one short line of ASCII."""
    return "null" if value is None else ascii(value)[:80]


def unhexed(value: Any, length: int | None) -> bytes | None:
    """Return the bytes that a text of `0x` and hex digits stands for, in either case; None where it is none."""
    digits = rf"{{{2 * length}}}" if length is not None else "{0,2048}"
    if not isinstance(value, str) or len(value) % 2 or not re.fullmatch(f"0x[0-9a-fA-F]{digits}", value):
        return None
    return bytes.fromhex(value[2:])
