"""Metrics, alerts and dashboards: what the chart opens, creates and fills in."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.telemetry.event_loop import WINDOW
from tests.chart import tools
from tests.chart.pods import containers, pods, spec, variables

FILES = tools.CHART / "files" / "monitoring"
PORTS = {"product": 9464, "order": 9464, "sse": 9464, "envoy": 9465}
"""By container."""
FROM = ("--set", "telemetry.metrics.from[0].podSelector.matchLabels.app=prometheus")
MONITOR = ("--set", "telemetry.metrics.podMonitor.enabled=true")
RULES = ("--set", "telemetry.metrics.rules.enabled=true")
DASHBOARDS = ("--set", "telemetry.metrics.dashboards.enabled=true")
OFF = ("--set", "telemetry.metrics.enabled=false")
TRACES = ("--set", "telemetry.endpoint=http://collector:4317")


def ports(*arguments: str) -> dict[str, dict[str, int]]:
    """Returns the ports for metrics by name, by container."""
    return {
        container["name"]: found
        for _, _, each in pods(*arguments)
        for container in containers(each)
        if (
            found := {
                port["name"]: port["containerPort"] for port in container.get("ports", []) if "metrics" in port["name"]
            }
        )
    }


def only(kind: str, *arguments: str, release: str = "shop") -> dict[str, Any]:
    """Returns the only object of a kind."""
    [found] = (each for each in tools.objects(*arguments, release=release) if each["kind"] == kind)
    return found


def test_every_process_serves_metrics() -> None:
    names = {"envoy": "metrics-envoy"}
    assert ports() == {each: {names.get(each, "metrics"): port} for each, port in PORTS.items()}
    served = {
        container["name"]: variables(container)["METRICS_PORT"]
        for _, _, each in pods()
        for container in containers(each)
        if "METRICS_PORT" in {variable["name"] for variable in container.get("env", [])}
    }
    assert served == {each: str(port) for each, port in PORTS.items() if each != "envoy"}


def test_metrics_are_served_on_ipv6() -> None:
    """HTTP listens on the families that LISTEN_HOST names; 0.0.0.0, the default, is IPv4 only."""
    for pod in ("product", "order", "gateway"):
        container = spec(f"Deployment/shop-shopping-cart-{pod}", "--set", "ipFamilies={IPv6}")["containers"][0]
        assert variables(container)["LISTEN_HOST"] == "::"
        assert "LISTEN_HOST" not in variables(spec(f"Deployment/shop-shopping-cart-{pod}")["containers"][0])


def test_metrics_can_be_switched_off() -> None:
    assert ports(*OFF) == {}
    assert "METRICS_PORT" not in tools.template(*OFF)
    assert "9465" not in tools.template(*OFF)


def test_metrics_do_not_restart_databases() -> None:
    on, off = (
        [each["spec"]["template"] for each in tools.objects(*arguments) if each["kind"] == "StatefulSet"]
        for arguments in ((), OFF)
    )
    assert len(on) == 2
    assert on == off


@pytest.mark.parametrize(
    ("arguments", "peers"), [((), []), (FROM, [{"podSelector": {"matchLabels": {"app": "prometheus"}}}])]
)
def test_policies_admit_only_named_peers_to_metrics(arguments: tuple[str, ...], peers: list[Any]) -> None:
    found: dict[str, list[int]] = {}
    for each in tools.objects(*arguments):
        for rule in each["spec"].get("ingress", []) if each["kind"] == "NetworkPolicy" else []:
            numbers = [port["port"] for port in rule["ports"]]
            if {9464, 9465} & set(numbers):
                assert rule["from"] == peers
                found[each["metadata"]["name"].removeprefix("shop-shopping-cart-")] = numbers
    assert found == ({"product": [9464], "order": [9464], "gateway": [9464, 9465]} if peers else {})


def test_named_peers_reach_no_port_of_disabled_metrics() -> None:
    policies = [each for each in tools.objects(*OFF, *FROM) if each["kind"] == "NetworkPolicy"]
    assert policies == [each for each in tools.objects() if each["kind"] == "NetworkPolicy"]


def test_scrape_annotations_name_one_port_of_each_pod() -> None:
    arguments = ("--set", "telemetry.metrics.scrapeAnnotations.enabled=true")
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "9464", "prometheus.io/path": "/metrics"}
    found = {
        pod.removeprefix("Deployment/shop-shopping-cart-"): each
        for pod, metadata, _ in pods(*arguments)
        if (each := {key: value for key, value in metadata.get("annotations", {}).items() if "prometheus" in key})
    }
    assert found == {"product": wanted, "order": wanted, "gateway": wanted}
    assert "prometheus.io" not in tools.template()


def test_pod_annotations_replace_scrape_annotations() -> None:
    own = ("--set-string", "gateway.podAnnotations.prometheus\\.io/port=9465")
    arguments = ("--set", "telemetry.metrics.scrapeAnnotations.enabled=true", *own)
    [metadata] = (metadata for pod, metadata, _ in pods(*arguments) if pod.endswith("-gateway"))
    assert metadata["annotations"]["prometheus.io/port"] == "9465"


def test_pod_monitor_selects_all_pods_with_metrics() -> None:
    selector = only("PodMonitor", *MONITOR)["spec"]["selector"]
    [expression] = selector["matchExpressions"]
    selected = {
        pod
        for pod, metadata, _ in pods()
        if selector["matchLabels"].items() <= metadata["labels"].items()
        and metadata["labels"][expression["key"]] in expression["values"]
    }
    served = {pod for pod, _, each in pods() if any(container["name"] in PORTS for container in containers(each))}
    assert selected == served
    assert len(served) == 3


def test_pod_monitor_scrapes_every_port() -> None:
    made = only("PodMonitor", *MONITOR)["spec"]
    names = {name for each in ports().values() for name in each}
    assert {each["port"] for each in made["podMetricsEndpoints"]} == names
    paths = {each["port"]: each["path"] for each in made["podMetricsEndpoints"]}
    assert paths == {"metrics": "/metrics", "metrics-envoy": "/stats/prometheus"}
    assert made["podTargetLabels"] == ["app.kubernetes.io/instance", "app.kubernetes.io/component"]


def test_custom_resources_are_off_by_default() -> None:
    """A cluster without their definitions would refuse the release."""
    assert "monitoring.coreos.com" not in tools.template()
    assert not [each for each in tools.objects() if "dashboard" in each["metadata"]["name"]]


def test_alerts_are_those_of_the_file() -> None:
    """Filled in with namespace and release; what Prometheus fills in itself stays."""
    text = (FILES / "alerts.yaml").read_text()
    assert "{{" in text
    made = only("PrometheusRule", *RULES, release="one")
    assert made["spec"] == yaml.safe_load(text.replace("NAMESPACE", "shop").replace("RELEASE", "one"))


@pytest.mark.parametrize(("url", "begin"), [("", "docs/"), ("https://git.example.com/a$1b", None)])
def test_alerts_link_to_the_docs(url: str, begin: str | None) -> None:
    made = only("PrometheusRule", *RULES, "--set", f"telemetry.metrics.rules.docsUrl={url}")
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    links = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert links
    for link in links:
        path, _, anchor = link.removeprefix(url + "/" if url else "docs/").partition("#")
        assert link.startswith(begin or url + "/"), link
        assert (tools.ROOT / "docs" / path).is_file(), link
        assert anchor, link


def test_documented_command_writes_a_file_of_rules(tmp_path: Path) -> None:
    text = (tools.ROOT / "docs/kubernetes.md").read_text()
    [command] = (each for each in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "monitoring/rules.yaml" in each)
    environment = {**os.environ, "PATH": f"{Path(tools.helm()).parent}:{os.environ['PATH']}"}
    command = command.replace("shop-alerts.yaml", str(tmp_path / "alerts.yaml"))
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=tools.ROOT, env=environment, check=True)
    assert yaml.safe_load((tmp_path / "alerts.yaml").read_text()) == only("PrometheusRule", *RULES)["spec"]


def test_documented_scrape_configuration_finds_every_port() -> None:
    text = (tools.ROOT / "docs/kubernetes.md").read_text()
    [block] = (each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "scrape_configs" in each)
    [job] = yaml.safe_load(block)["scrape_configs"]
    by_port = [each for each in job["relabel_configs"] if "container_port_name" in each.get("source_labels", [""])[0]]
    [kept] = (each["regex"] for each in by_port if each.get("action") == "keep")
    [moved] = (each for each in by_port if each.get("target_label") == "__metrics_path__")
    endpoints = only("PodMonitor", *MONITOR)["spec"]["podMetricsEndpoints"]
    for each in endpoints:
        assert re.fullmatch(kept, each["port"])
        path = moved["replacement"] if re.fullmatch(moved["regex"], each["port"]) else "/metrics"
        assert path == each["path"]
    assert not re.fullmatch(kept, "grpc")


def test_each_dashboard_is_a_config_map() -> None:
    folder = ("--set", "telemetry.metrics.dashboards.folder=Shop")
    found = [each for each in tools.objects(*DASHBOARDS, *folder) if "-dashboard-" in each["metadata"]["name"]]
    assert {name for each in found for name in each["data"]} == {path.name for path in FILES.glob("*.json")}
    for each in found:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "Shop"}
        [text] = each["data"].values()
        assert json.loads(text)["title"]


def test_metrics_are_sent_only_on_request() -> None:
    product = "Deployment/shop-shopping-cart-product"
    for arguments, exporter in ((TRACES, "none"), ((*TRACES, "--set", "telemetry.metrics.otlp=true"), "otlp")):
        assert variables(spec(product, *arguments)["containers"][0])["OTEL_METRICS_EXPORTER"] == exporter
    assert "OTEL_" not in tools.template()


@pytest.mark.parametrize("ratio", ["0", "1", "0.07", "0.0001"])
def test_share_of_traces_is_the_same_everywhere(ratio: str) -> None:
    """For Envoy, which begins most traces, and for the services."""
    arguments = (*TRACES, "--set", f"telemetry.traces.sampleRatio={ratio}")
    for _, _, each in pods(*arguments):
        for container in containers(each):
            names = {variable["name"] for variable in container.get("env", [])}
            if "OTEL_EXPORTER_OTLP_ENDPOINT" in names:
                assert variables(container)["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
                assert variables(container)["OTEL_TRACES_SAMPLER_ARG"] == ratio
    [config] = (
        each["data"]["envoy.yaml"]
        for each in tools.objects(*arguments)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-gateway")
    )
    [numerator] = re.findall(r'sampling_percentage: {numerator: "([0-9]+)", denominator: MILLION}', config)
    assert int(numerator) == pytest.approx(1_000_000 * float(ratio))


def test_no_lag_of_the_event_loop_is_lost_between_two_scrapes() -> None:
    for endpoint in only("PodMonitor", *MONITOR)["spec"]["podMetricsEndpoints"]:
        assert float(endpoint["interval"].removesuffix("s")) <= WINDOW
