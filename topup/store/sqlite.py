"""What does SQLite need to know? The `Store` port over one file: WAL, synchronous=FULL, one writer.

A writer holds an exclusive lock on a file beside the database and raises the ledger's epoch; every write checks
that epoch in its own transaction, so a process that lost the lock without noticing cannot write. Readers
(`status`, `history`) open the file without the lock. `pause`, `resume` and requests are written by any process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any, Self

from topup.adoption import WHY, Adopted, Done, Known, Stray, Transfer, stray_entry
from topup.books import Commodity, Entry
from topup.charge import Verified
from topup.closing import Checkpoint, Closed
from topup.credits import DAY_MS, HOUR_MS, Reading, Unknown
from topup.errors import StoreBusy, StoreFenced, StoreUnusable
from topup.lifecycle import (
    TERMINAL,
    Attempt,
    Broadcaster,
    ChargeRow,
    Fact,
    Plan,
    State,
    TopUp,
    advance,
)
from topup.money import Usd, Wei
from topup.policy import Past
from topup.ports import GONE, Control, Requested, Seen, Sent
from topup.store import caps, file, journal, rows, usage
from topup.usage import ApiKey, DayUsed, Used

# The name under which charges requested by hand are counted.
BY_HAND = "charges_by_hand"
# The name under which the newest closing of the books is kept.
CLOSED = "closed"
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
# The key of a slot, for the statements below.
PLACE = "chain_id = ? AND address = ? AND lane = ? AND nonce = ?"


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


class SqliteStore:
    """The ledger in one SQLite file. Use `open_writer` or `open_reader`."""

    def __init__(self, connection: sqlite3.Connection, lock: IO[bytes] | None, epoch: int | None) -> None:
        """Keep an open connection; `epoch` is None for a reader."""
        self._db = connection
        self._lock = lock
        self._epoch = epoch
        path = connection.execute("PRAGMA database_list").fetchone()["file"]
        self._file = Path(path) if path else None  # None: in memory
        self._inode = file.inode(self._file)
        self._newest = int(self._one("SELECT newest_ms FROM ledger")[0])

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def open_writer(cls, directory: Path) -> Self:
        """Take the ledger in `directory` over as its one writer, creating it when it is new.

        Raises:
            StoreBusy: another process holds it.
            StoreUnusable: it cannot be written, is damaged, or was made by a newer program.
        """
        with file.explained(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            # flock ends with its process, so a lock file that is left behind holds nobody up. NFS before Linux 2.6.12
            # and some network file systems lock on one machine only: there the epoch alone keeps two writers apart.
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
                file.settle_file(directory)
                connection = file.connect(directory / file.FILE)
                undo.callback(connection.close)
                file.examine(connection, directory)
                file.migrate(connection, directory)
                with file.transaction(connection):
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
        path = directory / file.FILE
        if not path.exists():
            raise StoreUnusable(f"no ledger in {directory}", remedy="set state_dir, or start `topup run` once")
        with file.explained(directory), contextlib.ExitStack() as undo:
            file.not_empty(path)
            connection = file.connect(path)
            undo.callback(connection.close)
            file.must_be_known(connection, directory)
            store = cls(connection, None, None)
            undo.pop_all()
            return store

    @classmethod
    def open_copy(cls, directory: Path) -> Self:
        """Open a copy in memory of the ledger in `directory`, empty when there is none; what is written to it is lost.

        Raises:
            StoreUnusable: the ledger cannot be read, or another version wrote it.
        """
        with file.explained(directory), contextlib.ExitStack() as undo:
            connection = file.connect(Path(":memory:"))
            undo.callback(connection.close)
            if cls.exists(directory):
                with contextlib.closing(cls.open_reader(directory)) as own:
                    own._db.backup(connection)  # noqa: SLF001 - one of this class
            else:
                file.migrate(connection, directory)
            (epoch,) = connection.execute("SELECT epoch FROM ledger").fetchone()
            store = cls(connection, None, epoch)
            undo.pop_all()
            return store

    @staticmethod
    def exists(directory: Path) -> bool:
        """Tell whether there is a ledger in `directory`."""
        return (directory / file.FILE).exists()

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
        """Tell whether any process holds the ledger as its writer.

        Raises:
            StoreUnusable: the lock cannot be looked at.
        """
        lock = directory / "lock"
        with file.explained(directory):
            if not lock.exists():
                return False
            with lock.open("rb") as looked:
                try:
                    fcntl.flock(looked, fcntl.LOCK_SH | fcntl.LOCK_NB)
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
        found = self._all(
            "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NULL ORDER BY at_ms, id",
            account,
            since_ms,
        )
        return [rows.reading(row) for row in found]

    def last_reading(self, account: str) -> Reading | None:
        """Return the newest believed reading."""
        found = self._all(
            "SELECT * FROM reading WHERE account = ? AND doubt IS NULL ORDER BY at_ms DESC, id DESC LIMIT 1", account
        )
        return rows.reading(found[0]) if found else None

    def doubted(self, account: str, since_ms: int) -> list[Unknown]:
        """Return readings that were not believed since then, oldest first."""
        found = self._all(
            "SELECT * FROM reading WHERE account = ? AND at_ms >= ? AND doubt IS NOT NULL ORDER BY at_ms, id",
            account,
            since_ms,
        )
        return [rows.unknown(row) for row in found]

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

    # -- what the policy asks -----------------------------------------------------------------------------------

    def past(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return earlier top-ups as the policy sees them, oldest first."""
        with self._db_errors():
            return caps.past(self._db, account, since_ms, fee_bps, self._newest)

    def paid(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return payments in blocks since then, each at the time of its block; oldest first."""
        with self._db_errors():
            return caps.paid(self._db, account, since_ms, fee_bps)

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
        with self._db_errors(), file.transaction(self._db):
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

    def named(self, account: str, beginning: str) -> list[str]:
        """Return the ids of an account's top-ups that begin so, at most ten."""
        sql = "SELECT id FROM topup WHERE account = ? AND substr(id, 1, ?) = ? ORDER BY id LIMIT 10"
        return [row["id"] for row in self._all(sql, account, len(beginning), beginning)]

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
        with self._write(topup.moved_ms) as db:
            db.execute(
                "UPDATE charge SET operator = ?, intent_id = ? WHERE topup = ? AND seq = ?",
                (*verified.demand.identity, topup.id, len(topup.charges)),
            )
        return self.topup(topup.id)

    def reserve(self, topup: TopUp, plan: Plan, baseline: Reading, wallet: Wei, at_ms: int) -> TopUp:
        """Store the unsigned payment and take its nonce."""
        place = (plan.chain_id, topup.wallet, rows.word(plan.lane), rows.word(plan.nonce))
        with self._write(at_ms) as db:
            alive = db.execute(
                "SELECT 1 FROM attempt JOIN charge ON charge.topup = attempt.topup AND charge.seq = attempt.charge_seq"
                " WHERE attempt.topup = ? AND charge_seq != ? AND kind = 'pay' AND intended_ms IS NOT NULL"
                " AND charge.dead IS NULL",
                (topup.id, len(topup.charges)),
            ).fetchone()
            if alive is not None:
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

    def approver(self, account: str) -> TopUp | None:
        """Return the newest top-up that has let a contract take a token, as far as the chain has shown."""
        sql = (
            "SELECT topup.* FROM attempt JOIN topup ON topup.id = attempt.topup WHERE topup.account = ?"
            " AND attempt.kind = 'approve' AND attempt.inclusion IS NOT NULL ORDER BY attempt.id DESC LIMIT 1"
        )
        rows = self._all(sql, account)
        return self._load(rows[0]) if rows else None

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
                "UPDATE attempt SET last_sent_ms = ?, sends = sends + 1, answer = ?,"
                " reference = CASE reference WHEN '' THEN ? ELSE reference END WHERE id = ?",
                (at_ms, f"{sent.delivery}: {sent.detail}"[:300], sent.reference[:200], attempt.id),
            )
        return self.topup(topup.id)

    def included(self, topup: TopUp, attempt: Attempt, seen: Seen, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that an attempt stands in a canonical block; `fact` is the arrow this takes, None to stay."""
        inclusion = rows.inclusion_json(seen.inclusion)
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
            self._vacate(topup, attempt)
            self._evidence(topup, attempt, at_ms, "vanished", "")
            if fact is not None:
                self._advance(topup, fact, at_ms)
        return self.topup(topup.id)

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

    def rivals(self, topup: TopUp) -> list[Attempt]:
        """Return what other top-ups have sent at any nonce of this one, settled or not."""
        place = "chain_id, address, lane, nonce"
        sql = (
            "SELECT * FROM attempt WHERE topup != ? AND intended_ms IS NOT NULL"
            f" AND ({place}) IN (SELECT {place} FROM attempt WHERE topup = ? AND intended_ms IS NOT NULL) ORDER BY id"
        )
        return [rows.attempt(row) for row in self._all(sql, topup.id, topup.id)]

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

    def undone(self, topup: TopUp, attempt: Attempt, reversal: Entry, halt: str | None, at_ms: int) -> TopUp:
        """Store that a block in the books was replaced, take back what was booked; `halt` is the reason to halt."""
        with self._write(at_ms) as db:
            db.execute("UPDATE attempt SET inclusion = NULL, booked = 0 WHERE id = ?", (attempt.id,))
            self._vacate(topup, attempt)
            self._evidence(topup, attempt, at_ms, "vanished", "")
            journal.post(db, topup.account, reversal)
            if halt is not None:
                self._advance(topup, Fact.HALT, at_ms, halt)
        return self.topup(topup.id)

    def next_nonce(self, chain_id: int, wallet: bytes) -> int:
        """Return the first nonce this ledger has neither used nor adopted."""
        row = self._one(
            "SELECT max(nonce) AS nonce FROM slot WHERE chain_id = ? AND address = ? AND lane = ? AND state = 'used'",
            chain_id,
            wallet,
            rows.word(0),  # the other lanes belong to authorizations
        )
        used = int.from_bytes(row["nonce"], "big") + 1 if row["nonce"] is not None else 0
        adopted = self.told("", _adopted(chain_id, wallet))
        return max(used, int(adopted) if adopted is not None else 0)

    def adopt_nonce(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int) -> None:
        """Store that a person accepts all transactions below `nonce` as none of ours."""
        with self._write(at_ms) as db:
            row = ("", _adopted(chain_id, wallet), str(nonce), at_ms, "topup")
            db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", row)

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
        with self._write(at_ms) as db:
            row = (topup.account, GONE + topup.rail, "1", at_ms, "topup")
            db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", row)
            self._advance(topup, Fact.DROP, at_ms, reason)
        return self.topup(topup.id)

    def settle(self, topup: TopUp, attempt: Attempt, entry: Entry, at_ms: int) -> TopUp:
        """Book an attempt whose block is safe; once."""
        with self._write(at_ms) as db:  # not the entry's time: that is the chain's, and a provider could make it up
            changed = db.execute("UPDATE attempt SET booked = 1 WHERE id = ? AND booked = 0", (attempt.id,)).rowcount
            if changed:
                journal.post(db, topup.account, entry)
        return self.topup(topup.id)

    def finish(self, topup: TopUp, entry: Entry, at_ms: int) -> TopUp:
        """Book the posting and end the top-up."""
        with self._write(at_ms) as db:
            journal.post(db, topup.account, entry)
            # A repeated try of a charge that the one before it has paid after all: the next payment outbids it.
            db.execute("UPDATE slot SET state = 'released' WHERE topup = ? AND state = 'in_flight'", (topup.id,))
            self._advance(topup, Fact.SETTLED, at_ms)
        return self.topup(topup.id)

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
        told = self.told(account, CLOSED)
        return Closed(**json.loads(told)) if told is not None else None

    def posted(self, account: str, until_ms: int) -> int:
        """Return the credits that top-ups have brought up to a moment, in 10^-6 dollars."""
        with self._db_errors():
            return journal.posted(self._db, account, until_ms)

    def busy(self, account: str, since_ms: int) -> list[tuple[int, int]]:
        """Return from when to when a top-up was on its way, for those that ended since a moment."""
        sql = "SELECT decided_ms, moved_ms FROM topup WHERE account = ? AND moved_ms >= ?"
        return [(row["decided_ms"], row["moved_ms"]) for row in self._all(sql, account, since_ms)]

    def close_books(self, account: str, at: Closed, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a closing with the entries that bring the books there, or none of it."""
        with self._write(now_ms) as db:
            for entry in entries:
                journal.post(db, account, entry)
            row = (account, CLOSED, json.dumps(asdict(at)), now_ms, "topup")
            db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", row)

    def checkpoints(self, account: str, before_ms: int | None = None) -> list[Checkpoint]:
        """Return the newest checkpoint of each commodity: of all, or of those before a moment."""
        with self._db_errors():
            return journal.checkpoints(self._db, account, before_ms)

    def wallet_booked(self, account: str, commodity: Commodity, block: int) -> int:
        """Return what the journal says the wallet held after a block, whenever it was entered."""
        with self._db_errors():
            return journal.wallet_booked(self._db, account, commodity, block)

    def wallets(self, account: str, first_ms: int, end_ms: int) -> dict[Entry, bytes]:
        """Return whose wallet each entry of a period has moved; empty where only one was ever used."""
        with self._db_errors():
            return journal.wallets(self._db, account, first_ms, end_ms)

    def close_wallet(self, account: str, at: Checkpoint, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a checkpoint with the entry that brings the books there, or none of it."""
        with self._write(now_ms) as db:
            for entry in entries:
                journal.post(db, account, entry)
            journal.keep(db, account, at)

    # -- what was used ------------------------------------------------------------------------------------------

    def usage_known(self, account: str, first: date, last: date) -> list[date]:
        """Return the UTC days whose usage is stored whole, within first and last, both included."""
        with self._db_errors():
            return usage.known(self._db, account, first, last)

    def keys_used(self, account: str) -> dict[str, tuple[str, int]]:
        """Return of each key, by its hash, name and what it had used (nano) before the day it was asked for last."""
        with self._db_errors():
            return usage.keys(self._db, account)

    def keep_key_used(self, account: str, key: ApiKey, days: Mapping[date, Used], now_ms: int) -> None:
        """Store what a key has used on days that are not whole yet."""
        with self._write(now_ms) as db:
            usage.keep_key(db, account, key, days)

    def keys_used_on(self, account: str, day: date) -> list[Used]:
        """Return what each key, by its hash, has used on a day that is not whole yet, as far as it was asked for."""
        with self._db_errors():
            return usage.on_its_way(self._db, account, day)

    def keep_usage(self, account: str, told: DayUsed, now_ms: int) -> None:
        """Store a whole day; one that is stored already stands."""
        with self._write(now_ms) as db:
            usage.keep_day(db, account, told, now_ms)

    def forget_keys_used(self, account: str, now_ms: int) -> None:
        """Forget how far the keys were asked for, so that each is asked for again."""
        with self._write(now_ms) as db:
            usage.forget_keys(db, account)

    def used_by(self, account: str, split: str, first: date, last: date) -> list[Used]:
        """Return what each "model", or each "key" by its hash, has used on the whole days from first to last."""
        with self._db_errors():
            return usage.by(self._db, account, split, first, last)

    def used_by_day(self, account: str, first: date, last: date) -> list[tuple[date, Used]]:
        """Return what was used on each whole day, oldest first."""
        with self._db_errors():
            return usage.by_day(self._db, account, first, last)

    # -- what people say ----------------------------------------------------------------------------------------

    def control(self, account: str) -> Control:
        """Return what people have told this ledger."""
        rows = self._all("SELECT name, value, by, at_ms FROM control WHERE account = ?", account)
        said = {row["name"]: (row["value"], row["by"], row["at_ms"]) for row in rows}
        paused, by, at_ms = said.get("paused", ("0", "", 0))
        gone = {name.removeprefix(GONE) for name, told in said.items() if name.startswith(GONE) and told[0] == "1"}
        return Control(paused == "1", frozenset(gone), paused_by=by, resumed_ms=at_ms if paused == "0" else 0)

    def set_gone(self, account: str, rail: str, *, gone: bool, at_ms: int) -> None:
        """Put up or take down the tombstone of a rail."""
        self.say(account, GONE + rail, str(int(gone)), at_ms, "topup")

    def say(self, account: str, name: str, value: str, at_ms: int, by: str) -> None:
        """Store what a person wants of this ledger; any process may."""
        with self._db_errors(), file.transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", (account, name, value, at_ms, by))

    def told(self, account: str, name: str) -> str | None:
        """Return what was last said under `name`."""
        rows = self._all("SELECT value FROM control WHERE account = ? AND name = ?", account, name)
        return str(rows[0]["value"]) if rows else None

    def told_at(self, account: str, name: str) -> int:
        """Return when something was last said under `name`, 0 when it never was."""
        rows = self._all("SELECT at_ms FROM control WHERE account = ? AND name = ?", account, name)
        return int(rows[0]["at_ms"]) if rows else 0

    def request(self, account: str, amount: Usd | None, forced: bool, at_ms: int) -> int:  # noqa: FBT001
        """Leave a request for a cycle with the running daemon; return its number."""
        with self._db_errors(), file.transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO request (account, at_ms, amount, forced) VALUES (?,?,?,?)",
                (account, at_ms, str(amount) if amount is not None else None, int(forced)),
            )
            return int(cursor.lastrowid or 0)

    def next_request(self, account: str) -> Requested | None:
        """Return the oldest request nobody has answered."""
        found = self._all("SELECT * FROM request WHERE account = ? AND outcome IS NULL ORDER BY id LIMIT 1", account)
        return rows.request(found[0]) if found else None

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
        return rows.request(self._one("SELECT * FROM request WHERE id = ?", number))

    # -- what the chain showed ----------------------------------------------------------------------------------

    def scanned(self, chain_id: int, wallet: bytes, contract: bytes, operator: bytes) -> tuple[int, int] | None:
        """Return the first and last block in which payments of a wallet were looked for; None when nobody looked."""
        rows = self._all(
            "SELECT first, last FROM scan WHERE chain_id = ? AND wallet = ? AND contract = ? AND operator = ?",
            chain_id,
            wallet,
            contract,
            operator,
        )
        return (int(rows[0]["first"]), int(rows[0]["last"])) if rows else None

    def save_scan(
        self,
        chain_id: int,
        wallet: bytes,
        pair: tuple[bytes, bytes],
        blocks: tuple[int, int],
        found: Sequence[Transfer],
        at_ms: int,
    ) -> None:
        """Store how far a scan came and what it found; `pair` is contract and operator. Any process may."""
        with self._db_errors(), file.transaction(self._db):
            row = (chain_id, wallet, *pair, *blocks, at_ms)
            self._db.execute("INSERT OR REPLACE INTO scan VALUES (?,?,?,?,?,?,?)", row)
            for t in found:
                told = (t.contract, *t.intent, t.recipient, str(t.spent), t.tx_hash, t.block_number)
                self._db.execute(
                    "INSERT OR REPLACE INTO transfer VALUES (?,?,?,?,?,?,?,?,?)", (chain_id, wallet, *told)
                )

    def transfers(self, chain_id: int, wallet: bytes) -> list[Transfer]:
        """Return every payment of a wallet that was found on the chain, in the order of its blocks."""
        sql = "SELECT * FROM transfer WHERE chain_id = ? AND wallet = ? ORDER BY block_number, tx_hash"
        return [
            Transfer(
                row["contract"],
                row["operator"],
                row["intent_id"],
                row["recipient"],
                int(row["spent"]),
                row["tx_hash"],
                row["block_number"],
            )
            for row in self._all(sql, chain_id, wallet)
        ]

    def known(self, chain_id: int, wallet: bytes) -> Known:
        """Return everything this ledger holds of a wallet's transactions."""
        topups = self._all("SELECT * FROM topup WHERE chain_id = ? AND wallet = ? ORDER BY rowid", chain_id, wallet)
        owners = self._all(
            "SELECT operator, intent_id, topup, seq FROM charge WHERE intent_id IS NOT NULL"
            " AND topup IN (SELECT id FROM topup WHERE chain_id = ? AND wallet = ?)",
            chain_id,
            wallet,
        )
        adopted = self._all("SELECT * FROM adopted WHERE chain_id = ? AND wallet = ? ORDER BY nonce", chain_id, wallet)
        return Known(
            topups=[self._load(row) for row in topups],
            owners={(o["operator"], o["intent_id"]): (o["topup"], o["seq"]) for o in owners},
            adopted=[
                Adopted(
                    int.from_bytes(a["nonce"], "big"),
                    a["tx_hash"],
                    a["block_number"],
                    a["topup"],
                    Wei(int(a["cost"])) if a["cost"] is not None else None,
                )
                for a in adopted
            ],
            below=int(self.told("", _adopted(chain_id, wallet)) or 0),
            next_nonce=self.next_nonce(chain_id, wallet),
        )

    def adopt_payment(
        self, topup: TopUp, done: Done, entry: Entry, overtaken: TopUp | None, at_ms: int, by: str
    ) -> TopUp:
        """Store a payment of a lost ledger as an ended, booked top-up; drop the unsent one it overtook, if any."""
        assert done.intent is not None
        with self._write(at_ms) as db:
            row = (topup.id, topup.account, topup.rail, topup.chain_id, topup.wallet, State.DONE.value)
            told = (str(topup.amount), topup.why, 0, topup.decided_ms, topup.moved_ms, None, None, None, "", None)
            db.execute("INSERT INTO topup VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", (*row, *told))
            self._arrow(topup.id, at_ms, WHY, State.DONE, by)
            # An id belongs to one charge: an ended top-up that was taken for unpaid gives it up.
            given_up = "UPDATE charge SET operator = NULL, intent_id = NULL WHERE operator = ? AND intent_id = ?"
            db.execute(given_up, done.intent)
            db.execute(
                "INSERT INTO charge (topup, seq, account, requested_ms, operator, intent_id) VALUES (?,1,?,?,?,?)",
                (topup.id, topup.account, topup.decided_ms, *done.intent),
            )
            self._adopt(topup.id, 1, topup.wallet, done, at_ms, by)
            db.execute(
                "UPDATE attempt SET inclusion = ?, booked = 1, final = 1 WHERE hash = ?",
                (rows.inclusion_json(done.inclusion), done.hash),
            )
            journal.post(db, topup.account, entry)
            if overtaken is not None:
                self._advance(self._unsend(overtaken, at_ms), Fact.DROP, at_ms, "no_longer_needed")
        return self.topup(topup.id)

    def adopt_attempt(self, topup: TopUp, seq: int, done: Done, word: tuple[str, str], at_ms: int, by: str) -> TopUp:
        """Give an open top-up back the attempt that paid its charge `seq`, as one whose inclusion is yet to be seen.

        Where no arrow leads on from such an attempt it is halted. `word`, a name and what a person says under it by
        adopting, leads a halted one on.
        """
        assert done.intent is not None
        before = self._all(
            "SELECT total_credits FROM reading WHERE account = ? AND at_ms < ? AND doubt IS NULL"
            " ORDER BY at_ms DESC, id DESC LIMIT 1",
            topup.account,
            done.inclusion.block_ms,
        )
        with self._write(at_ms) as db:
            topup = self._unsend(topup, at_ms)
            if topup.state in (State.DECIDED, State.ASKING):
                self._advance(topup, Fact.HALT, at_ms, "paid by a transaction that this ledger did not hold")
            if topup.state in (State.DECIDED, State.ASKING, State.HALTED):
                db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", (topup.account, *word, at_ms, by))
            db.execute(
                "UPDATE charge SET operator = ?, intent_id = ?, abandoned = NULL WHERE topup = ? AND seq = ?",
                (*done.intent, topup.id, seq),
            )
            if before:
                db.execute(
                    "UPDATE topup SET baseline = coalesce(baseline, ?) WHERE id = ?",
                    (before[0]["total_credits"], topup.id),
                )
            self._adopt(topup.id, seq, topup.wallet, done, at_ms, by)
        return self.topup(topup.id)

    def adopt_foreign(
        self,
        chain_id: int,
        wallet: bytes,
        one: Adopted,
        at_ms: int,
        by: str,
        *,
        booked: tuple[str, Entry] | None = None,
    ) -> None:
        """Store a transaction of the wallet that is no payment; what was sent at its nonce never arrives.

        `booked` is the account and the entry that books what it cost, where it was ours.
        """
        with self._write(at_ms) as db:
            self._adopted_row(chain_id, wallet, one, at_ms, by)
            if booked is not None:
                journal.post(db, *booked)

    def adopt_stray(self, account: str, one: Stray, at_ms: int, by: str) -> None:
        """Store that a person takes over a payment which a seller carried and no top-up explains, and book it."""
        with self._write(at_ms) as db:
            row = ("", one.word, one.transfer.tx_hash.hex(), at_ms, by)
            db.execute("INSERT INTO control VALUES (?,?,?,?,?)", row)
            journal.post(db, account, stray_entry(one))

    def adopt_below(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int, by: str) -> None:
        """Store that everything below `nonce` was looked at and taken over."""
        with self._write(at_ms) as db:
            row = ("", _adopted(chain_id, wallet), str(nonce), at_ms, by)
            db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", row)

    def _adopt(self, topup_id: str, seq: int, wallet: bytes, done: Done, at_ms: int, by: str) -> None:
        """Store slot, attempt, evidence and adoption of a transaction of ours."""
        plan, block_ms = done.plan, done.inclusion.block_ms
        place = (plan.chain_id, wallet, rows.word(plan.lane), rows.word(plan.nonce))
        self._db.execute(
            "INSERT INTO slot VALUES (?,?,?,?,?,'used')"
            " ON CONFLICT DO UPDATE SET state = 'used', topup = excluded.topup",
            (*place, topup_id),
        )
        cursor = self._db.execute(
            "INSERT INTO attempt (topup, charge_seq, chain_id, address, lane, nonce, kind, broadcaster, plan, raw,"
            " hash, planned_ms, signed_ms, intended_ms, last_sent_ms, answer) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                topup_id,
                seq,
                *place,
                plan.kind.value,
                Broadcaster.US.value,
                rows.plan_json(plan),
                done.raw,
                done.hash,
                *[block_ms] * 4,
                WHY,
            ),
        )
        self._db.execute(
            "INSERT INTO evidence (topup, attempt, at_ms, kind, detail) VALUES (?,?,?,?,?)",
            (topup_id, cursor.lastrowid, at_ms, WHY, rows.inclusion_json(done.inclusion)),
        )
        one = Adopted(plan.nonce, done.hash, done.inclusion.block_number, topup_id, done.cost)
        self._adopted_row(plan.chain_id, wallet, one, at_ms, by)

    def _adopted_row(self, chain_id: int, wallet: bytes, one: Adopted, at_ms: int, by: str) -> None:
        cost = str(one.cost.units) if one.cost is not None else None
        self._db.execute(
            "INSERT INTO adopted VALUES (?,?,?,?,?,?,?,?,?)",
            (chain_id, wallet, rows.word(one.nonce), one.tx_hash, one.block_number, one.topup_id, cost, at_ms, by),
        )
        # Nothing else can be included at this nonce any more; other lanes belong to authorizations.
        place = (chain_id, wallet, rows.word(0), rows.word(one.nonce))
        self._db.execute(
            f"UPDATE attempt SET final = 1 WHERE {PLACE} AND inclusion IS NULL AND hash IS NOT ?",
            (*place, one.tx_hash),
        )

    def _unsend(self, topup: TopUp, at_ms: int) -> TopUp:
        """Take back what was reserved or signed and, as far as this ledger knows, never sent."""
        if topup.state not in (State.RESERVED, State.SIGNED):
            return topup
        attempt = _current(topup)
        self._db.execute("UPDATE attempt SET withdrawn = 1, raw = NULL, hash = NULL WHERE id = ?", (attempt.id,))
        self._slot(topup, attempt, "released")
        self._advance(topup, Fact.WITHDRAWN, at_ms, "paid by a transaction that this ledger did not hold")
        return self.topup(topup.id)

    # -- inside -------------------------------------------------------------------------------------------------

    def _advance(self, topup: TopUp, fact: Fact, at_ms: int, detail: str = "") -> None:
        state = advance(topup.state, fact)
        # A reason says why something is not as hoped: a hash is none, and what is done needs none any more.
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
            (topup_id, at_ms, fact, state.value, detail),
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
            (topup.id, attempt.id, at_ms, kind, detail),
        )

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
        )

    @property
    def _directory(self) -> Path:
        return self._file.parent if self._file is not None else Path(":memory:")

    @contextlib.contextmanager
    def _write(self, at_ms: int) -> Iterator[sqlite3.Connection]:
        """One committed transaction of the writer, checked against the epoch."""
        if self._epoch is None:
            raise StoreFenced("this process opened the ledger for reading")
        if file.inode(self._file) != self._inode:
            # What is written to a file without a name is lost, and the one that has its name now has another writer.
            raise StoreFenced(f"the ledger {self._file} was removed or replaced", remedy="start this process again")
        with self._db_errors(), file.transaction(self._db):
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
                f"the ledger {self._file} refuses this: {error}", remedy="run `topup status`; nothing was changed"
            ) from error
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the ledger {self._file} cannot be written: {error}",
                remedy=f"{file.remedy(error, self._directory)}; nothing is spent until then",
            ) from error

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the ledger {self._file} cannot be read: {error}", remedy=file.remedy(error, self._directory)
            ) from error

    def _one(self, sql: str, *values: object) -> sqlite3.Row:
        (row,) = self._all(sql, *values)
        return row


def _current(topup: TopUp) -> Attempt:
    attempt = topup.attempt
    assert attempt is not None, "a reserved top-up has an attempt"
    return attempt


def _adopted(chain_id: int, wallet: bytes) -> str:
    return f"adopted_nonce:{chain_id}:{wallet.hex()}"
