"""What is the life of one top-up? The diagram, the transition table, and the record that lives it.

    DECIDED ──ask──► ASKING ──answered──► CHARGED ──reserve──► RESERVED ──signed──► SIGNED ──intend──► SENT ◄─┐ bump,
       ▲               │                     ▲                    │                   │                 │ └───┘ cancel
       ├──answer_lost──┘                     ├─────withdrawn──────┴───────────────────┘                 │
       ├──charge_dead── CHARGED              └──retry── REVERTED ◄────────────reverted──────────────────┤
       │                                                   │                                            │
       └───proven_dead── DEATHWATCH ◄──expired, given_up───┴────────────────────────────────────────────┤
                                                                                                        │
             SENT ◄──vanished── PAID, CREDITED, UNCREDITED, REVERTED, CHARGED                         paid
                                                                                                        ▼
             DONE ◄──settled── CREDITED ◄──posted── UNCREDITED ◄──posting_late── PAID ◄─────────────────┘
                                   ▲──────────────────posted──────────────────────┘

    bump     the same charge at the same nonce, dearer; cancel: nothing at the same nonce; at most one of them is mined
    CHARGED ◄──approved── SENT, where a token is paid with: first the contract may take it, then it is told to
    PAID     also from CHARGED, REVERTED, DEATHWATCH and HALTED, when an earlier attempt turns out to have paid
    DEATHWATCH  also from CHARGED, when the same charge has reverted before
    DROPPED  nothing of it can be paid: no longer needed, refused, or the endpoint is gone
    FAILED   nothing was paid and nothing can be any more: cancelled, with proof; or by a person's word after HALTED
    HALTED   from anywhere, with a reason; only a person leads out

Every arrow is one committed row. The side effect an arrow announces happens after the commit: ASKING is stored
before the charge is requested, SIGNED (with the raw transaction and its hash) before SENT, SENT (the intent to
send) before the first byte leaves; a bump or a cancel is stored signed and intended at once. A restart looks at the
state and goes on; there is no recovery code beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from topup.domain.money import Asset, Usd, Usdc, Wei

NO_WEI: Final = Wei(0)
NO_TOKENS: Final = Usdc(0)
# What a sponsor holds leaves no mark on the chain but its log. It is dead once a final block is so far past its end,
# and the logs of that time are known to be there.
SPONSORED_MARGIN_S: Final = 60
# A payment may stand below the block it was planned on, once that block was replaced: two hours of Base's blocks reach
# below anything that was not final then.
REPLACED_BLOCKS: Final = 3_600


class State(StrEnum):
    """Where a top-up is."""

    DECIDED = "decided"  # to be bought; nothing has been asked
    ASKING = "asking"  # the request for a charge may be out; an unpaid charge is harmless
    CHARGED = "charged"  # the raw answer is stored; no payment of it is on its way
    RESERVED = "reserved"  # nonce and unsigned transaction are stored
    SIGNED = "signed"  # raw transaction and hash are stored; provably not sent
    SENT = "sent"  # may be out there: only evidence ends this
    REVERTED = "reverted"  # included and failed: gas is gone, the charge is still payable
    DEATHWATCH = "deathwatch"  # expired or given up: waiting for proof that the charge can never be paid
    PAID = "paid"  # a canonical block holds the payment: our Transferred event, or the use of our authorization
    UNCREDITED = "uncredited"  # paid, and not posted in time: blocks further buying
    CREDITED = "credited"  # posted; waiting for the block to be safe
    HALTED = "halted"  # a person has to look
    DONE = "done"
    DROPPED = "dropped"
    FAILED = "failed"


TERMINAL: Final = frozenset({State.DONE, State.DROPPED, State.FAILED})
# Money may be on its way or gone: a person must not pay by hand beside it.
MONEY_OUT: Final = frozenset(
    {State.SENT, State.REVERTED, State.DEATHWATCH, State.PAID, State.UNCREDITED, State.CREDITED, State.HALTED}
)


class Fact(StrEnum):
    """What happened: the name of an arrow."""

    ASK = "ask"
    ANSWERED = "answered"
    ANSWER_LOST = "answer_lost"
    CHARGE_DEAD = "charge_dead"
    RESERVE = "reserve"
    SIGNED = "signed"
    INTEND = "intend"
    BUMP = "bump"
    CANCEL = "cancel"
    GIVEN_UP = "given_up"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"
    REVERTED = "reverted"
    RETRY = "retry"
    EXPIRED = "expired"
    PROVEN_DEAD = "proven_dead"
    PAID = "paid"
    VANISHED = "vanished"
    POSTED = "posted"
    POSTING_LATE = "posting_late"
    SETTLED = "settled"
    DROP = "drop"
    FAIL = "fail"
    HALT = "halt"


_S, _F = State, Fact
TABLE: Final[dict[tuple[State, Fact], State]] = {
    (_S.DECIDED, _F.ASK): _S.ASKING,
    (_S.DECIDED, _F.DROP): _S.DROPPED,
    (_S.ASKING, _F.ANSWERED): _S.CHARGED,
    (_S.ASKING, _F.ANSWER_LOST): _S.DECIDED,
    (_S.ASKING, _F.DROP): _S.DROPPED,
    (_S.CHARGED, _F.RESERVE): _S.RESERVED,
    (_S.CHARGED, _F.CHARGE_DEAD): _S.DECIDED,
    (_S.CHARGED, _F.DROP): _S.DROPPED,
    (_S.CHARGED, _F.EXPIRED): _S.DEATHWATCH,  # this and the next three: only when the same charge has reverted
    (_S.CHARGED, _F.GIVEN_UP): _S.DEATHWATCH,
    (_S.CHARGED, _F.PAID): _S.PAID,
    (_S.CHARGED, _F.VANISHED): _S.SENT,
    (_S.RESERVED, _F.SIGNED): _S.SIGNED,
    (_S.RESERVED, _F.WITHDRAWN): _S.CHARGED,
    (_S.SIGNED, _F.INTEND): _S.SENT,
    (_S.SIGNED, _F.WITHDRAWN): _S.CHARGED,
    (_S.SENT, _F.BUMP): _S.SENT,
    (_S.SENT, _F.CANCEL): _S.SENT,
    (_S.SENT, _F.GIVEN_UP): _S.DEATHWATCH,  # a cancel of ours has taken the nonce
    (_S.SENT, _F.APPROVED): _S.CHARGED,  # the contract may now take the token: the payment itself comes next
    (_S.SENT, _F.PAID): _S.PAID,
    (_S.SENT, _F.REVERTED): _S.REVERTED,
    (_S.SENT, _F.EXPIRED): _S.DEATHWATCH,
    (_S.REVERTED, _F.RETRY): _S.CHARGED,
    (_S.REVERTED, _F.PAID): _S.PAID,
    (_S.REVERTED, _F.VANISHED): _S.SENT,
    (_S.REVERTED, _F.EXPIRED): _S.DEATHWATCH,
    (_S.REVERTED, _F.GIVEN_UP): _S.DEATHWATCH,  # it reverted for good, or too often
    (_S.DEATHWATCH, _F.PAID): _S.PAID,
    (_S.DEATHWATCH, _F.PROVEN_DEAD): _S.DECIDED,
    (_S.DEATHWATCH, _F.FAIL): _S.FAILED,
    (_S.PAID, _F.POSTED): _S.CREDITED,
    (_S.PAID, _F.POSTING_LATE): _S.UNCREDITED,
    (_S.PAID, _F.VANISHED): _S.SENT,
    (_S.UNCREDITED, _F.POSTED): _S.CREDITED,
    (_S.UNCREDITED, _F.VANISHED): _S.SENT,
    (_S.CREDITED, _F.SETTLED): _S.DONE,
    (_S.CREDITED, _F.VANISHED): _S.SENT,
    (_S.HALTED, _F.PAID): _S.PAID,  # by a person's word, where the chain shows the payment
    (_S.HALTED, _F.FAIL): _S.FAILED,  # by a person's word, after the deadline
    **{(state, _F.HALT): _S.HALTED for state in State if state not in TERMINAL and state is not _S.HALTED},
}


class IllegalMove(Exception):
    """The table knows no such arrow: a defect of the caller, never of the world."""


def advance(state: State, fact: Fact) -> State:
    """Return where `fact` leads from `state`, or raise `IllegalMove` where the table has no such arrow."""
    try:
        return TABLE[state, fact]
    except KeyError:
        raise IllegalMove(f"{state} knows no {fact}") from None


class Kind(StrEnum):
    """What an attempt's transaction is for."""

    PAY = "pay"
    CANCEL = "cancel"
    APPROVE = "approve"


class Broadcaster(StrEnum):
    """Who puts the signed attempt on the chain."""

    US = "us"
    SERVER = "server"


@dataclass(frozen=True)
class ChargeRow:
    """One request for a charge and what came of it; `raw` is the answer's bytes, None while unknown.

    `dead` names the proof that a charge whose payment may have left can never be paid any more; None without one.
    """

    seq: int
    requested_ms: int
    raw: bytes | None
    abandoned: str | None
    proven: bool
    dead: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An unsigned payment: everything that will be signed, and what it was judged on."""

    kind: Kind
    to: bytes
    data: bytes
    value: Wei
    gas_limit: int
    max_fee_per_gas: Wei
    max_priority_fee_per_gas: Wei
    l1_fee: Wei
    lane: int
    nonce: int
    chain_id: int
    # What the pool of this tier quoted, and what ETH cost by the feed; 0 where none was asked.
    quote: Wei = NO_WEI
    tier: int = 0
    eth_price_e8: int = 0
    block_number: int
    proof: str
    asset: Asset = Asset.ETH
    # What leaves in a token, where the asset is one; `value` is ETH and then 0.
    tokens: Usdc = NO_TOKENS
    # The most the network takes of the token, where fees are paid in it.
    token_fee: Usdc = NO_TOKENS
    broadcaster: Broadcaster = Broadcaster.US
    # When what is signed dies of itself, in unix seconds; 0 where only the charge says so.
    ends_s: int = 0

    @property
    def sponsored(self) -> bool:
        """Tell whether somebody else pays the network's fee and signs as well: the wallet pays none for its gas."""
        return self.broadcaster is Broadcaster.SERVER and self.gas_limit > 0 and self.token_fee == NO_TOKENS

    @property
    def over_s(self) -> int:
        """Return up to when it may still run, as far as it says; a sponsored one is held for alive a minute longer."""
        return self.ends_s + (SPONSORED_MARGIN_S if self.sponsored else 0)

    @property
    def cost_max(self) -> Wei:
        """Return the most ETH that leaves the wallet if this is included: value, gas at its ceiling, L1 data fee."""
        return self.value + self.max_fee_per_gas.times(self.gas_limit) + self.l1_fee


@dataclass(frozen=True)
class Inclusion:
    """An attempt's place in a canonical block, with what it cost. Times in ms; `spent` is the ETH beyond the fees.

    `reason` says why it failed; `transient` whether the same charge may still be paid by another transaction.
    """

    block_number: int
    block_hash: bytes
    block_ms: int
    success: bool
    gas: Wei
    l1_fee: Wei
    spent: Wei
    reason: str = ""
    transient: bool = True
    # What left in the plan's token: for the charge, and for the network where that takes dollars.
    tokens: Usdc = NO_TOKENS
    token_fee: Usdc = NO_TOKENS
    # The transaction that did it, where that is not the attempt's own: somebody else has sent it.
    tx_hash: bytes = b""


@dataclass(frozen=True)
class Attempt:
    """One signed, or to be signed, transaction of a top-up."""

    id: int
    charge_seq: int
    plan: Plan
    raw: bytes | None
    hash: bytes | None
    intended_ms: int | None
    last_sent_ms: int | None
    sends: int
    withdrawn: bool
    inclusion: Inclusion | None
    booked: bool
    # What the providers said last, such as `accepted`; "" before the first answer.
    answer: str = ""
    # What the seller calls the purchase, where it said so.
    reference: str = ""

    @property
    def tx_hash(self) -> bytes | None:
        """Return the transaction it is: the one that included it, else its own hash; None before it is signed."""
        return (self.inclusion.tx_hash if self.inclusion is not None else b"") or self.hash

    @property
    def signed_hash(self) -> bytes:
        """Return the hash of what was signed, which what may be out has."""
        assert self.hash is not None, "nothing is sent that is not signed"
        return self.hash

    @property
    def ours(self) -> bool:
        """Tell whether we put it on the chain; else it is an authorization that somebody else may carry there."""
        return self.plan.broadcaster is Broadcaster.US

    @property
    def nonce_slot(self) -> tuple[int, int]:
        """Return its place in the wallet's order of transactions: lane and nonce, which is mined once."""
        return self.plan.lane, self.plan.nonce

    @property
    def paid(self) -> bool:
        """Tell whether it stands in a block and paid its charge."""
        return self.plan.kind is Kind.PAY and self.inclusion is not None and self.inclusion.success


@dataclass(frozen=True)
class TopUp:
    """One decision to buy credits, with everything that came of it."""

    id: str
    account: str
    rail: str
    chain_id: int
    wallet: bytes
    state: State
    amount: Usd
    why: str
    forced: bool
    decided_ms: int
    moved_ms: int
    baseline: Usd | None = None
    balance_before: Usd | None = None
    wallet_before: Wei | None = None
    reason: str = ""
    credited_ms: int | None = None
    charges: tuple[ChargeRow, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    # The number of the wish it was decided for; None where nobody asked for it.
    wish: int | None = None

    @property
    def charge(self) -> ChargeRow | None:
        """Return the newest charge."""
        return self.charges[-1] if self.charges else None

    @property
    def answer(self) -> bytes:
        """Return the answer that the newest charge came with."""
        return self.answered(len(self.charges))

    @property
    def attempt(self) -> Attempt | None:
        """Return the newest attempt that was not withdrawn."""
        live = [a for a in self.attempts if not a.withdrawn]
        return live[-1] if live else None

    @property
    def out(self) -> tuple[Attempt, ...]:
        """Return the attempts that may have left this machine."""
        return tuple(a for a in self.attempts if a.intended_ms is not None)

    def answered(self, seq: int) -> bytes:
        """Return the answer that a charge came with, by its number from 1."""
        assert seq > 0
        raw = self.charges[seq - 1].raw
        assert raw is not None, "what was signed was answered"
        return raw

    def raw_of(self, attempt: Attempt) -> bytes:
        """Return the answer that the charge of this attempt came with."""
        return self.answered(attempt.charge_seq)

    @property
    def may_still_pay(self) -> bool:
        """Tell whether a payment may have left whose charge is not proven dead."""
        dead = {c.seq for c in self.charges if c.dead is not None}
        return any(a.plan.kind is Kind.PAY and a.charge_seq not in dead for a in self.out)

    def pending(self, beside: Sequence[Attempt] = ()) -> tuple[Attempt, ...]:
        """Return the attempts that may still be included: out, and their nonce not taken by one that was.

        `beside` are attempts of earlier top-ups, which may have taken a nonce as well.
        """
        taken = {a.nonce_slot for a in (*self.out, *beside) if a.inclusion is not None}
        return tuple(a for a in self.out if a.inclusion is None and a.nonce_slot not in taken)

    @property
    def paying(self) -> Attempt | None:
        """Return the attempt that paid, once one has been seen to."""
        return next((a for a in self.attempts if a.paid), None)

    @property
    def payment(self) -> Inclusion | None:
        """Return the inclusion that paid, once one has been seen."""
        return self.paying.inclusion if self.paying is not None else None
