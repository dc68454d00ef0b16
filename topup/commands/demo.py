"""What happens when the real daemon runs in the embedded world? `topup sandbox`: the run, its story, its audit.

The daemon is assembled from settings as always; only the addresses, the keys and the clock are the world's. What
the run cost is computed from the first and the last state of the chain and of the provider, and only then held
against the journal. `ground` says what differs between the rails.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from topup.accounting.journal import CREDITS, FEE_OPERATOR, FEE_PROVIDER, IN_TRANSIT, WALLET, Commodity
from topup.app.connections import opened
from topup.app.daemon import Daemon, SdNotify
from topup.app.settings import load
from topup.domain import events
from topup.domain.credits import LASTING
from topup.domain.errors import Exit, SettingsError
from topup.domain.events import Event
from topup.domain.money import UNITS_PER_USDC, WEI_PER_ETH, Asset, Usd, Usdc, Wei, plain
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.faults import WALLET_WEI, X402_SELLER, Fault
from topup.sandbox.rpc import Chain
from topup.sandbox.world import ETH_USD_E8, FEE_DESTINATION, World, embedded

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
    events.PaymentUnseen: "waiting",
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
    "TOPUP_POSTING__PAY_TIMEOUT_S": "1",
    "TOPUP_POLICY__FAILURES_MAX": "1",
}
ANVIL = "@foundry-rs/anvil"
ANVIL_REMEDY = (
    f"npm install {ANVIL}, then --anvil node_modules/{ANVIL}-PLATFORM/bin/anvil (PLATFORM such as linux-amd64)"
)


@dataclass(frozen=True)
class Ground:
    """What differs between the ways to pay.

    Attributes:
        rail: its name in the settings.
        asset: what the wallet pays with.
        dollar: the token that arrives, which the wallet holds too where the asset is no ETH.
        payees: who is paid in it, by address.
        build: makes a world that is not started, from the scale of its clock and the wei that the wallet holds or,
            where it pays with dollars, that these are worth.
    """

    rail: str
    asset: Asset
    dollar: str
    payees: Callable[[World], tuple[str, ...]]
    build: Callable[[int, int], World]

    @property
    def commodity(self) -> Commodity:
        """What the journal calls the dollar."""
        return Commodity.USDC if self.asset is Asset.ETH else Commodity(self.asset)


def ground(rail: str = "coinbase", pay_with: str = "eth", anvil: Path | None = None) -> Ground:
    """Return the ground of a rail (`coinbase`, `mpp`, `x402`); `pay_with` (`eth`, `usdc`) is coinbase's.

    Raises:
        SettingsError: it cannot be shown with what is given.
    """
    if pay_with == "usdc" and rail != "coinbase":
        raise SettingsError(
            f"--pay-with usdc is not for {rail}", remedy="only coinbase leaves the choice; leave it out"
        )
    if anvil is not None and not anvil.is_file():
        raise SettingsError(f"--anvil {anvil} is no file", remedy=ANVIL_REMEDY)
    if rail == "mpp":
        return _tempo(anvil)
    if rail == "x402":
        return _x402(_chain(anvil))
    return _coinbase(_chain(anvil), pay_with)


def _coinbase(chain: Callable[[World], Chain], pay_with: str) -> Ground:
    def payees(world: World) -> tuple[str, ...]:
        return world.operator.terms.recipient, FEE_DESTINATION

    if pay_with == "eth":
        return Ground(
            "coinbase",
            Asset.ETH,
            contracts.USDC,
            payees,
            lambda scale, wealth: World(chain, scale=scale, wallet_wei=wealth),
        )

    def build(scale: int, wealth: int) -> World:
        def funded(world: World) -> Chain:
            made = chain(world)
            for one in contracts.usdc_balance(world.wallet, _dollars(wealth)):
                made.set_storage(one.address, one.slot, one.value)
            return made

        return World(funded, scale=scale, settings=lambda _: {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"})

    return Ground("coinbase", Asset.USDC, contracts.USDC, payees, build)


def _x402(chain: Callable[[World], Chain]) -> Ground:
    from topup.sandbox.x402 import selling
    from topup.sandbox.x402_seller import RECIPIENT, X402Seller

    def settings(world: World) -> dict[str, str]:
        assert isinstance(world.gateway, X402Seller)
        return world.gateway.environment()

    def build(scale: int, wealth: int) -> World:
        seller = selling(X402_SELLER, held_units=_dollars(wealth))
        return World(chain, scale=scale, make_gateway=seller, settings=settings)

    return Ground("x402", Asset.USDC, contracts.USDC, lambda _: (RECIPIENT,), build)


def _tempo(anvil: Path | None) -> Ground:
    from topup.sandbox.purchases import RECIPIENT, Seller
    from topup.sandbox.tempo import BLOCK_S, USDC_E, Tempo

    if anvil is None:
        raise SettingsError("--rail mpp needs an anvil that knows Tempo", remedy=ANVIL_REMEDY)

    def build(scale: int, wealth: int) -> World:
        def chain(world: World) -> Chain:
            with _answering(anvil, "a Tempo chain"):
                return Tempo(anvil, funded={world.wallet: _dollars(wealth)}, block_s=None, now=world.clock.now_s)

        def settings(world: World) -> dict[str, str]:
            return {
                "TOPUP_RAILS__USE": "mpp",
                "TOPUP_RAILS__MPP__RPC_URLS": world.rpc.url,
                "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
                "TOPUP_RAILS__MPP__RECIPIENTS": RECIPIENT,
            }

        world = World(
            chain, scale=scale, make_gateway=lambda world, account: Seller(account, world.chain), settings=settings
        )
        world.tick_s = float(BLOCK_S) / (scale or 1)
        return world

    return Ground("mpp", Asset.USDC_E, USDC_E, lambda _: (RECIPIENT,), build)


def _dollars(wealth: int) -> int:
    """Return the units of a dollar that so many wei are worth."""
    return wealth * ETH_USD_E8 * UNITS_PER_USDC // (10**8 * WEI_PER_ETH)


@dataclass
class Confirmation:
    """A sink that follows the run, tells it, and knows when it is over."""

    now_s: Callable[[], int]
    say: Callable[[str], None]
    first_reading: Callable[[], None]
    spend: Callable[[], None]
    rail: str = "coinbase"
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
        line = sentence(event, self.rail)
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


def sentence(event: Event, rail: str) -> str:
    """Return the event as a line of the story; "" when it would only repeat what the reader knows."""
    told = (TELL if rail == "coinbase" else TELL | BY_SELLER).get(type(event))
    if told is not None:
        return told(event)
    shown = ", ".join(f"{k}={v}" for k, v in event.shown().items() if k != "topup_id" and v not in (None, ""))
    return f"{event.level.upper()} {event.name()}: {shown}"


def _planned(event: events.PaymentPlanned) -> str:
    if event.asset != Asset.ETH:
        return f"sending {_tokens(event.units, event.asset)}, simulated on block {event.block}"
    pool = plain(Decimal(event.tier) / 10_000)
    return (
        f"quoted {event.quote_wei} ({pool} % pool), sending at most {event.value_wei}, simulated on block {event.block}"
    )


def _included(event: events.PaymentIncluded) -> str:
    eth = event.gas_wei + event.l1_fee_wei
    spent = str(event.spent_wei) if event.asset == Asset.ETH else _tokens(event.spent_units, event.asset)
    fees = _fees([_tokens(event.fee_units, event.asset)] if event.fee_units.units else [], eth)
    return f"paid in block {event.block}: {spent} and {fees} (wallet check: {event.wallet_check})"


def _approved(event: events.TokenApproved) -> str:
    fees = _fees([], event.gas_wei + event.l1_fee_wei)
    return f"approved in block {event.block}: the contract may take {event.units}, nothing more; {fees}"


def _fees(tokens: list[str], eth: Wei) -> str:
    """Write what the network took, in whatever it took."""
    parts = tokens + ([str(eth)] if eth.units else [])
    return f"{' and '.join(parts) or 'no'} network fees"


def _tokens(amount: Usdc, asset: str) -> str:
    return f"{plain(amount.usdc)} {asset}"


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
    events.TokenApproved: _approved,
    events.PaymentIncluded: _included,
    events.CreditsPosted: lambda e: f"credits posted {e.waited_s} s after the payment",
    events.TopUpDone: lambda e: (
        f"done: balance {e.balance_after_usd.cents_down()} dollars, in a safe block and the books"
    ),
    events.CycleDone: lambda _: "",
    events.Stopping: lambda _: "",
}
# Where the seller asks for a payment and carries it to the chain.
BY_SELLER: dict[type[Event], Callable[[Any], str]] = {
    events.ChargeRequested: lambda e: f"asking what {e.amount_usd} dollars of credit cost",
    events.ChargeProven: lambda e: (
        f"price proven: {plain(e.total_units.usdc)} dollars to 0x{e.recipient.hex()[:8]}…, the pinned recipient"
    ),
    events.PaymentSigned: lambda e: f"signed and stored 0x{e.tx_hash.hex()[:16]}…, which pays once or never",
    events.PaymentSent: lambda e: f"handed to the seller: {e.answer}",
}


async def rehearse(
    world: World,
    directory: Path,
    *,
    fault: Fault | None,
    say: Callable[[str], None],
    settings: dict[str, str],
    on: Ground | None = None,
) -> tuple[dict[str, Any], Exit]:
    """Run the daemon in a started world until there is a verdict; return the audit and the exit code.

    Args:
        world: a world that is running.
        directory: where the ledger goes.
        fault: what to switch on, or None.
        say: takes the lines of the story.
        settings: environment variables over the world's own.
        on: the ground that the world was built on; None: coinbase's, paid in ETH.
    """
    here = on or ground()
    before = world.do(lambda: _balances(world, here))
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

    witness = Confirmation(
        world.clock.now_s,
        lambda line: say(f"{world.clock.now_s() - began:>5} s  {line}"),
        first_reading,
        spend,
        here.rail,
        refills=fault.refills if fault is not None else 1,
    )
    store = SqliteStore.open_writer(directory)
    async with opened(loaded, store, witness, world.clock) as connections:
        daemon = Daemon(connections.cycle, store, world.clock, witness, loaded.account, SdNotify(None), glance_s=60)
        task = asyncio.create_task(daemon.run())
        # The world's clock sets no asyncio.Event, so this looks.
        while witness.result is None and not task.done() and world.clock.now_s() - began < WORLD_SECONDS_MAX:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        daemon.stop("verdict")
        await task
        after = world.do(lambda: _balances(world, here))
        return _audit(here, witness, store, loaded.account, before, after)


def _switch(world: World, fault: Fault, *, early: bool) -> None:
    """Switch on what is wrong from the start, or what means something only once a good balance was seen."""
    seller: Any = world.gateway
    for one in fault.switches:
        if early == (one.place not in ("credits", "balance") or fault.name == "ordinary-key"):
            seller.switch_on(one.place, one.name, one.times)
    if not early and fault.on_world is not None:
        fault.on_world(world)


@dataclass(frozen=True)
class Balances:
    """Where the money is: wei, units of the ground's dollar, millionths of a dollar of credit."""

    wei: int
    dollars: int
    payees: int
    credit: int

    def since(self, before: Balances) -> Balances:
        """Return what has come to each place since then; negative for what has left it."""
        return Balances(
            self.wei - before.wei,
            self.dollars - before.dollars,
            self.payees - before.payees,
            self.credit - before.credit,
        )


def _balances(world: World, on: Ground) -> Balances:
    return Balances(
        world.balance(world.wallet),
        world.tokens(on.dollar, world.wallet),
        sum(world.tokens(on.dollar, one) for one in on.payees(world)),
        int(world.gateway.account.total_credits * UNITS_PER_USDC),
    )


def _matches(store: SqliteStore, account: str, dollar: Commodity, moved: Balances) -> bool:
    """Tell whether the journal says of every place what the world shows, as far as top-ups have moved it."""
    sums: dict[tuple[str, Commodity], int] = {}
    for entry in (one for one in store.entries(account) if one.topup_id):
        for line in entry.lines:
            sums[line.account, line.commodity] = sums.get((line.account, line.commodity), 0) + line.units

    def booked(name: str, commodity: Commodity) -> int:
        return sums.get((name, commodity), 0)

    credit = booked(CREDITS, Commodity.CREDIT)
    arrived = sum(booked(name, dollar) for name in (IN_TRANSIT, FEE_OPERATOR, FEE_PROVIDER)) + credit
    return moved == Balances(booked(WALLET, Commodity.ETH), booked(WALLET, dollar), arrived, credit)


def _audit(
    on: Ground, witness: Confirmation, store: SqliteStore, account: str, before: Balances, after: Balances
) -> tuple[dict[str, Any], Exit]:
    """Hold what moved in the world against the journal, and write the document."""
    moved = after.since(before)
    matches = _matches(store, account, on.commodity, moved)
    attempts = [a for t in store.latest(account, 10) for a in t.attempts]
    paid = next((a for a in attempts if a.paid), None)
    spent = sum((a.inclusion.spent for a in attempts if a.inclusion is not None), Wei(0))
    gas = Wei(-moved.wei) - spent
    arrived = Usdc(moved.payees)
    in_eth = on.asset is Asset.ETH
    result = witness.result or "waiting"
    done = next((e for e in witness.told if isinstance(e, events.TopUpDone)), None)
    readings = [e for e in witness.told if isinstance(e, events.ReadingTaken)]
    low = done.balance_before_usd if done is not None else None
    seconds = (
        witness.posted_s - witness.dipped_s if witness.posted_s is not None and witness.dipped_s is not None else None
    )
    document: dict[str, Any] = {
        "schema": 1,
        "rail": on.rail,
        "result": result,
        "credits_before": str(low if low is not None else readings[0].balance_usd) if readings else None,
        "credits_after": str(readings[-1].balance_usd) if readings else None,
        "asset": on.asset.value,
        "asset_spent": plain(spent.eth if in_eth else arrived.usdc),
        "asset_fee": plain(gas.eth if in_eth else Usdc(-moved.dollars - moved.payees).usdc),
        "eth_spent_wei": str(spent.units),
        "gas_wei": str(gas.units),
        "usdc_paid_units": str(arrived.units),
        "usd_per_eth": plain((arrived.usdc / spent.eth).quantize(Decimal("0.01"))) if spent.units else None,
        "usd_per_credit": plain(done.usd_per_credit) if done is not None else None,
        "tx_hash": "0x" + paid.tx_hash.hex() if paid is not None and paid.tx_hash is not None else None,
        "books_match_chain": matches,
        "seconds_dip_to_posted": str(seconds) if seconds is not None else None,
    }
    code = Exit.PERSON if result == "unknown" and witness.lasting else EXITS.get(result, Exit.INTERNAL)
    return document, code if matches or code is not Exit.OK else Exit.INTERNAL


def perform(
    on: Ground, directory: Path, *, fault: Fault | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], Exit]:
    """Start a world on this ground, run the daemon in it, and end both."""
    with on.build(SCALE, fault.wallet_wei if fault is not None else WALLET_WEI) as world:
        conduct = world.gateway.conduct
        conduct.staleness_ms, conduct.posting_delay_ms, conduct.late_ms = 20_000, 10_000, 480_000
        return asyncio.run(rehearse(world, directory, fault=fault, say=say, settings={}, on=on))


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


def summary(told: dict[str, Any]) -> list[str]:
    """Return the end of the story."""
    asset, in_eth = told["asset"], told["asset"] == Asset.ETH
    spent = f"{asset + ' spent':<10} {told['asset_spent']} {asset}"
    matches = f"match the chain to the {'wei' if in_eth else 'unit'}"
    books = f"books      {matches if told['books_match_chain'] else 'DO NOT MATCH THE CHAIN'}"
    if told["result"] != "refilled":
        return ["", f"result     {told['result']}", spent, books]
    fee = [] if in_eth or told["asset_fee"] == "0" else [f"{told['asset_fee']} {asset}"]
    low, high = Usd.of(told["credits_before"]), Usd.of(told["credits_after"])
    price = f"{told['usd_per_credit']} dollars per dollar of credit"
    return [
        "",
        f"credits    {low.cents_down()} → {high.cents_down()} dollars",
        f"{spent}, and {_fees(fee, Wei(int(told['gas_wei'])))}",
        f"price      {told['usd_per_eth']} dollars per ETH; {price}" if in_eth else f"price      {price}",
        f"dip→posted {told['seconds_dip_to_posted']} s of the world",
        books,
    ]


def _chain(anvil: Path | None) -> Callable[[World], Chain]:
    if anvil is None:
        return embedded
    from topup.sandbox.anvil import Anvil

    def made(world: World) -> Chain:
        with _answering(anvil, "the sandbox's chain"):
            return Anvil(anvil, world.genesis(), timestamp=world.clock.now_s())

    return made


@contextmanager
def _answering(anvil: Path, what: str) -> Iterator[None]:
    """Say what to do about an anvil that does not start."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"--anvil {anvil} does not run {what}: {error}", remedy=ANVIL_REMEDY) from None
