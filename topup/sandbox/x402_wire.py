"""How does a seller for x402 write its offers and receipts, and read what is ordered and who asks?

A login (EIP-4361) is decoded here a second time, independently of the code that signs. The sentence that a seller wants
in it has to stand there to the letter: sellers build the text again from its parts and hold the signature against that.
"""

import base64
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from eth_account.messages import encode_defunct
from eth_utils.address import is_checksum_address

from topup.sandbox.charges import STRANGER
from topup.sandbox.facilitator import NETWORKS, chain_of, recovered
from topup.sandbox.seller import unix_ms_of
from topup.sandbox.x402_faults import CROWD, Offer
from topup.sellers.x402_profile import LoginText

Json = Any

UNITS: Final = Decimal(10**6)
SOLANA: Final = {
    "scheme": "exact",
    "network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
    "amount": "5000000",
    "asset": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "payTo": "So11111111111111111111111111111111111111112",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USD Coin", "version": "2", "feePayer": "11111111111111111111111111111111"},
}
# How an ordered sum may be written, by the place that names it.
SUMS: Final = {"usd": Decimal(1), "usd_number": Decimal(1), "cents": Decimal("0.01"), "units": 1 / UNITS}
EXTENSIONS: Final[Mapping[str, Json]] = {
    "bazaar": {"info": {"output": {"example": {"price": 22.5, "tiny": 1e-07}}}, "schema": {"maximum": 0.5}}
}
LIFE_MS_MAX: Final = 600_000
SKEW_MS: Final = 60_000
MESSAGE: Final = re.compile(
    r"(?P<domain>\S+) wants you to sign in with your Ethereum account:\n(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"(?P<statement>[^\n]+)\n\nURI: (?P<uri>\S+)\nVersion: 1\nChain ID: (?P<chain>\d+)\n"
    r"Nonce: (?P<nonce>[0-9a-zA-Z]{8,})\nIssued At: (?P<issued>\S+)\nExpiration Time: (?P<expires>\S+)"
)


def crowded(honest: list[Json], *, first: bool) -> list[Json]:
    """Return an honest offer in the middle of five that nobody here can read or pay."""
    others = [offer and as_first(offer) for offer in CROWD] if first else CROWD
    return [*others[:3], *honest, *others[3:]]


def matched(pattern: str, target: str) -> dict[str, str] | None:
    """Return what stands in the places of a path; None where it is another path."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = "".join(re.escape(part) if n % 2 == 0 else f"(?P<{part}>[^/?&]+)" for n, part in enumerate(parts))
    match = re.fullmatch(text, target)
    return None if match is None else match.groupdict()


def ordered_usd(places: Mapping[str, Json], wanted: Json, body: bytes) -> Decimal:
    """Return the dollars that a request orders in its path or its body; 0 where it is another body than is wanted."""
    try:
        named = {**places, **(_placed(wanted, json.loads(body, parse_float=Decimal)) if wanted is not None else {})}
    except (ValueError, LookupError, TypeError, RecursionError):
        return Decimal(0)
    place = next((place for place in SUMS if place in named), None)
    text = str(named[place]) if place is not None else ""
    return Decimal(text) * SUMS[place] if place and re.fullmatch(r"\d{1,10}(\.\d{1,6})?", text) else Decimal(0)


def _placed(wanted: Json, given: Json) -> dict[str, Json]:
    """Return what stands in the places of a body. Raises ValueError where it is another body."""
    if isinstance(wanted, Mapping):
        if not isinstance(given, Mapping) or set(wanted) != set(given):
            raise ValueError("other fields")
        return {place: value for name in wanted for place, value in _placed(wanted[name], given[name]).items()}
    place = re.fullmatch(r"\{(\w+)\}", wanted) if isinstance(wanted, str) else None
    if place is None:
        if given != wanted:
            raise ValueError("another constant")
        return {}
    # A text where a number is wanted, and the other way round, is as wrong to these sellers as nothing.
    if isinstance(given, str) is not (place[1] in ("usd", "wallet")) or isinstance(given, bool):
        raise ValueError("another type")
    return {place[1]: given}


def as_first(offer: dict[str, Json]) -> dict[str, Json]:
    """Write what version 2 says as version 1 does."""
    kept = {name: said for name, said in offer.items() if name != "amount"}
    return {**kept, "network": name_of(offer["network"]), "maxAmountRequired": offer["amount"]}


def name_of(network: str) -> str:
    """Return what version 1 calls a network."""
    chain_id = chain_of(network)
    return next((name for name, number in NETWORKS.items() if number == chain_id), network.partition(":")[0])


def garbled(text: str, fault: str) -> str:
    """Return a document as two faults of an offer spoil it."""
    if fault == "duplicate-keys":
        return text.replace('"payTo":', f'"payTo": "{STRANGER}", "payTo":', 1)
    return text[:-1] if fault == "garbage" else text


def packed(document: Mapping[str, Json]) -> str:
    """Return base64 of JSON, as headers carry it."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def written(offer: Offer) -> dict[str, Json]:
    """Write an offer as version 2 does."""
    return {
        "scheme": offer.scheme,
        "network": f"eip155:{offer.chain_id}",
        "amount": str(offer.amount),
        "asset": offer.asset,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": offer.timeout_s,
        **({} if offer.extra is None else {"extra": dict(offer.extra)}),
    }


def echoes(accepted: Mapping[str, Json], stated: Mapping[str, Json]) -> bool:
    """Tell whether an offer is echoed as it was written, but for the amount and the network's other name."""
    network = f"eip155:{chain_of(str(accepted.get('network')))}"
    return {**accepted, "network": network, "amount": ""} == {**stated, "amount": ""}


def logged_in(proof: str, wanted: LoginText, *, url: str, chain_id: int, now_ms: int, used: set[str]) -> str:
    """Return the wallet that signed this login for the seller at `url`, in lower case; `used` are nonces seen before.

    Raises ValueError and its like for a bad one.
    """
    document = json.loads(base64.b64decode(proof, validate=True))
    message = str(document["message"])
    said = MESSAGE.fullmatch(message)
    if said is None:
        raise ValueError("no message of EIP-4361")
    signature = bytes.fromhex(str(document["signature"]).removeprefix("0x"))
    issued, expires, server = unix_ms_of(said["issued"]), unix_ms_of(said["expires"]), urlsplit(url)
    facts = (
        is_checksum_address(said["address"]),
        said["address"].lower() == str(document["address"]).lower(),
        said["statement"] == wanted.statement,
        said["domain"] == server.netloc,
        urlsplit(said["uri"])[:2] == server[:2],
        int(said["chain"]) == document["chainId"] == chain_id,
        issued <= now_ms + SKEW_MS and now_ms < expires <= issued + LIFE_MS_MAX,
        abs(document["timestamp"] - now_ms) <= LIFE_MS_MAX,
        said["nonce"] not in used,
        recovered(encode_defunct(text=message), signature) == said["address"].lower(),
    )
    if not all(facts):
        raise ValueError(f"a login that is not good: {facts}")
    used.add(said["nonce"])
    return said["address"].lower()
