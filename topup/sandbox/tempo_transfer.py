"""What does a transaction on Tempo pay, is that what was asked for, and does its receipt show it?

Written a second time, independently of the code that pays, so that one mistake cannot hide in both. Sources: the draft
`tempo-charge`, and pympp's description of its wire format.

A seller that pays the network fee completes a payload that the payer has signed but for its sponsor. Whoever holds it
may add himself; the chain runs it once at most, whoever does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils.crypto import keccak

from topup.sandbox.postings import word
from topup.sandbox.seller import Refused
from topup.sandbox.tempo import CHAIN_ID

Json = Any

TRANSFER_WITH_MEMO: Final = bytes(keccak(text="transferWithMemo(address,uint256,bytes32)"))[:4]
TRANSFERRED_WITH_MEMO: Final = "0x" + bytes(keccak(text="TransferWithMemo(address,address,uint256,bytes32)")).hex()
EXPIRING: Final = 2**256 - 1
# What a sponsor wants to have left, and the longest that a chain takes.
LEAST_S: Final = 15
MOST_S: Final = 300
# And what it pays at most: 10^-18 dollars.
FEE_MAX: Final = 5 * 10**16

SPONSORS: Final = tuple(PrivateKey(bytes(keccak(text=f"topup sandbox: sponsor {n}"))) for n in (1, 2))


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


def funds(units: int) -> dict[str, int]:
    """Return what a chain gives the sponsors, to pay fees from."""
    return {address(sponsor): units for sponsor in SPONSORS}


def address(sponsor: PrivateKey) -> str:
    """Return a sponsor's address, which has to hold what fees are paid in."""
    return str(sponsor.public_key.to_checksum_address())


def completed(payload: bytes, sponsor: PrivateKey, fee_token: str, now_s: int) -> bytes:
    """Return the transaction that a payload becomes with this sponsor. Raises Refused."""
    try:
        *fields, paid_in, sender, authorizations, signature = rlp.decode(payload[1:])
        _, _, price, gas, _, _, lane, nonce, before, _ = map(_number, fields)
    except (rlp.DecodingError, ValueError, TypeError) as wrong:
        raise Refused(402, "malformed-credential", f"The payload cannot be read: {wrong}") from wrong
    if payload[:1] != b"\x78" or paid_in or len(sender) != 20 or len(signature) != 65:
        raise Refused(402, "malformed-credential", "This is no payload for a sponsor.")
    if lane != EXPIRING or nonce:
        raise Refused(402, "verification-failed", "Only expiring nonces are sponsored.")
    if not LEAST_S <= before - now_s <= MOST_S:
        raise Refused(402, "verification-failed", f"It is valid for {before - now_s} seconds more.")
    if gas * price > FEE_MAX:
        raise Refused(402, "verification-failed", "Its fee is more than is sponsored.")
    token = bytes.fromhex(fee_token[2:])
    digest = bytes(keccak(b"\x78" + rlp.encode([*fields, token, sender, authorizations])))
    signed = sponsor.sign_msg_hash(digest)
    mine = [signed.v, signed.r, signed.s]
    return b"\x76" + bytes(rlp.encode([*fields, token, mine, authorizations, signature]))


def moved(who: PrivateKey, token: str, number: int, before_s: int) -> bytes:
    """Return a transaction of somebody's own that moves a unit of a token, on a lane of that number."""
    to = bytes.fromhex(token[2:])
    data = bytes(keccak(text="transfer(address,uint256)"))[:4] + b"\x77".rjust(32, b"\0") + b"\1".rjust(32, b"\0")
    fields = [CHAIN_ID, 0, 60 * 10**9, 2_000_000, [[to, 0, data]], [], number, 0, before_s, b"", to, b"", []]
    signed = who.sign_msg_hash(bytes(keccak(b"\x76" + rlp.encode(fields)))).to_bytes()
    return b"\x76" + bytes(rlp.encode([*fields, signed[:64] + bytes([signed[64] + 27])]))


def _number(field: Any) -> int:
    return int.from_bytes(field, "big") if isinstance(field, bytes) else 0
