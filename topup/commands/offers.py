"""What does a seller demand, before anything is paid? `topup doctor --rail`: an offer, decoded and judged; it is free.

What a seller's pages do not tell is seen here by the first user: every way to pay as it came, which one would be paid,
and every line of its proof with the setting that decides it. Asked twice under one purchase, it shows whether challenge
and recipient stay the same. What was not seen is null, and nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topup.app import assembly
from topup.app.connections import Connections, opened
from topup.app.settings import Settings
from topup.commands import x402_look
from topup.commands.answer import Answer, to_do
from topup.commands.start import load, wait_for
from topup.commands.x402_look import line_of
from topup.domain.demand import Demand, Finding, Request
from topup.domain.errors import ChargeRefused, Exit, PaymentForbidden, SettingsError, TopupError
from topup.domain.json_document import read
from topup.domain.money import Usd
from topup.payment.config import MPP, X402
from topup.sellers import x402
from topup.sellers.mpp import Mpp


def answer(rail: str) -> Answer:
    """Show what this rail's seller demands for the next refill, unpaid; PERSON where it would not be paid."""
    settings = load()
    document = wait_for(look(settings, rail, Usd(settings.policy.fixed_amount or settings.policy.topup_min)))
    return Answer(document, lines(document), Exit.OK if document["fits"] else Exit.PERSON)


async def look(settings: Settings, name: str, amount: Usd) -> dict[str, Any]:
    """Ask twice for an offer over `amount`, pay neither, and return what came, decoded and judged.

    Raises:
        SettingsError: this rail has no offers to look at, or something to ask with is missing.
        ApiError: the seller did not answer with an offer.
    """
    if name not in (MPP, X402):
        raise SettingsError(f"--rail {name} has no free offer", remedy="mpp or x402; `topup pin` shows a charge")
    async with opened(settings) as connections:
        wallet = connections.payer
        if wallet is None:
            raise SettingsError("no wallet is set", remedy="set wallet.address, or wallet.keystore")
        rail = connections.rail(name)
        assert isinstance(rail, Mpp | x402.X402)
        texts = await rail.texts() if isinstance(rail, Mpp) else {}
        asked = Request(amount, wallet, rail.chain_id, "doctor")
        offers = [_offer(rail, await rail.ask(asked), asked) for _ in range(2)]
        proof = await _proof(rail, await rail.ask(asked), asked)
        about = await _about(connections, wallet) if isinstance(rail, x402.X402) else {}
    recipients = [offer.get("recipient") for offer in offers]
    return {
        "schema": 1,
        "rail": name,
        "asked_usd": str(amount),
        **about,
        "texts": texts,
        "offer": offers[0],
        "same_recipient": None if None in recipients else recipients[0] == recipients[1],
        "fits": proof is None,
        "proof": "every line fits; nothing was paid" if proof is None else str(proof),
        "remedy": "" if proof is None else proof.remedy,
    }


async def _about(connections: Connections, wallet: bytes) -> dict[str, Any]:
    """Return whose record the seller is asked by, and what the wallet's code means; None where nobody said."""
    rpcs = connections.providers(connections.settings.chain.rpc_urls)
    return {"seller": assembly.seller(connections.settings).says(), "wallet": await x402_look.code(rpcs, wallet)}


def _offer(rail: Mpp | x402.X402, raw: bytes, asked: Request) -> dict[str, Any]:
    """Decode what came, as far as it can be."""
    if isinstance(rail, Mpp):
        came, ways = {"challenges": read(raw)["challenges"]}, _ways(rail, raw, asked)
    else:
        came, ways = x402_look.came(raw), {"ways": x402_look.ways(rail, raw, asked)}
    try:
        demand = rail.read(raw)
    except ChargeRefused as error:
        return {"came": came, "refused": str(error), "remedy": error.remedy, **ways}
    return {
        "came": came,
        **_asked_for(demand),
        "lines": [line_of(line) for line in _all(rail, raw, asked)],
        **ways,
    }


def _asked_for(demand: Demand) -> dict[str, Any]:
    return {
        "id": demand.charge_id,
        "chain_id": demand.chain_id,
        "token": "0x" + demand.contract.hex(),
        "recipient": "0x" + demand.recipient.hex(),
        "amount": str(demand.total.usdc),
        "ends_s": demand.deadline,
    }


def _all(rail: Mpp | x402.X402, raw: bytes, asked: Request) -> list[Finding]:
    """Return every line of what would be paid: of a machine payment, those of every rail too."""
    if isinstance(rail, x402.X402):
        return rail.findings(raw, asked)
    chosen = rail.read(raw).challenge.id
    return [line for way in rail.judged(raw, asked) if way.challenge.id == chosen for line in way.lines]


def _ways(rail: Mpp, raw: bytes, asked: Request) -> dict[str, Any]:
    """Decode every challenge: what it asks for as far as that can be read, whether it would be paid, and why not."""
    kept = read(raw)
    try:
        judged = rail.judged(raw, asked)
    except ChargeRefused:
        return {"ways": None, "left_out": kept["left_out"]}  # two readings: what it says of each is not known
    ways: list[dict[str, Any]] = []
    for offered in judged:
        way: dict[str, Any] = {
            "method": shown(offered.challenge.get("method")),
            "intent": shown(offered.challenge.get("intent")),
            "id": shown(offered.challenge.id),
            "paid": offered.challenge.id == kept.get("chosen"),
            "refused": None if offered.wrong is None else str(offered.wrong),
            "remedy": "" if offered.wrong is None else offered.wrong.remedy,
            "lines": [line_of(line) for line in offered.lines],
        }
        ways.append(way if offered.due is None else way | _asked_for(offered.due))
    return {"ways": ways, "left_out": kept["left_out"]}


def shown(text: str) -> str:
    """Return foreign text as one short line of ASCII."""
    return ascii(text)[1:-1][:80]


async def _proof(rail: Mpp | x402.X402, raw: bytes, asked: Request) -> TopupError | None:
    """Return what the whole proof says, by both clocks; None when it fits."""
    try:
        await rail.prove(raw, asked, seen=())
    except (ChargeRefused, PaymentForbidden) as error:
        return error
    except TopupError as error:
        return TopupError(f"not judged to the end: {error}", remedy=error.remedy)
    return None


def lines(document: Mapping[str, Any]) -> list[str]:
    """Return a look for a terminal."""
    offer = document["offer"]
    apart = ("came", "lines", "ways", "remedy", "left_out")
    head = [f"{name:<10} {value}" for name, value in offer.items() if name not in apart]
    came = [f"{name[:-1]:<10} {_printed(text)}" for name, texts in offer["came"].items() for text in texts]
    texts = [_printed(line) for path, text in document["texts"].items() for line in (f"--- {path}", *text.splitlines())]
    ways = [line for number, way in enumerate(offer.get("ways") or (), 1) for line in _way(number, way)]
    judged = [] if ways else [_judged(line) for line in offer.get("lines", ())]
    who = [f"{name:<10} {document[name]}" for name in ("seller", "wallet") if document.get(name)]
    left = [f"left out   {offer['left_out']} headers that are no plain ASCII"] if offer.get("left_out") else []
    again = {None: "no recipient was read", True: "the same recipient", False: "another recipient"}
    return [
        *who,
        *texts,
        *came,
        *head,
        *ways,
        *judged,
        *left,
        f"again      {again[document['same_recipient']]} when asked again",
        f"proof      {document['proof']}",
        *([f"to do      {document['remedy']}"] if document["remedy"] else []),
    ]


def _printed(text: str) -> str:
    """Return foreign text whole, without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _way(number: int, way: Mapping[str, Any]) -> list[str]:
    """Return one challenge or offer for a terminal."""
    what = "an offer that cannot be read" if way["method"] is None else f"{way['method']} {way['intent']}"
    payment_status = "would be paid" if way["paid"] else f"not paid: {way['refused']}" if way["refused"] else "not paid"
    asks = f", {way['amount']} of {way['token']} to {way['recipient']}" if "amount" in way else ""
    remedy = [f"           to do: {way['remedy']}"] if way["remedy"] and not way["lines"] else []
    return [f"way {number:<6} {what}{asks}: {payment_status}", *remedy, *map(_judged, way["lines"])]


def _judged(line: Mapping[str, Any]) -> str:
    """Return one line of a proof for a terminal."""
    if line["right"]:
        return f"{'ok':<7} {line['field']}: {line['was']}"
    return f"{'NOT SO':<7} {line['field']}: {line['was']}, it should be {line['should_be']}{to_do(line['remedy'])}"
