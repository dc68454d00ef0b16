"""What does SQLite need to know? The `Store` port over one file: WAL, synchronous=FULL, one writer.

What is kept has its rooms: classes over `lock.Ledger`, each built on what it needs, of which the store is made.
"""

from dataclasses import dataclass
from typing import Any

from topup.domain.lifecycle import TopUp
from topup.ledger.readings import Readings
from topup.ledger.recovered import Recovered
from topup.ledger.spending import Spending
from topup.ledger.usage import UsageDays
from topup.ledger.wishes import Wishes


@dataclass(frozen=True)
class Life:
    """Everything that is stored of one top-up; rows as they stand, without the signed bytes. Times in ms."""

    topup: TopUp
    moves: list[dict[str, Any]]
    charges: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    entries: list[dict[str, Any]]
    adopted: list[dict[str, Any]]


class SqliteStore(Readings, Recovered, Wishes, Spending, UsageDays):
    """The ledger in one SQLite file. Use `open_writer` or `open_reader`."""

    def begun(self, account: str) -> bool:
        """Tell whether anything was read of an account, or bought for it, before."""
        return self.last_reading(account) is not None or bool(self.latest(account, 1))

    def life(self, topup_id: str) -> Life:
        """Return all that the ledger holds of one top-up but the signed bytes; a KeyError where there is none."""
        topup = self.topup(topup_id)
        mine = "WHERE topup = ? ORDER BY"

        def rows(sql: str, *values: object) -> list[dict[str, Any]]:
            return [dict(row) for row in self._all(sql, *values)]

        charges = "SELECT seq, requested_ms, answered_ms, raw, abandoned, operator, intent_id, dead FROM charge"
        attempts = (
            "SELECT id, charge_seq, broadcaster, planned_ms, signed_ms, intended_ms, last_sent_ms, sends, answer,"
            " withdrawn, booked, final, hash FROM attempt"
        )
        entries = rows(
            f"SELECT id, at_ms, text, tx_hash, charge_id, block_number, usd_value, price_source FROM entry {mine} id",
            topup_id,
        )
        for entry in entries:
            entry["lines"] = rows("SELECT account, commodity, units FROM line WHERE entry = ? ORDER BY n", entry["id"])
        return Life(
            topup,
            self.moves(topup_id),
            rows(f"{charges} {mine} seq", topup_id),
            rows(f"{attempts} {mine} id", topup_id),
            rows(f"SELECT at_ms, attempt, kind, detail FROM evidence {mine} id", topup_id),
            entries,
            rows("SELECT nonce, tx_hash, block_number, cost, at_ms, by FROM adopted WHERE topup = ?", topup_id),
        )
