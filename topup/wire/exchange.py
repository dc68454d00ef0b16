"""What comes back when a seller is asked over HTTP? One question, one bounded answer, and what its status means.

Nothing is asked twice, no redirect is followed, and an answer that is too long or too late is none. Every failure of
the transport is `ApiUnknown`: the question may have arrived.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Never
from urllib.parse import urlsplit

from topup.domain.errors import ApiGone, ApiLimited, ApiRejected, ApiUnauthorized, ApiUnknown
from topup.domain.json_document import RAW_BYTES_MAX, Unreadable, read
from topup.wire.clean import clean
from topup.wire.http import Answered, Client, NoAnswer
from topup.wire.secrets import Masker

BODY_BYTES_MAX: Final = RAW_BYTES_MAX
RETRY_AFTER_DEFAULT_S: Final = 60
RETRY_AFTER_MAX_S: Final = 3600
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Exchange:
    """Questions to one base URL. `requests` counts them."""

    def __init__(self, base_url: str, *, timeout_s: float) -> None:
        self.base = base_url.rstrip("/")
        self._timeout_s = timeout_s
        # One question a connection: an answer written twice would wait on it and be taken for the next question's.
        self._client = Client(self.base, lasting=False)
        self.requests = 0
        # The Date header of the newest answer, so that `doctor` can hold this machine's clock against it.
        self.date = ""

    @property
    def host(self) -> str:
        """Return the host that is asked, with its port where one is named."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        bytes_max: int = BODY_BYTES_MAX,
    ) -> Answered:
        """Ask once; more than `bytes_max` is no answer. `ApiUnknown`: the question may have arrived all the same."""
        self.requests += 1
        try:
            answered = await self._client.ask(
                method,
                self.base + path,
                who=path,
                headers=headers,
                body=body,
                timeout_s=timeout_s if timeout_s is not None else self._timeout_s,
                bytes_max=bytes_max,
            )
        except NoAnswer as error:
            raise ApiUnknown(str(error)) from None
        self.date = answered.first("date")
        return answered


def fail(answered: Answered, secret: str) -> Never:
    """Raise what an answer means that is not the wanted one; `secret` is masked in what it says.

    A refusal is the API's word only where it has the shape of the API's own errors: a page, or anything else that
    stands in front of an API may write, says nothing of a key or of a purchase, whatever its status is.
    """
    word = _word(answered.body)
    if word is None:
        what = "with a page" if answered.page else "without a JSON error"
        redirect = " (a redirect, not followed)" if answered.status in REDIRECTS else ""
        raise ApiUnknown(f"{answered.who} answered {answered.status} {what}, not the API's answer{redirect}")
    said = f"{answered.who} answered {answered.status}: {clean(word, hide=Masker([secret]))}"
    match answered.status:
        case 401 | 403:
            raise ApiUnauthorized(said, remedy="put a valid management key into api.key")
        case 410:
            raise ApiGone(said, remedy="this endpoint no longer exists; use another way to buy credits")
        case 429:
            raise ApiLimited(said, retry_after_s=_retry_after(answered))
        case 503 if answered.all("retry-after"):
            raise ApiLimited(said, retry_after_s=_retry_after(answered))
        case 400 | 402 | 404 | 405 | 413 | 415 | 422:  # asking the same again cannot help
            raise ApiRejected(said, remedy="see what the API says of the request")
        case status if status in REDIRECTS:
            raise ApiUnknown(f"{said} (a redirect, not followed)")
        case _:
            raise ApiUnknown(said)


def instead(body: bytes, secret: str) -> str:
    """Return what the API says where an answer was wanted, ": " before it; "" where it says no error."""
    word = _word(body)
    return "" if word is None else f": {clean(word, hide=Masker([secret]))}"


def _word(body: bytes) -> str | None:
    """Return the sentence of an error in the API's own shape; some gateways write it without the object around it."""
    try:
        document = read(body, twice="last")
    except Unreadable:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        said = error.get("message")
        return said if isinstance(said, str) else None if said is None else "an error without a sentence"
    return error if isinstance(error, str) else None


def _retry_after(answered: Answered) -> int:
    after = answered.first("retry-after").strip()
    if after.isascii() and after.isdigit():
        return min(int(after[:9]), RETRY_AFTER_MAX_S)
    try:
        wait = parsedate_to_datetime(after) - parsedate_to_datetime(answered.first("date"))
    except (ValueError, TypeError, ArithmeticError, LookupError):  # ArithmeticError: a year beyond datetime's
        return RETRY_AFTER_DEFAULT_S
    return min(max(wait.days * 86_400 + wait.seconds, 0), RETRY_AFTER_MAX_S)


class Asked:
    """Whoever is asked through an exchange: how often that was, and when it answered last."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def requests(self) -> int:
        """Return how many HTTP requests were made so far."""
        return self._exchange.requests

    @property
    def date(self) -> str:
        """Return the Date header of the newest answer, "" without one."""
        return self._exchange.date
