"""What differs between the ways to pay, in the embedded world? Who sells, in what is paid, to whom, on which chain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from topup.accounting.journal import Commodity
from topup.domain.errors import SettingsError
from topup.domain.money import UNITS_PER_USDC, WEI_PER_ETH, Asset
from topup.sandbox import contracts
from topup.sandbox.faults import X402_SELLER
from topup.sandbox.rpc import Chain
from topup.sandbox.world import ETH_USD_E8, FEE_DESTINATION, World, embedded

ANVIL = "@foundry-rs/anvil"
ANVIL_REMEDY = (
    f"npm install {ANVIL}, then --anvil node_modules/{ANVIL}-PLATFORM/bin/anvil (PLATFORM such as linux-amd64)"
)


@dataclass(frozen=True)
class Ground:
    """What differs between the ways to pay.

    Attributes:
        rail: its name in the settings.
        asset: what the wallet pays with.
        dollar: the token that arrives, which the wallet holds too where the asset is no ETH.
        payees: who is paid in it, by address.
        build: makes a world that is not started, from the scale of its clock and the wei that the wallet holds or,
            where it pays with dollars, that these are worth.
    """

    rail: str
    asset: Asset
    dollar: str
    payees: Callable[[World], tuple[str, ...]]
    build: Callable[[int, int], World]

    @property
    def commodity(self) -> Commodity:
        """What the journal calls the dollar."""
        return Commodity.USDC if self.asset is Asset.ETH else Commodity(self.asset)


def ground(rail: str = "coinbase", pay_with: str = "eth", anvil: Path | None = None) -> Ground:
    """Return the ground of a rail; `pay_with` is coinbase's. A SettingsError says why it cannot be shown."""
    if pay_with == "usdc" and rail != "coinbase":
        raise SettingsError(
            f"--pay-with usdc is not for {rail}", remedy="only coinbase leaves the choice; leave it out"
        )
    if anvil is not None and not anvil.is_file():
        raise SettingsError(f"--anvil {anvil} is no file", remedy=ANVIL_REMEDY)
    if rail == "mpp":
        return _tempo(anvil)
    if rail == "x402":
        return _x402(_chain(anvil))
    return _coinbase(_chain(anvil), pay_with)


def _coinbase(chain: Callable[[World], Chain], pay_with: str) -> Ground:
    def build(scale: int, wealth: int) -> World:
        def with_dollars(world: World) -> Chain:
            made = chain(world)
            for cell in contracts.usdc_balance(world.wallet, _dollars(wealth)):
                made.set_storage(cell.address, cell.slot, cell.value)
            return made

        if pay_with == "eth":
            return World(chain, scale=scale, wallet_wei=wealth)
        return World(with_dollars, scale=scale, settings=lambda _: {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc"})

    def payees(world: World) -> tuple[str, ...]:
        return world.operator.terms.recipient, FEE_DESTINATION

    return Ground("coinbase", Asset(pay_with.upper()), contracts.USDC, payees, build)


def _x402(chain: Callable[[World], Chain]) -> Ground:
    from topup.sandbox.x402 import selling
    from topup.sandbox.x402_seller import RECIPIENT, X402Seller

    def settings(world: World) -> dict[str, str]:
        assert isinstance(world.gateway, X402Seller)
        return world.gateway.environment()

    def build(scale: int, wealth: int) -> World:
        seller = selling(X402_SELLER, held_units=_dollars(wealth))
        return World(chain, scale=scale, make_gateway=seller, settings=settings)

    return Ground("x402", Asset.USDC, contracts.USDC, lambda _: (RECIPIENT,), build)


def _tempo(anvil: Path | None) -> Ground:
    from topup.sandbox.purchases import RECIPIENT, Seller
    from topup.sandbox.tempo import BLOCK_S, USDC_E, Tempo

    if anvil is None:
        raise SettingsError("--rail mpp needs an anvil that knows Tempo", remedy=ANVIL_REMEDY)

    def build(scale: int, wealth: int) -> World:
        def chain(world: World) -> Chain:
            with _answering(anvil, "a Tempo chain"):
                return Tempo(anvil, funded={world.wallet: _dollars(wealth)}, block_s=None, now=world.clock.now_s)

        def settings(world: World) -> dict[str, str]:
            return {
                "TOPUP_RAILS__USE": "mpp",
                "TOPUP_RAILS__MPP__RPC_URLS": f"{world.rpc.url},{world.provider().url}",
                "TOPUP_RAILS__MPP__REALM": "127.0.0.1",
                "TOPUP_RAILS__MPP__RECIPIENTS": RECIPIENT,
            }

        world = World(
            chain, scale=scale, make_gateway=lambda world, account: Seller(account, world.chain), settings=settings
        )
        world.tick_s = float(BLOCK_S) / (scale or 1)
        return world

    return Ground("mpp", Asset.USDC_E, USDC_E, lambda _: (RECIPIENT,), build)


def _dollars(wealth: int) -> int:
    """Return the units of a dollar that so many wei are worth."""
    return wealth * ETH_USD_E8 * UNITS_PER_USDC // (10**8 * WEI_PER_ETH)


def _chain(anvil: Path | None) -> Callable[[World], Chain]:
    if anvil is None:
        return embedded
    from topup.sandbox.anvil import Anvil

    def made(world: World) -> Chain:
        with _answering(anvil, "the sandbox's chain"):
            return Anvil(anvil, world.genesis(), timestamp=world.clock.now_s())

    return made


@contextmanager
def _answering(anvil: Path, what: str) -> Iterator[None]:
    """Say what to do about an anvil that does not start."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"--anvil {anvil} does not run {what}: {error}", remedy=ANVIL_REMEDY) from None
