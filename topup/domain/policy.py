"""Should we buy, how much, and if not why?

Two pure rules. `decide` looks at the account, the past and the limits, and holds, buys or refuses.
`permit` looks at one quoted payment just before it is signed. No clock, no I/O, no settings object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar

from topup.domain.credits import DAY_MS, HOUR_MS, NOTHING, Doubt, Reading, Runway, Spending, Unknown, runway
from topup.domain.errors import PaymentForbidden
from topup.domain.lifecycle import NO_TOKENS, NO_WEI, Broadcaster, Plan
from topup.domain.moments import moment
from topup.domain.money import Asset, Bps, EthPrice, Usd, Usdc, Wei, deviation_bps_up
from topup.domain.reasons import LOOK, Reason, Worded

W = TypeVar("W", Wei, Usdc)
NEW_KEY: Final = "make a new key, name it in wallet.keystore, and authorize it: `topup wallet limit`"


@dataclass(frozen=True)
class Limits:
    """What the owner allows. Money in dollars unless named otherwise; spans in milliseconds.

    The caps are on what leaves the wallet for credits including fees: amount × (1 + fee ceiling). They count dollars of
    credits, not the ETH that was sent: quote and feed lying together cost at most the caps at `price.eth_usd_min`.

    Windows are spans of ledger time, which has no time zone and no calendar, never goes back and never stands still.
    It cannot tell a machine that was off from a clock that was put forward, and would release what was spent within
    that time. So the caps are held a second time just before a payment is planned, by the chain's clock and the blocks
    that the past payments stand in: it takes both clocks, the machine's and the providers', to release anything.
    """

    live: bool
    floor: Usd
    floor_hours: Decimal | None
    amount: Usd | None
    target: Usd | None
    topup_min: Usd
    topup_max: Usd
    fee_ceiling: Bps
    cap_24h: Usd
    cap_30d: Usd
    count_24h: int
    revert_gas_24h: Wei
    cooldown_ms: int
    backoff_ms: int
    failures_max: int
    charges_per_hour: int
    fresh_ms: int
    # A day's fastest hour, in dollars: as a multiple of the usual (0: never a runaway), and what never counts as one.
    burn_factor_max: int
    burn_floor: Usd
    # Usage that is lower by no more than this, and stays so for an hour, is believed.
    usage_fall_max: Usd = NOTHING
    # What the requests that run at once may cost together, where that is set; `floor` is never below it.
    requests_floor: Usd | None = None
    # Whether whoever began this process lets it buy: a command off a terminal needs `--yes`.
    agreed: bool = True


@dataclass(frozen=True)
class Past:
    """One earlier top-up as the rules see it; `spent` counts fees and, while pending, the most it may come to.

    Of one that failed it is what the network took in dollars (mpp); what it took in ETH is `revert_gas`.

    `written_off` is set of a charge whose payment left and that is proven dead, or attested to be: the proof may be a
    lie that several told together, so the caps go on counting it, and nothing else does.
    `decided_ms` is when money last left for it, now while it is open, and when it was decided if none ever left.
    """

    decided_ms: int
    spent: Usd
    failed: bool = False
    revert_gas: Wei = NO_WEI
    topup_id: str = ""
    written_off: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What is known at this moment."""

    now_ms: int
    reading: Reading | Unknown
    burn: Usd | None
    past: Sequence[Past]
    charge_requests_ms: Sequence[int]
    paused: bool
    gone: bool
    open_topup: str | None
    ever_non_zero: bool
    # Set by `once --amount` and `once --force`.
    asked_amount: Usd | None = None
    forced: bool = False
    # Failures before a person's `resume` are forgiven.
    resumed_ms: int = 0
    # None while nobody has compared, which holds nothing.
    spending: Spending | None = None
    # The rails that were bought by until now, where another way would be taken that nobody has chosen.
    rails_before: str | None = None


class Why(Worded):
    """The stable word for a decision, in the log and in `--json`."""

    ABOVE_FLOOR = (
        "above_floor",
        "nothing; to buy all the same, raise policy.floor, or name an amount: `topup once --amount USD`",
    )
    BELOW_FLOOR = "below_floor"
    BELOW_RUNWAY = "below_runway"
    BELOW_REQUESTS = "below_requests"
    ASKED = "asked"
    UNKNOWN = "unknown", LOOK
    STALE = "stale", "wait for another reading; policy.fresh_s says how old one may be"
    OBSERVE_ONLY = "observe_only", "set mode = live to let topup pay"
    NOT_AGREED = "not_agreed", "pass --yes, answer on a terminal, or let `topup run` buy"
    PAUSED = "paused", "`topup resume` when it may go on"
    ENDPOINT_GONE = "endpoint_gone", "top up by hand, or point api.url at a gateway that serves it, then `topup resume`"
    RAIL_CHANGED = (
        "rail_changed",
        "choose the way to pay: name it in rails.use, or say `topup resume` to pay as `topup config show` says",
    )
    OPEN_TOPUP = "open_topup", "wait until it is finished; `topup status` says what it waits for"
    COOLDOWN = "cooldown", "wait, lower policy.cooldown_s, or skip the wait: `topup once --force`"
    BACKOFF = "backoff", "wait, lower policy.backoff_s, or skip the wait: `topup once --force`"
    TOO_MANY_FAILURES = "too_many_failures", "find the cause in `topup history`, then `topup resume`"
    RUNAWAY = "runaway", "find out what burns the credits; `topup resume` makes this pace the usual one for 14 days"
    CAP_24H = "cap_24h", "raise policy.cap_24h, or wait until older payments are a day ago"
    CAP_30D = "cap_30d", "raise policy.cap_30d, or wait until older payments are 30 days ago"
    COUNT_24H = "count_24h", "raise policy.count_24h, or wait until older top-ups are a day ago"
    REVERT_GAS = "revert_gas", "see `topup history`; wait, or raise policy.revert_gas_24h_eth"
    CHARGE_RATE = "charge_rate", "wait, or raise policy.charges_per_hour"
    FIRST_PURCHASE = "first_purchase", "make the first purchase by hand: `topup once --amount USD`"
    AMOUNT_OUT_OF_BOUNDS = "amount_out_of_bounds", "choose an amount within policy.topup_min and policy.topup_max"


WORDS: Final[tuple[Worded, ...]] = (*Why, *Doubt, *Reason)
REMEDIES: Final[Mapping[str, str]] = {word.value: word.remedy for word in WORDS if word.remedy}
STATE: Final = "`topup status` says what it waits for, and `topup show` the whole of it"


def remedy(why: str) -> str:
    """Return what would change that nothing is bought where only the word for it is known, or where to look for it."""
    return REMEDIES.get(why, STATE)


@dataclass(frozen=True)
class Hold:
    """Nothing is due, or it has to wait; `until_ms` when that is known. `remedy` says what would change it."""

    why: Why
    detail: str
    until_ms: int | None = None
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True)
class Buy:
    """Buy this much credit now."""

    amount: Usd
    why: Why
    detail: str


@dataclass(frozen=True)
class Refuse:
    """Credits are needed and a rule forbids buying them: a person should know."""

    why: Why
    detail: str
    until_ms: int | None = None

    @property
    def remedy(self) -> str:
        """Say what to do about it."""
        return self.why.remedy


Decision = Hold | Buy | Refuse


def decide(now: Snapshot, limits: Limits) -> Decision:
    """Apply the rules in order: what is known, what is due, whether it may be.

    The order matters for what is said: an account above its floor is a quiet Hold whatever else is wrong,
    an account below it whose purchase is forbidden is a Refuse that somebody must see.
    """
    reading = now.reading
    if isinstance(reading, Unknown):
        return Hold(Why.UNKNOWN, f"{reading.doubt}: {reading.detail}")
    if now.now_ms - reading.at_ms > limits.fresh_ms:
        age_s = (now.now_ms - reading.at_ms) // 1000
        return Hold(Why.STALE, f"the newest believed reading is {age_s} s old", remedy="wait for another reading")
    due = _due(now, reading, limits)
    if isinstance(due, Hold):
        return due
    return (
        _switches(now, limits)
        or _size(now, limits, due)
        or _runaway(now, limits)
        or _budgets(now, limits, due)
        or _patience(now, limits)
        or _unasked(limits)
        or due
    )


def amount_due(reading: Reading, limits: Limits) -> Usd:
    """Return the fixed amount, or what is missing up to the target, within the bounds for one top-up."""
    if limits.amount is not None:
        return limits.amount
    target = limits.target if limits.target is not None else limits.floor
    return min(max((target - reading.balance).cents_up(), limits.topup_min), limits.topup_max)


def worst_spend(amount: Usd, limits: Limits) -> Usd:
    """Return the most that buying `amount` may cost before network fees: the caps count this."""
    return amount.plus_bps(limits.fee_ceiling)


def _due(now: Snapshot, reading: Reading, limits: Limits) -> Buy | Hold:
    if now.asked_amount is not None:
        return Buy(now.asked_amount, Why.ASKED, f"asked for {now.asked_amount}")
    balance, amount = reading.balance, amount_due(reading, limits)
    if balance < limits.floor:
        if limits.requests_floor == limits.floor:
            return Buy(amount, Why.BELOW_REQUESTS, f"{balance} is below the {limits.floor} that requests may cost")
        return Buy(amount, Why.BELOW_FLOOR, f"{balance} is below the floor of {limits.floor}")
    left: Runway = runway(balance, limits.floor, now.burn)
    if limits.floor_hours is not None and left.to_empty_h is not None and left.to_empty_h < limits.floor_hours:
        return Buy(amount, Why.BELOW_RUNWAY, f"{left.to_empty_h} h left, the floor is {limits.floor_hours} h")
    return Hold(Why.ABOVE_FLOOR, f"{balance} is not below the floor of {limits.floor}")


def _switches(now: Snapshot, limits: Limits) -> Hold | Refuse | None:
    if now.open_topup is not None:
        return Hold(Why.OPEN_TOPUP, f"{now.open_topup} is not finished")
    if now.paused:
        return Refuse(Why.PAUSED, "buying is paused")
    if now.gone:
        return Refuse(Why.ENDPOINT_GONE, "the seller's endpoint answered that it is gone (410, 404 or 501)")
    if now.rails_before is not None:
        before = f"until now credits were bought by {now.rails_before}"
        return Refuse(Why.RAIL_CHANGED, f"{before}, and rails.use names no way: by default it would be another now")
    if not limits.live:
        return Refuse(Why.OBSERVE_ONLY, "mode is observe: nothing is ever signed")
    return None


def _size(now: Snapshot, limits: Limits, due: Buy) -> Refuse | None:
    if not limits.topup_min <= due.amount <= limits.topup_max or due.amount != due.amount.cents_down():
        bounds = f"{limits.topup_min} to {limits.topup_max} in whole cents"
        return Refuse(Why.AMOUNT_OUT_OF_BOUNDS, f"{due.amount} is outside {bounds}")
    if not now.ever_non_zero and now.asked_amount is None:
        return Refuse(Why.FIRST_PURCHASE, "the account has never shown anything but 0 bought and 0 used")
    return None


def _runaway(now: Snapshot, limits: Limits) -> Refuse | None:
    """Refuse to feed a consumer that runs at a multiple of its usual pace.

    Said before the caps, whose remedy would be to raise them. An amount asked for is a person's wish of this moment
    and passes; `forced` alone does not. Without a usual pace the caps alone bound what is spent.
    """
    spending = now.spending
    if limits.burn_factor_max == 0 or now.asked_amount is not None:
        return None
    if spending is None or spending.fastest is None or spending.usual is None:
        return None
    most = max(spending.usual.times(limits.burn_factor_max), limits.burn_floor)
    if spending.fastest <= most:
        return None
    paces = f"the fastest hour of the last day used {spending.fastest}, of a usual day {spending.usual}"
    return Refuse(Why.RUNAWAY, f"{paces}; the most is {most}")


def _budgets(now: Snapshot, limits: Limits, due: Buy) -> Refuse | None:
    asked = [at for at in now.charge_requests_ms if at > now.now_ms - HOUR_MS]
    refused = over_budget(due.amount, now.past, now.now_ms, limits)
    if refused is None and len(asked) >= limits.charges_per_hour:
        return Refuse(Why.CHARGE_RATE, f"{len(asked)} charges requested within an hour", asked[0] + HOUR_MS)
    return refused


def over_budget(amount: Usd, past: Sequence[Past], now_ms: int, limits: Limits) -> Refuse | None:
    """Hold the rolling caps, the count and the cost of reverts; `past` and `now_ms` are of one clock, whichever."""
    day = [p for p in past if p.decided_ms > now_ms - DAY_MS]
    month = [p for p in past if p.decided_ms > now_ms - 30 * DAY_MS]
    cost = worst_spend(amount, limits)
    for why, cap, inside, span in (
        (Why.CAP_24H, limits.cap_24h, day, DAY_MS),
        (Why.CAP_30D, limits.cap_30d, month, 30 * DAY_MS),
    ):
        spent = sum((p.spent for p in inside), Usd(Decimal(0)))
        if spent + cost > cap:
            oldest = min((p.decided_ms for p in inside if p.spent.amount > 0), default=None)
            until = None if oldest is None else oldest + span
            return Refuse(why, f"{spent} spent or pending, {cost} more would pass {cap}", until)
    bought = [p for p in day if p.spent.amount > 0 and not p.failed and not p.written_off]
    if len(bought) >= limits.count_24h:
        return Refuse(Why.COUNT_24H, f"{len(bought)} top-ups within 24 h", bought[0].decided_ms + DAY_MS)
    gas = sum((p.revert_gas for p in day), Wei(0))
    if gas > limits.revert_gas_24h:
        return Refuse(Why.REVERT_GAS, f"reverted payments cost {gas} within 24 h")
    return None


def _unasked(limits: Limits) -> Refuse | None:
    """Refuse what nobody has agreed to; last, so that whatever else is wrong is said first."""
    return None if limits.agreed else Refuse(Why.NOT_AGREED, "off a terminal nothing is bought without --yes")


def _patience(now: Snapshot, limits: Limits) -> Hold | Refuse | None:
    past = sorted((p for p in now.past if not p.written_off), key=lambda p: p.decided_ms)
    if not past:
        return None
    failures = 0
    for earlier in reversed(past):
        if not earlier.failed or earlier.decided_ms < now.resumed_ms:
            break
        failures += 1
    if failures >= limits.failures_max:
        return Refuse(Why.TOO_MANY_FAILURES, f"{failures} top-ups failed in a row")
    if now.forced:
        return None
    newest = past[-1].decided_ms
    # A failure does not release the cool-down: whichever lasts longer holds.
    wait = max(limits.cooldown_ms, limits.backoff_ms * 2 ** (failures - 1) if failures else 0)
    if now.now_ms < newest + wait:
        left_s = -(-(newest + wait - now.now_ms) // 1000)
        why, setting = (Why.BACKOFF, "policy.backoff_s") if failures else (Why.COOLDOWN, "policy.cooldown_s")
        if wait == limits.cooldown_ms:
            setting = "policy.cooldown_s"
        began = f"the last top-up began {(now.now_ms - newest) // 1000} s ago"
        return Hold(
            why,
            f"{began}; {left_s} s are left of the wait that {setting} asks for",
            newest + wait,
            f"wait {left_s} s, lower {setting}, or skip the wait: `topup once --force`",
        )
    return None


@dataclass(frozen=True)
class Ceilings:
    """What one payment may cost beyond its dollars."""

    price_deviation: Bps
    gas_price: Wei
    network_fee: Wei
    reserve: Wei
    payment: Wei
    # The lowest price the owner finds plausible: it bounds a payment even where quote and feed lie together.
    price_min: EthPrice
    # The most the network may take of one payment where it takes dollars.
    token_fee: Usdc = NO_TOKENS


@dataclass(frozen=True)
class Permission:
    """What the chain lets an access key spend of its account's token, as of the chain's time `now_s` (unix seconds).

    `expires_s` is 0 where the key is not authorized. `left` may be spent until `ends_s`, when all of `limit` may be
    again; `left` None: no limit is kept, `ends_s` 0: the limit is for once, `limit` and `period_s` None: not learnt.
    """

    now_s: int
    expires_s: int
    revoked: bool
    left: Usdc | None
    ends_s: int
    limit: Usdc | None = None
    period_s: int | None = None


@dataclass(frozen=True)
class Wallet:
    """What the wallet holds: ETH, and the token that is paid with; None where no token is asked for.

    `permission` is None where the key is the account's own, which may spend all of that.
    """

    eth: Wei
    tokens: Usdc | None = None
    permission: Permission | None = None


def permit(plan: Plan, *, total: Usdc, fair: Wei | None, wallet: Wallet, ceilings: Ceilings) -> None:
    """Judge one planned payment, of which `total` has to arrive, by its worst case.

    `fair` is what the total is worth in ETH by the price feeds; None when no feed is configured.

    Raises:
        PaymentForbidden: with the reason word and a remedy.
    """
    most = min(ceilings.payment, ceilings.price_min.wei_for_up(total))
    if plan.value > most:
        says = f"the payment may cost {plan.value}, the most that is ever paid for {total} is {most}"
        raise PaymentForbidden(Reason.PAYMENT_MAX, says)
    if fair is not None:
        deviation = deviation_bps_up(plan.value, fair)
        if deviation > ceilings.price_deviation:
            above = f"{deviation} above the feed's {fair}; the ceiling is {ceilings.price_deviation}"
            raise PaymentForbidden(Reason.PRICE_DEVIATION, f"the payment may cost {plan.value}, {above}")
    if plan.asset is not Asset.ETH:
        _permit_tokens(plan, total, wallet.tokens or Usdc(0), ceilings)
    if wallet.permission is not None:
        _permit_key(wallet.permission, plan.tokens + plan.token_fee, plan.ends_s)
    if plan.broadcaster is Broadcaster.US:
        _permit_gas(plan, wallet.eth, ceilings)


def _permit_gas(plan: Plan, held: Wei, ceilings: Ceilings) -> None:
    """Judge what a transaction of the wallet's own costs beyond what it pays for."""
    if plan.max_fee_per_gas > ceilings.gas_price:
        says = f"{plan.max_fee_per_gas.units} wei per gas is above the ceiling of {ceilings.gas_price.units}"
        raise PaymentForbidden(Reason.GAS_PRICE, says)
    network = plan.max_fee_per_gas.times(plan.gas_limit) + plan.l1_fee
    if network > ceilings.network_fee:
        raise PaymentForbidden(
            Reason.NETWORK_FEE,
            f"the network may take {network}, the ceiling is {ceilings.network_fee}",
            remedy="wait, or raise fees.network_fee_max_eth",
        )
    must_hold(held, plan.cost_max + ceilings.reserve, "this payment and the reserve need")


def _permit_tokens(plan: Plan, total: Usdc, held: Usdc, ceilings: Ceilings) -> None:
    """Judge what would leave in a token: exactly the total, and no more than the ceiling for the network."""
    if plan.tokens != total:
        raise PaymentForbidden(Reason.TOTAL, f"{plan.tokens} would leave, due are {total}")
    if plan.token_fee > ceilings.token_fee:
        raise PaymentForbidden(
            Reason.NETWORK_FEE,
            f"the network may take {plan.token_fee}, the ceiling is {ceilings.token_fee}",
            remedy="wait, or raise rails.mpp.network_fee_max_usd",
        )
    of, where = f" of {plan.asset}", f"to the wallet, on chain {plan.chain_id}"
    must_hold(held, plan.tokens + plan.token_fee, "this payment needs", of=of, where=where)


def must_hold(held: W, need: W, what: str, *, of: str = "", where: str = "to the wallet") -> None:
    """Forbid a payment for which the wallet holds too little; the remedy says how much to send `where`."""
    if held < need:
        says = f"the wallet holds {held}{of}, {what} {need}"
        raise PaymentForbidden(Reason.WALLET_LOW, says, remedy=f"send at least {need - held}{of} {where}")


def _permit_key(key: Permission, need: Usdc, ends_s: int) -> None:
    """Judge what an access key would spend: on the chain it would fail, and cost the network's fee."""
    usable(key, ends_s)
    if key.left is None or need <= key.left:
        return
    whole = f" of {key.limit}" if key.limit is not None else ""
    until = f" until {moment(key.ends_s)}" if key.ends_s else ""
    raised = "raise the limit: `topup wallet limit --amount USD`"
    again = key.ends_s and (key.limit is None or need <= key.limit)
    raise PaymentForbidden(
        Reason.ACCESS_LIMIT,
        f"the access key may still spend {key.left}{whole}{until}, this payment needs {need}, its fee included",
        remedy=f"wait until {moment(key.ends_s)}, or {raised}" if again else raised,
    )


def usable(key: Permission, ends_s: int = 0) -> None:
    """Judge whether an access key may sign what runs until `ends_s` at the latest, 0 for now.

    Raises:
        PaymentForbidden: it is not authorized, or no more by then.
    """
    if key.revoked:
        says, remedy = "the account has revoked this access key, and a key once revoked stays so", NEW_KEY
    elif key.expires_s == 0:
        says = "the account knows no such access key"
        remedy = "authorize it: `topup wallet limit --amount USD --period-days N`; or correct rails.mpp.root"
    elif key.expires_s <= max(ends_s, key.now_s):
        says, remedy = f"the access key expires at {moment(key.expires_s)}, and a key cannot be prolonged", NEW_KEY
    else:
        return
    raise PaymentForbidden(Reason.ACCESS_KEY, says, remedy=remedy)
