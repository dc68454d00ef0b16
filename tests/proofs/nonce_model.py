"""Should a nonce stay with an ended top-up until something of it is mined there? Two rules, held side by side.

A top-up ended: its charge is dead by proof, but its bytes may still be in some node, at the wallet's next nonce, and no
block holds them. A purchase is wanted. Today's rule, `OVERTAKEN`, signs its payment at that nonce, so that it outbids
what is there. The other one, `HELD`, first has something of the ended top-up mined: a cancel, unless the old bytes are.
A third one, `SKIPPED`, is wrong: lest the old bytes take the nonce, it signs a payment at the next one as well.

The chain mines one transaction a nonce. The old bytes revert, because their deadline has passed; nodes may forget them
and may be given them again. Every way through is tried, for a wallet with so much ETH, paused or not, and with gas
above the ceiling or not. `python -m tests.proofs.rule_r` has the question whether a charge is paid twice.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from tests.proofs.explored import explore

OVERTAKEN, HELD, SKIPPED = "overtaken", "held", "skipped"
# In units of gas for one transaction: what a cancel takes, what the old bytes take, and a payment with its gas.
GAS: Final = 1
PAYMENT: Final = 3


class State(NamedTuple):
    """The world after some steps: ETH left, blocks mined, and what is in the pool at which nonce."""

    eth: int
    # Which of the two nonces is mined next: 0 is the one at which the old bytes may be.
    nonce: int = 0
    old: bool = True
    cancel: bool = False
    payments: tuple[int, ...] = ()
    paid: int = 0
    signed_while_paused: bool = False


class Case(NamedTuple):
    """What holds throughout: the rule, whether buying is paused, and whether gas is above the ceiling."""

    rule: str
    paused: bool = False
    dear: bool = False
    cancels_while_paused: bool = False


def steps(case: Case, state: State) -> Iterator[tuple[str, State]]:
    """Yield what the program may sign, and what the chain and its nodes may do."""
    if not case.dear:
        yield from _signed(case, state)
    if state.nonce == 0:
        yield ("the nodes forget the old bytes", state._replace(old=False))
        if state.old and state.eth >= GAS:
            yield ("the old bytes are mined, and revert", state._replace(eth=state.eth - GAS, nonce=1))
        if state.cancel and state.eth >= GAS:
            yield ("the cancel is mined", state._replace(eth=state.eth - GAS, nonce=1))
    if state.nonce in state.payments and state.eth >= PAYMENT:
        mined = state._replace(eth=state.eth - PAYMENT, nonce=state.nonce + 1, paid=state.paid + 1)
        yield ("the payment is mined", mined)


def _signed(case: Case, state: State) -> Iterator[tuple[str, State]]:
    out = any(nonce >= state.nonce for nonce in state.payments)
    free = case.rule != HELD or state.nonce > 0
    if free and not case.paused and not state.paid and state.eth >= PAYMENT and not out:
        nonces = (0, 1) if case.rule == SKIPPED and state.nonce == 0 else (state.nonce,)
        yield ("a payment is signed", state._replace(payments=(*state.payments, *nonces)))
    holds = case.rule == HELD and state.nonce == 0 and not state.cancel and state.eth >= GAS
    if holds and (not case.paused or case.cancels_while_paused):
        yield ("a cancel is signed", state._replace(cancel=True, signed_while_paused=case.paused))


def found(case: Case, eth: int) -> tuple[bool, bool, bool]:
    """Return whether it ever pays twice, can pay once the old bytes are forgotten, and signs while paused."""
    kept, forgotten = (
        explore(State(eth, old=old), partial(steps, case), lambda state: state.paid > 1) for old in (True, False)
    )
    paused = any(state.signed_while_paused for state in kept.reached)
    return kept.story is not None, any(state.paid for state in forgotten.reached), paused
