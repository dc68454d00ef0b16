"""How does the account look in Grafana? Builds deploy/grafana/topup.json, which `python -m tests.generate_docs` writes.

Colours repeat what words say: what is well and what is not reads the same in grey.
"""

from collections.abc import Callable
from itertools import count
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableRefresh,
)

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Which daemon, where several are scraped.
MINE: Final = 'instance="$instance"'
GREEN, YELLOW, RED = "green", "orange", "red"
AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel
Panel = TypeVar("Panel", stat.Panel, timeseries.Panel, statetimeline.Panel)


def _query(expression: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    asked = prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(expression.replace("$MINE", MINE))
    return asked.legend_format(legend) if legend else asked


def _panel(made: Panel, title: str, says: str, *, wide: int, high: int, unit: str = "") -> Panel:
    made.title(title).description(says).datasource(SOURCE).span(wide).height(high)
    return made.unit(unit) if unit else made


def _steps(*steps: tuple[float | None, str]) -> ThresholdsConfig:
    limits = [Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limits)


def _words(**words: tuple[str, str]) -> list[ValueMapping]:
    """Let values be words with a colour; `_1` stands for 1."""
    options = {
        value.removeprefix("_"): ValueMappingResult(text=text, color=color, index=n)
        for n, (value, (text, color)) in enumerate(words.items())
    }
    return [ValueMap(options=options)]


def _figure(title: str, says: str, expression: str, unit: str = "", *, wide: int = 4) -> stat.Panel:
    made = _panel(stat.Panel(), title, says, wide=wide, high=4, unit=unit).with_target(_query(expression).instant())
    made.graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE).no_value("unknown")
    return made.reduce_options(ReduceDataOptions().calcs(["lastNotNull"])).thresholds(_steps((None, "text")))


def _curves(title: str, says: str, unit: str, *asked: tuple[str, str]) -> timeseries.Panel:
    made = _panel(timeseries.Panel(), title, says, wide=12, high=8, unit=unit).min(0)
    for ref, (expression, legend) in zip("AB", asked, strict=False):
        made.with_target(_query(expression, legend, ref))
    return made


def _states(title: str, says: str, expression: str, legend: str, words: list[ValueMapping]) -> statetimeline.Panel:
    made = _panel(statetimeline.Panel(), title, says, wide=12, high=8).with_target(_query(expression, legend))
    return made.mappings(words).thresholds(_steps((None, GREEN), (1, RED)))


def _net(unit: str) -> str:
    left, returned = (f"increase(topup_wallet_{way}_{unit}_total{{$MINE}}[1d])" for way in ("left", "returned"))
    return f"{left} - {returned}"


def _funded() -> list[AnyPanel]:
    """Whether there is anything left, and how fast it goes."""
    funded = _figure(
        "Funded",
        "Whether the balance is at its floor or above it.",
        "topup_balance_usd{$MINE} >= bool topup_floor_usd{$MINE}",
    ).mappings(_words(_1=("FUNDED", GREEN), _0=("LOW", RED)))
    wrong = _figure("Alarms", "How many alarms hold; each is below.", "sum(topup_alarm{$MINE})")
    wrong.thresholds(_steps((None, GREEN), (1, RED)))
    at = "dateTimeFromNow"
    return [
        funded,
        _figure("Credits left", "As they were last read.", "topup_balance_usd{$MINE}", "currencyUSD"),
        _figure("Empty", "At the pace of the last day.", "topup_empty_timestamp_seconds{$MINE} * 1000", at),
        _figure("Last read", "The newest believed reading.", "topup_reading_timestamp_seconds{$MINE} * 1000", at),
        _figure("Next pass", "When it is due.", "topup_next_pass_timestamp_seconds{$MINE} * 1000", at),
        wrong,
        _curves(
            "Credits",
            "What is left, and below what it is refilled.",
            "currencyUSD",
            ("topup_balance_usd{$MINE}", "left"),
            ("topup_floor_usd{$MINE}", "floor"),
        ),
        _curves(
            "Used an hour",
            "By the readings of the last hour, and over the last day.",
            "currencyUSD",
            ("3600 * deriv(topup_used_usd{$MINE}[1h])", "last hour"),
            ("3600 * topup_burn_usd_per_second{$MINE}", "last day"),
        ),
    ]


def _bought() -> list[AnyPanel]:
    """What is bought, and what it takes out of the wallet."""
    return [
        _states(
            "Open refill",
            "Its state, where one is open.",
            'topup_refill_state{$MINE, state!="none"} == 1',
            "{{state}}",
            _words(_1=("is so", YELLOW)),
        ),
        _curves(
            "Refills a day",
            "Those that ended, by how.",
            "short",
            ("increase(topup_refills_total{$MINE}[1d])", "{{outcome}}"),
        ),
        _curves(
            "Left the wallet a day",
            "Fees included, less what was booked back.",
            "short",
            (_net("eth"), "ETH"),
            (_net("usd"), "{{commodity}}"),
        ),
        _curves(
            "Used of the caps",
            "Nothing is bought beyond 100 %.",
            "percentunit",
            ("topup_counted_usd{$MINE} / topup_cap_usd{$MINE}", "{{window}}"),
        ),
    ]


def _wrong() -> list[AnyPanel]:
    """What somebody should look at."""
    return [
        _states(
            "Alarms",
            "What messages tell of.",
            "topup_alarm{$MINE}",
            "{{kind}}",
            _words(_0=("quiet", GREEN), _1=("holds", RED)),
        ),
        _states(
            "Troubles",
            "What `topup status` says is wrong.",
            "topup_trouble{$MINE}",
            "{{code}}",
            _words(_0=("well", GREEN), _1=("wrong", RED)),
        ),
        _curves(
            "Messages",
            "Those that nobody has taken yet, and those of the last month that nobody will.",
            "short",
            ("topup_messages_waiting{$MINE}", "{{target}}: waiting"),
            ("topup_messages_set_aside{$MINE}", "{{target}}: set aside"),
        ),
        _curves(
            "Passes an hour",
            "Those that ended, and those of them that ended by an error.",
            "short",
            ("increase(topup_passes_total{$MINE}[1h])", "all"),
            ("increase(topup_pass_failures_total{$MINE}[1h])", "by an error"),
        ),
    ]


ROWS: Final[dict[str, Callable[[], list[AnyPanel]]]] = {
    "Is it funded, and until when?": _funded,
    "What is bought, and what does it cost?": _bought,
    "What is wrong?": _wrong,
}


def dashboard() -> str:
    """Return the dashboard as JSON."""
    made = (
        Dashboard("topup: a prepaid account")
        .uid("topup")
        .tags(["topup"])
        .time("now-7d", "now")
        .refresh("1m")
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            QueryVariable("instance")
            .label("Daemon")
            .datasource(SOURCE)
            .query("label_values(topup_build_info, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    numbers = count(1)
    for title, panels in ROWS.items():
        made.with_row(Row(title).id(next(numbers)))
        for panel in panels():
            made.with_panel(panel.id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"
