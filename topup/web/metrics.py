"""Which figures are told to Prometheus, and how are they written? The table of all metrics, and the page of them.

Names have units as Prometheus wants them; of what is not known there is no sample. What happened when is a timestamp
and no age. No label holds an address. Each figure is reckoned exactly, from the ledger, whenever it is asked for.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from topup.accounting.journal import TOKENS, Commodity
from topup.accounting.standing import TROUBLES, Passes, Standing, Totals
from topup.domain.credits import Reading
from topup.domain.lifecycle import TERMINAL, State, TopUp
from topup.domain.messages import ALARMS
from topup.domain.money import Usdc, Wei
from topup.web.server import Answer

if TYPE_CHECKING:  # takes memory, and is loaded where metrics are served
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import CollectorRegistry

Number = Decimal | int | None
Row = tuple[tuple[str, ...], Number]
NO_REFILL: Final = "none"
OPEN: Final = tuple(state for state in State if state not in TERMINAL)


@dataclass(frozen=True)
class Look:
    """Everything that is told at one moment; no standing and no totals where the ledger cannot be read."""

    version: str
    account: str
    mode: str
    stuck: bool
    passes: Passes
    standing: Standing | None
    totals: Totals | None


@dataclass(frozen=True)
class Metric:
    """One family of samples."""

    name: str
    says: str
    rows: Callable[[Look], Iterable[Row]]
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Return its type: what ends in _total only grows."""
        return "counter" if self.name.endswith("_total") else "gauge"


def _one(name: str, says: str, value: Callable[[Look], Number]) -> Metric:
    return Metric(name, says, lambda look: [((), value(look))])


def _now(name: str, says: str, value: Callable[[Standing], Number]) -> Metric:
    return _one(name, says, lambda look: None if look.standing is None else value(look.standing))


def _read(name: str, says: str, value: Callable[[Reading], Number]) -> Metric:
    return _now(name, says, lambda standing: None if standing.last is None else value(standing.last))


def _unfinished(name: str, says: str, value: Callable[[TopUp], Number]) -> Metric:
    return _now(name, says, lambda standing: None if standing.unfinished is None else value(standing.unfinished))


def _counted(name: str, says: str, value: Callable[[Totals], Number]) -> Metric:
    return _one(name, says, lambda look: None if look.totals is None else value(look.totals))


def _split(name: str, label: str, says: str, values: Callable[[Standing, Totals], Mapping[str, Number]]) -> Metric:
    def rows(look: Look) -> Iterator[Row]:
        if look.standing is not None and look.totals is not None:
            yield from (((key,), value) for key, value in values(look.standing, look.totals).items())

    return Metric(name, says, rows, (label,))


def _seconds(ms: int | None) -> Decimal | None:
    return None if ms is None else Decimal(ms) / 1000


def _refill_states(standing: Standing, _: Totals) -> dict[str, Number]:
    now = standing.unfinished.state.value if standing.unfinished is not None else NO_REFILL
    return {state: int(state == now) for state in (NO_REFILL, *(state.value for state in OPEN))}


def _tokens(sums: Mapping[Commodity, int]) -> dict[str, Number]:
    return {token.value: Usdc(sums.get(token, 0)).usdc for token in TOKENS}


METRICS: Final = (
    Metric(
        "topup_build_info",
        "Always 1: which topup this is, and which Python runs it.",
        lambda look: [((look.version, platform.python_version()), 1)],
        ("version", "python"),
    ),
    Metric(
        "topup_account_info",
        "Always 1: which account this is, and whether it is only observed or paid for (live).",
        lambda look: [((look.account, look.mode), 1)],
        ("account", "mode"),
    ),
    # -- the process
    _one("topup_passes_total", "Passes of this process that have ended.", lambda look: look.passes.ended),
    _one("topup_pass_failures_total", "Those of them that ended by an error.", lambda look: look.passes.failed),
    _one(
        "topup_last_pass_timestamp_seconds",
        "When the last pass ended that did not end by an error.",
        lambda look: _seconds(look.passes.well_ms),
    ),
    _one(
        "topup_next_pass_timestamp_seconds",
        "When the next pass is due, or was, while it is being made.",
        lambda look: _seconds(look.passes.due_ms),
    ),
    _one("topup_stuck", "1 while the process does not get on, as /healthz tells.", lambda look: int(look.stuck)),
    _one(
        "topup_ledger_readable",
        "1 while the ledger can be read; else what follows is missing.",
        lambda look: int(look.standing is not None),
    ),
    # -- the account
    _read(
        "topup_balance_usd",
        "Credits that are left, as they were last read and believed.",
        lambda last: last.balance.amount,
    ),
    _read(
        "topup_bought_usd",
        "Credits ever bought, as the account itself tells; a gauge.",
        lambda last: last.total_credits.amount,
    ),
    _read(
        "topup_used_usd",
        "Credits ever used, as the account itself tells; a gauge, since a refund lowers it.",
        lambda last: last.total_usage.amount,
    ),
    _read(
        "topup_reading_timestamp_seconds",
        "When the account was last read and believed.",
        lambda last: _seconds(last.at_ms),
    ),
    _now("topup_floor_usd", "Below this balance the account is refilled.", lambda s: s.floor.amount),
    _now(
        "topup_burn_usd_per_second",
        "How fast credits were used in the last day.",
        lambda s: None if s.burn is None else s.burn.amount / 3600,
    ),
    _now("topup_floor_timestamp_seconds", "When the floor is reached at that pace.", lambda s: _seconds(s.floor_ms)),
    _now(
        "topup_empty_timestamp_seconds",
        "When nothing is left at that pace, if nothing is bought.",
        lambda s: _seconds(s.empty_ms),
    ),
    _split(
        "topup_counted_usd",
        "window",
        "Dollars that count against a cap, unfinished refills at their most.",
        lambda s, _: {"24h": s.day.counted.amount, "30d": s.month.counted.amount},
    ),
    _split(
        "topup_cap_usd",
        "window",
        "The most that may count within this span.",
        lambda s, _: {"24h": s.day.cap.amount, "30d": s.month.cap.amount},
    ),
    _now("topup_paused", "1 while a person has paused buying.", lambda s: int(s.paused)),
    _split(
        "topup_rail_open",
        "rail",
        "For each way to pay in use: 0 once its seller has closed it.",
        lambda s, _: {rail: int(rail not in s.gone) for rail in s.rails},
    ),
    # -- refills
    _split(
        "topup_refill_state", "state", "1 for the state of the open refill; `none` where none is open.", _refill_states
    ),
    _unfinished(
        "topup_refill_decided_timestamp_seconds",
        "When the open refill was decided.",
        lambda open_: _seconds(open_.decided_ms),
    ),
    _unfinished(
        "topup_refill_moved_timestamp_seconds",
        "When the open refill came to its state.",
        lambda open_: _seconds(open_.moved_ms),
    ),
    _split(
        "topup_refills_total",
        "outcome",
        "Refills that have ended since the ledger began.",
        lambda _, t: {state.value: t.ended.get(state, 0) for state in State if state in TERMINAL},
    ),
    _counted(
        "topup_credited_usd_total",
        "Credits that refills have brought.",
        lambda totals: Usdc(totals.credited).usdc,
    ),
    _counted(
        "topup_wallet_left_eth_total",
        "ETH that refills have taken out of the wallet, fees included.",
        lambda totals: Wei(totals.left.get(Commodity.ETH, 0)).eth,
    ),
    _counted(
        "topup_wallet_returned_eth_total",
        "What of it was booked back, because its block was replaced.",
        lambda totals: Wei(totals.returned.get(Commodity.ETH, 0)).eth,
    ),
    _split(
        "topup_wallet_left_usd_total",
        "commodity",
        "Dollars that refills have taken out of the wallet, fees included.",
        lambda _, t: _tokens(t.left),
    ),
    _split(
        "topup_wallet_returned_usd_total",
        "commodity",
        "What of them was booked back, because its block was replaced.",
        lambda _, t: _tokens(t.returned),
    ),
    # -- what is wrong
    _split(
        "topup_alarm",
        "kind",
        "1 while the alarm holds of which messages tell.",
        lambda _, t: {kind.value: int(kind in t.alarms) for kind in ALARMS},
    ),
    _split(
        "topup_trouble",
        "code",
        "1 while `topup status` says that this is wrong.",
        lambda s, _: {code: int(any(trouble.code == code for trouble in s.troubles)) for code in TROUBLES},
    ),
    _split(
        "topup_messages_waiting",
        "target",
        "Messages that a target has still to be told.",
        lambda _, t: {name: told.waiting for name, told in t.messages.items()},
    ),
    _split(
        "topup_messages_set_aside",
        "target",
        "Messages of the last month that it will not be told.",
        lambda _, t: {name: told.aside for name, told in t.messages.items()},
    ),
    _split(
        "topup_message_set_aside_timestamp_seconds",
        "target",
        "When the newest of these was set aside.",
        lambda _, t: {name: _seconds(told.aside_ms) for name, told in t.messages.items()},
    ),
)


def _float(exact: Decimal | int) -> float:
    """Give a figure to Prometheus, which has only floats: here and nowhere else money becomes one, and never returns.

    Sums are exact up to here, so that no error adds up: each is the float that is nearest to it.
    """
    return float(exact)


class Collector:
    """What Prometheus's client asks for samples."""

    def __init__(self, look: Callable[[], Look]) -> None:
        self._look = look

    def collect(self) -> Iterator[Family]:
        """Yield every family; one of which nothing is known has no samples."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        look = self._look()
        for metric in METRICS:
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.says, labels=metric.labels)
            for labels, value in metric.rows(look):
                if value is not None:
                    family.add_metric(labels, _float(value))
            yield family


def registry(look: Callable[[], Look]) -> CollectorRegistry:
    """Return what is told: our own figures, and those of the process that every client of Prometheus tells."""
    from prometheus_client import CollectorRegistry, ProcessCollector

    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(Collector(look))
    return made


def page(told: CollectorRegistry, accepts: str) -> Answer:
    """Write the metrics in the form that is accepted."""
    from prometheus_client.exposition import choose_encoder

    encode, kind = choose_encoder(accepts)
    return Answer(HTTPStatus.OK, kind, encode(told))
