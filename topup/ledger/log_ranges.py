"""How far was a payment looked for?

Functions over an open connection; `sqlite.py` gives them one, within a transaction where they write.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what only reads the ledger need not wait for it to load
    from topup.ports.chain import Piece

# Nobody goes on with a piece that is older: what it is of has ended long before.
KEPT_MS = 90 * 86_400_000


def load(db: sqlite3.Connection, chain_id: int, subject: bytes, owner: str) -> Piece | None:
    """Return the piece that is kept."""
    from topup.ports.chain import Piece

    row = db.execute(
        "SELECT first, last, anchor, anchor_hash, carriers, asked, spent_ms FROM piece"
        " WHERE chain_id = ? AND subject = ? AND owner = ?",
        (chain_id, subject, owner),
    ).fetchone()
    if row is None:
        return None
    first, last, anchor, anchor_hash, carriers, asked, spent_ms = row
    found = tuple((bytes.fromhex(tx_hash), int(number)) for tx_hash, number in json.loads(carriers))
    return Piece(first, last, (anchor, anchor_hash), found, asked, spent_ms)


def keep(db: sqlite3.Connection, chain_id: int, subject: bytes, owner: str, piece: Piece, at_ms: int) -> None:
    """Keep a piece in place of the one before it, and drop what is old."""
    carriers = json.dumps([(tx_hash.hex(), number) for tx_hash, number in piece.carriers])
    told = (piece.first, piece.last, *piece.anchor, carriers, piece.asked, piece.spent_ms)
    db.execute("INSERT OR REPLACE INTO piece VALUES (?,?,?,?,?,?,?,?,?,?,?)", (chain_id, subject, owner, *told, at_ms))
    db.execute("DELETE FROM piece WHERE at_ms < ?", (at_ms - KEPT_MS,))
