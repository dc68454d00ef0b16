"""What would be done now? The rules of the daemon on a fresh reading, with nothing written and nothing bought.

The ledger is copied into memory first, so that history, pause and burn rate count and no trace is left. The same
cycle looks and decides; only its last step, the purchase, is never taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from topup.app import assembly
from topup.app.settings import Settings
from topup.chain.owners import quorum
from topup.commands.answer import Answer
from topup.commands.start import load, wait_for
from topup.domain.credits import LASTING, Reading, Unknown, runway
from topup.domain.dollars import BASE_DOLLAR, TEMPO_DOLLARS, Dollar
from topup.domain.errors import Exit, PaymentForbidden, TopupError
from topup.domain.events import Event, show
from topup.domain.lifecycle import NO_TOKENS, Broadcaster, Kind, Plan, State, TopUp
from topup.domain.money import Asset, Bps, EthPrice, Usd, Usdc, Wei, gas_dollars, plain
from topup.domain.policy import (
    Buy,
    Decision,
    Hold,
    Limits,
    Refuse,
    Snapshot,
    Wallet,
    Why,
    amount_due,
    permit,
    worst_spend,
)
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE, MPP, X402, PurchaseOrder, Terms
from topup.payment.cycle import Cycle
from topup.ports.chain import Preflight
from topup.ports.rail import Rail
from topup.wire.clock import SystemClock

# What a payment through the smallest pools needs as a limit, measured (docs: gas of the payment protocol).
GAS_LIMIT_USUAL = 335_000


@dataclass(frozen=True)
class Funding:
    """Where the dollars lie that a rail pays with, and who tells of that chain.

    `said` is the setting that names the providers `urls`; `wanted` is how many of them have to agree, None for the
    usual. `fee_max` is the most that the network may take of one payment.
    """

    rail: str
    chain: str
    dollar: Dollar
    said: str
    urls: tuple[str, ...]
    wanted: int | None
    fee_max: Usdc

    def amount(self, units: Usdc) -> str:
        """Return an amount by its own name: what a bridge holds is not what it stands for."""
        return f"{plain(units.usdc)} {self.dollar.asset}"


def funding(settings: Settings, rail: str) -> Funding:
    """Return what a rail pays with whose seller carries the payment to the chain."""
    c, r = settings.chain, settings.rails.mpp
    if rail == MPP:
        fee_max = Usd(r.network_fee_max_usd).usdc_down()
        dollar = TEMPO_DOLLARS[r.pay_with]
        return Funding(rail, "Tempo", dollar, "rails.mpp.rpc_urls", r.rpc_urls, r.quorum, fee_max)
    return Funding(rail, "Base", BASE_DOLLAR, "chain.rpc_urls", c.rpc_urls, c.quorum, NO_TOKENS)


def payer(settings: Settings) -> bytes | None:
    """Return the account that pays: the root where the key is one of its access keys, else the wallet; None for none.

    Raises:
        SettingsError, SignerError: the key cannot be opened.
    """
    root = settings.rails.mpp.root
    return bytes.fromhex(root[2:]) if root is not None else assembly.wallet(settings)


def access_key(settings: Settings) -> bytes | None:
    """Return the wallet's key where it is an access key of another account; None where it pays for itself.

    Raises:
        SettingsError, SignerError: the key cannot be opened.
    """
    if settings.rails.mpp.root is None:
        return None
    own = assembly.wallet(settings)
    return None if own == payer(settings) else own


@dataclass(frozen=True)
class Named:
    """Who may be paid by a rail whose recipients stand in `setting`; `whose` says who named them, none = anybody."""

    rail: str
    setting: str
    recipients: tuple[str, ...]
    whose: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a JSON-ready document."""
        return {**vars(self), "recipients": list(self.recipients)}

    def line(self) -> str:
        """Return it as a line for a terminal."""
        who = ", ".join(self.recipients) or "anybody whom an offer names"
        to_do = f"; to do: {self.remedy}" if self.remedy else ""
        return f"{self.rail:<10} pays {who}, {self.whose}{to_do}"


def named(settings: Settings) -> list[Named]:
    """Return who may be paid by each rail in use whose recipients stand in the settings; nobody is asked."""
    found = []
    if MPP in settings.rails.use:
        setting, given = "rails.mpp.recipients", settings.rails.mpp.recipients
        remedy = f"`topup doctor --rail mpp` shows the offer: when its recipient stays the same, put it into {setting}"
        whose = f"by {setting}" if given else f"because {setting} is empty: its amount is bounded, not who gets it"
        found.append(Named(MPP, setting, given, whose, "" if given else remedy))
    if X402 in settings.rails.use:
        setting, given, seller = "rails.x402.recipients", settings.rails.x402.recipients, assembly.seller(settings)
        own = tuple(sorted(seller.sell.recipients))
        whose = f"by {setting}" if given else f"by the profile {seller.name}; {setting} replaces it"
        found.append(Named(X402, setting, given or own, whose))
    return found


class Quiet:
    """A sink that keeps nothing: what a look finds is in its result."""

    def emit(self, event: Event) -> None:
        """Take one event."""


def answer() -> Answer:
    """Read and decide; nothing is written or bought."""
    return decided(load(), PurchaseOrder())


def decided(settings: Settings, order: PurchaseOrder) -> Answer:
    """Say what would be done now about an order."""
    return wait_for(ask_and_decide(settings, order))


async def ask_and_decide(settings: Settings, wish: PurchaseOrder) -> Answer:
    """Read the account, apply the rules, and say what would be done; nothing is written or bought.

    In observe mode the rules are applied as if it were live, because the question is whether a top-up is due. In
    live mode a top-up that is due is held against the chain as far as that goes without a charge: price, fees, wallet.

    Raises:
        SettingsError, StoreUnusable: there is no API key, or the ledger cannot be read.
    """
    allowed = assembly.limits(settings)
    assembly.known(settings)  # refuses a key that is not of `wallet.address`
    snapshot, decision, unfinished, rail = await _look(settings, wish)
    notes = []
    forbidden = None
    if isinstance(decision, Buy) and allowed.live:
        total = worst_spend(decision.amount, allowed).usdc_up()
        judge = (
            _payable(settings, total)
            if rail == COINBASE
            else _payable_in_dollars(settings, funding(settings, rail), total)
        )
        forbidden, note = await judge
        notes.append(note)
    elif isinstance(decision, Buy):
        notes.append("mode is observe, so nothing will buy it")
    return _told(snapshot, decision, allowed, unfinished, notes, forbidden)


async def _look(settings: Settings, wish: PurchaseOrder) -> tuple[Snapshot, Decision, TopUp | None, str]:
    """Read and decide on a copy of the ledger, as if live; return also what is unfinished, and the next rail."""
    clock = SystemClock()
    client = assembly.api(settings, clock)
    store = SqliteStore.open_copy(settings.state_dir)
    terms = Terms(
        assembly.account(settings, None),
        replace(assembly.limits(settings), live=True),
        assembly.ceilings(settings),
        assembly.pace(settings),
    )
    cycle = Cycle(terms, api=client, rails=_no_rail, store=store, clock=clock, sink=Quiet(), rpc_requests=lambda: 0)
    try:
        snapshot, decision = await cycle.judge(wish)
        gone, use = store.control(settings.account).gone, settings.rails.use
        rail = next((one for one in use if one not in gone), use[0])
        return snapshot, decision, store.open_topup(settings.account), rail
    finally:
        await client.close()
        store.close()


def _no_rail(_: str) -> Rail:
    raise AssertionError("a look buys nothing")


def _told(
    snapshot: Snapshot,
    decision: Decision,
    allowed: Limits,
    unfinished: TopUp | None,
    notes: list[str],
    forbidden: PaymentForbidden | None,
) -> Answer:
    reading = snapshot.reading if isinstance(snapshot.reading, Reading) else None
    left = runway(reading.balance, allowed.floor, snapshot.burn) if reading is not None else None
    word, sentence, code = _verdict(snapshot, decision, unfinished)
    remedy = decision.remedy if isinstance(decision, Refuse | Hold) else ""
    why = decision.why.value
    if isinstance(snapshot.reading, Unknown):
        why = snapshot.reading.doubt.value
    if forbidden is not None:
        word, code, why, remedy = "refuse", Exit.PERSON, forbidden.reason, forbidden.remedy
    document = {
        "schema": 1,
        "decision": word,
        "why": why,
        "detail": decision.detail,
        "remedy": remedy,
        "amount_usd": str(decision.amount) if isinstance(decision, Buy) else None,
        "most_it_may_cost_usd": str(worst_spend(decision.amount, allowed)) if isinstance(decision, Buy) else None,
        "balance_usd": str(reading.balance) if reading is not None else None,
        "floor_usd": str(allowed.floor),
        "burn_usd_per_hour": show(snapshot.burn),
        "hours_to_empty": show(left.to_empty_h) if left is not None else None,
        "open_topup": unfinished.id if unfinished is not None else None,
        "mode": "live" if allowed.live else "observe",
        "notes": notes,
        "exit_code": int(code),
    }
    to_do = f"; to do: {remedy}" if remedy else ""
    return Answer(document, ["; ".join([sentence, *notes]) + to_do], code)


def _verdict(snapshot: Snapshot, decision: Decision, unfinished: TopUp | None) -> tuple[str, str, Exit]:
    if unfinished is not None and unfinished.state in (State.HALTED, State.UNCREDITED):
        said = f"{unfinished.id} is {unfinished.state}: {unfinished.reason}; money may have moved"
        return "hold", said, Exit.MONEY_MAY_HAVE_MOVED
    match decision:
        case Buy():
            return "buy", f"would buy {decision.amount} dollars of credit: {decision.detail}", Exit.LOW
        case Refuse():
            return "refuse", f"a top-up is due and not allowed: {decision.detail}", Exit.PERSON
        case Hold(why=Why.UNKNOWN | Why.STALE):
            lasting = isinstance(snapshot.reading, Unknown) and snapshot.reading.doubt in LASTING
            return "unknown", f"the balance is unknown: {decision.detail}", Exit.PERSON if lasting else Exit.LATER
        case Hold():
            return "hold", f"nothing to do: {decision.detail}", Exit.OK


async def _payable(settings: Settings, total: Usdc) -> tuple[PaymentForbidden | None, str]:
    """Hold the dearest charge that would be accepted against price, fees and wallet; simulation needs a real one."""
    rpcs = assembly.providers(settings)
    try:
        wallet = assembly.wallet(settings)
        if wallet is None:
            return None, "no wallet is set, so the chain was not asked"
        chain = assembly.chain(settings, rpcs, SystemClock())
        found = await chain.preflight(
            wallet, total, assembly.profile(settings).contract, pay_with=assembly.pay_with(settings)
        )
        plan = _rough_plan(settings, found, total)
        fair = None
        if plan.asset is Asset.ETH and found.price_e8 is not None:
            fair = EthPrice(found.price_e8).wei_for_up(total)
        permit(
            plan,
            total=total,
            fair=fair,
            wallet=Wallet(found.balance, found.tokens),
            ceilings=assembly.ceilings(settings),
        )
    except PaymentForbidden as error:
        return error, f"and it could not be paid: {error}"
    except TopupError as error:
        return None, f"whether it can be paid is unknown: {error}"
    finally:
        for rpc in rpcs:
            await rpc.close()
    cost = plan.value if plan.asset is Asset.ETH else f"{plan.tokens} {plan.asset}"
    held = found.balance if plan.asset is Asset.ETH else f"{found.tokens} {plan.asset} and {found.balance}"
    return None, f"it would take at most {cost} and fees from a wallet of {held}; not simulated"


async def _payable_in_dollars(settings: Settings, one: Funding, total: Usdc) -> tuple[PaymentForbidden | None, str]:
    """Hold the dearest offer that would be accepted against the dollars on the rail's chain, and the network's fee."""
    try:
        own = payer(settings)
        if own is None:
            return None, "no wallet is set, so the chain was not asked"
        found = await dollars(settings, one, own)
        plan = _rough_authorization(one, found, total)
        wallet = Wallet(found.balance, found.tokens, found.permission)
        permit(plan, total=total, fair=None, wallet=wallet, ceilings=assembly.ceilings(settings))
    except PaymentForbidden as error:
        return error, f"and it could not be paid: {error}"
    except TopupError as error:
        return None, f"whether it can be paid is unknown: {error}"
    cost, held = one.amount(total), one.amount(found.tokens or NO_TOKENS)
    fee = f" and {one.amount(plan.token_fee)} of fees" if one.dollar.pays_fee else ""
    return None, f"it would take at most {cost}{fee} from a wallet of {held} on {one.chain}; not simulated"


async def dollars(settings: Settings, one: Funding, own: bytes) -> Preflight:
    """Ask the rail's chain for its newest block, its fees, the dollars of an account, and what its access key may.

    Raises:
        SettingsError, SignerError: the access key cannot be opened.
        ChainError: too few providers gave an answer that can be used.
        PaymentForbidden: there is no such token on that chain.
    """
    rpcs = assembly.asked_at(settings, one.urls)
    try:
        agreeing = quorum(one.urls, one.wanted)
        chain = assembly.authorized(settings, rpcs, one.dollar, agreeing, SystemClock())
        return await chain.preflight(own, one.dollar.token, key=access_key(settings))
    finally:
        for rpc in rpcs:
            await rpc.close()


def network_fee(one: Funding, found: Preflight) -> Usdc:
    """Return the most that the network would take of a payment now, as the rail plans it; nothing where others pay."""
    from topup.sellers.mpp import GAS_LIMIT

    if not one.dollar.pays_fee:
        return NO_TOKENS
    return gas_dollars(Wei(found.base_fee.units * 3 // 2 + found.tip.units), GAS_LIMIT)


def _rough_authorization(one: Funding, found: Preflight, total: Usdc) -> Plan:
    none = Wei(0)
    return Plan(
        kind=Kind.PAY,
        to=one.dollar.token,
        data=b"",
        value=none,
        gas_limit=0,
        max_fee_per_gas=none,
        max_priority_fee_per_gas=none,
        l1_fee=none,
        lane=0,
        nonce=0,
        chain_id=one.dollar.chain_id,
        quote=none,
        tier=0,
        eth_price_e8=0,
        block_number=found.head.number,
        proof="none",
        asset=one.dollar.asset,
        tokens=total,
        token_fee=network_fee(one, found),
        broadcaster=Broadcaster.SERVER,
    )


def _rough_plan(settings: Settings, found: Preflight, total: Usdc) -> Plan:
    asset = assembly.pay_with(settings)
    if asset is Asset.ETH and not found.quotes:
        raise PaymentForbidden(
            "no_pool", "no pool quotes this payment", remedy="wait, or check chain.quoter and chain.tiers"
        )
    tier, quote = min(found.quotes.items(), key=lambda item: item[1], default=(0, Wei(0)))
    chain = assembly.profile(settings)
    return Plan(
        kind=Kind.PAY,
        to=chain.contract,
        data=b"",
        value=quote.plus_bps_up(Bps(settings.price.slippage_bps)),
        gas_limit=GAS_LIMIT_USUAL,
        max_fee_per_gas=found.base_fee.times(2) + found.tip,
        max_priority_fee_per_gas=found.tip,
        l1_fee=Wei(0),
        lane=0,
        nonce=found.nonce_latest,
        chain_id=chain.chain_id,
        quote=quote,
        tier=tier,
        eth_price_e8=found.price_e8 or 0,
        block_number=found.head.number,
        proof="none",
        asset=asset,
        tokens=NO_TOKENS if asset is Asset.ETH else total,
    )


def refills(balance: Wei, reserve: Wei, price: EthPrice, total: Usdc) -> int:
    """Return how many payments of `total` the balance above the reserve covers at `price`, network fees left out."""
    spare = max(0, balance.units - reserve.units)
    return spare // price.wei_for_up(total).units


def refill_total(settings: Settings, reading: Reading | None) -> Usdc:
    """Return the most that the next refill may cost; without a reading, that a fixed or least amount may cost."""
    allowed = assembly.limits(settings)
    if reading is not None:
        amount = amount_due(reading, allowed)
    else:
        amount = allowed.amount if allowed.amount is not None else allowed.topup_max
    return worst_spend(amount, allowed).usdc_up()


async def ask_live(settings: Settings) -> dict[str, str]:
    """Ask the API and the chain how things stand; what cannot be learnt says "unknown" and why."""
    told: dict[str, str] = {}
    reading = await _live_credits(settings, told)
    for place, rail in enumerate(settings.rails.use):
        found: dict[str, str] = {}
        if rail == COINBASE:
            rpcs = assembly.providers(settings)
            try:
                await _live_wallet(settings, found, reading, rpcs)
            finally:
                for rpc in rpcs:
                    await rpc.close()
        else:
            await _live_dollars(settings, found, reading, funding(settings, rail))
        told |= {f"{name} {rail}" if place else name: says for name, says in found.items()}
    return told


async def _or_unknown(told: dict[str, str], names: tuple[str, ...], ask: Callable[[], Awaitable[None]]) -> None:
    try:
        await ask()
    except TopupError as error:
        for name in names:
            told.setdefault(name, f"unknown: {error}")


async def _live_credits(settings: Settings, told: dict[str, str]) -> Reading | None:
    found: list[Reading] = []

    async def ask() -> None:
        snapshot, _, _, _ = await _look(settings, PurchaseOrder())
        if isinstance(snapshot.reading, Unknown):
            told["credits"] = f"unknown: {snapshot.reading.doubt}: {snapshot.reading.detail}"
            return
        found.append(snapshot.reading)
        told["credits"] = f"{snapshot.reading.balance} dollars"
        burn = snapshot.burn
        left = runway(snapshot.reading.balance, assembly.limits(settings).floor, burn)
        told["burn"] = f"{burn} dollars an hour" if burn is not None else "unknown: too few readings"
        told["runway"] = (
            f"{left.to_floor_h} h to the floor, {left.to_empty_h} h to empty"
            if left.to_empty_h is not None
            else "unlimited: nothing is used"
            if burn is not None
            else "unknown: too few readings"
        )

    await _or_unknown(told, ("credits", "burn", "runway"), ask)
    for name in ("burn", "runway"):
        told.setdefault(name, "unknown: the credits are unknown")
    return found[0] if found else None


async def _live_dollars(settings: Settings, told: dict[str, str], reading: Reading | None, one: Funding) -> None:
    async def ask() -> None:
        own = payer(settings)
        if own is None:
            told["wallet"] = told["refills"] = "unknown: no wallet is set"
            return
        held = (await dollars(settings, one, own)).tokens or NO_TOKENS
        told["wallet"] = f"{one.amount(held)} on {one.chain}"
        each = refill_total(settings, reading) + one.fee_max
        told["refills"] = f"{held.units // each.units} of at most {one.amount(each)} each, fees included"

    await _or_unknown(told, ("wallet", "refills"), ask)


async def _live_wallet(settings: Settings, told: dict[str, str], reading: Reading | None, rpcs: list[Any]) -> None:
    wallet: list[bytes] = []
    balance: list[Wei] = []

    async def address() -> None:
        found = assembly.wallet(settings)
        if found is None:
            for name in ("wallet", "nonce", "refills"):
                told[name] = "unknown: no wallet is set"
            return
        wallet.append(found)

    async def holdings() -> None:
        from topup.chain.rpc import known, quantity

        me = "0x" + wallet[0].hex()
        held, latest, pending = await rpcs[0].batch(
            [
                ("eth_getBalance", [me, "latest"]),
                ("eth_getTransactionCount", [me, "latest"]),
                ("eth_getTransactionCount", [me, "pending"]),
            ]
        )
        balance.append(Wei(quantity(known(held, "the balance"), "the balance")))
        told["wallet"] = str(balance[0])
        used = quantity(known(latest, "the nonce"), "the nonce")
        waiting = quantity(known(pending, "the pending nonce"), "the pending nonce") - used
        told["nonce"] = f"{used}, {waiting} pending" if waiting else str(used)

    async def cover() -> None:
        total = refill_total(settings, reading)
        chain = assembly.chain(settings, rpcs, SystemClock())
        found = await chain.preflight(wallet[0], total, assembly.profile(settings).contract)
        if found.price_e8 is None:
            told["refills"] = "unknown: no price feed is set"
            return
        price, reserve = EthPrice(found.price_e8), assembly.wei(settings.wallet.reserve_eth)
        count = refills(balance[0], reserve, price, total)
        told["refills"] = f"{count} of at most {total} each at {price.usd} dollars for one ETH"

    await _or_unknown(told, ("wallet", "nonce", "refills"), address)
    if wallet:
        await _or_unknown(told, ("wallet", "nonce", "refills"), holdings)
    if balance:
        await _or_unknown(told, ("refills",), cover)
