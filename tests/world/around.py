"""How is something done before and after each call of a function, whether or not it is awaited?"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def around(honest: Callable[..., Any], each: Callable[[], AbstractContextManager[object]]) -> Callable[..., Any]:
    """Return a function that does the same, each call within a context of its own."""
    if inspect.iscoroutinefunction(honest):

        @functools.wraps(honest)
        async def awaited(*given: Any, **named: Any) -> Any:
            with each():
                return await honest(*given, **named)

        return awaited

    @functools.wraps(honest)
    def plain(*given: Any, **named: Any) -> Any:
        with each():
            return honest(*given, **named)

    return plain
