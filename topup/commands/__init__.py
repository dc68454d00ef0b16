"""What a person runs, one file a command. Each is loaded when it is first asked for: most are slow to load."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topup.commands import (
        backup,
        check,
        completion,
        config_show,
        doctor,
        forecast,
        fund,
        history,
        init,
        ledger_verify,
        mcp,
        notify_test,
        offers,
        once,
        pause,
        pin,
        reconcile,
        resolve,
        restore,
        run,
        sandbox,
        show,
        statement,
        status,
        usage,
        wallet_address,
        wallet_check,
        wallet_import,
        wallet_limit,
        wallet_new,
    )


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_"):
        raise AttributeError(name)
    if not {"asyncio", "pydantic_settings"} & set(sys.modules):
        # pydantic-settings loads it for command lines of its own; a command that waits for nobody can do without.
        sys.modules["asyncio"] = ModuleType("asyncio")
        try:
            del import_module("pydantic_settings.main").asyncio
        finally:
            del sys.modules["asyncio"]
    return import_module(f"{__name__}.{name}")
