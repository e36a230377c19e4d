"""Each alert fires for its fault and for no other. promtool evaluates the rules on the samples of a shop."""

import re
from pathlib import Path

import pytest

from tests.monitoring import rules
from tests.monitoring.faults import FAULTS, GET_ORDER, ORDER, SERVER_COUNT, Fault
from tests.monitoring.series import Series


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
    assert rules.check_firing(series, {fault.alert}, tmp_path) == ""


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
