"""Can topup be moved and changed as the page says? Its commands are typed, after a purchase, in a served world."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tools
from topup.sandbox.gateway import Conduct
from topup.sandbox.world import World, embedded

PAGE = (tools.ROOT / "docs" / "move.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"<!-- test: served -->\n```sh\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
# What a person does between the first and the second block of a section: carries over, or edits the settings.
MEANWHILE = {
    "Move to another machine": 'export TOPUP_STATE_DIR="$HOME/elsewhere"\n',
    "Change the wallet": "unset TOPUP_WALLET__PRIVATE_KEY\nexport TOPUP_WALLET__KEYSTORE=~/second/wallet.json "
    "TOPUP_WALLET__KEYSTORE_PASSWORD_FILE=~/second/password\n",
    "Change the rail": "",
}
# And before the first one.
BEFORE = {
    "Change the wallet": "mkdir ~/second && umask 077 && printf %s correct-horse >~/second/password\n",
    "Change the rail": "export TOPUP_RAILS__USE=coinbase\n",
}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A world at the machine's own pace, and the environment of a user who works in it."""
    with World(embedded, conduct=Conduct(posting_delay_ms=500)) as world:
        yield world.environment() | {
            "PATH": f"{tools.BIN}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "TOPUP_STATE_DIR": str(tmp_path / "state"),
            "TOPUP_CONFIG": "/dev/null",
            "TOPUP_WATCH__STALENESS_S": "0",
            "TOPUP_POSTING__POLL_S": "1",
        }


def test_every_block_of_the_page_is_typed() -> None:
    """Here, or in a bare Debian by tests/project/test_install.py."""
    assert [title for title, blocks in SECTIONS.items() if blocks] == list(MEANWHILE)
    assert PAGE.count("```sh") == sum(map(len, SECTIONS.values())) + PAGE.count("<!-- test: root -->")


@pytest.mark.long
@pytest.mark.machine_time
@pytest.mark.parametrize("title", MEANWHILE)
def test_every_command_of_a_section_succeeds(environment: dict[str, str], title: str) -> None:
    """In one shell, one after the other, on a ledger that has paid; each exits 0."""
    bought = "topup once --amount 10 --yes\n"
    script = bought + BEFORE.get(title, "") + MEANWHILE[title].join(SECTIONS[title])
    done = tools.shell(script, environment, "-evc")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
