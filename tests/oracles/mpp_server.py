"""What does a seller on pympp look like? Ten dollars of credit for a machine payment on Tempo.

    python mpp_server.py RPC_URL RECIPIENT [--realm REALM] [--own-header] [--sponsor KEY]

It asks as the installed package asks unless told otherwise: no currency is named here. Once it listens, it prints its
own URL as one line. Any POST without a credential is answered with 402, one with a credential that was verified and
settled on chain with 202 and a receipt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from mpp import Challenge, MemoryStore  # type: ignore[import-not-found]
from mpp.errors import PaymentError  # type: ignore[import-not-found]
from mpp.server import Mpp  # type: ignore[import-not-found]

CHAIN_ID = 4217
# USDC.e, which a sponsor's fees are paid in here; of several it would choose by what it holds.
FEE_TOKEN = "0x20C000000000000000000000b9537d11c60E8b50"
SECRET = "no secret " * 4
Answer = tuple[int, list[tuple[str, str]], bytes]


class Client(httpx.AsyncClient):
    """Asks anvil, which knows no second parameter for sending a transaction and waiting for it.

    Nor does it know how to run a sponsored one dry: its one call is run dry there instead.
    """

    async def post(self, url: httpx.URL | str, **more: Any) -> httpx.Response:
        asked = more["json"]
        if asked["method"] == "eth_sendRawTransactionSync":
            del asked["params"][1:]
        if asked["method"] == "tempo_simulateV1":
            ((transaction,),) = [block["calls"] for block in asked["params"][0]["blockStateCalls"]]
            alone = {name: transaction[name] for name in ("from", "to", "data")}
            said = await super().post(url, json={**asked, "method": "eth_call", "params": [alone, "latest"]})
            status = "0x1" if "result" in said.json() else "0x0"
            content = {"jsonrpc": "2.0", "id": 1, "result": {"blocks": [{"calls": [{"status": status}]}]}}
            return httpx.Response(200, json=content, request=said.request)
        return await super().post(url, **more)


class Seller:
    """A seller as 0.16 makes one."""

    def __init__(self, told: argparse.Namespace) -> None:
        from mpp.methods.tempo import server as tempo  # type: ignore[import-not-found]

        methods = tempo.charge(
            recipient=told.recipient,
            chain_id=CHAIN_ID,
            rpc_url=told.rpc_url,
            http_client=Client(timeout=30),
            store=MemoryStore(),
            **sponsored(told, fee_token=FEE_TOKEN),
        )
        self._sponsors = {"fee_payer": True} if told.sponsor else {}
        self._mpp = Mpp(methods=methods, realm=told.realm, secret_key=SECRET, requires_auth=told.own_header)

    async def sold(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        from mpp.server import Request, Response

        result = await self._mpp.charge(amount="10", **self._sponsors)(Request("POST", url, headers.items(), body))
        paid = result.status == 200
        answer = result.with_receipt(Response.json({"id": "pi_1"}, status=202)) if paid else result.challenge
        return answer.status, list(answer.headers.multi_items()), answer.body or b""


class Older:
    """A seller as the versions before made one: they hand challenges out, and leave the answer to their caller."""

    def __init__(self, told: argparse.Namespace) -> None:
        from mpp.methods.tempo import ChargeIntent, tempo

        intent = ChargeIntent(rpc_url=told.rpc_url, http_client=Client(timeout=30), store=MemoryStore())
        method = tempo(
            intents={"charge": intent},
            chain_id=CHAIN_ID,
            rpc_url=told.rpc_url,
            recipient=told.recipient,
            **sponsored(told),
        )
        self._sponsors = {"fee_payer": True} if told.sponsor else {}
        realm = {} if told.realm is None else {"realm": told.realm}
        self._mpp = Mpp.create(method=method, secret_key=SECRET, requires_auth=told.own_header, **realm)

    async def sold(self, _: str, headers: dict[str, str], __: bytes) -> Answer:
        given = (headers.get("authorization"), headers.get("payment-authorization"))
        result = await self._mpp.charge(given[0], "10", payment_authorization=given[1], **self._sponsors)
        asked = [result] if isinstance(result, Challenge) else getattr(result, "challenges", None)
        if asked is None:
            _, receipt = result
            return 202, [("payment-receipt", receipt.to_payment_receipt())], json.dumps({"id": "pi_1"}).encode()
        return 402, [("www-authenticate", one.to_www_authenticate(self._mpp.realm)) for one in asked], b""


def sponsored(told: argparse.Namespace, **more: str) -> dict[str, Any]:
    """Return what makes a seller pay the fees, {} where it does not."""
    if not told.sponsor:
        return {}
    from mpp.methods.tempo import TempoAccount

    return {"fee_payer": TempoAccount.from_key(told.sponsor), **more}


def handler(seller: Seller | Older, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    """Return what speaks HTTP for the seller, which lives in this loop."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = seller.sold(f"http://{headers['host']}{self.path}", headers, body)
            try:
                status, said, content = asyncio.run_coroutine_threadsafe(asked, loop).result()
            except PaymentError as error:  # one that the package leaves to its caller
                status, said, content = 500, [], json.dumps({"error": repr(error)}).encode()
            self.send_response(status)
            for name, value in [*said, ("content-length", str(len(content)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Keep quiet."""

    return Handler


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("rpc_url")
    asked.add_argument("recipient")
    asked.add_argument("--realm")
    asked.add_argument("--own-header", action="store_true")
    asked.add_argument("--sponsor")
    told = asked.parse_args()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    try:
        from mpp.methods.tempo import server as _  # noqa: F401 - only whether there is one
    except ImportError:
        seller: Seller | Older = Older(told)
    else:
        seller = Seller(told)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(seller, loop))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
