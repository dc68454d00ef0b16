"""What is there to tell, and where is it kept until it is told?"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from topup.domain.messages import MessageKind


class Undelivered(Exception):
    """It was not taken; `final` where trying again is of no use. The text holds neither URL nor secret."""

    def __init__(self, says: str, *, final: bool = False) -> None:
        """Keep whether it is final."""
        super().__init__(says)
        self.final = final


@dataclass(frozen=True)
class Message:
    """One message as it is stored; `at_ms` in unix milliseconds, `seed` tells its ledger from every other."""

    number: int
    kind: MessageKind
    at_ms: int
    data: Mapping[str, Any]
    seed: str

    @property
    def subject(self) -> str:
        """What it is about: a top-up, or an alarm."""
        return str(self.data["subject"])

    @property
    def id(self) -> str:
        """The id under which it is delivered, however often: whoever has seen it drops it."""
        return f"msg_{hashlib.sha256(f'{self.seed}:{self.number}'.encode()).hexdigest()[:24]}"

    def document(self) -> dict[str, Any]:
        """Return it as a webhook's body has it: type, time and data (Standard Webhooks, payload structure)."""
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"type": self.kind.value, "timestamp": at, "data": dict(self.data)}


class Outbox(Protocol):
    """Where messages are kept, and what became of them."""

    def alarm(
        self, account: str, kind: MessageKind, at_ms: int, *, on: bool, about: str = ..., **data: str
    ) -> bool: ...
    def follow(self, account: str, target: str, now_ms: int) -> None: ...
    def due(self, account: str, target: str, now_ms: int) -> list[Message]: ...
    def tries(self, message: Message, target: str) -> int: ...
    def accepted(self, message: Message, target: str, at_ms: int) -> None: ...
    def retry(self, message: Message, target: str, next_ms: int, why: str) -> None: ...
    def wait(self, message: Message, target: str, next_ms: int) -> None: ...
    def pass_over(self, message: Message, target: str, at_ms: int) -> None: ...
    def set_aside(self, message: Message, target: str, at_ms: int, why: str, **told: str) -> None: ...
    def now_ms(self, machine_ms: int) -> int: ...
