"""What do all steps of a top-up share? The ports, one look at the chain, and a few words for the ledger.

A step is given a top-up as it is stored and returns it as it is stored next, or what it waits for.
"""

from dataclasses import dataclass

from topup.domain import events
from topup.domain.credits import Reading
from topup.domain.demand import Demand, Request, Verified
from topup.domain.errors import ChainError, PaymentForbidden, SettingsError
from topup.domain.lifecycle import MONEY_OUT, Attempt, Fact, Plan, TopUp
from topup.domain.money import Asset, EthPrice, Wei
from topup.domain.nonpayment import may_sign
from topup.domain.notes import Note
from topup.domain.policy import Wallet, permit
from topup.domain.reasons import Reason
from topup.domain.ways_out import ATTEST, CREDITED, LOOK
from topup.payment.config import PassResult, Terms
from topup.payment.confirmation import Confirmation
from topup.payment.lasting import Lasting
from topup.payment.monitor import Monitor
from topup.payment.part import Part, Ports
from topup.ports.chain import Observation, Preflight
from topup.ports.rail import Rail, WalletRail, sends

Step = TopUp | PassResult
# A block of Base comes every two seconds, and what is waited for in one is looked at as often.
BLOCK_S = 2


@dataclass(frozen=True)
class Watch:
    """The parts that look for all steps: at the account, at the chain, and at what does not get on."""

    monitor: Monitor
    confirmation: Confirmation
    lasting: Lasting


class Steps(Part):
    """What the parts that take steps have in common."""

    def __init__(self, terms: Terms, ports: Ports, watch: Watch) -> None:
        super().__init__(terms, ports)
        self._monitor = watch.monitor
        self._confirmation = watch.confirmation
        self._lasting = watch.lasting

    def _rail(self, topup: TopUp) -> Rail:
        rail = self._rails(topup.rail)
        if rail.chain_id != topup.chain_id:
            raise SettingsError(
                f"{topup.id} was begun on chain {topup.chain_id}, and {topup.rail} is set to {rail.chain_id}",
                remedy="set the chain back until it has ended",
            )
        return rail

    async def _look(self, topup: TopUp, *, behind: int | None = None) -> tuple[TopUp, Observation] | PassResult:
        """Look for every attempt that may be out, and store what the chain shows; nothing is concluded from absence."""
        began_ms = self._clock.now()
        try:
            looked = await self._confirmation.look(topup, behind=behind)
        except ChainError as error:
            if not error.again:
                raise
            return self._unknown(topup, str(error), began_ms)
        if topup.state in MONEY_OUT:  # before that it takes more than a look to plan a payment
            self._lasting.ended(topup)
        return looked

    def _unknown(self, topup: TopUp, detail: str, began_ms: int) -> PassResult:
        """Wait until the chain can be asked again, or believed; say what lasts."""
        self._lasting.failed(topup, Reason.CHAIN_UNKNOWN, detail, began_ms=began_ms)
        return self._wait(topup, Reason.CHAIN_UNKNOWN, detail, self._pace.resend_s)

    def _wallet_rail(self, topup: TopUp) -> WalletRail:
        """Return the rail where payments are transactions of our own wallet; where a seller carries them, forbid it."""
        rail = self._rail(topup)
        if not sends(rail):
            says = "what a seller holds cannot be taken back"
            raise PaymentForbidden(Reason.NO_CANCEL, says, remedy="wait for its deadline")
        return rail

    def _forbid(self, topup: TopUp, error: PaymentForbidden) -> PassResult:
        """Say why a payment is not permitted now: at once for each new reason, and again every hour."""
        said = {"why": error.reason, "detail": str(error), "remedy": error.remedy}
        self._say(events.PaymentForbidden(topup_id=topup.id, **said), hourly=error.reason)
        return self._wait(topup, error.reason, str(error), self._pace.poll_fastest_s, error.remedy)

    async def _prove(self, topup: TopUp) -> tuple[Verified, Preflight]:
        request, seen = self._request(topup), self._store.seen_intents(topup.id)
        return await self._rail(topup).prove(topup.answer, request, seen=seen)

    def _demand(self, topup: TopUp) -> Demand:
        return self._rail(topup).read(topup.answer)

    def _deadline_s(self, topup: TopUp) -> int:
        """Return until when the newest charge may be paid: as it says, and as was signed for it."""
        signed = [a.plan for a in topup.out if a.charge_seq == len(topup.charges)]
        if signed and all(plan.sponsored for plan in signed):  # signed for less time than the seller gives
            return max(plan.over_s for plan in signed)
        return max(self._demand(topup).deadline, *(plan.over_s for plan in signed), 0)

    def _move(self, topup: TopUp, fact: Fact, reason: str) -> TopUp:
        if fact in (Fact.EXPIRED, Fact.GIVEN_UP):
            self._say(events.ChargeGivenUp(topup_id=topup.id, seq=len(topup.charges), reason=reason))
        if fact is Fact.FAIL:
            self._say(events.TopUpFailed(topup_id=topup.id, reason=reason))
        return self._store.move(topup, fact, self._clock.now(), reason)

    def _last_reading(self) -> Reading:
        last = self._store.last_reading(self._account.name)
        assert last is not None, "nothing is bought without a reading"
        return last

    def _rule_r(self, topup: TopUp) -> None:
        forbidden = may_sign(topup, len(topup.charges))
        if forbidden is not None:
            raise PaymentForbidden(Reason.RULE_R, forbidden)

    def _permit(self, plan: Plan, verified: Verified, preflight: Preflight) -> None:
        worth = fair(plan, verified, preflight)
        wallet = Wallet(preflight.balance, preflight.tokens, preflight.permission)
        permit(plan, total=verified.total, fair=worth, wallet=wallet, ceilings=self._ceilings)

    def _pending(self, topup: TopUp) -> tuple[Attempt, ...]:
        return topup.pending(self._store.at_same_nonce(topup))

    def _new_word(self, topup: TopUp) -> str | None:
        """Return what a person said of a top-up that waits for it; what was said earlier was about something else."""
        word = self._store.new_word(topup)
        return word if word in (LOOK, ATTEST, CREDITED) else None

    def _credited(self, topup: TopUp) -> TopUp:
        """Take a person's word, which is used up already, that the credits of what was paid are there."""
        self._say(events.CreditsAttested(topup_id=topup.id, amount_usd=topup.amount))
        return self._move(topup, Fact.POSTED, "attested by hand: the credits are in the account")

    def _wait(self, topup: TopUp, why: str, detail: str, next_s: int, remedy: str = "") -> PassResult:
        return PassResult("following", str(why), detail, next_s, topup, remedy)

    def _request(self, topup: TopUp) -> Request:
        # What was carried to the chain and failed has used its place up, and so has what a lost copy of this ledger
        # signed: the next authorization takes another.
        failed = sum(1 for a in topup.out if not a.ours and a.inclusion is not None and not a.inclusion.success)
        failed += sum(charge.abandoned == Reason.AUTHORIZATION_USED for charge in topup.charges)
        proven = sum(charge.proven for charge in topup.charges)
        return Request(topup.amount, topup.wallet, topup.chain_id, f"{topup.id}/{failed}", proven)

    def _paused(self) -> bool:
        return self._store.control(self._account.name).paused


def fair(plan: Plan, verified: Verified, preflight: Preflight) -> Wei | None:
    """Return what the total is worth in ETH by the price feed; None where there is none, or dollars pay for dollars."""
    if plan.asset is not Asset.ETH or preflight.price_e8 is None:
        return None
    return EthPrice(preflight.price_e8).wei_for_up(verified.total)


def flag_name(topup: TopUp, demand: Demand) -> str:
    """Return the name under which the self-test of a contract's mark of paid charges is remembered."""
    return Note.FLAG_TESTED.of(topup.chain_id, demand.contract.hex())
