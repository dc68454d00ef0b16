"""How are the contracts spoken to? Encoding and decoding by the interfaces in `abi/`, through eth_abi.

web3.py would do the same and takes a third of a second to load, which a restart with a payment out there need not wait
for: it is loaded where bytes are handed over.
"""

import json
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import decode
from eth_abi.abi import encode as abi_encode
from eth_abi.registry import registry
from eth_utils.crypto import keccak

from topup.chain.rpc import Answer, known, unhex, unhexed
from topup.domain.coinbase_charge import Intent
from topup.domain.errors import ChainUnknown

INTERFACES: Final = ("aggregator_v3", "erc20", "gas_price_oracle", "payment_protocol", "quoter_v2")
# The topics of ERC-20's two events, each over (address, address, uint256): both addresses are indexed.
TRANSFER: Final = keccak(text="Transfer(address,address,uint256)")
APPROVAL: Final = keccak(text="Approval(address,address,uint256)")


@cache
def interface(name: str) -> list[dict[str, Any]]:
    """Return the ABI `abi/<name>.json`; shipped inside the wheel, beside the package in a checkout."""
    inside = Path(str(files("topup"))) / "abi" / f"{name}.json"
    path = inside if inside.exists() else Path(str(files("topup"))).parent / "abi" / f"{name}.json"
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@cache
def _entry(name: str, kind: str, called: str) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the hash of a function's or event's signature, and its inputs; it is called by name or by signature."""
    for one in (entry for entry in interface(name) if entry["type"] == kind):
        inputs: list[dict[str, Any]] = one["inputs"]
        signature = f"{one['name']}({','.join(map(_type, inputs))})"
        if called in (one["name"], signature):
            return keccak(text=signature), inputs
    raise LookupError(f"{name} has no {kind} {called}")


def ready() -> None:
    """Read ahead of need what every call of ours is encoded by."""
    for name in INTERFACES:
        for entry in interface(name):
            for kind in map(_type, entry["inputs"]) if entry["type"] == "function" else ():
                registry.get_encoder(kind)


def _type(entry: dict[str, Any]) -> str:
    kind = str(entry["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_type, entry['components']))}){kind.removeprefix('tuple')}"


@lru_cache(maxsize=64)
def encode(name: str, function: str, *arguments: Any) -> bytes:
    """Return the call data of `function` of the interface `name`; most questions are asked again word for word."""
    signature, inputs = _entry(name, "function", function)
    return signature[:4] + abi_encode(list(map(_type, inputs)), arguments)


def arguments(name: str, function: str, data: bytes) -> tuple[Any, ...] | None:
    """Read the call data of `function` of the interface `name`; None where it is of another, or cannot be read."""
    signature, inputs = _entry(name, "function", function)
    try:
        return tuple(decode(list(map(_type, inputs)), data[4:])) if data[:4] == signature[:4] else None
    except Exception:  # noqa: BLE001 - a decoder raises what it likes
        return None


def returned(types: list[str], answer: Answer, what: str) -> tuple[Any, ...]:
    """Decode what a view returned; of other types is also what comes from an address without code."""
    data = unhex(known(answer, what), what)
    try:
        return tuple(decode(types, data))
    except Exception as error:  # noqa: BLE001 - a decoder raises what it likes, a text that is no UTF-8 another error
        raise ChainUnknown(f"{what} returned {len(data)} bytes that cannot be read: {type(error).__name__}") from None


def word(answer: Answer) -> int | None:
    """Read the one word a view returned; None when there is none, as from a node that has forgotten that state."""
    data = unhexed(answer)
    return int.from_bytes(data, "big") if data is not None and len(data) == 32 else None


def known_word(answer: Answer, what: str) -> int:
    """Read the one word a view returned, which has to be there."""
    number = word(known(answer, what))
    if number is None:
        shown = repr(answer[:80]) if isinstance(answer, str) else f"of type {type(answer).__name__}"
        raise ChainUnknown(f"{what} is {shown}, not a word")
    return number


def payment_data(intent: Intent, tier: int) -> bytes:
    """Return the call data of swapAndTransferUniswapV3Native(intent, tier)."""
    return encode("payment_protocol", "swapAndTransferUniswapV3Native", intent.struct, tier)


def token_payment_data(intent: Intent) -> bytes:
    """Return the call data of transferTokenPreApproved(intent)."""
    return encode("payment_protocol", "transferTokenPreApproved", intent.struct)


def transferred(receipt: dict[str, Any], contract: bytes) -> list[dict[str, Any]]:
    """Return the arguments of every Transferred event of `contract` in a raw receipt.

    Raises:
        ChainUnknown: the receipt's logs are no list of logs, so that the absence of the event would mean nothing.
    """
    signature, inputs = _entry("payment_protocol", "event", "Transferred")
    marked = [entry for entry in inputs if entry["indexed"]]
    plain = [entry for entry in inputs if not entry["indexed"]]
    found = []
    logs = receipt.get("logs")
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise ChainUnknown("the logs of a receipt cannot be read")
    for log in logs:
        if unhexed(log.get("address")) != contract:
            continue
        try:
            first, *topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
            if first != signature or len(topics) != len(marked):
                continue
            told = {e["name"]: decode([_type(e)], topic)[0] for e, topic in zip(marked, topics, strict=True)}
            values = decode(list(map(_type, plain)), bytes.fromhex(log["data"][2:]))
            found.append(told | {e["name"]: value for e, value in zip(plain, values, strict=True)})
        except Exception:  # noqa: BLE001, S112 - as above
            continue  # another event of the same contract
    return found
