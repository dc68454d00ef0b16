"""How is a Coinbase charge bought, proven and paid? The rail of `POST /credits/coinbase`, paid in ETH or USDC.

The operator signs an intent, we pay it through the payment contract. It swaps ETH to USDC by exact output and refunds
the rest; what bounds the price is the value we send and nothing else. Or it takes the USDC itself, of which it was
allowed exactly the total before, by a transaction of its own.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from topup.domain.coinbase_charge import Charge, Pins, charge_of, parse, verify
from topup.domain.demand import Clocks, Request, Verified
from topup.domain.errors import ChainUnknown, ChargeRefused, PaymentForbidden, Reverted
from topup.domain.lifecycle import NO_TOKENS, REPLACED_BLOCKS, Attempt, Broadcaster, Kind, Plan, TopUp
from topup.domain.money import Asset, Bps, Wei
from topup.domain.nonpayment import ChargeStatus, More
from topup.domain.policy import must_hold
from topup.domain.reasons import Reason
from topup.ports.account import Api, Clock
from topup.ports.chain import Call, Chain, Observation, Preflight, Sent, Simulation, Spent
from topup.ports.signer import Signer
from topup.sellers.on_chain import REPEATED, OnChain, unreadable
from topup.wire.reading import walled
from topup.wire.secrets import NOTHING, Masker

# What a transfer without data costs (Ethereum yellow paper, appendix G: G_transaction).
CANCEL_GAS = 21_000


@dataclass(frozen=True)
class Terms:
    """How payments are built.

    `slippage` is added to the quote, `gas_margin` to the gas estimate, `bump` to both fees of what is outbid; what
    outbids costs at most `bump_times_max` times what the chain asks now. `pay_with` is ETH or USDC.
    """

    slippage: Bps
    gas_margin: Bps
    bump: Bps
    bump_times_max: int
    pay_with: Asset = Asset.ETH


class Coinbase(OnChain[Chain, Charge]):
    """The `Rail` port for Coinbase charges."""

    broadcaster = Broadcaster.US

    def __init__(
        self,
        api: Api,
        chain: Chain,
        signer: Signer | None,
        clock: Clock,
        pins: Callable[[], Pins],
        terms: Terms,
        *,
        ours: Masker = NOTHING,
    ) -> None:
        """Join the ports; `pins` is asked at each proof, because a person may pin while this runs.

        `ours` knows the secrets that no answer may hold which is kept as it came.
        """
        self._api = api
        super().__init__(chain, signer, clock)
        self._pins = pins
        self._terms = terms
        self._ours = ours

    async def ask(self, request: Request) -> bytes:
        raw = await self._api.charge(request)
        if self._ours.holds(raw):  # it would be kept, shown and handed on
            raise ChargeRefused("answer", "one that repeats a secret of ours", "free of them", remedy=REPEATED)
        return raw

    @walled("the answer", unreadable)
    def read(self, raw: bytes) -> Charge:
        return parse(raw)

    def _verified(
        self, demand: Charge, request: Request, clocks: Clocks, seen: Collection[tuple[bytes, bytes]]
    ) -> Verified:
        return verify(demand, request, self._pins(), clocks, seen=seen)

    async def _preflight(self, demand: Charge, request: Request) -> Preflight:
        pays = self._terms.pay_with
        return await self._chain.preflight(request.sender, demand.total, self._pins().contract, pay_with=pays)

    async def plan(
        self, verified: Verified, preflight: Preflight, over: Sequence[Attempt] = (), *, bump: bool = False
    ) -> Plan:
        """Build the next transaction on the preflight's block, simulated; nothing is signed.

        Of ETH, the cheapest tier that simulates. Of USDC, the payment where the contract may take exactly the total,
        else the approval of it: each is an attempt of its own, and the second is planned when the first is included.
        What it outbids stands at the same nonce, so that one at most of them is mined.
        """
        wallet = verified.request.sender
        pending = preflight.nonce_pending - preflight.nonce_latest - len({a.nonce_slot for a in over})
        if pending > 0:
            raise PaymentForbidden(
                Reason.NONCE_BUSY,
                f"the wallet has {pending} pending transaction(s) that are not ours",
                remedy="wait for them; the wallet must not be used by anything else",
            )
        fee, tip = self._fees(preflight, over, bump=bump)
        if self._terms.pay_with is not Asset.ETH:
            return await self._plan_tokens(verified, preflight, fee, tip)
        if not preflight.quotes:
            raise PaymentForbidden(
                Reason.NO_POOL, "no pool quotes this payment", remedy="wait, or check chain.quoter and chain.tiers"
            )
        failed: Reverted | None = None
        for tier, quote in sorted(preflight.quotes.items(), key=lambda item: item[1]):
            value = quote.plus_bps_up(self._terms.slippage)
            # Told before the simulation, which on such a wallet fails without naming a reason.
            must_hold(preflight.balance, value, "this payment alone needs", where="and some for fees to the wallet")
            call = self._chain.payment(verified, tier, value, wallet)
            try:
                dry = await self._chain.simulate(call, charge_of(verified), preflight.head)
            except Reverted as error:
                failed = error
                continue
            plan = self._plan(call, dry, preflight, fee, tip, verified.demand.chain_id)
            return replace(plan, quote=quote, tier=tier)
        assert failed is not None
        raise PaymentForbidden(Reason.SIMULATION, f"the payment would revert: {failed}", remedy=failed.remedy)

    async def _plan_tokens(self, verified: Verified, preflight: Preflight, fee: Wei, tip: Wei) -> Plan:
        """Plan the payment in USDC, or what has to be allowed before it."""
        charge, held = charge_of(verified), preflight.tokens or NO_TOKENS
        must_hold(held, charge.total, "this payment needs")
        pays = preflight.allowance == charge.total
        if pays:
            call = self._chain.token_payment(verified)
        else:
            # Before an approval is paid for, the payment has to be possible: what would stop it costs nothing then.
            allow = self._chain.approval(charge.sender, charge.contract, charge.total)
            call = replace(allow, then=self._chain.token_payment(verified))
        try:
            dry = await self._chain.simulate(call, charge, preflight.head)
        except Reverted as error:
            raise PaymentForbidden(Reason.SIMULATION, f"it would revert: {error}", remedy=error.remedy) from error
        plan = self._plan(call, dry, preflight, fee, tip, charge.chain_id)
        return replace(plan, kind=Kind.PAY if pays else Kind.APPROVE, asset=Asset.USDC, tokens=charge.total)

    def _plan(self, call: Call, dry: Simulation, preflight: Preflight, fee: Wei, tip: Wei, chain_id: int) -> Plan:
        return Plan(
            kind=Kind.PAY,
            to=call.to,
            data=call.data,
            value=call.value,
            gas_limit=Wei(dry.gas).plus_bps_up(self._terms.gas_margin).units,
            max_fee_per_gas=fee,
            max_priority_fee_per_gas=tip,
            l1_fee=dry.l1_fee,
            lane=0,
            nonce=preflight.nonce_latest,
            chain_id=chain_id,
            eth_price_e8=preflight.price_e8 or 0,
            block_number=preflight.head.number,
            proof=dry.proof,
        )

    def _fees(self, preflight: Preflight, over: Sequence[Attempt], *, bump: bool) -> tuple[Wei, Wei]:
        """Return highest fee and tip per gas: what the chain asks, or as much as it takes to outbid `over`.

        The relative ceiling is for bumps, where what is out goes on without one. What is dead goes nowhere: it has to
        be outbid at any price that the ceilings on a payment allow.
        """
        asked = preflight.base_fee.times(2) + preflight.tip
        fee, tip = asked, preflight.tip
        for attempt in (a for a in over if a.plan.nonce == preflight.nonce_latest):
            fee = max(fee, attempt.plan.max_fee_per_gas.plus_bps_up(self._terms.bump))
            tip = max(tip, attempt.plan.max_priority_fee_per_gas.plus_bps_up(self._terms.bump))
        if bump and fee > asked.times(self._terms.bump_times_max):
            raise PaymentForbidden(
                Reason.BUMP_CEILING,
                f"outbidding takes {fee.units} wei per gas, more than {self._terms.bump_times_max} x {asked.units}",
                remedy="nothing: what is out is sent again as it is; see fees.bump_times_max",
            )
        return fee, tip

    def cancel(self, topup: TopUp, over: Sequence[Attempt]) -> Plan:
        """Plan a transaction to the wallet itself that takes the nonce of these attempts and moves nothing.

        It asks nobody anything, so that nothing that is wrong with prices, pools or the contract can stand in its way.
        """
        newest = over[-1].plan
        return replace(
            newest,
            kind=Kind.CANCEL,
            to=topup.wallet,
            data=b"",
            value=Wei(0),
            asset=Asset.ETH,
            tokens=NO_TOKENS,
            gas_limit=CANCEL_GAS,
            max_fee_per_gas=max(a.plan.max_fee_per_gas for a in over).plus_bps_up(self._terms.bump),
            max_priority_fee_per_gas=max(a.plan.max_priority_fee_per_gas for a in over).plus_bps_up(self._terms.bump),
            proof="",
        )

    def sign(self, plan: Plan, verified: Verified) -> tuple[bytes, bytes]:
        return self._key().sign_payment(plan, verified)

    def sign_cancel(self, plan: Plan) -> tuple[bytes, bytes]:
        return self._key().sign_cancel(plan)

    def sign_revocation(self, plan: Plan) -> tuple[bytes, bytes]:
        return self._key().sign_revocation(plan)

    async def revocation(self, topup: TopUp) -> Plan:
        """Plan that the contract may take none of the wallet's USDC any more, where nothing else of its is out."""
        # Whom it names was proven when it was signed; a later charge may be unanswered, or of anybody.
        approvals = [a for a in topup.out if a.plan.kind is Kind.APPROVE and a.inclusion is not None]
        if not approvals:
            raise PaymentForbidden(Reason.NO_APPROVAL, f"{topup.id} has approved nothing", remedy="")
        if self._key().address != topup.wallet:
            raise PaymentForbidden(
                Reason.OTHER_WALLET,
                f"the permission is that of the wallet 0x{topup.wallet.hex()}, whose key this is not",
                remedy="take it back with that wallet's key, or move its USDC away",
            )
        charge = _demand(topup, approvals[-1].charge_seq)
        preflight = await self._chain.preflight(topup.wallet, charge.total, charge.contract, pay_with=Asset.USDC)
        if preflight.allowance == NO_TOKENS:
            raise PaymentForbidden(Reason.NO_APPROVAL, "nothing is allowed", remedy="")
        if preflight.nonce_pending != preflight.nonce_latest:
            raise PaymentForbidden(Reason.NONCE_BUSY, "the wallet has pending transactions", remedy="wait for them")
        call = self._chain.approval(topup.wallet, charge.contract, NO_TOKENS)
        dry = await self._chain.simulate(call, charge, preflight.head)
        fee, tip = self._fees(preflight, (), bump=False)
        return replace(self._plan(call, dry, preflight, fee, tip, charge.chain_id), kind=Kind.APPROVE, asset=Asset.USDC)

    async def send(self, topup: TopUp, attempt: Attempt) -> Sent:
        assert attempt.raw is not None
        assert attempt.hash is not None
        assert attempt.intended_ms is not None, "the intent to send is stored first"
        return await self._chain.send(attempt.raw, attempt.hash)

    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[TopUp, Attempt]], *, every: bool = False
    ) -> Observation:
        sought = [(a, _demand(topup, a.charge_seq)) for topup, a in attempts]
        return await self._chain.look(wallet, sought, every=every)

    async def payment_status(self, topup: TopUp, charge_seq: int) -> ChargeStatus | More:
        """Ask whether a charge was ever paid, from well before the block on which its first payment was planned."""
        planned = min((a.plan.block_number for a in topup.out if a.charge_seq == charge_seq), default=None)
        if planned is None:
            raise ChainUnknown(f"nothing of charge {charge_seq} was ever sent")
        return await self._chain.payment_status(_demand(topup, charge_seq), max(0, planned - REPLACED_BLOCKS))

    async def spent(self, wallet: bytes, number: int) -> Spent:
        return await self._chain.spent(wallet, number)

    async def flag(self, topup: TopUp, charge_seq: int) -> bool:
        return await self._chain.flag(_demand(topup, charge_seq))


def _demand(topup: TopUp, charge_seq: int) -> Charge:
    return parse(topup.answered(charge_seq))
