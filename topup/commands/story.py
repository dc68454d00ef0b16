"""How is what is done told as a story, an event a line, to whoever waits for it at a terminal?"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from topup.domain import events
from topup.domain.events import Event
from topup.domain.money import Asset, Usdc, Wei, plain


class Story:
    """A sink that tells what is done and what goes wrong; what only a log has use for is left out."""

    def __init__(
        self, say: Callable[[str], None], hide: Callable[[str], str], now_ms: Callable[[], int], rail: str
    ) -> None:
        """`say` takes the lines, `hide` masks our secrets in them, `rail` is the way to pay."""
        self._say, self._hide, self._now_ms, self._rail = say, hide, now_ms, rail
        self._began_ms = now_ms()

    def emit(self, event: Event) -> None:
        """Tell one event."""
        if type(event) in TELL or event.loud() in LOUD:
            line = sentence(event, self._rail)
            if line:
                self._say(f"{(self._now_ms() - self._began_ms) // 1000:>5} s  {self._hide(line)}")


def sentence(event: Event, rail: str) -> str:
    """Return the event as a line of the story; "" when it would only repeat what the reader knows."""
    told = (TELL if rail == "coinbase" else TELL | BY_SELLER).get(type(event))
    if told is not None:
        return told(event)
    shown = ", ".join(f"{k}={v}" for k, v in event.shown().items() if k != "topup_id" and v not in (None, ""))
    return f"{event.loud().upper()} {event.name()}: {shown}"


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


LOUD: Final = ("warning", "error", "critical")
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
