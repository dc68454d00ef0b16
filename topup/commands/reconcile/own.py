"""What has the wallet sent itself that the ledger does not know? Found block by block and nonce by nonce."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from topup.accounting import reconciliation
from topup.accounting.reconciliation import Adopted, Known, Transfer, WalletTransaction, What
from topup.chain import history, logs
from topup.chain.profiles import Profile
from topup.chain.providers import StateGone
from topup.chain.rpc import Rpc
from topup.commands.reconcile.comparison import Comparison, Own
from topup.commands.reconcile.panel import SINCE, Blocks, Panel, Progress
from topup.domain.coinbase_charge import parse
from topup.domain.errors import ChainError, ChainUnknown, ChargeRefused, SettingsError
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE

# Nonces looked for one by one, each a bisection over the chain; beyond that a person has to say where to begin.
NONCES_MAX: Final = 200


async def compare(
    store: SqliteStore, panel: Panel, profile: Profile, comparison: Comparison, since: str | None
) -> None:
    """Ask for everything and compare it with the ledger; the result goes into `comparison`.

    Raises:
        SettingsError: `since` is neither block nor day, or nobody can tell where the wallet's payments begin.
        ChainError: not even the final block and the nonces could be learnt.
    """
    wallet = comparison.wallet
    final, newest = await panel.standing(wallet)
    nonce = await panel.agreed(lambda rpc: history.nonce_at(rpc, wallet, final), "the final nonce")
    known = _with_unproven(store.known(profile.chain_id, wallet))
    own = Own(profile.chain_id, final, 0, final, known.next_nonce, nonce, newest)
    comparison.own = own
    begin = await panel.since(since, final) if since is not None and nonce else None
    await OwnTransactions(store, panel, profile, comparison, known, own).compare(begin, named=since is not None)


def _with_unproven(known: Known) -> Known:
    """Add the charges that were answered and not yet proven when the copy was made: their ids say what they are."""
    owners = dict(known.owners)
    for topup in known.topups:
        for charge in topup.charges:
            if charge.raw is not None and not charge.proven:
                try:
                    intent = parse(charge.raw).intent
                except ChargeRefused:
                    continue
                owners.setdefault((intent.operator, intent.id), (topup.id, charge.seq))
    return replace(known, owners=owners)


@dataclass(frozen=True)
class OwnTransactions:
    """One comparison of what a wallet has sent itself with the ledger."""

    store: SqliteStore
    panel: Panel
    profile: Profile
    comparison: Comparison
    known: Known
    own: Own

    @property
    def wallet(self) -> bytes:
        """Return whose transactions they are."""
        return self.comparison.wallet

    async def compare(self, begin: int | None, *, named: bool) -> None:
        """Compare from block `begin` on; None where that is to be found out. `named`: a person has said where."""
        chain_id, own = self.profile.chain_id, self.own
        if own.nonce_final:
            await self._scan(begin)
        transfers = [t for t in self.store.transfers(chain_id, self.wallet) if t.contract == self.profile.contract]
        own.payments_on_chain = len(transfers)
        shown = {t.tx_hash: t for t in transfers}
        blocks = (own.first_block, own.decided_block)
        reconciliation.hold_against(self.known.attempts, shown, blocks, self.comparison.findings)
        read = await self._strangers(transfers)
        await self._unbooked()
        await self._nonces(read, from_since=named)
        await self._balance()

    # -- the scan -----------------------------------------------------------------------------------------------

    async def _begin(self) -> int:
        """Return the first block worth looking at: the ledger's own first, else that of the wallet's first nonce."""
        begun = reconciliation.first_known_block(self.known)
        if begun is not None:
            return begun
        below, final = self.known.below, self.own.final_block
        if below >= self.own.nonce_final:
            return final
        try:
            return await self.panel.first(lambda rpc: history.block_of_nonce(rpc, self.wallet, below, 0, final))
        except StateGone as error:
            raise SettingsError(f"the wallet's first payment cannot be dated: {error}", remedy=SINCE) from None

    async def _scan(self, since: int | None) -> None:
        bought = {t.id for t in self.known.topups if t.rail == COINBASE}
        asked = {operator for (operator, _), (by, _) in self.known.owners.items() if by in bought}
        scanned: list[Blocks] = []
        for operator in sorted(self.profile.operators | asked):
            progress = Progress(self.store, self.own.chain_id, self.wallet, self.profile.contract, operator)
            done = progress.blocks
            if done is None or (since is not None and since < done[0]):
                begin = since if since is not None else await self._begin()
                done = (begin, begin - 1)
            scanned.append((done[0], await self._scan_one(progress, done)))
        self.own.first_block = max(first for first, _ in scanned)
        self.own.decided_block = min(last for _, last in scanned)

    async def _scan_one(self, progress: Progress, done: Blocks) -> int:
        """Scan on from `done` to the final block, with the next provider where one fails; return the last block."""
        operator, final, failures = progress.reader, self.own.final_block, []
        for rpc in self.panel.providers.rpcs:
            blocks = done[1] + 1, final
            chunks = logs.transfers(rpc, progress.contract, operator, *blocks, self.panel.pager, progress.wallet)
            try:
                with rpc.heard():
                    _, last = await progress.keep(done, chunks)
            except ChainError as error:
                failures.append(str(error))
                read = progress.blocks
                done = read if read is not None and read[0] == done[0] else done
            else:
                return max(last, final)
        self.comparison.undecided.append(
            f"payments to 0x{operator.hex()} are decided up to block {done[1]} of {final}: {'; '.join(failures)};"
            " run it again, it goes on from there"
        )
        return done[1]

    # -- transactions -------------------------------------------------------------------------------------------

    async def _read(self, tx_hash: bytes) -> WalletTransaction | None:
        final = self.own.final_block
        return await self.panel.agreed(
            lambda rpc: history.transaction(rpc, self.profile, tx_hash, self.wallet, final),
            f"0x{tx_hash.hex()}",
        )

    async def _strangers(self, transfers: Sequence[Transfer]) -> list[WalletTransaction]:
        read = []
        known = self.known.hashes
        for transfer in (t for t in transfers if t.tx_hash not in known):
            payment = f"a payment in block {transfer.block_number}"
            try:
                done = await self._read(transfer.tx_hash)
            except ChainUnknown as error:
                self.comparison.undecided.append(f"{payment}: {error}")
                continue
            if done is None:
                self.comparison.undecided.append(f"{payment} is not where the log said")
                continue
            read.append(done)
            reconciliation.sort(self.known, done, self.comparison.findings)
        return read

    async def _unbooked(self) -> None:
        """Read what the ledger saw in blocks that were not safe yet and the logs say nothing of: reverts, cancels."""
        for topup, attempt in self.known.attempts:
            recorded = attempt.inclusion
            if recorded is None or attempt.hash is None or attempt.booked or attempt.paid:
                continue
            number = recorded.block_number
            if number > self.own.final_block:
                continue
            try:
                done = await self._read(attempt.hash)
            except ChainUnknown as error:
                self.comparison.undecided.append(f"a transaction of {topup.id} in block {number}: {error}")
                continue
            if done is None:
                detail = f"the ledger saw a transaction of {topup.id} in block {number}; no provider shows it"
            elif done.inclusion.block_number != number:
                stands = done.inclusion.block_number
                detail = f"a transaction of {topup.id} stands in block {stands}, not in {number}"
            else:
                continue
            self.comparison.findings.tell(
                What.OTHER_BLOCK, detail, (attempt.plan.nonce, attempt.hash, number), topup.id
            )

    # -- nonces -------------------------------------------------------------------------------------------------

    async def _nonces(self, read: Sequence[WalletTransaction], *, from_since: bool) -> None:
        """Account for every nonce the wallet has used: final ones by their transaction, newer ones by an attempt."""
        known, own = self.known, self.own
        expected, final, newest = own.nonce_ledger, own.nonce_final, own.nonce_latest
        if newest < expected:
            detail = f"the providers show nonce {newest}, the ledger has used {expected - 1}"
            self.comparison.findings.tell(What.NONCE_BEHIND, detail, reconciliation.NOWHERE)
        begin = known.below
        if from_since and own.first_block:
            before = own.first_block - 1
            try:
                begin = max(begin, await self.panel.first(lambda rpc: history.nonce_at(rpc, self.wallet, before)))
            except ChainUnknown:
                self.comparison.notes.append(
                    f"no provider says how many transactions came before block {own.first_block}"
                )
        explained = known.explained | {d.plan.nonce for d in read}
        missing = [n for n in range(begin, final) if n not in explained]
        if len(missing) > NONCES_MAX:
            self.comparison.undecided.append(f"{len(missing)} transactions of the wallet are unknown; {SINCE}")
            missing = []
        held = 0
        for nonce in missing:
            held = max(held, await self._nonce(nonce))
        waiting = {a.plan.nonce for _, a in known.attempts} | explained
        young = [n for n in range(final, newest) if n not in waiting]
        if young:
            self.comparison.undecided.append(
                f"nonces {young[0]} to {young[-1]} are not final yet; try again in a while"
            )
        if final > max(expected, held):
            detail = f"the wallet has sent {final} transactions, the ledger knows of {expected}"
            self.comparison.findings.tell(What.NONCE_AHEAD, detail, reconciliation.NOWHERE)

    async def _nonce(self, nonce: int) -> int:
        """Find out what took one nonce; return the nonce after it when it was an attempt the ledger holds, else 0."""
        held = [(t, a) for t, a in self.known.attempts if a.plan.nonce == nonce and a.hash is not None]
        try:
            for topup, attempt in held:
                assert attempt.hash is not None
                done = await self._read(attempt.hash)
                if done is not None:
                    detail = f"a transaction of {topup.id} stands in block {done.inclusion.block_number}, unseen"
                    if not any(d.tx_hash == done.hash for d in self.comparison.findings.differences):
                        self.comparison.findings.tell(What.UNSEEN, detail, done.position, topup.id)
                    return nonce + 1
            number, tx_hash = await self.panel.first(lambda rpc: self._taken_by(rpc, nonce))
            done = await self._read(tx_hash) if tx_hash is not None else None
        except StateGone as error:
            self._unexplained(nonce, None, f"no provider can show what took this nonce: {error}")
            return 0
        except ChainUnknown as error:
            self.comparison.undecided.append(f"nonce {nonce}: {error}")
            return 0
        if done is None:
            detail = "no transaction of the wallet took this nonce: an authorization given to another (EIP-7702)"
            self._unexplained(nonce, number, detail)
        else:
            reconciliation.sort(self.known, done, self.comparison.findings)
        return 0

    async def _taken_by(self, rpc: Rpc, nonce: int) -> tuple[int, bytes | None]:
        number = await history.block_of_nonce(rpc, self.wallet, nonce, 0, self.own.final_block)
        return number, await history.hash_at_nonce(rpc, self.wallet, nonce, number)

    def _unexplained(self, nonce: int, number: int | None, detail: str) -> None:
        self.comparison.findings.tell(What.UNEXPLAINED, detail, (nonce, None, number))
        self.comparison.findings.foreign.append(Adopted(nonce, None, number, None, None))

    async def _balance(self) -> None:
        """Hold the wallet's balance at the final block against the books, where these know where they began."""
        findings, final = self.comparison.findings, self.own.final_block
        costs = [d.cost for d in findings.unknown] + [d.cost for _, _, d in findings.lost]
        costs += [d.cost for d in findings.approvals] + [d.cost for d in findings.foreign if d.cost is not None]
        expected = reconciliation.expected_balance(self.known, costs, final)
        if (
            expected is None
            or self.comparison.undecided
            or any(d.what is not What.NONCE_AHEAD for d in findings.differences)
        ):
            return  # what is named already would only be counted twice
        begun, should = expected
        try:
            holds = await self.panel.first(lambda rpc: history.balance_at(rpc, self.wallet, final))
        except ChainUnknown:
            self.comparison.notes.append("no provider has the balance at the final block")
            return
        if holds < should:
            detail = f"the wallet holds {holds}; by the books since block {begun} it should hold {should}"
            findings.tell(What.BALANCE, detail, reconciliation.NOWHERE)
        elif holds > should:
            self.comparison.notes.append(f"{holds - should} came in since block {begun}")
