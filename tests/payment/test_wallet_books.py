"""Does the wallet in the books equal the wallet on the chain, whatever others do with it?"""

import asyncio
import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accounting import csv_reader
from tests.world import november
from tests.world.builders import ACCOUNT, CHAIN_ID, NOW_MS, operator
from tests.world.builders import WALLET as ADDRESS
from tests.world.idle import Account20, Heard, Leap
from tests.world.ledger import IN_BLOCK, MEMORY, charged, signed
from topup.accounting.closing import OPENING, PAD, BalanceAssertion, Closed, wallet_due, wallet_entries
from topup.accounting.formats import csv_journal, plaintext, tax, text
from topup.accounting.journal import WALLET, Commodity, Entry, payment_lines, reversal, revert_lines
from topup.accounting.statement import Period, Statement, draw
from topup.app import assembly
from topup.app.reckoning import statement_of
from topup.app.settings import load
from topup.domain.credits import DAY_MS
from topup.domain.errors import ChainUnknown, SettingsError, SignerError, TopupError
from topup.domain.events import CycleFailed, WalletUnchecked
from topup.domain.lifecycle import Fact
from topup.domain.money import Asset, Usd, Usdc, Wei
from topup.ledger.store import SqliteStore
from topup.payment.config import Account, Route, Terms
from topup.payment.cycle import Cycle
from topup.ports.chain import Head, Holdings
from topup.ports.rail import Rail

ETH = Commodity.ETH
BEGAN = 10**18
PRICE_E8 = 3000 * 10**8
MONTH = Period.month(datetime.fromtimestamp(NOW_MS // 1000, UTC).strftime("%Y-%m"))


def balance_assertion(units: int, block: int = 100, commodity: Commodity = ETH) -> BalanceAssertion:
    return BalanceAssertion(CHAIN_ID, ADDRESS, commodity, block, NOW_MS + block, units)


@dataclass
class World:
    """A chain of one wallet, and the ledger that follows it."""

    store: SqliteStore
    block: int = 1
    moves: list[tuple[int, int]] = field(default_factory=list)  # block and wei, of all that stands on the chain
    booked: list[Entry] = field(default_factory=list)
    late: list[Entry] = field(default_factory=list)
    foreign: int = BEGAN

    def units(self) -> int:
        """What the wallet holds."""
        return BEGAN + sum(wei for _, wei in self.moves)

    def ours(self, kind: str, wei: int) -> Entry:
        """Put a transaction of ours on the chain."""
        lines = (
            payment_lines(Wei(wei), Wei(7), Wei(1), Usdc(10_500_000), PRICE_E8)
            if kind == "pay"
            else revert_lines(Wei(wei), Wei(1))
        )
        one = Entry(NOW_MS, "", kind, None, "", self.block, Usd.of(1), "feed", lines)
        self.moves.append((self.block, sum(x.units for x in lines if x.account == WALLET)))
        return one

    def book(self, entry: Entry) -> None:
        """Enter it in the journal."""
        self.store.close_books(ACCOUNT, Closed(NOW_MS, 0, 0, 0), [entry], NOW_MS)

    def act(self, what: str, wei: int) -> None:
        """Let one thing happen, in a block of its own."""
        self.block += 1
        if what in ("pay", "revert"):
            self.booked.append(self.ours(what, wei))
            self.book(self.booked[-1])
        elif what == "lost":
            self.late.append(self.ours("pay", wei))
        elif what == "adopt" and self.late:
            self.booked.append(self.late.pop())
            self.book(self.booked[-1])
        elif what == "undo" and self.booked:
            gone = self.booked.pop()
            assert gone.block_number is not None
            self.moves = [one for one in self.moves if one[0] != gone.block_number]
            self.book(reversal(gone, NOW_MS))
        elif what in ("deposit", "withdrawal"):
            moved = wei if what == "deposit" else -wei
            self.moves.append((self.block, moved))
            self.foreign += moved
        elif what == "look":
            self.look()

    def look(self) -> None:
        """Close the wallet's books at this block, as a pass does."""
        self.block += 1
        at = balance_assertion(self.units(), self.block)
        first = not self.store.balance_assertions(ACCOUNT)
        booked = self.store.wallet_booked(ACCOUNT, ETH, at.block)
        self.store.close_wallet(ACCOUNT, at, wallet_entries(at, booked, PRICE_E8, first=first), NOW_MS)
        assert self.store.balance_assertions(ACCOUNT) == [at]
        assert self.store.wallet_booked(ACCOUNT, ETH, at.block) == self.held(WALLET) == at.units

    def held(self, *accounts: str) -> int:
        """What the journal says of these accounts, in wei."""
        lines = (x for e in self.store.entries(ACCOUNT) for x in e.lines)
        return sum(x.units for x in lines if x.account in accounts and x.commodity is ETH)


ACTS = st.sampled_from(["pay", "revert", "lost", "adopt", "undo", "deposit", "withdrawal", "look"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(1, 10**16)), max_size=30))
def test_the_books_follow_the_wallet_to_the_wei(acts: list[tuple[str, int]]) -> None:
    """After each checkpoint both are equal; once all is adopted, what others moved is booked once, and nothing else."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, closing(SqliteStore.open_writer(Path(folder))) as store:
        world = World(store)
        for what, wei in acts:
            world.act(what, wei)
        for _ in list(world.late):
            world.act("adopt", 1)
        world.look()
        world.look()
        assert -world.held(OPENING, PAD) == world.foreign
        assert store.audit().wrong is None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open_writer(tmp_path / "ledger")) as made:
        yield made


def test_the_first_checkpoint_is_the_opening_balance() -> None:
    """Two ETH were there; what a payment took meanwhile was booked, and is added to what is left."""
    (entry,) = wallet_entries(balance_assertion(15 * 10**17), -5 * 10**17, PRICE_E8, first=True)
    assert (entry.text, entry.usd_value, entry.price_source) == ("opening balance of the wallet", Usd.of(6000), "feed")
    assert {(x.account, x.units) for x in entry.lines} == {(WALLET, 2 * 10**18), (OPENING, -2 * 10**18)}
    assert (entry.block_number, entry.at_ms, entry.tx_hash) == (100, NOW_MS + 100, None)
    assert wallet_entries(balance_assertion(5), 5, PRICE_E8, first=False) == [], "where nothing moved"


def test_what_somebody_takes_is_named() -> None:
    """A withdrawal of half an ETH, at a price that nobody knows; a tax program is told of no cost. Dollars: at par."""
    (entry,) = wallet_entries(balance_assertion(5 * 10**17), 10**18, None, first=False)
    assert (entry.text, entry.usd_value, entry.price_source) == ("wallet moved by others", None, "none")
    assert {(x.account, x.units) for x in entry.lines} == {(WALLET, -5 * 10**17), (PAD, 5 * 10**17)}
    told = draw(ACCOUNT, MONTH, [entry], reading=None, head=None, now_ms=MONTH.end_ms)
    assert tax.rotki(told).splitlines()[1].startswith("Withdrawal,blockchain,ETH,0.5,")
    assert ",0.5,ETH,,,,,,,,wallet moved by others," in tax.koinly(told)
    for commodity in (Commodity.USDC, Commodity.USDC_E):
        (entry,) = wallet_entries(balance_assertion(12_500_000, commodity=commodity), 0, None, first=False)
        assert (entry.usd_value, entry.price_source) == (Usd.of("12.5"), "par")


def test_the_wallet_is_looked_at_once_a_day() -> None:
    """Not twice on one UTC day, and at once on the next."""
    midnight = NOW_MS // DAY_MS * DAY_MS
    assert not wallet_due(midnight, midnight + DAY_MS - 1)
    assert wallet_due(midnight + DAY_MS - 1, midnight + DAY_MS)


@pytest.mark.parametrize(("booked", "said"), [(10**18, 0), (15 * 10**17, 1)])
def test_a_statement_names_what_the_books_do_not_know(booked: int, said: int) -> None:
    """The wallet holds one ETH, the books say one and a half: both figures and the block stand there."""
    wallet = [(balance_assertion(10**18), booked)]
    told = draw(ACCOUNT, MONTH, [], wallet=wallet, reading=None, head=None, now_ms=MONTH.end_ms)
    found = [one.replace("1.000000000000000000", "1") for one in told.differences if "the wallet holds" in one]
    assert len(found) == said
    assert all("1 ETH on chain at block 100, the books say 1.5" in one for one in found)


class Told:
    """A rail that only tells what the wallet holds, or that nobody answers."""

    def __init__(self, clock: Leap) -> None:
        self.clock = clock
        self.silent: TopupError | None = None
        self.asked_ms: list[int] = []

    async def holdings(self, wallet: bytes) -> Holdings:
        assert wallet == ADDRESS
        self.asked_ms.append(self.clock.now_ms())
        if self.silent is not None:
            raise self.silent
        now_s = self.clock.now_ms() // 1000
        return Holdings(Head(now_s, b"\x01" * 32, now_s), {Asset.ETH: BEGAN, Asset.USDC: 0}, PRICE_E8)


def passes(
    tmp_path: Path,
    *,
    live: bool,
    silent: TopupError | None = None,
    silent_from: int = 0,
    sink: Heard | None = None,
    started_anew: bool = False,
) -> tuple[Told, list[Entry], list[BalanceAssertion]]:
    """Three days of hourly passes of an account that needs nothing; `started_anew` by a process for each.

    The chain is silent from pass `silent_from` on.
    """
    loaded = load({"TOPUP_CONFIG": "/dev/null", "TOPUP_STATE_DIR": str(tmp_path), "TOPUP_API__KEY": "k"})
    clock, store = Leap(), SqliteStore.open_writer(tmp_path)
    rail = Told(clock)
    terms = Terms(
        Account(ACCOUNT, ADDRESS, (Route("x402", CHAIN_ID), Route("coinbase", CHAIN_ID))),
        replace(assembly.limits(loaded), live=live),
        assembly.ceilings(loaded),
        assembly.pace(loaded),
    )

    def rails(name: str) -> Rail:
        assert live, "an account that pays nothing needs no rail"
        assert name == "coinbase" or silent is not None
        return cast("Rail", rail)

    sink, api = sink or Heard(), Account20(clock)

    def start() -> Cycle:
        return Cycle(terms, api=api, rails=rails, store=store, clock=clock, sink=sink, rpc_requests=lambda: 0)

    async def run() -> None:
        cycle = start()
        for hour in range(3 * 24):
            rail.silent = silent if hour >= silent_from else None
            await cycle.run()
            cycle = start() if started_anew else cycle
            await clock.sleep(3600)

    asyncio.run(run())
    told = store.entries(ACCOUNT), store.balance_assertions(ACCOUNT)
    store.close()
    return rail, *told


def test_a_wallet_that_pays_is_looked_at_each_day(tmp_path: Path) -> None:
    """Three days touch three midnights: one opening balance, a checkpoint of both coins, nothing moved."""
    rail, entries, kept = passes(tmp_path, live=True)
    days = [ms // DAY_MS for ms in rail.asked_ms]
    assert days == sorted(set(days))
    assert len(days) in (2, 3)
    assert [e.text for e in entries if e.block_number] == ["opening balance of the wallet"]
    assert {(one.commodity, one.units) for one in kept} == {(ETH, BEGAN), (Commodity.USDC, 0)}


@pytest.mark.parametrize(
    "silent", [ChainUnknown("nobody answers"), SignerError("no key", remedy="r"), SettingsError("no realm", remedy="r")]
)
def test_a_silent_chain_is_asked_each_hour(tmp_path: Path, silent: TopupError) -> None:
    """Nothing is booked from silence, and the pass goes on, whatever keeps the chain from being asked."""
    rail, entries, kept = passes(tmp_path, live=True, silent=silent)
    hours = [ms // 3_600_000 for ms in rail.asked_ms]
    assert len(set(hours)) > 24
    assert (kept, [e for e in entries if e.block_number]) == ([], [])


@pytest.mark.parametrize("started_anew", [False, True], ids=["a daemon", "a process for each pass"])
def test_a_wallet_that_is_not_looked_at_is_a_warning_once_a_day(tmp_path: Path, *, started_anew: bool) -> None:
    """From six hours after the look was due, with the provider's own words; every pass goes on."""
    heard, pruned = Heard(), ChainUnknown("no provider gave a usable answer: missing trie node")
    rail, _, _ = passes(tmp_path, live=True, silent=pruned, sink=heard, started_anew=started_anew)
    said = heard.of(WalletUnchecked)
    assert len({ms // DAY_MS for ms in rail.asked_ms}) == 3
    assert len(rail.asked_ms) > 48, "each hour, and said on each of the three days"
    assert [(one.chain_id, one.last_h, one.level) for one in said] == [(CHAIN_ID, None, "warning")] * 3
    assert all("missing trie node" in one.detail for one in said)
    assert heard.of(CycleFailed) == []


def test_a_chain_that_falls_silent_is_news_after_hours(tmp_path: Path) -> None:
    """Looked at within the first hour of a day, silent on the next: said after six hours of it, and a day later.

    Three days on which the chain answers are no news, and in observe mode nothing is asked of any chain.
    """
    heard, calm = Heard(), Heard()
    silent = ChainUnknown("missing trie node")
    _, _, kept = passes(tmp_path / "silent", live=True, silent=silent, silent_from=8, sink=heard)
    assert len(kept) == 2
    assert [one.last_h for one in heard.of(WalletUnchecked)] == [30, 54]
    passes(tmp_path / "calm", live=True, sink=calm)
    assert calm.of(WalletUnchecked) == []
    rail, _, kept = passes(tmp_path / "observed", live=False)
    assert (rail.asked_ms, kept) == ([], [])


# -- whose wallet -------------------------------------------------------------------------------------------------

OLD, NEW = ADDRESS, b"\x0b" * 20


def paid_from(store: SqliteStore, wallet: bytes, name: str, seed: int) -> None:
    """A booked payment of one wallet; what it is proven by does not matter here."""
    one = signed(store, charged(store, operator(seed), id=name, wallet=wallet))
    one = store.intend(one, one.moved_ms)
    one = store.included(one, one.attempts[-1], IN_BLOCK, Fact.PAID, one.moved_ms)
    (attempt,) = one.attempts
    entry = Entry(NOW_MS + 1, name, "payment", attempt.tx_hash, "c", 7, None, "none", revert_lines(Wei(3), Wei(1)))
    one = store.settle(one, attempt, entry, NOW_MS + 1)
    store.move(one, Fact.HALT, NOW_MS + 1)
    store.move(store.topup(name), Fact.FAIL, NOW_MS + 1)


def used(store: SqliteStore, *wallets: bytes) -> Statement:
    """A statement of this month, in which each wallet has paid once and was held against the chain."""
    for n, wallet in enumerate(wallets):
        at = replace(balance_assertion(BEGAN + n, block=100 + n), wallet=wallet)
        booked = store.wallet_booked(ACCOUNT, ETH, at.block)
        store.close_wallet(ACCOUNT, at, wallet_entries(at, booked, PRICE_E8, first=n == 0), NOW_MS)
    return statement_of(store, ACCOUNT, MONTH, MONTH.end_ms)


def test_a_statement_names_the_wallet_once_there_are_two(store: SqliteStore) -> None:
    """The key was changed: each payment, and what each checkpoint found, names its wallet in every form but text."""
    paid_from(store, OLD, "t1", 1)
    paid_from(store, NEW, "t2", 2)
    told = used(store, OLD, NEW)
    whose = {(e.text, e.topup_id, e.block_number): told.wallet(e) for e in told.entries}
    old, new = "0x" + OLD.hex(), "0x" + NEW.hex()
    assert whose == {
        ("payment", "t1", 7): old,
        ("payment", "t2", 7): new,
        ("opening balance of the wallet", "", 100): old,
        ("wallet moved by others", "", 101): new,
    }
    assert {one["wallet"] for one in text.document(told)["entries"]} == {old, new}
    for written in (plaintext.beancount(told), plaintext.hledger(told), tax.koinly(told), tax.rotki(told)):
        assert (written.count(old), written.count(new)) == (2, 2)
    rows = list(csv.DictReader(io.StringIO(csv_journal.write(told.entries, told.wallets), newline="")))
    assert {(x["account"] == WALLET, x["wallet"] != "") for x in rows} == {(True, True), (False, False)}
    assert csv_reader.read(csv_journal.write(told.entries, told.wallets)) == list(told.entries)


def test_a_statement_of_one_wallet_names_none(store: SqliteStore) -> None:
    """It goes without saying, and the files stay as they were."""
    paid_from(store, OLD, "t1", 1)
    told = used(store, OLD)
    assert len(told.entries) == 2
    assert told.wallets == {}
    assert csv_journal.write(told.entries, told.wallets) == csv_journal.write(told.entries)
    assert {one["wallet"] for one in text.document(told)["entries"]} == {None}
    assert "wallet:" not in plaintext.beancount(told).replace("Assets:Wallet", "")


@pytest.mark.parametrize("program", november.PROGRAMS)
def test_bookkeeping_accepts_the_wallets_address(store: SqliteStore, tmp_path: Path, program: str) -> None:
    """The address stands where Beancount and hledger look for what belongs to a transaction."""
    paid_from(store, OLD, "t1", 1)
    paid_from(store, NEW, "t2", 2)
    file = tmp_path / "statement"
    file.write_text(november.written(used(store, OLD, NEW), program), encoding="utf-8")
    november.checked(november.accepting(program, file))
