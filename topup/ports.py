"""What does the flow need from the world? Api, Chain, Rail, Signer, Store, Clock and Sink, as Protocols.

Each port is spoken in the words of this program; what lies behind it (HTTP, JSON-RPC, a keystore, SQLite) is
known by one module at the edge. The store is synchronous on purpose: a transaction that cannot be suspended
cannot be interleaved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from topup.domain.money import Asset, Usd, Usdc, Wei

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.accounting.closing import Checkpoint, Closed
    from topup.accounting.journal import Commodity, Entry
    from topup.accounting.usage import Activity, ApiKey, DayUsed, Used
    from topup.domain.charge import Charge, Demand, Request, Verified
    from topup.domain.credits import Reading, Unknown
    from topup.domain.events import Event
    from topup.domain.lifecycle import Attempt, Broadcaster, Fact, Inclusion, Plan, TopUp
    from topup.domain.nonpayment import Fate, More
    from topup.domain.policy import Past, Permission


class Clock(Protocol):
    """Time, and waiting for it."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""

    def monotonic_ms(self) -> int:
        """Return milliseconds that only ever go forward, from an unspecified start."""

    async def sleep(self, seconds: float) -> None:
        """Wait; may return early only by cancellation."""


class Sink(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None:
        """Take one event; never raises."""


@dataclass(frozen=True)
class Key:
    """What GET /key says of the API key."""

    management: bool
    label: str


class Api(Protocol):
    """The prepaid account. Every failure is an `ApiError`."""

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""

    async def credits(self) -> Reading:
        """Read the account's two totals, stamped with the time the request was sent."""

    async def key(self) -> Key:
        """Ask what kind of key this is."""

    async def charge(self, request: Request) -> bytes:
        """Request a charge; return the answer's raw bytes. Two calls are two charges."""


class Usage(Protocol):
    """What the provider tells of usage, beyond the totals. Every failure is an `ApiError`."""

    async def activity(self, *, day: date | None = None, key_hash: str | None = None) -> list[Activity]:
        """Ask what was used on the UTC days that are over, newest 30; of one day or of one key where that is named."""

    async def keys(self, offset: int = 0) -> tuple[list[ApiKey], bool]:
        """Ask for a page of the account's keys, disabled ones included; tell whether there may be more behind it."""


@dataclass(frozen=True)
class Head:
    """A block: its number, hash and timestamp in seconds."""

    number: int
    hash: bytes
    timestamp_s: int


@dataclass(frozen=True)
class Survey:
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


class Claim(StrEnum):
    """What the seller says of a purchase that the chain shows paid."""

    SILENT = "silent"  # it says nothing: it was not asked, cannot be asked, or gave no usable answer
    PENDING = "pending"
    CREDITED = "credited"
    FAILED = "failed"


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
class Sighting:
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

    def piece(self, chain_id: int, subject: bytes, owner: str) -> Piece | None:
        """Return the piece that is kept."""

    def keep_piece(self, chain_id: int, subject: bytes, owner: str, piece: Piece, clock_ms: int) -> None:
        """Keep a piece in place of the one before it."""


class Chain(Protocol):
    """The chain, through however many providers. Every failure is a `ChainError`."""

    @property
    def chain_id(self) -> int:
        """Return which chain it is."""

    @property
    def owners(self) -> int:
        """Return how many independent providers are configured, whether or not they answer now."""

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""

    async def survey(self, wallet: bytes, total: Usdc, contract: bytes, *, pay_with: Asset = Asset.ETH) -> Survey:
        """Read all a payment is planned on, in one batch: quotes where ETH is paid with, else tokens and allowance."""

    def payment(self, verified: Verified, tier: int, value: Wei, wallet: bytes) -> Call:
        """Encode the payment of a verified charge."""

    def token_payment(self, verified: Verified) -> Call:
        """Encode the payment of a verified charge in its own token, of which the contract may take the total."""

    def approval(self, wallet: bytes, contract: bytes, units: Usdc) -> Call:
        """Encode that `contract` may take exactly so much of the token; none takes it back."""

    async def simulate(self, call: Call, demand: Charge, at: Head) -> Simulation:
        """Run the call on the block `at` without sending it, and hold its effects against the demand.

        Raises:
            Reverted: it would fail, with the contract's reason.
        """

    async def send(self, raw: bytes, tx_hash: bytes) -> Sent:
        """Hand signed bytes to the provider(s) once; never retried below this call, never raises."""

    async def look(self, wallet: bytes, attempts: Sequence[tuple[Attempt, Charge]], *, every: bool = False) -> Sighting:
        """Look for these attempts, each of its own charge, in canonical blocks.

        Absent from `seen` means "not seen", never "not paid". With `every`, all providers are asked and what is seen
        is what two that are independent show, whatever the quorum, where two are configured.
        """

    async def fate(self, demand: Charge, since: int) -> Fate | More:
        """Ask whether a charge was ever paid, at a final block and after it; logs are read from block `since` on.

        That may take more than one pass: `More` says how far it is.

        Raises:
            ChainUnknown: any error, null or disagreement: undecided, which is never "no".
        """

    async def spent(self, wallet: bytes, number: int) -> Spent:
        """Read how many transactions a wallet had sent by the end of block `number`; two show it where there are two.

        Raises:
            ChainUnknown: too few show the same block there.
        """

    async def holdings(self, wallet: bytes) -> Holdings:
        """Read what a wallet holds of ETH and the token at a final block, as every provider says."""

    async def flag(self, demand: Charge) -> bool:
        """Read the contract's own mark that this charge was paid, at the newest block.

        Raises:
            ChainUnknown: it could not be read.
        """


@dataclass(frozen=True)
class Trace:
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
    """A chain as the rails see it whose payments somebody else carries there. Every failure is a `ChainError`."""

    @property
    def chain_id(self) -> int:
        """Return which chain it is."""

    @property
    def owners(self) -> int:
        """Return how many independent providers are configured, whether or not they answer now."""

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""

    async def survey(
        self, wallet: bytes, token: bytes, traces: Sequence[Trace] = (), *, key: bytes | None = None
    ) -> Survey:
        """Read newest block, fees and the wallet's tokens; a `used` trace among these is refused.

        `key` is the access key that signs for the wallet: what it may spend is read, too.

        Raises:
            PaymentForbidden: one of these authorizations was used already.
        """

    async def rehearse(self, wallet: bytes, token: bytes, paying: tuple[bytes, Usdc], at: Head) -> None:
        """Run on the block `at` what an authorization will do: move so much of the token to this recipient.

        Raises:
            Reverted: it would fail, with the token's reason.
        """

    async def look(self, traces: Sequence[tuple[Trace, Inclusion | None]], *, every: bool = False) -> Sighting:
        """Look for the use of these authorizations in canonical blocks, each with where it was recorded before.

        `seen` is by `Trace.key`; `used` holds those whose mark is set, seen or not. Nothing is concluded from absence.
        """

    async def fate(self, trace: Trace) -> Fate | More:
        """Ask whether an authorization was ever used, at a final block and after it; see `Chain.fate`."""

    async def holdings(self, wallet: bytes) -> Holdings:
        """Read what a wallet holds of the chain's dollar at a final block, as every provider says."""


class Signer(Protocol):
    """The key's own door: it signs one kind of thing, and checks it itself."""

    address: bytes

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the planned payment of a verified charge.

        Returns:
            The raw transaction and its hash.

        Raises:
            SignerError: the plan does not pay exactly this charge, or exceeds the signer's own ceilings.
        """

    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes:
        """Sign that exactly the total may be moved to the recipient, once (EIP-3009); return r, s and v.

        Raises:
            SignerError: the plan does not pay exactly this, or exceeds the signer's own ceilings.
        """

    def sign_tempo(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign a Tempo transaction that pays exactly the total; return it raw, and its hash.

        Raises:
            SignerError: the plan does not pay exactly this, or exceeds the signer's own ceilings.
        """

    def sign_login(self, text: str) -> bytes:
        """Sign a message that logs this wallet in at a seller (EIP-4361); return r, s and v.

        Raises:
            SignerError: it is no login of this wallet.
        """

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign that the payment contract may take none of the token any more.

        Raises:
            SignerError: the plan is anything else, or exceeds the signer's own ceilings.
        """

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a transaction that moves nothing and takes a nonce: to the wallet itself, no value, no data.

        Raises:
            SignerError: the plan is anything else, or exceeds the signer's own ceilings.
        """


class Rail(Protocol):
    """One way from dollars to credits: how to ask, how to prove, how to plan, send and find a payment.

    Attributes:
        name: what the settings and the ledger call it.
        chain_id: the chain it pays on.
        broadcaster: who puts its payments on the chain. Where it is the seller, we sign an authorization that moves
            the money once or never and hand it over: it has no place among the wallet's own transactions, can be
            neither outbid nor cancelled, and dies at its deadline.
    """

    name: str
    broadcaster: Broadcaster

    @property
    def chain_id(self) -> int:
        """Return the chain it pays on."""

    @property
    def owners(self) -> int:
        """Return how many independent providers of it are configured, whether or not they answer now."""

    @property
    def requests(self) -> int:
        """Return how many requests went to the chain so far."""

    async def ask(self, request: Request) -> bytes:
        """Request something payable; return it raw."""

    def read(self, raw: bytes) -> Demand:
        """Decode what was stored, without judging it."""

    async def prove(
        self, raw: bytes, request: Request, *, seen: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Verified, Survey]:
        """Prove that it is what was asked for, by the chain's clock and ours; return what was surveyed beside it."""

    async def plan(
        self, verified: Verified, survey: Survey, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Price and simulate a payment of a verified charge; nothing is signed.

        `over` are attempts of ours from the wallet's next nonce on; this payment has to outbid those at its own.
        `bump` says that they are of the same charge, and that leaving them as they are is the alternative.
        """

    def cancel(self, topup: TopUp, over: Sequence[Attempt]) -> Plan:
        """Plan a transaction that takes the nonce of these attempts, all at one, and moves nothing.

        Raises:
            PaymentForbidden: this rail cannot cancel what is out.
        """

    async def revocation(self, topup: TopUp) -> Plan:
        """Plan a transaction after which the contract may take none of the token any more.

        Raises:
            PaymentForbidden: it cannot be sent now, or there is nothing to take back.
            ChainError: the chain could not be asked.
        """

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a planned revocation; return raw bytes and hash."""

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the plan; return raw bytes and hash."""

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        """Sign a planned cancel; return raw bytes and hash."""

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        """Put a stored attempt on its way, byte for byte."""

    async def look(self, wallet: bytes, attempts: Sequence[tuple[TopUp, Attempt]], *, every: bool = False) -> Sighting:
        """Look for evidence of these attempts, each given with its top-up; `every` as for `Chain.look`."""

    async def fate(self, topup: TopUp, charge_seq: int) -> Fate | More:
        """Ask whether a charge was ever paid, at a final block; see `Chain.fate`."""

    async def spent(self, wallet: bytes, number: int) -> Spent:
        """Read how many transactions the wallet had sent by the end of a block; see `Chain.spent`."""

    async def flag(self, topup: TopUp, charge_seq: int) -> bool:
        """Read the contract's mark that a charge was paid; see `Chain.flag`."""

    async def holdings(self, wallet: bytes) -> Holdings:
        """Read at a final block what a wallet holds of each asset that this rail may take.

        Raises:
            ChainError: it could not be learnt.
        """

    async def claim(self, topup: TopUp) -> Claim:
        """Ask the seller what became of a paid top-up; evidence beside the credits, never instead of them."""


# Under this name and the rail's own stands its tombstone.
GONE: Final = "gone:"


@dataclass(frozen=True)
class Control:
    """What people have told this ledger, and the tombstones of rails."""

    paused: bool
    # Rails whose endpoint said that it is gone.
    gone: frozenset[str] = frozenset()
    paused_by: str = ""
    # When buying was last resumed by hand; failures before that are forgiven.
    resumed_ms: int = 0


# Why a top-up is dropped of which nothing has left, because whoever asked for it does not wait for it any more.
WITHDRAWN: Final = "withdrawn"


@dataclass(frozen=True)
class Wish:
    """What one command asks for: an amount, or what is due; past the cool-down; under a name of its own; as whom."""

    amount: Usd | None
    forced: bool
    name: str | None
    uid: int


@dataclass(frozen=True)
class Requested:
    """A wish for a cycle, and what became of it.

    Attributes:
        name: what whoever asked calls it; None without a name.
        until_ms: when somebody may begin with it for the last time.
        taken: somebody carries it out, or did.
        withdrawn: nobody acts on it, until it is repeated.
        outcome, why: how it ended; None while nobody has said so.
        code: the exit code of that; None while its top-up decides it.
        told: the exit code that whoever asked was given last; None before the first.
    """

    number: int
    at_ms: int
    amount: Usd | None
    forced: bool
    name: str | None
    until_ms: int
    taken: bool
    withdrawn: bool
    topup_id: str | None
    outcome: str | None
    why: str
    code: int | None
    told: int | None


@dataclass(frozen=True)
class Told:
    """What became of a wish; `code` is None while `topup` decides it."""

    outcome: str
    why: str
    code: int | None
    topup: str | None = None


class Store(Protocol):
    """The ledger: the truth about intent. Each method is one committed transaction, or none of it."""

    def now_ms(self, clock_ms: int) -> int:
        """Return ledger time, which never runs backwards."""

    def record_reading(self, account: str, reading: Reading | Unknown) -> None:
        """Keep what the account showed."""

    def readings(self, account: str, since_ms: int) -> list[Reading]:
        """Return believed readings since then, oldest first."""

    def last_reading(self, account: str) -> Reading | None:
        """Return the newest believed reading."""

    def doubted(self, account: str, since_ms: int) -> list[Unknown]:
        """Return readings that were not believed since then, oldest first."""

    def told(self, account: str, name: str) -> str | None:
        """Return what a person last said under `name`."""

    def told_at(self, account: str, name: str) -> int:
        """Return when that was said, 0 when it never was."""

    def say(self, account: str, name: str, value: str, at_ms: int, by: str) -> None:
        """Store what is wanted of this ledger."""

    def ever_non_zero(self, account: str) -> bool:
        """Tell whether any reading, believed or not, showed something other than 0/0."""

    def thin_readings(self, account: str, now_ms: int) -> bool:
        """Make old readings sparser, a bounded step of it; tell whether more are waiting."""

    def open_topup(self, account: str) -> TopUp | None:
        """Return the one top-up of this account that is not finished."""

    def topup(self, topup_id: str) -> TopUp:
        """Return one top-up with its charges and attempts."""

    def past(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return earlier top-ups as the policy sees them, oldest first."""

    def paid(self, account: str, since_ms: int, fee_bps: int) -> list[Past]:
        """Return payments in blocks since then, each at the time of its block; oldest first."""

    def charge_requests(self, account: str, since_ms: int) -> list[int]:
        """Return the times charges were requested."""

    def seen_intents(self, topup_id: str) -> list[tuple[bytes, bytes]]:
        """Return (operator, id) of every charge proven for another top-up or an earlier request."""

    def next_id(self) -> str:
        """Return the id of the top-up that begins next, the same from the same ledger."""

    def begin(self, topup: TopUp) -> TopUp:
        """Store a new decision; refuses a second open one for the account."""

    def ask(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store that a charge is about to be requested."""

    def answered(self, topup: TopUp, raw: bytes, at_ms: int) -> TopUp:
        """Store the raw answer."""

    def proven(self, topup: TopUp, verified: Verified) -> TopUp:
        """Store whose id this charge carries; an id belongs to one charge for ever."""

    def reserve(self, topup: TopUp, plan: Plan, baseline: Reading, wallet: Wei, at_ms: int) -> TopUp:
        """Store the unsigned payment and take its nonce; refuses a second nonce in flight for the wallet."""

    def signed(self, topup: TopUp, raw: bytes, tx_hash: bytes, at_ms: int) -> TopUp:
        """Store the signed payment, provably not sent."""

    def intend(self, topup: TopUp, at_ms: int) -> TopUp:
        """Store the intent to send."""

    def replace(self, topup: TopUp, fact: Fact, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> TopUp:
        """Store a signed bump or cancel (raw bytes and hash) at a nonce of ours, with the intent to send it."""

    def approver(self, account: str) -> TopUp | None:
        """Return the newest top-up that has let a contract take a token, as far as the chain has shown."""

    def append(self, topup: TopUp, plan: Plan, signed: tuple[bytes, bytes], at_ms: int) -> TopUp:
        """Store a signed transaction of an ended top-up with the intent to send it; its nonce may be overtaken."""

    def withdraw(self, topup: TopUp, reason: str, at_ms: int) -> TopUp:
        """Give a nonce back that was never sent."""

    def delivered(self, topup: TopUp, attempt: Attempt, sent: Sent, at_ms: int) -> TopUp:
        """Store what a broadcast was answered."""

    def included(self, topup: TopUp, attempt: Attempt, seen: Seen, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that an attempt stands in a canonical block; `fact` is the arrow this takes, None to stay."""

    def vanished(self, topup: TopUp, attempt: Attempt, fact: Fact | None, at_ms: int) -> TopUp:
        """Store that the block of an attempt is no longer canonical; `fact` as for `included`."""

    def afterwards(self, account: str, wallet: bytes) -> list[tuple[TopUp, Attempt]]:
        """Return attempts of ended top-ups of this wallet for which the chain may still change something."""

    def taken(self, topup_id: str) -> dict[int, Taken]:
        """Return which nonces of a top-up something unknown has used, by the oldest attempt there."""

    def keep_taken(self, topup: TopUp, attempt: Attempt, one: Taken, at_ms: int) -> None:
        """Store since when a nonce is used by something unknown, and by the end of which block."""

    def forget_taken(self, topup: TopUp, attempts: Sequence[int], at_ms: int) -> None:
        """Store that the nonces of these attempts are explained, or free again."""

    def adopted_places(self, topup: TopUp) -> frozenset[tuple[int, int]]:
        """Return the places of this top-up's own transactions at which a person took over one that paid nothing."""

    def settled_from(self, topup: TopUp, nonce: int) -> list[tuple[TopUp, Attempt]]:
        """Return what ended top-ups on the same way have in final blocks at this nonce or a later one."""

    def rivals(self, topup: TopUp) -> list[Attempt]:
        """Return what other top-ups have sent at any nonce of this one, settled or not."""

    def final(self, attempt: Attempt, at_ms: int) -> None:
        """Store that a final block holds this attempt: nothing can change for any attempt at its nonce any more."""

    def over(self, attempt: Attempt, at_ms: int) -> None:
        """Store that this attempt was in no block long after it had ended, and is looked for no more."""

    def undone(
        self,
        topup: TopUp,
        attempt: Attempt,
        reversal: Entry,
        halt: str | None,
        at_ms: int,
        *,
        fact: Fact | None = None,
    ) -> TopUp:
        """Store that an inclusion in the books does not stand, and take back what was booked.

        `halt` is the reason to halt; without one `fact` is the arrow this takes, as for `included`.
        """

    def endpoint_gone(self, topup: TopUp, reason: str, at_ms: int) -> TopUp:
        """Put up the tombstone of the top-up's rail and drop the top-up that met it."""

    def next_nonce(self, chain_id: int, wallet: bytes) -> int:
        """Return the first nonce this ledger has neither used nor adopted."""

    def adopt_nonce(self, chain_id: int, wallet: bytes, nonce: int, at_ms: int) -> None:
        """Store that a person accepts all transactions below `nonce` as none of ours."""

    def said_within(self, account: str, name: str, now_ms: int, span_ms: int) -> bool:
        """Tell whether a person said `name` within the last `span_ms`."""

    def rebase(self, topup: TopUp, baseline: Usd) -> TopUp:
        """Store a moved baseline: credits bought elsewhere before our block."""

    def move(self, topup: TopUp, fact: Fact, at_ms: int, reason: str = "") -> TopUp:
        """Move a top-up along the table with nothing else to store."""

    def settle(self, topup: TopUp, attempt: Attempt, entry: Entry, at_ms: int) -> TopUp:
        """Book an attempt whose block is safe; once."""

    def finish(self, topup: TopUp, entry: Entry, at_ms: int) -> TopUp:
        """Book the posting and end the top-up."""

    def booked(self, topup_id: str, attempt: Attempt) -> Entry:
        """Return what was booked last of an attempt that stands in the books."""

    def head(self) -> str | None:
        """Return the newest hash of the journal, in hex; None while it is empty."""

    def closed(self, account: str) -> Closed | None:
        """Return up to where the books are closed, None before the first time."""

    def posted(self, account: str, until_ms: int) -> int:
        """Return the credits that top-ups have brought up to a moment, in 10^-6 dollars."""

    def busy(self, account: str, since_ms: int) -> list[tuple[int, int]]:
        """Return from when to when a top-up was on its way, for those that ended since a moment."""

    def close_books(self, account: str, at: Closed, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a closing with the entries that bring the books there, or none of it."""

    def checkpoints(self, account: str) -> list[Checkpoint]:
        """Return the newest checkpoint of each commodity."""

    def wallet_booked(self, account: str, commodity: Commodity, block: int) -> int:
        """Return what the journal says the wallet held after a block, whenever it was entered."""

    def close_wallet(self, account: str, at: Checkpoint, entries: Sequence[Entry], now_ms: int) -> None:
        """Store a checkpoint with the entry that brings the books there, or none of it."""

    def usage_known(self, account: str, first: date, last: date) -> list[date]:
        """Return the UTC days whose usage is stored whole, within first and last, both included."""

    def keys_used(self, account: str) -> dict[str, tuple[str, int]]:
        """Return of each key, by its hash, name and what it had used (nano) before the day it was asked for last."""

    def keep_key_used(self, account: str, key: ApiKey, days: Mapping[date, Used], now_ms: int) -> None:
        """Store what a key has used on days that are not whole yet."""

    def keys_used_on(self, account: str, day: date) -> list[Used]:
        """Return what each key, by its hash, has used on a day that is not whole yet, as far as it was asked for."""

    def keep_usage(self, account: str, told: DayUsed, now_ms: int) -> None:
        """Store a whole day; one that is stored already stands."""

    def forget_keys_gone(self, account: str, listed: Collection[str], now_ms: int) -> None:
        """Forget the keys, by their hashes, that are not listed any more and have used nothing that is stored."""

    def forget_keys_used(self, account: str, now_ms: int) -> None:
        """Forget how far the keys were asked for, so that each is asked for again."""

    def set_gone(self, account: str, rail: str, *, gone: bool, at_ms: int) -> None:
        """Put up or take down the tombstone of a rail."""

    def next_request(self, account: str) -> Requested | None:
        """Return the oldest request nobody has answered."""

    def requested(self, number: int) -> Requested:
        """Return one wish as it stands."""

    def take_request(self, number: int, at_ms: int) -> bool:
        """Store that a wish is being carried out; False where it was withdrawn or answered before."""

    def answer_request(self, number: int, told: Told, at_ms: int) -> None:
        """Store what became of a wish."""

    def bought(self, number: int) -> TopUp | None:
        """Return the newest top-up that was decided for a wish; one that was withdrawn unsent is none."""

    def let_go(self, number: int, told: Told, at_ms: int) -> TopUp | None:
        """End a wish of which nothing is out, as its one writer."""

    def control(self, account: str) -> Control:
        """Return what people have told this ledger."""
