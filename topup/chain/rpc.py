"""How is a provider asked? JSON-RPC over one kept-alive HTTP client, singly or in one batch.

A single question is never repeated here: whoever calls knows whether that is harmless. A batch is of what may be asked
twice, and where the provider allows no more it is more than one request. URLs hold keys and never appear in a message:
only the host does.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from topup.chain.batches import Batches, Refused
from topup.chain.capabilities import Capabilities
from topup.chain.owners import owner
from topup.chain.refusals import speaks_of_absence
from topup.domain.errors import ChainError, ChainUnknown, PaymentForbidden, Reverted, TopupError
from topup.domain.json_document import NoJson, Unreadable, read
from topup.wire.clean import CHARS_MAX, clean
from topup.wire.http import Client, NoAnswer
from topup.wire.reading import nonsense
from topup.wire.secrets import NOTHING, Masker, of_url

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
# The largest bytes that anybody reads: a contract's code has at most 24 kB, a log's data hardly more.
BYTES_MAX: Final = 1024 * 1024
# Statuses by which a server may mean that it takes no body of this form or size, whatever its page says.
UNLIKED: Final = frozenset({400, 404, 405, 413, 414, 415, 422, 501})
# Of longer revert data only the selector is kept: it was sent to be long, not to be read.
REVERT_BYTES_MAX: Final = 16 * 1024
# No chain has so many blocks or transactions, no block so much gas.
COUNT_END: Final = 2**53
# Objects around revert data, one in the other.
REVERT_DEPTH_MAX: Final = 10
# How nodes begin, in lower case, when they say that a call was run and reverted.
REVERTS: Final = (
    "execution reverted",
    "err: execution reverted",
    "revert",  # "reverted 0x…" as well
    "transaction reverted",
    "vm exception while processing transaction: revert",
    "vm execution error",
)
_QUANTITY: Final = re.compile("0[xX][0-9a-fA-F]{1,64}")


class Nonsense(ChainUnknown):
    """The provider gave what no honest one gives, whatever it runs; once is enough to set it aside."""


class RpcError(ChainError):
    """The provider answered with a JSON-RPC error object.

    Attributes:
        code: the error code; providers disagree on it, so nothing is decided on it alone.
        data: revert data when the provider gave any.
    """

    def __init__(self, code: int, message: str, data: bytes | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


Answer = Any | RpcError
K = TypeVar("K", bound=Hashable)
Query = tuple[str, list[Any]]


class Rpc:
    """One provider: `owner` is whose it is, `requests` counts HTTP requests, of which a batch is one.

    `can` is what it was learnt to do.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        hide: Masker = NOTHING,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep a client for `url`; nothing is sent yet. `hide` masks what else it must not make us say.

        `now_s` is any clock that only goes forward.
        """
        self._url = url
        parts = urlsplit(url)
        self.host = parts.hostname or "?"
        # Several ports of this machine are told apart.
        self.name = parts.netloc.rpartition("@")[2]
        self.owner = owner(url)
        # Whatever is long enough to be a key might come back in a provider's own words.
        self._hide = (hide, Masker(of_url(url)))
        self._timeout_s = timeout_s
        self._client = Client(url, lasting=True)
        self._next_id = 0
        self.requests = 0
        self.can = Capabilities(now_s)
        self._batches: Batches[Answer] = Batches(self.can, self._together, self._alone, _refusal, sleep)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Ask what may be asked twice, in as few HTTP requests as the provider takes.

        An item that failed is an `RpcError` in its place.
        """
        return await self._patiently(queries, singly=False)

    async def named(self, queries: Mapping[K, Query]) -> dict[K, Answer]:
        """Ask a batch whose questions have names, and return each answer under that of its question."""
        return dict(zip(queries, await self.batch(list(queries.values())), strict=True))

    async def _patiently(self, queries: Sequence[Query], *, singly: bool) -> list[Answer]:
        try:
            # However many pieces and pauses it takes: a question has one deadline.
            async with asyncio.timeout(self._timeout_s):
                return await self._batches.ask(queries, singly=singly)
        except TimeoutError:
            raise ChainUnknown(f"{self.host} did not answer within {self._timeout_s:g} s") from None

    async def _together(self, queries: Sequence[Query]) -> list[Answer]:
        first = self._next_id
        self._next_id += len(queries)
        body = [{"jsonrpc": "2.0", "id": first + n, "method": m, "params": p} for n, (m, p) in enumerate(queries)]
        document = await self._post(body, batch=True)
        match document:
            case [{"error": error} as refused] if len(queries) > 1 and error is not None:
                document = refused  # said once, in the place of the first question or of none
        if isinstance(document, dict):  # a provider that refuses the batch as a whole
            answer = self._answer(document)
            code, text = (answer.code, answer.message) if isinstance(answer, RpcError) else (0, "")
            said = document.get("error")
            more = self.shown(said["data"]) if isinstance(said, dict) and isinstance(said.get("data"), str) else ""
            raise Refused(f"{self.host} refused a batch: {answer}", code, f"{text} {more}".strip())
        if not isinstance(document, list):
            raise ChainUnknown(f"{self.host} answered a batch with {type(document).__name__}")
        numbered = [(_number(item.get("id")), item) for item in document if isinstance(item, dict)]
        answers = {n: item for n, item in numbered if n is not None}
        if len(answers) != len(queries) or len(document) != len(queries):
            said = f"{self.host} answered {len(document)} of {len(queries)} questions"
            ours = answers.keys() <= set(range(first, first + len(queries)))
            few = ours and 0 < len(answers) == len(document) < len(queries)
            raise Refused(said, 0, "") if few else ChainUnknown(said)
        try:
            return [self._answer(answers[first + n]) for n in range(len(queries))]
        except KeyError:
            await self.close()  # answers to earlier questions: whatever else waits on this connection is late too
            raise ChainUnknown(f"{self.host} answered questions nobody asked") from None

    async def _alone(self, query: Query) -> Answer:
        try:
            return await self.ask(query[0], *query[1])
        except RpcError as error:
            return error

    async def read(self, method: str, *params: Any) -> Any:
        """Ask one thing that may be asked twice: where it is refused for its rate it is.

        Raises:
            RpcError: the provider answered with an error.
        """
        (answer,) = await self._patiently([(method, list(params))], singly=True)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def ask(self, method: str, *params: Any) -> Any:
        """Ask one thing, once; an RpcError where the provider answered with one."""
        # Another question may be asked while this one waits.
        asked = self._next_id
        self._next_id += 1
        document = await self._post({"jsonrpc": "2.0", "id": asked, "method": method, "params": list(params)})
        if not isinstance(document, dict) or not (document.get("id") is None or _number(document["id"]) == asked):
            await self.close()  # whatever else waits on this connection is an answer too late
            raise ChainUnknown(f"{self.host} answered another question than {method}")
        answer = self._answer(document)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def _post(self, body: object, *, batch: bool = False) -> Any:
        self.requests += 1
        try:
            heard = await self._client.ask(
                "POST",
                self._url,
                who=self.host,
                headers={},
                body=json.dumps(body, separators=(",", ":")).encode(),
                timeout_s=self._timeout_s,
                bytes_max=BODY_BYTES_MAX,
            )
        except NoAnswer as error:
            raise ChainUnknown(str(error)) from None
        try:
            return read(heard.body, twice="same")
        except NoJson:
            page = ", with a page" if heard.page else ""
            said = f"{self.host} answered HTTP {heard.status} without JSON{page}"
            if batch and heard.status in UNLIKED:
                raise Refused(said, heard.status, "") from None
            raise ChainUnknown(said) from None
        except Unreadable as error:
            raise Nonsense(f"{self.host} answered HTTP {heard.status} with {error}") from None

    def _answer(self, item: dict[str, Any]) -> Answer:
        error = item.get("error")
        if error is None:
            if "result" not in item:
                raise ChainUnknown(f"{self.host} answered with neither result nor error")
            return item["result"]
        if not isinstance(error, dict):
            return RpcError(0, self.shown(error), None)
        code = error.get("code")
        data = revert_data(error.get("data"))
        return RpcError(code if type(code) is int else 0, self.shown(error.get("message")), data)

    def shown(self, text: object, chars: int = CHARS_MAX) -> str:
        """Return what a provider has said, or what we say of it, as it may stand in log and ledger."""
        return clean(text, chars, hide=self._masked)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Read what the provider says: nothing gets further that is neither a value nor a sentence that names it.

        Raises:
            Nonsense: whatever a decoder of ours has raised about it.
        """
        try:
            yield
        except (PaymentForbidden, ChainError) as error:
            said = self.shown(error)
            named = isinstance(error, PaymentForbidden | Reverted) or self.host in said
            error.args = (said if named else self.shown(f"{self.host}: {said}"),)
            raise
        except TopupError:
            raise  # ours, such as a ledger that cannot be written: no provider said anything of it
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises says that this one gave nonsense
            raise Nonsense(f"{self.host} gave {nonsense(error)}") from None

    def _masked(self, text: str) -> str:
        for hide in self._hide:
            text = hide(text)
        return text


def _number(named: object) -> int | None:
    """Return which question an answer's id names; some providers write it as text, or as a fraction of none."""
    if isinstance(named, Decimal) and 0 <= named < COUNT_END and named == int(named):
        return int(named)
    if isinstance(named, str) and re.fullmatch("0|[1-9][0-9]{0,17}", named):
        return int(named)
    return named if type(named) is int else None


def _refusal(answer: Answer) -> tuple[int, str] | None:
    """Return code and words of an answer in which the provider, not a contract, refuses; None for any other."""
    if not isinstance(answer, RpcError) or reverted(answer):
        return None
    return answer.code, answer.message


def revert_data(data: object) -> bytes | None:
    """Find revert data in what providers put there: hex, "Reverted 0x…", or objects around it."""
    for _ in range(REVERT_DEPTH_MAX):
        match data:
            case {"data": inner} | {"originalError": inner} | {"result": inner}:
                data = inner
            case str():
                _, mark, digits = data.rpartition("0x")
                data_found = unhexed(mark + digits)
                return data_found[:4] if data_found is not None and len(data_found) > REVERT_BYTES_MAX else data_found
            case _:
                return None
    return None


def unhexed(value: object) -> bytes | None:
    """Read bytes in hex, of either case; None where these are none. Bytes are compared, never their spelling."""
    if not isinstance(value, str) or value[:2] not in ("0x", "0X"):
        return None
    try:
        octets = bytes.fromhex(value[2:])
    except ValueError:
        return None
    return octets if 2 * len(octets) + 2 == len(value) else None  # white space would be skipped


def quantity(value: object, what: str, *, bare: bool = False) -> int:
    """Read a JSON-RPC quantity of at most 256 bits; `bare` takes "0x" for zero, as some nodes write it.

    Raises:
        Nonsense: it is something else; what is only missing is unknown, and `what` names it.
    """
    # int() would also take underscores and white space.
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    if bare and value == "0x":
        return 0
    raise _no(value, what, "a quantity")


def count(value: object, what: str, *, bare: bool = False) -> int:
    """Read a quantity that counts things, as of blocks or gas; Nonsense also where there cannot be as many."""
    number = quantity(value, what, bare=bare)
    if number >= COUNT_END:
        raise Nonsense(f"{what} is {number}, more than there can be")
    return number


def unhex(value: object, what: str, size: int | None = None) -> bytes:
    """Read JSON-RPC bytes, `size` of them where that is given; Nonsense where they are something else, or too many."""
    if isinstance(value, str) and len(value) > 2 * BYTES_MAX + 2:
        raise Nonsense(f"{what} has {len(value)} characters")
    octets = unhexed(value)
    if octets is None:
        raise _no(value, what, "bytes")
    if size is not None and len(octets) != size:
        raise Nonsense(f"{what} has {len(octets)} bytes, not {size}")
    return octets


def _no(value: object, what: str, kind: str) -> ChainUnknown:
    """Say that something is not what it should be; what is missing is not yet nonsense."""
    if value in (None, "0x"):
        return ChainUnknown(f"{what} is {value!r}, not {kind}")
    shown = repr(value[:80]) if isinstance(value, str) else f"of type {type(value).__name__}"
    return Nonsense(f"{what} is {shown}, not {kind}")


def known(answer: Answer, what: str) -> Any:
    """Return an answer that has to be there and is no error; `what` names the question."""
    if isinstance(answer, RpcError):
        raise ChainUnknown(f"{what}: {answer.message}")
    return answer


def absent(answer: Answer) -> bool:
    """Tell whether a provider says that it does not serve what was asked for."""
    return isinstance(answer, RpcError) and speaks_of_absence(answer.code, answer.message)


def reverted(answer: RpcError) -> bool:
    """Tell whether a node says that a call was run and reverted: by its data, or by how its message begins.

    The same word within the sentence of whatever stands in front of the node is about something else.
    """
    return answer.data is not None or answer.message.lower().startswith(REVERTS)
