"""What has still to be told to whom? Messages, each stored with the fact that it tells of, and their deliveries.

A message is delivered to each target at least once, under one id. Those of a subject go in their order: while one of
them is due to a target, the later ones wait. A target that is new is told nothing old.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from topup.accounting.standing import Deliveries
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.json_document import read
from topup.domain.messages import OF_TARGETS, MessageKind
from topup.domain.notes import Note
from topup.ledger import database
from topup.ledger.notes import Notes
from topup.ports.outbox import Message

# What is older than this has been delivered, or set aside, long ago.
KEPT_MS: Final = 30 * DAY_MS
DELIVER: Final = "INSERT OR REPLACE INTO delivery VALUES (?,?,?,?,?,?)"
# How the outcome of a message begins that will not be delivered.
ASIDE: Final = "aside: "


class Outbox(Notes):
    """Messages and their deliveries."""

    def alarm(self, account: str, kind: MessageKind, at_ms: int, *, on: bool, about: str = "", **data: str) -> bool:
        """Raise or end an alarm, and tell of it where it was not so before; both in one transaction.

        `about` is which of several it holds for: one that comes and goes raises it once an hour at most.
        """
        subject = f"{kind.value}:{about}" if about else kind.value
        name = Note.ALARM.of(subject)
        if (self.told(account, name) == "1") is on:
            return False  # as at almost every event, which then takes no lock; only the ledger's writer changes it
        if on and about and at_ms - self.told_at(account, name) < HOUR_MS:
            return False
        with self._db_errors(), database.transaction(self._db):
            self._say(account, name, str(int(on)), at_ms)
            self._tell(account, subject, kind, at_ms, {"state": "firing" if on else "resolved", **data})
        return True

    def dead(self, account: str) -> dict[str, int]:
        """Return which targets take nothing, and since when that was said."""
        begin = Note.ALARM.of(f"{MessageKind.TARGET_DEAD.value}:")
        sql = "SELECT name, at_ms FROM control WHERE account = ? AND value = '1' AND substr(name, 1, ?) = ?"
        rows = self._all(sql, account, len(begin), begin)
        return {row["name"].removeprefix(begin): row["at_ms"] for row in rows}

    def tell(self, account: str, subject: str, kind: MessageKind, at_ms: int, **data: str) -> Message:
        """Store a message that is no part of anything else."""
        with self._db_errors(), database.transaction(self._db):
            number = self._tell(account, subject, kind, at_ms, data)
        return self._message(number)

    def digest(self, account: str, before: str, after: str, at_ms: int, data: Mapping[str, Any]) -> bool:
        """Tell of the days from `before` up to `after`, exclusive; False where others are the first yet untold."""
        kind = MessageKind.DIGEST
        with self._db_errors(), database.transaction(self._db):
            if self.told(account, Note.DIGEST) != before:
                return False
            self._say(account, Note.DIGEST, after, at_ms)
            self._tell(account, kind.value, kind, at_ms, data)
        return True

    def _tell(self, account: str, subject: str, kind: MessageKind, at_ms: int, data: Mapping[str, Any]) -> int:
        """Store a message within the transaction of what it tells of."""
        self._db.execute("DELETE FROM message WHERE at_ms < ?", (at_ms - KEPT_MS,))
        body = json.dumps({"account": account, "subject": subject, **self._hidden(data)})
        return self._insert("message", account=account, subject=subject, kind=kind.value, at_ms=at_ms, body=body)

    def _hidden(self, value: Any) -> Any:
        """Return the same with our secrets masked in every text of it."""
        match value:
            case str():
                return self.hide(value)
            case Mapping():
                return {name: self._hidden(inner) for name, inner in value.items()}
            case list():
                return [self._hidden(inner) for inner in value]
        return value

    def follow(self, account: str, target: str, now_ms: int) -> None:
        """Begin to tell a target that was not known, from here on."""
        name = Note.TARGET.of(target)
        if self.told(account, name) is None:
            newest = self._one("SELECT coalesce(max(id), 0) FROM message")[0]
            self.say(account, name, str(newest), now_ms)

    def due(self, account: str, target: str, now_ms: int) -> list[Message]:
        """Return what this target is to be told now, the most urgent first; of each subject the oldest alone."""
        since = int(self.told(account, Note.TARGET.of(target)) or 0)
        sql = (
            "SELECT min(message.id) FROM message LEFT JOIN delivery ON delivery.message = message.id"
            " AND delivery.target = ? WHERE message.account = ? AND message.id > ? AND delivery.ended_ms IS NULL"
            " GROUP BY message.subject"
        )
        # The first of its subject waits for its own time: what comes after it waits with it.
        firsts = [self._message(row[0]) for row in self._all(sql, target, account, since)]
        unfinished = self._all("SELECT message, next_ms FROM delivery WHERE target = ? AND ended_ms IS NULL", target)
        waits = {row["message"]: row["next_ms"] for row in unfinished}
        ready = [message for message in firsts if (waits.get(message.number) or 0) <= now_ms]
        return sorted(ready, key=lambda message: (-message.kind.tier, message.number))

    def tries(self, message: Message, target: str) -> int:
        """Return how often a message was sent to a target in vain."""
        rows = self._all("SELECT tries FROM delivery WHERE message = ? AND target = ?", message.number, target)
        return int(rows[0]["tries"]) if rows else 0

    def accepted(self, message: Message, target: str, at_ms: int) -> None:
        """Store that a target has taken a message."""
        self._deliver(message, target, self.tries(message, target) + 1, ended_ms=at_ms, outcome="delivered")

    def retry(self, message: Message, target: str, next_ms: int, why: str) -> None:
        """Store that a message could not be delivered, and when it is tried again."""
        self._deliver(message, target, self.tries(message, target) + 1, next_ms=next_ms, outcome=self.hide(why))

    def wait(self, message: Message, target: str, next_ms: int) -> None:
        """Store that a message may be told from then on; nobody has tried yet."""
        self._deliver(message, target, self.tries(message, target), next_ms=next_ms, outcome="waits for its hour")

    def pass_over(self, message: Message, target: str, at_ms: int) -> None:
        """Store that a target does not want to hear this."""
        self._deliver(message, target, 0, ended_ms=at_ms, outcome="not wanted")

    def set_aside(self, message: Message, target: str, at_ms: int, why: str, **told: str) -> None:
        """Store that a message will not be delivered any more, and why; and tell it to the others, once a day at most.

        Nothing follows where the message itself was about a target, or two that are dead would tell of each other.
        """
        account, name, kind = message.data["account"], Note.SET_ASIDE.of(target), MessageKind.SET_ASIDE
        last_ms = self.told_at(account, name)
        with self._db_errors(), database.transaction(self._db):
            tries, said = self.tries(message, target) + 1, f"{ASIDE}{self.hide(why)}"
            self._db.execute(DELIVER, (message.number, target, tries, None, at_ms, said))
            if message.kind in OF_TARGETS or at_ms - last_ms < DAY_MS:
                return
            counted = "SELECT count(*) FROM delivery WHERE target = ? AND ended_ms > ? AND outcome LIKE 'aside:%'"
            more = {"target": target, "message": message.kind.value, "messages": self._one(counted, target, last_ms)[0]}
            self._say(account, name, "1", at_ms)
            self._tell(account, f"{kind.value}:{target}", kind, at_ms, {**more, "detail": why, **told})

    def deliveries(self, account: str) -> list[dict[str, Any]]:
        """Return what became of the messages to each target, newest first."""
        sql = (
            "SELECT message.id, kind, message.at_ms, target, tries, next_ms, ended_ms, outcome FROM delivery"
            " JOIN message ON message.id = delivery.message WHERE account = ? ORDER BY message.id DESC"
        )
        return [dict(row) for row in self._all(sql, account)]

    def outstanding(self, account: str, target: str) -> Deliveries:
        """Return how many messages a target has still to be told, and how many it will not be."""
        since = int(self.told(account, Note.TARGET.of(target)) or 0)
        row = self._one(
            "SELECT count(*) FILTER (WHERE ended_ms IS NULL) AS waiting, count(*) FILTER (WHERE aside) AS aside,"
            " max(ended_ms) FILTER (WHERE aside) AS at FROM (SELECT ended_ms, substr(outcome, 1, ?) = ? AS aside"
            " FROM message LEFT JOIN delivery ON delivery.message = message.id AND delivery.target = ?"
            " WHERE message.account = ? AND message.id > ?)",
            *(len(ASIDE), ASIDE, target, account, since),
        )
        return Deliveries(row["waiting"], row["aside"], row["at"])

    def _deliver(
        self,
        message: Message,
        target: str,
        tries: int,
        *,
        outcome: str,
        next_ms: int | None = None,
        ended_ms: int | None = None,
    ) -> None:
        with self._db_errors(), database.transaction(self._db):
            self._db.execute(DELIVER, (message.number, target, tries, next_ms, ended_ms, outcome))

    def _message(self, number: int) -> Message:
        row = self._one("SELECT * FROM message WHERE id = ?", number)
        seed = self.told("", Note.SEED) or ""
        return Message(number, MessageKind(row["kind"]), row["at_ms"], read(row["body"].encode()), seed)
