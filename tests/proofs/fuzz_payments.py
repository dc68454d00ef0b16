"""What comes of whole payments while an answer is bent? `python -m tests.proofs.fuzz payments [KIND…] --seed S`.

Each round is one need of one account in a world of its own (tests/world/near.py): the real cycle, rails, proofs and
ledger before the embedded chain and a gateway or seller, and between them one voice that is bent at random questions.
It is the first of three providers (`provider`, for the whole round, in some rounds at every question), or the API
(`api`), or the seller for machine payments (`mpp`) or for x402 (`x402`), which is honest again after some passes. What
was settled by a word that cannot be taken back (sold no more, totals that once were higher) is settled by a person, as
the documents say. The rules:

  nothing but our own errors leaves a pass;
  at most one payment is made for the one need, and one once everybody is honest; with one provider of three that is
    bent it is made within PASSES_BENT passes, however long that one stays so;
  it goes to whom it is owed, and is what is owed;
  nothing that is said or kept commands a terminal, is longer than a sentence may be, or holds our key;
  nobody honest is refused, set aside or named, and who gave an answer that was refused is.

A round is repeated by its seed: `payments KIND --seed S --first N --rounds 1` plays it alone.
"""

import asyncio
import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from eth_keys.datatypes import PrivateKey

from tests.tools import memory
from tests.world.bending import KEY, Bend, Broken, blamed, refusals, said
from tests.world.near import BEGINS_S, Near, Voice, hears
from tests.world.rails_faults import PACE
from tests.world.stage import Stage, moves
from topup.app import keys
from topup.app.log import LogSink
from topup.app.settings import load
from topup.domain.credits import DAY_MS, HOUR_MS, Doubt
from topup.domain.errors import StoreFenced, TopupError
from topup.domain.lifecycle import State
from topup.domain.notes import Note
from topup.domain.policy import Why
from topup.domain.ways_out import CREDITED, RESOLVE
from topup.payment.config import PassResult
from topup.sandbox import contracts
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import FEE_DESTINATION, embedded
from topup.wire.clean import SENTENCE_MAX
from topup.wire.secrets import Masker

KINDS: Final = ("provider", "api", "mpp", "x402")
BENT: Final = "one.example"
HONEST: Final = ("two.example", "three.net")
# Within so many passes a payment is made though one provider of three is bent, and ends once everybody is honest.
PASSES_BENT: Final = 150
PASSES_HONEST: Final = 200
# After so many of them whoever waits for a person's word, or for a day to be over, is let wait by the hour.
PASSES_QUICK: Final = 40
# -- whom it befalls --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A world with one need, and what a payment in it moves: to whom in lower case, and from how much to how much."""

    kind: str
    world: Near
    settings: dict[str, str]
    token: str
    senders: tuple[str, ...]
    parts: tuple[tuple[str, int, int], ...]
    first_block: int = 0
    fees_to: str = ""

    def moved(self) -> list[tuple[str, int]]:
        """Return what the wallet, or the contract that passes it on, has sent in the token on the whole chain."""
        moved = self.world.do(lambda: moves(self.world, self.token, *self.senders, first=self.first_block))
        return [(to, units) for _, to, units in moved if to != self.fees_to]

    def payments(self) -> int:
        """Count the payments, each of which is right."""
        moved, size = self.moved(), len(self.parts)
        for at, (to, units) in enumerate(moved):
            whom, least, most = self.parts[at % size]
            if to != whom or not least <= units <= most:
                raise Broken(f"{units} went to {to}; owed are {least} to {most} to {whom}")
        if len(moved) % size:
            raise Broken(f"half a payment: {moved}")
        return len(moved) // size


PATIENT: Final = PACE | {"TOPUP_POLICY__FAILURES_MAX": "100", "TOPUP_POSTING__PAY_TIMEOUT_S": "10"}
NEED: Final[dict[str, Any]] = {"usage_usd": Decimal("10.5"), "burn_usd_per_hour": Decimal(0)}
TEN: Final = 10_000_000


def _urls(names: tuple[str, ...]) -> str:
    # A provider's path is a key as the API's is, and leaks as one.
    return ",".join(f"https://{name}/{KEY}" for name in names)


def by_charge(kind: str, key: PrivateKey) -> Place:
    """A Coinbase charge paid in ETH; three providers, or two honest ones."""
    world = Near(embedded, conduct=Conduct(posting_delay_ms=10_000), **NEED)
    world.key, world.wallet = key, key.public_key.to_checksum_address()
    with world:
        names = (BENT, *HONEST) if kind == "provider" else HONEST
        total = TEN * 105 // 100
        fee, to = total // 100, world.operator.terms.recipient
        owed = ((FEE_DESTINATION.lower(), fee, fee), (to.lower(), total - fee, total - fee))
        own = {"TOPUP_CHAIN__RPC_URLS": _urls(names)}
        return Place(kind, world, own, contracts.USDC, (contracts.UNIVERSAL_ROUTER,), owed)


def by_authorization(kind: str, key: PrivateKey) -> Place:
    """A transfer of dollars on Base that a seller carries there."""
    from topup.sandbox.x402 import selling
    from topup.sandbox.x402_seller import RECIPIENT, X402Conduct

    world = Near(embedded, make_gateway=selling("venice", conduct=X402Conduct(posting_delay_ms=10_000)), **NEED)
    world.key, world.wallet = key, key.public_key.to_checksum_address()
    with world:
        sold: Any = world.gateway
        own = {**sold.environment(), "TOPUP_CHAIN__RPC_URLS": _urls(HONEST)}
        return Place(kind, world, own, contracts.USDC, (world.wallet,), ((RECIPIENT.lower(), TEN, TEN),))


class Tempos:
    """A Tempo chain that many rounds share, one after the other; it is an anvil."""

    def __init__(self) -> None:
        self._chain: Any = None
        self._world: Near | None = None

    def _now_s(self) -> int:
        return BEGINS_S if self._world is None else self._world.clock.now_s()

    def stop(self) -> None:
        if self._chain is not None:
            self._chain.stop()

    def place(self, kind: str, key: PrivateKey) -> Place:
        """A transfer on Tempo that a seller carries there."""
        from tests.tools import require
        from tests.world.tempo import buying
        from topup.sandbox.purchases import RECIPIENT, MppConduct, Seller
        from topup.sandbox.tempo import FEE_AMM, USDC_E, Tempo

        if self._chain is None:
            self._chain = Tempo(require("anvil"), block_s=None, now=self._now_s)
        newest = self._chain.rpc("eth_getBlockByNumber", ["latest", False])

        def seller(world: Any, account: Any) -> Seller:
            return Seller(account, world.chain, conduct=MppConduct(posting_delay_ms=10_000))

        begins_s = int(newest["timestamp"], 16) + 10
        world = self._world = Near(lambda _: self._chain, make_gateway=seller, begins_s=begins_s, **NEED)
        world.key, world.wallet = key, key.public_key.to_checksum_address()
        with world:
            self._chain.fund(world.wallet, 45 * 10**6)
            world.beat()
            own = {"TOPUP_RAILS__MPP__RECIPIENTS": RECIPIENT, "TOPUP_CHAIN__RPC_URLS": _urls(HONEST)}
            own |= buying(_urls(HONEST))
            # Of a demand that is a little dearer the fee's ceiling is the measure.
            parts = ((RECIPIENT.lower(), TEN, TEN * 11 // 10),)
            return Place(
                kind, world, own, USDC_E, (world.wallet,), parts, int(newest["number"], 16) + 1, FEE_AMM.lower()
            )


# -- a round ----------------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """One need, from its beginning to its end."""

    place: Place
    directory: Path
    luck: random.Random
    errors: list[str] = field(default_factory=list)
    rests: list[PassResult] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Start the program, and put the voices below its clients."""
        world, kind = self.place.world, self.place.kind
        world.gateway.management_key = KEY
        own = PATIENT | {"TOPUP_API__KEY": KEY} | self.place.settings | {"TOPUP_API__KEY": KEY}
        own.setdefault("TOPUP_API__URL", world.gateway.url)
        self.stage = Stage(world, self.directory, world.clock, own)
        always = kind == "provider" and self.luck.random() < 0.3
        self.bend = Bend(self.luck, 100 if always else self.luck.choice((10, 30, 50, 80)))
        rail: Any = self.stage.works.rail()
        works, seller = self.stage.works, getattr(rail, "_seller", None)
        sellers = [seller.exchange] if seller is not None else []
        for rpc in works.rpcs:
            hears(rpc, Voice(world.provider_says, self.bend if rpc.host == BENT else None))
            rpc.can._now_s = world.running.time
        api = Voice(world.seller_says, None if kind == "provider" else self.bend)
        for exchange in (works.api._exchange, *sellers):
            hears(exchange, api)
        self.refused = refusals(rail._chain._providers)
        environment = world.environment() | own | {"TOPUP_CONFIG": "/dev/null", "TOPUP_STATE_DIR": str(self.directory)}
        self.log = io.StringIO()
        hide = keys.masker(load(environment))
        self.sink = LogSink(level="debug", form="json", stream=self.log, now_ms=world.clock.now_ms, hide=hide)

    @property
    def done(self) -> bool:
        known = self.stage.store.latest("default", 1)
        return bool(known) and known[0].state is State.DONE

    async def step(self) -> PassResult | None:
        """Make one pass as the daemon does, and wait as it does after it."""
        rest, wait_s = None, 30
        try:
            rest = await self.stage.works.cycle.run()
            self.rests.append(rest)
            wait_s = rest.next_s
        except StoreFenced as error:
            raise Broken(f"the ledger was taken: {error}") from error
        except TopupError as error:
            self.errors += [str(error), error.remedy]
        except Exception as error:
            raise Broken(f"{error!r} ended a pass") from error
        if self.place.payments() > 1:
            raise Broken("a second payment")
        await self.place.world.clock.sleep(wait_s)
        return rest

    async def play(self) -> None:
        self.begin()
        living = asyncio.create_task(self.place.world.live())
        try:
            await self._bent()
            self.bend.on = self.place.kind == "provider"
            if not self.done:
                await self._honest()
            # What was bought is enough: no second one follows, however long one waits.
            for _ in range(3):
                await self.place.world.clock.sleep(600)
                await self.step()
            self._judge()
        finally:
            living.cancel()
            await self.stage.close()

    async def _bent(self) -> None:
        passes = PASSES_BENT if self.place.kind == "provider" else self.luck.randint(3, 25)
        for _ in range(passes):
            await self.step()
            if self.done:
                return
        if self.place.kind == "provider":
            raise Broken(f"two of three are honest, and nothing was bought within {PASSES_BENT} passes: {self._tail()}")

    async def _honest(self) -> None:
        for number in range(PASSES_HONEST):
            rest = await self.step()
            if self.done:
                return
            if number > PASSES_QUICK:
                await self.place.world.clock.sleep(HOUR_MS // 1000)
            if rest is not None:
                self._word(rest)
        raise Broken(f"everybody is honest, and nothing was bought in {PASSES_HONEST} passes: {self._tail()}")

    def _word(self, rest: PassResult) -> None:
        """Say what the documents let a person say, where only that goes on."""
        store, clock = self.stage.store, self.place.world.clock
        if rest.why == Why.ENDPOINT_GONE:
            self.words.append("resume")
            store.set_gone("default", self.stage.works.settings.rails_in_use[0], gone=False, at_ms=clock.now_ms())
        last = store.last_reading("default")
        if last is not None and clock.now_ms() - last.at_ms > DAY_MS + HOUR_MS:
            doubts = {doubted.doubt for doubted in store.doubted("default", last.at_ms)}
            if doubts & {Doubt.CREDITS_FELL, Doubt.USAGE_FELL}:
                self.words.append(Note.ACCEPT_READING)
                store.say("default", Note.ACCEPT_READING, "1", clock.now_ms(), "a person")
        known = store.latest("default", 1)
        if known and known[0].state is State.UNCREDITED and clock.now_ms() - known[0].moved_ms > 3 * DAY_MS:
            self.words.append(CREDITED)
            store.say("default", RESOLVE + known[0].id, CREDITED, clock.now_ms(), "a person")

    def _tail(self) -> str:
        store = self.stage.store
        found = [f"{t.state} {t.reason} {[(a.plan.kind, a.answer) for a in t.out]}" for t in store.latest("default", 3)]
        rests = [f"{r.outcome} {r.why} {r.detail}" for r in self.rests[-2:]]
        told = [f"{e.name()} {e.shown()}" for e in self.stage.told if e.level not in ("debug", "info")][-3:]
        return f"{found}; {rests}; {told}; {self.errors[-2:]}; {self.words[-3:]}"

    # What is judged.

    @property
    def _told_the_key(self) -> bool:
        """Tell whether whoever is bent was given our key; a seller that is logged in to never is, and only guesses."""
        return self.place.kind != "x402"

    def _judge(self) -> None:
        if (payments := self.place.payments()) != 1:
            raise Broken(f"{payments} payments for one need: {self._tail()}")
        if not self.done:
            raise Broken(f"the need is not met: {self._tail()}")
        if self.place.kind in ("provider", "api") and self.stage.booked() != self.stage.left():
            raise Broken(f"booked are {self.stage.booked()} wei, and {self.stage.left()} have left")
        self._named()
        spoken = [text for event in self.stage.told for text in event.shown().values() if isinstance(text, str)]
        spoken += [*self.errors, *(text for rest in self.rests for text in (rest.why, rest.detail))]
        said(spoken, secret=self._told_the_key)
        self._written()

    def _named(self) -> None:
        """Nobody honest is blamed; whoever was refused is named."""
        blamed(self.refused, BENT)
        for event in (*self.stage.named("provider_set_aside"), *self.stage.named("providers_disagree")):
            told = event.shown()
            named = [name for name in HONEST if any(name in str(one) for one in told.values())]
            if event.name() == "provider_set_aside" and (told["provider"] != BENT or named):
                raise Broken(f"an honest provider was set aside: {told}")
            if self.place.kind != "provider":
                raise Broken(f"honest providers disagree: {told}")
        spoken = " ".join(str(event.shown()) for event in self.stage.told)
        if any(sure for _, _, sure in self.refused) and BENT not in spoken:
            raise Broken(f"who was refused is named nowhere: {self.refused[:3]}")
        for event in self.stage.told:
            why = event.shown()
            unknown = event.name() == "cycle_done" and why["outcome"] == "unknown" and why["why"] in NAMES_ITSELF
            if unknown and "/" not in str(why["detail"]):
                raise Broken(f"it is not said who gave no answer: {why}")

    def _written(self) -> None:
        """What left for the log and the ledger is bounded, can be printed, and holds no secret."""
        for event in self.stage.told:
            self.sink.emit(event)
        for line in self.log.getvalue().splitlines():
            said([line], most=20_000)
            said([text for text in json.loads(line).values() if isinstance(text, str)])
        ours = Masker([KEY])
        with sqlite3.connect(self.directory / "ledger.sqlite3") as ledger:
            names = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                for row in ledger.execute(f"SELECT * FROM {name}"):  # noqa: S608 - a table of our own
                    self._kept(name, row, ours)
        ledger.close()

    def _kept(self, table: str, row: tuple[Any, ...], ours: Masker) -> None:
        for value in row:
            if isinstance(value, str):
                said([value], most=5_000 if value.startswith("{") else SENTENCE_MAX)
            raw = value.encode() if isinstance(value, str) else value
            if isinstance(raw, bytes) and ours.holds(raw):
                raise Broken(f"our key stands in {table}")


NAMES_ITSELF: Final = (Doubt.NO_ANSWER, Doubt.UNAUTHORIZED, Doubt.GONE)


@contextmanager
def _repeatable(luck: random.Random) -> Iterator[None]:
    """Let whatever is drawn be drawn from one seed."""
    with ExitStack() as stack:
        stack.enter_context(patch("secrets.token_bytes", lambda size=32: luck.randbytes(size)))
        stack.enter_context(patch("secrets.token_hex", lambda size=32: luck.randbytes(size).hex()))
        yield


def round_of(kind: str, seed: int, number: int, tempos: Tempos) -> int:
    """Play one round; return how many answers in it were bent."""
    luck = random.Random(f"{seed} {kind} {number}")
    makers = {"mpp": tempos.place, "x402": by_authorization}
    with (
        _repeatable(random.Random(f"{seed} {kind} {number} drawn")),
        tempfile.TemporaryDirectory(prefix="topup-fuzz-", dir=memory()) as folder,
    ):
        key = PrivateKey(luck.randbytes(32))
        place = makers.get(kind, by_charge)(kind, key)
        one = Round(place, Path(folder), luck)
        try:
            with asyncio.Runner(loop_factory=place.world.loop) as runner:
                runner.run(one.play())
        except Exception as error:
            what = str(error) if isinstance(error, Broken) else repr(error)
            raise Broken(f"payments {kind} --seed {seed} --first {number} --rounds 1: {what}") from error
    return one.bend.bent


@dataclass
class Found:
    """What came of rounds: in how many an answer was bent, how many answers were, and which rounds broke a rule."""

    bent: int = 0
    answers: int = 0
    broken: list[str] = field(default_factory=list)


def play(kind: str, numbers: Sequence[int], seed: int) -> Found:
    tempos, found = Tempos(), Found()
    try:
        for number in numbers:
            try:
                answers = round_of(kind, seed, number, tempos)
            except Broken as error:
                found.broken.append(str(error))
            else:
                found.bent += answers > 0
                found.answers += answers
    finally:
        tempos.stop()
    return found
