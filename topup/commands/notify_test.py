"""Does everybody who is to be told hear it? One message to each target, at once, and what came of it."""

import time
import uuid

from topup.app.delivery import Listener
from topup.app.settings import Settings
from topup.app.telling import targets
from topup.commands.answer import Answer, to_do
from topup.commands.start import load, wait_for
from topup.domain.errors import Exit, SettingsError
from topup.domain.messages import MessageKind
from topup.ports.outbox import Message, Undelivered

REMEDY = "see the target and its settings in [notify]"


def answer() -> Answer:
    """Tell each target of [notify] that this is a test; PERSON where one does not take it."""
    settings = load()
    told = targets(settings)
    if not told:
        raise SettingsError(
            "nobody is to be told anything", remedy="set notify.webhook_url, notify.email_to or notify.apprise_file"
        )
    results = wait_for(_told(settings, told))
    document = {
        "schema": 1,
        "account": settings.account,
        "targets": [{"name": name, "ok": why is None, "detail": why} for name, why in results.items()],
    }
    lines = [
        f"{'ok' if why is None else 'FAIL':<5} {name:<10} {'has taken it' if why is None else why + to_do(REMEDY)}"
        for name, why in results.items()
    ]
    return Answer(document, lines, Exit.OK if all(why is None for why in results.values()) else Exit.PERSON)


async def _told(settings: Settings, told: dict[str, Listener]) -> dict[str, str | None]:
    now_ms = time.time_ns() // 1_000_000
    data = {"account": settings.account, "subject": "test", "detail": MessageKind.TEST.meaning}
    message = Message(0, MessageKind.TEST, now_ms, data, str(uuid.uuid4()))
    results: dict[str, str | None] = {}
    for name, listener in told.items():
        try:
            await listener.target.send(message.id, now_ms // 1000, message.document())
            results[name] = None
        except Undelivered as error:
            results[name] = str(error)
        finally:
            await listener.target.close()
    return results
