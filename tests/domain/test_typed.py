"""Is what is signed exactly what the token and the seller will check?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_abi.exceptions import EncodingError
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_defunct, encode_typed_data
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.typed_data import (
    AUTHORIZATION_USED,
    Authorization,
    Domain,
    authorization_digest,
    domain_separator,
    mark_call,
    personal_digest,
    used_topics,
)
from topup.sandbox import contracts
from topup.sandbox.evm import Evm
from topup.sandbox.rpc import RpcError

PAYER = PrivateKey(b"\x11" * 32)
CARRIER = Account.from_key(b"\x33" * 32)
WALLET = PAYER.public_key.to_canonical_address()
SELLER = bytes.fromhex("2670B922ef37C7Df47158725C0CC407b5382293F")
TOKEN = bytes.fromhex(contracts.USDC[2:])
DOMAIN = Domain("USD Coin", "2", 8453, TOKEN)
FAR = 2**40
NONCE = b"\x22" * 32
DOLLARS_10 = Authorization(WALLET, SELLER, 10_000_000, 0, FAR, NONCE)

# With v, r and s apart: of the two forms the one that every EIP-3009 token has.
CARRIED = ("address", "address", "uint256", "uint256", "uint256", "bytes32", "uint8", "bytes32", "bytes32")

words = st.integers(min_value=0, max_value=2**256 - 1)
addresses = st.binary(min_size=20, max_size=20)
nonces = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TYPES = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ],
}


def signed(authorization: Authorization, key: PrivateKey = PAYER) -> bytes:
    signature = key.sign_msg_hash(authorization_digest(DOMAIN, authorization)).to_bytes()
    return bytes(signature[:64]) + bytes([signature[64] + 27])


@given(
    domain=st.builds(Domain, texts, texts, words, addresses),
    authorization=st.builds(Authorization, addresses, addresses, words, words, words, nonces),
)
def test_digest(domain: Domain, authorization: Authorization) -> None:
    """The digest is the one that eth_account makes of the same typed data, whatever they hold."""
    names = [field["name"] for field in TYPES["TransferWithAuthorization"]]
    typed = {
        "types": TYPES,
        "primaryType": "TransferWithAuthorization",
        "domain": dict(zip(("name", "version", "chainId", "verifyingContract"), domain, strict=True)),
        "message": dict(zip(names, authorization, strict=True)),
    }
    signable = encode_typed_data(full_message=typed)
    assert domain_separator(domain) == signable.header
    assert authorization_digest(domain, authorization) == _hash_eip191_message(signable)


@given(text=texts)
def test_personal(text: str) -> None:
    """A login is signed as eth_account signs a message, also beyond ASCII."""
    assert personal_digest(text) == _hash_eip191_message(encode_defunct(text=text))


def test_every_field_and_every_domain() -> None:
    """Each of the six fields, and another name, version, chain or token, is another signature."""
    digests = [authorization_digest(DOMAIN, DOLLARS_10)]
    for position in range(6):
        other: list[Any] = list(DOLLARS_10)
        other[position] = other[position] + 1 if isinstance(other[position], int) else b"\x77" * len(other[position])
        digests.append(authorization_digest(DOMAIN, Authorization(*other)))
    changes: list[dict[str, Any]] = [{"name": "USDC"}, {"version": "1"}, {"chain_id": 84532}, {"token": b"\x77" * 20}]
    digests += [authorization_digest(DOMAIN._replace(**changed), DOLLARS_10) for changed in changes]
    assert len(set(digests)) == 11


@pytest.mark.parametrize("value", [-1, 2**256])
def test_too_large(value: int) -> None:
    """An amount that fits no word is refused, not cut."""
    with pytest.raises(EncodingError):
        authorization_digest(DOMAIN, Authorization(WALLET, SELLER, value, 0, FAR, NONCE))


@pytest.fixture
def chain() -> Evm:
    now = int(time.time())
    genesis = contracts.genesis(
        operator="0x" + "01" * 20,
        fee_destination="0x" + "02" * 20,
        eth_usd=3000 * 10**8,
        l1_fee_per_byte=0,
        timestamp=now,
        funded={CARRIER.address: 10**18},
        usdc={to_checksum_address(WALLET): 50_000_000},
    )
    return Evm(genesis, now=lambda: now, l1_fee_per_byte=lambda: 0)


def ask(chain: Evm, data: bytes) -> bytes:
    answer = chain.rpc("eth_call", [{"to": contracts.USDC, "data": "0x" + data.hex()}, "latest"])
    return bytes.fromhex(answer[2:])


def carry(chain: Evm, data: bytes) -> dict[str, Any]:
    """Let somebody else carry call data to the token; return the receipt."""
    sent = CARRIER.sign_transaction(
        {
            "type": 2,
            "chainId": 8453,
            "nonce": int(chain.rpc("eth_getTransactionCount", [CARRIER.address, "latest"]), 16),
            "to": contracts.USDC,
            "value": 0,
            "data": data,
            "gas": 300_000,
            "maxFeePerGas": 10**9,
            "maxPriorityFeePerGas": 10**6,
        }
    )
    digest = chain.rpc("eth_sendRawTransaction", ["0x" + sent.raw_transaction.hex()])
    chain.mine()
    receipt: dict[str, Any] = chain.rpc("eth_getTransactionReceipt", [digest])
    return receipt


def transfer_call(authorization: Authorization, signature: bytes) -> bytes:
    """The call data by which anybody carries the authorization to its token; `signature` is r, s, v."""
    selector = keccak(text=f"transferWithAuthorization({','.join(CARRIED)})")[:4]
    return selector + encode(CARRIED, (*authorization, signature[64], signature[:32], signature[32:64]))


def test_domain_of_the_token(chain: Evm) -> None:
    """The separator is the one that the token computes itself."""
    assert domain_separator(DOMAIN) == ask(chain, keccak(text="DOMAIN_SEPARATOR()")[:4])


def test_once(chain: Evm) -> None:
    """What was signed moves the dollars once, sets its mark and leaves its log; then it moves nothing more."""
    call = transfer_call(DOLLARS_10, signed(DOLLARS_10))
    assert not any(ask(chain, mark_call(WALLET, NONCE)))
    receipt = carry(chain, call)
    assert receipt["status"] == "0x1"
    assert int.from_bytes(ask(chain, mark_call(WALLET, NONCE))) == 1
    logs = [tuple(bytes.fromhex(topic[2:]) for topic in log["topics"]) for log in receipt["logs"]]
    assert [log for log in logs if log[0] == AUTHORIZATION_USED] == [used_topics(WALLET, NONCE)]
    balance = keccak(text="balanceOf(address)")[:4] + SELLER.rjust(32, b"\x00")
    assert int.from_bytes(ask(chain, balance)) == 10_000_000
    assert carry(chain, call)["status"] == "0x0"
    assert int.from_bytes(ask(chain, balance)) == 10_000_000


def test_simulated(chain: Evm) -> None:
    """Asked beforehand, the token says why it would refuse; the mark of another nonce stays unset."""
    stolen = transfer_call(DOLLARS_10._replace(value=10_000_001), signed(DOLLARS_10))
    with pytest.raises(RpcError, match="invalid signature"):
        ask(chain, stolen)
    late = Authorization(WALLET, SELLER, 1, 0, 1, NONCE)
    with pytest.raises(RpcError, match="expired"):
        ask(chain, transfer_call(late, signed(late)))
    assert ask(chain, transfer_call(DOLLARS_10, signed(DOLLARS_10))) == b""
    assert not any(ask(chain, mark_call(WALLET, b"\x23" * 32)))
