"""How far was a payment looked for?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from topup.ledger import rows
from topup.ledger.lock import Ledger

if TYPE_CHECKING:  # what only reads the ledger need not wait for it to load
    from topup.ports.chain import Piece

# Nobody goes on with a piece that is older: what it is of has ended long before.
KEPT_MS = 90 * 86_400_000


class LogRanges(Ledger):
    """The pieces of a chain's logs in which payments were looked for."""

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None:
        """Return how far the logs of a payment were read through the providers of one owner."""
        from topup.ports.chain import Piece

        sql = "SELECT * FROM piece WHERE chain_id = ? AND subject = ? AND owner = ?"
        stored = self._all(sql, chain_id, subject, owner)
        if not stored:
            return None
        row = stored[0]
        carriers = tuple((bytes.fromhex(tx_hash), int(number)) for tx_hash, number in json.loads(row["carriers"]))
        return rows.record(Piece, row, anchor=(row["anchor"], row["anchor_hash"]), carriers=carriers)

    def keep_piece(self, chain_id: int, subject: bytes, owner: str, piece: Piece, clock_ms: int) -> None:
        """Store how far they were read by now, in place of what was stored before, and drop what is old."""
        at_ms = self.now_ms(clock_ms)
        carriers = json.dumps([(tx_hash.hex(), number) for tx_hash, number in piece.carriers])
        read = (piece.first, piece.last, *piece.anchor, carriers, piece.asked, piece.spent_ms)
        with self._write(at_ms) as db:
            row = (chain_id, subject, owner, *read, at_ms)
            db.execute("INSERT OR REPLACE INTO piece VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
            db.execute("DELETE FROM piece WHERE at_ms < ?", (at_ms - KEPT_MS,))
