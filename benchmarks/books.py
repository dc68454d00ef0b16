"""How long do the books of ten years take to read, and how much memory? `python -m benchmarks.books [--json]`.

A ledger is built by a process of its own (benchmarks/decade.py); then each command runs as a whole process. Wall time
is what a person waits for, CPU time depends less on what else the machine does; each is the least of its rounds, and
memory the most. topup's bytecode is written once before anything is measured, as an installation does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILE = "ledger.sqlite3"
FORMATS = ("text", "json", "csv", "beancount", "hledger", "koinly", "rotki")
TABLES = ("topup", "entry", "line", "reading", "usage_known", "usage_day", "api_key")
# What is wanted: seconds of wall time, and MiB of memory for all.
MONTH_S, YEAR_S, STATUS_S, MEMORY_MIB = 1.0, 5.0, 0.3, 300


def environment(place: Path) -> dict[str, str]:
    """Return an environment in which nothing of this machine's own settings matters."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOPUP_") and k != "PYTHONDONTWRITEBYTECODE"}
    own = {"TOPUP_CONFIG": os.devnull, "TOPUP_STATE_DIR": str(place), "PYTHONPYCACHEPREFIX": str(place / "bytecode")}
    return kept | own


def commands(page: Path, today: date) -> Iterator[tuple[list[str], float | None]]:
    """Yield what is measured, each with the seconds that are wanted: the month and the year before today's month."""
    last = today.replace(day=1) - timedelta(days=1)
    month = ["statement", "--month", f"{last:%Y-%m}"]
    year = ["statement", "--from", str(last - timedelta(days=364)), "--to", str(last)]
    for span, target in ((month, MONTH_S), (year, YEAR_S)):
        yield from (([*span, "--format", form], target) for form in FORMATS)
        yield [*span, "--html", str(page)], target
    yield ["usage", "--by", "key", "--month", f"{last:%Y-%m}"], MONTH_S
    yield ["usage", "--by", "key", *year[1:]], YEAR_S
    yield ["status"], STATUS_S
    yield ["forecast"], None
    yield ["ledger", "verify"], None


def measured(command: list[str], env: dict[str, str], rounds: int) -> dict[str, Any]:
    """Run a whole command; return seconds of wall and CPU time, MiB of memory, and how much it has printed.

    Raises:
        RuntimeError: it failed.
    """
    wall, cpu, memory, printed = [], [], [], 0
    with tempfile.TemporaryFile() as out:
        for _ in range(rounds):
            out.seek(0)
            out.truncate()
            began = time.perf_counter()
            process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out)
            _, code, used = os.wait4(process.pid, 0)
            wall.append(time.perf_counter() - began)
            process.returncode = os.waitstatus_to_exitcode(code)
            if process.returncode:
                raise RuntimeError(f"{' '.join(command[1:])} has failed: exit code {process.returncode}")
            cpu.append(used.ru_utime + used.ru_stime)
            memory.append(used.ru_maxrss)  # in KiB on Linux; no less than this process holds, which is little
            printed = out.tell()
    return {
        "wall_s": f"{min(wall):.3f}",
        "cpu_s": f"{min(cpu):.3f}",
        "peak_mib": max(memory) // 1024,
        "printed_kib": printed // 1024,
    }


def measure(years: int, keys: int, rounds: int) -> dict[str, Any]:
    """Build the ledger and measure everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="topup-benchmark-") as temporary:
        place = Path(temporary)
        env = environment(place)
        build = [sys.executable, "-m", "benchmarks.decade", temporary, "--years", str(years), "--keys", str(keys)]
        built = measured(build, env, 1)
        topup = [sys.executable, "-m", "topup"]
        found = []
        for command, target in commands(place / "page.html", datetime.now(UTC).date()):
            measured([*topup, *command], env, 1)  # whoever is first writes the bytecode
            told = measured([*topup, *command], env, rounds)
            name = " ".join(c if c != str(place / "page.html") else "FILE" for c in command)
            found.append({"command": name, **told, "target_s": str(target) if target is not None else None})
        with closing(sqlite3.connect(place / FILE)) as db:
            rows = {one: db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in TABLES}  # noqa: S608 - ours
            (inserted,) = db.execute("SELECT max(id) FROM reading").fetchone()
        return {
            "schema": 1,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "rounds": rounds,
            "years": years,
            "keys": keys,
            "built_s": built["wall_s"],
            "file_kib": (place / FILE).stat().st_size // 1024,
            "readings_before_thinning": inserted,
            "rows": rows,
            "target_mib": MEMORY_MIB,
            "commands": found,
        }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Write the figures for a person, what is wanted beside them."""
    yield (
        f"{told['years']} years, {told['keys']} keys; Python {told['python']}, SQLite {told['sqlite']};"
        f" built in {told['built_s']} s, {told['file_kib'] // 1024} MiB"
    )
    yield ", ".join(f"{count} {name}" for name, count in told["rows"].items())
    yield f"{told['readings_before_thinning']} readings before they were thinned\n"
    yield f"{'a whole process, least of ' + str(told['rounds']):<66}{'wall s':>8}{'wanted':>8}{'CPU s':>8}{'MiB':>6}"
    for one in told["commands"]:
        wanted = f"< {float(one['target_s']):g}" if one["target_s"] is not None else ""
        missed = "  missed" if wanted and float(one["wall_s"]) >= float(one["target_s"]) else ""
        large = "  too large" if one["peak_mib"] >= told["target_mib"] else ""
        figures = f"{one['wall_s']:>8}{wanted:>8}{one['cpu_s']:>8}{one['peak_mib']:>6}"
        yield f"  {one['command']:<64}{figures}{missed}{large}"
    yield f"\nmemory wanted: less than {told['target_mib']} MiB each"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.books", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--years", type=int, default=10, help="how long the past is")
    parser.add_argument("--keys", type=int, default=1000, help="how many API keys used something each day")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each command")
    options = parser.parse_args()
    told = measure(options.years, options.keys, options.rounds)
    print(json.dumps(told, indent=2) if options.json else "\n".join(lines(told)))


if __name__ == "__main__":
    main()
