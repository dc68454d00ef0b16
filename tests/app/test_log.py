"""Is every event written as promised: one line, the same keys, amounts as text, whatever the format and the output?"""

import io
import json
import os
import re
import subprocess
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.world.served import TOPUP, Served, events_of
from tests.world.terminal import Terminal
from topup.app.log import Format, LogSink
from topup.domain import events
from topup.domain.lifecycle import State
from topup.domain.money import Bps, Usd, Usdc, Wei

NOW_MS = 1_900_000_000_123
STAMP = "2030-03-17T17:46:40.123Z"
FORMATS: tuple[Format, ...] = ("json", "console", "logfmt")
AMOUNTS = ("_usd", "_wei", "_units", "_per_credit", "hours_to_floor", "hours_to_empty")
NASTY = 'a "b" = c\\d, 10 %'
SAMPLES: dict[Any, object] = {
    str: NASTY,
    int: 7,
    bool: False,
    bytes: bytes.fromhex("00ff"),
    Usd: Usd.of("12.50"),
    Usdc: Usdc(10_500_000),
    Wei: Wei(3_500_000_000_000_001),
    Bps: Bps(106),
    Decimal: Decimal("1.050"),
}


def sample(kind: type[events.Event], *, full: bool = True) -> events.Event:
    """One event of this kind; what may be None is None when it is not to be full."""
    values: dict[str, object] = {}
    hints = {n: h for n, h in typing.get_type_hints(kind).items() if typing.get_origin(h) is not typing.ClassVar}
    for name, hint in hints.items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        empty = type(None) in options and not full
        values[name] = None if empty else SAMPLES[next(o for o in options if o is not type(None))]
    return kind(**values)


def line(event: events.Event, form: Format) -> str:
    """The text written for an event, without its line end; there has to be exactly one line."""
    out = io.StringIO()
    LogSink(level="debug", form=form, stream=out, now_ms=lambda: NOW_MS).emit(event)
    text = out.getvalue()
    assert text.endswith("\n")
    if len(text.splitlines()) != 1 or not text[:-1].isprintable():
        pytest.fail(ascii(text))  # as ASCII: half a letter in a report would end the test run itself
    return text[:-1]


def unlogfmt(text: str) -> dict[str, str]:
    """Read logfmt: key=value, a value with a blank, a quote or an equals sign in quotes with backslashes."""
    found: dict[str, str] = {}
    rest = text
    while rest:
        match = re.match(r'([a-z][a-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|([^ "=]*))(?: |$)', rest)
        assert match, rest
        name, quoted, plain = match.groups()
        assert name not in found
        found[name] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        rest = rest[match.end() :]
    return found


KINDS = [pytest.param(kind, id=kind.name()) for kind in events.catalogue()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_one_json_object(kind: type[events.Event]) -> None:
    """timestamp, level and event, then flat fields, text, whole or bool; no amount is a number, and nothing is null."""
    event = sample(kind)
    told = json.loads(line(event, "json"))
    assert list(told)[:3] == ["timestamp", "level", "event"]
    assert (told["timestamp"], told["level"], told["event"]) == (STAMP, kind.level, kind.name())
    own = [name for name in event.shown() if name not in ("timestamp", "level", "event")]
    assert list(told)[3 : 3 + len(own)] == own
    assert set(told) - set(own) <= {"timestamp", "level", "event", "money_moved", "todo"}
    for name, value in told.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert isinstance(value, str | int), name
        if name.endswith(AMOUNTS):
            assert isinstance(value, str), name
            assert Decimal(value).is_finite()
    assert told.get("todo", "") == kind.todo
    bare = sample(kind, full=False)
    told = json.loads(line(bare, "json"))
    assert None not in told.values()
    assert {name for name, value in bare.shown().items() if value is not None} <= set(told)


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_says_whether_money_moved(kind: type[events.Event]) -> None:
    """As its class says; only of a top-up that does not get on it depends on whether anything is out."""
    knows_better = "out" in _fields(kind)
    for out, moved in ((True, "maybe"), (False, "no")):
        event = kind(**{**_fields(kind), "out": out}) if knows_better else sample(kind)
        assert event.moved() is kind.money or knows_better
        said = json.loads(line(event, "json")).get("money_moved", "no")
        assert said == event.moved().value == (moved if knows_better else said)


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_can_be_read_back_from_logfmt_and_by_a_person(kind: type[events.Event]) -> None:
    """The same keys and values as in JSON; for a person on one line, without colours where there is no terminal."""
    event = sample(kind)
    told = unlogfmt(line(event, "logfmt"))
    assert list(told)[:3] == ["timestamp", "level", "event"]
    document = json.loads(line(event, "json"))
    assert told == {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in document.items()}
    shown = line(event, "console")
    assert "\x1b" not in shown
    assert kind.name() in shown
    assert kind.level in shown
    assert all(f"{name}=" in shown for name in event.shown())


@pytest.mark.parametrize("form", FORMATS)
def test_foreign_words_cannot_forge_a_line_or_command_a_terminal(form: Format) -> None:
    """A provider's answer with line ends, escapes, nulls and half a letter stays one line of printable text."""
    foreign = 'x\nevent=top_up_done\r\x1b[2J\x1b]0;owned\x07\x00\x85\u2028\u202e\ud800 "end"'
    shown = line(events.CycleDone(**{**_fields(events.CycleDone), "detail": foreign}), form)
    assert shown.isprintable()
    assert "end" in shown


def _fields(kind: type[events.Event]) -> dict[str, Any]:
    return dict(vars(sample(kind)))


def told_at(level: str, *said: events.Event) -> list[dict[str, Any]]:
    out = io.StringIO()
    sink = LogSink(level=level, form="json", stream=out, now_ms=lambda: NOW_MS)
    for event in said:
        sink.emit(event)
    return events_of(out.getvalue())


def test_an_event_below_the_level_is_not_written() -> None:
    """The level of the settings is the least that is written; but the line with the resulting balance always is."""
    told = told_at("warning", *map(sample, events.catalogue()))
    assert {one["level"] for one in told if one["event"] != "top_up_done"} == {"warning", "error", "critical"}
    assert [one["level"] for one in told if one["event"] == "top_up_done"] == ["info"]


def test_what_went_as_it_should_is_no_warning() -> None:
    """A mark that shows the payment, and a top-up that is needed no longer, wake nobody."""
    well = (
        events.FlagTested(topup_id="t", trusted=True),
        events.TopUpDropped(topup_id="t", reason="withdrawn", detail=""),
    )
    ill = events.FlagTested(topup_id="t", trusted=False), events.TopUpDropped(topup_id="t", reason="expired", detail="")
    assert {one["level"] for one in told_at("debug", *well)} == {"info"}
    assert {one["level"] for one in told_at("debug", *ill)} == {"warning"}


def test_no_value_is_rendered_that_nobody_thought_of() -> None:
    """A type without a place in an event is an error at once, not a surprise in the log."""
    with pytest.raises(TypeError):
        events.show(object())
    assert events.show(State.SENT) == "sent"


# -- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False), ("", True)])
def test_a_terminal_gets_colours_unless_no_color_says_no(no_color: str | None, coloured: bool, place: Served) -> None:  # noqa: FBT001
    """NO_COLOR counts when it is not empty (no-color.org)."""
    environment = place.environment(NO_COLOR=no_color, TERM="xterm", log__format="console")
    log = Terminal([*TOPUP, "once"], environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert log.ends() == 0
    shown = log.shown
    assert "cycle_done" in shown
    assert events_of(shown) == []
    assert ("\x1b[" in shown) is coloured


def test_off_a_terminal_it_is_json_and_logfmt_by_choice(place: Served) -> None:
    """A pipe gets JSON lines; log.format and log.level are heeded."""
    done = place.run("once")
    assert [e["event"] for e in events_of(done.stderr)] == ["cycle_done"]
    chosen = place.run("once", log__format="logfmt", log__level="debug").stderr.splitlines()
    assert [unlogfmt(text)["event"] for text in chosen] == ["reading_taken", "cycle_done"]


def test_one_id_follows_a_top_up_through_every_line(place: Served) -> None:
    """From the decision to the resulting balance each line of that life carries its topup_id."""
    place.low()
    done = place.run("once", "--yes")
    assert done.returncode == 0, done.stderr
    told = events_of(done.stderr)
    names = [e["event"] for e in told]
    assert names[0] == "top_up_decided"
    assert {"charge_proven", "payment_signed", "payment_included", "credits_posted", "top_up_done"} <= set(names)
    assert {e.get("topup_id") for e in told} == {place.topups()[0].id}
    assert told[-2]["balance_after_usd"] == "19"


@pytest.mark.parametrize("way", ["reader gone", "closed"])
def test_a_lost_log_loses_lines_and_no_payment(way: str, place: Served) -> None:
    """Nobody reads standard error any more, or there is none: the payment is made, booked and reported all the same."""
    place.low()
    command = [*TOPUP, "once", "--yes", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    if way == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(
        command,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writing,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert [t.state for t in place.topups()] == [State.DONE]
    assert place.payments() == 1
    assert json.loads(done.stdout)["outcome"] == "done"


def test_a_reader_that_reads_again_is_told_how_many_lines_were_lost_and_where(stalled: tuple[int, int]) -> None:
    """Every line is there once and in order, or counted by the line that stands at its place."""
    reading, writing = stalled
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        sink = LogSink(form="json", stream=stream, now_ms=lambda: NOW_MS)
        emitted, out = 0, bytearray()
        for _ in range(2):  # stuck and read, twice: each gap is counted by itself
            for _ in range(20_000):
                sink.emit(events.LogLinesLost(lines=-1 - emitted))
                emitted += 1
            while part := _all_there_is(reading):
                out += part
                sink._outlet.drain()
            sink.emit(events.LogLinesLost(lines=-1 - emitted))
            emitted += 1
        out += _all_there_is(reading)
    at, gaps = 0, 0
    for line in out.decode().splitlines():
        lines = json.loads(line)["lines"]
        if lines < 0:
            assert lines == -1 - at
            at += 1
        else:
            assert lines > 0
            at, gaps = at + lines, gaps + 1
    assert (at, gaps) == (emitted, 2)


@pytest.fixture
def stalled() -> Iterator[tuple[int, int]]:
    """A pipe that nobody reads yet: its two ends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)


def _all_there_is(reading: int) -> bytes:
    found = b""
    while True:
        try:
            part = os.read(reading, 1 << 16)
        except BlockingIOError:
            return found
        if not part:
            return found
        found += part
