"""Can a Coinbase charge be paid: do contract, prices, fees and wallet stand as a payment needs them?"""

from contextlib import closing, suppress
from typing import Final

from eth_utils.crypto import keccak

from topup.app import assembly
from topup.app.funding import funding, refill_total, refills
from topup.app.settings import Settings
from topup.chain import preflight
from topup.chain.blocks import ether_query, head
from topup.chain.contracts import encode, known_word, returned
from topup.chain.logs import of_operator
from topup.chain.preflight import call
from topup.chain.profiles import Profile
from topup.chain.rpc import Answer, Rpc, RpcError, count, known, quantity, unhex
from topup.chain.simulation import l1_fee_query, questions
from topup.commands.doctor import providers
from topup.commands.doctor.finding import Check, covering, failed, safely, skipped
from topup.commands.doctor.providers import Chain, longest
from topup.domain.errors import ChainError, PaymentForbidden, StoreError
from topup.domain.money import Bps, EthPrice, Usdc, Wei, deviation_bps_up
from topup.ledger.store import SqliteStore
from topup.payment.config import COINBASE
from topup.ports.chain import Call, Head

Answers = dict[str, Answer]
# As long as the charges of Coinbase have lived that were seen; settings may allow for more.
CHARGE_LIFE_S: Final = 172_800
# The payment contract keeps feeDestinations[operator] in this mapping (docs: payment protocol, storage).
FEE_DESTINATIONS_SLOT: Final = 3
CHAIN_LOOKS: Final = ("contract", "operators", "quotes", "price feed", "sequencer feed", "gas oracle", "wallet balance")


def _chain(settings: Settings, wallet: bytes | None) -> Chain:
    profile, own = assembly.profile(settings), wallet or bytes(20)
    total, asset = refill_total(settings, None), assembly.pay_with(settings)
    life_s = min(settings.rails.coinbase.life_max_s, CHARGE_LIFE_S)
    return Chain(
        before="",
        chain_id=settings.chain.id,
        remedy="correct chain.rpc_urls or chain.id",
        paid=funding(settings, COINBASE),
        plan=lambda rpc: preflight.preflight_of(rpc, profile, own, total, profile.contract, asset),
        dry=lambda at: questions(profile, Call(own, own, b"", Wei(0)), at),
        old=lambda block: ether_query(own, block),
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

    async def rest(good: list[Rpc]) -> list[Check]:
        checks = await safely("chain", _stands(settings, good[0], wallet), good[0])
        return checks if len(checks) > 1 else [*checks, *skipped(CHAIN_LOOKS, "the chain gave no answer")]

    return await providers.examined(settings, _chain(settings, wallet), CHAIN_LOOKS, rest)


async def _stands(settings: Settings, rpc: Rpc, wallet: bytes | None) -> list[Check]:
    """Ask what a payment in ETH is planned on, and what no payment asks; judge each answer by itself."""
    profile, total = assembly.profile(settings), refill_total(settings, None)
    answers = await rpc.named(preflight.questions(rpc, profile, wallet or bytes(20), total, profile.contract))
    at = head(known(answers["newest"], "the newest block"))
    fed, price = _price_feed(profile, answers, at)
    return [
        *await safely("contract", _contract(profile, rpc, answers), rpc),
        fed,
        _sequencer(profile, answers, at),
        *_quotes(settings, answers, price, total),
        *await safely("gas oracle", _gas_oracle(profile, rpc), rpc),
        *await safely("wallet balance", _holdings(settings, answers, wallet, price, total), rpc),
    ]


async def _contract(profile: Profile, rpc: Rpc, answers: Answers) -> list[Check]:
    try:
        shown = "0x" + preflight.code_hash(answers["code"], profile, profile.contract).hex()
    except PaymentForbidden as error:
        first = failed("contract", error)
        if error.reason == "no_code":
            return [first, *skipped(("operators",), "there is no contract")]
    else:
        first = Check("contract", ok=True, says=f"code as pinned, {shown}")
        if profile.contract_code_hash is None:
            first = Check("contract", ok=True, says=f"warning: its code is not pinned; its hash is {shown}",
                          remedy="set chain.contract_code_hash to it once you trust it")  # fmt: skip
    operators = sorted(profile.operators)
    slots = [keccak(o.rjust(32, b"\0") + FEE_DESTINATIONS_SLOT.to_bytes(32, "big")) for o in operators]
    stopped, *registered = await rpc.batch(
        [
            call(profile.contract, encode("payment_protocol", "paused"), "latest"),
            *(("eth_getStorageAt", ["0x" + profile.contract.hex(), "0x" + slot.hex(), "latest"]) for slot in slots),
        ]
    )
    (paused,) = returned(["bool"], stopped, "paused()")
    second = Check("contract paused", ok=not paused, says="it takes no payments now" if paused else "no",
                   remedy="wait until its owner resumes it" if paused else "")  # fmt: skip
    absent = [
        f"0x{operator.hex()}"
        for operator, answer in zip(operators, registered, strict=True)
        if not int.from_bytes(unhex(known(answer, "a slot"), "a slot"), "big")
    ]
    says = f"not registered: {', '.join(absent)}" if absent else f"{len(operators)} registered"
    remedy = "check rails.coinbase.operators with your gateway" if absent else ""
    return [first, second, Check("operators", ok=not absent, says=says, remedy=remedy)]


def _price_feed(profile: Profile, answers: Answers, at: Head) -> tuple[Check, EthPrice | None]:
    name = "price feed"
    if "price" not in answers:
        return Check(name, ok=True, says="warning: switched off; no payment's price is judged"), None
    try:
        price_e8, age_s = preflight.feed_price(answers["price"], profile, at)
    except (ChainError, PaymentForbidden) as error:
        return failed(name, error, "correct chain.price_feed"), None
    price = EthPrice(price_e8)
    return Check(name, ok=True, says=f"{price.usd} dollars for one ETH, {age_s} s old"), price


def _sequencer(profile: Profile, answers: Answers, at: Head) -> Check:
    name = "sequencer feed"
    if "sequencer" not in answers:
        return Check(name, ok=True, says="warning: switched off; an outage of the chain goes unnoticed")
    try:
        up_s = preflight.sequencer_up_s(answers["sequencer"], profile, at)
    except (ChainError, PaymentForbidden) as error:
        return failed(name, error, "correct chain.sequencer_feed")
    return Check(name, ok=True, says=f"up for {up_s // 3600} h")


def _quotes(settings: Settings, answers: Answers, price: EthPrice | None, total: Usdc) -> list[Check]:
    checks, deviations, quotes = list[Check](), list[Bps](), 0
    for tier in assembly.profile(settings).tiers:
        name, answer = f"quote tier {tier}", answers[f"quote {tier}"]
        if isinstance(answer, RpcError):
            checks.append(Check(name, ok=True, says=f"warning: no quote: {answer.message[:100]}"))
            continue
        try:
            quote = preflight.quoted(answer, tier) or Wei(0)
        except ChainError as error:
            checks.append(failed(name, error, "correct chain.quoter"))
            continue
        quotes += 1
        deviations += [deviation_bps_up(quote, price.wei_for_up(total))] if price is not None else []
        off = f", {deviations[-1]} from the feed" if deviations else ""
        checks.append(Check(name, ok=True, says=f"{quote} for {total}{off}"))
    if not quotes:
        remedy = "check chain.quoter and chain.tiers"
        return [*checks, Check("quotes", ok=False, says="no tier quotes a refill", remedy=remedy)]
    ceiling = settings.price.deviation_bps - settings.price.slippage_bps
    best = min(deviations, default=None)
    if best is not None and best.bps > ceiling:
        says = f"the best quote is {best} from the feed: with the slippage it passes price.deviation_bps"
        return [*checks, Check("quotes", ok=False, says=says, remedy="wait for the pool, or raise price.deviation_bps")]
    return checks


async def _gas_oracle(profile: Profile, rpc: Rpc) -> list[Check]:
    name = "gas oracle"
    try:
        (answer,) = await rpc.batch([l1_fee_query(profile.gas_oracle, 800, "latest")])
        fee = Wei(known_word(answer, "the L1 fee"))
    except ChainError as error:
        return [failed(name, error, "check chain.id and the provider")]
    return [Check(name, ok=True, says=f"a payment's L1 data fee is at most {fee}")]


async def _holdings(
    settings: Settings, answers: Answers, wallet: bytes | None, price: EthPrice | None, total: Usdc
) -> list[Check]:
    name = "wallet balance"
    if wallet is None:
        return skipped((name, "wallet nonce"), "no wallet is known") if settings.mode == "live" else []
    balance = Wei(quantity(known(answers["balance"], "the balance"), "the balance", bare=True))
    first = Check(name, ok=True, says=f"{balance}; how many refills that is, is unknown without a price")
    if price is not None:
        covered = refills(balance, assembly.wei(settings.wallet.reserve_eth), price, total)
        says = f"{balance} covers {covered} refills of at most {total} above the reserve"
        first = covering(name, covered, says, f"send ETH to 0x{wallet.hex()}", live=settings.mode == "live")
    used = count(known(answers["nonce"], "the nonce"), "the nonce", bare=True)
    return [first, _waiting(used, answers["pending"]), _known_nonce(settings, wallet, used)]


def _waiting(used: int, answer: Answer) -> Check:
    name = "wallet nonce"
    pending, doubt = preflight.pending_nonce(answer, used)
    if doubt:
        return Check(name, ok=True, says=f"warning: {used}; whether anything is pending, the provider does not count")
    waiting = pending - used
    says = f"{used}, {waiting} pending" if waiting else f"{used}, nothing pending"
    remedy = "wait for them; when they are not topup's, use this wallet for nothing else" if waiting else ""
    return Check(name, ok=not waiting, says=says, remedy=remedy)


def _known_nonce(settings: Settings, wallet: bytes, used: int) -> Check:
    """Hold the wallet's transactions against those the ledger knows of: a lost ledger, or a second user of the key."""
    name = "ledger nonce"
    known = 0
    with suppress(StoreError), closing(SqliteStore.open_copy(settings.state_dir)) as store:
        known = store.next_nonce(settings.chain.id, wallet)
    if used <= known:
        return Check(name, ok=True, says=f"the ledger knows of {known} transactions of the wallet")
    says = f"the wallet has sent {used} transactions, the ledger knows of {known}: nothing will be signed"
    remedy = "`topup reconcile` names what was sent, and takes it over with --adopt"
    return Check(name, ok=settings.mode != "live", says=says, remedy=remedy)
