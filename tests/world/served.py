"""How does a test run topup's commands? As processes of their own, against a world served to them on loopback."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from tests.tools import HANGS_S, outside
from tests.world import warm
from tests.world.stage import payments, spent_in_books
from topup.commands.cli import app
from topup.domain.lifecycle import TopUp
from topup.ledger.store import SqliteStore
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

Done = subprocess.CompletedProcess[str]
TOPUP = [sys.executable, "-m", "topup"]
# A condition that does not come true within this many real seconds never does, however slow the machine is.
PATIENCE_S = 120
# What stands so many blocks deep is final on the embedded chain.
FINAL = 6
# The machine's own clock rules here, so what can be quick is quick.
HASTE = {
    "TOPUP_CONFIG": os.devnull,
    "TOPUP_WATCH__STALENESS_S": "0",
    "TOPUP_WATCH__POLL_FASTEST_S": "1",
    "TOPUP_POSTING__POLL_S": "1",
    "TOPUP_POSTING__RESEND_S": "2",
}


def until(condition: Callable[[], Any], told: Callable[[], object] = str, patience_s: float = PATIENCE_S) -> None:
    """Wait until this is so; say what was told when it never is."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


def asked(state: Path, *arguments: str, **settings: str) -> Result:
    """Run a command in this process, on the ledger in this directory and with these settings alone."""
    hidden = dict.fromkeys(name for name in os.environ if name.startswith("TOPUP_"))  # None: not set
    own = {"TOPUP_STATE_DIR": str(state), "TOPUP_CONFIG": os.devnull} | settings
    return CliRunner().invoke(app, arguments, env=hidden | own)


def events_of(log: str) -> list[dict[str, Any]]:
    """Return the events among the lines of a standard error in JSON."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def ran(command: Sequence[str], environment: Mapping[str, str], timeout_s: float = HANGS_S) -> Done:
    """Run one command to its end, without the time that Python takes to load it where it can be forked."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = began(command, environment, out, err)
        try:
            code = process.wait(timeout=timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, code, out.read_text("utf-8"), err.read_text("utf-8"))


def began(
    command: Sequence[str], environment: Mapping[str, str], out: Path, err: Path, *, cold: bool = False
) -> subprocess.Popen[bytes] | warm.Forked:
    """Start one command; forked, unless `cold`: what /proc says of a fork's beginning is its parent's."""
    if not cold and warm.takes(command):
        return warm.start(command, environment, out, err)
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)


@dataclass
class Running:
    """A command that goes on in the background, its two outputs in files."""

    process: subprocess.Popen[bytes] | warm.Forked
    out: Path
    err: Path

    def log(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        """The events it has logged in whole lines so far."""
        return events_of(self.log().rpartition("\n")[0])

    def told(self, name: str, **fields: object) -> list[dict[str, Any]]:
        return [e for e in self.events() if e["event"] == name and all(e.get(k) == v for k, v in fields.items())]

    def await_event(self, name: str, **fields: object) -> dict[str, Any]:
        """Wait until it says this; return the first such event. It will not come once a pass or the process failed."""

        def said_or_ended() -> bool:
            return bool(self.told(name, **fields) or self.told("cycle_failed")) or self.process.poll() is not None

        until(said_or_ended, self.log)
        found = self.told(name, **fields)  # what was said in its last moment counts
        assert found, f"no {name} {fields}, exit code {self.process.poll()}:\n{self.log()}"
        return found[0]

    def killed(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, patience_s: float = PATIENCE_S) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=patience_s)


@dataclass
class Served:
    """A world, an empty state directory, and every process started beside them."""

    world: World
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)
    cold: bool = False

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def environment(self, **changes: str | None) -> dict[str, str]:
        """Return a process's environment; `changes` are settings such as policy__floor="20", None removes one."""
        own = {"TOPUP_STATE_DIR": str(self.state)}
        made = outside() | HASTE | self.world.environment() | own | self.settings
        for name, value in changes.items():
            variable = name if name.isupper() else f"TOPUP_{name.upper()}"
            made.pop(variable, None)
            if value is not None:
                made[variable] = value
        return made

    def run(self, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        return ran([*TOPUP, *arguments], self.environment(**changes))

    def document(self, *arguments: str, **changes: str | None) -> Any:
        """Run one command with --json and return its one document, whatever its exit code, which it tells truly."""
        done = self.run(*arguments, "--json", **changes)
        assert done.stdout, done.stderr
        told = json.loads(done.stdout, parse_float=no_float)
        assert told.get("exit_code", done.returncode) == done.returncode, done.stderr
        return told

    def start(self, *arguments: str, **changes: str | None) -> Running:
        return self.launch([*TOPUP, *arguments], **changes)

    def launch(self, command: Sequence[str], **changes: str | None) -> Running:
        stem = self.directory / f"process-{len(self.started)}"
        out, err = stem.with_suffix(".out"), stem.with_suffix(".err")
        process = began(command, self.environment(**changes), out, err, cold=self.cold)
        self.started.append(Running(process, out, err))
        return self.started[-1]

    def end(self) -> None:
        for running in self.started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait(timeout=PATIENCE_S)

    def low(self) -> None:
        account = self.world.gateway.account
        self.world.do(lambda: account.set_usage(account.total_credits - Decimal(9)))

    def high(self) -> None:
        account = self.world.gateway.account
        self.world.do(lambda: account.set_usage(account.total_credits - Decimal(15)))

    def spoil(self, place: Any, fault: str, times: int | None = None) -> None:
        self.world.do(lambda: self.world.gateway.switch_on(place, fault, times))

    def mend(self) -> None:
        self.world.do(self.world.gateway.switch_off)

    def mine(self, count: int = FINAL) -> None:
        """Let so many blocks pass that what was newest is final."""
        self.world.do(lambda: [self.world.chain.mine() for _ in range(count)])

    def buy(self) -> None:
        """Buy 10 dollars of credit, and let the payment become final."""
        done = self.run("once", "--amount", "10", "--yes", "--force")
        assert done.returncode == 0, done.stdout + done.stderr
        self.mine()

    def payments(self) -> int:
        return payments(self.world)

    def topups(self) -> list[TopUp]:
        with closing(SqliteStore.open_reader(self.state)) as store:
            return store.latest("default", 100)

    def books_match(self) -> bool:
        """Tell whether the journal says of the wallet what the chain says."""
        with closing(SqliteStore.open_reader(self.state)) as store:
            booked = sum(spent_in_books(store).values())
        return self.world.wallet_wei - self.world.do(lambda: self.world.balance(self.world.wallet)) == booked


def no_float(text: str) -> Any:
    raise AssertionError(f"{text} is a float")


@contextmanager
def served(directory: Path, *, posting_delay_ms: int = 300) -> Iterator[Served]:
    """Serve a world well above its floor at the machine's own pace, a block a second; end every process with it."""
    directory.mkdir(parents=True, exist_ok=True)
    world = World(
        embedded,
        conduct=Conduct(posting_delay_ms=posting_delay_ms),
        usage_usd=Decimal(5),
        burn_usd_per_hour=Decimal(0),
    )
    world.tick_s = 1.0
    with world:
        made = Served(world, directory)
        try:
            yield made
        finally:
            made.end()
