"""What can each provider do, and what follows from what it cannot? It is asked exactly what a payment asks.

By the same code, with the same questions in batches of the same size, the same tags, and the longest range of logs that
a proof may need. A limit that topup copes with is said with what is done about it; only what no payment can do without
is a failure.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from topup.app.connections import opened
from topup.app.funding import Funding
from topup.app.settings import Settings
from topup.chain.blocks import HEADS, head
from topup.chain.capabilities import Trouble
from topup.chain.owners import owner, quorum
from topup.chain.paging import SPAN, Pager, Wanted
from topup.chain.rpc import Answer, Query, Rpc, RpcError, known, quantity, reverted
from topup.chain.search import QUESTIONS_MAX, Search, Sought, TooNarrow, Unkept
from topup.commands.doctor.finding import SKEW_MAX_S, Check, failed, skew, skipped
from topup.domain.errors import ChainError, ChainUnknown, PaymentForbidden
from topup.domain.lifecycle import REPLACED_BLOCKS
from topup.ports.budget import FIRST, QUESTIONS, SECONDS, Budget
from topup.ports.chain import Head, Piece, Preflight
from topup.wire.clean import SENTENCE_MAX
from topup.wire.clock import SystemClock

# Blocks to go back for a balance: what a payment's books need to be held against the wallet.
HISTORY_BLOCKS: Final = 100
# So often, and so long, a provider is asked for logs here: enough for a whole proof where ranges of SPAN are granted.
LOG_QUESTIONS: Final = 20
LOG_SECONDS: Final = 8
TIP: Final = "eth_maxPriorityFeePerGas"


@dataclass(frozen=True)
class Chain:
    """A chain as one rail asks it.

    `before` stands before the names of its checks, `paid` names its providers; `remedy` is for those of another chain.
    `plan` asks what a payment is planned on, `dry` what a dry run on a block asks, None where nothing is run dry, and
    `old` for a balance at a block. `logs` is what is looked for in the last `blocks` blocks at most, without which
    `lost` is lost. `alone` says what a single owner cannot show, and what two could.
    """

    before: str
    chain_id: int
    remedy: str
    paid: Funding
    plan: Callable[[Rpc], Awaitable[Preflight]]
    dry: Callable[[Head], list[Query]] | None
    old: Callable[[str], Query]
    logs: Wanted
    blocks: int
    lost: str
    alone: tuple[str, str]


@dataclass
class Provider:
    """One provider, `name` as its checks are called, and the blocks it has shown: the newest, and the final height."""

    rpc: Rpc
    chain: Chain
    name: str
    newest: Head
    final: int | None
    checks: list[Check] = field(default_factory=list)

    def tell(self, what: str, says: str, remedy: str = "", *, ok: bool = True) -> None:
        """Add what was found."""
        self.checks.append(Check(f"{self.name} {what}", ok=ok, says=says, remedy=remedy))


def longest(life_s: int, block_s: float) -> int:
    """Return over how many blocks a proof may have to look for what can be paid for so long."""
    return int(life_s / block_s) + REPLACED_BLOCKS


async def examined(
    settings: Settings, chain: Chain, names: Sequence[str], rest: Callable[[list[Rpc]], Awaitable[list[Check]]]
) -> list[Check]:
    """Look at a chain's providers, and by those that may be used at the rest, whose checks have these names."""
    async with opened(settings) as connections:
        rpcs = connections.providers(chain.paid.urls)
        hosts = [rpc.host for rpc in rpcs]
        called = [rpc.host if hosts.count(rpc.host) == 1 else rpc.name for rpc in rpcs]
        named = [(rpc, f"{chain.before}provider {name}") for rpc, name in zip(rpcs, called, strict=True)]
        looks = await asyncio.gather(*(_provider(settings, rpc, chain, name) for rpc, name in named))
        good = [rpc for rpc, (_, right) in zip(rpcs, looks, strict=True) if right]
        checks = [*(check for look, _ in looks for check in look), _agreement(chain, good)]
        return checks + (await rest(good) if good else skipped(names, "no provider can be asked"))


def _agreement(chain: Chain, good: Sequence[Rpc]) -> Check:
    name, urls = f"{chain.before}providers", chain.paid.urls
    owners = {owner(url) for url in urls}
    needed = quorum(urls, chain.paid.wanted)
    several = f"{len(urls)} URLs of {len(owners)} owner{'s' if len(owners) > 1 else ''}"
    here = any(name.startswith("loopback:") for name in owners)
    kinds = "two names of one port of this machine" if here else "two of one registrable domain"
    twice = f"{several}: {kinds} count as one; " if len(urls) > len(owners) else ""
    believed = len({rpc.owner for rpc in good})
    if believed < needed:
        says = f"{needed} of different owners have to agree, and {believed} can be believed now: topup waits"
        return Check(name, ok=False, says=says, remedy="see each provider above, or add one of another owner")
    if len(owners) == 1:
        says, why = chain.alone
        remedy = f"add a provider of another owner to {chain.paid.said}: {why}"
        return Check(name, ok=True, says=f"warning: {twice}{says}", remedy=remedy)
    if needed == 1:
        setting = chain.paid.said.replace("rpc_urls", "quorum")
        says = f"warning: {twice}{setting} = 1: whichever answers first is believed alone"
        return Check(name, ok=True, says=says, remedy=f"remove {setting}, so that two have to agree")
    return Check(name, ok=True, says=f"{twice}{len(owners)} owners, of which {needed} have to agree")


async def _provider(settings: Settings, rpc: Rpc, chain: Chain, name: str) -> tuple[list[Check], bool]:
    """Ask one provider what it is and can; tell whether the other looks may use it."""
    try:
        with rpc.heard():
            said, newest, safe, final = await rpc.batch(HEADS)
            chain_id = quantity(known(said, "eth_chainId"), "the chain id")
            # In this order: of a provider of another chain nothing else is read.
            at = head(known(newest, "the newest block")) if chain_id == chain.chain_id else None
            ended = head(final).number if at is not None and isinstance(final, dict) else None
    except ChainError as error:
        return [failed(name, error, f"check {chain.paid.said} and the network")], False
    if at is None:
        says = f"speaks for chain {chain_id}, not {chain.chain_id}"
        return [Check(name, ok=False, says=says, remedy=chain.remedy)], False
    provider = Provider(rpc, chain, name, at, ended)
    provider.checks.append(Check(name, ok=True, says=f"chain {chain_id}, block {at.number}"))
    provider.checks.append(_clock(settings, provider))
    _finality(provider, safe, final)
    await _look(provider, "planning", _planning)
    if chain.dry is not None:
        await _look(provider, "dry run", _dry_run)
    await _look(provider, "history", _history)
    await _look(provider, "logs", _logs)
    _limits(provider)
    # A check may quote what the provider has said: it is cleaned and masked here, whatever look it came from.
    return [replace(check, says=rpc.shown(check.says, SENTENCE_MAX)) for check in provider.checks], True


async def _look(provider: Provider, what: str, look: Callable[[Provider], Awaitable[None]]) -> None:
    try:
        with provider.rpc.heard():
            await look(provider)
    except (ChainError, PaymentForbidden) as error:
        remedy = "use another provider: a payment asks exactly this, and waits until it is answered"
        provider.checks.append(failed(f"{provider.name} {what}", error, remedy))


def _clock(settings: Settings, provider: Provider) -> Check:
    name, now_s = f"{provider.name} clock", SystemClock().now_ms() // 1000
    age = now_s - provider.newest.timestamp_s
    if age <= SKEW_MAX_S:
        return skew(name, provider.newest.timestamp_s, now_s)
    late = age > settings.chain.head_age_max_s
    remedy = "use another provider, or set this machine's clock" if late else ""
    return Check(name, ok=not late, says=f"its newest block is {age} s old", remedy=remedy)


def _finality(provider: Provider, safe: Answer, final: Answer) -> None:
    lacks = [tag for tag, block in (("safe", safe), ("finalized", final)) if not isinstance(block, dict)]
    if not lacks:
        provider.tell("finality", "serves safe and finalized blocks")
    elif lacks == ["safe"]:
        says = "warning: no tag safe: a payment is done only at the final block, some twenty minutes later"
        provider.tell("finality", says, "nothing, or a provider that serves it")
    elif lacks == ["finalized"]:
        says = f"warning: no tag finalized: payments are done at the safe block; {provider.chain.lost}"
        provider.tell("finality", says, "a provider that serves it")
    else:
        remedy = "use another provider: without them nothing is ever settled"
        provider.tell("finality", "serves no safe blocks and no finalized blocks", remedy, ok=False)


async def _planning(provider: Provider) -> None:
    name = "planning"
    try:
        planned = await provider.chain.plan(provider.rpc)
    except PaymentForbidden as error:
        provider.tell(name, f"answers, and what it shows forbids a payment now: {error}; see the checks of the chain")
        return
    provider.tell(name, "answers all that a payment is planned on")
    if planned.doubt:
        provider.tell("pending", f"warning: {planned.doubt}; payments go on", "use this wallet for nothing else")


async def _dry_run(provider: Provider) -> None:
    assert provider.chain.dry is not None
    called, gas, effects, _, block, *_ = await provider.rpc.batch(provider.chain.dry(provider.newest))
    for method, answer in (("eth_call", called), ("eth_estimateGas", gas)):
        # That the wallet is poor, or that its code objects, is an answer; other checks say it.
        if isinstance(answer, RpcError) and not reverted(answer) and "insufficient funds" not in answer.message:
            raise ChainUnknown(f"no {method} at a block that is named by its number: {answer.message}")
    if known(block, f"block {provider.newest.number}") is None:
        raise ChainUnknown(f"block {provider.newest.number}, which it has just shown, is not there")
    without = "payments are proven by eth_call alone"
    provider.checks.append(_ability(f"{provider.name} simulation", "eth_simulateV1", effects, without))


async def _history(provider: Provider) -> None:
    back, final = hex(max(0, provider.newest.number - HISTORY_BLOCKS)), provider.final
    old, *held = await provider.rpc.batch(
        [provider.chain.old(back), *([provider.chain.old(hex(final))] if final is not None else [])]
    )
    lost = "the wallet's balance cannot verify older payments"
    provider.checks.append(_ability(f"{provider.name} history", "old balances", old, lost))
    provider.checks += [_final_state(f"{provider.name} final state", answer) for answer in held]


async def _logs(provider: Provider) -> None:
    """Look for a payment that nobody made, as far back as a proof may have to, by the code that proves."""
    chain, clock = provider.chain, SystemClock()
    pager = Pager(Budget(clock, questions=LOG_QUESTIONS, seconds=LOG_SECONDS))
    search = Search(chain.chain_id, pager, Unkept(), clock)
    since = max(0, provider.newest.number - chain.blocks + 1)
    sought = Sought(b"", chain.logs, since, lambda *_: None)
    more = "a provider that serves longer ranges proves more"
    try:
        piece = await search.through(provider.rpc, sought, None, provider.newest)
    except TooNarrow as error:
        provider.tell("logs", f"warning: {error}; {chain.lost}", more)
        return
    except ChainUnknown as error:
        says = f"warning: no logs of as many blocks as a proof needs: {error}; {chain.lost}"
        provider.tell("logs", says, "a provider that serves the contract's logs proves more")
        return
    says = _reach(piece, pager.most(provider.rpc), chain, whole=piece.last >= provider.newest.number)
    provider.tell("logs", says, more if says.startswith("warning:") else "")


def _reach(piece: Piece, most: int | None, chain: Chain, *, whole: bool) -> str:
    """Say how long a proof takes at the range that is granted, and at the pace at which was answered."""
    blocks = chain.blocks
    asked = -(-blocks // min(most or SPAN, SPAN))
    pace = min(QUESTIONS, SECONDS * 1000 * max(1, piece.asked) // max(1, piece.spent_ms))
    passes = -(-asked // max(FIRST, pace))
    if most is None and (whole or passes == 1):
        return "serves the contract's logs"
    range_of = f"{most} block{'s' if most > 1 else ''} of logs a question: " if most is not None else ""
    about = "one pass" if passes == 1 else f"about {passes} passes"
    if asked > QUESTIONS_MAX:
        never = f"more than the {QUESTIONS_MAX} that are ever asked"
        return f"warning: {range_of}a proof over {blocks} blocks would take {asked} questions, {never}; {chain.lost}"
    return f"{range_of}a proof of non-payment over {blocks} blocks takes {about}, with {asked} questions: kept to"


def _limits(provider: Provider) -> None:
    can, most = provider.rpc.can, provider.rpc.can.batch_max
    if most is None:
        provider.tell("batches", "takes in one batch what a payment asks")
    elif most == 1:
        provider.tell("batches", "takes no batches: kept to, each question leaves by itself")
    else:
        provider.tell("batches", f"takes {most} calls in a batch: kept to, more leave as several requests side by side")
    if can.has_met(Trouble.NO_TIP):
        provider.tell("tip", f"no {TIP}: the tip is what recent blocks have paid")
    if can.has_met(Trouble.BEHIND):
        provider.tell("nodes", "is a pool whose nodes are a block or more apart: what one lacks is asked once more")
    if can.has_met(Trouble.RATE):
        says = "warning: limits the rate of questions: topup waits and asks the same again, which makes it slower"
        provider.tell("rate", says, "nothing, or a provider that takes more questions")


def _final_state(name: str, answer: Any) -> Check:
    """Say whether the wallet's books can be held against the chain: a node may have forgotten what is final."""
    try:
        quantity(known(answer, "the balance"), "the balance", bare=True)
    except ChainUnknown as error:
        says = f"warning: no balance at the final block: the wallet's books cannot be held against the chain ({error})"
        return Check(name, ok=True, says=says, remedy="a provider that keeps the state of final blocks")
    return Check(name, ok=True, says="tells the balance at the final block")


def _ability(name: str, what: str, answer: Any, without: str) -> Check:
    """A provider that lacks this still serves; the owner should know what is lost."""
    if isinstance(answer, RpcError):
        remedy = f"a provider that serves {what} proves more"
        return Check(name, ok=True, says=f"warning: no {what}: {without}", remedy=remedy)
    return Check(name, ok=True, says=f"serves {what}")
