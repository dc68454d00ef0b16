"""What became of a payment? Receipts whose block is canonical, and our own event in them.

A receipt alone may be a preconfirmation: it counts when the block at its height has the hash it names. Absence
proves nothing and is reported as absence. Money is read from the receipt and held against the wallet's balance
before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topup.chain.contracts import transferred
from topup.chain.rpc import Answer, Query, Rpc, RpcError, known, quantity
from topup.chain.simulation import is_payment
from topup.chain.survey import head, reason, right_chain
from topup.charge import Demand
from topup.lifecycle import Attempt, Inclusion
from topup.money import Wei
from topup.ports import Seen, Sighting


async def look(rpc: Rpc, chain_id: int, wallet: bytes, attempts: Sequence[Attempt], demand: Demand) -> Sighting:
    """Look for these attempts: one request, and a second one when a receipt turned up.

    Raises:
        WrongChain: the provider speaks for another chain.
        ChainUnknown: head, nonce or a receipt could not be read.
    """
    me = "0x" + wallet.hex()
    queries: list[Query] = [
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_getBlockByNumber", ["safe", False]),
        ("eth_getBlockByNumber", ["finalized", False]),
        ("eth_getTransactionCount", [me, "latest"]),
        ("eth_chainId", []),
        *(("eth_getTransactionReceipt", ["0x" + (a.hash or b"").hex()]) for a in attempts),
    ]
    recorded = {a.hash: a.inclusion for a in attempts if a.hash is not None and a.inclusion is not None}
    queries += [("eth_getBlockByNumber", [hex(i.block_number), False]) for i in recorded.values()]
    newest, safe, final, nonce, spoken, *rest = await rpc.batch(queries)
    right_chain(rpc, spoken, chain_id)
    receipts, blocks = rest[: len(attempts)], rest[len(attempts) :]
    seen = {}
    for attempt, answer in zip(attempts, receipts, strict=True):
        receipt: Any = known(answer, "a receipt")
        if not isinstance(receipt, dict) or not receipt.get("blockHash"):
            continue
        one = await _weigh(rpc, wallet, attempt, receipt, demand)
        if one is not None and attempt.hash is not None:
            seen[attempt.hash] = one
    return Sighting(
        head=head(known(newest, "the newest block")),
        safe=_height(safe),
        finalized=_height(final),
        finalized_s=quantity(final.get("timestamp"), "a block time") if isinstance(final, dict) else None,
        nonce_latest=quantity(known(nonce, "the nonce"), "the nonce"),
        seen=seen,
        replaced=frozenset(h for h, b in zip(recorded, blocks, strict=True) if _other(b, recorded[h])),
    )


def _other(block: Answer, recorded: Inclusion) -> bool:
    """Tell whether another block now stands at this height; a block that cannot be read proves nothing."""
    return isinstance(block, dict) and block.get("hash") != "0x" + recorded.block_hash.hex()


def _height(block: Answer) -> int | None:
    """A tag that is null, missing or an error means "not yet"."""
    return quantity(block.get("number"), "a block number") if isinstance(block, dict) else None


async def _weigh(rpc: Rpc, wallet: bytes, attempt: Attempt, receipt: dict[str, Any], demand: Demand) -> Seen | None:
    number = quantity(receipt.get("blockNumber"), "the receipt's block")
    me = "0x" + wallet.hex()
    plan = attempt.plan
    replay = {"from": me, "to": "0x" + plan.to.hex(), "data": "0x" + plan.data.hex(), "value": hex(plan.value.units)}
    block, before, after, again = await rpc.batch(
        [
            ("eth_getBlockByNumber", [hex(number), False]),
            ("eth_getBalance", [me, hex(number - 1)]),
            ("eth_getBalance", [me, hex(number)]),
            ("eth_call", [{**replay, "gas": hex(plan.gas_limit)}, hex(number)]),
        ]
    )
    if not isinstance(block, dict) or block.get("hash") != receipt["blockHash"]:
        return None  # not canonical at this height, or this provider does not know it yet
    at = head(block)
    success = quantity(receipt.get("status"), "the receipt's status") == 1
    gas = Wei(
        quantity(receipt.get("gasUsed"), "gasUsed") * quantity(receipt.get("effectiveGasPrice"), "effectiveGasPrice")
    )
    payments = [e for e in transferred(receipt, plan.to) if is_payment(e, demand)]
    spent = Wei(int(payments[0]["spentAmount"])) if success and len(payments) == 1 else Wei(0)
    told = _l1_fee(receipt)
    moved = _moved(before, after)
    l1_fee, check = _reconciled(moved, spent + gas, told, plan.l1_fee)
    inclusion = Inclusion(at.number, at.hash, at.timestamp_s * 1000, success, gas, l1_fee, spent)
    if success and len(payments) != 1:
        return Seen(inclusion, f"status 1 with {len(payments)} Transferred events of ours", check, trusted=False)
    why = ""
    if not success:
        used_up = quantity(receipt.get("gasUsed"), "gasUsed") * 100 >= plan.gas_limit * 97
        why = (
            "out of gas"
            if used_up
            else str(reason(again))
            if isinstance(again, RpcError)
            else "reverted; it would succeed now"
        )
    return Seen(inclusion, why, check, trusted=True)


def _l1_fee(receipt: dict[str, Any]) -> Wei | None:
    """Read L1 data fee and operator fee (Isthmus: gasUsed × scalar / 10^6 + constant); None when there is none."""
    if receipt.get("l1Fee") is None:
        return None
    fee = quantity(receipt["l1Fee"], "l1Fee")
    scalar, constant = receipt.get("operatorFeeScalar"), receipt.get("operatorFeeConstant")
    if scalar is not None and constant is not None:
        used = quantity(receipt.get("gasUsed"), "gasUsed")
        fee += used * quantity(scalar, "operatorFeeScalar") // 10**6 + quantity(constant, "operatorFeeConstant")
    return Wei(fee)


def _moved(before: Answer, after: Answer) -> Wei | None:
    """By how much the wallet fell over the block; None when the node has forgotten that state."""
    if isinstance(before, RpcError) or isinstance(after, RpcError):
        return None
    return Wei(quantity(before, "the balance")) - Wei(quantity(after, "the balance"))


def _reconciled(moved: Wei | None, known_cost: Wei, told: Wei | None, bound: Wei) -> tuple[Wei, str]:
    """Return the L1 fee to book, and what the wallet's balance says of the whole cost."""
    if moved is None:
        return told or Wei(0), "not verified: the node no longer has that state"
    if told is None:
        # A node that charges the fee without saying so in the receipt shows it in the balance, within its bound.
        rest = moved - known_cost
        if Wei(0) <= rest <= bound:
            return rest, "exact" if rest == Wei(0) else "exact, L1 fee read from the balance"
        return Wei(0), f"differs by {rest.units} wei"
    rest = moved - known_cost - told
    return told, "exact" if rest == Wei(0) else f"differs by {rest.units} wei"
