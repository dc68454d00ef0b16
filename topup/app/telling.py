"""Who is told what happens, by the settings, and when is there time to tell it?"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from topup.app.delivery import Courier, Listener
from topup.app.digest import Digests
from topup.app.settings import Settings, secret
from topup.domain.errors import TopupError
from topup.domain.messages import Tier
from topup.ledger.store import SqliteStore
from topup.ports.account import Clock, Sink
from topup.wire.apprise import Apprise
from topup.wire.email import Email
from topup.wire.webhook import Webhook, secret_of

# How long a process that ends gives its last messages.
LAST_S: Final = 10


def targets(settings: Settings) -> dict[str, Listener]:
    """Return who is told, by name; a SettingsError where a secret cannot be read, or a relay is missing."""
    notify, told = settings.notify, dict[str, Listener]()
    if notify.webhook_url is not None:
        text = secret(settings, "notify.webhook_secret_file")
        webhook = Webhook(notify.webhook_url, secret_of(text) if text is not None else None)
        told["webhook"] = Listener(webhook, Tier[notify.webhook_tier.upper()], notify.quiet_hours)
    if notify.email_to:
        told["email"] = Listener(_email(settings), Tier[notify.email_tier.upper()], notify.quiet_hours)
    text = secret(settings, "notify.apprise_file")
    if text is not None:
        told["apprise"] = Listener(Apprise(text), Tier[notify.apprise_tier.upper()], notify.quiet_hours)
    return told


def _email(settings: Settings) -> Email:
    notify, password = settings.notify, secret(settings, "notify.smtp_password_file")
    return Email(
        notify.smtp_host or "localhost",
        notify.smtp_port,
        notify.smtp_tls,
        notify.email_from or notify.email_to[0],
        notify.email_to,
        notify.smtp_user or "",
        password or "",
    )


@asynccontextmanager
async def telling(settings: Settings, store: SqliteStore, clock: Clock, sink: Sink) -> AsyncIterator[Courier]:
    """Give the courier of these settings, let it tell the last messages in the end, and close it."""
    listeners, digests = targets(settings), Digests(settings, store, clock)
    wanted = settings.notify.digest != "off" and bool(listeners)
    courier = Courier(store, listeners, settings.account, clock, sink, digests if wanted else None)
    with contextlib.suppress(TopupError):
        courier.follow()
        if not wanted:
            digests.forget()
    try:
        yield courier
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await courier.deliver(last=True)
        await courier.close()
