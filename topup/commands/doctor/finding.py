"""What was looked at, is it as it should be, and what is to be done where it is not? One line a check."""

from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from topup.chain.rpc import Rpc
from topup.domain.errors import TopupError
from topup.wire.clean import SENTENCE_MAX

# Beyond this the deadlines of charges and the freshness of prices can no longer be judged by this machine.
SKEW_MAX_S: Final = 30
REFILLS_LOW: Final = 2


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `says` begins with "skipped:" or "warning:" where that is so."""

    name: str
    ok: bool
    says: str
    remedy: str = ""

    @property
    def status(self) -> str:
        """Say in one word how it stands."""
        if self.says.startswith("skipped:"):
            return "skipped"
        return "failed" if not self.ok else "warning" if self.says.startswith("warning:") else "ok"

    def line(self) -> str:
        """Return the check as a line for a terminal."""
        mark = {"skipped": "skip", "failed": "FAIL", "warning": "warn"}.get(self.status, "ok")
        to_do = f"; to do: {self.remedy}" if self.remedy else ""
        says = self.says.removeprefix("skipped: ").removeprefix("warning: ")
        return f"{mark:<5} {self.name:<22} {says}{to_do}"

    @property
    def mend(self) -> str:
        """Say what to do about it; where nothing is known to do, what was found."""
        return self.remedy or self.says

    def document(self) -> dict[str, Any]:
        """Return the check as a JSON-ready document."""
        return {"name": self.name, "ok": self.ok, "says": self.says, "remedy": self.remedy, "status": self.status}


@dataclass(frozen=True)
class Summary:
    """How many checks there are of each kind, and which failure comes first; None where nothing failed."""

    ok: int
    warnings: int
    failed: int
    skipped: int
    first: Check | None

    def line(self) -> str:
        """Return the summary as a line for a terminal."""
        told = f"{self.ok} ok, {self.warnings} warning{'' if self.warnings == 1 else 's'}, {self.failed} failed"
        told += f", {self.skipped} skipped" if self.skipped else ""
        return told if self.first is None else f"{told}; first mend {self.first.name}: {self.first.mend}"

    def document(self) -> dict[str, Any]:
        """Return the summary as a JSON-ready document."""
        counts = {"ok": self.ok, "warnings": self.warnings, "failed": self.failed, "skipped": self.skipped}
        first = self.first
        return counts | {"first": None if first is None else {"name": first.name, "remedy": first.mend}}


def summed(checks: Sequence[Check]) -> Summary:
    """Count the checks, and find what to mend first: what comes first depends on nothing that comes later."""
    count = Counter(check.status for check in checks)
    first = next((check for check in checks if check.status == "failed"), None)
    return Summary(count["ok"], count["warning"], count["failed"], count["skipped"], first)


def skipped(names: Sequence[str], why: str) -> list[Check]:
    """Return checks of what could not be looked at, because of this."""
    return [Check(name, ok=False, says=f"skipped: {why}") for name in names]


def failed(name: str, error: TopupError, remedy: str = "") -> Check:
    """Return what an error says as a check that failed."""
    return Check(name, ok=False, says=str(error), remedy=error.remedy or remedy)


def covering(name: str, refills: int, says: str, remedy: str, *, live: bool) -> Check:
    """Return whether there is money for a refill, and a warning where there is for few."""
    enough, few = refills >= 1 or not live, refills < REFILLS_LOW
    return Check(name, ok=enough, says=f"warning: {says}" if few and enough else says, remedy=remedy if few else "")


async def safely(name: str, looking: Awaitable[list[Check]], rpc: Rpc | None = None) -> list[Check]:
    """Look; what breaks on the way is a finding, and names the provider `rpc` where that was asked.

    A look may have made a finding of an error itself: what that quotes of the provider is masked here.
    """
    try:
        with rpc.heard() if rpc is not None else nullcontext():
            checks = await looking
        return checks if rpc is None else [replace(check, says=rpc.shown(check.says, SENTENCE_MAX)) for check in checks]
    except TopupError as error:
        return [failed(name, error, "" if rpc is None else "try again, or use another provider")]
    except Exception as error:  # noqa: BLE001 - a look that breaks is a finding, not the end of the examination
        says = f"the look itself broke: {type(error).__name__}"
        return [Check(name, ok=False, says=says, remedy="report it")]


def skew(name: str, theirs_s: int | None, ours_s: int) -> Check:
    """Hold this machine's clock against another."""
    if theirs_s is None:
        return Check(name, ok=True, says="unknown: no date was told")
    off = ours_s - theirs_s
    says = f"this machine is {abs(off)} s {'ahead' if off >= 0 else 'behind'}"
    right = abs(off) <= SKEW_MAX_S
    return Check(name, ok=right, says=says, remedy="" if right else "set this machine's clock, with NTP")
