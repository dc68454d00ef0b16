"""How does a seller carry payments to the chain? Sent once, now or later, waited for, and credited when settled."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final

from topup.sandbox.gateway import Conduct, Gateway

LOOK_S: Final = 0.05
STEP_S: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """A payment that is not taken: the answer's status, a word for the reason, what was wrong, and a seller's code."""

    def __init__(self, status: int, reason: str, detail: str, code: str = "") -> None:
        """Keep the four parts."""
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.code = code


@dataclass
class CarryingConduct(Conduct):
    """How a seller behaves that carries payments to the chain.

    Attributes:
        wait_s: how long the chain is waited for before the answer is that nothing is known yet, in seconds of the
            machine, or of a stepped world.
        settles_late_ms: how long a payment is kept back by the faults that settle late.
    """

    wait_s: float = 10
    settles_late_ms: int = 10_000


@dataclass(kw_only=True)
class Carried:
    """A payment that was taken, and what became of it; `due_ms` when it is still to be sent to the chain."""

    due_ms: int | None = None
    sent: bool = False
    settled_ms: int | None = None


class ChainSeller(Gateway):
    """A gateway that takes signed payments, and settles each on the chain once."""

    conduct: CarryingConduct

    def _carried(self) -> Iterable[Any]:
        """Return every payment that was taken."""
        raise NotImplementedError

    def _submit(self, payment: Any, fault: str = "") -> None:
        """Send a payment to the chain. Raises Refused for what the chain will not have."""
        raise NotImplementedError

    def _look(self, payment: Any) -> bool:
        """Tell whether the chain has decided about a payment; mark it."""
        raise NotImplementedError

    def _credit_due(self) -> None:
        """Post the credits that are due."""
        raise NotImplementedError

    async def _settle(self, payment: Any, fault: str) -> None:
        """Send a payment to the chain and wait until the chain has decided. Raises Refused."""
        if payment.settled_ms is not None or fault in ("never-settles", "accepts-never-settles"):
            return
        if fault in ("settles-late", "refuses-settles-late") and not payment.sent:
            payment.due_ms = payment.due_ms or self.now_ms() + self.conduct.settles_late_ms
            return
        self._submit(payment, fault)
        await wait_until(lambda: self._look(payment), self.conduct.wait_s, self.sleep)

    def poll(self) -> None:
        """Send what was kept back, look for what was not confirmed, and post the credits that are due."""
        for payment in list(self._carried()):
            with suppress(Refused):  # Nobody is left to be told; it will not settle.
                if payment.due_ms is not None and payment.due_ms <= self.now_ms():
                    self._submit(payment)
                if payment.sent:
                    self._look(payment)
        self._credit_due()


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


def moment(unix_ms: int) -> str:
    """Return unix milliseconds as RFC 3339 in UTC."""
    return (EPOCH + timedelta(milliseconds=unix_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_ms_of(text: str) -> int:
    """Return unix milliseconds of a moment in ISO 8601. Raises ValueError."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
