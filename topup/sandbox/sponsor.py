"""How does a seller complete a payment whose network fee it pays, and what does it insist on?

A payload comes in that the payer has signed but for its sponsor. Whoever holds it may add himself; the chain runs it
once at most, whoever does. Written a second time, independently of the code that pays. Source: the draft
`tempo-charge`, and pympp's description of its wire format.
"""

from __future__ import annotations

from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from topup.sandbox.seller import Refused
from topup.sandbox.tempo import CHAIN_ID

EXPIRING: Final = 2**256 - 1
# What a sponsor wants to have left, and the longest that a chain takes.
LEAST_S: Final = 15
MOST_S: Final = 300
# And what it pays at most: 10^-18 dollars.
FEE_MAX: Final = 5 * 10**16

SPONSORS: Final = tuple(PrivateKey(bytes(keccak(text=f"topup sandbox: sponsor {n}"))) for n in (1, 2))


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
