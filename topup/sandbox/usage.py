"""Which models and keys does the usage of the sandbox's account fall on?

Fixed shares of each UTC day, so that the parts of a day always sum to what the account has used on it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

# Of a hundred parts: by which key, with which model.
SHARES: Final = (("web", "example/large", 45), ("web", "example/small", 20), ("batch", "example/small", 25))
REST: Final = ("ci", "example/large")
DAYS: Final = 30
STEP: Final = Decimal("0.000000001")
# So many tokens for a dollar, and for a request.
TOKENS_A_USD: Final = 200_000
TOKENS_A_REQUEST: Final = 4_000


def key_hash(name: str) -> str:
    """Return what the provider calls a key: 64 hex digits."""
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """What one key has used with one model on one UTC day, dollars."""

    day: date
    key: str
    model: str
    usd: Decimal


class Parts:
    """The usage of an account, taken apart; `used_at` tells what it had used in all at a moment (ms)."""

    def __init__(self, used_at: Callable[[int], Decimal], now_ms: Callable[[], int]) -> None:
        """Nothing is kept: every question is answered from the account's own curve."""
        self._used_at = used_at
        self._now_ms = now_ms

    def of(self, day: date) -> list[Part]:
        """Return the parts of one day, so far when it is today."""
        begins = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
        ends = min(begins + 86_400_000, self._now_ms())
        used = max(self._used_at(ends) - self._used_at(begins), Decimal(0)) if ends > begins else Decimal(0)
        parts = [Part(day, key, model, (used * share / 100).quantize(STEP)) for key, model, share in SHARES]
        rest = used - sum((part.usd for part in parts), Decimal(0))
        return [part for part in (*parts, Part(day, *REST, rest)) if part.usd]

    def tells(self, day: str) -> bool:
        """Tell whether this is, as YYYY-MM-DD, one of the last days that are over."""
        today = self._today()
        return day in {(today - timedelta(days=ago)).isoformat() for ago in range(1, DAYS + 1)}

    def activity(self, day: str | None, key: str | None) -> Iterator[dict[str, Any]]:
        """Answer `GET /activity`: the last days that are over."""
        today = self._today()
        for ago in range(DAYS, 0, -1):
            for part in self.of(today - timedelta(days=ago)):
                if day in (None, part.day.isoformat()) and key in (None, key_hash(part.key)):
                    yield _item(part)

    def keys(self, idle: int = 0, disabled: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """Answer `GET /keys`: all in the order of their names, so many never used; `disabled` by name."""
        today = self._today()
        whole = [part for ago in range(400) for part in self.of(today - timedelta(days=ago))]
        names = sorted({key for key, _, _ in SHARES} | {REST[0]} | {f"idle-{n}" for n in range(idle)})

        def used(name: str, since: date) -> Decimal:
            return sum((part.usd for part in whole if part.key == name and part.day >= since), Decimal(0))

        return [
            {
                "hash": key_hash(name),
                "name": name,
                "label": f"sk-or-v1-{name[:3]}...box",
                "disabled": name in disabled,
                "usage": used(name, date.min),
                "usage_daily": used(name, today),
                "created_at": "2026-01-01T00:00:00Z",
                "updated_at": None,
            }
            for name in names
        ]

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now_ms() // 1000, UTC).date()


def _item(part: Part) -> dict[str, Any]:
    tokens = int(part.usd * TOKENS_A_USD)
    return {
        "date": part.day.isoformat(),
        "model": part.model,
        "model_permaslug": part.model,
        "endpoint_id": "00000000-0000-4000-8000-000000000000",
        "provider_name": "Example",
        "usage": part.usd,
        "byok_usage_inference": Decimal(0),
        "requests": max(1, tokens // TOKENS_A_REQUEST),
        "prompt_tokens": tokens * 4 // 5,
        "completion_tokens": tokens // 5,
        "reasoning_tokens": 0,
    }
