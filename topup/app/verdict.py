"""What do the rules say of the newest reading? From the ledger alone: nobody is asked, and nothing is bought."""

from dataclasses import replace
from typing import Final

from topup.app.assembly import account, limits
from topup.app.settings import Settings
from topup.domain.policy import Decision, decide
from topup.ledger.store import SqliteStore
from topup.payment.config import PurchaseOrder
from topup.payment.snapshot import snapshot

# A reading is judged as if it were of this moment; how old it is, is told beside what is said of it.
ANY_AGE_MS: Final = 10**15


def verdict(store: SqliteStore, settings: Settings, now_ms: int) -> Decision | None:
    """Return what would be decided if the account still were as it was read last; None where it was never read."""
    reading = store.last_reading(settings.account)
    if reading is None:
        return None
    allowed = replace(limits(settings), fresh_ms=ANY_AGE_MS)
    return decide(snapshot(store, account(settings, None), allowed, reading, PurchaseOrder(), now_ms), allowed)
