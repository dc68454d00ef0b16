"""What can this provider do? Learnt from errors that say so, kept for an hour, then tried again.

Nothing is assumed and nothing is asked for the sake of learning: what was asked anyway was refused, in words about
exactly that. Words about a rate, or about nothing in particular, teach nothing. Wrongly taught is slower at worst: the
same questions are asked, only in smaller batches.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

from topup.chain.refusals import NO_BATCHES, TOO_MANY, speaks_of_batches

# What was learnt counts so long; a provider's owner may have raised a limit since.
LEARNT_S: Final = 3_600


class Trouble(Enum):
    """Why the same is asked once more, or in other words; nothing else follows from it."""

    RATE = "too many questions within a time"
    BEHIND = "a node of a pool is behind the others"
    NO_TIP = "eth_maxPriorityFeePerGas is not served"


class Capabilities:
    """What one provider takes. `now_s` is any clock that only goes forward."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._batch: tuple[int, float] | None = None
        self._met: dict[Trouble, float] = {}

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
            none = NO_BATCHES.search(lowered) or not TOO_MANY.search(lowered)
            fitting = 1 if none else size // 2
        self._batch = (min(fitting, most), now)
        return True

    def met(self, trouble: Trouble) -> None:
        """Remember that this was met."""
        self._met[trouble] = self._now_s()

    def has_met(self, trouble: Trouble) -> bool:
        """Tell whether this was met within the hour."""
        return trouble in self._met and self._now_s() - self._met[trouble] < LEARNT_S
