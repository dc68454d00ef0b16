"""Two writers over one ledger: one that stops itself where a test wants it, and one that takes over."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import tests.world.served
from tests.world.served import PATIENCE_S, Running, Served, until
from topup.domain.lifecycle import State

STORE = "topup.ledger.store:SqliteStore"
RAIL = "topup.sellers.coinbase:Coinbase"
UNDER_TEST = [sys.executable, "-m", "tests.world.writer_under_test"]


@dataclass
class Duel:
    """Two writers over one ledger, and every transaction that was handed to the provider."""

    place: Served
    raw: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        async def taken(method: str, params: Any, honest: Callable[[], Any]) -> Any:
            if method == "eth_sendRawTransaction":
                self.raw.append(params[0])
            return honest()

        self.place.world.rpc.intercept = taken

    def stopped(self, *hook: str, command: tuple[str, ...] = ("run",)) -> Running:
        """Start a command that stops itself at the hook, and wait until it has."""
        with mock.patch.object(tests.world.served, "TOPUP", [*UNDER_TEST, "stop", *hook]):
            one = self.place.start(*command)
        until(lambda: _state(one.process.pid) == "T" or one.process.poll() is not None, one.log)
        assert one.process.poll() is None, one.log()
        return one

    def break_lock(self) -> None:
        """Take the lock file away, so that whoever comes next makes and holds one of its own."""
        (self.place.state / "lock").unlink()

    def second(self) -> Running:
        return self.place.start("run")

    def fenced(self, first: Running) -> dict[str, Any]:
        """Let the stopped one go on; it ends by itself, and says that it was taken over and what to do."""
        first.process.send_signal(signal.SIGCONT)
        code = first.process.wait(timeout=PATIENCE_S)
        (told,) = first.told("cycle_failed")
        assert (code, told["kind"]) == (1, "StoreFenced"), first.log()
        assert told["remedy"]
        return told

    def paid_once(self) -> None:
        """One payment, one transaction of the wallet, books that match; all that ever left is in the ledger."""
        (topup,) = self.place.topups()
        assert topup.state is State.DONE
        assert self.place.payments() == 1
        assert self.place.books_match()
        world = self.place.world
        wallet = "0x" + world.wallet.removeprefix("0x")
        assert int(world.do(lambda: world.chain.rpc("eth_getTransactionCount", [wallet, "latest"])), 16) == 1
        kept = {"0x" + a.raw.hex() for a in topup.attempts if a.raw is not None and a.intended_ms is not None}
        assert set(self.raw) <= kept


def _state(process: int) -> str:
    """How the kernel says a process stands: R, S, T for stopped."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
