"""How is usage by model and by key kept?

Functions over an open connection; `sqlite.py` gives them one, within a transaction where they write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date, timedelta

from topup.accounting.usage import ApiKey, DayUsed, Used

EPOCH = date(1970, 1, 1)


def known(db: sqlite3.Connection, account: str, first: date, last: date) -> list[date]:
    """Return the days that are stored whole, within first and last, both included."""
    rows = db.execute(
        "SELECT day FROM usage_known WHERE account = ? AND day BETWEEN ? AND ? ORDER BY day",
        (account, _number(first), _number(last)),
    )
    return [EPOCH + timedelta(days=row[0]) for row in rows]


def keep_key(db: sqlite3.Connection, account: str, key: ApiKey, days: Mapping[date, Used]) -> None:
    """Store what a key has used on days that are not whole yet, and what it had used when the current one began."""
    stored = {_number(day) for day in known(db, account, min(days), max(days))} if days else set()
    for day, used in days.items():
        if _number(day) not in stored:
            db.execute(
                "DELETE FROM usage_day WHERE account = ? AND day = ? AND split = 'key' AND name = ?",
                (account, _number(day), key.hash),
            )
            if used.nano or used.requests:
                _insert(db, account, day, "key", replace(used, name=key.hash))
    db.execute(
        "INSERT INTO api_key VALUES (?, ?, ?, ?)"
        " ON CONFLICT (account, hash) DO UPDATE SET name = excluded.name, nano = excluded.nano",
        (account, key.hash, key.name, key.until_today_nano),
    )


def keep_day(db: sqlite3.Connection, account: str, told: DayUsed, at_ms: int) -> None:
    """Store a whole day; one that is stored already stands."""
    number = _number(told.day)
    if not db.execute("INSERT OR IGNORE INTO usage_known VALUES (?, ?, ?)", (account, number, at_ms)).rowcount:
        return
    db.execute("DELETE FROM usage_day WHERE account = ? AND day = ?", (account, number))
    for split, its in (("model", told.models), ("key", told.keys)):
        for used in its:
            _insert(db, account, told.day, split, used)


def on_its_way(db: sqlite3.Connection, account: str, day: date) -> list[Used]:
    """Return what each key has used on a day that is not whole yet, as far as the keys were asked for."""
    return _rows(db, account, "key", (day, day), whole=False)


def by(db: sqlite3.Connection, account: str, split: str, first: date, last: date) -> list[Used]:
    """Return what each model, or each key by its hash, has used on the whole days from first to last."""
    return _rows(db, account, split, (first, last), whole=True)


def _rows(db: sqlite3.Connection, account: str, split: str, span: tuple[date, date], *, whole: bool) -> list[Used]:
    rows = db.execute(
        "SELECT name, sum(nano), sum(requests), sum(prompt_tokens), sum(completion_tokens) FROM usage_day u"
        " WHERE account = ? AND day BETWEEN ? AND ? AND split = ? AND (NOT ? OR EXISTS"
        " (SELECT 1 FROM usage_known k WHERE k.account = u.account AND k.day = u.day)) GROUP BY name",
        (account, _number(span[0]), _number(span[1]), split, whole),
    )
    return [Used(*row) for row in rows]


def _insert(db: sqlite3.Connection, account: str, day: date, split: str, x: Used) -> None:
    values = (account, _number(day), split, x.name, x.nano, x.requests, x.prompt_tokens, x.completion_tokens)
    db.execute("INSERT INTO usage_day VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def by_day(db: sqlite3.Connection, account: str, first: date, last: date) -> list[tuple[date, Used]]:
    """Return what was used on each stored day, oldest first; a day without usage has zeros."""
    rows = db.execute(
        "SELECT k.day, coalesce(sum(nano), 0), coalesce(sum(requests), 0),"
        " coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM usage_known k"
        " LEFT JOIN usage_day u ON u.account = k.account AND u.day = k.day AND u.split = 'model'"
        " WHERE k.account = ? AND k.day BETWEEN ? AND ? GROUP BY k.day ORDER BY k.day",
        (account, _number(first), _number(last)),
    )
    return [(EPOCH + timedelta(days=row[0]), Used("", *row[1:])) for row in rows]


def keys(db: sqlite3.Connection, account: str) -> dict[str, tuple[str, int]]:
    """Return name, and what it had used when its days were asked for last, of each key by its hash."""
    rows = db.execute("SELECT hash, name, nano FROM api_key WHERE account = ?", (account,))
    return {row[0]: (row[1], row[2]) for row in rows}


def forget_keys(db: sqlite3.Connection, account: str) -> None:
    """Forget how far the keys were asked for, and what they have said of days that are not whole yet."""
    db.execute("UPDATE api_key SET nano = -1 WHERE account = ?", (account,))
    db.execute(
        "DELETE FROM usage_day WHERE account = ? AND split = 'key'"
        " AND day NOT IN (SELECT day FROM usage_known WHERE account = ?)",
        (account, account),
    )


def forget_gone(db: sqlite3.Connection, account: str, listed: Collection[str]) -> None:
    """Forget the keys that are not listed any more, but those that usage is stored of: it is shown by their names."""
    gone = [(account, name) for name in keys(db, account).keys() - set(listed)]
    db.executemany(
        "DELETE FROM api_key WHERE account = ? AND hash = ? AND NOT EXISTS (SELECT 1 FROM usage_day u"
        " WHERE u.account = api_key.account AND u.split = 'key' AND u.name = api_key.hash)",
        gone,
    )


def _number(day: date) -> int:
    return (day - EPOCH).days
