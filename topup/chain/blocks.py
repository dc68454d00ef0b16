"""Which block is that, of which chain, and is it the one that was asked for?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from topup.chain.rpc import Answer, Nonsense, Query, Rpc, count, known, quantity, unhex
from topup.domain.errors import ChainUnknown, WrongChain
from topup.ports.chain import Head

CHAIN_ID: Final[Query] = ("eth_chainId", [])
LATEST: Final[Query] = ("eth_getBlockByNumber", ["latest", False])
SAFE: Final[Query] = ("eth_getBlockByNumber", ["safe", False])
FINAL: Final[Query] = ("eth_getBlockByNumber", ["finalized", False])
# How far the chain is, and how far it is safe and final, as every look at a payment asks it.
HEADS: Final = (CHAIN_ID, LATEST, SAFE, FINAL)


def numbered(number: int) -> Query:
    """Ask for the block of a height."""
    return ("eth_getBlockByNumber", [hex(number), False])


def nonce_query(wallet: bytes, at: int | str) -> Query:
    """Ask how many transactions a wallet has sent by the end of a block."""
    return ("eth_getTransactionCount", ["0x" + wallet.hex(), hex(at) if isinstance(at, int) else at])


def ether_query(wallet: bytes, at: int | str) -> Query:
    """Ask what a wallet holds of the chain's coin at the end of a block."""
    return ("eth_getBalance", ["0x" + wallet.hex(), hex(at) if isinstance(at, int) else at])


def receipt_query(tx_hash: bytes) -> Query:
    """Ask for the receipt of a transaction."""
    return ("eth_getTransactionReceipt", ["0x" + tx_hash.hex()])


def right_chain(rpc: Rpc, answer: Answer, wanted: int) -> None:
    """Refuse a provider of another chain."""
    chain_id = quantity(known(answer, "eth_chainId"), "the chain id")
    if chain_id != wanted:
        raise WrongChain(f"{rpc.host} speaks for chain {chain_id}, not {wanted}", remedy="correct chain.rpc_urls")


def head(block: Any) -> Head:
    """Read a block's number, hash and timestamp."""
    if not isinstance(block, dict):
        raise ChainUnknown("there is no block" if block is None else f"a block is of type {type(block).__name__}")
    block_head = Head(
        count(block.get("number"), "the block number"),
        unhex(block.get("hash"), "the block hash", 32),
        count(block.get("timestamp"), "the block time"),
    )
    # No chain will be there for some 30,000 years, and no ledger could store it in milliseconds.
    if block_head.timestamp_s >= 2**40:
        raise Nonsense(f"a block numbered {block_head.number} at {block_head.timestamp_s} s is none")
    return block_head


def shown(rpc: Rpc, answer: Answer, what: str) -> Head:
    """Read the block that a provider shows; `what` names the question."""
    block = known(answer, f"{rpc.host}, the {what}")
    if block is None:
        raise ChainUnknown(f"{rpc.host} has no {what}")
    return head(block)


def at_height(rpc: Rpc, answer: Answer, number: int) -> Head:
    """Read the block that a provider shows at a height."""
    at = shown(rpc, answer, f"block {number}")
    if at.number != number:
        raise ChainUnknown(f"{rpc.host} answers block {at.number} where {number} was asked for")
    return at


def same_block(rpc: Rpc, answer: Answer, at: Head) -> None:
    """Refuse a provider that has another block at that height, or none."""
    block = known(answer, f"{rpc.host}, block {at.number}")
    if block is None or head(block) != at:
        raise ChainUnknown(f"{rpc.host} does not have block 0x{at.hash.hex()} at {at.number}")


async def block_at(rpc: Rpc, chain_id: int, number: int) -> Head:
    """Read the block of that number."""
    spoken, block = await rpc.batch([CHAIN_ID, numbered(number)])
    right_chain(rpc, spoken, chain_id)
    return at_height(rpc, block, number)


@dataclass(frozen=True)
class Heads:
    """How far a provider says that the chain is; None where it says that it is not safe or final yet."""

    newest: Head
    safe: int | None
    final: int | None
    final_s: int | None


def heads(rpc: Rpc, chain_id: int, answers: Sequence[Answer]) -> tuple[Heads, Sequence[Answer]]:
    """Read the answers to `HEADS`, and return what was answered behind them.

    The chain is at least as safe as it is final, which some serve alone.
    """
    spoken, newest, *later = answers[: len(HEADS)]
    right_chain(rpc, spoken, chain_id)
    safe, final = (count(b.get("number"), "a block number") if isinstance(b, dict) else None for b in later)
    final_s = count(later[1].get("timestamp"), "a block time") if isinstance(later[1], dict) else None
    least = max((height for height in (safe, final) if height is not None), default=None)
    return Heads(head(known(newest, "the newest block")), least, final, final_s), answers[len(HEADS) :]
