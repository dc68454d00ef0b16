"""What does a seller on pympp look like? Ten dollars of credit for a machine payment on Tempo.

    python mpp_server.py RPC_URL CURRENCY RECIPIENT

Once it listens, it prints its own URL as one line. Any POST without a credential is answered with 402, one with a
credential that was verified and settled on chain with 202 and a receipt.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from mpp import MemoryStore  # type: ignore[import-not-found]
from mpp.errors import PaymentError  # type: ignore[import-not-found]
from mpp.methods.tempo import server as tempo  # type: ignore[import-not-found]
from mpp.server import Mpp, Request, Response  # type: ignore[import-not-found]

CHAIN_ID = 4217


class Client(httpx.AsyncClient):
    """Asks anvil, which knows no second parameter for sending a transaction and waiting for it."""

    async def post(self, url: httpx.URL | str, **more: Any) -> httpx.Response:
        asked = more["json"]
        if asked["method"] == "eth_sendRawTransactionSync":
            del asked["params"][1:]
        return await super().post(url, **more)


def handler(seller: Mpp, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    """Return what speaks HTTP for the seller, which lives in this loop."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            request = Request("POST", f"http://{self.headers['host']}{self.path}", self.headers.items(), body)
            try:
                answer = asyncio.run_coroutine_threadsafe(self.sold(request), loop).result()
            except PaymentError as error:  # one that the package leaves to its caller
                answer = Response.json({"error": repr(error)}, status=500)
            self.send_response(answer.status)
            for name, value in [*answer.headers.multi_items(), ("content-length", str(len(answer.body or b"")))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body or b"")

        async def sold(self, request: Request) -> Response:
            result = await seller.charge(amount="10")(request)
            if result.status != 200:
                return result.challenge
            return result.with_receipt(Response.json({"id": "pi_1"}, status=202))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Keep quiet."""

    return Handler


def main() -> None:
    """Serve until killed."""
    rpc_url, currency, recipient = sys.argv[1:]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    methods = tempo.charge(
        recipient=recipient,
        chain_id=CHAIN_ID,
        rpc_url=rpc_url,
        currencies=[currency],
        http_client=Client(timeout=30),
        store=MemoryStore(),
    )
    seller = Mpp(methods=methods, realm="openrouter.ai", secret_key="no secret " * 4, requires_auth=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(seller, loop))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
