"""What was used, on which day, by which model and by which key?

Pure. A day is a UTC day, because that is what providers tell. Amounts are integers of 10^-9 dollars of credit (nano):
a provider's numbers are JSON doubles, and rounding each half to even leaves less than their own noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Activity:
    """What one model has used on one UTC day, of the whole account or of one key.

    Attributes:
        day: the UTC day.
        model: the provider's name of the model; "" where it names none.
        nano: 10^-9 dollars of credit.
        requests, prompt_tokens, completion_tokens: counts.
    """

    day: date
    model: str
    nano: int
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class ApiKey:
    """One API key of the account.

    Attributes:
        hash: what the provider calls it; no secret.
        name: what its owner calls it; may be empty.
        disabled: whether it is switched off.
        nano: what it has used in all, 10^-9 dollars of credit.
        today_nano: what it has used on the current UTC day.
    """

    hash: str
    name: str
    disabled: bool
    nano: int
    today_nano: int
