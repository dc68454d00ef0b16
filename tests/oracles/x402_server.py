"""What does a seller on the x402 package look like? Credits for dollars, with its own resource server and facilitator.

    python x402_server.py --rpc URL --key 0x… --pay-to 0x… [--version 1|2] [--port 0]

`--key` pays the network's fees on Base's chain id behind URL. Once it listens, it prints its own URL as one line.

    POST /v1/credits/topup {"amount": "10"}   unpaid: 402; paid and settled on chain: 200 with the balance
    GET  /v1/credits/balance                  {"balance": 1000, "balance_usdc": "10.00"}

Amounts are whole dollars. The package has no resource server for version 1: there the offer is written here, and
verified and settled as in version 2.
"""

from __future__ import annotations

import argparse
import json
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from x402 import x402FacilitatorSync, x402ResourceServerSync  # type: ignore[import-not-found]
from x402.http.utils import (  # type: ignore[import-not-found]
    decode_payment_signature_header,
    encode_payment_required_header,
    encode_payment_response_header,
)
from x402.mechanisms.evm.exact import register  # type: ignore[import-not-found]
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer  # type: ignore[import-not-found]
from x402.schemas import ResourceConfig, ResourceInfo  # type: ignore[import-not-found]
from x402.schemas.v1 import PaymentRequiredV1, PaymentRequirementsV1  # type: ignore[import-not-found]

NETWORK = "eip155:8453"
TOPUP, BALANCE = "/v1/credits/topup", "/v1/credits/balance"


class Seller:
    """One account of credits, sold for dollars."""

    def __init__(self, rpc: str, key: str, pay_to: str, version: int) -> None:
        """Set the package's facilitator and resource server up, both in this process."""
        facilitator = x402FacilitatorSync()
        signer = FacilitatorWeb3Signer(key, rpc, confirmation_timeout_seconds=20)
        register.register_exact_evm_facilitator(facilitator, signer, NETWORK)
        self._server = x402ResourceServerSync(facilitator)
        register.register_exact_evm_server(self._server, NETWORK)
        self._server.initialize()
        self._pay_to, self._version = pay_to, version
        self._lock = threading.Lock()
        self.cents = 0

    def topup(self, amount: str, url: str, paid: str | None) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Return status, headers and body of the answer to a request with or without payment."""
        offered = self._offered(amount, url)
        if paid is None:
            return self._unpaid(offered, url, "payment required")
        payload = decode_payment_signature_header(paid)
        accepted = offered
        if self._version == 2:
            accepted = self._server.find_matching_requirements([offered], payload)
            if accepted is None:
                return self._unpaid(offered, url, "no matching requirements")
        verified = self._server.verify_payment(payload, accepted)
        if not verified.is_valid:
            return self._unpaid(offered, url, verified.invalid_reason)
        with self._lock:
            result = self._server.settle_payment(payload, accepted)
            if not result.success:
                return self._unpaid(offered, url, result.error_reason)
            self.cents += int(amount) * 100
        name = "PAYMENT-RESPONSE" if self._version == 2 else "X-PAYMENT-RESPONSE"
        return 200, {name: encode_payment_response_header(result)}, self.balance()

    def balance(self) -> dict[str, Any]:
        """Return the body of the answer to a question for the balance."""
        return {"balance": self.cents, "balance_usdc": f"{Decimal(self.cents) / 100:.2f}"}

    def _offered(self, amount: str, url: str) -> Any:
        asked = ResourceConfig(scheme="exact", pay_to=self._pay_to, price=f"${amount}", network=NETWORK)
        [offer] = self._server.build_payment_requirements(asked)
        if self._version == 2:
            return offer
        return PaymentRequirementsV1(
            scheme="exact",
            network="base",
            max_amount_required=offer.amount,
            resource=url,
            description="Credits",
            mime_type="application/json",
            pay_to=offer.pay_to,
            max_timeout_seconds=offer.max_timeout_seconds,
            asset=offer.asset,
            extra=offer.extra,
        )

    def _unpaid(self, offer: Any, url: str, error: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        if self._version == 1:
            document = PaymentRequiredV1(error=error, accepts=[offer])
            return 402, {}, document.model_dump(by_alias=True, exclude_none=True)
        resource = ResourceInfo(url=url, description="Credits", mime_type="application/json")
        document = self._server.create_payment_required_response([offer], resource, error)
        return 402, {"PAYMENT-REQUIRED": encode_payment_required_header(document)}, {"error": error}


def handler(seller: Seller) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == BALANCE:
                self._tell(200, {}, seller.balance())
            else:
                self._tell(404, {}, {"error": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))) or b"{}")
            amount = str(body.get("amount", ""))
            if self.path != TOPUP:
                self._tell(404, {}, {"error": "not found"})
            elif not (amount.isascii() and amount.isdigit() and int(amount)):
                self._tell(400, {}, {"error": "amount: a whole number of dollars"})
            else:
                url = f"http://{self.headers['host']}{TOPUP}"
                paid = self.headers.get("payment-signature") or self.headers.get("x-payment")
                self._tell(*seller.topup(amount, url, paid))

        def _tell(self, status: int, headers: dict[str, str], body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "content-type": "application/json", "content-length": len(raw)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """Keep quiet."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--pay-to", required=True)
    parser.add_argument("--version", type=int, choices=(1, 2), default=2)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    seller = Seller(asked.rpc, asked.key, asked.pay_to, asked.version)
    server = ThreadingHTTPServer(("127.0.0.1", asked.port), handler(seller))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
