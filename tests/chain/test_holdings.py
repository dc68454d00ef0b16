"""What does a wallet hold at a final block, and who has to agree on it?"""

from functools import partial

import pytest

from tests.world.stand import Provided, Stand, failing
from topup.chain.agreement import Disagreement
from topup.chain.profiles import BASE
from topup.chain.token_chain import AuthorizedChain
from topup.domain.errors import ChainUnknown
from topup.domain.money import Asset
from topup.ports.chain import Holdings
from topup.sandbox import contracts
from topup.sandbox.rpc import RpcError
from topup.sandbox.world import ETH_USD_E8

HELD = 12_500_000
WEI = 10**18


@pytest.fixture
def rich(pair: Stand) -> Stand:
    """A wallet with ETH and dollars, and two providers that have to agree on it."""
    pair.world.do(lambda: pair.world.chain.set_balance(pair.world.wallet, WEI))
    pair.write(*contracts.usdc_balance(pair.world.wallet, HELD))
    pair.mine(10)
    return pair


def holdings(stand: Stand) -> Holdings:
    return stand.ask(lambda chain: chain.holdings(stand.wallet))


def test_coin_and_token_are_read_at_the_final_block(rich: Stand) -> None:
    """What arrived after it is not there yet, for it might still be undone; the price is that of the block."""
    rich.world.do(lambda: rich.world.chain.set_balance(rich.world.wallet, 2 * WEI))
    rich.mine(1)
    told = holdings(rich)
    assert told.units == {Asset.ETH: WEI, Asset.USDC: HELD}
    assert told.price_e8 == ETH_USD_E8
    final = rich.rpc("eth_getBlockByNumber", "finalized", False)
    assert (told.at.number, told.at.timestamp_s) == (int(final["number"], 16), int(final["timestamp"], 16))
    rich.mine(10)
    assert holdings(rich).units[Asset.ETH] == 2 * WEI


def test_one_provider_alone_cannot_move_the_wallet(rich: Stand) -> None:
    """A single wei between two of them, and nothing is said."""
    rich.bend(1, "eth_getBalance", to=lambda _: hex(WEI + 1))
    with pytest.raises(Disagreement, match="1000000000000000001 units of ETH"):
        holdings(rich)


def test_a_node_without_the_state_of_that_block_is_no_answer(rich: Stand) -> None:
    """Most nodes forget old state; then nothing is known, and nothing is zero."""
    rich.bend(1, failing("eth_getBalance", RpcError(-32000, "missing trie node")))
    with pytest.raises(ChainUnknown, match=r"the wallet's ETH at the final block \d+, 127.0.0.1.*missing trie node"):
        holdings(rich)


def test_a_rail_that_takes_dollars_alone_asks_for_dollars_alone(rich: Stand) -> None:
    """Where a seller carries the payment, the wallet's coin is nobody's business."""
    both = Provided(rich.world, 2, partial(AuthorizedChain, BASE.chain_id))
    told = both.ask(lambda chain: chain.holdings(rich.wallet))
    assert (told.units, told.price_e8) == ({Asset.USDC: HELD}, None)
