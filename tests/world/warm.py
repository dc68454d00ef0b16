"""How does topup start a thousand times without loading a thousand times? Forked from a process that has it loaded.

Each is a process of its own, with its own environment, files and end, and can be killed like any other: only the time
that Python takes to import is saved, which is most of a short life. The process that they are forked from is
multiprocessing's; it begins with the first of them, and ends with this one.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Final

# What `python -m` of these does, and what it loads on its way.
ENTRIES: Final = {"topup": ("topup.commands.cli", "main"), "tests.proofs.killed": ("tests.proofs.killed", "main")}
LOADED: Final = (
    __name__,
    "asyncio",
    "tests.proofs.killed",
    "topup.app.connections",
    "topup.chain.contract_chain",
    "topup.chain.token_chain",
    "topup.commands.cli",
    "topup.app.daemon",
    "topup.sellers.openrouter",
    "topup.sellers.x402_account",
    "topup.sellers.coinbase",
    "topup.sellers.mpp",
    "topup.sellers.x402",
    "topup.app.settings",
    "topup.signers.local",
    "topup.app.log",
    "topup.ledger.store",
)
FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*LOADED])
# What multiprocessing knows of its processes is not made for several threads.
ONE_AT_A_TIME: Final = threading.Lock()
LOOK_S: Final = 0.02


class Forked:
    """A running process; speaks as much of `subprocess.Popen` as the tests use."""

    def __init__(self, process: ForkServerProcess, pid: int) -> None:
        self._process, self.pid = process, pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with ONE_AT_A_TIME:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 600) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(LOOK_S)
        return code


def takes(command: Sequence[str]) -> bool:
    return len(command) >= 3 and list(command[:2]) == [sys.executable, "-m"] and command[2] in ENTRIES


def start(command: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> Forked:
    """Start `python -m MODULE ARGUMENTS` with its two outputs in files."""
    for path in (out, err):
        path.touch()
    process = FORKS.Process(target=_become, args=(command[2:], dict(environment), out, err), daemon=True)
    with ONE_AT_A_TIME:
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("nothing that a child would load again")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
    assert process.pid is not None
    return Forked(process, process.pid)


def _become(words: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> None:
    """Be the process that was asked for; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, out, os.O_WRONLY | os.O_TRUNC),
            (2, err, os.O_WRONLY | os.O_TRUNC),
        ):
            opened = os.open(path, flags)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [*words]
        module, function = ENTRIES[words[0]]
        getattr(importlib.import_module(module), function)()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - what Python itself would print
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
