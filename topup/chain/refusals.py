"""What does a provider's error say of the question? That it is too long, too often asked, or not served; or nothing.

By its words, and by its code where these say nothing: providers spell their limits in many ways and agree on no codes.
Whoever learns a limit from an error, splits a batch or waits asks here, so that one sentence never means two things.
"""

import re
from enum import Enum
from typing import Final


class Refusal(Enum):
    """What an error says of a question."""

    RATE = "too many questions within a time"
    RANGE = "too many blocks in one question"
    SIZE = "too much in the answer"
    OTHER = "something else"


_RATE: Final = re.compile(
    r"rate.?limit|\brate\b|too many requests|\bhttp 429\b|throttl|compute units|capacity|\bquota\b"
    r"|(?:per|a|/) ?(?:second|sec|minute|min|hour|day)\b|/ ?s\b|requests? (?:limit|count)|slow down|back ?off"
    r"|retry (?:in|after)"
)
_SIZE: Final = re.compile(
    r"response size|more than \d+ (?:results|logs|bytes)|max(?:imum)? (?:number of )?(?:results|logs)"
)
_RANGE: Final = re.compile(
    r"\brange\b|\bblocks?\b.{0,40}\b(?:limit|max|most|exceed|too)|(?:limit|max|exceed|too|only).{0,60}\bblocks?\b"
)
# Said of anything; of a question for logs it is their number.
_MUCH: Final = re.compile(r"too large|too big|query (?:timeout|timed out)|execution (?:timeout|aborted)")
# Only asks for patience where nothing else is named.
_LATER: Final = re.compile(r"try again later|\b429\b")
# Codes that only ever speak of a rate where the words say nothing; and one that is given for other things as well.
_RATE_CODES: Final = (429, -32016, -32029)
_LIMIT: Final = -32005
# A number of blocks, with the thousands set apart or as "2K"; one of results or bytes is none.
_BLOCKS: Final = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:[,_]\d{3})+|\d{1,9})(k?)\b(?! ?(?:results|logs|bytes|[mkg]i?b\b|s\b|ms\b))"
)
_BATCH: Final = re.compile(r"\bbatch|\barray\b")
_OF_ITS_SIZE: Final = re.compile(r"batch[\w ]{0,20}(size|too)|calls? in \w+ batch")
NO_BATCHES: Final = re.compile(r"support|allow|permit|disabled|forbidden|unmarshal array|expected .*object")
TOO_MANY: Final = re.compile(
    r"limit|large|big|long|many|more than|max|exceed|size|at most|only|calls? in|requests? in|entries|items"
)
# A whole batch that is called no valid request at all: the code that JSON-RPC gives to a body it does not take.
_INVALID_REQUEST: Final = -32600
_NO_METHOD: Final = -32601
_ABSENT: Final = re.compile(
    r"(method|procedure).*(not|un)[ -]?(found|supported|available|exist|allowed|implemented|known|whitelisted|enabled)"
    r"|does not exist|unknown method|unsupported method|not (supported|implemented|available)|unsupported|unavailable"
)
_BEHIND: Final = re.compile(
    r"header (for hash )?not found|block (\S+ )?(was |is )?not found|unknown block|unknown header|no such block"
    r"|could not find block|block not available|beyond (the )?(current |latest )?head"
)


def refusal(text: str, code: int = 0) -> Refusal:
    """Sort an error by its words, and by its code where these say nothing."""
    said = text.lower()
    if _RATE.search(said):
        return Refusal.RATE
    if "batch" in said:  # of a question for logs it says nothing, however large that is
        return Refusal.OTHER
    for pattern, why in ((_SIZE, Refusal.SIZE), (_RANGE, Refusal.RANGE), (_MUCH, Refusal.SIZE)):
        if pattern.search(said):
            return why
    over = "limit exceeded" in said or (code == _LIMIT and (not said or "limit" in said or "exceed" in said))
    return Refusal.RATE if over or code in _RATE_CODES or _LATER.search(said) else Refusal.OTHER


def granted(text: str, asked: int) -> int:
    """Return how many blocks to ask for after `asked` were too many: as many as the error names, else half."""
    said = text.lower()
    named = [int(re.sub(r"[,_]", "", n)) * (1000 if k else 1) for n, k in _BLOCKS.findall(said)]
    fits = [n for n in named if 0 < n < asked]
    return max(fits) if fits else max(1, asked // 2)


def speaks_of_rate(code: int, text: str) -> bool:
    """Tell whether an error only asks for patience: the same question may be answered a second later."""
    return refusal(text, code) is Refusal.RATE


def speaks_of_batches(code: int, text: str, *, whole: bool) -> bool:
    """Tell whether an error says that a batch was too large, or that there are none."""
    lowered = text.lower()
    if _RATE.search(lowered) and not _OF_ITS_SIZE.search(lowered):
        return False
    if _BATCH.search(lowered) and (whole or TOO_MANY.search(lowered) or NO_BATCHES.search(lowered)):
        return True
    return whole and code == _INVALID_REQUEST and lowered.startswith("invalid request")


def speaks_of_absence(code: int, text: str) -> bool:
    """Tell whether an error says that there is no such method or parameter here; a rate limit does not."""
    if speaks_of_rate(code, text):
        return False
    return code == _NO_METHOD or _ABSENT.search(text.lower()) is not None


def speaks_of_a_node_behind(text: str) -> bool:
    """Tell whether an error says that this node does not have the block; another of the same pool may."""
    return _BEHIND.search(text.lower()) is not None
