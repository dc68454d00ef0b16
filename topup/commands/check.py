"""What would be done now? The rules of the daemon on a fresh reading, with nothing written and nothing bought.

The ledger is copied into memory first, so that history, pause and burn rate count and no trace is left. The same
cycle looks and decides; only its last step, the purchase, is never taken.
"""

from dataclasses import replace
from typing import Final

from topup.app import assembly, keys
from topup.app.connections import Connections, opened
from topup.app.funding import Funding, funding, network_fee, refill_total, refills
from topup.app.settings import Settings
from topup.commands.answer import Answer, shown, to_do
from topup.commands.start import load, wait_for
from topup.domain.credits import LASTING, Reading, Unknown, runway
from topup.domain.errors import Exit, PaymentForbidden, TopupError
from topup.domain.lifecycle import NO_TOKENS, Broadcaster, Kind, Plan, State, TopUp
from topup.domain.money import Asset, Bps, EthPrice, Usdc, Wei
from topup.domain.policy import Buy, Decision, Hold, Limits, Refuse, Snapshot, Wallet, Why, permit, worst_spend
from topup.domain.reasons import Reason
from topup.payment.config import COINBASE, PurchaseOrder
from topup.ports.chain import Preflight

# What a payment through the smallest pools needs as a limit, measured (docs: gas of the payment protocol).
GAS_LIMIT_USUAL: Final = 335_000
# What is judged of a payment before there is a charge to plan it for; nothing of this is ever signed.
ROUGH: Final = Plan(
    kind=Kind.PAY,
    to=b"",
    data=b"",
    value=Wei(0),
    gas_limit=0,
    max_fee_per_gas=Wei(0),
    max_priority_fee_per_gas=Wei(0),
    l1_fee=Wei(0),
    lane=0,
    nonce=0,
    chain_id=0,
    block_number=0,
    proof="none",
)


def answer() -> Answer:
    """Read and decide; nothing is written or bought."""
    return wait_for(ask_and_decide(load(), PurchaseOrder()))


async def ask_and_decide(settings: Settings, wish: PurchaseOrder) -> Answer:
    """Read the account, apply the rules, and say what would be done; nothing is written or bought.

    In observe mode the rules are applied as if it were live, because the question is whether a top-up is due. In
    live mode a top-up that is due is held against the chain as far as that goes without a charge: price, fees, wallet.

    Raises:
        SettingsError, StoreUnusable: there is no API key, or the ledger cannot be read.
    """
    allowed = assembly.limits(settings)
    keys.known(settings)  # refuses a key that is not of `wallet.address`
    notes: list[str] = []
    forbidden = None
    async with opened(settings) as connections:
        snapshot, decision = await _judged(connections, wish)
        store, use = connections.store, settings.rails_in_use
        gone, unfinished = store.control(settings.account).gone, store.open_topup(settings.account)
        if isinstance(decision, Buy) and allowed.live:
            rail = next((name for name in use if name not in gone), use[0])
            forbidden, note = await _payable(connections, rail, worst_spend(decision.amount, allowed).usdc_up())
            notes.append(note)
        elif isinstance(decision, Buy):
            notes.append("mode is observe, so nothing will buy it")
    return _said(snapshot, decision, unfinished, allowed, notes, forbidden)


async def _judged(connections: Connections, wish: PurchaseOrder) -> tuple[Snapshot, Decision]:
    return await connections.cycle_within(replace(assembly.limits(connections.settings), live=True)).judge(wish)


def _said(
    snapshot: Snapshot,
    decision: Decision,
    unfinished: TopUp | None,
    allowed: Limits,
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
        "amount_usd": shown(decision.amount) if isinstance(decision, Buy) else None,
        "most_it_may_cost_usd": shown(worst_spend(decision.amount, allowed)) if isinstance(decision, Buy) else None,
        "balance_usd": str(reading.balance) if reading is not None else None,
        "floor_usd": str(allowed.floor),
        "burn_usd_per_hour": shown(snapshot.burn),
        "hours_to_empty": shown(left.to_empty_h) if left is not None else None,
        "open_topup": unfinished.id if unfinished is not None else None,
        "mode": "live" if allowed.live else "observe",
        "notes": notes,
        "exit_code": int(code),
    }
    return Answer(document, ["; ".join([sentence, *notes]) + to_do(remedy)], code)


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


async def _payable(connections: Connections, rail: str, total: Usdc) -> tuple[PaymentForbidden | None, str]:
    """Hold the dearest demand that would be accepted against the chain; simulation needs a real one."""
    if rail == COINBASE:
        connections.providers(connections.settings.chain.rpc_urls)  # a way out that is set wrong ends the command
    try:
        wallet = connections.payer
        if wallet is None:
            return None, "no wallet is set, so the chain was not asked"
        if rail == COINBASE:
            return None, await _charge_payable(connections, wallet, total)
        return None, await _offer_payable(connections, funding(connections.settings, rail), wallet, total)
    except PaymentForbidden as error:
        return error, f"and it could not be paid: {error}"
    except TopupError as error:
        return None, f"whether it can be paid is unknown: {error}"


async def _charge_payable(connections: Connections, wallet: bytes, total: Usdc) -> str:
    """Hold a charge over `total` against price, fees and wallet; PaymentForbidden where it could not be paid."""
    settings = connections.settings
    contract, asset = assembly.profile(settings).contract, assembly.pay_with(settings)
    preflight = await connections.chain().preflight(wallet, total, contract, pay_with=asset)
    plan, fair = _rough_plan(settings, preflight, total), None
    if asset is Asset.ETH and preflight.price_e8 is not None:
        fair = EthPrice(preflight.price_e8).wei_for_up(total)
    holds = Wallet(preflight.balance, preflight.tokens)
    permit(plan, total=total, fair=fair, wallet=holds, ceilings=assembly.ceilings(settings))
    cost = plan.value if asset is Asset.ETH else f"{plan.tokens} {asset}"
    held = preflight.balance if asset is Asset.ETH else f"{preflight.tokens} {asset} and {preflight.balance}"
    return f"it would take at most {cost} and fees from a wallet of {held}; not simulated"


def _rough_plan(settings: Settings, preflight: Preflight, total: Usdc) -> Plan:
    asset = assembly.pay_with(settings)
    if asset is Asset.ETH and not preflight.quotes:
        raise PaymentForbidden(
            Reason.NO_POOL, "no pool quotes this payment", remedy="wait, or check chain.quoter and chain.tiers"
        )
    quote = min(preflight.quotes.values(), default=Wei(0))
    return replace(
        ROUGH,
        value=quote.plus_bps_up(Bps(settings.price.slippage_bps)),
        gas_limit=GAS_LIMIT_USUAL,
        max_fee_per_gas=preflight.base_fee.times(2) + preflight.tip,
        asset=asset,
        tokens=NO_TOKENS if asset is Asset.ETH else total,
    )


async def _offer_payable(connections: Connections, funds: Funding, wallet: bytes, total: Usdc) -> str:
    """Hold an offer over `total` against the dollars on the rail's chain and its fee, as `_charge_payable`."""
    preflight = await connections.dollars(funds, wallet)
    fee = network_fee(funds, preflight)
    plan = replace(ROUGH, asset=funds.dollar.asset, tokens=total, token_fee=fee, broadcaster=Broadcaster.SERVER)
    holds = Wallet(preflight.balance, preflight.tokens, preflight.permission)
    permit(plan, total=total, fair=None, wallet=holds, ceilings=assembly.ceilings(connections.settings))
    cost, held = funds.amount(total), funds.amount(preflight.tokens or NO_TOKENS)
    fees = f" and {funds.amount(fee)} of fees" if funds.dollar.pays_fee else ""
    return f"it would take at most {cost}{fees} from a wallet of {held} on {funds.chain}; not simulated"


async def ask_live(settings: Settings) -> dict[str, str]:
    """Ask the API and the chain how things stand; what cannot be learnt says "unknown" and why."""
    async with opened(settings) as connections:
        lines, reading = await _live_credits(connections)
        for place, rail in enumerate(settings.rails_in_use):
            wallet = await _live_wallet(connections, rail, reading)
            lines |= {f"{name} {rail}" if place else name: says for name, says in wallet.items()}
    return lines


async def _live_credits(connections: Connections) -> tuple[dict[str, str], Reading | None]:
    try:
        snapshot, _ = await _judged(connections, PurchaseOrder())
    except TopupError as error:
        return dict.fromkeys(("credits", "burn", "runway"), f"unknown: {error}"), None
    reading, burn = snapshot.reading, snapshot.burn
    if isinstance(reading, Unknown):
        why = f"unknown: {reading.doubt}: {reading.detail}"
        return {"credits": why, **dict.fromkeys(("burn", "runway"), "unknown: the credits are unknown")}, None
    left = runway(reading.balance, assembly.limits(connections.settings).floor, burn)
    lasts = "unknown: too few readings" if burn is None else "unlimited: nothing is used"
    if left.to_empty_h is not None:
        lasts = f"{left.to_floor_h} h to the floor, {left.to_empty_h} h to empty"
    lines = {
        "credits": f"{reading.balance} dollars",
        "burn": f"{burn} dollars an hour" if burn is not None else "unknown: too few readings",
        "runway": lasts,
    }
    return lines, reading


async def _live_wallet(connections: Connections, rail: str, reading: Reading | None) -> dict[str, str]:
    lines: dict[str, str] = {}
    names = ("wallet", "nonce", "refills") if rail == COINBASE else ("wallet", "refills")
    if rail == COINBASE:
        connections.providers(connections.settings.chain.rpc_urls)  # a way out that is set wrong ends the command
    try:
        wallet = connections.payer
        if wallet is None:
            lines |= dict.fromkeys(names, "unknown: no wallet is set")
        elif rail == COINBASE:
            await _live_eth(connections, wallet, reading, lines)
        else:
            await _live_dollars(connections, funding(connections.settings, rail), wallet, reading, lines)
    except TopupError as error:
        for name in names:
            lines.setdefault(name, f"unknown: {error}")
    return lines


async def _live_dollars(
    connections: Connections, funds: Funding, wallet: bytes, reading: Reading | None, lines: dict[str, str]
) -> None:
    held = (await connections.dollars(funds, wallet)).tokens or NO_TOKENS
    lines["wallet"] = f"{funds.amount(held)} on {funds.chain}"
    each = refill_total(connections.settings, reading) + funds.fee_max
    lines["refills"] = f"{held.units // each.units} of at most {funds.amount(each)} each, fees included"


async def _live_eth(connections: Connections, wallet: bytes, reading: Reading | None, lines: dict[str, str]) -> None:
    from topup.chain.blocks import ether_query, nonce_query
    from topup.chain.rpc import known, quantity

    settings = connections.settings
    held, latest, pending = await connections.providers(settings.chain.rpc_urls)[0].batch(
        [ether_query(wallet, "latest"), nonce_query(wallet, "latest"), nonce_query(wallet, "pending")]
    )
    balance = Wei(quantity(known(held, "the balance"), "the balance"))
    lines["wallet"] = str(balance)
    used = quantity(known(latest, "the nonce"), "the nonce")
    waiting = quantity(known(pending, "the pending nonce"), "the pending nonce") - used
    lines["nonce"] = f"{used}, {waiting} pending" if waiting else str(used)
    total = refill_total(settings, reading)
    preflight = await connections.chain().preflight(wallet, total, assembly.profile(settings).contract)
    if preflight.price_e8 is None:
        lines["refills"] = "unknown: no price feed is set"
        return
    price = EthPrice(preflight.price_e8)
    count = refills(balance, assembly.wei(settings.wallet.reserve_eth), price, total)
    lines["refills"] = f"{count} of at most {total} each at {price.usd} dollars for one ETH"
