"""What would change that nothing is bought? A setting, a command or a flag for each reason, or how long it lasts.

Where it was decided with figures in hand, such as how many seconds are left, that sentence is said; this is what is
left of it where only the reason's word came across, as from a daemon to the command that asked it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LOOK: Final = "`topup doctor` names what is wrong; it is tried again by itself, and can be tried again at any time"
_KEY: Final = "put a valid management key into api.key_file, and see `topup doctor`"
_TOTALS: Final = "look at the account; when it is right, `topup resolve --accept-reading` once it has stood for a day"
_WALLET: Final = "send what is missing to the wallet; `topup doctor` says what it holds and on which chain"
_WAIT: Final = "wait until it ends by itself; `topup status` says what is waited for"
_ACCESS: Final = "make or authorize another access key: `topup wallet limit`"
_CONTRACT: Final = "pay nothing until `topup doctor` finds it in place; rails.use can name another way to pay"
_DEFECT: Final = "report it: it is a defect; what is open is stored"
_STATE: Final = "`topup status` says what it waits for, and `topup show` the whole of it"

REMEDIES: Final[Mapping[str, str]] = {
    # The rules of the policy.
    "above_floor": "nothing; to buy all the same, raise policy.floor, or name an amount: `topup once --amount USD`",
    "unknown": _LOOK,
    "stale": "wait for another reading; policy.fresh_s says how old one may be",
    "observe_only": "set mode = live to let topup pay",
    "paused": "`topup resume` when it may go on",
    "endpoint_gone": "top up by hand, or point api.url at a gateway that serves it, then `topup resume`",
    "open_topup": "wait until it is finished; `topup status` says what it waits for",
    "cooldown": "wait, lower policy.cooldown_s, or skip the wait: `topup once --force`",
    "backoff": "wait, lower policy.backoff_s, or skip the wait: `topup once --force`",
    "too_many_failures": "find the cause in `topup history`, then `topup resume`",
    "runaway": "find out what burns the credits; `topup resume` makes this pace the usual one for 14 days",
    "cap_24h": "raise policy.cap_24h, or wait until older payments are a day ago",
    "cap_30d": "raise policy.cap_30d, or wait until older payments are 30 days ago",
    "count_24h": "raise policy.count_24h, or wait until older top-ups are a day ago",
    "revert_gas": "see `topup history`; wait, or raise policy.revert_gas_24h_eth",
    "charge_rate": "wait, or raise policy.charges_per_hour",
    "first_purchase": "make the first purchase by hand: `topup once --amount USD`",
    "amount_out_of_bounds": "choose an amount within policy.topup_min and policy.topup_max",
    # Doubts of a reading.
    "no_answer": _LOOK,
    "malformed": _LOOK,
    "limited": "wait: the API asks for patience; watch.poll_fastest_s says how often it is asked",
    "unauthorized": _KEY,
    "gone": "correct api.url, and see `topup doctor`",
    "key_unproven": "wait for the next reading: whether the key may tell the credits is not known yet",
    "ordinary_key": _KEY,
    "zero_zero": "see that api.key_file holds a key of this account",
    "credits_fell": _TOTALS,
    "usage_fell": f"watch.usage_fall_max says what is believed after an hour; else {_TOTALS}",
    # What keeps a decided top-up from being paid.
    "young_ledger": "wait (rails.young_s), let `topup run` do it, or skip the wait: `topup once --force`",
    "baseline_unsettled": "wait: credits rose moments ago; watch.staleness_s says for how long that matters",
    "charge_unanswered": "see whether the seller still sells: `topup doctor --rail`; api.timeout_s bounds its answer",
    "charge_old": _WAIT,
    "charge_refused": "`topup doctor --rail` shows what the seller asks for, and the setting that decides each line",
    "charge_rejected": "see what the seller says of the request, in the log and in `topup show`",
    "chain_unknown": "see `topup doctor`: too few of chain.rpc_urls can be believed, as chain.quorum wants",
    "unsteady": "wait for the next pass; `topup doctor` names a provider that is behind or wrong",
    "plan_stale": "the providers answer too slowly: see chain.timeout_s and posting.plan_fresh_s",
    "price_unknown": "wait, or correct chain.price_feed and chain.rpc_urls; `topup doctor` shows the price",
    "price_deviation": "wait for the pool to recover, or raise price.deviation_bps",
    "simulation": "see `topup doctor`, which makes the same dry run and says why it failed",
    "sequencer": "wait until the chain's sequencer is up again; chain.sequencer_feed says so",
    "no_code": _CONTRACT,
    "code_changed": f"{_CONTRACT}; chain.contract_code_hash pins the code that is paid",
    "no_pool": "set chain.quoter and chain.tiers to a pool that holds enough, or pay in USDC: rails.coinbase.pay_with",
    "no_approval": _CONTRACT,
    "other_wallet": "correct wallet.address, or name the key of the wallet that the charge was asked for",
    "payment_max": "see wallet.payment_max_eth and price.eth_usd_min",
    "gas_price": "wait, or raise fees.gas_price_max_gwei",
    "network_fee": "wait, or raise fees.network_fee_max_eth (rails.mpp.network_fee_max_usd where dollars pay it)",
    "wallet_low": _WALLET,
    "access_limit": f"wait until it may spend again, or {_ACCESS}",
    "access_key": _ACCESS,
    "signer": "see wallet.keystore and mode: `topup doctor` opens the key and says why it cannot",
    "nonce_ahead": "`topup reconcile` names what was sent and takes it over with --adopt",
    "nonce_busy": _WAIT,
    "authorization_used": _WAIT,
    "approval_unseen": "see which provider is behind or wrong: `topup doctor`",
    "no_longer_needed": "nothing: the account is above its floor again; `topup once --amount USD` buys all the same",
    "cancelled": "ask for it anew: `topup once`",
    "total": _DEFECT,
    "rule_r": _DEFECT,
    # What became of a wish that nobody carried out.
    "withdrawn": "ask for it again; --timeout says how long a command waits",
    "late": "ask for it again while `topup run` is there, or without it",
    "failed": "see the daemon's log, then ask for it again",
}


def remedy(why: str) -> str:
    """Return what would change that, or where to look for what would."""
    return REMEDIES.get(why, _STATE)
