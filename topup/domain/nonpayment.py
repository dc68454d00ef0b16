"""When is a charge dead for ever, so that another may be signed in its place?

Rule R: a new charge may be signed only when every other charge of the top-up whose payment may have left is dead by
proof. Neither silence nor a clock of ours is a proof: only what the chain shows at a final block, through providers
that do not depend on each other, is one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from topup.domain.lifecycle import Attempt, Kind, TopUp


@dataclass(frozen=True)
class ChargeStatus:
    """What the chain shows of one charge, at a final block and after it.

    Attributes:
        final_number: the final block's number.
        final_s: its timestamp in unix seconds.
        flag: the contract's mark that the charge was paid, read at or after the final block.
        payers: hashes of the transactions that carry a Transferred event of this charge.
        witnesses: how many independent providers say all of this.
    """

    final_number: int
    final_s: int
    flag: bool
    payers: frozenset[bytes]
    witnesses: int


@dataclass(frozen=True)
class More:
    """Not all has been read that the answer rests on; the next pass goes on. `detail` says how far it is."""

    detail: str


# So many independent providers have to say the same before a charge is dead.
WITNESSES = 2


class NonPaymentProof(StrEnum):
    """By which proof a charge can never be paid any more."""

    NEVER_LEFT = "never_left"  # no payment of it was ever meant to be sent
    DEADLINE = "deadline"  # a final block is younger than its deadline
    NONCE = "nonce"  # final blocks hold other transactions of ours at every nonce it could be mined at
    FOREIGN = "foreign"  # the same, and at one nonce at least it is a transaction that is none of ours


@dataclass(frozen=True)
class Paid:
    """The charge was paid, by these transactions; none are named when only the contract's mark says so."""

    by: frozenset[bytes]


@dataclass(frozen=True)
class Undecided:
    """Nothing may be concluded yet, and why; never a "no".

    `if_confirmed` is the proof that it would be if a second independent provider showed the same; None where more than
    that is missing.
    """

    why: str
    if_confirmed: NonPaymentProof | None = None


def non_payment_proof(
    topup: TopUp,
    seq: int,
    *,
    deadline_s: int,
    payment_status: ChargeStatus,
    flag_tested: bool,
    gone: Collection[tuple[int, int]] = (),
) -> NonPaymentProof | Paid | Undecided:
    """Judge whether charge `seq` of this top-up is dead for ever, paid, or undecided.

    What each answer rests on:

    - `NEVER_LEFT`: the intent to send is stored before the first byte leaves, so without one nothing is out.
    - `DEADLINE` (D1): the contract pays while the block's own time is not past the deadline. Once a final block is
      past it, every later block is, and the blocks before it stand: what is unpaid then stays so.
    - `NONCE` (D2): a nonce is mined once. When each one that a payment of this charge was signed for is taken, in a
      final block, by a known transaction that did not pay it, none of those payments can be mined any more. It holds
      only as long as nobody signs the charge again, which is what `may_sign` forbids once it is marked dead.
    - `FOREIGN`: the same where somebody else has used one of these nonces. By whom it was used is not asked: that these
      bytes are dead follows from the nonce alone, and that nothing paid the charge from the mark and the events.

    D1 and D2 need two independent providers and a final block. The wall clock proves nothing, because the chain may
    have halted and goes on from its own time; a block that is only the newest proves nothing, because another may
    take its place, with an earlier time and without the revert it showed; a missing receipt proves nothing, because
    "not seen" is all it says.

    Args:
        topup: the top-up, with inclusions that were looked up no earlier than their blocks became final; a
            remembered inclusion whose block may have been replaced since is no ground for D2.
        seq: the number of the charge in it, from 1.
        deadline_s: its deadline in unix seconds, as it was signed.
        payment_status: what the chain shows of it.
        flag_tested: whether the contract's mark has shown our own first payment, and may be believed.
        gone: places that blocks up to that final one show used, whoever did it, as two independent providers or a
            person say.
    """
    payments = _payments(topup, seq)
    if not payments:
        return NonPaymentProof.NEVER_LEFT
    paying = [a for a in payments if a.paid]
    if paying:
        return Paid(frozenset(a.hash for a in paying if a.hash is not None))
    if payment_status.payers:
        return Paid(payment_status.payers)
    if payment_status.flag:
        if flag_tested:
            return Paid(frozenset())
        return Undecided("the contract's mark says paid and no event is found; the mark has not been tested")
    shown = _shown(topup, payments, payment_status, deadline_s, gone)
    if payment_status.witnesses < WITNESSES:
        return Undecided("one provider is no proof: two independent ones have to agree", if_confirmed=shown)
    if shown is None:
        return Undecided("no final block is past its deadline, and a payment of it may still be mined")
    return shown


def _shown(
    topup: TopUp,
    payments: Sequence[Attempt],
    payment_status: ChargeStatus,
    deadline_s: int,
    gone: Collection[tuple[int, int]],
) -> NonPaymentProof | None:
    """Return what a final block shows to be over for ever, whoever shows it; None where it may still be paid."""
    if payment_status.final_s > deadline_s:
        return NonPaymentProof.DEADLINE
    taken = {
        a.nonce_slot
        for a in topup.out
        if a.inclusion is not None and a.inclusion.block_number <= payment_status.final_number
    }
    if all(a.nonce_slot in taken or a.nonce_slot in gone for a in payments):
        return NonPaymentProof.NONCE if all(a.nonce_slot in taken for a in payments) else NonPaymentProof.FOREIGN
    return None


def may_sign(topup: TopUp, seq: int) -> str | None:
    """Apply Rule R to the stored marks: may a payment of charge `seq` be signed, now and at any nonce?

    Every other charge of the top-up whose payment may have left has to carry the mark of its proof; and a charge that
    carries one itself is never signed again, because D2 only speaks of what was signed before it. Several payments of
    one charge need no rule where the chain takes one of them at most: the contract pays an id once, a lane runs one
    transaction. Nothing but its own bytes binds what is sponsored, so that its charge is signed once.

    A faster way is left out on purpose: to sign the new charge only at the very nonce of the old one, of which at
    most one can be mined. It saves the wait for a final block, and is unsafe from the moment that nonce is taken.

    Returns:
        None when it may be signed, else a sentence that names the charge which forbids it.
    """
    for charge in topup.charges:
        out = bool(_payments(topup, charge.seq))
        if charge.seq != seq and out and charge.dead is None:
            return f"a payment of charge {charge.seq} may have left, and nothing proves that it can never be mined"
        if charge.seq == seq and any(a.plan.sponsored for a in _payments(topup, seq)):
            return f"a sponsored payment of charge {seq} may have left: the chain would run another one beside it"
        if charge.seq == seq and charge.dead is not None:
            return f"charge {seq} is marked dead: a new payment of it could bring it back to life"
    return None


def _payments(topup: TopUp, seq: int) -> list[Attempt]:
    """Return the payments of a charge that may have left this machine."""
    return [a for a in topup.out if a.plan.kind is Kind.PAY and a.charge_seq == seq]
