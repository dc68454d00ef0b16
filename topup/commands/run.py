"""What does the daemon need before it runs? The ledger as its writer, a log, and a first event that says what it is."""

import asyncio
import os
import traceback
from contextlib import closing
from urllib.parse import urlsplit

from topup import __version__
from topup.app.alarms import Alarms
from topup.app.assembly import limits
from topup.app.connections import opened
from topup.app.daemon import Daemon, SdNotify
from topup.app.hosts import closed
from topup.app.log import LogSink
from topup.app.output import warn
from topup.app.serving import serving
from topup.app.settings import Settings
from topup.app.telling import telling
from topup.commands.answer import Answer, code_of
from topup.commands.start import load, wait_for
from topup.domain import events
from topup.domain.errors import Exit, TopupError
from topup.domain.notes import DAEMON, Note
from topup.ledger.store import SqliteStore
from topup.ports.account import Sink
from topup.wire.clock import SystemClock
from topup.wire.heartbeat import Heartbeat


def answer() -> Answer:
    """Watch the credits and refill them, until stopped; what ends it is said as everything else is, in the log."""
    settings = None
    try:
        settings = load()
        return Answer({}, (), wait_for(_served(settings)))
    except TopupError as error:
        return _ended(settings, code_of(type(error)), str(error), error.remedy, error.exit_code)
    except Exception as error:  # noqa: BLE001 - its own text may hold a key or a URL: only where it came from is shown
        where = "".join(traceback.format_tb(error.__traceback__))
        code = getattr(error, "exit_code", Exit.INTERNAL)
        return _ended(settings, "defect", type(error).__name__, "report it; what is open is stored", code, where)


def _ended(
    settings: Settings | None, kind: str, error: str, remedy: str, code: int, where: str | None = None
) -> Answer:
    """Say why nobody watches the account; without settings as they would be by default."""
    clock = SystemClock()
    with closing(LogSink(now_ms=clock.now_ms) if settings is None else LogSink.of(settings, clock)) as log:
        log.emit(events.CannotRun(kind=kind, error=error, remedy=remedy, exit_code=int(code), where=where))
    return Answer({}, (), code)


async def _served(settings: Settings) -> Exit:
    clock = SystemClock()
    with closing(LogSink.of(settings, clock)) as log:
        store = SqliteStore.open_writer(settings.state_dir, DAEMON)
        sink = Alarms(log, store, settings.account, clock)
        async with opened(settings, store, sink, clock) as connections, telling(settings, store, clock, log) as courier:
            for mended in store.mended:
                warn(f"topup: {mended}")
            if settings.notify.digest != "off" and not courier.targets:
                warn(f"topup: notify.digest is {settings.notify.digest}, and [notify] names nobody who would get it")
            cycle = connections.cycle
            store.say("", Note.SERVES, settings.account, store.now_ms(clock.now_ms()))
            _say_how_it_starts(settings, connections.paying, sink)
            heartbeat = Heartbeat(url, clock) if (url := settings.notify.heartbeat_url) is not None else None
            supervisor = SdNotify(os.environ.get("NOTIFY_SOCKET"))
            daemon = Daemon(cycle, store, clock, sink, settings.account, supervisor, heartbeat=heartbeat)
            daemon.listen()
            beside = [asyncio.create_task(courier.run())] if courier.targets else []
            beside += [asyncio.create_task(heartbeat.run())] if heartbeat is not None else []
            try:
                with serving(settings, daemon.vitals, courier.targets, sink):
                    code = await daemon.run()
            finally:
                for task in beside:
                    task.cancel()
            if heartbeat is not None:
                await heartbeat.left(code)
            return code


def _say_how_it_starts(settings: Settings, wallet: bytes | None, sink: Sink) -> None:
    sink.emit(_started(settings, wallet))
    for rail in settings.rails_in_use:
        if why := closed(settings.api, rail):
            sink.emit(events.RailClosed(rail=rail, detail=why))
    raw = settings.wallet.private_key or settings.wallet.private_key_file
    if settings.mode == "live" and raw is not None:
        name = "wallet.private_key" if settings.wallet.private_key is not None else "wallet.private_key_file"
        sink.emit(events.RawKeyInUse(setting=name))


def _started(settings: Settings, wallet: bytes | None) -> events.Started:
    allowed = limits(settings)
    return events.Started(
        version=__version__,
        mode=settings.mode,
        account=settings.account,
        chain_id=settings.chain.id,
        wallet="0x" + wallet.hex() if wallet is not None else None,
        api_host=_host(settings.api.url),
        rpc_hosts=" ".join(_host(url) for url in settings.chain.rpc_urls),
        floor_usd=allowed.floor,
        cap_24h_usd=allowed.cap_24h,
        ledger=str(settings.state_dir),
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
