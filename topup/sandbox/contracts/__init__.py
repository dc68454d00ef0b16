"""What stands on the chain of the embedded world, at which address, and which slot changes what?

`genesis` gives every account with its code, storage and balance; `genesis_json` says the same in geth's words. The
functions below it return storage writes, by which a test or a fault changes the world between two blocks. The
addresses are Base's own, so that production settings run unchanged against this world.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

CHAIN_ID = 8453
WETH = "0x4200000000000000000000000000000000000006"
USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
POOLS: Mapping[int, str] = {
    500: "0xd0b53D9277642d899DF5C87A3966A349A798F224",
    3000: "0x6c561B446416E1A00E8E93E221854d6eA4171372",
}
QUOTER_V2 = "0x3d4e44Eb1374240CE5F1B871ab261CD16335B76a"
UNIVERSAL_ROUTER = "0x6fF5693b99212Da76ad316178A184AB56D299b43"
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
PAYMENT_PROTOCOL = "0x03059433BCdB6144624cC2443159D9445C32b7a8"
# An earlier deployment, which takes a valid intent just as well.
OLD_PAYMENT_PROTOCOL = "0xeADE6bE02d043b3550bE19E960504dbA14A14971"
ETH_USD_FEED = "0x71041dddad3595F9CEd3DcCFBe3D1F4b0a16Bb70"
SEQUENCER_FEED = "0xBCF85224fc0756B9Fa45aA7892530B47e10b6433"
GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F"

# Owns the payment contract and the dollar; nobody has its key, a test may impersonate it.
OWNER = str(to_checksum_address(keccak(text="topup sandbox: owner")[-20:]))
POOL_DEPTH_WEI = 5_000 * 10**18
ETH_USD_HEARTBEAT = 1_200
# How long before the genesis the sequencer came up: far longer than any grace period.
SEQUENCER_UP_FOR = 30 * 24 * 3600

_PAUSED = 1 << 160  # The byte above the owner's address.
_FEE_DESTINATIONS, _PROCESSED = 3, 4
_ANSWER, _STARTED_AT, _UPDATED_AT, _HEARTBEAT, _ROUND, _ANSWERED_IN = range(6)  # And the decimals.
_RESERVE0, _RESERVE1 = 3, 4
_USDC_BALANCES, _USDC_BLACKLIST, _USDC_SUPPLY = 1, 3, 5


@dataclass(frozen=True)
class Account:
    """One account of the genesis: balance in wei, storage by slot."""

    balance: int
    nonce: int
    code: bytes
    storage: Mapping[int, int]


class StorageWrite(NamedTuple):
    """One change to the world: put `value` into `slot` of `address`."""

    address: str
    slot: int
    value: int


def runtime(name: str) -> bytes:
    """Return the runtime bytecode of one of our contracts, by the name of its source; KeyError when there is none."""
    return bytes.fromhex(_artifacts()[name]["runtime"].removeprefix("0x"))


@cache
def _artifacts() -> dict[str, Any]:
    artifacts: dict[str, Any] = json.loads((files(__package__) / "artifacts.json").read_text(encoding="utf-8"))
    return artifacts


def genesis(
    *,
    operator: str,
    fee_destination: str,
    eth_usd: int,
    l1_fee_per_byte: int,
    timestamp: int,
    funded: Mapping[str, int],
    usdc: Mapping[str, int] | None = None,
) -> dict[str, Account]:
    """Every account of a fresh world, by checksum address.

    `eth_usd` is USD per ETH with 8 decimals, for the pools and the feed alike; `l1_fee_per_byte` is in wei;
    `timestamp` in unix seconds, when all feeds were last updated; `funded` in wei and `usdc` in units of 1e-6 USD
    are what other accounts hold.
    """
    writes = [
        *_payment_protocol(PAYMENT_PROTOCOL, operator, fee_destination),
        *_payment_protocol(OLD_PAYMENT_PROTOCOL, operator, fee_destination),
        StorageWrite(UNIVERSAL_ROUTER, 0, int(WETH, 16)),
        *_feed(ETH_USD_FEED, eth_usd, timestamp, ETH_USD_HEARTBEAT),
        *_feed(SEQUENCER_FEED, 0, timestamp - SEQUENCER_UP_FOR, 0),
        *l1_price(l1_fee_per_byte),
        StorageWrite(USDC, 0, int(OWNER, 16)),
    ]
    for fee, pool in POOLS.items():
        writes += [StorageWrite(pool, 0, int(WETH, 16)), StorageWrite(pool, 1, int(USDC, 16))]
        writes += [StorageWrite(pool, 2, fee), *pool_price(fee, eth_usd)]
        writes.append(StorageWrite(WETH, mapping_slot(0, pool), POOL_DEPTH_WEI))
    for address, units in (usdc or {}).items():
        writes += usdc_balance(address, units)
    storage = _by_address(writes)
    balances = {mapping_slot(_USDC_BALANCES, holder) for holder in (*POOLS.values(), *(usdc or {}))}
    storage[USDC][_USDC_SUPPLY] = sum(storage[USDC].get(slot, 0) for slot in balances)
    world = {address: Account(0, 1, runtime(name), storage.get(address, {})) for address, name in _CODE.items()}
    # Wrapped ether is backed by ether.
    world[WETH] = Account(POOL_DEPTH_WEI * len(POOLS), 1, world[WETH].code, world[WETH].storage)
    for address, wei in funded.items():
        world[str(to_checksum_address(address))] = Account(wei, 0, b"", {})
    return world


def genesis_json(accounts: Mapping[str, Account], timestamp: int) -> dict[str, Any]:
    """Return the same world as a genesis document in geth's format, which `anvil --init` reads."""
    return {
        "config": {"chainId": CHAIN_ID},
        "timestamp": hex(timestamp),
        "gasLimit": hex(60_000_000),
        "difficulty": "0x0",
        "baseFeePerGas": hex(10**9),
        "alloc": {
            address: {
                "balance": hex(account.balance),
                "nonce": hex(account.nonce),
                "code": "0x" + account.code.hex(),
                "storage": {f"0x{slot:064x}": f"0x{value:064x}" for slot, value in account.storage.items()},
            }
            for address, account in accounts.items()
        },
    }


def mapping_slot(slot: int, *keys: str | bytes) -> int:
    """Return the slot of an element of a mapping at `slot`, nested as deep as there are keys.

    Addresses (text) are padded on the left, fixed bytes on the right, as Solidity does.
    """
    for key in keys:
        word = bytes.fromhex(key.removeprefix("0x")).rjust(32, b"\0") if isinstance(key, str) else key.ljust(32, b"\0")
        slot = int.from_bytes(keccak(word + slot.to_bytes(32, "big")), "big")
    return slot


def processed_slot(operator: str, intent_id: bytes) -> int:
    """Return the slot of the payment contract that is 1 when this operator's 16-byte id was paid, else 0."""
    return mapping_slot(_PROCESSED, operator, intent_id)


def processed(operator: str, intent_id: bytes, *, paid: bool = True) -> list[StorageWrite]:
    """Mark an intent as paid, or as not paid."""
    return [StorageWrite(PAYMENT_PROTOCOL, processed_slot(operator, intent_id), int(paid))]


def payments_paused(*, paused: bool) -> list[StorageWrite]:
    """Pause the payment contract, or let it run."""
    return [StorageWrite(PAYMENT_PROTOCOL, 0, int(OWNER, 16) | (_PAUSED if paused else 0))]


def fee_destination(operator: str, destination: str | None) -> list[StorageWrite]:
    """Register an operator's fee destination; None takes it away, which is what unregistering does."""
    value = int(destination, 16) if destination else 0
    return [StorageWrite(PAYMENT_PROTOCOL, mapping_slot(_FEE_DESTINATIONS, operator), value)]


def eth_price(eth_usd: int) -> list[StorageWrite]:
    """Move the price of ETH everywhere, pools and feed: USD per ETH with 8 decimals."""
    return [*(write for fee in POOLS for write in pool_price(fee, eth_usd)), *feed_answer(ETH_USD_FEED, eth_usd)]


def pool_price(fee: int, eth_usd: int) -> list[StorageWrite]:
    """Move the price of one pool, back to its full depth: USD per ETH with 8 decimals."""
    units = POOL_DEPTH_WEI * eth_usd // 10**20  # wei -> ETH: 18, the feed's 8 -> the dollar's 6 decimals: 2
    pool = POOLS[fee]
    return [
        StorageWrite(pool, _RESERVE0, POOL_DEPTH_WEI),
        StorageWrite(pool, _RESERVE1, units),
        *usdc_balance(pool, units),
    ]


def feed_answer(feed: str, answer: int) -> list[StorageWrite]:
    """Change what a feed says, at the age it has; 8 decimals, negative allowed."""
    return [StorageWrite(feed, _ANSWER, answer % 2**256)]


def feed_updated_at(feed: str, timestamp: int) -> list[StorageWrite]:
    """Let a feed's last update be at that time, in unix seconds, with none after it; 0 is a round never completed."""
    return [StorageWrite(feed, _UPDATED_AT, timestamp), StorageWrite(feed, _HEARTBEAT, 0)]


def feed_round(feed: str, round_id: int, answered_in: int) -> list[StorageWrite]:
    """Set a feed's round and the round its answer comes from: an earlier one means the answer was carried over."""
    return [StorageWrite(feed, _ROUND, round_id), StorageWrite(feed, _ANSWERED_IN, answered_in)]


def sequencer(*, up: bool, since: int) -> list[StorageWrite]:
    """Let the L2 sequencer be up or down since that time, in unix seconds."""
    return [
        StorageWrite(SEQUENCER_FEED, _ANSWER, 0 if up else 1),
        StorageWrite(SEQUENCER_FEED, _STARTED_AT, since),
        StorageWrite(SEQUENCER_FEED, _UPDATED_AT, since),
    ]


def l1_price(wei_per_byte: int) -> list[StorageWrite]:
    """Set the L1 data fee: wei per byte of the signed transaction."""
    return [StorageWrite(GAS_PRICE_ORACLE, 0, wei_per_byte)]


def usdc_balance(address: str, units: int) -> list[StorageWrite]:
    """Set an account's dollars, in units of 1e-6 USD; the total supply stays as it was."""
    return [StorageWrite(USDC, mapping_slot(_USDC_BALANCES, address), units)]


def usdc_paused(*, paused: bool) -> list[StorageWrite]:
    """Stop every transfer of the dollar, or let them run."""
    return [StorageWrite(USDC, 0, int(OWNER, 16) | (_PAUSED if paused else 0))]


def usdc_blacklisted(address: str) -> list[StorageWrite]:
    """Put an account on the dollar's blacklist."""
    return [StorageWrite(USDC, mapping_slot(_USDC_BLACKLIST, address), 1)]


_CODE: Mapping[str, str] = {
    WETH: "Weth",
    USDC: "Usdc",
    **dict.fromkeys(POOLS.values(), "Pool"),
    QUOTER_V2: "QuoterV2",
    UNIVERSAL_ROUTER: "Router",
    PAYMENT_PROTOCOL: "PaymentProtocol",
    OLD_PAYMENT_PROTOCOL: "PaymentProtocol",
    **dict.fromkeys((ETH_USD_FEED, SEQUENCER_FEED), "Feed"),
    GAS_PRICE_ORACLE: "GasPriceOracle",
}


def _payment_protocol(address: str, operator: str, destination: str) -> list[StorageWrite]:
    # Owner, the reentrancy lock (open), sweeper, router, wrapped ether, Permit2.
    values = {0: OWNER, 1: "0x1", 2: OWNER, 5: UNIVERSAL_ROUTER, 6: WETH, 7: PERMIT2}
    values[mapping_slot(_FEE_DESTINATIONS, operator)] = destination
    return [StorageWrite(address, slot, int(value, 16)) for slot, value in values.items()]


def _feed(feed: str, answer: int, updated_at: int, heartbeat: int) -> list[StorageWrite]:
    values = (answer, updated_at, updated_at, heartbeat, 1, 1, 0 if feed == SEQUENCER_FEED else 8)
    return [StorageWrite(feed, slot, value) for slot, value in enumerate(values)]


def _by_address(writes: Iterable[StorageWrite]) -> dict[str, dict[int, int]]:
    storage: dict[str, dict[int, int]] = {}
    for address, slot, value in writes:
        if value:
            storage.setdefault(address, {})[slot] = value
    return storage
