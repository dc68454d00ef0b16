"""Why does a top-up wait, why was it dropped, why is nothing paid? One word for each reason, and what would change it.

The words stand in the log, in `--json` and in the ledger, so they never change. Those of a decision are `policy.Why`,
those of a reading `credits.Doubt`. Where it was decided with figures in hand, such as how many seconds are left, that
sentence is said; what stands beside a word is what is left of it where only the word came across, as from a daemon to
the command that asked it.
"""

from enum import StrEnum
from typing import Final, Self

# A setting, a command or a flag that would change it, or how long it lasts.
LOOK: Final = "`topup doctor` names what is wrong; it is tried again by itself, and can be tried again at any time"
KEY: Final = "put a valid management key into api.key_file, and see `topup doctor`"
TOTALS: Final = "look at the account; when it is right, `topup resolve --accept-reading` once it has stood for a day"
WALLET: Final = "send what is missing to the wallet; `topup doctor` says what it holds and on which chain"
WAIT: Final = "wait until it ends by itself; `topup status` says what is waited for"
ACCESS: Final = "make or authorize another access key: `topup wallet limit`"
CONTRACT: Final = "pay nothing until `topup doctor` finds it in place; rails.use can name another way to pay"
DEFECT: Final = "report it: it is a defect; what is open is stored"


class Worded(StrEnum):
    """A stable word, and beside it what would change what it says; "" where nothing has to."""

    remedy: str

    def __new__(cls, word: str, remedy: str = "") -> Self:
        """Keep the remedy beside the word."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.remedy = remedy
        return member


class Reason(Worded):
    """The stable word for what keeps a decided top-up from getting on."""

    # What a decided top-up waits for.
    YOUNG_LEDGER = "young_ledger", "wait (rails.young_s), let `topup run` do it, or skip the wait: `topup once --force`"
    BASELINE_UNSETTLED = (
        "baseline_unsettled",
        "wait: credits rose moments ago; watch.staleness_s says for how long that matters",
    )
    CHARGE_UNANSWERED = (
        "charge_unanswered",
        "see whether the seller still sells: `topup doctor --rail`; api.timeout_s bounds its answer",
    )
    CHARGE_OLD = "charge_old", WAIT
    CHAIN_UNKNOWN = (
        "chain_unknown",
        "see `topup doctor`: too few of chain.rpc_urls can be believed, as chain.quorum wants",
    )
    UNSTEADY = "unsteady", "wait for the next pass; `topup doctor` names a provider that is behind or wrong"
    SENT = "sent"
    NONCE_MOVED = "nonce_moved"
    DEATHWATCH = "deathwatch"
    HALTED = "halted"
    UNSAFE = "unsafe"
    AMBIGUOUS = "ambiguous"
    # Why it was dropped.
    CHARGE_REFUSED = (
        "charge_refused",
        "`topup doctor --rail` shows what the seller asks for, and the setting that decides each line",
    )
    CHARGE_REJECTED = "charge_rejected", "see what the seller says of the request, in the log and in `topup show`"
    NO_LONGER_NEEDED = (
        "no_longer_needed",
        "nothing: the account is above its floor again; `topup once --amount USD` buys all the same",
    )
    CANCELLED = "cancelled", "ask for it anew: `topup once`"
    # Why nothing is paid now, or at all.
    PLAN_STALE = "plan_stale", "the providers answer too slowly: see chain.timeout_s and posting.plan_fresh_s"
    SIGNER = "signer", "see wallet.keystore and mode: `topup doctor` opens the key and says why it cannot"
    NONCE_AHEAD = "nonce_ahead", "`topup reconcile` names what was sent and takes it over with --adopt"
    NONCE_BUSY = "nonce_busy", WAIT
    APPROVAL_UNSEEN = "approval_unseen", "see which provider is behind or wrong: `topup doctor`"
    RULE_R = "rule_r", DEFECT
    TOTAL = "total", DEFECT
    PAYMENT_MAX = "payment_max", "see wallet.payment_max_eth and price.eth_usd_min"
    PRICE_UNKNOWN = (
        "price_unknown",
        "wait, or correct chain.price_feed and chain.rpc_urls; `topup doctor` shows the price",
    )
    PRICE_DEVIATION = "price_deviation", "wait for the pool to recover, or raise price.deviation_bps"
    GAS_PRICE = "gas_price", "wait, or raise fees.gas_price_max_gwei"
    NETWORK_FEE = (
        "network_fee",
        "wait, or raise fees.network_fee_max_eth (rails.mpp.network_fee_max_usd where dollars pay it)",
    )
    WALLET_LOW = "wallet_low", WALLET
    ACCESS_LIMIT = "access_limit", f"wait until it may spend again, or {ACCESS}"
    ACCESS_KEY = "access_key", ACCESS
    SIMULATION = "simulation", "see `topup doctor`, which makes the same dry run and says why it failed"
    SEQUENCER = "sequencer", "wait until the chain's sequencer is up again; chain.sequencer_feed says so"
    NO_CODE = "no_code", CONTRACT
    CODE_CHANGED = "code_changed", f"{CONTRACT}; chain.contract_code_hash pins the code that is paid"
    NO_POOL = (
        "no_pool",
        "set chain.quoter and chain.tiers to a pool that holds enough, or pay in USDC: rails.coinbase.pay_with",
    )
    NO_APPROVAL = "no_approval", CONTRACT
    OTHER_WALLET = "other_wallet", "correct wallet.address, or name the key of the wallet that the charge was asked for"
    AUTHORIZATION_USED = "authorization_used", WAIT
    NO_CANCEL = "no_cancel"
    NO_BUMP = "no_bump"
    BUMP_CEILING = "bump_ceiling"
    # What became of a wish that nobody carried out, or that a daemon follows.
    LATE = "late", "ask for it again while `topup run` is there, or without it"
    FAILED = "failed", "see the daemon's log, then ask for it again"
    WITHDRAWN = "withdrawn", "ask for it again; --timeout says how long a command waits"
    RESUMED = "resumed"
    TAKEN = "taken"


# Why a top-up is dropped where nothing went wrong.
AS_IT_SHOULD_BE: Final = frozenset({Reason.NO_LONGER_NEEDED, Reason.CANCELLED, Reason.WITHDRAWN})
