"""How is a moment written for a person to read? In UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

# The first second that no calendar holds: an access key may end beyond it.
END_OF_CALENDAR_S: Final = 253_402_300_800


def moment(at_s: int) -> str:
    """Write a moment given in unix seconds."""
    if at_s >= END_OF_CALENDAR_S:
        return "never"
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
