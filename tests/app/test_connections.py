"""Is everything closed that a command has opened, whatever becomes of it?"""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tools import environ
from topup.app.connections import Connections, opened
from topup.app.settings import Settings, load
from topup.commands.check import ask_and_decide
from topup.commands.demo_ground import ground
from topup.domain.credits import Reading
from topup.domain.errors import SettingsError
from topup.domain.money import Usd
from topup.ledger.store import SqliteStore
from topup.payment.config import PurchaseOrder
from topup.sandbox.fault import WALLET_WEI
from topup.wire.http import Client


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was closed, in that order; the first provider fails to."""
    order: list[str] = []
    honest, end = Client.close, SqliteStore.close

    async def close(client: Any) -> None:
        order.append(client.url)
        await honest(client)
        if client.url.endswith(":1"):
            raise OSError

    def close_store(store: SqliteStore) -> None:
        order.append("ledger")
        end(store)

    made = Client.__init__

    def noted(client: Any, url: str, **more: Any) -> None:
        client.url = url
        made(client, url, **more)

    monkeypatch.setattr(Client, "__init__", noted)
    monkeypatch.setattr(Client, "close", close)
    monkeypatch.setattr(SqliteStore, "close", close_store)
    return order


def settings(directory: Path, **more: str) -> Settings:
    """Settings of an account at a seller that listens nowhere."""
    said = {"state_dir": str(directory), "api__url": "http://127.0.0.1:9", "api__key": "sk-1"}
    return load(environ(**said | {"chain__rpc_urls": "http://127.0.0.1:1,http://127.0.0.1:2"} | more))


async def test_nothing_is_opened_that_is_not_used(tmp_path: Path, closed: list[str]) -> None:
    """No client, no ledger, no key: a command that only looks at one thing opens that alone."""
    async with opened(settings(tmp_path / "none")) as connections:
        assert connections.rpcs == []
    assert closed == []
    assert not (tmp_path / "none").exists()


async def test_all_is_closed_the_last_one_first_even_where_one_fails(tmp_path: Path, closed: list[str]) -> None:
    """The ledger comes last, since everything else may still write to it, and is closed whatever went wrong before."""
    own = settings(tmp_path)
    with pytest.raises(OSError):  # noqa: PT011, PT012 - of the provider that could not be closed
        async with opened(own, SqliteStore.open_writer(tmp_path)) as connections:
            _ = connections.api
            assert len(connections.providers(own.chain.rpc_urls)) == 2
            assert connections.providers(own.chain.rpc_urls) == connections.rpcs, "they are opened once"
    assert closed == ["http://127.0.0.1:2", "http://127.0.0.1:1", "http://127.0.0.1:9", "ledger"]
    SqliteStore.open_writer(tmp_path).close()  # it is held by nobody


async def test_the_ledger_is_closed_when_opening_fails_half_way(tmp_path: Path, closed: list[str]) -> None:
    """There is no API key: no cycle comes of it, and the next start is not told that another holds the ledger."""
    own = settings(tmp_path).model_copy(update={"api": settings(tmp_path).api.model_copy(update={"key": None})})
    with pytest.raises(SettingsError, match=r"api\.key is missing"):
        async with opened(own, SqliteStore.open_writer(tmp_path)) as connections:
            _ = connections.cycle
    assert closed == ["http://127.0.0.1:9", "ledger"]


@pytest.mark.parametrize("rail", ["coinbase", "mpp"])
async def test_a_way_out_that_is_set_wrong_ends_the_start_and_not_a_payment(
    rail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is wrong for the providers alone: no daemon starts that would only learn of it when it has to pay."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    far = {"chain__rpc_urls": "https://base.example", "rails__mpp__rpc_urls": "https://tempo.example"}
    own = settings(tmp_path, rails__use=rail, **far)
    async with opened(own, SqliteStore.open_writer(tmp_path)) as connections:
        with pytest.raises(SettingsError, match="HTTPS_PROXY names a SOCKS proxy"):
            _ = connections.cycle


def test_a_command_without_the_ledger_has_no_key_for_a_payment(tmp_path: Path) -> None:
    """It reads a copy: what it might decide there, or store, can never lead to a signature."""
    own = settings(tmp_path, mode="live", wallet__private_key="0x" + "11" * 32)
    rail: Any = Connections(own).rail()
    assert rail._signer is None


async def test_check_reads_on_from_the_ledger_where_a_gateway_tells_a_balance_alone(tmp_path: Path) -> None:
    """Such a gateway knows no totals: without the ledger's, they would begin anew, and a fall is not believed."""
    with ground("x402").build(1, WALLET_WEI) as world:
        own = load(world.environment() | environ(state_dir=str(tmp_path)))
        with closing(SqliteStore.open_writer(tmp_path)) as store:
            bought = Reading(Usd.of(900), Usd.of(891), world.clock.now_ms() - 60_000, exact=False)
            store.record_reading(own.account, bought)
        answer = await ask_and_decide(own, PurchaseOrder())
    assert answer.document["balance_usd"] is not None, answer.lines
