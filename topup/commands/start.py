"""How does a command begin? It reads options and settings, opens the ledger, and waits for whom it asks."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from topup.app import exposure, settings
from topup.app.output import warn
from topup.app.settings import Settings
from topup.domain.errors import SettingsError
from topup.domain.money import Usd

if TYPE_CHECKING:  # what only asks for the settings opens no ledger
    from topup.ledger.store import SqliteStore

T = TypeVar("T")


def load() -> Settings:
    """Read the settings, and close their file where a key was open to others; see `settings.load`, `exposure.close`."""
    found = settings.load()
    if mended := exposure.close(os.environ):
        warn(f"topup: {mended}")
    return found


def read_ledger() -> tuple[Settings, SqliteStore, int]:
    """Read the settings and open the ledger beside whoever writes it; return both, and its time, which may be ahead.

    Raises:
        SettingsError, StoreError: the settings are wrong, or the ledger cannot be read.
    """
    from topup.ledger.store import SqliteStore
    from topup.wire.clock import SystemClock

    found = load()
    store = SqliteStore.open_reader(found.state_dir)
    return found, store, store.now_ms(SystemClock().now_ms())


def beside(found: Settings) -> SqliteStore:
    """Open the ledger beside whoever writes it, and create it where there is none."""
    from topup.ledger.store import SqliteStore

    if not SqliteStore.exists(found.state_dir):
        SqliteStore.open_writer(found.state_dir).close()
    return SqliteStore.open_reader(found.state_dir)


def dollars_of(text: str | None) -> Usd | None:
    """Read --amount: whole cents, and no more of them than a treasury holds; else a SettingsError."""
    if text is None:
        return None
    try:
        amount = Usd.of(text)
        plain = all(c in "0123456789." for c in text)
        sound = plain and 0 < amount.amount < 10**9 and amount == amount.cents_down()
    except ValueError:
        sound = False
    if not sound:
        raise SettingsError(
            f"--amount {text[:40]} is no amount to buy", remedy="give dollars and cents: --amount 12.50"
        )
    return amount


def agreed(question: str, *, yes: bool, otherwise: str, about: Sequence[str] = ()) -> bool:
    """Ask on a terminal, below what it is `about`, unless a person has agreed before; else warn: it is `otherwise`."""
    import typer

    if yes:
        return True
    if sys.stdin.isatty():
        if about:
            warn("\n".join(about))
        return typer.confirm(question, err=True)
    warn(f"topup: {otherwise}: pass --yes, or answer on a terminal")
    return False


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    gc.enable()  # whatever waits may go on for long
    return asyncio.run(work)
