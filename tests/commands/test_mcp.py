"""What can an agent ask about its funds, and can it do anything else?"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, ListToolsResult

from tests.tools import ROOT, environ
from tests.world.served import TOPUP, Served, served
from topup.commands.mcp import FOREIGN, marked

ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("status", {}),
    ("forecast", {}),
    ("history", {"count": 5}),
    ("usage", {"by": "model"}),
    ("why_nothing_was_bought", {}),
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


async def _asked(environment: dict[str, str]) -> tuple[ListToolsResult, dict[str, dict[str, Any]]]:
    server = StdioServerParameters(command=TOPUP[0], args=[*TOPUP[1:], "mcp"], env=environment)
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        told = {}
        for name, arguments in ASKED:
            result = await session.call_tool(name, arguments)
            assert isinstance(result, CallToolResult)
            assert result.structured_content is not None, result
            told[name] = result.structured_content
        return await session.list_tools(), told


def asked(**settings: str) -> tuple[ListToolsResult, dict[str, dict[str, Any]]]:
    """Ask everything once, by the official client; the server has these settings and no other."""
    return asyncio.run(_asked(environ(**settings)))


@pytest.mark.slow
def test_an_agent_asks_and_nothing_is_done(place: Served) -> None:
    """Every tool only reads; with no key and no address it tells the same as the commands, and nobody is asked."""
    place.low()
    assert place.run("once", "--yes").returncode == 0
    place.low()
    bought, requests = place.document("history"), len(place.world.gateway.requests)
    tools, told = asked(state_dir=str(place.state), policy__floor="10")
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    assert (
        [tool.name for tool in tools.tools]
        == [name for name, _ in ASKED]
        == re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    )
    assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools.tools)
    assert told["status"]["funded"] == "yes"
    assert [one["id"] for one in told["history"]["topups"]] == [one["id"] for one in bought["topups"]]
    assert (told["why_nothing_was_bought"]["decision"], told["why_nothing_was_bought"]["why"]) == (
        "hold",
        "above_floor",
    )
    assert told["forecast"]["balance_usd"] == told["status"]["balance_usd"]
    assert told["usage"]["by"] == "model"
    assert len(place.world.gateway.requests) == requests
    assert place.document("history") == bought


def test_what_cannot_be_answered_is_said_with_what_to_do(tmp_path: Path) -> None:
    """Without a ledger each tool answers with an error, a remedy and no invented figure."""
    _, told = asked(state_dir=str(tmp_path / "none"))
    assert {document["error"]["code"] for document in told.values()} == {"store_unusable"}
    assert all(document["error"]["remedy"] for document in told.values())


TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FOREIGN, "why", "id", "rows"]), inner, max_size=4)
    ),
)


@given(TEXTS)
def test_what_others_wrote_is_marked_wherever_it_stands(value: Any) -> None:
    """In an object of its own, cut, on one line, and nothing that commands a terminal is left anywhere."""

    def look(before: Any, after: Any, name: str = "") -> None:
        match before:
            case dict():
                assert before.keys() == after.keys()
                for key, one in before.items():
                    look(one, after[key], key)
            case list():
                for one, other in zip(before, after, strict=True):
                    look(one, other, name)
            case str() if name in FOREIGN and before:
                assert after.keys() == {"foreign"}
                assert len(after["foreign"]) <= 300
                assert after["foreign"].isprintable()
            case str():
                assert after.isprintable()
            case _:
                assert after == before

    look(value, marked(value))
    json.dumps(marked(value))
