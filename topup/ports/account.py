"""What does the flow need of the account: its credits, its key, the time, and somewhere to tell events?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.accounting.usage import Activity, ApiKey
    from topup.domain.credits import Reading
    from topup.domain.demand import Request
    from topup.domain.events import Event


class Clock(Protocol):
    """Time, and waiting for it; see `topup/wire/clock.py`."""

    def now_ms(self) -> int: ...
    def monotonic_ms(self) -> int: ...
    async def sleep(self, seconds: float) -> None: ...


class Sink(Protocol):
    """Where events go; taking one never raises."""

    def emit(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Key:
    """What GET /key says of the API key."""

    management: bool


class Api(Protocol):
    """The prepaid account; see `topup/sellers/openrouter.py`. Every failure is an `ApiError`."""

    @property
    def requests(self) -> int: ...
    async def credits(self) -> Reading: ...
    async def key(self) -> Key: ...
    async def charge(self, request: Request) -> bytes: ...


class Usage(Protocol):
    """What the provider tells of usage, beyond the totals. Every failure is an `ApiError`, `ApiGone` without any."""

    async def activity(self, *, key_hash: str | None = None) -> list[Activity]: ...
    async def keys(self, offset: int = 0) -> tuple[list[ApiKey], bool]: ...
