"""How do messages leave the outbox? Beside the passes, which never wait for it; at least once, with back-off."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from topup.app.digest import Digests
from topup.domain import events
from topup.domain.credits import HOUR_MS
from topup.domain.errors import TopupError
from topup.domain.messages import ASKED_FOR, OF_TARGETS, MessageKind, Tier
from topup.ports.account import Clock, Sink
from topup.ports.outbox import Message, Outbox, Undelivered

# How often it is looked whether there is something to tell.
LOOK_S: Final = 5
# And after a defect, which will hardly mend itself.
DEFECT_S: Final = 300
FIRST_WAIT_MS: Final = 30_000
WAIT_MAX_MS: Final = 3_600_000
PATIENCE_MS: Final = 3 * 86_400_000
# After so many tries in vain a target is said to be dead.
DEAD_AFTER: Final = 5


class Target(Protocol):
    """Whoever is told."""

    async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
        """Give it one message under its id; raise `Undelivered` where it is not taken."""

    async def close(self) -> None:
        """Close what is open."""


@dataclass(frozen=True)
class Listener:
    """A target, and what it wants to hear: nothing less urgent than `least`; in the quiet hours only what is critical.

    What a person has asked for is told whatever `least` is, which is there to be spared what nobody asked for. `quiet`
    are hours of the day in UTC, from and until.
    """

    target: Target
    least: Tier = Tier.INFO
    quiet: tuple[int, int] | None = None

    def hears(self, kind: MessageKind) -> bool:
        """Tell whether it wants to hear messages of this kind."""
        return kind.tier >= self.least or kind in ASKED_FOR

    def quiet_until(self, tier: int, now_ms: int) -> int | None:
        """Return when a message may be told that has to wait for the end of the quiet hours; None: now."""
        if self.quiet is None or tier >= Tier.CRITICAL:
            return None
        first, last = self.quiet
        hour, length = now_ms // HOUR_MS % 24, (last - first) % 24
        past = (hour - first) % 24
        return (now_ms // HOUR_MS + length - past) * HOUR_MS if past < length else None


@dataclass(frozen=True)
class Courier:
    """Tells the targets of an account what is due to them; `targets` by the name under which the ledger knows them.

    `digests` stores first what is told when a day or a week is over; None where nobody wants that.
    """

    outbox: Outbox
    targets: Mapping[str, Listener]
    account: str
    clock: Clock
    sink: Sink
    digests: Digests | None = None

    def follow(self) -> None:
        """Begin to tell targets that are new; what was before is not told to them."""
        for name in self.targets:
            self.outbox.follow(self.account, name, self._now())

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self.clock.sleep(LOOK_S if await self.deliver() else DEFECT_S)

    async def deliver(self, *, last: bool = False) -> bool:
        """Tell each target what is due to it now; a slow one keeps no other waiting. Return False after a defect.

        With `last` this process will not look again. Nothing is raised: whoever has paid must not fail because of what
        is told of it.
        """
        self._digest(last=last)
        each = (self._deliver_to(name, listener) for name, listener in self.targets.items())
        failed = [error for error in await asyncio.gather(*each, return_exceptions=True) if error is not None]
        # Of a ledger that cannot be read or written the pass itself says what is wrong.
        defects = [type(error).__name__ for error in failed if not isinstance(error, TopupError)]
        if defects:
            self.sink.emit(events.TargetFailed(target="", detail=f"a defect: {', '.join(defects)}", tries=0))
        return not defects

    def _digest(self, *, last: bool) -> None:
        try:
            if self.digests is not None:
                self.digests.write(last=last)
        except TopupError:
            pass
        except Exception as error:  # noqa: BLE001 - what cannot be reckoned keeps nothing else from being told
            self.sink.emit(events.TargetFailed(target="", detail=f"a digest: {type(error).__name__}", tries=0))

    async def _deliver_to(self, name: str, listener: Listener) -> None:
        # What is behind another of its subject comes up once that is over.
        while due := self.outbox.due(self.account, name, self._now()):
            for message in due:
                await self._send(name, listener, message)

    async def _send(self, name: str, listener: Listener, message: Message) -> None:
        of_itself = message.kind in OF_TARGETS and message.data.get("target") == name
        if of_itself or not listener.hears(message.kind):
            self.outbox.pass_over(message, name, self._now())
            return
        until_ms = listener.quiet_until(message.kind.tier, self._now())
        if until_ms is not None:
            self.outbox.wait(message, name, until_ms)
            return
        try:
            await listener.target.send(message.id, self._now() // 1000, message.document())
        except Undelivered as error:
            self._not_taken(name, message, error)
        else:
            self.outbox.accepted(message, name, self._now())
            self._dead(name, on=False, detail="it takes messages again")

    def _not_taken(self, name: str, message: Message, error: Undelivered) -> None:
        now, tries, why = self._now(), self.outbox.tries(message, name) + 1, str(error)
        if error.final or now - message.at_ms > PATIENCE_MS:
            event = events.MessageSetAside(target=name, message=message.kind.value, detail=why)
            self.outbox.set_aside(message, name, now, why, reason=event.name(), remedy=event.todo)
            self.sink.emit(event)
            return
        self.outbox.retry(message, name, now + min(FIRST_WAIT_MS * 2 ** min(tries - 1, 10), WAIT_MAX_MS), why)
        failed = events.TargetFailed(target=name, detail=why, tries=tries)
        if tries >= DEAD_AFTER and self._dead(name, on=True, reason=failed.name(), detail=why, remedy=failed.todo):
            self.sink.emit(failed)

    def _dead(self, name: str, *, on: bool, **told: str) -> bool:
        """Raise or end the alarm that a target is dead, which the others are told; return whether that is new."""
        kind = MessageKind.TARGET_DEAD
        return self.outbox.alarm(self.account, kind, self._now(), on=on, about=name, target=name, **told)

    def _now(self) -> int:
        return self.outbox.now_ms(self.clock.now_ms())

    async def close(self) -> None:
        """Close every target."""
        for listener in self.targets.values():
            await listener.target.close()
