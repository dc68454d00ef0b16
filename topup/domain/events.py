"""What can the program say? Every event: its name, its level, its fields, whether money moved, and what to do.

One class an event; the name in the log is the class name in snake_case. The first line of the docstring says what
happened, `todo` what a person does about it ("" for nothing). `docs/events.md` is generated from here and a golden
test pins names and fields, so that an alert written today still fires next year.
"""

import re
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from typing import ClassVar, Literal, dataclass_transform

from topup.domain.errors import Money
from topup.domain.money import Bps, Usd, Usdc, Wei, plain
from topup.domain.reasons import AS_IT_SHOULD_BE

Level = Literal["debug", "info", "warning", "error", "critical"]
Shown = str | int | bool | None


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Event:
    """Anything the program can say; each class derived from it is a frozen dataclass without being declared one."""

    level: ClassVar[Level] = "info"
    money: ClassVar[Money] = Money.NO
    todo: ClassVar[str] = ""
    # Written whatever `log.level` is: the log is read for it.
    always: ClassVar[bool] = False

    def __init_subclass__(cls, *, level: Level | None = None, money: Money | None = None) -> None:
        """Make it a dataclass, as loud as `level` says, with `money` for whether any may have moved."""
        super().__init_subclass__()
        if level is not None:
            cls.level = level
        if money is not None:
            cls.money = money
        dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def name(cls) -> str:
        """Return the event's name as it stands in the log."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def loud(self) -> Level:
        """Return how loud this very event is, where it knows better than its class."""
        return self.level

    def moved(self) -> Money:
        """Return whether money may have moved, where this very event knows more than its class."""
        return self.money

    def shown(self) -> dict[str, Shown]:
        """Return the fields as they stand in the log: amounts as strings in the unit their name ends in."""
        return {f.name: show(getattr(self, f.name)) for f in fields(self)}


class TopUpEvent(Event):
    """Something about one top-up."""

    topup_id: str


class TransactionEvent(TopUpEvent):
    """Something about one transaction of a top-up."""

    tx_hash: bytes


class BlockEvent(TransactionEvent):
    """Something about a transaction and the block that holds it, or held it."""

    block: int


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


class Stopping(Event):
    """The program was asked to stop; what is open is stored and goes on at the next start."""

    signal: str
    open_topup: str | None


class CannotRun(Event, level="critical"):
    """The daemon has not started, or a defect has ended it: nobody watches the account, and nothing is bought."""

    todo = "see `remedy`; the exit code tells a supervisor whether another start can help"
    kind: str
    error: str
    remedy: str
    exit_code: int
    where: str | None = None


class HangUpIgnored(Event):
    """A SIGHUP came; the daemon goes on, and reads no settings anew: restart it for that."""


class LogLinesLost(Event, level="warning"):
    """Whoever reads the log had stopped, and lines were lost here; everything else went on."""

    lines: int


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


class CycleFailed(Event, level="error"):
    """A pass ended early on an error; the next one goes on from what is stored."""

    todo = "read `error` and `remedy`; when it repeats, run `topup doctor`"
    cycle: int
    kind: str
    error: str
    remedy: str
    topup_id: str | None
    state: str | None


class ClockBehind(Event, level="warning"):
    """The machine's clock is behind the ledger's newest time; ledger time goes on from there by itself."""

    todo = "check the machine's time synchronisation"
    behind_s: int


class TimeNotLived(Event, level="warning"):
    """Some time was not lived through: the machine slept, or it or its ledger was put back; it waits as at a start."""

    todo = "nothing when the machine slept or its clock was set; else find out who put it back"
    clock: str
    leapt_s: int


class RawKeyInUse(Event, level="warning"):
    """The wallet's key is given raw instead of as a keystore: whoever reads its file or the environment has it."""

    todo = "put the key into a keystore v3 file: wallet.keystore and wallet.keystore_password_file"
    setting: str


class RailClosed(Event, level="warning"):
    """A way to pay is set that this host is known to have closed: nothing can be bought by it."""

    todo = "choose another in rails.use; `topup doctor` names the one that the host sells by"
    rail: str
    detail: str


class MessageSetAside(Event, level="error"):
    """A message will not be delivered: its target has refused it for good, or for three days nobody took it."""

    todo = "see the target and its settings in [notify]; `topup notify test` tries it"
    target: str
    message: str
    detail: str


class TargetFailed(Event, level="error"):
    """Nobody takes messages at a target of [notify]: it is tried again, ever more rarely."""

    todo = "see the target and its settings in [notify]; `topup notify test` tries it"
    target: str
    detail: str
    tries: int


class WebServed(Event):
    """Something is served over HTTP, as a setting of [web] wants it."""

    setting: str
    address: str


class WebOpen(Event, level="warning"):
    """What is served over HTTP can be asked for from other machines, and it has no password."""

    todo = "see that only those reach the port who may know what is in the account; else name an address of loopback"
    setting: str
    address: str


class WebNotServed(Event, level="error"):
    """The port that a setting of [web] names cannot be had: nothing is served there, and the passes go on."""

    todo = "free the port, or name another; then start it again"
    setting: str
    address: str
    detail: str


# -- the providers ----------------------------------------------------------------------------------------------


class ProviderSetAside(Event, level="warning"):
    """A provider is of another chain, behind the others, or fails again and again; it is asked again after a pause."""

    todo = "nothing when it comes back; correct chain.rpc_urls when it is wrong_chain or stays away"
    provider: str
    why: str
    detail: str
    pause_s: int


class ProviderBack(Event):
    """A provider that was set aside gives good answers again."""

    provider: str
    out_s: int


class ProvidersDisagree(Event, level="warning"):
    """Independent providers show different things; nothing is signed on what too few of them say."""

    todo = "nothing when it passes, as after a new block; when it stays, find out which one is wrong"
    about: str
    detail: str


# -- watching ---------------------------------------------------------------------------------------------------


class ReadingTaken(Event, level="debug"):
    """The account was read and the numbers can be believed."""

    total_credits_usd: Usd
    total_usage_usd: Usd
    balance_usd: Usd


class ReadingUnknown(Event, level="warning"):
    """The account could not be read, or what it said cannot be believed; nothing is bought on it."""

    todo = "nothing when it passes; see `doubt` in docs/runbook.md when it stays"
    doubt: str
    detail: str


class UnknownTooLong(Event, level="critical"):
    """No believable reading for longer than `watch.unknown_alert_s`: the account may run dry unseen."""

    todo = "look at the account by hand; run `topup doctor`"
    unknown_s: int
    doubt: str


class CreditsRose(Event):
    """total_credits rose by something no top-up of ours explains: credits bought elsewhere."""

    by_usd: Usd
    total_credits_usd: Usd


class UsageUnknown(Event):
    """The provider does not say what was used by model and key, or contradicts itself; the books need only totals."""

    detail: str


class WalletUnchecked(Event, level="warning"):
    """The wallet's books could not be held against the chain for hours: what others moved is not booked meanwhile.

    `last_h` is how long ago it was done last, null when it never was.
    """

    todo = "read `detail`; `topup doctor` says which provider has forgotten the state of final blocks"
    chain_id: int
    last_h: int | None
    detail: str


class KeyUnfit(Event, level="error"):
    """GET /key says that the API key is no management key: /credits shows zeros to it."""

    todo = "create a management key and put it into api.key"
    detail: str


# -- deciding ---------------------------------------------------------------------------------------------------


class TopUpForbidden(Event, level="error"):
    """Credits are needed and a rule forbids buying them."""

    todo = "`remedy` says it; the account runs dry when nobody does"
    why: str
    detail: str
    remedy: str


class TopUpDecided(TopUpEvent):
    """A top-up was decided and stored."""

    amount_usd: Usd
    why: str
    detail: str


class PauseChanged(Event, level="warning"):
    """Buying was paused or resumed by hand."""

    paused: bool
    by: str


# -- the charge -------------------------------------------------------------------------------------------------


class ChargeRequested(TopUpEvent):
    """A charge is being requested; an unpaid charge is harmless."""

    seq: int
    amount_usd: Usd


class ChargeUnanswered(TopUpEvent, level="warning"):
    """The request for a charge got no usable answer; that charge, if it exists, is abandoned unpaid."""

    seq: int
    error: str


class EndpointGone(TopUpEvent, level="critical"):
    """A rail's endpoint is gone (410, 404 or 501): it no longer sells credits this way. Said once for each rail."""

    todo = "top up by hand, or point api.url at a gateway that serves it, then `topup resume`"
    rail: str
    error: str


class ChargeRefused(TopUpEvent, level="critical"):
    """A charge is not what was asked for and will not be paid."""

    todo = (
        "do not pay it by hand; `remedy` names the setting that decides it, `topup doctor --rail` shows every line;"
        " where recipient, amount or signature are wrong, find out who answers in the seller's place"
    )
    seq: int
    field: str
    was: str
    should_be: str
    remedy: str


class ChargeProven(TopUpEvent):
    """The charge is exactly what was asked for: sender, recipient, amount, contract, chain, deadline, signature."""

    seq: int
    charge_id: str
    intent_id: bytes
    total_units: Usdc
    fee_units: Usdc
    recipient: bytes
    deadline_s: int


# -- the payment ------------------------------------------------------------------------------------------------


class PaymentPlanned(TopUpEvent):
    """The payment was quoted, held against the price feed, and simulated on a pinned block."""

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


class PaymentForbidden(TopUpEvent, level="error"):
    """The payment is not permitted now; nothing was signed. The same charge is tried again until it is too old."""

    todo = "`remedy` says it"
    why: str
    detail: str
    remedy: str


class TopUpStalled(TopUpEvent, level="warning", money=Money.MAYBE):
    """A top-up does not get on: no payment can be planned, or what is `out` cannot be looked at; it is tried on."""

    todo = "nothing when it passes; else `remedy` says it; never pay by hand beside what is `out`"
    state: str
    out: bool
    why: str
    detail: str
    remedy: str
    lasting_s: int

    def moved(self) -> Money:
        """Return that none has where nothing of it is out."""
        return Money.MAYBE if self.out else Money.NO


class TopUpStuck(TopUpStalled, level="critical"):
    """A top-up has not got on for longer than `watch.unknown_alert_s`: the account may run dry. Said every hour."""

    todo = "`remedy` says it; look at the account by hand; never pay by hand beside what is `out`"


class TopUpGoesOn(TopUpEvent):
    """A top-up that did not get on does so again: a payment of it may leave, or what is out was looked at."""

    state: str
    lasted_s: int


class PaymentSigned(TransactionEvent):
    """The payment is signed and stored; nothing has left yet."""

    nonce: int
    value_wei: Wei


class PaymentSent(TransactionEvent, money=Money.MAYBE):
    """The signed payment was handed to the provider(s)."""

    answer: str
    detail: str
    times: int


class PaymentUnseen(TransactionEvent, level="warning", money=Money.MAYBE):
    """The payment was sent a while ago and is in no block yet; it is sent again, byte for byte."""

    todo = "nothing: never pay by hand beside it; look at the provider when it stays"
    waited_s: int


class PaymentRefused(TransactionEvent, level="error", money=Money.MAYBE):
    """Every provider calls the signed transaction invalid, which sending it again does not change."""

    todo = "report `detail`, it is a defect or a provider of another chain; never pay by hand beside it"
    detail: str


class PaymentIncluded(BlockEvent, money=Money.YES):
    """The payment stands in a canonical block with our Transferred event."""

    spent_wei: Wei
    gas_wei: Wei
    l1_fee_wei: Wei
    wallet_check: str
    asset: str
    spent_units: Usdc
    fee_units: Usdc


class TokenApproved(BlockEvent):
    """The payment contract may now take exactly so much of the token; the payment comes next. Only gas was spent."""

    units: Usdc
    gas_wei: Wei
    l1_fee_wei: Wei


class ApprovalRevoked(BlockEvent):
    """A permission that a dead charge had left is taken back: the payment contract may take none of the token."""

    gas_wei: Wei
    l1_fee_wei: Wei


class ApprovalStands(TopUpEvent, level="warning"):
    """A dead charge has left a permission, and it could not be taken back yet. It is tried again."""

    todo = "nothing when it passes; only the payment contract itself could use it, for a signed charge"
    detail: str


class PaymentReverted(BlockEvent, level="warning"):
    """The payment was included and failed: gas is gone, the swap is not; the same charge may be tried again."""

    todo = "nothing when a retry works; see `reason` when it repeats"
    gas_wei: Wei
    l1_fee_wei: Wei
    reason: str


class PaymentVanished(BlockEvent, level="warning", money=Money.MAYBE):
    """The payment does not stand where a block had shown it; it is looked for, and sent, again."""

    proof: str


class InclusionDenied(BlockEvent, level="critical", money=Money.MAYBE):
    """A provider shows that a payment cannot stand where the ledger has it; too few do, for it to be taken back."""

    todo = "look the transaction up in a block explorer; add a provider of another owner, or run `topup resolve ID`"
    detail: str


class PaymentBumped(TransactionEvent, level="warning", money=Money.MAYBE):
    """The payment was in no block for `fees.bump_after_s`: a dearer one of the same charge takes its nonce."""

    todo = "nothing: one of them at most is mined; see the fees when it repeats"
    outbids: bytes
    nonce: int
    value_wei: Wei
    max_fee_per_gas_wei: Wei
    tip_wei: Wei


class BumpHeld(TopUpEvent, level="warning", money=Money.MAYBE):
    """The payment is late and is not outbid, for this reason; what is out is sent again as it is."""

    todo = "nothing when it passes; never pay by hand beside it"
    why: str
    detail: str


class CancelSigned(TransactionEvent, level="warning", money=Money.MAYBE):
    """By a person's word: a transaction that moves nothing is sent at the payment's nonce; either may win."""

    todo = "nothing: when the payment wins the race it is followed to its end"
    nonce: int


class PaymentCancelled(BlockEvent, level="warning"):
    """The cancel stands in a block: the payment's nonce is gone; final proof is waited for."""

    gas_wei: Wei
    l1_fee_wei: Wei


class ChargeGivenUp(TopUpEvent, level="warning", money=Money.MAYBE):
    """The charge will not be paid again: expired, or reverted for good; its proof of death is waited for."""

    todo = "nothing: never pay by hand beside it; `topup show` says what is waited for"
    seq: int
    reason: str


class DeathUndecided(TopUpEvent, level="error", money=Money.MAYBE):
    """By the chain's final block it should be proven whether the charge was paid, and the providers do not show it."""

    todo = "see `why`: a provider that is down, or lies, keeps the account from buying; replace it"
    why: str


class TopUpFailed(TopUpEvent, level="warning"):
    """The top-up ended without a payment, by proof or by a person's word."""

    reason: str


class ChargeDead(TopUpEvent, level="warning"):
    """Proven at a final block, by providers independent of each other: this charge can never be paid any more."""

    seq: int
    proof: str
    final_block: int


class FlagTested(TopUpEvent, level="warning"):
    """The contract's own mark of a paid charge was held against a payment of ours; one that fails is never trusted.

    It is a warning only where the mark failed, else info.
    """

    trusted: bool

    def loud(self) -> Level:
        """Return how loud it is: a mark that shows the payment is as it should be."""
        return "info" if self.trusted else self.level


class PaymentUndone(BlockEvent, level="critical", money=Money.MAYBE):
    """A block that was in the books was replaced after its top-up had ended; buying is paused until a person looks."""

    todo = "see `topup show` of this top-up and whether the credits are still there, then `topup resume`"


class PaidAfterAll(BlockEvent, level="critical", money=Money.YES):
    """A payment that was given up for dead stands in a block; it is booked, and buying is paused."""

    todo = "the credits may be posted: look at the account, then `topup resume`"
    spent_wei: Wei
    asset: str
    spent_units: Usdc


class ReceiptAwaited(TransactionEvent, money=Money.MAYBE):
    """The payment's nonce is used and no receipt is shown yet, as when a provider's index lags; it is waited for."""

    nonce: int


class NonceMoved(TopUpEvent, level="critical", money=Money.MAYBE):
    """The wallet's nonce was used by nothing of ours that is known: for five minutes, or as a final block shows."""

    todo = "when its receipt does not turn up: stop the other user of this key, a wallet of its own is required"
    nonce: int


class NonceContested(TransactionEvent, level="critical", money=Money.MAYBE):
    """A provider holds a dearer transaction of this wallet at the payment's nonce, and it is none of ours."""

    todo = "look the wallet up in a block explorer; when somebody else uses the key, move the funds"
    nonce: int


# -- posting ----------------------------------------------------------------------------------------------------


class BaselineUnsettled(TopUpEvent, level="warning"):
    """Credits keep rising, so that a purchase could not be told from the rest; nothing is signed until they rest."""

    todo = "see who else fills this account"
    waited_s: int


class CreditsPosted(TopUpEvent, money=Money.YES):
    """The credits paid for are in the account."""

    amount_usd: Usd
    total_credits_usd: Usd
    waited_s: int
    ambiguous: bool


class PaidNotCredited(TopUpEvent, level="critical", money=Money.YES):
    """Paid on the chain, and the credits were not posted in time; nothing more is bought until they are."""

    todo = (
        "open a ticket with the provider and paste what `topup show ID --dossier` prints;"
        " it resolves itself when the credits appear"
    )
    charge_id: str
    intent_id: bytes
    tx_hash: bytes
    block: int
    paid_units: Usdc
    expected_usd: Usd
    total_credits_usd: Usd
    waited_s: int


class CreditsAttested(TopUpEvent, level="warning", money=Money.YES):
    """A person says that the credits of a payment are there, which the readings do not show; it ends as credited."""

    todo = "nothing when you have said it; else see who may write to the state directory"
    amount_usd: Usd


class NotYetSafe(TopUpEvent, level="error", money=Money.YES):
    """Paid and credited, and the provider shows no safe block at that height; nothing more is bought until it does."""

    todo = "see whether the chain or the provider has stalled; `topup doctor` asks each for its safe block"
    waited_s: int


class TopUpDone(TopUpEvent, money=Money.YES):
    """The top-up is complete: paid, posted, in the books, in a block that is safe. The resulting balance is here.

    It is written whatever `log.level` is.
    """

    always = True
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


class TopUpDropped(TopUpEvent, level="warning"):
    """The top-up ended before anything was signed that could still be paid.

    It is a warning only where something went wrong, else info: it was withdrawn, or is no longer needed.
    """

    reason: str
    detail: str

    def loud(self) -> Level:
        """Return how loud it is."""
        return "info" if self.reason.partition(":")[0] in AS_IT_SHOULD_BE else self.level


class TopUpHalted(TopUpEvent, level="critical", money=Money.MAYBE):
    """The top-up needs a person; nothing is bought until somebody has looked."""

    todo = "run `topup status` and see docs/runbook.md; never pay by hand before"
    reason: str


def catalogue() -> list[type[Event]]:
    """Return every event class, in the order of this file."""
    shared = (Event, TopUpEvent, TransactionEvent, BlockEvent)
    return [c for c in globals().values() if isinstance(c, type) and issubclass(c, Event) and c not in shared]
