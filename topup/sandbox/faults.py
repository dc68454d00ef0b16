"""What can be switched wrong where charges are bought, and what must come of it? And which faults does each rail have?

The columns are those of `fault.Fault`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from topup.sandbox import contracts, fault
from topup.sandbox.fault import Fault, Switch, rows
from topup.sandbox.wire import WIRE_ANSWERS

World = Any
X402_SELLER = "venice"  # Which of the sellers for x402 the sandbox shows.


def _stale(world: World) -> list[contracts.StorageWrite]:
    return contracts.feed_updated_at(contracts.ETH_USD_FEED, world.clock.now_s() - 7200)


def _pools(world: World, percent: int) -> list[contracts.StorageWrite]:
    price = world.eth_usd_e8 * percent // 100
    return contracts.pool_price(500, price) + contracts.pool_price(3000, price)


def _price_jumps(world: World) -> None:
    """Between simulation and block ETH loses a twentieth; a block later it is back."""

    def jump() -> None:
        if world.chain.pending():
            world.chain.before_mine.remove(jump)
            world.chain.before_mine.append(recover)
            world.write(_pools(world, 95))

    def recover() -> None:
        if not world.chain.pending():
            world.chain.before_mine.remove(recover)
            world.write(_pools(world, 100))

    world.chain.before_mine.append(jump)


def _chain(name: str, says: str, act: Callable[[World], list[contracts.StorageWrite]], **more: Any) -> Fault:
    """Return a fault of the chain's, for which `act` says what is written into its contracts."""
    return Fault(f"chain-{name}", says, (), *fault.WAITING, on_world=lambda world: world.write(act(world)), **more)


def _some(*names: str) -> dict[str, str]:
    return {name: WIRE_ANSWERS[name] for name in names}


_CHARGES = {
    "other-recipient": "The charge pays a stranger.",
    "inflated-total": "The charge asks for ten times the amount.",
    "zero-total": "The charge asks for nothing: the contract would keep whatever is sent.",
    "underpaid-total": "The charge asks for half the amount, less than the credits it promises.",
    "fee-part-too-high": "Half of the charge's total goes to the fee destination.",
    "other-currency": "The charge is to be paid in another token.",
    "other-contract": "The charge names another contract, one that takes any call as a deposit.",
    "old-contract": "The charge names the payment contract's previous deployment.",
    "contract-without-code": "The charge names an address without code: ETH sent there is gone.",
    "other-chain": "The charge says it is for Ethereum, though its signature is good on Base.",
    "other-sender": "The charge was made out for another payer.",
    "refund-elsewhere": "The charge names a stranger as refund destination.",
    "expired": "The charge's deadline passed a second ago.",
    "short-lived": "The charge lives for one minute.",
    "absurd-deadline": "The charge lives for ten years.",
    "unregistered-operator": "The charge is signed, rightly, by an operator nobody knows.",
    "no-prefix": "The charge is signed without the operator's prefix.",
    "unknown-prefix": "The charge is signed with a prefix never seen before.",
    "bad-signature": "One bit of the charge's signature is flipped.",
}
_CREDITS = {
    "zero-credits": "The balance endpoint says 0 and 0 of a funded account.",
    "falling-total": "The total bought falls from reading to reading.",
    "string-numbers": "The balance's numbers are texts.",
    "nan": "The total bought is NaN.",
    "frozen": "The balance never changes again.",
}
_LOST = {"answer-lost": "makes the charge, and then cuts the connection"}
_REPEATED = {"duplicate-id": "After the first, each charge repeats the first one's id."}

_ALL = (
    # Charges that are validly signed, or nearly, and not what was asked for.
    *rows("coinbase", fault.REFUSED, _CHARGES),
    *rows("coinbase", fault.REFUSED_SECOND, _REPEATED, refills=2),
    # The endpoint that sells charges.
    *rows(
        "coinbase",
        fault.WAITING,
        {**WIRE_ANSWERS, **_LOST},
        name="coinbase-{}",
        says="The charge endpoint {}.",
        but=fault.PRICE_OUTCOMES,
    ),
    *rows(
        "coinbase",
        fault.REFILLED,
        {**_some("rate-limited-429", "server-error-500", "time-out", "reset"), **_LOST},
        name="coinbase-{}-once",
        says="The charge endpoint {}, once.",
        times=1,
    ),
    # The endpoint that tells the balance.
    *rows("credits", fault.UNKNOWN, name="credits-{}", says="The balance endpoint {}.", but=fault.BALANCE_OUTCOMES),
    *rows("credits", fault.UNKNOWN, _CREDITS, name="credits-{}", but={"frozen": fault.WAITING}),
    *rows(
        "credits",
        fault.REFILLED,
        _some("rate-limited-429", "time-out"),
        name="credits-{}-once",
        says="The balance endpoint {}, once.",
        times=1,
    ),
    # The kind of key.
    Fault(
        "ordinary-key",
        "The key is an ordinary one and reads 0 and 0.",
        (Switch("key", "ordinary-key"), Switch("credits", "ordinary-key")),
        *fault.UNREADABLE,
    ),
    *rows("key", fault.UNKNOWN, _some("server-error-500", "time-out"), name="key-{}", says="The key endpoint {}."),
    # The chain.
    Fault(
        "chain-price-jumps",
        "ETH falls before the block: it reverts, and is retried.",
        (),
        *fault.REFILLED,
        on_world=_price_jumps,
        of_swap=True,
    ),
    _chain("dear-pool", "The pools ask a twentieth more than the feed.", lambda w: _pools(w, 95), of_swap=True),
    _chain("stale-feed", "The price feed is two hours old.", _stale),
    _chain("sequencer-down", "The sequencer is down.", lambda w: contracts.sequencer(up=False, since=w.clock.now_s())),
    _chain("contract-paused", "The payment contract is paused.", lambda _: contracts.payments_paused(paused=True)),
    _chain("usdc-paused", "USDC cannot be moved.", lambda _: contracts.usdc_paused(paused=True)),
    _chain(
        "operator-unregistered",
        "The operator has left the contract.",
        lambda w: contracts.fee_destination(w.operator.address, None),
    ),
    Fault("wallet-low", "The wallet holds a dollar.", (), *fault.WAITING, wallet_wei=fault.WALLET_WEI // 3000),
    # Posting.
    *rows("posting", fault.UNCREDITED, {"never-posts": "Payments are never credited."}),
    *rows("posting", fault.REFILLED, {"posts-late": "Payments are credited an hour late."}),
)
FAULTS: Mapping[str, Fault] = {row.name: row for row in _ALL}


def of_rail(rail: str, pay_with: str = "eth") -> Mapping[str, Fault]:
    """Return what can go wrong on a rail (`coinbase`, `mpp`, `x402`), by name."""
    from topup.sandbox.mpp_faults import MPP_FAULTS
    from topup.sandbox.x402_faults import X402_FAULTS

    faults = {"coinbase": FAULTS, "mpp": MPP_FAULTS, "x402": X402_FAULTS}[rail].values()
    possible = [f for f in faults if X402_SELLER in f.sellers and (pay_with == "eth" or not f.of_swap)]
    return {row.name: row for row in possible}
