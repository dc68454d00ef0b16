"""Which chains can stand behind the embedded world? The one in this process, anvil, and anvil in two disguises.

Each maker is what `topup.sandbox.world.World` takes: it gets the world and returns its chain.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests import tools
from tests.world import uniswap
from topup.sandbox.anvil import Anvil
from topup.sandbox.rpc import Chain
from topup.sandbox.world import World, embedded

Maker = Callable[[World], Chain]


def anvil(world: World, ago_s: int = 0, **how: Any) -> Anvil:
    """Anvil as it is, with no L1 fee anywhere, begun so long ago; `how` is as `Anvil` takes it."""
    now = world.clock.now_s
    return Anvil(tools.require("anvil"), world.genesis(), timestamp=now() - ago_s, now=now, **how)


def with_uniswap(world: World) -> Chain:
    """Anvil with Uniswap's own factory, pools, quoter and router at Base's addresses; the deployer's blocks are old."""
    chain = anvil(world, ago_s=600)
    try:
        chain.rpc("evm_setAutomine", [True])
        uniswap.deploy(chain.rpc)
        chain.rpc("evm_setAutomine", [False])
    except BaseException:
        chain.stop()
        raise
    return chain


# Each with what it needs; an OP chain charges a real L1 fee, and no receipt tells it.
MAKERS: Final[dict[str, tuple[Maker, tuple[str, ...]]]] = {
    "embedded": (embedded, ()),
    "anvil": (anvil, ("anvil",)),
    "optimism": (partial(anvil, optimism=True), ("anvil",)),
    "uniswap": (with_uniswap, ("anvil", "uniswap")),
}


def maker(name: str) -> Maker:
    """Return the maker of that name; the test is skipped here, in its own thread, when something is missing."""
    made, needed = MAKERS[name]
    for program in needed:
        tools.require(program)
    return made
