"""Are the metrics what the ledger holds, named as Prometheus wants, and silent of what is not known?"""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.tools import environ, require
from tests.world.builders import ACCOUNT, NOW_MS, operator
from tests.world.ledger import paid, reading
from tests.world.stage import Machine
from topup.accounting.journal import WALLET, Commodity, Entry, Line, reversal
from topup.accounting.standing import TROUBLES
from topup.app.pulse import STUCK_MS, Vitals
from topup.app.serving import Watched
from topup.app.settings import load
from topup.domain.credits import Doubt, Unknown
from topup.domain.lifecycle import State
from topup.domain.messages import ALARMS, MessageKind
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore
from topup.web.metrics import METRICS, page, registry

Told = Callable[[], dict[str, float]]


def samples(text: str) -> dict[str, float]:
    """Return each sample by its name and labels, as they are written."""
    families = text_string_to_metric_families(text)
    every = [sample for family in families for sample in family.samples]
    return {name_of(sample.name, sample.labels): sample.value for sample in every}


def name_of(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore.open_writer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def clock() -> Machine:
    return Machine()


@pytest.fixture
def vitals(clock: Machine) -> Vitals:
    return Vitals(clock)


@pytest.fixture
def written(tmp_path: Path, clock: Machine, vitals: Vitals) -> Callable[[str], str]:
    """Return the page of a daemon on this ledger, in the form that is accepted."""
    settings = load(environ(state_dir=str(tmp_path)))
    told = registry(Watched(settings, vitals, ("webhook",)).look)

    def asked(accepts: str = "") -> str:
        clock.mono += 1_000  # what was gathered is good for a second
        return page(told, accepts).body.decode()

    return asked


@pytest.fixture
def told(written: Callable[[str], str]) -> Told:
    return lambda: samples(written(""))


def test_what_is_not_known_has_no_sample_and_what_may_come_stands_at_zero(store: SqliteStore, told: Told) -> None:
    """Of an account that was never read: no balance, no forecast, no pass; and every state, alarm and trouble."""
    assert store.head() is None
    seen = told()
    unknown = {
        *("topup_balance_usd", "topup_bought_usd", "topup_used_usd", "topup_reading_timestamp_seconds"),
        *("topup_burn_usd_per_second", "topup_floor_timestamp_seconds", "topup_empty_timestamp_seconds"),
        *("topup_refill_decided_timestamp_seconds", "topup_refill_moved_timestamp_seconds"),
        *("topup_last_pass_timestamp_seconds", "topup_next_pass_timestamp_seconds"),
        "topup_message_set_aside_timestamp_seconds",
    }
    names = {name.partition("{")[0] for name in seen}
    assert {metric.name for metric in METRICS} - names == unknown
    assert not any("nan" in str(value).lower() for value in seen.values())
    zero = {name for name, value in seen.items() if value == 0}
    assert {f'topup_refills_total{{outcome="{state}"}}' for state in ("done", "dropped", "failed")} <= zero
    assert {f'topup_refill_state{{state="{state}"}}' for state in State} & seen.keys() <= zero
    assert seen['topup_refill_state{state="none"}'] == 1
    assert {f'topup_alarm{{kind="{kind}"}}' for kind in ALARMS} <= zero
    assert {f'topup_trouble{{code="{code}"}}' for code in TROUBLES if code not in ("not_running", "never_read")} <= zero
    assert seen['topup_trouble{code="never_read"}'] == 1


def test_a_ledger_that_cannot_be_read_leaves_the_process_to_be_told_of(tmp_path: Path, told: Told) -> None:
    """Nothing of the account is there, as if nothing were known."""
    (tmp_path / FILE).write_bytes(b"no ledger at all")
    seen = told()
    assert seen["topup_ledger_readable"] == 0
    assert seen["topup_passes_total"] == 0
    assert not any(name.startswith(("topup_balance", "topup_refill", "topup_alarm")) for name in seen)


def test_the_figures_are_the_ledgers(store: SqliteStore, told: Told, clock: Machine) -> None:
    """What was read, what is open and since when, and what left the wallet, to the nearest float."""
    clock.wall = NOW_MS + 3_600_000
    store.record_reading(ACCOUNT, reading(NOW_MS, usage="89.2"))
    store.record_reading(ACCOUNT, reading(NOW_MS + 3_600_000, usage="91"))
    store.record_reading(ACCOUNT, Unknown(Doubt.NO_ANSWER, "", NOW_MS + 3_600_001))
    topup = paid(store, operator())
    spent = 123_456_789_012_345_678
    lines = (Line(WALLET, Commodity.ETH, -spent), Line("expenses:gas", Commodity.ETH, spent))
    entry = Entry(NOW_MS, topup.id, "payment", topup.out[-1].tx_hash, "c", 7, None, "feed", lines)
    store.settle(topup, topup.out[-1], entry, NOW_MS)
    seen = told()
    assert (seen["topup_balance_usd"], seen["topup_used_usd"], seen["topup_bought_usd"]) == (9, 91, 100)
    assert seen["topup_reading_timestamp_seconds"] == NOW_MS / 1000 + 3_600
    assert seen["topup_burn_usd_per_second"] == 0.0005
    assert seen["topup_empty_timestamp_seconds"] == NOW_MS / 1000 + 6 * 3_600
    assert [name for name, value in seen.items() if name.startswith("topup_refill_state") and value] == [
        'topup_refill_state{state="paid"}'
    ]
    assert seen["topup_refill_moved_timestamp_seconds"] == topup.moved_ms / 1000
    assert seen["topup_wallet_left_eth_total"] == 0.123456789012345678
    assert seen['topup_counted_usd{window="24h"}'] > 10


def test_what_is_booked_back_lowers_no_counter(store: SqliteStore, told: Told) -> None:
    """A payment whose block was replaced left the wallet, and came back."""
    topup = paid(store, operator())
    lines = (Line(WALLET, Commodity.USDC_E, -5_000_000), Line("expenses:gas", Commodity.USDC_E, 5_000_000))
    entry = Entry(NOW_MS, topup.id, "payment", topup.out[-1].tx_hash, "c", 7, None, "par", lines)
    topup = store.settle(topup, topup.out[-1], entry, NOW_MS)
    before = told()
    store.undone(topup, topup.out[-1], reversal(entry, NOW_MS), None, NOW_MS)
    after = told()
    left, returned = (f'topup_wallet_{way}_usd_total{{commodity="USDC.e"}}' for way in ("left", "returned"))
    assert (before[left], before[returned], after[left], after[returned]) == (5, 0, 5, 5)
    counters = [name for name in before if name.partition("{")[0].endswith("_total") and not name.startswith("process")]
    assert all(after[name] >= before[name] for name in counters)


def test_what_people_are_told_is_counted(store: SqliteStore, told: Told) -> None:
    """An alarm while it holds; a message while it waits, and once it will not be delivered, since when."""
    store.follow(ACCOUNT, "webhook", NOW_MS)
    store.alarm(ACCOUNT, MessageKind.RUNAWAY, NOW_MS, on=True)
    (message,) = store.due(ACCOUNT, "webhook", NOW_MS)
    seen = told()
    assert seen['topup_alarm{kind="runaway"}'] == 1
    assert seen['topup_messages_waiting{target="webhook"}'] == 1
    store.set_aside(message, "webhook", NOW_MS, "answered 400")
    store.alarm(ACCOUNT, MessageKind.RUNAWAY, NOW_MS, on=False)
    for message in store.due(ACCOUNT, "webhook", NOW_MS):
        store.accepted(message, "webhook", NOW_MS)
    seen = told()
    assert seen['topup_alarm{kind="runaway"}'] == 0
    assert seen['topup_messages_waiting{target="webhook"}'] == 0
    assert seen['topup_messages_set_aside{target="webhook"}'] == 1
    assert seen['topup_message_set_aside_timestamp_seconds{target="webhook"}'] == NOW_MS / 1000


def test_the_passes_are_counted_from_the_start_of_the_process(
    store: SqliteStore, told: Told, vitals: Vitals, clock: Machine
) -> None:
    """When the last good one ended, when the next is due, and whether one hangs."""
    assert store.head() is None
    ended_s = clock.wall / 1000
    vitals.ends(60, well=True)
    clock.go_on(60_000)
    vitals.ends(30, well=False)
    seen = told()
    assert (seen["topup_passes_total"], seen["topup_pass_failures_total"], seen["topup_stuck"]) == (2, 1, 0)
    assert seen["topup_last_pass_timestamp_seconds"] == ended_s
    assert seen["topup_next_pass_timestamp_seconds"] == ended_s + 90
    vitals.begins(0)
    clock.go_on(STUCK_MS)
    assert told()["topup_stuck"] == 1


def test_the_page_is_as_prometheus_wants_it(store: SqliteStore, written: Callable[[str], str]) -> None:
    """Promtool has nothing to say of names and units, either form is read, and no address stands anywhere."""
    topup = paid(store, operator())
    plain, strict = written(""), written("application/openmetrics-text; version=1.0.0")
    done = subprocess.run(
        [require("promtool"), "check", "metrics"], input=plain, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    families = openmetrics(strict)  # type: ignore[no-untyped-call]
    ours = {family.name for family in families if family.name.startswith("topup_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRICS}
    assert not re.search("0x|" + topup.wallet.hex(), plain, re.IGNORECASE)
