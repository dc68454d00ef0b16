"""How is a Coinbase charge bought, proven and paid? The rail of `POST /credits/coinbase`, paid in ETH.

The operator signs an intent, we pay it through the payment contract, which swaps ETH to USDC by exact output and
refunds the rest. What bounds the price is the value we send and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topup.charge import Clocks, Demand, Pins, Request, Verified, parse, verify
from topup.errors import PaymentForbidden, Reverted, SignerError
from topup.lifecycle import Attempt, Kind, Plan, TopUp
from topup.money import Bps, Wei
from topup.ports import Api, Chain, Clock, Sent, Sighting, Signer, Survey


@dataclass(frozen=True)
class Terms:
    """How payments are built. `slippage` is added to the quote; `gas_margin` to the gas estimate."""

    slippage: Bps
    gas_margin: Bps


class Coinbase:
    """The `Rail` port for Coinbase charges paid in ETH."""

    name = "coinbase"

    def __init__(
        self, api: Api, chain: Chain, signer: Signer | None, clock: Clock, pins: Callable[[], Pins], terms: Terms
    ) -> None:
        """Join the ports; `pins` is asked at each proof, because a person may pin while this runs."""
        self._api = api
        self._chain = chain
        self._signer = signer
        self._clock = clock
        self._pins = pins
        self._terms = terms

    @property
    def requests(self) -> int:
        """Return how many requests went to the chain's providers."""
        return self._chain.requests

    async def ask(self, request: Request) -> bytes:
        """Request a charge; return it raw."""
        return await self._api.charge(request)

    def read(self, raw: bytes) -> Demand:
        """Decode a stored charge without judging it."""
        return parse(raw)

    async def prove(
        self, raw: bytes, request: Request, *, seen: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Verified, Survey]:
        """Prove a charge by our clock, then by the chain's; the survey that told its time is returned beside it.

        A charge that is refused by our clock alone never causes a question to the chain.

        Raises:
            ChargeRefused: it is not what was asked for.
            ChainError: the chain's time could not be learnt.
            PaymentForbidden: the chain is in no state to pay on.
        """
        demand = parse(raw)
        used, pins = frozenset(seen), self._pins()

        def judged(chain_s: int) -> Verified:
            clocks = Clocks(chain_s, self._clock.now_ms() // 1000)
            return verify(demand, request, pins, clocks, seen=lambda operator, one: (operator, one) in used)

        early = judged(self._clock.now_ms() // 1000)
        survey = await self._chain.survey(request.sender, early.total, pins.contract)
        verified = judged(survey.head.timestamp_s)
        return verified, survey

    async def plan(self, verified: Verified, survey: Survey) -> Plan:
        """Choose the cheapest tier that simulates, and build the payment on the survey's block; nothing is signed.

        Raises:
            PaymentForbidden: no tier quotes, or every tier's simulation reverts.
            ChainError: the chain could not be asked.
        """
        wallet = verified.request.sender
        if survey.nonce_pending != survey.nonce_latest:
            raise PaymentForbidden(
                "nonce_busy",
                f"the wallet has {survey.nonce_pending - survey.nonce_latest} pending transaction(s) that are not ours",
                remedy="wait for them; the wallet must not be used by anything else",
            )
        if not survey.quotes:
            raise PaymentForbidden(
                "no_pool", "no pool quotes this payment", remedy="wait, or check chain.quoter and chain.tiers"
            )
        failed: Reverted | None = None
        for tier, quote in sorted(survey.quotes.items(), key=lambda item: item[1]):
            value = quote.plus_bps_up(self._terms.slippage)
            if survey.balance < value:
                # Told before the simulation, which on such a wallet fails without naming a reason.
                raise PaymentForbidden(
                    "wallet_low",
                    f"the wallet holds {survey.balance}, this payment alone needs {value}",
                    remedy=f"send at least {value - survey.balance} and some for fees to the wallet",
                )
            call = self._chain.payment(verified, tier, value, wallet)
            try:
                dry = await self._chain.simulate(call, verified.demand, survey.head)
            except Reverted as error:
                failed = error
                continue
            return Plan(
                kind=Kind.PAY,
                to=call.to,
                data=call.data,
                value=value,
                gas_limit=Wei(dry.gas).plus_bps_up(self._terms.gas_margin).units,
                max_fee_per_gas=survey.base_fee.times(2) + survey.tip,
                max_priority_fee_per_gas=survey.tip,
                l1_fee=dry.l1_fee,
                lane=0,
                nonce=survey.nonce_latest,
                chain_id=verified.demand.chain_id,
                quote=quote,
                tier=tier,
                eth_price_e8=survey.price_e8 or 0,
                block_number=survey.head.number,
                proof=dry.proof,
            )
        assert failed is not None
        raise PaymentForbidden("simulation", f"the payment would revert: {failed}", remedy=failed.remedy)

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        """Sign the plan.

        Raises:
            SignerError: there is no key, or it refuses.
        """
        if self._signer is None:
            raise SignerError("there is no key to sign with", remedy="set mode = live and wallet.keystore")
        return self._signer.sign_payment(plan, verified)

    async def send(self, attempt: Attempt) -> Sent:
        """Put a stored attempt on its way, byte for byte."""
        assert attempt.raw is not None
        assert attempt.hash is not None
        assert attempt.intended_ms is not None, "the intent to send is stored first"
        return await self._chain.send(attempt.raw, attempt.hash)

    async def look(self, topup: TopUp) -> Sighting:
        """Look for evidence of any attempt of this top-up that may have left."""
        charge = topup.charge
        assert charge is not None
        assert charge.raw is not None
        return await self._chain.look(topup.wallet, topup.out, parse(charge.raw))
