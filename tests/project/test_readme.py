"""Does the README tell the truth? Every command in it runs, and its numbers are the program's own."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests import tools
from tests.picture import PICTURE
from tests.world.stories_foreign import STORIES
from topup.app.settings import Settings
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

README = (tools.ROOT / "README.md").read_text(encoding="utf-8")
GUARANTEES = (tools.ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
SERVICE = (tools.ROOT / "docs" / "service.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- ([a-z: ]+) -->\n)?```sh\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A world at the machine's own pace, and the environment of a user who works in it."""
    place = tmp_path_factory.mktemp("user")
    with World(embedded, conduct=Conduct(posting_delay_ms=500)) as world:
        yield world.environment() | {
            "PATH": "/usr/bin:/bin",  # the README itself says how topup comes onto it
            "HOME": str(place),
            "TOPUP_STATE_DIR": str(place / "state"),
            "TOPUP_CONFIG": "/dev/null",
            "TOPUP_WATCH__STALENESS_S": "0",
            "TOPUP_POSTING__POLL_S": "1",
        }


@pytest.mark.slow
def test_every_served_command_of_the_readme_succeeds(environment: dict[str, str]) -> None:
    """In one shell, one after the other, each exits 0 against a served world; the page on the service goes on there."""
    blocks = [block for mark, block in [*BLOCKS, *BLOCK.findall(SERVICE)] if mark == "test: served"]
    script = "".join([f'export PATH="{tools.BIN}:$PATH"\n', *blocks])
    done = tools.shell(script, environment, "-evc")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "topup reconcile" in done.stderr, "the last line was reached"


@pytest.mark.slow
def test_the_readme_leads_to_settings_that_work(environment: dict[str, str], tmp_path: Path) -> None:
    """With an empty home and a key in a file; where the gateway and the chain are is all that is added here."""
    (tmp_path / "management.key").write_text(environment["TOPUP_API__KEY"], encoding="utf-8")
    (tmp_path / "management.key").chmod(0o600)
    (block,) = [block for mark, block in BLOCKS if mark == "test: init"]
    here = f"--api-url {environment['TOPUP_API__URL']}", f"--rpc-url {environment['TOPUP_CHAIN__RPC_URLS']}"
    script = block.replace("init --watch", f"init --watch {here[0]}").replace("init --pay", f"init --pay {here[1]}")
    done = tools.shell(script, {"PATH": environment["PATH"], "HOME": str(tmp_path)}, "-ec")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    settings = tomllib.loads((tmp_path / ".config" / "topup" / "topup.toml").read_text(encoding="utf-8"))
    assert (settings["mode"], settings["rails"]) == ("live", {"use": ["coinbase"]})


def test_the_install_for_a_machine_with_a_key_works() -> None:
    """The unmarked block installs the run lock, which `python -m tests` has put in place, and prints the version."""
    if not (tools.BIN.parent / ".installed-run.txt").exists():
        pytest.skip("missing the run lock: start the tests by `python -m tests`")
    (line,) = [b.strip() for mark, b in BLOCKS if not mark]
    done = tools.shell(line)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.strip())


PROOFS = [line for mark, block in BLOCK.findall(GUARANTEES) if mark == "test: proofs" for line in block.splitlines()]
# The same command, made small. What has no small form is asked for its help, and takes the options of the README.
SMALL = {
    "benchmarks.faults": "--stories response_lost --kill-sample -1 --soak-steps 200",
    "tests.proofs.rule_r": "",
    "tests.proofs.simulation": "--seeds 1 --steps 200",
    "tests.proofs.kill_matrix": "--help",
    "tests.proofs.mutants": "--help",
    "tests.battery": "--help",  # tests/proofs/test_battery.py runs it whole
}


@pytest.mark.slow
@pytest.mark.parametrize("line", PROOFS)
def test_every_proof_can_be_had(line: str) -> None:
    """Each line, with less to do, exits 0 and prints something; every option that it names is one."""
    command, _, says = line.partition("#")
    (module,) = re.findall(r"-m (\S+)", command)
    done = tools.shell(f"{command} {SMALL[module]}")
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert done.stdout
    assert says


def test_the_benchmark_of_faults_has_as_many_stories_as_is_said() -> None:
    """The number in README and guarantees is the program's own."""
    assert f"{len(STORIES)} ways to lose money" in README
    assert f"# {len(STORIES)} ways to lose money" in GUARANTEES


def test_every_block_is_run_by_somebody() -> None:
    """Blocks are the newcomer's two commands, the install, `init` and the served ones; nothing is only claimed."""
    assert sorted(mark for mark, _ in BLOCKS) == ["", "newcomer: run", "newcomer: test", "test: init", "test: served"]


def test_the_worst_case_is_the_default_cap() -> None:
    """The one number of the first screen is what the settings say."""
    policy = Settings.model_fields["policy"].default
    assert policy.cap_24h == Decimal(100)
    assert policy.cap_30d == Decimal(500)
    assert "at most 100 dollars in any 24 hours" in README
    assert policy.cap_24h / Settings.model_fields["price"].default.eth_usd_min == Decimal("0.1")
    assert "at most 0.1 ETH" in README
    assert "500 in any 30 days" in README


def test_the_bill_of_a_month_follows_from_the_refill_in_the_picture() -> None:
    """Twelve times its network fees at its price of ETH, and what it paid beyond the credits."""
    shown = PICTURE.read_text(encoding="utf-8")
    (fees, price, dollars) = re.findall(
        r"and ([\d.]+) ETH network fees<.*?>price +([\d.]+) dollars per ETH; ([\d.]+) dollars per dollar",
        shown,
        re.DOTALL,
    )[0]
    network = round(12 * Decimal(fees) * Decimal(price), 2)
    beyond = (Decimal(dollars) - 1) * 300
    assert f"| ETH on Base (coinbase) | {beyond.normalize()} dollars (5 %) | {network} dollars |" in README


def test_what_decides_when_to_buy_is_two_clicks_away() -> None:
    """The README links to the page on architecture, and that page begins with a link to the policy."""
    assert "](docs/architecture.md)" in README
    page = (tools.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "](../topup/domain/policy.py)" in page.partition("\n## ")[0]


def test_the_program_is_on_the_path_of_the_environment() -> None:
    """The commands above run the checkout's own topup."""
    assert shutil.which("topup", path=str(tools.BIN)) is not None
    assert Path(tools.BIN).parent.parent == tools.ROOT
