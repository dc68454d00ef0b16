"""What does a transaction pay per gas, where a provider does not say it?

What is asked as a tip can be read from recent blocks, and what was paid from the block and from what we signed.
"""

from statistics import median_low
from typing import Any, Final

from topup.chain.capabilities import Trouble
from topup.chain.rpc import Answer, Query, Rpc, RpcError, absent, count, known, quantity
from topup.domain.errors import ChainUnknown
from topup.domain.money import Wei
from topup.ports.chain import UNMEASURED

# A wallet that is asked for less than this has nothing to tip with; Base's usual tip is a thousandth of a gwei.
TIP_MIN: Final = Wei(1_000_000)
_ASKED: Final[Query] = ("eth_maxPriorityFeePerGas", [])
# What the middle transaction of each of the last blocks has paid above the base fee.
_HISTORY: Final[Query] = ("eth_feeHistory", ["0x14", "latest", [50]])


def tip_query(rpc: Rpc) -> Query:
    """Return the question for the tip, of those that this provider answers."""
    return _HISTORY if rpc.can.has_met(Trouble.NO_TIP) else _ASKED


async def tip(rpc: Rpc, answer: Answer) -> Wei:
    """Read the answer to the question for the tip; where the method is missing ask what recent blocks have paid."""
    if absent(answer) and not rpc.can.has_met(Trouble.NO_TIP):
        rpc.can.met(Trouble.NO_TIP)
        (answer,) = await rpc.batch([_HISTORY])
    if not rpc.can.has_met(Trouble.NO_TIP):
        return Wei(quantity(known(answer, "the tip"), "the tip", bare=True))
    if absent(answer):
        return TIP_MIN  # neither is served; the base fee alone decides whether it is mined
    history = known(answer, "the fee history")
    rewards = history.get("reward") if isinstance(history, dict) else None
    if rewards is None:
        return TIP_MIN
    if not isinstance(rewards, list) or not all(isinstance(block, list) and len(block) == 1 for block in rewards):
        raise ChainUnknown(f"{rpc.host}: the fee history cannot be read")
    paid = [quantity(block[0], "a reward", bare=True) for block in rewards]
    return Wei(median_low(paid)) if paid else TIP_MIN


def paid_per_gas(receipt: dict[str, Any], block: dict[str, Any], signed: tuple[Wei, Wei]) -> Wei | None:
    """Return what a transaction paid per gas: as the receipt says, or else as block and bytes leave no choice.

    `signed` are the highest fee and the highest tip per gas that its bytes allow. None: neither says it.
    """
    told, base = receipt.get("effectiveGasPrice"), block.get("baseFeePerGas")
    if told is not None:
        return Wei(quantity(told, "effectiveGasPrice"))
    if base is None:
        return None
    return min(signed[0], Wei(quantity(base, "baseFeePerGas", bare=True)) + signed[1])


def l1_fee_told(receipt: dict[str, Any]) -> Wei | None:
    """Read L1 data fee and operator fee (Isthmus: gasUsed × scalar / 10^6 + constant); None when there is none."""
    if receipt.get("l1Fee") is None:
        return None
    fee = quantity(receipt["l1Fee"], "l1Fee")
    scalar, constant = receipt.get("operatorFeeScalar"), receipt.get("operatorFeeConstant")
    if scalar is not None and constant is not None:
        used = count(receipt.get("gasUsed"), "gasUsed")
        fee += used * quantity(scalar, "operatorFeeScalar") // 10**6 + quantity(constant, "operatorFeeConstant")
    return Wei(fee)


def fallen(before: Answer, after: Answer) -> Wei | None:
    """By how much the wallet's balance fell over a block; None when the node has forgotten that state."""
    if isinstance(before, RpcError) or isinstance(after, RpcError):
        return None
    return Wei(quantity(before, "the balance", bare=True)) - Wei(quantity(after, "the balance", bare=True))


def l1_fee_shown(moved: Wei | None, known_cost: Wei, l1_fee_named: Wei | None, bound: Wei) -> tuple[Wei, str]:
    """Return the L1 fee to book, and what the wallet's balance says of the whole cost."""
    if moved is None:
        return l1_fee_named or Wei(0), UNMEASURED
    if l1_fee_named is None:
        # A node that charges the fee without saying so in the receipt shows it in the balance, within its bound.
        rest = moved - known_cost
        if Wei(0) <= rest <= bound:
            return rest, "exact" if rest == Wei(0) else "exact, L1 fee read from the balance"
        return Wei(0), f"differs by {rest.units} wei"
    rest = moved - known_cost - l1_fee_named
    return l1_fee_named, "exact" if rest == Wei(0) else f"differs by {rest.units} wei"
