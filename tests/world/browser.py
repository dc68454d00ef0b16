"""What does a real browser make of a page? Debian's Chromium, driven through a pipe: it opens no port.

`shown` opens a page at a width, in light or dark, on a screen or on paper; a `Page` is then asked what stands on it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests import tools

QUIET: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars")
SILENT: Final = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
PHONE: Final = 390
DESK: Final = 1280
HEIGHT: Final = 844


class Browser:
    """A running Chromium; commands of its DevTools protocol go in, their results come back."""

    def __init__(self, process: subprocess.Popen[bytes], asks: int, answers: int) -> None:
        self.process = process
        self._asks = asks
        self._answers = os.fdopen(answers, "rb")
        self._number = 0
        self._heard = b""

    def ask(self, method: str, session: str = "", **values: Any) -> dict[str, Any]:
        """Send one command, and return its result; what the browser tells unasked is dropped."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        os.write(self._asks, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            more = os.read(self._answers.fileno(), 1 << 20)
            assert more, "the browser has ended"
            self._heard += more
        one, _, self._heard = self._heard.partition(b"\0")
        told: dict[str, Any] = json.loads(one)
        return told

    def shown(self, place: Path | str, *, width: int = DESK, scheme: str = "light", media: str = "") -> Page:
        """Open a file or an address in a tab so many CSS pixels wide, in a colour scheme; `media` may be "print"."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width <= PHONE}
        page.ask("Emulation.setDeviceMetricsOverride", **size)
        liked = [{"name": "prefers-color-scheme", "value": scheme}]
        page.ask("Emulation.setEmulatedMedia", media=media, features=liked)
        page.ask("Page.enable")
        page.ask("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
        loaded = "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        page.run(f"{loaded}.then(() => document.fonts.ready).then(() => location.href)")
        return page


class Page:
    """One page as it is shown."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **values)

    def run(self, script: str) -> Any:
        """Return what an expression is there, after its promise; what it throws fails the test."""
        done = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def faults(self) -> list[str]:
        """Return what axe-core finds that keeps people out: its serious and critical faults, and where they are."""
        self.run((tools.require("axe") / "axe.min.js").read_text(encoding="utf-8"))
        found = self.run("axe.run().then(told => told.violations)")
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in grave for node in one["nodes"]]

    def tree(self) -> list[tuple[str, str]]:
        """Return role and name of all that a screen reader is told of, in order."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]

    def shot(self, file: Path, *, whole: bool = True) -> Path:
        """Write a picture of the whole page, or of what is seen of it first."""
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))
        return file

    def printed(self, file: Path) -> Path:
        """Write it as it comes out of a printer, on A4."""
        paper = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        file.write_bytes(base64.b64decode(paper["data"]))
        return file


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run a Chromium with an empty profile; it ends with the block, at the latest after what no test takes."""
    program = tools.require("chromium")
    asked, asks = os.pipe()
    answers, answered = os.pipe()
    # Its ends of the pipe have to be the descriptors 3 and 4.
    script = f'exec "$0" "$@" 3<&{asked} 4>&{answered}'
    flags = [*QUIET, *SILENT, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    command = ["bash", "-c", script, str(program), *flags, "about:blank"]
    process = subprocess.Popen(
        command, pass_fds=(asked, answered), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(asked)
    os.close(answered)
    late = threading.Timer(tools.HANGS_S, process.kill)
    late.start()
    made = Browser(process, asks, answers)
    try:
        yield made
        made.ask("Browser.close")
        process.wait(timeout=tools.HANGS_S)
    finally:
        late.cancel()
        process.kill()
        process.wait()
        os.close(asks)
        made._answers.close()
