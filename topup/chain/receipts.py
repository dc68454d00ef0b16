"""What became of a payment? Receipts whose block is canonical, and our own event in them.

A receipt alone may be a preconfirmation: it counts when the block at its height has the hash it names. Absence
proves nothing and is reported as absence. Money is read from the receipt and held against the wallet's balance
before and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from topup.chain.blocks import HEADS, ether_query, head, heads, nonce_query, numbered, receipt_query
from topup.chain.contracts import transferred
from topup.chain.fees import fallen, l1_fee_shown, l1_fee_told, paid_per_gas
from topup.chain.preflight import reason
from topup.chain.reverts import lasting
from topup.chain.rpc import Answer, Query, Rpc, RpcError, count, known, quantity, unhexed
from topup.chain.simulation import is_payment
from topup.domain.coinbase_charge import Charge
from topup.domain.errors import ChainUnknown, Reverted
from topup.domain.lifecycle import NO_TOKENS, REPLACED_BLOCKS, Attempt, Inclusion, Kind, Plan
from topup.domain.money import Asset, Usdc, Wei
from topup.ports.chain import UNMEASURED, Head, Observation, Seen


@dataclass(frozen=True)
class ProviderObservation:
    """What one provider shows; `standing` are the hashes whose recorded block it still has at its height.

    `recorded` holds the block numbers of all hashes that were recorded before.
    """

    observation: Observation
    recorded: dict[bytes, int]
    standing: frozenset[bytes]


Sought = tuple[Attempt, Charge]


async def look(rpc: Rpc, chain_id: int, wallet: bytes, attempts: Sequence[Sought]) -> ProviderObservation:
    """Look for these attempts: one request, and a second one when a receipt turned up."""
    recorded = {a.hash: a.inclusion for a, _ in attempts if a.hash is not None and a.inclusion is not None}
    queries: list[Query] = [*HEADS, nonce_query(wallet, "latest"), *(receipt_query(a.hash or b"") for a, _ in attempts)]
    queries += [numbered(i.block_number) for i in recorded.values()]
    reach, (nonce, *rest) = heads(rpc, chain_id, await rpc.batch(queries))
    receipts, blocks = rest[: len(attempts)], dict(zip(recorded, rest[len(attempts) :], strict=True))
    with_receipt: list[tuple[Sought, dict[str, Any]]] = []
    if receipts and all(isinstance(answer, RpcError) for answer in receipts):
        known(receipts[0], "a receipt")
    for sought, answer in zip(attempts, receipts, strict=True):
        # One that fails is not seen, which says nothing; a node that fails for all of them is no witness at all.
        receipt: Any = None if isinstance(answer, RpcError) else answer
        if isinstance(receipt, dict) and receipt.get("blockHash"):
            with_receipt.append((sought, receipt))
    there = {h: unhexed(block.get("hash")) for h, block in blocks.items() if isinstance(block, dict)}
    # A block that cannot be read proves nothing: neither that it stands nor that another does.
    standing = frozenset(h for h, shown in there.items() if shown == recorded[h].block_hash)
    replaced = frozenset(h for h, shown in there.items() if shown is not None) - standing
    now, next_nonce = reach.newest, count(known(nonce, "the nonce"), "the nonce", bare=True)
    seen = await _weighed(rpc, wallet, with_receipt)
    # What was recorded, is not shown, and has its nonce still to come: looked at once more, on one block.
    doubted = {
        a.hash: a.plan.nonce
        for a, _ in attempts
        if a.hash in recorded.keys() - seen.keys()
        and recorded[a.hash].block_number < now.number
        and next_nonce <= a.plan.nonce
    }
    observation = Observation(
        head=now,
        safe=reach.safe,
        finalized=reach.final,
        finalized_s=reach.final_s,
        nonce_latest=next_nonce,
        seen=seen,
        replaced=replaced,
        unspent=await _unspent(rpc, wallet, doubted, now),
    )
    return ProviderObservation(observation, {h: inclusion.block_number for h, inclusion in recorded.items()}, standing)


async def _unspent(rpc: Rpc, wallet: bytes, doubted: dict[bytes, int], at: Head) -> frozenset[bytes]:
    """Return which of these nonces the wallet had still to use by the end of block `at`.

    Both are asked of one block: behind one address there may be nodes of which one is blocks behind the other.
    """
    if not doubted:
        return frozenset()
    block, nonce = await rpc.batch([numbered(at.number), nonce_query(wallet, at.number)])
    if not isinstance(block, dict) or head(block) != at or isinstance(nonce, RpcError):
        return frozenset()
    next_nonce = count(nonce, "the nonce")  # strictly: a bare 0x, which may be zero or nothing, takes nothing back
    return frozenset(key for key, own in doubted.items() if next_nonce <= own)


async def _weighed(rpc: Rpc, wallet: bytes, with_receipt: Sequence[tuple[Sought, dict[str, Any]]]) -> dict[bytes, Seen]:
    if not with_receipt:
        return {}
    me = "0x" + wallet.hex()
    queries: list[Query] = []
    for (attempt, _), receipt in with_receipt:
        number, plan = count(receipt.get("blockNumber"), "the receipt's block"), attempt.plan
        body = {"from": me, "to": "0x" + plan.to.hex(), "data": "0x" + plan.data.hex(), "value": hex(plan.value.units)}
        queries += [
            numbered(number),
            ether_query(wallet, number - 1),
            ether_query(wallet, number),
            ("eth_call", [{**body, "gas": hex(plan.gas_limit)}, hex(number)]),
        ]
    answers = await rpc.batch(queries)
    seen = {}
    for index, (sought, receipt) in enumerate(with_receipt):
        weighed = _weigh(sought, receipt, answers[4 * index : 4 * index + 4])
        if weighed is not None and sought[0].hash is not None:
            seen[sought[0].hash] = weighed
    return seen


def _weigh(sought: Sought, receipt: dict[str, Any], answers: Sequence[Answer]) -> Seen | None:
    (attempt, demand), (block, before, after, again) = sought, answers
    plan = attempt.plan
    if not isinstance(block, dict) or unhexed(block.get("hash")) != unhexed(receipt["blockHash"]):
        return None  # not canonical at this height, or this provider does not know it yet
    at = head(block)
    if at.number < plan.block_number - REPLACED_BLOCKS:
        return None  # it was planned later than that block was final: no such receipt can be
    success = quantity(receipt.get("status"), "the receipt's status") == 1
    used = count(receipt.get("gasUsed"), "gasUsed")
    pays = success and plan.kind is Kind.PAY
    payments = [e for e in transferred(receipt, plan.to) if is_payment(e, demand)] if pays else []
    took = int(payments[0]["spentAmount"]) if len(payments) == 1 else 0
    spent, tokens = (Wei(took), NO_TOKENS) if plan.asset is Asset.ETH else (Wei(0), Usdc(took))
    moved, l1_fee_named = fallen(before, after), l1_fee_told(receipt)
    price = paid_per_gas(receipt, block, (plan.max_fee_per_gas, plan.max_priority_fee_per_gas))
    gas = price.times(used) if price is not None else _left_for_gas(moved, spent + (l1_fee_named or Wei(0)), plan, used)
    trusted = not pays or len(payments) == 1
    if trusted:
        l1_fee, check = l1_fee_shown(moved, spent + gas, l1_fee_named, plan.l1_fee)
        why, transient = ("", True) if success else _failure(used, plan.gas_limit, again)
    else:
        # No event says what it took: whatever left beyond the fees that are told, or else all that was sent.
        l1_fee, transient = l1_fee_named or Wei(0), False
        spent, check = (plan.value, UNMEASURED) if moved is None else (moved - gas - l1_fee, "by the balance alone")
        tokens = plan.tokens
        why = f"status 1 with {len(payments)} Transferred events of ours"
    ms = at.timestamp_s * 1000
    inclusion = Inclusion(at.number, at.hash, ms, success, gas, l1_fee, spent, why, transient, tokens)
    return Seen(inclusion, why, check, trusted)


def _left_for_gas(moved: Wei | None, rest: Wei, plan: Plan, used: int) -> Wei:
    """Return what gas has cost where no price is told: what the wallet fell by beyond the rest, within what was signed.

    Raises:
        ChainUnknown: the balance is not known, or something else has changed it.
    """
    left = None if moved is None else moved - rest
    if left is None or not Wei(0) <= left <= plan.max_fee_per_gas.times(used):
        raise ChainUnknown("neither receipt nor block nor balance tells what gas has cost")
    return left


def _failure(used: int, gas_limit: int, again: Answer) -> tuple[str, bool]:
    if used * 100 >= gas_limit * 97:
        return "out of gas", True
    if not isinstance(again, RpcError):
        return "reverted; it would succeed now", True
    error = reason(again)
    return str(error), not (isinstance(error, Reverted) and lasting(error))
