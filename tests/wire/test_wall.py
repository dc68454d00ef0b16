"""Does anything that others say end the process, get kept with a secret in it, or reach a log unmasked?

Providers of which one says what no decoder foresaw, and a gateway that echoes; story 25 has a whole life of the former.
"""

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.world.stand import Town
from topup.app import keys
from topup.app.log import FIELD_MAX, LogSink
from topup.app.settings import load
from topup.chain.blocks import right_chain
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc, quantity
from topup.domain.errors import ChainUnknown
from topup.domain.events import Event, ProviderSetAside
from topup.domain.lifecycle import State

HUGE = "0x" + "f" * 4000
KEY = "alchemyKey0123456789abcdefABCDEF"


def asking(names: tuple[str, ...], said: list[Event]) -> Providers:
    """Providers of these names, of which two have to agree; nobody is asked anything."""
    rpcs = [Rpc(f"https://{name}.example/v2/{KEY}", timeout_s=1) for name in names]
    return Providers(rpcs, quorum=2, now_s=lambda: 0, head_age_max_s=60, lag_max_s=60, say=said.append)


def undecodable() -> str:
    return b"\xff".decode()


NO_QUANTITY: list[Any] = [HUGE, "0x" + "f" * 65, "text", 5, [], {"a": 1}]


@pytest.mark.parametrize(
    ("read", "words"),
    [
        *((partial(quantity, value, "the balance"), "one.example: the balance is ") for value in NO_QUANTITY),
        (undecodable, "one.example gave nonsense (UnicodeDecodeError at topup/"),
    ],
)
async def test_who_says_what_no_honest_one_says_is_set_aside_at_once_and_named(
    read: Callable[[], object], words: str
) -> None:
    """Of three, one shows as a quantity what is none, or what nobody foresaw: once is enough; the others are taken."""
    said: list[Event] = []

    async def act(rpc: Rpc) -> int:
        if rpc.host == "one.example":
            read()
        return 1

    told = await asking(("one", "two", "three"), said).ask(act)
    assert [vote.name for vote in told.votes] == ["two.example", "three.example"]
    (event,) = said
    assert isinstance(event, ProviderSetAside)
    assert event.provider == "one.example"
    assert event.detail.startswith(words)
    assert len(event.detail) < 200, "the sentence quotes it in short"


async def test_where_all_say_nonsense_nothing_is_known_and_each_is_named() -> None:
    """A defect of ours looks the same: it ends no process, and the sentence says where it is."""

    async def act(_: Rpc) -> int:
        raise RecursionError

    words = r"one.example gave nonsense \(RecursionError at .*two.example gave nonsense"
    with pytest.raises(ChainUnknown, match=words):
        await asking(("one", "two"), []).ask(act)


@pytest.mark.parametrize("place", ["id", "deadline"])
async def test_a_charge_that_repeats_our_key_is_refused_before_it_is_kept(
    town: Callable[[int], Town], place: str
) -> None:
    """Whether the proof would have looked there or not: no byte of the key reaches an event or the ledger."""
    there = town(1)
    stage, key = there.stage, there.world.gateway.management_key
    honest = stage.works.api.charge

    async def echoing(request: Any) -> bytes:
        raw = json.loads(await honest(request))
        (raw["data"] if place == "id" else raw["data"]["web3_data"]["transfer_intent"]["call_data"])[place] = key
        return json.dumps(raw).encode()

    stage.works.api.charge = echoing  # type: ignore[method-assign]
    await stage.until(State.DROPPED)
    await stage.close()
    (refused,) = stage.named("charge_refused")
    assert refused.was == "one that repeats a secret of ours"
    said = [value for event in stage.told for value in event.shown().values() if isinstance(value, str)]
    assert not any(key[9:29] in text for text in said)
    written = b"".join(path.read_bytes() for path in stage.directory.rglob("*") if path.is_file())
    assert key.encode() not in written
    assert there.stage.payments() == 0


async def test_a_provider_that_repeats_its_own_key_in_a_result_does_not_make_us_say_it() -> None:
    """What stands where a number belongs is quoted, and masked like an error."""

    async def act(rpc: Rpc) -> None:
        right_chain(rpc, f"/v2/{KEY}", 8453)

    with pytest.raises(ChainUnknown) as error:
        await asking(("one", "two"), []).ask(act)
    assert "the chain id is '/v2/…', not a quantity" in str(error.value)
    assert KEY[:10] not in str(error.value)


def test_the_log_masks_and_cuts_what_came_through_all_the_same() -> None:
    """The second line: the settings' own secrets, in any field of any event."""
    key, out = "sk-or-v1-" + "5ec7e79a" * 8, io.StringIO()
    hide = keys.masker(load({"TOPUP_CONFIG": "/dev/null", "TOPUP_API__KEY": key, "TOPUP_MODE": "observe"}))
    sink = LogSink(form="json", stream=out, now_ms=lambda: 0, hide=hide)
    sink.emit(ProviderSetAside(provider="one", why="failing", detail=f"you said {key} " + "x" * 9000, pause_s=30))
    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert told["detail"].startswith("you said … xxx")
    assert len(told["detail"]) == FIELD_MAX
