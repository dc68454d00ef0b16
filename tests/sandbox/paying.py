"""How does a payer of the embedded world's contracts sign, encode and read, and from which world does it begin?"""

import asyncio
import json
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
from eth_abi import decode, encode
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from tests.tools import ROOT
from topup.sandbox import contracts as world
from topup.sandbox.charges import Draft, digest
from topup.sandbox.gateway import Gateway

Selling = TypeVar("Selling", bound=Gateway)
ABI = ROOT / "abi"
NOW = 1_790_000_000
ETH_USD = 3_000 * 10**8
OPERATOR_KEY = PrivateKey(b"\x01" * 32)
OPERATOR = OPERATOR_KEY.public_key.to_checksum_address()
PAYER_KEY = PrivateKey(b"\x02" * 32)
PAYER = PAYER_KEY.public_key.to_checksum_address()
RECIPIENT = "0x" + "A1" * 20
FEE_DESTINATION = "0x" + "F1" * 20
ENOUGH = 4 * 10**15  # 0.004 ETH for 10.5 dollars at 3,000: more than the 0.0035 needed.
INTENT = "(uint256,uint256,address,address,address,uint256,bytes16,address,bytes,bytes)"
SWAP_NATIVE = f"swapAndTransferUniswapV3Native({INTENT},uint24)"
PRE_APPROVED = f"transferTokenPreApproved({INTENT})"
TRANSFERRED = keccak(text="Transferred(address,bytes16,address,address,uint256,address)")

HONEST = Draft(
    recipient_amount=10_395_000,
    fee_amount=105_000,
    deadline=NOW + 3600,
    recipient=RECIPIENT,
    currency=world.USDC,
    refund="0x" + "DE" * 20,
    id=b"sixteen bytes id",
    operator=OPERATOR,
    chain_id=world.CHAIN_ID,
    sender=PAYER,
    contract=world.PAYMENT_PROTOCOL,
)
TOTAL = HONEST.recipient_amount + HONEST.fee_amount


@dataclass(frozen=True)
class Log:
    address: str
    topics: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """What a call left: the returned or reverted bytes, gas after refunds, logs in order."""

    ok: bool
    output: bytes
    gas_used: int
    logs: tuple[Log, ...]


# A charge that Coinbase signed on 27 February 2025, paid on Base in March.
REAL = Draft(
    recipient_amount=9_900,
    fee_amount=100,
    deadline=1_740_809_999,
    recipient="0x5eA054aEea285Ebc3A92eCB1f722f44304F72581",
    currency=world.USDC,
    refund="0xac8CeB5131449e5850030737D10d1E25C6b8D80B",
    id=bytes.fromhex("c8f9e661fe654bca8554192fe0d22ca4"),
    operator="0x8fcCC78Dae0a8f93B0fE6799de888d4C57e273db",
    chain_id=world.CHAIN_ID,
    sender="0xac8CeB5131449e5850030737D10d1E25C6b8D80B",
    contract=world.PAYMENT_PROTOCOL,
)
REAL_SIGNATURE = bytes.fromhex(
    "b443cf656f962b42888621d23fdb90f4dea6801df07da4722ab381d1aacefd0c"
    "1fbbc473762409427b899aaeb69e7afa00444e9221e297cdc9a2c7d99a86ae521c"
)


NO_TLS = ssl.create_default_context()  # Never used; to make one for each client takes longer than a test.


@asynccontextmanager
async def client_of(seller: Gateway, timeout_s: float = 10) -> AsyncIterator[httpx.AsyncClient]:
    """Let a seller listen, with a client of it."""
    await seller.start()
    try:
        async with httpx.AsyncClient(base_url=seller.url, timeout=timeout_s, trust_env=False, verify=NO_TLS) as client:
            yield client
    finally:
        await seller.stop()
        await asyncio.sleep(0)  # Cut connections end on the loop's next turn.


class Clock:
    """Time that only moves when told; it starts at the machine's unless another is given."""

    def __init__(self, ms: int | None = None) -> None:
        self.ms = time.time_ns() // 1_000_000 if ms is None else ms

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> int:
        return self.ms // 1000

    def go_on(self, ms: int) -> None:
        self.ms += ms


@dataclass
class Scene(Generic[Selling]):
    """A running seller, a client of it, and the time, which moves only when told."""

    seller: Selling
    client: httpx.AsyncClient
    clock: Clock
    patience_s = 10.0  # For a whole answer; the client's own time-out is for each piece of it.

    def key(self, key: str | None = None) -> dict[str, str]:
        """Return the header that shows a key, by default the account's."""
        return {"authorization": f"Bearer {key or self.seller.management_key}"}

    def poll(self, after_ms: int = 0) -> None:
        """Let so much time pass, and let the seller look at the chain."""
        self.clock.go_on(after_ms)
        self.seller.poll()

    async def posted(self, path: str, headers: Mapping[str, str], body: str | bytes) -> httpx.Response:
        async with asyncio.timeout(self.patience_s):
            return await self.client.post(path, headers=headers, content=body)


class World(ABC):
    """Contracts that can be asked."""

    @abstractmethod
    def call(self, to: str, data: bytes, *, value: int = 0) -> Outcome:
        """Run a transaction of the payer's and undo it."""

    def read(self, to: str, signature: str, types: Sequence[str], values: Sequence[Any], returns: Sequence[str]) -> Any:
        outcome = self.call(to, calldata(signature, types, values))
        assert outcome.ok, reason(outcome)
        result = decode(returns, outcome.output)
        return result[0] if len(result) == 1 else result

    def dollars(self, address: str) -> int:
        return int(self.read(world.USDC, "balanceOf(address)", ["address"], [address], ["uint256"]))

    def quote(self, amount: int = TOTAL, fee: int = 500) -> int:
        outcome = self.call(world.QUOTER_V2, quote_data(amount, fee))
        assert outcome.ok, reason(outcome)
        return int(decode(["uint256", "uint160", "uint32", "uint256"], outcome.output)[0])


def calldata(signature: str, types: Sequence[str], values: Sequence[Any]) -> bytes:
    return bytes(keccak(text=signature)[:4]) + encode(types, values)


def quote_data(amount: int, fee: int) -> bytes:
    signature = "quoteExactOutputSingle((address,address,uint256,uint24,uint160))"
    params = (world.WETH, world.USDC, amount, fee, 0)
    return calldata(signature, ["(address,address,uint256,uint24,uint160)"], [params])


def sign(draft: Draft, key: PrivateKey = OPERATOR_KEY) -> bytes:
    signature = key.sign_msg_hash(digest(draft))
    return bytes(signature.to_bytes()[:64]) + bytes([signature.v + 27])


def intent(draft: Draft, signature: bytes | None = None) -> tuple[Any, ...]:
    return (
        draft.recipient_amount,
        draft.deadline,
        draft.recipient,
        draft.currency,
        draft.refund,
        draft.fee_amount,
        draft.id,
        draft.operator,
        sign(draft) if signature is None else signature,
        draft.prefix,
    )


def swap_data(draft: Draft, fee: int = 500, signature: bytes | None = None) -> bytes:
    return calldata(SWAP_NATIVE, [INTENT, "uint24"], [intent(draft, signature), fee])


def reason(outcome: Outcome) -> str:
    """A revert in words: Name(arguments), with custom errors named by `abi/payment_protocol.json`."""
    if outcome.ok:
        return "ok"
    selector, body = outcome.output[:4], outcome.output[4:]
    for entry in [*abi("payment_protocol"), {"type": "error", "name": "Error", "inputs": [{"type": "string"}]}]:
        if entry["type"] == "error" and selector_of(entry) == selector:
            values = decode([field["type"] for field in entry["inputs"]], body)
            return f"{entry['name']}({', '.join(str(value) for value in values)})"
    return "0x" + outcome.output.hex()


def abi(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((ABI / f"{name}.json").read_text())
    return loaded


def signature_of(entry: dict[str, Any]) -> str:
    def kind(field: dict[str, Any]) -> str:
        return f"({','.join(map(kind, field['components']))})" if field["type"] == "tuple" else str(field["type"])

    return f"{entry['name']}({','.join(map(kind, entry['inputs']))})"


def selector_of(entry: dict[str, Any]) -> bytes:
    return bytes(keccak(text=signature_of(entry))[:4])


TOO_MUCH = "SwapFailedString(V3TooMuchRequested)"
# In which ways a swap fails: what was written to the chain before, the value sent, the tier, and the words.
SWAP_FAILURES: list[tuple[list[world.StorageWrite], int, int, str]] = [
    ([], 0, 500, TOO_MUCH),
    ([], 3 * 10**15, 500, TOO_MUCH),
    ([], 3 * 10**15, 3000, TOO_MUCH),
    ([], ENOUGH, 10_000, "SwapFailedBytes(b'')"),
    ([], ENOUGH, 1, "SwapFailedBytes(b'')"),
    (world.usdc_paused(paused=True), ENOUGH, 500, "SwapFailedString(TF)"),
    (world.usdc_blacklisted(RECIPIENT), ENOUGH, 500, "SwapFailedString(TRANSFER_FAILED)"),
]


def genesis(
    timestamp: int = NOW,
    *,
    funded: Mapping[str, int] | None = None,
    l1_fee_per_byte: int = 0,
    usdc: Mapping[str, int] | None = None,
) -> dict[str, world.Account]:
    """A fresh world in which the payer, unless others are named, holds one ether."""
    return world.genesis(
        operator=OPERATOR,
        fee_destination=FEE_DESTINATION,
        eth_usd=ETH_USD,
        l1_fee_per_byte=l1_fee_per_byte,
        timestamp=timestamp,
        funded={PAYER: 10**18} if funded is None else funded,
        usdc=usdc,
    )
