"""Is a Tempo transaction what both reference implementations write and read, and does the chain run it once?"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import Oracle, mppx, pympp
from tests.tools import require
from tests.world.tempo_payments import (
    KEY,
    NO_COUNTER,
    OTHER,
    RECIPIENT,
    TEN,
    WALLET,
    Chain,
    accessed,
    paying,
    raw_of,
    signed,
    text,
)
from topup.domain.tempo import Transaction, digest, opened, transfer_with_memo
from topup.sandbox.tempo import Tempo

# Against the reference implementations


addresses = st.binary(min_size=20, max_size=20)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    return Transaction(
        chain_id=draw(st.integers(1, 2**53 - 1)),
        to=draw(addresses),
        data=draw(st.binary(max_size=200)),
        gas_limit=draw(st.integers(1, 2**53 - 1)),
        gas_price=draw(st.integers(0, 2**128 - 1)),
        lane=draw(st.integers(0, NO_COUNTER)),
        valid_before=draw(st.integers(1, 2**53 - 1)),
        fee_token=draw(addresses),
    )


def fields(tx: Transaction) -> dict[str, Any]:
    """Name the fields as pytempo does."""
    named = vars(tx) | {"to": text(tx.to), "data": text(tx.data), "fee_token": text(tx.fee_token)}
    if tx.sponsored:
        named["fee_token"] = None  # the sponsor names it
    theirs = {"lane": "nonce_key", "gas_price": "max_fee_per_gas", "sponsored": "awaiting_fee_payer"}
    return {theirs.get(name, name): value for name, value in named.items()}


@pytest.fixture(scope="module")
def python_package() -> Iterator[Oracle]:
    with pympp() as oracle:
        yield oracle


@pytest.fixture(scope="module")
def node_package() -> Iterator[Oracle]:
    with mppx() as oracle:
        yield oracle


@settings(deadline=None)
@given(tx=transactions())
def test_same_bytes(python_package: Oracle, tx: Transaction) -> None:
    """Whatever the fields, pytempo signs the same digest and writes the same raw transaction with the same hash."""
    raw = raw_of(tx)
    told = python_package.ask("transaction", key=KEY.to_hex(), root=None, fields=fields(tx))
    assert told == {"digest": text(digest(tx)), "raw": text(raw), "hash": text(keccak(raw))}


@settings(deadline=None)
@given(tx=transactions(), root=addresses.filter(any))
def test_same_bytes_by_an_access_key(python_package: Oracle, tx: Transaction, root: bytes) -> None:
    """Signed by an access key, for whichever root account, pytempo writes the same bytes."""
    raw = accessed(tx, root, OTHER)
    told = python_package.ask("transaction", key=OTHER.to_hex(), root=text(root), fields=fields(tx))
    assert told == {"digest": text(digest(tx)), "raw": text(raw), "hash": text(keccak(raw))}


@settings(deadline=None)
@given(tx=transactions())
def test_same_payload_for_a_sponsor(python_package: Oracle, tx: Transaction) -> None:
    """With the fee left to somebody else, pytempo signs the same digest, and pympp hands the same payload over."""
    one = replace(tx, sponsored=True)
    payload = opened(one, WALLET, signed(KEY, digest(one)))
    told = python_package.ask("transaction", key=KEY.to_hex(), root=None, fields=fields(one))
    assert told == {"digest": text(digest(one)), "raw": text(payload)}
    assert digest(one) != digest(tx), "who signs for a sponsor has not signed to pay the fee himself"


@settings(deadline=None)
@given(tx=transactions())
def test_read_by_another(node_package: Oracle, tx: Transaction) -> None:
    """The library under mppx reads every field as it was meant, and finds the wallet that signed."""
    raw = raw_of(tx)
    told = node_package.ask("decode", raw=text(raw))
    assert (told["digest"], told["hash"]) == (text(digest(tx)), text(keccak(raw)))
    assert told["signer"].lower() == text(WALLET)
    assert told["chainId"] == tx.chain_id
    [call] = told["calls"]
    assert (call["to"], call.get("data", "0x"), call.get("value", "0")) == (text(tx.to), text(tx.data), "0")
    # What is zero is left out there.
    kept = {
        "gas": str(tx.gas_limit),
        "maxFeePerGas": str(tx.gas_price),
        "maxPriorityFeePerGas": "0",
        "nonceKey": str(tx.lane),
        "nonce": "0",
        "feeToken": text(tx.fee_token),
    }
    assert {name: str(told.get(name, 0)) for name in kept} == kept
    assert told["validBefore"] == tx.valid_before


# On the chain


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    tempo = Tempo(require("anvil"), block_s=None, funded={text(WALLET): 10 * TEN})
    yield Chain(tempo)
    tempo.stop()


def test_a_lane_runs_once(chain: Chain) -> None:
    """Of two different payments on one lane, the second can never run."""
    lane, before = chain.fresh(), chain.paid()
    assert chain.run(raw_of(paying(lane=lane))) is not None
    assert chain.run(raw_of(paying(lane=lane, data=transfer_with_memo(RECIPIENT, TEN, b"\xab" * 32)))) is None
    chain.tempo.mine()
    assert chain.paid() - before == TEN


def test_not_after_its_time(chain: Chain) -> None:
    """A payment is taken into a block of the last second before its end of validity, and into none from then on."""
    before = chain.paid()
    for at_end, runs in ((-1, True), (0, False)):
        end = max(chain.now(), int(time.time())) + 60
        receipt = chain.run(raw_of(paying(lane=chain.fresh(), valid_before=end)), at=end + at_end)
        assert (receipt is not None) is runs
        chain.tempo.mine(end + 5)
    assert chain.paid() - before == TEN
