"""Do README and tutorial tell the truth? Every command in them runs, and their numbers are the program's own."""

import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests import tools
from tests.picture import PICTURE, PROMPT, drawn, run
from tests.world.stories_foreign import STORIES
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

README = (tools.ROOT / "README.md").read_text(encoding="utf-8")
GUARANTEES = (tools.ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
TUTORIAL = (tools.ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
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
    tools.kept(tmp_path / "management.key", environment["TOPUP_API__KEY"])
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
    for mark in ("newcomer: run", "newcomer: test"):
        assert re.fullmatch("python3 .+\n", dict(BLOCKS)[mark]), "one line, which starts from python3 alone"


# The page in the order of its blocks: whether it is run here, as what it then exits, and what is typed.
STEPS = re.findall(r"(?:<!-- (test: tutorial(?:, exit (\d))?) -->\n)?```sh\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.mark.slow
def test_every_command_of_the_tutorial_ends_as_it_says(tmp_path: Path) -> None:
    """In one shell, one after the other; only the install is not run: it made what these tests run in."""
    script = ""
    for mark, code, block in STEPS:
        for line in block.splitlines() if mark else []:
            wanted = code or "0"
            script += f"{line}\nended=$?; [ $ended = {wanted} ] || {{ echo '{line}' ended as $ended >&2; exit 1; }}\n"
    done = tools.shell(script, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TOPUP_CONFIG": "/dev/null"})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "books      match the chain to the wei" in done.stdout
    assert "result     refused" in done.stdout
    assert [block for mark, _, block in STEPS if not mark] == ["python3 requirements/install.py sandbox\n"]


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


# -- the picture ---------------------------------------------------------------------------------------------------


def lines(picture: str) -> list[str]:
    texts = ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314 - our own file
    return [element.text or "" for element in texts]


def without_figures(line: str) -> str:
    """Return a line with its numbers and hashes taken out, and with single spaces."""
    return " ".join(re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", line).split())


def test_every_line_stands_in_the_picture_as_it_is() -> None:
    """Signs that mean something in XML do not change, and an empty line takes its place."""
    shown = ['  1 s  <sent> & "accepted"', "", "books match → the wei"]
    assert lines(drawn(shown)) == ["$ topup sandbox", shown[0], shown[2]]


@pytest.mark.slow
def test_the_picture_is_a_run_of_today() -> None:
    """Figures differ from run to run; what is said of a refill, and how it ends, does not."""
    shown = lines(PICTURE.read_text(encoding="utf-8"))
    printed = {without_figures(line) for line in run()}
    assert shown[0] == PROMPT + "topup sandbox"
    assert [line for line in shown[1:] if without_figures(line) not in printed] == [], "run `python -m tests.picture`"
    assert shown[-1] == "books      match the chain to the wei"
