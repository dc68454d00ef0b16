"""What does this JSON say, if it is small, flat and plain enough to be read?

Numbers are never floats, and none has more digits than anything honest. Depth and number of parts are counted before
the decoder sees them: how deep it may go, and what happens beyond that, differs between versions of Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Literal, Never

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
        """Keep the name."""
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
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Twice(name)
        found[name] = value
    return found


def _same(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for name, value in pairs:
            if found[name] != value or type(found[name]) is not type(value):
                raise Twice(name)
    return found


PAIRS: Final[dict[Repeated, Callable[[list[tuple[str, Any]]], dict[str, Any]]]] = {
    "refused": _once,
    "same": _same,
    "last": dict,
}
