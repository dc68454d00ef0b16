"""What do the providers of one chain say together about the past, and how far were its logs read?"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from topup.chain import history, logs
from topup.chain.blocks import block_at
from topup.chain.paging import Pager
from topup.chain.providers import Providers, first
from topup.chain.rpc import Rpc
from topup.domain.errors import ChainUnknown, SettingsError
from topup.ledger.store import SqliteStore
from topup.ports.chain import Head
from topup.wire.clock import SystemClock

T = TypeVar("T")
SINCE: Final = "name the block or the day of the wallet's first payment: --since 2026-01-31"
# The first and the last block that were looked at, both included.
Blocks = tuple[int, int]


@dataclass(frozen=True)
class Panel:
    """The providers of one chain; the answers of all that can be believed count."""

    providers: Providers
    chain_id: int
    # What range of logs each of them grants is learnt once.
    pager: Pager = field(default_factory=logs.patient)

    async def standing(self, wallet: bytes) -> tuple[int, int]:
        """Return the newest block that is final everywhere, and the wallet's newest nonce anywhere."""
        answers = await self.providers.ask(lambda rpc: history.standing(rpc, self.chain_id, wallet), every=True)
        final, newest_nonces = zip(*(vote.value for vote in answers.votes), strict=True)
        await self.block(min(final))
        return min(final), max(newest_nonces)

    async def block(self, number: int) -> Head:
        """Return the block that all of them have at this height."""
        return await self.agreed(lambda rpc: block_at(rpc, self.chain_id, number), f"block {number}")

    async def agreed(self, ask: Callable[[Rpc], Awaitable[T]], what: str) -> T:
        """Ask every provider for what can only have one answer."""
        first, *others = [vote.value for vote in (await self.providers.ask(ask, every=True)).votes]
        if any(answer != first for answer in others):
            raise ChainUnknown(f"the providers disagree about {what}")
        return first

    async def first(self, ask: Callable[[Rpc], Awaitable[T]]) -> T:
        """Ask one provider after the other for what is confirmed elsewhere."""
        return await first(self.providers.rpcs, ask)

    async def since(self, text: str, final: int) -> int:
        """Read --since: a block, or the first block of a day."""
        if is_block(text):
            return int(text)
        try:
            day = datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(f"--since {text[:40]} is neither a block nor a day", remedy=SINCE) from None
        moment = day if day.tzinfo is not None else day.replace(tzinfo=UTC)
        at_s = int(moment.timestamp())
        return await self.first(lambda rpc: history.first_block_at(rpc, at_s, final))


def is_block(since: str) -> bool:
    """Tell whether --since names a block, and not a day."""
    return since.isascii() and since.isdecimal()


@dataclass(frozen=True)
class Progress:
    """Where the ledger keeps which payments of a wallet the logs of `contract` have shown, and how far they were read.

    `reader` tells one reading of these logs from the others: by the operator that is looked for, or by who was asked.
    """

    store: SqliteStore
    chain_id: int
    wallet: bytes
    contract: bytes
    reader: bytes

    @property
    def blocks(self) -> Blocks | None:
        """Return what was read; None when nobody looked."""
        return self.store.scanned(self.chain_id, self.wallet, self.contract, self.reader)

    async def keep(self, begun: Blocks, chunks: AsyncIterator[logs.Chunk]) -> Blocks:
        """Add what is read behind the blocks `begun`, each chunk as it comes; return what was read in the end."""
        (first, last), source = begun, (self.contract, self.reader)
        async for chunk in chunks:
            at_ms, last = self.store.now_ms(SystemClock().now_ms()), chunk.last
            self.store.save_scan(self.chain_id, self.wallet, source, (first, last), chunk.transfers, at_ms)
        return first, last
