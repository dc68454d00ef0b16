"""Does the ledger keep what it was told: through restarts, a second writer, a full disk and a sudden end?"""

import fcntl
import os
import resource
import signal
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import ledger
from tests.world.builders import ACCOUNT, CHAIN_ID, NOW_MS, WALLET, inclusion, operator, plan, topup, verified
from tests.world.ledger import reading
from topup.accounting.journal import attempt_entry, posting_entry, reversal
from topup.domain.coinbase_charge import charge_of
from topup.domain.credits import DAY_MS, HOUR_MS, Doubt, Reading, Unknown
from topup.domain.errors import StoreBusy, StoreError, StoreFenced, StoreUnusable
from topup.domain.lifecycle import Fact, State, TopUp
from topup.domain.money import Usd, Usdc, Wei
from topup.ledger.location import FILE
from topup.ledger.schema import MIGRATIONS
from topup.ledger.store import SqliteStore
from topup.ports.chain import Delivery, Seen, Sent
from topup.ports.ledger import Control, Told, Wish


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Opens the same ledger anew, as a restart does; the one opened before is closed."""
    opened: list[SqliteStore] = []

    def again() -> SqliteStore:
        for one in opened:
            one.close()
        opened.append(SqliteStore.open_writer(tmp_path / "state"))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def store(reopen: Callable[[], SqliteStore]) -> SqliteStore:
    return reopen()


# -- the contract of every store --------------------------------------------------------------------------------


def test_time_never_runs_backwards(reopen: Callable[[], SqliteStore]) -> None:
    """A clock set back stands still in the ledger, also over a restart, until it catches up."""
    store = reopen()
    assert store.open_topup(ACCOUNT) is None
    assert store.control(ACCOUNT) == Control(paused=False)
    assert store.now_ms(NOW_MS) == store.now_ms(NOW_MS - 5000) == NOW_MS
    store.record_reading(ACCOUNT, reading(NOW_MS))
    store = reopen()
    assert store.now_ms(NOW_MS - 5000) == NOW_MS
    assert store.now_ms(NOW_MS + 1) == NOW_MS + 1


def test_readings_are_kept_apart_from_doubts(reopen: Callable[[], SqliteStore]) -> None:
    """Believed and doubted readings come back as they were, oldest first, each account's own."""
    store = reopen()
    fell = Unknown(Doubt.CREDITS_FELL, "fell", NOW_MS + 1, reading(NOW_MS + 1, "5", "1"))
    silent = Unknown(Doubt.NO_ANSWER, "reset", NOW_MS + 2)
    for one in (reading(NOW_MS, "100.000000001"), fell, silent, reading(NOW_MS + 3)):
        store.record_reading(ACCOUNT, one)
    store.record_reading("other", reading(NOW_MS + 9, "1", "0"))
    store = reopen()
    assert store.readings(ACCOUNT, NOW_MS) == [reading(NOW_MS, "100.000000001"), reading(NOW_MS + 3)]
    assert store.readings(ACCOUNT, NOW_MS + 1) == [reading(NOW_MS + 3)]
    assert store.doubted(ACCOUNT, NOW_MS) == [fell, silent]
    assert store.last_reading(ACCOUNT) == reading(NOW_MS + 3)
    assert store.last_reading("nobody") is None


@pytest.mark.parametrize(
    ("seen", "ever"),
    [
        ([], False),
        ([reading(NOW_MS, "0", "0.00")], False),
        ([reading(NOW_MS, "-0", "0")], False),
        ([Unknown(Doubt.NO_ANSWER, "", NOW_MS)], False),
        ([Unknown(Doubt.KEY_UNPROVEN, "", NOW_MS, reading(NOW_MS, "0", "0.01"))], True),
        ([reading(NOW_MS, "0.01", "0"), reading(NOW_MS, "0", "0")], True),
    ],
)
def test_anything_but_zeros_is_remembered(store: SqliteStore, seen: list[Any], ever: bool) -> None:  # noqa: FBT001
    """One reading other than 0/0, believed or not, and zeros are never again those of a new account."""
    for one in seen:
        store.record_reading(ACCOUNT, one)
    assert store.ever_non_zero(ACCOUNT) == ever


def test_a_second_open_topup_is_refused(store: SqliteStore) -> None:
    """One account, one open top-up; another account has its own, and an ended one makes room."""
    first = store.begin(topup(id="t1"))
    with pytest.raises(StoreUnusable, match="refuses"):
        store.begin(topup(id="t2"))
    store.begin(topup(id="t3", account="other"))
    assert store.open_topup(ACCOUNT) == first
    store.move(first, Fact.DROP, NOW_MS, "no_longer_needed")
    assert store.begin(topup(id="t4")) == store.open_topup(ACCOUNT)


def test_a_nonce_is_given_once(store: SqliteStore) -> None:
    """A nonce in flight, or used, is never given again; one given back is."""
    kept = ledger.signed(store, ledger.charged(store, operator(1)), nonce=7)
    kept = store.withdraw(kept, "stale", NOW_MS)
    kept = ledger.signed(store, kept, nonce=7)
    kept = store.intend(kept, NOW_MS)
    kept = store.included(kept, kept.attempts[-1], ledger.FAILED, Fact.REVERTED, NOW_MS)
    kept = store.move(kept, Fact.RETRY, NOW_MS)
    with pytest.raises(StoreUnusable, match="nonce 7 is already used"):
        store.reserve(kept, plan(nonce=7), ledger.BASELINE, Wei(1), NOW_MS)
    assert store.topup(kept.id) == kept
    assert store.next_nonce(CHAIN_ID, WALLET) == 8
    assert ledger.signed(store, kept, nonce=8).attempts[-1].plan.nonce == 8


def test_a_repeated_try_gives_its_nonce_back_when_the_one_before_it_has_paid_after_all(store: SqliteStore) -> None:
    """A block in which a payment failed is replaced by one in which it paid: the next top-up takes the second nonce."""
    one = operator(1)
    kept = ledger.reverted(store, one, nonce=7)
    kept = ledger.signed(store, store.move(kept, Fact.RETRY, NOW_MS), nonce=8)
    kept = store.intend(kept, NOW_MS)
    kept = store.included(kept, kept.attempts[0], ledger.IN_BLOCK, Fact.PAID, NOW_MS)
    ended(store, kept)
    assert ledger.signed(store, ledger.charged(store, operator(2), id="t2"), nonce=8).attempts[-1].plan.nonce == 8


def test_nonces_and_lanes_have_256_bits(reopen: Callable[[], SqliteStore]) -> None:
    """The largest nonce and lane there can be come back exactly, and order rightly."""
    store, most = reopen(), 2**256 - 1
    kept = ledger.paid(store, operator(1), nonce=most, lane=most, value=Wei(most))
    store = reopen()
    assert store.topup(kept.id).attempts[0].plan == plan(nonce=most, lane=most, value=Wei(most))
    assert store.next_nonce(CHAIN_ID, WALLET) == 0, "the other lanes belong to authorizations"
    # A person's word moves the next nonce up, never below what the ledger itself has used.
    store.adopt_nonce(CHAIN_ID, WALLET, 12, NOW_MS)
    assert store.next_nonce(CHAIN_ID, WALLET) == 12
    ended(store, kept)
    second = store.intend(ledger.signed(store, ledger.charged(store, operator(2), id="t2"), nonce=most), NOW_MS)
    store.included(second, second.attempts[0], ledger.IN_BLOCK, Fact.PAID, NOW_MS)
    assert store.next_nonce(CHAIN_ID, WALLET) == 2**256
    assert store.next_nonce(1, WALLET) == 0


def test_an_intent_belongs_to_one_charge_for_ever(store: SqliteStore) -> None:
    """A proven id is known to every other charge; storing it for a second one is refused."""
    first = ledger.charged(store, operator(1))
    intent = charge_of(verified(operator(1))).intent
    assert store.seen_intents(first.id) == []
    assert store.seen_intents("another") == [(intent.operator, intent.id)]
    second = store.begin(topup(id="t2", account="other"))
    second = store.answered(store.ask(second, NOW_MS), b"{}", NOW_MS)
    with pytest.raises(StoreUnusable):
        store.proven(second, verified(operator(1)))
    assert not store.topup("t2").charges[0].proven


def test_the_intent_to_send_needs_signed_bytes(store: SqliteStore) -> None:
    """The database refuses a send that is not backed by stored bytes, and a withdrawal of what was sent."""
    kept = ledger.signed(store, ledger.charged(store, operator(1)))
    # Bytes that were given back before that cannot be sent by mistake: they are gone.
    kept = store.withdraw(kept, "the plan grew stale", NOW_MS)
    assert (kept.state, kept.attempt, kept.attempts[0].raw, kept.attempts[0].hash) == (State.CHARGED, None, None, None)
    kept = store.reserve(kept, plan(), ledger.BASELINE, Wei(1), NOW_MS)
    with pytest.raises(StoreUnusable, match="CHECK"), store._write(NOW_MS) as db:
        db.execute("UPDATE attempt SET intended_ms = 1 WHERE id = ?", (kept.attempts[-1].id,))
    kept = store.intend(store.signed(kept, b"\x02", b"\x01" * 32, NOW_MS), NOW_MS)
    with pytest.raises(StoreUnusable, match="CHECK"), store._write(NOW_MS) as db:
        db.execute("UPDATE attempt SET withdrawn = 1")
    assert store.topup(kept.id) == kept


def test_a_stale_copy_of_a_topup_moves_nothing(store: SqliteStore) -> None:
    """A step made on an older copy of the record is refused whole: no charge row, no arrow."""
    kept = store.begin(topup())
    store.ask(kept, NOW_MS)
    with pytest.raises(StoreError):
        store.ask(kept, NOW_MS)
    now = store.topup(kept.id)
    assert (now.state, len(now.charges), len(store.moves(kept.id))) == (State.ASKING, 1, 2)


def test_a_vanished_block_leaves_the_nonce_in_flight(store: SqliteStore) -> None:
    """Bytes whose block is gone can be included again: nobody else gets their nonce, and the chain's next is theirs."""
    kept = ledger.paid(store, operator(1), nonce=7)
    kept = store.vanished(kept, kept.attempts[0], Fact.VANISHED, NOW_MS)
    assert (kept.state, kept.payment, kept.attempts[0].inclusion) == (State.SENT, None, None)
    assert store.next_nonce(CHAIN_ID, WALLET) <= 7
    rival = ledger.charged(store, operator(2), id="t2", account="another")
    for nonce in (7, 8):
        with pytest.raises(StoreUnusable):
            ledger.signed(store, rival, nonce=nonce)


def test_a_vanished_block_of_an_ended_top_up_frees_its_nonce(store: SqliteStore) -> None:
    """Nothing of it will be sent again: the next payment takes the nonce that the chain has free."""
    kept = finished(store)
    attempt, demand = kept.attempts[0], verified(operator(1)).demand
    store.undone(kept, attempt, reversal(attempt_entry(kept.id, attempt, demand), NOW_MS), None, NOW_MS)
    again = ledger.charged(store, operator(2), id="t2")
    assert ledger.signed(store, again, nonce=attempt.plan.nonce).state is State.SIGNED


def test_a_vanished_block_of_an_earlier_charge_frees_its_nonce(store: SqliteStore) -> None:
    """Its charge is dead and its block is replaced: the payment of the next charge, which outbids it, gets it."""
    kept = ledger.reverted(store, operator(1), nonce=7)
    kept = store.move(kept, Fact.GIVEN_UP, NOW_MS)
    kept = store.move(kept, Fact.PROVEN_DEAD, NOW_MS, "deadline")
    kept = store.answered(store.ask(kept, NOW_MS), b"{}", NOW_MS)
    kept = store.vanished(kept, kept.attempts[0], None, NOW_MS)
    assert ledger.signed(store, kept, nonce=7).state is State.SIGNED


def test_what_failed_gives_its_nonce_back(store: SqliteStore) -> None:
    """A payment that is proven dead and was never included holds no nonce against the next one."""
    kept = ledger.sent(store, operator(1), nonce=7)
    kept = store.move(kept, Fact.EXPIRED, NOW_MS)
    store.move(kept, Fact.FAIL, NOW_MS)
    again = ledger.charged(store, operator(2), id="t2")
    assert ledger.signed(store, again, nonce=7).state is State.SIGNED


def test_an_attempt_is_booked_once(store: SqliteStore) -> None:
    """Whoever settles it a second time, from an older copy, adds nothing to the journal."""
    kept = ledger.paid(store, operator(1))
    entry = attempt_entry(kept.id, kept.attempts[0], verified(operator(1)).demand)
    for _ in range(2):
        store.settle(kept, kept.attempts[0], entry, NOW_MS)
    assert len(store.entries(ACCOUNT)) == 1


def test_the_caps_go_on_counting_a_charge_that_was_proven_dead(store: SqliteStore) -> None:
    """Those who proved it may have lied together: what may have left counts, and the charge in its place as well."""
    kept = ledger.sent(store, operator(1))
    kept = store.move(kept, Fact.EXPIRED, NOW_MS)
    kept = store.move(kept, Fact.PROVEN_DEAD, NOW_MS, "deadline")
    assert sorted(p.written_off for p in store.past(ACCOUNT, 0, 0)) == [False, True]
    assert {p.spent for p in store.past(ACCOUNT, 0, 0)} == {Usd.of(10)}
    store.move(kept, Fact.DROP, NOW_MS, "no_longer_needed")
    assert [(p.spent, p.written_off) for p in store.past(ACCOUNT, 0, 0)] == [(Usd.of(10), True)]


def ended(store: SqliteStore, kept: TopUp) -> TopUp:
    """Post a top-up's credits five seconds after its first attempt has paid, and close its books."""
    attempt, demand, posted_ms = kept.attempts[0], verified(operator(1)).demand, NOW_MS + 5000
    kept = store.settle(kept, attempt, attempt_entry(kept.id, attempt, demand), NOW_MS)
    kept = store.move(kept, Fact.POSTED, posted_ms)
    assert kept.credited_ms == posted_ms
    return store.finish(kept, posting_entry(kept, attempt, demand, posted_ms), posted_ms + 1000)


def finished(store: SqliteStore) -> TopUp:
    return ended(store, ledger.paid(store, operator(1)))


def test_a_whole_life_is_kept(reopen: Callable[[], SqliteStore]) -> None:
    """After a restart a finished top-up is the same to the last field, its arrows and its journal as well."""
    store = reopen()
    done = finished(store)
    moves, entries = store.moves(done.id), store.entries(ACCOUNT)
    store = reopen()
    assert store.topup(done.id) == done
    assert (store.moves(done.id), store.entries(ACCOUNT)) == (moves, entries)
    assert [m["fact"] for m in moves] == [
        *("decide", "ask", "answered", "reserve", "signed", "intend", "paid", "posted", "settled"),
    ]
    assert [e.text for e in entries] == ["payment", "credits posted"]
    assert store.latest(ACCOUNT, 5) == [done]


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("topup", "state", "'sett-ed'"),
        ("topup", "amount", "'1O'"),
        ("topup", "wallet_before", "'0x1'"),
        ("attempt", "plan", "'{'"),
        ("attempt", "plan", '\'{"to": "zz"}\''),
        ("attempt", "plan", "'[]'"),
        # What is missing is unknown, and no amount of zero.
        *(
            ("attempt", "plan", f"json_remove(plan, '$.{name}')")
            for name in ("value", "gas_limit", "max_fee_per_gas", "max_priority_fee_per_gas", "l1_fee", "nonce")
        ),
        ("attempt", "inclusion", "'{\"block_number\": 1}'"),
        ("attempt", "inclusion", "'{\"spent\": null}'"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_damaged_ledger(
    reopen: Callable[[], SqliteStore], tmp_path: Path, table: str, column: str, value: str
) -> None:
    """Values have no checksum: what the disk has changed in one ends in a sentence that says what to do."""
    store = reopen()
    done = finished(store)
    store.close()
    with closing(sqlite3.connect(tmp_path / "state" / FILE)) as other:
        other.execute(f"UPDATE {table} SET {column} = {value}")  # noqa: S608
        other.commit()
    with pytest.raises(StoreUnusable, match="the ledger is damaged: a row of it is no") as error:
        reopen().topup(done.id)
    assert "docs/runbook.md" in error.value.remedy


def test_the_past_counts_what_is_pending_at_its_most(store: SqliteStore) -> None:
    """An open top-up counts with its fees from now, a failed one spent nothing, an unneeded one never was."""
    store.move(store.begin(topup(id="t1")), Fact.DROP, NOW_MS, "no_longer_needed")
    store.move(store.begin(topup(id="t2", decided_ms=NOW_MS + 1)), Fact.DROP, NOW_MS + 1, "charge_refused")
    store.begin(topup(id="t3", decided_ms=NOW_MS + 2))
    store.now_ms(NOW_MS + DAY_MS)
    told = [(p.topup_id, p.decided_ms, p.spent, p.failed) for p in store.past(ACCOUNT, 0, 600)]
    assert told == [("t2", NOW_MS + 1, Usd.of(0), True), ("t3", NOW_MS + DAY_MS, Usd.of("10.6"), False)]


def test_a_finished_topup_counts_from_its_payment(store: SqliteStore) -> None:
    """What was paid counts from when the money left, at the most it may have cost."""
    finished(store)
    (told,) = store.past(ACCOUNT, 0, 600)
    assert (told.decided_ms, told.spent, told.failed, told.revert_gas) == (NOW_MS, Usd.of("10.6"), False, Wei(0))


def test_the_past_knows_the_gas_of_reverts(store: SqliteStore) -> None:
    """Gas and L1 fee of a reverted attempt have their own budget."""
    ledger.reverted(store, operator(1))
    failed = inclusion(success=False)
    assert store.past(ACCOUNT, 0, 600)[0].revert_gas == failed.gas + failed.l1_fee


def test_what_failed_payments_cost_in_dollars_counts_as_spent(store: SqliteStore) -> None:
    """The network took its fee in the token: the caps count it, beside the most that the open top-up may come to."""
    kept = ledger.sent(store, operator(1))
    failed = inclusion(success=False, gas=Wei(0), l1_fee=Wei(0), token_fee=Usdc(40_000))
    store.included(kept, kept.attempts[-1], Seen(failed, "", "", trusted=True), Fact.REVERTED, kept.moved_ms)
    (told,) = store.past(ACCOUNT, 0, 600)
    assert (told.spent, told.revert_gas) == (Usd.of("10.64"), Wei(0))
    (mined,) = store.paid(ACCOUNT, 0, 600)
    assert (mined.spent, mined.decided_ms) == (Usd.of("0.04"), failed.block_ms)
    assert store.paid(ACCOUNT, failed.block_ms + 1, 600) == []


def test_charge_requests_are_counted_whoever_made_them(store: SqliteStore) -> None:
    """Those of top-ups and those by hand, in order, and old ones not."""
    store.ask(store.begin(topup()), NOW_MS)
    for ms in (-10, 10):
        store.ask_by_hand(ACCOUNT, NOW_MS + ms, HOUR_MS)
    assert store.charge_requests(ACCOUNT, 0) == [NOW_MS - 10, NOW_MS, NOW_MS + 10]
    assert store.charge_requests(ACCOUNT, NOW_MS) == [NOW_MS, NOW_MS + 10]
    store.ask_by_hand(ACCOUNT, NOW_MS + 2 * HOUR_MS, HOUR_MS)
    assert store.charge_requests(ACCOUNT, 0) == [NOW_MS, NOW_MS + 2 * HOUR_MS]


def test_what_people_say_is_durable(reopen: Callable[[], SqliteStore]) -> None:
    """Pause and tombstone survive a restart, each account's own; a word counts within its span, unless withdrawn."""
    store = reopen()
    store.say(ACCOUNT, "paused", "1", NOW_MS, "somebody")
    store.set_gone(ACCOUNT, "coinbase", gone=True, at_ms=NOW_MS)
    store = reopen()
    said = store.control(ACCOUNT)
    assert (said.paused, said.gone) == (True, frozenset({"coinbase"}))
    assert store.control("other") == Control(paused=False)
    assert store.said_within(ACCOUNT, "paused", NOW_MS + HOUR_MS, HOUR_MS)
    assert not store.said_within(ACCOUNT, "paused", NOW_MS + HOUR_MS + 1, HOUR_MS)
    assert not store.said_within(ACCOUNT, "other", NOW_MS, HOUR_MS)
    store.set_gone(ACCOUNT, "coinbase", gone=False, at_ms=NOW_MS)
    store.say(ACCOUNT, "paused", "0", NOW_MS, "somebody")
    assert not store.control(ACCOUNT).paused and not store.control(ACCOUNT).gone
    assert not store.said_within(ACCOUNT, "paused", NOW_MS, HOUR_MS)


def test_wishes_are_answered_in_order_and_begun_once(reopen: Callable[[], SqliteStore]) -> None:
    """The oldest unanswered wish comes first; that it was begun survives a restart."""
    store = reopen()
    until_ms = NOW_MS + HOUR_MS
    first = store.wish(ACCOUNT, Wish(Usd.of("12.5"), True, None, 1), NOW_MS, until_ms).number
    second = store.wish(ACCOUNT, Wish(None, False, None, 1), NOW_MS + 1, until_ms).number
    assert store.take_request(first, NOW_MS + 2)
    store = reopen()
    asked = store.next_request(ACCOUNT)
    assert asked is not None and (asked.number, asked.taken) == (first, True)
    assert (asked.amount, asked.forced) == (Usd.of("12.5"), True)
    store.answer_request(first, Told("done: 12.5", "asked", 0, "t1"), NOW_MS)
    told = store.requested(first)
    assert (told.outcome, told.why, told.code, told.topup_id) == ("done: 12.5", "asked", 0, "t1")
    asked = store.next_request(ACCOUNT)
    assert asked is not None and (asked.number, asked.amount, asked.taken) == (second, None, False)


words = st.integers(0, 2**256 - 1)
amounts = st.builds(lambda n, e: Usd(Decimal(n).scaleb(-e)), st.integers(0, 10**20), st.integers(0, 20))
plans = st.builds(
    plan,
    to=st.binary(min_size=20, max_size=20),
    data=st.binary(max_size=64),
    value=words.map(Wei),
    gas_limit=words,
    max_fee_per_gas=words.map(Wei),
    max_priority_fee_per_gas=words.map(Wei),
    l1_fee=words.map(Wei),
    quote=words.map(Wei),
    lane=words,
    nonce=words,
    tier=st.integers(0, 10**6),
    eth_price_e8=words,
    block_number=words,
    proof=st.text(max_size=20),
)
places = st.builds(
    lambda **fields: inclusion(success=True, **fields),
    block_number=words,
    block_hash=st.binary(min_size=32, max_size=32),
    block_ms=st.integers(0, 2**53),
    gas=words.map(Wei),
    l1_fee=words.map(Wei),
    spent=words.map(Wei),
)


@settings(max_examples=25)
@given(amounts, amounts, plans, places, st.binary(max_size=300), st.booleans(), words.map(Wei))
def test_a_restart_changes_nothing(
    amount: Usd,
    credits: Usd,  # noqa: A002
    planned: Any,
    place: Any,
    raw: bytes,
    forced: bool,  # noqa: FBT001
    wallet: Wei,
) -> None:
    """Whatever amounts, plans and places: the record before a restart equals the one after it, field by field."""
    with tempfile.TemporaryDirectory(dir=ledger.MEMORY) as folder:
        with closing(SqliteStore.open_writer(Path(folder))) as store:
            kept = store.begin(topup(amount=amount, forced=forced, balance_before=None))
            assert (kept.amount, kept.forced) == (amount, forced)
            kept = store.answered(store.ask(kept, NOW_MS), raw, NOW_MS)
            kept = store.reserve(kept, planned, Reading(credits, amount, NOW_MS), wallet, NOW_MS)
            assert (kept.attempts[0].plan, kept.baseline, kept.wallet_before) == (planned, credits, wallet)
            kept = store.intend(store.signed(kept, raw, b"\x05" * 32, NOW_MS), NOW_MS)
            kept = store.delivered(kept, kept.attempts[0], Sent(Delivery.UNCLEAR, "reset"), NOW_MS + 1)
            kept = store.included(kept, kept.attempts[0], Seen(place, "", "", trusted=True), Fact.PAID, NOW_MS + 2)
            assert kept.payment == place
        with closing(SqliteStore.open_writer(Path(folder))) as store:
            assert store.topup(kept.id) == kept == store.open_topup(ACCOUNT)


# -- SQLite: one writer -----------------------------------------------------------------------------------------


def test_who_only_looks_whether_it_is_held_keeps_no_writer_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes the lock for a moment, which whoever starts just then waits out; for a writer nobody waits."""
    SqliteStore.open_writer(tmp_path).close()
    with (tmp_path / "lock").open("rb") as looked:
        fcntl.flock(looked, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looked, fcntl.LOCK_UN))
        writer = SqliteStore.open_writer(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for a writer"))
    with closing(writer), pytest.raises(StoreBusy):
        SqliteStore.open_writer(tmp_path)


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    """While one process holds the ledger another gets StoreBusy, which is worth trying later; readers may look."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        store.record_reading(ACCOUNT, reading())
        with pytest.raises(StoreBusy) as busy:
            SqliteStore.open_writer(tmp_path)
        assert busy.value.again
        assert (SqliteStore.held(tmp_path), SqliteStore.holder(tmp_path)) == (True, os.getpid())
        with closing(SqliteStore.open_reader(tmp_path)) as reader:
            assert reader.last_reading(ACCOUNT) == reading()
    # The lock is held by a process and not by a file, whatever is written in it.
    (tmp_path / "lock").write_text(str(os.getpid()), encoding="utf-8")
    SqliteStore.open_writer(tmp_path).close()
    assert (SqliteStore.held(tmp_path), SqliteStore.holder(tmp_path)) == (False, None)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """What was opened for looking refuses every write of a payment, but passes on what a person says."""
    SqliteStore.open_writer(tmp_path).close()
    with closing(SqliteStore.open_reader(tmp_path)) as reader:
        with pytest.raises(StoreFenced):
            reader.begin(topup())
        with pytest.raises(StoreFenced):
            reader.record_reading(ACCOUNT, reading())
        reader.say(ACCOUNT, "paused", "1", NOW_MS, "somebody")
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        assert store.open_topup(ACCOUNT) is None
        assert store.control(ACCOUNT).paused


def test_a_writer_that_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    """With the lock file lost, a second writer gets in; from then on the first cannot store the intent to send."""
    with closing(SqliteStore.open_writer(tmp_path)) as old:
        kept = ledger.signed(old, ledger.charged(old, operator(1)))
        (tmp_path / "lock").unlink()
        with closing(SqliteStore.open_writer(tmp_path)) as new:
            for write in (
                lambda: old.intend(kept, NOW_MS),
                lambda: old.record_reading(ACCOUNT, reading()),
                lambda: old.move(kept, Fact.HALT, NOW_MS),
                lambda: old.withdraw(kept, "", NOW_MS),
            ):
                with pytest.raises(StoreFenced):
                    write()
            assert new.topup(kept.id) == kept
            assert new.intend(kept, NOW_MS).state is State.SENT


def test_a_copy_changes_nothing(tmp_path: Path) -> None:
    """A copy in memory begins with what the ledger holds, takes writes, and leaves the ledger as it was."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        kept = store.begin(topup())
        with closing(SqliteStore.open_copy(tmp_path)) as copy:
            assert copy.open_topup(ACCOUNT) == kept
            copy.move(kept, Fact.DROP, NOW_MS)
            assert copy.open_topup(ACCOUNT) is None
        assert store.open_topup(ACCOUNT) == kept
    with closing(SqliteStore.open_copy(tmp_path / "nowhere")) as copy:
        assert copy.open_topup(ACCOUNT) is None
    assert not SqliteStore.exists(tmp_path / "nowhere")


# -- SQLite: what a commit is worth -----------------------------------------------------------------------------


def test_a_commit_survives_the_loss_of_power(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: with NORMAL the newest commits may be rolled back. Foreign keys hold."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        told = {name: store._one(f"PRAGMA {name}")[0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert told == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_the_ledger(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: the folder is 0700, the database, its companions and the lock 0600."""
    before = os.umask(umask)
    try:
        with closing(SqliteStore.open_writer(tmp_path / "state")) as store:
            store.begin(topup())
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "state").iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys([FILE, f"{FILE}-wal", f"{FILE}-shm", "lock"], 0o600)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


# -- SQLite: what cannot be used --------------------------------------------------------------------------------


def test_what_is_no_ledger_of_this_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A version it does not know, no ledger for a reader, a file where the folder should be: each with a remedy."""
    assert (SqliteStore.held(tmp_path), SqliteStore.holder(tmp_path)) == (False, None)
    with pytest.raises(StoreUnusable, match="no ledger") as refused:
        SqliteStore.open_reader(tmp_path)
    assert refused.value.remedy
    assert list(tmp_path.iterdir()) == [], "a reader makes no ledger where there is none, and who looks no lock"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable) as refused:
        SqliteStore.open_writer(tmp_path / "file")
    assert refused.value.remedy
    SqliteStore.open_writer(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as hand:
        hand.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        epoch = hand.execute("SELECT epoch FROM ledger").fetchone()
        for opening in (SqliteStore.open_writer, SqliteStore.open_reader):
            with pytest.raises(StoreUnusable, match="version") as refused:
                opening(tmp_path)
            assert refused.value.remedy
        assert hand.execute("SELECT epoch FROM ledger").fetchone() == epoch


@pytest.mark.parametrize("damage", ["no database", "cut short", "a page of noise"])
def test_a_damaged_ledger_is_refused_before_anything_is_spent(tmp_path: Path, damage: str) -> None:
    """Not a database, half a database, or one page of noise: the writer does not open, and the lock is free again."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        for n in range(500):
            store.record_reading(ACCOUNT, reading(NOW_MS + n))
    path = tmp_path / FILE
    whole = path.read_bytes()
    spoilt = {
        "no database": b"not a database, whatever its name says" * 100,
        "cut short": whole[: len(whole) // 2],
        "a page of noise": whole[:-4096] + b"\xa5" * 4096,
    }[damage]
    path.write_bytes(spoilt)
    for _ in range(2):
        with pytest.raises(StoreUnusable) as refused:
            SqliteStore.open_writer(tmp_path)
        assert refused.value.remedy
    assert path.read_bytes() == spoilt


def test_a_commit_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    """A transaction refused only at its commit is undone, and the next one is not blocked by it."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        arrow = "INSERT INTO move (topup, at_ms, fact, state, detail) VALUES ('nobody', 0, 'ask', 'asking', '')"
        with pytest.raises(StoreUnusable, match="FOREIGN KEY"), store._write(NOW_MS) as db:
            [db.execute(sql) for sql in ("PRAGMA defer_foreign_keys = ON", arrow)]
        assert store.begin(topup()).state is State.DECIDED
        assert store.moves("nobody") == []


def read_until_refused(store: SqliteStore, taken: list[int]) -> None:
    for n in range(10_000):
        store.record_reading(ACCOUNT, reading(NOW_MS + n))
        taken.append(n)


def test_a_full_disk_takes_all_of_a_write_or_nothing(tmp_path: Path) -> None:
    """No file may grow any more: a commit fails whole, later ones are not blocked by it, and a restart agrees."""
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = SqliteStore.open_writer(tmp_path)
    try:
        size = (tmp_path / f"{FILE}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
        with pytest.raises(StoreUnusable) as full:
            read_until_refused(store, taken)
        assert full.value.remedy
        with pytest.raises(StoreUnusable):
            store.begin(topup())
        assert store.open_topup(ACCOUNT) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert store.begin(topup()).state is State.DECIDED
    store.close()
    with closing(SqliteStore.open_writer(tmp_path)) as again:
        assert len(again.readings(ACCOUNT, 0)) == len(taken) > 0
        assert again.damage() is None
        assert again.open_topup(ACCOUNT) == replace(topup(), balance_before=Usd.of("3.21"))
