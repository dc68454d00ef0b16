"""Why does a top-up wait, why was it dropped, why is nothing paid? One word for each reason.

The words stand in the log, in `--json` and in the ledger, so they never change. Those of a decision are `policy.Why`,
those of a reading `credits.Doubt`; `remedies.py` says for each what would change it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The stable word for what keeps a decided top-up from getting on."""

    # What a decided top-up waits for.
    YOUNG_LEDGER = "young_ledger"
    BASELINE_UNSETTLED = "baseline_unsettled"
    CHARGE_UNANSWERED = "charge_unanswered"
    CHARGE_OLD = "charge_old"
    CHAIN_UNKNOWN = "chain_unknown"
    UNSTEADY = "unsteady"
    SENT = "sent"
    NONCE_MOVED = "nonce_moved"
    DEATHWATCH = "deathwatch"
    HALTED = "halted"
    UNSAFE = "unsafe"
    AMBIGUOUS = "ambiguous"
    # Why it was dropped.
    CHARGE_REFUSED = "charge_refused"
    CHARGE_REJECTED = "charge_rejected"
    NO_LONGER_NEEDED = "no_longer_needed"
    CANCELLED = "cancelled"
    # Why nothing is paid now, or at all.
    PLAN_STALE = "plan_stale"
    SIGNER = "signer"
    NONCE_AHEAD = "nonce_ahead"
    NONCE_BUSY = "nonce_busy"
    APPROVAL_UNSEEN = "approval_unseen"
    RULE_R = "rule_r"
    TOTAL = "total"
    PAYMENT_MAX = "payment_max"
    PRICE_UNKNOWN = "price_unknown"
    PRICE_DEVIATION = "price_deviation"
    GAS_PRICE = "gas_price"
    NETWORK_FEE = "network_fee"
    WALLET_LOW = "wallet_low"
    ACCESS_LIMIT = "access_limit"
    ACCESS_KEY = "access_key"
    SIMULATION = "simulation"
    SEQUENCER = "sequencer"
    NO_CODE = "no_code"
    CODE_CHANGED = "code_changed"
    NO_POOL = "no_pool"
    NO_APPROVAL = "no_approval"
    OTHER_WALLET = "other_wallet"
    AUTHORIZATION_USED = "authorization_used"
    NO_CANCEL = "no_cancel"
    NO_BUMP = "no_bump"
    BUMP_CEILING = "bump_ceiling"
    # What became of a wish that nobody carried out, or that a daemon follows.
    LATE = "late"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    RESUMED = "resumed"
    TAKEN = "taken"
