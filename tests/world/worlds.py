"""Which chains can stand behind the embedded world? The one in this process, anvil, and anvil in two disguises.

Each maker is what `topup.sandbox.world.World` takes: it gets the world and returns its chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests import tools
from tests.world import uniswap
from topup.sandbox.anvil import Anvil
from topup.sandbox.rpc import Chain
from topup.sandbox.world import World, embedded

Maker = Callable[[World], Chain]


def anvil(world: World) -> Chain:
    """Anvil as it is: no L1 fee anywhere."""
    return Anvil(tools.require("anvil"), world.genesis(), timestamp=world.clock.now_s(), now=world.clock.now_s)


def optimism(world: World) -> Chain:
    """Anvil as an OP chain: a real L1 fee is charged, and no receipt tells it."""
    genesis, now = world.genesis(), world.clock.now_s
    return Anvil(tools.require("anvil"), genesis, timestamp=now(), now=now, optimism=True)


def with_uniswap(world: World) -> Chain:
    """Anvil with Uniswap's own factory, pools, quoter and router at Base's addresses; the deployer's blocks are old."""
    tools.require("uniswap")
    now = world.clock.now_s
    chain = Anvil(tools.require("anvil"), world.genesis(), timestamp=now() - 600, now=now)
    try:
        chain.rpc("evm_setAutomine", [True])
        uniswap.deploy(chain.rpc)
        chain.rpc("evm_setAutomine", [False])
    except BaseException:
        chain.stop()
        raise
    return chain


MAKERS: Final[dict[str, Maker]] = {
    "embedded": embedded,
    "anvil": anvil,
    "optimism": optimism,
    "uniswap": with_uniswap,
}
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "embedded": (),
    "anvil": ("anvil",),
    "optimism": ("anvil",),
    "uniswap": ("anvil", "uniswap"),
}


def maker(name: str) -> Maker:
    """Return the maker of that name; the test is skipped here, in its own thread, when something is missing."""
    for program in NEEDS[name]:
        tools.require(program)
    return MAKERS[name]
