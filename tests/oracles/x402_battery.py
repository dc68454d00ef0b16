"""What does the field's retry-safety battery find? Runs in its environment: a JSON question a line in, an answer out.

    {"ask": "selftest"}                                   → {"valid": true, "said": "…"}: the tool's own control
    {"ask": "test", "command": ["…"], "json": "path"}     → {"code": 1, "said": "…"}: the tool's own run of a buyer
    {"ask": "stand", "mode": "…"}                         → {"url": "…"}: a seller before a facilitator in this mode
    {"ask": "leave"}                                      → {"settle_calls": 2, "distinct": 1}: and it ends
    {"ask": "official", "mode": "…", "key": "0x…"}        → {"status": 200 | null, "tries": 2}: the package's own client

Started as `python x402_battery.py RPC_URL FACILITATOR_KEY PAY_TO TIMEOUT_S FOLDER`.

`hostile-facilitator` plays the facilitator, the x402 package's own seller stands before it with its own defaults, and
what the facilitator settles is mirrored on the chain behind RPC_URL before it answers: a real transfer of USDC, once
for each nonce, carried by the package's own facilitator. A seller's URL is left in FOLDER under its facilitator's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from hostile_facilitator import adapter, cli  # type: ignore[import-not-found]
from x402 import x402Client, x402FacilitatorSync  # type: ignore[import-not-found]
from x402.http import FacilitatorConfig, HTTPFacilitatorClient  # type: ignore[import-not-found]
from x402.http.clients.httpx import wrapHttpxWithPayment  # type: ignore[import-not-found]
from x402.mechanisms.evm.exact import register  # type: ignore[import-not-found]
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer  # type: ignore[import-not-found]
from x402.schemas import PaymentPayload, PaymentRequirements  # type: ignore[import-not-found]
from x402_server import NETWORK, Shop  # type: ignore[import-not-found]

RPC_URL, CARRIER, PAY_TO = sys.argv[1:4]
TIMEOUT_S, FOLDER = float(sys.argv[4]), Path(sys.argv[5])
TRIES_MAX = 3


class Mirror:
    """Carries what a facilitator says it settled to the chain, once for each nonce."""

    def __init__(self) -> None:
        self._facilitator = x402FacilitatorSync()
        signer = FacilitatorWeb3Signer(CARRIER, RPC_URL, confirmation_timeout_seconds=20)
        register.register_exact_evm_facilitator(self._facilitator, signer, NETWORK)
        self._turn = threading.Lock()
        self._seen: set[str] = set()

    def settle(self, body: dict[str, Any]) -> None:
        payload = PaymentPayload.model_validate(body["paymentPayload"])
        with self._turn:
            nonce = str(body["paymentPayload"]["payload"]["authorization"]["nonce"])
            if nonce in self._seen:
                return
            done = self._facilitator.settle(payload, PaymentRequirements.model_validate(body["paymentRequirements"]))
            if not done.success:
                raise RuntimeError(f"the chain refused what the facilitator settles: {done.error_reason}")
            self._seen.add(nonce)


MIRROR = Mirror()


class Mirrored(adapter.HostileServer):  # type: ignore[misc]
    """The tool's own server, whose settlements stand on the chain, with a seller in front of it."""

    shop: Shop

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        base: Any = super()._handler()

        class Handler(base):  # type: ignore[misc]
            def _read(self) -> Any:
                body = super()._read()
                if self.path.rstrip("/").endswith("/settle"):
                    MIRROR.settle(body)
                return body

        return Handler

    def __enter__(self) -> Any:
        super().__enter__()
        config = FacilitatorConfig(url=f"http://127.0.0.1:{self.port}", timeout=TIMEOUT_S)
        self.shop = Shop(HTTPFacilitatorClient(config), PAY_TO)
        (FOLDER / f"shop-{self.port}").write_text(self.shop.url)
        return self

    def __exit__(self, *more: object) -> None:
        self.shop.close()
        super().__exit__(*more)


def printed(arguments: list[str]) -> tuple[int, str]:
    """Run one of the tool's own commands; return its exit code and what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(arguments)
    return int(code), said.getvalue()


async def bought(url: str, key: str) -> dict[str, Any]:
    """Buy once by the package's own client; whoever is not told of a success asks again, twice at most."""
    paying = x402Client()
    paying.set_spend_controls(False)
    register.register_exact_evm_client(paying, Account.from_key(key))
    tries, status = 0, None
    while tries < TRIES_MAX and status != 200:
        tries += 1
        async with wrapHttpxWithPayment(paying, timeout=TIMEOUT_S) as client:
            try:
                status = (await client.post(f"{url}/v1/credits/topup", json={"amount": "10"})).status_code
            except (httpx.HTTPError, Exception) as error:  # noqa: BLE001 - whatever it is, the buyer was told of no success
                status = None
                print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
    return {"status": status, "tries": tries}


def main() -> None:
    adapter.HostileServer = cli.HostileServer = Mirrored
    standing: Mirrored | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        told: Any = {}
        match asked["ask"]:
            case "selftest":
                code, said = printed(["selftest"])
                told = {"valid": code == 0, "said": said}
            case "test":
                options = ["--client-timeout", str(TIMEOUT_S), "--json", asked["json"]]
                code, said = printed(["test", *options, "--", *asked["command"]])
                told = {"code": code, "said": said}
            case "stand":
                standing = Mirrored(mode=asked["mode"], client_timeout_s=TIMEOUT_S)
                standing.__enter__()
                told = {"url": standing.shop.url}
            case "leave":
                assert standing is not None
                told = {"settle_calls": standing.settle_calls, "distinct": standing.distinct_payments}
                standing.__exit__()
            case "official":
                with Mirrored(mode=asked["mode"], client_timeout_s=TIMEOUT_S) as server:
                    told = asyncio.run(bought(server.shop.url, asked["key"]))
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
