"""How does a top-up get to a given state in a real ledger? Each function walks one to where its name says."""

import os
from typing import Any, Final

from tests.world.builders import NOW_MS, ask, inclusion, plan, raw_of, signed_bytes, topup, verified
from topup.domain.credits import Reading
from topup.domain.lifecycle import Fact, TopUp
from topup.domain.money import Usd, Wei
from topup.ports.chain import Delivery, Seen, Sent
from topup.ports.ledger import Store
from topup.sandbox.charges import Operator

# For thousands of commits: what a disk does with them is tested elsewhere.
MEMORY: Final = next((d for d in ("/dev/shm",) if os.access(d, os.W_OK)), None)  # noqa: S108
BASELINE = Reading(Usd.of(100), Usd.of("96.79"), NOW_MS)
IN_BLOCK = Seen(inclusion(), "", "matches", trusted=True)
FAILED = Seen(inclusion(success=False), "V3TooMuchRequested", "matches", trusted=True)


def charged(store: Store, one: Operator, **changes: Any) -> TopUp:
    """A decision whose charge is answered and proven."""
    kept = store.begin(topup(**changes))
    kept = store.ask(kept, kept.moved_ms)
    proven = verified(one)
    kept = store.answered(kept, raw_of(one.charge(ask())), kept.moved_ms)
    return store.proven(kept, proven)


def signed(store: Store, kept: TopUp, **planned: Any) -> TopUp:
    """A charged top-up with a nonce and a signed payment."""
    kept = store.reserve(kept, plan(**planned), BASELINE, Wei(10**18), kept.moved_ms)
    return store.signed(kept, *signed_bytes(f"{kept.id}/{len(kept.attempts)}"), kept.moved_ms)


def sent(store: Store, one: Operator, **planned: Any) -> TopUp:
    """A payment that may be out there."""
    kept = signed(store, charged(store, one), **planned)
    kept = store.intend(kept, kept.moved_ms)
    return store.delivered(kept, kept.attempts[-1], Sent(Delivery.ACCEPTED, ""), kept.moved_ms)


def paid(store: Store, one: Operator, **planned: Any) -> TopUp:
    """A payment in a canonical block."""
    kept = sent(store, one, **planned)
    return store.included(kept, kept.attempts[-1], IN_BLOCK, Fact.PAID, kept.moved_ms)


def reverted(store: Store, one: Operator, **planned: Any) -> TopUp:
    kept = sent(store, one, **planned)
    return store.included(kept, kept.attempts[-1], FAILED, Fact.REVERTED, kept.moved_ms)


def reading(at_ms: int = NOW_MS, credits: str = "100", usage: str = "90") -> Reading:  # noqa: A002
    return Reading(Usd.of(credits), Usd.of(usage), at_ms)
