"""What becomes of a payment when the seller misbehaves, on the rails beside Coinbase in ETH? The rows of `faults`.

A row is a fault of the sandbox's tables, told as the tests of its rail tell it: the real flow against the sandbox's own
server and chain, judged to the unit. For rails whose seller carries the payment the recipe beside it meets the same
fault at the same seller for half an hour; then it is gone.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.recipes import TRIES, ByAuthorization, ByCredential, ByMachine, Fared

if TYPE_CHECKING:
    from tests.world.rails_faults import Ground, Play

RAILS: Final = ("coinbase-usdc", "x402", "mpp")
USDC_ROWS: Final = (
    "other-recipient",
    "other-contract",
    "other-chain",
    "other-currency",
    "inflated-total",
    "expired",
    "duplicate-id",
    "bad-signature",
    "coinbase-gone-410",
    "coinbase-redirect-302",
    "coinbase-answer-lost",
    "credits-frozen",
    "chain-contract-paused",
    "never-posts",
    "posts-late",
)
X402_ROWS: Final = (
    "other-recipient",
    "stranger-too",
    "other-chain",
    "other-token",
    "tenfold-amount",
    "double-amount",
    "no-time",
    "tiny-timeout",
    "lying-description",
    "offer-gone-410",
    "offer-redirect-307",
    "payment-redirect-307",
    "payment-failed-402",
    "settled-payment-required-402",
    "settled-failed-402",
    "settled-forbidden-403",
    "settled-server-error-500",
    "settled-redirect-307",
    "settled-reset",
    "settles-late",
    "refuses-settles-late",
    "never-settles",
    "accepts-never-settles",
    "settles-twice",
    "lying-receipt",
    "never-credits",
    "credits-late",
)
MPP_ROWS: Final = (
    "other-recipient",
    "other-chain",
    "other-token",
    "double-amount",
    "splits",
    "expired",
    "about-to-expire",
    "replayed-challenge",
    "lying-description",
    "challenge-gone-410",
    "challenge-redirect-307",
    "payment-redirect-307",
    "settled-payment-required-402",
    "settled-forbidden-403",
    "settled-server-error-500",
    "settled-redirect-307",
    "settled-reset",
    "settles-late",
    "never-settles",
    "accepts-never-settles",
    "lying-receipt",
    "fails-after-settling",
    "never-credits",
    "credits-late",
)
DEATH: Final = "settled-payment-required-402"
# Past the deadline of what was signed, and past the end of the fault.
HELD_BACK_MS: Final = 700_000
# The headers by which a payment or a key would reach another server.
SECRET: Final = frozenset({"authorization", "payment-authorization", "payment-signature", "x-api-key", "x-payment"})
# Half an hour: what the recipe is started in while the fault lasts.
SPOILT_RUNS: Final = 3
# What is still on its way then has arrived long since.
AFTER_S: Final = 3600

Observe = Callable[["Play"], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Row:
    """One row: `tell` plays it in a directory and lets an observer see it; `fare` lets the recipe live through it."""

    rail: str
    name: str
    says: str
    tell: Callable[[Path, Callable[[Observe], Observe]], None]
    fare: Callable[[], Fared] | None = None


def missing(rail: str) -> str:
    """Return what a rail's rows lack here, "" when nothing."""
    from tests import tools

    lacks = rail == "mpp" and tools.find("anvil") is None
    return "anvil is missing: python -m tests installs it" if lacks else ""


def rows(rail: str, names: Sequence[str] = (), *, every: bool = False) -> list[Row]:
    """Return the rows of a rail: those above and its deaths, whichever of its whole table are named, or every one."""
    made = {"coinbase-usdc": _usdc, "x402": _x402, "mpp": _mpp}[rail]()
    return [row for row, shown in made if every or (row.name in names if names else shown)]


def skipped(row: Row, reason: str) -> dict[str, Any]:
    """Say that a row was not played, and why."""
    nothing = dict.fromkeys(("survived", "payments", "astray", "lost", "halted", "recovered_in_s"))
    return {"story": row.name, **nothing, "reason": reason, "detail": "", "wrong": []}


def told(row: Row) -> dict[str, Any]:
    """Play a row with topup; one that breaks is not survived.

    `payments` are those that the chain has for the one need, `recovered_in_s` the seconds of the world from the need
    to its end, None where a person had to say a word. Payments are `astray` that went to somebody else, or were not the
    price.
    """
    seen: dict[str, Any] = dict.fromkeys(("payments", "astray", "lost", "halted", "reason", "recovered_in_s"))
    wrong: list[str] = []

    def observed(tale: Observe) -> Observe:
        async def tell(play: Play) -> None:
            began_ms = play.world.clock.now_ms()
            try:
                await tale(play)
            finally:
                seen.update(_seen(play, began_ms))

        return tell

    with tempfile.TemporaryDirectory(prefix="topup-row-") as folder:
        try:
            row.tell(Path(folder), observed)
        except Exception as error:  # noqa: BLE001 - a row of the table whatever happens
            wrong.append(f"{type(error).__name__}: {error}"[:300])
    if seen["lost"] or seen["astray"] or (seen["payments"] or 0) > 1:
        wrong.append(f"{seen['payments']} payments for one need, {seen['astray']} astray, lost: {seen['lost']}")
    return {"story": row.name, "survived": not wrong, **seen, "detail": "", "wrong": wrong}


def _seen(play: Play, began_ms: int) -> dict[str, Any]:
    """Say how it ended, by the chain and by the ledger."""
    from topup.domain.lifecycle import State

    payments, astray = _counted(play.ground, play.ground.moves())
    topups = play.stage.store.latest("default", 100)
    known = sum(a.paid for t in topups for a in t.out if a.inclusion is not None)
    asked = [t.reason for t in topups if t.state is State.HALTED or t.reason == "endpoint_gone"]
    ends = sorted(t.moved_ms for t in topups if t.state is State.DONE)
    return {
        # Each time that the account ran low again it was filled again.
        "payments": payments - (play.needs - 1),
        "astray": astray,
        "lost": payments > known,
        "halted": bool(asked),
        "reason": "; ".join(asked),
        "recovered_in_s": None if asked or not ends else (ends[0] - began_ms) // 1000,
    }


def _counted(ground: Ground, moves: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Count the payments among these transfers, and those of them that are not what a payment moves."""
    right = ground.payment
    astray = sum(one not in right for one in moves)
    return sum(one == right[0] for one in moves) + astray, astray


def _fared(recipe: type[ByCredential], on: AbstractContextManager[Ground], fault: Any, *, dies: bool = False) -> Fared:
    """Let the recipe live through a fault; where it `dies` it has no second try when it is first started."""
    with on as ground:
        living = recipe(ground)
        world, seller = ground.world, living.seller
        began_ms = world.clock.now_ms()

        def begins(run: int) -> None:
            living.tries = 1 if dies and run == 0 else TRIES
            if run == SPOILT_RUNS:
                world.do(seller.switch_off)

        for one in fault.switches:
            world.do(partial(seller.switch_on, one.place, one.name, one.times))
        living.hour(at=begins)
        living.wait(AFTER_S)
        sold = seller.settlements if ground.rail == "x402" else seller.purchases
        credited = [one.credited_ms for one in sold.values() if one.credited_ms is not None]
        payments, astray = _counted(ground, ground.moves())
        leaked = any(SECRET & request.headers.keys() for request in seller.elsewhere.requests)
        return Fared(
            survived=payments == 1 and not astray and bool(credited) and not leaked,
            payments=payments,
            astray=astray,
            leaked=leaked,
            believed=living.believed,
            lost=payments > living.believed,
            recovered_in_s=(min(credited) - began_ms) // 1000 if credited else None,
            detail="; ".join(dict.fromkeys(living.errors)),
        )


# -- the rows of each rail --------------------------------------------------------------------------------------------


def _played(
    ground: AbstractContextManager[Ground], directory: Path, tell: Observe, *, two: bool, fault: Any = None
) -> None:
    """Let the real flow live through a row."""
    from tests.world.rails_faults import playing

    async def live() -> None:
        async with playing(ground, directory, fault, two=two) as play:
            await tell(play)

    asyncio.run(live())


def _usdc() -> Iterator[tuple[Row, bool]]:
    from tests.world import grounds

    def row(name: str, says: str, tell: Observe, *, two: bool = False, fault: Any = None) -> Row:
        def played(directory: Path, observed: Callable[[Observe], Observe]) -> None:
            _played(grounds.in_usdc(), directory, observed(tell), two=two, fault=fault)

        return Row("coinbase-usdc", name, says, played)

    for fault in grounds.USDC_FAULTS:
        yield row(fault.name, fault.says, partial(grounds.answered, fault=fault), fault=fault), fault.name in USDC_ROWS
    for nth, what in enumerate(("approval", "payment")):
        says = f"The process dies when the chain has the {what}, before it hears of it."
        yield row(f"death-after-{what}", says, partial(grounds.died, nth=nth)), True
    says = "The contract is paused between approval and payment, past the charge's deadline."
    yield row("paused-past-deadline", says, grounds.paused), True


def _x402() -> Iterator[tuple[Row, bool]]:
    from tests.world.grounds import of_x402
    from topup.sandbox.x402_faults import X402_FAULTS

    def row(name: str, says: str, fault: Any, tell: Observe, *, two: bool = False, late_ms: int = 10_000) -> Row:
        profile = fault.sellers[0]

        def played(directory: Path, observed: Callable[[Observe], Observe]) -> None:
            _played(of_x402(profile, late_ms), directory, observed(tell), two=two, fault=fault)

        def fares() -> Fared:
            return _fared(ByAuthorization, of_x402(profile, late_ms), fault, dies=name == "death-while-settling")

        return Row("x402", name, says, played, None if _endless(fault) else fares)

    settled = lambda seller: any(one.settled_ms is not None for one in seller.settlements.values())  # noqa: E731
    return _credentials(row, X402_FAULTS, X402_ROWS, settled)


def _mpp() -> Iterator[tuple[Row, bool]]:
    from tests.world.grounds import of_mpp
    from topup.sandbox.mpp_faults import MPP_FAULTS

    def row(name: str, says: str, fault: Any, tell: Observe, *, two: bool = False, late_ms: int = 2_000) -> Row:
        def played(directory: Path, observed: Callable[[Observe], Observe]) -> None:
            _played(of_mpp("mppx", late_ms), directory, observed(tell), two=two, fault=fault)

        def fares() -> Fared:
            return _fared(ByMachine, of_mpp("mppx", late_ms), fault, dies=name == "death-while-settling")

        return Row("mpp", name, says, played, None if _endless(fault) else fares)

    settled = lambda seller: any(one.settled_ms is not None for one in seller.payments.values())  # noqa: E731
    return _credentials(row, MPP_FAULTS, MPP_ROWS, settled)


def _credentials(
    row: Callable[..., Row], faults: Mapping[str, Any], shown: Sequence[str], settled: Callable[[Any], bool]
) -> Iterator[tuple[Row, bool]]:
    """Make the rows of a rail whose seller carries the payment."""
    from tests.world.rails_faults import crashed, outlived, run_row

    for fault in faults.values():
        yield row(fault.name, fault.says, fault, partial(run_row, fault=fault)), fault.name in shown
    fault, late = faults[DEATH], faults["settles-late"]
    says = "The process dies when the seller has settled, before it hears of it."
    yield (
        row(
            "death-while-settling",
            says,
            fault,
            lambda play: crashed(play, fault, settled=lambda: settled(play.seller)),
        ),
        True,
    )
    for two, count in ((False, "one provider is"), (True, "two providers are")):
        name = f"held-back-{count.partition(' ')[0]}-provider" + "s" * two
        says = f"The seller keeps the payment back past its deadline, and then tries; {count} asked."
        yield row(name, says, late, lambda play: outlived(play, late), two=two, late_ms=HELD_BACK_MS), True


def _endless(fault: Any) -> bool:
    """Tell whether the recipe would never come to an end, or need a purchase before it."""
    return getattr(fault, "refills", 1) > 1 or any("trickle" in one.name for one in fault.switches)
