"""Who takes the next step of the open top-up? Preparation, then tracking, then the posting of its credits."""

from __future__ import annotations

from typing import assert_never

from topup.domain.errors import StoreError, TopupError
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.domain.reasons import Reason
from topup.payment.config import PassResult, Terms
from topup.payment.lasting import ASK
from topup.payment.posting import CreditPosting
from topup.payment.preparation import Preparation
from topup.payment.step import Ports, Step, Steps
from topup.payment.tracking import Tracking

# Steps of one pass; a life has about a dozen, and a world that flickers must not keep the watch from its readings.
STEPS_MAX = 25


class TopUpDriver(Steps):
    """Follows the one open top-up through all of its states."""

    def __init__(self, terms: Terms, ports: Ports) -> None:
        """Take the terms, and what can be reached."""
        super().__init__(terms, ports)
        self._preparation = Preparation(terms, ports)
        self._tracking = Tracking(terms, ports)
        self._posting = CreditPosting(terms, ports)

    async def stand(self) -> None:
        """At start, say when the wallet has sent more than the ledger knows."""
        await self._preparation.stand()

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
