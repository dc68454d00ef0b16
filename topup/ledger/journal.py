"""How is the journal kept? Rows that follow one another by their hashes, so that a later change shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

from topup.accounting.closing import BalanceAssertion
from topup.accounting.journal import CREDITS, TAKEN_BACK, WALLET, Commodity, Entry, Line, chained
from topup.domain.money import Usd

NOTHING_YET = b""
Row = tuple[int, str, Entry, bytes | None]
Balances = dict[tuple[str, Commodity], int]


class Broken(ValueError):
    """An entry that no program of this house has written; `number` is its id."""

    def __init__(self, number: int, why: str) -> None:
        """Name the entry."""
        super().__init__(why)
        self.number = number


@dataclass(frozen=True)
class Audit:
    """What reading the whole journal has shown.

    Attributes:
        count: how many entries there are.
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


def post(db: sqlite3.Connection, account: str, entry: Entry, hide: Callable[[str], str]) -> None:
    """Append an entry, chained to the newest one; within the caller's transaction.

    What it says is masked by `hide` before it is chained: afterwards nothing can be taken out of it any more.
    """
    texts = {name: hide(getattr(entry, name)) for name in ("text", "charge_id", "price_source")}
    entry = replace(entry, **texts)  # type: ignore[arg-type]
    cursor = db.execute(
        "INSERT INTO entry (account, topup, at_ms, text, tx_hash, charge_id, block_number, usd_value, price_source,"
        " hash) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            account,
            entry.topup_id or None,
            entry.at_ms,
            entry.text,
            entry.tx_hash,
            entry.charge_id,
            entry.block_number,
            str(entry.usd_value) if entry.usd_value is not None else None,
            entry.price_source,
            chained(head(db), account, entry),
        ),
    )
    rows = [(cursor.lastrowid, n, x.account, x.commodity.value, str(x.units)) for n, x in enumerate(entry.lines)]
    db.executemany("INSERT INTO line VALUES (?,?,?,?,?)", rows)


def head(db: sqlite3.Connection) -> bytes:
    """Return the newest entry's hash, b"" without any."""
    row = db.execute("SELECT hash FROM entry ORDER BY id DESC LIMIT 1").fetchone()
    return row["hash"] if row is not None else NOTHING_YET


def rows(db: sqlite3.Connection, account: str | None = None) -> Iterator[Row]:
    """Yield number, account, entry and stored hash of each entry, oldest first: of one account, or of all.

    One statement, so that what is written meanwhile is seen whole or not at all; one entry is held at a time.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    yield from _read(db, "entry.account = ?", (account,)) if account is not None else _read(db, "true", ())


def _read(db: sqlite3.Connection, where: str, values: tuple[object, ...], order: str = "entry.id") -> Iterator[Row]:
    sql = (
        "SELECT entry.*, line.account AS place, line.commodity, line.units FROM entry"
        f" LEFT JOIN line ON line.entry = entry.id WHERE {where} ORDER BY {order}, line.n"
    )
    for number, lines in groupby(db.execute(sql, values), key=itemgetter("id")):
        told = list(lines)
        try:
            entry = _entry(told)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Broken(number, str(error)) from error
        yield number, told[0]["account"], entry, told[0]["hash"]


def within(db: sqlite3.Connection, account: str, first_ms: int, end_ms: int) -> tuple[Balances, list[Entry]]:
    """Return what happened in a period, without holding what was long before it.

    Whole, oldest first: the entries of the period, and earlier ones of each top-up that has one in it. What the other
    earlier ones sum to stands in the balances. The caller sees to it that nothing is written between the two.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    whole = "(entry.at_ms >= ? OR entry.topup IN (SELECT topup FROM entry WHERE account = ? AND at_ms BETWEEN ? AND ?))"
    values = (account, end_ms, first_ms, account, first_ms, end_ms - 1)
    sums: Balances = {}
    sql = (
        "SELECT entry.id, line.account, line.commodity, line.units FROM entry JOIN line ON line.entry = entry.id"
        f" WHERE entry.account = ? AND entry.at_ms < ? AND {whole} IS NOT 1 ORDER BY entry.id"
    )
    for number, lines in groupby(db.execute(sql, values), key=itemgetter(0)):
        left: dict[str, int] = {}
        try:
            for _, place, commodity, text in lines:
                units, key = int(text), (place, Commodity(commodity))
                sums[key] = sums.get(key, 0) + units
                left[commodity] = left.get(commodity, 0) + units
        except (ValueError, TypeError) as error:
            raise Broken(number, str(error)) from error
        if any(left.values()):
            raise Broken(number, f"it does not balance: {left}")
    where = f"entry.account = ? AND entry.at_ms < ? AND {whole}"
    return sums, [entry for _, _, entry, _ in _read(db, where, values)]


def by_topup(db: sqlite3.Connection, account: str, end_ms: int) -> Iterator[list[Entry]]:
    """Yield the entries of each top-up up to a moment, exclusive, oldest first; one top-up is held at a time.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    # The plus signs keep SQLite to the index that has them in this order: else it would sort all of them in memory.
    where = "+entry.account = ? AND +entry.at_ms < ? AND entry.topup IS NOT NULL"
    read = _read(db, where, (account, end_ms), order="entry.topup, entry.id")
    for _, its in groupby(read, key=lambda row: row[2].topup_id):
        yield [entry for _, _, entry, _ in its]


def newest(db: sqlite3.Connection, account: str, count: int) -> list[Entry]:
    """Return the entries of the newest top-ups whose credits were posted, so many of them; oldest first.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    sql = (
        "SELECT DISTINCT topup FROM entry WHERE account = ? AND topup IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM line WHERE line.entry = entry.id AND line.account = ?) ORDER BY id DESC LIMIT ?"
    )
    where = f"entry.topup IN (SELECT topup FROM ({sql}))"
    return [entry for _, _, entry, _ in _read(db, where, (account, CREDITS, count))]


def wallets(db: sqlite3.Connection, account: str, first_ms: int, end_ms: int) -> dict[Entry, bytes]:
    """Return whose wallet each entry of a period has moved; empty where the account has only ever used one.

    That of its top-up, of the checkpoint it leads to, or of what was taken over from the chain. One whose wallet the
    ledger does not know is left out.

    Raises:
        Broken: an entry does not balance, or holds what no entry can.
    """
    used = "SELECT wallet FROM topup WHERE account = ? UNION SELECT wallet FROM checkpoint WHERE account = ?"
    if len(db.execute(used, (account, account)).fetchall()) < 2:
        return {}
    sql = (
        "SELECT entry.id, coalesce(topup.wallet,"
        " (SELECT wallet FROM checkpoint AS c WHERE (c.account, c.block, c.at_ms, c.commodity)"
        " = (entry.account, entry.block_number, entry.at_ms, line.commodity)),"
        " (SELECT wallet FROM adopted WHERE adopted.tx_hash = entry.tx_hash),"
        " (SELECT wallet FROM transfer WHERE transfer.tx_hash = entry.tx_hash)) AS wallet"
        " FROM entry JOIN line ON line.entry = entry.id AND line.account = ?"
        " LEFT JOIN topup ON topup.id = entry.topup WHERE entry.account = ? AND entry.at_ms >= ? AND entry.at_ms < ?"
    )
    found = {row["id"]: row["wallet"] for row in db.execute(sql, (WALLET, account, first_ms, end_ms)) if row["wallet"]}
    read = _read(db, "entry.account = ? AND entry.at_ms >= ? AND entry.at_ms < ?", (account, first_ms, end_ms))
    return {entry: found[number] for number, _, entry, _ in read if number in found}


def booked(db: sqlite3.Connection, topup_id: str, tx_hash: bytes | None) -> Entry:
    """Return the newest entry of a top-up's transaction, the posting of its credits left out; it may have no line.

    Raises:
        Broken: it does not balance, or holds what no entry can.
    """
    newest = (
        "entry.id = (SELECT max(e.id) FROM entry e WHERE e.topup = ? AND e.tx_hash = ?"
        " AND NOT EXISTS (SELECT 1 FROM line l WHERE l.entry = e.id AND l.account = ?))"
    )
    ((_, _, entry, _),) = _read(db, newest, (topup_id, tx_hash, CREDITS))
    return entry


def _entry(rows: list[sqlite3.Row]) -> Entry:
    """Return the entry that stands in these rows, one for each line; a single row without a place has no line."""
    row = rows[0]
    entry = Entry(
        at_ms=row["at_ms"],
        topup_id=row["topup"] or "",
        text=row["text"],
        tx_hash=row["tx_hash"],
        charge_id=row["charge_id"],
        block_number=row["block_number"],
        usd_value=Usd.of(row["usd_value"]) if row["usd_value"] is not None else None,
        price_source=row["price_source"],
        lines=tuple(
            Line(x["place"], Commodity(x["commodity"]), int(x["units"])) for x in rows if x["place"] is not None
        ),
    )
    # What reads alike and is written otherwise (01 for 1) has the same hash, and nobody here has written it.
    written = [row["topup"], row["usd_value"], *(x["units"] for x in rows if x["place"] is not None)]
    value = str(entry.usd_value) if entry.usd_value is not None else None
    if written != [entry.topup_id or None, value, *(str(x.units) for x in entry.lines)]:
        raise ValueError("a number or name in it is not written as this program writes it")
    return entry


def audit(db: sqlite3.Connection, sought: bytes | None = None) -> Audit:
    """Read the whole journal, and hold each entry against its hash, and then against the top-ups."""
    last, count, found = NOTHING_YET, 0, None
    try:
        for number, account, entry, stored in rows(db):
            if chained(last, account, entry) != stored:
                return Audit(count, last, (number, "it is not what was written, or one before it is missing"), None)
            last, count = stored, count + 1
            found = count if stored == sought else found
    except Broken as broken:
        return Audit(count, last, (broken.number, str(broken)), None)
    return Audit(count, last, None, count - found if found is not None else None, (*_unbooked(db), *_unknown(db)))


def _unbooked(db: sqlite3.Connection) -> Iterator[str]:
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
    for number, topup, tx, block in db.execute(sql, (TAKEN_BACK, TAKEN_BACK, CREDITS)):
        yield f"attempt {number} of top-up {topup} stands in block {block} (0x{tx}), and no entry books it"


def _unknown(db: sqlite3.Connection) -> Iterator[str]:
    """Name each entry of a top-up, or of a transaction of one, that the ledger does not hold.

    The transaction of an authorization is somebody else's; what was ever seen of one is kept as evidence.
    """
    sql = (
        "SELECT entry.id, entry.text, entry.topup, lower(hex(entry.tx_hash)) AS tx, topup.id IS NULL FROM entry"
        " LEFT JOIN topup ON topup.id = entry.topup AND topup.account = entry.account WHERE entry.topup IS NOT NULL"
        " AND (topup.id IS NULL OR (entry.tx_hash IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.topup = entry.topup AND attempt.hash = entry.tx_hash)"
        " AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.topup = entry.topup"
        " AND CASE WHEN json_valid(detail) THEN json_extract(detail, '$.tx_hash') END = lower(hex(entry.tx_hash)))))"
        " ORDER BY entry.id"
    )
    for number, text, topup, tx, lost in db.execute(sql):
        what = f"top-up {topup}" if lost else f"the transaction 0x{tx} of top-up {topup}"
        yield f"entry {number} ({text}) names {what}, which this ledger does not hold"


def chain_all(db: sqlite3.Connection) -> None:
    """Chain the entries of a ledger that was written before there were hashes; within the caller's transaction."""
    last = NOTHING_YET
    for number, account, entry, _ in list(rows(db)):
        last = chained(last, account, entry)
        db.execute("UPDATE entry SET hash = ? WHERE id = ?", (last, number))


def posted(db: sqlite3.Connection, account: str, until_ms: int) -> int:
    """Return the credits that top-ups have brought up to a moment, in 10^-6 dollars."""
    sql = (
        "SELECT units FROM line JOIN entry ON entry.id = line.entry WHERE entry.account = ? AND entry.at_ms <= ?"
        " AND entry.topup IS NOT NULL AND line.account = ?"
    )
    return sum(int(row["units"]) for row in db.execute(sql, (account, until_ms, CREDITS)))


def wallet_booked(db: sqlite3.Connection, account: str, commodity: Commodity, block: int) -> int:
    """Return what all lines of the wallet sum to whose block is at or before this one."""
    sql = (
        "SELECT units FROM line JOIN entry ON entry.id = line.entry WHERE entry.account = ? AND entry.block_number <= ?"
        " AND line.account = ? AND line.commodity = ?"
    )
    return sum(int(row["units"]) for row in db.execute(sql, (account, block, WALLET, commodity.value)))


def balance_assertions(db: sqlite3.Connection, account: str, before_ms: int | None = None) -> list[BalanceAssertion]:
    """Return the newest checkpoint of each commodity: of all, or of those before a moment."""
    sql = "SELECT * FROM checkpoint WHERE account = ? AND (? IS NULL OR at_ms < ?) ORDER BY at_ms, block"
    newest = {}
    for x in db.execute(sql, (account, before_ms, before_ms)):
        one = Commodity(x["commodity"])
        newest[one] = BalanceAssertion(x["chain_id"], x["wallet"], one, x["block"], x["at_ms"], int(x["units"]))
    return list(newest.values())


def keep(db: sqlite3.Connection, account: str, at: BalanceAssertion) -> None:
    """Store a checkpoint; within the caller's transaction."""
    row = (account, at.chain_id, at.wallet, at.commodity.value, at.block, at.at_ms, str(at.units))
    db.execute("INSERT INTO checkpoint VALUES (?,?,?,?,?,?,?)", row)
