"""How is a moment written for a person to read, and on which day is it? In UTC, to the second."""

from datetime import UTC, date, datetime
from typing import Final

# The first second that no calendar holds: an access key may end beyond it.
END_OF_CALENDAR_S: Final = 253_402_300_800


def moment(at_s: int) -> str:
    """Write a moment given in unix seconds."""
    if at_s >= END_OF_CALENDAR_S:
        return "never"
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def span(seconds: int) -> str:
    """Write how long something lasts in words, rounded down: in the largest unit of which there are two or more."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s"
    return f"{max(0, seconds)} second{'' if seconds == 1 else 's'}"


def utc_day(at_ms: int) -> date:
    """Return the day of a moment given in unix milliseconds."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).date()
