"""What would the x402 package do? Runs in its environment: one JSON question a line in, one JSON answer a line out.

    {"ask": "pay", "key": …, "headers": {…}, "body": "…", "nonce": "0x…", "now": 1}  → {"headers": {…}}
    {"ask": "verify", "header": "…", "requirement": {…}}                             → the facilitator's answer
    {"ask": "settle", "header": "…", "requirement": {…}}                             → likewise; it sends for real
    {"ask": "response", "success": true, "transaction": "0x…", …}                    → {"header": "…"}

Started as `python x402_oracle.py RPC_URL FACILITATOR_KEY`.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest.mock import patch

from eth_account import Account
from x402 import x402ClientSync, x402FacilitatorSync  # type: ignore[import-not-found]
from x402.http import x402HTTPClientSync  # type: ignore[import-not-found]
from x402.http.utils import (  # type: ignore[import-not-found]
    decode_payment_signature_header,
    encode_payment_response_header,
)
from x402.mechanisms.evm.exact import client, register  # type: ignore[import-not-found]
from x402.mechanisms.evm.exact.v1 import client as client_v1  # type: ignore[import-not-found]
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer  # type: ignore[import-not-found]
from x402.schemas import PaymentRequirements, SettleResponse  # type: ignore[import-not-found]
from x402.schemas.v1 import PaymentRequirementsV1  # type: ignore[import-not-found]


def pay(asked: dict[str, Any]) -> Any:
    """Let the package's own client answer a 402, with nonce and time given."""
    paying = x402ClientSync()
    paying.set_spend_controls(False)
    register.register_exact_evm_client(paying, Account.from_key(asked["key"]))
    http = x402HTTPClientSync(paying)
    with (
        patch.object(client, "create_nonce", lambda: asked["nonce"]),
        patch.object(client_v1, "create_nonce", lambda: asked["nonce"]),
        patch("time.time", lambda: asked["now"]),
    ):
        headers, _ = http.handle_402_response(asked["headers"], asked["body"].encode(), "https://seller.example/")
    return {"headers": headers}


def main() -> None:
    facilitator = x402FacilitatorSync()
    signer = FacilitatorWeb3Signer(sys.argv[2], sys.argv[1], confirmation_timeout_seconds=20)
    register.register_exact_evm_facilitator(facilitator, signer, "eip155:8453")
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("ask")
        if what == "pay":
            told = pay(asked)
        elif what == "response":
            told = {"header": encode_payment_response_header(SettleResponse(**asked))}
        else:
            payload = decode_payment_signature_header(asked["header"])
            kind = PaymentRequirementsV1 if payload.x402_version == 1 else PaymentRequirements
            requirement = kind.model_validate(asked["requirement"])
            act = facilitator.verify if what == "verify" else facilitator.settle
            told = act(payload, requirement).model_dump(by_alias=True)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
