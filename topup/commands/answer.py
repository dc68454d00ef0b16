"""What does a command answer? A document for programs, the same in lines for a person, and an exit code.

What a command cannot answer it raises as a `TopupError`, and the command line prints that in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from topup.app.output import document, say, write
from topup.domain.money import plain


@dataclass(frozen=True)
class Answer:
    """What one command has to say, and the exit code that it leaves with.

    `document` is what `--json` prints; it is empty where the command speaks in lines alone. `file` is a text in another
    format, which is written as it is, in place of both. `then` does what remains when the answer has been printed, and
    returns the exit code in place of `exit`.
    """

    document: dict[str, Any]
    lines: Sequence[str]
    exit: int
    file: str | None = None
    then: Callable[[], int] | None = None


def shown(value: object) -> str | None:
    """Return a value as documents hold it: as text, so that no reader rounds it, and null where there is none."""
    return None if value is None else plain(value) if isinstance(value, Decimal) else str(value)


def labelled(width: int, rows: Mapping[str, str | None]) -> list[str]:
    """Return a line for each row, its label in a column of its own; a row that says nothing is left out."""
    return [f"{label:<{width}} {text}" for label, text in rows.items() if text]


def to_do(remedy: str) -> str:
    """Return what a person should do, as the end of a sentence; nothing where there is nothing to do."""
    return f"; to do: {remedy}" if remedy else ""


def deliver(answer: Answer, *, as_json: bool) -> int:
    """Print an answer, do what remains to be done, and return the exit code."""
    if answer.file is not None:
        write(answer.file)
    elif as_json and answer.document:
        document(answer.document)
    elif answer.lines:
        say("\n".join(answer.lines))
    return answer.exit if answer.then is None else answer.then()
