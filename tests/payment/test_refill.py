"""Does the whole daemon refill an account on a real node, too, and is every wei accounted for?

The same world, the same production settings; only the chain behind them differs: the one in this process, anvil,
anvil charging an L1 fee that no receipt tells, and anvil with Uniswap's own contracts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode
from eth_utils.crypto import keccak

from tests.world import worlds
from tests.world.stage import transferred
from topup.commands import demo
from topup.commands.demo_ground import ground
from topup.domain.coinbase_charge import parse
from topup.domain.lifecycle import Inclusion, State, TopUp
from topup.ledger.store import SqliteStore
from topup.sandbox import contracts
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import FEE_DESTINATION, STEPPED, World

# What the payment contract tells of a transfer beside its operator: id, recipient, sender, what was spent, and of what.
TRANSFERRED = ["bytes16", "address", "address", "uint256", "address"]


@dataclass(frozen=True)
class Money:
    """Where it is: wei of the wallet, USDC units of recipient and fee destination."""

    wallet: int
    recipient: int
    fee: int


@dataclass(frozen=True)
class Refill:
    """What one run left behind."""

    told: dict[str, Any]
    story: str
    topup: TopUp
    checks: list[str]
    before: Money
    after: Money
    logs: list[Any]
    receipt: dict[str, Any]

    @property
    def paid(self) -> Inclusion:
        assert self.topup.payment is not None
        return self.topup.payment


def money(world: World) -> Money:
    return Money(world.balance(world.wallet), world.usdc(world.operator.terms.recipient), world.usdc(FEE_DESTINATION))


def refill(chain: str, directory: Path) -> Refill:
    lines: list[str] = []
    conduct = Conduct(staleness_ms=20_000, posting_delay_ms=10_000)
    with World(worlds.maker(chain), scale=STEPPED, conduct=conduct) as world:
        before = world.do(lambda: money(world))
        told, code = asyncio.run(demo.run(world, directory, ground(), fault=None, say=lines.append))
        assert code == 0, "\n".join(lines)
        after = world.do(lambda: money(world))
        logs = transferred(world)
        receipt = world.do(lambda: world.chain.rpc("eth_getTransactionReceipt", [told["tx_hash"]]))
    store = SqliteStore.open_reader(directory)
    (topup,) = store.latest("default", 10)
    store.close()
    checks = [line.split("wallet check: ")[1].rstrip(")") for line in lines if "wallet check: " in line]
    return Refill(told, "\n".join(lines), topup, checks, before, after, logs, receipt)


@pytest.fixture(scope="module")
def refills(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Refill]:
    """Make one refill on a chain, once for all tests that look at it."""
    return cache(lambda chain: refill(chain, tmp_path_factory.mktemp(chain)))


@pytest.fixture(params=worlds.MAKERS)
def done(request: pytest.FixtureRequest, refills: Callable[[str], Refill]) -> Refill:
    """The refill on each of the four chains."""
    return refills(request.param)


def test_the_account_is_refilled_and_the_books_match(done: Refill) -> None:
    """Paid, posted, safe, and booked to the wei against what the chain and the provider hold."""
    assert done.told["result"] == "refilled", done.story
    assert done.told["books_match_chain"] is True, done.story
    assert done.topup.state is State.DONE


def test_the_wallet_lost_what_was_spent_and_the_fees(done: Refill) -> None:
    """One transfer is in the contract's whole history; the wallet fell by swap, gas and L1 fee, as the chain says."""
    (log,) = done.logs
    assert log["transactionHash"] == done.told["tx_hash"] == done.receipt["transactionHash"]
    assert [attempt.sends for attempt in done.topup.attempts] == [1]
    _, _, sender, spent, _ = decode(TRANSFERRED, bytes.fromhex(log["data"][2:]))
    assert bytes.fromhex(sender[2:]) == done.topup.wallet
    gas = int(done.receipt["gasUsed"], 16) * int(done.receipt["effectiveGasPrice"], 16)
    assert (done.paid.spent.units, done.paid.gas.units) == (spent, gas)
    assert done.before.wallet - done.after.wallet == spent + gas + done.paid.l1_fee.units
    plan = done.topup.attempts[0].plan
    assert spent <= plan.value.units
    assert done.paid.l1_fee <= plan.l1_fee
    assert done.before.wallet - done.after.wallet <= plan.cost_max.units


def test_recipient_and_fee_destination_received_their_exact_parts(done: Refill) -> None:
    """Ten dollars of credit cost 10.5 USDC: the recipient's part and the operator's fee, neither unit more nor less."""
    charge = done.topup.charge
    assert charge is not None
    assert charge.raw is not None
    intent = parse(charge.raw).intent
    assert done.after.recipient - done.before.recipient == intent.recipient_amount
    assert done.after.fee - done.before.fee == intent.fee_amount
    assert intent.total.units == 10_500_000


def test_an_l1_fee_that_no_receipt_tells_is_read_from_the_balance(refills: Callable[[str], Refill]) -> None:
    """On an OP chain under anvil the L1 fee is real, absent from the receipt, and still in the books to the wei."""
    done = refills("optimism")
    assert "l1Fee" not in done.receipt
    assert done.paid.l1_fee.units > 0
    assert done.checks == ["exact, L1 fee read from the balance"]


def test_the_payment_went_through_uniswaps_own_pool(refills: Callable[[str], Refill]) -> None:
    """With the real contracts the swap is told by the real 0.05 % pool, in Uniswap's event."""
    done = refills("uniswap")
    swap = "0x" + keccak(text="Swap(address,address,int256,int256,uint160,uint128,int24)").hex()
    (told,) = [log for log in done.receipt["logs"] if log["topics"][0] == swap]
    assert told["address"].lower() == contracts.POOLS[500].lower()
    assert done.checks == ["exact"]
