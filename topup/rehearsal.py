"""What happens when the real daemon runs in the embedded world? `topup sandbox`: the run, its story, its audit.

The daemon is assembled from settings as always; only the addresses, the keys and the clock are the world's. What
the run cost is computed from the first and the last state of the chain and of the provider, and only then held
against the journal.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from topup import events
from topup.assemble import works
from topup.books import CREDITS, FEE_OPERATOR, FEE_PROVIDER, IN_TRANSIT, WALLET, Commodity
from topup.credits import LASTING
from topup.daemon import Daemon, Heart
from topup.errors import Exit
from topup.events import Event
from topup.money import UNITS_PER_USDC, Usd, Usdc, Wei, plain
from topup.sandbox.faults import WALLET_WEI, Fault
from topup.sandbox.gateway import Conduct
from topup.sandbox.rpc import Chain
from topup.sandbox.world import FEE_DESTINATION, World, embedded
from topup.settings import load
from topup.store.sqlite import SqliteStore

# A run that reaches no verdict within this many seconds of the world ends as it stands.
WORLD_SECONDS_MAX = 1800
REPEATS = 3
SCALE = 10
PATIENCE_AFTER_LATE_S = 300
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
# Events that end a run at once, and those that end it when they repeat.
ENDS: dict[type[Event], str] = {events.TopUpForbidden: "forbidden", events.TopUpHalted: "halted"}
REPEATED: dict[type[Event], str] = {
    events.ChargeUnanswered: "waiting",
    events.CycleFailed: "failed",
}
# A served world answers at once, so that whoever tries a command need not wait for a production pace.
SERVED = {
    "TOPUP_WATCH__STALENESS_S": "1",
    "TOPUP_WATCH__POLL_FASTEST_S": "1",
    "TOPUP_POSTING__POLL_S": "1",
}
# The sandbox shows a posting that is late without waiting half an hour for it.
REHEARSED = {
    "TOPUP_POSTING__LATE_S": "300",
    "TOPUP_API__TIMEOUT_S": "1",
    "TOPUP_POLICY__FAILURES_MAX": "1",
}


@dataclass
class Witness:
    """A sink that follows the run, tells it, and knows when it is over."""

    now_s: Callable[[], int]
    say: Callable[[str], None]
    first_reading: Callable[[], None]
    spend: Callable[[], None]
    told: list[Event] = field(default_factory=list)
    result: str | None = None
    dipped_s: int | None = None
    posted_s: int | None = None
    late_s: int | None = None
    lasting: bool = False
    refills: int = 1
    _in_a_row: dict[str, int] = field(default_factory=dict)

    def emit(self, event: Event) -> None:  # noqa: C901 - a table of events, read top to bottom
        """Take one event of the daemon."""
        self.told.append(event)
        line = sentence(event)
        if line:
            self.say(line)
        if type(event) in ENDS:
            self._end(ENDS[type(event)])
        if type(event) in REPEATED:
            self._again(REPEATED[type(event)])
        match event:
            case events.ReadingTaken():
                self._in_a_row.pop("unknown", None)
                self.first_reading()
            case events.CycleDone():
                self._rested(event)
            case events.ReadingUnknown():
                self.lasting = event.doubt in LASTING
            case events.TopUpDecided():
                self.dipped_s = self.dipped_s or self.now_s()
            case events.TopUpDropped():
                self._end("gone" if event.reason == "endpoint_gone" else "refused")
            case events.PaidNotCredited():
                self.late_s = self.now_s()
            case events.CreditsPosted():
                self.posted_s = self.now_s()
            case events.TopUpDone():
                self._refilled()
        if self.late_s is not None and self.posted_s is None and self.now_s() - self.late_s > PATIENCE_AFTER_LATE_S:
            self._end("uncredited")

    def _rested(self, event: events.CycleDone) -> None:
        if event.outcome == "unknown":
            self._again("unknown")
        elif event.state == "charged":
            self._again("waiting")

    def _refilled(self) -> None:
        self.refills -= 1
        if self.refills:
            self.spend()
        else:
            self._end("refilled")

    def _again(self, result: str) -> None:
        self._in_a_row[result] = self._in_a_row.get(result, 0) + 1
        if self._in_a_row[result] >= REPEATS:
            self._end(result)

    def _end(self, result: str) -> None:
        self.result = self.result or result


def sentence(event: Event) -> str:
    """Return the event as a line of the story; "" when it would only repeat what the reader knows."""
    if type(event) in TELL:
        return TELL[type(event)](event)
    shown = ", ".join(f"{k}={v}" for k, v in event.shown().items() if k != "topup_id" and v not in (None, ""))
    return f"{event.level.upper()} {event.name()}: {shown}"


def _planned(event: events.PaymentPlanned) -> str:
    pool = plain(Decimal(event.tier) / 10_000)
    return (
        f"quoted {event.quote_wei} ({pool} % pool), sending at most {event.value_wei}, simulated on block {event.block}"
    )


def _included(event: events.PaymentIncluded) -> str:
    fees = event.gas_wei + event.l1_fee_wei
    return (
        f"paid in block {event.block}: {event.spent_wei} and {fees} network fees (wallet check: {event.wallet_check})"
    )


TELL: dict[type[Event], Callable[[Any], str]] = {
    events.ReadingTaken: lambda e: f"credits {e.balance_usd.cents_down()} dollars",
    events.TopUpDecided: lambda e: f"{e.detail}: buying {e.amount_usd} dollars of credit",
    events.ChargeRequested: lambda e: f"requesting a charge over {e.amount_usd} dollars",
    events.ChargeProven: lambda e: (
        f"charge proven: {e.total_units} to 0x{e.recipient.hex()[:8]}…, signed by the pinned operator"
    ),
    events.PaymentPlanned: _planned,
    events.PaymentSigned: lambda e: f"signed and stored 0x{e.tx_hash.hex()[:16]}… with nonce {e.nonce}",
    events.PaymentSent: lambda e: f"sent: {e.answer}",
    events.PaymentIncluded: _included,
    events.CreditsPosted: lambda e: f"credits posted {e.waited_s} s after the payment",
    events.TopUpDone: lambda e: (
        f"done: balance {e.balance_after_usd.cents_down()} dollars, in a safe block and the books"
    ),
    events.CycleDone: lambda _: "",
    events.Stopping: lambda _: "",
}


async def rehearse(
    world: World, directory: Path, *, fault: Fault | None, say: Callable[[str], None], settings: dict[str, str]
) -> tuple[dict[str, Any], Exit]:
    """Run the daemon in a started world until there is a verdict; return the audit and the exit code.

    Args:
        world: a world that is running.
        directory: where the ledger goes.
        fault: what to switch on, or None.
        say: takes the lines of the story.
        settings: environment variables over the world's own.
    """
    before = world.do(lambda: _balances(world))
    environment = (
        world.environment() | REHEARSED | {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"} | settings
    )
    loaded = load(environment)
    if fault is not None:
        switched = fault
        world.do(lambda: _switch(world, switched, early=True))
    pending = [fault] if fault is not None else []

    def first_reading() -> None:
        if pending:
            late = pending.pop()
            world.do(lambda: _switch(world, late, early=False))

    began = world.clock.now_s()

    def spend() -> None:
        account = world.gateway.account
        world.do(lambda: account.set_usage(account.total_credits - Decimal("9.9")))

    witness = Witness(
        world.clock.now_s,
        lambda line: say(f"{world.clock.now_s() - began:>5} s  {line}"),
        first_reading,
        spend,
        refills=fault.refills if fault is not None else 1,
    )
    store = SqliteStore.open_writer(directory)
    running = works(loaded, store, witness, world.clock)
    daemon = Daemon(running.cycle, store, world.clock, witness, loaded.account, Heart(None), glance_s=60)
    try:
        task = asyncio.create_task(daemon.run())
        # The world's clock sets no asyncio.Event, so this looks.
        while witness.result is None and not task.done() and world.clock.now_s() - began < WORLD_SECONDS_MAX:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        daemon.stop("verdict")
        await task
        after = world.do(lambda: _balances(world))
        return _audit(witness, store, loaded.account, before, after)
    finally:
        await running.close()


def _switch(world: World, fault: Fault, *, early: bool) -> None:
    """Switch on what is wrong from the start, or what means something only once a good balance was seen."""
    for one in fault.switches:
        if early == (one.place != "credits" or fault.name == "ordinary-key"):
            world.gateway.switch_on(one.place, one.name, one.times)
    if not early and fault.on_world is not None:
        fault.on_world(world)


@dataclass(frozen=True)
class Balances:
    """Where the money is: wei, USDC units, millionths of a dollar of credit."""

    wallet: int
    recipient: int
    operator_fee: int
    credit: int


def _balances(world: World) -> Balances:
    return Balances(
        world.balance(world.wallet),
        world.usdc(world.operator.terms.recipient),
        world.usdc(FEE_DESTINATION),
        int(world.gateway.account.total_credits * UNITS_PER_USDC),
    )


def _audit(
    witness: Witness, store: SqliteStore, account: str, before: Balances, after: Balances
) -> tuple[dict[str, Any], Exit]:
    """Hold what moved in the world against the journal, and write the document."""
    sums: dict[tuple[str, Commodity], int] = {}
    for entry in store.entries(account):
        for line in entry.lines:
            sums[line.account, line.commodity] = sums.get((line.account, line.commodity), 0) + line.units

    def booked(name: str, commodity: Commodity) -> int:
        return sums.get((name, commodity), 0)

    usdc = Commodity.USDC
    arrived = after.recipient + after.operator_fee - before.recipient - before.operator_fee
    matches = (
        after.wallet - before.wallet == booked(WALLET, Commodity.ETH)
        and after.credit - before.credit == booked(CREDITS, Commodity.CREDIT)
        and arrived
        == booked(IN_TRANSIT, usdc)
        + booked(FEE_OPERATOR, usdc)
        + booked(FEE_PROVIDER, usdc)
        + booked(CREDITS, Commodity.CREDIT)
    )
    attempts = [a for t in store.latest(account, 10) for a in t.attempts]
    paid = next((a for a in attempts if a.inclusion is not None and a.inclusion.success), None)
    spent = sum((a.inclusion.spent for a in attempts if a.inclusion is not None), Wei(0))
    gas = Wei(before.wallet - after.wallet) - spent
    result = witness.result or "waiting"
    done = next((e for e in witness.told if isinstance(e, events.TopUpDone)), None)
    readings = [e for e in witness.told if isinstance(e, events.ReadingTaken)]
    low = done.balance_before_usd if done is not None else None
    bought = Usdc(after.recipient + after.operator_fee - before.recipient - before.operator_fee)
    seconds = (
        witness.posted_s - witness.dipped_s if witness.posted_s is not None and witness.dipped_s is not None else None
    )
    document: dict[str, Any] = {
        "schema": 1,
        "result": result,
        "credits_before": str(low if low is not None else readings[0].balance_usd) if readings else None,
        "credits_after": str(readings[-1].balance_usd) if readings else None,
        "eth_spent_wei": str(spent.units),
        "gas_wei": str(gas.units),
        "usdc_paid_units": str(bought.units),
        "usd_per_eth": plain((bought.usdc / spent.eth).quantize(Decimal("0.01"))) if spent.units else None,
        "usd_per_credit": plain(done.usd_per_credit) if done is not None else None,
        "tx_hash": "0x" + paid.hash.hex() if paid is not None and paid.hash is not None else None,
        "books_match_chain": matches,
        "seconds_dip_to_posted": str(seconds) if seconds is not None else None,
    }
    code = Exit.PERSON if result == "unknown" and witness.lasting else EXITS.get(result, Exit.INTERNAL)
    return document, code if matches or code is not Exit.OK else Exit.INTERNAL


def perform(
    directory: Path, *, fault: Fault | None, anvil: Path | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    """Start a world, run the daemon in it, and end both."""
    with World(
        _chain(anvil),
        scale=SCALE,
        wallet_wei=fault.wallet_wei if fault is not None else WALLET_WEI,
        conduct=Conduct(staleness_ms=20_000, posting_delay_ms=10_000, late_ms=480_000),
    ) as world:
        return asyncio.run(rehearse(world, directory, fault=fault, say=say, settings={}))


def serve(anvil: Path | None, say: Callable[[str], None]) -> Exit:
    """Keep a world up at the machine's own pace until interrupted, and print how to reach it.

    The environment names a ledger and a settings file of its own: nothing of the sandbox may end up in a real ledger.
    """
    with (
        tempfile.TemporaryDirectory(prefix="topup-sandbox-") as ledger,
        World(_chain(anvil), conduct=Conduct(posting_delay_ms=2_000)) as world,
    ):
        own = {"TOPUP_STATE_DIR": ledger, "TOPUP_CONFIG": os.devnull}
        for name, value in (world.environment() | SERVED | own).items():
            say(f"export {name}={shlex.quote(value)}")
        say("# the world is up; Ctrl-C ends it")
        sys.stdout.flush()
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
    return Exit.OK


def summary(told: dict[str, Any]) -> list[str]:
    """Return the end of the story."""
    if told["result"] != "refilled":
        return ["", f"result     {told['result']}", f"ETH spent  {Wei(int(told['eth_spent_wei']))}"]
    spent, gas = Wei(int(told["eth_spent_wei"])), Wei(int(told["gas_wei"]))
    low, high = Usd.of(told["credits_before"]), Usd.of(told["credits_after"])
    return [
        "",
        f"credits    {low.cents_down()} → {high.cents_down()} dollars",
        f"ETH spent  {spent}, and {gas} network fees",
        f"price      {told['usd_per_eth']} dollars per ETH; {told['usd_per_credit']} dollars per dollar of credit",
        f"dip→posted {told['seconds_dip_to_posted']} s of the world",
        f"books      {'match the chain to the wei' if told['books_match_chain'] else 'DO NOT MATCH THE CHAIN'}",
    ]


def _chain(anvil: Path | None) -> Callable[[World], Chain]:
    if anvil is None:
        return embedded
    from topup.sandbox.anvil import Anvil

    return lambda world: Anvil(anvil, world.genesis(), timestamp=world.clock.now_s())
