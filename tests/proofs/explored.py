"""How are all states of a small model visited, the nearest first, until one is bad or nothing is new?"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


def explore(
    start: S, steps: Callable[[S], Iterable[tuple[str, S]]], bad: Callable[[S], bool]
) -> tuple[frozenset[S], list[tuple[S, str]] | None]:
    """Return every state that was reached, and the shortest way to a bad one; None where there is none.

    A way is each state on it before the bad one, with the word for what happens in it.
    """
    came: dict[S, tuple[S, str] | None] = {start: None}
    queue = deque([start])
    with _uncollected():
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


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no circles meanwhile: among a million states, none of which is in one, that takes half the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _story(came: dict[S, tuple[S, str] | None], end: S) -> list[tuple[S, str]]:
    way: list[tuple[S, str]] = []
    while (at := came[end]) is not None:
        way.append(at)
        end = at[0]
    return way[::-1]


def words(way: list[tuple[S, str]] | None) -> tuple[str, ...] | None:
    """Return the words of a way."""
    return None if way is None else tuple(word for _, word in way)
