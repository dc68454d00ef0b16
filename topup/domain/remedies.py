"""What would change that nothing is bought, where only the word for the reason is known?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from topup.domain.credits import Doubt
from topup.domain.policy import Why
from topup.domain.reasons import Reason, Worded

WORDS: Final[tuple[Worded, ...]] = (*Why, *Doubt, *Reason)
REMEDIES: Final[Mapping[str, str]] = {word.value: word.remedy for word in WORDS if word.remedy}
STATE: Final = "`topup status` says what it waits for, and `topup show` the whole of it"


def remedy(why: str) -> str:
    """Return what would change that, or where to look for what would."""
    return REMEDIES.get(why, STATE)
