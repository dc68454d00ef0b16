"""Is everything in place? One line a check, one remedy a failure; nothing is spent, signed or requested.

The settings come first, because everything depends on them; then ledger, API, key files and providers are looked
at beside each other. What depends on something that failed is skipped and says so.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from topup.app.exposure import settings_file
from topup.app.settings import load
from topup.commands.answer import Answer
from topup.commands.doctor import account, machine, wallet
from topup.commands.doctor.finding import Check, failed, safely, skipped, summed
from topup.commands.start import wait_for
from topup.domain.errors import Exit, TopupError

__all__ = ["Check", "answer", "examine"]

LATER: Final = ("ledger", "api", "key files", "wallet", "recipients", "providers")


def answer() -> Answer:
    """Check that everything is in place; PERSON where anything is not."""
    checks = wait_for(examine(os.environ))
    sound = all(check.ok for check in checks)
    summary = summed(checks)
    document = {"schema": 1, "ok": sound, "checks": [c.document() for c in checks], "summary": summary.document()}
    return Answer(document, [*(check.line() for check in checks), summary.line()], Exit.OK if sound else Exit.PERSON)


async def examine(environ: Mapping[str, str]) -> list[Check]:
    """Look at everything; never raises, and a defect of one look is a failed check."""
    try:
        settings = load(environ)
    except TopupError as error:
        return [failed("settings", error), *skipped(LATER, "the settings cannot be read")]
    checks = [Check("settings", ok=True, says=f"mode {settings.mode}, account {settings.account}")]
    checks.append(machine.ways(settings))
    if (file := settings_file(environ)) is not None and file.wrong:
        checks.append(machine.opened(file))
    ledger = await safely("ledger", machine.ledger(settings))
    parts = await asyncio.gather(
        safely("api", account.api(settings)),
        safely("key files", machine.keys(settings)),
        safely("chain", wallet.chains(settings)),
    )
    for part in (ledger, *parts):
        checks += part
    return checks
