"""A month with one refill, as journal and statement have it, and the programs that have to accept it."""

import subprocess
from pathlib import Path

from tests import tools
from topup.accounting.closing import Closed, closing_entries
from topup.accounting.formats import plaintext
from topup.accounting.journal import Entry, credit_lines, payment_lines, revert_lines
from topup.accounting.statement import Period, Statement, draw
from topup.domain.credits import DAY_MS, Reading
from topup.domain.money import Usd, Usdc, Wei

NOVEMBER = Period.month("2026-11")
START_MS = NOVEMBER.first_ms
HEAD = "ab" * 32
PROGRAMS = ["bean-check", "hledger"]


def reading(at_ms: int, bought: str, used: str) -> Reading:
    return Reading(Usd.of(bought), Usd.of(used), at_ms)


def payment(at_ms: int, name: str, *, charge: str = "charge-1") -> Entry:
    """Ten dollars of credit paid in ETH at 2510 dollars, for 10.50 in all."""
    gas, l1_fee = Wei(2_000_000_000_000), Wei(30_000_000_001)
    lines = payment_lines(Wei(4_200_000_000_000_000), gas, l1_fee, Usdc(10_500_000), 2510 * 10**8)
    return Entry(at_ms, name, "payment", b"\x01" * 32, charge, 77, Usd.of("10.51"), "feed", lines)


def posted(at_ms: int, name: str) -> Entry:
    """Its credits, with what provider and operator kept."""
    lines = credit_lines(Usd.of(10), Usdc(10_500_000), Usdc(105_000))
    return Entry(at_ms, name, "credits posted", b"\x01" * 32, "charge-1", 77, Usd.of(10), "provider", lines)


def month(*extra: Entry, last: Reading | None = None, now_ms: int = NOVEMBER.end_ms) -> Statement:
    """November with an opening balance, one top-up, a reverted attempt, usage, and credits bought elsewhere."""
    opened = Closed(START_MS - DAY_MS, 25_000_000, 5_000_000, 0)
    then = Closed(START_MS + 5 * DAY_MS, 42_000_000, 19_000_000, 10_000_000)
    reverted = revert_lines(Wei(1_000_000_000_000), Wei(5))
    entries = [
        *closing_entries(opened, None),
        payment(START_MS + DAY_MS, "t1"),
        Entry(
            START_MS + DAY_MS, "t1", "payment reverted", b"\x02" * 32, "charge-1", 76, Usd.of("0.01"), "feed", reverted
        ),
        posted(START_MS + DAY_MS + 60_000, "t1"),
        *closing_entries(then, opened),
        *extra,
    ]
    shown = last or reading(START_MS + 5 * DAY_MS, "42", "19")
    return draw("default", NOVEMBER, entries, reading=shown, head=HEAD, now_ms=now_ms)


def accepting(program: str, file: Path) -> list[str]:
    """Return the command by which a program tells whether it accepts a statement."""
    found = str(tools.require(program))
    return [found, str(file)] if program == "bean-check" else [found, "-f", str(file), "check", "--strict"]


def written(told: Statement, program: str) -> str:
    return plaintext.beancount(told) if program == "bean-check" else plaintext.hledger(told)


def checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
