"""Do packed answers unpack to what was packed, and to no more than may come out?"""

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topup.wire.unpack import MEMBERS_MAX, Packed, Unpacker


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("", lambda data: data),
    "identity": ("Identity", lambda data: data),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare": ("deflate", bare),
    "members": ("gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
}


def unpacked(encoding: str, raw: bytes, most: int, size: int = 5) -> bytes:
    unpacker = Unpacker(encoding, most)
    found = b"".join(unpacker.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    unpacker.end()
    return found


@given(st.binary(max_size=400), st.sampled_from(sorted(PACKERS)), st.integers(1, 200))
def test_what_was_packed_comes_out(data: bytes, name: str, size: int) -> None:
    """Each format, in pieces of any size."""
    encoding, pack = PACKERS[name]
    assert unpacked(encoding, pack(data), 2000, size) == data


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", ""]), st.integers(0, 200), st.integers(1, 50))
def test_no_bytes_do_anything_but_unpack_or_be_refused(raw: bytes, encoding: str, most: int, size: int) -> None:
    """Whatever is sent, what comes out is no longer than it may be."""
    with contextlib.suppress(Packed):
        assert len(unpacked(encoding, raw, most, size)) <= most


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_the_limit_is_exact(name: str) -> None:
    """As much as may come out does, one byte more does not."""
    encoding, pack = PACKERS[name]
    assert unpacked(encoding, pack(b"a" * 1000), 1000) == b"a" * 1000
    with pytest.raises(Packed, match="more than 1000 bytes"):
        unpacked(encoding, pack(b"a" * 1001), 1000)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bare])
def test_a_bomb_costs_what_may_come_out(pack: Callable[[bytes], bytes]) -> None:
    """Of 32 MiB packed into 32 KiB no more than the limit is ever held."""
    bomb = pack(b"\0" * 32 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(Packed, match="more than 65536"):
            unpacked("gzip" if pack is gzip.compress else "deflate", bomb, 65536, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


# The ids are words: bytes of gzip carry the second in which they were packed, and two workers would
# then name the same test differently.
REFUSED = {
    "an unknown format": ("br", b"", "an encoding nobody asked for"),
    "another unknown format": ("zstd", b"", "an encoding nobody asked for"),
    "two formats": ("gzip, gzip", gzip.compress(b"a"), "an encoding nobody asked for"),
    "a cut in the checksum": ("gzip", gzip.compress(b"a" * 50)[:-1], "end too early"),
    "a cut before the checksum": ("gzip", gzip.compress(b"a" * 50)[:-8], "end too early"),
    "plain text": ("gzip", b"plain text", "cannot be unpacked"),
    "more after the end": ("deflate", zlib.compress(b"a") + b"more", "go on after their end"),
    "too many members": ("gzip", gzip.compress(b"") * (MEMBERS_MAX + 1), "go on after their end"),
    "a wrong checksum": ("gzip", gzip.compress(b"a")[:-8] + b"\0" * 8, "cannot be unpacked"),
}


@pytest.mark.parametrize(("encoding", "raw", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_unpacked_whole_is_refused(encoding: str, raw: bytes, words: str) -> None:
    """An unknown format, two of them, a cut, damage, and what follows the end."""
    with pytest.raises(Packed, match=words):
        unpacked(encoding, raw, 1000)


def test_bytes_that_unpack_to_nothing_end_all_the_same() -> None:
    """Empty blocks could be sent for ever; as many bytes are taken as may come out."""
    empty = zlib.compressobj(wbits=31)
    head = empty.compress(b"") + b"".join(empty.flush(zlib.Z_FULL_FLUSH) for _ in range(3))
    with pytest.raises(Packed, match="more than 100 bytes"):
        unpacked("gzip", head + b"\x00\x00\x00\xff\xff" * 40, 100)
