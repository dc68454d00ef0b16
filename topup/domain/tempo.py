"""What is signed when dollars are sent on Tempo? The transaction of type 0x76 before and after it is signed; no key.

A Tempo transaction has a nonce on a lane. Lanes are counted apart, so that one of its own belongs to one purchase, and
two transactions on it can never both run. On the last lane nonces expire instead: what is signed there runs once, and
never from its `validBefore` on. Fees are paid in a dollar, by the payer or by a sponsor, who then signs as well.
Amounts are token units, gas prices 10^-18 dollars, times unix seconds, addresses 20 bytes. Sources: tempoxyz/mpp-specs,
draft `tempo-charge`; tempoxyz/tempo, TIP 1009 and the interface of its account keychain.
"""

from dataclasses import dataclass
from typing import Any, Final

import rlp  # type: ignore[import-untyped]
from eth_abi.abi import encode
from eth_utils.crypto import keccak

TYPE: Final = b"\x76"
# A payload that a sponsor has still to sign, as it is handed to him.
OPEN: Final = b"\x78"
# The lane of expiring nonces. What is sponsored stands there, for sponsors take nothing else.
EXPIRING: Final = 2**256 - 1
# Before the root account and the key's own signature: what is signed by one of an account's access keys.
ACCESS_KEY: Final = b"\x04"
TRANSFER_WITH_MEMO: Final = keccak(text="transferWithMemo(address,uint256,bytes32)")[:4]
TRANSFERRED_WITH_MEMO: Final = keccak(text="TransferWithMemo(address,address,uint256,bytes32)")
# Keeps the lanes: a nonce that is not 0 says that something has run there.
NONCES: Final = bytes.fromhex("4e4f4e4345000000000000000000000000000000")
_NONCE: Final = keccak(text="getNonce(address,uint256)")[:4]
# Keeps which access keys may sign for an account, until when and for how much.
KEYCHAIN: Final = bytes.fromhex("aaaaaaaa00000000000000000000000000000000")
_RESTRICTIONS: Final = "(uint64,bool,(address,uint256,uint64)[],bool,(address,(bytes4,address[])[])[])"
_AUTHORIZE: Final = keccak(text=f"authorizeKey(address,uint8,{_RESTRICTIONS})")[:4]
_UPDATE: Final = keccak(text="updateSpendingLimit(address,address,uint256)")[:4]
_KEY: Final = keccak(text="getKey(address,address)")[:4]
_REMAINING: Final = keccak(text="getRemainingLimitWithPeriod(address,address,address)")[:4]
# The kind of signature that is used here.
_SECP256K1: Final = 0
# The end of a key that never expires.
NEVER: Final = 2**64 - 1
# Lanes that begin with this byte are the chain's own.
_RESERVED: Final = 0x5B


@dataclass(frozen=True)
class Transaction:
    """One call on a lane of its own, with nonce 0; `lane` has 256 bits, `gas_price` is the most that is paid.

    Where it is `sponsored` somebody else pays the fee, in a token that he names.
    """

    chain_id: int
    gas_price: int
    gas_limit: int
    to: bytes
    data: bytes
    lane: int
    valid_before: int
    fee_token: bytes
    sponsored: bool = False


@dataclass(frozen=True)
class Grant:
    """What an account lets one of its access keys spend: so many units of a token in each period, until it expires.

    `renews` says that the key is authorized already; then only the units can be changed.
    """

    account: bytes
    key: bytes
    token: bytes
    units: int
    period_s: int
    expires_s: int
    renews: bool


def lane_of(purchase: bytes) -> int:
    """Return the lane that belongs to a purchase, and to no other."""
    digest = keccak(b"topup lane" + purchase)
    while digest[0] in (_RESERVED, 0xFF) or not any(digest):
        digest = keccak(digest)
    return int.from_bytes(digest, "big")


def transfer_with_memo(recipient: bytes, units: int, memo: bytes) -> bytes:
    """Return the call data that moves exactly so much to one recipient, under a memo that the log repeats."""
    return TRANSFER_WITH_MEMO + encode(["address", "uint256", "bytes32"], [recipient, units, memo])


def lane_call(account: bytes, lane: int) -> bytes:
    """Return the call data whose answer is 0 until something has run on this lane."""
    return _NONCE + encode(["address", "uint256"], [account, lane])


def granting(grant: Grant) -> bytes:
    """Return the call data with which an account tells the keychain; a new key may call nothing but the transfer."""
    if grant.renews:
        return _UPDATE + encode(["address", "address", "uint256"], [grant.key, grant.token, grant.units])
    limits = [(grant.token, grant.units, grant.period_s)]
    scope: list[Any] = [(grant.token, [(TRANSFER_WITH_MEMO, [])])]  # to whomever
    restrictions = (grant.expires_s, True, limits, False, scope)
    return _AUTHORIZE + encode(["address", "uint8", _RESTRICTIONS], [grant.key, _SECP256K1, restrictions])


def key_call(account: bytes, key: bytes) -> bytes:
    """Return the call data whose answer, of five words, is what the keychain holds of an access key."""
    return _KEY + encode(["address", "address"], [account, key])


def remaining_call(account: bytes, key: bytes, token: bytes) -> bytes:
    """Return the call data that answers what an access key may still spend of a token, and when its period ends."""
    return _REMAINING + encode(["address", "address", "address"], [account, key, token])


def memo_topics(sender: bytes, recipient: bytes, memo: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the four topics of the log that the transfer leaves."""
    return TRANSFERRED_WITH_MEMO, sender.rjust(32, b"\0"), recipient.rjust(32, b"\0"), memo


def digest(tx: Transaction) -> bytes:
    """Return the 32 bytes that are signed."""
    return keccak(TYPE + bytes(rlp.encode(_fields(tx))))


def access_digest(tx: Transaction, root: bytes) -> bytes:
    """Return the 32 bytes that one of the access keys of `root` signs."""
    return keccak(ACCESS_KEY + digest(tx) + root)


def access_signature(root: bytes, signature: bytes) -> bytes:
    """Return the signature of an access key as the transaction carries it."""
    return ACCESS_KEY + root + signature


def sealed(tx: Transaction, signature: bytes) -> bytes:
    """Return the raw transaction; `signature` is r, s and v (27 or 28), or an access key's. Its hash is keccak256."""
    return TYPE + bytes(rlp.encode([*_fields(tx), signature]))


def opened(tx: Transaction, sender: bytes, signature: bytes) -> bytes:
    """Return the payload of a sponsored transaction that its sender has signed: a sponsor adds himself and sends it."""
    *fields, _, _, authorizations = _fields(tx)
    return OPEN + bytes(rlp.encode([*fields, b"", sender, authorizations, signature]))


def _fields(tx: Transaction) -> list[Any]:
    calls = [[tx.to, 0, tx.data]]
    fees = [tx.chain_id, 0, tx.gas_price, tx.gas_limit]
    # The sender signs that there is a sponsor, and leaves open who it is and what he pays in.
    paid_in, sponsor = (b"", b"\0") if tx.sponsored else (tx.fee_token, b"")
    return [*fees, calls, [], tx.lane, 0, tx.valid_before, b"", paid_in, sponsor, []]
