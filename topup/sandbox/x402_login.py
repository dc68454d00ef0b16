"""Is this login good? A wallet's signed message (EIP-4361), read and checked as a seller for x402 does.

Decoded here a second time, independently of the code that signs. The sentence that a seller wants to stand in it has to
stand there to the letter: sellers build the text again from its parts and hold the signature against that.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from eth_account.messages import encode_defunct
from eth_utils.address import is_checksum_address

from topup.sandbox.facilitator import recovered
from topup.sandbox.seller import unix_ms_of
from topup.sellers.x402_profile import LoginText

LIFE_MS_MAX: Final = 600_000
SKEW_MS: Final = 60_000
MESSAGE: Final = re.compile(
    r"(?P<domain>\S+) wants you to sign in with your Ethereum account:\n(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"(?P<statement>[^\n]+)\n\nURI: (?P<uri>\S+)\nVersion: 1\nChain ID: (?P<chain>\d+)\n"
    r"Nonce: (?P<nonce>[0-9a-zA-Z]{8,})\nIssued At: (?P<issued>\S+)\nExpiration Time: (?P<expires>\S+)"
)


def presented(headers: Mapping[str, str], wanted: LoginText) -> str | None:
    """Return what a request presents as its login, by the header's name or by its older one; None without any."""
    name = wanted.header.lower()
    return headers.get(name, headers.get(f"x-{name}"))


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
