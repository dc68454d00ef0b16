"""What does the chain show of this wallet that the ledger does not know, and what follows from it?

Pure comparison. The ledger is the truth about intent; the chain is the truth about money. Where they differ after
a ledger was lost, restored from an old copy, or the key was used elsewhere, each difference gets a name and a remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from topup.accounting import journal
from topup.domain.lifecycle import TERMINAL, Attempt, ChargeRow, Inclusion, Kind, Plan, State, TopUp
from topup.domain.money import Asset, Usdc, Wei
from topup.domain.notes import Note
from topup.domain.reasons import Worded

# Where the USDC of an adopted payment goes: what it bought is in credits this ledger never counted.
ADOPTED = "equity:adopted"
# What is written as the reason of a top-up, and of a person's word, that comes from here.
WHY = "adopted"
# States in which nothing of the newest charge has been sent, so that a top-up can still be dropped.
UNSENT = frozenset({State.DECIDED, State.ASKING, State.CHARGED, State.RESERVED, State.SIGNED})


@dataclass(frozen=True)
class Transfer:
    """One payment of our wallet in a final block: a Transferred event of the payment contract, or logs of a token.

    `spent` is in units of what was spent: wei, or the token's; the transaction says which. Of a payment that somebody
    else carried to the chain `contract` is the token, `operator` the wallet, and `intent_id` the authorization's nonce
    (x402), or the transaction and the log's position (mpp).
    """

    contract: bytes
    operator: bytes
    intent_id: bytes
    recipient: bytes
    spent: int
    tx_hash: bytes
    block_number: int

    @property
    def intent(self) -> tuple[bytes, bytes]:
        """Return what names a charge on its contract: operator and id."""
        return self.operator, self.intent_id


@dataclass(frozen=True)
class WalletTransaction:
    """One transaction of the wallet in a final block.

    `raw` is what was signed, rebuilt and held against the hash; None when its kind is unknown here. `total` is what
    its call data pays for the charge `intent`; both None when it is no payment. `transfers` counts the wallet's
    Transferred events in it.
    """

    plan: Plan
    hash: bytes
    raw: bytes | None
    inclusion: Inclusion
    intent: tuple[bytes, bytes] | None
    total: Usdc | None
    transfers: int

    @property
    def position(self) -> tuple[int, bytes, int]:
        """Return its nonce, hash and block."""
        return self.plan.nonce, self.hash, self.inclusion.block_number

    @property
    def cost(self) -> Wei:
        """Return what left the wallet by it: a payment's change comes back, a transfer's value does not."""
        inclusion, network = self.inclusion, self.inclusion.gas + self.inclusion.l1_fee
        if not inclusion.success:
            return network
        return network + (inclusion.spent if self.transfers else self.plan.value)


@dataclass(frozen=True)
class UnknownPayment:
    """A payment that a seller carried to the chain and that no top-up explains; `at_ms` is the time of its block."""

    chain_id: int
    transfer: Transfer
    token: journal.Commodity
    at_ms: int

    @property
    def word(self) -> str:
        """Return the name under which a person's taking it over is kept."""
        payment = self.transfer
        parts = (payment.contract.hex(), payment.operator.hex(), payment.intent_id.hex())
        return Note.ADOPTED_CARRIED.of(self.chain_id, *parts)


@dataclass(frozen=True)
class Adopted:
    """A transaction that the ledger took over from the chain. Unknown parts are None; `cost` is all that it took."""

    nonce: int
    tx_hash: bytes | None
    block_number: int | None
    topup_id: str | None
    cost: Wei | None


ADOPT = "`topup reconcile --adopt` takes it over"
FOLLOW = "`topup run` finds it by itself"
SELLERS_LIST = "`topup pause`, and see by the seller's own list whether its credits have come"
ASK_SELLER = "ask the seller of the credits what its account means"
STOP = "spend nothing; hold the block explorer against `topup history` before you go on"


class What(Worded):
    """The stable word for a difference, and what to do about it."""

    UNKNOWN_PAYMENT = "unknown_payment", ADOPT
    UNKNOWN_APPROVAL = "unknown_approval", ADOPT
    UNKNOWN_CARRIED = (
        "unknown_carried",
        f"{SELLERS_LIST}; {ADOPT}, and no cap counts it; if you know nothing of it, somebody else has the key",
    )
    LOST_ATTEMPT = "lost_attempt", f"{ADOPT}; `topup run` then follows it to its end"
    FOREIGN = "foreign", f"find out who used the key; if it was you, {ADOPT}"
    UNEXPLAINED = "unexplained_nonce", f"look the wallet up in a block explorer; if you know what it was, {ADOPT}"
    UNSEEN = "unseen", FOLLOW
    OTHER_BLOCK = "other_block", FOLLOW
    NOT_ON_CHAIN = "not_on_chain", STOP
    CONFLICT = "conflict", STOP
    NONCE_AHEAD = "nonce_ahead", "`topup reconcile --adopt` accepts what is named here"
    NONCE_BEHIND = "nonce_behind", "ask another provider; see that chain.id and the wallet are those of this ledger"
    BALANCE = "balance", "find out who used the key, or the provider's state is wrong"
    PROVIDER = (
        "provider",
        f"no money is at stake on the chain; {ASK_SELLER}, and file the answer with the statement",
    )


# What --adopt settles; the rest is for `topup run` or for a person.
SETTLED = frozenset(
    {
        What.UNKNOWN_PAYMENT,
        What.UNKNOWN_APPROVAL,
        What.UNKNOWN_CARRIED,
        What.LOST_ATTEMPT,
        What.FOREIGN,
        What.UNEXPLAINED,
        What.NONCE_AHEAD,
    }
)


@dataclass(frozen=True)
class Difference:
    """One thing in which ledger and chain differ, in words."""

    what: What
    detail: str
    nonce: int | None = None
    tx_hash: bytes | None = None
    block_number: int | None = None
    topup_id: str | None = None


@dataclass(frozen=True)
class Known:
    """What the ledger holds of one wallet.

    `owners` names the top-up and charge of each proven intent; `below` is the nonce under which a person accepted
    everything; `adopted` are the transactions taken over before.
    """

    topups: Sequence[TopUp]
    owners: Mapping[tuple[bytes, bytes], tuple[str, int]]
    adopted: Sequence[Adopted]
    below: int
    next_nonce: int

    @property
    def attempts(self) -> list[tuple[TopUp, Attempt]]:
        """Return every transaction of the wallet itself that may have left, with its top-up."""
        return [(t, a) for t in self.topups for a in t.out if a.ours]

    def carried(self, rail: str) -> list[tuple[TopUp, Attempt]]:
        """Return every attempt by a rail that may have left for somebody else to put on the chain."""
        return [(t, a) for t in self.topups if t.rail == rail for a in t.out if not a.ours]

    @property
    def hashes(self) -> dict[bytes, tuple[TopUp, Attempt]]:
        """Return every transaction of the wallet itself that may have left, by its hash."""
        return {a.hash: (t, a) for t, a in self.attempts if a.hash is not None}

    @property
    def explained(self) -> set[int]:
        """Return the nonces whose transactions the ledger knows."""
        mined = {a.plan.nonce for _, a in self.attempts if a.inclusion is not None}
        return mined | {a.nonce for a in self.adopted}

    def topup(self, topup_id: str) -> TopUp:
        """Return one of the top-ups."""
        return next(t for t in self.topups if t.id == topup_id)


# Nonce, transaction hash and block of a difference, as far as they are known.
Position = tuple[int | None, bytes | None, int | None]
NOWHERE: Position = (None, None, None)


@dataclass
class Findings:
    """What the comparison found; all but `differences` is what --adopt takes over."""

    differences: list[Difference] = field(default_factory=list)
    unknown: list[WalletTransaction] = field(default_factory=list)
    lost: list[tuple[TopUp, int, WalletTransaction]] = field(default_factory=list)
    approvals: list[WalletTransaction] = field(default_factory=list)
    foreign: list[Adopted] = field(default_factory=list)
    carried: list[UnknownPayment] = field(default_factory=list)

    def tell(self, what: What, detail: str, position: Position, topup_id: str | None = None) -> None:
        """Add a difference."""
        self.differences.append(Difference(what, detail, *position, topup_id))


def named(
    attempts: Sequence[tuple[TopUp, Attempt]], transfers: Sequence[Transfer], *, by_id: bool
) -> list[tuple[bytes, Transfer]]:
    """Return each payment with the hash of the attempt that made it, or its own where none is known to.

    An attempt's hash is the authorization's nonce (`by_id`), or that of the transaction which was signed whole. What a
    sponsor has completed has a hash of his making: it is known once the payment was seen in a block. Before, a payment
    of just that amount to just that recipient is taken for it, for whoever looks next finds it by its memo.
    """
    own = {a.tx_hash: a.hash for _, a in attempts if a.hash is not None}
    open_ones = [a for _, a in attempts if a.plan.sponsored and a.inclusion is None]
    keyed = list[tuple[bytes, Transfer]]()
    for paid in transfers:
        key = paid.intent_id if by_id else own.get(paid.tx_hash, paid.tx_hash)
        alike = (a for a in open_ones if (a.plan.data[16:36], a.plan.tokens.units) == (paid.recipient, paid.spent))
        if not by_id and paid.tx_hash not in own and (made := next(alike, None)) is not None and made.hash is not None:
            open_ones.remove(made)
            key = made.hash
        keyed.append((key, paid))
    return keyed


def hold_against(
    attempts: Sequence[tuple[TopUp, Attempt]],
    shown: Mapping[bytes, Transfer],
    blocks: tuple[int, int],
    findings: Findings,
) -> None:
    """Compare attempts of the ledger with the payments between two blocks, both ways; these by the attempt's hash."""
    first, last = blocks
    for topup, attempt in attempts:
        transfer = shown.get(attempt.hash) if attempt.hash is not None else None
        booked = attempt.inclusion
        nonce = attempt.plan.nonce if attempt.ours else None
        position: Position = (nonce, transfer.tx_hash, transfer.block_number) if transfer is not None else NOWHERE
        if transfer is not None and (booked is None or not booked.success):
            detail = f"a payment of {topup.id} stands in block {transfer.block_number}, which the ledger has not seen"
            findings.tell(What.UNSEEN, detail, position, topup.id)
        elif transfer is not None and booked is not None and booked.block_number != transfer.block_number:
            detail = f"a payment of {topup.id} stands in block {transfer.block_number}, not in {booked.block_number}"
            findings.tell(What.OTHER_BLOCK, detail, position, topup.id)
        elif transfer is None and attempt.paid and booked is not None and first <= booked.block_number <= last:
            detail = (
                f"{topup.id} was paid in block {booked.block_number} by the ledger; no provider shows such a payment"
            )
            findings.tell(What.NOT_ON_CHAIN, detail, (nonce, attempt.tx_hash, booked.block_number), topup.id)


def sort(known: Known, done: WalletTransaction, findings: Findings) -> None:
    """Say what a transaction is that the ledger does not hold, and whether it can be taken over."""
    if done.plan.kind is Kind.APPROVE:
        detail = f"an approval: the payment contract may take {done.plan.tokens}, by a transaction without a payment"
        findings.tell(What.UNKNOWN_APPROVAL, detail, done.position)
        findings.approvals.append(done)
        return
    if not done.transfers:
        tokens = f" and {done.inclusion.tokens}" if done.inclusion.tokens.units else ""
        kind = "failed" if not done.inclusion.success else f"moved {done.plan.value}{tokens}"
        detail = f"a transaction to 0x{done.plan.to.hex()}, no payment, {kind}"
        findings.tell(What.FOREIGN, detail, done.position)
        findings.foreign.append(Adopted(*done.position, None, done.cost))
        return
    if done.intent is None or done.total is None or done.raw is None or done.transfers != 1:
        detail = f"a transaction with {done.transfers} payments of the wallet whose call data cannot be read"
        findings.tell(What.CONFLICT, detail, done.position)
        return
    owner = known.owners.get(done.intent)
    topup = known.topup(owner[0]) if owner is not None else None
    paid = f"{done.total}" + (f" for {done.inclusion.spent}" if done.plan.asset is Asset.ETH else "")
    if topup is None or owner is None:
        findings.tell(What.UNKNOWN_PAYMENT, f"a payment of {paid} that the ledger does not know", done.position)
        findings.unknown.append(done)
    elif topup.payment is not None:
        detail = f"a payment of {paid} for a charge of {topup.id}, which another transaction paid by the ledger"
        findings.tell(What.CONFLICT, detail, done.position, topup.id)
    elif topup.state in TERMINAL:
        detail = f"a payment of {paid} for a charge of {topup.id}, which ended as {topup.state}"
        findings.tell(What.UNKNOWN_PAYMENT, detail, done.position, topup.id)
        findings.unknown.append(done)
    else:
        detail = f"a payment of {paid} for the charge of {topup.id}, which is {topup.state}; its bytes are not stored"
        findings.tell(What.LOST_ATTEMPT, detail, done.position, topup.id)
        findings.lost.append((topup, owner[1], done))


def superseded(topup: TopUp | None, done: WalletTransaction) -> bool:
    """Tell whether an unsent top-up was overtaken by a payment it knows nothing of.

    The copy of the ledger is older than that payment, which was most likely its own: it must not go on to pay.
    """
    return topup is not None and topup.state in UNSENT and not topup.out and topup.decided_ms <= done.inclusion.block_ms


def topup_of(topup_id: str, account: str, rail: str, wallet: bytes, done: WalletTransaction) -> TopUp:
    """Return the ended top-up as which a payment is taken over, stamped with its block's time so that caps see it.

    What it bought is unknown: its amount is all that was paid in dollars, fees included, so that no cap counts less.
    """
    assert done.total is not None
    at_ms = done.inclusion.block_ms
    return TopUp(
        id=topup_id,
        account=account,
        rail=rail,
        chain_id=done.plan.chain_id,
        wallet=wallet,
        state=State.DONE,
        amount=done.total.usd,
        why=WHY,
        forced=False,
        decided_ms=at_ms,
        moved_ms=at_ms,
        charges=(ChargeRow(1, at_ms, None, None, proven=True),),
    )


def entry_of(topup_id: str, done: WalletTransaction) -> journal.Entry:
    """Book a payment that was taken over: what left as ever, its USDC to `equity:adopted`, balanced per commodity."""
    assert done.total is not None
    inclusion = done.inclusion
    if done.plan.asset is Asset.ETH:
        paid = journal.payment_lines(inclusion.spent, inclusion.gas, inclusion.l1_fee, done.total)
    else:
        paid = journal.token_lines(inclusion, journal.Commodity.USDC)
    lines = tuple(journal.Line(ADOPTED, x.commodity, x.units) if x.account == journal.IN_TRANSIT else x for x in paid)
    at_ms, block, text = inclusion.block_ms, inclusion.block_number, "payment adopted from the chain"
    return journal.Entry(at_ms, topup_id, text, done.hash, "", block, done.total.usd, "paid", lines)


def unknown_payment_entry(payment: UnknownPayment) -> journal.Entry:
    """Book a payment that a seller carried and that was taken over; a fee that the network took of it is not known."""
    transfer, token, paid = payment.transfer, payment.token, Usdc(payment.transfer.spent)
    lines = (journal.Line(journal.WALLET, token, -paid.units), journal.Line(ADOPTED, token, paid.units))
    block, text = transfer.block_number, "payment carried by a seller, adopted from the chain"
    return journal.Entry(payment.at_ms, "", text, transfer.tx_hash, "", block, paid.usd, "paid", lines)


def approval_entry(done: WalletTransaction) -> journal.Entry:
    """Book an approval that was taken over: the network's part in ETH, and nothing else."""
    inclusion, text = done.inclusion, "token approval adopted from the chain"
    lines = journal.token_lines(inclusion, journal.Commodity.USDC)
    return journal.Entry(inclusion.block_ms, "", text, done.hash, "", inclusion.block_number, None, "none", lines)


def expected_balance(known: Known, costs: Sequence[Wei], final: int) -> tuple[int, Wei] | None:
    """Return what the wallet should hold at block `final`, by its balance before the ledger's first payment.

    Before the balance stands the block that it was counted from; None where the ledger knows no balance, or not every
    cost. `costs` are what those transactions took that it does not know yet.
    """
    starts = [
        (t.attempts[0].plan.block_number, t.wallet_before)
        for t in known.topups
        if t.wallet_before is not None and t.attempts and t.attempts[0].ours
    ]
    if not starts:
        return None
    begun, held = min(starts, key=lambda s: s[0])
    for _, attempt in known.attempts:
        booked = attempt.inclusion
        if booked is not None and begun < booked.block_number <= final:
            held = held - (booked.spent + booked.gas + booked.l1_fee)
    for foreign in known.adopted:
        if foreign.topup_id is None and (foreign.block_number is None or foreign.block_number > begun):
            if foreign.cost is None:
                return None
            held = held - foreign.cost
    return begun, held - sum(costs, Wei(0))


def first_known_block(known: Known) -> int | None:
    """Return the first block a payment of this ledger was planned on, when it knows all nonces before; else None."""
    first = min(known.attempts, key=lambda pair: pair[1].plan.nonce, default=None)
    if first is None or first[1].plan.nonce > known.below:
        return None
    return max(0, first[1].plan.block_number)
