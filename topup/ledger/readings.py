"""What has the account shown? Readings of its credits, believed or not, kept sparser with age."""

from topup.domain.credits import DAY_MS, HOUR_MS, Reading, Unknown
from topup.ledger import rows
from topup.ledger.lock import Ledger

# What becomes of readings: beyond this age (first) one is kept in so much time (second), both in milliseconds. Who
# reads how far back: the burn rate and a lower total's acceptance one day, a sound baseline two hours; all readings of
# two days stand. The usual pace, by the hour, sixteen days: with one in five minutes an hour shows three quarters of
# its pace at least. What is older is read by people.
KEPT = ((2 * DAY_MS, 300_000), (17 * DAY_MS, HOUR_MS), (90 * DAY_MS, DAY_MS))
# Of so many readings those that go are deleted at a time: a tenth of a second.
THINNED_AT_ONCE = 5_000
# Of those believed the last of a span stays. Of those not believed the first for each reason, because what lasts is
# measured from its first; since the newest believed one (second value) apart from before it. That something other than
# 0/0 was seen is never forgotten.
_THIN = """
DELETE FROM reading WHERE id IN (SELECT id FROM (
  SELECT id, row_number() OVER (
    PARTITION BY at_ms / ?, at_ms >= ?, doubt, coalesce(total_credits != '0' OR total_usage != '0', 0)
    ORDER BY at_ms {0}, id {0}
  ) AS place FROM reading WHERE account = ? AND at_ms >= ? AND at_ms < ? AND doubt {1}
) WHERE place > 1)"""
THIN = {True: _THIN.format("DESC", "IS NULL"), False: _THIN.format("ASC", "IS NOT NULL")}


class Readings(Ledger):
    """The readings of each account."""

    def record_reading(self, account: str, reading: Reading | Unknown) -> None:
        """Keep what the account showed."""
        said = reading if isinstance(reading, Reading) else reading.said
        with self._write(reading.at_ms):
            self._insert(
                "reading",
                account=account,
                at_ms=reading.at_ms,
                total_credits=str(said.total_credits) if said else None,
                total_usage=str(said.total_usage) if said else None,
                doubt=None if isinstance(reading, Reading) else reading.doubt.value,
                detail="" if isinstance(reading, Reading) else self.hide(reading.detail),
            )

    def readings(self, account: str, since_ms: int) -> list[Reading]:
        """Return believed readings since then, oldest first."""
        sql = "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NULL ORDER BY at_ms, id"
        return [rows.reading(row) for row in self._all(sql, account, since_ms)]

    def last_reading(self, account: str) -> Reading | None:
        """Return the newest believed reading."""
        sql = "SELECT * FROM reading WHERE account = ? AND doubt IS NULL ORDER BY at_ms DESC, id DESC LIMIT 1"
        return next((rows.reading(row) for row in self._all(sql, account)), None)

    def doubted(self, account: str, since_ms: int) -> list[Unknown]:
        """Return readings that were not believed since then, oldest first."""
        sql = "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NOT NULL ORDER BY at_ms, id"
        return [rows.unknown(row) for row in self._all(sql, account, since_ms)]

    def ever_non_zero(self, account: str) -> bool:
        """Tell whether any reading, believed or not, showed something other than 0/0."""
        sql = "SELECT 1 FROM reading WHERE account = ? AND (total_credits != '0' OR total_usage != '0') LIMIT 1"
        return bool(self._all(sql, account))

    def thin_readings(self, account: str, now_ms: int) -> bool:
        """Thin out old readings, see `KEPT`, by no more than `THINNED_AT_ONCE`; tell whether more are waiting.

        A mark for each span says how far it has come, so that nothing is looked at twice.
        """
        last = self.last_reading(account)
        newest = last.at_ms if last is not None else 0
        room = THINNED_AT_ONCE
        # A burn rate is that of the time before the newest believed reading, however old that is.
        for believed, reference in ((True, newest), (False, now_ms)):
            until = reference
            for age_ms, every_ms in KEPT:
                key = (account, believed, every_ms)
                marks = self._all(
                    "SELECT until_ms FROM thinned WHERE account = ? AND believed = ? AND every_ms = ?", *key
                )
                start = marks[0]["until_ms"] if marks else 0
                end = min(until, reference - age_ms) // every_ms * every_ms
                rows, part = self._thinnable(account, start, end, room, believed=believed, every_ms=every_ms)
                if rows:
                    with self._write(now_ms) as db:
                        where = (every_ms, newest, account, start, part)
                        db.execute(THIN[believed], where)
                        db.execute("INSERT OR REPLACE INTO thinned VALUES (?,?,?,?)", (*key, part))
                if part < end:
                    return True
                room -= rows
                until = end  # a span is thinned further only where the one before it is done
        return False

    def _thinnable(
        self, account: str, start: int, end: int, room: int, *, believed: bool, every_ms: int
    ) -> tuple[int, int]:
        """Return how many readings stand from `start` to the end of a part, and that end: at most `room`, or one span.

        A part that holds nothing to look at ends at `end`.
        """
        doubt = "IS NULL" if believed else "IS NOT NULL"
        rows = f"FROM reading WHERE account = ? AND at_ms >= ? AND at_ms < ? AND doubt {doubt}"
        beyond = self._all(f"SELECT at_ms {rows} ORDER BY at_ms LIMIT 1 OFFSET ?", account, start, end, max(room, 1))
        part = end
        if beyond:
            part = beyond[0]["at_ms"] // every_ms * every_ms
            (first,) = self._one(f"SELECT min(at_ms) {rows}", account, start, end)
            part = max(part, first // every_ms * every_ms + every_ms)
        (count,) = self._one(f"SELECT count(*) {rows}", account, start, part)
        return int(count), part
