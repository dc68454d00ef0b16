"""In what world does a topup live that is to be killed, and who is beside it?

A ground is what is paid on: a chain and a seller. A role is what the process under test does. A life puts them together
with what happens beside its death; a house is where it is lived, with its ledger and whatever stands in between.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests import tools
from tests.proofs.killed import ARMED, TRACE, Cell
from tests.world import proxy, served, worlds
from tests.world.receiver import Receiver, receiving
from tests.world.served import TOPUP, Running, Served
from tests.world.stage import moves
from tests.world.tempo import buying
from tests.world.warm import Forked
from topup.accounting.journal import Commodity
from topup.domain.messages import MessageKind
from topup.sandbox import contracts, purchases, tempo_transfer, x402_seller
from topup.sandbox.gateway import Account, Conduct, Gateway
from topup.sandbox.tempo import FEE_AMM, USDC_E, Tempo
from topup.sandbox.world import World
from topup.sandbox.x402_seller import X402Seller

SEND: Final = "eth_sendRawTransaction"
HOOK: Final = "/hook"
# Where every other call goes on the wire: through which proxies, and what those look for; None: where the rail sells.
WIRE: Final[dict[str, tuple[str, str | None]]] = {
    "api.charge": ("api", "/credits/coinbase"),
    "chain.send": ("rpc", SEND),
    "seller.post": ("api", None),
    **{f"hook.{kind.value}": ("hook", HOOK) for kind in MessageKind},
}
# A life takes seconds, on a machine that is busy with other things minutes; after this it hangs.
LIFE_S: Final = 900
HELD: Final = 45_000_000
TEN: Final = 10_000_000
# Longer than a sponsored payload is held for alive.
WINDOW_MS: Final = 120_000
# Every process that was started, for the case that this one is told to stop.
CHILDREN: Final[list[subprocess.Popen[bytes] | Forked]] = []


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

    def held(self, world: World) -> dict[Commodity, int]:
        """Return how much of each asset the wallet holds; call it inside the world."""
        tokens = {self.commodity: world.tokens(self.token, world.wallet)}
        return tokens | ({Commodity.ETH: world.balance(world.wallet)} if self.coin else {})

    def moves(self, world: World) -> list[tuple[str, str, int]]:
        """Return each transfer of the dollar out of the wallet: transaction, recipient, units; fees are none."""
        return [moved for moved in moves(world, self.token, world.wallet) if moved[1] != self.fees_to]


def _tempo(world: World, others: dict[str, int] | None = None) -> Tempo:
    funded = {world.wallet: HELD} | (others or {})
    return Tempo(tools.require("anvil"), funded=funded, block_s=None, now=world.clock.now_s)


def _plain(world: World, account: Account, delay_ms: int) -> X402Seller:
    return X402Seller(account, world.chain, world.wallet, conduct=x402_seller.X402Conduct(posting_delay_ms=delay_ms))


def _machine(world: World, account: Account, delay_ms: int, *, sponsored: bool = False) -> purchases.Seller:
    conduct = purchases.MppConduct(posting_delay_ms=delay_ms, sponsored=sponsored)
    return purchases.Seller(account, world.chain, conduct=conduct)


class Forgetting(purchases.Seller):
    """Never submits the first payload that it is handed. Its time is over at once, and somebody else uses the chain."""

    def __init__(self, world: World, account: Account, delay_ms: int) -> None:
        conduct = purchases.MppConduct(posting_delay_ms=delay_ms, sponsored=True)
        super().__init__(account, world.chain, conduct=conduct)
        self._world, self._forgot, self._others = world, "", 0

    async def _settle(self, payment: purchases.Payment, fault: str) -> None:
        if not self._forgot:
            self._forgot = payment.transfer.hash
            self._world.clock.leap(WINDOW_MS)
        if payment.transfer.hash != self._forgot:
            await super()._settle(payment, fault)

    def poll(self) -> None:
        """Post what is due; and after the first payload, move somebody else's dollar now and then."""
        super().poll()
        if self._forgot and self.chain.pending() == 0:  # type: ignore[attr-defined]
            self._others += 1
            raw = tempo_transfer.moved(tempo_transfer.SPONSORS[1], USDC_E, self._others, self.now_ms() // 1000 + 600)
            self.chain.rpc("eth_sendRawTransaction", ["0x" + raw.hex()])


def _sells_mpp(world: World) -> dict[str, str]:
    return buying(world.rpc.url) | {"TOPUP_RAILS__MPP__RECIPIENTS": purchases.RECIPIENT}


def _sells_sponsored(world: World) -> dict[str, str]:
    # The hard fork that anvil knows takes no expiring nonce for longer than half a minute.
    own = {"TOPUP_RAILS__MPP__SPONSORED": "true", "TOPUP_RAILS__MPP__SPONSORED_S": "28"}
    return _sells_mpp(world) | own


COINBASE: Final = Ground(worlds.anvil)
IN_USDC: Final = Ground(worlds.anvil, settings=lambda _: {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"})
X402: Final = Ground(
    worlds.anvil,
    _plain,
    lambda world: dict(world.gateway.environment()),  # type: ignore[attr-defined]
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
SPONSORED: Final = replace(
    MPP,
    chain=lambda world: _tempo(world, tempo_transfer.funds(HELD)),
    gateway=partial(_machine, sponsored=True),
    settings=_sells_sponsored,
    handed=lambda seller: set(seller.handed),
)


# -- lives -------------------------------------------------------------------------------------------------------------


class Role:
    """What the process under test does, who is beside it, and how all comes to rest: here a daemon that refills.

    Attributes:
        words: its command.
        used_usd: what of the twenty dollars of credit is used up.
        drops: whether a top-up of which nothing was ever sent may be dropped, and another one decided.
    """

    words: tuple[str, ...] = ("run",)
    used_usd: int = 11
    drops: bool = False

    def prepare(self, house: House) -> None:
        """Start what is there before it."""

    def join(self, house: House, watched: Running) -> None:
        """Start or end what comes after it."""

    def over(self, house: House, watched: Running) -> bool:
        """Tell whether it has lived to its end."""
        return held(watched)

    def end(self, house: House, watched: Running) -> None:
        """Bring all to rest after a life undisturbed."""
        watched.stop(signal.SIGTERM)

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        """Bring all to rest after its death; what is `late` is still on its way."""
        settle(house, late)

    def steps(self, use: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the steps at which it is worth dying."""
        return use


REFILLS: Final = Role()


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
    role: Role = REFILLS
    # Somebody is told what happens, by a webhook.
    told: bool = False


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
    # Who takes the webhooks.
    receiver: Receiver = field(default_factory=Receiver)

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
        hook = self.wires["hook"].url if "hook" in self.wires else self.receiver.url
        told = {"notify__webhook_url": hook + HOOK} if self.life.told else {}
        return {"api__url": api, self.life.ground.rpc_setting: ",".join(rpcs)} | told

    def launch(self, command: Sequence[str], **changes: str | None) -> Running:
        running = super().launch(command, **self.addresses(), **changes)
        CHILDREN.append(running.process)
        return running

    def ordinary(self) -> Running:
        return self.launch([*TOPUP, "run"])

    def under_test(self, cell: Cell | None, program: Sequence[str]) -> Running:
        """Start topup watched, by `program`, to die at `cell`; and whoever is beside it."""
        self.life.role.prepare(self)
        # What is delayed until it is given up should be given up soon.
        hasty = {"api__timeout_s": "1", "chain__timeout_s": "1", "posting__pay_timeout_s": "1"}
        changes = hasty if cell is not None and (cell.answer, cell.when) == ("delayed", "used") else {}
        word = str(cell) if cell is not None else "-"
        running = self.launch([*program, str(self.directory), word, *self.life.role.words], **changes)
        self.life.role.join(self, running)
        return running

    def questions(self) -> int:
        return sum(len(wire.log) for wire in self.wires.values())

    def use(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / TRACE).read_text(encoding="utf-8").splitlines()]


@contextmanager
def house_of(life: Life, *, wired: bool) -> Iterator[House]:
    """Serve a world in which somebody is to buy, or has bought where that is what is lived through; end all with it."""
    ground = life.ground
    gateway = ground.gateway

    def seller(world: World, account: Account) -> Gateway:
        assert gateway is not None
        return gateway(world, account, life.posting_delay_ms)

    world = World(
        ground.chain,
        make_gateway=seller if gateway is not None else None,
        conduct=Conduct(posting_delay_ms=life.posting_delay_ms),
        usage_usd=Decimal(life.role.used_usd),
        burn_usd_per_hour=Decimal(0),
    )
    world.tick_s = ground.block_s
    with tempfile.TemporaryDirectory(prefix="topup-kill-") as folder, ExitStack() as stack:
        stack.enter_context(world)
        if ground.coin:
            world.do(lambda: world.write(contracts.usdc_balance(world.wallet, HELD)))
        held = world.do(lambda: ground.held(world))
        made = House(world, Path(folder), life.settings | ground.settings(world), life=life, held=held)
        for number in range(life.providers):
            server = world.rpc if number == 0 else world.provider()
            server.intercept = made.node
            made.upstream[f"rpc{number}"] = server.url
        if life.told:
            made.receiver = stack.enter_context(receiving())
        if wired or life.wired:
            hook = {"hook": made.receiver.url} if life.told else {}
            for name, url in {"api": world.gateway.url, **made.upstream, **hook}.items():
                made.wires[name] = stack.enter_context(proxy.Proxy(url))
        stack.callback(made.end)
        life.arrange(made)
        if life.refilled:
            settle(made)
        yield made


def held(running: Running) -> bool:
    """Tell whether it has come to rest: nothing open, the balance above its floor."""
    return bool(running.told("cycle_done", outcome="held"))


def until(what: str, true: Callable[[], bool], running: Running) -> None:
    served.until(lambda: true() or running.process.poll() is not None, running.log, LIFE_S)
    if not true():  # what became true in its last moment counts
        raise TimeoutError(f"not {what}, exit code {running.process.poll()}: {running.log()[-1500:]}")


def settle(house: House, late: Iterable[proxy.Rule] = (), over: Callable[[Running], bool] = held) -> None:
    """Run the ordinary program until it is over; what is `late` arrives once it has asked something."""
    asked, left = house.questions(), list(late)
    running = house.ordinary()

    def settled() -> bool:
        while left and house.questions() > asked:
            left.pop().release()
        return over(running)

    until("settled", settled, running)
    code = running.stop(signal.SIGTERM)
    if code != 0:
        raise AssertionError(f"a stopped daemon left with {code}")
