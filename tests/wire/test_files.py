"""Can anything that a setting names hold the program up, or be read as what it is not?"""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.served import PATIENCE_S, TOPUP, served
from topup.domain.errors import FileAway, SettingsError
from topup.wire import files

NAMED = "wallet.keystore_password_file"


def test_a_pipe_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the setting and the pipe, and the exit code is one that is tried again."""
    monkeypatch.setattr(files, "WRITER_S", 0)
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(FileAway, match=f"^{NAMED}: {path} is no file but a pipe") as away:
        files.password(path, NAMED)
    assert (away.value.exit_code, away.value.again) == (4, True)
    # Nor is one whose writer does not come to an end: half a secret is none.
    with os.fdopen(os.open(path, os.O_RDWR), "wb", buffering=0) as writer:
        writer.write(b"half")
        with pytest.raises(FileAway, match="did not come to an end"):
            files.password(path, NAMED)


@given(parts=st.lists(st.text("ab \N{SNOWMAN}", max_size=40), max_size=4))
def test_a_pipe_is_read_whole_in_whatever_parts_it_is_written(parts: list[str]) -> None:
    """As a shell hands over `<(command)`: a descriptor of a pipe, written while it is read. It says the same again."""
    reads, writes = os.pipe()

    def write() -> None:
        with os.fdopen(writes, "wb", buffering=0) as writer:
            writer.writelines(part.encode() for part in parts)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert files.text(Path(f"/dev/fd/{reads}"), NAMED) == "".join(parts)
        assert files.text(Path(f"/dev/fd/{reads}"), NAMED) == "".join(parts)
    finally:
        writing.join()
        os.close(reads)


def test_a_pipe_without_an_end_is_too_long(tmp_path: Path) -> None:
    """A writer that never stops is refused by the bound of every file, whatever it still has to say."""
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(SettingsError, match=f"{NAMED}: .* is longer than"):
            files.text(Path(f"/dev/fd/{endless.stdout.fileno()}"), NAMED)
        endless.kill()


def test_a_device_is_refused_with_the_setting_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unopened, for to open some is to act; a person has to correct it. A socket's address is no file either."""
    monkeypatch.chdir(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")
        for device in ("/dev/zero", "/dev/full", "/dev/urandom", "/dev/ptmx", "socket"):
            with pytest.raises(SettingsError, match=f"^{NAMED}: {device} is neither a file nor a pipe$") as refused:
                files.text(Path(device), NAMED)
            assert (refused.value.exit_code, refused.value.again) == (2, False)
            assert NAMED in refused.value.remedy
    # The null device is an empty file, as everywhere: settings from there are none, a secret from there is missing.
    assert files.text(Path(os.devnull), NAMED) == ""
    with pytest.raises(SettingsError, match="is empty"):
        files.secret(Path(os.devnull), NAMED)


def test_a_terminal_is_read_up_to_its_end(tmp_path: Path) -> None:
    """What a person types at /dev/stdin is the password, until they end it; no other terminal is opened."""
    ours, theirs = os.openpty()
    said = (
        f"from topup.wire import files; from pathlib import Path; print(files.password(Path('/dev/stdin'), {NAMED!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", said], stdin=theirs, stdout=subprocess.PIPE) as reading:
        os.write(ours, b"open sesame\n\x04")
        out, _ = reading.communicate(timeout=PATIENCE_S)
    with pytest.raises(SettingsError, match="neither a file nor a pipe"):
        files.password(Path(os.ttyname(theirs)), NAMED)
    os.close(ours)
    os.close(theirs)
    assert out == b"open sesame\n"


@pytest.mark.parametrize(
    ("named", "beside"), [("<(echo $KEY)", ""), ("/dev/stdin", "<<<$KEY"), ("/dev/stdin", "< <(echo $KEY)")]
)
def test_a_shell_gives_a_secret_without_a_file(named: str, beside: str, tmp_path: Path) -> None:
    """Process substitution and standard input name a secret that a real command reads and uses."""
    with served(tmp_path) as place:
        environment = place.environment(api__key=None, KEY=place.environment()["TOPUP_API__KEY"])
        script = f"exec env TOPUP_API__KEY_FILE={named} {shlex.join(TOPUP)} check --json {beside}"
        command = ["bash", "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["balance_usd"] == "15"
