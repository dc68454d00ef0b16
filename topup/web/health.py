"""Does the process live, and does it watch the account? Answers of few words, for programs that restart or alert."""

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from topup.accounting.standing import Standing
from topup.domain.lifecycle import State
from topup.web.server import Answer

# In these a person has to look, and nothing is bought meanwhile.
_NEEDS_A_PERSON: Final = (State.HALTED, State.UNCREDITED)
UNREADABLE: Final = "ledger_unreadable"


def answer(wrong: Iterable[str]) -> Answer:
    """Return 200 where nothing is wrong; else 503, and why in words that stay."""
    why = [word for word in wrong if word]
    status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
    body = json.dumps({"status": "failing" if why else "ok", "why": why})
    return Answer(status, "application/json", body.encode() + b"\n")


def of_ledger(standing: Standing | None) -> str:
    """Say in a word what the ledger has against calling the account watched; "" for nothing."""
    if standing is None:
        return UNREADABLE
    state = standing.unfinished.state if standing.unfinished is not None else None
    return state.value if state in _NEEDS_A_PERSON else ""
