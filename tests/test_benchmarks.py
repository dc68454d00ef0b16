"""Do the benchmarks still run and say what they promise? One round; never a timing, only counts that are exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def told() -> Any:
    """The document of one round on the embedded chain."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOPUP_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.path", "--json", "--rounds", "1", "--embedded"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        env=kept,
        check=False,
    )
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


@pytest.mark.slow
def test_a_payment_takes_four_round_trips_from_decision_to_accepted(told: Any) -> None:
    """One for the charge, one for all reads, one for the simulation, one to send; the delay changes nothing."""
    for path in told["path"]:
        assert (path["topup"]["api_requests"], path["topup"]["rpc_requests"]) == (1, 3)
        assert path["topup"]["rpc_requests"] < path["plain_web3"]["rpc_requests"]


@pytest.mark.slow
def test_each_step_to_the_sent_payment_is_committed(told: Any) -> None:
    """Request, answer, proof, reserved nonce, signed bytes and the intent to send: six commits after the decision's."""
    for path in told["path"]:
        assert path["topup"]["commits"] == 6


@pytest.mark.slow
def test_an_idle_cycle_asks_one_question_and_writes_once(told: Any) -> None:
    """It reads the credits, keeps the reading, and leaves the chain alone."""
    for path in told["path"]:
        idle = path["idle_cycle"]
        assert (idle["api_requests"], idle["rpc_requests"], idle["commits"]) == (1, 0, 1)


@pytest.mark.slow
def test_the_quick_commands_load_nothing_of_the_chain(told: Any) -> None:
    """Neither `--help` nor `status` nor `config show` loads web3, an eth library, or an HTTP client."""
    for name in ("--help", "status", "config show"):
        assert told["commands"][name]["heavy_packages"] == [], name


@pytest.mark.slow
def test_the_daemons_memory_is_told_in_each_of_its_states(told: Any) -> None:
    """Observing, live before the first payment, and after it; paying loads web3 and has to show."""
    memory = told["memory"]
    assert set(memory) == {"observe_idle_mib", "live_idle_mib", "live_after_payment_mib"}
    if sys.platform == "linux":
        assert Decimal(memory["live_idle_mib"]) < Decimal(memory["live_after_payment_mib"])
