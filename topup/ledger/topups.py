"""What is stored of the life of a top-up? Each step along the table with all that is true with it, or none of it."""

# ruff: noqa: S608 - the only text put into a statement is a constant of the module

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from topup.accounting.journal import Entry
from topup.domain.credits import Reading
from topup.domain.errors import StoreFenced, StoreUnusable
from topup.domain.lifecycle import TERMINAL, Attempt, ChargeRow, Fact, Plan, State, TopUp, advance
from topup.domain.money import Usd, Wei
from topup.domain.notes import Note
from topup.ledger import database, journal, rows
from topup.ledger.notes import Notes
from topup.ports.chain import Seen, Sent, Taken

if TYPE_CHECKING:
    from topup.domain.demand import Verified
    from topup.ports.chain import Seen, Sent, Taken

# The key of a slot, for the statements below.
PLACE = "chain_id = ? AND address = ? AND lane = ? AND nonce = ?"


class TopUps(Notes):
    """Top-ups with their charges, attempts and nonces."""

    # -- what is asked of them ----------------------------------------------------------------------------------

    def open_topup(self, account: str) -> TopUp | None:
        """Return the one top-up of this account that is not finished."""
        sql = "SELECT * FROM topup WHERE account = ? AND state NOT IN ('done', 'dropped', 'failed')"
        rows = self._all(sql, account)
        return self._load(rows[0]) if rows else None

    def topup(self, topup_id: str) -> TopUp:
        """Return one top-up with its charges and attempts."""
        rows = self._all("SELECT * FROM topup WHERE id = ?", topup_id)
        if not rows:
            raise KeyError(topup_id)
        return self._load(rows[0])

    def latest(self, account: str, count: int) -> list[TopUp]:
        """Return the newest top-ups, newest first."""
        sql = "SELECT * FROM topup WHERE account = ? ORDER BY decided_ms DESC, rowid DESC LIMIT ?"
        return [self._load(row) for row in self._all(sql, account, count)]

    def named(self, account: str, beginning: str) -> list[str]:
        """Return the ids of an account's top-ups that begin so, at most ten."""
        sql = "SELECT id FROM topup WHERE account = ? AND substr(id, 1, ?) = ? ORDER BY id LIMIT 10"
        return [row["id"] for row in self._all(sql, account, len(beginning), beginning)]

    def moves(self, topup_id: str) -> list[dict[str, Any]]:
        """Return every arrow a top-up took, oldest first."""
        sql = "SELECT at_ms, fact, state, detail FROM move WHERE topup = ? ORDER BY id"
        return [dict(row) for row in self._all(sql, topup_id)]

    def busy(self, account: str, since_ms: int) -> list[tuple[int, int]]:
        """Return from when to when a top-up was on its way, for those that ended since a moment."""
        sql = "SELECT decided_ms, moved_ms FROM topup WHERE account = ? AND moved_ms >= ?"
        return [(row["decided_ms"], row["moved_ms"]) for row in self._all(sql, account, since_ms)]

    def charge_requests(self, account: str, since_ms: int) -> list[int]:
        """Return the times charges were requested, oldest first; those requested by hand count as well."""
        sql = "SELECT requested_ms FROM charge WHERE account = ? AND requested_ms >= ?"
        asked = [int(row["requested_ms"]) for row in self._all(sql, account, since_ms)]
        by_hand = [int(at) for at in (self.told(account, Note.BY_HAND) or "").split()]
        return sorted(asked + [at for at in by_hand if at >= since_ms])

    def ask_by_hand(self, account: str, at_ms: int, keep_ms: int) -> None:
        """Store that a charge is about to be requested that belongs to no top-up; any process may.

        Those older than `keep_ms` before this one are forgotten.
        """
        with self._db_errors(), database.transaction(self._db):
            kept = [at for at in (self.told(account, Note.BY_HAND) or "").split() if int(at) >= at_ms - keep_ms]
            self._say(account, Note.BY_HAND, " ".join([*kept, str(at_ms)]), at_ms, "topup")

    def seen_intents(self, topup_id: str) -> list[tuple[bytes, bytes]]:
        """Return (operator, id) of every proven charge but the newest of this top-up, which may be proven again."""
        sql = (
            "SELECT operator, intent_id FROM charge WHERE intent_id IS NOT NULL AND NOT"
            " (topup = ? AND seq = (SELECT max(seq) FROM charge WHERE topup = ?))"
        )
        return [(row["operator"], row["intent_id"]) for row in self._all(sql, topup_id, topup_id)]

    def approver(self, account: str) -> TopUp | None:
        """Return the newest top-up that has let a contract take a token, as far as the chain has shown."""
        sql = (
            "SELECT topup.* FROM attempt JOIN topup ON topup.id = attempt.topup WHERE topup.account = ?"
            " AND attempt.kind = 'approve' AND attempt.inclusion IS NOT NULL ORDER BY attempt.id DESC LIMIT 1"
        )
        rows = self._all(sql, account)
        return self._load(rows[0]) if rows else None

    def afterwards(self, account: str, wallet: bytes) -> list[tuple[TopUp, Attempt]]:
        """Return attempts of ended top-ups of this wallet for which the chain may still change something."""
        sql = (
            "SELECT attempt.id AS one, topup.* FROM attempt JOIN topup ON topup.id = attempt.topup"
            " WHERE attempt.final = 0 AND attempt.intended_ms IS NOT NULL AND topup.account = ?"
            " AND topup.wallet = ? AND topup.state IN ('done', 'dropped', 'failed')"
            " ORDER BY attempt.id"
        )
        owners = [(int(row["one"]), self._load(row)) for row in self._all(sql, account, wallet)]
        return [(owner, a) for one, owner in owners for a in owner.attempts if a.id == one]

    def taken(self, topup_id: str) -> dict[int, Taken]:
        """Return which nonces of a top-up something unknown has used, by the oldest attempt there."""
        from topup.ports.chain import Taken

        sql = "SELECT taken.* FROM taken JOIN attempt ON attempt.id = taken.attempt WHERE attempt.topup = ?"
        return {
            int(row["attempt"]): Taken(row["since_ms"], row["block"], row["block_hash"] or b"")
            for row in self._all(sql, topup_id)
        }

    def keep_taken(self, topup: TopUp, attempt: Attempt, one: Taken, at_ms: int) -> None:
        """Store since when a nonce is used by something unknown, and by the end of which block."""
        with self._write(at_ms) as db:
            row = (attempt.id, one.since_ms, one.block_number, one.block_hash or None)
            db.execute("INSERT OR REPLACE INTO taken VALUES (?,?,?,?)", row)
            self._evidence(topup, attempt, at_ms, "nonce_taken", f"block {one.block_number}")

    def forget_taken(self, topup: TopUp, attempts: Sequence[int], at_ms: int) -> None:
        """Store that the nonces of these attempts are explained, or free again."""
        with self._write(at_ms) as db:
            for one in topup.attempts:
                if one.id in attempts:
                    db.execute("DELETE FROM taken WHERE attempt = ?", (one.id,))
                    self._evidence(topup, one, at_ms, "nonce_explained", "")

    def adopted_places(self, topup: TopUp) -> frozenset[tuple[int, int]]:
        """Return the places of this top-up's own transactions at which a person took over one that paid nothing."""
        sql = (
            "SELECT DISTINCT attempt.lane, attempt.nonce FROM attempt JOIN adopted ON adopted.nonce = attempt.nonce"
            " AND adopted.wallet = attempt.address AND adopted.chain_id = attempt.chain_id"
            " WHERE attempt.topup = ? AND attempt.broadcaster = 'us' AND adopted.topup IS NULL"
        )
        found = self._all(sql, topup.id)
        return frozenset((int.from_bytes(row["lane"], "big"), int.from_bytes(row["nonce"], "big")) for row in found)

    def settled_from(self, topup: TopUp, nonce: int) -> list[tuple[TopUp, Attempt]]:
        """Return what ended top-ups on the same way have in final blocks at this nonce or a later one.

        What was adopted without its charge is left out: there is nothing to look for it by.
        """
        sql = (
            "SELECT attempt.id AS one, topup.* FROM attempt JOIN topup ON topup.id = attempt.topup"
            " JOIN charge ON charge.topup = attempt.topup AND charge.seq = attempt.charge_seq"
            " WHERE attempt.final = 1 AND attempt.inclusion IS NOT NULL AND charge.raw IS NOT NULL"
            " AND attempt.broadcaster = 'us' AND attempt.nonce >= ? AND topup.account = ? AND topup.wallet = ?"
            " AND topup.rail = ? AND topup.chain_id = ? AND topup.id != ?"
            " AND topup.state IN ('done', 'dropped', 'failed') ORDER BY attempt.id LIMIT 100"
        )
        values = (rows.word(nonce), topup.account, topup.wallet, topup.rail, topup.chain_id, topup.id)
        owners = [(int(row["one"]), self._load(row)) for row in self._all(sql, *values)]
        return [(owner, a) for one, owner in owners for a in owner.attempts if a.id == one]

    def at_same_nonce(self, topup: TopUp) -> list[Attempt]:
        """Return what other top-ups have sent at any nonce of this one, settled or not."""
        place = "chain_id, address, lane, nonce"
        sql = (
            "SELECT * FROM attempt WHERE topup != ? AND intended_ms IS NOT NULL"
            f" AND ({place}) IN (SELECT {place} FROM attempt WHERE topup = ? AND intended_ms IS NOT NULL) ORDER BY id"
        )
        return [rows.attempt(row) for row in self._all(sql, topup.id, topup.id)]

    # -- their steps --------------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """Return the id of the top-up that begins next: t and twelve hexadecimal digits.

        It follows from the ledger's seed and from how many top-ups it holds. A copy of this ledger that was put back,
        or whose machine was, gives the same name again to what the lost copy may have paid, and with the name goes
        what can run once on the chain.
        """
        (count,) = self._all("SELECT count(*) FROM topup")[0]
        return "t" + hashlib.sha256(f"{self.told('', Note.SEED)}/{count}".encode()).hexdigest()[:12]

    def begin(self, topup: TopUp) -> TopUp:
        """Store a new decision; the database refuses a second open one for the account."""
        with self._write(topup.decided_ms) as db:
            if topup.wish is not None:
                # In this very transaction: a crash after it finds the top-up of the wish, and begins no other.
                bound = "UPDATE request SET topup = ? WHERE id = ? AND account = ? AND taken_ms IS NOT NULL"
                waiting = " AND outcome IS NULL AND withdrawn_ms IS NULL"
                if db.execute(bound + waiting, (topup.id, topup.wish, topup.account)).rowcount != 1:
                    raise StoreUnusable(f"wish {topup.wish} is not being carried out", remedy="`topup history`")
            db.execute(
                "INSERT INTO topup VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    topup.id,
                    topup.account,
                    topup.rail,
                    topup.chain_id,
                    topup.wallet,
                    State.DECIDED.value,
                    str(topup.amount),
                    topup.why,
                    int(topup.forced),
                    topup.decided_ms,
                    topup.decided_ms,
                    None,
                    str(topup.balance_before) if topup.balance_before is not None else None,
                    None,
                    "",
                    None,
                    topup.wish,
                ),
            )
            self._arrow(topup.id, topup.decided_ms, "decide", State.DECIDED, topup.why)
        return self.topup(topup.id)

    def ask(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store that a charge is about to be requested."""
        with self._write(at_ms) as db:
            db.execute(
                "INSERT INTO charge (topup, seq, account, requested_ms) VALUES (?,?,?,?)",
                (topup.id, len(topup.charges) + 1, topup.account, at_ms),
            )
            self._advance(topup, Fact.ASK, at_ms)
        return self.topup(topup.id)

    def answered(self, topup: TopUp, raw: bytes, at_ms: int) -> TopUp:
        """Store the raw answer."""
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE charge SET raw = ?, answered_ms = ? WHERE topup = ? AND seq = ?",
                (raw, at_ms, topup.id, len(topup.charges)),
            )
            self._advance(topup, Fact.ANSWERED, at_ms)
        return self.topup(topup.id)

    def proven(self, topup: TopUp, verified: Verified) -> TopUp:
        """Store whose id the newest charge carries; an id belongs to one charge for ever."""
        with self._write(topup.moved_ms) as db:
            db.execute(
                "UPDATE charge SET operator = ?, intent_id = ? WHERE topup = ? AND seq = ?",
                (*verified.demand.identity, topup.id, len(topup.charges)),
            )
        return self.topup(topup.id)

    def reserve(self, topup: TopUp, plan: Plan, baseline: Reading, wallet: Wei, at_ms: int) -> TopUp:
        """Store the unsigned payment and take its nonce; refuses a second nonce in flight for the wallet."""
        place = (plan.chain_id, topup.wallet, rows.word(plan.lane), rows.word(plan.nonce))
        with self._write(at_ms) as db:
            may_still_pay = db.execute(
                "SELECT 1 FROM attempt JOIN charge ON charge.topup = attempt.topup AND charge.seq = attempt.charge_seq"
                " WHERE attempt.topup = ? AND charge_seq != ? AND kind = 'pay' AND intended_ms IS NOT NULL"
                " AND charge.dead IS NULL",
                (topup.id, len(topup.charges)),
            ).fetchone()
            if may_still_pay is not None:
                raise StoreUnusable(
                    "an earlier charge of this top-up may still be paid", remedy="report it: this must never be asked"
                )
            taken = db.execute(f"SELECT state FROM slot WHERE {PLACE}", place).fetchone()
            if taken is None:
                db.execute("INSERT INTO slot VALUES (?,?,?,?,?,'in_flight')", (*place, topup.id))
            elif taken["state"] == "released":
                # Bytes of a charge that is dead may still be out at this nonce: the new ones have to outbid them.
                db.execute(f"UPDATE slot SET state = 'in_flight', topup = ? WHERE {PLACE}", (topup.id, *place))
            else:
                raise StoreUnusable(
                    f"nonce {plan.nonce} is already {taken['state']} in the ledger", remedy="run `topup doctor`"
                )
            db.execute(
                "INSERT INTO attempt"
                " (topup, charge_seq, chain_id, address, lane, nonce, kind, broadcaster, plan, planned_ms)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    topup.id,
                    len(topup.charges),
                    *place,
                    plan.kind.value,
                    plan.broadcaster.value,
                    rows.plan_json(plan),
                    at_ms,
                ),
            )
            # Kept from the first payment of a charge on: its credits may be posted for a block that is then replaced.
            if not any(a.charge_seq == len(topup.charges) for a in topup.out):
                db.execute(
                    "UPDATE topup SET baseline = ?, balance_before = ?, wallet_before = ? WHERE id = ?",
                    (str(baseline.total_credits), str(baseline.balance), str(wallet.units), topup.id),
                )
            self._advance(topup, Fact.RESERVE, at_ms)
        return self.topup(topup.id)

    def signed(self, topup: TopUp, raw: bytes, tx_hash: bytes, at_ms: int) -> TopUp:
        """Store the signed payment, provably not sent."""
        attempt = current(topup)
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET raw = ?, hash = ?, signed_ms = ? WHERE id = ?", (raw, tx_hash, at_ms, attempt.id)
            )
            self._advance(topup, Fact.SIGNED, at_ms, "0x" + tx_hash.hex())
        return self.topup(topup.id)

    def intend(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store the intent to send."""
        attempt = current(topup)
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET intended_ms = ? WHERE id = ?", (at_ms, attempt.id))
            self._advance(topup, Fact.INTEND, at_ms)
        return self.topup(topup.id)

    def replace(self, topup: TopUp, fact: Fact, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> TopUp:
        """Store a signed bump or cancel (raw bytes and hash) at a nonce of ours, with the intent to send it."""
        place = (plan.chain_id, topup.wallet, rows.word(plan.lane), rows.word(plan.nonce))
        with self._write(at_ms) as db:
            held = db.execute(f"SELECT topup FROM slot WHERE {PLACE}", place).fetchone()
            if held is None or held["topup"] != topup.id:
                raise StoreUnusable(f"{topup.id} has nothing at nonce {plan.nonce}", remedy="run `topup doctor`")
            self._signed_at(topup, len(topup.charges), plan, signed, at_ms)
            self._advance(topup, fact, at_ms, "0x" + signed[1].hex())
        return self.topup(topup.id)

    def append(self, topup: TopUp, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> TopUp:
        """Store a signed transaction of an ended top-up with the intent to send it; its nonce may be overtaken."""
        place = (plan.chain_id, topup.wallet, rows.word(plan.lane), rows.word(plan.nonce))
        with self._write(at_ms) as db:
            held = db.execute(f"SELECT state FROM slot WHERE {PLACE}", place).fetchone()
            if held is not None and held["state"] != "released":
                raise StoreUnusable(
                    f"nonce {plan.nonce} is already {held['state']} in the ledger", remedy="run `topup doctor`"
                )
            db.execute("INSERT OR REPLACE INTO slot VALUES (?,?,?,?,?,'released')", (*place, topup.id))
            # It belongs to the charge whose approval it takes back, not to whatever was asked for afterwards.
            seq = next(a.charge_seq for a in reversed(topup.out) if a.plan.kind is plan.kind)
            self._signed_at(topup, seq, plan, signed, at_ms)
        return self.topup(topup.id)

    def withdraw(self, topup: TopUp, reason: str, at_ms: int) -> TopUp:
        """Give a nonce back that was never sent."""
        with self._write(at_ms):
            self._give_back(topup, reason, at_ms)
        return self.topup(topup.id)

    def _give_back(self, topup: TopUp, reason: str, at_ms: int) -> None:
        """Do the same within the caller's transaction."""
        attempt = current(topup)
        # The raw bytes go with it: what is not stored cannot be sent by mistake.
        self._db.execute("UPDATE attempt SET withdrawn = 1, raw = NULL, hash = NULL WHERE id = ?", (attempt.id,))
        self._slot(topup, attempt, "released")
        self._advance(topup, Fact.WITHDRAWN, at_ms, reason)

    def delivered(self, topup: TopUp, attempt: Attempt, sent: Sent, at_ms: int) -> TopUp:
        """Store what a broadcast was answered."""
        # Masked before it is cut: half a secret is none that could be found any more.
        told, reference = self.hide(f"{sent.delivery}: {sent.detail}")[:300], self.hide(sent.reference)[:200]
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET last_sent_ms = ?, sends = sends + 1, answer = ?,"
                " reference = CASE reference WHEN '' THEN ? ELSE reference END WHERE id = ?",
                (at_ms, told, reference, attempt.id),
            )
        return self.topup(topup.id)

    def included(self, topup: TopUp, attempt: Attempt, seen: Seen, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that an attempt stands in a canonical block; `fact` is the arrow this takes, None to stay."""
        inclusion = rows.inclusion_json(replace(seen.inclusion, reason=self.hide(seen.inclusion.reason)))
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = ? WHERE id = ?", (inclusion, attempt.id))
            self._slot(topup, attempt, "used")
            place = (attempt.plan.chain_id, topup.wallet, rows.word(attempt.plan.lane), rows.word(attempt.plan.nonce))
            # What used this nonce is known now.
            db.execute(f"DELETE FROM taken WHERE attempt IN (SELECT id FROM attempt WHERE {PLACE})", place)
            self._evidence(topup, attempt, at_ms, "paid" if seen.inclusion.success else "reverted", inclusion)
            if fact is not None:
                self._advance(topup, fact, at_ms, seen.reason)
        return self.topup(topup.id)

    def vanished(self, topup: TopUp, attempt: Attempt, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that the block of an attempt is no longer canonical; `fact` as for `included`."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL WHERE id = ?", (attempt.id,))
            self._vacate(topup, attempt)
            self._evidence(topup, attempt, at_ms, "vanished", "")
            if fact is not None:
                self._advance(topup, fact, at_ms)
        return self.topup(topup.id)

    def final(self, attempt: Attempt, at_ms: int) -> None:
        """Store that a final block holds this attempt: nothing can change for any attempt at its nonce any more."""
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET final = 1 WHERE (chain_id, address, lane, nonce) ="
                " (SELECT chain_id, address, lane, nonce FROM attempt WHERE id = ?)",
                (attempt.id,),
            )

    def over(self, attempt: Attempt, at_ms: int) -> None:
        """Store that this attempt was in no block long after it had ended, and is looked for no more."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET final = 1 WHERE id = ?", (attempt.id,))

    def undone(
        self,
        topup: TopUp,
        attempt: Attempt,
        reversal: Entry,
        halt: str | None,
        at_ms: int,
        *,
        fact: Fact | None = None,
    ) -> TopUp:
        """Store that an inclusion in the books does not stand, and take back what was booked.

        `halt` is the reason to halt; without one `fact` is the arrow this takes, as for `included`.
        """
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL, booked = 0, final = 0 WHERE id = ?", (attempt.id,))
            self._vacate(topup, attempt)
            self._evidence(topup, attempt, at_ms, "vanished", "")
            journal.post(db, topup.account, reversal, self.hide)
            if halt is not None:
                self._advance(topup, Fact.HALT, at_ms, halt)
            elif fact is not None:
                self._advance(topup, fact, at_ms)
        return self.topup(topup.id)

    def rebase(self, topup: TopUp, baseline: Usd) -> TopUp:
        """Store a moved baseline: credits bought elsewhere before our block."""
        with self._write(topup.moved_ms) as db:
            db.execute("UPDATE topup SET baseline = ? WHERE id = ?", (str(baseline), topup.id))
        return self.topup(topup.id)

    def move(self, topup: TopUp, fact: Fact, at_ms: int, reason: str = "") -> TopUp:
        """Move a top-up along the table with nothing else to store."""
        reason = self.hide(reason)
        with self._write(at_ms) as db:
            if fact in (Fact.ANSWER_LOST, Fact.CHARGE_DEAD):
                db.execute(
                    "UPDATE charge SET abandoned = ? WHERE topup = ? AND seq = ?",
                    (reason or fact, topup.id, len(topup.charges)),
                )
            if fact in (Fact.PROVEN_DEAD, Fact.FAIL):
                db.execute(
                    "UPDATE charge SET dead = ?, abandoned = coalesce(abandoned, ?) WHERE topup = ? AND seq = ?",
                    (reason, reason, topup.id, len(topup.charges)),
                )
                # What is dead holds no nonce: one that was never included may be taken by the next payment.
                db.execute("UPDATE slot SET state = 'released' WHERE topup = ? AND state = 'in_flight'", (topup.id,))
            if fact is Fact.POSTED:
                db.execute("UPDATE topup SET credited_ms = ? WHERE id = ?", (at_ms, topup.id))
            self._advance(topup, fact, at_ms, reason)
        return self.topup(topup.id)

    def endpoint_gone(self, topup: TopUp, reason: str, at_ms: int) -> TopUp:
        """Put up the tombstone of the top-up's rail and drop the top-up that met it."""
        with self._write(at_ms):
            self._say(topup.account, Note.GONE.of(topup.rail), "1", at_ms, "topup")
            self._advance(topup, Fact.DROP, at_ms, reason)
        return self.topup(topup.id)

    def settle(self, topup: TopUp, attempt: Attempt, entry: Entry, at_ms: int) -> TopUp:
        """Book an attempt whose block is safe; once."""
        with self._write(at_ms) as db:  # not the entry's time: that is the chain's, and a provider could make it up
            changed = db.execute("UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0", (attempt.id,)).rowcount
            if changed:
                journal.post(db, topup.account, entry, self.hide)
        return self.topup(topup.id)

    def finish(self, topup: TopUp, entry: Entry, at_ms: int) -> TopUp:
        """Book the posting and end the top-up."""
        with self._write(at_ms) as db:
            journal.post(db, topup.account, entry, self.hide)
            # A repeated try of a charge that the one before it has paid after all: the next payment outbids it.
            db.execute("UPDATE slot SET state = 'released' WHERE topup = ? AND state = 'in_flight'", (topup.id,))
            self._advance(topup, Fact.SETTLED, at_ms)
        return self.topup(topup.id)

    # -- the wallet's nonces ------------------------------------------------------------------------------------

    def next_nonce(self, chain_id: int, wallet: bytes) -> int:
        """Return the first nonce this ledger has neither used nor adopted."""
        row = self._one(
            "SELECT max(nonce) AS nonce FROM slot WHERE chain_id = ? AND address = ? AND lane = ? AND state = 'used'",
            chain_id,
            wallet,
            rows.word(0),  # the other lanes belong to authorizations
        )
        used = int.from_bytes(row["nonce"], "big") + 1 if row["nonce"] is not None else 0
        adopted = self.told("", adopted_name(chain_id, wallet))
        return max(used, int(adopted) if adopted is not None else 0)

    def adopt_nonce(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int) -> None:
        """Store that a person accepts all transactions below `nonce` as none of ours."""
        with self._write(at_ms):
            self._say("", adopted_name(chain_id, wallet), str(nonce), at_ms, "topup")

    # -- inside -------------------------------------------------------------------------------------------------

    def _signed_at(self, topup: TopUp, seq: int, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> None:
        self._db.execute(
            "INSERT INTO attempt (topup, charge_seq, chain_id, address, lane, nonce, kind, broadcaster, plan, raw,"
            " hash, planned_ms, signed_ms, intended_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                topup.id,
                seq,
                *(plan.chain_id, topup.wallet, rows.word(plan.lane), rows.word(plan.nonce)),
                plan.kind.value,
                plan.broadcaster.value,
                rows.plan_json(plan),
                *signed,
                *(at_ms, at_ms, at_ms),
            ),
        )

    def _advance(self, topup: TopUp, fact: Fact, at_ms: int, detail: str = "") -> None:
        state = advance(topup.state, fact)
        # A reason says why something is not as hoped: a hash is none, and what is done needs none any more.
        detail = self.hide(detail)
        told = detail if detail and fact not in (Fact.SIGNED, Fact.BUMP, Fact.CANCEL) else topup.reason
        reason = "" if state is State.DONE else told
        changed = self._db.execute(
            "UPDATE topup SET state = ?, moved_ms = ?, reason = ? WHERE id = ? AND state = ?",
            (state.value, at_ms, reason, topup.id, topup.state.value),
        ).rowcount
        if changed != 1:
            raise StoreFenced(
                f"top-up {topup.id} is no longer {topup.state}", remedy="only one topup may work on a ledger"
            )
        self._arrow(topup.id, at_ms, fact.value, state, detail)

    def _arrow(self, topup_id: str, at_ms: int, fact: str, state: State, detail: str) -> None:
        self._db.execute(
            "INSERT INTO move (topup, at_ms, fact, state, detail) VALUES (?,?,?,?,?)",
            (topup_id, at_ms, fact, state.value, self.hide(detail)),
        )

    def _slot(self, topup: TopUp, attempt: Attempt, state: str) -> None:
        self._db.execute(
            f"UPDATE slot SET state = ? WHERE {PLACE}",
            (state, attempt.plan.chain_id, topup.wallet, rows.word(attempt.plan.lane), rows.word(attempt.plan.nonce)),
        )

    def _vacate(self, topup: TopUp, attempt: Attempt) -> None:
        """Give a nonce back to the chain's next block when nothing of ours stands there any more.

        It stays in flight, so that nothing else takes it, as long as its top-up is open, still pursues that charge, and
        has nothing else in flight. What an earlier charge has left there is outbid by a payment of the newest.
        """
        place = (attempt.plan.chain_id, topup.wallet, rows.word(attempt.plan.lane), rows.word(attempt.plan.nonce))
        if self._db.execute(f"SELECT 1 FROM attempt WHERE {PLACE} AND inclusion IS NOT NULL", place).fetchone():
            return
        other = self._db.execute(
            "SELECT 1 FROM slot WHERE chain_id = ? AND address = ? AND state = 'in_flight'", place[:2]
        ).fetchone()
        free = other is not None or topup.state in TERMINAL or attempt.charge_seq != len(topup.charges)
        self._slot(topup, attempt, "released" if free else "in_flight")

    def _evidence(self, topup: TopUp, attempt: Attempt, at_ms: int, kind: str, detail: str) -> None:
        self._db.execute(
            "INSERT INTO evidence (topup, attempt, at_ms, kind, detail) VALUES (?,?,?,?,?)",
            (topup.id, attempt.id, at_ms, kind, self.hide(detail)),
        )

    @rows.legible("top-up")
    def _load(self, row: sqlite3.Row) -> TopUp:
        charges = self._all("SELECT * FROM charge WHERE topup = ? ORDER BY seq", row["id"])
        attempts = self._all("SELECT * FROM attempt WHERE topup = ? ORDER BY id", row["id"])
        return TopUp(
            id=row["id"],
            account=row["account"],
            rail=row["rail"],
            chain_id=row["chain_id"],
            wallet=row["wallet"],
            state=State(row["state"]),
            amount=Usd.of(row["amount"]),
            why=row["why"],
            forced=bool(row["forced"]),
            decided_ms=row["decided_ms"],
            moved_ms=row["moved_ms"],
            baseline=rows.usd(row["baseline"]),
            balance_before=rows.usd(row["balance_before"]),
            wallet_before=Wei(int(row["wallet_before"])) if row["wallet_before"] is not None else None,
            reason=row["reason"],
            credited_ms=row["credited_ms"],
            charges=tuple(
                ChargeRow(c["seq"], c["requested_ms"], c["raw"], c["abandoned"], c["intent_id"] is not None, c["dead"])
                for c in charges
            ),
            attempts=tuple(rows.attempt(a) for a in attempts),
            wish=row["wish"],
        )


def current(topup: TopUp) -> Attempt:
    """Return the newest attempt of a top-up that has reserved one."""
    attempt = topup.attempt
    assert attempt is not None, "a reserved top-up has an attempt"
    return attempt


def adopted_name(chain_id: int, wallet: bytes) -> str:
    """Return under which name stands below which nonce a wallet's transactions were taken over."""
    return Note.ADOPTED_NONCE.of(chain_id, wallet.hex())
