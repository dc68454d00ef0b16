"""How long is the way from decision to accepted payment, and what does it cost? `python -m benchmarks.path [--json]`.

One run measures topup, with every proof and durable write, beside plain web3.py, which does only charge → call →
build → sign → send → receipt, against the same world over the same connections, round by round in turn. What counts
is the ratio of the two: both suffer alike from the machine. The clock starts when the decision is committed (plain:
before the charge is asked for) and stops at the provider's answer to eth_sendRawTransaction. Nothing is mined
meanwhile; blocks come between the measurements.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from topup.ledger.store import SqliteStore

ROOT = Path(__file__).parent.parent
ANVIL = ROOT / "tests/npm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
RTTS_MS = [0, 50]
AMOUNT = "10"
PLAIN_VALUE_WEI = 37 * 10**14
PASSES_MAX = 10
IDLE_CYCLES = 4
DAEMON_S_MAX = 60
HEAVY = ("web3", "eth_abi", "eth_account", "eth_keys", "eth_utils", "httpx", "py_ecc", "eth")
COMMANDS = (["--help"], ["status"], ["config", "show"])
# Every purchase is wanted at once: what spaces purchases out and caps them stands open.
OPEN = {
    "TOPUP_POLICY__COOLDOWN_S": "0",
    "TOPUP_POLICY__CAP_24H": "100000",
    "TOPUP_POLICY__CAP_30D": "100000",
    "TOPUP_POLICY__COUNT_24H": "1000",
    "TOPUP_POLICY__CHARGES_PER_HOUR": "1000",
    "TOPUP_WATCH__STALENESS_S": "0",
    "TOPUP_CONFIG": os.devnull,
}


class World:
    """The other process; see benchmarks/world.py."""

    def __init__(self, anvil: Path | None, *, mining: bool, rtts_ms: list[int]) -> None:
        """Start it; return once it listens."""
        options = [f"--rtt-ms={rtt}" for rtt in rtts_ms]
        options += ["--mining"] if mining else []
        options += [f"--anvil={anvil}"] if anvil is not None else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.world", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.said: dict[str, Any] = self._line()
        self.ahead_ms = 0
        self._follow(self.said)

    def __enter__(self) -> Self:
        """It is up already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.communicate(timeout=30)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def _follow(self, told: dict[str, Any]) -> None:
        """Keep this process's clock with the world's, which leaps when it mines."""
        if "now_ms" in told:
            self.ahead_ms = told["now_ms"] - time.time_ns() // 1_000_000

    def tell(self, word: str) -> dict[str, Any]:
        """Let it do one of its acts."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        told = self._line()
        self._follow(told)
        return told

    def environment(self, rtt_ms: int, directory: Path) -> dict[str, str]:
        """Return the settings of a topup that speaks to it over `rtt_ms`, with its ledger in `directory`."""
        own: dict[str, str] = self.said["environment"]
        urls = self.said["proxies"][str(rtt_ms)]
        return own | {
            "TOPUP_API__URL": urls["api"],
            "TOPUP_CHAIN__RPC_URLS": urls["rpc"],
            "TOPUP_STATE_DIR": str(directory),
        }

    # The `Clock` port.

    def now_ms(self) -> int:
        """Return the world's time."""
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def monotonic_ms(self) -> int:
        """Return the world's time: it never runs backwards."""
        return self.now_ms()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass
class Lap:
    """What one purchase cost. Times in nanoseconds; requests as (rpc, api); commits of the ledger; modules loaded."""

    ns: int = 0
    cpu_ns: int = 0
    requests: tuple[int, int] = (0, 0)
    commits: int = 0
    loads: int = 0
    total_cpu_ns: int = 0
    total_requests: tuple[int, int] = (0, 0)
    total_commits: int = 0


@dataclass
class Mark:
    """A moment: wall and CPU time in nanoseconds; requests as (rpc, api), commits and modules loaded so far."""

    ns: int
    cpu_ns: int
    requests: tuple[int, int]
    commits: int
    modules: int


class Watched:
    """A ledger that notes when the decision stood in it, and when the provider's answer came to be written."""

    def __init__(self, store: Any, mark: Callable[[], Mark]) -> None:
        """Pass everything on to `store`."""
        self._store, self._mark = store, mark
        self.decided: Mark | None = None
        self.accepted: Mark | None = None

    def __getattr__(self, name: str) -> Any:
        """Note the moment around the two writes that bound the way."""
        real = getattr(self._store, name)
        if name == "begin":

            def begun(*arguments: Any) -> Any:
                result = real(*arguments)
                self.decided = self._mark()
                return result

            return begun
        if name == "delivered":
            self.accepted = self.accepted or self._mark()
        return real


class Silent:
    """A sink for nobody."""

    def emit(self, event: object) -> None:
        """Forget it."""


@dataclass
class Commits:
    """Counts what SQLite commits; in WAL mode with synchronous = FULL each commit is one fsync."""

    count: int = 0

    def watch(self, connection: Any) -> None:
        """Look at every statement of this connection."""
        connection.set_trace_callback(self._see)

    def _see(self, statement: str) -> None:
        self.count += statement == "COMMIT"


class Topup:
    """The product: a real cycle on a real ledger on disk."""

    def __init__(self, world: World, rtt_ms: int, directory: Path) -> None:
        """Build it from settings, as `topup run` does."""
        from topup.app.connections import Connections
        from topup.app.settings import load
        from topup.ledger.store import SqliteStore as Ledger

        self._world = world
        self._commits = Commits()
        self._ledger = Ledger.open_writer(directory)
        self._commits.watch(self._ledger._db)  # noqa: SLF001 - statements are seen on the connection alone
        self._watched = Watched(self._ledger, self._mark)
        environment = world.environment(rtt_ms, directory) | OPEN | {"TOPUP_WATCH__KEY_RECHECK_S": "31536000"}
        self._works = Connections(load(environment), cast("SqliteStore", self._watched), Silent(), world)

    def _mark(self) -> Mark:
        requests = (sum(rpc.requests for rpc in self._works.rpcs), self._works.api.requests)
        return Mark(time.perf_counter_ns(), time.process_time_ns(), requests, self._commits.count, len(sys.modules))

    async def buy(self) -> Lap:
        """Buy once, from decision to done, with blocks in between."""
        from topup.domain.lifecycle import State
        from topup.domain.money import Usd
        from topup.payment.config import PurchaseOrder

        self._watched.decided = self._watched.accepted = None
        rest = await self._works.cycle.run(PurchaseOrder(Usd.of(AMOUNT)))
        for _ in range(PASSES_MAX):
            if rest.topup is None or rest.topup.state is State.DONE:
                break
            self._world.tell("mine")
            rest = await self._works.cycle.run()
        if rest.topup is None or rest.topup.state is not State.DONE:
            raise RuntimeError(f"no purchase: {rest.outcome}, {rest.why}: {rest.detail}")
        began, sent, ended = self._watched.decided, self._watched.accepted, self._mark()
        assert began is not None
        assert sent is not None
        lap = Lap(sent.ns - began.ns, sent.cpu_ns - began.cpu_ns, _less(sent.requests, began.requests))
        lap.commits, lap.loads = sent.commits - began.commits, sent.modules - began.modules
        lap.total_cpu_ns = ended.cpu_ns - began.cpu_ns
        lap.total_requests, lap.total_commits = _less(ended.requests, began.requests), ended.commits - began.commits
        return lap

    async def idle(self) -> Lap:
        """Make one pass in which nothing is due."""
        began = self._mark()
        await self._works.cycle.run()
        ended = self._mark()
        lap = Lap(ended.ns - began.ns, ended.cpu_ns - began.cpu_ns, _less(ended.requests, began.requests))
        lap.commits = ended.commits - began.commits
        return lap

    async def close(self) -> None:
        """Close what is open."""
        await self._works.close()
        self._ledger.close()


class Plain:
    """The same purchase as a tutorial has it: requests for the charge, web3.py for the rest, nothing proven or kept."""

    def __init__(self, world: World, rtt_ms: int) -> None:
        """Make session, provider, account and contract once."""
        import requests
        from eth_account import Account
        from web3 import Web3

        from topup.chain.contracts import interface

        self._world = world
        environment = world.environment(rtt_ms, Path())
        self._url, self._key = environment["TOPUP_API__URL"], environment["TOPUP_API__KEY"]
        self._session = requests.Session()
        self._session.trust_env = False
        self._web3 = Web3(Web3.HTTPProvider(environment["TOPUP_CHAIN__RPC_URLS"]))
        self._account = Account.from_key(world.said["second_key"])
        self._abi = interface("payment_protocol")

    def buy(self) -> Lap:
        """Buy once; the requests are those the world counted."""
        before = self._world.tell("counts")
        began_ns, began_cpu = time.perf_counter_ns(), time.process_time_ns()
        tx_hash = self._send(self._charge())
        ns, cpu_ns = time.perf_counter_ns() - began_ns, time.process_time_ns() - began_cpu
        sent = self._world.tell("counts")
        self._world.tell("mine")
        began_cpu = time.process_time_ns()
        receipt = self._web3.eth.wait_for_transaction_receipt(tx_hash)
        if receipt["status"] != 1:
            raise RuntimeError("the plain payment reverted")
        total_cpu = cpu_ns + time.process_time_ns() - began_cpu
        after = self._world.tell("counts")
        return Lap(ns, cpu_ns, _told(sent, before), total_cpu_ns=total_cpu, total_requests=_told(after, before))

    def _charge(self) -> dict[str, Any]:
        answer = self._session.post(
            f"{self._url}/credits/coinbase",
            json={"amount": int(AMOUNT), "sender": self._account.address, "chain_id": 8453},
            headers={"authorization": f"Bearer {self._key}"},
            timeout=20,
        )
        charge: dict[str, Any] = answer.json()["data"]["web3_data"]["transfer_intent"]
        return charge

    def _send(self, charge: dict[str, Any]) -> Any:
        from datetime import datetime

        from web3 import Web3

        said = charge["call_data"]
        contract = self._web3.eth.contract(
            address=Web3.to_checksum_address(charge["metadata"]["contract_address"]), abi=self._abi
        )
        deadline = said["deadline"]
        intent = {
            "recipientAmount": int(said["recipient_amount"]),
            "deadline": int(deadline) if deadline.isdigit() else int(datetime.fromisoformat(deadline).timestamp()),
            "recipient": Web3.to_checksum_address(said["recipient"]),
            "recipientCurrency": Web3.to_checksum_address(said["recipient_currency"]),
            "refundDestination": Web3.to_checksum_address(said["refund_destination"]),
            "feeAmount": int(said["fee_amount"]),
            "id": said["id"],
            "operator": Web3.to_checksum_address(said["operator"]),
            "signature": said["signature"],
            "prefix": said["prefix"],
        }
        payment = contract.functions.swapAndTransferUniswapV3Native(intent, 500)
        terms: Any = {"from": self._account.address, "value": PLAIN_VALUE_WEI}
        payment.call(terms)
        terms["nonce"] = self._web3.eth.get_transaction_count(self._account.address)
        built: Any = payment.build_transaction(terms)
        signed = self._account.sign_transaction(built)
        return self._web3.eth.send_raw_transaction(signed.raw_transaction)


def _less(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] - b[0], a[1] - b[1]


def _told(after: dict[str, int], before: dict[str, int]) -> tuple[int, int]:
    return after["rpc"] - before["rpc"], after["api"] - before["api"]


async def race(world: World, rtt_ms: int, rounds: int, directory: Path) -> dict[str, Any]:
    """Buy in turn, after one purchase each that warms up; return the figures of both and their ratios."""
    topup, ours, theirs = Topup(world, rtt_ms, directory), Laps(), Laps()
    try:
        cold = await topup.buy()  # before the other has loaded anything for it
        plain = Plain(world, rtt_ms)
        plain.buy()
        for _ in range(rounds):
            ours.add(await topup.buy())
            theirs.add(plain.buy())
        idle = Laps([await topup.idle() for _ in range(rounds)])
    finally:
        await topup.close()
    return {
        "rtt_ms": rtt_ms,
        "topup": {
            **ours.figures(),
            "first_ms": _ms(cold.ns),
            "first_cpu_ms": _ms(cold.cpu_ns),
            "first_loads": cold.loads,
            "commits": ours.one("commits"),
            "total_commits": ours.one("total_commits"),
        },
        "plain_web3": theirs.figures(),
        "plain_over_topup": str(round(theirs.median("ns") / ours.median("ns"), 2)),
        "idle_cycle": {
            "median_ms": _ms(idle.median("ns")),
            "cpu_ms": _ms(idle.median("cpu_ns")),
            "rpc_requests": idle.one("requests")[0],
            "api_requests": idle.one("requests")[1],
            "commits": idle.one("commits"),
        },
    }


@dataclass
class Laps:
    """Purchases of one kind."""

    laps: list[Lap] = field(default_factory=list)

    def add(self, lap: Lap) -> None:
        """Take one more."""
        self.laps.append(lap)

    def median(self, name: str) -> float:
        """Return the median of a time, in nanoseconds."""
        times: list[int] = [getattr(lap, name) for lap in self.laps]
        return statistics.median(times)

    def one(self, name: str) -> Any:
        """Return a count that should be the same in every purchase; the most frequent one when it is not."""
        return statistics.mode(getattr(lap, name) for lap in self.laps)

    def figures(self) -> dict[str, Any]:
        """Return what both kinds have."""
        return {
            "median_ms": _ms(self.median("ns")),
            "min_ms": _ms(min(lap.ns for lap in self.laps)),
            "max_ms": _ms(max(lap.ns for lap in self.laps)),
            "cpu_ms": _ms(self.median("cpu_ns")),
            "total_cpu_ms": _ms(self.median("total_cpu_ns")),
            "rpc_requests": self.one("requests")[0],
            "api_requests": self.one("requests")[1],
            "total_rpc_requests": self.one("total_requests")[0],
            "total_api_requests": self.one("total_requests")[1],
        }


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.1f}"


# -- memory of the daemon ------------------------------------------------------------------------------------------


def rss_mib(pid: int, name: str = "VmRSS") -> str | None:
    """Return the resident memory of a process in MiB as Linux tells it; None elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return f"{int(line.split()[1]) / 1024:.1f}"
    return None


@contextlib.contextmanager
def daemon(environment: dict[str, str]) -> Iterator[tuple[int, Callable[[str, int], None]]]:
    """Run `topup run`; hand out its process id, and a function that waits for so many events of a name."""
    process = subprocess.Popen(
        [sys.executable, "-m", "topup", "run"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_bare() | environment | {"TOPUP_LOG__FORMAT": "json"},
    )
    assert process.stderr is not None
    lines = process.stderr
    watchdog = threading.Timer(DAEMON_S_MAX, process.kill)
    watchdog.start()

    def until(event: str, times: int) -> None:
        while times:
            line = lines.readline()
            if not line:
                raise RuntimeError(f"the daemon ended before {event}")
            times -= json.loads(line).get("event") == event if line.startswith("{") else 0

    try:
        yield process.pid, until
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)
        watchdog.cancel()


def memory(anvil: Path | None) -> dict[str, Any]:
    """Measure the daemon before and after its first payment, and when it only observes."""
    fast = OPEN | {"TOPUP_WATCH__POLL_FASTEST_S": "1", "TOPUP_WATCH__POLL_SLOWEST_S": "1", "TOPUP_POSTING__POLL_S": "1"}
    with World(anvil, mining=True, rtts_ms=[0]) as world, tempfile.TemporaryDirectory() as directory:
        live = world.environment(0, Path(directory) / "live") | fast
        observe = world.environment(0, Path(directory) / "observe") | fast | {"TOPUP_MODE": "observe"}
        del observe["TOPUP_WALLET__PRIVATE_KEY"]
        with daemon(observe) as (pid, until):
            until("cycle_done", IDLE_CYCLES)
            watching = rss_mib(pid)
        with daemon(live) as (pid, until):
            until("cycle_done", IDLE_CYCLES)
            idle = rss_mib(pid)
            world.tell("dip")
            until("top_up_done", 1)
            until("cycle_done", 1)
            paid = rss_mib(pid)
    return {"observe_idle_mib": watching, "live_idle_mib": idle, "live_after_payment_mib": paid}


# -- commands ------------------------------------------------------------------------------------------------------


def _bare() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("TOPUP_")}


def cpu_s(command: list[str], environment: dict[str, str], rounds: int) -> float:
    """Return the median CPU time of a command over so many runs, after one that fills the caches."""
    times = []
    for _ in range(rounds + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times[1:])


def loaded(arguments: list[str], environment: dict[str, str]) -> list[str]:
    """Return which heavy packages a command loads."""
    code = (
        "import sys, topup.commands.cli as c\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n    c.main()\n"
        f"finally:\n    sys.stderr.write('|' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    return done.stderr.rpartition("|")[2].split()


def commands(directory: Path, rounds: int) -> dict[str, Any]:
    """Measure the commands that should be quick, on a ledger with a past; Python's own start stands beside them."""
    environment = _bare() | {"TOPUP_STATE_DIR": str(directory), "TOPUP_CONFIG": os.devnull}
    told: dict[str, Any] = {
        " ".join(arguments): {
            "cpu_s": f"{cpu_s([sys.executable, '-m', 'topup', *arguments], environment, rounds):.3f}",
            "heavy_packages": loaded(arguments, environment),
        }
        for arguments in COMMANDS
    }
    return told | {"python -c pass": {"cpu_s": f"{cpu_s([sys.executable, '-c', 'pass'], environment, rounds):.3f}"}}


# -- the run -------------------------------------------------------------------------------------------------------


def measure(anvil: Path | None, rounds: int) -> dict[str, Any]:
    """Measure everything in one run."""
    with tempfile.TemporaryDirectory(prefix="topup-benchmark-") as temporary:
        directory = Path(temporary)
        with World(anvil, mining=False, rtts_ms=RTTS_MS) as world:
            paths = [asyncio.run(race(world, rtt, rounds, directory)) for rtt in RTTS_MS]
        return {
            "schema": 1,
            "chain": "anvil" if anvil is not None else "embedded",
            "python": platform.python_version(),
            "rounds": rounds,
            "path": paths,
            "memory": memory(anvil),
            "commands": commands(directory, min(rounds, 5)),
        }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Write the figures for a person."""
    yield f"{told['rounds']} rounds on {told['chain']}, Python {told['python']}; medians, milliseconds"
    for path in told["path"]:
        yield f"\ndecision → accepted, {path['rtt_ms']} ms per round trip; plain/topup = {path['plain_over_topup']}"
        for name in ("topup", "plain_web3"):
            one = path[name]
            yield (
                f"  {name:<11} {one['median_ms']:>7} ({one['min_ms']}–{one['max_ms']})  CPU {one['cpu_ms']}"
                f"  rpc {one['rpc_requests']} api {one['api_requests']}; until done: CPU {one['total_cpu_ms']}"
                f"  rpc {one['total_rpc_requests']} api {one['total_api_requests']}"
            )
        one, idle = path["topup"], path["idle_cycle"]
        yield f"  topup: commits {one['commits']}, until done {one['total_commits']}; first purchase {one['first_ms']},"
        yield f"    CPU {one['first_cpu_ms']}, {one['first_loads']} modules loaded on its way"
        yield (
            f"  idle cycle: {idle['median_ms']}  CPU {idle['cpu_ms']}  rpc {idle['rpc_requests']}"
            f" api {idle['api_requests']} commits {idle['commits']}"
        )
    yield "\nresident memory of the daemon, MiB"
    for name, mib in told["memory"].items():
        yield f"  {name:<24} {mib}"
    yield "\nCPU seconds of a command"
    for name, one in told["commands"].items():
        yield f"  {name:<24} {one['cpu_s']}  {' '.join(one.get('heavy_packages', []))}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=20, help="purchases of each kind at each delay")
    parser.add_argument("--embedded", action="store_true", help="use the embedded chain even where anvil is installed")
    options = parser.parse_args()
    anvil = ANVIL if ANVIL.exists() and not options.embedded else None
    told = measure(anvil, options.rounds)
    print(json.dumps(told, indent=2) if options.json else "\n".join(lines(told)))


if __name__ == "__main__":
    main()
