"""What is stored of each step of a top-up? All that is true with it in one transaction, or none of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from topup.accounting.journal import Entry
from topup.domain.credits import Reading
from topup.domain.demand import Verified
from topup.domain.errors import StoreUnusable
from topup.domain.lifecycle import Attempt, Fact, Plan, TopUp
from topup.domain.money import Usd, Wei
from topup.domain.notes import Note
from topup.ledger import rows
from topup.ledger.topups import SLOT, TopUps, current, slot_of
from topup.ports.chain import Seen, Sent, Taken


class TopUpSteps(TopUps):
    """The steps of a top-up along the table."""

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
            self._add_topup(topup, topup.decided_ms, "decide", topup.why)
        return self.topup(topup.id)

    def ask(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store that a charge is about to be requested."""
        with self._write(at_ms):
            seq = len(topup.charges) + 1
            self._insert("charge", topup=topup.id, seq=seq, account=topup.account, requested_ms=at_ms)
            self._advance(topup, Fact.ASK, at_ms)
        return self.topup(topup.id)

    def answered(self, topup: TopUp, raw: bytes, at_ms: int) -> TopUp:
        """Store the raw answer."""
        with self._write(at_ms):
            self._set_charge(topup, raw=raw, answered_ms=at_ms)
            self._advance(topup, Fact.ANSWERED, at_ms)
        return self.topup(topup.id)

    def proven(self, topup: TopUp, verified: Verified) -> TopUp:
        """Store whose id the newest charge carries; an id belongs to one charge for ever."""
        operator, intent_id = verified.demand.identity
        with self._write(topup.moved_ms):
            self._set_charge(topup, operator=operator, intent_id=intent_id)
        return self.topup(topup.id)

    def _set_charge(self, topup: TopUp, **values: object) -> None:
        self._set("charge", {"topup": topup.id, "seq": len(topup.charges)}, **values)

    def reserve(self, topup: TopUp, plan: Plan, baseline: Reading, wallet: Wei, at_ms: int) -> TopUp:
        """Store the unsigned payment and take its nonce; refuses a second nonce in flight for the wallet."""
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
            # Bytes of a charge that is dead may still be out at a released nonce: the new ones have to outbid them.
            self._take_slot(topup, plan, "in_flight")
            self._add_attempt(topup, len(topup.charges), plan, planned_ms=at_ms)
            # Kept from the first payment of a charge on: its credits may be posted for a block that is then replaced.
            if not any(a.charge_seq == len(topup.charges) for a in topup.out):
                before = {"baseline": str(baseline.total_credits), "balance_before": str(baseline.balance)}
                self._set("topup", {"id": topup.id}, **before, wallet_before=str(wallet.units))
            self._advance(topup, Fact.RESERVE, at_ms)
        return self.topup(topup.id)

    def signed(self, topup: TopUp, raw: bytes, tx_hash: bytes, at_ms: int) -> TopUp:
        """Store the signed payment, provably not sent."""
        attempt = current(topup)
        with self._write(at_ms):
            self._set("attempt", {"id": attempt.id}, raw=raw, hash=tx_hash, signed_ms=at_ms)
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
        with self._write(at_ms):
            held = self._all(f"SELECT topup FROM slot WHERE {SLOT}", *slot_of(topup, plan).values())
            if not held or held[0]["topup"] != topup.id:
                raise StoreUnusable(f"{topup.id} has nothing at nonce {plan.nonce}", remedy="run `topup doctor`")
            self._add_signed(topup, len(topup.charges), plan, signed, at_ms)
            self._advance(topup, fact, at_ms, "0x" + signed[1].hex())
        return self.topup(topup.id)

    def append(self, topup: TopUp, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> TopUp:
        """Store a signed transaction of an ended top-up with the intent to send it; its nonce may be overtaken."""
        with self._write(at_ms):
            self._take_slot(topup, plan, "released")
            # It belongs to the charge whose approval it takes back, not to whatever was asked for afterwards.
            seq = next(a.charge_seq for a in reversed(topup.out) if a.plan.kind is plan.kind)
            self._add_signed(topup, seq, plan, signed, at_ms)
        return self.topup(topup.id)

    def _take_slot(self, topup: TopUp, plan: Plan, state: str) -> None:
        """Give a top-up the nonce of a plan, where nobody has it, or nobody any more."""
        slot = slot_of(topup, plan)
        held = self._all(f"SELECT state FROM slot WHERE {SLOT}", *slot.values())
        if held and held[0]["state"] != "released":
            raise StoreUnusable(
                f"nonce {plan.nonce} is already {held[0]['state']} in the ledger", remedy="run `topup doctor`"
            )
        self._put_slot(topup, plan, state)

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
        self._set_slot(topup, attempt, "released")
        self._advance(topup, Fact.WITHDRAWN, at_ms, reason)

    def delivered(self, topup: TopUp, attempt: Attempt, sent: Sent, at_ms: int) -> TopUp:
        """Store what a broadcast was answered."""
        # Masked before it is cut: half a secret is none that could be found any more.
        answer, reference = self.hide(f"{sent.delivery}: {sent.detail}")[:300], self.hide(sent.reference)[:200]
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET last_sent_ms = ?, sends = sends + 1, answer = ?,"
                " reference = CASE reference WHEN '' THEN ? ELSE reference END WHERE id = ?",
                (at_ms, answer, reference, attempt.id),
            )
        return self.topup(topup.id)

    def included(self, topup: TopUp, attempt: Attempt, seen: Seen, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that an attempt stands in a canonical block; `fact` is the arrow this takes, None to stay."""
        inclusion = rows.as_json(replace(seen.inclusion, reason=self.hide(seen.inclusion.reason)))
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = ? WHERE id = ?", (inclusion, attempt.id))
            self._set_slot(topup, attempt, "used")
            # What used this nonce is known now.
            slot = tuple(slot_of(topup, attempt.plan).values())
            db.execute(f"DELETE FROM taken WHERE attempt IN (SELECT id FROM attempt WHERE {SLOT})", slot)
            self._evidence(topup, attempt.id, at_ms, "paid" if seen.inclusion.success else "reverted", inclusion)
            self._advance(topup, fact, at_ms, seen.reason)
        return self.topup(topup.id)

    def vanished(self, topup: TopUp, attempt: Attempt, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that the block of an attempt is no longer canonical; `fact` as for `included`."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL WHERE id = ?", (attempt.id,))
            self._vacate(topup, attempt)
            self._evidence(topup, attempt.id, at_ms, "vanished", "")
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
        self, topup: TopUp, attempt: Attempt, reversal: Entry, fact: Fact | None, at_ms: int, reason: str = ""
    ) -> TopUp:
        """Store that an inclusion in the books does not stand, and take back what was booked; `fact` as above."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL, booked = 0, final = 0 WHERE id = ?", (attempt.id,))
            self._vacate(topup, attempt)
            self._evidence(topup, attempt.id, at_ms, "vanished", "")
            self._post(topup.account, reversal)
            self._advance(topup, fact, at_ms, reason)
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
                self._set_charge(topup, abandoned=reason or fact)
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
            self._say(topup.account, Note.GONE.of(topup.rail), "1", at_ms)
            self._advance(topup, Fact.DROP, at_ms, reason)
        return self.topup(topup.id)

    def settle(self, topup: TopUp, attempt: Attempt, entry: Entry, at_ms: int) -> TopUp:
        """Book an attempt whose block is safe; once."""
        with self._write(at_ms) as db:  # not the entry's time: that is the chain's, and a provider could make it up
            changed = db.execute("UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0", (attempt.id,)).rowcount
            if changed:
                self._post(topup.account, entry)
        return self.topup(topup.id)

    def finish(self, topup: TopUp, entry: Entry, at_ms: int) -> TopUp:
        """Book the posting and end the top-up."""
        with self._write(at_ms) as db:
            self._post(topup.account, entry)
            # A repeated try of a charge that the one before it has paid after all: the next payment outbids it.
            db.execute("UPDATE slot SET state = 'released' WHERE topup = ? AND state = 'in_flight'", (topup.id,))
            self._advance(topup, Fact.SETTLED, at_ms)
        return self.topup(topup.id)

    # -- nonces that something unknown has used -------------------------------------------------------------------

    def taken(self, topup_id: str) -> dict[int, Taken]:
        """Return which nonces of a top-up something unknown has used, by the oldest attempt there."""
        sql = "SELECT taken.* FROM taken JOIN attempt ON attempt.id = taken.attempt WHERE attempt.topup = ?"
        return {
            int(row["attempt"]): Taken(row["since_ms"], row["block"], row["block_hash"] or b"")
            for row in self._all(sql, topup_id)
        }

    def keep_taken(self, topup: TopUp, attempt: Attempt, taken: Taken, at_ms: int) -> None:
        """Store since when a nonce is used by something unknown, and by the end of which block."""
        with self._write(at_ms) as db:
            row = (attempt.id, taken.since_ms, taken.block_number, taken.block_hash or None)
            db.execute("INSERT OR REPLACE INTO taken VALUES (?,?,?,?)", row)
            self._evidence(topup, attempt.id, at_ms, "nonce_taken", f"block {taken.block_number}")

    def forget_taken(self, topup: TopUp, attempts: Sequence[int], at_ms: int) -> None:
        """Store that the nonces of these attempts are explained, or free again."""
        with self._write(at_ms) as db:
            for number in attempts:
                db.execute("DELETE FROM taken WHERE attempt = ?", (number,))
                self._evidence(topup, number, at_ms, "nonce_explained", "")

    def adopted_nonces(self, topup: TopUp) -> frozenset[tuple[int, int]]:
        """Return lane and nonce of this top-up's own transactions where a person took over one that paid nothing."""
        sql = (
            "SELECT DISTINCT attempt.lane, attempt.nonce FROM attempt JOIN adopted ON adopted.nonce = attempt.nonce"
            " AND adopted.wallet = attempt.address AND adopted.chain_id = attempt.chain_id"
            " WHERE attempt.topup = ? AND attempt.broadcaster = 'us' AND adopted.topup IS NULL"
        )
        return frozenset(
            (int.from_bytes(row["lane"], "big"), int.from_bytes(row["nonce"], "big"))
            for row in self._all(sql, topup.id)
        )
