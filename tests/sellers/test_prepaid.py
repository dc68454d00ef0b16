"""Where only a balance is told: are purchases and usage told apart, and does nothing climb by itself?"""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topup.domain.credits import Posting, Reading, baseline_settled, posting
from topup.domain.money import Usd
from topup.sellers.x402_account import RISE_MIN, Prepaid
from topup.sellers.x402_profile import PROFILES
from topup.wire.http import Answered


class Told:
    """A gateway that tells these balances, one after the other."""

    base, host, requests, date = "https://h/v1", "h", 0, ""

    def __init__(self, balances: list[Decimal]) -> None:
        self._left = list(balances)

    async def ask(self, *_: Any, **__: Any) -> Answered:
        """Tell the next balance."""
        return Answered("/credits/balance", 200, (), json.dumps({"balance_usdc": str(self._left.pop(0))}).encode())


def readings(balances: list[Decimal]) -> list[Reading]:
    """What is made of these balances, ten seconds apart."""
    kept: list[Reading] = []
    world: Any = Told(balances)
    prepaid = Prepaid(
        world,
        PROFILES["plain"],
        key="k",
        login=None,
        wallet=b"",
        last=lambda: kept[-1] if kept else None,
        now_ms=lambda: 10_000 * len(kept),
    )
    for _ in balances:
        kept.append(asyncio.run(prepaid.credits()))  # noqa: PERF401 - each reading goes on from the one before
    return kept


def test_two_replicas_that_differ_by_cents_are_neither_purchase_nor_usage() -> None:
    """Asked in turn for an hour: the totals stand still, nothing passes for a posting, and the baseline is sound."""
    kept = readings([Decimal("3.00"), Decimal("3.10")] * 200)
    assert (kept[-1].total_credits, kept[-1].total_usage) == (Usd.of("3.00"), Usd.of(0))
    assert all(posting(Usd.of(3), Usd.of(10), one, 0).verdict is Posting.WAITING for one in kept)
    assert baseline_settled(kept, staleness_ms=60_000)


cents = st.integers(0, 45).map(lambda n: Decimal(n) / 100)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=40), cents)
def test_usage_is_counted_once_whatever_replica_answers(steps: list[tuple[int, bool]], apart: Decimal) -> None:
    """Real usage is counted, at most the distance between the replicas too much, and credits never rise by it."""
    true, told = Decimal(100), [Decimal(100)]
    for used, behind in steps:
        true -= Decimal(used) / 100
        told.append(true - (apart if behind else 0))
    last = readings(told)[-1]
    assert last.total_credits == Usd.of(100)
    assert Decimal(100) - true <= last.total_usage.amount <= Decimal(100) - true + apart


@given(st.integers(100, 10_000), st.integers(0, 24), cents)
def test_a_purchase_is_seen_through_usage_and_replicas(bought: int, used_percent: int, apart: Decimal) -> None:
    """Up to a quarter used between two readings, from another replica than before: it is posted."""
    amount = Decimal(bought) / 100
    used = (amount * used_percent / 100).quantize(Decimal("0.01"), rounding="ROUND_DOWN")
    kept = readings([Decimal(5) - apart, Decimal(5) - apart + amount - used])
    assert kept[-1].total_credits - kept[0].total_credits >= RISE_MIN
    assert posting(kept[0].total_credits, Usd(amount), kept[-1], 0).verdict is not Posting.WAITING


@pytest.mark.parametrize("rise", ["7.49", "2.5", "0.6"])
def test_a_rise_that_is_too_small_is_no_posting(rise: str) -> None:
    """Less than three quarters of what was bought is somebody else's purchase."""
    kept = readings([Decimal(5), Decimal(5) + Decimal(rise)])
    assert posting(kept[0].total_credits, Usd.of(10), kept[-1], 0).verdict is Posting.WAITING
