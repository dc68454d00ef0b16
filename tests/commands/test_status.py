"""Does `topup status` say at a glance whether the account is funded, and what is wrong where it is not?"""

import signal
from contextlib import closing

import pytest

from tests.world.served import TOPUP, Served
from tests.world.terminal import Terminal
from topup.domain.moments import span
from topup.ledger.store import SqliteStore


def codes(place: Served, **changes: str | None) -> set[str]:
    return {trouble["code"] for trouble in place.document("status", **changes)["troubles"]}


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_life_at_a_glance(place: Served) -> None:
    """Funded while a daemon runs, and since when; what left the wallet stands apart from what counts against a cap."""
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    told = place.document("status")
    assert (told["funded"], told["troubles"]) == ("yes", [])
    assert told["daemon"]["pid"] == daemon.process.pid
    assert told["daemon"]["since_ms"] <= told["read_ms"]
    place.low()
    daemon.await_event("top_up_done")
    told = place.document("status")
    assert told["left_wallet_24h"].keys() == {"ETH"}
    assert told["spent_24h_usd"] == "10.55"
    shown = place.run("status").stdout.splitlines()
    assert shown[0] == "account   default: FUNDED"
    assert any(line.startswith("daemon    running for ") for line in shown)
    assert daemon.stop() == 0
    assert codes(place) == {"not_running"}
    assert "to do: start `topup run`" in place.run("status").stdout


@pytest.mark.machine_time
def test_what_is_wrong_is_said_with_what_to_do(place: Served) -> None:
    """Each from the ledger alone, by a word that stays; nothing is wrong that the settings ask for."""
    place.run("once")
    place.low()
    place.run("once")
    place.run("pause")
    assert codes(place) == {"not_running", "paused"}
    assert codes(place, mode="observe") == {"not_running", "paused", "observe_only"}
    assert place.document("status")["funded"] == "low"
    with closing(SqliteStore.open_reader(place.state)) as store:
        store.say("default", "rails", "mpp", 1)
        store.say("default", "gone:coinbase", "1", 1)
    assert codes(place) == {"not_running", "paused", "endpoint_gone", "rail_changed"}
    assert codes(place, rails__use="coinbase") == {"not_running", "paused", "endpoint_gone"}
    assert codes(place, api__url="https://openrouter.ai/api/v1", rails__use="coinbase") >= {"rail_closed"}
    assert codes(place, watch__poll_slowest_s="1", watch__poll_fastest_s="1", watch__staleness_s="0") >= {"paused"}


@pytest.mark.machine_time
def test_it_is_looked_at_again_until_a_person_stops_it(place: Served) -> None:
    """On a terminal; Ctrl-C is no failure."""
    place.run("once")
    looking = Terminal([*TOPUP, "status", "--watch"], place.environment(TERM="xterm"))
    for _ in range(2):
        looking.waits_for("FUNDED")
    looking.process.send_signal(signal.SIGINT)
    assert looking.ends() == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (0, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "119 minutes"),
        (7_200, "2 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
        (10**9, "11574 days"),
    ],
)
def test_a_span_in_words(seconds: int, words: str) -> None:
    """In the largest unit of which there are two, rounded down."""
    assert span(seconds) == words
