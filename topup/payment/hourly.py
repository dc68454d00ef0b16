"""Was this said within the hour? What lasts is said again every hour, not with every pass."""

from __future__ import annotations

from topup.domain.credits import HOUR_MS


class Hourly:
    """When each thing was said last, by this process; times are the ledger's."""

    def __init__(self) -> None:
        self._said_ms: dict[str, int] = {}

    def due(self, what: str, now_ms: int) -> bool:
        """Tell whether this is worth saying now, and take it for said if it is."""
        said_ms = self._said_ms.get(what)
        if said_ms is not None and now_ms - said_ms < HOUR_MS:
            return False
        self._said_ms[what] = now_ms
        return True

    def forget(self, *, but: str = "") -> None:
        """Let everything else be said again as soon as it comes back."""
        self._said_ms = {what: at_ms for what, at_ms in self._said_ms.items() if what == but}
