"""What does a seller demand, before anything is paid? `topup doctor --rail`: an offer, decoded and judged; it is free.

What a seller's pages do not tell is seen here by the first user: every parameter as it came, and every line of the
proof. Asked twice under one purchase, it shows whether challenge and recipient stay the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from topup import assemble
from topup.budget import Budget
from topup.charge import Finding, Request
from topup.check import payer
from topup.clock import SystemClock
from topup.errors import ChargeRefused, PaymentForbidden, SettingsError, TopupError
from topup.events import Event
from topup.exchange import Exchange
from topup.money import Usd
from topup.rails.mpp import Mpp
from topup.rails.x402 import X402
from topup.settings import Settings
from topup.store.sqlite import SqliteStore


class Quiet:
    """A sink for a look that leaves nothing behind."""

    def emit(self, event: Event) -> None:
        """Take an event, and say nothing."""


async def look(settings: Settings, name: str, amount: Usd) -> dict[str, Any]:
    """Ask twice for an offer over `amount`, pay neither, and return what came, decoded and judged.

    Raises:
        SettingsError: this rail has no offers to look at, or something to ask with is missing.
        ApiError: the seller did not answer with an offer.
    """
    if name not in assemble.BUILDERS or name == "coinbase":
        raise SettingsError(f"--rail {name} has no free offer", remedy="mpp or x402; `topup pin` shows a charge")
    wallet = payer(settings)
    if wallet is None:
        raise SettingsError("no wallet is set", remedy="set wallet.address, or wallet.keystore")
    clock = SystemClock()
    store = SqliteStore.open_copy(settings.state_dir)
    client, rpcs = assemble.api(settings, clock, store), assemble.providers(settings)
    opened, sellers = list(rpcs), list[Exchange]()
    rail = assemble.BUILDERS[name](
        assemble.Parts(settings, client, rpcs, opened, sellers, None, clock, store, Quiet(), Budget(clock))
    )
    assert isinstance(rail, Mpp | X402)
    try:
        texts = await rail.texts() if isinstance(rail, Mpp) else {}
        asked = Request(amount, wallet, rail.chain_id, "doctor")
        offers = [_offer(rail, await rail.ask(asked), asked) for _ in range(2)]
        proof = await _proof(rail, await rail.ask(asked), asked)
    finally:
        for seller in sellers:
            await seller.close()
        await client.close()
        for rpc in opened:
            await rpc.close()
        store.close()
    first, second = offers
    return {
        "schema": 1,
        "rail": name,
        "asked_usd": str(amount),
        "texts": texts,
        "offer": first,
        "same_recipient": first.get("recipient") is not None and first.get("recipient") == second.get("recipient"),
        "fits": proof == "",
        "proof": proof or "every line fits; nothing was paid",
    }


def _offer(rail: Mpp | X402, raw: bytes, asked: Request) -> dict[str, Any]:
    """Decode what came, as far as it can be."""
    came = {k: v for k, v in json.loads(raw).items() if k in ("challenges", "headers")}
    try:
        demand = rail.read(raw)
    except ChargeRefused as error:
        return {"came": came, "refused": str(error)}
    return {
        "came": came,
        "id": demand.charge_id,
        "chain_id": demand.chain_id,
        "token": "0x" + demand.contract.hex(),
        "recipient": "0x" + demand.recipient.hex(),
        "amount": str(demand.total.usdc),
        "ends_s": demand.deadline,
        "lines": [_line(one) for one in rail.findings(raw, asked)],
    }


def _line(finding: Finding) -> dict[str, Any]:
    return {"field": finding.field, "was": finding.was, "should_be": finding.should_be, "right": finding.right}


async def _proof(rail: Mpp | X402, raw: bytes, asked: Request) -> str:
    """Return what the whole proof says, by both clocks; "" when it fits."""
    try:
        await rail.prove(raw, asked, seen=())
    except (ChargeRefused, PaymentForbidden) as error:
        return str(error)
    except TopupError as error:
        return f"not judged to the end: {error}"
    return ""


def lines(told: Mapping[str, Any]) -> list[str]:
    """Return a look for a terminal."""
    offer = told["offer"]
    shown = [f"{name:<10} {value}" for name, value in offer.items() if name not in ("came", "lines")]
    came = [f"{name[:-1]:<10} {one}" for name, many in offer["came"].items() for one in many]
    judged = [
        f"{'ok' if one['right'] else 'NOT SO':<7} {one['field']}: {one['was']}"
        + ("" if one["right"] else f", it should be {one['should_be']}")
        for one in offer.get("lines", ())
    ]
    texts = [line for path, text in told["texts"].items() for line in (f"--- {path}", *text.splitlines())]
    again = "the same recipient when asked again" if told["same_recipient"] else "another recipient when asked again"
    return [*texts, *came, *shown, *judged, f"again      {again}", f"proof      {told['proof']}"]
