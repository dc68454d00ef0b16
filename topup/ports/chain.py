"""What does the flow need of a chain: what a payment is planned on, how it is sent, where it is seen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from topup.domain.money import Asset, Usdc, Wei

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.domain.coinbase_charge import Charge
    from topup.domain.demand import Verified
    from topup.domain.lifecycle import Attempt, Inclusion
    from topup.domain.nonpayment import ChargeStatus, More
    from topup.domain.policy import Permission


@dataclass(frozen=True)
class Head:
    """A block: its number, hash and timestamp in seconds."""

    number: int
    hash: bytes
    timestamp_s: int


@dataclass(frozen=True)
class Preflight:
    """What one batch of reads says before a payment is planned.

    `quotes` maps a fee tier to the exact ETH that buys the total there; a tier without a pool is absent.
    `price_e8` is the ETH/USD feed's answer, None when no feed is configured.
    """

    head: Head
    balance: Wei
    nonce_latest: int
    nonce_pending: int
    base_fee: Wei
    tip: Wei
    code_hash: bytes
    quotes: dict[int, Wei]
    price_e8: int | None
    # What the wallet holds of the token that is paid with, and how much of it the contract may take; None: not asked.
    tokens: Usdc | None = None
    allowance: Usdc | None = None
    # What the access key that signs may spend of these tokens; None where the wallet's own key signs.
    permission: Permission | None = None
    # What could not be told and is taken as it mostly is, in a sentence; "" = nothing.
    doubt: str = ""


@dataclass(frozen=True)
class Call:
    """A contract call from the wallet that has not been signed, and what it may do to the wallet's dollars.

    `tokens` is exactly what has to leave, `approves` what the payment contract may take afterwards; None: nothing.
    `then` is the payment that an approval is for: it is run dry as well, as if the approval stood.
    """

    sender: bytes
    to: bytes
    data: bytes
    value: Wei
    tokens: Usdc | None = None
    approves: Usdc | None = None
    then: Call | None = None


# What an approval's proof says where the payment that it is for could not be run dry.
UNTRIED: Final = ", its payment not tried"


@dataclass(frozen=True)
class Simulation:
    """What a dry run on a pinned block showed: gas estimate, L1 data fee bound, and the kind of proof there is.

    A proof that ends in `UNTRIED` is of an approval whose payment no provider could run dry.
    """

    gas: int
    l1_fee: Wei
    proof: str


class Delivery(StrEnum):
    """What is known after handing raw bytes to a provider, the most telling first. None says that it was not sent.

    Of several providers the first in this order counts: whoever holds the bytes; then what says something of the
    nonce; then what a dearer or later try may mend; then silence. That the bytes are refused is said only when every
    provider refuses them.
    """

    ACCEPTED = "accepted"
    KNOWN = "already_known"
    NONCE_USED = "nonce_used"  # this nonce is consumed, by one of ours or by someone else
    REPLACEMENT = (
        "replacement_underpriced"  # the node holds another transaction at this nonce, and wants more to drop it
    )
    UNDERPRICED = "underpriced"
    FUNDS = "insufficient_funds"
    FEECAP = "fee_above_cap"  # the node's own ceiling, another one may take it
    NONCE_HIGH = "nonce_high"  # the node is behind, or misses what came before
    FULL = "full"  # the node takes nothing now, or not from us
    UNCLEAR = "unclear"  # no usable answer
    REFUSED = "refused"  # the node calls the bytes invalid


@dataclass(frozen=True)
class Sent:
    """The providers' verdict on one broadcast."""

    delivery: Delivery
    detail: str
    # What the seller calls this purchase, where it said so.
    reference: str = ""


@dataclass(frozen=True)
class Holdings:
    """What a wallet holds at the final block `at`, in units of each asset; dollars per ETH (8 decimals) where known."""

    at: Head
    units: Mapping[Asset, int]
    price_e8: int | None


# What `Seen.wallet_check` says where nobody could hold the cost against the wallet's balance.
UNMEASURED: Final = "not verified: the node no longer has that state"


@dataclass(frozen=True)
class Seen:
    """What the chain shows of one transaction hash: included where, at what cost, and why it failed.

    `trusted` is False when it succeeded without exactly one Transferred event of ours: a person has to look.
    """

    inclusion: Inclusion
    reason: str
    wallet_check: str
    trusted: bool


@dataclass(frozen=True)
class Observation:
    """One look at the chain for a set of hashes: what was found, and how far blocks are safe and final.

    `replaced` holds hashes whose recorded block is no longer the one at its height. With several providers each
    part is what enough independent ones agree on.
    """

    head: Head
    safe: int | None
    finalized: int | None
    finalized_s: int | None
    nonce_latest: int
    seen: dict[bytes, Seen]
    replaced: frozenset[bytes]
    # Authorizations of which the chain says that they were used, whether or not it is seen by what.
    used: frozenset[bytes] = frozenset()
    # Hashes whose recorded inclusion cannot be: at a head past its block the wallet's nonce is not above the attempt's,
    # or the authorization's mark is not set.
    unspent: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Spent:
    """What independent providers show of one block: what stands there, whether it is final, and a wallet's next nonce.

    `nonce` is None where too few still know it; `final` is True only where enough call the block final.
    """

    block: Head
    final: bool
    nonce: int | None


@dataclass(frozen=True)
class Taken:
    """Since when a nonce of ours is used by nothing we know, and the block by whose end it was; None while unknown."""

    since_ms: int
    block_number: int | None
    block_hash: bytes


@dataclass(frozen=True)
class Piece:
    """How far the logs of what may have paid a charge were read, through the providers of one owner.

    Attributes:
        first, last: every block between them was read, both included.
        anchor: number and hash of a block at or above `last`, which stood in the chain that was read.
        carriers: the transactions that carry such a payment, each with its block.
        asked: how many questions that took.
        spent_ms: and how long.
    """

    first: int
    last: int
    anchor: tuple[int, bytes]
    carriers: tuple[tuple[bytes, int], ...] = ()
    asked: int = 0
    spent_ms: int = 0


class Pieces(Protocol):
    """Where pieces are kept, by chain, what was looked for, and whose provider it was."""

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None: ...
    def keep_piece(self, chain_id: int, subject: bytes, owner: str, piece: Piece, clock_ms: int) -> None: ...


class Chain(Protocol):
    """The chain, through however many providers; see `topup/chain/contract_chain.py`. It fails with `ChainError`."""

    @property
    def chain_id(self) -> int: ...
    @property
    def owners(self) -> int: ...
    async def preflight(
        self, wallet: bytes, total: Usdc, contract: bytes, *, pay_with: Asset = Asset.ETH
    ) -> Preflight: ...
    def payment(self, verified: Verified, tier: int, value: Wei, wallet: bytes) -> Call: ...
    def token_payment(self, verified: Verified) -> Call: ...
    def approval(self, wallet: bytes, contract: bytes, units: Usdc) -> Call: ...
    async def simulate(self, call: Call, demand: Charge, at: Head) -> Simulation: ...
    async def send(self, raw: bytes, tx_hash: bytes) -> Sent: ...
    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[Attempt, Charge]], *, every: bool = False
    ) -> Observation: ...
    async def payment_status(self, demand: Charge, since: int) -> ChargeStatus | More: ...
    async def spent(self, wallet: bytes, number: int) -> Spent: ...
    async def holdings(self, wallet: bytes) -> Holdings: ...
    async def flag(self, demand: Charge) -> bool: ...


@dataclass(frozen=True)
class AuthorizationUse:
    """What an authorization that somebody else carries to the chain leaves there when it is used.

    Attributes:
        key: the attempt's hash, under which it is reported.
        hash: the transaction's hash where that is known before it is sent, as when the whole transaction was signed.
        mark: contract and call data of a read whose word is zero until the authorization is used, and never again; None
            where the chain keeps none, as for what somebody else pays the fee of: then its log alone shows it.
        log: address and topics of the one log its use emits; a topic that is None may be anything.
        token: the token it moves, 20 bytes.
        sender, recipient: from whom and to whom, 20 bytes each.
        tokens: exactly how much.
        since: no use can stand in an earlier block.
        pays_fee: whether the network's fee falls on the wallet, in this token (Tempo).
        ends_s: from when on it cannot be used, in unix seconds; asked of what has no mark.
    """

    key: bytes
    hash: bytes | None
    mark: tuple[bytes, bytes] | None
    log: tuple[bytes, tuple[bytes | None, ...]]
    token: bytes
    sender: bytes
    recipient: bytes
    tokens: Usdc
    since: int
    pays_fee: bool
    ends_s: int = 0


class TokenChain(Protocol):
    """A chain to which somebody else carries payments; see `topup/chain/token_chain.py`. It fails with `ChainError`."""

    @property
    def chain_id(self) -> int: ...
    @property
    def owners(self) -> int: ...
    async def preflight(
        self, wallet: bytes, token: bytes, uses: Sequence[AuthorizationUse] = (), *, key: bytes | None = None
    ) -> Preflight: ...
    async def simulate(self, wallet: bytes, token: bytes, paying: tuple[bytes, Usdc], at: Head) -> None: ...
    async def look(
        self, uses: Sequence[tuple[AuthorizationUse, Inclusion | None]], *, every: bool = False
    ) -> Observation: ...
    async def payment_status(self, use: AuthorizationUse) -> ChargeStatus | More: ...
    async def holdings(self, wallet: bytes) -> Holdings: ...
