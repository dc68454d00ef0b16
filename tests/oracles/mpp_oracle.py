"""What would pympp do? Runs in its environment: one JSON question a line in, one JSON answer a line out.

    {"ask": "transaction", "key": "0x…", "root": null | "0x…", "fields": {…}}     → {"digest", "raw", "hash"}
    {"ask": "pay", "line": "Payment …", "key", "root", "gas_price", "now"}         → {"value": "Payment …"}
    {"ask": "issue", "realm", "request", …}                                        → {"line": "Payment …"}
    {"ask": "read", "line": "Payment …"}                                           → what it read, or {"refused"}
    {"ask": "verify", "value": "Payment …"}                                        → {"own": whether it issued that}
    {"ask": "memo", "realm", "id"}                                                 → {"memo": "0x…"}
    {"ask": "receipt", "reference"}                                                → {"value": …}

`fields` are those of pytempo's TempoTransaction, with `to` and `data` of its one call. Challenges are sealed with one
secret. Paying asks no chain: gas price and time are given, and the estimate of gas fails.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from unittest.mock import patch

from mpp import Challenge, Credential, Receipt  # type: ignore[import-not-found]
from mpp._parsing import ParseError  # type: ignore[import-not-found]
from mpp.methods.tempo import TempoAccount, _attribution  # type: ignore[import-not-found]
from mpp.methods.tempo import client as tempo
from mpp.methods.tempo.fee_payer_envelope import encode_fee_payer_envelope  # type: ignore[import-not-found]
from mpp.runtime import CredentialParams  # type: ignore[import-not-found]
from pytempo import Call, TempoTransaction  # type: ignore[import-not-found]

SECRET = "no secret"
CHAIN_ID = 4217
NAMES = ("id", "realm", "method", "intent", "expires", "digest", "description", "header", "request", "opaque")


def transaction(key: str, root: str | None, fields: dict[str, Any]) -> Any:
    call = Call.create(to=fields.pop("to"), data=fields.pop("data"))
    unsigned = TempoTransaction.create(**fields, calls=(call,))
    signed = unsigned.sign_access_key(key, root) if root else unsigned.sign(key)
    if unsigned.awaiting_fee_payer:
        payload = encode_fee_payer_envelope(signed)
        return {"digest": "0x" + unsigned.get_signing_hash().hex(), "raw": "0x" + payload.hex()}
    return {
        "digest": "0x" + unsigned.get_signing_hash().hex(),
        "raw": "0x" + signed.encode().hex(),
        "hash": "0x" + signed.hash().hex(),
    }


def pay(line: str, key: str, root: str | None, gas_price: int, now: int) -> Any:
    """Let the package's own client answer a challenge."""

    async def asked(_: str, method: str, __: list[Any]) -> str:
        return hex({"eth_chainId": CHAIN_ID, "eth_gasPrice": gas_price}[method])

    async def not_estimated(*_: Any) -> int:
        raise OSError

    account = TempoAccount.from_key(key)
    method = tempo.charge(account=account, chain_id=CHAIN_ID, root_account=root)
    with (
        patch.object(tempo, "_rpc_call", asked),
        patch.object(tempo, "estimate_gas", not_estimated),
        patch("time.time", lambda: now),
    ):
        params = CredentialParams(challenge=Challenge.from_www_authenticate(line))
        return {"value": asyncio.run(method.create_credential(params))}


def read(line: str) -> Any:
    """Tell how the package reads a header line with one challenge."""
    try:
        challenge = Challenge.from_www_authenticate(line)
    except ParseError as refused:
        return {"refused": str(refused)}
    echo = challenge.to_echo()
    return {name: getattr(echo, name) for name in NAMES} | {"demanded": challenge.request}


def verify(value: str) -> Any:
    """Tell whether the challenge that a credential echoes is one of ours, and what pays."""
    credential = Credential.from_authorization(value)
    echo = credential.challenge
    said = (
        (name, getattr(echo, name).replace("\\", "\\\\").replace('"', '\\"')) for name in NAMES if getattr(echo, name)
    )
    line = "Payment " + ", ".join(f'{name}="{value}"' for name, value in said)
    own = Challenge.from_www_authenticate(line).verify(SECRET, echo.realm)
    return {"own": own, "payload": credential.payload, "source": credential.source}


def issue(realm: str, request: dict[str, Any], **more: Any) -> Any:
    challenge = Challenge.create(
        secret_key=SECRET, realm=realm, method="tempo", intent="charge", request=request, **more
    )
    return {"line": challenge.to_www_authenticate(realm)}


def memo(realm: str, id: str) -> Any:  # noqa: A002 - so it is called in a question
    return {"memo": _attribution.encode(challenge_id=id, server_id=realm)}


def receipt(**asked: Any) -> Any:
    return {"value": Receipt.success(**asked).to_payment_receipt()}


ANSWERS = {one.__name__: one for one in (transaction, pay, read, verify, issue, memo, receipt)}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(ANSWERS[asked.pop("ask")](**asked)), flush=True)


if __name__ == "__main__":
    main()
