"""What did the comparison of the ledger with the chain find, and how is it told?"""

from dataclasses import dataclass, field, fields
from typing import Any

from topup.accounting import reconciliation
from topup.accounting.reconciliation import Difference, Findings
from topup.domain.errors import Exit
from topup.domain.events import show


@dataclass
class Own:
    """What the wallet has sent itself, on one chain, as the document tells it.

    Its payments are decided from the first to the last of the blocks; the ledger's nonce is the next it would use.
    """

    chain_id: int
    final_block: int
    first_block: int
    decided_block: int
    nonce_ledger: int
    nonce_final: int
    nonce_latest: int
    payments_on_chain: int = 0

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        at = f"{self.nonce_latest} at the newest block, {self.nonce_final} at final block {self.final_block}"
        blocks = f"in blocks {self.first_block} to {self.decided_block}"
        return [
            f"nonce      {at}; ledger: {self.nonce_ledger}",
            f"payments   {self.payments_on_chain} on chain {self.chain_id} {blocks}",
        ]


@dataclass(frozen=True)
class Carried:
    """What sellers of one rail have carried to the chain, as the document tells it."""

    rail: str
    chain_id: int
    final_block: int
    first_block: int
    decided_block: int
    payments_on_chain: int

    def line(self) -> str:
        """Return it for a terminal."""
        blocks = f"in blocks {self.first_block} to {self.decided_block}"
        return f"payments   {self.payments_on_chain} by {self.rail} on chain {self.chain_id} {blocks}"


@dataclass
class Comparison:
    """What was found. `own` is None where no rail that is looked at has the wallet send anything itself.

    `undecided` says in words what could not be learnt of what it sent, `unchecked` of what sellers carried; `adopted`
    what was taken over.
    """

    account: str
    wallet: bytes
    own: Own | None = None
    carried: list[Carried] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    undecided: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    adopted: list[Difference] = field(default_factory=list)

    @property
    def remaining(self) -> list[Difference]:
        """Return the differences that were not settled by adopting."""
        return [d for d in self.findings.differences if d not in self.adopted]

    @property
    def adoptable(self) -> bool:
        """Tell whether adopting would change anything."""
        return not self.undecided and any(d.what in reconciliation.SETTLED for d in self.findings.differences)

    @property
    def exit_code(self) -> Exit:
        """Say whether anything is undecided or not checked, differs, or neither."""
        return Exit.LATER if self.undecided or self.unchecked else Exit.PERSON if self.remaining else Exit.OK

    def document(self) -> dict[str, Any]:
        """Return it as one JSON-ready document; wei as text."""
        return {
            "schema": 1,
            "account": self.account,
            "wallet": show(self.wallet),
            **(vars(self.own) if self.own is not None else dict.fromkeys(own.name for own in fields(Own))),
            "carried": [vars(carried) for carried in self.carried],
            "differences": [_document(d) for d in self.remaining],
            "adopted": [_document(d) for d in self.adopted],
            "undecided": self.undecided,
            "unchecked": self.unchecked,
            "notes": self.notes,
            "exit_code": int(self.exit_code),
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        lines = [f"wallet     0x{self.wallet.hex()}"]
        lines += self.own.lines() if self.own is not None else []
        lines += [carried.line() for carried in self.carried]
        lines += [f"adopted    {_line(d)}" for d in self.adopted]
        for difference in self.remaining:
            lines += [f"differs    {_line(difference)}", f"           to do: {difference.what.remedy}"]
        lines += [f"undecided  {why}" for why in self.undecided]
        lines += [f"not checked: {why}" for why in self.unchecked]
        lines += [f"note       {note}" for note in self.notes]
        if self.exit_code is not Exit.OK:
            return lines
        within = " in these blocks" if any(carried.first_block for carried in self.carried) else ""
        return [*lines, f"the ledger knows everything this wallet did{within}"]


def _document(difference: Difference) -> dict[str, Any]:
    return {
        "what": difference.what.value,
        "detail": difference.detail,
        "remedy": difference.what.remedy,
        "nonce": difference.nonce,
        "tx_hash": show(difference.tx_hash),
        "block": difference.block_number,
        "topup_id": difference.topup_id,
    }


def _line(difference: Difference) -> str:
    named = [
        f"nonce {difference.nonce}" if difference.nonce is not None else "",
        f"block {difference.block_number}" if difference.block_number else "",
        f"0x{difference.tx_hash.hex()}" if difference.tx_hash is not None else "",
    ]
    where = ", ".join(filter(None, named))
    return f"{difference.what}: {difference.detail}" + (f" ({where})" if where else "")
