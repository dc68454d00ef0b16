"""Do the alert rules, the dashboard and a real Prometheus work with the metrics there are?"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest

from tests.generate_docs import PROMETHEUS, alerts
from tests.tools import HANGS_S, ROOT, require
from tests.world.served import Served, until
from topup.accounting.journal import TOKENS
from topup.accounting.standing import TROUBLES
from topup.domain.lifecycle import TERMINAL
from topup.domain.messages import ALARMS, Tier
from topup.payment.config import RAILS
from topup.web.metrics import METRICS, NO_REFILL, OPEN

RULES: Final = (PROMETHEUS / "topup.rules.yml").read_text(encoding="utf-8")
DASHBOARD: Final = json.loads((ROOT / "deploy" / "grafana" / "topup.json").read_text(encoding="utf-8"))
OF_TARGETS: Final = {"job", "instance"}
# What stands in labels whose values are known beforehand.
VALUES: Final[dict[str, set[str]]] = {
    "state": {NO_REFILL, *(state.value for state in OPEN)},
    "outcome": {state.value for state in TERMINAL},
    "kind": {kind.value for kind in ALARMS},
    "code": set(TROUBLES),
    "rail": set(RAILS),
    "window": {"24h", "30d"},
    "commodity": {token.value for token in TOKENS},
}


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Yield every series that is asked for; a ValueError where the query is none."""
    parts = promql_parser.parse(expression) if isinstance(expression, str) else expression
    if isinstance(parts, promql_parser.VectorSelector):
        yield parts
    for name in ("lhs", "rhs", "expr", "vector_selector", "args", "param"):
        inner = getattr(parts, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None:
                yield from selectors(one)


def strange(expression: str) -> list[str]:
    """Return what a query asks for that is never told: a metric, a label of one, or a value of a label."""
    told = {metric.name: {*metric.labels} | OF_TARGETS for metric in METRICS} | {"up": OF_TARGETS}
    wrong = []
    for asked in selectors(expression):
        labels = told.get(asked.name or "", set())
        wrong += [] if labels else [f"{asked.name}"]
        for matcher in asked.matchers.matchers:
            values = matcher.value.split("|") if "Re" in str(matcher.op) else [matcher.value]
            known = VALUES.get(matcher.name)
            wrong += [f"{asked.name}: {matcher.name}={value}" for value in values if known and value not in known]
            wrong += [f"{asked.name}: {matcher.name}"] if labels and matcher.name not in labels else []
    return wrong


def test_a_query_for_what_is_never_told_is_found() -> None:
    """Wherever it stands in it; and one that is none at all is an error."""
    assert strange("sum by (x) (rate(topup_passes_total[5m])) > topup_balance_usd") == []
    assert strange("1 - -(topup_nothing)") == ["topup_nothing"]
    assert strange('absent(increase(topup_alarm{kind=~"runaway|typo"}[1h]))') == ["topup_alarm: kind=typo"]
    assert strange('topup_paused{code="paused"}') == ["topup_paused: code"]
    with pytest.raises(ValueError, match="unclosed"):
        strange("sum(topup_paused")


def test_every_alert_asks_for_what_is_told_and_leads_into_the_runbook() -> None:
    """With a severity that messages have, and an entry there under its name; and no entry is of another."""
    expressions = re.findall(r"^ {8}expr: (.+)$", RULES, re.MULTILINE)
    names = [name for name, _, _ in alerts(RULES)]
    assert len(expressions) == len(names) >= 15
    assert {expression: strange(expression) for expression in expressions if strange(expression)} == {}
    assert {severity for _, severity, _ in alerts(RULES)} <= {tier.name.lower() for tier in Tier}
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### `(\w+)`$", runbook.partition("\n## Alerts\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert entries == names
    links = re.findall(r"runbook_url: https://\S+/blob/main/docs/runbook\.md#(\S+)", RULES)
    assert links == [name.lower() for name in names]


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    """By Prometheus's own tests of rules, which try each both ways; the example of a configuration holds them."""
    tried = (PROMETHEUS / "topup.rules.test.yml").read_text(encoding="utf-8")
    for name, _, _ in alerts(RULES):
        assert f"name: {name} fires\n" in tried
        assert f"name: {name} keeps quiet\n" in tried
    for command in (["test", "rules", "topup.rules.test.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run(
            [require("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboard_asks_for_what_is_told() -> None:
    """Each panel has one at least, with a name of its own, and says what it shows."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels:
        expressions = [target["expr"] for target in panel["targets"]]
        assert expressions
        assert len({target["refId"] for target in panel["targets"]}) == len(expressions)
        assert [wrong for expression in expressions for wrong in strange(expression)] == [], panel["title"]
        assert panel["description"]
    asked = {one.name for panel in panels for target in panel["targets"] for one in selectors(target["expr"])}
    assert len(asked) >= 20


# -- a real Prometheus --------------------------------------------------------------------------------------------


@dataclass
class Prometheus:
    """A running one, asked by its API."""

    address: str

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=HANGS_S) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> list[str]:
        return [one["value"][1] for one in self.ask("query", query=expression)["result"]]

    def alert(self, name: str) -> str:
        """Return the state of an alert; "" while it is none."""
        return next((one["state"] for one in self.ask("alerts")["alerts"] if one["labels"]["alertname"] == name), "")


@contextmanager
def watching(folder: Path, scraped: str) -> Iterator[Prometheus]:
    """Run one by the example and the rules, every second, that scrapes this address."""
    config = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    config = config.replace("30s", "1s").replace("127.0.0.1:9464", scraped)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    (folder / "topup.rules.yml").write_text(RULES, encoding="utf-8")
    log, options = folder / "log", {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "data"}
    command = [str(require("prometheus")), "--web.listen-address=127.0.0.1:0"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with log.open("wb") as told, subprocess.Popen(command, stdout=told, stderr=told) as running:
        try:
            until(lambda: "Server is ready" in log.read_text("utf-8"), lambda: log.read_text("utf-8"))
            yield Prometheus(re.findall(r'"Listening on" address=(\S+)', log.read_text("utf-8"))[0])
        finally:
            running.kill()


@pytest.mark.machine_time
@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_daemon_and_raises_alerts(place: Served, tmp_path: Path) -> None:
    """The balance is there, and after it fell while nothing may be bought; then one alert fires and one is pending."""
    daemon = place.start("run", web__metrics="0")
    with watching(tmp_path, daemon.await_event("web_served")["address"]) as prometheus:
        until(lambda: prometheus.value("topup_balance_usd") == ["15"], daemon.log)
        assert prometheus.value("up") == ["1"]
        assert prometheus.value('topup_account_info{job="topup", account="default"}') == ["1"]
        assert prometheus.alert("TopupBuyingForbidden") == ""
        place.run("pause")
        place.low()
        until(lambda: prometheus.value("topup_balance_usd < topup_floor_usd") == ["9"], daemon.log)
        until(lambda: prometheus.alert("TopupBuyingForbidden") == "firing")
        until(lambda: prometheus.alert("TopupLowNotBuying") != "")
        place.run("resume")
        until(lambda: prometheus.value('topup_refills_total{outcome="done"}') == ["1"], daemon.log)
        assert prometheus.value("topup_credited_usd_total") == ["10"]
        assert float(prometheus.value("topup_wallet_left_eth_total")[0]) > 0
        until(lambda: prometheus.alert("TopupBuyingForbidden") == "")
        assert daemon.stop() == 0
        until(lambda: prometheus.alert("TopupAbsent") != "")
