"""What may others' words become where we say them?

That is in a sentence, a field of the log, a text in the ledger, a line on a terminal. Only what is said passes here:
what is judged, echoed, hashed or signed passes unaltered, or is refused whole.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

# The longest text of others that stands in one of our sentences.
CHARS_MAX: Final = 300
# The longest sentence, whoever has a part in it.
SENTENCE_MAX: Final = 500
# More is not even looked at: a megabyte of revert text has said what it has to say by then.
LOOKED_AT_MAX: Final = 4096
# Longer than a hash: whole transactions and keys, never what identifies one.
LONG_HEX: Final = re.compile(r"0[xX][0-9a-fA-F]{65,}")


def clean(text: object, chars: int = CHARS_MAX, *, hide: Callable[[str], str] | None = None) -> str:
    """Return a text of others as part of one of ours: on one line, printable, masked by `hide`, and cut.

    Control characters, escape sequences, what changes the direction of writing, what has no width, and halves of
    characters become question marks: nothing is dropped, so that no two texts that differ come to look like a third.
    """
    # Masked before it is cut: half a secret is none that could be found any more.
    said = str(text)[:LOOKED_AT_MAX]
    if hide is not None:
        said = hide(said)
    said = LONG_HEX.sub("0x…", said)
    said = "".join(c if c.isprintable() else " " if c in "\t\n\r" else "?" for c in said)
    return said if len(said) <= chars else said[: chars - 1] + "…"


def escaped(text: str, kept: str = "") -> str:
    """Return a text whole, with what would command a terminal, end a line or fit no encoding spelt out, but `kept`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def joined(parts: Sequence[str], chars: int = SENTENCE_MAX) -> str:
    """Return what several have said as one sentence: each keeps its beginning, where it is named."""
    if len(whole := "; ".join(parts)) <= chars:
        return whole
    room = max(1, (chars - 2 * len(parts)) // len(parts))
    return "; ".join(clean(part, room) for part in parts)[:chars]
