"""Is every variable with topup's prefix a setting, a cluster's, or an error that says what was meant?"""

import os
import subprocess
import sys

import pytest

from tests.world.served import TOPUP, ran
from topup.app.settings import default_state_dir, load
from topup.domain.errors import SettingsError

QUIET = {"TOPUP_CONFIG": "/dev/null"}


def links(name: str, address: str = "10.0.0.7", port: int = 9106, protocol: str = "tcp") -> dict[str, str]:
    """What Kubernetes adds to each pod for a service of this name."""
    url = f"{protocol}://{address}:{port}"
    one = f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_HTTP_METRICS": str(port),
        f"{name}_PORT": url,
        one: url,
        f"{one}_PROTO": protocol,
        f"{one}_PORT": str(port),
        f"{one}_ADDR": address,
    }


@pytest.mark.parametrize("name", ["TOPUP", "TOPUP_GATEWAY", "TOPUP_2", "TOPUP_API"])
@pytest.mark.parametrize(("address", "protocol"), [("10.0.0.7", "tcp"), ("fd00::7", "udp"), ("10.0.0.7", "sctp")])
def test_what_a_cluster_adds_for_a_service_is_nobodys_setting(name: str, address: str, protocol: str) -> None:
    """Beside a service called topup, or topup-something, topup starts and takes none of its variables."""
    found = load(QUIET | links(name, address, protocol=protocol))
    assert found.model_dump() == load(QUIET).model_dump()


def test_what_docker_adds_for_a_link_is_nobodys_setting() -> None:
    """A container that is linked as topup, or topup-something, leaves its name and a copy of its environment."""
    docker = {"TOPUP_NAME": "/web/topup", "TOPUP_ENV_PATH": "/bin", "TOPUP_DB_NAME": "/web/db", "TOPUP_DB_ENV_X": "1"}
    assert load(QUIET | docker).model_dump() == load(QUIET).model_dump()
    for alone in ({"TOPUP_ENV_PATH": "/bin"}, {"TOPUP_NAME": "mine"}, {"TOPUP_NAME": "/a", "TOPUP_ENV_PATH": "/bin"}):
        with pytest.raises(SettingsError, match="is no setting"):
            load(QUIET | alone)


@pytest.mark.parametrize(
    ("name", "value", "cluster"),
    [
        ("TOPUP_PORT", "9106", True),
        ("TOPUP_SERVICE_HOST", "a b", True),
        ("TOPUP_GATEWAY_PORT_80_TCP_ADDR", "what is this?", True),
        ("TOPUP_POLICY__FLOOR_MIN", "tcp://10.0.0.7:1", False),
        ("TOPUP_CHAIN_RPC_URLS", "https://x.example", False),
        ("TOPUP_SERVICE_PORTS", "80", False),
    ],
)
def test_what_only_looks_like_a_link_is_still_an_error(name: str, value: str, *, cluster: bool) -> None:
    """A limit that was misspelt does not hold. Of a cluster's names the remedy tells what switches them off."""
    with pytest.raises(SettingsError, match=f"{name} is no setting") as refused:
        load(QUIET | {name: value})
    assert ("enableServiceLinks: false" in refused.value.remedy) is cluster


@pytest.mark.parametrize("name", ["\ufeffTOPUP_MODE", "TOPUP_MODE\r", " TOPUP_MODE", "\u200bTOPUP_MODE"])
def test_a_setting_with_something_invisible_around_its_name_is_not_overlooked(name: str) -> None:
    """A mark at the beginning of an environment file makes its first line another variable; it is named."""
    with pytest.raises(SettingsError, match=r"TOPUP_MODE.* is no setting, did you mean TOPUP_MODE\?") as refused:
        load(QUIET | {name: "live"})
    assert str(refused.value).isprintable()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that the system does not know")
def test_without_a_home_the_state_directory_is_asked_for() -> None:
    """A user id without a name and without HOME: one sentence says what to set, and with that set it goes on."""
    bare = {"PATH": os.environ["PATH"], "TOPUP_CONFIG": "/dev/null"}
    script = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from topup.app.settings import load\nfrom topup.domain.errors import SettingsError\n"
        "os.setuid(54321)\n"
        "try: print(load().state_dir)\nexcept SettingsError as error: print(error, error.remedy, error.exit_code)\n"
    )

    def said(environment: dict[str, str]) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert said(bare).startswith("state_dir is not set, HOME is not either, and the system knows no user 54321")
    assert "TOPUP_STATE_DIR" in said(bare)
    assert said(bare).endswith(" 2")
    assert said({**bare, "TOPUP_STATE_DIR": "/data/ledger"}) == "/data/ledger"
    assert said({**bare, "HOME": "/home/somebody"}) == "/home/somebody/.local/state/topup"
    assert default_state_dir().name == "topup"


@pytest.mark.machine_time
def test_no_file_of_settings_is_looked_for_without_a_home() -> None:
    """`config show` runs with neither HOME nor TOPUP_CONFIG, on what the environment says alone."""
    done = ran(
        [*TOPUP, "config", "show"],
        {"PATH": os.environ["PATH"], "TOPUP_STATE_DIR": "/data/ledger", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    assert "/data/ledger" in done.stdout
