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
    """Time, and waiting for it."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""

    def monotonic_ms(self) -> int:
        """Return milliseconds that only ever go forward, from an unspecified start."""

    async def sleep(self, seconds: float) -> None:
        """Wait; may return early only by cancellation."""


class Sink(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None:
        """Take one event; never raises."""


@dataclass(frozen=True)
class Key:
    """What GET /key says of the API key."""

    management: bool


class Api(Protocol):
    """The prepaid account. Every failure is an `ApiError`."""

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""

    async def credits(self) -> Reading:
        """Read the account's two totals, stamped with the time the request was sent."""

    async def key(self) -> Key:
        """Ask what kind of key this is."""

    async def charge(self, request: Request) -> bytes:
        """Request a charge; return the answer's raw bytes. Two calls are two charges."""


class Usage(Protocol):
    """What the provider tells of usage, beyond the totals. Every failure is an `ApiError`."""

    async def activity(self, *, key_hash: str | None = None) -> list[Activity]:
        """Ask what was used on the UTC days that are over, newest 30; of one key where that is named."""

    async def keys(self, offset: int = 0) -> tuple[list[ApiKey], bool]:
        """Ask for a page of the account's keys, disabled ones included; tell whether there may be more behind it."""
