"""How is a message told by whatever else Apprise knows: chats, pagers, phones? Its URLs are secrets, one a line."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from topup.domain.errors import SettingsError
from topup.domain.messages import MessageKind, Tier
from topup.ports.outbox import Undelivered
from topup.wire import wording
from topup.wire.aside import Aside

EXTRA: Final = "install topup[apprise], by the way topup came: pip, pipx or uv"
# For all services together, which Apprise asks one after the other or at once.
ALL_S: Final = 60


class Apprise:
    """All the services of one list; each is tried, and it counts as told when every one has taken it."""

    def __init__(self, text: str) -> None:
        """Read the list.

        Raises:
            SettingsError: Apprise is not installed, or a line is no URL that it knows; the line itself is not repeated.
        """
        try:
            import apprise
        except ImportError:
            raise SettingsError("notify.apprise_file needs Apprise, which is not installed", remedy=EXTRA) from None
        self._aside = Aside()
        self._services, self._kinds = apprise.Apprise(), apprise.NotifyType
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        for number, line in enumerate(lines, 1):
            if not self._services.add(line):
                raise SettingsError(
                    f"notify.apprise_file: URL number {number} is none that Apprise knows",
                    remedy="see https://github.com/caronc/apprise/wiki for its form",
                )

    async def close(self) -> None:
        """Hold nothing open."""

    async def send(self, name: str, at_s: int, document: Mapping[str, Any]) -> None:
        """Tell every service; raise `Undelivered` where one has not taken it: all are then told again."""
        del name, at_s
        kind = MessageKind(document["type"])
        levels = {Tier.INFO: self._kinds.INFO, Tier.WARNING: self._kinds.WARNING, Tier.CRITICAL: self._kinds.FAILURE}
        title, body = wording.title(document), "\n".join(wording.lines(document))
        try:
            told = await self._aside.run(partial(self._services.notify, body, title, levels[kind.tier]), ALL_S)
        except Exception as error:  # noqa: BLE001 - its plugins raise what they like, and may quote a secret
            raise Undelivered(f"Apprise failed: {type(error).__name__}") from None
        if not told:
            raise Undelivered("a service of notify.apprise_file has not taken it")
