"""Who takes webhooks and pings? A server on loopback that keeps what it is told, and refuses as it is asked to."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from topup.sandbox.http import Raw, Request, Response, Server


@dataclass
class Receiver:
    """`taken` are the requests that were answered with success, `heard` all; `answers` decides a request's status."""

    url: str = ""
    heard: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)
    answers: Callable[[Request], int] = lambda _: 204

    async def answer(self, request: Request) -> Response | Raw:
        self.heard.append(request)
        status = self.answers(request)
        if status < 300:
            self.taken.append(request)
        return Response(status)

    def documents(self) -> list[dict[str, Any]]:
        """Return the bodies that were taken, in their order."""
        return [json.loads(request.body) for request in self.taken]

    def kinds(self) -> list[str]:
        return [str(document["type"]) for document in self.documents()]

    def pings(self) -> list[str]:
        """Return the last part of the path of each ping."""
        return [request.path.rpartition("/")[2] for request in self.taken]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen in a thread of its own."""
    receiver, ready, ended = Receiver(), threading.Event(), threading.Event()

    async def live() -> None:
        server = Server(receiver.answer)
        await server.start()
        receiver.url = server.url
        ready.set()
        await asyncio.to_thread(ended.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield receiver
    finally:
        ended.set()
        thread.join(timeout=30)
