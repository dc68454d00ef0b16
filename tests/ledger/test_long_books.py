"""Do the books of a long past stay right and small to read? A year of twenty keys; results and memory, never a timing.

The ledger is the benchmark's own, so that what is measured there is known to be right.
"""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks import books, decade
from tests.tools import ROOT
from topup.accounting.forecast import network_cost
from topup.accounting.formats import text
from topup.accounting.formats.usage import By
from topup.accounting.statement import Period, draw, refill
from topup.app.reckoning import LOOKED_BACK
from topup.app.usage import usage_of
from topup.domain.credits import DAY_MS
from topup.ledger.rows import Broken
from topup.ledger.store import SqliteStore

ACCOUNT = "default"
KEYS = 20
TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=365)
WHOLE = Period(FIRST, TODAY - timedelta(days=1))
# Of a run of topup: what Python and the libraries take, and hardly more for a year than for a month.
MEMORY_MIB = 100
MEASURED = (
    "import json, sys; from benchmarks import books; print(books.measured(*json.loads(sys.argv[1]), 1)['peak_mib'])"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a ledger that holds a year."""
    made = tmp_path_factory.mktemp("year")
    command = [sys.executable, "-m", "benchmarks.decade", str(made), "--years", "1", "--keys", str(KEYS)]
    subprocess.run(command, cwd=books.ROOT, check=True, timeout=240)
    return made


@pytest.fixture
def store(place: Path) -> Any:
    opened = SqliteStore.open_reader(place)
    yield opened
    opened.close()


def test_a_year_adds_up(store: SqliteStore) -> None:
    """364 top-ups of ten dollars, 365 days of 9.87: what is left is what the provider showed last."""
    told = draw(ACCOUNT, WHOLE, store.entries(ACCOUNT), reading=store.last_reading(ACCOUNT), head=None, now_ms=0)
    assert (len(told.refills), str(told.bought), str(told.elsewhere)) == (364, "3640", "0")
    assert str(told.used) == str(told.used.usdc_down().usdc) == "3592.68"  # the first day is in the opening balance
    assert [d for d in told.differences if "not explained" in d] == []


def periods() -> list[Period]:
    """Months, a day, the whole, none, what begins before the ledger; some begin or end in the middle of a top-up."""
    middle = FIRST + timedelta(days=25 * decade.LATE_EACH + decade.LATE)
    months = [Period(FIRST + timedelta(days=n), FIRST + timedelta(days=n + 29)) for n in (0, 100, 335)]
    return [
        *months,
        Period(middle, middle),
        Period(middle + timedelta(days=1), middle + timedelta(days=30)),
        WHOLE,
        Period(date(1970, 1, 1), middle),
        Period(TODAY, TODAY),
        Period(TODAY + timedelta(days=40), TODAY + timedelta(days=70)),
    ]


# Words, and no dates: they name the same test on every day.
SPANS = ["first month", "fourth", "last", "middle of a top-up", "from there", "all", "all before", "today", "to come"]


@pytest.mark.parametrize("period", periods(), ids=SPANS)
def test_a_period_read_alone_is_the_same_as_out_of_the_whole_journal(store: SqliteStore, period: Period) -> None:
    """Carried balances change no figure and no line of any statement."""
    now_ms, reading = WHOLE.end_ms, store.last_reading(ACCOUNT)
    carried, entries = store.within(ACCOUNT, period.first_ms, period.end_ms)
    plain = draw(ACCOUNT, period, store.entries(ACCOUNT), reading=reading, head=None, now_ms=now_ms)
    alone = draw(ACCOUNT, period, entries, carried=carried, reading=reading, head=None, now_ms=now_ms)
    assert alone == plain
    assert list(text.lines(alone)) == list(text.lines(plain))
    assert json.dumps(text.document(alone)) == json.dumps(text.document(plain))
    assert len(entries) <= 3 * (period.last - period.first).days + 5


@pytest.mark.parametrize("units", ["1", "x"])
def test_an_old_entry_that_does_not_balance_is_found(place: Path, tmp_path: Path, units: str) -> None:
    """What is only summed is checked as well: a line too many in the first entry, or one that is no number."""
    shutil.copy(place / books.FILE, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / books.FILE)) as hand, hand:
        hand.execute("INSERT INTO line SELECT min(id), 99, 'assets:wallet', 'ETH', ? FROM entry", (units,))
    with contextlib.closing(SqliteStore.open_reader(tmp_path)) as store, pytest.raises(Broken) as found:
        store.within(ACCOUNT, WHOLE.end_ms, WHOLE.end_ms + DAY_MS)
    assert found.value.number == 1


def test_a_top_up_paid_before_the_period_is_shown_whole(store: SqliteStore) -> None:
    """Posted in the first minute of it: the payment of the evening before counts among what it has cost."""
    first = FIRST + timedelta(days=25 * decade.LATE_EACH + decade.LATE + 1)
    period = Period(first, first)
    carried, entries = store.within(ACCOUNT, period.first_ms, period.end_ms)
    told = draw(ACCOUNT, period, entries, carried=carried, reading=None, head=None, now_ms=WHOLE.end_ms)
    assert [(len(one.tx_hashes), one.usd is not None, str(one.fees.usdc)) for one in told.refills] == [
        (1, True, "0.5"),
        (1, True, "0.5"),
    ]


def test_readings_are_thinned_and_usage_is_not(store: SqliteStore) -> None:
    """Half a million readings have become some thousands; each day's usage of each key stands."""
    assert len(store.readings(ACCOUNT, 0)) < 12_000
    first, last = WHOLE.first, WHOLE.last
    assert len(store.usage_known(ACCOUNT, first, last)) == 365
    used = store.used_by(ACCOUNT, "key", first, last)
    assert len(used) == KEYS
    assert sum(one.nano for one in used) == sum(one.nano for one in store.used_by(ACCOUNT, "model", first, last))
    assert sum(one.nano for one in used) == 365 * 9_870_000_000
    assert WHOLE.end_ms - WHOLE.first_ms == 365 * DAY_MS


def test_a_forecast_reads_the_newest_top_ups_alone(store: SqliteStore) -> None:
    """What the network takes comes out as from the whole journal, from a hundred entries of fifteen hundred."""
    whole, read = store.entries(ACCOUNT), store.newest(ACCOUNT, LOOKED_BACK)
    assert len(read) == 2 * LOOKED_BACK < len(whole) / 10
    assert network_cost(read) == network_cost(whole)
    assert network_cost(read) is not None


def test_the_past_is_told_top_up_by_top_up(store: SqliteStore) -> None:
    """Each with all it has cost, as a statement of the whole past tells it, and one is held at a time."""
    drawn = draw(ACCOUNT, WHOLE, store.entries(ACCOUNT), reading=None, head=None, now_ms=0).refills
    told = [refill(its[0].topup_id, its) for its in store.by_topup(ACCOUNT, WHOLE.end_ms)]
    assert sorted(told, key=lambda one: one.topup_id) == sorted(drawn, key=lambda one: one.topup_id)
    assert peak(lambda: deque(store.by_topup(ACCOUNT, WHOLE.end_ms), maxlen=0)) * 10 < peak(
        lambda: store.entries(ACCOUNT)
    )


def peak(read: Callable[[], object]) -> int:
    """Return the most bytes that were held while something was read."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_journal_is_verified_entry_by_entry(store: SqliteStore) -> None:
    """However long it is, the audit holds one entry."""
    assert peak(store.audit) * 10 < peak(lambda: store.entries(ACCOUNT))


def test_a_day_without_a_refill_is_charged_what_refills_cost_before(store: SqliteStore) -> None:
    """It was bought on other days, at what all of them have cost for each dollar of credit, fees and network too."""
    later = Period(TODAY + timedelta(days=20), TODAY + timedelta(days=20))
    told = usage_of(store, ACCOUNT, By.DAY, later, {}, WHOLE.end_ms + 30 * DAY_MS)
    drawn = draw(ACCOUNT, WHOLE, store.entries(ACCOUNT), reading=None, head=None, now_ms=0).refills
    usd = sum((one.usd.amount for one in drawn if one.usd is not None), Decimal(0))
    credit = sum((one.credits.amount for one in drawn), Decimal(0))
    assert told.rate == (usd / credit).quantize(Decimal("0.000001"))
    assert told.rate > Decimal("1.05")


def test_memory_is_bounded_whatever_is_asked(place: Path, tmp_path: Path) -> None:
    """Each command of the benchmark runs to its end, prints something or writes its page, and stays small."""
    env = books.environment(place)
    small = ("--html", "--format csv", "status", "forecast", "ledger verify")
    for command, _ in books.commands(tmp_path / "page.html", TODAY):
        if any(one in " ".join(command) for one in small):
            # From a process of its own: a child's peak begins with that of whoever starts it, and this one is large.
            asked = json.dumps([[sys.executable, "-m", "topup", *command], env])
            ran = subprocess.run(
                [sys.executable, "-c", MEASURED, asked], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert json.loads(ran.stdout) < MEMORY_MIB, command
    assert (tmp_path / "page.html").stat().st_size > 10_000
