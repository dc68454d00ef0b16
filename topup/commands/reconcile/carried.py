"""What have sellers carried to the chain for this wallet that the ledger does not know?

A wallet's nonce says nothing of it, so that one provider could withhold a payment: as many have to look as have to
agree, and what any of them shows is named. Taken over is only what as many show in its block.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from topup.accounting import reconciliation
from topup.accounting.journal import Commodity
from topup.accounting.reconciliation import Transfer, UnknownPayment, What
from topup.app.funding import Funding
from topup.chain import logs
from topup.chain.paging import Pager
from topup.chain.rpc import Rpc
from topup.commands.reconcile.comparison import Carried, Comparison
from topup.commands.reconcile.panel import Blocks, Panel, Progress
from topup.domain.errors import ChainError, ChainUnknown
from topup.domain.money import Usdc
from topup.ledger.store import SqliteStore
from topup.payment.config import MPP, X402

Scan = Callable[[Rpc, bytes, bytes, int, int, Pager], AsyncIterator[logs.Chunk]]
# By which logs of its token a payment is found that the seller carried to the chain.
LOGS: Final[dict[str, Scan]] = {MPP: logs.memos, X402: logs.authorizations}


@dataclass(frozen=True)
class CarriedPayments:
    """One comparison of what sellers of a rail have carried with the ledger; its result goes into `comparison`."""

    store: SqliteStore
    panel: Panel
    funding: Funding
    comparison: Comparison

    async def compare(self, since: str | None) -> None:
        """Look for everything and compare; what cannot be looked at is said."""
        try:
            final, _ = await self.panel.standing(self.comparison.wallet)
            begin = await self.panel.since(since, final) if since is not None else None
        except ChainError as error:
            self._unchecked(f"payments by {self.funding.rail}: {error}")
            return
        first, last = await self._looked(begin, final) or (0, -1)
        transfers = await self._held_against_ledger((first, last))
        if first <= last:
            told = Carried(self.funding.rail, self.panel.chain_id, final, first, last, len(transfers))
            self.comparison.carried.append(told)

    def _unchecked(self, why: str) -> None:
        self.comparison.unchecked.append(why)

    async def _looked(self, begin: int | None, final: int) -> Blocks | None:
        """Let enough providers look; return the first and the last block that all of those have looked at."""
        done: dict[str, Blocks] = {}
        failures = []
        for rpc in self.panel.providers.rpcs:
            if len(done) < self.panel.providers.quorum and rpc.owner not in done:
                try:
                    with rpc.heard():
                        done[rpc.owner] = await self._scan(rpc, begin, final)
                except ChainError as error:
                    failures.append(str(error))
        if begin is not None and begin > final:
            self._unchecked(f"payments by {self.funding.rail}: --since begins after the final block {final}")
            return None
        if len(done) >= self.panel.providers.quorum:
            return max(first for first, _ in done.values()), min(last for _, last in done.values())
        self._unchecked(
            f"payments by {self.funding.rail} up to block {final}: {'; '.join(failures)}; run it again, it goes on"
            " where it stopped, or name the day of the first payment: --since 2026-01-31"
        )
        return None

    async def _scan(self, rpc: Rpc, begin: int | None, final: int) -> Blocks:
        """Look on through one provider from where it stopped, or anew where `begin` lies outside of that."""
        wallet, token = self.comparison.wallet, self.funding.dollar.token
        progress = Progress(self.store, self.panel.chain_id, wallet, token, rpc.owner.encode())
        done = progress.blocks
        if done is None or (begin is not None and not done[0] <= begin <= done[1] + 1):
            done = (begin or 0, (begin or 0) - 1)
        return await progress.keep(done, self._chunks(rpc, done[1] + 1, final))

    def _chunks(self, rpc: Rpc, first: int, last: int) -> AsyncIterator[logs.Chunk]:
        scan, token = LOGS[self.funding.rail], self.funding.dollar.token
        return scan(rpc, token, self.comparison.wallet, first, last, self.panel.pager)

    async def _held_against_ledger(self, blocks: Blocks) -> list[Transfer]:
        """Compare what was found; nothing counts as missing on the chain where nobody looked."""
        rail, chain_id, wallet = self.funding.rail, self.panel.chain_id, self.comparison.wallet
        findings, token = self.comparison.findings, self.funding.dollar.token
        transfers = [t for t in self.store.transfers(chain_id, wallet) if t.contract == token]
        attempts = self.store.known(chain_id, wallet).carried(rail)
        keyed = reconciliation.named(attempts, transfers, by_id=rail == X402)
        reconciliation.hold_against(attempts, dict(keyed), blocks, findings)
        ours = {a.hash for _, a in attempts}
        for transfer in (t for key, t in keyed if key not in ours):
            payment = UnknownPayment(chain_id, transfer, Commodity(self.funding.dollar.asset.value), 0)
            if self.store.told("", payment.word) is not None:
                continue
            try:
                findings.carried.append(replace(payment, at_ms=await self._shown_at_ms(transfer)))
            except ChainError as error:
                self._unchecked(f"a payment by {rail}: {error}")
            paid = f"{self.funding.amount(Usdc(transfer.spent))} to 0x{transfer.recipient.hex()}"
            detail = f"a payment by {rail} of {paid} that the ledger does not know"
            findings.tell(What.UNKNOWN_CARRIED, detail, (None, transfer.tx_hash, transfer.block_number))
        return transfers

    async def _shown_at_ms(self, transfer: Transfer) -> int:
        """Return the time of its block. One voice is enough to name it, not to book it: it could be invented."""
        number = transfer.block_number
        block = await self.panel.block(number)
        if not await self.panel.agreed(partial(self._shows, transfer), f"a payment in block {number}"):
            raise ChainUnknown(f"no provider shows it in block {number} any more")
        return block.timestamp_s * 1000

    async def _shows(self, transfer: Transfer, rpc: Rpc) -> bool:
        number = transfer.block_number
        chunks = [chunk async for chunk in self._chunks(rpc, number, number)]
        return transfer in (shown for chunk in chunks for shown in chunk.transfers)
