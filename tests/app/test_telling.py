"""Is everybody told what happens, once at least, in order, and is a target that is away for days told later?"""

import asyncio
import base64
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from aiosmtpd.controller import Controller
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from tests.tools import kept
from tests.world.receiver import Receiver, receiving
from tests.world.served import PATIENCE_S, Served, served, until
from tests.world.stage import Kept, Machine, Silence
from topup.app.alarms import Alarms
from topup.app.delivery import PATIENCE_MS, Courier, Listener
from topup.domain import events
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.messages import ALARMS, OF_TARGETS, MessageKind, Tier
from topup.ledger.store import SqliteStore
from topup.ports.account import Sink
from topup.ports.outbox import Undelivered
from topup.wire.email import Email
from topup.wire.heartbeat import Heartbeat
from topup.wire.webhook import secret_of, signature

SECRET: Final = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
ACCOUNT: Final = "default"


@dataclass
class Pile:
    """A target that keeps what it is given, while it is there."""

    away: str = ""
    final: bool = False
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
        del at_s
        if self.away:
            raise Undelivered(self.away, final=self.final)
        self.told.append((name, dict(document)))

    async def close(self) -> None:
        return

    def subjects(self) -> list[tuple[str, str]]:
        return [(one["data"]["subject"], one["data"].get("n", "")) for _, one in self.told]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open_writer(tmp_path / "state")
    yield store
    store.close()


def courier(ledger: SqliteStore, clock: Machine, sink: Sink | None = None, **targets: Pile | Listener) -> Courier:
    listeners = {name: one if isinstance(one, Listener) else Listener(one) for name, one in targets.items()}
    made = Courier(ledger, listeners, ACCOUNT, clock, sink or Silence())
    made.follow()
    return made


async def test_a_target_that_is_away_is_told_later_under_the_same_id(ledger: SqliteStore) -> None:
    """Not at once again, ever more rarely; the other target has long had it."""
    clock, away, near = Machine(), Pile(away="no route"), Pile()
    made = courier(ledger, clock, away=away, near=near)
    ledger.tell(ACCOUNT, "t1", MessageKind.REFILLED, clock.wall)
    for _ in range(3):
        await made.deliver()
    (row,) = [one for one in ledger.deliveries(ACCOUNT) if one["target"] == "away"]
    assert (row["tries"], row["ended_ms"], len(near.told)) == (1, None, 1)
    away.away = ""
    clock.wall = row["next_ms"]
    await made.deliver()
    assert [name for name, _ in away.told] == [name for name, _ in near.told]


async def test_what_is_refused_for_good_is_set_aside_and_holds_nothing_up(ledger: SqliteStore) -> None:
    """So is what nobody has taken for three days; the next message of the subject is then told."""
    clock, pile = Machine(), Pile(away="answered 400", final=True)
    made = courier(ledger, clock, pile=pile)
    ledger.tell(ACCOUNT, "t1", MessageKind.HALTED, clock.wall)
    await made.deliver()
    pile.final = False
    ledger.tell(ACCOUNT, "t1", MessageKind.REFILLED, clock.wall)
    await made.deliver()
    clock.wall += PATIENCE_MS + HOUR_MS
    await made.deliver()
    asides = [one["outcome"] for one in ledger.deliveries(ACCOUNT) if one["outcome"] != "not wanted"]
    assert asides == ["aside: answered 400"] * 2
    pile.away = ""
    ledger.tell(ACCOUNT, "t1", MessageKind.FAILED, clock.wall)
    await made.deliver()
    assert [one["type"] for _, one in pile.told] == ["topup.failed"]


async def test_a_new_target_is_told_nothing_old(ledger: SqliteStore) -> None:
    """A webhook that is set today does not ring for last month."""
    clock, old, new = Machine(), Pile(), Pile()
    await courier(ledger, clock, old=old).deliver()
    ledger.tell(ACCOUNT, "t1", MessageKind.REFILLED, clock.wall)
    made = courier(ledger, clock, old=old, new=new)
    ledger.tell(ACCOUNT, "t2", MessageKind.REFILLED, clock.wall)
    await made.deliver()
    assert old.subjects() == [("t1", ""), ("t2", "")]
    assert new.subjects() == [("t2", "")]


async def test_a_defect_of_one_target_is_said_and_stops_nobody(ledger: SqliteStore) -> None:
    """Neither the other target nor the command that has paid: whatever is raised there is an event."""

    class Broken(Pile):
        async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "no")

    clock, near, sink = Machine(), Pile(), Kept()
    made = courier(ledger, clock, sink, broken=Broken(), near=near)
    ledger.tell(ACCOUNT, "t1", MessageKind.REFILLED, clock.wall)
    assert await made.deliver() is False
    assert near.subjects() == [("t1", "")]
    assert [one.shown()["detail"] for one in sink.told] == ["a defect: UnicodeEncodeError"]


async def test_a_target_that_is_away_or_refuses_is_said_in_the_log(ledger: SqliteStore) -> None:
    """After five tries in vain, once; and when a message is given up."""
    clock, pile, sink = Machine(), Pile(away="no route"), Kept()
    made = courier(ledger, clock, sink, pile=pile)
    ledger.tell(ACCOUNT, "t1", MessageKind.REFILLED, clock.wall)
    waits = []
    for _ in range(8):
        await made.deliver()
        row = ledger.deliveries(ACCOUNT)[-1]
        waits.append((row["next_ms"] - clock.wall) // 1000)
        clock.wall = row["next_ms"]
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert [one.name() for one in sink.told] == ["target_failed"]
    pile.final = True
    await made.deliver()
    assert [one.name() for one in sink.told] == ["target_failed", "message_set_aside"]


def test_what_is_told_of_an_event_never_stops_a_payment(ledger: SqliteStore) -> None:
    """A word that nobody knows is a defect, said as one; the event itself has gone on before."""
    sink = Kept()
    Alarms(sink, ledger, ACCOUNT, Machine()).emit(events.TopUpForbidden(why="nosuch", detail="", remedy=""))
    assert [one.name() for one in sink.told] == ["top_up_forbidden", "target_failed"]


def test_an_alarm_is_told_when_it_begins_and_when_it_ends(ledger: SqliteStore) -> None:
    """Once each, however often the flow says it."""
    said = [
        ledger.alarm(ACCOUNT, MessageKind.LOW, 1, on=on, reason="cap_24h") for on in (False, True, True, False, True)
    ]
    assert said == [False, True, False, True, True]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(MessageKind)), st.booleans()), max_size=12))
def test_each_subject_in_its_order_and_everything_in_the_end(sent: list[tuple[str, MessageKind, bool]]) -> None:
    """Whenever the target is away, and whichever is urgent: none is lost, and none overtakes one of its subject."""
    clock, pile = Machine(), Pile()
    with TemporaryDirectory() as directory, closing(SqliteStore.open_writer(Path(directory) / "state")) as store:
        made = courier(store, clock, pile=pile)
        for n, (subject, kind, there) in enumerate(sent):
            store.tell(ACCOUNT, subject, kind, clock.wall, n=str(n))
            pile.away = "" if there else "away"
            asyncio.run(made.deliver())
            clock.wall += HOUR_MS
        pile.away = ""
        asyncio.run(made.deliver())
    told = pile.subjects()
    assert sorted(int(n) for _, n in told) == list(range(len(sent)))
    for subject in "abc":
        own = [int(n) for one, n in told if one == subject]
        assert own == sorted(own)


def test_the_more_urgent_goes_first(ledger: SqliteStore) -> None:
    """Of different subjects that wait at once."""
    for subject, kind in (("t1", MessageKind.REFILLED), ("t2", MessageKind.FAILED), ("t3", MessageKind.HALTED)):
        ledger.tell(ACCOUNT, subject, kind, 1)
    assert [one.subject for one in ledger.due(ACCOUNT, "any", 10)] == ["t3", "t2", "t1"]


async def test_a_target_hears_no_less_than_it_wants_and_sleeps_at_night(ledger: SqliteStore) -> None:
    """A refill that worked sends no e-mail; what can wait is told in the morning, and what is critical at once."""
    clock, pile = Machine(1_800_000_000_000 // DAY_MS * DAY_MS + 23 * HOUR_MS), Pile()
    made = courier(ledger, clock, pile=Listener(pile, Tier.WARNING, (22, 7)))
    for subject, kind in (("t1", MessageKind.REFILLED), ("t2", MessageKind.FAILED), ("t3", MessageKind.HALTED)):
        ledger.tell(ACCOUNT, subject, kind, clock.wall)
    await made.deliver()
    assert pile.subjects() == [("t3", "")]
    clock.wall += 8 * HOUR_MS - 1
    await made.deliver()
    assert pile.subjects() == [("t3", "")]
    clock.wall += 1
    await made.deliver()
    assert pile.subjects() == [("t3", ""), ("t2", "")]


@given(st.integers(0, 23), st.integers(0, 23), st.integers(0, 10**13))
def test_quiet_hours_end(first: int, last: int, now_ms: int) -> None:
    """Within a day, and at their last hour: then nothing has to wait any more."""
    assume(first != last)
    listener = Listener(Pile(), quiet=(first, last))
    until_ms = listener.quiet_until(Tier.WARNING, now_ms)
    assert listener.quiet_until(Tier.CRITICAL, now_ms) is None
    if until_ms is not None:
        assert now_ms < until_ms <= now_ms + DAY_MS
        assert until_ms // HOUR_MS % 24 == last
        assert listener.quiet_until(Tier.WARNING, until_ms) is None


def test_every_kind_says_what_it_means_and_how_urgent_it_is() -> None:
    """And every alarm is one that somebody has to see."""
    assert all(kind.meaning.endswith(".") for kind in MessageKind)
    assert {kind.tier for kind in set(ALARMS) - OF_TARGETS} == {Tier.CRITICAL}


# -- the wire -------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=4), st.text("abc_", min_size=1))
def test_the_signature_is_what_the_standards_own_library_verifies(data: dict[str, str], name: str) -> None:
    """Whatever stands in the body; another body, another id or another secret is refused."""
    body, at_s = json.dumps(data).encode(), int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature(secret_of(SECRET), name, at_s, body),
    }
    Verifier(SECRET).verify(body.decode(), headers)
    for wrong_body, wrong_headers in ((body + b" ", headers), (body, {**headers, "webhook-id": name + "x"})):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(wrong_body.decode(), wrong_headers)


class Keeper:
    """What a relay does with a mail: it keeps it, or answers otherwise."""

    def __init__(self, answer: str) -> None:
        self.answer, self.mails = answer, list[Any]()

    async def handle_DATA(self, _: object, __: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls it so
        self.mails.append(envelope)
        return self.answer


@contextmanager
def relay(answer: str = "250 kept") -> Iterator[tuple[int, list[Any]]]:
    """A real SMTP relay on loopback, its port, and what it was given."""
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port = int(probing.getsockname()[1])
    keeper = Keeper(answer)
    controller = Controller(keeper, hostname="127.0.0.1", port=port, server_hostname="relay.invalid")
    controller.start()
    try:
        yield port, keeper.mails
    finally:
        controller.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, receiver: Receiver) -> Iterator[Served]:
    secret = kept(tmp_path / "secret", SECRET)
    with served(tmp_path) as made:
        made.settings |= {
            "TOPUP_NOTIFY__WEBHOOK_URL": f"{receiver.url}/hook",
            "TOPUP_NOTIFY__WEBHOOK_SECRET_FILE": str(secret),
        }
        yield made


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_refill_is_told_signed_and_once(place: Served, receiver: Receiver) -> None:
    """By the command that makes it, with no daemon there; its data say which, how much and by what way."""
    done = place.document("once", "--amount", "12.5", "--yes")
    assert done["exit_code"] == 0
    assert receiver.kinds() == ["topup.refilled"]
    (request,) = receiver.taken
    Verifier(SECRET).verify(request.body.decode(), dict(request.headers))
    told = receiver.documents()[0]["data"]
    assert (told["topup_id"], told["amount_usd"], told["rail"]) == (done["topup"]["id"], "12.5", "coinbase")


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_refill_that_came_to_nothing_is_told_with_its_word(place: Served, receiver: Receiver) -> None:
    """The charge would pay a stranger, and no --force bypasses that: a program can branch on why it was refused."""
    place.spoil("coinbase", "other-recipient")
    assert place.document("once", "--amount", "12.5", "--yes", "--force")["exit_code"] == 3
    assert place.payments() == 0
    assert receiver.kinds() == ["topup.failed"]
    assert receiver.documents()[0]["data"]["reason"] == "charge_refused"


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_daemon_tells_of_an_alarm_and_of_its_end_over_a_kill(place: Served, receiver: Receiver) -> None:
    """The account runs low while buying is paused; another process, after a kill, tells that it is over, and why."""
    place.run("pause")
    daemon = place.start("run")
    daemon.await_event("cycle_done")
    place.low()
    until(lambda: receiver.kinds() == ["topup.low"], receiver.kinds)
    daemon.killed()
    daemon = place.start("run")
    place.run("resume")

    def told() -> list[dict[str, Any]]:
        """Each message once: what the killed process had not noted as delivered comes again, under its id."""
        return list({request.headers["webhook-id"]: json.loads(request.body) for request in receiver.taken}.values())

    until(lambda: "topup.refilled" in receiver.kinds() and len(told()) == 3, receiver.kinds)
    alarm = [one["data"] for one in told() if one["data"]["subject"] == "topup.low"]
    assert [one["state"] for one in alarm] == ["firing", "resolved"]
    assert (alarm[0]["reason"], alarm[0]["remedy"]) == ("paused", "`topup resume` when it may go on")
    assert daemon.stop() == 0


@pytest.mark.machine_time
@pytest.mark.slow
def test_the_heartbeat_beats_with_the_passes_and_says_how_the_process_left(place: Served, receiver: Receiver) -> None:
    """Start and success of a run under one id, and the exit code of the process."""
    daemon = place.start("run", notify__heartbeat_url=f"{receiver.url}/ping/me", notify__webhook_url=None,
                         notify__webhook_secret_file=None)  # fmt: skip
    daemon.await_event("cycle_done")
    until(lambda: receiver.pings()[:2] == ["start", "me"], receiver.pings)
    assert receiver.taken[0].query == receiver.taken[1].query
    assert receiver.taken[0].query.startswith("rid=")
    assert daemon.stop() == 0
    assert receiver.pings()[-1] == "0"


async def test_what_is_well_is_said_once_a_minute_and_a_failure_at_once(receiver: Receiver) -> None:
    """A failure has the id of its run where that was begun; after it the next pass is told of again."""
    clock = Machine()
    heart = Heartbeat(f"{receiver.url}/ping/me?key=1", clock)
    for well, wait_s in ((True, 1), (True, 1), (False, 1), (True, 61), (False, 1)):
        heart.began()
        heart.ended(well=well)
        clock.go_on(wait_s * 1000)
    await heart.left(0)
    assert receiver.pings() == ["start", "me", "fail", "start", "me", "start", "fail", "0"]
    runs = [request.query.removeprefix("key=1&rid=") for request in receiver.taken]
    assert runs[0] == runs[1] and runs[3] == runs[4] and runs[5] == runs[6] == runs[7]
    assert len(set(runs)) == 3


@pytest.mark.machine_time
def test_an_e_mail_reaches_its_reader_through_a_relay(place: Served) -> None:
    """Whoever reads it sees the account and what happened; a relay that refuses is said, its password is not."""
    with relay() as (port, mails):
        place.settings |= {
            "TOPUP_NOTIFY__EMAIL_TO": "ops@example.com,dev@example.com",
            "TOPUP_NOTIFY__SMTP_HOST": "127.0.0.1",
            "TOPUP_NOTIFY__SMTP_PORT": str(port),
            "TOPUP_NOTIFY__SMTP_TLS": "none",
        }
        done = place.document("notify", "test")
        assert [(one["name"], one["ok"]) for one in done["targets"]] == [("webhook", True), ("email", True)]
        (mail,) = mails
        assert mail.rcpt_tos == ["ops@example.com", "dev@example.com"]
        read = message_from_bytes(mail.content)
        assert read["Subject"] == "topup: default: topup.test"
        assert "Somebody asked for a test" in read.get_payload()
    refused = place.document("notify", "test")
    assert [one["detail"] for one in refused["targets"]] == [None, "the relay did not take it: ConnectionRefusedError"]


async def test_a_relay_that_never_ends_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a thread that ends with the process; until it lets go nobody is sent to it again."""
    monkeypatch.setattr("topup.wire.email.ALL_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        email = Email("127.0.0.1", port, "none", "a@example.com", ["b@example.com"])
        for _ in range(2):
            with pytest.raises(Undelivered) as held:
                await email.send("msg_1", 1, {"type": "topup.test", "data": {"account": "default"}})
            assert not held.value.final
        assert email.aside._thread is not None
        assert email.aside._thread.daemon
        silent.settimeout(PATIENCE_S)
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.machine_time
def test_whatever_apprise_knows_is_told(place: Served, receiver: Receiver) -> None:
    """Here its plain JSON; a line that it does not know is named by its number, and never repeated."""
    urls = kept(place.directory / "urls", f"# ours\n{receiver.url.replace('http', 'json', 1)}/chat\n")
    alone: dict[str, str | None] = {"notify__webhook_url": None, "notify__webhook_secret_file": None}
    done = place.document("notify", "test", notify__apprise_file=str(urls), **alone)
    assert [(one["name"], one["ok"]) for one in done["targets"]] == [("apprise", True)]
    assert receiver.documents()[0]["title"] == "topup: default: topup.test"
    receiver.answers = lambda _: 500
    assert not place.document("notify", "test", notify__apprise_file=str(urls), **alone)["targets"][0]["ok"]
    urls.write_text("nosuch://hunter2\n", encoding="utf-8")
    refused = place.run("notify", "test", notify__apprise_file=str(urls), **alone)
    assert refused.returncode == 2
    assert "URL number 1" in refused.stderr
    assert "hunter2" not in refused.stderr


@pytest.mark.parametrize(("code", "final"), [(451, False), (550, True)])
async def test_what_a_relay_refuses_for_good_is_not_tried_again(code: int, final: bool) -> None:  # noqa: FBT001
    """By its code: 4yz may pass, 5yz does not."""
    with relay(f"{code} no") as (port, _):
        email = Email("127.0.0.1", port, "none", "a@example.com", ["b@example.com"])
        with pytest.raises(Undelivered) as refused:
            await email.send("msg_1", 1, {"type": "topup.test", "data": {"account": "default"}})
    assert refused.value.final is final
    assert str(code) in str(refused.value)


@pytest.mark.machine_time
def test_a_test_says_of_each_target_whether_it_hears(place: Served, receiver: Receiver) -> None:
    """Exit 0 and 3; without targets it says what to set. No secret and no path of the URL is in what is said."""
    heard = place.document("notify", "test")
    assert (heard["targets"][0]["ok"], receiver.kinds()) == (True, ["topup.test"])
    receiver.answers = lambda _: 410
    refused = place.run("notify", "test")
    assert refused.returncode == 3
    assert refused.stdout.startswith("FAIL  webhook    the webhook answered 410; to do: ")
    assert "/hook" not in refused.stdout + refused.stderr
    nobody = place.run("notify", "test", notify__webhook_url=None, notify__webhook_secret_file=None)
    assert nobody.returncode == 2
    assert "notify.webhook_url" in nobody.stderr


def test_a_secret_that_is_none_is_refused_with_what_to_do(place: Served) -> None:
    """A short one, too: whoever guesses it can tell us anything."""
    Path(place.settings["TOPUP_NOTIFY__WEBHOOK_SECRET_FILE"]).write_text("whsec_c2hvcnQ=", encoding="utf-8")
    done = place.run("notify", "test")
    assert done.returncode == 2
    assert "openssl rand" in done.stderr
