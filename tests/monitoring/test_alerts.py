"""Each alert fires for its fault and for no other. promtool evaluates the rules on the samples of a shop."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring import rules
from tests.monitoring.faults import FAULTS, GET_ORDER, ORDER, SERVER_COUNT, Fault
from tests.monitoring.series import FAULT_START, STEP, Series


def severity(fault: Fault) -> str:
    """The severity of a fault's alert."""
    (label,) = (alert["labels"]["severity"] for alert in rules.alerts() if alert["alert"] == fault.alert)
    assert ("{{" in label) == bool(fault.severity), fault
    return fault.severity or str(label)


NO_CAUSE = {
    "ShopBug",
    "ShopCartsNotPurged",
    "ShopCertificateExpiring",
    "ShopHoldsOverdue",
    "ShopOutboxStuck",
    "ShopRateLimited",
    "ShopRestarting",
    "ShopStreamsNearLimit",
}
"""Alerts whose faults no `unless` of a critical alert can know."""


def pairs() -> Iterator[tuple[Fault, str, tuple[Fault, ...]]]:
    """Yields each critical fault that could be hidden, with the name of each that is not critical, and what it is.

    An alert without `unless` cannot be hidden. Faults without a cause count as one: they occur all at once.
    """
    hidable = {alert["alert"] for alert in rules.alerts() if re.search("unless|label_replace", alert["expr"])}
    others = [fault for fault in FAULTS if severity(fault) != "critical"]
    named: dict[str, tuple[Fault, ...]] = {str(fault): (fault,) for fault in others if fault.alert not in NO_CAUSE}
    named["all without a cause"] = tuple({fault.alert: fault for fault in others if fault.alert in NO_CAUSE}.values())
    for fault in FAULTS:
        if severity(fault) == "critical" and fault.alert in hidable:
            yield from ((fault, name, each) for name, each in named.items())


def test_promtool_accepts_the_rules() -> None:
    done = rules.run("check", "rules", "--lint=all", "--lint-fatal", rules.ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_people_need() -> None:
    for alert in rules.alerts():
        name = alert["alert"]
        assert re.findall("critical|warning|info", alert["labels"]["severity"]), name
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}", name


def test_each_alert_has_a_fault() -> None:
    assert {alert["alert"] for alert in rules.alerts()} == {fault.alert for fault in FAULTS}


def test_each_selector_is_of_this_release() -> None:
    """Two releases share a Prometheus."""
    own = '{namespace="NAMESPACE",app_kubernetes_io_instance="RELEASE"'
    for rule in rules.rules():
        assert rule["expr"].count("{") == rule["expr"].count(own), rule


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_fires_its_alert_and_no_other(fault: Fault, tmp_path: Path) -> None:
    series = Series()
    fault.change(series)
    firing = 'group by (alertname, severity) (count_over_time(ALERTS{alertstate="firing"}[45m]))'
    expected = {f'{{alertname="{fault.alert}",severity="{severity(fault)}"}}': 1}
    assert rules.check_query(firing, expected, series, tmp_path, "45m") == ""


@pytest.mark.timeout(600)
def test_a_warning_hides_no_critical_alert(tmp_path: Path) -> None:
    """A critical fault fires a critical alert within twelve minutes, whatever else there is.

    promtool evaluates all pairs in one go, and only what matters to them: rules that record, and critical alerts.
    """
    kept = [rule for rule in rules.rules() if "record" in rule or "critical" in rule["labels"]["severity"]]
    rules_file = tmp_path / "rules.json"
    rules_file.write_text(json.dumps({"groups": [{"name": "shopping-cart", "rules": kept}]}))
    part = slice(FAULT_START - 60 // STEP, FAULT_START + 12 * 60 // STEP, 30 // STEP)
    query = 'group(count_over_time(ALERTS{alertstate="firing",severity="critical"}[13m]))'
    named = 'label_replace(%s, "pair", "%s", "", "")'

    cases = []
    for critical, name, others in pairs():
        series = Series()
        for fault in (*others, critical):
            fault.change(series)
        pair = f"{critical} with {name}"
        samples = [{"labels": f'{{pair="{pair}"}}', "value": 1}]
        test = {"expr": named % (query, pair), "eval_time": "12m", "exp_samples": samples}
        cases.append({"interval": "30s", "input_series": series.input(part), "promql_expr_test": [test]})
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps({"rule_files": [str(rules_file)], "evaluation_interval": "2m", "tests": cases}))
    done = rules.run("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_half_a_minute_of_a_fault_calls_nobody(fault: Fault, tmp_path: Path) -> None:
    series = Series(seconds=30)
    fault.change(series)
    assert rules.check_firing(series, {fault.blip} - {""}, tmp_path) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_is_told_once(fault: Fault, tmp_path: Path) -> None:
    """Not once for each symptom by which the rules know it: a series of a cause differs by what has the fault."""
    series = Series()
    fault.change(series)
    what = "cause, app_kubernetes_io_component, pod, container, pool, job_name"
    assert rules.check_query(f"count by ({what}) (shop:cause) > 1", {}, series, tmp_path, "20m") == ""


@pytest.mark.parametrize("calls", [2, 0.01, 0], ids=["busy", "quiet", "no customers"])
def test_healthy_shop_fires_nothing(calls: float, tmp_path: Path) -> None:
    assert rules.check_firing(Series(calls=calls), (), tmp_path) == ""


def test_a_bug_of_yesterday_fires_nothing(tmp_path: Path) -> None:
    series = Series()
    labels = {"rpc_method": GET_ORDER, "rpc_response_status_code": "INTERNAL", "pod": "order-0", **ORDER}
    series.keep(3, SERVER_COUNT, **labels)
    assert rules.check_firing(series, (), tmp_path, last="20m") == ""


def test_a_bug_before_a_gap_in_scrapes_is_not_new(tmp_path: Path) -> None:
    series = Series(seconds=8 * 60)
    labels = {"rpc_method": GET_ORDER, "rpc_response_status_code": "INTERNAL", "pod": "order-0", **ORDER}
    series.keep(3, SERVER_COUNT, **labels)
    series.end(pod="order-0")
    assert rules.check_firing(series, {"ShopTargetDown"}, tmp_path, last="30m") == ""
