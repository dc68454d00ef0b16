"""What does a small, true example look like? Charges, plans, inclusions and top-ups for judgement and ledger."""

import json
import random
from collections.abc import Awaitable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from eth_utils.crypto import keccak

from topup.domain.coinbase_charge import K2_PREFIX, Pins, parse, verify
from topup.domain.demand import Clocks, Request, Verified
from topup.domain.lifecycle import Inclusion, Kind, Plan, State, TopUp
from topup.domain.money import Bps, Usd, Wei
from topup.domain.nonpayment import ChargeStatus, More
from topup.sandbox.charges import Ask, Operator, Terms

NOW_S = 1_790_000_000
NOW_MS = NOW_S * 1000
ACCOUNT = "default"
PAYER = "0xac8CeB5131449e5850030737D10d1E25C6b8D80B"
WALLET = bytes.fromhex(PAYER[2:])
CHAIN_ID = 8453


async def settled(asked: Awaitable[ChargeStatus | More]) -> ChargeStatus:
    """What became of a charge, of which all was read within one pass."""
    told = await asked
    assert isinstance(told, ChargeStatus), told
    return told


def operator(seed: int = 1, terms: Terms | None = None) -> Operator:
    """An operator whose keys and ids are the same in every run."""
    return Operator(terms, random.Random(seed).randbytes)


def ask(amount: str = "10") -> Ask:
    return Ask(Decimal(amount), PAYER, CHAIN_ID, NOW_S)


def raw_of(charge: dict[str, Any]) -> bytes:
    """The answer of the API that carries this charge."""
    return json.dumps({"data": charge}).encode()


def address(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def pins_for(one: Operator, **changes: Any) -> Pins:
    """What an owner of this operator's gateway would have pinned."""
    pins = Pins(
        contract=address(one.terms.contract),
        currency=address(one.terms.currency),
        operators=frozenset({address(one.address)}),
        recipients=frozenset({address(one.terms.recipient)}),
        prefixes=frozenset({K2_PREFIX}),
        fee_ceiling=Bps(600),
        fee_part_ceiling=Bps(200),
        life_min_s=600,
        life_max_s=7 * 24 * 3600,
    )
    return replace(pins, **changes)


def request(amount: str = "10") -> Request:
    return Request(Usd.of(amount), WALLET, CHAIN_ID)


CLOCKS = Clocks(NOW_S, NOW_S)


unseen: Final = frozenset[tuple[bytes, bytes]]()


def verified(one: Operator, amount: str = "10") -> Verified:
    """An honest charge, proven."""
    demand = parse(raw_of(one.charge(ask(amount))))
    return verify(demand, request(amount), pins_for(one), CLOCKS, seen=unseen)


def plan(**changes: Any) -> Plan:
    """A payment of about 10.50 dollars at 3000 dollars for one ETH."""
    one = Plan(
        kind=Kind.PAY,
        to=b"\x03" * 20,
        data=b"\x8b\xad",
        value=Wei(3_535_000_000_000_000),
        gas_limit=300_000,
        max_fee_per_gas=Wei(10**9),
        max_priority_fee_per_gas=Wei(10**6),
        l1_fee=Wei(10**10),
        lane=0,
        nonce=7,
        chain_id=CHAIN_ID,
        quote=Wei(3_500_000_000_000_000),
        tier=500,
        eth_price_e8=3000 * 10**8,
        block_number=100,
        proof="eth_call",
    )
    return replace(one, **changes)


def inclusion(*, success: bool = True, **changes: Any) -> Inclusion:
    one = Inclusion(
        block_number=101,
        block_hash=b"\x0b" * 32,
        block_ms=NOW_MS,
        success=success,
        gas=Wei(230_000 * 10**9),
        l1_fee=Wei(9 * 10**9),
        spent=Wei(3_500_000_000_000_000 if success else 0),
    )
    return replace(one, **changes)


def topup(**changes: Any) -> TopUp:
    """A decision as the flow hands it to the ledger."""
    one = TopUp(
        id="t1",
        account=ACCOUNT,
        rail="coinbase",
        chain_id=CHAIN_ID,
        wallet=WALLET,
        state=State.DECIDED,
        amount=Usd.of(10),
        why="below_floor",
        forced=False,
        decided_ms=NOW_MS,
        moved_ms=NOW_MS,
        baseline=None,
        balance_before=Usd.of("3.21"),
        wallet_before=None,
        reason="",
        credited_ms=None,
        charges=(),
        attempts=(),
    )
    return replace(one, **changes)


def signed_bytes(label: str) -> tuple[bytes, bytes]:
    """Bytes that stand for a signed transaction, with their hash."""
    raw = b"\x02" + label.encode()
    return raw, bytes(keccak(raw))
