"""What has been wished for, and what became of it? One wish is one purchase, however often it is repeated.

Whoever asks is often another process than the one that acts. So a wish is a row before anything else happens; taking
it and withdrawing it exclude each other, by the conditions of their statements; and the top-up that is decided for it
carries its number, from the very transaction that decides it.
"""

from dataclasses import replace

from topup.accounting.reconciliation import UNSENT
from topup.domain.credits import DAY_MS
from topup.domain.errors import Exit, SettingsError
from topup.domain.lifecycle import TERMINAL, Fact, State, TopUp
from topup.domain.money import Usd
from topup.domain.reasons import Reason
from topup.ledger import database, rows
from topup.ledger.steps import TopUpSteps
from topup.ports.ledger import Requested, Told, Wish

# After one of these whoever asked has got the answer: the same command is a new wish.
FINAL = (Exit.OK, Exit.PERSON)
# A wish that somebody may still begin with. Every statement that takes or withdraws one holds this.
WAITING = "outcome IS NULL AND withdrawn_ms IS NULL"
# A top-up that speaks for its wish.
COUNTS = "wish = ? AND NOT (state = 'dropped' AND reason = ?)"


class Wishes(TopUpSteps):
    """Wishes, from the first asking to the answer."""

    # -- whoever asks: any process ------------------------------------------------------------------------------

    def wish(self, account: str, wish: Wish, at_ms: int, until_ms: int) -> Requested:
        """Store a wish, or find the earlier one that this is a repetition of; both in one transaction.

        One with a name is the earlier one of that name. One without is the newest of the same amount, force and user
        that is younger than a day and whose asker has not got its answer yet.

        Raises:
            SettingsError: the name stands for another amount.
        """
        with self._db_errors(), database.transaction(self._db):
            earlier = self.earlier(account, wish, at_ms)
            if earlier is None:
                amount = str(wish.amount) if wish.amount is not None else None
                asked = {"forced": wish.forced, "name": wish.name, "uid": wish.uid}
                number = self._insert(
                    "request", account=account, at_ms=at_ms, amount=amount, **asked, until_ms=until_ms
                )
            else:
                number = earlier.number
                self._again(earlier, until_ms)
        return self.requested(number)

    def earlier(self, account: str, wish: Wish, at_ms: int) -> Requested | None:
        """Return the wish that this one repeats, and change nothing; None where it is a new one.

        Raises:
            SettingsError: the name stands for another amount.
        """
        if wish.name is not None:
            for row in self._all("SELECT * FROM request WHERE account = ? AND name = ?", account, wish.name):
                amount = rows.usd(row["amount"])
                if amount != wish.amount:
                    raise SettingsError(
                        f"--request-id {wish.name} was used for {_told(amount)}, this asks for {_told(wish.amount)}",
                        remedy="repeat it with that amount, or give the new wish a name of its own",
                    )
                return rows.request(row)
            return None
        same = (
            "SELECT * FROM request WHERE account = ? AND at_ms > ? AND name IS NULL AND uid = ? AND forced = ?"
            " AND (told IS NULL OR told NOT IN (?, ?)) ORDER BY id DESC"
        )
        values = (account, at_ms - DAY_MS, wish.uid, int(wish.forced), *map(int, FINAL))
        each = map(rows.request, self._all(same, *values))
        return next((request for request in each if request.amount == wish.amount), None)

    def _again(self, asked: Requested, until_ms: int) -> None:
        """Open a wish anew that ended without anything that counts; else only wait longer for it."""
        number = asked.number
        self._db.execute("UPDATE request SET until_ms = max(coalesce(until_ms, 0), ?) WHERE id = ?", (until_ms, number))
        over = asked.withdrawn or (asked.outcome is not None and asked.code not in FINAL)
        if over and self.bought(number) is None:
            ended = ("taken_ms", "withdrawn_ms", "outcome", "why", "code", "topup")
            self._set("request", {"id": number}, **dict.fromkeys(ended))

    def withdraw_request(self, number: int, at_ms: int) -> bool:
        """Withdraw a wish beside the writer that may take it; False where that has taken it, or anything was decided.

        True also where it was withdrawn before, or answered with "later": nobody acts on those.
        """
        with self._db_errors(), database.transaction(self._db):
            won = self._db.execute(
                f"UPDATE request SET withdrawn_ms = ? WHERE id = ? AND taken_ms IS NULL AND {WAITING}",
                (at_ms, number),
            ).rowcount
            asked = self.requested(number)
            idle = won == 1 or asked.withdrawn or asked.code == Exit.LATER
            return idle and self.bought(number) is None

    def tell_request(self, number: int, code: int) -> None:
        """Store that whoever asked has been given this exit code."""
        with self._db_errors(), database.transaction(self._db):
            self._db.execute("UPDATE request SET told = ? WHERE id = ?", (int(code), number))

    def requested(self, number: int) -> Requested:
        """Return one wish as it stands."""
        return rows.request(self._one("SELECT * FROM request WHERE id = ?", number))

    def bought(self, number: int) -> TopUp | None:
        """Return the newest top-up that was decided for a wish; one that was withdrawn unsent is none."""
        sql = f"SELECT * FROM topup WHERE {COUNTS} ORDER BY rowid DESC LIMIT 1"
        return next((self._load(row) for row in self._all(sql, number, Reason.WITHDRAWN)), None)

    # -- whoever acts: the one writer ---------------------------------------------------------------------------

    def next_request(self, account: str) -> Requested | None:
        """Return the oldest wish nobody has answered."""
        sql = f"SELECT * FROM request WHERE account = ? AND {WAITING} ORDER BY id LIMIT 1"
        return next((rows.request(row) for row in self._all(sql, account)), None)

    def take_request(self, number: int, at_ms: int) -> bool:
        """Store that a wish is being carried out; False where it was withdrawn or answered before.

        There is one writer: what is taken already was taken by a process that has ended, or by this one.
        """
        with self._write(at_ms) as db:
            sql = f"UPDATE request SET taken_ms = ? WHERE id = ? AND {WAITING}"
            return db.execute(sql, (at_ms, number)).rowcount == 1

    def answer_request(self, number: int, ending: Told, at_ms: int) -> None:
        """Store what became of a wish."""
        with self._write(at_ms):
            self._answer(number, ending)

    def let_go(self, number: int, ending: Told, at_ms: int) -> TopUp | None:
        """End a wish of which nothing is out: drop its top-up where that was never sent, and store `ending`.

        Returns its top-up where something of it is out, or may be, or was: then nothing is changed. With the lock in
        hand nobody else acts on it, whoever had taken it.
        """
        with self._write(at_ms) as db:
            topup = self.bought(number)
            if topup is not None and topup.state not in TERMINAL:
                if topup.out or topup.state not in UNSENT:
                    return topup
                self._drop_unsent(topup, at_ms)
            self._answer(number, ending)
            if ending.code not in FINAL:
                db.execute("UPDATE request SET withdrawn_ms = ? WHERE id = ?", (at_ms, number))
        return None

    def _answer(self, number: int, ending: Told) -> None:
        self._db.execute(
            "UPDATE request SET outcome = ?, why = ?, code = ?, topup = coalesce(?, topup) WHERE id = ?",
            (self.hide(ending.outcome), ending.why, ending.code, ending.topup, number),
        )

    def _drop_unsent(self, topup: TopUp, at_ms: int) -> None:
        """Drop a top-up of which no bytes were meant to leave; a nonce that it holds is given back."""
        if topup.state in (State.RESERVED, State.SIGNED):
            self._give_back(topup, Reason.WITHDRAWN, at_ms)
            topup = replace(topup, state=State.CHARGED)
        self._advance(topup, Fact.DROP, at_ms, Reason.WITHDRAWN)


def _told(amount: Usd | None) -> str:
    return f"{amount} dollars" if amount is not None else "whatever is due"
