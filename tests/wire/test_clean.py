"""Are others' words fit to be said, and none of our secrets among them, however it is written?"""

import base64
import json
import sys
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from topup.domain.errors import ApiUnknown, ChainUnknown, ChargeRefused
from topup.wire.clean import CHARS_MAX, SENTENCE_MAX, clean, joined
from topup.wire.reading import reading
from topup.wire.secrets import MASK, PIECE, WHOLE_MIN, Masker, of_url

KEY = "sk-or-v1-" + "5ec7e79a" * 8
PRIVATE = "0x" + "c0ffee5ec7e70123" * 4
PASSWORD = "correct horse battery staple"
PATH = "alchemyKey0123456789abcdefABCDEF"
SECRETS = (KEY, PRIVATE, PASSWORD, PATH)
MASKS = Masker(SECRETS)
ANY = st.text(st.characters(), max_size=60)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(c):04X}" for c in text)


# Every way of writing a secret that masking promises to see through.
WRITINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "capitals": str.swapcase,
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: "0X" + s.encode().hex().upper(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64, one before": lambda s: base64.b64encode(b"?" + s.encode() + b"?").decode(),
    "base64, two before": lambda s: base64.urlsafe_b64encode(b"\xff\xfe" + s.encode()).decode(),
    "percent": lambda s: "".join(f"%{b:02x}" for b in s.encode()),
    "some percent": lambda s: "".join(f"%{b:02X}" if n % 3 == 0 else chr(b) for n, b in enumerate(s.encode())),
    "percent twice": lambda s: quote("".join(f"%{b:02X}" for b in s.encode())),
    "JSON": escaped,
    "JSON twice": lambda s: json.dumps(escaped(s)),
    "entities": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "bytes of a log": lambda s: "".join(f"\\x{b:02x}" for b in s.encode()),
    "broken lines": lambda s: "\n".join(s[at : at + 7] for at in range(0, len(s), 7)),
    "without width": "\u200b".join,
    "cut": lambda s: s[: len(s) * 2 // 3],
    "the end of it": lambda s: s[len(s) // 3 :],
}


@pytest.mark.parametrize("writing", sorted(WRITINGS))
@pytest.mark.parametrize("secret", SECRETS)
def test_no_writing_of_a_secret_survives(secret: str, writing: str) -> None:
    """Within a sentence, each writing of each secret is masked: what is left holds no piece of it worth anything."""
    written = WRITINGS[writing](secret)
    shown = MASKS(f"before it, {written} - is how it ends")
    assert MASK in shown
    assert shown.startswith("before it, ")
    assert shown.endswith(" - is how it ends")
    assert not any(written[at : at + 2 * PIECE] in shown for at in range(len(written) - 2 * PIECE + 1))


@given(ANY, ANY, st.sampled_from(SECRETS), st.sampled_from(sorted(WRITINGS)))
def test_whatever_stands_beside_it_a_secret_is_found(before: str, after: str, secret: str, writing: str) -> None:
    """Neighbours of any kind do not hide it, and nothing of what is said afterwards contains it."""
    assume(writing not in ("cut", "the end of it"))
    written = WRITINGS[writing](secret)
    shown = clean(f"{before} {written} {after}", 400, hide=MASKS)
    assert written not in shown
    assert secret not in shown
    assert MASKS(shown) == shown, "masking again finds nothing more"


@given(ANY)
@example("sk-or-v1-")
@example("0x" + "ab" * 32)
def test_what_holds_no_secret_passes_unaltered(text: str) -> None:
    """Masking leaves every other text as it is, byte for byte."""
    assert MASKS(text) == text
    assert not MASKS.holds(text.encode("utf-8", "surrogatepass"))


def test_the_raw_key_is_known_as_bytes_and_as_a_number() -> None:
    """A private key may come back as base64 of its bytes, or in decimal."""
    raw = bytes.fromhex(PRIVATE[2:])
    for written in (base64.b64encode(raw).decode(), base64.b64encode(b"a" + raw).decode(), str(int(PRIVATE, 16))):
        assert len(MASKS(written)) < 5, written
    # The masker shows nothing of itself, not even where it is printed.
    assert repr(MASKS) == "Masker()"


def test_a_short_stretch_is_masked_and_refuses_nothing() -> None:
    """Ten digits in a row may come up by chance in what is kept; what is said gives up no more than that."""
    stretch = KEY[20 : 20 + WHOLE_MIN - 1]
    assert MASKS(stretch) == MASK
    assert not MASKS.holds(stretch.encode())
    assert MASKS.holds(KEY[20 : 20 + WHOLE_MIN].encode())
    # What chance could write in pieces of a short key is refused only where all of it stands there.
    short = Masker(["sk-secret"])
    assert short.holds(b'{"description":"you said Bearer SK-Secret"}')
    assert short.holds(base64.b64encode(b"you said sk-secret, did you not?"))
    assert not short.holds(b"sk-secre and sk-or")
    assert Masker(["short"])("short") == "short", "what is no longer than an ordinary word is none"


def test_a_secret_is_found_behind_any_number_of_backslashes() -> None:
    """A run of them is one escape, however often it was escaped; one that ends in nothing hides nothing."""
    for backslashes in (1, 2, 3, 60):
        written = "".join("\\" * backslashes + f"u{ord(c):04x}" for c in KEY)
        assert MASKS(f"before {written} after") == f"before {MASK} after"
        assert MASKS.holds(("\\" * 9 + " " + written).encode())
    assert MASKS("\\" * 60) == "\\" * 60


@pytest.mark.parametrize("secret", SECRETS)
def test_what_is_kept_as_it_came_is_known_to_hold_a_secret(secret: str) -> None:
    """In a document, and within base64 within base64, escapes and all."""
    for writing in sorted(WRITINGS):
        inner = json.dumps({"id": WRITINGS[writing](secret)})
        packed = base64.b64encode(inner.encode()).decode()
        for raw in (inner, packed, base64.urlsafe_b64encode(f"??{packed}".encode()).decode()):
            assert MASKS.holds(raw.encode()) is True, (writing, raw)


@given(st.binary(max_size=3000))
def test_chance_writes_no_secret(raw: bytes) -> None:
    """Hex and base64 of arbitrary bytes are never taken for a secret's: an honest charge is not refused for it."""
    for text in (raw.hex(), base64.b64encode(raw).decode()):
        assert not MASKS.holds(text.encode())


def test_the_keys_in_a_url_are_its_parts() -> None:
    """User, password, and what is long enough in path and query, with and without percent signs."""
    found = of_url("https://someuser:pass%20word1@rpc.example/v2/keykeykey/short?apikey=queryquery&x=1")
    assert sorted(found) == ["keykeykey", "pass word1", "pass%20word1", "queryquery", "someuser"]


@given(st.text(st.characters(), max_size=3000), st.integers(1, 600))
def test_nothing_unprintable_is_said(text: str, chars: int) -> None:
    """One line, no control character, no escape sequence, no half of a character, no longer than it may be."""
    said = clean(text, chars)
    assert said.isprintable()
    assert said.encode().decode() == said
    assert len(said) <= chars
    printable = text if text.isprintable() else ""
    assert not printable or len(text) > chars or "0x" in text.lower() or said == text


def test_what_is_longer_than_a_hash_is_not_repeated() -> None:
    """It may be the signed bytes."""
    assert clean("rejected 0x" + "AB" * 100) == "rejected 0x…"
    assert clean("0x" + "ab" * 32) == "0x" + "ab" * 32


def test_a_secret_at_the_cut_is_masked_before_it_is_cut() -> None:
    """Half a secret at the end of a cut text would be found by nobody."""
    for before in range(CHARS_MAX - len(KEY) - 2, CHARS_MAX):
        assert not any(part in clean("x" * before + KEY, hide=MASKS) for part in (KEY[:PIECE], KEY[-PIECE:]))


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=800), min_size=1, max_size=9)
)
def test_each_who_says_something_is_named(parts: list[str]) -> None:
    """However long the others' words are, each keeps its beginning, and the sentence its bound."""
    said = joined([f"host{n}: {part}" for n, part in enumerate(parts)])
    assert len(said) <= SENTENCE_MAX
    assert all(f"host{n}: " in said for n in range(len(parts)))


def test_an_error_of_a_decoder_becomes_a_sentence_that_says_where() -> None:
    """Its kind and the line of ours that raised it, and nothing of what was read."""
    with pytest.raises(ApiUnknown) as error, reading("/credits", ApiUnknown):
        b"\xff secret".decode()
    assert str(error.value) == "/credits gave nonsense (UnicodeDecodeError)"
    assert error.value.__cause__ is None
    with pytest.raises(ChainUnknown) as raised, reading("host", ChainUnknown):
        clean(Unprintable())
    assert str(raised.value).startswith("host gave nonsense (ValueError at topup/wire/clean.py:")
    # Our own errors pass the wall as they are: what we say ourselves is more than that it is nonsense.
    with pytest.raises(ChargeRefused), reading("/credits", ApiUnknown):
        raise ChargeRefused("field", "a", "b")


class Unprintable:
    def __str__(self) -> str:
        return str(10 ** (sys.get_int_max_str_digits() + 1))
