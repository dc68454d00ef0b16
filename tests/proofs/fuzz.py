"""What comes of answers that are bent? `python -m tests.proofs.fuzz --rounds N --seed S [SIDE…]`.

Each round takes an answer that an honest provider, API or seller gives, bends it (types, digits, depth, size, what is
missing or too much, ids given twice, capitals, encodings, statuses), and lets the real code read it as it reads every
other: nothing listens and no chain runs, the answers are recorded ones. The rules that hold in each round:

  nothing but our own errors crosses the wall;
  nothing that is said is longer than a sentence may be, or commands a terminal, or holds our key;
  who was honest is never set aside, and an answer that was refused names who gave it;
  where two are honest, what is planned on is what they say;
  what is kept of a seller's answer is what came, byte for byte, and what is proven is what was asked for.

A round is repeated by its seed, which a failure names. Whole payments are played in tests/proofs/fuzz_payments.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.tools import HANGS_S
from tests.world import builders
from tests.world import memory_sellers as sellers
from tests.world.bending import KEY, Broken, bent, encoded, header, refusals, said
from tests.world.stand import ENOUGH, HEAD_AGE_MAX_S, LAG_MAX_S, TOTAL, Stand, at_once, stand_on
from topup.chain.contract_chain import EvmChain
from topup.chain.contracts import payment_data
from topup.chain.profiles import BASE
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import charge_of, parse, verify
from topup.domain.demand import Clocks
from topup.domain.errors import TopupError
from topup.domain.events import Event, ProviderSetAside
from topup.domain.money import Usdc
from topup.ports.chain import Call
from topup.sandbox.rpc import RpcError
from topup.sellers.openrouter import OpenRouter
from topup.wire.exchange import Exchange
from topup.wire.http import Answered, NoAnswer
from topup.wire.unpack import Packed, Unpacker

BENT: Final = "one.example"
SIDES: Final = ("provider", "api", "seller")


# -- what is asked over -------------------------------------------------------------------------------------------


# Method, address and body of a question; status, headers and body of its answer.
Answers = Callable[[str, str, bytes | None], tuple[int, dict[str, str], bytes]]


class Canned:
    """A client that hears what it is given; unpacked and bounded as over a wire."""

    def __init__(self, answer: Answers) -> None:
        self._answer = answer

    async def close(self) -> None:
        """Close nothing."""

    async def ask(self, method: str, url: str, *, who: str, body: bytes | None, bytes_max: int, **_: Any) -> Answered:
        status, headers, raw = self._answer(method, url, body)
        try:
            unpacker = Unpacker(headers.get("content-encoding", ""), bytes_max)
            plain = unpacker.feed(raw)
            unpacker.end()
        except Packed as error:
            raise NoAnswer(f"{who} {error}") from None
        return Answered(who, status, tuple(headers.items()), plain)


@dataclass
class Recorded:
    """What an honest chain answers to each question, and what the real code makes of it."""

    stand: Stand
    answers: dict[str, Any]

    def __call__(self, question: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([question["method"], question["params"]])
        if key not in self.answers:
            try:
                told = {"result": self.stand.rpc(question["method"], *question["params"])}
            except RpcError as error:
                told = {"error": {"code": error.code, "message": error.message, "data": error.data}}
            self.answers[key] = json.loads(json.dumps(told))
        return {"jsonrpc": "2.0", "id": question["id"], **self.answers[key]}


@dataclass
class _Town:
    """Three providers of one recorded chain, of which the first is bent where there is luck."""

    stand: Stand
    honest: Recorded

    def __post_init__(self) -> None:
        """Choose what is asked: of the first three questions two who say the same are enough."""
        stand, demand = self.stand, self.stand.demand()
        attempt, at = stand.attempt(demand), stand.head()
        call = Call(stand.wallet, demand.contract, payment_data(demand.intent, 500), ENOUGH)
        self.now_s = stand.world.clock.now_s()
        self.actions: list[Callable[[EvmChain], Awaitable[Any]]] = [
            lambda chain: chain.preflight(stand.wallet, TOTAL, BASE.contract),
            lambda chain: chain.simulate(call, demand, at),
            lambda chain: chain.look(stand.wallet, [(attempt, demand)]),
            lambda chain: chain.look(stand.wallet, [(attempt, demand)], every=True),
            lambda chain: chain.payment_status(demand, 0),
            lambda chain: chain.holdings(stand.wallet),
        ]

    def answer(self, luck: random.Random | None) -> Answers:
        def told(_: str, __: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
            asked = json.loads(body or b"")
            document = [self.honest(q) for q in asked] if isinstance(asked, list) else self.honest(asked)
            if luck is None:
                return 200, {}, json.dumps(document).encode()
            raw, headers = encoded(luck, bent(luck, document))
            return luck.choice((200, 200, 200, 429, 503)), headers, raw

        return told

    def edge(self, luck: random.Random | None, say: Callable[[Event], None]) -> EvmChain:
        names = (BENT, "two.example", "three.net")
        rpcs = [Rpc(f"https://{name}/{KEY}", timeout_s=HANGS_S, sleep=at_once) for name in names]
        for rpc in rpcs:
            rpc._client = Canned(self.answer(luck if rpc.name == BENT else None))  # type: ignore[assignment]
        told: dict[str, Any] = {"quorum": 2, "head_age_max_s": HEAD_AGE_MAX_S, "lag_max_s": LAG_MAX_S}
        return EvmChain(BASE, Providers(rpcs, now_s=lambda: self.now_s, say=say, **told))

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
        for name, text, _ in refused:
            if name != BENT or BENT not in text:
                raise Broken(f"{name} was refused: {text}")
        if any(isinstance(event, ProviderSetAside) and event.provider != BENT for event in heard):
            raise Broken(f"an honest provider was set aside: {heard}")
        return bool(refused)


def providers(stand: Stand, rounds: int, seed: int) -> int:
    """Bend one of three providers; return in how many rounds it was refused."""
    town, right = _Town(stand, Recorded(stand, {})), list[Any]()

    async def one(luck: random.Random) -> bool:
        if not right:
            right.extend([await action(town.edge(None, lambda _: None)) for action in town.actions])
        return await town.round(luck, right)

    return _rounds("provider", rounds, seed, one)


# -- the API and sellers ------------------------------------------------------------------------------------------

STATUSES: Final = (*[200] * 25, 201, 302, 400, 401, 402, 403, 404, 410, 429, 500, 503)
DAY: Final = "2026-07-01"


def _documents() -> dict[str, Any]:
    used = {"date": DAY, "model": "a/b", "usage": 1.25, "requests": 3, "prompt_tokens": 5, "completion_tokens": 8}
    key = {"hash": "ab" * 32, "name": "one", "label": "sk-…", "disabled": False, "usage": 2.5, "usage_daily": 0.5}
    return {
        "/credits": {"data": {"total_credits": 100.5, "total_usage": 25.75}},
        "/key": {"data": {"label": "sk-…", "is_management_key": True, "is_provisioning_key": True, "limit": None}},
        "/activity": {"data": [used, used | {"model": "c"}]},
        "/keys": {"data": [key, key | {"hash": "cd" * 32}]},
        "/credits/coinbase": {"data": builders.operator().charge(builders.ask())},
    }


def api(rounds: int, seed: int) -> int:
    """Bend what the credits API says; return how often it was refused."""
    documents, request = _documents(), builders.request()
    sent: list[bytes] = []

    async def one(luck: random.Random) -> bool:
        path = luck.choice(sorted(documents))

        def answer(_: str, __: str, ___: bytes | None) -> tuple[int, dict[str, str], bytes]:
            raw, headers = encoded(luck, bent(luck, documents[path]))
            if luck.random() < 0.2:
                raw = json.dumps({"error": bent(luck, {"code": 502, "message": f"no {KEY} \x1b[2J"})}).encode()
                headers = {"retry-after": luck.choice(("5", "9" * 4000, "soon", KEY))}
            sent.append(raw)
            return luck.choice(STATUSES), headers, raw

        exchange = Exchange("https://api.example/v1", timeout_s=HANGS_S)
        exchange._client = Canned(answer)  # type: ignore[assignment]
        client = OpenRouter(exchange, KEY, now_ms=lambda: builders.NOW_MS)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "/credits": client.credits,
            "/key": client.key,
            "/activity": client.activity,
            "/keys": client.keys,
            "/credits/coinbase": lambda: client.charge(request),
        }
        try:
            told = await calls[path]()
        except TopupError as error:
            if "/" not in str(error):
                raise Broken(f"the refusal names nobody: {error}") from error
            said([str(error), error.remedy])
            return True
        if isinstance(told, bytes) and told not in (sent[-1], _unpacked(sent[-1])):
            raise Broken("a charge was altered on its way")
        return False

    return _rounds("api", rounds, seed, one)


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
        proven = verify(demand, builders.request(), pins, Clocks(builders.NOW_S, builders.NOW_S), seen=())
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

    return _rounds("seller", rounds, seed, one)


def _rounds(name: str, rounds: int, seed: int, one: Callable[[random.Random], Awaitable[bool]]) -> int:
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

    return asyncio.run(every())


def main(arguments: Sequence[str] | None = None) -> int:
    """Bend answers of the sides that are named, all of them where none is."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sides", nargs="*", help=f"{', '.join(SIDES)}; or payments, after which kinds may be named")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="begin with this round, of payments")
    told = parser.parse_args(arguments)
    if told.sides[:1] == ["payments"]:
        return _payments(parser, told)
    for side in told.sides or SIDES:
        if side not in SIDES:
            parser.error(f"{side} is none of {', '.join(SIDES)}")
        sys.stdout.write(f"{side}: seed {told.seed}, {told.rounds} rounds ... ")
        sys.stdout.flush()
        refused = run(side, told.rounds, told.seed)
        sys.stdout.write(f"{refused} refused, {told.rounds - refused} read, no rule broken\n")
    return 0


def _payments(parser: argparse.ArgumentParser, told: argparse.Namespace) -> int:
    """Play whole payments; say each round that breaks a rule and go on, so that one run finds all it can."""
    from tests.proofs import fuzz_payments

    kinds, numbers = told.sides[1:] or fuzz_payments.KINDS, range(told.first, told.first + told.rounds)
    for kind in kinds:
        if kind not in fuzz_payments.KINDS:
            parser.error(f"{kind} is none of {', '.join(fuzz_payments.KINDS)}")
    broken = 0
    for kind in kinds:
        sys.stdout.write(f"payments {kind}: seed {told.seed}, {told.rounds} rounds ... ")
        sys.stdout.flush()
        found = fuzz_payments.play(kind, numbers, told.seed)
        sys.stdout.write(
            f"{found.bent} with a bent answer, {found.answers} of them; {len(found.broken)} rounds broken\n"
        )
        for one in found.broken:
            sys.stdout.write(f"  {one}\n")
        broken += len(found.broken)
    return int(broken > 0)


def run(side: str, rounds: int, seed: int) -> int:
    """Bend the answers of one side; return how many were refused."""
    if side == "api":
        return api(rounds, seed)
    if side == "seller":
        return seller(rounds, seed)
    for stand in stand_on("embedded"):
        return providers(stand, rounds, seed)
    raise AssertionError("there is always a stand")


if __name__ == "__main__":
    sys.exit(main())
