"""What does a command have open? Each thing is opened when it is first used, and closed in the end, the last one first.

This is the one place where values from the settings meet concrete edges: the ledger, the account's API, the providers
of the chains, the sellers and the key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from topup.app import keys
from topup.app.assembly import (
    LIFE_MIN_S,
    account,
    addresses,
    ceilings,
    limits,
    pace,
    pay_with,
    pins,
    profile,
    seller,
    told_by,
)
from topup.app.funding import Funding, funding
from topup.app.settings import Settings
from topup.domain.demand import Bounds
from topup.domain.errors import SettingsError
from topup.domain.money import Bps
from topup.domain.notes import Note
from topup.domain.policy import Limits
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, X402, Account, Terms
from topup.payment.cycle import Cycle
from topup.ports.account import Clock, Sink
from topup.ports.budget import Budget
from topup.ports.chain import Preflight
from topup.ports.rail import Rail
from topup.ports.signer import Signer
from topup.sellers.openrouter import OpenRouter
from topup.wire.clock import SystemClock
from topup.wire.exchange import Exchange
from topup.wire.secrets import Masker

if TYPE_CHECKING:  # an idle process pays nothing and asks no chain, and these take their time and room
    from topup.chain.contract_chain import EvmChain
    from topup.chain.providers import Providers
    from topup.chain.rpc import Rpc
    from topup.chain.search import Search
    from topup.chain.token_chain import AuthorizedChain
    from topup.domain.coinbase_charge import Pins
    from topup.domain.events import Event
    from topup.sellers import x402
    from topup.sellers.authorization import Seller
    from topup.sellers.coinbase import Coinbase
    from topup.sellers.mpp import Mpp
    from topup.sellers.x402_account import Prepaid
    from topup.sellers.x402_wire import Login


class Quiet:
    """A sink that keeps nothing: what a look shows is in its result."""

    def emit(self, event: Event) -> None:
        """Take one event."""


class Connections:
    """Everything that a command has open, by `settings`; `rpcs` are the clients of providers so far, of every chain.

    Whatever is asked for first may raise what opening it raises: a SettingsError, a SignerError, a StoreError.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: SqliteStore | None = None,
        sink: Sink | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Open nothing yet, and take over the `ledger`, which is closed with the rest.

        Without one, a copy of it in memory is read, and no key is at hand for a payment: whoever pays holds the ledger.
        """
        self.settings, self.sink, self.clock = settings, sink or Quiet(), clock or SystemClock()
        self.rpcs: list[Rpc] = []
        # Whether whoever began this command lets it buy; see `Limits.agreed`.
        self.agreed = True
        self._ledger = ledger
        self._closing = AsyncExitStack()
        if ledger is not None:
            self._closing.callback(ledger.close)
        self._asked: dict[tuple[str, ...], list[Rpc]] = {}
        self._rails: dict[str, Rail] = {}
        self._budget = Budget(self.clock)

    async def close(self) -> None:
        """Close what is open, the last one first, each even where another fails."""
        await self._closing.aclose()

    # -- ledger and keys ----------------------------------------------------------------------------------------

    @cached_property
    def store(self) -> SqliteStore:
        """The ledger that was given, or else a copy in memory: what is written to that is lost."""
        if self._ledger is not None:
            return self._ledger
        copy = SqliteStore.open_copy(self.settings.state_dir)
        self._closing.callback(copy.close)
        return copy

    @cached_property
    def payer(self) -> bytes | None:
        """The account that pays, None where none is set; see `keys.payer`."""
        return keys.payer(self.settings)

    @cached_property
    def access_key(self) -> bytes | None:
        """The wallet's key where it is an access key of the payer; see `keys.access_key`."""
        return keys.access_key(self.settings)

    @property
    def paying(self) -> bytes | None:
        """The account that pays, as far as it is known without a key being opened for it."""
        return keys.paying(self.settings, self._key)

    @cached_property
    def _key(self) -> Signer | None:
        pays = self._ledger is not None and self.settings.mode == "live"
        return keys.signing(self.settings, self.store) if pays else None

    @cached_property
    def _masker(self) -> Masker:
        return keys.masker(self.settings)

    @cached_property
    def _secrets(self) -> Masker:
        """What is secret for sure: an answer that holds any of it is refused whole, and never kept."""
        return Masker(keys.secrets(self.settings))

    @cached_property
    def _login(self) -> Login:
        from topup.sellers.x402_wire import Login

        owner = self._key if self._key is not None else keys.signer(self.settings)
        if owner is None:
            raise SettingsError(
                "wallet.keystore is missing", remedy="this gateway is logged in to with the wallet's key"
            )
        return Login(owner, self.settings.chain.id)

    # -- whoever is asked ---------------------------------------------------------------------------------------

    @cached_property
    def api(self) -> OpenRouter | Prepaid:
        """Whoever tells the credits."""
        s, now_ms, exchange = self.settings, self.clock.now_ms, self._exchange()
        if s.api.kind == "openrouter":
            return OpenRouter(exchange, keys.api_key(s), now_ms=now_ms)
        from topup.sellers.x402_account import Prepaid

        asked = told_by(s)
        login = self._login if asked.balance.auth == "login" else None
        owner = b""
        if "{wallet}" in asked.balance.path:
            owner = login.signer.address if login is not None else self._account_holder()
        return Prepaid(
            exchange,
            asked,
            key=keys.api_key(s) if asked.balance.auth == "key" else "",
            login=login,
            wallet=owner,
            last=lambda: self.store.last_reading(s.account),
            now_ms=now_ms,
        )

    def _account_holder(self) -> bytes:
        """Return the wallet whose account a seller keeps, where the key of its API is no key of the wallet."""
        s = self.settings
        owner = self._key.address if self._key is not None else keys.known(s) or keys.wallet(s)
        if owner is None:
            raise SettingsError(
                "no wallet is set", remedy="set wallet.address: this seller keeps an account for each wallet"
            )
        return owner

    def _exchange(self) -> Exchange:
        exchange = Exchange(self.settings.api.url, timeout_s=self.settings.api.timeout_s)
        self._closing.push_async_callback(exchange.close)
        return exchange

    def providers(self, urls: Sequence[str]) -> list[Rpc]:
        """Return one client for each of these providers; none of them can make us say a secret of ours."""
        from topup.chain.rpc import Rpc

        if tuple(urls) not in self._asked:
            clients = [Rpc(url, timeout_s=self.settings.chain.timeout_s, hide=self._masker) for url in urls]
            for rpc in clients:
                self._closing.push_async_callback(rpc.close)
            self.rpcs += clients
            self._asked[tuple(urls)] = clients
        return self._asked[tuple(urls)]

    def chain(self, search: Search | None = None) -> EvmChain:
        """Return the chain on which the wallet itself pays; `search` is how it looks for payments."""
        from topup.chain.contract_chain import EvmChain

        return EvmChain(profile(self.settings), self.agreeing(funding(self.settings, COINBASE)), search)

    def dollar_chain(self, funds: Funding, search: Search | None = None) -> AuthorizedChain:
        """Return the chain of a dollar as rails see it whose payments their sellers carry there."""
        from topup.chain.token_chain import AuthorizedChain

        return AuthorizedChain(funds.dollar.chain_id, self.agreeing(funds), funds.dollar, search)

    async def dollars(self, funds: Funding, account: bytes) -> Preflight:
        """Ask the rail's chain for its newest block, its fees, the dollars of an account, and what its access key may.

        Raises:
            SettingsError, SignerError: the access key cannot be opened.
            ChainError: too few providers gave an answer that can be used.
            PaymentForbidden: there is no such token on that chain.
        """
        return await self.dollar_chain(funds).preflight(account, funds.dollar.token, key=self.access_key)

    def agreeing(self, funds: Funding) -> Providers:
        """Return the providers of a rail's chain, of which several of different owners have to agree."""
        from topup.chain.providers import Providers

        return Providers(
            self.providers(funds.urls),
            quorum=funds.agreeing,
            now_s=lambda: self.clock.now_ms() // 1000,
            head_age_max_s=self.settings.chain.head_age_max_s,
            lag_max_s=self.settings.chain.lag_max_s,
            say=self.sink.emit,
            sleep=self.clock.sleep,
        )

    def _search(self, chain_id: int) -> Search:
        """Return how payments of a chain are looked for: within the pass's budget, and on from what is stored."""
        from topup.chain.paging import Pager
        from topup.chain.search import Search

        return Search(chain_id, Pager(self._budget), self.store, self.clock)

    # -- ways to pay --------------------------------------------------------------------------------------------

    def rail(self, name: str = "") -> Rail:
        """Return a way to pay, the preferred one where none is named; it is built when it is first asked for."""
        name = name or self.settings.rails_in_use[0]
        if name not in self._rails:
            builders: dict[str, Callable[[], Rail]] = {MPP: self._mpp, X402: self._x402}
            builders[COINBASE] = lambda: self.coinbase(self.pins, self._key)
            self._rails[name] = builders[name]()
        return self._rails[name]

    def coinbase(self, pinned: Callable[[], Pins], key: Signer | None = None) -> Coinbase:
        """Return the rail of Coinbase charges that proves them against these pins; without a key it only looks."""
        from topup.sellers import coinbase

        s = self.settings
        terms = coinbase.Terms(
            slippage=Bps(s.price.slippage_bps),
            gas_margin=Bps(s.fees.gas_margin_pct * 100),
            bump=Bps(s.fees.bump_bps),
            bump_times_max=s.fees.bump_times_max,
            pay_with=pay_with(s),
        )
        chain = self.chain(self._search(s.chain.id))
        return coinbase.Coinbase(self.api, chain, key, self.clock, pinned, terms, ours=self._secrets)

    def pins(self) -> Pins:
        """Return what a charge must match, with whoever was pinned by hand until now."""
        return pins(self.settings, self.store.told(self.settings.account, Note.PINNED))

    def _x402(self) -> x402.X402:
        from topup.sellers import x402

        s, r = self.settings, self.settings.rails.x402
        funds, asked = funding(s, X402), seller(s)
        d, pinned = funds.dollar, addresses(r.recipients) or asked.recipients
        bounds = Bounds(d.token, pinned, Bps(r.fee_ceiling_bps), LIFE_MIN_S, r.life_max_s)
        return x402.X402(
            self._seller(bounds, keys.api_key(s) if asked.sell.auth == "key" else ""),
            self.dollar_chain(funds, self._search(d.chain_id)),
            self._key,
            self.clock,
            profile=asked,
            token=d,
            login=self._login if asked.sell.auth == "login" else None,
        )

    def _mpp(self) -> Mpp:
        from topup.domain.dollars import TEMPO_TOKENS
        from topup.sellers.mpp import Mpp
        from topup.sellers.mpp_choice import Terms

        s, r, funds = self.settings, self.settings.rails.mpp, funding(self.settings, MPP)
        d, pinned = funds.dollar, addresses(r.recipients) or None
        bounds = Bounds(d.token, pinned, Bps(r.fee_ceiling_bps), r.life_min_s, r.life_max_s, "rails.mpp")
        sold = self._seller(bounds, keys.api_key(s))
        realm, sponsored_s = r.realm or sold.exchange.host.partition(":")[0], r.sponsored_s if r.sponsored else 0
        return Mpp(
            sold,
            self.dollar_chain(funds, self._search(d.chain_id)),
            self._key,
            self.clock,
            terms=Terms(realm, d.asset, TEMPO_TOKENS, sponsored_s),
            fields=r.fields,
        )

    def _seller(self, bounds: Bounds, key: str) -> Seller:
        from topup.sellers.authorization import Seller

        return Seller(self._exchange(), key, bounds, self.settings.posting.pay_timeout_s, self._secrets)

    # -- the passes ---------------------------------------------------------------------------------------------

    @cached_property
    def cycle(self) -> Cycle:
        """The passes over the account, by the settings."""
        keys.known(self.settings)  # in observe mode, too, two names of one wallet have to be of one
        cycle = self.cycle_within(replace(limits(self.settings), agreed=self.agreed))
        for rail in self.settings.rails_in_use:
            self.providers(funding(self.settings, rail).urls)  # a way out that is set wrong ends the start, no payment
        return cycle

    def cycle_within(self, allowed: Limits) -> Cycle:
        """Return passes over the account within these limits."""
        s, store = self.settings, self.store
        store.hide = self._masker
        terms = Terms(account(s, self.paying), allowed, ceilings(s), pace(s))
        self._agree(terms.account)
        return Cycle(
            terms,
            api=self.api,
            usage=self.api if isinstance(self.api, OpenRouter) else None,
            rails=self.rail,
            store=store,
            clock=self.clock,
            sink=self.sink,
            rpc_requests=lambda: sum(rpc.requests for rpc in self.rpcs),
            budget=self._budget,
        )

    def _agree(self, buying: Account) -> None:
        """Keep in the ledger by which rails is bought, where the owner has named them or nothing was bought before."""
        store, said = self.store, self.store.control(buying.name).rails
        if (buying.chosen or (said is None and not store.begun(buying.name))) and said != buying.rails:
            store.say(buying.name, Note.RAILS, buying.rails, store.now_ms(self.clock.now_ms()))


@asynccontextmanager
async def opened(
    settings: Settings, ledger: SqliteStore | None = None, sink: Sink | None = None, clock: Clock | None = None
) -> AsyncIterator[Connections]:
    """Hold what a command uses, and close it however the command ends; see `Connections`."""
    connections = Connections(settings, ledger, sink, clock)
    try:
        yield connections
    finally:
        await connections.close()
