"""Does the ledger know everything this wallet did, and how is it told what it does not know?

Reads the chain up to a final block and holds it against the ledger. What the wallet sends itself is found block by
block and nonce by nonce. Of what sellers carry to the chain no nonce tells: the token's logs do, as enough providers
show them. What cannot be learnt is undecided or not checked, never "nothing". Without adopting, only the progress of
the scan is written.
"""

import os
from contextlib import closing
from typing import Final

from topup.accounting import provider_check, reconciliation
from topup.accounting.reconciliation import Adopted, Difference, What
from topup.accounting.usage import Contradiction, per_day
from topup.app import assembly
from topup.app.connections import Connections, opened
from topup.app.funding import funding
from topup.app.settings import Settings
from topup.app.usage import books_of
from topup.commands.answer import Answer
from topup.commands.reconcile import own
from topup.commands.reconcile.carried import LOGS, CarriedPayments
from topup.commands.reconcile.comparison import Comparison
from topup.commands.reconcile.panel import Panel, is_block
from topup.commands.start import agreed, load, wait_for
from topup.domain.errors import ApiError, SettingsError, StoreBusy
from topup.domain.ways_out import LOOK, RESOLVE
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, RAILS
from topup.sellers.openrouter import OpenRouter
from topup.wire.clock import SystemClock

# What says nothing against the nonces that the wallet has used.
HARMLESS: Final = {What.UNSEEN, What.OTHER_BLOCK, What.BALANCE, What.UNKNOWN_CARRIED, What.PROVIDER}


def answer(since: str | None, *, take_over: bool, yes: bool) -> Answer:
    """Hold the ledger against the chain; where it is wanted and agreed to, take over what only the chain knows."""
    settings = load()
    with closing(ledger(settings, adopt=take_over)) as store:
        comparison = wait_for(examine(settings, store, since))
        question, lines = "take all this over into the ledger?", comparison.lines()
        if take_over and (
            not comparison.adoptable or agreed(question, yes=yes, otherwise="nothing was adopted", about=lines)
        ):
            adopt(comparison, store, f"uid {os.getuid()}")
    return Answer(comparison.document(), comparison.lines(), comparison.exit_code)


def ledger(settings: Settings, *, adopt: bool) -> SqliteStore:
    """Open the ledger, creating it when there is none: as its writer to adopt, else beside whoever holds it."""
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


def adopt(comparison: Comparison, store: SqliteStore, by: str) -> None:
    """Take over what --adopt can take over; one transaction for each payment, nothing while anything is undecided."""
    if comparison.undecided:
        return
    findings, at_ms = comparison.findings, store.now_ms(SystemClock().now_ms())
    if findings.unknown or findings.carried:
        # First of all, for a person to take back: the credits of what is adopted may still be to come, and
        # nothing here waits for them; a low balance would buy a second time.
        store.say(comparison.account, "paused", "1", at_ms, by)
        comparison.notes.append(
            "buying is paused: see that the credits of what was adopted have come, then `topup resume`"
        )
    for payment in findings.carried:
        store.adopt_carried(comparison.account, payment, at_ms, by)
    carried = {payment.transfer.tx_hash for payment in findings.carried}
    comparison.adopted += [d for d in findings.differences if d.what is What.UNKNOWN_CARRIED and d.tx_hash in carried]
    if comparison.own is not None:
        _adopt_own(comparison, store, at_ms, by, comparison.own.chain_id, comparison.own.nonce_final)


def _adopt_own(
    comparison: Comparison, store: SqliteStore, at_ms: int, by: str, chain_id: int, nonce_final: int
) -> None:
    findings, account, wallet = comparison.findings, comparison.account, comparison.wallet
    for done in sorted(findings.unknown, key=lambda d: d.plan.nonce):
        topup_id = "t" + done.hash[:6].hex()
        open_topup = store.open_topup(account)
        overtaken = open_topup if open_topup is not None and reconciliation.superseded(open_topup, done) else None
        topup = reconciliation.topup_of(topup_id, account, COINBASE, wallet, done)
        store.adopt_payment(topup, done, reconciliation.entry_of(topup_id, done), overtaken, at_ms, by)
        if overtaken is not None:
            note = f"{overtaken.id} was {overtaken.state} and is dropped: {topup_id} was paid in its place"
            comparison.notes.append(note)
    for topup, seq, done in findings.lost:
        kept = store.adopt_attempt(topup, seq, done, (RESOLVE + topup.id, LOOK), at_ms, by)
        comparison.notes.append(f"{kept.id} is {kept.state} and holds the payment now; `topup run` follows it")
    for foreign in findings.foreign:
        store.adopt_foreign(chain_id, wallet, foreign, at_ms, by)
    for done in findings.approvals:
        foreign, booked = Adopted(*done.position, None, done.cost), (account, reconciliation.approval_entry(done))
        store.adopt_foreign(chain_id, wallet, foreign, at_ms, by, booked=booked)
    grave = {d.what for d in findings.differences} - reconciliation.SETTLED - HARMLESS
    if not grave and nonce_final > store.next_nonce(chain_id, wallet):
        store.adopt_nonce(chain_id, wallet, nonce_final, at_ms, by)
    settled = reconciliation.SETTLED - {What.UNKNOWN_CARRIED} - ({What.NONCE_AHEAD} if grave else set())
    comparison.adopted += [d for d in findings.differences if d.what in settled]


async def examine(settings: Settings, store: SqliteStore, since: str | None) -> Comparison:
    """Hold the wallet's whole past against the ledger, to which the scan's progress is written.

    `since` is a block or a day (UTC) before the wallet's first payment; None to find it out.

    Raises:
        SettingsError: there is no wallet, or `since` is neither block nor day.
        ChainError: not even the final block and the nonces could be learnt.
    """
    async with opened(settings) as connections:
        wallet = connections.payer
        if wallet is None:
            raise SettingsError("no wallet is set", remedy="set wallet.address, or wallet.keystore")
        comparison = Comparison(settings.account, wallet)
        funded = {rail: funding(settings, rail) for rail in _rails(settings, store, wallet)}
        chains = {funds.dollar.chain_id for funds in funded.values()}
        if since is not None and is_block(since) and len(chains) > 1:
            raise SettingsError(f"--since {since} is a block of which chain?", remedy="name a day: --since 2026-01-31")
        if COINBASE in funded:
            profile = assembly.profile(settings)
            panel = Panel(connections.agreeing(funded[COINBASE]), profile.chain_id)
            await own.compare(store, panel, profile, comparison, since)
        for funds in (funds for rail, funds in funded.items() if rail in LOGS):
            panel = Panel(connections.agreeing(funds), funds.dollar.chain_id)
            await CarriedPayments(store, panel, funds, comparison).compare(since)
        await _held_against_provider(connections, store, comparison)
    return comparison


async def _held_against_provider(connections: Connections, store: SqliteStore, comparison: Comparison) -> None:
    """Hold the journal against what the seller of the credits says now: totals, and usage of the days it still tells.

    What it does not say is a note: money is on the chain, and that was looked at.
    """
    try:
        client = connections.api
    except SettingsError as error:
        comparison.notes.append(f"the books were not held against the provider: {error}")
        return
    books = books_of(store, comparison.account)
    try:
        differing = provider_check.totals(books, await client.credits()) + provider_check.explained(books)
        if isinstance(client, OpenRouter) and books.by_model:
            differing += provider_check.retold(books, per_day(await client.activity(), books.by_model))
        comparison.findings.differences += [Difference(What.PROVIDER, detail) for detail in differing]
    except (ApiError, Contradiction) as error:
        comparison.notes.append(f"the books were not held against the provider, or not all of them: {error}")


def _rails(settings: Settings, store: SqliteStore, wallet: bytes) -> list[str]:
    chains = {settings.chain.id, *(funding(settings, rail).dollar.chain_id for rail in LOGS)}
    sent = {t.rail for chain_id in chains for t in store.known(chain_id, wallet).topups if t.out}
    return [rail for rail in RAILS if rail in settings.rails_in_use or rail in sent]
