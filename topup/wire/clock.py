"""What time is it? The machine's own clock; the sandbox and the tests bring theirs."""

import time


class SystemClock:
    """The `Clock` port over this machine."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return milliseconds that only ever go forward, from an unspecified start."""
        return time.monotonic_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait; may return early only by cancellation."""
        import asyncio  # what only tells the time, as `status` does, need not load it

        await asyncio.sleep(seconds)
