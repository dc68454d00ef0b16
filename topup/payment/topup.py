"""Who takes the next step of the open top-up? Preparation, then tracking, then the posting of its credits."""

import contextlib
from typing import assert_never

from topup.domain import events
from topup.domain.errors import ChainError, StoreError, TopupError
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.domain.reasons import Reason
from topup.payment.config import PassResult, Terms
from topup.payment.lasting import ASK
from topup.payment.part import Ports
from topup.payment.posting import CreditPosting
from topup.payment.preparation import Preparation, nonce_ahead
from topup.payment.step import Step, Steps, Watch
from topup.payment.tracking import Tracking
from topup.ports.rail import sends

# Steps of one pass; a life has about a dozen, and a world that flickers must not keep the watch from its readings.
STEPS_MAX = 25


class TopUpDriver(Steps):
    """Follows the one open top-up through all of its states."""

    def __init__(self, terms: Terms, ports: Ports, watch: Watch) -> None:
        super().__init__(terms, ports, watch)
        self._preparation = Preparation(terms, ports, watch)
        self._tracking = Tracking(terms, ports, watch)
        self._posting = CreditPosting(terms, ports, watch)

    async def stand(self) -> None:
        """At start, say when the wallet has sent more than the ledger knows, before a payment is refused for it."""
        wallet = self._account.wallet
        if wallet is None or not self._limits.live or self._store.open_topup(self._account.name) is not None:
            return
        for route in self._account.routes:
            rail = self._rails(route.rail)
            if not sends(rail):
                continue
            with contextlib.suppress(ChainError):  # the passes themselves say what is wrong with the chain
                sent = (await rail.look(wallet, [])).nonce_latest
                known = self._store.next_nonce(route.chain_id, wallet)
                if sent > known:
                    error = nonce_ahead(sent, known)
                    said = events.TopUpForbidden(why=error.reason, detail=str(error), remedy=error.remedy)
                    self._say(said)

    async def follow(self, topup: TopUp) -> PassResult:
        """Take steps until the top-up ends or has to wait for the world."""
        steps = 0
        while topup.state not in TERMINAL:
            began_ms = self._clock.now()
            try:
                step = await self._step(topup)
            except StoreError:
                raise
            except TopupError as error:
                # Whoever makes the passes says at once that this one failed.
                why = type(error).__name__
                remedy = error.remedy or ASK
                self._lasting.failed(topup, why, str(error), remedy=remedy, began_ms=began_ms, said=True)
                raise
            if isinstance(step, PassResult):
                return step
            topup, steps = step, steps + 1
            if steps >= STEPS_MAX:
                return self._wait(topup, Reason.UNSTEADY, "what the chain shows keeps changing", self._pace.resend_s)
        why, remedy = self._preparation.ended(topup)
        detail = f"{topup.amount} dollars{f': {why}' if why else ''}"
        reason = topup.reason or topup.why
        return PassResult(topup.state.value, reason, detail, self._pace.poll_fastest_s, topup, remedy)

    async def _step(self, topup: TopUp) -> Step:
        match topup.state:
            case State.DECIDED | State.ASKING | State.CHARGED | State.RESERVED | State.SIGNED:
                return await self._preparation.step(topup)
            case State.SENT | State.DEATHWATCH | State.REVERTED | State.HALTED:
                return await self._tracking.step(topup)
            case State.PAID | State.UNCREDITED | State.CREDITED:
                return await self._posting.step(topup)
            case State.DONE | State.DROPPED | State.FAILED:
                raise AssertionError(f"{topup.id} has ended")
            case _:
                assert_never(topup.state)
