"""What have people told the ledger, and what does it keep in mind? Any process may say it."""

import sqlite3

from topup.domain.lifecycle import TopUp
from topup.domain.notes import PROGRAM, Note
from topup.ledger import database
from topup.ledger.lock import Ledger
from topup.ports.ledger import Control


class Notes(Ledger):
    """The notes of each account, see `domain/notes.py`."""

    def control(self, account: str) -> Control:
        """Return what people have told this ledger."""
        rows = self._all("SELECT name, value, by, at_ms FROM control WHERE account = ?", account)
        said = {row["name"]: (row["value"], row["by"], row["at_ms"]) for row in rows}
        paused, by, at_ms = said.get(Note.PAUSED, ("0", "", 0))
        gone = {name.removeprefix(Note.GONE) for name in said if name.startswith(Note.GONE) and said[name][0] == "1"}
        resumed_ms, (rails, _, _) = at_ms if paused == "0" else 0, said.get(Note.RAILS, (None, "", 0))
        return Control(paused == "1", frozenset(gone), paused_by=by, resumed_ms=resumed_ms, rails=rails)

    def pause(self, account: str, at_ms: int) -> None:
        """Let nothing new be bought until a person resumes it."""
        self.say(account, Note.PAUSED, "1", at_ms)

    def set_gone(self, account: str, rail: str, *, gone: bool, at_ms: int) -> None:
        """Put up or take down the tombstone of a rail."""
        self.say(account, Note.GONE.of(rail), str(int(gone)), at_ms)

    def word(self, topup: TopUp) -> str:
        """Return what a person said about this top-up and nobody has obeyed yet; "" where there is nothing."""
        return self.told(topup.account, Note.RESOLVE.of(topup.id)) or ""

    def new_word(self, topup: TopUp) -> str:
        """Return the same, unless it was said before the top-up came to its state: that was about something else."""
        newer = self.told_at(topup.account, Note.RESOLVE.of(topup.id)) >= topup.moved_ms
        return self.word(topup) if newer else ""

    def obeyed(self, topup: TopUp, at_ms: int) -> None:
        """Use a person's word up, before it is acted on: the next halt needs a word of its own."""
        self.say(topup.account, Note.RESOLVE.of(topup.id), "", at_ms)

    def usage_rests(self, account: str) -> tuple[str, int] | None:
        """Return why nothing came of the last question for usage, and from when on the next one may be asked."""
        why = self.told(account, Note.USAGE)
        return None if why is None else (why, self.told_at(account, Note.USAGE))

    def rest_usage(self, account: str, why: str, until_ms: int) -> None:
        """Store that usage is asked for no more until then; the note's own time is that moment."""
        self.say(account, Note.USAGE, why, until_ms)

    def say(self, account: str, name: str, value: str, at_ms: int, by: str = PROGRAM) -> None:
        """Store what a person wants of this ledger; any process may."""
        with self._db_errors(), database.transaction(self._db):
            self._say(account, name, value, at_ms, by)

    def _say(self, account: str, name: str, value: str, at_ms: int, by: str = PROGRAM) -> None:
        """Do the same within the caller's transaction."""
        self._db.execute("INSERT OR REPLACE INTO control VALUES (?,?,?,?,?)", (account, name, value, at_ms, by))

    def told(self, account: str, name: str) -> str | None:
        """Return what was last said under `name`."""
        note = self._note(account, name)
        return str(note["value"]) if note is not None else None

    def told_at(self, account: str, name: str) -> int:
        """Return when something was last said under `name`, 0 when it never was."""
        note = self._note(account, name)
        return int(note["at_ms"]) if note is not None else 0

    def said_within(self, account: str, name: str, now_ms: int, span_ms: int) -> bool:
        """Tell whether a person said `name` within the last `span_ms`."""
        return self.told(account, name) == "1" and now_ms - self.told_at(account, name) <= span_ms

    def _note(self, account: str, name: str) -> sqlite3.Row | None:
        return next(iter(self._all("SELECT * FROM control WHERE account = ? AND name = ?", account, name)), None)
