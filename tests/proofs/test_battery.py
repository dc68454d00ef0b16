"""Does the field's retry-safety battery find topup safe, and would it notice if it were not?"""

import copy
from typing import Any

import pytest

from tests.battery import BENDS, CLEAN, MODES, right, whole

# What is safe today stays so: the tool's own six modes, and ours for the four that it cannot reach.
SAFE = {("tool", mode) for mode in MODES if mode not in BENDS} | {("ours", mode) for mode in BENDS}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """One run of the whole battery."""
    return whole()


@pytest.mark.slow
@pytest.mark.machine_time
def test_no_mode_settles_twice(told: dict[str, Any]) -> None:
    """The tool's control holds, a plain purchase settles once, every other at most once, by the chain's own logs."""
    assert right(told), told
    rows = {(row["by"], row["mode"]): row for row in told["modes"]}
    assert set(rows) == {("tool", mode) for mode in MODES} | {("ours", mode) for mode in BENDS}
    assert {key for key, row in rows.items() if row["verdict"] == "safe"} >= SAFE
    # What the tool cannot see is not claimed: those four are its own word, and ours stand beside them.
    assert {rows["tool", mode]["verdict"] for mode in BENDS} == {"not_exercised"}
    assert all(rows["ours", mode]["exercised"] and rows["ours", mode]["settlements"] == 1 for mode in BENDS)
    assert rows["tool", CLEAN]["exit_codes"] == [0]


@pytest.mark.slow
@pytest.mark.machine_time
def test_the_chain_shows_who_pays_twice(told: dict[str, Any]) -> None:
    """The same field catches a client that signs anew when it is told of no success: the count is no constant."""
    rows = {row["mode"]: row for row in told["official_client"]}
    assert set(rows) == set(MODES)
    assert rows[CLEAN]["settlements"] == 1
    assert any(row["verdict"] == "double_pay" and row["settlements"] > 1 for row in rows.values())


@pytest.mark.parametrize("harm", ["control", "clean", "nothing bought", "twice"])
def test_a_bad_run_is_no_success(harm: str) -> None:
    """The exit code follows the control, the plain purchase and every count."""
    good: dict[str, Any] = {
        "selftest": True,
        "modes": [{"mode": mode, "by": "tool", "settlements": 1} for mode in MODES],
    }
    assert right(good)
    bad = copy.deepcopy(good)
    match harm:
        case "control":
            bad["selftest"] = False
        case "clean":
            bad["modes"][-1]["settlements"] = 0
        case "nothing bought":
            bad["modes"] = []
        case _:
            bad["modes"][0]["settlements"] = 2
    assert not right(bad)
