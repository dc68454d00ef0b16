"""Who pays, who may be paid, and does the chain of each rail in use stand?"""

import asyncio
from contextlib import closing

from topup.app import assembly, keys
from topup.app.funding import funding, named
from topup.app.settings import Settings
from topup.commands.doctor import carried, contract
from topup.commands.doctor.finding import Check, failed, safely
from topup.domain.errors import TopupError
from topup.domain.notes import Note
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE


async def chains(settings: Settings) -> list[Check]:
    """Look at the wallet, the recipients, and each chain that is paid on."""
    # A keystore takes a second of computing to open; the other looks go on meanwhile.
    checks, wallet = await asyncio.to_thread(_wallet, settings)
    checks += _recipients(settings)
    looks = [
        safely("chain", contract.examined(settings, wallet))
        if rail == COINBASE
        else safely(f"{rail} chain", carried.examined(settings, funding(settings, rail), wallet))
        for rail in settings.rails_in_use
    ]
    for part in await asyncio.gather(*looks):
        checks += part
    return checks


def _wallet(settings: Settings) -> tuple[list[Check], bytes | None]:
    own = settings.wallet.address
    try:
        key = keys.signer(settings)
    except TopupError as error:
        return [failed("wallet", error)], bytes.fromhex(own[2:]) if own else None
    if key is not None:
        shown = "0x" + key.address.hex()
        if own is not None and own != shown:
            remedy = "correct or remove wallet.address"
            return [
                Check("wallet", ok=False, says=f"the key is {shown}, wallet.address says {own}", remedy=remedy)
            ], None
        return [Check("wallet", ok=True, says=f"the key opens: {shown}")], key.address
    if own is None:
        return [Check("wallet", ok=True, says="no key and no address: topup only watches")], None
    return [Check("wallet", ok=True, says=f"{own}, without a key: topup only watches")], bytes.fromhex(own[2:])


def _recipients(settings: Settings) -> list[Check]:
    checks = [_pinned(settings)] if COINBASE in settings.rails_in_use else []
    for payee in named(settings):
        says = (
            f"{len(payee.recipients)} named {payee.whose}" if payee.recipients else f"warning: anybody, {payee.whose}"
        )
        checks.append(Check(f"{payee.rail} recipients", ok=True, says=says, remedy=payee.remedy))
    return checks


def _pinned(settings: Settings) -> Check:
    try:
        with closing(SqliteStore.open_copy(settings.state_dir)) as store:
            learnt = store.told(settings.account, Note.PINNED)
    except TopupError as error:
        return failed("recipients", error)
    count = len(assembly.pins(settings, learnt).recipients)
    if count:
        return Check("recipients", ok=True, says=f"{count} pinned")
    live = settings.mode == "live"
    says = ("" if live else "warning: ") + "none is pinned, so every charge is refused"
    return Check("recipients", ok=not live, says=says, remedy="`topup pin`")
