"""What do the settings mean in the terms of the flow? Below here, plain values are all that is known of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from topup.app.settings import Settings
from topup.domain.errors import SettingsError
from topup.domain.money import WEI_PER_ETH, Asset, Bps, EthPrice, Usd, Wei
from topup.domain.policy import Ceilings, Limits
from topup.payment.config import COINBASE, MPP, X402, Account, Pace, Route

if TYPE_CHECKING:  # what a command that only reads the ledger need not load
    from topup.chain.profiles import Profile
    from topup.domain.coinbase_charge import Pins
    from topup.ledger.store import SqliteStore
    from topup.sellers.x402_profile import Profile as Seller

# How long the credits of a small purchase take to be posted, the staleness of the API included.
POSTED_S = 300
# An authorization with less time left than this would die on its way.
LIFE_MIN_S = 30


def account(s: Settings, wallet: bytes | None) -> Account:
    """Return whose credits are bought, and in which ways."""
    from topup.domain.dollars import TEMPO_DOLLAR  # either dollar is on the same chain

    chains = {COINBASE: s.chain.id, MPP: TEMPO_DOLLAR.chain_id, X402: s.chain.id}
    routes = tuple(Route(name, chains[name], partial(loaded, name)) for name in s.rails_in_use)
    return Account(s.account, wallet, routes, chosen=s.rails.use is not None)


def rails_before(s: Settings, store: SqliteStore) -> str | None:
    """Return by which rails this ledger bought, where it would be by others now that nobody has chosen."""
    return account(s, None).other_rails(store.control(s.account).rails) if store.begun(s.account) else None


def pay_with(s: Settings) -> Asset:
    """Return what a Coinbase charge is paid with."""
    return Asset(s.rails.coinbase.pay_with.upper())


def wei(eth: Decimal) -> Wei:
    """Return an amount of ETH in wei, rounded down."""
    return Wei(int(eth * WEI_PER_ETH))


def limits(s: Settings) -> Limits:
    """Return the policy's limits."""
    p, amount = s.policy, s.policy.fixed_amount
    return Limits(
        live=s.mode == "live",
        floor=Usd(p.highest_floor),
        requests_floor=None if p.requests_floor is None else Usd(p.requests_floor),
        floor_hours=p.floor_hours,
        amount=None if amount is None else Usd(amount),
        target=None if p.target is None else Usd(p.target),
        topup_min=Usd(p.topup_min),
        topup_max=Usd(p.topup_max),
        fee_ceiling=Bps(s.fee_ceiling_bps),
        cap_24h=Usd(p.cap_24h),
        cap_30d=Usd(p.cap_30d),
        count_24h=p.count_24h,
        revert_gas_24h=wei(p.revert_gas_24h_eth),
        cooldown_ms=p.cooldown_s * 1000,
        backoff_ms=p.backoff_s * 1000,
        failures_max=p.failures_max,
        charges_per_hour=p.charges_per_hour,
        fresh_ms=p.fresh_s * 1000,
        burn_factor_max=p.burn_factor_max,
        burn_floor=Usd(p.burn_floor),
        usage_fall_max=Usd(s.watch.usage_fall_max),
    )


def price_min(s: Settings) -> EthPrice:
    """Return the lowest plausible price of ETH, as a feed would state it."""
    return EthPrice(int(s.price.eth_usd_min * 10**8))


def ceilings(s: Settings) -> Ceilings:
    """Return what one payment may cost beyond its dollars."""
    return Ceilings(
        price_deviation=Bps(s.price.deviation_bps),
        gas_price=Wei(int(s.fees.gas_price_max_gwei * 10**9)),
        network_fee=wei(s.fees.network_fee_max_eth),
        reserve=wei(s.wallet.reserve_eth),
        payment=wei(s.wallet.payment_max_eth),
        price_min=price_min(s),
        token_fee=Usd(s.rails.mpp.network_fee_max_usd).usdc_down(),
    )


def _young_s(s: Settings) -> int:
    """Return until when, in seconds, an authorization that a lost ledger signed has ended, and been posted if used."""
    lives = {MPP: s.rails.mpp.life_max_s, X402: s.rails.x402.life_max_s}
    return max((lives.get(rail, 0) for rail in s.rails_in_use), default=0) + POSTED_S


def pace(s: Settings) -> Pace:
    """Return how often things are looked at."""
    return Pace(
        poll_fastest_s=s.watch.poll_fastest_s,
        poll_slowest_s=s.watch.poll_slowest_s,
        young_s=s.rails.young_s if s.rails.young_s is not None else _young_s(s),
        staleness_s=s.watch.staleness_s,
        unknown_alert_s=s.watch.unknown_alert_s,
        key_recheck_s=s.watch.key_recheck_s,
        resend_s=s.posting.resend_s,
        posting_poll_s=s.posting.poll_s,
        posting_late_s=s.posting.late_s,
        posting_late_large_s=s.posting.late_large_s,
        large=Usd(s.posting.large),
        plan_fresh_s=s.posting.plan_fresh_s,
        retries_max=s.posting.retries_max,
        bump_after_s=s.fees.bump_after_s,
        bump_max=s.fees.bump_max,
    )


def seller(s: Settings) -> Seller:
    """Return the record of the x402 rail's seller; a SettingsError where there is none, or its file cannot be read."""
    from topup.sellers import x402_profile

    return x402_profile.profile(s.rails.x402.profile)


def profile(s: Settings) -> Profile:
    """Return the chain's profile with the settings' replacements; a SettingsError where this chain has none."""
    from topup.chain.profiles import PROFILES

    if s.chain.id not in PROFILES:
        known = ", ".join(map(str, PROFILES))
        raise SettingsError(f"chain.id {s.chain.id} has no profile", remedy=f"choose one of {known}")
    base, c, r = PROFILES[s.chain.id], s.chain, s.rails.coinbase

    def feed(said: str | None, own: bytes | None) -> bytes | None:
        return own if said is None else None if said == "off" else address(said)

    return replace(
        base,
        contract=address(r.contract) if r.contract else base.contract,
        contract_code_hash=bytes.fromhex(c.contract_code_hash[2:]) if c.contract_code_hash else base.contract_code_hash,
        operators=addresses(r.operators) or base.operators,
        prefixes=frozenset(b"" if p == "eip191" else bytes.fromhex(p[2:]) for p in r.prefixes) or base.prefixes,
        quoter=address(c.quoter) if c.quoter else base.quoter,
        tiers=c.tiers or base.tiers,
        price_feed=feed(c.price_feed, base.price_feed),
        sequencer_feed=feed(c.sequencer_feed, base.sequencer_feed),
    )


def pins(s: Settings, learnt: str | None) -> Pins:
    """Return what a charge must match; `learnt` holds recipients pinned by hand, separated by commas."""
    from topup.domain.coinbase_charge import Pins

    chain, r = profile(s), s.rails.coinbase
    recipients = [*r.recipients, *(learnt.split(",") if learnt else [])]
    return Pins(
        contract=chain.contract,
        currency=chain.currency,
        operators=chain.operators,
        recipients=addresses(recipients),
        prefixes=chain.prefixes,
        fee_ceiling=Bps(r.fee_ceiling_bps),
        fee_part_ceiling=Bps(r.fee_part_bps),
        life_min_s=r.life_min_s,
        life_max_s=r.life_max_s,
    )


# What is loaded before a payment by a rail; web3.py, by which one of ours leaves, takes a third of a second.
RUNS: dict[str, tuple[str, ...]] = {
    COINBASE: ("topup.sellers.coinbase", "topup.chain.contract_chain", "topup.chain.submission"),
    MPP: ("topup.sellers.mpp", "topup.chain.token_chain"),
    X402: ("topup.sellers.x402", "topup.chain.token_chain"),
}


def loaded(rail: str) -> None:
    """Load the code that a payment by a rail runs through; what is loaded already costs nothing."""
    for module in (*RUNS[rail], "topup.signers.keystore"):  # the last brings what signs, whatever kind of key it is
        import_module(module)
    if rail == COINBASE:
        from topup.chain import contracts

        contracts.ready()


def told_by(s: Settings) -> Seller:
    """Return who tells the balance, and how: the x402 rail's seller, or the mpp rail's, which wants a key."""
    if s.api.kind != MPP:
        return seller(s)
    from topup.sellers.x402_profile import keyed

    asked = s.rails.mpp.fields
    return keyed(asked.balance_path, asked.balance_field)


def address(text: str) -> bytes:
    """Return an address as bytes; settings and ledger hold it as 0x and hex digits."""
    return bytes.fromhex(text.removeprefix("0x"))


def addresses(texts: Iterable[str]) -> frozenset[bytes]:
    """Return addresses as bytes."""
    return frozenset(map(address, texts))
