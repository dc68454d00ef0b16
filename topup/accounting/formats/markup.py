"""What is text in a page, and what is markup?

Whatever is not `Html` is text, and is escaped where it is put in: names that others chose cannot become markup.
"""

from collections.abc import Iterable
from html import escape

from topup.accounting.formats.text import printable


class Html(str):
    """Markup. What is joined with other text by `+` or in an f-string is text again until it is said otherwise."""

    __slots__ = ()


def html(value: str) -> Html:
    """Return text as markup that shows it on one line, and markup as it is."""
    return value if isinstance(value, Html) else Html(escape(printable(value)))


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Return texts and markup one after the other."""
    return Html(html(between).join(html(part) for part in parts))


def element(name: str, *inside: str, **attributes: str) -> Html:
    """Return an element around texts and markup; `class_` is its class, `data_label` its data-label, "" is no value."""
    named = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value)
    said = "".join(f' {key}="{html(value)}"' for key, value in named)
    return Html(f"<{name}{said}>{joined(inside)}</{name}>")
