"""How do settings become a running cycle? The one place where values from the settings meet concrete edges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from topup.app.settings import Settings, fee_ceiling_bps, fixed_amount, secret, token
from topup.domain.errors import SettingsError, SignerError
from topup.domain.json_document import read
from topup.domain.lifecycle import MONEY_OUT
from topup.domain.money import WEI_PER_ETH, Asset, Bps, EthPrice, Usd, Wei
from topup.domain.notes import Note
from topup.domain.policy import Ceilings, Limits, worst_spend
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, X402, Account, Pace, Route, Terms
from topup.wire import files
from topup.wire.clock import SystemClock

if TYPE_CHECKING:  # what a command that only reads the ledger need not load
    from topup.chain.contract_chain import EvmChain
    from topup.chain.profiles import Profile
    from topup.chain.providers import Providers
    from topup.chain.rpc import Rpc
    from topup.chain.search import Search
    from topup.chain.token_chain import AuthorizedChain
    from topup.domain.coinbase_charge import Pins
    from topup.domain.dollars import Dollar
    from topup.domain.events import Event
    from topup.payment.cycle import Cycle
    from topup.ports.account import Clock, Sink
    from topup.ports.budget import Budget
    from topup.ports.rail import Rail
    from topup.ports.signer import Signer
    from topup.sellers.mpp_fields import Fields
    from topup.sellers.openrouter import OpenRouter
    from topup.sellers.x402_account import Prepaid
    from topup.sellers.x402_profile import Profile as Seller
    from topup.sellers.x402_wire import Login
    from topup.signers.local import LocalSigner
    from topup.wire.exchange import Exchange
    from topup.wire.secrets import Masker

# A block of Base is safe within minutes; after this the provider or the chain deserves a look.
SAFE_LATE_S = 900
# How long the credits of a small purchase take to be posted, the staleness of the API included.
POSTED_S = 300
# Receipts have lagged behind the nonce for three quarters of an hour; after this a person should look.
NONCE_LATE_S = 3600
# An authorization with less time left than this would die on its way.
LIFE_MIN_S = 30


@dataclass
class Works:
    """A cycle with everything it runs on."""

    cycle: Cycle
    api: OpenRouter | Prepaid
    store: SqliteStore
    rails: Callable[[str], Rail]
    rpcs: list[Rpc]
    sellers: list[Exchange]
    wallet: bytes | None
    preferred: str

    def rail(self) -> Rail:
        """Return the rail that is preferred."""
        return self.rails(self.preferred)

    def rpc_requests(self) -> int:
        """Return how many requests went to providers."""
        return sum(rpc.requests for rpc in self.rpcs)

    async def close(self) -> None:
        """Close what is open."""
        await self.api.close()
        for seller in self.sellers:
            await seller.close()
        for rpc in self.rpcs:
            await rpc.close()
        self.store.close()


def account(s: Settings, wallet: bytes | None) -> Account:
    """Return whose credits are bought, and in which ways."""
    from topup.domain.dollars import TEMPO_DOLLAR  # either dollar is on the same chain

    chains = {COINBASE: s.chain.id, MPP: TEMPO_DOLLAR.chain_id, X402: s.chain.id}
    return Account(s.account, wallet, tuple(Route(name, chains[name], partial(loaded, name)) for name in s.rails.use))


def pay_with(s: Settings) -> Asset:
    """Return what a Coinbase charge is paid with."""
    return Asset(s.rails.coinbase.pay_with.upper())


def wei(eth: Decimal) -> Wei:
    """Return an amount of ETH in wei, rounded down."""
    return Wei(int(eth * WEI_PER_ETH))


def limits(s: Settings) -> Limits:
    """Return the policy's limits."""
    p = s.policy
    amount = fixed_amount(s)
    return Limits(
        live=s.mode == "live",
        floor=Usd(p.floor),
        floor_hours=p.floor_hours,
        amount=None if amount is None else Usd(amount),
        target=None if p.target is None else Usd(p.target),
        topup_min=Usd(p.topup_min),
        topup_max=Usd(p.topup_max),
        fee_ceiling=Bps(fee_ceiling_bps(s)),
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
    return max((lives.get(rail, 0) for rail in s.rails.use), default=0) + POSTED_S


def pace(s: Settings) -> Pace:
    """Return how often things are looked at."""
    return Pace(
        poll_fastest_s=s.watch.poll_fastest_s,
        poll_slowest_s=s.watch.poll_slowest_s,
        young_s=s.rails.young_s if s.rails.young_s is not None else _young_s(s),
        staleness_s=s.watch.staleness_s,
        unknown_alert_s=s.watch.unknown_alert_s,
        key_recheck_s=s.watch.key_recheck_s,
        block_s=2,
        resend_s=s.posting.resend_s,
        posting_poll_s=s.posting.poll_s,
        posting_late_s=s.posting.late_s,
        posting_late_large_s=s.posting.late_large_s,
        safe_late_s=SAFE_LATE_S,
        large=Usd(s.posting.large),
        plan_fresh_s=s.posting.plan_fresh_s,
        retries_max=s.posting.retries_max,
        bump_after_s=s.fees.bump_after_s,
        bump_max=s.fees.bump_max,
        nonce_late_s=NONCE_LATE_S,
    )


def api_key(s: Settings) -> str:
    """Return the key of the credits API.

    Raises:
        SettingsError: there is none.
    """
    key = secret(s.api.key, s.api.key_file, "topup-api-key", "api.key_file")
    if key is None:
        raise SettingsError(
            "api.key is missing", remedy="set TOPUP_API__KEY_FILE to a file that holds a management key"
        )
    return token(key, "api.key")


def api(s: Settings, clock: Clock, store: SqliteStore | None = None, key: Signer | None = None) -> OpenRouter | Prepaid:
    """Return the client of whoever tells the credits; `key` logs in where a gateway knows the wallet.

    Raises:
        SettingsError: there is no key.
    """
    from topup.sellers.openrouter import OpenRouter
    from topup.wire.exchange import Exchange

    exchange = Exchange(s.api.url, timeout_s=s.api.timeout_s)
    if s.api.kind == "openrouter":
        return OpenRouter(exchange, api_key(s), now_ms=clock.now_ms)
    from topup.sellers.x402_account import Prepaid

    asked = _told_by(s)
    login = _login(s, key) if asked.balance.auth == "login" else None
    return Prepaid(
        exchange,
        asked,
        key=api_key(s) if asked.balance.auth == "key" else "",
        login=login,
        wallet=(login.address if login is not None else _account(s, key)) if "{wallet}" in asked.balance.path else b"",
        last=lambda: store.last_reading(s.account) if store is not None else None,
        now_ms=clock.now_ms,
    )


def _told_by(s: Settings) -> Seller:
    """Return who tells the balance, and how: the x402 rail's seller, or the mpp rail's, which wants a key."""
    if s.api.kind != MPP:
        return seller(s)
    from topup.sellers.x402_profile import keyed

    told = fields(s)
    return keyed(told.balance_path, told.balance_field)


def seller(s: Settings) -> Seller:
    """Return the record of the x402 rail's seller.

    Raises:
        SettingsError: there is none of that name, or its file cannot be read.
    """
    from topup.sellers import x402_profile

    return x402_profile.profile(s.rails.x402.profile)


def _login(s: Settings, key: Signer | None) -> Login:
    """Return who logs in where a seller knows the wallet.

    Raises:
        SettingsError: there is no key to sign with.
    """
    from topup.sellers.x402_wire import Login

    owner = key if key is not None else signer(s)
    if owner is None:
        raise SettingsError("wallet.keystore is missing", remedy="this gateway is logged in to with the wallet's key")
    return Login(owner, s.chain.id)


def _account(s: Settings, key: Signer | None) -> bytes:
    """Return the wallet whose account a seller keeps, where the key of its API is no key of the wallet.

    Raises:
        SettingsError: no wallet is set.
    """
    owner = key.address if key is not None else known(s) or wallet(s)
    if owner is None:
        raise SettingsError(
            "no wallet is set", remedy="set wallet.address: this seller keeps an account for each wallet"
        )
    return owner


def profile(s: Settings) -> Profile:
    """Return the chain's profile with the settings' replacements.

    Raises:
        SettingsError: no profile of this chain.
    """
    from topup.chain.profiles import PROFILES

    if s.chain.id not in PROFILES:
        known = ", ".join(map(str, PROFILES))
        raise SettingsError(f"chain.id {s.chain.id} has no profile", remedy=f"choose one of {known}")
    base, c, r = PROFILES[s.chain.id], s.chain, s.rails.coinbase

    def feed(said: str | None, own: bytes | None) -> bytes | None:
        return own if said is None else None if said == "off" else _address(said)

    return replace(
        base,
        contract=_address(r.contract) if r.contract else base.contract,
        contract_code_hash=bytes.fromhex(c.contract_code_hash[2:]) if c.contract_code_hash else base.contract_code_hash,
        operators=frozenset(map(_address, r.operators)) or base.operators,
        prefixes=frozenset(b"" if p == "eip191" else bytes.fromhex(p[2:]) for p in r.prefixes) or base.prefixes,
        quoter=_address(c.quoter) if c.quoter else base.quoter,
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
        recipients=frozenset(map(_address, recipients)),
        prefixes=chain.prefixes,
        fee_ceiling=Bps(r.fee_ceiling_bps),
        fee_part_ceiling=Bps(r.fee_part_bps),
        life_min_s=r.life_min_s,
        life_max_s=r.life_max_s,
    )


def signer(s: Settings) -> LocalSigner | None:
    """Open the key; None when there is none to open.

    Raises:
        SettingsError, SignerError: it cannot be opened.
    """
    from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLARS
    from topup.domain.typed_data import Domain
    from topup.signers import local

    chain = profile(s)
    own = local.Ceilings(
        chain.chain_id,
        chain.contract,
        wei(s.wallet.payment_max_eth),
        wei(s.fees.network_fee_max_eth),
        price_min(s),
        chain.currency if pay_with(s) is Asset.USDC else b"",
        worst_spend(Usd(s.policy.topup_max), limits(s)).usdc_up(),
        chain.currency,
        frozenset({Domain(d.name, d.version, d.chain_id, d.token) for d in (BASE_DOLLAR,) if X402 in s.rails.use}),
        frozenset({(d.chain_id, d.token) for d in (TEMPO_DOLLARS[s.rails.mpp.pay_with],) if MPP in s.rails.use}),
        Usd(s.rails.mpp.network_fee_max_usd).usdc_down(),
        sponsored=s.rails.mpp.sponsored,
        prefixes=chain.prefixes,
        root=_address(s.rails.mpp.root) if s.rails.mpp.root else b"",
    )
    if s.wallet.keystore is not None:
        named = s.wallet.keystore_password_file or files.credential("topup-keystore-password")
        if named is None:
            raise SettingsError(
                "wallet.keystore_password_file is missing", remedy="name a file that holds the keystore's password"
            )
        password = files.password(named, "wallet.keystore_password_file")
        return _of_the_wallet(s, local.from_keystore(s.wallet.keystore, password, own))
    raw = secret(s.wallet.private_key, s.wallet.private_key_file, "topup-private-key", "wallet.private_key_file")
    return None if raw is None else _of_the_wallet(s, local.from_private_key(raw, own))


def _of_the_wallet(s: Settings, key: LocalSigner) -> LocalSigner:
    _same(s, key.address)
    return key


def _same(s: Settings, own: bytes) -> None:
    """See that the key is that of `wallet.address`, which with an access key is the account's that it belongs to.

    Raises:
        SettingsError: it is another's: one command would pay from one wallet, and another look at the other.
    """
    if s.wallet.address is None or s.rails.mpp.root is not None or _address(s.wallet.address) == own:
        return
    raise SettingsError(
        f"wallet.address is {s.wallet.address}, and the key is that of 0x{own.hex()}",
        remedy="correct or remove wallet.address, or name another key",
    )


def _signing(s: Settings, store: SqliteStore) -> Signer | None:
    """Open the key, or promise to where a payment is out there and the wallet is known: it is looked for first."""
    unfinished, own = store.open_topup(s.account), known(s)
    if unfinished is None or unfinished.state not in MONEY_OUT or own is None:
        return signer(s)
    from topup.app.late_signer import LateSigner

    def opened() -> Signer:
        found = signer(s)
        if found is None:
            raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
        return found

    return LateSigner(own, opened)


def known(s: Settings) -> bytes | None:
    """Return the key's address where that takes no time: from the keystore, a raw key, or else the settings.

    Raises:
        SettingsError: `wallet.address` is another.
    """
    found = _told(s)
    if found is not None:
        _same(s, found)
        return found
    return _address(s.wallet.address) if s.wallet.address is not None and s.rails.mpp.root is None else None


def _told(s: Settings) -> bytes | None:
    """Return what the keystore says of its key, or the address of a raw one; None where that cannot be told."""
    if s.wallet.keystore is None:
        raw = secret(s.wallet.private_key, s.wallet.private_key_file, "topup-private-key", "wallet.private_key_file")
        return None if raw is None else _address_of(raw)
    try:
        said = read(files.text(s.wallet.keystore, "wallet.keystore").encode())["address"]
        found = bytes.fromhex(str(said).strip().lower().removeprefix("0x"))
    except (ValueError, LookupError, TypeError):
        return None  # whoever opens it says what is wrong with it
    return found if len(found) == 20 else None


def _address_of(raw: str) -> bytes | None:
    from eth_keys.datatypes import PrivateKey  # the curve alone, without what signs transactions

    digits = raw.strip().removeprefix("0x")
    if len(digits) != 64 or set(digits) - set("0123456789abcdefABCDEF"):
        return None  # whoever opens the key says what is wrong with it
    return PrivateKey(bytes.fromhex(digits)).public_key.to_canonical_address()


def wallet(s: Settings) -> bytes | None:
    """Return the wallet's address, from the key and from `wallet.address`; None when neither is set.

    Raises:
        SettingsError, SignerError: the key cannot be opened, or is not that of `wallet.address`.
    """
    own = _told(s) if s.wallet.address is not None else None
    if own is not None:
        _same(s, own)
        return own
    key = signer(s)
    if key is not None:
        return key.address
    return _address(s.wallet.address) if s.wallet.address is not None else None


def masker(s: Settings) -> Masker:
    """Return what masks our secrets: the API key, the wallet's, what opens it, and whatever in a URL may be one."""
    from topup.wire.secrets import Masker, of_url

    return Masker([*_keys(s), *(part for url in (*s.chain.rpc_urls, *s.rails.mpp.rpc_urls) for part in of_url(url))])


def _keys(s: Settings) -> list[str]:
    """Return what is secret for sure: no answer may hold it that is kept as it came."""
    named = (
        (s.api.key, s.api.key_file, "topup-api-key", "api.key_file"),
        (None, s.wallet.keystore_password_file, "topup-keystore-password", "wallet.keystore_password_file"),
        (s.wallet.private_key, s.wallet.private_key_file, "topup-private-key", "wallet.private_key_file"),
    )
    found: list[str] = []
    for one in named:
        with contextlib.suppress(SettingsError):  # whoever needs it says what is wrong with it
            told = secret(*one)
            found += [told.strip()] if told is not None else []
    return found


def providers(s: Settings) -> list[Rpc]:
    """Return one client for each provider of the chain."""
    return asked_at(s, s.chain.rpc_urls)


def asked_at(s: Settings, urls: Sequence[str]) -> list[Rpc]:
    """Return one client for each of these providers; none of them can make us say a secret of ours."""
    from topup.chain.rpc import Rpc

    hide = masker(s)
    return [Rpc(url, timeout_s=s.chain.timeout_s, hide=hide) for url in urls]


def chain(
    s: Settings,
    rpcs: list[Rpc],
    clock: Clock,
    say: Callable[[Event], None] | None = None,
    search: Search | None = None,
) -> EvmChain:
    """Return the chain, which tells `say` what becomes of its providers; `search` is how it looks for payments."""
    from topup.chain.contract_chain import EvmChain
    from topup.chain.owners import quorum

    return EvmChain(profile(s), watched(s, rpcs, quorum(s.chain.rpc_urls, s.chain.quorum), clock, say), search)


def watched(
    s: Settings,
    rpcs: list[Rpc],
    agreeing: int,
    clock: Clock,
    say: Callable[[Event], None] | None,
) -> Providers:
    """Return the providers of a chain, of which so many of different owners have to agree."""
    from topup.chain.providers import Providers

    return Providers(
        rpcs,
        quorum=agreeing,
        now_s=lambda: clock.now_ms() // 1000,
        head_age_max_s=s.chain.head_age_max_s,
        lag_max_s=s.chain.lag_max_s,
        say=say or (lambda _: None),
        sleep=clock.sleep,
    )


@dataclass(frozen=True)
class Parts:
    """What rails are built from."""

    settings: Settings
    api: OpenRouter | Prepaid
    rpcs: list[Rpc]
    opened: list[Rpc]  # every client of a provider, to be counted and closed
    sellers: list[Exchange]  # every way to a seller that a rail has of its own, to be closed
    key: Signer | None
    clock: Clock
    store: SqliteStore
    sink: Sink
    budget: Budget

    def search(self, chain_id: int) -> Search:
        """Return how payments of a chain are looked for: within the pass's budget, and on from what is stored."""
        from topup.chain.paging import Pager
        from topup.chain.search import Search

        return Search(chain_id, Pager(self.budget), self.store, self.clock)


def _coinbase(p: Parts) -> Rail:
    from topup.sellers import coinbase
    from topup.wire.secrets import Masker

    s = p.settings
    terms = coinbase.Terms(
        slippage=Bps(s.price.slippage_bps),
        gas_margin=Bps(s.fees.gas_margin_pct * 100),
        bump=Bps(s.fees.bump_bps),
        bump_times_max=s.fees.bump_times_max,
        pay_with=pay_with(s),
    )

    def known() -> Pins:
        return pins(s, p.store.told(s.account, Note.PINNED))

    own = chain(s, p.rpcs, p.clock, p.sink.emit, p.search(s.chain.id))
    return coinbase.Coinbase(p.api, own, p.key, p.clock, known, terms, ours=Masker(_keys(s)))


def _x402(p: Parts) -> Rail:
    from topup.chain.owners import quorum
    from topup.domain.demand import Bounds
    from topup.domain.dollars import BASE_DOLLAR
    from topup.sellers import authorization as shared
    from topup.sellers.x402 import X402
    from topup.sellers.x402_choice import Token
    from topup.wire.exchange import Exchange

    s, r, d = p.settings, p.settings.rails.x402, BASE_DOLLAR
    asked = seller(s)
    pinned = frozenset(map(_address, r.recipients)) or asked.recipients
    bounds = Bounds(d.token, pinned, Bps(r.fee_ceiling_bps), LIFE_MIN_S, r.life_max_s)
    p.sellers.append(Exchange(s.api.url, timeout_s=s.api.timeout_s))
    key = api_key(s) if asked.sell.auth == "key" else ""
    return X402(
        shared.Seller(p.sellers[-1], key, bounds, s.posting.pay_timeout_s),
        authorized(
            s,
            p.rpcs,
            d,
            quorum(s.chain.rpc_urls, s.chain.quorum),
            p.clock,
            p.sink.emit,
            p.search(d.chain_id),
        ),
        p.key,
        p.clock,
        profile=asked,
        token=Token(d.chain_id, d.asset, d.token, d.name, d.version),
        login=_login(s, p.key) if asked.sell.auth == "login" else None,
    )


def _mpp(p: Parts) -> Rail:
    from topup.chain.owners import quorum
    from topup.domain.demand import Bounds
    from topup.domain.dollars import TEMPO_DOLLARS, TEMPO_TOKENS
    from topup.sellers import mpp
    from topup.sellers.authorization import Seller
    from topup.sellers.mpp_choice import Terms
    from topup.wire.exchange import Exchange

    s, r = p.settings, p.settings.rails.mpp
    dollar = TEMPO_DOLLARS[r.pay_with]
    exchange = Exchange(s.api.url, timeout_s=s.api.timeout_s)
    p.sellers.append(exchange)
    rpcs = asked_at(s, r.rpc_urls)
    p.opened.extend(rpcs)
    pinned = frozenset(map(_address, r.recipients)) or None
    bounds = Bounds(dollar.token, pinned, Bps(r.fee_ceiling_bps), r.life_min_s, r.life_max_s, "rails.mpp")
    return mpp.Mpp(
        Seller(exchange, api_key(s), bounds, s.posting.pay_timeout_s),
        authorized(
            s,
            rpcs,
            dollar,
            quorum(r.rpc_urls, r.quorum),
            p.clock,
            p.sink.emit,
            p.search(dollar.chain_id),
        ),
        p.key,
        p.clock,
        terms=Terms(
            r.realm or exchange.host.partition(":")[0],
            dollar.asset,
            TEMPO_TOKENS,
            r.sponsored_s if r.sponsored else 0,
        ),
        fields=fields(s),
    )


def fields(s: Settings) -> Fields:
    """Return how the mpp seller is asked, in the words of its record."""
    from topup.sellers.mpp_fields import Fields

    return Fields(**s.rails.mpp.fields.model_dump())


BUILDERS: dict[str, Callable[[Parts], Rail]] = {COINBASE: _coinbase, MPP: _mpp, X402: _x402}
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


def authorized(
    s: Settings,
    rpcs: list[Rpc],
    dollar: Dollar,
    agreeing: int,
    clock: Clock,
    say: Callable[[Event], None] | None = None,
    search: Search | None = None,
) -> AuthorizedChain:
    """Return the chain of a dollar as rails see it whose payments their sellers carry there."""
    from topup.chain.token_chain import AuthorizedChain

    return AuthorizedChain(dollar.chain_id, watched(s, rpcs, agreeing, clock, say), dollar, search)


def works(s: Settings, store: SqliteStore, sink: Sink, clock: Clock | None = None) -> Works:
    """Build a cycle from settings, around an open ledger.

    Raises:
        SettingsError, SignerError: something is missing or cannot be opened.
    """
    from topup.payment.cycle import Cycle
    from topup.ports.budget import Budget
    from topup.sellers.openrouter import OpenRouter
    from topup.wire.exchange import Exchange

    time = clock or SystemClock()
    store.hide = masker(s)
    known(s)  # in observe mode, too, two names of one wallet have to be of one
    key = _signing(s, store) if s.mode == "live" else None
    payer = (
        _address(s.rails.mpp.root)
        if s.rails.mpp.root
        else key.address
        if key is not None
        else _address(s.wallet.address)
        if s.wallet.address
        else None
    )
    client, rpcs = api(s, time, store, key), providers(s)
    built: dict[str, Rail] = {}
    opened, sellers, budget = list(rpcs), list[Exchange](), Budget(time)

    def rail(name: str) -> Rail:
        if name not in built:
            built[name] = BUILDERS[name](Parts(s, client, rpcs, opened, sellers, key, time, store, sink, budget))
        return built[name]

    cycle = Cycle(
        Terms(account(s, payer), limits(s), ceilings(s), pace(s)),
        api=client,
        usage=client if isinstance(client, OpenRouter) else None,
        rails=rail,
        store=store,
        clock=time,
        sink=sink,
        rpc_requests=lambda: sum(rpc.requests for rpc in opened),
        budget=budget,
    )
    return Works(cycle, client, store, rail, opened, sellers, payer, s.rails.use[0])


def _address(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
