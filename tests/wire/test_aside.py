"""Is blocking code done aside, one piece at a time, and is nobody kept from the next one when it is done?"""

import threading

import pytest

from topup.wire.aside import Aside


async def test_the_next_piece_follows_at_once() -> None:
    """However long the thread of the one before takes to end."""
    aside = Aside()
    for n in range(2_000):
        assert await aside.run(lambda n=n: n, 60) == n  # type: ignore[misc]


async def test_while_one_hangs_there_is_no_other() -> None:
    """Nor does anybody wait for it; once it has ended there is."""
    aside, free, ended = Aside(), threading.Event(), threading.Event()

    def hangs() -> None:
        free.wait()
        ended.set()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await aside.run(hangs, 0.01)
    free.set()
    ended.wait()
    while True:
        try:
            assert await aside.run(lambda: 1, 60) == 1
        except TimeoutError:
            continue
        break
