"""What stands between topup and its world when the wire is bad? A proxy that loses, holds, doubles, spoils and lies.

It runs in a thread of its own on loopback, in front of anything that speaks HTTP: the sandbox's gateway, the sandbox's
chain, a real anvil; topup may be this process or another one. What no rule speaks of passes unchanged.

    with Proxy(anvil.url) as proxy:                                   # topup is pointed at proxy.url
        lost = proxy.on("eth_sendRawTransaction", lose(), times=1)    # a JSON-RPC method, or "/credits", or "*"
        ...
        assert lost.hits == 1 and proxy.asked("eth_sendRawTransaction") == 2

A batch is forwarded as a whole. Faults of the wire hit the HTTP exchange that carries a matching item, once; faults of
an answer hit each matching item alone.
"""

import asyncio
import gzip
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import httpx

from topup.sandbox import wire
from topup.sandbox.http import Raw, Request, Response, Server

# A condition that does not come true within this many real seconds never does.
PATIENCE_S: Final = 30.0
# Headers that speak of one connection alone, and a length that is written anew.
HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
JSON: Final = {"content-type": "application/json"}

Answer = Response | Raw
Forward = Callable[[], Awaitable[Answer]]
Document = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One JSON-RPC item; or an HTTP request that is none: then the path, and the body."""

    method: str
    params: Any


@dataclass(frozen=True)
class Fault:
    """What a rule does: to the exchange (`wire`), or to the answer of one item (`item`).

    With `withheld` the item never reaches the upstream; the rest of its batch does. `gate` is what `hold` waits for.
    An exchange of no more questions than `above`, a single one counting as none, is left alone.
    """

    name: str
    wire: Callable[[Forward], Awaitable[Answer]] | None = None
    item: Callable[[Question, Document], Document] | None = None
    withheld: bool = False
    gate: asyncio.Event | None = None
    above: int = -1


# -- faults of the wire -----------------------------------------------------------------------------------------------


def drop() -> Fault:
    """Cut the connection; the upstream never hears of it."""
    return Fault("drop", _instead(wire.reset(), forwarded=False))


def lose() -> Fault:
    """Forward, then cut the connection: the answer is lost, its effect is not."""
    return Fault("lose", _instead(wire.reset(), forwarded=True))


def silent(*, forwarded: bool = False) -> Fault:
    """Say nothing until the other side leaves."""
    return Fault("silent", _instead(wire.time_out(), forwarded=forwarded))


def delay(seconds: float, *, after: bool = False) -> Fault:
    """Wait before forwarding, or (`after`) before answering."""
    return Fault("delay", _waiting(lambda: asyncio.sleep(seconds), after=after))


def hold(*, after: bool = False) -> Fault:
    """Wait for `Rule.release` before forwarding, or (`after`) before answering."""
    gate = asyncio.Event()
    return Fault("hold", _waiting(gate.wait, after=after), gate=gate)


def duplicate(answer: Literal["first", "second"] = "first") -> Fault:
    """Forward twice and give one of the two answers."""

    async def act(forward: Forward) -> Answer:
        both = [await forward(), await forward()]
        return both[0 if answer == "first" else 1]

    return Fault("duplicate", act)


def answer_twice() -> Fault:
    """Forward once and write the answer twice: whoever asks on this connection again finds the old answer waiting.

    What is asked on it after that is read and never answered.
    """
    return Fault("answer_twice", _changed(lambda honest: _writing([(_head(honest) + honest.body) * 2], stay=True)))


def truncate(*, told: Literal["full", "short"] = "full") -> Fault:
    """Send half of the body; Content-Length tells the full length, or the short one as if that were all."""

    def half(honest: Response) -> Answer:
        kept = honest.body[: len(honest.body) // 2]
        return _writing([_head(honest), kept]) if told == "full" else Response(honest.status, kept, honest.headers)

    return Fault("truncate", _changed(half))


def status(code: int, body: bytes = b"", headers: Mapping[str, str] = JSON, *, forwarded: bool = False) -> Fault:
    """Answer with this status, body and headers; the upstream hears of it only when `forwarded`."""
    return Fault(f"status_{code}", _instead(Response(code, body, headers), forwarded=forwarded))


def body(text: bytes) -> Fault:
    """Answer 200 with this body: empty, not JSON, or JSON of another shape."""
    return Fault("body", _instead(Response(200, text), forwarded=True))


def crowded(most: int) -> Fault:
    """Refuse every batch of more than so many calls as a whole; with 0 every batch."""
    message = f"batch too large: at most {most} calls" if most else "batch requests are not supported"
    refused = _refused(200, {"code": -32600, "message": message})
    return Fault("crowded", _instead(refused, forwarded=False), above=most)


def hurried(every: int) -> Fault:
    """Refuse each so manieth exchange for its rate, in turn as a whole with status 429 and in each of its places."""
    count = itertools.count(1)

    async def act(forward: Forward) -> Answer:
        turn, rest = divmod(next(count), every)
        if rest:
            return await forward()
        error = {"code": -32016, "message": "over rate limit"}
        if turn % 2:
            return _refused(429, error)
        honest = await forward()
        if isinstance(honest, Raw):
            return honest
        told = json.loads(honest.body)
        each = [{"jsonrpc": "2.0", "id": one.get("id"), "error": error} for one in _many(told)]
        return Response(200, json.dumps(each if isinstance(told, list) else each[0]).encode(), JSON)

    return Fault("hurried", act)


def raw(text: bytes) -> Fault:
    """Write these very bytes and close."""
    return Fault("raw", _instead(_writing([text]), forwarded=True))


def slow(part: Literal["head", "body"], pace_s: float) -> Fault:
    """Send the honest answer with so many seconds between two bytes of its head, or of its body."""

    def paced(honest: Response) -> Answer:
        parts = {"head": _head(honest), "body": honest.body}
        slowly = [bytes([one]) for one in parts[part]]
        return _writing([*slowly, honest.body] if part == "head" else [parts["head"], *slowly], pace_s)

    return Fault(f"slow_{part}", _changed(paced))


def bomb(size: int) -> Fault:
    """Answer with a small gzip body that unpacks to `size` bytes."""
    return _sandbox("gzip-bomb", wire.Wire(oversized_bytes=size))


def oversized(size: int) -> Fault:
    """Answer with the honest document, and `size` blanks before its end."""
    return _sandbox("oversized", wire.Wire(oversized_bytes=size))


def rewrite(change: Callable[[bytes], bytes]) -> Fault:
    """Answer with a function of the honest body."""
    return Fault("rewrite", _changed(lambda honest: Response(honest.status, change(honest.body), honest.headers)))


def packed() -> Fault:
    """Answer with the honest document packed by gzip, whether or not anybody asked for that."""

    def packed_by(honest: Response) -> Answer:
        if "content-encoding" in {name.lower() for name in honest.headers}:
            return honest
        body = gzip.compress(honest.body, mtime=0)
        return Response(honest.status, body, {**honest.headers, "content-encoding": "gzip"})

    return Fault("packed", _changed(packed_by))


# -- faults of one answer ---------------------------------------------------------------------------------------------


def wrong(change: Callable[[Any], Any]) -> Fault:
    """Answer with a function of the honest result; an honest error stays."""
    return Fault("wrong", item=lambda _, said: {"result": change(said["result"])} if "result" in said else said)


def refuse(code: int, message: str, *, forwarded: bool = False, data: object = None) -> Fault:
    """Answer with a JSON-RPC error; the upstream hears of the question only when `forwarded`."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return Fault("refuse", item=lambda *_: {"error": error}, withheld=not forwarded)


def ranged(most: int) -> Fault:
    """Refuse every question for the logs of more than so many blocks."""
    error = {"code": -32600, "message": f"eth_getLogs is limited to a {most} range"}

    def item(question: Question, said: Document) -> Document:
        first, last = (int(question.params[0][end], 16) for end in ("fromBlock", "toBlock"))
        return {"error": error} if last - first + 1 > most else said

    return Fault("ranged", item=item)


# -- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """One question that came, and the names of what was done to it."""

    method: str
    params: Any
    done: tuple[str, ...]


@dataclass(eq=False)
class Rule:
    """A fault that is on. Any thread may read and steer it."""

    fault: Fault
    where: str
    left: int | None
    skip: int
    when: Callable[[Any], bool]
    changed: threading.Condition
    loop: asyncio.AbstractEventLoop
    hits: int = 0

    def wait(self, hits: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Block until it has acted so often."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.hits >= hits, timeout_s):
                raise AssertionError(f"{self.fault.name} on {self.where}: {self.hits} of {hits} within {timeout_s} s")

    def release(self) -> None:
        """Let go what `hold` holds, now and from now on."""
        assert self.fault.gate is not None, "only `hold` can be released"
        self.loop.call_soon_threadsafe(self.fault.gate.set)

    def end(self) -> None:
        with self.changed:
            self.left = 0

    def matches(self, question: Question) -> bool:
        """Tell whether it speaks of this question at all."""
        path = self.where.startswith("/") and question.method.endswith(self.where)
        return (path or self.where in ("*", question.method)) and self.when(question.params)

    def take(self) -> bool:
        """Use it up once; False when it still skips or is spent."""
        with self.changed:
            if self.left == 0:
                return False
            if self.skip > 0:
                self.skip -= 1
                return False
            self.left = None if self.left is None else self.left - 1
            self.hits += 1
            self.changed.notify_all()
            return True


@dataclass
class Item:
    """A question on its way, with the rules that act on its answer."""

    question: Question
    document: Document | None
    rules: list[Rule] = field(default_factory=list)


class Proxy:
    """A context manager: `url` is known inside. `log` holds every question in the order of coming."""

    def __init__(self, upstream: str) -> None:
        """Keep the address of the upstream, whose path becomes part of `url`; nothing listens yet."""
        parts = urlsplit(upstream)
        self._upstream = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.rstrip("/")
        self._changed = threading.Condition()
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._server = Server(self._answer)
        self.url = ""
        self.log: list[Passed] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._inside(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._inside(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def on(
        self,
        where: str,
        fault: Fault,
        times: int | None = None,
        *,
        skip: int = 0,
        when: Callable[[Any], bool] = lambda _: True,
    ) -> Rule:
        """Let a fault act on the next `times` questions (None: all) after `skip`, if their parameters are such.

        `where` is a JSON-RPC method, the end of a path, or "*". Of several rules the first is the outermost.
        """
        rule = Rule(fault, where, times, skip, when, self._changed, self._loop)
        with self._changed:
            self._rules.append(rule)
        return rule

    def mend(self) -> None:
        """End all rules; what is held or delayed stays so."""
        with self._changed:
            for rule in self._rules:
                rule.left = 0
            self._rules.clear()

    def asked(self, where: str) -> int:
        """Count the questions that came for a method, or a path that ends so."""
        return sum(one.method.endswith(where) if where.startswith("/") else one.method == where for one in self.log)

    # -- inside the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _inside(self, act: Any) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result(PATIENCE_S)

    async def _start(self) -> None:
        self._client = httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(None))
        await self._server.start()
        self.url = self._server.url + self._path

    async def _stop(self) -> None:
        await self._server.stop()
        await self._client.aclose()

    async def _answer(self, request: Request) -> Answer:
        asked = _asked(request)
        many = asked if isinstance(asked, list) else [asked]
        items = [Item(Question(request.path, request.body), None)]
        if many and all(isinstance(one, dict) and isinstance(one.get("method"), str) for one in many):
            items = [Item(Question(one["method"], one.get("params") or []), one) for one in many]
        with self._changed:
            rules = list(self._rules)
        size = len(many) if isinstance(asked, list) else 0
        outer = [
            r
            for r in rules
            if r.fault.wire and size > r.fault.above and any(r.matches(i.question) for i in items) and r.take()
        ]
        for item in items:
            item.rules = [r for r in rules if r.fault.item and r.matches(item.question) and r.take()]
            acted = [r for r in (*outer, *item.rules) if r.matches(item.question)]
            self.log.append(Passed(item.question.method, item.question.params, tuple(r.fault.name for r in acted)))
        forward: Forward = partial(self._exchange, request, items, single=not isinstance(asked, list))
        for rule in reversed(outer):
            assert rule.fault.wire is not None
            forward = partial(rule.fault.wire, forward)
        return await forward()

    async def _exchange(self, request: Request, items: list[Item], *, single: bool) -> Answer:
        """Ask the upstream what is not withheld, and put each item's answer right, or wrong."""
        if not any(item.rules for item in items):
            return await self._forward(request, request.body)
        sent = [item.document for item in items if not any(rule.fault.withheld for rule in item.rules)]
        said: dict[Any, Document] = {}
        if sent:
            honest = await self._forward(request, json.dumps(sent[0] if single else sent).encode())
            if isinstance(honest, Raw):
                return honest
            told = json.loads(honest.body)
            if isinstance(told, list) is single:
                return honest  # the upstream refused the batch as a whole
            said = {one.get("id"): one for one in ([told] if single else told)}
        answers = [_spoilt(item, said) for item in items]
        return Response(200, json.dumps(answers[0] if single else answers).encode())

    async def _forward(self, request: Request, content: bytes) -> Answer:
        target = self._upstream + request.path + (f"?{request.query}" if request.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name != "content-length"]
        try:
            asked = httpx.Request(request.method, target, headers=headers, content=content)
            answer = await self._client.send(asked, stream=True)
            # As it stands on the wire: what is packed stays packed.
            told = b"".join([chunk async for chunk in answer.aiter_raw()])
            await answer.aclose()
        except httpx.HTTPError:
            return wire.reset()
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
        return Response(answer.status_code, told, kept)


def _many(told: Any) -> list[Any]:
    return told if isinstance(told, list) else [told]


def _asked(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError):
        return None


def _spoilt(item: Item, said: Mapping[Any, Document]) -> Document:
    assert item.document is not None
    name = item.document.get("id")
    honest = said.get(name, {"error": {"code": -32603, "message": "the upstream did not answer this item"}})
    answer = {key: value for key, value in honest.items() if key in ("result", "error")}
    for rule in item.rules:
        assert rule.fault.item is not None
        answer = rule.fault.item(item.question, answer)
    return {"jsonrpc": "2.0", "id": name, **answer}


def _instead(answer: Answer, *, forwarded: bool) -> Callable[[Forward], Awaitable[Answer]]:
    async def act(forward: Forward) -> Answer:
        if forwarded:
            await forward()
        return answer

    return act


def _waiting(wait: Callable[[], Awaitable[object]], *, after: bool) -> Callable[[Forward], Awaitable[Answer]]:
    async def act(forward: Forward) -> Answer:
        if after:
            answer = await forward()
            await wait()
            return answer
        await wait()
        return await forward()

    return act


def _changed(change: Callable[[Response], Answer]) -> Callable[[Forward], Awaitable[Answer]]:
    async def act(forward: Forward) -> Answer:
        honest = await forward()
        return honest if isinstance(honest, Raw) else change(honest)

    return act


def _refused(code: int, error: Document) -> Response:
    """Refuse a whole exchange."""
    return Response(code, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), JSON)


def _sandbox(name: str, terms: wire.Wire) -> Fault:
    return Fault(name, _changed(lambda honest: wire.WIRE_FAULTS[name](terms, lambda: honest.body)))


def _head(answer: Response) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{name}: {value}" for name, value in answer.headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(answer.body)}", "", ""]).encode("latin-1")


def _writing(pieces: list[bytes], pace_s: float = 0.0, *, stay: bool = False) -> Raw:
    """Write pieces at a pace; with `stay` the connection is left open until the other side closes it."""

    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if pace_s:
                await asyncio.sleep(pace_s)
        while stay and await reader.read(65536):
            pass

    return Raw(write)
