"""What do sellers share that carry payments to the chain? Faults of their own, answers, and when credits are due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any, ClassVar, Final, cast

from topup.sandbox import gateway
from topup.sandbox.gateway import LARGE_USD, Account, Conduct, Gateway, Seen, Switched, json_text
from topup.sandbox.http import Raw, Request, Response
from topup.sandbox.wire import WIRE_FAULTS

Json = Any

LOOK_S: Final = 0.05
STEP_S: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChainSeller(Gateway):
    """A gateway that sells at endpoints of its own, spoilt at places of their own.

    Attributes:
        faults_at: the faults of each of its own places; the gateway's places stay as they are.
        kept: paths that are answered as the gateway answers them.
    """

    faults_at: ClassVar[Mapping[Any, frozenset[str]]]
    kept: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, account: Account, *, conduct: Conduct) -> None:
        """Sell to this account; its clock is the seller's."""
        super().__init__(account, conduct=conduct)
        self._spoilt: dict[str, list[Switched]] = {place: [] for place in self.faults_at}

    # Faults.

    def switch_on(self, place: str, name: str, times: int | None = None) -> None:
        """Spoil the next `times` requests at `place` (None: all), as the gateway does.

        Raises KeyError for a fault that this place does not have.
        """
        if place not in self.faults_at:
            super().switch_on(cast(gateway.Place, place), name, times)
        elif name not in self.faults_at[place]:
            raise KeyError(f"{place} has no fault called {name!r}")
        else:
            self._spoilt[place].append(Switched(name, times))

    def switch_off(self, place: str | None = None) -> None:
        """End all faults, or those of one place."""
        if place is None:
            super().switch_off()
            for switched in self._spoilt.values():
                switched.clear()
        elif place in self.faults_at:
            self._spoilt[place].clear()
        else:
            super().switch_off(cast(gateway.Place, place))

    def _spoil(self, place: str, seen: Seen) -> str:
        """Return the fault that spoils this request, noted in it; "" for none."""
        for fault in self._spoilt[place]:
            if fault.left != 0:
                fault.left = None if fault.left is None else fault.left - 1
                seen.fault = fault.name
                return fault.name
        return ""

    def _wired(self, fault: str, honest: bytes = b"{}") -> Response | Raw | None:
        """Return what a fault of the wire makes of an honest body; None for a fault of another kind."""
        return WIRE_FAULTS[fault](self.wire, lambda: honest) if fault in WIRE_FAULTS else None

    def _redirect(self, path: str) -> Response:
        """Answer with a redirect that keeps method, body and headers: a payment would follow it."""
        return Response(307, b"", {"location": f"{self.wire.elsewhere}{path}"})

    # Requests.

    async def _answer(self, request: Request) -> Response | Raw:
        if request.path in self.kept:
            return await super()._answer(request)
        seen = Seen(self.now_ms(), request.method, request.path, request.body, self._key_of(request))
        self.requests.append(seen)
        answer = await self._answer_own(request, seen)
        if isinstance(answer, Response):
            seen.status = answer.status
        return answer

    async def _answer_own(self, request: Request, seen: Seen) -> Response | Raw:
        """Answer a request to one of its own endpoints."""
        raise NotImplementedError

    # Credits.

    def _must_credit(self, settled_ms: int | None, usd: Decimal) -> bool:
        """Tell whether credits for so many dollars are due, which the chain settled then (None: has not settled)."""
        fault = self._current("posting")
        if settled_ms is None or fault == "never-posts":
            return False
        delay_ms = self.conduct.large_posting_delay_ms if usd > LARGE_USD else self.conduct.posting_delay_ms
        return self.now_ms() >= settled_ms + delay_ms + (self.conduct.late_ms if fault == "posts-late" else 0)


async def wait_until(
    done: Callable[[], bool], seconds: float, sleep: Callable[[float], Awaitable[None]] | None = None
) -> None:
    """Ask again and again whether the chain has decided, for so many seconds of the machine at most.

    Where time passes only in sleeps it is `sleep` that lets blocks come, and the seconds are the world's.
    """
    if sleep is not None:
        for _ in range(ceil(seconds / STEP_S)):
            if done():
                return
            await sleep(STEP_S)
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not done() and loop.time() < end:  # noqa: ASYNC110 - a chain does not call back
        await asyncio.sleep(LOOK_S)


def answer_of(status: int, body: Mapping[str, Json], headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON in which a Decimal is a number with its own digits."""
    return Response(status, json_text(body).encode(), {"content-type": "application/json", **(headers or {})})


def moment(unix_ms: int) -> str:
    """Return unix milliseconds as RFC 3339 in UTC."""
    return (EPOCH + timedelta(milliseconds=unix_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_ms_of(text: str) -> int:
    """Return unix milliseconds of a moment in ISO 8601. Raises ValueError."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
