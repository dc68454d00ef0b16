"""Is a ledger that was lost, or restored from an old copy, rebuilt from the chain, to the wei and without paying again?

Stories with the real commands, on the chain in this process and on anvil. A world lasts one story.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_keys.datatypes import PrivateKey

from tests.world import ledger, worlds
from tests.world.builders import NOW_MS, WALLET, operator
from tests.world.served import FINAL, Served, served
from tests.world.stage import Silence, sent_beside
from tests.world.stage import refilled as refilled_there
from tests.world.stand import failing, lie
from tests.world.tempo import buying
from tests.world.tempo import selling as mpp_world
from topup.accounting.reconciliation import Adopted
from topup.app.connections import opened
from topup.app.settings import load
from topup.chain import history
from topup.domain.errors import ChainUnknown, Exit
from topup.domain.lifecycle import Broadcaster, State, TopUp
from topup.domain.money import Wei
from topup.ledger.location import FILE
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.rpc import Drop, Intercept, Next, RpcError
from topup.sandbox.world import World, embedded
from topup.sandbox.x402 import selling

ADOPT = ("reconcile", "--adopt", "--yes")
# What 10 dollars of credit cost in the sandbox, and the ceiling on fees by which the caps count what was paid.
PAID_USD = "10.5"
TABLES = ("topup", "move", "charge", "slot", "attempt", "evidence", "entry", "line", "adopted", "transfer")


@pytest.fixture(params=["embedded", pytest.param("anvil", marks=pytest.mark.long)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("tests.world.served.embedded", worlds.maker(request.param))
    with served(tmp_path) as one:
        yield one


def lose(place: Served) -> None:
    shutil.rmtree(place.state)


def keep(place: Served, name: str) -> Path:
    """Copy the ledger as a backup would; return where it is."""
    target = place.directory / name
    target.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(place.state / FILE)) as own, closing(sqlite3.connect(target / FILE)) as copy:
        own.backup(copy)
    return target


@contextmanager
def bent(place: Served, how: Intercept) -> Iterator[None]:
    place.world.rpc.intercept = how
    try:
        yield
    finally:
        place.world.rpc.intercept = None


def beside(place: Served, how: Intercept) -> str:
    """Let a second provider answer like this; return the URLs of both."""
    liar = place.world.provider()
    liar.intercept = how
    return f"{place.world.rpc.url},{liar.url}"


SILENT: Final = lie("eth_getLogs", to=lambda _: [])


def restore(place: Served, copy: Path) -> None:
    lose(place)
    shutil.copytree(copy, place.state)


def rows(place: Served) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(place.state / FILE)) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}  # noqa: S608


def whats(told: dict[str, Any], part: str = "differences") -> list[str]:
    return sorted(d["what"] for d in told[part])


def elsewhere(place: Served, *, blocks: int = FINAL, **sent: Any) -> str:
    """Use the wallet's key beside topup, for a plain transfer unless said otherwise; return the transaction's hash."""
    terms: dict[str, Any] = {"to": "0x" + "77" * 20, "value": 10**15} | sent
    tx_hash: str = place.world.do(lambda: sent_beside(place.world, **terms))
    place.mine(blocks)
    return tx_hash


def named(told: dict[str, Any], what: str, part: str = "differences") -> Any:
    (one,) = [d for d in told[part] if d["what"] == what]
    return one


# -- lost, restored -------------------------------------------------------------------------------------------


def test_a_ledger_deleted_after_two_payments_is_rebuilt(anywhere: Served) -> None:
    """Both payments come back with their cost to the wei, the caps count them, and the next refill is booked too."""
    place = anywhere
    place.buy()
    place.buy()
    lose(place)

    told = place.document("reconcile")
    assert told["exit_code"] == 3
    assert whats(told) == ["nonce_ahead", "unknown_payment", "unknown_payment"]
    assert all(d["remedy"] for d in told["differences"])
    assert place.topups() == []

    told = place.document(*ADOPT)
    assert told["exit_code"] == 0
    assert (whats(told), whats(told, "adopted")) == ([], ["nonce_ahead", "unknown_payment", "unknown_payment"])
    assert [(t.state, t.why, str(t.amount)) for t in place.topups()] == [(State.DONE, "adopted", PAID_USD)] * 2
    assert place.books_match()
    assert Decimal(place.document("status")["spent_24h_usd"]) >= 2 * Decimal(PAID_USD)
    assert place.document("status")["paused"]

    place.run("resume")
    place.low()
    told = place.document("once", "--yes", "--force", policy__cap_24h="20")
    assert (told["exit_code"], told["why"]) == (3, "cap_24h")
    place.buy()
    assert place.payments() == 3
    assert place.books_match()
    assert place.document("reconcile")["exit_code"] == 0


def test_a_copy_from_before_the_last_payment(place: Served) -> None:
    """The one payment it lacks is named with its hash and taken over; what the copy knew stays as it was."""
    place.buy()
    copy = keep(place, "yesterday")
    place.buy()
    lost = place.topups()[0]
    restore(place, copy)

    done = place.run("once", "--amount", "10", "--yes", "--force")
    assert place.payments() == 2, done.stdout
    payment = named(place.document("reconcile"), "unknown_payment")
    assert lost.paying is not None and lost.paying.hash is not None
    assert payment["tx_hash"] == "0x" + lost.paying.hash.hex()
    assert place.run(*ADOPT).returncode == 0
    assert place.books_match()


class Copying:
    """A ledger that is copied after each step of a top-up, as a backup might be at any moment."""

    def __init__(self, place: Served) -> None:
        self.place, self.store = place, SqliteStore.open_writer(place.state)
        self.copies: dict[str, Path] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        if not callable(method):
            return method

        def copied(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            if isinstance(result, TopUp) and name not in ("topup", "open_topup"):
                self.copy(f"{name}-{result.state}")
            return result

        return copied

    def copy(self, name: str) -> None:
        if name not in self.copies:
            self.copies[name] = keep(self.place, f"copies/{name}")


@dataclass(frozen=True)
class Refilled:
    """A world after one refill, with a copy of the ledger from after each of its steps."""

    place: Served
    copies: dict[str, Path]

    def restored(self, step: str, *changes: str) -> Served:
        """Put the copy from after this step in place, changed by these statements."""
        restore(self.place, self.copies[step])
        with closing(sqlite3.connect(self.place.state / FILE)) as db, db:
            for change in changes:
                db.execute(change)
        return self.place


@pytest.fixture(scope="module")
def refilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refilled]:
    with served(tmp_path_factory.mktemp("refilled")) as place:
        place.low()
        settings = load(place.environment())

        async def refill() -> dict[str, Path]:
            copying = Copying(place)
            async with opened(settings, copying, Silence()) as connections:  # type: ignore[arg-type]
                for _ in range(60):
                    rest = await connections.cycle.run()
                    if rest.topup is not None and rest.topup.state is State.DONE:
                        return copying.copies
                    await asyncio.sleep(min(1, rest.next_s))
            raise AssertionError(f"never done: {rest}")

        copies = asyncio.run(refill())
        place.mine()
        yield Refilled(place, copies)


# The step after which the copy was made, and what the chain then shows that the copy does not know.
STEPS = {
    "begin-decided": "unknown_payment",
    "ask-asking": "unknown_payment",
    "answered-charged": "lost_attempt",
    "proven-charged": "lost_attempt",
    "reserve-reserved": "lost_attempt",
    "signed-signed": "lost_attempt",
    "intend-sent": "unseen",
    "delivered-sent": "unseen",
}


@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=[] if s in ("proven-charged", "intend-sent") else [pytest.mark.long]) for s in STEPS],
)
def test_a_copy_from_the_middle_of_a_payment_never_pays_again(refilled: Refilled, step: str) -> None:
    """At whatever step it was made: the refill is found on the chain and ends, paid once, booked to the wei."""
    place = refilled.restored(step)
    told = place.document(*ADOPT)
    assert STEPS[step] in whats(told) + whats(told, "adopted")
    place.run("once", "--yes")
    ended = {t.state for t in place.topups()}
    assert ended == ({State.DROPPED, State.DONE} if STEPS[step] == "unknown_payment" else {State.DONE})
    assert place.books_match()
    assert place.document("reconcile")["exit_code"] == 0
    assert place.payments() == 1


def test_every_step_before_the_payment_was_seen_has_its_copy(refilled: Refilled) -> None:
    """A new step of the flow needs its story here."""
    steps = list(refilled.copies)
    assert set(steps[: steps.index("included-paid")]) == set(STEPS)


@pytest.mark.parametrize("state", ["sent", "deathwatch", "halted"])
def test_a_bump_that_the_copy_never_saw(refilled: Refilled, state: str) -> None:
    """The bytes that paid are not those the copy holds: they are given back to the top-up, which then ends as paid."""
    changed = ("UPDATE attempt SET raw = x'02ff', hash = zeroblob(32)", f"UPDATE topup SET state = '{state}'")  # noqa: S608
    place = refilled.restored("intend-sent", *changed)
    assert "lost_attempt" in whats(place.document(*ADOPT), "adopted")
    place.run("once", "--yes")
    (topup,) = place.topups()
    assert (topup.state, place.payments(), place.books_match()) == (State.DONE, 1, True)


def test_a_payment_of_a_top_up_that_ended_unpaid(refilled: Refilled) -> None:
    """What ended stays ended; the payment becomes a top-up of its own, to which the charge's id now belongs."""
    place = refilled.restored("proven-charged", "UPDATE topup SET state = 'dropped', reason = 'no_longer_needed'")
    payment = named(place.document(*ADOPT), "unknown_payment", "adopted")
    ended, adopted = sorted(place.topups(), key=lambda t: t.why == "adopted")
    assert (ended.state, adopted.state, payment["topup_id"]) == (State.DROPPED, State.DONE, ended.id)
    assert (place.books_match(), place.document("reconcile")["exit_code"]) == (True, 0)


def test_a_top_up_that_would_have_asked_for_another_charge(refilled: Refilled) -> None:
    """The copy took its charge for useless when it had been paid: the top-up halts, looks, and ends as paid."""
    changed = ("UPDATE topup SET state = 'decided'", "UPDATE charge SET abandoned = 'too old'")
    place = refilled.restored("proven-charged", *changed)
    assert "lost_attempt" in whats(place.document(*ADOPT), "adopted")
    assert [t.state for t in place.topups()] == [State.HALTED]
    place.run("once", "--yes")
    (topup,) = place.topups()
    assert (topup.state, len(topup.charges), place.payments()) == (State.DONE, 1, 1)
    assert place.books_match()


def test_a_payment_that_no_provider_shows(refilled: Refilled) -> None:
    """The ledger says paid and the logs are silent: that is told, and --adopt leaves it to a person."""
    place = refilled.restored(list(refilled.copies)[-1])
    with bent(place, SILENT):
        told = place.document(*ADOPT)
    assert (told["exit_code"], whats(told), told["adopted"]) == (3, ["not_on_chain"], [])
    told = place.document("reconcile", "--since", "2020-01-01")
    assert (told["schema"], told["exit_code"], told["payments_on_chain"], told["first_block"]) == (1, 0, 1, 0)
    done = place.run("reconcile", "--since", "yesterday")
    assert (done.returncode, "neither a block nor a day" in done.stderr) == (2, True)


def test_a_payment_that_the_logs_withhold_is_found_by_its_nonce(refilled: Refilled) -> None:
    """Every nonce has to be explained; with neither a terminal nor --yes what differs is shown and stays."""
    place = refilled.place
    lose(place)
    done = place.run("reconcile", "--adopt")
    assert (done.returncode, "--yes" in done.stderr, place.topups()) == (3, True, [])
    lose(place)  # with what that look has found
    with bent(place, SILENT):
        told = place.document(*ADOPT)
    assert (told["payments_on_chain"], whats(told, "adopted")) == (0, ["nonce_ahead", "unknown_payment"])
    assert place.books_match()


# -- the key used elsewhere -----------------------------------------------------------------------------------


@pytest.mark.long
def test_a_plain_transfer_is_named_by_its_hash(place: Served) -> None:
    """It is no payment: adopting records it with what it took, and the next refill goes through."""
    place.buy()
    sent = elsewhere(place)
    foreign = named(place.document("reconcile"), "foreign")
    assert (foreign["tx_hash"], foreign["nonce"]) == (sent, 1)

    place.low()
    assert place.document("once", "--yes", "--force")["why"] == "nonce_ahead"
    assert place.payments() == 1

    assert place.run(*ADOPT).returncode == 0
    assert place.run("once", "--yes", "--force").returncode == 0
    place.mine()
    assert place.payments() == 2
    told = place.document("reconcile")
    assert (told["exit_code"], told["notes"]) == (0, [])
    assert place.document(*ADOPT)["adopted"] == []
    with closing(sqlite3.connect(place.state / FILE)) as db:
        ((cost, by),) = db.execute("SELECT cost, by FROM adopted").fetchall()
    assert by
    lines = [x for e in SqliteStore.open_reader(place.state).entries("default") for x in e.lines]
    booked = -sum(x.units for x in lines if x.account == "assets:wallet")
    held = place.world.do(lambda: place.world.balance(place.world.wallet))
    assert place.world.wallet_wei - held == booked + int(cost)


def test_a_nonce_taken_by_an_authorization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key let another act for the wallet (EIP-7702): the nonce is gone without a transaction, and is named so."""
    monkeypatch.setattr("tests.world.served.embedded", worlds.maker("anvil"))
    with served(tmp_path) as place:
        world, other = place.world, Account.create()
        given = {"chainId": contracts.CHAIN_ID, "address": "0x" + "77" * 20, "nonce": 0}
        granted = [Account.sign_authorization(given, world.key.to_hex())]
        world.do(lambda: world.chain.set_balance(other.address, 10**18))
        key, more = PrivateKey(bytes(other.key)), {"to": other.address, "value": 0, "gas": 100_000}
        world.do(lambda: sent_beside(world, key, type=4, authorizationList=granted, **more))
        place.mine()
        one = named(place.document("reconcile"), "unexplained_nonce")
        assert (one["nonce"], "EIP-7702" in one["detail"], one["block"] is not None) == (0, True, True)
        assert place.document(*ADOPT)["exit_code"] == 0
        assert place.document("reconcile")["differences"] == []


def test_the_balance_is_held_against_the_books(place: Served) -> None:
    """ETH that came in is a note; a single wei that is gone and that nothing explains is a difference."""
    place.buy()
    world = place.world
    held = world.do(lambda: world.balance(world.wallet))
    for change, code, differs in ((1, 0, []), (-1, 3, ["balance"])):
        world.do(lambda wei=held + change: world.chain.set_balance(world.wallet, wei))  # type: ignore[misc]
        place.mine()
        told = place.document("reconcile")
        assert (told["exit_code"], whats(told)) == (code, differs)
        assert [n for n in told["notes"] if "came in" in n] == ([] if differs else told["notes"])


def test_without_old_state_a_transaction_is_named_by_its_nonce(place: Served) -> None:
    """No provider can date it: the command asks where to begin, then names what it can by nonce alone."""
    elsewhere(place)

    def old(params: list[Any]) -> bool:
        newest = int(place.world.chain.rpc("eth_blockNumber", []), 16)
        return params[1] not in ("latest", "pending") and int(params[1], 16) < newest - 5

    place.world.rpc.intercept = failing(
        "eth_getTransactionCount", RpcError(-32000, "missing trie node 5f3a (path )"), old
    )
    asked = place.run("reconcile")
    assert (asked.returncode, "--since" in asked.stderr) == (2, True), asked.stderr
    told = place.document("reconcile", "--since", "1")
    one = named(told, "unexplained_nonce")
    assert (one["nonce"], one["tx_hash"], told["exit_code"]) == (0, None, 3)


class Narrow:
    """A provider that grants few blocks of logs, and breaks off from a block on until it is mended."""

    def __init__(self, place: Served, most: int, broken_from: int) -> None:
        self.most, self.broken_from = most, broken_from
        self.asked: list[tuple[int, int]] = []
        place.world.rpc.intercept = self

    async def __call__(self, method: str, params: list[Any], honest: Next) -> Any:
        if method != "eth_getLogs":
            return honest()
        first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
        if last - first >= self.most:
            raise RpcError(-32005, f"query exceeds max block range {self.most}")
        self.asked.append((first, last))
        if last >= self.broken_from:
            raise Drop
        return honest()

    def mend(self) -> None:
        """Break off no more, and forget what was asked for."""
        self.broken_from = 2**63
        self.asked.clear()


# -- undecided ------------------------------------------------------------------------------------------------


def test_a_failed_chunk_is_undecided_and_the_scan_goes_on_where_it_stopped(place: Served) -> None:
    """Nothing is adopted past a gap; the next run asks for no chunk again that was had before."""
    place.buy()
    lose(place)
    place.mine(40)
    narrow = Narrow(place, most=8, broken_from=30)
    told = place.document(*ADOPT)
    reached = told["decided_block"]
    assert (told["exit_code"], told["adopted"]) == (4, [])
    assert 0 < reached < 30
    assert f"up to block {reached} " in " ".join(told["undecided"])
    assert place.topups() == []

    narrow.mend()
    told = place.document(*ADOPT)
    assert min(first for first, _ in narrow.asked) == reached + 1
    assert (told["exit_code"], whats(told, "adopted")) == (0, ["nonce_ahead", "unknown_payment"])
    assert place.books_match()


def test_what_is_not_final_yet_is_undecided(place: Served) -> None:
    """A transaction in a young block is neither adopted nor called foreign: it is asked for again later."""
    place.world.mining = False
    elsewhere(place, blocks=1)
    told = place.document(*ADOPT)
    assert (told["exit_code"], told["nonce_latest"], told["nonce_final"], told["adopted"]) == (4, 1, 0, [])
    assert "not final yet" in " ".join(told["undecided"])
    place.mine()
    assert whats(place.document("reconcile")) == ["foreign", "nonce_ahead"]


def test_providers_that_disagree_decide_nothing(place: Served) -> None:
    """One of two independent providers calls the payment failed: undecided, and nothing is adopted."""
    place.buy()
    lose(place)
    lying = lie("eth_getTransactionReceipt", to=lambda told: told and {**told, "status": "0x0"})
    told = place.document(*ADOPT, chain__rpc_urls=beside(place, lying))
    assert (told["exit_code"], told["adopted"]) == (4, [])
    assert "disagree" in " ".join(told["undecided"])
    assert place.topups() == []


# -- who may, and when ----------------------------------------------------------------------------------------


def test_adopting_beside_a_daemon_is_refused(place: Served) -> None:
    """The daemon holds the ledger: looking is allowed beside it, changing is not, and the remedy says what to do."""
    running = place.start("run")
    running.await_event("cycle_done")
    done = place.run(*ADOPT)
    assert (done.returncode, "stop `topup run`" in done.stderr) == (4, True)
    assert place.run("reconcile").returncode == 0
    running.stop()


# -- what a provider says of a transaction --------------------------------------------------------------------

TO = "0x" + "77" * 20
ACCESS = [{"address": TO, "storageKeys": ["0x" + "01" * 32, "0x" + "00" * 32]}]
TIPPED = {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 0, "chainId": 8453}
BODIES: dict[str, tuple[int, dict[str, Any]]] = {
    "before EIP-155": (0, {"to": TO, "value": 5, "gasPrice": 10**9}),
    "legacy": (0, {"to": TO, "value": 5, "gasPrice": 10**9, "chainId": 8453, "data": "0x" + "ab" * 300}),
    "access list": (1, {"to": TO, "value": 0, "gasPrice": 10**9, "chainId": 8453, "accessList": ACCESS}),
    "dynamic fee": (2, {"to": TO, "value": 0, **TIPPED, "accessList": ACCESS, "data": "0x" + "cd" * 56}),
    "creation": (2, {"value": 0, **TIPPED, "data": "0x00"}),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_was_signed_is_rebuilt_and_proven(name: str) -> None:
    """The bytes are those that were signed; a field that is not as it was, or another's signature, is refused."""
    kind, body = BODIES[name]
    body = {"nonce": 300, "gas": 210_000, **body, **({"type": kind} if kind else {})}
    key = Account.create()
    made = key.sign_transaction(body)
    told = {n: hex(v) if type(v) is int else v for n, v in body.items() if n != "data"}
    told |= {"type": hex(kind), "input": body.get("data", "0x"), "v": hex(made.v), "r": hex(made.r), "s": hex(made.s)}
    wallet, tx_hash = bytes.fromhex(key.address[2:]), bytes(made.hash)
    assert history._signed(told, tx_hash, wallet) == bytes(made.raw_transaction)
    with pytest.raises(ChainUnknown, match="hash"):
        history._signed(told | {"value": "0x7"}, tx_hash, wallet)
    with pytest.raises(ChainUnknown, match="not signed by the wallet"):
        history._signed(told, tx_hash, b"\x01" * 20)


# -- paid in USDC -----------------------------------------------------------------------------------------------

USDC = {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"}
# What 10 dollars of credit cost, in 10^-6 USDC.
TOTAL = 10_500_000


@pytest.fixture
def dollars(tmp_path: Path) -> Iterator[Served]:
    """A world whose wallet holds twenty dollars and pays with them."""
    with World(embedded, scale=10) as world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 20_000_000)))
        yield Served(world, tmp_path, USDC)


def refill(place: Served, *states: State, copy: str = "") -> None:
    """Let the cycle run until a top-up is in one of these states, else done; then keep a copy, and make all final."""
    place.state.mkdir(exist_ok=True)
    refilled_there(place.world, place.state, place.settings, *states)
    if copy:
        keep(place, copy)
    place.mine(12)


def moved(place: Served) -> dict[tuple[str, str], int]:
    """What the journal says of each account and commodity; of the wallet, it is what the chain says, in both."""
    with closing(SqliteStore.open_reader(place.state)) as store:
        lines = [x for e in store.entries("default") for x in e.lines]
    sums: dict[tuple[str, str], int] = {}
    for x in lines:
        sums[x.account, x.commodity.value] = sums.get((x.account, x.commodity.value), 0) + x.units
    world = place.world
    wei, units = world.do(lambda: (world.balance(world.wallet), world.usdc(world.wallet)))
    assert sums["assets:wallet", "ETH"] == wei - world.wallet_wei != 0
    assert sums.get(("assets:wallet", "USDC"), 0) == units - 20_000_000
    return {key: units for key, units in sums.items() if units}


def test_a_lost_payment_in_usdc_is_booked_in_usdc(dollars: Served) -> None:
    """Payment and approval come back: dollars out of the wallet, gas in ETH, both to the unit; nothing is left."""
    place = dollars
    refill(place)
    lose(place)
    told = place.document("reconcile")
    assert (told["exit_code"], whats(told)) == (3, ["nonce_ahead", "unknown_approval", "unknown_payment"])
    assert "10.5 USDC" in named(told, "unknown_payment")["detail"]

    assert place.document(*ADOPT)["exit_code"] == 0
    sums = moved(place)
    assert (sums["assets:wallet", "USDC"], sums["equity:adopted", "USDC"]) == (-TOTAL, TOTAL)
    assert ("equity:conversion", "ETH") not in sums
    (topup,) = place.topups()
    assert topup.paying is not None and topup.payment is not None
    assert (topup.paying.plan.asset, topup.payment.tokens.units) == ("USDC", TOTAL)
    assert (str(topup.amount), topup.payment.spent.units) == (PAID_USD, 0)
    with closing(SqliteStore.open_reader(place.state)) as store:
        (approval,) = [e for e in store.entries("default") if e.text == "token approval adopted from the chain"]
    assert {x.account for x in approval.lines} <= {"assets:wallet", "expenses:gas", "expenses:l1-data-fee"}
    assert {x.commodity.value for x in approval.lines} == {"ETH"}
    before = rows(place)
    assert place.document(*ADOPT)["adopted"] == []
    assert rows(place) == before
    assert place.document("reconcile")["exit_code"] == 0


def test_what_was_lost_between_approval_and_payment_never_pays_again(dollars: Served) -> None:
    """The copy knows the approval it sent; the payment is given back to its top-up, which ends paid once.

    Where the whole ledger was lost by then only the approval stands there: its gas is booked, it is no payment, and
    buying is not paused for it.
    """
    place = dollars
    place.world.mining = False
    refill(place, State.SENT, copy="early")
    place.world.mining = True
    lose(place)
    told = place.document(*ADOPT)
    assert whats(told, "adopted") == ["nonce_ahead", "unknown_approval"]
    assert place.topups() == []
    assert not place.document("status")["paused"]
    assert ("assets:wallet", "USDC") not in moved(place)
    restore(place, place.directory / "early")
    refill(place)
    restore(place, place.directory / "early")
    assert "lost_attempt" in whats(place.document(*ADOPT), "adopted")
    refill(place)
    assert [t.state for t in place.topups()] == [State.DONE]
    assert place.payments() == 1
    assert moved(place)["assets:wallet", "USDC"] == -TOTAL
    assert place.document("reconcile")["exit_code"] == 0


def test_dollars_moved_by_hand_are_named_with_their_amount(dollars: Served) -> None:
    """A transfer of the token is no payment, and neither is an approval of anybody but the payment contract."""
    stranger = "77" * 20
    for call, units in (("a9059cbb", 3_000_000), ("095ea7b3", 2**256 - 1)):
        data = f"0x{call}{stranger:0>64}{units:064x}"
        elsewhere(dollars, to=contracts.USDC, value=0, data=data, gas=120_000)
    told = dollars.document("reconcile")
    moved, allowed = [d for d in told["differences"] if d["what"] == "foreign"]
    assert "moved 0 ETH and 3 USDC" in moved["detail"]
    assert "USDC," not in allowed["detail"]
    assert whats(told) == ["foreign", "foreign", "nonce_ahead"]


# -- carried to the chain by the seller -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def x402(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A world in which 10 dollars of credit were bought by x402."""
    with World(embedded, scale=10, make_gateway=selling("venice")) as world:
        seller: Any = world.gateway
        place = Served(world, tmp_path_factory.mktemp("x402"), seller.environment())
        refill(place)
        yield place


@pytest.fixture(scope="module")
def mpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A world in which 10 dollars of credit were bought by machine payment; no provider of Base answers."""
    with mpp_world() as world:
        own = buying(world.rpc.url) | {"TOPUP_CHAIN__RPC_URLS": "http://127.0.0.1:9"}
        place = Served(world, tmp_path_factory.mktemp("mpp"), own)
        refill(place)
        place.mine(80)  # anvil calls final what is two epochs old
        yield place


TEN = 10_000_000


@pytest.fixture(params=["x402", "mpp"])
def seller(request: pytest.FixtureRequest) -> Any:
    """A world in which a seller has carried a payment to the chain; nobody interferes with it."""
    place: Served = request.getfixturevalue(request.param)
    yield place
    place.world.rpc.intercept = None


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """Settings under which no ledger is there yet."""
    return {"TOPUP_STATE_DIR": str(tmp_path / "fresh")}


def paid_there(place: Served) -> tuple[str, int, str]:
    """Transaction, block and recipient of the only payment, as the ledger has them."""
    paying = place.topups()[0].paying
    assert paying is not None and paying.inclusion is not None and paying.tx_hash is not None
    (charge,) = place.document("show", "t")["charges"]
    return "0x" + paying.tx_hash.hex(), paying.inclusion.block_number, charge["recipient"]


def test_a_payment_that_a_seller_carried_is_known(seller: Served) -> None:
    """The ledger is whole: nothing differs, everything was looked at, and nobody was asked for another chain."""
    told = seller.document("reconcile")
    assert (told["exit_code"], told["differences"], told["unchecked"]) == (0, [], [])
    (one,) = told["carried"]
    assert (one["payments_on_chain"], one["first_block"], one["decided_block"]) == (1, 0, one["final_block"])
    assert told["nonce_final"] is None
    assert "knows everything" in seller.run("reconcile").stdout


def test_a_payment_that_a_seller_carried_for_a_lost_ledger(
    seller: Served, fresh: dict[str, str], tmp_path: Path
) -> None:
    """Named with transaction, block, recipient and amount; then taken over once as what left the wallet."""
    tx_hash, block, recipient = paid_there(seller)
    told = seller.document("reconcile", **fresh)
    (one,) = told["differences"]
    assert (told["exit_code"], one["what"], one["tx_hash"], one["block"]) == (3, "unknown_carried", tx_hash, block)
    asset = "USDC.e" if seller.settings["TOPUP_RAILS__USE"] == "mpp" else "USDC"
    assert recipient in one["detail"] and f" of 10 {asset} to " in one["detail"]
    shown = seller.run("reconcile", **fresh).stdout
    assert "to do: `topup pause`" in shown
    assert "knows everything" not in shown

    told, again = (seller.document(*ADOPT, **fresh) for _ in range(2))
    assert (told["exit_code"], told["differences"], whats(told, "adopted")) == (0, [], ["unknown_carried"])
    assert (again["exit_code"], again["differences"], again["adopted"]) == (0, [], [])
    with closing(SqliteStore.open_reader(tmp_path / "fresh")) as store:
        (entry,) = [e for e in store.entries("default") if e.tx_hash is not None]
        assert store.told("default", "paused") == "1"
    assert ("0x" + (entry.tx_hash or b"").hex(), entry.block_number) == (tx_hash, block)
    assert entry.at_ms % 1000 == 0
    assert sorted((x.account, x.units) for x in entry.lines) == [("assets:wallet", -TEN), ("equity:adopted", TEN)]


def test_what_no_provider_lets_one_look_at_is_not_checked(seller: Served, fresh: dict[str, str]) -> None:
    """Logs are refused in any length: exit 4 and the reason, never that all is known; later it is found."""
    with bent(seller, failing("eth_getLogs", RpcError(-32005, "logs are for those who pay"))):
        done = seller.run("reconcile", **fresh)
        assert done.returncode == Exit.LATER
        assert "not checked: payments by " in done.stdout
        assert "logs are for those who pay" in done.stdout
        assert "knows everything" not in done.stdout
        # A ledger that knows the payment is not told that it is missing where nobody could look.
        assert seller.document("reconcile")["differences"] == []
    assert whats(seller.document("reconcile", **fresh)) == ["unknown_carried"]


def test_a_chain_that_does_not_answer_is_not_checked(seller: Served) -> None:
    """Not even the final block can be had: exit 4, and the report says so."""
    silent = {"TOPUP_CHAIN__RPC_URLS": "http://127.0.0.1:9", "TOPUP_RAILS__MPP__RPC_URLS": "http://127.0.0.1:9"}
    told = seller.document("reconcile", **silent)
    assert (told["exit_code"], told["carried"], len(told["unchecked"])) == (4, [], 1)


def test_the_search_goes_on_where_it_stopped(x402: Served, fresh: dict[str, str]) -> None:
    """What was found so far is named, the rest is not checked; only the block of a found payment is looked at again."""
    _, block, _ = paid_there(x402)
    x402.mine(16)
    broken = block + 4
    narrow = Narrow(x402, most=4, broken_from=broken)
    told = x402.document("reconcile", **fresh)
    assert (told["exit_code"], whats(told), len(told["unchecked"])) == (4, ["unknown_carried"], 1)
    reached = max(last for _, last in narrow.asked if last < broken)
    narrow.mend()
    told = x402.document("reconcile", **fresh)
    x402.world.rpc.intercept = None
    assert min(first for first, last in narrow.asked if first < last) == reached + 1
    assert (told["exit_code"], whats(told), told["unchecked"]) == (3, ["unknown_carried"], [])


def test_one_of_two_providers_withholds_a_payment(x402: Served, fresh: dict[str, str]) -> None:
    """No nonce would tell of it: both have to look, and what either shows counts, in whatever order they are named."""
    honest, liar = beside(x402, SILENT).split(",")
    for n, both in enumerate((f"{honest},{liar}", f"{liar},{honest}")):
        own = {"TOPUP_STATE_DIR": f"{fresh['TOPUP_STATE_DIR']}-{n}", "TOPUP_CHAIN__RPC_URLS": both}
        assert whats(x402.document("reconcile", **own)) == ["unknown_carried"]


def test_the_use_of_an_authorization_without_its_transfer_is_not_checked(x402: Served, fresh: dict[str, str]) -> None:
    """A provider that leaves the transfers out does not say how much was paid: that is no answer."""
    transfers = lie("eth_getLogs", to=lambda _: [], when=lambda p: p[0]["topics"][0].startswith("0xddf252ad"))
    with bent(x402, transfers):
        told = x402.document("reconcile", **fresh)
    assert (told["exit_code"], told["differences"]) == (4, [])
    assert "without the transfer" in told["unchecked"][0]


def test_since_begins_the_search_anew_and_is_said(x402: Served, fresh: dict[str, str]) -> None:
    """Where nothing before a block was looked at, "everything" is told of these blocks alone; to come, of none."""
    _, block, _ = paid_there(x402)
    told = x402.document("reconcile", "--since", "1000000", **fresh)
    assert (told["exit_code"], told["carried"], len(told["unchecked"])) == (4, [], 1)
    done = x402.run("reconcile", "--since", str(block + 1), **fresh)
    assert (done.returncode, "in these blocks" in done.stdout) == (0, True)
    assert f"in blocks {block + 1} to" in done.stdout
    assert whats(x402.document("reconcile", "--since", str(block), **fresh)) == ["unknown_carried"]


def test_two_payments_in_one_transaction_are_two(mpp: Served, fresh: dict[str, str]) -> None:
    """Whoever has the key can pay twice at once: each is named."""
    with bent(mpp, lie("eth_getLogs", to=lambda told: [log | {"logIndex": hex(n)} for log in told for n in (7, 8)])):
        told = mpp.document("reconcile", **fresh)
    assert whats(told) == ["unknown_carried"] * 2


def test_a_rail_that_is_no_longer_used_is_still_looked_at(x402: Served) -> None:
    """The wallet pays by coinbase now: its authorizations of before are known, and are none of its transactions."""
    told = x402.document("reconcile", TOPUP_RAILS__USE="coinbase", TOPUP_API__KIND="openrouter")
    assert (told["exit_code"], told["differences"], told["nonce_final"]) == (0, [], 0)
    assert [one["rail"] for one in told["carried"]] == ["x402"]


def test_a_block_means_nothing_on_two_chains(mpp: Served) -> None:
    """--since with a number is refused where more than one chain is looked at; a day is not."""
    done = mpp.run("reconcile", "--since", "5", TOPUP_RAILS__USE="coinbase,mpp")
    assert (done.returncode, "name a day" in done.stderr) == (2, True)


def test_a_foreign_transaction_ends_no_authorization(tmp_path: Path) -> None:
    """Adopting what took nonce 0 says nothing of nonce 0 on another lane: that authorization is still looked for."""
    store = SqliteStore.open_writer(tmp_path)
    kept = ledger.sent(store, operator(), lane=5, nonce=0, broadcaster=Broadcaster.SERVER)
    store.adopt_foreign(kept.chain_id, WALLET, Adopted(0, b"\x01" * 32, 9, None, Wei(1)), NOW_MS, "a test")
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT final FROM attempt").fetchall() == [(0,)]
    assert store.known(kept.chain_id, WALLET).explained == {0}
    store.close()


def test_what_one_provider_shows_alone_is_named_and_not_booked(x402: Served) -> None:
    """One of two invents a payment of 5000 dollars: it is named, --adopt leaves it, and why is said."""

    def invented(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        more = []
        for log in told:
            topics, other = list(log["topics"]), {}
            if topics[0].startswith("0xddf252ad"):
                other = {"data": f"0x{5_000_000_000:064x}"}
            elif len(topics) == 3:
                topics[2] = "0x" + "ab" * 32
            other |= {"transactionHash": "0x" + "cd" * 32, "logIndex": hex(int(log["logIndex"], 16) + 100)}
            more.append({**log, "topics": topics, **other})
        return [*told, *more]

    both = {"TOPUP_CHAIN__RPC_URLS": beside(x402, lie("eth_getLogs", to=invented))}
    told = x402.document(*ADOPT, **both)
    assert "unknown_carried" in whats(told)
    assert told["adopted"] == []
    assert any("disagree about a payment in block" in one for one in told["unchecked"])
