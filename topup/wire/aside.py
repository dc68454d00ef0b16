"""How is code run that blocks, so that nobody waits for it longer than is said? In a thread that ends with the process.

A thread of asyncio's own would be waited for when the process ends, however long the other side holds it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Runs one such piece of work at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """Return what the work returns, or raise what it raises.

        Raises:
            TimeoutError: it has not ended in that time, or the one before it has not ended yet.
        """
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if ended.done():
                return  # nobody waits any more
            if error is not None:
                ended.set_exception(error)
            else:
                ended.set_result(result)  # type: ignore[arg-type]

        def labour() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            # Before it is told: whoever hears of it may come with the next piece while this thread is still ending.
            self._thread = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        thread = self._thread = threading.Thread(target=labour, daemon=True)
        thread.start()
        async with asyncio.timeout(timeout_s):
            return await ended
