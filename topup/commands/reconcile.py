"""Does the ledger know everything this wallet did, and how is it told what it does not know?

Reads the chain up to a final block and holds it against the ledger. What the wallet sends itself is found block by
block and nonce by nonce. Of what sellers carry to the chain no nonce tells: the token's logs do, as enough providers
show them. What cannot be learnt is undecided or not checked, never "nothing". Without adopting, only the progress of
the scan is written.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import typer

from topup.accounting import provider_check, reconciliation
from topup.accounting.journal import Commodity
from topup.accounting.reconciliation import (
    Adopted,
    Difference,
    Findings,
    Known,
    Transfer,
    UnknownPayment,
    WalletTransaction,
    What,
)
from topup.accounting.usage import Contradiction, per_day
from topup.app import assembly
from topup.app.output import warn
from topup.app.settings import Settings
from topup.chain import history, logs
from topup.chain.owners import quorum
from topup.chain.paging import Pager
from topup.chain.profiles import Profile
from topup.chain.rpc import Rpc
from topup.commands.answer import Answer
from topup.commands.check import Funding, funding, payer
from topup.commands.start import load, wait_for
from topup.commands.usage import books_of
from topup.domain.coinbase_charge import parse
from topup.domain.errors import (
    ApiError,
    ChainError,
    ChainUnknown,
    ChargeRefused,
    Exit,
    SettingsError,
    StoreBusy,
    WrongChain,
)
from topup.domain.events import show
from topup.domain.money import Usdc
from topup.domain.ways_out import LOOK, RESOLVE
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, RAILS, X402
from topup.ports.chain import Head
from topup.sellers.openrouter import OpenRouter
from topup.wire.clock import SystemClock

T = TypeVar("T")
# Nonces looked for one by one, each a bisection over the chain; beyond that a person has to say where to begin.
NONCES_MAX: Final = 200
SINCE: Final = "name the block or the day of the wallet's first payment: --since 2026-01-31"
# What says nothing against the nonces that the wallet has used.
HARMLESS: Final = {What.UNSEEN, What.OTHER_BLOCK, What.BALANCE, What.UNKNOWN_CARRIED, What.PROVIDER}
Scan = Callable[[Rpc, bytes, bytes, int, int, Pager], AsyncIterator[logs.Chunk]]
# By which logs of its token a payment is found that the seller carried to the chain.
LOGS: Final[dict[str, Scan]] = {MPP: logs.memos, X402: logs.authorizations}


@dataclass
class Own:
    """What the wallet has sent itself, on one chain.

    Blocks `first` to `last` are decided; `nonces` are the ledger's next, the final and the newest.
    """

    chain_id: int
    final: Head
    nonces: tuple[int, int, int]
    known: Known
    first: int
    last: int
    payments: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as part of the report's document."""
        ledger, final, newest = self.nonces
        return {
            "chain_id": self.chain_id,
            "final_block": self.final.number,
            "first_block": self.first,
            "decided_block": self.last,
            "nonce_ledger": ledger,
            "nonce_final": final,
            "nonce_latest": newest,
            "payments_on_chain": self.payments,
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        ledger, final, newest = self.nonces
        return [
            f"nonce      {newest} at the newest block, {final} at final block {self.final.number}; ledger: {ledger}",
            f"payments   {self.payments} on chain {self.chain_id} in blocks {self.first} to {self.last}",
        ]


# What stands in the document where no rail has the wallet send anything itself.
NOT_OWN: Final = dict.fromkeys(
    (
        "chain_id",
        "final_block",
        "first_block",
        "decided_block",
        "nonce_ledger",
        "nonce_final",
        "nonce_latest",
        "payments_on_chain",
    )
)


@dataclass(frozen=True)
class Carried:
    """What sellers of one rail have carried to the chain, in blocks `first` to `last`, which are decided."""

    rail: str
    chain_id: int
    final: int
    first: int
    last: int
    payments: int

    def document(self) -> dict[str, Any]:
        """Return it as part of the report's document."""
        return {
            "rail": self.rail,
            "chain_id": self.chain_id,
            "final_block": self.final,
            "first_block": self.first,
            "decided_block": self.last,
            "payments_on_chain": self.payments,
        }

    def line(self) -> str:
        """Return it for a terminal."""
        return (
            f"payments   {self.payments} by {self.rail} on chain {self.chain_id} in blocks {self.first} to {self.last}"
        )


@dataclass
class Report:
    """What was found. `own` is None where no rail that is looked at has the wallet send anything itself.

    `undecided` says in words what could not be learnt of what it sent, `unchecked` of what sellers carried; `adopted`
    what was taken over.
    """

    account: str
    wallet: bytes
    own: Own | None = None
    carried: list[Carried] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    undecided: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    adopted: list[Difference] = field(default_factory=list)

    @property
    def remaining(self) -> list[Difference]:
        """Return the differences that were not settled by adopting."""
        return [d for d in self.findings.differences if d not in self.adopted]

    @property
    def adoptable(self) -> bool:
        """Tell whether adopting would change anything."""
        return not self.undecided and any(d.what in reconciliation.SETTLED for d in self.findings.differences)

    @property
    def exit_code(self) -> Exit:
        """Say whether anything is undecided or not checked, differs, or neither."""
        return Exit.LATER if self.undecided or self.unchecked else Exit.PERSON if self.remaining else Exit.OK

    def document(self) -> dict[str, Any]:
        """Return it as one JSON-ready document; wei as text."""
        return {
            "schema": 1,
            "account": self.account,
            "wallet": show(self.wallet),
            **(self.own.document() if self.own is not None else NOT_OWN),
            "carried": [one.document() for one in self.carried],
            "differences": [_shown(d) for d in self.remaining],
            "adopted": [_shown(d) for d in self.adopted],
            "undecided": self.undecided,
            "unchecked": self.unchecked,
            "notes": self.notes,
            "exit_code": int(self.exit_code),
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        lines = [f"wallet     0x{self.wallet.hex()}"]
        lines += self.own.lines() if self.own is not None else []
        lines += [one.line() for one in self.carried]
        lines += [f"adopted    {_line(d)}" for d in self.adopted]
        for one in self.remaining:
            lines += [f"differs    {_line(one)}", f"           to do: {one.remedy}"]
        lines += [f"undecided  {one}" for one in self.undecided]
        lines += [f"not checked: {one}" for one in self.unchecked]
        lines += [f"note       {one}" for one in self.notes]
        if self.exit_code is not Exit.OK:
            return lines
        within = " in these blocks" if any(one.first for one in self.carried) else ""
        return [*lines, f"the ledger knows everything this wallet did{within}"]


def _shown(one: Difference) -> dict[str, Any]:
    return {
        "what": one.what.value,
        "detail": one.detail,
        "remedy": one.remedy,
        "nonce": one.nonce,
        "tx_hash": show(one.tx_hash),
        "block": one.block_number,
        "topup_id": one.topup_id,
    }


def _line(one: Difference) -> str:
    place = [
        f"nonce {one.nonce}" if one.nonce is not None else "",
        f"block {one.block_number}" if one.block_number else "",
    ]
    named = ", ".join([*filter(None, place), *([f"0x{one.tx_hash.hex()}"] if one.tx_hash is not None else [])])
    return f"{one.what}: {one.detail}" + (f" ({named})" if named else "")


def answer(since: str | None, *, take_over: bool, yes: bool) -> Answer:
    """Hold the ledger against the chain; where it is wanted and agreed to, take over what only the chain knows."""
    settings = load()
    store = ledger(settings, adopt=take_over)
    try:
        report = wait_for(examine(settings, store, since))
        if take_over and report.adoptable and not (yes or _agreed_to(report.lines())):
            warn("topup: nothing was adopted: pass --yes, or answer on a terminal")
        elif take_over:
            adopt(report, store, f"uid {os.getuid()}")
    finally:
        store.close()
    return Answer(report.document(), report.lines(), report.exit_code)


def _agreed_to(lines: list[str]) -> bool:
    """Show on a terminal what would be done, and ask."""
    if not sys.stdin.isatty():
        return False
    warn("\n".join(lines))
    return typer.confirm("take all this over into the ledger?", err=True)


def ledger(settings: Settings, *, adopt: bool) -> SqliteStore:
    """Open the ledger, creating it when there is none: as its writer to adopt, else beside whoever holds it.

    Raises:
        StoreBusy: it is to be written and a daemon holds it.
        StoreError: it cannot be used.
    """
    try:
        writer = SqliteStore.open_writer(settings.state_dir)
    except StoreBusy:
        if not adopt:
            return SqliteStore.open_reader(settings.state_dir)
        raise StoreBusy(
            f"a daemon holds the ledger in {settings.state_dir}, and adopting changes what it rests on",
            remedy="stop `topup run`, then `topup reconcile --adopt`, then start it again",
        ) from None
    if adopt:
        return writer
    writer.close()  # it is created, whole, and of this program's version
    return SqliteStore.open_reader(settings.state_dir)


async def examine(settings: Settings, store: SqliteStore, since: str | None) -> Report:
    """Hold the wallet's whole past against the ledger.

    Args:
        settings: the owner's settings.
        store: the open ledger; the scan's progress is written to it.
        since: a block or a day (UTC) before the wallet's first payment; None to find it out.

    Raises:
        SettingsError: there is no wallet, or `since` is neither block nor day.
        ChainError: not even the final block and the nonces could be learnt.
    """
    wallet = payer(settings)
    if wallet is None:
        raise SettingsError("no wallet is set", remedy="set wallet.address, or wallet.keystore")
    report = Report(settings.account, wallet)
    rails = _rails(settings, store, wallet)
    if since is not None and _is_block(since) and len({funding(settings, rail).dollar.chain_id for rail in rails}) > 1:
        raise SettingsError(f"--since {since} is a block of which chain?", remedy="name a day: --since 2026-01-31")
    if COINBASE in rails:
        profile = assembly.profile(settings)
        async with _panel(funding(settings, COINBASE), settings, profile.chain_id) as panel:
            await Examination(store, panel, profile, report).run(since)
    for rail in rails:
        if rail in LOGS:
            one = funding(settings, rail)
            async with _panel(one, settings, one.dollar.chain_id) as panel:
                await Search(store, panel, one, report).run(since)
    await _held_against_provider(settings, store, report)
    return report


async def _held_against_provider(settings: Settings, store: SqliteStore, report: Report) -> None:
    """Hold the journal against what the seller of the credits says now: totals, and usage of the days it still tells.

    What it does not say is a note: money is on the chain, and that was looked at.
    """
    try:
        client = assembly.api(settings, SystemClock(), store)
    except SettingsError as error:
        report.notes.append(f"the books were not held against the provider: {error}")
        return
    books = books_of(store, settings.account)
    try:
        found = provider_check.totals(books, await client.credits()) + provider_check.explained(books)
        if isinstance(client, OpenRouter) and books.told:
            found += provider_check.retold(books, per_day(await client.activity(), books.told))
        report.findings.differences += [Difference(What.PROVIDER, one) for one in found]
    except (ApiError, Contradiction) as error:
        report.notes.append(f"the books were not held against the provider, or not all of them: {error}")
    finally:
        await client.close()


def _rails(settings: Settings, store: SqliteStore, wallet: bytes) -> list[str]:
    """Return the rails in use, and those by which this ledger has sent anything."""
    chains = {settings.chain.id, *(funding(settings, rail).dollar.chain_id for rail in LOGS)}
    sent = {t.rail for chain_id in chains for t in store.known(chain_id, wallet).topups if t.out}
    return [rail for rail in RAILS if rail in settings.rails.use or rail in sent]


def _is_block(since: str) -> bool:
    return since.isascii() and since.isdecimal()


@asynccontextmanager
async def _panel(one: Funding, settings: Settings, chain_id: int) -> AsyncIterator[Panel]:
    """Open the providers of a rail's chain, and close them."""
    rpcs = assembly.asked_at(settings, one.urls)
    try:
        yield Panel(rpcs, quorum(one.urls, one.wanted), chain_id)
    finally:
        for rpc in rpcs:
            await rpc.close()


@dataclass(frozen=True)
class Panel:
    """The providers of one chain, of which `quorum` of different owners have to agree."""

    rpcs: Sequence[Rpc]
    quorum: int
    chain_id: int
    # What range of logs each of them grants is learnt once.
    pager: Pager = field(default_factory=logs.patient)

    async def standing(self, wallet: bytes) -> tuple[Head, int]:
        """Return the newest block that is final everywhere, and the wallet's newest nonce anywhere."""
        places = await self.all(lambda rpc: history.standing(rpc, self.chain_id, wallet), "the final block")
        number = min(place.final.number for _, place in places)
        final = await self.agreed(lambda rpc: history.block(rpc, number), f"block {number}")
        return final, max(place.nonce_latest for _, place in places)

    async def all(self, ask: Callable[[Rpc], Awaitable[T]], what: str) -> list[tuple[str, T]]:
        """Ask every provider; return the answers of enough independent ones, each with its owner."""

        async def one(rpc: Rpc) -> T | ChainError:
            try:
                with rpc.heard():
                    return await ask(rpc)
            except ChainError as error:
                return error

        answers = list(zip(self.rpcs, await asyncio.gather(*map(one, self.rpcs)), strict=True))
        said = [(rpc.owner, answer) for rpc, answer in answers if not isinstance(answer, ChainError)]
        if len({name for name, _ in said}) >= self.quorum:
            return said
        failed = [answer for _, answer in answers if isinstance(answer, ChainError)]
        if not failed:
            raise ChainUnknown(f"{what}: {self.quorum} independent providers are needed, {len(said)} are set")
        if all(isinstance(error, WrongChain) for error in failed):
            raise failed[0]
        gone = all(isinstance(error, history.StateGone) for error in failed)
        raise (history.StateGone if gone else ChainUnknown)(f"{what}: " + "; ".join(map(str, failed)))

    async def agreed(self, ask: Callable[[Rpc], Awaitable[T]], what: str) -> T:
        """Ask every provider for what can only have one answer."""
        said = [answer for _, answer in await self.all(ask, what)]
        if any(answer != said[0] for answer in said):
            raise ChainUnknown(f"the providers disagree about {what}")
        return said[0]

    async def first(self, ask: Callable[[Rpc], Awaitable[T]]) -> T:
        """Ask one provider after the other for what is confirmed elsewhere."""
        failures: list[ChainError] = []
        for rpc in self.rpcs:
            try:
                with rpc.heard():
                    return await ask(rpc)
            except ChainError as error:
                failures.append(error)
        raise next((f for f in failures if not isinstance(f, history.StateGone)), failures[0])

    async def since(self, text: str, final: Head) -> int:
        """Read --since: a block, or the first block of a day."""
        if _is_block(text):
            return int(text)
        try:
            day = datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(f"--since {text[:40]} is neither a block nor a day", remedy=SINCE) from None
        moment = day if day.tzinfo is not None else day.replace(tzinfo=UTC)
        return await self.first(lambda rpc: history.first_block_at(rpc, int(moment.timestamp()), final.number))


class Examination:
    """One comparison of what a wallet has sent itself with the ledger."""

    def __init__(self, store: SqliteStore, panel: Panel, profile: Profile, report: Report) -> None:
        """Keep ledger and providers; nothing is asked yet. What is found goes into the report."""
        self._store = store
        self._panel = panel
        self._profile = profile
        self._wallet = report.wallet
        self._clock = SystemClock()
        self._report = report

    async def run(self, since: str | None) -> None:
        """Ask for everything and compare."""
        chain_id, wallet, report = self._profile.chain_id, self._wallet, self._report
        final, newest = await self._panel.standing(wallet)
        nonce = await self._panel.agreed(lambda rpc: history.nonce_at(rpc, wallet, final.number), "the final nonce")
        known = _with_unproven(self._store.known(chain_id, wallet))
        own = Own(chain_id, final, (known.next_nonce, nonce, newest), known, 0, final.number)
        report.own = own
        if nonce:
            await self._scan(own, await self._panel.since(since, final) if since is not None else None)
        transfers = [t for t in self._store.transfers(chain_id, wallet) if t.contract == self._profile.contract]
        own.payments = len(transfers)
        shown = {t.tx_hash: t for t in transfers}
        reconciliation.hold_against(known.attempts, shown, (own.first, own.last), report.findings)
        read = await self._strangers(own, transfers)
        await self._unbooked(own)
        await self._nonces(own, read, since is not None)
        await self._balance(own)

    # -- where it begins ----------------------------------------------------------------------------------------

    async def _begin(self, own: Own) -> int:
        """Return the first block worth looking at: the ledger's own first, else that of the wallet's first nonce.

        Raises:
            SettingsError: the ledger does not reach back to it, and no provider has such old state.
            ChainUnknown: no provider said.
        """
        begun = reconciliation.first_known_block(own.known)
        if begun is not None:
            return begun
        below, final = own.known.below, own.final.number
        if below >= own.nonces[1]:
            return final
        try:
            return await self._panel.first(lambda rpc: history.block_of_nonce(rpc, self._wallet, below, 0, final))
        except history.StateGone as error:
            raise SettingsError(f"the wallet's first payment cannot be dated: {error}", remedy=SINCE) from None

    # -- the scan -----------------------------------------------------------------------------------------------

    async def _scan(self, own: Own, since: int | None) -> None:
        """Look for payments to each operator, from where an earlier look stopped; each chunk is kept as it comes."""
        bought = {t.id for t in own.known.topups if t.rail == COINBASE}
        operators = self._profile.operators | {one[0] for one, (by, _) in own.known.owners.items() if by in bought}
        firsts, lasts = [], []
        for operator in sorted(operators):
            done = self._store.scanned(own.chain_id, self._wallet, self._profile.contract, operator)
            if done is None or (since is not None and since < done[0]):
                begin = since if since is not None else await self._begin(own)
                done = (begin, begin - 1)
            last = await self._scan_one(own, operator, done)
            firsts.append(done[0])
            lasts.append(last)
        own.first, own.last = max(firsts), min(lasts)

    async def _scan_one(self, own: Own, operator: bytes, done: tuple[int, int]) -> int:
        """Scan on from `done` to the final block, with the next provider where one fails; return the last block."""
        contract, final = self._profile.contract, own.final.number
        first, last = done
        failures = []
        for rpc in self._panel.rpcs:
            try:
                with rpc.heard():
                    async for chunk in logs.transfers(rpc, contract, operator, last + 1, final, self._panel.pager):
                        found = [_kept(contract, t) for t in chunk.transfers if t.sender == self._wallet]
                        place = (contract, operator)
                        self._store.save_scan(
                            own.chain_id, self._wallet, place, (first, chunk.last), found, self._now()
                        )
                        last = chunk.last
            except ChainError as error:
                failures.append(str(error))
                continue
            return max(last, final)
        self._report.undecided.append(
            f"payments to 0x{operator.hex()} are decided up to block {last} of {final}: {'; '.join(failures)};"
            " run it again, it goes on from there"
        )
        return last

    def _now(self) -> int:
        return self._store.now_ms(self._clock.now_ms())

    # -- transactions -------------------------------------------------------------------------------------------

    async def _read(self, own: Own, tx_hash: bytes) -> WalletTransaction | None:
        """Read a transaction as enough providers show it; None when no final block holds it."""
        final = own.final.number
        return await self._panel.agreed(
            lambda rpc: history.transaction(rpc, self._profile, tx_hash, self._wallet, final), f"0x{tx_hash.hex()}"
        )

    async def _strangers(self, own: Own, transfers: Sequence[Transfer]) -> list[WalletTransaction]:
        """Read and sort the payments whose transaction the ledger does not hold."""
        read = []
        for transfer in reconciliation.strangers(own.known, transfers):
            try:
                done = await self._read(own, transfer.tx_hash)
            except ChainUnknown as error:
                self._report.undecided.append(f"a payment in block {transfer.block_number}: {error}")
                continue
            if done is None:
                self._report.undecided.append(f"a payment in block {transfer.block_number} is not where the log said")
                continue
            read.append(done)
            reconciliation.sort(own.known, done, self._report.findings)
        return read

    async def _unbooked(self, own: Own) -> None:
        """Read what the ledger saw in blocks that were not safe yet and the logs say nothing of: reverts, cancels."""
        for topup, attempt in own.known.attempts:
            told = attempt.inclusion
            if told is None or attempt.hash is None or attempt.booked or attempt.paid:
                continue
            if told.block_number > own.final.number:
                continue
            try:
                done = await self._read(own, attempt.hash)
            except ChainUnknown as error:
                self._report.undecided.append(f"a transaction of {topup.id} in block {told.block_number}: {error}")
                continue
            place = (attempt.plan.nonce, attempt.hash, told.block_number)
            if done is None:
                detail = (
                    f"the ledger saw a transaction of {topup.id} in block {told.block_number}; no provider shows it"
                )
                self._report.findings.tell(What.OTHER_BLOCK, detail, place, topup.id)
            elif done.inclusion.block_number != told.block_number:
                detail = f"a transaction of {topup.id} stands in block {done.inclusion.block_number}"
                self._report.findings.tell(What.OTHER_BLOCK, f"{detail}, not in {told.block_number}", place, topup.id)

    async def _nonces(self, own: Own, read: Sequence[WalletTransaction], from_since: bool) -> None:  # noqa: FBT001
        """Account for every nonce the wallet has used: final ones by their transaction, newer ones by an attempt."""
        known, (expected, final, newest) = own.known, own.nonces
        if newest < expected:
            detail = f"the providers show nonce {newest}, the ledger has used {expected - 1}"
            self._report.findings.tell(What.NONCE_BEHIND, detail, reconciliation.NOWHERE)
        begin = known.below
        if from_since and own.first:
            before = own.first - 1
            try:
                begin = max(begin, await self._panel.first(lambda rpc: history.nonce_at(rpc, self._wallet, before)))
            except ChainUnknown:
                self._report.notes.append(f"no provider says how many transactions came before block {own.first}")
        explained = known.explained | {d.plan.nonce for d in read}
        missing = [n for n in range(begin, final) if n not in explained]
        if len(missing) > NONCES_MAX:
            self._report.undecided.append(f"{len(missing)} transactions of the wallet are unknown; {SINCE}")
            missing = []
        held = 0
        for nonce in missing:
            held = max(held, await self._nonce(own, nonce))
        waiting = {a.plan.nonce for _, a in known.attempts} | explained
        young = [n for n in range(final, newest) if n not in waiting]
        if young:
            self._report.undecided.append(f"nonces {young[0]} to {young[-1]} are not final yet; try again in a while")
        if final > max(expected, held):
            detail = f"the wallet has sent {final} transactions, the ledger knows of {expected}"
            self._report.findings.tell(What.NONCE_AHEAD, detail, reconciliation.NOWHERE)

    async def _nonce(self, own: Own, nonce: int) -> int:
        """Find out what took one nonce; return the nonce after it when it was an attempt the ledger holds, else 0."""
        held = [(t, a) for t, a in own.known.attempts if a.plan.nonce == nonce and a.hash is not None]
        try:
            for topup, attempt in held:
                assert attempt.hash is not None
                done = await self._read(own, attempt.hash)
                if done is not None:
                    detail = f"a transaction of {topup.id} stands in block {done.inclusion.block_number}, unseen"
                    if not any(d.tx_hash == done.hash for d in self._report.findings.differences):
                        self._report.findings.tell(What.UNSEEN, detail, done.place, topup.id)
                    return nonce + 1
            number, tx_hash = await self._panel.first(lambda rpc: self._place(rpc, nonce, own.final.number))
            done = await self._read(own, tx_hash) if tx_hash is not None else None
        except history.StateGone as error:
            self._unexplained(nonce, None, f"no provider can show what took this nonce: {error}")
            return 0
        except ChainUnknown as error:
            self._report.undecided.append(f"nonce {nonce}: {error}")
            return 0
        if done is None:
            detail = "no transaction of the wallet took this nonce: an authorization given to another (EIP-7702)"
            self._unexplained(nonce, number, detail)
        else:
            reconciliation.sort(own.known, done, self._report.findings)
        return 0

    async def _place(self, rpc: Rpc, nonce: int, final: int) -> tuple[int, bytes | None]:
        number = await history.block_of_nonce(rpc, self._wallet, nonce, 0, final)
        return number, await history.hash_at_nonce(rpc, self._wallet, nonce, number)

    def _unexplained(self, nonce: int, number: int | None, detail: str) -> None:
        self._report.findings.tell(What.UNEXPLAINED, detail, (nonce, None, number))
        self._report.findings.foreign.append(Adopted(nonce, None, number, None, None))

    async def _balance(self, own: Own) -> None:
        """Hold the wallet's balance at the final block against the books, where these know where they began."""
        found = self._report.findings
        named = [d.cost for d in found.unknown] + [d.cost for _, _, d in found.lost]
        named += [d.cost for d in found.approvals] + [one.cost for one in found.foreign if one.cost is not None]
        expected = reconciliation.expected_balance(own.known, named, own.final.number)
        if expected is None or self._report.undecided or any(d.what is not What.NONCE_AHEAD for d in found.differences):
            return  # what is named already would only be counted twice
        begun, should = expected
        try:
            holds = await self._panel.first(lambda rpc: history.balance_at(rpc, self._wallet, own.final.number))
        except ChainUnknown:
            self._report.notes.append("no provider has the balance at the final block")
            return
        if holds < should:
            detail = f"the wallet holds {holds}; by the books since block {begun} it should hold {should}"
            found.tell(What.BALANCE, detail, reconciliation.NOWHERE)
        elif holds > should:
            self._report.notes.append(f"{holds - should} came in since block {begun}")


class Search:
    """One comparison of what sellers of a rail have carried to the chain for a wallet with the ledger.

    A wallet's nonce says nothing of it, so that one provider could withhold a payment: as many have to look as have
    to agree, and what any of them shows is named. Taken over is only what as many show in its block.
    """

    def __init__(self, store: SqliteStore, panel: Panel, one: Funding, report: Report) -> None:
        """Keep ledger and providers; nothing is asked yet. What is found goes into the report."""
        self._store = store
        self._panel = panel
        self._one = one
        self._wallet = report.wallet
        self._clock = SystemClock()
        self._report = report

    async def run(self, since: str | None) -> None:
        """Look for everything and compare; what cannot be looked at is said."""
        try:
            final, _ = await self._panel.standing(self._wallet)
            begin = await self._panel.since(since, final) if since is not None else None
        except ChainError as error:
            self._report.unchecked.append(f"payments by {self._one.rail}: {error}")
            return
        first, last = await self._looked(begin, final.number) or (0, -1)
        transfers = await self._compare(first, last)
        if first <= last:
            one = Carried(self._one.rail, self._panel.chain_id, final.number, first, last, len(transfers))
            self._report.carried.append(one)

    async def _looked(self, begin: int | None, final: int) -> tuple[int, int] | None:
        """Let enough providers look; return the first and the last block that all of those have looked at."""
        done: dict[str, tuple[int, int]] = {}
        failures = []
        for rpc in self._panel.rpcs:
            if len(done) < self._panel.quorum and rpc.owner not in done:
                try:
                    with rpc.heard():
                        done[rpc.owner] = await self._scan(rpc, begin, final)
                except ChainError as error:
                    failures.append(str(error))
        if begin is not None and begin > final:
            self._report.unchecked.append(f"payments by {self._one.rail}: --since begins after the final block {final}")
            return None
        if len(done) >= self._panel.quorum:
            return max(first for first, _ in done.values()), min(last for _, last in done.values())
        self._report.unchecked.append(
            f"payments by {self._one.rail} up to block {final}: {'; '.join(failures)}; run it again, it goes on where"
            " it stopped, or name the day of the first payment: --since 2026-01-31"
        )
        return None

    async def _scan(self, rpc: Rpc, begin: int | None, final: int) -> tuple[int, int]:
        """Look on through one provider from where it stopped, or anew where `begin` lies outside of that.

        Raises:
            ChainError: it failed; what it has shown so far is kept.
        """
        token, chain_id = self._one.dollar.token, self._panel.chain_id
        place = (token, rpc.owner.encode())
        done = self._store.scanned(chain_id, self._wallet, *place)
        if done is None or (begin is not None and not done[0] <= begin <= done[1] + 1):
            done = (begin or 0, (begin or 0) - 1)
        first, last = done
        pages = LOGS[self._one.rail](rpc, token, self._wallet, last + 1, final, self._panel.pager)
        async for chunk in pages:
            found, last = [_kept(token, t) for t in chunk.transfers], chunk.last
            at_ms = self._store.now_ms(self._clock.now_ms())
            self._store.save_scan(chain_id, self._wallet, place, (first, last), found, at_ms)
        return first, last

    async def _compare(self, first: int, last: int) -> list[Transfer]:
        """Hold what was found against the ledger; nothing counts as missing on the chain where nobody looked."""
        rail, chain_id, found = self._one.rail, self._panel.chain_id, self._report.findings
        transfers = [t for t in self._store.transfers(chain_id, self._wallet) if t.contract == self._one.dollar.token]
        attempts = self._store.known(chain_id, self._wallet).carried(rail)
        keyed = reconciliation.named(attempts, transfers, by_id=rail == X402)
        reconciliation.hold_against(attempts, dict(keyed), (first, last), found)
        ours = {a.hash for _, a in attempts}
        for transfer in (t for key, t in keyed if key not in ours):
            stray = UnknownPayment(chain_id, transfer, Commodity(self._one.dollar.asset.value), 0)
            if self._store.told("", stray.word) is not None:
                continue
            try:
                number = transfer.block_number
                placed = await self._panel.agreed(partial(history.block, number=number), f"block {number}")
                # One voice is enough to name it, and not to book it: a provider could invent it, or change it.
                if not await self._panel.agreed(partial(self._shows, transfer), f"a payment in block {number}"):
                    raise ChainUnknown(f"no provider shows it in block {number} any more")
                found.strays.append(replace(stray, at_ms=placed.timestamp_s * 1000))
            except ChainError as error:
                self._report.unchecked.append(f"a payment by {rail}: {error}")
            paid = f"{self._one.amount(Usdc(transfer.spent))} to 0x{transfer.recipient.hex()}"
            detail = f"a payment by {rail} of {paid} that the ledger does not know"
            found.tell(What.UNKNOWN_CARRIED, detail, (None, transfer.tx_hash, transfer.block_number))
        return transfers

    async def _shows(self, transfer: Transfer, rpc: Rpc) -> bool:
        """Tell whether a provider shows exactly this payment in its block."""
        token, number = self._one.dollar.token, transfer.block_number
        pages = LOGS[self._one.rail](rpc, token, self._wallet, number, number, self._panel.pager)
        chunks = [one async for one in pages]
        return transfer in (_kept(token, found) for chunk in chunks for found in chunk.transfers)


def _kept(contract: bytes, found: logs.Transfer) -> Transfer:
    """Return a payment as it is kept."""
    return Transfer(contract, found.operator, found.id, found.recipient, found.spent, found.tx_hash, found.block_number)


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


def adopt(report: Report, store: SqliteStore, by: str) -> None:
    """Take over what --adopt can take over; one transaction for each payment, nothing while anything is undecided.

    Raises:
        StoreError: the ledger cannot be written.
    """
    if report.undecided:
        return
    found, at_ms = report.findings, store.now_ms(SystemClock().now_ms())
    if found.unknown or found.strays:
        # First of all, for a person to take back: the credits of what is adopted may still be to come, and
        # nothing here waits for them; a low balance would buy a second time.
        store.say(report.account, "paused", "1", at_ms, by)
        report.notes.append("buying is paused: see that the credits of what was adopted have come, then `topup resume`")
    for stray in found.strays:
        store.adopt_stray(report.account, stray, at_ms, by)
    carried = {stray.transfer.tx_hash for stray in found.strays}
    report.adopted += [d for d in found.differences if d.what is What.UNKNOWN_CARRIED and d.tx_hash in carried]
    own = report.own
    if own is None:
        return
    for done in sorted(found.unknown, key=lambda d: d.plan.nonce):
        one = "t" + done.hash[:6].hex()
        open_topup = store.open_topup(report.account)
        overtaken = open_topup if open_topup is not None and reconciliation.superseded(open_topup, done) else None
        topup = reconciliation.topup_of(one, report.account, COINBASE, report.wallet, done)
        store.adopt_payment(topup, done, reconciliation.entry_of(one, done), overtaken, at_ms, by)
        if overtaken is not None:
            report.notes.append(f"{overtaken.id} was {overtaken.state} and is dropped: {one} was paid in its place")
    for topup, seq, done in found.lost:
        kept = store.adopt_attempt(topup, seq, done, (RESOLVE + topup.id, LOOK), at_ms, by)
        report.notes.append(f"{kept.id} is {kept.state} and holds the payment now; `topup run` follows it")
    for foreign in found.foreign:
        store.adopt_foreign(own.chain_id, report.wallet, foreign, at_ms, by)
    for done in found.approvals:
        foreign, booked = Adopted(*done.place, None, done.cost), (report.account, reconciliation.approval_entry(done))
        store.adopt_foreign(own.chain_id, report.wallet, foreign, at_ms, by, booked=booked)
    grave = {d.what for d in found.differences} - reconciliation.SETTLED - HARMLESS
    if not grave and own.nonces[1] > store.next_nonce(own.chain_id, report.wallet):
        store.adopt_below(own.chain_id, report.wallet, own.nonces[1], at_ms, by)
    settled = reconciliation.SETTLED - {What.UNKNOWN_CARRIED} - ({What.NONCE_AHEAD} if grave else set())
    report.adopted += [d for d in found.differences if d.what in settled]
