"""Which words must not be said? Finds our secrets in texts of others, however they are written there.

Whoever is given a secret may give it back: plain, in capitals, as hex, as base64, percent-encoded, escaped as in JSON,
cut, or in pieces. A text is therefore read in several ways, and wherever a stretch of a secret's writing stands in one
of them, that place is masked in the text itself.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

# Shorter secrets cannot be told from ordinary words, and nothing that opens anything is shorter.
LENGTH_MIN: Final = 6
# So many characters of one of a secret's writings are taken for it: what is shorter gives too little of it away.
PIECE: Final = 10
MASK: Final = "…"
# In what is refused for it, chance must not write one: ten digits in a row come up, sixteen do not.
WHOLE_MIN: Final = 16

# A run of backslashes is looked along once, from its beginning: 64 kB of them take no longer than anything else.
_ESCAPED: Final = re.compile(
    r"%([0-9a-fA-F]{2})|(?<!\\)\\++u([0-9a-fA-F]{4})|(?<!\\)\\++x([0-9a-fA-F]{2})|&#([0-9]{1,7});|&#[xX]([0-9a-fA-F]{1,6});"
    r"|(&(?:amp|quot|apos|lt|gt);)|\\([\"\\/'bfnrt])"
)
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CAPITALS: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_BASE64_OF_URLS: Final = str.maketrans("-_", "+/")
_HEX: Final = re.compile("(?:0[xX])?([0-9a-fA-F]{32,})")
_RUN: Final = re.compile(b"\1+")
# A text may have been escaped twice, as JSON within JSON is, and hardly more often.
ESCAPES_MAX: Final = 3


class Masker:
    """Knows some secrets; of what they are it shows nothing, not even in its `repr`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Keep every stretch of every way in which one of these may be written."""
        folded, exact = set[str](), set[str]()
        # Those that are too short for chance to be ruled out by length are looked for as a whole.
        self._short: set[str] = set()
        for secret in set(secrets):
            if len(secret) >= LENGTH_MIN:
                pending, strict = _writings(secret)
                folded.update(piece for writing in pending for piece in _pieces(writing.translate(_CAPITALS)))
                exact.update(piece for writing in strict for piece in _pieces(writing))
                self._short.update(writing.translate(_CAPITALS) for writing in pending if len(writing) < WHOLE_MIN)
        # Each with the lengths of its pieces, and how a text has to be written to be looked up in it.
        self._known = tuple(
            (pieces, sorted({len(piece) for piece in pieces}), alphabet)
            for pieces, alphabet in ((folded, _CAPITALS), (exact, _BASE64_OF_URLS))
        )

    def __repr__(self) -> str:
        return "Masker()"

    def __call__(self, text: str) -> str:
        """Return the text with everything masked that is a secret, or a telling piece of one."""
        shown, at = [], 0
        for first, last in self._found(text, 1):
            shown += [text[at:first], MASK]
            at = last
        return "".join(shown) + text[at:] if shown else text

    def holds(self, raw: bytes) -> bool:
        """Tell whether a secret stands in what is to be kept or sent back as it came; base64 is looked into."""
        for text in _opened(raw.decode("latin-1"), 2):
            if any(True for _ in self._found(text, WHOLE_MIN)):
                return True
            views = [view.translate(_CAPITALS) for view, _, _ in _views(text)] if self._short else []
            if any(short in view for short in self._short for view in views):
                return True
        return False

    def _found(self, text: str, least: int) -> Iterator[tuple[int, int]]:
        """Yield first and last of each place in a text that is written with at least so many signs of a secret."""
        hit = bytearray(len(text))
        for view, starts, ends in _views(text) if self._known[0][0] else ():
            for pieces, sizes, alphabet in self._known:
                read = view.translate(alphabet)
                ours = bytearray(len(read))
                for size in sizes:
                    for at in range(len(read) - size + 1):
                        if read[at : at + size] in pieces:
                            ours[at : at + size] = b"\1" * size
                for run in _RUN.finditer(ours):
                    if run.end() - run.start() >= least:
                        first, last = starts[run.start()], ends[run.end() - 1]
                        hit[first:last] = b"\1" * (last - first)
        return (run.span() for run in _RUN.finditer(hit))


NOTHING: Final = Masker(())


def of_url(url: str) -> list[str]:
    """Return what of a URL may be a key: user, password, and each part of path and query that is long enough."""
    parts = urlsplit(url)
    said = [parts.username or "", parts.password or "", *re.split(r"[/?&=]", f"{parts.path}?{parts.query}")]
    return [text for part in said for text in {part, unquote(part)} if len(text) >= 8]


def _writings(secret: str) -> tuple[list[str], list[str]]:
    """Return how a secret may be written: where capitals do not matter, and where they do."""
    raws, plain = [secret.encode("utf-8", "surrogatepass")], [secret]
    digits = _HEX.fullmatch(secret)
    if digits and len(digits[1]) % 2 == 0:
        plain = [digits[1], str(int(digits[1], 16))]
        raws.append(bytes.fromhex(digits[1]))
    # Bytes that are looked at one by one, as they are within percent signs, are Latin-1.
    plain += [raws[0].decode("latin-1")]
    pending = ["".join(c for c in writing if _counts(c)) for writing in plain] + [raw.hex() for raw in raws]
    return [text for text in pending if len(text) >= LENGTH_MIN], [text for raw in raws for text in _aligned(raw)]


def _aligned(raw: bytes) -> Iterator[str]:
    """Yield what base64 makes of some bytes wherever they stand: without what depends on their neighbours."""
    for before, first in ((0, 0), (1, 2), (2, 3)):
        written = base64.b64encode(bytes(before) + raw).decode()
        yield written[first : (before + len(raw)) * 8 // 6]


def _pieces(writing: str) -> Iterator[str]:
    size = min(PIECE, len(writing))
    yield from (writing[at : at + size] for at in range(len(writing) - size + 1))


def _counts(c: str) -> bool:
    """Tell whether a character counts: with a line break, a blank or a sign without width in it, a secret is one."""
    return c.isprintable() and c != " "


# A text with where each of its characters begins and ends in the one it was read from.
_View = tuple[str, Sequence[int], Sequence[int]]


def _views(text: str) -> Iterator[_View]:
    """Yield a text as it stands, then with its escapes undone, layer by layer."""
    view: _View = (text, range(len(text)), range(1, len(text) + 1))
    for _ in range(ESCAPES_MAX + 1):
        shown, starts, ends = view
        kept = [at for at, c in enumerate(shown) if _counts(c)]
        if len(kept) == len(shown):
            yield view
        else:
            yield "".join(shown[at] for at in kept), [starts[at] for at in kept], [ends[at] for at in kept]
        undone = _undone(view)
        if undone is None:
            return
        view = undone


def _undone(view: _View) -> _View | None:
    text, starts, ends = view
    shown, firsts, lasts, at = list[str](), list[int](), list[int](), 0
    for escape in _ESCAPED.finditer(text):
        begin, end = escape.span()
        shown += [text[at:begin], _meant(escape)]
        firsts += [*starts[at:begin], starts[begin]]
        lasts += [*ends[at:begin], ends[end - 1]]
        at = end
    return ("".join(shown) + text[at:], [*firsts, *starts[at:]], [*lasts, *ends[at:]]) if shown else None


def _meant(escape: re.Match[str]) -> str:
    for group, base in ((1, 16), (2, 16), (3, 16), (4, 10), (5, 16)):
        if escape[group]:
            number = int(escape[group], base)
            return chr(number) if number < 0x110000 else "?"
    if escape[6]:
        import html  # its list of two thousand names is rarely wanted, and a daemon would keep it

        return html.unescape(escape[6])
    return _LETTERS.get(escape[7], escape[7])


_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}")


def _opened(text: str, depth: int) -> Iterator[str]:
    """Yield a text, and what stands in it as base64 of either alphabet, down to a depth."""
    yield text
    if depth == 0:
        return
    for run in _BASE64.findall(text):
        letters = run.translate(_BASE64_OF_URLS)
        inner = base64.b64decode(letters[: len(letters) - (len(letters) % 4 == 1)] + "==")
        yield from _opened(inner.decode("latin-1"), depth - 1)
