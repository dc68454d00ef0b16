"""How is what the daemon does told as a story, an event a line, and when is the story over?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from topup.domain import events
from topup.domain.credits import LASTING
from topup.domain.events import Event
from topup.domain.money import Asset, Usdc, Wei, plain

# What repeats so often is the result.
REPEATS: Final = 3
PATIENCE_AFTER_LATE_S: Final = 300


@dataclass
class Follower:
    """A sink that follows the run, tells it, and knows when it is over."""

    now_s: Callable[[], int]
    say: Callable[[str], None]
    first_reading: Callable[[], None]
    spend: Callable[[], None]
    rail: str = "coinbase"
    seen: list[Event] = field(default_factory=list)
    result: str | None = None
    dipped_s: int | None = None
    posted_s: int | None = None
    late_s: int | None = None
    lasting: bool = False
    refills: int = 1
    _in_a_row: dict[str, int] = field(default_factory=dict)

    def emit(self, event: Event) -> None:  # noqa: C901, PLR0912 - a table of events, read top to bottom
        """Take one event of the daemon."""
        self.seen.append(event)
        line = sentence(event, self.rail)
        if line:
            self.say(line)
        match event:
            case events.ReadingTaken():
                self._in_a_row.pop("unknown", None)
                self.first_reading()
            case events.ReadingUnknown():
                self.lasting = event.doubt in LASTING
            case events.CycleDone(outcome="unknown"):
                self._again("unknown")
            case events.CycleDone(state="charged") | events.ChargeUnanswered() | events.PaymentUnseen():
                self._again("waiting")
            case events.CycleFailed():
                self._again("failed")
            case events.TopUpForbidden():
                self._end("forbidden")
            case events.TopUpHalted():
                self._end("halted")
            case events.TopUpDropped():
                self._end("gone" if event.reason == "endpoint_gone" else "refused")
            case events.TopUpDecided():
                self.dipped_s = self.dipped_s or self.now_s()
            case events.PaidNotCredited():
                self.late_s = self.now_s()
            case events.CreditsPosted():
                self.posted_s = self.now_s()
            case events.TopUpDone() if self.refills > 1:
                self.refills -= 1
                self.spend()
            case events.TopUpDone():
                self._end("refilled")
        if self.late_s is not None and self.posted_s is None and self.now_s() - self.late_s > PATIENCE_AFTER_LATE_S:
            self._end("uncredited")

    @property
    def took_s(self) -> int | None:
        """Return how long it took from the decision to the credits; None where either did not come."""
        return None if self.posted_s is None or self.dipped_s is None else self.posted_s - self.dipped_s

    def _again(self, result: str) -> None:
        self._in_a_row[result] = self._in_a_row.get(result, 0) + 1
        if self._in_a_row[result] >= REPEATS:
            self._end(result)

    def _end(self, result: str) -> None:
        self.result = self.result or result


def sentence(event: Event, rail: str) -> str:
    """Return the event as a line of the story; "" when it would only repeat what the reader knows."""
    told = (TELL if rail == "coinbase" else TELL | BY_SELLER).get(type(event))
    if told is not None:
        return told(event)
    shown = ", ".join(f"{k}={v}" for k, v in event.shown().items() if k != "topup_id" and v not in (None, ""))
    return f"{event.level.upper()} {event.name()}: {shown}"


def _planned(event: events.PaymentPlanned) -> str:
    if event.asset != Asset.ETH:
        return f"sending {_tokens(event.units, event.asset)}, simulated on block {event.block}"
    pool = plain(Decimal(event.tier) / 10_000)
    return (
        f"quoted {event.quote_wei} ({pool} % pool), sending at most {event.value_wei}, simulated on block {event.block}"
    )


def _included(event: events.PaymentIncluded) -> str:
    eth = event.gas_wei + event.l1_fee_wei
    spent = str(event.spent_wei) if event.asset == Asset.ETH else _tokens(event.spent_units, event.asset)
    took = fees([_tokens(event.fee_units, event.asset)] if event.fee_units.units else [], eth)
    return f"paid in block {event.block}: {spent} and {took} (wallet check: {event.wallet_check})"


def _approved(event: events.TokenApproved) -> str:
    took = fees([], event.gas_wei + event.l1_fee_wei)
    return f"approved in block {event.block}: the contract may take {event.units}, nothing more; {took}"


def fees(tokens: list[str], eth: Wei) -> str:
    """Write what the network took, in whatever it took."""
    parts = tokens + ([str(eth)] if eth.units else [])
    return f"{' and '.join(parts) or 'no'} network fees"


def _tokens(amount: Usdc, asset: str) -> str:
    return f"{plain(amount.usdc)} {asset}"


TELL: Final[dict[type[Event], Callable[[Any], str]]] = {
    events.ReadingTaken: lambda e: f"credits {e.balance_usd.cents_down()} dollars",
    events.TopUpDecided: lambda e: f"{e.detail}: buying {e.amount_usd} dollars of credit",
    events.ChargeRequested: lambda e: f"requesting a charge over {e.amount_usd} dollars",
    events.ChargeProven: lambda e: (
        f"charge proven: {e.total_units} to 0x{e.recipient.hex()[:8]}…, signed by the pinned operator"
    ),
    events.PaymentPlanned: _planned,
    events.PaymentSigned: lambda e: f"signed and stored 0x{e.tx_hash.hex()[:16]}… with nonce {e.nonce}",
    events.PaymentSent: lambda e: f"sent: {e.answer}",
    events.TokenApproved: _approved,
    events.PaymentIncluded: _included,
    events.CreditsPosted: lambda e: f"credits posted {e.waited_s} s after the payment",
    events.TopUpDone: lambda e: (
        f"done: balance {e.balance_after_usd.cents_down()} dollars, in a safe block and the books"
    ),
    events.CycleDone: lambda _: "",
    events.Stopping: lambda _: "",
}
# Where the seller asks for a payment and carries it to the chain.
BY_SELLER: Final[dict[type[Event], Callable[[Any], str]]] = {
    events.ChargeRequested: lambda e: f"asking what {e.amount_usd} dollars of credit cost",
    events.ChargeProven: lambda e: (
        f"price proven: {plain(e.total_units.usdc)} dollars to 0x{e.recipient.hex()[:8]}…, the pinned recipient"
    ),
    events.PaymentSigned: lambda e: f"signed and stored 0x{e.tx_hash.hex()[:16]}…, which pays once or never",
    events.PaymentSent: lambda e: f"handed to the seller: {e.answer}",
}
