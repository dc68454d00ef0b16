"""Does anything that can happen, in any order, ever pay twice or lose a payment? One seed drives a whole world.

    python -m tests.proofs.simulation --seeds 200              many short lives
    python -m tests.proofs.simulation --seed 7 --steps 1000000 one long one

A seed decides the way to pay, by its remainder when divided by four: 0 signs Tempo transactions that a seller carries
to the chain (mpp), 1 pays Coinbase charges in ETH, 2 signs authorizations (x402), 3 pays Coinbase charges in USDC. It
decides what the world does between any two passes of the real flow over a real ledger: blocks, reorganisations, halts
of the chain, providers that fail, lag or lie, prices, fees, a frozen token, posting, what the seller carries and says,
clocks, crashes inside any call of a port, and an operator. After every step the invariants below are held against the
chain itself, which no provider can fake here.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.tools import memory
from tests.world import builders
from tests.world.around import around
from tests.world.simulated import (
    BLOCK_S,
    SELLER,
    Clock,
    Listener,
    Net,
    Provider,
    SimulatedApi,
    SimulatedChain,
    SimulatedOffers,
    SimulatedSeller,
    SimulatedSigner,
    SimulatedTokens,
)
from tests.world.simulated_tempo import KEY, REALM, SimulatedPurchases, TempoNet, TempoSigner, TempoTokens
from topup.accounting.journal import Commodity
from topup.app import assembly
from topup.app.settings import Settings, load
from topup.domain.demand import Bounds
from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLAR
from topup.domain.errors import TopupError
from topup.domain.lifecycle import TABLE, Attempt, Fact, State, TopUp
from topup.domain.money import Asset, Bps, Usd
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, X402, Account, PassResult, Route, Terms
from topup.payment.cycle import Cycle
from topup.ports.rail import Rail
from topup.sellers import authorization, coinbase, mpp, x402
from topup.sellers.mpp_choice import Terms as MppTerms
from topup.sellers.x402_profile import PROFILES
from topup.wire.secrets import NOTHING, Masker

# By a seed's remainder: rail, and what is paid with.
WAYS = ((MPP, Asset.USDC_E), (COINBASE, Asset.ETH), (X402, Asset.USDC), (COINBASE, Asset.USDC))
# In the smallest unit of what is paid with, and of what pays for gas beside it.
WALLET_UNITS = 10**18
DAY_MS = 86_400_000
# So many passes of a life's calm end still die now and then; a process that always dies ends nothing.
CRASHING = 100
LIES = (
    "null_receipts",
    "paid",
    "reverted",
    "replaced",
    "future",
    "nonce",
    "dear_quote",
    "cheap_quote",
    "price",
    "simulates_all",
    "wrong_chain",
    "unpaid",
)
USDC_LIES = (*(lie for lie in LIES if lie not in ("dear_quote", "cheap_quote", "price")), "allowance")
# Of authorizations; there are neither quotes nor nonces.
TOKEN_LIES = ("null_receipts", "paid", "replaced", "future", "simulates_all", "wrong_chain", "unpaid", "marked")
LIES_OF = {WAYS[0]: (*TOKEN_LIES, "reverted"), WAYS[1]: LIES, WAYS[2]: TOKEN_LIES, WAYS[3]: USDC_LIES}
SETTINGS = {
    "TOPUP_MODE": "live",
    "TOPUP_CONFIG": "/dev/null",
    "TOPUP_API__KEY": "sk-or-simulated-key-of-nobody",
    "TOPUP_WALLET__ADDRESS": builders.PAYER,
    "TOPUP_WALLET__PRIVATE_KEY": "0x" + "11" * 32,
    "TOPUP_CHAIN__RPC_URLS": "http://127.0.0.1:1",
    "TOPUP_POLICY__FLOOR": "10",
    "TOPUP_POLICY__AMOUNT": "10",
    "TOPUP_RAILS__YOUNG_S": "0",
    "TOPUP_POLICY__CAP_24H": "200",
    "TOPUP_POLICY__CAP_30D": "1000",
    "TOPUP_POLICY__COUNT_24H": "50",
    "TOPUP_POLICY__COOLDOWN_S": "300",
    "TOPUP_POLICY__BACKOFF_S": "60",
    "TOPUP_POLICY__FAILURES_MAX": "20",
    "TOPUP_POLICY__BURN_FACTOR_MAX": "0",
    "TOPUP_POSTING__LATE_S": "600",
}
# Of two worlds in five: a cap, by its days, that the third top-up within them would pass.
TIGHT = {1: {"TOPUP_POLICY__CAP_24H": "22"}, 30: {"TOPUP_POLICY__CAP_24H": "22", "TOPUP_POLICY__CAP_30D": "22"}}


class Crash(BaseException):
    """The process ends here; nothing catches it."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Twice(Broken):
    """More than one charge of one decision is paid."""


class Lost(Broken):
    """Money left the wallet that the ledger does not know of."""


@cache
def _settings(*given: tuple[str, str]) -> Settings:
    """Read settings once; a thousand lives share them."""
    return load(dict(given))


class Fragile:
    """A port that now and then dies just before or just after a call, and counts the calls."""

    def __init__(self, port: Any, world: Simulation) -> None:
        self._port, self._world = port, world

    def __getattr__(self, name: str) -> Any:
        """Pass everything on, unless the process dies here."""
        real = getattr(self._port, name)
        if not callable(real):
            return real

        @contextmanager
        def each() -> Iterator[None]:
            self._world.port_call(name, "before")
            yield
            self._world.port_call(name, "after")

        return around(real, each)


class Simulation:
    """One world under one seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed, self.rng = seed, Random(seed)
        self.directory = directory
        self.clock = Clock()
        self.rail, self.asset = self.way = WAYS[seed % len(WAYS)]
        on_tempo = self.rail == MPP
        self.net = (TempoNet if on_tempo else Net)(self.rng, self.clock, WALLET_UNITS)
        count = self.rng.choice((1, 2, 2, 3, 3))
        self.each = [Provider(self.net, self.rng, f"owner-{n}") for n in range(count)]
        quorum = min(2, count) if self.rng.random() < 0.8 else 1
        self.chain: SimulatedChain | SimulatedTokens
        makes: dict[str, type[SimulatedChain | SimulatedTokens]] = {
            COINBASE: SimulatedChain,
            X402: SimulatedTokens,
            MPP: TempoTokens,
        }
        self.chain = makes[self.rail](self.net, self.each, quorum=quorum, clock=self.clock, rng=self.rng)
        self.chain.before_send = self.before_send
        self.api = SimulatedApi(self.net, self.clock, self.rng)
        sells = SimulatedPurchases if on_tempo else SimulatedOffers
        self.seller: SimulatedSeller = sells(self.net, self.clock, self.rng, self.api)
        self.seller.before_send = self.before_send
        self.signer = (TempoSigner if on_tempo else SimulatedSigner)(self.chain, self.clock)
        self.sink = Listener()
        self.steps = 0
        self.crash_chance = self.rng.choice((0.0, 0.002, 0.02))
        self.calm = False
        self.settings = _settings(*(SETTINGS | {3: TIGHT[1], 4: TIGHT[30]}.get(seed // len(WAYS) % 5, {})).items())
        self.limits = assembly.limits(self.settings)
        # Where it dies for certain, once: just before or just after its first call of this name.
        self.dies: tuple[str, str] | None = None
        self.crashes = 0
        self.topups = 0
        # The newest move that was held against the table, and the state of each top-up by then.
        self._move, self._state = 0, dict[str, State]()
        self.start()

    # -- the process ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.store = SqliteStore.open_writer(self.directory)
        self.store._db.execute("PRAGMA synchronous = OFF")  # power stays on here; a crash loses memory alone
        store: Any = Fragile(self.store, self)
        chain: Any = Fragile(self.chain, self)
        api: Any = Fragile(self.api, self)
        signer: Any = Fragile(self.signer, self)
        seller: Any = Fragile(self.seller, self)
        self.payer = {
            COINBASE: lambda: self._coinbase(api, chain, signer),
            MPP: lambda: self._mpp(seller, chain, signer),
            X402: lambda: self._x402(seller, chain, signer),
        }[self.rail]()
        self._api, self._ledger = api, store
        self.cycle = self.cycle_of([Route(self.rail, self.chain.chain_id)], lambda _: self.payer)

    def cycle_of(self, routes: Sequence[Route], rails: Callable[[str], Rail]) -> Cycle:
        """Return what makes the passes of an account with these ways to pay."""
        return Cycle(
            Terms(
                Account("default", builders.WALLET, tuple(routes)),
                self.limits,
                assembly.ceilings(self.settings),
                assembly.pace(self.settings),
            ),
            api=self._api,
            rails=rails,
            store=self._ledger,
            clock=self.clock,
            sink=self.sink,
            rpc_requests=lambda: self.chain.requests,
        )

    def _coinbase(self, api: Any, chain: Any, signer: Any) -> Rail:
        terms = coinbase.Terms(
            slippage=Bps(100), gas_margin=Bps(2000), bump=Bps(1250), bump_times_max=5, pay_with=self.asset
        )
        return coinbase.Coinbase(api, chain, signer, self.clock, self.api.pins, terms)

    def _mpp(self, exchange: Any, chain: Any, signer: Any) -> Rail:
        seller = authorization.Seller(exchange, KEY, self._bounds(TEMPO_DOLLAR.token), 40, Masker([KEY]))
        return mpp.Mpp(seller, chain, signer, self.clock, terms=MppTerms(REALM, TEMPO_DOLLAR.asset, {}))

    def _x402(self, exchange: Any, chain: Any, signer: Any) -> Rail:
        one, seller = BASE_DOLLAR, authorization.Seller(exchange, "", self._bounds(BASE_DOLLAR.token), 40, NOTHING)
        return x402.X402(seller, chain, signer, self.clock, profile=PROFILES["plain"], token=one)

    def _bounds(self, token: bytes) -> Bounds:
        sold_to = frozenset({builders.address(SELLER)})
        return Bounds(token, sold_to, self.limits.fee_ceiling, assembly.LIFE_MIN_S, 900)

    def port_call(self, name: str, when: str) -> None:
        """Count a step; the process may die here, in calm times too, and once where it was told to."""
        self.steps += 1
        if self.dies == (name, when):
            self.dies = None
            raise Crash
        if self.rng.random() < self.crash_chance:
            raise Crash

    def restart(self) -> None:
        self.crashes += 1
        self.store.close()
        self.seller.restarted()
        self.start()

    # -- the world --------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Let one thing happen that nobody asked for."""
        self.steps += 1
        dice = self.rng.random()
        if dice < 0.18:
            self._chain(dice)
        elif dice < 0.25:
            self._provider(self.rng.choice(self.each))
        elif dice < 0.31:
            self._account_or_clock(dice)
        elif dice < 0.36:
            self._operator()
        elif dice < 0.37:
            self.clock.true_ms += self.rng.choice((3_600_000, 6 * 3_600_000, 49 * 3_600_000))

    def _chain(self, dice: float) -> None:
        rng, net = self.rng, self.net
        if dice < 0.04:
            net.reorg(rng.randrange(1, 5), forget=rng.random() < 0.4)
        elif dice < 0.043:
            net.reorg(rng.randrange(5, 25), forget=rng.random() < 0.4)
        elif dice < 0.07:
            net.mining = not net.mining
        elif dice < 0.11:
            moved = net.base_fee * rng.choice((1, 2, 3, 5)) // rng.choice((1, 2, 3, 5))
            net.base_fee = min(max(moved, net.base_fee_min), net.base_fee_max)
        elif dice < 0.15 and self.rail != COINBASE:
            net.frozen = rng.random() < 0.1
        elif dice < 0.15:
            net.price_e8 = min(max(net.price_e8 * rng.randrange(970, 1031) // 1000, 1500 * 10**8), 6000 * 10**8)
        elif net.pool:
            net.pool.pop(rng.choice(sorted(net.pool)))
        elif net.carried:
            net.carried.pop(rng.choice(list(net.carried)))

    def _account_or_clock(self, dice: float) -> None:
        rng = self.rng
        if dice < 0.28:
            self.api.trouble = rng.choice((0.0, 0.02, 0.3))
            self.api.posting = rng.random() < 0.9
            self.api.post_delay_ms = rng.choice((0, 5_000, 200_000, 900_000))
        elif dice < 0.29:
            self.api.usage_usd = min(self.api.credits_usd, self.api.usage_usd + rng.randrange(0, 5))
        else:
            self.clock.skew_ms += rng.choice((-1, 1)) * rng.choice((1_000, 30_000, 120_000))
            self.clock.skew_ms = max(min(self.clock.skew_ms, 300_000), -300_000)

    def _provider(self, one: Provider) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            one.down, one.lag = False, 0
            one.lie = "" if one.lie and rng.random() < 0.7 else one.lie
            return
        dice = rng.random()
        if dice < 0.3:
            one.down = True
        elif dice < 0.6:
            one.lag = rng.randrange(0, 6)
        elif len(self.each) > 1 and not any(p.lie for p in self.each if p is not one):
            one.lie = rng.choice(LIES_OF[self.way])

    def _operator(self) -> None:
        """Say something true, or harmless."""
        open_one, dice = self.store.open_topup("default"), self.rng.random()
        if dice < 0.6:
            self._say("paused", "1" if dice < 0.15 else "0")
        elif open_one is None:
            return
        elif open_one.state is State.HALTED:
            self._resolve(open_one)
        elif dice < 0.65:
            self._say(f"resolve:{open_one.id}", "cancel")

    def _resolve(self, topup: TopUp) -> None:
        self._say(f"resolve:{topup.id}", "look" if self._may_still_pay(topup) else "attest-unpaid")

    def _say(self, name: str, word: str) -> None:
        self.store.say("default", name, word, self.store.now_ms(self.clock.now_ms()), "operator")

    def _may_still_pay(self, topup: TopUp) -> bool:
        """Tell the truth about a top-up, as a careful person would learn it: paid, or not yet impossible."""
        final = self.net.at(self.net.final)
        final_s = final.head.timestamp_s if final is not None else 0
        for attempt in topup.out:
            tx = self.chain.txs[attempt.hash or b""]
            if tx.charge is not None and (tx.charge in self.net.tip.paid or final_s <= tx.deadline):
                return True
        return False

    def _stands(self, attempt: Attempt) -> bool:
        """Tell whether a block holds it, or its use by whoever carried it."""
        if attempt.ours:
            return attempt.hash in self.net.where
        return self.chain.txs[attempt.hash or b""].charge in self.net.tip.paid

    # -- a step -----------------------------------------------------------------------------------------------------

    async def step(self) -> PassResult | None:
        """Let things happen, make a pass, let its time go by, and hold the invariants."""
        if not self.calm:
            for _ in range(self.rng.randrange(0, 9)):
                self.act()
        rest: PassResult | None = None
        halted = self._halted()
        try:
            rest = await self.cycle.run()
        except Crash:
            self.restart()
        except TopupError as error:
            if not error.again and not self.calm:
                self.act()
        self.hold(halted)
        self.passing(min(rest.next_s, 120) if rest is not None else 5)
        return rest

    def passing(self, seconds: int) -> None:
        blocks = max(1, min(seconds // BLOCK_S, 8))
        for _ in range(blocks):
            self.clock.true_ms += seconds * 1000 // blocks
            self.seller.live()
            if self.net.mining:
                self.net.mine()
                if self.rng.random() < 0.7:
                    self.net.finalize()
        self.api.live()

    # -- invariants -------------------------------------------------------------------------------------------------

    def before_send(self, tx_hash: bytes) -> None:
        """Nothing leaves that is not in the ledger with the intent to send it, and nothing of a halted top-up."""
        row = self.store._db.execute(
            "SELECT intended_ms, state FROM attempt JOIN topup ON topup.id = attempt.topup WHERE hash = ?", (tx_hash,)
        ).fetchone()
        if row is None or row["intended_ms"] is None:
            raise Broken(f"0x{tx_hash.hex()} leaves without a stored intent")
        if row["state"] == State.HALTED:
            raise Broken(f"0x{tx_hash.hex()} leaves and its top-up is halted")

    def _halted(self) -> tuple[str, int] | None:
        open_one = self.store.open_topup("default")
        halted = open_one is not None and open_one.state is State.HALTED
        return (open_one.id, len(open_one.attempts)) if open_one is not None and halted else None

    def hold(self, halted: tuple[str, int] | None) -> None:
        """Hold what must never be against the chain and the ledger."""
        paid: dict[str, set[Any]] = {}
        for tx_hash in self.net.tip.paid.values():
            known_by = self.net.signed.get(tx_hash, tx_hash)
            row = self.store._db.execute("SELECT topup FROM attempt WHERE hash = ?", (known_by,)).fetchone()
            if row is None:
                raise Lost(f"0x{tx_hash.hex()} paid and the ledger does not know it")
            paid.setdefault(row[0], set()).add(self.net.paid_ever[tx_hash])
        for topup, charges in paid.items():
            if len(charges) > 1:
                raise Twice(f"{topup} paid {len(charges)} charges")
        if halted is not None:
            topup_id, attempts = halted
            if len(self.store.topup(topup_id).attempts) != attempts:
                raise Broken(f"{topup_id} was halted and signed")
        if self.net.tip.allowance > self.limits.topup_max.plus_bps(self.limits.fee_ceiling).usdc_up().units:
            raise Broken(f"{self.net.tip.allowance} units may be taken, more than one top-up")
        self._moves()
        self._caps()

    def _moves(self) -> None:
        """Every move since the last look is an arrow of the table."""
        rows = self.store._db.execute("SELECT id, topup, fact, state FROM move WHERE id > ? ORDER BY id", (self._move,))
        for row in rows.fetchall():
            now = State(row["state"])
            if row["fact"] != "decide":
                was = self._state[row["topup"]]
                if TABLE.get((was, Fact(row["fact"]))) is not now:
                    raise Broken(f"{row['topup']}: {was} {row['fact']} {now} is not in the table")
            self._move, self._state[row["topup"]] = row["id"], now

    def _caps(self) -> None:
        """No day and no thirty days of ledger time hold more decisions' worth than their cap."""
        rows = self.store._db.execute(
            "SELECT min(attempt.intended_ms) AS at, topup.amount FROM attempt JOIN topup ON topup.id = attempt.topup"
            " WHERE attempt.intended_ms IS NOT NULL AND kind = 'pay' AND topup.state <> 'failed'"
            " GROUP BY attempt.topup ORDER BY at"
        ).fetchall()
        spent = [(row["at"], Usd.of(row["amount"]).plus_bps(self.limits.fee_ceiling)) for row in rows]
        for days, cap in ((1, self.limits.cap_24h), (30, self.limits.cap_30d)):
            held, first = Usd.of(0), 0
            for at, amount in spent:
                held = held + amount
                while spent[first][0] <= at - days * DAY_MS:
                    held, first = held - spent[first][1], first + 1
                if cap < held:
                    raise Broken(f"{held} dollars within {days} days before {at}")

    def hold_at_the_end(self) -> None:
        """The books match the chain to the unit."""
        tip, asset = self.net.tip, self.asset
        left = {Commodity(asset): WALLET_UNITS - tip.balance}
        if self.way == (COINBASE, Asset.USDC):
            left = {Commodity.ETH: WALLET_UNITS - tip.balance, Commodity.USDC: WALLET_UNITS - tip.tokens}
        booked = dict.fromkeys(left, 0)
        for line in self.store._db.execute("SELECT commodity, units FROM line WHERE account = 'assets:wallet'"):
            booked[Commodity(line["commodity"])] -= int(line["units"])
        if booked != left:
            raise Lost(f"{booked} are in the books, {left} have left the wallet")

    # -- lives ------------------------------------------------------------------------------------------------------

    async def live(self, steps: int) -> None:
        """Live so many steps in trouble, then in calm until nothing is open."""
        while self.steps < steps:
            await self.step()
        await self.settle()

    async def settle(self) -> None:
        """Calm the world: what is open has to end, or say why it waits for a person, who then says it."""
        self.calm = True
        self.api.trouble, self.api.posting, self.api.post_delay_ms = 0.0, True, 0
        self.net.mining, self.net.frozen, self.net.base_fee = True, False, self.net.base_fee_first
        self.seller.honest = True
        for one in self.each:
            one.down, one.lag, one.lie = False, 0, ""
        self._say("paused", "1")  # nothing new is begun
        rest = None
        for turn in range(1000):
            if turn == CRASHING:
                self.crash_chance = 0.0
            open_one = self.store.open_topup("default")
            beside = self.store.afterwards("default", builders.WALLET)
            left = [a for _, a in beside if a.inclusion or self._stands(a)]
            if open_one is None and not left:
                break  # what is nowhere and dead is looked for until its nonce is taken
            if open_one is not None and open_one.state is State.HALTED and turn % 5 == 0:
                self._resolve(open_one)
            if open_one is not None and open_one.state in (State.DECIDED, State.CHARGED, State.RESERVED, State.SIGNED):
                # A pause holds what was not sent; let it go on, one purchase is bounded anyway.
                self._say("paused", "0")
            elif open_one is not None or self.store.control("default").paused is False:
                self._say("paused", "1")
            if turn % 40 == 39:
                self.clock.true_ms += 49 * 3_600_000
            rest = await self.step()
            if rest is not None and not rest.why:
                raise Broken("it rests and does not say why")
        else:
            raise Broken(f"nothing ends it: {rest}")
        self.hold_at_the_end()
        self.topups = len(self.store.latest("default", 100_000))


@dataclass(frozen=True)
class Soaked:
    seed: int
    steps: int
    topups: int
    crashes: int
    double_payments: int
    lost: int
    # Lives in which any other invariant broke.
    broken: int


def run(seed: int, steps: int, dies: tuple[str, str] | None = None) -> Simulation:
    """Live one seed, with one more death where it `dies`; the simulation is returned for its counts."""
    # In memory where there is such a place: a soak commits a hundred thousand times.
    with tempfile.TemporaryDirectory(prefix="topup-simulation-", dir=memory(), ignore_cleanup_errors=True) as directory:
        world = Simulation(seed, Path(directory))
        world.dies = dies
        try:
            asyncio.run(world.live(steps))
        except BaseException:
            sys.stderr.write("\n".join(world.sink.told[-40:]) + "\n")
            sys.stderr.write(f"replay: python -m tests.proofs.simulation --seed {seed} --steps {steps}\n")
            raise
        finally:
            world.store.close()
        return world


def soak(seed: int, steps: int, each: int = 4000) -> Soaked:
    """Live so many steps in lives of about `each`, seed after seed; a broken invariant counts, and is told."""
    done = topups = crashes = 0
    breaches: Counter[type[Broken]] = Counter()
    first = seed
    while done < steps:
        try:
            world = run(seed, min(each, max(steps - done, 200)))
        except Broken as error:
            sys.stderr.write(f"seed {seed}: {error}\n")
            breaches[type(error)] += 1
            done += each
        else:
            done, topups, crashes = done + world.steps, topups + world.topups, crashes + world.crashes
        seed += 1
    return Soaked(first, done, topups, crashes, breaches[Twice], breaches[Lost], breaches[Broken])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000, help="of one life")
    parser.add_argument("--seeds", type=int, default=1, help="how many lives, from --seed on")
    parser.add_argument("--soak", type=int, default=0, help="so many steps in all, seed after seed")
    given = parser.parse_args()
    if given.soak:
        told = soak(given.seed, given.soak, given.steps)
        sys.stdout.write(f"{told}\n")
        return int(told.double_payments + told.lost + told.broken > 0)
    names = Counter[str]()
    for seed in range(given.seed, given.seed + given.seeds):
        names += run(seed, given.steps).sink.names
    sys.stdout.write(f"{given.seeds} lives of {given.steps} steps: {names}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
