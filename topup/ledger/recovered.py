"""What was found on the chain and taken over? How far was looked, payments of the wallet, and what was adopted."""

import json
from collections.abc import Sequence

from topup.accounting.journal import Entry
from topup.accounting.reconciliation import (
    WHY,
    Adopted,
    Known,
    Transfer,
    UnknownPayment,
    WalletTransaction,
    unknown_payment_entry,
)
from topup.domain.lifecycle import Fact, State, TopUp
from topup.domain.money import Wei
from topup.domain.reasons import Reason
from topup.ledger import database, rows
from topup.ledger.steps import TopUpSteps
from topup.ledger.topups import SLOT
from topup.ports.chain import Piece

# Nobody goes on with a piece that is older: what it is of has ended long before.
KEPT_MS = 90 * 86_400_000


class Recovered(TopUpSteps):
    """What the chain has shown of a wallet beside what the ledger knew."""

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None:
        """Return how far the logs of a payment were read through the providers of one owner."""
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

    def scanned(self, chain_id: int, wallet: bytes, contract: bytes, operator: bytes) -> tuple[int, int] | None:
        """Return the first and last block in which payments of a wallet were looked for; None when nobody looked."""
        sql = "SELECT first, last FROM scan WHERE chain_id = ? AND wallet = ? AND contract = ? AND operator = ?"
        rows = self._all(sql, chain_id, wallet, contract, operator)
        return (int(rows[0]["first"]), int(rows[0]["last"])) if rows else None

    def save_scan(
        self,
        chain_id: int,
        wallet: bytes,
        pair: tuple[bytes, bytes],
        blocks: tuple[int, int],
        transfers: Sequence[Transfer],
        at_ms: int,
    ) -> None:
        """Store how far a scan came and what it found; `pair` is contract and operator. Any process may."""
        with self._db_errors(), database.transaction(self._db):
            scan = (chain_id, wallet, *pair, *blocks, at_ms)
            self._db.execute("INSERT OR REPLACE INTO scan VALUES (?,?,?,?,?,?,?)", scan)
            for t in transfers:
                row = (chain_id, wallet, t.contract, *t.intent, t.recipient, str(t.spent), t.tx_hash, t.block_number)
                self._db.execute("INSERT OR REPLACE INTO transfer VALUES (?,?,?,?,?,?,?,?,?)", row)

    def transfers(self, chain_id: int, wallet: bytes) -> list[Transfer]:
        """Return every payment of a wallet that was found on the chain, in the order of its blocks."""
        sql = "SELECT * FROM transfer WHERE chain_id = ? AND wallet = ? ORDER BY block_number, tx_hash"
        stored = self._all(sql, chain_id, wallet)
        return [rows.record(Transfer, row, spent=int(row["spent"]), tx_hash=row["tx_hash"]) for row in stored]

    def known(self, chain_id: int, wallet: bytes) -> Known:
        """Return everything this ledger holds of a wallet's transactions."""
        topups = self._all("SELECT * FROM topup WHERE chain_id = ? AND wallet = ? ORDER BY rowid", chain_id, wallet)
        proven = (
            "SELECT operator, intent_id, topup, seq FROM charge WHERE intent_id IS NOT NULL"
            " AND topup IN (SELECT id FROM topup WHERE chain_id = ? AND wallet = ?)"
        )
        owners = self._all(proven, chain_id, wallet)
        taken_over = "SELECT nonce, tx_hash, block_number, topup, cost FROM adopted"
        adopted = self._all(f"{taken_over} WHERE chain_id = ? AND wallet = ? ORDER BY nonce", chain_id, wallet)
        return Known(
            topups=[self._load(row) for row in topups],
            owners={(o["operator"], o["intent_id"]): (o["topup"], o["seq"]) for o in owners},
            adopted=[
                Adopted(
                    int.from_bytes(nonce, "big"), tx_hash, block, topup, Wei(int(cost)) if cost is not None else None
                )
                for nonce, tx_hash, block, topup, cost in adopted
            ],
            below=self._adopted_below(chain_id, wallet),
            next_nonce=self.next_nonce(chain_id, wallet),
        )

    def adopt_payment(
        self, topup: TopUp, done: WalletTransaction, entry: Entry, overtaken: TopUp | None, at_ms: int, by: str
    ) -> TopUp:
        """Store a payment of a lost ledger as an ended, booked top-up; drop the unsent one it overtook, if any."""
        assert done.intent is not None
        with self._write(at_ms) as db:
            self._add_topup(topup, at_ms, WHY, by)
            # An id belongs to one charge: an ended top-up that was taken for unpaid gives it up.
            given_up = "UPDATE charge SET operator = NULL, intent_id = NULL WHERE operator = ? AND intent_id = ?"
            db.execute(given_up, done.intent)
            charge = {"topup": topup.id, "seq": 1, "account": topup.account, "requested_ms": topup.decided_ms}
            self._insert("charge", **charge, operator=done.intent[0], intent_id=done.intent[1])
            self._adopt(topup, 1, done, at_ms, by)
            inclusion = rows.as_json(done.inclusion)
            self._set("attempt", {"hash": done.hash}, inclusion=inclusion, booked=1, final=1)
            self._post(topup.account, entry)
            if overtaken is not None:
                self._advance(self._unsend(overtaken, at_ms), Fact.DROP, at_ms, Reason.NO_LONGER_NEEDED)
        return self.topup(topup.id)

    def adopt_attempt(
        self, topup: TopUp, seq: int, done: WalletTransaction, word: tuple[str, str], at_ms: int, by: str
    ) -> TopUp:
        """Give an open top-up back the attempt that paid its charge `seq`, as one whose inclusion is yet to be seen.

        Where no arrow leads on from such an attempt it is halted. `word`, a name and what a person says under it by
        adopting, leads a halted one on.
        """
        assert done.intent is not None
        sql = (
            "SELECT total_credits FROM reading WHERE account = ? AND at_ms < ? AND doubt IS NULL"
            " ORDER BY at_ms DESC, id DESC LIMIT 1"
        )
        before = self._all(sql, topup.account, done.inclusion.block_ms)
        with self._write(at_ms):
            topup = self._unsend(topup, at_ms)
            if topup.state in (State.DECIDED, State.ASKING):
                self._advance(topup, Fact.HALT, at_ms, "paid by a transaction that this ledger did not hold")
            if topup.state in (State.DECIDED, State.ASKING, State.HALTED):
                self._say(topup.account, *word, at_ms, by)
            proven = dict(zip(("operator", "intent_id"), done.intent, strict=True))
            self._set("charge", {"topup": topup.id, "seq": seq}, **proven, abandoned=None)
            if before and topup.baseline is None:
                self._set("topup", {"id": topup.id}, baseline=before[0]["total_credits"])
            self._adopt(topup, seq, done, at_ms, by)
        return self.topup(topup.id)

    def adopt_foreign(
        self,
        chain_id: int,
        wallet: bytes,
        adopted: Adopted,
        at_ms: int,
        by: str,
        *,
        booked: tuple[str, Entry] | None = None,
    ) -> None:
        """Store a transaction of the wallet that is no payment; what was sent at its nonce never arrives.

        `booked` is the account and the entry that books what it cost, where it was ours.
        """
        with self._write(at_ms):
            self._adopted_row(chain_id, wallet, adopted, at_ms, by)
            if booked is not None:
                self._post(*booked)

    def adopt_carried(self, account: str, payment: UnknownPayment, at_ms: int, by: str) -> None:
        """Store that a person takes over a payment which a seller carried and no top-up explains, and book it."""
        value = payment.transfer.tx_hash.hex()
        with self._write(at_ms):
            self._insert("control", account="", name=payment.word, value=value, at_ms=at_ms, by=by)
            self._post(account, unknown_payment_entry(payment))

    def _adopt(self, topup: TopUp, seq: int, done: WalletTransaction, at_ms: int, by: str) -> None:
        """Store slot, attempt, evidence and adoption of a transaction of ours."""
        plan, block_ms = done.plan, done.inclusion.block_ms
        self._put_slot(topup, plan, "used")
        signed = {"raw": done.raw, "hash": done.hash, "answer": WHY}
        times = dict.fromkeys(("planned_ms", "signed_ms", "intended_ms", "last_sent_ms"), block_ms)
        attempt = self._add_attempt(topup, seq, plan, **signed, **times)
        self._evidence(topup, attempt, at_ms, WHY, rows.as_json(done.inclusion))
        adopted = Adopted(plan.nonce, done.hash, done.inclusion.block_number, topup.id, done.cost)
        self._adopted_row(plan.chain_id, topup.wallet, adopted, at_ms, by)

    def _adopted_row(self, chain_id: int, wallet: bytes, adopted: Adopted, at_ms: int, by: str) -> None:
        cost = str(adopted.cost.units) if adopted.cost is not None else None
        nonce = rows.word(adopted.nonce)
        row = (chain_id, wallet, nonce, adopted.tx_hash, adopted.block_number, adopted.topup_id, cost, at_ms, by)
        self._db.execute("INSERT INTO adopted VALUES (?,?,?,?,?,?,?,?,?)", row)
        # Nothing else can be included at this nonce any more; other lanes belong to authorizations.
        self._db.execute(
            f"UPDATE attempt SET final = 1 WHERE {SLOT} AND inclusion IS NULL AND hash IS NOT ?",
            (chain_id, wallet, rows.word(0), nonce, adopted.tx_hash),
        )

    def _unsend(self, topup: TopUp, at_ms: int) -> TopUp:
        """Take back what was reserved or signed and, as far as this ledger knows, never sent."""
        if topup.state not in (State.RESERVED, State.SIGNED):
            return topup
        self._give_back(topup, "paid by a transaction that this ledger did not hold", at_ms)
        return self.topup(topup.id)
