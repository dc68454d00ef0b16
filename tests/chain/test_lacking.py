"""What follows from a provider that lacks a tag, a method or a field? The payment is planned, seen and booked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.world.stand import TOTAL, Stand, failing, lie
from topup.chain.capabilities import LEARNT_S, Trouble
from topup.chain.fees import TIP_MIN, tip
from topup.chain.history import transaction
from topup.chain.preflight import NO_PENDING, preflight_of
from topup.chain.profiles import BASE
from topup.chain.rpc import Rpc
from topup.chain.rpc import RpcError as Told
from topup.domain.errors import ChainUnknown
from topup.domain.money import Wei
from topup.sandbox.rpc import Intercept, Next, RpcError


def tagged(tag: str) -> Callable[[list[Any]], bool]:
    return lambda params: tag in params


# -- tags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [RpcError(-32000, "safe block not found"), RpcError(-39001, "Unknown block"), RpcError(-32602, "invalid tag")],
)
def test_where_no_block_is_called_safe_a_final_one_is(error: RpcError, sole: Stand) -> None:
    """Final implies safe: a payment settles by the final block alone, and no later than that."""
    sole.mine(80)
    assert sole.look().safe is not None
    sole.bend(0, failing("eth_getBlockByNumber", error, tagged("safe")))
    told = sole.look()
    assert told.finalized is not None
    assert told.safe == told.finalized


# -- what is pending ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RpcError(-32602, "pending block is not supported"),
        RpcError(-32601, "the method does not exist"),
        RpcError(-32000, "pending state is not available"),
    ],
)
def test_without_a_count_of_what_is_pending_the_latest_is_taken_with_a_doubt(error: RpcError, sole: Stand) -> None:
    """It is planned, and the doubt is told; an honest count carries none."""
    assert sole.preflight().doubt == ""
    sole.bend(0, failing("eth_getTransactionCount", error, tagged("pending")))
    told = sole.preflight()
    assert (told.nonce_pending, told.doubt) == (told.nonce_latest, NO_PENDING)


@pytest.mark.parametrize("error", [RpcError(-32603, "internal error"), RpcError(-32000, "something else")])
def test_a_count_that_failed_otherwise_is_unknown(error: RpcError, sole: Stand) -> None:
    """Only an error that says so: anything else is no count, and nothing is planned."""
    sole.bend(0, failing("eth_getTransactionCount", error, tagged("pending")))
    with pytest.raises(ChainUnknown, match="the pending nonce"):
        sole.preflight()


def test_who_can_count_what_is_pending_is_believed_as_ever(trio: Stand) -> None:
    """Two that can are enough for the count, and no doubt is left; a doubt stays where only one can."""
    error = RpcError(-32602, "pending block is not supported")
    bent = failing("eth_getTransactionCount", error, tagged("pending"))
    trio.bend(0, bent)
    assert trio.preflight().doubt == ""
    trio.bend(1, bent)
    assert trio.preflight().doubt == NO_PENDING


# -- the tip ------------------------------------------------------------------------------------------------------

MISSING = RpcError(-32601, "the method eth_maxPriorityFeePerGas does not exist/is not available")


def history(answer: Any) -> Intercept:
    """A provider without the method for tips, whose fee history is this."""

    async def bent(asked: str, _: list[Any], honest: Next) -> Any:
        if asked == "eth_maxPriorityFeePerGas":
            raise MISSING
        if asked == "eth_feeHistory":
            if isinstance(answer, Exception):
                raise answer
            return answer
        return honest()

    return bent


@pytest.mark.parametrize(
    ("answer", "wei"),
    [
        ({"reward": [["0x5f5e100"], ["0x77359400"], ["0x3b9aca00"]]}, 10**9),
        ({"reward": [["0x1"]]}, TIP_MIN.units),
        ({"reward": []}, TIP_MIN.units),
        ({"oldestBlock": "0x1"}, TIP_MIN.units),
        (RpcError(-32601, "method not found"), TIP_MIN.units),
    ],
)
def test_a_tip_is_read_from_recent_blocks_where_no_method_tells_it(answer: Any, wei: int, sole: Stand) -> None:
    """The middle of what they paid; the least that is ever tipped where they paid nothing or nobody tells."""
    sole.bend(0, history(answer))
    assert sole.preflight().tip == Wei(wei)


@pytest.mark.parametrize(
    "answer", [{"reward": "x"}, {"reward": [[]]}, {"reward": [["zz"]]}, RpcError(-32603, "no"), None]
)
def test_a_fee_history_that_cannot_be_read_is_no_tip(answer: Any, sole: Stand) -> None:
    """Unknown, not free: another pass asks again."""
    sole.bend(0, history(answer))
    if answer is None:
        assert sole.preflight().tip == TIP_MIN
        return
    with pytest.raises(ChainUnknown):
        sole.preflight()


def test_a_missing_method_is_not_asked_for_again_within_the_hour(sole: Stand) -> None:
    """Learnt from the error that says so: the second survey asks for the history at once, an hour later not."""
    sole.bend(0, history({"reward": [["0x3b9aca00"]]}))
    now = [0.0]

    async def asked(rpc: Rpc) -> list[int]:
        requests = []
        for at in (0.0, 1.0, LEARNT_S + 1.0):
            now[0] = at
            await preflight_of(rpc, BASE, sole.wallet, TOTAL, BASE.contract)
            requests.append(rpc.requests)
        return requests

    assert sole.through(asked, now_s=lambda: now[0]) == [2, 3, 5]
    assert sole.servers[0].asked["eth_maxPriorityFeePerGas"] == 2


async def test_a_rate_limit_on_the_tip_is_no_missing_method() -> None:
    """Patience was asked for: nothing is learnt from it."""
    rpc = Rpc("http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(ChainUnknown):
        await tip(rpc, Told(-32005, "rate limit exceeded, method is not available now", None))
    assert not rpc.can.has_met(Trouble.NO_TIP)


# -- the price of gas ---------------------------------------------------------------------------------------------


def without(field: str, method: str = "eth_getTransactionReceipt") -> Intercept:
    """A provider whose receipts, or blocks, lack a field."""
    return lie(method, to=lambda told: told and {k: v for k, v in told.items() if k != field})


def both(*bent: Intercept) -> Intercept:
    async def one(asked: str, params: list[Any], honest: Next) -> Any:
        told: Awaitable[Any] | Any = honest()
        for intercept in bent:
            told = await intercept(asked, params, _constantly(told))
        return told

    return one


def _constantly(told: Any) -> Next:
    return lambda: told


@pytest.mark.parametrize("how", ["missing", "null"])
def test_what_gas_has_cost_follows_from_the_block_and_what_was_signed(how: str, sole: Stand) -> None:
    """Base fee and tip, up to the cap: to the wei what the receipt would have said, and the balance bears it out."""
    demand, attempt = sole.paid()
    honest = sole.seen(demand, attempt)
    bent = without("effectiveGasPrice")
    if how == "null":
        bent = lie("eth_getTransactionReceipt", to=lambda told: told and {**told, "effectiveGasPrice": None})
    sole.bend(0, bent)
    assert sole.seen(demand, attempt) == honest
    assert honest.wallet_check.startswith("exact")


def test_what_gas_has_cost_is_read_from_the_balance_where_the_block_does_not_tell(sole: Stand) -> None:
    """As the L1 fee is; within what was signed, and to the wei what left."""
    demand, attempt = sole.paid()
    honest = sole.seen(demand, attempt).inclusion
    sole.bend(0, both(without("effectiveGasPrice"), without("baseFeePerGas", "eth_getBlockByNumber")))
    told = sole.seen(demand, attempt).inclusion
    assert told.gas + told.l1_fee == honest.gas + honest.l1_fee


def test_where_nothing_tells_what_gas_has_cost_nothing_is_seen_of_it(sole: Stand) -> None:
    """Unknown is not free: the payment stays what it was until somebody can tell."""
    demand, attempt = sole.paid()
    gone = failing("eth_getBalance", RpcError(-32000, "missing trie node"))
    sole.bend(0, both(without("effectiveGasPrice"), without("baseFeePerGas", "eth_getBlockByNumber"), gone))
    with pytest.raises(ChainUnknown, match="what gas has cost"):
        sole.look(demand, attempt)


def test_one_of_two_that_tells_no_price_agrees_with_the_other(pair: Stand) -> None:
    """The derived price is the same fact: both show the payment in one place at one cost."""
    demand, attempt = pair.paid()
    pair.bend(0, without("effectiveGasPrice"))
    assert attempt.hash in pair.look(demand, attempt).seen


def test_a_transaction_that_is_taken_over_has_its_price_from_the_block_too(sole: Stand) -> None:
    """Reconciling reads the same cost with and without the field."""
    _, attempt = sole.paid()
    sole.mine(2)

    def read() -> Any:
        return sole.through(lambda rpc: transaction(rpc, BASE, attempt.hash or b"", sole.wallet, 10**6))

    honest = read()
    sole.bend(0, without("effectiveGasPrice"))
    assert read().inclusion == honest.inclusion
