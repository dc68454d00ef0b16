"""Is time that a process did not live through told from a clock that is slow, a chain that halts, and a set clock?"""

from hypothesis import given
from hypothesis import strategies as st

from topup.domain.lost_time import Lived

MINUTE_MS = 60_000
YOUNG_S = 1200
HOURS = st.integers(0, 10 * 3_600_000)


def begun(mono_ms: int = 5, wall_ms: int = 1_000_000, chain_ms: int | None = None) -> Lived:
    """A process of so much of a history."""
    one = Lived(YOUNG_S)
    one.begin(mono_ms, wall_ms)
    if chain_ms is not None:
        one.chain(mono_ms, chain_ms)
    return one


def test_a_clock_that_goes_further_is_a_leap_once() -> None:
    """Two minutes beyond the monotonic clock count, and count once; a millisecond less does not.

    What is held against that clock is the pass, so that two leaps within one are one together. However short the wait,
    a leap is more than a minute: a tenth of a short wait would be any adjustment of a clock.
    """
    one = begun()
    assert one.wall(5 + 1000, 1_000_000 + 1000 + 2 * MINUTE_MS - 1) is None
    assert one.wall(5 + 1000, 1_000_000 + 1000 + 2 * MINUTE_MS) == 2 * MINUTE_MS
    assert one.wall(5 + 2000, 1_000_000 + 2000 + 2 * MINUTE_MS) is None
    one = begun()
    assert (one.wall(5, 1_000_000 + 70_000), one.wall(5, 1_000_000 + 140_000)) == (None, 140_000)
    one = Lived(60)
    one.begin(0, 0)
    assert (one.wall(0, MINUTE_MS), one.wall(0, MINUTE_MS + 1)) == (None, MINUTE_MS + 1)


@given(halted_ms=HOURS)
def test_a_chain_that_catches_up_with_this_machine_has_leapt_over_nothing(halted_ms: int) -> None:
    """However long it stood still, before this process first asked it and since: it is back at this machine's time."""
    one = begun(chain_ms=1_000_000 - halted_ms)
    one.begin(5 + halted_ms, 1_000_000 + halted_ms)
    assert one.chain(5 + halted_ms, 1_000_000) is None
    assert one.chain(5 + halted_ms, 1_000_000 + halted_ms) is None


@given(lost_ms=st.integers(2 * MINUTE_MS, 10**9), ran_ms=HOURS)
def test_a_chain_beyond_both_clocks_is_a_leap_once(lost_ms: int, ran_ms: int) -> None:
    """The machine's clock was put back together with it: the chain tells by how much, and once."""
    one = begun(chain_ms=1_000_000)
    assert one.chain(5 + ran_ms, 1_000_000 + ran_ms + lost_ms) == lost_ms
    one.begin(5 + ran_ms, 1_000_000 + ran_ms)
    assert one.chain(6 + ran_ms, 1_000_001 + ran_ms + lost_ms) is None


@given(behind_ms=st.integers(0, 10**9), steps=st.lists(st.integers(0, 600_000), max_size=20))
def test_a_machine_whose_clock_is_behind_is_not_young_for_ever(behind_ms: int, steps: list[int]) -> None:
    """The chain is always ahead of it: told once at most, whatever a lagging provider says in between."""
    one, mono, told = begun(), 5, 0
    for step in steps:
        mono += step
        one.begin(mono, 1_000_000 + mono - 5)
        told += one.chain(mono, 1_000_000 + mono - 5 + behind_ms) is not None
        told += one.chain(mono, 1_000_000 + mono - 5) is not None
    assert told <= 1


@given(back_ms=HOURS)
def test_a_clock_that_is_set_back_is_no_leap(back_ms: int) -> None:
    """Time that is lived twice is lived."""
    assert begun().wall(5, 1_000_000 - back_ms) is None
