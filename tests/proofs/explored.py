"""How are all states of a small model visited, the nearest first, until one is bad or nothing is new?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


def explore(
    start: S, steps: Callable[[S], Iterable[tuple[str, S]]], bad: Callable[[S], bool]
) -> tuple[frozenset[S], tuple[str, ...] | None]:
    """Return every state that was reached, and the words of the shortest way to a bad one; None where there is none."""
    came: dict[S, tuple[S, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for word, after in steps(state):
            if after in came:
                continue
            came[after] = (state, word)
            if bad(after):
                return frozenset(came), _story(came, after)
            queue.append(after)
    return frozenset(came), None


def _story(came: dict[S, tuple[S, str] | None], end: S) -> tuple[str, ...]:
    told: list[str] = []
    at = came[end]
    while at is not None:
        state, word = at
        told.append(word)
        at = came[state]
    return tuple(told[::-1])
