"""Does a payment survive a crash at every committed step? Memory is lost, the ledger and the world are not."""

from typing import Any

import pytest

from tests.world.house import Killed
from tests.world.stage import Stage, Start
from topup.domain.lifecycle import State

WRITES = (
    "begin",
    "ask",
    "answered",
    "proven",
    "reserve",
    "signed",
    "intend",
    "delivered",
    "included",
    "move",
    "settle",
    "finish",
)
LIFE = 12


def dies(stage: Stage, point: int, *, before: bool) -> list[str]:
    """Let the process die just after, or just before, a write, which is whole or absent; return the writes begun."""
    begun: list[str] = []

    def fragile(name: str) -> Any:
        write = getattr(stage.store, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            begun.append(name)
            if len(begun) == point and before:
                raise Killed
            result = write(*given, **named)
            if len(begun) == point:
                raise Killed
            return result

        return wrapped

    for name in WRITES:
        setattr(stage.store, name, fragile(name))
    return begun


async def test_a_run_without_a_crash_makes_this_many_writes(stage: Stage) -> None:
    """The range of the crash points below covers a whole life; a new write makes this fail and the range grow."""
    begun = dies(stage, 0, before=False)
    await stage.until(State.DONE)
    assert len(begun) == LIFE


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("point", range(1, LIFE + 1))
async def test_a_crash_at_any_write_leads_to_exactly_one_payment(point: int, start: Start, *, before: bool) -> None:
    """Whatever write the process dies in, the next start finishes one payment and the books match the wallet."""
    stage = start()
    begun = dies(stage, point, before=before)
    with pytest.raises(Killed):
        await stage.until(State.DONE)
    assert len(begun) == point
    await stage.close()
    stage = start()
    await stage.paid_once()
    assert len(stage.store.latest("default", 10)) == 1
