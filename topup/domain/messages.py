"""What is told to people and programs that are not looking, in which words, and how urgent is it?

A message is about a subject: a top-up, or an alarm. Those of one subject are told in their order. The words stand in
webhooks and never change.
"""

from enum import IntEnum, StrEnum
from typing import Final

from topup.domain.lifecycle import State
from topup.domain.reasons import AS_IT_SHOULD_BE


class Tier(IntEnum):
    """How urgent a message is; the more urgent ones go first."""

    INFO = 0  # good to know
    WARNING = 1  # somebody should look before long
    CRITICAL = 2  # the account runs dry, or money is in doubt


class MessageKind(StrEnum):
    """The stable word for a message."""

    REFILLED = "topup.refilled"
    FAILED = "topup.failed"
    HALTED = "topup.halted"
    PAID_NOT_CREDITED = "topup.paid_not_credited"
    LOW = "topup.low"
    RUNAWAY = "runaway"
    RAIL_GONE = "rail.gone"
    WALLET_LOW = "wallet.low"
    READINGS_UNKNOWN = "readings.unknown"
    TARGET_DEAD = "target.dead"
    SET_ASIDE = "message.set_aside"
    DIGEST = "digest"
    TEST = "topup.test"

    @property
    def tier(self) -> Tier:
        """How urgent it is."""
        return _CATALOGUE[self][0]

    @property
    def meaning(self) -> str:
        """What has happened, as a sentence."""
        return _CATALOGUE[self][1]


_CATALOGUE: Final = {
    MessageKind.REFILLED: (Tier.INFO, "A refill worked: it is paid, credited and in the books."),
    MessageKind.FAILED: (Tier.WARNING, "A refill ended without a payment; `reason` says why."),
    MessageKind.HALTED: (Tier.CRITICAL, "A payment needs a person: money may have moved."),
    MessageKind.PAID_NOT_CREDITED: (Tier.CRITICAL, "A payment is made, and its credits have not come."),
    MessageKind.LOW: (Tier.CRITICAL, "The balance is below the floor, and a rule forbids to buy; `reason` names it."),
    MessageKind.RUNAWAY: (Tier.CRITICAL, "Credits are used up many times faster than usual, so nothing is bought."),
    MessageKind.RAIL_GONE: (Tier.CRITICAL, "The seller has closed the way to pay."),
    MessageKind.WALLET_LOW: (Tier.CRITICAL, "The wallet does not hold what the next payment needs."),
    MessageKind.READINGS_UNKNOWN: (Tier.CRITICAL, "For long nothing believable was read of the account."),
    MessageKind.TARGET_DEAD: (Tier.WARNING, "Another target takes no messages: `target` names it."),
    MessageKind.SET_ASIDE: (Tier.WARNING, "Another target will never get a message, or several within a day."),
    MessageKind.DIGEST: (Tier.INFO, "A day or a week is over (`notify.digest`): what was bought, spent and used."),
    MessageKind.TEST: (Tier.INFO, "Somebody asked for a test: `topup notify test`."),
}
ALARMS: Final = (
    MessageKind.LOW,
    MessageKind.RUNAWAY,
    MessageKind.RAIL_GONE,
    MessageKind.WALLET_LOW,
    MessageKind.READINGS_UNKNOWN,
    MessageKind.TARGET_DEAD,
)
# What is told of a target to the others: never to itself, and nothing follows where that is not taken either.
OF_TARGETS: Final = frozenset({MessageKind.TARGET_DEAD, MessageKind.SET_ASIDE})
# What nobody is told who has not asked for it, and whoever has is told it however little urgent it is.
ASKED_FOR: Final = frozenset({MessageKind.DIGEST, MessageKind.TEST})
_OF_STATES: Final = {
    State.DONE: MessageKind.REFILLED,
    State.FAILED: MessageKind.FAILED,
    State.DROPPED: MessageKind.FAILED,
    State.HALTED: MessageKind.HALTED,
    State.UNCREDITED: MessageKind.PAID_NOT_CREDITED,
}


def of_state(state: State, reason: str) -> MessageKind | None:
    """Return what is told when a top-up comes to a state; None where nobody has to know."""
    if state is State.DROPPED and reason.partition(":")[0] in AS_IT_SHOULD_BE:
        return None
    return _OF_STATES.get(state)
