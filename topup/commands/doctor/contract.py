"""Can a Coinbase charge be paid: do contract, prices, fees and wallet stand as a payment needs them?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.app import assembly
from topup.app.settings import Settings
from topup.chain.blocks import head
from topup.chain.contracts import encode, returned
from topup.chain.logs import of_operator
from topup.chain.preflight import ROUND, call, preflight_of
from topup.chain.refusals import speaks_of_absence
from topup.chain.rpc import Answer, Rpc, RpcError, count, known, quantity, unhex
from topup.chain.simulation import questions
from topup.commands.check import refill_total, refills
from topup.commands.doctor.finding import REFILLS_LOW, Check, failed, safely, skipped
from topup.commands.doctor.providers import Chain, longest, questioned
from topup.domain.errors import ChainError, StoreError
from topup.domain.money import EthPrice, Usdc, Wei, deviation_bps_up
from topup.ledger.store import SqliteStore
from topup.ports.chain import Call

# As long as the charges of Coinbase have lived that were seen; settings may allow for more.
CHARGE_LIFE_S: Final = 172_800
# The payment contract keeps feeDestinations[operator] in this mapping (docs: payment protocol, storage).
FEE_DESTINATIONS_SLOT: Final = 3
CHAIN_LOOKS: Final = ("contract", "operators", "quotes", "price feed", "sequencer feed", "gas oracle", "wallet balance")


def _chain(settings: Settings, wallet: bytes | None) -> Chain:
    """Return the chain to which the wallet itself sends what pays a Coinbase charge."""
    profile, own = assembly.profile(settings), wallet or bytes(20)
    total, asset = refill_total(settings, None), assembly.pay_with(settings)
    life_s = min(settings.rails.coinbase.life_max_s, CHARGE_LIFE_S)
    return Chain(
        before="",
        chain_id=settings.chain.id,
        said="chain.rpc_urls",
        remedy="correct chain.rpc_urls or chain.id",
        urls=settings.chain.rpc_urls,
        wanted=settings.chain.quorum,
        plan=lambda rpc: preflight_of(rpc, profile, own, total, profile.contract, asset),
        dry=lambda at: questions(profile, Call(own, own, b"", Wei(0)), at),
        old=lambda block: ("eth_getBalance", ["0x" + own.hex(), block]),
        logs=of_operator(profile.contract, min(profile.operators)),
        blocks=longest(life_s, profile.block_s),
        lost="it cannot bear out that an expired charge was never paid",
        alone=(
            "one provider: payments run, but an expired charge needs a person",
            "two can prove that a charge was never paid",
        ),
    )


async def examined(settings: Settings, wallet: bytes | None) -> list[Check]:
    """Look at the chain to which the wallet itself sends payments: providers, contract, prices, wallet."""
    rpcs = assembly.providers(settings)
    try:
        found, good = await questioned(settings, rpcs, _chain(settings, wallet))
        if not good:
            return [*found, *skipped(CHAIN_LOOKS, "no provider can be asked")]
        first, total = good[0], refill_total(settings, None)
        (prices, price), contract = await asyncio.gather(
            _priced(settings, first, total), safely("contract", _contract(settings, first), first)
        )
        return [
            *found,
            *contract,
            *prices,
            *await safely("gas oracle", _gas_oracle(settings, first), first),
            *await safely("wallet balance", _holdings(settings, first, wallet, price, total), first),
        ]
    finally:
        for rpc in rpcs:
            await rpc.close()


async def _priced(settings: Settings, rpc: Rpc, total: Usdc) -> tuple[list[Check], EthPrice | None]:
    """Look at the prices; return also that of ETH, None where it is unknown."""
    learnt: list[EthPrice] = []
    found = await safely("prices", _prices(settings, rpc, total, learnt.append), rpc)
    return found, learnt[0] if learnt else None


async def _contract(settings: Settings, rpc: Rpc) -> list[Check]:

    chain = assembly.profile(settings)
    contract = "0x" + chain.contract.hex()
    slots = [keccak(o.rjust(32, b"\0") + FEE_DESTINATIONS_SLOT.to_bytes(32, "big")) for o in sorted(chain.operators)]
    code, stopped, *registered = await rpc.batch(
        [
            ("eth_getCode", [contract, "latest"]),
            call(chain.contract, encode("payment_protocol", "paused"), "latest"),
            *(("eth_getStorageAt", [contract, "0x" + slot.hex(), "latest"]) for slot in slots),
        ]
    )
    held = unhex(known(code, "the contract's code"), "the contract's code")
    if not held:
        says = f"there is no contract at {contract}: ETH sent there would be lost"
        missing = Check("contract", ok=False, says=says, remedy="correct rails.coinbase.contract")
        return [missing, *skipped(("operators",), "there is no contract")]
    shown = "0x" + keccak(held).hex()
    pinned = chain.contract_code_hash
    if pinned is None:
        first = Check("contract", ok=True, says=f"warning: its code is not pinned; its hash is {shown}",
                      remedy="set chain.contract_code_hash to it once you trust it")  # fmt: skip
    else:
        right = "0x" + pinned.hex() == shown
        says = f"code as pinned, {shown}" if right else f"code hash {shown}, pinned is 0x{pinned.hex()}"
        remedy = "" if right else "find out why before you change chain.contract_code_hash"
        first = Check("contract", ok=right, says=says, remedy=remedy)
    (paused,) = returned(["bool"], unhex(known(stopped, "paused()"), "paused()"), "paused()")
    second = Check("contract paused", ok=not paused, says="it takes no payments now" if paused else "no",
                   remedy="wait until its owner resumes it" if paused else "")  # fmt: skip
    absent = [
        f"0x{operator.hex()}"
        for operator, answer in zip(sorted(chain.operators), registered, strict=True)
        if not int.from_bytes(unhex(known(answer, "a slot"), "a slot"), "big")
    ]
    says = f"not registered: {', '.join(absent)}" if absent else f"{len(chain.operators)} registered"
    remedy = "check rails.coinbase.operators with your gateway" if absent else ""
    return [first, second, Check("operators", ok=not absent, says=says, remedy=remedy)]


async def _prices(settings: Settings, rpc: Rpc, total: Usdc, learnt: Callable[[EthPrice], None]) -> list[Check]:
    chain = assembly.profile(settings)
    time_s = head(await rpc.read("eth_getBlockByNumber", "latest", False)).timestamp_s
    feeds = [f for f in (chain.price_feed, chain.sequencer_feed) if f is not None]
    ahead = [call(f, encode("aggregator_v3", "latestRoundData"), "latest") for f in feeds]
    tiers = [
        call(
            chain.quoter,
            encode(
                "quoter_v2",
                "quoteExactOutputSingle",
                (chain.wrapped_native, chain.currency, total.units, tier, 0),
            ),
            "latest",
        )
        for tier in chain.tiers
    ]
    answers = await rpc.batch([*ahead, *tiers])
    rounds = iter(answers[: len(feeds)])
    price_check, price = _price_feed(settings, next(rounds) if chain.price_feed is not None else None, time_s)
    found = [price_check, _sequencer(settings, next(rounds) if chain.sequencer_feed is not None else None, time_s)]
    if price is not None:
        learnt(price)
    return found + _quotes(settings, dict(zip(chain.tiers, answers[len(feeds) :], strict=True)), price, total)


def _price_feed(settings: Settings, answer: Any, time_s: int) -> tuple[Check, EthPrice | None]:
    name, chain = "price feed", assembly.profile(settings)
    if answer is None:
        return Check(name, ok=True, says="warning: switched off; no payment's price is judged"), None
    try:
        round_id, price, _, updated_s, answered_in = returned(ROUND, unhex(known(answer, name), name), name)
    except ChainError as error:
        return failed(name, error, "correct chain.price_feed"), None
    age = time_s - updated_s
    says = f"{EthPrice(price).usd} dollars for one ETH, {age} s old"
    if price <= 0 or answered_in < round_id or age > chain.price_feed_age_s:
        remedy = f"wait for a fresh round (at most {chain.price_feed_age_s} s), or correct chain.price_feed"
        return Check(name, ok=False, says=says, remedy=remedy), None
    return Check(name, ok=True, says=says), EthPrice(price)


def _sequencer(settings: Settings, answer: Any, time_s: int) -> Check:
    name, chain = "sequencer feed", assembly.profile(settings)
    if answer is None:
        return Check(name, ok=True, says="warning: switched off; an outage of the chain goes unnoticed")
    try:
        _, down, since_s, _, _ = returned(ROUND, unhex(known(answer, name), name), name)
    except ChainError as error:
        return failed(name, error, "correct chain.sequencer_feed")
    if down or time_s - since_s < chain.sequencer_grace_s:
        says = "the chain's sequencer is down" if down else f"the sequencer is up for only {time_s - since_s} s"
        return Check(name, ok=False, says=says, remedy=f"wait until it has been up for {chain.sequencer_grace_s} s")
    return Check(name, ok=True, says=f"up for {(time_s - since_s) // 3600} h")


def _quotes(settings: Settings, told: dict[int, Any], price: EthPrice | None, total: Usdc) -> list[Check]:
    found, best = [], None
    for tier, answer in told.items():
        name = f"quote tier {tier}"
        if isinstance(answer, RpcError):
            found.append(Check(name, ok=True, says=f"warning: no quote: {answer.message[:100]}"))
            continue
        try:
            amount = returned(["uint256", "uint160", "uint32", "uint256"], unhex(answer, name), name)[0]
        except ChainError as error:
            found.append(failed(name, error, "correct chain.quoter"))
            continue
        quote = Wei(int(amount))
        off = deviation_bps_up(quote, price.wei_for_up(total)) if price is not None else None
        found.append(Check(name, ok=True, says=f"{quote} for {total}" + (f", {off} from the feed" if off else "")))
        best = off if best is None or (off is not None and off < best) else best
    if not any(c.ok and not c.says.startswith("warning:") for c in found):
        remedy = "check chain.quoter and chain.tiers"
        return [*found, Check("quotes", ok=False, says="no tier quotes a refill", remedy=remedy)]
    ceiling = settings.price.deviation_bps - settings.price.slippage_bps
    if best is not None and best.bps > ceiling:
        says = f"the best quote is {best} from the feed: with the slippage it passes price.deviation_bps"
        return [*found, Check("quotes", ok=False, says=says, remedy="wait for the pool, or raise price.deviation_bps")]
    return found


async def _gas_oracle(settings: Settings, rpc: Rpc) -> list[Check]:
    name, oracle = "gas oracle", assembly.profile(settings).gas_oracle
    if oracle is None:
        return [Check(name, ok=True, says="this chain has none")]
    try:
        method, body = call(oracle, encode("gas_price_oracle", "getL1FeeUpperBound", 800), "latest")
        (fee,) = returned(["uint256"], unhex(await rpc.read(method, *body), name), name)
    except ChainError as error:
        return [failed(name, error, "check chain.id and the provider")]
    return [Check(name, ok=True, says=f"a payment's L1 data fee is at most {Wei(fee)}")]


async def _holdings(
    settings: Settings, rpc: Rpc, wallet: bytes | None, price: EthPrice | None, total: Usdc
) -> list[Check]:
    if wallet is None:
        return skipped(("wallet balance", "wallet nonce"), "no wallet is known") if settings.mode == "live" else []
    me = "0x" + wallet.hex()
    held, latest, pending = await rpc.batch(
        [
            ("eth_getBalance", [me, "latest"]),
            ("eth_getTransactionCount", [me, "latest"]),
            ("eth_getTransactionCount", [me, "pending"]),
        ]
    )
    balance = Wei(quantity(known(held, "the balance"), "the balance", bare=True))
    if price is None:
        first = Check(
            "wallet balance", ok=True, says=f"{balance}; how many refills that is, is unknown without a price"
        )
    else:
        covered = refills(balance, assembly.wei(settings.wallet.reserve_eth), price, total)
        says = f"{balance} covers {covered} refills of at most {total} above the reserve"
        enough = covered >= 1 or settings.mode != "live"
        says = says if covered >= REFILLS_LOW or not enough else f"warning: {says}"
        first = Check(
            "wallet balance", ok=enough, says=says, remedy="" if covered >= REFILLS_LOW else f"send ETH to {me}"
        )
    used = count(known(latest, "the nonce"), "the nonce", bare=True)
    return [first, _waiting(used, pending), _known_nonce(settings, wallet, used)]


def _waiting(used: int, pending: Answer) -> Check:
    """Say whether a transaction of the wallet waits for a block, where the provider counts those."""
    name = "wallet nonce"
    if isinstance(pending, RpcError) and speaks_of_absence(pending.code, pending.message):
        return Check(name, ok=True, says=f"warning: {used}; whether anything is pending, the provider does not count")
    waiting = count(known(pending, "the pending nonce"), "the pending nonce", bare=True) - used
    says = f"{used}, {waiting} pending" if waiting else f"{used}, nothing pending"
    remedy = "wait for them; when they are not topup's, use this wallet for nothing else" if waiting else ""
    return Check(name, ok=not waiting, says=says, remedy=remedy)


def _known_nonce(settings: Settings, wallet: bytes, used: int) -> Check:
    """Hold the wallet's transactions against those the ledger knows of: a lost ledger, or a second user of the key."""
    name = "ledger nonce"
    try:
        store = SqliteStore.open_copy(settings.state_dir)
    except StoreError:
        known = 0
    else:
        known = store.next_nonce(settings.chain.id, wallet)
        store.close()
    if used <= known:
        return Check(name, ok=True, says=f"the ledger knows of {known} transactions of the wallet")
    says = f"the wallet has sent {used} transactions, the ledger knows of {known}: nothing will be signed"
    remedy = "`topup reconcile` names what was sent, and takes it over with --adopt"
    return Check(name, ok=settings.mode != "live", says=says, remedy=remedy)
