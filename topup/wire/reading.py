"""What becomes of an error that others' words have caused while they were read? A sentence that says where.

Decoders raise what they like about what they cannot read: a text that is no UTF-8, a number too long for Python to
print, a date of year 0. None of it is a reason to end, and none of it may quote what was read. A defect of ours looks
the same from here, so that the sentence names the kind of error and the line that raised it.
"""

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from topup.domain.errors import TopupError

F = TypeVar("F", bound=Callable[..., Any])

_OURS = Path(__file__).parents[1]


def nonsense(error: Exception) -> str:
    """Return what an unforeseen error says of what was read: its kind, and where in our code it came up."""
    # An error deep within a decoder says least: our own line before it is where to look.
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _OURS in Path(frame.filename).parents and frame.filename != __file__]
    where = f" at {Path(ours[-1].filename).relative_to(_OURS.parent)}:{ours[-1].lineno}" if ours else ""
    return f"nonsense ({type(error).__name__}{where})"


@contextlib.contextmanager
def reading(who: str, kind: Callable[[str], TopupError]) -> Iterator[None]:
    """Read what `who` has said: whatever that raises, other than what we say of it ourselves, is raised as `kind`."""
    try:
        yield
    except TopupError:
        raise
    except Exception as error:  # noqa: BLE001 - this is the wall
        raise kind(f"{who} gave {nonsense(error)}") from None


def walled(who: str, kind: Callable[[str], TopupError]) -> Callable[[F], F]:
    """Put a function behind the wall that reads what `who` says; it may be asynchronous."""

    def around(reads: F) -> F:
        @functools.wraps(reads)
        def now(*arguments: Any, **named: Any) -> Any:
            with reading(who, kind):
                return reads(*arguments, **named)

        @functools.wraps(reads)
        async def later(*arguments: Any, **named: Any) -> Any:
            with reading(who, kind):
                return await reads(*arguments, **named)

        return cast("F", later if inspect.iscoroutinefunction(reads) else now)

    return around
