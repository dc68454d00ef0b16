"""What stands out in the lines of a result on a terminal? Nothing where somebody has asked for no colour (NO_COLOR)."""

import os
import re
import sys
from collections.abc import Iterable
from typing import Final

import typer

from topup.wire.clean import escaped

# The beginning of a line that stands out, and as what colour: whatever others have said stands behind it.
STYLES: Final = (
    (re.compile(r"^account +\S+: FUNDED$|^(ok)(?=  )"), "green"),
    (re.compile(r"^account +\S+: LOW, below its floor$|^(warn|skip)(?=  )"), "yellow"),
    (re.compile(r"^account +\S+: (EMPTY, and|nothing is known).*$|^(FAIL|wrong)(?=  )"), "red"),
)


def coloured() -> bool:
    """Tell whether the output is a terminal that takes colour, and nobody has asked for none."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return not plain and sys.stdout is not None and sys.stdout.isatty()


def printed(lines: Iterable[str]) -> str:
    """Return lines as they are printed: what could steer a terminal escaped first, then ours in colour."""
    safe = [escaped(line, "\n\t") for line in lines]
    return "\n".join(map(_styled, safe) if coloured() else safe)


def _styled(line: str) -> str:
    for beginning, colour in STYLES:
        if (found := beginning.match(line)) is not None:
            return typer.style(found[0], fg=colour, bold=True) + line[found.end() :]
    return line
