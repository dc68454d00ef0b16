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
from topup.app.connections import opened
from topup.app.daemon import Daemon, SdNotify
from topup.app.settings import load
from topup.commands.demo import REHEARSED, Ground
from topup.domain import events
from topup.domain.credits import DAY_MS
from topup.domain.errors import Exit
from topup.domain.events import Event
from topup.domain.money import WEI_PER_ETH, Asset
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
        return asyncio.run(_run(world, directory, days, on.asset, on.dollar, say))


async def _run(
    world: World, directory: Path, days: int, asset: Asset, dollar: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    environment = world.environment() | REHEARSED | PACE
    loaded = load(environment | {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"})
    dollar_of = Commodity.USDC if asset is Asset.ETH else Commodity(asset)
    wei, units = world.do(lambda: (world.balance(world.wallet), world.tokens(dollar, world.wallet)))
    began_ms = world.clock.now_ms()
    sink = Life(world, say, began_ms)
    store = SqliteStore.open_writer(directory)
    async with opened(loaded, store, sink, world.clock) as connections:
        daemon = Daemon(connections.cycle, store, world.clock, sink, loaded.account, SdNotify(None), glance_s=3600)
        task = asyncio.create_task(daemon.run())

        def over() -> bool:
            late = world.clock.now_ms() - began_ms >= days * DAY_MS
            return task.done() or bool(sink.halted) or (late and store.open_topup(loaded.account) is None)

        while not over():  # noqa: ASYNC110 - the world's clock sets no asyncio.Event, so this looks
            await asyncio.sleep(0.01)
        daemon.stop("the days are over")
        await task
        left_wei, left = world.do(lambda: (world.balance(world.wallet), world.tokens(dollar, world.wallet)))
        known = {one.commodity for one in store.balance_assertions(loaded.account)}
        # What the wallet began with is booked at its first checkpoint, on the second day.
        began = {Commodity.ETH: wei, dollar_of: units}
        wanted = {Commodity.ETH: left_wei, dollar_of: left}
        wanted = {one: held - (0 if one in known else began[one]) for one, held in wanted.items()}
        chain = _booked(store, loaded.account) == {k: v for k, v in wanted.items() if v}
        provider = _closed(store, loaded.account)
        document = {
            "schema": 1,
            "rail": rail_of(store, loaded.account),
            "days": days,
            "topups": sink.done,
            "halted": sink.halted,
            "books_match_chain": chain,
            "books_match_provider": provider,
            "ledger_head": store.head(),
        }
        return document, Exit.OK if chain and provider and not sink.halted else Exit.INTERNAL


def rail_of(store: SqliteStore, account: str) -> str | None:
    """Return the rail of the newest top-up, None before the first."""
    return next((one.rail for one in store.latest(account, 1)), None)


def summary(told: dict[str, Any], directory: Path) -> list[str]:
    """Return the end of the story."""
    chain = "match the chain to the last unit" if told["books_match_chain"] else "DO NOT MATCH THE CHAIN"
    provider = "and the provider to the cent" if told["books_match_provider"] else "AND NOT THE PROVIDER"
    return [
        "",
        f"refills    {told['topups']} in {told['days']} days",
        f"books      {chain}, {provider}; head {told['ledger_head']}",
        f"look       TOPUP_STATE_DIR={directory} topup statement",
    ]


def _booked(store: SqliteStore, account: str) -> dict[Commodity, int]:
    sums: dict[Commodity, int] = {}
    for line in (x for entry in store.entries(account) for x in entry.lines if x.account == WALLET):
        sums[line.commodity] = sums.get(line.commodity, 0) + line.units
    return {commodity: units for commodity, units in sums.items() if units}


def _closed(store: SqliteStore, account: str) -> bool:
    """Tell whether the books hold, at their last closing, exactly what the provider showed then."""
    closed = store.closed(account)
    if closed is None:
        return False
    before = (e for e in store.entries(account) if e.at_ms <= closed.at_ms)
    held = sum(x.units for e in before for x in e.lines if x.account == CREDITS)
    return held == closed.credits - closed.usage
