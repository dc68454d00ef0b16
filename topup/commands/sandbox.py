"""How is a refill shown without an account, a key or money? In a world of its own, for one refill or for many days."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

from topup.app.output import say
from topup.commands.answer import Answer
from topup.domain.errors import Exit, SettingsError


def answer(
    rail: str,
    pay_with: str,
    anvil: Path | None,
    keep: Path | None,
    *,
    fault: str | None,
    days: int | None,
    list_faults: bool,
    serve: bool,
    tell: Callable[[str], None],
) -> Answer:
    """Show a refill from end to end, or so many days of them; `tell` takes the lines of the story.

    Raises:
        SettingsError: something that it needs is not installed, not named or not known.
    """
    gc.enable()
    if days is not None and keep is None:
        raise SettingsError("--days leaves a ledger, and --keep does not say where", remedy="add --keep DIRECTORY")
    try:
        from topup.commands import demo, demo_days
        from topup.sandbox.faults import of_rail
    except ModuleNotFoundError as error:
        raise SettingsError(f"the sandbox needs {error.name}", remedy="pip install 'topup[sandbox]'") from None
    if days is not None and keep is not None:
        document, code = demo_days.live(keep, days=days, rail=rail, pay_with=pay_with, anvil=anvil, say=tell)
        return Answer(document, demo_days.summary(document, keep), code)
    faults = of_rail(rail, pay_with)
    if list_faults:
        each = faults.values()
        lines = [f"{one.name:<34} {one.expected_result:<12} exit {int(one.expected_exit)}  {one.says}" for one in each]
        return Answer({}, lines, Exit.OK)
    if fault is not None and fault not in faults:
        remedy = f"`topup sandbox --rail {rail} --list-faults` names them all"
        raise SettingsError(f"--fault {fault} is not known", remedy=remedy)
    if serve:
        return Answer({}, (), demo.serve(rail, pay_with, anvil, say))
    with tempfile.TemporaryDirectory(prefix="topup-sandbox-") as temporary:
        document, code = demo.perform(
            keep if keep is not None else Path(temporary),
            rail=rail,
            pay_with=pay_with,
            fault=faults[fault] if fault is not None else None,
            anvil=anvil,
            say=tell,
        )
    return Answer(document, demo.summary(document), code)
