"""What can every seller do wrong that carries payments to the chain? Its answers and what comes of them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from topup.domain.errors import Exit
from topup.sandbox.faults import Spent

SETTLED: Final = "settled-"  # Before the name of an answer: it is given after settling, not instead.
HUGE_TEXT: Final = 256 * 1024  # More than HTTP libraries read of a head.
NOT_SERVED: Final = MappingProxyType(
    {"not-found-404": (404, "Not Found"), "not-implemented-501": (501, "Not Implemented")}
)

Outcome = tuple[str, Exit, Spent]  # The last fields that `faults.Fault` must have.
REFILLED: Final[Outcome] = ("refilled", Exit.OK, "one")
WAITING: Final[Outcome] = ("waiting", Exit.LATER, "zero")
REFUSED: Final[Outcome] = ("refused", Exit.PERSON, "zero")
GONE: Final[Outcome] = ("gone", Exit.PERSON, "zero")
UNCREDITED: Final[Outcome] = ("uncredited", Exit.MONEY_MAY_HAVE_MOVED, "one")

# What the seller does, for the names of `WIRE_FAULTS`.
WIRE_ANSWERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gone-410": "says that it is gone for good",
        "unauthorized-401": "does not know the key",
        "forbidden-403": "wants another kind of key",
        "rate-limited-429": "asks for patience",
        "server-error-500": "fails",
        "bad-gateway-502": "lets a proxy answer, in HTML",
        "unavailable-503": "is unavailable and says when to return",
        "time-out": "never answers",
        "reset": "cuts the connection",
        "trickle": "answers one byte at a time, without end",
        "html-200": "answers 200 with a web page",
        "truncated-json": "ends in the middle of the document",
        "short-body": "sends less than it announced",
        "null-body": "answers null",
        "redirect-302": "points to another server",
        "oversized": "answers with 64 MB",
        "gzip-bomb": "answers with what unpacks to 64 MB",
    }
)
# What comes of such an answer to a question for the price; of all others: `WAITING`.
PRICE_OUTCOMES: Final[Mapping[str, Outcome]] = MappingProxyType(
    {"gone-410": GONE, "unauthorized-401": REFUSED, "forbidden-403": REFUSED}
)
