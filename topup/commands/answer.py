"""What does a command answer? A document for programs, the same in lines for a person, and an exit code.

What a command cannot answer it raises as a `TopupError`, and the command line prints that in its place: in lines on
standard error, and with `--json` as one document, too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from topup.app.output import document, write
from topup.commands.colour import printed
from topup.domain import errors
from topup.domain.money import plain

# How a sentence begins that is about an option, a variable or a setting.
FIELD: Final = re.compile(r"--[a-z-]+|TOPUP_[A-Z0-9_]+|[a-z_0-9]+(?:\.[a-z_0-9]+)+|(?:mode|account|state_dir|labels)\b")


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


def refused(error: errors.TopupError) -> dict[str, Any]:
    """Return an error of ours as the document of a command that could not answer."""
    named = FIELD.match(str(error))
    field = getattr(error, "field", None) or (named[0] if named else None)
    return refusal(code_of(type(error)), str(error), error.exit_code, field=field, remedy=error.remedy)


def code_of(error: type[errors.TopupError]) -> str:
    """Return the stable code of an error: its name in topup/domain/errors.py, or that of its nearest ancestor there."""
    known = next(one for one in error.__mro__ if one.__module__ == errors.__name__)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", known.__name__).lower()


def refusal(code: str, message: str, exit_code: int, *, field: str | None = None, remedy: str = "") -> dict[str, Any]:
    """Return the document of a command that could not answer; `field` and `remedy` are null where there is none."""
    error = {"code": code, "message": message, "field": field, "remedy": remedy or None, "exit_code": int(exit_code)}
    return {"schema": 1, "error": error, "exit_code": int(exit_code)}


def deliver(answer: Answer, *, as_json: bool) -> int:
    """Print an answer, do what remains to be done, and return the exit code."""
    if answer.file is not None:
        write(answer.file)
    elif as_json and answer.document:
        document(answer.document)
    elif answer.lines:
        write(printed(answer.lines) + "\n")
    return answer.exit if answer.then is None else answer.then()
