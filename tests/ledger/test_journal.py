"""Does the journal show every later change, and does it end each day where the provider's balance is?"""

import hashlib
import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.tools import ROOT
from tests.world.builders import ACCOUNT, NOW_MS, operator
from tests.world.ledger import IN_BLOCK, paid, sent
from tests.world.served import asked
from tests.world.stage import Stage
from topup.accounting.closing import ELSEWHERE, OPENING, USAGE, Closed
from topup.accounting.journal import CREDITS, Commodity, Entry, Line, chained, reversal
from topup.commands.ledger_verify import audit_lines
from topup.domain.credits import DAY_MS
from topup.domain.errors import Exit
from topup.domain.lifecycle import Fact
from topup.domain.money import Usd
from topup.ledger import database, schema
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore
from topup.sandbox.world import World, embedded

TRIGGERS = ("entry_stands", "entry_stays", "line_stands", "line_stays")


def used(units: int, at_ms: int = NOW_MS) -> Entry:
    lines = (Line(USAGE, Commodity.CREDIT, units), Line(CREDITS, Commodity.CREDIT, -units))
    return Entry(at_ms, "", "usage", None, "", None, Usd.of(1), "provider", lines)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A ledger with one payment and four days of usage in its journal."""
    store = SqliteStore.open_writer(tmp_path)
    topup = paid(store, operator())
    lines = (Line("assets:wallet", Commodity.ETH, -1), Line("expenses:gas", Commodity.ETH, 1))
    entry = Entry(NOW_MS, topup.id, "payment", topup.out[-1].tx_hash, "c", 7, Usd.of(10), "feed", lines)
    store.settle(topup, topup.out[-1], entry, NOW_MS)
    for n in range(4):
        store.close_books(ACCOUNT, Closed(NOW_MS + n, 0, n, 0), [used(n + 1)], NOW_MS + n)
    store.close()
    return tmp_path


def tampered(place: Path, *statements: str) -> None:
    """Change the file behind the program's back, as whoever owns the machine can."""
    with closing(sqlite3.connect(place / FILE)) as db, db:
        for trigger in TRIGGERS:
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            assert db.execute(statement).rowcount > 0


def verify(place: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = asked(place, "ledger", "verify", "--json", *options)
    return done.exit_code, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def head_of(place: Path) -> str:
    """Return the newest hash, as a pass prints it."""
    with closing(SqliteStore.open_reader(place)) as store:
        head = store.head()
    assert head is not None
    return head


def test_an_untouched_journal_verifies(place: Path) -> None:
    """Five entries, each what its hash says; the head is the one that passes print, and is found again later."""
    head = head_of(place)
    code, told = verify(place, "--head", head)
    assert (code, told["verified"], told["entries"], told["entries_since"]) == (0, True, 5, 0)
    assert told["ledger_head"] == head
    with closing(SqliteStore.open_writer(place)) as store:
        store.close_books(ACCOUNT, Closed(NOW_MS + 9, 0, 9, 0), [used(7)], NOW_MS + 9)
    assert verify(place, "--head", head)[1]["entries_since"] == 1


def test_the_hash_is_what_its_description_says(place: Path) -> None:
    """SHA-256 over the one before and plain JSON: anybody can recompute the first one."""
    with closing(SqliteStore.open_reader(place)) as store:
        first = store.entries(ACCOUNT)[0]
    assert first.tx_hash is not None
    lines = '[["assets:wallet","ETH","-1"],["expenses:gas","ETH","1"]]'
    told = f'["{ACCOUNT}",{NOW_MS},"{first.topup_id}","payment","{first.tx_hash.hex()}","c",7,"10","feed",{lines}]'
    assert chained(b"", ACCOUNT, first) == hashlib.sha256(told.encode()).digest()


def test_the_recipe_for_auditors_comes_to_the_same_head(place: Path) -> None:
    """The program in docs/books.md knows nothing of topup, ends at the printed head, and sees a change."""
    (recipe,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/books.md").read_text(), re.DOTALL)
    words: dict[str, Any] = {}
    exec(recipe, words)  # noqa: S102 - it is our own page
    assert words["chain"](place / FILE) == head_of(place)
    tampered(place, "UPDATE entry SET text = 'Payment' WHERE id = 1")
    with pytest.raises(AssertionError, match="entry 1 was changed"):
        words["chain"](place / FILE)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE line SET units = '9' WHERE entry = 3 AND n = 0",
        "UPDATE line SET account = 'assets:elsewhere' WHERE entry = 1 AND n = 0",
        "UPDATE line SET commodity = 'USDC' WHERE entry = 1",
        "UPDATE entry SET at_ms = at_ms + 1 WHERE id = 2",
        "UPDATE entry SET text = 'Payment' WHERE id = 1",
        "UPDATE entry SET tx_hash = zeroblob(32) WHERE id = 1",
        "UPDATE entry SET charge_id = 'd' WHERE id = 1",
        "UPDATE entry SET block_number = 8 WHERE id = 1",
        "UPDATE entry SET usd_value = '11' WHERE id = 1",
        "UPDATE entry SET price_source = 'par' WHERE id = 1",
        "UPDATE entry SET account = 'other' WHERE id = 4",
        "UPDATE entry SET topup = NULL WHERE id = 1",
        "UPDATE entry SET hash = zeroblob(32) WHERE id = 4",
        "UPDATE entry SET id = 9 WHERE id = 3",
        "DELETE FROM line WHERE entry = 4",
        "UPDATE line SET units = ' ' || units WHERE entry = 2 AND n = 0",
        "UPDATE line SET units = '01' WHERE entry = 1 AND n = 1",
        "UPDATE entry SET usd_value = '10.0' WHERE id = 1",
        "UPDATE entry SET usd_value = 'NaN' WHERE id = 1",
        "UPDATE entry SET topup = '' WHERE id = 2",
    ],
)
def test_every_change_of_a_row_is_seen(place: Path, change: str) -> None:
    """Whatever is changed behind the program's back, the first entry that does not fit is named."""
    tampered(place, change)
    code, told = verify(place)
    assert (code, told["verified"]) == (Exit.PERSON, False)
    assert told["wrong_entry"] is not None


def test_an_end_that_was_cut_off_shows_by_an_earlier_head(place: Path) -> None:
    """What is left still verifies; the hash that was printed before is in it no more."""
    head = head_of(place)
    tampered(place, "DELETE FROM line WHERE entry = 5", "DELETE FROM entry WHERE id = 5")
    assert verify(place)[0] == 0
    code, told = verify(place, "--head", head)
    assert (code, told["verified"], told["entries_since"]) == (Exit.PERSON, False, None)


def test_what_is_written_while_it_is_read_is_no_change(place: Path) -> None:
    """The daemon books something just as each statement of the audit begins: nobody is told of a change."""
    writer = SqliteStore.open_writer(place)

    def books(_: str) -> None:
        writer.close_books(ACCOUNT, Closed(NOW_MS + 9, 0, 9, 0), [used(7)], NOW_MS + 9)

    with closing(writer), closing(SqliteStore.open_reader(place)) as reader:
        reader._db.set_trace_callback(books)
        audit = reader.audit()
    assert audit.wrong is None
    assert audit.count > 5


def test_an_entry_that_cannot_be_read_is_named_by_its_number(place: Path) -> None:
    """Lines that do not balance stand in no entry; ids may have holes, so the number is the stored one."""
    tampered(
        place,
        "UPDATE entry SET id = 40 WHERE id = 5",
        "UPDATE line SET entry = 40 WHERE entry = 5",
        "UPDATE line SET units = '1000' WHERE entry = 40 AND n = 0",
    )
    assert verify(place)[1]["wrong_entry"] == 40


@pytest.mark.parametrize("head", ["", "abc", "z" * 64])
def test_a_head_that_is_none_is_named(place: Path, head: str) -> None:
    """The option and the form are named, exit 2."""
    code, told = verify(place, "--head", head)
    assert code == 2
    assert told["error"]["field"] == "--head"


# -- against the top-ups ------------------------------------------------------------------------------------------


def rechained(place: Path, *statements: str) -> None:
    """Change the file as a defective writer would have left it: every hash is what it has to be."""
    tampered(place, *statements, "UPDATE entry SET hash = NULL")
    with closing(sqlite3.connect(place / FILE)) as db, db:
        db.row_factory = sqlite3.Row
        database.chain_all(db)


def gaps(place: Path) -> list[str]:
    """Verify a journal whose hashes are right, and return what does not fit the top-ups."""
    code, told = verify(place)
    assert told["wrong_entry"] is None
    assert (code, told["verified"]) == ((Exit.PERSON, False) if told["gaps"] else (Exit.OK, True))
    return list(told["gaps"])


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("UPDATE attempt SET booked = 1, final = 0", True),
        ("UPDATE attempt SET booked = 0, final = 1", True),
        # While it stands in a block that is not safe yet nothing is missed: it is booked when it is.
        ("UPDATE attempt SET booked = 0", False),
    ],
)
def test_a_payment_that_nobody_booked_is_named(place: Path, said: str, *, named: bool) -> None:
    """A sound chain, and a payment that counts as booked or is final without its entry: a person is told what to do."""
    rechained(place, "DELETE FROM line WHERE entry = 1", "DELETE FROM entry WHERE id = 1", said)
    with closing(SqliteStore.open_reader(place)) as store:
        (paid,) = store.latest(ACCOUNT, 1)
        lines = [line.split()[0] for line in audit_lines(store.audit(), None)]
    (attempt,) = paid.attempts
    assert attempt.tx_hash is not None
    assert attempt.inclusion is not None
    told = f"stands in block {attempt.inclusion.block_number} (0x{attempt.tx_hash.hex()}), and no entry books it"
    assert gaps(place) == [f"attempt {attempt.id} of top-up {paid.id} {told}"] * named
    assert lines == ["verified", "head", *(["GAP", "to"] * named)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE entry SET topup = 'gone' WHERE id = 1", "entry 1 (payment) names top-up gone, which"),
        ("UPDATE entry SET account = 'other' WHERE id = 1", "entry 1 (payment) names top-up t1, which"),
        ("UPDATE entry SET tx_hash = zeroblob(32) WHERE id = 1", f"names the transaction 0x{'0' * 64} of top-up t1"),
    ],
)
def test_an_entry_of_what_the_ledger_does_not_hold_is_named(place: Path, change: str, told: str) -> None:
    """Another top-up, another account's, another transaction: the payment itself is then booked nowhere."""
    rechained(place, change)
    found = gaps(place)
    assert any(told in one and one.endswith("this ledger does not hold") for one in found)
    assert any("no entry books it" in one for one in found) is ("account" not in change)


def test_what_was_taken_back_is_booked_no_more(place: Path) -> None:
    """Its block was replaced: nothing is missed while it is in none, and one entry is when it is in one again."""
    with closing(SqliteStore.open_writer(place)) as store:
        (topup,) = store.latest(ACCOUNT, 1)
        (attempt,) = topup.attempts
        topup = store.undone(topup, attempt, reversal(store.booked(topup.id, attempt), NOW_MS), None, NOW_MS)
        assert gaps(place) == []
        topup = store.included(topup, attempt, IN_BLOCK, None, NOW_MS)
        store.final(attempt, NOW_MS)
    assert len(gaps(place)) == 1


def test_what_somebody_else_carried_is_known_by_its_transaction(place: Path) -> None:
    """An authorization is booked under the transaction that used it, known also after its block was replaced."""
    carried, lines = b"\x07" * 32, (Line("assets:wallet", Commodity.USDC, -1), Line("expenses:lost", Commodity.USDC, 1))
    seen = replace(IN_BLOCK, inclusion=replace(IN_BLOCK.inclusion, tx_hash=carried))
    with closing(SqliteStore.open_writer(place / "carried")) as store:
        topup = sent(store, operator())
        topup = store.included(topup, topup.out[-1], seen, Fact.PAID, NOW_MS)
        entry = Entry(NOW_MS, topup.id, "payment", carried, "c", 7, Usd.of(10), "par", lines)
        topup = store.settle(topup, topup.out[-1], entry, NOW_MS)
        assert gaps(place / "carried") == []
        store.undone(topup, topup.out[-1], reversal(entry, NOW_MS), None, NOW_MS)
        assert gaps(place / "carried") == []


# -- ledgers from before ------------------------------------------------------------------------------------------


@pytest.fixture
def older(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same journal as version 3 of the ledger held it."""
    folder = place / "older"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:3])
        SqliteStore.open_writer(folder).close()
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute("ATTACH ? AS newer", (str(place / FILE),))
        for table in ("topup", "charge", "slot", "attempt"):
            known = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO {table} SELECT {known} FROM newer.{table}")  # noqa: S608
        columns = "id, account, topup, at_ms, text, tx_hash, charge_id, block_number, usd_value, price_source"
        db.execute(f"INSERT INTO entry SELECT {columns} FROM newer.entry WHERE topup IS NOT NULL")  # noqa: S608
        db.execute("INSERT INTO line SELECT * FROM newer.line WHERE entry IN (SELECT id FROM entry)")
    return folder


def test_an_older_ledger_is_chained_when_it_is_opened(older: Path) -> None:
    """Nothing is lost, each entry gets its hash, and the journal is append-only again."""
    SqliteStore.open_writer(older).close()
    assert verify(older)[1]["entries"] == 1
    assert verify(older)[0] == 0
    with closing(sqlite3.connect(older / FILE)) as db:
        for change in ("UPDATE entry SET text = 'x'", "DELETE FROM entry", "UPDATE line SET units = '0'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(change)


def test_a_death_while_it_is_chained_leaves_it_as_it_was(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a step or nothing: the next start takes it again."""

    def dies(db: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    before = shutil.copytree(older, older.parent / "before")
    with monkeypatch.context() as patch:
        patch.setattr(database, "chain_all", dies)
        with pytest.raises(KeyboardInterrupt):
            SqliteStore.open_writer(older)
    with closing(sqlite3.connect(older / FILE)) as db, closing(sqlite3.connect(before / FILE)) as was:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        sql = "SELECT * FROM entry ORDER BY id"
        assert db.execute(sql).fetchall() == was.execute(sql).fetchall()
    SqliteStore.open_writer(older).close()
    assert verify(older)[0] == 0


# -- what no top-up explains --------------------------------------------------------------------------------------


async def test_the_books_end_each_day_where_the_balance_is(tmp_path: Path) -> None:
    """An opening balance, usage by the day, credits bought elsewhere and one top-up: all in the books, to the cent."""
    with World(embedded, scale=10) as world:
        stage = Stage(world, tmp_path, world.clock)

        def held(account: str) -> Decimal:
            lines = [x for e in stage.store.entries("default") for x in e.lines]
            units = sum(x.units for x in lines if (x.account, x.commodity) == (account, Commodity.CREDIT))
            return Decimal(units) / 10**6

        await stage.step()
        assert held(OPENING) == -Decimal(str(stage.store.entries("default")[0].usd_value))
        for day in range(4):
            for _ in range(6):
                world.clock.leap(4 * 3_600_000 - 60_000)
                stage.mine()
                await stage.step()
            if day == 1:
                stage.inside(lambda: world.gateway.account.buy_elsewhere(Decimal(25)))
        closed = stage.store.closed("default")
        assert closed is not None
        (reading,) = [r for r in stage.store.readings("default", closed.at_ms) if r.at_ms == closed.at_ms]
        booked = [e for e in stage.store.entries("default") if e.at_ms <= closed.at_ms]
        units = sum(x.units for e in booked for x in e.lines if x.account == CREDITS)
        assert abs(Decimal(units) / 10**6 - reading.balance.amount) <= Decimal("0.000002")
        assert held(ELSEWHERE) == -25
        assert held(USAGE) > 0
        assert len({e.at_ms // DAY_MS for e in booked if e.text.startswith("usage")}) >= 3
        await stage.close()
