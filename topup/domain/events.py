"""What can the program say? Every event: its name, its level, its fields, whether money moved, and what to do.

One frozen dataclass an event; the name in the log is the class name in snake_case. The first line of the
docstring says what happened, `todo` what a person does about it ("" for nothing). `docs/events.md` is generated
from here and a golden test pins names and fields, so that an alert written today still fires next year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from typing import ClassVar, Literal

from topup.domain.errors import Money
from topup.domain.money import Bps, Usd, Usdc, Wei, plain

Level = Literal["debug", "info", "warning", "error", "critical"]
Shown = str | int | bool | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Anything the program can say."""

    level: ClassVar[Level] = "info"
    money: ClassVar[Money] = Money.NO
    todo: ClassVar[str] = ""

    @classmethod
    def name(cls) -> str:
        """Return the event's name as it stands in the log."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def moved(self) -> Money:
        """Return whether money may have moved, where this very event knows more than its class."""
        return self.money

    def shown(self) -> dict[str, Shown]:
        """Return the fields as they stand in the log: amounts as strings in the unit their name ends in."""
        return {f.name: show(getattr(self, f.name)) for f in fields(self)}


def show(value: object) -> Shown:
    """Render one value for a log line or a JSON document; amounts and byte strings become text."""
    match value:
        case Enum():
            return str(value.value)
        case None | bool() | int() | str():
            return value
        case Wei(units=units) | Usdc(units=units):
            return str(units)
        case Usd():
            return str(value)
        case Bps(bps=bps):
            return bps
        case Decimal():
            return plain(value)
        case bytes():
            return "0x" + value.hex()
        case _:
            raise TypeError(f"{type(value).__name__} has no place in an event")


# -- the program ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The program is up, and these are the terms it works on."""

    version: str
    mode: str
    account: str
    chain_id: int
    wallet: str | None
    api_host: str
    rpc_hosts: str
    floor_usd: Usd
    cap_24h_usd: Usd
    ledger: str


@dataclass(frozen=True, kw_only=True)
class Stopping(Event):
    """The program was asked to stop; what is open is stored and goes on at the next start."""

    signal: str
    open_topup: str | None


@dataclass(frozen=True, kw_only=True)
class HangUpIgnored(Event):
    """A SIGHUP came; the daemon goes on, and reads no settings anew: restart it for that."""


@dataclass(frozen=True, kw_only=True)
class LogLinesLost(Event):
    """Whoever reads the log had stopped, and lines were lost here; everything else went on."""

    level = "warning"
    lines: int


@dataclass(frozen=True, kw_only=True)
class CycleDone(Event):
    """One pass is over: the one line to read when only one is read."""

    cycle: int
    outcome: str
    why: str
    detail: str
    total_credits_usd: Usd | None
    balance_usd: Usd | None
    burn_usd_per_hour: Usd | None
    hours_to_floor: Decimal | None
    hours_to_empty: Decimal | None
    topup_id: str | None
    state: str | None
    ledger_head: str | None
    next_s: int
    api_requests: int
    rpc_requests: int


@dataclass(frozen=True, kw_only=True)
class CycleFailed(Event):
    """A pass ended early on an error; the next one goes on from what is stored."""

    level: ClassVar[Level] = "error"
    todo: ClassVar[str] = "read `error` and `remedy`; when it repeats, run `topup doctor`"
    cycle: int
    kind: str
    error: str
    remedy: str
    topup_id: str | None
    state: str | None


@dataclass(frozen=True, kw_only=True)
class ClockBehind(Event):
    """The machine's clock is behind the ledger's newest time; ledger time goes on from there by itself."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "check the machine's time synchronisation"
    behind_s: int


@dataclass(frozen=True, kw_only=True)
class TimeNotLived(Event):
    """Some time was not lived through: the machine slept, or it or its ledger was put back; it waits as at a start."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "nothing when the machine slept or its clock was set; else find out who put it back"
    clock: str
    leapt_s: int


@dataclass(frozen=True, kw_only=True)
class RawKeyInUse(Event):
    """The wallet's key is given raw instead of as a keystore: whoever reads its file or the environment has it."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "put the key into a keystore v3 file: wallet.keystore and wallet.keystore_password_file"
    setting: str


# -- the providers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ProviderSetAside(Event):
    """A provider is of another chain, behind the others, or fails again and again; it is asked again after a pause."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "nothing when it comes back; correct chain.rpc_urls when it is wrong_chain or stays away"
    provider: str
    why: str
    detail: str
    pause_s: int


@dataclass(frozen=True, kw_only=True)
class ProviderBack(Event):
    """A provider that was set aside gives good answers again."""

    provider: str
    out_s: int


@dataclass(frozen=True, kw_only=True)
class ProvidersDisagree(Event):
    """Independent providers show different things; nothing is signed on what too few of them say."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "nothing when it passes, as after a new block; when it stays, find out which one is wrong"
    about: str
    detail: str


# -- watching ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReadingTaken(Event):
    """The account was read and the numbers can be believed."""

    level: ClassVar[Level] = "debug"
    total_credits_usd: Usd
    total_usage_usd: Usd
    balance_usd: Usd


@dataclass(frozen=True, kw_only=True)
class ReadingUnknown(Event):
    """The account could not be read, or what it said cannot be believed; nothing is bought on it."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "nothing when it passes; see `doubt` in docs/runbook.md when it stays"
    doubt: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class UnknownTooLong(Event):
    """No believable reading for longer than `watch.unknown_alert_s`: the account may run dry unseen."""

    level: ClassVar[Level] = "critical"
    todo: ClassVar[str] = "look at the account by hand; run `topup doctor`"
    unknown_s: int
    doubt: str


@dataclass(frozen=True, kw_only=True)
class CreditsRose(Event):
    """total_credits rose by something no top-up of ours explains: credits bought elsewhere."""

    by_usd: Usd
    total_credits_usd: Usd


@dataclass(frozen=True, kw_only=True)
class UsageUnknown(Event):
    """The provider does not say what was used by model and key, or contradicts itself; the books need only totals."""

    detail: str


@dataclass(frozen=True, kw_only=True)
class WalletUnchecked(Event):
    """The wallet's books could not be held against the chain for hours: what others moved is not booked meanwhile.

    `last_h` is how long ago it was done last, null when it never was.
    """

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "read `detail`; `topup doctor` says which provider has forgotten the state of final blocks"
    chain_id: int
    last_h: int | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class KeyUnfit(Event):
    """GET /key says that the API key is no management key: /credits shows zeros to it."""

    level: ClassVar[Level] = "error"
    todo: ClassVar[str] = "create a management key and put it into api.key"
    detail: str


# -- deciding ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TopUpForbidden(Event):
    """Credits are needed and a rule forbids buying them."""

    level: ClassVar[Level] = "error"
    todo: ClassVar[str] = "`remedy` says it; the account runs dry when nobody does"
    why: str
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class TopUpDecided(Event):
    """A top-up was decided and stored."""

    topup_id: str
    amount_usd: Usd
    why: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class PauseChanged(Event):
    """Buying was paused or resumed by hand."""

    level: ClassVar[Level] = "warning"
    paused: bool
    by: str


# -- the charge -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChargeRequested(Event):
    """A charge is being requested; an unpaid charge is harmless."""

    topup_id: str
    seq: int
    amount_usd: Usd


@dataclass(frozen=True, kw_only=True)
class ChargeUnanswered(Event):
    """The request for a charge got no usable answer; that charge, if it exists, is abandoned unpaid."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    seq: int
    error: str


@dataclass(frozen=True, kw_only=True)
class EndpointGone(Event):
    """A rail's endpoint is gone (410, 404 or 501): it no longer sells credits this way. Said once for each rail."""

    level: ClassVar[Level] = "critical"
    todo: ClassVar[str] = "top up by hand, or point api.url at a gateway that serves it, then `topup resume`"
    topup_id: str
    rail: str
    error: str


@dataclass(frozen=True, kw_only=True)
class ChargeRefused(Event):
    """A charge is not what was asked for and will not be paid."""

    level: ClassVar[Level] = "critical"
    todo: ClassVar[str] = (
        "do not pay it by hand; `remedy` names the setting that decides it, `topup doctor --rail` shows every line;"
        " where recipient, amount or signature are wrong, find out who answers in the seller's place"
    )
    topup_id: str
    seq: int
    field: str
    was: str
    should_be: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class ChargeProven(Event):
    """The charge is exactly what was asked for: sender, recipient, amount, contract, chain, deadline, signature."""

    topup_id: str
    seq: int
    charge_id: str
    intent_id: bytes
    total_units: Usdc
    fee_units: Usdc
    recipient: bytes
    deadline_s: int


# -- the payment ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PaymentPlanned(Event):
    """The payment was quoted, held against the price feed, and simulated on a pinned block."""

    topup_id: str
    tier: int
    quote_wei: Wei
    value_wei: Wei
    asset: str
    units: Usdc
    deviation_bps: Bps | None
    gas_limit: int
    max_fee_per_gas_wei: Wei
    l1_fee_wei: Wei
    block: int
    proof: str
    # What could not be told and was taken as it mostly is; "" = nothing.
    doubt: str = ""


@dataclass(frozen=True, kw_only=True)
class PaymentForbidden(Event):
    """The payment is not permitted now; nothing was signed. The same charge is tried again until it is too old."""

    level: ClassVar[Level] = "error"
    todo: ClassVar[str] = "`remedy` says it"
    topup_id: str
    why: str
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class TopUpStalled(Event):
    """A top-up does not get on: no payment can be planned, or what is `out` cannot be looked at; it is tried on."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing when it passes; else `remedy` says it; never pay by hand beside what is `out`"
    topup_id: str
    state: str
    out: bool
    why: str
    detail: str
    remedy: str
    lasting_s: int

    def moved(self) -> Money:
        """Return that none has where nothing of it is out."""
        return Money.MAYBE if self.out else Money.NO


@dataclass(frozen=True, kw_only=True)
class TopUpStuck(TopUpStalled):
    """A top-up has not got on for longer than `watch.unknown_alert_s`: the account may run dry. Said every hour."""

    level: ClassVar[Level] = "critical"
    todo: ClassVar[str] = "`remedy` says it; look at the account by hand; never pay by hand beside what is `out`"


@dataclass(frozen=True, kw_only=True)
class TopUpGoesOn(Event):
    """A top-up that did not get on does so again: a payment of it may leave, or what is out was looked at."""

    topup_id: str
    state: str
    lasted_s: int


@dataclass(frozen=True, kw_only=True)
class PaymentSigned(Event):
    """The payment is signed and stored; nothing has left yet."""

    topup_id: str
    tx_hash: bytes
    nonce: int
    value_wei: Wei


@dataclass(frozen=True, kw_only=True)
class PaymentSent(Event):
    """The signed payment was handed to the provider(s)."""

    money: ClassVar[Money] = Money.MAYBE
    topup_id: str
    tx_hash: bytes
    answer: str
    detail: str
    times: int


@dataclass(frozen=True, kw_only=True)
class PaymentUnseen(Event):
    """The payment was sent a while ago and is in no block yet; it is sent again, byte for byte."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing: never pay by hand beside it; look at the provider when it stays"
    topup_id: str
    tx_hash: bytes
    waited_s: int


@dataclass(frozen=True, kw_only=True)
class PaymentRefused(Event):
    """Every provider calls the signed transaction invalid, which sending it again does not change."""

    level: ClassVar[Level] = "error"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "report `detail`, it is a defect or a provider of another chain; never pay by hand beside it"
    topup_id: str
    tx_hash: bytes
    detail: str


@dataclass(frozen=True, kw_only=True)
class PaymentIncluded(Event):
    """The payment stands in a canonical block with our Transferred event."""

    money: ClassVar[Money] = Money.YES
    topup_id: str
    tx_hash: bytes
    block: int
    spent_wei: Wei
    gas_wei: Wei
    l1_fee_wei: Wei
    wallet_check: str
    asset: str
    spent_units: Usdc
    fee_units: Usdc


@dataclass(frozen=True, kw_only=True)
class TokenApproved(Event):
    """The payment contract may now take exactly so much of the token; the payment comes next. Only gas was spent."""

    topup_id: str
    tx_hash: bytes
    block: int
    units: Usdc
    gas_wei: Wei
    l1_fee_wei: Wei


@dataclass(frozen=True, kw_only=True)
class ApprovalRevoked(Event):
    """A permission that a dead charge had left is taken back: the payment contract may take none of the token."""

    topup_id: str
    tx_hash: bytes
    block: int
    gas_wei: Wei
    l1_fee_wei: Wei


@dataclass(frozen=True, kw_only=True)
class ApprovalStands(Event):
    """A dead charge has left a permission, and it could not be taken back yet. It is tried again."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "nothing when it passes; only the payment contract itself could use it, for a signed charge"
    topup_id: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class PaymentReverted(Event):
    """The payment was included and failed: gas is gone, the swap is not; the same charge may be tried again."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.NO
    todo: ClassVar[str] = "nothing when a retry works; see `reason` when it repeats"
    topup_id: str
    tx_hash: bytes
    block: int
    gas_wei: Wei
    l1_fee_wei: Wei
    reason: str


@dataclass(frozen=True, kw_only=True)
class PaymentVanished(Event):
    """The payment does not stand where a block had shown it; it is looked for, and sent, again."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    topup_id: str
    tx_hash: bytes
    block: int
    proof: str


@dataclass(frozen=True, kw_only=True)
class InclusionDenied(Event):
    """A provider shows that a payment cannot stand where the ledger has it; too few do, for it to be taken back."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = (
        "look the transaction up in a block explorer; add a provider of another owner, or run `topup resolve ID`"
    )
    topup_id: str
    tx_hash: bytes
    block: int
    detail: str


@dataclass(frozen=True, kw_only=True)
class PaymentBumped(Event):
    """The payment was in no block for `fees.bump_after_s`: a dearer one of the same charge takes its nonce."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing: one of them at most is mined; see the fees when it repeats"
    topup_id: str
    tx_hash: bytes
    outbids: bytes
    nonce: int
    value_wei: Wei
    max_fee_per_gas_wei: Wei
    tip_wei: Wei


@dataclass(frozen=True, kw_only=True)
class BumpHeld(Event):
    """The payment is late and is not outbid, for this reason; what is out is sent again as it is."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing when it passes; never pay by hand beside it"
    topup_id: str
    why: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class CancelSigned(Event):
    """By a person's word: a transaction that moves nothing is sent at the payment's nonce; either may win."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing: when the payment wins the race it is followed to its end"
    topup_id: str
    tx_hash: bytes
    nonce: int


@dataclass(frozen=True, kw_only=True)
class PaymentCancelled(Event):
    """The cancel stands in a block: the payment's nonce is gone; final proof is waited for."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    tx_hash: bytes
    block: int
    gas_wei: Wei
    l1_fee_wei: Wei


@dataclass(frozen=True, kw_only=True)
class ChargeGivenUp(Event):
    """The charge will not be paid again: expired, or reverted for good; its proof of death is waited for."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "nothing: never pay by hand beside it; `topup show` says what is waited for"
    topup_id: str
    seq: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeathUndecided(Event):
    """By the chain's final block it should be proven whether the charge was paid, and the providers do not show it."""

    level: ClassVar[Level] = "error"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "see `why`: a provider that is down, or lies, keeps the account from buying; replace it"
    topup_id: str
    why: str


@dataclass(frozen=True, kw_only=True)
class TopUpFailed(Event):
    """The top-up ended without a payment, by proof or by a person's word."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ChargeDead(Event):
    """Proven at a final block, by providers independent of each other: this charge can never be paid any more."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    seq: int
    proof: str
    final_block: int


@dataclass(frozen=True, kw_only=True)
class FlagTested(Event):
    """The contract's own mark of a paid charge was held against a payment of ours; one that fails is never trusted."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    trusted: bool


@dataclass(frozen=True, kw_only=True)
class PaymentUndone(Event):
    """A block that was in the books was replaced after its top-up had ended; buying is paused until a person looks."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "see `topup show` of this top-up and whether the credits are still there, then `topup resume`"
    topup_id: str
    tx_hash: bytes
    block: int


@dataclass(frozen=True, kw_only=True)
class PaidAfterAll(Event):
    """A payment that was given up for dead stands in a block; it is booked, and buying is paused."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.YES
    todo: ClassVar[str] = "the credits may be posted: look at the account, then `topup resume`"
    topup_id: str
    tx_hash: bytes
    block: int
    spent_wei: Wei
    asset: str
    spent_units: Usdc


@dataclass(frozen=True, kw_only=True)
class ReceiptAwaited(Event):
    """The payment's nonce is used and no receipt is shown yet, as when a provider's index lags; it is waited for."""

    money: ClassVar[Money] = Money.MAYBE
    topup_id: str
    tx_hash: bytes
    nonce: int


@dataclass(frozen=True, kw_only=True)
class NonceMoved(Event):
    """The wallet's nonce was used by nothing of ours that is known: for five minutes, or as a final block shows."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = (
        "when its receipt does not turn up: stop the other user of this key, a wallet of its own is required"
    )
    topup_id: str
    nonce: int


@dataclass(frozen=True, kw_only=True)
class NonceContested(Event):
    """A provider holds a dearer transaction of this wallet at the payment's nonce, and it is none of ours."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "look the wallet up in a block explorer; when somebody else uses the key, move the funds"
    topup_id: str
    tx_hash: bytes
    nonce: int


# -- posting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BaselineUnsettled(Event):
    """Credits keep rising, so that a purchase could not be told from the rest; nothing is signed until they rest."""

    level: ClassVar[Level] = "warning"
    todo: ClassVar[str] = "see who else fills this account"
    topup_id: str
    waited_s: int


@dataclass(frozen=True, kw_only=True)
class CreditsPosted(Event):
    """The credits paid for are in the account."""

    money: ClassVar[Money] = Money.YES
    topup_id: str
    amount_usd: Usd
    total_credits_usd: Usd
    waited_s: int
    ambiguous: bool


@dataclass(frozen=True, kw_only=True)
class PaidNotCredited(Event):
    """Paid on the chain, and the credits were not posted in time; nothing more is bought until they are."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.YES
    todo: ClassVar[str] = (
        "open a ticket with the provider and paste what `topup show ID --dossier` prints;"
        " it resolves itself when the credits appear"
    )
    topup_id: str
    charge_id: str
    intent_id: bytes
    tx_hash: bytes
    block: int
    paid_units: Usdc
    expected_usd: Usd
    total_credits_usd: Usd
    waited_s: int


@dataclass(frozen=True, kw_only=True)
class CreditsAttested(Event):
    """A person says that the credits of a payment are there, which the readings do not show; it ends as credited."""

    level: ClassVar[Level] = "warning"
    money: ClassVar[Money] = Money.YES
    todo: ClassVar[str] = "nothing when you have said it; else see who may write to the state directory"
    topup_id: str
    amount_usd: Usd


@dataclass(frozen=True, kw_only=True)
class NotYetSafe(Event):
    """Paid and credited, and the provider shows no safe block at that height; nothing more is bought until it does."""

    level: ClassVar[Level] = "error"
    money: ClassVar[Money] = Money.YES
    todo: ClassVar[str] = (
        "see whether the chain or the provider has stalled; `topup doctor` asks each for its safe block"
    )
    topup_id: str
    waited_s: int


@dataclass(frozen=True, kw_only=True)
class TopUpDone(Event):
    """The top-up is complete: paid, posted, in the books, in a block that is safe. The resulting balance is here."""

    money: ClassVar[Money] = Money.YES
    topup_id: str
    amount_usd: Usd
    balance_before_usd: Usd | None
    balance_after_usd: Usd
    spent_wei: Wei
    gas_wei: Wei
    l1_fee_wei: Wei
    asset: str
    asset_spent: Usdc
    asset_fee: Usdc
    usd_per_credit: Decimal
    tx_hash: bytes
    seconds: int


@dataclass(frozen=True, kw_only=True)
class TopUpDropped(Event):
    """The top-up ended before anything was signed that could still be paid."""

    level: ClassVar[Level] = "warning"
    topup_id: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class TopUpHalted(Event):
    """The top-up needs a person; nothing is bought until somebody has looked."""

    level: ClassVar[Level] = "critical"
    money: ClassVar[Money] = Money.MAYBE
    todo: ClassVar[str] = "run `topup status` and see docs/runbook.md; never pay by hand before"
    topup_id: str
    reason: str


def catalogue() -> list[type[Event]]:
    """Return every event class, in the order of this file."""
    return [c for c in globals().values() if isinstance(c, type) and issubclass(c, Event) and c is not Event]
