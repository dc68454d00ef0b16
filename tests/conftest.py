"""What holds for every test: no way out of this machine, no settings of the developer's, seeds that can be repeated."""

import gc
import os
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import tiers
from tests.guard import sitecustomize as guard
from tests.tools import MISSING
from tests.world.stage import Stage, Start, low
from topup.domain.credits import DAY_MS
from topup.ports.account import Clock
from topup.sandbox import world as worlds

GUARD = Path(guard.__file__).parent

# Set while the first of pytest's processes starts, so that its workers and every process of a test inherit it.
for _name in [name for name in os.environ if name.startswith("TOPUP_") and not name.startswith("TOPUP_TEST_")]:
    del os.environ[_name]
_paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if str(GUARD) not in _paths:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(GUARD), *filter(None, _paths)])

hypothesis.settings.register_profile("topup", deadline=None, print_blob=True)
hypothesis.settings.load_profile("topup")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed here, so that it can be printed and every worker has the same."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let wait what costs too much for every day."""
    tiers.mark(items)


def pytest_collection_finish() -> None:
    """Keep what is loaded by now, which lives as long as the process, out of every search for circles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to see the same examples again."""
    return f"seed: repeat with --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.fixture(scope="session", autouse=True)
def _guard_log() -> Iterator[Path]:
    """Give each worker a file of its own, where guarded processes write what they refused."""
    with tempfile.TemporaryDirectory(prefix="topup-guard-") as folder:
        log = Path(folder) / "refused"
        log.touch()
        os.environ[guard.LOG] = str(log)
        yield log
        del os.environ[guard.LOG]


@pytest.fixture(autouse=True)
def _worlds_begin_at_noon(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no story see midnight, when books are closed, because of the hour at which it is told.

    Worlds that keep the machine's time share it with others, and begin when they begin.
    """
    noon_ms = worlds.begins_ms() // DAY_MS * DAY_MS + DAY_MS // 2
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("machine_time") is None:
            patch.setattr(worlds, "begins_ms", lambda: noon_ms)
        yield


@pytest.fixture(autouse=True)
def _only_loopback(_guard_log: Path) -> Iterator[None]:
    """Fail the test since whose predecessor anything tried to leave this machine, even if the error was caught."""
    yield
    refused = _guard_log.read_text(encoding="utf-8")
    if refused:
        os.truncate(_guard_log, 0)
        pytest.fail(f"outside loopback:\n{refused}", pytrace=False)


@pytest.fixture
def anyio_backend() -> str:
    """Run every async test on asyncio."""
    return "asyncio"


@pytest.fixture
def world() -> Iterator[worlds.World]:
    """An account below its floor, burning slowly, whose payments are posted after ten seconds."""
    with low() as made:
        yield made


@pytest.fixture
async def start(world: worlds.World, tmp_path: Path) -> AsyncIterator[Start]:
    """Start topup in this world; what still runs in the end is ended."""
    stages: list[Stage] = []

    def started(settings: dict[str, str] | None = None, *, clock: Clock | None = None, ledger: str = "") -> Stage:
        stages.append(Stage(world, tmp_path / ledger, clock or world.clock, settings or {}))
        return stages[-1]

    yield started
    for running in stages:
        await running.close()


@pytest.fixture
async def stage(start: Start) -> Stage:
    """Topup, started in this world with the world's own settings."""
    return start()


@pytest.fixture
def town(world: worlds.World, tmp_path: Path) -> Any:
    """Topup in this world with several providers; called with how many there are, and with settings."""
    from tests.world.stand import Town

    return partial(Town, world, tmp_path)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """A world of its own, well above its floor, and topup's commands in it."""
    from tests.world.served import served

    with served(tmp_path) as made:
        yield made


_skips: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count skips by what was missing."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        _skips[reason if reason.startswith(MISSING) else "for other reasons"] += 1


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the skips, after pytest's own last line."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        parts = [f"{count} {reason}" for reason, count in sorted(_skips.items())]
        print(f"skipped: {', '.join(parts) or 'none'}")
