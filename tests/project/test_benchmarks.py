"""Do the benchmarks still run and say what they promise? One round; never a timing, only counts that are exact."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from benchmarks import rails
from benchmarks.faults import lines, rows, sound
from tests import tools
from tests.tools import HANGS_S, ROOT, outside
from tests.world.grounds import of_x402
from tests.world.rails_faults import HOUR_MS, Play
from topup.domain.lifecycle import State


def ran(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS_S, cwd=ROOT, env=outside(), check=False
    )


@pytest.fixture(scope="module")
def told() -> Any:
    """The document of one round on the embedded chain."""
    done = ran("benchmarks.path", "--json", "--rounds", "1", "--embedded")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_run_says_what_it_measured(told: Any) -> None:
    """One document, schema 1, both delays, every time a decimal number written as text."""
    assert told["schema"] == 1
    assert told["rounds"] == 1
    assert [path["rtt_ms"] for path in told["path"]] == [0, 50]
    for path in told["path"]:
        for name in ("topup", "plain_web3"):
            for figure in ("median_ms", "min_ms", "max_ms", "cpu_ms", "total_cpu_ms"):
                assert Decimal(path[name][figure]) > 0, (name, figure)
        assert Decimal(path["plain_over_topup"]) > 0
        assert Decimal(path["topup"]["first_ms"]) > 0
    assert [told["commands"][name]["heavy_packages"] for name in ("--help", "status", "config show")] == [[], [], []]
    memory = told["memory"]
    assert set(memory) == {"observe_idle_mib", "live_idle_mib", "live_after_payment_mib"}
    if sys.platform == "linux":  # paying loads web3
        assert Decimal(memory["live_idle_mib"]) < Decimal(memory["live_after_payment_mib"])


@pytest.mark.slow
def test_a_payment_takes_four_round_trips_from_decision_to_accepted(told: Any) -> None:
    """For the charge, all reads, the simulation, the send, with six commits; nothing is loaded after the decision."""
    for path in told["path"]:
        assert (path["topup"]["api_requests"], path["topup"]["rpc_requests"]) == (1, 3)
        assert path["topup"]["rpc_requests"] < path["plain_web3"]["rpc_requests"]
        assert (path["topup"]["first_loads"], path["topup"]["commits"]) == (0, 6)
        idle = path["idle_cycle"]
        assert (idle["api_requests"], idle["rpc_requests"], idle["commits"]) == (1, 0, 1)


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_faults_says_what_became_of_the_payments() -> None:
    """A row a story with topup's end and the recipe's, the matrix and the soak; as a document and as lines."""
    tiny = ("--kill-sample", "-1", "--soak-steps", "200")
    done = ran("benchmarks.faults", "--json", "--stories", "response_lost", "power_loss", *tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"schema", "stories", "kill_matrix", "soak"}
    assert told["schema"] == 1
    lost, power = told["stories"]
    for row in told["stories"]:
        assert {"story", "number", "says", "survived", "payments", "lost", "halted", "recovered_in_s"} <= set(row)
        assert (row["survived"], row["payments"], row["lost"], row["wrong"]) == (True, 1, False, [])
    assert lost["recovered_in_s"] > 0
    assert (power["halted"], power["recovered_in_s"], power["recipe"]) == (True, None, None)
    assert {row["rail"] for row in told["stories"]} == {"coinbase"}
    figures = {"survived", "payments", "astray", "leaked", "believed", "lost", "recovered_in_s", "detail"}
    assert set(lost["recipe"]) == figures
    # What the documentation shows pays again when an answer is lost; that is what all this is for.
    assert (lost["recipe"]["survived"], lost["recipe"]["payments"], lost["recipe"]["lost"]) == (False, 2, True)
    assert told["kill_matrix"] == {"cells": None, "survived": None, "reason": "not asked for"}
    assert {"seed", "steps", "double_payments", "lost", "broken"} == set(told["soak"])
    assert told["soak"]["steps"] >= 200
    assert (told["soak"]["double_payments"], told["soak"]["lost"], told["soak"]["broken"]) == (0, 0, 0)
    shown = list(lines(told))
    (row,) = [line for line in shown if "response_lost" in line]
    assert (row.split()[:4], "NO" in row.rpartition("|")[2]) == (["1", "response_lost", "|", "yes"], True)
    assert any(line.startswith("soak: seed 1") for line in shown)


@pytest.mark.slow
def test_a_rail_is_played_alone() -> None:
    """Its rows, with what it did and what the recipe did, each figure from the chain; no matrix and no soak."""
    done = ran("benchmarks.faults", "--json", "--rail", "x402", "--stories", "other-recipient", "settled-reset")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    stranger, lost = told["stories"]
    for row in told["stories"]:
        assert (row["rail"], row["survived"], row["payments"], row["lost"]) == ("x402", True, 1, False)
    assert (stranger["recipe"]["survived"], stranger["recipe"]["astray"]) == (False, 1)
    assert (lost["recipe"]["payments"], lost["recipe"]["lost"]) == (3, True)
    assert told["kill_matrix"]["reason"] == "not asked for"
    assert told["soak"]["steps"] == 0
    assert "2 of 2  x402  settled-reset: survived yes, payments 1" in done.stderr


def test_a_rail_that_cannot_run_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anvil each row of mpp is named with the reason, and nothing was survived or lost."""
    monkeypatch.setattr(tools, "find", lambda _: None)
    skipped = list(rows(["mpp"], ["splits"], lambda _: None))
    (row,) = skipped
    assert (row["rail"], row["story"], row["survived"], row["recipe"]) == ("mpp", "splits", None, None)
    assert "anvil is missing" in row["reason"]
    told = {"stories": skipped, "kill_matrix": {"cells": None, "survived": None, "reason": ""}}
    soak = {"seed": 1, "steps": 0, "double_payments": 0, "lost": 0, "broken": 0}
    assert sound(told | {"soak": soak})
    assert any("skipped: anvil is missing" in line for line in lines(told | {"soak": soak}))


def test_a_second_payment_is_counted() -> None:
    """Whoever buys twice for one need, rightly or not, is shown with two payments and has not survived."""

    async def twice(play: Play) -> None:
        account = play.seller.account
        for _ in range(2):
            known = play.stage.store.latest("default", 1)
            await play.until(State.DONE, after=known[0].id if known else "")
            # As if nothing had come of it, and without a need that was told.
            play.world.do(lambda: account.set_usage(account.total_credits - 1))
            play.pass_time(HOUR_MS)

    plays = lambda folder, seen: rails._played(of_x402("plain"), folder, seen(twice), two=False)  # noqa: E731
    played = rails.told(rails.Row("x402", "twice", "", plays))
    assert (played["payments"], played["survived"]) == (2, False)


def test_each_hostile_answer_of_a_rail_has_its_row() -> None:
    """What the issue of living rails names is played on both rails whose seller carries the payment."""
    for rail, own in (("x402", {"double-amount", "no-time"}), ("mpp", {"double-amount", "expired", "splits"})):
        named = {row.name for row in rails.rows(rail)}
        assert own <= named
        assert {"other-recipient", "other-chain", "other-token", "lying-description", "payment-redirect-307"} <= named
        assert {f"settled-{end}" for end in ("payment-required-402", "forbidden-403", "server-error-500")} <= named
        assert {"death-while-settling", "held-back-one-provider", "held-back-two-providers"} <= named


def test_a_story_that_there_is_not_is_named() -> None:
    """Exit code 2, and the names there are."""
    done = ran("benchmarks.faults", "--stories", "no_such_story")
    assert done.returncode == 2
    assert "no_such_story" in done.stderr
    assert "response_lost" in done.stderr


def test_a_row_that_was_not_survived_is_told_and_fails() -> None:
    """One story, one cell or one step of the soak that went wrong makes the run fail."""
    right: dict[str, Any] = {
        "stories": [{"survived": True}],
        "kill_matrix": {"cells": 3, "survived": 3},
        "soak": {"double_payments": 0, "lost": 0, "broken": 0},
    }
    assert sound(right)
    assert not sound(right | {"stories": [{"survived": True}, {"survived": False}]})
    assert not sound(right | {"kill_matrix": {"cells": 3, "survived": 2}})
    assert not sound(right | {"soak": {"double_payments": 1, "lost": 0}})
    assert not sound(right | {"soak": {"double_payments": 0, "lost": 1}})
    assert sound(right | {"kill_matrix": {"cells": None, "survived": None}})
