"""What happens when the real daemon runs in the embedded world? `topup sandbox`: the run and its audit.

The daemon is assembled from settings as always; only the addresses, the keys and the clock are the world's. What
the run cost is computed from the first and the last state of the chain and of the provider, and only then held
against the journal.

With `--days` the clock leaps: consumers are busy on working days, somebody buys credits by card once, and the daemon
refills whenever it has to. What is left is a ledger to draw statements from.
"""

import asyncio
import os
import shlex
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from topup.accounting.journal import CREDITS, FEE_OPERATOR, FEE_PROVIDER, IN_TRANSIT, WALLET, Commodity, Entry
from topup.app.connections import opened
from topup.app.daemon import Daemon, SdNotify
from topup.app.settings import load
from topup.commands.answer import labelled
from topup.commands.demo_ground import Ground
from topup.commands.demo_story import Follower
from topup.commands.story import fees
from topup.domain import events
from topup.domain.credits import DAY_MS
from topup.domain.errors import Exit
from topup.domain.events import Event, show
from topup.domain.money import UNITS_PER_USDC, WEI_PER_ETH, Asset, Usd, Usdc, Wei, plain
from topup.ledger.store import SqliteStore
from topup.ports.account import Sink
from topup.sandbox.fault import WALLET_WEI, Fault
from topup.sandbox.world import STEPPED, World

# A run that reaches no verdict within this many seconds of the world ends as it stands.
WORLD_SECONDS_MAX = 1800
SCALE = 10
EXITS = {
    "refilled": Exit.OK,
    "refused": Exit.PERSON,
    "gone": Exit.PERSON,
    "forbidden": Exit.PERSON,
    "unknown": Exit.LATER,
    "waiting": Exit.LATER,
    "uncredited": Exit.MONEY_MAY_HAVE_MOVED,
    "halted": Exit.MONEY_MAY_HAVE_MOVED,
}
# The account of the sandbox, where no setting names another.
ACCOUNT = "default"
# A served world answers at once, so that whoever tries a command need not wait for a production pace.
SERVED = {
    "TOPUP_WATCH__STALENESS_S": "1",
    "TOPUP_WATCH__POLL_FASTEST_S": "1",
    "TOPUP_POSTING__POLL_S": "1",
}
# The sandbox shows a posting that is late without waiting half an hour for it.
QUICK = {
    "TOPUP_POSTING__LATE_S": "300",
    "TOPUP_API__TIMEOUT_S": "1",
    "TOPUP_POSTING__PAY_TIMEOUT_S": "1",
    "TOPUP_POLICY__FAILURES_MAX": "1",
}

# Time passes in sleeps alone: however slow the machine, no quote grows old while it is judged.
DAYS_SCALE: Final = STEPPED
WEALTH: Final = WEI_PER_ETH
PACE: Final = {"TOPUP_WATCH__POLL_SLOWEST_S": "3600"}
# Dollars an hour: on working days between eight and nineteen o'clock, and else.
BUSY, CALM = Decimal("0.90"), Decimal("0.12")
BY_CARD: Final = Decimal(25)


@asynccontextmanager
async def ran(
    world: World,
    directory: Path,
    sink: Sink,
    settings: dict[str, str],
    *,
    glance_s: int,
    over: Callable[[SqliteStore], bool],
) -> AsyncIterator[SqliteStore]:
    """Run the daemon in a started world until this is over, and give the ledger that it leaves."""
    own = {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": os.devnull}
    loaded = load(world.environment() | QUICK | own | settings)
    store = SqliteStore.open_writer(directory)
    async with opened(loaded, store, sink, world.clock) as connections:
        daemon = Daemon(connections.cycle, store, world.clock, sink, loaded.account, SdNotify(None), glance_s=glance_s)
        running = asyncio.create_task(daemon.run())
        while not (running.done() or over(store)):  # noqa: ASYNC110 - the world's clock sets no asyncio.Event
            await asyncio.sleep(0.005)
        daemon.stop("verdict")
        await running
        yield store


async def run(
    world: World, directory: Path, on: Ground, *, fault: Fault | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    """Run the daemon in a started world until there is a verdict; return the audit and the exit code.

    The ledger goes into `directory`; `on` is the ground that the world was built on, `say` takes the story's lines.
    """
    before, began = world.do(lambda: _balances(world, on)), world.clock.now_s()
    pending = [fault] if fault is not None else []
    if fault is not None:
        switched = fault
        world.do(lambda: _switch(world, switched, early=True))

    def first_reading() -> None:
        if pending:
            late = pending.pop()
            world.do(lambda: _switch(world, late, early=False))

    def spend() -> None:
        account = world.gateway.account
        world.do(lambda: account.set_usage(account.total_credits - Decimal("9.9")))

    follower = Follower(
        world.clock.now_s,
        lambda line: say(f"{world.clock.now_s() - began:>5} s  {line}"),
        first_reading,
        spend,
        on.rail,
        refills=fault.refills if fault is not None else 1,
    )

    def over(_: SqliteStore) -> bool:
        return follower.result is not None or world.clock.now_s() - began >= WORLD_SECONDS_MAX

    async with ran(world, directory, follower, {}, glance_s=60, over=over) as store:
        after = world.do(lambda: _balances(world, on))
        moved = Balances(*(now - then for now, then in zip(after, before, strict=True)))
        return _audit(on, follower, store, moved)


def _switch(world: World, fault: Fault, *, early: bool) -> None:
    """Switch on what is wrong from the start, or what means something only once a good balance was seen."""
    seller: Any = world.gateway
    for one in fault.switches:
        if early == (one.place not in ("credits", "balance") or fault.name == "ordinary-key"):
            seller.switch_on(one.place, one.name, one.times)
    if not early and fault.on_world is not None:
        fault.on_world(world)


class Balances(NamedTuple):
    """Where the money is: wei, units of the ground's dollar, the same of whoever is paid, millionths of credit."""

    wei: int
    dollars: int
    payees: int
    credit: int


def _balances(world: World, on: Ground) -> Balances:
    return Balances(
        world.balance(world.wallet),
        world.tokens(on.dollar, world.wallet),
        sum(world.tokens(on.dollar, payee) for payee in on.payees(world)),
        int(world.gateway.account.total_credits * UNITS_PER_USDC),
    )


def booked(entries: Iterable[Entry]) -> Counter[tuple[str, Commodity]]:
    """Return what these entries have brought to each account of the journal, in units of each commodity."""
    sums = Counter[tuple[str, Commodity]]()
    for line in (line for entry in entries for line in entry.lines):
        sums[line.account, line.commodity] += line.units
    return sums


def _matches(store: SqliteStore, dollar: Commodity, moved: Balances) -> bool:
    """Tell whether the journal says of every place what the world shows, as far as top-ups have moved it."""
    sums = booked(entry for entry in store.entries(ACCOUNT) if entry.topup_id)
    credit = sums[CREDITS, Commodity.CREDIT]
    arrived = sum(sums[name, dollar] for name in (IN_TRANSIT, FEE_OPERATOR, FEE_PROVIDER)) + credit
    return moved == Balances(sums[WALLET, Commodity.ETH], sums[WALLET, dollar], arrived, credit)


def _audit(on: Ground, follower: Follower, store: SqliteStore, moved: Balances) -> tuple[dict[str, Any], Exit]:
    matches = _matches(store, on.commodity, moved)
    attempts = [a for t in store.latest(ACCOUNT, 10) for a in t.attempts]
    paid = next((a for a in attempts if a.paid), None)
    spent = sum((a.inclusion.spent for a in attempts if a.inclusion is not None), Wei(0))
    gas = Wei(-moved.wei) - spent
    arrived = Usdc(moved.payees)
    in_eth = on.asset is Asset.ETH
    result = follower.result or "waiting"
    done = next((e for e in follower.seen if isinstance(e, events.TopUpDone)), None)
    readings = [e for e in follower.seen if isinstance(e, events.ReadingTaken)]
    low = done.balance_before_usd if done is not None else None
    document: dict[str, Any] = {
        "schema": 1,
        "rail": on.rail,
        "result": result,
        "credits_before": show(low if low is not None else readings[0].balance_usd) if readings else None,
        "credits_after": str(readings[-1].balance_usd) if readings else None,
        "asset": on.asset.value,
        "asset_spent": plain(spent.eth if in_eth else arrived.usdc),
        "asset_fee": plain(gas.eth if in_eth else Usdc(-moved.dollars - moved.payees).usdc),
        "eth_spent_wei": str(spent.units),
        "gas_wei": str(gas.units),
        "usdc_paid_units": str(arrived.units),
        "usd_per_eth": plain((arrived.usdc / spent.eth).quantize(Decimal("0.01"))) if spent.units else None,
        "usd_per_credit": plain(done.usd_per_credit) if done is not None else None,
        "tx_hash": show(paid.tx_hash) if paid is not None else None,
        "books_match_chain": matches,
        "seconds_dip_to_posted": str(follower.took_s) if follower.took_s is not None else None,
    }
    code = Exit.PERSON if result == "unknown" and follower.lasting else EXITS.get(result, Exit.INTERNAL)
    return document, code if matches or code is not Exit.OK else Exit.INTERNAL


def perform(
    on: Ground, directory: Path, *, fault: Fault | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    """Start a world on this ground, run the daemon in it, and end both."""
    with on.build(SCALE, fault.wallet_wei if fault is not None else WALLET_WEI) as world:
        conduct = world.gateway.conduct
        conduct.staleness_ms, conduct.posting_delay_ms, conduct.late_ms = 20_000, 10_000, 480_000
        return asyncio.run(run(world, directory, on, fault=fault, say=say))


def serve(on: Ground, say: Callable[[str], None]) -> Exit:
    """Keep a world up at the machine's own pace until interrupted, and print how to reach it.

    The environment names a ledger and a settings file of its own: nothing of the sandbox may end up in a real ledger.
    """
    with tempfile.TemporaryDirectory(prefix="topup-sandbox-") as ledger, on.build(1, WALLET_WEI) as world:
        world.gateway.conduct.posting_delay_ms = 2_000
        own = {"TOPUP_STATE_DIR": ledger, "TOPUP_CONFIG": os.devnull}
        for name, value in (world.environment() | SERVED | own).items():
            say(f"export {name}={shlex.quote(value)}")
        say("# the world is up; Ctrl-C ends it")
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
    return Exit.OK


def summary(document: dict[str, Any]) -> list[str]:
    """Return the end of the story."""
    asset, in_eth = document["asset"], document["asset"] == Asset.ETH
    matches = f"match the chain to the {'wei' if in_eth else 'unit'}"
    books = {"books": matches if document["books_match_chain"] else "DO NOT MATCH THE CHAIN"}
    spent = f"{document['asset_spent']} {asset}"
    if document["result"] != "refilled":
        return ["", *labelled(10, {"result": document["result"], f"{asset} spent": spent} | books)]
    fee = [] if in_eth or document["asset_fee"] == "0" else [f"{document['asset_fee']} {asset}"]
    low, high = Usd.of(document["credits_before"]), Usd.of(document["credits_after"])
    price = f"{document['usd_per_credit']} dollars per dollar of credit"
    rows = {
        "credits": f"{low.cents_down()} → {high.cents_down()} dollars",
        f"{asset} spent": f"{spent}, and {fees(fee, Wei(int(document['gas_wei'])))}",
        "price": f"{document['usd_per_eth']} dollars per ETH; {price}" if in_eth else price,
        "dip→posted": f"{document['seconds_dip_to_posted']} s of the world",
    }
    return ["", *labelled(10, rows | books)]


# -- days -------------------------------------------------------------------------------------------------------


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
    with on.build(DAYS_SCALE, WEALTH) as world:
        conduct = world.gateway.conduct
        conduct.staleness_ms, conduct.posting_delay_ms = 20_000, 10_000
        return asyncio.run(_run_days(world, directory, days, on, say))


async def _run_days(
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


def summary_of_days(document: dict[str, Any], directory: Path) -> list[str]:
    """Return the end of a story of days."""
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
