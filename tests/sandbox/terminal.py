"""How is `topup sandbox` used from a terminal, and from another beside a world that it serves?"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.world.served import TOPUP, ran


def command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a topup command with a bare environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOPUP_")}
    return ran([*TOPUP, *arguments], kept | (env or {}), 90)


@contextmanager
def served(options: list[str]) -> Iterator[dict[str, str]]:
    """A world that is kept up, and the environment it prints."""
    world = subprocess.Popen([*TOPUP, "sandbox", *options, "--serve"], stdout=subprocess.PIPE, text=True)
    assert world.stdout is not None
    try:
        env = {}
        for line in world.stdout:
            if line.startswith("#"):
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            env[name] = value.strip("'")
        yield env
    finally:
        world.send_signal(signal.SIGTERM)
        assert world.wait(timeout=20) == 0
        world.stdout.close()
