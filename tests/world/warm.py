"""How does topup start a thousand times without loading a thousand times? Forked from a process that has it loaded.

Each is a process of its own, with its own environment, files and end, and can be killed like any other: only the time
that Python takes to import is saved, which is most of a short life.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# What `python -m` of these does, and what it loads on its way.
ENTRIES: Final = {"topup": ("topup.commands.cli", "main"), "tests.proofs.killed": ("tests.proofs.killed", "main")}
LOADED: Final = (
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
LOOK_S: Final = 0.02


class Forked:
    """A running process; speaks as much of `subprocess.Popen` as the tests use."""

    def __init__(self, pid: int, ended: dict[int, int]) -> None:
        self.pid = pid
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        return self._ended.get(self.pid)

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 600) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(LOOK_S)
        return code


class Warm:
    """The process that has everything loaded, and its children."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: list[int] = []
        self._told = threading.Condition()
        self._ended: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.world.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "code" in told:
                self._ended[told["pid"]] = told["code"]
            else:
                self._ended.pop(told["pid"], None)  # an older process of that number
                with self._told:
                    self._answers.append(told["pid"])
                    self._told.notify()

    def start(self, command: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> Forked:
        """Start `python -m MODULE ARGUMENTS` with its two outputs in files."""
        _, _, module, *arguments = command
        for path in (out, err):
            path.touch()
        asked = {"module": module, "arguments": arguments, "env": dict(environment), "out": str(out), "err": str(err)}
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            with self._told:
                if not self._told.wait_for(lambda: bool(self._answers), timeout=60):
                    raise RuntimeError("no process could be forked")
                return Forked(self._answers.pop(0), self._ended)


def takes(command: Sequence[str]) -> bool:
    """Tell whether this command can be forked."""
    return len(command) >= 3 and list(command[:2]) == [sys.executable, "-m"] and command[2] in ENTRIES


def _become(asked: dict[str, Any]) -> None:
    """Be the process that was asked for; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv = [asked["module"], *asked["arguments"]]
        module, function = ENTRIES[asked["module"]]
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


def main() -> None:
    """Load everything, then fork for each line on standard input, until it is closed."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([0], [], [], LOOK_S)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})
        if not ready:
            continue
        line = _line()
        if not line:
            return
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            _become(asked)
        _say({"pid": pid})


def _line() -> bytes:
    """Read one line without a buffer of our own: what is read ahead would be forgotten by select."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            break
        line += part
    return line


def _say(told: dict[str, int]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main()
