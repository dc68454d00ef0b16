"""How does topup run when it is to die at one exact step? Its own command line, with every port it speaks to watched.

    python -m tests.proofs.killed FOLDER CELL run

is `topup run`, and notes each call of a port in FOLDER/trace. At CELL it dies of SIGKILL; "-" lets it live. Two things
are watched, so that no new step can be missed: every transaction that the ledger commits, whichever method commits it,
and every call of the ports behind which foreign things are: api, chain, tokens and signer, as `topup.app.connections`
joins them, every question to a seller that is not the api's own, and every message that a webhook is given.
The shipped program knows nothing of this.
"""

import functools
import inspect
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from tests.world.around import around

TRACE: Final = "trace"
ARMED: Final = "armed"
# A phase that stands for whichever it is, and one for whichever comes once something may have been signed.
ANY: Final = "any"
LATER: Final = "later"
# Until here nothing is signed; what is particular about most lives comes later.
UNSIGNED: Final = frozenset({"start", "begin1", "ask1", "answered1", "proven1"})
COMMIT, FOREIGN, SIGN, TELL = "commit", "foreign", "sign", "tell"
# Within a call that is watched already: what it asks over HTTP is its own affair.
INSIDE: Final = ContextVar("inside", default=False)


@dataclass(frozen=True)
class Cell:
    """One way to die: at the `nth` call since the `phase` began, which is the newest commit that changed the top-up.

    `when`: `before` it (a commit: with all of it written and nothing committed), `after` it (a foreign call: answered,
    the answer not used), or once its answer was `used`: when the next change of the top-up is committed. `answer`:
    kept, lost, delayed or duplicated, which is the wire's doing, armed when the call begins.
    """

    phase: str
    call: str
    nth: int
    when: str
    answer: str = "kept"

    @classmethod
    def of(cls, text: str) -> Self:
        phase, call, nth, when, answer = text.split("/")
        return cls(phase, call, int(nth), when, answer)

    def __str__(self) -> str:
        return f"{self.phase}/{self.call}/{self.nth}/{self.when}/{self.answer}"


def die() -> NoReturn:
    """End this process as a power cut would: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class Course:
    """Where this process is in its life, and where it is to end."""

    def __init__(self, folder: Path, cell: Cell | None) -> None:
        self._folder, self._cell = folder, cell
        self._use = os.open(folder / TRACE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._phase, self._phases = "start", Counter[str]()
        self._calls = Counter[str]()
        self._doomed = False
        self.commits = 0
        self.methods = ["elsewhere"]

    def reach(self, call: str, kind: str) -> Cell | None:
        """Note a call that begins; return the cell when this is the one."""
        self._calls[call] += 1
        here = {"phase": self._phase, "call": call, "nth": self._calls[call], "kind": kind}
        os.write(self._use, f"{json.dumps(here)}\n".encode())
        cell = self._cell
        found = cell is not None and (cell.call, cell.nth) == (call, self._calls[call])
        if cell is None or not found or cell.phase not in (ANY, self._phase, *self._later):
            return None
        if cell.when == "before":
            die()
        if cell.answer != "kept":
            (self._folder / ARMED).touch()
        return cell

    def done(self, cell: Cell | None) -> None:
        """Note that the call has ended, well or not."""
        if cell is not None and cell.when == "after":
            die()
        self._doomed = self._doomed or cell is not None

    @contextmanager
    def call(self, call: str, kind: str) -> Iterator[None]:
        """Note a call from its beginning to its end; what is asked within it is not noted."""
        cell, token = self.reach(call, kind), INSIDE.set(True)
        try:
            yield
        finally:
            INSIDE.reset(token)
            self.done(cell)

    def changed(self, method: str) -> None:
        """Note that a change of the top-up was committed: a new phase begins."""
        if self._doomed:
            die()
        self._phases[method] += 1
        self._phase = f"{method}{self._phases[method]}"
        self._calls.clear()

    @property
    def _later(self) -> tuple[str, ...]:
        return () if self._phase in UNSIGNED else (LATER,)


def watch_store(course: Course) -> None:
    """Watch every transaction of the ledger, by the name of the method that commits it."""
    from topup.domain.lifecycle import TopUp
    from topup.ledger import database, store
    from topup.ports.outbox import Message

    honest = database.transaction

    @contextmanager
    def transaction(connection: Any) -> Iterator[None]:
        with honest(connection):
            yield
            cell = course.reach(f"store.{course.methods[-1]}", COMMIT)
        course.commits += 1
        course.done(cell)

    database.transaction = transaction

    def named(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def called(*given: Any, **options: Any) -> Any:
            earlier = course.commits
            # Messages are told beside the top-up: of them it is not the phase that says which one it is.
            told_of = [f"{name}-{one.kind.value}" for one in given[1:2] if isinstance(one, Message)]
            course.methods.append(told_of[0] if told_of else name)
            try:
                told = method(*given, **options)
            finally:
                course.methods.pop()
            if course.commits > earlier and isinstance(told, TopUp):
                course.changed(name)
            return told

        return called

    for name, member in inspect.getmembers_static(store.SqliteStore):
        if name.startswith("_"):
            continue
        if isinstance(member, classmethod):
            setattr(store.SqliteStore, name, classmethod(named(name, member.__func__)))
        elif inspect.isfunction(member):
            setattr(store.SqliteStore, name, named(name, member))


def watch_ports(course: Course) -> None:
    """Watch the ports: whatever class `topup.app.connections` makes of them, each method that the port has."""
    from topup.app import keys
    from topup.app.connections import Connections
    from topup.ports.account import Api
    from topup.ports.chain import Chain, TokenChain
    from topup.ports.signer import Signer

    api = Connections.__dict__["api"]
    api.func = _watched(api.func, Api, "api", course)
    for place, maker, port, name in (
        (Connections, "chain", Chain, "chain"),
        (Connections, "dollar_chain", TokenChain, "tokens"),
        (keys, "signer", Signer, "signer"),
    ):
        setattr(place, maker, _watched(getattr(place, maker), port, name, course))


def watch_sellers(course: Course) -> None:
    """Watch what a rail asks its seller itself, by the method of HTTP: of its paths only one is posted to."""
    from topup.wire.exchange import Exchange

    honest = Exchange.ask

    @functools.wraps(honest)
    async def asked(exchange: Exchange, method: str, path: str, **options: Any) -> Any:
        with nullcontext() if INSIDE.get() else course.call(f"seller.{method.lower()}", FOREIGN):
            return await honest(exchange, method, path, **options)

    setattr(Exchange, "ask", asked)  # noqa: B010 - for the type checker a method is no variable


def watch_targets(course: Course) -> None:
    """Watch what a webhook is given, by the kind of message; it is looked for what there is to tell every second."""
    from topup.app import delivery
    from topup.wire.webhook import Webhook

    delivery.LOOK_S, delivery.FIRST_WAIT_MS = 1, 1000  # type: ignore[misc]
    honest = Webhook.send

    @functools.wraps(honest)
    async def sent(webhook: Webhook, name: str, at_s: int, document: Any) -> None:
        with course.call(f"hook.{document['type']}", TELL):
            await honest(webhook, name, at_s, document)

    setattr(Webhook, "send", sent)  # noqa: B010 - for the type checker a method is no variable


def _watched(make: Callable[..., Any], port: type, name: str, course: Course) -> Callable[..., Any]:
    seen: set[type] = set()

    @functools.wraps(make)
    def made(*given: Any, **options: Any) -> Any:
        one = make(*given, **options)
        if one is not None and type(one) not in seen:
            seen.add(type(one))
            for method in (m for m in vars(port) if not m.startswith("_") and callable(getattr(port, m))):
                honest, awaited = getattr(type(one), method), inspect.iscoroutinefunction(getattr(type(one), method))
                # Another signer may ask a device; the chain's plain methods only compute.
                if awaited or name == "signer":
                    each = functools.partial(course.call, f"{name}.{method}", FOREIGN if awaited else SIGN)
                    setattr(type(one), method, around(honest, each))
        return one

    return made


def main() -> None:
    """Watch, and be topup."""
    from topup.commands import cli

    folder, cell, *words = sys.argv[1:]
    course = Course(Path(folder), None if cell == "-" else Cell.of(cell))
    watch_store(course)
    watch_ports(course)
    watch_sellers(course)
    watch_targets(course)
    sys.argv = ["topup", *words]
    cli.main()


if __name__ == "__main__":
    main()
