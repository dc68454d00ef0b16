"""Does a command that asks providers itself end in a sentence, whatever these answer?

`doctor`, `check`, `status --live`, `reconcile`, `wallet check` and `wallet limit` read on behalf of a person, some of
it beside the rules by which the daemon joins what several say. The answers are honest ones, bent as
tests/world/bending.py bends them, from one of them on; where that begins and how they are bent is hypothesis' to
choose.
"""

import asyncio
import itertools
import json
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.world.bending import KEY, bent, encoded
from tests.world.owner import Owner, account
from tests.world.proxy import Fault, Proxy, rewrite
from tests.world.served import Served, served
from topup.app.settings import load
from topup.chain.rpc import Rpc
from topup.commands import reconcile, wallet_check, wallet_limit
from topup.commands.check import ask_and_decide, ask_live
from topup.commands.doctor import Check, examine
from topup.commands.doctor.finding import failed, safely
from topup.domain.errors import ChainUnknown, TopupError
from topup.domain.money import Usd
from topup.payment.config import PurchaseOrder
from topup.wire.clean import SENTENCE_MAX

pytestmark = [pytest.mark.machine_time, pytest.mark.usefixtures("impatient")]
LAST: Final = 16
BENDING: Final = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)
SEEDS: Final = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A wallet that has paid once, behind an account that runs low."""
    with served(tmp_path_factory.mktemp("paid")) as one:
        one.buy()
        one.world.do(lambda: one.world.gateway.account.set_usage(one.world.gateway.account.total_credits))
        yield one


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Who has granted an access key 15 dollars a day."""
    with account() as world:
        one = Owner(world, tmp_path_factory.mktemp("owner"))
        granted = one.sets("15", "--yes")
        assert granted.returncode == 0, granted.stderr
        yield one


@pytest.fixture(scope="module")
def call(owner: Owner) -> str:
    return str(json.loads(owner.sets("15", "--yes", "--json").stdout)["tx_hash"])


def crooked(seed: int, last: int = LAST) -> Fault:
    """Bend every answer from one of the first few on, or that one alone."""
    luck = random.Random(seed)
    first, alone, count = luck.randrange(last), luck.random() < 0.5, itertools.count()

    def change(honest: bytes) -> bytes:
        place = next(count)
        if place < first or (alone and place > first):
            return honest
        return encoded(luck, bent(luck, json.loads(honest)))[0]

    return rewrite(change)


@contextmanager
def behind(whose: Served | Owner, seed: int) -> Iterator[dict[str, str]]:
    """Their settings with a bent provider, whose key stands in its path, and with an empty ledger."""
    if isinstance(whose, Owner):
        environment = {name: value for name, value in whose.settings().items() if value is not None}
        name = "RAILS__MPP__RPC_URLS"
    else:
        environment, name = whose.environment(), "CHAIN__RPC_URLS"
    with Proxy(whose.world.rpc.url) as wire, tempfile.TemporaryDirectory() as state:
        wire.on("*", crooked(seed))
        bad = {f"TOPUP_{name}": f"{wire.url}/v3/{KEY}", "TOPUP_STATE_DIR": str(Path(state, "s"))}
        yield environment | bad | {"TOPUP_CHAIN__TIMEOUT_S": "5"}


def sound(said: str) -> None:
    """A sentence as it may be told: of bounded length, on one line, without the key; a nonsense has its host."""
    assert len(said) <= 2 * SENTENCE_MAX, said
    assert said.isprintable(), said
    assert KEY[:20] not in said, said
    assert "nonsense" not in said or "127.0.0.1" in said, said


def outcome(act: Callable[[], Awaitable[Any]]) -> Any:
    """What came of it, or the sentence with which it ended. Nothing else ends it."""

    async def acted() -> Any:
        return await act()

    try:
        return asyncio.run(acted())
    except TopupError as error:
        sound(str(error))
        return str(error)


@BENDING
@pytest.mark.parametrize("sellers", [False, True])
@given(seed=SEEDS)
@example(seed=435897288)  # it gives our key for the balance at the final block
def test_doctor_tells_of_bent_answers(seed: int, place: Served, owner: Owner, *, sellers: bool) -> None:
    """Each look is a check in a sentence; none of them broke. The chain of a seller is looked at by other code."""
    with behind(owner if sellers else place, seed) as environment:
        found = asyncio.run(examine(environment))
    for one in found:
        sound(one.says)
        assert "the look itself broke" not in one.says, one.line()
        assert sellers or one.ok or one.remedy or one.says.startswith("skipped:"), one.line()


async def test_what_a_look_quotes_of_a_provider_is_masked() -> None:
    """A look may make a finding of an error itself; the key in the provider's own words is in none."""
    rpc = Rpc(f"https://provider.example/{KEY}", timeout_s=1)

    async def looked() -> list[Check]:
        return [failed("oracle", ChainUnknown(f"the oracle is '{KEY}\x1b[2J', not bytes"))]

    (told,) = await safely("oracle", looked(), rpc)
    assert told.says.startswith("the oracle is '")
    sound(told.says)


@BENDING
@pytest.mark.parametrize("tempo", [False, True])
@given(seed=SEEDS)
def test_what_a_wallet_holds_is_told_or_unknown(seed: int, place: Served, owner: Owner, *, tempo: bool) -> None:
    """Of each chain, each part in a sentence; a number is one that can be, or there is none."""
    with behind(owner if tempo else place, seed) as environment:
        told = asyncio.run(wallet_check.examined(load(environment)))
    for check in told.document["checks"]:
        sound(check["says"])
        sound(check["remedy"] or "none")
        assert check["ok"] or check["remedy"], check
    for chain in told.document["chains"]:
        amounts = [Decimal(amount) for amount in chain["holds"].values() if amount is not None]
        assert all(amount.is_finite() and 0 <= amount < 10**12 for amount in amounts), chain
        assert json.loads(json.dumps(chain)) == chain


@BENDING
@given(seed=SEEDS)
def test_check_decides_or_says_why_not(seed: int, place: Served) -> None:
    """A top-up is due; whether it could be paid is told, or unknown and why."""
    with behind(place, seed) as environment:
        own = load(environment)
        told = outcome(lambda: ask_and_decide(own, PurchaseOrder(forced=True)))
        live = outcome(lambda: ask_live(own))
    for sentence in (told.lines[0], *live.values()):
        sound(sentence)


@BENDING
@given(seed=SEEDS)
def test_reconcile_reports_or_says_what_it_could_not_learn(seed: int, place: Served) -> None:
    """What is not shown is undecided, nobody's nonsense ends it, and bent is nothing of what is adopted."""
    with behind(place, seed) as environment:
        own = load(environment)
        with closing(reconcile.ledger(own, adopt=True)) as store:
            told = outcome(lambda: reconcile.examine(own, store, "0"))
            if not isinstance(told, str) and told.adoptable:
                reconcile.adopt(told, store, "test")
            assert sum(1 for t in store.known(own.chain.id, bytes.fromhex(place.world.wallet[2:])).topups if t.out) <= 1
    for sentence in [told] if isinstance(told, str) else (*told.undecided, *told.unchecked, *told.notes):
        sound(sentence)


@BENDING
@given(seed=SEEDS)
def test_the_limit_of_a_key_is_read_or_a_sentence_says_why_not(seed: int, owner: Owner) -> None:
    """What the key may spend, and which call would change it; nothing is signed."""
    with behind(owner, seed) as environment:
        own = load(environment)
        told = outcome(lambda: wallet_limit.look(own))
        outcome(lambda: wallet_limit.propose(own, Usd.of(20), 1, None))
    if isinstance(told, wallet_limit.State):
        for line in told.lines():
            sound(line)


@BENDING
@given(seed=SEEDS)
def test_what_became_of_the_call_that_set_it_is_told_or_unknown(seed: int, owner: Owner, call: str) -> None:
    """Whether it ran, and when the newest block was; what cannot be read is neither success nor failure."""

    async def asked() -> tuple[bool | None, int]:
        with Proxy(owner.world.rpc.url) as wire:
            wire.on("*", crooked(seed, last=2))
            rpc = Rpc(wire.url, timeout_s=5)
            try:
                with rpc.heard():
                    return await wallet_limit._outcome(rpc, call)
            finally:
                await rpc.close()

    told = outcome(asked)
    if not isinstance(told, str):
        ran, time_s = told
        assert ran in (True, False, None) and type(time_s) is int
