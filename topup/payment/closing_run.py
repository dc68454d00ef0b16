"""What is entered in the books while no top-up is open?

Once a UTC day: what was used and what was bought elsewhere, from the ledger alone; and what others moved of the wallet,
for which the chain is asked. That is never urgent: it comes after the decision, never before a purchase, and nothing
that is wrong with it ends a pass. What keeps it from being done for hours is said once a day: a provider that has
forgotten the state of final blocks fails at nothing else.
"""

from topup.accounting.closing import BalanceAssertion, Closed, closing_entries, due, wallet_due, wallet_entries
from topup.accounting.journal import Commodity
from topup.domain import events
from topup.domain.credits import DAY_MS, HOUR_MS
from topup.domain.errors import StoreError, TopupError
from topup.domain.notes import Note
from topup.payment.config import COINBASE, Route
from topup.payment.part import Part

# A chain that is only silent for a while is no news: the passes that need it say what is wrong with it.
OVERDUE_MS = 6 * HOUR_MS


class Bookkeeping(Part):
    """Closes the books of one account."""

    # In which hour it was last looked whether there is anything to close.
    _hour = _wallet_hour = -1

    def close(self) -> None:
        """Close the account's books where that is due; looked at once an hour."""
        name, now = self._account.name, self._clock.now()
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
        now, wallet, closed = self._clock.now(), self._account.wallet, self._store.closed(self._account.name)
        if now // HOUR_MS == self._wallet_hour or closed is None or not self._limits.live or wallet is None:
            return
        self._wallet_hour = now // HOUR_MS
        last = {at.commodity: at for at in self._store.balance_assertions(self._account.name)}
        # Coinbase's rail first: of its chain it reads ETH, too.
        for route in sorted(self._account.routes, key=lambda route: route.rail != COINBASE):
            mine = max((at.at_ms for at in last.values() if at.chain_id == route.chain_id), default=None)
            since_ms = mine if mine is not None else closed.at_ms
            if not wallet_due(since_ms, now):
                continue
            try:
                await self._hold(route, wallet, last)
            except StoreError:
                raise
            except TopupError as error:
                due_ms = (since_ms // DAY_MS + 1) * DAY_MS
                if now - due_ms >= OVERDUE_MS:
                    self._unchecked(route.chain_id, mine, str(error))

    def _unchecked(self, chain_id: int, last_ms: int | None, why: str) -> None:
        """Say, at most once a day, that a chain's part of the wallet has not been looked at since `last_ms`."""
        now, name = self._clock.now(), Note.WALLET_UNCHECKED.of(chain_id)
        if now - self._store.told_at(self._account.name, name) < DAY_MS:
            return
        last_h = (now - last_ms) // HOUR_MS if last_ms is not None else None
        self._say(events.WalletUnchecked(chain_id=chain_id, last_h=last_h, detail=why))
        self._store.say(self._account.name, name, why, now)

    async def _hold(self, route: Route, wallet: bytes, last: dict[Commodity, BalanceAssertion]) -> None:
        name, held = self._account.name, await self._rails(route.rail).holdings(wallet)
        for asset, units in held.units.items():
            commodity, block = Commodity(asset), held.at.number
            if commodity in last and last[commodity].block >= block:
                continue
            at = BalanceAssertion(route.chain_id, wallet, commodity, block, held.at.timestamp_s * 1000, units)
            entries = wallet_entries(
                at, self._store.wallet_booked(name, commodity, block), held.price_e8, first=commodity not in last
            )
            self._store.close_wallet(name, at, entries, self._clock.now())
            last[commodity] = at
