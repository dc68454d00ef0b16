"""What is a whole world small enough to live a million steps? Chain, providers, account and clock under one seed.

Nothing here listens on a socket. The chain is a list of blocks with the rules that matter to a payer: one transaction
a nonce, a charge is paid once, a deadline is the block's own time, what is not final may be replaced. Providers see it
late, not at all, or lie. A seller carries authorizations of dollars there when it likes. Above them stand the real
agreement of providers, the real rails, proofs, flow and ledger. What Tempo and its seller do stands in
`simulated_tempo`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any, TypeVar

from tests.world import builders
from topup.chain import agreement
from topup.chain.agreement import Agreed
from topup.chain.charge_status import Account
from topup.chain.providers import Providers
from topup.chain.receipts import ProviderObservation
from topup.chain.rpc import Rpc
from topup.domain.coinbase_charge import Charge, Pins, charge_of
from topup.domain.credits import Reading
from topup.domain.demand import Request, Verified
from topup.domain.dollars import BASE_DOLLAR
from topup.domain.errors import ApiGone, ApiLimited, ApiUnknown, ChainUnknown, PaymentForbidden, Reverted, WrongChain
from topup.domain.events import Event
from topup.domain.lifecycle import Attempt, Inclusion, Kind, Plan
from topup.domain.money import Asset, EthPrice, Usd, Usdc, Wei
from topup.domain.nonpayment import ChargeStatus
from topup.domain.reasons import Reason
from topup.ports.account import Key
from topup.ports.chain import (
    AuthorizationUse,
    Call,
    Delivery,
    Head,
    Holdings,
    Observation,
    Preflight,
    Seen,
    Sent,
    Simulation,
    Spent,
)
from topup.sandbox.charges import STRANGER, Ask, named_address
from topup.wire.http import Answered

T = TypeVar("T")
BLOCK_S = 2
PAY_GAS, REVERT_GAS, CANCEL_GAS, APPROVE_GAS = 228_000, 60_000, 21_000, 56_000
L1_FEE = 9 * 10**9
SAFE_DEPTH, FINAL_DEPTH = 6, 20
STALE_MS = 50_000
# Whoever carries an authorization to the chain has nonces of his own.
NO_NONCE = -1
SELLER = named_address("topup simulation: seller")
Id = tuple[bytes, bytes]


@dataclass(frozen=True)
class Tx:
    """A signed transaction as the simulated chain reads it; `charge` is what it pays, None for one that pays nothing.

    One that carries an authorization of ours is somebody else's: `signed` is what we know it by, b"" for our own, and
    `place` what it uses up. `value` is wei, but units of the token with `in_tokens`; `approves` is what the contract
    may take of the token afterwards.
    """

    hash: bytes
    nonce: int
    charge: Id | None
    deadline: int
    total: int
    value: int
    fee: int
    tip: int
    signed: bytes = b""
    place: Id | None = None
    in_tokens: bool = False
    approves: int | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction in its block; `fee` is all that the network took."""

    tx: Tx
    success: bool
    spent: int
    fee: int
    reason: str = ""
    transient: bool = True


@dataclass
class Block:
    """A block with the state after it.

    `balance` is the wallet's in what it pays with on this chain: wei, or units of the token where it has nothing else.
    `tokens` are what it has beside, `allowance` what the contract may take of them. `paid` names what has paid a
    charge, `used` what has used up an authorization or a lane.
    """

    head: Head
    receipts: list[Receipt]
    nonce: int
    balance: int
    tokens: int
    allowance: int
    paid: dict[Id, bytes]
    used: dict[Id, bytes]

    def next(self, at_s: int) -> Block:
        """Return the block after it while nothing has run in it; it has no hash yet."""
        head = Head(self.head.number + 1, b"", at_s)
        return replace(self, head=head, receipts=[], paid=dict(self.paid), used=dict(self.used))


class Clock:
    """A wall clock that may jump, and a monotonic one that may not."""

    def __init__(self) -> None:
        self.true_ms = builders.NOW_MS
        self.skew_ms = 0

    def now_ms(self) -> int:
        return self.true_ms + self.skew_ms

    def monotonic_ms(self) -> int:
        return self.true_ms

    async def sleep(self, seconds: float) -> None:
        self.true_ms += int(seconds * 1000)


class Net:
    """The chain itself: canonical blocks, a pool of transactions, and the price of ETH."""

    # The gas price at first, and between what it wanders.
    base_fee_first, base_fee_min, base_fee_max = 5_000_000, 1_000_000, 10**9

    def __init__(self, rng: Random, clock: Clock, balance: int) -> None:
        self._rng, self._clock = rng, clock
        first = Head(100, b"\x01" * 32, clock.true_ms // 1000)
        self.blocks = [Block(first, [], 0, balance, balance, 0, {}, {})]
        self.pool: dict[bytes, Tx] = {}
        self.carried: dict[bytes, Tx] = {}  # what others have sent with an authorization of ours
        self.signed: dict[bytes, bytes] = {}  # the authorization in each of these that ever ran
        self.final = 100
        self.price_e8 = 3000 * 10**8
        self.base_fee = self.base_fee_first
        self.mining = True
        self.frozen = False  # the token moves for nobody
        self.where: dict[bytes, int] = {}
        self.paid_ever: dict[bytes, Id] = {}  # by transaction: also in blocks that were replaced

    @property
    def tip(self) -> Block:
        return self.blocks[-1]

    def at(self, number: int) -> Block | None:
        """Return the canonical block of that number, None when there is none."""
        index = number - self.blocks[0].head.number
        return self.blocks[index] if 0 <= index < len(self.blocks) else None

    def need(self, total: int) -> int:
        """Return what buying so many USDC units costs in wei now: the pool is a little dearer than the feed."""
        return EthPrice(self.price_e8).wei_for_up(Usdc(total)).units * 1001 // 1000

    def mine(self) -> None:
        """Mine what waits, the dearest of each nonce, into a block 2 s after its parent or now, whichever is later."""
        parent = self.tip
        # After a halt the chain's time goes on where it stopped.
        behind = self._clock.true_ms // 1000 - parent.head.timestamp_s > 3600 and self._rng.random() < 0.7
        soonest_s = parent.head.timestamp_s + BLOCK_S
        at_s = soonest_s if behind else max(soonest_s, self._clock.true_ms // 1000)
        after = parent.next(at_s)
        while True:
            ready = [t for t in self.pool.values() if t.nonce == after.nonce and t.fee >= self.base_fee]
            if not ready:
                break
            tx = (
                max(ready, key=lambda t: (t.tip, t.fee, t.hash))
                if self._rng.random() < 0.8
                else self._rng.choice(ready)
            )
            self._put(after, self._execute(tx, after))
            after.nonce += 1
        for tx in list(self.carried.values()):
            receipt = self._carry(tx, after)
            if receipt is not None:
                del self.carried[tx.hash]
                self._put(after, receipt)
        self.pool = {h: t for h, t in self.pool.items() if t.nonce >= after.nonce}
        digest = hashlib.sha256(parent.head.hash + at_s.to_bytes(8, "big") + self._rng.randbytes(8)).digest()
        after.head = replace(after.head, hash=digest)
        self.blocks.append(after)

    def _put(self, after: Block, receipt: Receipt) -> None:
        tx = receipt.tx
        after.receipts.append(receipt)
        after.balance -= receipt.fee
        if tx.in_tokens:
            after.tokens -= receipt.spent
            after.allowance -= receipt.spent
        else:
            after.balance -= receipt.spent
        if receipt.success and tx.approves is not None:
            after.allowance = tx.approves
        if receipt.success and tx.charge is not None:
            after.paid[tx.charge] = tx.hash
            self.paid_ever[tx.hash] = tx.charge
        if tx.place is not None and (receipt.success or receipt.fee):  # what fails at no cost has used nothing up
            after.used[tx.place] = tx.hash
            self.signed[tx.hash] = tx.signed
        self.where[tx.hash] = after.head.number

    def _execute(self, tx: Tx, after: Block) -> Receipt:
        price = min(tx.fee, self.base_fee + tx.tip)
        if tx.charge is None:
            gas = CANCEL_GAS if tx.approves is None else APPROVE_GAS
            return Receipt(tx, success=True, spent=0, fee=gas * price + L1_FEE)
        failed = Receipt(tx, success=False, spent=0, fee=REVERT_GAS * price + L1_FEE)
        if after.head.timestamp_s > tx.deadline:
            return replace(failed, reason="ExpiredIntent", transient=False)
        if tx.charge in after.paid:
            return replace(failed, reason="AlreadyProcessed", transient=False)
        if tx.in_tokens and min(after.allowance, after.tokens) < tx.total:
            return replace(failed, reason="ERC20: transfer amount exceeds allowance")
        need = tx.total if tx.in_tokens else self.need(tx.total)
        if tx.value < need and not tx.in_tokens:
            return replace(failed, reason="SwapFailed")
        return Receipt(tx, success=True, spent=need, fee=PAY_GAS * price + L1_FEE)

    def _carry(self, tx: Tx, after: Block) -> Receipt | None:
        """Run somebody else's transaction: the token takes an authorization once, and before its end."""
        good = after.head.timestamp_s < tx.deadline and tx.place not in after.used and not self.frozen
        return Receipt(tx, success=good, spent=tx.total if good else 0, fee=0)

    def finalize(self) -> None:
        self.final = max(self.final, self.tip.head.number - FINAL_DEPTH)

    def reorg(self, depth: int, *, forget: bool) -> None:
        """Replace the newest blocks that are not final; their transactions wait again, or are forgotten."""
        depth = min(depth, self.tip.head.number - self.final, len(self.blocks) - 1)
        if depth <= 0:
            return
        gone, self.blocks = self.blocks[-depth:], self.blocks[:-depth]
        for receipt in (r for block in gone for r in block.receipts):
            del self.where[receipt.tx.hash]
            if not forget:
                (self.carried if receipt.tx.signed else self.pool)[receipt.tx.hash] = receipt.tx
        for _ in gone:
            self.mine()

    def take(self, tx: Tx) -> tuple[Delivery, str]:
        """Take a transaction into the pool, or say why not."""
        if tx.hash in self.pool:
            return Delivery.KNOWN, "already known"
        if tx.nonce < self.tip.nonce:
            return Delivery.NONCE_USED, "nonce too low"
        at_same_nonce = [t for t in self.pool.values() if t.nonce == tx.nonce]
        if any(tx.fee * 10 < r.fee * 11 or tx.tip * 10 < r.tip * 11 for r in at_same_nonce):
            return Delivery.REPLACEMENT, "replacement transaction underpriced"
        # A node that dropped a rival keeps no trace; another may still mine it.
        for rival in at_same_nonce:
            if self._rng.random() < 0.9:
                del self.pool[rival.hash]
        self.pool[tx.hash] = tx
        return Delivery.ACCEPTED, "accepted"


@dataclass
class Provider:
    """One provider's view: late by `lag` blocks, `down`, or lying in one way. Looks like an `Rpc` to `Providers`."""

    net: Net
    rng: Random
    owner: str
    lie: str = ""
    lag: int = 0
    down: bool = False
    requests: int = 0

    def __post_init__(self) -> None:
        self.name = self.host = self.owner

    heard = Rpc.heard

    def shown(self, text: object, chars: int = 500) -> str:
        return str(text)[:chars]

    def head(self) -> Block:
        self.requests += 1
        if self.down or self.rng.random() < 0.02:
            raise ChainUnknown(f"{self.owner} did not answer")
        if self.lie == "wrong_chain":
            raise WrongChain(f"{self.owner} speaks for chain 1")
        return self.net.blocks[max(0, len(self.net.blocks) - 1 - self.lag)]

    def preflight(self, total: Usdc, pay_with: Asset) -> Preflight:
        block = self.head()
        need, nonce, price = self.net.need(total.units), block.nonce, self.net.price_e8
        if self.lie == "dear_quote":
            need = need * 3
        if self.lie == "cheap_quote":
            need = need // 2
        if self.lie == "price":
            price = price // 5
            need = need * 5
        if self.lie == "nonce":
            nonce = max(0, nonce - 1) if self.rng.random() < 0.5 else nonce + 1
        pending = max([nonce, *(t.nonce + 1 for t in self.net.pool.values())])
        in_tokens, allowance = pay_with is not Asset.ETH, block.allowance
        if self.lie == "allowance":
            allowance = 0 if allowance else 10**7
        return Preflight(
            head=block.head,
            balance=Wei(block.balance),
            nonce_latest=nonce,
            nonce_pending=pending,
            base_fee=Wei(self.net.base_fee),
            tip=Wei(1_000_000),
            code_hash=b"\x0c" * 32,
            quotes={} if in_tokens else {500: Wei(need)},
            price_e8=price,
            tokens=Usdc(block.tokens) if in_tokens else None,
            allowance=Usdc(allowance) if in_tokens else None,
        )

    def simulate(self, demand: Charge, call: Call) -> Simulation:
        block, key = self.head(), demand.identity
        if self.lie != "simulates_all" and (call.approves is None or call.then is not None):
            if block.head.timestamp_s > demand.intent.deadline:
                raise Reverted("ExpiredIntent", "", b"")
            if key in block.paid:
                raise Reverted("AlreadyProcessed", "", b"")
            if call.tokens is not None and block.allowance < call.tokens.units:
                raise Reverted("InsufficientAllowance", "", b"")
            in_ether = call.approves is None and call.tokens is None
            if in_ether and call.value.units < self.net.need(demand.intent.total.units):
                raise Reverted("SwapFailedString", "V3TooMuchRequested", b"")
        return Simulation(PAY_GAS * 12 // 10, Wei(L1_FEE), "eth_simulateV1")

    def look(self, sought: Sequence[tuple[Attempt, Charge]]) -> ProviderObservation:
        block, number = self.head(), self.head().head.number
        nonces = {a.hash: a.plan.nonce for a, _ in sought}
        shown = [(a.hash or b"", a.inclusion, self._seen(a, number)) for a, _ in sought]
        return self._view(block, number, shown, frozenset(), lambda key: block.nonce <= nonces[key])

    def uses(self, sought: Sequence[tuple[AuthorizationUse, Inclusion | None]]) -> ProviderObservation:
        block, number = self.head(), self.head().head.number
        used = frozenset(t.key for t, _ in sought if self._marked(block, t))
        shown = [(t.key, told, self._used(block, t)) for t, told in sought]
        return self._view(block, number, shown, used, lambda key: key not in used)

    def spent(self, number: int) -> Spent:
        newest, at = self.head().head.number, self.net.at(number)
        if at is None or number > newest:
            raise ChainUnknown(f"{self.owner} has no block {number}")
        nonce = at.nonce + (1 if self.lie == "nonce" and self.rng.random() < 0.5 else 0)
        return Spent(at.head, self.lie == "future" or self.net.final >= number, nonce)

    def _view(
        self,
        block: Block,
        number: int,
        sought: Sequence[tuple[bytes, Inclusion | None, Seen | None]],
        used: frozenset[bytes],
        free: Callable[[bytes], bool],
    ) -> ProviderObservation:
        seen, recorded = {}, {}
        replaced: set[bytes] = set()
        standing: set[bytes] = set()
        for key, inclusion, told in sought:
            if told is not None:
                seen[key] = told
            if inclusion is not None:
                recorded[key] = inclusion.block_number
                there = self.net.at(inclusion.block_number)
                if there is None or there.head.number > number:
                    continue  # unknown to it
                same = there.head.hash == inclusion.block_hash
                if self.lie == "replaced":
                    same = False
                (standing if same else replaced).add(key)
        final = min(self.net.final, number)
        safe = min(max(self.net.tip.head.number - SAFE_DEPTH, self.net.final), number)
        final_block = self.net.at(final)
        nonce = block.nonce + (1 if self.lie == "nonce" and self.rng.random() < 0.5 else 0)
        observation = Observation(
            head=block.head,
            safe=safe,
            finalized=final,
            finalized_s=final_block.head.timestamp_s if final_block is not None else None,
            nonce_latest=nonce,
            seen=seen,
            replaced=frozenset(replaced),
            used=used,
            unspent=frozenset(
                key
                for key, inclusion, told in sought
                if inclusion is not None and told is None and inclusion.block_number < number and free(key)
            ),
        )
        if self.lie == "future":
            later = replace(block.head, timestamp_s=block.head.timestamp_s + 60)
            observation = replace(observation, head=later, finalized=number, finalized_s=later.timestamp_s + 400_000)
        return ProviderObservation(observation, recorded, frozenset(standing))

    def _seen(self, attempt: Attempt, number: int) -> Seen | None:
        assert attempt.hash is not None
        if self.lie == "null_receipts":
            return None
        if self.lie in ("paid", "reverted"):
            told = Inclusion(
                number, b"\xfa" * 32, self.net.tip.head.timestamp_s * 1000, self.lie == "paid", Wei(1), Wei(1), Wei(1)
            )
            return Seen(told, "" if told.success else "made up", "exact", trusted=True)
        where = self.net.where.get(attempt.hash)
        if where is None or where > number:
            return None
        block = self.net.at(where)
        assert block is not None
        r = next(r for r in block.receipts if r.tx.hash == attempt.hash)
        told = Inclusion(
            block.head.number,
            block.head.hash,
            block.head.timestamp_s * 1000,
            r.success,
            Wei(r.fee - L1_FEE),
            Wei(L1_FEE),
            Wei(0 if r.tx.in_tokens else r.spent),
            r.reason,
            r.transient,
            Usdc(r.spent if r.tx.in_tokens else 0),
        )
        return Seen(told, r.reason, "exact", trusted=True)

    # -- the same of authorizations -----------------------------------------------------------------------------

    def holdings(self, uses: Sequence[AuthorizationUse]) -> Preflight:
        block = self.head()
        if any(self._marked(block, use) for use in uses):
            raise PaymentForbidden(Reason.AUTHORIZATION_USED, "it was used already", remedy="")
        return Preflight(
            head=block.head,
            balance=Wei(0),
            nonce_latest=0,
            nonce_pending=0,
            base_fee=Wei(self.net.base_fee),
            tip=Wei(1_000_000),
            code_hash=b"\x0c" * 32,
            quotes={},
            price_e8=None,
            tokens=Usdc(block.balance),
        )

    def simulate_transfer(self, tokens: Usdc) -> Simulation:
        if (self.head().balance < tokens.units or self.net.frozen) and self.lie != "simulates_all":
            raise Reverted("InsufficientBalance", "", b"")
        return Simulation(0, Wei(0), "eth_call")

    def _marked(self, block: Block, use: AuthorizationUse) -> bool:
        assert use.mark is not None, "what is sponsored is not simulated"
        address, asked = use.mark
        return self.lie == "marked" or (address, asked[-32:]) in block.used

    def _used(self, block: Block, use: AuthorizationUse) -> Seen | None:
        """Show the block in which an authorization was used; one that nobody could use leaves nothing to be seen."""
        carrier = use.hash or block.paid.get(_id(use)) or b""
        number = self.net.where.get(carrier, block.head.number + 1)
        there = self.net.at(number) if number <= block.head.number else None
        if self.lie in ("paid", "reverted"):
            head, carrier = replace((there or block).head, hash=b"\xfa" * 32), carrier or b"\xfa" * 32
            success, fee = self.lie == "paid", 0
        elif self.lie == "null_receipts" or there is None:
            return None
        else:
            receipt = next(r for r in there.receipts if r.tx.hash == carrier)
            head, success, fee = there.head, receipt.success, receipt.fee
        told = Inclusion(
            head.number,
            head.hash,
            head.timestamp_s * 1000,
            success,
            gas=Wei(0),
            l1_fee=Wei(0),
            spent=Wei(0),
            reason="" if success else "reverted: it moved nothing, and was used up",
            transient=success,
            tokens=use.tokens if success else Usdc(0),
            token_fee=Usdc(fee),
            tx_hash=carrier,
        )
        return Seen(told, told.reason, "exact", trusted=True)

    def ends(self) -> tuple[Head, Head]:
        block = self.head()
        final = self.net.at(min(self.net.final, block.head.number))
        if final is None:
            raise ChainUnknown("pruned")
        return block.head, final.head

    def account(self, charge: Id, final: int, use: AuthorizationUse | None = None) -> Account:
        block, at = self.head(), self.net.at(final)
        if at is None or block.head.number < final:
            raise ChainUnknown(f"{self.owner} is not past {final}")
        silent = self.lie in ("null_receipts", "unpaid")
        payer = b"\xfa" * 32 if self.lie == "paid" else None if silent else block.paid.get(charge)
        flag = payer is not None or (use is not None and self._marked(block, use) and not silent)
        return Account(block.head, at.head, flag, frozenset() if payer is None else frozenset({payer}))


def _id(use: AuthorizationUse) -> Id:
    """Return what this pays, by the log that it leaves: its last topic is an authorization's nonce, or a memo."""
    token, topics = use.log
    return token, topics[-1] or b""


class Asked:
    """Simulated providers below, the program's own agreement above them."""

    chain_id = builders.CHAIN_ID

    def __init__(self, net: Net, providers: Sequence[Provider], *, quorum: int, clock: Clock, rng: Random) -> None:
        self.net, self.rng = net, rng
        self.each = list(providers)
        self._providers = Providers(
            self.each,  # type: ignore[arg-type] # they are asked through the functions below alone
            quorum=quorum,
            now_s=lambda: clock.now_ms() // 1000,
            head_age_max_s=10**9,
            lag_max_s=10**9,
            say=lambda _: None,
        )
        self.quorum = quorum
        self.txs: dict[bytes, Tx] = {}
        self.dry: dict[tuple[bytes, int], int] = {}  # what was simulated, and when (true time)
        self._clock = clock
        self.before_send: Callable[[bytes], None] = lambda _: None

    @property
    def requests(self) -> int:
        return sum(p.requests for p in self.each)

    @property
    def owners(self) -> int:
        return len(self.each)

    async def _ask(self, act: Callable[[Provider], T], head: Any = None, *, every: bool = False) -> Any:
        async def one(rpc: Any) -> T:
            return act(rpc)

        asked: Callable[[Any], Awaitable[T]] = one
        return await self._providers.ask(asked, head, every=every)

    async def _sighting(self, look: Callable[[Provider], ProviderObservation], *, every: bool) -> Observation:
        answers = await self._ask(look, lambda v: v.observation.head, every=every)
        return agreement.observation(answers, self._enough(answers) if every else self.quorum).value

    async def _payment_status(self, shown: Callable[[Provider, int], Account], since: int = 0) -> ChargeStatus:
        final = agreement.final(await self._ask(lambda p: p.ends(), lambda e: e[0], every=True), self.quorum)
        if since > final:
            raise ChainUnknown("it was signed beyond the final block")
        return agreement.payment_status(await self._ask(lambda p: shown(p, final), lambda a: a.newest, every=True))

    def _enough(self, answers: Any) -> int:
        needed = max(self.quorum, min(2, len(self.each)))
        if agreement.owners(answers.votes) < needed:
            raise ChainUnknown("too few answered")
        return needed

    async def holdings(self, wallet: bytes) -> Holdings:
        raise ChainUnknown("no state of that block")


class SimulatedTokens(Asked):
    """The `TokenChain` port."""

    async def preflight(
        self, wallet: bytes, token: bytes, uses: Sequence[AuthorizationUse] = (), *, key: bytes | None = None
    ) -> Preflight:
        answers = await self._ask(lambda p: p.holdings(uses), lambda s: s.head)
        return agreement.preflight_of(answers, self.quorum).value

    async def simulate(self, wallet: bytes, token: bytes, paying: tuple[bytes, Usdc], at: Head) -> None:
        agreement.simulation(await self._ask(lambda p: p.simulate_transfer(paying[1])), self.quorum)
        self.dry[paying[0], paying[1].units] = self._clock.true_ms

    async def look(
        self, uses: Sequence[tuple[AuthorizationUse, Inclusion | None]], *, every: bool = False
    ) -> Observation:
        return await self._sighting(lambda p: p.uses(uses), every=every)

    async def payment_status(self, use: AuthorizationUse) -> ChargeStatus:
        return await self._payment_status(lambda p, final: p.account(_id(use), final, use), use.since)


class SimulatedChain(Asked):
    """The `Chain` port."""

    async def preflight(self, wallet: bytes, total: Usdc, contract: bytes, *, pay_with: Asset = Asset.ETH) -> Preflight:
        answers = await self._ask(lambda p: p.preflight(total, pay_with), lambda s: s.head)
        return agreement.preflight_of(answers, self.quorum).value

    def payment(self, verified: Verified, tier: int, value: Wei, wallet: bytes) -> Call:
        demand = verified.demand
        return Call(wallet, demand.contract, b"".join(demand.identity), value)

    def token_payment(self, verified: Verified) -> Call:
        demand = verified.demand
        return Call(demand.sender, demand.contract, b"".join(demand.identity), Wei(0), tokens=demand.total)

    def approval(self, wallet: bytes, contract: bytes, units: Usdc) -> Call:
        return Call(wallet, BASE_DOLLAR.token, units.units.to_bytes(32, "big"), Wei(0), approves=units)

    async def simulate(self, call: Call, demand: Charge, at: Head) -> Simulation:
        answers = await self._ask(lambda p: p.simulate(demand, call))
        told: Agreed[Simulation] = agreement.simulation(answers, self.quorum)
        self.dry[call.data, call.value.units] = self._clock.true_ms
        return told.value

    async def send(self, raw: bytes, tx_hash: bytes) -> Sent:
        """Hand bytes to every provider; some take them and their answer is lost, some never pass them on."""
        self.before_send(tx_hash)
        tx = self.txs[tx_hash]
        told = []
        for provider in self.each:
            provider.requests += 1
            dice = self.rng.random()
            if provider.down or dice < 0.05:
                told.append((Delivery.UNCLEAR, "no answer"))
                continue
            if provider.lie and dice < 0.5:
                told.append((Delivery.ACCEPTED, "swallowed"))
                continue
            answer = self.net.take(tx)
            told.append((Delivery.UNCLEAR, "answer lost") if dice < 0.15 else answer)
        order = list(Delivery)
        best = min(told, key=lambda t: order.index(t[0]))
        return Sent(best[0], best[1])

    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[Attempt, Charge]], *, every: bool = False
    ) -> Observation:
        return await self._sighting(lambda p: p.look(attempts), every=every)

    async def payment_status(self, demand: Charge, since: int) -> ChargeStatus:
        return await self._payment_status(lambda p, final: p.account(demand.identity, final))

    async def spent(self, wallet: bytes, number: int) -> Spent:
        answers = await self._ask(lambda p: p.spent(number), every=True)
        return agreement.spent(answers, self._enough(answers))

    async def flag(self, demand: Charge) -> bool:

        def mark(p: Provider) -> tuple[Head, bool]:
            block = p.head()
            return block.head, demand.identity in block.paid

        return agreement.mark(await self._ask(mark, lambda t: t[0], every=True))


class SimulatedSigner:
    """The `Signer` port: refuses what was not proven or not freshly simulated, as the simulation's own invariant."""

    def __init__(self, chain: SimulatedChain | SimulatedTokens, clock: Clock) -> None:
        self.address = builders.WALLET
        self._chain, self._clock = chain, clock

    def sign_payment(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        self._proven(verified, (plan.data, plan.value.units))
        intent = charge_of(verified).intent
        if plan.kind is Kind.APPROVE:
            assert plan.data == intent.total.units.to_bytes(32, "big"), "approved another amount than was proven"
            return self._signed(plan, None, 0, 0)
        assert plan.data == intent.operator + intent.id, "signed another charge than was proven"
        return self._signed(plan, (intent.operator, intent.id), intent.deadline, intent.total.units)

    def sign_authorization(self, plan: Plan, verified: Verified) -> bytes:
        demand = verified.demand
        self._proven(verified, (demand.recipient, plan.tokens.units))
        nonce = demand.identity[1]
        assert plan.tokens == demand.total, "signed another amount than was proven"
        assert plan.lane == int.from_bytes(nonce, "big"), "signed another authorization than was proven"
        assert demand.recipient == builders.address(SELLER), "signed for somebody else"
        one = carried(nonce, demand.identity, demand.deadline, plan.tokens.units)
        assert self._chain.txs.setdefault(nonce, one) == one, "signed two things under one nonce"
        return nonce + nonce + b"\x1b"

    def _proven(self, verified: Verified, what: tuple[bytes, int]) -> None:
        assert isinstance(verified, Verified), "signed without proof"
        dry = self._chain.dry.get(what)
        assert dry is not None, "signed without a simulation"
        assert self._clock.true_ms - dry <= 120_000, "signed on a stale simulation"

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        assert plan.kind is Kind.CANCEL and plan.value == Wei(0)
        return self._signed(plan, None, 0, 0)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        assert plan.kind is Kind.APPROVE and plan.data == bytes(32)
        return self._signed(plan, None, 0, 0)

    def _signed(self, plan: Plan, charge: Id | None, deadline: int, total: int) -> tuple[bytes, bytes]:
        fee, tip = plan.max_fee_per_gas.units, plan.max_priority_fee_per_gas.units
        raw = json.dumps([plan.nonce, plan.data.hex(), plan.value.units, fee, tip]).encode()
        tx_hash = hashlib.sha256(raw).digest()
        approves = int.from_bytes(plan.data, "big") if plan.kind is Kind.APPROVE else None
        one = Tx(tx_hash, plan.nonce, charge, deadline, total, plan.value.units, fee, tip)
        in_tokens = charge is not None and plan.asset is not Asset.ETH
        self._chain.txs[tx_hash] = replace(one, in_tokens=in_tokens, approves=approves)
        return raw, tx_hash


def carried(tx_hash: bytes, authorization: Id, deadline: int, total: int) -> Tx:
    """Return the transaction of somebody else that uses an authorization of so many units."""
    nonce = authorization[1]
    return Tx(tx_hash, NO_NONCE, authorization, deadline, total, 0, 0, 0, signed=nonce, place=authorization)


class SimulatedApi:
    """The `Api` port: an account that burns, posts what canonical blocks paid, and is cached, late, or out of order."""

    def __init__(self, net: Net, clock: Clock, rng: Random) -> None:
        self.requests = 0
        self._net, self._clock, self._rng = net, clock, rng
        self.credits_usd = Decimal(20)
        self.usage_usd = Decimal("9.5")
        self.burn_usd_per_hour = Decimal(120)
        self.operator = builders.operator(rng.randrange(1, 2**31))
        self.amounts: dict[Id, Decimal] = {}
        self.posted: set[Id] = set()
        self._due: dict[Id, int] = {}
        self._burnt_ms = clock.true_ms
        self._cached: tuple[int, Reading] | None = None
        self.trouble = 0.02
        self.post_delay_ms = 5_000
        self.posting = True
        self.gone = False

    def pins(self) -> Pins:
        return builders.pins_for(self.operator)

    def live(self) -> None:
        """Burn, and post what is paid and deep enough."""
        now = self._clock.true_ms
        hours = Decimal(now - self._burnt_ms) / 3_600_000
        self._burnt_ms = now
        spent = (self.burn_usd_per_hour * hours).quantize(Decimal("0.000001"))
        self.usage_usd = min(self.credits_usd, self.usage_usd + spent)
        deep = self._net.blocks[max(0, len(self._net.blocks) - 3)]
        for key in deep.paid:
            if key in self.amounts and key not in self.posted:
                due = self._due.setdefault(key, now + self.post_delay_ms)
                if now >= due and self.posting:
                    self.posted.add(key)
                    self.credits_usd += self.amounts[key]

    def _trouble(self) -> None:
        self.requests += 1
        dice = self._rng.random()
        if dice < self.trouble / 2:
            raise ApiUnknown("HTTP 502")
        if dice < self.trouble:
            raise ApiLimited("HTTP 429", retry_after_s=self._rng.choice((1, 30)))

    async def credits(self) -> Reading:
        self._trouble()
        now = self._clock.true_ms
        if self._cached is None or now - self._cached[0] > STALE_MS or self._rng.random() < 0.5:
            self._cached = (now, Reading(Usd(self.credits_usd), Usd(self.usage_usd), self._clock.now_ms()))
        return replace(self._cached[1], at_ms=self._clock.now_ms())

    async def key(self) -> Key:
        self._trouble()
        return Key(management=True)

    async def charge(self, request: Request) -> bytes:
        """Create a charge; sometimes the answer is lost."""
        self.requests += 1
        if self.gone:
            raise ApiGone("HTTP 410")
        asked = Ask(request.amount.amount, builders.PAYER, request.chain_id, self._clock.true_ms // 1000)
        made = self.operator.charge(asked)
        raw = builders.raw_of(made)
        call = made["web3_data"]["transfer_intent"]["call_data"]
        key = (bytes.fromhex(call["operator"][2:]), bytes.fromhex(call["id"][2:]))
        self.amounts[key] = request.amount.amount
        if self._rng.random() < self.trouble:
            raise ApiUnknown("the answer was lost")
        return raw


class SimulatedSeller(ABC):
    """What a rail asks whose seller carries the payment: at once, late, twice, after a restart, never; and its lies."""

    base = "https://seller.example"

    def __init__(self, net: Net, clock: Clock, rng: Random, api: SimulatedApi) -> None:
        self.requests = 0
        self.before_send: Callable[[bytes], None] = lambda _: None
        self.honest = False
        self._net, self._clock, self._rng, self._api = net, clock, rng, api
        self._handed: dict[bytes, str] = {}
        self._due: list[tuple[int, Tx]] = []
        self._kept: list[Tx] = []

    def live(self) -> None:
        due = [tx for at_ms, tx in self._due if at_ms <= self._clock.true_ms]
        self._due = [one for one in self._due if one[0] > self._clock.true_ms]
        for tx in due:
            self._net.carried[tx.hash] = tx

    def restarted(self) -> None:
        """The buyer's process has started anew: carry what was kept until then."""
        self._due += [(self._clock.true_ms, tx) for tx in self._kept]
        self._kept.clear()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Answered:
        self.requests += 1
        return self._shown(path) if method == "GET" else self._asked(path, headers, body or b"")

    @abstractmethod
    def _asked(self, path: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """Answer a request to buy, paid or not."""

    def _shown(self, path: str) -> Answered:
        return answer(path, 404)

    def _dice(self) -> float:
        return 1.0 if self.honest else self._rng.random()

    def _unanswered(self, path: str, dice: float) -> Answered | None:
        """Answer an unpaid request in a way that offers nothing; None: offer."""
        if dice < self._api.trouble:
            raise ApiUnknown("the answer was lost")
        wrong = dice < self._api.trouble + 0.01
        return answer(path, self._rng.choice((200, 429, 500, 503))) if wrong else None

    def _hand(self, key: bytes, paying: str, carry: Callable[[], Tx]) -> None:
        """Take what pays, and decide when it is carried to the chain."""
        self.before_send(key)
        assert self._handed.setdefault(key, paying) == paying, "sent again, and not the same bytes"
        dice, now = self._dice(), self._clock.true_ms
        if dice < 0.15:
            due = [now + self._rng.choice((10_000, 60_000, 400_000, 2_000_000, 90_000_000))]
        elif dice < 0.3:
            due = []
        else:
            due = [now, now + self._rng.choice((0, 4_000, 600_000))] if dice < 0.4 else [now]
        self._due += [(at_ms, carry()) for at_ms in due]
        if 0.25 < dice < 0.3:
            self._kept.append(carry())
        self.live()

    def _said(self) -> int:
        """Return a status to answer a payment with: what is said has nothing to do with what is done."""
        dice = self._dice()
        if dice < 0.2:
            raise ApiUnknown("the answer was lost")
        return self._rng.choice((402, 403, 409, 500, 503)) if dice < 0.4 else 200


class SimulatedOffers(SimulatedSeller):
    """What the x402 rail asks."""

    def _asked(self, path: str, headers: Mapping[str, str], body: bytes) -> Answered:
        amount, paying = Decimal(json.loads(body)["amount"]), headers.get("X-PAYMENT")
        return self._offered(path, amount) if paying is None else self._paid(path, amount, paying)

    def _offered(self, path: str, amount: Decimal) -> Answered:
        dice = self._dice()
        if (wrong := self._unanswered(path, dice)) is not None:
            return wrong
        told = {
            "payTo": STRANGER if dice > 0.99 and not self.honest else SELLER,
            "maxTimeoutSeconds": 300 if self.honest else self._rng.choice((120, 300, 900)),
        }
        return answer(path, 402, offers(int(amount * 10**6), told))

    def _paid(self, path: str, amount: Decimal, paying: str) -> Answered:
        told = json.loads(base64.b64decode(paying))["payload"]["authorization"]
        nonce, total = bytes.fromhex(told["nonce"][2:]), int(told["value"])
        assert (told["to"], total) == (SELLER, int(amount * 10**6)), "another payment than was offered"
        one: Id = (BASE_DOLLAR.token, nonce)
        self._api.amounts[one] = amount
        deadline = int(told["validBefore"])
        self._hand(nonce, paying, lambda: carried(self._rng.randbytes(32), one, deadline, total))
        return answer(path, self._said())


def offers(units: int, *changes: Mapping[str, Any]) -> bytes:
    """Return the document of a seller for x402 whose offers differ from an honest one by these changes."""
    honest = {
        "scheme": "exact",
        "network": "base",
        "maxAmountRequired": str(units),
        "asset": "0x" + BASE_DOLLAR.token.hex(),
        "payTo": SELLER,
        "maxTimeoutSeconds": 300,
        "extra": {"name": BASE_DOLLAR.name, "version": BASE_DOLLAR.version},
    }
    return json.dumps({"x402Version": 1, "accepts": [{**honest, **one} for one in changes]}).encode()


def answer(path: str, status: int, body: bytes = b"{}", headers: Sequence[tuple[str, str]] = ()) -> Answered:
    """Return what an `Exchange` makes of an answer."""
    return Answered(path, status, tuple(headers), body)


class Listener:
    """A sink that remembers the newest events, for whoever reads a failure."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.names = Counter[str]()

    def emit(self, event: Event) -> None:
        name = event.name()
        self.names[name] += 1
        self.told.append(f"{name} {event.shown()}")
        if len(self.told) > 400:
            del self.told[:200]
