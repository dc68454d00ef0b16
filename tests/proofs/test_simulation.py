"""Does anything that can happen, in any order, ever pay twice or lose a payment? Seeds of a whole simulated world."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.proofs import simulation
from tests.proofs.simulation import Broken, Simulation, run
from tests.world.simulated import Block, Provider, SimulatedChain, SimulatedSigner
from topup.chain.charge_status import Account
from topup.domain import policy, tempo
from topup.domain.credits import Reading
from topup.domain.lifecycle import Attempt, Fact
from topup.domain.money import Usd, Wei
from topup.domain.nonpayment import NonPaymentProof
from topup.ledger.store import SqliteStore
from topup.payment import preparation, tracking
from topup.ports.chain import Seen
from topup.sellers import x402

# So many lives each time, and all others in the long run.
FEW, LIVES, EACH, STEPS = 200, 2000, 50, 400
SEEDS = [pytest.param(first, marks=[pytest.mark.long] if first >= FEW else []) for first in range(0, LIVES, EACH)]


@pytest.mark.parametrize("first", SEEDS)
def test_no_seed_pays_twice_or_loses_a_payment(first: int) -> None:
    """Whatever the world does between and inside the steps, the invariants hold after each of them."""
    print(f"seeds {first} to {first + EACH - 1}, {STEPS} steps each")
    for seed in range(first, first + EACH):
        run(seed, STEPS)


@pytest.mark.parametrize("seed", [4, 5, 6, 7])
def test_one_seed_is_one_world(seed: int) -> None:
    """The same seed lives the same life on every way to pay: a failure can be lived again."""
    first, again = run(seed, 600), run(seed, 600)
    assert first.sink.names == again.sink.names
    assert [b.head.hash for b in first.net.blocks] == [b.head.hash for b in again.net.blocks]


# The ledger's commits in the life of a payment, each with a seed from which on a life soon has it.
COMMITS = {
    "ask": 0,
    "answered": 0,
    "append": 2031,
    "begin": 0,
    "close_books": 0,
    "delivered": 0,
    "final": 0,
    "finish": 0,
    "included": 0,
    "intend": 0,
    "keep_taken": 434,
    "move": 0,
    "over": 1122,
    "proven": 0,
    "record_reading": 0,
    "replace": 341,
    "reserve": 0,
    "settle": 0,
    "signed": 0,
    "thin_readings": 0,
    "undone": 2489,
    "vanished": 481,
    "withdraw": 5,
}
# The others: what no seed comes to, and why a death there is nothing new. Each is one transaction too.
BESIDE = {
    "adopt_attempt": "a person's command",
    "adopt_foreign": "a person's command",
    "adopt_nonce": "a person's command",
    "adopt_payment": "a person's command",
    "adopt_carried": "a person's command",
    "answer_request": "no money: what an agent asked for",
    "close_wallet": "no money: a mark in the books",
    "endpoint_gone": "no money: a mark, set again by the next answer",
    "forget_keys_gone": "no money: who used the credits",
    "forget_keys_used": "no money: who used the credits",
    "forget_taken": "no money: a note that a nonce is explained, made again by the next look",
    "keep_key_used": "no money: who used the credits",
    "keep_piece": "its chain is not in these lives; tests/chain/test_long_logs.py has deaths all over a search",
    "keep_usage": "no money: who used the credits",
    "let_go": "nothing was sent: the kill matrix kills at each commit of a wish",
    "rebase": "no money: the baseline before a purchase, which is read again",
    "take_request": "no money: what an agent asked for",
}


def test_every_commit_of_the_ledger_is_died_around() -> None:
    """A new one cannot be forgotten: it is among those at which the next test dies, or it is said why not."""
    commits = {
        name
        for name, method in inspect.getmembers(SqliteStore, inspect.isfunction)
        if not name.startswith("_") and "self._write(" in inspect.getsource(method)
    }
    assert commits == {*COMMITS, *BESIDE}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("commit", COMMITS)
def test_a_death_at_this_commit_breaks_nothing(commit: str, when: str) -> None:
    """Dead just before or just after it, in two lives that come to it: all that has to hold holds to the end."""
    begin, died = COMMITS[commit], 0
    for seed in range(begin, begin + 400):
        died += run(seed, STEPS, (commit, when)).dies is None
        if died == (1 if commit in ("undone", "append") else 2):
            return
    pytest.fail(f"no life came to {commit}")


def first_broken(seeds: Iterable[int], steps: int, what: str) -> int | None:
    """Return the first of these seeds in which this very thing broke."""
    for seed in seeds:
        try:
            run(seed, steps)
        except Broken as error:
            if re.search(what, str(error)):
                return seed
    return None


TWICE = r"^\w+ paid \d+ charges$"


# By the way to pay; each begins where the first that breaks is near.
MPP, ETH, X402, USDC = range(0, 400, 4), range(1, 600, 4), range(2, 600, 4), range(3, 600, 4)


def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take silence for proof: what is not seen within 5 s is dead."""
    monkeypatch.setattr(tracking, "non_payment_proof", lambda *_, **__: NonPaymentProof.DEADLINE)
    monkeypatch.setattr(tracking.Tracking, "_settled_for_ever", lambda *_: True)
    expired = tracking.Tracking._unseen

    async def impatient(self: Any, topup: Any, observation: Any) -> Any:
        if self._clock.now() - (topup.out[-1].intended_ms or 0) > 5_000:
            return self._move(topup, Fact.EXPIRED, "patience is over")
        return await expired(self, topup, observation)

    monkeypatch.setattr(tracking.Tracking, "_unseen", impatient)


@pytest.mark.parametrize("seeds", [range(4741, 5140, 4), X402], ids=["coinbase", "x402"])
def test_a_charge_declared_dead_without_proof_is_caught(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: with silence taken for proof, some seed pays two charges for one decision."""
    impatience(monkeypatch)
    assert first_broken(seeds, 2000, TWICE) is not None


def test_a_lane_holds_where_the_proof_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its lane a purchase is paid once even with silence taken for proof; on lanes of their own two are paid.

    In the very world in which two lanes pay twice, and in those around it, one lane does not.
    """
    impatience(monkeypatch)
    lane_of, counter = tempo.lane_of, count()
    with monkeypatch.context() as fresh:
        fresh.setattr(tempo, "lane_of", lambda purchase: lane_of(purchase + b"%d" % next(counter)))
        seed = first_broken(range(40, 2000, 4), 2000, TWICE)
    assert seed is not None
    assert first_broken([*range(40, 72, 4), seed], 2000, TWICE) is None


def test_an_authorization_that_is_looked_for_elsewhere_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: a rail that looks for what it has not signed finds it dead and pays anew."""
    honest = x402.X402._traced

    def blind(self: Any, topup: Any, attempt: Any) -> Any:
        use = honest(self, topup, attempt)
        address, (topic, sender, _) = use.log
        return replace(use, mark=(address, bytes(32)), log=(address, (topic, sender, bytes(32))))

    monkeypatch.setattr(x402.X402, "_traced", blind)
    assert first_broken(X402, 2000, TWICE) is not None


BUDGETS = {1: {policy.Why.CAP_24H, policy.Why.COUNT_24H}, 30: {policy.Why.CAP_30D}}


@pytest.mark.parametrize("days", BUDGETS)
@pytest.mark.parametrize("seeds", [MPP, ETH, X402, USDC], ids=["mpp", "coinbase", "x402", "coinbase in USDC"])
def test_a_purchase_beyond_a_cap_is_caught(seeds: range, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: a policy without one of its budgets spends more in that time than its cap."""
    honest = policy.over_budget

    def blind(*given: Any) -> Any:
        over = honest(*given)
        return None if over is not None and over.why in BUDGETS[days] else over

    monkeypatch.setattr(policy, "over_budget", blind)
    monkeypatch.setattr(preparation, "over_budget", blind)
    monkeypatch.setattr(simulation, "SETTINGS", simulation.SETTINGS | simulation.TIGHT[days])
    assert first_broken(seeds, 4000, f"dollars within {days} days") is not None


class Colluding(Provider):
    """Shows every payment as reverted for good in its true block, no charge as paid, and every dry run as passed."""

    def _seen(self, attempt: Attempt, number: int) -> Seen | None:
        told = super()._seen(attempt, number)
        if told is None or not told.inclusion.success:
            return told
        lie = replace(told.inclusion, success=False, reason="made up", transient=False, spent=Wei(0))
        return replace(told, inclusion=lie, reason="made up")

    def account(self, *asked: Any) -> Account:
        return replace(super().account(*asked), flag=False, payers=frozenset())

    def head(self) -> Block:
        self.requests += 1
        return self.net.tip


@pytest.mark.parametrize("count", [1, 2])
async def test_providers_and_api_that_lie_together_take_no_more_than_the_caps(count: int, tmp_path: Path) -> None:
    """Every payment looks reverted and dead, the account looks low for ever: one charge with one, the caps with two."""
    world = Simulation(1, tmp_path)
    world.each = [Colluding(world.net, world.rng, f"owner-{n}", lie="simulates_all") for n in range(count)]
    world.chain = SimulatedChain(world.net, world.each, quorum=count, clock=world.clock, rng=world.rng)
    world.signer = SimulatedSigner(world.chain, world.clock)
    world.store.close()
    world.start()
    world.calm, world.api.trouble = True, 0.0
    world.hold = lambda halted: None  # type: ignore[method-assign]

    async def low() -> Reading:
        return Reading(Usd.of(20), Usd.of(20), world.clock.now_ms())

    world.api.credits = low  # type: ignore[method-assign]

    for _ in range(300):
        await world.step()
    most = 1 if count == 1 else int(world.limits.cap_24h.amount / Decimal("10.5"))
    assert 1 <= len(world.net.tip.paid) <= most
    world.store.close()
