"""How does JSON pass through us as it was written? Numbers keep their text, and are written again as they stood.

A seller's document may hold what is none of our business: an example price of 22.5, a schema, a description. Where a
protocol wants it echoed, it is echoed to the digit; nothing is reckoned with a number that is carried so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Integers of at most so many characters are read as integers: units of a token have 78.
INTEGER_LENGTH_MAX: Final = 80


@dataclass(frozen=True)
class Numeral:
    """A number as it stood in a document: carried, never reckoned with."""

    text: str

    def __repr__(self) -> str:
        return self.text


def integer(text: str) -> int | Numeral:
    """Return an integer that is written as it was read; another one, such as -0, stays as it stood."""
    if len(text) > INTEGER_LENGTH_MAX:
        return Numeral(text)
    number = int(text)
    return number if str(number) == text else Numeral(text)


def write(value: Any) -> str:
    """Return JSON on one line; `value` may hold numerals. A text in it that is none fails when it is encoded."""
    if isinstance(value, Numeral):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(name)}:{write(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(write, value)) + "]"
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
