"""What can be switched wrong in the embedded world, in a sentence each, and what must come of it?

One line a fault. `times` None spoils every request, a number only the first ones. Results: refilled; refused (a
person must look); gone; unknown (the balance cannot be read); waiting (no charge to be had now, or its payment is not
taken); uncredited (paid, not posted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from topup.domain.errors import Exit
from topup.sandbox import contracts
from topup.sandbox.gateway import Place

World = Any
WALLET_WEI = 10**18
X402_SELLER = "venice"  # Which of the sellers for x402 the sandbox shows.
Spent = Literal["zero", "one"]


@dataclass(frozen=True)
class Switch:
    """One switch of a seller: where, which fault or hostile charge, for how many requests."""

    place: str
    name: str
    times: int | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `expected_spent` counts the payments that may leave the wallet."""

    name: str
    says: str
    switches: tuple[Switch, ...]
    expected_result: str
    expected_exit: int
    expected_spent: Spent
    on_world: Callable[[World], None] | None = None  # For what is not the gateway's doing: the chain's faults.
    refills: int = 1  # How many refills the run goes on for.
    wallet_wei: int = WALLET_WEI  # What the wallet begins with, or what its dollars are worth.
    of_swap: bool = False  # Only where ETH is swapped for the dollars that are paid.


def _at(place: Place, name: str, times: int | None = None) -> tuple[Switch, ...]:
    return (Switch(place, name, times),)


def _ordinary() -> tuple[Switch, ...]:
    return (Switch("key", "ordinary-key"), Switch("credits", "ordinary-key"))


def _refused(name: str, says: str) -> Fault:
    return Fault(name, says, _at("coinbase", name), "refused", Exit.PERSON, "zero")


def _repeated(name: str, says: str) -> Fault:
    """The first charge is honest and paid; the second one is refused."""
    return Fault(name, says, _at("coinbase", name), "refused", Exit.PERSON, "one", refills=2)


def _credits(name: str, says: str, code: Exit = Exit.LATER) -> Fault:
    return Fault(f"credits-{name}", says, _at("credits", name), "unknown", code, "zero")


def _charge(name: str, says: str, result: str = "waiting", code: Exit = Exit.LATER) -> Fault:
    return Fault(f"coinbase-{name}", says, _at("coinbase", name), result, code, "zero")


def _key(name: str, says: str) -> Fault:
    return Fault(f"key-{name}", says, _at("key", name), "unknown", Exit.LATER, "zero")


def _posting(name: str, says: str, result: str, code: Exit) -> Fault:
    return Fault(name, says, _at("posting", name), result, code, "one")


def _chain(name: str, says: str, act: Callable[[World], None], result: str, code: Exit, spent: Spent) -> Fault:
    return Fault(f"chain-{name}", says, (), result, code, spent, on_world=act)


def _waiting(name: str, says: str, act: Callable[[World], None]) -> Fault:
    return _chain(name, says, act, "waiting", Exit.LATER, "zero")


def _dear(name: str, says: str, act: Callable[[World], None]) -> Fault:
    return replace(_waiting(name, says, act), of_swap=True)


def _pools(world: World, percent: int) -> list[contracts.StorageWrite]:
    price = world.eth_usd_e8 * percent // 100
    return contracts.pool_price(500, price) + contracts.pool_price(3000, price)


def _stale(world: World) -> list[contracts.StorageWrite]:
    return contracts.feed_updated_at(contracts.ETH_USD_FEED, world.clock.now_s() - 7200)


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


def _once(place: Place, name: str, says: str) -> Fault:
    return Fault(f"{place}-{name}-once", says, _at(place, name, 1), "refilled", Exit.OK, "one")


_ALL = (
    # Charges that are validly signed, or nearly, and not what was asked for.
    _refused("other-recipient", "The charge pays a stranger."),
    _refused("inflated-total", "The charge asks for ten times the amount."),
    _refused("zero-total", "The charge asks for nothing: the contract would keep whatever is sent."),
    _refused("underpaid-total", "The charge asks for half the amount, less than the credits it promises."),
    _refused("fee-part-too-high", "Half of the charge's total goes to the fee destination."),
    _refused("other-currency", "The charge is to be paid in another token."),
    _refused("other-contract", "The charge names another contract, one that takes any call as a deposit."),
    _refused("old-contract", "The charge names the payment contract's previous deployment."),
    _refused("contract-without-code", "The charge names an address without code: ETH sent there is gone."),
    _refused("other-chain", "The charge says it is for Ethereum, though its signature is good on Base."),
    _refused("other-sender", "The charge was made out for another payer."),
    _refused("refund-elsewhere", "The charge names a stranger as refund destination."),
    _refused("expired", "The charge's deadline passed a second ago."),
    _refused("short-lived", "The charge lives for one minute."),
    _refused("absurd-deadline", "The charge lives for ten years."),
    _refused("unregistered-operator", "The charge is signed, rightly, by an operator nobody knows."),
    _repeated("duplicate-id", "After the first, each charge repeats the first one's id."),
    _refused("no-prefix", "The charge is signed without the operator's prefix."),
    _refused("unknown-prefix", "The charge is signed with a prefix never seen before."),
    _refused("bad-signature", "One bit of the charge's signature is flipped."),
    # The endpoint that sells charges.
    _charge("gone-410", "The charge endpoint is gone for good.", "gone", Exit.PERSON),
    _charge("unauthorized-401", "The charge endpoint does not know the key.", "refused", Exit.PERSON),
    _charge("forbidden-403", "The charge endpoint wants another kind of key.", "refused", Exit.PERSON),
    _charge("rate-limited-429", "The charge endpoint asks for patience, every time."),
    _charge("server-error-500", "The charge endpoint fails."),
    _charge("bad-gateway-502", "A proxy answers for the charge endpoint, in HTML."),
    _charge("unavailable-503", "The charge endpoint is unavailable and says when to return."),
    _charge("time-out", "The charge endpoint takes the request and never answers."),
    _charge("reset", "The charge endpoint cuts the connection."),
    _charge("trickle", "The charge endpoint answers one byte at a time, without end."),
    _charge("html-200", "The charge endpoint answers 200 with a web page."),
    _charge("truncated-json", "The charge ends in the middle of the document."),
    _charge("short-body", "The charge's body is shorter than announced."),
    _charge("null-body", "The charge endpoint answers null."),
    _charge("redirect-302", "The charge endpoint points to another server."),
    _charge("oversized", "The charge is 64 MB long."),
    _charge("gzip-bomb", "The charge unpacks to 64 MB."),
    _charge("answer-lost", "Each charge is created, then the connection is cut."),
    _once("coinbase", "rate-limited-429", "The charge endpoint asks for patience once."),
    _once("coinbase", "server-error-500", "The charge endpoint fails once."),
    _once("coinbase", "time-out", "The charge endpoint does not answer once."),
    _once("coinbase", "reset", "The charge endpoint cuts one connection."),
    _once("coinbase", "answer-lost", "One charge is created and its answer lost."),
    # The endpoint that tells the balance.
    _credits("gone-410", "The balance endpoint is gone.", Exit.PERSON),
    _credits("unauthorized-401", "The balance endpoint does not know the key.", Exit.PERSON),
    _credits("forbidden-403", "The balance endpoint wants a management key.", Exit.PERSON),
    _credits("rate-limited-429", "The balance endpoint asks for patience, every time."),
    _credits("server-error-500", "The balance endpoint fails."),
    _credits("bad-gateway-502", "A proxy answers for the balance endpoint, in HTML."),
    _credits("unavailable-503", "The balance endpoint is unavailable and says when to return."),
    _credits("time-out", "The balance endpoint takes the request and never answers."),
    _credits("reset", "The balance endpoint cuts the connection."),
    _credits("trickle", "The balance endpoint answers one byte at a time, without end."),
    _credits("html-200", "The balance endpoint answers 200 with a web page."),
    _credits("truncated-json", "The balance ends in the middle of the document."),
    _credits("short-body", "The balance's body is shorter than announced."),
    _credits("null-body", "The balance endpoint answers null."),
    _credits("redirect-302", "The balance endpoint points to another server."),
    _credits("oversized", "The balance is 64 MB long."),
    _credits("gzip-bomb", "The balance unpacks to 64 MB."),
    _credits("zero-credits", "The balance endpoint says 0 and 0 of a funded account."),
    _credits("falling-total", "The total bought falls from reading to reading."),
    _credits("string-numbers", "The balance's numbers are texts."),
    _credits("nan", "The total bought is NaN."),
    Fault(
        "credits-frozen", "The balance never changes again.", _at("credits", "frozen"), "waiting", Exit.LATER, "zero"
    ),
    _once("credits", "rate-limited-429", "The balance endpoint asks for patience once."),
    _once("credits", "time-out", "The balance endpoint does not answer once."),
    # The kind of key.
    Fault("ordinary-key", "The key is an ordinary one and reads 0 and 0.", _ordinary(), "unknown", Exit.PERSON, "zero"),
    _key("server-error-500", "The key endpoint fails."),
    _key("time-out", "The key endpoint never answers."),
    # The chain.
    replace(
        _chain(
            "price-jumps",
            "ETH falls before the block: it reverts, and is retried.",
            _price_jumps,
            "refilled",
            Exit.OK,
            "one",
        ),
        of_swap=True,
    ),
    _dear("dear-pool", "The pools ask a twentieth more than the feed.", lambda w: w.write(_pools(w, 95))),
    _waiting("stale-feed", "The price feed is two hours old.", lambda w: w.write(_stale(w))),
    _waiting(
        "sequencer-down",
        "The sequencer is down.",
        lambda w: w.write(contracts.sequencer(up=False, since=w.clock.now_s())),
    ),
    _waiting(
        "contract-paused", "The payment contract is paused.", lambda w: w.write(contracts.payments_paused(paused=True))
    ),
    _waiting("usdc-paused", "USDC cannot be moved.", lambda w: w.write(contracts.usdc_paused(paused=True))),
    _waiting(
        "operator-unregistered",
        "The operator has left the contract.",
        lambda w: w.write(contracts.fee_destination(w.operator.address, None)),
    ),
    Fault("wallet-low", "The wallet holds a dollar.", (), "waiting", Exit.LATER, "zero", wallet_wei=WALLET_WEI // 3000),
    # Posting.
    _posting("never-posts", "Payments are never credited.", "uncredited", Exit.MONEY_MAY_HAVE_MOVED),
    _posting("posts-late", "Payments are credited an hour late.", "refilled", Exit.OK),
)

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})


def of_rail(rail: str, pay_with: str = "eth") -> Mapping[str, Fault]:
    """Return what can go wrong on a rail (`coinbase`, `mpp`, `x402`), by name."""
    if rail == "coinbase":
        return MappingProxyType({n: f for n, f in FAULTS.items() if pay_with == "eth" or not f.of_swap})
    rows: list[Fault]
    if rail == "mpp":
        from topup.sandbox.mpp_faults import MPP_FAULTS

        rows = list(MPP_FAULTS.values())
    else:
        from topup.sandbox.x402_faults import X402_FAULTS

        rows = [one for one in X402_FAULTS.values() if X402_SELLER in one.sellers]
    return MappingProxyType({one.name: one for one in rows})
