"""What does a transaction on Tempo pay, is that what was asked for, and does its receipt show it?

Decoded a second time, independently of the code that signs, so that one mistake cannot hide in both. Source: the
draft `tempo-charge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils.crypto import keccak

from topup.sandbox.postings import word
from topup.sandbox.seller import Refused
from topup.sandbox.tempo import CHAIN_ID

Json = Any

TRANSFER_WITH_MEMO: Final = bytes(keccak(text="transferWithMemo(address,uint256,bytes32)"))[:4]
TRANSFERRED_WITH_MEMO: Final = "0x" + bytes(keccak(text="TransferWithMemo(address,address,uint256,bytes32)")).hex()


@dataclass(frozen=True)
class Transfer:
    """A decoded transaction that makes one call; amounts in units of the token, addresses in lower case."""

    hash: str
    chain_id: int
    sender: str
    token: str
    recipient: str
    amount: int
    memo: bytes
    valid_before: int | None
    sponsored: bool = False


def decode(raw: bytes) -> Transfer:
    """Decode a Tempo transaction that makes one `transferWithMemo`. Raises Refused.

    `0x76 ‖ rlp([chain, tip, fee, gas, calls, access list, lane, nonce, valid before, valid after, fee token, fee
    payer's signature, authorizations, (key authorization,) signature])`.
    """
    try:
        fields = rlp.decode(raw[1:])
        *unsigned, signature = fields
        chain, _, _, _, calls, _, _, _, before, _, _, sponsor, *_ = unsigned
        if sponsor:  # who it is and what he pays in was left open when the payer signed
            unsigned[10:12] = b"", b"\0"
        [[to, value, data]] = calls
        sender = _signer(bytes(keccak(b"\x76" + rlp.encode(unsigned))), signature)
    except (rlp.DecodingError, ValueError, TypeError, BadSignature, ValidationError) as wrong:
        raise Refused(402, "malformed-credential", f"The transaction cannot be read: {wrong}") from wrong
    if len(to) != 20 or value or data[:4] != TRANSFER_WITH_MEMO or len(data) != 100 or any(data[4:16]):
        raise Refused(402, "verification-failed", "The call is not a transfer with a memo.")
    return Transfer(
        hash="0x" + bytes(keccak(raw)).hex(),
        chain_id=int.from_bytes(chain, "big"),
        sender=sender,
        token="0x" + to.hex(),
        recipient="0x" + data[16:36].hex(),
        amount=int.from_bytes(data[36:68], "big"),
        memo=data[68:],
        valid_before=int.from_bytes(before, "big") if before else None,
        sponsored=bool(sponsor),
    )


def must_match(transfer: Transfer, request: Mapping[str, Json]) -> None:
    """Raise Refused unless chain, token, recipient, amount and who pays the fee are those of a challenge's request."""
    if transfer.sponsored and not request["methodDetails"].get("feePayer"):
        raise Refused(402, "verification-failed", "Fees are not sponsored here.")
    facts = {
        "chain": (transfer.chain_id, request["methodDetails"].get("chainId", CHAIN_ID)),
        "token": (transfer.token, request["currency"].lower()),
        "recipient": (transfer.recipient, request["recipient"].lower()),
        "amount": (transfer.amount, int(request["amount"])),
    }
    for name, (given, wanted) in facts.items():
        if given != wanted:
            raise Refused(402, "verification-failed", f"The {name} is {given}, not {wanted}.")


def shows(receipt: Json, transfer: Transfer) -> bool:
    """Tell whether a receipt shows this transfer: a transaction can succeed and have paid somebody else."""
    topics = [TRANSFERRED_WITH_MEMO, word(transfer.sender), word(transfer.recipient), "0x" + transfer.memo.hex()]
    return int(receipt["status"], 16) == 1 and any(
        log["address"].lower() == transfer.token and log["topics"] == topics and int(log["data"], 16) == transfer.amount
        for log in receipt["logs"]
    )


def _signer(digest: bytes, signature: bytes) -> str:
    """Return who pays: the signer, or the account that an access key signs for (`0x04 ‖ account ‖ signature`)."""
    account = None
    if len(signature) == 86 and signature[0] == 4:
        account, signature = signature[1:21], signature[21:]
        digest = bytes(keccak(b"\x04" + digest + account))
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise ValueError("no signature of secp256k1")
    rsv = signature[:64] + bytes([signature[64] - 27])
    signer = Signature(rsv).recover_public_key_from_msg_hash(digest).to_canonical_address()
    return "0x" + (account or signer).hex()
