"""What do the books look like after the daemon has run for days? The embedded world, with a clock that leaps.

Consumers are busy on working days, somebody buys credits by card once, and the daemon refills whenever it has to. What
is left is a ledger to draw statements from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from topup.accounting.journal import CREDITS, WALLET, Commodity
from topup.commands.demo import ACCOUNT, booked, ran
from topup.commands.demo_ground import Ground
from topup.domain import events
from topup.domain.credits import DAY_MS
from topup.domain.errors import Exit
from topup.domain.events import Event
from topup.domain.money import WEI_PER_ETH
from topup.ledger.store import SqliteStore
from topup.sandbox.world import STEPPED, World

# Time passes in sleeps alone: however slow the machine, no quote grows old while it is judged.
SCALE: Final = STEPPED
WEALTH: Final = WEI_PER_ETH
PACE: Final = {"TOPUP_WATCH__POLL_SLOWEST_S": "3600"}
# Dollars an hour: on working days between eight and nineteen o'clock, and else.
BUSY, CALM = Decimal("0.90"), Decimal("0.12")
BY_CARD: Final = Decimal(25)


@dataclass
class Life:
    """A sink that tells what is done, and lets the world go on while it listens."""

    world: World
    say: Callable[[str], None]
    began_ms: int
    done: int = 0
    halted: list[str] = field(default_factory=list)
    _carded: bool = False

    def emit(self, event: Event) -> None:
        """Take one event of the daemon."""
        match event:
            case events.ReadingTaken():
                self._live()
            case events.TopUpDone():
                self.done += 1
                day = (self.world.clock.now_ms() - self.began_ms) // DAY_MS + 1
                self.say(f"day {day:>3}  {self.done} refilled: balance {event.balance_after_usd.cents_down()} dollars")
            case events.TopUpHalted():
                self.halted.append(event.reason)
                self.say(f"halted: {event.reason}")

    def _live(self) -> None:
        now_ms, account = self.world.clock.now_ms(), self.world.gateway.account
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        busy = now.weekday() < 5 and 8 <= now.hour < 19
        self.world.do(lambda: account.set_burn_rate(BUSY if busy else CALM))
        if not self._carded and now_ms - self.began_ms > 3 * DAY_MS:
            self._carded = True
            self.world.do(lambda: account.buy_elsewhere(BY_CARD))
            self.say(f"somebody buys {BY_CARD} dollars by card")


def live(on: Ground, directory: Path, *, days: int, say: Callable[[str], None]) -> tuple[dict[str, Any], Exit]:
    """Let the daemon run for so many days of a world, and hold its books against chain and provider."""
    with on.build(SCALE, WEALTH) as world:
        conduct = world.gateway.conduct
        conduct.staleness_ms, conduct.posting_delay_ms = 20_000, 10_000
        return asyncio.run(_run(world, directory, days, on, say))


async def _run(
    world: World, directory: Path, days: int, on: Ground, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    def held() -> dict[Commodity, int]:
        dollars = world.do(lambda: world.tokens(on.dollar, world.wallet))
        return {Commodity.ETH: world.do(lambda: world.balance(world.wallet)), on.commodity: dollars}

    began, began_ms = held(), world.clock.now_ms()
    sink = Life(world, say, began_ms)

    def over(store: SqliteStore) -> bool:
        late = world.clock.now_ms() - began_ms >= days * DAY_MS
        return bool(sink.halted) or (late and store.open_topup(ACCOUNT) is None)

    async with ran(world, directory, sink, PACE, glance_s=3600, over=over) as store:
        known = {at.commodity for at in store.balance_assertions(ACCOUNT)}
        # What the wallet began with is booked at its first checkpoint, on the second day.
        wanted = {name: units - (0 if name in known else began[name]) for name, units in held().items()}
        sums = booked(store.entries(ACCOUNT))
        wallet = {name: units for (place, name), units in sums.items() if place == WALLET and units}
        chain = wallet == {name: units for name, units in wanted.items() if units}
        provider = _closed(store)
        document = {
            "schema": 1,
            "rail": next((topup.rail for topup in store.latest(ACCOUNT, 1)), None),
            "days": days,
            "topups": sink.done,
            "halted": sink.halted,
            "books_match_chain": chain,
            "books_match_provider": provider,
            "ledger_head": store.head(),
        }
        return document, Exit.OK if chain and provider and not sink.halted else Exit.INTERNAL


def summary(document: dict[str, Any], directory: Path) -> list[str]:
    """Return the end of the story."""
    chain = "match the chain to the last unit" if document["books_match_chain"] else "DO NOT MATCH THE CHAIN"
    provider = "and the provider to the cent" if document["books_match_provider"] else "AND NOT THE PROVIDER"
    return [
        "",
        f"refills    {document['topups']} in {document['days']} days",
        f"books      {chain}, {provider}; head {document['ledger_head']}",
        f"look       TOPUP_STATE_DIR={directory} topup statement",
    ]


def _closed(store: SqliteStore) -> bool:
    """Tell whether the books hold, at their last closing, exactly what the provider showed then."""
    closed = store.closed(ACCOUNT)
    if closed is None:
        return False
    sums = booked(entry for entry in store.entries(ACCOUNT) if entry.at_ms <= closed.at_ms)
    return sums[CREDITS, Commodity.CREDIT] == closed.credits - closed.usage
