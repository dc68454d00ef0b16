"""Do the books balance, are the fees what is left, and can nobody rewrite them?"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.builders import ACCOUNT, NOW_MS, inclusion, operator, plan, topup, verified
from tests.world.ledger import paid
from topup.accounting.journal import (
    CONVERSION,
    CREDITS,
    FEE_OPERATOR,
    FEE_PROVIDER,
    GAS,
    GAS_REVERTED,
    IN_TRANSIT,
    L1_FEE,
    SWAP_COST,
    WALLET,
    Commodity,
    Entry,
    Line,
    attempt_entry,
    credit_lines,
    network_cost,
    payment_lines,
    reversal,
    revert_lines,
    usd_per_credit,
)
from topup.domain.lifecycle import Attempt
from topup.domain.money import Usd, Usdc, Wei
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore

ETH, USDC, CREDIT = Commodity.ETH, Commodity.USDC, Commodity.CREDIT
wei = st.integers(0, 10**24).map(Wei)


def entry(lines: Sequence[Line]) -> Entry:
    return Entry(
        at_ms=NOW_MS,
        topup_id="t1",
        text="payment",
        tx_hash=b"\x01" * 32,
        charge_id="c1",
        block_number=101,
        usd_value=Usd.of("10.5"),
        price_source="feed",
        lines=tuple(lines),
    )


def sums(*lines: Line) -> dict[tuple[str, Commodity], int]:
    totals: dict[tuple[str, Commodity], int] = defaultdict(int)
    for line in lines:
        totals[line.account, line.commodity] += line.units
    return {key: units for key, units in totals.items() if units}


@pytest.mark.parametrize(
    "lines",
    [
        [Line(WALLET, ETH, -1)],
        [Line(WALLET, ETH, -2), Line(GAS, ETH, 1)],
        [Line(WALLET, ETH, -1), Line(IN_TRANSIT, USDC, 1)],
        [Line(WALLET, ETH, -1), Line(GAS, ETH, 1), Line(IN_TRANSIT, USDC, 1)],
    ],
)
def test_an_entry_that_does_not_balance_cannot_exist(lines: list[Line]) -> None:
    """Each commodity sums to zero on its own: an ETH is no answer to a missing USDC."""
    with pytest.raises(ValueError, match="does not balance"):
        entry(lines)


@given(wei, wei, wei, st.integers(0, 10**12).map(Usdc))
def test_a_payment_books_what_left_and_where_it_went(spent: Wei, gas: Wei, l1_fee: Wei, total: Usdc) -> None:
    """The wallet falls by swap, gas and L1 fee, the total is in transit; of a reverted one there are fees alone."""
    lines = payment_lines(spent, gas, l1_fee, total)
    entry(lines)
    booked = defaultdict(int, sums(*lines))
    assert booked[WALLET, ETH] == -(spent + gas + l1_fee).units
    assert (booked[GAS, ETH], booked[L1_FEE, ETH], booked[IN_TRANSIT, USDC]) == (gas.units, l1_fee.units, total.units)
    assert all(line.units for line in lines)
    lines = revert_lines(gas, l1_fee)
    entry(lines)
    booked = defaultdict(int, sums(*lines))
    assert (booked[WALLET, ETH], booked[GAS_REVERTED, ETH]) == (-(gas + l1_fee).units, gas.units)
    assert {account for account, _ in booked} <= {WALLET, GAS_REVERTED, L1_FEE}


@given(wei, st.integers(0, 10**12).map(Usdc), st.integers(1, 10**13))
def test_a_swap_costs_what_it_took_beyond_the_feed(spent: Wei, total: Usdc, price_e8: int) -> None:
    """Conversion holds what the dollars were worth, rounded down to the wei, and the swap's cost all the rest."""
    lines = payment_lines(spent, Wei(0), Wei(0), total, price_e8)
    entry(lines)
    booked = sums(*lines)
    worth = Fraction(total.units * 10**20, price_e8)  # 10^-6 dollars, in wei
    assert 0 <= worth - booked.get((CONVERSION, ETH), 0) < 1
    assert booked.get((SWAP_COST, ETH), 0) + booked.get((CONVERSION, ETH), 0) == spent.units


def test_a_payment_is_booked_at_its_own_price() -> None:
    """The price it was planned at decides what its swap cost; without one there is no such line."""
    demand = verified(operator(1)).demand
    told = inclusion(spent=Wei(3_600_000_000_000_000))
    one = Attempt(1, 1, plan(), b"", b"", None, None, 0, withdrawn=False, inclusion=told, booked=False)
    worth = demand.total.units * 10**18 // (3000 * 10**6)
    cost = sums(*attempt_entry("t1", one, demand).lines)[SWAP_COST, ETH]
    assert cost == told.spent.units - worth
    unpriced = replace(one, plan=plan(eth_price_e8=0))
    assert (SWAP_COST, ETH) not in sums(*attempt_entry("t1", unpriced, demand).lines)


@given(
    wei,
    wei,
    wei,
    st.integers(1, 2000 * 10**6).map(lambda n: Usd(Decimal(n) / 10**6)),
    st.integers(0, 10**8),
    st.integers(0, 10**8),
)
def test_fees_are_what_the_credits_do_not_explain(
    spent: Wei, gas: Wei, l1_fee: Wei, amount: Usd, provider: int, operators: int
) -> None:
    """Payment and posting together: transit is empty, credits are what was bought, fees are total − credits."""
    total = amount.usdc_down() + Usdc(provider + operators)
    lines = (*payment_lines(spent, gas, l1_fee, total), *credit_lines(amount, total, Usdc(operators)))
    entry(lines)
    booked = sums(*lines)
    assert (IN_TRANSIT, USDC) not in booked
    assert booked[CREDITS, CREDIT] == amount.usdc_down().units
    fees = booked.get((FEE_PROVIDER, USDC), 0) + booked.get((FEE_OPERATOR, USDC), 0)
    assert fees == (total - amount.usdc_down()).units
    assert booked.get((FEE_OPERATOR, USDC), 0) == operators
    assert booked.get((CONVERSION, ETH), 0) == spent.units


@pytest.mark.parametrize(
    ("total", "amount", "price"), [(10_500_000, "10", "1.05"), (10_000_000, "30", "0.3333"), (1, "0", "0")]
)
def test_the_price_of_a_credit(total: int, amount: str, price: str) -> None:
    """Dollars paid for one dollar of credit, to four decimals; nothing bought has none, and nothing divides by it."""
    assert usd_per_credit(Usdc(total), Usd.of(amount)) == Decimal(price)


def test_the_network_is_paid_for_every_attempt() -> None:
    """Gas of a reverted attempt counts beside that of the one that paid; an attempt in no block cost nothing."""
    one = Attempt(1, 1, plan(), b"", b"", None, None, 0, withdrawn=False, inclusion=None, booked=False)
    first = replace(one, inclusion=inclusion(success=False, gas=Wei(3), l1_fee=Wei(1)))
    second = replace(one, inclusion=inclusion(gas=Wei(5), l1_fee=Wei(2)))
    assert network_cost(topup(attempts=(first, one, second))) == (Wei(8), Wei(3))


# -- the journal ------------------------------------------------------------------------------------------------


PAID = payment_lines(Wei(2**200), Wei(2), Wei(1), Usdc(10_500_000))


@pytest.fixture
def booked(tmp_path: Path) -> Iterator[SqliteStore]:
    """A ledger whose journal has one entry."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        one = paid(store, operator(1))
        store.settle(one, one.attempts[0], replace(entry(PAID), topup_id=one.id), NOW_MS)
        yield store


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET text = 'x'",
        "UPDATE line SET units = '0'",
        "DELETE FROM entry",
        "DELETE FROM line",
        "DELETE FROM line WHERE n = 0",
        "INSERT OR REPLACE INTO line SELECT entry, n, account, commodity, '0' FROM line",
        (
            "REPLACE INTO entry SELECT id, account, topup, 0, text, tx_hash, charge_id, block_number, usd_value,"
            " price_source, hash FROM entry"
        ),
    ],
)
def test_the_journal_cannot_be_rewritten(booked: SqliteStore, tmp_path: Path, change: str) -> None:
    """Not even by hand: the database itself refuses to change, replace or delete an entry or a line."""
    before = booked.entries(ACCOUNT)
    with closing(sqlite3.connect(tmp_path / FILE)) as hand, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        hand.execute(change)
    assert booked.entries(ACCOUNT) == before


def test_an_entry_reads_back_as_it_was_booked(booked: SqliteStore) -> None:
    """Hash, block, value, source and every line survive the ledger unchanged, wei beyond 64 bits as well."""
    assert booked.entries(ACCOUNT) == [entry(PAID)]
    assert booked.entries("another") == []


@pytest.mark.parametrize("lines", [PAID, ()], ids=["payment", "nothing moved"])
def test_what_is_taken_back_is_what_was_booked(tmp_path: Path, lines: tuple[Line, ...]) -> None:
    """An entry of before the cost of swaps had an account: its reversal knows none, and leaves nothing behind."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        one = paid(store, operator(1))
        (attempt,) = one.attempts
        assert attempt.plan.eth_price_e8, "booked today it would have one"
        then = replace(entry(lines), topup_id=one.id, tx_hash=attempt.tx_hash)
        one = store.settle(one, attempt, then, NOW_MS)
        store.undone(one, attempt, reversal(store.booked(one.id, attempt), NOW_MS), None, NOW_MS)
        left: dict[str, int] = {}
        for line in (x for e in store.entries(ACCOUNT) for x in e.lines):
            left[line.account] = left.get(line.account, 0) + line.units
        assert not any(left.values())
        assert len(store.entries(ACCOUNT)) == 2
