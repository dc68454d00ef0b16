"""How do questions reach a provider that takes few at once, asks for patience, or is a pool of nodes?

In as few requests as it takes, side by side. What was refused for its number is asked again in smaller pieces, what
was refused for its rate after a pause, what a node of a pool lacks that is behind the others almost at once: each a
bounded number of times, and never what was answered. Only for what may be asked twice.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from topup.chain.capabilities import Capabilities, Trouble
from topup.chain.refusals import speaks_of_a_node_behind, speaks_of_rate
from topup.domain.errors import ChainUnknown

A = TypeVar("A")
T = TypeVar("T")
Question = tuple[str, list[Any]]
# How long is waited each time before what a rate limit refused, or a node behind could not tell, is asked once more.
PATIENCE_S: Final = (1.0, 1.0, 2.0)
BEHIND_S: Final = (0.05, 0.2, 0.5)
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")


class Refused(ChainUnknown):
    """A batch was refused as a whole, with this code and these words."""

    def __init__(self, message: str, code: int, text: str) -> None:
        super().__init__(message)
        self.code = code
        self.text = text


@dataclass
class _Round(Generic[A]):
    """What came of asking once: places to ask again, and why; `refused` has no answer in its place.

    `singly` says that some are to be asked again one by one.
    """

    split: list[int] = field(default_factory=list)
    singly: bool = False
    rated: list[int] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)
    answers: dict[int, A] = field(default_factory=dict)
    refused: Refused | None = None


@dataclass(frozen=True)
class Batches(Generic[A]):
    """Asks one provider.

    `together` asks in one batch, `alone` asks one question; `refusal` reads code and words of an answer that refuses.
    """

    can: Capabilities
    together: Callable[[Sequence[Question]], Coroutine[Any, Any, list[A]]]
    alone: Callable[[Question], Coroutine[Any, Any, A]]
    refusal: Callable[[A], tuple[int, str] | None]
    sleep: Callable[[float], Awaitable[None]]

    async def ask(self, queries: Sequence[Question], *, singly: bool = False) -> list[A]:
        """Ask everything; each answer stands in its question's place, also one that refuses to the end.

        With `singly` no question is in a batch, not even in one of its own.
        """
        answers: dict[int, A] = {}
        lacked: set[int] = set()
        todo, patience, behind = list(range(len(queries))), iter(PATIENCE_S), iter(BEHIND_S)
        while todo:
            asked = await self._round(queries, todo, singly=singly)
            answers |= asked.answers
            singly = singly or asked.singly
            todo, pause_s = list(asked.split), 0.0
            if asked.rated:
                self.can.met(Trouble.RATE)
            if lacked - set(asked.behind):  # what one node lacked another has answered
                self.can.met(Trouble.BEHIND)
            lacked = set(asked.behind)
            for again, pauses in ((asked.rated, patience), (asked.behind, behind)):
                wait_s = next(pauses, None) if again else None
                if wait_s is not None:
                    todo, pause_s = [*todo, *again], max(pause_s, wait_s)
            if asked.refused is not None and any(n not in answers and n not in todo for n in range(len(queries))):
                raise asked.refused
            if pause_s:
                await self.sleep(pause_s)
        return [answers[index] for index in range(len(queries))]

    async def _round(self, queries: Sequence[Question], todo: Sequence[int], *, singly: bool) -> _Round[A]:
        size = 1 if singly else self.can.batch_max or len(todo)
        singly = singly or size == self.can.batch_max == 1
        pieces = [todo[n : n + size] for n in range(0, len(todo), size)]
        asked: _Round[A] = _Round()
        said = await _side_by_side(
            [self._piece([queries[index] for index in piece], singly=singly) for piece in pieces]
        )
        for piece, answers in zip(pieces, said, strict=True):
            if isinstance(answers, Refused):
                self._refused(piece, answers, asked)
                continue
            for index, answer in zip(piece, answers, strict=True):
                asked.answers[index] = answer
                self._answered(index, queries[index], answer, len(piece), asked)
        return asked

    async def _piece(self, queries: Sequence[Question], *, singly: bool) -> list[A] | Refused:
        if singly:
            return [await self.alone(query) for query in queries]
        try:
            return await self.together(queries)
        except Refused as refused:
            return refused

    def _refused(self, piece: Sequence[int], said: Refused, asked: _Round[A]) -> None:
        if self.can.refused_batch(len(piece), said.code, said.text, whole=True):
            asked.split += piece
        elif speaks_of_rate(said.code, said.text):
            asked.rated += piece
            asked.refused = said
        else:
            # That it has anything to do with their number is not said, so nothing is learnt; but it may.
            asked.split += piece
            asked.singly = True

    def _answered(self, index: int, query: Question, answer: A, size: int, asked: _Round[A]) -> None:
        refusal = self.refusal(answer)
        if refusal is None:
            if answer is None and query[0] == "eth_getBlockByNumber" and _pinned(query):
                asked.behind.append(index)
        elif self.can.refused_batch(size, *refusal, whole=False):
            asked.split.append(index)
        elif speaks_of_rate(*refusal):
            asked.rated.append(index)
        elif (_pinned(query) or "latest" in query[1]) and speaks_of_a_node_behind(refusal[1]):
            asked.behind.append(index)


def _pinned(query: Question) -> bool:
    """Tell whether a question names its block by number: a node that lacks it is behind, or another branch's."""
    return any(isinstance(p, str) and _NUMBER.fullmatch(p) for p in query[1])


async def _side_by_side(questions: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
