"""Which payments on the chain earn credits? Finds what was really paid for charges that were really given out.

A `Transferred` event alone proves little: the recipient must have received the honest amount in the same transaction.
Event and topics: the payment protocol's published contract and ERC-20.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from topup.sandbox.charges import Operator
from topup.sandbox.rpc import Asked

TRANSFERRED: Final = "0xb7ee4fafa10d16ee883a136a3dcc9179d8e6041ba71cc29c2b0bce4f7bdd6e86"
ERC20_TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
REORG_BLOCKS: Final = 64  # How far back each look reaches: a payment may move to another block.

Json = Any


@dataclass
class Issued:
    """A charge given out and what became of it. `owed` is what the recipient must get, in units of USDC."""

    id: str
    amount_usd: Decimal
    owed: int
    from_block: int
    seen_ms: int | None = None
    tx_hash: str | None = None
    posted_ms: int | None = None


@dataclass
class Watch:
    """Looks for payments of one operator on one chain; `head` is the last block it knows."""

    operator: Operator
    chain: Asked
    head: int = 0
    _counted: set[tuple[str, str]] = field(default_factory=set)  # Transfers (transaction, log index) already used.

    def look(self, issued: Iterable[Issued], now_ms: int) -> None:
        """Mark the charges whose payment has appeared. Raises what the chain raises."""
        head = int(self.chain.rpc("eth_blockNumber", []), 16)
        unpaid = {charge.id: charge for charge in issued if charge.seen_ms is None}
        if unpaid:
            start = max(min(charge.from_block for charge in unpaid.values()), self.head - REORG_BLOCKS, 0)
            for charge_id, tx_hash in self._payments(min(start, head), head):
                charge = unpaid.get(charge_id)
                if charge and charge.seen_ms is None and self._count(tx_hash, charge.owed):
                    charge.seen_ms, charge.tx_hash = now_ms, tx_hash
        self.head = head

    def still_paid(self, charge: Issued) -> bool:
        """Tell whether the payment seen is still on the chain; if a reorganisation took it, it is awaited again."""
        if charge.tx_hash and self._receipt(charge.tx_hash):
            return True
        self._counted = {used for used in self._counted if used[0] != charge.tx_hash}
        charge.seen_ms = charge.tx_hash = None
        return False

    def _payments(self, start: int, head: int) -> Iterator[tuple[str, str]]:
        """Charge id and transaction hash of each payment that names our contract, operator and recipient."""
        contract, operator = self.operator.terms.contract, word(self.operator.address)
        wanted = {"fromBlock": hex(start), "toBlock": hex(head), "address": contract, "topics": [TRANSFERRED, operator]}
        for log in self.chain.rpc("eth_getLogs", [wanted]):
            # Checked here too: a node that ignores a filter must not post credits.
            ours = log["address"].lower() == contract.lower() and log["topics"] == [TRANSFERRED, operator]
            if ours and "0x" + log["data"][66:130] == word(self.operator.terms.recipient):
                yield log["data"][:34], log["transactionHash"]

    def _count(self, tx_hash: str, owed: int) -> bool:
        """Use up one transfer of at least `owed` units to our recipient in this transaction, if there is one."""
        terms = self.operator.terms
        for log in (self._receipt(tx_hash) or {"logs": []})["logs"]:
            topics, transfer = log["topics"], (tx_hash, log["logIndex"])
            to_us = len(topics) == 3 and topics[0] == ERC20_TRANSFER and topics[2] == word(terms.recipient)
            if not to_us or log["address"].lower() != terms.currency.lower():
                continue
            if int(log["data"], 16) >= owed and transfer not in self._counted:
                self._counted.add(transfer)
                return True
        return False

    def _receipt(self, tx_hash: str) -> Json:
        receipt = self.chain.rpc("eth_getTransactionReceipt", [tx_hash])
        return receipt if receipt and int(receipt["status"], 16) == 1 else None


def word(address: str) -> str:
    """Return an address as topics and data of a log carry it."""
    return "0x" + "0" * 24 + address.removeprefix("0x").lower()


def tokens(chain: Asked, token: str, address: str) -> int:
    """Return the units of a token that an address holds."""
    data = "0x70a08231" + word(address)[2:]
    return int(chain.rpc("eth_call", [{"to": token, "data": data}, "latest"]), 16)
