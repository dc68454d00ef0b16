"""Is the curve's arithmetic that of libsecp256k1, and does it say the same as the one written in Python?"""

from dataclasses import replace

import pytest
from eth_keys.backends import CoinCurveECCBackend, NativeECCBackend
from eth_keys.backends.base import BaseECCBackend
from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature, ValidationError
from eth_keys.main import lazy_key_api
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.signers.test_signer import CHARGE, RIGHT, signer
from topup.domain.coinbase_charge import SECP256K1_N, charge_of, recover

pytest.importorskip("coincurve", reason="there is no wheel of coincurve for this Python on this machine")

NATIVE, CURVE = NativeECCBackend(), CoinCurveECCBackend()
KEYS = st.integers(1, SECP256K1_N - 1).map(lambda number: number.to_bytes(32, "big"))
HASHES = st.binary(min_size=32, max_size=32)


def recovered(backend: BaseECCBackend, message: bytes, vrs: tuple[int, int, int]) -> bytes | None:
    """Return the public key behind a signature, or None where the backend finds none."""
    try:
        return Signature(vrs=vrs, backend=backend).recover_public_key_from_msg_hash(message).to_bytes()
    except (BadSignature, ValidationError):
        return None


def test_signing_and_recovering_use_libsecp256k1(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the arithmetic in Python out of order, a charge is still proven and its payment signed."""

    def out_of_order(*_: object) -> None:
        raise AssertionError("the curve in Python was asked")

    for name in ("ecdsa_sign", "ecdsa_recover", "private_key_to_public_key"):
        monkeypatch.setattr(NativeECCBackend, name, out_of_order)
    assert isinstance(lazy_key_api.backend, CoinCurveECCBackend)
    assert signer().sign_payment(RIGHT, CHARGE)
    assert recover(charge_of(CHARGE)) == charge_of(CHARGE).intent.operator


def test_a_signature_that_nobody_made_is_none() -> None:
    """What libsecp256k1 refuses with an exception of its own is no address."""
    for r in (0, SECP256K1_N, 5):  # there is no point of the curve above 5
        wrong = r.to_bytes(32, "big") + charge_of(CHARGE).intent.signature[32:]
        assert recover(replace(charge_of(CHARGE), intent=replace(charge_of(CHARGE).intent, signature=wrong))) is None


@settings(max_examples=60, deadline=None)
@given(key=KEYS, message=HASHES)
def test_both_sign_alike(key: bytes, message: bytes) -> None:
    """The same key and message give the same bytes and the same address, whichever was there at the first signing."""
    told = [PrivateKey(key, backend=backend) for backend in (NATIVE, CURVE)]
    native, curve = (one.sign_msg_hash(message) for one in told)
    assert native.to_bytes() == curve.to_bytes()
    assert told[0].public_key.to_bytes() == told[1].public_key.to_bytes()
    assert recovered(CURVE, message, curve.vrs) == told[0].public_key.to_bytes()


@settings(max_examples=60, deadline=None)
@given(key=KEYS, message=HASHES, other=HASHES, v=st.integers(0, 1), s=st.integers(0, SECP256K1_N), high=st.booleans())
def test_both_recover_alike(key: bytes, message: bytes, other: bytes, v: int, s: int, high: bool) -> None:  # noqa: FBT001
    """They agree on whose a signature is, and on which is nobody's, whatever is changed in it."""
    _, r, right = PrivateKey(key, backend=CURVE).sign_msg_hash(message).vrs
    guesses = [(v, r, right), (v, r, SECP256K1_N - right if high else s), (v, int.from_bytes(other, "big"), right)]
    for asked in (message, other):
        for vrs in guesses:
            assert recovered(NATIVE, asked, vrs) == recovered(CURVE, asked, vrs), vrs
