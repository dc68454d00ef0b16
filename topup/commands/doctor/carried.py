"""Can dollars be paid on the chain to which a seller carries what was signed?"""

from collections.abc import Sequence
from typing import Final

from topup.app import assembly
from topup.app.funding import Funding, network_fee, refill_total
from topup.app.keys import payer
from topup.app.settings import Settings
from topup.chain.logs import of_payer
from topup.chain.preflight import balance
from topup.chain.rpc import Rpc
from topup.chain.token_chain import preflight_of
from topup.commands import wallet_limit
from topup.commands.doctor import providers
from topup.commands.doctor.finding import Check, covering, safely, skipped
from topup.commands.doctor.providers import Chain, longest
from topup.commands.offers import CODE_REMEDY, code
from topup.domain.money import Asset, Usdc
from topup.domain.tempo import TRANSFERRED_WITH_MEMO
from topup.domain.typed_data import AUTHORIZATION_USED
from topup.payment.config import MPP, X402

# Blocks of Tempo come twice a second, of Base every other second.
BLOCK_S: Final = {MPP: 0.5, X402: 2.0}


def _chain(settings: Settings, paid: Funding, own: bytes | None, key: bytes | None) -> Chain:
    holder, token, chain_id = own or bytes(20), paid.dollar.token, paid.dollar.chain_id
    life_s = settings.rails.mpp.life_max_s if paid.rail == MPP else settings.rails.x402.life_max_s
    return Chain(
        before=f"{paid.rail} ",
        chain_id=chain_id,
        remedy=f"correct {paid.said}",
        paid=paid,
        plan=lambda rpc: preflight_of(rpc, chain_id, holder, token, (), key),
        dry=None,
        old=lambda block: balance(token, holder, block),
        logs=of_payer(token, TRANSFERRED_WITH_MEMO if paid.rail == MPP else AUTHORIZATION_USED, holder),
        blocks=longest(life_s, BLOCK_S[paid.rail]),
        lost="it cannot bear out that an authorization was never used",
        alone=(
            "one owner: payments run, but that an unused authorization is dead cannot be proven: its top-up will HALT",
            "two can prove that an authorization was never used",
        ),
    )


async def examined(settings: Settings, paid: Funding, wallet: bytes | None) -> list[Check]:
    """Look at the chain of a rail whose seller carries the payment: its providers, its dollar, and who pays."""
    own = payer(settings) if settings.rails.mpp.root is not None else wallet
    key = None if own == wallet else wallet

    async def rest(good: list[Rpc]) -> list[Check]:
        checks = await safely(f"{paid.rail} balance", _dollars(settings, good[0], paid, own, key), good[0])
        return [*checks, _seller(settings), *await _code(good, own)] if paid.rail == X402 else checks

    return await providers.examined(settings, _chain(settings, paid, own, key), (f"{paid.rail} balance",), rest)


def _seller(settings: Settings) -> Check:
    says = assembly.seller(settings).says()
    return Check("x402 seller", ok=True, says=f"{says}; `topup doctor --rail x402` shows what it offers")


async def _code(rpcs: Sequence[Rpc], own: bytes | None) -> list[Check]:
    name = "x402 signatures"
    if own is None:
        return []
    said = await code(rpcs, own)
    if said is None:
        return [Check(name, ok=True, says="unknown: no provider told the wallet's code")]
    if said:
        return [Check(name, ok=True, says=f"warning: {said}", remedy=CODE_REMEDY)]
    return [Check(name, ok=True, says="the wallet has no code: its key alone signs for it")]


async def _dollars(settings: Settings, rpc: Rpc, paid: Funding, own: bytes | None, key: bytes | None) -> list[Check]:
    name, live = f"{paid.rail} balance", settings.mode == "live"
    if own is None:
        return skipped((name,), "no wallet is known") if live else []
    now, checks = await preflight_of(rpc, paid.dollar.chain_id, own, paid.dollar.token, (), key), []
    if key is not None and now.permission is not None:
        keys = wallet_limit.Keys(own, key, paid.dollar.token)
        state = wallet_limit.State(keys, now.permission, wallet_limit.refill(settings))
        checks.append(_access_key(state, live=live))
    if paid.dollar.pays_fee:
        fee = network_fee(paid, now)
        right = fee <= paid.fee_max
        says = f"at most {paid.amount(fee)} for a payment now, the ceiling is {paid.amount(paid.fee_max)}"
        remedy = "" if right else "wait, or raise rails.mpp.network_fee_max_usd"
        checks.append(Check(f"{paid.rail} network fee", ok=right, says=says, remedy=remedy))
    each = refill_total(settings, None) + paid.fee_max
    held = now.tokens or Usdc(0)
    count = held.units // each.units
    says = f"{paid.amount(held)} on {paid.chain} covers {count} refills of at most {paid.amount(each)}, fees included"
    bridged = ", brought there by hand: topup never bridges" if paid.dollar.asset is Asset.USDC_E else ""
    remedy = f"send {paid.dollar.asset} on {paid.chain} to 0x{own.hex()}{bridged}"
    return [*checks, covering(name, count, says, remedy, live=live)]


def _access_key(state: wallet_limit.State, *, live: bool) -> Check:
    name, wrong, (unwise, remedy) = "mpp access key", state.wrong, state.unwise
    if wrong is not None:
        return Check(name, ok=not live, says=("" if live else "warning: ") + str(wrong), remedy=wrong.remedy)
    return Check(name, ok=True, says=f"warning: {state.says()}: {unwise}" if unwise else state.says(), remedy=remedy)
