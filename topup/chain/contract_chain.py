"""How does an EVM chain answer the `Chain` port? By its profile, through as many providers as have to agree."""

from collections.abc import Sequence

from eth_utils.address import to_checksum_address

from topup.chain import agreement, charge_status, preflight, receipts, simulation
from topup.chain.agreement import Agreed
from topup.chain.broadcast import Hand, broadcast, plainly
from topup.chain.contracts import encode, payment_data, token_payment_data
from topup.chain.profiles import Profile
from topup.chain.providers import Providers
from topup.chain.quorum import Quorum
from topup.chain.search import Search
from topup.domain.coinbase_charge import Charge, charge_of
from topup.domain.demand import Verified
from topup.domain.lifecycle import Attempt
from topup.domain.money import Asset, Usdc, Wei
from topup.domain.nonpayment import ChargeStatus, More
from topup.ports.chain import Call, Head, Holdings, Observation, Preflight, Sent, Simulation, Spent


class EvmChain(Quorum):
    """One chain. Reads are agreed on by enough providers, signed bytes go to all of them."""

    def __init__(self, profile: Profile, providers: Providers, search: Search | None = None) -> None:
        super().__init__(profile.chain_id, providers, search)
        self._profile = profile
        self._hand: Hand = plainly

    async def preflight(self, wallet: bytes, total: Usdc, contract: bytes, *, pay_with: Asset = Asset.ETH) -> Preflight:
        """Read all a payment is planned on, in one batch of each provider: quotes, or tokens and allowance."""
        from topup.chain.submission import submit  # loaded here, so that what is signed leaves at once

        self._hand = submit
        return await self._planned(
            "wallet or contract",
            lambda rpc: preflight.preflight_of(rpc, self._profile, wallet, total, contract, pay_with),
        )

    def payment(self, verified: Verified, tier: int, value: Wei, wallet: bytes) -> Call:
        """Encode the payment of a verified charge."""
        demand = charge_of(verified)
        return Call(wallet, demand.contract, payment_data(demand.intent, tier), value)

    def token_payment(self, verified: Verified) -> Call:
        """Encode the payment of a verified charge in its own token."""
        charge = charge_of(verified)
        return Call(charge.sender, charge.contract, token_payment_data(charge.intent), Wei(0), tokens=charge.total)

    def approval(self, wallet: bytes, contract: bytes, units: Usdc) -> Call:
        """Encode that `contract` may take exactly so much of the token; none takes it back."""
        data = encode("erc20", "approve", to_checksum_address(contract), units.units)
        return Call(wallet, self._profile.currency, data, Wei(0), approves=units)

    async def simulate(self, call: Call, demand: Charge, at: Head) -> Simulation:
        """Run the call dry on the block `at`, its effects held against the demand; Reverted gives the reason."""
        return await self._dry(lambda rpc: simulation.simulate(rpc, self._profile, call, demand, at))

    async def send(self, raw: bytes, tx_hash: bytes) -> Sent:
        """Hand signed bytes to every provider once, also to those that were set aside; never raises."""
        return await broadcast(self._providers.rpcs, raw, tx_hash, self._hand)

    async def look(
        self, wallet: bytes, attempts: Sequence[tuple[Attempt, Charge]], *, every: bool = False
    ) -> Observation:
        """Look for these attempts, each of its own charge, in canonical blocks.

        Absent from `seen` means "not seen", never "not paid". With `every`, all providers are asked and what is seen
        is what two that are independent show, whatever the quorum, where two are configured.
        """
        return await self._seen(
            "a payment's block", lambda rpc: receipts.look(rpc, self.chain_id, wallet, attempts), every=every
        )

    async def payment_status(self, demand: Charge, since: int) -> ChargeStatus | More:
        """Ask every provider whether a charge was ever paid: first how far the chain is final, then on that block.

        Logs are read from block `since` on. That may take more than one pass: `More` says how far it is.

        Raises:
            ChainUnknown: any error, null or disagreement: undecided, which is never "no".
        """
        return await self._became(
            "a charge",
            since,
            lambda rpc, final: charge_status.account(rpc, self.chain_id, demand, since, final, self._searching),
        )

    async def spent(self, wallet: bytes, number: int) -> Spent:
        """Ask every provider how many transactions a wallet had sent by the end of a block, and whether it is final.

        Raises:
            ChainUnknown: too few show the same block there.
        """
        answers = await self._providers.ask(
            lambda rpc: charge_status.spent(rpc, self.chain_id, wallet, number), every=True
        )
        needed = self._enough(answers)
        return self._joined("a block", lambda: Agreed(agreement.spent(answers, needed)))

    async def holdings(self, wallet: bytes) -> Holdings:
        """Ask every provider what a wallet holds of ETH and the token at a final block."""
        return await self._held(wallet, {Asset.USDC: self._profile.currency}, self._profile)

    async def flag(self, demand: Charge) -> bool:
        """Read the contract's own mark that this charge was paid, at the newest block."""
        answers = await self._providers.ask(
            lambda rpc: charge_status.mark(rpc, self.chain_id, demand), lambda shown: shown[0], every=True
        )
        return self._joined("the mark of a paid charge", lambda: Agreed(agreement.mark(answers)))
