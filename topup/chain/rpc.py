"""How is a provider asked? JSON-RPC over one kept-alive HTTP client, singly or in one batch.

A single question is never repeated here: whoever calls knows whether that is harmless. A batch is of what may be asked
twice, and where the provider allows no more it is more than one request. URLs hold keys and never appear in a message:
only the host does.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from topup.chain.capabilities import Capabilities
from topup.chain.owners import owner
from topup.chain.pieces import Pieces, Refused
from topup.document import Unreadable, read
from topup.errors import ChainError, ChainUnknown
from topup.wire.http import Client, NoAnswer

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
# Longer than a hash: whole transactions and keys, never what identifies one.
LONG_HEX: Final = re.compile(r"0x[0-9a-fA-F]{65,}")
SECRET_LENGTH_MIN: Final = 8


class RpcError(ChainError):
    """The provider answered with a JSON-RPC error object.

    Attributes:
        code: the error code; providers disagree on it, so nothing is decided on it alone.
        data: revert data when the provider gave any.
    """

    def __init__(self, code: int, message: str, data: bytes | None) -> None:
        """Keep the three parts of the error object."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


Answer = Any | RpcError
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
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep a client for `url`; nothing is sent yet. `now_s` is any clock that only goes forward."""
        self._url = url
        parts = urlsplit(url)
        self.host = parts.hostname or "?"
        # Several ports of this machine are told apart.
        self.name = parts.netloc.rpartition("@")[2]
        self.owner = owner(url)
        # Whatever is long enough to be a key and might come back in a provider's own words.
        said = (parts.username or "", parts.password or "", *re.split(r"[/?&=]", f"{parts.path}?{parts.query}"))
        self._secrets = sorted((part for part in said if len(part) >= SECRET_LENGTH_MIN), key=len, reverse=True)
        self._timeout_s = timeout_s
        self._client = Client(url, lasting=True)
        self._next_id = 0
        self.requests = 0
        self.can = Capabilities(now_s)
        self._pieces: Pieces[Answer] = Pieces(self.can, self._together, _refusal, sleep)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Ask what may be asked twice, in as few HTTP requests as the provider takes.

        An item that failed is an `RpcError` in its place.

        Raises:
            ChainUnknown: no usable answer as a whole.
        """
        try:
            # However many pieces and pauses it takes: a question has one deadline.
            async with asyncio.timeout(self._timeout_s):
                return await self._pieces.ask(queries)
        except TimeoutError:
            raise ChainUnknown(f"{self.host} did not answer within {self._timeout_s:g} s") from None

    async def _together(self, queries: Sequence[Query]) -> list[Answer]:
        """Ask everything in one HTTP request.

        Raises:
            Refused: in words about all of it.
            ChainUnknown: no usable answer as a whole.
        """
        if self.can.batch_max == 1:
            return [await self._alone(*query) for query in queries]
        first = self._next_id
        self._next_id += len(queries)
        body = [{"jsonrpc": "2.0", "id": first + n, "method": m, "params": p} for n, (m, p) in enumerate(queries)]
        document = await self._post(body)
        if isinstance(document, list) and len(document) == 1 < len(queries) and _is_error(document[0]):
            document = document[0]  # said once, in the place of the first question or of none
        if isinstance(document, dict):  # a provider that refuses the batch as a whole
            answer = self._answer(document)
            code, text = (answer.code, answer.message) if isinstance(answer, RpcError) else (0, "")
            said = document.get("error")
            more = self._shown(said["data"]) if isinstance(said, dict) and isinstance(said.get("data"), str) else ""
            raise Refused(f"{self.host} refused a batch: {answer}", code, f"{text} {more}".strip())
        if not isinstance(document, list):
            raise ChainUnknown(f"{self.host} answered a batch with {type(document).__name__}")
        numbered = [(_number(item.get("id")), item) for item in document if isinstance(item, dict)]
        answers = {n: item for n, item in numbered if n is not None}
        if len(answers) != len(queries) or len(document) != len(queries):
            raise ChainUnknown(f"{self.host} answered {len(document)} of {len(queries)} questions")
        try:
            return [self._answer(answers[first + n]) for n in range(len(queries))]
        except KeyError:
            await self.close()  # answers to earlier questions: whatever else waits on this connection is late too
            raise ChainUnknown(f"{self.host} answered questions nobody asked") from None

    async def _alone(self, method: str, params: list[Any]) -> Answer:
        try:
            return await self.ask(method, *params)
        except RpcError as error:
            return error

    async def ask(self, method: str, *params: Any) -> Any:
        """Ask one thing.

        Raises:
            RpcError: the provider answered with an error.
            ChainUnknown: no usable answer.
        """
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

    async def _post(self, body: object) -> Any:
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
        except Unreadable as error:
            raise ChainUnknown(f"{self.host} answered HTTP {heard.status} without JSON: {error}") from None

    def _answer(self, item: dict[str, Any]) -> Answer:
        error = item.get("error")
        if error is None:
            if "result" not in item:
                raise ChainUnknown(f"{self.host} answered with neither result nor error")
            return item["result"]
        if not isinstance(error, dict):
            return RpcError(0, self._shown(error), None)
        code = error.get("code")
        return RpcError(
            code if isinstance(code, int) else 0, self._shown(error.get("message")), revert_data(error.get("data"))
        )

    def _shown(self, message: object) -> str:
        # Whatever a provider says goes into the log and the ledger: no half characters, nothing that steers a terminal,
        # and no long hex, which may be the signed bytes it was sent.
        text = str(message).encode("ascii", "backslashreplace").decode()
        text = LONG_HEX.sub("0x…", "".join(c if c.isprintable() else "?" for c in text))
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text[:300]


def _number(told: object) -> int | None:
    """Return which question an answer's id names; some providers write it as text."""
    if isinstance(told, str) and re.fullmatch("0|[1-9][0-9]{0,17}", told):
        return int(told)
    return told if type(told) is int else None


def _is_error(item: object) -> bool:
    return isinstance(item, dict) and item.get("error") is not None


def _refusal(answer: Answer) -> tuple[int, str] | None:
    """Return code and words of an answer in which the provider, not a contract, refuses; None for any other."""
    if not isinstance(answer, RpcError) or answer.data is not None or "revert" in answer.message.lower():
        return None
    return answer.code, answer.message


def revert_data(data: object) -> bytes | None:
    """Find revert data in what providers put there: hex, "Reverted 0x…", or objects around it."""
    match data:
        case str():
            _, mark, digits = data.rpartition("0x")
            try:
                return bytes.fromhex(digits) if mark else None
            except ValueError:
                return None
        case {"data": inner} | {"originalError": inner} | {"result": inner}:
            return revert_data(inner)
        case _:
            return None


def quantity(value: object, what: str) -> int:
    """Read a JSON-RPC quantity.

    Raises:
        ChainUnknown: it is none; `what` names it.
    """
    # int() would also take underscores and white space.
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]+", value):
        return int(value, 16)
    raise ChainUnknown(f"{what} is {str(value)[:80]!r}, not a quantity")


def unhex(value: object, what: str) -> bytes:
    """Read JSON-RPC bytes.

    Raises:
        ChainUnknown: they are none; `what` names them.
    """
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise ChainUnknown(f"{what} is {str(value)[:80]!r}, not bytes")


def known(answer: Answer, what: str) -> Any:
    """Return an answer that has to be there.

    Raises:
        ChainUnknown: the provider answered with an error instead; `what` names the question.
    """
    if isinstance(answer, RpcError):
        raise ChainUnknown(f"{what}: {answer.message}")
    return answer
