"""What would the x402 package do? Runs in its environment: one JSON question a line in, one JSON answer a line out.

{"ask": "pay", "key": …, "headers": {…}, "body": "…", "nonce": "0x…", "now": 1}  → {"headers": {…}}
{"ask": "response", "success": true, "transaction": "0x…", …}                    → {"header": "…"}
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest.mock import patch

from eth_account import Account
from x402 import x402ClientSync  # type: ignore[import-not-found]
from x402.http import x402HTTPClientSync  # type: ignore[import-not-found]
from x402.http.utils import encode_payment_response_header  # type: ignore[import-not-found]
from x402.mechanisms.evm.exact import client, register  # type: ignore[import-not-found]
from x402.mechanisms.evm.exact.v1 import client as client_v1  # type: ignore[import-not-found]
from x402.schemas import SettleResponse  # type: ignore[import-not-found]


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
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("ask")
        told = pay(asked) if what == "pay" else {"header": encode_payment_response_header(SettleResponse(**asked))}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
