"""Does a payment survive a crash at every committed step? Memory is lost, the ledger and the world are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.world.stage import Silence, payments
from topup.app.connections import Connections
from topup.app.settings import load
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.ledger.store import SqliteStore
from topup.payment.config import PurchaseOrder
from topup.sandbox.world import World

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


class Crash(BaseException):
    """The process ends here; nothing catches it."""


class Fragile:
    """A store that dies just after, or just before, its n-th write; the write itself is whole or absent."""

    def __init__(self, store: SqliteStore, at: int, *, before: bool) -> None:
        """Count down from `at`."""
        self._store, self._left, self._before = store, at, before
        self.died_in: str | None = None

    def __getattr__(self, name: str) -> Any:
        """Pass everything on, and die in the chosen write."""
        real = getattr(self._store, name)
        if name not in WRITES:
            return real

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._before:
                self.died_in = f"before {name}"
                raise Crash
            result = real(*arguments, **named)
            if self._left == 0:
                self.died_in = f"after {name}"
                raise Crash
            return result

        return wrapped


async def live(world: World, directory: Path, store: Any) -> TopUp:
    """Run passes on this store until the one top-up has ended."""
    loaded = load(world.environment() | {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": "/dev/null"})
    connections = Connections(loaded, store, Silence(), world.clock)
    try:
        for _ in range(200):
            rest = await connections.cycle.run(PurchaseOrder())
            if rest.topup is not None and rest.topup.state in TERMINAL:
                return rest.topup
            await world.clock.sleep(rest.next_s)
        raise AssertionError(f"no end in sight: {rest}")
    finally:
        await connections.close()


async def test_a_run_without_a_crash_makes_this_many_writes(world: World, tmp_path: Path) -> None:
    """The range of the crash points below covers a whole life; a new write makes this fail and the range grow."""
    real = SqliteStore.open_writer(tmp_path)
    fragile = Fragile(real, 10_000, before=False)
    ended = await live(world, tmp_path, fragile)
    assert ended.state is State.DONE
    assert 10_000 - fragile._left == LIFE


LIFE = 12


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("point", range(1, LIFE + 1))
async def test_a_crash_at_any_write_leads_to_exactly_one_payment(
    point: int, world: World, tmp_path: Path, *, before: bool
) -> None:
    """Whatever write the process dies in, the next start finishes one payment and the books match the wallet."""
    first = world.do(lambda: world.balance(world.wallet))
    real = SqliteStore.open_writer(tmp_path)
    fragile = Fragile(real, point, before=before)
    with pytest.raises(Crash):
        await live(world, tmp_path, fragile)
    again = SqliteStore.open_writer(tmp_path)
    open_one = again.open_topup("default")
    if open_one is None and again.latest("default", 1):
        ended = again.latest("default", 1)[0]  # it died after the last write of all
        again.close()
    else:
        ended = await live(world, tmp_path, again)
    assert ended.state is State.DONE, fragile.died_in
    assert payments(world) == 1, fragile.died_in
    reader = SqliteStore.open_reader(tmp_path)
    booked = sum(x.units for e in reader.entries("default") for x in e.lines if x.account == "assets:wallet")
    assert world.do(lambda: world.balance(world.wallet)) - first == booked, fragile.died_in
    assert len(reader.latest("default", 10)) == 1
