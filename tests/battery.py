"""Is `topup once` safe against the field's retry-safety battery? `python -m tests.battery [--json]`.

PyPI's `hostile-facilitator` plays the facilitator behind a seller of the official x402 package, and the real command
buys through it, once in each of the tool's modes; its own control (`selftest`) comes first. Every settlement stands on
anvil as a real transfer of USDC, and settlements are counted from the chain's logs. Three groups of rows:

    tool      the tool's own run and its own score, as it is. Four of its ten modes ask for a read that only a client of
              the facilitator makes; a buyer behind a seller makes none, and the tool calls them not exercised
    ours      for those four the same faults (503, 200 with prose, 6 MiB, cut short) bend the read that topup does make:
              its provider's, for what became of the authorization, from the settlement on until the command is ended
    official  the package's own client, asked again where it is told of no success, three times at most

Exit 0: the control holds, `clean` has one settlement, and no row of topup's has more than one.
"""

import argparse
import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from eth_keys.datatypes import PrivateKey

from tests.oracles import HERE, Oracle, python, started
from tests.tools import outside
from tests.world import proxy, worlds
from tests.world.served import HASTE, TOPUP, Running, began
from tests.world.stage import moves
from topup.domain.typed_data import mark_call
from topup.sandbox import contracts
from topup.sandbox.charges import named_address
from topup.sandbox.world import World

PAY_TO: Final = named_address("topup tests: seller of the battery")
# Who carries to the chain: one for the tool's own run, one for the other groups, which run beside it.
CARRIERS: Final = tuple(PrivateKey(bytes([n]) * 32) for n in (7, 8))
HELD: Final = 100_000_000
CLEAN: Final = "clean"
# What the tool asks a client of the facilitator to read, and what it answers then; here the provider answers so.
PROSE: Final = b"<html><body><h1>Record</h1><p>Not available at this time. Please try again.</p></body></html>"
BENDS: Final[dict[str, Callable[[], proxy.Fault]]] = {
    "reconcile_unavailable": lambda: proxy.status(503, b'{"error": "unavailable"}'),
    "reconcile_soft_404": lambda: proxy.status(200, PROSE, {"content-type": "text/html"}, forwarded=True),
    "reconcile_oversized": lambda: proxy.body(b'{"unrelated":"' + b"x" * (6 * 1024 * 1024) + b'"}'),
    "reconcile_truncated": lambda: proxy.truncate(),  # noqa: PLW0108 - one fault a rule
}
MODES: Final = (
    "accept_then_timeout", "5xx_after_settle", "double_402", "slow_answer", *BENDS, "declared_safe", CLEAN,
)  # fmt: skip
# So often the bent read is made before the command is ended from outside: it asks, and asks again. Once is enough to
# count as exercised.
READS: Final = 3
# The tool gives a buyer half a minute for one purchase.
PURCHASE_S: Final = 28.0
# So long a buyer waits for an answer.
TIMEOUT_S: Final = 3
MARK: Final = "0x" + mark_call(b"\x00" * 20, b"\x00" * 32)[:4].hex()


@dataclass
class Row:
    """What one purchase came to; `settlements` are the transfers that the chain's logs show.

    `exit_codes` are those of topup's commands, `tries` how often the official client was asked for the purchase.
    """

    mode: str
    by: str
    verdict: str
    settlements: int
    exit_codes: list[int] = field(default_factory=list)
    exercised: bool = True
    tries: int = 1


@dataclass
class Purchase:
    key: PrivateKey
    codes: list[int] = field(default_factory=list)

    @property
    def wallet(self) -> str:
        return str(self.key.public_key.to_checksum_address())


@dataclass
class Field:
    """The chain, its provider behind a proxy, and the battery's two processes."""

    world: World
    bent: proxy.Proxy
    tool: Oracle
    beside: Oracle
    folder: Path
    starting: threading.Lock = field(default_factory=threading.Lock)

    def wallet(self) -> Purchase:
        """Draw a key, and give its wallet dollars."""
        made = Purchase(PrivateKey(secrets.token_bytes(32)))
        self.world.do(lambda: self.world.write(contracts.usdc_balance(made.wallet, HELD)))
        return made

    def settlements(self, wallet: str) -> int:
        return len(self.world.do(lambda: moves(self.world, contracts.USDC, wallet)))

    def once(self, one: Purchase, shop: str) -> Running:
        """Start the real command: ten dollars, at this seller."""
        state = self.folder / one.wallet
        settings = {
            "TOPUP_MODE": "live",
            "TOPUP_STATE_DIR": str(state),
            "TOPUP_WALLET__PRIVATE_KEY": one.key.to_hex(),
            "TOPUP_CHAIN__RPC_URLS": self.bent.url,
            "TOPUP_API__KIND": "x402",
            "TOPUP_API__URL": f"{shop}/v1",
            "TOPUP_API__KEY": "a-key",
            "TOPUP_RAILS__USE": "x402",
            "TOPUP_RAILS__X402__PROFILE": "plain",
            "TOPUP_RAILS__X402__RECIPIENTS": PAY_TO,
            "TOPUP_RAILS__YOUNG_S": "0",
            "TOPUP_POSTING__PAY_TIMEOUT_S": str(TIMEOUT_S),
            "TOPUP_POSTING__RESEND_S": "1",
            # Where the news was lost between facilitator and seller, credits never come; that is said soon.
            "TOPUP_POSTING__LATE_S": "2",
            "TOPUP_POLICY__AMOUNT": "10",
            "TOPUP_POLICY__COOLDOWN_S": "0",
        }
        stem = self.folder / f"{one.wallet}-{len(one.codes)}"
        out, err = stem.with_suffix(".out"), stem.with_suffix(".err")
        command = [*TOPUP, "once", "--amount", "10", "--yes", "--force"]
        with self.starting:
            return Running(began(command, outside() | HASTE | settings, out, err), out, err)

    def bought(self, one: Purchase, shop: str) -> None:
        running = self.once(one, shop)
        try:
            one.codes.append(running.process.wait(timeout=PURCHASE_S))
        except subprocess.TimeoutExpired:
            one.codes.append(running.stop())  # it goes on by itself; one more command would follow it up


@contextlib.contextmanager
def stood() -> Iterator[Field]:
    """Start everything: anvil at the machine's time, mining at once what comes, and the battery beside it."""
    world = World(worlds.maker("anvil"))
    world.tick_s = 1.0
    with (
        world,
        tempfile.TemporaryDirectory(prefix="topup-battery-") as folder,
        proxy.Proxy(world.rpc.url) as bent,
        contextlib.ExitStack() as stack,
    ):
        world.do(lambda: world.chain.rpc("evm_setAutomine", [True]))
        tool, beside = (stack.enter_context(_oracle(world, one, Path(folder))) for one in CARRIERS)
        yield Field(world, bent, tool, beside, Path(folder))


@contextlib.contextmanager
def _oracle(world: World, carrier: PrivateKey, folder: Path) -> Iterator[Oracle]:
    """Start one process of the battery, whose facilitator has ether for the fees."""
    world.do(lambda: world.chain.set_balance(carrier.public_key.to_checksum_address(), 10**18))
    command = [str(python("x402")), "x402_battery.py", world.rpc.url, carrier.to_hex(), PAY_TO]
    with started([*command, str(TIMEOUT_S), str(folder)], HERE, subprocess.DEVNULL) as process:
        yield Oracle(process)


class Door:
    """Where the tool's command knocks: each knock is one purchase by the real command, at the seller that is named."""

    def __init__(self, at: Field) -> None:
        self._at, self.path, self.purchases = at, at.folder / "door", list[Purchase]()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def command(self) -> list[str]:
        """Return what the tool runs once for each mode: it says where the facilitator is, and waits."""
        knock = (
            "import os, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['DOOR']); "
            "s.sendall(os.environ['FACILITATOR_URL'].encode()); s.shutdown(1); s.recv(1)"
        )
        return ["/usr/bin/env", f"DOOR={self.path}", sys.executable, "-I", "-S", "-c", knock]

    def _serve(self) -> None:
        while True:
            came, _ = self._socket.accept()
            with came:
                port = came.recv(1000).decode().rpartition(":")[2]
                shop = (self._at.folder / f"shop-{port}").read_text(encoding="utf-8")
                self.purchases.append(self._at.wallet())
                self._at.bought(self.purchases[-1], shop)


def by_tool(at: Field) -> tuple[list[Row], dict[str, Any]]:
    """Let the tool itself run the real command in every mode; its verdicts, and the chain's counts beside them."""
    door, document = Door(at), at.folder / "result.json"
    said = at.tool.ask("test", command=door.command, json=str(document))
    told = json.loads(document.read_text(encoding="utf-8"))
    verdicts = {row["mode"]: row.get("verdict", "fail") for row in told["results"]}
    # Its control runs first; where that fails it scores nothing else.
    order = [CLEAN, *(mode for mode in told["battery"]["modes"] if mode != CLEAN)]
    named = {"pass": "safe", "fail": "double_pay", "not_exercised": "not_exercised"}
    rows = []
    for mode, one in zip(order, door.purchases, strict=False):
        count, verdict = at.settlements(one.wallet), named[verdicts[mode]]
        verdict = "double_pay" if count > 1 else verdict
        rows.append(Row(mode, "tool", verdict, count, one.codes, exercised=verdict != "not_exercised"))
    return rows, {"version": told["version"], "said": said["said"], "code": said["code"], **told["summary"]}


def ours(at: Field, mode: str) -> Row:
    """Settle, lose the answer, and bend every read of what became of it until the command is ended; then let it end."""
    shop, one = at.beside.ask("stand", mode=mode)["url"], at.wallet()

    def settled(params: Any) -> bool:
        """Tell whether this reads the mark of an authorization, and the dollars have gone."""
        call = params[0] if isinstance(params, list) and params and isinstance(params[0], dict) else {}
        whose = MARK + one.wallet[2:].lower().rjust(64, "0")
        return str(call.get("data", "")).lower().startswith(whose) and at.settlements(one.wallet) > 0

    rule = at.bent.on("eth_call", BENDS[mode](), when=settled)
    running = at.once(one, shop)
    end = time.monotonic() + PURCHASE_S
    while rule.hits < READS and running.process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    one.codes.append(running.stop(signal.SIGTERM))
    at.bent.mend()
    # A repetition, with the provider honest again: as a script does that was told "not known".
    at.bought(one, shop)
    at.beside.ask("leave")
    count = at.settlements(one.wallet)
    exercised = rule.hits > 0
    verdict = "double_pay" if count > 1 else "safe" if exercised else "not_exercised"
    return Row(mode, "ours", verdict, count, one.codes, exercised)


def official(at: Field, mode: str) -> Row:
    """Buy by the package's own client, which asks again where it is told of no success."""
    one = at.wallet()
    told = at.beside.ask("official", mode=mode, key=one.key.to_hex())
    count = at.settlements(one.wallet)
    asks = mode not in BENDS  # it makes no such read either
    verdict = "double_pay" if count > 1 else "safe" if asks else "not_exercised"
    return Row(mode, "official", verdict, count, exercised=asks, tries=told["tries"])


def whole() -> dict[str, Any]:
    with stood() as at:
        control = at.tool.ask("selftest")
        with ThreadPoolExecutor(1) as beside:
            others = beside.submit(lambda: ([ours(at, mode) for mode in BENDS], [official(at, m) for m in MODES]))
            tool, score = by_tool(at)
            own, package = others.result()
    return {
        "schema": 1,
        "selftest": control["valid"],
        "tool": score,
        "modes": [asdict(row) for row in (*tool, *own)],
        "official_client": [asdict(row) for row in package],
    }


def right(told: dict[str, Any]) -> bool:
    """Tell whether the control holds, a plain purchase settles once, and nothing of topup's settles twice."""
    plain = [row["settlements"] for row in told["modes"] if row["mode"] == CLEAN]
    return told["selftest"] and plain == [1] and all(row["settlements"] <= 1 for row in told["modes"])


def lines(told: dict[str, Any]) -> list[str]:
    score = told["tool"]
    shown = [f"hostile-facilitator {score['version']}, its own control: {'holds' if told['selftest'] else 'FAILS'}"]
    shown += [line for line in score["said"].partition("result written")[0].splitlines() if line.strip()]
    for title, rows in (
        ("topup once, settlements on anvil", told["modes"]),
        ("the official package's own client, asked again up to three times", told["official_client"]),
    ):
        shown += ["", title]
        shown += [
            f"  {row['mode']:<22} {row['by']:<9} {row['verdict']:<14} {row['settlements']} settlements"
            + (f", exit {', '.join(map(str, row['exit_codes']))}" if row["exit_codes"] else "")
            for row in rows
        ]
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.battery", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one document")
    given = parser.parse_args()
    try:
        told = whole()
    except pytest.skip.Exception as missing:
        print(missing, file=sys.stderr)
        return 2
    print(json.dumps(told) if given.json else "\n".join(lines(told)))
    return int(not right(told))


if __name__ == "__main__":
    sys.exit(main())
