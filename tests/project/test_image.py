"""Does the container keep what deploy/compose.yaml promises, and does its image build and run?

No engine runs Compose itself here, so the file is parsed and held against its rules. The image is built and run by
buildah, in a base that mmdebstrap makes in place of the published one, and isolated by chroot alone: what a read-only
root and dropped capabilities change is not seen by that.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.debian import CERTIFICATES, bare
from tests.tools import HANGS_S, ROOT, require
from topup.app.settings import load

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def _compose(*, wallet: bool) -> dict[str, Any]:
    """Return the file as it stands, or with the marks taken away from the lines of the wallet."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(
        re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE) if wallet else text
    )
    return document


SERVICE: dict[str, Any] = _compose(wallet=True)["services"]["topup"]
RULES: dict[str, Callable[[], bool]] = {
    "nothing of the image can be changed": lambda: SERVICE["read_only"] is True,
    "no capability": lambda: SERVICE["cap_drop"] == ["ALL"] and not {"cap_add", "privileged"} & set(SERVICE),
    "no new one": lambda: SERVICE["security_opt"] == ["no-new-privileges:true"],
    "no port": lambda: not {"ports", "expose", "network_mode"} & set(SERVICE),
    "a stop waits for the pass": lambda: SERVICE["stop_grace_period"] == "60s",
    "comes back after a start of the machine": lambda: SERVICE["restart"] == "unless-stopped",
    "one process a ledger": lambda: not {"deploy", "scale"} & set(SERVICE),
    "no core dump, no swap": lambda: (
        SERVICE["ulimits"] == {"core": 0} and SERVICE["mem_limit"] == SERVICE["memswap_limit"]
    ),
    "asks after its health without a shell": lambda: (
        SERVICE["healthcheck"]["test"] == ["CMD", "topup", "status", "--json"]
    ),
    "keeps its image": lambda: SERVICE["labels"]["com.centurylinklabs.watchtower.enable"] == "false",
    "the base has a tag": lambda: set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.13-slim"},
}


@pytest.mark.parametrize("rule", RULES)
def test_compose_keeps_its_rules(rule: str) -> None:
    """One row for each."""
    assert RULES[rule]()


@pytest.mark.parametrize("wallet", [False, True], ids=["watching", "paying"])
def test_secrets_are_files_and_the_settings_name_them(tmp_path: Path, *, wallet: bool) -> None:
    """With the example's settings beside it, each secret is a file that is mounted where a setting looks for it."""
    document = _compose(wallet=wallet)
    service = document["services"]["topup"]
    places = {value for value in service["environment"].values() if value.startswith("/run/")}
    assert places == {f"/run/secrets/{name}" for name in service["secrets"]}
    assert {name: f"secrets/{name}" for name in service["secrets"]} == {
        name: secret["file"] for name, secret in document["secrets"].items()
    }
    lines = (DEPLOY / "topup.env.example").read_text(encoding="utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    found = load({"XDG_CONFIG_HOME": str(tmp_path)} | example | service["environment"])
    assert str(found.api.key_file) in places
    assert (found.wallet.keystore is not None) is wallet
    assert [volume.partition(":")[2] for volume in service["volumes"]] == [str(found.state_dir)]


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._command = [str(require("buildah")), "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._command += ["--storage-driver", "vfs"]

    def __call__(self, *arguments: str | Path) -> str:
        """Run it; return what it prints."""
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    """A store that is gone in the end: every layer in it is a whole copy."""
    made = Buildah(tmp_path)
    yield made
    subprocess.run(["rm", "-rf", tmp_path / "root", tmp_path / "run", tmp_path / "debian"], check=False)


@pytest.mark.long
def test_the_image_is_built_and_runs(buildah: Buildah, tmp_path: Path) -> None:
    """The Dockerfile builds as it stands; inside, another user than root runs topup, and the health check answers."""
    debian = bare(tmp_path / "debian", "python3", "python3-venv", "ca-certificates")
    (debian.root / "usr/bin/python").symlink_to("python3")
    tar = tmp_path / "base.tar"
    subprocess.run(["tar", "-C", debian.root, "-cf", tar, "--exclude=./proc/*", "--exclude=./dev/*", "."], check=True)
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, tar, "/")
    buildah("commit", "--quiet", "--rm", base, "docker.io/library/python:3.13-slim")
    tar.unlink()
    trusted = [f"--volume={CERTIFICATES.parent}:{CERTIFICATES.parent}:ro"]
    proxies = [name for name in ("HTTPS_PROXY", "https_proxy") if name in os.environ]
    trusted += [f"--build-arg={name}={os.environ[name]}" for name in proxies]
    buildah("bud", "--pull-never", "--isolation=chroot", *trusted, "-f", DEPLOY / "Dockerfile", "-t", "topup:1", ".")
    config = json.loads(buildah("inspect", "--type=image", "localhost/topup:1"))["OCIv1"]["config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("10001:10001", ["topup"], ["run"])
    assert config["Labels"]["org.opencontainers.image.title"] == "topup"
    held = buildah("from", "--pull-never", "localhost/topup:1")
    run = ["run", "--isolation=chroot", held, "--"]
    assert buildah(*run, "id", "-u") == "10001"
    assert re.fullmatch(r"\d+\.\d+\.\d+", buildah(*run, "topup", "--version"))
    # What a daemon leaves: a ledger. Then the check of the health is asked as Compose asks it.
    buildah(*run, "topup", "pause")
    assert json.loads(buildah(*run, *SERVICE["healthcheck"]["test"][1:]))["schema"] == 1
