"""Is JSON of others read exactly, or refused before it costs anything?"""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.json_document import DEPTH_MAX, DIGITS_MAX, PARTS_MAX, Repeated, Twice, Unreadable, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**256), 2**256) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN, st.booleans(), st.booleans())
def test_what_is_written_is_read(value: Any, ascii_only: bool, marked: bool) -> None:  # noqa: FBT001
    """Every document of ordinary size comes back as it was, with or without a byte order mark, escaped or not."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    raw = text.encode("utf-8", "surrogatepass") if ascii_only else text.encode()
    assert read(b"\xef\xbb\xbf" * marked + raw) == value


@given(st.binary(max_size=300) | st.text('[]{}",:\\0123456789.eE-truefalsn \ufeff\x00', max_size=300).map(str.encode))
def test_any_bytes_are_read_as_the_decoder_would_or_refused(raw: bytes) -> None:
    """What comes out is what Python's own decoder says of it; nothing else is raised than that it is unreadable."""
    try:
        found = read(raw, twice="last")
    except Unreadable:
        return
    assert found == json.loads(raw.removeprefix(b"\xef\xbb\xbf").decode(), parse_float=Decimal)


@pytest.mark.parametrize("text", ["0.1", "100.1000000000000000055511151231", "1E+2", "-0.0", "1e-30"])
def test_a_fraction_is_its_digits(text: str) -> None:
    """No float on the way."""
    (found,) = read(f"[{text}]".encode())
    assert isinstance(found, Decimal)
    assert str(found) == str(Decimal(text))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nested"),
        (b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1), "nested"),
        (b"[" * 8_000_000, "parts"),
        (b'[{"a":' * 10_000, "nested"),
        (b"[" + b"1," * PARTS_MAX + b"1]", "parts"),
        (b"1" * (DIGITS_MAX + 1), "a number of"),
        (b"9" * 5_000_000, "a number of"),
        (b"0." + b"9" * 5000, "a number of"),
        (b"1e999999", "beyond"),
        (b"1e-999999", "beyond"),
        (b"1e" + b"9" * 50, "no JSON"),
        (b"NaN", "NaN"),
        (b"-Infinity", "Infinity"),
        (b"", "no JSON"),
        (b"\xff\xfe[\x00]\x00", "no JSON"),
        ("[1]".encode("utf-16"), "no JSON"),
        (b'"\xed\xa0\x80"', "no JSON"),
        (b"<html>", "no JSON"),
        (b'{"a":1,"a":1}', "a name given twice"),
        (b"\xef\xbb\xbf\xef\xbb\xbf[]", "no JSON"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_unreadable_is_told_without_being_quoted(raw: bytes, words: str) -> None:
    """Too deep, too many parts, too many digits, or no JSON: a short sentence, whatever was sent."""
    with pytest.raises(Unreadable) as error:
        read(raw)
    assert words in str(error.value)
    assert len(str(error.value)) < 60


def test_as_much_as_it_may_be_is_read() -> None:
    """At the limit of depth, ten thousand logs as a provider sends them, and texts, in which nothing nests."""
    found = read(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    for _ in range(DEPTH_MAX - 1):
        (found,) = found
    assert found == []
    log = {"address": "0x" + "ab" * 20, "topics": ["0x" + "cd" * 32] * 4, "data": "0x" + "00" * 96}
    logs = [{**log, "blockNumber": "0x1", "logIndex": hex(n), "removed": False} for n in range(10_000)]
    assert read(json.dumps({"id": 1, "result": logs}).encode()) == {"id": 1, "result": logs}
    text = '[{"\\",' * (PARTS_MAX // 4)
    assert read(json.dumps([text, text]).encode()) == [text, text]


@pytest.mark.parametrize("limit", [150, 1000, 10_240])
def test_depth_does_not_depend_on_the_recursion_limit(limit: int) -> None:
    """Whatever recursion the interpreter allows, the same documents are read and the same are refused, and it lives."""
    code = (
        f"import sys; sys.setrecursionlimit({limit})\n"
        "from topup.domain.json_document import read, Unreadable, DEPTH_MAX as D\n"
        "for depth in (D, D + 1, 1000, 10_000, 1_000_000):\n"
        "    try: read(b'{\"a\":' * depth + b'1' + b'}' * depth); print('read')\n"
        "    except Unreadable: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["read"] + ["refused"] * 4


@pytest.mark.parametrize(
    ("twice", "raw", "found"),
    [
        ("same", b'{"a":1,"a":1}', {"a": 1}),
        ("same", b'{"a":1,"a":2}', None),
        ("same", b'{"a":1,"a":true}', None),
        ("last", b'{"a":1,"a":2}', {"a": 2}),
        ("refused", b'[{"a":[],"a":[]}]', None),
    ],
)
def test_a_name_given_twice_counts_as_the_reader_says(twice: Repeated, raw: bytes, found: Any) -> None:
    """Refused everywhere; where only one reader reads, what is said twice alike may count."""
    if found is None:
        with pytest.raises(Twice) as error:
            read(raw, twice=twice)
        assert error.value.name == "a"
    else:
        assert read(raw, twice=twice) == found
