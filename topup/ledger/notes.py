"""What have people told the ledger? Any process may say it."""

from __future__ import annotations

from topup.ledger import database
from topup.ledger.lock import Ledger
from topup.ports.ledger import GONE, Control


class Words(Ledger):
    """Pause, resume, and tombstones of rails."""

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
        with self._db_errors(), database.transaction(self._db):
            self._say(account, name, value, at_ms, by)

    def _say(self, account: str, name: str, value: str, at_ms: int, by: str) -> None:
        """Do the same within the caller's transaction."""
        self._db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", (account, name, value, at_ms, by))

    def told(self, account: str, name: str) -> str | None:
        """Return what was last said under `name`."""
        rows = self._all("SELECT value FROM control WHERE account = ? AND name = ?", account, name)
        return str(rows[0]["value"]) if rows else None

    def told_at(self, account: str, name: str) -> int:
        """Return when something was last said under `name`, 0 when it never was."""
        rows = self._all("SELECT at_ms FROM control WHERE account = ? AND name = ?", account, name)
        return int(rows[0]["at_ms"]) if rows else 0

    def said_within(self, account: str, name: str, now_ms: int, span_ms: int) -> bool:
        """Tell whether a person said `name` within the last `span_ms`."""
        rows = self._all("SELECT at_ms FROM control WHERE account = ? AND name = ? AND value = '1'", account, name)
        return bool(rows) and now_ms - int(rows[0]["at_ms"]) <= span_ms
