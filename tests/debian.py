"""What is a bare Debian, small enough for a test? A root that mmdebstrap fills from Debian's archive."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.guard import sitecustomize as guard
from tests.tools import HANGS_S, ROOT, require

RELEASE: Final = "trixie"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# Inside the root: what keeps a process on this machine.
GUARD: Final = "/guard"
HOME: Final = "/root"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Debian:
    """A root on which programs can be run as if they were alone on the machine; its network is the machine's own."""

    root: Path

    def command(self, *command: str, user: str = "root") -> list[str]:
        """Return how this is run inside. /proc is mounted for it alone, so that nothing is left to be unmounted."""
        inside = ["chroot", f"--userspec={user}:{user}", str(self.root), *command]
        return ["unshare", "--mount", f"--mount-proc={self.root / 'proc'}", *inside]

    def environment(self, *, guarded: bool) -> dict[str, str]:
        """Return the environment of root's shell; one that is not guarded may ask registries, as a person's would."""
        said = {"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        said["SYSTEMD_OFFLINE"] = "1"  # systemctl enables units, and says of all else that it leaves it
        if guarded:
            return said | {"PYTHONPATH": GUARD}
        proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        return said | proxies | dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), str(CERTIFICATES))

    def shell(
        self, script: str, *, guarded: bool, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in bash inside, as root; it ends at the first command that fails."""
        environment = self.environment(guarded=guarded) | dict(more or {})
        return subprocess.run(
            self.command("bash", "-evc", script),
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=False,
        )

    def put(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file inside; `~` is the home of whoever types."""
        file = self.root / path.replace("~", HOME).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)
        return file

    def trust(self) -> None:
        """Let programs inside believe whom this machine believes, which a registry behind a proxy may need."""
        place = self.root / str(CERTIFICATES).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CERTIFICATES, place)

    def clone(self, path: str) -> None:
        """Put a repository inside that holds the files of this checkout, committed or not."""
        place = self.root / path.lstrip("/")
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
        own = ["-c", "user.name=topup", "-c", "user.email=topup@localhost"]
        for step in (["init", "--quiet"], ["add", "--all"], [*own, "commit", "--quiet", "--message", "As it is here"]):
            subprocess.run(["git", *step], cwd=place, check=True, capture_output=True)


def bare(root: Path, *packages: str) -> Debian:
    """Make a root with the smallest Debian and these packages, or skip where that cannot be done."""
    program = require("mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("only root can enter a root of its own")
    command = [str(program), "--quiet", "--variant=minbase", f"--include={','.join(packages)}", RELEASE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.returncode == 0, done.stderr
    made = Debian(root)
    shutil.copytree(Path(guard.__file__).parent, root / GUARD.lstrip("/"), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    return made
