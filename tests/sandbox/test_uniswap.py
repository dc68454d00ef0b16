"""Does our payment contract do through Uniswap's real router what it does through ours?"""

from collections.abc import Iterator

import pytest
from eth_abi import decode
from eth_utils.crypto import keccak

from tests import tools
from tests.sandbox import paying
from tests.sandbox.paying import (
    ENOUGH,
    FEE_DESTINATION,
    HONEST,
    NOW,
    PAYER,
    RECIPIENT,
    SWAP_FAILURES,
    TOTAL,
    TRANSFERRED,
    Outcome,
    World,
    calldata,
    quote_data,
    reason,
    swap_data,
)
from tests.world import uniswap
from topup.sandbox import contracts as world
from topup.sandbox.anvil import Anvil
from topup.sandbox.rpc import RpcError


class Real(World):
    """An anvil with our genesis, on which `uniswap.deploy` has put the real contracts."""

    def __init__(self) -> None:
        binary = tools.require("anvil")
        tools.require("uniswap")
        self._anvil = Anvil(binary, paying.genesis(NOW - 60), timestamp=NOW - 60)
        self.rpc = self._anvil.rpc
        self.rpc("evm_setAutomine", [True])
        uniswap.deploy(self.rpc)

    def call(self, to: str, data: bytes, *, value: int = 0) -> Outcome:
        transaction = {"from": PAYER, "to": to, "data": "0x" + data.hex(), "value": hex(value)}
        try:
            output = self.rpc("eth_call", [transaction, "latest"])
        except RpcError as error:
            if error.data is None:
                raise
            return Outcome(ok=False, output=bytes.fromhex(error.data[2:]), gas_used=0, logs=())
        return Outcome(ok=True, output=bytes.fromhex(output[2:]), gas_used=0, logs=())

    def close(self) -> None:
        self._anvil.stop()


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    made = Real()
    yield made
    made.close()


@pytest.fixture
def chain(real: Real) -> Iterator[Real]:
    """The same world for every test."""
    snapshot = real.rpc("evm_snapshot", [])
    real.rpc("evm_setNextBlockTimestamp", [hex(NOW + 60)])
    real.rpc("evm_mine", [])
    yield real
    real.rpc("evm_revert", [snapshot])


@pytest.mark.parametrize("fee", [500, 3000])
def test_quote_is_exact(chain: Real, fee: int) -> None:
    """Through the real pools and router too, the quote is spent to the wei and one wei less reverts."""
    quoted = chain.quote(TOTAL, fee)
    short = chain.call(world.PAYMENT_PROTOCOL, swap_data(HONEST, fee), value=quoted - 1)
    assert reason(short) == "SwapFailedString(V3TooMuchRequested)"
    chain.rpc("anvil_impersonateAccount", [PAYER])
    transaction = {"from": PAYER, "to": world.PAYMENT_PROTOCOL, "data": "0x" + swap_data(HONEST, fee).hex()}
    before = int(chain.rpc("eth_getBalance", [PAYER, "latest"]), 16)
    sent = chain.rpc("eth_sendTransaction", [{**transaction, "value": hex(ENOUGH)}])
    receipt = uniswap.receipt_of(chain.rpc, sent)
    assert receipt["status"] == "0x1" and len(receipt["logs"]) == 8
    gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert before - int(chain.rpc("eth_getBalance", [PAYER, "latest"]), 16) == quoted + gas
    last = receipt["logs"][-1]
    assert last["topics"][0] == "0x" + TRANSFERRED.hex()
    assert decode(["bytes16", "address", "address", "uint256"], bytes.fromhex(last["data"][2:]))[3] == quoted
    assert chain.dollars(RECIPIENT) == HONEST.recipient_amount
    assert chain.dollars(FEE_DESTINATION) == HONEST.fee_amount


def test_price(chain: Real) -> None:
    """Ours and Uniswap's pools of the same depth ask the same for ten dollars, but for a billionth."""
    real = chain.quote(TOTAL, 500)
    snapshot = chain.rpc("evm_snapshot", [])
    genesis = paying.genesis()
    for address in (world.POOLS[500], world.QUOTER_V2):
        chain.rpc("anvil_setCode", [address, "0x" + genesis[address].code.hex()])
        slots = genesis[address].storage
        uniswap.write(chain.rpc, [world.StorageWrite(address, slot, slots.get(slot, 0)) for slot in range(8)])
    ours = chain.quote(TOTAL, 500)
    chain.rpc("evm_revert", [snapshot])
    # The real quoter too reverts without data for a tier that has no pool.
    missing = chain.call(world.QUOTER_V2, quote_data(TOTAL, 10_000))
    assert (missing.ok, missing.output) == (False, b"")
    assert abs(ours - real) <= real // 10**9


@pytest.mark.parametrize(("writes", "value", "fee", "words"), SWAP_FAILURES)
def test_swap_failures(chain: Real, writes: list[world.StorageWrite], value: int, fee: int, words: str) -> None:
    """Each fails in the words of the published contract: in the pool, in the router, or for want of a tier."""
    uniswap.write(chain.rpc, writes)
    assert reason(chain.call(world.PAYMENT_PROTOCOL, swap_data(HONEST, fee), value=value)) == words


def test_permit2(chain: Real) -> None:
    """Permit2 knows this chain: its domain separator is the one of chain 8453 at its own address."""
    separator = chain.call(world.PERMIT2, calldata("DOMAIN_SEPARATOR()", [], [])).output
    kind = keccak(text="EIP712Domain(string name,uint256 chainId,address verifyingContract)")
    chain_id = world.CHAIN_ID.to_bytes(32, "big")
    address = bytes.fromhex(world.PERMIT2[2:]).rjust(32, b"\0")
    assert separator == keccak(kind + keccak(text="Permit2") + chain_id + address)
