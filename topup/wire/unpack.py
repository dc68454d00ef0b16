"""What do packed bytes hold, as far as they may unpack? Gzip and deflate, of servers that pack though nobody asked.

What comes out is counted while it comes out: a few bytes could become gigabytes before anybody looks at their size.
"""

import zlib
from typing import Final

GZIP: Final = frozenset({"gzip", "x-gzip"})
DEFLATE: Final = "deflate"
# zlib's names for the formats: a gzip member, a zlib stream, and deflate without either's head.
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_BARE_BITS: Final = -zlib.MAX_WBITS
# Several members one behind the other are one file of gzip; an honest server writes one.
MEMBERS_MAX: Final = 16


class Packed(ValueError):
    """These bytes are not unpacked; the text says why, as what the server did."""


class Unpacker:
    """Unpacks one answer, piece by piece; `bytes_max` is what may come out in all."""

    def __init__(self, encoding: str, bytes_max: int) -> None:
        """Choose by the header `content-encoding`; `Packed` where it names several, or another than gzip or deflate."""
        named = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
        if len(named) > 1 or (named and named[0] not in GZIP | {DEFLATE}):
            raise Packed("answered in an encoding nobody asked for")
        self._plain = not named
        self._bits = _GZIP_BITS if named and named[0] in GZIP else zlib.MAX_WBITS
        self._stream = zlib.decompressobj(self._bits)
        self._left = self._takes = bytes_max
        self._too_long = Packed(f"answered with more than {bytes_max} bytes")
        self._members = 1
        # The first bytes tell which format it is, and may come one by one.
        self._begun = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what a piece unpacks to; `Packed` where it is damaged, or more comes out than may."""
        self._takes -= len(piece)
        if self._takes < 0:  # packed bytes may go on for ever without unpacking to anything
            raise self._too_long
        if self._plain:
            return piece
        if len(self._begun) < 2:
            self._begun, piece = self._begun + piece, b""
            if len(self._begun) >= 2:
                piece = self._begun
                if self._bits == zlib.MAX_WBITS and (piece[0] & 15 != 8 or int.from_bytes(piece[:2], "big") % 31):
                    # Some servers leave zlib's head out of what they call deflate.
                    self._bits = _BARE_BITS
                    self._stream = zlib.decompressobj(self._bits)
        out = bytearray()
        while piece:
            if self._stream.eof:
                self._next()
            try:
                out += self._stream.decompress(piece, self._left + 1)
            except zlib.error:
                raise Packed("answered with packed bytes that cannot be unpacked") from None
            if len(out) > self._left:
                raise self._too_long
            # Past its end it has taken nothing more; before that, what it did not take is more than may come out.
            piece = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._left -= len(out)
        return bytes(out)

    def end(self) -> None:
        """Say that nothing more comes; `Packed` where the bytes end in the middle."""
        if self._begun and not self._stream.eof:
            raise Packed("answered with packed bytes that end too early")

    def _next(self) -> None:
        self._members += 1
        if self._bits != _GZIP_BITS or self._members > MEMBERS_MAX:
            raise Packed("answered with packed bytes that go on after their end")
        self._stream = zlib.decompressobj(self._bits)
