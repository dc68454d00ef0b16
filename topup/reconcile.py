"""Does the ledger know everything this wallet did, and how is it told what it does not know?

Reads the chain up to a final block, block by block and nonce by nonce, and holds it against the ledger. What cannot
be learnt is undecided, never "nothing". Without adopting, only the progress of the scan is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from topup import adoption, assemble
from topup.adoption import Adopted, Difference, Done, Findings, Known, Transfer, What
from topup.chain import history, scan
from topup.chain.owners import owner, quorum
from topup.chain.profiles import Profile
from topup.chain.rpc import Rpc
from topup.charge import parse
from topup.clock import SystemClock
from topup.errors import ChainError, ChainUnknown, ChargeRefused, Exit, SettingsError, StoreBusy, WrongChain
from topup.events import show
from topup.money import Wei
from topup.ports import Head
from topup.settings import Settings
from topup.steps import LOOK, RESOLVE
from topup.store.sqlite import SqliteStore
from topup.terms import MPP, X402

T = TypeVar("T")
# Nonces looked for one by one, each a bisection over the chain; beyond that a person has to say where to begin.
NONCES_MAX: Final = 200
RAIL: Final = "coinbase"
UNCHECKED: Final = {
    MPP: "payments by mpp: whether the ledger knows them all is not looked for; hold `topup history` against the token"
    " transfers of the wallet in an explorer of Tempo",
    X402: "payments by x402: whether the ledger knows them all is not looked for; hold `topup history` against the USDC"
    " transfers of the wallet in an explorer of Base",
}
SINCE: Final = "name the block or the day of the wallet's first payment: --since 2026-01-31"


@dataclass
class Report:
    """What was found. Blocks `first` to `last` are decided; `nonces` are the ledger's next, the final and the newest.

    `undecided` says in words what could not be learnt; `adopted` what was taken over.
    """

    account: str
    chain_id: int
    wallet: bytes
    final: Head
    nonces: tuple[int, int, int]
    known: Known
    first: int = 0
    last: int = 0
    payments: int = 0
    findings: Findings = field(default_factory=Findings)
    undecided: list[str] = field(default_factory=list)
    # What was not looked for at all: this command does not know how.
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
        return not self.undecided and any(d.what in adoption.SETTLED for d in self.findings.differences)

    @property
    def exit_code(self) -> Exit:
        """Say whether anything is undecided, differs, or neither."""
        return Exit.LATER if self.undecided or self.unchecked else Exit.PERSON if self.remaining else Exit.OK

    def document(self) -> dict[str, Any]:
        """Return it as one JSON-ready document; wei as text."""
        ledger, final, newest = self.nonces
        return {
            "schema": 1,
            "account": self.account,
            "chain_id": self.chain_id,
            "wallet": show(self.wallet),
            "final_block": self.final.number,
            "first_block": self.first,
            "decided_block": self.last,
            "nonce_ledger": ledger,
            "nonce_final": final,
            "nonce_latest": newest,
            "payments_on_chain": self.payments,
            "differences": [_shown(d) for d in self.remaining],
            "adopted": [_shown(d) for d in self.adopted],
            "undecided": self.undecided,
            "unchecked": self.unchecked,
            "notes": self.notes,
            "exit_code": int(self.exit_code),
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        ledger, final, newest = self.nonces
        lines = [
            f"wallet     0x{self.wallet.hex()} on chain {self.chain_id}",
            f"nonce      {newest} at the newest block, {final} at final block {self.final.number}; ledger: {ledger}",
            f"payments   {self.payments} on the chain in blocks {self.first} to {self.last}",
        ]
        lines += [f"adopted    {_line(d)}" for d in self.adopted]
        for one in self.remaining:
            lines += [f"differs    {_line(one)}", f"           to do: {one.remedy}"]
        lines += [f"undecided  {one}" for one in self.undecided]
        lines += [f"unchecked  {one}" for one in self.unchecked]
        lines += [f"note       {one}" for one in self.notes]
        return lines if self.exit_code is not Exit.OK else [*lines, "the ledger knows everything this wallet did"]


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
    wallet = assemble.wallet(settings)
    if wallet is None:
        raise SettingsError("no wallet is set", remedy="set wallet.address, or wallet.keystore")
    rpcs = assemble.providers(settings)
    try:
        return await Examination(settings, store, rpcs, wallet).run(since)
    finally:
        for rpc in rpcs:
            await rpc.close()


class Examination:
    """One comparison of a wallet's past with the ledger."""

    def __init__(self, settings: Settings, store: SqliteStore, rpcs: Sequence[Rpc], wallet: bytes) -> None:
        """Keep ledger and providers; nothing is asked yet."""
        self._settings = settings
        self._store = store
        self._rpcs = rpcs
        self._owners = [owner(url) for url in settings.chain.rpc_urls]
        self._quorum = quorum(settings.chain.rpc_urls, settings.chain.quorum)
        self._profile: Profile = assemble.profile(settings)
        self._wallet = wallet
        self._clock = SystemClock()

    async def run(self, since: str | None) -> Report:
        """Ask for everything and compare."""
        chain_id, wallet = self._profile.chain_id, self._wallet
        final, newest = await self._standing()
        nonce = await self._agreed(lambda rpc: history.nonce_at(rpc, wallet, final.number), "the final nonce")
        known = _with_unproven(self._store.known(chain_id, wallet))
        nonces = (known.next_nonce, nonce, newest)
        report = Report(self._settings.account, chain_id, wallet, final, nonces, known)
        report.first, report.last = 0, final.number
        report.unchecked += [UNCHECKED[rail] for rail in self._settings.rails.use if rail in UNCHECKED]
        if nonce:
            await self._scan(report, await self._since(since, final) if since is not None else None)
        transfers = [t for t in self._store.transfers(chain_id, wallet) if t.contract == self._profile.contract]
        report.payments = len(transfers)
        adoption.hold_against(known, transfers, report.first, report.last, report.findings)
        read = await self._strangers(report, transfers)
        await self._unbooked(report)
        await self._nonces(report, read, since is not None)
        await self._balance(report)
        return report

    # -- what is asked ------------------------------------------------------------------------------------------

    async def _standing(self) -> tuple[Head, int]:
        """Return the newest block that is final everywhere, and the wallet's newest nonce anywhere."""
        chain_id, wallet = self._profile.chain_id, self._wallet
        places = await self._all(lambda rpc: history.standing(rpc, chain_id, wallet), "the final block")
        number = min(place.final.number for _, place in places)
        final = await self._agreed(lambda rpc: history.block(rpc, number), f"block {number}")
        return final, max(place.nonce_latest for _, place in places)

    async def _all(self, ask: Callable[[Rpc], Awaitable[T]], what: str) -> list[tuple[str, T]]:
        """Ask every provider; return the answers of enough independent ones, each with its owner."""

        async def one(rpc: Rpc) -> T | ChainError:
            try:
                return await ask(rpc)
            except ChainError as error:
                return error

        answers = list(zip(self._owners, await asyncio.gather(*map(one, self._rpcs)), strict=True))
        said = [(name, answer) for name, answer in answers if not isinstance(answer, ChainError)]
        if len({name for name, _ in said}) >= self._quorum:
            return said
        failed = [answer for _, answer in answers if isinstance(answer, ChainError)]
        if all(isinstance(error, WrongChain) for error in failed):
            raise failed[0]
        gone = all(isinstance(error, history.StateGone) for error in failed)
        raise (history.StateGone if gone else ChainUnknown)(f"{what}: " + "; ".join(map(str, failed)))

    async def _agreed(self, ask: Callable[[Rpc], Awaitable[T]], what: str) -> T:
        """Ask every provider for what can only have one answer."""
        said = [answer for _, answer in await self._all(ask, what)]
        if any(answer != said[0] for answer in said):
            raise ChainUnknown(f"the providers disagree about {what}")
        return said[0]

    async def _first(self, ask: Callable[[Rpc], Awaitable[T]]) -> T:
        """Ask one provider after the other for what is confirmed elsewhere."""
        failures: list[ChainError] = []
        for rpc in self._rpcs:
            try:
                return await ask(rpc)
            except ChainError as error:
                failures.append(error)
        raise next((f for f in failures if not isinstance(f, history.StateGone)), failures[0])

    # -- where it begins ----------------------------------------------------------------------------------------

    async def _since(self, text: str, final: Head) -> int:
        """Read --since: a block, or the first block of a day."""
        if text.isascii() and text.isdecimal():
            return int(text)
        try:
            day = datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(f"--since {text[:40]} is neither a block nor a day", remedy=SINCE) from None
        moment = day if day.tzinfo is not None else day.replace(tzinfo=UTC)
        return await self._first(lambda rpc: history.first_block_at(rpc, int(moment.timestamp()), final.number))

    async def _begin(self, report: Report) -> int:
        """Return the first block worth looking at: the ledger's own first, else that of the wallet's first nonce.

        Raises:
            SettingsError: the ledger does not reach back to it, and no provider has such old state.
            ChainUnknown: no provider said.
        """
        own = adoption.first_known_block(report.known)
        if own is not None:
            return own
        below, final = report.known.below, report.final.number
        if below >= report.nonces[1]:
            return final
        try:
            return await self._first(lambda rpc: history.block_of_nonce(rpc, self._wallet, below, 0, final))
        except history.StateGone as error:
            raise SettingsError(f"the wallet's first payment cannot be dated: {error}", remedy=SINCE) from None

    # -- the scan -----------------------------------------------------------------------------------------------

    async def _scan(self, report: Report, since: int | None) -> None:
        """Look for payments to each operator, from where an earlier look stopped; each chunk is kept as it comes."""
        operators = self._profile.operators | {operator for operator, _ in report.known.owners}
        firsts, lasts = [], []
        for operator in sorted(operators):
            done = self._store.scanned(report.chain_id, self._wallet, self._profile.contract, operator)
            if done is None or (since is not None and since < done[0]):
                begin = since if since is not None else await self._begin(report)
                done = (begin, begin - 1)
            last = await self._scan_one(report, operator, done)
            firsts.append(done[0])
            lasts.append(last)
        report.first, report.last = max(firsts), min(lasts)

    async def _scan_one(self, report: Report, operator: bytes, done: tuple[int, int]) -> int:
        """Scan on from `done` to the final block, with the next provider where one fails; return the last block."""
        contract, final = self._profile.contract, report.final.number
        first, last = done
        failures = []
        for rpc in self._rpcs:
            try:
                async for chunk in scan.transfers(rpc, contract, operator, last + 1, final):
                    found = [
                        Transfer(contract, operator, t.id, t.recipient, Wei(t.spent), t.tx_hash, t.block_number)
                        for t in chunk.transfers
                        if t.sender == self._wallet
                    ]
                    last = chunk.last
                    self._store.save_scan(
                        report.chain_id, self._wallet, (contract, operator), (first, last), found, self._now()
                    )
            except ChainError as error:
                failures.append(str(error))
                continue
            return max(last, final)
        report.undecided.append(
            f"payments to 0x{operator.hex()} are decided up to block {last} of {final}: {'; '.join(failures)};"
            " run it again, it goes on from there"
        )
        return last

    def _now(self) -> int:
        return self._store.now_ms(self._clock.now_ms())

    # -- transactions -------------------------------------------------------------------------------------------

    async def _read(self, report: Report, tx_hash: bytes) -> Done | None:
        """Read a transaction as enough providers show it; None when no final block holds it."""
        final = report.final.number
        return await self._agreed(
            lambda rpc: history.transaction(rpc, self._profile, tx_hash, self._wallet, final), f"0x{tx_hash.hex()}"
        )

    async def _strangers(self, report: Report, transfers: Sequence[Transfer]) -> list[Done]:
        """Read and sort the payments whose transaction the ledger does not hold."""
        read = []
        for transfer in adoption.strangers(report.known, transfers):
            try:
                done = await self._read(report, transfer.tx_hash)
            except ChainUnknown as error:
                report.undecided.append(f"a payment in block {transfer.block_number}: {error}")
                continue
            if done is None:
                report.undecided.append(f"a payment in block {transfer.block_number} is not where the log said")
                continue
            read.append(done)
            adoption.sort(report.known, done, report.findings)
        return read

    async def _unbooked(self, report: Report) -> None:
        """Read what the ledger saw in blocks that were not safe yet and the logs say nothing of: reverts, cancels."""
        for topup, attempt in report.known.attempts:
            told = attempt.inclusion
            if told is None or attempt.hash is None or attempt.booked or attempt.paid:
                continue
            if told.block_number > report.final.number:
                continue
            try:
                done = await self._read(report, attempt.hash)
            except ChainUnknown as error:
                report.undecided.append(f"a transaction of {topup.id} in block {told.block_number}: {error}")
                continue
            place = (attempt.plan.nonce, attempt.hash, told.block_number)
            if done is None:
                detail = (
                    f"the ledger saw a transaction of {topup.id} in block {told.block_number}; no provider shows it"
                )
                report.findings.tell(What.OTHER_BLOCK, detail, place, topup.id)
            elif done.inclusion.block_number != told.block_number:
                detail = f"a transaction of {topup.id} stands in block {done.inclusion.block_number}"
                report.findings.tell(What.OTHER_BLOCK, f"{detail}, not in {told.block_number}", place, topup.id)

    async def _nonces(self, report: Report, read: Sequence[Done], from_since: bool) -> None:  # noqa: FBT001
        """Account for every nonce the wallet has used: final ones by their transaction, newer ones by an attempt."""
        known, (expected, final, newest) = report.known, report.nonces
        if newest < expected:
            detail = f"the providers show nonce {newest}, the ledger has used {expected - 1}"
            report.findings.tell(What.NONCE_BEHIND, detail, adoption.NOWHERE)
        begin = known.below
        if from_since and report.first:
            before = report.first - 1
            try:
                begin = max(begin, await self._first(lambda rpc: history.nonce_at(rpc, self._wallet, before)))
            except ChainUnknown:
                report.notes.append(f"no provider says how many transactions came before block {report.first}")
        explained = known.explained | {d.plan.nonce for d in read}
        missing = [n for n in range(begin, final) if n not in explained]
        if len(missing) > NONCES_MAX:
            report.undecided.append(f"{len(missing)} transactions of the wallet are unknown; {SINCE}")
            missing = []
        own = 0
        for nonce in missing:
            own = max(own, await self._nonce(report, nonce))
        waiting = {a.plan.nonce for _, a in known.attempts} | explained
        young = [n for n in range(final, newest) if n not in waiting]
        if young:
            report.undecided.append(f"nonces {young[0]} to {young[-1]} are not final yet; try again in a while")
        if final > max(expected, own):
            detail = f"the wallet has sent {final} transactions, the ledger knows of {expected}"
            report.findings.tell(What.NONCE_AHEAD, detail, adoption.NOWHERE)

    async def _nonce(self, report: Report, nonce: int) -> int:
        """Find out what took one nonce; return the nonce after it when it was an attempt the ledger holds, else 0."""
        held = [(t, a) for t, a in report.known.attempts if a.plan.nonce == nonce and a.hash is not None]
        try:
            for topup, attempt in held:
                assert attempt.hash is not None
                done = await self._read(report, attempt.hash)
                if done is not None:
                    detail = f"a transaction of {topup.id} stands in block {done.inclusion.block_number}, unseen"
                    if not any(d.tx_hash == done.hash for d in report.findings.differences):
                        report.findings.tell(What.UNSEEN, detail, done.place, topup.id)
                    return nonce + 1
            number, tx_hash = await self._first(lambda rpc: self._place(rpc, nonce, report.final.number))
            done = await self._read(report, tx_hash) if tx_hash is not None else None
        except history.StateGone as error:
            self._unexplained(report, nonce, None, f"no provider can show what took this nonce: {error}")
            return 0
        except ChainUnknown as error:
            report.undecided.append(f"nonce {nonce}: {error}")
            return 0
        if done is None:
            detail = "no transaction of the wallet took this nonce: an authorization given to another (EIP-7702)"
            self._unexplained(report, nonce, number, detail)
        else:
            adoption.sort(report.known, done, report.findings)
        return 0

    async def _place(self, rpc: Rpc, nonce: int, final: int) -> tuple[int, bytes | None]:
        number = await history.block_of_nonce(rpc, self._wallet, nonce, 0, final)
        return number, await history.hash_at_nonce(rpc, self._wallet, nonce, number)

    @staticmethod
    def _unexplained(report: Report, nonce: int, number: int | None, detail: str) -> None:
        report.findings.tell(What.UNEXPLAINED, detail, (nonce, None, number))
        report.findings.foreign.append(Adopted(nonce, None, number, None, None))

    async def _balance(self, report: Report) -> None:
        """Hold the wallet's balance at the final block against the books, where these know where they began."""
        found = report.findings
        named = [d.cost for d in found.unknown] + [d.cost for _, _, d in found.lost]
        named += [one.cost for one in found.foreign if one.cost is not None]
        expected = adoption.expected_balance(report.known, named, report.final.number)
        if expected is None or report.undecided or any(d.what is not What.NONCE_AHEAD for d in found.differences):
            return  # what is named already would only be counted twice
        begun, should = expected
        try:
            holds = await self._first(lambda rpc: history.balance_at(rpc, self._wallet, report.final.number))
        except ChainUnknown:
            report.notes.append("no provider has the balance at the final block")
            return
        if holds < should:
            detail = f"the wallet holds {holds}; by the books since block {begun} it should hold {should}"
            found.tell(What.BALANCE, detail, adoption.NOWHERE)
        elif holds > should:
            report.notes.append(f"{holds - should} came in since block {begun}")


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
    if found.unknown:
        # First of all, for a person to take back: the credits of what is adopted may still be to come, and
        # nothing here waits for them; a low balance would buy a second time.
        store.say(report.account, "paused", "1", at_ms, by)
        report.notes.append("buying is paused: see that the credits of what was adopted have come, then `topup resume`")
    for done in sorted(found.unknown, key=lambda d: d.plan.nonce):
        one = "t" + done.hash[:6].hex()
        open_topup = store.open_topup(report.account)
        overtaken = open_topup if open_topup is not None and adoption.superseded(open_topup, done) else None
        topup = adoption.topup_of(one, report.account, RAIL, report.wallet, done)
        store.adopt_payment(topup, done, adoption.entry_of(one, done), overtaken, at_ms, by)
        if overtaken is not None:
            report.notes.append(f"{overtaken.id} was {overtaken.state} and is dropped: {one} was paid in its place")
    for topup, seq, done in found.lost:
        kept = store.adopt_attempt(topup, seq, done, (RESOLVE + topup.id, LOOK), at_ms, by)
        report.notes.append(f"{kept.id} is {kept.state} and holds the payment now; `topup run` follows it")
    for foreign in found.foreign:
        store.adopt_foreign(report.chain_id, report.wallet, foreign, at_ms, by)
    grave = {d.what for d in found.differences} - adoption.SETTLED - {What.UNSEEN, What.OTHER_BLOCK, What.BALANCE}
    if not grave and report.nonces[1] > store.next_nonce(report.chain_id, report.wallet):
        store.adopt_below(report.chain_id, report.wallet, report.nonces[1], at_ms, by)
    settled = adoption.SETTLED if not grave else adoption.SETTLED - {What.NONCE_AHEAD}
    report.adopted += [d for d in found.differences if d.what in settled]
