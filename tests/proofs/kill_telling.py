"""What is killed while somebody is told what happens? A daemon with a webhook, at each commit about a message.

A refill whose credits come late, so that there are two messages in an order, and a digest of the days before, which the
receiver refuses at first. The daemon dies just before or just after each commit that stores a message or what became
of it, and while the receiver has it, with the answer kept, lost, delayed or asked for twice. In the end every message
of the ledger has arrived, under its one id and in its order, and everything was paid once.
"""

from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

from tests.proofs.kill_worlds import House, Life, Role, held, settle
from tests.proofs.killed import ANY, TELL
from tests.world import proxy
from tests.world.served import Running
from topup.domain.messages import MessageKind
from topup.domain.moments import utc_day
from topup.domain.notes import Note
from topup.ledger.store import SqliteStore
from topup.ports.outbox import Message
from topup.sandbox.http import Request
from topup.wire.clock import SystemClock

ACCOUNT: Final = "default"
TARGET: Final = "webhook"
# What stores a message with what it tells of, besides a digest, and what begins to follow a target.
STORES: Final = frozenset({"store.move", "store.finish"})
BEGINS: Final = frozenset({"store.say"})


class Tells(Role):
    """A daemon that refills, and tells of it."""

    def prepare(self, house: House) -> None:
        """Leave a ledger whose digests end with the day before yesterday, and let the receiver refuse the next one."""
        now_ms = SystemClock().now_ms()
        with closing(SqliteStore.open_writer(house.state)) as store:
            store.say(ACCOUNT, Note.DIGEST, (utc_day(now_ms) - timedelta(days=1)).isoformat(), now_ms)
            store.follow(ACCOUNT, TARGET, now_ms)

        def refuses_the_first(request: Request) -> int:
            heard = [one for one in house.receiver.heard if b'"type":"digest"' in one.body]
            return 503 if heard == [request] else 204

        house.receiver.answers = refuses_the_first

    def over(self, house: House, watched: Running) -> bool:
        """Tell whether it has come to rest, and all there is to tell was told."""
        return held(watched) and _all_told(house)

    def rest(self, house: House, late: Iterable[proxy.Rule]) -> None:
        settle(house, late, lambda running: self.over(house, running))

    def steps(self, use: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those about messages; which one it is says the call itself, whatever the top-up does meanwhile."""
        found = []
        for one in use:
            if one["kind"] == TELL or one["call"] == "store.digest" or "-" in one["call"]:
                found.append(one | {"phase": ANY, "nth": 1})
            elif one["call"] in STORES or (one["call"] in BEGINS and one["phase"] == "start"):
                found.append(one)
        return found


def _messages(store: SqliteStore) -> list[Message]:
    return [store._message(row["id"]) for row in store._all("SELECT id FROM message ORDER BY id")]


def _all_told(house: House) -> bool:
    with closing(SqliteStore.open_reader(house.state)) as store:
        kinds = {message.kind for message in _messages(store)}
        return {MessageKind.DIGEST, MessageKind.REFILLED} <= kinds and not _waiting(store)


def _waiting(store: SqliteStore) -> int:
    sql = "SELECT count(*) FROM message WHERE id NOT IN (SELECT message FROM delivery WHERE ended_ms IS NOT NULL)"
    return int(store._one(sql)[0])


def untold(house: House) -> list[str]:
    """Hold the receiver against the ledger; return a sentence for each thing that is wrong."""
    found = []
    with closing(SqliteStore.open_reader(house.state)) as store:
        messages = _messages(store)
        if waiting := _waiting(store):
            found.append(f"{waiting} messages are not delivered")
        if aside := [one for one in store.deliveries(ACCOUNT) if one["outcome"] != "delivered"]:
            found.append(f"messages became something else than delivered: {aside}")
    arrived: dict[str, set[bytes]] = {}
    for request in house.receiver.taken:
        arrived.setdefault(request.headers["webhook-id"], set()).add(request.body)
    ids = {message.id: message for message in messages}
    if lost := [message.kind.value for name, message in ids.items() if name not in arrived]:
        found.append(f"messages that never arrived: {', '.join(lost)}")
    if strange := arrived.keys() - ids.keys():
        found.append(f"{len(strange)} messages arrived that the ledger does not hold")
    if changed := [name for name, bodies in arrived.items() if len(bodies) > 1]:
        found.append(f"{len(changed)} ids arrived with different bodies")
    for subject in {message.subject for message in messages}:
        order = [ids[name].number for name in arrived if name in ids and ids[name].subject == subject]
        if order != sorted(order):
            found.append(f"the messages of {subject} arrived in another order: {order}")
    kinds = [message.kind for message in messages]
    once = (MessageKind.DIGEST, MessageKind.REFILLED)
    return found + [f"{kinds.count(kind)} messages of the kind {kind}" for kind in once if kinds.count(kind) != 1]


LIFE: Final = Life(
    "told",
    "Somebody is told of credits that come late, of the refill, and of the days before.",
    settings={
        "TOPUP_POSTING__LATE_S": "1",
        "TOPUP_NOTIFY__DIGEST": "daily",
        "TOPUP_NOTIFY__DIGEST_HOUR": "0",
    },
    posting_delay_ms=6000,
    early=True,
    role=Tells(),
    told=True,
)
