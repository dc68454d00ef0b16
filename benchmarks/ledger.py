"""How fast are the commands on a ledger with a long past, how large does it get, and how soon does a restart look?

One real top-up is bought in the embedded world; its rows, moved back in time, are the past. A second one is killed as
soon as its payment is sent, so that each restart has something to look for. Wall time and CPU time stand side by side:
the first is what a person waits for, the second depends less on what else the machine does. Each figure is the least
of its rounds, because other work only ever adds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.books import environment
from topup.accounting.standing import Turnover
from topup.app.settings import Settings
from topup.domain.credits import DAY_MS, HOUR_MS, spending_since
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

ROOT = Path(__file__).parent.parent
ACCOUNT = "default"
# A condition that does not come true within so many seconds never does.
PATIENCE_S = 60
# One top-up an hour; so many readings as fit evenly between them.
EVERY_MS = HOUR_MS
# A reading in so many is one that was not believed.
DOUBTED = 50
# A wallet of earlier days: its nonces are not those of the wallet that pays now.
OLD_WALLET = b"\x0d" * 20
SETTINGS = {
    "TOPUP_CONFIG": os.devnull,
    "TOPUP_WATCH__STALENESS_S": "0",
    "TOPUP_WATCH__POLL_FASTEST_S": "1",
    "TOPUP_POSTING__POLL_S": "1",
    "TOPUP_POSTING__RESEND_S": "2",
    "TOPUP_CHAIN__HEAD_AGE_MAX_S": "86400",
}


# -- the world -----------------------------------------------------------------------------------------------------


class Place:
    """A world on loopback, a ledger beside it, and a note of when the chain was asked what."""

    def __init__(self, world: World, directory: Path) -> None:
        """Listen to every question to the chain."""
        self.world, self.state = world, directory / "state"
        self.asked: list[tuple[str, float]] = []
        self.stop_at_send = False
        world.do(self._listen)
        self.environment = (
            environment(directory) | world.environment() | SETTINGS | {"TOPUP_STATE_DIR": str(self.state)}
        )

    def _listen(self) -> None:
        async def note(method: str, _: list[Any], honest: Callable[[], Any]) -> Any:
            self.asked.append((method, time.perf_counter()))
            if method == "eth_sendRawTransaction" and self.stop_at_send:
                self.world.mining = False
            return honest()

        self.world.rpc.intercept = note

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a topup command."""
        return [sys.executable, "-m", "topup", *arguments]

    def buy(self) -> None:
        """Buy once, to the end."""
        command = self.command("once", "--amount", "10", "--yes", "--force")
        subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True)

    def leave_sent(self) -> None:
        """Begin a purchase and kill the process as soon as its payment has been sent; no block is mined any more."""
        self.stop_at_send = True
        before = len(self.asked)
        with self.started("once", "--amount", "10", "--yes", "--force"):
            self.until("eth_sendRawTransaction", before)
        # Or the last restart would be the first to find it in a block.
        assert not self.world.mining

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[int]:
        """Run a command in the background, yield its process id, and kill it in the end."""
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            self.command(*arguments), env=self.environment, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet
        ) as process:
            try:
                yield process.pid
            finally:
                process.send_signal(signal.SIGKILL)

    def until(self, method: str | None, after: int) -> float:
        """Wait until the chain is asked this, or anything; return when it was."""
        end = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < end:
            found = [at for name, at in self.asked[after:] if method in (name, None)]
            if found:
                return found[0]
            time.sleep(0.002)
        raise TimeoutError(f"the chain was never asked {method}")

    def restart(self, rounds: int) -> dict[str, Any]:
        """Measure from the start of `topup run` to its first question to the chain, and to the payment's bytes."""
        first, sent, cpu = [], [], []
        for _ in range(rounds):
            began, before = time.perf_counter(), len(self.asked)
            with self.started("run") as process:
                first.append(self.until(None, before) - began)
                cpu.append(_cpu_s(process))
                sent.append(self.until("eth_sendRawTransaction", before) - began)
        return {
            "first_rpc_ms": _ms(min(first)),
            "first_rpc_cpu_ms": _ms(min(cpu)),
            "resent_ms": _ms(min(sent)),
        }


def _cpu_s(process: int) -> float:
    """Return the CPU time a living process has used, to a hundredth of a second."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the past ------------------------------------------------------------------------------------------------------


def grow(state: Path, topups: int, readings: int) -> None:
    """Put so many top-ups and readings before what the ledger holds."""
    connection = sqlite3.connect(state / FILE, isolation_level=None)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        # Only here: what is lost with the power is built again.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        _clone(connection, topups)
        end = int(connection.execute("SELECT min(at_ms) FROM reading").fetchone()[0])
        step = max(1, topups * EVERY_MS // max(1, readings))
        rows = (
            (ACCOUNT, end - n * step, "100", str(Decimal(readings - n) / 1000), None, "")
            if n % DOUBTED
            else (ACCOUNT, end - n * step, None, None, "no_answer", "GET /credits: no answer within 20 s")
            for n in range(1, readings + 1)
        )
        connection.executemany(
            "INSERT INTO reading (account, at_ms, total_credits, total_usage, doubt, detail) VALUES (?,?,?,?,?,?)", rows
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _clone(connection: sqlite3.Connection, count: int) -> None:
    """Repeat the first top-up with all its rows `count` times, an hour apart, each with its own ids and hashes."""

    def rows(table: str) -> list[dict[str, Any]]:
        found = connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()  # noqa: S608 - a name of ours
        return [dict(row) for row in found]

    (template, *_), name = rows("topup"), "topup"
    mine = {t: [r for r in rows(t) if r[name] == template["id"]] for t in ("move", "charge", "slot", "attempt")}
    mine |= {t: [r for r in rows(t) if r[name] == template["id"]] for t in ("evidence", "entry")}
    entries = {e["id"] for e in mine["entry"]}
    mine = {"topup": [template], **mine, "line": [r for r in rows("line") if r["entry"] in entries]}
    for table, found in mine.items():
        for row in found:
            columns = ", ".join(row)
            places = ", ".join("?" * len(row))
            connection.executemany(
                f"INSERT INTO {table} ({columns}) VALUES ({places})",  # noqa: S608 - names of the schema
                (tuple(_moved(table, row, n).values()) for n in range(1, count + 1)),
            )


def _moved(table: str, row: dict[str, Any], n: int) -> dict[str, Any]:
    """Return the row as that of the `n`th top-up before."""
    new = {k: v - n * EVERY_MS if k.endswith("_ms") and v is not None else v for k, v in row.items()}
    mark = n.to_bytes(6, "big")
    name = f"t{n:012x}"
    changes: dict[str, Any] = {
        "topup": name,
        "nonce": n.to_bytes(32, "big"),
        "address": OLD_WALLET,
        "wallet": OLD_WALLET,
        "hash": b"\x0c" * 26 + mark,
        "final": 1,
        "wish": None,  # each is bought for once
        "intent_id": b"\x0e" * 10 + mark,
        # Ids of the past count down from far above: none is in use.
        "id": name if table == "topup" else row.get("id", 0) + n * 1000,
        "attempt": row.get("attempt", 0) + n * 1000 if table == "evidence" else None,
        "entry": row.get("entry", 0) + n * 1000,
    }
    return {k: changes.get(k, v) if k in changes else v for k, v in new.items()}


# -- measuring -----------------------------------------------------------------------------------------------------


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def command_times(command: list[str], environment: dict[str, str], rounds: int) -> dict[str, str]:
    """Return wall time and CPU time of a whole command."""
    wall, cpu = [], []
    for _ in range(rounds):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"ms": _ms(min(wall)), "median_ms": _ms(statistics.median(wall)), "cpu_ms": _ms(min(cpu))}


def timed(act: Callable[[], object], rounds: int) -> str:
    """Return the time of an act in this process, in milliseconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return _ms(min(took))


def commands(place: Place, topup: str, rounds: int) -> dict[str, Any]:
    """Measure whole commands; Python's own start and the least that topup can do stand beside them."""
    told = {
        "python -c pass": command_times([sys.executable, "-c", "pass"], place.environment, rounds),
        "--version": command_times(place.command("--version"), place.environment, rounds),
    }
    wanted = (("status",), ("status", "--json"), ("show", topup), ("history",), ("history", "--count", "10000"))
    return told | {" ".join(w): command_times(place.command(*w), place.environment, rounds) for w in wanted}


def queries(place: Place, settings: Settings, topup: str, rounds: int) -> dict[str, str]:
    """Measure what the commands and a pass of the daemon ask of the ledger, within this process."""
    from topup.app.standing import standing, totals

    summed = Turnover()
    store = SqliteStore.open_reader(place.state)
    now = time.time_ns() // 1_000_000
    bps = settings.fee_ceiling_bps
    try:
        return {
            "status": timed(lambda: standing(store, settings, now), rounds),
            "totals, the first time": timed(lambda: totals(store, ACCOUNT, ("webhook",), Turnover()), rounds),
            "totals": timed(lambda: totals(store, ACCOUNT, ("webhook",), summed), rounds),
            "past of 30 days": timed(lambda: store.past(ACCOUNT, now - 30 * DAY_MS, bps), rounds),
            "past of all days": timed(lambda: store.past(ACCOUNT, 0, bps), 1),
            "readings of a day": timed(lambda: store.readings(ACCOUNT, now - DAY_MS), rounds),
            "readings of the usual pace": timed(lambda: store.readings(ACCOUNT, spending_since(now, 0)), rounds),
            "last reading": timed(lambda: store.last_reading(ACCOUNT), rounds),
            "life of a top-up": timed(lambda: store.life(topup), rounds),
            "newest 20": timed(lambda: store.latest(ACCOUNT, 20), rounds),
        }
    finally:
        store.close()


def opening(place: Place, rounds: int) -> str:
    """Measure a writer's opening, with its look at every page."""
    return timed(lambda: SqliteStore.open_writer(place.state).close(), rounds)


def thinning(place: Place) -> dict[str, Any]:
    """Thin the readings to the end; tell how long it took and how long the longest step held the ledger."""
    store = SqliteStore.open_writer(place.state)
    try:
        now, steps, more = time.time_ns() // 1_000_000, [], True
        while more:
            began = time.perf_counter()
            more = store.thin_readings(ACCOUNT, now)
            steps.append(time.perf_counter() - began)
        again = timed(lambda: store.thin_readings(ACCOUNT, now + HOUR_MS), 1)
    finally:
        store.close()
    return {
        "steps": len(steps),
        "total_ms": _ms(sum(steps)),
        "longest_ms": _ms(max(steps)),
        "last_ms": _ms(steps[-1]),
        "an_hour_later_ms": again,
    }


def sizes(place: Place) -> dict[str, int]:
    """Return the file's size, the part of it in use, and how many readings it holds."""
    with contextlib.closing(sqlite3.connect(place.state / FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page, pages, free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        (held,) = connection.execute("SELECT count(*) FROM reading").fetchone()
    return {"file_kib": page * pages // 1024, "used_kib": page * (pages - free) // 1024, "readings": int(held)}


def stage(place: Place, settings: Settings, rounds: int) -> dict[str, Any]:
    """Measure everything on the ledger as it stands."""
    store = SqliteStore.open_reader(place.state)
    topup = store.latest(ACCOUNT, 2)[-1].id
    store.close()
    return {
        "size": sizes(place),
        "commands": commands(place, topup, rounds),
        "queries_ms": queries(place, settings, topup, rounds),
        "open_writer_ms": opening(place, rounds),
        "restart": place.restart(rounds),
    }


# -- the run -------------------------------------------------------------------------------------------------------


def measure(topups: int, readings: int, rounds: int) -> dict[str, Any]:
    """Measure everything in one run: a ledger of two top-ups, one with a long past, and that one thinned."""
    from topup.app.settings import load

    world = World(embedded, conduct=Conduct(posting_delay_ms=300), usage_usd=Decimal(5), burn_usd_per_hour=Decimal(0))
    world.tick_s = 0.2
    with tempfile.TemporaryDirectory(prefix="topup-benchmark-") as temporary, world:
        place = Place(world, Path(temporary))
        place.buy()
        place.leave_sent()
        settings = load({k: v for k, v in place.environment.items() if k.startswith("TOPUP_")})
        small = stage(place, settings, rounds)
        began = time.perf_counter()
        grow(place.state, topups, readings)
        built = time.perf_counter() - began
        large = stage(place, settings, rounds)
        thinned = thinning(place)
        after = stage(place, settings, rounds)
    return {
        "schema": 1,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "rounds": rounds,
        "topups": topups,
        "readings": readings,
        "built_s": f"{built:.1f}",
        "small": small,
        "large": large,
        "thinning": thinned,
        "thinned": after,
    }


RESTART = (
    ("first question to the chain", "first_rpc_ms"),
    ("  CPU until then", "first_rpc_cpu_ms"),
    ("payment sent again", "resent_ms"),
)


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Write the figures for a person."""
    stages = ("small", "large", "thinned")
    yield f"{told['topups']} top-ups, {told['readings']} readings; Python {told['python']}, SQLite {told['sqlite']}"
    yield f"built in {told['built_s']} s; the least of {told['rounds']}, milliseconds; × = large / small, CPU"
    yield f"\n{'a command, wall (CPU)':<30}" + "".join(f"{name:>18}" for name in stages)
    for name in told["small"]["commands"]:
        one = [told[s]["commands"][name] for s in stages]
        yield f"  {name:<28}" + "".join(f"{o['ms']:>9} ({o['cpu_ms']:>6})" for o in one) + _ratio(one, "cpu_ms")
    yield "\nin process"
    for name in told["small"]["queries_ms"]:
        figures = [told[s]["queries_ms"][name] for s in stages]
        yield f"  {name:<28}" + "".join(f"{f:>18}" for f in figures)
    yield f"  {'open_writer':<28}" + "".join(f"{told[s]['open_writer_ms']:>18}" for s in stages)
    yield "\nfrom the start of `topup run`"
    for name, key in RESTART:
        yield f"  {name:<28}" + "".join(f"{told[s]['restart'][key]:>18}" for s in stages)
    yield "\nthe file"
    for key in ("file_kib", "used_kib", "readings"):
        yield f"  {key:<28}" + "".join(f"{told[s]['size'][key]:>18}" for s in stages)
    t = told["thinning"]
    yield (
        f"\nthinning: {t['steps']} steps, {t['total_ms']} ms in all, {t['longest_ms']} the longest;"
        f" an hour later {t['an_hour_later_ms']}"
    )


def _ratio(one: list[dict[str, str]], key: str) -> str:
    return f"   × {Decimal(one[1][key]) / max(Decimal(one[0][key]), Decimal('0.1')):.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--topups", type=int, default=10_000, help="past top-ups")
    parser.add_argument("--readings", type=int, default=1_000_000, help="past readings")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    options = parser.parse_args()
    told = measure(options.topups, options.readings, options.rounds)
    print(json.dumps(told, indent=2) if options.json else "\n".join(lines(told)))


if __name__ == "__main__":
    main()
