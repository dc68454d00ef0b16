"""Is it said, and loudly enough, when a top-up cannot get on for long, and is it over when it does?"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world.builders import topup
from tests.world.house import NONCE, House, Paced
from tests.world.ledger import MEMORY
from tests.world.proxy import Fault, drop, status, wrong
from tests.world.stage import Kept
from topup.app.settings import load
from topup.commands.wish import Ending, Once
from topup.domain import events
from topup.domain.errors import Exit, WrongChain
from topup.domain.events import Event
from topup.domain.lifecycle import State
from topup.domain.money import Usd
from topup.domain.notes import Note
from topup.ledger.store import SqliteStore
from topup.payment.lasting import SOON_S, Lasting
from topup.ports.ledger import Told, Wish

ALERT_S, HOUR_S = 1800, 3600
PAGE = status(503, b"<html><body>no healthy upstream</body></html>", {"content-type": "text/html"})


@asynccontextmanager
async def living(house: House, **terms: str) -> AsyncIterator[None]:
    """Let a house stand and topup run in it, and end what still runs."""
    with house:
        house.start(**terms)
        try:
            yield
        finally:
            await house.stop()


def down(house: House, fault: Fault) -> Callable[[], None]:
    """Let every provider fail like this; return what ends it."""
    rules = [wire.on("*", fault) for wire in house.wires]

    def again() -> None:
        for rule in rules:
            rule.end()

    return again


async def passes(house: House, seconds: int) -> None:
    """Make passes for so many seconds of the world: as often as topup wants them, less often in a long time."""
    until = house.clock.now_ms() + seconds * 1000
    while house.clock.now_ms() < until:
        with contextlib.suppress(WrongChain):
            rest = await house.stage.works.cycle.run()
            assert rest.next_s > 0
        house.wait(12 if seconds <= 60 else 100)


def said(house: House) -> tuple[int, int, int]:
    """Count the warnings, the alarms, and the ends."""
    told = (len(house.named(name)) for name in ("top_up_stalled", "top_up_stuck", "top_up_goes_on"))
    return next(told), next(told), next(told)


# -- no usable provider ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "providers"), [(drop(), 1), (PAGE, 3)], ids=["one_refuses", "three_show_a_page"])
async def test_no_usable_provider_is_a_warning_within_a_minute_and_then_critical(
    fault: Fault, providers: int, tmp_path: Path
) -> None:
    """A refill is due and nobody answers: a warning, after half an hour an alarm, and one more each hour.

    Once they are back it is paid once, and that it gets on is said.
    """
    async with living(house := House(tmp_path, providers=providers)):
        again = down(house, fault)
        await passes(house, 60)
        assert said(house) == (1, 0, 0)
        (warned,) = house.named("top_up_stalled")
        assert SOON_S <= warned.lasting_s <= 60
        assert (warned.state, warned.out, warned.why) == ("charged", False, "chain_unknown")
        assert "127.0.0.1" in warned.detail  # who fails is named
        await passes(house, ALERT_S - 300)
        assert said(house) == (1, 0, 0)
        await passes(house, 400)
        assert said(house) == (1, 1, 0)
        (stuck,) = house.named("top_up_stuck")
        assert ALERT_S <= stuck.lasting_s < ALERT_S + 200
        await passes(house, HOUR_S + 100)
        assert said(house) == (1, 2, 0)
        assert house.sent == []
        again()
        house.wait(900)  # past the pause of whoever was set aside
        await house.ends()
        assert said(house) == (1, 2, 1)
        assert house.payments() == 1


async def test_a_pass_in_which_nothing_was_asked_ends_nothing(tmp_path: Path) -> None:
    """Buying is paused for a while in the midst of it: nobody has shown meanwhile that a payment could be planned."""
    async with living(house := House(tmp_path)):
        down(house, drop())
        await passes(house, 900)
        house.stage.store.say("default", "paused", "1", house.clock.now_ms(), "a test")
        await passes(house, 300)
        house.stage.store.say("default", "paused", "0", house.clock.now_ms(), "a test")
        await passes(house, 500)
        assert said(house) == (1, 0, 0)
        await passes(house, 200)
        assert said(house) == (1, 1, 0)


# -- what else keeps a payment from being planned ---------------------------------------------------------------------


def lags(house: House) -> None:
    """The provider shows the nonce of before the last payment."""
    house.wires[0].on(NONCE, wrong(lambda _: "0x0"))


def another_chain(house: House) -> None:
    """The provider speaks of another chain, which no waiting mends."""
    house.wires[0].on("eth_chainId", wrong(lambda _: "0x1"))


def slow(house: House) -> None:
    """By the time a payment is planned, the plan is too old."""

    async def late(method: str, _: list[Any], honest: Callable[[], Any]) -> Any:
        if method == "eth_chainId":
            house.world.clock.leap(20_000)
        return honest()

    house.world.rpc.intercept = late


def poor(house: House) -> None:
    """The wallet holds too little."""
    house.wires[0].on("eth_getBalance", wrong(lambda _: "0x1"))


def no_seller(house: House) -> None:
    """Nobody answers the request for a charge."""
    house.api.on("/credits/coinbase", status(503))


@pytest.mark.parametrize(
    ("trouble", "why", "warns"),
    [
        (lags, "chain_unknown", "top_up_stalled"),
        (another_chain, "WrongChain", ""),  # the daemon says `cycle_failed` of each of these passes
        (slow, "plan_stale", "payment_forbidden"),
        (poor, "wallet_low", "payment_forbidden"),
        (no_seller, "charge_unanswered", "charge_unanswered"),
    ],
    ids=["lags", "another_chain", "slow", "poor", "no_seller"],
)
async def test_whatever_keeps_a_payment_from_being_planned_is_critical_when_it_lasts(
    trouble: Callable[[House], None], why: str, warns: str, tmp_path: Path
) -> None:
    """Each kind is warned of by one event within a minute, and wakes somebody after half an hour."""
    async with living(house := House(tmp_path), policy__charges_per_hour="100"):
        await house.ends()
        house.low()
        paid, before = house.payments(), len(house.told)
        trouble(house)
        await passes(house, 60)
        names = [event.name() for event in house.told[before:]]
        assert warns == "" or warns in names
        assert ("top_up_stalled" in names) == (warns == "top_up_stalled")
        assert house.named("top_up_stuck") == []
        await passes(house, ALERT_S + 100)
        (stuck,) = house.named("top_up_stuck")
        assert (stuck.why, stuck.out) == (why, False)
        assert stuck.remedy
        assert house.payments() == paid


# -- what is out ------------------------------------------------------------------------------------------------------


async def test_a_payment_that_nobody_can_look_at_is_said_as_what_it_is(tmp_path: Path) -> None:
    """Every provider is gone right after the payment left: a warning and an alarm say that money may have moved.

    Once they are back the payment is found, and nothing is paid twice.
    """
    async with living(house := House(tmp_path)):
        house.mining = False
        await house.out(1)
        house.mining = True
        again = down(house, drop())
        await passes(house, 60)
        assert said(house) == (1, 0, 0)
        await passes(house, ALERT_S + 100)
        assert said(house) == (1, 1, 0)
        for event in (*house.named("top_up_stalled"), *house.named("top_up_stuck")):
            assert (event.state, event.out, event.moved().value) == ("sent", True, "maybe")
        again()
        await house.ends()
        assert said(house) == (1, 1, 1)
        assert house.payments() == 1


# -- `topup once` -----------------------------------------------------------------------------------------------------


class Patient(Paced):
    """The time in a house for a command that waits for its own end beside what it does: a long wait moves nothing."""

    async def sleep(self, seconds: float) -> None:
        """Let a short time pass at once; come back from a long one when others have let it pass."""
        if seconds < 60:
            await super().sleep(seconds)
            return
        until = self.now_ms() + seconds * 1000
        while self.now_ms() < until:  # noqa: ASYNC110 - the house's time sets no event
            await asyncio.sleep(0.001)


async def test_once_that_is_repeated_says_it_of_the_wish(tmp_path: Path) -> None:
    """A cron job wishes for the same every quarter of an hour: each says so, and the third, of half an hour, loudly."""
    endings: list[tuple[Ending, list[str]]] = []
    with House(tmp_path) as house:
        down(house, drop())
        place = {"TOPUP_STATE_DIR": str(house.state), "TOPUP_CONFIG": "/dev/null"}
        terms = load(house.environment() | place)
        for _ in range(3):
            sink, wish = Kept(), Wish(Usd.of(5), forced=False, name=None, uid=0)
            once = Once(terms, wish, timeout_s=120, clock=Patient(house), sink=sink, warn=lambda _: None, agreed=True)
            endings.append((await once.run(), [event.name() for event in sink.told]))
            house.wait(900)
    assert [ending.code for ending, _ in endings] == [Exit.LATER] * 3
    assert [names.count("top_up_stalled") for _, names in endings] == [1, 1, 0]
    assert [names.count("top_up_stuck") for _, names in endings] == [0, 0, 1]


# -- the series -------------------------------------------------------------------------------------------------------

STEP = st.tuples(st.sampled_from(["failed", "said", "ended", "restart"]), st.integers(0, 2 * HOUR_S))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=30), out=st.booleans())
def test_a_series_is_said_by_its_length_and_nothing_else(steps: Sequence[tuple[str, int]], out: bool) -> None:  # noqa: FBT001 - drawn
    """Any order of failures, successes and restarts: alarms as long as it has lasted, a warning below, one end each."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        closing(SqliteStore.open_writer(Path(folder))) as store,
    ):
        now = [1_900_000_000_000]
        one = replace(topup(), state=State.SENT if out else State.CHARGED, decided_ms=now[0])

        def begun() -> tuple[Lasting, Kept]:
            sink = Kept()
            return Lasting(one.account, alert_s=ALERT_S, now=lambda: now[0], store=store, sink=sink), sink

        lasting, sink = begun()
        since: int | None = None
        warned, alerted = False, None
        for what, wait_s in steps:
            now[0] += wait_s * 1000
            before = len(sink.told)
            expected: list[type[Event]] = []
            if what == "restart":
                (lasting, sink), warned, alerted = begun(), False, None
                continue
            if what == "ended":
                expected = [events.TopUpGoesOn] if since is not None and now[0] - since >= SOON_S * 1000 else []
                since, warned, alerted = None, False, None
                lasting.ended(one)
            else:
                since = now[0] if since is None else since
                if now[0] - since >= ALERT_S * 1000:
                    if alerted is None or now[0] - alerted >= HOUR_S * 1000:
                        expected, alerted, warned = [events.TopUpStuck], now[0], True
                elif now[0] - since >= SOON_S * 1000 and not warned and what == "failed":
                    expected, warned = [events.TopUpStalled], True
                lasting.failed(one, "chain_unknown", "nobody answers", said=what == "said")
            assert [type(event) for event in sink.told[before:]] == expected


def test_a_series_belongs_to_the_need_it_was_stored_for(tmp_path: Path) -> None:
    """A top-up that was dropped long ago leaves nothing to the next; one of the same wish goes on where it was."""
    with closing(SqliteStore.open_writer(tmp_path)) as store:
        now = [1_900_000_000_000]
        sink = Kept()
        lasting = Lasting("default", alert_s=ALERT_S, now=lambda: now[0], store=store, sink=sink)
        begun = now[0]
        wish = store.wish("default", Wish(Usd.of(5), forced=False, name=None, uid=1), now[0], now[0] + 1).number
        first = replace(topup(), wish=wish, state=State.CHARGED, decided_ms=now[0])
        lasting.failed(first, "chain_unknown", "nobody answers")
        now[0] += ALERT_S * 1000
        store.answer_request(wish, Told("unknown: gave up", "withdrawn", 4), now[0])
        lasting.failed(replace(first, decided_ms=now[0]), "chain_unknown", "nobody answers")
        assert [event.lasting_s for event in sink.told if isinstance(event, events.TopUpStuck)] == [ALERT_S]
        now[0] += HOUR_S * 1000
        other = replace(first, wish=None, decided_ms=now[0])
        lasting.ended(other)
        lasting.failed(other, "chain_unknown", "nobody answers")
        assert len(sink.told) == 1
        assert begun < store.told_at("default", Note.UNPLANNED) == now[0]
