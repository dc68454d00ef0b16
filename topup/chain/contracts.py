"""How are the contracts spoken to? Encoding and decoding by the interfaces in `abi/`, through web3.py."""

from __future__ import annotations

import json
import sys
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception

from topup.charge import Intent
from topup.errors import ChainUnknown

# See topup.signers.local: web3 loads py_ecc too, whose recursion limit lets a nested JSON answer end the process.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 10_240))


@cache
def interface(name: str) -> list[dict[str, Any]]:
    """Return the ABI `abi/<name>.json`; shipped inside the wheel, beside the package in a checkout."""
    inside = Path(str(files("topup"))) / "abi" / f"{name}.json"
    path = inside if inside.exists() else Path(str(files("topup"))).parent / "abi" / f"{name}.json"
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@cache
def _contract(name: str) -> type[Contract]:
    return Web3().eth.contract(abi=interface(name))


@lru_cache(maxsize=64)
def encode(name: str, function: str, *arguments: Any) -> bytes:
    """Return the call data of `function` of the interface `name`; most questions are asked again word for word."""
    return bytes(HexBytes(_contract(name).encode_abi(function, args=list(arguments))))


def returned(types: list[str], data: bytes, what: str) -> tuple[Any, ...]:
    """Decode what a view returned.

    Raises:
        ChainUnknown: it is not of these types, as from an address without code; `what` names the call.
    """
    try:
        return tuple(decode(types, data))
    except (DecodingError, OverflowError) as error:
        raise ChainUnknown(f"{what} returned {len(data)} bytes that cannot be read: {type(error).__name__}") from None


def payment_data(intent: Intent, tier: int) -> bytes:
    """Return the call data of swapAndTransferUniswapV3Native(intent, tier)."""
    return encode("payment_protocol", "swapAndTransferUniswapV3Native", _fields(intent), tier)


def token_payment_data(intent: Intent) -> bytes:
    """Return the call data of transferTokenPreApproved(intent)."""
    return encode("payment_protocol", "transferTokenPreApproved", _fields(intent))


def _fields(intent: Intent) -> tuple[object, ...]:
    return (
        intent.recipient_amount,
        intent.deadline,
        intent.recipient,
        intent.recipient_currency,
        intent.refund_destination,
        intent.fee_amount,
        intent.id,
        intent.operator,
        intent.signature,
        intent.prefix,
    )


def transferred(receipt: dict[str, Any], contract: bytes) -> list[dict[str, Any]]:
    """Return the arguments of every Transferred event of `contract` in a raw receipt.

    Raises:
        ChainUnknown: the receipt's logs are no list of logs, so that the absence of the event would mean nothing.
    """
    event = _contract("payment_protocol").events.Transferred()
    found = []
    logs = receipt.get("logs")
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise ChainUnknown("the logs of a receipt cannot be read")
    for log in logs:
        if str(log.get("address", "")).lower() != "0x" + contract.hex():
            continue
        try:
            shaped = {
                "address": log["address"],
                "topics": [HexBytes(t) for t in log["topics"]],
                "data": HexBytes(log["data"]),
                "blockNumber": None,
                "transactionHash": None,
                "transactionIndex": None,
                "blockHash": None,
                "logIndex": None,
            }
            found.append(dict(event.process_log(shaped)["args"]))
        except (Web3Exception, DecodingError, KeyError, TypeError, ValueError):
            continue  # another event of the same contract
    return found
