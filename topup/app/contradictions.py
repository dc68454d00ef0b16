"""Do the settings fit together? Each contradiction names the settings and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from topup.app.sections import ChainSection
from topup.app.setting_types import LOOPBACK
from topup.chain.owners import quorum
from topup.domain.errors import FileAway, SettingsError
from topup.domain.money import plain

if TYPE_CHECKING:  # which are read, and then judged here
    from topup.app.settings import Settings


def contradictions(s: Settings) -> list[str]:
    """Return every contradiction between settings, each naming the fields and the remedy."""
    return [*_amounts(s), *_rails(s), *_seller(s), *_keys(s), *_pace(s), *_told(s), *_places(s)]


def _extremes(s: Settings) -> tuple[Decimal, Decimal]:
    """Return the least and the most that a top-up may be of."""
    fixed = s.policy.fixed_amount
    return (fixed, fixed) if fixed is not None else (s.policy.topup_min, s.policy.topup_max)


def _amounts(s: Settings) -> Iterator[str]:
    p, price = s.policy, s.price
    amount, (_, largest) = p.fixed_amount, _extremes(s)
    if p.amount is not None and p.target is not None:
        yield "policy.amount and policy.target exclude each other: remove one"
    if p.request_max_usd is None and p.requests_at_once is not None:
        yield "policy.requests_at_once needs policy.request_max_usd: set it, or remove policy.requests_at_once"
    yield from _passable(s)
    if p.topup_min > p.topup_max:
        yield f"policy.topup_min {p.topup_min} is above policy.topup_max {p.topup_max}"
    if amount is not None and not p.topup_min <= amount <= p.topup_max:
        yield f"policy.amount {amount} is outside policy.topup_min {p.topup_min} to policy.topup_max {p.topup_max}"
    # Up to a target the largest top-up may be needed, and one that no cap admits would be refused for ever.
    cost = largest * (10_000 + s.fee_ceiling_bps) / 10_000
    if p.cap_24h < cost:
        lower = "amount" if amount is not None else "topup_max"
        too_low = f"policy.cap_24h {p.cap_24h} is below the {plain(cost)} that a top-up of {largest} may cost"
        yield f"{too_low}: raise it, or lower policy.{lower}"
    if p.cap_30d < p.cap_24h:
        yield f"policy.cap_30d {p.cap_30d} is below policy.cap_24h {p.cap_24h}"
    if p.burn_factor_max == 1:
        faster = "policy.burn_factor_max 1 would stop at every hour faster than usual"
        yield f"{faster}: choose 2 or more, or 0 to switch it off"
    if price.deviation_bps <= price.slippage_bps:
        above = f"price.deviation_bps {price.deviation_bps} is not above price.slippage_bps {price.slippage_bps}"
        yield f"{above}: every payment would be refused"


def _passable(s: Settings) -> Iterator[str]:
    """Refuse a floor that one refill of an empty account does not reach: each refill would ask for the next."""
    p, (_, largest) = s.policy, _extremes(s)
    floor, own = p.highest_floor, f"policy.floor {p.floor}"
    if p.requests_floor == floor:
        own = f"the {plain(floor)} of policy.request_max_usd times policy.requests_at_once"
    if p.target is not None and p.target <= floor:
        yield f"policy.target {p.target} must be above {own}, or every top-up asks for the next"
    elif largest < floor:
        setting = "amount" if p.fixed_amount is not None else "topup_max"
        yield f"policy.{setting} {largest} is below {own}: one refill would not pass it; raise it, or lower the floor"


def _rails(s: Settings) -> Iterator[str]:
    use, mpp, coinbase = s.rails_in_use, s.rails.mpp, s.rails.coinbase
    if mpp.life_min_s >= mpp.life_max_s:
        yield "rails.mpp.life_min_s must be below rails.mpp.life_max_s"
    if coinbase.life_min_s >= coinbase.life_max_s:
        yield "rails.coinbase.life_min_s must be below rails.coinbase.life_max_s"
    # What is bought has to be what is watched.
    if s.api.kind == "mpp" and (use != ("mpp",) or not mpp.fields.balance_path):
        reads = "api.kind mpp reads the balance of the one seller that rails.mpp.fields describes"
        yield f"{reads}: set rails.use to mpp alone, and rails.mpp.fields.balance_path"
    if (s.api.kind == "x402") != (use == ("x402",)):
        alone = "rails.use x402 goes alone, with api.kind x402, and the other rails with api.kind openrouter"
        yield f"api.kind {s.api.kind} does not watch what {', '.join(use)} buys: {alone}"
    if mpp.root is None:
        return
    if s.wallet.address not in (None, mpp.root):
        differ = f"wallet.address {s.wallet.address} is not rails.mpp.root {mpp.root}, the account that pays"
        yield f"{differ}: make them one, or remove wallet.address"
    if mpp.sponsored:
        yield "rails.mpp.sponsored pays by the wallet's own key: sponsors take no access key; remove rails.mpp.root"
    if use != ("mpp",):
        yield "rails.mpp.root is another account than the key's own: set rails.use to mpp alone, or remove it"


def _seller(s: Settings) -> Iterator[str]:
    if s.rails_in_use != ("x402",):
        return
    # Its models cost a tenth of a second, and most settings name no seller.
    from topup.sellers.x402_profile import profile

    try:
        seller = profile(s.rails.x402.profile)
    except FileAway:
        raise  # no contradiction: it may be mounted yet
    except SettingsError as error:
        yield f"{error}; {error.remedy}"
        return
    sale, (least, most) = seller.sell, _extremes(s)
    low, high = ("amount", "amount") if s.policy.fixed_amount is not None else ("topup_min", "topup_max")
    if not sale.recipients and not s.rails.x402.recipients:
        yield "rails.x402.recipients is empty: name who may be paid, as the seller publishes it"
    if sale.least_usd is not None and least < sale.least_usd:
        yield f"policy.{low} {least} is below the {sale.least_usd} that {seller.name} sells at least: raise it"
    if sale.most_usd is not None and most > sale.most_usd:
        yield f"policy.{high} {most} is above the {sale.most_usd} that {seller.name} sells at most"


def _keys(s: Settings) -> Iterator[str]:
    w, password = s.wallet, s.wallet.keystore_password_file
    named = {"keystore": w.keystore, "private_key": w.private_key, "private_key_file": w.private_key_file}
    keys = [name for name, value in named.items() if value]
    if len(keys) > 1:
        yield f"wallet.{' and wallet.'.join(keys)} exclude each other: keep one"
    if w.keystore is not None and password is None and "CREDENTIALS_DIRECTORY" not in os.environ:
        yield "wallet.keystore needs wallet.keystore_password_file"
    if s.mode == "live" and not keys:
        yield "mode = live needs a key: set wallet.keystore and wallet.keystore_password_file"
    if w.keystore is None and password is not None:
        yield "wallet.keystore_password_file is set without wallet.keystore"
    if s.api.key is not None and s.api.key_file is not None:
        yield "api.key and api.key_file exclude each other: keep one"


def _pace(s: Settings) -> Iterator[str]:
    fastest, slowest, stale = s.watch.poll_fastest_s, s.watch.poll_slowest_s, s.watch.staleness_s
    late, late_large = s.posting.late_s, s.posting.late_large_s
    if fastest > slowest:
        yield f"watch.poll_fastest_s {fastest} is above watch.poll_slowest_s {slowest}"
    if fastest < stale:
        below = f"watch.poll_fastest_s {fastest} is below watch.staleness_s {stale}"
        yield f"{below}: it would read the same answer again"
    if late <= stale:
        yield f"posting.late_s {late} is not above watch.staleness_s {stale}: every payment would look late"
    if late_large < late:
        yield f"posting.late_large_s {late_large} is below posting.late_s {late}"


def _told(s: Settings) -> Iterator[str]:
    n = s.notify
    if n.email_to and n.smtp_host is None:
        yield "notify.email_to needs notify.smtp_host: name the relay that takes e-mails"
    if n.smtp_user is not None and n.smtp_tls == "none" and n.smtp_host not in LOOPBACK:
        yield "notify.smtp_user would send a password unencrypted: set notify.smtp_tls to starttls or tls"


def _places(s: Settings) -> Iterator[str]:
    if not s.state_dir.is_absolute():
        yield f"state_dir {s.state_dir} is not absolute: it would depend on where topup starts"
    if s.chain.quorum is not None and s.chain.quorum > quorum(s.chain.rpc_urls, None):
        one_owner = "chain.quorum is 2 and chain.rpc_urls are all of one owner"
        yield f"{one_owner}: add a provider of another, or set chain.quorum = 1"
    if s.chain.id != ChainSection.model_fields["id"].default:  # the profiles' imports are slow
        from topup.chain.profiles import PROFILES

        if s.chain.id not in PROFILES:
            yield f"chain.id {s.chain.id} has no profile in this program: use 8453 (Base)"
