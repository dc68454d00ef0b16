"""Does a ledger that the daemon has left after days make statements that a bookkeeper could file?"""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests import tools
from tests.world.november import accepting, checked
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


def topup(lived: Path, *arguments: str) -> str:
    """Run topup over that ledger, without any network."""
    env = tools.outside() | {"TOPUP_STATE_DIR": str(lived), "TOPUP_CONFIG": "/dev/null"}
    return subprocess.run([TOPUP, *arguments], check=True, capture_output=True, text=True, env=env).stdout


def days(lived: Path) -> tuple[str, str, str, str]:
    """Return options that name the days which are over."""
    store = SqliteStore.open_reader(lived)
    closed, first = store.closed("default"), store.entries("default")[0]
    store.close()
    assert closed is not None
    first_day, last_day = (datetime.fromtimestamp(ms // 1000, UTC).date() for ms in (first.at_ms, closed.at_ms))
    return "--from", str(first_day), "--to", str(last_day)


def test_the_closed_days_have_no_difference(lived: Path) -> None:
    """Opening balance, refills and usage end at the provider's balance to the cent: nothing is left to explain."""
    told = json.loads(topup(lived, "statement", "--json", *days(lived)))
    assert told["differences"] == []
    assert Decimal(told["credits"]["used"]) > 5
    assert told["topups"]


@pytest.mark.parametrize(("form", "program"), [("beancount", "bean-check"), ("hledger", "hledger")])
def test_bookkeeping_programs_accept_it(lived: Path, tmp_path: Path, form: str, program: str) -> None:
    """The statement of those days passes `bean-check` and `hledger check --strict`."""
    file = tmp_path / "statement.txt"
    file.write_text(topup(lived, "statement", "--format", form, *days(lived)), encoding="utf-8")
    assert "usage" in file.read_text(encoding="utf-8")
    checked(accepting(program, file))


def test_the_journal_verifies_with_the_head_of_the_statement(lived: Path) -> None:
    """The hash that the statement prints is in the ledger, and nothing came after it."""
    head = json.loads(topup(lived, "statement", "--json"))["ledger_head"]
    assert json.loads(topup(lived, "ledger", "verify", "--head", head, "--json"))["entries_since"] == 0


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
