"""On what ground is a row of faults played? A chain, a seller, and what one payment moves there, for each rail."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from tests.world import tempo
from tests.world.house import SEND
from tests.world.proxy import Proxy, silent
from tests.world.rails_faults import AFTERWARDS, RESULTS, Ground, Play, run_row, spoilt
from tests.world.stage import low
from topup.accounting.journal import Commodity
from topup.domain.lifecycle import Kind, State
from topup.sandbox import contracts, purchases, x402_seller
from topup.sandbox.fault import Fault
from topup.sandbox.faults import of_rail
from topup.sandbox.gateway import Conduct
from topup.sandbox.purchases import Style
from topup.sandbox.tempo import FEE_AMM, USDC_E
from topup.sandbox.world import FEE_DESTINATION, STEPPED, World, embedded
from topup.sandbox.x402 import selling

FINAL_ON_TEMPO: Final = 70
HELD: Final = 100_000_000
HELD_ON_TEMPO: Final = 45_000_000
# A charge over ten dollars asks for ten and a half, of which the operator's fee is a hundredth.
TOTAL: Final = 10_500_000
FEE: Final = TOTAL // 100
PAST_DEADLINE_MS: Final = 49 * 3_600_000


def providers(world: World, first: str, *, two: bool) -> str:
    """Return the addresses of the chain's providers: the first, and with `two` another one."""
    return ",".join([first, *([world.provider().url] if two else [])])


@contextmanager
def of_x402(profile: str, settles_late_ms: int = 10_000) -> Iterator[Ground]:
    """An empty account, a wallet of a hundred dollars on Base, and a seller that posts after ten seconds."""
    conduct = x402_seller.X402Conduct(posting_delay_ms=10_000, late_ms=600_000, settles_late_ms=settles_late_ms)
    with low(make_gateway=selling(profile, conduct=conduct), burn_usd_per_hour=Decimal(0)) as world:
        sold: Any = world.gateway
        sold.wire.oversized_bytes = 1024 * 1024

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            return {**sold.environment(), "TOPUP_CHAIN__RPC_URLS": providers(world, world.rpc.url, two=two)}

        yield Ground(
            world=world,
            rail="x402",
            settings=settings,
            recipient=x402_seller.RECIPIENT,
            asked=lambda: sold.count("offer") + sold.count("payment"),
            paid=lambda: sold.count("payment"),
            credit=sold.poll,
        )


@contextmanager
def of_mpp(style: Style = "mppx", settles_late_ms: int = 2_000) -> Iterator[Ground]:
    """An empty account, a wallet of 45 dollars on Tempo, and a seller that posts after ten seconds."""
    conduct = purchases.MppConduct(
        posting_delay_ms=10_000, late_ms=600_000, style=style, settles_late_ms=settles_late_ms
    )
    terms = {"usage_usd": Decimal("10.5"), "burn_usd_per_hour": Decimal(0)}
    with tempo.selling(conduct, scale=STEPPED, holds=HELD_ON_TEMPO, **terms) as world:
        sold: Any = world.gateway
        sold.wire.oversized_bytes = 1024 * 1024

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            own = {"TOPUP_RAILS__MPP__RECIPIENTS": purchases.RECIPIENT}
            return tempo.buying(providers(world, world.rpc.url, two=two)) | own

        def bury(_: World) -> None:
            world.clock.leap(FINAL_ON_TEMPO * 1000)
            world.chain.rpc("anvil_mine", [hex(FINAL_ON_TEMPO), "0x1"])
            world.chain.mine(world.clock.now_s())  # with the base fee that blocks in a row have let fall

        yield Ground(
            world=world,
            rail="mpp",
            settings=settings,
            token=USDC_E,
            commodity=Commodity.USDC_E,
            fees_to=FEE_AMM,
            recipient=purchases.RECIPIENT,
            bury=bury,
            asked=lambda: len(sold.posts),
            paid=lambda: sold.count("payment"),
            credit=lambda: credited(sold),
        )


def credited(seller: purchases.Seller) -> None:
    """Post what is due; what is called failed for good is made good by hand."""
    seller.poll()
    if any(one.refused for one in seller.purchases.values()):
        seller.account.buy_elsewhere(Decimal(10))


# -- a charge that is paid in USDC -----------------------------------------------------------------------------------

# What a wallet does that is short of dollars is told in tests/payment/test_usdc.py; and what lies about the balance
# needs one it has told before.
USDC_FAULTS: Final = [
    replace(f, expected_result="idle") if f.name == "credits-frozen" else f
    for f in of_rail("coinbase", "usdc").values()
    if f.name != "wallet-low"
]


class Remembering(World):
    """A world that knows what stood in its contracts before anything was written there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._was: list[contracts.StorageWrite] = []

    def write(self, writes: list[contracts.StorageWrite]) -> None:
        """Change slots, and keep what they held."""
        for one in writes:
            held = int(self.chain.rpc("eth_getStorageAt", [one.address, hex(one.slot), "latest"]), 16)
            self._was.append(contracts.StorageWrite(one.address, one.slot, held))
        super().write(writes)

    def undo(self) -> None:
        super().write(self._was[::-1])
        self._was.clear()


@contextmanager
def in_usdc() -> Iterator[Ground]:
    """An empty account, a wallet of a hundred dollars on Base, a gateway that posts after ten seconds; and the wire."""
    conduct = Conduct(posting_delay_ms=10_000, late_ms=600_000)
    usage, burn = Decimal("10.5"), Decimal(0)
    world = Remembering(embedded, scale=STEPPED, conduct=conduct, usage_usd=usage, burn_usd_per_hour=burn)
    with world, Proxy(world.rpc.url) as wire:
        sold = world.gateway
        sold.wire.oversized_bytes = 1024 * 1024
        world.do(lambda: World.write(world, contracts.usdc_balance(world.wallet, HELD)))

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            urls = providers(world, wire.url, two=two)
            return {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc", "TOPUP_CHAIN__RPC_URLS": urls}

        def sent() -> int:
            return int(world.do(lambda: world.chain.rpc("eth_getTransactionCount", [world.wallet, "latest"])), 16)

        terms = world.operator.terms
        yield Ground(
            world=world,
            rail="coinbase",
            settings=settings,
            recipient=terms.recipient,
            asked=lambda: sold.count("coinbase"),
            paid=sent,
            credit=sold.poll,
            expiry_ms=PAST_DEADLINE_MS,
            through=contracts.PAYMENT_PROTOCOL,
            parts=(
                (contracts.PAYMENT_PROTOCOL, TOTAL),
                (terms.recipient, TOTAL - FEE),
                (FEE_DESTINATION, FEE),
            ),
            mend=world.undo,
            wire=wire,
        )


async def answered(play: Play, fault: Fault) -> None:
    """Run a row; one that lies about the balance for good begins while there is enough of it, and known."""
    if [(one.place, one.times) for one in fault.switches] != [("credits", None)]:
        await run_row(play, fault)
        return
    account = play.world.gateway.account
    play.world.do(lambda: account.set_usage(Decimal(5)))
    await play.step()
    with spoilt(play, fault):
        await play.step()
        play.world.do(lambda: account.set_usage(Decimal("10.5")))
        await RESULTS[fault.expected_result](play, "")
        play.judge(0)
    await AFTERWARDS[fault.expected_result](play, 0)


async def died(play: Play, nth: int) -> None:
    """Die once the chain has the transaction after the first `nth`, and before that is heard; live on from there."""
    wire = play.ground.wire
    assert wire is not None
    wire.on(SEND, silent(forwarded=True), 1, skip=nth)
    await play.dies(play.waits(1000), lambda: taken(play) > nth)
    wire.mend()
    await play.until(State.DONE)
    play.judge(1)
    assert [a.plan.kind for a in play.stage.topup.out] == [Kind.APPROVE, Kind.PAY]
    assert play.world.do(lambda: taken(play)) == 2


async def paused(play: Play) -> None:
    """Stop the contract before the approval and until the charge is dead; then let it run."""
    with spoilt(play, of_rail("coinbase", "usdc")["chain-contract-paused"]):
        await play.waits(3)
        play.pass_time(PAST_DEADLINE_MS)
        play.bury()
        await play.waits()
        assert [one.seq for one in play.stage.topup.charges] == [1, 2]
        play.judge(0)
    await play.until(State.DONE)
    play.judge(1)
    assert allowed(play.world) == 0


def taken(play: Play) -> int:
    """Return how many transactions of the wallet the chain has taken; called inside the world."""
    return int(play.world.chain.rpc("eth_getTransactionCount", [play.world.wallet, "pending"]), 16)


def allowed(world: World) -> int:
    """Return how much of the wallet's USDC the payment contract may take."""
    owner, spender = (one[2:].lower().rjust(64, "0") for one in (world.wallet, contracts.PAYMENT_PROTOCOL))
    call = {"to": contracts.USDC, "data": "0xdd62ed3e" + owner + spender}
    return int(world.do(lambda: world.chain.rpc("eth_call", [call, "latest"])), 16)
