"""How is usage by model and by key kept?"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date, timedelta

from topup.accounting.usage import ApiKey, DayUsed, Used
from topup.ledger import rows
from topup.ledger.lock import Ledger

EPOCH = date(1970, 1, 1)


class UsageDays(Ledger):
    """What was used on each UTC day, by model and by key."""

    def usage_known(self, account: str, first: date, last: date) -> list[date]:
        """Return the UTC days whose usage is stored whole, within first and last, both included."""
        sql = "SELECT day FROM usage_known WHERE account = ? AND day BETWEEN ? AND ? ORDER BY day"
        return [EPOCH + timedelta(days=row[0]) for row in self._all(sql, account, _number(first), _number(last))]

    def keys_used(self, account: str) -> dict[str, tuple[str, int]]:
        """Return of each key, by its hash, name and what it had used (nano) before the day it was asked for last."""
        stored = self._all("SELECT hash, name, nano FROM api_key WHERE account = ?", account)
        return {row["hash"]: (row["name"], row["nano"]) for row in stored}

    def keep_key_used(self, account: str, key: ApiKey, days: Mapping[date, Used], now_ms: int) -> None:
        """Store what a key has used on days that are not whole yet, and what it had used when the current one began."""
        with self._write(now_ms) as db:
            whole = self.usage_known(account, min(days), max(days)) if days else ()
            for day, used in days.items():
                if day not in whole:
                    db.execute(
                        "DELETE FROM usage_day WHERE account = ? AND day = ? AND split = 'key' AND name = ?",
                        (account, _number(day), key.hash),
                    )
                    if used.nano or used.requests:
                        self._used(account, day, "key", replace(used, name=key.hash))
            db.execute(
                "INSERT INTO api_key VALUES (?, ?, ?, ?)"
                " ON CONFLICT (account, hash) DO UPDATE SET name = excluded.name, nano = excluded.nano",
                (account, key.hash, key.name, key.until_today_nano),
            )

    def keep_usage(self, account: str, whole: DayUsed, now_ms: int) -> None:
        """Store a whole day; one that is stored already stands."""
        number = _number(whole.day)
        with self._write(now_ms) as db:
            if not db.execute("INSERT OR IGNORE INTO usage_known VALUES (?, ?, ?)", (account, number, now_ms)).rowcount:
                return
            db.execute("DELETE FROM usage_day WHERE account = ? AND day = ?", (account, number))
            for split, its in (("model", whole.models), ("key", whole.keys)):
                for used in its:
                    self._used(account, whole.day, split, used)

    def forget_keys_gone(self, account: str, listed: Collection[str], now_ms: int) -> None:
        """Forget the keys, by their hashes, that are not listed any more and have used nothing that is stored.

        What usage is stored of is shown by their names.
        """
        with self._write(now_ms) as db:
            gone = [(account, name) for name in self.keys_used(account).keys() - set(listed)]
            db.executemany(
                "DELETE FROM api_key WHERE account = ? AND hash = ? AND NOT EXISTS (SELECT 1 FROM usage_day u"
                " WHERE u.account = api_key.account AND u.split = 'key' AND u.name = api_key.hash)",
                gone,
            )

    def forget_keys_used(self, account: str, now_ms: int) -> None:
        """Forget how far the keys were asked for, and what they have said of days that are not whole yet."""
        with self._write(now_ms) as db:
            db.execute("UPDATE api_key SET nano = -1 WHERE account = ?", (account,))
            db.execute(
                "DELETE FROM usage_day WHERE account = ? AND split = 'key'"
                " AND day NOT IN (SELECT day FROM usage_known WHERE account = ?)",
                (account, account),
            )

    def used_by_day(self, account: str, first: date, last: date) -> list[tuple[date, Used]]:
        """Return what was used on each whole day, oldest first; a day without usage has zeros."""
        stored = self._all(
            "SELECT k.day, coalesce(sum(nano), 0), coalesce(sum(requests), 0),"
            " coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM usage_known k"
            " LEFT JOIN usage_day u ON u.account = k.account AND u.day = k.day AND u.split = 'model'"
            " WHERE k.account = ? AND k.day BETWEEN ? AND ? GROUP BY k.day ORDER BY k.day",
            *(account, _number(first), _number(last)),
        )
        return [(EPOCH + timedelta(days=day), Used("", *sums)) for day, *sums in stored]

    def used_by(self, account: str, split: str, first: date, last: date, *, whole: bool = True) -> list[Used]:
        """Return what each "model", or each "key" by its hash, has used on the days from first to last.

        Unless those are meant that are not `whole` yet too, as far as the keys were asked for, only whole ones count.
        """
        stored = self._all(
            "SELECT name, sum(nano), sum(requests), sum(prompt_tokens), sum(completion_tokens) FROM usage_day u"
            " WHERE account = ? AND day BETWEEN ? AND ? AND split = ? AND (NOT ? OR EXISTS"
            " (SELECT 1 FROM usage_known k WHERE k.account = u.account AND k.day = u.day)) GROUP BY name",
            *(account, _number(first), _number(last), split, whole),
        )
        return [Used(*row) for row in stored]

    def _used(self, account: str, day: date, split: str, used: Used) -> None:
        self._insert("usage_day", account=account, day=_number(day), split=split, **rows.columns(used))


def _number(day: date) -> int:
    return (day - EPOCH).days
