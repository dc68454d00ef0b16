"""What does SQLite need to know? The `Store` port over one file: WAL, synchronous=FULL, one writer.

A writer holds an exclusive lock on a file beside the database and raises the ledger's epoch; every write checks
that epoch in its own transaction, so a process that lost the lock without noticing cannot write. Readers
(`status`, `history`) open the file without the lock. `pause`, `resume` and requests are written by any process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, Any, Self

from topup.books import Commodity, Entry, Line
from topup.charge import Verified
from topup.credits import Doubt, Reading, Unknown
from topup.errors import StoreBusy, StoreFenced, StoreUnusable
from topup.lifecycle import (
    TERMINAL,
    Attempt,
    Broadcaster,
    ChargeRow,
    Fact,
    Inclusion,
    Kind,
    Plan,
    State,
    TopUp,
    advance,
)
from topup.money import Bps, Usd, Wei
from topup.policy import Past
from topup.ports import Control, Requested, Seen, Sent
from topup.store.schema import MIGRATIONS

FILE = "ledger.sqlite3"
BUSY_TIMEOUT_MS = 5_000
# The name under which charges requested by hand are counted.
BY_HAND = "charges_by_hand"
# The key of a slot, for the statements below.
PLACE = "chain_id = ? AND address = ? AND lane = ? AND nonce = ?"


class SqliteStore:
    """The ledger in one SQLite file. Use `open_writer` or `open_reader`."""

    def __init__(self, connection: sqlite3.Connection, lock: IO[bytes] | None, epoch: int | None) -> None:
        """Keep an open connection; `epoch` is None for a reader."""
        self._db = connection
        self._lock = lock
        self._epoch = epoch
        self._newest = int(self._one("SELECT newest_ms FROM ledger")[0])

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def open_writer(cls, directory: Path) -> Self:
        """Take the ledger in `directory` over as its one writer, creating it when it is new.

        Raises:
            StoreBusy: another process holds it.
            StoreUnusable: it cannot be written, is damaged, or was made by a newer program.
        """
        with _explained(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (directory / "lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                raise StoreBusy(
                    f"another topup holds the ledger in {directory}",
                    remedy="ask the running daemon (`topup status`), or stop it first",
                ) from None
            with contextlib.ExitStack() as undo:
                undo.callback(lock.close)
                connection = _connect(directory / FILE)
                undo.callback(connection.close)
                _migrate(connection)
                _examine(connection, directory)
                with _transaction(connection):
                    connection.execute("UPDATE ledger SET epoch = epoch + 1")
                    (epoch,) = connection.execute("SELECT epoch FROM ledger").fetchone()
                store = cls(connection, lock, epoch)
                undo.pop_all()
                return store

    @classmethod
    def open_reader(cls, directory: Path) -> Self:
        """Open the ledger in `directory` beside its writer.

        Raises:
            StoreUnusable: there is none, it is damaged, or it was made by a newer program.
        """
        path = directory / FILE
        if not path.exists():
            raise StoreUnusable(f"no ledger in {directory}", remedy="set state_dir, or start `topup run` once")
        with _explained(directory), contextlib.ExitStack() as undo:
            connection = _connect(path)
            undo.callback(connection.close)
            version = _version(connection)
            if version != len(MIGRATIONS):
                raise StoreUnusable(
                    f"the ledger in {directory} has version {version}, this program knows {len(MIGRATIONS)}",
                    remedy="use the topup that wrote it, or let this one's daemon migrate it",
                )
            store = cls(connection, None, None)
            undo.pop_all()
            return store

    @classmethod
    def open_copy(cls, directory: Path) -> Self:
        """Open a copy in memory of the ledger in `directory`, empty when there is none; what is written to it is lost.

        Raises:
            StoreUnusable: the ledger cannot be read, or another version wrote it.
        """
        with _explained(directory), contextlib.ExitStack() as undo:
            connection = _connect(Path(":memory:"))
            undo.callback(connection.close)
            if cls.exists(directory):
                with contextlib.closing(cls.open_reader(directory)) as own:
                    own._db.backup(connection)  # noqa: SLF001 - one of this class
            else:
                _migrate(connection)
            (epoch,) = connection.execute("SELECT epoch FROM ledger").fetchone()
            store = cls(connection, None, epoch)
            undo.pop_all()
            return store

    @staticmethod
    def exists(directory: Path) -> bool:
        """Tell whether there is a ledger in `directory`."""
        return (directory / FILE).exists()

    @staticmethod
    def holder(directory: Path) -> int | None:
        """Return the process that holds the ledger, as Linux tells it; None when it is free or cannot be told."""
        try:
            place = str((directory / "lock").stat().st_ino)
            held = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        except OSError:
            return None
        return next((int(h[4]) for h in held if "FLOCK" in h and h[5].split(":")[-1] == place), None)

    @staticmethod
    def held(directory: Path) -> bool:
        """Tell whether any process holds the ledger as its writer."""
        with (directory / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def damage(self) -> str | None:
        """Read and check every page and index; return what is wrong first, or None."""
        (found,) = self._one("PRAGMA integrity_check(1)")
        return None if found == "ok" else str(found)

    def close(self) -> None:
        """Close the file and release the lock."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    # -- time and readings --------------------------------------------------------------------------------------

    def now_ms(self, clock_ms: int) -> int:
        """Return ledger time, which never runs backwards."""
        self._newest = max(self._newest, clock_ms)
        return self._newest

    def record_reading(self, account: str, reading: Reading | Unknown) -> None:
        """Keep what the account showed."""
        said = reading if isinstance(reading, Reading) else reading.said
        row = (
            account,
            reading.at_ms,
            str(said.total_credits) if said else None,
            str(said.total_usage) if said else None,
            None if isinstance(reading, Reading) else reading.doubt.value,
            "" if isinstance(reading, Reading) else reading.detail,
        )
        with self._write(reading.at_ms) as db:
            db.execute(
                "INSERT INTO reading (account, at_ms, total_credits, total_usage, doubt, detail) VALUES (?,?,?,?,?,?)",
                row,
            )

    def readings(self, account: str, since_ms: int) -> list[Reading]:
        """Return believed readings since then, oldest first."""
        rows = self._all(
            "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NULL ORDER BY at_ms, id",
            account,
            since_ms,
        )
        return [_reading(row) for row in rows]

    def last_reading(self, account: str) -> Reading | None:
        """Return the newest believed reading."""
        rows = self._all(
            "SELECT * FROM reading WHERE account = ? AND doubt IS NULL ORDER BY at_ms DESC, id DESC LIMIT 1", account
        )
        return _reading(rows[0]) if rows else None

    def doubted(self, account: str, since_ms: int) -> list[Unknown]:
        """Return readings that were not believed since then, oldest first."""
        rows = self._all(
            "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NOT NULL ORDER BY at_ms, id",
            account,
            since_ms,
        )
        return [_unknown(row) for row in rows]

    def ever_non_zero(self, account: str) -> bool:
        """Tell whether any reading, believed or not, showed something other than 0/0."""
        sql = "SELECT 1 FROM reading WHERE account = ? AND (total_credits != '0' OR total_usage != '0') LIMIT 1"
        return bool(self._all(sql, account))

    def thin_readings(self, account: str, before_ms: int) -> int:
        """Keep one reading an hour of those older than `before_ms`; return how many went."""
        with self._write(before_ms) as db:
            cursor = db.execute(
                "DELETE FROM reading WHERE account = ? AND at_ms < ? AND id NOT IN"
                " (SELECT max(id) FROM reading WHERE account = ? AND at_ms < ? GROUP BY at_ms / 3600000)",
                (account, before_ms, account, before_ms),
            )
            return cursor.rowcount

    # -- what the policy asks -----------------------------------------------------------------------------------

    def past(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return earlier top-ups as the policy sees them, oldest first.

        What was dropped because it was no longer needed leaves no trace here; anything else that ended without
        a payment is a failure, and anything unfinished counts at its maximum.
        """
        past = []
        # What is open, or ended lately, may have been decided long before.
        sql = "SELECT * FROM topup WHERE account = ? AND moved_ms >= ? ORDER BY decided_ms, rowid"
        for row in self._all(sql, account, since_ms):
            topup = self._load(row)
            failed = topup.state in (State.DROPPED, State.FAILED)
            if failed and topup.reason == "no_longer_needed":
                continue
            gas = Wei(0)
            for attempt in topup.attempts:
                if attempt.inclusion is not None and not attempt.inclusion.success:
                    gas = gas + attempt.inclusion.gas + attempt.inclusion.l1_fee
            spent = Usd.of(0) if failed else topup.amount.plus_bps(Bps(fee_bps))
            left = max((a.intended_ms for a in topup.attempts if a.intended_ms is not None), default=topup.decided_ms)
            when = left if topup.state in TERMINAL else self._newest
            past.append(Past(when, spent, failed, gas, topup.id))
        past.sort(key=lambda p: p.decided_ms)
        return past

    def charge_requests(self, account: str, since_ms: int) -> list[int]:
        """Return the times charges were requested, oldest first; those requested by hand count as well."""
        sql = "SELECT requested_ms FROM charge WHERE account = ? AND requested_ms >= ?"
        asked = [int(row["requested_ms"]) for row in self._all(sql, account, since_ms)]
        by_hand = [int(at) for at in (self.told(account, BY_HAND) or "").split()]
        return sorted(asked + [at for at in by_hand if at >= since_ms])

    def ask_by_hand(self, account: str, at_ms: int, keep_ms: int) -> None:
        """Store that a charge is about to be requested that belongs to no top-up; any process may.

        Those older than `keep_ms` before this one are forgotten.
        """
        with self._db_errors(), _transaction(self._db):
            kept = [at for at in (self.told(account, BY_HAND) or "").split() if int(at) >= at_ms - keep_ms]
            row = (account, BY_HAND, " ".join([*kept, str(at_ms)]), at_ms, "topup")
            self._db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", row)

    def seen_intents(self, topup_id: str) -> list[tuple[bytes, bytes]]:
        """Return (operator, id) of every proven charge but the newest of this top-up, which may be proven again."""
        sql = (
            "SELECT operator, intent_id FROM charge WHERE intent_id IS NOT NULL AND NOT"
            " (topup = ? AND seq = (SELECT max(seq) FROM charge WHERE topup = ?))"
        )
        return [(row["operator"], row["intent_id"]) for row in self._all(sql, topup_id, topup_id)]

    # -- top-ups ------------------------------------------------------------------------------------------------

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

    def moves(self, topup_id: str) -> list[dict[str, Any]]:
        """Return every arrow a top-up took, oldest first."""
        return [
            dict(row)
            for row in self._all("SELECT at_ms, fact, state, detail FROM move WHERE topup = ? ORDER BY id", topup_id)
        ]

    def begin(self, topup: TopUp) -> TopUp:
        """Store a new decision; the database refuses a second open one for the account."""
        with self._write(topup.decided_ms) as db:
            db.execute(
                "INSERT INTO topup VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
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
        """Store whose id the newest charge carries."""
        intent = verified.demand.intent
        with self._write(topup.moved_ms) as db:
            db.execute(
                "UPDATE charge SET operator = ?, intent_id = ? WHERE topup = ? AND seq = ?",
                (intent.operator, intent.id, topup.id, len(topup.charges)),
            )
        return self.topup(topup.id)

    def reserve(self, topup: TopUp, plan: Plan, baseline: Reading, wallet: Wei, at_ms: int) -> TopUp:
        """Store the unsigned payment and take its nonce."""
        place = (plan.chain_id, topup.wallet, _word(plan.lane), _word(plan.nonce))
        with self._write(at_ms) as db:
            taken = db.execute(f"SELECT state FROM slot WHERE {PLACE}", place).fetchone()
            if taken is None:
                db.execute("INSERT INTO slot VALUES (?,?,?,?,?,'in_flight')", (*place, topup.id))
            elif taken["state"] == "released":
                db.execute(f"UPDATE slot SET state = 'in_flight', topup = ? WHERE {PLACE}", (topup.id, *place))
            else:
                raise StoreUnusable(
                    f"nonce {plan.nonce} is already {taken['state']} in the ledger", remedy="run `topup doctor`"
                )
            db.execute(
                "INSERT INTO attempt"
                " (topup, charge_seq, chain_id, address, lane, nonce, kind, broadcaster, plan, planned_ms)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                (topup.id, len(topup.charges), *place, plan.kind.value, Broadcaster.US.value, _plan_json(plan), at_ms),
            )
            db.execute(
                "UPDATE topup SET baseline = ?, balance_before = ?, wallet_before = ? WHERE id = ?",
                (str(baseline.total_credits), str(baseline.balance), str(wallet.units), topup.id),
            )
            self._advance(topup, Fact.RESERVE, at_ms)
        return self.topup(topup.id)

    def signed(self, topup: TopUp, raw: bytes, tx_hash: bytes, at_ms: int) -> TopUp:
        """Store the signed payment, provably not sent."""
        attempt = _current(topup)
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET raw = ?, hash = ?, signed_ms = ? WHERE id = ?", (raw, tx_hash, at_ms, attempt.id)
            )
            self._advance(topup, Fact.SIGNED, at_ms, "0x" + tx_hash.hex())
        return self.topup(topup.id)

    def intend(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store the intent to send."""
        attempt = _current(topup)
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET intended_ms = ? WHERE id = ?", (at_ms, attempt.id))
            self._advance(topup, Fact.INTEND, at_ms)
        return self.topup(topup.id)

    def withdraw(self, topup: TopUp, reason: str, at_ms: int) -> TopUp:
        """Give a nonce back that was never sent."""
        attempt = _current(topup)
        with self._write(at_ms) as db:
            # The raw bytes go with it: what is not stored cannot be sent by mistake.
            db.execute("UPDATE attempt SET withdrawn = 1, raw = NULL, hash = NULL WHERE id = ?", (attempt.id,))
            self._slot(topup, attempt, "released")
            self._advance(topup, Fact.WITHDRAWN, at_ms, reason)
        return self.topup(topup.id)

    def delivered(self, topup: TopUp, attempt: Attempt, sent: Sent, at_ms: int) -> TopUp:
        """Store what a broadcast was answered."""
        with self._write(at_ms) as db:
            db.execute(
                "UPDATE attempt SET last_sent_ms = ?, sends = sends + 1, answer = ? WHERE id = ?",
                (at_ms, f"{sent.delivery}: {sent.detail}"[:300], attempt.id),
            )
        return self.topup(topup.id)

    def included(self, topup: TopUp, attempt: Attempt, seen: Seen, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that an attempt stands in a canonical block; `fact` is the arrow this takes, None to stay."""
        inclusion = _inclusion_json(seen.inclusion)
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = ? WHERE id = ?", (inclusion, attempt.id))
            self._slot(topup, attempt, "used")
            self._evidence(topup, attempt, at_ms, "paid" if seen.inclusion.success else "reverted", inclusion)
            if fact is not None:
                self._advance(topup, fact, at_ms, seen.reason)
        return self.topup(topup.id)

    def vanished(self, topup: TopUp, attempt: Attempt, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that the block of an attempt is no longer canonical; `fact` as for `included`."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL WHERE id = ?", (attempt.id,))
            # The nonce stays taken: nothing else may use it while these bytes can still be included.
            self._evidence(topup, attempt, at_ms, "vanished", "")
            if fact is not None:
                self._advance(topup, fact, at_ms)
        return self.topup(topup.id)

    def next_nonce(self, chain_id: int, wallet: bytes) -> int:
        """Return the first nonce this ledger has neither used nor adopted."""
        row = self._one(
            "SELECT max(nonce) AS nonce FROM slot WHERE chain_id = ? AND address = ? AND state = 'used'",
            chain_id,
            wallet,
        )
        used = int.from_bytes(row["nonce"], "big") + 1 if row["nonce"] is not None else 0
        adopted = self.told("", _adopted(chain_id, wallet))
        return max(used, int(adopted) if adopted is not None else 0)

    def adopt_nonce(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int) -> None:
        """Store that a person accepts all transactions below `nonce` as none of ours."""
        self.say("", _adopted(chain_id, wallet), str(nonce), at_ms, "topup")

    def said_within(self, account: str, name: str, now_ms: int, span_ms: int) -> bool:
        """Tell whether a person said `name` within the last `span_ms`."""
        rows = self._all("SELECT at_ms FROM control WHERE account = ? AND name = ? AND value = '1'", account, name)
        return bool(rows) and now_ms - int(rows[0]["at_ms"]) <= span_ms

    def rebase(self, topup: TopUp, baseline: Usd) -> TopUp:
        """Store a moved baseline."""
        with self._write(topup.moved_ms) as db:
            db.execute("UPDATE topup SET baseline = ? WHERE id = ?", (str(baseline), topup.id))
        return self.topup(topup.id)

    def move(self, topup: TopUp, fact: Fact, at_ms: int, reason: str = "") -> TopUp:
        """Move a top-up along the table with nothing else to store."""
        with self._write(at_ms) as db:
            if fact in (Fact.ANSWER_LOST, Fact.CHARGE_DEAD):
                db.execute(
                    "UPDATE charge SET abandoned = ? WHERE topup = ? AND seq = ?",
                    (reason or fact, topup.id, len(topup.charges)),
                )
            if fact is Fact.FAIL:
                # What is dead holds no nonce: one that was never included may be taken by the next payment.
                db.execute("UPDATE slot SET state = 'released' WHERE topup = ? AND state = 'in_flight'", (topup.id,))
            if fact is Fact.POSTED:
                db.execute("UPDATE topup SET credited_ms = ? WHERE id = ?", (at_ms, topup.id))
            self._advance(topup, fact, at_ms, reason)
        return self.topup(topup.id)

    def settle(self, topup: TopUp, attempt: Attempt, entry: Entry, at_ms: int) -> TopUp:
        """Book an attempt whose block is safe; once."""
        with self._write(at_ms) as db:  # not the entry's time: that is the chain's, and a provider could make it up
            changed = db.execute("UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0", (attempt.id,)).rowcount
            if changed:
                self._post(entry, topup.account)
        return self.topup(topup.id)

    def finish(self, topup: TopUp, entry: Entry, at_ms: int) -> TopUp:
        """Book the posting and end the top-up."""
        with self._write(at_ms):
            self._post(entry, topup.account)
            self._advance(topup, Fact.SETTLED, at_ms)
        return self.topup(topup.id)

    # -- the journal --------------------------------------------------------------------------------------------

    def entries(self, account: str) -> list[Entry]:
        """Return the whole journal of an account, oldest first."""
        entries = []
        for row in self._all("SELECT * FROM entry WHERE account = ? ORDER BY id", account):
            lines = tuple(
                Line(line["account"], Commodity(line["commodity"]), int(line["units"]))
                for line in self._all("SELECT * FROM line WHERE entry = ? ORDER BY n", row["id"])
            )
            value = Usd.of(row["usd_value"]) if row["usd_value"] is not None else None
            entries.append(
                Entry(
                    at_ms=row["at_ms"],
                    topup_id=row["topup"],
                    text=row["text"],
                    tx_hash=row["tx_hash"],
                    charge_id=row["charge_id"],
                    block_number=row["block_number"],
                    usd_value=value,
                    price_source=row["price_source"],
                    lines=lines,
                )
            )
        return entries

    # -- what people say ----------------------------------------------------------------------------------------

    def control(self, account: str) -> Control:
        """Return what people have told this ledger."""
        rows = self._all("SELECT name, value, by, at_ms FROM control WHERE account = ?", account)
        said = {row["name"]: (row["value"], row["by"], row["at_ms"]) for row in rows}
        paused, by, at_ms = said.get("paused", ("0", "", 0))
        gone = said.get("gone", ("0", "", 0))[0]
        return Control(paused == "1", gone == "1", paused_by=by, resumed_ms=at_ms if paused == "0" else 0)

    def set_gone(self, account: str, gone: bool, at_ms: int) -> None:  # noqa: FBT001 - a flag is what it is
        """Put up or take down the tombstone of the charge endpoint."""
        self.say(account, "gone", str(int(gone)), at_ms, "topup")

    def say(self, account: str, name: str, value: str, at_ms: int, by: str) -> None:
        """Store what a person wants of this ledger; any process may."""
        with self._db_errors(), _transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", (account, name, value, at_ms, by))

    def told(self, account: str, name: str) -> str | None:
        """Return what was last said under `name`."""
        rows = self._all("SELECT value FROM control WHERE account = ? AND name = ?", account, name)
        return str(rows[0]["value"]) if rows else None

    def request(self, account: str, amount: Usd | None, forced: bool, at_ms: int) -> int:  # noqa: FBT001
        """Leave a request for a cycle with the running daemon; return its number."""
        with self._db_errors(), _transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO request (account, at_ms, amount, forced) VALUES (?,?,?,?)",
                (account, at_ms, str(amount) if amount is not None else None, int(forced)),
            )
            return int(cursor.lastrowid or 0)

    def next_request(self, account: str) -> Requested | None:
        """Return the oldest request nobody has answered."""
        rows = self._all("SELECT * FROM request WHERE account = ? AND outcome IS NULL ORDER BY id LIMIT 1", account)
        return _request(rows[0]) if rows else None

    def take_request(self, number: int, at_ms: int) -> None:
        """Store that a request is being carried out; it will not be begun again."""
        with self._write(at_ms) as db:
            db.execute("UPDATE request SET taken_ms = ? WHERE id = ?", (at_ms, number))

    def answer_request(self, number: int, *, outcome: str, topup: str | None, at_ms: int) -> None:
        """Store what became of a request."""
        with self._write(at_ms) as db:
            db.execute("UPDATE request SET outcome = ?, topup = ? WHERE id = ?", (outcome, topup, number))

    def requested(self, number: int) -> Requested:
        """Return one request as it stands."""
        return _request(self._one("SELECT * FROM request WHERE id = ?", number))

    # -- inside -------------------------------------------------------------------------------------------------

    def _advance(self, topup: TopUp, fact: Fact, at_ms: int, detail: str = "") -> None:
        state = advance(topup.state, fact)
        # A reason says why something is not as hoped: a hash is none, and what is done needs none any more.
        told = detail if detail and fact is not Fact.SIGNED else topup.reason
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
            (topup_id, at_ms, fact, state.value, detail),
        )

    def _slot(self, topup: TopUp, attempt: Attempt, state: str) -> None:
        self._db.execute(
            f"UPDATE slot SET state = ? WHERE {PLACE}",
            (state, attempt.plan.chain_id, topup.wallet, _word(attempt.plan.lane), _word(attempt.plan.nonce)),
        )

    def _evidence(self, topup: TopUp, attempt: Attempt, at_ms: int, kind: str, detail: str) -> None:
        self._db.execute(
            "INSERT INTO evidence (topup, attempt, at_ms, kind, detail) VALUES (?,?,?,?,?)",
            (topup.id, attempt.id, at_ms, kind, detail),
        )

    def _post(self, entry: Entry, account: str) -> None:
        cursor = self._db.execute(
            "INSERT INTO entry (account, topup, at_ms, text, tx_hash, charge_id, block_number, usd_value, price_source)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            (
                account,
                entry.topup_id,
                entry.at_ms,
                entry.text,
                entry.tx_hash,
                entry.charge_id,
                entry.block_number,
                str(entry.usd_value) if entry.usd_value is not None else None,
                entry.price_source,
            ),
        )
        rows = [(cursor.lastrowid, n, x.account, x.commodity.value, str(x.units)) for n, x in enumerate(entry.lines)]
        self._db.executemany("INSERT INTO line VALUES (?,?,?,?,?)", rows)

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
            baseline=_usd(row["baseline"]),
            balance_before=_usd(row["balance_before"]),
            wallet_before=Wei(int(row["wallet_before"])) if row["wallet_before"] is not None else None,
            reason=row["reason"],
            credited_ms=row["credited_ms"],
            charges=tuple(
                ChargeRow(c["seq"], c["requested_ms"], c["raw"], c["abandoned"], c["intent_id"] is not None)
                for c in charges
            ),
            attempts=tuple(_attempt(a) for a in attempts),
        )

    @contextlib.contextmanager
    def _write(self, at_ms: int) -> Iterator[sqlite3.Connection]:
        """One committed transaction of the writer, checked against the epoch."""
        if self._epoch is None:
            raise StoreFenced("this process opened the ledger for reading")
        with self._db_errors(), _transaction(self._db):
            newest = self._db.execute(
                "UPDATE ledger SET newest_ms = max(newest_ms, ?) WHERE epoch = ?", (at_ms, self._epoch)
            ).rowcount
            if newest != 1:
                raise StoreFenced("another topup has taken this ledger over", remedy="stop this process")
            yield self._db

    @contextlib.contextmanager
    def _db_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StoreUnusable(
                f"the ledger refuses this: {error}", remedy="run `topup status`; nothing was changed"
            ) from error
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the ledger cannot be written: {error}",
                remedy="free disk space or repair its directory; nothing is spent until then",
            ) from error

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the ledger cannot be read: {error}", remedy="restore it from a backup, see docs/runbook.md"
            ) from error

    def _one(self, sql: str, *values: object) -> sqlite3.Row:
        (row,) = self._all(sql, *values)
        return row


def _connect(path: Path) -> sqlite3.Connection:
    existed = path.exists()
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.row_factory = sqlite3.Row
    if not existed and path.exists():
        path.chmod(0o600)
    # WAL lets readers look while the daemon writes; FULL makes a commit survive the loss of power (with WAL and
    # NORMAL the newest commits may be rolled back, and with them the record of a payment).
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"the ledger has version {version}, this program knows {len(MIGRATIONS)}",
            remedy="use the newer topup that wrote it",
        )
    for number in range(version, len(MIGRATIONS)):
        with _transaction(connection):
            for statement in _statements(MIGRATIONS[number]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")


def _examine(connection: sqlite3.Connection, directory: Path) -> None:
    """Read every page once before anything is spent: damage shows only where it is read."""
    found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise StoreUnusable(
            f"the ledger in {directory} is damaged: {found[0]}", remedy="restore it from a backup, see docs/runbook.md"
        )


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; executescript would commit between them."""
    statement = ""
    for line in script.splitlines():
        statement += line.split("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        # Inside the try: with WAL a full disk shows here, and a transaction left open would block every later one.
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnusable(
            f"the ledger in {directory} cannot be used: {error}",
            remedy=f"make {directory} a directory that user {os.getuid()} can write, with free space",
        ) from error


def _current(topup: TopUp) -> Attempt:
    attempt = topup.attempt
    assert attempt is not None, "a reserved top-up has an attempt"
    return attempt


def _adopted(chain_id: int, wallet: bytes) -> str:
    return f"adopted_nonce:{chain_id}:{wallet.hex()}"


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _usd(text: str | None) -> Usd | None:
    return None if text is None else Usd.of(text)


def _reading(row: sqlite3.Row) -> Reading:
    return Reading(Usd.of(row["total_credits"]), Usd.of(row["total_usage"]), row["at_ms"])


def _unknown(row: sqlite3.Row) -> Unknown:
    said = _reading(row) if row["total_credits"] is not None else None
    return Unknown(Doubt(row["doubt"]), row["detail"], row["at_ms"], said)


def _request(row: sqlite3.Row) -> Requested:
    return Requested(
        row["id"],
        row["at_ms"],
        row["taken_ms"] is not None,
        _usd(row["amount"]),
        bool(row["forced"]),
        row["topup"],
        row["outcome"],
    )


_WEI = {"value", "max_fee_per_gas", "max_priority_fee_per_gas", "l1_fee", "quote", "gas", "spent"}
_BYTES = {"to", "data", "block_hash"}


def _flat(record: Plan | Inclusion) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        match value:
            case Wei(units=units):
                flat[field.name] = str(units)
            case bytes():
                flat[field.name] = value.hex()
            case Kind():
                flat[field.name] = value.value
            case _:
                flat[field.name] = value
    return flat


def _unflat(flat: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, value in flat.items():
        read[name] = Wei(int(value)) if name in _WEI else bytes.fromhex(value) if name in _BYTES else value
    return read


def _plan_json(plan: Plan) -> str:
    return json.dumps(_flat(plan))


def _inclusion_json(inclusion: Inclusion) -> str:
    return json.dumps(_flat(inclusion))


def _attempt(row: sqlite3.Row) -> Attempt:
    plan = Plan(**_unflat(json.loads(row["plan"])))
    inclusion = Inclusion(**_unflat(json.loads(row["inclusion"]))) if row["inclusion"] else None
    return Attempt(
        id=row["id"],
        charge_seq=row["charge_seq"],
        plan=replace(plan, kind=Kind(plan.kind)),
        raw=row["raw"],
        hash=row["hash"],
        intended_ms=row["intended_ms"],
        last_sent_ms=row["last_sent_ms"],
        sends=row["sends"],
        withdrawn=bool(row["withdrawn"]),
        inclusion=inclusion,
        booked=bool(row["booked"]),
    )
