"""What does a seller demand, before anything is paid? `topup doctor --rail`: an offer, decoded and judged; it is free.

What a seller's pages do not tell is seen here by the first user: every way to pay as it came, which one would be paid,
and every line of its proof with the setting that decides it. Asked twice under one purchase, it shows whether challenge
and recipient stay the same; of a wallet with code, who judges its signatures. What was not seen is null, and nothing is
said of it.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from topup.accounting.formats.text import printable
from topup.app import assembly
from topup.app.connections import opened
from topup.app.settings import Settings
from topup.chain.providers import first
from topup.chain.rpc import Rpc, unhex
from topup.chain.wallet_state import of_code
from topup.commands.answer import Answer, to_do
from topup.commands.start import load, wait_for
from topup.domain.demand import Demand, Finding, Request
from topup.domain.errors import ChainError, ChargeRefused, Exit, PaymentForbidden, SettingsError, TopupError
from topup.domain.json_document import read
from topup.domain.money import Usd
from topup.payment.config import MPP, X402
from topup.sellers import x402
from topup.sellers.mpp import Mpp

CODE_REMEDY: Final = "pay from a wallet without code, or make sure that its code takes the key's signatures"
BODY_SHOWN_MAX: Final = 4_000


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
        about: dict[str, str | None] = {}
        if isinstance(rail, x402.X402):
            rpcs = connections.providers(settings.chain.rpc_urls)
            about = {"seller": assembly.seller(settings).says(), "wallet": await code(rpcs, wallet)}
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


def _offer(rail: Mpp | x402.X402, raw: bytes, asked: Request) -> dict[str, Any]:
    if isinstance(rail, Mpp):
        came, ways = {"challenges": read(raw)["challenges"]}, _ways(rail, raw, asked)
    else:
        came, ways = _came(raw), {"ways": _offers(rail, raw, asked)}
    try:
        demand = rail.read(raw)
    except ChargeRefused as error:
        return {"came": came, "refused": str(error), "remedy": error.remedy, **ways}
    return {
        "came": came,
        **_asked_for(demand),
        "lines": [_line(line) for line in _all(rail, raw, asked)],
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
    kept = read(raw)
    try:
        judged = rail.judged(raw, asked)
    except ChargeRefused:
        return {"ways": None, "left_out": kept["left_out"]}  # two readings: what it says of each is not known
    ways = []
    for offered in judged:
        challenge = offered.challenge
        way = _judgement(offered.lines, offered.wrong, paid=challenge.id == kept.get("chosen"))
        way |= {name: shown(challenge.get(name)) for name in ("method", "intent")} | {"id": shown(challenge.id)}
        ways.append(way if offered.due is None else way | _asked_for(offered.due))
    return {"ways": ways, "left_out": kept["left_out"]}


def _offers(rail: x402.X402, raw: bytes, asked: Request) -> list[dict[str, Any]] | None:
    try:
        judged, chosen = rail.offered(raw, asked)
    except ChargeRefused:
        return None
    ways = []
    for offered in judged:
        wrong = next((line.refusal() for line in offered.lines if not line.right), None)
        # The one that is near is chosen, too, so that the proof can say what is wrong with it: it is not paid.
        paid = offered.payable and offered.index == chosen
        way = _judgement(offered.lines, wrong, paid=paid) | {"place": f"accepts[{offered.index}]"}
        if offered.payable and not paid:
            twice = f"it means the same payment as accepts[{chosen}], which comes first"
            other = "another offer can be paid as well, and means another payment"
            way["refused"] = other if chosen is None else twice
        if (offer := offered.offer) is not None:
            way |= {
                "method": offer.scheme[:80],
                "intent": offer.network[:80],
                "chain_id": offer.chain_id,
                "token": "0x" + offer.asset.hex(),
                "recipient": "0x" + offer.pay_to.hex(),
                "amount": rail.would_pay(offer, raw, asked),
            }
        ways.append(way)
    return ways


def _judgement(lines: Iterable[Finding], wrong: ChargeRefused | None, *, paid: bool) -> dict[str, Any]:
    return {
        "method": None,
        "intent": None,
        "paid": paid,
        "refused": None if wrong is None else str(wrong),
        "remedy": "" if wrong is None else wrong.remedy,
        "lines": [_line(line) for line in lines],
    }


def _line(finding: Finding) -> dict[str, Any]:
    return {
        "field": finding.field,
        "was": finding.was,
        "should_be": finding.should_be,
        "right": finding.right,
        "remedy": "" if finding.right else finding.remedy,
    }


def _came(raw: bytes) -> dict[str, Any]:
    """Return an answer as it came: the header that carries the offers, or else the body."""
    kept = read(raw)
    if kept["headers"]:
        return {"headers": kept["headers"]}
    return {"bodies": [base64.b64decode(kept["body"]).decode("utf-8", "replace")[:BODY_SHOWN_MAX]]}


async def code(rpcs: Sequence[Rpc], wallet: bytes) -> str | None:
    """Return what the wallet's code means for its signatures: "" without any, None where no provider told."""

    async def read_code(rpc: Rpc) -> bytes:
        return unhex(await rpc.read("eth_getCode", "0x" + wallet.hex(), "latest"), "the wallet's code")

    try:
        held = await first(rpcs, read_code)
    except ChainError:
        return None
    return of_code(held) if held else ""


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
    came = [f"{name[:-1]:<10} {printable(text)}" for name, texts in offer["came"].items() for text in texts]
    said = (line for path, text in document["texts"].items() for line in (f"--- {path}", *text.splitlines()))
    ways = [line for number, way in enumerate(offer.get("ways") or (), 1) for line in _way(number, way)]
    judged = [] if ways else [_judged(line) for line in offer.get("lines", ())]
    who = [f"{name:<10} {document[name]}" for name in ("seller", "wallet") if document.get(name)]
    left = [f"left out   {offer['left_out']} headers that are no plain ASCII"] if offer.get("left_out") else []
    again = {None: "no recipient was read", True: "the same recipient", False: "another recipient"}
    return [
        *who,
        *map(printable, said),
        *came,
        *head,
        *ways,
        *judged,
        *left,
        f"again      {again[document['same_recipient']]} when asked again",
        f"proof      {document['proof']}",
        *([f"to do      {document['remedy']}"] if document["remedy"] else []),
    ]


def _way(number: int, way: Mapping[str, Any]) -> list[str]:
    what = "an offer that cannot be read" if way["method"] is None else f"{way['method']} {way['intent']}"
    payment_status = "would be paid" if way["paid"] else f"not paid: {way['refused']}" if way["refused"] else "not paid"
    asks = f", {way['amount']} of {way['token']} to {way['recipient']}" if "amount" in way else ""
    remedy = [f"           to do: {way['remedy']}"] if way["remedy"] and not way["lines"] else []
    return [f"way {number:<6} {what}{asks}: {payment_status}", *remedy, *map(_judged, way["lines"])]


def _judged(line: Mapping[str, Any]) -> str:
    if line["right"]:
        return f"{'ok':<7} {line['field']}: {line['was']}"
    return f"{'NOT SO':<7} {line['field']}: {line['was']}, it should be {line['should_be']}{to_do(line['remedy'])}"
