"""What does a Tempo transaction look like before and after it is signed? Bytes and digests, no key.

Tempo's own kind of transaction has a nonce on any of 2²⁵⁶ lanes, an end of validity by the chain's clock, and a dollar
token that pays its fee. What the kind offers beyond that (several calls, access lists, a second signature for a sponsor
of the fees, delegations) stays empty. Addresses are 20 bytes, digests 32; an integer below zero raises rlp's
SerializationError.
Sources: Tempo's transaction specification; pytempo 0.6.2, which the tests hold this against byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import rlp  # type: ignore[import-untyped]
from eth_utils.crypto import keccak

KIND: Final = b"\x76"
# Before the signature of an access key, which the root account has permitted to sign for it.
ACCESS_KEY: Final = b"\x04"
SIGNATURE_BYTES: Final = 65
ACCESS_SIGNATURE_BYTES: Final = len(ACCESS_KEY) + 20 + SIGNATURE_BYTES

TRANSFER_WITH_MEMO: Final = keccak(text="transferWithMemo(address,uint256,bytes32)")[:4]

_NOTHING: Final = b""


@dataclass(frozen=True)
class Transaction:
    """One call, not yet signed.

    Attributes:
        chain_id: on which chain alone it is valid.
        to: which contract is called.
        data: the call data.
        gas_limit: the most gas it may use.
        max_fee_per_gas: the most that is paid for a unit of gas, in 10⁻¹⁸ US dollars.
        max_priority_fee_per_gas: the part of it that whoever makes the block may keep.
        lane: which of the sender's counters the nonce belongs to; 0 is the ordinary one, 2²⁵⁶ − 1 has no counter but
            remembers each hash until its end of validity.
        nonce: its place on the lane.
        valid_before: the first block time, in unix seconds, at which it is invalid; None: it never expires.
        fee_token: which dollar pays the fee.
    """

    chain_id: int
    to: bytes
    data: bytes
    gas_limit: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    lane: int
    nonce: int
    valid_before: int | None
    fee_token: bytes


def digest(tx: Transaction) -> bytes:
    """Return what the sender signs; an access key signs `access_digest` of it."""
    return keccak(KIND + rlp.encode(_fields(tx)))


def sealed(tx: Transaction, signature: bytes) -> bytes:
    """Return the raw transaction, whose keccak hash is the transaction's hash.

    Args:
        tx: what was signed.
        signature: the sender's r, s and v (27 or 28), or what `access_signature` made of an access key's.
    """
    assert len(signature) in (SIGNATURE_BYTES, ACCESS_SIGNATURE_BYTES), "a signature of the sender or of an access key"
    return KIND + bytes(rlp.encode([*_fields(tx), signature]))


def access_digest(signed: bytes, root: bytes) -> bytes:
    """Return what an access key signs so that the transaction with the digest `signed` is sent by `root`."""
    assert (len(signed), len(root)) == (32, 20)
    return keccak(ACCESS_KEY + signed + root)


def access_signature(root: bytes, signature: bytes) -> bytes:
    """Return the signature of a transaction that `root` sends, from its access key's r, s and v."""
    assert (len(root), len(signature)) == (20, SIGNATURE_BYTES)
    return ACCESS_KEY + root + signature


def transfer_with_memo(recipient: bytes, units: int, memo: bytes) -> bytes:
    """Return the call data that moves so many units of a token and names them by a memo of 32 bytes.

    Raises OverflowError for an amount below 0 or of more than 256 bits.
    """
    assert (len(recipient), len(memo)) == (20, 32)
    return TRANSFER_WITH_MEMO + recipient.rjust(32, b"\0") + units.to_bytes(32, "big") + memo


def _fields(tx: Transaction) -> list[object]:
    assert (len(tx.to), len(tx.fee_token)) == (20, 20)
    access_list: list[object] = []
    authorizations: list[object] = []
    valid_after = fee_payer_signature = _NOTHING
    return [
        tx.chain_id,
        tx.max_priority_fee_per_gas,
        tx.max_fee_per_gas,
        tx.gas_limit,
        [[tx.to, 0, tx.data]],
        access_list,
        tx.lane,
        tx.nonce,
        _NOTHING if tx.valid_before is None else tx.valid_before,
        valid_after,
        tx.fee_token,
        fee_payer_signature,
        authorizations,
    ]
