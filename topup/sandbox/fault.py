"""What is a fault of the embedded world, and which are every seller's: bad answers, and what must come of them?

One row a fault. Results: refilled; refused (a person must look); gone; unknown (the balance cannot be read); waiting
(nothing to be had now, or its payment is not taken); uncredited (paid, not posted).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from topup.domain.errors import Exit
from topup.sandbox.wire import WIRE_ANSWERS

WALLET_WEI: Final = 10**18
SETTLED: Final = "settled-"  # Before the name of an answer: it is given after settling, not instead.
HUGE_TEXT: Final = 256 * 1024  # More than HTTP libraries read of a head.
NOT_SERVED: Final[Mapping[str, str]] = {
    "not-found-404": "There is no such endpoint.",
    "not-implemented-501": "The endpoint is not served.",
}

Spent = Literal["zero", "one"]
Outcome = tuple[str, Exit, Spent]  # The result, the exit code, and how many payments may leave the wallet.
REFILLED: Final[Outcome] = ("refilled", Exit.OK, "one")
WAITING: Final[Outcome] = ("waiting", Exit.LATER, "zero")
REFUSED: Final[Outcome] = ("refused", Exit.PERSON, "zero")
REFUSED_SECOND: Final[Outcome] = ("refused", Exit.PERSON, "one")  # The first is honest, and paid.
GONE: Final[Outcome] = ("gone", Exit.PERSON, "zero")
UNKNOWN: Final[Outcome] = ("unknown", Exit.LATER, "zero")
UNREADABLE: Final[Outcome] = ("unknown", Exit.PERSON, "zero")
UNCREDITED: Final[Outcome] = ("uncredited", Exit.MONEY_MAY_HAVE_MOVED, "one")

# What comes of such an answer to a question for the price; of all others: `WAITING`.
PRICE_OUTCOMES: Final[Mapping[str, Outcome]] = {"gone-410": GONE, "unauthorized-401": REFUSED, "forbidden-403": REFUSED}
# And to a question for the balance; of all others: `UNKNOWN`.
BALANCE_OUTCOMES: Final[Mapping[str, Outcome]] = dict.fromkeys(PRICE_OUTCOMES, UNREADABLE)


@dataclass(frozen=True)
class Switch:
    """One switch of a seller: where, which fault or hostile charge, for how many requests (None: all)."""

    place: str
    name: str
    times: int | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, in a sentence. `expected_spent` counts the payments that may leave the wallet."""

    name: str
    says: str
    switches: tuple[Switch, ...]
    expected_result: str
    expected_exit: int
    expected_spent: Spent
    on_world: Callable[[Any], None] | None = None  # For what is not the seller's doing: the chain's faults.
    refills: int = 1  # How many refills the run goes on for.
    wallet_wei: int = WALLET_WEI  # What the wallet begins with, or what its dollars are worth.
    of_swap: bool = False  # Only where ETH is swapped for the dollars that are paid.
    sellers: tuple[str, ...] = ("venice", "plain")  # Which of the sellers for x402 can do it.


def rows(
    place: str,
    outcome: Outcome,
    said: Mapping[str, str] = WIRE_ANSWERS,
    *,
    name: str = "{}",
    says: str = "{}",
    switch: str = "{}",
    times: int | None = None,
    but: Mapping[str, Outcome] = {},
    **more: Any,
) -> list[Fault]:
    """Return a fault for each switch at a place, of which `said` tells what is said of it.

    In `name` and `switch` the braces stand for the name in `said`, in `says` for its words. `but` are those of which
    something else comes; `more` are the last fields of each fault.
    """
    return [
        Fault(
            name.format(each),
            says.format(words),
            (Switch(place, switch.format(each), times),),
            *but.get(each, outcome),
            **more,
        )
        for each, words in said.items()
    ]


def switches_of(faults: Iterable[Fault]) -> dict[str, frozenset[str]]:
    """Return what these faults switch on, by place."""
    switches = [switch for fault in faults for switch in fault.switches]
    return {place: frozenset(s.name for s in switches if s.place == place) for place in {s.place for s in switches}}


def answered_prices(place: str, said: Mapping[str, str]) -> list[Fault]:
    """Return what comes of each answer to a question for the price; those that ask for payment are honest there."""
    spoilt = {name: does for name, does in said.items() if not name.endswith("-402")}
    says = "Asked for a price, the seller {}."
    return [
        *rows(place, GONE, NOT_SERVED, name=place + "-{}"),
        *rows(place, WAITING, spoilt, name=place + "-{}", says=says, but=PRICE_OUTCOMES),
    ]


def answered_payments(given: str, said: Mapping[str, str]) -> list[Fault]:
    """Return what comes of each answer to a payment: instead of settling it, once or always, and after settling it."""
    return [
        *rows("payment", WAITING, said, name="payment-{}", says=f"{given}, the seller {{}}; it settles nothing."),
        *rows("payment", REFILLED, said, name="payment-{}-once", says=f"{given}, the seller {{}}, once.", times=1),
        *rows("payment", REFILLED, said, name="settled-{}", says="The seller settles, then {}.", switch=SETTLED + "{}"),
    ]


# Of every seller that carries payments to the chain.
CREDITING: Final = (
    *rows("posting", UNCREDITED, {"never-posts": "Payments settle and are never credited."}, name="never-credits"),
    *rows("posting", REFILLED, {"posts-late": "Payments are credited an hour late."}, name="credits-late"),
)
