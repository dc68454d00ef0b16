"""Does everything that README and docs/security.md promise have a proof that would fail without it?"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.proofs.mutants import MUTANTS
from tests.tools import ROOT

DOCUMENTS = {"README": "README.md", "security": "docs/security.md"}
# Words with which a sentence promises something.
PROMISES = re.compile(
    r"\b(never|cannot|nothing|nobody|at most|is refused|refuses|in no|no key|no secret|nowhere)\b", re.IGNORECASE
)
# Sentences with such a word that promise nothing: advice, limits that are admitted, and what others do.
NO_PROMISE = (
    "No account, no key, no money:",
    "topup holds a key and spends money while nobody looks.",
    "So with one provider that lies about quote and price alike, those 100 dollars cost at most",
    "Network fees come on top:",
    "Then 100 dollars cost at most 103 dollars",
    "So choose providers that have nothing to do",
    "Then more ETH is sent than is needed",
    '**The API, where mpp is used.** "Never the wrong party" is promised',
    "Nothing here protects against that.",
    "**Keep little in the wallet",
    "Names cannot tell whether two companies",
    "`topup doctor --rail` prints these lines",
    "`eth_call` shows that it does not revert",
    "Never share a ledger between machines.",
    "Two ledgers for one wallet know nothing",
    "The contract's owner, who can pause it",
)


@dataclass(frozen=True)
class Promise:
    """A row of docs/guarantees.md."""

    name: str
    says: str
    where: str
    assumes: tuple[str, ...]
    proofs: tuple[str, ...]


def rows(text: str, first: str) -> Iterator[list[str]]:
    """Yield the cells of every row of a table whose first cell is `first` and a number."""
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(first + r"\d+", cells[0]):
            yield cells


TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
ASSUMPTIONS = [name for name, _ in rows(TEXT, "A")]
GUARANTEES = [
    Promise(
        name,
        re.sub(r"^\[.*?:\] ", "", says),
        DOCUMENTS[re.sub(r"\[(\w+)\].*", r"\1", where)],
        tuple(re.findall(r"A\d+", assumes)),
        tuple(re.findall(r"`([^`]+)`", proofs)),
    )
    for name, says, where, assumes, proofs in rows(TEXT, "P")
]


def plain(text: str) -> str:
    """Return text without line breaks, links and bold type, so that two documents can be compared."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(text.split())).replace("**", "")


def sentences(where: str) -> Iterator[str]:
    """Yield the sentences of a document, a row of a table as one, without code and generated parts."""
    text = (ROOT / where).read_text(encoding="utf-8")
    for cut in (r"```.*?```", r"<!-- generated.*?<!-- end -->", r"<!--.*?-->"):
        text = re.sub(cut, "", text, flags=re.DOTALL)
    for part in re.split(r"\n\s*\n|\n(?=[-|] ?)|\n(?=\d\. )|\n(?=#)", text):
        line = " ".join(part.split()).removeprefix("- ")
        yield from [line] if line.startswith("|") else re.split(r"(?<=[.!?])\**\s+(?=[A-Z*`\[])", line)


def exists(proof: str) -> bool:
    if proof.startswith("mutant "):
        return any(mutant.name == proof.removeprefix("mutant ") for mutant in MUTANTS)
    if proof.startswith("python -m "):
        return (ROOT / (proof.split()[2].replace(".", "/") + ".py")).exists()
    path, _, name = proof.partition("::")
    return Path(ROOT / path).exists() and f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("promise", GUARANTEES, ids=lambda promise: promise.name)
def test_a_promise_stands_where_it_is_said_to_and_has_its_proofs(promise: Promise) -> None:
    """Its sentence is in the document, its assumptions are numbered, and each of its proofs can be run."""
    assert plain(promise.says) in plain((ROOT / promise.where).read_text(encoding="utf-8"))
    assert set(promise.assumes) <= set(ASSUMPTIONS)
    assert promise.proofs
    assert [proof for proof in promise.proofs if not exists(proof)] == []


def test_promises_and_assumptions_are_numbered_in_order() -> None:
    """So that "P12" in an answer or an audit means one thing."""
    assert [p.name for p in GUARANTEES] == [f"P{n}" for n in range(1, len(GUARANTEES) + 1)]
    assert [f"A{n}" for n in range(1, len(ASSUMPTIONS) + 1)] == ASSUMPTIONS


@pytest.mark.parametrize("where", DOCUMENTS.values())
def test_no_sentence_promises_anything_without_a_proof(where: str) -> None:
    """Whoever writes "never" into these documents names what would fail if it were not so."""
    proven = " ".join(plain(p.says) for p in GUARANTEES if p.where == where)
    pending = [
        s for s in sentences(where) if PROMISES.search(s) and plain(s) not in proven and not s.startswith(NO_PROMISE)
    ]
    assert pending == []


def test_what_is_said_to_promise_nothing_is_still_said() -> None:
    """An exception that no sentence needs is gone."""
    said = [s for where in DOCUMENTS.values() for s in sentences(where)]
    assert [one for one in NO_PROMISE if not any(s.startswith(one) for s in said)] == []
