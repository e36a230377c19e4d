"""Rules for all objects of the chart, whatever the values."""

import shutil
from pathlib import Path

import pytest

from tests.chart import tools
from tests.chart.pods import containers, pods
from tests.chart.sets import SETS


@pytest.mark.parametrize("name", SETS)
def test_pods_meet_restricted_standard(name: str) -> None:
    """Pod Security Standard `restricted`, a read-only root, no token, and resources."""
    for pod, _, spec in pods(*SETS[name]):
        assert spec["automountServiceAccountToken"] is False, pod
        assert spec["serviceAccountName"] != "default", pod
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, pod
            assert security["readOnlyRootFilesystem"] is True, pod
            assert security["capabilities"] == {"drop": ["ALL"]}, pod
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, pod
            assert "memory" in container["resources"]["limits"], pod


@pytest.mark.parametrize("name", SETS)
def test_pods_have_their_own_network_policy(name: str) -> None:
    rendered = tools.objects(*SETS[name])
    policies = [each["spec"] for each in rendered if each["kind"] == "NetworkPolicy"]
    if name == "minimal":
        assert not policies
        return
    everything = [each for each in policies if "app.kubernetes.io/component" not in each["podSelector"]["matchLabels"]]
    assert [each["policyTypes"] for each in everything] == [["Ingress", "Egress"]]
    assert not {"ingress", "egress"} & everything[0].keys()
    components = {each["podSelector"]["matchLabels"].get("app.kubernetes.io/component") for each in policies}
    for pod, metadata, _ in pods(*SETS[name]):
        assert metadata["labels"]["app.kubernetes.io/component"] in components, pod


def test_workload_selectors_are_distinct() -> None:
    selectors = [
        str(each["spec"]["selector"]) for each in tools.objects() if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert len(set(selectors)) == len(selectors) == 6


def test_selector_labels_are_unchanged() -> None:
    """Selectors are immutable; these are those of the first version."""
    selectors = [
        each["spec"]["selector"]["matchLabels"]
        for each in tools.objects()
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "shop-shopping-cart-product")
    ]
    assert selectors == [
        {
            "app.kubernetes.io/name": "shopping-cart",
            "app.kubernetes.io/instance": "shop",
            "app.kubernetes.io/component": "product",
        }
    ]


def test_chart_version_does_not_restart_database(tmp_path: Path) -> None:
    """Each database is one pod, so a restart fails calls."""
    newer = tmp_path / "shopping-cart"
    shutil.copytree(tools.CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(chart.read_text().replace(tools.version(), "9.9.9"))
    now, then = (
        [each["spec"]["template"] for each in tools.objects(chart=path) if each["kind"] == "StatefulSet"]
        for path in (tools.CHART, newer)
    )
    assert len(now) == 2
    assert now == then


def test_releases_share_no_object() -> None:
    one, two = (
        {(each["kind"], each["metadata"]["name"]) for each in tools.objects(release=name)} for name in ("one", "two")
    )
    assert not one & two


def test_grace_period_covers_shutdown() -> None:
    for pod, _, spec in pods("--set", "shutdown.delay=7,shutdown.grace=31"):
        if pod.startswith("Deployment") and "demo" not in pod:
            assert spec["terminationGracePeriodSeconds"] > 7 + 31, pod


def test_autoscaler_owns_replicas() -> None:
    rendered = tools.objects("--set", "product.autoscaling.enabled=true")
    deployments = {each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "Deployment"}
    assert "replicas" not in deployments["shop-shopping-cart-product"]
    assert deployments["shop-shopping-cart-order"]["replicas"] == 1


@pytest.mark.parametrize(("seconds", "kept"), [("null", "left out"), ("0", 0), ("60", 60)])
def test_finished_job_ttl_follows_value(seconds: str, kept: int | str) -> None:
    jobs = [
        each["spec"]
        for each in tools.objects("--set", f"migration.ttlSecondsAfterFinished={seconds}")
        if each["kind"] == "Job"
    ]
    assert len(jobs) == 3
    assert {job.get("ttlSecondsAfterFinished", "left out") for job in jobs} == {kept}


def test_production_example_admits_gateway_only() -> None:
    rendered = {
        (each["kind"], each["metadata"]["name"]): each["spec"]
        for each in tools.objects(*SETS["production"])
        if each["kind"] in ("Service", "NetworkPolicy", "Ingress", "HTTPRoute", "GRPCRoute")
    }
    assert rendered["Service", "shop-shopping-cart-gateway"]["type"] == "ClusterIP"
    assert not {kind for kind, _ in rendered} & {"Ingress", "HTTPRoute", "GRPCRoute"}
    rules = rendered["NetworkPolicy", "shop-shopping-cart-gateway"]["ingress"]
    [rule] = (rule for rule in rules if {"port": 8080, "protocol": "TCP"} in rule["ports"])
    assert all("podSelector" in peer for peer in rule["from"])
