"""What does SQLite need to know? The `Store` port over one file: WAL, synchronous=FULL, one writer.

What is kept has its rooms: classes over `lock.Ledger`, each built on what it needs, of which the store is made. The
journal and what counts against the caps are functions over a connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from topup.accounting.closing import BalanceAssertion, Closed
from topup.accounting.journal import Commodity, Entry
from topup.domain.lifecycle import Attempt, TopUp
from topup.domain.notes import Note
from topup.domain.policy import Past
from topup.ledger import journal, spending
from topup.ledger.log_ranges import LogRanges
from topup.ledger.readings import Readings
from topup.ledger.recovered import Adoptions
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


class SqliteStore(Readings, Adoptions, Wishes, UsageDays, LogRanges):
    """The ledger in one SQLite file. Use `open_writer` or `open_reader`."""

    def life(self, topup_id: str) -> Life:
        """Return everything the ledger holds of one top-up, as it is stored; never the signed bytes.

        Raises:
            KeyError: there is no such top-up.
        """
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

    # -- what the policy asks -----------------------------------------------------------------------------------

    def past(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return earlier top-ups as the policy sees them, oldest first."""
        with self._db_errors():
            return spending.past(self._db, account, since_ms, fee_bps, self._newest)

    def paid(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return payments in blocks since then, each at the time of its block; oldest first."""
        with self._db_errors():
            return spending.paid(self._db, account, since_ms, fee_bps)

    # -- the journal --------------------------------------------------------------------------------------------

    def entries(self, account: str) -> list[Entry]:
        """Return the whole journal of an account, oldest first."""
        with self._db_errors():
            return [entry for _, _, entry, _ in journal.rows(self._db, account)]

    def newest(self, account: str, count: int) -> list[Entry]:
        """Return the entries of the newest top-ups whose credits were posted, so many of them; oldest first."""
        with self._db_errors():
            return journal.newest(self._db, account, count)

    def by_topup(self, account: str, end_ms: int) -> Iterator[list[Entry]]:
        """Yield the entries of each top-up up to a moment, exclusive; one top-up is held at a time."""
        with self._db_errors():
            yield from journal.by_topup(self._db, account, end_ms)

    def within(self, account: str, first_ms: int, end_ms: int) -> tuple[journal.Balances, list[Entry]]:
        """Return the entries of a period with earlier ones of its top-ups, and what all others before it sum to."""
        with self._db_errors():
            self._db.execute("BEGIN")  # what is written meanwhile is seen by both questions or by neither
            try:
                return journal.within(self._db, account, first_ms, end_ms)
            finally:
                self._db.rollback()

    def booked(self, topup_id: str, attempt: Attempt) -> Entry:
        """Return what was booked last of an attempt that stands in the books."""
        with self._db_errors():
            return journal.booked(self._db, topup_id, attempt.tx_hash)

    def head(self) -> str | None:
        """Return the newest hash of the journal, in hex; None while it is empty."""
        with self._db_errors():
            return journal.head(self._db).hex() or None

    def audit(self, sought: bytes | None = None) -> journal.Audit:
        """Hold every entry of every account against its hash; see `journal.Audit`."""
        with self._db_errors():
            return journal.audit(self._db, sought)

    def closed(self, account: str) -> Closed | None:
        """Return up to where the books are closed, None before the first time."""
        told = self.told(account, Note.CLOSED)
        return Closed(**json.loads(told)) if told is not None else None

    def posted(self, account: str, until_ms: int) -> int:
        """Return the credits that top-ups have brought up to a moment, in 10^-6 dollars."""
        with self._db_errors():
            return journal.posted(self._db, account, until_ms)

    def close_books(self, account: str, at: Closed, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a closing with the entries that bring the books there, or none of it."""
        with self._write(now_ms) as db:
            for entry in entries:
                journal.post(db, account, entry, self.hide)
            self._say(account, Note.CLOSED, json.dumps(asdict(at)), now_ms, "topup")

    def balance_assertions(self, account: str, before_ms: int | None = None) -> list[BalanceAssertion]:
        """Return the newest checkpoint of each commodity: of all, or of those before a moment."""
        with self._db_errors():
            return journal.balance_assertions(self._db, account, before_ms)

    def wallet_booked(self, account: str, commodity: Commodity, block: int) -> int:
        """Return what the journal says the wallet held after a block, whenever it was entered."""
        with self._db_errors():
            return journal.wallet_booked(self._db, account, commodity, block)

    def wallets(self, account: str, first_ms: int, end_ms: int) -> dict[Entry, bytes]:
        """Return whose wallet each entry of a period has moved; empty where only one was ever used."""
        with self._db_errors():
            return journal.wallets(self._db, account, first_ms, end_ms)

    def close_wallet(self, account: str, at: BalanceAssertion, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a checkpoint with the entry that brings the books there, or none of it."""
        with self._write(now_ms) as db:
            for entry in entries:
                journal.post(db, account, entry, self.hide)
            journal.keep(db, account, at)
