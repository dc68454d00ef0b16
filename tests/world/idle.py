"""What a daemon is given that buys nothing: a clock that leaps, an account at rest, and who hears of it."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.world.long_logs import Leaping
from topup.domain.credits import Reading
from topup.domain.events import Event
from topup.domain.money import Usd
from topup.ports.account import Key


class Leap(Leaping):
    """A clock whose sleeps are over at once; `set_back` moves the time of day and never the monotonic time."""

    back_ms = 0

    def __init__(self) -> None:
        super().__init__()
        self.ms = 1_900_000_000_000  # between five and six in the afternoon

    def now_ms(self) -> int:
        return self.ms - self.back_ms

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)

    def set_back(self, ms: int) -> None:
        self.back_ms += ms


class Account20:
    """An API that shows 20 dollars bought and 5 used, or does what it is told to do instead, once for each."""

    def __init__(self, clock: Leap) -> None:
        self.requests = 0
        self.instead: list[Callable[[], None]] = []
        self._clock = clock

    async def credits(self) -> Reading:
        self.requests += 1
        if self.instead:
            self.instead.pop(0)()
        return Reading(Usd.of(20), Usd.of(5), self._clock.now_ms())

    async def key(self) -> Key:
        self.requests += 1
        return Key(management=True)

    async def charge(self, request: object) -> bytes:
        raise AssertionError("nothing is bought here")


class Heard:
    """A sink that keeps every event, and may act on one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] = lambda _: None

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [e for e in self.events if type(e) is kind]
