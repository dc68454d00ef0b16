"""What can go wrong? The tree of errors, where each leaf says what it means for the next try.

Each class carries `exit_code` (see `Exit`) and `again` (does trying again later make sense without a person?), which
those derived from it have as well where they name none.
"""

from enum import IntEnum, StrEnum

from topup.domain.reasons import Worded


class Exit(IntEnum):
    """The exit codes of every command; stable."""

    OK = 0  # done, or nothing to do
    INTERNAL = 1  # a defect of topup; nothing was concluded from it
    USAGE = 2  # the command line or the settings; nothing was done
    PERSON = 3  # held back on purpose: a limit, a refusal, a pause; a person decides
    LATER = 4  # nothing of it is out and nobody acts on it: not learnt or not due now; trying again is safe
    MONEY_MAY_HAVE_MOVED = 5  # do not retry and do not pay by hand: the ledger follows it up
    LOW = 6  # only `check`: a top-up is due


class Money(StrEnum):
    """Whether money may have moved."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class TopupError(Exception):
    """The root; `remedy` says what a person can do."""

    exit_code: Exit = Exit.INTERNAL
    again: bool = False

    def __init_subclass__(cls, *, exit_code: Exit | None = None, again: bool | None = None) -> None:
        super().__init_subclass__()
        if exit_code is not None:
            cls.exit_code = exit_code
        if again is not None:
            cls.again = again

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class SettingsError(TopupError, exit_code=Exit.USAGE):
    """The settings are incomplete or contradict themselves; the message names the field."""


class FileAway(SettingsError, exit_code=Exit.LATER, again=True):
    """A file that the settings name is mistyped or not mounted yet, which nobody can tell apart: tried again."""


class ApiError(TopupError, exit_code=Exit.LATER, again=True):
    """The credits API did not do what was asked."""


class ApiUnknown(ApiError):
    """No usable answer, but a time-out, 5xx or garbage: nothing may be concluded from it."""


class ApiLimited(ApiError):
    """429 or 503: the API asks for patience, for so many seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ApiUnauthorized(ApiError, exit_code=Exit.PERSON, again=False):
    """401 or 403: the key is missing, wrong or of the wrong kind."""


class ApiRejected(ApiError, exit_code=Exit.PERSON, again=False):
    """400, 402, 404, 405, 413, 415 or 422: the request was understood and declined."""


class ApiGone(ApiError, exit_code=Exit.PERSON, again=False):
    """410: the endpoint does not exist any more; asking again is pointless until a person says so."""


class ChainError(TopupError, exit_code=Exit.LATER, again=True):
    """A provider or the chain behind it."""


class ChainUnknown(ChainError):
    """No usable answer: nothing may be concluded from it."""


class WrongChain(ChainError, exit_code=Exit.PERSON, again=False):
    """A provider answers for another chain id than the one configured."""


class Reverted(ChainError):
    """A call was executed and reverted; `name` is the error's as the contract declares it, "" when unknown.

    `detail` are its arguments in words, `data` is the raw revert data.
    """

    def __init__(self, name: str, detail: str, data: bytes, *, remedy: str = "") -> None:
        super().__init__(f"{name or 'revert'}{': ' if detail else ''}{detail}", remedy=remedy)
        self.name = name
        self.detail = detail
        self.data = data


class ChargeRefused(TopupError, exit_code=Exit.PERSON):
    """A charge is not what was asked for; `field` is what gave it away, such as `call_data.recipient`."""

    def __init__(self, field: str, was: str, should_be: str, *, remedy: str = "") -> None:
        super().__init__(f"{field} is {was}, it should be {should_be}", remedy=remedy)
        self.field = field
        self.was = was
        self.should_be = should_be


class PaymentForbidden(TopupError, exit_code=Exit.PERSON, again=True):
    """A proven charge may not be paid now: price, fees, wallet, or a rule of the policy.

    Without a remedy of its own it has that of the reason's word.
    """

    def __init__(self, reason: Worded, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=reason.remedy if remedy is None else remedy)
        self.reason = reason.value


class SignerError(TopupError, exit_code=Exit.PERSON):
    """The key cannot be used, or was asked to sign what it must not."""


class MemoryShort(SignerError, exit_code=Exit.LATER, again=True):
    """Opening the key takes more memory than there is now."""


class StoreError(TopupError, exit_code=Exit.PERSON):
    """The ledger cannot be relied on; nothing is spent."""


class StoreBusy(StoreError, exit_code=Exit.LATER, again=True):
    """Another topup holds this ledger."""


class StoreFenced(StoreError):
    """Another topup has taken this ledger over; this process must stop."""


class StoreUnusable(StoreError):
    """The ledger is newer than this program, damaged, full or read-only.

    Where `passing` is set it is not the ledger but its disk, and trying again may help.
    """

    def __init__(self, message: str, *, remedy: str = "", passing: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        if passing:
            self.exit_code, self.again = Exit.LATER, True
