"""What is signed when dollars are sent by authorization, or when a wallet logs in? Digests and topics, no key.

An authorization (EIP-3009) moves a token's dollars from its signer to one recipient, once or never, whoever carries
it to the chain. The digest is EIP-712's: it holds chain and token, so no other contract accepts the signature.
Addresses and nonces are bytes (20 and 32), amounts token units, times unix seconds. An integer or a length that does
not fit raises eth_abi's EncodingError.
"""

from typing import Final, NamedTuple

from eth_abi.abi import encode
from eth_utils.crypto import keccak

_FIELDS: Final = ("address", "address", "uint256", "uint256", "uint256", "bytes32")

DOMAIN_TYPE: Final = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
TRANSFER_TYPE: Final = keccak(
    text="TransferWithAuthorization(address from,address to,uint256 value,"
    "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
# First topic of the log that each use of an authorization leaves; signer and nonce are the other two.
AUTHORIZATION_USED: Final = keccak(text="AuthorizationUsed(address,bytes32)")

_STATE: Final = keccak(text="authorizationState(address,bytes32)")[:4]


class Authorization(NamedTuple):
    """What the payer signs, in the order in which the token reads it; `nonce` is 32 bytes."""

    sender: bytes
    recipient: bytes
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes


class Domain(NamedTuple):
    """Which token the signature is for: the name and version it calls itself, its chain and its address."""

    name: str
    version: str
    chain_id: int
    token: bytes


def domain_separator(domain: Domain) -> bytes:
    """Return the 32 bytes that the token's own `DOMAIN_SEPARATOR()` has to return, or it accepts no signature."""
    named = (DOMAIN_TYPE, keccak(text=domain.name), keccak(text=domain.version), domain.chain_id, domain.token)
    return keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], named))


def authorization_digest(domain: Domain, authorization: Authorization) -> bytes:
    """Return the 32 bytes to sign so that `authorization` moves this token's dollars."""
    content = keccak(encode(["bytes32", *_FIELDS], (TRANSFER_TYPE, *authorization)))
    return keccak(b"\x19\x01" + domain_separator(domain) + content)


def personal_digest(text: str) -> bytes:
    """Return the 32 bytes to sign so that `text` is signed as a message (EIP-191), which no contract can spend."""
    message = text.encode()
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)


def mark_call(token_holder: bytes, nonce: bytes) -> bytes:
    """Return the call data of `authorizationState`: its answer is zero until this authorization is used."""
    return _STATE + encode(["address", "bytes32"], (token_holder, nonce))


def used_topics(token_holder: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the three topics of the `AuthorizationUsed` log that the use of this authorization leaves."""
    return AUTHORIZATION_USED, token_holder.rjust(32, b"\x00"), nonce
