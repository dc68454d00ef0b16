"""How is a true answer bent? What it says, how it is written, when it comes, and what stands in its place.

`bent` and `encoded` bend a document, `Bend` whatever one voice answers (tests/world/near.py). All luck is one seed's.
"""

import asyncio
import base64
import copy
import gzip
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx

from tests.world.near import Told
from topup.chain.providers import FAILURES_MAX, Lagging
from topup.chain.rpc import Nonsense
from topup.domain.errors import WrongChain
from topup.sandbox.http import Request
from topup.wire.clean import SENTENCE_MAX

KEY: Final = "sk-or-v1-" + "5ec7e79a" * 8
# What nodes, and what stands before them, say in place of a result.
ERRORS: Final[tuple[tuple[int, str], ...]] = (
    (-32000, "nonce too low"),
    (-32000, "nonce too low: next nonce 1, tx nonce 0"),
    (-32000, "already known"),
    (-32000, "replacement transaction underpriced"),
    (-32000, "insufficient funds for gas * price + value"),
    (-32000, "header not found"),
    (-32000, "invalid sender"),
    (-32000, "exceeds block gas limit"),
    (-32601, "the method does not exist/is not available"),
    (-32602, "invalid block tag"),
    (-32005, "query returned more than 10000 results"),
    (-32005, "rate limit exceeded"),
    (-32600, "batch too large: at most 3 calls"),
    (3, "execution reverted"),
    (-32603, f"upstream failed {KEY} \x1b[2J, last error was: nonce too low"),
    (10**30, "\x00" * 2000),
)
PAGE: Final = b"<!DOCTYPE html><html><body>error code: 1020 nonce too low " + KEY.encode() + b"</body></html>"


class Broken(AssertionError):
    """A rule does not hold in a round."""


def said(texts: Sequence[str], *, secret: bool = True, most: int = SENTENCE_MAX) -> None:
    """Hold what is said to be short, printable, and free of our key."""
    for text in texts:
        if len(text) > most:
            raise Broken(f"{len(text)} characters were said: {text[:80]!r}")
        if not text.isprintable():
            raise Broken(f"what cannot be printed was said: {text[:80]!r}")
        if secret and any(KEY[at : at + 20] in text for at in range(len(KEY) - 20)):
            raise Broken(f"our key was said: {text[:80]!r}")


def refusals(providers: Any) -> list[tuple[str, str, bool]]:
    """Return a list that fills with whom an agreement refuses, for what, and whether it surely says so."""
    refused: list[tuple[str, str, bool]] = []
    failed = providers._failed

    def kept(watched: Any, error: Exception) -> None:
        sure = isinstance(error, WrongChain | Lagging | Nonsense) or watched.failures + 1 >= FAILURES_MAX
        refused.append((watched.rpc.name, str(error), sure))
        failed(watched, error)

    providers._failed = kept
    return refused


def blamed(refused: Sequence[tuple[str, str, bool]], bent: str) -> None:
    """Hold that nobody but the one who is bent was refused, and by name."""
    for name, text, _ in refused:
        if name != bent or bent not in text:
            raise Broken(f"{name} was refused: {text}")


# -- a document ------------------------------------------------------------------------------------------------------

STRANGE: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    10**18,
    2**64,
    2**256,
    "",
    "0x",
    "0x0",
    "0X1F",
    "0x" + "f" * 64,
    "0x" + "f" * 4000,
    "0x1_0",
    " 0x1",
    "\ud800",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202egnp.exe\u2028",
    "A" * 5000,
    KEY,
    base64.b64encode(KEY.encode()).decode(),
    "nonce too low",
    [],
    {},
    [[]],
    {"data": {"data": "0x00"}},
    {"message": KEY, "code": 10**30},
)


def _paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where everything stands in a document."""
    found = [here]
    if len(here) > 100:
        return found
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in parts:
        found += _paths(inner, (*here, name))
    return found


def _shaken(luck: random.Random, parts: list[Any]) -> None:
    """Leave one out, give one twice, or change the order."""
    match luck.randrange(3):
        case 0:
            parts.pop(luck.randrange(len(parts)))
        case 1:
            parts.append(luck.choice(parts))
        case _:
            luck.shuffle(parts)


def bent(luck: random.Random, document: Any) -> Any:
    """Return a document with one to three things in it bent."""
    whole = [json.loads(json.dumps(document))]
    for _ in range(luck.randint(1, 3)):
        path = luck.choice(_paths(whole)[1:] or [(0,)])
        parent: Any = whole
        for name in path[:-1]:
            parent = parent[name]
        name, value = path[-1], parent[path[-1]]
        parent[name] = luck.choice(WAYS)(luck, value)
        if isinstance(parent, dict) and luck.random() < 0.15:
            del parent[name]
        elif isinstance(parent, list) and parent is not whole and luck.random() < 0.15:
            _shaken(luck, parent)
    return whole[0]


def _strange(luck: random.Random, _: Any) -> Any:
    """Return something else: a copy, since what is bent next may stand within it."""
    return copy.deepcopy(luck.choice(STRANGE))


def _capitals(_: random.Random, value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _near(luck: random.Random, value: Any) -> Any:
    """Return something of the same kind that is wrong by little."""
    if isinstance(value, str) and value.startswith("0x") and len(value) > 2:
        return luck.choice((value[:-1], value + "0", value[:-1] + luck.choice("0123456789abcdefg"), "0x0" + value[2:]))
    if isinstance(value, str):
        return luck.choice((value[:-1], value + "\u200b", value * 3, value + "\x1b[31m", value + KEY))
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return luck.choice((str(value), value + 1, -value, value * 10**9, [value]))
    return value


def _deep(luck: random.Random, value: Any) -> Any:
    for _ in range(luck.choice((3, 60, 100))):
        value = {"data": value} if luck.random() < 0.5 else [value]
    return value


def _more(luck: random.Random, value: Any) -> Any:
    if isinstance(value, dict):
        return value | {luck.choice(("data", "error", "result", "id", "x")): _strange(luck, value)}
    return [value] * luck.choice((2, 50))


WAYS: Final[tuple[Callable[[random.Random, Any], Any], ...]] = (
    _strange,
    _strange,
    _near,
    _near,
    _capitals,
    _deep,
    _more,
)


def encoded(luck: random.Random, document: Any) -> tuple[bytes, dict[str, str]]:
    """Write a document, now and then in a way that only few servers do."""
    raw = json.dumps(document).encode()
    way = luck.random()
    if way < 0.70:
        return raw, {}
    cut = luck.randrange(len(raw) + 1)
    writings: list[tuple[bytes, dict[str, str]]] = [
        (b"\xef\xbb\xbf" + raw, {}),
        (gzip.compress(raw), {"content-encoding": "gzip"}),
        (gzip.compress(raw)[:-5], {"content-encoding": "gzip"}),
        (raw, {"content-encoding": luck.choice(("gzip", "deflate", "br"))}),
        (json.dumps(document).encode("utf-16"), {}),
        (raw[:cut], {}),
        (raw[:cut] + luck.randbytes(luck.randint(1, 9)) + raw[cut:], {}),
        (raw[:cut] + b'"x":1,"x":2,' + raw[cut:], {}),
        (raw + raw, {}),
        (b"[" * 100_000 + raw, {}),
        (raw.replace(b'"id": ', b'"id": 1, "id": ', 1), {}),
        (b'{"id": ' + b"9" * 5000 + b"}", {}),
        (PAGE, {"content-type": "text/html"}),
        (b"", {}),
        (b" " * 70_000 + raw, {}),
    ]
    return luck.choice(writings)


# -- one voice that is bent -------------------------------------------------------------------------------------------


@dataclass
class Bend:
    """Stands before one voice; at how many questions of a hundred it bends the answer, and how."""

    luck: random.Random
    percent: int
    on: bool = True
    bent: int = 0
    told: list[Told] = field(default_factory=list)

    async def __call__(self, asked: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        if not self.on or self.luck.randrange(100) >= self.percent:
            told = await honest()
            self.told.append(told)
            return told
        self.bent += 1
        return await self.luck.choice(ANSWERS)(self, asked, honest)

    # What is said.

    async def shaken(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """The true document, bent, now and then in another writing; or a header of it."""
        told, luck = await honest(), self.luck
        carried = [n for n, (name, _) in enumerate(told.headers) if name.lower() in CARRIERS]
        if carried and luck.random() < 0.7:
            headers, at = list(told.headers), luck.choice(carried)
            headers[at] = (headers[at][0], header(luck, headers[at][1]))
            told = replace(told, headers=tuple(headers))
            if luck.random() < 0.7:
                return told
        try:
            document = json.loads(told.body)
        except ValueError:
            return told.saying(told.body[: luck.randrange(len(told.body) + 1)])
        raw, headers_more = encoded(luck, bent(luck, document))
        return told.saying(raw, *headers_more.items())

    async def lied(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """The true document, in which one thing that counts is another: a result of a batch, or a value by its name."""
        told, luck = await honest(), self.luck
        try:
            document = json.loads(told.body)
        except ValueError:
            return told
        items = document if isinstance(document, list) else [document]
        place: Any = luck.choice(items) if items else {}
        names = [name for name in ("result", "data") if isinstance(place, dict) and name in place]
        if names:
            inner = place[names[0]]
            deeper = isinstance(inner, dict | list) and inner and luck.random() < 0.8
            place, names = (inner, sorted(inner)) if deeper and isinstance(inner, dict) else (place, names)
        if not names:
            return told
        name = luck.choice(names)
        place[name] = _another(luck, place[name], items)
        return told.saying(json.dumps(document).encode())

    async def refused(self, asked: Request, _: Callable[[], Awaitable[Told]]) -> Told:
        """An error where there is none, in the shape of whoever is asked."""
        luck = self.luck
        code, text = luck.choice(ERRORS)
        text += luck.choice(("", "", f" {KEY}", "\x1b[2J\u202e", "A" * 3000))
        try:
            question = json.loads(asked.body)
        except ValueError:
            question = None
        if asked.path.startswith("/api") or question is None:
            error = luck.choice(({"message": text, "code": luck.choice((401, 429, 502))}, text, None, {"code": 1}))
            status = luck.choice((200, 200, 400, 401, 403, 404, 409, 410, 422, 429, 500, 501, 502, 503))
            more = {"retry-after": luck.choice(("5", "9" * 40, "soon"))} if luck.random() < 0.3 else {}
            return Told(status, tuple(more.items()), json.dumps({"error": error}).encode())
        said: dict[str, Any] = {"code": code, "message": text}
        said |= luck.choice(({}, {"data": "0x"}, {"data": "0x08c379a0" + "f" * 40}))
        many = question if isinstance(question, list) else [question]
        answers = [{"jsonrpc": "2.0", "id": one.get("id"), "error": said} for one in many]
        whole = answers if isinstance(question, list) and luck.random() < 0.7 else answers[0]
        return Told(luck.choice((200, 200, 400, 429, 503)), (), json.dumps(whole).encode())

    async def page(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """A page for people, whether or not the question arrived."""
        if self.luck.random() < 0.5:
            await honest()
        status = self.luck.choice((200, 403, 404, 429, 503))
        return Told(status, (("content-type", "text/html"),), PAGE)

    async def other(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        told, luck = await honest(), self.luck
        raw = luck.choice((b"", b"\0" * 100, luck.randbytes(300), b"null", b"[]", b'"ok"', b"9" * 5000, b"[" * 10_000))
        return replace(told, body=raw)

    async def old(self, asked: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """What was told before, to this question or another; with the ids of now, or those of then."""
        told = await honest()
        earlier = self.luck.choice(self.told[-40:]) if self.told else told
        if self.luck.random() < 0.6:
            earlier = replace(earlier, body=_renumbered(asked.body, earlier.body))
        return earlier

    async def redirected(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """Another place is named."""
        told = await honest() if self.luck.random() < 0.5 else Told(200, (), b"")
        status = self.luck.choice((301, 302, 307, 308))
        return Told(status, (("location", f"https://elsewhere.example/{KEY}"),), told.body)

    # When, and how often.

    async def late(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        await asyncio.sleep(self.luck.choice((1, 3, 5, 11, 31, 61)))
        return await honest()

    async def trickles(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """The truth, or no end of blanks, byte by byte."""
        told = await honest()
        many = told.body if self.luck.random() < 0.5 else b" " * 1000
        pause_s = self.luck.choice((0.001, 0.5, 4))
        return replace(told, pieces=[(pause_s, many[at : at + 1]) for at in range(len(many))])

    async def lost(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """The connection is cut, before or after the question has arrived."""
        if self.luck.random() < 0.5:
            await honest()
        raise self.luck.choice((httpx.ReadError("cut"), httpx.ConnectError("refused"), httpx.RemoteProtocolError("no")))

    async def twice(self, _: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
        """It is asked twice upstream, and one of the answers is given."""
        return self.luck.choice((await honest(), await honest()))


ANSWERS: Final = (
    *[Bend.shaken] * 5,
    *[Bend.lied] * 5,
    *[Bend.refused] * 3,
    Bend.page,
    Bend.other,
    Bend.old,
    Bend.old,
    Bend.redirected,
    Bend.late,
    Bend.trickles,
    Bend.lost,
    Bend.twice,
)
CARRIERS: Final = frozenset({"www-authenticate", "payment-required", "payment-receipt", "payment-response", "location"})


def _another(luck: random.Random, value: Any, items: list[Any]) -> Any:
    """Return something of a value's kind that is not it: a neighbour, less, more, none, or another question's."""
    others = [one["result"] for one in items if isinstance(one, dict) and "result" in one]
    choices: list[Any] = [None, luck.choice(others) if others else 0]
    if isinstance(value, str) and value.startswith("0x"):
        digits, size = value[2:] or "0", max(1, len(value) - 2)
        number = int(digits, 16) if all(c in "0123456789abcdefABCDEF" for c in digits) else 0
        near = [number + 1, max(0, number - 1), number * 2, number // 2, number + 10**6, 0, luck.getrandbits(4 * size)]
        written = [f"{one:x}" for one in near]
        # Words of a fixed size keep it, quantities are as long as they are.
        choices += ["0x" + (one.rjust(size, "0")[-size:] if size >= 40 else one) for one in written]
    elif isinstance(value, bool):
        choices += [not value]
    elif isinstance(value, int | float):
        choices += [value + 1, value - 1, value * 2, value / 2, 0, -value, str(value), value + 0.0000001]
    elif isinstance(value, list):
        choices += [[], value + value, value[1:]]
    elif isinstance(value, str):
        choices += ["", value[:-1], value + "0", value.upper()]
    return luck.choice(choices)


def _renumbered(asked: bytes, told: bytes) -> bytes:
    """Return an earlier answer of a provider with the ids of what is asked now, as far as it has any."""
    try:
        question, document = json.loads(asked), json.loads(told)
    except ValueError:
        return told
    questions = question if isinstance(question, list) else [question]
    answers = document if isinstance(document, list) else [document]
    for one, other in zip(questions, answers, strict=False):
        if isinstance(one, dict) and isinstance(other, dict) and "id" in one:
            other["id"] = one["id"]
    return json.dumps(document).encode()


def header(luck: random.Random, line: str) -> str:
    """Bend what a header carries: a document within it, or how it is written."""
    words = [word for word in line.replace('"', " ").replace(",", " ").split() if len(word) > 30]
    if words and luck.random() < 0.7:
        word = luck.choice(words)
        _, mark, value = word.partition("=")
        packed = value if mark and len(value) > 20 else word
        try:
            document = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        except ValueError:
            pass
        else:
            raw = json.dumps(bent(luck, document)).encode()[:20_000]
            return line.replace(packed, base64.urlsafe_b64encode(raw).decode().rstrip("="), 1)
    cut = luck.randrange(len(line) + 1)
    return luck.choice(
        (
            line[:cut] + luck.choice(('"', "\\", ",", "é", KEY, "=", " ", "\x1b[2J")) + line[cut:],
            line[:cut],
            f"{line}, {line}",
            line.upper(),
            line.replace('"', "'"),
            line.replace("0x", "0X"),
            "",
        )
    )
