"""Do statements add up, and do Beancount, hledger, spreadsheets and tax tools take them as they are?"""

import csv
import io
import json
import re
import subprocess
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.accounting import csv_reader
from tests.world.november import (
    HEAD,
    NOVEMBER,
    PROGRAMS,
    START_MS,
    accepting,
    checked,
    month,
    payment,
    posted,
    reading,
    written,
)
from topup.accounting.closing import Closed, due
from topup.accounting.formats import csv_journal, tax, text
from topup.accounting.journal import WALLET, Commodity, Entry, Line, reversal
from topup.accounting.statement import Period, draw
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.errors import SettingsError
from topup.domain.money import Usd, Usdc, Wei, plain

# -- what it says -------------------------------------------------------------------------------------------------


def test_the_closing_balance_is_what_the_provider_shows() -> None:
    """20 at the beginning, 10 bought, 7 bought elsewhere, 14 used: 23 are left, and nothing differs."""
    told = month()
    assert (told.bought, told.elsewhere, told.used) == (Usd.of(10), Usd.of(7), Usd.of(14))
    assert told.opening["assets:prepaid-credits", Commodity.CREDIT] == 20_000_000
    assert told.closing["assets:prepaid-credits", Commodity.CREDIT] == 23_000_000
    assert told.differences == ()


def test_a_refill_costs_all_that_left_the_wallet_for_it() -> None:
    """Failed attempts count; what the swap took beyond 10.50 / 2510 ETH stands in text, JSON and balances."""
    told, cost = month(), 4_200_000_000_000_000 - 10_500_000 * 10**12 // 2510
    (one,) = told.refills
    assert (one.credits, one.fees, one.usd) == (Usd.of(10), Usdc(500_000), Usd.of("10.52"))
    assert one.usd_per_credit == Decimal("1.052")
    assert one.network_wei == 2_000_000_000_000 + 30_000_000_001 + 1_000_000_000_000 + 5
    assert one.swap_wei == cost == told.closing["expenses:swap-cost", Commodity.ETH]
    shown = plain(Wei(cost).eth)
    assert any(f"swap cost {shown} ETH" in line for line in text.lines(told))
    assert text.document(told)["topups"][0]["swap_cost_eth"] == shown


def test_a_refill_counts_in_the_month_in_which_it_was_posted() -> None:
    """One that was paid and posted before, and of which an entry falls into this month, is not bought again."""
    before_ms = START_MS - DAY_MS
    late = replace(payment(START_MS + DAY_MS, "t0"), text="payment confirmed again", lines=())
    told = month(payment(before_ms, "t0"), posted(before_ms, "t0"), late)
    assert "t0" in [refill.topup_id for refill in told.refills]
    assert told.bought == month().bought


def test_a_payment_that_was_taken_back_has_cost_nothing() -> None:
    """A replaced block takes its dollars with it."""
    back = reversal(payment(START_MS + DAY_MS, "t2"), START_MS + 2 * DAY_MS)
    refills = month(payment(START_MS + DAY_MS, "t2"), back).refills
    (other,) = [r for r in refills if r.topup_id == "t2"]
    assert (other.usd, other.posted_ms, other.network_wei) == (Usd.of(0), None, 0)


def test_a_difference_is_said_in_dollars() -> None:
    """Of the balance, and of a payment without its credits; so is a month not over, and a balance never read."""
    (said,) = month(last=reading(START_MS + 6 * DAY_MS, "42", "19.60")).differences
    assert "23" in said and "22.4" in said and "not explained" in said
    told = month(payment(START_MS + 9 * DAY_MS, "t2"))
    assert any("10.5" in one and "not posted as credit yet" in one for one in told.differences)
    assert "not over" in month(now_ms=START_MS + 6 * DAY_MS).differences[0]
    told = draw("default", NOVEMBER, [], reading=None, head=None, now_ms=NOVEMBER.end_ms)
    assert "no top-ups" in text.lines(told), "nothing happened is an answer"
    assert "never read" in told.differences[0]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("month", "2026-13"), "--month"),
        (("month", "november"), "--month"),
        (("2026-11-03", "2026-11-01"), "after"),
        (("2026-11-31", "2026-12-01"), "--from"),
        (("2026-11-01", "2026-11-30T00:00:00+02:00"), "--to"),
        (("2026-11-01", "tomorrow"), "--to"),
    ],
    ids=str,
)
def test_a_wrong_period_names_the_option(given: tuple[str, str], named: str) -> None:
    """The sentence names what was given, the remedy how it is written. A month is its days, the last one included."""
    with pytest.raises(SettingsError, match=named) as refused:
        _ = Period.month(given[1]) if given[0] == "month" else Period.days(*given)
    assert refused.value.remedy
    assert Period.month("2026-12") == Period(date(2026, 12, 1), date(2026, 12, 31))


# -- the books are closed once a day ------------------------------------------------------------------------------


def test_the_books_close_at_the_last_reading_of_a_day_that_is_over() -> None:
    """Beside an open top-up, whose credits may show before they are booked, an earlier, calm reading is taken."""
    readings = [reading(START_MS + n * HOUR_MS, "20", str(n)) for n in range(1, 27)]
    last = Closed(START_MS, 20_000_000, 0, 0)
    assert due(readings[:22], last, []) is None
    for busy, hour in (([], 23), ([(START_MS + 21 * HOUR_MS, START_MS + 25 * HOUR_MS)], 20)):
        closed = due(readings, last, busy)
        assert closed is not None and closed.at_ms == START_MS + hour * HOUR_MS


# -- who reads it -------------------------------------------------------------------------------------------------

units = st.integers(-(10**24), 10**24).filter(bool)
words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@st.composite
def journal(draw_one: st.DrawFn) -> list[Entry]:
    """Any balanced entries of November, with text that somebody else chose."""
    entries = []
    for _ in range(draw_one(st.integers(0, 6))):
        moved = draw_one(st.lists(st.tuples(st.sampled_from(Commodity), units), min_size=1, max_size=3))
        lines = [x for c, n in moved for x in (Line(WALLET, c, n), Line("equity:conversion", c, -n))]
        entries.append(
            Entry(
                at_ms=draw_one(st.integers(START_MS, NOVEMBER.end_ms - 1)),
                topup_id=draw_one(words),
                text=draw_one(words),
                tx_hash=draw_one(st.none() | st.binary(min_size=32, max_size=32)),
                charge_id=draw_one(words),
                block_number=draw_one(st.none() | st.integers(0, 2**60)),
                usd_value=draw_one(st.none() | st.decimals(0, 10**6, places=6).map(Usd)),
                price_source=draw_one(st.sampled_from(["feed", "par", "provider", "none"])),
                lines=tuple(lines),
            )
        )
    return entries


@given(journal())
def test_csv_comes_back_unchanged(entries: list[Entry]) -> None:
    """The same entries and bytes, whatever text stands in them; a cell that begins like a formula is a number."""
    told = csv_journal.write(entries)
    assert csv_reader.read(told) == entries
    assert csv_journal.write(csv_reader.read(told)) == told
    for row in list(csv.reader(io.StringIO(told, newline="")))[1:]:
        for cell in row:
            if cell[:1] in csv_journal.FORMULA and cell[:1] != "'":
                Decimal(cell)


def test_json_holds_exact_amounts_as_text() -> None:
    """No float anywhere: 18 decimals of ETH survive, and the balances are those of the statement."""
    told = json.loads(json.dumps(text.document(month())))
    assert told["closing"]["assets:wallet"]["ETH"] == "-0.004203030000000006"
    assert told["topups"][0]["usd_per_credit"] == "1.052"
    assert told["ledger_head"] == HEAD


@pytest.mark.parametrize("program", PROGRAMS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=journal())
def test_bookkeeping_programs_accept_any_statement(tmp_path: Path, program: str, entries: list[Entry]) -> None:
    """`bean-check` and `hledger check --strict` find every transaction balanced and every closing balance asserted."""
    file = tmp_path / "statement.txt"
    file.write_text(written(month(payment(START_MS - DAY_MS, "t0"), *entries), program), encoding="utf-8")
    checked(accepting(program, file))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_changed_amount_is_not_accepted(tmp_path: Path, program: str) -> None:
    """The checks can fail: one digit more in one posting, and the file is refused."""
    file = tmp_path / "statement.txt"
    changed = re.sub("(    [Aa]ssets:[Ww]allet  -)", r"\g<1>1", written(month(), program))
    file.write_text(changed, encoding="utf-8")
    assert subprocess.run(accepting(program, file), capture_output=True, check=False).returncode != 0


def test_tax_programs_get_what_left_the_wallet_with_its_fee() -> None:
    """The payment with its gas and the gas of the reverted one: costs for Koinly, spends for rotki; no credits."""
    moved = [("0.0042", "ETH", "0.000002030000000001"), ("0.000001000000000005", "ETH", "")]
    rows = list(csv.DictReader(io.StringIO(tax.koinly(month()), newline="")))
    assert [(r["Sent Amount"], r["Sent Currency"], r["Fee Amount"]) for r in rows] == moved
    assert [r["Label"] for r in rows] == ["cost", "cost"]
    assert rows[0]["Date"] == "2026-11-02 00:00:00 UTC"
    assert (rows[0]["Net Worth Amount"], rows[0]["Net Worth Currency"]) == ("10.51", "USD")
    rows = list(csv.DictReader(io.StringIO(tax.rotki(month()), newline="")))
    assert [(r["Amount"], r["Currency"], r["Fee"]) for r in rows] == moved
    assert {(r["Type"], r["Location"]) for r in rows} == {("Spend", "blockchain")}
    assert int(rows[0]["Timestamp"]) == START_MS + DAY_MS
