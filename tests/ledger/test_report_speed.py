"""Do the ledger and what is asked of it stay small? Thinning, indices, numbers of queries; never a timing."""

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from tests.world import ledger
from tests.world.builders import ACCOUNT, NOW_MS, WALLET, operator
from topup.domain.credits import (
    DAY_MS,
    HOUR_MS,
    RUNWAY_SPAN_MIN_MS,
    USUAL_SPAN_MS,
    Doubt,
    Reading,
    Unknown,
    burn_usd_per_hour,
    fallen_for_a_day,
    spending,
    spending_since,
)
from topup.domain.demand import checksummed
from topup.domain.lifecycle import Fact
from topup.domain.money import Usd
from topup.ledger import readings
from topup.ledger.readings import KEPT
from topup.ledger.store import SqliteStore

MINUTE_MS = 60_000
SEEDS = range(12)
INSERT = "INSERT INTO reading (account, at_ms, total_credits, total_usage, doubt, detail) VALUES (?,?,?,?,?,?)"
DOUBTS = (Doubt.NO_ANSWER, Doubt.CREDITS_FELL, Doubt.USAGE_FELL, Doubt.KEY_UNPROVEN)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore.open_writer(tmp_path)
    yield made
    made.close()


def fill(store: SqliteStore, readings: list[Reading | Unknown]) -> None:
    """Put many readings into the ledger in one transaction."""
    rows = []
    for one in readings:
        said = one if isinstance(one, Reading) else one.said
        totals = (str(said.total_credits), str(said.total_usage)) if said is not None else (None, None)
        doubt = None if isinstance(one, Reading) else one.doubt.value
        rows.append((ACCOUNT, one.at_ms, *totals, doubt, "" if isinstance(one, Reading) else one.detail))
    with store._db_errors():  # so that the store knows this write for its own
        store._db.execute("BEGIN")
        store._db.executemany(INSERT, rows)
        store._db.execute("COMMIT")


def thin(store: SqliteStore, now_ms: int) -> int:
    """Thin to the end; return in how many steps."""
    steps = 1
    while store.thin_readings(ACCOUNT, now_ms):
        steps += 1
        assert steps < 10_000
    return steps


def count(store: SqliteStore, where: str = "1") -> int:
    return int(store._one(f"SELECT count(*) FROM reading WHERE {where}")[0])  # noqa: S608 - of this file


def some_past(rng: random.Random) -> list[Reading | Unknown]:
    """Months of an account's life: polls of different pace, bursts, gaps, outages, doubts; perhaps none believed."""
    believed_share = rng.choice((0.0, 0.3, 0.97, 0.97))
    at, used, past = NOW_MS - rng.randrange(3, 120) * DAY_MS, 0, list[Reading | Unknown]()
    outage = at + rng.randrange(0, 120) * DAY_MS
    while at < NOW_MS:
        used += rng.choice((0, 0, 1, 5, 400 if rng.random() < 0.01 else 2))
        zero = rng.random() < 0.02
        said = Reading(Usd.of(0 if zero else 100), Usd.of(0) if zero else Usd.of(used).times(1), at)
        if at < outage and rng.random() < believed_share and not zero:
            past.append(said)
        else:
            past.append(Unknown(rng.choice(DOUBTS), "said so", at, rng.choice((said, None))))
        at += rng.choice((MINUTE_MS, 5 * MINUTE_MS, 20 * MINUTE_MS))
        at += rng.randrange(30) * HOUR_MS if rng.random() < 0.003 else rng.randrange(3000)
    return past


def answers(store: SqliteStore, now_ms: int) -> dict[str, Any]:
    """Return what the flow learns from the readings."""
    last = store.last_reading(ACCOUNT)
    since_last = store.doubted(ACCOUNT, last.at_ms if last is not None else 0)
    lower = Reading(Usd.of(1), Usd.of(0), now_ms)
    day, long = store.readings(ACCOUNT, now_ms - DAY_MS), store.readings(ACCOUNT, spending_since(now_ms, 0))
    return {
        "last": last,
        "ever": store.ever_non_zero(ACCOUNT),
        "burn": burn_usd_per_hour(day),
        "burn of the newest day, however old": burn_usd_per_hour(long, span_min_ms=RUNWAY_SPAN_MIN_MS),
        "two hours": store.readings(ACCOUNT, now_ms - 2 * HOUR_MS),
        "fallen for a day": fallen_for_a_day(since_last, lower),
        "first of each doubt": {d: next((u for u in since_last if u.doubt is d), None) for d in DOUBTS},
        "fastest hour": spending(long, now_ms).fastest,
    }


# -- thinning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_thinning_changes_nothing_that_is_asked(store: SqliteStore, seed: int) -> None:
    """Burn, last reading, two hours, a fall that lasts, whether anything was ever there: the same before and after."""
    rng = random.Random(seed)
    fill(store, some_past(rng))
    before, held = answers(store, NOW_MS), count(store)
    for _ in range(3):
        thin(store, NOW_MS)
        assert answers(store, NOW_MS) == before, f"seed {seed}"
    later = NOW_MS + rng.randrange(40) * DAY_MS
    before = answers(store, later)
    thin(store, later)
    assert answers(store, later) == before, f"seed {seed}"
    assert count(store) <= held


def test_an_hour_of_the_last_weeks_keeps_three_quarters_of_its_pace(store: SqliteStore) -> None:
    """What the usual pace is learnt from may be a little slower after thinning, never faster, and not by much."""
    rng = random.Random(5)
    used, past = 0, list[Reading | Unknown]()
    for n in range(16 * 24 * 60):
        used += rng.choice((0, 1, 2)) + (50 if n % 1440 in range(500, 560) else 0)
        past.append(Reading(Usd.of(10**6), Usd.of(used), NOW_MS - 16 * DAY_MS + n * MINUTE_MS))
    fill(store, past)
    before = spending(store.readings(ACCOUNT, spending_since(NOW_MS, 0)), NOW_MS)
    thin(store, NOW_MS)
    after = spending(store.readings(ACCOUNT, spending_since(NOW_MS, 0)), NOW_MS)
    assert before.usual is not None and after.usual is not None
    assert after.fastest == before.fastest
    assert before.usual.amount * 3 / 4 <= after.usual.amount <= before.usual.amount


def test_the_spans_kept_cover_everybody_who_reads_them() -> None:
    """All of two days; five minutes as far back as a usual pace looks, whenever a person resumed; then hours, days."""
    ages, spans = zip(*KEPT, strict=True)
    assert ages[0] >= 2 * DAY_MS
    assert (
        max(NOW_MS - spending_since(NOW_MS, NOW_MS - n * HOUR_MS) for n in range(2 * USUAL_SPAN_MS // HOUR_MS))
        <= (ages[1])
    )
    assert spans == (5 * MINUTE_MS, HOUR_MS, DAY_MS)
    assert all(longer % shorter == 0 for shorter, longer in pairwise(spans))


def test_months_of_minutes_become_some_thousand_rows(store: SqliteStore) -> None:
    """Bounded: all of two days, fifteen days of five minutes, ten weeks of hours, and then a row a day for ever."""
    days, a_day = 120, 720
    step = DAY_MS // a_day
    past: list[Reading | Unknown] = [
        Reading(Usd.of(100), Usd.of(1), NOW_MS - n * step) if n % 10 else Unknown(DOUBTS[n % 4], "", NOW_MS - n * step)
        for n in reversed(range(days * a_day))
    ]
    fill(store, past)
    assert thin(store, NOW_MS) > 10
    # The day, the hour and the five minutes that are not yet over are still as they were.
    begun = 24 + 12 + 3
    assert count(store, "doubt IS NULL") <= 2 * a_day + 15 * 288 + 73 * 24 + 30 + begun
    assert count(store, "doubt IS NOT NULL") <= 2 * a_day // 10 + 15 * a_day // 10 + (73 * 24 + 30 + begun) * 2
    oldest, newest = store._one("SELECT min(at_ms), max(at_ms) FROM reading")
    assert oldest < NOW_MS - (days - 1) * DAY_MS
    assert newest == NOW_MS


def test_one_step_looks_at_a_bounded_number_and_the_next_goes_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are waiting, a step deletes no more than it may; nothing is looked at twice."""
    monkeypatch.setattr(readings, "THINNED_AT_ONCE", 100)
    old = NOW_MS - 10 * DAY_MS
    fill(store, [Reading(Usd.of(1), Usd.of(n), old + n * 1000) for n in range(3000)])
    fill(store, [Reading(Usd.of(1), Usd.of(3000), NOW_MS)])
    held, gone = count(store), list[int]()
    while store.thin_readings(ACCOUNT, NOW_MS):
        gone.append(held - count(store))
        held = count(store)
        assert gone[-1] <= 300  # a span of five minutes is never cut
    assert len(gone) >= 10
    before = store._db.total_changes
    assert not store.thin_readings(ACCOUNT, NOW_MS)
    assert store._db.total_changes == before, "nothing new is old enough: nothing is written"


def test_other_accounts_and_everything_but_readings_stay(store: SqliteStore) -> None:
    """Top-ups, arrows, charges, attempts and evidence are never thinned, however old."""
    kept = ledger.paid(store, operator())
    store.record_reading("other", Reading(Usd.of(1), Usd.of(0), NOW_MS))
    store.record_reading("other", Reading(Usd.of(1), Usd.of(0), NOW_MS + 1))
    fill(store, [Reading(Usd.of(1), Usd.of(0), NOW_MS + n) for n in range(10)])
    before = store.life(kept.id)
    thin(store, NOW_MS + 400 * DAY_MS)
    fill(store, [Reading(Usd.of(1), Usd.of(0), NOW_MS + 400 * DAY_MS)])
    thin(store, NOW_MS + 400 * DAY_MS)
    assert store.life(kept.id) == before
    assert (count(store, "account = 'other'"), count(store, f"account = '{ACCOUNT}'")) == (2, 2)


def test_a_fall_after_the_last_believed_reading_keeps_its_own_first(store: SqliteStore) -> None:
    """A doubt before the last believed reading does not stand in for one after it, within the same day."""
    old = (NOW_MS - 200 * DAY_MS) // DAY_MS * DAY_MS

    def fell(at_ms: int) -> Unknown:
        return Unknown(Doubt.CREDITS_FELL, "", at_ms, Reading(Usd.of(1), Usd.of(0), at_ms))

    believed = Reading(Usd.of(5), Usd.of(0), old + 2)
    fill(store, [fell(old + 1), believed, fell(old + 3), fell(old + 4), fell(old + DAY_MS + HOUR_MS)])
    thin(store, NOW_MS)
    assert [u.at_ms for u in store.doubted(ACCOUNT, believed.at_ms)] == [old + 3, old + DAY_MS + HOUR_MS]


# -- queries ------------------------------------------------------------------------------------------------------


def plans(store: SqliteStore, act: Any) -> list[tuple[str, str]]:
    """Return every statement an act sends, with how SQLite would carry it out."""
    sent: list[str] = []
    store._db.set_trace_callback(sent.append)
    act()
    store._db.set_trace_callback(None)
    return [
        (sql, "; ".join(row["detail"] for row in store._db.execute(f"EXPLAIN QUERY PLAN {sql}")))
        for sql in sent
        if sql.startswith("SELECT")
    ]


@pytest.mark.parametrize(
    "name", ["past", "readings", "last_reading", "doubted", "open_topup", "latest", "life", "afterwards"]
)
def test_no_question_reads_a_whole_table(store: SqliteStore, name: str) -> None:
    """What is asked every minute finds its rows by an index, and sorts no readings."""
    ledger.paid(store, operator())
    acts: dict[str, Any] = {
        "past": lambda: store.past(ACCOUNT, NOW_MS, 500),
        "readings": lambda: store.readings(ACCOUNT, NOW_MS),
        "last_reading": lambda: store.last_reading(ACCOUNT),
        "doubted": lambda: store.doubted(ACCOUNT, NOW_MS),
        "open_topup": lambda: store.open_topup(ACCOUNT),
        "latest": lambda: store.latest(ACCOUNT, 5),
        "life": lambda: store.life("t1"),
        "afterwards": lambda: store.afterwards(ACCOUNT, WALLET),
    }
    for sql, plan in plans(store, acts[name]):
        scanned = [step for step in plan.split("; ") if step.startswith("SCAN") and "adopted" not in step]
        assert not [s for s in scanned if "USING" not in s], (sql, plan)
        if "FROM reading" in sql:
            assert "TEMP B-TREE FOR ORDER BY" not in plan, (sql, plan)


def test_the_past_is_read_in_four_questions_however_long_it_is(store: SqliteStore) -> None:
    """Not one for each top-up."""
    one = operator()
    for n in range(8):
        kept = ledger.charged(store, one, id=f"t{n}")
        store.move(kept, Fact.DROP, NOW_MS, "refused")
    asked = plans(store, lambda: store.past(ACCOUNT, 0, 500))
    assert len(asked) == 4
    assert len(store.past(ACCOUNT, 0, 500)) == 8


def test_an_address_is_checked_as_erc_55_says_without_what_is_slow_to_load() -> None:
    """The case of each letter is that of eth_utils; a command that reads the ledger does not wait for eth_utils."""
    rng = random.Random(55)
    for _ in range(300):
        address = rng.randbytes(20)
        assert checksummed(address) == to_checksum_address(address), "seed 55"
