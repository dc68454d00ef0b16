"""What comes of answers that are bent? `python -m tests.proofs.fuzz --rounds N --seed S [SIDE…]`.

Each round asks one thing, bends what an honest provider, API or seller answers (tests/world/bending.py), and lets the
real code read it as it reads every other: nothing listens. The rules that hold in each round:

  nothing but our own errors crosses the wall;
  nothing that is said is longer than a sentence may be, or commands a terminal, or holds our key;
  who was honest is never set aside, and an answer that was refused names who gave it;
  where two are honest, what is planned on is what they say;
  what is kept of a seller's answer is what came, byte for byte, and what is proven is what was asked for.

A round is repeated by its seed, which a failure names. Whole payments are played in tests/proofs/fuzz_payments.py.
"""

import argparse
import asyncio
import gzip
import json
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from tests.proofs import fuzz_payments
from tests.proofs.fuzz_payments import BENT, HONEST
from tests.tools import HANGS_S
from tests.world import builders
from tests.world import memory_sellers as sellers
from tests.world.bending import KEY, Bend, Broken, bent, blamed, encoded, header, refusals, said
from tests.world.near import Near, Told, Voice, hears
from tests.world.stand import HEAD_AGE_MAX_S, LAG_MAX_S, TOTAL, Stand
from topup.chain.contract_chain import EvmChain
from topup.chain.profiles import BASE
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import charge_of, parse, verify
from topup.domain.credits import DAY_MS
from topup.domain.errors import TopupError
from topup.domain.events import Event, ProviderSetAside
from topup.domain.money import Usdc
from topup.sandbox.http import Request
from topup.sandbox.world import embedded
from topup.sellers.openrouter import OpenRouter
from topup.wire.exchange import Exchange
from topup.wire.http import Answered

# -- providers ----------------------------------------------------------------------------------------------------


class _Town:
    """Three providers of one chain, of which the first is bent where there is luck."""

    def __init__(self, world: Near) -> None:
        """Choose what is asked: of the first three questions two who say the same are enough."""
        self._world, stand = world, Stand(world)
        stand.mine(3)
        self._now_s = world.clock.now_s()  # blocks stay as young, however late an answer is
        demand = stand.demand()
        call, attempt, at = stand.call(demand), stand.attempt(demand), stand.head()
        self.actions: list[Callable[[EvmChain], Awaitable[Any]]] = [
            lambda chain: chain.preflight(stand.wallet, TOTAL, BASE.contract),
            lambda chain: chain.simulate(call, demand, at),
            lambda chain: chain.look(stand.wallet, [(attempt, demand)]),
            lambda chain: chain.look(stand.wallet, [(attempt, demand)], every=True),
            lambda chain: chain.payment_status(demand, 0),
            lambda chain: chain.holdings(stand.wallet),
        ]

    def edge(self, luck: random.Random | None, say: Callable[[Event], None]) -> EvmChain:
        rpcs = [Rpc(f"https://{name}/{KEY}", timeout_s=10) for name in (BENT, *HONEST)]
        for rpc in rpcs:
            bend = Bend(luck, 100) if luck is not None and rpc.name == BENT else None
            hears(rpc, Voice(self._world.provider_says, bend))
        told: dict[str, Any] = {"quorum": 2, "head_age_max_s": HEAD_AGE_MAX_S, "lag_max_s": LAG_MAX_S}
        return EvmChain(BASE, Providers(rpcs, now_s=lambda: self._now_s, say=say, **told))

    async def round(self, luck: random.Random, right: Sequence[Any]) -> bool:
        """Ask once; tell whether the bent one was refused."""
        heard: list[Event] = []
        place, chain = luck.randrange(len(self.actions)), self.edge(luck, heard.append)
        refused = refusals(chain._providers)
        texts = list[str]()
        try:
            told = await self.actions[place](chain)
        except TopupError as error:
            if place < 3:
                raise Broken(f"two honest are enough, and it was {error!r}") from error
            texts += [str(error), error.remedy]
        else:
            if place < 3 and told != right[place]:
                raise Broken(f"two honest say {right[place]}, what was made of it is {told}")
        texts += [text for event in heard for text in event.shown().values() if isinstance(text, str)]
        said([*texts, *(text for _, text, _ in refused)])
        blamed(refused, BENT)
        if any(isinstance(event, ProviderSetAside) and event.provider != BENT for event in heard):
            raise Broken(f"an honest provider was set aside: {heard}")
        return bool(refused)


def provider(rounds: int, seed: int) -> int:
    """Bend one of three providers; return in how many rounds it was refused."""
    with Near(embedded) as world:
        town, right = _Town(world), list[Any]()

        async def one(luck: random.Random) -> bool:
            if not right:
                right.extend([await action(town.edge(None, lambda _: None)) for action in town.actions])
            return await town.round(luck, right)

        return _rounds("provider", rounds, seed, one, world.loop)


# -- the API and sellers ------------------------------------------------------------------------------------------


def api(rounds: int, seed: int) -> int:
    """Bend what the credits API says; return how often it was refused."""
    with Near(embedded, burn_usd_per_hour=Decimal("0.1")) as world:
        world.gateway.management_key = KEY
        world.clock.leap(2 * DAY_MS)  # days of usage are told once they are over
        request = builders.request()

        async def one(luck: random.Random) -> bool:
            sent: list[Told] = []
            bend = Bend(luck, 100)

            async def kept(asked: Request, honest: Callable[[], Awaitable[Told]]) -> Told:
                sent.append(await bend(asked, honest))
                return sent[-1]

            exchange = Exchange(world.gateway.url, timeout_s=HANGS_S)
            hears(exchange, Voice(world.seller_says, kept))
            client = OpenRouter(exchange, KEY, now_ms=world.clock.now_ms)
            calls: Sequence[Callable[[], Awaitable[Any]]] = (
                client.credits,
                client.key,
                client.activity,
                client.keys,
                lambda: client.charge(request),
            )
            try:
                told = await luck.choice(calls)()
            except TopupError as error:
                if "/" not in str(error):
                    raise Broken(f"the refusal names nobody: {error}") from error
                said([str(error), error.remedy])
                return True
            if isinstance(told, bytes) and told not in (sent[-1].body, _unpacked(sent[-1].body)):
                raise Broken("a charge was altered on its way")
            return False

        return _rounds("api", rounds, seed, one, world.loop)


def _unpacked(raw: bytes) -> bytes:
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def seller(rounds: int, seed: int) -> int:
    """Bend what sellers demand, a charge, an offer, a challenge; return how often it was refused.

    What is proven all the same pays the right one, the right amount, in the right token.
    """
    x402, _ = sellers.x402_rail()
    mpp = sellers.mpp_rail({}, {}, {})
    before: dict[Any, Any] = {rail: rail._seller.exchange for rail in (x402, mpp)}
    honest = {rail: standing._answer for rail, standing in before.items()}
    charges = builders.operator()
    charge, pins = charges.charge(builders.ask()), builders.pins_for(charges)

    async def coinbase(luck: random.Random) -> None:
        raw, _ = encoded(luck, bent(luck, {"data": charge}))
        demand = parse(raw)
        proven = verify(demand, builders.request(), pins, builders.CLOCKS, seen=())
        if charge_of(proven).intent != parse(builders.raw_of(charge)).intent:
            raise Broken("another intent than the operator signed was proven")

    async def carried(luck: random.Random) -> None:
        rail = luck.choice((x402, mpp))
        was = honest[rail]
        headers, raw = was.headers, was.body
        if rail is x402:
            raw, _ = encoded(luck, bent(luck, json.loads(raw)))
        else:
            headers = tuple((name, header(luck, line)) for name, line in headers)
        before[rail]._answer = Answered(was.who, was.status, headers, raw)
        chain_id = 8453 if rail is x402 else 4217
        proven, _ = await sellers.proven(rail, sellers.asked(chain_id))
        paid = proven.demand
        if (paid.recipient, paid.total) != (sellers.SOLD_TO, Usdc(sellers.TEN)) and rail is x402:
            raise Broken(f"{paid.total} to {paid.recipient.hex()} was proven")
        if paid.chain_id != chain_id or paid.contract != rail._seller.bounds.contract:
            raise Broken("another token was proven")

    async def one(luck: random.Random) -> bool:
        try:
            await (coinbase if luck.random() < 0.4 else carried)(luck)
        except TopupError as error:
            said([str(error), error.remedy], secret=False)  # the log masks what these rails were not told
            return True
        return False

    return _rounds("seller", rounds, seed, one, asyncio.new_event_loop)


SIDES: Final = {"provider": provider, "api": api, "seller": seller}


def _rounds(
    name: str,
    rounds: int,
    seed: int,
    one: Callable[[random.Random], Awaitable[bool]],
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> int:
    async def every() -> int:
        refused = 0
        for number in range(rounds):
            try:
                refused += await one(random.Random(f"{seed} {name} {number}"))
            except Broken as error:
                raise Broken(f"round {number}: {error}") from error
            except Exception as error:
                raise Broken(f"round {number}: {error!r} crossed the wall") from error
        return refused

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(every())


def main(arguments: Sequence[str] | None = None) -> int:
    """Bend answers of the sides that are named, all of them where none is; or play whole payments.

    Each payment that breaks a rule is said, and the others are played, so that one run finds all it can.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(SIDES)}; or payments, after which kinds may be named")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="begin with this round, of payments")
    told = parser.parse_args(arguments)
    whole, broken = told.names[:1] == ["payments"], 0
    known = fuzz_payments.KINDS if whole else tuple(SIDES)
    names = told.names[whole:] or known
    if strange := set(names) - set(known):
        parser.error(f"{', '.join(sorted(strange))}: none of {', '.join(known)}")
    for name in names:
        sys.stdout.write(f"{'payments ' * whole}{name}: seed {told.seed}, {told.rounds} rounds ... ")
        sys.stdout.flush()
        if whole:
            found = fuzz_payments.play(name, range(told.first, told.first + told.rounds), told.seed)
            broken += len(found.broken)
            sys.stdout.write(f"{found.bent} with a bent answer, {found.answers} of them; {len(found.broken)} broken\n")
            sys.stdout.write("".join(f"  {one}\n" for one in found.broken))
        else:
            refused = SIDES[name](told.rounds, told.seed)
            sys.stdout.write(f"{refused} refused, {told.rounds - refused} read, no rule broken\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
