"""Is one wish one purchase, whoever is stopped, killed or hung, and does the exit code tell of the money?"""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.world.builders import topup
from tests.world.ledger import MEMORY
from tests.world.served import PATIENCE_S, TOPUP, Served, until
from tests.world.terminal import Terminal
from topup.domain.errors import Exit, SettingsError, StoreError
from topup.domain.lifecycle import Fact, State, TopUp
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.ports.ledger import Requested, Told, Wish
from topup.sandbox import contracts
from topup.sandbox.gateway import Account, Gateway
from topup.sandbox.world import World, embedded
from topup.sandbox.x402_seller import X402Seller

ACCOUNT = "default"
NOW_MS = 1_900_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
WISH = ("once", "--amount", "12.5", "--yes")
LATER = Told("unknown: gave up", "withdrawn", int(Exit.LATER))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore.open_writer(tmp_path)) as made:
        yield made


def wish(
    store: SqliteStore, dollars: str | None = "10", *, at_ms: int = NOW_MS, account: str = ACCOUNT, **said: Any
) -> Requested:
    """What a command that asks for this finds or makes."""
    terms: dict[str, Any] = {"forced": False, "name": None, "uid": 1}
    asked = Wish(None if dollars is None else Usd.of(dollars), **(terms | said))
    return store.wish(account, asked, at_ms, at_ms + 10 * MINUTE_MS)


# -- which wish a command means -----------------------------------------------------------------------------------


def test_the_same_command_means_the_same_wish_until_its_asker_was_told(store: SqliteStore) -> None:
    """After 4 and 5 a repetition goes on with it; after 0 and 3 it is a new one."""
    first = wish(store)
    for code in (Exit.LATER, Exit.MONEY_MAY_HAVE_MOVED):
        store.tell_request(first.number, code)
        assert wish(store).number == first.number
    store.tell_request(first.number, Exit.OK)
    second = wish(store)
    assert second.number != first.number
    store.tell_request(second.number, Exit.PERSON)
    assert wish(store).number not in (first.number, second.number)


def test_another_command_is_another_wish(store: SqliteStore) -> None:
    """Another amount, flag, user or name, or another day; an amount is the same however it is written."""
    first = wish(store)
    others: list[dict[str, Any]] = [
        *({"dollars": "11"}, {"dollars": None}, {"forced": True}, {"uid": 2}, {"name": "june"}),
    ]
    assert len({first.number, *(wish(store, **other).number for other in others)}) == 6
    assert wish(store, "10.00").number == first.number
    assert wish(store, at_ms=NOW_MS + DAY_MS - 1).number == first.number
    assert wish(store, at_ms=NOW_MS + DAY_MS).number != first.number


def test_a_clock_that_goes_back_makes_no_second_wish(store: SqliteStore) -> None:
    """A repetition that seems to come before the first is a repetition all the same."""
    assert wish(store, at_ms=NOW_MS - 30 * DAY_MS).number == wish(store, at_ms=NOW_MS - 30 * DAY_MS).number
    assert wish(store).number == wish(store, at_ms=NOW_MS - 2 * DAY_MS).number


def test_a_name_means_one_wish_for_ever(store: SqliteStore) -> None:
    """Within its account, whoever says it, however late and however answered; another amount is a usage error."""
    first, second = wish(store, name="june"), wish(store, name="june", account="other")
    store.tell_request(first.number, Exit.OK)
    late = NOW_MS + 400 * DAY_MS
    assert wish(store, name="june", at_ms=late).number == first.number
    assert wish(store, name="june", at_ms=late, forced=True, uid=2).number == first.number
    with pytest.raises(SettingsError, match="june was used for 10 dollars, this asks for 11 dollars") as refused:
        wish(store, "11", name="june")
    assert refused.value.exit_code == 2
    assert refused.value.remedy
    assert second.number != first.number
    assert store.withdraw_request(first.number, NOW_MS)
    assert store.next_request(ACCOUNT) is None
    waiting = store.next_request("other")
    assert waiting is not None and waiting.number == second.number


def test_a_top_up_is_decided_for_a_wish_that_is_being_carried_out_and_for_no_other(store: SqliteStore) -> None:
    """One transaction decides and binds; a wish that was withdrawn, and one that nobody took, get none."""
    number = wish(store).number
    with pytest.raises(StoreError):
        store.begin(topup(wish=number))
    assert store.withdraw_request(number, NOW_MS)
    assert not store.take_request(number, NOW_MS)
    with pytest.raises(StoreError):
        store.begin(topup(wish=number))
    assert store.latest(ACCOUNT, 1) == []
    assert not wish(store).withdrawn
    assert store.take_request(number, NOW_MS)
    assert not store.withdraw_request(number, NOW_MS)
    assert store.begin(topup(wish=number)).wish == number
    assert store.requested(number).topup_id == store.latest(ACCOUNT, 1)[0].id


# -- two actors, any order ------------------------------------------------------------------------------------------


class Handover(RuleBasedStateMachine):
    """An asker who follows exit codes, and writers that take, decide, send, die; over one real ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.folder.name)
        SqliteStore.open_writer(self.path).close()
        self.asker = SqliteStore.open_reader(self.path)
        self.writer: SqliteStore | None = None
        self.number: int | None = None
        self.taken: Requested | None = None
        self.now = NOW_MS
        self.done = False
        self.said: Exit | None = None

    def teardown(self) -> None:
        self.asker.close()
        if self.writer is not None:
            self.writer.close()
        self.folder.cleanup()

    def open(self) -> TopUp | None:
        return self.asker.open_topup(ACCOUNT)

    @property
    def holds(self) -> SqliteStore:
        assert self.writer is not None
        return self.writer

    @precondition(lambda self: not self.done)
    @rule(later=st.integers(0, 20 * MINUTE_MS))
    def ask(self, later: int) -> None:
        """The asker gives the command, or repeats it after a 4, or after a crash of its own."""
        self.now += later
        asked = wish(self.asker, at_ms=self.now)
        assert self.number in (None, asked.number)
        self.number, self.said = asked.number, None

    @precondition(lambda self: self.number is not None and self.said is None and not self.done)
    @rule()
    def give_up(self) -> None:
        """Time is over: 4 where the withdrawal wins, 5 where it does not, after which the asker repeats nothing."""
        assert self.number is not None
        won = self.asker.withdraw_request(self.number, self.now)
        self.said = Exit.LATER if won else Exit.MONEY_MAY_HAVE_MOVED
        self.done = not won

    @rule()
    def start(self) -> None:
        """A writer takes the ledger over; the one before it is dead."""
        if self.writer is not None:
            self.writer.close()
        self.writer, self.taken = SqliteStore.open_writer(self.path), None

    @precondition(lambda self: self.writer is not None)
    @rule()
    def take(self) -> None:
        """It takes the oldest wish; what has been decided for that already is only followed."""
        asked = self.holds.next_request(ACCOUNT)
        if asked is None or self.holds.bought(asked.number) is not None or self.open() is not None:
            return
        assert self.said is not Exit.LATER, "taken after a 4"
        assert self.holds.take_request(asked.number, self.now)
        self.taken = asked

    @precondition(lambda self: self.taken is not None and self.open() is None)
    @rule()
    def decide(self) -> None:
        """It decides a top-up for what it took."""
        assert self.taken is not None
        count = len(self.holds.latest(ACCOUNT, 100))
        with contextlib.suppress(StoreError):
            self.holds.begin(topup(id=f"t{count}", wish=self.taken.number))
            assert self.said is not Exit.LATER, "decided after a 4"

    @precondition(lambda self: self.writer is not None and self.number is not None)
    @rule()
    def let_go(self) -> None:
        """The writer is the asker's own process, and leaves."""
        assert self.number is not None
        out = self.open()
        stuck = self.holds.let_go(self.number, LATER, self.now)
        assert (stuck is not None) == (out is not None and out.state is State.HALTED)
        self.taken = None

    @precondition(lambda self: self.writer is not None and self.open() is not None)
    @rule()
    def halt(self) -> None:
        """Something of it may be out: only a person leads on."""
        unfinished = self.open()
        assert unfinished is not None
        if unfinished.state is not State.HALTED:
            self.holds.move(unfinished, Fact.HALT, self.now, "may be out")

    @invariant()
    def one_purchase(self) -> None:
        """However it came: one top-up of the wish is alive, and after a 4 none, and nobody has the wish in hand."""
        may_still_pay = [t for t in self.asker.latest(ACCOUNT, 100) if t.state is not State.DROPPED]
        assert len(may_still_pay) <= 1
        if self.said is Exit.LATER and self.number is not None:
            asked = self.asker.requested(self.number)
            assert may_still_pay == []
            assert asked.withdrawn or asked.outcome is not None


TestHandover = Handover.TestCase
TestHandover.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)


# -- names and repetitions, from end to end ---------------------------------------------------------------------------


def sent_and_killed(place: Served) -> None:
    """Let a command die whose payment is out, and let it stay out."""
    place.world.mining = False
    first = place.start(*WISH)
    first.await_event("payment_sent")
    first.killed()


def bought(place: Served) -> list[str]:
    return [str(t.amount) for t in reversed(place.topups()) if t.state is State.DONE]


def test_a_named_wish_is_bought_once_however_often_it_is_asked_for(place: Served) -> None:
    """Later it is told of the first, with exit 0; another amount is exit 2; a daemon beside it buys nothing."""
    command = (*WISH, "--force", "--request-id", "june")
    first, told = place.document(*command), place.document(*command)
    assert (first["exit_code"], first["request_id"], first["repeated"]) == (0, "june", False)
    assert (told["exit_code"], told["repeated"], told["wish"]) == (0, True, first["wish"])
    assert told["topup"]["id"] == first["topup"]["id"]
    other = place.run("once", "--amount", "6", "--yes", "--force", "--request-id", "june")
    assert (other.returncode, "june" in other.stderr, "to do:" in other.stderr) == (2, True, True)
    place.start("run").await_event("cycle_done")
    again = place.run(*command)
    assert (again.returncode, "--request-id" in again.stderr) == (0, True)
    assert place.payments() == 1
    assert bought(place) == ["12.5"]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201, "\x1b[2J", " june"])
def test_a_name_that_is_none_is_a_usage_error(name: str, place: Served) -> None:
    """It is looked at before anything else, and shown as text only."""
    done = place.run("once", "--amount", "6", "--yes", f"--request-id={name}")
    assert done.returncode == 2, done.stderr
    assert "\x1b" not in done.stderr
    assert not place.state.exists()


def test_a_refusal_of_a_named_wish_stands_and_one_without_a_name_is_asked_anew(place: Served) -> None:
    """3 is an answer: under the name it is given again, and nothing is bought; the plain command is a new wish."""
    place.run("pause")
    named = ("once", "--amount", "6", "--yes", "--request-id", "june")
    assert place.run(*named).returncode == place.run("once", "--amount", "6", "--yes").returncode == 3
    place.run("resume")
    again = place.run(*named)
    assert again.returncode == 3
    assert "buying is paused" in again.stdout
    assert "to do: a new wish needs a --request-id of its own" in again.stderr
    assert place.payments() == 0
    assert place.run("once", "--amount", "6", "--yes").returncode == 0
    assert place.payments() == 1


def test_another_wish_waits_for_what_is_open_and_then_says_that_nothing_new_was_bought(place: Served) -> None:
    """The top-up of an earlier, killed command is finished by whoever comes; its own wish stays open: exit 4."""
    sent_and_killed(place)
    place.world.mining = True
    other = place.document("once", "--amount", "6", "--yes")
    assert (other["exit_code"], other["outcome"]) == (4, "resumed")
    assert place.run(*WISH).returncode == 0, "told of what was bought for it"
    assert bought(place) == ["12.5"]


# -- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 4), (signal.SIGHUP, 4)], ids=str)
def test_stopped_before_anything_is_out_it_drops_its_top_up(number: signal.Signals, code: int, place: Served) -> None:
    """The charge is being asked for: 130 or 4, nothing stays open, and the daemon finds nothing to carry out."""
    place.spoil("coinbase", "time-out")  # a pass waits for its end
    asking = place.start(*WISH, api__timeout_s="20")
    asking.await_event("charge_requested")
    assert asking.stop(number) == code, asking.log()
    assert [(t.state, t.reason) for t in place.topups()] == [(State.DROPPED, "withdrawn")]
    place.mend()
    daemon = place.start("run")
    daemon.await_event("cycle_done", cycle=3)
    assert daemon.stop() == 0
    assert place.payments() == 0
    assert place.run(*WISH).returncode == 0, "no cool-down for what was withdrawn"
    assert place.payments() == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "--timeout"], ids=str)
def test_stopped_while_the_payment_is_out_it_says_so(how: Any, place: Served) -> None:
    """5 and not 4, by whatever it was stopped; the same command again finishes it with 0 and buys nothing."""
    place.world.mining = False
    extra = ("--timeout", "20") if how == "--timeout" else ()
    asking = place.start(*WISH, *extra)
    asking.await_event("payment_sent")
    code = asking.process.wait(timeout=PATIENCE_S) if how == "--timeout" else asking.stop(how)
    assert code == 5, asking.log()
    place.world.mining = True
    assert place.run(*WISH).returncode == 0
    assert place.payments() == 1


def test_a_dead_chain_holds_nobody_longer_than_the_timeout(place: Served) -> None:
    """Cron would pile up: it leaves with 4 when its time is over, and has left nothing behind."""
    told = place.document(*WISH, "--timeout", "4", chain__rpc_urls="http://127.0.0.1:9")
    assert (told["exit_code"], told["outcome"], told["why"]) == (4, "unknown", "withdrawn")
    assert "4 s" in told["detail"] and "--timeout" in told["detail"]
    assert [t.state for t in place.topups()] == [State.DROPPED]


@pytest.mark.parametrize("out", [False, True])
def test_ctrl_c_at_the_question_tells_of_what_an_earlier_command_has_left(out: bool, place: Served) -> None:  # noqa: FBT001
    """130 where nothing of this wish is out; 5 where its earlier command has sent something, and nothing is asked."""
    if out:
        sent_and_killed(place)
    asking = Terminal([*TOPUP, "once", "--amount", "12.5"], place.environment(), stdout=subprocess.DEVNULL)
    if out:
        until(lambda: SqliteStore.held(place.state))
    else:
        asking.waits_for("from the wallet")
    asking.process.send_signal(signal.SIGINT)
    assert asking.ends() == (5 if out else 130)


# -- beside a daemon, beside another --------------------------------------------------------------------------------


def test_one_wish_is_one_purchase_though_the_daemon_hangs_dies_and_comes_back(place: Served) -> None:
    """It was never taken: 4 withdraws it. The daemon that wakes up finds nothing; the repetition is bought, once."""
    daemon = place.start("run", policy__cooldown_s="0")
    daemon.await_event("cycle_done")
    daemon.process.send_signal(signal.SIGSTOP)
    command = (*WISH, "--timeout", "2")
    assert place.run(*command, policy__cooldown_s="0").returncode == 4
    daemon.process.send_signal(signal.SIGCONT)
    daemon.await_event("cycle_done", cycle=len(daemon.told("cycle_done")) + 2)
    assert place.topups() == []
    daemon.killed()
    place.start("run", policy__cooldown_s="0").await_event("cycle_done")
    codes = [place.run(*WISH, policy__cooldown_s="0").returncode]
    while codes[-1] == 4 and len(codes) < 30:  # a 4 says that repeating is safe
        codes.append(place.run(*WISH, policy__cooldown_s="0").returncode)
    assert codes[-1] == 0
    assert place.payments() == 1


def test_a_wish_that_the_daemon_has_taken_is_not_withdrawn(place: Served) -> None:
    """The time is over while the daemon asks for the charge: 5, for it goes on; the repetition hears how it ended."""
    place.spoil("coinbase", "time-out")  # a pass waits for its end
    daemon = place.start("run", api__timeout_s="20")
    daemon.await_event("cycle_done")
    asking = place.start(*WISH, "--timeout", "4")
    daemon.await_event("charge_requested")
    assert asking.process.wait(timeout=PATIENCE_S) == 5, asking.log()
    assert "the daemon has taken the wish" in asking.out.read_text()
    daemon.killed()
    place.mend()
    place.start("run").await_event("top_up_done")
    told = place.document(*WISH)
    assert (told["exit_code"], told["repeated"]) == (0, True)
    assert place.payments() == 1


def test_behind_another_once_it_waits_for_the_ledger_and_then_acts_itself(place: Served) -> None:
    """It speaks of no daemon; when its time is over before the other's end, it has left nothing behind: 4."""
    place.world.mining = False
    first = place.start(*WISH)
    first.await_event("payment_sent")
    impatient = place.run("once", "--amount", "6", "--yes", "--force", "--timeout", "2")
    assert impatient.returncode == 4, impatient.stderr
    second = place.start("once", "--amount", "7", "--yes", "--force")
    until(lambda: "waiting for its end" in second.log())
    place.world.mining = True
    assert first.process.wait(timeout=PATIENCE_S) == 0
    assert second.process.wait(timeout=PATIENCE_S) == 0, second.log()
    assert "daemon" not in impatient.stderr + second.log()
    assert bought(place) == ["12.5", "7"]


def test_two_identical_commands_at_once_are_one_wish(place: Served) -> None:
    """The second waits for the first, and is told of what that has bought."""
    both = [place.start(*WISH, "--force") for _ in range(2)]
    assert [one.process.wait(timeout=60) for one in both] == [0, 0]
    assert place.payments() == 1


# -- rails that have to watch a while -------------------------------------------------------------------------------


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Served]:
    """A world below its floor whose seller carries the payment: a lost ledger may have signed one."""

    def seller(world: World, account: Account) -> Gateway:
        return X402Seller(account, world.chain, world.wallet)

    world = World(embedded, make_gateway=seller, usage_usd=Decimal(11), burn_usd_per_hour=Decimal(0))
    world.tick_s = 1.0
    with world:
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, 45_000_000)))
        seller_settings: Any = world.gateway
        made = Served(world, tmp_path, {**dict(seller_settings.environment()), "TOPUP_RAILS__YOUNG_S": "1200"})
        yield made
        made.end()


def test_what_has_to_watch_longer_than_there_is_time_leaves_at_once(slow: Served) -> None:
    """3 within the first pass, naming what would help; nothing stays open; an amount asked for is bought at once."""
    told = slow.document("once", "--yes")
    assert (told["exit_code"], told["outcome"], told["why"]) == (3, "held", "young_ledger")
    for named in ("rails.young_s", "`topup run`", "--amount", "--force", "--timeout"):
        assert named in told["detail"]
    assert [t.state for t in slow.topups()] == [State.DROPPED]
    assert slow.run("once", "--amount", "5", "--yes").returncode == 0
    assert [str(t.amount) for t in slow.topups() if t.state is State.DONE] == ["5"]


def test_a_wish_whose_command_was_killed_is_decided_anew_by_its_repetition(slow: Served) -> None:
    """What an earlier process decided would have to wait; who asks again answers for it, and it is bought once."""
    asking = slow.start("once", "--amount", "5", "--yes")
    asking.await_event("top_up_decided")
    asking.killed()
    assert slow.run("once", "--amount", "5", "--yes").returncode in (0, 5)
    assert slow.run("once", "--amount", "5", "--yes").returncode in (0, 4)
    assert len([t for t in slow.topups() if t.state is State.DONE]) == 1
