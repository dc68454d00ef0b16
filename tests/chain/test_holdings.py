"""What does a wallet hold at a final block, and who has to agree on it?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.world import builders
from topup.chain.agreement import Disagreement
from topup.chain.contract_chain import EvmChain
from topup.chain.profiles import BASE
from topup.chain.providers import Providers
from topup.chain.rpc import Rpc
from topup.chain.token_chain import AuthorizedChain
from topup.domain.errors import ChainUnknown
from topup.domain.money import Asset
from topup.ports.chain import Holdings
from topup.sandbox import contracts
from topup.sandbox.rpc import RpcError, RpcServer
from topup.sandbox.world import ETH_USD_E8, World, embedded

HELD = 12_500_000
WEI = 10**18


class Purse:
    """A wallet on a chain that mines only when told to, and two providers that have to agree on it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wallet = builders.address(world.wallet)
        world.do(lambda: world.chain.set_balance(world.wallet, WEI))
        world.do(lambda: world.write(contracts.usdc_balance(world.wallet, HELD)))
        self.servers: list[RpcServer] = [world.rpc, world.provider()]
        self.mine(10)

    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.world.do(lambda: self.world.chain.mine(self.world.clock.now_s()))

    def holdings(self, *, token_only: bool = False) -> Holdings:
        async def asked() -> Holdings:
            rpcs = [Rpc(server.url, timeout_s=20) for server in self.servers]
            both = Providers(
                rpcs,
                quorum=2,
                now_s=self.world.clock.now_s,
                head_age_max_s=600,
                lag_max_s=60,
                say=lambda _: None,
            )
            chain = AuthorizedChain(BASE.chain_id, both) if token_only else EvmChain(BASE, both)
            try:
                return await chain.holdings(self.wallet)
            finally:
                for rpc in rpcs:
                    await rpc.close()

        return asyncio.run(asked())

    def bend(self, method: str, to: Callable[[], Any]) -> None:
        """Let one provider answer a method otherwise; `to` may raise."""

        async def answered(asked: str, _params: list[Any], honest: Callable[[], Any]) -> Any:
            return to() if asked == method else honest()

        self.servers[1].intercept = answered


@pytest.fixture
def purse() -> Iterator[Purse]:
    world = World(embedded)
    world.mining = False
    with world:
        yield Purse(world)


def test_coin_and_token_are_read_at_the_final_block(purse: Purse) -> None:
    """What arrived after the final block is not there yet; the price is that of the block."""
    told = purse.holdings()
    assert told.units == {Asset.ETH: WEI, Asset.USDC: HELD}
    assert told.price_e8 == ETH_USD_E8
    final = purse.world.do(lambda: purse.world.chain.rpc("eth_getBlockByNumber", ["finalized", False]))
    assert (told.at.number, told.at.timestamp_s) == (int(final["number"], 16), int(final["timestamp"], 16))


def test_a_deposit_counts_once_its_block_is_final(purse: Purse) -> None:
    """Before that it might still be undone."""
    purse.world.do(lambda: purse.world.chain.set_balance(purse.world.wallet, 2 * WEI))
    purse.mine(1)
    assert purse.holdings().units[Asset.ETH] == WEI
    purse.mine(10)
    assert purse.holdings().units[Asset.ETH] == 2 * WEI


def test_one_provider_alone_cannot_move_the_wallet(purse: Purse) -> None:
    """A single wei between two of them, and nothing is said."""
    purse.bend("eth_getBalance", lambda: hex(WEI + 1))
    with pytest.raises(Disagreement, match="1000000000000000001 units of ETH"):
        purse.holdings()


def test_a_node_without_the_state_of_that_block_is_no_answer(purse: Purse) -> None:
    """Most nodes forget old state; then nothing is known, and nothing is zero."""

    def forgotten() -> Any:
        raise RpcError(-32000, "missing trie node")

    purse.bend("eth_getBalance", forgotten)
    with pytest.raises(ChainUnknown, match=r"the wallet's ETH at the final block \d+, 127.0.0.1.*missing trie node"):
        purse.holdings()


def test_a_rail_that_takes_dollars_alone_asks_for_dollars_alone(purse: Purse) -> None:
    """Where a seller carries the payment, the wallet's coin is nobody's business."""
    told = purse.holdings(token_only=True)
    assert (told.units, told.price_e8) == ({Asset.USDC: HELD}, None)
