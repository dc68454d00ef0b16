"""Is what happened told once for each day, as the books have it, and is what nobody knows called unknown?"""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from email import message_from_bytes
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.app.test_telling import ACCOUNT, Pile, relay
from tests.world.ledger import MEMORY
from tests.world.november import NOVEMBER, START_MS, month, posted, reading
from tests.world.stage import Kept, Machine, Silence, Start
from topup.accounting import digest as reckoned
from topup.accounting.closing import PAD, Closed
from topup.accounting.digest import Cap, Every
from topup.accounting.formats.digest import document, lines
from topup.accounting.journal import WALLET, Commodity, Entry, Line
from topup.accounting.statement import Period
from topup.app import assembly
from topup.app.delivery import Courier, Listener
from topup.app.digest import WAIT_MS, Digests
from topup.app.reckoning import forecast_of, statement_of
from topup.app.settings import Settings, load
from topup.app.telling import telling
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.messages import Tier
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.sandbox.world import World
from topup.wire import wording
from topup.wire.email import Email

# A Tuesday, at noon.
NOON_MS: Final = START_MS + 2 * DAY_MS + DAY_MS // 2
HOUR: Final = 8


@cache
def settings(every: str = "daily", **environment: str) -> Settings:
    own = {"TOPUP_CONFIG": os.devnull, "TOPUP_NOTIFY__DIGEST": every, "TOPUP_NOTIFY__DIGEST_HOUR": str(HOUR)}
    return load(own | environment)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open_writer(tmp_path / "state")
    yield store
    store.close()


def told(store: SqliteStore) -> list[dict[str, Any]]:
    """Every digest of a ledger, oldest first."""
    return [json.loads(row["body"]) for row in store._all("SELECT body FROM message WHERE kind = 'digest' ORDER BY id")]


def days(store: SqliteStore) -> list[tuple[str, str]]:
    return [(one["from"], one["to"]) for one in told(store)]


def test_a_daemon_that_was_away_tells_one_digest_of_all_the_days(ledger: SqliteStore) -> None:
    """The first one tells of the last whole day; nothing is told before its hour, nor twice."""
    clock = Machine(NOON_MS)
    digests = Digests(settings(), ledger, clock)
    digests.write(last=True)
    clock.go_on(DAY_MS // 2 + HOUR * HOUR_MS - 1)
    digests.write(last=True)
    assert days(ledger) == []
    clock.go_on(1)
    for _ in range(2):
        digests.write(last=True)
    assert days(ledger) == [("2026-11-03", "2026-11-03")]
    clock.go_on(4 * DAY_MS)
    Digests(settings(), ledger, clock).write(last=True)
    assert days(ledger)[1:] == [("2026-11-04", "2026-11-07")]


def test_a_weekly_digest_comes_on_monday(ledger: SqliteStore) -> None:
    """Of Monday to Sunday; one that comes late ends with the same Sunday."""
    clock = Machine(NOON_MS)
    digests = Digests(settings("weekly"), ledger, clock)
    digests.write(last=True)
    clock.wall = START_MS + 8 * DAY_MS + HOUR * HOUR_MS
    assert date(2026, 11, 9).weekday() == 0
    digests.write(last=True)
    clock.go_on(9 * DAY_MS)
    digests.write(last=True)
    assert days(ledger) == [("2026-11-02", "2026-11-08"), ("2026-11-09", "2026-11-15")]


@given(st.lists(st.tuples(st.integers(-50, 100), st.booleans(), st.sampled_from(list(Every))), max_size=9))
def test_each_day_is_in_one_digest_wherever_the_clock_jumps(steps: list[tuple[int, bool, str]]) -> None:
    """By hours forward and back, over restarts, and whoever changes his mind about how often."""
    clock = Machine(NOON_MS)
    with (
        TemporaryDirectory(dir=MEMORY) as directory,
        closing(SqliteStore.open_writer(Path(directory) / "state")) as store,
    ):
        digests = Digests(settings(), store, clock)
        digests.write(last=True)
        for hours, again, every in steps:
            clock.wall += hours * HOUR_MS
            if again:
                store._newest = 0  # as a process that starts anew, after the clock was set back
                digests = Digests(settings(every), store, clock)
            digests.write(last=True)
        covered = [(date.fromisoformat(first), date.fromisoformat(last)) for first, last in days(store)]
    for (_, end), (first, _) in pairwise(covered):
        assert first == end + timedelta(days=1)
    assert all(first <= last for first, last in covered)


def test_two_that_write_at_once_tell_it_once(ledger: SqliteStore) -> None:
    """Whoever comes second finds the days told; neither note nor message is there without the other."""
    ledger.say(ACCOUNT, "digest", "2026-11-03", NOON_MS)
    assert ledger.digest(ACCOUNT, "2026-11-03", "2026-11-04", NOON_MS, {})
    assert not ledger.digest(ACCOUNT, "2026-11-03", "2026-11-04", NOON_MS, {})
    with pytest.raises(TypeError):
        ledger.digest(ACCOUNT, "2026-11-04", "2026-11-05", NOON_MS, {"no json": object()})
    assert (len(told(ledger)), ledger.told(ACCOUNT, "digest")) == (1, "2026-11-04")


def test_it_waits_for_the_reading_that_closes_the_books_and_not_for_ever(ledger: SqliteStore) -> None:
    """A process that begins in the morning has to read the account itself; after an hour it tells what there is."""
    clock = Machine(NOON_MS)
    Digests(settings(), ledger, clock).write(last=False)
    ledger.record_reading(ACCOUNT, reading(NOON_MS, "30", "5"))
    clock.go_on(DAY_MS)
    digests = Digests(settings(), ledger, clock)
    digests.write(last=False)
    clock.go_on(WAIT_MS - 1)
    digests.write(last=False)
    assert days(ledger) == []
    clock.go_on(1)
    digests.write(last=False)
    assert days(ledger) == [("2026-11-03", "2026-11-03")]
    (one,) = told(ledger)
    assert (one["used_usd"], one["used_until_ms"], one["wallet_refills"], one["wallet_until_ms"]) == (None,) * 4
    assert one["balance_usd"] == "25"


async def test_whoever_wants_it_again_hears_nothing_of_the_time_between(ledger: SqliteStore) -> None:
    """What was switched off for a month begins anew; so does one whom nobody would have heard."""
    clock = Machine(NOON_MS)
    hook = {"TOPUP_NOTIFY__WEBHOOK_URL": "http://127.0.0.1:1"}
    for wanted in (settings("off", **hook), settings()):
        ledger.say(ACCOUNT, "digest", "2026-10-01", NOON_MS)
        async with telling(wanted, ledger, clock, Silence()):
            assert ledger.told(ACCOUNT, "digest") == ""
    async with telling(settings(**hook), ledger, clock, Silence()) as courier:
        assert courier.digests is not None
        courier.digests.write(last=False)
    assert ledger.told(ACCOUNT, "digest") == "2026-11-03"
    assert days(ledger) == []


async def test_a_digest_is_told_by_every_target_when_the_quiet_hours_end(ledger: SqliteStore) -> None:
    """Also by one that hears only what is critical: a person has asked for it. It waits as what is no warning does."""
    clock, piles = Machine(NOON_MS), {name: Pile() for name in ("webhook", "email", "apprise")}
    listeners = {name: Listener(pile, Tier.CRITICAL, (7, 10)) for name, pile in piles.items()}
    courier = Courier(ledger, listeners, ACCOUNT, clock, Silence(), Digests(settings(), ledger, clock))
    courier.follow()
    await courier.deliver()
    clock.go_on(DAY_MS // 2 + HOUR * HOUR_MS)
    await courier.deliver(last=True)
    assert (len(told(ledger)), [pile.told for pile in piles.values()]) == (1, [[], [], []])
    clock.go_on(2 * HOUR_MS)
    await courier.deliver()
    for pile in piles.values():
        ((_, said),) = pile.told
        assert (said["type"], said["data"]["from"]) == ("digest", "2026-11-03")


async def test_a_digest_that_cannot_be_reckoned_keeps_nothing_else_from_being_told(
    ledger: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and tried again after an hour: not at each look."""
    clock, sink = Machine(NOON_MS), Kept()
    courier = Courier(ledger, {}, ACCOUNT, clock, sink, Digests(settings(), ledger, clock))
    await courier.deliver()
    clock.go_on(DAY_MS)

    def broken(*_: object) -> object:
        raise ValueError("a line that holds no amount")

    monkeypatch.setattr(SqliteStore, "within", broken)
    for _ in range(3):
        assert await courier.deliver(last=True)
    assert [one.shown()["detail"] for one in sink.told] == ["a digest: ValueError"]
    monkeypatch.undo()
    clock.go_on(HOUR_MS)
    await courier.deliver(last=True)
    assert days(ledger) == [("2026-11-03", "2026-11-03")]


async def test_a_day_is_told_as_books_caps_and_wallet_have_it(world: World, start: Start) -> None:
    """A real refill and what was used, once the pass after midnight has closed the day; the next day has neither."""
    large = {"TOPUP_POLICY__AMOUNT": "60"}  # lasts for both days
    stage, own = start(large), settings(**(world.environment() | large))
    digests = Digests(own, stage.store, world.clock)
    digests.write(last=False)
    await stage.paid_once()
    await stage.slowly(3, HOUR_MS)
    world.clock.leap(DAY_MS - world.clock.now_ms() % DAY_MS + HOUR * HOUR_MS)
    digests.write(last=False)
    assert told(stage.store) == []
    await stage.step()
    digests.write(last=False)
    (day,) = told(stage.store)
    now_ms, allowed = world.clock.now_ms(), assembly.limits(own)
    statement = statement_of(stage.store, ACCOUNT, Period.days(day["from"], day["to"]), now_ms)
    assert (day["refills"], Usd.of(day["bought_usd"])) == (1, stage.topup.amount)
    assert assembly.wei(Decimal(day["left_wallet"]["ETH"])).units == stage.left()
    assert Usd.of(day["used_usd"]) == statement.used > Usd.of(0)
    spent = stage.topup.amount.plus_bps(allowed.fee_ceiling)
    assert Usd.of(day["cap_24h_left_usd"]) == allowed.cap_24h - spent
    assert Usd.of(day["cap_30d_left_usd"]) == allowed.cap_30d - spent
    ahead = forecast_of(stage.store, ACCOUNT, allowed, assembly.ceilings(own).reserve, now_ms)
    assert ahead.wallet is not None
    assert (day["wallet_refills"], day["wallet_until_ms"], day["differs"]) == (ahead.wallet.refills, None, [])
    world.clock.leap(DAY_MS)
    await stage.step()
    digests.write(last=False)
    after = told(stage.store)[1]
    assert (after["refills"], after["bought_usd"], after["left_wallet"]) == (0, "0", {})


# -- up to when usage is known, and how it reads ----------------------------------------------------------------------


def drawn(closed: Closed | None, *extra: Entry, ledger: SqliteStore) -> reckoned.Digest:
    allowed = assembly.limits(settings())
    return reckoned.Digest(
        every=Every.WEEKLY,
        statement=month(*extra),
        closed=closed,
        last=reading(START_MS + 5 * DAY_MS, "42", "19"),
        forecast=forecast_of(ledger, ACCOUNT, allowed, assembly.ceilings(settings()).reserve, NOVEMBER.end_ms),
        left_wallet={Commodity.ETH: 4_202_030_000_000_006},
        cap_24h=Cap.of(Usd.of(100), Usd.of(120)),
        cap_30d=Cap.of(Usd.of(500), Usd.of(20)),
    )


BOOKED_MS: Final = START_MS + 5 * DAY_MS


@pytest.mark.parametrize(
    ("closed_ms", "known_ms"),
    [
        pytest.param(None, None, id="never closed"),
        pytest.param(START_MS - 1, None, id="closed before the period"),
        pytest.param(BOOKED_MS + DAY_MS, BOOKED_MS + DAY_MS, id="closed within it"),
        pytest.param(NOVEMBER.end_ms, BOOKED_MS, id="closed after it: as far as usage was booked"),
    ],
)
def test_what_was_used_is_known_as_far_as_the_books_are_closed(
    ledger: SqliteStore, closed_ms: int | None, known_ms: int | None
) -> None:
    """Else it is unknown, and never nothing."""
    closed = Closed(closed_ms, 0, 0, 0) if closed_ms is not None else None
    fields = document(drawn(closed, ledger=ledger))
    assert (fields["used_until_ms"], fields["used_usd"]) == (known_ms, "14" if known_ms is not None else None)


def test_books_that_were_closed_later_without_an_entry_say_nothing_of_the_days_before(ledger: SqliteStore) -> None:
    """What those days used may stand in the entry of a later one."""
    digest = drawn(Closed(NOVEMBER.end_ms, 0, 0, 0), ledger=ledger)
    without = replace(digest.statement, entries=tuple(e for e in digest.statement.entries if "usage" not in e.text))
    assert replace(digest, statement=without).used_until_ms is None


def test_a_refill_of_an_earlier_period_is_no_refill_of_this_one(ledger: SqliteStore) -> None:
    """Though something of it is booked now."""
    early = posted(START_MS - DAY_MS, "t0")
    again = replace(early, at_ms=START_MS + DAY_MS, text="corrected", lines=())
    digest = drawn(None, early, again, ledger=ledger)
    assert len(digest.statement.refills) == 2
    assert [refill.topup_id for refill in digest.refills] == ["t1"]


def test_a_person_reads_it_as_text(ledger: SqliteStore) -> None:
    """What nobody knows is called unknown; caps that are passed leave nothing, and no less."""
    moved = (Line(WALLET, Commodity.USDC, -5_000_000), Line(PAD, Commodity.USDC, 5_000_000))
    other = Entry(START_MS + DAY_MS, "", "wallet moved by others", None, "", 9, Usd.of(5), "par", moved)
    fields = document(drawn(Closed(BOOKED_MS, 0, 0, 0), other, ledger=ledger))
    assert list(lines(fields)) == [
        "period    2026-11-01 to 2026-11-30 (UTC)",
        "refills   1, 10 dollars of credit",
        "spent     0.004203 ETH left the wallet",
        "used      14 dollars, up to 2026-11-06 00:00:00Z",
        "elsewhere 7 dollars of credit were bought elsewhere",
        "credits   23 dollars, read 2026-11-06 00:00:00Z",
        "wallet    how long it lasts is unknown: the ledger writes down only ETH, at a refill",
        "caps      left: 0 of 100 dollars in 24 hours, 480 of 500 dollars in 30 days",
        "others    took 5 USDC out of the wallet",
        "differs   nothing",
    ]
    said = {"type": "digest", "data": {"account": ACCOUNT, "subject": "digest", **fields}}
    assert (wording.title(said), list(wording.lines(said))) == ("topup: default: digest", list(lines(fields)))
    unknown = fields | {"used_usd": None, "elsewhere_usd": None, "balance_usd": None, "refills": 0, "left_wallet": {}}
    assert [line.partition(" ")[2].strip() for line in lines(unknown)][1:5] == [
        "none", "nothing left the wallet", "unknown: the books were not closed in this period", "unknown: never read",
    ]  # fmt: skip


async def test_an_e_mail_brings_the_text_and_no_fields(ledger: SqliteStore) -> None:
    """Through a real relay."""
    data = {"account": ACCOUNT, "subject": "digest", **document(drawn(None, ledger=ledger))}
    with relay() as (port, mails):
        email = Email("127.0.0.1", port, "none", "a@example.com", ["b@example.com"])
        await email.send("msg_1", 1, {"type": "digest", "data": data})
    read = message_from_bytes(mails[0].content)
    assert read["Subject"] == "topup: default: digest"
    text = read.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert text.decode().splitlines() == list(lines(data))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((3, None, None), "enough for 3 refills; until when is unknown before a week of usage is known"),
        ((3, "0", None), "enough for 3 refills; for ever, as nothing is used"),
        ((3, "1.5", BOOKED_MS), "enough for 3 refills, until 2026-11-06 00:00:00Z at the usual pace"),
    ],
)
def test_how_long_the_wallet_lasts_is_said_as_far_as_it_is_known(
    ledger: SqliteStore, fields: tuple[int, str | None, int | None], says: str
) -> None:
    """For ever, and unknown, are both no moment."""
    refills, day, until_ms = fields
    known = {"wallet_refills": refills, "usual_day_usd": day, "wallet_until_ms": until_ms}
    assert f"wallet    {says}" in list(lines(document(drawn(None, ledger=ledger)) | known))
