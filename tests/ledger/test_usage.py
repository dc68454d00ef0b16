"""Does the ledger know who used what, whatever the provider says and whenever it is interrupted?"""

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.world.builders import ACCOUNT, operator
from tests.world.ledger import paid
from tests.world.november import payment, posted
from tests.world.served import asked
from topup.accounting.closing import Closed, closing_entries
from topup.accounting.usage import (
    NOISE_NANO,
    Activity,
    ApiKey,
    Contradiction,
    Used,
    due,
    holes,
    labelled,
    per_day,
    shares,
    total,
    whole,
)
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.errors import ApiError, ApiGone, ApiUnknown
from topup.domain.events import Event, UsageUnknown
from topup.domain.moments import utc_day
from topup.domain.money import Usd
from topup.domain.notes import Note
from topup.ledger.store import SqliteStore
from topup.payment.usage_sync import KEYS_A_PASS, PAGES_A_PASS, UsageSync

# Noon of a day to come: ledger time is then this, whatever the machine's clock says.
NOON_MS = int(datetime(2099, 11, 23, 12, tzinfo=UTC).timestamp()) * 1000
TODAY = date(2099, 11, 23)
DOLLAR = 10**9


def key_hash(number: int) -> str:
    """What a provider calls its nth key."""
    return f"{number:064x}"


@dataclass
class Provider:
    """An account at a provider that tells of its last 30 days: how much, by which key, on which day, with what."""

    now_ms: int = NOON_MS
    used: dict[tuple[date, str, str], int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    asked: list[str | None] = field(default_factory=list)
    fails: dict[int, ApiError] = field(default_factory=dict)
    page: int = 10_000
    deaf: bool = False
    answer_ms: int = 0

    def now(self) -> int:
        return self.now_ms

    def use(self, day: date, key: int, model: str, nano: int) -> None:
        """A key uses a model."""
        place = day, key_hash(key), model
        self.used[place] = self.used.get(place, 0) + nano

    def use_each(self, count: int, model: str = "big", *, each: Callable[[int], int] = lambda _: DOLLAR) -> None:
        """So many keys use a model on the day before today."""
        for n in range(count):
            self.use(TODAY - timedelta(days=1), n, model, each(n))

    async def activity(self, *, key_hash: str | None = None) -> list[Activity]:
        """Tell the days that are over."""
        self.now_ms += self.answer_ms
        self._answer(key_hash)
        today = utc_day(self.now_ms)
        return [
            Activity(on, Used(model, nano, 3, 20, 10))
            for (on, key, model), nano in sorted(self.used.items())
            if today - timedelta(days=30) <= on < today and key_hash in (None, key)
        ]

    async def keys(self, offset: int = 0) -> tuple[list[ApiKey], bool]:
        """Tell a page of the keys that are still there; one that is deaf always tells the first."""
        self._answer("keys")
        today = utc_day(self.now_ms)
        names = sorted({key for _, key, _ in self.used} - self.gone)

        def of(name: str, first: date) -> int:
            return sum(n for (on, key, _), n in self.used.items() if key == name and first <= on <= today)

        told = [
            ApiKey(k, self.names.get(k, ""), disabled=False, nano=of(k, date.min), today_nano=of(k, today))
            for k in names
        ]
        first = 0 if self.deaf else offset
        return told[first : first + self.page], len(told) >= first + self.page

    def _answer(self, what: str | None) -> None:
        self.asked.append(what)
        error = self.fails.pop(len(self.asked), None)
        if error is not None:
            raise error


class Told:
    """A sink that remembers what is said of usage that is unknown."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def emit(self, event: Event) -> None:
        self.said += [event.detail] if isinstance(event, UsageUnknown) else []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty ledger that has seen this account an hour ago."""
    with closing(SqliteStore.open_writer(tmp_path)) as opened:
        opened.say(ACCOUNT, Note.USAGE, "", NOON_MS - HOUR_MS, "topup")
        yield opened


def tally(store: SqliteStore, provider: Provider, told: Told | None = None) -> UsageSync:
    """What a start of the program builds."""
    return UsageSync(ACCOUNT, api=provider, now=provider.now, store=store, sink=told or Told())


def keep_up(keeper: UsageSync, passes: int = 1) -> None:
    for _ in range(passes):
        asyncio.run(keeper.keep_up())


def by(store: SqliteStore, split: str, first: date = date(2099, 1, 1), last: date = TODAY) -> dict[str, int]:
    return {used.name: used.nano for used in store.used_by(ACCOUNT, split, first, last)}


def test_a_day_is_asked_for_once_it_has_settled_and_then_never_again(store: SqliteStore) -> None:
    """Until six in the morning nothing is asked; afterwards once, and the next day only for the next day."""
    provider = Provider(now_ms=NOON_MS - 7 * HOUR_MS)
    provider.use(TODAY - timedelta(days=1), 1, "big", DOLLAR)
    store.say(ACCOUNT, Note.USAGE, "", 0, "topup")
    keeper = tally(store, provider)
    keep_up(keeper)
    assert provider.asked == []
    provider.now_ms = NOON_MS
    keep_up(keeper)
    assert provider.asked == ["keys", key_hash(1), None]
    provider.now_ms += 3 * HOUR_MS
    keep_up(keeper)
    provider.now_ms += DAY_MS
    keep_up(keeper)
    assert provider.asked[3:] == ["keys", None], "the key has used nothing since"


def test_an_account_seen_for_the_first_time_is_asked_an_hour_later(tmp_path: Path) -> None:
    """The first pass has other questions."""
    provider = Provider()
    provider.use_each(1)
    with closing(SqliteStore.open_writer(tmp_path)) as opened:
        opened.record_reading(ACCOUNT, Reading(Usd.of(100), Usd.of(20), NOON_MS))
        keep_up(tally(opened, provider))
        assert provider.asked == []
        provider.now_ms += HOUR_MS
        keep_up(tally(opened, provider))
        assert by(opened, "model") == {"big": DOLLAR}


def test_many_keys_are_asked_a_few_at_a_time_and_across_starts(store: SqliteStore) -> None:
    """Each pass asks for twenty keys, each in a process of its own; the day is whole with the last of them."""
    provider, count = Provider(), 2 * KEYS_A_PASS + 5
    provider.use_each(count, each=lambda n: (n + 1) * DOLLAR)
    for _ in range(2):
        keep_up(tally(store, provider))
        assert by(store, "key") == {}, "half a day is none"
        assert store.told_at(ACCOUNT, Note.USAGE) < NOON_MS
    keep_up(tally(store, provider))
    assert len(by(store, "key")) == count
    asked = [one for one in provider.asked if one not in (None, "keys")]
    assert len(asked) == len(set(asked)) == count


def test_the_list_of_the_keys_comes_in_pages_a_few_with_each_pass(store: SqliteStore) -> None:
    """Twelve pages are two passes, and every key on them is asked for."""
    provider = Provider(page=4)
    provider.use_each(46)
    keeper = tally(store, provider)
    keep_up(keeper)
    assert provider.asked == ["keys"] * PAGES_A_PASS
    keep_up(keeper, 3)
    assert provider.asked.count("keys") == 12
    assert len(by(store, "key")) == 46


def test_a_provider_that_tells_the_same_page_again_and_again_is_asked_twice(store: SqliteStore) -> None:
    """An offset that is ignored does not keep us for ever."""
    provider = Provider(page=4, deaf=True)
    provider.use_each(10)
    keep_up(tally(store, provider))
    assert provider.asked.count("keys") == 2


def test_keys_that_come_and_go_fill_no_ledger(store: SqliteStore) -> None:
    """A hundred new ones every day, used before anybody remembers: those that no usage is stored of are gone."""
    provider = Provider()
    for number in range(4):
        today = TODAY + timedelta(days=number)
        long_ago = today - timedelta(days=40)
        provider.used = {(long_ago, key_hash(number * 100 + n), "big"): DOLLAR for n in range(100)}
        keep_up(tally(store, provider), 6)
        assert store.usage_known(ACCOUNT, today - timedelta(days=1), today) == [today - timedelta(days=1)]
        assert len(store.keys_used(ACCOUNT)) == 100
        provider.now_ms += DAY_MS


def test_a_slow_provider_is_asked_for_fewer_keys_with_each_pass(store: SqliteStore) -> None:
    """Six seconds an answer are two keys a pass; nothing is asked twice, and the day is whole in the end."""
    provider = Provider(answer_ms=6_000)
    provider.use_each(5)
    keeper = tally(store, provider)
    keep_up(keeper)
    assert provider.asked == ["keys", key_hash(0), key_hash(1)]
    keep_up(keeper, 2)
    assert len(by(store, "key")) == 5
    assert provider.asked[3:] == [key_hash(2), key_hash(3), key_hash(4), None]


def test_a_question_that_fails_loses_nothing(store: SqliteStore) -> None:
    """After an error in the middle the rest is asked an hour later, and what was answered stands."""
    provider, told = Provider(fails={4: ApiUnknown("no usable answer")}), Told()
    provider.use_each(5)
    keeper = tally(store, provider, told)
    keep_up(keeper, 3)
    assert provider.asked == ["keys", *map(key_hash, range(3))]
    assert told.said == ["no usable answer"]
    provider.now_ms += HOUR_MS
    keep_up(keeper)
    assert provider.asked[4:] == ["keys", key_hash(2), key_hash(3), key_hash(4), None]
    assert len(by(store, "key")) == 5
    assert store.told(ACCOUNT, Note.USAGE) == ""


def test_a_provider_without_the_endpoint_is_asked_once_a_day_and_said_once(store: SqliteStore) -> None:
    """A gateway that tells totals only is no error."""
    provider, told = Provider(fails={n: ApiGone("404") for n in range(1, 9)}), Told()
    keeper = tally(store, provider, told)
    for _ in range(48):
        keep_up(keeper)
        provider.now_ms += HOUR_MS
    assert provider.asked == ["keys", "keys"]
    assert told.said == ["404"]


def test_a_key_that_was_deleted_leaves_its_usage_to_nobody(store: SqliteStore) -> None:
    """What no key answers for is shown under no name, and the day is still whole."""
    provider = Provider(gone={key_hash(2)})
    provider.use(TODAY - timedelta(days=1), 1, "big", DOLLAR)
    provider.use(TODAY - timedelta(days=1), 2, "big", 2 * DOLLAR)
    keep_up(tally(store, provider))
    assert by(store, "key") == {key_hash(1): DOLLAR, "": 2 * DOLLAR}


def test_keys_that_used_more_than_the_account_are_not_stored(store: SqliteStore) -> None:
    """The provider contradicts itself: the day stays open, it is said, and all keys are asked again a day later."""

    class Confused(Provider):
        async def activity(self, *, key_hash: str | None = None) -> list[Activity]:
            told = await super().activity(key_hash=key_hash)
            if key_hash is not None:
                return told
            return [Activity(a.day, Used(a.used.name, a.used.nano // 2, 1, 1, 1)) for a in told]

    provider, told = Confused(), Told()
    provider.use(TODAY - timedelta(days=1), 1, "big", DOLLAR)
    keep_up(tally(store, provider, told))
    assert store.usage_known(ACCOUNT, date(2099, 1, 1), TODAY)[-1] == TODAY - timedelta(days=2)
    assert told.said[0] == "on 2099-11-22 the keys used 0.5 dollars more than the whole account"
    provider.now_ms += DAY_MS
    healed = Provider(provider.now_ms, provider.used)
    keep_up(tally(store, healed))
    assert key_hash(1) in healed.asked
    assert by(store, "key") == {key_hash(1): DOLLAR}


amounts = st.integers(0, 10**13)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5), st.sampled_from(["a", "b", "c"]), amounts), max_size=30),
    st.lists(st.integers(1, 20 * 60), max_size=40),
    st.lists(st.integers(1, 60), max_size=6),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_is_used_and_whenever_it_is_asked_each_day_is_stored_once_and_whole(
    tmp_path_factory: pytest.TempPathFactory,
    used: list[tuple[int, int, str, int]],
    minutes: list[int],
    failing: list[int],
) -> None:
    """Usage on any day up to now, passes at any time, errors anywhere: models and keys both sum to each day."""
    provider = Provider(fails={n: ApiUnknown("?") for n in failing})
    for ago, key, model, nano in used:
        provider.use(TODAY - timedelta(days=ago - 6), key, model, nano)  # some of it on days to come
    with closing(SqliteStore.open_writer(tmp_path_factory.mktemp("ledger"))) as store:
        store.record_reading(ACCOUNT, Reading(Usd.of(100), Usd.of(20), NOON_MS))
        keeper = tally(store, provider)
        for n, wait in enumerate([*minutes, *[60] * 60]):
            keeper = tally(store, provider) if n % 5 == 4 else keeper
            keep_up(keeper)
            provider.now_ms += 60_000 * wait
        for day in store.usage_known(ACCOUNT, date(2099, 1, 1), date(2100, 12, 31)):
            models, keys = Counter[str](), Counter[str]()
            for (on, name, model), nano in provider.used.items():
                models[model] += nano * (on == day)
                keys[name] += nano * (on == day)
            assert +Counter(by(store, "model", day, day)) == +models
            assert +Counter(by(store, "key", day, day)) == +keys
        assert store.usage_known(ACCOUNT, TODAY, utc_day(provider.now_ms)), "two days and a half have passed at least"


@given(st.lists(amounts, max_size=5), st.lists(amounts, max_size=5), st.integers(-NOISE_NANO, NOISE_NANO))
def test_a_day_sums_alike_by_model_and_by_key(models: list[int], keys: list[int], noise: int) -> None:
    """What rounding leaves goes to the largest key, what is missing to nobody, and too much is refused."""
    by_model = [Used(f"m{n}", nano) for n, nano in enumerate(models)]
    by_key = [Used(f"k{n}", nano) for n, nano in enumerate(keys)]
    if sum(keys) > sum(models) + NOISE_NANO:
        with pytest.raises(Contradiction):
            whole(TODAY, by_model, by_key)
        by_key = [Used("k", max(0, sum(models) + noise))]
    told = whole(TODAY, by_model, by_key)
    assert total(told.keys).nano == total(told.models).nano == sum(models)


@given(st.lists(amounts, max_size=20), st.decimals("0.5", "3", places=6))
def test_shares_of_the_cost_sum_to_the_whole_cost(nanos: list[int], rate: Decimal) -> None:
    """Each share is within a millionth of what it exactly is, and together they are what was paid."""
    rows = [Used(str(n), nano) for n, nano in enumerate(nanos)]
    divided = shares(rows, rate)
    exact = sum((Decimal(n) for n in nanos), Decimal(0)).scaleb(-9) * rate
    assert abs(sum((cost.amount for cost in divided), Decimal(0)) - exact) <= Decimal("0.0000005")
    for used, cost in zip(rows, divided, strict=True):
        assert abs(cost.amount - used.usd.amount * rate) < Decimal("0.000001")


def test_a_label_is_found_by_hash_or_by_name() -> None:
    """The hash counts first; a key without a label is shown under none."""
    keys = [Used(key_hash(n), n * DOLLAR) for n in range(1, 5)]
    names = {key_hash(1): "web", key_hash(2): "web", key_hash(3): "batch"}
    told = labelled(keys, names, {"web": "team a", key_hash(2): "team b", "batch": "team a"})
    assert {one.name: one.nano for one in told} == {"team a": 4 * DOLLAR, "team b": 2 * DOLLAR, "": 4 * DOLLAR}


def test_days_are_due_when_over_settled_remembered_and_unknown() -> None:
    """The thirty before today, after six in the morning UTC, less those that are there; holes are named as spans."""
    assert due([], NOON_MS) == [TODAY - timedelta(days=n) for n in range(30, 0, -1)]
    assert due([], NOON_MS - 7 * HOUR_MS) == []
    assert due([TODAY - timedelta(days=1)], NOON_MS)[-1] == TODAY - timedelta(days=2)
    days = [date(2099, 11, n) for n in range(7)[1:]]
    assert holes(days[0], days[5], [days[2], days[4]]) == [(days[0], days[1]), (days[3], days[3]), (days[5], days[5])]
    # Nobody uses less than nothing on any.
    with pytest.raises(Contradiction, match=r"on 2099-11-23 big used -1 dollars, less than nothing"):
        per_day([Activity(TODAY, Used("big", -DOLLAR, 1, 1, 1))], [TODAY])


# -- the command ------------------------------------------------------------------------------------------------

LABELS = json.dumps({"web": "team a", key_hash(2): "=team b"})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A ledger of November: ten dollars bought for 10.51, three days told by the provider, two not, and today."""
    provider = Provider(names={key_hash(1): "web", key_hash(2): "batch"})
    noon = NOON_MS - 5 * DAY_MS
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        name = paid(store, operator()).id
        closed: Closed | None = None
        for n in range(6):
            reading = Reading(Usd.of(100), Usd.of(20 + n), noon + n * DAY_MS)
            store.record_reading(ACCOUNT, reading)
            if n < 5:
                at = Closed.at(reading, 0)
                store.close_books(ACCOUNT, at, closing_entries(at, closed), reading.at_ms)
                closed = at
        for n in (1, 2, 3):
            provider.use(TODAY - timedelta(days=n), 1, "big", DOLLAR * 3 // 4)
            provider.use(TODAY - timedelta(days=n), 2, "small", DOLLAR // 4)
            told = per_day(asyncio.run(provider.activity()), [TODAY - timedelta(days=n)])
            (day,), (models,) = told.keys(), told.values()
            for key in asyncio.run(provider.keys())[0]:
                its = per_day(asyncio.run(provider.activity(key_hash=key.hash)), [day])
                store.keep_key_used(ACCOUNT, key, {day: total(its[day])}, NOON_MS)
            store.keep_usage(ACCOUNT, whole(day, models, store.used_by(ACCOUNT, "key", day, day, whole=False)), NOON_MS)
        store.close_books(ACCOUNT, closed or Closed(0, 0, 0, 0), [payment(noon, name), posted(noon, name)], NOON_MS)
    return tmp_path


def billed(place: Path, *options: str) -> tuple[int, str]:
    done = asked(place, "usage", *options, TOPUP_LABELS=LABELS)
    return done.exit_code, done.output


def document(place: Path, *options: str) -> dict[str, Any]:
    code, told = billed(place, *options, "--from", "2099-11-17", "--to", "2099-11-23", "--json")
    assert code == 0, told
    parsed = json.loads(told)
    assert isinstance(parsed, dict)
    return parsed


def test_usage_by_day_tells_final_days_those_of_totals_and_today(kept: Path) -> None:
    """Three days by the provider, one by what its totals moved by, and today so far, each marked as what it is."""
    told = document(kept)
    assert [(row["name"], row["used_usd"], row["state"]) for row in told["rows"]] == [
        ("2099-11-19", "1", "totals"),
        ("2099-11-20", "1", "final"),
        ("2099-11-21", "1", "final"),
        ("2099-11-22", "1", "final"),
        ("2099-11-23", "1", "provisional"),
    ]
    assert told["total_usd"] == "5"
    assert told["missing"] == [{"from": "2099-11-17", "to": "2099-11-19"}]
    assert told["zone"] == "UTC"


def test_usage_by_model_and_key_leaves_what_was_not_told_in_lines_of_its_own(kept: Path) -> None:
    """Every split sums to the same, whatever of it has a name."""
    models, keys = document(kept, "--by", "model"), document(kept, "--by", "key")
    assert [(row["name"], row["used_usd"]) for row in models["rows"]] == [
        ("big", "2.25"),
        ("small", "0.75"),
        ("2099-11-17 to 2099-11-19", "1"),
        ("2099-11-23", "1"),
    ]
    assert [(row["name"], row["key"]) for row in keys["rows"][:2]] == [("web", key_hash(1)), ("batch", key_hash(2))]
    assert models["total_usd"] == keys["total_usd"] == document(kept)["total_usd"]


def test_labels_share_the_whole_cost_fees_included(kept: Path) -> None:
    """Ten dollars of credit have cost 10.51: so has a dollar used, for each label, and the CSV adds up to it."""
    told = document(kept, "--by", "label")
    assert told["usd_per_credit"] == "1.051"
    assert [(row["name"], row["used_usd"], row["cost_usd"]) for row in told["rows"][:2]] == [
        ("team a", "2.25", "2.36475"),
        ("=team b", "0.75", "0.78825"),
    ]
    code, text = billed(kept, "--by", "label", "--from", "2099-11-20", "--to", "2099-11-22", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 0
    assert [row["name"] for row in rows] == ["team a", "'=team b"], "no cell is a formula"
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal("3.153")


def test_the_text_names_what_is_not_told(kept: Path) -> None:
    """For a person: the table, the total, and what to know of it. Days that have not begun are no hole."""
    code, text = billed(kept, "--by", "key", "--from", "2099-11-17", "--to", "2099-11-23")
    assert code == 0
    assert "total 5 dollars of credit" in text
    assert "note: models and keys were not told of 2099-11-17 to 2099-11-19" in text
    assert "note: 2099-11-23 is not over: its models and keys are told when it is" in text
    code, text = billed(kept, "--from", "2099-12-01", "--to", "2099-12-31", "--json")
    assert code == 0
    assert json.loads(text)["rows"] == json.loads(text)["missing"] == []
