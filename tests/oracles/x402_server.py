"""What does a seller on the x402 package look like? Ten dollars of credit for ten of USDC, by the package's middleware.

    python x402_server.py RPC_URL FACILITATOR_KEY PAY_TO

Its facilitator runs in the same process, and the key pays the network's fees. Once it listens, it prints its own URL.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI  # type: ignore[import-not-found]
from x402 import x402Facilitator, x402ResourceServer  # type: ignore[import-not-found]
from x402.http import PaymentOption, RouteConfig  # type: ignore[import-not-found]
from x402.http.middleware.fastapi import PaymentMiddlewareASGI  # type: ignore[import-not-found]
from x402.mechanisms.evm.exact import ExactEvmServerScheme, register  # type: ignore[import-not-found]
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer  # type: ignore[import-not-found]

NETWORK, PRICE, BEGINS_CENTS, PRICE_CENTS = "eip155:8453", "$10", 100, 1000


class Shop:
    """The package's own seller, in a thread of its own."""

    def __init__(self, facilitator: Any, pay_to: str) -> None:
        self._cents, self._paid = BEGINS_CENTS, set[str]()
        server = x402ResourceServer(facilitator)
        server.register(NETWORK, ExactEvmServerScheme())
        server.on_after_settle(self._settled)
        app = FastAPI()

        @app.post("/v1/credits/topup")  # type: ignore[untyped-decorator]
        async def topup() -> dict[str, Any]:
            return {"ordered": True}

        @app.get("/v1/credits/balance")  # type: ignore[untyped-decorator]
        async def balance() -> dict[str, Any]:
            return {"balance": self._cents, "balance_usdc": f"{self._cents / 100:.2f}"}

        option = PaymentOption(scheme="exact", pay_to=pay_to, price=PRICE, network=NETWORK)
        routes = {"POST /v1/credits/topup": RouteConfig(accepts=[option])}
        app.add_middleware(PaymentMiddlewareASGI, server=server, routes=routes)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
        self.thread = threading.Thread(target=self._server.run, daemon=True)
        self.thread.start()
        while not self._server.started:
            self.thread.join(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def _settled(self, context: Any) -> None:
        """Credit what the facilitator says is settled, once for each transaction."""
        said = context.result
        if said.success and said.transaction not in self._paid:
            self._paid.add(said.transaction)
            self._cents += PRICE_CENTS

    def close(self) -> None:
        self._server.should_exit = True
        self.thread.join(5)


if __name__ == "__main__":
    facilitator, (rpc_url, key, pay_to) = x402Facilitator(), sys.argv[1:]
    signer = FacilitatorWeb3Signer(key, rpc_url, confirmation_timeout_seconds=20)
    register.register_exact_evm_facilitator(facilitator, signer, NETWORK)
    shop = Shop(facilitator, pay_to)
    print(shop.url, flush=True)
    shop.thread.join()
