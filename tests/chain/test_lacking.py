"""What follows from a provider that lacks a tag, a method or a field? The payment is planned, seen and booked."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.world.stand import TOTAL, Stand, changed, failing, lie
from topup.chain.capabilities import LEARNT_S, Trouble
from topup.chain.fees import TIP_MIN, tip
from topup.chain.history import transaction
from topup.chain.preflight import NO_PENDING, preflight_of
from topup.chain.profiles import BASE
from topup.chain.rpc import Rpc
from topup.chain.rpc import RpcError as Told
from topup.domain.errors import ChainUnknown
from topup.domain.money import Wei
from topup.ports.chain import Seen
from topup.sandbox.rpc import Intercept, Next, RpcError


def tagged(tag: str) -> Callable[[list[Any]], bool]:
    return lambda params: tag in params


NO_TAG = [RpcError(-32000, "safe block not found"), RpcError(-39001, "Unknown block"), RpcError(-32602, "invalid tag")]
NO_COUNT = [
    RpcError(-32602, "pending block is not supported"),
    RpcError(-32601, "the method does not exist"),
    RpcError(-32000, "pending state is not available"),
]


def test_where_no_block_is_called_safe_a_final_one_is(sole: Stand) -> None:
    """Final implies safe: a payment settles by the final block alone, and no later than that."""
    sole.mine(80)
    assert sole.look().safe is not None
    for error in NO_TAG:
        sole.bend(0, failing("eth_getBlockByNumber", error, tagged("safe")))
        told = sole.look()
        assert told.finalized is not None
        assert told.safe == told.finalized


def test_without_a_count_of_what_is_pending_the_latest_is_taken_with_a_doubt(trio: Stand) -> None:
    """It is planned, and the doubt is told; an honest count carries none."""
    assert trio.preflight(needs=1).doubt == ""
    for error in NO_COUNT:
        trio.bend(0, failing("eth_getTransactionCount", error, tagged("pending")))
        told = trio.preflight(needs=1)
        assert (told.nonce_pending, told.doubt) == (told.nonce_latest, NO_PENDING)
    # Two of three that can are enough for the count, and no doubt is left; it stays where only one can.
    assert trio.preflight().doubt == ""
    trio.bend(1, failing("eth_getTransactionCount", NO_COUNT[0], tagged("pending")))
    assert trio.preflight().doubt == NO_PENDING


def test_a_count_that_failed_otherwise_is_unknown(sole: Stand) -> None:
    """Only an error that says so: anything else is no count, and nothing is planned."""
    for error in (RpcError(-32603, "internal error"), RpcError(-32000, "something else")):
        sole.bend(0, failing("eth_getTransactionCount", error, tagged("pending")))
        with pytest.raises(ChainUnknown, match="the pending nonce"):
            sole.preflight()


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


PAID_NOTHING: list[Any] = [{"reward": [["0x1"]]}, {"reward": []}, {"oldestBlock": "0x1"}, None]
UNREADABLE: list[Any] = [{"reward": "x"}, {"reward": [[]]}, {"reward": [["zz"]]}]
TIPS: list[tuple[Any, int | None]] = [
    ({"reward": [["0x5f5e100"], ["0x77359400"], ["0x3b9aca00"]]}, 10**9),
    *((least, TIP_MIN.units) for least in PAID_NOTHING),
    (RpcError(-32601, "method not found"), TIP_MIN.units),
    # Unknown, not free: another pass asks again.
    *((nonsense, None) for nonsense in UNREADABLE),
    (RpcError(-32603, "no"), None),
]


def test_a_tip_is_read_from_recent_blocks_where_no_method_tells_it(sole: Stand) -> None:
    """The middle of what they paid; the least that is ever tipped where they paid nothing or nobody tells."""
    for answer, wei in TIPS:
        sole.bend(0, history(answer))
        if wei is not None:
            assert sole.preflight().tip == Wei(wei), answer
        else:
            with pytest.raises(ChainUnknown):
                pytest.fail(f"{answer}: {sole.preflight()}")


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


def without(*fields: str) -> Intercept:
    """A provider whose receipts and blocks lack some fields."""
    methods = ("eth_getTransactionReceipt", "eth_getBlockByNumber")
    return lie(*methods, to=lambda told: told and {k: v for k, v in told.items() if k not in fields})


async def blind(asked: str, params: list[Any], honest: Next) -> Any:
    """One that tells neither a price of gas nor any balance."""
    if asked == "eth_getBalance":
        raise RpcError(-32000, "missing trie node")
    return await without("effectiveGasPrice", "baseFeePerGas")(asked, params, honest)


def test_what_gas_has_cost_follows_from_the_block_and_what_was_signed(pair: Stand) -> None:
    """Base fee and tip, up to the cap: to the wei what the receipt would have said, and the balance bears it out."""
    demand, attempt = pair.paid()

    def seen() -> Seen:
        return pair.look(demand, attempt, needs=1).seen[attempt.hash or b""]

    def taken_over() -> Any:
        return pair.through(lambda rpc: transaction(rpc, BASE, attempt.hash or b"", pair.wallet, 10**6))

    honest = seen()
    assert honest.wallet_check.startswith("exact")
    missing = without("effectiveGasPrice")
    for bent in (missing, lie("eth_getTransactionReceipt", to=changed(effectiveGasPrice=None))):
        pair.bend(0, bent)
        assert seen() == honest
    # The derived price is the same fact: one of two that tells none agrees with the other.
    assert attempt.hash in pair.look(demand, attempt).seen
    # It is read from the balance where the block does not tell it, within what was signed, and to the wei what left.
    pair.bend(0, without("effectiveGasPrice", "baseFeePerGas"))
    told = seen().inclusion
    assert told.gas + told.l1_fee == honest.inclusion.gas + honest.inclusion.l1_fee
    # Where nothing tells it, nothing is seen: unknown is not free, and the payment stays what it was.
    pair.bend(0, blind)
    with pytest.raises(ChainUnknown, match="what gas has cost"):
        pair.look(demand, attempt)
    # Reconciling reads the same cost of a transaction that is taken over with and without the field.
    pair.mine(2)
    pair.bend(0, None)
    inclusion = taken_over().inclusion
    pair.bend(0, missing)
    assert taken_over().inclusion == inclusion
