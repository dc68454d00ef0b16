"""How are all states of a small model visited, the nearest first, until one is bad or nothing is new?"""

import gc
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Result(Generic[S]):
    """Every state that was reached, and the shortest way to a bad one, in words; None where there is none."""

    reached: frozenset[S]
    story: tuple[str, ...] | None


def explore(
    start: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    bad: Callable[[S], bool],
    say: Callable[[str, S], str] = lambda word, _: word,
) -> Result[S]:
    """Visit every state until one is bad or nothing is new; `say` words a step, given where it is taken."""
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
                    return Result(frozenset(came), tuple(say(word, at) for at, word in _way(came, after)))
                queue.append(after)
        return Result(frozenset(came), None)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no circles meanwhile: among a million states, none of which is in one, that takes half the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _way(came: dict[S, tuple[S, str] | None], end: S) -> list[tuple[S, str]]:
    way: list[tuple[S, str]] = []
    while (at := came[end]) is not None:
        way.append(at)
        end = at[0]
    return way[::-1]


def holds(name: str, result: Result[S], never: str) -> bool:
    """Print whether a rule holds, and return that."""
    good = result.story is None
    print(f"\n{name}: {len(result.reached):,} states, {f'no {never}' if good else 'NOT SAFE'}")
    return good


def fails(name: str, result: Result[S], what: str) -> bool:
    """Print how a rule fails, and return whether it does, as it should."""
    if result.story is None:
        print(f"\n{name}: not caught in {len(result.reached):,} states")
        return False
    print(f"\n{name}: {what} after {len(result.story)} steps ({len(result.reached):,} states)")
    for number, sentence in enumerate(result.story, 1):
        print(f"  {number}. {sentence}")
    return True
