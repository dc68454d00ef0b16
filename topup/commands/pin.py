"""Who would be paid? Asks for a charge without paying it, proves all of it but the recipient, and pins that by hand.

The recipient is the one thing a charge says that nothing else can prove: the operator signs whatever it is given.
So a person looks at it once. The charge costs nothing and is forgotten. Only Coinbase charges are pinned so; other
rails' recipients stand in the settings, see `topup.app.funding.named`.
"""

from contextlib import closing
from dataclasses import replace
from typing import Any

from topup.app.connections import Connections, opened
from topup.app.funding import named
from topup.app.keys import payer
from topup.app.output import warn
from topup.app.settings import Settings
from topup.commands.answer import Answer, labelled
from topup.commands.pause import note
from topup.commands.start import agreed, beside, load, wait_for
from topup.domain.coinbase_charge import Charge, Pins
from topup.domain.credits import HOUR_MS
from topup.domain.demand import Request
from topup.domain.errors import ApiGone, ChargeRefused, Exit, PaymentForbidden, SettingsError
from topup.domain.moments import moment
from topup.domain.money import Usd, Usdc
from topup.domain.notes import Note
from topup.domain.policy import Why
from topup.payment.config import COINBASE
from topup.ports.chain import Preflight
from topup.sellers.coinbase import Coinbase


def answer(*, yes: bool) -> Answer:
    """Show who would be paid; ask a person, unless `yes`, and pin the recipient of a Coinbase charge."""
    settings = load()
    others = named(settings)  # whose recipients stand in the settings; a charge is asked for where one is bought
    proposal = wait_for(propose(settings)) if COINBASE in settings.rails_in_use else None
    charge, lines = proposal if proposal is not None else ({"schema": 1}, [])
    document = charge | ({"settings": [rail.document() for rail in others]} if others else {})
    lines += [rail.line() for rail in others]
    if proposal is None:
        return Answer(document, lines, Exit.OK if all(rail.recipients for rail in others) else Exit.PERSON)
    if charge["known"]:
        return Answer(document, lines, Exit.OK)
    return Answer(document, lines, Exit.OK, then=lambda: _agreed(settings, charge["recipient"], yes=yes))


def _agreed(settings: Settings, recipient: str, *, yes: bool) -> Exit:
    if not agreed(f"pin {recipient} as the one to be paid?", yes=yes, otherwise="not pinned"):
        return Exit.PERSON
    remember(settings, recipient)
    warn(f"topup: pinned {recipient}")
    return Exit.OK


def remember(settings: Settings, recipient: str) -> None:
    """Pin a recipient beside those already pinned; a running daemon proves its next charge with it."""
    with closing(beside(settings)) as store:
        pinned = (store.told(settings.account, Note.PINNED) or "").split(",")
    wanted = [text for text in pinned if text and text != recipient] + [recipient]
    note(settings, Note.PINNED, ",".join(wanted))


async def propose(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Ask for a charge over the smallest amount and prove everything about it except its recipient.

    What was proven is returned as a document, which says whether the recipient is `known`, that is pinned already, and
    in lines. The request counts towards `policy.charges_per_hour`, so the ledger is created when there is none.

    Raises:
        SettingsError, SignerError: there is no API key or no wallet address.
        ApiError: no charge was to be had.
        ChargeRefused: something other than the recipient is wrong; nothing may be pinned from it.
        ChainError, PaymentForbidden: the chain could not confirm contract and time, or too many charges were requested.
    """
    sender = payer(settings)
    if sender is None:
        raise SettingsError("pinning needs the wallet's address", remedy="set wallet.address, or wallet.keystore")
    async with opened(settings, beside(settings)) as connections:
        asked = Request(Usd(settings.policy.topup_min), sender, settings.chain.id)
        pins, trusted = connections.pins(), set[bytes]()
        rail = connections.coinbase(lambda: replace(pins, recipients=pins.recipients | trusted))
        raw = await _charge(connections, rail, asked)
        demand = rail.read(raw)
        _payable(demand)
        # What comes of this is proven for showing alone and goes no further: its recipient was taken on trust.
        trusted.add(demand.intent.recipient)
        _, preflight = await rail.prove(raw, asked, seen=connections.store.seen_intents(""))
    return _proposal(demand, asked, pins, preflight)


async def _charge(connections: Connections, rail: Coinbase, asked: Request) -> bytes:
    settings, store, clock = connections.settings, connections.store, connections.clock
    account, now = settings.account, clock.now_ms()
    if COINBASE in store.control(account).gone:
        raise ApiGone(
            "the charge endpoint answered that it is gone (410, 404 or 501) and is not asked again",
            remedy="`topup resume` when it is back or another gateway is set",
        )
    count = len(store.charge_requests(account, now - HOUR_MS))
    if count >= settings.policy.charges_per_hour:
        raise PaymentForbidden(Why.CHARGE_RATE, f"{count} charges requested within an hour")
    store.ask_by_hand(account, now, HOUR_MS)
    try:
        return await rail.ask(asked)
    except ApiGone:
        store.set_gone(account, COINBASE, gone=True, at_ms=clock.now_ms())
        raise


def _payable(demand: Charge) -> None:
    """Refuse a recipient that nobody could want to pay."""
    intent = demand.intent
    never = {
        bytes(20): "the null address",
        demand.sender: "the paying wallet itself",
        demand.contract: "the payment contract",
        intent.recipient_currency: "the token's contract",
    }
    if intent.recipient in never:
        raise ChargeRefused(
            "call_data.recipient",
            f"0x{intent.recipient.hex()}, {never[intent.recipient]}",
            "somebody who sells credits",
            remedy="do not use this gateway",
        )


def _proposal(demand: Charge, asked: Request, pins: Pins, preflight: Preflight) -> tuple[dict[str, Any], list[str]]:
    intent = demand.intent
    deadline = moment(intent.deadline)
    recipient, contract, operator = (f"0x{a.hex()}" for a in (intent.recipient, demand.contract, intent.operator))
    left_h = (intent.deadline - preflight.head.timestamp_s) // 3600
    known = intent.recipient in pins.recipients
    split = f"{Usdc(intent.recipient_amount)} to the recipient, {intent.operator_fee} to the operator"
    standing = "pinned already" if known else "NOT PROVEN: only your own knowledge can say who this is"
    rows = {
        "charge": f"{demand.charge_id} over {asked.amount} dollars of credit, requested and not paid",
        "chain": f"{demand.chain_id}, as configured; newest block {preflight.head.number}",
        "contract": f"{contract}, as pinned; it has code with hash 0x{preflight.code_hash.hex()}",
        "operator": f"{operator}, as pinned; it signed exactly this charge for this wallet, chain and contract",
        "currency": f"0x{intent.recipient_currency.hex()}, the chain's USDC",
        "amount": f"{intent.total}: {split}; within the ceilings",
        "deadline": f"{deadline}, {left_h} h away; within bounds by the chain's clock and this machine's",
        "refund": f"0x{intent.refund_destination.hex()}, this wallet",
        "id": f"0x{intent.id.hex()}, never seen before",
        "recipient": f"{recipient}, {standing}",
    }
    document = {
        "schema": 1,
        "charge_id": demand.charge_id,
        "amount_usd": str(asked.amount),
        "chain_id": demand.chain_id,
        "contract": contract,
        "contract_code_hash": "0x" + preflight.code_hash.hex(),
        "operator": operator,
        "currency": "0x" + intent.recipient_currency.hex(),
        "total_usdc": str(intent.total.usdc),
        "fee_usdc": str(intent.operator_fee.usdc),
        "deadline_s": intent.deadline,
        "refund": "0x" + intent.refund_destination.hex(),
        "intent_id": "0x" + intent.id.hex(),
        "recipient": recipient,
        "known": known,
    }
    return document, labelled(10, rows)
