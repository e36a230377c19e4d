"""What autoscalers see: the rules of the prometheus-adapter, evaluated by promtool on the samples of a shop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import tools
from tests.monitoring import rules
from tests.monitoring.faults import order_database_is_slow, searches_queue, streams_are_many
from tests.monitoring.series import Series

FOLDER = tools.ROOT / "k8s" / "autoscaling"
DOCUMENTED = (tools.ROOT / "docs" / "metrics.md").read_text()
COMPONENTS = ("product", "order", "gateway")


def adapter_rules() -> dict[str, dict[str, Any]]:
    """The adapter's rules, by the name of the metric that they make."""
    found = yaml.safe_load((FOLDER / "values-prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return {rule["name"]["as"]: rule for rule in found}


def targets(component: str) -> dict[str, float]:
    """The average value for a pod that an autoscaler keeps, by metric."""
    autoscaler = yaml.safe_load((FOLDER / "values-autoscaling.yaml").read_text())[component]["autoscaling"]
    return {
        each["pods"]["metric"]["name"]: float(each["pods"]["target"]["averageValue"]) for each in autoscaler["metrics"]
    }


def query(metric: str, component: str) -> str:
    """What the adapter asks Prometheus for the pods of a Deployment, as its template has it."""
    rule = adapter_rules()[metric]
    filled = rule["metricsQuery"]
    for name, value in {
        "Series": rule["seriesQuery"].partition("{")[0],
        "LabelMatchers": f'namespace="NAMESPACE",pod=~"{component}-0|{component}-1"',
        "GroupBy": "pod",
    }.items():
        filled = filled.replace(f"<<.{name}>>", value)
    return str(filled)


def test_each_metric_has_a_rule() -> None:
    assert {metric for component in COMPONENTS for metric in targets(component)} == adapter_rules().keys()


@pytest.mark.parametrize("rule", adapter_rules().values(), ids=lambda rule: str(rule["name"]["as"]))
def test_rule_uses_an_exported_metric(rule: dict[str, Any]) -> None:
    """Another test compares docs/metrics.md with what the processes export."""
    name = rule["seriesQuery"].partition("{")[0]
    assert f"| `{name}` |" in DOCUMENTED
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


@pytest.mark.parametrize(
    ("component", "change", "expected"),
    [
        ("order", lambda series: None, (0, 0)),
        ("order", order_database_is_slow, (40, 40)),
        ("product", searches_queue, (0, 0)),
        ("gateway", lambda series: None, (100, 100)),
        ("gateway", streams_are_many, (100, 4800)),
    ],
    ids=["nothing waits", "calls wait", "searches wait", "some streams", "many streams"],
)
def test_adapter_returns_a_value_for_each_pod(
    component: str, change: Callable[[Series], None], expected: tuple[float, float], tmp_path: Path
) -> None:
    series = Series()
    change(series)
    ((metric, target),) = targets(component).items()
    wanted = {f'{{pod="{component}-{n}"}}': value for n, value in enumerate(expected)}
    assert rules.check_query(query(metric, component), wanted, series, tmp_path, "30m") == ""
    assert (max(expected) > target) == (change in (order_database_is_slow, streams_are_many))
