"""Is what is signed exactly what the token and the seller will check?"""

import pytest
from eth_abi.exceptions import EncodingError
from eth_account.messages import _hash_eip191_message, encode_defunct, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.typed_data import Authorization, Domain, authorization_digest, domain_separator, personal_digest

DOMAIN = Domain("USD Coin", "2", 8453, bytes(20))

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


@pytest.mark.parametrize("value", [-1, 2**256])
def test_too_large(value: int) -> None:
    """An amount that fits no word is refused, not cut."""
    with pytest.raises(EncodingError):
        authorization_digest(DOMAIN, Authorization(bytes(20), bytes(20), value, 0, 1, bytes(32)))
