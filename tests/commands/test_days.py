"""Does a ledger that the daemon has left after days make statements that a bookkeeper could file?"""

import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests import tools
from tests.accounting import csv_reader
from tests.world.november import accepting, checked
from tests.world.served import asked
from topup.accounting.journal import Commodity
from topup.ledger.store import SqliteStore

TOPUP = str(tools.BIN / "topup")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of three days: a refill each day at least, and books closed twice."""
    folder = tmp_path_factory.mktemp("lived")
    command = [TOPUP, "sandbox", "--days", "3", "--keep", str(folder), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=tools.HANGS_S)
    told = json.loads(done.stdout)
    assert (told["books_match_chain"], told["books_match_provider"], told["halted"]) == (True, True, [])
    assert told["topups"] >= 2
    return folder


def days(lived: Path) -> tuple[str, str, str, str]:
    """Return options that name the days which are over."""
    store = SqliteStore.open_reader(lived)
    closed, first = store.closed("default"), store.entries("default")[0]
    store.close()
    assert closed is not None
    first_day, last_day = (datetime.fromtimestamp(ms // 1000, UTC).date() for ms in (first.at_ms, closed.at_ms))
    return "--from", str(first_day), "--to", str(last_day)


def test_the_closed_days_have_no_difference(lived: Path) -> None:
    """Opening balance, refills and usage end at the provider's balance to the cent; as CSV it is the journal."""
    told = json.loads(asked(lived, "statement", "--json", *days(lived)).stdout)
    assert told["differences"] == []
    assert Decimal(told["credits"]["used"]) > 5
    assert {(one["credits_usd"], one["fees"]) for one in told["topups"]} == {("10", "0.5")}
    assert all(Decimal("1.05") <= Decimal(one["usd_per_credit"]) < Decimal("1.06") for one in told["topups"])
    entries = csv_reader.read(asked(lived, "statement", "--format", "csv", *days(lived)).stdout)
    assert {e.text for e in entries} >= {"payment", "credits posted"}


@pytest.mark.parametrize(("form", "program"), [("beancount", "bean-check"), ("hledger", "hledger")])
def test_bookkeeping_programs_accept_it(lived: Path, tmp_path: Path, form: str, program: str) -> None:
    """The statement of those days passes `bean-check` and `hledger check --strict`."""
    file = tmp_path / "statement.txt"
    file.write_text(asked(lived, "statement", "--format", form, *days(lived)).stdout, encoding="utf-8")
    assert "usage" in file.read_text(encoding="utf-8")
    checked(accepting(program, file))


def test_the_journal_verifies_with_the_head_of_the_statement(lived: Path) -> None:
    """The hash that the statement prints is in the ledger, and nothing came after it."""
    head = json.loads(asked(lived, "statement", "--json").stdout)["ledger_head"]
    assert json.loads(asked(lived, "ledger", "verify", "--head", head, "--json").stdout)["entries_since"] == 0


def test_days_without_a_place_are_refused() -> None:
    """`--days` leaves a ledger; without `--keep` it would be lost."""
    done = subprocess.run([TOPUP, "sandbox", "--days", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--keep" in done.stderr


def test_the_wallet_in_the_books_is_the_wallet_on_the_chain(lived: Path) -> None:
    """What it began with is booked once, nobody else moved it, and each checkpoint equals the books to the wei."""
    store = SqliteStore.open_reader(lived)
    texts = [one.text for one in store.entries("default")]
    kept = store.balance_assertions("default")
    booked = [store.wallet_booked("default", one.commodity, one.block) for one in kept]
    store.close()
    assert texts.count("opening balance of the wallet") == 1
    assert "wallet moved by others" not in texts
    assert {one.commodity for one in kept} == {Commodity.ETH, Commodity.USDC}
    assert [one.units for one in kept] == booked


def test_a_page_is_written_where_it_is_wanted(lived: Path, tmp_path: Path) -> None:
    """The file holds the page; one that cannot be written is named."""
    assert asked(lived, "statement", "--html", str(tmp_path / "page.html")).exit_code == 0
    assert "Statement of" in (tmp_path / "page.html").read_text(encoding="utf-8")
    refused = asked(lived, "statement", "--html", str(tmp_path / "no" / "page.html"))
    assert refused.exit_code == 2
    assert "cannot be written" in refused.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--month", "2026-13"), "--month '2026-13' is no month"),
        (("--month", "2026-11", "--from", "2026-11-01"), "--month is given beside"),
        (("--from", "2026-11-01"), "belong together"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "--from 2026-11-02 is after --to 2026-11-01"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named_and_mended(lived: Path, options: tuple[str, ...], named: str) -> None:
    """A sentence and what to do, exit 2, nothing printed."""
    done = asked(lived, "statement", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert "to do:" in done.stderr
