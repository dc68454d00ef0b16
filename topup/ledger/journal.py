"""How is the journal kept? Rows that follow one another by their hashes, so that a later change shows."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter

from topup.accounting.closing import BalanceAssertion, Closed
from topup.accounting.journal import CREDITS, TAKEN_BACK, TOKENS, WALLET, Commodity, Entry, chained
from topup.domain.lifecycle import Attempt
from topup.domain.notes import Note
from topup.ledger import rows
from topup.ledger.outbox import Outbox
from topup.ledger.rows import Broken

NOTHING_YET = b""
Balances = dict[tuple[str, Commodity], int]


@dataclass(frozen=True)
class Audit:
    """What reading the whole journal has shown.

    Attributes:
        head: the newest one's hash, b"" without any.
        wrong: the first entry that is not what its hash says, and why; None when all are.
        since: how many entries follow the one whose hash was asked for; None where no entry has it.
        gaps: where journal and top-ups do not fit together, a sentence each; not looked for where something is wrong.
    """

    count: int
    head: bytes
    wrong: tuple[int, str] | None
    since: int | None
    gaps: tuple[str, ...] = ()


class Journal(Outbox):
    """The journal of each account, and up to where it is closed.

    Whatever reads entries raises `Broken` where one does not balance, or holds what no entry can.
    """

    # -- entries ------------------------------------------------------------------------------------------------

    def entries(self, account: str) -> list[Entry]:
        """Return the whole journal of an account, oldest first."""
        return list(self._entries("entry.account = ?", account))

    def within(self, account: str, first_ms: int, end_ms: int) -> tuple[Balances, list[Entry]]:
        """Return what happened in a period, without holding what was long before it.

        Whole, oldest first: the entries of the period, and earlier ones of each top-up that has one in it. What the
        other earlier ones sum to stands in the balances.
        """
        whole = (
            "(entry.at_ms >= ? OR entry.topup IN (SELECT topup FROM entry WHERE account = ? AND at_ms BETWEEN ? AND ?))"
        )
        values = (account, end_ms, first_ms, account, first_ms, end_ms - 1)
        sums: Balances = {}
        sql = (
            "SELECT entry.id, line.account, line.commodity, line.units FROM entry JOIN line ON line.entry = entry.id"
            f" WHERE entry.account = ? AND entry.at_ms < ? AND {whole} IS NOT 1 ORDER BY entry.id"
        )
        with self._db_errors():
            self._db.execute("BEGIN")  # what is written meanwhile is seen by both questions or by neither
            try:
                for number, lines in groupby(self._db.execute(sql, values), key=itemgetter(0)):
                    _add(sums, number, [(account, commodity, text) for _, account, commodity, text in lines])
                return sums, list(self._entries(f"entry.account = ? AND entry.at_ms < ? AND {whole}", *values))
            finally:
                self._db.rollback()

    def left_wallet(self, account: str, since_ms: int, end_ms: int | None = None) -> dict[Commodity, int]:
        """Return what top-ups have taken out of the wallet since then, fees included, in units of each commodity."""
        until = "(? IS NULL OR entry.at_ms < ?) AND entry.topup IS NOT NULL"
        where, when = f"entry.at_ms >= ? AND {until} AND line.account = ? AND line.commodity = ?", (end_ms, end_ms)
        each = (Commodity.ETH, *TOKENS)
        sums = {name: -self._sum(where, account, since_ms, *when, WALLET, name.value) for name in each}
        return {name: units for name, units in sums.items() if units}

    def movements(self, account: str, after: int) -> list[tuple[int, str, Commodity, int]]:
        """Return what top-ups have moved of the wallet and of the credits since an entry, by its number; in its order.

        The entry, the account of the books, and how many units came to it of which commodity.
        """
        # The plus sign keeps SQLite to the entries that are new, which are few.
        sql = (
            "SELECT entry.id, line.account, commodity, units FROM entry JOIN line ON line.entry = entry.id"
            " WHERE entry.id > ? AND +entry.account = ? AND entry.topup IS NOT NULL AND line.account IN (?, ?)"
            " ORDER BY entry.id"
        )
        rows = self._all(sql, after, account, WALLET, CREDITS)
        return [(number, book, Commodity(name), int(units)) for number, book, name, units in rows]

    def by_topup(self, account: str, end_ms: int) -> Iterator[list[Entry]]:
        """Yield the entries of each top-up up to a moment, exclusive, oldest first; one top-up is held at a time."""
        # The plus signs keep SQLite to the index that has them in this order: else it would sort all of them in memory.
        where = "+entry.account = ? AND +entry.at_ms < ? AND entry.topup IS NOT NULL"
        read = self._entries(where, account, end_ms, order="entry.topup, entry.id")
        for _, its in groupby(read, key=lambda entry: entry.topup_id):
            yield list(its)

    def newest(self, account: str, count: int) -> list[Entry]:
        """Return the entries of the newest top-ups whose credits were posted, so many of them; oldest first."""
        sql = (
            "SELECT DISTINCT topup FROM entry WHERE account = ? AND topup IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM line WHERE line.entry = entry.id AND line.account = ?) ORDER BY id DESC LIMIT ?"
        )
        return list(self._entries(f"entry.topup IN (SELECT topup FROM ({sql}))", account, CREDITS, count))

    def wallets(self, account: str, first_ms: int, end_ms: int) -> dict[Entry, bytes]:
        """Return whose wallet each entry of a period has moved; empty where the account has only ever used one.

        That of its top-up, of the checkpoint it leads to, or of what was taken over from the chain. One whose wallet
        the ledger does not know is left out.
        """
        used = "SELECT wallet FROM topup WHERE account = ? UNION SELECT wallet FROM checkpoint WHERE account = ?"
        if len(self._all(used, account, account)) < 2:
            return {}
        sql = (
            "SELECT entry.id, coalesce(topup.wallet,"
            " (SELECT wallet FROM checkpoint AS c WHERE (c.account, c.block, c.at_ms, c.commodity)"
            " = (entry.account, entry.block_number, entry.at_ms, line.commodity)),"
            " (SELECT wallet FROM adopted WHERE adopted.tx_hash = entry.tx_hash),"
            " (SELECT wallet FROM transfer WHERE transfer.tx_hash = entry.tx_hash)) AS wallet"
            " FROM entry JOIN line ON line.entry = entry.id AND line.account = ?"
            " LEFT JOIN topup ON topup.id = entry.topup"
            " WHERE entry.account = ? AND entry.at_ms >= ? AND entry.at_ms < ?"
        )
        moved = {row["id"]: row["wallet"] for row in self._all(sql, WALLET, account, first_ms, end_ms) if row["wallet"]}
        where = "entry.account = ? AND entry.at_ms >= ? AND entry.at_ms < ?"
        read = self._entry_rows(where, account, first_ms, end_ms)
        return {entry: moved[number] for number, _, entry, _ in read if number in moved}

    def booked(self, topup_id: str, attempt: Attempt) -> Entry:
        """Return what was booked last of an attempt, the posting of its credits left out; it may have no line."""
        newest = (
            "entry.id = (SELECT max(e.id) FROM entry e WHERE e.topup = ? AND e.tx_hash = ?"
            " AND NOT EXISTS (SELECT 1 FROM line l WHERE l.entry = e.id AND l.account = ?))"
        )
        (entry,) = self._entries(newest, topup_id, attempt.tx_hash, CREDITS)
        return entry

    def _entries(self, where: str, *values: object, order: str = "entry.id") -> Iterator[Entry]:
        return (entry for _, _, entry, _ in self._entry_rows(where, *values, order=order))

    def _entry_rows(self, where: str, *values: object, order: str = "entry.id") -> Iterator[rows.EntryRow]:
        with self._db_errors():
            yield from rows.entries(self._db, where, values, order)

    def _post(self, account: str, entry: Entry) -> None:
        """Append an entry, chained to the newest one; within the caller's transaction.

        What it says is masked before it is chained: afterwards nothing can be taken out of it any more.
        """
        texts = {name: self.hide(getattr(entry, name)) for name in ("text", "charge_id", "price_source")}
        entry = replace(entry, **texts)  # type: ignore[arg-type]
        row = rows.columns(entry)
        row["topup"] = row.pop("topup_id") or None
        number = self._insert("entry", account=account, **row, hash=chained(self._newest_hash(), account, entry))
        lines = [(number, n, x.account, x.commodity.value, str(x.units)) for n, x in enumerate(entry.lines)]
        self._db.executemany("INSERT INTO line VALUES (?,?,?,?,?)", lines)

    # -- hashes -------------------------------------------------------------------------------------------------

    def head(self) -> str | None:
        """Return the newest hash of the journal, in hex; None while it is empty."""
        return self._newest_hash().hex() or None

    def _newest_hash(self) -> bytes:
        newest = self._all("SELECT hash FROM entry ORDER BY id DESC LIMIT 1")
        return newest[0]["hash"] if newest else NOTHING_YET

    def audit(self, sought: bytes | None = None) -> Audit:
        """Read the whole journal, and hold each entry against its hash, and then against the top-ups."""
        last, count, sought_at = NOTHING_YET, 0, None
        try:
            for number, account, entry, stored in self._entry_rows("true"):
                if chained(last, account, entry) != stored:
                    return Audit(count, last, (number, "it is not what was written, or one before it is missing"), None)
                last, count = stored, count + 1
                sought_at = count if stored == sought else sought_at
        except Broken as broken:
            return Audit(count, last, (broken.number, str(broken)), None)
        since = count - sought_at if sought_at is not None else None
        return Audit(count, last, None, since, (*self._unbooked(), *self._unknown()))

    def _unbooked(self) -> Iterator[str]:
        """Name each attempt in a block that counts as booked, or is final, and of which no entry stands.

        What was booked and taken back again does not stand; the posting of a top-up's credits books no attempt.
        """
        sql = (
            "SELECT id, topup, tx, block FROM (SELECT id, topup, json_extract(inclusion, '$.block_number') AS block,"
            " coalesce(nullif(json_extract(inclusion, '$.tx_hash'), ''), lower(hex(hash))) AS tx"
            " FROM attempt WHERE inclusion IS NOT NULL AND (booked = 1 OR final = 1)) AS held"
            " WHERE (SELECT total(CASE WHEN substr(text, 1, length(?)) = ? THEN -1 ELSE 1 END) FROM entry"
            " WHERE entry.topup = held.topup AND lower(hex(entry.tx_hash)) = tx"
            " AND NOT EXISTS (SELECT 1 FROM line WHERE line.entry = entry.id AND line.account = ?)) < 1 ORDER BY id"
        )
        for number, topup, tx, block in self._all(sql, TAKEN_BACK, TAKEN_BACK, CREDITS):
            yield f"attempt {number} of top-up {topup} stands in block {block} (0x{tx}), and no entry books it"

    def _unknown(self) -> Iterator[str]:
        """Name each entry of a top-up, or of a transaction of one, that the ledger does not hold.

        The transaction of an authorization is somebody else's; what was ever seen of one is kept as evidence.
        """
        sql = (
            "SELECT entry.id, entry.text, entry.topup, lower(hex(entry.tx_hash)) AS tx, topup.id IS NULL FROM entry"
            " LEFT JOIN topup ON topup.id = entry.topup AND topup.account = entry.account WHERE entry.topup IS NOT NULL"
            " AND (topup.id IS NULL OR (entry.tx_hash IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.topup = entry.topup AND attempt.hash = entry.tx_hash)"
            " AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.topup = entry.topup"
            " AND CASE WHEN json_valid(detail) THEN json_extract(detail, '$.tx_hash') END"
            " = lower(hex(entry.tx_hash))))) ORDER BY entry.id"
        )
        for number, text, topup, tx, lost in self._all(sql):
            what = f"top-up {topup}" if lost else f"the transaction 0x{tx} of top-up {topup}"
            yield f"entry {number} ({text}) names {what}, which this ledger does not hold"

    # -- closings -----------------------------------------------------------------------------------------------

    def closed(self, account: str) -> Closed | None:
        """Return up to where the books are closed, None before the first time."""
        closed = self.told(account, Note.CLOSED)
        return Closed(**json.loads(closed)) if closed is not None else None

    def close_books(self, account: str, at: Closed, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a closing with the entries that bring the books there, or none of it."""
        with self._write(now_ms):
            for entry in entries:
                self._post(account, entry)
            self._say(account, Note.CLOSED, json.dumps(asdict(at)), now_ms)

    def balance_assertions(self, account: str, before_ms: int | None = None) -> list[BalanceAssertion]:
        """Return the newest checkpoint of each commodity: of all, or of those before a moment."""
        sql = "SELECT * FROM checkpoint WHERE account = ? AND (? IS NULL OR at_ms < ?) ORDER BY at_ms, block"
        newest = {}
        for row in self._all(sql, account, before_ms, before_ms):
            at = rows.record(BalanceAssertion, row, commodity=Commodity(row["commodity"]), units=int(row["units"]))
            newest[at.commodity] = at
        return list(newest.values())

    def close_wallet(self, account: str, at: BalanceAssertion, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a checkpoint with the entry that brings the books there, or none of it."""
        with self._write(now_ms):
            for entry in entries:
                self._post(account, entry)
            self._insert("checkpoint", account=account, **rows.columns(at) | {"units": str(at.units)})

    def posted(self, account: str, until_ms: int) -> int:
        """Return the credits that top-ups have brought up to a moment, in 10^-6 dollars."""
        return self._sum(
            "entry.at_ms <= ? AND entry.topup IS NOT NULL AND line.account = ?", account, until_ms, CREDITS
        )

    def wallet_booked(self, account: str, commodity: Commodity, block: int) -> int:
        """Return what the journal says the wallet held after a block, whenever it was entered."""
        of_wallet = "entry.block_number <= ? AND line.account = ? AND line.commodity = ?"
        return self._sum(of_wallet, account, block, WALLET, commodity.value)

    def _sum(self, where: str, account: str, *values: object) -> int:
        sql = f"SELECT units FROM line JOIN entry ON entry.id = line.entry WHERE entry.account = ? AND {where}"
        return sum(int(row["units"]) for row in self._all(sql, account, *values))


def _add(sums: Balances, number: int, lines: Sequence[tuple[str, str, str]]) -> None:
    """Add the lines of an entry, each with account, commodity and units; they have to balance."""
    left: dict[str, int] = {}
    try:
        for account, commodity, text in lines:
            units, key = int(text), (account, Commodity(commodity))
            sums[key] = sums.get(key, 0) + units
            left[commodity] = left.get(commodity, 0) + units
    except (ValueError, TypeError) as error:
        raise Broken(number, str(error)) from error
    if any(left.values()):
        raise Broken(number, f"it does not balance: {left}")
