"""Payments on a Tempo chain as these tests sign them, and a chain that runs them when told."""

import time
from dataclasses import replace
from typing import Any, Final

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from topup.domain.tempo import Transaction, access_digest, access_signature, digest, sealed, transfer_with_memo
from topup.sandbox.tempo import CHAIN_ID, USDC_E, Tempo

KEY: Final = PrivateKey(b"\x11" * 32)
WALLET: Final = KEY.public_key.to_canonical_address()
OTHER: Final = PrivateKey(b"\x12" * 32)
RECIPIENT: Final = b"\x77" * 20
TOKEN: Final = bytes.fromhex(USDC_E[2:])
MEMO: Final = b"\xef" * 32
TEN: Final = 10_000_000
PRICE: Final = 30 * 10**9  # 10⁻¹⁸ dollars
NO_COUNTER: Final = 2**256 - 1
# What the account keychain keeps: which keys may sign for an account, and for how much.
AUTHORIZE: Final = keccak(
    text="authorizeKey(address,uint8,(uint64,bool,(address,uint256,uint64)[],bool,(address,(bytes4,address[])[])[]))"
)[:4]
RESTRICTIONS: Final = "(uint64,bool,(address,uint256,uint64)[],bool,(address,(bytes4,address[])[])[])"


def text(data: bytes) -> str:
    return "0x" + data.hex()


def signed(key: PrivateKey, what: bytes) -> bytes:
    signature = key.sign_msg_hash(what).to_bytes()
    return bytes(signature[:64]) + bytes([signature[64] + 27])


def raw_of(tx: Transaction, key: PrivateKey = KEY) -> bytes:
    return sealed(tx, signed(key, digest(tx)))


def accessed(tx: Transaction, root: bytes, key: PrivateKey) -> bytes:
    return sealed(tx, access_signature(root, signed(key, access_digest(tx, root))))


def paying(**changes: Any) -> Transaction:
    """Pay ten dollars on the fifth lane, within five minutes."""
    tx = Transaction(
        chain_id=CHAIN_ID,
        to=TOKEN,
        data=transfer_with_memo(RECIPIENT, TEN, MEMO),
        gas_limit=2_000_000,
        gas_price=PRICE,
        lane=5,
        valid_before=int(time.time()) + 300,
        fee_token=TOKEN,
    )
    return replace(tx, **changes)


class Chain:
    """A Tempo chain that makes a block when told, where the wallet holds a hundred dollars."""

    def __init__(self, tempo: Tempo) -> None:
        self.tempo = tempo
        self.lane = 100

    def fresh(self) -> int:
        """Return a lane that nothing has used."""
        self.lane += 1
        return self.lane

    def run(self, raw: bytes, *, at: int | None = None) -> dict[str, Any] | None:
        """Send a transaction, make a block, and return its receipt; None when the block does not hold it."""
        told = self.tempo.rpc("eth_sendRawTransaction", [text(raw)])
        assert told == text(keccak(raw))
        self.tempo.mine(at)
        receipt: dict[str, Any] | None = self.tempo.rpc("eth_getTransactionReceipt", [told])
        return receipt

    def paid(self) -> int:
        return self.tempo.balance(text(RECIPIENT))

    def now(self) -> int:
        return int(self.tempo.rpc("eth_getBlockByNumber", ["latest", False])["timestamp"], 16)
