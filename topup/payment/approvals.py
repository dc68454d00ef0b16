"""Does an approval outlive its charge, and how is it taken back?

The payment contract is allowed exactly one total before it takes it. When the charge dies in between, the permission
stands although nothing is due; it is set to none by a transaction of its own, once the top-up has ended. The next
purchase may overtake it at its nonce, and then sets the permission itself.
"""

from topup.domain import events
from topup.domain.errors import StoreError, TopupError
from topup.domain.lifecycle import TERMINAL, Attempt, Kind, TopUp
from topup.payment.step import Steps

# How long after a failure it is tried again, and how long unseen bytes rest before they are sent again.
AGAIN_MS = 600_000


class Revoke(Steps):
    """What is done about approvals while no top-up is open."""

    _next_ms = 0

    async def tidy(self) -> None:
        """Take back the permission that the newest approval has left, if it has left one."""
        now = self._clock.now()
        if now < self._next_ms or self._paused() or not self._limits.live:
            return
        topup = self._store.approver(self._account.name)
        if topup is None or topup.state not in TERMINAL or not stands(topup):
            return
        self._next_ms = now + AGAIN_MS
        try:
            await self._take_back(topup, now)
        except StoreError:
            raise
        except TopupError as error:
            # Nothing is due here: whatever is wrong with it must not keep a pass from looking at the account.
            self._say(events.ApprovalStands(topup_id=topup.id, detail=str(error)), hourly="revocation")

    async def _take_back(self, topup: TopUp, now: int) -> None:
        rail, out = self._wallet_rail(topup), [a for a in self._pending(topup) if revokes(a)]
        if not out:
            plan = await rail.revocation(topup)
            topup = self._store.append(topup, plan, rail.sign_revocation(plan), now)
            out = [topup.attempts[-1]]
        sent = await rail.send(topup, out[-1])
        self._store.delivered(topup, out[-1], sent, self._clock.now())


def revokes(attempt: Attempt) -> bool:
    """Tell whether this sets the permission to none."""
    return attempt.plan.kind is Kind.APPROVE and attempt.plan.tokens.units == 0


def stands(topup: TopUp) -> bool:
    """Tell whether the last thing the chain shows of this top-up's token is a permission that was not used."""
    placed = [a for a in topup.out if a.inclusion is not None and a.inclusion.success]
    touched = sorted((a for a in placed if a.plan.kind is Kind.APPROVE or a.paid), key=lambda a: (a.plan.nonce, a.id))
    return bool(touched) and touched[-1].plan.kind is Kind.APPROVE and not revokes(touched[-1])
