"""How much may one pass ask, and how long may its long work take?

Long work takes more questions than a pass should wait for: logs over many short ranges, the keys of a big account. It
takes every question from this budget. When the budget is used up the work stops where it is, which is a value and no
error, and the next pass goes on. Each of those who are asked has questions of its own, so that one who makes us ask
often takes none from the others; the seconds run for all of them, so that no answer can stretch a pass.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Final

from topup.ports.account import Clock

# Questions of long work to one of those who are asked, within one pass.
QUESTIONS: Final = 250
# A pass that is told to stop is given 30 seconds to park, see `daemon.PARK_S`.
SECONDS: Final = 20
# So many are asked even where the seconds are used up.
FIRST: Final = 3


class Budget:
    """What is left of one pass; None is no bound, as for a command that somebody waits for."""

    def __init__(self, clock: Clock, *, questions: int | None = QUESTIONS, seconds: int | None = SECONDS) -> None:
        self._clock = clock
        self.questions = questions
        self._seconds = seconds
        self._taken: Counter[Hashable] = Counter()
        self._begun_ms = clock.monotonic_ms()

    def renew(self) -> None:
        """Begin another pass."""
        self._taken.clear()
        self._begun_ms = self._clock.monotonic_ms()

    def take(self, whom: Hashable) -> bool:
        """Take one question to `whom`; False when there is none left in this pass.

        The first few are always there, however long everything else in the pass has taken: long work has to get on.
        """
        taken = self._taken[whom]
        if taken >= FIRST and (self.spent_s() is None or (self.questions is not None and taken >= self.questions)):
            return False
        self._taken[whom] += 1
        return True

    def spent_s(self) -> float | None:
        """Return how many seconds of the pass have gone; None when they are used up."""
        gone = (self._clock.monotonic_ms() - self._begun_ms) / 1000
        return None if self._seconds is not None and gone >= self._seconds else gone

    async def wait(self, seconds: float) -> bool:
        """Wait; False, at once, when that would take longer than the pass may."""
        gone = self.spent_s()
        if gone is None or (self._seconds is not None and gone + seconds > self._seconds):
            return False
        await self._clock.sleep(seconds)
        return True

    def now_ms(self) -> int:
        """Return milliseconds that only ever go forward."""
        return self._clock.monotonic_ms()
