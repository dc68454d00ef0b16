"""What does it look like when it runs? Draws the README's picture from a run of the sandbox: `python -m tests.picture`.

The command is run as a newcomer runs it. Every line that it printed stands in docs/sandbox.svg as it was printed.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tests.tools import BIN, ROOT, outside

PICTURE: Final = ROOT / "docs" / "sandbox.svg"
COMMAND: Final = ("topup", "sandbox")
PROMPT: Final = "$ "
# The size of a letter is an average over the fonts that a browser may choose; each line is stretched to fit.
LETTER, LINE, MARGIN, BAR = 7.25, 19, 18, 30
INK, PALE, GREEN, AMBER, GROUND, FRAME = "#d7dde5", "#8b97a5", "#7ee0a1", "#f0c674", "#12181f", "#2b3541"


def run() -> list[str]:
    """Run the sandbox in an environment without settings, and return the lines that it printed."""
    done = subprocess.run([BIN / COMMAND[0], *COMMAND[1:]], env=outside(), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def colour(line: str) -> str:
    """Return a line's colour: what was done is green, a warning amber, another reading of the credits pale."""
    if line.startswith((PROMPT, "books ")) or "  done:" in line:
        return GREEN
    if "  WARNING " in line:
        return AMBER
    return PALE if "  credits " in line and "posted" not in line else INK


def drawn(lines: Sequence[str]) -> str:
    """Return the lines as an SVG picture of a terminal."""
    every = [PROMPT + " ".join(COMMAND), *lines]
    width = round(max(map(len, every)) * LETTER) + 2 * MARGIN
    height = BAR + len(every) * LINE + MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="topup sandbox buys credits once">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}" stroke="{FRAME}"/>',
        *(f'<circle cx="{MARGIN + 16 * n}" cy="15" r="5" fill="{FRAME}"/>' for n in range(3)),
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="12">',
    ]
    for number, line in enumerate(every):
        if line:
            fit = f'textLength="{len(line) * LETTER:g}" lengthAdjust="spacingAndGlyphs" xml:space="preserve"'
            place = f'x="{MARGIN}" y="{BAR + (number + 1) * LINE - 5}"'
            parts.append(f'<text {place} {fit} fill="{colour(line)}">{escape(line)}</text>')
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def main(picture: Path = PICTURE) -> int:
    """Run, draw, and say where the picture is."""
    picture.write_text(drawn(run()), encoding="utf-8")
    print(f"wrote {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
