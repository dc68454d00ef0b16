"""What several tests of commands begin with."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from topup.chain import batches


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what a rate limit or a node behind has refused: it is asked again at once."""
    for name in ("PATIENCE_S", "BEHIND_S"):
        monkeypatch.setattr(batches, name, (0.0, 0.0, 0.0))


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can enter, all of its parents too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
