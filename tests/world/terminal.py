"""What does a person see of a command on a terminal, who answers when asked?"""

import codecs
import os
import pty
import select
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests.world.served import PATIENCE_S


class Terminal:
    """A running command on a terminal of its own; `elsewhere` are those of its streams that go to another place."""

    def __init__(self, command: Sequence[object], environment: Mapping[str, str], **elsewhere: Any) -> None:
        self._here, there = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), there) | elsewhere
        words = [str(word) for word in command]
        self.process = subprocess.Popen(words, env=environment, start_new_session=True, **streams)
        os.close(there)
        self._decoder, self._heard, self._seen = codecs.getincrementaldecoder("utf-8")(), "", 0

    @property
    def shown(self) -> str:
        return self._heard.replace("\r\n", "\n")

    def _more(self) -> bool:
        """Read on; tell whether there was anything."""
        if not select.select([self._here], [], [], PATIENCE_S)[0]:
            self.process.kill()
            raise AssertionError(f"it waits for what nobody says: {self._heard}")
        try:
            part = os.read(self._here, 65536)
        except OSError:  # so Linux says that the last process has left the terminal
            part = b""
        self._heard += self._decoder.decode(part)
        return bool(part)

    def waits_for(self, words: str) -> None:
        """Read until these stand in what was shown since the last time."""
        while words not in self._heard[self._seen :]:
            assert self._more(), f"no {words!r} in {self._heard}"
        self._seen = len(self._heard)

    def ends(self, *answers: tuple[str, str]) -> int:
        """Give each answer when its question is asked; return the exit code."""
        for question, answer in answers:
            self.waits_for(question)
            os.write(self._here, f"{answer}\n".encode())
        while self._more():
            pass
        os.close(self._here)
        return self.process.wait(timeout=PATIENCE_S)
