"""How does an account stand at one moment, for everything that shows it to people and programs?"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Final

from topup.accounting.journal import Commodity
from topup.domain.credits import HOUR_MS, NOTHING, Reading, Runway
from topup.domain.lifecycle import State, TopUp
from topup.domain.messages import MessageKind
from topup.domain.money import Usd, plain
from topup.domain.notes import Note
from topup.domain.policy import Why

MILLIONTH: Final = Decimal("0.000001")
# What `Standing.funded` means, for people.
FUNDED: Final = {
    "yes": "FUNDED",
    "low": "LOW, below its floor",
    "no": "EMPTY, and requests are refused",
    "unknown": "nothing is known of its credits",
}
# What has to happen next, for as long as a top-up stays in a state; those that are over wait for nothing.
WAITS: Final[dict[State, str]] = {
    State.DECIDED: "for a pass that asks the seller",
    State.ASKING: "for the seller's answer; an unpaid charge is harmless",
    State.CHARGED: "until it can be planned and paid: see `reason`, and the daemon's log",
    State.RESERVED: "to be signed; nothing has left",
    State.SIGNED: "to be sent; nothing has left",
    State.SENT: "for a block that holds the payment, or for proof that none ever will",
    State.REVERTED: "for another try of the same charge, or for its end",
    State.DEATHWATCH: "for proof that its charge can never be paid",
    State.PAID: "for the provider to post the credits",
    State.CREDITED: "for the payment's block to be final",
    State.UNCREDITED: "for the credits, late as they are, or for a person: `topup show` has what support needs",
    State.HALTED: "for a person: see `topup show` and docs/runbook.md",
}
# Every code that a trouble may have.
TROUBLES: Final = (
    State.HALTED.value,
    State.UNCREDITED.value,
    "not_running",
    "never_read",
    "reading_old",
    Why.PAUSED.value,
    "rail_closed",
    Why.ENDPOINT_GONE.value,
    Why.RAIL_CHANGED.value,
    Why.OBSERVE_ONLY.value,
    Note.UNPLANNED.value,
    Note.UNSEEN.value,
    "target_dead",
)


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong: a stable word, a sentence, and what to do."""

    code: str
    detail: str
    remedy: str

    def __post_init__(self) -> None:
        assert self.code in TROUBLES

    def document(self) -> dict[str, str]:
        """Return it as a JSON-ready document."""
        return vars(self)


@dataclass(frozen=True)
class Daemon:
    """The process that serves an account.

    Attributes:
        pid: its process; None where it cannot be seen from here.
        since_ms: since when it serves the account, in ledger time; None where that is not known.
    """

    pid: int | None
    since_ms: int | None


@dataclass(frozen=True)
class Spent:
    """What a window of time has cost.

    Attributes:
        counted: dollars that count against the cap, unfinished top-ups at their most.
        cap: the most that may be counted.
        left_wallet: what top-ups have taken out of the wallet, fees included, in units of each commodity.
    """

    counted: Usd
    cap: Usd
    left_wallet: Mapping[Commodity, int]


@dataclass(frozen=True)
class Standing:
    """How an account stands at a moment, by its ledger alone.

    Attributes:
        now_ms: the moment.
        mode: "live" or "observe".
        rails: the ways to buy, the preferred one first; `gone` are those that their sellers have closed.
        last: the last reading that was believed; None when there was none.
        floor: below which the account is refilled.
        burn: dollars an hour of late; None when that is unknown.
        day, month: what the last 24 hours and 30 days have cost.
        unfinished: the open top-up.
        latest: the newest top-ups, newest first.
        daemon: who serves the account; None where nobody does.
        troubles: what is wrong, the worst first.
    """

    account: str
    now_ms: int
    mode: str
    rails: tuple[str, ...]
    gone: tuple[str, ...]
    paused: bool
    last: Reading | None
    floor: Usd
    burn: Usd | None
    runway: Runway
    day: Spent
    month: Spent
    unfinished: TopUp | None
    latest: tuple[TopUp, ...]
    daemon: Daemon | None
    troubles: tuple[Trouble, ...]

    @property
    def funded(self) -> str:
        """Return a word of `FUNDED`."""
        if self.last is None:
            return "unknown"
        return "yes" if self.last.balance >= self.floor else "low" if self.last.balance > NOTHING else "no"

    @property
    def empty_ms(self) -> int | None:
        """Return when nothing will be left if nothing is bought; None when that is unknown, or never."""
        return self._after(self.runway.to_empty_h)

    @property
    def floor_ms(self) -> int | None:
        """Return when the floor will be reached; None when that is unknown, or never."""
        return self._after(self.runway.to_floor_h)

    def _after(self, hours: Decimal | None) -> int | None:
        return None if self.last is None or hours is None else self.last.at_ms + int(hours * HOUR_MS)


@dataclass(frozen=True)
class Deliveries:
    """What became of the messages to one target.

    Attributes:
        waiting: how many it has still to be told.
        aside: how many of the last month will not be delivered.
        aside_ms: when the newest of these was set aside; None where there is none.
    """

    waiting: int
    aside: int
    aside_ms: int | None


class Turnover:
    """What ever came to the accounts of the books that top-ups move, and what went, up to an entry of the journal.

    No entry is ever changed, so that only those are looked at again which are new.
    """

    def __init__(self) -> None:
        self.entry = 0
        self._came = Counter[tuple[str, Commodity]]()
        self._went = Counter[tuple[str, Commodity]]()

    def add(self, movements: Iterable[tuple[int, str, Commodity, int]]) -> None:
        """Go on by entries that are new, each with how many units of a commodity came to an account."""
        for entry, book, commodity, units in movements:
            self.entry = entry
            (self._came if units > 0 else self._went)[book, commodity] += abs(units)

    def came(self, book: str) -> dict[Commodity, int]:
        """Return the units of each commodity that came to an account."""
        return {commodity: units for (name, commodity), units in self._came.items() if name == book}

    def went(self, book: str) -> dict[Commodity, int]:
        """Return the units of each commodity that went from an account."""
        return {commodity: units for (name, commodity), units in self._went.items() if name == book}


@dataclass(frozen=True)
class Totals:
    """What an account's ledger has counted since it began, and what of it people are told.

    Attributes:
        ended: how many top-ups have come to each end.
        credited: the credits that top-ups have brought, in 10^-6 dollars.
        left: what top-ups have taken out of the wallet, fees included, in units of each commodity.
        returned: what of that was booked back, because a block that held it was replaced.
        alarms: those that hold.
        messages: by the name of each target.
    """

    ended: Mapping[State, int]
    credited: int
    left: Mapping[Commodity, int]
    returned: Mapping[Commodity, int]
    alarms: frozenset[MessageKind]
    messages: Mapping[str, Deliveries]


@dataclass(frozen=True)
class Passes:
    """How the passes of this process ended so far.

    Attributes:
        ended: how many have ended.
        failed: how many of them by an error.
        failing: whether the last one did.
        well_ms: when the last one ended that did not, in unix milliseconds; None before the first.
        due_ms: when the next one is due, in unix milliseconds; None before the first has ended.
    """

    ended: int = 0
    failed: int = 0
    failing: bool = False
    well_ms: int | None = None
    due_ms: int | None = None


def listed(amounts: Mapping[str, str]) -> str:
    """Write amounts by commodity as people read them: rounded up to a millionth, since they have left."""
    read = {name: Decimal(amount).quantize(MILLIONTH, ROUND_UP) for name, amount in amounts.items()}
    return " and ".join(f"{plain(amount)} {name}" for name, amount in read.items()) or "nothing"
