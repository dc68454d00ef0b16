"""What does the flow need of the ledger? Each method is one committed transaction or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final, Protocol

from topup.domain.money import Usd, Wei

if TYPE_CHECKING:  # what only reads the ledger need not wait for them to load
    from topup.accounting.closing import BalanceAssertion, Closed
    from topup.accounting.journal import Commodity, Entry
    from topup.accounting.usage import ApiKey, DayUsed, Used
    from topup.domain.credits import Reading, Unknown
    from topup.domain.demand import Verified
    from topup.domain.lifecycle import Attempt, Fact, Plan, TopUp
    from topup.domain.policy import Past
    from topup.ports.chain import Seen, Sent, Taken


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

    def at_same_nonce(self, topup: TopUp) -> list[Attempt]:
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

    def balance_assertions(self, account: str) -> list[BalanceAssertion]:
        """Return the newest checkpoint of each commodity."""

    def wallet_booked(self, account: str, commodity: Commodity, block: int) -> int:
        """Return what the journal says the wallet held after a block, whenever it was entered."""

    def close_wallet(self, account: str, at: BalanceAssertion, entries: Sequence[Entry], now_ms: int) -> None:
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
