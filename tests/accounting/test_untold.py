"""Does a statement of the running month say what was used, and why models and keys do not sum to it?"""

import json
import re
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.world.builders import ACCOUNT
from tests.world.served import asked
from topup.accounting.closing import Closed, closing_entries
from topup.accounting.statement import unclosed
from topup.accounting.usage import Used, whole
from topup.domain.credits import Reading
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore

DOLLAR = 10**9
# Day and hour of November 2099, which is to come, and what the account had used then: it began at 20 dollars.
READ = [(10, 12, "20"), (10, 23, "21"), (11, 23, "23"), (12, 23, "26"), (13, 23, "30"), (14, 12, "30.5")]
# What the provider tells of whole days: nothing of the 12th, and one day from before the ledger began.
TOLD = {9: 4, 10: 2, 11: 2, 13: 4}


def shown(day: int, hour: int, used: str) -> Reading:
    at_ms = int(datetime(2099, 11, day, hour, tzinfo=UTC).timestamp()) * 1000
    return Reading(Usd.of(100), Usd.of(used), at_ms)


def lived(place: Path, until: int) -> Path:
    """Make a ledger of so many of the readings: the books are opened at the first, and closed at each end of a day."""
    closed: Closed | None = None
    with closing(SqliteStore.open_writer(place)) as store:
        for day, hour, used in READ[:until]:
            reading = shown(day, hour, used)
            store.record_reading(ACCOUNT, reading)
            if closed is None or (hour == 23 and day < READ[until - 1][0]):
                at = Closed.at(reading, 0)
                store.close_books(ACCOUNT, at, closing_entries(at, closed), reading.at_ms)
                closed = at
        for day, dollars in TOLD.items():
            if day < READ[until - 1][0]:
                used_by = (Used("maker/large", dollars * DOLLAR),)
                told = whole(date(2099, 11, day), used_by, used_by)
                store.keep_usage(ACCOUNT, told, shown(*READ[until - 1]).at_ms)
    return place


@pytest.fixture
def first_day(tmp_path: Path) -> Path:
    return lived(tmp_path / "state", 2)


@pytest.fixture
def fifth_day(tmp_path: Path) -> Path:
    return lived(tmp_path / "state", len(READ))


def page(place: Path) -> str:
    """Return what the page of the month says, without its markup."""
    file = place.parent / "page.html"
    done = asked(place, "statement", "--month", "2099-11", "--html", str(file))
    assert done.exit_code == 0, done.output
    words = re.sub(r"(?s)<style>.*</style>|<[^>]+>", " ", file.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", words)


def test_on_its_first_day_an_account_has_used_what_the_readings_show(first_day: Path) -> None:
    """One dollar, of which the books know nothing until the day is over: page and text say so."""
    told = page(first_day)
    assert "1.00 $ used so far 1.00 $ of it not closed yet" in told
    assert (
        "by the reading of 2099-11-10 23:00:00Z" in told and "closed once a UTC day, last at 2099-11-10 12:00" in told
    )
    assert "The period is not over" in told
    month = ("statement", "--month", "2099-11")
    said = "used 1, 1 of it since the books were closed at 2099-11-10 12:00:00Z"
    assert said in asked(first_day, *month).stdout
    document = json.loads(asked(first_day, *month, "--json").stdout)["credits"]
    assert (document["used"], document["used_not_closed"]) == ("0", "1")


def test_why_models_do_not_sum_to_what_was_used_stands_beside_them(fifth_day: Path) -> None:
    """Today, a day that was not told, days from before this ledger, and days that are not cut at midnight: in dollars.

    Of 10.50 used 12 are told: 0.50 + 3.00 - 4.00 - 1.00.
    """
    told = page(fifth_day)
    for said in (
        "The sum by model is 12.00 $, 1.50 $ more than the 10.50 $ that were used:",
        "0.50 $ less: used since the books were closed last, at 2099-11-13 23:00:00Z",
        "3.00 $ less: used on 2099-11-12, of which models and keys were not told",
        "4.00 $ more: told of the days before 2099-11-10, on which this ledger began",
        "1.00 $ more: the books end a day at its last reading, the provider at midnight, and this ledger began within",
        "The sum by key is the same 12.00 $",
    ):
        assert said in told, (said, told)


def test_a_month_whose_books_are_closed_says_used_and_nothing_more(fifth_day: Path) -> None:
    """The same ledger, asked for days that are over: what was booked is what was used."""
    told = asked(fifth_day, "statement", "--from", "2099-11-11", "--to", "2099-11-13").stdout
    assert "used 9\n" in told
    document = asked(fifth_day, "statement", "--from", "2099-11-11", "--to", "2099-11-13", "--json").stdout
    assert json.loads(document)["credits"]["used_not_closed"] is None


def test_before_the_books_are_opened_the_readings_alone_tell() -> None:
    """Since the first of them; without any nothing is told, and where a closing is as new, nothing is left."""
    readings = [shown(*read) for read in READ]
    told = unclosed(readings, None)
    assert told is not None
    assert (told.used, told.since_ms) == (Usd.of("10.5"), readings[0].at_ms)
    assert unclosed([], None) is None
    assert unclosed(readings, Closed.at(readings[-1], 0)) is None
