"""What is served over HTTP beside the passes, by the settings? Whatever goes wrong there, the passes go on."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from ipaddress import ip_address

from topup import __version__
from topup.accounting.formats.account import STATEMENT
from topup.accounting.standing import Turnover
from topup.app.pulse import Vitals
from topup.app.settings import Settings
from topup.app.standing import standing, totals
from topup.domain import events
from topup.domain.errors import TopupError
from topup.ledger.store import SqliteStore
from topup.ports.account import Sink
from topup.web import health, metrics, server

# What was gathered is good for so long: whoever asks often costs no more than whoever asks each second.
KEPT_MS = 1_000


@contextmanager
def serving(settings: Settings, vitals: Vitals, targets: Iterable[str], sink: Sink) -> Iterator[None]:
    """Serve what the settings ask for; `targets` are those that messages are told to."""
    with contextlib.ExitStack() as stopping:
        if settings.web.metrics is not None:
            routes = _metrics(Watched(settings, vitals, tuple(targets)).look, vitals)
            _serve("web.metrics", settings.web.metrics, routes, settings.web.names, sink, stopping)
        if settings.web.page is not None:
            _serve("web.page", settings.web.page, _pages(settings, vitals), settings.web.names, sink, stopping)
        yield


def _serve(
    setting: str,
    address: str,
    routes: dict[str, server.Route],
    names: tuple[str, ...],
    sink: Sink,
    stopping: contextlib.ExitStack,
) -> None:
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    try:
        port = server.listen(host, int(number))
    except OSError as error:
        detail = os.strerror(error.errno) if error.errno else type(error).__name__
        sink.emit(events.WebNotServed(setting=setting, address=address, detail=detail))
        return
    served = server.Server(port, routes, names)
    served.start()
    stopping.callback(served.stop)
    bound = f"{address.rpartition(':')[0]}:{port.getsockname()[1]}"
    sink.emit(events.WebServed(setting=setting, address=bound))
    if not ip_address(host).is_loopback:
        sink.emit(events.WebOpen(setting=setting, address=bound))


class Watched:
    """How the account and its process stand, for a thread beside the passes: by a reader of its own, opened anew."""

    def __init__(self, settings: Settings, vitals: Vitals, targets: tuple[str, ...]) -> None:
        self._settings, self._vitals, self._targets = settings, vitals, targets
        self._kept: tuple[int, metrics.Look] | None = None
        self._turnover = Turnover()

    def look(self) -> metrics.Look:
        """Return what is told now, or was a moment ago."""
        now_ms = self._vitals.time.monotonic_ms()
        if self._kept is None or now_ms - self._kept[0] >= KEPT_MS:
            self._kept = (now_ms, self._looked())
        return self._kept[1]

    def _looked(self) -> metrics.Look:
        settings, found, counted = self._settings, None, None
        with contextlib.suppress(TopupError), closing(SqliteStore.open_reader(settings.state_dir)) as store:
            counted = totals(store, settings.account, self._targets, self._turnover)
            found = standing(store, settings, store.now_ms(self._vitals.time.now_ms()))
        return metrics.Look(
            version=__version__,
            account=settings.account,
            mode=settings.mode,
            stuck=bool(self._vitals.stuck()),
            passes=self._vitals.passes,
            standing=found,
            totals=counted,
        )


def _metrics(look: Callable[[], metrics.Look], vitals: Vitals) -> dict[str, server.Route]:
    told = metrics.registry(look)
    return {
        "/metrics": server.Route(lambda accepts: metrics.page(told, accepts)),
        "/healthz": server.Route(lambda _: health.answer([vitals.stuck()]), reads=False),
        "/readyz": server.Route(
            lambda _: health.answer([vitals.stuck(), vitals.unfit(), health.of_ledger(look().standing)])
        ),
    }


def _pages(settings: Settings, vitals: Vitals) -> dict[str, server.Route]:
    from topup.app.pages import account_page, statement_page

    def shown(page: Callable[[Settings, int], str]) -> server.Route:
        def answer(_: str) -> server.Answer:
            try:
                text = page(settings, vitals.time.now_ms())
            except TopupError as error:
                said = f"{error}\nto do: {error.remedy}\n"
                return server.Answer(HTTPStatus.SERVICE_UNAVAILABLE, server.PLAIN, said.encode())
            return server.Answer(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())

        return server.Route(answer)

    return {"/": shown(account_page), STATEMENT: shown(statement_page)}
