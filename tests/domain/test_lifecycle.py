"""Is the life of a top-up the one that is drawn, and does the ledger hold to it whatever happens in whatever order?"""

import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.world.builders import (
    ACCOUNT,
    CLOCKS,
    NOW_MS,
    ask,
    inclusion,
    operator,
    pins_for,
    plan,
    raw_of,
    request,
    signed_bytes,
    topup,
    unseen,
)
from tests.world.ledger import BASELINE, MEMORY
from topup.accounting.journal import attempt_entry, posting_entry
from topup.accounting.standing import WAITS
from topup.domain import lifecycle
from topup.domain.coinbase_charge import parse, verify
from topup.domain.demand import Verified
from topup.domain.errors import StoreUnusable
from topup.domain.lifecycle import MONEY_OUT, TABLE, TERMINAL, Attempt, Fact, IllegalMove, State, TopUp, advance
from topup.domain.money import Wei
from topup.domain.nonpayment import may_sign
from topup.ledger.store import SqliteStore
from topup.ports.chain import Delivery, Seen, Sent

Arrow = tuple[State, Fact, State]
ARROWS = {(state, fact, to) for (state, fact), to in TABLE.items()}


def arrows(text: str) -> set[Arrow]:
    """Read lines like `PAID, CREDITED vanished SENT`."""
    read = set()
    for line in text.strip().splitlines():
        *froms, fact, to = line.replace(",", "").split()
        read |= {(State(one.lower()), Fact(fact), State(to.lower())) for one in froms}
    return read


# What bends around a corner of the drawing, and what the words beneath it say.
BENT = arrows("""
    ASKING answer_lost DECIDED
    CHARGED charge_dead DECIDED
    RESERVED, SIGNED withdrawn CHARGED
    REVERTED retry CHARGED
    SENT reverted REVERTED
    SENT, REVERTED expired DEATHWATCH
    SENT, REVERTED given_up DEATHWATCH
    SENT bump SENT
    SENT cancel SENT
    DEATHWATCH proven_dead DECIDED
    SENT paid PAID
    PAID posted CREDITED
""")
SAID = arrows("""
    CHARGED, REVERTED, DEATHWATCH, HALTED paid PAID
    DECIDED, ASKING, CHARGED drop DROPPED
    DEATHWATCH, HALTED fail FAILED
    CHARGED expired DEATHWATCH
    CHARGED given_up DEATHWATCH
""") | {(state, Fact.HALT, State.HALTED) for state in State if state not in {*TERMINAL, State.HALTED}}


def straight() -> set[Arrow]:
    """The arrows of the drawing that run along one line, in either direction."""
    drawing = lifecycle.__doc__ or ""
    found = set()
    for one, fact, to in re.findall(r"(?=\b([A-Z]+) ─+([a-z_]+)─+► ([A-Z]+))", drawing):
        found |= arrows(f"{one} {fact} {to}")
    for to, fact, froms in re.findall(r"(?=\b([A-Z]+) ◄─+([a-z_]+)─+ ([A-Z]+(?:, [A-Z]+)*))", drawing):
        found |= arrows(f"{froms} {fact} {to}")
    return found


def test_the_table_is_what_is_drawn() -> None:
    """Every arrow of the table is drawn or said, and nothing else is."""
    assert len(straight()) >= 12
    assert straight() | BENT | SAID == ARROWS


def test_every_word_of_the_table_stands_in_the_drawing() -> None:
    """All states and all facts are named there."""
    drawing = lifecycle.__doc__ or ""
    assert {state.name for state in State} <= set(re.findall(r"[A-Z]+", drawing))
    said = {Fact.DROP, Fact.FAIL, Fact.HALT}  # told by the names of the states they lead to
    assert {fact.value for fact in Fact if fact not in said} <= set(re.findall(r"[a-z_]+", drawing.replace("─", " ")))


def reachable(start: State) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for one, _, to in ARROWS:
            if one is here and to not in found:
                found.add(to)
                waiting.append(to)
    return found


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_and_ends(state: State) -> None:
    """A decision can come to every state, from which an end can be reached; DONE, DROPPED and FAILED know no arrow."""
    assert state in reachable(State.DECIDED)
    assert reachable(state) & TERMINAL
    assert not {one for one, _ in TABLE} & TERMINAL


def test_what_may_be_paid_is_never_dropped() -> None:
    """From where money may be out, only evidence, proof of death or a person leads to an end without payment."""
    assert {(one, fact) for one, fact, to in ARROWS if one in MONEY_OUT and to in TERMINAL} == {
        (State.CREDITED, Fact.SETTLED),
        (State.DEATHWATCH, Fact.FAIL),
        (State.HALTED, Fact.FAIL),
    }


def test_money_is_out_from_the_intent_to_send() -> None:
    """Every way into a state where money may be out leads through INTEND, a person's look, or an earlier attempt."""
    entries = {(one, fact) for one, fact, to in ARROWS if to in MONEY_OUT and one not in MONEY_OUT}
    assert entries - {(one, Fact.HALT) for one in State} == {
        (State.SIGNED, Fact.INTEND),
        (State.CHARGED, Fact.EXPIRED),
        (State.CHARGED, Fact.GIVEN_UP),
        (State.CHARGED, Fact.PAID),
        (State.CHARGED, Fact.VANISHED),
    }


def test_what_is_not_in_the_table_cannot_happen() -> None:
    """A fact that the state does not know is a defect of the caller and is said so."""
    for state in State:
        for fact in (fact for fact in Fact if (state, fact) not in TABLE):
            with pytest.raises(IllegalMove, match=f"{state} knows no {fact}"):
                advance(state, fact)


# -- random lives in a real ledger ------------------------------------------------------------------------------


@cache
def charge(number: int) -> tuple[bytes, Verified]:
    """The n-th honest charge and its proof; made once, for every ledger."""
    one = operator(1000 + number)
    raw = raw_of(one.charge(ask()))
    return raw, verify(parse(raw), request(), pins_for(one), CLOCKS, seen=unseen)


PLAIN = sorted(
    {Fact.ANSWER_LOST, Fact.CHARGE_DEAD, Fact.RETRY, Fact.EXPIRED, Fact.PROVEN_DEAD, Fact.POSTED, Fact.POSTING_LATE}
    | {Fact.DROP, Fact.FAIL, Fact.HALT}
)


class Life(RuleBasedStateMachine):
    """One account's top-ups in one ledger, taken through whatever the table allows, with restarts in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="topup-life-", dir=MEMORY))
        self.store = SqliteStore.open_writer(self.folder)
        self.begun: list[str] = []
        self.ended: dict[str, TopUp] = {}
        self.now = NOW_MS
        self.charges = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @property
    def one(self) -> TopUp | None:
        return self.store.open_topup(ACCOUNT)

    @property
    def kept(self) -> TopUp:
        kept = self.one
        assert kept is not None
        return kept

    def is_at(self, *states: State) -> bool:
        kept = self.one
        return kept is not None and kept.state in states

    def later(self) -> int:
        self.now += 1000
        return self.now

    # What the flow would do next; each step is one committed row.

    @rule(steps=st.integers(1, 6), nonce=st.integers(0, 5))
    def go_on(self, steps: int, nonce: int) -> None:
        ways = {
            State.DECIDED: lambda kept: self.store.ask(kept, self.later()),
            State.ASKING: self.answer,
            State.CHARGED: lambda kept: self.reserve(kept, nonce),
            State.RESERVED: self.sign,
            State.SIGNED: lambda kept: self.store.intend(kept, self.later()),
            State.CREDITED: self.finish,
        }
        for _ in range(steps):
            kept = self.one
            if kept is None:
                self.begin()
            elif kept.state in ways:
                ways[kept.state](kept)

    def begin(self) -> None:
        self.begun.append(f"t{len(self.begun) + 1}")
        self.store.begin(topup(id=self.begun[-1], decided_ms=self.later()))

    def answer(self, kept: TopUp) -> None:
        raw, proof = charge(self.charges)
        self.charges += 1
        self.store.proven(self.store.answered(kept, raw, self.later()), proof)

    def reserve(self, kept: TopUp, nonce: int) -> None:
        used = self.rows("SELECT 1 FROM slot WHERE state = 'used' AND nonce = ?", nonce.to_bytes(32, "big"))
        may_still_pay = may_sign(kept, len(kept.charges)) is not None  # an earlier charge may still be paid: Rule R
        if not used and not may_still_pay and not self.rows("SELECT 1 FROM slot WHERE state = 'in_flight'"):
            self.store.reserve(kept, plan(nonce=nonce), BASELINE, Wei(10**18), self.later())
            return
        with pytest.raises(StoreUnusable):
            self.store.reserve(kept, plan(nonce=nonce), BASELINE, Wei(10**18), self.later())
        assert self.one == kept

    def sign(self, kept: TopUp) -> None:
        self.store.signed(kept, *signed_bytes(f"{kept.id}/{len(kept.attempts)}"), self.later())

    def finish(self, kept: TopUp) -> None:
        paying = kept.paying
        if paying is None:
            return
        raw = kept.charges[paying.charge_seq - 1].raw
        assert raw is not None
        demand = parse(raw)
        kept = self.store.settle(kept, paying, attempt_entry(kept.id, paying, demand), self.later())
        self.store.finish(kept, posting_entry(kept, paying, demand, self.now), self.later())

    # What else can happen.

    @precondition(lambda self: self.one is not None)
    @rule()
    def begin_another(self) -> None:
        with pytest.raises(StoreUnusable):
            self.store.begin(topup(id="another", decided_ms=self.later()))

    @precondition(lambda self: self.is_at(State.RESERVED, State.SIGNED))
    @rule()
    def withdraw(self) -> None:
        self.store.withdraw(self.kept, "stale", self.later())

    @precondition(lambda self: self.is_at(State.SENT))
    @rule(delivery=st.sampled_from(Delivery))
    def delivered(self, delivery: Delivery) -> None:
        kept = self.kept
        self.store.delivered(kept, kept.out[-1], Sent(delivery, ""), self.later())

    @precondition(lambda self: any(a.inclusion is None for a in self.out()))
    @rule(success=st.booleans(), data=st.data())
    def included(self, success: bool, data: st.DataObject) -> None:  # noqa: FBT001
        kept = self.kept
        attempt = data.draw(st.sampled_from([a for a in kept.out if a.inclusion is None]))
        if success and kept.paying is not None:
            return  # the contract pays an id once
        seen = Seen(inclusion(success=success), "", "", trusted=True)
        fact = Fact.PAID if success else Fact.REVERTED
        taken = fact if (kept.state, fact) in TABLE else None
        if taken is None and success:
            return
        self.store.included(kept, attempt, seen, taken, self.later())

    @precondition(lambda self: any(a.inclusion is not None for a in self.out()))
    @rule(data=st.data())
    def vanished(self, data: st.DataObject) -> None:
        kept = self.kept
        attempt = data.draw(st.sampled_from([a for a in kept.out if a.inclusion is not None]))
        moves = (kept.state, Fact.VANISHED) in TABLE and (attempt == kept.paying or kept.paying is None)
        self.store.vanished(kept, attempt, Fact.VANISHED if moves else None, self.later())

    @precondition(lambda self: self.one is not None)
    @rule(fact=st.sampled_from(PLAIN), seldom=st.integers(0, 5))
    def move(self, fact: Fact, seldom: int) -> None:
        kept = self.kept
        if (kept.state, fact) in TABLE:
            if seldom and TABLE[kept.state, fact] in {*TERMINAL, State.HALTED}:
                return  # or hardly any life would come far
            self.store.move(kept, fact, self.later(), "said")
            return
        with pytest.raises(IllegalMove):
            self.store.move(kept, fact, self.later(), "said")
        assert self.one == kept

    @rule()
    def restart(self) -> None:
        before = self.one
        self.store.close()
        self.store = SqliteStore.open_writer(self.folder)
        assert self.one == before

    # What holds after every step.

    @invariant()
    def the_state_is_where_its_arrows_lead(self) -> None:
        for name in self.begun:
            first, *moves = self.store.moves(name)
            assert (first["fact"], first["state"]) == ("decide", State.DECIDED)
            state = State.DECIDED
            for move in moves:
                state = advance(state, Fact(move["fact"]))
                assert move["state"] == state
            assert self.store.topup(name).state is state

    @invariant()
    def at_most_one_is_open_and_one_nonce_in_flight(self) -> None:
        assert len([n for n in self.begun if self.store.topup(n).state not in TERMINAL]) <= 1
        assert len(self.rows("SELECT 1 FROM slot WHERE state = 'in_flight'")) <= 1

    @invariant()
    def what_was_sent_is_known_and_what_was_withdrawn_was_never_sent(self) -> None:
        for attempt in (a for name in self.begun for a in self.store.topup(name).attempts):
            assert not (attempt.withdrawn and attempt.intended_ms is not None)
            if attempt.intended_ms is not None:
                assert attempt.raw
                assert attempt.hash
            if attempt.inclusion is not None or attempt.sends:
                assert attempt.intended_ms is not None

    @invariant()
    def an_end_is_an_end(self) -> None:
        for name in self.begun:
            kept = self.store.topup(name)
            if kept.state in TERMINAL:
                assert self.ended.setdefault(name, kept) == kept

    @invariant()
    def a_nonce_belongs_to_one_payment_that_may_be_out(self) -> None:
        out = self.rows("SELECT nonce FROM attempt WHERE intended_ms IS NOT NULL AND inclusion IS NOT NULL")
        assert len({row[0] for row in out}) == len(out)

    def out(self) -> tuple[Attempt, ...]:
        kept = self.one
        return kept.out if kept is not None else ()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.store._all(sql, *values)


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow])
test_any_life_holds_to_the_ledgers_rules = Life.TestCase


def test_status_says_what_each_open_top_up_waits_for() -> None:
    """Every state that is not the end has its sentence, and no end has one."""
    assert set(WAITS) == set(State) - TERMINAL
