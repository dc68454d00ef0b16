"""Does every foreign document pass the one reader, and every word the ledger keeps pass the masker? By the text itself.

A wall holds where nobody goes around it, so that going around it is found when it is written and not when it is used.
"""

import ast
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.tools import ROOT
from tests.world import ledger
from tests.world.builders import ACCOUNT, NOW_MS, operator, topup
from topup.accounting.journal import Entry
from topup.domain.credits import Doubt, Unknown
from topup.domain.lifecycle import Fact, TopUp
from topup.ledger.store import SqliteStore
from topup.ports.chain import Delivery, Sent
from topup.wire.secrets import Masker

HERE = ROOT / "topup"
# The reader itself; the ABI that is part of the program; what the ledger's own rows were written as.
OWN_JSON = {
    "topup/domain/json_document.py",
    "topup/chain/contracts.py",
    "topup/ledger/rows.py",
    "topup/ledger/recovered.py",
    "topup/ledger/journal.py",
}
# The one place that knows which secrets a provider must not make us say.
BUILDS_PROVIDERS = {"topup/app/connections.py"}
SECRET = "sk-or-v1-canary-0123456789abcdef"


def calls() -> Iterator[tuple[str, str]]:
    """Every call in the program, the sandbox left out, as the module and what is called."""
    for path in sorted(HERE.rglob("*.py")):
        name = str(path.relative_to(HERE.parent))
        if not name.startswith("topup/sandbox/"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield name, ast.unparse(node.func)


def test_json_of_others_is_read_in_one_place() -> None:
    """Depth, parts and digits are counted there before any decoder sees them; no other module decodes by itself."""
    decoders = ("json.loads", "json.load", "loads", "JSONDecoder", "json.JSONDecoder", "ast.literal_eval", "eval")
    found = {module for module, called in calls() if called in decoders}
    assert found == OWN_JSON


def test_providers_are_asked_by_clients_that_know_our_secrets() -> None:
    """A client that is built elsewhere would repeat what a provider echoes."""
    assert {module for module, called in calls() if called == "Rpc"} == BUILDS_PROVIDERS


def test_nothing_of_others_is_unpickled_or_run() -> None:
    """No answer becomes an object or a command."""
    forbidden = ("pickle.", "marshal.", "shelve.", "yaml.", "os.system", "subprocess.")
    assert [one for one in calls() if one[1].startswith(forbidden)] == []


@pytest.mark.parametrize("name", ["text", "charge_id", "price_source"])
def test_an_entry_of_the_journal_is_masked_before_it_is_chained(name: str, tmp_path: Path) -> None:
    """Though whoever made it forgot: no file of the ledger holds the secret, and the chain of hashes is sound."""
    entry = Entry(NOW_MS, "", "opening", None, "", None, None, "", ())
    entry = dataclasses.replace(entry, **{name: f"before {SECRET} behind"})  # type: ignore[arg-type]
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        store.hide = Masker([SECRET])
        with store._write(NOW_MS):
            store._post(ACCOUNT, entry)
        (kept,) = store.entries(ACCOUNT)
        assert getattr(kept, name) == "before … behind"
        assert store.damage() is None
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET.encode() not in held


LIVES: dict[str, Callable[[SqliteStore, str], object]] = {
    "a doubt": lambda store, said: store.record_reading(ACCOUNT, Unknown(Doubt.NO_ANSWER, said, NOW_MS)),
    "a decision that is dropped": lambda store, said: store.move(store.begin(topup()), Fact.DROP, NOW_MS, said),
    "an answer that was lost": lambda store, said: store.move(
        store.ask(store.begin(topup()), NOW_MS), Fact.ANSWER_LOST, NOW_MS, said
    ),
    "a charge that is dead": lambda store, said: store.move(
        store.move(ledger.sent(store, operator(1)), Fact.EXPIRED, NOW_MS), Fact.PROVEN_DEAD, NOW_MS, said
    ),
    "a payment that failed": lambda store, said: _failed(store, ledger.sent(store, operator(1)), said),
    "what a seller answered": lambda store, said: _delivered(store, ledger.sent(store, operator(1)), said),
}


def _failed(store: SqliteStore, kept: TopUp, said: str) -> TopUp:
    seen = dataclasses.replace(
        ledger.FAILED, reason=said, inclusion=dataclasses.replace(ledger.FAILED.inclusion, reason=said)
    )
    return store.included(kept, kept.attempts[-1], seen, Fact.REVERTED, NOW_MS)


def _delivered(store: SqliteStore, kept: TopUp, said: str) -> TopUp:
    return store.delivered(kept, kept.attempts[-1], Sent(Delivery.UNCLEAR, said, said), NOW_MS)


@pytest.mark.parametrize("life", LIVES)
def test_what_is_kept_in_words_is_masked(life: str, tmp_path: Path) -> None:
    """In every column that keeps it, and in the record that is gone on with."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        store.hide = Masker([SECRET])
        assert SECRET not in str(LIVES[life](store, f"upstream says {SECRET}"))
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET.encode() not in held
    assert b"upstream says \xe2\x80\xa6" in held or rb"upstream says \u2026" in held
