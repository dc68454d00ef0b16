"""What is stored of top-ups, their charges and attempts, and of the nonces that these hold?"""

import sqlite3
from typing import Any

from topup.domain.errors import StoreFenced
from topup.domain.lifecycle import TERMINAL, Attempt, ChargeRow, Fact, Plan, State, TopUp, advance
from topup.domain.messages import of_state
from topup.domain.notes import PROGRAM, Note
from topup.ledger import database, rows
from topup.ledger.journal import Journal

# The key of a slot, for the statements below.
SLOT = "chain_id = ? AND address = ? AND lane = ? AND nonce = ?"


class TopUps(Journal):
    """Top-ups with their charges, attempts and nonces."""

    def open_topup(self, account: str) -> TopUp | None:
        """Return the one top-up of this account that is not finished."""
        sql = "SELECT * FROM topup WHERE account = ? AND state NOT IN ('done', 'dropped', 'failed')"
        return next((self._load(row) for row in self._all(sql, account)), None)

    def topup(self, topup_id: str) -> TopUp:
        """Return one top-up with its charges and attempts."""
        stored = self._all("SELECT * FROM topup WHERE id = ?", topup_id)
        if not stored:
            raise KeyError(topup_id)
        return self._load(stored[0])

    def accounts(self) -> list[str]:
        """Return every account that was ever read or bought for."""
        sql = "SELECT account FROM reading UNION SELECT account FROM topup ORDER BY account"
        return [row["account"] for row in self._all(sql)]

    def latest(self, account: str, count: int) -> list[TopUp]:
        """Return the newest top-ups, newest first."""
        sql = "SELECT * FROM topup WHERE account = ? ORDER BY decided_ms DESC, rowid DESC LIMIT ?"
        return [self._load(row) for row in self._all(sql, account, count)]

    def ended(self, account: str) -> dict[State, int]:
        """Return how many top-ups have come to each end, where any has."""
        sql = "SELECT state, count(*) AS n FROM topup WHERE account = ? AND state IN ('done', 'dropped', 'failed')"
        return {State(row["state"]): int(row["n"]) for row in self._all(f"{sql} GROUP BY state", account)}

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
            self._say(account, Note.BY_HAND, " ".join([*kept, str(at_ms)]), at_ms)

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
        return next((self._load(row) for row in self._all(sql, account)), None)

    def afterwards(self, account: str, wallet: bytes) -> list[tuple[TopUp, Attempt]]:
        """Return attempts of ended top-ups of this wallet for which the chain may still change something."""
        sql = "WHERE attempt.final = 0 AND attempt.intended_ms IS NOT NULL AND topup.account = ? AND topup.wallet = ?"
        return self._of_ended(sql, account, wallet)

    def settled_from(self, topup: TopUp, nonce: int) -> list[tuple[TopUp, Attempt]]:
        """Return what ended top-ups on the same way have in final blocks at this nonce or a later one.

        What was adopted without its charge is left out: there is nothing to look for it by.
        """
        sql = (
            "JOIN charge ON charge.topup = attempt.topup AND charge.seq = attempt.charge_seq"
            " WHERE attempt.final = 1 AND attempt.inclusion IS NOT NULL AND charge.raw IS NOT NULL"
            " AND attempt.broadcaster = 'us' AND attempt.nonce >= ? AND topup.account = ? AND topup.wallet = ?"
            " AND topup.rail = ? AND topup.chain_id = ? AND topup.id != ?"
        )
        values = (rows.word(nonce), topup.account, topup.wallet, topup.rail, topup.chain_id, topup.id)
        return self._of_ended(sql, *values, most=100)

    def _of_ended(self, which: str, *values: object, most: int = -1) -> list[tuple[TopUp, Attempt]]:
        """Return these attempts of ended top-ups with their owners, oldest first, so many at most; -1: all of them."""
        sql = (
            f"SELECT attempt.id AS attempt, topup.* FROM attempt JOIN topup ON topup.id = attempt.topup {which}"
            " AND topup.state IN ('done', 'dropped', 'failed') ORDER BY attempt.id LIMIT ?"
        )
        values = (*values, most)
        loaded = [(row["attempt"], self._load(row)) for row in self._all(sql, *values)]
        return [(topup, attempt) for number, topup in loaded for attempt in topup.attempts if attempt.id == number]

    def at_same_nonce(self, topup: TopUp) -> list[Attempt]:
        """Return what other top-ups have sent at any nonce of this one, settled or not."""
        slot = "chain_id, address, lane, nonce"
        sql = (
            "SELECT * FROM attempt WHERE topup != ? AND intended_ms IS NOT NULL"
            f" AND ({slot}) IN (SELECT {slot} FROM attempt WHERE topup = ? AND intended_ms IS NOT NULL) ORDER BY id"
        )
        return [rows.attempt(row) for row in self._all(sql, topup.id, topup.id)]

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
        return max(used, self._adopted_below(chain_id, wallet))

    def _adopted_below(self, chain_id: int, wallet: bytes) -> int:
        return int(self.told("", Note.ADOPTED_NONCE.of(chain_id, wallet.hex())) or 0)

    def adopt_nonce(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int, by: str = PROGRAM) -> None:
        """Store that a person accepts all transactions below `nonce`: none is ours, or all were looked at."""
        with self._write(at_ms):
            self._say("", Note.ADOPTED_NONCE.of(chain_id, wallet.hex()), str(nonce), at_ms, by)

    # -- inside -------------------------------------------------------------------------------------------------

    def _add_topup(self, topup: TopUp, at_ms: int, fact: str, detail: str) -> None:
        self._insert("topup", **rows.columns(topup))
        self._arrow(topup.id, at_ms, fact, topup.state, detail)

    def _add_attempt(self, topup: TopUp, seq: int, plan: Plan, **signed: object) -> int:
        return self._insert(
            "attempt",
            topup=topup.id,
            charge_seq=seq,
            **slot_of(topup, plan),
            kind=plan.kind.value,
            broadcaster=plan.broadcaster.value,
            plan=rows.as_json(plan),
            **signed,
        )

    def _add_signed(self, topup: TopUp, seq: int, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> int:
        """Store what is signed (raw bytes and hash) with the intent to send it."""
        raw, tx_hash = signed
        times = dict.fromkeys(("planned_ms", "signed_ms", "intended_ms"), at_ms)
        return self._add_attempt(topup, seq, plan, raw=raw, hash=tx_hash, **times)

    def _advance(self, topup: TopUp, fact: Fact | None, at_ms: int, detail: str = "") -> None:
        """Take an arrow of the table; None stays."""
        if fact is None:
            return
        state = advance(topup.state, fact)
        # A reason says why something is not as hoped: a hash is none, and what is done needs none any more.
        detail = self.hide(detail)
        said = detail if detail and fact not in (Fact.SIGNED, Fact.BUMP, Fact.CANCEL) else topup.reason
        reason = "" if state is State.DONE else said
        changed = self._db.execute(
            "UPDATE topup SET state = ?, moved_ms = ?, reason = ? WHERE id = ? AND state = ?",
            (state.value, at_ms, reason, topup.id, topup.state.value),
        ).rowcount
        if changed != 1:
            raise StoreFenced(
                f"top-up {topup.id} is no longer {topup.state}", remedy="only one topup may work on a ledger"
            )
        self._arrow(topup.id, at_ms, fact.value, state, detail)
        kind = of_state(state, reason) if state is not topup.state else None
        if kind is not None:
            told = {"topup_id": topup.id, "state": state.value, "reason": reason, "amount_usd": str(topup.amount)}
            self._tell(topup.account, topup.id, kind, at_ms, told | {"rail": topup.rail, "why": topup.why})

    def _arrow(self, topup_id: str, at_ms: int, fact: str, state: State, detail: str) -> None:
        self._insert("move", topup=topup_id, at_ms=at_ms, fact=fact, state=state.value, detail=self.hide(detail))

    def _put_slot(self, topup: TopUp, plan: Plan, state: str) -> None:
        """Give a nonce to a top-up. That a wallet has no second one in flight is the database's own rule."""
        self._db.execute(
            "INSERT INTO slot VALUES (?,?,?,?,?,?) ON CONFLICT (chain_id, address, lane, nonce)"
            " DO UPDATE SET topup = excluded.topup, state = excluded.state",
            (*slot_of(topup, plan).values(), topup.id, state),
        )

    def _set_slot(self, topup: TopUp, attempt: Attempt, state: str) -> None:
        self._db.execute(f"UPDATE slot SET state = ? WHERE {SLOT}", (state, *slot_of(topup, attempt.plan).values()))

    def _vacate(self, topup: TopUp, attempt: Attempt) -> None:
        """Give a nonce back to the chain's next block when nothing of ours stands there any more.

        It stays in flight, so that nothing else takes it, as long as its top-up is open, still pursues that charge, and
        has nothing else in flight. What an earlier charge has left there is outbid by a payment of the newest.
        """
        slot = tuple(slot_of(topup, attempt.plan).values())
        if self._all(f"SELECT 1 FROM attempt WHERE {SLOT} AND inclusion IS NOT NULL", *slot):
            return
        other = self._all("SELECT 1 FROM slot WHERE chain_id = ? AND address = ? AND state = 'in_flight'", *slot[:2])
        free = other or topup.state in TERMINAL or attempt.charge_seq != len(topup.charges)
        self._set_slot(topup, attempt, "released" if free else "in_flight")

    def _evidence(self, topup: TopUp, attempt: int, at_ms: int, kind: str, detail: str) -> None:
        self._insert("evidence", topup=topup.id, attempt=attempt, at_ms=at_ms, kind=kind, detail=self.hide(detail))

    @rows.legible("top-up")
    def _load(self, row: sqlite3.Row) -> TopUp:
        charges = self._all("SELECT * FROM charge WHERE topup = ? ORDER BY seq", row["id"])
        attempts = self._all("SELECT * FROM attempt WHERE topup = ? ORDER BY id", row["id"])
        return rows.record(
            TopUp,
            row,
            charges=tuple(rows.record(ChargeRow, c, proven=c["intent_id"] is not None) for c in charges),
            attempts=tuple(rows.attempt(a) for a in attempts),
        )


def slot_of(topup: TopUp, plan: Plan) -> dict[str, object]:
    """Return the key of the slot that a plan takes, in the order of `SLOT`."""
    words = {"lane": rows.word(plan.lane), "nonce": rows.word(plan.nonce)}
    return {"chain_id": plan.chain_id, "address": topup.wallet, **words}


def current(topup: TopUp) -> Attempt:
    """Return the newest attempt of a top-up that has reserved one."""
    attempt = topup.attempt
    assert attempt is not None, "a reserved top-up has an attempt"
    return attempt
