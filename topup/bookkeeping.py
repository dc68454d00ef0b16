"""What is entered in the books while no top-up is open?

Once a UTC day: what was used and what was bought elsewhere, from the ledger alone; and what others moved of the wallet,
for which the chain is asked. That is never urgent: it comes after the decision, never before a purchase, and nothing
that is wrong with it ends a pass.
"""

from __future__ import annotations

from collections.abc import Callable

from topup.books import Commodity
from topup.closing import Checkpoint, Closed, closing_entries, due, wallet_due, wallet_entries
from topup.credits import HOUR_MS
from topup.errors import StoreError, TopupError
from topup.ports import Rail, Store
from topup.terms import COINBASE, Route, Terms
from topup.watch import Watch


class Bookkeeping:
    """Closes the books of one account."""

    def __init__(self, terms: Terms, *, rails: Callable[[str], Rail], watch: Watch, store: Store) -> None:
        """Join the ports; nothing is asked yet."""
        self._account = terms.account
        self._live = terms.limits.live
        self._rails = rails
        self._watch = watch
        self._store = store
        # In which hour it was last looked whether there is anything to close.
        self._hour = self._wallet_hour = -1

    def close(self) -> None:
        """Close the account's books where that is due; looked at once an hour."""
        name, now = self._account.name, self._watch.now()
        last = self._store.last_reading(name)
        if now // HOUR_MS == self._hour or last is None:
            return
        self._hour, closed = now // HOUR_MS, self._store.closed(name)
        first = closed.at_ms + 1 if closed is not None else last.at_ms
        reading = due(self._store.readings(name, first), closed, self._store.busy(name, first))
        if reading is not None:
            at = Closed.at(reading, self._store.posted(name, reading.at_ms))
            self._store.close_books(name, at, closing_entries(at, closed), now)

    async def hold_wallet(self) -> None:
        """Hold the wallet's books against each chain that pays, where that is due; a silent one is asked hourly."""
        now, wallet, closed = self._watch.now(), self._account.wallet, self._store.closed(self._account.name)
        if now // HOUR_MS == self._wallet_hour or closed is None or not self._live or wallet is None:
            return
        self._wallet_hour = now // HOUR_MS
        last = {one.commodity: one for one in self._store.checkpoints(self._account.name)}
        # Coinbase's rail first: of its chain it reads ETH, too.
        for route in sorted(self._account.routes, key=lambda route: route.rail != COINBASE):
            mine = (one.at_ms for one in last.values() if one.chain_id == route.chain_id)
            if not wallet_due(max(mine, default=closed.at_ms), now):
                continue
            try:
                await self._hold(route, wallet, last)
            except StoreError:
                raise
            except TopupError:
                continue  # the passes that need this chain say what is wrong with it

    async def _hold(self, route: Route, wallet: bytes, last: dict[Commodity, Checkpoint]) -> None:
        name, told = self._account.name, await self._rails(route.rail).holdings(wallet)
        for asset, units in told.units.items():
            one, block = Commodity(asset), told.at.number
            if one in last and last[one].block >= block:
                continue
            at = Checkpoint(route.chain_id, wallet, one, block, told.at.timestamp_s * 1000, units)
            entries = wallet_entries(
                at, self._store.wallet_booked(name, one, block), told.price_e8, first=one not in last
            )
            self._store.close_wallet(name, at, entries, self._watch.now())
            last[one] = at
