"""What can this provider do? Learnt from errors that say so, kept for an hour, then tried again.

Nothing is assumed and nothing is asked for the sake of learning: what was asked anyway was refused, in words about
exactly that. Words about a rate, or about nothing in particular, teach nothing. Wrongly taught is slower at worst: the
same questions are asked, only in other pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# What was learnt counts so long; a provider's owner may have raised a limit since.
LEARNT_S: Final = 3_600
_BATCH: Final = re.compile(r"\bbatch|\barray\b")
_NO_BATCHES: Final = re.compile(r"support|allow|permit|disabled|forbidden|unmarshal array|expected .*object")
_TOO_MANY: Final = re.compile(
    r"limit|large|big|long|many|more than|max|exceed|size|at most|only|calls? in|requests? in|entries|items"
)
_RATE: Final = re.compile(
    r"rate.?limit|\brate\b|too many requests|per (second|minute|hour|day)|/s(ec)?\b|throttl|capacity|\b429\b"
    r"|request limit|compute units|quota|try again later|slow down"
)
# A whole batch that is called no valid request at all: the code that JSON-RPC gives to a body it does not take.
_INVALID_REQUEST: Final = -32600
_NO_METHOD: Final = -32601
_ABSENT: Final = re.compile(
    r"(method|procedure).*(not|un)[ -]?(found|supported|available|exist|allowed|implemented|known|whitelisted|enabled)"
    r"|does not exist|unknown method|unsupported method|not (supported|implemented|available)|unsupported|unavailable"
)
_BEHIND: Final = re.compile(
    r"header (for hash )?not found|block (\S+ )?(was |is )?not found|unknown block|unknown header|no such block"
    r"|could not find block|block not available|beyond (the )?(current |latest )?head"
)


class Capabilities:
    """What one provider takes. `now_s` is any clock that only goes forward."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Know nothing yet: everything is asked as if it were served."""
        self._now_s = now_s
        self._batch: tuple[int, float] | None = None
        self._lacking: dict[str, float] = {}

    @property
    def batch_max(self) -> int | None:
        """Return how many calls it takes in a batch; None while no limit is known."""
        if self._batch is not None and self._now_s() - self._batch[1] >= LEARNT_S:
            self._batch = None
        return None if self._batch is None else self._batch[0]

    def refused_batch(self, size: int, code: int, text: str, *, whole: bool) -> bool:
        """Learn from what was said to a batch of `size` calls; tell whether a smaller one may be taken.

        `whole` says that the words were about the batch, not in the place of one answer.
        """
        if size < 2 or not speaks_of_batches(code, text, whole=whole):
            return False
        now, most = self._now_s(), size - 1 if self.batch_max is None else min(size - 1, self.batch_max)
        named = [int(number) for number in re.findall(r"(?<![\w.-])\d{1,6}(?![\w.-]*\w)", text)]
        # The largest that explains the refusal: "batch limit 10 exceeded: 11 requests given", "10 calls in 1 batch".
        fitting = max((number for number in named if 1 <= number < size), default=None)
        lowered = text.lower()
        if fitting is None:
            none = _NO_BATCHES.search(lowered) or not _TOO_MANY.search(lowered)
            fitting = 1 if none else size // 2
        self._batch = (min(fitting, most), now)
        return True

    def lacks(self, method: str) -> bool:
        """Tell whether it said within the hour that it does not serve this method."""
        learnt = self._lacking.get(method)
        if learnt is not None and self._now_s() - learnt >= LEARNT_S:
            del self._lacking[method]
            return False
        return learnt is not None

    def without(self, method: str) -> None:
        """Remember that it does not serve this method."""
        self._lacking[method] = self._now_s()


def speaks_of_batches(code: int, text: str, *, whole: bool) -> bool:
    """Tell whether an error says that a batch was too large, or that there are none."""
    lowered = text.lower()
    if _RATE.search(lowered) and not re.search(r"batch[\w ]{0,20}(size|too)|calls? in \w+ batch", lowered):
        return False
    if _BATCH.search(lowered) and (whole or _TOO_MANY.search(lowered) or _NO_BATCHES.search(lowered)):
        return True
    return whole and code == _INVALID_REQUEST and lowered.startswith("invalid request")


def speaks_of_rate(code: int, text: str) -> bool:
    """Tell whether an error only asks for patience: the same question may be answered a second later."""
    return code in (429, -32029) or _RATE.search(text.lower()) is not None


def speaks_of_absence(code: int, text: str) -> bool:
    """Tell whether an error says that there is no such method or parameter here; a rate limit does not."""
    if speaks_of_rate(code, text):
        return False
    return code == _NO_METHOD or _ABSENT.search(text.lower()) is not None


def speaks_of_a_node_behind(text: str) -> bool:
    """Tell whether an error says that this node does not have the block; another of the same pool may."""
    return _BEHIND.search(text.lower()) is not None
