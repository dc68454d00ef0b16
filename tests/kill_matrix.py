"""Is there any step at which a killed topup pays twice, pays for nothing, or loses track? Every one of them is tried.

    python -m tests.kill_matrix [--sample N] [--seed S] [--life NAME] [--cell LIFE:CELL] [--jobs N] [--json]

A life is a real `topup run` against a real anvil, from a low balance to a finished refill, with something particular
happening in it. Each life is lived once to record its trace: every commit of the ledger and every call of a port. From
that trace come the cells. In each cell a fresh world lives the same life up to one step; there the process dies of
SIGKILL, with the answer of a call that changes something kept, lost, delayed or duplicated. Then the ordinary program
is started, without any wrapper, and must finish: one payment on the chain, one top-up, books equal to the chain to the
unit in every asset, and nothing on the chain or with the seller that the ledger does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from eth_utils.crypto import keccak

from tests import proxy, tools
from tests.killed import ARMED, FOREIGN, TRACE, Cell
from tests.served import PATIENCE_S, TOPUP, Running, Served
from tests.warm import Forked, Warm, takes
from topup.books import WALLET, Commodity
from topup.closing import OPENING
from topup.lifecycle import State, TopUp
from topup.sandbox import contracts, purchases, x402_seller
from topup.sandbox.anvil import Anvil
from topup.sandbox.faults import FAULTS
from topup.sandbox.gateway import Account, Conduct, Gateway
from topup.sandbox.tempo import FEE_AMM, USDC_E, Tempo
from topup.sandbox.world import World
from topup.sandbox.x402_plain import Plain
from topup.store.sqlite import SqliteStore
from topup.ways import CANCEL, RESOLVE

UNDER_TEST: Final = (sys.executable, "-m", "tests.killed")
SEND: Final = "eth_sendRawTransaction"
# Calls that change nothing on the other side: of them only the moment of death matters.
READS: Final = frozenset(
    {
        "api.credits",
        "api.key",
        "chain.survey",
        "chain.simulate",
        "chain.look",
        "chain.fate",
        "chain.flag",
        "tokens.survey",
        "tokens.rehearse",
        "tokens.look",
        "tokens.fate",
        "seller.get",
    }
)
# Where every other call goes on the wire: through which proxies, and what those look for; None: where the rail sells.
WIRE: Final[dict[str, tuple[str, str | None]]] = {
    "api.charge": ("api", "/credits/coinbase"),
    "chain.send": ("rpc", SEND),
    "seller.post": ("api", None),
}
# By these the signed bytes leave.
SENDS: Final = frozenset({"chain.send", "seller.post"})
# Until here nothing is signed; what is particular about most lives comes later.
UNSIGNED: Final = frozenset({"start", "begin1", "ask1", "answered1", "proven1"})
FAULT: Final[dict[str, Callable[[], proxy.Fault]]] = {
    "lost": proxy.lose,
    "delayed": proxy.hold,
    "duplicated": lambda: proxy.duplicate("second"),
}
# What polling repeats while nothing changes is the same step again; its first two times are tried.
POLLED: Final = READS | {"store.record_reading"}
REPEATS: Final = 2
# A step may be missed when the machine is busy, for then it polls more or less often; so often it is tried again.
TRIES: Final = 3
MISSED: Final = "this step was never reached"
# Of the steps that polling takes, so many may be missed for good; they are named, and count neither way.
MISSED_MAX: Final = Fraction(1, 20)
LIFE_S: Final = 90
TWO_DAYS_MS: Final = 49 * 3_600_000


# keccak256 of Transfer(address,address,uint256).
TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
HELD: Final = 45_000_000
TEN: Final = 10_000_000


# Every process that was started, for the case that this one is told to stop.
CHILDREN: Final[list[subprocess.Popen[bytes] | Forked]] = []


@cache
def loaded() -> Warm:
    """Return the process that the others are forked from."""
    return Warm()


# -- grounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ground:
    """What a life is paid on: its chain, its seller, and what is counted there.

    Attributes:
        coin: whether what the chain's own coin loses is ours, and in the books.
        token, commodity: the dollar that may leave the wallet, on the chain and in the books.
        fees_to: where the network takes its fee in that dollar, in lower case; "" where it takes none.
        recipient: whom an authorization pays; "" where a payment contract is paid instead.
        sells: where the seller is asked and paid, as its path ends.
        handed: the hash of every attempt that the seller was handed, in hex.
        block_s: seconds between two blocks; anvil calls a block of Tempo safe when it has 32 above it.
    """

    chain: Callable[[World], Any]
    gateway: Callable[[World, Account, int], Gateway] | None = None
    settings: Callable[[World], dict[str, str]] = lambda _: {}
    coin: bool = True
    token: str = contracts.USDC
    commodity: Commodity = Commodity.USDC
    fees_to: str = ""
    recipient: str = ""
    rpc_setting: str = "chain__rpc_urls"
    sells: str = ""
    handed: Callable[[Any], set[str]] = lambda _: set()
    block_s: float = 1.0

    def left(self, world: World, held: dict[Commodity, int]) -> dict[Commodity, int]:
        """Return how much of each asset has left the wallet since it held so much; call it inside the world."""
        return {asset: held[asset] - now for asset, now in self.held(world).items()}

    def held(self, world: World) -> dict[Commodity, int]:
        """Return what the wallet holds; call it inside the world."""
        tokens = {self.commodity: world.tokens(self.token, world.wallet)}
        return tokens | ({Commodity.ETH: world.balance(world.wallet)} if self.coin else {})

    def moves(self, world: World) -> list[tuple[str, str, int]]:
        """Return each transfer of the dollar out of the wallet: transaction, recipient, units; fees are none."""
        sender = "0x" + world.wallet[2:].lower().rjust(64, "0")
        wanted = {"fromBlock": "0x0", "toBlock": "latest", "address": self.token, "topics": [TRANSFER, sender]}
        logs = world.chain.rpc("eth_getLogs", [wanted])
        moved = [(log["transactionHash"], "0x" + log["topics"][2][-40:], int(log["data"], 16)) for log in logs]
        return [one for one in moved if one[1] != self.fees_to]


def _base(world: World) -> Anvil:
    return Anvil(_anvil(), world.genesis(), timestamp=world.clock.now_s(), now=world.clock.now_s)


def _tempo(world: World) -> Tempo:
    return Tempo(_anvil(), funded={world.wallet: HELD}, block_s=None, now=world.clock.now_s)


def _anvil() -> Path:
    binary = tools.find("anvil")
    if binary is None:
        raise FileNotFoundError("no anvil: `python -m tests` installs it")
    return binary


def _plain(world: World, account: Account, delay_ms: int) -> Plain:
    return Plain(account, world.chain, world.wallet, conduct=x402_seller.X402Conduct(posting_delay_ms=delay_ms))


def _machine(world: World, account: Account, delay_ms: int) -> purchases.Seller:
    return purchases.Seller(account, world.chain, conduct=purchases.MppConduct(posting_delay_ms=delay_ms))


def _sells_x402(world: World) -> dict[str, str]:
    seller: Any = world.gateway
    return dict(seller.environment())


def _sells_mpp(_: World) -> dict[str, str]:
    own = {"RAILS__USE": "mpp", "RAILS__MPP__REALM": "127.0.0.1", "RAILS__MPP__RECIPIENTS": purchases.RECIPIENT}
    return {f"TOPUP_{name}": value for name, value in own.items()}


COINBASE: Final = Ground(_base)
IN_USDC: Final = Ground(_base, settings=lambda _: {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"})
X402: Final = Ground(
    _base,
    _plain,
    _sells_x402,
    recipient=x402_seller.RECIPIENT.lower(),
    sells="/credits/topup",
    handed=lambda seller: {nonce.hex() for _, nonce in seller.settlements},
)
MPP: Final = Ground(
    _tempo,
    _machine,
    _sells_mpp,
    coin=False,
    token=USDC_E,
    commodity=Commodity.USDC_E,
    fees_to=FEE_AMM,
    recipient=purchases.RECIPIENT.lower(),
    rpc_setting="rails__mpp__rpc_urls",
    sells="/credits/purchases",
    handed=lambda seller: {payment[2:] for payment in seller.payments},
    block_s=0.2,
)


# -- lives ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """What happens to the first process, and to those after it, beside its death."""

    name: str
    says: str
    arrange: Callable[[House], None] = lambda _: None
    on_send: Callable[[House, str, Callable[[], Any]], Any] = lambda _house, _raw, honest: honest()
    settings: dict[str, str] = field(default_factory=dict)
    posting_delay_ms: int = 300
    # It is died in before anything is signed as well; elsewhere that is the same as in the plain life.
    early: bool = False
    # It begins where an ordinary one has ended, with a process that is started anew.
    refilled: bool = False
    # Proofs that a charge is dead need two.
    providers: int = 1
    pays: bool = True
    # The answer of the process under test is spoilt by the life itself.
    wired: bool = False
    ground: Ground = COINBASE


@dataclass
class House(Served):
    """A world on anvil, a ledger, and whatever stands between them."""

    life: Life = field(kw_only=True)
    # What the wallet held in the beginning.
    held: dict[Commodity, int] = field(default_factory=dict)
    # Every transaction that reached the chain's node, in the order of coming.
    arrived: list[str] = field(default_factory=list)
    # Where each provider listens, and the proxies before them and before the API.
    upstream: dict[str, str] = field(default_factory=dict)
    wires: dict[str, proxy.Proxy] = field(default_factory=dict)

    async def node(self, method: str, params: Any, honest: Callable[[], Any]) -> Any:
        """Take down what is sent to the chain's nodes, and let the life act on it."""
        if method != SEND:
            return honest()
        self.arrived.append(params[0])
        return self.life.on_send(self, params[0], honest)

    @property
    def armed(self) -> Path:
        """The file by which the process under test says: the next such request is the one."""
        return self.directory / ARMED

    def bend(self, call: str, fault: Callable[[], proxy.Fault], when: Callable[[], bool]) -> list[proxy.Rule]:
        """Let a fault act on the next request of this call, through whichever provider it goes."""
        wire, path = WIRE[call]
        where = path or self.life.ground.sells
        ways = [one for name, one in self.wires.items() if name.startswith(wire)]
        return [one.on(where, fault(), times=1, when=lambda _: when()) for one in ways]

    def addresses(self) -> dict[str, str]:
        """Return the settings that lead topup to the world, through the proxies where there are any."""
        rpcs = [self.wires[name].url if name in self.wires else url for name, url in self.upstream.items()]
        api = self.wires["api"].url if "api" in self.wires else self.world.gateway.url
        return {"api__url": api, self.life.ground.rpc_setting: ",".join(rpcs)}

    def launch(self, command: Sequence[str], **changes: str | None) -> Running:
        """Start any command in the background."""
        stem = self.directory / f"process-{len(self.started)}"
        out, err = stem.with_suffix(".out"), stem.with_suffix(".err")
        environment = self.environment(**self.addresses(), **changes)
        process: subprocess.Popen[bytes] | Forked
        if takes(command):
            process = loaded().start(command, environment, out, err)
        else:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
                )
        self.started.append(Running(process, out, err))
        CHILDREN.append(process)
        return self.started[-1]

    def ordinary(self) -> Running:
        """Start topup as anybody would."""
        return self.launch([*TOPUP, "run"])

    def under_test(self, cell: Cell | None, program: Sequence[str]) -> Running:
        """Start topup watched, by `program`, to die at `cell`."""
        # What is delayed until it is given up should be given up soon.
        hasty = {"api__timeout_s": "1", "chain__timeout_s": "1", "posting__pay_timeout_s": "1"}
        changes = hasty if cell is not None and (cell.answer, cell.when) == ("delayed", "used") else {}
        word = str(cell) if cell is not None else "-"
        return self.launch([*program, str(self.directory), word, "run"], **changes)

    def questions(self) -> int:
        """Count what went through the proxies so far."""
        return sum(len(wire.log) for wire in self.wires.values())

    def trace(self) -> list[dict[str, Any]]:
        """Return the calls that were noted so far."""
        return [json.loads(line) for line in (self.directory / TRACE).read_text(encoding="utf-8").splitlines()]


def _price_jumps(house: House) -> None:
    act = FAULTS["chain-price-jumps"].on_world
    assert act is not None
    house.world.do(lambda: act(house.world))


def _send_lost(house: House) -> None:
    house.bend("chain.send", proxy.lose, lambda: True)


def _charge_lost(house: House) -> None:
    house.bend("api.charge", proxy.lose, lambda: True)


def _no_blocks(house: House) -> None:
    house.world.mining = False


def _until_outbid(house: House, _: str, honest: Callable[[], Any]) -> Any:
    """No block comes before two different transactions have arrived."""
    house.world.mining = len(set(house.arrived)) > 1
    return honest()


def _cancelled(house: House, _: str, honest: Callable[[], Any]) -> Any:
    """A person wants it cancelled as soon as it is sent; no block comes before the cancel has arrived."""
    house.world.mining = len(set(house.arrived)) > 1
    if len(house.arrived) == 1:
        with closing(SqliteStore.open_reader(house.state)) as store:
            (topup,) = store.latest("default", 1)
            store.say("default", RESOLVE + topup.id, CANCEL, topup.moved_ms, "somebody")
    return honest()


def _forgotten(house: House, raw: str, honest: Callable[[], Any]) -> Any:
    """The nodes take the first transaction and forget it; at once two days have passed, and its charge is dead."""
    if raw != house.arrived[0]:
        return honest()
    if len(house.arrived) == 1:
        house.world.clock.leap(TWO_DAYS_MS)
    return "0x" + keccak(hexstr=raw).hex()


LIVES: Final[dict[str, Life]] = {
    life.name: life
    for life in (
        Life("refill", "Nothing particular happens.", early=True),
        Life("reverted", "The price jumps before the block: the payment reverts and is tried again.", _price_jumps),
        Life("send-lost", "The first payment is sent and the answer lost.", _send_lost, wired=True),
        Life("charge-lost", "The first charge is created, the answer lost.", _charge_lost, wired=True, early=True),
        Life(
            "outbid",
            "No block comes until the payment has been outbid.",
            _no_blocks,
            _until_outbid,
            settings={"TOPUP_FEES__BUMP_AFTER_S": "2"},
        ),
        Life(
            "late",
            "The credits are posted so late that a person is told.",
            settings={"TOPUP_POSTING__LATE_S": "1"},
            posting_delay_ms=4000,
        ),
        Life(
            "dead",
            "The first payment is forgotten by the nodes; its charge is proven dead and another one is paid.",
            on_send=_forgotten,
            providers=2,
        ),
        Life(
            "cancelled",
            "A person cancels what was sent, and the cancel is mined: nothing is paid.",
            _no_blocks,
            _cancelled,
            providers=2,
            pays=False,
        ),
        Life("usdc", "The charge is paid in USDC: an approval first, then the payment.", ground=IN_USDC),
        Life("x402", "A seller carries the signed transfer to the chain.", early=True, ground=X402),
        Life("mpp", "A seller broadcasts the signed payment on Tempo.", early=True, ground=MPP),
        Life("afterwards", "What ended is looked at until it is final.", early=True, refilled=True),
    )
}


@contextmanager
def house_of(life: Life, directory: Path, *, wired: bool) -> Iterator[House]:
    """Serve a world in which a refill is due; end every process with it."""
    ground = life.ground
    gateway = ground.gateway

    def seller(world: World, account: Account) -> Gateway:
        assert gateway is not None
        return gateway(world, account, life.posting_delay_ms)

    world = World(
        ground.chain,
        make_gateway=seller if gateway is not None else None,
        conduct=Conduct(posting_delay_ms=life.posting_delay_ms),
        usage_usd=Decimal(11),
        burn_usd_per_hour=Decimal(0),
    )
    world.tick_s = ground.block_s
    with ExitStack() as stack:
        stack.enter_context(world)
        if ground.chain is _base:
            world.do(lambda: world.write(contracts.usdc_balance(world.wallet, HELD)))
        held = world.do(lambda: ground.held(world))
        made = House(world, directory, life.settings | ground.settings(world), life=life, held=held)
        for number in range(life.providers):
            server = world.rpc if number == 0 else world.provider()
            server.intercept = made.node
            made.upstream[f"rpc{number}"] = server.url
        if wired or life.wired:
            for name, url in {"api": world.gateway.url, **made.upstream}.items():
                made.wires[name] = stack.enter_context(proxy.Proxy(url))
        stack.callback(_end, made)
        life.arrange(made)
        yield made


def _end(house: House) -> None:
    for one in house.started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(timeout=PATIENCE_S)


# -- what must hold in the end ----------------------------------------------------------------------------------------


def wrongs(house: House) -> list[str]:
    """Hold chain, account and ledger against each other; return a sentence for each thing that is wrong."""
    found = []
    ground, topups, payments = house.life.ground, house.topups(), house.payments()
    if ground.recipient:
        moves = house.world.do(lambda: ground.moves(house.world))
        payments = len(moves)
        if any((to, units) != (ground.recipient, TEN) for _, to, units in moves):
            found.append(f"dollars went elsewhere, or others than asked for: {moves}")
    if payments != int(house.life.pays):
        found.append(f"{payments} payments on the chain")
    if [t.state for t in topups] != [State.DONE if house.life.pays else State.FAILED]:
        found.append(f"top-ups: {', '.join(f'{t.id} {t.state} {t.reason}' for t in topups) or 'none'}")
    bought = house.world.do(lambda: house.world.gateway.account.total_credits) - 20
    if bought != 10 * int(house.life.pays):
        found.append(f"{bought} dollars of credit arrived")
    booked, left = _booked(house), house.world.do(lambda: ground.left(house.world, house.held))
    if any(booked.get(asset, 0) != left.get(asset, 0) for asset in {*booked, *left}):
        found.append(f"the journal says that {booked} have left the wallet, the chain {left}")
    with closing(SqliteStore.open_reader(house.state)) as store:
        if damage := store.damage():
            found.append(f"the ledger's file is damaged: {damage}")
        if nonces := store._all("SELECT nonce FROM slot WHERE state = 'in_flight'"):
            found.append(f"{len(nonces)} nonces are still in flight")
    return found + _unknown(house, topups)


def _booked(house: House) -> dict[Commodity, int]:
    """Return how much of each asset has left the wallet as the journal says."""
    with closing(SqliteStore.open_reader(house.state)) as store:
        moved = [entry for entry in store.entries("default") if all(x.account != OPENING for x in entry.lines)]
    lines = [line for entry in moved for line in entry.lines if line.account == WALLET]
    return {asset: -sum(x.units for x in lines if x.commodity == asset) for asset in {x.commodity for x in lines}}


def _unknown(house: House, topups: Sequence[TopUp]) -> list[str]:
    """Tell what chain, node or seller have seen of the wallet that the ledger does not hold with its intent to send."""
    found = []
    ours = [a for t in topups for a in t.attempts if a.intended_ms is not None]
    held = {"0x" + a.tx_hash.hex() for a in ours if a.tx_hash is not None}
    mined = house.world.do(lambda: _mined(house))
    if lost := mined - held:
        found.append(f"on the chain and not in the ledger: {', '.join(sorted(lost))}")
    handed = house.world.do(lambda: house.life.ground.handed(house.world.gateway))
    if strange := handed - {a.hash.hex() for a in ours if a.hash is not None}:
        found.append(f"{len(strange)} payments were handed to the seller that the ledger does not hold")
    claimed = {"0x" + a.tx_hash.hex() for a in ours if a.tx_hash is not None and a.inclusion is not None}
    if claimed != mined:
        found.append(f"the ledger says {len(claimed)} attempts are in a block, the chain {len(mined)}")
    if strange := set(house.arrived) - {"0x" + a.raw.hex() for a in ours if a.raw is not None}:
        found.append(f"{len(strange)} transactions were sent that the ledger does not hold")
    if open_ones := [a.id for a in ours if a.inclusion is not None and not a.booked]:
        found.append(f"attempts {open_ones} are in a block and not in the books")
    return found


def _mined(house: House) -> set[str]:
    """Return the hashes of what the wallet has sent, or what took its dollars, in the whole chain; call it inside."""
    world = house.world
    found = {tx_hash for tx_hash, _, _ in house.life.ground.moves(world)}
    for number in range(1, int(world.chain.rpc("eth_blockNumber", []), 16) + 1):
        block = world.chain.rpc("eth_getBlockByNumber", [hex(number), True])
        found |= {tx["hash"] for tx in block["transactions"] if tx["from"].lower() == world.wallet.lower()}
    return found


# -- one life, and one death ------------------------------------------------------------------------------------------


def held(running: Running) -> bool:
    """Tell whether it has come to rest: nothing open, the balance above its floor."""
    return any(e["event"] == "cycle_done" and e["outcome"] == "held" for e in running.events())


def until(what: str, true: Callable[[], bool], running: Running) -> None:
    """Wait until something is true.

    Raises:
        TimeoutError: it has not become true.
    """
    end = time.monotonic() + LIFE_S
    while not true():
        if time.monotonic() > end or (ended := running.process.poll()) is not None:
            # What became true in its last moment counts.
            if true():
                return
            raise TimeoutError(f"not {what}, exit code {ended}: {running.log()[-1500:]}")
        time.sleep(0.05)


def settle(house: House, late: Iterable[proxy.Rule] = ()) -> None:
    """Run the ordinary program until it has nothing to do; what is `late` arrives once it has asked something."""
    asked, left = house.questions(), list(late)
    running = house.ordinary()

    def settled() -> bool:
        while left and house.questions() > asked:
            left.pop().release()
        return held(running)

    until("settled", settled, running)
    code = running.stop(signal.SIGTERM)
    if code != 0:
        raise AssertionError(f"a stopped daemon left with {code}")


def record(life: Life, program: Sequence[str] = UNDER_TEST) -> list[dict[str, Any]]:
    """Live a whole life undisturbed; return its trace.

    Raises:
        AssertionError: it went wrong without any death.
    """
    with (
        tempfile.TemporaryDirectory(prefix="topup-kill-") as folder,
        house_of(life, Path(folder), wired=False) as house,
    ):
        if life.refilled:
            settle(house)
        running = house.under_test(None, program)
        until("lived", lambda: held(running), running)
        running.stop(signal.SIGTERM)
        found = wrongs(house)
        if found:
            raise AssertionError(f"life {life.name}, undisturbed: {'; '.join(found)}")
        return house.trace()


def cells(trace: Iterable[dict[str, Any]]) -> list[Cell]:
    """Derive every way to die from a trace.

    Raises:
        KeyError: nobody has said of a foreign call whether it only reads, or where its answer can be spoilt.
    """
    made: dict[Cell, None] = {}
    for one in trace:
        call, at = one["call"], (one["phase"], one["call"], one["nth"])
        if call in POLLED and one["nth"] > REPEATS:
            continue
        made[Cell(*at, "before")] = None
        made[Cell(*at, "after")] = None
        if one["kind"] != FOREIGN or call in READS:
            continue
        if call not in WIRE:
            raise KeyError(f"{call} is neither in READS nor in WIRE")
        for answer in FAULT:
            made[Cell(*at, "after", answer)] = None
            made[Cell(*at, "used", answer)] = None
    return list(made)


def die_at(house: House, cell: Cell, program: Sequence[str]) -> tuple[bool, list[proxy.Rule]]:
    """Let the watched process live until its death; return whether it came to that, and what is still on its way."""
    rules: list[proxy.Rule] = []
    if cell.answer != "kept":
        rules = house.bend(cell.call, FAULT[cell.answer], house.armed.exists)
    running = house.under_test(cell, program)
    hangs = (cell.answer, cell.when) == ("delayed", "after")
    end = time.monotonic() + LIFE_S
    while running.process.poll() is None and not held(running):
        if hangs and all(rule.hits for rule in rules):
            running.process.kill()  # it cannot do that itself in the midst of a call
        if time.monotonic() > end:
            raise TimeoutError(f"neither dead nor at rest: {running.log()[-1500:]}")
        time.sleep(0.03)
    code = running.process.poll()
    if code not in (None, -signal.SIGKILL):
        raise AssertionError(f"ended by itself with {code}: {running.log()[-1500:]}")
    if code is not None and not all(rule.hits for rule in rules):
        raise AssertionError(f"dead, and the answer was never {cell.answer}")
    return code is not None, rules if cell.answer == "delayed" else []


@dataclass(frozen=True)
class Outcome:
    """What became of one cell; `wrong` is empty when it survived."""

    life: str
    cell: Cell
    wrong: str
    seconds: float

    @property
    def name(self) -> str:
        """Its name, which `--cell` takes."""
        return f"{self.life}:{self.cell}"

    @property
    def replay(self) -> str:
        """The command that tries it again."""
        return f"python -m tests.kill_matrix --cell '{self.name}'"


def survive(life: Life, cell: Cell, program: Sequence[str] = UNDER_TEST) -> Outcome:
    """Die at a cell, start again, and see what is wrong in the end."""
    began, wrong = time.monotonic(), MISSED
    for _ in range(TRIES):
        try:
            wrong = _attempt(life, cell, program)
        except (AssertionError, OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong != MISSED:
            break
    return Outcome(life.name, cell, wrong, time.monotonic() - began)


def _attempt(life: Life, cell: Cell, program: Sequence[str]) -> str:
    wired = cell.answer != "kept"
    with (
        tempfile.TemporaryDirectory(prefix="topup-kill-") as folder,
        house_of(life, Path(folder), wired=wired) as house,
    ):
        if life.refilled:
            settle(house)
        died, late = die_at(house, cell, program)
        if not died:
            return MISSED
        settle(house, late)
        return "; ".join(wrongs(house))


# -- the matrix -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How many cells were tried, how many survived, and what became of the others."""

    cells: int
    survived: int
    failures: tuple[Outcome, ...]
    missed: tuple[Outcome, ...]
    whole: int
    seconds: float


def dangerous(cell: Cell) -> bool:
    """Tell whether money hangs on this very step: the bytes may leave, and the ledger may not have heard of it."""
    if cell.call in ("store.intend", "store.replace"):
        return cell.when == "after"
    if cell.call in SENDS and cell.phase not in UNSIGNED:
        return cell.answer in ("kept", "duplicated") and cell.when in ("before", "after")
    return cell.call == "store.delivered" and cell.when == "before"


def matrix(lives: Sequence[Life], jobs: int) -> list[tuple[Life, Cell]]:
    """Record these lives and return every cell of theirs.

    Raises:
        AssertionError: a life went wrong without any death.
    """
    with ThreadPoolExecutor(jobs) as pool:
        traces = list(zip(lives, pool.map(record, lives), strict=True))
    every = [(life, cell) for life, trace in traces for cell in cells(trace)]
    return [(life, cell) for life, cell in every if life.early or cell.phase not in UNSIGNED]


def run(
    sample: int | None,
    seed: int,
    jobs: int,
    *,
    lives: Sequence[Life] = tuple(LIVES.values()),
    say: Callable[[Outcome], None] = lambda _: None,
) -> Result:
    """Try every cell of these lives, or the dangerous ones and `sample` others, chosen by `seed`."""
    began = time.monotonic()
    every = matrix(lives, jobs)
    others = [one for one in every if not dangerous(one[1])]
    random.Random(seed).shuffle(others)
    chosen = [one for one in every if dangerous(one[1])] + others[:sample]
    lock = threading.Lock()

    def tried(one: tuple[Life, Cell]) -> Outcome:
        outcome = survive(*one)
        with lock:
            say(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(tried, chosen))
    # On a busy machine a block comes a moment later, and what follows it stands in another order: what was missed is
    # tried again with nothing beside it. A step that is missed even so is named and counts neither way, but only where
    # its life has died of the same call, at the same moment, in another phase.
    lives_of = {life.name: life for life in lives}
    outcomes = [survive(lives_of[one.life], one.cell) if one.wrong == MISSED else one for one in outcomes]
    died = {_moment(one) for one in outcomes if not one.wrong}
    missed = tuple(one for one in outcomes if one.wrong == MISSED and (one.cell.call in POLLED or _moment(one) in died))
    tried_all = [one for one in outcomes if one not in missed]
    if len(missed) > MISSED_MAX * len(outcomes):
        tried_all, missed = outcomes, ()
    failures = tuple(one for one in tried_all if one.wrong)
    return Result(
        len(tried_all), len(tried_all) - len(failures), failures, missed, len(every), time.monotonic() - began
    )


def _moment(one: Outcome) -> tuple[str, str, str, str]:
    return one.life, one.cell.call, one.cell.when, one.cell.answer


def _stop(*_: object) -> NoReturn:
    """Leave no daemon behind."""
    for one in CHILDREN:
        if one.poll() is None:
            one.kill()
    os._exit(128 + signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Run the matrix; the exit code is 1 when anything did not survive."""
    reader = argparse.ArgumentParser(prog="python -m tests.kill_matrix", description=__doc__.splitlines()[0])
    reader.add_argument("--sample", type=int, help="try the dangerous cells and so many others")
    reader.add_argument("--seed", type=int, default=None, help="chooses the sample")
    reader.add_argument("--life", choices=LIVES, help="only the cells of this life")
    reader.add_argument("--cell", help="one cell: LIFE:CELL, as it was printed")
    reader.add_argument("--jobs", type=int, default=2, help="so many worlds at a time")
    reader.add_argument("--json", action="store_true", help="print one JSON document")
    asked = reader.parse_args(arguments)

    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    tried = 0

    def say(one: Outcome) -> None:
        nonlocal tried
        tried += 1
        if tried % 50 == 0:
            print(f"{tried} cells tried", file=sys.stderr, flush=True)
        if one.wrong:
            print(f"{one.name}: {one.wrong}\n    {one.replay}", file=sys.stderr, flush=True)

    if asked.cell is not None:
        life, _, cell = asked.cell.partition(":")
        outcome = survive(LIVES[life], Cell.of(cell))
        say(outcome)
        print(f"{'lost' if outcome.wrong else 'survived'} in {outcome.seconds:.1f} s")
        return int(bool(outcome.wrong))
    seed = asked.seed if asked.seed is not None else random.SystemRandom().getrandbits(32)
    lives = [LIVES[asked.life]] if asked.life else list(LIVES.values())
    result = run(asked.sample, seed, asked.jobs, lives=lives, say=say)
    told = {"schema": 1, "cells": result.cells, "survived": result.survived, "whole": result.whole, "seed": seed}
    told["missed"] = len(result.missed)
    if asked.json:
        print(json.dumps({**told, "failures": [{"cell": one.name, "wrong": one.wrong} for one in result.failures]}))
    else:
        print(
            f"kill matrix: {result.cells} of {result.whole} cells, {result.survived} survived,"
            f" {len(result.missed)} polls never reached, seed {seed}, {result.seconds:.0f} s"
        )
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
