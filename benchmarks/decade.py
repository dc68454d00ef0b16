"""How does a ledger come to hold years of one account? `python -m benchmarks.decade DIR`, a process of its own.

A top-up a day from the decision to the posted credits, the books closed each night, usage by model and key: each
written by the store, as the program writes it. Readings are inserted many at a time and thinned by the store after.
What is measured afterwards is as large as what its parent was, so that nothing of this stays in the measuring process.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

from tests.world import builders
from tests.world.ledger import IN_BLOCK
from topup.accounting.closing import Closed, closing_entries
from topup.accounting.journal import attempt_entry, posting_entry
from topup.accounting.usage import ApiKey, DayUsed, Used
from topup.domain.credits import DAY_MS, HOUR_MS, Reading
from topup.domain.lifecycle import Fact, State
from topup.domain.money import Usd, Wei
from topup.ledger.store import SqliteStore
from topup.ports.chain import Delivery, Sent
from topup.sandbox.charges import Operator

ACCOUNT = builders.ACCOUNT
DAYS_A_YEAR = 365
# What a top-up buys and what a day uses, in dollars.
BOUGHT = 10
USED = Decimal("9.87")
BEGAN_WITH = 100
MODELS = 12
READINGS_A_DAY = 1370
# One top-up in so many is paid before midnight and posted after it: a month may begin between the two.
LATE_EACH, LATE = 7, 3
# Readings are inserted and thinned so many days at a time, as a daemon would have done long ago.
THINNED_EVERY = 100
READING = "INSERT INTO reading (account, at_ms, total_credits, total_usage, doubt, detail) VALUES (?,?,?,?,NULL,'')"


def build(directory: Path, years: int, keys: int, today: date) -> None:
    """Write the ledger of so many years that end with yesterday.

    Args:
        directory: where; it holds none yet.
        years: of 365 days each.
        keys: how many API keys share each day's usage.
        today: the UTC day after the last one.
    """
    store, days = SqliteStore.open_writer(directory), years * DAYS_A_YEAR
    db = store._db  # noqa: SLF001 - for what has no door: speed that a ledger with money in it must not have
    db.execute("PRAGMA synchronous = OFF")
    rng, one = random.Random(5), builders.operator()  # noqa: S311 - the same in every run
    hashes = [sha256(f"key {n}".encode()).hexdigest() for n in range(keys)]
    sums, last = dict.fromkeys(hashes, 0), None
    try:
        for number in range(days):
            day = today - timedelta(days=days - number)
            midnight = _ms(day)
            used = USED * (number + 1)
            if number % THINNED_EVERY == 0:
                with store._db_errors():  # noqa: SLF001 - so that the store knows these writes for its own
                    _read(db, midnight, number, min(THINNED_EVERY, days - number))
            if number:
                # The first day has the opening balance, and its top-up is part of that.
                late = number % LATE_EACH == LATE
                _refill(store, one, number, midnight + (DAY_MS - 30_000 if late else 10 * HOUR_MS))
            evening = Reading(_bought(number), Usd(used), midnight + DAY_MS - 1)
            closed = Closed.at(evening, number * BOUGHT * 10**6)
            store.close_books(ACCOUNT, closed, closing_entries(closed, last), midnight + DAY_MS)
            last = closed
            told = _usage(rng, day, hashes)
            for key in told.keys:
                sums[key.name] += key.nano
            store.keep_usage(ACCOUNT, told, midnight + DAY_MS + 7 * HOUR_MS)
            if number % THINNED_EVERY == THINNED_EVERY - 1 or number == days - 1:
                while store.thin_readings(ACCOUNT, midnight + DAY_MS):
                    pass
        for n, (name, nano) in enumerate(sums.items()):
            store.keep_key_used(ACCOUNT, ApiKey(name, f"key {n}", False, nano, 0), {}, _ms(today))
        for how in ("PASSIVE", "TRUNCATE"):  # copied first, so that the store sees a log that may begin anew
            with store._db_errors():  # noqa: SLF001 - as above
                db.execute(f"PRAGMA wal_checkpoint({how})")
    finally:
        store.close()


def _refill(store: SqliteStore, one: Operator, number: int, at_ms: int) -> None:
    """Walk one top-up from the decision to its posting."""
    kept = store.begin(builders.topup(id=f"t{number:06d}", decided_ms=at_ms, moved_ms=at_ms))
    kept = store.ask(kept, at_ms)
    proven = builders.verified(one)
    kept = store.proven(store.answered(kept, b"{}", at_ms), proven)
    baseline = Reading(_bought(number - 1), Usd(USED * number), at_ms)
    # A price that moves, so that no two payments have the same digits.
    spent = Wei(3_500_000_000_000_000 + number * 7_000_000_007)
    kept = store.reserve(kept, builders.plan(nonce=number, quote=spent), baseline, Wei(10**18), at_ms)
    kept = store.intend(store.signed(kept, *builders.signed_bytes(kept.id), at_ms), at_ms)
    kept = store.delivered(kept, kept.attempts[-1], Sent(Delivery.ACCEPTED, ""), at_ms)
    place = builders.inclusion(block_number=number * 43_200, block_ms=at_ms + 2000, spent=spent)
    kept = store.included(kept, kept.attempts[-1], replace(IN_BLOCK, inclusion=place), Fact.PAID, at_ms + 4000)
    kept = store.settle(kept, kept.attempts[-1], attempt_entry(kept.id, kept.attempts[-1], proven.demand), at_ms + 9000)
    posted_ms = at_ms + 60_000
    kept = store.move(kept, Fact.POSTED, posted_ms)
    kept = store.finish(kept, posting_entry(kept, kept.attempts[-1], proven.demand, posted_ms), posted_ms)
    store.final(kept.attempts[-1], posted_ms)
    assert kept.state is State.DONE


def _read(db: sqlite3.Connection, first_ms: int, number: int, days: int) -> None:
    """Insert the readings of some days: usage rises evenly, credits with each top-up."""

    def rows() -> Iterator[tuple[str, int, str, str]]:
        for n in range(number, number + days):
            start = first_ms + (n - number) * DAY_MS
            for part in range(READINGS_A_DAY):
                at_ms = start + part * DAY_MS // READINGS_A_DAY
                bought = _bought(n if at_ms >= start + 10 * HOUR_MS + 60_000 else max(0, n - 1))
                used = USED * n + USED * part / READINGS_A_DAY
                yield ACCOUNT, at_ms, str(bought), f"{used:.6f}"
            yield ACCOUNT, start + DAY_MS - 1, str(_bought(n)), str(USED * (n + 1))

    db.execute("BEGIN")
    db.executemany(READING, rows())
    db.execute("COMMIT")


def _usage(rng: random.Random, day: date, keys: list[str]) -> DayUsed:
    """Share a day's usage among models, and among keys."""

    def shared(names: list[str]) -> tuple[Used, ...]:
        whole = int(USED * 10**9)
        cuts = sorted(rng.randrange(whole) for _ in names[1:])
        parts = [end - start for start, end in zip([0, *cuts], [*cuts, whole], strict=True)]
        return tuple(
            Used(name, nano, 1 + nano // 10**6, nano // 1000, nano // 4000)
            for name, nano in zip(names, parts, strict=True)
        )

    return DayUsed(day, shared([f"maker/model-{n}" for n in range(MODELS)]), shared(keys))


def _bought(topups: int) -> Usd:
    return Usd.of(BEGAN_WITH + BOUGHT * topups)


def _ms(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_MS


def main() -> None:
    """Build it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decade", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--keys", type=int, default=1000)
    options = parser.parse_args()
    build(options.directory, options.years, options.keys, datetime.now(UTC).date())


if __name__ == "__main__":
    main()
