"""How is a refill shown without an account, a key or money? In a world of its own, for one refill or for many days."""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from topup.app.output import say
from topup.commands.answer import Answer
from topup.domain.errors import Exit, SettingsError

EXTRA: Final = (
    "install topup[sandbox], by the way topup came: pipx install --force 'topup[sandbox]', uv tool install "
    "'topup[sandbox]', pip install 'topup[sandbox]'"
)


@contextmanager
def _installed() -> Iterator[None]:
    """Say how the embedded chain's packages are had where they are missing; they are loaded where it is built."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "topup").partition(".")[0] == "topup":
            raise
        raise SettingsError(f"the sandbox's chain is not installed: there is no {error.name}", remedy=EXTRA) from None


@_installed()
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
    """Show a refill from end to end, or so many days of them; `tell` takes the lines of the story."""
    gc.enable()
    if days is not None and keep is None:
        raise SettingsError("--days leaves a ledger, and --keep does not say where", remedy="add --keep DIRECTORY")
    from topup.commands import demo
    from topup.commands.demo_ground import ground
    from topup.sandbox.faults import of_rail

    if days is not None and keep is not None:
        document, code = demo.live(ground(rail, pay_with, anvil), keep, days=days, say=tell)
        return Answer(document, demo.summary_of_days(document, keep), code)
    faults = of_rail(rail, pay_with)
    if list_faults:
        each = [(known, f"exit {int(known.expected_exit)}") for known in faults.values()]
        return Answer({}, [f"{f.name:<34} {f.expected_result:<12} {code}  {f.says}" for f, code in each], Exit.OK)
    if fault is not None and fault not in faults:
        remedy = f"`topup sandbox --rail {rail} --list-faults` names them all"
        raise SettingsError(f"--fault {fault} is not known", remedy=remedy)
    on = ground(rail, pay_with, anvil)
    if serve:
        return Answer({}, (), demo.serve(on, say))
    with tempfile.TemporaryDirectory(prefix="topup-sandbox-") as temporary:
        directory = keep if keep is not None else Path(temporary)
        document, code = demo.perform(on, directory, fault=faults[fault] if fault is not None else None, say=tell)
    return Answer(document, demo.summary(document), code)
