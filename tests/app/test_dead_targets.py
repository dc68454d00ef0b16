"""Does a person hear of a target that takes nothing any more, by those that do, and without a storm?"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.app.test_telling import ACCOUNT, Pile
from tests.world.ledger import MEMORY
from tests.world.stage import Kept, Machine
from topup.app.delivery import PATIENCE_MS, Courier, Listener
from topup.app.settings import load
from topup.app.troubles import troubles
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.messages import MessageKind, Tier
from topup.ledger.store import SqliteStore

DEAD, ASIDE = MessageKind.TARGET_DEAD.value, MessageKind.SET_ASIDE.value


@pytest.fixture
def ledger() -> Iterator[SqliteStore]:
    with TemporaryDirectory(dir=MEMORY) as directory, closing(SqliteStore.open_writer(Path(directory))) as store:
        yield store


class Street:
    """Targets by name, whoever brings them their messages, and time."""

    def __init__(self, ledger: SqliteStore, *names: str) -> None:
        self.ledger, self.clock, self.sink = ledger, Machine(), Kept()
        self.piles = {name: Pile() for name in names}
        listeners = {name: Listener(pile, Tier.WARNING) for name, pile in self.piles.items()}
        self.courier = Courier(ledger, listeners, ACCOUNT, self.clock, self.sink)
        self.courier.follow()

    def happens(self, subject: str = "t1") -> None:
        self.ledger.tell(ACCOUNT, subject, MessageKind.FAILED, self.clock.wall)

    async def hours(self, count: int) -> None:
        """Look four times an hour for so long."""
        for _ in range(count * 4):
            await self.courier.deliver()
            self.clock.go_on(HOUR_MS // 4)

    def heard(self, name: str, kind: str) -> list[dict[str, Any]]:
        return [told["data"] for _, told in self.piles[name].told if told["type"] == kind]

    def states(self, name: str) -> list[tuple[str, str]]:
        return [(data["target"], data["state"]) for data in self.heard(name, DEAD)]

    def stored(self) -> int:
        return int(self.ledger._one("SELECT count(*) FROM message")[0])

    def logged(self, name: str) -> int:
        return [event.name() for event in self.sink.told].count(name)


async def test_the_others_are_told_that_a_target_is_dead_and_that_it_lives_again(ledger: SqliteStore) -> None:
    """Once each, with what is wrong and what to do, however many messages wait; never the one that it is about."""
    street = Street(ledger, "webhook", "email")
    street.piles["webhook"].away = "no route"
    for subject in ("t1", "t2", "t3"):
        street.happens(subject)
    await street.hours(8)
    assert street.states("email") == [("webhook", "firing")]
    (firing,) = street.heard("email", DEAD)
    assert (firing["reason"], firing["detail"]) == ("target_failed", "no route")
    assert "topup notify test" in firing["remedy"]
    assert street.logged("target_failed") == 1
    street.piles["webhook"].away = ""
    await street.hours(2)
    assert street.states("email") == [("webhook", "firing"), ("webhook", "resolved")]
    assert street.states("webhook") == []
    assert len(street.piles["webhook"].told) == 3


async def test_what_a_target_will_never_get_is_told_to_the_others_once_a_day(ledger: SqliteStore) -> None:
    """Which kind it was, and how many since the last time, not one for each: here a receiver that refuses for good."""
    street = Street(ledger, "webhook", "email")
    street.piles["webhook"].away, street.piles["webhook"].final = "answered 410", True
    for day in range(2):
        for subject in range(20):
            street.happens(f"t{day}-{subject}")
            await street.courier.deliver()
            street.clock.go_on(1000)
        await street.hours(24)
    told = [(one["target"], one["message"], one["messages"]) for one in street.heard("email", ASIDE)]
    assert told == [("webhook", "topup.failed", 1), ("webhook", "topup.failed", 20)]
    assert street.heard("email", ASIDE)[0]["detail"] == "answered 410"
    assert street.logged("message_set_aside") == 40
    assert street.heard("webhook", ASIDE) == []


async def test_targets_that_are_all_dead_tell_of_each_other_once(ledger: SqliteStore) -> None:
    """However long it lasts: what tells of a target is set aside without another message, and nothing grows."""
    street = Street(ledger, "webhook", "email", "apprise")
    for pile in street.piles.values():
        pile.away = "no route"
    street.happens()
    await street.hours(24)
    grown = street.stored()
    assert grown == 1 + 3
    await street.hours(2 * PATIENCE_MS // HOUR_MS)
    assert street.stored() <= grown + 3  # what happened was set aside once for each
    settled = street.stored()
    await street.hours(2 * DAY_MS // HOUR_MS)
    assert street.stored() == settled


def test_status_names_a_target_that_is_dead_while_it_is_set(ledger: SqliteStore) -> None:
    """For whoever has only this one. One that is no longer set is nobody's trouble."""
    for name in ("webhook", "email"):
        ledger.alarm(ACCOUNT, MessageKind.TARGET_DEAD, DAY_MS, on=True, about=name, target=name)
    ledger.alarm(ACCOUNT, MessageKind.LOW, DAY_MS, on=True)
    own = load({"TOPUP_CONFIG": os.devnull, "TOPUP_NOTIFY__WEBHOOK_URL": "http://127.0.0.1:1"})
    wrong = troubles(ledger, own, None, None, running=True, now_ms=DAY_MS + HOUR_MS)
    said = [one.detail for one in wrong if one.code == "target_dead"]
    assert said == ["webhook takes no messages, said 60 minutes ago"]


async def test_one_target_alone_is_told_nothing_of_itself(ledger: SqliteStore) -> None:
    """Nobody else could be told; the log says it, and when it lives again it gets what was meant for it alone."""
    street = Street(ledger, "webhook")
    street.piles["webhook"].away = "no route"
    street.happens()
    await street.hours(4)
    street.piles["webhook"].away = ""
    await street.hours(2)
    assert street.logged("target_failed") == 1
    assert [told["type"] for _, told in street.piles["webhook"].told] == ["topup.failed"]
