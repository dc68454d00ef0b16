"""Does a charge paid in USDC cost once, and only whom it should, whatever goes wrong and wherever the process dies?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.world.house import SEND
from tests.world.proxy import Proxy, silent
from tests.world.rails_faults import AFTERWARDS, RESULTS, ROW_S, Ground, Play, run_row, spoilt
from topup.accounting.journal import Commodity
from topup.domain.lifecycle import Kind, State
from topup.sandbox import contracts
from topup.sandbox.fault import Fault
from topup.sandbox.faults import of_rail
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import FEE_DESTINATION, World, embedded

HELD: Final = 100_000_000
# A charge over ten dollars asks for ten and a half, of which the operator's fee is a hundredth.
TOTAL: Final = 10_500_000
FEE: Final = TOTAL // 100
FINAL_BLOCKS: Final = 8
PAST_DEADLINE_MS: Final = 49 * 3_600_000
# Rows of the default run: one of each kind. All others take part under `-m long`.
FEW: Final = frozenset(
    {
        "other-recipient",
        "other-contract",
        "other-chain",
        "inflated-total",
        "other-currency",
        "expired",
        "duplicate-id",
        "bad-signature",
        "coinbase-gone-410",
        "coinbase-unauthorized-401",
        "coinbase-redirect-302",
        "coinbase-answer-lost",
        "credits-nan",
        "credits-frozen",
        "chain-contract-paused",
        "never-posts",
        "posts-late",
    }
)
# What a wallet does that is short of dollars is told in test_usdc.py; and what lies about the balance needs one it
# has told before.
ALL: Final = [
    replace(f, expected_result="idle") if f.name == "credits-frozen" else f
    for f in of_rail("coinbase", "usdc").values()
    if f.name != "wallet-low"
]


class Remembering(World):
    """A world that knows what stood in its contracts before anything was written there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Remember nothing yet."""
        super().__init__(*args, **options)
        self._was: list[contracts.StorageWrite] = []

    def write(self, writes: list[contracts.StorageWrite]) -> None:
        """Change slots, and keep what they held."""
        for one in writes:
            held = int(self.chain.rpc("eth_getStorageAt", [one.address, hex(one.slot), "latest"]), 16)
            self._was.append(contracts.StorageWrite(one.address, one.slot, held))
        super().write(writes)

    def undo(self) -> None:
        """Put everything back."""
        super().write(self._was[::-1])
        self._was.clear()


@contextmanager
def ground() -> Iterator[tuple[Ground, Proxy]]:
    """An empty account, a wallet of a hundred dollars on Base, a gateway that posts after ten seconds; and the wire."""
    conduct = Conduct(posting_delay_ms=10_000, late_ms=600_000)
    world = Remembering(embedded, scale=10, conduct=conduct, usage_usd=Decimal("10.5"), burn_usd_per_hour=Decimal(0))
    world.tick_s = 0.05
    with world, Proxy(world.rpc.url) as wire:
        sold = world.gateway
        sold.wire.oversized_bytes = 1024 * 1024
        world.do(lambda: World.write(world, contracts.usdc_balance(world.wallet, HELD)))

        def settings(two: bool) -> dict[str, str]:  # noqa: FBT001
            urls = [wire.url, *([world.provider().url] if two else [])]
            return {"TOPUP_RAILS__COINBASE__PAY_WITH": "usdc", "TOPUP_CHAIN__RPC_URLS": ",".join(urls)}

        def bury() -> None:
            for _ in range(FINAL_BLOCKS):
                world.clock.leap(2_000)
                world.chain.mine(world.clock.now_s())

        def sent() -> int:
            return int(world.do(lambda: world.chain.rpc("eth_getTransactionCount", [world.wallet, "latest"])), 16)

        terms = world.operator.terms
        yield (
            Ground(
                world=world,
                rail="coinbase",
                settings=settings,
                token=contracts.USDC,
                commodity=Commodity.USDC,
                fees_to="",
                recipient=terms.recipient,
                bury=bury,
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
            ),
            wire,
        )


def told(directory: Path, tell: Callable[[Play, Proxy], Coroutine[Any, Any, None]], *, two: bool = False) -> None:
    """Play one row in a world of its own."""

    async def play() -> None:
        with ground() as (on, wire):
            one = Play(on, directory, two)
            try:
                await asyncio.wait_for(tell(one, wire), ROW_S)
            finally:
                await one.close()

    asyncio.run(play())


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


@pytest.mark.parametrize(
    "fault", [pytest.param(f, id=f.name, marks=[] if f.name in FEW else [pytest.mark.long]) for f in ALL]
)
def test_a_row(fault: Fault, tmp_path: Path) -> None:
    """Charge, balance, chain and posting, each spoilt in one way: the result, and the money to the unit."""
    told(tmp_path, lambda play, _: answered(play, fault))


@pytest.mark.parametrize("nth", [0, 1], ids=["approval", "payment"])
def test_a_death_between_sending_and_the_answer(nth: int, tmp_path: Path) -> None:
    """The provider has taken a transaction when the process dies: the next finds it and sends it no second time."""
    told(tmp_path, lambda play, wire: died(play, wire, nth))


async def died(play: Play, wire: Proxy, nth: int) -> None:
    """Die once the chain has the transaction after the first `nth`, and before that is heard; live on from there."""

    async def lives() -> None:
        while True:
            await play.step()

    wire.on(SEND, silent(forwarded=True), 1, skip=nth)
    running = asyncio.create_task(lives())
    while play.world.do(lambda: taken(play)) <= nth:
        assert not running.done(), running
        await asyncio.sleep(0.005)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await play.close()
    wire.mend()
    play.begin()
    await play.until(State.DONE)
    play.judge(1)
    assert [a.plan.kind for a in play.stage.topup.out] == [Kind.APPROVE, Kind.PAY]
    assert play.world.do(lambda: taken(play)) == 2


@pytest.mark.parametrize("two", [False, True], ids=["one provider", "two providers"])
def test_a_contract_that_is_paused_past_the_deadline(two: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Nothing is approved that could not be taken: the charge is replaced, paid once, and nothing stays approved."""
    told(tmp_path, lambda play, _: paused(play), two=two)


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
    assert allowed(play) == 0


def taken(play: Play) -> int:
    """Return how many transactions of the wallet the chain has taken; called inside the world."""
    return int(play.world.chain.rpc("eth_getTransactionCount", [play.world.wallet, "pending"]), 16)


def allowed(play: Play) -> int:
    """Return how much of the wallet's USDC the payment contract may take."""
    owner, spender = (one[2:].lower().rjust(64, "0") for one in (play.world.wallet, contracts.PAYMENT_PROTOCOL))
    call = {"to": contracts.USDC, "data": "0xdd62ed3e" + owner + spender}
    return int(play.world.do(lambda: play.world.chain.rpc("eth_call", [call, "latest"])), 16)
